//! Plugins: programs and images as tool servers, their signatures, what is remembered (contract http-api 11.3, engine
//! 8.5).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::docker::Docker;
use crate::support::hub::Builder;
use crate::support::tool_server::config;
use crate::support::{Client, Hub, Model, wait_until};

const SCOPES: &[&str] = &["tools:read", "tools:write", "chat", "audit:read", "approvals:write"];

fn client(hub: &Hub) -> Client {
    hub.admin().new_key("plugins", SCOPES)
}

/// The scripted server as a plugin.
fn program(name: &str) -> Value {
    let mut body = config(&[]);
    body["name"] = json!(name);
    body["type"] = json!("subprocess");
    body["capabilities"] = json!(["tools"]);
    body
}

#[track_caller]
fn refused(client: &Client, body: &Value, status: u16, text: &str) {
    let answer = client.post("/api/v1/plugins", &body.to_string());
    let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
    assert!(answer.status == status && error.contains(text), "{body}: {} {error}", answer.status);
}

fn file(dir: &Path) -> String {
    fs::read_to_string(dir.join("holt.toml")).unwrap_or_default()
}

#[test]
fn a_program_is_added_used_remembered_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::start();
    let start = || Builder::new(dir.path()).model(&model);
    let agents = "# kept\n[session]\ntier = \"autonomous\"";
    let mut hub = start().config(agents).start();
    let api = client(&hub);
    assert_eq!(api.get("/api/v1/plugins").text(), "{\"plugins\":[]}\n");
    let made = api.post("/api/v1/plugins", &program("mine").to_string());
    assert_eq!(made.status, 201, "{}", made.text());
    let status = made.json();
    assert_eq!((&status["type"], &status["status"]), (&json!("subprocess"), &json!("connected")));
    assert!(status["tool_names"].as_array().unwrap().contains(&json!("echo")) && status["env"].is_null());
    assert_eq!(api.get("/api/v1/plugins").json()["plugins"], json!([status]));
    assert_eq!(api.get("/api/v1/plugins/mine").json(), status);
    // It is no tool server of its own, and yet can be looked at and started again as one.
    assert_eq!(api.get("/api/v1/tools").json(), json!({"tools": []}));
    assert_eq!(api.get("/api/v1/tools/mine").json()["status"], "connected");
    assert_eq!(api.post("/api/v1/tools/mine/restart", "").status, 200);
    let said = api.chat(json!({"message": r#"tool echo {"text":"hi"}"#})).json();
    assert!(said["response"].as_str().unwrap().contains("hi"), "{said}");
    assert!(file(dir.path()).contains("# kept") && file(dir.path()).contains("[plugins.mine]"), "{}", file(dir.path()));

    refused(&api, &program("mine"), 400, "conflicts with an existing");
    let mut tool = config(&[]);
    tool["name"] = json!("mine");
    let taken = api.post("/api/v1/tools", &tool.to_string());
    assert_eq!(taken.status, 400, "{}", taken.text());
    for (method, path) in
        [("PUT", "/api/v1/tools/mine"), ("DELETE", "/api/v1/tools/mine"), ("POST", "/api/v1/tools/mine/disable")]
    {
        let answer = api.send(method, path, &config(&[]).to_string());
        assert!([400, 404].contains(&answer.status), "{method} {path}: {}", answer.status);
    }
    assert!(!file(dir.path()).contains("tools.mine"));
    // A tool is not removed as a plugin.
    tool["name"] = json!("tool");
    assert_eq!(api.post("/api/v1/tools", &tool.to_string()).status, 201);
    assert_eq!(api.delete("/api/v1/plugins/tool").status, 204);
    assert_eq!(api.get("/api/v1/tools/tool").json()["status"], "connected");

    let key = api.key();
    hub.kill();
    let text = file(dir.path());
    let hub = Builder::new(dir.path()).config(&text).start();
    let api = Client::new(&hub.address).with_key(&key);
    wait_until("the plugin is back", || {
        (api.get("/api/v1/plugins/mine").json()["status"] == "connected").then_some(())
    });
    assert_eq!(api.delete("/api/v1/plugins/mine").status, 204);
    assert_eq!(api.delete("/api/v1/plugins/mine").status, 204);
    assert_eq!(api.get("/api/v1/plugins/mine").json()["error"], "plugin not found");
    assert!(!file(dir.path()).contains("plugins.mine") && api.get("/api/v1/tools/mine").status == 404);
    let actions = api.get("/api/v1/audit?limit=50").json();
    let of =
        |action: &str| actions["entries"].as_array().unwrap().iter().filter(|entry| entry["action"] == action).count();
    assert_eq!((of("plugin.add"), of("plugin.remove")), (2, 1), "{actions}");
}

#[test]
fn mistakes_are_told_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).config("max_tools = 1").start();
    let api = client(&hub);
    let plugin = |change: Value| {
        let mut body = program("a");
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    };
    let bad = api.post("/api/v1/plugins", "[");
    assert_eq!((bad.status, &bad.json()["error"]), (400, &json!("invalid JSON body")));
    refused(&api, &json!({}), 400, "name is required");
    refused(&api, &plugin(json!({"type": "kubernetes"})), 400, "type must be \"subprocess\" or \"docker\"");
    refused(&api, &plugin(json!({"command": ""})), 400, "command is required for subprocess plugins");
    refused(&api, &plugin(json!({"type": "docker"})), 400, "image is required for docker plugins");
    for name in ["../x", "a.b", "a b", "-a", "ä"] {
        refused(&api, &plugin(json!({"name": name})), 400, "must be alphanumeric with hyphens or underscores");
    }
    // No option of docker's is smuggled in.
    for (key, value) in
        [("image", "--privileged"), ("network", "-v"), ("memory_limit", "1 --privileged"), ("cpu_limit", "-x")]
    {
        refused(&api, &plugin(json!({"type": "docker", "image": "img", key: value})), 400, "must not begin with -");
    }
    refused(&api, &plugin(json!({"command": "/no/such/program"})), 400, "starting plugin \"a\": ");
    refused(&api, &plugin(json!({"env": {"A=B": "x"}})), 400, "no variable can have");
    assert_eq!(api.get("/api/v1/plugins").json(), json!({"plugins": []}));
    assert!(!file(dir.path()).contains("plugins"));
    // Without the capability it is listed, never run, and counts.
    let idle =
        api.post("/api/v1/plugins", &plugin(json!({"capabilities": [], "command": "/no/such/program"})).to_string());
    assert_eq!(
        (idle.status, &idle.json()["status"], &idle.json()["tool_names"]),
        (201, &json!("stopped"), &Value::Null)
    );
    refused(&api, &program("b"), 400, "maximum number of tools reached (1)");
    let reader = hub.client().with_key(&api.key());
    assert_eq!(reader.get("/api/v1/plugins/no").status, 404);
}

#[test]
fn an_image_is_run_as_the_contract_says() {
    let dir = tempfile::tempdir().unwrap();
    let docker = Docker::put(dir.path());
    let hub = Builder::new(dir.path()).env("PATH", &docker.path()).env("TOKEN", "hub-value").start();
    let api = client(&hub);
    let body = json!({"name": "img", "type": "docker", "image": "example/img:1", "args": ["--serve"], "capabilities": ["tools"],
        "env": {"KEY": "$TOKEN"}, "memory_limit": "64m", "cpu_limit": "0.5"});
    let made = api.post("/api/v1/plugins", &body.to_string());
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!((&made.json()["image"], &made.json()["args"]), (&json!("example/img:1"), &json!(["--serve"])));
    let line = "run --rm -i --network none --memory 64m --cpus 0.5 --cap-drop ALL --read-only --security-opt no-new-privileges \
                -e KEY=hub-value example/img:1 --serve";
    assert_eq!(docker.args().unwrap(), line.split(' ').collect::<Vec<_>>());
    let reader = api.get("/api/v1/tools/img").text();
    assert!(!reader.contains("hub-value") && !hub.log_contains("hub-value"), "{reader}");
    assert_eq!(api.delete("/api/v1/plugins/img").status, 204);
}

#[test]
fn programs_must_be_signed_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let holt = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
        command.current_dir(dir.path()).env_clear().arg("plugin").args(args).output().unwrap()
    };
    let server = config(&[]);
    let program_file = dir.path().join("signed");
    let args = server["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect::<Vec<_>>().join(" ");
    fs::write(&program_file, format!("#!/bin/sh\nSCRIPTED=1 exec '{}' {args}\n", server["command"].as_str().unwrap()))
        .unwrap();
    fs::set_permissions(&program_file, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(holt(&["keygen", "release"]).status.success());
    assert!(!holt(&["keygen", "release"]).status.success(), "an existing key is not overwritten");
    let mode = fs::metadata(dir.path().join("release.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!holt(&["verify", "signed", "-k", "release.pub"]).status.success());

    let key_file = dir.path().join("release.pub");
    let security =
        format!("[security]\ntrusted_keys = [{}]\nallow_unsigned = false\n", json!(key_file.to_str().unwrap()));
    let configured = format!(
        "{security}[plugins.early]\ntype = \"subprocess\"\ncommand = {}\ncapabilities = [\"tools\"]",
        json!(program_file)
    );
    let mut hub = Builder::new(dir.path()).config(&configured).start();
    let api = client(&hub);
    // One bad plugin stops nobody else; it says why.
    let why = wait_until("it was tried", || {
        let error = api.get("/api/v1/tools/early").json()["last_error"].as_str().unwrap().to_owned();
        (!error.is_empty() && !error.contains("starting")).then_some(error)
    });
    assert!(why.contains("not signed"), "{why}");
    let mut body = program("late");
    body["command"] = json!(program_file);
    body["args"] = json!([]);
    refused(&api, &body, 400, "is not signed");
    assert!(holt(&["sign", "signed", "--key", "release.key"]).status.success());
    assert!(holt(&["verify", "signed", "-k", "release.pub"]).status.success());
    assert_eq!(api.post("/api/v1/plugins", &body.to_string()).status, 201);
    // Another program under the same signature is not started again.
    let text = fs::read_to_string(&program_file).unwrap();
    fs::write(&program_file, format!("{text}# changed\n")).unwrap();
    assert!(!holt(&["verify", "signed", "-k", "release.pub"]).status.success());
    let again = api.post("/api/v1/tools/late/restart", "");
    assert!(again.status == 404 && again.text().contains("no trusted key"), "{}", again.text());
    hub.kill();
}
