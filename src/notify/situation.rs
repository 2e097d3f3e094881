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

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &[&str] = &[
        "INSERT INTO machines(id, state, hostname, display_name, presence, created_at) VALUES
            ('a', 'approved', 'pi', 'Garage', 'online', 0), ('b', 'approved', 'nas', '', 'lost', 0),
            ('c', 'pending', 'x', '', 'online', 0)",
        "INSERT INTO alerts(machine_id, alert_key, check_name, target, level, worst, labels, opened_at, changed_at) VALUES
            ('b', '1', 'disk::space', '/', 'Warning', 'Critical', '{}', 0, 0),
            ('b', '2', 'mem::usage', 'memory', 'Critical', 'Critical', '{}', 0, 0)",
        "INSERT INTO alerts(machine_id, alert_key, check_name, target, level, worst, labels, opened_at, changed_at, closed_at)
            VALUES ('a', '3', 'cpu::usage', 'cpu', 'Critical', 'Critical', '{}', 0, 0, 5)",
    ];

    #[test]
    fn a_hub_sees_its_machines_with_what_is_open() {
        let db = Arc::new(Db::in_memory().unwrap());
        for sql in ROWS {
            db.write(|tx| Ok(tx.execute(sql, [])?)).unwrap();
        }
        let situation = HubSituation::new(Arc::clone(&db));
        let mut machines = situation.machines().unwrap();
        machines.sort_by(|a, b| a.id.cmp(&b.id));
        let shown: Vec<_> =
            machines.iter().map(|m| format!("{} {} {} {} {}", m.id, m.name, m.level, m.open, m.is_online)).collect();
        assert_eq!(shown, ["a Garage Ok 0 true", "b nas Critical 2 false", "hub Holt Ok 0 true"]);
        let asked = |machine: &str, check: &str, target: &str| {
            let (machine_id, check, target) = (machine.to_owned(), check.to_owned(), target.to_owned());
            situation.is_unattended(&Notice { machine_id, check, target, ..Notice::default() })
        };
        assert!(asked("b", "disk::space", "/") && asked("b", "", "") && asked("", "", ""));
        assert!(!asked("b", "disk::space", "/data") && !asked("a", "cpu::usage", "cpu") && !asked("a", "", ""));
        let attend = "UPDATE alerts SET acknowledged_at = 1 WHERE alert_key = '1'";
        db.write(|tx| Ok(tx.execute(attend, [])?)).unwrap();
        assert!(!asked("b", "disk::space", "/") && asked("b", "mem::usage", "memory"));
        db.write(|tx| Ok(tx.execute("UPDATE alerts SET silenced_until = 9999999999999", [])?)).unwrap();
        assert!(!asked("", "", ""));
    }

    #[test]
    fn an_agent_knows_what_it_told() {
        let situation = AgentSituation::new("id", "pi");
        let event = |key: &str, level: Level| Event {
            time: 0,
            level,
            key: key.into(),
            labels: BTreeMap::new(),
            attrs: BTreeMap::new(),
            description: String::new(),
            format: String::new(),
        };
        situation.note(&event("a", Level::Warning));
        situation.note(&event("b", Level::Critical));
        let machine = situation.machines().unwrap().remove(0);
        assert_eq!((machine.id.as_str(), machine.level, machine.open), ("id", Level::Critical, 2));
        assert!(situation.is_unattended(&Notice::of_event(&event("a", Level::Warning))));
        situation.note(&event("b", Level::Ok));
        assert!(!situation.is_unattended(&Notice::of_event(&event("b", Level::Critical))));
        assert_eq!(situation.machines().unwrap().remove(0).level, Level::Warning);
    }
}
