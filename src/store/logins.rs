//! Dashboard logins that the server keeps track of (contract http-api 2.4, 3.6, 13.4: table `sessions`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rusqlite::{OptionalExtension, Row, params};

use crate::rt::{clock, lock};
use crate::store::{Db, StoreError, random_hex, time};

const COLUMNS: &str = "id, email, scopes, user_agent, ip, created_at, expires_at, last_seen_at";
const INSERT: &str = "INSERT INTO sessions(id, email, scopes, user_agent, ip, created_at, expires_at, last_seen_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?6)";
const DELETE: &str = "DELETE FROM sessions WHERE id = ?1";
const DELETE_ALL: &str = "DELETE FROM sessions WHERE email = ?1 AND id <> ?2";
const TOUCH: &str = "UPDATE sessions SET last_seen_at = ?2 WHERE id = ?1";
const PURGE: &str = "DELETE FROM sessions WHERE expires_at <= ?1";
const COUNT: &str = "SELECT count(*) FROM sessions WHERE expires_at > ?1";

/// One tracked login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// 64 hex digits.
    pub id: String,
    pub email: String,
    /// JSON array as stored; see [`scopes_from_record`].
    pub scopes: String,
    pub user_agent: String,
    pub ip: String,
    /// Milliseconds since 1970, like the other times.
    pub created_at: i64,
    pub expires_at: i64,
    pub last_seen_at: i64,
}

/// The scopes of a login; an unreadable list grants nothing.
pub fn scopes_from_record(record: &SessionRecord) -> Vec<String> {
    serde_json::from_str(&record.scopes).unwrap_or_default()
}

/// The logins of `holt.db`.
pub struct SessionStore {
    db: Arc<Db>,
    /// Guarded by the mutex: sightings that are not written yet, id to time.
    touched: Mutex<HashMap<String, i64>>,
}

impl SessionStore {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db, touched: Mutex::new(HashMap::new()) }
    }

    /// A store that lives in memory, for tests.
    pub fn in_memory() -> Result<Self, StoreError> {
        Ok(Self::new(Arc::new(Db::in_memory()?)))
    }

    /// Stores a login and returns its id. `expires_at` in milliseconds since 1970.
    pub fn create(
        &self,
        email: &str,
        scopes: &[String],
        user_agent: &str,
        ip: &str,
        expires_at: i64,
    ) -> Result<String, StoreError> {
        let id = random_hex::<32>()?;
        let scopes = serde_json::json!(scopes).to_string();
        let now = clock::rfc3339_s(clock::unix_ms());
        let expires = clock::rfc3339_s(expires_at);
        self.db.write(|tx| {
            tx.prepare_cached(INSERT)?.execute(params![id, email, scopes, user_agent, ip, now, expires])?;
            Ok(())
        })?;
        Ok(id)
    }

    /// The login of that id, unless it is unknown or expired.
    pub fn get(&self, id: &str) -> Result<Option<SessionRecord>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM sessions WHERE id = ?1");
            let found = conn.prepare_cached(&sql)?.query_row([id], record).optional()?;
            Ok(found.filter(|login| login.expires_at > clock::unix_ms()))
        })
    }

    /// The unexpired logins of an e-mail, most recently seen first.
    pub fn list_by_email(&self, email: &str) -> Result<Vec<SessionRecord>, StoreError> {
        self.db.read(|conn| {
            let sql = format!(
                "SELECT {COLUMNS} FROM sessions WHERE email = ?1 AND expires_at > ?2 ORDER BY last_seen_at DESC, rowid DESC"
            );
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map(params![email, clock::rfc3339_s(clock::unix_ms())], record)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Removes a login; an unknown id is fine.
    pub fn delete(&self, id: &str) -> Result<(), StoreError> {
        self.db.write(|tx| {
            tx.prepare_cached(DELETE)?.execute([id])?;
            Ok(())
        })
    }

    /// Removes all logins of an e-mail; how many there were.
    pub fn delete_all_by_email(&self, email: &str) -> Result<usize, StoreError> {
        self.delete_others(email, "")
    }

    /// Removes the logins of an e-mail but this one; how many there were.
    pub fn delete_others(&self, email: &str, id: &str) -> Result<usize, StoreError> {
        self.db.write(|tx| Ok(tx.prepare_cached(DELETE_ALL)?.execute([email, id])?))
    }

    /// Notes that the login was seen now; written with others by [`SessionStore::flush_touched`].
    pub fn touch(&self, id: &str) {
        let now = clock::unix_ms();
        let mut touched = lock(&self.touched);
        if let Some(at) = touched.get_mut(id) {
            *at = now;
        } else {
            touched.insert(id.to_owned(), now);
        }
    }

    /// Writes the noted sightings in one transaction.
    pub fn flush_touched(&self) -> Result<(), StoreError> {
        let touched = std::mem::take(&mut *lock(&self.touched));
        if touched.is_empty() {
            return Ok(());
        }
        self.db.write(|tx| {
            let mut statement = tx.prepare_cached(TOUCH)?;
            for (id, at) in &touched {
                statement.execute(params![id, clock::rfc3339_s(*at)])?;
            }
            Ok(())
        })
    }

    /// Removes expired logins; how many there were.
    pub fn purge_expired(&self) -> Result<usize, StoreError> {
        self.db.write(|tx| Ok(tx.prepare_cached(PURGE)?.execute([clock::rfc3339_s(clock::unix_ms())])?))
    }

    /// Unexpired logins of all e-mails.
    pub fn count(&self) -> Result<i64, StoreError> {
        self.db.read(|conn| {
            Ok(conn.prepare_cached(COUNT)?.query_row([clock::rfc3339_s(clock::unix_ms())], |row| row.get(0))?)
        })
    }

    /// Writes what is still noted. The file itself is closed with its [`Db`].
    pub fn close(&self) -> Result<(), StoreError> {
        self.flush_touched()
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<SessionRecord> {
    let ms = |index: usize| -> rusqlite::Result<i64> {
        Ok(row.get::<_, Option<String>>(index)?.as_deref().and_then(time::parse_ms).unwrap_or(0))
    };
    Ok(SessionRecord {
        id: row.get(0)?,
        email: row.get(1)?,
        scopes: row.get(2)?,
        user_agent: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
        ip: row.get::<_, Option<String>>(4)?.unwrap_or_default(),
        created_at: ms(5)?,
        expires_at: ms(6)?,
        last_seen_at: ms(7)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_expire_are_listed_and_removed() {
        let store = SessionStore::in_memory().unwrap();
        let soon = clock::unix_ms() + 3_600_000;
        let scopes = vec!["admin".to_owned()];
        let first = store.create("admin", &scopes, "browser", "192.0.2.1", soon).unwrap();
        let second = store.create("admin", &scopes, "phone", "192.0.2.2", soon).unwrap();
        let gone = store.create("admin", &scopes, "old", "192.0.2.3", clock::unix_ms() - 5_000).unwrap();
        assert_eq!(first.len(), 64);
        let record = store.get(&first).unwrap().unwrap();
        assert_eq!(scopes_from_record(&record), scopes);
        assert!(store.get(&gone).unwrap().is_none());
        assert_eq!(store.count().unwrap(), 2);
        assert_eq!(store.list_by_email("admin").unwrap().len(), 2);
        assert!(store.list_by_email("other").unwrap().is_empty());
        store.touch(&second);
        store.close().unwrap();
        store.delete(&first).unwrap();
        store.delete(&first).unwrap();
        assert_eq!(store.purge_expired().unwrap(), 1);
        assert_eq!(store.delete_all_by_email("admin").unwrap(), 1);
        assert_eq!(store.delete_all_by_email("admin").unwrap(), 0);
    }
}
