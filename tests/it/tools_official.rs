//! Official tool servers: those of the protocol's authors (npm), and one made with their Python package (PyPI), over
//! every transport. They run where `tests/mcp` is installed (see `.ci/run`); `HOLT_MCP_TESTS=required` makes their
//! absence a failure.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::{Client, Hub, Model, Socket, wait_until};

const EVERYTHING: &str = "node_modules/@modelcontextprotocol/server-everything/dist/index.js";
const FILESYSTEM: &str = "node_modules/@modelcontextprotocol/server-filesystem/dist/index.js";
const PYTHON: &str = "venv/bin/python";

/// A file of `tests/mcp`; None when it is not installed and need not be.
fn installed(path: &str) -> Option<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/mcp").join(path);
    let is_there = path.exists();
    let is_required = std::env::var("HOLT_MCP_TESTS").is_ok_and(|value| value == "required");
    assert!(is_there || !is_required, "{} is not installed; see .ci/run", path.display());
    if !is_there {
        eprintln!("skipped: {} is not installed", path.display());
    }
    is_there.then(|| path.to_str().unwrap().to_owned())
}

fn server_py() -> String {
    installed("server.py").expect("it is part of the repository")
}

/// A server that listens, ended when dropped.
struct Listening(Child);

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server on a free port and waits until it takes connections.
fn listen(program: &str, arguments: &dyn Fn(u16) -> Vec<String>) -> (Listening, u16) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(program);
    command.args(arguments(port)).env("PORT", port.to_string());
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let listening = Listening(child);
    wait_until("the server listens", || {
        ["127.0.0.1", "::1"].iter().find_map(|host| TcpStream::connect((*host, port)).ok())
    });
    (listening, port)
}

struct Bench {
    hub: Hub,
    admin: Client,
    tools: Client,
    _model: Model,
    _dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let builder = Builder::new(dir.path()).model(&model).config("[session]\ntier = \"autonomous\"");
    let hub = builder.start();
    let admin = hub.admin();
    let tools = admin.new_key("tools", &["tools:read", "tools:write"]);
    Bench { hub, admin, tools, _model: model, _dir: dir }
}

impl Bench {
    #[track_caller]
    fn add(&self, body: Value) -> Value {
        let answer = self.tools.post("/api/v1/tools", &body.to_string());
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()
    }

    #[track_caller]
    fn call(&self, tool: &str, arguments: Value) -> String {
        let mut socket = Socket::open(&self.admin);
        socket.chat("", &format!("tool {tool} {arguments}"));
        let frames = socket.turn();
        let content = frames.iter().find(|frame| frame["type"] == "content");
        content.unwrap_or_else(|| panic!("{frames:?}"))["text"].as_str().unwrap().to_owned()
    }

    /// What every transport of `server-everything` must do.
    fn everything_works(&self) {
        assert_eq!(self.call("echo", json!({"message": "hi ü"})), "done: Echo: hi ü");
        assert!(self.call("get-sum", json!({"a": 2, "b": 3})).contains('5'));
        assert!(self.call("get-tiny-image", json!({})).contains("[image image/png, "));
        assert!(self.call("get-structured-content", json!({"location": "New York"})).contains("temperature"));
        assert!(
            self.call("get-resource-reference", json!({"resourceType": "Text", "resourceId": 1})).contains("resource")
        );
        assert!(self.call("echo", json!({})).contains("Tool error: "), "it checks its arguments");
        let slow = self.call("trigger-long-running-operation", json!({"duration": 2, "steps": 8}));
        assert!(slow.contains("Long running operation completed"), "{slow}");
    }
}

fn everything(url: String) -> Value {
    json!({"name": "everything", "transport": "sse", "url": url, "allow_loopback": true, "request_timeout_secs": 1})
}

#[test]
fn everything_over_pipes() {
    let Some(script) = installed(EVERYTHING) else { return };
    let bench = bench();
    let status = bench
        .add(json!({"name": "everything", "command": "node", "args": [script, "stdio"], "request_timeout_secs": 1}));
    assert_eq!((&status["transport"], &status["status"]), (&json!("stdio"), &json!("connected")));
    bench.everything_works();
}

#[test]
fn everything_over_streamable_http() {
    let Some(script) = installed(EVERYTHING) else { return };
    let (_server, port) = listen("node", &|_| vec![script.clone(), "streamableHttp".to_owned()]);
    let bench = bench();
    let status = bench.add(everything(format!("http://localhost:{port}/mcp?key=secret")));
    assert_eq!((&status["transport"], &status["status"]), (&json!("sse"), &json!("connected")));
    assert_eq!(status["url"], format!("http://localhost:{port}/mcp?key=%2A%2A%2A"));
    bench.everything_works();
    assert_eq!(bench.tools.delete("/api/v1/tools/everything").status, 204);
}

#[test]
fn everything_over_the_older_transport() {
    let Some(script) = installed(EVERYTHING) else { return };
    let (_server, port) = listen("node", &|_| vec![script.clone(), "sse".to_owned()]);
    let bench = bench();
    let status = bench.add(everything(format!("http://localhost:{port}/sse")));
    assert_eq!((&status["transport"], &status["status"]), (&json!("sse-legacy"), &json!("connected")));
    bench.everything_works();
}

#[test]
fn a_remote_server_that_was_away_is_found_again() {
    let Some(script) = installed(EVERYTHING) else { return };
    let (server, port) = listen("node", &|_| vec![script.clone(), "streamableHttp".to_owned()]);
    let bench = bench();
    bench.add(everything(format!("http://localhost:{port}/mcp")));
    drop(server);
    assert!(bench.call("echo", json!({"message": "x"})).contains("Tool error: "));
    // The same port, a server that knows nothing of the session: it says so, and a new one is made.
    let mut command = Command::new("node");
    command.args([&script, "streamableHttp"]).env("PORT", port.to_string());
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut again = Listening(child);
    let mut line = String::new();
    BufReader::new(again.0.stderr.take().unwrap()).read_line(&mut line).unwrap();
    wait_until("calls work again", || (bench.call("echo", json!({"message": "x"})) == "done: Echo: x").then_some(()));
}

#[test]
fn files_over_pipes() {
    let Some(script) = installed(FILESYSTEM) else { return };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    std::fs::write(root.join("note.txt"), "written down").unwrap();
    let bench = bench();
    let status = bench.add(json!({"name": "files", "command": "node", "args": [script, root.to_str().unwrap()]}));
    assert!(status["tool_names"].as_array().unwrap().len() > 5, "{status}");
    let path = root.join("note.txt");
    assert!(bench.call("read_text_file", json!({"path": path.to_str().unwrap()})).contains("written down"));
    assert!(bench.call("read_text_file", json!({"path": "/etc/passwd"})).contains("Tool error: "));
    let new = root.join("new.txt");
    bench.call("write_file", json!({"path": new.to_str().unwrap(), "content": "by a tool"}));
    assert_eq!(std::fs::read_to_string(new).unwrap(), "by a tool");
}

/// What the Python server must do on every transport. It has a second for each call without progress.
fn python_works(bench: &Bench) {
    assert!(bench.call("add", json!({"a": 2, "b": 40})).contains("42"));
    assert_eq!(bench.call("greet", json!({"name": "Holt"})), "done: Hello, Holt!");
    assert!(bench.call("fail", json!({})).contains("Tool error: tool \"fail\" returned error: "));
    assert_eq!(bench.call("picture", json!({})), "done: [image image/png, 2 KiB]");
    assert_eq!(bench.call("steps", json!({})), "done: all steps done");
    assert!(bench.call("sleep", json!({})).contains("timed out after 1s"));
    assert_eq!(bench.call("greet", json!({"name": "again"})), "done: Hello, again!");
    assert_eq!(bench.tools.get("/api/v1/tools/python/health").json()["restart_count"], 0);
}

#[test]
fn python_over_pipes() {
    let Some(python) = installed(PYTHON) else { return };
    let bench = bench();
    bench.add(json!({"name": "python", "command": python, "args": [server_py(), "stdio"], "request_timeout_secs": 1}));
    python_works(&bench);
}

#[test]
fn python_over_streamable_http_with_streams_and_with_plain_json() {
    let Some(python) = installed(PYTHON) else { return };
    for mode in ["stream", "json"] {
        let arguments = |port: u16| vec![server_py(), "http".to_owned(), port.to_string(), mode.to_owned()];
        let (_server, port) = listen(&python, &arguments);
        let bench = bench();
        let url = format!("http://127.0.0.1:{port}/mcp");
        let body = json!({"name": "python", "transport": "sse", "url": url, "allow_loopback": true, "request_timeout_secs": if mode == "json" { 3 } else { 1 }});
        assert_eq!(bench.add(body)["transport"], "sse");
        if mode == "stream" {
            python_works(&bench);
        } else {
            // Without streams there is no progress.
            assert_eq!(bench.call("steps", json!({})), "done: all steps done");
            assert!(bench.call("add", json!({"a": 2, "b": 40})).contains("42"));
        }
        assert_eq!(bench.hub.client().get("/api/v1/health").status, 200);
    }
}
