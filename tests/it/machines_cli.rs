//! `holt machines` and `holt alerts` on the database of a hub.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::Hub;
use crate::support::agent::{Agent, ID};
use crate::support::hub::Builder;

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

#[test]
fn machines_and_alerts_are_managed_while_the_hub_runs() {
    const SHARED: &str = "a token that all machines share";
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).config(&format!("[fleet]\nshared_token = \"{SHARED}\"\n")).start();
    hub.admin();
    let mut agent = Agent::reference(&hub.address, SHARED, ID, "pi-garage");
    let list = done(&hub.dir, &["machines", "list"]);
    let row = list.lines().nth(1).unwrap();
    assert!(row.starts_with(&ID[..8]) && row.contains("  pi-garage  online  "), "{list}");
    let set = ["machines", "set", "PI-Garage", "--name", "Garage", "--label", "room=shed", "--expected-off", "yes"];
    let shown = done(&hub.dir, &set);
    assert!(shown.starts_with("Machine ") && shown.contains(" Garage\n") && shown.contains("room=shed"), "{shown}");
    assert!(shown.contains("online, meant to be off") && shown.contains("shared with other machines"), "{shown}");
    assert!(!done(&hub.dir, &["machines", "set", "Garage", "--label", "room="]).contains("room=shed"));
    refused(&hub.dir, &["machines", "rotate", "Garage"], 1, "no token of its own");
    refused(&hub.dir, &["machines", "approve", "Garage"], 1, "does not wait for approval");

    let labels =
        BTreeMap::from([("check", "disk::space_usage"), ("target", "/data")].map(|(a, b)| (a.into(), b.into())));
    agent.send(
        "alert_events",
        json!({"events": [{
            "event_time": holt::rt::clock::unix_s(), "event_status": "Warning",
            "alert_key": holt::alert::key_of(&labels), "labels": labels, "description": "disk is 92 % full",
        }]}),
    );
    assert_eq!(agent.take("ack")["ok"], true);
    let list = done(&hub.dir, &["alerts", "list", "--machine", "Garage", "--level", "warning"]);
    let row = list.lines().nth(1).unwrap();
    assert!(row.contains("Warning  Garage   disk::space_usage  /data") && row.ends_with("disk is 92 % full"), "{list}");
    let id = row.split(' ').next().unwrap();
    assert!(done(&hub.dir, &["machines", "list"]).lines().nth(1).unwrap().ends_with("  1 warning"));
    assert!(done(&hub.dir, &["alerts", "ack", id, "--note", "new disk is ordered"]).starts_with("Acknowledged"));
    let shown = done(&hub.dir, &["alerts", "show", id]);
    assert!(shown.contains("acknowledged") && shown.contains("new disk is ordered"), "{shown}");
    assert!(done(&hub.dir, &["alerts", "silence", id, "--for", "4h"]).starts_with("Silenced"));
    assert!(done(&hub.dir, &["alerts", "list"]).contains("  silent  "));
    assert!(done(&hub.dir, &["alerts", "silence", id, "--for", "0"]).starts_with("No longer silent"));
    assert!(done(&hub.dir, &["alerts", "close", id]).starts_with("Closed"));
    refused(&hub.dir, &["alerts", "ack", id], 1, "is closed already");
    assert!(done(&hub.dir, &["alerts", "list", "--state", "closed"]).contains("  by hand  "));

    refused(&hub.dir, &["machines", "revoke", "nobody"], 1, "machines list");
    assert!(done(&hub.dir, &["machines", "revoke", "Garage"]).starts_with("Revoked Garage ("));
    assert_eq!(agent.close_code(), Some((1008, "revoked".to_owned())));
    assert!(done(&hub.dir, &["machines", "forget", &ID[..8], "--yes"]).starts_with("Forgot Garage ("));
    assert_eq!(
        done(&hub.dir, &["machines", "list", "--state", "revoked"]).lines().next(),
        Some("No machines like that.")
    );
    let audit = done(&hub.dir, &["audit"]);
    for action in
        ["machine.change", "machine.revoke", "machine.forget", "alert.acknowledge", "alert.silence", "alert.close"]
    {
        assert!(audit.contains(action), "{action}: {audit}");
    }
}
