//! The threads of the engine: that rounds run, block nobody, and end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::json;

use crate::alert::{Event, Level};
use crate::checks::engine::{Engine, Setup};
use crate::checks::plan::{Job, Plan};
use crate::checks::plugin::{Check, Gather, Reading};
use crate::diag::HostRoot;
use crate::notify::Notifier;

const LONG: Duration = Duration::from_secs(60);

struct Ear(Sender<Event>);

impl Notifier for Ear {
    fn name(&self) -> &'static str {
        "ear"
    }

    fn forward(&self, event: &Event) -> bool {
        self.0.send(event.clone()).is_ok()
    }
}

struct Broken;

impl Notifier for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn forward(&self, _: &Event) -> bool {
        panic!("expected by the test")
    }
}

/// What a round does.
enum Act {
    Say(&'static str),
    Panic,
    /// Until it is cancelled.
    Block(Sender<()>),
}

impl Check for Act {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        match self {
            Self::Say(target) => vec![Reading::new("mem::memory_usage", target, Level::Warning, "")],
            Self::Panic => panic!("expected by the test"),
            Self::Block(began_tx) => {
                let (cancel_tx, cancel_rx) = bounded(1);
                context.cancel.set_hook(move || cancel_tx.try_send(()).unwrap_or_default());
                // The test may not wait for it.
                let _ = began_tx.send(());
                cancel_rx.recv_timeout(LONG).unwrap_or_default();
                Vec::new()
            }
        }
    }
}

fn start(dir: &Path, acts: Vec<Act>) -> (Engine, Receiver<Event>) {
    let spec = || {
        let table = json!({"uptime": {"interval": "1h"}});
        let plan = Plan::new(&table, Duration::from_secs(3600)).unwrap().only(&["uptime".to_owned()]).unwrap();
        plan.jobs.into_iter().next().unwrap().spec
    };
    let jobs = acts.into_iter().map(|act| Job { spec: spec(), check: Box::new(act) as Box<dyn Check> }).collect();
    let (heard_tx, heard_rx) = bounded(100);
    let setup = Setup {
        plan: Plan { jobs },
        root: HostRoot::at(dir),
        machine: Arc::new(BTreeMap::new),
        state_file: dir.join("checks.json"),
        notifiers: vec![Arc::new(Broken), Arc::new(Ear(heard_tx))],
    };
    (Engine::start(setup).unwrap(), heard_rx)
}

#[test]
fn blocking_rounds_delay_no_other_and_end_at_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (began_tx, began_rx) = bounded(10);
    let block = || Act::Block(began_tx.clone());
    let (mut engine, heard_rx) = start(dir.path(), vec![block(), block(), block(), Act::Say("a"), Act::Say("b")]);
    for _ in 0..3 {
        began_rx.recv_timeout(LONG).unwrap();
    }
    let mut heard: Vec<String> = (0..2).map(|_| heard_rx.recv_timeout(LONG).unwrap().target().to_owned()).collect();
    heard.sort();
    assert_eq!(heard, ["a", "b"]);
    assert_eq!(engine.plugins(), ["uptime"]);
    assert!(engine.stop(LONG).is_empty());
    assert_eq!(engine.active_alerts(), 2);
    assert!(std::fs::read_to_string(dir.path().join("checks.json")).unwrap().contains("\"target\":\"b\""));
}

#[test]
fn a_panic_ends_a_round_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (mut engine, heard_rx) = start(dir.path(), vec![Act::Panic, Act::Say("a")]);
    let mut checks: Vec<String> = (0..2).map(|_| heard_rx.recv_timeout(LONG).unwrap().check().to_owned()).collect();
    checks.sort();
    assert_eq!(checks, ["mem::memory_usage", "plugin::panic"]);
    assert!(engine.stop(LONG).is_empty());
}

#[test]
fn an_engine_without_checks_waits_for_its_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (mut engine, _heard_rx) = start(dir.path(), Vec::new());
    assert_eq!(engine.active_alerts(), 0);
    assert!(engine.stop(LONG).is_empty());
}
