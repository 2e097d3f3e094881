//! Remote sessions: which run, what they may take, and how they end (contract agent-link 4). Each has a thread of its
//! own, `session-N`, that ends with it; see `session`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use serde_json::{Value, json};

use super::record::{AuditFile, Who};
use super::runner::{ChatRunner, ConcurrencyLimiter, CountedLimiter, DiagnoseRunner};
use super::session::{Job, Kind};
use super::stream::Waker;
use super::{LinkError, Timers};
use crate::fleet::wire::{Ack, Message, SessionInput, SessionStart};
use crate::limits;
use crate::rt::{Cancel, Slot, Threads, lock};

/// Runs that use a model at once, turns of chats included.
const JOBS_MAX: usize = 2;
/// Open chats: each is a thread that mostly waits.
const CHATS_MAX: usize = 8;
/// Messages of a chat that wait for its turn; beyond it `input queue full` (Reject).
const INPUTS_MAX: usize = 8;
/// Refused starts written to the audit file in a minute: a flood must not wash the rest out of it.
const REFUSALS_PER_MINUTE: u32 = 30;

/// Why a session is to end. The first reason counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Cause {
    None = 0,
    /// The hub cancelled it, or this agent stops.
    Cancelled,
    /// It took too long.
    Timeout,
    /// Its connection is gone: nobody is left to tell.
    Lost,
    /// The audit file cannot be written.
    Audit,
}

/// A session's end, shared between whoever wants it and its thread.
#[derive(Clone, Default)]
pub(super) struct End {
    pub(super) cancel: Cancel,
    cause: Arc<AtomicU8>,
}

impl End {
    pub(super) fn because(&self, cause: Cause) {
        let first = self.cause.compare_exchange(0, cause as u8, Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            self.cancel.cancel();
        }
    }

    pub(super) fn cause(&self) -> Cause {
        let known = [Cause::Cancelled, Cause::Timeout, Cause::Lost, Cause::Audit];
        let cause = self.cause.load(Ordering::Acquire);
        known.into_iter().find(|known| *known as u8 == cause).unwrap_or(Cause::None)
    }
}

/// The way of a session's messages to the hub: the queue of its connection.
#[derive(Clone)]
pub(super) struct Out {
    pub(super) tx: Sender<Vec<u8>>,
    pub(super) waker: Arc<Waker>,
}

impl Out {
    /// Queues a message; blocks while the queue is full. False when the connection is gone.
    pub(super) fn send(&self, message: &Message) -> bool {
        let sent = self.tx.send(message.encode()).is_ok();
        self.waker.wake();
        sent
    }
}

/// All sessions of this agent.
pub(super) struct Sessions {
    pub(super) shared: Arc<Shared>,
    threads: Threads,
}

pub(super) struct Shared {
    pub(super) audit: AuditFile,
    pub(super) timers: Timers,
    // Guarded by their mutexes: what was plugged in. Cloned out before use.
    chat_runner: Mutex<Option<Arc<dyn ChatRunner>>>,
    diagnose_runner: Mutex<Option<Arc<dyn DiagnoseRunner>>>,
    limiter: Mutex<Arc<dyn ConcurrencyLimiter>>,
    chats: Arc<AtomicUsize>,
    /// Guarded by the mutex: the sessions by id. Nothing is taken under it.
    open: Mutex<Open>,
    /// Guarded by the mutex: how often a place came free. Turns that wait for one sleep on `freed`.
    releases: Mutex<u64>,
    freed: Condvar,
    /// Guarded by the mutex: the minute of the moment, and the refusals recorded in it.
    refusals: Mutex<Option<(Instant, u32)>>,
}

#[derive(Default)]
struct Open {
    last_number: u64,
    by_id: HashMap<String, Entry>,
}

struct Entry {
    /// Tells a session from a later one under the same id.
    number: u64,
    end: End,
    /// Only chats take messages.
    input_tx: Option<Sender<String>>,
    deadline: Option<Instant>,
}

/// A place of the limiter, given back when dropped.
pub(super) struct Place {
    limiter: Arc<dyn ConcurrencyLimiter>,
    shared: Arc<Shared>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limiter.release_sem();
        *lock(&self.shared.releases) += 1;
        self.shared.freed.notify_all();
    }
}

impl Shared {
    /// A place, if one is free.
    pub(super) fn try_place(self: &Arc<Self>) -> Option<Place> {
        let limiter = Arc::clone(&lock(&self.limiter));
        limiter.try_sem().then(|| Place { limiter, shared: Arc::clone(self) })
    }

    /// Waits for a place; None when cancelled meanwhile.
    pub(super) fn wait_for_place(self: &Arc<Self>, cancel: &Cancel) -> Option<Place> {
        loop {
            if cancel.is_set() {
                return None;
            }
            let seen = *lock(&self.releases);
            if let Some(place) = self.try_place() {
                return Some(place);
            }
            let releases = lock(&self.releases);
            if *releases == seen {
                // Others may hold the limiter's places and say nothing when they give one back.
                drop(self.freed.wait_timeout(releases, Duration::from_secs(1)));
            }
        }
    }

    /// The session is over: its id counts no more.
    pub(super) fn forget(&self, id: &str, number: u64) {
        let mut open = lock(&self.open);
        if open.by_id.get(id).is_some_and(|entry| entry.number == number) {
            open.by_id.remove(id);
        }
    }
}

impl Sessions {
    pub(super) fn new(audit: AuditFile, timers: Timers) -> Self {
        let shared = Shared {
            audit,
            timers,
            chat_runner: Mutex::default(),
            diagnose_runner: Mutex::default(),
            limiter: Mutex::new(Arc::new(CountedLimiter::new(JOBS_MAX))),
            chats: Arc::default(),
            open: Mutex::default(),
            releases: Mutex::default(),
            freed: Condvar::new(),
            refusals: Mutex::default(),
        };
        Self { shared: Arc::new(shared), threads: Threads::new() }
    }

    pub(super) fn set_chat_runner(&self, runner: Arc<dyn ChatRunner>) {
        *lock(&self.shared.chat_runner) = Some(runner);
    }

    pub(super) fn set_diagnose_runner(&self, runner: Arc<dyn DiagnoseRunner>) {
        *lock(&self.shared.diagnose_runner) = Some(runner);
    }

    pub(super) fn set_limiter(&self, limiter: Arc<dyn ConcurrencyLimiter>) {
        *lock(&self.shared.limiter) = limiter;
    }

    /// Sessions that are open now.
    pub(super) fn active(&self) -> usize {
        lock(&self.shared.open).by_id.len()
    }

    /// Begins a session whose thread sends the `ack`, or says why not: the text of that `ack` (contract agent-link
    /// 2.9, in its order). Never waits.
    pub(super) fn start(&self, message_id: &str, start: SessionStart, who: Who, out: Out) -> Result<(), String> {
        let kind = match start.session_type.as_str() {
            "chat" => {
                let runner = lock(&self.shared.chat_runner).clone();
                Kind::Chat(runner.ok_or("chat engine not available")?)
            }
            other => {
                let runner = lock(&self.shared.diagnose_runner).clone().ok_or("diagnose engine not available")?;
                match other {
                    "inspect" => Kind::Inspect(runner),
                    "diagnose" => Kind::Diagnose(runner),
                    _ => Kind::Unknown,
                }
            }
        };
        let full = "max concurrent sessions reached";
        let is_chat = matches!(kind, Kind::Chat(_));
        let chat = if is_chat { Some(Slot::take(&self.shared.chats, CHATS_MAX).ok_or(full)?) } else { None };
        let place = if is_chat { None } else { Some(self.shared.try_place().ok_or(full)?) };
        let (input_tx, input_rx): (Option<Sender<String>>, Option<Receiver<String>>) = if is_chat {
            let (tx, rx) = bounded(INPUTS_MAX);
            (Some(tx), Some(rx))
        } else {
            (None, None)
        };
        let end = End::default();
        let number = {
            let mut open = lock(&self.shared.open);
            if open.by_id.contains_key(&start.session_id) {
                return Err("duplicate session_id".to_owned());
            }
            open.last_number += 1;
            let number = open.last_number;
            let deadline = (!is_chat).then(|| Instant::now() + self.shared.timers.job);
            open.by_id.insert(start.session_id.clone(), Entry { number, end: end.clone(), input_tx, deadline });
            number
        };
        let id = start.session_id.clone();
        let job = Job {
            shared: Arc::clone(&self.shared),
            number,
            message_id: message_id.to_owned(),
            start,
            kind,
            who,
            out,
            end,
            input_rx,
            place,
            chat_slot: chat,
        };
        let spawned = self.threads.spawn(&format!("session-{number}"), limits::WORKER_STACK_BYTES, move || job.run());
        spawned.map_err(|error| {
            log::error!("start a session: {error}");
            self.shared.forget(&id, number);
            "this machine has no thread to give; try again".to_owned()
        })
    }

    /// Hands a message to a chat; the error is the text of an `ack` (contract agent-link 2.10).
    pub(super) fn input(&self, input: SessionInput) -> Result<(), &'static str> {
        let input_tx = {
            let open = lock(&self.shared.open);
            let entry = open.by_id.get(&input.session_id).ok_or("no such session")?;
            entry.input_tx.clone().ok_or("not a chat session")?
        };
        if input.message.is_empty() {
            return Err("empty message");
        }
        match input_tx.try_send(input.message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err("input queue full"),
            Err(TrySendError::Disconnected(_)) => Err("no such session"),
        }
    }

    /// Ends a session. Its id is free at once, its place when the work has really stopped.
    pub(super) fn cancel(&self, id: &str) -> Result<(), &'static str> {
        let entry = lock(&self.shared.open).by_id.remove(id).ok_or("no such session")?;
        entry.end.because(Cause::Cancelled);
        self.shared.freed.notify_all();
        Ok(())
    }

    /// Ends all of them.
    pub(super) fn end_all(&self, cause: Cause) {
        let entries: Vec<Entry> = lock(&self.shared.open).by_id.drain().map(|(_, entry)| entry).collect();
        for entry in entries {
            entry.end.because(cause);
        }
        self.shared.freed.notify_all();
    }

    /// Ends those that took too long; when the next one will have.
    pub(super) fn expire(&self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut late = Vec::new();
        for entry in lock(&self.shared.open).by_id.values_mut() {
            match entry.deadline {
                Some(deadline) if deadline <= now => {
                    entry.deadline = None;
                    late.push(entry.end.clone());
                }
                Some(deadline) => next = Some(next.map_or(deadline, |next| next.min(deadline))),
                None => {}
            }
        }
        for end in late {
            end.because(Cause::Timeout);
        }
        next
    }

    /// Whether some work has not really stopped.
    pub(super) fn is_busy(&self) -> bool {
        !self.threads.is_empty()
    }

    /// Waits for the threads; says who is late.
    pub(super) fn join(&self, timeout: Duration) {
        let late = self.threads.join_all(timeout);
        if !late.is_empty() {
            log::warn!("still running: {}", late.join(", "));
        }
    }

    /// Records a start that was refused before it became a session.
    pub(super) fn record_refusal(&self, who: &Who, reason: &str) {
        {
            let mut refusals = lock(&self.shared.refusals);
            let now = Instant::now();
            let (since, count) = (*refusals)
                .filter(|(since, _)| now.duration_since(*since) < Duration::from_secs(60))
                .unwrap_or((now, 0));
            *refusals = Some((since, count + 1));
            if count >= REFUSALS_PER_MINUTE {
                return;
            }
        }
        log::warn!("session {:?} of {:?} was refused: {reason}", who.session, who.user);
        if let Err(error) = self.shared.audit.write(who, "refused", &[("error", json!(reason))]) {
            log::error!("audit file: {error}");
        }
    }
}

/// Opens the audit file.
pub(super) fn open_audit(path: &std::path::Path) -> Result<AuditFile, LinkError> {
    AuditFile::open(path)
        .map_err(|error| LinkError::State { path: path.display().to_string(), cause: error.to_string() })
}

/// An `ack` to that message: fine, or why not.
pub(super) fn ack(ref_id: &str, result: Result<(), &str>) -> Message {
    let error = result.err().unwrap_or_default().to_owned();
    let payload = Ack { ok: error.is_empty(), error, ..Ack::default() };
    let mut message = Message::new("ack", super::message_id(), &payload);
    ref_id.clone_into(&mut message.ref_id);
    message
}

/// Top-level nulls of a payload are as if absent, as at the reference.
pub(super) fn without_nulls(message: &mut Message) {
    if let Some(Value::Object(payload)) = &mut message.payload {
        payload.retain(|_, value| !value.is_null());
    }
}
