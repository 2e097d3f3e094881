//! Stopping: one owner drops one value, and every thread that waits on it wakes.

use std::convert::Infallible;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

/// Owned by the composition root; dropping it is the stop.
pub struct Stopper {
    _held: Sender<Infallible>,
}

/// A cheap handle to wait on. Nothing is ever sent through it: it only ever disconnects.
#[derive(Clone)]
pub struct Stop {
    rx: Receiver<Infallible>,
}

impl Stopper {
    /// A stopper and the first of its handles.
    pub fn new() -> (Self, Stop) {
        let (tx, rx) = bounded(0);
        (Self { _held: tx }, Stop { rx })
    }
}

impl Stop {
    /// An arm for `select!`: becomes ready (disconnected) at the stop.
    pub fn signal(&self) -> &Receiver<Infallible> {
        &self.rx
    }

    /// Whether the stop has happened. Never waits.
    pub fn is_set(&self) -> bool {
        matches!(self.rx.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// Waits at most `timeout`; true when the stop happened. The only sleep that Holt knows.
    pub fn wait(&self, timeout: Duration) -> bool {
        matches!(self.rx.recv_timeout(timeout), Err(RecvTimeoutError::Disconnected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_the_stopper_wakes_every_handle() {
        let (stopper, stop) = Stopper::new();
        let other = stop.clone();
        assert!(!stop.is_set());
        assert!(!stop.wait(Duration::from_millis(1)));
        drop(stopper);
        assert!(stop.is_set());
        assert!(other.wait(Duration::from_secs(60)));
    }
}
