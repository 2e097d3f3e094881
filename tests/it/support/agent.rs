//! A scripted machine: connects, registers, and does what the test says.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderName;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Error, Message, WebSocket};

use super::PATIENCE;
use super::ws::read;

/// The machine of most tests.
pub const ID: &str = "11111111-2222-4333-8444-555555555555";

/// An id of its own for each number.
pub fn id(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// A connected machine.
pub struct Agent {
    pub ws: WebSocket<TcpStream>,
    pub id: String,
    sent: u32,
}

impl Agent {
    /// Connects; the status and body of a refusal otherwise.
    pub fn connect(address: &str, token: &str, id: &str) -> Result<Self, (u16, String)> {
        Self::connect_with(address, &[("X-Agent-Token", token), ("X-Agent-Id", id), ("X-Proto-Version", "1")], id)
    }

    pub fn connect_with(address: &str, headers: &[(&str, &str)], id: &str) -> Result<Self, (u16, String)> {
        let mut request = format!("ws://{address}/api/v1/agent/ws").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        match tungstenite::client(request, stream) {
            Ok((ws, response)) => {
                // The reference hangs up at either.
                assert!(!response.headers().contains_key("sec-websocket-protocol"));
                assert!(!response.headers().contains_key("sec-websocket-extensions"));
                Ok(Self { ws, id: id.to_owned(), sent: 0 })
            }
            Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
                let body = response.body().clone().unwrap_or_default();
                Err((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Connects and registers as our agents do; the answer's payload beside it.
    #[track_caller]
    pub fn join(address: &str, token: &str, id: &str, hostname: &str) -> (Self, Value) {
        let mut agent = Self::connect(address, token, id).unwrap();
        let ack = agent.register(hostname, &["metadata", "input_ack"]);
        (agent, ack)
    }

    /// Connects and registers as the reference does.
    #[track_caller]
    pub fn reference(address: &str, token: &str, id: &str, hostname: &str) -> Self {
        let mut agent = Self::connect(address, token, id).unwrap();
        let ack = agent.register(hostname, &[]);
        assert_eq!(ack["ok"], true, "{ack}");
        agent
    }

    #[track_caller]
    pub fn register(&mut self, hostname: &str, features: &[&str]) -> Value {
        let mut payload = json!({
            "hostname": hostname, "ip": "", "os": "plan9", "arch": "arm64", "labels": {"site": "home"},
            "plugins": ["mem", "cpu", "disk"], "agent_version": "v1", "uptime_sec": 3, "unheard_of": [1],
        });
        if !features.is_empty() {
            payload["features"] = json!(features);
            payload["nonce"] = json!("a nonce");
        }
        let id = self.send("register", payload);
        let first = self.next();
        assert_eq!((first["type"].as_str(), first["ref_id"].as_str()), (Some("ack"), Some(id.as_str())), "{first}");
        first["payload"].clone()
    }

    /// Sends a message; its id.
    #[track_caller]
    pub fn send(&mut self, kind: &str, payload: Value) -> String {
        self.sent += 1;
        let id = format!("a-{}", self.sent);
        self.send_text(&json!({"type": kind, "id": id, "payload": payload}).to_string());
        id
    }

    #[track_caller]
    pub fn send_text(&mut self, text: &str) {
        self.ws.send(Message::text(text)).unwrap();
    }

    /// Answers a message.
    #[track_caller]
    pub fn ack(&mut self, message: &Value, error: &str) {
        self.sent += 1;
        let payload = if error.is_empty() { json!({"ok": true}) } else { json!({"ok": false, "error": error}) };
        let answer =
            json!({"type": "ack", "id": format!("a-{}", self.sent), "ref_id": message["id"], "payload": payload});
        self.send_text(&answer.to_string());
    }

    /// The next message but `ping`.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no message came");
            match read(&mut self.ws) {
                Ok(Message::Text(text)) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if message["type"] != "ping" {
                        return message;
                    }
                }
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("no message: {other:?}"),
            }
        }
    }

    /// The next `session_start`, acknowledged; its payload.
    #[track_caller]
    pub fn take_session(&mut self) -> Value {
        let start = self.next();
        assert_eq!(start["type"], "session_start", "{start}");
        self.ack(&start, "");
        start["payload"].clone()
    }

    /// The next message, which must be of that type; its payload.
    #[track_caller]
    pub fn take(&mut self, kind: &str) -> Value {
        let message = self.next();
        assert_eq!(message["type"], kind, "{message}");
        if kind == "session_input" {
            self.ack(&message, "");
        }
        message["payload"].clone()
    }

    #[track_caller]
    pub fn output(&mut self, session_id: &Value, stage: &str, delta: &str) {
        self.send("session_output", json!({"session_id": session_id, "delta": delta, "stage": stage, "done": false}));
    }

    /// The end of a chat's turn.
    #[track_caller]
    pub fn turn_done(&mut self, session_id: &Value, stage: &str, delta: &str) {
        self.send(
            "session_output",
            json!({"session_id": session_id, "delta": delta, "stage": stage, "done": false, "metadata": {"turn_done": true}}),
        );
    }

    /// The end of a session.
    #[track_caller]
    pub fn done(&mut self, session_id: &Value, report: &str) {
        let mut payload = json!({"session_id": session_id, "delta": "", "stage": "", "done": true});
        if !report.is_empty() {
            payload["report"] = json!(report);
        }
        self.send("session_output", payload);
    }

    /// Says goodbye as our agents do.
    pub fn farewell(mut self) {
        let _ = self.ws.close(Some(CloseFrame { code: 1000.into(), reason: "agent stopping".into() }));
        self.close_code();
    }

    /// The code and reason of the close frame that ends the connection; None when it just ends.
    pub fn close_code(&mut self) -> Option<(u16, String)> {
        loop {
            match read(&mut self.ws) {
                Ok(Message::Close(Some(frame))) => return Some((frame.code.into(), frame.reason.to_string())),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// Whether a message comes within that time; for what must not come.
    pub fn hears(&mut self, within: Duration) -> Option<Value> {
        self.ws.get_ref().set_read_timeout(Some(within)).unwrap();
        let heard = match read(&mut self.ws) {
            Ok(Message::Text(text)) => serde_json::from_str(&text).ok(),
            _ => None,
        };
        self.ws.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        heard
    }
}
