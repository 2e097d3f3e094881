//! A small HTTP client that hides nothing: status, header lines, body; and raw connections for hostile input.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::Value;

use super::{PATIENCE, tls};

/// Makes requests, a connection each.
#[derive(Clone)]
pub struct Client {
    pub address: String,
    headers: Vec<(String, String)>,
    /// Speaks TLS.
    pub tls: Option<Arc<ClientConfig>>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Client {
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), headers: Vec::new(), tls: None }
    }

    /// The same client with one more header line on every request.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    pub fn with_key(&self, key: &str) -> Self {
        self.with("Authorization", &format!("Bearer {key}"))
    }

    /// The same client for a hub at another address.
    pub fn at(&self, address: &str) -> Self {
        Self { address: address.to_owned(), ..self.clone() }
    }

    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// A client with the cookie that an answer sets.
    #[track_caller]
    pub fn with_cookie_of(&self, answer: &Answer) -> Self {
        let cookie = answer.header("set-cookie").split(';').next().unwrap();
        assert!(cookie.starts_with("dk_session="), "{} {}", answer.status, answer.text());
        self.with("Cookie", cookie)
    }

    /// The bearer key of this client.
    pub fn key(&self) -> String {
        let line = self.headers.iter().find(|(name, _)| name == "Authorization").expect("a client with a key");
        line.1.trim_start_matches("Bearer ").to_owned()
    }

    /// A client with a new key of those scopes, made by this one.
    pub fn new_key(&self, name: &str, scopes: &[&str]) -> Self {
        let answer = self.post("/api/v1/keys", &serde_json::json!({"name": name, "scopes": scopes}).to_string());
        assert_eq!(answer.status, 201, "{}", answer.text());
        Self { headers: Vec::new(), ..self.clone() }.with_key(answer.json()["key"].as_str().unwrap())
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "")
    }

    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, body)
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, "")
    }

    #[track_caller]
    pub fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        if self.tls.is_some() {
            return read_answer(&mut self.open_tls(method, path, body), method == "HEAD");
        }
        let mut stream = self.open(method, path, body);
        read_answer(&mut stream, method == "HEAD")
    }

    /// The same client over TLS.
    pub fn with_tls(&self, config: &Arc<ClientConfig>) -> Self {
        Self { tls: Some(Arc::clone(config)), ..self.clone() }
    }

    /// Sends a request over TLS and leaves the answer to be read.
    pub fn open_tls(&self, method: &str, path: &str, body: &str) -> BufReader<tls::Stream> {
        let mut stream = tls::dial(&self.address, self.tls.as_ref().unwrap());
        stream.write_all((self.head(method, path, body) + body).as_bytes()).unwrap();
        BufReader::new(stream)
    }

    /// Sends a request and leaves the answer to be read.
    pub fn open(&self, method: &str, path: &str, body: &str) -> BufReader<TcpStream> {
        let mut stream = raw(&self.address);
        stream.write_all(self.head(method, path, body).as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        BufReader::new(stream)
    }

    /// The head of a request.
    pub fn head(&self, method: &str, path: &str, body: &str) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {}\r\n", self.address));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        head
    }

    /// A JSON turn.
    #[track_caller]
    pub fn chat(&self, body: Value) -> Answer {
        self.post("/api/v1/chat", &body.to_string())
    }
}

/// A connection to send whatever one likes.
pub fn raw(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends bytes on a fresh connection and reads one answer.
#[track_caller]
pub fn raw_answer(address: &str, bytes: &[u8]) -> Answer {
    let mut stream = raw(address);
    stream.write_all(bytes).unwrap();
    read_answer(&mut BufReader::new(stream), false)
}

/// Everything that comes until the peer ends the connection, orderly or by a reset.
pub fn read_to_end(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends bytes on a fresh connection and reads until the hub closes it.
pub fn exchange(address: &str, bytes: &[u8]) -> String {
    let mut stream = raw(address);
    // A hub that has seen enough may close before it has all of it.
    let _ = stream.write_all(bytes);
    read_to_end(&mut stream)
}

/// The statuses of all answers in a text.
pub fn statuses(text: &str) -> Vec<u16> {
    text.split("HTTP/1.1 ").skip(1).filter_map(|line| line.get(..3)?.parse().ok()).collect()
}

/// Reads the head of an answer.
#[track_caller]
pub fn read_head(stream: &mut impl BufRead) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no status line: {line:?}")).parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        let line = line.trim_end();
        if line.is_empty() {
            return (status, headers);
        }
        let (name, value) = line.split_once(": ").unwrap();
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
}

/// Reads one whole answer.
#[track_caller]
pub fn read_answer(stream: &mut impl BufRead, head_only: bool) -> Answer {
    let (status, headers) = read_head(stream);
    let mut answer = Answer { status, headers, body: Vec::new() };
    if head_only {
        return answer;
    }
    if answer.header("transfer-encoding") == "chunked" {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).unwrap();
            if size == 0 {
                return answer;
            }
            answer.body.extend_from_slice(&chunk[..size]);
        }
    }
    let length = answer.header("content-length").parse().unwrap_or(0);
    answer.body = vec![0; length];
    stream.read_exact(&mut answer.body).unwrap();
    answer
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// The events of an SSE body.
    pub fn events(&self) -> Vec<Value> {
        let text = self.text();
        text.split("\n\n")
            .filter_map(|block| block.strip_prefix("data: "))
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }
}
