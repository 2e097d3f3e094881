//! Request heads (RFC 9112 sections 2 to 6): parsed strictly, since every leniency is somebody's smuggling.

use tiny_http::Method;

use crate::limits;
use crate::rt::Headers;

/// Why a request is refused before any handler sees it. The connection is closed afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) text: &'static str,
}

pub(super) const fn refuse(status: u16, text: &'static str) -> Refusal {
    Refusal { status, text }
}

/// How long the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    /// More than the general limit: only for those routes that say so, after authentication.
    Large(usize),
    Chunked,
}

/// A parsed head.
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) spans: Vec<[u32; 4]>,
    /// Bytes of the head, the empty line included.
    pub(super) length: usize,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    pub(super) http10: bool,
}

impl Head {
    /// The header lines, once the bytes of the head are cut off.
    pub(super) fn headers(spans: Vec<[u32; 4]>, bytes: Vec<u8>) -> Headers {
        Headers::from_spans(bytes, spans)
    }
}

/// Looks for a whole head at the start of `bytes`; None while more is needed. `scanned` is how far earlier calls have
/// looked, so that a byte-by-byte sender costs no more than any other.
pub(super) fn parse(bytes: &[u8], scanned: &mut usize, body_bytes_max: usize) -> Result<Option<Head>, Refusal> {
    let from = scanned.saturating_sub(3);
    let end = bytes[from..].windows(4).position(|window| window == b"\r\n\r\n").map(|at| from + at + 4);
    let Some(end) = end else {
        // A method begins with a letter: TLS and other protocols are told at once, not after the deadline.
        if bytes.first().is_some_and(|byte| !byte.is_ascii_graphic() && *byte != b'\r') {
            return Err(refuse(400, "this is not HTTP"));
        }
        *scanned = bytes.len();
        if bytes.len() > limits::HEAD_BYTES_MAX {
            return Err(refuse(431, "request head too large"));
        }
        if has_long_line(bytes) {
            return Err(refuse(414, "request line too long"));
        }
        return Ok(None);
    };
    if end > limits::HEAD_BYTES_MAX {
        return Err(refuse(431, "request head too large"));
    }
    if has_long_line(&bytes[..end]) {
        return Err(refuse(414, "request line too long"));
    }
    parse_whole(&bytes[..end], body_bytes_max).map(Some)
}

/// Whether the request line, its CR LF not counted, is longer than allowed; it may be incomplete.
fn has_long_line(bytes: &[u8]) -> bool {
    bytes.get(..=limits::REQUEST_LINE_BYTES_MAX).is_some_and(|line| !line.contains(&b'\r') && !line.contains(&b'\n'))
}

fn parse_whole(bytes: &[u8], body_bytes_max: usize) -> Result<Head, Refusal> {
    if bare_line_feed(bytes) {
        return Err(refuse(400, "line ends must be CR LF"));
    }
    let mut storage = [httparse::EMPTY_HEADER; limits::HEADERS_MAX];
    let mut request = httparse::Request::new(&mut storage);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(refuse(431, "too many header lines")),
        Err(httparse::Error::Version) => return Err(refuse(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")),
        Ok(httparse::Status::Partial) | Err(_) => return Err(refuse(400, "malformed request head")),
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(refuse(400, "malformed request line"));
    };
    let method: Method = method.parse().map_err(|()| refuse(400, "malformed method"))?;
    let facts = Facts::collect(request.headers)?;
    facts.check_host(version)?;
    let framing = facts.framing(version, body_bytes_max)?;
    let (path, query) = split_target(target, &method)?;
    let base = bytes.as_ptr() as usize;
    let span = |part: &[u8]| {
        let from = part.as_ptr() as usize - base;
        // Heads are bounded by HEAD_BYTES_MAX, far below u32::MAX.
        (u32::try_from(from).unwrap_or(0), u32::try_from(from + part.len()).unwrap_or(0))
    };
    let spans = request
        .headers
        .iter()
        .map(|line| {
            let (name, value) = (span(line.name.as_bytes()), span(line.value));
            [name.0, name.1, value.0, value.1]
        })
        .collect();
    Ok(Head {
        method,
        path,
        query,
        spans,
        length: bytes.len(),
        framing,
        keep_alive: if version == 1 { !facts.close } else { facts.keep_alive && !facts.close },
        expects_continue: facts.expects_continue && version == 1,
        http10: version == 0,
    })
}

fn bare_line_feed(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().any(|(index, &byte)| byte == b'\n' && (index == 0 || bytes[index - 1] != b'\r'))
}

/// What the header lines say about the connection and the body.
#[derive(Default)]
struct Facts {
    hosts: usize,
    length: Option<usize>,
    transfer_encodings: usize,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl Facts {
    fn collect(headers: &[httparse::Header<'_>]) -> Result<Self, Refusal> {
        let mut facts = Self::default();
        for line in headers {
            let checked = ["host", "origin"].iter().any(|name| line.name.eq_ignore_ascii_case(name));
            if checked && !line.value.is_ascii() {
                return Err(refuse(400, "Host and Origin must be ASCII"));
            }
            if line.name.eq_ignore_ascii_case("host") {
                facts.hosts += 1;
            } else if line.name.eq_ignore_ascii_case("content-length") {
                if facts.length.is_some() {
                    return Err(refuse(400, "more than one Content-Length"));
                }
                facts.length = Some(parse_length(line.value)?);
            } else if line.name.eq_ignore_ascii_case("transfer-encoding") {
                facts.transfer_encodings += 1;
                facts.chunked = line.value.eq_ignore_ascii_case(b"chunked");
            } else if line.name.eq_ignore_ascii_case("connection") {
                for token in line.value.split(|&byte| byte == b',') {
                    facts.close |= token.trim_ascii().eq_ignore_ascii_case(b"close");
                    facts.keep_alive |= token.trim_ascii().eq_ignore_ascii_case(b"keep-alive");
                }
            } else if line.name.eq_ignore_ascii_case("expect") {
                if !line.value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(refuse(417, "only 100-continue can be expected"));
                }
                facts.expects_continue = true;
            }
        }
        Ok(facts)
    }

    fn check_host(&self, version: u8) -> Result<(), Refusal> {
        match (version, self.hosts) {
            (1, 1) | (0, 0 | 1) => Ok(()),
            _ => Err(refuse(400, "exactly one Host is needed")),
        }
    }

    fn framing(&self, version: u8, body_bytes_max: usize) -> Result<Framing, Refusal> {
        match (self.transfer_encodings, self.length) {
            (0, None) => Ok(Framing::Length(0)),
            (0, Some(length)) if length > body_bytes_max => Ok(Framing::Large(length)),
            (0, Some(length)) => Ok(Framing::Length(length)),
            (_, Some(_)) => Err(refuse(400, "both Content-Length and Transfer-Encoding")),
            _ if version == 0 => Err(refuse(400, "Transfer-Encoding in HTTP/1.0")),
            (1, None) if self.chunked => Ok(Framing::Chunked),
            (1, None) => Err(refuse(501, "only the chunked transfer encoding is known")),
            _ => Err(refuse(400, "more than one Transfer-Encoding")),
        }
    }
}

/// Digits only: no sign, no blank, no list (RFC 9112 section 6.3).
fn parse_length(value: &[u8]) -> Result<usize, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(refuse(400, "malformed Content-Length"));
    }
    let digits = std::str::from_utf8(value).map_err(|_| refuse(400, "malformed Content-Length"))?;
    digits.parse().map_err(|_| refuse(413, "request body too large"))
}

/// Path and query of origin-form, absolute-form or `OPTIONS *` (RFC 9112 section 3.2).
fn split_target(target: &str, method: &Method) -> Result<(String, Option<String>), Refusal> {
    let rest = match target.as_bytes().first() {
        Some(b'/') => target,
        Some(b'*') if target == "*" && *method == Method::Options => "/",
        _ => {
            let lower = target.get(..8).unwrap_or(target).to_ascii_lowercase();
            let skip = if lower.starts_with("http://") {
                7
            } else if lower.starts_with("https://") {
                8
            } else {
                return Err(refuse(400, "malformed request target"));
            };
            match target[skip..].find('/') {
                Some(at) => &target[skip + at..],
                None => "/",
            }
        }
    };
    if rest.contains('#') {
        return Err(refuse(400, "malformed request target"));
    }
    Ok(match rest.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (rest.to_owned(), None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &str) -> Result<Head, u16> {
        let mut scanned = 0;
        match parse(head.as_bytes(), &mut scanned, 1000) {
            Ok(Some(Head { framing: Framing::Large(_), .. })) => Err(413),
            Ok(Some(head)) => Ok(head),
            Ok(None) => Err(0),
            Err(refusal) => Err(refusal.status),
        }
    }

    #[test]
    fn good_heads_are_understood() {
        let head = check("GET /a%2Fb?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n").unwrap();
        assert_eq!((head.path.as_str(), head.query.as_deref()), ("/a%2Fb", Some("x=1")));
        assert_eq!(head.framing, Framing::Length(10));
        assert!(head.keep_alive);
        assert!(!check("GET / HTTP/1.0\r\n\r\n").unwrap().keep_alive);
        assert!(check("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").unwrap().keep_alive);
        assert!(!check("GET / HTTP/1.1\r\nHost: h\r\nConnection: x, close\r\n\r\n").unwrap().keep_alive);
        assert_eq!(check("GET http://h/p?q HTTP/1.1\r\nHost: h\r\n\r\n").unwrap().path, "/p");
        assert_eq!(
            check("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n").unwrap().framing,
            Framing::Chunked
        );
        assert!(check("PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n").unwrap().expects_continue);
    }

    #[test]
    fn every_ambiguity_is_refused_with_its_status() {
        let cases: &[(&str, u16)] = &[
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET nothing HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /#frag HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x10\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 501),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\n Transfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n", 417),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nX", 0),
            ("", 0),
        ];
        for (head, status) in cases {
            assert_eq!(check(head).err(), Some(*status), "{head:?}");
        }
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(64));
        assert_eq!(check(&many).err(), Some(431));
        let fits = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(63));
        assert!(check(&fits).is_ok());
        let long = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(limits::HEAD_BYTES_MAX));
        assert_eq!(check(&long).err(), Some(431));
        assert_eq!(check(&"G".repeat(limits::REQUEST_LINE_BYTES_MAX + 1)).err(), Some(414));
        let line = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length - 14));
        assert!(check(&line(limits::REQUEST_LINE_BYTES_MAX)).is_ok());
        assert_eq!(check(&line(limits::REQUEST_LINE_BYTES_MAX + 1)).err(), Some(414));
    }
}
