//! The engine: accepts messages, runs one turn per session at a time, queues the rest, survives restarts.
//!
//! A message is a row before it is anything else. Its session is claimed in memory first, so that two messages cannot
//! both start; rows are written without a lock; then a `turn-<n>` thread runs it, or it waits for a free slot.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::agents::Agents;
use crate::agents::remote::{MACHINE_PREFIX, Operation, RemoteAgents};
use crate::chat::access::Caller;
use crate::chat::approvals::Approvals;
use crate::chat::run::Slots;
use crate::chat::session::{Running, Waiting};
use crate::chat::stream::Streams;
use crate::chat::upkeep::drop_idle;
use crate::chat::{ChatError, interrupted as recovery};
use crate::costs::Budgets;
use crate::limits;
use crate::rt::{Stop, Threads, lock};
use crate::store::turns::{Closed, TurnRow};
use crate::store::{ConversationStore, Db, ParkedStore, StoreError, TurnStore, random_hex};

pub use crate::chat::session::{Outcome, Session, Ticket};

/// What the engine may be told to do differently.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub turns_max: usize,
    pub context_messages_max: usize,
    pub tool_rounds_max: u32,
    /// How long a request for approval can be decided.
    pub approval_ttl: Duration,
}

/// A message that somebody sends.
#[derive(Clone, Copy)]
pub struct Submit<'a> {
    /// None begins a conversation.
    pub session_id: Option<&'a str>,
    pub agent: &'a str,
    pub text: &'a str,
    pub user_name: &'a str,
    pub message_id: Option<&'a str>,
    /// `ws`, `api` or `schedule`.
    pub origin: &'a str,
    pub caller: &'a Caller,
    /// What a machine is asked to do; other agents know chat alone, and the parameters of `chat::scheduled`.
    pub work: Work<'a>,
}

/// What is done with a message: see [`Operation`].
#[derive(Clone, Copy)]
pub struct Work<'a> {
    pub operation: Operation,
    /// JSON, of inspect and diagnose; empty for chat.
    pub params: &'a str,
}

impl Work<'_> {
    /// A message is answered.
    pub const CHAT: Self = Self { operation: Operation::Chat, params: "" };
}

/// What became of a message.
pub struct Submitted {
    pub session: Arc<Session>,
    /// Follow the stream from here to see the turn from its first frame, unless it waits.
    pub after_seq: u64,
    /// The place behind the running turn, from 1; None when it runs.
    pub position: Option<usize>,
    /// The message was accepted before, under the same `message_id`.
    pub repeat: bool,
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    // Set at construction.
    pub(super) db: Arc<Db>,
    pub(super) approvals: Arc<Approvals>,
    pub(super) parked: ParkedStore,
    pub(super) budgets: Arc<Budgets>,
    /// Guarded by this mutex: the agents of now; a turn keeps those that it began with. Nothing is taken under it.
    pub(super) agents: Mutex<Arc<Agents>>,
    /// Guarded by this mutex: old and new names of agents, for turns that were accepted before. Nothing is taken under it.
    pub(super) renamed: Mutex<Vec<(String, String)>>,
    pub(super) conversations: ConversationStore,
    pub(super) turns: Arc<TurnStore>,
    pub(super) streams: Arc<Streams>,
    /// Guarded by this mutex: what counts from the next turn on. Nothing is taken under it.
    pub(super) settings: Mutex<Settings>,
    pub(super) threads: Threads,
    pub(super) stop: Stop,
    // Atomics: everything is stopped until somebody says otherwise.
    pub(super) panicked: AtomicBool,
    /// Held while a panic is begun, ended or followed, over its one row: what the row says and the flag change together.
    /// The value is a panic that could not be stored yet.
    pub(super) panic_row: Mutex<Option<String>>,
    /// Grows with the database; the keeper's, to notice other processes.
    pub(super) seen_generation: AtomicU64,
    /// Guarded by this mutex: sessions in memory. A session's own mutex may be taken under it.
    pub(super) sessions: Mutex<HashMap<Arc<str>, Arc<Session>>>,
    /// Guarded by this mutex: how many turns run, and which sessions wait for a slot. Nothing is taken under it.
    pub(super) slots: Mutex<Slots>,
    /// Guarded by this mutex: ends that are in the log but not yet in the rows. Nothing is taken under it.
    pub(super) closed: Mutex<Vec<Closed>>,
    /// Guarded by this mutex: what failed for want of disk and is tried again. Nothing is taken under it.
    pub(super) retries: Mutex<Vec<Retry>>,
    /// Told of every turn that has ended; set once.
    pub(super) observer: OnceLock<Observer>,
    /// The machines, when there are any; set once.
    pub(super) remote: OnceLock<Arc<dyn RemoteAgents>>,
}

/// Something that the keeper tries again.
pub(super) enum Retry {
    /// The terminal frame of a turn that a stop cut short; its session is claimed until then.
    EndTurn(Arc<Session>, Box<TurnRow>),
    /// The queued messages of a session.
    StartNext(Arc<Session>),
}

/// A turn that has ended, for whoever follows all of them.
pub struct Finished {
    pub conversation_id: String,
    pub agent: String,
    /// `ws` or `api`.
    pub origin: String,
}

/// Called on the turn's thread; never waits.
pub type Observer = Box<dyn Fn(&Finished) + Send + Sync>;

impl Engine {
    /// An engine over open stores. [`Engine::recover`] comes before the first message.
    pub fn new(
        db: Arc<Db>,
        budgets: Arc<Budgets>,
        agents: Agents,
        conversations: ConversationStore,
        turns: Arc<TurnStore>,
        streams: Arc<Streams>,
        settings: Settings,
        stop: Stop,
    ) -> Self {
        let engine = Self {
            inner: Arc::new(Inner {
                approvals: Arc::new(Approvals::new(&db, &agents)),
                parked: ParkedStore::new(Arc::clone(&db)),
                db,
                budgets,
                panicked: AtomicBool::new(false),
                panic_row: Mutex::new(None),
                seen_generation: AtomicU64::new(0),
                agents: Mutex::new(Arc::new(agents)),
                renamed: Mutex::default(),
                conversations,
                turns,
                streams,
                settings: Mutex::new(settings),
                threads: Threads::new(),
                stop,
                sessions: Mutex::new(HashMap::new()),
                slots: Mutex::new(Slots::default()),
                closed: Mutex::new(Vec::new()),
                retries: Mutex::new(Vec::new()),
                observer: OnceLock::new(),
                remote: OnceLock::new(),
            }),
        };
        let weak = Arc::downgrade(&engine.inner);
        engine.inner.approvals.on_decided(Box::new(move |turns| {
            if let Some(inner) = weak.upgrade() {
                Self { inner }.resume_decided(turns);
            }
        }));
        engine
    }

    /// Ends what a stop cut short and starts what was queued.
    pub fn recover(&self) -> Result<(), ChatError> {
        self.follow_panic()?;
        let mut queued: Vec<TurnRow> = Vec::new();
        for turn in self.inner.turns.open()? {
            if turn.state == "running" {
                let session = self.session(&turn.conversation_id)?;
                if let Err(error) = recovery::end_turn(&self.inner, &session, &turn) {
                    // A full disk must not keep the hub from starting: history stays readable, the end is tried again.
                    log::error!("end the interrupted turn {}: {error}; trying again", turn.id);
                    lock(&session.state).running = Some(Running::claim());
                    lock(&self.inner.retries).push(Retry::EndTurn(session, Box::new(turn)));
                }
            } else if turn.state == "parked" {
                // A full disk must not keep the hub from starting: without its event a request can still be decided.
                if let Err(error) = self.restore_parked(&self.session(&turn.conversation_id)?, &turn) {
                    log::error!("tell again what turn {} asks for: {error}", turn.id);
                }
            } else {
                queued.push(turn);
            }
        }
        self.flush_closed();
        self.keep_parked();
        for turn in queued {
            let session = self.session(&turn.conversation_id)?;
            lock(&session.state).waiting.push_back(Waiting { turn, tickets: Vec::new() });
            self.start_next(&session);
        }
        Ok(())
    }

    /// Who is told of every turn that has ended; the first call counts.
    pub fn observe(&self, observer: Observer) {
        let _ = self.inner.observer.set(observer);
    }

    /// The machines that can be talked to; the first call counts, and comes before [`Engine::recover`].
    pub fn set_remote(&self, remote: Arc<dyn RemoteAgents>) {
        let _ = self.inner.remote.set(remote);
    }

    /// The machines as agents, if the hub has a machine link.
    pub fn remote(&self) -> Option<&Arc<dyn RemoteAgents>> {
        self.inner.remote.get()
    }

    /// Requests for approval and their rules.
    pub fn approvals(&self) -> &Arc<Approvals> {
        &self.inner.approvals
    }

    /// The stored conversations.
    pub fn conversations(&self) -> &ConversationStore {
        &self.inner.conversations
    }

    /// What all streams share.
    pub fn streams(&self) -> &Arc<Streams> {
        &self.inner.streams
    }

    /// The session of that id, opened if it is not in memory. Reads from disk; whether its conversation exists is not
    /// asked.
    pub fn session(&self, session_id: &str) -> Result<Arc<Session>, StoreError> {
        if let Some(session) = lock(&self.inner.sessions).get(session_id) {
            return Ok(Arc::clone(session));
        }
        let opened = Arc::new(Session::new(Arc::new(self.inner.streams.open(session_id)?)));
        let mut sessions = lock(&self.inner.sessions);
        if sessions.len() >= limits::SESSIONS_IDLE_MAX {
            drop_idle(&mut sessions, limits::SESSION_IDLE_MIN);
        }
        // Somebody may have opened it meanwhile: the one in the map counts.
        Ok(Arc::clone(sessions.entry(session_id.into()).or_insert(opened)))
    }

    /// Accepts a message: stored when this returns, running or queued. `ticket` hears of its turn. Blocks on the disk.
    pub fn submit(&self, submit: &Submit<'_>, ticket: Option<Box<dyn Ticket>>) -> Result<Submitted, ChatError> {
        if self.inner.stop.is_set() {
            return Err(ChatError::Stopping);
        }
        if self.inner.is_panicked() {
            return Err(ChatError::Panicked);
        }
        if submit.message_id.is_some_and(|id| id.is_empty() || id.len() > limits::MESSAGE_ID_BYTES_MAX) {
            return Err(ChatError::BadMessageId);
        }
        if let Some(message_id) = submit.message_id
            && let Some(turn) = self.inner.turns.find_by_message_id(&submit.caller.identity, message_id)?
        {
            return self.join_repeat(turn, ticket);
        }
        let agent = self.resolve_agent(submit)?;
        let submit = &Submit { agent: agent.as_deref().unwrap_or(submit.agent), ..*submit };
        let made;
        let session_id = match submit.session_id {
            Some(id) => {
                check_session_id(id)?;
                id
            }
            None => {
                made = random_hex::<8>()?;
                &made
            }
        };
        let session = self.session(session_id)?;
        self.forget_former(&session)?;
        let claimed = {
            let mut state = session.settled_state();
            state.used = Instant::now();
            // Again, under the lock that a panic takes to see what runs: one of both sees the other.
            if self.inner.is_panicked() {
                return Err(ChatError::Panicked);
            }
            if state.running.is_none() && state.waiting.is_empty() && state.joining == 0 {
                if self.slots_are_full() {
                    return Err(ChatError::QueueFull);
                }
                state.running = Some(Running::claim());
                true
            } else if state.waiting.len() + state.joining >= limits::SESSION_QUEUE_MAX {
                return Err(ChatError::QueueFull);
            } else {
                state.joining += 1;
                false
            }
        };
        let result = if claimed {
            self.accept_running(submit, &session, ticket)
        } else {
            self.accept_waiting(submit, &session, ticket)
        };
        if result.is_err() {
            self.start_next(&session);
        }
        result
    }

    /// Ends the running turn of a session, if the caller may.
    pub fn cancel(&self, session_id: &str, caller: &Caller) -> Result<(), ChatError> {
        let owner = self.inner.conversations.owner(session_id)?;
        match owner {
            None => return Err(ChatError::NotRunning),
            Some(owner) if !caller.may_write(&owner) => return Err(ChatError::Denied),
            Some(_) => {}
        }
        let cancel = {
            let sessions = lock(&self.inner.sessions);
            let Some(session) = sessions.get(session_id) else {
                return Err(ChatError::NotRunning);
            };
            let state = lock(&session.state);
            state.running.as_ref().filter(|running| running.started).map(|running| {
                running.reason.set_cancelled();
                running.cancel.clone()
            })
        };
        cancel.ok_or(ChatError::NotRunning)?.cancel();
        self.end_cancelled_job(session_id);
        self.end_cancelled_parked(&self.session(session_id)?);
        Ok(())
    }

    /// Deletes a conversation with its turns, frames and whatever runs in it; false when it was unknown.
    pub fn delete(&self, session_id: &str) -> Result<bool, ChatError> {
        let session = self.session(session_id)?;
        // The rows first: when they cannot go, nothing has happened.
        let (last_planned, _) = session.stream.plan_start();
        let known = self.inner.conversations.delete(session_id, last_planned)?;
        let cancel = {
            let mut state = lock(&session.state);
            state.deleted_turn = state.running.as_ref().map(|running| running.turn_id);
            state.late.clear();
            let waiting = std::mem::take(&mut state.waiting);
            let cancel = state.running.as_ref().map(|running| {
                running.reason.set_cancelled();
                running.cancel.clone()
            });
            drop(state);
            drop(waiting); // their tickets end with them
            cancel
        };
        session.stream.end_life();
        if let Some(cancel) = cancel {
            cancel.cancel();
        }
        let (last_planned, _) = session.stream.plan_start();
        self.inner.streams.forget(session_id, last_planned);
        self.end_cancelled_parked(&session);
        Ok(known)
    }

    /// Whether turns run or wait.
    pub fn is_idle(&self) -> bool {
        let slots = lock(&self.inner.slots);
        slots.running == 0 && slots.waiting.is_empty()
    }

    /// Frames of a conversation that was deleted while the hub was not looking (the command line) are not the new
    /// one's under the same id.
    fn forget_former(&self, session: &Session) -> Result<(), ChatError> {
        let last_seq = session.stream.last_seq();
        if last_seq > 0 && self.inner.conversations.owner(session.stream.id())?.is_none() {
            self.inner.streams.forget(session.stream.id(), last_seq);
        }
        Ok(())
    }

    /// Whom a message is for, if not by its own name: a machine that the caller may ask that of.
    fn resolve_agent(&self, submit: &Submit<'_>) -> Result<Option<String>, ChatError> {
        let unknown = || ChatError::AgentNotFound { agent: submit.agent.to_owned() };
        if !submit.agent.starts_with(MACHINE_PREFIX) {
            let known = submit.work.operation == Operation::Chat && self.inner.agents().find(submit.agent).is_some();
            return if known { Ok(None) } else { Err(unknown()) };
        }
        let remote = self.inner.remote.get().ok_or_else(unknown)?;
        let agent = remote.resolve(submit.agent).ok_or_else(unknown)?;
        // Who may not see it is not told that it exists.
        if !remote.allows(submit.caller, &agent, Operation::View) {
            return Err(unknown());
        }
        if !remote.allows(submit.caller, &agent, submit.work.operation) {
            return Err(ChatError::NotAllowed { agent, operation: submit.work.operation.name() });
        }
        Ok(Some(agent))
    }

    fn slots_are_full(&self) -> bool {
        lock(&self.inner.slots).waiting.len() >= limits::TURNS_WAITING_MAX
    }
}

/// At most 256 bytes, no control characters (contract engine 1.3).
pub fn check_session_id(id: &str) -> Result<(), ChatError> {
    if id.is_empty() || id.len() > limits::SESSION_ID_BYTES_MAX || id.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return Err(ChatError::BadSessionId);
    }
    Ok(())
}
