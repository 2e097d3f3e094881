//! Parked turns: a round whose calls wait for somebody's decision, as rows (architecture section 5).

use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, params};

use crate::store::approvals::{self, NewApproval};
use crate::store::turns::Reservation;
use crate::store::{Db, StoreError, rules, turns};

const INSERT_CALL: &str = "INSERT INTO tool_calls(turn_id, position, round, tool_id, tool, server, arguments, said,
    approval_id, shown, permission, refusal) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
const CALLS: &str = "SELECT c.turn_id, c.position, c.round, c.tool_id, c.tool, c.server, c.arguments, c.said,
    c.approval_id, coalesce(a.status, ''), coalesce(i.arguments_hash, ''), c.shown, c.permission, c.refusal
    FROM tool_calls c LEFT JOIN approvals a ON a.id = c.approval_id
    LEFT JOIN approval_info i ON i.approval_id = c.approval_id
    WHERE c.turn_id = ?1 ORDER BY c.position";

/// One call of a parked round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallRow {
    pub turn_id: i64,
    /// Its place in the model's order.
    pub position: u32,
    pub round: u32,
    pub tool_id: String,
    pub tool: String,
    pub server: String,
    pub arguments: String,
    /// The arguments as others may see them.
    pub shown: String,
    /// `free`, `session` or `permanent` (a rule), `ask`, `refused`.
    pub permission: String,
    /// What the model is told of a refused one.
    pub refusal: String,
    /// The model's text beside the calls; on the first of the round.
    pub said: String,
    /// Only of `ask`.
    pub approval_id: Option<String>,
    /// The approval's status; empty without one. Not written.
    pub status: String,
    /// What the approval is bound to. Not written.
    pub arguments_hash: String,
}

/// The parked rounds of `holt.db`.
pub struct ParkedStore {
    db: Arc<Db>,
}

impl ParkedStore {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// Stores a round and its requests and parks its turn, at once. Durable when this returns.
    pub fn park(&self, turn_id: i64, calls: &[CallRow], requests: &[NewApproval<'_>]) -> Result<(), StoreError> {
        self.db.write(|tx| {
            let sql = "UPDATE turns SET state = 'parked' WHERE id = ?1 AND state = 'running'";
            if tx.prepare_cached(sql)?.execute([turn_id])? != 1 {
                return Err(StoreError::NotFound); // deleted with its conversation
            }
            for request in requests {
                approvals::insert(tx, request)?;
                // A rule that was made since the round was planned has found nothing to approve.
                let (agent, session) = (request.agent, request.conversation_id);
                if rules::matching(tx, agent, session, request.tool, request.server)?.is_some() {
                    approvals::approve_by_rule(tx, request.id)?;
                }
            }
            let mut insert = tx.prepare_cached(INSERT_CALL)?;
            for call in calls {
                insert.execute(params![
                    turn_id,
                    call.position,
                    call.round,
                    call.tool_id,
                    call.tool,
                    call.server,
                    call.arguments,
                    call.said,
                    call.approval_id,
                    call.shown,
                    call.permission,
                    call.refusal
                ])?;
            }
            Ok(())
        })
    }

    /// How many requests of a turn are undecided, and its conversation; None unless it is parked.
    pub fn waiting(&self, turn_id: i64) -> Result<Option<(String, u64)>, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT t.conversation_id, (SELECT count(*) FROM tool_calls c JOIN approvals a
                ON a.id = c.approval_id WHERE c.turn_id = t.id AND a.status = 'pending')
                FROM turns t WHERE t.id = ?1 AND t.state = 'parked'";
            let row = conn
                .prepare_cached(sql)?
                .query_row([turn_id], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())));
            Ok(row.optional()?)
        })
    }

    /// Parked turns for which everything is decided, also by another process.
    pub fn decided(&self) -> Result<Vec<i64>, StoreError> {
        self.db.read(|conn| {
            let sql = "SELECT t.id FROM turns t WHERE t.state = 'parked' AND NOT EXISTS
                (SELECT 1 FROM tool_calls c JOIN approvals a ON a.id = c.approval_id
                WHERE c.turn_id = t.id AND a.status = 'pending')";
            let mut statement = conn.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The calls of a turn's parked round, in the model's order.
    pub fn calls(&self, turn_id: i64) -> Result<Vec<CallRow>, StoreError> {
        self.db.read(|conn| {
            let mut statement = conn.prepare_cached(CALLS)?;
            let rows = statement.query_map([turn_id], call)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The turn ends without its round: what it asked for ends with it, and a stop from here on counts as an
    /// interruption. False when it is not parked any more.
    pub fn give_up(&self, turn_id: i64, note: &str) -> Result<bool, StoreError> {
        self.db.write(|tx| {
            approvals::abandon(tx, turn_id, note)?;
            let sql = "UPDATE turns SET state = 'running' WHERE id = ?1 AND state = 'parked'";
            Ok(tx.prepare_cached(sql)?.execute([turn_id])? == 1)
        })
    }

    /// The turn goes on: its round is taken out and given to the thread that runs it from here.
    pub fn unpark(&self, turn: &turns::TurnRow, reservation: &Reservation<'_>) -> Result<Vec<CallRow>, StoreError> {
        self.db.write(|tx| {
            let sql = "UPDATE turns SET state = 'running' WHERE id = ?1 AND state = 'parked'";
            if tx.prepare_cached(sql)?.execute([turn.id])? != 1 {
                return Err(StoreError::NotFound);
            }
            turns::reserve(tx, &turn.conversation_id, reservation)?;
            let calls = {
                let mut statement = tx.prepare_cached(CALLS)?;
                let rows = statement.query_map([turn.id], call)?;
                rows.collect::<Result<Vec<_>, _>>()?
            };
            tx.prepare_cached("DELETE FROM tool_calls WHERE turn_id = ?1")?.execute([turn.id])?;
            Ok(calls)
        })
    }
}

fn call(row: &Row<'_>) -> rusqlite::Result<CallRow> {
    Ok(CallRow {
        turn_id: row.get(0)?,
        position: row.get(1)?,
        round: row.get(2)?,
        tool_id: row.get(3)?,
        tool: row.get(4)?,
        server: row.get(5)?,
        arguments: row.get(6)?,
        said: row.get(7)?,
        approval_id: row.get(8)?,
        status: row.get(9)?,
        arguments_hash: row.get(10)?,
        shown: row.get(11)?,
        permission: row.get(12)?,
        refusal: row.get(13)?,
    })
}
