//! The browser: its container, its profiles (contract http-api 11.4, engine 8.6).

use std::fs;

use serde_json::{Value, json};

use crate::support::docker::Docker;
use crate::support::hub::Builder;
use crate::support::{Client, Hub, Model, Socket, wait_until};

fn client(hub: &Hub) -> Client {
    hub.admin().new_key("browser", &["browser:read", "browser:write", "tools:read", "chat", "approvals:write", "admin"])
}

#[test]
fn without_a_browser_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let api = client(&hub);
    for (method, path) in
        [("GET", "profiles"), ("GET", "profiles/x"), ("DELETE", "profiles/x"), ("GET", "sessions"), ("GET", "config")]
    {
        let answer = api.send(method, &format!("/api/v1/browser/{path}"), "");
        assert_eq!(
            (answer.status, &answer.json()["error"]),
            (503, &json!("browser automation not configured")),
            "{path}"
        );
    }
    let reader = hub.client().with_key(&api.new_key("r", &["tools:read"]).key());
    assert_eq!(reader.get("/api/v1/browser/config").status, 403);
}

#[test]
fn the_container_and_the_profiles_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let docker = Docker::put(dir.path());
    let root = dir.path().join("data/browser-profiles");
    let profile = root.join("default/Default");
    fs::create_dir_all(&profile).unwrap();
    fs::create_dir_all(root.join("empty")).unwrap();
    let cookies = rusqlite::Connection::open(profile.join("Cookies")).unwrap();
    cookies
        .execute_batch("CREATE TABLE cookies(host_key TEXT); INSERT INTO cookies VALUES ('b.example'), ('a.example'), ('a.example')")
        .unwrap();
    drop(cookies);
    fs::create_dir_all(dir.path().join("outside")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("outside"), root.join("link")).unwrap();
    let model = Model::start();
    let settings = "[session]\ntier = \"autonomous\"\n[browser]\nenabled = true\nimage = \"example/browser:1\"\n\
                    [browser.url_allowlist]\ndomains = [\"a.example\", \"b.example\"]";
    let hub = Builder::new(dir.path()).model(&model).config(settings).env("PATH", &docker.path()).start();
    let api = client(&hub);
    let sessions = wait_until("the browser is connected", || {
        let sessions = api.get("/api/v1/browser/sessions").json()["sessions"].clone();
        (sessions[0]["status"] == "connected").then_some(sessions)
    });
    assert!(sessions[0]["name"] == "browser" && sessions[0]["tool_count"].as_u64().unwrap() > 3);
    let line = format!(
        "run --rm -i --network egress --memory 512m --cpus 1 --cap-drop ALL --read-only --security-opt no-new-privileges \
         --tmpfs /tmp:size=64m --shm-size 64m -v {}:/data/profile -e BROWSER_URL_ALLOWLIST=a.example,b.example \
         example/browser:1 --headless --browser chromium --no-sandbox",
        root.display()
    );
    assert_eq!(docker.args().unwrap(), line.split(' ').collect::<Vec<_>>());
    assert_eq!(api.get("/api/v1/tools").json(), json!({"tools": [], "browser": true}));

    let profiles = api.get("/api/v1/browser/profiles").json()["profiles"].clone();
    let names: Vec<&str> =
        profiles.as_array().unwrap().iter().map(|profile| profile["agent"].as_str().unwrap()).collect();
    assert_eq!(names, ["default", "empty"]);
    let one = api.get("/api/v1/browser/profiles/default").json();
    assert_eq!(one, profiles[0]);
    assert_eq!((&one["domains"], &one["domain_count"]), (&json!(["a.example", "b.example"]), &json!(2)));
    assert!(one["size_bytes"].as_u64().unwrap() > 1000 && one["last_used"].as_str().unwrap().starts_with("20"));
    assert_eq!((&profiles[1]["size_bytes"], profiles[1].get("domains")), (&json!(0), None));
    let error = |path: &str| {
        let answer = api.get(&format!("/api/v1/browser/profiles/{path}"));
        (answer.status, answer.json()["error"].as_str().unwrap().to_owned())
    };
    assert_eq!(error("nobody"), (404, "profile not found".to_owned()));
    assert_eq!(error("link").0, 404);
    for hostile in ["..%2f..", "a%2fb", "a%5cb", "x.."] {
        assert_eq!(error(hostile), (500, "browser: invalid agent name".to_owned()), "{hostile}");
        assert_eq!(api.delete(&format!("/api/v1/browser/profiles/{hostile}")).status, 500);
    }
    let config = api.get("/api/v1/browser/config").json();
    assert_eq!(
        (&config["Enabled"], &config["MaxPages"], &config["ProfileDir"]),
        (&json!(true), &json!(5), &json!("data/browser-profiles"))
    );
    assert_eq!(config["URLAllowlist"], json!({"Domains": ["a.example", "b.example"]}));
    assert_eq!((&config["memory_limit"], &config["session_ttl"]), (&json!("512m"), &json!("10m")));

    // Agents look at profiles and empty their own; to remove one is asked for even here.
    let said = |message: &str| {
        api.chat(json!({"message": message})).json()["response"].as_str().unwrap_or_default().to_owned()
    };
    assert!(said("tool browser_profile_info {}").contains("a.example"));
    assert!(said("tool browser_profile_clear {}").contains("{\"ok\":true}"));
    assert!(profile.parent().unwrap().is_dir() && !profile.exists());
    let mut socket = Socket::open(&api);
    socket.chat("s", r#"tool browser_profile_delete {"agent":"empty"}"#);
    let asked: Value = loop {
        let frame = socket.next();
        assert!(frame["type"] != "done");
        if frame["type"] == "tool_approval" {
            break frame;
        }
    };
    assert!(root.join("empty").is_dir());
    socket.send(&json!({"type": "approval_response", "approval_id": asked["approval_id"], "action": "approve"}));
    socket.turn();
    assert!(!root.join("empty").exists());
    assert_eq!(api.delete("/api/v1/browser/profiles/default").status, 204);
    assert_eq!(api.delete("/api/v1/browser/profiles/default").status, 404);
    assert!(dir.path().join("outside").is_dir());
}
