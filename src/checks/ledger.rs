//! The open alerts: what is raised, repeated, taken back and whom it was told (contract agent-link 6.3).
//!
//! No threads, no clock and no file: every method is given the moment. Who was told what is kept for each notifier
//! apart, and only what a notifier took counts; so one that refuses is simply told in the next round.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::alert::{Event, Level, key_of};
use crate::checks::plan::{Alerting, Spec, expand_labels};
use crate::checks::plugin::{Moment, Reading};
use crate::notify::Notifier;
use crate::rt::order::gather;
use crate::rt::text::cut;

/// Rounds in a row without a reading until what was checked counts as gone: one may be a moment's confusion.
pub(super) const VANISHED_ROUNDS: u32 = 3;

/// Most open alerts: a machine where more is wrong says so often enough.
pub(super) const ALERTS_MAX: usize = 2000;

/// Most bytes of a description or an attribute: lines of logs and answers of servers can be anything.
const TEXT_BYTES_MAX: usize = 4096;

/// What `from_agent` says of us.
const FROM_AGENT: &str = "holt";

/// The alerts of one machine.
#[derive(Default)]
pub(super) struct Ledger {
    /// By what identifies the reading, addresses of the host left out.
    pub(super) alerts: BTreeMap<String, Alert>,
    /// Whether something changed that has to last.
    pub(super) changed: bool,
}

/// One alert, from its first bad reading until everybody who knew of it took the recovery.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Alert {
    pub(super) plugin: String,
    /// The job whose readings count. None: from before a restart, and not seen since.
    pub(super) owner: Option<usize>,
    /// Of the first event, and kept until the end: an address that changes meanwhile makes no new alert.
    pub(super) key: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) attrs: BTreeMap<String, String>,
    pub(super) description: String,
    /// `Ok` when it is over and somebody has not been told.
    pub(super) level: Level,
    /// Steady time of the first bad reading.
    pub(super) since_ms: i64,
    /// Rounds in a row that were better than its level, and since when.
    pub(super) better_rounds: u32,
    pub(super) better_since_ms: i64,
    /// Rounds in a row without a reading.
    pub(super) missed_rounds: u32,
    /// By the name of the notifier.
    pub(super) told: BTreeMap<String, Told>,
}

/// What a notifier took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) level: Level,
    pub(super) at_ms: i64,
    /// Events of that level or a worse one, since it was reached.
    pub(super) count: u32,
}

/// One finished round of a job.
pub(super) struct Round<'a> {
    pub(super) job: usize,
    pub(super) spec: &'a Spec,
    /// Whether a missing reading means that its target is gone.
    pub(super) complete: bool,
    pub(super) now: Moment,
    /// Labels of the machine: the user's and `from_hostip`, `from_hostname`. Asked only for a new alert.
    pub(super) machine: &'a dyn Fn() -> BTreeMap<String, String>,
}

impl Ledger {
    /// Takes in what a round saw.
    pub(super) fn take(&mut self, round: &Round<'_>, readings: Vec<Reading>) {
        let mut seen = BTreeSet::new();
        let mut unmeasured = BTreeSet::new();
        for reading in readings {
            let nothing_new = self.alerts.is_empty() && reading.level == Level::Ok;
            if nothing_new || round.spec.alerting.disabled {
                continue;
            }
            if !reading.measured {
                unmeasured.insert(reading.target.clone());
            }
            let labels = own_labels(round.spec, &reading);
            let identity = key_of(&labels);
            if self.alerts.contains_key(&identity) {
                self.go_on(round, &identity, &reading);
            } else if reading.level != Level::Ok {
                self.open(round, identity.clone(), labels, &reading);
            }
            seen.insert(identity);
        }
        if round.complete {
            self.count_missing(round.job, &seen, &unmeasured);
        }
    }

    /// A reading of something that an alert is open for.
    fn go_on(&mut self, round: &Round<'_>, identity: &str, reading: &Reading) {
        let Some(alert) = self.alerts.get_mut(identity) else { return };
        if alert.owner.is_some_and(|owner| owner != round.job) && !reading.level.is_worse_than(alert.level) {
            // Two instances look at the same thing: the one that saw the worst speaks for both.
            return;
        }
        alert.owner = Some(round.job);
        alert.missed_rounds = 0;
        if !alert.level.is_worse_than(reading.level) {
            // As bad, worse, or bad again before everybody knew that it was over.
            let changed = alert.level != reading.level;
            if alert.level == Level::Ok && changed {
                alert.since_ms = round.now.steady_ms;
            }
            alert.level = reading.level;
            alert.better_rounds = 0;
            alert.describe(reading);
            self.changed |= changed;
            return;
        }
        if !alert.level.is_worse_than(reading.held) {
            // Better, but within the margin.
            alert.better_rounds = 0;
            return;
        }
        if alert.better_rounds == 0 {
            alert.better_since_ms = round.now.steady_ms;
        }
        alert.better_rounds = alert.better_rounds.saturating_add(1);
        let rules = &round.spec.alerting;
        let long_enough = round.now.steady_ms - alert.better_since_ms >= millis(rules.recover_after);
        let told = !alert.told.is_empty();
        // What nobody was to know of yet needs no patience.
        let due = round.now.steady_ms - alert.since_ms >= millis(rules.for_duration);
        if (told || due) && (alert.better_rounds < rules.recover_rounds || !long_enough) {
            return;
        }
        alert.level = reading.held;
        alert.better_rounds = 0;
        alert.describe(reading);
        self.changed = true;
        if alert.level == Level::Ok && !told {
            self.alerts.remove(identity);
        }
    }

    fn open(&mut self, round: &Round<'_>, identity: String, own: BTreeMap<String, String>, reading: &Reading) {
        if self.alerts.len() >= ALERTS_MAX {
            log::warn!("checks: {ALERTS_MAX} alerts are open; {} {} is not raised", reading.check, reading.target);
            return;
        }
        let mut labels = (round.machine)();
        labels.extend(own);
        labels.insert("from_agent".to_owned(), FROM_AGENT.to_owned());
        let of_machine = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let (host_name, address) = (of_machine("from_hostname"), of_machine("from_hostip"));
        expand_labels(&mut labels, &host_name, &address);
        let mut alert = Alert {
            plugin: round.spec.plugin.to_owned(),
            owner: Some(round.job),
            key: key_of(&labels),
            labels,
            attrs: BTreeMap::new(),
            description: String::new(),
            level: reading.level,
            since_ms: round.now.steady_ms,
            better_rounds: 0,
            better_since_ms: 0,
            missed_rounds: 0,
            told: BTreeMap::new(),
        };
        alert.describe(reading);
        self.alerts.insert(identity, alert);
        self.changed = true;
    }

    /// Ends alerts of the job whose target has not been seen for some rounds.
    fn count_missing(&mut self, job: usize, seen: &BTreeSet<String>, unmeasured: &BTreeSet<String>) {
        let mut gone = Vec::new();
        for (identity, alert) in &mut self.alerts {
            let target = alert.labels.get("target");
            let missing = alert.owner == Some(job)
                && !seen.contains(identity)
                && !target.is_some_and(|target| unmeasured.contains(target));
            if missing && alert.level != Level::Ok {
                alert.missed_rounds += 1;
                if alert.missed_rounds >= VANISHED_ROUNDS {
                    gone.push(identity.clone());
                }
            }
        }
        self.end(&gone, "is no longer there: it was not seen in the last rounds");
    }

    /// Ends alerts from before a restart that no job of now will ever see again.
    pub(super) fn end_forgotten(&mut self, is_forgotten: impl Fn(&str) -> bool) {
        let forgotten: Vec<String> = self
            .alerts
            .iter()
            .filter(|(_, alert)| alert.owner.is_none() && alert.level != Level::Ok && is_forgotten(&alert.plugin))
            .map(|(identity, _)| identity.clone())
            .collect();
        self.end(&forgotten, "is no longer checked");
    }

    fn end(&mut self, identities: &[String], why: &str) {
        for identity in identities {
            self.changed = true;
            let Some(alert) = self.alerts.get_mut(identity) else { continue };
            if alert.told.is_empty() {
                self.alerts.remove(identity);
                continue;
            }
            alert.level = Level::Ok;
            alert.missed_rounds = 0;
            let target = alert.labels.get("target").map_or("", String::as_str);
            alert.description = format!("{target} {why}");
            alert.attrs.clear();
        }
    }

    /// Tells the notifiers what is due of the alerts of a job, and of those from before a restart.
    pub(super) fn tell(&mut self, job: usize, rules: &Alerting, now: Moment, notifiers: &[impl AsRef<dyn Notifier>]) {
        for alert in self.alerts.values_mut().filter(|alert| alert.owner.is_none_or(|owner| owner == job)) {
            for notifier in notifiers {
                let notifier = notifier.as_ref();
                let told = alert.told.get(notifier.name()).copied();
                let owned = alert.owner.is_some();
                if told.is_some() && alert.level == Level::Ok && rules.disable_recovery_notification && owned {
                    alert.told.remove(notifier.name());
                    self.changed = true;
                } else if is_due(alert, told, rules, now) && is_taken(notifier, &alert.event(now)) {
                    alert.note(notifier.name(), told, now);
                    self.changed = true;
                }
            }
        }
        self.alerts.retain(|_, alert| alert.level != Level::Ok || !alert.told.is_empty());
    }

    /// How many are not over.
    pub(super) fn open_count(&self) -> usize {
        self.alerts.values().filter(|alert| alert.level != Level::Ok).count()
    }
}

/// A notifier that panics has taken nothing, and keeps nobody else from hearing of it.
fn is_taken(notifier: &dyn Notifier, event: &Event) -> bool {
    catch_unwind(AssertUnwindSafe(|| notifier.forward(event))).unwrap_or_else(|_| {
        log::error!("checks: the notifier {} panicked: this is a bug in Holt", notifier.name());
        false
    })
}

/// Whether a notifier has to hear of an alert now.
fn is_due(alert: &Alert, told: Option<Told>, rules: &Alerting, now: Moment) -> bool {
    match told {
        // An alert from before a restart speaks again when its check does.
        _ if alert.owner.is_none() && alert.level != Level::Ok => false,
        None => alert.level != Level::Ok && now.steady_ms - alert.since_ms >= millis(rules.for_duration),
        // Worse, better or over: news, whatever was repeated before.
        Some(told) if told.level != alert.level => true,
        Some(told) => {
            !rules.repeat_interval.is_zero()
                && (rules.repeat_number == 0 || told.count < rules.repeat_number)
                && now.steady_ms - told.at_ms >= millis(rules.repeat_interval)
        }
    }
}

impl Alert {
    fn describe(&mut self, reading: &Reading) {
        let bounded = |text: &str| cut(text, TEXT_BYTES_MAX).to_owned();
        self.attrs = gather(reading.attrs.iter().map(|(name, value)| ((*name).to_owned(), bounded(value))));
        self.description = bounded(&reading.description);
    }

    /// What is said of it now.
    pub(super) fn event(&self, now: Moment) -> Event {
        let recovered = self.level == Level::Ok && self.description.is_empty();
        Event {
            time: now.wall_ms.div_euclid(1000),
            level: self.level,
            key: self.key.clone(),
            labels: self.labels.clone(),
            attrs: self.attrs.clone(),
            description: if recovered { "recovered".to_owned() } else { self.description.clone() },
            format: String::new(),
        }
    }

    /// A notifier took the event.
    fn note(&mut self, notifier: &str, before: Option<Told>, now: Moment) {
        if self.level == Level::Ok {
            self.told.remove(notifier);
            return;
        }
        let count = match before {
            Some(before) if !self.level.is_worse_than(before.level) => before.count.saturating_add(1),
            _ => 1,
        };
        self.told.insert(notifier.to_owned(), Told { level: self.level, at_ms: now.steady_ms, count });
    }
}

/// Labels without those of the machine: they identify the reading on it. What is more special wins.
fn own_labels(spec: &Spec, reading: &Reading) -> BTreeMap<String, String> {
    let mut labels = spec.labels.clone();
    labels.extend(reading.labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    labels.insert("check".to_owned(), reading.check.to_owned());
    labels.insert("target".to_owned(), reading.target.clone());
    labels.insert("from_plugin".to_owned(), spec.plugin.to_owned());
    labels
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
