//! What all providers over HTTP share: addresses, credentials in headers, refusals, and our key kept out of their words.

use serde_json::Value;

use super::LlmError;
use super::wire_error::message_of_body;
use crate::config::ProviderConfig;
use crate::net::{Answer, Call, HttpClient, NetError, Timeouts};
use crate::rt::Cancel;

/// Largest answer that is kept, as it comes over the wire.
pub(super) const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest error body that is looked at.
const ERROR_BYTES_MAX: usize = 4096;

/// A place to call: its credential and its connections.
pub(super) struct Endpoint {
    name: String,
    headers: Vec<(&'static str, String)>,
    api_key: Option<String>,
    client: HttpClient,
}

impl Endpoint {
    pub(super) fn new(config: &ProviderConfig, timeouts: Timeouts) -> Self {
        Self {
            name: config.name.clone(),
            headers: Vec::new(),
            api_key: config.api_key.clone().filter(|key| !key.is_empty()),
            client: HttpClient::new(timeouts),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Adds `header: <prefix><value>` to every call, if there is a value. `key` is the name of the setting it is from.
    pub(super) fn header(
        &mut self,
        header: &'static str,
        prefix: &str,
        value: Option<&str>,
        key: &str,
    ) -> Result<(), LlmError> {
        let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) else { return Ok(()) };
        if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(config_error(format!("the {key} of {} has a blank or a strange character", self.name)));
        }
        self.headers.push((header, format!("{prefix}{value}")));
        Ok(())
    }

    /// Adds a header with a value of our own.
    pub(super) fn fixed_header(&mut self, header: &'static str, value: &str) {
        self.headers.push((header, value.to_owned()));
    }

    /// Sends JSON; an answer with another status than 200 is [`LlmError::Status`].
    ///
    /// A model call may reach the provider twice without harm other than its price.
    pub(super) fn post<'a>(&'a self, url: &str, body: &[u8], cancel: &'a Cancel) -> Result<Answer<'a>, LlmError> {
        self.accepted(self.client.send(&Call::post(url, body).headers(&self.headers).repeatable(), cancel)?)
    }

    /// Gets a whole JSON answer.
    pub(super) fn get(&self, url: &str, cancel: &Cancel) -> Result<Value, LlmError> {
        let mut answer = self.accepted(self.client.send(&Call::get(url).headers(&self.headers), cancel)?)?;
        let body = answer.body(ANSWER_BYTES_MAX)?;
        serde_json::from_slice(&body).map_err(|error| decode(format!("JSON: {error}")))
    }

    fn accepted<'a>(&self, mut answer: Answer<'a>) -> Result<Answer<'a>, LlmError> {
        if answer.status() == 200 {
            return Ok(answer);
        }
        let mut body = Vec::new();
        let mut buffer = vec![0; ERROR_BYTES_MAX];
        while body.len() < ERROR_BYTES_MAX {
            match answer.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => body.extend_from_slice(&buffer[..n]),
                Err(NetError::Cancelled) => return Err(LlmError::Cancelled),
                // The status says more than the end of its explanation.
                Err(_) => break,
            }
        }
        body.truncate(ERROR_BYTES_MAX);
        let (status, retry_after) = (answer.status(), answer.retry_after());
        let error = LlmError::Status { status, message: message_of_body(&body), retry_after };
        Err(self.scrub(error))
    }

    /// Takes our own key out of a provider's words: some quote what they refuse.
    pub(super) fn scrub(&self, error: LlmError) -> LlmError {
        match (error, &self.api_key) {
            (LlmError::Status { status, message, retry_after }, Some(key)) if message.contains(key.as_str()) => {
                LlmError::Status { status, message: message.replace(key.as_str(), "[key]"), retry_after }
            }
            (error, _) => error,
        }
    }
}

/// The base address of a provider without slashes at its end, and its query, because some gateways carry a version in
/// it.
pub(super) fn base<'a>(config: &'a ProviderConfig, default: &'a str) -> Result<(&'a str, &'a str), LlmError> {
    split_base(config.base_url.as_deref().unwrap_or(default))
        .ok_or_else(|| config_error(format!("the base_url of {} is not an http or https address", config.name)))
}

fn split_base(base: &str) -> Option<(&str, &str)> {
    let base = base.trim();
    let (base, query) = base.find('?').map_or((base, ""), |at| base.split_at(at));
    let base = base.trim_end_matches('/');
    let host = base.strip_prefix("http://").or_else(|| base.strip_prefix("https://"))?;
    (!host.is_empty() && !host.starts_with('/')).then_some((base, query))
}

/// Refuses a call that names no model.
pub(super) fn need_model(model: &str, provider: &str) -> Result<(), LlmError> {
    if model.is_empty() {
        return Err(config_error(format!("no model is set for {provider}; set llm.default_model")));
    }
    Ok(())
}

/// The values of `key` in the objects of a list.
pub(super) fn names(body: &Value, list: &str, key: &str) -> Result<Vec<String>, LlmError> {
    let list = body.get(list).and_then(Value::as_array);
    let list = list.ok_or_else(|| decode("the answer holds no list of models"))?;
    Ok(list.iter().filter_map(|model| model.get(key)?.as_str()).map(str::to_owned).collect())
}

pub(super) fn cut(cause: &str) -> LlmError {
    LlmError::Cut { cause: cause.to_owned() }
}

pub(super) fn decode(cause: impl Into<String>) -> LlmError {
    LlmError::Decode { cause: cause.into() }
}

pub(super) fn config_error(cause: String) -> LlmError {
    LlmError::Config { cause }
}
