//! Alerts: what is wrong at one place of a machine, from the first event to the recovery (contract agent-link 2.7, 6.2).
//!
//! Taking events in is here; what people do to alerts and how they are read is in `alert_rows`.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{OptionalExtension, Transaction, params};

use crate::alert::{Event, Level};
use crate::rt::text::cut;
use crate::store::{Db, StoreError};

/// Events kept with one alert; the oldest go first.
pub const EVENTS_KEPT: i64 = 200;
/// How far the clock of a machine may be ahead: what is further ahead was a wrong clock, and an event after it counts
/// although it looks older.
const AHEAD_S: i64 = 300;
/// An alert that goes on is told again at the earliest after this, and only when its machine says so again.
pub const REPEAT_MS: i64 = 4 * 3600 * 1000;
/// A level that sank this long after people were told of it may be told again when it rises.
const SETTLED_MS: i64 = 10 * 60 * 1000;
/// A description in the history of an alert.
const PAST_BYTES_MAX: usize = 4 * 1024;

const IS_KNOWN: &str = "SELECT EXISTS(SELECT 1 FROM alert_events
    WHERE machine_id = ?1 AND alert_key = ?2 AND event_time = ?3 AND event_status = ?4)";
const HAS_NEWER: &str = "SELECT EXISTS(SELECT 1 FROM alert_events
    WHERE machine_id = ?1 AND alert_key = ?2 AND event_time > ?3 AND event_time <= ?4)";
const NEWEST: &str = "SELECT max(event_time) FROM alert_events WHERE machine_id = ?1 AND alert_key = ?2";
const INSERT_EVENT: &str = "INSERT INTO alert_events(machine_id, alert_key, event_time, event_status, alert_id,
    received_at, description, attrs) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const SHORTEN: &str = "DELETE FROM alert_events WHERE machine_id = ?1 AND alert_key = ?2 AND event_time < (
    SELECT event_time FROM alert_events WHERE machine_id = ?1 AND alert_key = ?2
    ORDER BY event_time DESC LIMIT 1 OFFSET ?3)";
const OPEN: &str = "SELECT id, level, worst, told, told_at, tell_at, acknowledged_at IS NOT NULL, changed_at, events
    FROM alerts WHERE machine_id = ?1 AND alert_key = ?2 AND closed_at IS NULL";
const INSERT: &str = "INSERT INTO alerts(machine_id, alert_key, check_name, target, level, worst, labels, attrs,
    description, description_format, opened_at, changed_at, told, told_at, tell_at, told_as)
    VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11, ?12, ?13, ?14)";
const FIRED_AGAIN: &str = "UPDATE alerts SET level = ?2, worst = ?3, attrs = ?4, description = ?5,
    description_format = ?6, changed_at = ?7, told = ?8, tell_at = ?9, events = events + 1,
    acknowledged_at = CASE WHEN ?10 THEN NULL ELSE acknowledged_at END WHERE id = ?1";
const CLOSE: &str = "UPDATE alerts SET level = 'Ok', changed_at = max(changed_at, ?2), closed_at = ?3,
    close_reason = ?4, events = events + ?5, tell_at = CASE WHEN told = '' THEN 0 ELSE ?3 END WHERE id = ?1";
/// What was closed and not told yet goes on: people believe that it is open, and it is.
const UNTOLD_END: &str = "SELECT id, told, told_at, told_as FROM alerts
    WHERE machine_id = ?1 AND alert_key = ?2 AND closed_at IS NOT NULL AND told <> '' ORDER BY closed_at DESC LIMIT 1";
const FORGET_END: &str = "UPDATE alerts SET told = '', tell_at = 0, told_as = 0 WHERE id = ?1";
const OF_TIME: &str = "SELECT id FROM alerts WHERE machine_id = ?1 AND alert_key = ?2 AND opened_at <= ?3
    AND (closed_at IS NULL OR changed_at >= ?3) ORDER BY id DESC LIMIT 1";
const LATEST: &str = "SELECT id FROM alerts WHERE machine_id = ?1 AND alert_key = ?2 ORDER BY id DESC LIMIT 1";
const LATE: &str = "UPDATE alerts SET worst = ?2, opened_at = min(opened_at, ?3), events = events + 1 WHERE id = ?1";
const REPORT: &str = "UPDATE alerts SET report = ?2 WHERE id = ?1 AND report <> ?2";
const SAME_PLACE: &str = "SELECT id, labels, alert_key FROM alerts WHERE machine_id = ?1 AND check_name = ?2
    AND target = ?3 AND closed_at IS NULL AND alert_key <> ?4 AND changed_at <= ?5";

/// What became of some events.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// New ones, late ones included.
    pub stored: usize,
    /// Known already.
    pub duplicates: usize,
    /// Refused by whoever called, who says why.
    pub refused: usize,
    /// What is different now, in the order of the events.
    pub changes: Vec<Change>,
}

/// What happened to an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Opened,
    /// Another level.
    Changed,
    Closed,
    /// A diagnosis came in.
    Reported,
}

/// An alert that is different now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub id: i64,
    pub what: What,
    pub key: String,
    pub check: String,
    pub target: String,
    pub level: Level,
}

/// The alerts of `holt.db`.
pub struct AlertStore {
    pub(super) db: Arc<Db>,
}

/// One batch on its way in.
struct Intake<'a> {
    tx: &'a Transaction<'a>,
    machine: &'a str,
    /// Milliseconds since 1970, here.
    now: i64,
    /// When people may be told at the earliest.
    tell_at: i64,
    taken: Taken,
}

/// What an event needs to know of the open alert it belongs to.
struct OpenAlert {
    id: i64,
    level: Level,
    worst: Level,
    told: Option<Level>,
    told_at: i64,
    tell_at: i64,
    is_acknowledged: bool,
    changed_at: i64,
    events: i64,
}

impl AlertStore {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// Takes events of a machine (none: the hub itself) in one transaction; durable when this returns Ok. An event that
    /// is known changes nothing, one that is older than what is known of its alert never opens or lowers it. What
    /// people should hear gets due at `tell_at`. Times are milliseconds since 1970. Blocks on the disk.
    pub fn take(&self, machine: &str, events: &[Event], now: i64, tell_at: i64) -> Result<Taken, StoreError> {
        self.db.write(|tx| {
            let mut intake = Intake { tx, machine, now, tell_at, taken: Taken::default() };
            for event in events {
                intake.one(event)?;
            }
            Ok(intake.taken)
        })
    }

    /// The same for an event that the hub makes itself: it happens now, after everything that is known of its key.
    pub fn take_own(&self, machine: &str, mut event: Event, now: i64, tell_at: i64) -> Result<Taken, StoreError> {
        self.db.write(|tx| {
            let newest: Option<i64> =
                tx.prepare_cached(NEWEST)?.query_row([machine, event.key.as_str()], |row| row.get(0))?;
            event.time = newest.map_or(event.time, |newest| event.time.max(newest.saturating_add(1)));
            let mut intake = Intake { tx, machine, now, tell_at, taken: Taken::default() };
            intake.one(&event)?;
            Ok(intake.taken)
        })
    }

    /// Closes whatever is open on a machine; how many that were.
    pub fn close_all(&self, machine: &str, reason: &str, now: i64) -> Result<usize, StoreError> {
        let sql = "UPDATE alerts SET level = 'Ok', closed_at = ?2, close_reason = ?3,
            tell_at = CASE WHEN told = '' THEN 0 ELSE ?2 END WHERE machine_id = ?1 AND closed_at IS NULL";
        self.db.write(|tx| Ok(tx.prepare_cached(sql)?.execute(params![machine, now, reason])?))
    }
}

impl Intake<'_> {
    fn one(&mut self, event: &Event) -> Result<(), StoreError> {
        if event.attrs.contains_key("report_of") {
            return self.report(event);
        }
        let status = event.level.name();
        let known = params![self.machine, event.key, event.time, status];
        if self.tx.prepare_cached(IS_KNOWN)?.query_row(known, |row| row.get(0))? {
            self.taken.duplicates += 1;
            return Ok(());
        }
        let open =
            self.tx.prepare_cached(OPEN)?.query_row([self.machine, event.key.as_str()], open_alert).optional()?;
        let alert_id = if self.is_late(event, open.as_ref())? {
            self.late(event, open)?
        } else if event.level == Level::Ok {
            self.recover(event, open)?
        } else {
            Some(self.fire(event, open)?)
        };
        self.tx.prepare_cached(INSERT_EVENT)?.execute(params![
            self.machine,
            event.key,
            event.time,
            status,
            alert_id,
            self.now,
            cut(&event.description, PAST_BYTES_MAX),
            text_of(&event.attrs)
        ])?;
        self.taken.stored += 1;
        Ok(())
    }

    /// Whether something newer is known of the same key.
    fn is_late(&self, event: &Event, open: Option<&OpenAlert>) -> Result<bool, StoreError> {
        let sane_until = self.now / 1000 + AHEAD_S;
        let until = if event.time <= sane_until { sane_until } else { i64::MAX };
        let newest = open.map_or(0, |open| open.changed_at / 1000);
        if newest > event.time && newest <= until {
            return Ok(true);
        }
        let range = params![self.machine, event.key, event.time, until];
        Ok(self.tx.prepare_cached(HAS_NEWER)?.query_row(range, |row| row.get(0))?)
    }

    /// Notes what is already over.
    fn late(&mut self, event: &Event, open: Option<OpenAlert>) -> Result<Option<i64>, StoreError> {
        let at = ms_of(event);
        if let Some(open) = open {
            // It had begun earlier, or had been worse.
            let worst = if event.level.is_worse_than(open.worst) { event.level } else { open.worst };
            let began = if event.level == Level::Ok { i64::MAX } else { at };
            self.tx.prepare_cached(LATE)?.execute(params![open.id, worst.name(), began])?;
            return Ok(Some(open.id));
        }
        let found = params![self.machine, event.key, at];
        Ok(self.tx.prepare_cached(OF_TIME)?.query_row(found, |row| row.get(0)).optional()?)
    }

    fn fire(&mut self, event: &Event, open: Option<OpenAlert>) -> Result<i64, StoreError> {
        let at = ms_of(event);
        let attrs = text_of(&event.attrs);
        let Some(open) = open else {
            let key = [self.machine, event.key.as_str()];
            let read = |row: &rusqlite::Row<'_>| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
            };
            let end = self.tx.prepare_cached(UNTOLD_END)?.query_row(key, read).optional()?;
            let (told, told_at, told_as) = match end {
                Some((id, told, told_at, told_as)) => {
                    self.tx.prepare_cached(FORGET_END)?.execute([id])?;
                    (told, told_at, told_as)
                }
                None => (String::new(), 0, 0),
            };
            self.tx.prepare_cached(INSERT)?.execute(params![
                self.machine,
                event.key,
                event.check(),
                event.target(),
                event.level.name(),
                text_of(&event.labels),
                attrs,
                event.description,
                event.format,
                at,
                told,
                told_at,
                self.tell_at,
                told_as
            ])?;
            let id = self.tx.last_insert_rowid();
            self.changed(id, What::Opened, event, event.level);
            return Ok(id);
        };
        let after = self.due_after(&open, event.level);
        let worst = if event.level.is_worse_than(open.worst) { event.level } else { open.worst };
        self.tx.prepare_cached(FIRED_AGAIN)?.execute(params![
            open.id,
            event.level.name(),
            worst.name(),
            attrs,
            event.description,
            event.format,
            at,
            after.told.map_or("", Level::name),
            after.tell_at,
            after.ends_acknowledgement
        ])?;
        if open.level != event.level {
            self.changed(open.id, What::Changed, event, event.level);
        }
        if open.events > EVENTS_KEPT && open.events % 64 == 0 {
            self.tx.prepare_cached(SHORTEN)?.execute(params![self.machine, event.key, EVENTS_KEPT])?;
        }
        Ok(open.id)
    }

    /// Whether and when people are to hear that an open alert has this level now.
    fn due_after(&self, open: &OpenAlert, level: Level) -> Due {
        let soon = if open.tell_at > 0 { open.tell_at } else { self.tell_at };
        let (told, tell_at) = match open.told {
            None => (None, soon),
            Some(told) if level.is_worse_than(told) => (Some(told), soon),
            Some(told) if level == told => {
                let again = !open.is_acknowledged && self.now - open.told_at >= REPEAT_MS;
                (Some(told), if again { soon } else { 0 })
            }
            Some(told) => {
                let settled = !open.is_acknowledged && self.now - open.told_at >= SETTLED_MS;
                (Some(if settled { level } else { told }), 0)
            }
        };
        let ends_acknowledgement = open.told.is_some_and(|told| level.is_worse_than(told));
        Due { told, tell_at, ends_acknowledgement }
    }

    fn recover(&mut self, event: &Event, open: Option<OpenAlert>) -> Result<Option<i64>, StoreError> {
        let mut closed = None;
        if let Some(open) = open {
            self.close(open.id, event, &event.key, "recovered", 1)?;
            closed = Some(open.id);
        }
        // The address of a machine is in its keys: the same place may be open under the key of an older address.
        let place = params![self.machine, event.check(), event.target(), event.key, ms_of(event)];
        let mut statement = self.tx.prepare_cached(SAME_PLACE)?;
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let others: Vec<(i64, String, String)> = statement.query_map(place, read)?.collect::<Result<_, _>>()?;
        for (id, labels, key) in others {
            let labels = map_of(&labels);
            let differs = |name: &str| labels.get(name).map_or("", String::as_str) != event.label(name);
            if differs("protocol") || differs("method") {
                continue; // another check of the same address
            }
            self.close(id, event, &key, "moved", 0)?;
            closed = closed.or(Some(id));
        }
        Ok(closed)
    }

    fn close(&mut self, id: i64, event: &Event, key: &str, reason: &str, events: i64) -> Result<(), StoreError> {
        let at = ms_of(event);
        self.tx.prepare_cached(CLOSE)?.execute(params![id, at, self.now, reason, events])?;
        self.changed(id, What::Closed, event, Level::Ok);
        if let Some(change) = self.taken.changes.last_mut() {
            key.clone_into(&mut change.key);
        }
        Ok(())
    }

    /// A diagnosis belongs to the alert of its key, open or not; it is no news of the alert's level.
    fn report(&mut self, event: &Event) -> Result<(), StoreError> {
        let key = [self.machine, event.key.as_str()];
        let found: Option<i64> = self.tx.prepare_cached(LATEST)?.query_row(key, |row| row.get(0)).optional()?;
        let stored = match found {
            Some(id) => self.tx.prepare_cached(REPORT)?.execute(params![id, event.description])? > 0,
            None => false,
        };
        match found {
            Some(id) if stored => {
                self.taken.stored += 1;
                self.changed(id, What::Reported, event, event.level);
            }
            _ => self.taken.duplicates += 1,
        }
        Ok(())
    }

    fn changed(&mut self, id: i64, what: What, event: &Event, level: Level) {
        self.taken.changes.push(Change {
            id,
            what,
            key: event.key.clone(),
            check: event.check().to_owned(),
            target: event.target().to_owned(),
            level,
        });
    }
}

/// What people know of an alert from now on, and when they hear of it next.
struct Due {
    told: Option<Level>,
    /// 0: nothing to tell.
    tell_at: i64,
    ends_acknowledgement: bool,
}

fn open_alert(row: &rusqlite::Row<'_>) -> rusqlite::Result<OpenAlert> {
    Ok(OpenAlert {
        id: row.get(0)?,
        level: level_of(row.get_ref(1)?.as_str()?),
        worst: level_of(row.get_ref(2)?.as_str()?),
        told: Level::from_name(row.get_ref(3)?.as_str()?),
        told_at: row.get(4)?,
        tell_at: row.get(5)?,
        is_acknowledged: row.get(6)?,
        changed_at: row.get(7)?,
        events: row.get(8)?,
    })
}

fn ms_of(event: &Event) -> i64 {
    event.time.saturating_mul(1000)
}

pub(super) fn level_of(name: &str) -> Level {
    Level::from_name(name).unwrap_or(Level::Ok)
}

pub(super) fn map_of(text: &str) -> BTreeMap<String, String> {
    serde_json::from_str(text).unwrap_or_default()
}

fn text_of(map: &BTreeMap<String, String>) -> String {
    String::from_utf8(crate::rt::json::to_vec(map)).unwrap_or_default()
}
