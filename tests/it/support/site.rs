//! A scripted web site on a real socket: what it answers depends on the path.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use holt::rt::Threads;

use super::{PATIENCE, wait_until};

/// Answers a request (head, body) on its socket.
pub type Script = fn(&str, &str, &mut TcpStream) -> std::io::Result<()>;

pub struct Site {
    pub address: String,
    shared: Arc<Shared>,
    threads: Threads,
}

#[derive(Default)]
struct Shared {
    over: Mutex<bool>,
    requests: Mutex<Vec<String>>,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Site {
    pub fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared::default());
        let threads = Threads::new();
        let (accepting, spawning) = (Arc::clone(&shared), threads.clone());
        threads
            .spawn("site", 128 * 1024, move || {
                for stream in listener.incoming() {
                    if *accepting.over.lock().unwrap() {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    accepting.sockets.lock().unwrap().push(stream.try_clone().unwrap());
                    let shared = Arc::clone(&accepting);
                    let serving = move || {
                        let ending = stream.try_clone().unwrap();
                        // A client that has seen enough hangs up.
                        let _ = serve(&shared, stream, script);
                        let _ = ending.shutdown(Shutdown::Both);
                    };
                    spawning.spawn("site-conn", 256 * 1024, serving).unwrap();
                }
            })
            .unwrap();
        Self { address, shared, threads }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Heads and bodies of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub fn wait_for(&self, part: &str) {
        wait_until(part, || self.requests().iter().any(|request| request.contains(part)).then_some(()));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        *self.shared.over.lock().unwrap() = true;
        let _ = TcpStream::connect(&self.address);
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.threads.join_all(PATIENCE);
    }
}

fn serve(shared: &Shared, mut stream: TcpStream, script: Script) -> std::io::Result<()> {
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
    let body = String::from_utf8_lossy(&body).into_owned();
    shared.requests.lock().unwrap().push(format!("{head}{body}"));
    script(&head, &body, &mut stream)
}

/// A whole answer.
pub fn answer(out: &mut TcpStream, status: u16, lines: &str, body: &[u8]) -> std::io::Result<()> {
    let head =
        format!("HTTP/1.1 {status} Scripted\r\nContent-Length: {}\r\nConnection: close\r\n{lines}\r\n", body.len());
    out.write_all(head.as_bytes())?;
    out.write_all(body)
}
