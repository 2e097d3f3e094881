//! Getting one resource of the web: each hop judged, everything bounded.

use std::io::Read;
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;

use crate::net::guard::{CheckedUrl, Guard, GuardError};
use crate::net::{Answer, Call, HttpClient, NetError, Phase, Timeouts};
use crate::rt::Cancel;
use crate::tools::ToolError;

/// Contract engine 8.7.
const REDIRECTS_MAX: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A page that says nothing for this long will not say much.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT: &str = "text/html, application/xhtml+xml, text/plain;q=0.9, application/json;q=0.9, */*;q=0.5";
/// Enough to tell text from data.
const SNIFF_BYTES: usize = 1024;

/// How a resource is got.
pub(super) struct Downloader {
    pub(super) guard: Guard,
    pub(super) user_agent: String,
    pub(super) bytes_max: usize,
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Html,
    Text,
    /// Not for reading; its body was not taken.
    Binary,
}

/// A resource.
pub(super) struct Downloaded {
    /// Where it was in the end.
    pub(super) url: CheckedUrl,
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) kind: Kind,
    pub(super) body: Vec<u8>,
    /// The size that the server named, of binary data.
    pub(super) length: Option<u64>,
    /// There was more than is taken.
    pub(super) cut: bool,
}

impl Downloader {
    /// Gets a resource, following redirects; `may` is asked about each hop before it is requested.
    pub(super) fn get(
        &self,
        url: &str,
        deadline: Instant,
        cancel: &Cancel,
        may: &mut dyn FnMut(&CheckedUrl) -> Result<(), ToolError>,
    ) -> Result<Downloaded, ToolError> {
        self.get_start(url, self.bytes_max, deadline, cancel, may)
    }

    /// The same, taking at most the first `bytes_max` bytes.
    pub(super) fn get_start(
        &self,
        url: &str,
        bytes_max: usize,
        deadline: Instant,
        cancel: &Cancel,
        may: &mut dyn FnMut(&CheckedUrl) -> Result<(), ToolError>,
    ) -> Result<Downloaded, ToolError> {
        let mut url = self.guard.check_url(url).map_err(|error| refused(&error))?;
        for _ in 0..=REDIRECTS_MAX {
            may(&url)?;
            let client = HttpClient::new(timeouts(deadline)?).with_filter(url.filter()).without_reuse();
            let text = url.text();
            let call = Call::get(&text)
                .header("accept", ACCEPT)
                .header("accept-encoding", "gzip")
                .header("user-agent", &self.user_agent);
            let answer = client.send(&call, cancel).map_err(|error| failed(&error, &url))?;
            let location = answer.header("location").filter(|_| matches!(answer.status(), 301 | 302 | 303 | 307 | 308));
            let Some(location) = location else {
                return read(answer, &url, bytes_max);
            };
            let next = self.guard.check_redirect(&url, location).map_err(|error| {
                ToolError::new(format!("{} redirects to a place that is refused: {error}", url.url().origin()))
            })?;
            drop(answer);
            url = next;
        }
        Err(ToolError::new(format!("more than {REDIRECTS_MAX} redirects, last to {}", url.url().origin())))
    }
}

fn read(mut answer: Answer<'_>, url: &CheckedUrl, bytes_max: usize) -> Result<Downloaded, ToolError> {
    let content_type = answer.header("content-type").unwrap_or("").to_owned();
    let length = answer.header("content-length").and_then(|length| length.trim().parse().ok());
    let encoding = answer.header("content-encoding").unwrap_or("").trim().to_ascii_lowercase();
    let mut found = Downloaded {
        url: url.clone(),
        status: answer.status(),
        kind: kind_of(&content_type).unwrap_or(Kind::Text),
        content_type,
        body: Vec::new(),
        length,
        cut: false,
    };
    // The body of an error is not shown.
    if found.kind == Kind::Binary || found.status >= 400 {
        return Ok(found);
    }
    let (bytes, whole) = answer.body_start(bytes_max).map_err(|error| failed(&error, url))?;
    (found.body, found.cut) = match encoding.as_str() {
        "" | "identity" => (bytes, !whole),
        "gzip" | "x-gzip" => unpack(&bytes, whole, bytes_max)?,
        _ => return Err(ToolError::new("the server sent the page in an encoding that was not asked for")),
    };
    if found.body.iter().take(SNIFF_BYTES).any(|byte| *byte == 0) && !is_utf16(&found) {
        found.kind = Kind::Binary;
        found.length = Some(u64::try_from(found.body.len()).unwrap_or(u64::MAX)).filter(|_| !found.cut);
        found.body = Vec::new();
    } else if kind_of(&found.content_type).is_none() && looks_like_html(&found.body) {
        found.kind = Kind::Html;
    }
    Ok(found)
}

/// Unpacks at most as much as is taken of any page: a few kilobytes can stand for gigabytes.
fn unpack(bytes: &[u8], whole: bool, bytes_max: usize) -> Result<(Vec<u8>, bool), ToolError> {
    let mut body = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let mut unpacker = MultiGzDecoder::new(bytes).take(limit + 1);
    // What came before the damage is worth reading, if there is anything.
    if unpacker.read_to_end(&mut body).is_err() && whole && body.is_empty() {
        return Err(ToolError::new("the page is packed with gzip, and damaged"));
    }
    let cut = body.len() > bytes_max;
    body.truncate(bytes_max);
    Ok((body, cut || !whole))
}
fn failed(error: &NetError, url: &CheckedUrl) -> ToolError {
    let host = url.url().origin();
    ToolError::new(match error {
        NetError::Cancelled => "cancelled".to_owned(),
        NetError::Refused { address } => match url.rule().check(*address, url.url().host.to_string().as_str()) {
            Err(reason) => format!("{reason} (it resolves to {address})"),
            Ok(()) => format!("{host} resolves to an address that is refused"),
        },
        NetError::Timeout { phase: Phase::Connect, .. } => format!("{host} cannot be reached: no answer in time"),
        NetError::Timeout { .. } => format!("{host} did not answer in time"),
        NetError::Connect { cause } => format!("{host} cannot be reached: {cause}"),
        NetError::Cut { .. } => format!("{host} ended the connection in the middle of its answer"),
        NetError::TooLarge { .. } => format!("the answer of {host} is too large"),
        NetError::BadUrl { cause } | NetError::Decode { cause } => {
            format!("{host} did not answer as a web server does: {cause}")
        }
    })
}

pub(super) fn refused(error: &GuardError) -> ToolError {
    ToolError::new(error.to_string())
}

/// Limits of each wait, so that all together end by the deadline.
pub(super) fn timeouts(deadline: Instant) -> Result<Timeouts, ToolError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ToolError::new("no time is left for this call"));
    }
    let idle = IDLE_TIMEOUT.min(left);
    Ok(Timeouts { connect: CONNECT_TIMEOUT.min(left), first_byte: left, idle, total: Some(left) })
}

/// None when the server does not say.
fn kind_of(content_type: &str) -> Option<Kind> {
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let (group, name) = essence.split_once('/').unwrap_or((&essence, ""));
    Some(match (group, name) {
        ("", _) => return None,
        ("text", "html") | ("application", "xhtml+xml") => Kind::Html,
        ("text", _) => Kind::Text,
        (_, name) if name.ends_with("+json") || name.ends_with("+xml") => Kind::Text,
        ("application", "json" | "xml" | "javascript" | "x-javascript" | "yaml" | "x-yaml" | "toml" | "x-sh") => {
            Kind::Text
        }
        ("application", "ndjson" | "x-ndjson" | "jsonl" | "sql" | "graphql" | "x-www-form-urlencoded") => Kind::Text,
        _ => Kind::Binary,
    })
}

fn is_utf16(found: &Downloaded) -> bool {
    found.body.starts_with(b"\xff\xfe")
        || found.body.starts_with(b"\xfe\xff")
        || found.content_type.to_ascii_lowercase().contains("utf-16")
}

fn looks_like_html(body: &[u8]) -> bool {
    let head: Vec<u8> = body.trim_ascii_start().iter().take(32).map(u8::to_ascii_lowercase).collect();
    [&b"<!doctype html"[..], b"<html", b"<head", b"<body"].iter().any(|begin| head.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_the_content_type() {
        for (content_type, kind) in [
            ("text/html; charset=utf-8", Some(Kind::Html)),
            ("APPLICATION/XHTML+XML", Some(Kind::Html)),
            ("text/plain", Some(Kind::Text)),
            ("application/json", Some(Kind::Text)),
            ("application/rss+xml", Some(Kind::Text)),
            ("image/svg+xml", Some(Kind::Text)),
            ("application/vnd.api+json;v=1", Some(Kind::Text)),
            ("image/png", Some(Kind::Binary)),
            ("application/pdf", Some(Kind::Binary)),
            ("application/octet-stream", Some(Kind::Binary)),
            ("nonsense", Some(Kind::Binary)),
            ("", None),
        ] {
            assert_eq!(kind_of(content_type), kind, "{content_type}");
        }
    }
}
