//! The hub as a tool server: the protocol, the scopes, another hub as its client, and the official client from PyPI.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::agent::{Agent, ID};
use crate::support::http::read_answer;
use crate::support::hub::Builder;
use crate::support::{Answer, Client, Hub, Model, Socket, wait_until};

const PATH: &str = "/api/v1/mcp";
const SHARED: &str = "a token that all machines share";

struct Bench {
    hub: Hub,
    admin: Client,
    model: Model,
    _dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let config = format!("[fleet]\nshared_token = \"{SHARED}\"");
    let hub = Builder::new(dir.path()).model(&model).config(&config).start();
    let admin = hub.admin();
    Bench { hub, admin, model, _dir: dir }
}

fn send(client: &Client, message: Value) -> Answer {
    client.with("Accept", "application/json, text/event-stream").post(PATH, &message.to_string())
}

#[track_caller]
fn ask(client: &Client, method: &str, params: Value) -> Value {
    let answer = send(client, json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}));
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{}", answer.text());
    let body = answer.json();
    assert_eq!((&body["jsonrpc"], &body["id"]), (&json!("2.0"), &json!(7)));
    body
}

/// A tool's text, and whether it is an error.
#[track_caller]
fn call(client: &Client, tool: &str, arguments: Value) -> (String, bool) {
    let body = ask(client, "tools/call", json!({"name": tool, "arguments": arguments}));
    let content = &body["result"]["content"];
    assert_eq!((content.as_array().map(Vec::len), &content[0]["type"]), (Some(1), &json!("text")), "{body}");
    (content[0]["text"].as_str().unwrap().to_owned(), body["result"]["isError"].as_bool().unwrap())
}

#[track_caller]
fn json_of(client: &Client, tool: &str, arguments: Value) -> Value {
    let (text, failed) = call(client, tool, arguments);
    assert!(!failed, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn names(client: &Client) -> Vec<String> {
    let tools = ask(client, "tools/list", json!({}))["result"]["tools"].clone();
    tools.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_protocol_is_kept() {
    let bench = bench();
    let client = bench.admin.new_key("ide", &["kv:read", "kv:write"]);
    for version in ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"] {
        let hello = ask(&client, "initialize", json!({"protocolVersion": version, "capabilities": {}}));
        assert_eq!(hello["result"]["protocolVersion"], version);
        assert_eq!(
            (&hello["result"]["serverInfo"]["name"], &hello["result"]["capabilities"]),
            (&json!("holt"), &json!({"tools": {}}))
        );
    }
    assert_eq!(
        ask(&client, "initialize", json!({"protocolVersion": "1999"}))["result"]["protocolVersion"],
        "2025-11-25"
    );
    assert_eq!(ask(&client, "ping", json!({}))["result"], json!({}));
    assert_eq!(ask(&client, "resources/list", json!({}))["error"]["code"], -32601);
    for notification in [
        json!({"method": "notifications/initialized"}),
        json!({"id": 3, "result": {}}),
        json!({"method": "x", "id": null}),
    ] {
        let answer = send(&client, notification);
        assert_eq!((answer.status, answer.text().as_str()), (202, ""));
    }
    for (body, code) in
        [("{", -32700), ("[]", -32600), ("{}", -32600), ("7", -32600), (r#"[{"id":1,"method":"ping"}]"#, -32600)]
    {
        let answer = client.post(PATH, body);
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!(code)), "{body}");
    }
    assert_eq!(ask(&client, "tools/call", json!({"name": "nothing"}))["error"]["code"], -32602);
    assert_eq!(ask(&client, "tools/call", json!({"name": "kv_list", "arguments": []}))["error"]["code"], -32602);
    assert_eq!(client.with("MCP-Protocol-Version", "1999").post(PATH, "{}").status, 400);
    // Neither streams nor sessions.
    for method in ["GET", "DELETE"] {
        let answer = client.send(method, PATH, "");
        assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    }
    assert_eq!(bench.hub.client().post(PATH, "{}").status, 401);
    let evil = client.with("Origin", "http://evil.example");
    assert_eq!(send(&evil, json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})).status, 403);
}

#[test]
fn tools_are_the_routes_that_the_key_may_call() {
    let bench = bench();
    let kv = bench.admin.new_key("kv", &["kv:read"]);
    assert_eq!(names(&kv), ["kv_list", "kv_get"]);
    let tools = ask(&kv, "tools/list", json!({}))["result"]["tools"].clone();
    let schema = &tools[1]["inputSchema"];
    assert_eq!((&schema["type"], &schema["required"]), (&json!("object"), &json!(["agent", "key"])));
    assert_eq!(tools[1]["annotations"]["readOnlyHint"], true);
    let (text, failed) = call(&kv, "kv_set", json!({"agent": "default", "key": "a", "value": "1"}));
    assert!(failed && text.contains("insufficient_scope"), "{text}");

    let all = bench.admin.new_key("all", &["kv:read", "kv:write", "audit:read"]);
    let set = json_of(&all, "kv_set", json!({"agent": "default", "key": "a/b c&d", "value": "1", "ttl": "1h"}));
    assert_eq!((&set["key"], &set["value"]), (&json!("a/b c&d"), &json!("1")));
    assert_eq!(json_of(&all, "kv_get", json!({"agent": "default", "key": "a/b c&d"}))["value"], "1");
    assert_eq!(
        json_of(&all, "kv_list", json!({"agent": "default", "prefix": "a/b c&"}))["entries"].as_array().unwrap().len(),
        1
    );
    assert_eq!(json_of(&all, "kv_list", json!({"agent": "default", "prefix": "a/b c%"}))["entries"], json!([]));
    assert_eq!(call(&all, "kv_delete", json!({"agent": "default", "key": "a/b c&d"})), ("done".to_owned(), false));
    // Bad input is said to whoever called, in words.
    for (tool, arguments, part) in [
        ("kv_get", json!({"agent": "default", "key": "a/b c&d"}), "not found"),
        ("kv_get", json!({"key": "a"}), "agent is required"),
        ("kv_get", json!({"agent": ["default"], "key": "a"}), "agent is required"),
        ("kv_get", json!({"agent": "default", "key": "a", "more": 1}), "\\\"more\\\" is no argument"),
        ("kv_list", json!({"agent": "default", "prefix": {}}), "prefix must be"),
        ("kv_set", json!({"agent": "default", "key": "a", "value": 7}), "invalid JSON body"),
        ("kv_set", json!({"agent": "../../etc", "key": "a", "value": "x"}), "agent"),
    ] {
        let (text, failed) = call(&all, tool, arguments.clone());
        assert!(failed && text.contains(part), "{tool} {arguments}: {text}");
    }
    // Audited as what they are.
    let audit = all.get("/api/v1/audit?action=kv.set").json();
    assert_eq!(
        (&audit["entries"][0]["actor"], &audit["entries"][0]["target"]),
        (&json!("key:all"), &json!("default/a/b c&d"))
    );
}

#[test]
fn a_chat_is_answered_or_told_to_be_asked_again() {
    let bench = bench();
    let client = bench.admin.new_key("ide", &["chat", "approvals:read", "approvals:write", "sessions:read"]);
    let answer = json_of(&client, "chat", json!({"message": "say hello"}));
    assert_eq!(answer["response"], "hello");
    let messages = json_of(&client, "conversation_messages", json!({"id": answer["session_id"]}));
    assert_eq!(messages[1]["content"], "hello");
    let schema = ask(&client, "tools/list", json!({}))["result"]["tools"][0].clone();
    assert!(schema["inputSchema"]["properties"]["message_id"].is_object(), "{schema}");
    assert!(schema["inputSchema"]["properties"]["wait_secs"].is_null(), "{schema}");
    // Who waits for a decision is told so, and can give it.
    let waiting = json_of(&client, "chat", json!({"message": r#"tool kv_set {"key":"k","value":"v"}"#}));
    assert_eq!(waiting["status"], "waiting_for_approval");
    let asked = json_of(&client, "approvals_list", json!({"status": "pending"}));
    assert_eq!(asked[0]["conversation_id"], waiting["session_id"]);
    assert_eq!(json_of(&client, "approvals_approve", json!({"id": asked[0]["id"]}))["status"], "approved");
    let again = json!({"message": "the same", "message_id": waiting["message_id"]});
    let answer = wait_until("the answer is there", || {
        Some(json_of(&client, "chat", again.clone())).filter(|answer| answer["status"].is_null())
    });
    assert!(answer["response"].as_str().unwrap().starts_with("done: "), "{answer}");
    let (text, failed) = call(&client, "chat", json!({"message": "status 400"}));
    assert!(failed && text.contains("\"code\""), "{text}");
    assert!(call(&client, "chat", json!({"message": "  "})).1);
}

#[test]
fn schedules_are_kept_like_over_rest() {
    let bench = bench();
    let client = bench.admin.new_key("ide", &["schedules:read", "schedules:write"]);
    let made = json_of(
        &client,
        "schedules_create",
        json!({"name": "nightly", "schedule": "@daily", "channel": "api:home", "tags": ["a"]}),
    );
    assert_eq!((&made["name"], &made["status"]), (&json!("nightly"), &json!("created")));
    json_of(&client, "schedules_update", json!({"name": "nightly", "enabled": false}));
    let listed = json_of(&client, "schedules_list", json!({}));
    assert_eq!((&listed[0]["expression"], &listed[0]["enabled"]), (&json!("@daily"), &json!(false)), "{listed}");
    assert!(call(&client, "schedules_create", json!({"name": "x", "schedule": "whenever", "channel": "api:home"})).1);
    assert_eq!(call(&client, "schedules_delete", json!({"name": "nightly"})), ("done".to_owned(), false));
    assert_eq!(json_of(&client, "schedules_list", json!({})), json!([]));
}

#[test]
fn a_turn_that_takes_long_says_so_in_time() {
    let bench = bench();
    let body = json!({"message": "gate 1 1", "message_id": "m1", "wait_secs": 0});
    let answer = bench.admin.chat(body.clone());
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("running")), "{}", answer.text());
    assert_eq!(answer.json()["message_id"], "m1");
    bench.model.open_gate();
    let answer = wait_until("the turn is over", || {
        Some(bench.admin.chat(json!({"message": "again", "message_id": "m1", "wait_secs": 60})))
            .filter(|a| a.status == 200)
    });
    assert_eq!((&answer.json()["response"], &answer.json()["status"]), (&json!("w1 w2 "), &Value::Null));
    // Behind another turn it is the same.
    assert_eq!(bench.admin.post("/api/v1/chat", r#"{"message":"x","wait_secs":-1}"#).status, 400);
}

/// The messages of an event stream that answers a call.
fn events(answer: &Answer) -> Vec<Value> {
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/event-stream"), "{}", answer.text());
    let text = answer.text();
    text.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_client_that_asks_for_it_hears_how_a_turn_goes() {
    let bench = bench();
    let told = |client: &Client, arguments: Value| {
        let params = json!({"name": "chat", "arguments": arguments, "_meta": {"progressToken": "t-1"}});
        send(client, json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": params}))
    };
    let answer = told(&bench.admin, json!({"message": "tool kv_get {\"key\":\"k\"}", "message_id": "m1"}));
    let seen = events(&answer);
    let (last, progress) = seen.split_last().unwrap();
    let messages: Vec<&str> = progress
        .iter()
        .enumerate()
        .map(|(at, event)| {
            assert_eq!(event["method"], "notifications/progress", "{event}");
            let params = &event["params"];
            assert_eq!((&params["progressToken"], &params["progress"]), (&json!("t-1"), &json!(at + 1)), "{event}");
            params["message"].as_str().unwrap()
        })
        .collect();
    assert_eq!(messages, ["thinking", "calls kv_get", "thinking"]);
    assert_eq!((&last["id"], &last["result"]["isError"]), (&json!(9), &json!(false)), "{last}");
    let said: Value = serde_json::from_str(last["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert!(said["response"].as_str().unwrap().starts_with("done: "), "{said}");
    // The same call again is answered by the same turn.
    let again = events(&told(&bench.admin, json!({"message": "again", "message_id": "m1"})));
    assert_eq!(again.last().unwrap()["result"], last["result"]);
    // A turn that waits for a decision says so at once, and how to ask again.
    let waiting = events(&told(
        &bench.admin,
        json!({"message": "tool kv_set {\"key\":\"k\",\"value\":\"v\"}", "message_id": "m2"}),
    ));
    let said: Value =
        serde_json::from_str(waiting.last().unwrap()["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!((&said["status"], &said["message_id"]), (&json!("waiting_for_approval"), &json!("m2")), "{said}");
    let decider = bench.admin.new_key("decider", &["approvals:read", "approvals:write"]);
    let asked = json_of(&decider, "approvals_list", json!({"status": "pending"}));
    json_of(&decider, "approvals_approve", json!({"id": asked[0]["id"]}));
    wait_until("its answer is there", || {
        let decided = events(&told(&bench.admin, json!({"message": "again", "message_id": "m2"})));
        decided.last().unwrap()["result"]["content"][0]["text"].as_str().unwrap().contains("done: ").then_some(())
    });
    // A turn that fails is a result, too; a refusal needs no stream.
    let failed = events(&told(&bench.admin, json!({"message": "status 400"})));
    assert_eq!(failed.last().unwrap()["result"]["isError"], true, "{failed:?}");
    let refused = told(&bench.admin, json!({"message": " "}));
    assert_eq!(
        (refused.header("content-type"), &refused.json()["result"]["isError"]),
        ("application/json", &json!(true))
    );
    // Who takes no events gets one answer.
    let params = json!({"name": "chat", "arguments": {"message": "hi"}, "_meta": {"progressToken": 1}});
    let message = json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": params});
    let plain = bench.admin.with("Accept", "application/json").post(PATH, &message.to_string());
    assert_eq!((plain.status, plain.header("content-type")), (200, "application/json"), "{}", plain.text());
}

#[test]
fn a_machine_is_looked_at_and_its_report_is_the_answer() {
    let bench = bench();
    let client = bench.admin.new_key("ide", &["admin", "chat", "machines:read", "machines:write"]);
    let (mut agent, _) = Agent::join(&bench.hub.address, SHARED, ID, "pi");
    let listed = json_of(&client, "machines_list", json!({}));
    assert_eq!(listed["machines"][0]["id"], ID);
    // The answer is read when the machine has done its part.
    let arguments = json!({"name": "machines_inspect", "arguments": {"id": ID, "plugin": "disk"}});
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": arguments});
    let mut asking = client.open("POST", PATH, &message.to_string());
    let start = agent.take_session();
    assert_eq!(start["session_type"].as_str(), Some("inspect"), "{start}");
    agent.done(&start["session_id"], "all is well");
    let told = read_answer(&mut asking, false).json();
    let answer: Value = serde_json::from_str(told["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert!(answer["response"].as_str().unwrap().contains("all is well"), "{answer}");
    assert!(call(&client, "machines_inspect", json!({"id": "nobody"})).1);
    assert_eq!(json_of(&client, "alerts_list", json!({"state": "all"}))["alerts"], json!([]));
}

/// Our own client: another hub, whose agent uses the first one's tools.
#[test]
fn another_hub_is_a_client() {
    let bench = bench();
    let key = bench.admin.new_key("other hub", &["kv:read", "kv:write"]).key();
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let other = Builder::new(dir.path()).model(&model).config("[session]\ntier = \"autonomous\"").start();
    let admin = other.admin();
    let body = json!({
        "name": "first", "transport": "sse", "url": format!("http://{}{PATH}", bench.hub.address), "allow_loopback": true,
        "headers": {"Authorization": format!("Bearer {key}")},
    });
    let added = admin.new_key("tools", &["tools:write"]).post("/api/v1/tools", &body.to_string());
    assert_eq!(added.status, 201, "{}", added.text());
    assert_eq!(added.json()["status"], "connected");
    // Its own tools have those names already.
    let names: Vec<String> =
        added.json()["tool_names"].as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()).collect();
    let set = names
        .iter()
        .find(|name| name.ends_with("kv_set") && *name != "kv_set")
        .cloned()
        .unwrap_or_else(|| "first__kv_set".to_owned());
    let mut socket = Socket::open(&admin);
    socket.chat("", &format!("tool {set} {}", json!({"agent": "default", "key": "from", "value": "afar"})));
    let frames = socket.turn();
    let content = frames.iter().find(|frame| frame["type"] == "content").unwrap();
    assert!(content["text"].as_str().unwrap().contains("afar"), "{content} {names:?}");
    let kv = bench.admin.new_key("kv", &["kv:read"]);
    assert_eq!(kv.get("/api/v1/kv/default/from").json()["value"], "afar");
}

#[test]
fn the_official_client_gets_along() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/mcp");
    let python = root.join("venv/bin/python");
    let is_required = std::env::var("HOLT_MCP_TESTS").is_ok_and(|value| value == "required");
    assert!(python.exists() || !is_required, "{} is not installed; see .ci/run", python.display());
    if !python.exists() {
        eprintln!("skipped: {} is not installed", python.display());
        return;
    }
    let bench = bench();
    let key = bench.admin.new_key("ide", &["chat", "kv:read", "kv:write"]).key();
    let url = format!("http://{}{PATH}", bench.hub.address);
    let output = Command::new(python).arg(root.join("client.py")).args([&url, &key]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("all is well"), "{said}");
}
