//! `holt machines` and `holt alerts` on the database of a hub.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::Hub;

/// Exit code, stdout and stderr of a command on that data directory.
fn run(dir: &Path, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
    command.args(words).arg("--data-dir").arg(dir).env_clear().stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn done(dir: &Path, words: &[&str]) -> String {
    let (code, out, error) = run(dir, words);
    assert_eq!(code, 0, "{words:?}: {error}");
    out
}

/// Fails with that exit code and one line that holds the part.
fn refused(dir: &Path, words: &[&str], code: i32, part: &str) {
    let (found, out, error) = run(dir, words);
    assert!(found == code && out.is_empty(), "{words:?}: {found} {out}");
    assert!(error.starts_with("error: ") && error.contains(part) && error.lines().count() == 1, "{error}");
}

#[test]
fn a_join_code_is_one_line_to_run_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    refused(dir.path(), &["machines", "list"], 1, "no database at");
    let hub = Hub::start(dir.path());
    assert_eq!(done(&hub.dir, &["machines", "list"]), "No machines yet.\nLet one join with: holt machines join\n");
    let (code, out, error) = run(
        &hub.dir,
        &["machines", "join", "--name", "nas", "--label", "room=cellar", "--url", "hub.example:8080", "--ttl", "30m"],
    );
    assert_eq!(code, 0, "{error}");
    let typed = out.strip_prefix("holt agent --hub http://hub.example:8080 --join hj_").unwrap().trim_end();
    let (secret, fingerprint) = typed.rsplit_once('_').unwrap();
    assert!(secret.len() >= 43 && fingerprint.len() == 32, "{typed}");
    assert!(fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()), "{typed}");
    assert!(error.starts_with("run this line on the other machine, once, before 2"), "{error}");
    // The same hub every time, another secret every time.
    let again = done(&hub.dir, &["machines", "join", "--url", "hub.example:8080"]);
    assert!(again.trim_end().ends_with(fingerprint) && !again.contains(secret), "{again}");
    assert!(!done(&hub.dir, &["audit", "--action", "machine.", "--json"]).contains(secret));

    // The hub of the test listens where no other machine can reach it.
    std::fs::write(dir.path().join("holt.toml"), "[api]\nlisten = \"127.0.0.1:0\"\n").unwrap();
    refused(dir.path(), &["machines", "join"], 1, "other machines cannot reach");
    std::fs::write(dir.path().join("holt.toml"), "[api]\nexternal_url = \"https://hub.example\"\n").unwrap();
    assert!(done(dir.path(), &["machines", "join"]).starts_with("holt agent --hub https://hub.example --join hj_"));
    for (words, part) in [
        (&["machines", "join", "--ttl", "31d"][..], "at most 30d"),
        (&["machines", "join", "--label", "room"], "NAME=VALUE"),
        (&["machines", "join", "--label", "room="], "has no value"),
        (&["machines", "join", "--url", "http://hub/path"], "http://hub:8080"),
        (&["machines", "set", "nas"], "nothing to set"),
        (&["machines", "set", "nas", "--expected-off", "maybe"], "only: yes, no"),
        (&["alerts", "show", "x"], "a whole number"),
        (&["alerts", "silence", "1"], "--for <DURATION> is missing"),
        (&["alerts", "silence", "1", "--for", "400d"], "at most 365d"),
    ] {
        refused(&hub.dir, words, 2, part);
    }
    for command in ["show", "approve", "revoke", "rotate", "forget"] {
        refused(&hub.dir, &["machines", command, "nas"], 1, "called \"nas\"; see: holt machines list");
    }
}

#[test]
fn what_does_not_exist_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    assert_eq!(done(&hub.dir, &["alerts", "list"]), "Nothing is wrong.\n");
    assert_eq!(done(&hub.dir, &["alerts", "list", "--state", "all"]), "No alerts like that.\n");
    assert_eq!(done(&hub.dir, &["alerts", "list", "--json"]), "");
    for words in [&["show", "7"][..], &["ack", "7"], &["silence", "7", "--for", "1h"], &["close", "7"]] {
        refused(&hub.dir, &[&["alerts"], words].concat(), 1, "no alert 7; see: holt alerts list --state all");
    }
}
