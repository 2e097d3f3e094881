//! Anthropic's Messages API (contract engine 9.3, 13 rows 34 to 40).

use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::Value;

use super::anthropic_request::request_body;
use super::anthropic_wire::Assembler;
use super::endpoint::{Endpoint, base, names, need_model};
use super::reading::{Framing, read};
use super::{Completion, LlmError, Provider, Request, Sink};
use crate::config::ProviderConfig;
use crate::net::Timeouts;
use crate::rt::{Cancel, lock};

const BASE: &str = "https://api.anthropic.com";
const VERSION: &str = "2023-06-01";
/// Room for an answer when nothing is configured. Long reports and files fit; a model that allows less says so, and is
/// asked again with what it allows.
const MAX_TOKENS: u32 = 32_000;
/// Pages of the list of models; each holds up to a thousand.
const PAGES_MAX: usize = 20;
/// Models whose limit is remembered; a wild list of names must not fill the memory.
const LIMITS_MAX: usize = 256;

/// Calls one endpoint.
pub struct AnthropicProvider {
    endpoint: Endpoint,
    chat_url: String,
    models_url: String,
    max_tokens: u32,
    is_free: bool,
    /// Guarded by the mutex: models that allow fewer tokens than we ask for.
    limits: Mutex<HashMap<String, u32>>,
}

impl AnthropicProvider {
    /// A provider. The base address may end with `/`, `/v1`, `/v1/messages` or none of them. Fails when it is not an
    /// `http` or `https` address, or when the key cannot be sent in a header.
    pub fn new(config: &ProviderConfig, timeouts: Timeouts) -> Result<Self, LlmError> {
        let (base, query) = base(config, BASE)?;
        let base = base.strip_suffix("/messages").unwrap_or(base);
        let base = base.strip_suffix("/v1").unwrap_or(base);
        let mut endpoint = Endpoint::new(config, timeouts);
        endpoint.header("x-api-key", "", config.api_key.as_deref(), "api_key")?;
        endpoint.fixed_header("anthropic-version", VERSION);
        let and = if query.is_empty() { "?" } else { "&" };
        Ok(Self {
            endpoint,
            chat_url: format!("{base}/v1/messages{query}"),
            models_url: format!("{base}/v1/models{query}{and}limit=1000"),
            max_tokens: config.max_tokens.unwrap_or(MAX_TOKENS),
            is_free: config.is_free,
            limits: Mutex::default(),
        })
    }

    fn post(&self, request: &Request<'_>, sink: &mut dyn Sink, cancel: &Cancel) -> Result<Completion, LlmError> {
        let known = lock(&self.limits).get(request.model).copied();
        let max_tokens = known.map_or(self.max_tokens, |limit| limit.min(self.max_tokens));
        let body = request_body(request, max_tokens)?;
        let answer = self.endpoint.post(&self.chat_url, &body, cancel)?;
        let mut assembler = Assembler::new(max_tokens);
        read(answer, Framing::Events, request.stream, &mut assembler, sink)?;
        assembler.complete()
    }

    /// Remembers a model's own limit; true when that is news.
    fn learn_limit(&self, model: &str, message: &str) -> bool {
        let Some(limit) = allowed_tokens(message).filter(|limit| *limit > 0 && *limit < self.max_tokens) else {
            return false;
        };
        let mut limits = lock(&self.limits);
        if limits.len() >= LIMITS_MAX {
            limits.clear();
        }
        limits.insert(model.to_owned(), limit) != Some(limit)
    }
}

impl Provider for AnthropicProvider {
    fn name(&self) -> &str {
        self.endpoint.name()
    }

    fn is_free(&self) -> bool {
        self.is_free
    }

    fn complete(&self, request: Request<'_>, sink: &mut dyn Sink, cancel: &Cancel) -> Result<Completion, LlmError> {
        need_model(request.model, self.name())?;
        let mut result = self.post(&request, sink, cancel);
        if let Err(LlmError::Status { status: 400, message, .. }) = &result
            && self.learn_limit(request.model, message)
        {
            result = self.post(&request, sink, cancel);
        }
        result.map_err(|error| match self.endpoint.scrub(error) {
            // An empty account is a 400 here.
            LlmError::Status { status: 400, message, retry_after } if message.contains("credit balance is too low") => {
                LlmError::Status { status: 402, message, retry_after }
            }
            error => error,
        })
    }

    fn models(&self, cancel: &Cancel) -> Result<Vec<String>, LlmError> {
        let mut found: Vec<String> = Vec::new();
        let mut url = self.models_url.clone();
        for _ in 0..PAGES_MAX {
            let page = self.endpoint.get(&url, cancel)?;
            let listed = names(&page, "data", "id")?;
            let is_empty = listed.is_empty();
            found.extend(listed);
            let more = page.get("has_more").and_then(Value::as_bool).unwrap_or(false);
            match page.get("last_id").and_then(Value::as_str) {
                Some(last) if more && !is_empty && is_plain(last) => {
                    url = format!("{}&after_id={last}", self.models_url);
                }
                _ => break,
            }
        }
        Ok(found)
    }
}

/// An id that needs no escaping in a query.
fn is_plain(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':'))
}

/// The limit in `max_tokens: 32000 > 8192, which is the maximum allowed number of output tokens for ...`.
fn allowed_tokens(message: &str) -> Option<u32> {
    let (_, rest) = message.split_once("max_tokens")?;
    let (_, rest) = rest.split_once("> ")?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::allowed_tokens;

    #[test]
    fn the_limit_of_a_model_is_read_from_its_refusal() {
        let check = |message: &str, expected: Option<u32>| assert_eq!(allowed_tokens(message), expected, "{message}");
        check("max_tokens: 32000 > 8192, which is the maximum allowed number of output tokens for x", Some(8192));
        check("invalid_request_error: max_tokens: 64000 > 4096", Some(4096));
        check("max_tokens: field required", None);
        check("something > 7", None);
        check("max_tokens > x", None);
    }
}
