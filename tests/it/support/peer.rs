//! A peer that plays whole answers, byte for byte: one connection and one request per answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use holt::rt::Threads;
use serde_json::Value;

use super::PATIENCE;

pub struct Peer {
    address: String,
    shared: Arc<Shared>,
    threads: Threads,
}

/// Head and JSON body of a request.
pub type Asked = (String, Value);

struct Shared {
    answers: Vec<String>,
    asked: Mutex<Vec<Asked>>,
    over: AtomicBool,
}

impl Peer {
    /// Plays the answers in order; what is asked beyond them gets the last one again.
    pub fn start(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared { answers, asked: Mutex::default(), over: AtomicBool::new(false) });
        let (playing, threads) = (Arc::clone(&shared), Threads::new());
        threads
            .spawn("peer", 256 * 1024, move || {
                for stream in listener.incoming() {
                    if playing.over.load(Ordering::SeqCst) {
                        return;
                    }
                    // A hub that is gone is the test's business.
                    let _ = stream.and_then(|stream| play(&playing, stream));
                }
            })
            .unwrap();
        Self { address, shared, threads }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        self.threads.join_all(PATIENCE);
    }
}

fn play(shared: &Shared, mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let number = {
        let mut asked = shared.asked.lock().unwrap();
        asked.push((head, serde_json::from_slice(&body).unwrap_or(Value::Null)));
        asked.len() - 1
    };
    let answer = shared.answers.get(number).or(shared.answers.last()).cloned().unwrap_or_default();
    stream.write_all(answer.as_bytes())?;
    stream.shutdown(Shutdown::Both)
}

/// A stream that is at its end when the connection is.
pub fn stream(kind: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n{body}")
}

/// A stream in chunks that lacks its end: the connection dies in the middle.
pub fn cut(kind: &str, body: &str) -> String {
    let head = "Connection: close\r\nTransfer-Encoding: chunked";
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{head}\r\n\r\n{:x}\r\n{body}\r\n", body.len())
}

pub fn status(status: &str, extra: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{extra}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
