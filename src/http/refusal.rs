//! Answers that no handler makes: a limit was reached, or the request is not one.

use crate::api::message::{header, json_response};
use crate::http::head::Refusal;
use crate::http::reply;
use crate::limits;
use crate::rt::json;

/// Appends a whole answer that closes the connection.
pub(super) fn push_refusal(out: &mut Vec<u8>, refusal: Refusal, common: &[u8]) {
    let mut body = b"{\"error\":".to_vec();
    json::push_str(&mut body, refusal.text);
    body.extend_from_slice(b",\"code\":");
    json::push_str(&mut body, code_of(refusal.status));
    body.extend_from_slice(b"}\n");
    let mut response = json_response(refusal.status, body);
    if refusal.status == 503
        && let Some(header) = header("Retry-After", &limits::RETRY_AFTER_S.to_string())
    {
        response.add_header(header);
    }
    reply::push_response(out, response, reply::Framing { head_only: false, keep_alive: false, http10: false }, common);
}

fn code_of(status: u16) -> &'static str {
    match status {
        408 => "timeout",
        413 => "body_too_large",
        414 => "uri_too_long",
        417 => "expectation_failed",
        431 => "head_too_large",
        501 => "not_implemented",
        503 => "busy",
        505 => "http_version",
        _ => "bad_request",
    }
}
