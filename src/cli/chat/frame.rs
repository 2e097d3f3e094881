//! The hub's frames as this client reads them, and the ones it sends (contract 8.2, 8.3; additions "Streams").

use crate::rt::fields::typed;
use serde_json::json;

/// Any frame of the hub; what a kind does not have is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Frame {
    pub(super) kind: String,
    pub(super) session_id: String,
    pub(super) seq: Option<u64>,
    pub(super) prev_seq: Option<u64>,
    pub(super) text: String,
    pub(super) round: u32,
    pub(super) tool: String,
    pub(super) tool_id: String,
    pub(super) duration_ms: u64,
    pub(super) error: String,
    pub(super) tokens: u64,
    pub(super) cost_usd: f64,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) approval_id: String,
    pub(super) approval_status: String,
    pub(super) epoch: String,
    pub(super) oldest_seq: u64,
    pub(super) last_seq: u64,
    pub(super) live: bool,
    pub(super) position: u64,
}

typed!(Frame {
    kind: "type",
    session_id,
    seq,
    prev_seq,
    text,
    round,
    tool,
    tool_id,
    duration_ms,
    error,
    tokens,
    cost_usd,
    code,
    message,
    approval_id,
    approval_status,
    epoch,
    oldest_seq,
    last_seq,
    live,
    position
});

impl Frame {
    /// None for what is not a frame: a newer hub may send anything.
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|frame: &Self| !frame.kind.is_empty())
    }

    /// Whether a turn ends with it.
    pub(super) fn is_terminal(&self) -> bool {
        self.seq.is_some() && matches!(self.kind.as_str(), "done" | "error")
    }

    /// Whether a turn begins with it: later `thinking` frames carry their round.
    pub(super) fn is_first(&self) -> bool {
        self.kind == "thinking" && self.round == 0
    }
}

/// A message, told from all others by its id.
pub(super) fn chat_request(session_id: &str, agent: Option<&str>, message: &str, message_id: &str) -> String {
    let mut frame = json!({
        "type": "chat_request", "session_id": session_id, "message": message, "message_id": message_id,
    });
    if let Some(agent) = agent {
        frame["agent"] = json!(agent);
    }
    frame.to_string()
}

/// Asks for everything after a number, and to stay attached.
pub(super) fn attach(session_id: &str, after_seq: i64, epoch: Option<&str>) -> String {
    let mut frame = json!({"type": "chat_request", "session_id": session_id, "resume_after_seq": after_seq});
    if let Some(epoch) = epoch {
        frame["epoch"] = json!(epoch);
    }
    frame.to_string()
}

/// Ends the running turn.
pub(super) fn cancel(session_id: &str) -> String {
    json!({"type": "cancel", "session_id": session_id}).to_string()
}

/// Decides an approval: `approve`, `deny` or `auto_session`.
pub(super) fn approval(approval_id: &str, action: &str) -> String {
    json!({"type": "approval_response", "approval_id": approval_id, "action": action}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_any_kind_are_read() {
        let frame = Frame::parse(r#"{"type":"done","session_id":"s","seq":7,"later":{}}"#).unwrap();
        assert_eq!((frame.session_id.as_str(), frame.seq), ("s", Some(7)));
        assert!(frame.is_terminal() && !frame.is_first());
        assert!(Frame::parse(r#"{"type":"thinking","session_id":"s","seq":1}"#).unwrap().is_first());
        assert!(!Frame::parse(r#"{"type":"thinking","round":1,"seq":1}"#).unwrap().is_first());
        assert!(!Frame::parse(r#"{"type":"error","code":"rate_limited"}"#).unwrap().is_terminal());
        for nothing in ["", "[]", "{}", r#"{"type":7}"#, "garbage"] {
            assert_eq!(Frame::parse(nothing), None, "{nothing}");
        }
    }
}
