//! Silences: what nobody wants to hear of for a while.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::params;

use crate::store::alert_rows::AlertRow;
use crate::store::alerts::map_of;
use crate::store::{Db, StoreError, random_hex};

/// Silences that stay listed after their end, in milliseconds.
const KEPT_MS: i64 = 24 * 3600 * 1000;
/// Silences in all: each is compared with each alert that people are told of.
pub const SILENCES_MAX: i64 = 200;

/// A rule that keeps alerts quiet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    pub id: String,
    /// By name: `machine` (id or name), `check`, `target`, `level`, or a label. A value ends with `*` for "begins with".
    pub matchers: BTreeMap<String, String>,
    /// Milliseconds since 1970, like the other times.
    pub until: i64,
    pub created_by: String,
    pub created_at: i64,
    pub note: String,
}

impl Silence {
    /// Whether it concerns an alert: all its matchers fit.
    pub fn matches(&self, alert: &AlertRow) -> bool {
        let fits = |pattern: &str, value: &str| match pattern.strip_suffix('*') {
            Some(beginning) => value.starts_with(beginning),
            None => value == pattern,
        };
        self.matchers.iter().all(|(name, pattern)| match name.as_str() {
            "machine" => fits(pattern, &alert.machine_id) || fits(pattern, &alert.machine_name),
            "check" => fits(pattern, &alert.check),
            "target" => fits(pattern, &alert.target),
            "level" => fits(pattern, alert.level.name()),
            label => fits(pattern, alert.labels.get(label).map_or("", String::as_str)),
        })
    }
}

/// The silences of `holt.db`.
pub struct SilenceStore {
    db: Arc<Db>,
}

impl SilenceStore {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// Adds one; None when there are [`SILENCES_MAX`].
    pub fn add(
        &self,
        matchers: BTreeMap<String, String>,
        until: i64,
        by: &str,
        note: &str,
        now: i64,
    ) -> Result<Option<Silence>, StoreError> {
        let silence = Silence {
            id: random_hex::<8>()?,
            matchers,
            until,
            created_by: by.to_owned(),
            created_at: now,
            note: note.to_owned(),
        };
        let text = String::from_utf8(crate::rt::json::to_vec(&silence.matchers)).unwrap_or_default();
        self.db.write(|tx| {
            let active: i64 = tx
                .prepare_cached("SELECT count(*) FROM silences WHERE until > ?1")?
                .query_row([now], |row| row.get(0))?;
            if active >= SILENCES_MAX {
                return Ok(None);
            }
            tx.prepare_cached(
                "INSERT INTO silences(id, matchers, until, created_by, created_at, note) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![silence.id, text, until, by, now, note])?;
            Ok(Some(silence))
        })
    }

    /// Those that end after `now`, the first to end first; all that are kept with `now` 0.
    pub fn list(&self, now: i64) -> Result<Vec<Silence>, StoreError> {
        self.db.read(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT id, matchers, until, created_by, created_at, note FROM silences WHERE until > ?1
                    ORDER BY until LIMIT 1000",
            )?;
            let rows = statement.query_map([now], |row| {
                Ok(Silence {
                    id: row.get(0)?,
                    matchers: map_of(row.get_ref(1)?.as_str()?),
                    until: row.get(2)?,
                    created_by: row.get(3)?,
                    created_at: row.get(4)?,
                    note: row.get(5)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Ends one: what it kept quiet is due again. `NotFound` for an unknown one.
    pub fn remove(&self, id: &str, now: i64) -> Result<(), StoreError> {
        self.db.write(|tx| {
            if tx.prepare_cached("DELETE FROM silences WHERE id = ?1")?.execute([id])? == 0 {
                return Err(StoreError::NotFound);
            }
            tx.prepare_cached("UPDATE alerts SET tell_at = ?1 WHERE tell_at > ?1 AND closed_at IS NULL")?
                .execute([now])?;
            Ok(())
        })
    }

    /// Removes those that ended a while ago.
    pub fn purge(&self, now: i64) -> Result<(), StoreError> {
        let sql = "DELETE FROM silences WHERE until < ?1";
        self.db.write(|tx| Ok(tx.prepare_cached(sql)?.execute([now - KEPT_MS]).map(|_| ())?))
    }
}
