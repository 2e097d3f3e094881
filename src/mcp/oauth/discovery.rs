//! Who logs people in at a server, and how: protected resource metadata (RFC 9728), then the metadata of the
//! authorization server (RFC 8414, or OpenID Connect's), else fixed paths (contract engine 8.8).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Place;
use crate::mcp::{McpError, cut};
use crate::net::guard::CheckedUrl;
use crate::net::oauth::{self, Answered, AuthStyle};
use crate::net::url::{Url, redact_url};
use crate::net::{Method, NetError};
use crate::rt::Cancel;

/// What is asked for, at the latest, this long after the start: the last answer may take 15 s more, and the caller
/// waits for 30 s (contract http-api 11.2).
const ASKING: Duration = Duration::from_secs(15);

/// What a login needs to know. Every address is judged.
pub(super) struct Found {
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: CheckedUrl,
    pub(super) registration_endpoint: Option<CheckedUrl>,
    /// Where tokens can be given back (RFC 7009); None also for an address that may not be asked.
    pub(super) revocation_endpoint: Option<CheckedUrl>,
    /// It has told all that itself.
    pub(super) is_known: bool,
    /// How clients with a secret name themselves.
    pub(super) style: AuthStyle,
    /// It takes clients without a secret.
    pub(super) takes_public: bool,
    /// What the server suggests to ask for, with blanks between.
    pub(super) scopes: String,
    /// What the token will be for.
    pub(super) resource: String,
    /// Who sends browsers back (RFC 9207); empty when nobody said.
    pub(super) issuer: String,
    /// It promises to say so.
    pub(super) names_issuer: bool,
}

/// Asks, one request after the other.
pub(super) struct Asking<'a> {
    pub(super) place: &'a Place,
    pub(super) cancel: &'a Cancel,
    deadline: Instant,
}

impl<'a> Asking<'a> {
    pub(super) fn new(place: &'a Place, cancel: &'a Cancel) -> Self {
        Self { place, cancel, deadline: Instant::now() + ASKING }
    }

    pub(super) fn send(
        &self,
        url: &CheckedUrl,
        method: Method,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
        reads_body: bool,
    ) -> Result<Answered, McpError> {
        self.in_time()?;
        oauth::send(url, method, headers, body, reads_body, self.cancel).map_err(|error| net_error(error, url))
    }

    fn in_time(&self) -> Result<(), McpError> {
        let is_over = Instant::now() >= self.deadline;
        if is_over { Err(McpError::Timeout { what: "login", after: ASKING }) } else { Ok(()) }
    }

    /// The object at an address; None when there is none, or something that is no JSON. Redirects lead nowhere.
    fn object(&self, url: &CheckedUrl) -> Result<Option<Value>, McpError> {
        self.in_time()?;
        match oauth::get(url, &[], self.cancel) {
            Ok(answered) => Ok(answered.object()),
            // What is too large to be metadata is a page.
            Err(NetError::TooLarge { .. }) => Ok(None),
            Err(error) => Err(net_error(error, url)),
        }
    }

    /// Finds out all that a login needs. `headers` are those configured for the server.
    pub(super) fn discover(&self, headers: &[(String, String)]) -> Result<Found, McpError> {
        let probe = self.probe(headers)?;
        let resource = self.resource_metadata(&probe.challenge)?;
        // What asks for no login needs none, unless it says so of itself.
        if probe.status < 300 && resource.is_none() {
            return Err(McpError::Refused { reason: "the server asks for no login; set auth = \"\"".to_owned() });
        }
        let server = self.place.server().url();
        let named = resource.as_ref().and_then(|said| said["authorization_servers"][0].as_str());
        let issuer = match named {
            Some(issuer) => issuer.to_owned(),
            None => server.origin(),
        };
        let metadata = self.server_metadata(&issuer)?;
        let words = |said: &Value| {
            let all = said["scopes_supported"].as_array().map_or(&[][..], Vec::as_slice);
            all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        };
        let scopes = parameter(&probe.challenge, "scope");
        let suggested = || resource.as_ref().map(words).unwrap_or_default();
        let stated = resource.as_ref().and_then(|said| said["resource"].as_str()).map(str::to_owned);
        let mut found = self.endpoints(&issuer, metadata)?;
        found.scopes = scopes.filter(|scopes| !scopes.is_empty()).unwrap_or_else(suggested);
        found.resource = stated.unwrap_or_else(|| self.place.resource());
        Ok(found)
    }

    /// The first request of a client that has no token yet.
    fn probe(&self, headers: &[(String, String)]) -> Result<Answered, McpError> {
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "holt", "version": env!("CARGO_PKG_VERSION")}}});
        let mut all: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        all.push(("Accept", "application/json, text/event-stream"));
        let body = hello.to_string();
        let answered = self.send(self.place.server(), Method::Post, &all, Some(body.as_bytes()), false)?;
        match answered.status {
            // Some answer to a stranger's request as if they were not there.
            200..=299 | 400..=499 => Ok(answered),
            status => Err(McpError::Status { status, text: String::new() }),
        }
    }

    fn resource_metadata(&self, challenge: &str) -> Result<Option<Value>, McpError> {
        const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
        let server = self.place.server().url();
        let path = server.path_and_query.split('?').next().unwrap_or("/").trim_end_matches('/');
        let mut candidates = vec![format!("{}{WELL_KNOWN}{path}", server.origin())];
        if !path.is_empty() {
            candidates.push(format!("{}{WELL_KNOWN}", server.origin()));
        }
        if let Some(named) = parameter(challenge, "resource_metadata") {
            candidates.insert(0, named);
        }
        for candidate in candidates {
            let Some(said) = self.object(&self.place.check(&candidate)?)? else { continue };
            let resource = said["resource"].as_str();
            if resource.is_some_and(|resource| !self.place.is_within(resource)) {
                let reason = "its metadata is about another server (resource); tokens would not be for this one";
                return Err(McpError::Refused { reason: reason.to_owned() });
            }
            return Ok(Some(said));
        }
        Ok(None)
    }

    pub(super) fn server_metadata(&self, issuer: &str) -> Result<Option<Value>, McpError> {
        let url = self.place.check(issuer)?;
        let (origin, path) = (url.url().origin(), url.url().path_and_query.trim_end_matches('/').to_owned());
        let mut candidates = vec![
            format!("{origin}/.well-known/oauth-authorization-server{path}"),
            format!("{origin}/.well-known/openid-configuration{path}"),
        ];
        if !path.is_empty() {
            candidates.push(format!("{origin}{path}/.well-known/openid-configuration"));
        }
        for candidate in candidates {
            let Some(said) = self.object(&self.place.check(&candidate)?)? else { continue };
            // Or it could speak for a server that is not its own (RFC 8414 3.3).
            let stated = said["issuer"].as_str().unwrap_or("");
            if stated.trim_end_matches('/') != issuer.trim_end_matches('/') {
                let (stated, issuer) = (redact_url(stated), redact_url(issuer));
                let reason = format!("the login server at {} calls itself {}", cut(&issuer, 200), cut(&stated, 200));
                return Err(McpError::Refused { reason });
            }
            return Ok(Some(said));
        }
        Ok(None)
    }

    pub(super) fn endpoints(&self, issuer: &str, metadata: Option<Value>) -> Result<Found, McpError> {
        let issuer_url = Url::parse(issuer).map_err(|reason| McpError::Refused { reason: reason.to_owned() })?;
        let is_known = metadata.is_some();
        let said = metadata.unwrap_or_else(|| {
            let origin = issuer_url.origin();
            json!({"authorization_endpoint": format!("{origin}/authorize"), "token_endpoint": format!("{origin}/token"),
                "registration_endpoint": format!("{origin}/register")})
        });
        let needed = |name: &str| {
            let reason = || McpError::Protocol { reason: format!("its login server names no {name}") };
            said[name].as_str().ok_or_else(reason)
        };
        let lists = |name: &str, wanted: &str| said[name].as_array().map(|all| all.iter().any(|entry| entry == wanted));
        // Without it a stolen code could be used (RFC 9700 2.1.1).
        if lists("code_challenge_methods_supported", "S256") == Some(false) {
            let reason = "its login server does not know PKCE with S256".to_owned();
            return Err(McpError::Refused { reason });
        }
        let registration = said["registration_endpoint"].as_str();
        Ok(Found {
            authorization_endpoint: self.place.for_browser(needed("authorization_endpoint")?)?,
            token_endpoint: self.place.check(needed("token_endpoint")?)?,
            registration_endpoint: registration.map(|url| self.place.check(url)).transpose()?,
            revocation_endpoint: said["revocation_endpoint"].as_str().and_then(|url| self.place.check(url).ok()),
            is_known,
            style: AuthStyle::of_metadata(&said),
            takes_public: lists("token_endpoint_auth_methods_supported", "none").unwrap_or(!is_known),
            scopes: String::new(),
            resource: String::new(),
            issuer: if is_known { said["issuer"].as_str().unwrap_or("").to_owned() } else { String::new() },
            names_issuer: said["authorization_response_iss_parameter_supported"] == true,
        })
    }
}

/// A parameter of a `WWW-Authenticate` line (RFC 9110 11.6.1), as a token or in quotes.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let mut rest = challenge;
    loop {
        let at = rest.to_ascii_lowercase().find(name)?;
        let begins = rest[..at].chars().next_back().is_none_or(|before| matches!(before, ' ' | ',' | '\t'));
        let after = rest[at + name.len()..].trim_start();
        rest = &rest[at + name.len()..];
        let Some(value) = after.strip_prefix('=').filter(|_| begins) else { continue };
        let value = value.trim_start();
        return match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').map(|(value, _)| value.to_owned()),
            None => Some(value.split([',', ' ']).next().unwrap_or("").to_owned()),
        };
    }
}

pub(super) fn net_error(error: NetError, url: &CheckedUrl) -> McpError {
    match error {
        NetError::Cancelled => McpError::Cancelled,
        NetError::Refused { address } => {
            McpError::Refused { reason: format!("its login leads to {address}, which is not allowed") }
        }
        other => McpError::Connect { cause: format!("{}: {other}", url.url().origin()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let check = |challenge: &str, name: &str, expected: Option<&str>| {
            assert_eq!(parameter(challenge, name).as_deref(), expected, "{challenge}");
        };
        let full = "Bearer error=\"invalid_token\", resource_metadata=\"https://e/x?y=1\", scope=\"a b\"";
        check(full, "resource_metadata", Some("https://e/x?y=1"));
        check(full, "scope", Some("a b"));
        check("Bearer Resource_Metadata=https://e/x, scope = a", "resource_metadata", Some("https://e/x"));
        check("Bearer Resource_Metadata=https://e/x, scope = a", "scope", Some("a"));
        check("Bearer my_scope=\"x\", scope=\"y\"", "scope", Some("y"));
        check("Bearer scope=\"open", "scope", None);
        check("Bearer", "scope", None);
        check("Bearer scope", "scope", None);
        check("", "scope", None);
    }
}
