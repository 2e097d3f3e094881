//! What every client of OAuth 2 needs, people's logins and tool servers alike: random words, PKCE (RFC 7636), forms,
//! and bounded requests to addresses that a guard has checked (RFC 6749).
//!
//! Knows nothing of who logs in or why. Nothing is sent on to where an answer redirects.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::guard::CheckedUrl;
use super::{Call, HttpClient, Method, NetError, Timeouts};
use crate::rt::Cancel;

/// A person waits for the answer, so a server that hangs must not take long.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    first_byte: Duration::from_secs(10),
    idle: Duration::from_secs(5),
    total: Some(Duration::from_secs(15)),
};
/// Largest answer that is read: metadata, key sets and tokens are a few KiB.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Longest `WWW-Authenticate` that is looked at, and longest error word that is quoted.
const CHALLENGE_BYTES_MAX: usize = 4 * 1024;
const ERROR_BYTES_MAX: usize = 64;

/// How a client names itself at a token endpoint (`auth_style` of contract engine 8.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthStyle {
    /// In the form; the only way of clients without a secret.
    Params,
    /// `Authorization: Basic`.
    Header,
}

/// A registered client. `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientAuth {
    pub id: String,
    /// Empty for public clients.
    pub secret: String,
    pub style: AuthStyle,
}

impl std::fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientAuth").field("id", &self.id).field("style", &self.style).finish_non_exhaustive()
    }
}

impl AuthStyle {
    /// The way that a server takes, by the list in its metadata; without one it takes the header (RFC 8414 2).
    pub fn of_metadata(metadata: &Value) -> Self {
        let methods = metadata["token_endpoint_auth_methods_supported"].as_array();
        let takes = |wanted: &str| methods.is_some_and(|all| all.iter().any(|method| method == wanted));
        match methods {
            Some(all) if !all.is_empty() && !takes("client_secret_basic") => Self::Params,
            _ => Self::Header,
        }
    }
}

/// What a server answered.
pub struct Answered {
    pub status: u16,
    /// `WWW-Authenticate`; empty when there is none.
    pub challenge: String,
    pub body: Vec<u8>,
}

impl Answered {
    /// The JSON object of a good answer.
    pub fn object(&self) -> Option<Value> {
        let is_good = (200..300).contains(&self.status);
        serde_json::from_slice::<Value>(&self.body).ok().filter(|value| is_good && value.is_object())
    }
}

/// Why a token endpoint gave no token.
#[derive(Debug)]
pub enum TokenError {
    Net(NetError),
    /// It said no: its error word (`invalid_grant`), or its status.
    Refused {
        status: u16,
        error: String,
    },
    /// Its answer holds no token.
    Odd,
}

impl std::fmt::Display for TokenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Net(error) => write!(f, "{error}"),
            Self::Refused { status, error } if error.is_empty() => write!(f, "status {status}"),
            Self::Refused { status, error } => write!(f, "{error} (status {status})"),
            Self::Odd => f.write_str("the answer holds no token"),
        }
    }
}

/// 32 characters of base64url that nobody can guess; None when the system has no randomness to give.
pub fn random_word() -> Option<String> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// 43 characters: a PKCE verifier of 32 random bytes.
pub fn verifier() -> Option<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// The S256 challenge of a verifier.
pub fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

/// `application/x-www-form-urlencoded`; pairs with an empty value are left out.
pub fn form(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        if !out.is_empty() {
            out.push('&');
        }
        push_escaped(&mut out, name);
        out.push('=');
        push_escaped(&mut out, value);
    }
    out
}

/// A URL with more in its query.
pub fn with_query(url: &str, pairs: &[(&str, &str)]) -> String {
    let joint = match url.split_once('?') {
        None => "?",
        Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
        Some(_) => "&",
    };
    [url, joint, &form(pairs)].concat()
}

fn push_escaped(out: &mut String, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

/// One request; whatever status comes back. Blocks up to 15 s. The body of the answer is read only if `reads_body`.
pub fn send(
    url: &CheckedUrl,
    method: Method,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
    reads_body: bool,
    cancel: &Cancel,
) -> Result<Answered, NetError> {
    let text = url.text();
    let client = HttpClient::new(TIMEOUTS).with_filter(url.filter()).without_reuse();
    let mut call = Call::new(method, &text).headers(headers);
    if let Some(body) = body {
        call = call.body(body);
    }
    let mut answer = client.send(&call, cancel)?;
    let challenge = answer.header("www-authenticate").filter(|text| text.len() <= CHALLENGE_BYTES_MAX);
    let challenge = challenge.unwrap_or("").to_owned();
    let body = if reads_body { answer.body(ANSWER_BYTES_MAX)? } else { Vec::new() };
    Ok(Answered { status: answer.status(), challenge, body })
}

/// The answer to a GET for JSON.
pub fn get(url: &CheckedUrl, headers: &[(&str, &str)], cancel: &Cancel) -> Result<Answered, NetError> {
    let mut all = vec![("Accept", "application/json")];
    all.extend_from_slice(headers);
    send(url, Method::Get, &all, None, true, cancel)
}

/// Asks a token endpoint; the object with the token.
pub fn ask_token(
    url: &CheckedUrl,
    client: &ClientAuth,
    pairs: &[(&str, &str)],
    cancel: &Cancel,
) -> Result<Value, TokenError> {
    let said = post_form(url, client, pairs, cancel)?;
    if said.is_object() { Ok(said) } else { Err(TokenError::Odd) }
}

/// Sends a form as that client; what it answers, null when that is no JSON.
pub fn post_form(
    url: &CheckedUrl,
    client: &ClientAuth,
    pairs: &[(&str, &str)],
    cancel: &Cancel,
) -> Result<Value, TokenError> {
    let mut pairs = pairs.to_vec();
    let mut headers = vec![("Accept", "application/json"), ("Content-Type", "application/x-www-form-urlencoded")];
    let basic;
    if client.style == AuthStyle::Header && !client.secret.is_empty() {
        // Both halves are form-encoded first (RFC 6749 2.3.1).
        let (mut name, mut secret) = (String::new(), String::new());
        push_escaped(&mut name, &client.id);
        push_escaped(&mut secret, &client.secret);
        basic = ["Basic ", &STANDARD.encode([&name, ":", &secret].concat())].concat();
        headers.push(("Authorization", &basic));
    } else {
        pairs.extend([("client_id", client.id.as_str()), ("client_secret", client.secret.as_str())]);
    }
    let body = form(&pairs);
    let answered = send(url, Method::Post, &headers, Some(body.as_bytes()), true, cancel).map_err(TokenError::Net)?;
    let said: Value = serde_json::from_slice(&answered.body).unwrap_or(Value::Null);
    let error = said["error"].as_str().map(plain_word);
    // Some servers say no with status 200.
    if let (Some(error), _) | (None, Some(error)) = (error, (!(200..300).contains(&answered.status)).then(String::new))
    {
        return Err(TokenError::Refused { status: answered.status, error });
    }
    Ok(said)
}

/// A word of a peer's as it may stand in a log.
pub fn plain_word(text: &str) -> String {
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    text.chars().filter(is_plain).take(ERROR_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn forms_challenges_and_words() {
        assert_eq!(form(&[("a", "b c&d"), ("none", ""), ("ü", "=")]), "a=b%20c%26d&%C3%BC=%3D");
        assert_eq!(with_query("https://a/x", &[("q", "1")]), "https://a/x?q=1");
        assert_eq!(with_query("https://a/x?y=2", &[("q", "1")]), "https://a/x?y=2&q=1");
        assert_eq!(with_query("https://a/x?", &[("q", "1")]), "https://a/x?q=1");
        // RFC 7636, appendix B.
        let challenge = challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert_eq!((random_word().unwrap().len(), verifier().unwrap().len()), (32, 43));
        assert_ne!(random_word(), random_word());
        assert_eq!(plain_word("invalid_grant\r\n<b>"), "invalid_grantb");
    }

    #[test]
    fn servers_say_how_clients_name_themselves() {
        let style = |methods: Value| AuthStyle::of_metadata(&json!({"token_endpoint_auth_methods_supported": methods}));
        assert_eq!(style(json!(["client_secret_post", "client_secret_basic"])), AuthStyle::Header);
        assert_eq!(style(json!(["client_secret_post"])), AuthStyle::Params);
        assert_eq!(style(json!(["none"])), AuthStyle::Params);
        assert_eq!(AuthStyle::of_metadata(&json!({})), AuthStyle::Header);
    }
}
