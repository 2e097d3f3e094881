//! When to dial again (contract agent-link 3.3, with Holt's changes). Pure: time and chance come in as arguments.

use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// The longest wait after ordinary failures.
const ORDINARY_MAX: Duration = Duration::from_secs(300);
/// The longest wait while a person has to approve this machine, or to set up its hub: nobody likes to wait for a machine five minutes.
const APPROVAL_MAX: Duration = Duration::from_secs(60);
const REFUSED_MIN: Duration = Duration::from_secs(60);
const REFUSED_MAX: Duration = Duration::from_secs(1800);
/// The longest wait that a hub may order.
const ORDERED_MAX: Duration = Duration::from_secs(3600);
/// A registration that lasted this long shows that the hub is well.
const STABLE: Duration = Duration::from_secs(60);

/// How a connection, or the attempt at one, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// `disconnect` with that `retry_after_sec`; zero and less count as a lost connection.
    Ordered { retry_after_sec: i64, lasted: Duration },
    /// The upgrade was answered with 401.
    Unauthorized,
    /// Registered, and ended in any other way.
    Lost { lasted: Duration },
    /// Somebody has to do something at the hub: approve this machine, or set the hub up.
    Waiting,
    /// Never registered: dial, status, TLS, no or a bad `ack`, `ok:false`.
    Failed,
}

/// The one number that is kept between attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: SECOND }
    }
}

impl Backoff {
    /// How long to wait before the next attempt. `chance` is uniform in 0 to 1: the jitter, so that a fleet does not
    /// come back in one moment.
    pub fn wait(&mut self, ended: &Ended, chance: f64) -> Duration {
        let (wait, max) = match ended {
            Ended::Ordered { retry_after_sec, .. } if *retry_after_sec > 0 => {
                self.next = SECOND;
                let seconds = u64::try_from(*retry_after_sec).unwrap_or(1);
                let wait = Duration::from_secs(seconds).min(ORDERED_MAX);
                // Never early: the hub has spread its agents over time.
                return wait.mul_f64(1.0 + 0.25 * chance.clamp(0.0, 1.0));
            }
            Ended::Unauthorized => {
                let wait = self.next.clamp(REFUSED_MIN, REFUSED_MAX);
                self.next = (wait * 2).min(REFUSED_MAX);
                (wait, REFUSED_MAX)
            }
            Ended::Ordered { lasted, .. } | Ended::Lost { lasted } if *lasted >= STABLE => {
                self.next = SECOND * 2;
                (SECOND, SECOND * 2)
            }
            Ended::Ordered { .. } | Ended::Lost { .. } | Ended::Failed => self.grow(ORDINARY_MAX),
            Ended::Waiting => self.grow(APPROVAL_MAX),
        };
        wait.mul_f64(0.75 + 0.5 * chance.clamp(0.0, 1.0)).min(max)
    }

    fn grow(&mut self, max: Duration) -> (Duration, Duration) {
        let wait = self.next.min(max);
        self.next = (wait * 2).min(ORDINARY_MAX);
        (wait, max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(backoff: &mut Backoff, ended: &Ended, times: usize) -> Vec<u64> {
        (0..times).map(|_| backoff.wait(ended, 0.5).as_secs()).collect()
    }

    fn lost(after: u64) -> Ended {
        Ended::Lost { lasted: Duration::from_secs(after) }
    }

    #[test]
    fn failures_double_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        assert_eq!(seconds(&mut backoff, &Ended::Failed, 11), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        // A hub that accepts, acks and drops is not dialled once a second for ever.
        assert_eq!(seconds(&mut backoff, &lost(59), 2), [300, 300]);
        assert_eq!(seconds(&mut backoff, &lost(60), 3), [1, 1, 1]);
        assert_eq!(seconds(&mut backoff, &Ended::Failed, 3), [2, 4, 8]);
        let mut flapping = Backoff::default();
        assert_eq!(seconds(&mut flapping, &lost(0), 4), [1, 2, 4, 8]);
    }

    #[test]
    fn a_refused_token_is_tried_slowly_and_harms_nothing_else() {
        let mut backoff = Backoff::default();
        assert_eq!(seconds(&mut backoff, &Ended::Unauthorized, 7), [60, 120, 240, 480, 960, 1800, 1800]);
        // An ordinary failure afterwards has its own maximum.
        assert_eq!(seconds(&mut backoff, &Ended::Failed, 2), [300, 300]);
        assert_eq!(seconds(&mut backoff, &Ended::Unauthorized, 1), [300]);
        assert_eq!(seconds(&mut Backoff::default(), &Ended::Waiting, 9), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn orders_are_obeyed_within_reason() {
        let ordered = |retry_after_sec| Ended::Ordered { retry_after_sec, lasted: Duration::ZERO };
        let mut backoff = Backoff::default();
        backoff.wait(&Ended::Failed, 0.5);
        for chance in [0.0, 0.3, 1.0] {
            let wait = backoff.wait(&ordered(30), chance);
            assert!((30.0..=37.5).contains(&wait.as_secs_f64()), "{wait:?}");
            let wait = backoff.wait(&ordered(1_000_000_000), chance);
            assert!((3600.0..=4500.0).contains(&wait.as_secs_f64()), "{wait:?}");
        }
        assert_eq!(seconds(&mut backoff, &Ended::Failed, 2), [1, 2], "an order begins afresh");
        assert_eq!(seconds(&mut Backoff::default(), &ordered(0), 2), [1, 2]);
        assert_eq!(seconds(&mut Backoff::default(), &ordered(-5), 2), [1, 2]);
        assert_eq!(seconds(&mut Backoff::default(), &ordered(i64::MAX), 1), [4050]);
    }

    #[test]
    fn chance_spreads_waits_by_a_quarter() {
        for (chance, expected) in [(0.0, 0.75), (0.5, 1.0), (1.0, 1.25), (7.0, 1.25), (-1.0, 0.75)] {
            let wait = Backoff::default().wait(&Ended::Failed, chance);
            assert!((wait.as_secs_f64() - expected).abs() < 1e-9, "{chance}: {wait:?}");
        }
        let mut backoff = Backoff { next: REFUSED_MAX };
        assert_eq!(backoff.wait(&Ended::Unauthorized, 1.0), REFUSED_MAX, "also the jitter stays below the maximum");
    }
}
