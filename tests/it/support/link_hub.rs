//! A scripted hub of the machine link: the test plays it step by step, as strictly or as badly as it likes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::PATIENCE;
use super::ws::read;

/// A listener that agents dial.
pub struct LinkHub {
    listener: TcpListener,
}

/// One accepted connection before its upgrade was answered.
pub struct Dialled {
    pub stream: TcpStream,
    /// The request's head.
    pub head: String,
}

/// One open link.
pub struct LinkConn {
    pub ws: WebSocket<TcpStream>,
    pub head: String,
}

impl LinkHub {
    pub fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    /// Another hub at the address of an earlier one.
    pub fn at(address: &str) -> Self {
        Self { listener: TcpListener::bind(address).unwrap() }
    }

    pub fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// The next connection and its request.
    #[track_caller]
    pub fn dialled(&self) -> Dialled {
        let (mut stream, _) = self.accept(PATIENCE).expect("no agent dialled");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            assert_eq!(stream.read(&mut byte).unwrap(), 1, "the agent hung up in its request");
            head.push(byte[0]);
        }
        Dialled { stream, head: String::from_utf8(head).unwrap() }
    }

    /// The next connection, upgraded.
    #[track_caller]
    pub fn accepted(&self) -> LinkConn {
        self.dialled().upgrade("")
    }

    /// The next connection, registered by a hub that acknowledges alerts and inputs.
    #[track_caller]
    pub fn registered(&self) -> LinkConn {
        self.registered_with(json!({"ok": true, "features": ["alert_ack", "input_ack"]}))
    }

    /// The next connection, registered with that payload.
    #[track_caller]
    pub fn registered_with(&self, payload: Value) -> LinkConn {
        let mut conn = self.accepted();
        let register = conn.next();
        assert_eq!(register["type"], "register", "{register}");
        conn.answer(&register, payload);
        conn
    }

    fn accept(&self, patience: Duration) -> Option<(TcpStream, std::net::SocketAddr)> {
        self.listener.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + patience;
        loop {
            match self.listener.accept() {
                Ok((stream, address)) => {
                    stream.set_nonblocking(false).unwrap();
                    return Some((stream, address));
                }
                Err(_) if Instant::now() < deadline => std::thread::yield_now(),
                Err(_) => return None,
            }
        }
    }
}

impl Dialled {
    /// Without case, as the contract wants it.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Any answer, byte for byte; then the connection ends.
    pub fn reply(mut self, answer: &str) {
        self.stream.write_all(answer.as_bytes()).unwrap();
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        // Until the agent has seen it.
        let _ = self.stream.read_to_end(&mut Vec::new());
    }

    /// A proper 101, with more header lines if wanted.
    pub fn upgrade(mut self, extra: &str) -> LinkConn {
        let accept = derive_accept_key(self.header("sec-websocket-key").unwrap().as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{extra}\r\n"
        );
        self.stream.write_all(answer.as_bytes()).unwrap();
        self.stream.set_nodelay(true).unwrap();
        let config = WebSocketConfig::default().max_message_size(Some(16 << 20));
        LinkConn { ws: WebSocket::from_raw_socket(self.stream, Role::Server, Some(config)), head: self.head }
    }
}

impl LinkConn {
    /// The next JSON message; panics on anything else.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        match self.try_next() {
            Ok(value) => value,
            Err(error) => panic!("no message: {error}"),
        }
    }

    pub fn try_next(&mut self) -> Result<Value, Error> {
        loop {
            match read(&mut self.ws)? {
                Message::Text(text) => return Ok(serde_json::from_str(text.as_str()).unwrap()),
                Message::Close(frame) => {
                    let code = frame.as_ref().map_or(0, |frame| u16::from(frame.code));
                    let reason = frame.map_or_else(String::new, |frame| frame.reason.to_string());
                    let _ = self.ws.flush();
                    return Ok(json!({"type": "closed", "code": code, "reason": reason}));
                }
                Message::Binary(_) => panic!("agents send text"),
                _ => {}
            }
        }
    }

    /// The next message of that type; heartbeats and what else comes are skipped.
    #[track_caller]
    pub fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next();
            if message["type"] == kind {
                return message;
            }
            assert_ne!(message["type"], "closed", "waiting for {kind}: {message}");
        }
    }

    /// The code and reason that the agent closes with; None when it just hangs up.
    pub fn closed(&mut self) -> Option<(u64, String)> {
        loop {
            match self.try_next() {
                Ok(message) if message["type"] == "closed" => {
                    return Some((message["code"].as_u64().unwrap(), message["reason"].as_str().unwrap().to_owned()));
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    pub fn send(&mut self, message: &Value) {
        self.ws.send(Message::text(message.to_string())).unwrap();
    }

    /// An `ack` to that message.
    pub fn answer(&mut self, message: &Value, payload: Value) {
        self.send(&json!({"type": "ack", "id": "h-ack", "ref_id": message["id"], "payload": payload}));
    }

    /// Begins a session; the agent's `ack`.
    #[track_caller]
    pub fn start_session(&mut self, id: &str, kind: &str, params: Value) -> Value {
        let payload = json!({"session_id": id, "session_type": kind, "user_name": "ana", "params": params});
        self.send(&json!({"type": "session_start", "id": format!("start-{id}"), "payload": payload}));
        self.ack_of(&format!("start-{id}"))
    }

    /// The agent's `ack` to that message id.
    #[track_caller]
    pub fn ack_of(&mut self, id: &str) -> Value {
        loop {
            let message = self.next_of("ack");
            if message["ref_id"] == id {
                return message["payload"].clone();
            }
        }
    }

    /// Everything that a session says, to its closing output.
    #[track_caller]
    pub fn session_to_end(&mut self, id: &str) -> Vec<Value> {
        let mut said = Vec::new();
        loop {
            let message = self.next();
            assert_ne!(message["type"], "closed", "{said:?}");
            if message["payload"]["session_id"] == id {
                let done = message["payload"]["done"] == true;
                said.push(message);
                if done {
                    return said;
                }
            }
        }
    }
}
