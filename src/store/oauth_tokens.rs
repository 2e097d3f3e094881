//! Tokens of tool servers that want a login (contract http-api 13.4, engine 8.8). What is secret is sealed by whoever
//! calls: this file sees bytes.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, params};

use crate::rt::clock;
use crate::store::{Db, StoreError, time};

const GET: &str = "SELECT access_token, refresh_token, token_type, expiry, scopes, client_id, client_secret, token_url,
    auth_style, resource_url, updated_at FROM oauth_tokens WHERE tool_name = ?1";
const PUT: &str =
    "INSERT INTO oauth_tokens(tool_name, access_token, refresh_token, token_type, expiry, scopes, client_id,
    client_secret, token_url, auth_style, resource_url, created_at, updated_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12)
    ON CONFLICT(tool_name) DO UPDATE SET access_token = excluded.access_token,
    refresh_token = excluded.refresh_token, token_type = excluded.token_type, expiry = excluded.expiry,
    scopes = excluded.scopes, client_id = excluded.client_id, client_secret = excluded.client_secret,
    token_url = excluded.token_url, auth_style = excluded.auth_style, resource_url = excluded.resource_url,
    updated_at = excluded.updated_at";

/// One tool server's token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OauthTokenRow {
    /// Sealed, like the other two.
    pub access_token: Vec<u8>,
    pub refresh_token: Option<Vec<u8>>,
    pub token_type: String,
    /// Milliseconds since 1970; None: it does not say.
    pub expires_at: Option<i64>,
    /// With blanks between.
    pub scopes: String,
    pub client_id: String,
    pub client_secret: Option<Vec<u8>>,
    pub token_url: String,
    /// 0 is auto, 1 in the form, 2 in a header.
    pub auth_style: i64,
    /// What the token is for.
    pub resource_url: String,
    /// Milliseconds since 1970.
    pub updated_at: i64,
}

/// The table `oauth_tokens` of `holt.db`.
pub struct OauthTokenRows {
    db: Arc<Db>,
}

impl OauthTokenRows {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    pub fn get(&self, tool: &str) -> Result<Option<OauthTokenRow>, StoreError> {
        self.db.read(|conn| Ok(conn.prepare_cached(GET)?.query_row([tool], row).optional()?))
    }

    /// Stores a token in place of an older one; durable when this returns.
    pub fn put(&self, tool: &str, token: &OauthTokenRow) -> Result<(), StoreError> {
        let expiry = token.expires_at.map(time::text);
        self.db.write(|tx| {
            tx.prepare_cached(PUT)?.execute(params![
                tool,
                token.access_token,
                token.refresh_token,
                token.token_type,
                expiry,
                token.scopes,
                token.client_id,
                token.client_secret,
                token.token_url,
                token.auth_style,
                token.resource_url,
                time::now_text(),
            ])?;
            Ok(())
        })
    }

    /// Forgets a token; whether there was one.
    pub fn delete(&self, tool: &str) -> Result<bool, StoreError> {
        // Asked first: a write without a change would still make every cached answer stale.
        if self.get(tool)?.is_none() {
            return Ok(false);
        }
        self.db.write(|tx| Ok(tx.prepare_cached("DELETE FROM oauth_tokens WHERE tool_name = ?1")?.execute([tool])? > 0))
    }
}

fn row(row: &Row<'_>) -> rusqlite::Result<OauthTokenRow> {
    let text = |index: usize| row.get::<_, Option<String>>(index).map(Option::unwrap_or_default);
    Ok(OauthTokenRow {
        access_token: row.get(0)?,
        refresh_token: row.get(1)?,
        token_type: text(2)?,
        // A time that nobody can read has passed.
        expires_at: row.get::<_, Option<String>>(3)?.map(|text| time::parse_ms(&text).unwrap_or(0)),
        scopes: text(4)?,
        client_id: text(5)?,
        client_secret: row.get(6)?,
        token_url: text(7)?,
        auth_style: row.get::<_, Option<i64>>(8)?.unwrap_or(0),
        resource_url: text(9)?,
        updated_at: time::parse_ms(&text(10)?).unwrap_or_else(clock::unix_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_kept_replaced_and_forgotten() {
        let rows = OauthTokenRows::new(Arc::new(Db::in_memory().unwrap()));
        assert_eq!(rows.get("t").unwrap(), None);
        assert!(!rows.delete("t").unwrap());
        let mut token = OauthTokenRow {
            access_token: vec![1, 2],
            refresh_token: Some(vec![3]),
            token_type: "Bearer".into(),
            expires_at: Some(1_700_000_000_123),
            scopes: "a b".into(),
            token_url: "https://e/token".into(),
            auth_style: 2,
            ..OauthTokenRow::default()
        };
        rows.put("t", &token).unwrap();
        token.refresh_token = None;
        rows.put("t", &token).unwrap();
        let found = rows.get("t").unwrap().unwrap();
        assert!(found.updated_at > 1_700_000_000_000);
        assert_eq!(OauthTokenRow { updated_at: 0, ..found }, token);
        assert!(rows.delete("t").unwrap());
        assert_eq!(rows.get("t").unwrap(), None);
    }
}
