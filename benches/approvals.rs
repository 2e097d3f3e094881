//! 100 turns that ask at the same time: how long they take to park, what they hold meanwhile, and how long the decisions
//! take to go through, beside 100 turns that need not ask.
#![allow(clippy::pedantic, clippy::print_stdout, reason = "a bench prints what it measured")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use holt::app::App;
use holt::config::{Env, Flags};
use holt::llm::{Completion, LlmError, Provider, Request, Role, Sink, ToolCall};
use holt::rt::Cancel;
use support::{Peer, directory, key, request, role};

const SOCKETS: usize = 10;
const TURNS_EACH: usize = 10;
const ALL: usize = SOCKETS * TURNS_EACH;

/// Asks for one call of `kv_set`, then answers.
struct Caller;

impl Provider for Caller {
    fn name(&self) -> &'static str {
        "caller"
    }

    fn is_free(&self) -> bool {
        true
    }

    fn complete(&self, request: Request<'_>, sink: &mut dyn Sink, _: &Cancel) -> Result<Completion, LlmError> {
        if request.messages.last().is_some_and(|message| message.role == Role::Tool) {
            sink.text("done");
            return Ok(Completion { text: "done".into(), ..Completion::default() });
        }
        let arguments = r#"{"key":"bench","value":"1"}"#.to_owned();
        let call = ToolCall { id: "call_1".into(), name: "kv_set".into(), arguments };
        Ok(Completion { tool_calls: vec![call], ..Completion::default() })
    }

    fn models(&self, _: &Cancel) -> Result<Vec<String>, LlmError> {
        Ok(Vec::new())
    }
}

fn main() {
    if let Some(dir) = role() {
        hub(&dir);
        return;
    }
    let (_guard, dir) = directory();
    let data = dir.join("data");
    std::fs::create_dir_all(&data).expect("a directory");
    let config = "[[agents]]\nname = \"default\"\n[[agents]]\nname = \"free\"\nsession_tier = \"autonomous\"\n";
    std::fs::write(data.join("holt.toml"), config).expect("a file");
    let hub = Peer::role(data.to_str().expect("a plain path"));
    let admin = key(&hub.address);
    let body = r#"{"name":"all","scopes":["chat","approvals:write","admin"]}"#;
    let made = request(&hub.address, "POST", "/api/v1/keys", &format!("Authorization: Bearer {admin}\r\n"), body);
    let key = made.split("\"key\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a key").to_owned();
    let mut sockets: Vec<Socket> = (0..SOCKETS).map(|_| Socket::open(&hub.address, &key)).collect();
    // Once to warm up, once to measure.
    run_free(&mut sockets, "warm");
    let free = run_free(&mut sockets, "free");
    let before = hub.kib("VmRSS");
    let begun = Instant::now();
    for (number, socket) in sockets.iter_mut().enumerate() {
        for turn in 0..TURNS_EACH {
            socket.chat(&format!("ask-{number}-{turn}"), "default");
        }
    }
    let mut asked = Vec::new();
    for socket in &mut sockets {
        asked.push((0..TURNS_EACH).map(|_| socket.approval_id()).collect::<Vec<_>>());
    }
    let parked = begun.elapsed();
    let (threads, held) = (hub.kib("Threads"), hub.kib("VmRSS").saturating_sub(before));
    let begun = Instant::now();
    for (socket, ids) in sockets.iter_mut().zip(&asked) {
        for id in ids {
            socket.send(&format!(r#"{{"type":"approval_response","approval_id":"{id}","action":"approve"}}"#));
        }
    }
    sockets.iter_mut().for_each(|socket| socket.read_dones(TURNS_EACH));
    let decided = begun.elapsed();
    println!("{ALL} tool turns that need not ask: {:.1} ms", ms(free));
    println!(
        "{ALL} approvals at once: parked in {:.1} ms, decided and answered in {:.1} ms, {:.2} x the turns that need not ask",
        ms(parked),
        ms(decided),
        (parked + decided).as_secs_f64() / free.as_secs_f64()
    );
    println!("held while parked: {} threads in all, {:.1} KiB a turn", threads, held as f64 / ALL as f64);
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn run_free(sockets: &mut [Socket], name: &str) -> Duration {
    let begun = Instant::now();
    for (number, socket) in sockets.iter_mut().enumerate() {
        for turn in 0..TURNS_EACH {
            socket.chat(&format!("{name}-{number}-{turn}"), "free");
        }
    }
    sockets.iter_mut().for_each(|socket| socket.read_dones(TURNS_EACH));
    begun.elapsed()
}

/// This process as a hub with the scripted model.
fn hub(dir: &str) {
    let flags = Flags { data_dir: Some(dir.into()), listen: Some("127.0.0.1:0".into()), ..Flags::default() };
    let config = holt::config::load(&flags, &Env::of([])).expect("a configuration");
    let started = App::start_with(config, Arc::new(Caller)).expect("a hub");
    eprintln!("listening on http://{}", started.address);
    // Killed by the parent.
    let (_hold_tx, hold_rx) = bounded::<()>(0);
    let _ = hold_rx.recv();
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    started.app.stop();
}

/// A WebSocket that looks for texts in what it is sent.
struct Socket {
    ws: tungstenite::WebSocket<TcpStream>,
}

impl Socket {
    fn open(address: &str, key: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a hub");
        stream.set_nodelay(true).expect("an option");
        let url = format!("ws://{address}/api/v1/ws?token={key}");
        let (ws, _) = tungstenite::client(url, stream).expect("an upgrade");
        Self { ws }
    }

    fn send(&mut self, text: &str) {
        self.ws.send(tungstenite::Message::text(text)).expect("a hub that reads");
        self.ws.get_mut().flush().expect("a hub that reads");
    }

    fn chat(&mut self, session: &str, agent: &str) {
        self.send(&format!(r#"{{"type":"chat_request","session_id":"{session}","agent":"{agent}","message":"go"}}"#));
    }

    fn next(&mut self) -> String {
        loop {
            if let tungstenite::Message::Text(text) = self.ws.read().expect("a frame") {
                return text.to_string();
            }
        }
    }

    fn approval_id(&mut self) -> String {
        loop {
            let frame = self.next();
            if let Some(id) = frame.split("\"approval_id\":\"").nth(1) {
                return id[..16].to_owned();
            }
        }
    }

    fn read_dones(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            let frame = self.next();
            assert!(!frame.contains("\"type\":\"error\""), "{frame}");
            left -= usize::from(frame.starts_with("{\"type\":\"done\""));
        }
    }
}
