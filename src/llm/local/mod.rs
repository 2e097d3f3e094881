//! The provider that needs no key and no network: a deterministic planner over the host tools' names and answers.
//!
//! A turn has two calls. The first finds the wish in the last message (and in what came before it) and asks for all
//! its tools at once; the second, with the results at hand, writes the report. Nothing here runs a tool or knows
//! how one works: what is not offered is not called.
//!
//! No threads; nothing blocks.

mod followup;
mod numbers;
mod plan;
mod replies;
mod report;
mod sections;
mod vocabulary;
mod wish;
mod words;

use crate::llm::local::followup::{remember, understand_after};
use crate::llm::local::plan::plan;
use crate::llm::local::report::{Looked, report};
use crate::llm::local::wish::{Look, Wish};
use crate::llm::{Completion, LlmError, Message, Provider, Request, Role, Sink, ToolCall, Usage};
use crate::rt::Cancel;

/// The name of the provider and of its only model.
pub const NAME: &str = "local";

/// Earlier messages that a follow-up can refer to.
const MEMORY_MESSAGES: usize = 40;

/// Bytes of a streamed piece, at least: about three words, so that a client sees text grow without a frame per word.
const PIECE_BYTES_MIN: usize = 16;

/// The built-in planner.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalProvider;

impl LocalProvider {
    pub fn new() -> Self {
        Self
    }
}

impl Provider for LocalProvider {
    fn name(&self) -> &str {
        NAME
    }

    fn complete(&self, request: Request<'_>, sink: &mut dyn Sink, cancel: &Cancel) -> Result<Completion, LlmError> {
        if cancel.is_set() {
            return Err(LlmError::Cancelled);
        }
        let (text, tool_calls) = match decide(&request) {
            Decision::Call(calls) => (String::new(), calls),
            Decision::Say(text) => (text, Vec::new()),
        };
        if request.stream {
            stream(&text, sink, cancel)?;
        }
        let usage = Usage { cost_usd: Some(0.0), ..Usage::default() };
        Ok(Completion { text, tool_calls, usage, model: NAME.to_owned() })
    }

    fn models(&self, _: &Cancel) -> Result<Vec<String>, LlmError> {
        Ok(vec![NAME.to_owned()])
    }
}

/// What one call answers.
enum Decision {
    Call(Vec<ToolCall>),
    Say(String),
}

fn decide(request: &Request<'_>) -> Decision {
    let messages = request.messages;
    let Some(asked) = messages.iter().rposition(|message| message.role == Role::User) else {
        return Decision::Say(replies::reply(wish::Say::Help));
    };
    let (before, since) = (&messages[..asked], &messages[asked + 1..]);
    let wish = understand_after(&messages[asked].content, last_look(before).as_ref());
    let looked = looked(since);
    if !looked.is_empty() {
        let look = match &wish {
            Wish::Look(look) => Some(look),
            Wish::Say(_) => None,
        };
        return Decision::Say(report(look, &looked));
    }
    match wish {
        Wish::Say(say) => Decision::Say(replies::reply(say)),
        Wish::Look(look) => calls(&look, request),
    }
}

/// What the conversation looked at last.
fn last_look(messages: &[Message]) -> Option<Look> {
    let start = messages.len().saturating_sub(MEMORY_MESSAGES);
    let users = messages[start..].iter().filter(|message| message.role == Role::User);
    users.fold(None, |last, message| remember(last, &message.content))
}

/// The calls for a wish, as far as the tools are offered.
fn calls(look: &Look, request: &Request<'_>) -> Decision {
    let planned = plan(look);
    let offered = |name: &str| request.tools.iter().any(|tool| tool.name == name);
    let first = next_call_number(request.messages);
    let calls: Vec<ToolCall> = planned
        .iter()
        .filter(|call| offered(call.tool))
        .zip(first..)
        .map(|(call, number)| ToolCall {
            id: format!("call_{number}"),
            name: call.tool.to_owned(),
            arguments: call.arguments.to_string(),
        })
        .collect();
    if calls.is_empty() {
        let mut wanted: Vec<&str> = planned.iter().map(|call| call.tool).collect();
        wanted.dedup();
        return Decision::Say(replies::without_tools(&wanted));
    }
    Decision::Call(calls)
}

/// Ids go on from the highest one that can be seen: prompts may begin in the middle of a conversation.
fn next_call_number(messages: &[Message]) -> u64 {
    let ids = messages.iter().flat_map(|message| &message.tool_calls).map(|call| call.id.as_str());
    let results = messages.iter().filter_map(|message| message.tool_call_id.as_deref());
    let highest = ids.chain(results).filter_map(|id| id.strip_prefix("call_")?.parse::<u64>().ok()).max();
    highest.unwrap_or(0).saturating_add(1)
}

/// The calls made since the message, each with its result.
fn looked(since: &[Message]) -> Vec<Looked> {
    let result = |id: &str| {
        let answers = |message: &&Message| message.role == Role::Tool && message.tool_call_id.as_deref() == Some(id);
        since.iter().find(answers).map(|message| message.content.as_str())
    };
    since.iter().flat_map(|message| &message.tool_calls).map(|call| Looked::new(&call.name, result(&call.id))).collect()
}

/// Hands the text over in pieces of a few words.
fn stream(text: &str, sink: &mut dyn Sink, cancel: &Cancel) -> Result<(), LlmError> {
    let mut start = 0;
    for (at, character) in text.char_indices() {
        let end = at + character.len_utf8();
        if character.is_whitespace() && end - start >= PIECE_BYTES_MIN {
            send(&text[start..end], sink, cancel)?;
            start = end;
        }
    }
    if start < text.len() { send(&text[start..], sink, cancel) } else { Ok(()) }
}

fn send(piece: &str, sink: &mut dyn Sink, cancel: &Cancel) -> Result<(), LlmError> {
    if cancel.is_set() {
        return Err(LlmError::Cancelled);
    }
    sink.text(piece);
    Ok(())
}
