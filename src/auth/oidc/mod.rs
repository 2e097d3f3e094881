//! Logging in through an identity provider (OpenID Connect Core 1.0, contract http-api 3.8; W-4): code flow with PKCE,
//! state and nonce, and our own check of the ID token.
//!
//! What a browser began is in a sealed cookie of its own, good for five minutes and one callback; nothing is kept here
//! for those who never come back. What the provider says of itself is fetched when it is first needed and kept for an
//! hour: a provider that is down when the hub starts delays nothing but its own logins.
//!
//! Threads: `oidc` (1 per login that waits for the provider, at most [`FLIGHTS_MAX`]; ends with its time-outs, or when
//! [`OidcProvider::stop`] cancels it).

mod claims;
mod discovery;
mod used;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use self::discovery::{Discovery, Metadata};
use self::used::Used;
use super::cookie::CookieError;
use super::jwt::{JwtError, Token};
use super::{SessionManager, scope};
use crate::config::OidcConfig;
use crate::limits;
use crate::net::oauth::{self, ClientAuth, TokenError};
use crate::rt::{Cancel, Threads, clock, lock};

/// The cookie of a login that has begun.
pub const STATE_COOKIE: &str = "dk_oidc_state";
/// How long a login may take (contract http-api 3.8).
const LOGIN_S: i64 = 5 * 60;
/// Logins that wait for the provider at once; more are told to try again (Reject: 503).
const FLIGHTS_MAX: usize = 8;

/// Why somebody is not logged in. `Display` is what the browser shows (contract http-api 3.8); causes are for the log.
#[derive(Debug)]
pub enum OidcError {
    MissingCookie,
    /// Expired, of another hub, or changed on the way.
    BadCookie,
    CorruptCookie,
    /// Not the login that this browser began, or one that was used already.
    StateMismatch,
    /// `error`, if the provider said why.
    MissingCode {
        error: String,
    },
    Exchange(TokenError),
    NoIdToken,
    Token(String),
    Nonce,
    /// The token names nobody.
    Claims(String),
    EmailNotVerified,
    EmailNotAllowed {
        email: String,
    },
    Session(CookieError),
    /// The provider cannot be reached, or says odd things of itself.
    Unreachable(String),
    /// Too many logins wait for the provider, or the hub stops.
    Busy,
    /// The system has no randomness to give.
    Random,
}

impl std::fmt::Display for OidcError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::MissingCookie => "missing state cookie",
            Self::BadCookie => "invalid or expired state cookie",
            Self::CorruptCookie => "corrupt state cookie",
            Self::StateMismatch => "state mismatch",
            Self::MissingCode { .. } => "missing authorization code",
            Self::Exchange(_) => "code exchange failed",
            Self::NoIdToken => "no id_token in response",
            Self::Token(_) => "token verification failed",
            Self::Nonce => "nonce mismatch",
            Self::Claims(_) => "failed to parse claims",
            Self::EmailNotVerified => "email not verified by provider",
            Self::EmailNotAllowed { .. } => "email not authorized",
            Self::Session(_) | Self::Random => "session creation failed",
            Self::Unreachable(_) => "the identity provider cannot be reached; try again later",
            Self::Busy => "too many logins at once; try again",
        })
    }
}

impl OidcError {
    /// What the log and the audit say beyond the text; no secrets.
    pub fn cause(&self) -> String {
        match self {
            Self::MissingCode { error } => error.clone(),
            Self::Exchange(error) => error.to_string(),
            Self::Token(cause) | Self::Claims(cause) | Self::Unreachable(cause) => cause.clone(),
            Self::EmailNotAllowed { email } => email.clone(),
            _ => String::new(),
        }
    }
}

/// Where a login begins.
pub struct LoginBegun {
    /// The provider's page.
    pub location: String,
    /// `Set-Cookie`.
    pub cookie: String,
}

/// What a browser brings back from the provider.
#[derive(Default)]
pub struct Callback {
    /// The value of [`STATE_COOKIE`].
    pub cookie: Option<String>,
    pub code: Option<String>,
    pub state: Option<String>,
    /// The issuer that sends the browser back (RFC 9207), where it says so.
    pub issuer: Option<String>,
    pub error: Option<String>,
    /// For the list of logins.
    pub user_agent: String,
    pub address: String,
}

/// A login that was made.
pub struct LoggedIn {
    /// Lower case.
    pub email: String,
    /// `Set-Cookie` of the session.
    pub cookie: String,
}

/// A provider that people log in through. Made without asking it anything.
pub struct OidcProvider {
    // Set at construction.
    config: OidcConfig,
    client: ClientAuth,
    sessions: Arc<SessionManager>,
    discovery: Discovery,
    used: Used,
    threads: Threads,
    /// Guarded by the mutex: what ends the requests in flight, by number. Nothing is taken under it.
    flights: Mutex<Flights>,
}

#[derive(Default)]
struct Flights {
    next: u64,
    cancels: HashMap<u64, Cancel>,
    is_stopping: bool,
}

/// Whether a provider could be used as configured; what is wrong with its address otherwise. Asks nobody.
pub fn check(config: &OidcConfig) -> Result<(), String> {
    Discovery::new(&config.issuer).map(|_| ())
}

impl OidcProvider {
    /// A provider as configured; makes login sessions with `sessions`. The error says what is wrong with the issuer.
    pub fn new(config: &OidcConfig, sessions: Arc<SessionManager>) -> Result<Self, String> {
        let discovery = Discovery::new(&config.issuer)?;
        let client = ClientAuth {
            id: config.client_id.clone(),
            secret: config.client_secret.clone(),
            style: oauth::AuthStyle::Header,
        };
        Ok(Self {
            config: config.clone(),
            client,
            sessions,
            discovery,
            used: Used::default(),
            threads: Threads::new(),
            flights: Mutex::default(),
        })
    }

    /// Asks the provider about itself, in the background, so that a mistake in the settings is in the log at once.
    pub fn warm_up(self: &Arc<Self>) {
        let started = self.in_background(|provider, cancel| match provider.discovery.metadata(cancel) {
            Ok(_) => log::info!("OIDC: logins through {}", provider.config.issuer),
            Err(cause) => log::warn!("OIDC: {}: {cause}; it is asked again at the next login", provider.config.issuer),
        });
        if started.is_err() {
            log::warn!("OIDC: no thread to ask {}", self.config.issuer);
        }
    }

    /// Runs what may wait for the provider on a thread of its own, under a counted limit.
    pub fn in_background(
        self: &Arc<Self>,
        body: impl FnOnce(&Self, &Cancel) + Send + 'static,
    ) -> Result<(), OidcError> {
        let cancel = Cancel::new();
        let number = {
            let mut flights = lock(&self.flights);
            if flights.is_stopping || flights.cancels.len() >= FLIGHTS_MAX {
                return Err(OidcError::Busy);
            }
            flights.next += 1;
            let number = flights.next;
            flights.cancels.insert(number, cancel.clone());
            number
        };
        let own = Arc::clone(self);
        let run = move || {
            let flight = Flight { provider: &own, number };
            body(&own, &cancel);
            drop(flight);
        };
        let spawned = self.threads.spawn("oidc", limits::WORKER_STACK_BYTES, run);
        spawned.map_err(|_| {
            lock(&self.flights).cancels.remove(&number);
            OidcError::Busy
        })
    }

    /// Cancels what waits for the provider and waits for it; the names of late threads.
    pub fn stop(&self, timeout: Duration) -> Vec<String> {
        let cancels: Vec<Cancel> = {
            let mut flights = lock(&self.flights);
            flights.is_stopping = true;
            flights.cancels.values().cloned().collect()
        };
        cancels.iter().for_each(Cancel::cancel);
        self.threads.join_all(timeout)
    }

    /// Whether a login can begin without asking the provider first.
    pub fn is_ready(&self) -> bool {
        self.discovery.cached().is_some()
    }

    /// Begins a login. Blocks on the provider unless [`OidcProvider::is_ready`].
    pub fn handle_login(&self, cancel: &Cancel) -> Result<LoginBegun, OidcError> {
        let metadata = self.metadata(cancel)?;
        let word = || oauth::random_word().ok_or(OidcError::Random);
        let (state, nonce) = (word()?, word()?);
        let verifier = oauth::verifier().ok_or(OidcError::Random)?;
        let location = oauth::with_query(
            &metadata.authorization_endpoint,
            &[
                ("client_id", &self.config.client_id),
                ("redirect_uri", &self.config.redirect_url),
                ("response_type", "code"),
                ("scope", &self.config.scopes.join(" ")),
                ("state", &state),
                ("nonce", &nonce),
                ("code_challenge", &oauth::challenge(&verifier)),
                ("code_challenge_method", "S256"),
            ],
        );
        let begun = json!({"state": state, "verifier": verifier, "nonce": nonce, "exp": clock::unix_s() + LOGIN_S});
        let value = self.sessions.seal(STATE_COOKIE, begun.to_string().as_bytes()).map_err(OidcError::Session)?;
        Ok(LoginBegun { location, cookie: self.state_cookie(&value, LOGIN_S) })
    }

    /// The `Set-Cookie` value that ends a begun login.
    pub fn clear_cookie(&self) -> String {
        self.state_cookie("", 0)
    }

    fn state_cookie(&self, value: &str, age_s: i64) -> String {
        let secure = if self.sessions.is_secure() || self.comes_back_over_tls() { "; Secure" } else { "" };
        format!("{STATE_COOKIE}={value}; Path=/auth; Max-Age={age_s}; HttpOnly{secure}; SameSite=Lax")
    }

    /// Ends a login: checks that this browser began it, fetches the ID token and checks that. Blocks on the provider.
    pub fn handle_callback(&self, callback: &Callback, cancel: &Cancel) -> Result<LoggedIn, OidcError> {
        let begun = self.begun(callback)?;
        let code = callback.code.as_deref().filter(|code| !code.is_empty()).ok_or_else(|| OidcError::MissingCode {
            error: oauth::plain_word(callback.error.as_deref().unwrap_or("")),
        })?;
        let metadata = self.metadata(cancel)?;
        // Another issuer's answer: its code must not be sent to ours (RFC 9207).
        if callback.issuer.as_deref().is_some_and(|issuer| issuer != metadata.issuer) {
            return Err(OidcError::StateMismatch);
        }
        let answer = self.exchange(&metadata, code, &begun.verifier, cancel)?;
        let text = answer["id_token"].as_str().ok_or(OidcError::NoIdToken)?;
        let claims = self.verified(&metadata, text, cancel)?;
        let now_s = clock::unix_s();
        claims::check(&claims, &metadata.issuer, &self.config.client_id, now_s).map_err(OidcError::Token)?;
        let nonce = claims["nonce"].as_str().unwrap_or("");
        if !bool::from(nonce.as_bytes().ct_eq(begun.nonce.as_bytes())) {
            return Err(OidcError::Nonce);
        }
        let email = match claims::email(&claims)? {
            Some(email) => email,
            None => email_of_user(&metadata, &claims, &answer, cancel)?,
        };
        if !self.config.allowed_emails.contains(&email) {
            return Err(OidcError::EmailNotAllowed { email });
        }
        let (user_agent, address) = (&callback.user_agent, &callback.address);
        let cookie = self.sessions.create_with_request(&email, &scope::dashboard_scopes(), user_agent, address);
        let cookie = SessionManager::secured(cookie.map_err(OidcError::Session)?, self.comes_back_over_tls());
        Ok(LoggedIn { email, cookie })
    }

    fn comes_back_over_tls(&self) -> bool {
        self.config.redirect_url.starts_with("https://")
    }

    /// What this browser began; from now on it is used.
    fn begun(&self, callback: &Callback) -> Result<Begun, OidcError> {
        let value = callback.cookie.as_deref().filter(|value| !value.is_empty()).ok_or(OidcError::MissingCookie)?;
        let plain = self.sessions.open(STATE_COOKIE, value).ok_or(OidcError::BadCookie)?;
        let begun: Value = serde_json::from_slice(&plain).map_err(|_| OidcError::CorruptCookie)?;
        let text = |name: &str| begun[name].as_str().map(str::to_owned).ok_or(OidcError::CorruptCookie);
        let (state, verifier, nonce) = (text("state")?, text("verifier")?, text("nonce")?);
        if begun["exp"].as_i64().unwrap_or(0) < clock::unix_s() {
            return Err(OidcError::BadCookie);
        }
        let shown = callback.state.as_deref().unwrap_or("");
        if !bool::from(shown.as_bytes().ct_eq(state.as_bytes())) || !self.used.take(&state, Instant::now()) {
            return Err(OidcError::StateMismatch);
        }
        Ok(Begun { verifier, nonce })
    }

    fn metadata(&self, cancel: &Cancel) -> Result<Arc<Metadata>, OidcError> {
        self.discovery.metadata(cancel).map_err(OidcError::Unreachable)
    }

    fn exchange(&self, metadata: &Metadata, code: &str, verifier: &str, cancel: &Cancel) -> Result<Value, OidcError> {
        let client = ClientAuth { style: metadata.style, ..self.client.clone() };
        let pairs = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.config.redirect_url),
            ("code_verifier", verifier),
        ];
        oauth::ask_token(&metadata.token_endpoint, &client, &pairs, cancel).map_err(OidcError::Exchange)
    }

    /// The claims of an ID token whose signature is right. A key that is not known yet may be a new one.
    fn verified(&self, metadata: &Metadata, text: &str, cancel: &Cancel) -> Result<Value, OidcError> {
        let wrong = |error: JwtError| OidcError::Token(error.to_string());
        let token = Token::parse(text).map_err(wrong)?;
        let keys = self.discovery.keys(metadata, false, cancel).map_err(OidcError::Token)?;
        match token.verify(&keys) {
            Ok(claims) => Ok(claims.clone()),
            Err(JwtError::UnknownKey) => {
                let keys = self.discovery.keys(metadata, true, cancel).map_err(OidcError::Token)?;
                token.verify(&keys).cloned().map_err(wrong)
            }
            Err(error) => Err(wrong(error)),
        }
    }
}

/// Some providers name the e-mail address only at their userinfo endpoint (OpenID Connect Core 5.3).
fn email_of_user(metadata: &Metadata, claims: &Value, answer: &Value, cancel: &Cancel) -> Result<String, OidcError> {
    let missing = || OidcError::Claims("the provider names no e-mail address; is scope email allowed?".to_owned());
    let (Some(endpoint), Some(token)) = (&metadata.userinfo_endpoint, answer["access_token"].as_str()) else {
        return Err(missing());
    };
    let bearer = format!("Bearer {token}");
    let answered = oauth::get(endpoint, &[("Authorization", &bearer)], cancel);
    let user = answered.map_err(|error| OidcError::Claims(format!("userinfo: {error}")))?;
    let user = user.object().ok_or_else(missing)?;
    // Or somebody else's answer could be put in place of it (OpenID Connect Core 5.3.2).
    if user["sub"].as_str().is_none_or(|sub| sub.is_empty() || claims["sub"] != sub) {
        return Err(OidcError::Claims("userinfo: it is about somebody else".to_owned()));
    }
    claims::email(&user)?.ok_or_else(missing)
}

struct Begun {
    verifier: String,
    nonce: String,
}

/// A thread's place; free again when dropped.
struct Flight<'a> {
    provider: &'a OidcProvider,
    number: u64,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        lock(&self.provider.flights).cancels.remove(&self.number);
    }
}
