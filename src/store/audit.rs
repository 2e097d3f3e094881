//! The audit log: who did what, to what, from where, with which result. Never a secret, never arguments of tools.

use std::sync::Arc;

use rusqlite::{Row, Transaction, params};

use crate::rt::clock;
use crate::rt::text::cut;
use crate::store::{Db, StoreError};

const INSERT: &str = "INSERT INTO audit(at, actor, action, target, source, result, detail)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
/// An action that ends in a dot matches all that begin so: `/` follows `.` in ASCII.
const MATCHING: &str = "FROM audit WHERE (?1 = '' OR actor = ?1)
    AND (?2 = '' OR action = ?2 OR (substr(?2, -1) = '.' AND substr(action, 1, length(?2)) = ?2))
    AND (?3 = '' OR target = ?3) AND (?4 = '' OR result = ?4) AND at >= ?5 AND at < ?6 AND id < ?7";
const PURGE_OLD: &str = "DELETE FROM audit WHERE at < ?1";
/// What agents and scripts do in masses must not push out what people did.
const PURGE_AGENTS: &str = "DELETE FROM audit WHERE (action IN ('tool.call', 'kv.set', 'kv.delete') OR substr(actor, 1, 6) = 'agent:')
    AND id <= (SELECT id FROM audit WHERE action IN ('tool.call', 'kv.set', 'kv.delete') OR substr(actor, 1, 6) = 'agent:'
        ORDER BY id DESC LIMIT 1 OFFSET ?1)";
/// What anybody can cause without a credential must not push out the rest.
const PURGE_REFUSED: &str = "DELETE FROM audit
    WHERE result <> 'ok' AND action <> 'tool.call' AND substr(actor, 1, 6) <> 'agent:'
    AND id <= (SELECT id FROM audit
        WHERE result <> 'ok' AND action <> 'tool.call' AND substr(actor, 1, 6) <> 'agent:'
        ORDER BY id DESC LIMIT 1 OFFSET ?1)";
const PURGE_MANY: &str = "DELETE FROM audit WHERE id <= (SELECT id FROM audit ORDER BY id DESC LIMIT 1 OFFSET ?1)";

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// Refused: wrong password, missing right, a person said no.
    Denied,
    /// Tried, and something went wrong.
    Failed,
}

impl Outcome {
    /// As stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// What is recorded. Texts are cut to their limits and put on one line.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// An identity (`user:...`, `key:...`), `agent:<name>`, `cli` or `holt`; empty when nobody is known.
    pub actor: &'a str,
    /// Dotted, the kind of thing first: `key.create`, `login.password`, `tool.call`.
    pub action: &'a str,
    /// What it was done to: an id or a name.
    pub target: &'a str,
    /// Client address, or `cli`.
    pub source: &'a str,
    pub result: Outcome,
    pub detail: &'a str,
}

impl<'a> Entry<'a> {
    /// Something that was done, to be filled in.
    pub fn ok(action: &'a str) -> Self {
        Self { actor: "", action, target: "", source: "", result: Outcome::Ok, detail: "" }
    }
}

/// One stored entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Grows with time.
    pub id: i64,
    /// Milliseconds since 1970.
    pub at: i64,
    pub actor: String,
    pub action: String,
    pub target: String,
    pub source: String,
    pub result: String,
    pub detail: String,
}

/// Which entries are wanted; empty texts match all.
#[derive(Clone, Debug)]
pub struct Filter {
    pub actor: String,
    /// A whole action, or the beginning of one with its dot: `key.`.
    pub action: String,
    pub target: String,
    pub result: String,
    /// Milliseconds since 1970: from here on.
    pub since: i64,
    /// Up to here, exclusive.
    pub until: i64,
    /// Only entries with a smaller id.
    pub before: i64,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            actor: String::new(),
            action: String::new(),
            target: String::new(),
            result: String::new(),
            since: 0,
            until: i64::MAX,
            before: i64::MAX,
        }
    }
}

/// The entries of `holt.db`.
pub struct AuditStore {
    db: Arc<Db>,
}

/// Longest texts in bytes: names fit, data does not.
const ACTOR_BYTES_MAX: usize = 300;
const ACTION_BYTES_MAX: usize = 64;
const TARGET_BYTES_MAX: usize = 300;
const SOURCE_BYTES_MAX: usize = 64;
const DETAIL_BYTES_MAX: usize = 500;

/// Adds an entry to a transaction that changes something else, so that both happen or neither.
pub fn insert(tx: &Transaction<'_>, entry: &Entry<'_>) -> Result<(), StoreError> {
    tx.prepare_cached(INSERT)?.execute(params![
        clock::unix_ms(),
        one_line(entry.actor, ACTOR_BYTES_MAX),
        one_line(entry.action, ACTION_BYTES_MAX),
        one_line(entry.target, TARGET_BYTES_MAX),
        one_line(entry.source, SOURCE_BYTES_MAX),
        entry.result.as_str(),
        one_line(entry.detail, DETAIL_BYTES_MAX),
    ])?;
    Ok(())
}

impl AuditStore {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// Adds entries of their own. Durable when this returns Ok.
    pub fn add(&self, entries: &[Entry<'_>]) -> Result<(), StoreError> {
        self.db.write(|tx| entries.iter().try_for_each(|entry| insert(tx, entry)))
    }

    /// The newest matching entries, newest first.
    pub fn list(&self, filter: &Filter, count: usize) -> Result<Vec<AuditRow>, StoreError> {
        self.db.read(|conn| {
            let sql = format!(
                "SELECT id, at, actor, action, target, source, result, detail {MATCHING} ORDER BY id DESC LIMIT ?8"
            );
            let mut statement = conn.prepare_cached(&sql)?;
            let Filter { actor, action, target, result, since, until, before } = filter;
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![actor, action, target, result, since, until, before, count], row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// How often each action ended in which way, among the matching entries; by action.
    pub fn stats(&self, filter: &Filter) -> Result<Vec<(String, String, i64)>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT action, result, count(*) {MATCHING} GROUP BY action, result ORDER BY 1, 2");
            let mut statement = conn.prepare_cached(&sql)?;
            let Filter { actor, action, target, result, since, until, before } = filter;
            let rows = statement.query_map(params![actor, action, target, result, since, until, before], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Removes entries older than `before` (milliseconds since 1970), and the oldest beyond `rows_max`, of which half
    /// may be of what agents and scripts do in masses, and a fifth of what others tried in vain. Returns how many are gone.
    pub fn purge(&self, before: i64, rows_max: usize) -> Result<usize, StoreError> {
        let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
        self.db.write(|tx| {
            let old = tx.prepare_cached(PURGE_OLD)?.execute([before])?;
            let agents = tx.prepare_cached(PURGE_AGENTS)?.execute([rows_max / 2])?;
            let refused = tx.prepare_cached(PURGE_REFUSED)?.execute([rows_max / 5])?;
            let many = tx.prepare_cached(PURGE_MANY)?.execute([rows_max])?;
            Ok(old + agents + refused + many)
        })
    }
}

fn row(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow {
        id: row.get(0)?,
        at: row.get(1)?,
        actor: row.get(2)?,
        action: row.get(3)?,
        target: row.get(4)?,
        source: row.get(5)?,
        result: row.get(6)?,
        detail: row.get(7)?,
    })
}

/// Without control characters, cut at a character.
fn one_line(text: &str, bytes_max: usize) -> String {
    cut(text, bytes_max).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> AuditStore {
        AuditStore::new(Arc::new(Db::in_memory().unwrap()))
    }

    fn ids(rows: &[AuditRow]) -> Vec<i64> {
        rows.iter().map(|row| row.id).collect()
    }

    #[test]
    fn entries_are_found_by_what_they_say() {
        let store = store();
        let add = |actor, action, target, result| {
            store.add(&[Entry { actor, target, result, source: "cli", ..Entry::ok(action) }]).unwrap();
        };
        add("key:a", "key.create", "1", Outcome::Ok);
        add("key:a", "key.revoke", "1", Outcome::Ok);
        add("", "login.password", "", Outcome::Denied);
        add("key:b", "keys", "1", Outcome::Failed);
        let find = |filter: Filter| ids(&store.list(&filter, 100).unwrap());
        assert_eq!(find(Filter::default()), [4, 3, 2, 1]);
        assert_eq!(find(Filter { actor: "key:a".into(), ..Filter::default() }), [2, 1]);
        assert_eq!(find(Filter { action: "key.".into(), ..Filter::default() }), [2, 1]);
        assert_eq!(find(Filter { action: "key.create".into(), ..Filter::default() }), [1]);
        assert_eq!(find(Filter { action: "key".into(), ..Filter::default() }), [0_i64; 0]);
        assert_eq!(find(Filter { action: "%.".into(), ..Filter::default() }), [0_i64; 0]);
        assert_eq!(find(Filter { target: "1".into(), before: 4, ..Filter::default() }), [2, 1]);
        assert_eq!(find(Filter { result: "denied".into(), ..Filter::default() }), [3]);
        assert_eq!(find(Filter { since: clock::unix_ms() + 60_000, ..Filter::default() }), [0_i64; 0]);
        assert_eq!(find(Filter { until: 1, ..Filter::default() }), [0_i64; 0]);
        assert_eq!(ids(&store.list(&Filter::default(), 2).unwrap()), [4, 3]);
        let stats = store.stats(&Filter { action: "key.".into(), ..Filter::default() }).unwrap();
        assert_eq!(stats, [("key.create".into(), "ok".into(), 1), ("key.revoke".into(), "ok".into(), 1)]);
    }

    #[test]
    fn refused_attempts_do_not_push_out_what_was_done() {
        let store = store();
        store.add(&[Entry::ok("key.create")]).unwrap();
        let refused = Entry { result: Outcome::Denied, ..Entry::ok("login.password") };
        store.add(&vec![refused; 500]).unwrap();
        store.add(&[Entry::ok("key.revoke")]).unwrap();
        assert_eq!(store.purge(0, 100).unwrap(), 480);
        let rows = store.list(&Filter::default(), 1000).unwrap();
        assert_eq!((rows.len(), rows[0].action.as_str(), rows[21].action.as_str()), (22, "key.revoke", "key.create"));
        assert_eq!(store.purge(clock::unix_ms() + 60_000, 100).unwrap(), 22);
        assert_eq!(store.purge(0, 100).unwrap(), 0);
    }

    #[test]
    fn agents_do_not_push_out_what_people_did() {
        let store = store();
        store.add(&[Entry::ok("key.create")]).unwrap();
        store.add(&[Entry { result: Outcome::Denied, ..Entry::ok("login.password") }]).unwrap();
        let call = Entry { actor: "agent:default", ..Entry::ok("tool.call") };
        let failed = Entry { result: Outcome::Failed, ..call };
        let other = Entry { actor: "agent:default", ..Entry::ok("tool.add") };
        store.add(&vec![call; 200]).unwrap();
        store.add(&vec![failed; 200]).unwrap();
        store.add(&vec![other; 200]).unwrap();
        store.add(&vec![Entry::ok("kv.set"); 200]).unwrap();
        assert_eq!(store.purge(0, 100).unwrap(), 750);
        let rows = store.list(&Filter::default(), 1000).unwrap();
        assert_eq!(
            (rows.len(), rows[50].action.as_str(), rows[51].action.as_str()),
            (52, "login.password", "key.create")
        );
        store.add(&vec![Entry::ok("key.create"); 200]).unwrap();
        assert_eq!(store.purge(0, 100).unwrap(), 152);
    }

    #[test]
    fn texts_are_bounded_and_on_one_line() {
        let store = store();
        let long = "ä".repeat(1000);
        let entry = Entry { actor: "a\nb\u{1b}[31m", target: &long, detail: &long, source: &long, ..Entry::ok("x") };
        store.add(&[entry]).unwrap();
        let row = store.list(&Filter::default(), 1).unwrap().remove(0);
        assert_eq!(row.actor, "a b [31m");
        assert_eq!((row.target.len(), row.detail.len(), row.source.len()), (300, 500, 64));
    }
}
