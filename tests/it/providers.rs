//! The real binary in front of each kind of provider, speaking its own wire; fallbacks; lists of models.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::peer::{cut, status, stream};
use crate::support::ws::kinds;
use crate::support::{Client, Hub, Peer, Socket};

const EVENTS: &str = "text/event-stream";
const LINES: &str = "application/x-ndjson";

fn anthropic(events: &[Value]) -> String {
    let text: String =
        events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap())).collect();
    text
}

/// What Anthropic streams for a text, or for a tool call without arguments behind a text.
fn anthropic_round(text: &str, tool: Option<&str>) -> String {
    let mut events = vec![
        json!({"type": "message_start", "message": {"model": "claude-x", "usage": {"input_tokens": 11, "output_tokens": 1}}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
        json!({"type": "content_block_stop", "index": 0}),
    ];
    if let Some(tool) = tool {
        let block = json!({"type": "tool_use", "id": "toolu_1", "name": tool, "input": {}});
        events.push(json!({"type": "content_block_start", "index": 1, "content_block": block}));
        events.push(json!({"type": "content_block_stop", "index": 1}));
    }
    let reason = if tool.is_some() { "tool_use" } else { "end_turn" };
    events.push(json!({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 7}}));
    events.push(json!({"type": "message_stop"}));
    stream(EVENTS, &anthropic(&events))
}

fn ollama_line(message: Value, done: bool) -> String {
    let mut line = json!({"model": "llama", "message": message, "done": done});
    if done {
        line["done_reason"] = json!("stop");
        line["prompt_eval_count"] = json!(20);
        line["eval_count"] = json!(4);
    }
    format!("{line}\n")
}

fn ollama_says(text: &str) -> String {
    let pieces = ollama_line(json!({"role": "assistant", "content": text}), false);
    stream(LINES, &(pieces + &ollama_line(json!({"role": "assistant", "content": ""}), true)))
}

fn openai_piece(text: &str) -> String {
    format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {"content": text}}]}))
}

fn openai_says(text: &str, cost: Option<f64>) -> String {
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "cost": cost});
    let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage});
    stream(EVENTS, &format!("{}data: {end}\n\ndata: [DONE]\n\n", openai_piece(text)))
}

/// A hub and the directory that it works in, dropped in this order.
struct Asked {
    hub: Hub,
    _dir: tempfile::TempDir,
}

/// Starts a hub with this configuration and asks it once over a WebSocket.
fn ask(config: &str) -> (Asked, Client, Vec<Value>) {
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).config(config).start();
    let admin = hub.admin();
    let mut socket = Socket::open(&admin);
    socket.chat("s1", "how long is this machine up?");
    let frames = socket.turn();
    (Asked { hub, _dir: dir }, admin, frames)
}

#[track_caller]
fn content(frames: &[Value]) -> &str {
    let found = frames.iter().find(|frame| frame["type"] == "content");
    found.unwrap_or_else(|| panic!("no content in {frames:?}"))["text"].as_str().unwrap()
}

#[test]
fn anthropic_answers_with_tools() {
    let peer = Peer::start(vec![anthropic_round("I look.", Some("host_uptime")), anthropic_round("Long.", None)]);
    let config = format!(
        "[llm]\ndefault_model = 'claude-x'\n[llm.anthropic]\napi_key = 'env:ANT'\nbase_url = '{}'\nmax_tokens = 1234",
        peer.url()
    );
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).config(&config).env("ANT", "sk-ant-hidden").start();
    let mut socket = Socket::open(&hub.admin());
    socket.chat("s1", "how long is this machine up?");
    let frames = socket.turn();
    assert_eq!(content(&frames), "Long.");
    assert!(kinds(&frames).windows(2).any(|pair| pair == ["tool_start", "tool_end"]), "{frames:?}");
    let asked = peer.asked();
    assert!(asked[0].0.starts_with("POST /v1/messages "), "{}", asked[0].0);
    assert!(asked[0].0.to_ascii_lowercase().contains("x-api-key: sk-ant-hidden\r\n"));
    assert_eq!(asked[0].1["max_tokens"], 1234);
    let messages = asked[1].1["messages"].as_array().unwrap();
    let call = json!({"type": "tool_use", "id": "toolu_1", "name": "host_uptime", "input": {}});
    assert_eq!(messages[1]["content"][1], call);
    let result = &messages[2]["content"][0];
    assert_eq!((&result["type"], &result["tool_use_id"]), (&json!("tool_result"), &json!("toolu_1")));
    assert!(!hub.log_contains("sk-ant-hidden"));
}

#[test]
fn ollama_answers_with_tools_on_its_own_wire() {
    let call = json!({"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "host_uptime", "arguments": {}}}]});
    let first = stream(LINES, &(ollama_line(call, false) + &ollama_line(json!({"content": ""}), true)));
    let peer = Peer::start(vec![first, ollama_says("Long.")]);
    let config =
        format!("[llm]\ndefault_model = 'llama'\n[llm.ollama]\nbase_url = '{}/v1'\nnum_ctx = 8192", peer.url());
    let (_hub, _, frames) = ask(&config);
    assert_eq!(content(&frames), "Long.");
    let asked = peer.asked();
    assert!(asked[1].0.starts_with("POST /api/chat "), "{}", asked[1].0);
    assert_eq!(asked[1].1["options"]["num_ctx"], 8192);
    let last = asked[1].1["messages"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["role"], &last["tool_name"]), (&json!("tool"), &json!("host_uptime")));
}

#[test]
fn openrouter_and_named_endpoints_answer_their_agents() {
    let (router, gpu) = (
        Peer::start(vec![openai_says("from the router", Some(0.5))]),
        Peer::start(vec![openai_says("from the gpu", None)]),
    );
    let config = format!(
        "[llm]\ndefault_model = 'a/one'\n[llm.openrouter]\napi_key = 'k'\nbase_url = '{}/api/v1'\n\
         [[llm.providers]]\nname = 'gpu'\ntype = 'openai'\nbase_url = '{}'\n\
         [[agents]]\nname = 'default'\n[[agents]]\nname = 'home'\nllm_provider = 'gpu'\nllm_model = 'own'",
        router.url(),
        gpu.url()
    );
    let (_hub, admin, frames) = ask(&config);
    assert_eq!(content(&frames), "from the router");
    assert!(router.asked()[0].0.to_ascii_lowercase().contains("x-title: holt\r\n"));
    let answer = admin.chat(json!({"message": "hi", "agent": "home"})).json();
    assert!(answer.to_string().contains("from the gpu"), "{answer}");
    assert_eq!(gpu.asked()[0].1["model"], "own");
    let agent = admin.get("/api/v1/agents/home").json();
    assert_eq!((&agent["provider"], &agent["model"]), (&json!("gpu"), &json!("own")));
}

#[test]
fn a_cut_answer_is_taken_back_and_another_provider_asked() {
    let first = Peer::start(vec![cut(EVENTS, &openai_piece("Half an "))]);
    let second = Peer::start(vec![ollama_says("A whole answer.")]);
    let config = format!(
        "[llm]\ndefault_model = 'm'\ndefault_provider = 'openai'\n[llm.openai]\nbase_url = '{}'\n\
         [[llm.providers]]\nname = 'spare'\ntype = 'ollama'\nbase_url = '{}'\n\
         [[llm.fallback]]\ntrigger = 'error'\naction = 'wait_and_retry'\nmax_retries = 1\n\
         [[llm.fallback]]\ntrigger = 'error'\naction = 'switch_provider'\nprovider = 'spare'\nmodel = 'llama'",
        first.url(),
        second.url()
    );
    let (_hub, admin, frames) = ask(&config);
    let told: Vec<String> = kinds(&frames);
    let expected = [
        "thinking",
        "content_delta",
        "stream_rollback",
        "content_delta",
        "stream_rollback",
        "content_delta",
        "usage",
        "content",
        "done",
    ];
    assert_eq!(told, expected, "{frames:?}");
    assert_eq!(content(&frames), "A whole answer.");
    assert_eq!((first.asked().len(), second.asked().len()), (2, 1));
    assert_eq!(second.asked()[0].1["model"], "llama");
    let messages = admin.get("/api/v1/sessions/s1/messages").json();
    assert_eq!(messages[1]["content"], "A whole answer.");
    let agent = admin.get("/api/v1/agents/default").json();
    assert_eq!(
        agent["fallbacks"][1],
        json!({"trigger": "error", "action": "switch_provider", "provider": "spare", "model": "llama"})
    );
}

#[test]
fn a_rate_limit_is_waited_for_as_the_provider_asks() {
    let slow = || {
        status(
            "429 Slow",
            "Retry-After: 0\r\n",
            "{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"slow\"}}",
        )
    };
    let overloaded = anthropic(&[json!({"type": "error", "error": {"type": "rate_limit_error", "message": "busy"}})]);
    let peer = Peer::start(vec![slow(), stream(EVENTS, &overloaded), anthropic_round("There.", None)]);
    let config = format!(
        "[llm]\ndefault_model = 'm'\n[llm.anthropic]\napi_key = 'k'\nbase_url = '{}'\n\
         [[llm.fallback]]\ntrigger = 'rate_limit'\naction = 'wait_and_retry'\nmax_retries = 5\nbackoff = 'constant'",
        peer.url()
    );
    let (_hub, _, frames) = ask(&config);
    assert_eq!(content(&frames), "There.");
    assert_eq!(peer.asked().len(), 3);
}

#[test]
fn failures_tell_what_to_do() {
    let check = |answer: String, code: &str| {
        let peer = Peer::start(vec![answer]);
        let config =
            format!("[llm]\ndefault_model = 'm'\n[llm.anthropic]\napi_key = 'k-hidden'\nbase_url = '{}'", peer.url());
        let (asked, _, frames) = ask(&config);
        let last = frames.last().unwrap();
        assert_eq!((&last["type"], &last["code"]), (&json!("error"), &json!(code)), "{last}");
        assert!(!asked.hub.log_contains("k-hidden"));
    };
    let error = |kind: &str, message: &str| json!({"type": "error", "error": {"type": kind, "message": message}});
    check(status("401 No", "", &error("authentication_error", "invalid k-hidden").to_string()), "provider_auth");
    check(status("400 No", "", &error("x", "Your credit balance is too low").to_string()), "provider_credit");
    check(status("404 No", "", &error("not_found_error", "model: m").to_string()), "provider_model");
    check(stream(EVENTS, &anthropic(&[error("overloaded_error", "busy")])), "provider_upstream");
    check(cut(EVENTS, "event: message_start\ndata: {\"type\":\"message_start\"}\n\n"), "provider_upstream");
    check(stream(EVENTS, ""), "provider_upstream");
}

#[test]
fn models_are_listed_and_described() {
    let openrouter = json!({"data": [
        {"id": "a/one", "name": "One", "pricing": {"prompt": "0.000003", "completion": "0.000015"}, "supported_parameters": ["tools"]}]});
    let router = Peer::start(vec![status("200 OK", "", &openrouter.to_string())]);
    let gpu = Peer::start(vec![status("200 OK", "", "{\"data\":[{\"id\":\"qwen3-8b\"},{\"id\":\"a/one\"}]}")]);
    let broken = Peer::start(vec![status("500 Oops", "", "")]);
    let cloud = Peer::start(vec![status("200 OK", "", "{\"data\":[{\"id\":\"claude-sonnet-4-20250514\"}]}")]);
    let config = format!(
        "[llm]\ndefault_provider = 'local'\n[llm.openrouter]\napi_key = 'k'\nbase_url = '{}'\n[llm.ollama]\nbase_url = '{}'\n\
         [[llm.providers]]\nname = 'gpu'\ntype = 'openai'\nbase_url = '{}'\n[llm.anthropic]\napi_key = 'k'\nbase_url = '{}'\nfree = false",
        router.url(),
        broken.url(),
        gpu.url(),
        cloud.url()
    );
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).config(&config).start();
    let admin = hub.admin();
    let reader = admin.new_key("reader", &["agents:read"]);
    let names = reader.get("/api/v1/models");
    assert_eq!(
        (names.status, names.json()),
        (200, json!({"models": ["a/one", "claude-sonnet-4-20250514", "local", "qwen3-8b"]}))
    );
    let all = reader.get("/api/v1/models/details").json();
    assert_eq!((&all["models"][0]["provider"], &all["models"][0]["name"]), (&json!("openrouter"), &json!("One")));
    assert!((all["models"][0]["input_per_mtok"].as_f64().unwrap() - 3.0).abs() < 1e-9);
    let claude = json!({"id": "claude-sonnet-4-20250514", "name": "Claude Sonnet 4 20250514", "provider": "anthropic",
        "input_per_mtok": 3, "output_per_mtok": 15, "supports_tools": true, "weekly_tokens": 0});
    assert_eq!(all["models"][1], claude);
    assert_eq!(all["models"].as_array().unwrap().len(), 4);
    let gpu_models = reader.get("/api/v1/models/details?provider=gpu").json();
    let own = json!({"id": "qwen3-8b", "name": "Qwen3 8b", "provider": "gpu", "input_per_mtok": 0,
        "output_per_mtok": 0, "supports_tools": true, "weekly_tokens": 0});
    assert_eq!(gpu_models["models"][1], own);
    assert_eq!(reader.get("/api/v1/models/details?provider=nobody").json(), json!({"models": null}));
    // Lists are remembered, a failing provider is asked again.
    assert_eq!((router.asked().len(), gpu.asked().len()), (1, 1));
    assert!(broken.asked().len() >= 2);
    assert_eq!(admin.new_key("c", &["chat"]).get("/api/v1/models").status, 403);
}

#[test]
fn a_sealed_key_opens_only_here() {
    let dir = tempfile::tempdir().unwrap();
    let holt = |arguments: &[&str], input: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
        command.args(arguments).arg("--data-dir").arg(dir.path()).env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert!(!holt(&["config", "seal"], "\n").0);
    let (good, sealed) = holt(&["config", "seal"], "sk-sealed\n");
    assert!(good && sealed.starts_with("sealed:") && !sealed.contains("sk-"), "{sealed}");
    let peer = Peer::start(vec![openai_says("opened", None)]);
    let config = format!(
        "[llm]\ndefault_model = 'm'\n[llm.openai]\napi_key = '{}'\nbase_url = '{}'\norganization = 'org-1'",
        sealed.trim(),
        peer.url()
    );
    let hub = Builder::new(dir.path()).config(&config).start();
    let answer = hub.admin().chat(json!({"message": "hi"})).json();
    assert!(answer.to_string().contains("opened"), "{answer}");
    let head = peer.asked()[0].0.to_ascii_lowercase();
    assert!(
        head.contains("authorization: bearer sk-sealed\r\n") && head.contains("openai-organization: org-1\r\n"),
        "{head}"
    );
    drop(hub);
    std::fs::write(dir.path().join("secret"), "0".repeat(64)).unwrap();
    let (good, told) = holt(&["config", "check"], "");
    assert!(!good && told.contains("llm.openai.api_key: was sealed with another key"), "{told}");
}
