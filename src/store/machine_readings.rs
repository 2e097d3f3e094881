//! What heartbeats tell: signs of life, written together, and one row of numbers a minute.

use std::sync::Arc;

use rusqlite::{Row, params};
use serde_json::Value;

use crate::store::machines::{Presence, text_of};
use crate::store::{Db, StoreError};

/// The numbers of a minute; None where the machine says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The minute, in milliseconds since 1970.
    pub at: i64,
    pub cpu_pct: Option<f64>,
    pub mem_pct: Option<f64>,
    pub disk_pct: Option<f64>,
    pub load1: Option<f64>,
    pub temp_c: Option<f64>,
}

/// Machine, when it was last seen, and its last heartbeat if there was one.
pub type Seen = (String, i64, Option<Value>);

/// What the keeper looks at whenever the file has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRow {
    pub id: String,
    pub is_approved: bool,
    pub wants_token: bool,
    pub expected_off: bool,
    /// What people call it.
    pub name: String,
}

/// The readings of `holt.db`, and what is written of machines while they are connected.
#[derive(Clone)]
pub struct MachineReadings {
    db: Arc<Db>,
}

impl MachineReadings {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// Writes signs of life and readings in one transaction. A second reading of a minute replaces the first.
    pub fn write(&self, seen: &[Seen], readings: &[(String, Reading)]) -> Result<(), StoreError> {
        if seen.is_empty() && readings.is_empty() {
            return Ok(());
        }
        self.db.write(|tx| {
            let sql = "UPDATE machines SET last_seen_at = max(last_seen_at, ?2), heartbeat = coalesce(?3, heartbeat)
                WHERE id = ?1";
            let mut statement = tx.prepare_cached(sql)?;
            for (id, at, heartbeat) in seen {
                statement.execute(params![id, at, heartbeat.as_ref().map(text_of)])?;
            }
            let sql =
                "INSERT OR REPLACE INTO machine_readings(machine_id, at, cpu_pct, mem_pct, disk_pct, load1, temp_c)
                SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE EXISTS(SELECT 1 FROM machines WHERE id = ?1)";
            let mut statement = tx.prepare_cached(sql)?;
            for (id, it) in readings {
                statement.execute(params![id, it.at, it.cpu_pct, it.mem_pct, it.disk_pct, it.load1, it.temp_c])?;
            }
            Ok(())
        })
    }

    /// The readings of a machine since then, oldest first.
    pub fn list(&self, machine_id: &str, since: i64) -> Result<Vec<Reading>, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT at, cpu_pct, mem_pct, disk_pct, load1, temp_c FROM machine_readings
                WHERE machine_id = ?1 AND at >= ?2 ORDER BY at";
            let mut statement = conn.prepare_cached(sql)?;
            let reading = |row: &Row<'_>| {
                Ok(Reading {
                    at: row.get(0)?,
                    cpu_pct: row.get(1)?,
                    mem_pct: row.get(2)?,
                    disk_pct: row.get(3)?,
                    load1: row.get(4)?,
                    temp_c: row.get(5)?,
                })
            };
            Ok(statement.query_map(params![machine_id, since], reading)?.collect::<Result<_, _>>()?)
        })
    }

    /// Keeps one reading in ten minutes of those before `thin_before`, and none before `gone_before`.
    pub fn purge(&self, thin_before: i64, gone_before: i64) -> Result<usize, StoreError> {
        self.db.write(|tx| {
            let gone = tx.execute("DELETE FROM machine_readings WHERE at < ?1", [gone_before])?;
            let sql = "DELETE FROM machine_readings WHERE at < ?1 AND (at / 60000) % 10 <> 0";
            Ok(gone + tx.execute(sql, [thin_before])?)
        })
    }

    /// Writes what became of a machine's presence, and whether people were told.
    pub fn set_presence(&self, id: &str, presence: Presence, at: i64) -> Result<(), StoreError> {
        self.db.write(|tx| {
            let sql =
                "UPDATE machines SET presence_at = CASE presence WHEN ?2 THEN presence_at ELSE ?3 END, presence = ?2
                WHERE id = ?1";
            tx.execute(sql, params![id, presence.name(), at])?;
            Ok(())
        })
    }

    /// Writes of which fall of these machines people were told: 0 of none, 1 of its own, else of that round.
    pub fn set_reported(&self, ids: &[String], reported: i64) -> Result<(), StoreError> {
        self.db.write(|tx| {
            for id in ids {
                tx.execute("UPDATE machines SET down_reported = ?2 WHERE id = ?1", params![id, reported])?;
            }
            Ok(())
        })
    }

    /// All machines, as far as the keeper is concerned.
    pub fn watch(&self) -> Result<Vec<WatchRow>, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT id, state = 'approved', next_token_hash = 'wanted', expected_off,
                CASE WHEN display_name <> '' THEN display_name WHEN hostname <> '' THEN hostname ELSE id END FROM machines";
            let mut statement = conn.prepare_cached(sql)?;
            let row = |row: &Row<'_>| {
                Ok(WatchRow {
                    id: row.get(0)?,
                    is_approved: row.get(1)?,
                    wants_token: row.get(2)?,
                    expected_off: row.get(3)?,
                    name: row.get(4)?,
                })
            };
            Ok(statement.query_map([], row)?.collect::<Result<_, _>>()?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MachineStore;

    #[test]
    fn readings_are_thinned_and_expire() {
        let db = Arc::new(Db::in_memory().unwrap());
        let (machines, readings) = (MachineStore::new(Arc::clone(&db)), MachineReadings::new(db));
        machines.admit_shared("a").unwrap();
        let minute = |number: i32| {
            (
                "a".to_owned(),
                Reading { at: i64::from(number) * 60_000, cpu_pct: Some(number.into()), ..Reading::default() },
            )
        };
        let all: Vec<_> = (0..60).map(minute).collect();
        readings.write(&[("a".to_owned(), 9, Some(serde_json::json!({"cpu_pct": 1.5})))], &all).unwrap();
        readings.write(&[], &[("gone".to_owned(), Reading::default())]).unwrap();
        assert_eq!(readings.list("a", 0).unwrap().len(), 60);
        readings.purge(40 * 60_000, 15 * 60_000).unwrap();
        let left: Vec<i64> = readings.list("a", 0).unwrap().iter().map(|reading| reading.at / 60_000).collect();
        assert_eq!(left[..4], [20, 30, 40, 41]);
        assert_eq!(left.len(), 22);
        let machine = machines.get("a").unwrap().unwrap();
        assert_eq!((machine.last_seen_at, &machine.heartbeat["cpu_pct"]), (9, &serde_json::json!(1.5)));
        readings.write(&[("a".to_owned(), 5, None)], &[]).unwrap();
        assert_eq!(machines.get("a").unwrap().unwrap().last_seen_at, 9);
        readings.set_presence("a", Presence::Lost, 50).unwrap();
        readings.set_reported(&["a".to_owned()], 1).unwrap();
        let machine = machines.get("a").unwrap().unwrap();
        assert_eq!((machine.presence, machine.presence_at, machine.down_reported), (Presence::Lost, 50, 1));
        let watched = readings.watch().unwrap();
        assert!(watched.len() == 1 && watched[0].is_approved && !watched[0].wants_token);
        machines.forget("a").unwrap();
        assert!(readings.list("a", 0).unwrap().is_empty());
    }
}
