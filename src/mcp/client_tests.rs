//! The client over a scripted transport.

use std::sync::Mutex;

use super::*;
use crate::mcp::mask::Mask;
use crate::rt::lock;

/// Answers each request by a function of its method and parameters.
struct Scripted {
    inbox: Arc<Inbox>,
    answer: fn(&str, &Value) -> Option<Value>,
    sent: Arc<Mutex<Vec<Value>>>,
}

impl Transport for Scripted {
    fn send(&self, message: Vec<u8>, call: Option<(u64, &Arc<Waiting>)>) -> Result<(), McpError> {
        let message: Value = serde_json::from_slice(&message).unwrap();
        lock(&self.sent).push(message.clone());
        let Some((id, _)) = call else { return Ok(()) };
        if let Some(mut answer) = (self.answer)(message["method"].as_str().unwrap(), &message["params"]) {
            answer["id"] = json!(id);
            self.inbox.feed(answer.to_string().as_bytes());
        }
        Ok(())
    }

    fn close(&self) {}

    fn wait_ended(&self, _timeout: Duration) -> bool {
        true
    }

    fn kind(&self) -> TransportKind {
        TransportKind::Stdio
    }
}

type Sent = Arc<Mutex<Vec<Value>>>;

fn open(answer: fn(&str, &Value) -> Option<Value>) -> (Result<Client, McpError>, Sent) {
    let inbox = Inbox::new("t", Mask::default());
    let sent = Sent::default();
    let transport = Scripted { inbox: Arc::clone(&inbox), answer, sent: Arc::clone(&sent) };
    (Client::open(Box::new(transport), inbox, Duration::from_secs(60), &Cancel::new()), sent)
}

fn hello(version: &str) -> Option<Value> {
    Some(json!({"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {}}}))
}

#[test]
fn every_known_version_is_agreed_on_and_others_are_refused() {
    for version in PROTOCOLS {
        let (client, sent) = match version {
            "2025-11-25" => open(|_, _| hello("2025-11-25")),
            "2025-06-18" => open(|_, _| hello("2025-06-18")),
            "2025-03-26" => open(|_, _| hello("2025-03-26")),
            _ => open(|_, _| hello("2024-11-05")),
        };
        assert!(client.is_ok(), "{version}");
        let sent = lock(&sent);
        assert_eq!(sent[0]["params"]["protocolVersion"], "2025-11-25");
        assert_eq!(sent[1]["method"], "notifications/initialized");
    }
    let refused = open(|_, _| hello("1999-01-01")).0.map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("1999-01-01"), "{refused}");
    assert!(matches!(open(|_, _| Some(json!({"result": 7}))).0, Err(McpError::Protocol { .. })));
}

#[test]
fn lists_come_in_pages_and_odd_tools_are_left_out_or_mended() {
    let (client, _) = open(|method, params| match (method, params["cursor"].as_str()) {
        ("initialize", _) => hello("2025-11-25"),
        (_, None) => Some(json!({"result": {"nextCursor": "2", "tools": [
            {"name": "a", "description": "A", "inputSchema": {"type": "object", "properties": {"x": {}}}},
            {"name": ""}, {"description": "nameless"}, 7,
        ]}})),
        (_, Some("2")) => Some(json!({"result": {"nextCursor": "3", "tools": [
            {"name": "b", "title": "B", "inputSchema": {"type": "string"}}]}})),
        // The same cursor again: a server that turns in circles.
        _ => Some(json!({"result": {"nextCursor": "3", "tools": [{"name": "c", "inputSchema": "none"}]}})),
    });
    let tools = client.unwrap().list_tools(Duration::from_secs(60), &Cancel::new()).unwrap();
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(tools[0].schema["properties"], json!({"x": {}}));
    assert_eq!((tools[1].description.as_str(), &tools[1].schema["type"]), ("B", &json!("object")));
    assert_eq!(tools[2].schema, json!({"type": "object", "properties": {}}));
}

#[test]
fn an_endless_list_ends() {
    let (client, _) = open(|method, params| {
        let page = params["cursor"].as_str().unwrap_or("0").parse::<u32>().unwrap_or(0) + 1;
        match method {
            "initialize" => hello("2025-11-25"),
            _ => Some(json!({"result": {"nextCursor": page.to_string(), "tools": [{"name": format!("t{page}")}]}})),
        }
    });
    let tools = client.unwrap().list_tools(Duration::from_secs(60), &Cancel::new()).unwrap();
    assert_eq!(tools.len(), limits::MCP_PAGES_MAX);
}

#[test]
fn a_call_that_runs_out_of_time_or_is_cancelled_is_taken_back() {
    let (client, sent) = open(|method, _| (method == "initialize").then(|| hello("2025-11-25")).flatten());
    let client = client.unwrap();
    let limit = |idle| CallLimit { idle, deadline: Instant::now() + Duration::from_secs(60) };
    let late = client.call_tool("t", &json!({}), limit(Duration::ZERO), &Cancel::new());
    assert!(matches!(late, Err(McpError::Timeout { what: "tools/call", .. })), "{late:?}");
    {
        let sent = lock(&sent);
        let (call, taken_back) = (&sent[2], &sent[3]);
        assert_eq!(taken_back["method"], "notifications/cancelled");
        assert_eq!(taken_back["params"]["requestId"], call["id"]);
        assert_eq!(call["params"]["_meta"]["progressToken"], call["id"]);
    }
    let cancel = Cancel::new();
    let (from_thread, threads) = (cancel.clone(), crate::rt::Threads::new());
    threads.spawn("cancels", 64 * 1024, move || from_thread.cancel()).unwrap();
    let cancelled = client.call_tool("t", &json!({}), limit(Duration::from_secs(60)), &cancel);
    assert_eq!(cancelled, Err(McpError::Cancelled));
    client.close();
    assert!(matches!(client.ping(Duration::from_secs(60), &Cancel::new()), Err(McpError::Gone { .. })));
}

#[test]
fn any_answer_to_a_ping_is_a_sign_of_life() {
    let (client, _) = open(|method, _| match method {
        "initialize" => hello("2025-11-25"),
        _ => Some(json!({"error": {"code": -32601, "message": "method not found"}})),
    });
    assert_eq!(client.unwrap().ping(Duration::from_secs(60), &Cancel::new()), Ok(()));
}
