//! How much of what there is now, for monitoring.

use crate::store::{Db, StoreError};

/// Counts by name, of one kind of thing.
pub type Counts = Vec<(String, i64)>;

/// Requests for approval that nobody has decided.
pub fn approvals(db: &Db) -> Result<Counts, StoreError> {
    counts(db, "SELECT status, count(*) FROM approvals WHERE status = 'pending' GROUP BY status")
}

/// Alerts that are open, by level.
pub fn alerts(db: &Db) -> Result<Counts, StoreError> {
    counts(db, "SELECT level, count(*) FROM alerts WHERE closed_at IS NULL GROUP BY level")
}

/// Machines by state.
pub fn machines(db: &Db) -> Result<Counts, StoreError> {
    counts(db, "SELECT state, count(*) FROM machines GROUP BY state")
}

fn counts(db: &Db, sql: &str) -> Result<Counts, StoreError> {
    db.read(|conn| {
        let mut statement = conn.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    })
}
