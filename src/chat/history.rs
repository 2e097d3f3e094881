//! The prompt of a turn: the newest messages of its conversation, with the tool calls and results between them.

use std::collections::HashMap;

use crate::chat::engine::Inner;
use crate::llm::{Message, Role, ToolCall};
use crate::store::StoreError;
use crate::store::turns::StepRow;

/// The system prompt, then the newest `count` messages up to and including `user_message`.
pub(super) fn prompt(
    inner: &Inner,
    system: String,
    conversation_id: &str,
    user_message: i64,
    count: usize,
) -> Result<Vec<Message>, StoreError> {
    let rows = inner.conversations.messages(conversation_id, user_message, count)?;
    let first_message = rows.first().map_or(0, |row| row.id);
    let turn_of: HashMap<i64, i64> =
        inner.turns.turns_of_messages(conversation_id, first_message)?.into_iter().collect();
    let first_turn = turn_of.values().min().copied().unwrap_or(i64::MAX);
    let mut steps: HashMap<i64, Vec<StepRow>> = HashMap::new();
    for step in inner.turns.steps(conversation_id, first_turn)? {
        steps.entry(step.turn_id).or_default().push(step);
    }
    let mut messages = vec![Message::text(Role::System, system)];
    for row in rows {
        let role = if row.role == "assistant" { Role::Assistant } else { Role::User };
        if role == Role::Assistant && row.content.is_empty() {
            continue; // an empty answer tells the model nothing, and some providers refuse it
        }
        messages.push(Message::text(role, row.content));
        if let Some(steps) = turn_of.get(&row.id).and_then(|turn| steps.remove(turn)) {
            push_steps(&mut messages, steps);
        }
    }
    Ok(messages)
}

/// The rounds of a finished or resumed turn: each is one assistant message with its calls, then their results.
fn push_steps(messages: &mut Vec<Message>, steps: Vec<StepRow>) {
    let mut round = 0;
    let mut calls_at = 0;
    for step in steps {
        if step.round != round {
            round = step.round;
            calls_at = messages.len();
            messages.push(Message::text(Role::Assistant, step.said));
        }
        let call = ToolCall { id: step.tool_id.clone(), name: step.tool, arguments: step.arguments };
        messages[calls_at].tool_calls.push(call);
        let mut result = Message::text(Role::Tool, step.result);
        result.tool_call_id = Some(step.tool_id);
        messages.push(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_become_rounds() {
        let step = |round, id: &str, said: &str| StepRow {
            turn_id: 1,
            round,
            tool_id: id.into(),
            tool: "t".into(),
            arguments: "{}".into(),
            said: said.into(),
            result: format!("result {id}"),
            failed: false,
            duration_ms: 0,
            position: 0,
            server: String::new(),
        };
        let mut messages = Vec::new();
        push_steps(&mut messages, vec![step(1, "a", "let me look"), step(1, "b", ""), step(2, "c", "")]);
        let shape: Vec<(Role, usize, &str)> =
            messages.iter().map(|m| (m.role, m.tool_calls.len(), m.content.as_str())).collect();
        assert_eq!(
            shape,
            [
                (Role::Assistant, 2, "let me look"),
                (Role::Tool, 0, "result a"),
                (Role::Tool, 0, "result b"),
                (Role::Assistant, 1, ""),
                (Role::Tool, 0, "result c"),
            ]
        );
    }
}
