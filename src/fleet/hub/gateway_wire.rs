//! Requests and answers of the gateway on the wire (contract agent-link 5.2, 5.3). No I/O.

use std::time::Duration;

use serde_json::{Value, json};

use crate::limits;
use crate::llm::{Answered, Message, Role, ToolCall, ToolSpec};
use crate::rt::json as wire;
use crate::rt::text::cut;

/// Says something for machines that let the model begin: some model servers refuse a conversation without a user.
const OPENING: &str = "Please go on.";
/// Longest scene or id that is logged.
const NAME_BYTES_MAX: usize = 64;

/// What a machine asks for.
#[derive(Debug, PartialEq)]
pub struct Ask {
    pub messages: Vec<Message>,
    pub tools: Vec<ToolSpec>,
    /// How long the machine waits.
    pub timeout: Duration,
    /// Which conversation of the machine it belongs to, as far as it says; may be empty.
    pub session: String,
}

/// An answer for a machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Seconds.
    pub retry_after: Option<u64>,
    pub body: Vec<u8>,
}

impl Ask {
    /// Reads a body; the text says what is wrong with it.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let mut body: Value = serde_json::from_slice(body).map_err(|_| "the body is not JSON")?;
        let Some(Value::Array(list)) = body.get_mut("messages").map(Value::take) else {
            return Err("messages must be an array".to_owned());
        };
        if list.is_empty() || list.len() > limits::GATEWAY_MESSAGES_MAX {
            return Err(format!("messages must be 1 to {}", limits::GATEWAY_MESSAGES_MAX));
        }
        let mut messages = list.into_iter().map(message).collect::<Result<Vec<_>, _>>()?;
        if !messages.iter().any(|message| message.role == Role::User) {
            let after = messages.iter().take_while(|message| message.role == Role::System).count();
            messages.insert(after, Message::text(Role::User, OPENING));
        }
        let tools = match body.get_mut("tools").map(Value::take) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) if list.len() <= limits::GATEWAY_TOOLS_MAX => {
                list.into_iter().map(tool).collect::<Result<Vec<_>, _>>()?
            }
            Some(_) => return Err(format!("tools must be an array of at most {}", limits::GATEWAY_TOOLS_MAX)),
        };
        let timeout = match body.get("timeout_ms").and_then(Value::as_u64) {
            None | Some(0) => limits::GATEWAY_TIMEOUT,
            Some(ms) => Duration::from_millis(ms).min(limits::GATEWAY_TIMEOUT_MAX),
        };
        let metadata = &body["metadata"];
        let session = ["session_id", "diagnose_id"].iter().find_map(|name| metadata[name].as_str()).unwrap_or("");
        Ok(Self { messages, tools, timeout, session: cut(session, NAME_BYTES_MAX).to_owned() })
    }
}

fn message(mut item: Value) -> Result<Message, String> {
    let role = match item["role"].as_str() {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        _ => return Err("a message has no role out of system, user, assistant and tool".to_owned()),
    };
    let content = match item.get_mut("content").map(Value::take) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text,
        Some(_) => return Err("the content of a message must be a string".to_owned()),
    };
    let tool_calls = match item.get_mut("tool_calls").map(Value::take) {
        Some(Value::Array(calls)) if role == Role::Assistant => calls
            .into_iter()
            .map(tool_call)
            .collect::<Option<Vec<_>>>()
            .ok_or("a tool call has no id, name or arguments")?,
        _ => Vec::new(),
    };
    let tool_call_id = match item.get_mut("tool_call_id").map(Value::take) {
        Some(Value::String(id)) if role == Role::Tool => Some(id),
        _ if role == Role::Tool => return Err("a message of role tool has no tool_call_id".to_owned()),
        _ => None,
    };
    Ok(Message { role, content, tool_calls, tool_call_id })
}

fn tool_call(mut item: Value) -> Option<ToolCall> {
    let text = |value: &mut Value| match value.take() {
        Value::String(text) => Some(text),
        _ => None,
    };
    let id = text(item.get_mut("id")?)?;
    let function = item.get_mut("function")?;
    let name = text(function.get_mut("name")?)?;
    let arguments = function.get_mut("arguments").map_or(Some(String::new()), text)?;
    Some(ToolCall { id, name, arguments })
}

fn tool(mut item: Value) -> Result<ToolSpec, String> {
    let function = item.get_mut("function").map(Value::take).unwrap_or_default();
    let name = function["name"].as_str().filter(|name| !name.is_empty()).ok_or("a tool has no function.name")?;
    let mut parameters = function.get("parameters").filter(|it| it.is_object()).cloned().unwrap_or_else(|| json!({}));
    for (key, missing) in [("type", json!("object")), ("properties", json!({}))] {
        if parameters.get(key).is_none_or(Value::is_null) {
            parameters[key] = missing;
        }
    }
    let description = function["description"].as_str().unwrap_or_default().to_owned();
    Ok(ToolSpec { name: name.to_owned(), description, parameters })
}

impl Answer {
    /// What the model said.
    pub(super) fn of(id: &str, answered: &Answered, latency: Duration, attempts: usize) -> Self {
        let completion = &answered.completion;
        let calls: Vec<Value> = completion
            .tool_calls
            .iter()
            .map(|call| {
                let arguments = if call.arguments.is_empty() { "{}" } else { &call.arguments };
                json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
            })
            .collect();
        // Providers put a note behind what was cut off (contract agent-link 5.4).
        let finish = match calls.is_empty() {
            false => "tool_calls",
            true if crate::llm::is_cut(&completion.text) => "length",
            true => "stop",
        };
        let mut message = json!({"role": "assistant", "content": completion.text});
        if !calls.is_empty() {
            message["tool_calls"] = Value::Array(calls);
        }
        let usage = &completion.usage;
        let prompt = usage.input_tokens + usage.cached_tokens;
        let model = if completion.model.is_empty() { &answered.model } else { &completion.model };
        let body = json!({"request_id": id, "data": {
            "id": id, "model": model, "message": message, "finish_reason": finish,
            "usage": {
                "prompt_tokens": prompt, "completion_tokens": usage.output_tokens,
                "total_tokens": prompt + usage.output_tokens,
            },
            "provider_latency_ms": u64::try_from(latency.as_millis()).unwrap_or(u64::MAX), "attempts": attempts,
        }});
        Self { status: 200, retry_after: None, body: wire::to_vec(&body) }
    }

    /// Why there is no answer. Only `message` is shown at the machine.
    pub fn error(status: u16, code: &str, message: &str, retry_after: Option<u64>, id: &str) -> Self {
        let body = json!({"request_id": id, "error": {"code": code, "message": message}});
        Self { status, retry_after, body: wire::to_vec(&body) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::{Completion, Usage};

    #[test]
    fn the_contracts_request_is_read_and_made_ready_for_any_provider() {
        let body = json!({
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "assistant", "content": "", "reasoning_content": "secret", "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "call_tool", "arguments": "{\"a\":1}"}}]},
                {"role": "tool", "content": "out", "tool_call_id": "call_1"}],
            "tools": [{"type": "function", "function": {"name": "now", "description": "d"}},
                {"type": "function", "function": {"name": "x", "parameters": {"type": "object", "required": ["a"]}}}],
            "timeout_ms": 30000, "metadata": {"diagnose_id": "d1", "plugin": "disk"}, "more": 1,
        });
        let ask = Ask::parse(body.to_string().as_bytes()).unwrap();
        let roles: Vec<Role> = ask.messages.iter().map(|message| message.role).collect();
        assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::Tool]);
        assert_eq!(ask.messages[2].tool_calls[0].arguments, "{\"a\":1}");
        assert_eq!(ask.messages[3].tool_call_id.as_deref(), Some("call_1"));
        assert_eq!(ask.tools[0].parameters, json!({"type": "object", "properties": {}}));
        assert_eq!(ask.tools[1].parameters, json!({"type": "object", "properties": {}, "required": ["a"]}));
        assert_eq!((ask.timeout, ask.session.as_str()), (Duration::from_secs(30), "d1"));
    }

    #[test]
    fn what_is_no_request_is_refused_with_a_reason() {
        let check = |body: &str, expected: &str| {
            let error = Ask::parse(body.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{body}: {error}");
        };
        check("", "not JSON");
        check("[]", "messages must");
        check("7", "messages must");
        check("{}", "messages must");
        check(r#"{"messages":[]}"#, "messages must be 1 to");
        check(r#"{"messages":[7]}"#, "role");
        check(r#"{"messages":[{"role":"king"}]}"#, "role");
        check(r#"{"messages":[{"role":"user","content":{}}]}"#, "content");
        check(r#"{"messages":[{"role":"tool","content":"x"}]}"#, "tool_call_id");
        check(r#"{"messages":[{"role":"assistant","tool_calls":[{"id":7}]}]}"#, "tool call");
        check(r#"{"messages":[{"role":"user"}],"tools":{}}"#, "tools must");
        check(r#"{"messages":[{"role":"user"}],"tools":[{}]}"#, "function.name");
    }

    #[test]
    fn what_was_cut_off_says_so() {
        let note = "\n\n[The answer ends here: it reached the limit of 10 tokens for one answer. Ask to go on, or raise \
                    max_tokens of the provider.]";
        for (text, expected) in [(format!("begun{note}"), "length"), (format!("{note} and more"), "stop")] {
            let completion = Completion { text, ..Completion::default() };
            let answered = Answered { completion, provider: String::new(), model: String::new() };
            let body: Value = serde_json::from_slice(&Answer::of("r", &answered, Duration::ZERO, 1).body).unwrap();
            assert_eq!(body["data"]["finish_reason"], expected);
        }
    }

    #[test]
    fn answers_have_the_contracts_shape() {
        let completion = Completion {
            tool_calls: vec![ToolCall { id: "c".into(), name: "n".into(), arguments: String::new() }],
            usage: Usage { input_tokens: 7, output_tokens: 3, cached_tokens: 2, cost_usd: None },
            ..Completion::default()
        };
        let answered = Answered { completion, provider: "p".into(), model: "m".into() };
        let answer = Answer::of("r1", &answered, Duration::from_millis(5), 2);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(
            body,
            json!({"request_id": "r1", "data": {
            "id": "r1", "model": "m", "finish_reason": "tool_calls", "provider_latency_ms": 5, "attempts": 2,
            "message": {"role": "assistant", "content": "", "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "n", "arguments": "{}"}}]},
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}}})
        );
    }
}
