//! Where the hub is: from the configured address to what is dialled (contract agent-link 1.1). Pure.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::net::address::AddressKind;
use crate::net::url::{Host, Url};

/// The path of the link at every hub.
const LINK_PATH: &str = "/api/v1/agent/ws";
/// The base path of the gateway at every hub.
const GATEWAY_PATH: &str = "/api/v1/agent/llm";

/// A hub's address: scheme, host and port, and what a proxy in front of it may want as credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct HubAddress {
    url: Url,
}

/// Hides credentials.
impl std::fmt::Debug for HubAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url.origin())
    }
}

impl HubAddress {
    /// Reads an address: `host`, `host:port`, or a URL of `http`, `https`, `ws` or `wss` without a path. Without a
    /// scheme it is `http`, as at the reference. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_end_matches('/');
        if text.is_empty() {
            return Err("the hub's address is empty; give one such as https://hub.example.net:8080".to_owned());
        }
        if text.ends_with(':') {
            return Err("the hub's address names no host".to_owned());
        }
        let with_scheme = match text.split_once("://") {
            None => format!("http://{text}"),
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "http" | "ws" => format!("http://{rest}"),
                "https" | "wss" => format!("https://{rest}"),
                _ => return Err("the hub's address begins with http://, https://, ws:// or wss://".to_owned()),
            },
        };
        let mut url = Url::parse(&with_scheme).map_err(|reason| format!("the hub's address: {reason}"))?;
        let path = url.path_and_query.split('?').next().unwrap_or("");
        if path != "/" {
            return Err("the hub's address has a path; give scheme, host and port alone".to_owned());
        }
        "/".clone_into(&mut url.path_and_query);
        Ok(Self { url })
    }

    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        self.url.https
    }

    /// Who is dialled.
    pub fn host(&self) -> &Host {
        &self.url.host
    }

    /// The port that is dialled.
    pub fn port(&self) -> u16 {
        self.url.port
    }

    /// Host, and port where it is not the scheme's own: for the `Host` header.
    pub fn authority(&self) -> String {
        self.url.authority()
    }

    /// The path of the link.
    pub fn link_path(&self) -> &'static str {
        LINK_PATH
    }

    /// `Basic ...`, when the address carries a user.
    pub fn basic(&self) -> Option<String> {
        if self.url.userinfo.is_empty() {
            return None;
        }
        Some(format!("Basic {}", STANDARD.encode(unescape(&self.url.userinfo))))
    }

    /// Scheme and authority, without credentials: for logs, and to compare hubs by.
    pub fn origin(&self) -> String {
        self.url.origin()
    }

    /// As it is stored: with credentials.
    pub fn text(&self) -> String {
        self.url.text().trim_end_matches('/').to_owned()
    }

    /// The URL of the link, without credentials.
    pub fn link_url(&self) -> String {
        format!("{}://{}{LINK_PATH}", if self.url.https { "wss" } else { "ws" }, self.url.authority())
    }

    /// The base of the hub's gateway to models (contract agent-link 5), credentials included.
    pub fn gateway_base(&self) -> String {
        format!("{}{GATEWAY_PATH}", self.text())
    }
}

/// Whether plain text to that address leaves the networks of our own.
pub(super) fn is_exposed(ip: IpAddr) -> bool {
    !matches!(AddressKind::of(ip), AddressKind::Private | AddressKind::Loopback | AddressKind::LinkLocal)
}

/// Takes `%XX` back.
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_the_urls_of_the_contract() {
        let check = |text: &str, link: &str, gateway: &str| {
            let address = HubAddress::parse(text).unwrap();
            assert_eq!((address.link_url().as_str(), address.gateway_base().as_str()), (link, gateway), "{text}");
        };
        check("127.0.0.1:8080", "ws://127.0.0.1:8080/api/v1/agent/ws", "http://127.0.0.1:8080/api/v1/agent/llm");
        check(
            " https://hub.example.net// ",
            "wss://hub.example.net/api/v1/agent/ws",
            "https://hub.example.net/api/v1/agent/llm",
        );
        check(
            "ws://hub.example.net:8080",
            "ws://hub.example.net:8080/api/v1/agent/ws",
            "http://hub.example.net:8080/api/v1/agent/llm",
        );
        check("WSS://h?x=1#y", "wss://h/api/v1/agent/ws", "https://h/api/v1/agent/llm");
        check("[::1]:1", "ws://[::1]:1/api/v1/agent/ws", "http://[::1]:1/api/v1/agent/llm");
        for (bad, part) in [
            ("", "empty"),
            (" / ", "empty"),
            ("http://h:1/api/v1/agent/ws", "path"),
            ("ftp://h", "begins with"),
            ("http://", "no host"),
            ("h:99999", "port"),
            ("http://127.1", "four decimal"),
        ] {
            let error = HubAddress::parse(bad).unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }

    #[test]
    fn users_become_basic_credentials_and_stay_out_of_logs() {
        let address = HubAddress::parse("https://ana:p%40w@hub.example.net").unwrap();
        assert_eq!(address.basic().unwrap(), format!("Basic {}", STANDARD.encode("ana:p@w")));
        assert_eq!(address.origin(), "https://hub.example.net");
        assert_eq!(HubAddress::parse(&address.text()).unwrap(), address);
        assert!(!format!("{address:?} {}", address.link_url()).contains("p%40w"));
    }
}
