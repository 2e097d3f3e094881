//! The clocks of the scheduler; tests bring their own.

use std::time::Instant;

use crate::rt::clock;

/// Two clocks: people's, which may be set at any time, and one that only ever goes on.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970.
    fn wall_ms(&self) -> i64;

    /// Milliseconds since some moment before.
    fn steady_ms(&self) -> i64;
}

/// Those of the system.
pub struct SystemClock(Instant);

impl SystemClock {
    /// The clocks of this machine.
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        clock::unix_ms()
    }

    fn steady_ms(&self) -> i64 {
        i64::try_from(self.0.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}
