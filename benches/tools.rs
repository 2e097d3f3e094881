//! Tool servers over pipes: what a call costs beside the bare exchange of two lines with the same program in the same
//! run, and what five servers cost the hub itself.
#![allow(clippy::pedantic, clippy::print_stdout, reason = "a bench prints what it measured")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holt::mcp::{CallLimit, Mask, Program, start_program};
use holt::rt::{Cancel, Threads};
use serde_json::{Value, json};
use support::{Peer, directory, key, request};

const CALLS: usize = 20_000;
const SERVERS: usize = 5;

fn main() {
    if std::env::var("BENCH_ROLE").is_ok() {
        return serve();
    }
    let own = std::env::current_exe().expect("the path of this bench");
    let own = own.to_str().expect("a plain path");
    // Alternating, so that a busy moment hits both.
    let (mut bare, mut client) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        bare = bare.min(bare_calls(own));
        client = client.min(client_calls(own));
    }
    let per_call = |all: Duration| all.as_secs_f64() * 1e6 / CALLS as f64;
    println!("{:<40} {:>10.1} us", "bare exchange of two lines", per_call(bare));
    println!("{:<40} {:>10.1} us   ({:.2} x bare)", "tool call", per_call(client), per_call(client) / per_call(bare));
    memory(own);
}

/// Answers every request at once, with as little work as possible.
fn serve() {
    let (stdin, stdout) = (std::io::stdin().lock(), std::io::stdout());
    for line in stdin.lines() {
        let Ok(message) = serde_json::from_str::<Value>(&line.expect("text")) else { continue };
        let result = match message["method"].as_str().unwrap_or("") {
            "initialize" => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}),
            "tools/list" => json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}),
            "tools/call" => json!({"content": [{"type": "text", "text": message["params"]["arguments"]["text"]}]}),
            _ => json!({}),
        };
        if !message["id"].is_null() {
            let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
            writeln!(stdout.lock(), "{answer}").expect("a hub that reads");
        }
    }
}

/// The same lines, without a client: written, read, not looked at.
fn bare_calls(own: &str) -> Duration {
    let mut command = Command::new(own);
    command.env("BENCH_ROLE", "server").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("this bench");
    let (mut stdin, stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    let begun = Instant::now();
    for id in 0..CALLS {
        let params = json!({"name": "echo", "arguments": {"text": "hello"}, "_meta": {"progressToken": id}});
        let call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        stdin.write_all(format!("{call}\n").as_bytes()).expect("a server that reads");
        line.clear();
        stdout.read_line(&mut line).expect("a server that answers");
    }
    let took = begun.elapsed();
    drop(stdin);
    child.wait().expect("the end of the server");
    took
}

fn client_calls(own: &str) -> Duration {
    let env = BTreeMap::from([("BENCH_ROLE".to_owned(), "server".to_owned())]);
    let program = Program {
        command: own,
        arguments: &[],
        env: &env,
        process_env: &[],
        children: &holt::mcp::Children::default(),
        log: &holt::mcp::ErrorLog::default(),
    };
    let (threads, cancel) = (Threads::new(), Cancel::new());
    let open = start_program("bench", &program, Mask::default(), Duration::from_secs(10), &threads, &cancel);
    let client = open.expect("a server");
    let arguments = json!({"text": "hello"});
    let begun = Instant::now();
    for _ in 0..CALLS {
        let limit = CallLimit { idle: Duration::from_secs(10), deadline: Instant::now() + Duration::from_secs(10) };
        let outcome = client.call_tool("echo", &arguments, limit, &cancel).expect("an answer");
        assert_eq!(outcome.text, "hello");
    }
    let took = begun.elapsed();
    client.close();
    assert!(client.wait_ended(Duration::from_secs(10)));
    took
}

/// The hub's own memory with five servers connected, against none; the servers' memory is theirs.
fn memory(own: &str) {
    let (_guard, dir) = directory();
    let mut figures = Vec::new();
    for servers in [0, SERVERS] {
        let data = dir.join(servers.to_string());
        std::fs::create_dir_all(&data).expect("a directory");
        let tables: String = (0..servers)
            .map(|number| format!("[tools.s{number}]\ncommand = {own:?}\nenv = {{ BENCH_ROLE = \"server\" }}\n"))
            .collect();
        std::fs::write(data.join("holt.toml"), tables).expect("a file");
        let hub = Peer::holt(&data);
        let bearer = format!("Authorization: Bearer {}\r\n", key(&hub.address));
        let body = request(&hub.address, "POST", "/api/v1/keys", &bearer, r#"{"name":"t","scopes":["tools:read"]}"#);
        let key = body.split("\"key\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a key");
        let bearer = format!("Authorization: Bearer {key}\r\n");
        let connected =
            || request(&hub.address, "GET", "/api/v1/tools", &bearer, "").matches("\"status\":\"connected\"").count();
        let deadline = Instant::now() + Duration::from_secs(20);
        while connected() < servers {
            assert!(Instant::now() < deadline, "the servers connect");
        }
        figures.push((hub.kib("VmRSS:"), hub.kib("RssAnon:")));
    }
    let (none, five) = (figures[0], figures[1]);
    println!("{:<40} {:>10.1} MiB", "hub, no tool server", none.0 as f64 / 1024.0);
    println!(
        "{:<40} {:>10.1} MiB   ({:.0} KiB a server, their own memory not counted)",
        "hub, five tool servers",
        five.0 as f64 / 1024.0,
        (five.1.saturating_sub(none.1)) as f64 / SERVERS as f64
    );
}
