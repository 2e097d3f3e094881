//! The audit log: what is in it, what never is, and how it stays small.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::{Client, Hub, wait_until};

fn entries(client: &Client, query: &str) -> Vec<Value> {
    let answer = client.get(&format!("/api/v1/audit{query}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["entries"].as_array().unwrap().clone()
}

/// `action actor result`, oldest first.
fn lines(entries: &[Value]) -> Vec<String> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    entries
        .iter()
        .rev()
        .map(|entry| format!("{} {} {}", text(entry, "action"), text(entry, "actor"), text(entry, "result")))
        .collect()
}

fn holt(hub: &Hub, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
    let output = command.args(arguments).arg("--data-dir").arg(&hub.dir).env_clear().output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn whatever_changes_access_is_recorded_and_no_secret_is() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[api]\nlogin_rate_limit = 100\ntrusted_proxies = [\"127.0.0.1\"]";
    let hub = Builder::new(dir.path()).config(config).start();
    let pin = hub.pin.clone().unwrap();
    let client = hub.client().with("X-Forwarded-For", "198.51.100.7");
    let wrong_pin = if pin == "000000" { "000001" } else { "000000" };
    for (pin, status) in [(wrong_pin, 401), (pin.as_str(), 200)] {
        let body = json!({"pin": pin, "password": "correct horse"}).to_string();
        assert_eq!(client.post("/api/v1/setup/account", &body).status, status);
    }
    assert_eq!(client.post("/auth/login", r#"{"password":"battery staple"}"#).status, 401);
    let login = client.post("/auth/login", r#"{"password":"correct horse"}"#);
    let me = client.with_cookie_of(&login);
    let made = me.post("/api/v1/keys", r#"{"name":"script","scopes":["chat"]}"#).json();
    let id = made["id"].as_str().unwrap();
    let rotated = me.post(&format!("/api/v1/keys/{id}/rotate"), "").json();
    let new_id = rotated["id"].as_str().unwrap();
    assert_eq!(me.delete(&format!("/api/v1/keys/{new_id}")).status, 204);
    assert_eq!(me.delete(&format!("/api/v1/keys/{new_id}/permanent")).status, 204);
    let by_cli = holt(&hub, &["keys", "create", "from-cli", "-s", "audit:read"]);
    let cli_key = by_cli.lines().find_map(|line| line.trim().strip_prefix("dk_")).unwrap();
    let conversation = me.chat(json!({"message": "how much memory is free?"})).json();
    let conversation = conversation["session_id"].as_str().unwrap();
    assert_eq!(me.delete(&format!("/api/v1/sessions/{conversation}")).status, 204);
    let logins = me.get("/api/v1/auth/sessions").json();
    // Newest first: the other one is that of the setup.
    let other = logins[1]["id"].as_str().unwrap();
    assert_eq!(me.delete(&format!("/api/v1/auth/sessions/{other}")).status, 204);
    assert_eq!(me.post("/auth/logout", "").status, 200);

    let auditor = client.with_key(&format!("dk_{cli_key}"));
    let found = entries(&auditor, "");
    let expected = [
        "setup.account  denied",
        "config.write  ok",
        "setup.account user:admin ok",
        "login.password  denied",
        "login.password user:admin ok",
        "key.create user:admin ok",
        "key.rotate user:admin ok",
        "key.revoke user:admin ok",
        "key.delete user:admin ok",
        "key.create cli ok",
        "conversation.delete user:admin ok",
        "login_session.revoke user:admin ok",
        "login.logout user:admin ok",
    ];
    let relevant: Vec<String> = lines(&found).into_iter().filter(|line| !line.starts_with("tool.")).collect();
    assert_eq!(relevant, expected);
    for entry in found.iter().filter(|entry| entry["actor"] != "cli" && entry["action"] != "tool.call") {
        assert_eq!(entry["source"], "198.51.100.7", "{entry}");
    }
    let about_key = entries(&auditor, &format!("?target={id}"));
    assert_eq!(lines(&about_key), ["key.create user:admin ok", "key.rotate user:admin ok"]);
    assert!(about_key[1]["detail"].as_str().unwrap().contains("script"));

    // Neither in an entry nor anywhere in the files of the hub.
    let secrets = [
        "correct horse",
        "battery staple",
        made["key"].as_str().unwrap(),
        rotated["key"].as_str().unwrap(),
        cli_key,
        login.header("set-cookie").split(['=', ';']).nth(1).unwrap(),
    ];
    for name in ["holt.db", "holt.db-wal", "events.db", "events.db-wal"] {
        let bytes = std::fs::read(dir.path().join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} is in {name}");
        }
    }
    assert!(!json!(found).to_string().contains(&pin), "the PIN");
}

#[test]
fn entries_are_filtered_and_paged() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let admin = hub.admin();
    let auditor = admin.new_key("auditor", &["audit:read"]);
    for number in 0..6 {
        admin.new_key(&format!("k{number}"), &["chat"]);
    }
    assert_eq!(hub.client().get("/api/v1/audit").status, 401);
    for path in ["/api/v1/audit", "/api/v1/audit/stats"] {
        assert_eq!(admin.get(path).status, 403, "a scope of its own");
    }
    let mut query = "?limit=3&action=key.".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = auditor.get(&format!("/api/v1/audit{query}")).json();
        let ids: Vec<i64> = page["entries"].as_array().unwrap().iter().map(|e| e["id"].as_i64().unwrap()).collect();
        assert!(ids.len() <= 3);
        seen.extend(ids);
        match page["next_before"].as_i64() {
            Some(before) => query = format!("?limit=3&action=key.&before={before}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 7);
    assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");
    for (query, count) in [
        ("", 8),
        ("?action=key.create", 7),
        ("?action=key", 0),
        ("?action=setup.", 1),
        ("?actor=key%3Aadmin", 7),
        ("?actor=key", 0),
        ("?result=denied", 0),
        ("?result=ok&limit=500", 8),
        ("?since=2020-01-01T00:00:00Z&until=2999-01-01T00:00:00Z", 8),
        ("?since=2999-01-01T00:00:00Z", 0),
        ("?until=2020-01-01T00:00:00%2B02:00", 0),
    ] {
        assert_eq!(entries(&auditor, query).len(), count, "{query}");
    }
    for bad in ["limit=0", "limit=501", "limit=x", "before=x", "since=soon", "until=1", "result=maybe"] {
        let answer = auditor.get(&format!("/api/v1/audit?{bad}"));
        let name = bad.split('=').next().unwrap();
        assert_eq!(answer.status, 400, "{bad}");
        assert!(answer.json()["error"].as_str().unwrap().starts_with(name), "{bad}: {}", answer.text());
    }
    let stats = auditor.get("/api/v1/audit/stats").json();
    assert_eq!(
        stats,
        json!({"total": 8, "by_action": {"key.create": {"ok": 7}, "setup.key": {"ok": 1}}, "by_result": {"ok": 8}})
    );
    assert_eq!(auditor.get("/api/v1/audit/stats?action=setup.").json()["total"], 1);

    let table = holt(&hub, &["audit", "--action", "key."]);
    assert!(table.starts_with("TIME ") && table.lines().count() == 8 && table.contains("key:admin"), "{table}");
    let json = holt(&hub, &["audit", "--since", "1h", "--limit", "2", "--json"]);
    let rows: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows, entries(&auditor, "?limit=2"));
    assert_eq!(holt(&hub, &["audit", "--actor", "nobody"]), "Nothing was recorded.\n");
}

#[test]
fn a_flood_of_wrong_passwords_is_a_few_entries() {
    let dir = tempfile::tempdir().unwrap();
    let hash = bcrypt::hash("correct horse", 4).unwrap();
    let config = format!("[api]\nlogin_rate_limit = 3\n[api.auth]\npassword_hash = \"{hash}\"");
    let mut hub = Builder::new(dir.path()).config(&config).start();
    for attempt in 0..200 {
        let expected = if attempt < 3 { 401 } else { 429 };
        assert_eq!(hub.client().post("/auth/login", r#"{"password":"guess"}"#).status, expected, "{attempt}");
    }
    let details = |hub: &Hub| -> Vec<(String, String, String)> {
        let conn = hub.database();
        let mut statement = conn.prepare("SELECT action, result, detail FROM audit ORDER BY id").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.map(Result::unwrap).collect()
    };
    assert_eq!(details(&hub).len(), 2, "one of each kind at once");
    hub.signal("TERM");
    assert!(hub.wait().success());
    let found = details(&hub);
    let mut counts: Vec<(&str, &str)> = found[2..].iter().map(|row| (row.0.as_str(), row.2.as_str())).collect();
    counts.sort_unstable();
    assert_eq!(counts, [("login.password", "2 more"), ("login.password.throttled", "196 more")]);
    assert!(found.iter().all(|row| row.1 == "denied"));
}

#[test]
fn old_entries_and_too_many_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let builder = || Builder::new(dir.path()).config("[audit]\nretention = \"1h\"\nrows_max = 100");
    let hub = builder().start();
    hub.admin();
    drop(hub);
    {
        let conn = rusqlite::Connection::open(dir.path().join("holt.db")).unwrap();
        let insert = "INSERT INTO audit(at, actor, action, result) VALUES (?1, 'x', ?2, ?3)";
        let now: i64 = conn.query_row("SELECT at FROM audit WHERE action = 'setup.key'", [], |row| row.get(0)).unwrap();
        conn.execute("BEGIN", []).unwrap();
        conn.execute(insert, (now - 3_700_000, "old", "ok")).unwrap();
        for _ in 0..300 {
            conn.execute(insert, (now, "login.password", "denied")).unwrap();
        }
        conn.execute("COMMIT", []).unwrap();
    }
    let hub = builder().start();
    let count = |hub: &Hub, sql: &str| -> i64 { hub.database().query_row(sql, [], |row| row.get(0)).unwrap() };
    wait_until("the log is short", || {
        (count(&hub, "SELECT count(*) FROM audit WHERE action = 'login.password'") == 20).then_some(())
    });
    assert_eq!(count(&hub, "SELECT count(*) FROM audit WHERE action = 'old'"), 0);
    assert_eq!(count(&hub, "SELECT count(*) FROM audit WHERE action = 'setup.key'"), 1);
}
