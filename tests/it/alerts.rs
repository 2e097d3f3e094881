//! Alerts and silences over REST, and what open sockets hear of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use holt::alert::{Event, Level, key_of};
use holt::rt::clock;
use holt::store::{AlertStore, Db};
use serde_json::{Value, json};

use crate::support::{Client, Hub, Socket, wait_until};

const MACHINE: &str = "11111111-1111-4111-8111-111111111111";

fn event(target: &str, level: Level, ago_s: i64) -> Event {
    let labels: BTreeMap<String, String> =
        [("check", "disk::space_usage"), ("target", target), ("from_hostname", "pi")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
    Event {
        time: clock::unix_s() - ago_s,
        level,
        key: key_of(&labels),
        labels,
        attrs: BTreeMap::from([("used".to_owned(), "97 %".to_owned())]),
        description: format!("{target} is {level}"),
        format: String::new(),
    }
}

/// Events as another process of the same hub stores them.
fn store(hub: &Hub, events: &[Event]) {
    let db = Arc::new(Db::open(&hub.dir.join("holt.db")).unwrap());
    let now = clock::unix_ms();
    AlertStore::new(db).take(MACHINE, events, now, now).unwrap();
}

fn list(client: &Client, query: &str) -> Vec<Value> {
    let answer = client.get(&format!("/api/v1/alerts{query}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["alerts"].as_array().unwrap().clone()
}

fn targets(client: &Client, query: &str) -> String {
    list(client, query).iter().map(|alert| alert["target"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
}

#[test]
fn alerts_are_listed_and_dealt_with() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let admin = hub.admin();
    let client = admin.new_key("ops", &["machines:read", "machines:write", "audit:read", "chat"]);
    store(&hub, &[event("/", Level::Warning, 30), event("/b", Level::Critical, 20)]);
    store(&hub, &[event("/", Level::Ok, 10), event("/c", Level::Info, 5)]);
    store(&hub, &[event("/", Level::Critical, 1)]);
    assert_eq!(targets(&client, ""), "/ /c /b");
    assert_eq!(targets(&client, "?state=all"), "/ /c /b");
    assert_eq!(targets(&client, "?state=all&group=none"), "/ /c /b /");
    assert_eq!(targets(&client, "?state=closed&level=warning"), "/");
    assert_eq!(targets(&client, "?level=critical&check=disk"), "/ /b");
    assert_eq!(targets(&client, "?machine=nobody"), "");
    let page = client.get("/api/v1/alerts?limit=1").json();
    let next = page["next_before"].as_i64().unwrap();
    assert_eq!(targets(&client, &format!("?limit=5&before={next}")), "/c /b");
    for query in ["?state=x", "?level=ok", "?limit=0", "?limit=501", "?before=x", "?group=x"] {
        assert_eq!(client.get(&format!("/api/v1/alerts{query}")).status, 400, "{query}");
    }
    let root = &list(&client, "")[0];
    assert_eq!((&root["times"], &root["state"], &root["level"]), (&json!(2), &json!("open"), &json!("Critical")));
    let path = format!("/api/v1/alerts/{}", root["id"]);
    let one = client.get(&path).json();
    assert_eq!((&one["report"], &one["history"][0]["event_status"]), (&json!(""), &json!("Critical")));
    assert_eq!(one["history"][0]["attrs"]["used"], "97 %");

    let mut socket = Socket::open(&client);
    let acknowledged = client.post(&format!("{path}/acknowledge"), r#"{"note":"on it"}"#);
    assert_eq!(acknowledged.status, 200, "{}", acknowledged.text());
    assert_eq!(acknowledged.json()["acknowledged_by"], "key:ops");
    let frame = socket.next_any();
    assert_eq!((&frame["type"], &frame["change"], &frame["id"]), (&json!("alert"), &json!("changed"), &root["id"]));
    assert_eq!(client.post(&format!("{path}/silence"), r#"{"for":"2h"}"#).json()["silenced_by"], "key:ops");
    for body in ["{}", r#"{"for":"x"}"#, r#"{"for":"1h","until":"2026-01-02T03:04:05Z"}"#, r#"{"for":"9000h"}"#, "["] {
        assert_eq!(client.post(&format!("{path}/silence"), body).status, 400, "{body}");
    }
    let closed = client.post(&format!("{path}/close"), "");
    assert_eq!((closed.status, &closed.json()["close_reason"]), (200, &json!("by hand")));
    assert_eq!(client.post(&format!("{path}/close"), "").status, 409);
    for id in ["999", "x", "-1", "99999999999999999999"] {
        assert_eq!(client.get(&format!("/api/v1/alerts/{id}")).status, 404, "{id}");
        assert_eq!(client.post(&format!("/api/v1/alerts/{id}/close"), "").status, 404, "{id}");
    }
    let audit = client.get("/api/v1/audit").json();
    let actions: Vec<&str> =
        audit["entries"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert!(actions.starts_with(&["alert.close", "alert.silence", "alert.acknowledge"]), "{actions:?}");
}

#[test]
fn silences_are_made_checked_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let client = hub.admin().new_key("ops", &["machines:read", "machines:write"]);
    for body in [
        r#"{"for":"1h"}"#,
        r#"{"for":"1h","matchers":{}}"#,
        r#"{"for":"1h","matchers":{"check":7}}"#,
        r#"{"for":"1h","matchers":{"check":""}}"#,
        r#"{"for":"0","matchers":{"check":"disk::*"}}"#,
        r#"{"matchers":{"check":"disk::*"}}"#,
        r#"{"until":"2020-01-01T00:00:00Z","matchers":{"check":"disk::*"}}"#,
    ] {
        assert_eq!(client.post("/api/v1/silences", body).status, 400, "{body}");
    }
    let made = client.post("/api/v1/silences", r#"{"for":"1h","matchers":{"check":"disk::*"},"note":"moving"}"#);
    assert_eq!(made.status, 201, "{}", made.text());
    store(&hub, &[event("/", Level::Warning, 1), event("/b", Level::Warning, 1)]);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let listed = client.get("/api/v1/silences").json();
    assert_eq!((&listed["silences"][0]["id"], &listed["silences"][0]["created_by"]), (&json!(id), &json!("key:ops")));
    assert!(!hub.log_contains("alert: Warning"));
    assert_eq!(client.delete(&format!("/api/v1/silences/{id}")).status, 204);
    assert_eq!(client.delete(&format!("/api/v1/silences/{id}")).status, 404);
    // What it kept quiet is told now.
    wait_until("both alerts are told", || {
        (hub.log_contains("alert: Warning: disk::space_usage / on pi")
            && hub.log_contains("alert: Warning: disk::space_usage /b on pi"))
        .then_some(())
    });
}

#[test]
fn sockets_without_the_scope_hear_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let admin = hub.admin();
    let client = admin.new_key("ops", &["machines:read", "machines:write", "chat"]);
    store(&hub, &[event("/", Level::Warning, 1)]);
    let mut blind = Socket::open(&admin.new_key("guest", &["chat"]));
    let mut seeing = Socket::open(&client);
    let id = list(&client, "")[0]["id"].clone();
    assert_eq!(client.post(&format!("/api/v1/alerts/{id}/close"), "").status, 200);
    assert_eq!(seeing.next_any()["change"], "closed");
    blind.send(&json!({"type": "ping"}));
    assert_eq!(blind.next_any()["type"], "pong");
}
