//! What Anthropic answers: events of a stream, or one body, put together by block index. Does no I/O.

use serde_json::Value;

use super::endpoint::decode;
use super::reading::Assembly;
use super::wire_error::{error_with, event_error_with};
use super::{Completion, LlmError, Sink, ToolCall, Usage, cut_note};

/// More blocks than this in one answer are an error of the model or its server.
const BLOCKS_MAX: usize = 1024;
/// What an error of an unknown type is: theirs, so that a retry may help.
const UNKNOWN_ERROR: u16 = 500;

/// Puts an answer together.
pub(super) struct Assembler {
    text: String,
    /// Calls by block index, in the order they came.
    calls: Vec<Entry>,
    usage: Usage,
    model: String,
    stop_reason: String,
    stopped: bool,
    max_tokens: u32,
}

struct Entry {
    index: u64,
    call: ToolCall,
    /// Arguments that came with the block; deltas replace them.
    whole: String,
}

impl Assembler {
    /// `max_tokens` is what was asked for, to be named when the answer reached it.
    pub(super) fn new(max_tokens: u32) -> Self {
        Self {
            text: String::new(),
            calls: Vec::new(),
            usage: Usage::default(),
            model: String::new(),
            stop_reason: String::new(),
            stopped: false,
            max_tokens,
        }
    }

    /// The whole answer.
    pub(super) fn complete(self) -> Result<Completion, LlmError> {
        let was_cut = self.stop_reason == "max_tokens";
        let mut tool_calls: Vec<ToolCall> = Vec::with_capacity(self.calls.len());
        for Entry { mut call, whole, .. } in self.calls {
            if call.name.is_empty() {
                return Err(decode("a tool call has no name"));
            }
            if call.arguments.is_empty() {
                call.arguments = whole;
            }
            if was_cut && !call.arguments.is_empty() && serde_json::from_str::<Value>(&call.arguments).is_err() {
                return Err(decode(format!(
                    "a tool call was cut off at {} tokens; raise max_tokens of the provider",
                    self.max_tokens
                )));
            }
            while call.id.is_empty() || tool_calls.iter().any(|known| known.id == call.id) {
                call.id = super::made_up_id();
            }
            tool_calls.push(call);
        }
        Ok(Completion { text: self.text, tool_calls, usage: self.usage, model: self.model })
    }

    fn start(&mut self, message: &Value, sink: &mut Option<&mut dyn Sink>) {
        if let Some(model) = message.get("model").and_then(Value::as_str) {
            model.clone_into(&mut self.model);
        }
        self.count(message.get("usage"), sink);
    }

    /// Counts come in pieces, each the total so far.
    fn count(&mut self, usage: Option<&Value>, sink: &mut Option<&mut dyn Sink>) {
        let Some(usage) = usage else { return };
        let count = |key: &str| usage.get(key).and_then(Value::as_u64);
        if let Some(input) = count("input_tokens") {
            // Writing the cache is paid for like input, and a little more.
            self.usage.input_tokens = input + count("cache_creation_input_tokens").unwrap_or(0);
        }
        if let Some(cached) = count("cache_read_input_tokens") {
            self.usage.cached_tokens = cached;
        }
        if let Some(output) = count("output_tokens") {
            self.usage.output_tokens = output;
        }
        if let Some(sink) = sink {
            sink.usage(&self.usage);
        }
    }

    fn block(&mut self, index: u64, block: &Value, sink: &mut Option<&mut dyn Sink>) -> Result<(), LlmError> {
        let text = |key: &str| block.get(key).and_then(Value::as_str).unwrap_or_default();
        match text("type") {
            "text" => self.add_text(text("text"), sink),
            "thinking" => think(text("thinking"), sink),
            "tool_use" if self.calls.len() >= BLOCKS_MAX => {
                return Err(decode(format!("more than {BLOCKS_MAX} tool calls")));
            }
            "tool_use" => {
                if let Some(sink) = sink {
                    sink.hidden(text("name").len());
                }
                let input = block.get("input").filter(|input| input.as_object().is_some_and(|map| !map.is_empty()));
                self.calls.push(Entry {
                    index,
                    call: ToolCall { id: text("id").into(), name: text("name").into(), arguments: String::new() },
                    whole: input.map_or_else(|| "{}".to_owned(), Value::to_string),
                });
            }
            // What the server made for itself, such as redacted thinking.
            _ => {}
        }
        Ok(())
    }

    fn delta(&mut self, index: u64, delta: &Value, sink: &mut Option<&mut dyn Sink>) -> Result<(), LlmError> {
        let text = |key: &str| delta.get(key).and_then(Value::as_str).unwrap_or_default();
        match text("type") {
            "text_delta" => self.add_text(text("text"), sink),
            "thinking_delta" => think(text("thinking"), sink),
            "input_json_delta" => {
                if let Some(sink) = sink {
                    sink.hidden(text("partial_json").len());
                }
                // Other blocks' arguments are those of calls that the server makes itself.
                if let Some(entry) = self.calls.iter_mut().rfind(|entry| entry.index == index) {
                    entry.call.arguments.push_str(text("partial_json"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn add_text(&mut self, piece: &str, sink: &mut Option<&mut dyn Sink>) {
        if piece.is_empty() {
            return;
        }
        self.text.push_str(piece);
        if let Some(sink) = sink {
            sink.text(piece);
        }
    }

    fn stop(&mut self, reason: Option<&Value>, sink: &mut Option<&mut dyn Sink>) {
        if let Some(reason) = reason.and_then(Value::as_str) {
            reason.clone_into(&mut self.stop_reason);
            if reason == "max_tokens" && self.calls.is_empty() {
                self.add_text(&cut_note(Some(self.max_tokens)), sink);
            }
        }
    }
}

fn think(piece: &str, sink: &mut Option<&mut dyn Sink>) {
    if let Some(sink) = sink
        && !piece.is_empty()
    {
        sink.thinking(piece);
    }
}

impl Assembly for Assembler {
    fn event(&mut self, name: &str, data: &str, sink: &mut dyn Sink) -> Result<bool, LlmError> {
        let Ok(event) = serde_json::from_str::<Value>(data) else {
            return if name == "error" { Err(event_error_with(data, UNKNOWN_ERROR)) } else { Ok(false) };
        };
        let kind = event.get("type").and_then(Value::as_str).unwrap_or(name);
        let index = event.get("index").and_then(Value::as_u64).unwrap_or(0);
        let part = |key: &str| event.get(key).unwrap_or(&Value::Null);
        let sink = &mut Some(sink);
        match kind {
            "message_start" => self.start(part("message"), sink),
            "content_block_start" => self.block(index, part("content_block"), sink)?,
            "content_block_delta" => self.delta(index, part("delta"), sink)?,
            "message_delta" => {
                self.count(event.get("usage"), sink);
                self.stop(event.pointer("/delta/stop_reason"), sink);
            }
            "message_stop" => {
                self.stopped = true;
                return Ok(true);
            }
            "error" => return Err(error_with(event.get("error").unwrap_or(&event), UNKNOWN_ERROR)),
            // `ping`, `content_block_stop`, and what comes in later versions.
            _ => {}
        }
        Ok(false)
    }

    fn body(&mut self, body: &[u8], sink: Option<&mut dyn Sink>) -> Result<(), LlmError> {
        let body: Value = serde_json::from_slice(body).map_err(|error| decode(format!("body: {error}")))?;
        if let Some(error) = body.get("error").filter(|error| !error.is_null()) {
            return Err(error_with(error, UNKNOWN_ERROR));
        }
        let blocks = body.get("content").and_then(Value::as_array);
        let blocks = blocks.ok_or_else(|| decode("the answer holds no content"))?;
        let mut sink = sink;
        self.start(&body, &mut sink);
        for (index, block) in blocks.iter().enumerate() {
            self.block(index as u64, block, &mut sink)?;
        }
        self.stop(body.get("stop_reason"), &mut sink);
        self.stopped = true;
        Ok(())
    }

    fn finished(&self) -> bool {
        self.stopped
    }
}
