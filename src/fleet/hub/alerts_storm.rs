//! When too much happens at once: how many alerts are told one by one before they become a summary.

use std::collections::{HashMap, VecDeque};

/// Told one by one of one machine in [`WINDOW_MS`].
pub(super) const MACHINE_MAX: usize = 8;
/// Told one by one in all.
pub(super) const ALL_MAX: usize = 24;
pub(super) const WINDOW_MS: i64 = 60_000;
/// A storm gathers this long before its first summary, so that most of it is in there.
pub(super) const GATHER_MS: i64 = 10_000;
/// No more than these in a summary: they are told one by one, and the storm is over.
pub(super) const FEW: usize = 3;
/// Machines whose counts are kept; beyond it those that are calm go.
const SCOPES_MAX: usize = 1024;

/// What may be told now.
#[derive(Default)]
pub(super) struct Storms {
    /// By machine.
    scopes: HashMap<String, Scope>,
    all: Scope,
}

#[derive(Default)]
struct Scope {
    /// When somebody was told something, oldest first.
    told: VecDeque<i64>,
    /// In a storm: when the next summary is made; 0 otherwise.
    summary_at: i64,
}

/// How an alert is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admit {
    Alone,
    /// In the summary of its machine.
    WithMachine,
    /// In the summary of all machines.
    WithAll,
    /// Not before then.
    Hold(i64),
}

impl Storms {
    /// Whether one more may be told now (milliseconds since 1970).
    pub(super) fn admit(&mut self, machine: &str, now: i64) -> Admit {
        if self.scopes.len() >= SCOPES_MAX && !self.scopes.contains_key(machine) {
            self.scopes.retain(|_, scope| scope.is_busy(now));
        }
        let of_machine = self.scopes.entry(machine.to_owned()).or_default();
        let wait = self.all.summary_at.max(of_machine.summary_at);
        if wait > now {
            Admit::Hold(wait)
        } else if self.all.summary_at > 0 {
            Admit::WithAll
        } else if of_machine.summary_at > 0 {
            Admit::WithMachine
        } else if of_machine.is_full(MACHINE_MAX, now) {
            of_machine.summary_at = now + GATHER_MS;
            Admit::Hold(of_machine.summary_at)
        } else if self.all.is_full(ALL_MAX, now) {
            self.all.summary_at = now + GATHER_MS;
            Admit::Hold(self.all.summary_at)
        } else {
            of_machine.told.push_back(now);
            self.all.told.push_back(now);
            Admit::Alone
        }
    }

    /// A summary of so many was due (no machine: of all); whether they are few enough to be told one by one.
    pub(super) fn summed_up(&mut self, machine: Option<&str>, count: usize, now: i64) -> bool {
        self.all.told.push_back(now);
        let scope = match machine {
            None => &mut self.all,
            Some(machine) => self.scopes.entry(machine.to_owned()).or_default(),
        };
        let is_over = count <= FEW;
        scope.summary_at = if is_over { 0 } else { now + WINDOW_MS };
        is_over
    }

    /// When something of a machine can be told at the earliest.
    pub(super) fn not_before(&self, machine: &str, now: i64) -> i64 {
        let of_machine = self.scopes.get(machine).map_or(0, |scope| scope.summary_at);
        now.max(of_machine).max(self.all.summary_at)
    }
}

impl Scope {
    fn is_full(&mut self, max: usize, now: i64) -> bool {
        while self.told.front().is_some_and(|at| *at <= now - WINDOW_MS || *at > now) {
            self.told.pop_front();
        }
        self.told.len() >= max
    }

    fn is_busy(&self, now: i64) -> bool {
        self.summary_at > now - WINDOW_MS || self.told.back().is_some_and(|at| *at > now - WINDOW_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_one_machine_leaves_the_others_alone() {
        let mut storms = Storms::default();
        for _ in 0..MACHINE_MAX {
            assert_eq!(storms.admit("a", 1000), Admit::Alone);
        }
        assert_eq!(storms.admit("a", 1000), Admit::Hold(1000 + GATHER_MS));
        assert_eq!(storms.admit("b", 1000), Admit::Alone);
        assert_eq!(storms.not_before("a", 1000), 1000 + GATHER_MS);
        assert_eq!(storms.not_before("b", 1000), 1000);
        let due = 1000 + GATHER_MS;
        assert_eq!(storms.admit("a", due), Admit::WithMachine);
        assert!(!storms.summed_up(Some("a"), 40, due));
        assert_eq!(storms.admit("a", due + 1), Admit::Hold(due + WINDOW_MS));
        let calm = due + WINDOW_MS;
        assert_eq!(storms.admit("a", calm), Admit::WithMachine);
        assert!(storms.summed_up(Some("a"), 1, calm));
        assert_eq!(storms.admit("a", calm), Admit::Alone);
    }

    #[test]
    fn a_storm_over_all_machines_is_one() {
        let mut storms = Storms::default();
        let mut held = 0;
        for number in 0..ALL_MAX * 2 {
            match storms.admit(&number.to_string(), 5000) {
                Admit::Alone => {}
                Admit::Hold(until) => {
                    assert_eq!(until, 5000 + GATHER_MS);
                    held += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(held, ALL_MAX);
        assert_eq!(storms.admit("x", 5000 + GATHER_MS), Admit::WithAll);
        assert!(!storms.summed_up(None, held, 5000 + GATHER_MS));
        assert!(matches!(storms.admit("y", 5000 + GATHER_MS), Admit::Hold(_)));
    }

    #[test]
    fn a_clock_that_was_put_back_does_not_hold_alerts_for_ever() {
        let mut storms = Storms::default();
        for _ in 0..MACHINE_MAX {
            storms.admit("a", 1_000_000_000);
        }
        assert_eq!(storms.admit("a", 5000), Admit::Alone);
    }
}
