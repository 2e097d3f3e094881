//! Panic: everything stops at once and stays stopped, also across a restart, until somebody says otherwise.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::chat::engine::{Engine, Inner};
use crate::chat::session::Session;
use crate::rt::{clock, lock};
use crate::store::{StoreError, meta};

/// Who stopped everything, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PanicState {
    /// Milliseconds since 1970.
    pub at: i64,
    pub by: String,
}

impl Engine {
    /// Stops all running turns and starts none until [`Engine::resume_all`]. What waits keeps its place: messages in
    /// their queues, turns that ask. Stops first and stores then: an error means that it does not outlast a restart yet;
    /// the keeper goes on trying.
    pub fn panic(&self, by: &str) -> Result<(), StoreError> {
        let value = json!({"at": clock::unix_ms(), "by": by}).to_string();
        let mut row = lock(&self.inner.panic_row);
        self.inner.panicked.store(true, Ordering::Release);
        log::warn!("panic by {by}: all turns are stopped");
        self.stop_running();
        let stored = self.inner.db.write(|tx| meta::set(tx, meta::PANIC, &value));
        *row = stored.is_err().then_some(value);
        stored
    }

    /// Ends a panic; false when there was none. What waited goes on.
    pub fn resume_all(&self, by: &str) -> Result<bool, StoreError> {
        let was = {
            let mut row = lock(&self.inner.panic_row);
            let stored = self.inner.db.write(|tx| {
                let was = meta::get(tx, meta::PANIC)?.is_some();
                meta::delete(tx, meta::PANIC)?;
                Ok(was)
            })?;
            *row = None;
            self.inner.panicked.swap(false, Ordering::AcqRel) || stored
        };
        if was {
            log::warn!("the panic is over, says {by}");
            self.start_waiting();
        }
        Ok(was)
    }

    /// The panic in force.
    pub fn panic_state(&self) -> Result<Option<PanicState>, StoreError> {
        let Some(text) = self.inner.db.read(|conn| meta::get(conn, meta::PANIC))? else {
            return Ok(None);
        };
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let by = value["by"].as_str().unwrap_or("").to_owned();
        Ok(Some(PanicState { at: value["at"].as_i64().unwrap_or(0), by }))
    }

    /// The keeper's part, and that of the start: another process may have said so.
    pub(super) fn follow_panic(&self) -> Result<(), StoreError> {
        let (before, now) = {
            let mut row = lock(&self.inner.panic_row);
            if let Some(value) = row.as_ref() {
                self.inner.db.write(|tx| meta::set(tx, meta::PANIC, value))?;
                *row = None;
            }
            let now = self.panic_state()?.is_some();
            (self.inner.panicked.swap(now, Ordering::AcqRel), now)
        };
        match (before, now) {
            (false, true) => self.stop_running(),
            (true, false) => self.start_waiting(),
            _ => {}
        }
        Ok(())
    }

    fn stop_running(&self) {
        let sessions = self.all_sessions();
        let mut stopped = Vec::new();
        for session in sessions {
            let cancel =
                lock(&session.state).running.as_ref().filter(|running| running.parked.is_none()).map(|running| {
                    running.reason.set_cancelled();
                    running.cancel.clone()
                });
            if let Some(cancel) = cancel {
                cancel.cancel();
                stopped.push(session);
            }
        }
        // All are stopped; now those that have no thread to end them.
        for session in stopped {
            self.end_cancelled_job(session.stream().id());
        }
    }

    fn start_waiting(&self) {
        for session in self.all_sessions() {
            self.start_next(&session);
        }
        match self.inner.parked.decided() {
            Ok(turns) => self.resume_decided(&turns),
            Err(error) => log::error!("look for decided turns: {error}"),
        }
    }

    fn all_sessions(&self) -> Vec<Arc<Session>> {
        lock(&self.inner.sessions).values().cloned().collect()
    }
}

impl Inner {
    pub(super) fn is_panicked(&self) -> bool {
        self.panicked.load(Ordering::Acquire)
    }
}
