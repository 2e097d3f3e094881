//! `holt doctor`: what is wrong is found and told with a way out; what is well is not.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::Hub;
use crate::support::hub::Builder;

fn doctor(dir: &Path, words: &[&str]) -> (i32, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
    command.args(["doctor", "--json"]).args(words).arg("--data-dir").arg(dir).env_clear().stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let shape = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (output.status.code().unwrap(), shape)
}

/// The level of a finding, if it is there; what a machine for tests may lack is not asked for.
fn level<'a>(shape: &'a Value, id: &str) -> Option<&'a str> {
    let found = shape["findings"].as_array().unwrap().iter().find(|found| found["id"] == id)?;
    assert!(!found["what"].as_str().unwrap().is_empty());
    found["level"].as_str()
}

#[test]
fn trouble_is_found_and_health_is_not_called_trouble() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let admin = hub.admin();
    let (_, well) = doctor(dir.path(), &[]);
    for id in
        ["no_tls", "permissions", "database", "config", "shared_token", "not_set_up", "no_api_key", "newer_schema"]
    {
        assert_eq!(level(&well, id), None, "{id}: {well}");
    }
    assert_eq!(level(&well, "no_backup"), Some("note"));
    // Both know as whom the hub runs: here as whoever runs the tests.
    let is_root = std::fs::metadata(dir.path().join("holt.db")).unwrap().uid() == 0;
    assert_eq!(level(&well, "root"), is_root.then_some("warning"), "{well}");
    let over_http = admin.get("/api/v1/doctor").json();
    assert_eq!(level(&over_http, "root"), is_root.then_some("warning"));
    assert_eq!(level(&over_http, "no_backup"), Some("note"));
    assert_eq!(admin.new_key("reader", &["chat"]).get("/api/v1/doctor").status, 403);
    let backup = admin.post("/api/v1/backup", "");
    assert_eq!(backup.status, 200);
    assert_eq!(level(&doctor(dir.path(), &[]).1, "no_backup"), None);
    drop(hub);
    assert_eq!(level(&doctor(dir.path(), &[]).1, "root"), None, "it does not run");
    let hub = Builder::new(dir.path()).listen("0.0.0.0:0").start();
    assert_eq!(level(&doctor(dir.path(), &[]).1, "no_tls"), Some("warning"), "it listens elsewhere than configured");
    drop(hub);

    std::fs::set_permissions(dir.path().join("secret"), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(
        dir.path().join("holt.toml"),
        "unknown = 1\n[api]\nlisten = \":0\"\ntrusted_proxies = [\"0.0.0.0/0\"]\n[[api.keys]]\nname = \"x\"\nkey = \"short\"\n\
         scopes = [\"chat\"]\n[fleet]\nshared_token = \"0123456789abcdef0123456789abcdef\"\n[llm]\ndefault_provider = \"ollama\"\n\
         default_model = \"m\"\n[llm.ollama]\nbase_url = \"http://127.0.0.1:1\"\n",
    )
    .unwrap();
    let conn = rusqlite::Connection::open(dir.path().join("holt.db")).unwrap();
    conn.execute("UPDATE meta SET value = '1000' WHERE key = 'last_backup'", []).unwrap();
    drop(conn);
    let (code, shape) = doctor(dir.path(), &["--online"]);
    assert_eq!((code, shape["status"].as_str()), (2, Some("error")), "{shape}");
    for (id, expected) in [
        ("no_tls", "warning"),
        ("permissions", "warning"),
        ("trusted_proxies", "warning"),
        ("short_key", "warning"),
        ("shared_token", "warning"),
        ("old_backup", "warning"),
        ("provider_unreachable", "error"),
        ("config_warning", "note"),
    ] {
        assert_eq!(level(&shape, id), Some(expected), "{id}: {shape}");
    }
    assert_eq!(shape["findings"][0]["level"], "error", "the worst comes first");

    // A database that was written by a newer Holt, and one that is damaged.
    let events = dir.path().join("events.db");
    let conn = rusqlite::Connection::open(&events).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    assert!(conn.close().is_ok());
    let bytes = std::fs::read(&events).unwrap();
    let (code, shape) = doctor(dir.path(), &[]);
    assert_eq!((code, level(&shape, "newer_schema")), (2, Some("error")), "{shape}");
    std::fs::write(&events, &bytes[..5000]).unwrap();
    assert_eq!(level(&doctor(dir.path(), &[]).1, "database"), Some("error"));
    // And a configuration that cannot be read.
    std::fs::write(dir.path().join("holt.toml"), "[api\n").unwrap();
    let (code, shape) = doctor(dir.path(), &[]);
    assert_eq!((code, level(&shape, "config")), (2, Some("error")), "{shape}");
}

#[test]
fn people_read_lines() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).start();
    let output = Command::new(env!("CARGO_BIN_EXE_holt"))
        .args(["doctor", "--data-dir"])
        .arg(&hub.dir)
        .env_clear()
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("note: nobody has set this hub up yet\n    open its page"), "{text}");
}
