//! Counted places: how many there may be at once, given back when dropped. Also bytes that are held somewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A share of a common count.
#[derive(Debug)]
pub struct Slot {
    all: Arc<AtomicUsize>,
    share: usize,
}

impl Slot {
    /// One place, unless `max` are taken.
    pub fn take(all: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let slot = Self::hold(all, 1);
        (slot.all.load(Ordering::Acquire) <= max).then_some(slot)
    }

    /// A share of any size.
    pub fn hold(all: &Arc<AtomicUsize>, share: usize) -> Self {
        all.fetch_add(share, Ordering::AcqRel);
        Self { all: Arc::clone(all), share }
    }

    /// Its share now.
    pub fn share(&self) -> usize {
        self.share
    }

    /// All shares together.
    pub fn all(&self) -> usize {
        self.all.load(Ordering::Acquire)
    }

    /// Changes its share.
    pub fn set(&mut self, share: usize) {
        if share >= self.share {
            self.all.fetch_add(share - self.share, Ordering::AcqRel);
        } else {
            self.all.fetch_sub(self.share - share, Ordering::AcqRel);
        }
        self.share = share;
    }

    /// A share of the same count.
    #[must_use]
    pub fn sibling(&self, share: usize) -> Self {
        Self::hold(&self.all, share)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let all = Arc::new(AtomicUsize::new(0));
        let first = Slot::take(&all, 1).unwrap();
        assert!(Slot::take(&all, 1).is_none());
        drop(first);
        let mut held = Slot::take(&all, 1).unwrap();
        held.set(10);
        let more = held.sibling(5);
        assert_eq!((held.all(), held.share()), (15, 10));
        drop((held, more));
        assert_eq!(all.load(Ordering::SeqCst), 0);
    }
}
