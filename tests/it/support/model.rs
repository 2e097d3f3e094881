//! A scripted model behind the OpenAI wire: what it does stands in the last user message.
//!
//! - `deltas N`: N pieces `w1 w2 ...`, as fast as it goes
//! - `gate N M`: N pieces, then nothing until [`Model::open_gate`], then M more
//! - `say TEXT`: one piece
//! - `cut N`: N pieces, then the connection ends without a finish
//! - `status CODE`: an error answer
//! - `tool NAME JSON`: one tool call; once its result is there, `done: <result>`
//! - `calls [["NAME", {..}], ..]`: several tool calls at once; once their results are there, `done: <result> | ..`
//! - `loop NAME`: a tool call, `{"n": <round>}`, in every round that offers tools; then `looped <rounds>`
//! - `usage JSON WISH`: any of these, and the usage that is reported for it (no blanks in it)
//! - `silent`: reads the request and never answers
//! - `[Scheduled: WISH]`, `[Scheduled trigger: WISH]`: what schedules send

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use holt::rt::Threads;
use serde_json::{Value, json};

use super::PATIENCE;

pub struct Model {
    address: String,
    shared: Arc<Shared>,
    threads: Threads,
}

#[derive(Default)]
struct Shared {
    gate: Mutex<Gate>,
    moved: Condvar,
    requests: Mutex<Vec<Value>>,
    sockets: Mutex<Vec<Arc<TcpStream>>>,
}

#[derive(Default)]
struct Gate {
    open: bool,
    waiting: usize,
    over: bool,
}

impl Model {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared::default());
        let threads = Threads::new();
        let (accepting, spawning) = (Arc::clone(&shared), threads.clone());
        threads
            .spawn("model", 128 * 1024, move || {
                for stream in listener.incoming() {
                    if accepting.gate.lock().unwrap().over {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let (kept, shared) = (Arc::new(stream.try_clone().unwrap()), Arc::clone(&accepting));
                    accepting.sockets.lock().unwrap().push(Arc::clone(&kept));
                    // A test that ends cuts its model off: errors are not its business.
                    let ending = stream.try_clone().unwrap();
                    let serving = move || {
                        drop(serve(&shared, stream));
                        let _ = ending.shutdown(Shutdown::Both);
                        shared.sockets.lock().unwrap().retain(|known| !Arc::ptr_eq(known, &kept));
                    };
                    spawning.spawn("model-conn", 256 * 1024, serving).unwrap();
                }
            })
            .unwrap();
        Self { address, shared, threads }
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Lets everything that waits at the gate go on, now and later.
    pub fn open_gate(&self) {
        self.shared.gate.lock().unwrap().open = true;
        self.shared.moved.notify_all();
    }

    /// Waits until a turn stands at the gate.
    pub fn wait_at_gate(&self) {
        let gate = self.shared.gate.lock().unwrap();
        let (gate, _) = self.shared.moved.wait_timeout_while(gate, PATIENCE, |gate| gate.waiting == 0).unwrap();
        assert!(gate.waiting > 0, "no turn came to the gate");
    }

    /// The bodies of all requests so far.
    pub fn requests(&self) -> Vec<Value> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        {
            let mut gate = self.shared.gate.lock().unwrap();
            gate.over = true;
            gate.open = true;
        }
        self.shared.moved.notify_all();
        let _ = TcpStream::connect(&self.address);
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.threads.join_all(PATIENCE);
    }
}

fn serve(shared: &Shared, stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let request: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let messages = request["messages"].as_array().cloned().unwrap_or_default();
    let offers_tools = request["tools"].as_array().is_some_and(|tools| !tools.is_empty());
    shared.requests.lock().unwrap().push(request);
    let wish = messages
        .iter()
        .rev()
        .find(|m| m["role"] == "user")
        .and_then(|m| m["content"].as_str())
        .unwrap_or("")
        .to_owned();
    let result = messages.last().filter(|m| m["role"] == "tool").and_then(|m| m["content"].as_str()).map(str::to_owned);
    let mut usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15});
    let mut wish = wish;
    // What a schedule sends is a wish in brackets.
    for begin in ["[Scheduled: ", "[Scheduled trigger: "] {
        if let Some(inner) = wish.strip_prefix(begin).and_then(|rest| rest.strip_suffix(']')) {
            wish = inner.to_owned();
        }
    }
    if let Some((scripted, rest)) = wish.strip_prefix("usage ").and_then(|rest| rest.split_once(' ')) {
        usage = serde_json::from_str(scripted).unwrap();
        wish = rest.to_owned();
    }
    let mut words = wish.splitn(3, ' ');
    let (verb, first, rest) = (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next().unwrap_or(""));
    let number = |text: &str| text.trim().parse::<usize>().unwrap_or(0);
    if verb == "status" {
        let body = r#"{"error":{"message":"scripted failure"}}"#;
        return write!(
            out,
            "HTTP/1.1 {first} Scripted\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
    if verb == "silent" {
        let _ = reader.read_to_end(&mut Vec::new());
        return Ok(());
    }
    out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")?;
    match (verb, result) {
        ("tool", Some(result)) => say(&mut out, &format!("done: {result}"))?,
        ("tool", None) => tool_call(&mut out, 0, "call_t", first, rest)?,
        ("calls", _) if messages.last().is_some_and(|m| m["role"] == "tool") => {
            let results: Vec<&str> = messages
                .iter()
                .rev()
                .take_while(|m| m["role"] == "tool")
                .filter_map(|m| m["content"].as_str())
                .collect();
            say(&mut out, &format!("done: {}", results.into_iter().rev().collect::<Vec<_>>().join(" | ")))?;
        }
        ("calls", _) => {
            let wanted: Vec<(String, Value)> = serde_json::from_str(wish.trim_start_matches("calls ")).unwrap();
            for (index, (name, arguments)) in wanted.into_iter().enumerate() {
                tool_call(&mut out, index, &format!("call_{index}"), &name, &arguments.to_string())?;
            }
        }
        ("loop", _) if offers_tools => {
            let round =
                messages.iter().rev().take_while(|m| m["role"] != "user").filter(|m| m["role"] == "tool").count();
            tool_call(&mut out, 0, &format!("call_{round}"), first, &format!("{{\"n\":{round}}}"))?;
        }
        ("deltas", _) => pieces(&mut out, 1, number(first))?,
        ("cut", _) => return pieces(&mut out, 1, number(first)),
        ("gate", _) => {
            pieces(&mut out, 1, number(first))?;
            let mut gate = shared.gate.lock().unwrap();
            gate.waiting += 1;
            shared.moved.notify_all();
            let mut gate = shared.moved.wait_while(gate, |gate| !gate.open).unwrap();
            gate.waiting -= 1;
            drop(gate);
            pieces(&mut out, number(first) + 1, number(first) + number(rest))?;
        }
        ("say", _) => say(&mut out, wish.trim_start_matches("say "))?,
        _ => say(&mut out, &format!("you said: {wish}"))?,
    }
    event(&mut out, &json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}))?;
    out.write_all(b"data: [DONE]\n\n")
}

fn tool_call(out: &mut TcpStream, index: usize, id: &str, name: &str, arguments: &str) -> std::io::Result<()> {
    let call =
        json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    event(out, &json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}))
}

fn pieces(out: &mut TcpStream, from: usize, to: usize) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    for number in from..=to {
        buffer.extend_from_slice(
            format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"w{number} \"}}}}]}}\n\n").as_bytes(),
        );
        if buffer.len() > 8192 || number == to {
            out.write_all(&buffer)?;
            buffer.clear();
        }
    }
    Ok(())
}

fn say(out: &mut TcpStream, text: &str) -> std::io::Result<()> {
    event(out, &json!({"choices": [{"index": 0, "delta": {"content": text}}]}))
}

fn event(out: &mut TcpStream, data: &Value) -> std::io::Result<()> {
    out.write_all(format!("data: {data}\n\n").as_bytes())
}

/// The text that `deltas N` makes.
pub fn words(count: usize) -> String {
    (1..=count).map(|number| format!("w{number} ")).collect()
}
