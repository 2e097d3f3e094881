//! What channels ask about the world besides their notices.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::notice::Notice;
use crate::alert::{Event, Level};
use crate::rt::lock;
use crate::store::Db;
use crate::store::notices::{self, MachineRow};

/// Alerts of one machine that are counted; more is one broken check.
const OPEN_MAX: usize = 1000;

/// A machine as a home automation sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineState {
    /// A UUID; `hub` for the hub itself.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Of its worst open alert; [`Level::Ok`] without any.
    pub level: Level,
    /// Open alerts.
    pub open: u32,
    pub is_online: bool,
}

/// How things are now. Asked on the threads of channels; may read a database, never a network.
pub trait Situation: Send + Sync {
    /// All machines that count, in any order; None when that cannot be told now.
    fn machines(&self) -> Option<Vec<MachineState>>;

    /// Whether the alert of a notice is still open, or its request still undecided, and nobody attended to it.
    fn is_unattended(&self, notice: &Notice) -> bool;

    /// Takes note of an event that is about to be told.
    fn note(&self, _event: &Event) {}
}

/// The hub's: its database.
pub struct HubSituation {
    db: Arc<Db>,
}

impl HubSituation {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }
}

impl Situation for HubSituation {
    fn machines(&self) -> Option<Vec<MachineState>> {
        let rows = notices::machines(&self.db);
        let rows = rows.inspect_err(|error| log::warn!("notify: read the machines: {error}")).ok()?;
        let state = |row: MachineRow| MachineState {
            level: Level::from_name(&row.worst).unwrap_or(Level::Ok),
            id: row.id,
            name: row.name,
            open: row.open,
            is_online: row.is_online,
        };
        Some(rows.into_iter().map(state).collect())
    }

    fn is_unattended(&self, notice: &Notice) -> bool {
        let found = match notice.approval_id() {
            Some(id) => notices::is_pending(&self.db, id),
            None => notices::is_unattended(&self.db, &notice.machine_id, &notice.check, &notice.target),
        };
        found.unwrap_or_else(|error| {
            log::warn!("notify: look whether somebody attended to {}: {error}", notice.dedup);
            true // rather told once too often
        })
    }
}

/// An agent's: what it told of itself since its start.
pub struct AgentSituation {
    id: String,
    name: String,
    /// Guarded by the mutex: keys of open alerts and their levels. Nothing is taken under it.
    open: Mutex<BTreeMap<String, Level>>,
}

impl AgentSituation {
    /// Of the machine with that id, called that name.
    pub fn new(id: &str, name: &str) -> Self {
        Self { id: id.to_owned(), name: name.to_owned(), open: Mutex::default() }
    }
}

impl Situation for AgentSituation {
    fn machines(&self) -> Option<Vec<MachineState>> {
        let open = lock(&self.open);
        Some(vec![MachineState {
            id: self.id.clone(),
            name: self.name.clone(),
            level: open.values().min().copied().unwrap_or(Level::Ok),
            open: u32::try_from(open.len()).unwrap_or(u32::MAX),
            is_online: true,
        }])
    }

    fn is_unattended(&self, notice: &Notice) -> bool {
        lock(&self.open).contains_key(&notice.dedup)
    }

    fn note(&self, event: &Event) {
        let mut open = lock(&self.open);
        if event.level == Level::Ok {
            open.remove(&event.key);
        } else if open.len() < OPEN_MAX || open.contains_key(&event.key) {
            open.insert(event.key.clone(), event.level);
        }
    }
}
