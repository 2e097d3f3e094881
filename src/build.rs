//! Compresses the embedded page and gives its files one address per content, so that browsers may keep them for ever;
//! compresses the description of the routes; asks the linker for a smaller binary, where it can make one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use zopfli::{Format, Options};

fn main() {
    make_smaller();
    let assets = Path::new("src/web/assets");
    println!("cargo:rerun-if-changed={}", assets.display());
    let out_dir = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(assets)
        .expect("the assets are part of the source")
        .map(|entry| {
            let path = entry.expect("a readable directory").path();
            println!("cargo:rerun-if-changed={}", path.display());
            let name = path.file_name().and_then(|name| name.to_str()).expect("plain names").to_owned();
            (name, fs::read(&path).expect("a readable file"))
        })
        .collect();
    files.sort();
    let version = fnv(&files);
    let mut table =
        format!("pub(super) static VERSION: &str = \"{version}\";\npub(super) static FILES: &[(&str, &[u8])] = &[\n");
    for (name, content) in files {
        let content = if name == "index.html" {
            let page = String::from_utf8(content).expect("the page is UTF-8");
            page.replace("/assets/", &format!("/assets/{version}/")).into_bytes()
        } else {
            lean(&name, content)
        };
        let path = out_dir.join(format!("{name}.gz"));
        compress(&path, &content);
        writeln!(table, "    ({name:?}, include_bytes!({:?})),", path.display().to_string())
            .expect("a String takes every write");
    }
    table.push_str("];\n");
    fs::write(out_dir.join("assets.rs"), table).expect("OUT_DIR is writable");
    let description = "src/api/openapi/routes.txt";
    println!("cargo:rerun-if-changed={description}");
    let text = fs::read(description).expect("the description is part of the source");
    compress(&out_dir.join("routes.gz"), &text);
}

/// Writes a file compressed. Only what has changed since the last build: this takes seconds for the whole page.
fn compress(path: &Path, content: &[u8]) {
    let options = Options::default();
    // What the compressed file was made from, and how; written last.
    let made_from = path.with_extension(format!("from{}", options.iteration_count));
    if path.exists() && fs::read(&made_from).is_ok_and(|before| before == content) {
        return;
    }
    let mut compressed = Vec::new();
    zopfli::compress(options, Format::Gzip, content, &mut compressed).expect("a Vec takes every write");
    fs::write(path, compressed).expect("OUT_DIR is writable");
    fs::write(made_from, content).expect("OUT_DIR is writable");
}

/// Scripts and styles without what only people need, comments and blanks: a seventh less to send and to keep. Ours, for
/// no minifier is worth a dependency (or Node) here. It knows the few forms that the page is written in and stops the
/// build at any other, so that nothing is changed unseen.
fn lean(name: &str, content: Vec<u8>) -> Vec<u8> {
    match Path::new(name).extension().and_then(|kind| kind.to_str()) {
        Some("js") => {
            let mut script = Script { name, s: &content, i: 0, out: Vec::with_capacity(content.len()), is_head: false };
            script.code(0);
            script.out
        }
        Some("css") => lean_style(name, &String::from_utf8(content).expect("the page is UTF-8")).into_bytes(),
        _ => content,
    }
}

/// A script, read up to `i`. Lines stay lines: they end statements.
struct Script<'a> {
    name: &'a str,
    s: &'a [u8],
    i: usize,
    out: Vec<u8>,
    /// The last parenthesis that was closed is that of an `if` or a loop: a statement follows.
    is_head: bool,
}

impl Script<'_> {
    /// Up to the bracket that closes it; 0 is the end of the file.
    fn code(&mut self, end: u8) {
        let is_tight = |byte: u8| b"{}()[],;:=<>?&|!*\n".contains(&byte);
        while let Some(&byte) = self.s.get(self.i) {
            let (before, behind) = (self.out.last().copied().unwrap_or(b'\n'), &self.s[self.i + 1..]);
            let next = behind.first().copied().unwrap_or(b'\n');
            match byte {
                b'\'' | b'"' | b'`' => self.text(),
                b'/' => self.slash(),
                b' ' if is_tight(before) || is_tight(next) || next == b' ' || behind.starts_with(b"//") => self.i += 1,
                b'\n' if before == b'\n' => self.i += 1,
                b'(' => {
                    let is_head = ["if", "while", "for", "with", "await"].contains(&self.word());
                    self.take(1);
                    self.code(b')');
                    self.is_head = is_head;
                }
                b'{' => {
                    self.take(1);
                    self.code(b'}');
                }
                b')' | b'}' if byte != end => self.refuse("this bracket closes nothing"),
                _ => {
                    self.take(1);
                    if byte == end {
                        return;
                    }
                }
            }
        }
        if end != 0 {
            self.refuse("a bracket is open");
        }
    }

    /// Texts stay as they are; templates may hold code.
    fn text(&mut self) {
        let quote = self.s[self.i];
        self.take(1);
        while let Some(&byte) = self.s.get(self.i) {
            match byte {
                b'\\' => self.take(2),
                b'$' if quote == b'`' && self.s[self.i..].starts_with(b"${") => {
                    self.take(2);
                    self.code(b'}');
                }
                _ => {
                    self.take(1);
                    if byte == quote {
                        return;
                    }
                }
            }
        }
        self.refuse("a text does not end");
    }

    /// A comment, a division or a pattern: what stands before tells which, where it is certain.
    fn slash(&mut self) {
        let rest = &self.s[self.i..];
        let line = &rest[..rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())];
        let before = self.out.trim_ascii_end().last().copied().filter(|_| self.out.last() != Some(&b'\n'));
        let word = before.map_or("", |_| self.word());
        let begins = |bytes: &[u8]| before.is_some_and(|before| bytes.contains(&before));
        if line.starts_with(b"//") {
            self.i += line.len();
        } else if line.starts_with(b"/*") {
            let end = line.windows(2).skip(2).position(|two| two == b"*/");
            match end.filter(|_| before.is_none() || begins(b"{};,")) {
                Some(end) => self.i += end + 4,
                None => self.refuse("a comment amid code, or over several lines"),
            }
        } else if word == "return" || begins(b"(,=:[!&|?{;>") {
            let (mut end, mut in_class) = (1, false);
            while end < line.len() && (line[end] != b'/' || in_class) {
                match line[end] {
                    b'\\' => end += 1,
                    b'[' => in_class = true,
                    b']' => in_class = false,
                    _ => {}
                }
                end += 1;
            }
            if end >= line.len() {
                self.refuse("a pattern does not end");
            }
            self.take(end + 1);
        } else if begins(b"]'\"`")
            || begins(b")") && !self.is_head
            || !word.is_empty() && !BEFORE_PATTERNS.split(' ').any(|known| known == word)
        {
            self.take(1);
        } else {
            self.refuse("a division or a pattern? Please write it otherwise");
        }
    }

    /// The word or number that was read last, with what it is a property of; empty if something else stands behind.
    fn word(&self) -> &str {
        let out = self.out.trim_ascii_end();
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_$.".contains(byte) || *byte >= 0x80;
        let begin = out.iter().rposition(|byte| !is_part(byte)).map_or(0, |at| at + 1);
        let word = std::str::from_utf8(&out[begin..]).unwrap_or_default();
        word.strip_prefix("...").unwrap_or(word)
    }

    fn take(&mut self, n: usize) {
        let end = (self.i + n).min(self.s.len());
        self.out.extend_from_slice(&self.s[self.i..end]);
        self.i = end;
    }

    fn refuse(&self, why: &str) -> ! {
        let line = self.s[..self.i.min(self.s.len())].split(|&byte| byte == b'\n').count();
        panic!("src/web/assets/{}:{line}: {why}", self.name);
    }
}

/// Words that an operand follows; `return` is known.
const BEFORE_PATTERNS: &str = "await case default delete do else extends in instanceof new of throw typeof void yield";

/// Comments have lines of their own; what is quoted stays as it is.
fn lean_style(name: &str, text: &str) -> String {
    let tight = [(": ", ":"), (", ", ","), ("; ", ";"), (" {", "{"), ("{ ", "{"), (" }", "}"), (";}", "}")];
    let mut lean = String::with_capacity(text.len());
    for (n, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
        let comment = line.strip_prefix("/*").and_then(|rest| rest.split_once("*/"));
        if comment.is_some_and(|(_, behind)| behind.is_empty()) {
            continue;
        }
        let parts: Vec<&str> = line.split('"').collect();
        let is_plain = parts.len() % 2 == 1 && !["/*", "*/", "'", "\\"].iter().any(|strange| line.contains(strange));
        assert!(is_plain, "src/web/assets/{name}:{}: a comment amid code, or quotes other than \"", n + 1);
        for (n, part) in parts.iter().enumerate() {
            if n > 0 {
                lean.push('"');
            }
            let is_code = n % 2 == 0;
            let tight = tight.iter().filter(|_| is_code);
            lean.push_str(&tight.fold((*part).to_owned(), |part, (from, to)| part.replace(from, to)));
        }
        lean.push('\n');
    }
    lean
}

/// Where rustc links with its own lld: functions of the same code become one, and, for this very machine, relocations have
/// the packed form, a tenth of the size, which glibc reads from 2.36 on. Elsewhere the binary is 4 % larger.
fn make_smaller() {
    let value = |name: &str| env::var(name).unwrap_or_default();
    let native = value("HOST") == value("TARGET");
    let chosen = value("CARGO_ENCODED_RUSTFLAGS").contains("link") || !value("RUSTC_LINKER").is_empty();
    if value("PROFILE") != "release" || value("TARGET") != "x86_64-unknown-linux-gnu" || !native || chosen {
        return;
    }
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
        output.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default()
    };
    // Rust 1.90 is the first that links with it unasked.
    let version = said(&value("RUSTC"), &["--version"]);
    let minor = version.strip_prefix("rustc 1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    let lld = Path::new(said(&value("RUSTC"), &["--print", "sysroot"]).trim())
        .join("lib/rustlib/x86_64-unknown-linux-gnu/bin/gcc-ld/ld.lld");
    if minor.is_none_or(|minor| minor < 90) || !lld.exists() {
        return;
    }
    println!("cargo:rustc-link-arg-bins=-Wl,--icf=safe"); // those whose address is nowhere taken
    let glibc = said("getconf", &["GNU_LIBC_VERSION"]);
    let minor = glibc.trim().strip_prefix("glibc 2.").and_then(|minor| minor.parse::<u32>().ok());
    if minor.is_some_and(|minor| minor >= 36) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// FNV-1a, 64 bits: names a version, protects nothing.
fn fnv(files: &[(String, Vec<u8>)]) -> String {
    let bytes = files.iter().flat_map(|(name, content)| name.bytes().chain([0]).chain(content.iter().copied()));
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}
