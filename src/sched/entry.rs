//! A schedule in memory.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::due::first_after;
use super::launch::Run;
use crate::config::ScheduleConfig;
use crate::store::schedule_runs::ScheduleState;

/// A schedule as lists show it. Times are milliseconds since 1970.
#[derive(Clone, Debug)]
pub struct ScheduleInfo {
    pub config: Arc<ScheduleConfig>,
    /// When the last run began.
    pub last_run: Option<i64>,
    /// None: it is switched off, or there is none within 41 years.
    pub next_run: Option<i64>,
    /// The run that goes on.
    pub running: Option<Run>,
}

/// The run that goes on.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) run: Run,
    /// Otherwise it is tried again.
    pub(super) is_launched: bool,
    /// It has been told to end: it took too long.
    pub(super) is_stopped: bool,
    /// By the steady clock.
    pub(super) deadline_ms: i64,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) config: Arc<ScheduleConfig>,
    pub(super) state: ScheduleState,
    pub(super) next: Option<i64>,
    pub(super) running: Option<Running>,
}

impl Entry {
    /// A schedule with what is kept of it, if it is still the same; it begins anew when it was changed or was off.
    pub(super) fn new(config: &ScheduleConfig, known: Option<&ScheduleState>, now: i64) -> Self {
        let same = known.filter(|known| known.expression == config.schedule && (known.is_enabled || !config.enabled));
        let fresh = ScheduleState {
            name: config.name.clone(),
            expression: config.schedule.clone(),
            is_enabled: config.enabled,
            anchor: now,
            handled_until: now,
            last_run: known.and_then(|known| known.last_run),
        };
        let state = match same {
            Some(known) => ScheduleState { anchor: known.anchor, handled_until: known.handled_until, ..fresh },
            None => fresh,
        };
        Self { config: Arc::new(config.clone()), state, next: None, running: None }
    }

    /// Looks for the next moment. `hub` is the time zone of schedules without one of their own.
    pub(super) fn plan(&mut self, hub: &TimeZone) {
        let zone = self.config.zone_or(hub);
        let (anchor, after) = (self.state.anchor, self.state.handled_until);
        self.next = if self.config.enabled { first_after(&self.config.expression, zone, anchor, after) } else { None };
    }

    /// Its hours are meant elsewhere now: those that lie behind there are not made up for.
    pub(super) fn moved_to(&mut self, zone: &TimeZone, now: i64) {
        self.state.handled_until = self.state.handled_until.max(now);
        self.plan(zone);
    }

    /// Whether something is to be done at that time.
    pub(super) fn is_due(&self, now: i64) -> bool {
        self.config.enabled && (now < self.state.handled_until || self.next.is_some_and(|at| at <= now))
    }

    pub(super) fn info(&self, now: i64, hub: &TimeZone) -> ScheduleInfo {
        let zone = self.config.zone_or(hub);
        // What is due and not handled yet is not ahead any more.
        let stale = self.next.is_some_and(|at| at <= now);
        let next = if stale { first_after(&self.config.expression, zone, self.state.anchor, now) } else { self.next };
        ScheduleInfo {
            config: Arc::clone(&self.config),
            last_run: self.state.last_run,
            next_run: next,
            running: self.running.as_ref().map(|running| running.run.clone()),
        }
    }

    /// The conversation of a run that is for that moment, in nanoseconds (contract engine 1.3).
    pub(super) fn conversation_id(config: &ScheduleConfig, moment_ns: i128) -> String {
        if config.isolated {
            return format!("sched:{}:{moment_ns}", config.name);
        }
        match config.channel_parts() {
            Some((adapter, id)) => format!("{}:{adapter}:{id}", config.agent),
            None => format!("{}:schedule:{}", config.agent, config.name),
        }
    }
}
