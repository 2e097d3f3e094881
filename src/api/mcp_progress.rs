//! What a client of the MCP server hears of a turn while it runs (MCP 2025-11-25, "Progress"): the turn's event stream,
//! told as notifications, then the result.

use serde_json::{Value, json};

use crate::api::message::{Shaped, SseShape};
use crate::chat::Engine;
use crate::rt::json::to_vec;

/// The call that a stream answers.
struct Told {
    id: Value,
    token: Value,
    /// Under which the answer can be asked for again.
    message_id: Value,
    engine: Engine,
    session_id: String,
    /// Grows with each notification, as the protocol has it.
    count: u64,
    text: Value,
}

/// Tells the turn of a session to the client whose call `id` began it, under the token that it gave.
pub(super) fn shape(engine: Engine, session_id: &str, id: Value, token: Value, message_id: Value) -> SseShape {
    let session_id = session_id.to_owned();
    let mut told = Told { id, token, message_id, engine, session_id, count: 0, text: Value::Null };
    Box::new(move |payload| told.shaped(payload))
}

impl Told {
    fn shaped(&mut self, payload: &[u8]) -> Shaped {
        if payload.is_empty() {
            return self.idle();
        }
        let event: Value = serde_json::from_slice(payload).unwrap_or_default();
        let word = |name: &str| event[name].as_str().unwrap_or_default();
        match word("type") {
            "queued" => self.progress(&format!("waits behind {} other messages", event["position"])),
            "thinking" => self.progress("thinking"),
            "tool_start" => self.progress(&format!("calls {}", word("tool"))),
            "tool_end" if event["error"].is_string() => {
                self.progress(&format!("{} failed: {}", word("tool"), word("error")))
            }
            "content" => {
                self.text = event["text"].clone();
                Shaped::Nothing
            }
            "done" => self.result(&json!({"session_id": self.session_id, "response": self.text}), false),
            "error" => {
                let shape = json!({"error": event["message"], "code": event["code"], "session_id": self.session_id});
                self.result(&shape, true)
            }
            _ => Shaped::Nothing,
        }
    }

    /// There are no more events now. Whoever has to decide is asked elsewhere, and may take a day.
    fn idle(&self) -> Shaped {
        if !self.engine.is_parked(&self.session_id) {
            return Shaped::Nothing;
        }
        let text = "the turn waits for a decision; its answer comes to the session";
        let shape = json!({"session_id": self.session_id, "status": "waiting_for_approval", "response": "",
            "message": text, "message_id": self.message_id});
        self.result(&shape, false)
    }

    fn progress(&mut self, message: &str) -> Shaped {
        self.count += 1;
        let params = json!({"progressToken": self.token, "progress": self.count, "message": message});
        Shaped::Event(to_vec(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})))
    }

    fn result(&self, shape: &Value, is_error: bool) -> Shaped {
        let result = json!({"content": [{"type": "text", "text": shape.to_string()}], "isError": is_error});
        Shaped::Last(to_vec(&json!({"jsonrpc": "2.0", "id": self.id, "result": result})))
    }
}
