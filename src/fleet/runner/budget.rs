//! Keeping a prompt within a model's window, by estimate: models behind a gateway do not say how large theirs is.

use crate::llm::{Message, Role, ToolSpec};

/// Bytes per token, on the safe side: JSON has about three, prose four.
const BYTES_PER_TOKEN: usize = 3;

/// What a message costs beside its text.
const MESSAGE_TOKENS: usize = 6;

/// A result is not cut below this: less says nothing.
const RESULT_BYTES_MIN: usize = 1024;

const CUT: &str = "\n[cut: the conversation is near the end of the model's window]";

/// Estimated tokens of a prompt.
pub(super) fn tokens(messages: &[Message]) -> usize {
    messages.iter().map(of_message).sum()
}

fn of_message(message: &Message) -> usize {
    let calls: usize = message.tool_calls.iter().map(|call| call.name.len() + call.arguments.len() + 24).sum();
    (message.content.len() + calls) / BYTES_PER_TOKEN + MESSAGE_TOKENS
}

/// Estimated tokens of what a model is told about its tools.
pub(super) fn of_tools(tools: &[ToolSpec]) -> usize {
    let bytes = |tool: &ToolSpec| tool.name.len() + tool.description.len() + tool.parameters.to_string().len() + 40;
    tools.iter().map(bytes).sum::<usize>() / BYTES_PER_TOKEN
}

/// Drops the oldest parts until the estimate is within `tokens_max`: earlier turns, then rounds of this one, each with
/// its calls and results together; then the longest results are cut. The system prompt, the last message of the user
/// and the newest round stay. True when something was dropped.
pub(super) fn fit(messages: &mut Vec<Message>, tokens_max: usize) -> bool {
    let mut changed = false;
    while tokens(messages) > tokens_max {
        let dropped = drop_turn(messages) || drop_round(messages) || cut_result(messages);
        if !dropped {
            break;
        }
        changed = true;
    }
    changed
}

/// Keeps at most so many messages, the newest, from a message of the user on.
pub(super) fn keep_last(history: &mut Vec<Message>, messages_max: usize) {
    let mut start = history.len().saturating_sub(messages_max);
    while history.get(start).is_some_and(|message| message.role != Role::User) {
        start += 1;
    }
    // A single turn longer than the limit is kept as what was asked and what was answered.
    if start >= history.len()
        && let Some(asked) = history.iter().rposition(|message| message.role == Role::User)
    {
        start = asked;
        let last = history.len() - 1;
        if last > asked {
            history.drain(asked + 1..last);
        }
    }
    history.drain(..start);
}

/// The oldest turn before the current one.
fn drop_turn(messages: &mut Vec<Message>) -> bool {
    let is_user = |message: &Message| message.role == Role::User;
    let Some(first) = messages.iter().position(is_user) else { return false };
    let Some(next) = messages[first + 1..].iter().position(is_user).map(|at| first + 1 + at) else { return false };
    // The request to come to an end belongs to the turn that it ends.
    let ends_turn = next + 1 == messages.len() && messages[next - 1].role == Role::Tool;
    if ends_turn {
        return false;
    }
    messages.drain(first..next);
    true
}

/// The oldest round of the current turn, unless it is the newest.
fn drop_round(messages: &mut Vec<Message>) -> bool {
    let calls = |message: &Message| !message.tool_calls.is_empty();
    let Some(first) = messages.iter().position(calls) else { return false };
    let Some(next) = messages[first + 1..].iter().position(calls).map(|at| first + 1 + at) else { return false };
    messages.drain(first..next);
    true
}

/// Halves the longest result.
fn cut_result(messages: &mut [Message]) -> bool {
    let results = messages.iter_mut().filter(|message| message.role == Role::Tool);
    let Some(longest) = results.max_by_key(|message| message.content.len()) else { return false };
    if longest.content.len() <= RESULT_BYTES_MIN {
        return false;
    }
    let text = longest.content.strip_suffix(CUT).unwrap_or(&longest.content);
    longest.content = format!("{}{CUT}", crate::rt::text::cut(text, text.len() / 2));
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::ToolCall;

    fn message(role: Role, n_bytes: usize) -> Message {
        Message::text(role, "x".repeat(n_bytes))
    }

    fn round(n_bytes: usize) -> [Message; 2] {
        let call = ToolCall { id: "c".into(), name: "host_cpu".into(), arguments: "{}".into() };
        let asked = Message { tool_calls: vec![call], ..message(Role::Assistant, 0) };
        [asked, Message { tool_call_id: Some("c".into()), ..message(Role::Tool, n_bytes) }]
    }

    fn roles(messages: &[Message]) -> String {
        let letter = |message: &Message| match message.role {
            Role::System => 's',
            Role::User => 'u',
            Role::Assistant => 'a',
            Role::Tool => 't',
        };
        messages.iter().map(letter).collect()
    }

    #[test]
    fn the_oldest_goes_first_and_calls_stay_with_their_results() {
        let mut messages = vec![message(Role::System, 300)];
        for _ in 0..2 {
            messages.push(message(Role::User, 3000));
            messages.extend(round(3000));
            messages.push(message(Role::Assistant, 3000));
        }
        messages.push(message(Role::User, 300));
        messages.extend(round(3000));
        messages.extend(round(3000));
        let check = |tokens_max: usize, expected: &str| {
            let mut messages = messages.clone();
            fit(&mut messages, tokens_max);
            assert_eq!(roles(&messages), expected, "{tokens_max}");
            assert!(tokens(&messages) <= tokens_max, "{tokens_max}");
        };
        check(100_000, "suatauatauatat");
        check(6_000, "suatauatat");
        check(3_000, "suatat");
        check(1_500, "suat");
        check(700, "suat");
    }

    #[test]
    fn the_request_to_end_stays_with_its_turn() {
        let mut messages = vec![message(Role::System, 30), message(Role::User, 30)];
        messages.extend(round(9000));
        messages.push(message(Role::User, 30));
        fit(&mut messages, 1000);
        assert_eq!(roles(&messages), "suatu");
        assert!(tokens(&messages) <= 1000 && messages[3].content.ends_with(CUT));
    }

    #[test]
    fn what_cannot_shrink_ends_the_search() {
        let mut messages = vec![message(Role::System, 9000), message(Role::User, 9000)];
        assert!(!fit(&mut messages, 100));
        assert_eq!(messages.len(), 2);
    }

    #[test]
    fn a_history_begins_with_a_question() {
        let mut history = Vec::new();
        for _ in 0..12 {
            history.push(message(Role::User, 1));
            history.extend(round(1));
            history.push(message(Role::Assistant, 1));
        }
        keep_last(&mut history, 10);
        assert_eq!(roles(&history), "uatauata");
        let mut long = vec![message(Role::User, 1)];
        (0..30).for_each(|_| long.extend(round(1)));
        long.push(message(Role::Assistant, 7));
        keep_last(&mut long, 40);
        assert_eq!(roles(&long), "ua");
        assert_eq!(long[1].content.len(), 7);
        let mut empty = Vec::new();
        keep_last(&mut empty, 40);
        assert!(empty.is_empty());
    }
}
