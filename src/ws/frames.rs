//! The JSON frames of a WebSocket, both directions (contract 8.2, 8.3; additions "Streams").

use serde_json::{Map, Value, json};

use crate::limits;
use crate::rt::fields::typed;
use crate::rt::json as wire;
use crate::rt::order::gather;

pub const FRAME_TYPE_CHAT_REQUEST: &str = "chat_request";
pub const FRAME_TYPE_APPROVAL_RESPONSE: &str = "approval_response";
pub const FRAME_TYPE_CANCEL: &str = "cancel";
pub const FRAME_TYPE_PONG: &str = "pong";
pub const FRAME_TYPE_PING: &str = "ping";
pub const FRAME_TYPE_ERROR: &str = "error";
pub const FRAME_TYPE_ACTIVITY: &str = "activity";

/// The envelope that tells the type of a client's frame.
#[derive(Debug, Default)]
pub struct WsClientFrame {
    pub kind: String,
}

typed!(WsClientFrame { kind: "type" });

/// Starts or continues a conversation, or attaches to one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatRequestFrame {
    pub session_id: String,
    pub agent: String,
    pub message: String,
    pub user_id: String,
    pub user_name: String,
    /// Accepted and ignored.
    pub seq: i64,
    /// Without a message: attach, from this number on; 0 from the oldest kept.
    pub resume_after_seq: Option<i64>,
    pub epoch: Option<String>,
    pub message_id: Option<String>,
}

typed!(ChatRequestFrame { session_id, agent, message, user_id, user_name, seq, resume_after_seq, epoch, message_id });

/// Decides an approval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApprovalResponseFrame {
    pub approval_id: String,
    /// `approve`, `deny`, `auto_session` or `auto_always`.
    pub action: String,
}

typed!(ApprovalResponseFrame { approval_id, action });

/// Ends the running turn of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CancelFrame {
    pub session_id: String,
}

typed!(CancelFrame { session_id });

/// Asks for a [`PongFrame`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PingFrame;

/// From a client: accepted and ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PongFrame;

/// What a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFrame {
    ChatRequest(Box<ChatRequestFrame>),
    ApprovalResponse(ApprovalResponseFrame),
    Cancel(CancelFrame),
    Ping(PingFrame),
    Pong(PongFrame),
}

/// An event of a turn on the wire: a [`crate::chat::ChatEvent`] with its session and number.
#[derive(Clone, Debug, PartialEq)]
pub struct WsEventFrame {
    pub event: crate::chat::ChatEvent,
    pub session_id: String,
    pub seq: u64,
}

impl WsEventFrame {
    /// The JSON text.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.event.encode(&mut out, &self.session_id, self.seq, None);
        out
    }
}

/// An error outside a stream: no number, not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsErrorFrame<'a> {
    pub session_id: &'a str,
    pub code: &'a str,
    pub message: &'a str,
}

impl WsErrorFrame<'_> {
    /// The JSON text.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"type\":\"error\"".to_vec();
        for (key, value) in [("session_id", self.session_id), ("code", self.code), ("message", self.message)] {
            if key != "session_id" || !value.is_empty() {
                out.extend_from_slice(b",\"");
                out.extend_from_slice(key.as_bytes());
                out.extend_from_slice(b"\":");
                wire::push_str(&mut out, value);
            }
        }
        out.push(b'}');
        out
    }
}

/// Something happened in a conversation that the socket does not follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivityFrame<'a> {
    pub conversation_id: &'a str,
    pub agent: &'a str,
    pub adapter: &'a str,
}

impl ActivityFrame<'_> {
    /// The JSON text.
    pub fn encode(&self) -> Vec<u8> {
        wire::to_vec(&json!({
            "type": FRAME_TYPE_ACTIVITY,
            "conversation_id": self.conversation_id,
            "agent": self.agent,
            "adapter": self.adapter,
            "summary": "New message processed",
        }))
    }
}

/// The head of a resume.
pub fn resumed(session_id: &str, epoch: &str, oldest_seq: u64, last_seq: u64, live: bool) -> Vec<u8> {
    wire::to_vec(&json!({
        "type": "resumed", "session_id": session_id, "epoch": epoch, "oldest_seq": oldest_seq, "last_seq": last_seq,
        "live": live,
    }))
}

/// Frames after the number asked for are no longer kept.
pub fn replay_unavailable(session_id: &str, epoch: &str, oldest_seq: u64, last_seq: u64) -> Vec<u8> {
    wire::to_vec(&json!({
        "type": FRAME_TYPE_ERROR, "code": "replay_unavailable", "session_id": session_id,
        "message": "replay buffer expired or empty", "epoch": epoch, "oldest_seq": oldest_seq, "last_seq": last_seq,
    }))
}

/// A message waits behind the running turn.
pub fn queued(session_id: &str, position: usize) -> Vec<u8> {
    wire::to_vec(&json!({"type": "queued", "session_id": session_id, "position": position}))
}

/// Sent only to those who ask for it.
pub fn hello() -> Vec<u8> {
    wire::to_vec(&json!({
        "type": "hello", "epoch_supported": true,
        "limits": {
            "message_bytes_max": limits::MESSAGE_BYTES_MAX,
            "frame_bytes_max": limits::WS_MESSAGE_BYTES_MAX,
            "turns_max": limits::WS_TURNS_MAX,
            "queue_max": limits::SESSION_QUEUE_MAX,
            "message_id_bytes_max": limits::MESSAGE_ID_BYTES_MAX,
        },
    }))
}

/// Reads a client's frame; the text for the `invalid_frame` answer otherwise.
pub fn parse_client_frame(data: &[u8]) -> Result<ClientFrame, String> {
    let object = match serde_json::from_slice::<Value>(data) {
        Ok(Value::Object(object)) => lowered(object),
        Ok(Value::Null) => Map::new(),
        Ok(_) => return Err("wsframes: invalid JSON: not an object".to_owned()),
        Err(_) => return Err("wsframes: invalid JSON: not one JSON object".to_owned()),
    };
    let kind = match object.get("type") {
        None => String::new(),
        Some(Value::String(kind)) => kind.clone(),
        Some(_) => return Err("wsframes: invalid JSON: type is not a string".to_owned()),
    };
    match kind.as_str() {
        "" => Err("wsframes: missing type field".to_owned()),
        FRAME_TYPE_CHAT_REQUEST => chat_request(object),
        FRAME_TYPE_APPROVAL_RESPONSE => approval_response(object),
        FRAME_TYPE_CANCEL => {
            let frame: CancelFrame = fields(object, FRAME_TYPE_CANCEL)?;
            if frame.session_id.is_empty() {
                return Err("wsframes: cancel requires session_id".to_owned());
            }
            Ok(ClientFrame::Cancel(frame))
        }
        FRAME_TYPE_PING => Ok(ClientFrame::Ping(PingFrame)),
        FRAME_TYPE_PONG => Ok(ClientFrame::Pong(PongFrame)),
        other => Err(format!("wsframes: unknown frame type {}", wire::quoted(other))),
    }
}

/// The session that a refused frame names, if it can be told.
pub fn session_of(data: &[u8]) -> String {
    match serde_json::from_slice::<Value>(data) {
        Ok(Value::Object(object)) => {
            lowered(object).get("session_id").and_then(Value::as_str).unwrap_or_default().to_owned()
        }
        _ => String::new(),
    }
}

fn chat_request(object: Map<String, Value>) -> Result<ClientFrame, String> {
    let frame: ChatRequestFrame = fields(object, FRAME_TYPE_CHAT_REQUEST)?;
    if frame.message.is_empty() {
        match frame.resume_after_seq {
            None => return Err("wsframes: chat_request requires message or resume_after_seq".to_owned()),
            Some(after) if after < 0 => return Err("wsframes: resume_after_seq must be 0 or more".to_owned()),
            Some(_) => {}
        }
    }
    Ok(ClientFrame::ChatRequest(Box::new(frame)))
}

fn approval_response(object: Map<String, Value>) -> Result<ClientFrame, String> {
    let frame: ApprovalResponseFrame = fields(object, FRAME_TYPE_APPROVAL_RESPONSE)?;
    if frame.approval_id.is_empty() {
        return Err("wsframes: approval_response requires approval_id".to_owned());
    }
    match frame.action.as_str() {
        "" => Err("wsframes: approval_response requires action".to_owned()),
        "approve" | "deny" | "auto_session" | "auto_always" => Ok(ClientFrame::ApprovalResponse(frame)),
        other => Err(format!("wsframes: invalid approval action {}", wire::quoted(other))),
    }
}

fn fields<T: serde::de::DeserializeOwned>(object: Map<String, Value>, kind: &str) -> Result<T, String> {
    serde_json::from_value(Value::Object(object))
        .map_err(|_| format!("wsframes: invalid {kind}: a field has the wrong type"))
}

/// Keys in lower case, `null` as not given (contract section 0).
fn lowered(object: Map<String, Value>) -> Map<String, Value> {
    let given = object.into_iter().filter(|(_, value)| !value.is_null());
    gather(given.map(|(key, value)| (key.to_ascii_lowercase(), value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_or_refused_with_their_texts() {
        let check = |text: &str, expected: &str| {
            let found = match parse_client_frame(text.as_bytes()) {
                Ok(frame) => format!("{frame:?}").split(['(', ' ']).next().unwrap().to_owned(),
                Err(error) => error,
            };
            assert_eq!(found, expected, "{text}");
        };
        check(r#"{"type":"chat_request","message":"hi","later":1}"#, "ChatRequest");
        check(r#"{"TYPE":"chat_request","Message":"hi"}"#, "ChatRequest");
        check(r#"{"type":"chat_request","session_id":"s","resume_after_seq":0}"#, "ChatRequest");
        check(r#"{"type":"cancel","session_id":"s"}"#, "Cancel");
        check(r#"{"type":"ping"}"#, "Ping");
        check(r#"{"type":"pong"}"#, "Pong");
        check(r#"{"type":"approval_response","approval_id":"a","action":"deny"}"#, "ApprovalResponse");
        check("{", "wsframes: invalid JSON: not one JSON object");
        check("{} {}", "wsframes: invalid JSON: not one JSON object");
        check("[]", "wsframes: invalid JSON: not an object");
        check("null", "wsframes: missing type field");
        check("{}", "wsframes: missing type field");
        check(r#"{"type":7}"#, "wsframes: invalid JSON: type is not a string");
        check(r#"{"type":"x\"y"}"#, r#"wsframes: unknown frame type "x\"y""#);
        check(r#"{"type":"chat_request"}"#, "wsframes: chat_request requires message or resume_after_seq");
        check(r#"{"type":"chat_request","message":7}"#, "wsframes: invalid chat_request: a field has the wrong type");
        check(r#"{"type":"chat_request","resume_after_seq":-1}"#, "wsframes: resume_after_seq must be 0 or more");
        check(r#"{"type":"cancel"}"#, "wsframes: cancel requires session_id");
        check(r#"{"type":"approval_response"}"#, "wsframes: approval_response requires approval_id");
        check(r#"{"type":"approval_response","approval_id":"a"}"#, "wsframes: approval_response requires action");
        check(
            r#"{"type":"approval_response","approval_id":"a","action":"no"}"#,
            r#"wsframes: invalid approval action "no""#,
        );
    }

    #[test]
    fn error_frames_leave_an_empty_session_out() {
        let frame = WsErrorFrame { session_id: "", code: "invalid_frame", message: "a<b" };
        assert_eq!(frame.encode(), br#"{"type":"error","code":"invalid_frame","message":"a\u003cb"}"#);
        assert_eq!(session_of(br#"{"Session_ID":"s","type":"nope"}"#), "s");
        assert_eq!(session_of(b"garbage"), "");
    }
}
