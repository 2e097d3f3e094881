//! The hub's side of the machine link: who may come, who is there, and what is asked of them.
//!
//! No threads of its own but `alerts`: sockets belong to `ws`, `keeper` calls [`Fleet::tick`] every half second, and a
//! session runs on the thread of its turn.

mod access;
mod admit;
pub mod alerts;
mod alerts_storm;
mod alerts_tell;
#[cfg(test)]
mod alerts_tests;
mod arrival;
pub mod gateway;
pub mod gateway_wire;
mod link;
mod list_tool;
mod presence;
mod run;
mod session;
mod stages;
mod upkeep;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use admit::{Admission, Refused};
pub use arrival::{Arrival, Ending};
pub use list_tool::MachinesTool;

use crate::audit::AuditLog;
use crate::auth::throttle::LoginThrottle;
use crate::config::FleetConfig;
use crate::fleet::hub::alerts::Alerts;
use crate::fleet::hub::link::Link;
use crate::fleet::hub::presence::Presences;
use crate::fleet::hub::session::Sessions;
use crate::fleet::hub::upkeep::Upkeep;
use crate::fleet::sign::HubKey;
use crate::fleet::wire::{Disconnect, Message};
use crate::limits;
use crate::rt::{Stop, lock};
use crate::store::machines::{Machine, hash_token};
use crate::store::{Db, JoinCodeStore, MachineReadings, MachineSessionStore, MachineStore, StoreError, random_hex};

/// What a machine is written to. Nothing here blocks.
pub trait Peer: Send + Sync {
    /// Queues a message; false when the connection is over, or the machine so far behind that it is now.
    fn send(&self, message: &[u8]) -> bool;
    /// A `ping` that often from now on.
    fn begin_pings(&self, interval: Duration);
    /// Closes behind what is queued.
    fn close(&self, code: u16, reason: &str);
    /// Ends both directions at once.
    fn cut(&self);
}

/// Where frames for clients that may see machines go.
pub type Observer = Box<dyn Fn(&[u8]) + Send + Sync>;

/// What the fleet works with.
pub struct FleetParts {
    pub db: Arc<Db>,
    pub config: FleetConfig,
    pub audit: Arc<AuditLog>,
    pub alerts: Arc<Alerts>,
    pub key: HubKey,
    pub stop: Stop,
}

/// All machines.
pub struct Fleet {
    // Set at construction.
    db: Arc<Db>,
    config: FleetConfig,
    shared_hash: Option<String>,
    audit: Arc<AuditLog>,
    alerts: Arc<Alerts>,
    key: HubKey,
    stop: Stop,
    machines: MachineStore,
    codes: JoinCodeStore,
    readings: MachineReadings,
    rows: MachineSessionStore,
    throttle: LoginThrottle,
    observer: OnceLock<Observer>,
    // Atomics.
    next_serial: AtomicU64,
    /// Sockets of machines, registered or not.
    open: Arc<AtomicUsize>,
    closing: AtomicBool,
    /// Guarded by this mutex: the connected machines by id. Nothing is taken under it.
    links: Mutex<HashMap<String, Arc<Link>>>,
    /// Guarded by this mutex: connections that have not registered yet. Nothing is taken under it.
    arriving: Mutex<HashMap<u64, Arc<dyn Peer>>>,
    /// Guarded by this mutex: who is there. Nothing is taken under it.
    presences: Mutex<Presences>,
    sessions: Sessions,
    /// Guarded by this mutex: what the keeper remembers. Nothing is taken under it.
    upkeep: Mutex<Upkeep>,
}

/// A machine that is connected now, as lists show it.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Milliseconds since 1970.
    pub last_seen_at: i64,
    pub connected_at: i64,
    pub heartbeat: Option<Value>,
    /// Turns that the hub runs on it.
    pub turns: usize,
}

impl Fleet {
    /// The fleet over open stores. Sessions that were open when the hub ended are lost; nobody is called down before
    /// [`limits::MACHINE_RESTART_GRACE`].
    pub fn new(parts: FleetParts) -> Result<Self, StoreError> {
        let now = Instant::now();
        let machines = MachineStore::new(Arc::clone(&parts.db));
        let rows = MachineSessionStore::new(Arc::clone(&parts.db));
        rows.lose_running()?;
        let mut presences = Presences::new(parts.config.down_after);
        for machine in machines.list()? {
            presences.restore(&machine, now);
        }
        Ok(Self {
            shared_hash: parts.config.shared_token.as_deref().map(hash_token),
            codes: JoinCodeStore::new(Arc::clone(&parts.db)),
            readings: MachineReadings::new(Arc::clone(&parts.db)),
            db: parts.db,
            config: parts.config,
            audit: parts.audit,
            alerts: parts.alerts,
            key: parts.key,
            stop: parts.stop,
            machines,
            rows,
            throttle: LoginThrottle::new(limits::AGENT_REFUSALS_MAX, limits::AGENT_REFUSALS_WINDOW),
            observer: OnceLock::new(),
            next_serial: AtomicU64::new(1),
            open: Arc::default(),
            closing: AtomicBool::new(false),
            links: Mutex::default(),
            arriving: Mutex::default(),
            presences: Mutex::new(presences),
            sessions: Sessions::default(),
            upkeep: Mutex::new(Upkeep::new(now)),
        })
    }

    /// Who gets `machine` frames for clients that may see machines; the first call counts.
    pub fn observe(&self, observer: Observer) {
        let _ = self.observer.set(observer);
    }

    /// The machines as they are stored.
    pub fn machines(&self) -> &MachineStore {
        &self.machines
    }

    /// The join codes.
    pub fn codes(&self) -> &JoinCodeStore {
        &self.codes
    }

    /// What heartbeats told.
    pub fn readings(&self) -> &MachineReadings {
        &self.readings
    }

    /// The sessions on machines.
    pub fn session_rows(&self) -> &MachineSessionStore {
        &self.rows
    }

    /// The hub's key.
    pub fn key(&self) -> &HubKey {
        &self.key
    }

    /// What is known of a machine beyond its row; None while it is not connected.
    pub fn live(&self, machine_id: &str) -> Option<Live> {
        let link = self.link(machine_id)?;
        Some(Live {
            last_seen_at: link.last_seen_at(),
            connected_at: link.connected_at,
            heartbeat: link.heartbeat(),
            turns: link.turns.load(std::sync::atomic::Ordering::Acquire),
        })
    }

    /// How many machines are connected.
    pub fn connected(&self) -> usize {
        lock(&self.links).len()
    }

    /// Sends every machine away, each for another time so that they do not all come back at once, and closes its
    /// connection. New ones are refused from now on.
    pub fn shutdown(&self) {
        self.closing.store(true, std::sync::atomic::Ordering::Release);
        let links: Vec<Arc<Link>> = lock(&self.links).values().cloned().collect();
        // At most 20 a second, and spread over 5 s at least (contract agent-link 3.4). Whole seconds and the agents' own
        // chance make heaps: 12 a second on average leave room for them.
        let spread = (links.len() / 12).max(5);
        for (at, link) in links.iter().enumerate() {
            let retry = 1 + at * spread / links.len().max(1);
            let order = Disconnect {
                reason: "hub restart".to_owned(),
                retry_after_sec: i64::try_from(retry).unwrap_or(i64::MAX),
            };
            link.peer.send(&Message::new("disconnect", message_id(), &order).encode());
            link.peer.close(1001, "hub shutting down");
        }
        let arriving: Vec<Arc<dyn Peer>> = lock(&self.arriving).values().cloned().collect();
        for peer in arriving {
            peer.close(1001, "hub shutting down");
        }
        self.flush(true);
    }

    fn link(&self, machine_id: &str) -> Option<Arc<Link>> {
        lock(&self.links).get(machine_id).cloned()
    }

    fn links(&self) -> Vec<Arc<Link>> {
        lock(&self.links).values().cloned().collect()
    }

    /// Tells clients that a machine is different now.
    fn tell(&self, machine_id: &str, presence: &str, connected: bool) {
        if let Some(observer) = self.observer.get() {
            let frame =
                json!({"type": "machine", "machine_id": machine_id, "presence": presence, "connected": connected});
            observer(&crate::rt::json::to_vec(&frame));
        }
    }

    fn known(&self, machine_id: &str) -> Option<Machine> {
        self.machines.get(machine_id).unwrap_or_else(|error| {
            log::warn!("look for machine {machine_id}: {error}");
            None
        })
    }
}

/// A `ping`, encoded.
pub fn ping() -> Vec<u8> {
    Message { kind: "ping".to_owned(), id: message_id(), ..Message::default() }.encode()
}

/// An id for a message or a session: UUIDv7, so that it is never used twice.
fn message_id() -> String {
    let random = random_hex::<10>().unwrap_or_else(|_| format!("{:020x}", std::process::id()));
    let ms = crate::rt::clock::unix_ms().max(0);
    let time = format!("{ms:012x}");
    let (time_high, time_low) = time.split_at(8);
    format!("{time_high}-{time_low}-7{}-a{}-{}", &random[..3], &random[3..6], &random[6..18])
}
