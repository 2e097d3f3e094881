//! Login sessions in cookies (contract 2.4): AES-256-GCM over a small JSON, tracked in the store or self-contained.

use std::sync::Arc;

use aes_gcm::aead::{Aead, KeyInit, Payload as Sealed};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde::{Deserialize, Serialize};

use crate::auth::Credential;
use crate::rt::{Headers, clock};
use crate::store::logins::scopes_from_record;
use crate::store::{SessionStore, StoreError};

/// There is no second spelling.
pub const COOKIE_NAME: &str = "dk_session";
const NONCE_BYTES: usize = 12;

/// A login, as the cookie or the store tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    pub email: String,
    pub scopes: Vec<String>,
    /// Unix seconds.
    pub expires_at: i64,
    /// What the cookie proved, to ask again later.
    pub credential: Credential,
}

/// Both payloads; which one it is shows in the keys.
#[derive(Default, Serialize, Deserialize)]
struct Payload {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    email: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<String>,
    exp: i64,
}

/// Why a cookie could not be made.
#[derive(Debug)]
pub enum CookieError {
    /// The secret is not hex of at least 32 bytes.
    Secret,
    Random,
    Encrypt,
    Store(StoreError),
}

impl From<StoreError> for CookieError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Makes and reads session cookies. With a store, cookies hold only an id; without one they hold the whole login.
pub struct SessionManager {
    pub store: Option<Arc<SessionStore>>,
    cipher: Aes256Gcm,
    /// Adds `Secure`: the server itself speaks TLS.
    secure: bool,
    max_age_s: i64,
}

impl SessionManager {
    /// A manager with the first 32 bytes of a hex secret as its key.
    pub fn new(
        secret_hex: &str,
        store: Option<Arc<SessionStore>>,
        max_age_s: i64,
        secure: bool,
    ) -> Result<Self, CookieError> {
        let cipher = Aes256Gcm::new_from_slice(&key_of(secret_hex)?).map_err(|_| CookieError::Secret)?;
        Ok(Self { store, cipher, secure, max_age_s })
    }

    /// The `Set-Cookie` value of a self-contained login; no store is asked.
    pub fn create(&self, email: &str, scopes: &[String]) -> Result<String, CookieError> {
        let exp = clock::unix_s() + self.max_age_s;
        self.set_cookie(&Payload { email: email.to_owned(), scopes: scopes.to_vec(), exp, ..Payload::default() })
    }

    /// The `Set-Cookie` value of a login; tracked when there is a store.
    pub fn create_with_request(
        &self,
        email: &str,
        scopes: &[String],
        user_agent: &str,
        ip: &str,
    ) -> Result<String, CookieError> {
        let Some(store) = &self.store else {
            return self.create(email, scopes);
        };
        let exp = clock::unix_s() + self.max_age_s;
        let id = store.create(email, scopes, user_agent, ip, exp * 1000)?;
        self.set_cookie(&Payload { id, exp, ..Payload::default() })
    }

    /// The login that the request's cookie stands for. A tracked one must be in the store; a self-contained one counts
    /// only while there is no store (W-6).
    pub fn read(&self, headers: &Headers) -> Result<Option<Session>, StoreError> {
        let Some(payload) = headers.cookie(COOKIE_NAME).and_then(|value| self.decrypt(value)) else {
            return Ok(None);
        };
        if let Some(store) = &self.store {
            if payload.id.is_empty() {
                return Ok(None);
            }
            let Some(record) = store.get(&payload.id)? else {
                return Ok(None);
            };
            store.touch(&record.id);
            return Ok(Some(Session {
                email: record.email.clone(),
                scopes: scopes_from_record(&record),
                expires_at: record.expires_at / 1000,
                credential: Credential::Login { id: record.id },
            }));
        }
        let valid = payload.id.is_empty() && clock::unix_s() <= payload.exp;
        Ok(valid.then(|| Session {
            email: payload.email,
            scopes: payload.scopes,
            expires_at: payload.exp,
            credential: Credential::SelfContained { expires_at: payload.exp.saturating_mul(1000) },
        }))
    }

    /// A `Set-Cookie` value for a client that came over TLS, to us or to a proxy that we trust: it sends the cookie over
    /// nothing else.
    pub fn secured(cookie: String, is_https: bool) -> String {
        let is_secure = cookie.split("; ").any(|part| part == "Secure");
        if is_https && !is_secure { cookie + "; Secure" } else { cookie }
    }

    /// The `Set-Cookie` value that clears the cookie.
    pub fn clear(&self) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{COOKIE_NAME}=; Path=/; Max-Age=0; HttpOnly{secure}; SameSite=Lax")
    }

    fn set_cookie(&self, payload: &Payload) -> Result<String, CookieError> {
        let value = self.encrypt(payload)?;
        let secure = if self.secure { "; Secure" } else { "" };
        Ok(format!("{COOKIE_NAME}={value}; Path=/; Max-Age={}; HttpOnly{secure}; SameSite=Lax", self.max_age_s))
    }

    /// Whether the server itself speaks TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The value of another cookie, for that purpose only: no session cookie, and none of another purpose.
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Result<String, CookieError> {
        let mut nonce = [0_u8; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| CookieError::Random)?;
        let payload = Sealed { msg: plain, aad: purpose.as_bytes() };
        let sealed = self.cipher.encrypt(&Nonce::from(nonce), payload).map_err(|_| CookieError::Encrypt)?;
        Ok(URL_SAFE.encode([&nonce[..], &sealed].concat()))
    }

    /// What [`SessionManager::seal`] has sealed for that purpose.
    pub fn open(&self, purpose: &str, value: &str) -> Option<Vec<u8>> {
        let bytes = URL_SAFE.decode(value).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        self.cipher.decrypt(&Nonce::from(nonce), Sealed { msg: sealed, aad: purpose.as_bytes() }).ok()
    }

    fn encrypt(&self, payload: &Payload) -> Result<String, CookieError> {
        self.seal("", &serde_json::to_vec(payload).map_err(|_| CookieError::Encrypt)?)
    }

    fn decrypt(&self, value: &str) -> Option<Payload> {
        serde_json::from_slice(&self.open("", value)?).ok()
    }
}

/// The key that a secret in hex stands for: its first 32 bytes.
pub fn key_of(secret_hex: &str) -> Result<[u8; 32], CookieError> {
    let bytes = decode_hex(secret_hex.trim()).ok_or(CookieError::Secret)?;
    bytes.first_chunk().copied().ok_or(CookieError::Secret)
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn request(set_cookie: &str) -> Headers {
        Headers::from_pairs(&[("Cookie", set_cookie.split(';').next().unwrap())])
    }

    #[test]
    fn a_tracked_login_counts_until_it_is_revoked() {
        let store = Arc::new(SessionStore::in_memory().unwrap());
        let manager = SessionManager::new(SECRET, Some(Arc::clone(&store)), 60, false).unwrap();
        let cookie = manager.create_with_request("admin", &["chat".to_owned()], "agent", "192.0.2.1").unwrap();
        assert!(cookie.ends_with("; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"));
        let session = manager.read(&request(&cookie)).unwrap().unwrap();
        assert_eq!((session.email.as_str(), session.scopes), ("admin", vec!["chat".to_owned()]));
        let Credential::Login { id } = session.credential else { panic!() };
        store.delete(&id).unwrap();
        assert_eq!(manager.read(&request(&cookie)).unwrap(), None);
    }

    #[test]
    fn self_contained_cookies_need_the_absence_of_a_store() {
        let alone = SessionManager::new(SECRET, None, 60, true).unwrap();
        let cookie = alone.create("a@b", &["chat".to_owned()]).unwrap();
        assert!(cookie.contains("; Secure; SameSite"));
        assert_eq!(SessionManager::secured(cookie.clone(), true), cookie);
        assert_eq!(SessionManager::secured("a=b".into(), true), "a=b; Secure");
        assert_eq!(SessionManager::secured("a=b".into(), false), "a=b");
        assert_eq!(alone.read(&request(&cookie)).unwrap().unwrap().email, "a@b");
        let store = Arc::new(SessionStore::in_memory().unwrap());
        let tracking = SessionManager::new(SECRET, Some(store), 60, false).unwrap();
        assert_eq!(tracking.read(&request(&cookie)).unwrap(), None);
        let expired = SessionManager::new(SECRET, None, -5, false).unwrap();
        assert_eq!(expired.read(&request(&expired.create("a@b", &[]).unwrap())).unwrap(), None);
    }

    #[test]
    fn tampered_and_foreign_cookies_are_nothing() {
        let manager = SessionManager::new(SECRET, None, 60, false).unwrap();
        let cookie = manager.create("a@b", &[]).unwrap();
        let value = cookie.split(';').next().unwrap().trim_start_matches("dk_session=");
        let mut bytes = URL_SAFE.decode(value).unwrap();
        for at in [0, NONCE_BYTES, bytes.len() - 1] {
            bytes[at] ^= 1;
            assert_eq!(manager.read(&request(&format!("dk_session={}", URL_SAFE.encode(&bytes)))).unwrap(), None);
            bytes[at] ^= 1;
        }
        for value in ["", "AAAA", "not base64!", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(manager.read(&request(&format!("dk_session={value}"))).unwrap(), None);
        }
        let other = SessionManager::new(&SECRET.replace("00", "01"), None, 60, false).unwrap();
        assert_eq!(other.read(&request(&cookie)).unwrap(), None);
        assert!(SessionManager::new("abcd", None, 60, false).is_err());
        assert!(SessionManager::new(&"zz".repeat(32), None, 60, false).is_err());
    }
}
