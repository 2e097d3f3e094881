//! Remote sessions on the agent (contract agent-link 2.9 - 2.12, 4): a scripted runner, a strict hub.

use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use holt::fleet::link::Timers;
use holt::fleet::link::runner::{
    ChatHandle, ChatRunner, ChatSessionOpts, DiagnoseRunner, RunError, Stage, StreamCallback,
};
use holt::fleet::wire::Metadata;
use holt::rt::Cancel;
use serde_json::{Map, Value, json};

use crate::support::link_agent::{SHORT, TestLink, fast, state_dir};
use crate::support::{LinkConn, LinkHub, PATIENCE};

/// Does what the plugin's name, or the message, says.
#[derive(Clone)]
struct Script {
    gate_tx: Sender<()>,
    gate_rx: Receiver<()>,
}

impl Script {
    fn new() -> Self {
        let (gate_tx, gate_rx) = bounded(100);
        Self { gate_tx, gate_rx }
    }

    fn play(&self, word: &str, callback: &mut StreamCallback<'_>, cancel: &Cancel) -> Result<String, RunError> {
        match word {
            "fail" => Err(RunError::Failed("AI API error at round 1: no".to_owned())),
            "empty" => Ok(String::new()),
            "panic" => panic!("expected by the test"),
            "gate" => {
                self.gate_rx.recv_timeout(PATIENCE).unwrap();
                Ok("through".to_owned())
            }
            "hang" => {
                let (tx, rx) = bounded::<()>(1);
                cancel.set_hook(move || {
                    let _ = tx.try_send(());
                });
                rx.recv_timeout(PATIENCE).unwrap();
                Err(RunError::Cancelled)
            }
            "flood" => {
                // The queue is bounded: this waits for the hub, and ends when it is gone.
                while !cancel.is_set() {
                    callback(&"x".repeat(10_000), Stage::Thinking, Metadata::default());
                }
                Err(RunError::Cancelled)
            }
            "tools" => {
                callback(
                    "[Round 1] AI thinking...",
                    Stage::Thinking,
                    Metadata { round: Some(1), ..Metadata::default() },
                );
                let tool = |tool_ok, duration_ms| Metadata {
                    tool: Some("host_disk".into()),
                    tool_ok,
                    duration_ms,
                    ..Metadata::default()
                };
                callback(r#"[Tool] host_disk {"path":"/data"}"#, Stage::ToolCall, tool(None, None));
                if cancel.is_set() {
                    return Err(RunError::Cancelled);
                }
                callback("[Tool done] host_disk (ok, 12B, 3ms)", Stage::ToolResult, tool(Some(true), Some(3)));
                callback("all is well", Stage::Answer, Metadata::default());
                Ok("all is well".to_owned())
            }
            other => Ok(format!("you said {other}")),
        }
    }
}

impl DiagnoseRunner for Script {
    fn run_streaming(
        &self,
        mode: &str,
        plugin: &str,
        target: &str,
        params: &Map<String, Value>,
        callback: &mut StreamCallback<'_>,
        cancel: &Cancel,
    ) -> Result<String, RunError> {
        if plugin == "echo" || mode == "diagnose" && plugin == "system" {
            return Ok(format!("{mode} {plugin} {target} {}", Value::Object(params.clone())));
        }
        self.play(plugin, callback, cancel)
    }
}

impl ChatRunner for Script {
    fn new_session(
        &self,
        opts: ChatSessionOpts,
        callback: &mut StreamCallback<'_>,
        _: &Cancel,
    ) -> Result<Box<dyn ChatHandle>, RunError> {
        if opts.allow_shell {
            return Err(RunError::Failed("no".to_owned()));
        }
        callback("looking around", Stage::Thinking, Metadata::default());
        Ok(Box::new(self.clone()))
    }
}

impl ChatHandle for Script {
    fn handle_message(
        &mut self,
        input: &str,
        callback: &mut StreamCallback<'_>,
        cancel: &Cancel,
    ) -> Result<String, RunError> {
        self.play(input, callback, cancel)
    }
}

struct Rig {
    hub: LinkHub,
    script: Script,
    agent: TestLink,
    dir: tempfile::TempDir,
}

fn rig(timers: Timers) -> (Rig, LinkConn) {
    let (hub, dir, script) = (LinkHub::start(), tempfile::tempdir().unwrap(), Script::new());
    let agent = TestLink::start(dir.path(), &hub.address(), timers);
    agent.link.set_diagnose_runner(Arc::new(script.clone()));
    agent.link.set_chat_runner(Arc::new(script.clone()));
    let conn = hub.registered();
    (Rig { hub, script, agent, dir }, conn)
}

fn inspect(conn: &mut LinkConn, id: &str, plugin: &str) -> Vec<Value> {
    assert_eq!(conn.start_session(id, "inspect", json!({"plugin": plugin})), json!({"ok": true}));
    conn.session_to_end(id)
}

fn outcome(said: &[Value]) -> &str {
    let last = &said.last().unwrap()["payload"];
    assert_eq!((&last["done"], &last["delta"], &last["stage"]), (&json!(true), &json!(""), &json!("")));
    last["metadata"]["outcome"].as_str().unwrap()
}

fn input(conn: &mut LinkConn, session: &str, message: &str) -> Value {
    let payload = json!({"session_id": session, "message": message});
    conn.send(&json!({"type": "session_input", "id": format!("in-{message}"), "payload": payload}));
    conn.ack_of(&format!("in-{message}"))
}

/// The end of a turn.
fn turn(conn: &mut LinkConn) -> (String, String) {
    loop {
        let payload = conn.next_of("session_output")["payload"].clone();
        assert_eq!(payload["done"], false, "{payload}");
        if payload["metadata"]["turn_done"] == true {
            return (payload["stage"].as_str().unwrap().to_owned(), payload["delta"].as_str().unwrap().to_owned());
        }
    }
}

fn audit(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(state_dir(dir).join("audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_run_is_told_from_begin_to_end_and_recorded() {
    let (rig, mut conn) = rig(fast());
    let said = inspect(&mut conn, "s-1", "tools");
    let stages: Vec<&str> = said.iter().map(|output| output["payload"]["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["thinking", "tool_call", "tool_result", "answer", ""]);
    for (number, output) in said.iter().enumerate() {
        assert_eq!(output["payload"]["metadata"]["seq"], number, "{output}");
    }
    assert_eq!(said[2]["payload"]["metadata"]["duration_ms"], 3);
    assert_eq!(said[4]["payload"]["report"], "all is well");
    assert_eq!(outcome(&said), "ok");
    let lines = audit(rig.dir.path());
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["start", "tool", "tool_result", "end"]);
    for line in &lines {
        assert_eq!((&line["session"], &line["user"]), (&json!("s-1"), &json!("ana")), "{line}");
        assert!(line["time"].as_str().unwrap().ends_with('Z') && line["hub"].as_str().unwrap().starts_with("http://"));
    }
    assert_eq!((&lines[1]["tool"], &lines[1]["arguments"]), (&json!("host_disk"), &json!(r#"{"path":"/data"}"#)));
    assert_eq!(lines[3]["outcome"], "ok");
    assert!(lines[3]["duration_ms"].is_u64());
}

#[test]
fn every_ending_is_told_apart() {
    let (_rig, mut conn) = rig(fast());
    let error = |said: &[Value]| {
        let error = said[said.len() - 2].clone();
        assert_eq!(error["type"], "session_error", "{said:?}");
        (error["payload"]["code"].as_str().unwrap().to_owned(), error["payload"]["error"].as_str().unwrap().to_owned())
    };
    let said = inspect(&mut conn, "1", "empty");
    assert_eq!((outcome(&said), said.len()), ("empty", 1));
    assert!(said[0]["payload"].get("report").is_none());
    let said = inspect(&mut conn, "2", "fail");
    assert_eq!(outcome(&said), "error");
    assert_eq!(error(&said), ("diagnose_failed".to_owned(), "AI API error at round 1: no".to_owned()));
    let said = inspect(&mut conn, "3", "panic");
    assert_eq!(error(&said), ("diagnose_failed".to_owned(), "panic: expected by the test".to_owned()));
    conn.start_session("4", "inspect", json!({"plugin": 7}));
    assert_eq!(error(&conn.session_to_end("4")).0, "missing_plugin");
    assert_eq!(conn.start_session("5", "dance", json!({}))["ok"], true);
    assert_eq!(error(&conn.session_to_end("5")).0, "invalid_type");
    assert_eq!(conn.start_session("6", "diagnose", json!({"target": []}))["ok"], true);
    let said = conn.session_to_end("6");
    let report = r#"diagnose system localhost {"plugin":"system","target":"localhost"}"#;
    assert_eq!(said[0]["payload"]["report"], report);
    // Cancelled: no error, no report, and the id is free at once.
    conn.start_session("7", "inspect", json!({"plugin": "hang"}));
    conn.send(&json!({"type": "session_cancel", "id": "c", "payload": {"session_id": "7", "reason": "tab closed"}}));
    assert_eq!(conn.ack_of("c"), json!({"ok": true}));
    let said = conn.session_to_end("7");
    assert_eq!((outcome(&said), said.len()), ("cancelled", 1));
    conn.send(&json!({"type": "session_cancel", "id": "c2", "payload": {"session_id": "7"}}));
    assert_eq!(conn.ack_of("c2")["error"], "no such session");
}

#[test]
fn a_run_has_a_time_limit() {
    let (_rig, mut conn) = rig(Timers { job: SHORT, ..fast() });
    let said = inspect(&mut conn, "1", "hang");
    assert_eq!(outcome(&said), "timeout");
    assert_eq!(said[0]["payload"]["code"], "diagnose_failed");
}

#[test]
fn starts_are_refused_in_the_order_of_the_contract() {
    let (hub, dir) = (LinkHub::start(), tempfile::tempdir().unwrap());
    let agent = TestLink::start(dir.path(), &hub.address(), fast());
    let mut conn = hub.registered();
    let refused = |conn: &mut LinkConn, payload: Option<Value>| {
        let mut message = json!({"type": "session_start", "id": "r"});
        if let Some(payload) = payload {
            message["payload"] = payload;
        }
        conn.send(&message);
        let ack = conn.ack_of("r");
        assert_eq!(ack["ok"], false);
        ack["error"].as_str().unwrap().to_owned()
    };
    let start = |id: &str, kind: &str| Some(json!({"session_id": id, "session_type": kind, "user_name": "ana"}));
    assert_eq!(refused(&mut conn, None), "invalid payload");
    assert_eq!(refused(&mut conn, Some(json!([1]))), "invalid payload");
    assert_eq!(refused(&mut conn, Some(json!({"session_id": "x", "params": 7}))), "invalid payload");
    assert_eq!(refused(&mut conn, Some(Value::Null)), "missing session_id");
    assert_eq!(refused(&mut conn, start("", "chat")), "missing session_id");
    assert_eq!(refused(&mut conn, start("1", "chat")), "chat engine not available");
    assert_eq!(refused(&mut conn, start("1", "dance")), "diagnose engine not available");
    let script = Script::new();
    agent.link.set_diagnose_runner(Arc::new(script.clone()));
    agent.link.set_chat_runner(Arc::new(script.clone()));
    let gate = json!({"plugin": "gate"});
    assert_eq!(conn.start_session("a", "inspect", gate.clone())["ok"], true);
    assert_eq!(refused(&mut conn, start("a", "inspect")), "duplicate session_id");
    // Null is as if absent.
    let nulls = json!({"session_id": "b", "session_type": "inspect", "user_name": null, "params": null});
    conn.send(&json!({"type": "session_start", "id": "n", "payload": nulls}));
    assert_eq!(conn.ack_of("n")["ok"], true);
    conn.session_to_end("b");
    assert_eq!(conn.start_session("c", "inspect", gate)["ok"], true);
    assert_eq!(refused(&mut conn, start("a", "inspect")), "max concurrent sessions reached");
    assert_eq!(refused(&mut conn, start("d", "dance")), "max concurrent sessions reached");
    // Chats count only while a turn runs, and have their own limit.
    for number in 0..8 {
        assert_eq!(conn.start_session(&format!("chat-{number}"), "chat", json!({}))["ok"], true);
    }
    assert_eq!(refused(&mut conn, start("chat-8", "chat")), "max concurrent sessions reached");
    script.gate_tx.send(()).unwrap();
    script.gate_tx.send(()).unwrap();
    // In whatever order they end.
    for _ in 0..2 {
        while conn.next_of("session_output")["payload"]["done"] == false {}
    }
    assert_eq!(input(&mut conn, "chat-0", "hello")["ok"], true);
    assert_eq!(turn(&mut conn), ("answer".to_owned(), "you said hello".to_owned()));
}

#[test]
fn a_chat_goes_on_until_it_is_ended() {
    let (rig, mut conn) = rig(fast());
    conn.start_session("c", "chat", json!({"message": "first"}));
    assert_eq!(turn(&mut conn), ("answer".to_owned(), "you said first".to_owned()));
    for (message, stage, text) in [
        ("fail", "error", "AI API error at round 1: no"),
        ("panic", "error", "internal error"),
        ("again", "answer", "you said again"),
    ] {
        assert_eq!(input(&mut conn, "c", message), json!({"ok": true}));
        assert_eq!(turn(&mut conn), (stage.to_owned(), text.to_owned()));
    }
    // One turn at a time; eight messages wait.
    assert_eq!(input(&mut conn, "c", "gate")["ok"], true);
    let mut taken = 0;
    let full = loop {
        let ack = input(&mut conn, "c", &format!("n{taken}"));
        if ack["ok"] == false {
            break ack;
        }
        taken += 1;
    };
    assert_eq!(full["error"], "input queue full");
    // The first of them may have been waiting when the gate's own message was still in the queue.
    assert!((7..=8).contains(&taken), "{taken}");
    rig.script.gate_tx.send(()).unwrap();
    assert_eq!(turn(&mut conn).1, "through");
    for number in 0..taken {
        assert_eq!(turn(&mut conn).1, format!("you said n{number}"));
    }
    assert_eq!(input(&mut conn, "c", "")["error"], "empty message");
    assert_eq!(input(&mut conn, "zzz", "x")["error"], "no such session");
    conn.start_session("i", "inspect", json!({"plugin": "gate"}));
    assert_eq!(input(&mut conn, "i", "x")["error"], "not a chat session");
    rig.script.gate_tx.send(()).unwrap();
    conn.session_to_end("i");
    conn.send(&json!({"type": "session_cancel", "id": "end", "payload": {"session_id": "c", "reason": "done"}}));
    let said = conn.session_to_end("c");
    assert_eq!(outcome(&said), "cancelled");
    // One that cannot be set up.
    assert_eq!(conn.start_session("no", "chat", json!({"allow_shell": true}))["ok"], true);
    let said = conn.session_to_end("no");
    assert_eq!((outcome(&said), said[0]["payload"]["code"].as_str()), ("error", Some("chat_init_failed")));
}

#[test]
fn an_idle_chat_ends() {
    let (_rig, mut conn) = rig(Timers { chat_idle: SHORT, ..fast() });
    conn.start_session("c", "chat", json!({}));
    assert_eq!(outcome(&conn.session_to_end("c")), "timeout");
}

#[test]
fn a_lost_connection_ends_its_sessions() {
    let (rig, mut conn) = rig(fast());
    conn.start_session("f", "inspect", json!({"plugin": "flood"}));
    conn.start_session("h", "inspect", json!({"plugin": "hang"}));
    conn.start_session("c", "chat", json!({}));
    drop(conn);
    let mut conn = rig.hub.registered();
    // All places come free, and ids may be used again.
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let ack = conn.start_session("h", "inspect", json!({"plugin": "tools"}));
        if ack["ok"] == true {
            break;
        }
        assert_eq!(ack["error"], "max concurrent sessions reached");
        assert!(std::time::Instant::now() < deadline);
    }
    assert_eq!(outcome(&conn.session_to_end("h")), "ok");
}

#[test]
fn a_hub_that_asks_but_does_not_read_is_left() {
    let (rig, mut conn) = rig(Timers { write: SHORT * 3, ..fast() });
    conn.start_session("f", "inspect", json!({"plugin": "flood"}));
    // It reads no more; the agent's session waits, its link gives up.
    let mut next = rig.hub.registered();
    drop(conn);
    assert_eq!(outcome(&inspect(&mut next, "g", "tools")), "ok");
}

#[test]
fn a_stop_ends_sessions_with_a_word() {
    let (rig, mut conn) = rig(fast());
    conn.start_session("h", "inspect", json!({"plugin": "hang"}));
    rig.agent.ask_to_stop();
    assert_eq!(outcome(&conn.session_to_end("h")), "cancelled");
    assert_eq!(conn.closed(), Some((1000, "agent stopping".to_owned())));
}

#[test]
fn what_cannot_be_recorded_is_not_done() {
    let (hub, dir) = (LinkHub::start(), tempfile::tempdir().unwrap());
    std::fs::create_dir_all(state_dir(dir.path())).unwrap();
    std::os::unix::fs::symlink("/dev/full", state_dir(dir.path()).join("audit.jsonl")).unwrap();
    let agent = TestLink::start(dir.path(), &hub.address(), fast());
    agent.link.set_diagnose_runner(Arc::new(Script::new()));
    let mut conn = hub.registered();
    let ack = conn.start_session("1", "inspect", json!({"plugin": "tools"}));
    assert_eq!(ack, json!({"ok": false, "error": "the audit file of this machine cannot be written"}));
    let again = conn.start_session("1", "inspect", json!({"plugin": "tools"}));
    assert_eq!(again["ok"], false, "nothing is left of the first: {again}");
}
