//! Where a tool server's login may lead: addresses that the server or its authorization server chose (decisions, row
//! "SSRF"). Pure.

use crate::mcp::McpError;
use crate::net::guard::{CheckedUrl, Guard, HostPattern, Origin};
use crate::net::url::Url;

/// A server, and the judge of every address that comes up on the way to a token for it.
#[derive(Clone)]
pub struct Place {
    server: CheckedUrl,
    own: Guard,
    others: Guard,
}

impl Place {
    /// A server at an address that `own` has allowed; `listed` hosts (`mcp.url_allowlist`) may be private, and if there
    /// are any, they are the only ones.
    pub fn new(server: CheckedUrl, own: Guard, listed: &[HostPattern]) -> Self {
        let others = Guard::new(Origin::Untrusted).only(listed).allow_inside(listed, "mcp.url_allowlist");
        Self { server, own, others }
    }

    pub(super) fn server(&self) -> &CheckedUrl {
        &self.server
    }

    /// What a token for this server is for: its address, without anything secret (RFC 8707).
    pub fn resource(&self) -> String {
        let url = self.server.url();
        let path = url.path_and_query.split('?').next().unwrap_or("/");
        format!("{}{}", url.origin(), if path == "/" { "" } else { path })
    }

    /// Whether what is for `resource` is for this server: the same origin, and a path at or above the server's.
    pub fn is_within(&self, resource: &str) -> bool {
        let Ok(resource) = Url::parse(resource) else { return false };
        let server = self.server.url();
        let path = |url: &Url| {
            let path = url.path_and_query.split('?').next().unwrap_or("/").trim_end_matches('/').to_owned();
            path + "/"
        };
        resource.origin() == server.origin() && path(server).starts_with(&path(&resource))
    }

    /// Judges an address that Holt itself asks. On the server's own host it is as good as the server; elsewhere it must
    /// be public or listed. Never less protected than the server.
    pub fn check(&self, url: &str) -> Result<CheckedUrl, McpError> {
        let checked = match self.own.check_url(url) {
            Ok(checked) if checked.url().host == self.server.url().host => Ok(checked),
            _ => self.others.check_url(url),
        };
        let refused =
            |reason: String| McpError::Refused { reason: format!("its login leads to a bad address: {reason}") };
        let checked = checked.map_err(|error| refused(error.to_string()))?;
        if self.server.url().https && !checked.url().https {
            return Err(refused(format!("{} is not https", checked.url().origin())));
        }
        Ok(checked)
    }

    /// Judges an address that a person's browser opens: it may be wherever that reaches it.
    pub(super) fn for_browser(&self, url: &str) -> Result<String, McpError> {
        let refused =
            |reason: &str| McpError::Refused { reason: format!("its login page has a bad address: {reason}") };
        let url = Url::parse(url).map_err(refused)?;
        if !url.userinfo.is_empty() {
            return Err(refused("it holds a user name"));
        }
        if self.server.url().https && !url.https {
            return Err(refused("it is not https"));
        }
        Ok(url.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(server: &str, allow_loopback: bool, listed: &[&str]) -> Place {
        let own = Guard::new(Origin::Operator { allow_loopback });
        let listed: Vec<HostPattern> = listed.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
        Place::new(own.check_url(server).unwrap(), own, &listed)
    }

    #[test]
    fn tokens_are_for_one_server() {
        let server = place("https://u:p@E.com:8443/a/mcp?key=secret", false, &[]);
        assert_eq!(server.resource(), "https://e.com:8443/a/mcp");
        assert_eq!(place("https://e.com", false, &[]).resource(), "https://e.com");
        for good in ["https://e.com:8443/a/mcp", "https://e.com:8443", "https://e.com:8443/a/", "https://e.com:8443/a"]
        {
            assert!(server.is_within(good), "{good}");
        }
        for bad in [
            "",
            "https://e.com/a/mcp",
            "http://e.com:8443/a/mcp",
            "https://e.com:8443/a/m",
            "https://e.com:8443/a/mcp/x",
            "https://evil.com:8443/a/mcp",
            "https://e.com:8443.evil.com/a/mcp",
        ] {
            assert!(!server.is_within(bad), "{bad}");
        }
    }

    #[test]
    fn peers_choose_only_harmless_addresses() {
        let check = |place: &Place, url: &str, expected: &str| {
            let said = place.check(url).map_or_else(|error| error.to_string(), |_| String::new());
            assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{url}: {said}");
        };
        let public = place("https://e.com/mcp", false, &[]);
        check(&public, "https://login.example.org/token", "");
        check(&public, "http://e.com/token", "not https");
        check(&public, "https://10.0.0.1/token", "private");
        check(&public, "https://127.0.0.1/token", "this machine");
        check(&public, "https://169.254.169.254/token", "metadata");
        check(&public, "https://metadata.google.internal/", "metadata");
        check(&public, "https://user:pw@login.example.org/", "user name");
        check(&public, "file:///etc/passwd", "http");
        let home = place("http://10.1.2.3:9000/mcp", false, &[]);
        check(&home, "http://10.1.2.3:9001/token", "");
        check(&home, "http://10.1.2.4/token", "private");
        let here = place("http://127.0.0.1:9000/mcp", true, &[]);
        check(&here, "http://127.0.0.1:9001/token", "");
        check(&here, "http://localhost:9001/token", "this machine");
        let listed = place("https://10.1.2.3/mcp", false, &["10.1.2.0/24", "login.example.org"]);
        check(&listed, "https://10.1.2.9/token", "");
        check(&listed, "https://login.example.org/token", "");
        check(&listed, "https://other.example.org/token", "mcp.url_allowlist");
        assert!(public.for_browser("https://login.example.org/a?b=c").is_ok());
        for bad in ["http://login.example.org/", "javascript:alert(1)", "https://e.com@evil.com/", "data:text/html,x"] {
            assert!(public.for_browser(bad).is_err(), "{bad}");
        }
    }
}
