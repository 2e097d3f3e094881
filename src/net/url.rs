//! `http` and `https` URLs, read strictly: what different readers could understand differently is refused. Pure.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longer ones are attacks or data.
pub const URL_BYTES_MAX: usize = 8 * 1024;

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// Lower case, without a trailing dot.
    Name(String),
    Ip(IpAddr),
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// A URL in its parts, normalised; the fragment is gone.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    pub https: bool,
    /// `user:password`, as it was written; empty for most.
    pub userinfo: String,
    pub host: Host,
    pub port: u16,
    /// Path and query: begins with `/`, ASCII only, everything odd escaped.
    pub path_and_query: String,
}

/// Hides credentials.
impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&redact_url(&self.text()))
    }
}

impl Url {
    /// Reads a URL. The error says what is wrong, without a part of the URL in it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim_matches([' ', '\t', '\r', '\n']);
        if text.len() > URL_BYTES_MAX {
            return Err("the URL is too long");
        }
        if text.chars().any(char::is_control) {
            return Err("the URL holds control characters");
        }
        let (https, rest) = scheme(text)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (userinfo, host_and_port) = match authority.split_once('@') {
            Some((userinfo, rest)) if !rest.contains('@') && userinfo.bytes().all(is_userinfo) => (userinfo, rest),
            Some(_) => return Err("the part before @ holds characters that must be escaped"),
            None => ("", authority),
        };
        let (host, port) = host_and_port_of(host_and_port, if https { 443 } else { 80 })?;
        let rest = rest.split('#').next().unwrap_or("");
        let slash = if rest.starts_with('/') { "" } else { "/" };
        let path_and_query = format!("{slash}{}", escape(rest));
        Ok(Self { https, userinfo: userinfo.to_owned(), host, port, path_and_query })
    }

    /// Follows a reference found at this URL (RFC 3986 5.2): absolute, `//host`, `/path`, `?query` or relative.
    /// Credentials do not go along to another URL.
    pub fn join(&self, reference: &str) -> Result<Self, &'static str> {
        let reference = reference.trim_matches([' ', '\t', '\r', '\n']);
        let scheme_end = reference.find(':').unwrap_or(0);
        let path_begins = reference.find(['/', '?', '#']).unwrap_or(reference.len());
        if scheme_end > 0 && scheme_end < path_begins {
            return Self::parse(reference);
        }
        let scheme = if self.https { "https" } else { "http" };
        if reference.starts_with("//") {
            return Self::parse(&format!("{scheme}:{reference}"));
        }
        let (path, query) = self.path_and_query.split_once('?').unwrap_or((&self.path_and_query, ""));
        let reference = reference.split('#').next().unwrap_or("");
        let target = match reference.as_bytes().first() {
            None if query.is_empty() => path.to_owned(),
            None => format!("{path}?{query}"),
            Some(b'?') => format!("{path}{reference}"),
            Some(b'/') => without_dots(reference),
            Some(_) => without_dots(&format!("{}/{reference}", path.rsplit_once('/').map_or("", |(dir, _)| dir))),
        };
        Self::parse(&format!("{scheme}://{}{target}", self.authority()))
    }

    /// Host, and port where it is not the scheme's own.
    pub fn authority(&self) -> String {
        if self.port == if self.https { 443 } else { 80 } {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Scheme and authority, without credentials.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.authority())
    }

    /// The whole URL, credentials included: for a client, not for a log.
    pub fn text(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        let at = if self.userinfo.is_empty() { "" } else { "@" };
        format!("{scheme}://{}{at}{}{}", self.userinfo, self.authority(), self.path_and_query)
    }
}

fn scheme(text: &str) -> Result<(bool, &str), &'static str> {
    for (prefix, https) in [("https://", true), ("http://", false)] {
        if let Some(start) = text.get(..prefix.len())
            && start.eq_ignore_ascii_case(prefix)
        {
            return Ok((https, &text[prefix.len()..]));
        }
    }
    Err("a URL begins with http:// or https://")
}

fn is_userinfo(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:%".contains(&byte)
}

fn host_and_port_of(text: &str, default_port: u16) -> Result<(Host, u16), &'static str> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or("an IPv6 address ends with ]")?;
        let ip: Ipv6Addr = inside.parse().map_err(|_| "between [ and ] stands no IPv6 address")?;
        if !after.is_empty() && !after.starts_with(':') {
            return Err("behind the host only a port may follow");
        }
        (Host::Ip(IpAddr::V6(ip)), after.strip_prefix(':'))
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        (name_or_v4(host)?, port)
    };
    let port = match port {
        None | Some("") => default_port,
        // `parse` alone would take a sign.
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.parse::<u16>().ok().filter(|port| *port > 0).ok_or("the port is not between 1 and 65535")?
        }
        Some(_) => return Err("the port is not a number"),
    };
    Ok((host, port))
}

/// A name, or an IPv4 address in its one unmistakable spelling. Other spellings of numbers (`127.1`, `0x7f000001`,
/// `0177.0.0.1`, `2130706433`) are understood by some systems, so they are refused.
pub(super) fn name_or_v4(text: &str) -> Result<Host, &'static str> {
    let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if text.is_empty() {
        return Err("the URL names no host");
    }
    if !text.is_ascii() {
        return Err("the host holds letters outside of ASCII; write it in its xn-- form");
    }
    let bad_label = |label: &str| {
        label.is_empty()
            || label.len() > 63
            || !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if text.len() > 253 || text.split('.').any(bad_label) {
        return Err("the host is not a name that DNS knows");
    }
    let last = text.rsplit('.').next().unwrap_or("");
    let hex = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if hex || last.bytes().all(|byte| byte.is_ascii_digit()) {
        // Rust's parser takes four decimal numbers without leading zeros and nothing else.
        let ip: Ipv4Addr =
            text.parse().map_err(|_| "write the address as four decimal numbers, such as 192.168.1.10")?;
        return Ok(Host::Ip(IpAddr::V4(ip)));
    }
    Ok(Host::Name(text))
}

/// Escapes what may not stand in a path or query (RFC 3986), and leaves escapes alone.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing into a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Removes `.` and `..` segments of the path (RFC 3986 5.2.4); the query stays.
fn without_dots(target: &str) -> String {
    let (path, query) = match target.find('?') {
        Some(at) => target.split_at(at),
        None => (target, ""),
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

/// The URL as it may be shown: `***` instead of user and password, `%2A%2A%2A` instead of every value of the query
/// (contract engine 8.3), no fragment. Takes any text.
pub fn redact_url(text: &str) -> String {
    let text = text.split('#').next().unwrap_or("");
    let (before, query) = match text.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (text, None),
    };
    let start = before.find("://").map_or(0, |at| at + 3);
    let end = before[start..].find('/').map_or(before.len(), |at| start + at);
    let mut shown = match before[start..end].rfind('@') {
        Some(at) => format!("{}***{}", &before[..start], &before[start + at..]),
        None => before.to_owned(),
    };
    for (index, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if index == 0 { '?' } else { '&' });
        // A lone word may be the secret itself.
        if let Some((key, _)) = pair.split_once('=') {
            shown.push_str(key);
            shown.push('=');
        }
        if !pair.is_empty() {
            shown.push_str("%2A%2A%2A");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_normalised_or_refused() {
        let check = |text: &str, expected: Result<&str, &str>| match (Url::parse(text), expected) {
            (Ok(url), Ok(expected)) => assert_eq!(url.text(), expected, "{text}"),
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{text}: {reason}"),
            (found, expected) => panic!("{text}: {:?}, not {expected:?}", found.map(|url| url.text())),
        };
        check("http://example.com", Ok("http://example.com/"));
        check(" HTTPS://EXAMPLE.com.:443/A?b=C#d\n", Ok("https://example.com/A?b=C"));
        check("http://example.com:80?q", Ok("http://example.com/?q"));
        check("http://example.com:/", Ok("http://example.com/"));
        check("https://example.com:8443/x", Ok("https://example.com:8443/x"));
        check(
            "https://de.wikipedia.org/wiki/Köln ist|schön",
            Ok("https://de.wikipedia.org/wiki/K%C3%B6ln%20ist%7Csch%C3%B6n"),
        );
        check("http://a/b\\c\"<>", Ok("http://a/b%5Cc%22%3C%3E"));
        check("http://user:p%40w@host/", Ok("http://user:p%40w@host/"));
        check("http://[2001:4860::8888]:8080/", Ok("http://[2001:4860::8888]:8080/"));
        check("http://[::FFFF:1.2.3.4]/", Ok("http://[::ffff:1.2.3.4]/"));
        check("http://1.2.3.4./", Ok("http://1.2.3.4/"));
        check("http://a_b.example/", Ok("http://a_b.example/"));
        for bad in
            ["", "example.com", "ftp://x/", "file:///etc/passwd", "javascript:alert(1)", "http:/x", "//x", "http:x"]
        {
            check(bad, Err("begins with http"));
        }
        for bad in ["http://", "http:///x", "http://?x", "http://.", "http://:80/", "http://user@/"] {
            check(bad, Err("names no host"));
        }
        for bad in [
            "http://127.1/",
            "http://0x7f.0.0.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://127.0.0.01/",
            "http://1.2.3.4.5/",
            "http://256.0.0.1/",
            "http://foo.0x1/",
            "http://1.2.3/",
            "http://0/",
            "http://x.0x/",
        ] {
            check(bad, Err("four decimal numbers"));
        }
        for bad in ["http://a..b/", "http://a b/", "http://a%2eb/", "http://exa$mple/", "http://a\\b/", "http://-.*/"] {
            check(bad, Err("not a name"));
        }
        check("http://good.com\\@evil.com/", Err("before @"));
        check("http://a@b@c/", Err("before @"));
        check("http://127。0。0。1/", Err("xn--"));
        check("http://ⓛocalhost/", Err("xn--"));
        check("http://a:0/", Err("port"));
        check("http://a:65536/", Err("port"));
        check("http://a:+80/", Err("port"));
        check("http://a:8:9/", Err("port"));
        check("http://[::1/", Err("ends with ]"));
        check("http://[fe80::1%25eth0]/", Err("no IPv6"));
        check("http://[::1]x/", Err("only a port"));
        check("http://a/\r\nHost: b", Err("control"));
        check("http://a\0b/", Err("control"));
        check(&format!("http://{}/", "a".repeat(64)), Err("not a name"));
        check(&format!("http://a/{}", "a".repeat(URL_BYTES_MAX)), Err("too long"));
    }

    #[test]
    fn references_are_followed() {
        let base = Url::parse("https://user:pw@a.example:8443/b/c/d?q=1").unwrap();
        let check = |reference: &str, expected: &str| {
            let found = base.join(reference).map_or_else(str::to_owned, |url| url.text());
            assert_eq!(found, expected, "{reference}");
        };
        check("http://x.example/y", "http://x.example/y");
        check("//x.example/y?z", "https://x.example/y?z");
        check("/y", "https://a.example:8443/y");
        check("y", "https://a.example:8443/b/c/y");
        check("./y/../z", "https://a.example:8443/b/c/z");
        check("../../../..", "https://a.example:8443/");
        check("..", "https://a.example:8443/b/");
        check("?z=2", "https://a.example:8443/b/c/d?z=2");
        check("#top", "https://a.example:8443/b/c/d?q=1");
        check("", "https://a.example:8443/b/c/d?q=1");
        check("y?to=http://z/..", "https://a.example:8443/b/c/y?to=http://z/..");
        check("mailto:me@x", "a URL begins with http:// or https://");
        check("ftp://x", "a URL begins with http:// or https://");
    }

    #[test]
    fn shown_urls_hold_no_secrets() {
        for (text, shown) in [
            ("https://example.com/a", "https://example.com/a"),
            ("https://u:secret@example.com/a", "https://***@example.com/a"),
            ("https://u:se@cret@example.com", "https://***@example.com"),
            ("https://e.com/a?key=secret&x=&secret#secret", "https://e.com/a?key=%2A%2A%2A&x=%2A%2A%2A&%2A%2A%2A"),
            ("https://e.com?a=b=secret", "https://e.com?a=%2A%2A%2A"),
            ("https://e.com/users/@me", "https://e.com/users/@me"),
            ("u:secret@e.com/x", "***@e.com/x"),
            ("", ""),
        ] {
            assert_eq!(redact_url(text), shown);
            assert!(!redact_url(text).contains("secret"));
        }
    }
}
