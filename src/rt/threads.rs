//! The only place that starts threads: each has a name, an owner and an end that somebody waits for.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::rt::lock;

/// A group of threads that one owner starts and joins.
#[derive(Clone, Default)]
pub struct Threads {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    // Guarded by the mutex: the running threads. A thread removes itself as its last act.
    running: Mutex<Running>,
    ended: Condvar,
}

#[derive(Default)]
struct Running {
    next_id: u64,
    threads: HashMap<u64, (String, Option<JoinHandle<()>>)>,
}

/// Takes a thread off the list when its body returns or unwinds.
struct Ended {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Ended {
    fn drop(&mut self) {
        lock(&self.shared.running).threads.remove(&self.id);
        self.shared.ended.notify_all();
    }
}

impl Threads {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a thread with a stack of `stack_bytes`. The operating system shows the first 15 bytes of `name`.
    ///
    /// Fails when the system has no thread to give (`EAGAIN`); the caller sheds load, it does not die.
    pub fn spawn(&self, name: &str, stack_bytes: usize, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let id = {
            let mut running = lock(&self.shared.running);
            running.next_id += 1;
            let id = running.next_id;
            running.threads.insert(id, (name.to_owned(), None));
            id
        };
        let ended = Ended { shared: Arc::clone(&self.shared), id };
        let handle = std::thread::Builder::new().name(name.to_owned()).stack_size(stack_bytes).spawn(move || {
            let _ended = ended;
            body();
        })?; // a failed spawn drops the closure, and with it the list entry
        if let Some(entry) = lock(&self.shared.running).threads.get_mut(&id) {
            entry.1 = Some(handle);
        }
        Ok(())
    }

    /// How many threads of the group run now.
    pub fn len(&self) -> usize {
        lock(&self.shared.running).threads.len()
    }

    /// Whether no thread of the group runs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until all have ended or `timeout` is over; the names of those that are late.
    pub fn join_all(&self, timeout: Duration) -> Vec<String> {
        let deadline = Instant::now() + timeout;
        let mut running = lock(&self.shared.running);
        while !running.threads.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return running.threads.values().map(|(name, _)| name.clone()).collect();
            }
            running = match self.shared.ended.wait_timeout(running, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_threads_are_named_and_panics_count_as_ended() {
        let threads = Threads::new();
        let (tx, rx) = crossbeam_channel::bounded::<()>(0);
        threads.spawn("waits", 64 * 1024, move || assert!(rx.recv().is_err())).unwrap();
        assert_eq!(threads.join_all(Duration::from_millis(5)), vec!["waits".to_owned()]);
        drop(tx);
        assert!(threads.join_all(Duration::from_secs(30)).is_empty());
        threads.spawn("panics", 64 * 1024, || panic!("expected by the test")).unwrap();
        assert!(threads.join_all(Duration::from_secs(30)).is_empty());
    }
}
