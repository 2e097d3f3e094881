//! What a client's frames ask for (contract 8.2; additions "Streams").

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::chat::ChatError;
use crate::chat::approvals::too_late;
use crate::chat::engine::{self, Outcome, Session, Submit, Ticket, Work};
use crate::limits;
use crate::store::approvals::{Decided, Decision};
use crate::store::rules::RuleScope;
use crate::store::{StoreError, random_hex};
use crate::ws::conn::Conn;
use crate::ws::frames::{self, ApprovalResponseFrame, ChatRequestFrame, ClientFrame, WsErrorFrame};
use crate::ws::hub::Hub;
use crate::ws::outbox::Data;

/// The requests of one connection.
pub(super) struct Requests {
    hub: Arc<Hub>,
    conn: Arc<Conn>,
    bad_frames: u32,
}

impl Requests {
    pub(super) fn new(hub: Arc<Hub>, conn: Arc<Conn>) -> Self {
        Self { hub, conn, bad_frames: 0 }
    }

    /// Carries out one message; false ends the connection.
    // Not inlined: its locals would lie on the stack of every reading thread that only waits.
    #[inline(never)]
    pub(super) fn message(&mut self, data: &[u8]) -> bool {
        match frames::parse_client_frame(data) {
            Ok(ClientFrame::ChatRequest(frame)) => self.chat_request(&frame),
            Ok(ClientFrame::Cancel(frame)) => self.cancel(&frame.session_id),
            Ok(ClientFrame::ApprovalResponse(_)) if !self.conn.approves => {
                self.error("", "permission_denied", "deciding approvals needs the scope approvals:write")
            }
            Ok(ClientFrame::ApprovalResponse(frame)) => self.decide(&frame),
            Ok(ClientFrame::Ping(_)) => self.send(br#"{"type":"pong"}"#),
            Ok(ClientFrame::Pong(_)) => true,
            Err(text) => {
                self.bad_frames += 1;
                if self.bad_frames > limits::WS_BAD_FRAMES_MAX {
                    self.conn.close(1002, "too many invalid frames");
                    return false;
                }
                self.error(&frames::session_of(data), "invalid_frame", &text)
            }
        }
    }

    fn chat_request(&self, frame: &ChatRequestFrame) -> bool {
        if frame.message.is_empty() {
            let after = frame.resume_after_seq.and_then(|after| u64::try_from(after).ok()).unwrap_or(0);
            return self.attach(&frame.session_id, after, frame.epoch.as_deref());
        }
        // The id first: whatever is answered names the conversation, also a new one (W-10).
        let session_id = if frame.session_id.is_empty() {
            match random_hex::<8>() {
                Ok(id) => id,
                Err(error) => return self.store_error("", &error),
            }
        } else {
            frame.session_id.clone()
        };
        if frame.message.len() > limits::MESSAGE_BYTES_MAX {
            return self.error(&session_id, "invalid_frame", "message exceeds maximum length of 32768 bytes");
        }
        if self.conn.turns.load(Ordering::Acquire) >= limits::WS_TURNS_MAX {
            return self.error(&session_id, "rate_limited", "too many concurrent chat requests");
        }
        let submit = Submit {
            session_id: Some(&session_id),
            agent: if frame.agent.is_empty() { "default" } else { &frame.agent },
            text: &frame.message,
            user_name: &frame.user_name,
            message_id: frame.message_id.as_deref(),
            origin: "ws",
            caller: &self.conn.caller,
            work: Work::CHAT,
        };
        self.conn.turns.fetch_add(1, Ordering::AcqRel);
        let ticket = Box::new(TurnTicket { turns: Arc::clone(&self.conn.turns), over: false });
        match self.hub.engine.submit(&submit, Some(ticket)) {
            Ok(submitted) => {
                let stream = submitted.session.stream();
                if let Some(position) = submitted.position
                    && !self.send(&frames::queued(stream.id(), position))
                {
                    return false;
                }
                self.follow(&submitted.session, submitted.after_seq, None)
            }
            Err(error) => self.chat_error(&session_id, &error),
        }
    }

    /// Replays what is kept after a number and follows the session from then on.
    fn attach(&self, session_id: &str, after: u64, wanted_epoch: Option<&str>) -> bool {
        match self.try_attach(session_id, after, wanted_epoch) {
            Ok(go_on) => go_on,
            Err(error) => self.chat_error(session_id, &error),
        }
    }

    fn try_attach(&self, session_id: &str, after: u64, wanted_epoch: Option<&str>) -> Result<bool, ChatError> {
        let epoch = &self.hub.engine.streams().epoch;
        if engine::check_session_id(session_id).is_err() {
            return Ok(self.send(&frames::replay_unavailable(session_id, epoch, 0, 0)));
        }
        match self.hub.engine.conversations().owner(session_id)? {
            None => return Ok(self.send(&frames::replay_unavailable(session_id, epoch, 0, 0))),
            Some(owner) if !self.conn.caller.may_read(&owner) => return Err(ChatError::Denied),
            Some(_) => {}
        }
        let session = self.hub.engine.session(session_id)?;
        let stream = session.stream();
        let last_seq = stream.last_seq();
        let oldest_seq = stream.oldest_seq()?;
        let other_epoch = wanted_epoch.is_some_and(|wanted| !wanted.is_empty() && wanted != epoch);
        // 0 asks for whatever is kept; any other number asks for what follows it.
        let lost = after < last_seq && oldest_seq.is_none_or(|oldest| after > 0 && oldest > after + 1);
        let head = if other_epoch || lost {
            frames::replay_unavailable(session_id, epoch, oldest_seq.unwrap_or(0), last_seq)
        } else {
            frames::resumed(session_id, epoch, oldest_seq.unwrap_or(0), last_seq, session.is_live())
        };
        let from = match oldest_seq {
            _ if other_epoch => 0,
            Some(oldest) => after.max(oldest - 1),
            None => last_seq,
        };
        // A number that was never given must not silence what comes: never beyond the last one.
        let floor = oldest_seq.map_or(last_seq, |oldest| oldest - 1);
        Ok(self.follow(&session, from.max(floor).min(last_seq), Some(head)))
    }

    /// `head`: a resume, which begins anew after `after_seq`, with this frame before it.
    fn follow(&self, session: &Arc<Session>, after_seq: u64, head: Option<Vec<u8>>) -> bool {
        let stream = session.stream();
        let life = stream.life();
        if let Some(watcher) = self.conn.as_watcher() {
            stream.watch(&watcher);
        }
        self.conn.note_attached(stream.id());
        self.conn.outbox().data(Data::Attach { stream: Arc::clone(stream), life, after_seq, head })
    }

    /// Success sends nothing back (contract 8.2): the turn's next frames are the answer.
    fn decide(&self, frame: &ApprovalResponseFrame) -> bool {
        let rule = match frame.action.as_str() {
            "auto_session" => Some(RuleScope::Session),
            "auto_always" => Some(RuleScope::Permanent),
            _ => None,
        };
        let identity = &self.conn.caller.identity;
        let decision =
            Decision { approve: frame.action != "deny", by: "ws", identity, source: &self.conn.address, rule };
        match self.hub.engine.approvals().decide(&frame.approval_id, &decision) {
            Ok(Decided::Done(..)) => true,
            Ok(Decided::NotFound) => self.error("", "not_found", "approval not found"),
            Ok(Decided::Already(row)) => self.error("", "already_resolved", &format!("approval {}", too_late(&row))),
            Err(error) => {
                log::error!("decide approval {}: {error}", frame.approval_id);
                self.error("", "internal", "failed to resolve approval")
            }
        }
    }

    fn cancel(&self, session_id: &str) -> bool {
        match self.hub.engine.cancel(session_id, &self.conn.caller) {
            Ok(()) => true, // its terminal frame is the answer
            Err(error) => self.chat_error(session_id, &error),
        }
    }

    fn chat_error(&self, session_id: &str, error: &ChatError) -> bool {
        let code = match error {
            ChatError::BadSessionId | ChatError::BadMessageId => "invalid_frame",
            ChatError::AgentNotFound { .. } => "agent_not_found",
            ChatError::Denied | ChatError::NotAllowed { .. } => "permission_denied",
            ChatError::QueueFull => "rate_limited",
            ChatError::NotRunning => "not_running",
            ChatError::Panicked => "panicked",
            ChatError::Stopping => "interrupted",
            ChatError::Store(error) => return self.store_error(session_id, error),
        };
        self.error(session_id, code, &error.to_string())
    }

    fn store_error(&self, session_id: &str, error: &StoreError) -> bool {
        log::error!("a request of websocket {}: {error}", self.conn.id);
        match error {
            StoreError::Full => {
                self.error(session_id, "storage_full", "the hub's disk is full; free some space and send it again")
            }
            StoreError::Busy => self.error(session_id, "internal", "the database is busy; send it again"),
            StoreError::NotFound => self.error(session_id, "not_found", "not found"),
            StoreError::Sqlite(_) | StoreError::Newer { .. } | StoreError::Open { .. } | StoreError::Random => {
                self.error(session_id, "internal", "failed to process message")
            }
        }
    }

    fn error(&self, session_id: &str, code: &str, message: &str) -> bool {
        self.send(&WsErrorFrame { session_id, code, message }.encode())
    }

    fn send(&self, payload: &[u8]) -> bool {
        self.conn.outbox().data(Data::payload(payload))
    }
}

/// Counts the turns of a connection; dropped without an end when a message was refused.
struct TurnTicket {
    turns: Arc<AtomicUsize>,
    over: bool,
}

impl Ticket for TurnTicket {
    fn started(&mut self, _after_seq: u64) {}

    fn parked(&mut self, _waited: Duration) -> bool {
        self.release(); // it runs no more; others may
        true
    }

    fn ended(&mut self, _outcome: &Outcome) {
        self.release();
    }
}

impl TurnTicket {
    fn release(&mut self) {
        if !self.over {
            self.over = true;
            self.turns.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for TurnTicket {
    fn drop(&mut self) {
        self.release();
    }
}
