//! The thread `keeper`: whatever has to happen now and then. Its clock is the stop signal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::api::{Server, metrics};
use crate::chat::Engine;
use crate::limits;
use crate::rt::Stop;
use crate::sys;
use crate::ws::Hub;

/// Credentials also expire by time, without any change of the database.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);
const PURGE_INTERVAL: Duration = Duration::from_secs(600);

/// Gives memory back when the hub has nothing to do: what work needed of the heap, and pages of code, which come back
/// from the system's cache when they are needed.
struct Rest {
    /// Grows with the work.
    seen: u64,
    /// Since when there has been none; None when memory was given back.
    since: Option<Instant>,
}

impl Rest {
    /// The start is work too.
    fn new() -> Self {
        Self { seen: 0, since: Some(Instant::now()) }
    }

    fn look(&mut self, work: u64) {
        if work != self.seen {
            self.seen = work;
            self.since = Some(Instant::now());
        } else if self.since.is_some_and(|since| since.elapsed() >= limits::REST_AFTER) {
            self.since = None;
            sys::trim_allocator();
            sys::release_code_pages();
        }
    }
}

pub(super) struct Keeper {
    server: Arc<Server>,
    hub: Arc<Hub>,
    engine: Engine,
    stop: Stop,
}

impl Keeper {
    pub(super) fn new(server: Arc<Server>, hub: Arc<Hub>, engine: Engine, stop: Stop) -> Self {
        Self { server, hub, engine, stop }
    }

    pub(super) fn run(self) {
        let mut log_conn = None;
        let mut seen_commits = 0;
        let mut seen_generation = 0;
        let mut seen_by_others = 0;
        let (mut synced, mut touched, mut expired) = (Instant::now(), Instant::now(), Instant::now());
        // The first purge comes soon after the start: the hub may have been off for long.
        let mut purged: Option<Instant> = None;
        let mut kv_purged: Option<Instant> = None;
        let mut certified = Instant::now();
        let mut rest = Rest::new();
        let kv_interval = self.server.ctx().deps.settings.current().kv.cleanup_interval;
        while !self.stop.wait(limits::REVOCATION_INTERVAL) {
            self.hub.reap_revoked();
            self.check_credentials(&mut seen_generation, &mut expired);
            if let Some(fleet) = &self.server.ctx().deps.fleet {
                fleet.tick();
            }
            self.wake_others(&mut seen_by_others);
            if synced.elapsed() >= limits::LOG_SYNC_INTERVAL {
                synced = Instant::now();
                self.sync_log(&mut log_conn, &mut seen_commits);
                self.engine.keep();
            }
            if certified.elapsed() >= limits::CERTIFICATE_INTERVAL {
                certified = Instant::now();
                if let Some(tls) = &self.server.ctx().deps.tls {
                    tls.reload_if_changed();
                }
            }
            rest.look(metrics::answered() + self.engine.streams().commits.load(Ordering::Relaxed));
            if touched.elapsed() >= limits::TOUCH_INTERVAL {
                touched = Instant::now();
                self.flush_touched();
            }
            if purged.is_none_or(|at| at.elapsed() >= PURGE_INTERVAL) {
                purged = Some(Instant::now());
                self.purge();
            }
            if kv_purged.is_none_or(|at| at.elapsed() >= kv_interval) {
                kv_purged = Some(Instant::now());
                self.purge_kv();
            }
        }
        self.sync_log(&mut log_conn, &mut seen_commits);
    }

    /// Closes sockets whose credential is gone; asks only when something may have changed.
    fn check_credentials(&self, seen: &mut u64, expired: &mut Instant) {
        if self.hub.conn_count() == 0 {
            return;
        }
        let generation = match self.server.ctx().deps.db.generation() {
            Ok(generation) => generation,
            Err(error) => {
                log::warn!("look for revoked credentials: {error}");
                return;
            }
        };
        if generation == *seen && expired.elapsed() < EXPIRY_INTERVAL {
            return;
        }
        *seen = generation;
        *expired = Instant::now();
        // A database that cannot be asked revokes nobody.
        self.hub.close_revoked(|credential| self.server.ctx().auth.is_valid(credential).unwrap_or(true));
    }

    fn sync_log(&self, conn: &mut Option<crate::store::log::SyncConnection>, seen: &mut u64) {
        let commits = self.engine.streams().commits.load(Ordering::Acquire);
        if commits == *seen {
            return;
        }
        match self.engine.streams().log.sync(conn) {
            Ok(large) => {
                *seen = commits;
                if large {
                    self.engine.streams().request_truncate();
                }
            }
            Err(error) => log::error!("sync the event log: {error}"),
        }
    }

    fn flush_touched(&self) {
        let deps = &self.server.ctx().deps;
        let keys = deps.key_store.as_ref().map_or(Ok(()), |keys| keys.flush_touched());
        deps.audit.flush(false);
        let logins = deps.sessions.store.as_ref().map_or(Ok(()), |store| store.flush_touched());
        if let Err(error) = keys.and(logins) {
            log::warn!("record when credentials were used: {error}");
        }
    }

    /// Another process may have changed alerts or silences, or want a run: `holt alerts` and `holt schedules` work on the
    /// database.
    fn wake_others(&self, seen: &mut u64) {
        let deps = &self.server.ctx().deps;
        if let Ok(generation) = deps.db.generation()
            && generation != *seen
        {
            *seen = generation;
            if let Some(alerts) = &deps.alerts {
                alerts.wake();
            }
            if let Some(scheduler) = &deps.scheduler {
                scheduler.look();
            }
        }
    }

    fn purge_kv(&self) {
        if let Some(store) = &self.server.ctx().deps.kv_store
            && let Err(error) = store.purge_expired()
        {
            log::warn!("remove expired keys: {error}");
        }
    }

    fn purge(&self) {
        if let Some(budgets) = &self.server.ctx().deps.cost_tracker
            && let Err(error) = budgets.put_old_together()
        {
            log::warn!("put old costs together: {error}");
        }
        if let Some(store) = &self.server.ctx().deps.sessions.store
            && let Err(error) = store.purge_expired()
        {
            log::warn!("remove expired logins: {error}");
        }
        if let Err(error) = self.server.ctx().deps.audit.purge() {
            log::warn!("shorten the audit log: {error}");
        }
        if let Some(alerts) = &self.server.ctx().deps.alerts
            && let Err(error) = alerts.purge()
        {
            log::warn!("remove old alerts: {error}");
        }
        if let Err(error) = self.engine.approvals().purge() {
            log::warn!("remove old approvals: {error}");
        }
        if let Err(error) = self.engine.forget_orphans() {
            log::warn!("look for events without a conversation: {error}");
        }
        self.engine.streams().request_purge();
        sys::trim_allocator();
        sys::release_code_pages();
    }
}
