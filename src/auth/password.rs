//! Password checks in a lane of their own: bcrypt costs up to a second, and at most two run at once (W-40).

use std::io;
use std::sync::Mutex;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::limits;
use crate::rt::{Threads, lock};

type Job = Box<dyn FnOnce() + Send>;

/// The lane. Dropping it ends its threads after the checks in work.
pub struct PasswordLane {
    /// Guarded by the mutex: None after the stop.
    jobs_tx: Mutex<Option<Sender<Job>>>,
    threads: Threads,
}

impl PasswordLane {
    /// Starts the threads.
    pub fn start() -> io::Result<Self> {
        let (jobs_tx, jobs_rx) = bounded(limits::BCRYPT_QUEUE);
        let threads = Threads::new();
        for number in 1..=limits::BCRYPT_THREADS {
            let jobs_rx: Receiver<Job> = jobs_rx.clone();
            threads.spawn(&format!("bcrypt-{number}"), limits::WORKER_STACK_BYTES, move || {
                while let Ok(job) = jobs_rx.recv() {
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
                        log::error!("a password check panicked");
                    }
                }
            })?;
        }
        Ok(Self { jobs_tx: Mutex::new(Some(jobs_tx)), threads })
    }

    /// Queues a job; gives it back when too many wait (Reject).
    pub fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Job> {
        let jobs_tx = lock(&self.jobs_tx).clone();
        let job: Job = Box::new(job);
        match jobs_tx {
            None => Err(job),
            Some(jobs_tx) => jobs_tx.try_send(job).map_err(|error| match error {
                TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
            }),
        }
    }

    /// Ends the lane; the names of threads that were late.
    pub fn stop(&self, timeout: std::time::Duration) -> Vec<String> {
        lock(&self.jobs_tx).take();
        self.threads.join_all(timeout)
    }
}

/// Whether the password fits the hash. Blocks for the time bcrypt takes.
pub fn verify(password: &str, hash: &str) -> bool {
    bcrypt::verify(password.as_bytes(), hash).unwrap_or(false)
}

/// A new hash (`$2b$`, cost 13). None for a password that bcrypt would cut (more than 72 bytes).
pub fn hash(password: &str) -> Option<String> {
    if password.len() > limits::PASSWORD_BYTES_MAX {
        return None;
    }
    bcrypt::hash(password.as_bytes(), limits::BCRYPT_COST).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_both_spellings_verify() {
        // bcrypt cost 4 of "test"; `$2a$` is what the reference's own files hold.
        let hash = bcrypt::hash("test", 4).unwrap();
        assert!(verify("test", &hash));
        assert!(verify("test", &hash.replace("$2b$", "$2a$")));
        assert!(!verify("Test", &hash));
        assert!(!verify("test", "garbage"));
        assert!(super::hash(&"x".repeat(73)).is_none());
    }

    #[test]
    fn a_full_lane_gives_the_job_back() {
        let lane = PasswordLane::start().unwrap();
        let (hold_tx, hold_rx) = bounded::<()>(0);
        let mut refused = 0;
        for _ in 0..limits::BCRYPT_QUEUE + limits::BCRYPT_THREADS + 5 {
            let hold_rx = hold_rx.clone();
            refused += usize::from(lane.run(move || assert!(hold_rx.recv().is_err())).is_err());
        }
        assert!(refused >= 5);
        drop(hold_tx);
        assert!(lane.stop(std::time::Duration::from_secs(30)).is_empty());
        assert!(lane.run(|| {}).is_err());
    }
}
