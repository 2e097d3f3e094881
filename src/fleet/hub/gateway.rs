//! The hub as a gateway to models: machines diagnose and chat without a key of their own (contract agent-link 5).
//!
//! Threads: `gateway-N` (one per call, bounded; ends with its call), `gateway-watch` (1; ends calls that are over their
//! time or whose machine has gone; asleep while there are none; ends at the stop).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::gateway_wire::{Answer, Ask};
use crate::costs::{Budgets, Spender};
use crate::limits;
use crate::llm::{self, Completion, LlmError, Meter, MeteredCall, Request, Router, Sink};
use crate::rt::{Cancel, Slot, Stop, Threads, clock, lock};

/// How often it is looked whether machines are still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const MINUTE: Duration = Duration::from_secs(60);
/// Machines that are counted; more than may be connected.
const MACHINES_MAX: usize = 4096;

/// The ways to models.
#[derive(Clone)]
pub struct Routers {
    /// For calls that no other router is for.
    pub router: Arc<Router>,
    /// For the scene `chat`, and for `diagnose`.
    pub chat: Option<Arc<Router>>,
    pub diagnose: Option<Arc<Router>>,
}

/// What the gateway is made of.
pub struct Setup {
    pub routers: Routers,
    pub budgets: Arc<Budgets>,
    /// Of one machine; 0 is no limit.
    pub tokens_per_day: u64,
}

/// See the head of this file.
pub struct Gateway {
    // Set at construction.
    budgets: Arc<Budgets>,
    tokens_per_day: u64,
    threads: Threads,
    bell_tx: Sender<()>,
    // Atomics.
    open: Arc<AtomicUsize>,
    next_id: AtomicU64,
    /// Calls are no turns, but are counted like such: numbers below zero, never the same twice.
    next_turn: AtomicI64,
    /// Guarded by this mutex: who answers from the next call on. Nothing is taken under it.
    routers: Mutex<Routers>,
    /// Guarded by this mutex: what each machine does. Nothing is taken under it.
    machines: Mutex<HashMap<String, Counts>>,
    /// Guarded by this mutex: calls that are being made. Nothing is taken under it.
    running: Mutex<HashMap<u64, Running>>,
}

/// What one machine did lately.
#[derive(Default)]
struct Counts {
    running: usize,
    /// When its calls of the last minute began.
    begun: VecDeque<Instant>,
    /// The day that `tokens` were used on.
    day: String,
    tokens: u64,
}

/// A call that is being made.
struct Running {
    cancel: Cancel,
    deadline: Instant,
    is_gone: Option<Box<dyn Fn() -> bool + Send>>,
    ended: Arc<Mutex<Option<End>>>,
}

/// Why a call was ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Late,
    Gone,
    Stopping,
}

/// Why a machine may not call now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Too many at once; of this machine, or of all.
    Machine,
    All,
    Minute {
        seconds: u64,
    },
    Day,
}

/// A place for one call; given back when dropped.
pub struct Permit {
    gateway: Arc<Gateway>,
    machine: String,
    begun: Instant,
    _slot: Slot,
    /// The body in the count of all that are held.
    _held: Option<Slot>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(counts) = lock(&self.gateway.machines).get_mut(&self.machine) {
            counts.running = counts.running.saturating_sub(1);
        }
    }
}

impl Gateway {
    /// Starts the thread that watches over calls.
    pub fn start(setup: Setup, stop: Stop) -> io::Result<Arc<Self>> {
        let (bell_tx, bell_rx) = bounded(1);
        let gateway = Arc::new(Self {
            budgets: setup.budgets,
            tokens_per_day: setup.tokens_per_day,
            routers: Mutex::new(setup.routers),
            threads: Threads::new(),
            bell_tx,
            open: Arc::default(),
            next_id: AtomicU64::new(1),
            next_turn: AtomicI64::new(-clock::unix_ms()),
            machines: Mutex::default(),
            running: Mutex::default(),
        });
        let watching = Arc::clone(&gateway);
        gateway.threads.spawn("gateway-watch", limits::PUMP_STACK_BYTES, move || watching.watch(&bell_rx, &stop))?;
        Ok(gateway)
    }

    /// Other ways to models, from the next call on.
    pub fn set_routers(&self, routers: Routers) {
        *lock(&self.routers) = routers;
    }

    /// Waits for all threads after the stop; the names of those that are late.
    pub fn join(&self, timeout: Duration) -> Vec<String> {
        self.threads.join_all(timeout)
    }

    /// A place for a call of that machine. `held` is its body in a count of bytes. May read the database, once a day
    /// for each machine.
    pub fn enter(self: &Arc<Self>, machine: &str, held: Option<Slot>) -> Result<Permit, Full> {
        let today = self.budgets.today();
        let known = lock(&self.machines).get(machine).is_some_and(|counts| counts.day == today);
        // Read without the lock: others call meanwhile.
        let used = if known { 0 } else { self.budgets.tokens_today(&identity(machine), &today) };
        let slot = Slot::take(&self.open, limits::GATEWAY_CALLS_MAX).ok_or(Full::All)?;
        let now = Instant::now();
        let mut machines = lock(&self.machines);
        if machines.len() >= MACHINES_MAX && !machines.contains_key(machine) {
            machines.retain(|_, counts| counts.running > 0);
        }
        let counts = machines.entry(machine.to_owned()).or_default();
        if counts.day != today {
            counts.day = today;
            counts.tokens = used;
        }
        while counts.begun.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
            counts.begun.pop_front();
        }
        if counts.running >= limits::GATEWAY_MACHINE_CALLS_MAX {
            return Err(Full::Machine);
        }
        if let Some(oldest) = counts.begun.front().filter(|_| counts.begun.len() >= limits::GATEWAY_CALLS_PER_MINUTE) {
            let left = MINUTE.saturating_sub(now.duration_since(*oldest));
            return Err(Full::Minute { seconds: left.as_secs() + 1 });
        }
        if self.tokens_per_day > 0 && counts.tokens >= self.tokens_per_day {
            return Err(Full::Day);
        }
        counts.begun.push_back(now);
        counts.running += 1;
        drop(machines);
        Ok(Permit { gateway: Arc::clone(self), machine: machine.to_owned(), begun: now, _slot: slot, _held: held })
    }

    /// Makes a call on a thread of its own; `done` gets the answer there. `is_gone` tells that nobody waits for it any
    /// more.
    pub fn call(
        self: &Arc<Self>,
        permit: Permit,
        scene: &str,
        ask: Ask,
        is_gone: Option<Box<dyn Fn() -> bool + Send>>,
        done: impl FnOnce(Answer) + Send + 'static,
    ) {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let id = format!("r-{:x}-{number}", clock::unix_s());
        let cancel = Cancel::new();
        let ended = Arc::new(Mutex::new(None));
        let deadline = permit.begun + ask.timeout.saturating_sub(margin(ask.timeout));
        let running = Running { cancel: cancel.clone(), deadline, is_gone, ended: Arc::clone(&ended) };
        lock(&self.running).insert(number, running);
        self.ring();
        let (gateway, scene, answer_id) = (Arc::clone(self), scene.to_owned(), id.clone());
        // In a slot that both may take: a thread that does not start must not swallow the way to answer.
        let done = Arc::new(Mutex::new(Some(done)));
        let answering = Arc::clone(&done);
        let spawned = self.threads.spawn(&format!("gateway-{number}"), limits::WORKER_STACK_BYTES, move || {
            let result = gateway.complete(&permit, &scene, &ask, &cancel, &answer_id);
            lock(&gateway.running).remove(&number);
            let end = *lock(&ended);
            let answer = match (result, end) {
                (Ok(answer), _) => answer,
                (Err(LlmError::Cancelled), Some(end)) => end.answer(&answer_id),
                (Err(error), _) => failed(&error, &answer_id),
            };
            log::info!(
                "gateway {answer_id}: machine {} scene {} status {} {} ms",
                permit.machine,
                if scene.is_empty() { "-" } else { &scene },
                answer.status,
                permit.begun.elapsed().as_millis()
            );
            drop(permit);
            if let Some(done) = lock(&answering).take() {
                done(answer);
            }
        });
        if let Err(error) = spawned {
            log::warn!("gateway: start a thread: {error}");
            lock(&self.running).remove(&number);
            if let Some(done) = lock(&done).take() {
                done(Answer::error(503, "busy", "the hub is busy; try again", Some(5), &id));
            }
        }
    }

    fn complete(&self, permit: &Permit, scene: &str, ask: &Ask, cancel: &Cancel, id: &str) -> Result<Answer, LlmError> {
        let Routers { router, chat, diagnose } = lock(&self.routers).clone();
        let router = match scene {
            "chat" => chat.unwrap_or(router),
            "diagnose" => diagnose.unwrap_or(router),
            _ => router,
        };
        if router.default_choice().0 == llm::local::NAME {
            // 501: not asked again, but another model may be (contract agent-link 5.3).
            let text = "this hub has no model configured; set one up in its holt.toml ([llm])";
            return Ok(Answer::error(501, "no_model", text, None, id));
        }
        let owner = identity(&permit.machine);
        let spender = Spender {
            turn_id: self.next_turn.fetch_sub(1, Ordering::Relaxed),
            // Limits per conversation hold for one session, or for what a machine does in a day.
            conversation_id: if ask.session.is_empty() {
                format!("{owner}:{}", self.budgets.today())
            } else {
                format!("{owner}:{}", ask.session)
            },
            agent: owner.clone(),
            identity: owner,
        };
        let meter = Counted { inner: self.budgets.meter(spender), attempts: AtomicUsize::new(0) };
        let request = Request { model: "", messages: &ask.messages, tools: &ask.tools, stream: true };
        let begun = Instant::now();
        let result = router.complete(request, &meter, &mut Silent, cancel);
        let used = meter.inner.totals().tokens;
        if let Some(counts) = lock(&self.machines).get_mut(&permit.machine) {
            counts.tokens = counts.tokens.saturating_add(used);
        }
        let attempts = meter.attempts.load(Ordering::Relaxed);
        log::info!("gateway {id}: {} messages, {used} tokens, {attempts} attempts", ask.messages.len());
        Ok(Answer::of(id, &result?, begun.elapsed(), attempts))
    }

    fn ring(&self) {
        let _ = self.bell_tx.try_send(()); // full: a wake-up is already on its way
    }

    fn watch(&self, bell_rx: &Receiver<()>, stop: &Stop) {
        loop {
            let wait = if lock(&self.running).is_empty() { Duration::MAX } else { self.look() };
            crossbeam_channel::select! {
                recv(stop.signal()) -> _ => break,
                recv(bell_rx) -> _ => {}
                default(wait) => {}
            }
        }
        self.end_where(|_| Some(End::Stopping));
    }

    /// Ends what is over its time or has lost its machine; when to look again.
    fn look(&self) -> Duration {
        let now = Instant::now();
        self.end_where(|running| {
            if now >= running.deadline {
                return Some(End::Late);
            }
            running.is_gone.as_ref().is_some_and(|is_gone| is_gone()).then_some(End::Gone)
        });
        let next = lock(&self.running).values().map(|running| running.deadline.saturating_duration_since(now)).min();
        next.unwrap_or(LOOK_EVERY).clamp(Duration::from_millis(5), LOOK_EVERY)
    }

    fn end_where(&self, why: impl Fn(&Running) -> Option<End>) {
        let mut cancels = Vec::new();
        for running in lock(&self.running).values() {
            if running.cancel.is_set() {
                continue;
            }
            if let Some(end) = why(running) {
                *lock(&running.ended) = Some(end);
                cancels.push(running.cancel.clone());
            }
        }
        // Without the lock: cancelling shuts sockets down.
        cancels.iter().for_each(Cancel::cancel);
    }
}

impl End {
    fn answer(self, id: &str) -> Answer {
        match self {
            Self::Late => Answer::error(504, "timeout", "the model did not answer in time", None, id),
            Self::Gone => Answer::error(499, "gone", "the machine has closed the connection", None, id),
            Self::Stopping => Answer::error(503, "stopping", "the hub is stopping; try again", Some(5), id),
        }
    }
}

/// The machine's own clock began to run before ours: the answer must be there in time.
fn margin(timeout: Duration) -> Duration {
    (timeout / 5).min(Duration::from_secs(1))
}

/// As whom the calls of a machine are paid and counted.
fn identity(machine: &str) -> String {
    format!("machine:{machine}")
}

/// What a machine is told of a failure: what may be tried again has a status that is (contract agent-link 5.3).
fn failed(error: &LlmError, id: &str) -> Answer {
    log::warn!("gateway {id}: {error}");
    let (code, text) = error.public();
    let (status, retry_after) = match error {
        LlmError::Budget { .. } => (429, Some(3600)),
        LlmError::Timeout { .. } => (504, None),
        LlmError::Config { .. } => (503, None),
        LlmError::Cancelled => (503, Some(5)),
        LlmError::Status { status: 429, retry_after, .. } => {
            (429, Some(retry_after.map_or(5, |after| after.as_secs().max(1))))
        }
        LlmError::Status { status: status @ (400 | 413 | 422), .. } => (*status, None),
        LlmError::Status { status: 503, .. } => (503, Some(5)),
        LlmError::Status { .. }
        | LlmError::Connect { .. }
        | LlmError::Cut { .. }
        | LlmError::Decode { .. }
        | LlmError::TooLarge { .. } => (502, None),
    };
    Answer::error(status, code, &text, retry_after, id)
}

/// Counts tries beside money.
struct Counted {
    inner: crate::costs::TurnMeter,
    attempts: AtomicUsize,
}

impl Meter for Counted {
    fn reserve(&self, call: &MeteredCall<'_>) -> Result<i64, LlmError> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.inner.reserve(call)
    }

    fn settle(&self, reservation: i64, used: Option<&Completion>) {
        self.inner.settle(reservation, used);
    }
}

/// Nobody watches the answer being made.
struct Silent;

impl Sink for Silent {
    fn text(&mut self, _piece: &str) {}

    fn thinking(&mut self, _piece: &str) {}
}
