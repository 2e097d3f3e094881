//! Several targets at once: one that does not answer must not make the others wait.
//!
//! Threads: `check-each`, at most [`AT_ONCE_MAX`] per round and only while it lasts; the round waits for all of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::checks::plugin::{Gather, Reading};
use crate::checks::settings::{SettingError, Settings};
use crate::rt::{Cancel, Threads, lock};

/// Threads of one round: what the reference does at once.
const AT_ONCE_MAX: usize = 10;

/// A TLS handshake, a parser of JSON and a few buffers.
const STACK_BYTES: usize = 256 * 1024;

/// Targets of one instance. With the longest time of each, all of them fit into a round.
pub(super) const TARGETS_MAX: usize = 100;

/// Longest time for one target.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// What one look at one target gave.
#[derive(Debug)]
pub(super) enum Seen {
    Readings(Vec<Reading>),
    /// This machine cannot do that at all, and why.
    Unavailable(String),
    /// The round was over first.
    Nothing,
}

/// How long a look at one target may take, and who may end it.
pub(super) struct Look<'a> {
    pub(super) deadline: Instant,
    pub(super) cancel: &'a Cancel,
    pub(super) now_s: i64,
}

/// The list `targets`, which must not be empty.
pub(super) fn targets(settings: &mut Settings, what: &str) -> Result<Vec<String>, SettingError> {
    let mut targets = settings.some_texts("targets", what)?;
    for target in &mut targets {
        *target = target.trim().to_owned();
    }
    targets.retain(|target| !target.is_empty());
    if targets.len() > TARGETS_MAX {
        return Err(settings.error("targets", format!("holds more than {TARGETS_MAX}; use a second table")));
    }
    Ok(targets)
}

/// A time limit for one target.
pub(super) fn timeout(
    settings: &mut Settings,
    name: &'static str,
    default: Duration,
) -> Result<Duration, SettingError> {
    let timeout = settings.duration_from(name, default, Duration::from_millis(50))?;
    if timeout > TIMEOUT_MAX {
        return Err(settings.error(name, format!("must be at most {}s", TIMEOUT_MAX.as_secs())));
    }
    Ok(timeout)
}

/// Looks at all targets, a few at a time, each for at most `timeout`. The readings come in the order of the targets.
///
/// A target whose time would not fit into the round any more is left out, and the round is marked incomplete.
pub(super) fn each<T, F>(targets: &Arc<[T]>, timeout: Duration, context: &Gather<'_>, look: F) -> Vec<Reading>
where
    T: Send + Sync + 'static,
    F: Fn(&T, &Look<'_>) -> Seen + Send + Sync + 'static,
{
    let own = Arc::clone(targets);
    all(targets.len(), timeout, context, Arc::new(move |idx, seen| look(&own[idx], seen)))
}

/// Work on the target of that index.
type Work = Arc<dyn Fn(usize, &Cancel) -> Seen + Send + Sync>;

/// A look at the target of that index.
type LookAt = Arc<dyn Fn(usize, &Look<'_>) -> Seen + Send + Sync>;

/// The same without a type of target: compiled once.
fn all(n: usize, timeout: Duration, context: &Gather<'_>, look: LookAt) -> Vec<Reading> {
    let (deadline, now_s) = (context.deadline, context.now_s());
    let one = move |idx: usize, cancel: &Cancel| {
        let ends = Instant::now() + timeout;
        if cancel.is_set() || ends > deadline {
            return Seen::Nothing;
        }
        look(idx, &Look { deadline: ends, cancel, now_s })
    };
    let seen = if n == 1 { vec![Some(one(0, context.cancel))] } else { together(n, context.cancel, Arc::new(one)) };
    let mut readings = Vec::new();
    for seen in seen {
        match seen {
            _ if context.cancel.is_set() => context.incomplete(),
            Some(Seen::Readings(found)) => readings.extend(found),
            Some(Seen::Unavailable(reason)) => {
                context.unavailable(reason);
                context.incomplete();
            }
            // No thread to be had, or it died: the next round tries again.
            Some(Seen::Nothing) | None => context.incomplete(),
        }
    }
    readings
}

/// Every worker takes the next target until there is none.
fn together(n: usize, cancel: &Cancel, one: Work) -> Vec<Option<Seen>> {
    let next = Arc::new(AtomicUsize::new(0));
    let results: Arc<Mutex<Vec<Option<Seen>>>> = Arc::new(Mutex::new((0..n).map(|_| None).collect()));
    let threads = Threads::new();
    // A cancel has one hook, so every worker has a cancel of its own.
    let cancels: Vec<Cancel> = (0..AT_ONCE_MAX.min(n)).map(|_| Cancel::new()).collect();
    let every = cancels.clone();
    cancel.set_hook(move || {
        for cancel in &every {
            cancel.cancel();
        }
    });
    for cancel in cancels {
        let (one, next, results) = (Arc::clone(&one), Arc::clone(&next), Arc::clone(&results));
        let work = move || loop {
            let idx = next.fetch_add(1, Ordering::Relaxed);
            if idx >= n {
                break;
            }
            let seen = one(idx, &cancel);
            lock(&results)[idx] = Some(seen);
        };
        // Fewer workers are slower; with none at all the round is incomplete.
        if let Err(error) = threads.spawn("check-each", STACK_BYTES, work) {
            log::warn!("a check has fewer threads than it wants: {error}");
            break;
        }
    }
    // Every look ends at its deadline, so this wait does too.
    while !threads.join_all(TIMEOUT_MAX).is_empty() {}
    cancel.clear_hook();
    std::mem::take(&mut *lock(&results))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::alert::Level;
    use crate::checks::plugin::{Check, Moment};
    use crate::checks::registry::Build;
    use crate::diag::HostRoot;
    use crate::net::test_peer::LONG;
    use serde_json::Value;

    /// A round of a check, and what it said beside its readings.
    pub(in crate::checks) fn round(check: &mut dyn Check, root: &HostRoot) -> (Vec<Reading>, Vec<String>, bool) {
        let cancel = Cancel::new();
        let context = Gather::new(root, Moment::now(Instant::now()), Instant::now() + LONG, &cancel);
        let readings = check.gather(&context);
        let (unavailable, incomplete) = context.into_notes();
        (readings, unavailable, incomplete)
    }

    /// The only check of an instance.
    pub(in crate::checks) fn built(build: Build, table: &Value) -> Result<Box<dyn Check>, SettingError> {
        let mut settings = Settings::new("checks.x", table)?;
        let mut checks = build(&mut settings)?;
        settings.finish()?;
        assert_eq!(checks.len(), 1);
        Ok(checks.remove(0))
    }

    /// Check, target, level and description of each reading.
    pub(in crate::checks) fn lines(readings: &[Reading]) -> Vec<String> {
        let line = |r: &Reading| format!("{} {} {}: {}", r.check, r.target, r.level, r.description);
        readings.iter().map(line).collect()
    }

    fn run(
        n: usize,
        within: Duration,
        cancel: &Cancel,
        look: fn(&String, &Look<'_>) -> Seen,
    ) -> (Vec<String>, Vec<String>, bool) {
        let root = HostRoot::at("/nowhere");
        let context = Gather::new(&root, Moment::default(), Instant::now() + within, cancel);
        let targets: Arc<[String]> = (0..n).map(|n| n.to_string()).collect();
        let readings = each(&targets, Duration::from_secs(1), &context, look);
        let (unavailable, incomplete) = context.into_notes();
        (readings.into_iter().map(|reading| reading.target).collect(), unavailable, incomplete)
    }

    fn fine(n: &str, _: &Look<'_>) -> Seen {
        Seen::Readings(vec![Reading::new("a::b", n, Level::Ok, "")])
    }

    #[test]
    fn readings_come_in_order_and_what_does_not_fit_is_no_alarm() {
        for n in [1, 2, 57] {
            let expected: Vec<String> = (0..n).map(|n| n.to_string()).collect();
            assert_eq!(run(n, LONG, &Cancel::new(), |n, look| fine(n, look)), (expected, vec![], false));
            assert_eq!(run(n, Duration::ZERO, &Cancel::new(), |n, look| fine(n, look)), (vec![], vec![], true));
        }
        let cancel = Cancel::new();
        cancel.cancel();
        assert_eq!(run(3, LONG, &cancel, |n, look| fine(n, look)), (vec![], vec![], true));
        let cannot = |_: &String, _: &Look<'_>| Seen::Unavailable("no".to_owned());
        assert_eq!(run(1, LONG, &Cancel::new(), cannot), (vec![], vec!["no".to_owned()], true));
    }

    #[test]
    fn a_worker_that_dies_harms_no_other_target() {
        let dies = |n: &String, look: &Look<'_>| if n == "7" { panic!("expected by the test") } else { fine(n, look) };
        let (targets, _, incomplete) = run(20, LONG, &Cancel::new(), dies);
        assert_eq!((targets.len(), incomplete), (19, true));
    }

    #[test]
    fn a_cancel_reaches_every_worker() {
        let cancel = Cancel::new();
        let ends = cancel.clone();
        let waits = |_: &String, look: &Look<'_>| {
            let (ended_tx, ended_rx) = crossbeam_channel::bounded(1);
            look.cancel.set_hook(move || ended_tx.send(()).unwrap());
            ended_rx.recv().unwrap();
            Seen::Nothing
        };
        let threads = Threads::new();
        threads.spawn("ends", STACK_BYTES, move || ends.cancel()).unwrap();
        assert_eq!(run(30, LONG, &cancel, waits), (vec![], vec![], true));
        assert!(threads.join_all(LONG).is_empty());
    }
}
