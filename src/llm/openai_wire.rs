//! The OpenAI-compatible wire (contract engine 9.1, 9.2): what a request looks like, and how an answer is put
//! together from one body or from chunks. Does no I/O.
//!
//! Servers that call themselves compatible differ in every detail, so everything optional is read leniently; what
//! matters (an error, a cut, no answer at all) is not.

use serde::Serialize;
use serde_json::Value;

use super::endpoint::decode;
use super::openai_chunk::{CallDelta, Chunk, Delta, WireUsage};
use super::reading::Assembly;
use super::wire_error::{event_error, in_band_error};
use super::{Completion, LlmError, Message, Request, Role, Sink, ToolCall, Usage, cut_note, made_up_id};
use crate::rt::order::Order;

/// More calls than this in one answer are an error of the model or its server.
const TOOL_CALLS_MAX: usize = 256;

#[derive(Serialize)]
struct WireRequest<'a> {
    model: &'a str,
    messages: Vec<WireMessage<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<WireTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<AskCost>,
}

/// What differs between servers of the family.
pub(super) struct Dialect {
    /// Longest answer, as configured.
    pub(super) max_tokens: Option<u32>,
    /// The limit is called `max_completion_tokens`.
    pub(super) new_max_tokens: bool,
    /// The server tells what a call costs when it is asked.
    pub(super) ask_cost: bool,
}

#[derive(Serialize)]
struct AskCost {
    include: bool,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireToolCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

#[derive(Serialize)]
struct WireToolCall<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: WireCalled<'a>,
}

#[derive(Serialize)]
struct WireCalled<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct WireTool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    function: WireFunction<'a>,
}

#[derive(Serialize)]
struct WireFunction<'a> {
    name: &'a str,
    description: &'a str,
    parameters: &'a Value,
}

/// The JSON body of a call. `ask_usage` is off for servers that know no `stream_options`.
pub(super) fn request_body(request: &Request<'_>, dialect: &Dialect, ask_usage: bool) -> Result<Vec<u8>, LlmError> {
    let wire = WireRequest {
        model: request.model,
        messages: request.messages.iter().map(wire_message).collect(),
        tools: request
            .tools
            .iter()
            .map(|tool| WireTool {
                kind: "function",
                function: WireFunction {
                    name: &tool.name,
                    description: &tool.description,
                    parameters: &tool.parameters,
                },
            })
            .collect(),
        stream: request.stream.then_some(true),
        stream_options: (request.stream && ask_usage).then_some(StreamOptions { include_usage: true }),
        max_tokens: dialect.max_tokens.filter(|_| !dialect.new_max_tokens),
        max_completion_tokens: dialect.max_tokens.filter(|_| dialect.new_max_tokens),
        usage: dialect.ask_cost.then_some(AskCost { include: true }),
    };
    serde_json::to_vec(&wire).map_err(|error| decode(format!("make the request: {error}")))
}

fn wire_message(message: &Message) -> WireMessage<'_> {
    WireMessage {
        role: match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        },
        content: &message.content,
        tool_calls: message
            .tool_calls
            .iter()
            .map(|call| WireToolCall {
                id: &call.id,
                kind: "function",
                // Several servers parse the text and refuse an empty one.
                function: WireCalled {
                    name: &call.name,
                    arguments: if call.arguments.is_empty() { "{}" } else { &call.arguments },
                },
            })
            .collect(),
        tool_call_id: message.tool_call_id.as_deref(),
    }
}

/// Puts an answer together.
#[derive(Default)]
pub(super) struct Assembler {
    text: String,
    calls: Vec<Entry>,
    usage: Usage,
    model: String,
    saw_choice: bool,
    finished: bool,
}

struct Entry {
    index: Option<u64>,
    call: ToolCall,
}

impl Assembly for Assembler {
    /// A chunk that is not JSON of the right shape is skipped, as the contract says; an error in it ends the call.
    fn event(&mut self, name: &str, data: &str, sink: &mut dyn Sink) -> Result<bool, LlmError> {
        if name == "error" {
            return Err(event_error(data));
        }
        if data.trim() == "[DONE]" {
            return Ok(true);
        }
        match serde_json::from_str::<Chunk>(data) {
            Ok(chunk) => self.take(chunk, Some(sink)).map(|()| false),
            Err(_) => match error_of(data) {
                Some(error) => Err(in_band_error(&error)),
                None => Ok(false),
            },
        }
    }

    fn body(&mut self, body: &[u8], sink: Option<&mut dyn Sink>) -> Result<(), LlmError> {
        let chunk: Chunk =
            serde_json::from_slice(body).map_err(|error| match std::str::from_utf8(body).ok().and_then(error_of) {
                Some(error) => in_band_error(&error),
                None => decode(format!("body: {error}")),
            })?;
        self.take(chunk, sink)?;
        self.finished = true;
        Ok(())
    }

    /// Whether the model said that it is done.
    fn finished(&self) -> bool {
        self.finished
    }
}

impl Assembler {
    /// The whole answer.
    pub(super) fn complete(self) -> Result<Completion, LlmError> {
        if !self.saw_choice {
            return Err(decode("the answer holds no choices"));
        }
        let mut entries = self.calls;
        // Stable: calls without an index stay behind in the order they came.
        entries.order_by_key(|entry| entry.index.unwrap_or(u64::MAX));
        let mut tool_calls: Vec<ToolCall> = Vec::with_capacity(entries.len());
        for Entry { mut call, .. } in entries {
            if call.name.is_empty() {
                return Err(decode("a tool call has no name"));
            }
            // Pairing with results needs ids that differ, and some servers number every call 0.
            while call.id.is_empty() || tool_calls.iter().any(|known| known.id == call.id) {
                call.id = made_up_id();
            }
            tool_calls.push(call);
        }
        Ok(Completion { text: self.text, tool_calls, usage: self.usage, model: self.model })
    }

    fn take(&mut self, chunk: Chunk, mut sink: Option<&mut dyn Sink>) -> Result<(), LlmError> {
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(in_band_error(&error));
        }
        if let Some(Value::String(model)) = chunk.model
            && self.model.is_empty()
        {
            self.model = model;
        }
        if let Some(usage) = &chunk.usage {
            self.usage = read_usage(usage);
            if let Some(sink) = &mut sink {
                sink.usage(&self.usage);
            }
        }
        let Some(choice) = chunk.choices.and_then(|choices| choices.into_iter().next()) else { return Ok(()) };
        self.saw_choice = true;
        if let Some(delta) = choice.delta.or(choice.message) {
            self.take_delta(delta, &mut sink)?;
        }
        // Which reason it is is not trusted: calls count whatever it says. But a length is a fact.
        if let Some(Value::String(reason)) = choice.finish_reason
            && !reason.is_empty()
            && !self.finished
        {
            self.finished = true;
            if reason == "length" && self.calls.is_empty() {
                let note = cut_note(None);
                if let Some(sink) = &mut sink {
                    sink.text(&note);
                }
                self.text.push_str(&note);
            }
        }
        Ok(())
    }

    fn take_delta(&mut self, delta: Delta, sink: &mut Option<&mut dyn Sink>) -> Result<(), LlmError> {
        let mut thinking = |piece: &str| {
            if let Some(sink) = sink
                && !piece.is_empty()
            {
                sink.thinking(piece);
            }
        };
        if let Some(Value::String(piece)) = delta.reasoning_content.filter(|v| !v.is_null()).or(delta.reasoning) {
            thinking(&piece);
        }
        let mut text = String::new();
        for content in [delta.content, delta.refusal].into_iter().flatten() {
            read_content(content, &mut text, &mut thinking);
        }
        if !text.is_empty() {
            if let Some(sink) = sink {
                sink.text(&text);
            }
            if self.text.is_empty() {
                self.text = text;
            } else {
                self.text.push_str(&text);
            }
        }
        delta.tool_calls.into_iter().flatten().try_for_each(|call| self.take_call(call, sink))
    }

    fn take_call(&mut self, delta: CallDelta, sink: &mut Option<&mut dyn Sink>) -> Result<(), LlmError> {
        let index = delta.index.as_ref().and_then(Value::as_u64);
        let id = as_text(delta.id);
        let (name, arguments) = delta
            .function
            .map(|function| (as_text(function.name), function.arguments.map(as_arguments).unwrap_or_default()))
            .unwrap_or_default();
        if let Some(sink) = sink {
            sink.hidden(name.len() + arguments.len());
        }
        // Some servers give every call the index 0 or none; a different id together with a name is another call.
        let another = |call: &ToolCall| !id.is_empty() && !call.id.is_empty() && id != call.id && !name.is_empty();
        let n_calls = self.calls.len();
        let known = match index {
            Some(_) => self.calls.iter_mut().rfind(|entry| entry.index == index),
            None if id.is_empty() && !name.is_empty() => None,
            None if id.is_empty() => self.calls.last_mut(),
            None => self.calls.iter_mut().rfind(|entry| entry.call.id == id),
        };
        match known.filter(|entry| !another(&entry.call)) {
            Some(entry) => {
                if !id.is_empty() {
                    entry.call.id = id;
                }
                if !name.is_empty() {
                    entry.call.name = name;
                }
                entry.call.arguments.push_str(&arguments);
            }
            None if n_calls >= TOOL_CALLS_MAX => {
                return Err(decode(format!("more than {TOOL_CALLS_MAX} tool calls")));
            }
            None => self.calls.push(Entry { index, call: ToolCall { id, name, arguments } }),
        }
        Ok(())
    }
}

/// The `error` of a body whose other fields do not have the shape of an answer.
fn error_of(data: &str) -> Option<Value> {
    let mut body: Value = serde_json::from_str(data).ok()?;
    let error = body.get_mut("error")?.take();
    (!error.is_null()).then_some(error)
}

/// `content` is a string or an array of blocks: text is joined, reasoning goes its own way.
fn read_content(content: Value, text: &mut String, thinking: &mut dyn FnMut(&str)) {
    match content {
        Value::String(piece) if text.is_empty() => *text = piece,
        Value::String(piece) => text.push_str(&piece),
        Value::Array(blocks) => {
            for block in &blocks {
                let kind = block.get("type").and_then(Value::as_str).unwrap_or("text");
                let words = ["text", "content", "thinking", "reasoning"]
                    .iter()
                    .find_map(|key| block.get(key).and_then(Value::as_str))
                    .or(block.as_str())
                    .unwrap_or_default();
                if matches!(kind, "thinking" | "reasoning") {
                    thinking(words);
                } else {
                    text.push_str(words);
                }
            }
        }
        _ => {}
    }
}

fn read_usage(usage: &WireUsage) -> Usage {
    let prompt = as_count(usage.prompt_tokens.as_ref());
    let cached_tokens =
        as_count(usage.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens.as_ref()));
    Usage {
        input_tokens: prompt.saturating_sub(cached_tokens),
        output_tokens: as_count(usage.completion_tokens.as_ref()),
        cached_tokens: cached_tokens.min(prompt),
        cost_usd: usage.cost.as_ref().and_then(Value::as_f64).filter(|cost| cost.is_finite() && *cost >= 0.0),
    }
}

fn as_count(value: Option<&Value>) -> u64 {
    let Some(value) = value else { return 0 };
    // Counts may come as floats; a float beyond u64 saturates, a negative one is 0.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating is what is wanted")]
    value.as_u64().unwrap_or_else(|| value.as_f64().unwrap_or(0.0) as u64)
}

/// A number, or a text that holds one.
pub(super) fn as_number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|number| number.is_finite())
}

fn as_text(value: Option<Value>) -> String {
    match value {
        Some(Value::String(text)) => text,
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn as_arguments(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
