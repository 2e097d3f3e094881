//! The Docker Engine API over its Unix socket, or over HTTP: `GET`, bounded answers, JSON. Podman speaks it too.
//!
//! The version is the engine's own: new engines refuse old versions, and what is asked for here is in all of them.

use std::io::{Read, Write};
use std::path::PathBuf;

use serde_json::Value;

use crate::checks::each::Look;
use crate::net::url::Url;
use crate::net::{Call, HttpClient, Timeouts, Wire};

/// A list of a few thousand containers fits.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Of a head: those of the engine have a few hundred bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// For engines that name no version (contract agent-link 7.5, 8).
const FALLBACK: &str = "1.25";

/// Where the engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Socket(PathBuf),
    Http(Url),
}

/// An answer of the engine.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `Api-Version`; empty when it named none.
    version: String,
    pub(super) body: Value,
}

impl Endpoint {
    /// `/run/docker.sock`, `unix:///run/docker.sock`, `http://host:2375`, `tcp://host:2375`.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Self::Socket(PathBuf::from(path)));
        }
        let url = text.strip_prefix("tcp://").map_or_else(|| text.to_owned(), |rest| format!("http://{rest}"));
        Url::parse(&url).map(Self::Http).map_err(|_| "is neither the path of a socket nor an http:// address")
    }

    /// The version to ask with from now on.
    pub(super) fn negotiate(&self, look: &Look<'_>) -> Result<String, String> {
        let answer = self.fetch("/_ping", false, look)?;
        if answer.status != 200 {
            return Err(format!("the engine answers its ping with status {}", answer.status));
        }
        let is_version =
            |text: &str| !text.is_empty() && text.len() < 16 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        Ok(if is_version(&answer.version) { answer.version } else { FALLBACK.to_owned() })
    }

    /// Asks for a path of the API, which begins with a slash.
    pub(super) fn get(&self, version: &str, path: &str, look: &Look<'_>) -> Result<Answer, String> {
        self.fetch(&format!("/v{version}{path}"), true, look)
    }

    fn fetch(&self, path: &str, json: bool, look: &Look<'_>) -> Result<Answer, String> {
        let (status, version, body) = match self {
            Self::Socket(socket) => {
                let mut wire = Wire::local(socket, look.deadline, look.cancel)
                    .map_err(|error| format!("{}: {error}", socket.display()))?;
                let request = format!("GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n");
                wire.write_all(request.as_bytes()).map_err(|error| wire.failure(&error).to_string())?;
                read_answer(&mut wire, |wire, error| wire.failure(error).to_string())?
            }
            Self::Http(url) => {
                let left = look.deadline.saturating_duration_since(std::time::Instant::now());
                let timeouts = Timeouts { connect: left, first_byte: left, idle: left, total: Some(left) };
                let client = HttpClient::new(timeouts).without_reuse();
                let text = format!("{}{path}", url.text().trim_end_matches('/'));
                let mut answer = client.send(&Call::get(&text), look.cancel).map_err(|error| error.to_string())?;
                let body = answer.body(ANSWER_BYTES_MAX).map_err(|error| error.to_string())?;
                (answer.status(), answer.header("api-version").unwrap_or("").to_owned(), body)
            }
        };
        let body = if json && status == 200 {
            serde_json::from_slice(&body).map_err(|_| "the answer of the engine is not JSON".to_owned())?
        } else {
            Value::Null
        };
        Ok(Answer { status, version, body })
    }
}

/// Reads one answer to a request that asked for the end of the connection: status, `Api-Version` and body (RFC 9112).
fn read_answer<R: Read>(
    from: &mut R,
    failure: impl Fn(&R, &std::io::Error) -> String,
) -> Result<(u16, String, Vec<u8>), String> {
    const CUT: &str = "the answer of the engine is cut off";
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    let mut head: Option<Head> = None;
    loop {
        let n = from.read(&mut buffer).map_err(|error| failure(from, &error))?;
        bytes.extend_from_slice(&buffer[..n]);
        if head.is_none() {
            match bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => head = Some(Head::parse(&bytes.drain(..end + 4).collect::<Vec<_>>())?),
                None if bytes.len() > HEAD_BYTES_MAX || n == 0 => return Err("the peer does not speak HTTP".to_owned()),
                None => continue,
            }
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err("the answer of the engine is too large".to_owned());
        }
        let Some(known) = &head else { continue };
        let (status, version) = (known.status, known.version.clone());
        match known.length {
            Some(length) if bytes.len() >= length => {
                bytes.truncate(length);
                return Ok((status, version, bytes));
            }
            Some(_) if n == 0 => return Err(CUT.to_owned()),
            Some(_) => {}
            // Looked at only at the end: engines close, and one that does not ends at the time limit.
            None if known.chunked && (n == 0 || bytes.ends_with(b"0\r\n\r\n")) => match dechunk(&bytes) {
                Some(body) => return Ok((status, version, body)),
                None if n == 0 => return Err(CUT.to_owned()),
                None => {}
            },
            None if known.chunked => {}
            None if n == 0 => return Ok((status, version, bytes)),
            None => {}
        }
    }
}

struct Head {
    status: u16,
    version: String,
    length: Option<usize>,
    chunked: bool,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let wrong = || "the peer does not speak HTTP".to_owned();
        let text = std::str::from_utf8(bytes).map_err(|_| wrong())?;
        let mut lines = text.split("\r\n");
        let start = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")).ok_or_else(wrong)?;
        let status = start.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(wrong)?;
        let mut head = Self { status, version: String::new(), length: None, chunked: false };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "api-version" => value.clone_into(&mut head.version),
                "content-length" => head.length = Some(value.parse().map_err(|_| wrong())?),
                "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
                _ => {}
            }
        }
        // Of both the coding counts (RFC 9112 6.3).
        if head.chunked {
            head.length = None;
        }
        Ok(head)
    }
}

/// The body of a whole chunked message; None when it is not whole, or wrong.
fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let line = std::str::from_utf8(&rest[..end]).ok()?;
        let length = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if length == 0 {
            return Some(body);
        }
        let (chunk, after) = rest.split_at_checked(length)?;
        body.extend_from_slice(chunk);
        rest = after.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes one at a time, so that every place of a cut is tried.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = self.0.len().min(1);
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn answers_are_read_whatever_their_framing() {
        let check = |bytes: &[u8], expected: Result<(u16, &str, &[u8]), &str>| {
            let read = read_answer(&mut Drip(bytes), |_, error| error.to_string());
            let expected = expected.map(|(status, version, body)| (status, version.to_owned(), body.to_vec()));
            assert_eq!(read, expected.map_err(str::to_owned), "{:?}", String::from_utf8_lossy(bytes));
        };
        check(b"HTTP/1.1 200 OK\r\nApi-Version: 1.44\r\nContent-Length: 2\r\n\r\nOKxx", Ok((200, "1.44", b"OK")));
        check(b"HTTP/1.0 404 no\r\n\r\nall of it", Ok((404, "", b"all of it")));
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\nContent-Length: 1\r\n\r\n3\r\nabc\r\nA;x=y\r\n0\r\n\r\n56789\r\n0\r\n\r\n";
        check(chunked, Ok((200, "", b"abc0\r\n\r\n56789")));
        check(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nOK", Err("the answer of the engine is cut off"));
        check(&chunked[..chunked.len() - 9], Err("the answer of the engine is cut off"));
        check(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            Err("the answer of the engine is cut off"),
        );
        for strange in [
            &b""[..],
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200\r\nx: \xff\r\n\r\n",
        ] {
            check(strange, Err("the peer does not speak HTTP"));
        }
        check(&b"x".repeat(HEAD_BYTES_MAX + 2), Err("the peer does not speak HTTP"));
    }

    #[test]
    fn an_endless_answer_is_given_up() {
        let mut endless = std::io::Read::chain(&b"HTTP/1.1 200 OK\r\n\r\n"[..], std::io::repeat(b'x'));
        let read = read_answer(&mut endless, |_, error| error.to_string());
        assert_eq!(read.unwrap_err(), "the answer of the engine is too large");
    }

    #[test]
    fn endpoints_are_paths_or_addresses() {
        let socket = Endpoint::Socket(PathBuf::from("/run/docker.sock"));
        assert_eq!(Endpoint::parse("/run/docker.sock"), Ok(socket.clone()));
        assert_eq!(Endpoint::parse("unix:///run/docker.sock"), Ok(socket));
        assert!(matches!(Endpoint::parse("tcp://10.0.0.1:2375"), Ok(Endpoint::Http(url)) if url.port == 2375));
        assert!(matches!(Endpoint::parse("http://10.0.0.1:2375"), Ok(Endpoint::Http(_))));
        assert!(Endpoint::parse("docker.sock").is_err() && Endpoint::parse("").is_err());
    }
}
