//! The provider that needs no key and no network: a deterministic planner over the host tools' names and answers.
//!
//! A turn has two calls. The first finds the wish in the last message (and in what came before it) and asks for all
//! its tools at once; the second, with the results at hand, writes the report. Nothing here runs a tool or knows
//! how one works: what is not offered is not called.
//!
//! No threads; nothing blocks.

mod diagnosis;
mod followup;
mod note;
mod numbers;
mod plan;
mod replies;
mod report;
#[cfg(test)]
mod report_tests;
mod sections;
mod vocabulary;
mod wish;
mod words;

pub use crate::llm::local::diagnosis::{AREAS, Diagnosis, Diagnostician, Question, host_of};
use crate::llm::local::followup::{remember, understand_after};
use crate::llm::local::note::Note;
use crate::llm::local::plan::{Planned, plan};
use crate::llm::local::report::{Looked, report};
use crate::llm::local::wish::{Look, Say, Wish};
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

    fn is_free(&self) -> bool {
        true
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
        return Decision::Say(replies::reply(Say::Help));
    };
    let (before, since) = (&messages[..asked], &messages[asked + 1..]);
    let wish = understand_after(&messages[asked].content, last_look(before).as_ref());
    let looked = looked(since);
    if !looked.is_empty() {
        return Decision::Say(match &wish {
            Wish::Look(look) => report(Some(look), &looked),
            Wish::Note(note) => note.report(&looked[0].outcome),
            Wish::Say(_) => report(None, &looked),
        });
    }
    match wish {
        Wish::Say(say) => Decision::Say(replies::reply(say)),
        Wish::Look(look) => calls(&plan(&look), request),
        Wish::Note(note) => match (note.plan(), &note) {
            (None, _) => Decision::Say(note::HOW.to_owned()),
            // Without notes the question is one that nobody here can answer.
            (Some(call), Note::Get { guess: true, .. }) if !offers(request, call.tool) => {
                Decision::Say(replies::reply(Say::Unknown))
            }
            (Some(call), _) => calls(&[call], request),
        },
    }
}

fn offers(request: &Request<'_>, name: &str) -> bool {
    request.tools.iter().any(|tool| tool.name == name)
}

/// What the conversation looked at last.
fn last_look(messages: &[Message]) -> Option<Look> {
    let start = messages.len().saturating_sub(MEMORY_MESSAGES);
    let users = messages[start..].iter().filter(|message| message.role == Role::User);
    users.fold(None, |last, message| remember(last, &message.content))
}

/// The planned calls, as far as the tools are offered.
fn calls(planned: &[Planned], request: &Request<'_>) -> Decision {
    let first = next_call_number(request.messages);
    let calls: Vec<ToolCall> = planned
        .iter()
        .filter(|call| offers(request, call.tool))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::ToolSpec;
    use serde_json::json;

    #[derive(Default)]
    struct Pieces {
        pieces: Vec<String>,
        /// Cancels after this many pieces.
        cancel: Option<(usize, Cancel)>,
    }

    impl Sink for Pieces {
        fn text(&mut self, piece: &str) {
            self.pieces.push(piece.to_owned());
            if let Some((after, cancel)) = &self.cancel
                && self.pieces.len() == *after
            {
                cancel.cancel();
            }
        }

        fn thinking(&mut self, _: &str) {}
    }

    fn tools(names: &[&str]) -> Vec<ToolSpec> {
        let spec =
            |name: &&str| ToolSpec { name: (*name).to_owned(), description: String::new(), parameters: json!({}) };
        names.iter().map(spec).collect()
    }

    fn ask(messages: &[Message], offered: &[&str]) -> (Completion, Vec<String>) {
        let tools = tools(offered);
        let mut sink = Pieces::default();
        let request = Request { model: NAME, messages, tools: &tools, stream: true };
        let completion = LocalProvider::new().complete(request, &mut sink, &Cancel::new()).unwrap();
        (completion, sink.pieces)
    }

    fn user(text: &str) -> Message {
        Message::text(Role::User, text)
    }

    /// The two messages that a tool loop adds for each round.
    fn round(calls: &[ToolCall], content: &str) -> Vec<Message> {
        let mut messages = vec![Message { tool_calls: calls.to_vec(), ..Message::text(Role::Assistant, "") }];
        for call in calls {
            messages.push(Message { tool_call_id: Some(call.id.clone()), ..Message::text(Role::Tool, content) });
        }
        messages
    }

    const ALL: &[&str] = &["host_cpu", "host_memory", "host_disk", "host_processes", "host_uptime"];

    #[test]
    fn a_turn_is_calls_then_a_streamed_report() {
        let mut messages =
            vec![Message::text(Role::System, "You are Holt."), user("how busy is the cpu and the memory?")];
        let (first, pieces) = ask(&messages, ALL);
        assert!(pieces.is_empty() && first.text.is_empty());
        let calls: Vec<_> = first
            .tool_calls
            .iter()
            .map(|call| (call.id.as_str(), call.name.as_str(), call.arguments.as_str()))
            .collect();
        assert_eq!(calls, [("call_1", "host_cpu", "{}"), ("call_2", "host_memory", "{}")]);
        assert_eq!(first.usage, Usage { cost_usd: Some(0.0), ..Usage::default() });
        messages.extend(round(&first.tool_calls, r#"{"used_percent":12,"findings":[]}"#));
        let (second, pieces) = ask(&messages, ALL);
        assert!(second.tool_calls.is_empty());
        assert_eq!(second.text, pieces.concat());
        assert!(pieces.len() > 2, "{pieces:?}");
        assert!(second.text.starts_with("This machine is fine: CPU 12 % used, memory 12 % used.\n"), "{}", second.text);
        assert_eq!(second.model, "local");
        // The next message goes on counting, also when the prompt starts in the middle.
        messages.push(Message::text(Role::Assistant, second.text));
        messages.push(user("which process?"));
        for messages in [&messages[..], &messages[3..]] {
            let (third, _) = ask(messages, ALL);
            assert_eq!(third.tool_calls[0].id, "call_3");
            assert_eq!(third.tool_calls[0].name, "host_processes");
        }
    }

    #[test]
    fn only_offered_tools_are_called() {
        let (completion, _) = ask(&[user("how is this machine doing?")], &["host_disk", "shell"]);
        let names: Vec<_> = completion.tool_calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["host_disk"]);
        let (completion, pieces) = ask(&[user("is the disk full?")], &["shell"]);
        assert!(completion.tool_calls.is_empty());
        assert!(completion.text.contains("`host_disk`") && completion.text == pieces.concat());
    }

    #[test]
    fn a_note_is_stored_and_asked_back() {
        let notes = &["kv_get", "kv_list", "kv_set", "kv_delete"];
        let mut messages = vec![user("how full is the disk?"), user("remember that the disk code is 12")];
        let (first, _) = ask(&messages, notes);
        let call = &first.tool_calls[0];
        assert_eq!((call.name.as_str(), call.arguments.as_str()), ("kv_set", r#"{"key":"disk-code","value":"12"}"#));
        messages.extend(round(&first.tool_calls, r#"{"ok":true}"#));
        assert_eq!(ask(&messages, notes).0.text, "I will remember it: `disk-code` is `12`.\n");
        messages.push(user("what's the disk code?"));
        let (asked, _) = ask(&messages, notes);
        assert_eq!(asked.tool_calls[0].name, "kv_get");
        // A note is not what was looked at last.
        messages.push(user("why?"));
        assert_eq!(ask(&messages, &["host_logs"]).0.tool_calls[0].name, "host_logs");
        // Without the tools nothing is asked for.
        assert!(ask(&[user("remember x = y")], ALL).0.text.contains("`kv_set`"));
        assert!(ask(&[user("remember to buy bread")], notes).0.text.starts_with("A note needs a name."));
        assert!(ask(&[user("what is love?")], ALL).0.text.starts_with("I did not understand"));
        assert_eq!(ask(&[user("what is love?")], notes).0.tool_calls[0].name, "kv_get");
    }

    #[test]
    fn unknown_wishes_get_an_honest_answer_without_tools() {
        for text in ["write me a poem", "delete all files", "hello", "help", "thanks", "", "\u{0}"] {
            let (completion, pieces) = ask(&[user(text)], ALL);
            assert!(completion.tool_calls.is_empty() && !completion.text.is_empty(), "{text}");
            assert_eq!(completion.text, pieces.concat());
        }
        let (completion, _) = ask(&[user("write me a poem")], ALL);
        assert!(completion.text.contains("[llm]") && completion.text.contains("holt.toml"));
        let (completion, _) = ask(&[user("delete all files")], ALL);
        assert!(completion.text.starts_with("I cannot do that: I only look, I change nothing."));
        assert!(!ask(&[], ALL).0.text.is_empty());
    }

    #[test]
    fn a_failed_or_refused_tool_is_reported_as_such() {
        let mut messages = vec![user("is the disk full?")];
        let (first, _) = ask(&messages, ALL);
        messages.extend(round(&first.tool_calls, "error: denied by the user"));
        let (second, _) = ask(&messages, ALL);
        assert!(second.text.starts_with("I could not look: `host_disk` failed."), "{}", second.text);
        assert!(second.text.contains("denied by the user"));
        // A call without any result must not ask for the same call for ever.
        messages.truncate(2);
        assert!(ask(&messages, ALL).0.text.contains("no answer arrived"));
    }

    #[test]
    fn cancelling_ends_the_stream_between_pieces() {
        let cancel = Cancel::new();
        let mut sink = Pieces { cancel: Some((2, cancel.clone())), ..Pieces::default() };
        let messages = [user("help")];
        let request = Request { model: NAME, messages: &messages, tools: &[], stream: true };
        assert_eq!(LocalProvider::new().complete(request, &mut sink, &cancel), Err(LlmError::Cancelled));
        assert_eq!(sink.pieces.len(), 2);
        let request = Request { stream: false, ..request };
        assert_eq!(LocalProvider::new().complete(request, &mut sink, &cancel), Err(LlmError::Cancelled));
    }

    #[test]
    fn without_streaming_the_text_comes_at_once() {
        let mut sink = Pieces::default();
        let messages = [user("help")];
        let request = Request { model: NAME, messages: &messages, tools: &[], stream: false };
        let completion = LocalProvider::new().complete(request, &mut sink, &Cancel::new()).unwrap();
        assert!(sink.pieces.is_empty() && completion.text.contains("read-only"));
        assert!(completion.text.contains("remember that the door code is 1234"), "{}", completion.text);
        assert_eq!(LocalProvider::new().models(&Cancel::new()).unwrap(), ["local"]);
    }
}
