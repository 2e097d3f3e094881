//! `[api]`, `[api.auth]`, `[http]`: from typed to validated.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::{at_least, number, time, time_above_zero};
use super::duration::parse_go_duration;
use super::env::Env;
use super::error::ConfigError;
use super::oidc::oidc;
use super::raw::Typed;
use super::{ApiConfig, AuthConfig, StaticKey, TlsFiles};
use crate::limits;

/// What a static key may be allowed (contract http-api 2, holt-additions "Scopes").
pub const SCOPES: [&str; 23] = [
    "admin",
    "agents:read",
    "agents:write",
    "approvals:read",
    "approvals:write",
    "audit:read",
    "browser:read",
    "browser:write",
    "chat",
    "costs:read",
    "health",
    "kv:read",
    "kv:write",
    "machines:read",
    "machines:write",
    "schedules:read",
    "schedules:write",
    "sessions:read",
    "sessions:write",
    "skills:read",
    "skills:write",
    "tools:read",
    "tools:write",
];

/// Holt's own default: nobody else can reach it.
const LISTEN: &str = "127.0.0.1:8080";
/// What a file of the reference means when it does not say.
const LISTEN_REFERENCE: &str = ":8080";
const LOGIN_RATE_LIMIT: u32 = 5;
const LOGIN_RATE_WINDOW: Duration = Duration::from_secs(15 * 60);
const REPLAY_BUFFER_TTL: Duration = Duration::from_secs(5 * 60);
const SESSION_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
const HTTP_CONNECTIONS_MAX: usize = 512;
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Larger bodies are for routes that say so (architecture section 2).
const BODY_BYTES_LIMIT: usize = 16 * 1024 * 1024;
const WORKERS_LIMIT: usize = 256;

pub(super) fn api(typed: &mut Typed, reference: bool) -> Result<ApiConfig, ConfigError> {
    let login_rate_window = login_rate_window(typed);
    let cors_origins = cors_origins(typed)?;
    let raw = &typed.raw.api;
    if raw.enabled == Some(false) {
        return Err(typed.bad("api.enabled", "must be true: without its API Holt has nothing to serve"));
    }
    let listen = match raw.listen.as_str() {
        "" if reference && typed.has_file => LISTEN_REFERENCE,
        "" => LISTEN,
        listen => listen,
    };
    check_listen(listen).map_err(|reason| typed.bad("api.listen", reason))?;
    if !(raw.rate_limit >= 0.0 && raw.rate_limit.is_finite()) {
        return Err(typed.bad("api.rate_limit", format!("must be 0 or more, got {}", raw.rate_limit)));
    }
    if let Some(empty) = raw.allowed_hosts.iter().position(|host| host.trim().is_empty()) {
        return Err(typed.bad("api.allowed_hosts", format!("entry {} is empty", empty + 1)));
    }
    let http = &typed.raw.http;
    Ok(ApiConfig {
        listen: listen.to_owned(),
        tls: tls(typed)?,
        cors_origins,
        allowed_hosts: raw.allowed_hosts.iter().map(|host| host.trim().to_ascii_lowercase()).collect(),
        trusted_proxies: trusted_proxies(typed)?,
        external_url: external_url(typed)?,
        timezone: timezone(typed)?,
        rate_limit: raw.rate_limit,
        login_rate_limit: match raw.login_rate_limit {
            None => LOGIN_RATE_LIMIT,
            Some(limit) => number(typed, "api.login_rate_limit", limit, 0, u32::MAX)?,
        },
        login_rate_window,
        websocket_enabled: raw.websocket_enabled.unwrap_or(true),
        websocket_connections_max: number(
            typed,
            "api.websocket_max_connections",
            raw.websocket_max_connections,
            0,
            usize::MAX,
        )?,
        replay_buffer_ttl: time(
            typed,
            "api.websocket_replay_buffer_ttl",
            raw.websocket_replay_buffer_ttl.as_deref(),
            REPLAY_BUFFER_TTL,
        )?,
        web_dir: web_dir(typed)?,
        http_connections_max: at_least(typed, "http.connections_max", http.connections_max, 1, HTTP_CONNECTIONS_MAX)?,
        http_workers: number(typed, "http.workers", http.workers.unwrap_or(0), 0, WORKERS_LIMIT)?,
        body_bytes_max: match http.body_bytes_max {
            None => BODY_BYTES_MAX,
            Some(bytes) => number(typed, "http.body_bytes_max", bytes, 1024, BODY_BYTES_LIMIT)?,
        },
        head_timeout: time_above_zero(typed, "http.head_timeout", http.head_timeout.as_deref(), limits::HEAD_TIMEOUT)?,
        body_timeout: time_above_zero(typed, "http.body_timeout", http.body_timeout.as_deref(), limits::BODY_TIMEOUT)?,
        idle_timeout: time_above_zero(typed, "http.idle_timeout", http.idle_timeout.as_deref(), limits::IDLE_TIMEOUT)?,
    })
}

pub(super) fn auth(typed: &mut Typed, env: &Env, data_dir: &Path) -> Result<AuthConfig, ConfigError> {
    let oidc = oidc(typed, env, data_dir)?;
    let raw = &typed.raw.api.auth;
    let hash = &raw.password_hash;
    if !hash.is_empty() && !is_bcrypt(hash) {
        let reason = "must be a bcrypt hash that begins with $2a$ or $2b$; `holt passwd` makes one";
        return Err(typed.bad("api.auth.password_hash", reason));
    }
    let secret = &raw.session_secret;
    let hex = secret.bytes().all(|byte| byte.is_ascii_hexdigit()) && secret.len().is_multiple_of(2);
    if !secret.is_empty() && (!hex || secret.len() < 64) {
        return Err(typed.bad("api.auth.session_secret", "must be at least 32 bytes in hex (64 digits)"));
    }
    Ok(AuthConfig {
        keys: keys(typed)?,
        password_hash: some_text(hash),
        session_secret: some_text(secret),
        session_max_age: time_above_zero(
            typed,
            "api.auth.session_max_age",
            raw.session_max_age.as_deref(),
            SESSION_AGE_MAX,
        )?,
        oidc,
    })
}

fn keys(typed: &Typed) -> Result<Vec<StaticKey>, ConfigError> {
    let mut names = HashSet::new();
    let mut keys = Vec::with_capacity(typed.raw.api.keys.len());
    for (at, key) in typed.raw.api.keys.iter().enumerate() {
        let bad = |field: &str, reason: String| Err(typed.bad(&format!("api.keys[{at}].{field}"), reason));
        if key.name.is_empty() {
            return bad("name", "must be given".to_owned());
        }
        if !names.insert(&key.name) {
            return bad("name", format!("must be unique, {:?} is there twice", key.name));
        }
        if key.key.is_empty() {
            return bad("key", "must be given".to_owned());
        }
        if key.scopes.is_empty() {
            return bad("scopes", format!("must name at least one scope; known: {}", SCOPES.join(", ")));
        }
        if let Some(unknown) = key.scopes.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
            return bad("scopes", format!("unknown scope {unknown:?}; known: {}", SCOPES.join(", ")));
        }
        keys.push(StaticKey { name: key.name.clone(), key: key.key.clone(), scopes: key.scopes.clone() });
    }
    Ok(keys)
}

/// The reference silently takes its default for what it cannot parse; such a file must still start.
fn login_rate_window(typed: &mut Typed) -> Duration {
    let text = &typed.raw.api.login_rate_window;
    if text.is_empty() {
        return LOGIN_RATE_WINDOW;
    }
    if let Some(window) = parse_go_duration(text).filter(|window| !window.is_zero()) {
        return window;
    }
    let warning = format!("api.login_rate_window: {text:?} is not a duration; 15m is used");
    typed.warnings.push(warning);
    LOGIN_RATE_WINDOW
}

fn cors_origins(typed: &mut Typed) -> Result<Vec<String>, ConfigError> {
    let mut origins = Vec::new();
    let mut odd = Vec::new();
    for text in &typed.raw.api.cors_origins {
        if text.contains('*') {
            let reason = "must name origins one by one: * is refused because logins are cookies";
            return Err(typed.bad("api.cors_origins", reason));
        }
        // Browsers send origins in lower case and without a path.
        let origin = text.trim().trim_end_matches('/').to_ascii_lowercase();
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if host.is_none_or(|host| host.is_empty() || host.contains('/')) {
            odd.push(text.clone());
        }
        origins.push(origin);
    }
    for text in odd {
        typed
            .warnings
            .push(format!("api.cors_origins: {text:?} matches no browser; write https://host or http://host:port"));
    }
    Ok(origins)
}

fn timezone(typed: &Typed) -> Result<String, ConfigError> {
    let name = some_text(&typed.raw.api.timezone).unwrap_or_else(|| "UTC".to_owned());
    super::schedules::zone(&name).map_err(|reason| typed.bad("api.timezone", reason))?;
    Ok(name)
}

fn trusted_proxies(typed: &Typed) -> Result<Vec<(IpAddr, u8)>, ConfigError> {
    let networks = typed.raw.api.trusted_proxies.iter();
    let parse = |text: &String| {
        parse_network(text).ok_or_else(|| {
            let reason = format!("must be addresses such as \"10.0.0.0/8\" or \"::1\", got {text:?}");
            typed.bad("api.trusted_proxies", reason)
        })
    };
    networks.map(parse).collect()
}

fn external_url(typed: &Typed) -> Result<Option<String>, ConfigError> {
    let url = typed.raw.api.external_url.trim().trim_end_matches('/');
    if url.is_empty() {
        return Ok(None);
    }
    match url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) {
        Some(host) if !host.is_empty() && !host.contains('@') => Ok(Some(url.to_owned())),
        _ => Err(typed.bad("api.external_url", "must be an http or https address without a user name")),
    }
}

fn tls(typed: &Typed) -> Result<Option<TlsFiles>, ConfigError> {
    let raw = &typed.raw.api;
    let file = |key: &str, path: &str| match path {
        "" => Err(typed.bad(key, "must name a PEM file when api.tls is true")),
        path => Ok(PathBuf::from(path)),
    };
    if !raw.tls {
        return Ok(None);
    }
    let cert_file = file("api.cert_file", &raw.cert_file)?;
    Ok(Some(TlsFiles { cert_file, key_file: file("api.key_file", &raw.key_file)? }))
}

fn web_dir(typed: &Typed) -> Result<Option<PathBuf>, ConfigError> {
    let Some(dir) = some_text(&typed.raw.api.web_dir).map(PathBuf::from) else { return Ok(None) };
    if !dir.is_dir() {
        return Err(typed.bad("api.web_dir", format!("{} is not a directory", dir.display())));
    }
    Ok(Some(dir))
}

/// `host:port`, `[v6]:port` or `:port`.
fn check_listen(listen: &str) -> Result<(), String> {
    let wrong =
        || format!("must be an address such as \"127.0.0.1:8080\", \"[::1]:8080\" or \":8080\", got {listen:?}");
    let (host, port) = listen.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_| wrong())?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match bare {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.contains([':', '[', ']', '/', ' ', '@']),
    };
    if good { Ok(()) } else { Err(wrong()) }
}

/// An address, or a network as address and prefix length.
fn parse_network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = match text.trim().split_once('/') {
        None => (text.trim(), None),
        Some((address, prefix)) => (address, Some(prefix.parse::<u8>().ok()?)),
    };
    let address: IpAddr = address.parse().ok()?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.unwrap_or(bits);
    (prefix <= bits).then_some((address, prefix))
}

/// `$2a$` or `$2b$`, a cost, 53 characters. More is the business of the crate that checks passwords.
pub(super) fn is_bcrypt(hash: &str) -> bool {
    (hash.starts_with("$2a$") || hash.starts_with("$2b$")) && hash.len() == 60 && hash.is_ascii()
}

pub(super) fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on() {
        for good in [":8080", "127.0.0.1:0", "0.0.0.0:80", "[::1]:8080", "localhost:65535", "nas.local:1"] {
            assert_eq!(check_listen(good), Ok(()), "{good}");
        }
        for bad in ["", "8080", "127.0.0.1", ":", ":x", ":65536", "::1:80", "[::1]", "[x]:80", "http://a:80", "a b:1"] {
            assert!(check_listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_of_proxies() {
        let v4 = |a, b, c, d| IpAddr::from([a, b, c, d]);
        assert_eq!(parse_network("10.0.0.0/8"), Some((v4(10, 0, 0, 0), 8)));
        assert_eq!(parse_network(" 127.0.0.1 "), Some((v4(127, 0, 0, 1), 32)));
        assert_eq!(parse_network("::1").map(|(_, bits)| bits), Some(128));
        for bad in ["", "10.0.0.0/33", "::/129", "proxy", "10.0.0.0/", "10/8"] {
            assert_eq!(parse_network(bad), None, "{bad}");
        }
    }
}
