//! Schedules: what outlives a restart of each, and the ledger of their moments. A run is a row before anything is done.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::store::{Db, StoreError};

const COLUMNS: &str = "id, schedule, cause, state, moment, until, moments, reason, conversation_id, started_at,
    finished_at, tokens, cost_usd";
/// How often the history is shortened: at every so manyth row.
const PRUNE_EVERY: i64 = 16;

/// What is kept of a schedule. Moments are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleState {
    pub name: String,
    pub expression: String,
    pub is_enabled: bool,
    /// Intervals count from here.
    pub anchor: i64,
    /// Every moment up to here was run, missed or skipped.
    pub handled_until: i64,
    /// When the last run began.
    pub last_run: Option<i64>,
}

/// What became of a moment, or of several.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    pub id: i64,
    pub schedule: String,
    /// `due`, `late` or `manual`.
    pub cause: String,
    /// `wanted` (by somebody, not begun yet), `started`, `ok`, `failed`; where nothing was done `missed` or `skipped`.
    pub state: String,
    /// The moment it stands for, in milliseconds since 1970.
    pub moment: i64,
    /// The last one, if it stands for several.
    pub until: i64,
    pub moments: u64,
    /// Why it failed, or why nothing was done.
    pub reason: String,
    pub conversation_id: String,
    pub started_at: Option<i64>,
    pub finished_at: Option<i64>,
    pub tokens: u64,
    pub cost_usd: f64,
}

/// A run that is about to begin.
#[derive(Clone, Copy, Debug)]
pub struct NewRun<'a> {
    pub schedule: &'a str,
    pub cause: &'a str,
    pub moment: i64,
    pub conversation_id: &'a str,
    pub started_at: i64,
}

/// Moments at which nothing is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    pub first: i64,
    pub last: i64,
    pub moments: u64,
}

/// The schedules of `holt.db`.
pub struct ScheduleRuns {
    db: Arc<Db>,
    /// Rows of one schedule that are kept.
    kept: usize,
}

impl ScheduleRuns {
    /// The ledger; so many rows of each schedule are kept.
    pub fn new(db: Arc<Db>, kept: usize) -> Self {
        Self { db, kept }
    }

    /// All that is kept of schedules.
    pub fn states(&self) -> Result<Vec<ScheduleState>, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT name, expression, is_enabled, anchor, handled_until, last_run FROM schedule_state";
            let mut statement = conn.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                Ok(ScheduleState {
                    name: row.get(0)?,
                    expression: row.get(1)?,
                    is_enabled: row.get(2)?,
                    anchor: row.get(3)?,
                    handled_until: row.get(4)?,
                    last_run: row.get(5)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Stores these and forgets those of other names, with their history.
    pub fn keep(&self, changed: &[ScheduleState], gone: &[String]) -> Result<(), StoreError> {
        self.db.write(|tx| {
            for name in gone {
                tx.prepare_cached("DELETE FROM schedule_state WHERE name = ?1")?.execute([name])?;
                tx.prepare_cached("DELETE FROM schedule_runs WHERE schedule = ?1")?.execute([name])?;
            }
            for state in changed {
                let sql = "INSERT INTO schedule_state(name, expression, is_enabled, anchor, handled_until, last_run)
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT(name) DO UPDATE SET expression = excluded.expression,
                    is_enabled = excluded.is_enabled, anchor = excluded.anchor,
                    handled_until = excluded.handled_until, last_run = excluded.last_run";
                tx.prepare_cached(sql)?.execute(params![
                    state.name,
                    state.expression,
                    state.is_enabled,
                    state.anchor,
                    state.handled_until,
                    state.last_run
                ])?;
            }
            Ok(())
        })
    }

    /// Records what became of all moments of a schedule up to `handled_until`: those at which nothing was done, and a
    /// run that begins now. `next` and `handled_until` are the first and last of these moments. The run's id; None when
    /// there is none, or when its moment was run before.
    pub fn advance(
        &self,
        state: &ScheduleState,
        (what, passed, reason): (&str, &[Passed], &str),
        run: Option<&NewRun<'_>>,
        (next, handled_until): (i64, i64),
    ) -> Result<Option<i64>, StoreError> {
        self.db.write(|tx| {
            for range in passed {
                // What follows a row without anything in between makes it longer.
                let before = if range.first == next { state.handled_until } else { i64::MIN };
                pass(tx, (&state.name, before), what, range, reason)?;
            }
            let begun = run.map(|run| begin(tx, run)).transpose()?.flatten();
            let sql = "UPDATE schedule_state SET handled_until = ?2, last_run = coalesce(?3, last_run) WHERE name = ?1";
            let started_at = run.filter(|_| begun.is_some()).map(|run| run.started_at);
            tx.prepare_cached(sql)?.execute(params![state.name, handled_until, started_at])?;
            self.prune(tx, &state.name)?;
            Ok(begun)
        })
    }

    /// Records a run that somebody wants now; its id.
    pub fn begin(&self, run: &NewRun<'_>) -> Result<Option<i64>, StoreError> {
        self.db.write(|tx| {
            let begun = begin(tx, run)?;
            tx.prepare_cached("UPDATE schedule_state SET last_run = ?2 WHERE name = ?1")?
                .execute(params![run.schedule, run.started_at])?;
            self.prune(tx, run.schedule)?;
            Ok(begun)
        })
    }

    /// Somebody wants a run; the hub begins it when it looks. The row's id.
    pub fn want(&self, schedule: &str, now: i64) -> Result<i64, StoreError> {
        self.db.write(|tx| {
            let sql = "INSERT INTO schedule_runs(schedule, cause, state, moment, until) VALUES (?1, 'manual', 'wanted', ?2, ?2)";
            tx.prepare_cached(sql)?.execute(params![schedule, now])?;
            Ok(tx.last_insert_rowid())
        })
    }

    /// Runs that somebody wants.
    pub fn wanted(&self) -> Result<Vec<RunRow>, StoreError> {
        self.db.read(|conn| of_state(conn, "wanted"))
    }

    /// A run that was wanted begins. False when it is gone.
    pub fn take(&self, id: i64, run: &NewRun<'_>) -> Result<bool, StoreError> {
        self.db.write(|tx| {
            let sql = "UPDATE schedule_runs SET state = 'started', conversation_id = ?2, started_at = ?3
                WHERE id = ?1 AND state = 'wanted'";
            let taken = tx.prepare_cached(sql)?.execute(params![id, run.conversation_id, run.started_at])? == 1;
            tx.prepare_cached("UPDATE schedule_state SET last_run = ?2 WHERE name = ?1")?
                .execute(params![run.schedule, run.started_at])?;
            Ok(taken)
        })
    }

    /// A run that was wanted cannot begin.
    pub fn refuse(&self, id: i64, reason: &str) -> Result<(), StoreError> {
        self.db.write(|tx| {
            let sql = "UPDATE schedule_runs SET state = 'skipped', reason = ?2 WHERE id = ?1 AND state = 'wanted'";
            tx.prepare_cached(sql)?.execute(params![id, reason])?;
            Ok(())
        })
    }

    /// Records the end of a run, with what its turn has cost; an empty reason is success. The row as it is now; None
    /// when it has left with its schedule.
    pub fn finish(&self, id: i64, reason: &str, finished_at: i64) -> Result<Option<RunRow>, StoreError> {
        self.db.write(|tx| {
            let sql = "UPDATE schedule_runs SET state = ?2, reason = ?3, finished_at = ?4,
                turn_id = (SELECT t.id FROM turns t WHERE t.conversation_id = schedule_runs.conversation_id
                    AND t.message_id = ?5)
                WHERE id = ?1 AND state = 'started'";
            let state = if reason.is_empty() { "ok" } else { "failed" };
            tx.prepare_cached(sql)?.execute(params![id, state, reason, finished_at, message_id(id)])?;
            let sql = "UPDATE schedule_runs SET (tokens, cost_usd) = (SELECT m.tokens_used, m.cost FROM turns t
                JOIN messages m ON m.id = t.assistant_message WHERE t.id = schedule_runs.turn_id)
                WHERE id = ?1 AND EXISTS (SELECT 1 FROM turns t WHERE t.id = schedule_runs.turn_id
                AND t.assistant_message IS NOT NULL)";
            tx.prepare_cached(sql)?.execute([id])?;
            get(tx, id)
        })
    }

    /// The clock was set back to `now`: what was not run and lies ahead again may still run.
    pub fn reopen(&self, state: &ScheduleState, now: i64) -> Result<(), StoreError> {
        self.db.write(|tx| {
            let sql =
                "DELETE FROM schedule_runs WHERE schedule = ?1 AND state IN ('missed', 'skipped') AND moment > ?2";
            tx.prepare_cached(sql)?.execute(params![state.name, now])?;
            let sql = "UPDATE schedule_runs SET until = ?2 WHERE schedule = ?1 AND until > ?2
                AND state IN ('missed', 'skipped')";
            tx.prepare_cached(sql)?.execute(params![state.name, now])?;
            let sql = "UPDATE schedule_state SET handled_until = ?2, anchor = ?3 WHERE name = ?1";
            tx.prepare_cached(sql)?.execute(params![state.name, state.handled_until, state.anchor])?;
            Ok(())
        })
    }

    /// Runs up to here may have left the history.
    pub fn pruned_until(&self, schedule: &str) -> Result<i64, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT pruned_until FROM schedule_state WHERE name = ?1";
            Ok(conn.prepare_cached(sql)?.query_row([schedule], |row| row.get(0)).optional()?.unwrap_or(0))
        })
    }

    /// Moments in that range, its ends included, that were run.
    pub fn run_moments(&self, schedule: &str, first: i64, last: i64) -> Result<Vec<i64>, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT moment FROM schedule_runs WHERE schedule = ?1 AND moment BETWEEN ?2 AND ?3
                AND cause <> 'manual' AND state NOT IN ('missed', 'skipped') ORDER BY moment";
            let mut statement = conn.prepare_cached(sql)?;
            let rows = statement.query_map(params![schedule, first, last], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Runs without an end: after a start, those that a stop cut short.
    pub fn open(&self) -> Result<Vec<RunRow>, StoreError> {
        self.db.read(|conn| of_state(conn, "started"))
    }

    /// What became of a schedule's moments, newest first, at most so many.
    pub fn list(&self, schedule: &str, rows_max: usize) -> Result<Vec<RunRow>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM schedule_runs WHERE schedule = ?1 ORDER BY id DESC LIMIT ?2");
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map(params![schedule, i64::try_from(rows_max).unwrap_or(i64::MAX)], run)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The newest row of each schedule.
    pub fn newest(&self) -> Result<Vec<RunRow>, StoreError> {
        self.db.read(|conn| {
            let sql = format!(
                "SELECT {COLUMNS} FROM schedule_runs WHERE id IN
                (SELECT (SELECT max(id) FROM schedule_runs WHERE schedule = name) FROM schedule_state)"
            );
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map([], run)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Old rows go; what they say of moments that a clock may bring back is kept in one number.
    fn prune(&self, tx: &Transaction<'_>, schedule: &str) -> Result<(), StoreError> {
        if tx.last_insert_rowid() % PRUNE_EVERY != 0 {
            return Ok(());
        }
        let kept = i64::try_from(self.kept).unwrap_or(i64::MAX);
        let sql = "SELECT id FROM schedule_runs WHERE schedule = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2";
        let oldest: Option<i64> =
            tx.prepare_cached(sql)?.query_row(params![schedule, kept], |row| row.get(0)).optional()?;
        let Some(oldest) = oldest else { return Ok(()) };
        let sql = "UPDATE schedule_state SET pruned_until = max(pruned_until, (SELECT coalesce(max(until), 0)
            FROM schedule_runs WHERE schedule = ?1 AND id <= ?2 AND state NOT IN ('wanted', 'started'))) WHERE name = ?1";
        tx.prepare_cached(sql)?.execute(params![schedule, oldest])?;
        let sql = "DELETE FROM schedule_runs WHERE schedule = ?1 AND id <= ?2 AND state NOT IN ('wanted', 'started')";
        tx.prepare_cached(sql)?.execute(params![schedule, oldest])?;
        Ok(())
    }
}

/// The id under which a run's message is sent, so that it is accepted once.
pub fn message_id(run: i64) -> String {
    format!("schedule-run-{run}")
}

/// Moments at which nothing was done: one row goes on as long as the reason is the same and no run lies between.
fn pass(
    tx: &Transaction<'_>,
    (schedule, before): (&str, i64),
    what: &str,
    range: &Passed,
    reason: &str,
) -> Result<(), StoreError> {
    let moments = i64::try_from(range.moments).unwrap_or(i64::MAX);
    let sql = "UPDATE schedule_runs SET until = ?5, moments = moments + ?6
        WHERE id = (SELECT max(id) FROM schedule_runs WHERE schedule = ?1)
        AND state = ?2 AND reason = ?3 AND until = ?4";
    let longer = tx.prepare_cached(sql)?.execute(params![schedule, what, reason, before, range.last, moments])?;
    if longer == 0 {
        let sql = "INSERT INTO schedule_runs(schedule, cause, state, moment, until, moments, reason)
            VALUES (?1, 'due', ?2, ?3, ?4, ?5, ?6)";
        tx.prepare_cached(sql)?.execute(params![schedule, what, range.first, range.last, moments, reason])?;
    }
    Ok(())
}

fn begin(tx: &Transaction<'_>, run: &NewRun<'_>) -> Result<Option<i64>, StoreError> {
    let sql = "INSERT OR IGNORE INTO schedule_runs(schedule, cause, state, moment, until, conversation_id, started_at)
        VALUES (?1, ?2, 'started', ?3, ?3, ?4, ?5)";
    let made = tx.prepare_cached(sql)?.execute(params![
        run.schedule,
        run.cause,
        run.moment,
        run.conversation_id,
        run.started_at
    ])?;
    Ok((made == 1).then(|| tx.last_insert_rowid()))
}

fn of_state(conn: &Connection, state: &str) -> Result<Vec<RunRow>, StoreError> {
    // Both states are in one index.
    let sql =
        format!("SELECT {COLUMNS} FROM schedule_runs WHERE state IN ('wanted', 'started') AND state = ?1 ORDER BY id");
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map([state], run)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn get(conn: &Connection, id: i64) -> Result<Option<RunRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM schedule_runs WHERE id = ?1");
    Ok(conn.prepare_cached(&sql)?.query_row([id], run).optional()?)
}

fn run(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    Ok(RunRow {
        id: row.get(0)?,
        schedule: row.get(1)?,
        cause: row.get(2)?,
        state: row.get(3)?,
        moment: row.get(4)?,
        until: row.get(5)?,
        moments: row.get::<_, i64>(6)?.cast_unsigned(),
        reason: row.get(7)?,
        conversation_id: row.get(8)?,
        started_at: row.get(9)?,
        finished_at: row.get(10)?,
        tokens: row.get::<_, i64>(11)?.cast_unsigned(),
        cost_usd: row.get(12)?,
    })
}
