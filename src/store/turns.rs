//! Turns: what was asked, how far it came, and the tool steps in between. A turn is a row before anything runs.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::limits;
use crate::rt::clock;
use crate::store::audit::{self, Entry};
use crate::store::{Db, StoreError, time};

pub use crate::store::turn_rows::{Accepted, Closed, NewTurn, Numbering, Reservation, StepRow, TurnRow};

const COLUMNS: &str = "id, conversation_id, identity, agent, user_name, origin, text, state, after_seq, user_message,
    assistant_message, outcome, created_at, kind, params";
const INSERT_CONVERSATION: &str =
    "INSERT OR IGNORE INTO conversations(id, adapter, external_id, created_at) VALUES (?1, ?2, ?1, ?3)";
const INSERT_INFO: &str =
    "INSERT INTO conversation_info(conversation_id, agent, owner, title, last_at) VALUES (?1, ?2, ?3, ?4, ?5)";
const INSERT: &str =
    "INSERT INTO turns(conversation_id, identity, message_id, agent, user_name, origin, text, state, created_at,
    kind, params) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'queued', ?8, ?9, ?10)";
const INSERT_MESSAGE: &str = "INSERT INTO messages(conversation_id, role, content, tokens_used, cost, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const COUNT_MESSAGE: &str =
    "UPDATE conversation_info SET message_count = message_count + 1, last_at = ?2 WHERE conversation_id = ?1";
const RESERVE: &str = "INSERT INTO streams(session_id, reserved_until, boot_id, used_seq) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT(session_id) DO UPDATE SET reserved_until = excluded.reserved_until, boot_id = excluded.boot_id,
    used_seq = max(used_seq, excluded.used_seq)";
const INSERT_STEP: &str =
    "INSERT INTO tool_steps(turn_id, round, tool_id, tool, arguments, said, result, failed, duration_ms, created_at,
    position, server) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";

/// The turns of `holt.db`.
pub struct TurnStore {
    db: Arc<Db>,
}

impl TurnStore {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// Stores a message as a turn, and the conversation if it is new; with `start` (the last number used, and numbers
    /// for its frames) the turn counts as running and its message is in the history. `may` says whether the identity
    /// may write to a conversation of that owner. Durable when this returns.
    pub fn accept(
        &self,
        new: &NewTurn<'_>,
        may: &dyn Fn(&str) -> bool,
        start: Option<(u64, &Reservation<'_>)>,
    ) -> Result<Accepted, StoreError> {
        self.db.write(|tx| {
            if let Some(message_id) = new.message_id
                && let Some(turn) = find_repeat(tx, new.identity, message_id)?
            {
                return Ok(Accepted::Repeat(Box::new(turn)));
            }
            if !ensure_conversation(tx, new, may)? {
                return Ok(Accepted::Denied);
            }
            tx.prepare_cached(INSERT)?.execute(params![
                new.conversation_id,
                new.identity,
                new.message_id,
                new.agent,
                new.user_name,
                new.origin,
                new.text,
                clock::unix_ms(),
                new.kind,
                new.params
            ])?;
            let turn_id = tx.last_insert_rowid();
            if let Some((after_seq, reservation)) = start {
                start_turn(tx, turn_id, new.conversation_id, new.text, after_seq, reservation)?;
            }
            let sql = format!("SELECT {COLUMNS} FROM turns WHERE id = ?1");
            let row = tx.prepare_cached(&sql)?.query_row([turn_id], turn)?;
            Ok(Accepted::New(Box::new(row)))
        })
    }

    /// The turn that an identity's `message_id` began, within [`limits::MESSAGE_ID_TTL`].
    pub fn find_by_message_id(&self, identity: &str, message_id: &str) -> Result<Option<TurnRow>, StoreError> {
        self.db.read(|conn| find_recent(conn, identity, message_id))
    }

    /// The turn that an identity's `message_id` began, however long ago.
    pub fn find_accepted(&self, identity: &str, message_id: &str) -> Result<Option<TurnRow>, StoreError> {
        self.db.read(|conn| find(conn, identity, message_id, 0))
    }

    /// Moves a queued turn to running: its message joins the history, its numbers are reserved.
    pub fn start(&self, turn: &TurnRow, after_seq: u64, reservation: &Reservation<'_>) -> Result<i64, StoreError> {
        self.db.write(|tx| start_turn(tx, turn.id, &turn.conversation_id, &turn.text, after_seq, reservation))
    }

    /// Promises more numbers to a stream.
    pub fn reserve(&self, session_id: &str, reservation: &Reservation<'_>) -> Result<(), StoreError> {
        self.db.write(|tx| reserve(tx, session_id, reservation))
    }

    /// What is known of a stream's numbering; the default for an unknown one.
    pub fn numbering(&self, session_id: &str) -> Result<Numbering, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT floor_seq, reserved_until, boot_id, used_seq FROM streams WHERE session_id = ?1";
            let found = conn.prepare_cached(sql)?.query_row([session_id], |row| {
                Ok(Numbering {
                    floor_seq: row.get::<_, i64>(0)?.cast_unsigned(),
                    reserved_until: row.get::<_, i64>(1)?.cast_unsigned(),
                    boot_id: row.get(2)?,
                    used_seq: row.get::<_, i64>(3)?.cast_unsigned(),
                })
            });
            Ok(found.optional()?.unwrap_or_default())
        })
    }

    /// After a clean stop no promise is outstanding: numbering goes on without a gap, even after a reboot.
    pub fn release_reservations(&self) -> Result<(), StoreError> {
        self.db.write(|tx| {
            tx.execute("UPDATE streams SET reserved_until = 0 WHERE reserved_until <> 0", [])?;
            Ok(())
        })
    }

    /// The stored history of numbers is gone (new epoch): numbering starts again.
    pub fn forget_numbering(&self) -> Result<(), StoreError> {
        self.db.write(|tx| {
            tx.execute("DELETE FROM streams", [])?;
            tx.execute("UPDATE turns SET after_seq = NULL", [])?;
            Ok(())
        })
    }

    /// Stores one tool call and its result, and notes it in the audit log.
    pub fn add_step(&self, step: &StepRow, audit: &Entry<'_>) -> Result<(), StoreError> {
        self.db.write(|tx| {
            audit::insert(tx, audit)?;
            tx.prepare_cached(INSERT_STEP)?.execute(params![
                step.turn_id,
                step.round,
                step.tool_id,
                step.tool,
                step.arguments,
                step.said,
                step.result,
                step.failed,
                step.duration_ms.cast_signed(),
                clock::unix_ms(),
                step.position,
                step.server
            ])?;
            Ok(())
        })
    }

    /// The tool steps of a conversation's turns from `first_turn` on, in order.
    pub fn steps(&self, conversation_id: &str, first_turn: i64) -> Result<Vec<StepRow>, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT s.turn_id, s.round, s.tool_id, s.tool, s.arguments, s.said, s.result, s.failed,
                s.duration_ms, s.position, s.server FROM tool_steps s JOIN turns t ON t.id = s.turn_id
                WHERE t.conversation_id = ?1 AND s.turn_id >= ?2
                ORDER BY s.turn_id, s.round, s.position, s.id";
            let mut statement = conn.prepare_cached(sql)?;
            let rows = statement.query_map(params![conversation_id, first_turn], step)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Which turn each message of a conversation belongs to: (message, turn), for messages from `first_message` on.
    pub fn turns_of_messages(&self, conversation_id: &str, first_message: i64) -> Result<Vec<(i64, i64)>, StoreError> {
        self.db.read(|conn| {
            let sql =
                "SELECT user_message, id FROM turns WHERE conversation_id = ?1 AND user_message >= ?2 ORDER BY id";
            let mut statement = conn.prepare_cached(sql)?;
            let rows =
                statement.query_map(params![conversation_id, first_message], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Stores the assistant's message of a turn; its id. Once: a second call for the same turn is `NotFound`.
    pub fn answer(
        &self,
        turn_id: i64,
        conversation_id: &str,
        text: &str,
        tokens: u64,
        cost: f64,
    ) -> Result<i64, StoreError> {
        self.db.write(|tx| {
            let sql = "SELECT 1 FROM turns WHERE id = ?1 AND assistant_message IS NULL";
            tx.prepare_cached(sql)?.query_row([turn_id], |_| Ok(()))?;
            let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
            let id = insert_message(tx, conversation_id, "assistant", text, tokens, cost)?;
            tx.prepare_cached("UPDATE turns SET assistant_message = ?2 WHERE id = ?1")?
                .execute(params![turn_id, id])?;
            Ok(id)
        })
    }

    /// Records how turns ended, after their terminal frames are in the log.
    pub fn close(&self, closed: &[Closed]) -> Result<(), StoreError> {
        self.db.write(|tx| {
            let mut turn =
                tx.prepare_cached("UPDATE turns SET state = ?2, outcome = ?3, ended_at = ?4 WHERE id = ?1")?;
            let mut floor =
                tx.prepare_cached("UPDATE streams SET floor_seq = max(floor_seq, ?2) WHERE session_id = ?1")?;
            let mut calls = tx.prepare_cached("DELETE FROM tool_calls WHERE turn_id = ?1")?;
            for end in closed {
                calls.execute([end.turn_id])?; // of a turn that ended while it was parked
                let state = if end.outcome.is_empty() { "done" } else { "failed" };
                turn.execute(params![end.turn_id, state, end.outcome, clock::unix_ms()])?;
                floor.execute(params![end.conversation_id, end.last_seq.cast_signed()])?;
            }
            Ok(())
        })
    }

    /// Turns that are queued, running or parked, oldest first: after a start, those that a stop cut short, or kept.
    pub fn open(&self) -> Result<Vec<TurnRow>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM turns WHERE state IN ('queued', 'running', 'parked') ORDER BY id");
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map([], turn)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// One turn.
    pub fn get(&self, id: i64) -> Result<Option<TurnRow>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM turns WHERE id = ?1");
            Ok(conn.prepare_cached(&sql)?.query_row([id], turn).optional()?)
        })
    }

    /// The text of a stored message.
    pub fn message_text(&self, message: i64) -> Result<Option<String>, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT content FROM messages WHERE id = ?1";
            Ok(conn.prepare_cached(sql)?.query_row([message], |row| row.get(0)).optional()?)
        })
    }
}

fn find_recent(conn: &Connection, identity: &str, message_id: &str) -> Result<Option<TurnRow>, StoreError> {
    let oldest = clock::unix_ms() - i64::try_from(limits::MESSAGE_ID_TTL.as_millis()).unwrap_or(0);
    find(conn, identity, message_id, oldest)
}

fn find(conn: &Connection, identity: &str, message_id: &str, oldest: i64) -> Result<Option<TurnRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM turns WHERE identity = ?1 AND message_id = ?2 AND created_at >= ?3");
    Ok(conn.prepare_cached(&sql)?.query_row(params![identity, message_id, oldest], turn).optional()?)
}

/// Like [`find_recent`], and frees an id that is older than it is remembered.
fn find_repeat(tx: &Transaction<'_>, identity: &str, message_id: &str) -> Result<Option<TurnRow>, StoreError> {
    let found = find_recent(tx, identity, message_id)?;
    if found.is_none() {
        let sql = "UPDATE turns SET message_id = NULL WHERE identity = ?1 AND message_id = ?2";
        tx.prepare_cached(sql)?.execute(params![identity, message_id])?;
    }
    Ok(found)
}

/// Makes the conversation unless it exists; false when it belongs to somebody else.
fn ensure_conversation(
    tx: &Transaction<'_>,
    new: &NewTurn<'_>,
    may: &dyn Fn(&str) -> bool,
) -> Result<bool, StoreError> {
    let owner: Option<String> = tx
        .prepare_cached("SELECT owner FROM conversation_info WHERE conversation_id = ?1")?
        .query_row([new.conversation_id], |row| row.get(0))
        .optional()?;
    if let Some(owner) = owner {
        return Ok(may(&owner));
    }
    let now = clock::unix_ms();
    tx.prepare_cached(INSERT_CONVERSATION)?.execute(params![new.conversation_id, new.origin, time::text(now)])?;
    let title = title_of(new.text);
    tx.prepare_cached(INSERT_INFO)?.execute(params![new.conversation_id, new.agent, new.identity, title, now])?;
    Ok(true)
}

/// The first line of the first message, cut at 80 characters.
pub(super) fn title_of(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or("").trim();
    match line.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line.to_owned(),
    }
}

fn start_turn(
    tx: &Transaction<'_>,
    turn_id: i64,
    conversation_id: &str,
    text: &str,
    after_seq: u64,
    reservation: &Reservation<'_>,
) -> Result<i64, StoreError> {
    let message = insert_message(tx, conversation_id, "user", text, 0, 0.0)?;
    let sql = "UPDATE turns SET state = 'running', after_seq = ?2, user_message = ?3 WHERE id = ?1";
    if tx.prepare_cached(sql)?.execute(params![turn_id, after_seq.cast_signed(), message])? != 1 {
        return Err(StoreError::NotFound); // deleted with its conversation
    }
    reserve(tx, conversation_id, reservation)?;
    Ok(message)
}

pub(super) fn reserve(tx: &Transaction<'_>, session_id: &str, reservation: &Reservation<'_>) -> Result<(), StoreError> {
    let until = i64::try_from(reservation.until).unwrap_or(i64::MAX);
    tx.prepare_cached(RESERVE)?.execute(params![
        session_id,
        until,
        reservation.boot_id,
        reservation.used_seq.cast_signed()
    ])?;
    Ok(())
}

fn insert_message(
    tx: &Transaction<'_>,
    conversation_id: &str,
    role: &str,
    content: &str,
    tokens: i64,
    cost: f64,
) -> Result<i64, StoreError> {
    let now = clock::unix_ms();
    tx.prepare_cached(INSERT_MESSAGE)?.execute(params![
        conversation_id,
        role,
        content,
        tokens,
        cost,
        time::text(now)
    ])?;
    let id = tx.last_insert_rowid();
    tx.prepare_cached(COUNT_MESSAGE)?.execute(params![conversation_id, now])?;
    Ok(id)
}

fn turn(row: &Row<'_>) -> rusqlite::Result<TurnRow> {
    Ok(TurnRow {
        id: row.get(0)?,
        conversation_id: row.get(1)?,
        identity: row.get(2)?,
        agent: row.get(3)?,
        user_name: row.get(4)?,
        origin: row.get(5)?,
        text: row.get(6)?,
        state: row.get(7)?,
        after_seq: row.get::<_, Option<i64>>(8)?.map(i64::cast_unsigned),
        user_message: row.get(9)?,
        assistant_message: row.get(10)?,
        outcome: row.get(11)?,
        created_at: row.get(12)?,
        kind: row.get(13)?,
        params: row.get(14)?,
    })
}

fn step(row: &Row<'_>) -> rusqlite::Result<StepRow> {
    Ok(StepRow {
        turn_id: row.get(0)?,
        round: row.get(1)?,
        tool_id: row.get(2)?,
        tool: row.get(3)?,
        arguments: row.get(4)?,
        said: row.get(5)?,
        result: row.get(6)?,
        failed: row.get(7)?,
        duration_ms: row.get::<_, i64>(8)?.cast_unsigned(),
        position: row.get(9)?,
        server: row.get(10)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ConversationStore;

    fn new<'a>(text: &'a str, message_id: Option<&'a str>) -> NewTurn<'a> {
        NewTurn {
            conversation_id: "c1",
            origin: "ws",
            agent: "default",
            identity: "key:a",
            message_id,
            user_name: "",
            text,
            kind: "",
            params: "",
        }
    }

    #[test]
    fn a_message_becomes_a_turn_once() {
        let db = Arc::new(Db::in_memory().unwrap());
        let turns = TurnStore::new(Arc::clone(&db));
        let conversations = ConversationStore::new(db);
        let numbers = Reservation { until: 100, boot_id: "boot", used_seq: 0 };
        let anyone = |_: &str| true;
        let accepted = turns.accept(&new("hello\nworld", Some("m1")), &anyone, Some((0, &numbers))).unwrap();
        let Accepted::New(row) = accepted else { panic!("{accepted:?}") };
        let turn_id = row.id;
        let repeat = turns.accept(&new("hello again", Some("m1")), &anyone, None).unwrap();
        assert!(matches!(repeat, Accepted::Repeat(row) if row.id == turn_id && row.state == "running"));
        assert!(matches!(turns.accept(&new("x", None), &|_| false, None).unwrap(), Accepted::Denied));

        let row = conversations.get("c1").unwrap().unwrap();
        assert_eq!((row.title.as_str(), row.owner.as_str(), row.message_count), ("hello", "key:a", 1));
        turns.answer(turn_id, "c1", "hi", 7, 0.5).unwrap();
        assert!(matches!(turns.answer(turn_id, "c1", "hi", 7, 0.5), Err(StoreError::NotFound)));
        turns.accept(&new("second", None), &anyone, None).unwrap();
        assert_eq!(
            turns.open().unwrap().iter().map(|turn| turn.state.as_str()).collect::<Vec<_>>(),
            ["running", "queued"]
        );
        turns.close(&[Closed { turn_id, conversation_id: "c1".into(), outcome: String::new(), last_seq: 9 }]).unwrap();
        assert_eq!(turns.open().unwrap().len(), 1);
        assert_eq!(
            turns.numbering("c1").unwrap(),
            Numbering { floor_seq: 9, used_seq: 0, reserved_until: 100, boot_id: "boot".into() }
        );

        let texts: Vec<_> =
            conversations.messages("c1", i64::MAX, 200).unwrap().into_iter().map(|m| m.content).collect();
        assert_eq!(texts, ["hello\nworld", "hi"]);
        assert_eq!(conversations.messages("c1", i64::MAX, 1).unwrap()[0].content, "hi");
        assert!((conversations.cost("c1").unwrap() - 0.5).abs() < 1e-9);
        assert!(conversations.delete("c1", 12).unwrap());
        assert!(!conversations.delete("c1", 12).unwrap());
        assert!(turns.open().unwrap().is_empty());
        assert_eq!(turns.numbering("c1").unwrap().floor_seq, 12);
    }
}
