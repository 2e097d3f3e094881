//! Paths and addresses as texts (contract 1.4).

use std::net::IpAddr;

use crate::api::message::{Response, response};
use crate::api::server::HeadersExtend;

/// Whether a listen address can only be reached from this machine.
pub(super) fn is_loopback(listen: &str) -> bool {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host).trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) fn is_api(path: &str) -> bool {
    path.starts_with("/api/") || path.starts_with("/auth/") || path == "/metrics" || path == "/healthz"
}

/// The path without `//`, `/./` and `/../` (raw, not escaped), if it has any (contract 1.4).
pub(super) fn cleaned(path: &str) -> Option<String> {
    let dirty = path.contains("//") || path.split('/').any(|segment| segment == "." || segment == "..");
    if !dirty {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let slash = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    Some(format!("/{}{slash}", kept.join("/")))
}

pub(super) fn moved(to: &str) -> Response {
    let escaped = to.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let body = format!("<a href=\"{escaped}\">Moved Permanently</a>.\n");
    let mut response = response(301, "text/html; charset=utf-8", body.into_bytes());
    response.headers_extend(&[("Location", to)]);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirty_paths_are_cleaned() {
        for (listen, expected) in
            [("127.0.0.1:0", true), ("[::1]:80", true), ("localhost:1", true), (":8080", false), ("0.0.0.0:1", false)]
        {
            assert_eq!(is_loopback(listen), expected, "{listen}");
        }
        for (path, expected) in [
            ("/a/b", None),
            ("/a/%2e%2e/b", None),
            ("/a//b", Some("/a/b")),
            ("/a/./b/", Some("/a/b/")),
            ("/../../etc", Some("/etc")),
            ("//evil.example", Some("/evil.example")),
            ("/a/..", Some("/")),
        ] {
            assert_eq!(cleaned(path).as_deref(), expected, "{path}");
        }
    }
}
