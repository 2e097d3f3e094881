//! Which URLs and addresses Holt may reach on behalf of whom (decisions, row "SSRF"; contract engine 8.3). Pure.
//!
//! A URL is checked before it is used, each hop of a redirect again; and the address filter of the checked URL goes to
//! the HTTP client, so that a name is judged by the very addresses that are connected.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::AddressFilter;
use super::address::AddressKind;
use super::url::{Host, Url, name_or_v4};

/// Names of cloud metadata services.
const METADATA_HOSTS: [&str; 5] =
    ["metadata", "metadata.google.internal", "metadata.google.com", "metadata.goog", "instance-data.ec2.internal"];

/// Header lines that belong to the HTTP client (contract engine 8.3).
const CLIENT_HEADERS: [&str; 4] = ["host", "content-length", "transfer-encoding", "connection"];

/// Who chose a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration, the command line or the API with the right to write: private networks are fine.
    Operator { allow_loopback: bool },
    /// A model, a page, a peer: the public internet, and what an operator listed.
    Untrusted,
}

/// An entry of a list of hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This name.
    Exact(String),
    /// `*.example.com`: names below it, and itself.
    Below(String),
    /// An address or a network: `192.168.1.10`, `192.168.1.0/24`, `fd00::/8`.
    Net(IpAddr, u8),
}

impl HostPattern {
    /// Reads an entry; the error says what it may be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not a host name, *.example.com, an address or a network such as 10.0.0.0/8");
        let text = text.trim();
        if let Some((address, bits)) = text.split_once('/') {
            let ip: IpAddr = address.parse().map_err(|_| wrong())?;
            let bits_max = if ip.is_ipv4() { 32 } else { 128 };
            let bits = bits.parse().ok().filter(|bits| *bits <= bits_max).ok_or_else(wrong)?;
            return Ok(Self::Net(ip, bits));
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self::Net(ip, if ip.is_ipv4() { 32 } else { 128 }));
        }
        let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
        match name_or_v4(name) {
            Ok(Host::Name(name)) if below => Ok(Self::Below(name)),
            Ok(Host::Name(name)) => Ok(Self::Exact(name)),
            _ => Err(wrong()),
        }
    }

    fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exact(name), Host::Name(host)) => name == host,
            (Self::Below(name), Host::Name(host)) => {
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            (Self::Net(..), Host::Ip(ip)) => self.holds(*ip),
            _ => false,
        }
    }

    fn holds(&self, ip: IpAddr) -> bool {
        match (self, ip) {
            (Self::Net(IpAddr::V4(net), bits), IpAddr::V4(ip)) => {
                let differing = u32::from(*net) ^ u32::from(ip);
                differing.checked_shr(32 - u32::from(*bits)).unwrap_or(0) == 0
            }
            (Self::Net(IpAddr::V6(net), bits), IpAddr::V6(ip)) => {
                let differing = u128::from(*net) ^ u128::from(ip);
                differing.checked_shr(128 - u32::from(*bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// Why a target is refused. The texts name the setting that allows it, where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuardError {
    /// It is not a URL that Holt can use.
    Url { reason: &'static str },
    /// User name and password in a URL that somebody else chose.
    Userinfo,
    /// This machine or a private network, and nobody allowed it.
    Inside { host: String, kind: AddressKind, setting: &'static str },
    /// Never allowed.
    Never { host: String, kind: AddressKind },
    /// There is a list of allowed hosts, and this one is not on it.
    NotListed { host: String, setting: &'static str },
    /// A header line that must not be configured.
    Header { name: String, reason: &'static str },
}

impl fmt::Display for GuardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { reason } => write!(f, "{reason}"),
            Self::Userinfo => write!(f, "a URL with a user name or password is refused here; leave that part out"),
            Self::Inside { host, kind, setting } => {
                write!(f, "{host} is {}, which is refused here; an operator can allow it with {setting}", kind.name())
            }
            Self::Never { host, kind } => write!(f, "{host} is {}, which is always refused", kind.name()),
            Self::NotListed { host, setting } => write!(f, "{host} is not listed in {setting}; an operator can add it"),
            Self::Header { name, reason } => write!(f, "header {name:?} {reason}"),
        }
    }
}

impl std::error::Error for GuardError {}

/// Judges targets. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard {
    origin: Origin,
    /// If not empty, only these hosts.
    only: Arc<[HostPattern]>,
    /// Hosts and networks that may be private or this machine.
    inside: Arc<[HostPattern]>,
    inside_setting: &'static str,
}

impl Guard {
    /// A guard without lists.
    pub fn new(origin: Origin) -> Self {
        let inside_setting = match origin {
            Origin::Operator { .. } => "allow_loopback = true",
            Origin::Untrusted => "web.fetch.allow_private",
        };
        Self { origin, only: Arc::new([]), inside: Arc::new([]), inside_setting }
    }

    /// Only these hosts, if there are any: `mcp.url_allowlist`.
    #[must_use]
    pub fn only(mut self, hosts: &[HostPattern]) -> Self {
        self.only = hosts.into();
        self
    }

    /// These hosts and networks may be private or this machine; `setting` is the name of that list in messages.
    /// Link-local and metadata addresses stay refused.
    #[must_use]
    pub fn allow_inside(mut self, hosts: &[HostPattern], setting: &'static str) -> Self {
        self.inside = hosts.into();
        self.inside_setting = setting;
        self
    }

    /// Reads and judges a URL. A name is judged again by its addresses: give [`CheckedUrl::filter`] to the client.
    pub fn check_url(&self, text: &str) -> Result<CheckedUrl, GuardError> {
        self.check(Url::parse(text).map_err(|reason| GuardError::Url { reason })?)
    }

    /// The same for the target of a redirect at `from`.
    pub fn check_redirect(&self, from: &CheckedUrl, location: &str) -> Result<CheckedUrl, GuardError> {
        self.check(from.url.join(location).map_err(|reason| GuardError::Url { reason })?)
    }

    /// Whether an address may be connected whatever name led to it.
    pub fn allows(&self, ip: IpAddr) -> bool {
        self.rule(false).check(ip, "").is_ok()
    }

    fn check(&self, url: Url) -> Result<CheckedUrl, GuardError> {
        if self.origin == Origin::Untrusted && !url.userinfo.is_empty() {
            return Err(GuardError::Userinfo);
        }
        let host = url.host.to_string();
        if !self.only.is_empty() && !self.only.iter().any(|entry| entry.matches(&url.host)) {
            return Err(GuardError::NotListed { host, setting: "mcp.url_allowlist" });
        }
        let listed = self.inside.iter().any(|entry| entry.matches(&url.host));
        let rule = self.rule(listed);
        match &url.host {
            Host::Ip(ip) => rule.check(*ip, &host)?,
            Host::Name(name) if METADATA_HOSTS.contains(&name.as_str()) => {
                return Err(GuardError::Never { host, kind: AddressKind::Metadata });
            }
            Host::Name(name) if name == "localhost" || name.ends_with(".localhost") => {
                rule.check_kind(AddressKind::Loopback, &host)?;
            }
            Host::Name(_) => {}
        }
        Ok(CheckedUrl { url, rule })
    }

    fn rule(&self, listed: bool) -> AddressRule {
        let (private, loopback) = match self.origin {
            Origin::Operator { allow_loopback } => (true, allow_loopback),
            Origin::Untrusted => (false, false),
        };
        AddressRule {
            private: private || listed,
            loopback: loopback || listed,
            inside: Arc::clone(&self.inside),
            setting: self.inside_setting,
        }
    }
}

/// Which addresses a checked URL may be connected to.
#[derive(Clone, Debug)]
pub struct AddressRule {
    private: bool,
    loopback: bool,
    inside: Arc<[HostPattern]>,
    setting: &'static str,
}

impl AddressRule {
    /// Whether this address may be connected.
    pub fn allows(&self, ip: IpAddr) -> bool {
        self.check(ip, "").is_ok()
    }

    /// The same with the reason; `host` is what the error calls it.
    pub fn check(&self, ip: IpAddr, host: &str) -> Result<(), GuardError> {
        let kind = AddressKind::of(ip);
        let inside = matches!(kind, AddressKind::Private | AddressKind::Loopback);
        if inside && self.inside.iter().any(|entry| entry.holds(ip.to_canonical())) {
            return Ok(());
        }
        self.check_kind(kind, host)
    }

    fn check_kind(&self, kind: AddressKind, host: &str) -> Result<(), GuardError> {
        let inside = |allowed: bool| {
            let error = || GuardError::Inside { host: host.to_owned(), kind, setting: self.setting };
            if allowed { Ok(()) } else { Err(error()) }
        };
        match kind {
            AddressKind::Public => Ok(()),
            AddressKind::Private => inside(self.private),
            AddressKind::Loopback => inside(self.loopback),
            AddressKind::Reserved
            | AddressKind::Unspecified
            | AddressKind::Multicast
            | AddressKind::LinkLocal
            | AddressKind::Metadata => Err(GuardError::Never { host: host.to_owned(), kind }),
        }
    }
}

/// A URL that may be used, with the addresses that it may lead to.
#[derive(Clone, Debug)]
pub struct CheckedUrl {
    url: Url,
    rule: AddressRule,
}

impl CheckedUrl {
    /// The parts.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The whole, normalised, for the HTTP client.
    pub fn text(&self) -> String {
        self.url.text()
    }

    /// The same with the credentials of another URL of its origin, where it has none itself: references do not carry
    /// them along.
    #[must_use]
    pub fn with_credentials_of(mut self, other: &Self) -> Self {
        if self.url.userinfo.is_empty() && self.url.origin() == other.url.origin() {
            self.url.userinfo.clone_from(&other.url.userinfo);
        }
        self
    }

    /// To be asked about every address that the host resolves to.
    pub fn rule(&self) -> &AddressRule {
        &self.rule
    }

    /// The same for the HTTP client, so that exactly the allowed addresses are connected to.
    pub fn filter(&self) -> AddressFilter {
        let rule = self.rule.clone();
        Arc::new(move |ip| rule.allows(ip))
    }
}

/// Checks a header line that was configured or given by a model (contract engine 8.3).
pub fn check_header(name: &str, value: &str) -> Result<(), GuardError> {
    let refused = |reason| Err(GuardError::Header { name: name.to_owned(), reason });
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return refused("is not a header name; use letters, digits and hyphens");
    }
    if CLIENT_HEADERS.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return refused("is set by the HTTP client itself; leave it out");
    }
    if value.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return refused("has a value with a line break or NUL in it");
    }
    Ok(())
}
