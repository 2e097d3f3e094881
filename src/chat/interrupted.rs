//! After a restart: every turn without a terminal frame gets one, and what was streamed of it is kept.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;

use crate::chat::ChatError;
use crate::chat::engine::Inner;
use crate::chat::event::{ChatEvent, is_terminal_json};
use crate::chat::frame;
use crate::chat::session::Session;
use crate::chat::stream::Commit;
use crate::chat::turn::interrupted;
use crate::limits;
use crate::store::StoreError;
use crate::store::turns::{Reservation, TurnRow};

/// What the log still says about a turn.
#[derive(Default)]
pub(super) struct Remains {
    text: String,
    round_start: usize,
    pub(super) finished: bool,
    pub(super) failed: bool,
    /// Requests for approval that clients may have seen.
    pub(super) asked: HashSet<String>,
}

/// Ends a turn that was running when the hub went down.
pub(super) fn end_turn(inner: &Inner, session: &Arc<Session>, turn: &TurnRow) -> Result<(), ChatError> {
    let stream = session.stream();
    let remains = read_remains(inner, turn)?;
    if remains.finished {
        inner.note_end(turn, remains.failed, stream.last_seq());
        return Ok(());
    }
    let (used_seq, until) = stream.plan_start();
    inner.turns.reserve(stream.id(), &Reservation { until, boot_id: &inner.streams.boot_id, used_seq })?;
    stream.set_reserved(until);
    // The answer may have been stored just before the end: then only the frames that say so are missing.
    let mut events = Vec::new();
    if let Some(message) = turn.assistant_message {
        let text = inner.turns.message_text(message)?.unwrap_or_default();
        events.push(ChatEvent::Content { text });
        events.push(ChatEvent::Done);
    } else {
        if !remains.text.is_empty() {
            match inner.turns.answer(turn.id, &turn.conversation_id, &remains.text, 0, 0.0) {
                Ok(_) | Err(StoreError::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (code, message) = interrupted();
        events.push(ChatEvent::Error { code, message });
    }
    let last = settle_events(session, &events, turn.id)?;
    inner.note_end(turn, turn.assistant_message.is_none(), last);
    inner.approvals.abandon(turn.id, "the hub stopped in the middle of its turn")?;
    Ok(())
}

/// Logs events before anybody follows; the number of the last one.
pub(super) fn settle_events(session: &Session, events: &[ChatEvent], turn_id: i64) -> Result<u64, ChatError> {
    let stream = session.stream();
    let mut last = 0;
    for event in events {
        // Announced one by one: a large answer must reach the recorder before the next event finds room.
        last = stream.emit(event).map_err(|_| StoreError::Full)?;
        stream.announce();
    }
    while let Commit::Late = stream.wait_committed(last, limits::STOP_TOTAL) {
        log::warn!("the event log is slow; waiting for the events of turn {turn_id}");
    }
    if stream.last_seq() < last {
        stream.clear_failure();
        return Err(StoreError::Full.into());
    }
    Ok(last)
}

pub(super) fn read_remains(inner: &Inner, turn: &TurnRow) -> Result<Remains, StoreError> {
    let mut remains = Remains::default();
    // Without a number (the log was lost) nothing of this turn can be in the log.
    let Some(mut after) = turn.after_seq else {
        return Ok(remains);
    };
    loop {
        let runs = inner.streams.log.since(&turn.conversation_id, after, limits::REPLAY_CHUNK_BYTES)?;
        if runs.is_empty() {
            return Ok(remains);
        }
        for run in &runs {
            let skip = (after + 1).saturating_sub(run.first_seq);
            for (_, payload) in frame::frames(frame::skip_frames(&run.frames, skip)) {
                remains.take(payload);
                if remains.finished {
                    return Ok(remains);
                }
            }
            after = run.last_seq;
        }
    }
}

impl Remains {
    fn take(&mut self, payload: &[u8]) {
        if is_terminal_json(payload) {
            self.finished = true;
            self.failed = payload.starts_with(b"{\"type\":\"error\"");
            return;
        }
        let Ok(event) = serde_json::from_slice::<Value>(payload) else {
            return;
        };
        match event["type"].as_str() {
            Some("content_delta") => self.text.push_str(event["text"].as_str().unwrap_or("")),
            Some("tool_approval") => self.asked.extend(event["approval_id"].as_str().map(str::to_owned)),
            Some("stream_rollback") => self.text.truncate(self.round_start),
            Some("thinking") => {
                if !self.text.is_empty() && self.text.len() > self.round_start {
                    self.text.push_str("\n\n");
                }
                self.round_start = self.text.len();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streamed_text_is_found_again() {
        let mut remains = Remains::default();
        for payload in [
            r#"{"type":"thinking"}"#,
            r#"{"type":"content_delta","text":"Let me look."}"#,
            r#"{"type":"tool_start"}"#,
            r#"{"type":"thinking","round":1}"#,
            r#"{"type":"content_delta","text":"void"}"#,
            r#"{"type":"stream_rollback"}"#,
            r#"{"type":"content_delta","text":"It is fi"}"#,
        ] {
            remains.take(payload.as_bytes());
        }
        assert_eq!(remains.text, "Let me look.\n\nIt is fi");
        assert!(!remains.finished);
        remains.take(br#"{"type":"error","code":"cancelled"}"#);
        assert!(remains.finished && remains.failed);
    }
}
