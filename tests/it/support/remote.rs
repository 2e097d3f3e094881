//! A scripted tool server over streamable HTTP. What a call does stands in the tool's name.
//!
//! Paths: `/mcp` is the server; `/old` redirects there; `/away` redirects to another origin; `/login` answers 401;
//! `/page` answers with a web page; `/silent` never answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use holt::rt::Threads;
use serde_json::{Value, json};

use super::PATIENCE;

pub struct Remote {
    pub address: String,
    shared: Arc<Shared>,
    threads: Threads,
}

#[derive(Default)]
struct Shared {
    /// Method, path, header lines, body.
    requests: Mutex<Vec<Request>>,
    sockets: Mutex<Vec<TcpStream>>,
    over: Mutex<bool>,
    /// Sessions begun; earlier ones are forgotten.
    sessions: Mutex<u32>,
    /// The id of the call whose stream was cut.
    cut: Mutex<Value>,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub head: String,
    pub body: Value,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Remote {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (shared, threads) = (Arc::new(Shared::default()), Threads::new());
        let (accepting, spawning) = (Arc::clone(&shared), threads.clone());
        threads
            .spawn("remote", 128 * 1024, move || {
                for stream in listener.incoming() {
                    if *accepting.over.lock().unwrap() {
                        return;
                    }
                    let stream = stream.unwrap();
                    accepting.sockets.lock().unwrap().push(stream.try_clone().unwrap());
                    let shared = Arc::clone(&accepting);
                    let ending = stream.try_clone().unwrap();
                    let serving = move || {
                        // A client that goes away ends its connection, not the test.
                        drop(serve(&shared, stream));
                        let _ = ending.shutdown(Shutdown::Both);
                    };
                    spawning.spawn("remote-conn", 256 * 1024, serving).unwrap();
                }
            })
            .unwrap();
        Self { address, shared, threads }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Forgets the session of the moment.
    pub fn forget(&self) {
        *self.shared.sessions.lock().unwrap() += 1;
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        *self.shared.over.lock().unwrap() = true;
        let _ = TcpStream::connect(&self.address);
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.threads.join_all(PATIENCE);
    }
}

fn serve(shared: &Shared, stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let mut request = Request { method, path, head, body: Value::Null };
        let mut body = vec![0; request.header("content-length").map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body)?;
        request.body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        shared.requests.lock().unwrap().push(request.clone());
        answer(shared, &request, &mut out)?;
    }
}

fn plain(out: &mut TcpStream, status: &str, headers: &str, body: &str) -> std::io::Result<()> {
    write!(out, "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn message(out: &mut TcpStream, headers: &str, message: &Value) -> std::io::Result<()> {
    plain(out, "200 OK", &format!("Content-Type: application/json\r\n{headers}"), &message.to_string())
}

fn stream(out: &mut TcpStream, events: &str) -> std::io::Result<()> {
    write!(out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{events}")
}

fn ended() -> std::io::Result<()> {
    Err(std::io::Error::other("the script ends the connection"))
}

fn answer(shared: &Shared, request: &Request, out: &mut TcpStream) -> std::io::Result<()> {
    match request.path.split('?').next().unwrap() {
        "/old" => return plain(out, "307 Moved", "Location: /mcp\r\n", ""),
        "/away" => return plain(out, "307 Moved", "Location: http://10.9.9.9/mcp\r\n", ""),
        "/login" => return plain(out, "401 Unauthorized", "WWW-Authenticate: Bearer\r\n", "who are you"),
        "/page" => return plain(out, "200 OK", "Content-Type: text/html\r\n", "<html>hello</html>"),
        "/broken" => {
            return plain(out, "500 Oops", "Content-Type: text/plain\r\n", "out of paper; your key was hunter2-secret");
        }
        "/silent" => {
            let _ = out.try_clone()?.read(&mut [0; 1]);
            return ended();
        }
        _ => {}
    }
    let session = format!("session-{}", shared.sessions.lock().unwrap());
    let is_known = request.header("mcp-session-id") == Some(&session);
    let id = &request.body["id"];
    let result = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
    let text = |text: &str| result(json!({"content": [{"type": "text", "text": text}]}));
    let method = request.body["method"].as_str().unwrap_or("");
    match (request.method.as_str(), method) {
        ("POST", "initialize") => {
            let hello = result(json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}));
            return message(out, &format!("Mcp-Session-Id: {session}\r\n"), &hello);
        }
        _ if !is_known => return plain(out, "404 Not Found", "", "no such session"),
        ("GET", _) => {
            let resumed = request.header("last-event-id");
            if resumed == Some("e-1") {
                let cut = shared.cut.lock().unwrap().clone();
                let answer =
                    json!({"jsonrpc": "2.0", "id": cut, "result": {"content": [{"type": "text", "text": "taken up"}]}});
                stream(out, &format!("id: e-2\ndata: {answer}\n\n"))?;
                return ended();
            }
            return plain(out, "405 Method Not Allowed", "", "");
        }
        ("DELETE", _) => return plain(out, "204 No Content", "", ""),
        ("POST", "notifications/initialized" | "notifications/cancelled" | "") => {
            return plain(out, "202 Accepted", "", "");
        }
        ("POST", "tools/list") => {
            let names = ["echo", "streamed", "cut", "hang", "huge", "page", "empty", "reset", "ask"];
            let tools: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            return message(out, "", &result(json!({"tools": tools})));
        }
        ("POST", "tools/call") => {}
        _ => return message(out, "", &result(json!({}))),
    }
    match request.body["params"]["name"].as_str().unwrap_or("") {
        "streamed" => {
            let odd = json!({"jsonrpc": "2.0", "method": "notifications/odd"});
            stream(out, &format!(": hello\n\ndata: {odd}\n\nevent: message\ndata: {}\n\n", text("in a stream")))?;
            ended()
        }
        "cut" => {
            *shared.cut.lock().unwrap() = id.clone();
            stream(out, "id: e-1\nretry: 10\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/odd\"}\n\n")?;
            ended()
        }
        "hang" => {
            stream(out, ": wait\n\n")?;
            let _ = out.try_clone()?.read(&mut [0; 1]);
            ended()
        }
        "huge" => {
            stream(out, "data: ")?;
            let piece = vec![b'x'; 1024 * 1024];
            for _ in 0..100 {
                out.write_all(&piece)?;
            }
            ended()
        }
        "page" => plain(out, "200 OK", "Content-Type: text/html\r\n", "<html>proxy</html>"),
        "empty" => plain(out, "202 Accepted", "", ""),
        "reset" => ended(),
        "ask" => {
            let question = json!({"jsonrpc": "2.0", "id": "q", "method": "roots/list"});
            stream(out, &format!("data: {question}\n\ndata: {}\n\n", text("asked")))?;
            ended()
        }
        _ => message(out, "", &text(request.header("authorization").unwrap_or("no key"))),
    }
}
