//! Turns end to end: order of events, history, queue, cancel, idempotent messages, tools, failures.

use serde_json::json;

use crate::support::hub::Builder;
use crate::support::model::words;
use crate::support::ws::kinds;
use crate::support::{Hub, Model, Socket, wait_until};

#[test]
fn the_built_in_agent_calls_real_tools_and_answers() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let admin = hub.admin();
    let mut socket = Socket::open(&admin);
    socket.chat("", "how is this machine doing?");
    let frames = socket.turn();
    let kinds = kinds(&frames);
    assert_eq!(kinds[0], "thinking");
    assert!(kinds.windows(2).any(|pair| pair == ["tool_start", "tool_end"]), "{kinds:?}");
    assert_eq!(kinds[kinds.len() - 3..], ["usage", "content", "done"]);
    let numbers: Vec<u64> = frames.iter().map(|frame| frame["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=frames.len() as u64).collect::<Vec<_>>());
    let session = frames[0]["session_id"].as_str().unwrap();
    assert!(frames.iter().all(|frame| frame["session_id"] == session));
    let content = &frames[frames.len() - 2]["text"];
    let deltas: String =
        frames.iter().filter(|f| f["type"] == "content_delta").map(|f| f["text"].as_str().unwrap()).collect();
    assert_eq!(*content, json!(deltas));
    let messages = admin.get(&format!("/api/v1/sessions/{session}/messages")).json();
    assert_eq!(messages[1]["content"], *content);
}

#[test]
fn events_come_in_the_contracts_order() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let mut socket = Socket::open(&hub.admin());
    socket.chat("s1", "say hello");
    assert_eq!(kinds(&socket.turn()), ["thinking", "content_delta", "usage", "content", "done"]);
    socket.chat("s1", "tool host_uptime {}");
    let frames = socket.turn();
    assert_eq!(
        kinds(&frames),
        ["thinking", "tool_start", "tool_end", "thinking", "content_delta", "usage", "content", "done"]
    );
    assert_eq!(frames[3]["text"], "Processing tool results...");
    assert_eq!((&frames[1]["tool_id"], &frames[1]["round"]), (&json!("call_t"), &json!(1)));
    // The next prompt holds the tool call and its result.
    socket.chat("s1", "say again");
    socket.turn();
    let last = model.requests().pop().unwrap();
    let roles: Vec<&str> = last["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant", "tool", "assistant", "user"]);
}

#[test]
fn messages_of_one_conversation_queue_behind_each_other() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let admin = hub.admin();
    let (mut first, mut second) = (Socket::open(&admin), Socket::open(&admin));
    first.chat("s1", "gate 2 2");
    model.wait_at_gate();
    second.chat("s1", "say second");
    let queued = second.next();
    assert_eq!((&queued["type"], &queued["position"]), (&json!("queued"), &json!(1)));
    for number in 2..=8 {
        second.chat("s1", "say more");
        let frame = wait_for(&mut second, "queued");
        assert_eq!(frame["position"], number);
    }
    // Ten turns of one connection, nine of one session: the ninth message behind a running turn is one too many.
    first.chat("s1", "say too many");
    let refused = wait_for(&mut first, "error");
    assert_eq!((&refused["code"], &refused["session_id"]), (&json!("rate_limited"), &json!("s1")));
    model.open_gate();
    let mut dones = 0;
    let mut contents = Vec::new();
    while dones < 9 {
        let frame = first.next();
        dones += usize::from(frame["type"] == "done");
        if frame["type"] == "content" {
            contents.push(frame["text"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(contents[0], words(4));
    assert_eq!(contents[1], "second");
    let messages = admin.get("/api/v1/sessions/s1/messages").json();
    let roles: Vec<&str> = messages.as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant"].repeat(9));
}

#[track_caller]
fn wait_for(socket: &mut Socket, kind: &str) -> serde_json::Value {
    loop {
        let frame = socket.next();
        if frame["type"] == kind {
            return frame;
        }
    }
}

#[test]
fn a_cancelled_turn_says_so_and_keeps_what_it_said() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let admin = hub.admin();
    let mut socket = Socket::open(&admin);
    socket.send(&json!({"type": "cancel", "session_id": "s1"}));
    assert_eq!(socket.next()["code"], "not_running");
    socket.chat("s1", "gate 3 1");
    socket.read_deltas(3);
    socket.send(&json!({"type": "cancel", "session_id": "s1"}));
    let frames = socket.turn();
    let last = frames.last().unwrap();
    assert_eq!((&last["type"], &last["code"]), (&json!("error"), &json!("cancelled")));
    let messages = admin.get("/api/v1/sessions/s1/messages").json();
    assert_eq!(messages[1]["content"], words(3));
    // By REST: another client may stop it; a finished one is not running.
    socket.chat("s2", "silent");
    assert_eq!(socket.next()["type"], "thinking");
    let stranger = admin.new_key("stranger", &["chat"]);
    assert_eq!(stranger.post("/api/v1/sessions/s2/stop", "").status, 403);
    assert_eq!(admin.post("/api/v1/sessions/s2/stop", "").status, 202);
    assert_eq!(socket.turn().last().unwrap()["code"], "cancelled");
    wait_until("the turn is over", || (admin.post("/api/v1/sessions/s2/stop", "").status == 409).then_some(()));
}

#[test]
fn a_repeated_message_starts_nothing_twice() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let admin = hub.admin();
    let body = json!({"message": "say once", "message_id": "m1"});
    let first = admin.chat(body.clone());
    let second = admin.chat(body.clone());
    assert_eq!((first.status, second.status), (200, 200), "{}", second.text());
    assert_eq!(first.json(), second.json());
    assert_eq!(model.requests().len(), 1);
    // On a WebSocket the same message attaches to its turn, from its first frame.
    let mut socket = Socket::open(&admin);
    socket.send(&json!({"type": "chat_request", "message": "say once", "message_id": "m1"}));
    assert_eq!(kinds(&socket.turn()), ["thinking", "content_delta", "usage", "content", "done"]);
    assert_eq!(model.requests().len(), 1);
    // Another identity's ids are its own.
    let other = admin.new_key("other", &["chat"]);
    assert_eq!(other.chat(body).status, 200);
    assert_eq!(model.requests().len(), 2);
    assert_eq!(admin.chat(json!({"message": "x", "message_id": "y".repeat(65)})).status, 400);
}

#[test]
fn failures_of_the_model_are_told_by_cause() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let admin = hub.admin();
    for (message, status, code) in [
        ("status 401", 502, "provider_auth"),
        ("status 402", 402, "provider_credit"),
        ("status 429", 429, "provider_rate"),
        ("status 500", 502, "provider_upstream"),
        ("cut 3", 502, "provider_upstream"),
    ] {
        let answer = admin.chat(json!({"message": message}));
        assert_eq!(
            (answer.status, answer.json()["code"].as_str().unwrap_or("")),
            (status, code),
            "{message}: {}",
            answer.text()
        );
    }
}

#[test]
fn conversations_belong_to_whoever_began_them() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let admin = hub.admin();
    let (anna, ben) = (admin.new_key("anna", &["chat"]), admin.new_key("ben", &["chat"]));
    let reader = admin.new_key("reader", &["chat", "sessions:read"]);
    assert_eq!(anna.chat(json!({"session_id": "hers", "message": "say mine"})).status, 200);
    assert_eq!(ben.chat(json!({"session_id": "hers", "message": "say no"})).status, 403);
    assert_eq!(ben.get("/api/v1/sessions/hers/messages").status, 403);
    assert_eq!(anna.get("/api/v1/sessions/hers/messages").status, 200);
    assert_eq!(reader.get("/api/v1/sessions/hers").status, 200);
    let mut socket = Socket::open(&ben);
    socket.attach("hers", 0);
    assert_eq!(socket.next()["code"], "permission_denied");
    socket.chat("hers", "say no");
    assert_eq!(socket.next()["code"], "permission_denied");
    let mut socket = Socket::open(&reader);
    socket.attach("hers", 0);
    assert_eq!(socket.next()["type"], "resumed");
    assert_eq!(socket.turn().last().unwrap()["type"], "done");
    socket.chat("hers", "say no");
    assert_eq!(socket.next()["code"], "permission_denied");
    assert_eq!(reader.delete("/api/v1/sessions/hers").status, 403);
    assert_eq!(admin.delete("/api/v1/sessions/hers").status, 204);
    assert_eq!(admin.delete("/api/v1/sessions/hers").status, 204);
    // Whoever followed it is told; nothing of it can be asked for any more, by no way.
    assert_eq!(socket.next()["code"], "not_found");
    socket.attach("hers", 0);
    assert_eq!(socket.next()["code"], "replay_unavailable");
    let sse = ben.with("Accept", "text/event-stream");
    let gone = sse.chat(json!({"session_id": "hers", "resume_after_seq": 0}));
    assert_eq!((gone.events().len(), &gone.events()[0]["code"]), (1, &json!("replay_unavailable")));
    // The id may be used again: its numbers go on, its past stays gone.
    assert_eq!(ben.chat(json!({"session_id": "hers", "message": "say anew"})).status, 200);
    let events = sse.chat(json!({"session_id": "hers", "resume_after_seq": 0})).events();
    assert!(events[1]["seq"].as_u64().unwrap() > 5, "{}", events[1]);
    assert!(!events.iter().any(|event| event["text"] == "mine"));
}

#[test]
fn event_streams_carry_the_same_frames() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let admin = hub.admin();
    let sse = admin.with("Accept", "text/event-stream");
    let answer = sse.chat(json!({"session_id": "s1", "message": "deltas 500"}));
    assert_eq!(
        (answer.status, answer.header("content-type"), answer.header("cache-control")),
        (200, "text/event-stream", "no-cache")
    );
    let events = answer.events();
    assert_eq!(kinds(&events), ["thinking", "content_delta", "usage", "content", "done"]);
    let mut socket = Socket::open(&admin);
    socket.attach("s1", 0);
    assert_eq!(socket.next()["type"], "resumed");
    assert_eq!(socket.turn(), events);
    // From a number on; nothing is left out and nothing comes twice.
    let tail = sse.chat(json!({"session_id": "s1", "resume_after_seq": 490}));
    assert_eq!(tail.events()[0]["type"], "resumed");
    assert_eq!(tail.events()[1..], events[490..]);
    let by_header = sse.with("Last-Event-ID", "490").chat(json!({"session_id": "s1"}));
    assert_eq!(by_header.events()[1..], events[490..]);
    let with_ids = sse.post("/api/v1/chat?ids=1", &json!({"session_id": "s1", "resume_after_seq": 503}).to_string());
    assert!(with_ids.text().contains("\n\nid: 504\ndata: {"), "{}", with_ids.text());
    // Errors before the stream are JSON.
    assert_eq!(sse.chat(json!({"message": " "})).json()["error"], "message is required");
    assert_eq!(sse.chat(json!({"message": "x", "agent": "nobody"})).status, 404);
    assert_eq!(sse.chat(json!({"message": "x".repeat(32_769)})).status, 400);
    let unknown = sse.chat(json!({"session_id": "nope", "resume_after_seq": 3}));
    assert_eq!(unknown.events()[0]["code"], "replay_unavailable");
}

/// A suspended laptop, a paused container: every wait on a socket is interrupted when the process goes on (signal(7)).
#[test]
fn a_hub_that_was_stopped_for_a_while_loses_no_answer() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let mut socket = Socket::open(&hub.admin());
    socket.chat("s1", "gate 2 3");
    model.wait_at_gate();
    socket.read_deltas(2);
    hub.signal("STOP");
    let state = format!("/proc/{}/stat", hub.pid());
    wait_until("the hub stands still", || std::fs::read_to_string(&state).unwrap().contains(") T ").then_some(()));
    hub.signal("CONT");
    assert_eq!(hub.client().get("/api/v1/health").status, 200);
    model.open_gate();
    let frames = socket.turn();
    assert_eq!(kinds(&frames), ["content_delta", "usage", "content", "done"], "{frames:?}");
    assert_eq!(frames[frames.len() - 2]["text"], words(5));
    assert_eq!(model.requests().len(), 1, "asked again");
}
