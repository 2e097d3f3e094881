//! The persona of an agent: over HTTP, by hand, in prompts (contract http-api 4.2, engine 6.4).

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::support::hub::Builder;
use crate::support::{Client, Hub, Model};

fn client(hub: &Hub) -> Client {
    hub.admin().new_key("persona", &["agents:read", "agents:write", "admin", "chat"])
}

fn path(section: &str) -> String {
    format!("/api/v1/agents/default/persona/{section}")
}

#[test]
fn sections_are_read_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let api = client(&hub);
    let home = dir.path().join("agents/default");
    let empty = json!({"section": "Soul", "content": "", "editable": true, "agent_mutable": true});
    assert_eq!(api.get(&path("Soul")).json(), empty);
    let agent = api.get("/api/v1/agents/default").json();
    assert_eq!(agent["persona_sections"], json!({"identity": false, "soul": false, "user": false, "memory": false}));
    assert_eq!(agent["persona_dir"], home.display().to_string());
    let put = |section: &str, content: &str| api.send("PUT", &path(section), &json!({"content": content}).to_string());
    let done = put("IDENTITY", "---\nname: Otto\nemoji: 🦦\n---\n Helps. \n");
    assert_eq!(
        (done.status, done.json()),
        (200, json!({"agent": "default", "section": "IDENTITY", "status": "updated"}))
    );
    assert_eq!(fs::read_to_string(home.join("IDENTITY.md")).unwrap(), "---\nname: Otto\nemoji: 🦦\n---\n Helps.\n");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&home.join("IDENTITY.md")), mode(&home)), (0o600, 0o700));
    assert_eq!(api.get("/api/v1/agents").json()[0]["display_name"], "🦦 Otto");
    assert_eq!(api.get("/api/v1/agents/default").json()["persona_sections"]["identity"], true);
    assert_eq!(put("user", "").status, 200);

    let check = |answer: crate::support::http::Answer, status: u16, text: &str| {
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(answer.status == status && error.starts_with(text), "{} {error}", answer.status);
    };
    check(put("memory", &"é".repeat(2201)), 400, "content must be at most 2200 characters, it has 2201");
    check(put("user", &"x".repeat(1376)), 400, "content must be at most 1375 characters");
    assert_eq!(put("memory", &"é".repeat(2200)).status, 200);
    check(api.get(&path("x\"y")), 400, r#"unknown section "x\"y", must be one of: identity, soul, user, memory"#);
    check(api.send("PUT", &path("soul"), "["), 400, "invalid JSON: ");
    check(api.get("/api/v1/agents/nobody/persona/soul"), 404, "agent \"nobody\" not found");
    // What nobody could read is not overwritten.
    fs::write(home.join("MEMORY.md"), [0xff, 0xfe]).unwrap();
    check(put("memory", "new"), 500, "saving persona section: ");
    assert_eq!(fs::read(home.join("MEMORY.md")).unwrap(), [0xff, 0xfe]);
    let reader = api.new_key("reader", &["agents:read"]);
    assert_eq!((reader.get(&path("soul")).status, reader.send("PUT", &path("soul"), "{}").status), (200, 403));
}

#[test]
fn who_the_agent_is_comes_first_and_the_date_last() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::start();
    let hub = Builder::new(dir.path()).model(&model).config("[api]\ntimezone = \"Asia/Tokyo\"").start();
    let api = client(&hub);
    let ask = || {
        assert_eq!(api.chat(json!({"message": "say x"})).status, 200);
        model.requests().last().unwrap()["messages"][0]["content"].as_str().unwrap().to_owned()
    };
    let prompt = ask();
    assert!(prompt.starts_with("You are default, "), "{prompt}");
    let date = prompt.lines().last().unwrap();
    assert!(
        date.starts_with("It is 20") && date.contains(" of ISO week ") && date.ends_with("(Asia/Tokyo)."),
        "{date}"
    );
    // A memory is there without a soul, and written by hand.
    let home = dir.path().join("agents/default");
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("MEMORY.md"), "The otter is called Otto.\n").unwrap();
    assert!(ask().starts_with("# Memory\n\nThe otter is called Otto.\n\n"));
    fs::write(home.join("SOUL.md"), "Calm.").unwrap();
    fs::write(home.join("IDENTITY.md"), "---\nname: Otto\ntheme: water\n---\nBody").unwrap();
    let prompt = ask();
    let expected = "# Identity\n\nOtto\n\nTheme: water\n\nBody\n\n# Soul\n\nCalm.\n\n# Memory\n\nThe otter";
    assert!(prompt.starts_with(expected), "{prompt}");
}
