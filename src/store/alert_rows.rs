//! Alerts as they are read, what people do to them, and what people were told of them.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::alert::Level;
use crate::store::StoreError;
use crate::store::alerts::{AlertStore, level_of, map_of};

const COLUMNS: &str = "a.id, a.machine_id, coalesce(nullif(m.display_name, ''), m.hostname, ''), a.alert_key,
    a.check_name, a.target, a.level, a.worst, a.labels, a.attrs, a.description, a.description_format, a.report,
    a.events, a.opened_at, a.changed_at, a.closed_at, a.close_reason, a.acknowledged_at, a.acknowledged_by, a.note,
    a.silenced_until, a.silenced_by, a.told, a.told_at, a.tell_at, a.told_as";
const FROM: &str = "FROM alerts a LEFT JOIN machines m ON m.id = a.machine_id";
const TIMES: &str = "(SELECT count(*) FROM alerts b WHERE b.machine_id = a.machine_id AND b.alert_key = a.alert_key)";
const HISTORY: &str = "SELECT event_time, event_status, received_at, description, attrs FROM alert_events
    WHERE machine_id = ?1 AND alert_key = ?2 AND alert_id = ?3 ORDER BY event_time DESC LIMIT ?4";
const ACKNOWLEDGE: &str = "UPDATE alerts SET acknowledged_at = ?2, acknowledged_by = ?3, note = ?4, told = level,
    told_at = ?2, tell_at = 0 WHERE id = ?1";
const SILENCE: &str = "UPDATE alerts SET silenced_until = ?2, silenced_by = ?3,
    note = CASE WHEN ?4 = '' THEN note ELSE ?4 END, tell_at = CASE WHEN ?2 <= ?5 AND told <> level THEN ?5
    WHEN tell_at > ?2 THEN max(?2, ?5) ELSE tell_at END WHERE id = ?1";
const CLOSE: &str = "UPDATE alerts SET level = 'Ok', closed_at = ?2, close_reason = 'by hand', note = ?3,
    tell_at = CASE WHEN told = '' THEN 0 ELSE ?2 END WHERE id = ?1";
const CLOSINGS: &str = "SELECT count(*) FROM alerts WHERE machine_id = ?1 AND alert_key = ?2 AND closed_at > ?3";
/// What changed since it was read stays due.
const TOLD: &str = "UPDATE alerts SET told = ?2, told_at = ?3, told_as = ?4,
    tell_at = CASE WHEN level = ?2 AND closed_at IS NULL THEN 0 ELSE ?3 END WHERE id = ?1";
const END_TOLD: &str = "UPDATE alerts SET told = '', tell_at = 0, told_as = 0 WHERE id = ?1 AND told <> ''";
/// Opened again while people were told of the end.
const END_TOLD_EARLY: &str = "UPDATE alerts SET told = '', told_as = 0, tell_at = ?2 WHERE closed_at IS NULL
    AND (machine_id, alert_key) = (SELECT machine_id, alert_key FROM alerts WHERE id = ?1)";
const HOLD: &str = "UPDATE alerts SET tell_at = ?3 WHERE id = ?1 AND tell_at = ?2";
const SETTLE: &str = "UPDATE alerts SET tell_at = 0 WHERE id = ?1 AND tell_at = ?2 AND level = ?3";
/// Rows that one transaction of a purge removes: others write in between.
const PURGE_ROWS: i64 = 1000;

/// An alert. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertRow {
    pub id: i64,
    /// Empty: the hub itself.
    pub machine_id: String,
    /// For people; empty when the machine is not registered.
    pub machine_name: String,
    pub key: String,
    pub check: String,
    pub target: String,
    /// [`Level::Ok`] when it is closed.
    pub level: Level,
    pub worst: Level,
    pub labels: BTreeMap<String, String>,
    pub attrs: BTreeMap<String, String>,
    pub description: String,
    /// Empty for plain text, else `markdown`.
    pub format: String,
    /// A diagnosis, Markdown; may be empty.
    pub report: String,
    /// How many events it had.
    pub events: i64,
    pub opened_at: i64,
    /// Of the last event.
    pub changed_at: i64,
    /// By the hub's clock.
    pub closed_at: Option<i64>,
    /// `recovered`, `moved`, `gone`, `by hand`.
    pub close_reason: String,
    pub acknowledged_at: Option<i64>,
    pub acknowledged_by: String,
    pub note: String,
    pub silenced_until: i64,
    pub silenced_by: String,
    /// What people were told and not told the end of.
    pub told: Option<Level>,
    pub told_at: i64,
    /// When there is something to tell; 0: nothing.
    pub tell_at: i64,
    pub told_as: ToldAs,
}

/// How people were told of an alert that they were told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToldAs {
    #[default]
    Alone,
    /// With a note that it comes and goes.
    Flapping,
    /// In a summary of its machine.
    AmongMany,
    /// In a summary of all machines.
    AmongAll,
}

/// An event in the history of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastEvent {
    /// Unix seconds, by the machine's clock.
    pub time: i64,
    pub level: Level,
    /// Milliseconds since 1970.
    pub received_at: i64,
    pub description: String,
    pub attrs: BTreeMap<String, String>,
}

/// Which alerts are wanted.
#[derive(Clone, Debug, Default)]
pub struct AlertFilter {
    /// Open ones, closed ones, or both.
    pub is_open: Option<bool>,
    /// An id or a name; empty: all.
    pub machine: String,
    /// Of open ones the level now, of closed ones the worst.
    pub level: Option<Level>,
    /// A check or a plugin; empty: all.
    pub check: String,
    /// Older than this id; 0: from the newest on.
    pub before: i64,
    /// Of each key the newest only.
    pub is_grouped: bool,
    pub limit: usize,
}

/// What somebody does to an open alert.
#[derive(Clone, Copy, Debug)]
pub enum Act<'a> {
    /// No repeats until it gets worse.
    Acknowledge {
        note: &'a str,
    },
    /// Nothing is told until then (milliseconds since 1970); a time that has passed ends the silence.
    Silence {
        until: i64,
        note: &'a str,
    },
    Close {
        note: &'a str,
    },
}

/// What became of an [`Act`].
#[derive(Debug)]
pub enum Acted {
    /// The alert as it is now.
    Done(Box<AlertRow>),
    NotFound,
    /// It is closed.
    Closed,
}

/// What happened to an alert that was due. `seen` is its `tell_at` when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// People were told of that level.
    Told { level: Level, told_as: ToldAs },
    /// People were told of its end.
    EndTold,
    /// Look again then.
    Hold { seen: i64, until: i64 },
    /// There is nothing to tell.
    Nothing { seen: i64, level: Level },
}

impl AlertStore {
    /// One alert.
    pub fn get(&self, id: i64) -> Result<Option<AlertRow>, StoreError> {
        self.db.read(|conn| row_of(conn, id))
    }

    /// Alerts, newest first, and how often each key was open.
    pub fn list(&self, filter: &AlertFilter) -> Result<Vec<(AlertRow, i64)>, StoreError> {
        let (state, twin) = match filter.is_open {
            Some(true) => ("a.closed_at IS NULL", "b.closed_at IS NULL"),
            Some(false) => ("a.closed_at IS NOT NULL", "b.closed_at IS NOT NULL"),
            None => ("1", "1"),
        };
        let grouped = if filter.is_grouped {
            format!(
                "AND NOT EXISTS (SELECT 1 FROM alerts b WHERE b.machine_id = a.machine_id
                    AND b.alert_key = a.alert_key AND b.id > a.id AND {twin})"
            )
        } else {
            String::new()
        };
        let sql = format!(
            "SELECT {COLUMNS}, {TIMES} {FROM} WHERE {state} AND (?1 = 0 OR a.id < ?1)
                AND (?2 = '' OR a.machine_id = ?2 OR m.display_name = ?2 OR m.hostname = ?2)
                AND (?3 = '' OR CASE WHEN a.closed_at IS NULL THEN a.level ELSE a.worst END = ?3)
                AND (?4 = '' OR a.check_name = ?4 OR substr(a.check_name, 1, length(?4) + 2) = ?4 || '::')
                {grouped} ORDER BY a.id DESC LIMIT ?5"
        );
        let level = filter.level.map_or("", Level::name);
        let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
        self.db.read(|conn| {
            let mut statement = conn.prepare_cached(&sql)?;
            let wanted = params![filter.before, filter.machine, level, filter.check, limit];
            let rows = statement.query_map(wanted, |row| Ok((alert(row)?, row.get(27)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The newest events of an alert.
    pub fn history(&self, alert: &AlertRow, limit: usize) -> Result<Vec<PastEvent>, StoreError> {
        self.db.read(|conn| {
            let mut statement = conn.prepare_cached(HISTORY)?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![alert.machine_id, alert.key, alert.id, limit], |row| {
                Ok(PastEvent {
                    time: row.get(0)?,
                    level: level_of(row.get_ref(1)?.as_str()?),
                    received_at: row.get(2)?,
                    description: row.get(3)?,
                    attrs: map_of(row.get_ref(4)?.as_str()?),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Open alerts by machine: critical, warning, info.
    pub fn open_counts(&self) -> Result<HashMap<String, [i64; 3]>, StoreError> {
        self.db.read(|conn| {
            let mut counts: HashMap<String, [i64; 3]> = HashMap::new();
            let mut statement = conn.prepare_cached(
                "SELECT machine_id, level, count(*) FROM alerts WHERE closed_at IS NULL GROUP BY machine_id, level",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let place = level_of(row.get_ref(1)?.as_str().unwrap_or_default()) as usize;
                if let Some(count) = counts.entry(row.get(0)?).or_default().get_mut(place) {
                    *count = row.get(2)?;
                }
            }
            Ok(counts)
        })
    }

    /// Does it, if the alert is open.
    pub fn act(&self, id: i64, act: Act<'_>, by: &str, now: i64) -> Result<Acted, StoreError> {
        self.db.write(|tx| {
            match row_of(tx, id)? {
                None => return Ok(Acted::NotFound),
                Some(row) if row.closed_at.is_some() => return Ok(Acted::Closed),
                Some(_) => {}
            }
            match act {
                Act::Acknowledge { note } => {
                    tx.prepare_cached(ACKNOWLEDGE)?.execute(params![id, now, by, note])?;
                }
                Act::Silence { until, note } => {
                    tx.prepare_cached(SILENCE)?.execute(params![id, until, by, note, now])?;
                }
                Act::Close { note } => {
                    let note = if note.is_empty() { format!("closed by {by}") } else { format!("{note} ({by})") };
                    tx.prepare_cached(CLOSE)?.execute(params![id, now, note])?;
                }
            }
            Ok(row_of(tx, id)?.map_or(Acted::NotFound, |row| Acted::Done(Box::new(row))))
        })
    }

    /// Hands alerts that are due to `take`, the earliest first, with how often their key was closed after `since`.
    pub fn due(
        &self,
        now: i64,
        since: i64,
        limit: i64,
        mut take: impl FnMut(AlertRow, i64),
    ) -> Result<usize, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} {FROM} WHERE a.tell_at > 0 AND a.tell_at <= ?1 ORDER BY a.tell_at, a.id LIMIT ?2"
        );
        self.db.read(|conn| {
            let mut statement = conn.prepare_cached(&sql)?;
            let mut closings = conn.prepare_cached(CLOSINGS)?;
            let mut rows = statement.query(params![now, limit])?;
            let mut count = 0;
            while let Some(row) = rows.next()? {
                let row = alert(row)?;
                let closed = closings.query_row(params![row.machine_id, row.key, since], |row| row.get(0))?;
                take(row, closed);
                count += 1;
            }
            Ok(count)
        })
    }

    /// When the next alert is due.
    pub fn next_due(&self) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT min(tell_at) FROM alerts WHERE tell_at > 0";
        self.db.read(|conn| Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?))
    }

    /// Notes what became of alerts that were due, in one transaction.
    pub fn mark(&self, marks: &[(i64, Mark)], now: i64) -> Result<(), StoreError> {
        self.db.write(|tx| {
            for (id, mark) in marks {
                match mark {
                    Mark::Told { level, told_as } => {
                        tx.prepare_cached(TOLD)?.execute(params![id, level.name(), now, *told_as as i64])?;
                    }
                    Mark::EndTold => {
                        if tx.prepare_cached(END_TOLD)?.execute([id])? == 0 {
                            tx.prepare_cached(END_TOLD_EARLY)?.execute(params![id, now])?;
                        }
                    }
                    Mark::Hold { seen, until } => {
                        tx.prepare_cached(HOLD)?.execute(params![id, seen, until])?;
                    }
                    Mark::Nothing { seen, level } => {
                        tx.prepare_cached(SETTLE)?.execute(params![id, seen, level.name()])?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Whether an alert is open that was told in a summary of that machine; of all machines without one.
    pub fn is_summary_open(&self, machine: Option<&str>) -> Result<bool, StoreError> {
        let told_as = if machine.is_some() { ToldAs::AmongMany } else { ToldAs::AmongAll };
        let sql = "SELECT EXISTS(SELECT 1 FROM alerts WHERE closed_at IS NULL AND told <> '' AND told_as = ?1
            AND (?2 IS NULL OR machine_id = ?2))";
        self.db.read(|conn| {
            let wanted = params![told_as as i64, machine];
            Ok(conn.prepare_cached(sql)?.query_row(wanted, |row| row.get(0))?)
        })
    }

    /// The text of the newest event of a key: what it said when it recovered.
    pub fn last_words(&self, machine: &str, key: &str) -> Result<String, StoreError> {
        let sql = "SELECT description FROM alert_events WHERE machine_id = ?1 AND alert_key = ?2
            ORDER BY event_time DESC LIMIT 1";
        let read = |row: &Row<'_>| row.get(0);
        self.db
            .read(|conn| Ok(conn.prepare_cached(sql)?.query_row([machine, key], read).optional()?.unwrap_or_default()))
    }

    /// Removes what was closed or received before a time, and the oldest beyond the numbers, closed alerts first.
    /// Blocks on the disk, with pauses for others.
    pub fn purge(&self, before: i64, alerts_max: i64, events_max: i64) -> Result<(), StoreError> {
        self.in_pieces(|tx| {
            let sql = "DELETE FROM alerts WHERE id IN (SELECT id FROM alerts WHERE closed_at < ?1 LIMIT ?2)";
            Ok(tx.prepare_cached(sql)?.execute(params![before, PURGE_ROWS])?)
        })?;
        self.in_pieces(|tx| {
            let sql = "DELETE FROM alerts WHERE id IN (SELECT id FROM alerts
                ORDER BY closed_at IS NULL, id LIMIT max(0, min(?2, (SELECT count(*) FROM alerts) - ?1)))";
            Ok(tx.prepare_cached(sql)?.execute(params![alerts_max, PURGE_ROWS])?)
        })?;
        self.in_pieces(|tx| {
            let sql = "DELETE FROM alert_events WHERE (machine_id, alert_key, event_time, event_status) IN (
                SELECT machine_id, alert_key, event_time, event_status FROM alert_events WHERE received_at < ?1 LIMIT ?2)";
            Ok(tx.prepare_cached(sql)?.execute(params![before, PURGE_ROWS])?)
        })?;
        self.in_pieces(|tx| {
            let sql = "DELETE FROM alert_events WHERE (machine_id, alert_key, event_time, event_status) IN (
                SELECT machine_id, alert_key, event_time, event_status FROM alert_events ORDER BY received_at
                LIMIT max(0, min(?2, (SELECT count(*) FROM alert_events) - ?1)))";
            Ok(tx.prepare_cached(sql)?.execute(params![events_max, PURGE_ROWS])?)
        })
    }

    /// Repeats a removal until it finds less than a whole piece.
    fn in_pieces(&self, remove: impl Fn(&Transaction<'_>) -> Result<usize, StoreError>) -> Result<(), StoreError> {
        while i64::try_from(self.db.write(&remove)?).unwrap_or(0) >= PURGE_ROWS {}
        Ok(())
    }
}

fn row_of(conn: &rusqlite::Connection, id: i64) -> Result<Option<AlertRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} {FROM} WHERE a.id = ?1");
    Ok(conn.prepare_cached(&sql)?.query_row([id], alert).optional()?)
}

fn alert(row: &Row<'_>) -> rusqlite::Result<AlertRow> {
    Ok(AlertRow {
        id: row.get(0)?,
        machine_id: row.get(1)?,
        machine_name: row.get(2)?,
        key: row.get(3)?,
        check: row.get(4)?,
        target: row.get(5)?,
        level: level_of(row.get_ref(6)?.as_str()?),
        worst: level_of(row.get_ref(7)?.as_str()?),
        labels: map_of(row.get_ref(8)?.as_str()?),
        attrs: map_of(row.get_ref(9)?.as_str()?),
        description: row.get(10)?,
        format: row.get(11)?,
        report: row.get(12)?,
        events: row.get(13)?,
        opened_at: row.get(14)?,
        changed_at: row.get(15)?,
        closed_at: row.get(16)?,
        close_reason: row.get(17)?,
        acknowledged_at: row.get(18)?,
        acknowledged_by: row.get(19)?,
        note: row.get(20)?,
        silenced_until: row.get(21)?,
        silenced_by: row.get(22)?,
        told: Level::from_name(row.get_ref(23)?.as_str()?),
        told_at: row.get(24)?,
        tell_at: row.get(25)?,
        told_as: match row.get(26)? {
            1 => ToldAs::Flapping,
            2 => ToldAs::AmongMany,
            3 => ToldAs::AmongAll,
            _ => ToldAs::Alone,
        },
    })
}
