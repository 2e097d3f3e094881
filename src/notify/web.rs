//! The channels over HTTP: ntfy, Gotify and signed web hooks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};

use super::channel::{Channel, Message, SendError};
use super::notice::{Kind, Notice};
use crate::alert::Level;
use crate::config::{ChannelConfig, GotifyConfig, NtfyConfig, Priorities, WebhookConfig};
use crate::net::guard::{Guard, Origin, check_header};
use crate::net::{Call, HttpClient, NetError, Timeouts};
use crate::rt::text::{cut, hex};
use crate::rt::{Cancel, clock};

/// Errors of services are short; pages of proxies are not wanted.
const ANSWER_BYTES_MAX: usize = 4096;
const CAUSE_BYTES_MAX: usize = 200;
const SIGNATURE: &str = "X-Holt-Signature";

/// What differs between the services.
pub(super) enum Format {
    Ntfy { topic: String, priorities: Priorities, tags: Vec<String> },
    Gotify { priorities: Priorities },
    Webhook { secret: Option<hmac::Key> },
}

/// A service that takes JSON by POST.
pub(super) struct Web {
    url: String,
    headers: Vec<(String, String)>,
    /// What must not be quoted from an answer: some services quote what they refuse.
    secrets: Vec<String>,
    format: Format,
    client: HttpClient,
}

/// A channel to an ntfy server.
pub(super) fn ntfy(config: &ChannelConfig, ntfy: &NtfyConfig) -> Result<Web, String> {
    let credential = match (&ntfy.token, &ntfy.user) {
        (Some(token), _) => Some(format!("Bearer {token}")),
        (None, Some((user, password))) => Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))),
        (None, None) => None,
    };
    let headers = credential.map(|value| ("Authorization".to_owned(), value)).into_iter().collect();
    let format = Format::Ntfy { topic: ntfy.topic.clone(), priorities: ntfy.priorities, tags: ntfy.tags.clone() };
    let mut web = web(config, format!("{}/", ntfy.server), headers, format)?;
    web.secrets
        .extend(ntfy.user.as_ref().map(|(_, password)| password.clone()).filter(|password| !password.is_empty()));
    Ok(web)
}

/// A channel to a Gotify server.
pub(super) fn gotify(config: &ChannelConfig, gotify: &GotifyConfig) -> Result<Web, String> {
    let headers = vec![("X-Gotify-Key".to_owned(), gotify.token.clone())];
    web(config, format!("{}/message", gotify.server), headers, Format::Gotify { priorities: gotify.priorities })
}

/// A channel to a web hook.
pub(super) fn webhook(config: &ChannelConfig, hook: &WebhookConfig) -> Result<Web, String> {
    let headers = hook.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let secret = hook.secret.as_ref().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
    web(config, hook.url.clone(), headers, Format::Webhook { secret })
}

fn web(config: &ChannelConfig, url: String, headers: Vec<(String, String)>, format: Format) -> Result<Web, String> {
    // An operator chose it: this machine and private networks are fine, metadata services are not.
    let checked = Guard::new(Origin::Operator { allow_loopback: true }).check_url(&url).map_err(|e| e.to_string())?;
    for (name, value) in &headers {
        check_header(name, value).map_err(|error| error.to_string())?;
    }
    let total = config.timeout;
    let timeouts = Timeouts { connect: total, first_byte: total, idle: total, total: Some(total) };
    let client = HttpClient::new(timeouts).with_filter(checked.filter()).without_reuse();
    // A credential is the last word of its line: `Bearer TOKEN`.
    let last_words = headers.iter().filter_map(|(_, value)| value.split_ascii_whitespace().last());
    let secrets = last_words.map(str::to_owned).collect();
    Ok(Web { url: checked.text(), headers, secrets, format, client })
}

impl Web {
    fn body(&self, message: &Message<'_>) -> Value {
        let Message { notice, title, body, link, buttons } = message;
        let text = if body.is_empty() { title } else { body };
        match &self.format {
            Format::Ntfy { topic, priorities, tags } => {
                let mut tags = tags.clone();
                tags.insert(0, emoji(notice).to_owned());
                let mut shape = json!({
                    "topic": topic, "title": title, "message": text, "tags": tags,
                    "priority": priority(priorities, notice),
                });
                let mut actions = Vec::new();
                if !link.is_empty() {
                    shape["click"] = json!(link);
                    actions.push(json!({"action": "view", "label": "Open", "url": link}));
                }
                actions.extend(buttons.iter().map(|(label, url, body)| {
                    let headers = json!({"Content-Type": "application/json"});
                    json!({"action": "http", "label": label, "url": url, "method": "POST", "headers": headers,
                        "body": body.to_string(), "clear": true})
                }));
                if !actions.is_empty() {
                    shape["actions"] = Value::Array(actions);
                }
                shape
            }
            Format::Gotify { priorities } => {
                let mut shape = json!({"title": title, "message": text, "priority": priority(priorities, notice)});
                if !link.is_empty() {
                    shape["extras"] = json!({"client::notification": {"click": {"url": link}}});
                }
                shape
            }
            Format::Webhook { .. } => {
                let mut shape = event_shape(message);
                if !buttons.is_empty() {
                    let action = |(label, url, body): &(&str, String, Value)| json!({"label": label, "method": "POST", "url": url, "body": body});
                    shape["actions"] = buttons.iter().map(action).collect();
                }
                shape
            }
        }
    }

    fn refusal(&self, status: u16, answer: &[u8]) -> String {
        let said = serde_json::from_slice::<Value>(answer).ok();
        let said = said.as_ref().and_then(|said| said.get("errorDescription").or(said.get("error"))?.as_str());
        let mut cause = format!("the service answered {status}");
        match (status, said) {
            (401 | 403, _) => cause.push_str(": it does not accept the credential; look at token, user and headers"),
            (300..=399, _) => cause.push_str(": redirects are not followed; set the address that it leads to"),
            (_, Some(said)) if !self.secrets.iter().any(|secret| said.contains(secret)) => {
                let said: String = cut(said, CAUSE_BYTES_MAX).chars().filter(|c| !c.is_control()).collect();
                cause.extend([": ", &said]);
            }
            _ => {}
        }
        cause
    }
}

impl Channel for Web {
    fn send(&mut self, message: &Message<'_>, cancel: &Cancel) -> Result<(), SendError> {
        let body = self.body(message).to_string();
        let mut call = Call::post(&self.url, body.as_bytes()).headers(&self.headers);
        let signature;
        if let Format::Webhook { secret: Some(key) } = &self.format {
            signature = sign(key, clock::unix_s(), &body);
            call = call.header(SIGNATURE, &signature);
        }
        let mut answer = self.client.send(&call, cancel).map_err(|error| net_error(&error))?;
        let status = answer.status();
        if (200..300).contains(&status) {
            return Ok(());
        }
        let after = answer.retry_after();
        // The status says enough where its explanation cannot be read.
        let (said, _) = answer.body_start(ANSWER_BYTES_MAX).unwrap_or_default();
        drop(answer);
        if cancel.is_set() {
            return Err(SendError::Cancelled);
        }
        let cause = self.refusal(status, &said);
        Err(match status {
            408 | 425 | 429 | 502..=504 => SendError::Later { cause, after },
            500.. => SendError::Broken(cause),
            _ => SendError::Refused(cause),
        })
    }
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA256 over `SECONDS.BODY`, so that an old body cannot be sent again unnoticed.
fn sign(key: &hmac::Key, at_s: i64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{at_s}.{body}").as_bytes());
    format!("t={at_s},v1={}", hex(tag.as_ref()))
}

/// A notice for programs: web hooks and MQTT.
pub(super) fn event_shape(message: &Message<'_>) -> Value {
    let notice = message.notice;
    json!({
        "id": notice.dedup, "kind": notice.kind.name(), "level": notice.level.name(), "title": message.title,
        "body": message.body, "machine": notice.machine, "machine_id": notice.machine_id, "check": notice.check,
        "target": notice.target, "labels": notice.labels, "time": clock::rfc3339(notice.time), "link": message.link,
    })
}

fn priority(priorities: &Priorities, notice: &Notice) -> u32 {
    let place = match notice.level {
        Level::Critical => 0,
        Level::Warning => 1,
        Level::Info => 2,
        Level::Ok => 3,
    };
    priorities[place]
}

/// ntfy shows these tags as pictures.
fn emoji(notice: &Notice) -> &'static str {
    match (notice.kind, notice.level) {
        (Kind::Approval, _) => "raised_hand",
        (Kind::Report, Level::Info) => "alarm_clock",
        (Kind::Test, _) => "test_tube",
        (_, Level::Critical) => "rotating_light",
        (_, Level::Warning) => "warning",
        (_, Level::Info) => "information_source",
        (_, Level::Ok) => "white_check_mark",
    }
}

fn net_error(error: &NetError) -> SendError {
    match error {
        NetError::Cancelled => SendError::Cancelled,
        NetError::BadUrl { .. } | NetError::Refused { .. } => SendError::Refused(error.to_string()),
        NetError::Connect { .. }
        | NetError::Timeout { .. }
        | NetError::Cut { .. }
        | NetError::Decode { .. }
        | NetError::TooLarge { .. } => SendError::later(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_can_be_checked_by_others() {
        // `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac s3cret`
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"s3cret");
        let signature = sign(&key, 1_700_000_000, r#"{"a":1}"#);
        assert_eq!(signature, SIGNED);
    }

    const SIGNED: &str = "t=1700000000,v1=1698a50bc74d1ff1db85c4e0a5297c2ad9fdba245d5737cdb789e4cc6e098940";
}
