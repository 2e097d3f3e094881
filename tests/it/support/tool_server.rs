//! A scripted tool server: this test binary once more, as a child of the hub. `cargo test` prints a few lines around
//! it, which a client has to skip anyway.
//!
//! What a tool does stands in its name; `MODE` changes how the whole server behaves.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Lines of `holt.toml` for a scripted server, which has a second for each call.
pub fn table(name: &str, env: &[(&str, &str)]) -> String {
    let config = config(&[]);
    let mut text = format!("[tools.{name}]\ncommand = {}\nargs = {}\n", config["command"], config["args"]);
    text.push_str("request_timeout_secs = 1\nenv = { SCRIPTED = \"1\"");
    for (key, value) in env {
        text.push_str(&format!(", {key} = {}", json!(value)));
    }
    text.push_str(" }\n");
    text
}

/// The same as a body of the API.
pub fn config(env: &[(&str, &str)]) -> Value {
    let mut all = json!({"SCRIPTED": "1"});
    for (key, value) in env {
        all[*key] = json!(value);
    }
    let program = std::env::current_exe().unwrap();
    json!({
        "command": program.to_str().unwrap(),
        "args": ["--exact", "support::tool_server::scripted", "--nocapture", "--quiet"],
        "env": all,
    })
}

/// Not a test of its own: a server when the hub starts it, nothing otherwise.
#[test]
fn scripted() {
    if std::env::var("SCRIPTED").is_ok() {
        serve();
        std::process::exit(0);
    }
}

const TOOLS: &[&str] = &[
    "echo",
    "hang",
    "crash",
    "garbage",
    "huge",
    "endless",
    "flood",
    "twice",
    "wrong_id",
    "progress",
    "storm",
    "env",
    "rich",
    "fail",
    "structured",
    "refuse",
    "secret",
    "log",
    "ask",
    "deaf",
];

fn say(message: &Value) {
    let mut out = std::io::stdout().lock();
    // The hub may be gone.
    let _ = writeln!(out, "{message}");
    let _ = out.flush();
}

fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    // The hub may be gone.
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

fn serve() {
    let mode = std::env::var("MODE").unwrap_or_default();
    // What `cargo test` prints has no line end.
    write("\n");
    if let Ok(file) = std::env::var("STARTS") {
        let mut starts = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
        writeln!(starts, "{}", std::process::id()).unwrap();
    }
    let mut grandchild = None;
    match mode.as_str() {
        "crash" => {
            eprintln!("no such luck: {}", std::env::var("TOKEN").unwrap_or_default());
            std::process::exit(3);
        }
        "silent" => loop {
            std::thread::park();
        },
        "old" | "2024-11-05" | "2025-03-26" | "2025-06-18" => {}
        "stubborn" => {
            // SIGTERM only sets a flag that nobody looks at; a grandchild does the same and holds the pipes.
            let flag = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            signal_hook::flag::register(signal_hook::consts::SIGTERM, flag).unwrap();
            let mut child = Command::new("sh");
            child.args(["-c", "trap '' TERM; echo $$ >> \"$PIDS\"; while :; do sleep 1; done"]).stdin(Stdio::null());
            // It outlives this process on purpose: who ends it is what the test is about.
            grandchild = Some(child.spawn().unwrap());
        }
        _ => {}
    }
    let mut extra = 0;
    let mut lines = std::io::stdin().lines();
    while let Some(Ok(line)) = lines.next() {
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        let (id, params) = (&message["id"], &message["params"]);
        let answer = |result: Value| say(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
        match message["method"].as_str().unwrap_or("") {
            "initialize" => {
                let version = match mode.as_str() {
                    "old" => "1999-01-01",
                    version if version.starts_with("20") => version,
                    _ => "2025-11-25",
                };
                answer(json!({"protocolVersion": version, "capabilities": {"tools": {"listChanged": true}},
                    "serverInfo": {"name": "scripted", "version": "1"}}));
            }
            "ping" => answer(json!({})),
            "tools/list" => {
                // Two pages.
                let tool = |name: &str| {
                    json!({"name": name, "description": format!("does {name}"),
                    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}})
                };
                if params["cursor"].is_null() {
                    let tools: Vec<Value> = TOOLS.iter().map(|name| tool(name)).collect();
                    answer(json!({"tools": tools, "nextCursor": "more"}));
                } else {
                    let tools: Vec<Value> = (0..extra).map(|number| tool(&format!("extra_{number}"))).collect();
                    answer(json!({"tools": tools}));
                }
            }
            "tools/call" => call(id, params, &mut extra, &answer, &mut lines),
            _ => {}
        }
    }
    if let Some(mut grandchild) = grandchild {
        // Never: it ignores what would end it.
        let _ = grandchild.wait();
    }
}

type Lines = std::io::Lines<std::io::StdinLock<'static>>;

fn call(id: &Value, params: &Value, extra: &mut u32, answer: &dyn Fn(Value), lines: &mut Lines) {
    let text = |text: &str| answer(json!({"content": [{"type": "text", "text": text}]}));
    let given = params["arguments"]["text"].as_str().unwrap_or("");
    match params["name"].as_str().unwrap_or("") {
        "echo" => text(given),
        "hang" => {}
        "crash" => {
            eprintln!("thread 'main' panicked");
            std::process::exit(7);
        }
        "garbage" => {
            write("\u{1b}[31mhello\u{1b}[0m\n{\"jsonrpc\":\n\n[1,2\nnull\n\"x\"\n");
            std::io::stdout().write_all(b"\xff\xfe\x00\n").unwrap();
            text("still here");
        }
        "huge" => {
            let mut out = std::io::stdout().lock();
            write!(out, "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[{{\"type\":\"text\",\"text\":\"")
                .unwrap();
            let piece = vec![b'x'; 1024 * 1024];
            for _ in 0..100 {
                if out.write_all(&piece).is_err() {
                    return;
                }
            }
            writeln!(out, "\"}}]}}}}").unwrap();
        }
        "endless" => {
            let mut out = std::io::stdout().lock();
            let piece = vec![b'y'; 64 * 1024];
            while out.write_all(&piece).is_ok() {}
            std::process::exit(1);
        }
        "flood" => {
            // Words that nobody asked for, and the answer behind them.
            for number in 0..20_000 {
                say(&json!({"jsonrpc": "2.0", "method": "notifications/odd", "params": {"number": number}}));
                eprintln!("flood {number}");
            }
            text("done flooding");
        }
        "twice" => {
            text("first");
            text("second");
        }
        "wrong_id" => say(&json!({"jsonrpc": "2.0", "id": 987_654, "result": {"content": []}})),
        "deaf" => {
            text("ok");
            loop {
                std::thread::park();
            }
        }
        "progress" => {
            let token = &params["_meta"]["progressToken"];
            for number in 0..25 {
                say(&json!({"jsonrpc": "2.0", "method": "notifications/progress",
                    "params": {"progressToken": token, "progress": number}}));
                // Long enough for all of it to outlast the time-out of one second.
                let _ = crossbeam_channel::never::<()>().recv_timeout(std::time::Duration::from_millis(100));
            }
            text("at last");
        }
        "storm" => {
            *extra += 1;
            for _ in 0..5000 {
                say(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
            }
            text("changed");
        }
        "env" => {
            let mut names: Vec<String> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
            names.sort();
            text(&names.join("\n"));
        }
        "rich" => answer(json!({"content": [
            {"type": "text", "text": "one"},
            {"type": "image", "mimeType": "image/png", "data": "A".repeat(16 * 1024)},
            {"type": "resource", "resource": {"uri": "file:///x", "mimeType": "text/plain", "text": "inside"}},
            {"type": "resource_link", "uri": "file:///y", "name": "y"}], "structuredContent": {"n": 1}})),
        "structured" => answer(json!({"content": [], "structuredContent": {"n": 1}})),
        "fail" => answer(json!({"content": [{"type": "text", "text": "it broke"}], "isError": true})),
        "refuse" => say(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32602, "message": "not like this"}})),
        "secret" => {
            eprintln!("the token is {}", std::env::var("TOKEN").unwrap());
            std::process::exit(9);
        }
        "log" => {
            for number in 0..1000 {
                say(&json!({"jsonrpc": "2.0", "method": "notifications/message",
                    "params": {"level": "error", "data": format!("trouble {number}")}}));
            }
            text("logged");
        }
        "ask" => {
            say(&json!({"jsonrpc": "2.0", "id": "q1", "method": "roots/list"}));
            say(&json!({"jsonrpc": "2.0", "id": "q2", "method": "ping"}));
            say(&json!({"jsonrpc": "2.0", "id": "q3", "method": "sampling/createMessage"}));
            let answers: Vec<Value> = lines.take(3).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
            text(&json!(answers).to_string());
        }
        other => text(&format!("called {other}")),
    }
}
