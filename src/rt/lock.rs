//! Mutexes that survive a panic, and the order to take them in.
//!
//! One order, everywhere: engine sessions, then one session, then its ring. Nothing else is taken under a ring.
//! The database connections are leaves: nothing is taken under them.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, and recovers a poisoned mutex: whoever changes guarded state does it in one step, so that a panic
/// between two locks cannot leave half a change behind.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
