//! For tests: a peer on a real socket that plays scripts.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::Value;

use super::Timeouts;
use crate::rt::Threads;

pub(crate) const STACK_BYTES: usize = 256 * 1024;
/// Far above anything a test waits for.
pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const TIMEOUTS: Timeouts = Timeouts { connect: LONG, first_byte: LONG, idle: LONG, total: Some(LONG) };

pub(crate) enum Step {
    Send(Vec<u8>),
    /// Says nothing until the client hangs up.
    Stall,
    /// Tells the test that all before was sent, then goes on.
    Signal(Sender<()>),
    /// Resets instead of closing politely, where the system allows.
    Cut,
}

/// Answers one request per script; a script that does not end in `Cut` keeps the connection for the next request.
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    /// Head and JSON body of each request.
    pub(crate) requests: Receiver<(String, Value)>,
    threads: Threads,
}

impl Peer {
    /// One script per request.
    pub(crate) fn new(scripts: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (tx, requests) = bounded(64);
        let threads = Threads::new();
        threads
            .spawn("peer", STACK_BYTES, move || {
                let mut scripts = scripts.into_iter().peekable();
                while scripts.peek().is_some() {
                    let (mut socket, _) = listener.accept().unwrap();
                    while let Some(request) = read_request(&mut socket) {
                        tx.send(request).unwrap();
                        let Some(script) = scripts.next() else { break };
                        if !play(&mut socket, script) {
                            break;
                        }
                    }
                }
            })
            .unwrap();
        Self { addr, requests, threads }
    }

    /// Answers one request.
    pub(crate) fn one(steps: Vec<Step>) -> Self {
        Self::new(vec![steps])
    }

    /// Its address without a slash at the end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.threads.join_all(LONG), Vec::<String>::new());
        }
    }
}

/// Head line and JSON body; None when the client is gone.
fn read_request(socket: &mut TcpStream) -> Option<(String, Value)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let head_len = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        match socket.read(&mut buffer) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
    };
    let head = String::from_utf8(bytes[..head_len].to_vec()).unwrap();
    let len: usize = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(|v| v.trim().parse().unwrap()))
        .unwrap_or(0);
    while bytes.len() < head_len + len {
        let n = socket.read(&mut buffer).unwrap();
        assert!(n > 0, "the client hung up in its request");
        bytes.extend_from_slice(&buffer[..n]);
    }
    Some((head, serde_json::from_slice(&bytes[head_len..]).unwrap_or(Value::Null)))
}

/// False when the connection is over.
fn play(socket: &mut TcpStream, script: Vec<Step>) -> bool {
    for step in script {
        match step {
            Step::Send(bytes) => {
                if socket.write_all(&bytes).is_err() {
                    return false;
                }
            }
            Step::Stall => {
                let _ = socket.read(&mut [0; 16]);
                return false;
            }
            Step::Signal(tx) => tx.send(()).unwrap(),
            Step::Cut => {
                let _ = socket.shutdown(Shutdown::Both);
                return false;
            }
        }
    }
    true
}

pub(crate) fn send(text: impl AsRef<[u8]>) -> Step {
    Step::Send(text.as_ref().to_vec())
}

pub(crate) fn head(status: &str, kind: &str) -> Step {
    send(format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"))
}

pub(crate) fn stream_head() -> Step {
    head("200 OK", "text/event-stream")
}

pub(crate) fn chunk(bytes: impl AsRef<[u8]>) -> Step {
    let bytes = bytes.as_ref();
    Step::Send([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
}

pub(crate) fn end() -> Step {
    send("0\r\n\r\n")
}

pub(crate) fn whole(status: &str, extra: &str, body: &str) -> Step {
    send(format!("HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\n\r\n{body}", body.len()))
}
