//! The provider against a scripted peer that speaks Anthropic's wire.

use serde_json::{Value, json};

use super::*;
use crate::config::{ProviderConfig, ProviderKind};
use crate::net::test_peer::{LONG, Peer, Step, TIMEOUTS, chunk, end, stream_head, whole};

#[derive(Default)]
struct Heard {
    text: Vec<String>,
    thinking: String,
    hidden: usize,
    usage: Usage,
}

impl Sink for Heard {
    fn text(&mut self, piece: &str) {
        self.text.push(piece.to_owned());
    }
    fn thinking(&mut self, piece: &str) {
        self.thinking.push_str(piece);
    }
    fn hidden(&mut self, n_bytes: usize) {
        self.hidden += n_bytes;
    }
    fn usage(&mut self, usage: &Usage) {
        self.usage = *usage;
    }
}

fn provider(peer: &Peer, suffix: &str) -> AnthropicProvider {
    let config = ProviderConfig {
        name: "anthropic".to_owned(),
        kind: ProviderKind::Anthropic,
        api_key: Some("sk-ant".to_owned()),
        base_url: Some(peer.url() + suffix),
        organization: None,
        is_free: false,
        max_tokens: None,
        num_ctx: None,
    };
    AnthropicProvider::new(&config, TIMEOUTS).unwrap()
}

fn ask(provider: &AnthropicProvider, stream: bool) -> (Result<Completion, LlmError>, Heard) {
    let messages = [Message::text(Role::System, "be kind"), Message::text(Role::User, "hi")];
    let mut heard = Heard::default();
    let tools = [ToolSpec { name: "look".into(), description: "looks".into(), parameters: json!({"type": "object"}) }];
    let request = Request { model: "claude", messages: &messages, tools: &tools, stream };
    (provider.complete(request, &mut heard, &Cancel::new()), heard)
}

fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap())
}

fn start() -> String {
    let usage = json!({"input_tokens": 10, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 7,
        "output_tokens": 1});
    event(&json!({"type": "message_start", "message": {"model": "claude-1", "content": [], "usage": usage}}))
}

fn block(index: u64, block: Value) -> String {
    event(&json!({"type": "content_block_start", "index": index, "content_block": block}))
}

fn delta(index: u64, delta: Value) -> String {
    event(&json!({"type": "content_block_delta", "index": index, "delta": delta}))
}

fn text(index: u64, text: &str) -> String {
    delta(index, json!({"type": "text_delta", "text": text}))
}

fn stop(reason: &str) -> String {
    event(&json!({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 42}}))
        + &event(&json!({"type": "message_stop"}))
}

/// Streams these bytes in pieces of `size`, one chunk of the transfer coding each.
fn stream_in(bytes: &str, size: usize) -> (Result<Completion, LlmError>, Heard) {
    let mut steps = vec![stream_head()];
    steps.extend(bytes.as_bytes().chunks(size).map(chunk));
    steps.push(end());
    ask(&provider(&Peer::one(steps), ""), true)
}

fn stream(bytes: &str) -> (Result<Completion, LlmError>, Heard) {
    stream_in(bytes, usize::MAX)
}

/// Text, then two calls whose pieces come mixed, then text again.
fn rich() -> String {
    let input = |index: u64, json: &str| delta(index, json!({"type": "input_json_delta", "partial_json": json}));
    start()
        + &event(&json!({"type": "ping"}))
        + &block(0, json!({"type": "thinking", "thinking": ""}))
        + &delta(0, json!({"type": "thinking_delta", "thinking": "hmm"}))
        + &delta(0, json!({"type": "signature_delta", "signature": "x"}))
        + &block(1, json!({"type": "text", "text": ""}))
        + &text(1, "Grüße 🦀")
        + &block(3, json!({"type": "tool_use", "id": "b", "name": "two", "input": {}}))
        + &block(2, json!({"type": "tool_use", "id": "a", "name": "one", "input": {}}))
        + &input(3, "{\"x\":")
        + &input(2, "")
        + &input(3, "\"ü\"}")
        + &event(&json!({"type": "content_block_stop", "index": 3}))
        + &block(4, json!({"type": "text", "text": "!"}))
        + &event(&json!({"type": "from_the_future", "index": 9}))
        + &stop("tool_use")
}

fn check_rich(result: Result<Completion, LlmError>) {
    let done = result.unwrap();
    assert_eq!(done.text, "Grüße 🦀!");
    assert_eq!(done.model, "claude-1");
    assert_eq!(done.usage, Usage { input_tokens: 15, output_tokens: 42, cached_tokens: 7, cost_usd: None });
    let calls: Vec<_> = done.tool_calls.iter().map(|c| (&c.id[..], &c.name[..], &c.arguments[..])).collect();
    assert_eq!(calls, [("b", "two", "{\"x\":\"ü\"}"), ("a", "one", "{}")]);
}

#[test]
fn blocks_in_any_order_are_put_together_wherever_the_bytes_are_split() {
    let (result, heard) = stream(&rich());
    check_rich(result);
    assert_eq!(heard.text, ["Grüße 🦀", "!"]);
    assert_eq!(heard.thinking, "hmm");
    assert_eq!(heard.hidden, "onetwo{\"x\":\"ü\"}".len());
    for size in [1, 7] {
        check_rich(stream_in(&rich(), size).0);
    }
    check_rich(stream(&rich().replace('\n', "\r\n")).0);
}

#[test]
fn a_stream_without_its_stop_is_cut_wherever_it_ends() {
    let whole_stream = rich();
    let ends: Vec<usize> = whole_stream.match_indices("\n\n").map(|(at, _)| at + 2).collect();
    // After each event but the last, and in the middle of each.
    for at in ends[..ends.len() - 1].iter().flat_map(|end| [*end, end - 9]) {
        let cut_at = (0..=at).rev().find(|at| whole_stream.is_char_boundary(*at)).unwrap();
        let steps = vec![stream_head(), chunk(&whole_stream[..cut_at]), Step::Cut];
        let (result, _) = ask(&provider(&Peer::one(steps), ""), true);
        assert!(matches!(result, Err(LlmError::Cut { .. })), "{cut_at}: {result:?}");
    }
    // A polite end is no better.
    let (result, heard) = stream(&(start() + &text(0, "half")));
    assert!(matches!(result, Err(LlmError::Cut { .. })), "{result:?}");
    assert_eq!(heard.usage.input_tokens, 15);
    assert!(matches!(stream("").0, Err(LlmError::Cut { .. })));
    // The connection may die right behind the stop.
    let steps = vec![stream_head(), chunk(whole_stream), Step::Cut];
    check_rich(ask(&provider(&Peer::one(steps), ""), true).0);
}

#[test]
fn errors_in_a_stream_are_statuses() {
    let check = |kind: &str, expected: u16| {
        let error = json!({"type": "error", "error": {"type": kind, "message": "m"}});
        let (result, heard) = stream(&(start() + &text(0, "a") + &event(&error)));
        let Err(LlmError::Status { status, message, .. }) = result else { panic!("{result:?}") };
        assert_eq!((status, message), (expected, format!("{kind}: m")));
        assert_eq!(heard.text, ["a"]);
    };
    check("overloaded_error", 503);
    check("rate_limit_error", 429);
    check("api_error", 500);
    check("authentication_error", 401);
    check("permission_error", 403);
    check("not_found_error", 404);
    check("invalid_request_error", 400);
    check("request_too_large", 413);
    check("billing_error", 402);
    check("some_new_error", 500);
}

#[test]
fn one_body_is_understood_and_what_is_asked_follows_the_contract() {
    let body = json!({"type": "message", "model": "claude-1", "stop_reason": "tool_use",
        "content": [{"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "a", "name": "look", "input": {"x": 1}},
            {"type": "tool_use", "id": "a", "name": "look", "input": {}}],
        "usage": {"input_tokens": 3, "output_tokens": 4}});
    for (suffix, stream) in [("", false), ("/", true), ("/v1", false), ("/v1/messages", false)] {
        let peer = Peer::one(vec![whole("200 OK", "", &body.to_string())]);
        let (result, heard) = ask(&provider(&peer, suffix), stream);
        let done = result.unwrap();
        assert_eq!(done.text, "I look.");
        assert_eq!((&done.tool_calls[0].arguments[..], &done.tool_calls[1].arguments[..]), ("{\"x\":1}", "{}"));
        assert_ne!(done.tool_calls[0].id, done.tool_calls[1].id);
        assert_eq!(done.usage, Usage { input_tokens: 3, output_tokens: 4, ..Usage::default() });
        assert_eq!(heard.text.len(), usize::from(stream));
        let (head, asked) = peer.requests.recv_timeout(LONG).unwrap();
        assert!(head.starts_with("POST /v1/messages HTTP/1.1\r\n"), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("x-api-key: sk-ant\r\n") && head.contains("anthropic-version: 2023-06-01\r\n"));
        let mut expected = json!({"model": "claude", "max_tokens": 32_000, "system": "be kind",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            "tools": [{"name": "look", "description": "looks", "input_schema": {"type": "object"}}]});
        if stream {
            expected["stream"] = Value::Bool(true);
        }
        assert_eq!(asked, expected);
    }
}

#[test]
fn a_full_answer_says_so_and_a_smaller_model_is_asked_for_less() {
    let (result, heard) = stream(&(start() + &text(0, "long") + &stop("max_tokens")));
    let said = result.unwrap().text;
    assert!(said.starts_with("long\n\n[The answer ends here") && said.contains("32000"), "{said}");
    assert_eq!(heard.text.concat(), said);
    let half = delta(0, json!({"type": "input_json_delta", "partial_json": "{\"x\":"}));
    let call = block(0, json!({"type": "tool_use", "id": "a", "name": "one", "input": {}}));
    let (result, _) = stream(&(start() + &call + &half + &stop("max_tokens")));
    assert!(matches!(result, Err(LlmError::Decode { .. })), "{result:?}");

    let refusal = json!({"type": "error", "error": {"type": "invalid_request_error",
        "message": "max_tokens: 32000 > 8192, which is the maximum allowed number of output tokens for claude"}});
    let refusal = vec![whole("400 Bad Request", "", &refusal.to_string())];
    let answer = || vec![stream_head(), chunk(start() + &text(0, "ok") + &stop("end_turn")), end()];
    let peer = Peer::new(vec![refusal, answer(), answer()]);
    let provider = provider(&peer, "");
    for _ in 0..2 {
        assert_eq!(ask(&provider, true).0.unwrap().text, "ok");
    }
    let asked: Vec<Value> = (0..3).map(|_| peer.requests.recv_timeout(LONG).unwrap().1["max_tokens"].clone()).collect();
    assert_eq!(asked, [json!(32_000), json!(8192), json!(8192)]);
}

#[test]
fn refusals_carry_their_words_without_our_key() {
    let check = |status: &str, extra: &str, message: &str, expected: LlmError| {
        let body = json!({"type": "error", "error": {"type": "x", "message": message}}).to_string();
        let peer = Peer::one(vec![whole(status, extra, &body)]);
        assert_eq!(ask(&provider(&peer, ""), true).0, Err(expected));
    };
    let status = |status: u16, message: &str, after: Option<u64>| LlmError::Status {
        status,
        message: message.to_owned(),
        retry_after: after.map(Duration::from_secs),
    };
    check("401 No", "", "bad key sk-ant", status(401, "x: bad key [key]", None));
    check("429 Slow", "Retry-After: 3\r\n", "slow", status(429, "x: slow", Some(3)));
    check("529 Busy", "", "busy", status(529, "x: busy", None));
    let poor = "Your credit balance is too low to use the API";
    check("400 Bad", "", poor, status(402, &format!("x: {poor}"), None));
}

#[test]
fn models_are_listed_page_by_page() {
    let page = |ids: &[&str], more: bool| {
        let data: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
        let body = json!({"data": data, "has_more": more, "last_id": ids.last()});
        vec![whole("200 OK", "", &body.to_string())]
    };
    let peer = Peer::new(vec![page(&["a", "b"], true), page(&["c"], false)]);
    assert_eq!(provider(&peer, "").models(&Cancel::new()).unwrap(), ["a", "b", "c"]);
    let heads: Vec<String> = (0..2).map(|_| peer.requests.recv_timeout(LONG).unwrap().0).collect();
    assert!(heads[0].starts_with("GET /v1/models?limit=1000 HTTP/1.1\r\n"), "{heads:?}");
    assert!(heads[1].starts_with("GET /v1/models?limit=1000&after_id=b HTTP/1.1\r\n"), "{heads:?}");
}
