//! Join codes: whoever shows one becomes a machine of the fleet, once.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, params};

use crate::rt::clock;
use crate::store::machine_tokens::{hash_token, new_secret};
use crate::store::machines::{join, text_of};
use crate::store::{Db, StoreError, random_hex};

const COLUMNS: &str = "id, name, labels, created_by, created_at, expires_at, machine_id, used_at";
/// Used and expired codes are shown for this long.
const KEPT_MS: i64 = 7 * 24 * 3_600_000;

/// A join code without its secret. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinCode {
    pub id: String,
    /// Becomes the display name of the machine; may be empty.
    pub name: String,
    /// Become the machine's own labels.
    pub labels: BTreeMap<String, String>,
    pub created_by: String,
    pub created_at: i64,
    pub expires_at: i64,
    /// Who used it, if anybody.
    pub machine_id: String,
    pub used_at: Option<i64>,
}

/// The join codes of `holt.db`.
#[derive(Clone)]
pub struct JoinCodeStore {
    db: Arc<Db>,
}

impl JoinCodeStore {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// Makes a code that is good for `ttl_ms`; its secret (`hj_...`) is returned once and kept nowhere. What people
    /// type is [`join_code`] of it.
    pub fn create(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        ttl_ms: i64,
        by: &str,
    ) -> Result<(JoinCode, String), StoreError> {
        let secret = new_secret("hj_")?;
        let now = clock::unix_ms();
        let code = JoinCode {
            id: random_hex::<8>()?,
            name: name.to_owned(),
            labels: labels.clone(),
            created_by: by.to_owned(),
            created_at: now,
            expires_at: now.saturating_add(ttl_ms),
            machine_id: String::new(),
            used_at: None,
        };
        self.db.write(|tx| {
            tx.execute(
                "INSERT INTO join_codes(id, code_hash, name, labels, created_by, created_at, expires_at)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![code.id, hash_token(&secret), name, text_of(labels), by, now, code.expires_at],
            )?;
            Ok(())
        })?;
        Ok((code, secret))
    }

    /// All codes, newest first.
    pub fn list(&self) -> Result<Vec<JoinCode>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM join_codes ORDER BY created_at DESC, id");
            let mut statement = conn.prepare_cached(&sql)?;
            Ok(statement.query_map([], code)?.collect::<Result<_, _>>()?)
        })
    }

    /// Removes a code, used or not. `NotFound` for an unknown one.
    pub fn delete(&self, id: &str) -> Result<(), StoreError> {
        self.db.write(|tx| match tx.execute("DELETE FROM join_codes WHERE id = ?1", [id])? {
            0 => Err(StoreError::NotFound),
            _ => Ok(()),
        })
    }

    /// Makes that machine one of the fleet with the code of that hash; false when the code is unknown, used or
    /// expired. A machine that was known before begins anew under its id, unless it is approved: then a code of
    /// somebody else's takes nothing away from it.
    pub fn redeem(&self, hash: &str, machine_id: &str) -> Result<bool, StoreError> {
        self.db.write(|tx| {
            let sql = "SELECT id, labels, name, created_by FROM join_codes
                WHERE code_hash = ?1 AND used_at IS NULL AND expires_at > ?2";
            let now = clock::unix_ms();
            let text = |row: &Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, String>(3)?]);
            let Some([id, labels, name, by]) = tx.query_row(sql, params![hash, now], text).optional()? else {
                return Ok(false);
            };
            let taken =
                "SELECT EXISTS(SELECT 1 FROM machines WHERE id = ?1 AND state = 'approved' AND credential = 'token')";
            if tx.query_row(taken, [machine_id], |row| row.get(0))? {
                return Ok(false);
            }
            join(tx, machine_id, hash, &labels, &name, &by)?;
            tx.execute(
                "UPDATE join_codes SET machine_id = ?2, used_at = ?3 WHERE id = ?1",
                params![id, machine_id, now],
            )?;
            Ok(true)
        })
    }

    /// Removes codes that have long been of no use.
    pub fn purge(&self) -> Result<usize, StoreError> {
        let before = clock::unix_ms() - KEPT_MS;
        self.db.write(|tx| Ok(tx.execute("DELETE FROM join_codes WHERE expires_at < ?1", [before])?))
    }
}

/// What people type on the machine: the secret, and the hub's fingerprint for the machine to check.
pub fn join_code(secret: &str, fingerprint: &str) -> String {
    format!("{secret}_{fingerprint}")
}

/// Secret and fingerprint of a typed code; the fingerprint is empty when there is none. None when it is no join code.
pub fn split_join_code(code: &str) -> Option<(&str, &str)> {
    let rest = code.strip_prefix("hj_")?;
    match rest.rsplit_once('_') {
        Some((secret, fingerprint)) => Some((&code[..3 + secret.len()], fingerprint)),
        None => Some((code, "")),
    }
}

fn code(row: &Row<'_>) -> rusqlite::Result<JoinCode> {
    Ok(JoinCode {
        id: row.get(0)?,
        name: row.get(1)?,
        labels: serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default(),
        created_by: row.get(3)?,
        created_at: row.get(4)?,
        expires_at: row.get(5)?,
        machine_id: row.get(6)?,
        used_at: row.get(7)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MachineStore;

    #[test]
    fn a_code_is_good_once_and_not_for_ever() {
        let db = Arc::new(Db::in_memory().unwrap());
        let (codes, machines) = (JoinCodeStore::new(Arc::clone(&db)), MachineStore::new(db));
        let labels = BTreeMap::from([("site".to_owned(), "home".to_owned())]);
        let (made, secret) = codes.create("pi", &labels, 60_000, "cli").unwrap();
        let typed = join_code(&secret, "00ff");
        assert_eq!(split_join_code(&typed), Some((secret.as_str(), "00ff")));
        assert_eq!(split_join_code(&secret), Some((secret.as_str(), "")));
        assert_eq!(split_join_code("hm_x"), None);
        let hash = hash_token(&secret);
        assert!(!codes.redeem(&hash_token("hj_other"), "a").unwrap());
        assert!(codes.redeem(&hash, "a").unwrap());
        assert!(!codes.redeem(&hash, "a").unwrap() && !codes.redeem(&hash, "b").unwrap());
        assert_eq!(codes.list().unwrap()[0].machine_id, "a");
        let machine = machines.get("a").unwrap().unwrap();
        assert_eq!((machine.name(), &machine.own_labels), ("pi", &labels));
        // Until its own token is used, the code is the machine's token.
        assert!(machines.owner_of(&hash).unwrap().is_some());
        let token = machines.hand_out_token("a").unwrap().unwrap();
        machines.promote_token("a", &hash_token(&token)).unwrap();
        assert!(machines.owner_of(&hash).unwrap().is_none());

        let (_, late) = codes.create("", &BTreeMap::new(), -1, "cli").unwrap();
        assert!(!codes.redeem(&hash_token(&late), "b").unwrap());
        // An approved machine is not taken over; a revoked one may come back.
        let (_, second) = codes.create("", &BTreeMap::new(), 60_000, "cli").unwrap();
        assert!(!codes.redeem(&hash_token(&second), "a").unwrap());
        machines.revoke("a").unwrap();
        assert!(codes.redeem(&hash_token(&second), "a").unwrap());
        assert!(machines.owner_of(&hash_token(&token)).unwrap().is_none());
        codes.delete(&made.id).unwrap();
        assert!(matches!(codes.delete(&made.id), Err(StoreError::NotFound)));
    }
}
