//! Tokens, sealed in the database: AES-256-GCM under the first 32 bytes of the session secret, nonce first (contract
//! engine 8.8).

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::net::oauth::{AuthStyle, ClientAuth};
use crate::rt::{clock, lock};
use crate::store::oauth_tokens::{OauthTokenRow, OauthTokenRows};
use crate::store::{Db, StoreError};

/// A token and what renews it. Holds secrets: no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub access: String,
    /// Empty: it cannot be renewed.
    pub refresh: String,
    /// Milliseconds since 1970; None: nobody said.
    pub expires_at: Option<i64>,
    /// With blanks between.
    pub scopes: String,
    pub client: ClientAuth,
    pub token_url: String,
    /// What it is for: it goes nowhere else.
    pub resource: String,
    /// When it was stored: milliseconds since 1970.
    pub stored_at: i64,
}

/// What may be told of a token (contract http-api 11.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub has_token: bool,
    /// Milliseconds since 1970.
    pub expires_at: Option<i64>,
    pub scopes: Vec<String>,
    /// There is none, or it has expired and cannot be renewed.
    pub needs_reauth: bool,
}

/// The tokens of all tool servers, by the server's name.
pub struct TokenStore {
    rows: OauthTokenRows,
    key: LessSafeKey,
    /// It was said that tokens cannot be opened.
    has_warned: AtomicBool,
    /// Guarded by the mutex: servers whose token is being renewed. Nothing is taken under it.
    renewing: Mutex<HashSet<String>>,
    renewed: Condvar,
}

/// A server's turn to renew its token; over when dropped.
pub(super) struct Turn<'a> {
    store: &'a TokenStore,
    tool: &'a str,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.store.renewing).remove(self.tool);
        self.store.renewed.notify_all();
    }
}

impl Summary {
    const NONE: Self = Self { has_token: false, expires_at: None, scopes: Vec::new(), needs_reauth: true };
}

impl Token {
    /// Whether it can still be used, or be renewed.
    pub fn is_usable(&self) -> bool {
        !self.refresh.is_empty() || self.expires_at.is_none_or(|at| at > clock::unix_ms())
    }
}

impl TokenStore {
    /// A store whose secrets are sealed with that key; None when it is no key.
    pub fn new(db: Arc<Db>, key: &[u8; 32]) -> Option<Self> {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
        Some(Self {
            rows: OauthTokenRows::new(db),
            key,
            has_warned: AtomicBool::new(false),
            renewing: Mutex::default(),
            renewed: Condvar::new(),
        })
    }

    /// The token of a server. One that was sealed with another key counts as none.
    pub fn get(&self, tool: &str) -> Result<Option<Token>, StoreError> {
        let Some(row) = self.rows.get(tool)? else { return Ok(None) };
        let token = self.unsealed(row);
        if token.is_none() && !self.has_warned.swap(true, Ordering::Relaxed) {
            log::warn!("tool server {tool}: its token was sealed with another secret; connect it again");
        }
        Ok(token)
    }

    /// Stores a token in place of an older one; durable when this returns.
    pub fn put(&self, tool: &str, token: &Token) -> Result<(), StoreError> {
        let optional = |text: &str| (!text.is_empty()).then(|| self.seal(text)).transpose();
        let row = OauthTokenRow {
            access_token: self.seal(&token.access)?,
            refresh_token: optional(&token.refresh)?,
            token_type: "Bearer".to_owned(),
            expires_at: token.expires_at,
            scopes: token.scopes.clone(),
            client_id: token.client.id.clone(),
            client_secret: optional(&token.client.secret)?,
            token_url: token.token_url.clone(),
            auth_style: if token.client.style == AuthStyle::Params { 1 } else { 2 },
            resource_url: token.resource.clone(),
            updated_at: 0,
        };
        self.rows.put(tool, &row)
    }

    /// Forgets a token; whether there was one.
    pub fn delete(&self, tool: &str) -> Result<bool, StoreError> {
        self.rows.delete(tool)
    }

    /// What may be told of a server's token.
    pub fn summary(&self, tool: &str) -> Result<Summary, StoreError> {
        Ok(self.get(tool)?.map_or(Summary::NONE, |token| Summary {
            has_token: true,
            expires_at: token.expires_at,
            scopes: token.scopes.split_ascii_whitespace().map(str::to_owned).collect(),
            needs_reauth: !token.is_usable(),
        }))
    }

    /// Waits until nobody else renews that server's token: of many that notice at once, one asks. Blocks for as long
    /// as that takes.
    pub(super) fn turn<'a>(&'a self, tool: &'a str) -> Turn<'a> {
        let mut renewing = lock(&self.renewing);
        while renewing.contains(tool) {
            renewing = self.renewed.wait(renewing).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        renewing.insert(tool.to_owned());
        drop(renewing);
        Turn { store: self, tool }
    }

    fn unsealed(&self, row: OauthTokenRow) -> Option<Token> {
        let optional = |sealed: Option<Vec<u8>>| match sealed {
            Some(sealed) if !sealed.is_empty() => self.open(sealed),
            _ => Some(String::new()),
        };
        Some(Token {
            access: self.open(row.access_token)?,
            refresh: optional(row.refresh_token)?,
            expires_at: row.expires_at,
            scopes: row.scopes,
            client: ClientAuth {
                id: row.client_id,
                secret: optional(row.client_secret)?,
                style: if row.auth_style == 1 { AuthStyle::Params } else { AuthStyle::Header },
            },
            token_url: row.token_url,
            resource: row.resource_url,
            stored_at: row.updated_at,
        })
    }

    fn seal(&self, plain: &str) -> Result<Vec<u8>, StoreError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| StoreError::Random)?;
        let mut sealed = plain.as_bytes().to_vec();
        let done = self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed);
        done.map_err(|_| StoreError::Random)?;
        Ok([&nonce[..], &sealed].concat())
    }

    fn open(&self, mut sealed: Vec<u8>) -> Option<String> {
        let (nonce, body) = sealed.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key.open_in_place(nonce, Aad::empty(), body).ok()?;
        String::from_utf8(plain.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            access: "access".into(),
            refresh: "refresh".into(),
            expires_at: Some(clock::unix_ms() - 1),
            scopes: "a b".into(),
            client: ClientAuth { id: "id".into(), secret: String::new(), style: AuthStyle::Params },
            token_url: "https://e/token".into(),
            resource: "https://e/mcp".into(),
            stored_at: 0,
        }
    }

    #[test]
    fn tokens_are_sealed_and_open_only_with_their_key() {
        let db = Arc::new(Db::in_memory().unwrap());
        let store = TokenStore::new(Arc::clone(&db), &[1; 32]).unwrap();
        assert_eq!(store.summary("t").unwrap(), Summary::NONE);
        let put = token();
        store.put("t", &put).unwrap();
        let found = store.get("t").unwrap().unwrap();
        assert!(Token { stored_at: 0, ..found } == put);
        let row = OauthTokenRows::new(Arc::clone(&db)).get("t").unwrap().unwrap();
        assert_eq!(row.access_token.len(), NONCE_LEN + "access".len() + 16);
        assert!(!String::from_utf8_lossy(&row.access_token).contains("access"));
        let other = TokenStore::new(db, &[2; 32]).unwrap();
        assert!(other.get("t").unwrap().is_none());
        assert!(other.summary("t").unwrap().needs_reauth);
    }

    #[test]
    fn the_summary_says_when_somebody_has_to_log_in() {
        let store = TokenStore::new(Arc::new(Db::in_memory().unwrap()), &[1; 32]).unwrap();
        let check = |refresh: &str, expires_in: Option<i64>, expected: bool| {
            let expires_at = expires_in.map(|ms| clock::unix_ms() + ms);
            store.put("t", &Token { refresh: refresh.into(), expires_at, ..token() }).unwrap();
            let summary = store.summary("t").unwrap();
            assert_eq!((summary.has_token, summary.needs_reauth), (true, expected), "{refresh:?} {expires_in:?}");
            assert_eq!(summary.scopes, ["a", "b"]);
        };
        check("r", Some(-1), false);
        check("", Some(-1), true);
        check("", Some(60_000), false);
        check("", None, false);
    }
}
