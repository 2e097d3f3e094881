//! Agents are made, changed, renamed and removed while the hub runs (contract http-api 4.1; W-27, W-30, W-35, W-46).

use std::path::Path;

use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::{Client, Hub, Model, wait_until};

const SCOPES: &[&str] = &["admin", "chat", "agents:write", "kv:read", "kv:write", "sessions:read", "audit:read"];

fn start(dir: &Path, model: &Model, more: &str) -> (Hub, Client) {
    let hub = Builder::new(dir).model(model).config(more).start();
    let client = hub.admin().new_key("boss", SCOPES);
    (hub, client)
}

fn file(hub: &Hub) -> String {
    std::fs::read_to_string(hub.dir.join("holt.toml")).unwrap()
}

#[track_caller]
fn patch(client: &Client, agent: &str, body: Value) -> (u16, String) {
    let answer = client.send("PATCH", &format!("/api/v1/agents/{agent}"), &body.to_string());
    (answer.status, answer.json()["error"].as_str().unwrap_or_default().to_owned())
}

/// The prompt that the model was last asked with.
fn last(model: &Model) -> Value {
    model.requests().pop().unwrap()
}

#[test]
fn a_change_counts_at_once_and_survives_a_restart() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let (mut hub, client) = start(dir.path(), &model, "# mine\n[agent]\npersona_dir = \"/srv/persona\"\n");
    let body = json!({
        "session_tier": "autonomous", "llm_model": "other-model", "description": "Knows the garden.",
        "browser_url_allowlist": ["a.example"], "auto_approve_tools": ["kv_set"], "cost_limit_hard": 2.5,
        "fallbacks": [{"trigger": "error", "action": "wait_and_retry", "max_retries": 2}],
    });
    let answer = client.send("PATCH", "/api/v1/agents/default", &body.to_string());
    assert_eq!((answer.status, answer.json()), (200, json!({"name": "default", "status": "updated"})));
    assert_eq!(client.chat(json!({"message": "say hi"})).status, 200);
    assert_eq!(last(&model)["model"], "other-model");
    assert!(last(&model)["messages"][0].to_string().contains("Knows the garden."));
    let check = |client: &Client| {
        let shown = client.get("/api/v1/agents/default").json();
        for (key, expected) in [
            ("permission_tier", json!("autonomous")),
            ("model", json!("other-model")),
            ("description", json!("Knows the garden.")),
            ("browser_url_allowlist", json!(["a.example"])),
            ("auto_approve_tools", json!(["kv_set"])),
            ("cost_limit_hard", json!(2.5)),
            ("cost_limit_soft", json!(null)),
            ("persona_dir", json!("/srv/persona")),
        ] {
            assert_eq!(shown[key], expected, "{key}");
        }
        assert_eq!(shown["fallbacks"][0]["max_retries"], 2);
        assert_eq!(client.get("/api/v1/agents").json()[0]["browser_url_allowlist"], json!(["a.example"]));
    };
    check(&client);
    assert!(file(&hub).contains("# mine") && dir.path().join("holt.toml.bak").exists());
    hub.signal("TERM");
    assert!(hub.wait().success());
    let again = Hub::spawn(Builder::new(dir.path()).command(), dir.path().to_owned());
    check(&client.at(&again.address));
    // What is emptied is the general value again.
    let body = json!({"llm_model": "", "fallbacks": [], "cost_limit_hard": null, "auto_approve_tools": []});
    assert_eq!(patch(&client.at(&again.address), "default", body).0, 200);
    let shown = client.at(&again.address).get("/api/v1/agents/default").json();
    assert_eq!((&shown["model"], &shown["fallbacks"]), (&json!("test-model"), &json!([])));
    assert_eq!((&shown["cost_limit_hard"], &shown["auto_approve_tools"]), (&json!(null), &json!([])));
    assert!(!file(&again).contains("fallback"));
}

#[test]
fn what_is_wrong_is_refused_and_changes_nothing() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let (hub, client) = start(dir.path(), &model, "[[agents]]\nname = \"default\"\n[[agents]]\nname = \"b\"\n");
    let before = file(&hub);
    let check = |agent: &str, body: Value, status: u16, text: &str| {
        let (found, error) = patch(&client, agent, body.clone());
        assert_eq!(found, status, "{body}: {error}");
        assert!(error.contains(text), "{body}: {error}");
    };
    check("nobody", json!({}), 404, "agent not found");
    check(
        "b",
        json!({"session_tier": "root"}),
        400,
        "invalid session_tier: must be autonomous, supervised, or restricted",
    );
    check("default", json!({"name": "x"}), 400, "cannot rename the default agent");
    check(
        "b",
        json!({"name": "Ä"}),
        400,
        "invalid agent name: must be lowercase alphanumeric with hyphens, max 64 chars",
    );
    check("b", json!({"name": "default"}), 409, "agent name already exists");
    check("b", json!({"name": 5}), 400, "name must be text");
    check("b", json!({"browser_url_allowlist": "x"}), 400, "browser_url_allowlist must be a list of texts");
    check("b", json!({"fallbacks": [{"trigger": "never"}]}), 400, "config: llm.fallback[0]: invalid trigger \"never\"");
    // A rename that comes with something wrong does not happen either (W-46).
    check("b", json!({"name": "c", "fallbacks": [{"trigger": "never"}]}), 400, "invalid trigger");
    // What only a start would refuse: the field is named (W-27).
    check(
        "b",
        json!({"llm_provider": "anthropic"}),
        400,
        "agents[1].llm_provider: anthropic needs llm.anthropic.api_key",
    );
    check("b", json!({"cost_limit_soft": 3, "cost_limit_hard": 2}), 400, "agents[1].cost_limit_soft");
    check("b", json!({"cost_limit_hard": -1}), 400, "agents[1].cost_limit_hard");
    let answer = client.send("PATCH", "/api/v1/agents/b", "[");
    assert!(answer.status == 400 && answer.text().contains("invalid JSON"));
    let reader = hub.client().with_key(&client.new_key("r", &["agents:read"]).key());
    assert_eq!(reader.send("PATCH", "/api/v1/agents/b", "{}").status, 403);
    assert_eq!(file(&hub), before);
    assert_eq!(client.get("/api/v1/agents/b").status, 200);
    for (body, status) in [
        (json!({}), 400),
        (json!({"name": "a b"}), 400),
        (json!({"name": "b"}), 409),
        (json!({"name": "c", "session_tier": "x"}), 400),
        (json!({"name": "c", "llm_provider": "nobody"}), 400),
    ] {
        assert_eq!(client.post("/api/v1/agents", &body.to_string()).status, status, "{body}");
    }
    assert_eq!(file(&hub), before);
}

#[test]
fn an_agent_comes_gets_another_name_and_goes() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let schedule = "[[schedules]]\nname = \"daily\"\ntype = \"agent\"\nschedule = \"@daily\"\nskill = \"s\"\nagent = \"old\"\nenabled = false\n";
    let (hub, client) = start(dir.path(), &model, "");
    let answer =
        client.post("/api/v1/agents", r#"{"name":"old","description":"New here","session_tier":"restricted"}"#);
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!((&answer.json()["name"], &answer.json()["permission_tier"]), (&json!("old"), &json!("restricted")));
    // Its table stands beside the one that was made up so far.
    let text = file(&hub) + schedule;
    std::fs::write(dir.path().join("holt.toml"), text).unwrap();
    assert_eq!(client.post("/api/v1/server/reload", "").status, 200);
    let names = || -> Vec<String> {
        let list = client.get("/api/v1/agents").json();
        list.as_array().unwrap().iter().map(|agent| agent["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(), ["default", "old"]);
    assert_eq!(client.send("PUT", "/api/v1/kv/old/k", r#"{"value":"v"}"#).status / 100, 2);
    let told = client.chat(json!({"message": "say one", "agent": "old"})).json();
    let session = told["session_id"].as_str().unwrap().to_owned();
    std::fs::create_dir_all(dir.path().join("agents/old")).unwrap();
    std::fs::write(dir.path().join("agents/old/SOUL.md"), "calm").unwrap();
    // A turn that runs while all this happens goes on.
    let running = client.open(
        "POST",
        "/api/v1/chat",
        &json!({"message": "gate 1 1", "agent": "old", "session_id": session}).to_string(),
    );
    model.wait_at_gate();
    let queued = client.open(
        "POST",
        "/api/v1/chat",
        &json!({"message": "say queued", "agent": "old", "session_id": session}).to_string(),
    );
    wait_until("the second message waits", || {
        let queued: i64 = hub
            .database()
            .query_row("SELECT count(*) FROM turns WHERE state = 'queued'", [], |row| row.get(0))
            .unwrap();
        (queued == 1).then_some(())
    });
    let answer = client.send("PATCH", "/api/v1/agents/old", r#"{"name":"new-name","description":"Moved"}"#);
    assert_eq!((answer.status, answer.json()), (200, json!({"name": "new-name", "status": "updated"})));
    model.open_gate();
    for mut stream in [running, queued] {
        let answer = crate::support::http::read_answer(&mut stream, false);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(names(), ["default", "new-name"]);
    assert_eq!(client.get("/api/v1/agents/old").status, 404);
    assert_eq!(client.get("/api/v1/kv/new-name/k").json()["value"], "v");
    assert_eq!(std::fs::read_to_string(dir.path().join("agents/new-name/SOUL.md")).unwrap(), "calm");
    assert!(file(&hub).contains("agent = \"new-name\""), "{}", file(&hub));
    // Its schedule needs it.
    let refused = client.delete("/api/v1/agents/new-name");
    assert!(refused.status == 409 && refused.text().contains("daily"), "{}", refused.text());
    let text = file(&hub);
    std::fs::write(dir.path().join("holt.toml"), text.split("[[schedules]]").next().unwrap()).unwrap();
    assert_eq!(client.post("/api/v1/server/reload", "").status, 200);
    assert_eq!(client.delete("/api/v1/agents/default").status, 400);
    assert_eq!(client.delete("/api/v1/agents/new-name").status, 204);
    assert_eq!(client.delete("/api/v1/agents/new-name").status, 404);
    assert_eq!(names(), ["default"]);
    // What was said with it stays.
    let messages = client.get(&format!("/api/v1/sessions/{session}/messages"));
    assert!(messages.status == 200 && messages.text().contains("say queued"), "{}", messages.text());
    assert_eq!(client.chat(json!({"message": "say x", "agent": "new-name"})).status, 404);
    let audit = client.get("/api/v1/audit").text();
    for action in ["agent.create", "agent.change", "agent.delete"] {
        assert!(audit.contains(action), "{action}");
    }
}
