//! The few questions that are not asked over the socket.

use std::io::{Read, Write};
use std::time::Duration;

use super::link::Target;
use crate::cli::hub;
use crate::rt::fields::typed;
use crate::tls;

const TIMEOUT: Duration = Duration::from_secs(10);
/// A list of ten thousand conversations is 3 MB.
const ANSWER_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// A conversation of the list.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Conversation {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) agent: String,
    pub(super) message_count: u64,
    pub(super) last_activity: String,
}

typed!(Conversation { id, title, agent, message_count, last_activity });

/// A stored message.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Stored {
    pub(super) role: String,
    pub(super) content: String,
}

typed!(Stored { role, content });

/// All conversations, newest first.
pub(super) fn conversations(target: &Target) -> Result<Vec<Conversation>, String> {
    get(target, "/api/v1/sessions")
}

/// One conversation.
pub(super) fn conversation(target: &Target, id: &str) -> Result<Conversation, String> {
    get(target, &format!("/api/v1/sessions/{}", encoded(id)))
}

/// Its newest messages, oldest of them first.
pub(super) fn messages(target: &Target, id: &str) -> Result<Vec<Stored>, String> {
    get(target, &format!("/api/v1/sessions/{}/messages", encoded(id)))
}

fn get<T: serde::de::DeserializeOwned>(target: &Target, path: &str) -> Result<T, String> {
    let stream = hub::dial(&target.url, target.trust.as_ref()).map_err(|error| tls::explain(&error))?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(|error| error.to_string())?;
    let (authority, base) = (target.url.authority(), target.url.base());
    // HTTP/1.0: the answer is what comes until the end, never in chunks.
    let request = format!(
        "GET {base}{path} HTTP/1.0\r\nHost: {authority}\r\nAuthorization: Bearer {}\r\nAccept: application/json\r\n\r\n",
        target.key
    );
    let mut answer = Vec::new();
    let read = (&stream)
        .write_all(request.as_bytes())
        .and_then(|()| (&stream).take(ANSWER_BYTES_MAX).read_to_end(&mut answer));
    read.map_err(|error| error.to_string())?;
    let (status, body) = parse(&answer).ok_or("the hub's answer came in part")?;
    if status == 200 {
        return serde_json::from_slice(body).map_err(|_| "the hub gave an answer that is not understood".to_owned());
    }
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let text = said.as_ref().and_then(|value| value["error"].as_str()).unwrap_or("no reason given");
    Err(match status {
        403 => "this key may not see that; it needs the scope sessions:read".to_owned(),
        _ => format!("{text} (status {status})"),
    })
}

/// Status and body of a whole answer.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = (std::str::from_utf8(&answer[..end]).ok()?, &answer[end + 4..]);
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().filter_map(|line| line.split_once(':'));
    let length =
        length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value.trim()).next();
    let is_whole = length.is_none_or(|length| length.parse() == Ok(body.len()));
    is_whole.then_some((status, body))
}

/// Ids hold colons and worse.
fn encoded(id: &str) -> String {
    let mut text = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.extend(['%', hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
    }
    text
}

fn hex_digit(nibble: u8) -> char {
    char::from(b"0123456789ABCDEF"[usize::from(nibble)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_answers_count() {
        let check = |text: &str, expected: Option<(u16, &str)>| {
            assert_eq!(parse(text.as_bytes()), expected.map(|(status, body)| (status, body.as_bytes())), "{text}");
        };
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Some((200, "{}")));
        check("HTTP/1.1 404 Not Found\r\n\r\n", Some((404, "")));
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", None);
        check("HTTP/1.1 200 OK\r\n", None);
        check("", None);
    }

    #[test]
    fn ids_fit_into_a_path() {
        assert_eq!(encoded("default:ws:a/b é?"), "default%3Aws%3Aa%2Fb%20%C3%A9%3F");
        assert_eq!(encoded("8f0c-_.~"), "8f0c-_.~");
    }
}
