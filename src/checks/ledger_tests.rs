//! Tables of the alert engine, with a clock of the test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::alert::{Event, Level};
use crate::checks::ledger::{Ledger, Round, VANISHED_ROUNDS};
use crate::checks::plan::{Alerting, Spec};
use crate::checks::plugin::{Moment, Reading};
use crate::notify::Notifier;
use crate::rt::lock;

use Level::{Critical, Info, Ok, Warning};

const RULES: Alerting = Alerting {
    disabled: false,
    for_duration: Duration::ZERO,
    repeat_interval: Duration::from_secs(300),
    repeat_number: 3,
    disable_recovery_notification: false,
    recover_rounds: 1,
    recover_after: Duration::ZERO,
};

/// Takes what it is told, unless it is closed.
struct Listener {
    name: &'static str,
    open: Mutex<bool>,
    heard: Mutex<Vec<Event>>,
}

impl Notifier for Listener {
    fn name(&self) -> &str {
        self.name
    }

    fn forward(&self, event: &Event) -> bool {
        let open = *lock(&self.open);
        if open {
            lock(&self.heard).push(event.clone());
        }
        open
    }
}

struct World {
    ledger: Ledger,
    spec: Spec,
    now: Moment,
    address: &'static str,
    listeners: Vec<Arc<Listener>>,
}

impl World {
    fn new(rules: Alerting) -> Self {
        Self::with(rules, &["a"])
    }

    fn with(rules: Alerting, names: &[&'static str]) -> Self {
        let listener =
            |&name: &&'static str| Arc::new(Listener { name, open: Mutex::new(true), heard: Mutex::default() });
        let labels = BTreeMap::from([("site".to_owned(), "home".to_owned())]);
        let spec = Spec {
            plugin: "disk",
            id: String::new(),
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(20),
            labels,
            alerting: rules,
        };
        Self {
            ledger: Ledger::default(),
            spec,
            now: Moment { wall_ms: 1_774_170_000_000, steady_ms: 1_000_000 },
            address: "10.0.0.1",
            listeners: names.iter().map(listener).collect(),
        }
    }

    fn pass(&mut self, seconds: i64) {
        self.now.wall_ms += seconds * 1000;
        self.now.steady_ms += seconds * 1000;
    }

    /// One round of a job, now; half a minute later it is over.
    fn round_of(&mut self, job: usize, readings: Vec<Reading>, complete: bool) {
        let address = self.address;
        let machine = move || BTreeMap::from([("from_hostip".to_owned(), address.to_owned())]);
        let round = Round { job, spec: &self.spec, complete, now: self.now, machine: &machine };
        self.ledger.take(&round, readings);
        let notifiers: Vec<Arc<dyn Notifier>> =
            self.listeners.iter().map(|l| Arc::clone(l) as Arc<dyn Notifier>).collect();
        self.ledger.tell(job, &self.spec.alerting, self.now, &notifiers);
        self.pass(30);
    }

    fn round(&mut self, levels: &[Level]) -> Vec<Level> {
        for &level in levels {
            self.round_of(0, vec![Reading::new("disk::space_usage", "/data", level, format!("it is {level}"))], true);
        }
        self.heard(0)
    }

    /// A value that is within the margin of its threshold.
    fn within_margin(&mut self, level: Level, held: Level) -> Vec<Level> {
        let reading = Reading { held, ..Reading::new("disk::space_usage", "/data", level, "near") };
        self.round_of(0, vec![reading], true);
        self.heard(0)
    }

    fn events(&self, listener: usize) -> Vec<Event> {
        std::mem::take(&mut *lock(&self.listeners[listener].heard))
    }

    fn heard(&self, listener: usize) -> Vec<Level> {
        self.events(listener).iter().map(|event| event.level).collect()
    }

    fn set_open(&self, listener: usize, open: bool) {
        *lock(&self.listeners[listener].open) = open;
    }

    /// As after a restart that took a minute: another steady clock, the state as it was kept.
    fn restart(&mut self) {
        let kept: Value = serde_json::from_str(&self.ledger.to_json(self.now).to_string()).unwrap();
        self.pass(60);
        self.now.steady_ms = 7;
        let names: Vec<&str> = self.listeners.iter().map(|listener| listener.name).collect();
        self.ledger = Ledger::from_json(&kept, self.now, &names);
    }
}

#[test]
fn an_alert_is_told_repeated_and_taken_back() {
    let mut world = World::new(RULES);
    assert_eq!(world.round(&[Ok, Ok]), []);
    // Ten rounds are a repeat interval.
    assert_eq!(world.round(&[Warning; 10]), [Warning]);
    assert_eq!(world.round(&[Warning; 10]), [Warning]);
    assert_eq!(world.round(&[Warning; 10]), [Warning]);
    assert_eq!(world.round(&[Warning; 50]), [], "three times is what was asked for");
    assert_eq!(world.ledger.open_count(), 1);
    assert_eq!(world.round(&[Ok, Ok]), [Ok]);
    assert!(world.ledger.alerts.is_empty());
    assert_eq!(world.round(&[Info]), [Info], "the next one is another alert");
}

#[test]
fn the_rules_of_repeating_are_obeyed() {
    let check = |rules: Alerting, rounds: usize, expected: usize| {
        let mut world = World::new(rules);
        assert_eq!(world.round(&vec![Critical; rounds]).len(), expected, "{rules:?}");
    };
    check(Alerting { repeat_number: 0, ..RULES }, 101, 11);
    check(Alerting { repeat_number: 1, ..RULES }, 101, 1);
    check(Alerting { repeat_interval: Duration::ZERO, ..RULES }, 101, 1);
    check(Alerting { repeat_interval: Duration::from_millis(1), ..RULES }, 101, 3);
    check(Alerting { disabled: true, ..RULES }, 101, 0);
    let mut world = World::new(Alerting { disable_recovery_notification: true, ..RULES });
    assert_eq!(world.round(&[Critical, Ok, Ok]), [Critical]);
    assert!(world.ledger.alerts.is_empty());
}

#[test]
fn what_does_not_last_is_not_told() {
    let rules = Alerting { for_duration: Duration::from_secs(60), ..RULES };
    let mut world = World::new(rules);
    assert_eq!(world.round(&[Warning, Warning, Ok, Warning, Warning, Ok]), []);
    assert!(world.ledger.alerts.is_empty());
    assert_eq!(world.round(&[Warning, Critical, Critical, Ok]), [Critical, Ok]);
}

#[test]
fn an_escalation_is_told_at_once_whatever_was_repeated() {
    let mut world = World::new(Alerting { repeat_number: 1, ..RULES });
    assert_eq!(world.round(&[Warning; 20]), [Warning]);
    assert_eq!(world.round(&[Critical]), [Critical]);
    assert_eq!(world.round(&[Warning, Warning, Critical, Ok]), [Warning, Critical, Ok]);
    let mut world = World::new(RULES);
    world.round(&[Info; 40]);
    let after = world.round(&[Critical; 40]);
    assert_eq!(after, [Critical; 3], "the new level is repeated like any other");
}

#[test]
fn a_value_that_dances_on_its_threshold_does_not_flap() {
    let mut world = World::new(Alerting { repeat_interval: Duration::ZERO, ..RULES });
    assert_eq!(world.round(&[Warning]), [Warning]);
    for _ in 0..50 {
        assert_eq!(world.within_margin(Ok, Warning), []);
        assert_eq!(world.round(&[Warning]), []);
    }
    assert_eq!(world.within_margin(Ok, Ok), [Ok]);
    assert_eq!(world.round(&[Critical]), [Critical]);
    assert_eq!(world.within_margin(Warning, Critical), []);
    assert_eq!(world.within_margin(Ok, Warning), [Warning], "one level down, and no further");
    // Without a number it is rounds and time that must pass.
    let rules = Alerting { recover_rounds: 3, recover_after: Duration::from_secs(120), ..RULES };
    let mut world = World::new(rules);
    assert_eq!(world.round(&[Critical, Ok, Ok, Critical, Ok, Ok, Ok, Ok]), [Critical]);
    assert_eq!(world.round(&[Ok]), [Ok]);
}

#[test]
fn an_event_has_labels_key_and_words_of_the_first_one() {
    let mut world = World::new(RULES);
    let reading = Reading::new("disk::space_usage", "/data", Warning, "full").attr("used", "1 GiB");
    world.round_of(0, vec![reading.label("method", "GET")], true);
    let first = world.events(0).remove(0);
    let labels: Vec<(&str, &str)> = first.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        labels,
        [
            ("check", "disk::space_usage"),
            ("from_agent", "holt"),
            ("from_hostip", "10.0.0.1"),
            ("from_plugin", "disk"),
            ("method", "GET"),
            ("site", "home"),
            ("target", "/data")
        ]
    );
    assert_eq!((first.time, first.description.as_str()), (1_774_170_000, "full"));
    assert_eq!(first.attrs["used"], "1 GiB");
    assert_eq!(first.key, crate::alert::key_of(&first.labels));
    // The address changes while it is open; so it does with the recovery of the same alert.
    world.address = "10.9.9.9";
    let fine = Reading::new("disk::space_usage", "/data", Ok, "").label("method", "GET");
    world.round_of(0, vec![fine], true);
    let last = world.events(0).remove(0);
    assert_eq!((last.level, &last.key, &last.labels), (Ok, &first.key, &first.labels));
    assert_eq!(last.description, "recovered");
    world.round_of(0, vec![Reading::new("disk::space_usage", "/data", Warning, "full")], true);
    assert_eq!(world.events(0)[0].label("from_hostip"), "10.9.9.9");
}

#[test]
fn only_what_was_taken_counts_and_each_notifier_for_itself() {
    let mut world = World::with(RULES, &["a", "b"]);
    world.set_open(1, false);
    assert_eq!(world.round(&[Warning, Warning]), [Warning]);
    assert_eq!(world.heard(1), []);
    world.set_open(1, true);
    assert_eq!(world.round(&[Warning]), []);
    assert_eq!(world.heard(1), [Warning], "told in the next round");
    world.set_open(0, false);
    assert_eq!(world.round(&[Ok, Ok]), []);
    assert_eq!(world.heard(1), [Ok]);
    assert_eq!((world.ledger.alerts.len(), world.ledger.open_count()), (1, 0));
    world.set_open(0, true);
    assert_eq!(world.round(&[Ok]), [Ok]);
    assert!(world.ledger.alerts.is_empty());
    // Bad again before one of them knew that it was over: for that one it never was.
    world.round(&[Critical]);
    world.events(1);
    world.set_open(0, false);
    world.round(&[Ok]);
    world.set_open(0, true);
    assert_eq!(world.round(&[Critical]), []);
    assert_eq!(world.heard(1), [Ok, Critical]);
}

#[test]
fn what_nobody_took_is_not_lost_while_it_has_to_last() {
    // A line in a log: bad for one round, held for ten minutes.
    let rules = Alerting { recover_after: Duration::from_secs(600), ..RULES };
    let mut world = World::new(rules);
    world.set_open(0, false);
    assert_eq!(world.round(&[Warning, Ok, Ok]), []);
    world.restart();
    world.set_open(0, true);
    assert_eq!(world.round(&[Ok]), [Warning]);
    assert_eq!(world.round(&[Ok; 21]), [Warning, Ok], "repeated, then it is over");
}

#[test]
fn alerts_last_through_a_restart() {
    let mut world = World::with(RULES, &["a", "b"]);
    world.round(&[Warning]);
    let first = world.events(1).remove(0);
    world.restart();
    world.address = "10.9.9.9";
    assert_eq!(world.round(&[Warning]), [], "known already");
    assert_eq!(world.round(&[Warning; 7]), [Warning], "repeated when it was due");
    assert_eq!(world.round(&[Critical]), [Critical]);
    world.restart();
    world.events(1);
    world.round(&[Ok]);
    let last = world.events(1).remove(0);
    assert_eq!((last.level, last.key, last.labels), (Ok, first.key, first.labels));
    // A recovery that was not taken before the restart is told after it, by whatever round comes.
    world.round(&[Warning]);
    world.set_open(0, false);
    world.round(&[Ok]);
    world.events(0);
    world.restart();
    world.set_open(0, true);
    world.round_of(7, Vec::new(), true);
    assert_eq!(world.heard(0), [Ok]);
    // Notifiers that are no more are not waited for.
    world.round(&[Warning]);
    world.restart();
    world.listeners.pop();
    world.restart();
    assert_eq!(world.ledger.alerts.values().next().unwrap().told.len(), 1);
}

#[test]
fn a_clock_that_was_set_back_makes_no_alert_wait() {
    let mut world = World::new(RULES);
    world.round(&[Warning]);
    world.now.wall_ms -= 86_400_000 * 365;
    world.restart();
    assert_eq!(world.round(&[Warning; 11]), [Warning]);
}

#[test]
fn what_is_gone_is_closed_after_some_rounds() {
    let mut world = World::new(Alerting { repeat_interval: Duration::ZERO, ..RULES });
    world.round(&[Critical]);
    world.events(0);
    for _ in 1..VANISHED_ROUNDS {
        world.round_of(0, Vec::new(), true);
        assert_eq!(world.heard(0), []);
    }
    // The source as a whole did not answer, or this target could not be measured: nothing has vanished.
    for _ in 0..9 {
        world.round_of(0, Vec::new(), false);
        world.round_of(0, vec![Reading::failed("disk::hung", "/data", "hangs")], true);
    }
    assert!(world.events(0).iter().all(|event| event.check() == "disk::hung"));
    world.round_of(1, Vec::new(), true);
    assert_eq!(world.heard(0), [], "another check does not see it anyway");
    world.round_of(0, Vec::new(), true);
    let event = world.events(0).remove(0);
    assert_eq!((event.level, event.target()), (Ok, "/data"));
    assert_eq!(event.description, "/data is no longer there: it was not seen in the last rounds");
    // Once more, for the other alert; then nothing is left.
    world.round_of(0, Vec::new(), true);
    world.round_of(0, Vec::new(), true);
    assert!(world.ledger.alerts.is_empty());
}

#[test]
fn alerts_of_checks_that_are_no_more_are_closed() {
    let mut world = World::new(RULES);
    world.round(&[Critical]);
    world.restart();
    world.ledger.end_forgotten(|plugin| plugin == "cpu");
    assert_eq!(world.ledger.open_count(), 1);
    world.ledger.end_forgotten(|plugin| plugin == "disk");
    world.events(0);
    world.round_of(3, Vec::new(), true);
    let event = world.events(0).remove(0);
    assert_eq!((event.level, event.description.as_str()), (Ok, "/data is no longer checked"));
}

#[test]
fn two_instances_that_see_the_same_do_not_fight() {
    let mut world = World::new(RULES);
    let see = |level: Level| vec![Reading::new("disk::space_usage", "/data", level, "")];
    for _ in 0..5 {
        world.round_of(0, see(Ok), true);
        world.round_of(1, see(Warning), true);
    }
    assert_eq!(world.heard(0), [Warning]);
    world.round_of(0, see(Critical), true);
    world.round_of(1, see(Warning), true);
    assert_eq!(world.heard(0), [Critical], "the worst speaks");
    world.round_of(0, see(Ok), true);
    assert_eq!(world.heard(0), [Ok]);
    world.round_of(1, see(Warning), true);
    assert_eq!(world.heard(0), [Warning]);
}

#[test]
fn a_damaged_list_of_alerts_is_read_as_far_as_it_makes_sense() {
    let mut world = World::new(RULES);
    world.round(&[Warning]);
    let Value::Array(mut list) = world.ledger.to_json(world.now) else { panic!("a list") };
    for (name, value) in [("level", "Bad"), ("key", ""), ("told", "x"), ("since_ms", "y"), ("labels", "z")] {
        let mut odd = list[0].clone();
        odd[name] = if value.is_empty() { Value::Null } else { value.into() };
        list.push(odd);
    }
    list.push(Value::Null);
    let read = Ledger::from_json(&Value::Array(list), world.now, &["a"]);
    assert_eq!(read.alerts.len(), 1);
    assert!(Ledger::from_json(&Value::Null, world.now, &["a"]).alerts.is_empty());
}
