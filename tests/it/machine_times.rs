//! What happens to machines by time alone (contract agent-link 11, items 3 and 12; 4.2): with times of the configuration.

use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::agent::{Agent, ID, id};
use crate::support::hub::Builder;
use crate::support::ws::read;
use crate::support::{Client, Hub, Socket, wait_until};

const SHARED: &str = "a token that all machines share";

/// A hub, its first key, and another.
fn start(dir: &std::path::Path, times: &str) -> (Hub, Client, Client) {
    let config = format!("[fleet]\nshared_token = \"{SHARED}\"\n[fleet.times]\n{times}");
    let hub = Builder::new(dir).config(&config).start();
    let scopes = ["admin", "machines:read", "machines:write", "chat", "sessions:read"];
    let admin = hub.admin();
    let client = admin.new_key("ops", &scopes);
    (hub, admin, client)
}

fn ask(socket: &mut Socket, machine: &str, conversation: &str, text: &str) {
    let agent = format!("machine:{machine}");
    socket.send(&json!({"type": "chat_request", "agent": agent, "session_id": conversation, "message": text}));
}

/// The frames of a turn.
fn turn(socket: &mut Socket) -> Vec<Value> {
    socket.turn().into_iter().filter(|frame| frame["type"] != "machine" && frame["type"] != "alert").collect()
}

fn last_session(client: &Client) -> Value {
    client.get(&format!("/api/v1/machines/{ID}/sessions")).json()["sessions"][0].clone()
}

fn is_connected(client: &Client) -> bool {
    client.get(&format!("/api/v1/machines/{ID}")).json()["connected"] == true
}

/// Reads until the hub pings.
fn next_ping(agent: &mut Agent) {
    loop {
        match read(&mut agent.ws).unwrap() {
            Message::Text(text) if serde_json::from_str::<Value>(&text).unwrap()["type"] == "ping" => return,
            _ => {}
        }
    }
}

#[test]
fn an_idle_machine_is_pinged_and_stays_a_silent_one_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, _, client) = start(dir.path(), "ping = \"50ms\"\nsilence = \"5s\"");
    let (mut agent, _) = Agent::join(&hub.address, SHARED, ID, "pi");
    // Ten minutes of a machine with nothing to say but that it lives: twenty pings.
    for _ in 0..20 {
        next_ping(&mut agent);
        agent.send("heartbeat", json!({}));
    }
    assert!(is_connected(&client));
    // From here on it says nothing, and hears pings until the hub has had enough.
    let heard = std::iter::from_fn(|| read(&mut agent.ws).ok()).filter(|message| message.is_text()).count();
    assert!(heard >= 2, "pings go on until the end, {heard} came");
    wait_until("it is gone", || (!is_connected(&client)).then_some(()));
}

#[test]
fn a_connection_that_is_silent_gives_way_to_another_machine() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, _, client) = start(dir.path(), "takeover = \"2s\"");
    let (mut old, _) = Agent::join(&hub.address, SHARED, ID, "pi");
    old.send("heartbeat", json!({}));
    let (mut refused, ack) = Agent::join(&hub.address, SHARED, ID, "new-pi");
    assert_eq!(ack["error"], "agent id in use by pi");
    assert_eq!(refused.close_code().map(|(code, _)| code), Some(1008));
    // Nothing comes of the old one any more.
    let new = wait_until("its place is free", || {
        let (agent, ack) = Agent::join(&hub.address, SHARED, ID, "new-pi");
        (ack["ok"] == true).then_some(agent)
    });
    let ending = loop {
        match read(&mut old.ws).unwrap() {
            Message::Close(frame) => break frame.unwrap(),
            Message::Text(text) => assert!(!text.contains("\"disconnect\""), "it would wait before it comes back"),
            _ => {}
        }
    };
    assert_eq!((u16::from(ending.code), ending.reason.as_str()), (1000, "replaced by a new connection"));
    let machine = client.get(&format!("/api/v1/machines/{ID}")).json();
    assert_eq!((&machine["hostname"], &machine["connected"]), (&json!("new-pi"), &json!(true)));
    drop(new);
}

#[test]
fn a_look_ends_when_its_time_is_over_a_chat_when_it_is_silent() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, _, client) = start(dir.path(), "session = \"1s\"");
    let (mut agent, _) = Agent::join(&hub.address, SHARED, ID, "pi");
    let started = client.post(&format!("/api/v1/machines/{ID}/sessions"), r#"{"type":"inspect","plugin":"disk"}"#);
    let conversation = started.json()["session_id"].as_str().unwrap().to_owned();
    let session = agent.take_session()["session_id"].clone();
    // It is busy all the time; that does not count for a look.
    let order = loop {
        agent.output(&session, "answer", "still at it ");
        if let Some(message) = agent.hears(std::time::Duration::from_millis(100)).filter(|it| it["type"] != "ping") {
            break message;
        }
    };
    assert_eq!((&order["type"], &order["payload"]["session_id"]), (&json!("session_cancel"), &session), "{order}");
    let mut socket = Socket::open(&client);
    socket.send(&json!({"type": "chat_request", "session_id": conversation, "resume_after_seq": 0}));
    let frames = turn(&mut socket);
    let last = frames.last().unwrap();
    assert_eq!((&last["type"], &last["code"]), (&json!("error"), &json!("provider_timeout")), "{last}");
    assert!(last["message"].as_str().unwrap().contains("worked for 1 s without a result"), "{last}");
    wait_until("its end is recorded", || (last_session(&client)["state"] == "timeout").then_some(()));
    let (mut agent, _) = Agent::join(&hub.address, SHARED, ID, "pi");
    ask(&mut socket, ID, "c1", "Are you there?");
    let session = agent.take_session()["session_id"].clone();
    assert_eq!(agent.take("session_cancel")["session_id"], session);
    let frames = turn(&mut socket);
    assert!(frames.last().unwrap()["message"].as_str().unwrap().contains("was silent for 1 s"), "{frames:?}");
}

#[test]
fn an_idle_chat_is_ended_and_the_conversation_goes_on_in_another() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, _, client) = start(dir.path(), "chat_idle = \"300ms\"");
    let (mut agent, _) = Agent::join(&hub.address, SHARED, ID, "pi");
    let mut socket = Socket::open(&client);
    ask(&mut socket, ID, "c1", "Why is it warm?");
    let first = agent.take_session()["session_id"].clone();
    agent.turn_done(&first, "answer", "The sun.");
    turn(&mut socket);
    let order = agent.take("session_cancel");
    assert_eq!((&order["session_id"], &order["reason"]), (&first, &json!("idle")));
    wait_until("its end is recorded", || (last_session(&client)["state"] == "ok").then_some(()));
    ask(&mut socket, ID, "c1", "And now?");
    let second = agent.take_session();
    assert_ne!(second["session_id"], first);
    assert_eq!(second["params"]["history"].as_array().unwrap().len(), 2);
    agent.turn_done(&second["session_id"], "answer", "Clouds.");
    assert_eq!(turn(&mut socket).last().unwrap()["type"], "done");
}

#[test]
fn a_user_has_eight_sessions_at_once_on_all_machines() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, admin, client) = start(dir.path(), "");
    let mut machines: Vec<Agent> =
        (1..=3).map(|number| Agent::join(&hub.address, SHARED, &id(number), &format!("pi{number}")).0).collect();
    let mut sockets: Vec<Socket> = (0..9).map(|_| Socket::open(&client)).collect();
    let mut sessions = Vec::new();
    for (number, socket) in sockets.iter_mut().take(8).enumerate() {
        let machine = &mut machines[number % 3];
        ask(socket, &machine.id, &format!("c{number}"), "hi");
        sessions.push(machine.take_session()["session_id"].clone());
    }
    // The third machine has room for one more, this user has not.
    let third = machines[2].id.clone();
    ask(&mut sockets[8], &third, "c8", "hi");
    let refused = turn(&mut sockets[8]);
    let last = refused.last().unwrap();
    assert_eq!((&last["code"], &last["type"]), (&json!("rate_limited"), &json!("error")), "{last}");
    assert!(last["message"].as_str().unwrap().contains("you have 8 sessions"), "{last}");
    // Others are not concerned, and the next is allowed when one has ended.
    let other = admin.new_key("other", &["admin", "chat", "sessions:read"]);
    let mut others = Socket::open(&other);
    ask(&mut others, &third, "o1", "hi");
    let session = machines[2].take_session()["session_id"].clone();
    machines[2].turn_done(&session, "answer", "done");
    assert_eq!(turn(&mut others).last().unwrap()["type"], "done");
    machines[0].turn_done(&sessions[0], "answer", "done");
    turn(&mut sockets[0]);
    ask(&mut sockets[8], &third, "c8", "hi");
    let session = machines[2].take_session()["session_id"].clone();
    machines[2].turn_done(&session, "answer", "done");
    assert_eq!(turn(&mut sockets[8]).last().unwrap()["type"], "done");
}
