//! The provider against a scripted peer on a real socket.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use serde_json::{Value, json};

use super::reading::Assembly as _;
use super::*;
use crate::config::{ProviderConfig, ProviderKind};
use crate::net::Timeouts;
use crate::net::test_peer::{LONG, Peer, STACK_BYTES, Step, TIMEOUTS, chunk, end, send, stream_head, whole};
use crate::rt::Threads;

fn provider(peer: &Peer) -> OpenAiProvider {
    provider_with(peer, TIMEOUTS)
}

fn provider_with(peer: &Peer, timeouts: Timeouts) -> OpenAiProvider {
    OpenAiProvider::new(&config(ProviderKind::OpenAi, &peer.url()), timeouts).unwrap()
}

fn config(kind: ProviderKind, base: &str) -> ProviderConfig {
    ProviderConfig {
        name: "openai".to_owned(),
        kind,
        api_key: Some("sk-secret".to_owned()),
        base_url: Some(base.to_owned()),
        organization: None,
        is_free: false,
        max_tokens: None,
        num_ctx: None,
    }
}

fn delta(delta: &Value) -> String {
    format!("data: {}\n\n", json!({"model": "m-1", "choices": [{"index": 0, "delta": delta}]}))
}

fn finish(reason: &str) -> String {
    format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
}

const DONE: &str = "data: [DONE]\n\n";

#[derive(Default)]
struct Heard {
    text: Vec<String>,
    thinking: String,
    hidden: usize,
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
}

fn ask(provider: &OpenAiProvider, stream: bool) -> (Result<Completion, LlmError>, Heard) {
    ask_with(provider, stream, &Cancel::new())
}

fn ask_with(provider: &OpenAiProvider, stream: bool, cancel: &Cancel) -> (Result<Completion, LlmError>, Heard) {
    let messages = [Message::text(Role::User, "hi")];
    let mut heard = Heard::default();
    let request = Request { model: "m", messages: &messages, tools: &[], stream };
    (provider.complete(request, &mut heard, cancel), heard)
}

/// Streams these pieces, one chunk of the transfer coding each.
fn stream(pieces: &[&str]) -> (Result<Completion, LlmError>, Heard) {
    let mut steps = vec![stream_head()];
    steps.extend(pieces.iter().map(chunk));
    steps.push(end());
    ask(&provider(&Peer::one(steps)), true)
}

#[test]
fn a_stream_is_put_together() {
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 4}, "cost": 0.25}});
    let (result, heard) = stream(&[
        ": comment\n\n",
        &(delta(&json!({"role": "assistant", "content": ""})) + &delta(&json!({"reasoning_content": "hmm"}))),
        &(delta(&json!({"content": "Hel"})) + &delta(&json!({"content": "lo"}))),
        "data: not json\n\n",
        &finish("stop"),
        &format!("data: {usage}\n\n{DONE}"),
    ]);
    let usage = Usage { input_tokens: 6, output_tokens: 3, cached_tokens: 4, cost_usd: Some(0.25) };
    let expected = Completion { text: "Hello".into(), tool_calls: vec![], usage, model: "m-1".into() };
    assert_eq!(result, Ok(expected));
    assert_eq!(heard.text, ["Hel", "lo"]);
    assert_eq!(heard.thinking, "hmm");
}

#[test]
fn bytes_may_be_split_anywhere_and_lines_end_in_crlf() {
    let text = (delta(&json!({"content": "grüße 🦀"})) + &finish("stop") + DONE).replace('\n', "\r\n");
    for size in [1, 2, 3, 7] {
        let mut steps = vec![stream_head()];
        steps.extend(text.as_bytes().chunks(size).map(chunk));
        steps.push(end());
        assert_eq!(ask(&provider(&Peer::one(steps)), true).0.unwrap().text, "grüße 🦀");
    }
}

#[test]
fn what_is_asked_follows_the_contract() {
    let body = r#"{"choices":[{"message":{"content":"ok"},"finish_reason":"stop"}]}"#;
    let peer = Peer::new(vec![vec![whole("200 OK", "", body)], vec![whole("200 OK", "", body)]]);
    let provider = provider(&peer);
    let call = ToolCall { id: "c1".into(), name: "look".into(), arguments: String::new() };
    let messages = [
        Message::text(Role::System, "s"),
        Message { tool_calls: vec![call], ..Message::text(Role::Assistant, "") },
        Message { tool_call_id: Some("c1".into()), ..Message::text(Role::Tool, "seen") },
    ];
    let tools = [ToolSpec { name: "look".into(), description: "looks".into(), parameters: json!({"type": "object"}) }];
    let request = Request { model: "m", messages: &messages, tools: &tools, stream: true };
    assert_eq!(provider.complete(request, &mut Heard::default(), &Cancel::new()).unwrap().text, "ok");
    let (head, asked) = peer.requests.recv_timeout(LONG).unwrap();
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("authorization: bearer sk-secret\r\n"), "{head}");
    let expected = json!({
        "model": "m", "stream": true, "stream_options": {"include_usage": true},
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "assistant", "content": "",
             "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
            {"role": "tool", "content": "seen", "tool_call_id": "c1"},
        ],
        "tools": [{"type": "function",
                   "function": {"name": "look", "description": "looks", "parameters": {"type": "object"}}}],
    });
    assert_eq!(asked, expected);
    ask(&provider, false).0.unwrap();
    let (_, asked) = peer.requests.recv_timeout(LONG).unwrap();
    assert_eq!(asked, json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}));
}

#[test]
fn json_is_understood_whether_or_not_a_stream_was_asked_for() {
    let check = |message: Value, stream: bool, text: &str, heard_text: &[&str], heard_thinking: &str| {
        let body = json!({"model": "m-1", "choices": [{"message": message, "finish_reason": "stop"}]}).to_string();
        let (result, heard) = ask(&provider(&Peer::one(vec![whole("200 OK", "", &body)])), stream);
        assert_eq!(result.unwrap().text, text);
        assert_eq!(heard.text, heard_text);
        assert_eq!(heard.thinking, heard_thinking);
    };
    check(json!({"content": "a"}), false, "a", &[], "");
    check(json!({"content": "a", "reasoning": "r"}), true, "a", &["a"], "r");
    check(json!({"content": null, "tool_calls": null, "refusal": "no"}), false, "no", &[], "");
    let blocks = json!([{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "t"},
        {"type": "other", "content": "b"}, {"type": "image"}]);
    check(json!({"content": blocks}), true, "ab", &["ab"], "t");
}

#[test]
fn tool_calls_are_merged_by_index_in_any_order() {
    let call = |value: Value| delta(&json!({"tool_calls": [value]}));
    let check = |deltas: &[Value], reason: &str, expected: &[(&str, &str, &str)]| {
        let stream_text: String = deltas.iter().map(|d| call(d.clone())).collect::<String>() + &finish(reason) + DONE;
        let (done, heard) = stream(&[&stream_text]);
        let calls = done.unwrap().tool_calls;
        let calls: Vec<_> = calls.iter().map(|c| (c.id.as_str(), c.name.as_str(), c.arguments.as_str())).collect();
        assert_eq!(calls, expected);
        assert_eq!(heard.hidden, calls.iter().map(|call| call.1.len() + call.2.len()).sum::<usize>());
    };
    check(
        &[
            json!({"index": 1, "id": "b", "type": "function", "function": {"name": "two", "arguments": ""}}),
            json!({"index": 0, "id": "a", "function": {"name": "one", "arguments": "{\"x\""}}),
            json!({"index": 1, "function": {"arguments": "{}"}}),
            json!({"index": 0, "id": null, "function": {"name": null, "arguments": ":1}"}}),
        ],
        "tool_calls",
        &[("a", "one", "{\"x\":1}"), ("b", "two", "{}")],
    );
    // Everything at index 0, or without one, and the wrong finish reason.
    check(
        &[
            json!({"index": 0, "id": "a", "function": {"name": "one", "arguments": "{}"}}),
            json!({"index": 0, "id": "b", "function": {"name": "two", "arguments": {"y": 2}}}),
        ],
        "stop",
        &[("a", "one", "{}"), ("b", "two", "{\"y\":2}")],
    );
    check(
        &[
            json!({"id": "a", "function": {"name": "one", "arguments": "{"}}),
            json!({"function": {"arguments": "}"}}),
            json!({"id": "b", "function": {"name": "two"}}),
        ],
        "stop",
        &[("a", "one", "{}"), ("b", "two", "")],
    );
}

#[test]
fn missing_and_repeated_ids_are_made_unique() {
    let calls = json!([
        {"index": 0, "function": {"name": "one", "arguments": "{}"}},
        {"index": 1, "id": "x", "function": {"name": "two", "arguments": "{}"}},
        {"index": 2, "id": "x", "function": {"name": "three", "arguments": "{}"}},
    ]);
    let calls = stream(&[&delta(&json!({"tool_calls": calls})), &finish("tool_calls"), DONE]).0.unwrap().tool_calls;
    assert!(calls[0].id.starts_with("call_") && calls[2].id.starts_with("call_"), "{calls:?}");
    assert_eq!(calls[1].id, "x");
    assert_ne!(calls[0].id, calls[2].id);
    let nameless = json!({"tool_calls": [{"index": 0, "id": "x", "function": {"arguments": "{}"}}]});
    assert!(matches!(stream(&[&delta(&nameless), DONE]).0, Err(LlmError::Decode { .. })));
}

#[test]
fn an_answer_without_its_end_is_cut_never_blank() {
    let hello = delta(&json!({"content": "hello"}));
    assert!(matches!(stream(&[&hello]).0, Err(LlmError::Cut { .. })));
    assert!(matches!(stream(&[": only a comment\n\n"]).0, Err(LlmError::Cut { .. })));
    assert!(matches!(stream(&[]).0, Err(LlmError::Cut { .. })));
    assert!(matches!(stream(&[DONE]).0, Err(LlmError::Decode { .. })));
    assert!(matches!(stream(&["<html>\n<p>log in</p>\n"]).0, Err(LlmError::Decode { .. })));
    // Either end mark is enough, also when the connection dies right after it.
    assert_eq!(stream(&[&hello, DONE]).0.unwrap().text, "hello");
    assert_eq!(stream(&[&hello, finish("stop").trim_end()]).0.unwrap().text, "hello");
    let after_finish = vec![stream_head(), chunk(hello.clone() + &finish("stop")), Step::Cut];
    assert_eq!(ask(&provider(&Peer::one(after_finish)), true).0.unwrap().text, "hello");
    let in_a_frame = vec![stream_head(), chunk(&hello), send("40\r\ndata: {\"cho"), Step::Cut];
    let (result, heard) = ask(&provider(&Peer::one(in_a_frame)), true);
    assert!(matches!(result, Err(LlmError::Cut { .. })), "{result:?}");
    assert_eq!(heard.text, ["hello"]);
    let cut_json = vec![send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"choices\":["), Step::Cut];
    assert!(matches!(ask(&provider(&Peer::one(cut_json)), false).0, Err(LlmError::Cut { .. })));
    let garbage = vec![send("\u{1}\u{2}nothing of http\r\n\r\n"), Step::Cut];
    let result = ask(&provider(&Peer::one(garbage)), true).0;
    assert!(matches!(result, Err(LlmError::Decode { .. } | LlmError::Cut { .. })), "{result:?}");
    assert!(matches!(ask(&provider(&Peer::one(vec![Step::Cut])), true).0, Err(LlmError::Cut { .. })));
}

#[test]
fn errors_in_a_stream_are_statuses() {
    let check = |text: &str, status: u16, message: &str| {
        let expected = LlmError::Status { status, message: message.to_owned(), retry_after: None };
        assert_eq!(stream(&[&delta(&json!({"content": "a"})), text]).0, Err(expected));
    };
    check("event: error\ndata: {\"error\":{\"message\":\"overheated\"}}\n\n", 400, "overheated");
    check("data: {\"error\":{\"message\":\"slow\",\"code\":429}}\n\n", 429, "slow");
    check("data: {\"choices\":7,\"error\":\"odd\"}\n\n", 400, "odd");
}

#[test]
fn error_statuses_carry_message_and_wait() {
    let check = |status: &str, extra: &str, body: &str, expected: (u16, &str, Option<u64>)| {
        let (status, message, wait) =
            match ask(&provider(&Peer::one(vec![whole(status, extra, body)])), true).0.unwrap_err() {
                LlmError::Status { status, message, retry_after } => (status, message, retry_after),
                other => panic!("{other:?}"),
            };
        assert_eq!((status, message.as_str(), wait.map(|w| w.as_secs())), expected);
    };
    check("401 Unauthorized", "", r#"{"error":{"message":"bad key sk-secret"}}"#, (401, "bad key [key]", None));
    check("429 Slow", "Retry-After: 7\r\n", r#"{"error":{"message":"slow"}}"#, (429, "slow", Some(7)));
    check("429 Slow", "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", "slow", (429, "slow", Some(0)));
    check("404 No", "", r#"{"error":"model 'm' not found"}"#, (404, "model 'm' not found", None));
    check("502 Bad", "", "<html>bad</html>", (502, "the server answered with a web page", None));
    check("302 Found", "Location: http://other.example/\r\n", "", (302, "", None));
    let long = "x".repeat(100_000);
    check("500 Oops", "Connection: close\r\n", &long, (500, &long[..ERROR_TEXT_LEN], None));
}

const ERROR_TEXT_LEN: usize = 4096;

#[test]
fn answers_are_bounded_and_long_lines_pass() {
    let long = "x".repeat(300 * 1024);
    assert_eq!(stream(&[&delta(&json!({"content": long})), DONE]).0.unwrap().text.len(), long.len());
    let endless_line = vec![stream_head(), chunk(vec![b'x'; 1024 * 1024 + 9]), Step::Stall];
    assert!(matches!(ask(&provider(&Peer::one(endless_line)), true).0, Err(LlmError::TooLarge { .. })));
    let mut flood = vec![stream_head()];
    flood.extend((0..40).map(|_| chunk(delta(&json!({"content": "x".repeat(512 * 1024)})))));
    flood.push(Step::Stall);
    let result = ask(&provider(&Peer::one(flood)), true).0;
    assert_eq!(result, Err(LlmError::TooLarge { bytes_max: 16 * 1024 * 1024 }));
}

#[test]
fn each_phase_has_its_time_out() {
    let short = Duration::from_millis(40);
    let check = |steps: Vec<Step>, change: fn(&mut Timeouts, Duration), phase: Phase| {
        let mut timeouts = TIMEOUTS;
        change(&mut timeouts, short);
        let started = Instant::now();
        let result = ask(&provider_with(&Peer::one(steps), timeouts), true).0;
        assert_eq!(result, Err(LlmError::Timeout { phase, after: short }));
        assert!(started.elapsed() < LONG / 4);
    };
    let hello = || chunk(delta(&json!({"content": "hello"})));
    check(vec![Step::Stall], |t, d| t.first_byte = d, Phase::FirstByte);
    check(vec![stream_head(), Step::Stall], |t, d| t.first_byte = d, Phase::FirstByte);
    check(vec![send("HTTP/1.1 200"), Step::Stall], |t, d| t.first_byte = d, Phase::FirstByte);
    check(vec![stream_head(), hello(), Step::Stall], |t, d| t.idle = d, Phase::Idle);
    check(vec![stream_head(), hello(), Step::Stall], |t, d| t.total = Some(d), Phase::Total);
    check(vec![Step::Stall], |t, d| t.total = Some(d), Phase::Total);
    // A slow beginning is not an idle answer.
    let timeouts = Timeouts { connect: LONG, first_byte: LONG, idle: Duration::from_nanos(1), total: Some(LONG) };
    let peer = Peer::one(vec![whole("200 OK", "", r#"{"choices":[{"message":{"content":"ok"}}]}"#)]);
    assert_eq!(ask(&provider_with(&peer, timeouts), false).0.unwrap().text, "ok");
}

#[test]
fn a_peer_that_is_not_there_is_unreachable() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let timeouts = TIMEOUTS;
    let check = |base: &str| {
        let provider = OpenAiProvider::new(&config(ProviderKind::OpenAi, base), timeouts).unwrap();
        let result = ask(&provider, true).0;
        assert!(matches!(result, Err(LlmError::Connect { .. })), "{base}: {result:?}");
    };
    check(&format!("http://{addr}"));
    // A label that no name server is asked about: it is too long.
    check(&format!("http://{}.invalid", "x".repeat(64)));
    // Plain HTTP where TLS is expected.
    let threads = Threads::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain = listener.local_addr().unwrap();
    threads
        .spawn("plain", STACK_BYTES, move || {
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = socket.read(&mut [0; 4096]);
        })
        .unwrap();
    check(&format!("https://{plain}"));
    assert!(threads.join_all(LONG).is_empty());
}

#[test]
fn cancel_ends_a_blocked_read_at_once() {
    let check = |mut before: Vec<Step>, stream: bool| {
        let (sent_tx, sent_rx) = bounded(1);
        before.extend([Step::Signal(sent_tx), Step::Stall]);
        let peer = Peer::one(before);
        let provider = provider(&peer);
        let cancel = Cancel::new();
        let (cancelled_tx, cancelled_rx) = bounded(1);
        let (other, threads) = (cancel.clone(), Threads::new());
        threads
            .spawn("cancels", STACK_BYTES, move || {
                sent_rx.recv_timeout(LONG).unwrap();
                let at = Instant::now();
                other.cancel();
                cancelled_tx.send(at).unwrap();
            })
            .unwrap();
        let (result, _) = ask_with(&provider, stream, &cancel);
        let at = cancelled_rx.recv_timeout(LONG).unwrap();
        assert_eq!(result, Err(LlmError::Cancelled));
        assert!(at.elapsed() < LONG / 4, "{:?}", at.elapsed());
        assert!(threads.join_all(LONG).is_empty());
    };
    let hello = delta(&json!({"content": "hello"}));
    check(vec![], true);
    check(vec![stream_head()], true);
    check(vec![stream_head(), chunk(&hello)], true);
    // Without a length the shut socket looks like the end of the answer.
    check(vec![send(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{hello}"))], true);
    check(vec![send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"choices\":[{}]}")], false);
    check(vec![send("HTTP/1.1 500 Oops\r\nContent-Length: 10\r\n\r\nabc")], true);
}

#[test]
fn a_call_that_is_cancelled_before_it_begins_sends_nothing() {
    let peer = Peer::new(vec![]);
    let cancel = Cancel::new();
    cancel.cancel();
    assert_eq!(ask_with(&provider(&peer), true, &cancel).0, Err(LlmError::Cancelled));
    assert!(peer.requests.is_empty());
}

#[test]
fn connections_are_kept_and_dead_ones_replaced() {
    let answer = || vec![stream_head(), chunk(delta(&json!({"content": "ok"})) + DONE), end()];
    let ends = |mut steps: Vec<Step>| {
        steps.push(Step::Cut);
        steps
    };
    let peer = Peer::new(vec![answer(), ends(answer()), answer(), ends(answer())]);
    let provider = provider(&peer);
    for _ in 0..4 {
        assert_eq!(ask(&provider, true).0.unwrap().text, "ok");
    }
    // A cancelled call takes its own connection down and no other.
    let cancel = Cancel::new();
    cancel.cancel();
    assert_eq!(ask_with(&provider, true, &cancel).0, Err(LlmError::Cancelled));
}

#[test]
fn models_are_listed() {
    let check = |suffix: &str, path: &str| {
        let body = r#"{"data":[{"id":"a"},{"no":1},{"id":"b"}]}"#;
        let peer = Peer::one(vec![whole("200 OK", "", body)]);
        let base = format!("http://{}{suffix}", peer.addr);
        let timeouts = TIMEOUTS;
        let provider = OpenAiProvider::new(&config(ProviderKind::OpenAi, &base), timeouts).unwrap();
        assert_eq!(provider.models(&Cancel::new()).unwrap(), ["a", "b"]);
        let (head, _) = peer.requests.recv_timeout(LONG).unwrap();
        assert!(head.starts_with(&format!("GET {path} HTTP/1.1")), "{head}");
    };
    check("", "/v1/models");
    check("/", "/v1/models");
    check("/v1/", "/v1/models");
    check("/api/v3", "/api/v3/models");
    check("/v1/chat/completions", "/v1/models");
    check("/x?version=1", "/x/models?version=1");
}

#[test]
fn what_cannot_work_is_refused_when_it_is_set_up() {
    let timeouts = TIMEOUTS;
    let check = |base: &str, key: &str| {
        let config = ProviderConfig { api_key: Some(key.to_owned()), ..config(ProviderKind::OpenAi, base) };
        assert!(matches!(OpenAiProvider::new(&config, timeouts), Err(LlmError::Config { .. })), "{base} {key}");
    };
    check("localhost:11434", "k");
    check("ftp://host", "k");
    check("http://", "k");
    check("http://host", "two words");
    check("http://host", "line\nbreak");
}

#[test]
fn a_server_that_knows_no_stream_options_is_asked_without() {
    let refused = whole("400 Bad", "", r#"{"error":{"message":"unknown field stream_options"}}"#);
    let answer = || vec![stream_head(), chunk(delta(&json!({"content": "ok"})) + DONE), end()];
    let peer = Peer::new(vec![vec![refused], answer(), answer()]);
    let provider = provider(&peer);
    assert_eq!(ask(&provider, true).0.unwrap().text, "ok");
    assert_eq!(ask(&provider, true).0.unwrap().text, "ok");
    let asked: Vec<bool> =
        (0..3).map(|_| peer.requests.recv_timeout(LONG).unwrap().1.get("stream_options").is_some()).collect();
    assert_eq!(asked, [true, false, false]);
}

#[test]
fn a_stalled_tls_handshake_times_out_and_can_be_cancelled() {
    let stalled = |said_tx: Sender<()>| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let threads = Threads::new();
        threads
            .spawn("stalls", STACK_BYTES, move || {
                let (mut socket, _) = listener.accept().unwrap();
                let mut buffer = [0; 4096];
                // The client's greeting, then nothing until it hangs up.
                assert!(socket.read(&mut buffer).unwrap() > 0);
                let _ = said_tx.send(());
                while socket.read(&mut buffer).is_ok_and(|n| n > 0) {}
            })
            .unwrap();
        (format!("https://{addr}"), threads)
    };
    let short = Duration::from_millis(40);
    let (said_tx, _said_rx) = bounded(1);
    let (base, threads) = stalled(said_tx);
    let timeouts = Timeouts { connect: short, first_byte: LONG, idle: LONG, total: Some(LONG) };
    let provider = OpenAiProvider::new(&config(ProviderKind::OpenAi, &base), timeouts).unwrap();
    assert_eq!(ask(&provider, true).0, Err(LlmError::Timeout { phase: Phase::Connect, after: short }));
    assert!(threads.join_all(LONG).is_empty());

    let (said_tx, said_rx) = bounded(1);
    let (base, threads) = stalled(said_tx);
    let timeouts = Timeouts { connect: LONG, ..timeouts };
    let provider = OpenAiProvider::new(&config(ProviderKind::OpenAi, &base), timeouts).unwrap();
    let cancel = Cancel::new();
    let other = cancel.clone();
    let cancels = Threads::new();
    cancels
        .spawn("cancels", STACK_BYTES, move || {
            said_rx.recv_timeout(LONG).unwrap();
            other.cancel();
        })
        .unwrap();
    let started = Instant::now();
    assert_eq!(ask_with(&provider, true, &cancel).0, Err(LlmError::Cancelled));
    assert!(started.elapsed() < LONG / 4);
    assert!(threads.join_all(LONG).is_empty() && cancels.join_all(LONG).is_empty());
}

#[test]
fn openrouter_names_its_caller_asks_for_the_cost_and_tells_of_its_models() {
    let models = json!({"data": [
        {"id": "a/one", "name": "One", "pricing": {"prompt": "0.000003", "completion": "0.000015"},
         "supported_parameters": ["tools", "temperature"]},
        {"id": "b/two", "pricing": {"prompt": "-1", "completion": 0}},
        {"no": "id"}]});
    let answer = vec![stream_head(), chunk(delta(&json!({"content": "ok"})) + DONE), end()];
    let peer = Peer::new(vec![
        answer,
        vec![whole("200 OK", "", &models.to_string())],
        vec![whole("200 OK", "", r#"{"data":{"limit_remaining":1.5}}"#)],
        vec![whole("200 OK", "", r#"{"data":{"limit_remaining":null}}"#)],
    ]);
    let base = peer.url() + "/api/v1";
    let provider = OpenAiProvider::new(&config(ProviderKind::OpenRouter, &base), TIMEOUTS).unwrap();
    let cancel = Cancel::new();
    assert_eq!(ask(&provider, true).0.unwrap().text, "ok");
    let details = provider.model_details(&cancel).unwrap().unwrap();
    assert_eq!(provider.balance(&cancel), Ok(Some(1.5)));
    assert_eq!(provider.balance(&cancel), Ok(None));
    let (head, asked) = peer.requests.recv_timeout(LONG).unwrap();
    assert!(head.starts_with("POST /api/v1/chat/completions "), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("x-title: holt\r\n") && head.contains("http-referer: http"), "{head}");
    assert_eq!(asked["usage"], json!({"include": true}));
    let paths = ["GET /api/v1/models ", "GET /api/v1/key ", "GET /api/v1/key "];
    for path in paths {
        let (head, _) = peer.requests.recv_timeout(LONG).unwrap();
        assert!(head.starts_with(path), "{head}");
    }
    assert_eq!((&details[0].name[..], details[0].supports_tools), ("One", true));
    assert!((details[0].input_per_mtok.unwrap() - 3.0).abs() < 1e-9);
    assert!((details[0].output_per_mtok.unwrap() - 15.0).abs() < 1e-9);
    let two = &details[1];
    assert_eq!((&two.name[..], two.input_per_mtok, two.output_per_mtok), ("b/two", None, Some(0.0)));
    assert!(!two.supports_tools && details.len() == 2);
}

#[test]
fn an_answer_that_reached_its_length_says_so() {
    let (result, heard) = stream(&[&delta(&json!({"content": "long"})), &finish("length"), DONE]);
    let said = result.unwrap().text;
    assert!(said.starts_with("long\n\n[The answer ends here"), "{said}");
    assert_eq!(heard.text.concat(), said);
}

#[test]
fn tool_calls_may_be_split_at_every_byte() {
    let call = |value: Value| delta(&json!({"tool_calls": [value]}));
    let text = call(json!({"index": 0, "id": "a", "function": {"name": "one", "arguments": "{\"x\":\"gr"}}))
        + &call(json!({"index": 1, "id": "b", "function": {"name": "two", "arguments": ""}}))
        + &call(json!({"index": 0, "function": {"arguments": "ü\u{df}e 🦀\"}"}}))
        + &finish("tool_calls")
        + DONE;
    let check = |done: Completion| {
        let calls: Vec<_> = done.tool_calls.iter().map(|c| (&c.id[..], &c.name[..], &c.arguments[..])).collect();
        assert_eq!(calls, [("a", "one", "{\"x\":\"grüße 🦀\"}"), ("b", "two", "")]);
    };
    // Over the parser: cut in two at every byte, and byte by byte.
    let bytes = text.as_bytes();
    let cuts = (0..=bytes.len()).map(|at| vec![&bytes[..at], &bytes[at..]]);
    for pieces in cuts.chain([bytes.chunks(1).collect()]) {
        let mut parser = crate::net::sse::Parser::new(1 << 20);
        let mut assembler = crate::llm::openai_wire::Assembler::default();
        let mut ended = false;
        for piece in pieces {
            parser.push(piece);
            while let Some(event) = parser.next_event().unwrap() {
                ended = assembler.event(event.name, event.data, &mut Heard::default()).unwrap();
            }
        }
        assert!(ended);
        check(assembler.complete().unwrap());
    }
    // Over a socket.
    let mut steps = vec![stream_head()];
    steps.extend(bytes.chunks(1).map(chunk));
    steps.push(end());
    check(ask(&provider(&Peer::one(steps)), true).0.unwrap());
}
