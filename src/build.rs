//! Compresses the embedded page and gives its files one address per content, so that browsers may keep them for ever;
//! compresses the description of the routes; asks the linker for a smaller binary, where it can make one.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;

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
        fs::write(&path, gzip(&content)).expect("OUT_DIR is writable");
        writeln!(table, "    ({name:?}, include_bytes!({:?})),", path.display().to_string())
            .expect("a String takes every write");
    }
    table.push_str("];\n");
    fs::write(out_dir.join("assets.rs"), table).expect("OUT_DIR is writable");
    let description = "src/api/openapi/routes.txt";
    println!("cargo:rerun-if-changed={description}");
    let text = fs::read(description).expect("the description is part of the source");
    fs::write(out_dir.join("routes.gz"), gzip(&text)).expect("OUT_DIR is writable");
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).expect("a Vec takes every write");
    encoder.finish().expect("a Vec takes every write")
}

/// Scripts and styles without what only people need, comments and blanks: a seventh less to send and to keep. No text of
/// theirs goes over several lines.
fn lean(name: &str, content: Vec<u8>) -> Vec<u8> {
    match Path::new(name).extension().and_then(|kind| kind.to_str()) {
        Some("js") => lean_script(&content),
        Some("css") => lean_style(&String::from_utf8(content).expect("the page is UTF-8")).into_bytes(),
        _ => content,
    }
}

/// Lines stay lines: they end statements.
fn lean_script(s: &[u8]) -> Vec<u8> {
    let is_tight = |byte: u8| b"{}()[],;:=<>?&|!*\n".contains(&byte);
    let mut lean: Vec<u8> = Vec::with_capacity(s.len());
    let mut i = 0;
    while i < s.len() {
        let (before, next) = (lean.last().copied().unwrap_or(b'\n'), s.get(i + 1).copied().unwrap_or(b'\n'));
        let end = match s[i] {
            b'\'' | b'"' | b'`' => behind_text(s, i),
            b'/' if next == b'/' => {
                i += s[i..].iter().position(|&byte| byte == b'\n').unwrap_or(s.len() - i);
                continue;
            }
            b'/' if b"(,=:[!&|?{};\n>".contains(&before) || lean.ends_with(b"return ") => behind_pattern(s, i),
            b' ' if is_tight(before) || is_tight(next) || next == b' ' || s[i + 1..].starts_with(b"//") => {
                i += 1;
                continue;
            }
            b'\n' if before == b'\n' => {
                i += 1;
                continue;
            }
            _ => i + 1,
        };
        let end = end.min(s.len());
        lean.extend_from_slice(&s[i..end]);
        i = end;
    }
    lean
}

/// Where a text ends that begins here; templates may hold code with texts of its own.
fn behind_text(s: &[u8], at: usize) -> usize {
    let (quote, mut i) = (s[at], at + 1);
    while i < s.len() && s[i] != quote {
        match s[i] {
            b'\\' => i += 2,
            b'$' if quote == b'`' && s.get(i + 1) == Some(&b'{') => i = behind_code(s, i + 2),
            _ => i += 1,
        }
    }
    i + 1
}

fn behind_code(s: &[u8], mut i: usize) -> usize {
    let mut depth = 1;
    while i < s.len() && depth > 0 {
        match s[i] {
            b'\'' | b'"' | b'`' => {
                i = behind_text(s, i);
                continue;
            }
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        i += 1;
    }
    i
}

fn behind_pattern(s: &[u8], at: usize) -> usize {
    let (mut i, mut in_class) = (at + 1, false);
    while i < s.len() && (s[i] != b'/' || in_class) {
        match s[i] {
            b'\\' => i += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            _ => {}
        }
        i += 1;
    }
    i + 1
}

fn lean_style(text: &str) -> String {
    let mut lean = String::with_capacity(text.len());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if !(line.starts_with("/*") && line.ends_with("*/")) {
            let tight = [(": ", ":"), (", ", ","), ("; ", ";"), (" {", "{"), ("{ ", "{"), (" }", "}"), (";}", "}")];
            lean.push_str(&tight.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to)));
            lean.push('\n');
        }
    }
    lean
}

/// Relocations in the packed form, a tenth of the size: lld can write it, glibc reads it from 2.36 on. Only where rustc
/// links with its own lld, for this very machine; elsewhere the binary is 3 % larger.
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
