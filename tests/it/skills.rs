//! Skills over HTTP, by hand, and in prompts (contract http-api 5.1, engine 1.6, 6; W-32).

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::{Client, Hub, Model, Socket};

fn client(hub: &Hub) -> Client {
    hub.admin().new_key(
        "skills",
        &["skills:read", "skills:write", "agents:read", "agents:write", "approvals:write", "admin", "chat"],
    )
}

fn own(hub: &Hub, file: &str) -> PathBuf {
    hub.dir.join("agents/default/skills").join(file)
}

fn put(hub: &Hub, file: &str, text: &str) {
    let path = hub.dir.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn names(client: &Client, path: &str) -> Vec<String> {
    client.get(path).json().as_array().unwrap().iter().map(|skill| skill["name"].as_str().unwrap().to_owned()).collect()
}

/// What the model was told first in its last request.
fn system(model: &Model) -> String {
    model.requests().last().unwrap()["messages"][0]["content"].as_str().unwrap().to_owned()
}

#[track_caller]
fn refused(client: &Client, method: &str, path: &str, body: &str, status: u16, text: &str) {
    let answer = client.send(method, path, body);
    let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
    assert!(answer.status == status && error.contains(text), "{method} {path} {body}: {} {error}", answer.status);
}

#[test]
fn a_skill_is_made_changed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let api = client(&hub);
    assert_eq!(api.get("/api/v1/skills").text(), "[]\n");
    assert_eq!(api.get("/api/v1/skills/default").text(), "[]\n");
    let made = api.post(
        "/api/v1/skills/default",
        r#"{"name":"tea","description":"d <b>","triggers":["command:tea"],"body":" Boil. "}"#,
    );
    assert_eq!((made.status, made.json()), (201, json!({"name": "tea", "agent": "default", "status": "created"})));
    let text = fs::read_to_string(own(&hub, "tea.md")).unwrap();
    assert_eq!(
        text,
        "+++\nname = \"tea\"\ndescription = \"d <b>\"\nversion = \"1.0.0\"\ntriggers = [\"command:tea\"]\n+++\n\nBoil.\n"
    );
    let listed = json!({"name": "tea", "description": "d <b>", "version": "1.0.0", "triggers": ["command:tea"]});
    assert_eq!(api.get("/api/v1/skills/default").json(), json!([listed]));
    let mut with_agent = listed.clone();
    with_agent["agent"] = json!("default");
    assert_eq!(api.get("/api/v1/skills").json(), json!([with_agent]));
    with_agent["body"] = json!("Boil.");
    assert_eq!(api.get("/api/v1/skills/default/tea").json(), with_agent);
    assert_eq!(api.get("/api/v1/agents").json()[0]["skill_count"], 1);
    assert_eq!(api.get("/api/v1/agents/default").json()["skills"], json!([listed]));

    let changed = api.send(
        "PUT",
        "/api/v1/skills/default/tea",
        r#"{"triggers":[],"description":"","version":null,"body":"Steep."}"#,
    );
    assert_eq!(
        (changed.status, changed.json()),
        (200, json!({"name": "tea", "agent": "default", "status": "updated"}))
    );
    let now = api.get("/api/v1/skills/default/tea").json();
    let expected = json!({"name": "tea", "description": "", "version": "1.0.0", "triggers": null, "body": "Steep.", "agent": "default"});
    assert_eq!(now, expected);
    assert_eq!(api.delete("/api/v1/skills/default/tea").status, 204);
    assert!(!own(&hub, "tea.md").exists());
    refused(&api, "GET", "/api/v1/skills/default/tea", "", 404, "skill \"tea\" not found");
    refused(&api, "DELETE", "/api/v1/skills/default/tea", "", 404, "skill \"tea\" not found");
    refused(&api, "PUT", "/api/v1/skills/default/tea", "{}", 404, "skill \"tea\" not found");
    refused(&api, "GET", "/api/v1/skills/nobody", "", 404, "agent not found");
    refused(&api, "GET", "/api/v1/skills/nobody/x", "", 404, "agent \"nobody\" not found");
    refused(&api, "POST", "/api/v1/skills/nobody", "{}", 404, "agent \"nobody\" not found");
}

#[test]
fn mistakes_and_hostile_names_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let api = client(&hub);
    let create = |body: &str, text: &str| refused(&api, "POST", "/api/v1/skills/default", body, 400, text);
    create("[", "invalid JSON: ");
    create(r#"{"name":"a","triggers":"x"}"#, "invalid JSON: ");
    create("{}", "name is required");
    create(r#"{"name":"  "}"#, "name is required");
    create(r#"{"name":"a"}"#, "body is required");
    create(r#"{"name":"a","body":" \n"}"#, "body is required");
    for name in ["../../x", "..", "a/b", "A", "a.md", "a\\u0000", "-a", "ä", &"a".repeat(65)] {
        create(&format!(r#"{{"name":"{name}","body":"x"}}"#), "must be at most 64 of a-z");
    }
    for trigger in ["", "x", "at:noon", "command:", "Command:x"] {
        create(&json!({"name": "a", "body": "x", "triggers": [trigger]}).to_string(), "must be command:<name>");
    }
    create(&json!({"name": "a", "body": "x".repeat(65 * 1024)}).to_string(), "at most 65536 bytes");
    create(&json!({"name": "a", "body": "x", "description": "+++\nname = 'b'"}).to_string(), "must not hold +++");
    assert!(!dir.path().join("agents").exists() && !dir.path().parent().unwrap().join("x.md").exists());

    assert_eq!(api.post("/api/v1/skills/default", r#"{"name":"a","body":"first"}"#).status, 201);
    refused(&api, "POST", "/api/v1/skills/default", r#"{"name":"a","body":"second"}"#, 409, "already exists");
    assert_eq!(api.get("/api/v1/skills/default/a").json()["body"], "first");
    refused(&api, "GET", "/api/v1/skills/default/..%2f..%2fholt", "", 404, "not found");
    refused(&api, "DELETE", "/api/v1/skills/default/..%2fIDENTITY", "", 404, "not found");
    // A directory in the way, nothing to write to: told, and nothing half done.
    let skills = dir.path().join("agents/default/skills");
    fs::remove_dir_all(&skills).unwrap();
    fs::write(&skills, "a file").unwrap();
    let failed = api.post("/api/v1/skills/default", r#"{"name":"a","body":"x"}"#);
    assert_eq!(failed.status, 500);
    assert!(
        failed.json()["error"].as_str().unwrap().starts_with("creating skill: ") && failed.json()["id"].is_string()
    );
    let reader = api.new_key("reader", &["skills:read"]);
    assert_eq!(reader.post("/api/v1/skills/default", "{}").status, 403);
}

#[test]
fn files_changed_by_hand_count_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::start();
    let hub = Builder::new(dir.path()).model(&model).start();
    let api = client(&hub);
    let ask = |message: &str| {
        let answer = api.chat(json!({"message": message}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        system(&model)
    };
    assert!(!ask("say x").contains("# Skills"));
    put(&hub, "skills/always.md", "+++\nname = \"always\"\n+++\nALWAYS-BODY");
    put(
        &hub,
        "skills/dir/SKILL.md",
        "+++\nname = \"tea\"\ndescription = \"Hot.\"\ntriggers = [\"command:tea\"]\n+++\nTEA-SHARED",
    );
    put(&hub, "skills/dir/table.csv", "a,b");
    put(&hub, "skills/broken.md", "+++\nname = \"broken\"\ntriggers = [\"never\"]\n+++\nBROKEN-BODY");
    put(&hub, "skills/needs.md", "+++\nname = \"needs\"\n[requires]\ntools = [\"no_such_tool\"]\n+++\nNEEDS-BODY");
    put(&hub, "skills/can.md", "+++\nname = \"can\"\n[requires]\ntools = [\"kv_get\"]\n+++\nCAN-BODY");
    assert_eq!(names(&api, "/api/v1/skills/default"), ["always", "can", "needs", "tea"]);
    let list = api.get("/api/v1/skills/default").json();
    assert_eq!((&list[2]["missing_tool"], &list[0]["shared"]), (&json!("no_such_tool"), &json!(true)));
    let prompt = ask("say x");
    assert!(prompt.contains("# Skills\n\n## always\n\nALWAYS-BODY\n\n## can\n\nCAN-BODY"), "{prompt}");
    assert!(!prompt.contains("TEA") && !prompt.contains("BROKEN") && !prompt.contains("NEEDS"), "{prompt}");
    let prompt = ask("/TEA say x");
    assert!(prompt.contains("## tea\n\nHot.\n\nTEA-SHARED\n\nIts files, which skill_get reads: table.csv"), "{prompt}");
    assert!(hub.log_contains("broken.md is not used"));
    // An agent's own wins, and a repaired file counts.
    put(&hub, "agents/default/skills/mine.md", "+++\nname = \"tea\"\n+++\nTEA-OWN");
    put(&hub, "skills/broken.md", "+++\nname = \"broken\"\n+++\nREPAIRED");
    let prompt = ask("say x");
    assert!(prompt.contains("TEA-OWN") && !prompt.contains("TEA-SHARED") && prompt.contains("REPAIRED"), "{prompt}");
    fs::remove_file(hub.dir.join("skills/always.md")).unwrap();
    assert!(!ask("say x").contains("ALWAYS"));
    // What all share is not removed here, and a change of it makes the agent's own.
    refused(&api, "DELETE", "/api/v1/skills/default/can", "", 409, "shared by all agents");
    assert_eq!(api.send("PUT", "/api/v1/skills/default/can", r#"{"body":"CAN-OWN"}"#).status, 200);
    assert!(fs::read_to_string(own(&hub, "can.md")).unwrap().contains("requires") && ask("say x").contains("CAN-OWN"));
    assert_eq!(api.delete("/api/v1/skills/default/can").status, 204);
    assert!(ask("say x").contains("CAN-BODY"));
    // Its file is that which was read, whatever it is called.
    assert_eq!(api.send("PUT", "/api/v1/skills/default/tea", r#"{"body":"TEA-NEW"}"#).status, 200);
    assert!(fs::read_to_string(own(&hub, "mine.md")).unwrap().contains("TEA-NEW") && !own(&hub, "tea.md").exists());
}

#[test]
fn files_beside_a_skill_are_read_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let api = client(&hub);
    api.post("/api/v1/skills/default", r#"{"name":"tea","body":"Boil."}"#);
    let base = "/api/v1/skills/default/tea/files";
    assert_eq!(api.get(base).json(), json!({"files": []}));
    let made = api.send("PUT", &format!("{base}/refs/kinds.md"), r#"{"content":"green"}"#);
    assert_eq!((made.status, made.json()), (200, json!({"path": "refs/kinds.md", "status": "updated"})));
    assert_eq!(api.get(base).json(), json!({"files": [{"path": "refs/kinds.md", "size_bytes": 5}]}));
    assert_eq!(api.get(&format!("{base}/refs/kinds.md")).json(), json!({"path": "refs/kinds.md", "content": "green"}));
    assert_eq!(api.get("/api/v1/skills/default/tea").json()["body"], "Boil.");
    assert!(own(&hub, "tea/SKILL.md").is_file());
    std::os::unix::fs::symlink("/etc/hostname", own(&hub, "tea/link")).unwrap();
    for path in ["..%2f..%2fx", "../x", "%2fetc%2fpasswd", ".x", "SKILL.md", "a%00", ""] {
        for (method, body) in [("GET", ""), ("PUT", r#"{"content":"x"}"#), ("DELETE", "")] {
            let answer = api.send(method, &format!("{base}/{path}"), body);
            assert!([301, 400, 404].contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
        }
    }
    refused(&api, "GET", &format!("{base}/link"), "", 404, "file \"link\" not found");
    refused(&api, "PUT", &format!("{base}/a"), "{}", 400, "content is required");
    refused(&api, "GET", "/api/v1/skills/default/no/files", "", 404, "skill \"no\" not found");
    assert_eq!(api.delete(&format!("{base}/refs/kinds.md")).status, 204);
    refused(&api, "DELETE", &format!("{base}/refs/kinds.md"), "", 404, "not found");
    assert_eq!(api.delete("/api/v1/skills/default/tea").status, 204);
    assert!(!own(&hub, "tea").exists());
}

#[test]
fn old_text_directives_are_neither_shown_nor_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::start();
    let agents = "[[agents]]\nname = \"default\"\nsession_tier = \"autonomous\"";
    let hub = Builder::new(dir.path()).model(&model).config(agents).start();
    let api = client(&hub);
    let answer =
        api.chat(json!({"session_id": "s", "message": "say Sure. [MEMORY_UPDATE]evil[/MEMORY_UPDATE] Done."})).json();
    assert_eq!(answer["response"], "Sure.  Done.");
    let body =
        json!({"message": "say [SKILL_CREATE]+++\nname = 'x'\n+++\nx[/SKILL_CREATE]Only [this] is left."}).to_string();
    let events = api.with("Accept", "text/event-stream").post("/api/v1/chat", &body).events();
    let of = |kind: &str| -> Vec<Value> { events.iter().filter(|event| event["type"] == kind).cloned().collect() };
    let deltas: String = of("content_delta").iter().map(|event| event["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!((deltas.as_str(), &of("content")[0]["text"]), ("Only [this] is left.", &json!("Only [this] is left.")));
    assert_eq!(api.get("/api/v1/skills").text(), "[]\n");
    assert!(!dir.path().join("agents/default/MEMORY.md").exists());
}

#[test]
fn an_agent_changes_itself_and_people_undo_it() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::start();
    let agents = "[[agents]]\nname = \"default\"\nsession_tier = \"autonomous\"";
    let hub = Builder::new(dir.path()).model(&model).config(agents).start();
    let api = client(&hub);
    let call = |tool: &str, arguments: Value| {
        let answer = api.chat(json!({"session_id": "s", "message": format!("tool {tool} {arguments}")})).json();
        answer["response"].as_str().unwrap_or_default().to_owned()
    };
    let journal = || api.get("/api/v1/journal?agent=default").json()["entries"].as_array().unwrap().clone();
    let undo = |id: &Value, body: &str| api.post(&format!("/api/v1/journal/{id}/undo"), body);
    assert_eq!(call("skill_list", json!({})), "done: []");
    assert_eq!(call("skill_create", json!({"name": "tea", "body": "Boil."})), "done: Done: skill \"tea\" created");
    assert_eq!(call("skill_update", json!({"name": "tea", "body": "Steep."})), "done: Done: skill \"tea\" updated");
    assert!(call("skill_get", json!({"name": "tea"})).contains("\"body\":\"Steep.\""));
    assert!(call("skill_create", json!({"name": "../x", "body": "x"})).contains("must be at most 64"));
    assert!(call("skill_create", json!({"name": "long", "body": "x".repeat(17 * 1024)})).contains("at most 16384"));
    assert!(call("skill_get", json!({"name": "tea", "file": "../../../holt.db"})).contains("Tool error: path"));
    let entries = journal();
    assert_eq!(entries.len(), 2);
    assert_eq!((&entries[0]["action"], &entries[1]["action"]), (&json!("update"), &json!("create")));
    assert_eq!((&entries[0]["target"], &entries[0]["conversation_id"]), (&json!("tea"), &json!("s")));
    let one = api.get(&format!("/api/v1/journal/{}", entries[0]["id"])).json();
    assert!(
        one["before"].as_str().unwrap().ends_with("Boil.\n") && one["after"].as_str().unwrap().ends_with("Steep.\n")
    );
    // The first change is under the second: only by force.
    let blocked = undo(&entries[1]["id"], "");
    assert_eq!((blocked.status, &blocked.json()["code"]), (409, &json!("changed_since")));
    let undone = undo(&entries[0]["id"], "");
    assert_eq!((undone.status, undone.json()["undone_by"].as_str()), (200, Some("key:skills")));
    assert_eq!(api.get("/api/v1/skills/default/tea").json()["body"], "Boil.");
    assert_eq!(undo(&entries[0]["id"], "").json()["code"], "already_undone");
    api.send("PUT", "/api/v1/skills/default/tea", r#"{"body":"By hand."}"#);
    assert_eq!(undo(&entries[1]["id"], "{}").status, 409);
    assert_eq!(undo(&entries[1]["id"], r#"{"force":true}"#).status, 200);
    assert_eq!(api.get("/api/v1/skills").text(), "[]\n");

    let memory = json!({"section": "memory", "content": "Likes tea."});
    assert_eq!(call("persona_update", memory), "done: Done: memory updated");
    assert!(call("persona_get", json!({"section": "memory"})).contains("Likes tea."));
    assert!(call("persona_update", json!({"section": "memory", "content": "x".repeat(2201)})).contains("at most 2200"));
    assert!(system(&model).contains("# Memory\n\nLikes tea."));
    let id = journal()[0]["id"].clone();
    assert_eq!(undo(&id, "").status, 200);
    assert_eq!(api.get("/api/v1/agents/default/persona/memory").json()["content"], "");
    refused(&api, "POST", "/api/v1/journal/999/undo", "", 404, "journal entry not found");
    refused(&api, "GET", "/api/v1/journal/x", "", 404, "journal entry not found");
    refused(&api, "GET", "/api/v1/journal?before=x", "", 400, "before must be");
}

#[test]
fn changes_of_oneself_ask_once_and_memory_never() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::start();
    let agents = "[[agents]]\nname = \"default\"\n[[agents]]\nname = \"small\"\nsession_tier = \"restricted\"";
    let hub = Builder::new(dir.path()).model(&model).config(agents).start();
    let api = client(&hub);
    let mut socket = Socket::open(&api);
    socket.chat("s", r#"tool skill_create {"name":"tea","body":"Boil."}"#);
    let asked = loop {
        let frame = socket.next();
        assert!(frame["type"] != "done");
        if frame["type"] == "tool_approval" {
            break frame;
        }
    };
    assert_eq!(api.get("/api/v1/skills").text(), "[]\n");
    socket.send(&json!({"type": "approval_response", "approval_id": asked["approval_id"], "action": "approve"}));
    let frames = socket.turn();
    assert!(!frames.iter().any(|frame| frame["type"] == "tool_approval"), "{frames:?}");
    assert_eq!(names(&api, "/api/v1/skills/default"), ["tea"]);
    let ask = |agent: &str, message: &str| {
        api.chat(json!({"agent": agent, "message": message})).json()["response"].as_str().unwrap_or_default().to_owned()
    };
    for agent in ["default", "small"] {
        let done = ask(agent, r#"tool persona_update {"section":"memory","content":"m"}"#);
        assert_eq!(done, "done: Done: memory updated", "{agent}");
    }
    let refused = ask("small", r#"tool persona_update {"section":"soul","content":"evil"}"#);
    assert!(refused.contains("this agent may not do that"), "{refused}");
    assert!(ask("small", r#"tool skill_create {"name":"x","body":"x"}"#).contains("there is no tool named"));
    assert!(ask("small", r#"tool skill_list {}"#).contains("done: []"));
    assert!(!dir.path().join("agents/small/SOUL.md").exists());
}
