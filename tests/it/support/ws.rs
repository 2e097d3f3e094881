//! A WebSocket client that keeps every frame it was sent.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Request;
use tungstenite::http::HeaderName;
use tungstenite::{Error, Message, WebSocket};

use super::{Client, PATIENCE, tls};

/// An open WebSocket.
pub struct Socket<S = TcpStream> {
    pub ws: WebSocket<S>,
}

impl Socket {
    /// Connects with the client's key.
    #[track_caller]
    pub fn open(client: &Client) -> Self {
        Self::try_open(client).unwrap()
    }

    pub fn try_open(client: &Client) -> Result<Self, String> {
        Self::try_open_at(client, "/api/v1/ws")
    }

    /// Connects to that path and query, with all header lines of the client.
    pub fn try_open_at(client: &Client, path: &str) -> Result<Self, String> {
        let request = request(client, path);
        let stream = TcpStream::connect(&client.address).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let (ws, _) = tungstenite::client(request, stream).map_err(|error| error.to_string())?;
        Ok(Self { ws })
    }
}

impl Socket<tls::Stream> {
    /// Connects over TLS with the client's key.
    #[track_caller]
    pub fn open_tls(client: &Client) -> Self {
        let stream = tls::dial(&client.address, client.tls.as_ref().unwrap());
        let (ws, _) = tungstenite::client(request(client, "/api/v1/ws"), stream).unwrap();
        Self { ws }
    }
}

fn request(client: &Client, path: &str) -> Request {
    let mut request = format!("ws://{}{path}", client.address).into_client_request().unwrap();
    for (name, value) in client.headers() {
        request.headers_mut().insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    request
}

impl<S: Read + Write> Socket<S> {
    #[track_caller]
    pub fn send(&mut self, frame: &Value) {
        self.ws.send(Message::text(frame.to_string())).unwrap();
    }

    #[track_caller]
    pub fn chat(&mut self, session_id: &str, message: &str) {
        let mut frame = json!({"type": "chat_request", "message": message});
        if !session_id.is_empty() {
            frame["session_id"] = json!(session_id);
        }
        self.send(&frame);
    }

    #[track_caller]
    pub fn attach(&mut self, session_id: &str, after: u64) {
        self.send(&json!({"type": "chat_request", "session_id": session_id, "resume_after_seq": after}));
    }

    /// The next JSON frame as text; panics on anything else.
    #[track_caller]
    pub fn next_text(&mut self) -> String {
        // Pings keep the read from timing out: the patience is for a frame.
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            assert!(std::time::Instant::now() < deadline, "no frame came");
            match read(&mut self.ws) {
                Ok(Message::Text(text)) => return text.to_string(),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("no frame: {other:?}"),
            }
        }
    }

    /// The next frame but news of other things, which come whenever they like.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        loop {
            let frame = self.next_any();
            if !["activity", "machine", "alert"].iter().any(|news| frame["type"] == *news) {
                return frame;
            }
        }
    }

    /// The next frame, whatever it is about.
    #[track_caller]
    pub fn next_any(&mut self) -> Value {
        serde_json::from_str(&self.next_text()).unwrap()
    }

    /// Reads until that many deltas have come.
    #[track_caller]
    pub fn read_deltas(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            left -= usize::from(self.next()["type"] == "content_delta");
        }
    }

    /// Frames up to and including the first `done` or `error` that carries `seq`.
    #[track_caller]
    pub fn turn(&mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next();
            let terminal = is_terminal(&frame);
            frames.push(frame);
            if terminal {
                return frames;
            }
        }
    }

    /// The code and reason of the close frame that ends the socket; None when it just ends.
    pub fn close_code(&mut self) -> Option<(u16, String)> {
        loop {
            match read(&mut self.ws) {
                Ok(Message::Close(Some(frame))) => return Some((frame.code.into(), frame.reason.to_string())),
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_) | Error::Protocol(_)) => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The next message. A read with a time limit is interrupted when the machine of the test stands still for a moment.
pub fn read<S: Read + Write>(ws: &mut WebSocket<S>) -> Result<Message, Error> {
    loop {
        match ws.read() {
            Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether a frame ends a turn.
pub fn is_terminal(frame: &Value) -> bool {
    (frame["type"] == "done" || frame["type"] == "error") && !frame["seq"].is_null()
}

/// The types of frames, in order, deltas folded.
pub fn kinds(frames: &[Value]) -> Vec<String> {
    let mut kinds: Vec<String> = frames.iter().map(|frame| frame["type"].as_str().unwrap_or("?").to_owned()).collect();
    kinds.dedup_by(|a, b| a == b && a == "content_delta");
    kinds
}
