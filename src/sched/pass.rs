//! The thread of the scheduler: what is due begins, what has ended is recorded.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{after, never, select};
use jiff::tz::TimeZone;

use super::due::Moments;
use super::entry::{Entry, Running};
use super::launch::{Run, RunEnd};
use super::scheduler::Scheduler;
use crate::config::Expression;
use crate::metrics;
use crate::rt::lock;
use crate::store::StoreError;
use crate::store::schedule_runs::NewRun;

/// Longest sleep while something is planned: a clock that was changed is noticed.
const SLEEP_MAX_MS: i64 = 60_000;
/// When a run that found no room, or a row that could not be written, is tried again.
const RETRY_MS: i64 = 5_000;
/// A run that begins later than this after its moment counts as late. Beyond every sleep.
const LATE_MS: i64 = 2 * SLEEP_MAX_MS;
/// 2025: a machine without a battery begins in the past. Nothing is due before its clock is set.
const CLOCK_MIN_MS: i64 = 1_735_689_600_000;
/// A clock that was ahead by less was wrong by its zone or by hand: moments that have left the history stay done.
const PRUNED_COUNTS_MS: i64 = 26 * 3_600_000;

const PANIC: &str = "everything was stopped (panic)";
const MISSED: &str = "the hub was not running, or its clock was set forward";
const OVERLAP: &str = "the run before it was not over";
const BUSY: &str = "too many messages were waiting";
const TOO_LONG: &str = "it took longer than scheduler.run_timeout allows";

impl Scheduler {
    /// The body of the thread: ends at the stop, and when there is nothing left to do.
    pub(super) fn work(self: Arc<Self>) {
        loop {
            let wait = catch_unwind(AssertUnwindSafe(|| self.pass())).unwrap_or_else(|_| {
                log::error!("schedules: a look at what is due panicked");
                Some(SLEEP_MAX_MS)
            });
            if self.stop.is_set() || self.rests() {
                return;
            }
            let wait = wait.map(|wait| Duration::from_millis(u64::try_from(wait).unwrap_or(0)));
            let timer = wait.map_or_else(never, after);
            select! {
                recv(self.bell_rx) -> _ => {}
                recv(timer) -> _ => {}
                recv(self.stop.signal()) -> _ => return,
            }
        }
    }

    /// Whether there is nothing to do any more: then the thread ends.
    fn rests(&self) -> bool {
        let mut table = lock(&self.table);
        table.is_awake = !table.entries.is_empty();
        !table.is_awake
    }

    /// Does all that is due; in how many milliseconds it is to be called again, None: when something changes.
    pub(super) fn pass(&self) -> Option<i64> {
        let _turn = lock(&self.turnstile);
        let mut failed = self.record_ended().is_err();
        if self.is_asked.swap(false, Ordering::AcqRel)
            && let Err(error) = self.begin_wanted()
        {
            log::error!("schedules: look for what somebody wants: {error}; trying again");
            self.is_asked.store(true, Ordering::Release);
            failed = true;
        }
        let now = self.clock.wall_ms();
        if now >= CLOCK_MIN_MS {
            let due: Vec<Entry> =
                lock(&self.table).entries.values().filter(|entry| entry.is_due(now)).cloned().collect();
            for entry in due {
                if self.stop.is_set() {
                    return None;
                }
                if let Err(error) = self.handle(&entry, now) {
                    // Without its row nothing is done: it is tried again.
                    log::error!("schedule {}: record what is due: {error}; trying again", entry.config.name);
                }
            }
        }
        self.tend_running();
        let wait = self.wait(now);
        if failed { Some(wait.map_or(RETRY_MS, |wait| wait.min(RETRY_MS))) } else { wait }
    }

    /// What is to become of a schedule's moments up to now.
    fn handle(&self, entry: &Entry, now: i64) -> Result<(), StoreError> {
        let settings = self.settings();
        let mut state = entry.state.clone();
        let name = &entry.config.name;
        if state.handled_until < CLOCK_MIN_MS {
            // Made before the clock was set: it begins now.
            (state.anchor, state.handled_until) = (now, now);
            self.runs.keep(std::slice::from_ref(&state), &[])?;
            self.moved(name, state.anchor, state.handled_until, &settings.zone);
            return Ok(());
        }
        if now < state.handled_until {
            log::warn!("schedule {name}: the clock was set back; what lies ahead again counts anew");
            let pruned_until = self.runs.pruned_until(name)?;
            match entry.config.expression {
                Expression::Every(_) => (state.anchor, state.handled_until) = (now, now),
                _ if (now..now + PRUNED_COUNTS_MS).contains(&pruned_until) => {
                    state.handled_until = pruned_until;
                }
                _ => state.handled_until = now,
            }
            self.runs.reopen(&state, state.handled_until)?;
            self.moved(name, state.anchor, state.handled_until, &settings.zone);
            return Ok(());
        }
        let expression = &entry.config.expression;
        let moments =
            Moments::between(expression, entry.config.zone_or(&settings.zone), state.anchor, state.handled_until, now);
        let Some((first, last)) = moments.ends() else { return Ok(()) };
        let before = self.runs.run_moments(name, first, last)?;
        let (what, reason, may_run) = if self.launcher.is_paused() {
            ("missed", PANIC, false)
        } else if entry.running.is_some() {
            ("skipped", OVERLAP, false)
        } else {
            ("missed", MISSED, true)
        };
        let recent = settings.catch_up_ms.max(LATE_MS);
        let (chosen, passed) = moments.sort_out(&before, |moment| may_run && now - moment <= recent);
        for range in &passed {
            log::warn!("schedule {name}: {} moments {what}: {reason}", range.moments);
            metrics::SCHEDULES.add(&[what], f64::from(u32::try_from(range.moments).unwrap_or(u32::MAX)));
        }
        let conversation_id =
            chosen.map(|moment| Entry::conversation_id(&entry.config, i128::from(moment) * 1_000_000));
        let new = chosen.zip(conversation_id.as_deref()).map(|(moment, conversation_id)| NewRun {
            schedule: name,
            cause: if now - moment > LATE_MS { "late" } else { "due" },
            moment,
            conversation_id,
            started_at: now,
        });
        let begun = self.runs.advance(&state, (what, &passed, reason), new.as_ref(), (first, last))?;
        self.moved(name, state.anchor, last, &settings.zone);
        if let (Some(id), Some(conversation_id)) = (begun, conversation_id) {
            self.begin(&Run { id, schedule: Arc::clone(&entry.config), conversation_id }, now);
        }
        Ok(())
    }

    /// Runs that another process asked for.
    fn begin_wanted(&self) -> Result<(), StoreError> {
        for row in self.runs.wanted()? {
            let entry = lock(&self.table).entries.get(&row.schedule).cloned();
            let now = self.clock.wall_ms();
            match entry {
                None => self.runs.refuse(row.id, "there is no such schedule")?,
                Some(entry) if entry.running.is_some() => self.runs.refuse(row.id, OVERLAP)?,
                Some(_) if self.launcher.is_paused() => self.runs.refuse(row.id, PANIC)?,
                Some(entry) => {
                    let conversation_id = Entry::conversation_id(&entry.config, i128::from(now) * 1_000_000);
                    let new = NewRun {
                        schedule: &row.schedule,
                        cause: "manual",
                        moment: now,
                        conversation_id: &conversation_id,
                        started_at: now,
                    };
                    if self.runs.take(row.id, &new)? {
                        let schedule = Arc::clone(&entry.config);
                        self.begin(&Run { id: row.id, schedule, conversation_id }, now);
                    }
                }
            }
        }
        Ok(())
    }

    /// A schedule is handled up to there.
    fn moved(&self, name: &str, anchor: i64, handled_until: i64, zone: &TimeZone) {
        if let Some(entry) = lock(&self.table).entries.get_mut(name) {
            (entry.state.anchor, entry.state.handled_until) = (anchor, handled_until);
            entry.plan(zone);
        }
    }

    /// Writes down how runs ended, and tells people.
    fn record_ended(&self) -> Result<(), StoreError> {
        let mut result = Ok(());
        for (id, mut end) in self.inbox.take() {
            let running = self.running(|running| running.run.id == id).pop();
            if running.as_ref().is_some_and(|running| running.is_stopped) && !end.error.is_empty() {
                TOO_LONG.clone_into(&mut end.error);
            }
            match self.runs.finish(id, &end.error, self.clock.wall_ms()) {
                Err(error) => {
                    log::error!("schedules: record the end of run {id}: {error}; trying again");
                    self.inbox.put_back(id, end);
                    result = Err(error);
                }
                Ok(row) => {
                    let mut table = lock(&self.table);
                    let of_it = |entry: &&mut Entry| entry.running.as_ref().is_some_and(|known| known.run.id == id);
                    if let Some(entry) = table.entries.values_mut().find(of_it) {
                        entry.running = None;
                    }
                    drop(table);
                    if let Some((running, row)) = running.zip(row) {
                        metrics::SCHEDULES.add(&[if row.state == "ok" { "run" } else { "failed" }], 1.0);
                        if row.state == "failed" {
                            log::warn!("schedule {}: its run failed: {}", row.schedule, row.reason);
                        }
                        self.launcher.tell(&running.run, &row, &end);
                    }
                }
            }
        }
        result
    }

    /// Runs that found no room are tried again, those that take too long end.
    fn tend_running(&self) {
        let now = self.clock.steady_ms();
        for running in self.running(|running| !running.is_launched) {
            let given_up = if self.launcher.is_paused() {
                PANIC
            } else if running.deadline_ms <= now {
                BUSY
            } else {
                ""
            };
            if !given_up.is_empty() {
                self.inbox.put(running.run.id, RunEnd { error: given_up.to_owned(), text: String::new() });
            } else if !self.launch(&running.run) {
                continue;
            }
            self.change_running(running.run.id, |running| running.is_launched = true);
        }
        let timeout = self.settings().run_timeout_ms;
        for running in self.running(|running| running.is_launched && !running.is_stopped && running.deadline_ms <= now)
        {
            let is_stopped = self.launcher.stop(&running.run);
            self.change_running(running.run.id, |running| {
                running.is_stopped = is_stopped;
                running.deadline_ms = now.saturating_add(timeout);
            });
        }
    }

    fn running(&self, wanted: impl Fn(&Running) -> bool) -> Vec<Running> {
        let table = lock(&self.table);
        let all = table.entries.values().filter_map(|entry| entry.running.as_ref());
        all.filter(|running| wanted(running)).cloned().collect()
    }

    fn change_running(&self, id: i64, change: impl Fn(&mut Running)) {
        let mut table = lock(&self.table);
        let mut all = table.entries.values_mut().filter_map(|entry| entry.running.as_mut());
        all.find(|running| running.run.id == id).map(change);
    }

    /// How long nothing will be due.
    fn wait(&self, now: i64) -> Option<i64> {
        let steady = self.clock.steady_ms();
        let table = lock(&self.table);
        let mut wait: Option<i64> = None;
        for entry in table.entries.values() {
            // What could not be recorded is still due.
            let next = entry.config.enabled.then(|| {
                let ahead = entry.next.map_or(SLEEP_MAX_MS, |at| at - now);
                (if ahead <= 0 { RETRY_MS } else { ahead }).min(SLEEP_MAX_MS)
            });
            let end = entry
                .running
                .as_ref()
                .filter(|running| !running.is_stopped)
                .map(|running| if running.is_launched { running.deadline_ms - steady } else { RETRY_MS });
            wait = [wait, next, end].into_iter().flatten().min();
        }
        wait.map(|wait| wait.max(1))
    }
}
