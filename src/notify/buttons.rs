//! Buttons that decide: a request for approval is approved or denied from the notification itself.
//!
//! A button carries a token in the body that it posts, never in an address. The token is an HMAC over the request, the
//! verdict and the channel, so nothing is stored: it works for one verdict on one request, once (a request is decided
//! once), until the request expires, and only while the channel has buttons. Whoever reads the channel can press it:
//! buttons are off unless the channel's settings say otherwise.

use ring::hmac;
use serde_json::{Value, json};

use crate::rt::text::hex;

/// Makes and checks the tokens of one hub.
pub(super) struct Buttons {
    key: hmac::Key,
}

impl Buttons {
    /// With a key of its own, derived from the hub's secret.
    pub(super) fn new(secret: &str) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let derived = hmac::sign(&root, b"holt: buttons of notifications");
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()) }
    }

    fn token(&self, channel: &str, approval_id: &str, approve: bool) -> String {
        hex(hmac::sign(&self.key, signed(channel, approval_id, approve).as_bytes()).as_ref())
    }

    /// Whether a token was made for exactly this. Takes the same time for all wrong ones.
    pub(super) fn is_valid(&self, channel: &str, approval_id: &str, approve: bool, token: &str) -> bool {
        let expected = self.token(channel, approval_id, approve);
        expected.len() == token.len()
            && bool::from(subtle::ConstantTimeEq::ct_eq(expected.as_bytes(), token.as_bytes()))
    }

    /// The two buttons of a request: label, address to post to, body.
    pub(super) fn of(&self, base_url: &str, channel: &str, approval_id: &str) -> [(&'static str, String, Value); 2] {
        [("Approve", true), ("Deny", false)].map(|(label, approve)| {
            let token = self.token(channel, approval_id, approve);
            let body = json!({"channel": channel, "approve": approve, "token": token});
            (label, format!("{base_url}/api/v1/approvals/{approval_id}/button"), body)
        })
    }
}

/// Lengths first: no two requests have the same text.
fn signed(channel: &str, approval_id: &str, approve: bool) -> String {
    format!("{}:{channel}:{}:{approval_id}:{approve}", channel.len(), approval_id.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_one_verdict_on_one_request_from_one_channel() {
        let buttons = Buttons::new("a secret");
        let [(label, url, body), deny] = buttons.of("https://hub", "phone", "a1");
        assert_eq!((label, url.as_str()), ("Approve", "https://hub/api/v1/approvals/a1/button"));
        let token = body["token"].as_str().unwrap();
        assert!(!url.contains(token));
        assert!(buttons.is_valid("phone", "a1", true, token));
        assert!(!buttons.is_valid("phone", "a1", false, token));
        assert!(!buttons.is_valid("phone", "a2", true, token));
        assert!(!buttons.is_valid("other", "a1", true, token));
        assert!(!buttons.is_valid("phone", "a1", true, &token[1..]));
        assert!(!buttons.is_valid("phone", "a1", true, ""));
        assert!(!Buttons::new("another").is_valid("phone", "a1", true, token));
        assert!(buttons.is_valid("phone", "a1", false, deny.2["token"].as_str().unwrap()));
    }
}
