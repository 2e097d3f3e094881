//! A scripted web server: a function answers each request, as it likes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use holt::rt::Threads;
use serde_json::Value;

use super::PATIENCE;

pub struct Script {
    pub address: String,
    shared: Arc<Shared>,
    threads: Threads,
}

type Answering = Box<dyn Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync>;

struct Shared {
    answer: Answering,
    asked: Mutex<Vec<Asked>>,
    sockets: Mutex<Vec<TcpStream>>,
    over: AtomicBool,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: String,
    pub head: String,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// A field of a form.
    pub fn form(&self, name: &str) -> String {
        field(&self.body, name)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

/// A field of a query or form, decoded; empty when it is not there.
pub fn field(text: &str, name: &str) -> String {
    let pair = text.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name));
    pair.map(|(_, value)| holt::api::message::percent_decode(value, true).unwrap()).unwrap_or_default()
}

impl Script {
    pub fn start(answer: impl Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            asked: Mutex::default(),
            sockets: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let threads = Threads::new();
        let (accepting, spawning) = (Arc::clone(&shared), threads.clone());
        threads
            .spawn("script", 128 * 1024, move || {
                for stream in listener.incoming() {
                    if accepting.over.load(Ordering::SeqCst) {
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
                    spawning.spawn("script-conn", 512 * 1024, serving).unwrap();
                }
            })
            .unwrap();
        Self { address, shared, threads }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Those to a path.
    pub fn asked_at(&self, path: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.path == path).collect()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
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
        let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let mut asked = Asked { method, path, query, head, body: String::new() };
        let mut body = vec![0; asked.header("content-length").map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body)?;
        asked.body = String::from_utf8_lossy(&body).into_owned();
        shared.asked.lock().unwrap().push(asked.clone());
        (shared.answer)(&asked, &mut out)?;
    }
}

pub fn plain(out: &mut TcpStream, status: &str, headers: &str, body: &str) -> std::io::Result<()> {
    write!(out, "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

pub fn json(out: &mut TcpStream, status: &str, body: &Value) -> std::io::Result<()> {
    plain(out, status, "Content-Type: application/json\r\n", &body.to_string())
}

/// Waits until the client is gone.
pub fn hang(out: &mut TcpStream) -> std::io::Result<()> {
    let _ = out.try_clone()?.read(&mut [0; 1]);
    Err(std::io::Error::other("the script ends the connection"))
}

/// 100 MB of something.
pub fn flood(out: &mut TcpStream) -> std::io::Result<()> {
    write!(out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000000\r\n\r\n{{\"a\":\"")?;
    let piece = vec![b'x'; 1_000_000];
    for _ in 0..100 {
        out.write_all(&piece)?;
    }
    Ok(())
}
