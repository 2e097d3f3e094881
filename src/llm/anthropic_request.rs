//! What Anthropic is asked: our messages as content blocks. Does no I/O.
//!
//! The API refuses what others take: empty texts, results that are not in the message right after their call, calls
//! without a result, a conversation that begins with the model. A stored conversation may hold each of them.

use serde_json::{Map, Value, json};

use super::endpoint::decode;
use super::{LlmError, Message, Request, Role, ToolCall};

/// Stands for messages that history has cut off.
const BEGINNING: &str = "(The conversation began earlier.)";
/// Stands for the result of a call that was interrupted.
const NO_RESULT: &str = "No result was recorded.";

/// The JSON body of a call.
pub(super) fn request_body(request: &Request<'_>, max_tokens: u32) -> Result<Vec<u8>, LlmError> {
    let mut body = json!({ "model": request.model, "max_tokens": max_tokens });
    let system: Vec<&str> = texts(request.messages, Role::System);
    if !system.is_empty() {
        body["system"] = Value::String(system.join("\n\n"));
    }
    body["messages"] = Value::Array(conversation(request.messages));
    if !request.tools.is_empty() {
        let tools = request
            .tools
            .iter()
            .map(|tool| json!({ "name": tool.name, "description": tool.description, "input_schema": tool.parameters }));
        body["tools"] = tools.collect();
    }
    if request.stream {
        body["stream"] = Value::Bool(true);
    }
    serde_json::to_vec(&body).map_err(|error| decode(format!("make the request: {error}")))
}

fn texts(messages: &[Message], role: Role) -> Vec<&str> {
    let of_role = messages.iter().filter(|message| message.role == role);
    of_role.map(|message| message.content.trim()).filter(|text| !text.is_empty()).collect()
}

/// A conversation while it is put together: neighbours of one role become one message.
#[derive(Default)]
struct Conversation {
    messages: Vec<(&'static str, Vec<Value>)>,
    /// Calls of the last assistant message that have no result yet.
    open: Vec<String>,
}

fn conversation(messages: &[Message]) -> Vec<Value> {
    let mut conversation = Conversation::default();
    for message in messages {
        match message.role {
            Role::System => {}
            Role::User => conversation.user(text_block(&message.content)),
            Role::Tool => conversation.result(message),
            Role::Assistant => conversation.assistant(message),
        }
    }
    conversation.close_calls();
    if conversation.messages.first().is_none_or(|(role, _)| *role != "user") {
        let beginning = text_block(BEGINNING).into_iter().collect();
        conversation.messages.insert(0, ("user", beginning));
    }
    let messages = conversation.messages.into_iter();
    messages.map(|(role, blocks)| json!({ "role": role, "content": blocks })).collect()
}

impl Conversation {
    fn push(&mut self, role: &'static str, block: Value) {
        match self.messages.last_mut() {
            Some((last, blocks)) if *last == role => blocks.push(block),
            _ => self.messages.push((role, vec![block])),
        }
    }

    fn user(&mut self, block: Option<Value>) {
        if let Some(block) = block {
            self.close_calls();
            self.push("user", block);
        }
    }

    fn assistant(&mut self, message: &Message) {
        self.close_calls();
        if let Some(block) = text_block(&message.content) {
            self.push("assistant", block);
        }
        for call in &message.tool_calls {
            let id = plain_id(&call.id);
            self.push("assistant", json!({ "type": "tool_use", "id": id, "name": call.name, "input": input(call) }));
            self.open.push(id);
        }
    }

    /// A result goes into the user message right behind its call; one whose call is gone becomes text.
    fn result(&mut self, message: &Message) {
        let id = plain_id(message.tool_call_id.as_deref().unwrap_or_default());
        if let Some(at) = self.open.iter().position(|open| *open == id) {
            self.open.remove(at);
            let mut block = json!({ "type": "tool_result", "tool_use_id": id });
            if !message.content.is_empty() {
                block["content"] = Value::String(message.content.clone());
            }
            self.push("user", block);
        } else if !message.content.trim().is_empty() {
            let text = format!("(Result of an earlier tool call)\n{}", message.content);
            self.user(text_block(&text));
        }
    }

    fn close_calls(&mut self) {
        for id in std::mem::take(&mut self.open) {
            let block = json!({ "type": "tool_result", "tool_use_id": id, "content": NO_RESULT, "is_error": true });
            self.push("user", block);
        }
    }
}

fn text_block(text: &str) -> Option<Value> {
    let text = text.trim_end();
    (!text.trim_start().is_empty()).then(|| json!({ "type": "text", "text": text }))
}

/// The arguments as an object, which is never left out.
fn input(call: &ToolCall) -> Value {
    match serde_json::from_str(call.arguments.trim()) {
        Ok(Value::Object(input)) => Value::Object(input),
        // The model sees what it wrote, next to the error that it got.
        _ if !call.arguments.trim().is_empty() => json!({ "invalid_arguments": call.arguments }),
        _ => Value::Object(Map::new()),
    }
}

/// Ids that other providers made may hold characters that this one refuses.
fn plain_id(id: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
    if id.is_empty() { "call".to_owned() } else { id.chars().map(plain).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str, arguments: &str) -> ToolCall {
        ToolCall { id: id.into(), name: "look".into(), arguments: arguments.into() }
    }

    fn calls(content: &str, calls: Vec<ToolCall>) -> Message {
        Message { tool_calls: calls, ..Message::text(Role::Assistant, content) }
    }

    fn result(id: &str, content: &str) -> Message {
        Message { tool_call_id: Some(id.into()), ..Message::text(Role::Tool, content) }
    }

    fn user(content: &str) -> Message {
        Message::text(Role::User, content)
    }

    #[test]
    fn results_of_one_round_share_a_message() {
        let messages = [
            user("look"),
            calls("I look.  ", vec![call("a", ""), call("b:1", "{\"x\":1}")]),
            result("a", "one"),
            result("b:1", ""),
            user("and now?"),
        ];
        let expected = json!([
            {"role": "user", "content": [{"type": "text", "text": "look"}]},
            {"role": "assistant", "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "a", "name": "look", "input": {}},
                {"type": "tool_use", "id": "b_1", "name": "look", "input": {"x": 1}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "one"},
                {"type": "tool_result", "tool_use_id": "b_1"},
                {"type": "text", "text": "and now?"}]},
        ]);
        assert_eq!(Value::Array(conversation(&messages)), expected);
    }

    #[test]
    fn broken_histories_become_what_the_api_takes() {
        let check = |messages: &[Message], expected: Value| {
            assert_eq!(Value::Array(conversation(messages)), expected);
        };
        let text = |role: &str, text: &str| json!({"role": role, "content": [{"type": "text", "text": text}]});
        check(
            &[user("a"), calls("", vec![]), user("b")],
            json!([
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]),
        );
        check(
            &[calls("hello", vec![]), user("b")],
            json!([text("user", BEGINNING), text("assistant", "hello"), text("user", "b")]),
        );
        check(&[], json!([text("user", BEGINNING)]));
        check(
            &[user("a"), result("gone", "seen"), calls("  \n", vec![])],
            json!([
            {"role": "user", "content": [{"type": "text", "text": "a"},
                {"type": "text", "text": "(Result of an earlier tool call)\nseen"}]}]),
        );
        let interrupted = json!({"type": "tool_result", "tool_use_id": "b", "content": NO_RESULT, "is_error": true});
        check(
            &[user("a"), calls("", vec![call("a", "nonsense"), call("b", "[]")]), result("a", "x"), user("c")],
            json!([
                text("user", "a"),
                {"role": "assistant", "content": [
                    {"type": "tool_use", "id": "a", "name": "look", "input": {"invalid_arguments": "nonsense"}},
                    {"type": "tool_use", "id": "b", "name": "look", "input": {"invalid_arguments": "[]"}}]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": "x"},
                    interrupted,
                    {"type": "text", "text": "c"}]},
            ]),
        );
    }
}
