//! All open WebSockets: how many there may be, what goes to all of them, and how they end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::auth::Credential;
use crate::chat::Engine;
use crate::chat::frame;
use crate::rt::{Threads, lock};
use crate::ws::Conn;
use crate::ws::frames::ActivityFrame;

/// The hub.
pub struct Hub {
    // Set at construction.
    pub(super) engine: Engine,
    pub(super) threads: Threads,
    connections_max: usize,
    // Atomics.
    next_id: AtomicU64,
    closing: AtomicBool,
    /// Guarded by this mutex: the open connections. Held for a moment; nothing is taken under it.
    conns: Mutex<HashMap<u64, Arc<Conn>>>,
}

impl Hub {
    /// A hub for at most `connections_max` sockets.
    pub fn new(engine: Engine, connections_max: usize) -> Self {
        Self {
            engine,
            threads: Threads::new(),
            connections_max,
            next_id: AtomicU64::new(1),
            closing: AtomicBool::new(false),
            conns: Mutex::new(HashMap::new()),
        }
    }

    /// Adds a connection; false when the hub is full.
    pub fn register(&self, conn: &Arc<Conn>) -> bool {
        let mut conns = lock(&self.conns);
        if conns.len() >= self.connections_max || self.closing.load(Ordering::Acquire) {
            return false;
        }
        conns.insert(conn.id, Arc::clone(conn));
        true
    }

    /// Removes a connection.
    pub fn unregister(&self, conn: &Conn) {
        lock(&self.conns).remove(&conn.id);
    }

    /// Sends a JSON frame to all connections, encoded once. Those too far behind miss it: it is a hint, not a record.
    pub fn broadcast(&self, payload: &[u8]) {
        self.send_where(payload, |_| true);
    }

    /// Tells those who may read a conversation and do not follow it that something happened there.
    pub fn activity(&self, conversation_id: &str, owner: &str, agent: &str, adapter: &str) {
        let payload = ActivityFrame { conversation_id, agent, adapter }.encode();
        self.send_where(&payload, |conn| conn.caller.may_read(owner) && !conn.is_attached(conversation_id));
    }

    /// Sends a JSON frame about machines to those who may see them.
    pub fn about_machines(&self, payload: &[u8]) {
        self.send_where(payload, |conn| conn.sees_machines);
    }

    /// How many connections are open.
    pub fn conn_count(&self) -> usize {
        lock(&self.conns).len()
    }

    /// Closes those whose credential no longer counts with 1008.
    pub fn close_revoked(&self, is_valid: impl Fn(&Credential) -> bool) {
        for conn in self.snapshot() {
            if !is_valid(&conn.credential) {
                conn.revoke();
            }
        }
    }

    /// Cuts off those that were revoked a moment ago and have not taken their close frame.
    pub fn reap_revoked(&self) {
        for conn in self.snapshot() {
            if conn.is_overdue() {
                conn.shut_down();
            }
        }
    }

    /// Closes all with 1001 and waits for their threads; the names of late ones.
    pub fn shutdown(&self, timeout: Duration) -> Vec<String> {
        self.closing.store(true, Ordering::Release);
        for conn in self.snapshot() {
            conn.close(1001, "server shutting down");
        }
        self.threads.join_all(timeout)
    }

    /// The keeper's part: lets go of idle replay rings (`StartCleanup` of the reference).
    pub fn cleanup(&self) {
        self.engine.streams().replay.cleanup();
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn send_where(&self, payload: &[u8], wanted: impl Fn(&Conn) -> bool) {
        let whole: Arc<[u8]> = frame::text(payload).into();
        for conn in self.snapshot() {
            if wanted(&conn) && !conn.try_send(Arc::clone(&whole)) {
                log::debug!("websocket {} is behind and misses a broadcast", conn.id);
            }
        }
    }

    fn snapshot(&self) -> Vec<Arc<Conn>> {
        lock(&self.conns).values().cloned().collect()
    }
}
