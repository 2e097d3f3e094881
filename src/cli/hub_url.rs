//! Where the hub is.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The base address of a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubUrl {
    /// Without brackets.
    host: String,
    port: u16,
    is_tls: bool,
    /// Empty, or `/base` where a proxy puts the hub under a path.
    base: String,
}

impl HubUrl {
    /// Reads `http://host:port`, `ws://host:port` or `host:port`, and `https` or `wss` likewise.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let (is_tls, rest) = match trimmed.split_once("://") {
            None => (false, trimmed),
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "http" | "ws" => (false, rest),
                "https" | "wss" => (true, rest),
                _ => return Err(format!("{scheme}:// is not spoken; use http://host:port or https://host")),
            },
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '?' | '#' | '\\');
        if authority.is_empty() || rest.contains(odd) {
            return Err(format!("{text:?} is not the address of a hub; use http://host:port"));
        }
        let (host, port) = split_port(authority, if is_tls { 443 } else { 80 })
            .ok_or_else(|| format!("{text:?} has no valid host and port"))?;
        Ok(Self { host, port, is_tls, base: path.trim_end_matches('/').to_owned() })
    }

    /// How this machine reaches a hub that listens there; None when only the hub knows its port.
    pub(super) fn of_listen(listen: &str, is_tls: bool) -> Option<Self> {
        let (host, port) = listen.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let everywhere = host.is_empty() || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
        let host = if everywhere { "127.0.0.1" } else { host };
        let port: u16 = port.parse().ok().filter(|&port| port != 0)?;
        Some(Self { host: host.to_owned(), port, is_tls, base: String::new() })
    }

    /// For a TCP connection.
    pub(super) fn host_and_port(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Whether nothing leaves this machine.
    pub(super) fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost") || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Whether TLS is spoken.
    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The path that all others are below.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// For the `Host` line.
    pub(super) fn authority(&self) -> String {
        let brackets = self.host.parse::<Ipv6Addr>().is_ok();
        if brackets { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for HubUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.is_tls { "https" } else { "http" }, self.authority(), self.base)
    }
}

fn split_port(authority: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        None => default,
        Some(port) => port.parse().ok().filter(|&port| port != 0)?,
    };
    let valid = !host.is_empty() && (authority.starts_with('[') || !host.contains(':'));
    valid.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused() {
        let check = |text: &str, expected: Option<(&str, bool)>| {
            let found = HubUrl::parse(text).ok().map(|url| (url.to_string(), url.is_loopback()));
            assert_eq!(found, expected.map(|(url, loopback)| (url.to_owned(), loopback)), "{text}");
        };
        check("http://127.0.0.1:8080", Some(("http://127.0.0.1:8080", true)));
        check("ws://localhost:9/", Some(("http://localhost:9", true)));
        check("pi:8080", Some(("http://pi:8080", false)));
        check("HTTP://pi", Some(("http://pi:80", false)));
        check("http://[::1]:8080/holt/", Some(("http://[::1]:8080/holt", true)));
        check("https://pi", Some(("https://pi:443", false)));
        check("WSS://[::1]:1/holt", Some(("https://[::1]:1/holt", true)));
        check("ftp://pi", None);
        check("http://user@pi", None);
        check("http://pi:0", None);
        check("http://pi:99999", None);
        check("http://::1:80", None);
        check("http://[x]:80", None);
        check("http://pi/?token=x", None);
        check("", None);
        assert_eq!(HubUrl::parse("pi:1/base").unwrap().base(), "/base");
    }

    #[test]
    fn a_hub_of_this_machine_is_reached_where_it_listens() {
        let check = |listen: &str, expected: Option<&str>| {
            assert_eq!(HubUrl::of_listen(listen, false).map(|url| url.to_string()).as_deref(), expected, "{listen}");
        };
        check("127.0.0.1:8080", Some("http://127.0.0.1:8080"));
        check(":8080", Some("http://127.0.0.1:8080"));
        check("0.0.0.0:80", Some("http://127.0.0.1:80"));
        check("[::]:80", Some("http://127.0.0.1:80"));
        check("[::1]:80", Some("http://[::1]:80"));
        check("192.168.1.5:80", Some("http://192.168.1.5:80"));
        check("127.0.0.1:0", None);
        assert_eq!(HubUrl::of_listen(":1", true).unwrap().to_string(), "https://127.0.0.1:1");
    }
}
