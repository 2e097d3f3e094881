//! Conversations and their messages (contract http-api 6.1, 13.4; engine 2).

use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, params};

use crate::store::{Db, StoreError, approvals, time};

const COLUMNS: &str =
    "c.id, c.adapter, c.external_id, c.created_at, coalesce(i.message_count, 0), coalesce(i.agent, ''),
    coalesce(i.owner, ''), coalesce(i.title, ''), coalesce(i.last_at, 0)";
const FROM: &str = "FROM conversations c LEFT JOIN conversation_info i ON i.conversation_id = c.id";
const NEWEST: &str = "SELECT id, role, content, tokens_used, cost, created_at FROM messages
    WHERE conversation_id = ?1 AND id <= ?2 ORDER BY id DESC LIMIT ?3";
const OWNER: &str = "SELECT owner FROM conversation_info WHERE conversation_id = ?1";

/// A conversation as lists show it.
#[derive(Clone, Debug, PartialEq)]
pub struct ConversationRow {
    pub id: String,
    pub adapter: String,
    pub external_id: String,
    /// Milliseconds since 1970, like the other times.
    pub created_at: i64,
    pub message_count: i64,
    pub agent: String,
    /// The identity that began it; empty for one without a known owner.
    pub owner: String,
    pub title: String,
    pub last_at: i64,
}

/// One stored message.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageRow {
    pub id: i64,
    /// `user` or `assistant`.
    pub role: String,
    pub content: String,
    pub tokens_used: i64,
    pub cost: f64,
    pub created_at: i64,
}

/// The conversations of `holt.db`.
pub struct ConversationStore {
    db: Arc<Db>,
}

impl ConversationStore {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// All conversations, newest first.
    pub fn list(&self) -> Result<Vec<ConversationRow>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} {FROM} ORDER BY c.created_at DESC, c.rowid DESC");
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map([], conversation)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// One conversation.
    pub fn get(&self, id: &str) -> Result<Option<ConversationRow>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} {FROM} WHERE c.id = ?1");
            Ok(conn.prepare_cached(&sql)?.query_row([id], conversation).optional()?)
        })
    }

    /// The identity that began the conversation; None when there is no such conversation.
    pub fn owner(&self, id: &str) -> Result<Option<String>, StoreError> {
        self.db.read(|conn| Ok(conn.prepare_cached(OWNER)?.query_row([id], |row| row.get(0)).optional()?))
    }

    /// The newest `count` messages up to and including message `up_to`, oldest of them first (W-22).
    pub fn messages(&self, id: &str, up_to: i64, count: usize) -> Result<Vec<MessageRow>, StoreError> {
        self.db.read(|conn| {
            let mut statement = conn.prepare_cached(NEWEST)?;
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![id, up_to, count], message)?;
            let mut messages: Vec<MessageRow> = rows.collect::<Result<_, _>>()?;
            messages.reverse();
            Ok(messages)
        })
    }

    /// Removes a conversation with all that belongs to it, in one transaction; false when it was unknown.
    /// `last_seq` is remembered, so that the numbering of its stream goes on should the id be used again.
    pub fn delete(&self, id: &str, last_seq: u64) -> Result<bool, StoreError> {
        self.db.write(|tx| {
            approvals::abandon_conversation(tx, id)?;
            tx.execute("DELETE FROM messages WHERE conversation_id = ?1", [id])?;
            tx.execute(
                "UPDATE streams SET floor_seq = max(floor_seq, ?2) WHERE session_id = ?1",
                params![id, last_seq.cast_signed()],
            )?;
            Ok(tx.execute("DELETE FROM conversations WHERE id = ?1", [id])? > 0)
        })
    }

    /// Ids of the conversations without a message since `before` (milliseconds since 1970).
    pub fn inactive_since(&self, before: i64) -> Result<Vec<String>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} {FROM} ORDER BY c.rowid");
            let mut statement = conn.prepare_cached(&sql)?;
            let rows: Vec<ConversationRow> = statement.query_map([], conversation)?.collect::<Result<_, _>>()?;
            Ok(rows.into_iter().filter(|row| row.last_at.max(row.created_at) < before).map(|row| row.id).collect())
        })
    }

    /// The sum of the costs of its messages, in USD.
    pub fn cost(&self, id: &str) -> Result<f64, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT coalesce(sum(cost), 0.0) FROM messages WHERE conversation_id = ?1";
            Ok(conn.prepare_cached(sql)?.query_row([id], |row| row.get(0))?)
        })
    }
}

fn conversation(row: &Row<'_>) -> rusqlite::Result<ConversationRow> {
    let created: Option<String> = row.get(3)?;
    let created_at = created.as_deref().and_then(time::parse_ms).unwrap_or(0);
    Ok(ConversationRow {
        id: row.get(0)?,
        adapter: row.get(1)?,
        external_id: row.get(2)?,
        created_at,
        message_count: row.get(4)?,
        agent: row.get(5)?,
        owner: row.get(6)?,
        title: row.get(7)?,
        last_at: row.get(8)?,
    })
}

fn message(row: &Row<'_>) -> rusqlite::Result<MessageRow> {
    let created: Option<String> = row.get(5)?;
    Ok(MessageRow {
        id: row.get(0)?,
        role: row.get(1)?,
        content: row.get(2)?,
        tokens_used: row.get::<_, Option<i64>>(3)?.unwrap_or(0),
        cost: row.get::<_, Option<f64>>(4)?.unwrap_or(0.0),
        created_at: created.as_deref().and_then(time::parse_ms).unwrap_or(0),
    })
}
