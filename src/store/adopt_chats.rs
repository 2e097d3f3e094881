//! Taking conversations of the reference over, with their messages and what those cost.

use rusqlite::{CachedStatement, OptionalExtension, Row, Transaction, params};

use crate::store::adopt::{DAMAGED, in_one};
use crate::store::reference::{Reference, Tally, text, time_of};
use crate::store::{Db, StoreError, time, turns};

const MESSAGES: &str =
    "SELECT id, role, content, tokens_used, cost, created_at FROM messages WHERE conversation_id = ?1 ORDER BY id";
/// Without a row of their own: the reference drops the row of a second conversation on one channel, not its messages.
const ORPHANS: &str = "SELECT DISTINCT conversation_id, NULL, NULL, NULL FROM messages
    WHERE conversation_id NOT IN (SELECT id FROM conversations) ORDER BY 1";
const INSERT: &str = "INSERT INTO conversations(id, adapter, external_id, created_at) VALUES (?1, ?2, ?3, ?4)";
const INSERT_INFO: &str = "INSERT INTO conversation_info(conversation_id, agent, owner, title, last_at)
    VALUES (?1, ?2, '', ?3, ?4)";
const INSERT_MESSAGE: &str = "INSERT INTO messages(conversation_id, role, content, tokens_used, cost, created_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const COUNT: &str = "UPDATE conversation_info SET last_at = max(last_at, ?2),
    message_count = (SELECT count(*) FROM messages WHERE conversation_id = ?1) WHERE conversation_id = ?1";
/// A line for each conversation and day, of the answers that came now.
const COSTS: &str = "INSERT INTO llm_calls(created_at, day, conversation_id, agent, identity, provider, model,
      input_tokens, cost_usd, calls, pricing, state)
    SELECT CAST(strftime('%s', max(m.created_at)) AS INTEGER) * 1000, substr(m.created_at, 1, 10), m.conversation_id,
      coalesce(max(i.agent), ''), 'imported', 'imported', '', sum(m.tokens_used), sum(m.cost), count(*), 'unknown',
      'settled'
    FROM messages m LEFT JOIN conversation_info i ON i.conversation_id = m.conversation_id
    WHERE m.id > ?1 AND m.role = 'assistant' AND (m.tokens_used > 0 OR m.cost > 0)
    GROUP BY m.conversation_id, substr(m.created_at, 1, 10)";
/// What the reference allows in an id.
const ID_BYTES_MAX: usize = 256;

/// A message that was read.
struct Message {
    role: String,
    content: String,
    tokens: i64,
    cost: f64,
    at: i64,
}

/// What came of one conversation's messages.
struct Came {
    messages: u64,
    last_at: i64,
}

/// Conversations and messages. One that is here already stays; where the reference's only went on, the rest is added.
/// The tally counts conversations; the number that is returned beside it counts messages, the last one lines of cost.
pub fn conversations(from: &Reference, db: &Db, rehearsal: bool) -> Result<(Tally, u64, u64), StoreError> {
    let (mut messages, mut costs) = (0, 0);
    let tally = in_one(db, rehearsal, |tx, tally| {
        let last: i64 = tx.query_row("SELECT coalesce(max(id), 0) FROM messages", [], |row| row.get(0))?;
        let columns = ["id", "adapter", "external_id", "created_at"];
        let mut adopt = |row: &Row<'_>, tally: &mut Tally| {
            messages += conversation(from, tx, row, tally)?;
            Ok(())
        };
        from.rows("conversations", &columns, tally, &mut adopt)?;
        if let Ok(mut orphans) = from.conn.prepare(ORPHANS) {
            let mut rows = orphans.query([])?;
            // An error here is one of the tables, which were reported above.
            while let Ok(Some(row)) = rows.next() {
                adopt(row, tally)?;
            }
        }
        costs = tx.execute(COSTS, [last])? as u64;
        Ok(())
    })?;
    Ok((tally, messages, costs))
}

/// Takes one over; how many messages came.
fn conversation(from: &Reference, tx: &Transaction<'_>, row: &Row<'_>, tally: &mut Tally) -> Result<u64, StoreError> {
    let id = text(row, 0).unwrap_or_default();
    if id.is_empty() || id.len() > ID_BYTES_MAX || id.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        tally.skip("a conversation has no usable id", &id);
        return Ok(0);
    }
    let known: Option<i64> = tx
        .prepare_cached("SELECT 1 FROM conversations WHERE id = ?1")?
        .query_row([&id], |row| row.get(0))
        .optional()?;
    let mut theirs = match from.conn.prepare_cached(MESSAGES) {
        Ok(statement) => statement,
        Err(error) => {
            tally.note(&format!("messages cannot be read: {error}"), &id);
            return Ok(0);
        }
    };
    if known.is_some() {
        return known_conversation(tx, &id, &mut theirs, tally);
    }
    let created = time_of(row, 3).ok().flatten();
    let adapter = text(row, 1).unwrap_or_else(|| adapter_of(&id));
    let external = text(row, 2).unwrap_or_else(|| id.clone());
    // `<agent>:<adapter>` for those of chat services; the others do not tell.
    let agent = adapter.split_once(':').map_or("default", |(agent, _)| agent).to_owned();
    tx.prepare_cached(INSERT)?.execute(params![id, adapter, external, time::text(created.unwrap_or(0))])?;
    tx.prepare_cached(INSERT_INFO)?.execute(params![id, agent, "", created.unwrap_or(0)])?;
    let came = append(tx, &id, &mut theirs, 0, tally)?;
    if created.is_none() {
        // As good as any: nobody else knows when it began.
        let sql = "UPDATE conversations SET created_at = coalesce(
            (SELECT min(created_at) FROM messages WHERE conversation_id = ?1), created_at) WHERE id = ?1";
        tx.prepare_cached(sql)?.execute([&id])?;
    }
    tx.prepare_cached(COUNT)?.execute(params![id, came.last_at])?;
    tally.new += 1;
    Ok(came.messages)
}

/// One that is here already: nothing to do, or to append, or another one of that id.
fn known_conversation(
    tx: &Transaction<'_>,
    id: &str,
    theirs: &mut CachedStatement<'_>,
    tally: &mut Tally,
) -> Result<u64, StoreError> {
    let same = {
        let mut ours = tx.prepare_cached(MESSAGES)?;
        let mut ours = ours.query([id])?;
        let mut rows = theirs.query([id])?;
        let mut same = 0_u64;
        let mut last_at = 0;
        loop {
            let Ok(Some(row)) = rows.next() else { break None };
            let Some(message) = message(row, &mut last_at) else { continue };
            let Some(row) = ours.next()? else { break Some(same) };
            let (role, content): (String, String) = (row.get(1)?, row.get(2)?);
            if role != message.role || content != message.content {
                tally.skip("another conversation of that id is here, ours stays", id);
                return Ok(0);
            }
            same += 1;
        }
    };
    let Some(same) = same else {
        tally.there += 1;
        return Ok(0);
    };
    let came = append(tx, id, theirs, same, tally)?;
    tx.prepare_cached(COUNT)?.execute(params![id, came.last_at])?;
    tally.grown += 1;
    Ok(came.messages)
}

/// Appends the messages behind the first `skipped` good ones.
fn append(
    tx: &Transaction<'_>,
    id: &str,
    theirs: &mut CachedStatement<'_>,
    skipped: u64,
    tally: &mut Tally,
) -> Result<Came, StoreError> {
    let mut insert = tx.prepare_cached(INSERT_MESSAGE)?;
    let mut rows = theirs.query([id])?;
    let (mut good, mut came) = (0_u64, Came { messages: 0, last_at: 0 });
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(came),
            Err(error) => {
                tally.note(&format!("the rest of its messages cannot be read: {error}"), id);
                return Ok(came);
            }
        };
        let Some(message) = message(row, &mut came.last_at) else {
            let which = row.get::<_, i64>(0).map_or_else(|_| id.to_owned(), |number| format!("{id}, message {number}"));
            tally.note(&format!("a message was left out: {DAMAGED}"), &which);
            continue;
        };
        good += 1;
        if good <= skipped {
            continue;
        }
        if good == 1 {
            let title = if message.role == "user" { turns::title_of(&message.content) } else { String::new() };
            let sql = "UPDATE conversation_info SET title = ?2 WHERE conversation_id = ?1";
            tx.prepare_cached(sql)?.execute(params![id, title])?;
        }
        let Message { role, content, tokens, cost, at } = message;
        insert.execute(params![id, role, content, tokens, cost, time::text(at)])?;
        came.messages += 1;
    }
}

/// None: damaged. A time that cannot be read is that of the message before.
fn message(row: &Row<'_>, last_at: &mut i64) -> Option<Message> {
    let role = text(row, 1).filter(|role| matches!(role.as_str(), "user" | "assistant"))?;
    let content = text(row, 2)?;
    let at = time_of(row, 5).ok().flatten().unwrap_or(*last_at);
    *last_at = at;
    let tokens = row.get::<_, Option<i64>>(3).ok().flatten().unwrap_or(0).max(0);
    let cost = row.get::<_, Option<f64>>(4).ok().flatten().filter(|cost| *cost >= 0.0).unwrap_or(0.0);
    Some(Message { role, content, tokens, cost, at })
}

/// The channel as the reference names it in ids (engine 1.3).
fn adapter_of(id: &str) -> String {
    let mut parts = id.split(':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("sched"), Some(_), Some(_)) => "schedule".to_owned(),
        (Some(agent), Some(adapter), Some(_)) => format!("{agent}:{adapter}"),
        _ => "api".to_owned(),
    }
}
