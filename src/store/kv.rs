//! The key-value store of agents (contract engine 7; W-43): small texts under names, each agent its own, some of them
//! for a time only. What has expired is gone at once, whether or not its row still is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::limits;
use crate::rt::clock;
use crate::store::{Db, StoreError, time};

const COLUMNS: &str = "key, value, created_at, updated_at, expires_at";
const UNEXPIRED: &str = "(expires_at IS NULL OR expires_at > ?2)";
const SET: &str = "INSERT INTO kv(agent_name, key, value, created_at, updated_at, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?4, ?5)
    ON CONFLICT(agent_name, key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at,
    expires_at = excluded.expires_at";
const DELETE: &str = "DELETE FROM kv WHERE agent_name = ?1 AND key = ?2";
const DELETE_EXPIRED_TWIN: &str = "DELETE FROM kv WHERE agent_name = ?1 AND key = ?3 AND expires_at <= ?2";
const DELETE_EXPIRED_OF: &str = "DELETE FROM kv WHERE agent_name = ?1 AND expires_at <= ?2";
const PURGE: &str = "DELETE FROM kv WHERE rowid IN
    (SELECT rowid FROM kv WHERE expires_at IS NOT NULL AND expires_at <= ?1 LIMIT ?2)";

/// What an agent may keep.
#[derive(Clone, Copy, Debug)]
pub struct KvLimits {
    /// Unexpired keys of one agent; None is unlimited.
    pub keys_max: Option<usize>,
    pub value_bytes_max: usize,
}

/// One stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvEntry {
    pub key: String,
    pub value: String,
    /// Milliseconds since 1970, like the other times.
    pub created_at: i64,
    pub updated_at: i64,
    pub expires_at: Option<i64>,
}

/// A part of a listing.
#[derive(Debug, Default)]
pub struct KvPage {
    /// By key.
    pub entries: Vec<KvEntry>,
    /// There is more behind the last entry.
    pub more: bool,
}

/// Why a value was not stored. `Display` is for whoever wanted to store it.
#[derive(Debug)]
pub enum KvError {
    /// The key is not one; says what it may be.
    Key(String),
    ValueTooLarge {
        bytes: usize,
        bytes_max: usize,
    },
    /// The agent has as many keys as it may have.
    Full {
        keys_max: usize,
    },
    Store(StoreError),
}

impl fmt::Display for KvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(reason) => f.write_str(reason),
            Self::ValueTooLarge { bytes, bytes_max } => {
                write!(f, "the value has {bytes} bytes, at most {bytes_max} are stored (kv.max_value_bytes)")
            }
            Self::Full { keys_max } => {
                write!(f, "this agent has {keys_max} keys already; delete some, or raise kv.max_keys_per_agent")
            }
            Self::Store(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for KvError {}

impl From<StoreError> for KvError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The values of all agents in `holt.db`.
pub struct KvStore {
    db: Arc<Db>,
    limits: KvLimits,
}

impl KvStore {
    pub fn new(db: Arc<Db>, limits: KvLimits) -> Self {
        Self { db, limits }
    }

    /// The agent's unexpired entries whose key begins with `prefix`, byte for byte, behind the key `after`; ends once
    /// keys and values have `bytes_max` bytes, but never before the first.
    pub fn list(&self, agent: &str, prefix: &str, after: &str, bytes_max: usize) -> Result<KvPage, StoreError> {
        self.db.read(|conn| {
            let sql = format!(
                "SELECT {COLUMNS} FROM kv WHERE agent_name = ?1 AND {UNEXPIRED} AND key >= ?3 AND key > ?4 ORDER BY key"
            );
            let mut statement = conn.prepare_cached(&sql)?;
            let mut rows = statement.query(params![agent, expiry_text(clock::unix_ms()), prefix, after])?;
            let mut page = KvPage::default();
            let mut bytes = 0;
            while let Some(row) = rows.next()? {
                let entry = entry(row)?;
                if !entry.key.starts_with(prefix) {
                    break; // keys are in the order of their bytes: no more of this prefix
                }
                bytes += entry.key.len() + entry.value.len();
                if bytes > bytes_max && !page.entries.is_empty() {
                    page.more = true;
                    break;
                }
                page.entries.push(entry);
            }
            Ok(page)
        })
    }

    /// The unexpired entry of that key.
    pub fn get(&self, agent: &str, key: &str) -> Result<Option<KvEntry>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM kv WHERE agent_name = ?1 AND {UNEXPIRED} AND key = ?3");
            let now = expiry_text(clock::unix_ms());
            Ok(conn.prepare_cached(&sql)?.query_row(params![agent, now, key], entry).optional()?)
        })
    }

    /// Stores a value, also over another; without `ttl` it stays. When it will expire, in milliseconds since 1970.
    /// Durable when this returns.
    pub fn set(&self, agent: &str, key: &str, value: &str, ttl: Option<Duration>) -> Result<Option<i64>, KvError> {
        self.check(key, value)?;
        let now = clock::unix_ms();
        let expires_at = ttl.map(|ttl| expiry(now, ttl));
        let stored = self.db.write(|tx| {
            if !self.has_room(tx, agent, key, now)? {
                return Ok(false);
            }
            // An expired twin is not there: its age must not be taken over.
            tx.prepare_cached(DELETE_EXPIRED_TWIN)?.execute(params![agent, expiry_text(now), key])?;
            insert(tx, agent, key, value, now, expires_at)?;
            Ok(true)
        })?;
        if stored { Ok(expires_at) } else { Err(self.full()) }
    }

    /// Stores a value unless there is one; whether it did. Of many that try at once exactly one succeeds.
    pub fn set_nx(&self, agent: &str, key: &str, value: &str, ttl: Option<Duration>) -> Result<bool, KvError> {
        self.check(key, value)?;
        let now = clock::unix_ms();
        let stored = self.db.write(|tx| {
            tx.prepare_cached(DELETE_EXPIRED_TWIN)?.execute(params![agent, expiry_text(now), key])?;
            if exists(tx, agent, key)? {
                return Ok(Some(false));
            }
            if !self.has_room(tx, agent, key, now)? {
                return Ok(None);
            }
            insert(tx, agent, key, value, now, ttl.map(|ttl| expiry(now, ttl)))?;
            Ok(Some(true))
        })?;
        stored.ok_or_else(|| self.full())
    }

    /// Removes a value; an unknown key is fine.
    pub fn delete(&self, agent: &str, key: &str) -> Result<(), StoreError> {
        self.db.write(|tx| {
            tx.prepare_cached(DELETE)?.execute(params![agent, key])?;
            Ok(())
        })
    }

    /// Removes the rows of what has expired, a bounded number in a transaction; how many.
    pub fn purge_expired(&self) -> Result<usize, StoreError> {
        let now = expiry_text(clock::unix_ms());
        let any = "SELECT EXISTS(SELECT 1 FROM kv WHERE expires_at IS NOT NULL AND expires_at <= ?1)";
        let mut purged = 0;
        // Asked first: a write without a change would still make every cached answer stale.
        while self.db.read(|conn| Ok(conn.prepare_cached(any)?.query_row([&now], |row| row.get::<_, bool>(0))?))? {
            purged +=
                self.db.write(|tx| Ok(tx.prepare_cached(PURGE)?.execute(params![now, limits::KV_PURGE_ROWS])?))?;
        }
        Ok(purged)
    }

    fn check(&self, key: &str, value: &str) -> Result<(), KvError> {
        check_key(key).map_err(KvError::Key)?;
        match value.len() {
            bytes if bytes > self.limits.value_bytes_max => {
                Err(KvError::ValueTooLarge { bytes, bytes_max: self.limits.value_bytes_max })
            }
            _ => Ok(()),
        }
    }

    /// Whether the agent may have that key. Expired rows do not count; where they fill the room they are removed, so
    /// that there are never more rows than keys are allowed.
    fn has_room(&self, tx: &Transaction<'_>, agent: &str, key: &str, now: i64) -> Result<bool, StoreError> {
        let Some(keys_max) = self.limits.keys_max else { return Ok(true) };
        let others = || -> Result<usize, StoreError> {
            let sql = "SELECT count(*) FROM kv WHERE agent_name = ?1 AND key <> ?2";
            let count: i64 = tx.prepare_cached(sql)?.query_row([agent, key], |row| row.get(0))?;
            Ok(usize::try_from(count).unwrap_or(usize::MAX))
        };
        if others()? < keys_max {
            return Ok(true);
        }
        tx.prepare_cached(DELETE_EXPIRED_OF)?.execute(params![agent, expiry_text(now)])?;
        // Who has more than a lowered limit allows may still change what is there.
        Ok(others()? < keys_max || exists(tx, agent, key)?)
    }

    fn full(&self) -> KvError {
        KvError::Full { keys_max: self.limits.keys_max.unwrap_or(usize::MAX) }
    }
}

/// Says what a key may be when `key` is none.
fn check_key(key: &str) -> Result<(), String> {
    if key.trim().is_empty() {
        return Err("the key must not be empty or blank".to_owned());
    }
    if key.len() > limits::KV_KEY_BYTES_MAX {
        return Err(format!("the key has {} bytes, at most {} are allowed", key.len(), limits::KV_KEY_BYTES_MAX));
    }
    if key.chars().any(char::is_control) {
        return Err("the key must not hold control characters".to_owned());
    }
    Ok(())
}

fn exists(conn: &Connection, agent: &str, key: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS(SELECT 1 FROM kv WHERE agent_name = ?1 AND key = ?2)";
    Ok(conn.prepare_cached(sql)?.query_row([agent, key], |row| row.get(0))?)
}

fn insert(
    tx: &Transaction<'_>,
    agent: &str,
    key: &str,
    value: &str,
    now: i64,
    expires_at: Option<i64>,
) -> Result<(), StoreError> {
    let expires = expires_at.map(expiry_text);
    tx.prepare_cached(SET)?.execute(params![agent, key, value, time::text(now), expires])?;
    Ok(())
}

/// Never the very moment of writing, however short the time.
fn expiry(now: i64, ttl: Duration) -> i64 {
    now.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX).max(1)).min(EXPIRY_MAX)
}

/// The last millisecond of the year 9999: later times have no spelling.
const EXPIRY_MAX: i64 = 253_402_207_200_000 - 1;

/// The contract's spelling of this column with a fraction behind it, so that it sorts among times without one.
pub(super) fn expiry_text(unix_ms: i64) -> String {
    time::text(unix_ms).replace('T', " ").trim_end_matches('Z').to_owned()
}

fn entry(row: &Row<'_>) -> rusqlite::Result<KvEntry> {
    let time_of = |text: Option<String>| text.as_deref().and_then(time::parse_ms);
    Ok(KvEntry {
        key: row.get(0)?,
        value: row.get(1)?,
        created_at: time_of(row.get(2)?).unwrap_or(0),
        updated_at: time_of(row.get(3)?).unwrap_or(0),
        expires_at: time_of(row.get(4)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: usize = usize::MAX;

    fn store(keys_max: Option<usize>) -> KvStore {
        KvStore::new(Arc::new(Db::in_memory().unwrap()), KvLimits { keys_max, value_bytes_max: 16 })
    }

    fn keys(store: &KvStore, agent: &str, prefix: &str) -> Vec<String> {
        store.list(agent, prefix, "", ALL).unwrap().entries.into_iter().map(|entry| entry.key).collect()
    }

    /// Lets a key expire, as time would.
    fn expire(store: &KvStore, key: &str) {
        let past = expiry_text(clock::unix_ms() - 1);
        let sql = "UPDATE kv SET expires_at = ?2 WHERE key = ?1";
        assert_eq!(store.db.write(|tx| Ok(tx.execute(sql, [key, &past])?)).unwrap(), 1);
    }

    #[test]
    fn values_are_kept_replaced_and_deleted_per_agent() {
        let store = store(None);
        assert_eq!(store.set("a", "k", "1", None).unwrap(), None);
        store.set("b", "k", "other", None).unwrap();
        let first = store.get("a", "k").unwrap().unwrap();
        let until = store.set("a", "k", "2", Some(Duration::from_secs(3600))).unwrap();
        let second = store.get("a", "k").unwrap().unwrap();
        assert_eq!((second.value.as_str(), second.created_at), ("2", first.created_at));
        assert_eq!(second.expires_at, until);
        assert!(until.unwrap() > clock::unix_ms() + 3_500_000);
        // Setting without a time takes the old one away.
        store.set("a", "k", "3", None).unwrap();
        assert_eq!(store.get("a", "k").unwrap().unwrap().expires_at, None);
        store.delete("a", "k").unwrap();
        store.delete("a", "k").unwrap();
        assert!(store.get("a", "k").unwrap().is_none());
        assert_eq!(store.get("b", "k").unwrap().unwrap().value, "other");
    }

    #[test]
    fn a_prefix_is_bytes_and_nothing_else() {
        let store = store(None);
        for key in ["a%", "a_", "ab", "A", "ä/1", "ä/2", "äz", "a", "\u{10ffff}"] {
            store.set("x", key, "", None).unwrap();
        }
        let mut sorted = ["a%", "a_", "ab", "A", "ä/1", "ä/2", "äz", "a", "\u{10ffff}"];
        sorted.sort_unstable();
        assert_eq!(keys(&store, "x", ""), sorted);
        for (prefix, expected) in [
            ("a", vec!["a", "a%", "a_", "ab"]),
            ("a_", vec!["a_"]),
            ("%", vec![]),
            ("ä/", vec!["ä/1", "ä/2"]),
            ("\u{10ffff}", vec!["\u{10ffff}"]),
        ] {
            assert_eq!(keys(&store, "x", prefix), expected, "{prefix}");
        }
    }

    #[test]
    fn long_listings_come_in_parts() {
        let store = store(None);
        for key in ["p/1", "p/2", "p/3", "q"] {
            store.set("x", key, "0123456789", None).unwrap();
        }
        let first = store.list("x", "p/", "", 26).unwrap();
        assert_eq!((first.entries.len(), first.more), (2, true));
        let rest = store.list("x", "p/", &first.entries[1].key, 1).unwrap();
        assert_eq!((rest.entries.len(), rest.more, rest.entries[0].key.as_str()), (1, false, "p/3"));
    }

    #[test]
    fn what_expired_is_gone_at_once_and_does_not_count() {
        let store = store(Some(2));
        store.set("x", "lock", "1", Some(Duration::from_secs(9))).unwrap();
        store.set("x", "other", "1", None).unwrap();
        assert!(matches!(store.set("x", "third", "1", None), Err(KvError::Full { keys_max: 2 })));
        assert!(matches!(store.set_nx("x", "third", "1", None), Err(KvError::Full { .. })));
        assert!(!store.set_nx("x", "lock", "2", None).unwrap());
        store.set("x", "other", "2", None).unwrap();
        store.set("y", "theirs", "1", None).unwrap();

        expire(&store, "lock");
        assert!(store.get("x", "lock").unwrap().is_none());
        assert_eq!(keys(&store, "x", ""), ["other"]);
        store.set("x", "third", "1", None).unwrap();
        assert!(matches!(store.set_nx("x", "lock", "2", None), Err(KvError::Full { .. })));
        expire(&store, "third");
        assert!(store.set_nx("x", "lock", "2", None).unwrap());
    }

    #[test]
    fn an_expired_twin_is_replaced_and_leaves_no_age() {
        let store = store(None);
        store.set("x", "k", "1", Some(Duration::from_secs(9))).unwrap();
        store.db.write(|tx| Ok(tx.execute("UPDATE kv SET created_at = '2020-01-01 00:00:00'", [])?)).unwrap();
        expire(&store, "k");
        store.set("x", "k", "2", None).unwrap();
        assert!(store.get("x", "k").unwrap().unwrap().created_at > 1_700_000_000_000);
        store.set("x", "gone", "1", Some(Duration::from_nanos(1))).unwrap();
        expire(&store, "gone");
        assert_eq!((store.purge_expired().unwrap(), store.purge_expired().unwrap()), (1, 0));
        assert_eq!(keys(&store, "x", ""), ["k"]);
    }

    #[test]
    fn times_without_a_fraction_sort_among_ours() {
        let store = store(None);
        for (key, expires) in [("past", "2026-01-02 03:04:05"), ("future", "2999-01-01 00:00:00")] {
            store.set("x", key, "1", None).unwrap();
            store
                .db
                .write(|tx| Ok(tx.execute("UPDATE kv SET expires_at = ?2 WHERE key = ?1", [key, expires])?))
                .unwrap();
        }
        assert_eq!(keys(&store, "x", ""), ["future"]);
        assert_eq!(expiry_text(1_767_323_045_007), "2026-01-02 03:04:05.007");
        assert!(expiry(0, Duration::MAX) == EXPIRY_MAX && time::text(EXPIRY_MAX).starts_with("9999-12-"));
    }

    #[test]
    fn bad_keys_and_values_are_refused_with_what_is_allowed() {
        let store = store(None);
        let long = "k".repeat(limits::KV_KEY_BYTES_MAX + 1);
        for key in ["", " \t", "a\nb", "a\0b", "a\u{7f}b", &long] {
            assert!(matches!(store.set("x", key, "", None), Err(KvError::Key(_))), "{key:?}");
        }
        store.set("x", &long[1..], &"v".repeat(16), None).unwrap();
        let error = store.set("x", "k", &"v".repeat(17), None).unwrap_err();
        assert_eq!(error.to_string(), "the value has 17 bytes, at most 16 are stored (kv.max_value_bytes)");
    }
}
