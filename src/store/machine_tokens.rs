//! Tokens of machines: 32 random bytes behind a prefix, stored as hashes. A token has at most one successor: it was
//! handed out and takes the token's place when it is used for the first time.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::{OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

use crate::rt::clock;
use crate::store::machines::{MachineState, MachineStore, state_of};
use crate::store::{StoreError, hex};

/// In place of a hash: a new token is to be handed out at the next chance.
pub(super) const WANTED: &str = "wanted";
/// A rotated token stays good for this long after its successor was handed out.
const ROTATED_MS: i64 = 10 * 60_000;

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOwner {
    pub id: String,
    pub state: MachineState,
    /// It is the successor that was handed out, not used before.
    pub is_next: bool,
}

impl MachineStore {
    /// Whose token has that hash ([`hash_token`]). A machine with the shared token has none.
    pub fn owner_of(&self, hash: &str) -> Result<Option<TokenOwner>, StoreError> {
        let sql = "SELECT id, state, token_hash = ?1 FROM machines WHERE state <> 'revoked' AND (next_token_hash = ?1
            OR (token_hash = ?1 AND (token_until <= 0 OR token_until > ?2)))";
        self.db.read(|conn| {
            let mut statement = conn.prepare_cached(sql)?;
            let owner = |row: &Row<'_>| {
                let (state, is_current): (String, bool) = (row.get(1)?, row.get(2)?);
                Ok(TokenOwner { id: row.get(0)?, state: state_of(&state), is_next: !is_current })
            };
            Ok(statement.query_row(params![hash, clock::unix_ms()], owner).optional()?)
        })
    }

    /// The successor with that hash was used: it takes its predecessor's place. Nothing happens the second time.
    pub fn promote_token(&self, id: &str, hash: &str) -> Result<(), StoreError> {
        self.db.write(|tx| {
            tx.execute(
                "UPDATE machines SET token_hash = ?2, next_token_hash = '', token_until = 0
                WHERE id = ?1 AND next_token_hash = ?2",
                [id, hash],
            )?;
            Ok(())
        })
    }

    /// Makes a successor for a machine's token, if one is wanted or was handed out in vain; its plaintext. None when
    /// the machine needs none.
    pub fn hand_out_token(&self, id: &str) -> Result<Option<String>, StoreError> {
        let sql = "UPDATE machines SET next_token_hash = ?2 WHERE id = ?1 AND state = 'approved'
            AND next_token_hash <> '' AND credential = 'token'";
        let needed = "SELECT next_token_hash <> '' FROM machines WHERE id = ?1";
        let is_needed =
            self.db.read(|conn| Ok(conn.query_row(needed, [id], |row| row.get::<_, bool>(0)).optional()?))?;
        if is_needed != Some(true) {
            return Ok(None);
        }
        let plaintext = new_secret("hm_")?;
        self.db.write(|tx| {
            // The time of a rotated token begins to run once, however often its successor is lost.
            tx.execute(
                "UPDATE machines SET token_until = ?2 WHERE id = ?1 AND token_until < 0",
                params![id, clock::unix_ms() + ROTATED_MS],
            )?;
            let changed = tx.execute(sql, params![id, hash_token(&plaintext)])?;
            Ok((changed > 0).then_some(plaintext))
        })
    }

    /// Has a new token handed out at the next chance: now, if the machine is connected. The old one is good for ten
    /// minutes after that. `NotFound` for machines that are not approved or use the shared token.
    pub fn rotate(&self, id: &str) -> Result<(), StoreError> {
        self.change(
            "UPDATE machines SET next_token_hash = ?2, token_until = -1
            WHERE id = ?1 AND state = 'approved' AND credential = 'token'",
            params![id, WANTED],
        )
    }
}

/// Lower-case hex SHA-256 of a whole token.
pub fn hash_token(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

/// A prefix and 32 random bytes in base64.
pub(super) fn new_secret(prefix: &str) -> Result<String, StoreError> {
    let mut secret = [0_u8; 32];
    getrandom::fill(&mut secret).map_err(|_| StoreError::Random)?;
    // No `_`: it separates a join code from its fingerprint.
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(secret).replace('_', "-")))
}
