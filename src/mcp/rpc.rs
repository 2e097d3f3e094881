//! JSON-RPC 2.0 messages (MCP 2025-11-25, "Messages"): parsing what a server sends, writing what we send. No I/O.

use serde_json::{Value, json};

/// Values in one message, roughly: a short text of many small values takes thirty times its size in memory.
const VALUES_MAX: usize = 256 * 1024;
/// Messages of one batch (protocol 2025-03-26 has them).
const BATCH_MAX: usize = 256;

/// "Method not found" of JSON-RPC.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;

/// A message of a server.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    Answer {
        id: u64,
        result: Result<Value, (i64, String)>,
    },
    Request {
        id: Value,
        method: String,
    },
    Notice {
        method: String,
        params: Value,
    },
    /// Not JSON-RPC.
    Nonsense,
}

/// Reads one line or one event: a message, or a batch of them. Blank lines are nothing.
pub(super) fn parse(text: &[u8]) -> Vec<Incoming> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if text.iter().all(u8::is_ascii_whitespace) {
        return Vec::new();
    }
    if n_values(text) > VALUES_MAX {
        return vec![Incoming::Nonsense];
    }
    match serde_json::from_slice(text) {
        Ok(Value::Array(batch)) => batch.into_iter().take(BATCH_MAX).map(message).collect(),
        Ok(value) => vec![message(value)],
        Err(_) => vec![Incoming::Nonsense],
    }
}

/// The id of an answer that was too long to be read, from its first or last bytes.
pub(super) fn sniff_id(head: &[u8], tail: &[u8]) -> Option<u64> {
    let head = String::from_utf8_lossy(head);
    let tail = String::from_utf8_lossy(tail);
    let before_result = head.split("\"result\"").next().unwrap_or("");
    last_id(before_result).or_else(|| last_id(&tail))
}

fn last_id(text: &str) -> Option<u64> {
    let text = text.rsplit_once("\"id\":")?.1.trim_start();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

pub(super) fn request(id: u64, method: &str, params: &Value) -> Vec<u8> {
    encode(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
}

pub(super) fn notice(method: &str, params: Option<Value>) -> Vec<u8> {
    let mut message = json!({"jsonrpc": "2.0", "method": method});
    if let Some(params) = params {
        message["params"] = params;
    }
    encode(&message)
}

pub(super) fn answer(id: &Value, result: Result<Value, (i64, &str)>) -> Vec<u8> {
    encode(&match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err((code, message)) => json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}),
    })
}

/// JSON text holds no raw line ends, so one message is one line.
fn encode(message: &Value) -> Vec<u8> {
    let mut text = message.to_string().into_bytes();
    text.push(b'\n');
    text
}

fn message(mut value: Value) -> Incoming {
    let id = value.get_mut("id").map(Value::take).filter(|id| !id.is_null());
    let method = value.get("method").and_then(Value::as_str).map(str::to_owned);
    match (id, method) {
        (Some(id), Some(method)) => Incoming::Request { id, method },
        (None, Some(method)) => {
            let params = value.get_mut("params").map_or(Value::Null, Value::take);
            Incoming::Notice { method, params }
        }
        (Some(id), None) => {
            let Some(id) = id.as_u64().or_else(|| id.as_str()?.parse().ok()) else { return Incoming::Nonsense };
            if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
                let code = error.get("code").and_then(Value::as_i64).unwrap_or(0);
                let text = error.get("message").and_then(Value::as_str).unwrap_or("no reason given");
                return Incoming::Answer { id, result: Err((code, text.to_owned())) };
            }
            match value.get_mut("result") {
                Some(result) => Incoming::Answer { id, result: Ok(result.take()) },
                None => Incoming::Nonsense,
            }
        }
        (None, None) => Incoming::Nonsense,
    }
}

/// At least the number of values in a JSON text, counted without parsing it.
fn n_values(text: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        let check = |text: &str, expected: &[Incoming]| assert_eq!(parse(text.as_bytes()), expected, "{text}");
        let answer = |id, result| Incoming::Answer { id, result };
        check("", &[]);
        check("  \t", &[]);
        check("listening on stdio", &[Incoming::Nonsense]);
        check("{\"jsonrpc\":\"2.0\"", &[Incoming::Nonsense]);
        check("{}", &[Incoming::Nonsense]);
        check("7", &[Incoming::Nonsense]);
        check(r#"{"jsonrpc":"2.0","id":7,"result":{"a":1}}"#, &[answer(7, Ok(json!({"a": 1})))]);
        check(r#"{"jsonrpc":"2.0","id":"7","result":null}"#, &[answer(7, Ok(Value::Null))]);
        check(r#"{"jsonrpc":"2.0","id":"x","result":null}"#, &[Incoming::Nonsense]);
        check(r#"{"jsonrpc":"2.0","id":-7,"result":null}"#, &[Incoming::Nonsense]);
        check(r#"{"id":7}"#, &[Incoming::Nonsense]);
        check(
            r#"{"id":7,"error":{"code":-32602,"message":"bad"},"result":null}"#,
            &[answer(7, Err((-32602, "bad".to_owned())))],
        );
        check(r#"{"id":7,"error":"odd"}"#, &[answer(7, Err((0, "no reason given".to_owned())))]);
        check(r#"{"id":"s-1","method":"ping"}"#, &[Incoming::Request { id: json!("s-1"), method: "ping".to_owned() }]);
        check(
            r#"[{"method":"a","params":{"x":1}},{"id":1,"result":2}]"#,
            &[Incoming::Notice { method: "a".to_owned(), params: json!({"x": 1}) }, answer(1, Ok(json!(2)))],
        );
    }

    #[test]
    fn a_message_of_very_many_values_is_not_parsed() {
        let text = format!("{{\"id\":1,\"result\":[{}0]}}", "0,".repeat(VALUES_MAX));
        assert_eq!(parse(text.as_bytes()), [Incoming::Nonsense]);
        let text = format!("{{\"id\":1,\"result\":\"{}\\\",\"}}", ",".repeat(VALUES_MAX));
        assert!(matches!(parse(text.as_bytes())[..], [Incoming::Answer { id: 1, .. }]));
    }

    #[test]
    fn the_id_of_an_overlong_answer_is_found_at_either_end() {
        let check = |head: &str, tail: &str, expected| {
            assert_eq!(sniff_id(head.as_bytes(), tail.as_bytes()), expected, "{head} {tail}");
        };
        check(r#"{"jsonrpc":"2.0","id":12,"result":{"id":5"#, "xx", Some(12));
        check(r#"{"jsonrpc":"2.0", "id": 12,"result":{"#, "xx", Some(12));
        check(r#"{"result":{"id":5,"#, r#"xx"},"jsonrpc":"2.0","id":13}"#, Some(13));
        check("xxxx", "xxxx", None);
    }
}
