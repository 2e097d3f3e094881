//! One connected machine.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::Value;

use crate::fleet::hub::Peer;
use crate::fleet::wire::{Ack, SessionError, SessionOutput};
use crate::limits;
use crate::rt::{clock, lock};

/// What a machine says in a session.
#[derive(Debug)]
pub(super) enum Said {
    Output(Box<SessionOutput>),
    Error(SessionError),
}

/// A registered machine's connection.
pub(super) struct Link {
    // Set at construction.
    pub(super) serial: u64,
    pub(super) machine_id: String,
    pub(super) hostname: String,
    pub(super) ip: String,
    pub(super) peer: Arc<dyn Peer>,
    /// Milliseconds since 1970.
    pub(super) connected_at: i64,
    /// It answers inputs and cancels.
    pub(super) acks_inputs: bool,
    /// It knows what is Holt's own: history, new tokens.
    pub(super) is_holt: bool,
    // Atomics.
    last_seen_at: AtomicI64,
    /// Turns that run on it.
    pub(super) turns: AtomicUsize,
    /// Guarded by this mutex. Nothing is taken under it.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Open sessions; the sender is there while a turn listens.
    sessions: HashMap<String, Option<Sender<Said>>>,
    /// Messages that wait for their `ack`.
    acks: HashMap<String, Sender<Ack>>,
    heartbeat: Option<Value>,
    /// The connection is over: no session begins any more.
    ended: bool,
}

/// What a link is made of.
pub(super) struct LinkParts {
    pub(super) serial: u64,
    pub(super) machine_id: String,
    pub(super) hostname: String,
    pub(super) ip: String,
    pub(super) features: Vec<String>,
    pub(super) is_holt: bool,
    pub(super) peer: Arc<dyn Peer>,
}

impl Link {
    pub(super) fn new(parts: LinkParts) -> Self {
        let now = clock::unix_ms();
        Self {
            serial: parts.serial,
            machine_id: parts.machine_id,
            hostname: parts.hostname,
            ip: parts.ip,
            peer: parts.peer,
            connected_at: now,
            acks_inputs: parts.features.iter().any(|feature| feature == "input_ack"),
            is_holt: parts.is_holt,
            last_seen_at: AtomicI64::new(now),
            turns: AtomicUsize::new(0),
            state: Mutex::default(),
        }
    }

    /// A sign of life.
    pub(super) fn seen(&self) {
        self.last_seen_at.store(clock::unix_ms(), Ordering::Release);
    }

    pub(super) fn last_seen_at(&self) -> i64 {
        self.last_seen_at.load(Ordering::Acquire)
    }

    /// Milliseconds without a sign of life; a clock that was set back counts as none.
    pub(super) fn silent_ms(&self) -> i64 {
        clock::unix_ms().saturating_sub(self.last_seen_at()).max(0)
    }

    pub(super) fn heartbeat(&self) -> Option<Value> {
        lock(&self.state).heartbeat.clone()
    }

    pub(super) fn set_heartbeat(&self, heartbeat: Value) {
        lock(&self.state).heartbeat = Some(heartbeat);
    }

    /// Opens a session, or listens to one that is open. None when the connection is over, or the session not there.
    pub(super) fn listen(&self, session_id: &str, is_new: bool) -> Option<Receiver<Said>> {
        let (tx, rx) = bounded(limits::MACHINE_OUTPUTS_QUEUE);
        let mut state = lock(&self.state);
        if state.ended || (!is_new && !state.sessions.contains_key(session_id)) {
            return None;
        }
        state.sessions.insert(session_id.to_owned(), Some(tx));
        Some(rx)
    }

    /// The turn is over, the session stays open.
    pub(super) fn stop_listening(&self, session_id: &str) {
        if let Some(listener) = lock(&self.state).sessions.get_mut(session_id) {
            *listener = None;
        }
    }

    /// The session is over; what still comes of it is dropped.
    pub(super) fn close_session(&self, session_id: &str) {
        lock(&self.state).sessions.remove(session_id);
    }

    /// Open sessions, listened to or not.
    pub(super) fn open_sessions(&self) -> usize {
        lock(&self.state).sessions.len()
    }

    /// Where the answer to that message will come.
    pub(super) fn expect_ack(&self, message_id: &str) -> Receiver<Ack> {
        let (tx, rx) = bounded(1);
        let mut state = lock(&self.state);
        if !state.ended {
            state.acks.insert(message_id.to_owned(), tx);
        }
        rx
    }

    pub(super) fn forget_ack(&self, message_id: &str) {
        lock(&self.state).acks.remove(message_id);
    }

    /// The machine answered a message.
    pub(super) fn acked(&self, ref_id: &str, ack: Ack) {
        if let Some(waiting) = lock(&self.state).acks.remove(ref_id) {
            let _ = waiting.try_send(ack); // nobody waits any more
        }
    }

    /// The machine said something in a session. Waits while its turn is busy; false when there is no such session.
    pub(super) fn said(&self, session_id: &str, said: Said) -> bool {
        let is_end = matches!(&said, Said::Output(output) if output.done);
        let listener = {
            let mut state = lock(&self.state);
            let Some(listener) = state.sessions.get(session_id).cloned() else { return false };
            if is_end {
                state.sessions.remove(session_id);
            }
            listener
        };
        match listener {
            // A turn that takes nothing for so long has lost its place to write to.
            Some(tx) => {
                let _ = tx.send_timeout(said, limits::AGENT_ACK_TIMEOUT);
            }
            None => log::debug!("machine {} spoke between turns of session {session_id}", self.machine_id),
        }
        true
    }

    /// Whether nothing that it says counts any more.
    pub(super) fn has_ended(&self) -> bool {
        lock(&self.state).ended
    }

    /// The connection is over: whoever waits for something from it learns that by its channel.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        state.ended = true;
        state.sessions.clear();
        state.acks.clear();
    }
}
