//! The scheduler as others see it: its list, and changes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::clock::Clock;
use super::due::first_after;
use super::entry::{Entry, Running, ScheduleInfo};
use super::launch::{Done, Inbox, LaunchError, Launcher, Run};
use crate::config::{ScheduleConfig, SchedulerConfig};
use crate::limits;
use crate::rt::{Stop, Threads, lock};
use crate::store::schedule_runs::{NewRun, RunRow};
use crate::store::{Db, ScheduleRuns, StoreError};

/// Messages are not sent a second time after so long: see [`limits::MESSAGE_ID_TTL`].
const RESENT_MAX_MS: i64 = 20 * 3_600_000;

/// What a scheduler is made of.
pub struct Setup {
    pub db: Arc<Db>,
    pub launcher: Arc<dyn Launcher>,
    pub clock: Arc<dyn Clock>,
    pub config: SchedulerConfig,
    /// `api.timezone`.
    pub timezone: String,
    /// Rows of the history of each schedule.
    pub runs_kept: usize,
    pub stop: Stop,
}

/// Runs what is due. Shared; its thread ends at the stop.
pub struct Scheduler {
    /// Another process may have asked for something.
    pub(super) is_asked: AtomicBool,
    // Set at construction.
    pub(super) runs: ScheduleRuns,
    pub(super) launcher: Arc<dyn Launcher>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) bell_rx: Receiver<()>,
    pub(super) stop: Stop,
    threads: Threads,
    /// Whoever changes entries holds it, over the disk too: its job is to queue them. The other locks may be taken under
    /// it.
    pub(super) turnstile: Mutex<()>,
    /// Guarded by this mutex: the schedules by name, whether the thread runs. Nothing is taken under it.
    pub(super) table: Mutex<Table>,
    /// Guarded by this lock: the settings. Nothing is taken under it.
    settings: RwLock<Settings>,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) is_awake: bool,
}

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) zone: TimeZone,
    pub(super) catch_up_ms: i64,
    pub(super) run_timeout_ms: i64,
}

impl Settings {
    fn new(config: &SchedulerConfig, timezone: &str) -> Self {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Self {
            // The configuration has checked the name.
            zone: TimeZone::get(timezone).unwrap_or(TimeZone::UTC),
            catch_up_ms: millis(config.catch_up),
            run_timeout_ms: millis(config.run_timeout),
        }
    }
}

/// Why a run was not begun by hand.
#[derive(Debug)]
pub enum RunNowError {
    NotFound,
    /// The run before it is not over.
    Running,
    /// Everything is stopped.
    Paused,
    Store(StoreError),
}

impl fmt::Display for RunNowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => write!(f, "there is no such schedule"),
            Self::Running => write!(f, "its last run is not over; stop its conversation first, or wait"),
            Self::Paused => write!(f, "everything is stopped (panic); `holt resume` lets schedules run again"),
            Self::Store(cause) => write!(f, "{cause}"),
        }
    }
}

impl std::error::Error for RunNowError {}

impl From<StoreError> for RunNowError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Scheduler {
    /// A scheduler without schedules: [`Scheduler::apply`] brings them, and begins.
    pub fn new(setup: Setup) -> Arc<Self> {
        let (bell_tx, bell_rx) = bounded(1);
        Arc::new(Self {
            runs: ScheduleRuns::new(setup.db, setup.runs_kept),
            launcher: setup.launcher,
            clock: setup.clock,
            inbox: Inbox::new(bell_tx),
            bell_rx,
            stop: setup.stop,
            is_asked: AtomicBool::new(true),
            threads: Threads::new(),
            turnstile: Mutex::new(()),
            table: Mutex::new(Table::default()),
            settings: RwLock::new(Settings::new(&setup.config, &setup.timezone)),
        })
    }

    /// These are the schedules from now on. What is the same goes on as it was, also a run that goes on. What is new or
    /// changed has no past; what is gone takes its history along. Blocks on the disk.
    pub fn apply(self: &Arc<Self>, schedules: &[ScheduleConfig]) -> Result<(), StoreError> {
        self.replace(schedules)?;
        self.wake();
        Ok(())
    }

    /// Other settings count from now on. Waits for what begins just now.
    pub fn configure(&self, config: &SchedulerConfig, timezone: &str) {
        let _turn = lock(&self.turnstile);
        let settings = Settings::new(config, timezone);
        let before =
            std::mem::replace(&mut *self.settings.write().unwrap_or_else(PoisonError::into_inner), settings.clone());
        if before.zone != settings.zone {
            let now = self.clock.wall_ms();
            let mut table = lock(&self.table);
            let all = table.entries.values_mut().filter(|entry| entry.config.zone.is_none());
            all.for_each(|entry| entry.moved_to(&settings.zone, now));
        }
        self.inbox.ring();
    }

    pub(super) fn replace(&self, schedules: &[ScheduleConfig]) -> Result<(), StoreError> {
        let _turn = lock(&self.turnstile);
        let (now, zone) = (self.clock.wall_ms(), self.settings().zone);
        let known = self.runs.states()?;
        let mut old = std::mem::take(&mut lock(&self.table).entries);
        let is_first = old.is_empty();
        let mut entries = BTreeMap::new();
        let mut changed = Vec::new();
        for config in schedules {
            let state = known.iter().find(|state| state.name == config.name);
            let mut entry = Entry::new(config, state, now);
            let before = old.remove(&config.name);
            let moves = before.as_ref().is_some_and(|old| old.config.zone != config.zone);
            entry.running = before.and_then(|old| old.running);
            if moves {
                entry.moved_to(&zone, now);
            } else {
                entry.plan(&zone);
            }
            if state != Some(&entry.state) {
                changed.push(entry.state.clone());
            }
            entries.insert(config.name.clone(), entry);
        }
        let gone: Vec<String> =
            known.into_iter().map(|state| state.name).filter(|name| !entries.contains_key(name)).collect();
        let stored = if changed.is_empty() && gone.is_empty() { Ok(()) } else { self.runs.keep(&changed, &gone) };
        if is_first && let Err(error) = self.rejoin(&mut entries, now) {
            log::error!("schedules: look for runs from before the start: {error}");
        }
        lock(&self.table).entries = entries;
        stored
    }

    /// After a start: runs that a stop cut short, or that go on.
    fn rejoin(&self, entries: &mut BTreeMap<String, Entry>, now: i64) -> Result<(), StoreError> {
        let settings = self.settings();
        for row in self.runs.open()? {
            let Some(entry) = entries.get_mut(&row.schedule).filter(|entry| entry.running.is_none()) else { continue };
            let run = Run { id: row.id, schedule: Arc::clone(&entry.config), conversation_id: row.conversation_id };
            let known = self.launcher.rejoin(&run, Done::new(&self.inbox, run.id)).unwrap_or_else(|error| {
                log::error!("schedule {}: look for its run {}: {error:?}", row.schedule, run.id);
                false
            });
            let age = now.saturating_sub(row.started_at.unwrap_or(0));
            if !known {
                self.inbox.forget(run.id);
            }
            // A message is known by its number for a day.
            if !known && !(0..=settings.catch_up_ms.min(RESENT_MAX_MS)).contains(&age) {
                self.runs.finish(run.id, "the hub stopped before it began", now)?;
                continue;
            }
            let deadline_ms = self.clock.steady_ms().saturating_add(settings.run_timeout_ms);
            entry.running = Some(Running { run, is_launched: known, is_stopped: false, deadline_ms });
        }
        Ok(())
    }

    /// Runs a schedule now, whether it is switched on or not. Its row is there when this returns. Blocks on the disk.
    pub fn run_now(self: &Arc<Self>, name: &str) -> Result<Run, RunNowError> {
        let run = self.begin_now(name)?;
        self.wake();
        Ok(run)
    }

    pub(super) fn begin_now(&self, name: &str) -> Result<Run, RunNowError> {
        let _turn = lock(&self.turnstile);
        let config = {
            let table = lock(&self.table);
            let entry = table.entries.get(name).ok_or(RunNowError::NotFound)?;
            if entry.running.is_some() {
                return Err(RunNowError::Running);
            }
            Arc::clone(&entry.config)
        };
        if self.launcher.is_paused() {
            return Err(RunNowError::Paused);
        }
        let now = self.clock.wall_ms();
        let conversation_id = Entry::conversation_id(&config, Timestamp::now().as_nanosecond());
        let new =
            NewRun { schedule: name, cause: "manual", moment: now, conversation_id: &conversation_id, started_at: now };
        let id = self.runs.begin(&new)?.ok_or(RunNowError::Running)?;
        let run = Run { id, schedule: config, conversation_id };
        self.begin(&run, now);
        Ok(run)
    }

    /// Notes that a run goes on, and begins it. Under the turnstile.
    pub(super) fn begin(&self, run: &Run, now: i64) {
        let deadline_ms = self.clock.steady_ms().saturating_add(self.settings().run_timeout_ms);
        let is_launched = self.launch(run);
        if let Some(entry) = lock(&self.table).entries.get_mut(&run.schedule.name) {
            entry.state.last_run = Some(now);
            entry.running = Some(Running { run: run.clone(), is_launched, is_stopped: false, deadline_ms });
        }
    }

    /// Sends a run's message; false when it is to be tried again.
    pub(super) fn launch(&self, run: &Run) -> bool {
        match self.launcher.launch(run, Done::new(&self.inbox, run.id)) {
            Ok(()) => true,
            Err(LaunchError::Busy) => {
                self.inbox.forget(run.id);
                false
            }
            Err(LaunchError::Refused(error)) => {
                self.inbox.forget(run.id);
                let end = super::RunEnd { error, text: String::new() };
                self.inbox.put(run.id, end);
                true
            }
        }
    }

    /// The database was changed, perhaps by another process that wants a run. Never waits.
    pub fn look(&self) {
        if lock(&self.table).is_awake {
            self.is_asked.store(true, Ordering::Release);
            self.inbox.ring();
        }
    }

    /// All schedules by name.
    pub fn list(&self) -> Vec<ScheduleInfo> {
        let (now, zone) = (self.clock.wall_ms(), self.settings().zone);
        lock(&self.table).entries.values().map(|entry| entry.info(now, &zone)).collect()
    }

    /// One schedule.
    pub fn get(&self, name: &str) -> Option<ScheduleInfo> {
        let (now, zone) = (self.clock.wall_ms(), self.settings().zone);
        lock(&self.table).entries.get(name).map(|entry| entry.info(now, &zone))
    }

    /// Its next moments; none while it is switched off.
    pub fn plan(&self, name: &str, count: usize) -> Vec<i64> {
        let (now, zone) = (self.clock.wall_ms(), self.settings().zone);
        let Some(entry) = lock(&self.table).entries.get(name).filter(|entry| entry.config.enabled).cloned() else {
            return Vec::new();
        };
        let zone = entry.config.zone_or(&zone);
        let next = |after: &i64| first_after(&entry.config.expression, zone, entry.state.anchor, *after);
        std::iter::successors(next(&now), next).take(count).collect()
    }

    /// What became of a schedule's moments, newest first.
    pub fn history(&self, name: &str, rows_max: usize) -> Result<Vec<RunRow>, StoreError> {
        self.runs.list(name, rows_max)
    }

    /// The newest row of each schedule.
    pub fn newest(&self) -> Result<Vec<RunRow>, StoreError> {
        self.runs.newest()
    }

    /// The time zone of schedules without one of their own.
    pub fn zone(&self) -> TimeZone {
        self.settings().zone
    }

    /// A moment in RFC 3339, whole seconds, in that zone: `Z` where it is not ahead or behind (contract 5.2).
    pub fn local_time(at_ms: i64, zone: &TimeZone) -> String {
        let at = Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone());
        let format = if at.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
        at.strftime(format).to_string()
    }

    /// Waits for the thread after the stop; its name when it is late.
    pub fn join(&self, timeout: Duration) -> Vec<String> {
        self.threads.join_all(timeout)
    }

    pub(super) fn settings(&self) -> Settings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts the thread if it is needed, and rings it.
    fn wake(self: &Arc<Self>) {
        let starts = {
            let mut table = lock(&self.table);
            let starts = !table.entries.is_empty() && !table.is_awake;
            table.is_awake |= starts;
            starts
        };
        if starts {
            let scheduler = Arc::clone(self);
            if let Err(error) = self.threads.spawn("sched", limits::WORKER_STACK_BYTES, move || scheduler.work()) {
                // The next change, or run by hand, tries again.
                log::error!("schedules: start their thread: {error}; nothing runs by itself");
                lock(&self.table).is_awake = false;
            }
        }
        self.inbox.ring();
    }
}
