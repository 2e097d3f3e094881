//! A turn of a machine: its session runs there, what it tells becomes the events of the conversation.

use serde_json::Value;

use crate::agents::remote::{Operation, RemoteSink, RemoteTurn};
use crate::chat::event::ChatEvent;
use crate::chat::history;
use crate::chat::stream::StreamError;
use crate::chat::turn::{Progress, TurnError, TurnRun, push_paragraph};
use crate::limits;
use crate::llm::Role;

impl TurnRun<'_> {
    /// Asks the machine and waits for the end of its turn.
    pub(super) fn answer_from_machine(&self, progress: &mut Progress) -> Result<String, TurnError> {
        let remote = self.inner.remote.get().ok_or(TurnError::AgentGone)?;
        if remote.resolve(&self.turn.agent).is_none() {
            return Err(TurnError::AgentGone);
        }
        self.emit(&ChatEvent::Thinking { round: 0 })?;
        let params: Value = serde_json::from_str(&self.turn.params).unwrap_or_default();
        // The newest message is the question itself; the machine has its own instructions.
        let user_message = self.turn.user_message.unwrap_or(i64::MAX);
        let count = self.inner.settings().context_messages_max;
        let mut before = history::prompt(self.inner, String::new(), &self.turn.conversation_id, user_message, count)?;
        before.pop();
        before.retain(|message| matches!(message.role, Role::User | Role::Assistant) && !message.content.is_empty());
        let turn = RemoteTurn {
            agent: &self.turn.agent,
            conversation_id: &self.turn.conversation_id,
            identity: &self.turn.identity,
            operation: Operation::from_name(&self.turn.kind).unwrap_or(Operation::Chat),
            params: &params,
            text: &self.turn.text,
            history: &before,
        };
        let mut sink = MachineSink { run: self, text: &mut progress.round_text, tokens: 0, failed: None };
        let result = remote.run(&turn, &mut sink, self.cancel);
        let tokens = sink.tokens;
        if let Some(error) = sink.failed {
            return Err(error.into());
        }
        let text = result.map_err(TurnError::Remote)?;
        // What the model has cost is counted by the gateway, under the machine's name.
        let mut totals = self.meter().totals();
        totals.tokens = totals.tokens.max(tokens);
        self.store_answer(&text, totals)?;
        Ok(text)
    }
}

/// Turns what a machine tells into events. A stream that fails cancels the session there.
struct MachineSink<'a> {
    run: &'a TurnRun<'a>,
    text: &'a mut String,
    tokens: u64,
    failed: Option<StreamError>,
}

impl MachineSink<'_> {
    fn emit(&mut self, event: &ChatEvent) {
        if self.failed.is_none()
            && let Err(error) = self.run.emit(event)
        {
            self.failed = Some(error);
            self.run.cancel.cancel();
        }
    }
}

impl RemoteSink for MachineSink<'_> {
    fn thinking(&mut self, text: &str) {
        if !text.is_empty() {
            self.emit(&ChatEvent::ThinkingDelta { text: format!("{text}\n") });
        }
    }

    fn tool_start(&mut self, tool: &str, round: u32, id: &str) {
        self.emit(&ChatEvent::ToolStart { tool: tool.to_owned(), round, tool_id: id.to_owned() });
    }

    fn tool_end(&mut self, tool: &str, round: u32, id: &str, duration_ms: u64, error: Option<&str>) {
        let error = error.map(str::to_owned);
        self.emit(&ChatEvent::ToolEnd { tool: tool.to_owned(), round, tool_id: id.to_owned(), duration_ms, error });
    }

    fn text(&mut self, text: &str) {
        if text.is_empty() || self.text.len() + text.len() > limits::ANSWER_BYTES_MAX {
            return;
        }
        let known = self.text.len();
        push_paragraph(self.text, text);
        let piece = self.text[known..].to_owned();
        self.emit(&ChatEvent::ContentDelta { text: piece });
    }

    fn usage(&mut self, tokens: u64) {
        self.tokens = self.tokens.max(tokens);
    }
}
