//! What shells and readers of manuals get: made from the tree of commands.

use std::process::{Command, Stdio};

fn holt(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_holt")).args(words).env_clear().output().unwrap();
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What bash would offer behind that line; None where there is no bash.
fn offered(line: &[&str]) -> Option<Vec<String>> {
    let script = r#"source /dev/stdin <<<"$(holt completions bash)"
        complete -p holt >/dev/null || exit 9
        COMP_WORDS=(holt "$@"); COMP_CWORD=$#; _holt; printf '%s\n' "${COMPREPLY[@]}""#;
    let directory = std::path::Path::new(env!("CARGO_BIN_EXE_holt")).parent().unwrap();
    let output = Command::new("bash")
        .args(["--norc", "-c", script, "bash"])
        .args(line)
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", directory.display()))
        .stdin(Stdio::null())
        .output()
        .ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

#[test]
fn bash_offers_what_the_binary_knows() {
    for (line, expected) in [
        (&["back"][..], &["backup"][..]),
        (&["keys", "cre"], &["create"]),
        (&["costs", "--by", "m"], &["model"]),
        (&["import", "--dr"], &["--dry-run"]),
        (&["service", "install", "--us"], &["--user"]),
        (&["completions", ""], &["bash", "zsh", "fish"]),
        (&["import", "/et"], &[]),
        (&["no-such", "x"], &[]),
    ] {
        let Some(found) = offered(line) else { return };
        assert_eq!(found, expected, "{line:?}");
    }
}

/// The same line in a real zsh, at a terminal of its own, after Tab.
const ZSH: &str = r#"zmodload zsh/zpty
    zpty z zsh -f -i
    zpty -w z 'PS1=; autoload -Uz compinit; compinit -u -D; source <(holt completions zsh); echo READY'
    zpty -r z out '*READY*READY*'
    zpty -w -n z "holt $*"$'\t\x01echo "<" \x05 ">"\n'
    zpty -r z out '*<*>*<*>*'
    print -r -- "${${out##*<}%%>*}"
    zpty -d z"#;
const FISH: &str = r#"holt completions fish | source; complete -C "holt $argv""#;

/// What that shell says; None where it is not installed.
fn shell(name: &str, script: &str, words: &[&str]) -> Option<String> {
    let binaries = std::path::Path::new(env!("CARGO_BIN_EXE_holt")).parent().unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(name);
    match name {
        "zsh" => command.args(["-f", "-c", script, "zsh"]),
        _ => command.args(["--no-config", "-c", script]),
    };
    command.args(words).env_clear().env("HOME", home.path()).env("TERM", "dumb").current_dir(home.path());
    command.env("PATH", format!("{}:/usr/bin:/bin", binaries.display()));
    std::fs::write(home.path().join("kept.tar"), "").unwrap();
    let output = command.stdin(Stdio::null()).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn zsh_completes_in_a_terminal() {
    for (line, expected) in [
        ("keys cre", "holt keys create"),
        ("costs --by mod", "holt costs --by model"),
        ("import --dr", "holt import --dry-run"),
        ("restore kep", "holt restore kept.tar"),
    ] {
        let Some(found) = shell("zsh", ZSH, &[line]) else { return };
        // What was typed, as the terminal echoed it, or what was printed: both are the completed line.
        assert_eq!(found.trim_matches(['"', ' ', '\n', '\r']), expected, "{found:?}");
    }
}

#[test]
fn fish_offers_words_or_else_files() {
    for (line, expected) in [
        ("keys cre", "create\tMake a key"),
        ("costs --by m", "model"),
        ("completions ", "bash\nfish\nzsh"),
        ("restore kep", "kept.tar"),
    ] {
        let Some(found) = shell("fish", FISH, &[line]) else { return };
        assert_eq!(found.trim(), expected, "{line}");
    }
}

#[test]
fn other_shells_and_readers_are_served() {
    assert!(holt(&["completions", "zsh"]).starts_with("#compdef holt\n"));
    assert!(holt(&["completions", "fish"]).contains("complete -c holt"));
    let about = "keys:";
    assert!(holt(&["completions", "zsh", "--", "ke"]).starts_with(about));
    assert!(holt(&["completions", "fish", "--", "ke"]).starts_with("keys\t"));
    let page = holt(&["man"]);
    assert!(page.starts_with(".TH HOLT 1 ") && page.contains(".SS holt backup\n"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &page).unwrap();
    // Where groff is, it finds nothing to complain about.
    if let Ok(output) = Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(file.path()).output() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.is_empty(), "{said}");
    }
}

#[test]
fn a_container_can_ask_whether_the_hub_is_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = crate::support::Hub::start(dir.path());
    assert_eq!(holt(&["health", "--address", &hub.address]), "ok\n");
    let of_dir = ["health", "--data-dir", dir.path().to_str().unwrap()];
    assert_eq!(holt(&of_dir), "ok\n", "it is found wherever it listens");
    let said = std::fs::read_to_string(dir.path().join("holt.address")).unwrap();
    hub.kill();
    assert!(said.contains(&hub.address) && dir.path().join("holt.address").exists(), "{said}");
    let fails = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_holt")).args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(fails(&["health", "--address", &hub.address]).contains("is not well"));
    // What a hub that was killed had said does not count: somebody else may have the address by now.
    let error = fails(&of_dir);
    assert!(error.contains("127.0.0.1:8080") && !error.contains(&hub.address), "{error}");
    let mut hub = crate::support::Hub::start(dir.path());
    assert_eq!(holt(&of_dir), "ok\n");
    hub.signal("TERM");
    hub.wait();
    assert!(!dir.path().join("holt.address").exists());
}

#[test]
fn a_hub_that_speaks_tls_is_asked_in_tls() {
    let dir = tempfile::tempdir().unwrap();
    let hub = crate::support::hub::Builder::new(dir.path()).tls("self-signed.pem", "hub.key").start();
    let of_dir = ["health", "--data-dir", dir.path().to_str().unwrap()];
    assert_eq!(holt(&of_dir), "ok\n");
    assert_eq!(holt(&[&of_dir[..], &["--address", &hub.address]].concat()), "ok\n");
    assert_eq!(holt(&[&of_dir[..], &["--address", &format!("https://{}", hub.address)]].concat()), "ok\n");
    let plain = ["health", "--address", &format!("http://{}", hub.address)];
    let output = Command::new(env!("CARGO_BIN_EXE_holt")).args(plain).output().unwrap();
    assert!(output.status.code() == Some(1) && output.stdout.is_empty(), "its refusal of plain text is no health");
}
