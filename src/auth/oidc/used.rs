//! Logins that came back already: each counts once.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::LOGIN_S;
use crate::rt::lock;

/// Only logins that we began ourselves get here, one per callback. The provider takes a code only once, too.
const USED_MAX: usize = 4096;

#[derive(Default)]
pub(super) struct Used {
    /// Guarded by the mutex: states, and when they came back. Nothing is taken under it.
    states: Mutex<HashMap<String, Instant>>,
}

impl Used {
    /// Whether the state comes back for the first time.
    pub(super) fn take(&self, state: &str, now: Instant) -> bool {
        let mut states = lock(&self.states);
        if states.len() >= USED_MAX {
            let age = Duration::from_secs(LOGIN_S.unsigned_abs());
            states.retain(|_, at| now.saturating_duration_since(*at) < age);
            if states.len() >= USED_MAX
                && let Some(oldest) = states.iter().min_by_key(|(_, at)| **at).map(|(state, _)| state.clone())
            {
                states.remove(&oldest);
            }
        }
        states.insert(state.to_owned(), now).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_counts_once_and_the_table_stays_small() {
        let (used, now) = (Used::default(), Instant::now());
        assert!(used.take("one", now));
        assert!(!used.take("one", now));
        for number in 0..USED_MAX * 2 {
            assert!(used.take(&number.to_string(), now + Duration::from_millis(1)));
        }
        assert!(lock(&used.states).len() <= USED_MAX);
        assert!(used.take("later", now + Duration::from_secs(600)));
        assert_eq!(lock(&used.states).len(), 1, "what has expired is gone");
    }
}
