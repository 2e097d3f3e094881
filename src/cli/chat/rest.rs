//! The few questions that are not asked over the socket.

use std::time::Duration;

use super::link::Target;
use crate::rt::fields::typed;

const TIMEOUT: Duration = Duration::from_secs(10);

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
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .max_redirects(0)
        // The socket does not go through one either.
        .proxy(None)
        .build();
    let request = config.new_agent().get(format!("{}{path}", target.url));
    let mut response =
        request.header("Authorization", format!("Bearer {}", target.key)).call().map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let body = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
    if status == 200 {
        return serde_json::from_str(&body).map_err(|_| "the hub gave an answer that is not understood".to_owned());
    }
    let said = serde_json::from_str::<serde_json::Value>(&body).ok();
    let text = said.as_ref().and_then(|value| value["error"].as_str()).unwrap_or("no reason given");
    Err(match status {
        403 => "this key may not see that; it needs the scope sessions:read".to_owned(),
        _ => format!("{text} (status {status})"),
    })
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
    fn ids_fit_into_a_path() {
        assert_eq!(encoded("default:ws:a/b é?"), "default%3Aws%3Aa%2Fb%20%C3%A9%3F");
        assert_eq!(encoded("8f0c-_.~"), "8f0c-_.~");
    }
}
