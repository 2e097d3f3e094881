//! The engine: accepts messages, runs one turn per session at a time, queues the rest, survives restarts.
//!
//! A message is a row before it is anything else. Its session is claimed in memory first, so that two messages cannot
//! both start; rows are written without a lock; then a `turn-<n>` thread runs it, or it waits for a free slot.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use crate::agents::Agents;
use crate::chat::access::Caller;
use crate::chat::event::ChatEvent;
use crate::chat::session::{EndReason, Running, SessionState, Waiting};
use crate::chat::stream::Streams;
use crate::chat::turn::{TurnRun, interrupted};
use crate::chat::{ChatError, interrupted as recovery};
use crate::limits;
use crate::rt::{Cancel, Stop, Threads, json, lock};
use crate::store::turns::{Accepted, Closed, NewTurn, Reservation, TurnRow};
use crate::store::{ConversationStore, StoreError, TurnStore, random_hex};

pub use crate::chat::session::{Outcome, Session, Ticket};

/// What the engine may be told to do differently.
#[derive(Clone, Debug)]
pub struct Settings {
    pub turns_max: usize,
    pub context_messages_max: usize,
    pub tool_rounds_max: u32,
}

/// A message that somebody sends.
pub struct Submit<'a> {
    /// None begins a conversation.
    pub session_id: Option<&'a str>,
    pub agent: &'a str,
    pub text: &'a str,
    pub user_name: &'a str,
    pub message_id: Option<&'a str>,
    /// `ws` or `api`.
    pub origin: &'a str,
    pub caller: &'a Caller,
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
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    // Set at construction.
    pub(super) agents: Agents,
    pub(super) conversations: ConversationStore,
    pub(super) turns: Arc<TurnStore>,
    pub(super) streams: Arc<Streams>,
    pub(super) settings: Settings,
    threads: Threads,
    stop: Stop,
    /// Guarded by this mutex: sessions in memory. A session's own mutex may be taken under it.
    sessions: Mutex<HashMap<Arc<str>, Arc<Session>>>,
    /// Guarded by this mutex: how many turns run, and which sessions wait for a slot. Nothing is taken under it.
    slots: Mutex<Slots>,
    /// Guarded by this mutex: ends that are in the log but not yet in the rows. Nothing is taken under it.
    closed: Mutex<Vec<Closed>>,
    /// Told of every turn that has ended; set once.
    observer: OnceLock<Observer>,
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

#[derive(Default)]
struct Slots {
    running: usize,
    started: u64,
    waiting: VecDeque<Job>,
}

/// A claimed session with a turn whose row says `running`.
struct Job {
    session: Arc<Session>,
    turn: TurnRow,
    cancel: Cancel,
    reason: EndReason,
}

impl Engine {
    /// An engine over open stores. [`Engine::recover`] comes before the first message.
    pub fn new(
        agents: Agents,
        conversations: ConversationStore,
        turns: Arc<TurnStore>,
        streams: Arc<Streams>,
        settings: Settings,
        stop: Stop,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                agents,
                conversations,
                turns,
                streams,
                settings,
                threads: Threads::new(),
                stop,
                sessions: Mutex::new(HashMap::new()),
                slots: Mutex::new(Slots::default()),
                closed: Mutex::new(Vec::new()),
                observer: OnceLock::new(),
            }),
        }
    }

    /// Ends what a stop cut short and starts what was queued.
    pub fn recover(&self) -> Result<(), ChatError> {
        let mut queued: Vec<TurnRow> = Vec::new();
        for turn in self.inner.turns.open()? {
            if turn.state == "running" {
                let session = self.session(&turn.conversation_id)?;
                recovery::end_turn(&self.inner, &session, &turn)?;
            } else {
                queued.push(turn);
            }
        }
        self.flush_closed();
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

    /// All agents.
    pub fn agents(&self) -> &Agents {
        &self.inner.agents
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
            drop_idle(&mut sessions, Duration::ZERO);
        }
        // Somebody may have opened it meanwhile: the one in the map counts.
        Ok(Arc::clone(sessions.entry(session_id.into()).or_insert(opened)))
    }

    /// Accepts a message: stored when this returns, running or queued. `ticket` hears of its turn. Blocks on the disk.
    pub fn submit(&self, submit: &Submit<'_>, ticket: Option<Box<dyn Ticket>>) -> Result<Submitted, ChatError> {
        if self.inner.stop.is_set() {
            return Err(ChatError::Stopping);
        }
        if submit.message_id.is_some_and(|id| id.is_empty() || id.len() > limits::MESSAGE_ID_BYTES_MAX) {
            return Err(ChatError::BadMessageId);
        }
        if let Some(message_id) = submit.message_id
            && let Some(turn) = self.inner.turns.find_by_message_id(&submit.caller.identity, message_id)?
        {
            return self.join_repeat(turn, ticket);
        }
        if self.inner.agents.find(submit.agent).is_none() {
            return Err(ChatError::AgentNotFound { agent: submit.agent.to_owned() });
        }
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
        let claimed = {
            let mut state = lock(&session.state);
            state.used = Instant::now();
            state.deleted = false;
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
        Ok(())
    }

    /// Deletes a conversation with its turns, frames and whatever runs in it; false when it was unknown.
    pub fn delete(&self, session_id: &str) -> Result<bool, ChatError> {
        let session = self.session(session_id)?;
        let cancel = {
            let mut state = lock(&session.state);
            state.deleted = true;
            state.waiting.clear();
            state.running.as_ref().map(|running| {
                running.reason.set_cancelled();
                running.cancel.clone()
            })
        };
        if let Some(cancel) = cancel {
            cancel.cancel();
        }
        let (last_planned, _) = session.stream.plan_start();
        let known = self.inner.conversations.delete(session_id, last_planned)?;
        self.inner.streams.forget(session_id);
        Ok(known)
    }

    /// Whether turns run or wait.
    pub fn is_idle(&self) -> bool {
        let slots = lock(&self.inner.slots);
        slots.running == 0 && slots.waiting.is_empty()
    }

    /// The keeper's part: writes noted ends, lets go of idle sessions and rings.
    pub fn keep(&self) {
        self.flush_closed();
        self.inner.streams.replay.cleanup();
        drop_idle(&mut lock(&self.inner.sessions), Duration::from_secs(300));
    }

    /// Cuts the running turns short (recorded as `interrupted`) and waits for their threads; the names of late ones.
    pub fn stop(&self, timeout: Duration) -> Vec<String> {
        let sessions: Vec<Arc<Session>> = lock(&self.inner.sessions).values().cloned().collect();
        for session in sessions {
            let cancel = lock(&session.state).running.as_ref().map(|running| {
                running.reason.set_stopping();
                running.cancel.clone()
            });
            if let Some(cancel) = cancel {
                cancel.cancel();
            }
        }
        let late = self.inner.threads.join_all(timeout);
        self.flush_closed();
        late
    }

    /// Writes ends that are in the log into the rows.
    pub fn flush_closed(&self) {
        let closed = std::mem::take(&mut *lock(&self.inner.closed));
        if closed.is_empty() {
            return;
        }
        if let Err(error) = self.inner.turns.close(&closed) {
            log::error!("record the end of {} turns: {error}", closed.len());
            lock(&self.inner.closed).extend(closed);
        }
    }

    fn slots_are_full(&self) -> bool {
        lock(&self.inner.slots).waiting.len() >= limits::TURNS_WAITING_MAX
    }

    fn accept_running(
        &self,
        submit: &Submit<'_>,
        session: &Arc<Session>,
        ticket: Option<Box<dyn Ticket>>,
    ) -> Result<Submitted, ChatError> {
        let (after_seq, until) = session.stream.plan_start();
        let reservation = Reservation { until, boot_id: &self.inner.streams.boot_id };
        let accepted = self.inner.turns.accept(
            &new_turn(submit, session),
            &|owner| submit.caller.may_write(owner),
            Some((after_seq, &reservation)),
        );
        let turn_id = match accepted {
            Ok(Accepted::New { turn_id }) => turn_id,
            other => {
                lock(&session.state).running = None;
                return self.not_new(other, ticket);
            }
        };
        session.stream.set_reserved(until);
        let turn = self.inner.turns.get(turn_id)?.ok_or(StoreError::NotFound);
        let turn = match turn {
            Ok(turn) => turn,
            Err(error) => {
                lock(&session.state).running = None;
                return Err(error.into());
            }
        };
        self.begin(session, turn, after_seq, ticket.into_iter().collect());
        Ok(Submitted { session: Arc::clone(session), after_seq, position: None, repeat: false })
    }

    fn accept_waiting(
        &self,
        submit: &Submit<'_>,
        session: &Arc<Session>,
        ticket: Option<Box<dyn Ticket>>,
    ) -> Result<Submitted, ChatError> {
        let accepted = self.inner.turns.accept(&new_turn(submit, session), &|owner| submit.caller.may_write(owner), None);
        let turn = match accepted {
            Ok(Accepted::New { turn_id }) => self.inner.turns.get(turn_id).and_then(|turn| turn.ok_or(StoreError::NotFound)),
            other => {
                lock(&session.state).joining -= 1;
                return self.not_new(other, ticket);
            }
        };
        let position = {
            let mut state = lock(&session.state);
            state.joining -= 1;
            let turn = turn?;
            // Rows and places in the queue are in the same order, whoever gets the lock first.
            let place = state.waiting.iter().position(|other| other.turn.id > turn.id).unwrap_or(state.waiting.len());
            state.waiting.insert(place, Waiting { turn, tickets: ticket.into_iter().collect() });
            place + 1
        };
        let after_seq = session.stream.last_seq();
        self.start_next(session); // the turn before may have ended meanwhile
        Ok(Submitted { session: Arc::clone(session), after_seq, position: Some(position), repeat: false })
    }

    fn not_new(
        &self,
        accepted: Result<Accepted, StoreError>,
        ticket: Option<Box<dyn Ticket>>,
    ) -> Result<Submitted, ChatError> {
        match accepted? {
            Accepted::Repeat(turn) => self.join_repeat(*turn, ticket),
            Accepted::Denied => Err(ChatError::Denied),
            Accepted::New { .. } => Err(ChatError::Store(StoreError::NotFound)),
        }
    }

    /// A message that was accepted before: whoever repeats it hears of the same turn.
    fn join_repeat(&self, turn: TurnRow, ticket: Option<Box<dyn Ticket>>) -> Result<Submitted, ChatError> {
        let session = self.session(&turn.conversation_id)?;
        let after_seq = turn.after_seq.unwrap_or_else(|| session.stream.last_seq());
        let mut submitted = Submitted { session: Arc::clone(&session), after_seq, position: None, repeat: true };
        let Some(mut ticket) = ticket else {
            return Ok(submitted);
        };
        let mut state = lock(&session.state);
        if let Some(running) = state.running.as_mut().filter(|running| running.turn_id == turn.id) {
            if running.started {
                ticket.started(running.after_seq);
            }
            running.tickets.push(ticket);
        } else if let Some(place) = state.waiting.iter().position(|waiting| waiting.turn.id == turn.id) {
            state.waiting[place].tickets.push(ticket);
            submitted.position = Some(place + 1);
        } else {
            drop(state);
            let text = match turn.assistant_message {
                Some(message) => self.inner.turns.message_text(message)?.unwrap_or_default(),
                None => String::new(),
            };
            let failed = turn.state == "failed";
            let error = failed.then(|| ("internal", "the turn of this message has failed before".to_owned()));
            ticket.started(after_seq);
            ticket.ended(&Outcome { error, text });
        }
        Ok(submitted)
    }

    /// The claimed session gets its turn: a thread, or a place among those that wait for a slot.
    fn begin(&self, session: &Arc<Session>, turn: TurnRow, after_seq: u64, mut tickets: Vec<Box<dyn Ticket>>) {
        for ticket in &mut tickets {
            ticket.started(after_seq);
        }
        let job = {
            let mut state = lock(&session.state);
            let running = state.running.get_or_insert_with(Running::claim);
            running.turn_id = turn.id;
            running.after_seq = after_seq;
            running.started = true;
            running.tickets.append(&mut tickets);
            Job {
                session: Arc::clone(session),
                turn,
                cancel: running.cancel.clone(),
                reason: running.reason.clone(),
            }
        };
        self.run_job(job);
    }

    fn run_job(&self, job: Job) {
        let (job, number) = {
            let mut slots = lock(&self.inner.slots);
            if slots.running >= self.inner.settings.turns_max {
                slots.waiting.push_back(job);
                return;
            }
            slots.running += 1;
            slots.started += 1;
            (Arc::new(Mutex::new(Some(job))), slots.started)
        };
        let engine = self.clone();
        let handed = Arc::clone(&job);
        let spawned = self.inner.threads.spawn(&format!("turn-{number}"), limits::WORKER_STACK_BYTES, move || {
            let mut next = lock(&handed).take();
            while let Some(job) = next {
                engine.run_turn(job);
                next = engine.next_job();
            }
        });
        if let Err(error) = spawned {
            // The system has no thread to give: the message fails, truthfully, and its slot is free again.
            log::error!("start a turn: {error}");
            lock(&self.inner.slots).running -= 1;
            if let Some(job) = lock(&job).take() {
                let message = "the hub has no thread for this turn; try again".to_owned();
                self.finish(&job, Outcome { error: Some(("internal", message)), text: String::new() });
            }
        }
    }

    /// Another job for the thread of a turn that ended; None gives its slot back.
    fn next_job(&self) -> Option<Job> {
        let mut slots = lock(&self.inner.slots);
        let next = if self.inner.stop.is_set() { None } else { slots.waiting.pop_front() };
        if next.is_none() {
            slots.running -= 1;
        }
        next
    }

    fn run_turn(&self, job: Job) {
        let run = TurnRun {
            inner: &self.inner,
            stream: &job.session.stream,
            turn: &job.turn,
            cancel: &job.cancel,
            reason: &job.reason,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| run.run())).unwrap_or_else(|_| {
            log::error!("turn {} of session {} panicked", job.turn.id, job.turn.conversation_id);
            Outcome { error: Some(("internal", "failed to process message".to_owned())), text: String::new() }
        });
        self.finish(&job, outcome);
    }

    /// Logs the terminal frame, tells whoever waits, and starts what is queued.
    fn finish(&self, job: &Job, outcome: Outcome) {
        let event = match &outcome.error {
            None => ChatEvent::Done,
            Some((code, message)) => ChatEvent::Error { code, message: message.clone() },
        };
        let settled = self.log_terminal(job, &event, &outcome);
        if settled {
            let code = outcome.error.as_ref().map_or("", |(code, _)| code);
            lock(&self.inner.closed).push(Closed {
                turn_id: job.turn.id,
                conversation_id: job.turn.conversation_id.clone(),
                outcome: code.to_owned(),
                last_seq: job.session.stream.last_seq(),
            });
        }
        let (tickets, deleted) = {
            let mut state = lock(&job.session.state);
            state.used = Instant::now();
            (state.running.take().map(|running| running.tickets).unwrap_or_default(), state.deleted)
        };
        for mut ticket in tickets {
            ticket.ended(&outcome);
        }
        if deleted {
            self.inner.streams.forget(&job.turn.conversation_id);
        } else if let Some(observer) = self.inner.observer.get() {
            observer(&Finished {
                conversation_id: job.turn.conversation_id.clone(),
                agent: job.turn.agent.clone(),
                origin: job.turn.origin.clone(),
            });
        }
        self.start_next(&job.session);
    }

    /// The terminal frame must be in the log. While that fails (disk full) watchers are told once by a frame outside
    /// the log, and the session stays busy until it can be written; false when the hub stops before.
    fn log_terminal(&self, job: &Job, event: &ChatEvent, outcome: &Outcome) -> bool {
        let stream = &job.session.stream;
        let mut told = false;
        loop {
            if let Ok(seq) = stream.emit(event) {
                stream.announce();
                if stream.wait_committed(seq, limits::STOP_TOTAL) {
                    return true;
                }
            }
            if !told {
                told = true;
                let message = "the hub cannot write its event log, probably because its disk is full; this turn has failed";
                stream.notice(&json::to_vec(&serde_json::json!({
                    "type": "error", "code": "storage_full", "session_id": stream.id(), "message": message,
                })));
                let failed = Outcome { error: Some(("storage_full", message.to_owned())), text: outcome.text.clone() };
                let tickets = lock(&job.session.state).running.as_mut().map(|r| std::mem::take(&mut r.tickets));
                for mut ticket in tickets.unwrap_or_default() {
                    ticket.ended(&failed);
                }
            }
            if self.inner.stop.wait(Duration::from_secs(1)) {
                return false;
            }
            stream.clear_failure();
        }
    }

    /// Starts the oldest waiting message of an idle session.
    fn start_next(&self, session: &Arc<Session>) {
        loop {
            if self.inner.stop.is_set() {
                return;
            }
            let waiting = {
                let mut state = lock(&session.state);
                if state.running.is_some() {
                    return;
                }
                let Some(waiting) = state.waiting.pop_front() else {
                    return;
                };
                state.running = Some(Running::claim());
                waiting
            };
            let Waiting { mut turn, tickets } = waiting;
            let (after_seq, until) = session.stream.plan_start();
            let reservation = Reservation { until, boot_id: &self.inner.streams.boot_id };
            match self.inner.turns.start(&turn, after_seq, &reservation) {
                Ok(message) => {
                    session.stream.set_reserved(until);
                    turn.user_message = Some(message);
                    turn.after_seq = Some(after_seq);
                    self.begin(session, turn, after_seq, tickets);
                    return;
                }
                Err(error) => {
                    log::error!("start the queued turn {}: {error}", turn.id);
                    lock(&session.state).running = None;
                    let outcome = Outcome { error: Some(("internal", format!("{}", ChatError::Store(error)))), text: String::new() };
                    for mut ticket in tickets {
                        ticket.ended(&outcome);
                    }
                }
            }
        }
    }
}

impl Inner {
    /// Notes a turn that recovery has ended.
    pub(super) fn note_interrupted(&self, turn: &TurnRow, last_seq: u64) {
        lock(&self.closed).push(Closed {
            turn_id: turn.id,
            conversation_id: turn.conversation_id.clone(),
            outcome: interrupted().0.to_owned(),
            last_seq,
        });
    }

    /// Notes a turn whose success was already in the log.
    pub(super) fn note_done(&self, turn: &TurnRow, last_seq: u64) {
        let closed = Closed { turn_id: turn.id, conversation_id: turn.conversation_id.clone(), outcome: String::new(), last_seq };
        lock(&self.closed).push(closed);
    }
}

/// At most 256 bytes, no control characters (contract engine 1.3).
pub fn check_session_id(id: &str) -> Result<(), ChatError> {
    if id.is_empty() || id.len() > limits::SESSION_ID_BYTES_MAX || id.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return Err(ChatError::BadSessionId);
    }
    Ok(())
}

fn new_turn<'a>(submit: &Submit<'a>, session: &'a Session) -> NewTurn<'a> {
    NewTurn {
        conversation_id: session.stream.id(),
        origin: submit.origin,
        agent: submit.agent,
        identity: &submit.caller.identity,
        message_id: submit.message_id,
        user_name: submit.user_name,
        text: submit.text,
    }
}

fn drop_idle(sessions: &mut MutexGuard<'_, HashMap<Arc<str>, Arc<Session>>>, idle: Duration) {
    sessions.retain(|_, session| {
        let state = lock(&session.state);
        let SessionState { running, waiting, joining, used, .. } = &*state;
        running.is_some() || !waiting.is_empty() || *joining > 0 || used.elapsed() < idle
            // Somebody else holds it: a connection that follows it, or a call in progress.
            || Arc::strong_count(session) > 1 || Arc::strong_count(&session.stream) > 1
    });
}
