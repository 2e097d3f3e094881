//! The key-value store over HTTP and through an agent's tools (contract http-api 11.5, engine 7; W-43).

use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::{Client, Hub, Model, wait_until};

fn client(hub: &Hub) -> Client {
    hub.admin().new_key("kv", &["kv:read", "kv:write", "chat"])
}

#[track_caller]
fn put(client: &Client, key: &str, body: &Value) -> Value {
    let answer = client.send("PUT", &format!("/api/v1/kv/default/{key}"), &body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn keys(client: &Client, query: &str) -> Vec<String> {
    let list = client.get(&format!("/api/v1/kv/default{query}")).json();
    list["entries"].as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn values_are_written_read_listed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let kv = client(&hub);
    assert_eq!(kv.get("/api/v1/kv/default").text(), "{\"entries\":[]}\n");
    assert_eq!(put(&kv, "a/b", &json!({"value": "one <b>"})), json!({"key": "a/b", "value": "one <b>"}));
    let timed = put(&kv, "a%2Fc%20d", &json!({"value": "two", "ttl": "1h"}));
    assert_eq!((&timed["key"], timed["expires_at"].as_str().unwrap().len()), (&json!("a/c d"), 20));
    put(&kv, "a_", &json!({"value": ""}));
    assert_eq!(keys(&kv, ""), ["a/b", "a/c d", "a_"]);
    // Bytes, no wildcards, also right behind a change: nothing stale is served.
    assert_eq!(keys(&kv, "?prefix=a_"), ["a_"]);
    assert_eq!(keys(&kv, "?prefix=A"), [""; 0]);
    put(&kv, "a_x", &json!({"value": ""}));
    assert_eq!(keys(&kv, "?prefix=a_"), ["a_", "a_x"]);
    let entry = &kv.get("/api/v1/kv/default?prefix=a/b").json()["entries"][0];
    assert!(entry["created_at"] == entry["updated_at"] && entry["created_at"].is_string());
    assert!(entry["expires_at"].is_null());

    assert_eq!(kv.get("/api/v1/kv/default/a/b").json(), json!({"key": "a/b", "value": "one <b>"}));
    assert_eq!(kv.get("/api/v1/kv/default/a%2Fb").json()["value"], "one <b>");
    assert_eq!(kv.delete("/api/v1/kv/default/a/b").status, 204);
    assert_eq!(kv.delete("/api/v1/kv/default/a/b").status, 204);
    let gone = kv.get("/api/v1/kv/default/a/b");
    assert_eq!((gone.status, &gone.json()["error"]), (404, &json!("key \"a/b\" not found")));
    assert_eq!(kv.get("/api/v1/kv/default/").json()["error"], "key \"\" not found");
    for path in ["/api/v1/kv/nobody", "/api/v1/kv/nobody/k"] {
        let unknown = kv.get(path);
        assert_eq!((unknown.status, &unknown.json()["error"]), (404, &json!("agent \"nobody\" not found")));
    }
    let wrong = kv.send("POST", "/api/v1/kv/default/k", "{}");
    assert_eq!((wrong.status, wrong.header("allow")), (405, "DELETE, GET, HEAD, PUT"));
}

#[test]
fn limits_and_mistakes_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).config("[kv]\nmax_keys_per_agent = 2\nmax_value_bytes = 10").start();
    let kv = client(&hub);
    let check = |key: &str, body: &str, status: u16, code: &str| {
        let answer = kv.send("PUT", &format!("/api/v1/kv/default/{key}"), body);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{key} {body}");
        answer.json()["error"].as_str().unwrap().to_owned()
    };
    check("k", "{}", 400, "bad_request");
    check("k", "[", 400, "bad_request");
    check("k", r#"{"value":1}"#, 400, "bad_request");
    check("", r#"{"value":""}"#, 400, "bad_request");
    check("a%0Ab", r#"{"value":""}"#, 400, "bad_request");
    check(&"k".repeat(1025), r#"{"value":""}"#, 400, "bad_request");
    for ttl in ["-1s", "1d", "soon"] {
        let error = check("k", &json!({"value": "", "ttl": ttl}).to_string(), 400, "bad_request");
        assert!(error.starts_with("ttl must be a duration"), "{error}");
    }
    let error = check("k", r#"{"value":"01234567890"}"#, 413, "kv_value_too_large");
    assert!(error.contains("kv.max_value_bytes"), "{error}");
    put(&kv, "one", &json!({"value": "", "ttl": "1ns"}));
    put(&kv, "two", &json!({"value": ""}));
    put(&kv, "three", &json!({"value": ""})); // the first has expired: it does not count
    put(&kv, "three", &json!({"value": "again"}));
    let error = check("four", r#"{"value":""}"#, 409, "kv_full");
    assert!(error.contains("kv.max_keys_per_agent"), "{error}");
    assert_eq!(keys(&kv, ""), ["three", "two"]);
}

#[test]
fn each_method_needs_its_scope() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let admin = hub.admin();
    let reader = admin.new_key("reader", &["kv:read"]);
    let other = admin.new_key("other", &["sessions:read"]);
    assert_eq!(reader.get("/api/v1/kv/default").status, 200);
    assert_eq!(reader.send("PUT", "/api/v1/kv/default/k", r#"{"value":""}"#).status, 403);
    assert_eq!(reader.delete("/api/v1/kv/default/k").status, 403);
    assert_eq!(other.get("/api/v1/kv/default").status, 403);
    assert_eq!(hub.client().get("/api/v1/kv/default/k").status, 401);
}

#[test]
fn what_expires_leaves_the_list_without_any_change_of_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let kv = client(&hub);
    put(&kv, "stays", &json!({"value": ""}));
    put(&kv, "goes", &json!({"value": "", "ttl": "300ms"}));
    wait_until("the key has left the list", || (keys(&kv, "") == ["stays"]).then_some(()));
    assert_eq!(kv.get("/api/v1/kv/default/goes").status, 404);
}

#[test]
fn expired_rows_are_removed_and_values_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Builder::new(dir.path()).config("[kv]\ncleanup_interval = \"10ms\"").start();
    let mut hub = start();
    let kv = client(&hub);
    put(&kv, "stays", &json!({"value": "here"}));
    put(&kv, "goes", &json!({"value": "", "ttl": "1ms"}));
    let database = hub.database();
    let rows = || database.query_row("SELECT count(*) FROM kv", [], |row| row.get::<_, i64>(0)).unwrap();
    wait_until("the row is gone", || (rows() == 1).then_some(()));
    hub.kill();
    let hub = start();
    let kv = Client::new(&hub.address).with_key(&kv.key());
    assert_eq!(kv.get("/api/v1/kv/default/stays").json()["value"], "here");
}

#[test]
fn agents_keep_values_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::start();
    let agents = "[[agents]]\nname = \"default\"\nsession_tier = \"autonomous\"\n[[agents]]\nname = \"other\"\nsession_tier = \"restricted\"";
    let hub = Builder::new(dir.path()).model(&model).config(agents).start();
    let kv = client(&hub);
    let ask = |agent: &str, message: &str| kv.chat(json!({"agent": agent, "message": message})).json();
    let set = ask("default", r#"tool kv_set {"key":"note","value":"buy milk"}"#);
    assert_eq!(set["response"], json!("done: {\"ok\":true}"), "{set}");
    assert_eq!(kv.get("/api/v1/kv/default/note").json()["value"], "buy milk");
    assert_eq!(kv.get("/api/v1/kv/other/note").status, 404);
    let read = ask("other", r#"tool kv_get {"key":"note"}"#);
    assert_eq!(read["response"], json!("done: {\"value\":null}"), "{read}");
    let offered: Vec<Vec<String>> = model
        .requests()
        .iter()
        .map(|request| {
            let tools = request["tools"].as_array().unwrap();
            let names = tools.iter().map(|tool| tool["function"]["name"].as_str().unwrap().to_owned());
            names.filter(|name| name.starts_with("kv_")).collect()
        })
        .collect();
    assert_eq!(offered[0], ["kv_get", "kv_list", "kv_set", "kv_set_nx", "kv_delete"]);
    assert_eq!(offered[2], ["kv_get", "kv_list"], "restricted agents only read");
}
