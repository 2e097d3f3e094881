//! A fixed number of events in memory; the oldest goes first (the seed's `RingBuffer`).

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::alert::Event;
use crate::rt::lock;

/// Events in the order they came. When full, the oldest is overwritten. Shared between threads.
#[derive(Debug)]
pub struct RingBuffer {
    capacity: usize,
    /// Guarded by the mutex: the events. Held for a moment; nothing is taken under it.
    events: Mutex<VecDeque<Event>>,
}

impl RingBuffer {
    /// Room for so many events, at least one. Takes memory only for what is in it.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), events: Mutex::default() }
    }

    /// Adds an event; the one that had to go for it, if any.
    pub fn push(&self, event: Event) -> Option<Event> {
        let mut events = lock(&self.events);
        let lost = if events.len() >= self.capacity { events.pop_front() } else { None };
        events.push_back(event);
        lost
    }

    /// Takes up to `max` events, oldest first.
    pub fn drain(&self, max: usize) -> Vec<Event> {
        let mut events = lock(&self.events);
        let count = events.len().min(max);
        let taken = events.drain(..count).collect();
        if events.is_empty() {
            events.shrink_to_fit();
        }
        taken
    }

    /// Events in it now.
    pub fn len(&self) -> usize {
        lock(&self.events).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Level, key_of};

    fn event(time: i64) -> Event {
        let labels = [("check".to_owned(), "x::y".to_owned())].into();
        let key = key_of(&labels);
        let (attrs, description) = (std::collections::BTreeMap::new(), String::new());
        Event { time, level: Level::Warning, key, labels, attrs, description, format: String::new() }
    }

    #[test]
    fn the_oldest_goes_first() {
        let ring = RingBuffer::new(2);
        assert!(ring.is_empty() && ring.drain(5).is_empty());
        assert_eq!(ring.push(event(1)), None);
        assert_eq!(ring.push(event(2)), None);
        assert_eq!(ring.push(event(3)).map(|event| event.time), Some(1));
        assert_eq!(ring.len(), 2);
        assert_eq!(ring.drain(1).iter().map(|event| event.time).collect::<Vec<_>>(), [2]);
        assert_eq!(ring.drain(9).iter().map(|event| event.time).collect::<Vec<_>>(), [3]);
        assert!(RingBuffer::new(0).push(event(1)).is_none());
    }
}
