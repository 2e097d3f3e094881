//! All checks once, for somebody who waits for the answer.
//!
//! Threads: up to [`THREADS_MAX`] `check-once-N` look at the same time; all have ended when the answer is there.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::checks::plan::{Job, Plan};
use crate::checks::plugin::{Gather, Moment, Reading};
use crate::diag::HostRoot;
use crate::limits::WORKER_STACK_BYTES;
use crate::rt::order::gather;
use crate::rt::{Cancel, Threads, lock};

/// What blocks should not add up.
const THREADS_MAX: usize = 4;

/// Between two rounds of a check that compares: a second is what rates are commonly given for.
const PAUSE: Duration = Duration::from_secs(1);

/// For everything together.
const ALL_MAX: Duration = Duration::from_secs(600);

/// What a check said.
pub struct Outcome {
    pub plugin: &'static str,
    pub readings: Vec<Reading>,
    /// Why it cannot be done on this machine.
    pub unavailable: Vec<String>,
}

/// Runs every check of the plan and answers in its order. Checks that compare look twice, a second apart.
pub fn run_once(plan: Plan, root: &HostRoot, cancel: &Cancel) -> Vec<Outcome> {
    let plugins: Vec<&'static str> = plan.jobs.iter().map(|job| job.spec.plugin).collect();
    let jobs: Vec<(usize, Job)> = plan.jobs.into_iter().enumerate().rev().collect();
    // Guarded by the mutexes: jobs nobody has taken yet, the next one last; answers by number.
    let jobs = Arc::new(Mutex::new(jobs));
    let answers: Arc<Mutex<Vec<(usize, Outcome)>>> = Arc::default();
    let threads = Threads::new();
    let started = Instant::now();
    let worker = || {
        let (jobs, answers, root, cancel) = (Arc::clone(&jobs), Arc::clone(&answers), root.clone(), cancel.clone());
        move || {
            loop {
                let Some((number, job)) = lock(&jobs).pop() else { return };
                let outcome = look(job, &root, &cancel, started);
                lock(&answers).push((number, outcome));
            }
        }
    };
    for number in 0..THREADS_MAX.min(plugins.len()) {
        if threads.spawn(&format!("check-once-{number}"), WORKER_STACK_BYTES, worker()).is_err() {
            break;
        }
    }
    if threads.is_empty() {
        worker()();
    }
    // Every round has its own limit; this one bounds what ignores it.
    let _ = threads.join_all(ALL_MAX);
    let answers = std::mem::take(&mut *lock(&answers));
    let mut by_number: BTreeMap<usize, Outcome> = gather(answers);
    let late = |plugin| {
        let readings = vec![Reading::failed("plugin::hung", plugin, "the check did not end in time")];
        Outcome { plugin, readings, unavailable: Vec::new() }
    };
    plugins.into_iter().enumerate().map(|(n, plugin)| by_number.remove(&n).unwrap_or_else(|| late(plugin))).collect()
}

fn look(mut job: Job, root: &HostRoot, cancel: &Cancel, started: Instant) -> Outcome {
    let mut outcome = round(&mut job, root, cancel, started);
    if job.check.needs_two_rounds() {
        let gather = Gather::new(root, Moment::now(started), Instant::now() + PAUSE * 2, cancel);
        // Fails only when cancelled; then the second round says so itself.
        let _ = root.probe.pause(PAUSE, &gather.tool_context());
        outcome = round(&mut job, root, cancel, started);
    }
    outcome
}

fn round(job: &mut Job, root: &HostRoot, cancel: &Cancel, started: Instant) -> Outcome {
    let plugin = job.spec.plugin;
    let gather = Gather::new(root, Moment::now(started), Instant::now() + job.spec.timeout, cancel);
    let readings = catch_unwind(AssertUnwindSafe(|| job.check.gather(&gather)));
    let readings = readings.unwrap_or_else(|_| vec![Reading::panicked(plugin)]);
    Outcome { plugin, readings, unavailable: gather.into_notes().0 }
}
