//! What the engine does now and then, and at its end: noted ends, retries, other processes' doings, idle sessions.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use crate::chat::engine::{Engine, Retry};
use crate::chat::interrupted as recovery;
use crate::chat::session::{Outcome, Session, SessionState};
use crate::chat::turn::interrupted;
use crate::rt::lock;
use crate::store::StoreError;

impl Engine {
    /// The keeper's part: writes noted ends, lets go of idle sessions and rings.
    pub fn keep(&self) {
        self.flush_closed();
        self.retry();
        self.follow_others();
        self.keep_parked();
        self.inner.streams.replay.cleanup();
        drop_idle(&mut lock(&self.inner.sessions), Duration::from_secs(300));
    }

    /// Another process (the command line) may have begun or ended a panic.
    fn follow_others(&self) {
        let seen = self.inner.seen_generation.load(Ordering::Acquire);
        let unsaved = lock(&self.inner.panic_row).is_some();
        let followed = self.inner.db.generation().and_then(|generation| {
            if generation != seen || unsaved {
                self.follow_panic()?;
                self.end_deleted_parked();
                self.inner.seen_generation.store(generation, Ordering::Release);
            }
            Ok(())
        });
        if let Err(error) = followed {
            log::warn!("look for what other processes did: {error}");
        }
    }

    /// The conversations in which a turn runs or waits. Looks at memory only.
    pub fn live_sessions(&self) -> BTreeSet<Arc<str>> {
        let sessions = lock(&self.inner.sessions);
        sessions.iter().filter(|(_, session)| session.is_live()).map(|(id, _)| Arc::clone(id)).collect()
    }

    /// Cuts the running turns short (recorded as `interrupted`) and waits for their threads; the names of late ones.
    pub fn stop(&self, timeout: Duration) -> Vec<String> {
        let sessions: Vec<Arc<Session>> = lock(&self.inner.sessions).values().cloned().collect();
        for session in sessions {
            // Their rows stay queued and run after the restart; whoever waits for them here is told.
            let waiting = std::mem::take(&mut lock(&session.state).waiting);
            let (code, message) = interrupted();
            let outcome = Outcome { error: Some((code, message)), text: String::new() };
            for mut ticket in waiting.into_iter().flat_map(|waiting| waiting.tickets) {
                ticket.ended(&outcome);
            }
            let (cancel, tickets) = {
                let mut state = lock(&session.state);
                match state.running.as_mut() {
                    // It stays parked; only those who wait for it here are told.
                    Some(running) if running.parked.is_some() => (None, std::mem::take(&mut running.tickets)),
                    Some(running) => {
                        running.reason.set_stopping();
                        (Some(running.cancel.clone()), Vec::new())
                    }
                    None => (None, Vec::new()),
                }
            };
            if let Some(cancel) = cancel {
                cancel.cancel();
            }
            for mut ticket in tickets {
                ticket.ended(&outcome);
            }
        }
        let late = self.inner.threads.join_all(timeout);
        self.flush_closed();
        late
    }

    /// Frames of conversations that no longer exist (deleted by the command line, or just before a kill) go.
    pub fn forget_orphans(&self) -> Result<(), StoreError> {
        for session_id in self.inner.streams.log.sessions()? {
            // In this order: what is logged after a conversation was begun anew is above this number.
            let last_seq = self.inner.streams.log.last_seq(&session_id)?.unwrap_or(0);
            if self.inner.conversations.owner(&session_id)?.is_none() {
                self.inner.streams.forget(&session_id, last_seq);
            }
        }
        Ok(())
    }

    fn retry(&self) {
        for retry in std::mem::take(&mut *lock(&self.inner.retries)) {
            match retry {
                Retry::StartNext(session) => self.start_next(&session),
                Retry::EndTurn(session, turn) => match recovery::end_turn(&self.inner, &session, &turn) {
                    Ok(()) => {
                        lock(&session.state).running = None;
                        self.start_next(&session);
                    }
                    Err(_) => lock(&self.inner.retries).push(Retry::EndTurn(session, turn)),
                },
            }
        }
    }

    /// Writes ends that are in the log into the rows.
    pub fn flush_closed(&self) {
        let closed = std::mem::take(&mut *lock(&self.inner.closed));
        if closed.is_empty() {
            return;
        }
        if let Err(error) = self.inner.turns.close(&closed) {
            log::error!("record the end of {} turns: {error}", closed.len());
            lock(&self.inner.closed).extend(closed);
        }
    }
}

/// Lets go of sessions that nobody has used for that long.
pub(super) fn drop_idle(sessions: &mut MutexGuard<'_, HashMap<Arc<str>, Arc<Session>>>, idle: Duration) {
    sessions.retain(|_, session| {
        let state = lock(&session.state);
        let SessionState { running, waiting, joining, used, .. } = &*state;
        running.is_some() || !waiting.is_empty() || *joining > 0 || used.elapsed() < idle
            // Somebody else holds it: a connection that follows it, or a call in progress.
            || Arc::strong_count(session) > 1 || Arc::strong_count(&session.stream) > 1
    });
}
