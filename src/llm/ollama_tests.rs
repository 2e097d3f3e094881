//! The provider against a scripted peer that speaks Ollama's wire.

use serde_json::{Value, json};

use super::*;
use crate::config::{ProviderConfig, ProviderKind};
use crate::net::test_peer::{LONG, Peer, Step, TIMEOUTS, chunk, end, head, whole};

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

fn provider(peer: &Peer, suffix: &str) -> OllamaProvider {
    let config = ProviderConfig {
        name: "ollama".to_owned(),
        kind: ProviderKind::Ollama,
        api_key: None,
        base_url: Some(peer.url() + suffix),
        organization: None,
        is_free: true,
        max_tokens: None,
        num_ctx: Some(16_384),
    };
    OllamaProvider::new(&config, TIMEOUTS).unwrap()
}

fn ask(provider: &OllamaProvider, stream: bool) -> (Result<Completion, LlmError>, Heard) {
    let messages = [Message::text(Role::User, "hi")];
    let mut heard = Heard::default();
    let request = Request { model: "m", messages: &messages, tools: &[], stream };
    (provider.complete(request, &mut heard, &Cancel::new()), heard)
}

fn stream_head() -> Step {
    head("200 OK", "application/x-ndjson")
}

fn line(message: Value) -> String {
    json!({"model": "m:7b", "created_at": "now", "message": message, "done": false}).to_string() + "\n"
}

fn done(reason: &str) -> String {
    json!({"model": "m:7b", "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": reason,
        "prompt_eval_count": 26, "eval_count": 9})
    .to_string()
        + "\n"
}

fn rich() -> String {
    line(json!({"role": "assistant", "content": "", "thinking": "hmm"}))
        + &line(json!({"role": "assistant", "content": "Grüße "}))
        + "\n"
        + &line(json!({"role": "assistant", "content": "🦀"}))
        + &line(json!({"role": "assistant", "content": "",
            "tool_calls": [{"function": {"name": "one", "arguments": {"x": "ü"}}}, {"function": {"name": "two"}}]}))
        + &done("stop")
}

fn check_rich(result: Result<Completion, LlmError>) {
    let done = result.unwrap();
    assert_eq!(done.text, "Grüße 🦀");
    assert_eq!(done.model, "m:7b");
    assert_eq!(done.usage, Usage { input_tokens: 26, output_tokens: 9, ..Usage::default() });
    let calls: Vec<_> = done.tool_calls.iter().map(|call| (&call.name[..], &call.arguments[..])).collect();
    assert_eq!(calls, [("one", "{\"x\":\"ü\"}"), ("two", "{}")]);
    assert!(done.tool_calls[0].id.starts_with("call_") && done.tool_calls[0].id != done.tool_calls[1].id);
}

#[test]
fn lines_are_put_together_wherever_the_bytes_are_split() {
    for size in [1, 7, usize::MAX] {
        for text in [rich(), rich().replace('\n', "\r\n")] {
            let mut steps = vec![stream_head()];
            steps.extend(text.as_bytes().chunks(size).map(chunk));
            steps.push(end());
            let (result, heard) = ask(&provider(&Peer::one(steps), ""), true);
            check_rich(result);
            assert_eq!(heard.text, ["Grüße ", "🦀"]);
            assert_eq!(heard.thinking, "hmm");
            assert_eq!(heard.hidden, "onetwo{\"x\":\"ü\"}{}".len());
        }
    }
}

#[test]
fn a_stream_without_its_end_is_cut_and_garbage_is_named() {
    let text = rich();
    for (at, _) in text.char_indices().filter(|(at, _)| *at > 0 && *at < text.len() - done("stop").len()).step_by(11) {
        let steps = vec![stream_head(), chunk(&text[..at]), Step::Cut];
        let result = ask(&provider(&Peer::one(steps), ""), true).0;
        assert!(matches!(result, Err(LlmError::Cut { .. })), "{at}: {result:?}");
    }
    let check = |text: &str| ask(&provider(&Peer::one(vec![stream_head(), chunk(text), end()]), ""), true).0;
    assert!(matches!(check(&line(json!({"content": "half"}))), Err(LlmError::Cut { .. })));
    assert!(matches!(check("<html>log in</html>\n"), Err(LlmError::Decode { .. })));
    // The last line needs no end, and nothing behind it.
    let steps = vec![stream_head(), chunk(text.trim_end()), Step::Cut];
    let result = ask(&provider(&Peer::one(steps), ""), true).0;
    assert!(matches!(result, Err(LlmError::Cut { .. })), "{result:?}");
    check_rich(check(text.trim_end()));
    let endless = vec![stream_head(), chunk(vec![b'x'; 1024 * 1024 + 9]), Step::Stall];
    let result = ask(&provider(&Peer::one(endless), ""), true).0;
    assert!(matches!(result, Err(LlmError::TooLarge { .. })), "{result:?}");
}

#[test]
fn errors_beside_and_inside_a_stream_are_statuses() {
    let expected =
        |status: u16, message: &str| Err(LlmError::Status { status, message: message.to_owned(), retry_after: None });
    let steps = vec![stream_head(), chunk(line(json!({"content": "a"})) + "{\"error\":\"runner died\"}\n"), end()];
    let (result, heard) = ask(&provider(&Peer::one(steps), ""), true);
    assert_eq!(result, expected(500, "runner died"));
    assert_eq!(heard.text, ["a"]);
    let missing = vec![whole("404 Not Found", "", "{\"error\":\"model 'm' not found\"}")];
    assert_eq!(ask(&provider(&Peer::one(missing), ""), true).0, expected(404, "model 'm' not found"));
}

#[test]
fn what_is_asked_is_the_native_wire() {
    let messages = [
        Message::text(Role::System, "s"),
        Message {
            tool_calls: vec![
                ToolCall { id: "c1".into(), name: "look".into(), arguments: "{\"x\":1}".into() },
                ToolCall { id: "c2".into(), name: "find".into(), arguments: "broken".into() },
            ],
            ..Message::text(Role::Assistant, "")
        },
        Message { tool_call_id: Some("c1".into()), ..Message::text(Role::Tool, "seen") },
    ];
    let tools = [ToolSpec { name: "look".into(), description: "looks".into(), parameters: json!({"type": "object"}) }];
    for (suffix, stream) in [("", true), ("/v1/", false), ("/api", false)] {
        let peer = Peer::one(vec![whole("200 OK", "", &done("stop"))]);
        let request = Request { model: "m", messages: &messages, tools: &tools, stream };
        provider(&peer, suffix).complete(request, &mut Heard::default(), &Cancel::new()).unwrap();
        let (head, asked) = peer.requests.recv_timeout(LONG).unwrap();
        assert!(head.starts_with("POST /api/chat HTTP/1.1\r\n"), "{head}");
        let expected = json!({
            "model": "m", "stream": stream, "options": {"num_ctx": 16_384},
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "assistant", "content": "", "tool_calls": [
                    {"function": {"name": "look", "arguments": {"x": 1}}},
                    {"function": {"name": "find", "arguments": {}}}]},
                {"role": "tool", "content": "seen", "tool_name": "look"},
            ],
            "tools": [{"type": "function",
                       "function": {"name": "look", "description": "looks", "parameters": {"type": "object"}}}],
        });
        assert_eq!(asked, expected);
    }
}

#[test]
fn one_body_is_a_stream_of_one_line_and_a_full_answer_says_so() {
    let body = json!({"model": "m:7b", "done": true, "done_reason": "length", "prompt_eval_count": 1, "eval_count": 2,
        "message": {"role": "assistant", "content": "long"}});
    let (result, heard) = ask(&provider(&Peer::one(vec![whole("200 OK", "", &body.to_string())]), ""), false);
    let done = result.unwrap();
    assert!(done.text.starts_with("long\n\n[The answer ends here"), "{}", done.text);
    assert!(heard.text.is_empty());
    let peer = Peer::one(vec![whole("200 OK", "", "{\"models\":[{\"name\":\"a\"},{\"name\":\"b\"}]}")]);
    assert_eq!(provider(&peer, "/v1").models(&Cancel::new()).unwrap(), ["a", "b"]);
    assert!(peer.requests.recv_timeout(LONG).unwrap().0.starts_with("GET /api/tags HTTP/1.1"));
}
