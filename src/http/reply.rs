//! Answers on the wire. The writer of `tiny_http` drops `Connection` and `Upgrade` and chunks as it likes, so the head
//! is written here; bodies are whole, so their length is always known.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use tiny_http::StatusCode;

use crate::api::message::Response;
use crate::rt::json;

/// How to frame an answer.
#[derive(Clone, Copy)]
pub(super) struct Framing {
    /// Headers only: the request was HEAD.
    pub(super) head_only: bool,
    pub(super) keep_alive: bool,
    /// The client speaks HTTP/1.0: it keeps a connection only when told so.
    pub(super) http10: bool,
}

/// Appends the whole answer. `common` are the lines that every response carries.
pub(super) fn push_response(out: &mut Vec<u8>, response: Response, framing: Framing, common: &[u8]) {
    push_with_tail(out, response, 0, framing, common);
}

/// The same of an answer that goes on with `tail` bytes which come from elsewhere.
pub(super) fn push_with_tail(out: &mut Vec<u8>, response: Response, tail: u64, framing: Framing, common: &[u8]) {
    let status = response.status_code();
    let has_body = !matches!(status.0, 100..=199 | 204 | 304);
    push_status(out, status);
    push_date(out);
    for header in response.headers() {
        let (name, value) = (header.field.as_str().as_str(), header.value.as_str());
        if value.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            log::error!("a header value with a line end was left out: {name}");
            continue;
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(common);
    let body = response.into_reader().into_inner();
    if has_body {
        out.extend_from_slice(b"Content-Length: ");
        json::push_u64(out, body.len() as u64 + tail);
        out.extend_from_slice(b"\r\n");
    }
    if status.0 == 426 {
        // A `tiny_http::Response` silently refuses to carry these two (RFC 9110 section 15.5.22).
        out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
    }
    if !framing.keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if framing.http10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if has_body && !framing.head_only {
        out.extend_from_slice(&body);
    }
}

/// The head of an answer without a length: in chunks, or until the connection ends.
pub(super) fn push_stream_head(out: &mut Vec<u8>, content_type: &str, chunked: bool, common: &[u8]) {
    push_status(out, StatusCode(200));
    push_date(out);
    out.extend_from_slice(b"Content-Type: ");
    out.extend_from_slice(content_type.as_bytes());
    out.extend_from_slice(b"\r\nX-Accel-Buffering: no\r\n");
    out.extend_from_slice(common);
    if chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n");
    } else {
        out.extend_from_slice(b"Connection: close\r\n\r\n");
    }
}

fn push_status(out: &mut Vec<u8>, status: StatusCode) {
    if status.0 == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    json::push_u64(out, u64::from(status.0));
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn reason(status: StatusCode) -> &'static str {
    match status.0 {
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        507 => "Insufficient Storage",
        _ => status.default_reason_phrase(),
    }
}

thread_local! {
    /// The line of the current second: formatting it for every answer would cost more than the rest of the head.
    static DATE: RefCell<(u64, Vec<u8>)> = const { RefCell::new((0, Vec::new())) };
}

fn push_date(out: &mut Vec<u8>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    DATE.with(|cached| {
        let mut cached = cached.borrow_mut();
        if cached.0 != now || cached.1.is_empty() {
            let time = jiff::Timestamp::from_second(now.cast_signed()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            let zoned = time.to_zoned(jiff::tz::TimeZone::UTC);
            // IMF-fixdate (RFC 9110 section 5.6.7).
            cached.1 = zoned.strftime("Date: %a, %d %b %Y %H:%M:%S GMT\r\n").to_string().into_bytes();
            cached.0 = now;
        }
        out.extend_from_slice(&cached.1);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::message::{json_response, no_content};

    fn check(response: Response, framing: Framing) -> String {
        let mut out = Vec::new();
        push_response(&mut out, response, framing, b"X-Common: 1\r\n");
        let text = String::from_utf8(out).unwrap();
        let (date, rest) = (text.find("Date: ").unwrap(), text.find(" GMT\r\n").unwrap());
        format!("{}{}", &text[..date], &text[rest + 6..])
    }

    #[test]
    fn heads_say_how_long_the_body_is() {
        let keep = Framing { head_only: false, keep_alive: true, http10: false };
        assert_eq!(
            check(json_response(200, b"{}".to_vec()), keep),
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Common: 1\r\nContent-Length: 2\r\n\r\n{}"
        );
        assert_eq!(
            check(json_response(404, b"{}".to_vec()), Framing { head_only: true, keep_alive: false, http10: false }),
            "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nX-Common: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(check(no_content(), keep), "HTTP/1.1 204 No Content\r\nX-Common: 1\r\n\r\n");
        assert!(check(json_response(507, Vec::new()), keep).starts_with("HTTP/1.1 507 Insufficient Storage\r\n"));
    }
}
