//! A login at a server: from nothing to the page that a person opens, and from what their browser brings back to a
//! token.

use std::time::Instant;

use serde_json::{Value, json};

use super::discovery::{Asking, Found};
use super::{Pending, Place, Token};
use crate::mcp::McpError;
use crate::net::Method;
use crate::net::oauth::{self, AuthStyle, ClientAuth, TokenError};
use crate::rt::{Cancel, clock};
use crate::store::random_hex;

/// How we call ourselves where we register.
const CLIENT_NAME: &str = "Holt";
/// Longest words of a peer that are kept.
const WORD_BYTES_MAX: usize = 16 * 1024;

/// What somebody wants to log in at.
pub struct Wish<'a> {
    /// The server's name.
    pub tool: &'a str,
    pub place: Place,
    /// Configured header lines of the server.
    pub headers: &'a [(String, String)],
    /// A client that is registered already; empty: we register ourselves.
    pub client_id: &'a str,
    pub client_secret: &'a str,
    /// What to ask for; empty: what the server suggests.
    pub scopes: &'a [String],
    pub redirect_uri: &'a str,
    /// Who wants it, for the audit log.
    pub actor: &'a str,
}

/// Finds out how to log in at a server and registers there if need be; the login that a person has to end. Blocks up
/// to 30 s; a cancel ends it.
pub fn begin(wish: &Wish<'_>, cancel: &Cancel) -> Result<Pending, McpError> {
    let asking = Asking::new(&wish.place, cancel);
    let found = asking.discover(wish.headers)?;
    let scopes = if wish.scopes.is_empty() { found.scopes.clone() } else { wish.scopes.join(" ") };
    let client = if wish.client_id.is_empty() {
        register(&asking, &found, wish.redirect_uri, &scopes)?
    } else {
        let (id, secret) = (wish.client_id.to_owned(), wish.client_secret.to_owned());
        ClientAuth { id, secret, style: found.style }
    };
    let random = || McpError::Start { cause: "the system gave no random bytes".to_owned() };
    let state = oauth::random_word().ok_or_else(random)?;
    let verifier = oauth::verifier().ok_or_else(random)?;
    let auth_url = oauth::with_query(
        &found.authorization_endpoint,
        &[
            ("response_type", "code"),
            ("client_id", &client.id),
            ("redirect_uri", wish.redirect_uri),
            ("state", &state),
            ("code_challenge", &oauth::challenge(&verifier)),
            ("code_challenge_method", "S256"),
            ("resource", &found.resource),
            ("scope", &scopes),
        ],
    );
    Ok(Pending {
        id: random_hex::<16>().map_err(|_| random())?,
        tool: wish.tool.to_owned(),
        auth_url,
        created_at: clock::unix_ms(),
        actor: wish.actor.to_owned(),
        begun: Instant::now(),
        state,
        verifier,
        client,
        token_url: found.token_endpoint.text(),
        redirect_uri: wish.redirect_uri.to_owned(),
        resource: found.resource,
        scopes,
        issuer: found.issuer,
        names_issuer: found.names_issuer,
        place: wish.place.clone(),
    })
}

/// Registers us (RFC 7591).
fn register(asking: &Asking<'_>, found: &Found, redirect_uri: &str, scopes: &str) -> Result<ClientAuth, McpError> {
    let refused = |reason: String| McpError::Refused { reason };
    let closed = "its login server takes no new clients; register one there and set client_id and client_secret";
    let endpoint = found.registration_endpoint.as_ref().ok_or_else(|| refused(closed.to_owned()))?;
    let method = match found.style {
        _ if found.takes_public => "none",
        AuthStyle::Header => "client_secret_basic",
        AuthStyle::Params => "client_secret_post",
    };
    let mut body = json!({
        "client_name": CLIENT_NAME,
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method,
    });
    if !scopes.is_empty() {
        body["scope"] = json!(scopes);
    }
    let headers = [("Accept", "application/json")];
    let answered = asking.send(endpoint, Method::Post, &headers, Some(body.to_string().as_bytes()), true)?;
    let Some(said) = answered.object().filter(|_| matches!(answered.status, 200 | 201)) else {
        let said: Value = serde_json::from_slice(&answered.body).unwrap_or(Value::Null);
        let word = said["error"].as_str().map(oauth::plain_word).unwrap_or_default();
        return Err(match answered.status {
            404 | 405 => refused(closed.to_owned()),
            status => refused(format!("its login server refused to register Holt: status {status} {word}")),
        });
    };
    let word = |name: &str| said[name].as_str().filter(|word| word.len() <= WORD_BYTES_MAX).unwrap_or("").to_owned();
    let (id, secret) = (word("client_id"), word("client_secret"));
    if id.is_empty() {
        return Err(McpError::Protocol { reason: "its login server registered Holt without a client_id".to_owned() });
    }
    let style = match said["token_endpoint_auth_method"].as_str().unwrap_or(method) {
        "client_secret_basic" => AuthStyle::Header,
        _ => AuthStyle::Params,
    };
    Ok(ClientAuth { id, secret, style })
}

/// Exchanges a code for a token. `issuer` is what the browser brought along (RFC 9207). The error is for the log.
/// Blocks up to 15 s.
pub fn exchange(pending: &Pending, code: &str, issuer: Option<&str>, cancel: &Cancel) -> Result<Token, String> {
    // Another server's answer: its code must not be sent to this one.
    let is_right = match issuer {
        Some(issuer) => pending.issuer.is_empty() || issuer == pending.issuer,
        None => !pending.names_issuer,
    };
    if !is_right {
        return Err("the answer is from another login server".to_owned());
    }
    let url = pending.place.check(&pending.token_url).map_err(|error| error.to_string())?;
    let pairs = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", &pending.redirect_uri),
        ("code_verifier", &pending.verifier),
        ("resource", &pending.resource),
    ];
    let said = oauth::ask_token(&url, &pending.client, &pairs, cancel).map_err(|error| error.to_string())?;
    let token = Token {
        access: String::new(),
        refresh: String::new(),
        expires_at: None,
        scopes: pending.scopes.clone(),
        client: pending.client.clone(),
        token_url: pending.token_url.clone(),
        resource: pending.resource.clone(),
        stored_at: clock::unix_ms(),
    };
    updated(token, &said).map_err(|error| error.to_string())
}

/// A token with what a token endpoint says of it. What it does not say stays: also the refresh token, which only some
/// servers replace each time.
pub(super) fn updated(old: Token, said: &Value) -> Result<Token, TokenError> {
    let word = |name: &str| said[name].as_str().filter(|word| !word.is_empty() && word.len() <= WORD_BYTES_MAX);
    let is_sendable = |word: &&str| word.bytes().all(|byte| byte.is_ascii_graphic());
    let access = word("access_token").filter(is_sendable).ok_or(TokenError::Odd)?;
    if word("token_type").is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(TokenError::Odd);
    }
    // Some write numbers as texts.
    let expires_in = &said["expires_in"];
    let seconds = expires_in.as_f64().or_else(|| expires_in.as_str()?.parse().ok());
    #[expect(clippy::cast_possible_truncation, reason = "clamped to ten years")]
    let lasts_ms = seconds.filter(|s| s.is_finite() && *s > 0.0).map(|s| (s.min(315_360_000.0) * 1000.0) as i64);
    let now = clock::unix_ms();
    Ok(Token {
        access: access.to_owned(),
        refresh: word("refresh_token").map_or(old.refresh, str::to_owned),
        expires_at: lasts_ms.map(|ms| now + ms),
        scopes: word("scope").map_or(old.scopes, str::to_owned),
        stored_at: now,
        ..Token { refresh: String::new(), scopes: String::new(), ..old }
    })
}
