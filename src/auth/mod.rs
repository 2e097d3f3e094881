//! Who is asking, and what they may do: keys, login sessions, setup, throttles, origins and hosts.
//!
//! Knows AES-GCM and bcrypt. Threads: `bcrypt-N` (2; one password check each; end when their queue is closed); `oidc` (see
//! [`oidc`]).

pub mod cookie;
pub mod jwt;
pub mod oidc;
pub mod origin;
pub mod password;
pub mod scope;
pub mod setup;
pub mod throttle;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub use cookie::{Session, SessionManager};
pub use scope::{Scopes, validate_key_input};

use crate::chat::access::Caller;
use crate::config::StaticKey;
use crate::limits;
use crate::rt::{Headers, clock, lock};
use crate::store::{Db, KeyStore, StoreError, hex};

/// In the place of a scope: any credential that counts.
pub const ANY_SCOPE: &str = "";

/// What somebody has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A stored key, by its hash.
    Key { hash: [u8; 32] },
    /// A key of the configuration, by its hash.
    Configured { hash: [u8; 32] },
    /// A tracked login.
    Login { id: String },
    /// A cookie that says everything itself, until that time (milliseconds since 1970).
    SelfContained { expires_at: i64 },
}

/// Somebody who has proved who they are.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Key name or e-mail: the name of the rate limit's bucket and of the audit.
    pub name: String,
    pub scopes: Scopes,
    pub credential: Credential,
    /// Came by cookie: mutations need a checked `Origin`.
    pub by_cookie: bool,
}

impl Identity {
    /// Whether the scope is held; [`ANY_SCOPE`] always is.
    pub fn holds(&self, scope: &str) -> bool {
        scope == ANY_SCOPE || self.scopes.has(scope)
    }

    /// The identity as far as conversations are concerned (W-18).
    pub fn caller(&self) -> Caller {
        let kind = if self.by_cookie { "user" } else { "key" };
        let admin = self.scopes.has("admin");
        Caller {
            identity: format!("{kind}:{}", self.name),
            reads_all: admin || self.scopes.has("sessions:read"),
            writes_all: admin,
        }
    }
}

/// Why nobody was recognised.
#[derive(Debug)]
pub enum AuthError {
    /// No credential at all.
    Missing,
    /// The credential is unknown, revoked or expired.
    Invalid,
    /// The credential is good but lacks the scope.
    Scope,
    Store(StoreError),
}

impl From<StoreError> for AuthError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Recognises credentials. Checks of stored keys and logins are cached as long as the database file is unchanged, so
/// a revocation, also by another process, counts from the next request on.
pub struct Authenticator {
    // Set at construction.
    db: Arc<Db>,
    keys: Arc<KeyStore>,
    sessions: Arc<SessionManager>,
    /// Guarded by this mutex: the keys of the configuration. Nothing is taken under it.
    configured: Mutex<Arc<[ConfiguredKey]>>,
    /// Guarded by this mutex: keys found at a generation of the file. Nothing is taken under it.
    cache: Mutex<HashMap<[u8; 32], Cached>>,
}

struct ConfiguredKey {
    hash: [u8; 32],
    name: String,
    scopes: Scopes,
}

#[derive(Clone)]
struct Cached {
    generation: u64,
    id: Arc<str>,
    name: Arc<str>,
    scopes: Scopes,
}

fn hashed(keys: &[StaticKey]) -> Arc<[ConfiguredKey]> {
    let hashed = |key: &StaticKey| ConfiguredKey {
        hash: sha256(&key.key),
        name: key.name.clone(),
        scopes: Scopes::from_names(&key.scopes),
    };
    keys.iter().map(hashed).collect()
}

impl Authenticator {
    /// An authenticator over open stores and the keys of the configuration.
    pub fn new(db: Arc<Db>, keys: Arc<KeyStore>, sessions: Arc<SessionManager>, configured: &[StaticKey]) -> Self {
        let configured = Mutex::new(hashed(configured));
        Self { db, keys, sessions, configured, cache: Mutex::new(HashMap::new()) }
    }

    /// Other keys of the configuration, from the next request on; true when one that counted is gone.
    pub fn set_configured(&self, keys: &[StaticKey]) -> bool {
        let new = hashed(keys);
        let old = std::mem::replace(&mut *lock(&self.configured), Arc::clone(&new));
        old.iter().any(|key| !new.iter().any(|now| now.hash == key.hash))
    }

    /// The decision procedure of contract 2.1: a bearer key, stored then configured, then the session cookie.
    /// `token` stands in for the header (`?token=` of the WebSocket).
    pub fn authenticate(&self, headers: &Headers, token: Option<&str>, scope: &str) -> Result<Identity, AuthError> {
        let bearer = token.or_else(|| bearer(headers));
        let mut failure = if bearer.is_some() { AuthError::Invalid } else { AuthError::Missing };
        if let Some(token) = bearer
            && let Some(identity) = self.by_key(token)?
        {
            if identity.holds(scope) {
                return Ok(identity);
            }
            failure = AuthError::Scope;
        }
        match self.sessions.read(headers) {
            Ok(Some(session)) => {
                let identity = identity_of(session);
                if identity.holds(scope) {
                    return Ok(identity);
                }
                Err(AuthError::Scope)
            }
            Ok(None) => {
                let shown = headers.cookie(cookie::COOKIE_NAME).is_some();
                Err(if matches!(failure, AuthError::Missing) && shown { AuthError::Invalid } else { failure })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a credential still counts; asked for open sockets and streams.
    pub fn is_valid(&self, credential: &Credential) -> Result<bool, StoreError> {
        Ok(match credential {
            Credential::Configured { hash } => lock(&self.configured).iter().any(|key| key.hash == *hash),
            Credential::SelfContained { expires_at } => *expires_at > clock::unix_ms(),
            Credential::Key { hash } => self.find_stored(*hash)?.is_some(),
            Credential::Login { id } => match &self.sessions.store {
                Some(store) => store.get(id)?.is_some(),
                None => false,
            },
        })
    }

    fn by_key(&self, token: &str) -> Result<Option<Identity>, StoreError> {
        let hash = sha256(token);
        if let Some(found) = self.find_stored(hash)? {
            self.keys.touch_last_used(&found.id);
            return Ok(Some(Identity {
                name: found.name.to_string(),
                scopes: found.scopes,
                credential: Credential::Key { hash },
                by_cookie: false,
            }));
        }
        // Hashes of equal length, all of them compared: time tells nothing about the keys.
        let configured = Arc::clone(&lock(&self.configured));
        let mut found = None;
        for key in configured.iter() {
            if bool::from(key.hash.ct_eq(&hash)) && found.is_none() {
                found = Some(key);
            }
        }
        Ok(found.map(|key| Identity {
            name: key.name.clone(),
            scopes: key.scopes,
            credential: Credential::Configured { hash },
            by_cookie: false,
        }))
    }

    fn find_stored(&self, hash: [u8; 32]) -> Result<Option<Cached>, StoreError> {
        let generation = self.db.generation()?;
        if let Some(cached) = lock(&self.cache).get(&hash)
            && cached.generation == generation
        {
            return Ok(Some(cached.clone()));
        }
        let found = self.keys.find_active_by_hash(&hex(&hash))?.map(|record| Cached {
            generation,
            id: record.id.into(),
            name: record.name.into(),
            scopes: Scopes::from_names(&record.scopes),
        });
        let mut cache = lock(&self.cache);
        if cache.len() >= limits::CREDENTIAL_CACHE_MAX {
            cache.clear();
        }
        match &found {
            Some(entry) => cache.insert(hash, entry.clone()),
            None => cache.remove(&hash),
        };
        Ok(found)
    }
}

/// The identity of a login.
pub fn identity_of(session: Session) -> Identity {
    Identity {
        name: session.email,
        scopes: Scopes::from_names(&session.scopes),
        credential: session.credential,
        by_cookie: true,
    }
}

/// The token behind exactly `Bearer ` (contract 2.1); an empty one does not count.
pub fn bearer(headers: &Headers) -> Option<&str> {
    headers.get("authorization")?.strip_prefix("Bearer ").filter(|token| !token.is_empty())
}

fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}
