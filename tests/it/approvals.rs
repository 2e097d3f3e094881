//! Asking before acting: decisions from everywhere, restarts in between, rules, lateness (contract 10, engine 3).

use std::process::Command;

use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::ws::kinds;
use crate::support::{Client, Hub, Model, Socket, wait_until};

const SET: &str = r#"tool kv_set {"key":"a","value":"1"}"#;

/// Scopes for everything that these tests touch.
const SCOPES: &[&str] =
    &["chat", "sessions:read", "approvals:read", "approvals:write", "kv:read", "audit:read", "admin"];

struct Bench {
    dir: tempfile::TempDir,
    model: Model,
    config: String,
}

impl Bench {
    fn new(config: &str) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), model: Model::start(), config: config.to_owned() }
    }

    fn hub(&self) -> Hub {
        Builder::new(self.dir.path()).config(&self.config).model(&self.model).start()
    }
}

fn client(hub: &Hub) -> Client {
    hub.admin().new_key("all", SCOPES)
}

/// Sends a message whose tool has to be asked for; its request.
#[track_caller]
fn ask(socket: &mut Socket, session: &str) -> Value {
    socket.chat(session, SET);
    wait_for(socket, "tool_approval")
}

#[track_caller]
fn wait_for(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let frame = socket.next();
        if frame["type"] == kind {
            return frame;
        }
        assert!(frame["type"] != "done", "the turn ended without {kind}");
    }
}

fn respond(socket: &mut Socket, id: &Value, action: &str) {
    socket.send(&json!({"type": "approval_response", "approval_id": id, "action": action}));
}

fn pending(client: &Client) -> Vec<Value> {
    client.get("/api/v1/approvals?status=pending").json().as_array().unwrap().clone()
}

fn value_of(client: &Client) -> Option<String> {
    let answer = client.get("/api/v1/kv/default/a");
    (answer.status == 200).then(|| answer.json()["value"].as_str().unwrap().to_owned())
}

#[test]
fn a_supervised_call_asks_and_goes_on_when_allowed() {
    let bench = Bench::new("");
    let hub = bench.hub();
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    let asked = ask(&mut socket, "s1");
    assert_eq!(asked["text"], r#"Execute tool "kv_set" with args: {"key":"a","value":"1"}"#);
    let id = asked["approval_id"].as_str().unwrap();
    assert_eq!(asked["approval_callback"], format!("appr:{id}"));
    assert_eq!((&asked["tool"], &asked["tool_id"], &asked["round"]), (&json!("kv_set"), &json!("call_t"), &json!(1)));
    let listed = pending(&all);
    assert_eq!(listed.len(), 1);
    let expected = json!({
        "id": id, "agent_name": "default", "kind": "tool_call", "status": "pending",
        "payload": r#"{"key":"a","value":"1"}"#, "callback_data": format!("appr:{id}"), "external_id": "s1",
        "adapter_name": "ws", "conversation_id": "s1", "tool": "kv_set",
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(listed[0][key], *value, "{key}");
    }
    assert_eq!(value_of(&all), None);
    respond(&mut socket, &asked["approval_id"], "approve");
    let frames = socket.turn();
    assert_eq!(
        kinds(&frames),
        ["tool_decision", "tool_start", "tool_end", "thinking", "content_delta", "usage", "content", "done"]
    );
    assert_eq!(frames[0]["approval_status"], "approved");
    assert_eq!(value_of(&all).as_deref(), Some("1"));
    let row = all.get(&format!("/api/v1/approvals/{id}")).json();
    assert_eq!((&row["status"], &row["resolved_by"]), (&json!("approved"), &json!("ws")));
    let audit = all.get("/api/v1/audit?limit=10").json();
    let done: Vec<(&str, &str, &str)> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["actor"].as_str().unwrap(), e["action"].as_str().unwrap(), e["target"].as_str().unwrap()))
        .collect();
    assert_eq!(done[..2], [("agent:default", "tool.call", "kv_set"), ("key:all", "approval.approve", id)]);
    assert_eq!(audit["entries"][1]["source"], "127.0.0.1");
    // Late ones are told so, on both ways.
    respond(&mut socket, &asked["approval_id"], "deny");
    let late = socket.next();
    assert_eq!((&late["type"], &late["code"]), (&json!("error"), &json!("already_resolved")));
    let late = all.post(&format!("/api/v1/approvals/{id}/deny"), "");
    assert_eq!((late.status, &late.json()["code"]), (409, &json!("already_resolved")));
    assert!(late.json()["error"].as_str().unwrap().contains("approved via ws"), "{}", late.text());
    respond(&mut socket, &json!("0000000000000000"), "approve");
    assert_eq!(socket.next()["code"], "not_found");
    assert_eq!(all.post("/api/v1/approvals/nope/approve", "").status, 404);
    assert_eq!(all.get("/api/v1/approvals?status=maybe").status, 400);
}

#[test]
fn a_denied_call_is_not_made_and_the_model_is_told() {
    let bench = Bench::new("");
    let hub = bench.hub();
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    let asked = ask(&mut socket, "s1");
    let answer = all.post(&format!("/api/v1/approvals/{}/deny", asked["approval_id"].as_str().unwrap()), "");
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("denied")));
    let frames = socket.turn();
    assert_eq!(kinds(&frames), ["tool_decision", "thinking", "content_delta", "usage", "content", "done"]);
    assert_eq!(frames[4]["text"], "done: The user denied this tool call. It was not made.");
    assert_eq!(value_of(&all), None);
}

#[test]
fn approving_needs_its_scope_everywhere() {
    let bench = Bench::new("");
    let hub = bench.hub();
    let admin = hub.admin();
    let (talker, reader) = (admin.new_key("talker", &["chat"]), admin.new_key("reader", &["approvals:read"]));
    let mut socket = Socket::open(&talker);
    let asked = ask(&mut socket, "s1");
    respond(&mut socket, &asked["approval_id"], "approve");
    assert_eq!(socket.next()["code"], "permission_denied");
    let path = format!("/api/v1/approvals/{}/approve", asked["approval_id"].as_str().unwrap());
    assert_eq!((talker.post(&path, "").status, reader.post(&path, "").status), (403, 403));
    assert_eq!(reader.get("/api/v1/approvals").json().as_array().unwrap().len(), 1);
    assert_eq!(talker.get("/api/v1/approvals").status, 403);
}

#[test]
fn a_request_survives_kill_9_and_the_turn_goes_on_after_it() {
    let bench = Bench::new("");
    let mut hub = bench.hub();
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    let asked = ask(&mut socket, "s1");
    hub.kill();
    let hub = bench.hub();
    let all = all.at(&hub.address);
    assert_eq!(pending(&all).len(), 1);
    let mut socket = Socket::open(&all);
    socket.attach("s1", asked["seq"].as_u64().unwrap());
    let resumed = socket.next();
    assert_eq!((&resumed["type"], &resumed["live"]), (&json!("resumed"), &json!(true)));
    respond(&mut socket, &asked["approval_id"], "approve");
    let frames = socket.turn();
    assert_eq!(frames.last().unwrap()["type"], "done");
    assert_eq!(frames[0]["seq"].as_u64(), Some(asked["seq"].as_u64().unwrap() + 1));
    assert_eq!(value_of(&all).as_deref(), Some("1"));
    // The whole stream stands in one numbering: asked once, answered once.
    let mut late = Socket::open(&all);
    late.attach("s1", 0);
    assert_eq!(late.next()["type"], "resumed");
    let whole = late.turn();
    assert_eq!(whole.iter().filter(|frame| frame["type"] == "tool_approval").count(), 1);
    let messages = all.get("/api/v1/sessions/s1/messages").json();
    assert_eq!(messages.as_array().unwrap().len(), 2);
    assert_eq!(messages[1]["content"], r#"done: {"ok":true}"#);
}

#[test]
fn a_decision_while_the_hub_is_down_counts() {
    let bench = Bench::new("");
    let mut hub = bench.hub();
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    let asked = ask(&mut socket, "s1");
    hub.signal("TERM");
    assert!(hub.wait().success());
    let listed = holt(&bench, &["approvals", "list"]);
    let id = asked["approval_id"].as_str().unwrap();
    assert!(listed.contains(id) && listed.contains("kv_set"), "{listed}");
    assert!(holt(&bench, &["approvals", "show", &id[..6]]).contains(r#"{"key":"a","value":"1"}"#));
    assert!(holt(&bench, &["approvals", "approve", id]).contains("Approved"));
    let hub = bench.hub();
    let all = all.at(&hub.address);
    wait_until("the turn has gone on", || value_of(&all));
    let mut socket = Socket::open(&all);
    socket.attach("s1", asked["seq"].as_u64().unwrap());
    assert_eq!(socket.turn().last().unwrap()["type"], "done");
}

#[test]
fn the_command_line_decides_while_the_hub_runs() {
    let bench = Bench::new("");
    let hub = bench.hub();
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    let asked = ask(&mut socket, "s1");
    assert!(holt(&bench, &["approvals", "deny", asked["approval_id"].as_str().unwrap()]).contains("Denied"));
    assert_eq!(wait_for(&mut socket, "tool_decision")["approval_status"], "denied");
    socket.turn();
    assert!(holt(&bench, &["approvals", "list"]).contains("Nothing waits"));
}

/// Runs a command on the bench's data directory.
#[track_caller]
fn holt(bench: &Bench, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_holt"))
        .args(arguments)
        .arg("--data-dir")
        .arg(bench.dir.path())
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_request_ends_with_its_turn_and_says_so() {
    let bench = Bench::new("");
    let hub = bench.hub();
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    let asked = ask(&mut socket, "s1");
    socket.send(&json!({"type": "cancel", "session_id": "s1"}));
    let frames = socket.turn();
    assert_eq!(frames.last().unwrap()["code"], "cancelled");
    let path = |id: &Value| format!("/api/v1/approvals/{}/approve", id.as_str().unwrap());
    let late = all.post(&path(&asked["approval_id"]), "");
    assert_eq!(late.status, 409);
    assert!(late.json()["error"].as_str().unwrap().contains("its turn is gone"), "{}", late.text());
    // A deleted conversation takes its requests along.
    let asked = ask(&mut socket, "s2");
    assert_eq!(hub_delete(&all, "s2"), 204);
    let late = all.post(&path(&asked["approval_id"]), "");
    assert!(late.json()["error"].as_str().unwrap().contains("deleted"), "{}", late.text());
    assert!(pending(&all).is_empty());
    // The id is free again.
    assert_eq!(all.chat(json!({"session_id": "s2", "message": "say hello"})).json()["response"], "hello");
}

fn hub_delete(client: &Client, session: &str) -> u16 {
    client.delete(&format!("/api/v1/sessions/{session}")).status
}

#[test]
fn nobody_decides_in_time() {
    let bench = Bench::new("[session]\napproval_timeout = \"1s\"");
    let hub = bench.hub();
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    let asked = ask(&mut socket, "s1");
    let frames = socket.turn();
    assert_eq!(frames[0]["approval_status"], "expired");
    assert_eq!(kinds(&frames)[1..], ["thinking", "content_delta", "usage", "content", "done"]);
    let late = all.post(&format!("/api/v1/approvals/{}/approve", asked["approval_id"].as_str().unwrap()), "");
    assert!(late.status == 409 && late.text().contains("it expired"), "{}", late.text());
    assert_eq!(value_of(&all), None);
}

#[test]
fn rules_of_a_conversation_stay_there_and_permanent_ones_reach_all() {
    let bench = Bench::new("");
    let hub = bench.hub();
    let all = client(&hub);
    let (mut here, mut there) = (Socket::open(&all), Socket::open(&all));
    let asked = ask(&mut here, "here");
    let other = ask(&mut there, "there");
    respond(&mut here, &asked["approval_id"], "auto_session");
    assert_eq!(here.turn().last().unwrap()["type"], "done");
    assert_eq!(pending(&all).len(), 1, "the other conversation still waits");
    here.chat("here", SET);
    let again = wait_for(&mut here, "tool_approval");
    assert_eq!(
        (&again["text"], &again["approval_status"], &again["approval_id"]),
        (&json!("Auto-approved (session)"), &json!("auto_approved"), &Value::Null)
    );
    here.turn();
    // A permanent rule answers what waits, in all conversations of the agent.
    let made = all.post("/api/v1/auto-approve", r#"{"agent":"default","tool":"kv_set"}"#);
    assert_eq!((made.status, &made.json()["created_by"]), (201, &json!("api")));
    assert_eq!(there.turn().last().unwrap()["type"], "done");
    let row = all.get(&format!("/api/v1/approvals/{}", other["approval_id"].as_str().unwrap())).json();
    assert_eq!((&row["status"], &row["resolved_by"]), (&json!("approved"), &json!("auto_approve")));
    there.chat("there", SET);
    assert_eq!(wait_for(&mut there, "tool_approval")["text"], "Auto-approved (permanent)");
    there.turn();
    let rules = all.get("/api/v1/auto-approve?agent=default").json();
    let scopes: Vec<&str> = rules.as_array().unwrap().iter().map(|rule| rule["scope"].as_str().unwrap()).collect();
    assert_eq!(scopes, ["permanent", "session"]);
    for rule in rules.as_array().unwrap() {
        let removed = all.delete(&format!("/api/v1/auto-approve/{}", rule["id"].as_str().unwrap()));
        assert_eq!((removed.status, removed.json()), (200, json!({"status": "deleted"})));
    }
    assert_eq!(all.delete("/api/v1/auto-approve/nope").status, 404);
    assert_eq!(all.get("/api/v1/auto-approve").json(), Value::Null);
    let asked = ask(&mut here, "here");
    respond(&mut here, &asked["approval_id"], "deny");
    here.turn();
    for (body, text) in [
        ("{", "invalid JSON"),
        (r#"{"agent":"a"}"#, "agent and tool are required"),
        (r#"{"agent":"a","tool":"t","scope":"session"}"#, "conversation_id required for session scope"),
        (r#"{"agent":"a","tool":"t","scope":"week"}"#, "scope must be 'session' or 'permanent'"),
    ] {
        let answer = all.post("/api/v1/auto-approve", body);
        assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some(text)));
    }
}

#[test]
fn rules_of_the_configuration_count_and_cannot_be_removed_here() {
    let bench = Bench::new("[[agents]]\nname = \"default\"\nauto_approve_tools = [\"kv_set\"]\n");
    let hub = bench.hub();
    let all = client(&hub);
    assert_eq!(all.chat(json!({"message": SET})).status, 200);
    assert_eq!(value_of(&all).as_deref(), Some("1"));
    let rule = all.get("/api/v1/auto-approve").json()[0].clone();
    assert_eq!((&rule["created_by"], &rule["tool_name"]), (&json!("config"), &json!("kv_set")));
    assert_eq!(all.delete(&format!("/api/v1/auto-approve/{}", rule["id"].as_str().unwrap())).status, 409);
}

#[test]
fn a_plain_json_turn_waits_for_the_decision() {
    let bench = Bench::new("");
    let hub = bench.hub();
    let all = client(&hub);
    let deciding = all.clone();
    let decider = std::thread::scope(|scope| {
        let decided = std::thread::Builder::new()
            .spawn_scoped(scope, move || {
                let asked = wait_until("the request is listed", || pending(&deciding).pop());
                deciding.post(
                    &format!("/api/v1/approvals/{}/approve?auto_approve=session", asked["id"].as_str().unwrap()),
                    "",
                )
            })
            .unwrap();
        let answer = all.chat(json!({"session_id": "s1", "message": SET}));
        assert_eq!((answer.status, &answer.json()["response"]), (200, &json!(r#"done: {"ok":true}"#)));
        decided.join().unwrap()
    });
    assert_eq!(decider.status, 200);
    assert_eq!(all.get("/api/v1/auto-approve").json()[0]["conversation_id"], "s1");
}

#[test]
fn tiers_offer_what_they_allow() {
    let bench = Bench::new(
        "[[agents]]\nname = \"default\"\n[[agents]]\nname = \"free\"\nsession_tier = \"autonomous\"\n\
         [[agents]]\nname = \"bound\"\nsession_tier = \"restricted\"\n",
    );
    let hub = bench.hub();
    let all = client(&hub);
    let done = all.chat(json!({"agent": "free", "message": SET}));
    assert_eq!(done.json()["response"], r#"done: {"ok":true}"#, "no approval asked");
    let refused = all.chat(json!({"agent": "bound", "message": SET}));
    assert!(refused.text().contains("there is no tool named"), "{}", refused.text());
    let offered = |request: &Value| -> Vec<String> {
        request["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["function"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let tools = offered(bench.model.requests().last().unwrap());
    assert!(tools.contains(&"kv_get".to_owned()) && !tools.contains(&"kv_set".to_owned()), "{tools:?}");
    let read = all.chat(json!({"agent": "bound", "message": r#"tool kv_get {"key":"a"}"#}));
    assert_eq!(read.json()["response"], r#"done: {"value":null}"#);
}

#[test]
fn a_parked_turn_holds_no_slot_and_keeps_its_place() {
    let bench = Bench::new("[streams]\nturns_max = 1");
    let hub = bench.hub();
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    let mut asked = Vec::new();
    for number in 0..20 {
        // More than a connection may have running: those that wait do not count.
        asked.push(ask(&mut socket, &format!("s{number}"))["approval_id"].clone());
    }
    assert_eq!(all.chat(json!({"session_id": "other", "message": "say free"})).json()["response"], "free");
    socket.chat("s0", "say behind");
    assert_eq!(wait_for(&mut socket, "queued")["position"], 1);
    for id in &asked {
        respond(&mut socket, id, "approve");
    }
    let mut dones = 0;
    while dones < 21 {
        dones += usize::from(socket.next()["type"] == "done");
    }
    let messages = all.get("/api/v1/sessions/s0/messages").json();
    assert_eq!(messages[3]["content"], "behind");
}

#[test]
fn several_calls_are_asked_for_together_and_run_together() {
    let bench = Bench::new("");
    let hub = bench.hub();
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    socket.chat(
        "s1",
        r#"calls [["kv_set",{"key":"a","value":"1"}],["host_uptime",{}],["kv_set",{"key":"b","value":"2"}]]"#,
    );
    let first = wait_for(&mut socket, "tool_approval");
    let second = wait_for(&mut socket, "tool_approval");
    assert_eq!((&first["tool_id"], &second["tool_id"]), (&json!("call_0"), &json!("call_2")));
    respond(&mut socket, &second["approval_id"], "deny");
    respond(&mut socket, &first["approval_id"], "approve");
    let frames = socket.turn();
    let of = |kind: &str| -> Vec<&str> {
        frames.iter().filter(|f| f["type"] == kind).map(|f| f["tool_id"].as_str().unwrap()).collect()
    };
    assert_eq!(of("tool_decision"), ["call_0", "call_2"]);
    let mut ends = of("tool_end");
    ends.sort_unstable();
    assert_eq!((of("tool_start"), ends), (vec!["call_0", "call_1"], vec!["call_0", "call_1"]));
    let text = frames[frames.len() - 2]["text"].as_str().unwrap();
    assert!(text.starts_with(r#"done: {"ok":true} | "#) && text.ends_with("It was not made."), "{text}");
    assert_eq!(value_of(&all).as_deref(), Some("1"));
    assert_eq!(all.get("/api/v1/kv/default/b").status, 404);
}

#[test]
fn rounds_end_in_an_answer() {
    let bench = Bench::new("[[agents]]\nname = \"default\"\nsession_tier = \"autonomous\"");
    let config = "[llm]\nmax_tool_rounds = 3\n";
    let hub = Builder::new(bench.dir.path())
        .config(&bench.config)
        .config(&format!(
            "{config}default_provider = \"openai\"\ndefault_model = \"m\"\n[llm.openai]\napi_key = \"k\"\nbase_url = \"{}\"",
            bench.model.url()
        ))
        .start();
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    socket.chat("s1", "loop host_uptime");
    let frames = socket.turn();
    assert_eq!(frames.iter().filter(|frame| frame["type"] == "tool_end").count(), 3);
    assert_eq!(frames[frames.len() - 1]["type"], "done");
    let last = bench.model.requests().pop().unwrap();
    assert!(last["tools"].as_array().is_none_or(Vec::is_empty), "the last round offers no tools");
}

#[test]
fn a_fast_decision_is_never_lost() {
    // Decisions race with everything: the event, the parking of the turn, and each other.
    const SOCKETS: usize = 8;
    // 1,000 in all by default; HOLT_RACED_DECISIONS=10000 for the long run.
    let raced = std::env::var("HOLT_RACED_DECISIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000);
    let turns: usize = raced / SOCKETS;
    let bench = Bench::new("[streams]\nturns_max = 16");
    let hub = bench.hub();
    let all = client(&hub);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let spawn = |body: Box<dyn FnOnce() + Send>| std::thread::Builder::new().spawn_scoped(scope, body).unwrap();
        let (polling, over_ref) = (all.clone(), &over);
        let poller = spawn(Box::new(move || {
            // Sees rows before their events.
            while !over_ref.load(std::sync::atomic::Ordering::Acquire) {
                for asked in pending(&polling) {
                    let answer =
                        polling.post(&format!("/api/v1/approvals/{}/approve", asked["id"].as_str().unwrap()), "");
                    assert!(answer.status == 200 || answer.status == 409, "{}", answer.text());
                }
            }
        }));
        let sockets: Vec<_> = (0..SOCKETS)
            .map(|number| {
                let all = all.clone();
                spawn(Box::new(move || {
                    let mut socket = Socket::open(&all);
                    for turn in 0..turns {
                        socket.chat(&format!("race-{number}-{turn}"), SET);
                        loop {
                            let frame = socket.next();
                            match frame["type"].as_str().unwrap() {
                                "tool_approval" => respond(&mut socket, &frame["approval_id"], "approve"),
                                "done" => break,
                                "error" => assert_eq!(frame["code"], "already_resolved", "{frame}"),
                                "content" => assert_eq!(frame["text"], r#"done: {"ok":true}"#),
                                _ => {}
                            }
                        }
                    }
                }))
            })
            .collect();
        let ended: Vec<_> = sockets.into_iter().map(|socket| socket.join()).collect();
        over.store(true, std::sync::atomic::Ordering::Release);
        poller.join().unwrap();
        ended.into_iter().for_each(|end| end.unwrap());
    });
    assert!(pending(&all).is_empty());
    let approved = all.get("/api/v1/approvals?status=approved").json().as_array().unwrap().len();
    assert_eq!(approved, (SOCKETS * turns).min(1000), "lists end at 1,000");
}

#[test]
fn panic_stops_everything_until_somebody_says_otherwise() {
    let bench = Bench::new("");
    let mut hub = bench.hub();
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    let asked = ask(&mut socket, "parked");
    let mut running = Socket::open(&all);
    running.chat("running", "gate 2 2");
    running.read_deltas(2);
    assert_eq!(all.post("/api/v1/panic", "").json()["panicked"], true);
    assert_eq!(running.turn().last().unwrap()["code"], "cancelled");
    let refused = all.chat(json!({"message": "say no"}));
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("panicked")));
    running.chat("s9", "say no");
    assert_eq!(running.next()["code"], "panicked");
    // A decision is kept, but nothing goes on, not even after a restart.
    respond(&mut socket, &asked["approval_id"], "approve");
    wait_until("the decision is stored", || pending(&all).is_empty().then_some(()));
    hub.kill();
    let hub = bench.hub();
    let all = all.at(&hub.address);
    let state = all.get("/api/v1/panic").json();
    assert_eq!((&state["panicked"], &state["by"]), (&json!(true), &json!("key:all")));
    assert_eq!(value_of(&all), None);
    assert!(holt(&bench, &["resume"]).contains("run again"));
    wait_until("the parked turn has gone on", || value_of(&all));
    assert!(holt(&bench, &["panic"]).contains("stopped"));
    wait_until("the hub obeys", || (all.chat(json!({"message": "say x"})).status == 503).then_some(()));
    assert_eq!(all.post("/api/v1/resume", "").json()["panicked"], false);
    assert_eq!(all.chat(json!({"message": "say x"})).status, 200);
    assert_eq!(hub.client().post("/api/v1/panic", "").status, 401);
}

#[test]
fn what_was_refused_stays_refused_after_the_decision() {
    // Four identical calls: the fourth is one too many. Denying the three must not let it through.
    let bench = Bench::new("");
    let hub = bench.hub();
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    let call = r#"["kv_set",{"key":"a","value":"1"}]"#;
    socket.chat("s1", &format!("calls [{call},{call},{call},{call}]"));
    for _ in 0..3 {
        let asked = wait_for(&mut socket, "tool_approval");
        respond(&mut socket, &asked["approval_id"], "deny");
    }
    let frames = socket.turn();
    assert_eq!(frames.last().unwrap()["type"], "done");
    let ends: Vec<&Value> = frames.iter().filter(|frame| frame["type"] == "tool_end").collect();
    assert_eq!(ends.len(), 1);
    assert!(ends[0]["error"].as_str().unwrap().contains("made before"), "{}", ends[0]);
    assert_eq!(value_of(&all), None);
}

#[test]
fn a_cancel_beats_calls_that_have_not_begun() {
    let bench = Bench::new("");
    let hub = bench.hub();
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    let asked = ask(&mut socket, "s1");
    all.post("/api/v1/sessions/s1/stop", "");
    let late = all.post(&format!("/api/v1/approvals/{}/approve", asked["approval_id"].as_str().unwrap()), "");
    assert_eq!(late.status, 409, "{}", late.text());
    assert_eq!(socket.turn().last().unwrap()["code"], "cancelled");
    assert_eq!(value_of(&all), None);
}

#[test]
fn messages_wait_through_a_panic_and_a_restart() {
    let bench = Bench::new("");
    let mut hub = bench.hub();
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    ask(&mut socket, "s1");
    socket.chat("s1", "say behind");
    assert_eq!(wait_for(&mut socket, "queued")["position"], 1);
    all.post("/api/v1/panic", "");
    hub.kill();
    let hub = bench.hub();
    let all = all.at(&hub.address);
    // The parked turn is cancelled in the panic; what stands behind it waits for its end.
    all.post("/api/v1/sessions/s1/stop", "");
    wait_until("the request is gone", || pending(&all).is_empty().then_some(()));
    assert_eq!(all.get("/api/v1/sessions/s1/messages").json().as_array().unwrap().len(), 1);
    assert_eq!(all.post("/api/v1/resume", "").json()["panicked"], false);
    wait_until("the queued message is answered", || {
        let messages = all.get("/api/v1/sessions/s1/messages").json();
        (messages.as_array().unwrap().last().unwrap()["content"] == "behind").then_some(())
    });
}

#[test]
fn the_built_in_agent_asks_before_it_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    let text = |frames: &[Value]| frames[frames.len() - 2]["text"].as_str().unwrap().to_owned();
    let mut ask = |message: &str, action: &str| {
        socket.chat("s1", message);
        if !action.is_empty() {
            let asked = wait_for(&mut socket, "tool_approval");
            respond(&mut socket, &asked["approval_id"], action);
        }
        text(&socket.turn())
    };
    assert_eq!(
        ask("remember that the door code is 1234", "deny"),
        "I did not store `door-code`, because it was not allowed.\n"
    );
    assert!(ask("do you remember the door code?", "").starts_with("I remember nothing called `door-code`."));
    assert_eq!(ask("remember that the door code is 1234", "approve"), "I will remember it: `door-code` is `1234`.\n");
    assert_eq!(all.get("/api/v1/kv/default/door-code").json()["value"], "1234");
    assert_eq!(ask("what is the door code?", ""), "`door-code` is `1234`.\n");
    assert_eq!(ask("what do you remember?", ""), "This is what I remember:\n\n- `door-code`: `1234`\n");
    assert_eq!(ask("forget the door code", "approve"), "I have forgotten `door-code`.\n");
    assert_eq!(all.get("/api/v1/kv/default/door-code").status, 404);
}
