//! Schemas. Migrations only grow; `user_version` counts those that ran; all run in one transaction.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::store::StoreError;

/// `holt.db`: the tables of contract http-api 13.4 under their names and columns, and Holt's own beside them.
pub(super) const HOLT: &[&str] = &[include_str!("sql/holt_1.sql"), include_str!("sql/holt_2.sql")];
/// `events.db`.
pub(super) const EVENTS: &[&str] = &[include_str!("sql/events_1.sql")];

/// Brings the schema up to date; a file of a newer Holt is refused and left untouched.
pub(super) fn migrate(conn: &mut Connection, steps: &[&str], path: &Path) -> Result<(), StoreError> {
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let version = |conn: &Connection| conn.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    let found = version(conn)?;
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    if found == known {
        return Ok(());
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have migrated while we waited for the lock.
    let found = usize::try_from(version(&tx)?).unwrap_or(0);
    for step in steps.iter().skip(found) {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "user_version", known)?;
    tx.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_file_is_refused_and_left_alone() {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.pragma_update(None, "user_version", 99).unwrap();
        let result = migrate(&mut conn, HOLT, Path::new("x"));
        assert!(matches!(result, Err(StoreError::Newer { found: 99, .. })));
        let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_master", [], |r| r.get(0)).unwrap();
        assert_eq!(tables, 0);
    }

    #[test]
    fn a_broken_step_loses_nothing() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn, &["CREATE TABLE a(x); INSERT INTO a VALUES (1)"], Path::new("x")).unwrap();
        let broken = ["CREATE TABLE a(x)", "DELETE FROM a; CREATE TABLE oops("];
        assert!(migrate(&mut conn, &broken, Path::new("x")).is_err());
        let kept: i64 = conn.query_row("SELECT count(*) FROM a", [], |r| r.get(0)).unwrap();
        assert_eq!(kept, 1);
        migrate(&mut conn, &["CREATE TABLE a(x)", "CREATE TABLE b(x)"], Path::new("x")).unwrap();
        let version: i64 = conn.query_row("PRAGMA user_version", [], |r| r.get(0)).unwrap();
        assert_eq!(version, 2);
    }
}
