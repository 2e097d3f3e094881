//! The sums that limits are checked against, in memory: an account is read from the database once and kept up to date.

use std::collections::HashMap;

use crate::costs::money::Nanos;
use crate::costs::rules::{Account, Bound};
use crate::limits;

/// Shares of a hard limit that are announced, in percent.
const THRESHOLDS: [u8; 3] = [50, 80, 100];

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    spent: Nanos,
    /// Set aside by calls that are being made.
    reserved: Nanos,
    /// How many calls that is.
    open: u32,
    /// The highest threshold that was announced.
    announced: u8,
}

/// Why nothing was set aside.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// An account has to be read first.
    NotLoaded,
    /// The bound of that place does not allow it.
    Over { bound: usize, spent: Nanos, reserved: Nanos },
}

/// All accounts that were asked for. An account with an open call is never forgotten.
#[derive(Default)]
pub(super) struct Ledger {
    sums: HashMap<Account, Sum>,
    /// How often accounts were forgotten: what was read from the database before counts no more.
    evictions: u64,
}

impl Ledger {
    /// The accounts of these bounds that are not known, and what [`Ledger::load`] wants to be told.
    pub(super) fn missing(&self, bounds: &[Bound]) -> (Vec<usize>, u64) {
        let missing = (0..bounds.len()).filter(|&at| !self.sums.contains_key(&bounds[at].account)).collect();
        (missing, self.evictions)
    }

    /// Takes up sums read from the database after [`Ledger::missing`]; false when they may be old by now.
    pub(super) fn load(&mut self, bounds: &[Bound], read: &[(usize, Nanos)], evictions: u64) -> bool {
        if self.evictions != evictions {
            return false;
        }
        let before = self.sums.len();
        if before + read.len() > limits::COST_ACCOUNTS_MAX {
            self.sums.retain(|_, sum| sum.open > 0);
            if self.sums.len() < before {
                // What was read may be of an account that another call has changed since, and that went just now.
                self.evictions += 1;
                return false;
            }
        }
        for (at, spent) in read {
            let bound = &bounds[*at];
            // Somebody else may have been quicker, and may have spent since.
            self.sums.entry(bound.account.clone()).or_insert_with(|| Sum {
                spent: *spent,
                reserved: 0,
                open: 0,
                announced: crossed(*spent, bound.hard).unwrap_or(0),
            });
        }
        true
    }

    /// Sets an amount aside in all accounts, or in none.
    pub(super) fn reserve(&mut self, bounds: &[Bound], estimate: Nanos) -> Result<(), Refusal> {
        for (at, bound) in bounds.iter().enumerate() {
            let sum = self.sums.get(&bound.account).ok_or(Refusal::NotLoaded)?;
            let after = sum.spent.saturating_add(sum.reserved).saturating_add(estimate);
            if bound.hard > 0 && estimate > 0 && after > bound.hard {
                return Err(Refusal::Over { bound: at, spent: sum.spent, reserved: sum.reserved });
            }
        }
        for bound in bounds {
            if let Some(sum) = self.sums.get_mut(&bound.account) {
                sum.reserved = sum.reserved.saturating_add(estimate);
                sum.open += 1;
            }
        }
        Ok(())
    }

    /// Gives back what was set aside and books what was spent. Which bounds have crossed a threshold by it, and how
    /// much is spent there now. An account that was forgotten is right in the database already.
    pub(super) fn settle(&mut self, bounds: &[Bound], estimate: Nanos, cost: Nanos) -> Vec<(usize, u8, Nanos)> {
        let mut news = Vec::new();
        for (at, bound) in bounds.iter().enumerate() {
            let Some(sum) = self.sums.get_mut(&bound.account) else { continue };
            sum.reserved = sum.reserved.saturating_sub(estimate).max(0);
            sum.open = sum.open.saturating_sub(1);
            sum.spent = sum.spent.saturating_add(cost);
            if let Some(percent) = crossed(sum.spent, bound.hard).filter(|percent| *percent > sum.announced) {
                sum.announced = percent;
                news.push((at, percent, sum.spent));
            }
        }
        news
    }

    /// Whether more than a soft limit is spent.
    pub(super) fn is_soft_reached(&self, bounds: &[Bound]) -> bool {
        let over = |bound: &Bound| self.sums.get(&bound.account).is_some_and(|sum| sum.spent > bound.soft);
        bounds.iter().any(|bound| bound.soft > 0 && over(bound))
    }
}

/// The highest threshold that is reached.
fn crossed(spent: Nanos, hard: Nanos) -> Option<u8> {
    let share = |percent: u8| i128::from(spent) * 100 >= i128::from(hard) * i128::from(percent);
    THRESHOLDS.into_iter().rev().find(|percent| hard > 0 && share(*percent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Allowance, Limit};
    use crate::costs::meter::Spender;
    use crate::costs::money::nanos;
    use crate::costs::rules::Rules;
    use std::collections::BTreeMap;

    fn bounds(conversation: &str, hard: f64) -> Vec<Bound> {
        let rules = Rules {
            conversation: Limit { soft: hard / 2.0, hard },
            own: HashMap::new(),
            all: Allowance { daily: Limit { soft: 0.0, hard: 10.0 }, ..Allowance::default() },
            agents: BTreeMap::new(),
            keys: BTreeMap::new(),
        };
        let spender = Spender {
            turn_id: 1,
            conversation_id: conversation.to_owned(),
            agent: "a".to_owned(),
            identity: "key:k".to_owned(),
        };
        rules.bounds(&spender, "2026-01-02")
    }

    fn loaded(ledger: &mut Ledger, bounds: &[Bound], spent: f64) {
        let (missing, evictions) = ledger.missing(bounds);
        let read: Vec<(usize, Nanos)> = missing.into_iter().map(|at| (at, nanos(spent))).collect();
        assert!(ledger.load(bounds, &read, evictions));
    }

    #[test]
    fn what_is_set_aside_counts_and_the_limit_itself_may_be_spent() {
        let bounds = bounds("c", 1.0);
        let mut ledger = Ledger::default();
        assert_eq!(ledger.reserve(&bounds, 1), Err(Refusal::NotLoaded));
        loaded(&mut ledger, &bounds, 0.25);
        assert_eq!(ledger.reserve(&bounds, nanos(0.5)), Ok(()));
        assert_eq!(ledger.reserve(&bounds, nanos(0.25)), Ok(()));
        let refused = Err(Refusal::Over { bound: 0, spent: nanos(0.25), reserved: nanos(0.75) });
        assert_eq!(ledger.reserve(&bounds, 1), refused);
        assert_eq!(ledger.reserve(&bounds, 0), Ok(()), "what costs nothing is never refused");
        ledger.settle(&bounds, nanos(0.5), nanos(0.25));
        assert!(!ledger.is_soft_reached(&bounds));
        ledger.settle(&bounds, nanos(0.25), nanos(0.01));
        assert!(ledger.is_soft_reached(&bounds));
        assert_eq!(ledger.reserve(&bounds, nanos(0.49)), Ok(()));
    }

    #[test]
    fn each_threshold_is_announced_once_the_highest_first() {
        let bounds = bounds("c", 1.0);
        let mut ledger = Ledger::default();
        loaded(&mut ledger, &bounds, 0.0);
        let mut spend = |usd: f64| -> Vec<(usize, u8)> {
            assert_eq!(ledger.reserve(&bounds, 0), Ok(()));
            ledger.settle(&bounds, 0, nanos(usd)).into_iter().map(|(at, percent, _)| (at, percent)).collect()
        };
        assert_eq!(spend(0.4), []);
        assert_eq!(spend(0.1), [(0, 50)]);
        assert_eq!(spend(0.1), []);
        assert_eq!(spend(0.6), [(0, 100)]);
        assert_eq!(spend(4.0), [(1, 50)]);
        // What was passed before a restart is not news.
        let mut ledger = Ledger::default();
        loaded(&mut ledger, &bounds, 0.6);
        assert_eq!(ledger.settle(&bounds, 0, nanos(0.1)), []);
        assert_eq!(ledger.settle(&bounds, 0, nanos(0.1)), [(0, 80, nanos(0.8))]);
    }

    #[test]
    fn accounts_are_bounded_and_those_with_open_calls_stay() {
        let mut ledger = Ledger::default();
        let busy = bounds("busy", 1.0);
        loaded(&mut ledger, &busy, 0.0);
        ledger.reserve(&busy, nanos(0.5)).unwrap();
        for number in 0..limits::COST_ACCOUNTS_MAX * 2 {
            let bounds = bounds(&format!("c{number}"), 1.0);
            loop {
                let (missing, evictions) = ledger.missing(&bounds);
                let read: Vec<(usize, Nanos)> = missing.into_iter().map(|at| (at, 0)).collect();
                if ledger.load(&bounds, &read, evictions) {
                    break;
                }
            }
        }
        assert!(ledger.sums.len() <= limits::COST_ACCOUNTS_MAX);
        assert!(matches!(ledger.reserve(&busy, nanos(0.6)), Err(Refusal::Over { .. })));
    }

    #[test]
    fn sums_read_before_others_were_forgotten_are_read_again() {
        let bounds = bounds("c", 1.0);
        let mut ledger = Ledger::default();
        let (missing, evictions) = ledger.missing(&bounds);
        ledger.evictions += 1;
        let read: Vec<(usize, Nanos)> = missing.into_iter().map(|at| (at, 0)).collect();
        assert!(!ledger.load(&bounds, &read, evictions));
    }
}
