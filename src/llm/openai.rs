//! Any OpenAI-compatible endpoint (contract engine 9.1, 9.2), and Ollama, which speaks the same wire.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::openai_error::{event_error, message_of_body};
use super::openai_wire::{Assembler, request_body};
use super::{Completion, LlmError, Provider, Request, Sink};
use crate::config::{ProviderConfig, ProviderKind};
use crate::net::sse::{EVENT_BYTES_MAX, Parser};
use crate::net::{Answer, Call, HttpClient, NetError, Timeouts};
use crate::rt::Cancel;

const OPENAI_BASE: &str = "https://api.openai.com/v1";
const OLLAMA_BASE: &str = "http://localhost:11434";

/// Largest answer that is kept, as it comes over the wire.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest error body that is looked at.
const ERROR_BYTES_MAX: usize = 4096;
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// How long usage and `[DONE]` may take after the model said that it is done.
const TAIL_WAIT: Duration = Duration::from_secs(5);

/// Calls one endpoint.
pub struct OpenAiProvider {
    name: String,
    chat_url: String,
    models_url: String,
    headers: Vec<(&'static str, String)>,
    api_key: Option<String>,
    kind: ProviderKind,
    client: HttpClient,
    /// Cleared when the server turns out not to know `stream_options`.
    ask_usage: AtomicBool,
}

impl OpenAiProvider {
    /// A provider of kind [`ProviderKind::OpenAi`] or [`ProviderKind::Ollama`].
    ///
    /// The base address may end with `/`, `/v1` or neither. Fails when it is not an `http` or `https` address, or when
    /// the key cannot be sent in a header.
    pub fn new(config: ProviderConfig, timeouts: Timeouts) -> Result<Self, LlmError> {
        let ollama = config.kind == ProviderKind::Ollama;
        let default_base = if ollama { OLLAMA_BASE } else { OPENAI_BASE };
        let base = config.base_url.as_deref().unwrap_or(default_base);
        let (chat_url, models_url) = if ollama { ollama_urls(base) } else { openai_urls(base) }
            .ok_or_else(|| config_error(format!("the base_url of {} is not an http or https address", config.name)))?;
        let mut headers = Vec::new();
        for (header, value, prefix) in
            [("authorization", &config.api_key, "Bearer "), ("openai-organization", &config.organization, "")]
        {
            let Some(value) = value.as_deref().map(str::trim).filter(|value| !value.is_empty()) else { continue };
            if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                let key = if prefix.is_empty() { "organization" } else { "api_key" };
                return Err(config_error(format!("the {key} of {} has a blank or a strange character", config.name)));
            }
            headers.push((header, format!("{prefix}{value}")));
        }
        Ok(Self {
            name: config.name,
            chat_url,
            models_url,
            headers,
            api_key: config.api_key.filter(|key| !key.is_empty()),
            kind: config.kind,
            client: HttpClient::new(timeouts),
            ask_usage: AtomicBool::new(true),
        })
    }

    fn post(&self, request: &Request<'_>, sink: &mut dyn Sink, cancel: &Cancel) -> Result<Completion, LlmError> {
        let body = request_body(request, self.ask_usage.load(Ordering::Relaxed))?;
        let call = Call::post(&self.chat_url, &body).headers(&self.headers).repeatable();
        let mut answer = self.client.send(&call, cancel)?;
        if answer.status() != 200 {
            return Err(refused(answer));
        }
        let mut reading = Reading::new();
        let finished = reading.run(&mut answer, request.stream, sink);
        match finished {
            Ok(()) => answer.finish(),
            Err(error) if !reading.assembler.finished() => return Err(error),
            // The model was done; only the farewell is missing.
            Err(_) => {}
        }
        reading.assembler.complete()
    }

    /// Takes our own key out of a provider's words: some quote what they refuse.
    fn scrub(&self, error: LlmError) -> LlmError {
        match (error, &self.api_key) {
            (LlmError::Status { status, message, retry_after }, Some(key)) if message.contains(key.as_str()) => {
                LlmError::Status { status, message: message.replace(key.as_str(), "[key]"), retry_after }
            }
            (error, _) => error,
        }
    }
}

impl Provider for OpenAiProvider {
    fn name(&self) -> &str {
        &self.name
    }

    fn complete(&self, request: Request<'_>, sink: &mut dyn Sink, cancel: &Cancel) -> Result<Completion, LlmError> {
        if request.model.is_empty() {
            return Err(config_error(format!("no model is set for {}; set llm.default_model", self.name)));
        }
        let mut result = self.post(&request, sink, cancel);
        if let Err(LlmError::Status { status: 400 | 422, message, .. }) = &result
            && message.contains("stream_options")
            && self.ask_usage.swap(false, Ordering::Relaxed)
        {
            result = self.post(&request, sink, cancel);
        }
        result.map_err(|error| self.scrub(error))
    }

    fn models(&self, cancel: &Cancel) -> Result<Vec<String>, LlmError> {
        let call = Call::get(&self.models_url).headers(&self.headers);
        let mut answer = self.client.send(&call, cancel)?;
        if answer.status() != 200 {
            return Err(self.scrub(refused(answer)));
        }
        let body = answer.body(ANSWER_BYTES_MAX)?;
        let body: Value =
            serde_json::from_slice(&body).map_err(|error| LlmError::Decode { cause: format!("models: {error}") })?;
        let (list, key) = if self.kind == ProviderKind::Ollama { ("models", "name") } else { ("data", "id") };
        let list = body.get(list).and_then(Value::as_array);
        let list = list.ok_or_else(|| LlmError::Decode { cause: "the answer holds no list of models".to_owned() })?;
        Ok(list.iter().filter_map(|model| model.get(key)?.as_str()).map(str::to_owned).collect())
    }
}

/// What the bytes so far turned out to be.
enum Shape {
    Unknown,
    Stream(Parser),
    /// One JSON body, although a stream may have been asked for.
    Body,
}

/// An answer while it is read.
struct Reading {
    assembler: Assembler,
    shape: Shape,
    body: Vec<u8>,
    n_bytes: usize,
    /// `[DONE]` was seen.
    done: bool,
}

impl Reading {
    fn new() -> Self {
        Self { assembler: Assembler::default(), shape: Shape::Unknown, body: Vec::new(), n_bytes: 0, done: false }
    }

    /// Reads to the end of the answer, which is not always the end of the connection.
    fn run(&mut self, answer: &mut Answer<'_>, stream: bool, sink: &mut dyn Sink) -> Result<(), LlmError> {
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        let mut tail = false;
        while !self.done {
            let n = answer.read(&mut buffer)?;
            if n == 0 {
                return self.ended(stream, sink);
            }
            self.n_bytes += n;
            if self.n_bytes > ANSWER_BYTES_MAX {
                return Err(LlmError::TooLarge { bytes_max: ANSWER_BYTES_MAX });
            }
            self.take(&buffer[..n], sink)?;
            if self.assembler.finished() && !tail {
                tail = true;
                answer.expect_end(TAIL_WAIT);
            }
        }
        Ok(())
    }

    fn take(&mut self, mut bytes: &[u8], sink: &mut dyn Sink) -> Result<(), LlmError> {
        if matches!(self.shape, Shape::Unknown) {
            bytes = bytes.trim_ascii_start();
            match bytes.first() {
                None => return Ok(()),
                // No line of an event stream begins like this, whatever the content type says.
                Some(b'{' | b'[') => self.shape = Shape::Body,
                Some(_) => self.shape = Shape::Stream(Parser::new(EVENT_BYTES_MAX)),
            }
        }
        match &mut self.shape {
            Shape::Stream(parser) => {
                parser.push(bytes);
                while let Some(event) = parser.next_event()? {
                    if take_event(&mut self.assembler, event.name, event.data, sink)? {
                        self.done = true;
                        break;
                    }
                }
            }
            Shape::Body | Shape::Unknown => self.body.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// The connection is at its end.
    fn ended(&mut self, stream: bool, sink: &mut dyn Sink) -> Result<(), LlmError> {
        match &mut self.shape {
            Shape::Unknown => Err(cut("the answer is empty")),
            Shape::Body => self.assembler.body(&self.body, stream.then_some(sink)),
            Shape::Stream(parser) => {
                if let Some(event) = parser.finish()? {
                    self.done = take_event(&mut self.assembler, event.name, event.data, sink)?;
                }
                if self.done || self.assembler.finished() {
                    Ok(())
                } else if parser.saw_fields() {
                    Err(cut("the stream ended without a finish reason"))
                } else {
                    Err(LlmError::Decode { cause: "the answer is neither JSON nor an event stream".to_owned() })
                }
            }
        }
    }
}

/// True at the end of the stream.
fn take_event(assembler: &mut Assembler, name: &str, data: &str, sink: &mut dyn Sink) -> Result<bool, LlmError> {
    if name == "error" {
        return Err(event_error(data));
    }
    if data.trim() == "[DONE]" {
        return Ok(true);
    }
    assembler.chunk(data, sink)?;
    Ok(false)
}

/// The error of an answer with another status than 200.
fn refused(mut answer: Answer<'_>) -> LlmError {
    let mut body = Vec::new();
    let mut buffer = vec![0; ERROR_BYTES_MAX];
    while body.len() < ERROR_BYTES_MAX {
        match answer.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => body.extend_from_slice(&buffer[..n]),
            Err(NetError::Cancelled) => return LlmError::Cancelled,
            // The status says more than the end of its explanation.
            Err(_) => break,
        }
    }
    body.truncate(ERROR_BYTES_MAX);
    let (status, retry_after) = (answer.status(), answer.retry_after());
    LlmError::Status { status, message: message_of_body(&body), retry_after }
}

fn cut(cause: &str) -> LlmError {
    LlmError::Cut { cause: cause.to_owned() }
}

fn config_error(cause: String) -> LlmError {
    LlmError::Config { cause }
}

/// Scheme, host and path without slashes at its end; the query apart, because some gateways carry a version in it.
fn split_base(base: &str) -> Option<(&str, &str)> {
    let base = base.trim();
    let (base, query) = base.find('?').map_or((base, ""), |at| base.split_at(at));
    let base = base.trim_end_matches('/');
    let host = base.strip_prefix("http://").or_else(|| base.strip_prefix("https://"))?;
    (!host.is_empty() && !host.starts_with('/')).then_some((base, query))
}

/// The addresses for chat and for the list of models.
fn openai_urls(base: &str) -> Option<(String, String)> {
    let (base, query) = split_base(base)?;
    let base = base.strip_suffix("/chat/completions").unwrap_or(base);
    let has_path = base.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    let version = if has_path { "" } else { "/v1" };
    Some((format!("{base}{version}/chat/completions{query}"), format!("{base}{version}/models{query}")))
}

fn ollama_urls(base: &str) -> Option<(String, String)> {
    let (base, query) = split_base(base)?;
    let base = base.strip_suffix("/v1").unwrap_or(base);
    Some((format!("{base}/v1/chat/completions{query}"), format!("{base}/api/tags{query}")))
}
