//! Ollama's own API, `/api/chat`: a JSON document per line (contract engine 9.2, 12 row 2). Its OpenAI-compatible
//! address loses thinking, refuses to set the context's length and cuts long prompts in silence.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::endpoint::{Endpoint, base, decode, names, need_model};
use super::reading::{Assembly, Framing, read};
use super::wire_error::{error_with, message_of};
use super::{Completion, LlmError, Message, Provider, Request, Role, Sink, ToolCall, Usage, cut_note, made_up_id};
use crate::config::ProviderConfig;
use crate::net::Timeouts;
use crate::rt::Cancel;

const BASE: &str = "http://localhost:11434";
/// More calls than this in one answer are an error of the model or its server.
const TOOL_CALLS_MAX: usize = 256;
/// What an error inside a stream is: the runner died or ran out of memory, so that a retry may help.
const STREAM_ERROR: u16 = 500;

/// Calls one server.
pub struct OllamaProvider {
    endpoint: Endpoint,
    chat_url: String,
    tags_url: String,
    options: Map<String, Value>,
    is_free: bool,
}

impl OllamaProvider {
    /// A provider. The base address may end with `/`, `/v1`, `/api` or none of them. Fails when it is not an `http` or
    /// `https` address, or when the key cannot be sent in a header.
    pub fn new(config: &ProviderConfig, timeouts: Timeouts) -> Result<Self, LlmError> {
        let (base, query) = base(config, BASE)?;
        let base = base.strip_suffix("/v1").or_else(|| base.strip_suffix("/api")).unwrap_or(base);
        let mut endpoint = Endpoint::new(config, timeouts);
        // Only servers behind a proxy, or in the cloud, ask for one.
        endpoint.header("authorization", "Bearer ", config.api_key.as_deref(), "api_key")?;
        let mut options = Map::new();
        for (option, value) in [("num_ctx", config.num_ctx), ("num_predict", config.max_tokens)] {
            if let Some(value) = value {
                options.insert(option.to_owned(), value.into());
            }
        }
        Ok(Self {
            endpoint,
            chat_url: format!("{base}/api/chat{query}"),
            tags_url: format!("{base}/api/tags{query}"),
            options,
            is_free: config.is_free,
        })
    }

    fn body(&self, request: &Request<'_>) -> Result<Vec<u8>, LlmError> {
        // Results name their tool, not their call.
        let mut tool_names: HashMap<&str, &str> = HashMap::new();
        for call in request.messages.iter().flat_map(|message| &message.tool_calls) {
            tool_names.insert(&call.id, &call.name);
        }
        let messages: Vec<Value> = request.messages.iter().map(|message| wire(message, &tool_names)).collect();
        let mut body = json!({ "model": request.model, "messages": messages, "stream": request.stream });
        if !request.tools.is_empty() {
            let tools = request.tools.iter().map(|tool| {
                let (name, description, parameters) = (&tool.name, &tool.description, &tool.parameters);
                json!({ "type": "function",
                        "function": { "name": name, "description": description, "parameters": parameters } })
            });
            body["tools"] = tools.collect();
        }
        if !self.options.is_empty() {
            body["options"] = Value::Object(self.options.clone());
        }
        serde_json::to_vec(&body).map_err(|error| decode(format!("make the request: {error}")))
    }
}

fn wire(message: &Message, tool_names: &HashMap<&str, &str>) -> Value {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut wire = json!({ "role": role, "content": message.content });
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            // Arguments are an object here; a model's broken JSON would make the server refuse the conversation.
            let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
            let arguments = if arguments.is_object() { arguments } else { json!({}) };
            json!({ "function": { "name": call.name, "arguments": arguments } })
        });
        wire["tool_calls"] = calls.collect();
    }
    if let Some(name) = message.tool_call_id.as_deref().and_then(|id| tool_names.get(id)) {
        wire["tool_name"] = Value::from(*name);
    }
    wire
}

impl Provider for OllamaProvider {
    fn name(&self) -> &str {
        self.endpoint.name()
    }

    fn is_free(&self) -> bool {
        self.is_free
    }

    fn complete(&self, request: Request<'_>, sink: &mut dyn Sink, cancel: &Cancel) -> Result<Completion, LlmError> {
        need_model(request.model, self.name())?;
        let answer = self.endpoint.post(&self.chat_url, &self.body(&request)?, cancel)?;
        let mut assembler = Assembler { deltas: request.stream, ..Assembler::default() };
        read(answer, Framing::Lines, request.stream, &mut assembler, sink)
            .map_err(|error| self.endpoint.scrub(error))?;
        Ok(assembler.done)
    }

    fn models(&self, cancel: &Cancel) -> Result<Vec<String>, LlmError> {
        names(&self.endpoint.get(&self.tags_url, cancel)?, "models", "name")
    }
}

/// Puts an answer together.
#[derive(Default)]
struct Assembler {
    done: Completion,
    finished: bool,
    deltas: bool,
}

impl Assembly for Assembler {
    fn event(&mut self, _name: &str, data: &str, sink: &mut dyn Sink) -> Result<bool, LlmError> {
        // Not JSON: a proxy's page, or garbage. Nothing that follows can be trusted.
        let mut line: Value = serde_json::from_str(data).map_err(|error| decode(format!("line: {error}")))?;
        if let Some(error) = line.get("error").filter(|error| !error.is_null()) {
            // Some servers end a stream with a bare text.
            return Err(match error {
                Value::Object(_) => error_with(error, STREAM_ERROR),
                _ => LlmError::Status { status: STREAM_ERROR, message: message_of(&line), retry_after: None },
            });
        }
        let text = |line: &Value, key: &str| line.pointer(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let thinking = text(&line, "/message/thinking");
        if self.deltas && !thinking.is_empty() {
            sink.thinking(&thinking);
        }
        self.add_text(&text(&line, "/message/content"), sink);
        if let Some(Value::Array(calls)) = line.pointer_mut("/message/tool_calls").map(Value::take) {
            calls.into_iter().try_for_each(|call| self.add_call(call, sink))?;
        }
        if self.done.model.is_empty() {
            self.done.model = text(&line, "/model");
        }
        if line.get("done").and_then(Value::as_bool) != Some(true) {
            return Ok(false);
        }
        let count = |key: &str| line.get(key).and_then(Value::as_u64).unwrap_or(0);
        let (input_tokens, output_tokens) = (count("prompt_eval_count"), count("eval_count"));
        self.done.usage = Usage { input_tokens, output_tokens, ..Usage::default() };
        if text(&line, "/done_reason") == "length" && self.done.tool_calls.is_empty() {
            self.add_text(&cut_note(None), sink);
        }
        self.finished = true;
        Ok(true)
    }

    fn body(&mut self, _body: &[u8], _sink: Option<&mut dyn Sink>) -> Result<(), LlmError> {
        Err(decode("a body where lines were expected"))
    }

    fn finished(&self) -> bool {
        self.finished
    }
}

impl Assembler {
    fn add_text(&mut self, piece: &str, sink: &mut dyn Sink) {
        if piece.is_empty() {
            return;
        }
        self.done.text.push_str(piece);
        if self.deltas {
            sink.text(piece);
        }
    }

    fn add_call(&mut self, call: Value, sink: &mut dyn Sink) -> Result<(), LlmError> {
        let text = |key: &str| call.pointer(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = text("/function/name");
        if name.is_empty() {
            return Err(decode("a tool call has no name"));
        }
        if self.done.tool_calls.len() >= TOOL_CALLS_MAX {
            return Err(decode(format!("more than {TOOL_CALLS_MAX} tool calls")));
        }
        let arguments = match call.pointer("/function/arguments") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => "{}".to_owned(),
            Some(other) => other.to_string(),
        };
        sink.hidden(name.len() + arguments.len());
        let mut id = text("/id");
        while id.is_empty() || self.done.tool_calls.iter().any(|known| known.id == id) {
            id = made_up_id();
        }
        self.done.tool_calls.push(ToolCall { id, name, arguments });
        Ok(())
    }
}
