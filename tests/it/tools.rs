//! Tool servers over pipes: real turns through scripted servers, hostile ones too; the routes; what is remembered.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::tool_server::{config, table};
use crate::support::{Client, Hub, Model, Socket, wait_until};

struct Bench {
    hub: Hub,
    model: Model,
    admin: Client,
    tools: Client,
    dir: tempfile::TempDir,
}

/// A hub whose agent may use every tool without asking.
fn bench(servers: &str) -> Bench {
    bench_with(servers, |builder| builder)
}

fn bench_with(servers: &str, change: impl FnOnce(Builder) -> Builder) -> Bench {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let builder = change(Builder::new(dir.path())).model(&model);
    let hub = builder.config("[session]\ntier = \"autonomous\"").config(servers).start();
    let admin = hub.admin();
    let tools = admin.new_key("tools", &["tools:read", "tools:write"]);
    Bench { hub, model, admin, tools, dir }
}

impl Bench {
    fn status(&self, name: &str) -> Value {
        self.tools.get(&format!("/api/v1/tools/{name}")).json()
    }

    #[track_caller]
    fn wait(&self, name: &str, status: &str) -> Value {
        wait_until(&format!("{name} is {status}"), || {
            let found = self.status(name);
            (found["status"] == status).then_some(found)
        })
    }

    /// A turn of its own in which the model calls a tool; what the model then says.
    #[track_caller]
    fn call(&self, tool: &str, arguments: Value) -> String {
        let mut socket = Socket::open(&self.admin);
        start(&mut socket, tool, &arguments);
        said(&mut socket)
    }

    fn file(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("holt.toml")).unwrap()
    }
}

fn start(socket: &mut Socket, tool: &str, arguments: &Value) {
    socket.chat("", &format!("tool {tool} {arguments}"));
}

#[track_caller]
fn said(socket: &mut Socket) -> String {
    let frames = socket.turn();
    let content = frames.iter().find(|frame| frame["type"] == "content");
    content.unwrap_or_else(|| panic!("{frames:?}"))["text"].as_str().unwrap().to_owned()
}

#[test]
fn an_agent_calls_a_servers_tools_and_every_kind_of_result_becomes_text() {
    let bench = bench(&table("a", &[]));
    let status = bench.wait("a", "connected");
    assert_eq!((&status["transport"], &status["last_error"]), (&json!("stdio"), &json!("")));
    assert!(status["tool_names"].as_array().unwrap().contains(&json!("echo")));
    let check = |tool: &str, expected: &str| assert_eq!(bench.call(tool, json!({"text": "hi ü"})), expected, "{tool}");
    check("echo", "done: hi ü");
    check("rich", "done: one\n[image image/png, 12 KiB]\n[resource file:///x]\ninside\n[resource file:///y, y]");
    check("structured", "done: {\"n\":1}");
    check("fail", "done: Tool error: tool \"fail\" returned error: it broke");
    check("refuse", "done: Tool error: tool \"refuse\" returned error: not like this (code -32602)");
    let asked = bench.call("ask", json!({}));
    assert!(asked.contains("\"roots\":[]") && asked.contains("-32601"), "{asked}");
    // What models are told: the description and the schema.
    let request = bench.model.requests().pop().unwrap();
    let tools = request["tools"].as_array().unwrap();
    let echo = tools.iter().find(|tool| tool["function"]["name"] == "echo").unwrap();
    assert_eq!(echo["function"]["description"], "does echo");
    assert_eq!(echo["function"]["parameters"]["properties"]["text"]["type"], "string");
}

#[test]
fn every_known_protocol_version_is_spoken() {
    let versions = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
    let servers: String = versions.iter().map(|version| table(&format!("v{version}"), &[("MODE", version)])).collect();
    let bench = bench(&(servers + &table("old", &[("MODE", "old")])));
    for version in versions {
        bench.wait(&format!("v{version}"), "connected");
    }
    let old = wait_until("the old one has failed", || Some(bench.status("old")).filter(|s| s["restart_count"] != 0));
    assert!(old["last_error"].as_str().unwrap().contains("1999-01-01"), "{old}");
}

#[test]
fn a_tool_that_misbehaves_hurts_only_its_own_call() {
    let bench = bench(&(table("a", &[]) + &table("b", &[])));
    bench.wait("a", "connected");
    bench.wait("b", "connected");
    let check = |tool: &str, expected: &str| {
        let mut socket = Socket::open(&bench.admin);
        start(&mut socket, &format!("a__{tool}"), &json!({"text": "x"}));
        // Meanwhile another server works, and so does the listing.
        assert_eq!(bench.call("b__echo", json!({"text": "fine"})), "done: fine", "{tool}");
        assert_eq!(bench.status("b")["status"], "connected");
        let said = said(&mut socket);
        assert!(said.contains(expected), "{tool}: {said}");
    };
    let again = |tool: &str| {
        bench.wait("a", "connected");
        // What it wrote before must be read first, and these calls have a second.
        wait_until(&format!("it answers after {tool}"), || {
            (bench.call("a__echo", json!({"text": "again"})) == "done: again").then_some(())
        });
    };
    for (tool, expected) in [
        ("garbage", "done: still here"),
        ("twice", "done: first"),
        ("hang", "timed out after 1s"),
        ("wrong_id", "timed out after 1s"),
        ("huge", "more than 8 MiB"),
        ("progress", "done: at last"),
        ("storm", "done: changed"),
        ("log", "done: logged"),
    ] {
        check(tool, expected);
        again(tool);
        assert_eq!(bench.status("a")["restart_count"], 0, "{tool} cost the connection");
    }
    // The storm's changes arrived: one more tool.
    wait_until("the new tool is offered", || {
        bench.status("a")["tool_names"].as_array().unwrap().contains(&json!("extra_0")).then_some(())
    });
    assert_eq!(bench.call("extra_0", json!({})), "done: called extra_0");
    assert!(bench.hub.status_kib("VmHWM:") < 80 * 1024, "100 MiB in a line were not held");
    // It reads nothing more and answers nothing more.
    check("deaf", "done: ok");
    assert!(bench.call("a__echo", json!({"text": "x"})).contains("timed out after 1s"));
}

#[test]
fn a_flood_of_words_ends_with_its_answer_or_its_time() {
    let bench = bench(&(table("a", &[]) + &table("b", &[])));
    bench.wait("a", "connected");
    bench.wait("b", "connected");
    let mut socket = Socket::open(&bench.admin);
    start(&mut socket, "a__flood", &json!({}));
    assert_eq!(bench.call("b__echo", json!({"text": "fine"})), "done: fine");
    let said = said(&mut socket);
    assert!(said.contains("done flooding") || said.contains("timed out"), "{said}");
    let mut socket = Socket::open(&bench.admin);
    start(&mut socket, "a__endless", &json!({}));
    assert_eq!(bench.call("b__echo", json!({"text": "fine"})), "done: fine");
    let said = crate::tools::said(&mut socket);
    assert!(said.contains("more than 8 MiB") || said.contains("timed out"), "{said}");
    // A line without an end costs the connection; the server is started again.
    wait_until("the line was given up", || (bench.status("a")["restart_count"] != 0).then_some(()));
    bench.wait("a", "connected");
    assert!(bench.hub.status_kib("VmHWM:") < 80 * 1024);
}

#[test]
fn a_crash_fails_its_calls_at_once_and_the_server_comes_back() {
    let bench = bench(&table("a", &[("TOKEN", "hunter2-secret")]));
    bench.wait("a", "connected");
    let said = bench.call("crash", json!({}));
    assert!(said.contains("Tool error: tool server \"a\": the server has closed the connection"), "{said}");
    assert!(said.contains("exit status: 7") && said.contains("thread 'main' panicked"), "{said}");
    bench.wait("a", "connected");
    let said = bench.call("secret", json!({}));
    assert!(said.contains("the token is ***") && !said.contains("hunter2"), "{said}");
    let status = bench.wait("a", "connected");
    assert_eq!(status["restart_count"], 2);
    // What each of its lives wrote is kept for people.
    let lines = |name: &str| bench.tools.get(&format!("/api/v1/tools/{name}/logs"));
    let log = lines("a").json();
    let texts: Vec<&str> = log["lines"].as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap()).collect();
    let at = |wanted: &str| texts.iter().position(|text| *text == wanted);
    assert!(at("thread 'main' panicked").is_some_and(|first| Some(first) < at("the token is ***")), "{log}");
    assert!(log["lines"][0]["at"].as_str().unwrap().ends_with('Z') && !log.to_string().contains("hunter2"), "{log}");
    let unknown = lines("nobody");
    assert_eq!((unknown.status, unknown.json()["error"].as_str()), (404, Some("tool server not found")));
    assert!(!bench.hub.log_contains("hunter2-secret"));
    assert_eq!(bench.call("echo", json!({"text": "back"})), "done: back");
}

#[test]
fn a_server_that_closes_its_output_is_gone_though_it_lives() {
    let script = r#"read l; echo '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}}}}'
read l; read l; echo '{"jsonrpc":"2.0","id":2,"result":{"tools":[{"name":"mute"}]}}'
read l; exec 1>&-; exec sleep 1000"#;
    let bench = bench(&format!("[tools.a]\ncommand = \"sh\"\nargs = [\"-c\", '''{script}''']\n"));
    bench.wait("a", "connected");
    let said = bench.call("mute", json!({}));
    assert!(said.contains("the server has closed the connection"), "{said}");
    wait_until("it is started again", || Some(bench.status("a")).filter(|status| status["restart_count"] == 1));
}

#[test]
fn sick_servers_delay_nobody_and_are_given_up_after_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let starts = dir.path().join("starts");
    let crash = [("MODE", "crash"), ("TOKEN", "hunter2-secret"), ("STARTS", starts.to_str().unwrap())];
    let servers = table("crash", &crash) + &table("good", &[]) + &table("silent", &[("MODE", "silent")]);
    let missing = "[tools.missing]\ncommand = \"/no/such/program\"\n";
    let bench = bench_with(&(servers + missing), |builder| builder.config("[mcp]\nmax_restart_attempts = 1"));
    bench.wait("good", "connected");
    assert_eq!(bench.call("echo", json!({"text": "fine"})), "done: fine");
    assert_eq!(bench.status("silent")["status"], "error");
    let list = bench.tools.get("/api/v1/tools").json();
    let names: Vec<&str> =
        list["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["crash", "good", "missing", "silent"]);
    let crashed = bench.wait("crash", "disabled");
    let error = crashed["last_error"].as_str().unwrap();
    assert!(error.contains("exit status: 3") && error.contains("no such luck: ***"), "{error}");
    assert_eq!(std::fs::read_to_string(&starts).unwrap().lines().count(), 2, "one start and one restart");
    assert!(bench.wait("missing", "disabled")["last_error"].as_str().unwrap().contains("/no/such/program"));
    // A restart by hand clears the count, and says why it failed.
    let answer = bench.tools.post("/api/v1/tools/crash/restart", "");
    assert_eq!(answer.status, 404);
    assert!(answer.json()["error"].as_str().unwrap().starts_with("restarting tool \"crash\": "), "{}", answer.text());
    assert_eq!(bench.status("crash")["restart_count"], 1);
    assert!(!bench.hub.log_contains("hunter2"));
}

#[test]
fn children_get_what_is_configured_and_nothing_of_the_hubs_secrets() {
    let servers = table("a", &[("GIVEN", "x-${FROM_HUB}-$UNSET-end")]);
    let bench = bench_with(&servers, |builder| {
        builder
            .env("FROM_HUB", "hub value")
            .env("OPENAI_API_KEY", "sk-hub")
            .env("HOLT_LOG_LEVEL", "debug")
            .env("DENKEEPER_API_AUTH_SESSION_SECRET", &"ab".repeat(32))
            .env("LC_ALL", "C")
    });
    bench.wait("a", "connected");
    let seen = bench.call("env", json!({}));
    assert!(seen.contains("GIVEN=x-hub value--end") && seen.contains("LC_ALL=C") && seen.contains("PATH="), "{seen}");
    for hidden in ["FROM_HUB", "OPENAI_API_KEY", "sk-hub", "HOLT_", "DENKEEPER_"] {
        assert!(!seen.contains(hidden), "{hidden} in {seen}");
    }
    // What is added at run time is treated alike.
    let mut body = config(&[("GIVEN", "${FROM_HUB}")]);
    body["name"] = json!("b");
    assert_eq!(bench.tools.post("/api/v1/tools", &body.to_string()).status, 201);
    assert!(bench.call("b__env", json!({})).contains("GIVEN=hub value"));
    assert!(bench.file().contains("${FROM_HUB}"), "references are kept as they are");
    body["name"] = json!("c");
    body["env"]["GIVEN"] = json!("$DENKEEPER_API_AUTH_SESSION_SECRET");
    let refused = bench.tools.post("/api/v1/tools", &body.to_string());
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("secret of the hub"), "{}", refused.text());
}

#[test]
fn servers_are_added_changed_and_removed_while_the_hub_runs() {
    let mut bench = bench("");
    assert_eq!(bench.tools.get("/api/v1/tools").json(), json!({"tools": []}));
    let mut body = config(&[("TOKEN", "hunter2-secret")]);
    body["name"] = json!("my-tools");
    let added = bench.tools.post("/api/v1/tools", &body.to_string());
    assert_eq!(added.status, 201, "{}", added.text());
    let shape = added.json();
    assert_eq!((&shape["status"], &shape["args_count"]), (&json!("connected"), &json!(4)));
    assert!(shape.get("url").is_none() && shape.get("last_error").is_none() && shape.get("restart_count").is_none());
    assert!(bench.file().contains("[tools.my-tools]") && !bench.file().contains("\nurl ="));
    assert_eq!(bench.call("echo", json!({"text": "added"})), "done: added");
    let twice = bench.tools.post("/api/v1/tools", &body.to_string());
    assert_eq!(
        (twice.status, &twice.json()["error"]),
        (400, &json!("name \"my-tools\" conflicts with an existing tool or plugin"))
    );
    // Values are shown to those who may set them.
    let reader = bench.admin.new_key("reader", &["tools:read"]);
    assert_eq!(reader.get("/api/v1/tools/my-tools").json()["env"]["TOKEN"], "***");
    assert_eq!(bench.status("my-tools")["env"]["TOKEN"], "hunter2-secret");
    assert_eq!(bench.status("my-tools")["headers"], Value::Null);
    assert_eq!(reader.post("/api/v1/tools", "{}").status, 403);
    let defs = reader.get("/api/v1/tools/my-tools/defs").json();
    assert_eq!(defs["tools"][0]["name"], "echo");
    assert_eq!(defs["tools"][0]["parameters"]["type"], "object");
    let health = reader.get("/api/v1/tools/my-tools/health").json();
    let keys: Vec<&String> = health.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["last_error", "name", "restart_count", "status", "transport", "uptime_secs"]);
    // An update that does not start changes nothing; what is sent back masked stays.
    let before = bench.file();
    let broken = bench.tools.send("PUT", "/api/v1/tools/my-tools", r#"{"command":"/no/such/program"}"#);
    assert_eq!(broken.status, 400);
    let error = broken.json()["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("re-registering tool \"my-tools\": start the program: /no/such/program"), "{error}");
    assert_eq!(bench.file(), before);
    assert_eq!(bench.call("echo", json!({"text": "old one"})), "done: old one");
    body["env"]["TOKEN"] = json!("***");
    body["env"]["MORE"] = json!("yes");
    assert_eq!(bench.tools.send("PUT", "/api/v1/tools/my-tools", &body.to_string()).status, 200);
    assert_eq!(bench.status("my-tools")["env"]["TOKEN"], "hunter2-secret");
    assert!(bench.call("env", json!({})).contains("MORE=yes"));
    assert_eq!(bench.tools.post("/api/v1/tools/my-tools/restart", "").json()["status"], "connected");
    // It is remembered.
    bench.hub.signal("TERM");
    assert!(bench.hub.wait().success());
    let again = Builder::new(bench.dir.path()).start();
    let tools = Client::new(&again.address).with_key(&bench.tools.key());
    wait_until("it is back", || (tools.get("/api/v1/tools/my-tools").json()["status"] == "connected").then_some(()));
    assert_eq!(tools.delete("/api/v1/tools/my-tools").status, 204);
    let gone = tools.delete("/api/v1/tools/my-tools");
    assert_eq!(
        (gone.status, &gone.json()["error"]),
        (404, &json!("unregistering tool \"my-tools\": server \"my-tools\" is not registered"))
    );
    for path in ["", "/health"] {
        let answer = tools.get(&format!("/api/v1/tools/my-tools{path}"));
        assert_eq!((answer.status, &answer.json()["error"]), (404, &json!("tool not found")));
    }
    assert_eq!(tools.get("/api/v1/tools/my-tools/defs").json()["error"], "tool server not found");
    let file = std::fs::read_to_string(bench.dir.path().join("holt.toml")).unwrap();
    assert!(!file.contains("my-tools"));
}

#[test]
fn what_start_up_would_refuse_the_api_refuses() {
    let bench = bench_with("", |builder| builder.config("max_tools = 1"));
    let check = |body: Value, expected: &str| {
        let answer = bench.tools.post("/api/v1/tools", &body.to_string());
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(expected), "{body}: {error}");
    };
    check(json!([]), "invalid JSON body");
    check(json!({"command": "x"}), "name is required");
    check(json!({"name": "a b", "command": "x"}), "name \"a b\" must be alphanumeric with hyphens or underscores");
    check(json!({"name": "a"}), "command is required for stdio transport");
    check(json!({"name": "a", "transport": "sse"}), "url is required for sse transport");
    check(json!({"name": "a", "transport": "tcp"}), "unsupported transport \"tcp\"");
    check(json!({"name": "a", "command": "x", "url": "https://e.com"}), "url");
    check(json!({"name": "a", "transport": "sse", "url": "https://e.com", "client_id": "x"}), "client_secret");
    check(json!({"name": "a", "transport": "sse", "url": "http://127.0.0.1:1/mcp"}), "allow_loopback");
    check(json!({"name": "a", "transport": "sse", "url": "http://169.254.169.254/"}), "always refused");
    check(json!({"name": "a", "transport": "sse", "url": "https://e.com", "headers": {"Host": "x"}}), "Host");
    check(json!({"name": "a", "transport": "sse", "url": "https://e.com", "headers": {"X": "a\r\nb"}}), "line break");
    check(json!({"name": "a", "command": "/no/such/program"}), "starting tool \"a\": start the program");
    check(json!({"name": "a", "command": "x", "request_timeout_secs": -1}), "request_timeout_secs");
    let put = bench.tools.send("PUT", "/api/v1/tools/nobody", r#"{"command":"x"}"#);
    assert_eq!((put.status, &put.json()["error"]), (400, &json!("tool \"nobody\" not found")));
    assert_eq!(bench.tools.post("/api/v1/tools/nobody/restart", "").status, 404);
    let oauth = json!({"name": "o", "transport": "sse", "url": "https://e.com/mcp", "auth": "oauth"});
    let answer = bench.tools.post("/api/v1/tools", &oauth.to_string());
    assert_eq!((answer.status, &answer.json()["status"]), (201, &json!("pending_auth")));
    assert_eq!(answer.json()["oauth_status"], json!({"has_token": false, "needs_reauth": true}));
    check(json!({"name": "a", "command": "x"}), "maximum number of tools reached (1)");
}

#[test]
fn tools_and_servers_are_switched_off_and_on() {
    let bench = bench(&(table("a", &[]) + &table("b", &[])));
    bench.wait("a", "connected");
    bench.wait("b", "connected");
    let offered = || bench.admin.get("/api/v1/agents/default").json()["tool_names"].clone();
    let has = |name: &str| offered().as_array().unwrap().contains(&json!(name));
    assert!(has("a__echo") && has("b__echo") && !has("echo"));
    let path = "/api/v1/tools/a/disabled-tools";
    // A value elsewhere in the file that cannot be used is named.
    let (place, text) = (bench.dir.path().join("holt.toml"), bench.file());
    std::fs::write(&place, format!("{text}\n[notify.x]\ntype = \"pager\"\n")).unwrap();
    let answer = bench.tools.send("PUT", path, r#"{"disabled_tools":["echo"]}"#);
    assert!(answer.status == 400 && answer.text().contains("notify.x.type: must be one of"), "{}", answer.text());
    std::fs::write(&place, text).unwrap();
    let answer = bench.tools.send("PUT", path, r#"{"disabled_tools":["echo","env"]}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!has("a__echo") && has("b__echo") && has("a__fail"), "{}", offered());
    assert!(bench.call("a__echo", json!({})).contains("there is no tool named"));
    let defs = bench.tools.get("/api/v1/tools/a/defs").json();
    assert_eq!((&defs["tools"][0]["name"], &defs["tools"][0]["disabled"]), (&json!("echo"), &json!(true)));
    assert!(bench.file().contains("disabled_tools = [\"echo\", \"env\"]"));
    assert_eq!(bench.tools.send("PUT", path, r#"{"disabled_tools":["nonsense"]}"#).status, 400);
    assert_eq!(bench.tools.send("PUT", path, "{}").status, 400);
    assert_eq!(bench.tools.send("PUT", path, r#"{"disabled_tools":[]}"#).status, 200);
    assert!(!bench.file().contains("disabled_tools"));
    assert_eq!(bench.tools.post("/api/v1/tools/b/disable", "").json()["status"], "disabled");
    assert!(!has("b__echo") && bench.file().contains("disabled = true"));
    assert_eq!(bench.tools.post("/api/v1/tools/b/enable", "").json()["status"], "connected");
    assert!(has("b__echo") && !bench.file().contains("disabled"));
    assert_eq!(bench.tools.post("/api/v1/tools/nobody/enable", "").status, 404);
    let audit = bench.admin.new_key("audit", &["audit:read"]).get("/api/v1/audit").text();
    for action in ["tool_server.disabled_tools", "tool_server.disable", "tool_server.enable"] {
        assert!(audit.contains(action), "{action} in {audit}");
    }
}

#[test]
fn a_stop_ends_every_server_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let (pids, starts) = (dir.path().join("pids"), dir.path().join("starts"));
    let stubborn = [("MODE", "stubborn"), ("PIDS", pids.to_str().unwrap()), ("STARTS", starts.to_str().unwrap())];
    let servers: String = (0..5).map(|number| table(&format!("s{number}"), &stubborn)).collect();
    let mut bench = bench(&(servers + &table("good", &[])));
    for number in 0..5 {
        bench.wait(&format!("s{number}"), "connected");
    }
    let numbers = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    wait_until("the grandchildren are there", || (numbers(&pids).lines().count() == 5).then_some(()));
    let begun = Instant::now();
    bench.hub.signal("TERM");
    assert!(bench.hub.wait().success());
    assert!(begun.elapsed() < Duration::from_secs(8 + 5), "the whole stop has 8 s: {:?}", begun.elapsed());
    for pid in (numbers(&pids) + &numbers(&starts)).lines() {
        wait_until("the process is gone", || {
            (!std::path::Path::new(&format!("/proc/{pid}/cmdline")).exists()).then_some(())
        });
    }
}

#[test]
fn failed_changes_are_recorded_without_secrets() {
    let bench = bench_with(&table("a", &[("MODE", "crash")]), |builder| builder.config("[mcp]\nauto_restart = false"));
    let mut body = config(&[("MODE", "crash"), ("TOKEN", "hunter2-secret")]);
    body["name"] = json!("b");
    assert_eq!(bench.tools.post("/api/v1/tools", &body.to_string()).status, 400);
    assert_eq!(bench.tools.send("PUT", "/api/v1/tools/a", &body.to_string()).status, 400);
    assert_eq!(bench.tools.post("/api/v1/tools/a/restart", "").status, 404);
    assert_eq!(bench.tools.post("/api/v1/tools/a/disable", "").status, 200);
    assert_eq!(bench.tools.post("/api/v1/tools/a/enable", "").json()["status"], "error");
    let auditor = bench.admin.new_key("auditor", &["audit:read"]);
    let found = auditor.get("/api/v1/audit?action=tool_server.&result=failed").json();
    let entries = found["entries"].as_array().unwrap();
    let actions: Vec<&str> = entries.iter().rev().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["tool_server.add", "tool_server.update", "tool_server.restart", "tool_server.enable"]);
    for entry in entries {
        assert_eq!(entry["detail"], format!("start_failed, command {}", body["command"]));
        assert_eq!(entry["actor"], "key:tools");
    }
    assert!(!found.to_string().contains("hunter2") && !found.to_string().contains("nocapture"));
}

#[test]
fn nobody_who_approves_a_new_server_sees_its_secrets() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let mut hub = Builder::new(dir.path()).model(&model).start();
    let all = hub.admin().new_key("all", &["chat", "approvals:read", "approvals:write", "tools:read", "audit:read"]);
    let mut arguments = config(&[("TOKEN", "hunter2-secret")]);
    arguments["name"] = json!("helper");
    let mut socket = Socket::open(&all);
    start(&mut socket, "tool_add", &arguments);
    let asked = loop {
        let frame = socket.next();
        assert!(!frame.to_string().contains("hunter2"), "{frame}");
        if frame["type"] == "tool_approval" {
            break frame;
        }
    };
    let text = asked["text"].as_str().unwrap();
    assert!(text.contains("\"TOKEN\":\"***\"") && text.contains("--nocapture"), "{text}");
    let id = asked["approval_id"].as_str().unwrap();
    assert!(!all.get(&format!("/api/v1/approvals/{id}")).text().contains("hunter2"));
    assert_eq!(all.post(&format!("/api/v1/approvals/{id}/approve"), "").status, 200);
    let frames = socket.turn();
    assert!(!json!(frames).to_string().contains("hunter2"), "{frames:?}");
    assert_eq!(all.get("/api/v1/tools/helper").json()["status"], "connected");
    assert!(!all.get("/api/v1/audit?limit=500").text().contains("hunter2"));
    assert!(!hub.log_contains("hunter2"));
    hub.signal("TERM");
    assert!(hub.wait().success());
    let events = std::fs::read(dir.path().join("events.db")).unwrap();
    assert!(!events.windows(7).any(|part| part == b"hunter2"));
    let db = rusqlite::Connection::open(dir.path().join("holt.db")).unwrap();
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'";
    let tables: Vec<String> =
        db.prepare(tables).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(tables.iter().any(|name| name == "tool_steps") && tables.iter().any(|name| name == "approvals"));
    for table in tables {
        let mut statement = db.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for column in 0..columns {
                let shown = format!("{:?}", row.get::<_, rusqlite::types::Value>(column).unwrap());
                // What the user typed is theirs.
                let is_typed = shown.contains("tool tool_add {");
                assert!(is_typed || !shown.contains("hunter2"), "{table}: {shown}");
            }
        }
    }
}

#[test]
fn what_was_allowed_for_a_server_goes_with_it() {
    let supervised = "[[agents]]\nname = \"default\"\nsession_tier = \"supervised\"";
    let bench = bench_with(&table("a", &[]), |builder| builder.config(supervised));
    bench.wait("a", "connected");
    let all = bench.admin.new_key("all", &["chat", "approvals:read", "approvals:write"]);
    let mut socket = Socket::open(&all);
    let ask = |socket: &mut Socket, session: &str| -> Value {
        socket.chat(session, r#"tool echo {"text":"x"}"#);
        loop {
            let frame = socket.next();
            if frame["type"] == "tool_approval" {
                return frame;
            }
        }
    };
    let first = ask(&mut socket, "s1");
    let path = format!("/api/v1/approvals/{}/approve?auto_approve=session", first["approval_id"].as_str().unwrap());
    assert_eq!(all.post(&path, "").status, 200);
    assert_eq!(socket.turn().last().unwrap()["type"], "done");
    let waiting = ask(&mut socket, "s2");
    assert_eq!(bench.tools.delete("/api/v1/tools/a").status, 204);
    // The waiting turn goes on without its call, late decisions are told why, and the rule is gone.
    assert_eq!(socket.turn().last().unwrap()["type"], "done");
    let late = all.post(&format!("/api/v1/approvals/{}/approve", waiting["approval_id"].as_str().unwrap()), "");
    assert!(late.status == 409 && late.text().contains("removed or changed"), "{}", late.text());
    assert_eq!(all.get("/api/v1/auto-approve").text().trim(), "null");
}
