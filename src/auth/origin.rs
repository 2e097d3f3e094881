//! Where a request says it comes from and goes to: client address, `Origin`, `Host` (W-5, W-16).

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use crate::auth::bearer;
use crate::config::ApiConfig;
use crate::rt::{Headers, lock};

/// The rules, from the configuration.
pub struct OriginRules {
    /// Guarded by the mutex: the rules of now. Nothing is taken under it.
    now: Mutex<Arc<Rules>>,
}

struct Rules {
    cors_origins: Vec<String>,
    /// Lower-case host names beside the built-in ones.
    hosts: Vec<String>,
    trusted_proxies: Vec<(IpAddr, u8)>,
    external: bool,
}

impl OriginRules {
    /// The rules of a configuration; `machine` is this machine's own name.
    pub fn of(config: &ApiConfig, machine: Option<&str>) -> Self {
        let proxies = config.trusted_proxies.clone();
        Self::new(config.cors_origins.clone(), &config.allowed_hosts, proxies, config.external_url.as_deref(), machine)
    }

    /// Rules; `machine` is this machine's own name.
    pub fn new(
        cors_origins: Vec<String>,
        allowed_hosts: &[String],
        trusted_proxies: Vec<(IpAddr, u8)>,
        external_url: Option<&str>,
        machine: Option<&str>,
    ) -> Self {
        let mut hosts = vec!["localhost".to_owned()];
        if let Some(machine) = machine {
            hosts.push(machine.to_ascii_lowercase());
            hosts.push(format!("{}.local", machine.to_ascii_lowercase()));
        }
        let urls = external_url.into_iter().chain(cors_origins.iter().map(String::as_str));
        hosts.extend(urls.filter_map(authority).map(|authority| host_of(authority).to_ascii_lowercase()));
        hosts.extend(allowed_hosts.iter().map(|host| host_of(host).to_ascii_lowercase()));
        let rules = Rules { cors_origins, hosts, trusted_proxies, external: external_url.is_some() };
        Self { now: Mutex::new(Arc::new(rules)) }
    }

    /// Takes the rules of another, from the next request on.
    pub fn replace(&self, other: &Self) {
        let rules = other.now();
        *lock(&self.now) = rules;
    }

    fn now(&self) -> Arc<Rules> {
        Arc::clone(&lock(&self.now))
    }

    /// Whether origins besides our own are allowed.
    pub fn has_cors(&self) -> bool {
        !lock(&self.now).cors_origins.is_empty()
    }

    /// Whether the request's `Host` is one of ours. Requests with a bearer key or a machine's token and no `Origin` are
    /// exempt: no browser was tricked into them.
    pub fn host_allowed(&self, headers: &Headers) -> bool {
        let Some(host) = headers.get("host") else {
            return true; // HTTP/1.0; browsers always send one
        };
        let name = host_of(host).trim_end_matches('.');
        let literal = name.trim_start_matches('[').trim_end_matches(']');
        if literal.parse::<IpAddr>().is_ok() || self.now().hosts.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return true;
        }
        (bearer(headers).is_some() || shows_agent_token(headers)) && !headers.has("origin")
    }

    /// Whether an `Origin`, if there is one, is our own or a configured one.
    pub fn origin_allowed(&self, headers: &Headers) -> bool {
        let Some(origin) = headers.get("origin") else {
            return true;
        };
        self.is_cors_origin(origin) || is_same_origin(origin, headers.get("host"))
    }

    /// Whether the origin is literally in the configured list.
    pub fn is_cors_origin(&self, origin: &str) -> bool {
        self.now().cors_origins.iter().any(|known| known == origin)
    }

    /// The client's address: the peer, or what trusted proxies say of it.
    pub fn client_address(&self, headers: &Headers, peer: IpAddr) -> String {
        let peer = peer.to_canonical();
        if !self.is_trusted(peer) {
            return peer.to_string();
        }
        let forwarded: Vec<&str> = headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("x-forwarded-for"))
            .map(|(_, value)| value)
            .collect();
        if forwarded.is_empty() {
            let real = headers.get("x-real-ip").and_then(|text| text.trim().parse::<IpAddr>().ok());
            return real.map_or_else(|| peer.to_string(), |address| address.to_canonical().to_string());
        }
        // From the right: the first address that no trusted proxy has put there itself.
        let mut client = peer;
        for part in forwarded.iter().rev().flat_map(|line| line.rsplit(',')) {
            let Ok(address) = part.trim().parse::<IpAddr>() else { break };
            client = address.to_canonical();
            if !self.is_trusted(client) {
                break;
            }
        }
        client.to_string()
    }

    /// Whether the client speaks TLS: to us (`secure`), or to a trusted proxy that says so.
    pub fn is_https(&self, headers: &Headers, peer: IpAddr, secure: bool) -> bool {
        let said = || headers.get("x-forwarded-proto").and_then(|value| value.split(',').next());
        secure
            || (self.is_trusted(peer.to_canonical())
                && said().is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https")))
    }

    /// Whether the request surely comes from this machine, past no proxy: then setup needs no PIN (W-2).
    pub fn is_surely_local(&self, headers: &Headers, peer: IpAddr) -> bool {
        let forwarded = headers.iter().any(|(name, _)| {
            let name = name.to_ascii_lowercase();
            name == "via" || name == "forwarded" || name == "x-real-ip" || name.starts_with("x-forwarded-")
        });
        let host_is_local = headers.get("host").is_some_and(|host| {
            let name = host_of(host).trim_start_matches('[').trim_end_matches(']');
            name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        });
        let rules = self.now();
        peer.to_canonical().is_loopback()
            && host_is_local
            && !forwarded
            && !rules.external
            && rules.trusted_proxies.is_empty()
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.now().trusted_proxies.iter().any(|&(network, prefix)| in_network(address, network, prefix))
    }
}

/// Whether a request comes from a machine, or says so.
pub fn shows_agent_token(headers: &Headers) -> bool {
    headers.has("x-agent-token") || headers.has("x-tenant-token")
}

/// Whether the origin's host and port are those the request was sent to. The scheme may differ: a proxy may speak TLS
/// for us.
fn is_same_origin(origin: &str, host: Option<&str>) -> bool {
    let (Some(authority), Some(host)) = (authority(origin), host) else {
        return false;
    };
    let default_port = if origin.starts_with("https:") { ":443" } else { ":80" };
    authority.eq_ignore_ascii_case(host) || authority.eq_ignore_ascii_case(host.trim_end_matches(default_port))
}

/// `host[:port]` of a URL or an origin.
fn authority(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Some(&rest[..end]).filter(|authority| !authority.is_empty() && !authority.contains('@'))
}

/// The host of `host[:port]`; an IPv6 literal keeps its brackets.
fn host_of(authority: &str) -> &str {
    match authority.rfind(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next().unwrap_or(authority),
    }
}

fn in_network(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let ((address, address_width), (network, network_width)) = (bits(address), bits(network));
    if address_width != network_width {
        return false;
    }
    prefix == 0 || (address ^ network) >> (128 - u32::from(prefix.min(address_width))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> OriginRules {
        OriginRules::new(
            vec!["https://app.example".into()],
            &["holt.lan".into()],
            vec![("10.0.0.0".parse().unwrap(), 8)],
            None,
            Some("Pi"),
        )
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn hosts_are_ours_or_refused() {
        let check = |headers: &[(&str, &str)], expected| {
            assert_eq!(rules().host_allowed(&Headers::from_pairs(headers)), expected, "{headers:?}");
        };
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "192.168.1.5:8080",
            "[::1]:80",
            "pi",
            "pi.local:1",
            "holt.lan",
            "app.example",
            "pi.",
        ] {
            check(&[("Host", host)], true);
        }
        for host in ["evil.example", "pi.evil.example", "localhost.evil.example:80", "", "192.168.1.5.evil.example"] {
            check(&[("Host", host)], false);
        }
        check(&[("Host", "any"), ("Authorization", "Bearer k")], true);
        check(&[("Host", "any"), ("Authorization", "Bearer k"), ("Origin", "http://any")], false);
        check(&[], true);
    }

    #[test]
    fn origins_are_our_own_or_configured() {
        let check = |headers: &[(&str, &str)], expected| {
            assert_eq!(rules().origin_allowed(&Headers::from_pairs(headers)), expected, "{headers:?}");
        };
        check(&[("Host", "pi:8080")], true);
        check(&[("Host", "pi:8080"), ("Origin", "http://pi:8080")], true);
        check(&[("Host", "pi"), ("Origin", "https://pi")], true);
        check(&[("Host", "pi:443"), ("Origin", "https://pi")], true);
        check(&[("Host", "pi"), ("Origin", "https://app.example")], true);
        for origin in ["http://pi:8081", "http://evil.example", "null", "", "file://", "http://pi:8080@evil.example"] {
            check(&[("Host", "pi:8080"), ("Origin", origin)], false);
        }
    }

    #[test]
    fn forwarding_headers_count_only_from_trusted_peers() {
        let check = |peer: &str, headers: &[(&str, &str)], expected: &str| {
            assert_eq!(rules().client_address(&Headers::from_pairs(headers), ip(peer)), expected);
        };
        check("192.0.2.1", &[("X-Forwarded-For", "1.2.3.4")], "192.0.2.1");
        check("10.1.1.1", &[("X-Forwarded-For", "6.6.6.6, 1.2.3.4, 10.2.2.2")], "1.2.3.4");
        check("10.1.1.1", &[("X-Real-Ip", "1.2.3.4")], "1.2.3.4");
        check("10.1.1.1", &[], "10.1.1.1");
        check("10.1.1.1", &[("X-Forwarded-For", "garbage")], "10.1.1.1");
        check("::ffff:192.0.2.1", &[], "192.0.2.1");
        for (peer, said, secure, expected) in [
            ("10.1.1.1", "https", false, true),
            ("10.1.1.1", "HTTPS, http", false, true),
            ("10.1.1.1", "http", false, false),
            ("192.0.2.1", "https", false, false),
            ("192.0.2.1", "http", true, true),
        ] {
            let headers = Headers::from_pairs(&[("X-Forwarded-Proto", said)]);
            assert_eq!(rules().is_https(&headers, ip(peer), secure), expected, "{peer} {said}");
        }
    }

    #[test]
    fn only_the_machine_itself_needs_no_pin() {
        let plain = OriginRules::new(Vec::new(), &[], Vec::new(), None, None);
        let check = |peer: &str, headers: &[(&str, &str)], expected| {
            assert_eq!(plain.is_surely_local(&Headers::from_pairs(headers), ip(peer)), expected, "{peer} {headers:?}");
        };
        check("127.0.0.1", &[("Host", "localhost:8080")], true);
        check("::1", &[("Host", "[::1]:8080")], true);
        check("192.168.1.2", &[("Host", "localhost:8080")], false);
        check("127.0.0.1", &[("Host", "pi.local")], false);
        check("127.0.0.1", &[], false);
        for header in ["Via", "Forwarded", "X-Forwarded-Proto", "X-Real-IP"] {
            check("127.0.0.1", &[("Host", "localhost"), (header, "x")], false);
        }
        assert!(!rules().is_surely_local(&Headers::from_pairs(&[("Host", "localhost")]), ip("127.0.0.1")));
    }
}
