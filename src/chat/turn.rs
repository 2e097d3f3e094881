//! One turn, from the stored message to its terminal frame (contract engine 1.5, 1.8; http-api 7).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use crate::agents::Agent;
use crate::chat::deliver::{LoggedStreamSession, StreamSession};
use crate::chat::engine::Inner;
use crate::chat::event::ChatEvent;
use crate::chat::history;
use crate::chat::session::{EndReason, Outcome};
use crate::chat::stream::{SessionStream, StreamError};
use crate::limits;
use crate::llm::{Completion, LlmError, Message, NoMeter, Request, Role, Sink, ToolCall, Usage};
use crate::rt::Cancel;
use crate::store::StoreError;
use crate::store::turns::{StepRow, TurnRow};
use crate::tools::{ToolContext, ToolError, ToolSet};

/// Everything that one turn works with.
pub(super) struct TurnRun<'a> {
    pub(super) inner: &'a Inner,
    pub(super) stream: &'a Arc<SessionStream>,
    pub(super) turn: &'a TurnRow,
    pub(super) cancel: &'a Cancel,
    pub(super) reason: &'a EndReason,
}

/// Why a turn ends without an answer.
enum TurnError {
    Llm(LlmError),
    Stream(StreamError),
    Store(StoreError),
    AgentGone,
}

impl From<StreamError> for TurnError {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

impl From<StoreError> for TurnError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What the turn has so far.
#[derive(Default)]
struct Progress {
    /// Deltas of the current round: what a broken turn leaves behind, with those before.
    round_text: String,
    earlier_text: String,
    usage: Usage,
    cost_usd: f64,
}

impl TurnRun<'_> {
    /// Runs the turn and emits everything but the terminal frame, which the caller logs from the outcome.
    pub(super) fn run(&self) -> Outcome {
        let mut progress = Progress::default();
        match self.answer(&mut progress) {
            Ok(text) => Outcome { error: None, text },
            Err(error) => self.failed(error, &progress),
        }
    }

    fn answer(&self, progress: &mut Progress) -> Result<String, TurnError> {
        let agent = Arc::clone(self.inner.agents.find(&self.turn.agent).ok_or(TurnError::AgentGone)?);
        self.emit(&ChatEvent::Thinking { round: 0 })?;
        let user_message = self.turn.user_message.unwrap_or(i64::MAX);
        let count = self.inner.settings.context_messages_max;
        let session = &self.turn.conversation_id;
        let mut messages = history::prompt(self.inner, agent.system_prompt(), session, user_message, count)?;
        let tools = &agent.tools();
        let specs = tools.specs();
        let mut repeats: HashMap<(String, String), u32> = HashMap::new();
        let mut round = 0;
        let text = loop {
            // The last round offers no tools, so that what was paid for ends in an answer.
            let offered = if round < self.inner.settings.tool_rounds_max { &specs[..] } else { &[] };
            if offered.is_empty() && !specs.is_empty() {
                messages.push(Message::text(Role::User, "Answer now from what the tools have told you."));
            }
            let completion = self.call(&agent, &messages, offered, progress)?;
            if completion.tool_calls.is_empty() || offered.is_empty() {
                break if completion.text.is_empty() { progress.earlier_text.clone() } else { completion.text };
            }
            round += 1;
            progress.end_round();
            self.run_tools(tools, round, completion, &mut messages, &mut repeats)?;
            self.emit(&ChatEvent::Thinking { round })?;
        };
        let tokens = progress.usage.input_tokens + progress.usage.output_tokens + progress.usage.cached_tokens;
        self.inner.turns.answer(self.turn.id, session, &text, tokens, progress.cost_usd)?;
        self.emit(&ChatEvent::Usage { tokens, cost_usd: progress.cost_usd })?;
        LoggedStreamSession(self.stream).send_content(&text)?;
        Ok(text)
    }

    fn call(
        &self,
        agent: &Agent,
        messages: &[Message],
        offered: &[crate::llm::ToolSpec],
        progress: &mut Progress,
    ) -> Result<Completion, TurnError> {
        let request = Request { model: "", messages, tools: offered, stream: true };
        let mut sink = EventSink { run: self, text: &mut progress.round_text, failed: None };
        let result =
            agent.router.complete(request, &NoMeter, &mut sink, self.cancel).map(|answered| answered.completion);
        if let Some(error) = sink.failed {
            return Err(error.into());
        }
        let completion = result.map_err(TurnError::Llm)?;
        progress.usage.input_tokens += completion.usage.input_tokens;
        progress.usage.output_tokens += completion.usage.output_tokens;
        progress.usage.cached_tokens += completion.usage.cached_tokens;
        progress.cost_usd += completion.usage.cost_usd.unwrap_or(0.0);
        if self.cancel.is_set() {
            return Err(TurnError::Llm(LlmError::Cancelled));
        }
        Ok(completion)
    }

    /// Runs the calls of one round in the model's order, stores and emits each, and adds them to the prompt.
    fn run_tools(
        &self,
        tools: &ToolSet,
        round: u32,
        completion: Completion,
        messages: &mut Vec<Message>,
        repeats: &mut HashMap<(String, String), u32>,
    ) -> Result<(), TurnError> {
        let mut asked = Message::text(Role::Assistant, completion.text.clone());
        asked.tool_calls.clone_from(&completion.tool_calls);
        messages.push(asked);
        for (index, call) in completion.tool_calls.into_iter().enumerate() {
            self.emit(&ChatEvent::ToolStart { tool: call.name.clone(), round, tool_id: call.id.clone() })?;
            let started = Instant::now();
            let seen = repeats.entry((call.name.clone(), call.arguments.clone())).or_default();
            *seen += 1;
            let result = if *seen > limits::TOOL_REPEATS_MAX {
                Err(ToolError::new("this very call was made before in this turn; use its result"))
            } else {
                self.run_tool(tools, &call)
            };
            let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let (text, error) = match result {
                Ok(text) => (bounded(text), None),
                Err(error) => (format!("Tool error: {}", error.message), Some(error.message)),
            };
            // The row first: what a client has seen must be in the conversation.
            self.inner.turns.add_step(&StepRow {
                turn_id: self.turn.id,
                round,
                tool_id: call.id.clone(),
                tool: call.name.clone(),
                arguments: call.arguments,
                said: if index == 0 { completion.text.clone() } else { String::new() },
                result: text.clone(),
                failed: error.is_some(),
                duration_ms,
            })?;
            self.emit(&ChatEvent::ToolEnd { tool: call.name, round, tool_id: call.id.clone(), duration_ms, error })?;
            let mut message = Message::text(Role::Tool, text);
            message.tool_call_id = Some(call.id);
            messages.push(message);
            if self.cancel.is_set() {
                return Err(TurnError::Llm(LlmError::Cancelled));
            }
        }
        Ok(())
    }

    fn run_tool(&self, tools: &ToolSet, call: &ToolCall) -> Result<String, ToolError> {
        let Some(tool) = tools.find(&call.name) else {
            return Err(ToolError::new(format!("there is no tool named {:?} here", call.name)));
        };
        let arguments = match call.arguments.trim() {
            "" => Value::Object(serde_json::Map::new()),
            text => serde_json::from_str(text).map_err(|_| ToolError::new("the arguments are not valid JSON"))?,
        };
        if !arguments.is_object() {
            return Err(ToolError::new("the arguments must be a JSON object"));
        }
        let context = ToolContext {
            agent: &self.turn.agent,
            session_id: &self.turn.conversation_id,
            identity: &self.turn.identity,
            deadline: Instant::now() + limits::TOOL_TIMEOUT,
            cancel: self.cancel,
        };
        let result = tool.call(&arguments, &context);
        if Instant::now() > context.deadline {
            return Err(ToolError::new("tool execution timed out after 30s"));
        }
        result
    }

    fn emit(&self, event: &ChatEvent) -> Result<(), StreamError> {
        LoggedStreamSession(self.stream).send_event(event)
    }

    /// The outcome of a broken turn; what was streamed is kept as the assistant's message.
    fn failed(&self, error: TurnError, progress: &Progress) -> Outcome {
        let (code, message) = self.explain(&error);
        let mut text = progress.earlier_text.clone();
        text.push_str(&progress.round_text);
        if !text.is_empty()
            && let Err(error) =
                self.inner.turns.answer(self.turn.id, &self.turn.conversation_id, &text, 0, progress.cost_usd)
            && !matches!(error, StoreError::NotFound)
        {
            log::error!("store the partial answer of turn {}: {error}", self.turn.id);
        }
        Outcome { error: Some((code, message)), text }
    }

    fn explain(&self, error: &TurnError) -> (&'static str, String) {
        match error {
            TurnError::Llm(LlmError::Cancelled) if self.reason.is_stopping() => interrupted(),
            TurnError::Llm(LlmError::Cancelled) => ("cancelled", "the turn was cancelled".to_owned()),
            TurnError::Llm(error) => {
                log::warn!("turn {} of session {}: {error}", self.turn.id, self.turn.conversation_id);
                error.public()
            }
            TurnError::Stream(StreamError::Full) | TurnError::Store(StoreError::Full) => {
                ("internal", "the disk of the hub is full; free some space and send the message again".to_owned())
            }
            TurnError::Stream(StreamError::Failed) => {
                ("internal", "the hub could not write its event log; see its log".to_owned())
            }
            TurnError::Store(error) => {
                log::error!("turn {} of session {}: {error}", self.turn.id, self.turn.conversation_id);
                ("internal", "failed to process message".to_owned())
            }
            TurnError::AgentGone => ("internal", format!("agent {:?} no longer exists", self.turn.agent)),
        }
    }
}

/// Code and text of a turn that a stop of the hub cut short.
pub(super) fn interrupted() -> (&'static str, String) {
    ("interrupted", "the hub stopped before the answer was complete; send the message again".to_owned())
}

impl Progress {
    fn end_round(&mut self) {
        if !self.round_text.is_empty() {
            if !self.earlier_text.is_empty() {
                self.earlier_text.push_str("\n\n");
            }
            self.earlier_text.push_str(&std::mem::take(&mut self.round_text));
        }
    }
}

/// Cuts a tool's result at the limit, on a character boundary, and says so.
fn bounded(mut text: String) -> String {
    if text.len() > limits::TOOL_RESULT_BYTES_MAX {
        let mut end = limits::TOOL_RESULT_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("\n[cut: the result was longer]");
    }
    text
}

/// Turns a model's pieces into events. A stream that fails cancels the call: nothing may be sent unlogged.
struct EventSink<'a> {
    run: &'a TurnRun<'a>,
    text: &'a mut String,
    failed: Option<StreamError>,
}

impl EventSink<'_> {
    fn emit(&mut self, event: &ChatEvent) {
        if self.failed.is_none()
            && let Err(error) = self.run.emit(event)
        {
            self.failed = Some(error);
            self.run.cancel.cancel();
        }
    }
}

impl Sink for EventSink<'_> {
    fn text(&mut self, piece: &str) {
        if piece.is_empty() || self.text.len() + piece.len() > limits::ANSWER_BYTES_MAX {
            return;
        }
        self.text.push_str(piece);
        self.emit(&ChatEvent::ContentDelta { text: piece.to_owned() });
    }

    fn thinking(&mut self, piece: &str) {
        if !piece.is_empty() {
            self.emit(&ChatEvent::ThinkingDelta { text: piece.to_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_results_are_cut_on_a_boundary() {
        assert_eq!(bounded("short".into()), "short");
        let long = bounded("é".repeat(limits::TOOL_RESULT_BYTES_MAX));
        assert!(long.len() < limits::TOOL_RESULT_BYTES_MAX + 40);
        assert!(long.ends_with("[cut: the result was longer]"));
    }
}
