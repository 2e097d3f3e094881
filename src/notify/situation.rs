//! What channels ask about the world besides their notices.

use std::sync::Arc;

use super::notice::Notice;
use crate::alert::Level;
use crate::store::{Db, notices};

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
    /// All machines that count, in any order.
    fn machines(&self) -> Vec<MachineState>;

    /// Whether the alert of a notice is still open and nobody attended to it.
    fn is_unattended(&self, notice: &Notice) -> bool;
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
    fn machines(&self) -> Vec<MachineState> {
        let rows = notices::machines(&self.db).unwrap_or_else(|error| {
            log::warn!("notify: read the machines: {error}");
            Vec::new()
        });
        rows.into_iter()
            .map(|row| MachineState {
                level: Level::from_name(&row.worst).unwrap_or(Level::Ok),
                id: row.id,
                name: row.name,
                open: row.open,
                is_online: row.is_online,
            })
            .collect()
    }

    fn is_unattended(&self, notice: &Notice) -> bool {
        notices::is_unattended(&self.db, &notice.machine_id, &notice.check, &notice.target).unwrap_or_else(|error| {
            log::warn!("notify: look whether an alert is still open: {error}");
            true // rather told once too often
        })
    }
}
