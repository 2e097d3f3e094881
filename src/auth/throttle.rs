//! Limits on attempts and on requests (contract 1.5, 3.2).

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::limits;
use crate::rt::lock;

/// Password and PIN attempts per client address in a fixed window; every call counts, successful ones too.
pub struct LoginThrottle {
    /// Guarded by the mutex: attempts in a window, and its length. Nothing is taken under it.
    limit: Mutex<(u32, Duration)>,
    /// Guarded by the mutex: address to attempts and start of its window.
    windows: Mutex<HashMap<String, (u32, Instant)>>,
}

impl LoginThrottle {
    /// 0 attempts switches it off.
    pub fn new(attempts_max: u32, window: Duration) -> Self {
        Self { limit: Mutex::new((attempts_max, window)), windows: Mutex::new(HashMap::new()) }
    }

    /// Another limit, from the next attempt on.
    pub fn set(&self, attempts_max: u32, window: Duration) {
        *lock(&self.limit) = (attempts_max, window);
    }

    /// Counts an attempt; the seconds to wait when it is one too many.
    pub fn attempt(&self, address: &str) -> Result<(), u64> {
        self.attempt_at(address, Instant::now())
    }

    fn attempt_at(&self, address: &str, now: Instant) -> Result<(), u64> {
        let (attempts_max, window) = *lock(&self.limit);
        if attempts_max == 0 {
            return Ok(());
        }
        let mut windows = lock(&self.windows);
        if windows.len() >= limits::THROTTLE_ADDRESSES_MAX && !windows.contains_key(address) {
            windows.retain(|_, (_, start)| now.saturating_duration_since(*start) < window);
            if windows.len() >= limits::THROTTLE_ADDRESSES_MAX
                && let Some(oldest) = windows.iter().min_by_key(|(_, (_, start))| *start).map(|(key, _)| key.clone())
            {
                windows.remove(&oldest);
            }
        }
        let entry = windows.entry(address.to_owned()).or_insert((0, now));
        if now.saturating_duration_since(entry.1) >= window {
            *entry = (0, now);
        }
        if entry.0 >= attempts_max {
            let left = window.saturating_sub(now.saturating_duration_since(entry.1));
            return Err(left.as_secs().max(1));
        }
        entry.0 += 1;
        Ok(())
    }
}

/// A token bucket per identity name: `rate` requests a second, and at least one at once (W-12).
pub struct RateLimiter {
    /// The rate's bits.
    rate: AtomicU64,
    /// Guarded by the mutex: name to tokens left and the time of that count.
    buckets: Mutex<HashMap<String, (f64, Instant)>>,
}

impl RateLimiter {
    /// A rate of 0 switches it off.
    pub fn new(rate: f64) -> Self {
        Self { rate: AtomicU64::new(rate.to_bits()), buckets: Mutex::new(HashMap::new()) }
    }

    /// Another rate, from the next request on.
    pub fn set(&self, rate: f64) {
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    fn rate(&self) -> f64 {
        f64::from_bits(self.rate.load(Ordering::Relaxed))
    }

    /// Takes a token; false when there is none.
    pub fn allow(&self, name: &str) -> bool {
        self.rate() <= 0.0 || self.allow_at(name, Instant::now())
    }

    fn allow_at(&self, name: &str, now: Instant) -> bool {
        let rate = self.rate();
        let capacity = rate.max(1.0);
        let mut buckets = lock(&self.buckets);
        if buckets.len() >= limits::RATE_IDENTITIES_MAX && !buckets.contains_key(name) {
            buckets.clear();
        }
        if !buckets.contains_key(name) {
            buckets.insert(name.to_owned(), (capacity, now));
        }
        let Some((tokens, at)) = buckets.get_mut(name) else {
            return true;
        };
        *tokens = (*tokens + now.saturating_duration_since(*at).as_secs_f64() * rate).min(capacity);
        *at = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_counted_per_address_and_window() {
        let throttle = LoginThrottle::new(2, Duration::from_secs(60));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(throttle.attempt_at("a", at(0)), Ok(()));
        assert_eq!(throttle.attempt_at("a", at(10)), Ok(()));
        assert_eq!(throttle.attempt_at("a", at(20)), Err(40));
        assert_eq!(throttle.attempt_at("b", at(20)), Ok(()));
        assert_eq!(throttle.attempt_at("a", at(59)), Err(1));
        assert_eq!(throttle.attempt_at("a", at(60)), Ok(()));
        assert_eq!(LoginThrottle::new(0, Duration::from_secs(60)).attempt("a"), Ok(()));
    }

    #[test]
    fn many_addresses_do_not_grow_the_map() {
        let throttle = LoginThrottle::new(1, Duration::from_secs(60));
        for number in 0..limits::THROTTLE_ADDRESSES_MAX + 100 {
            assert_eq!(throttle.attempt(&number.to_string()), Ok(()));
        }
        assert!(lock(&throttle.windows).len() <= limits::THROTTLE_ADDRESSES_MAX);
    }

    #[test]
    fn slow_rates_still_let_requests_through() {
        let limiter = RateLimiter::new(0.5);
        let start = Instant::now();
        assert!(limiter.allow_at("a", start));
        assert!(!limiter.allow_at("a", start + Duration::from_secs(1)));
        assert!(limiter.allow_at("a", start + Duration::from_secs(2)));
        assert!(limiter.allow_at("b", start));
        assert!(RateLimiter::new(0.0).allow("x"));
    }
}
