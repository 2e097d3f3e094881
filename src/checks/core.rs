//! The engine without its threads: which check is due, what its round means, what is kept. Every method is given the
//! moment, so that tests can be the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::alert::Level;
use crate::checks::ledger::{Ledger, Round, VANISHED_ROUNDS, millis};
use crate::checks::plan::{Plan, Spec};
use crate::checks::plugin::{Check, Moment, Reading};
use crate::checks::state::StateFile;
use crate::notify::Notifier;
use crate::rt::order::gather;

/// Labels of the machine: the user's global ones, `from_hostip` and `from_hostname`, as they are now.
pub type MachineLabels = Arc<dyn Fn() -> BTreeMap<String, String> + Send + Sync>;

/// Between the first rounds of two checks: they are not all due in the same instant for ever.
const SPREAD_MS: i64 = 50;

/// The last first round begins no later than this.
const SPREAD_MS_MAX: i64 = 5_000;

/// A round that is late by this much beyond its limit hangs.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// Cursors alone are written no more often than this: SD cards wear.
const CURSORS_EVERY_MS: i64 = 60_000;

/// A write that failed is tried again after this.
const WRITE_AGAIN_MS: i64 = 30_000;

/// How a round ended.
pub(super) struct Ended {
    /// None: the check panicked.
    pub(super) readings: Option<Vec<Reading>>,
    pub(super) unavailable: Vec<String>,
    pub(super) incomplete: bool,
}

/// A check and where it is in its life.
struct Slot {
    spec: Spec,
    /// Absent while its round runs.
    check: Option<Box<dyn Check>>,
    /// When the next round is due, in steady time.
    due_ms: i64,
    began_ms: i64,
    hangs: bool,
    /// Complete rounds since the start.
    rounds: u32,
    kept: Option<Value>,
}

/// The state of the engine; owned by one thread.
pub(super) struct Core {
    slots: Vec<Slot>,
    ledger: Ledger,
    machine: MachineLabels,
    notifiers: Vec<Arc<dyn Notifier>>,
    state: StateFile,
    /// What was said in the log, so that it is said once.
    said: BTreeSet<String>,
    cursors_changed: bool,
    written_ms: i64,
    write_after_ms: i64,
}

impl Core {
    /// Takes up where the file of the state ends.
    pub(super) fn new(
        plan: Plan,
        state: StateFile,
        machine: MachineLabels,
        notifiers: Vec<Arc<dyn Notifier>>,
        now: Moment,
    ) -> Self {
        let kept = state.read().unwrap_or(Value::Null);
        let names: Vec<&str> = notifiers.iter().map(|notifier| notifier.name()).collect();
        let ledger = Ledger::from_json(kept.get("alerts").unwrap_or(&Value::Null), now, &names);
        let mut slots = Vec::with_capacity(plan.jobs.len());
        let mut due_ms = now.steady_ms;
        for mut job in plan.jobs {
            let kept = kept.get("checks").and_then(|checks| checks.get(&job.spec.id)).cloned();
            if let Some(kept) = &kept {
                job.check.restore(kept);
            }
            let (spec, check) = (job.spec, Some(job.check));
            slots.push(Slot { spec, check, due_ms, began_ms: 0, hangs: false, rounds: 0, kept });
            due_ms = (due_ms + SPREAD_MS).min(now.steady_ms + SPREAD_MS_MAX);
        }
        Self {
            slots,
            ledger,
            machine,
            notifiers,
            state,
            said: BTreeSet::new(),
            cursors_changed: false,
            written_ms: now.steady_ms,
            write_after_ms: now.steady_ms,
        }
    }

    /// The check that has waited longest, if one is due.
    pub(super) fn due(&self, now: Moment) -> Option<usize> {
        let waiting = self.slots.iter().enumerate().filter(|(_, slot)| slot.check.is_some());
        let (job, slot) = waiting.min_by_key(|(_, slot)| slot.due_ms)?;
        (slot.due_ms <= now.steady_ms).then_some(job)
    }

    /// When something has to be done, if nothing ends before: a round to begin (unless `busy`, when no thread is free
    /// for one), a round that hangs, a file to write. None: nothing.
    pub(super) fn next(&self, busy: bool) -> Option<i64> {
        let of_slot = |slot: &Slot| match (&slot.check, slot.hangs) {
            (Some(_), _) => (!busy).then_some(slot.due_ms),
            (None, false) => Some(slot.hangs_at()),
            (None, true) => None,
        };
        let write = if self.ledger.changed {
            Some(self.write_after_ms)
        } else {
            self.cursors_changed.then_some((self.written_ms + CURSORS_EVERY_MS).max(self.write_after_ms))
        };
        self.slots.iter().filter_map(of_slot).chain(write).min()
    }

    /// Takes a check out for its round, with the longest time it may take.
    pub(super) fn begin(&mut self, job: usize, now: Moment) -> Option<(Box<dyn Check>, Duration)> {
        let slot = self.slots.get_mut(job)?;
        slot.began_ms = now.steady_ms;
        slot.hangs = false;
        Some((slot.check.take()?, slot.spec.timeout))
    }

    /// Raises an alert for the rounds that hang since now; how many there are.
    pub(super) fn find_hung(&mut self, now: Moment) -> usize {
        let hung: Vec<usize> = (0..self.slots.len())
            .filter(|&job| {
                let slot = &self.slots[job];
                slot.check.is_none() && !slot.hangs && slot.hangs_at() <= now.steady_ms
            })
            .collect();
        for &job in &hung {
            self.slots[job].hangs = true;
            let plugin = self.slots[job].spec.plugin;
            let text = format!(
                "a round of the check {plugin} began {} s ago and does not end",
                (now.steady_ms - self.slots[job].began_ms) / 1000
            );
            let reading = Reading::failed("plugin::hung", plugin, text);
            self.take(job, vec![reading], false, now);
        }
        hung.len()
    }

    /// A round is over. True when it had been found hanging.
    pub(super) fn ended(&mut self, job: usize, check: Box<dyn Check>, ended: Ended, now: Moment) -> bool {
        let Some(slot) = self.slots.get_mut(job) else { return false };
        let plugin = slot.spec.plugin;
        let kept = check.save();
        if kept != slot.kept {
            slot.kept = kept;
            self.cursors_changed = true;
        }
        slot.check = Some(check);
        slot.due_ms = (slot.began_ms + millis(slot.spec.interval)).max(now.steady_ms);
        let hung = std::mem::take(&mut slot.hangs);
        let panicked = ended.readings.is_none();
        let complete = !panicked && !ended.incomplete;
        if complete {
            slot.rounds = slot.rounds.saturating_add(1);
        }
        for reason in ended.unavailable {
            let text = format!("{plugin}: {reason}");
            if self.said.len() < 1000 && self.said.insert(text.clone()) {
                log::info!("check {text}");
            }
        }
        let mut readings = ended.readings.unwrap_or_default();
        readings.push(if panicked {
            Reading::panicked(plugin)
        } else {
            Reading::new("plugin::panic", plugin, Level::Ok, "")
        });
        readings.push(Reading::new("plugin::hung", plugin, Level::Ok, ""));
        self.take(job, readings, complete, now);
        hung
    }

    fn take(&mut self, job: usize, readings: Vec<Reading>, complete: bool, now: Moment) {
        let spec = &self.slots[job].spec;
        let round = Round { job, spec, complete, now, machine: &*self.machine };
        self.ledger.take(&round, readings);
        // A plugin without jobs, or whose jobs have all looked often enough, sees its old alerts no more.
        let slots = &self.slots;
        self.ledger.end_forgotten(|plugin| {
            slots.iter().filter(|slot| slot.spec.plugin == plugin).all(|slot| slot.rounds >= VANISHED_ROUNDS)
        });
        self.ledger.tell(job, &spec.alerting, now, &self.notifiers);
    }

    /// Writes the state if it is time; at once when `last`.
    pub(super) fn write(&mut self, now: Moment, last: bool) {
        let cursors_due = self.cursors_changed && now.steady_ms - self.written_ms >= CURSORS_EVERY_MS;
        let due = (self.ledger.changed || cursors_due) && now.steady_ms >= self.write_after_ms;
        if !(due || last && (self.ledger.changed || self.cursors_changed)) {
            return;
        }
        let checks: Map<String, Value> =
            gather(self.slots.iter().filter_map(|slot| Some((slot.spec.id.clone(), slot.kept.clone()?))));
        let mut fields = Map::new();
        fields.insert("alerts".to_owned(), self.ledger.to_json(now));
        fields.insert("checks".to_owned(), Value::Object(checks));
        match self.state.write(Value::Object(fields)) {
            Ok(()) => {
                self.ledger.changed = false;
                self.cursors_changed = false;
                self.written_ms = now.steady_ms;
            }
            Err(error) => {
                self.write_after_ms = now.steady_ms + WRITE_AGAIN_MS;
                let text = format!("checks: the state cannot be written: {error}");
                if self.said.insert(text.clone()) {
                    log::warn!("{text}");
                }
            }
        }
    }

    /// How many alerts are not over.
    pub(super) fn open_count(&self) -> usize {
        self.ledger.open_count()
    }
}

impl Slot {
    fn hangs_at(&self) -> i64 {
        self.began_ms + millis(self.spec.timeout) + millis(HANGS_AFTER)
    }
}
