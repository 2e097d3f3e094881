//! API keys (contract http-api 2.3, 3.5): `dk_` + 32 random bytes, stored as a hash.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use sha2::{Digest, Sha256};

use crate::rt::{clock, lock};
use crate::store::{Db, StoreError, hex, meta, random_hex, time};

const COLUMNS: &str = "id, name, scopes, created_at, last_used_at, revoked_at";
const INSERT: &str = "INSERT INTO api_keys(id, name, key_hash, scopes, created_at) VALUES (?1, ?2, ?3, ?4, ?5)";
const REVOKE: &str = "UPDATE api_keys SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL";
const DELETE: &str = "DELETE FROM api_keys WHERE id = ?1 AND revoked_at IS NOT NULL";
const HAS_ACTIVE: &str = "SELECT EXISTS(SELECT 1 FROM api_keys WHERE revoked_at IS NULL
    AND id NOT IN (SELECT value FROM meta WHERE key = 'cli_key'))";
const TOUCH: &str = "UPDATE api_keys SET last_used_at = ?2 WHERE id = ?1";

/// The public face of a key: no hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyRecord {
    pub id: String,
    pub name: String,
    pub scopes: Vec<String>,
    /// Milliseconds since 1970, like the other times.
    pub created_at: i64,
    pub last_used_at: Option<i64>,
    pub revoked: bool,
}

/// The keys of `holt.db`.
pub struct KeyStore {
    db: Arc<Db>,
    /// Guarded by the mutex: uses that are not written yet, id to time.
    touched: Mutex<HashMap<String, i64>>,
}

impl KeyStore {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db, touched: Mutex::new(HashMap::new()) }
    }

    /// A store that lives in memory, for tests.
    pub fn in_memory() -> Result<Self, StoreError> {
        Ok(Self::new(Arc::new(Db::in_memory()?)))
    }

    /// Makes a key; the plaintext is returned once and kept nowhere.
    pub fn create(&self, name: &str, scopes: &[String]) -> Result<(ApiKeyRecord, String), StoreError> {
        self.db.write(|tx| insert(tx, name, scopes))
    }

    /// Makes the first key, only while `may` allows it inside the same transaction; setup counts as done afterwards.
    /// None when it was refused, so that of many concurrent calls exactly one succeeds.
    pub fn create_first(
        &self,
        name: &str,
        scopes: &[String],
        may: impl FnOnce(&Transaction<'_>) -> Result<bool, StoreError>,
    ) -> Result<Option<(ApiKeyRecord, String)>, StoreError> {
        self.db.write(|tx| {
            if !may(tx)? {
                return Ok(None);
            }
            meta::set(tx, meta::SETUP_DONE, &time::now_text())?;
            meta::delete(tx, meta::SETUP_PIN)?;
            insert(tx, name, scopes).map(Some)
        })
    }

    /// All keys, newest first, revoked ones included.
    pub fn list(&self) -> Result<Vec<ApiKeyRecord>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM api_keys ORDER BY created_at DESC, rowid DESC");
            let mut statement = conn.prepare_cached(&sql)?;
            let rows = statement.query_map([], record)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The active key with that hash ([`hash_key`]).
    pub fn find_active_by_hash(&self, hash: &str) -> Result<Option<ApiKeyRecord>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM api_keys WHERE key_hash = ?1 AND revoked_at IS NULL");
            Ok(conn.prepare_cached(&sql)?.query_row([hash], record).optional()?)
        })
    }

    /// Notes that the key was used now; written with others by [`KeyStore::flush_touched`].
    pub fn touch_last_used(&self, id: &str) {
        let now = clock::unix_ms();
        let mut touched = lock(&self.touched);
        if let Some(at) = touched.get_mut(id) {
            *at = now;
        } else {
            touched.insert(id.to_owned(), now);
        }
    }

    /// Writes the noted uses in one transaction.
    pub fn flush_touched(&self) -> Result<(), StoreError> {
        let touched = std::mem::take(&mut *lock(&self.touched));
        if touched.is_empty() {
            return Ok(());
        }
        self.db.write(|tx| {
            let mut statement = tx.prepare_cached(TOUCH)?;
            for (id, at) in &touched {
                statement.execute(params![id, time::text(*at)])?;
            }
            Ok(())
        })
    }

    /// Revokes; `NotFound` for an unknown or already revoked key.
    pub fn revoke(&self, id: &str) -> Result<(), StoreError> {
        self.db.write(|tx| revoke(tx, id))
    }

    /// Makes the key that `holt chat` uses on the hub's own machine. It takes the place of the one before and does not
    /// count as a credential that somebody set up ([`KeyStore::has_active_key`]).
    pub fn create_for_cli(&self, name: &str, scopes: &[String]) -> Result<(ApiKeyRecord, String), StoreError> {
        self.db.write(|tx| {
            if let Some(old) = meta::get(tx, meta::CLI_KEY)? {
                // Its plaintext is lost; it may also be revoked or deleted already.
                tx.prepare_cached(REVOKE)?.execute(params![old, time::now_text()])?;
            }
            let (record, plaintext) = insert(tx, name, scopes)?;
            meta::set(tx, meta::CLI_KEY, &record.id)?;
            Ok((record, plaintext))
        })
    }

    /// Whether an unrevoked key exists that somebody made: the one of [`KeyStore::create_for_cli`] is none.
    pub fn has_active_key(&self) -> Result<bool, StoreError> {
        self.db.read(|conn| Ok(conn.prepare_cached(HAS_ACTIVE)?.query_row([], |row| row.get(0))?))
    }

    /// Removes a revoked key for good; `NotFound` for an unknown or still active one.
    pub fn delete(&self, id: &str) -> Result<(), StoreError> {
        self.db.write(|tx| match tx.prepare_cached(DELETE)?.execute([id])? {
            0 => Err(StoreError::NotFound),
            _ => Ok(()),
        })
    }

    /// Revokes a key and makes its successor with the same name and scopes, in one transaction (W-39).
    pub fn rotate(&self, id: &str) -> Result<(ApiKeyRecord, String), StoreError> {
        self.db.write(|tx| {
            let sql = format!("SELECT {COLUMNS} FROM api_keys WHERE id = ?1 AND revoked_at IS NULL");
            let old = tx.prepare_cached(&sql)?.query_row([id], record)?;
            revoke(tx, id)?;
            insert(tx, &old.name, &old.scopes)
        })
    }
}

/// Lower-case hex SHA-256 of the whole plaintext, `dk_` included.
pub fn hash_key(plaintext: &str) -> String {
    hex(&Sha256::digest(plaintext.as_bytes()))
}

fn insert(tx: &Transaction<'_>, name: &str, scopes: &[String]) -> Result<(ApiKeyRecord, String), StoreError> {
    let mut secret = [0_u8; 32];
    getrandom::fill(&mut secret).map_err(|_| StoreError::Random)?;
    let plaintext = format!("dk_{}", URL_SAFE_NO_PAD.encode(secret));
    let record = ApiKeyRecord {
        id: random_hex::<8>()?,
        name: name.to_owned(),
        scopes: scopes.to_vec(),
        created_at: clock::unix_ms(),
        last_used_at: None,
        revoked: false,
    };
    let scopes_json = serde_json::json!(scopes).to_string();
    tx.prepare_cached(INSERT)?.execute(params![
        record.id,
        name,
        hash_key(&plaintext),
        scopes_json,
        time::text(record.created_at)
    ])?;
    Ok((record, plaintext))
}

fn revoke(tx: &Transaction<'_>, id: &str) -> Result<(), StoreError> {
    match tx.prepare_cached(REVOKE)?.execute(params![id, time::now_text()])? {
        0 => Err(StoreError::NotFound),
        _ => Ok(()),
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<ApiKeyRecord> {
    let scopes: String = row.get(2)?;
    let created: String = row.get(3)?;
    let used: Option<String> = row.get(4)?;
    Ok(ApiKeyRecord {
        id: row.get(0)?,
        name: row.get(1)?,
        scopes: serde_json::from_str(&scopes).unwrap_or_default(),
        created_at: time::parse_ms(&created).unwrap_or(0),
        last_used_at: used.as_deref().and_then(time::parse_ms),
        revoked: row.get::<_, Option<String>>(5)?.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(list: &[&str]) -> Vec<String> {
        list.iter().map(|&scope| scope.to_owned()).collect()
    }

    #[test]
    fn a_key_lives_from_creation_to_deletion() {
        let keys = KeyStore::in_memory().unwrap();
        assert!(!keys.has_active_key().unwrap());
        let (record, plaintext) = keys.create("laptop", &scopes(&["chat", "chat"])).unwrap();
        assert_eq!(plaintext.len(), 46);
        assert!(plaintext.starts_with("dk_"));
        assert_eq!(record.scopes, scopes(&["chat", "chat"]));
        let found = keys.find_active_by_hash(&hash_key(&plaintext)).unwrap().unwrap();
        assert_eq!(found, record);
        keys.touch_last_used(&record.id);
        keys.flush_touched().unwrap();
        assert!(keys.list().unwrap()[0].last_used_at.is_some());

        let (second, plaintext2) = keys.rotate(&record.id).unwrap();
        assert!(keys.find_active_by_hash(&hash_key(&plaintext)).unwrap().is_none());
        assert_eq!((second.name.as_str(), &second.scopes), ("laptop", &record.scopes));
        assert!(keys.find_active_by_hash(&hash_key(&plaintext2)).unwrap().is_some());
        assert!(matches!(keys.rotate(&record.id), Err(StoreError::NotFound)));

        assert!(matches!(keys.delete(&second.id), Err(StoreError::NotFound)));
        keys.revoke(&second.id).unwrap();
        assert!(matches!(keys.revoke(&second.id), Err(StoreError::NotFound)));
        keys.delete(&second.id).unwrap();
        assert_eq!(keys.list().unwrap().iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), [record.id.as_str()]);
        assert!(!keys.has_active_key().unwrap());
    }

    #[test]
    fn the_key_of_the_command_line_replaces_itself_and_is_no_setup() {
        let keys = KeyStore::in_memory().unwrap();
        let (first, plaintext) = keys.create_for_cli("holt chat on pi", &scopes(&["chat"])).unwrap();
        assert!(!keys.has_active_key().unwrap());
        assert_eq!(keys.find_active_by_hash(&hash_key(&plaintext)).unwrap().map(|key| key.id), Some(first.id.clone()));
        let (second, _) = keys.create_for_cli("holt chat on pi", &scopes(&["chat"])).unwrap();
        assert!(keys.find_active_by_hash(&hash_key(&plaintext)).unwrap().is_none());
        assert!(matches!(keys.revoke(&first.id), Err(StoreError::NotFound)));
        keys.create("admin", &scopes(&["admin"])).unwrap();
        assert!(keys.has_active_key().unwrap());
        keys.revoke(&second.id).unwrap();
    }

    #[test]
    fn the_first_key_is_made_once() {
        let keys = KeyStore::in_memory().unwrap();
        let may = |tx: &Transaction<'_>| Ok(meta::get(tx, meta::SETUP_DONE)?.is_none());
        assert!(keys.create_first("admin", &scopes(&["admin"]), may).unwrap().is_some());
        assert!(keys.create_first("admin", &scopes(&["admin"]), may).unwrap().is_none());
        assert_eq!(keys.list().unwrap().len(), 1);
    }
}
