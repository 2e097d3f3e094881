//! Notifications on their way, a row for each channel that takes one.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::{Row, ToSql, Transaction, params, params_from_iter};

use crate::limits;
use crate::rt::clock;
use crate::rt::order::gather;
use crate::store::{Db, StoreError};

const COLUMNS: &str = "id, channel, dedup, body, state, attempts, next_at, created_at, error";
const INSERT: &str = "INSERT INTO notices(channel, dedup, body, next_at, created_at)
    SELECT ?1, ?2, ?3, ?4, ?5 WHERE NOT EXISTS
    (SELECT 1 FROM notices WHERE channel = ?1 AND dedup = ?2 AND state IN ('waiting', 'held'))";
/// The oldest rows of a channel beyond what it may hold.
const SHED: &str =
    "UPDATE notices SET state = 'failed', error = 'too many were waiting' WHERE id IN (SELECT id FROM notices
    WHERE channel = ?1 AND state IN ('waiting', 'held') ORDER BY id DESC LIMIT -1 OFFSET ?2)";
const SHED_TOLD: &str = "DELETE FROM notices WHERE id IN (SELECT id FROM notices
    WHERE channel = ?1 AND state = 'told' ORDER BY id DESC LIMIT -1 OFFSET ?2)";
const FORGET_TOLD: &str = "DELETE FROM notices WHERE state = 'told' AND id <> ?1
    AND (channel, dedup) = (SELECT channel, dedup FROM notices WHERE id = ?1)";
const SHED_FAILED: &str = "DELETE FROM notices WHERE id IN (SELECT id FROM notices
    WHERE state = 'failed' ORDER BY id DESC LIMIT -1 OFFSET ?1)";
/// What was tried keeps its place: the channel as a whole waits between attempts. What is held stands behind, so that
/// much of it does not hide what may be told.
const DUE: &str = "channel = ?1 AND (state = 'held' OR (state = 'waiting' AND (next_at <= ?2 OR attempts > 0)))
    ORDER BY state = 'held', id LIMIT ?3";

/// A row that is to be made. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNotice {
    pub channel: String,
    /// While a row of the same key waits in the channel, this one is the same and no row is made.
    pub dedup: String,
    /// JSON.
    pub body: String,
    pub next_at: i64,
    pub created_at: i64,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeRow {
    pub id: i64,
    pub channel: String,
    pub dedup: String,
    pub body: String,
    /// `waiting`; `held` until quiet hours are over; `failed`; `told`: delivered, and its end is to be told too.
    pub state: String,
    pub attempts: u32,
    pub next_at: i64,
    pub created_at: i64,
    /// Why the last attempt failed.
    pub error: String,
}

/// The notifications of `holt.db`.
pub struct NoticeStore {
    db: Arc<Db>,
}

impl NoticeStore {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// Adds rows; durable when this returns.
    pub fn add(&self, new: &[NewNotice]) -> Result<(), StoreError> {
        if new.is_empty() {
            return Ok(());
        }
        self.db.write(|tx| insert(tx, new))
    }

    /// What may be sent now, then what is held, each the oldest first.
    pub fn due(&self, channel: &str, now: i64, rows_max: usize) -> Result<Vec<NoticeRow>, StoreError> {
        self.rows(DUE, &[&channel, &now, &many(rows_max)])
    }

    /// When the next row of a channel is due, held ones included.
    pub fn next_at(&self, channel: &str) -> Result<Option<i64>, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT min(next_at) FROM notices WHERE channel = ?1 AND state IN ('waiting', 'held')";
            Ok(conn.prepare_cached(sql)?.query_row([channel], |row| row.get(0))?)
        })
    }

    /// Delivered: the rows leave.
    pub fn delete(&self, ids: &[i64]) -> Result<usize, StoreError> {
        self.db.write(|tx| {
            let mut statement = tx.prepare_cached("DELETE FROM notices WHERE id = ?1")?;
            ids.iter().try_fold(0, |gone, id| Ok(gone + statement.execute([id])?))
        })
    }

    /// Another state, next attempt and error, for rows that are still there and not given up. A failed attempt counts.
    pub fn mark(&self, ids: &[i64], state: &str, next_at: i64, error: &str) -> Result<(), StoreError> {
        let tried = i64::from(!error.is_empty());
        self.db.write(|tx| {
            let sql = "UPDATE notices SET state = ?2, next_at = ?3, error = ?4, attempts = attempts + ?5
                WHERE id = ?1 AND state <> 'failed'";
            let mut statement = tx.prepare_cached(sql)?;
            for id in ids {
                statement.execute(params![id, state, next_at, error, tried])?;
            }
            drop(statement);
            if state == "failed" {
                tx.prepare_cached(SHED_FAILED)?.execute([many(limits::NOTICES_FAILED_MAX)])?;
            }
            Ok(())
        })
    }

    /// The rows are delivered, but their end is to be told too. Older ones of the same keys leave.
    pub fn told(&self, ids: &[i64]) -> Result<(), StoreError> {
        self.db.write(|tx| {
            for id in ids {
                tx.prepare_cached(FORGET_TOLD)?.execute([id])?;
                tx.prepare_cached("UPDATE notices SET state = 'told', body = '', error = '' WHERE id = ?1")?
                    .execute([id])?;
            }
            Ok(())
        })
    }

    /// Rows of these keys that wait in a channel, are held, or were told.
    pub fn of_keys(&self, channel: &str, keys: &[String]) -> Result<Vec<NoticeRow>, StoreError> {
        let marks = vec!["?"; keys.len()].join(",");
        let which = format!("state <> 'failed' AND channel = ? AND dedup IN ({marks}) ORDER BY id");
        let mut params: Vec<&dyn ToSql> = vec![&channel];
        params.extend(keys.iter().map(|key| key as &dyn ToSql));
        self.rows(&which, &params)
    }

    /// Waiting, held and failed rows, newest first.
    pub fn list(&self, rows_max: usize) -> Result<Vec<NoticeRow>, StoreError> {
        self.rows("state <> 'told' ORDER BY id DESC LIMIT ?1", &[&many(rows_max)])
    }

    /// One row.
    pub fn get(&self, id: i64) -> Result<Option<NoticeRow>, StoreError> {
        Ok(self.rows("id = ?1", &[&id])?.pop())
    }

    /// Channels that do not run take nothing any more: what waits for them counts as failed. What they told is
    /// forgotten only when they are not known either: one that is switched on again tells the ends.
    pub fn keep_channels(&self, running: &[&str], known: &[&str]) -> Result<(), StoreError> {
        let marks = |names: &[&str]| vec!["?"; names.len()].join(",");
        self.db.write(|tx| {
            let sql = format!("DELETE FROM notices WHERE state = 'told' AND channel NOT IN ({})", marks(known));
            tx.execute(&sql, params_from_iter(known))?;
            let sql = format!(
                "UPDATE notices SET state = 'failed', error = 'its channel is gone or switched off'
                 WHERE state IN ('waiting', 'held') AND channel NOT IN ({})",
                marks(running)
            );
            tx.execute(&sql, params_from_iter(running))?;
            Ok(())
        })
    }

    fn rows(&self, which: &str, params: &[&dyn ToSql]) -> Result<Vec<NoticeRow>, StoreError> {
        self.db.read(|conn| {
            let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM notices WHERE {which}"))?;
            let rows = statement.query_map(params, notice)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

fn insert(tx: &Transaction<'_>, new: &[NewNotice]) -> Result<(), StoreError> {
    for notice in new {
        let NewNotice { channel, dedup, body, next_at, created_at } = notice;
        tx.prepare_cached(INSERT)?.execute(params![channel, dedup, body, next_at, created_at])?;
    }
    for channel in gather::<BTreeSet<_>, _>(new.iter().map(|notice| &notice.channel)) {
        for shed in [SHED, SHED_TOLD] {
            tx.prepare_cached(shed)?.execute(params![channel, many(limits::NOTICES_WAITING_MAX)])?;
        }
    }
    Ok(())
}

fn many(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

fn notice(row: &Row<'_>) -> rusqlite::Result<NoticeRow> {
    Ok(NoticeRow {
        id: row.get(0)?,
        channel: row.get(1)?,
        dedup: row.get(2)?,
        body: row.get(3)?,
        state: row.get(4)?,
        attempts: row.get(5)?,
        next_at: row.get(6)?,
        created_at: row.get(7)?,
        error: row.get(8)?,
    })
}

/// A machine in the words of [`machines`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineRow {
    pub id: String,
    pub name: String,
    /// The worst level among its open alerts; empty without any.
    pub worst: String,
    pub open: u32,
    pub is_online: bool,
}

/// Approved machines with their open alerts, and the hub itself (`hub`) for alerts of its own.
pub fn machines(db: &Db) -> Result<Vec<MachineRow>, StoreError> {
    const SQL: &str = "SELECT m.id, CASE WHEN m.display_name <> '' THEN m.display_name ELSE m.hostname END,
            coalesce(max(CASE a.level WHEN 'Critical' THEN 3 WHEN 'Warning' THEN 2 WHEN 'Info' THEN 1 END), 0),
            count(a.id), m.presence = 'online'
        FROM (SELECT id, display_name, hostname, presence FROM machines WHERE state = 'approved'
              UNION ALL SELECT '', '', '', 'online') m
        LEFT JOIN alerts a ON a.machine_id = m.id AND a.closed_at IS NULL GROUP BY m.id";
    db.read(|conn| {
        let mut statement = conn.prepare_cached(SQL)?;
        let rows = statement.query_map([], |row| {
            let id: String = row.get(0)?;
            let worst = match row.get::<_, u32>(2)? {
                0 => "",
                1 => "Info",
                2 => "Warning",
                _ => "Critical",
            };
            let is_hub = id.is_empty();
            Ok(MachineRow {
                name: if is_hub { "Holt".to_owned() } else { row.get(1)? },
                id: if is_hub { "hub".to_owned() } else { id },
                worst: worst.to_owned(),
                open: row.get(3)?,
                is_online: row.get(4)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    })
}

/// Whether a request for approval waits for a decision.
pub fn is_pending(db: &Db, approval_id: &str) -> Result<bool, StoreError> {
    const SQL: &str = "SELECT EXISTS(SELECT 1 FROM approvals WHERE id = ?1 AND status = 'pending')";
    db.read(|conn| Ok(conn.prepare_cached(SQL)?.query_row([approval_id], |row| row.get(0))?))
}

/// Whether an alert is open that nobody has acknowledged or silenced. An empty check means any of the machine, and an
/// empty machine with it any at all: a summary speaks of many.
pub fn is_unattended(db: &Db, machine_id: &str, check: &str, target: &str) -> Result<bool, StoreError> {
    const SQL: &str = "SELECT EXISTS(SELECT 1 FROM alerts WHERE (machine_id = ?1 OR (?1 = '' AND ?2 = ''))
        AND (?2 = '' OR (check_name = ?2 AND target = ?3))
        AND closed_at IS NULL AND acknowledged_at IS NULL AND silenced_until < ?4)";
    let params = params![machine_id, check, target, clock::unix_ms()];
    db.read(|conn| Ok(conn.prepare_cached(SQL)?.query_row(params, |row| row.get(0))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(channel: &str, dedup: &str, next_at: i64) -> NewNotice {
        NewNotice { channel: channel.into(), dedup: dedup.into(), body: "{}".into(), next_at, created_at: 0 }
    }

    #[test]
    fn rows_wait_once_fail_and_are_forgotten() {
        let store = NoticeStore::new(Arc::new(Db::in_memory().unwrap()));
        store.add(&[row("a", "x", 5), row("a", "x", 6), row("b", "x", 7), row("a", "y", 9)]).unwrap();
        let due = |now| store.due("a", now, 10).unwrap();
        assert_eq!(due(8).iter().map(|row| row.dedup.as_str()).collect::<Vec<_>>(), ["x"]);
        assert_eq!(store.next_at("a").unwrap(), Some(5));
        let first = due(8)[0].id;
        store.mark(&[first], "waiting", 1_000_000, "no route").unwrap();
        // What was tried keeps its place before what comes later.
        assert_eq!(
            due(10).iter().map(|row| (row.dedup.as_str(), row.attempts)).collect::<Vec<_>>(),
            [("x", 1), ("y", 0)]
        );
        store.told(&[first]).unwrap();
        store.add(&[row("a", "x", 5)]).unwrap();
        let again = due(8)[0].id;
        store.told(&[again]).unwrap();
        let told = store.of_keys("a", &["x".into(), "z".into()]).unwrap();
        assert_eq!(told.iter().map(|row| (row.id, row.state.as_str())).collect::<Vec<_>>(), [(again, "told")]);
        store.keep_channels(&["b"], &["a", "b"]).unwrap();
        assert_eq!(store.of_keys("a", &["x".into()]).unwrap().len(), 1, "it is only switched off");
        store.keep_channels(&["b"], &["b"]).unwrap();
        assert_eq!(store.of_keys("a", &["x".into()]).unwrap(), []);
        // What its thread says of it afterwards comes too late.
        let given_up = store.list(10).unwrap().into_iter().find(|row| row.channel == "a").unwrap().id;
        store.mark(&[given_up], "waiting", 9, "no route").unwrap();
        let left = store.list(10).unwrap();
        let left: Vec<_> =
            left.iter().map(|row| (row.channel.as_str(), row.dedup.as_str(), row.state.as_str())).collect();
        assert_eq!(left, [("a", "y", "failed"), ("b", "x", "waiting")]);
    }

    #[test]
    fn a_full_channel_sheds_its_oldest_rows() {
        let store = NoticeStore::new(Arc::new(Db::in_memory().unwrap()));
        let many: Vec<_> = (0..limits::NOTICES_WAITING_MAX + 2).map(|n| row("a", &n.to_string(), 0)).collect();
        store.add(&many).unwrap();
        assert_eq!(store.due("a", 0, usize::MAX).unwrap().len(), limits::NOTICES_WAITING_MAX);
        let failed = store.list(usize::MAX).unwrap().into_iter().filter(|row| row.state == "failed");
        assert_eq!(failed.map(|row| row.dedup).collect::<Vec<_>>(), ["1", "0"]);
    }
}
