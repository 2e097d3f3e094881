//! Requests for approval: rows before anybody sees them, decided once (contract engine 3, http-api 10).

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::rt::clock;
use crate::rt::order::Order;
use crate::store::audit::{self, Entry};
use crate::store::rules::{self, NewRule, RuleScope};
use crate::store::{Db, StoreError, time};

const COLUMNS: &str = "a.id, a.agent_name, a.kind, a.status, a.summary, a.payload, a.callback_data, a.external_id,
    a.adapter_name, a.conversation_id, a.created_at, a.expires_at, a.resolved_at, a.resolved_by,
    coalesce(i.turn_id, 0), coalesce(i.tool_id, ''), coalesce(i.tool, ''), coalesce(i.server, ''),
    coalesce(i.arguments_hash, ''), coalesce(i.decided_by, ''), coalesce(i.note, '')";
const FROM: &str = "FROM approvals a LEFT JOIN approval_info i ON i.approval_id = a.id";
const INSERT: &str = "INSERT INTO approvals(id, agent_name, kind, summary, payload, callback_data, external_id,
    adapter_name, conversation_id, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?7, ?9, ?10)";
const INSERT_INFO: &str = "INSERT INTO approval_info(approval_id, turn_id, tool_id, tool, server, arguments_hash)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const RESOLVE: &str = "UPDATE approvals SET status = ?2, resolved_at = ?3, resolved_by = ?4
    WHERE id = ?1 AND status = 'pending'";
const RESOLVE_INFO: &str = "UPDATE approval_info SET decided_by = ?2, note = ?3 WHERE approval_id = ?1";

/// A request as lists show it. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRow {
    pub id: String,
    pub agent: String,
    /// `tool_call` and the others of contract engine 3.2.
    pub kind: String,
    /// `pending`, `approved`, `denied` or `expired`.
    pub status: String,
    pub summary: String,
    /// For a tool call the raw arguments.
    pub payload: String,
    pub callback_data: String,
    pub external_id: String,
    pub adapter: String,
    pub conversation_id: String,
    pub created_at: i64,
    pub expires_at: Option<i64>,
    pub resolved_at: Option<i64>,
    /// `api`, `ws`, `cli`, `expired`, `auto_approve`, `cancelled`.
    pub resolved_by: String,
    /// 0 for one that belongs to no turn.
    pub turn_id: i64,
    pub tool_id: String,
    pub tool: String,
    pub server: String,
    /// SHA-256 of the canonical arguments, hex.
    pub arguments_hash: String,
    /// The identity that decided.
    pub decided_by: String,
    /// Why it ended without a decision.
    pub note: String,
}

/// A tool call that has to be asked for.
#[derive(Clone, Debug)]
pub struct NewApproval<'a> {
    pub id: &'a str,
    pub agent: &'a str,
    pub summary: &'a str,
    pub arguments: &'a str,
    /// Where its turn came from: `ws`, `api`, ...
    pub adapter: &'a str,
    pub conversation_id: &'a str,
    pub expires_at: i64,
    pub turn_id: i64,
    pub tool_id: &'a str,
    pub tool: &'a str,
    pub server: &'a str,
    pub arguments_hash: &'a str,
}

/// A decision.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    pub approve: bool,
    /// `api`, `ws` or `cli`.
    pub by: &'a str,
    /// The identity that decides.
    pub identity: &'a str,
    /// Its address, for the audit log; may be empty.
    pub source: &'a str,
    /// Also approve the same tool from now on; counts only with `approve`, and only for tool calls.
    pub rule: Option<RuleScope>,
}

/// What became of a decision.
#[derive(Debug)]
pub enum Decided {
    /// The request as it is now, and the turns that may go on.
    Done(Box<ApprovalRow>, Vec<i64>),
    NotFound,
    /// Somebody or something was faster: the request as it is.
    Already(Box<ApprovalRow>),
}

/// The requests of `holt.db`.
pub struct ApprovalStore {
    db: Arc<Db>,
}

impl ApprovalStore {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// Requests of that status (all when empty), newest first.
    pub fn list(&self, status: &str) -> Result<Vec<ApprovalRow>, StoreError> {
        self.db.read(|conn| {
            // Two texts: with an OR the index on the status would not be used.
            let which = if status.is_empty() { "?1 = ''" } else { "a.status = ?1" };
            let sql =
                format!("SELECT {COLUMNS} {FROM} WHERE {which} ORDER BY a.created_at DESC, a.rowid DESC LIMIT 1000");
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map([status], approval)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// One request.
    pub fn get(&self, id: &str) -> Result<Option<ApprovalRow>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} {FROM} WHERE a.id = ?1");
            Ok(conn.prepare_cached(&sql)?.query_row([id], approval).optional()?)
        })
    }

    /// Decides a request, once. A rule is made first, and approves what else waits for it, so that the turn which
    /// goes on does not ask again (W-48). Durable when this returns.
    pub fn decide(&self, id: &str, decision: &Decision<'_>) -> Result<Decided, StoreError> {
        self.db.write(|tx| {
            let Some(row) = find(tx, id)? else {
                return Ok(Decided::NotFound);
            };
            if row.status != "pending" {
                return Ok(Decided::Already(Box::new(row)));
            }
            if row.expires_at.is_some_and(|at| at <= clock::unix_ms()) {
                expire(tx, &row.id)?;
                let row = find(tx, id)?.ok_or(StoreError::NotFound)?;
                return Ok(Decided::Already(Box::new(row)));
            }
            let mut turns = vec![row.turn_id];
            if let Some(scope) = decision.rule.filter(|_| decision.approve && row.kind == "tool_call") {
                let rule = NewRule {
                    agent: &row.agent,
                    tool: &row.tool,
                    server: Some(&row.server),
                    scope,
                    conversation_id: &row.conversation_id,
                    created_by: decision.by,
                    identity: decision.identity,
                    source: decision.source,
                };
                let (_, resumed) = rules::add(tx, &rule, Some(&row.id))?;
                turns.extend(resumed);
            }
            let status = if decision.approve { "approved" } else { "denied" };
            resolve(tx, &row.id, status, decision.by, decision.identity, "")?;
            audit_decision(tx, &row, decision)?;
            let row = find(tx, id)?.ok_or(StoreError::NotFound)?;
            turns.order();
            turns.dedup();
            Ok(Decided::Done(Box::new(row), turns))
        })
    }

    /// Ends requests whose time is over; the turns that waited for them.
    pub fn expire_due(&self) -> Result<Vec<i64>, StoreError> {
        let now = time::text(clock::unix_ms());
        let due = self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} {FROM} WHERE a.status = 'pending' AND a.expires_at <= ?1");
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map([&now], approval)?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        self.db.write(|tx| {
            for row in &due {
                expire(tx, &row.id)?;
            }
            Ok(())
        })?;
        Ok(due.iter().map(|row| row.turn_id).collect())
    }

    /// Ends what a turn still waits for, because the turn is over: whoever decides later is told so.
    pub fn abandon(&self, turn_id: i64, note: &str) -> Result<(), StoreError> {
        let waits = self.db.read(|conn| Ok(!pending_of(conn, turn_id)?.is_empty()))?;
        if waits { self.db.write(|tx| abandon(tx, turn_id, note)) } else { Ok(()) }
    }

    /// Requests whose id begins so, two at most: enough to know whether it is one.
    pub fn find_by_prefix(&self, prefix: &str) -> Result<Vec<ApprovalRow>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} {FROM} WHERE substr(a.id, 1, length(?1)) = ?1 LIMIT 2");
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map([prefix], approval)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Removes decided requests older than `before_ms`.
    pub fn purge(&self, before_ms: i64) -> Result<usize, StoreError> {
        self.db.write(|tx| {
            let sql = "DELETE FROM approvals WHERE status <> 'pending' AND created_at < ?1";
            Ok(tx.prepare_cached(sql)?.execute([time::text(before_ms)])?)
        })
    }
}

/// Stores a request; its turn is parked in the same transaction.
pub(super) fn insert(tx: &Transaction<'_>, new: &NewApproval<'_>) -> Result<(), StoreError> {
    tx.prepare_cached(INSERT)?.execute(params![
        new.id,
        new.agent,
        "tool_call",
        new.summary,
        new.arguments,
        format!("appr:{}", new.id),
        new.conversation_id,
        new.adapter,
        time::now_text(),
        time::text(new.expires_at),
    ])?;
    tx.prepare_cached(INSERT_INFO)?.execute(params![
        new.id,
        new.turn_id,
        new.tool_id,
        new.tool,
        new.server,
        new.arguments_hash
    ])?;
    Ok(())
}

/// [`ApprovalStore::abandon`] within a transaction.
pub(super) fn abandon(tx: &Transaction<'_>, turn_id: i64, note: &str) -> Result<(), StoreError> {
    for id in pending_of(tx, turn_id)? {
        resolve(tx, &id, "expired", "cancelled", "", note)?;
    }
    Ok(())
}

/// Ends what waits for a tool of that server; the turns concerned.
pub(super) fn abandon_server(tx: &Transaction<'_>, server: &str) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT a.id, i.turn_id FROM approval_info i JOIN approvals a ON a.id = i.approval_id
        WHERE i.server = ?1 AND a.status = 'pending'";
    let waiting: Vec<(String, i64)> =
        tx.prepare_cached(sql)?.query_map([server], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    for (id, _) in &waiting {
        resolve(tx, id, "expired", "cancelled", "", "its tool server was removed or changed")?;
    }
    Ok(waiting.into_iter().map(|(_, turn_id)| turn_id).collect())
}

/// A request that a rule answers in the moment it is made.
pub(super) fn approve_by_rule(tx: &Transaction<'_>, id: &str) -> Result<(), StoreError> {
    resolve(tx, id, "approved", "auto_approve", "", "")
}

fn pending_of(conn: &Connection, turn_id: i64) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT a.id FROM approval_info i JOIN approvals a ON a.id = i.approval_id
        WHERE i.turn_id = ?1 AND a.status = 'pending'";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map([turn_id], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Ends the requests of a conversation that is being deleted, and the rules made for it: its id may be used again, by
/// somebody else.
pub(super) fn abandon_conversation(tx: &Transaction<'_>, conversation_id: &str) -> Result<(), StoreError> {
    let sql = "SELECT id FROM approvals WHERE conversation_id = ?1 AND status = 'pending'";
    let ids: Vec<String> =
        tx.prepare_cached(sql)?.query_map([conversation_id], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for id in ids {
        resolve(tx, &id, "expired", "cancelled", "", "its conversation was deleted")?;
    }
    let sql = "DELETE FROM auto_approve_rules WHERE scope = 'session' AND conversation_id = ?1";
    tx.prepare_cached(sql)?.execute([conversation_id])?;
    Ok(())
}

/// Approves what waits for a rule that was just made; the turns concerned.
pub(super) fn approve_matching(
    tx: &Transaction<'_>,
    rule: &NewRule<'_>,
    but: Option<&str>,
) -> Result<Vec<i64>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} {FROM} WHERE a.status = 'pending' AND a.kind = 'tool_call' AND a.agent_name = ?1
        AND i.tool = ?2 AND a.id <> ?3 AND a.expires_at > ?4"
    );
    let rows: Vec<ApprovalRow> = tx
        .prepare_cached(&sql)?
        .query_map(params![rule.agent, rule.tool, but.unwrap_or(""), time::now_text()], approval)?
        .collect::<Result<_, _>>()?;
    let mut turns = Vec::new();
    for row in rows {
        let here = rule.scope == RuleScope::Permanent || row.conversation_id == rule.conversation_id; // W-25
        if here && rule.server.is_none_or(|server| server == row.server) {
            resolve(tx, &row.id, "approved", "auto_approve", "", "")?;
            let decision = Decision {
                approve: true,
                by: "auto_approve",
                identity: rule.identity,
                source: rule.source,
                rule: None,
            };
            audit_decision(tx, &row, &decision)?;
            turns.push(row.turn_id);
        }
    }
    Ok(turns)
}

fn audit_decision(tx: &Transaction<'_>, row: &ApprovalRow, decision: &Decision<'_>) -> Result<(), StoreError> {
    let detail = format!("agent {}, tool {}, via {}", row.agent, row.tool, decision.by);
    let entry = Entry {
        actor: decision.identity,
        target: &row.id,
        source: decision.source,
        detail: &detail,
        ..Entry::ok(if decision.approve { "approval.approve" } else { "approval.deny" })
    };
    audit::insert(tx, &entry)
}

fn expire(tx: &Transaction<'_>, id: &str) -> Result<(), StoreError> {
    audit::insert(tx, &Entry { actor: "holt", target: id, ..Entry::ok("approval.expire") })?;
    resolve(tx, id, "expired", "expired", "", "nobody decided in time")
}

fn resolve(
    tx: &Transaction<'_>,
    id: &str,
    status: &str,
    by: &str,
    identity: &str,
    note: &str,
) -> Result<(), StoreError> {
    if tx.prepare_cached(RESOLVE)?.execute(params![id, status, time::now_text(), by])? == 1 {
        tx.prepare_cached(RESOLVE_INFO)?.execute(params![id, identity, note])?;
    }
    Ok(())
}

fn find(tx: &Transaction<'_>, id: &str) -> Result<Option<ApprovalRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} {FROM} WHERE a.id = ?1");
    Ok(tx.prepare_cached(&sql)?.query_row([id], approval).optional()?)
}

fn approval(row: &Row<'_>) -> rusqlite::Result<ApprovalRow> {
    let time = |text: Option<String>| text.as_deref().and_then(time::parse_ms);
    Ok(ApprovalRow {
        id: row.get(0)?,
        agent: row.get(1)?,
        kind: row.get(2)?,
        status: row.get(3)?,
        summary: row.get(4)?,
        payload: row.get(5)?,
        callback_data: row.get(6)?,
        external_id: row.get(7)?,
        adapter: row.get(8)?,
        conversation_id: row.get(9)?,
        created_at: time(row.get(10)?).unwrap_or(0),
        expires_at: time(row.get(11)?),
        resolved_at: time(row.get(12)?),
        resolved_by: row.get(13)?,
        turn_id: row.get(14)?,
        tool_id: row.get(15)?,
        tool: row.get(16)?,
        server: row.get(17)?,
        arguments_hash: row.get(18)?,
        decided_by: row.get(19)?,
        note: row.get(20)?,
    })
}
