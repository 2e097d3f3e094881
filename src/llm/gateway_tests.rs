use super::*;
use crate::llm::ToolSpec;
use crate::net::test_peer::{LONG, Peer, Step, whole};

fn gateway(peer: &Peer, max_retries: u32) -> Gateway {
    let settings = GatewaySettings {
        base: format!("{}/api/v1/agent/llm", peer.url()),
        agent_id: "8369746c-c0d5-491c-b36c-4058a7d741f6".to_owned(),
        token: Arc::new(|| "hm_secret".to_owned()),
        ca_file: None,
        timeout: LONG,
        max_retries,
    };
    Gateway::new(settings).unwrap()
}

fn ask(gateway: &Gateway) -> Result<Completion, LlmError> {
    let scene = GatewayScene {
        name: "diagnose",
        diagnose_id: "inspect_disk_1",
        plugin: "disk",
        source: "diagnose",
        ..GatewayScene::default()
    };
    let call = ToolCall { id: "call_1".into(), name: "disk_overview".into(), arguments: String::new() };
    let messages = [
        Message::text(Role::System, "s"),
        Message { tool_calls: vec![call], ..Message::text(Role::Assistant, "") },
        Message { tool_call_id: Some("call_1".into()), ..Message::text(Role::Tool, "full") },
    ];
    let tools =
        [ToolSpec { name: "disk_overview".into(), description: "d".into(), parameters: json!({"type": "object"}) }];
    let request = Request { model: "", messages: &messages, tools: &tools, stream: false };
    gateway.ask(&scene, &request, &Cancel::new())
}

fn good(message: &Value) -> Step {
    let usage = json!({"prompt_tokens": 52, "completion_tokens": 3, "total_tokens": 55});
    let data = json!({"id": "x", "model": "m", "message": message, "finish_reason": "stop", "usage": usage});
    whole("200 OK", "", &json!({"request_id": "r", "data": data}).to_string())
}

#[test]
fn a_call_is_that_of_the_contract() {
    let call = json!({"id": "call_2", "type": "function", "function": {"name": "x", "arguments": "{}"}});
    let peer = Peer::one(vec![good(&json!({"role": "assistant", "content": null, "tool_calls": [call]}))]);
    let completion = ask(&gateway(&peer, 1)).unwrap();
    assert_eq!((completion.tool_calls[0].id.as_str(), completion.tool_calls[0].name.as_str()), ("call_2", "x"));
    assert_eq!((completion.usage.input_tokens, completion.usage.output_tokens), (52, 3));
    assert_eq!((completion.text.as_str(), completion.model.as_str()), ("", "m"));
    let (head, body) = peer.requests.recv_timeout(LONG).unwrap();
    assert!(head.starts_with("POST /api/v1/agent/llm/chat HTTP/1.1\r\n"), "{head}");
    let head = head.to_ascii_lowercase();
    for line in [
        "x-agent-token: hm_secret",
        "x-agent-id: 8369746c-c0d5-491c-b36c-4058a7d741f6",
        "x-agent-scene: diagnose",
        "content-type: application/json",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
    }
    assert_eq!(body["messages"][1]["tool_calls"][0]["function"], json!({"name": "disk_overview", "arguments": "{}"}));
    assert_eq!(body["messages"][2], json!({"role": "tool", "content": "full", "tool_call_id": "call_1"}));
    assert_eq!(body["tools"][0]["function"]["name"], "disk_overview");
    assert_eq!(body["timeout_ms"], 60_000);
    let metadata = json!({"diagnose_id": "inspect_disk_1", "plugin": "disk", "request_source": "diagnose"});
    assert_eq!(body["metadata"], metadata);
    assert!(body.get("max_tokens").is_none());
}

#[test]
fn what_may_get_better_is_tried_again() {
    let say = json!({"role": "assistant", "content": "fine"});
    let busy = |status: &str| {
        whole(status, "Retry-After: 0\r\n", r#"{"request_id":"r","error":{"code":"x","message":"busy"}}"#)
    };
    for status in ["429 Too Many", "500 Oops", "502 Bad", "503 Busy", "504 Late"] {
        let peer = Peer::new(vec![vec![busy(status)], vec![good(&say)]]);
        assert_eq!(ask(&gateway(&peer, 1)).unwrap().text, "fine", "{status}");
    }
    for (status, max_retries) in [("503 Busy", 0), ("400 Bad", 2), ("401 No", 2), ("403 No", 2), ("501 No", 2)] {
        let peer = Peer::one(vec![busy(status)]);
        let error = ask(&gateway(&peer, max_retries)).unwrap_err();
        assert!(matches!(&error, LlmError::Status { message, .. } if message.contains("busy")), "{error}");
        assert_eq!(peer.requests.try_iter().count(), 1, "{status}");
    }
    let peer = Peer::new(vec![vec![busy("503 Busy")], vec![busy("503 Busy")], vec![busy("503 Busy")]]);
    assert!(ask(&gateway(&peer, 2)).is_err());
    assert_eq!(peer.requests.try_iter().count(), 3);
}

#[test]
fn odd_answers_are_errors() {
    let check = |step: Step, expected: fn(&LlmError) -> bool| {
        let peer = Peer::one(vec![step]);
        let error = ask(&gateway(&peer, 0)).unwrap_err();
        assert!(expected(&error), "{error}");
    };
    check(whole("200 OK", "", "<html>"), |error| matches!(error, LlmError::Decode { .. }));
    check(whole("200 OK", "", "{}"), |error| matches!(error, LlmError::Decode { .. }));
    // An error page of a proxy is what its status says, not a broken answer.
    check(whole("403 No", "", "<html>no</html>"), |error| matches!(error, LlmError::Status { status: 403, .. }));
    check(whole("302 Found", "Location: http://10.9.9.9/\r\n", ""), |error| {
        matches!(error, LlmError::Status { status: 302, .. })
    });
    check(
        whole("401 No", "", r#"{"error":{"message":"hm_secret is unknown"}}"#),
        |error| matches!(error, LlmError::Status { message, .. } if message.contains("[token] is unknown")),
    );
}

#[test]
fn a_cut_answer_says_so() {
    let answer = |content: &str| {
        let data = json!({"message": {"content": content}, "finish_reason": "length"});
        completion_of(json!({ "data": data }).to_string().as_bytes()).unwrap().text
    };
    assert!(answer("half a").contains("ends here"));
    assert_eq!(answer("half a [cut by the hub]"), "half a [cut by the hub]");
}
