//! Sessions on machines: a row before the machine hears of it, so that no id is ever used twice.

use std::sync::Arc;

use rusqlite::{Row, params};

use crate::rt::clock;
use crate::store::{Db, StoreError};

/// A session. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSession {
    pub id: String,
    pub machine_id: String,
    /// `inspect`, `diagnose` or `chat`.
    pub kind: String,
    /// Who asked.
    pub identity: String,
    pub conversation_id: String,
    /// `running`, `ok`, `empty`, `error`, `cancelled`, `timeout` or `lost`.
    pub state: String,
    pub error: String,
    pub code: String,
    pub tokens_in: i64,
    pub tokens_out: i64,
    pub started_at: i64,
    pub ended_at: Option<i64>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionEnd<'a> {
    /// See [`MachineSession::state`].
    pub state: &'a str,
    pub error: &'a str,
    pub code: &'a str,
    pub tokens_in: u64,
    pub tokens_out: u64,
}

/// The sessions of `holt.db`.
#[derive(Clone)]
pub struct MachineSessionStore {
    db: Arc<Db>,
}

impl MachineSessionStore {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// A session begins. Fails for an id that was used before.
    pub fn begin(
        &self,
        id: &str,
        machine_id: &str,
        kind: &str,
        identity: &str,
        conversation_id: &str,
    ) -> Result<(), StoreError> {
        self.db.write(|tx| {
            tx.execute(
                "INSERT INTO machine_sessions(id, machine_id, kind, identity, conversation_id, state, started_at)
                VALUES (?1, ?2, ?3, ?4, ?5, 'running', ?6)",
                params![id, machine_id, kind, identity, conversation_id, clock::unix_ms()],
            )?;
            Ok(())
        })
    }

    /// A session is over; only the first end counts.
    pub fn end(&self, id: &str, end: SessionEnd<'_>) -> Result<(), StoreError> {
        let tokens = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.db.write(|tx| {
            tx.execute(
                "UPDATE machine_sessions SET state = ?2, error = ?3, code = ?4, tokens_in = ?5, tokens_out = ?6,
                ended_at = ?7 WHERE id = ?1 AND state = 'running'",
                params![
                    id,
                    end.state,
                    end.error,
                    end.code,
                    tokens(end.tokens_in),
                    tokens(end.tokens_out),
                    clock::unix_ms()
                ],
            )?;
            Ok(())
        })
    }

    /// At a start: what was open when the hub ended is lost.
    pub fn lose_running(&self) -> Result<usize, StoreError> {
        let sql = "UPDATE machine_sessions SET state = 'lost', error = 'the hub was restarted', ended_at = ?1
            WHERE state = 'running'";
        self.db.write(|tx| Ok(tx.execute(sql, [clock::unix_ms()])?))
    }

    /// The newest sessions of a machine.
    pub fn list(&self, machine_id: &str, count: usize) -> Result<Vec<MachineSession>, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT id, machine_id, kind, identity, conversation_id, state, error, code, tokens_in, tokens_out,
                started_at, ended_at FROM machine_sessions WHERE machine_id = ?1 ORDER BY started_at DESC, id DESC LIMIT ?2";
            let mut statement = conn.prepare_cached(sql)?;
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            Ok(statement.query_map(params![machine_id, count], session)?.collect::<Result<_, _>>()?)
        })
    }

    /// Removes sessions that began before then and have ended.
    pub fn purge(&self, before: i64) -> Result<usize, StoreError> {
        let sql = "DELETE FROM machine_sessions WHERE started_at < ?1 AND state <> 'running'";
        self.db.write(|tx| Ok(tx.execute(sql, [before])?))
    }
}

fn session(row: &Row<'_>) -> rusqlite::Result<MachineSession> {
    Ok(MachineSession {
        id: row.get(0)?,
        machine_id: row.get(1)?,
        kind: row.get(2)?,
        identity: row.get(3)?,
        conversation_id: row.get(4)?,
        state: row.get(5)?,
        error: row.get(6)?,
        code: row.get(7)?,
        tokens_in: row.get(8)?,
        tokens_out: row.get(9)?,
        started_at: row.get(10)?,
        ended_at: row.get(11)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_once_and_its_id_is_spent() {
        let rows = MachineSessionStore::new(Arc::new(Db::in_memory().unwrap()));
        rows.begin("s1", "a", "chat", "user:ana", "c1").unwrap();
        assert!(rows.begin("s1", "a", "chat", "user:ana", "c1").is_err());
        rows.begin("s2", "a", "inspect", "user:ana", "c1").unwrap();
        let end = SessionEnd { state: "ok", tokens_in: 7, ..SessionEnd::default() };
        rows.end("s1", end).unwrap();
        rows.end("s1", SessionEnd { state: "error", ..end }).unwrap();
        assert_eq!(rows.lose_running().unwrap(), 1);
        let states: Vec<_> = rows.list("a", 9).unwrap().into_iter().map(|row| (row.id, row.state)).collect();
        assert!(states.contains(&("s1".into(), "ok".into())) && states.contains(&("s2".into(), "lost".into())));
        assert_eq!(rows.purge(i64::MAX).unwrap(), 2);
    }
}
