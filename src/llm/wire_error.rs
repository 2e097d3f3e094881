//! Errors as providers spell them: in a body beside a status, or inside a stream. Does no I/O.

use serde_json::Value;

use super::LlmError;

/// Longest error text that is kept.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The message of an error body, which may be JSON of any of the usual shapes, or plain text.
pub(super) fn message_of_body(body: &[u8]) -> String {
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        return message_of(&value);
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    // A web page from a proxy says nothing that fits a line.
    if text.starts_with('<') { "the server answered with a web page".to_owned() } else { bounded(text) }
}

/// An `{"error":...}` inside a stream or beside status 200: its own status if it names one, else by its code, else 400
/// (contract engine 9.2).
pub(super) fn in_band_error(error: &Value) -> LlmError {
    error_with(error, 400)
}

/// The same with another status for what nobody knows.
pub(super) fn error_with(error: &Value, unknown: u16) -> LlmError {
    let code = ["code", "status", "type"].iter().find_map(|key| error.get(key).and_then(status_of));
    LlmError::Status { status: code.unwrap_or(unknown), message: message_of(error), retry_after: None }
}

/// The data of an SSE `event: error`.
pub(super) fn event_error(data: &str) -> LlmError {
    event_error_with(data, 400)
}

/// The same with another status for what nobody knows.
pub(super) fn event_error_with(data: &str, unknown: u16) -> LlmError {
    match serde_json::from_str::<Value>(data) {
        Ok(value) => error_with(value.get("error").unwrap_or(&value), unknown),
        Err(_) => LlmError::Status { status: unknown, message: bounded(data), retry_after: None },
    }
}

fn status_of(value: &Value) -> Option<u16> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    if let Some(number) = number {
        return u16::try_from(number).ok().filter(|status| (400..=599).contains(status));
    }
    let code = value.as_str()?;
    let known = [
        ("insufficient_quota", 402),
        ("rate_limit", 429),
        ("overloaded", 503),
        ("server_error", 500),
        ("api_error", 500),
        ("internal", 500),
        ("timeout", 504),
        ("billing", 402),
        ("too_large", 413),
        ("invalid_request", 400),
        ("authentication", 401),
        ("invalid_api_key", 401),
        ("permission", 403),
        ("model_not_found", 404),
        ("not_found", 404),
    ];
    known.iter().find(|(word, _)| code.contains(word)).map(|(_, status)| *status)
}

/// `{"error":{"message"}}`, `{"message"}`, `{"error":"..."}`, `{"detail"}`, a string, else the JSON itself. A word in
/// `code` or `type` that the text lacks is put in front.
pub(super) fn message_of(value: &Value) -> String {
    let inner = match value.get("error") {
        Some(error) if !error.is_null() => error,
        _ => value,
    };
    let text = inner
        .as_str()
        .or_else(|| ["message", "detail", "error_description"].iter().find_map(|key| inner.get(key)?.as_str()))
        .map_or_else(|| inner.to_string(), str::to_owned);
    let code = ["code", "type"].iter().find_map(|key| inner.get(key)?.as_str()).unwrap_or_default();
    if code.is_empty() || code.parse::<u16>().is_ok() || text.contains(code) {
        bounded(&text)
    } else {
        bounded(&format!("{code}: {text}"))
    }
}

fn bounded(text: &str) -> String {
    let mut end = text.len().min(MESSAGE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_in_every_shape() {
        let check = |body: &str, expected: &str| assert_eq!(message_of_body(body.as_bytes()), expected, "{body}");
        check(r#"{"error":{"message":"no such model","code":404}}"#, "no such model");
        check(r#"{"error":{"message":"over","code":"insufficient_quota"}}"#, "insufficient_quota: over");
        check(r#"{"error":"model 'x' not found"}"#, "model 'x' not found");
        check(r#"{"message":"plain"}"#, "plain");
        check(r#"{"detail":"Not Found"}"#, "Not Found");
        check(r#""text""#, "text");
        check(r#"{"odd":1}"#, r#"{"odd":1}"#);
        check("  busy \n", "busy");
        check("<html>502</html>", "the server answered with a web page");
        assert_eq!(message_of_body(&vec![b'x'; 100_000]).len(), MESSAGE_BYTES_MAX);
        assert_eq!(message_of_body("ü".repeat(9000).as_bytes()).len(), MESSAGE_BYTES_MAX);
    }

    #[test]
    fn errors_inside_a_stream_get_a_status() {
        let check = |data: &str, status: u16, message: &str| {
            let expected = LlmError::Status { status, message: message.to_owned(), retry_after: None };
            assert_eq!(event_error(data), expected, "{data}");
        };
        check(r#"{"error":{"message":"slow","code":429}}"#, 429, "slow");
        check(r#"{"error":{"message":"slow","code":"502"}}"#, 502, "slow");
        check(r#"{"error":{"message":"m","type":"server_error"}}"#, 500, "server_error: m");
        check(r#"{"message":"m"}"#, 400, "m");
        check(r#"{"error":"m"}"#, 400, "m");
        check("raw words", 400, "raw words");
    }
}
