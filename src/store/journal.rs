//! What agents changed about themselves, so that it can be undone: the newest entries of each agent.

use std::sync::Arc;

use rusqlite::{Row, params};

use crate::limits;
use crate::rt::clock;
use crate::store::{Db, StoreError};

const COLUMNS: &str =
    "id, agent, kind, target, place, before, after, conversation_id, created_at, undone_at, undone_by";

/// A change to remember.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewChange<'a> {
    pub agent: &'a str,
    /// `skill`, `persona` or `schedule`.
    pub kind: &'a str,
    /// What was changed: a name, a section.
    pub target: &'a str,
    /// Where it is, if the target does not say it.
    pub place: &'a str,
    /// The whole text before; None: there was none.
    pub before: Option<&'a str>,
    /// Empty for a schedule that was removed.
    pub after: &'a str,
    pub conversation_id: &'a str,
}

/// A remembered change. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRow {
    pub id: i64,
    pub agent: String,
    pub kind: String,
    pub target: String,
    pub place: String,
    pub before: Option<String>,
    pub after: String,
    pub conversation_id: String,
    pub created_at: i64,
    pub undone_at: Option<i64>,
    pub undone_by: String,
}

/// The journal in `holt.db`.
pub struct JournalStore {
    db: Arc<Db>,
}

impl JournalStore {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// Remembers a change, and forgets the agent's oldest ones beyond [`limits::JOURNAL_ENTRIES_MAX`].
    pub fn add(&self, new: &NewChange<'_>) -> Result<i64, StoreError> {
        self.db.write(|tx| {
            let sql = "INSERT INTO journal(agent, kind, target, place, before, after, conversation_id, created_at)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
            let NewChange { agent, kind, target, place, before, after, conversation_id } = *new;
            let now = clock::unix_ms();
            tx.prepare_cached(sql)?.execute(params![
                agent,
                kind,
                target,
                place,
                before,
                after,
                conversation_id,
                now
            ])?;
            let id = tx.last_insert_rowid();
            let sql = "DELETE FROM journal WHERE agent = ?1 AND id <= (SELECT id FROM journal WHERE agent = ?1
                ORDER BY id DESC LIMIT 1 OFFSET ?2)";
            tx.prepare_cached(sql)?.execute(params![agent, limits::JOURNAL_ENTRIES_MAX])?;
            Ok(id)
        })
    }

    /// The same for a change that stands whatever happens here: a failure is logged. What changed nothing is left out.
    pub fn record(&self, change: &NewChange<'_>) {
        if change.before == Some(change.after) {
            return;
        }
        if let Err(error) = self.add(change) {
            log::error!("journal of agent {}: {error}; this change cannot be undone", change.agent);
        }
    }

    /// Changes, of one agent if it is named, older than `before` (an id), the newest first.
    pub fn list(&self, agent: &str, before: i64) -> Result<Vec<ChangeRow>, StoreError> {
        self.db.read(|conn| {
            let sql = format!(
                "SELECT {COLUMNS} FROM journal WHERE (?1 = '' OR agent = ?1) AND id < ?2 ORDER BY id DESC LIMIT ?3"
            );
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map(params![agent, before, limits::JOURNAL_LISTED], change)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// One change.
    pub fn get(&self, id: i64) -> Result<ChangeRow, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM journal WHERE id = ?1");
        self.db.read(|conn| Ok(conn.prepare_cached(&sql)?.query_row([id], change)?))
    }

    /// Notes that a change is undone; false when it was before.
    pub fn mark_undone(&self, id: i64, by: &str) -> Result<bool, StoreError> {
        let sql = "UPDATE journal SET undone_at = ?2, undone_by = ?3 WHERE id = ?1 AND undone_at IS NULL";
        self.db.write(|tx| Ok(tx.prepare_cached(sql)?.execute(params![id, clock::unix_ms(), by])? > 0))
    }
}

fn change(row: &Row<'_>) -> rusqlite::Result<ChangeRow> {
    Ok(ChangeRow {
        id: row.get(0)?,
        agent: row.get(1)?,
        kind: row.get(2)?,
        target: row.get(3)?,
        place: row.get(4)?,
        before: row.get(5)?,
        after: row.get(6)?,
        conversation_id: row.get(7)?,
        created_at: row.get(8)?,
        undone_at: row.get(9)?,
        undone_by: row.get(10)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_changes_of_each_agent_are_kept() {
        let journal = JournalStore::new(Arc::new(Db::in_memory().unwrap()));
        let add = |agent| journal.add(&NewChange { agent, kind: "skill", after: "x", ..NewChange::default() }).unwrap();
        let first = add("a");
        add("b");
        for _ in 0..limits::JOURNAL_ENTRIES_MAX {
            add("a");
        }
        assert!(matches!(journal.get(first), Err(StoreError::NotFound)));
        assert_eq!((journal.list("b", i64::MAX).unwrap().len(), journal.list("", first + 2).unwrap().len()), (1, 1));
        let newest = journal.list("a", i64::MAX).unwrap();
        assert_eq!(i64::try_from(newest.len()).unwrap(), limits::JOURNAL_LISTED);
        assert!(journal.mark_undone(newest[0].id, "me").unwrap() && !journal.mark_undone(newest[0].id, "me").unwrap());
        let row = journal.get(newest[0].id).unwrap();
        assert_eq!((row.undone_by.as_str(), row.undone_at.is_some(), row.before), ("me", true, None));
    }
}
