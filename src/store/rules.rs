//! Auto-approve rules (contract engine 3.5): for a conversation and a quarter of an hour, or for good.

use std::sync::Arc;

use rusqlite::{Connection, Row, Transaction, params};

use crate::limits;
use crate::rt::clock;
use crate::store::audit::{self, Entry};
use crate::store::{Db, StoreError, approvals, random_hex, time};

const COLUMNS: &str = "r.id, r.agent_name, r.tool_name, r.scope, r.conversation_id, r.created_at, r.created_by,
    i.server, i.expires_at";
const FROM: &str = "FROM auto_approve_rules r LEFT JOIN rule_info i ON i.rule_id = r.id";

/// How far a rule reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleScope {
    /// One conversation, for [`limits::SESSION_RULE_TTL`].
    Session,
    /// All conversations of the agent, until it is removed.
    Permanent,
}

impl RuleScope {
    /// `session` or `permanent`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Permanent => "permanent",
        }
    }

    /// The scope of that name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "session" => Some(Self::Session),
            "permanent" => Some(Self::Permanent),
            _ => None,
        }
    }
}

/// A rule as lists show it. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRow {
    pub id: String,
    pub agent: String,
    pub tool: String,
    pub scope: String,
    pub conversation_id: String,
    pub created_at: i64,
    pub created_by: String,
    /// None: whichever server has a tool of that name.
    pub server: Option<String>,
    pub expires_at: Option<i64>,
}

/// A rule to make.
#[derive(Clone, Copy, Debug)]
pub struct NewRule<'a> {
    pub agent: &'a str,
    pub tool: &'a str,
    pub server: Option<&'a str>,
    pub scope: RuleScope,
    /// Counts for [`RuleScope::Session`].
    pub conversation_id: &'a str,
    pub created_by: &'a str,
    /// Who makes it, and from where: for the audit log.
    pub identity: &'a str,
    pub source: &'a str,
}

/// The rules of `holt.db`.
pub struct RuleStore {
    db: Arc<Db>,
}

impl RuleStore {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// Rules in force, of one agent if it is named: permanent ones first, newest of each first.
    pub fn list(&self, agent: &str) -> Result<Vec<RuleRow>, StoreError> {
        self.db.read(|conn| {
            let sql = format!(
                "SELECT {COLUMNS} {FROM} WHERE (?1 = '' OR r.agent_name = ?1)
                AND (i.expires_at IS NULL OR i.expires_at > ?2)
                ORDER BY r.scope = 'session', r.created_at DESC, r.rowid DESC"
            );
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map(params![agent, clock::unix_ms()], rule)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The rule that lets a call through, if there is one; session rules first.
    pub fn matching(
        &self,
        agent: &str,
        conversation_id: &str,
        tool: &str,
        server: &str,
    ) -> Result<Option<RuleScope>, StoreError> {
        self.db.read(|conn| matching(conn, agent, conversation_id, tool, server))
    }

    /// Makes a rule and approves what waits for it; the rule, and the turns that may go on.
    pub fn add(&self, new: &NewRule<'_>) -> Result<(RuleRow, Vec<i64>), StoreError> {
        self.db.write(|tx| add(tx, new, None))
    }

    /// Removes a rule; false when there is none of that id.
    pub fn remove(&self, id: &str, identity: &str, source: &str) -> Result<bool, StoreError> {
        self.db.write(|tx| {
            let removed = tx.execute("DELETE FROM auto_approve_rules WHERE id = ?1", [id])? > 0;
            if removed {
                audit::insert(tx, &Entry { actor: identity, source, target: id, ..Entry::ok("rule.delete") })?;
            }
            Ok(removed)
        })
    }

    /// A tool server is gone, or is another program from now on: what was allowed for it is not allowed for what comes
    /// after it, and what waits for it ends. The turns that may go on.
    pub fn forget_server(&self, server: &str) -> Result<Vec<i64>, StoreError> {
        self.db.write(|tx| {
            let sql = "DELETE FROM auto_approve_rules WHERE id IN (SELECT rule_id FROM rule_info WHERE server = ?1)";
            let removed = tx.prepare_cached(sql)?.execute([server])?;
            if removed > 0 {
                let detail = format!("{removed} rules of a server that was removed or changed");
                let entry = Entry { actor: "holt", target: server, detail: &detail, ..Entry::ok("rule.delete") };
                audit::insert(tx, &entry)?;
            }
            approvals::abandon_server(tx, server)
        })
    }

    /// Removes session rules whose time is over.
    pub fn purge_expired(&self) -> Result<(), StoreError> {
        self.db.write(|tx| {
            let sql = "DELETE FROM auto_approve_rules WHERE id IN
                (SELECT rule_id FROM rule_info WHERE expires_at IS NOT NULL AND expires_at <= ?1)";
            tx.prepare_cached(sql)?.execute([clock::unix_ms()])?;
            Ok(())
        })
    }
}

/// [`RuleStore::matching`] within a transaction, or on a reader.
pub(super) fn matching(
    conn: &Connection,
    agent: &str,
    conversation_id: &str,
    tool: &str,
    server: &str,
) -> Result<Option<RuleScope>, StoreError> {
    let sql = "SELECT r.scope FROM auto_approve_rules r LEFT JOIN rule_info i ON i.rule_id = r.id
        WHERE r.agent_name = ?1 AND r.tool_name = ?2 AND (r.scope <> 'session' OR r.conversation_id = ?3)
        AND (i.server IS NULL OR i.server = ?4) AND (i.expires_at IS NULL OR i.expires_at > ?5)
        ORDER BY r.scope <> 'session' LIMIT 1";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![agent, tool, conversation_id, server, clock::unix_ms()])?;
    Ok(match rows.next()? {
        Some(row) => RuleScope::parse(&row.get::<_, String>(0)?),
        None => None,
    })
}

/// [`RuleStore::add`] within a transaction; the request `but` is decided by somebody else.
pub(super) fn add(
    tx: &Transaction<'_>,
    new: &NewRule<'_>,
    but: Option<&str>,
) -> Result<(RuleRow, Vec<i64>), StoreError> {
    let now = clock::unix_ms();
    let session = new.scope == RuleScope::Session;
    let ttl = i64::try_from(limits::SESSION_RULE_TTL.as_millis()).unwrap_or(i64::MAX);
    let made = RuleRow {
        id: random_hex::<8>()?,
        agent: new.agent.to_owned(),
        tool: new.tool.to_owned(),
        scope: new.scope.as_str().to_owned(),
        conversation_id: if session { new.conversation_id.to_owned() } else { String::new() },
        created_at: now,
        created_by: new.created_by.to_owned(),
        server: new.server.map(str::to_owned),
        expires_at: session.then(|| now.saturating_add(ttl)),
    };
    tx.prepare_cached(
        "INSERT INTO auto_approve_rules(id, agent_name, tool_name, scope, conversation_id, created_at, created_by)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        made.id,
        made.agent,
        made.tool,
        made.scope,
        made.conversation_id,
        time::text(now),
        made.created_by
    ])?;
    tx.prepare_cached("INSERT INTO rule_info(rule_id, server, expires_at) VALUES (?1, ?2, ?3)")?.execute(params![
        made.id,
        made.server,
        made.expires_at
    ])?;
    let detail = format!("agent {}, tool {}, {}", made.agent, made.tool, made.scope);
    audit::insert(
        tx,
        &Entry {
            actor: new.identity,
            source: new.source,
            target: &made.id,
            detail: &detail,
            ..Entry::ok("rule.create")
        },
    )?;
    let turns = approvals::approve_matching(tx, new, but)?;
    Ok((made, turns))
}

fn rule(row: &Row<'_>) -> rusqlite::Result<RuleRow> {
    Ok(RuleRow {
        id: row.get(0)?,
        agent: row.get(1)?,
        tool: row.get(2)?,
        scope: row.get(3)?,
        conversation_id: row.get(4)?,
        created_at: time::parse_ms(&row.get::<_, String>(5)?).unwrap_or(0),
        created_by: row.get(6)?,
        server: row.get(7)?,
        expires_at: row.get(8)?,
    })
}
