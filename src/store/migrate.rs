//! Schemas. Migrations only grow; `user_version` counts those that ran; all run in one transaction.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::store::StoreError;

/// `holt.db`: the tables of contract http-api 13.4 under their names and columns, and Holt's own beside them.
pub(super) const HOLT: &[&str] = &[
    include_str!("sql/holt_1.sql"),
    include_str!("sql/holt_2.sql"),
    include_str!("sql/holt_3.sql"),
    include_str!("sql/holt_4.sql"),
];
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

    #[test]
    fn a_file_of_the_first_release_keeps_everything() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn, &HOLT[..1], Path::new("x")).unwrap();
        conn.execute_batch(
            "INSERT INTO conversations(id, adapter, external_id) VALUES ('c', 'ws', 'c');
            INSERT INTO conversation_info(conversation_id, agent, owner, last_at) VALUES ('c', 'default', 'key:a', 1);
            INSERT INTO messages(conversation_id, role, content) VALUES ('c', 'user', 'where is the otter');
            INSERT INTO turns(conversation_id, identity, agent, origin, text, state, created_at)
                VALUES ('c', 'key:a', 'default', 'ws', 'where is the otter', 'running', 1);
            INSERT INTO tool_steps(turn_id, round, tool_id, tool, arguments, result, created_at)
                VALUES (1, 1, 't', 'host_uptime', '{}', 'long', 1);
            INSERT INTO auto_approve_rules(id, agent_name, tool_name) VALUES ('r', 'default', 'kv_set');
            INSERT INTO kv(agent_name, key, value) VALUES ('default', 'k', 'v');",
        )
        .unwrap();
        migrate(&mut conn, HOLT, Path::new("x")).unwrap();
        let found: String = conn
            .query_row("SELECT content FROM messages_fts WHERE messages_fts MATCH 'otter'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(found, "where is the otter", "old messages are found too");
        let step: (i64, String) = conn
            .query_row("SELECT position, server FROM tool_steps", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        assert_eq!(step, (0, String::new()));
        let open: i64 = conn
            .query_row("SELECT count(*) FROM turns WHERE state IN ('queued', 'running', 'parked')", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(open, 1);
        for (table, rows) in [("kv", 1), ("auto_approve_rules", 1), ("rule_info", 0), ("tool_calls", 0), ("audit", 0)] {
            let count: i64 = conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
            assert_eq!(count, rows, "{table}");
        }
    }
}
