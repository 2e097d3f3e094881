//! The engine with a clock of the test: schedules, panics, rounds that hang, what a restart keeps.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::alert::{Event, Level};
use crate::checks::core::{Core, Ended};
use crate::checks::plan::{Job, Plan, Spec};
use crate::checks::plugin::{Check, Gather, Moment, Reading};
use crate::checks::registry::DEFAULTS;
use crate::checks::state::StateFile;
use crate::notify::Notifier;
use crate::rt::lock;

/// Never asked: tests end its rounds themselves. Its cursor counts them.
struct Scripted {
    cursor: u64,
}

impl Check for Scripted {
    fn gather(&mut self, _: &Gather<'_>) -> Vec<Reading> {
        Vec::new()
    }

    fn save(&self) -> Option<Value> {
        Some(json!(self.cursor))
    }

    fn restore(&mut self, state: &Value) {
        self.cursor = state.as_u64().unwrap_or(0);
    }
}

#[derive(Default)]
struct Ear(Mutex<Vec<Event>>);

impl Notifier for Ear {
    fn name(&self) -> &'static str {
        "ear"
    }

    fn forward(&self, event: &Event) -> bool {
        lock(&self.0).push(event.clone());
        true
    }
}

impl Ear {
    fn heard(&self) -> Vec<(String, Level)> {
        lock(&self.0).drain(..).map(|event| (event.check().to_owned(), event.level)).collect()
    }
}

fn at(steady_ms: i64) -> Moment {
    Moment { wall_ms: 1_774_170_000_000 + steady_ms, steady_ms }
}

/// A core with checks of these intervals in seconds.
fn core(path: PathBuf, intervals: &[u64], now: Moment) -> (Core, Arc<Ear>) {
    let jobs = intervals.iter().enumerate().map(|(number, &interval)| {
        let plan = Plan::new(&json!({}), Duration::from_secs(30)).unwrap();
        let alerting = plan.jobs.into_iter().next().unwrap().spec.alerting;
        let spec = Spec {
            plugin: "mem",
            id: format!("mem-{number}"),
            interval: Duration::from_secs(interval),
            timeout: DEFAULTS.timeout,
            labels: BTreeMap::new(),
            alerting: crate::checks::plan::Alerting { for_duration: Duration::ZERO, ..alerting },
        };
        Job { spec, check: Box::new(Scripted { cursor: 0 }) }
    });
    let ear = Arc::new(Ear::default());
    let notifiers: Vec<Arc<dyn Notifier>> = vec![Arc::clone(&ear) as Arc<dyn Notifier>];
    let plan = Plan { jobs: jobs.collect() };
    (Core::new(plan, StateFile::new(path), Arc::new(BTreeMap::new), notifiers, now), ear)
}

fn seen(level: Level) -> Ended {
    let readings = Some(vec![Reading::new("mem::memory_usage", "memory", level, "")]);
    Ended { readings, unavailable: Vec::new(), incomplete: false }
}

fn panicked() -> Ended {
    Ended { readings: None, unavailable: Vec::new(), incomplete: false }
}

#[test]
fn rounds_begin_at_their_interval_and_late_ones_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut core, _) = core(dir.path().join("s"), &[10, 60], at(0));
    assert_eq!((core.due(at(0)), core.next(false)), (Some(0), Some(0)));
    let (check, timeout) = core.begin(0, at(0)).unwrap();
    assert_eq!(timeout, DEFAULTS.timeout);
    assert!(core.begin(0, at(0)).is_none(), "one round of a check at a time");
    assert_eq!((core.due(at(49)), core.next(false)), (None, Some(50)), "first rounds are spread");
    assert_eq!(core.due(at(50)), Some(1));
    assert_eq!(core.next(true), Some(30_000), "without a free thread only the round that hangs");
    core.ended(0, check, seen(Level::Ok), at(2_000));
    let (check, _) = core.begin(1, at(60)).unwrap();
    core.ended(1, check, seen(Level::Ok), at(70));
    assert_eq!((core.due(at(9_999)), core.next(false)), (None, Some(10_000)), "from begin to begin");
    let (check, _) = core.begin(0, at(10_000)).unwrap();
    core.ended(0, check, seen(Level::Ok), at(25_000));
    assert_eq!(core.due(at(25_000)), Some(0), "late: at once, and only once");
    let (check, _) = core.begin(0, at(25_000)).unwrap();
    core.ended(0, check, seen(Level::Ok), at(25_001));
    assert_eq!(core.next(false), Some(35_000));
}

#[test]
fn a_panic_is_an_alert_that_recovers_and_takes_no_other_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut core, ear) = core(dir.path().join("s"), &[10], at(0));
    let mut round = |ended: Ended, now: i64| {
        let (check, _) = core.begin(0, at(now)).unwrap();
        core.ended(0, check, ended, at(now));
        ear.heard()
    };
    let event = |check: &str, level: Level| vec![(check.to_owned(), level)];
    assert_eq!(round(seen(Level::Warning), 0), event("mem::memory_usage", Level::Warning));
    assert_eq!(round(panicked(), 10), event("plugin::panic", Level::Critical));
    for now in 11..20 {
        assert_eq!(round(panicked(), now), []);
    }
    assert_eq!(round(seen(Level::Warning), 30), event("plugin::panic", Level::Ok));
    assert_eq!(round(seen(Level::Ok), 40), event("mem::memory_usage", Level::Ok));
}

#[test]
fn a_round_that_hangs_is_an_alert_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (mut core, ear) = core(dir.path().join("s"), &[10], at(0));
    let (check, _) = core.begin(0, at(0)).unwrap();
    assert_eq!((core.find_hung(at(29_999)), core.next(false)), (0, Some(30_000)));
    assert_eq!(core.find_hung(at(30_000)), 1);
    assert_eq!(core.find_hung(at(90_000)), 0, "counted once");
    assert_eq!(ear.heard(), [("plugin::hung".to_owned(), Level::Critical)]);
    assert!(core.ended(0, check, seen(Level::Ok), at(99_000)));
    assert_eq!(ear.heard(), [("plugin::hung".to_owned(), Level::Ok)]);
}

#[test]
fn alerts_and_cursors_last_through_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checks.json");
    let (mut first, ear) = core(path.clone(), &[10, 10], at(0));
    first.begin(0, at(0)).unwrap();
    first.ended(0, Box::new(Scripted { cursor: 7 }), seen(Level::Critical), at(5));
    assert_eq!(first.next(true), Some(0), "an alert is written at once");
    first.write(at(5), false);
    assert_eq!(first.next(true), None);
    first.begin(0, at(10_000)).unwrap();
    first.ended(0, Box::new(Scripted { cursor: 9 }), seen(Level::Critical), at(10_005));
    assert_eq!(first.next(true), Some(60_005), "cursors alone wait");
    first.write(at(10_005), false);
    assert!(std::fs::read_to_string(&path).unwrap().contains("\"mem-0\":7"));
    first.write(at(10_006), true);
    assert!(std::fs::read_to_string(&path).unwrap().contains("\"mem-0\":9"));
    assert_eq!(ear.heard().len(), 1);
    drop(first);

    let (mut second, ear) = core(path.clone(), &[10, 10], at(500));
    assert_eq!(second.open_count(), 1);
    let (check, _) = second.begin(0, at(500)).unwrap();
    assert_eq!(check.save(), Some(json!(9)));
    second.ended(0, check, seen(Level::Ok), at(501));
    assert_eq!(ear.heard(), [("mem::memory_usage".to_owned(), Level::Ok)]);
    second.write(at(501), true);

    // The disk is full, or gone: alerts go on, and writing is tried again.
    let (mut third, ear) = core(dir.path().join("gone/checks.json"), &[10], at(0));
    let (check, _) = third.begin(0, at(0)).unwrap();
    third.ended(0, check, seen(Level::Critical), at(1));
    third.write(at(1), false);
    assert_eq!((ear.heard().len(), third.next(true)), (1, Some(30_001)));
}

#[test]
fn alerts_of_a_check_that_was_taken_out_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checks.json");
    let (mut first, _) = core(path.clone(), &[10], at(0));
    let (check, _) = first.begin(0, at(0)).unwrap();
    let other = Reading::new("mem::memory_usage", "another", Level::Critical, "");
    first.ended(0, check, Ended { readings: Some(vec![other]), unavailable: Vec::new(), incomplete: false }, at(1));
    first.write(at(1), true);
    let (mut second, ear) = core(path, &[10], at(100));
    for round in 1..=3 {
        assert_eq!(ear.heard(), [], "perhaps it comes still: round {round}");
        let now = at(100 + round * 10_000);
        let (check, _) = second.begin(0, now).unwrap();
        second.ended(0, check, seen(Level::Ok), now);
    }
    assert_eq!(ear.heard(), [("mem::memory_usage".to_owned(), Level::Ok)]);
}
