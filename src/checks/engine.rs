//! The threads of the checks.
//!
//! `checks`, one, owns everything but the running rounds: it sleeps until the next check is due or a round has ended,
//! takes in readings, tells notifiers and writes the state. `check-N`, as many as rounds run at once, at most
//! [`ROUNDS_MAX`]: looks, and does nothing else; started when first needed. All end at the stop, running rounds are
//! cancelled.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::checks::core::{Core, Ended, MachineLabels};
use crate::checks::plan::Plan;
use crate::checks::plugin::{Check, Gather, Moment};
use crate::checks::state::StateFile;
use crate::diag::HostRoot;
use crate::limits::{PUMP_STACK_BYTES, WORKER_STACK_BYTES};
use crate::notify::Notifier;
use crate::rt::{Cancel, Stop, Stopper, Threads};
use crate::sys;

/// Rounds that run at once: what blocks (a ping, a slow web server) delays nothing else.
const ROUNDS_MAX: usize = 4;

/// Threads that may be lost to rounds that hang, in all; beyond it only free ones go on.
const HUNG_MAX: usize = 4;

/// What the engine is made of.
pub struct Setup {
    pub plan: Plan,
    pub root: HostRoot,
    /// Asked whenever an alert opens; must answer at once.
    pub machine: MachineLabels,
    /// Where open alerts and cursors are kept; its directory exists.
    pub state_file: PathBuf,
    /// Everyone is told everything; their names are unique and stay the same across restarts.
    pub notifiers: Vec<Arc<dyn Notifier>>,
}

/// A pause between rounds that is worth letting go of what the rounds used.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The running checks. Dropping it stops them without waiting.
pub struct Engine {
    stopper: Option<Stopper>,
    threads: Threads,
    open: Arc<AtomicUsize>,
    plugins: Vec<String>,
}

struct Work {
    job: usize,
    check: Box<dyn Check>,
    timeout: Duration,
    cancel: Cancel,
}

struct Done {
    job: usize,
    check: Box<dyn Check>,
    ended: Ended,
}

/// What the thread `checks` owns beside the core.
struct Scheduler {
    core: Core,
    started: Instant,
    stop: Stop,
    threads: Threads,
    root: HostRoot,
    work_tx: Sender<Work>,
    work_rx: Receiver<Work>,
    done_tx: Sender<Done>,
    done_rx: Receiver<Done>,
    running: HashMap<usize, Cancel>,
    /// Of the running rounds those that were found hanging.
    hung: usize,
    workers: usize,
    open: Arc<AtomicUsize>,
}

impl Engine {
    /// Starts all checks. Notifiers are told of what is wrong from the first round on, and again until they take it.
    pub fn start(setup: Setup) -> io::Result<Self> {
        let started = Instant::now();
        let plugins = setup.plan.plugins();
        let n_jobs = setup.plan.jobs.len();
        let state = StateFile::new(setup.state_file);
        let core = Core::new(setup.plan, state, setup.machine, setup.notifiers, Moment::now(started));
        let (stopper, stop) = Stopper::new();
        let threads = Threads::new();
        let open = Arc::new(AtomicUsize::new(core.open_count()));
        // A check is in one place only: neither channel can hold more than there are, so no send ever waits.
        let (work_tx, work_rx) = bounded(n_jobs.max(1));
        let (done_tx, done_rx) = bounded(n_jobs.max(1));
        let scheduler = Scheduler {
            core,
            started,
            stop,
            threads: threads.clone(),
            root: setup.root,
            work_tx,
            work_rx,
            done_tx,
            done_rx,
            running: HashMap::new(),
            hung: 0,
            workers: 0,
            open: Arc::clone(&open),
        };
        threads.spawn("checks", PUMP_STACK_BYTES, move || scheduler.run())?;
        Ok(Self { stopper: Some(stopper), threads, open, plugins })
    }

    /// Ends all rounds and writes the state; the names of threads that are late.
    pub fn stop(&mut self, timeout: Duration) -> Vec<String> {
        self.stopper = None;
        self.threads.join_all(timeout)
    }

    /// Alerts that are open now, for heartbeats.
    pub fn active_alerts(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The plugins that run, sorted.
    pub fn plugins(&self) -> &[String] {
        &self.plugins
    }
}

impl Scheduler {
    fn run(mut self) {
        while !self.stop.is_set() {
            let now = Moment::now(self.started);
            self.hung += self.core.find_hung(now);
            while let Some(job) = self.core.due(now).filter(|_| self.has_room()) {
                self.begin(job, now);
            }
            self.core.write(now, false);
            self.open.store(self.core.open_count(), Ordering::Relaxed);
            let next = self.core.next(!self.has_room());
            let stop = self.stop.clone();
            let wait = next.map(|at| at - Moment::now(self.started).steady_ms);
            // Without anything to do only the stop ends the wait; an hour then is as good as for ever.
            let wait = Duration::from_millis(u64::try_from(wait.unwrap_or(3_600_000)).unwrap_or(0));
            if self.running.is_empty() && wait > PAUSE_MIN {
                // A small board has better uses for the pages than to hold them until the next round.
                sys::release_code_pages();
            }
            select! {
                recv(stop.signal()) -> _ => break,
                recv(self.done_rx) -> done => if let Ok(done) = done { self.ended(done) },
                default(wait) => {}
            }
        }
        self.finish();
    }

    fn has_room(&self) -> bool {
        self.running.len() < ROUNDS_MAX + self.hung.min(HUNG_MAX)
    }

    fn begin(&mut self, job: usize, now: Moment) {
        let Some((check, timeout)) = self.core.begin(job, now) else { return };
        let cancel = Cancel::new();
        self.running.insert(job, cancel.clone());
        if self.workers < self.running.len() {
            self.add_worker();
        }
        // Never full: see `Engine::start`. Never closed: we hold the other end.
        let _ = self.work_tx.send(Work { job, check, timeout, cancel });
    }

    fn add_worker(&mut self) {
        let (work_rx, done_tx) = (self.work_rx.clone(), self.done_tx.clone());
        let (root, started, stop) = (self.root.clone(), self.started, self.stop.clone());
        let name = format!("check-{}", self.workers);
        let body = move || loop {
            select! {
                recv(stop.signal()) -> _ => break,
                recv(work_rx) -> work => match work {
                    // The scheduler may be gone at the stop: then nobody wants to know.
                    Ok(work) => drop(done_tx.send(look(work, &root, started))),
                    Err(_) => break,
                },
            }
        };
        match self.threads.spawn(&name, WORKER_STACK_BYTES, body) {
            Ok(()) => self.workers += 1,
            // The work waits for a thread that there is, or for the next attempt.
            Err(error) => log::warn!("checks: no thread for another round: {error}"),
        }
    }

    fn ended(&mut self, done: Done) {
        self.running.remove(&done.job);
        if self.core.ended(done.job, done.check, done.ended, Moment::now(self.started)) {
            self.hung = self.hung.saturating_sub(1);
        }
    }

    /// A round that is cancelled has not been: neither its readings nor its cursor count, the next start repeats it.
    fn finish(mut self) {
        for cancel in self.running.values() {
            cancel.cancel();
        }
        self.core.write(Moment::now(self.started), true);
        self.open.store(self.core.open_count(), Ordering::Relaxed);
    }
}

/// One round, on a thread of its own.
fn look(mut work: Work, root: &HostRoot, started: Instant) -> Done {
    let gather = Gather::new(root, Moment::now(started), Instant::now() + work.timeout, &work.cancel);
    // A check that panicked is used again: its fields are plain numbers, at worst those of an earlier round.
    let readings = catch_unwind(AssertUnwindSafe(|| work.check.gather(&gather))).ok();
    let (unavailable, incomplete) = gather.into_notes();
    Done { job: work.job, check: work.check, ended: Ended { readings, unavailable, incomplete } }
}
