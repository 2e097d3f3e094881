//! The OpenAI-compatible family (contract engine 9.1, 9.2): OpenAI, OpenRouter, and every server that speaks like them.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::endpoint::{Endpoint, base, decode, names, need_model};
use super::openai_wire::{Assembler, Dialect, as_number, request_body};
use super::reading::{Framing, read};
use super::{Completion, LlmError, ModelDetail, Provider, Request, Sink};
use crate::config::{ProviderConfig, ProviderKind};
use crate::net::Timeouts;
use crate::rt::Cancel;

const OPENAI_BASE: &str = "https://api.openai.com/v1";
const OPENROUTER_BASE: &str = "https://openrouter.ai/api/v1";

/// Calls one endpoint.
pub struct OpenAiProvider {
    endpoint: Endpoint,
    chat_url: String,
    models_url: String,
    /// OpenRouter's account; None elsewhere.
    key_url: Option<String>,
    dialect: Dialect,
    is_free: bool,
    /// Cleared when the server turns out not to know `stream_options`.
    ask_usage: AtomicBool,
}

impl OpenAiProvider {
    /// A provider of kind [`ProviderKind::OpenAi`] or [`ProviderKind::OpenRouter`].
    ///
    /// The base address may end with `/`, `/v1` or neither. Fails when it is not an `http` or `https` address, or when
    /// the key cannot be sent in a header.
    pub fn new(config: &ProviderConfig, timeouts: Timeouts) -> Result<Self, LlmError> {
        let is_openrouter = config.kind == ProviderKind::OpenRouter;
        let (base, query) = base(config, if is_openrouter { OPENROUTER_BASE } else { OPENAI_BASE })?;
        let (chat_url, models_url) = urls(base, query);
        let mut endpoint = Endpoint::new(config, timeouts);
        endpoint.header("authorization", "Bearer ", config.api_key.as_deref(), "api_key")?;
        endpoint.header("openai-organization", "", config.organization.as_deref(), "organization")?;
        if is_openrouter {
            // How OpenRouter names the program in its statistics.
            endpoint.fixed_header("http-referer", "https://holt.invalid/");
            endpoint.fixed_header("x-title", "Holt");
        }
        Ok(Self {
            key_url: is_openrouter.then(|| format!("{base}/key{query}")),
            dialect: Dialect {
                max_tokens: config.max_tokens,
                // OpenAI's own newer models refuse the old name, all others know no other.
                new_max_tokens: base.starts_with("https://api.openai.com"),
                ask_cost: is_openrouter,
            },
            endpoint,
            chat_url,
            models_url,
            is_free: config.is_free,
            ask_usage: AtomicBool::new(true),
        })
    }

    fn post(&self, request: &Request<'_>, sink: &mut dyn Sink, cancel: &Cancel) -> Result<Completion, LlmError> {
        let body = request_body(request, &self.dialect, self.ask_usage.load(Ordering::Relaxed))?;
        let answer = self.endpoint.post(&self.chat_url, &body, cancel)?;
        let mut assembler = Assembler::default();
        read(answer, Framing::Events, request.stream, &mut assembler, sink)?;
        assembler.complete()
    }
}

impl Provider for OpenAiProvider {
    fn name(&self) -> &str {
        self.endpoint.name()
    }

    fn is_free(&self) -> bool {
        self.is_free
    }

    fn complete(&self, request: Request<'_>, sink: &mut dyn Sink, cancel: &Cancel) -> Result<Completion, LlmError> {
        need_model(request.model, self.name())?;
        let mut result = self.post(&request, sink, cancel);
        if let Err(LlmError::Status { status: 400 | 422, message, .. }) = &result
            && message.contains("stream_options")
            && self.ask_usage.swap(false, Ordering::Relaxed)
        {
            result = self.post(&request, sink, cancel);
        }
        result.map_err(|error| self.endpoint.scrub(error))
    }

    fn models(&self, cancel: &Cancel) -> Result<Vec<String>, LlmError> {
        names(&self.endpoint.get(&self.models_url, cancel)?, "data", "id")
    }

    fn balance(&self, cancel: &Cancel) -> Result<Option<f64>, LlmError> {
        let Some(url) = &self.key_url else { return Ok(None) };
        // null: the key has no limit.
        Ok(self.endpoint.get(url, cancel)?.pointer("/data/limit_remaining").and_then(Value::as_f64))
    }

    fn model_details(&self, cancel: &Cancel) -> Result<Option<Vec<ModelDetail>>, LlmError> {
        if self.key_url.is_none() {
            return Ok(None);
        }
        let body = self.endpoint.get(&self.models_url, cancel)?;
        let list = body.get("data").and_then(Value::as_array);
        let list = list.ok_or_else(|| decode("the answer holds no list of models"))?;
        Ok(Some(list.iter().filter_map(detail).collect()))
    }
}

/// A model as OpenRouter describes it: prices are texts in USD per token.
fn detail(model: &Value) -> Option<ModelDetail> {
    let id = model.get("id")?.as_str()?.to_owned();
    let price = |kind: &str| {
        let per_token = as_number(model.pointer(&format!("/pricing/{kind}"))?)?;
        // A negative price means that it depends on what is routed to.
        (per_token >= 0.0).then_some(per_token * 1e6)
    };
    let has_tools = model.get("supported_parameters").and_then(Value::as_array);
    Some(ModelDetail {
        name: model.get("name").and_then(Value::as_str).unwrap_or(&id).to_owned(),
        input_per_mtok: price("prompt"),
        output_per_mtok: price("completion"),
        supports_tools: has_tools.is_some_and(|list| list.iter().any(|name| name == "tools")),
        id,
    })
}

/// The addresses for chat and for the list of models.
fn urls(base: &str, query: &str) -> (String, String) {
    let base = base.strip_suffix("/chat/completions").unwrap_or(base);
    let has_path = base.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    let version = if has_path { "" } else { "/v1" };
    (format!("{base}{version}/chat/completions{query}"), format!("{base}{version}/models{query}"))
}
