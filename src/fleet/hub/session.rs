//! Sessions on machines: how they begin and end, how many there may be, and which chats stay open between turns
//! (contract agent-link 2.9, 2.11, 4).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, select};
use serde_json::{Map, Value, json};

use crate::agents::remote::{Operation, RemoteError, RemoteTurn};
use crate::fleet::hub::link::{Link, Said};
use crate::fleet::hub::{Fleet, message_id};
use crate::fleet::wire::{Ack, Message, SessionCancel, SessionStart, TO_AGENT_BYTES_MAX};
use crate::limits;
use crate::llm::Role;
use crate::rt::{clock, lock};
use crate::store::machine_sessions::SessionEnd;

/// How long an idle chat that makes room may take to end.
const MAKE_ROOM: Duration = Duration::from_secs(3);

/// What runs and what stays open.
#[derive(Default)]
pub(super) struct Sessions {
    /// Guarded by this mutex: turns by user.
    users: Arc<Mutex<HashMap<String, usize>>>,
    /// Guarded by this mutex: the open chat of each conversation. Nothing is taken under it.
    chats: Mutex<HashMap<String, Chat>>,
}

/// A chat that waits for its next turn.
struct Chat {
    session_id: String,
    link: Arc<Link>,
    used: Instant,
}

/// A turn's place on its machine and among those of its user; given back when dropped.
pub(super) struct Place {
    link: Arc<Link>,
    users: Arc<Mutex<HashMap<String, usize>>>,
    user: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.link.turns.fetch_sub(1, Ordering::AcqRel);
        let mut users = lock(&self.users);
        if let Some(count) = users.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.user);
            }
        }
    }
}

/// An open session that a turn listens to.
pub(super) struct Session {
    pub(super) id: String,
    pub(super) said: Receiver<Said>,
}

/// An answer to a message, as far as one came.
pub(super) enum Answer {
    Ok,
    Refused(String),
    None,
    Lost,
    Cancelled,
}

impl Sessions {
    /// A place for a turn, or why there is none.
    pub(super) fn place(&self, link: &Arc<Link>, user: &str) -> Result<Place, RemoteError> {
        let counted = |count: &AtomicUsize, max: usize| {
            count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| (taken < max).then_some(taken + 1)).is_ok()
        };
        if !counted(&link.turns, limits::MACHINE_TURNS_MAX) {
            let text = format!(
                "{} is busy with {} sessions; try again when one has ended",
                link.hostname,
                limits::MACHINE_TURNS_MAX
            );
            return Err(RemoteError { code: "rate_limited", message: text });
        }
        let mut users = lock(&self.users);
        let count = users.entry(user.to_owned()).or_insert(0);
        *count += 1;
        let place = Place { link: Arc::clone(link), users: Arc::clone(&self.users), user: user.to_owned() };
        if *count > limits::MACHINE_USER_TURNS_MAX {
            drop(users);
            drop(place); // counts the user down again
            let text = format!(
                "you have {} sessions on machines; try again when one has ended",
                limits::MACHINE_USER_TURNS_MAX
            );
            return Err(RemoteError { code: "rate_limited", message: text });
        }
        Ok(place)
    }

    /// Takes the open chat of a conversation, if it is on this connection.
    pub(super) fn take_chat(&self, conversation_id: &str, link: &Link) -> Option<String> {
        let chat = lock(&self.chats).remove(conversation_id)?;
        (chat.link.serial == link.serial).then_some(chat.session_id)
    }

    /// A chat stays open for its next turn.
    pub(super) fn keep_chat(&self, conversation_id: &str, session_id: String, link: &Arc<Link>) {
        let chat = Chat { session_id, link: Arc::clone(link), used: Instant::now() };
        lock(&self.chats).insert(conversation_id.to_owned(), chat);
    }

    fn take_idle(&self, is_wanted: impl Fn(&Chat) -> bool) -> Vec<(String, Arc<Link>)> {
        let taken: Vec<(String, Chat)> = lock(&self.chats).extract_if(|_, chat| is_wanted(chat)).collect();
        taken.into_iter().map(|(_, chat)| (chat.session_id, chat.link)).collect()
    }

    /// The chat of a machine that has been idle for the longest time.
    fn take_oldest(&self, link: &Link) -> Option<String> {
        let mut chats = lock(&self.chats);
        let oldest = chats.iter().filter(|(_, chat)| chat.link.serial == link.serial).min_by_key(|(_, chat)| chat.used);
        let conversation_id = oldest.map(|(id, _)| id.clone())?;
        chats.remove(&conversation_id).map(|chat| chat.session_id)
    }
}

impl Fleet {
    /// Begins a session: a row first, then the signed order, then the machine's answer.
    pub(super) fn start_session(
        &self,
        link: &Arc<Link>,
        turn: &RemoteTurn<'_>,
        cancelled: &Receiver<()>,
    ) -> Result<Session, RemoteError> {
        self.make_room(link);
        let session_id = message_id();
        let kind = turn.operation.name();
        self.rows.begin(&session_id, &link.machine_id, kind, turn.identity, turn.conversation_id).map_err(|error| {
            log::error!("record a session on machine {}: {error}", link.machine_id);
            RemoteError { code: "internal", message: "the hub cannot record the session; see its log".to_owned() }
        })?;
        let fail = |state: &str, error: RemoteError| {
            link.close_session(&session_id);
            self.end_session(
                &session_id,
                SessionEnd { state, error: &error.message, code: error.code, ..SessionEnd::default() },
            );
            Err(error)
        };
        let Some(said) = link.listen(&session_id, true) else { return fail("lost", lost(link)) };
        let start_id = message_id();
        let Some(order) = self.order(link, turn, &session_id, &start_id) else {
            let message = "the message is too long for the machine; send a shorter one".to_owned();
            return fail("error", RemoteError { code: "provider_upstream", message });
        };
        let answer = link.expect_ack(&start_id);
        if !link.peer.send(&order) {
            return fail("lost", lost(link));
        }
        match wait(&answer, cancelled) {
            Answer::Ok => Ok(Session { id: session_id, said }),
            Answer::Refused(reason) => fail("error", refused(link, &reason)),
            Answer::Lost => fail("lost", lost(link)),
            Answer::Cancelled => {
                cancel(link, &session_id, "cancelled by the user");
                fail("cancelled", RemoteError { code: "cancelled", message: "the turn was cancelled".to_owned() })
            }
            Answer::None => {
                link.forget_ack(&start_id);
                cancel(link, &session_id, "no answer in time");
                let seconds = limits::AGENT_ACK_TIMEOUT.as_secs();
                let message = format!("{} did not answer within {seconds} s; it may be overloaded", link.hostname);
                fail("error", RemoteError { code: "provider_timeout", message })
            }
        }
    }

    pub(super) fn end_session(&self, session_id: &str, end: SessionEnd<'_>) {
        if let Err(error) = self.rows.end(session_id, end) {
            log::error!("record the end of session {session_id}: {error}");
        }
    }

    /// The keeper's part: chats that nobody continues, and those whose machine is gone.
    pub(super) fn end_idle_chats(&self) {
        let is_gone = |link: &Link| self.link(&link.machine_id).is_none_or(|current| current.serial != link.serial);
        let lost = self.sessions.take_idle(|chat| is_gone(&chat.link));
        for (session_id, _) in lost {
            self.end_session(
                &session_id,
                SessionEnd { state: "lost", error: "connection lost", ..SessionEnd::default() },
            );
        }
        for (session_id, link) in self.sessions.take_idle(|chat| chat.used.elapsed() >= self.config.times.chat_idle) {
            self.end_chat(&link, &session_id, "idle");
        }
    }

    fn end_chat(&self, link: &Link, session_id: &str, reason: &str) {
        cancel(link, session_id, reason);
        link.close_session(session_id);
        self.end_session(session_id, SessionEnd { state: "ok", ..SessionEnd::default() });
    }

    /// The reference counts idle chats like work, three in all: the oldest idle one makes room.
    fn make_room(&self, link: &Link) {
        let max = if link.is_holt { limits::MACHINE_CHATS_MAX } else { limits::MACHINE_TURNS_MAX };
        if link.open_sessions() < max {
            return;
        }
        let Some(oldest) = self.sessions.take_oldest(link) else { return };
        let ended = link.listen(&oldest, false);
        cancel(link, &oldest, "making room for another session");
        if let Some(ended) = ended {
            let deadline = Instant::now() + MAKE_ROOM;
            loop {
                match ended.recv_deadline(deadline) {
                    Ok(Said::Output(output)) if !output.done => {}
                    Ok(Said::Error(_)) => {}
                    Ok(Said::Output(_)) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
        }
        link.close_session(&oldest);
        self.end_session(&oldest, SessionEnd { state: "ok", ..SessionEnd::default() });
    }

    /// The encoded `session_start`; None when it does not fit, even without history.
    fn order(&self, link: &Link, turn: &RemoteTurn<'_>, session_id: &str, start_id: &str) -> Option<Vec<u8>> {
        let mut history = if link.is_holt && turn.operation == Operation::Chat { history(turn) } else { Vec::new() };
        loop {
            let start = SessionStart {
                session_id: session_id.to_owned(),
                session_type: turn.operation.name().to_owned(),
                user_name: turn.identity.to_owned(),
                params: params(turn, &history),
            };
            let mut message = Message::new("session_start", start_id.to_owned(), &start);
            message.sig = Some(self.key.sign_start(&link.machine_id, start_id, &start, clock::unix_ms()));
            let order = message.encode();
            if order.len() <= TO_AGENT_BYTES_MAX {
                return Some(order);
            }
            if history.is_empty() {
                return None;
            }
            // The older half of what was said is the easiest to miss.
            history.drain(..history.len().div_ceil(2));
        }
    }
}

/// Tells the machine to end a session. What comes of it still is dropped, unless a turn listens.
pub(super) fn cancel(link: &Link, session_id: &str, reason: &str) {
    let order = SessionCancel { session_id: session_id.to_owned(), reason: reason.to_owned() };
    link.peer.send(&Message::new("session_cancel", message_id(), &order).encode());
}

/// The answer to a message, waited for.
pub(super) fn wait(answer: &Receiver<Ack>, cancelled: &Receiver<()>) -> Answer {
    select! {
        recv(answer) -> ack => match ack {
            Ok(ack) if ack.ok => Answer::Ok,
            Ok(ack) => Answer::Refused(ack.error),
            Err(_) => Answer::Lost,
        },
        recv(cancelled) -> _ => Answer::Cancelled,
        default(limits::AGENT_ACK_TIMEOUT) => Answer::None,
    }
}

/// What a machine's refusal means for people (contract agent-link 2.9).
pub(super) fn refused(link: &Link, reason: &str) -> RemoteError {
    let name = &link.hostname;
    let (code, message) = match reason {
        "chat engine not available" => {
            ("provider_config", format!("{name} has no model to chat with; set one up there, or let it use the hub's"))
        }
        "diagnose engine not available" => {
            ("provider_config", format!("{name} has no model for this; set one up there, or let it use the hub's"))
        }
        "max concurrent sessions reached" => {
            ("rate_limited", format!("{name} is busy with other sessions; try again when one has ended"))
        }
        "duplicate session_id" | "missing session_id" | "invalid payload" => {
            ("internal", format!("{name} did not understand the hub ({reason}); are both up to date?"))
        }
        "" => ("provider_upstream", format!("{name} refused the session without a reason")),
        other => ("provider_upstream", format!("{name} refused the session: {}", crate::rt::text::cut(other, 300))),
    };
    RemoteError { code, message }
}

/// The machine is gone in the middle of it.
pub(super) fn lost(link: &Link) -> RemoteError {
    let message =
        format!("connection lost: {} went away before it had answered; send the message again", link.hostname);
    RemoteError { code: "provider_unreachable", message }
}

fn params(turn: &RemoteTurn<'_>, history: &[Value]) -> Map<String, Value> {
    let mut params = match turn.params {
        Value::Object(params) => params.clone(),
        _ => Map::new(),
    };
    // A machine of an old release would take it for leave to run commands.
    params.remove("allow_shell");
    if turn.operation == Operation::Chat {
        params.insert("message".to_owned(), json!(turn.text));
        if !history.is_empty() {
            params.insert("history".to_owned(), json!(history));
        }
    }
    params
}

fn history(turn: &RemoteTurn<'_>) -> Vec<Value> {
    let said = turn.history.iter().filter(|message| matches!(message.role, Role::User | Role::Assistant));
    said.filter(|message| !message.content.is_empty())
        .map(|message| {
            let role = if message.role == Role::User { "user" } else { "assistant" };
            json!({"role": role, "content": message.content})
        })
        .collect()
}
