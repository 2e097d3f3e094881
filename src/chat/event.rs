//! The events of a turn and how they are spelled (contract http-api 7, additions "Streams").

use crate::rt::json;

/// One event of a turn. Numbers and the session are added when it is encoded.
#[derive(Clone, Debug, PartialEq)]
pub enum ChatEvent {
    /// First event of a turn: round 0 and no text. After each tool round: its number.
    Thinking {
        round: u32,
    },
    ContentDelta {
        text: String,
    },
    ThinkingDelta {
        text: String,
    },
    ToolStart {
        tool: String,
        round: u32,
        tool_id: String,
    },
    ToolEnd {
        tool: String,
        round: u32,
        tool_id: String,
        duration_ms: u64,
        error: Option<String>,
    },
    /// Somebody has to decide (`approval_id`), or a rule has decided (`rule`: its scope).
    ToolApproval {
        tool: String,
        round: u32,
        tool_id: String,
        text: String,
        approval_id: Option<String>,
    },
    /// How a request was decided: `approved`, `denied` or `expired`. Holt's own, for other devices.
    ToolDecision {
        tool: String,
        round: u32,
        tool_id: String,
        approval_id: String,
        status: String,
    },
    /// The soft limit is passed: no more tools in this turn.
    CostLimit {
        text: String,
    },
    /// A share of a hard limit is used up. Holt's own.
    CostWarning {
        text: String,
        percent: u32,
    },
    /// The deltas of the current round are void: a retry follows.
    StreamRollback,
    Usage {
        tokens: u64,
        cost_usd: f64,
    },
    /// The whole answer; authoritative.
    Content {
        text: String,
    },
    Done,
    /// The other way for a turn to end. `code` is one of the terminal codes of the additions.
    Error {
        code: &'static str,
        message: String,
    },
}

/// Text of the `thinking` event between rounds (contract http-api 7).
const BETWEEN_ROUNDS: &str = "Processing tool results...";

impl ChatEvent {
    /// Whether a turn ends with this event.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Done | Self::Error { .. })
    }

    /// Appends the event as one JSON object with `session_id`, `seq` and, after a machine crash, `prev_seq`.
    pub fn encode(&self, out: &mut Vec<u8>, session_id: &str, seq: u64, prev_seq: Option<u64>) {
        self.encode_body(out);
        out.extend_from_slice(b",\"session_id\":");
        json::push_str(out, session_id);
        out.extend_from_slice(b",\"seq\":");
        json::push_u64(out, seq);
        if let Some(prev_seq) = prev_seq {
            out.extend_from_slice(b",\"prev_seq\":");
            json::push_u64(out, prev_seq);
        }
        out.push(b'}');
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Thinking { round: 0 } => begin(out, "thinking"),
            Self::Thinking { round } => {
                begin(out, "thinking");
                number(out, "round", u64::from(*round));
                string(out, "text", BETWEEN_ROUNDS);
            }
            Self::ContentDelta { text } => {
                begin(out, "content_delta");
                string(out, "text", text);
            }
            Self::ThinkingDelta { text } => {
                begin(out, "thinking_delta");
                string(out, "text", text);
            }
            Self::ToolStart { tool, round, tool_id } => tool_fields(out, "tool_start", tool, *round, tool_id),
            Self::ToolEnd { tool, round, tool_id, duration_ms, error } => {
                tool_fields(out, "tool_end", tool, *round, tool_id);
                if *duration_ms > 0 {
                    number(out, "duration_ms", *duration_ms);
                }
                if let Some(error) = error {
                    string(out, "error", error);
                }
            }
            Self::ToolApproval { tool, round, tool_id, text, approval_id } => {
                tool_fields(out, "tool_approval", tool, *round, tool_id);
                string(out, "text", text);
                match approval_id {
                    Some(id) => {
                        string(out, "approval_id", id);
                        string(out, "approval_callback", &format!("appr:{id}"));
                    }
                    None => string(out, "approval_status", "auto_approved"),
                }
            }
            Self::ToolDecision { tool, round, tool_id, approval_id, status } => {
                tool_fields(out, "tool_decision", tool, *round, tool_id);
                string(out, "approval_id", approval_id);
                string(out, "approval_status", status);
            }
            Self::CostLimit { text } => {
                begin(out, "cost_limit");
                string(out, "text", text);
            }
            Self::CostWarning { text, percent } => {
                begin(out, "cost_warning");
                string(out, "text", text);
                number(out, "percent", u64::from(*percent));
            }
            Self::StreamRollback => begin(out, "stream_rollback"),
            Self::Usage { tokens, cost_usd } => {
                begin(out, "usage");
                number(out, "tokens", *tokens);
                out.extend_from_slice(b",\"cost_usd\":");
                json::push_f64(out, *cost_usd);
            }
            Self::Content { text } => {
                begin(out, "content");
                string(out, "text", text);
            }
            Self::Done => begin(out, "done"),
            Self::Error { code, message } => {
                begin(out, "error");
                string(out, "code", code);
                string(out, "message", message);
            }
        }
    }
}

/// Whether an encoded event ends a turn: `type` is always the first key.
pub fn is_terminal_json(payload: &[u8]) -> bool {
    payload.starts_with(b"{\"type\":\"done\"") || payload.starts_with(b"{\"type\":\"error\"")
}

fn begin(out: &mut Vec<u8>, kind: &str) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.push(b'"');
}

fn string(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    json::push_str(out, value);
}

fn number(out: &mut Vec<u8>, key: &str, value: u64) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    json::push_u64(out, value);
}

fn tool_fields(out: &mut Vec<u8>, kind: &str, tool: &str, round: u32, tool_id: &str) {
    begin(out, kind);
    string(out, "tool", tool);
    number(out, "round", u64::from(round));
    string(out, "tool_id", tool_id);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_spelled_as_the_contract_says() {
        let check = |event: ChatEvent, expected: &str| {
            let mut out = Vec::new();
            event.encode(&mut out, "s1", 7, None);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text, expected);
            assert_eq!(is_terminal_json(text.as_bytes()), event.is_terminal());
        };
        check(ChatEvent::Thinking { round: 0 }, r#"{"type":"thinking","session_id":"s1","seq":7}"#);
        check(
            ChatEvent::Thinking { round: 2 },
            r#"{"type":"thinking","round":2,"text":"Processing tool results...","session_id":"s1","seq":7}"#,
        );
        check(
            ChatEvent::ContentDelta { text: "a<b".into() },
            r#"{"type":"content_delta","text":"a\u003cb","session_id":"s1","seq":7}"#,
        );
        check(
            ChatEvent::ToolStart { tool: "t".into(), round: 1, tool_id: "c1".into() },
            r#"{"type":"tool_start","tool":"t","round":1,"tool_id":"c1","session_id":"s1","seq":7}"#,
        );
        check(
            ChatEvent::ToolEnd {
                tool: "t".into(),
                round: 1,
                tool_id: "c1".into(),
                duration_ms: 0,
                error: Some("x".into()),
            },
            r#"{"type":"tool_end","tool":"t","round":1,"tool_id":"c1","error":"x","session_id":"s1","seq":7}"#,
        );
        check(
            ChatEvent::Usage { tokens: 45, cost_usd: 0.00045 },
            r#"{"type":"usage","tokens":45,"cost_usd":0.00045,"session_id":"s1","seq":7}"#,
        );
        check(ChatEvent::Content { text: String::new() }, r#"{"type":"content","text":"","session_id":"s1","seq":7}"#);
        check(ChatEvent::Done, r#"{"type":"done","session_id":"s1","seq":7}"#);
        check(
            ChatEvent::Error { code: "cancelled", message: "x".into() },
            r#"{"type":"error","code":"cancelled","message":"x","session_id":"s1","seq":7}"#,
        );
        let mut out = Vec::new();
        ChatEvent::Done.encode(&mut out, "s1", 9, Some(3));
        assert_eq!(out, br#"{"type":"done","session_id":"s1","seq":9,"prev_seq":3}"#);
    }
}
