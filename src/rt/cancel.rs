//! Cancelling work that may be blocked in a read: a flag, and a hook that ends the read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::rt::lock;

type Hook = Box<dyn Fn() + Send>;

/// Shared between whoever does the work and whoever may end it. Cancelling is final.
#[derive(Clone, Default)]
pub struct Cancel {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    set: AtomicBool,
    // Guarded by the mutex: what ends the blocked call of the moment, e.g. a shutdown of its socket.
    hook: Mutex<Option<Hook>>,
}

impl Cancel {
    /// Not cancelled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether [`Cancel::cancel`] was called.
    pub fn is_set(&self) -> bool {
        self.shared.set.load(Ordering::Acquire)
    }

    /// Sets the flag and runs the hook, if there is one.
    pub fn cancel(&self) {
        self.shared.set.store(true, Ordering::Release);
        // Taken out first: the hook runs without the lock.
        let hook = lock(&self.shared.hook).take();
        if let Some(hook) = hook {
            hook();
        }
    }

    /// Installs what ends the blocking call that comes next; runs it at once when already cancelled.
    pub fn set_hook(&self, hook: impl Fn() + Send + 'static) {
        *lock(&self.shared.hook) = Some(Box::new(hook));
        if self.is_set() {
            self.cancel();
        }
    }

    /// Forgets the hook: the blocking call is over.
    pub fn clear_hook(&self) {
        *lock(&self.shared.hook) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn a_hook_runs_once_whenever_it_was_set() {
        let ran = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ran);
        let cancel = Cancel::new();
        cancel.set_hook(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        cancel.cancel();
        cancel.cancel();
        assert_eq!(ran.load(Ordering::SeqCst), 1);
        let counted = Arc::clone(&ran);
        cancel.set_hook(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(ran.load(Ordering::SeqCst), 2);
    }
}
