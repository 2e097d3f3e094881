//! Remote tool servers, hostile ones too: what they are sent, what they may cost, where they may lead.

use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::remote::Remote;
use crate::support::{Client, Hub, Model, Socket, wait_until};

struct Bench {
    hub: Hub,
    admin: Client,
    tools: Client,
    remote: Remote,
    _model: Model,
    _dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let builder = Builder::new(dir.path()).model(&model).config("[session]\ntier = \"autonomous\"");
    let hub = builder.env("FROM_HUB", "hub-value").start();
    let admin = hub.admin();
    let tools = admin.new_key("tools", &["tools:read", "tools:write"]);
    Bench { hub, admin, tools, remote: Remote::start(), _model: model, _dir: dir }
}

impl Bench {
    fn body(&self, path: &str) -> Value {
        json!({"name": "r", "transport": "sse", "url": self.remote.url(path), "allow_loopback": true,
            "request_timeout_secs": 1, "env": {"KEY": "hunter2-secret"},
            "headers": {"Authorization": "Bearer ${KEY}", "X-Hub": "${FROM_HUB}${UNSET}"}})
    }

    #[track_caller]
    fn add(&self, path: &str) -> Value {
        let answer = self.tools.post("/api/v1/tools", &self.body(path).to_string());
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()
    }

    #[track_caller]
    fn call(&self, tool: &str) -> String {
        let mut socket = Socket::open(&self.admin);
        socket.chat("", &format!("tool {tool} {{}}"));
        let frames = socket.turn();
        let content = frames.iter().find(|frame| frame["type"] == "content");
        content.unwrap_or_else(|| panic!("{frames:?}"))["text"].as_str().unwrap().to_owned()
    }
}

#[test]
fn requests_carry_what_the_protocol_and_the_configuration_say() {
    let bench = bench();
    bench.add("/mcp");
    assert_eq!(bench.call("echo"), "done: Bearer hunter2-secret");
    assert_eq!(bench.call("streamed"), "done: in a stream");
    assert_eq!(bench.tools.delete("/api/v1/tools/r").status, 204);
    let requests = wait_until("the session is ended", || {
        let requests = bench.remote.requests();
        requests.iter().any(|request| request.method == "DELETE").then_some(requests)
    });
    let hello = &requests[0];
    assert_eq!((hello.header("mcp-session-id"), hello.header("mcp-protocol-version")), (None, None));
    assert_eq!(hello.body["params"]["protocolVersion"], "2025-11-25");
    for request in &requests[1..] {
        assert_eq!(request.header("mcp-session-id"), Some("session-0"), "{request:?}");
        assert_eq!(request.header("mcp-protocol-version"), Some("2025-06-18"));
        assert_eq!(request.header("x-hub"), Some("hub-value"));
        let accept = request.header("accept").unwrap_or("");
        assert!(request.method == "DELETE" || accept.contains("text/event-stream"), "{request:?}");
        assert!(request.method != "POST" || accept.contains("application/json"));
    }
    assert_eq!(requests[1].body["method"], "notifications/initialized", "before all that follows");
    assert!(!bench.hub.log_contains("hunter2"));
}

#[test]
fn an_answer_that_misbehaves_hurts_only_its_own_call() {
    let bench = bench();
    bench.add("/mcp");
    for (tool, expected) in [
        ("cut", "done: taken up"),
        ("hang", "timed out after 1s"),
        ("huge", "more than 8 MiB"),
        ("page", "with text/html that is no answer"),
        ("empty", "with nothing that is no answer"),
        ("reset", "Tool error: tool server \"r\": "),
        ("ask", "done: asked"),
    ] {
        let said = bench.call(tool);
        assert!(said.contains(expected), "{tool}: {said}");
        assert_eq!(bench.call("echo"), "done: Bearer hunter2-secret", "after {tool}");
    }
    wait_until("the server's question is answered, the call that hung is taken back", || {
        let requests = bench.remote.requests();
        let answered =
            requests.iter().any(|request| request.body["id"] == "q" && request.body["result"]["roots"] == json!([]));
        let cancelled = requests.iter().any(|request| request.body["method"] == "notifications/cancelled");
        (answered && cancelled).then_some(())
    });
    assert_eq!(bench.tools.get("/api/v1/tools/r/health").json()["restart_count"], 0);
    assert!(bench.hub.status_kib("VmHWM:") < 80 * 1024);
}

#[test]
fn a_lost_session_is_made_anew() {
    let bench = bench();
    bench.add("/mcp");
    bench.remote.forget();
    assert!(bench.call("echo").contains("the server has lost the session"));
    wait_until("there is a new session", || (bench.call("echo") == "done: Bearer hunter2-secret").then_some(()));
}

#[test]
fn redirects_stay_within_the_origin() {
    let bench = bench();
    bench.add("/old");
    assert_eq!(bench.call("echo"), "done: Bearer hunter2-secret");
    assert_eq!(bench.tools.delete("/api/v1/tools/r").status, 204);
    let refused = bench.tools.post("/api/v1/tools", &bench.body("/away").to_string());
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("it redirects to http://10.9.9.9"), "{}", refused.text());
}

#[test]
fn servers_that_are_none_are_refused_with_a_reason() {
    let bench = bench();
    let check = |path: &str, expected: &str| {
        let refused = bench.tools.post("/api/v1/tools", &bench.body(path).to_string());
        assert_eq!(refused.status, 400, "{path}");
        let error = refused.json()["error"].as_str().unwrap().to_owned();
        assert!(error.starts_with("starting tool \"r\": ") && error.contains(expected), "{path}: {error}");
        assert!(!refused.text().contains("hunter2"), "{path}: {error}");
    };
    check("/login", "wants a login");
    check("/page", "with text/html that is no answer");
    check("/broken", "status 500: out of paper; your key was ***");
    // This machine only where it is allowed, whatever the name.
    let port = bench.remote.address.rsplit(':').next().unwrap().to_owned();
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        let mut body = bench.body("/mcp");
        body["url"] = json!(format!("http://{host}:{port}/mcp"));
        body["allow_loopback"] = json!(false);
        let refused = bench.tools.post("/api/v1/tools", &body.to_string());
        assert!(refused.status == 400 && refused.text().contains("allow_loopback"), "{host}: {}", refused.text());
    }
    let n_before = bench.remote.requests().len();
    assert_eq!(bench.tools.get("/api/v1/tools").json(), json!({"tools": []}));
    assert_eq!(bench.remote.requests().len(), n_before);
}

#[test]
fn a_silent_server_delays_neither_start_nor_stop() {
    let (dir, remote) = (tempfile::tempdir().unwrap(), Remote::start());
    let servers =
        format!("[tools.s]\ntransport = \"sse\"\nurl = \"{}\"\nallow_loopback = true\n", remote.url("/silent"));
    let mut hub = Builder::new(dir.path()).config(&servers).start();
    let tools = hub.admin().new_key("tools", &["tools:read"]);
    wait_until("it was asked", || (!remote.requests().is_empty()).then_some(()));
    assert_eq!(tools.get("/api/v1/tools/s").json()["status"], "error");
    hub.signal("TERM");
    assert!(hub.wait().success());
    assert!(!hub.log_contains("late at the stop"), "{}", hub.log_tail());
}

#[test]
fn only_listed_hosts_are_reached_where_there_is_a_list() {
    let (dir, remote) = (tempfile::tempdir().unwrap(), Remote::start());
    let list = "[mcp]\nurl_allowlist = [\"*.example.com\"]\n";
    let server = format!("[tools.s]\ntransport = \"sse\"\nurl = \"{}\"\nallow_loopback = true\n", remote.url("/mcp"));
    let hub = Builder::new(dir.path()).config(list).config(&server).start();
    let tools = hub.admin().new_key("tools", &["tools:read"]);
    wait_until("it is refused", || {
        let status = tools.get("/api/v1/tools/s").json();
        status["last_error"].as_str().is_some_and(|error| error.contains("mcp.url_allowlist")).then_some(())
    });
    assert!(remote.requests().is_empty());
}
