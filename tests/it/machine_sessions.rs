//! Turns that run on machines: every way they begin, go on and end (contract agent-link 2.9 to 2.12, 4; items 7 to 11).

use serde_json::{Value, json};

use crate::support::agent::{Agent, ID, id};
use crate::support::hub::Builder;
use crate::support::ws::kinds;
use crate::support::{Client, Hub, Socket, wait_until};

const SHARED: &str = "a token that all machines share";

fn start(dir: &std::path::Path) -> (Hub, Client) {
    let hub = Builder::new(dir).config(&format!("[fleet]\nshared_token = \"{SHARED}\"")).start();
    let client = hub.admin().new_key("ops", &["admin", "machines:read", "machines:write", "chat", "sessions:read"]);
    (hub, client)
}

fn ask(socket: &mut Socket, conversation: &str, text: &str) {
    socket.send(
        &json!({"type": "chat_request", "agent": format!("machine:{ID}"), "session_id": conversation, "message": text}),
    );
}

/// The states of the machine's sessions, the newest first.
fn states(client: &Client) -> Vec<String> {
    let answer = client.get(&format!("/api/v1/machines/{ID}/sessions")).json();
    answer["sessions"].as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect()
}

/// Frames of a turn without those of machines.
fn turn(socket: &mut Socket) -> Vec<Value> {
    socket.turn().into_iter().filter(|frame| frame["type"] != "machine" && frame["type"] != "alert").collect()
}

fn text(frames: &[Value]) -> String {
    frames
        .iter()
        .filter(|frame| frame["type"] == "content_delta")
        .map(|frame| frame["text"].as_str().unwrap())
        .collect()
}

#[track_caller]
fn failed(frames: &[Value], code: &str, part: &str) {
    let last = frames.last().unwrap();
    assert_eq!((&last["type"], &last["code"]), (&json!("error"), &json!(code)), "{last}");
    assert!(last["message"].as_str().unwrap().contains(part), "{last}");
}

#[test]
fn a_chat_goes_on_in_its_session() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, client) = start(dir.path());
    let (mut agent, ack) = Agent::join(&hub.address, SHARED, ID, "pi");
    let mut socket = Socket::open(&client);
    ask(&mut socket, "c1", "Why is /data <full>?");
    let order = agent.next();
    let start: holt::fleet::wire::SessionStart = serde_json::from_value(order["payload"].clone()).unwrap();
    let sig: holt::fleet::wire::Signature = serde_json::from_value(order["sig"].clone()).unwrap();
    let key = ack["hub_key"].as_str().unwrap();
    let now = holt::rt::clock::unix_ms();
    assert!(holt::fleet::sign::verify_start(key, ID, order["id"].as_str().unwrap(), &start, &sig, now).is_ok());
    assert_eq!((start.session_type.as_str(), start.user_name.as_str()), ("chat", "key:ops"));
    assert_eq!(start.params["message"], "Why is /data <full>?");
    assert!(!start.params.contains_key("allow_shell"));
    assert_eq!(states(&client), ["running"]);
    agent.ack(&order, "");
    let session = json!(start.session_id);
    agent.output(&session, "thinking", "[Round 1] thinking...");
    agent.output(&session, "tool_call", "[Tool] disk_overview ");
    agent.output(&session, "tool_result", "[Tool done] disk_overview (ok, 123B, 45.1ms)");
    agent.output(&session, "answer", "I looked.");
    agent.output(&json!("nobody's"), "answer", "not for you");
    agent.turn_done(&session, "answer", "Old clips.");
    let frames = turn(&mut socket);
    assert_eq!(text(&frames), "I looked.\n\nOld clips.");
    let end = frames.iter().find(|frame| frame["type"] == "tool_end").unwrap();
    assert_eq!((&end["tool"], &end["round"], &end["duration_ms"]), (&json!("disk_overview"), &json!(1), &json!(45)));
    assert_eq!(kinds(&frames).last().map(String::as_str), Some("done"));
    // The next message goes into the same session, and only now.
    ask(&mut socket, "c1", "Which ones?");
    let input = agent.take("session_input");
    assert_eq!((&input["session_id"], &input["message"]), (&session, &json!("Which ones?")));
    ask(&mut socket, "c1", "And now?");
    assert!(agent.hears(std::time::Duration::from_millis(300)).is_none(), "no input while a turn runs");
    agent.turn_done(&session, "error", "the model fell over");
    failed(&turn(&mut socket), "provider_upstream", "the model fell over");
    // An error ends the turn, not the chat.
    assert_eq!(agent.take("session_input")["message"], "And now?");
    agent.turn_done(&session, "answer", "Better.");
    assert_eq!(text(&turn(&mut socket)), "Better.");
    assert_eq!(states(&client), ["running"]);
    // A machine that came back knows nothing of it: a new session, with what was said before.
    drop(agent);
    wait_until("it is gone", || {
        (client.get(&format!("/api/v1/machines/{ID}")).json()["connected"] == false).then_some(())
    });
    let (mut agent, _) = Agent::join(&hub.address, SHARED, ID, "pi");
    ask(&mut socket, "c1", "Again?");
    let again = agent.take_session();
    assert_ne!(again["session_id"], session);
    let said: Vec<&Value> = again["params"]["history"].as_array().unwrap().iter().map(|it| &it["content"]).collect();
    assert!(said.contains(&&json!("Which ones?")) && said.last() == Some(&&json!("Better.")), "{said:?}");
    agent.turn_done(&again["session_id"], "answer", "Yes.");
    turn(&mut socket);
    // Cancelling ends the session there.
    ask(&mut socket, "c1", "Long one");
    agent.take("session_input");
    agent.output(&again["session_id"], "answer", "half an");
    wait_until("something came", || (socket.next()["type"] == "content_delta").then_some(()));
    socket.send(&json!({"type": "cancel", "session_id": "c1"}));
    assert_eq!(agent.take("session_cancel")["session_id"], again["session_id"]);
    failed(&turn(&mut socket), "cancelled", "cancelled");
    assert_eq!(states(&client)[0], "cancelled");
    // What still comes of it is nobody's.
    agent.done(&again["session_id"], "");
    agent.done(&again["session_id"], "too late");
    ask(&mut socket, "c1", "Hello?");
    let third = agent.take_session();
    agent.turn_done(&third["session_id"], "answer", "Hello.");
    assert_eq!(text(&turn(&mut socket)), "Hello.");
}

#[test]
fn every_refusal_of_a_machine_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, client) = start(dir.path());
    let mut agent = Agent::reference(&hub.address, SHARED, ID, "pi");
    let mut socket = Socket::open(&client);
    for (reason, code, part) in [
        ("chat engine not available", "provider_config", "no model"),
        ("diagnose engine not available", "provider_config", "no model"),
        ("max concurrent sessions reached", "rate_limited", "busy"),
        ("duplicate session_id", "internal", "did not understand"),
        ("missing session_id", "internal", "did not understand"),
        ("invalid payload", "internal", "did not understand"),
        ("the moon is full", "provider_upstream", "the moon is full"),
    ] {
        ask(&mut socket, "c1", "hi");
        let start = agent.next();
        agent.ack(&start, reason);
        failed(&turn(&mut socket), code, part);
    }
    assert!(states(&client).iter().all(|state| state == "error"));
    // No answer at all.
    ask(&mut socket, "c1", "hi");
    let start = agent.next();
    failed(&turn(&mut socket), "provider_timeout", "did not answer within 10 s");
    assert_eq!(agent.take("session_cancel")["session_id"], start["payload"]["session_id"]);
    // Ids are never used twice.
    let answer = client.get(&format!("/api/v1/machines/{ID}/sessions")).json();
    let mut ids: Vec<&str> =
        answer["sessions"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 8);
    drop(agent);
    wait_until("it is gone", || {
        (client.get(&format!("/api/v1/machines/{ID}")).json()["connected"] == false).then_some(())
    });
    ask(&mut socket, "c1", "hi");
    failed(&turn(&mut socket), "provider_unreachable", "not connected");
}

#[test]
fn every_ending_of_a_look_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, client) = start(dir.path());
    let mut agent = Agent::reference(&hub.address, SHARED, ID, "pi");
    let mut socket = Socket::open(&client);
    let mut number = 0;
    let mut begin = |agent: &mut Agent, socket: &mut Socket, body: Value| {
        number += 1;
        let conversation = format!("look-{number}");
        let mut body = body;
        body["session_id"] = json!(conversation);
        let answer = client.post(&format!("/api/v1/machines/{ID}/sessions"), &body.to_string());
        assert_eq!(answer.status, 202, "{}", answer.text());
        socket.attach(&conversation, 0);
        agent.take_session()
    };
    let inspect = json!({"type": "inspect", "plugin": "disk"});

    let start = begin(&mut agent, &mut socket, json!({"type": "diagnose", "plugin": "disk", "descriptions": "92 %"}));
    assert_eq!((&start["session_type"], &start["params"]["plugin"]), (&json!("diagnose"), &json!("disk")));
    assert_eq!(start["params"]["descriptions"], "92 %");
    agent.output(&start["session_id"], "answer", "1. All is well.");
    agent.done(&start["session_id"], "1. All is well.");
    let frames = turn(&mut socket);
    assert_eq!(text(&frames), "1. All is well.", "the report is shown once");

    let start = begin(&mut agent, &mut socket, inspect.clone());
    agent.done(&start["session_id"], "Only a report.");
    assert_eq!(text(&turn(&mut socket)), "Only a report.");

    let start = begin(&mut agent, &mut socket, inspect.clone());
    agent.done(&start["session_id"], "");
    failed(&turn(&mut socket), "provider_upstream", "returned nothing");

    for (code, expected, part) in [
        ("diagnose_failed", "provider_upstream", "connection refused"),
        ("missing_plugin", "provider_config", "which plugin"),
        ("invalid_type", "provider_config", "knows no session"),
        ("engine_unavailable", "provider_config", "no model"),
    ] {
        let start = begin(&mut agent, &mut socket, inspect.clone());
        agent.send("session_error", json!({"session_id": start["session_id"], "error": "AI API error at round 1: connection refused", "code": code}));
        agent.done(&start["session_id"], "");
        failed(&turn(&mut socket), expected, part);
    }
    for (outcome, part) in [("timeout", "time was over"), ("cancelled", "cancelled there"), ("error", "it failed")] {
        let start = begin(&mut agent, &mut socket, inspect.clone());
        let metadata = json!({"outcome": outcome});
        agent.send(
            "session_output",
            json!({"session_id": start["session_id"], "delta": "", "stage": "", "done": true, "metadata": metadata}),
        );
        failed(&turn(&mut socket), "provider_upstream", part);
    }
    // Two at once, and the connection breaks: both end.
    let mut other = Socket::open(&client);
    begin(&mut agent, &mut socket, inspect.clone());
    begin(&mut agent, &mut other, inspect);
    drop(agent);
    failed(&turn(&mut socket), "provider_unreachable", "connection lost");
    failed(&turn(&mut other), "provider_unreachable", "connection lost");
    let mut counted = std::collections::BTreeMap::new();
    for state in states(&client) {
        *counted.entry(state).or_insert(0) += 1;
    }
    let expected = [("cancelled", 1), ("empty", 1), ("error", 5), ("lost", 2), ("ok", 2), ("timeout", 1)];
    assert_eq!(counted, expected.map(|(state, count)| (state.to_owned(), count)).into());
}

#[test]
fn a_machine_runs_only_so_much_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, client) = start(dir.path());
    let (mut agent, _) = Agent::join(&hub.address, SHARED, ID, "pi");
    let mut sockets: Vec<Socket> = (0..4).map(|_| Socket::open(&client)).collect();
    let mut sessions = Vec::new();
    for (number, socket) in sockets.iter_mut().take(3).enumerate() {
        ask(socket, &format!("c{number}"), "hi");
        sessions.push(agent.take_session()["session_id"].clone());
    }
    ask(&mut sockets[3], "c3", "hi");
    failed(&turn(&mut sockets[3]), "rate_limited", "busy");
    for (session, socket) in sessions.iter().zip(&mut sockets) {
        agent.turn_done(session, "answer", "done");
        turn(socket);
    }
    ask(&mut sockets[3], "c3", "hi");
    let fourth = agent.take_session()["session_id"].clone();
    agent.turn_done(&fourth, "answer", "done");
    turn(&mut sockets[3]);
    assert_eq!(states(&client), ["running"; 4]);
}

#[test]
fn an_idle_chat_of_the_reference_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, client) = start(dir.path());
    let mut agent = Agent::reference(&hub.address, SHARED, ID, "pi");
    let mut socket = Socket::open(&client);
    let mut first = Value::Null;
    for number in 0..3 {
        ask(&mut socket, &format!("c{number}"), "hi");
        let session = agent.take_session();
        assert!(session["params"].get("history").is_none());
        agent.turn_done(&session["session_id"], "answer", "done");
        turn(&mut socket);
        if number == 0 {
            first = session["session_id"].clone();
        }
    }
    ask(&mut socket, "c3", "hi");
    assert_eq!(agent.take("session_cancel")["session_id"], first);
    agent.done(&first, "");
    let fourth = agent.take_session();
    agent.turn_done(&fourth["session_id"], "answer", "done");
    assert_eq!(text(&turn(&mut socket)), "done");
}

#[test]
fn only_those_who_may_operate_a_machine() {
    let dir = tempfile::tempdir().unwrap();
    let rules = "[[fleet.access]]\nwho = \"key:phone\"\nlabels = { site = \"home\" }\nallow = [\"chat\"]\n";
    let hub = Builder::new(dir.path()).config(&format!("[fleet]\nshared_token = \"{SHARED}\"\n{rules}")).start();
    let admin = hub.admin().new_key("boss", &["admin", "audit:read"]);
    let phone = admin.new_key("phone", &["chat"]);
    let other = admin.new_key("other", &["chat", "machines:read"]);
    let (mut agent, _) = Agent::join(&hub.address, SHARED, ID, "pi");
    let (_second, _) = Agent::join(&hub.address, SHARED, &id(2), "nas");
    let look = |client: &Client| {
        client.post(&format!("/api/v1/machines/{ID}/sessions"), r#"{"type":"inspect","plugin":"cpu"}"#).status
    };
    assert!([403, 404].contains(&look(&phone)), "{}", look(&phone));
    assert!([403, 404].contains(&look(&other)));
    let mut socket = Socket::open(&phone);
    ask(&mut socket, "", "hi");
    let session = agent.take_session();
    assert_eq!(session["user_name"], "key:phone");
    agent.turn_done(&session["session_id"], "answer", "hello");
    assert_eq!(text(&turn(&mut socket)), "hello");
    let log = admin.get("/api/v1/audit?action=machine.").json();
    let entries: Vec<(&str, &str, &str)> = log["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["actor"].as_str().unwrap(), it["action"].as_str().unwrap(), it["result"].as_str().unwrap()))
        .collect();
    assert!(entries.contains(&("key:phone", "machine.chat", "ok")), "{entries:?}");
    assert!(entries.contains(&("key:phone", "machine.inspect", "denied")), "{entries:?}");
    assert!(entries.iter().any(|(actor, _, result)| (*actor, *result) == ("key:other", "denied")), "{entries:?}");
}

#[test]
fn what_ran_when_the_hub_died_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (mut hub, client) = start(dir.path());
    let (mut agent, _) = Agent::join(&hub.address, SHARED, ID, "pi");
    let mut socket = Socket::open(&client);
    ask(&mut socket, "c1", "hi");
    agent.take_session();
    hub.kill();
    drop(socket);
    let hub = Builder::new(dir.path()).start();
    assert_eq!(states(&client.at(&hub.address)), ["lost"]);
}

#[test]
fn a_message_that_is_too_long_for_the_link_is_refused_there() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, client) = start(dir.path());
    let (mut agent, _) = Agent::join(&hub.address, SHARED, ID, "pi");
    let mut socket = Socket::open(&client);
    // Long answers, so that the history alone would not fit.
    for number in 0..3 {
        ask(&mut socket, "c1", &format!("question {number}"));
        let session = if number == 0 {
            agent.take_session()["session_id"].clone()
        } else {
            agent.take("session_input")["session_id"].clone()
        };
        agent.turn_done(&session, "answer", &format!("{number}{}", "<".repeat(150_000)));
        turn(&mut socket);
    }
    drop(agent);
    wait_until("it is gone", || {
        (client.get(&format!("/api/v1/machines/{ID}")).json()["connected"] == false).then_some(())
    });
    let (mut agent, _) = Agent::join(&hub.address, SHARED, ID, "pi");
    ask(&mut socket, "c1", "and?");
    let order = agent.next();
    assert!(order.to_string().len() < 1_048_576);
    agent.ack(&order, "");
    let history = order["payload"]["params"]["history"].as_array().unwrap();
    assert!(!history.is_empty() && history.len() < 6, "{}", history.len());
    agent.turn_done(&order["payload"]["session_id"], "answer", "short");
    assert_eq!(text(&turn(&mut socket)), "short");
}
