//! `holt agent`, the process: its start, its end, what survives it.

use holt::fleet::link::{LinkSettings, Timers};
use holt::fleet::sign::HubKey;
use serde_json::{Value, json};

use crate::support::link_agent::{AgentProcess, TestLink, event, fast, settings, state_dir};
use crate::support::{Hub, LinkHub, wait_until};

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Puts events into a spool whose hub is not there.
fn spooled(dir: &std::path::Path, count: i64) {
    let unreachable = LinkSettings { token: Some("t0ken".to_owned()), ..settings("127.0.0.1:1") };
    let link = TestLink::new(dir, unreachable, Timers { ..fast() });
    for number in 0..count {
        assert!(link.link.send_alert_event(&event(number)));
    }
}

#[test]
fn alerts_survive_kill_and_stop_is_a_farewell() {
    let (hub, dir) = (LinkHub::start(), dir());
    spooled(dir.path(), 3);
    let address = hub.address();
    let args = ["--hub", address.as_str(), "--token", "t0ken"];
    let mut agent = AgentProcess::start(dir.path(), &args);
    let mut conn = hub.registered();
    let batch = conn.next_of("alert_events");
    let events = batch["payload"]["events"].as_array().unwrap();
    assert_eq!(events[..3].iter().map(|event| event["event_time"].as_i64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    agent.kill();
    drop(conn);
    let mut agent = AgentProcess::start(dir.path(), &args);
    let mut conn = hub.registered();
    let again = conn.next_of("alert_events");
    assert_eq!(again, batch, "the same events under the same id, though the agent was killed");
    conn.answer(&again, json!({"ok": true}));
    // Settings are read again, and the hub is told.
    agent.signal("HUP");
    let register = conn.next_of("register");
    conn.answer(&register, json!({"ok": true}));
    agent.signal("TERM");
    assert_eq!(conn.closed(), Some((1000, "agent stopping".to_owned())));
    assert!(agent.wait().success());
    assert!(!agent.log().contains("t0ken"), "{}", agent.log());
    let spool = std::fs::read_to_string(state_dir(dir.path()).join("spool")).unwrap();
    assert!(spool.contains(&format!("A {}\n", batch["id"].as_str().unwrap())), "{spool}");
}

#[test]
fn what_a_check_finds_reaches_the_hub() {
    let (hub, dir) = (LinkHub::start(), dir());
    let config = format!(
        "[server]\naddress = \"{}\"\nagent_token = \"t\"\n[global]\ninterval = 1\nlabels = {{ site = \"home\" }}\n\
         [checks.mem.memory_usage]\nwarn_ge = 0.001\ncritical_ge = 0\n[checks.mem.alerting]\nfor_duration = 0\n",
        hub.address()
    );
    std::fs::write(dir.path().join("agent.toml"), config).unwrap();
    let _agent = AgentProcess::start(dir.path(), &[]);
    let mut conn = hub.accepted();
    let register = conn.next();
    let plugins = register["payload"]["plugins"].as_array().unwrap();
    assert!(plugins.contains(&json!("mem")) && plugins.contains(&json!("cpu")), "{register}");
    assert_eq!(register["payload"]["labels"]["site"], "home");
    conn.answer(&register, json!({"ok": true, "features": ["alert_ack"]}));
    loop {
        let batch = conn.next_of("alert_events");
        conn.answer(&batch, json!({"ok": true}));
        let events = batch["payload"]["events"].as_array().unwrap();
        let Some(event) = events.iter().find(|event| event["labels"]["from_plugin"] == "mem") else { continue };
        assert_eq!((&event["event_status"], &event["labels"]["site"]), (&json!("Warning"), &json!("home")), "{event}");
        assert_eq!(event["labels"]["from_hostname"], register["payload"]["hostname"]);
        break;
    }
}

#[test]
fn after_joining_the_next_start_needs_no_words() {
    let (hub, dir, keys) = (LinkHub::start(), dir(), self::dir());
    let key = HubKey::read_or_make(keys.path()).unwrap();
    let (address, code) = (hub.address(), format!("hj_secret77_{}", key.fingerprint()));
    let answer = |conn: &mut crate::support::LinkConn, extra: Value| {
        let register = conn.next();
        let id = conn.head.lines().find_map(|line| line.strip_prefix("X-Agent-ID: ")).unwrap().to_owned();
        let nonce = register["payload"]["nonce"].as_str().unwrap();
        let mut payload = json!({"ok": true, "hub_key": key.public_base64(), "hub_proof": key.prove(&id, nonce)});
        payload.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        conn.answer(&register, payload);
    };
    let mut agent = AgentProcess::start(dir.path(), &["--hub", &address, "--join", &code]);
    let mut conn = hub.accepted();
    assert!(conn.head.contains("X-Agent-Token: hj_secret77\r\n"), "{}", conn.head);
    answer(&mut conn, json!({"new_token": "hm_token"}));
    agent.wait_for_log("registered at");
    agent.kill();
    let agent = AgentProcess::start(dir.path(), &[]);
    let mut conn = hub.accepted();
    assert!(conn.head.contains("X-Agent-Token: hm_token\r\n"), "{}", conn.head);
    answer(&mut conn, json!({}));
    agent.wait_for_log("registered at");
    assert!(!agent.log().contains("hm_token") && !agent.log().contains("secret77"));
}

#[test]
fn a_machine_without_a_code_asks_for_approval() {
    let (hub, dir) = (LinkHub::start(), dir());
    let agent = AgentProcess::start(dir.path(), &["--hub", &hub.address()]);
    let mut conn = hub.accepted();
    let token = conn.head.lines().find_map(|line| line.strip_prefix("X-Agent-Token: hr_")).unwrap().to_owned();
    let register = conn.next();
    conn.answer(&register, json!({"ok": false, "error": "waiting for approval"}));
    assert_eq!(conn.closed(), Some((1000, "register rejected".to_owned())));
    agent.wait_for_log("asks for approval as ");
    assert!(!agent.log().contains(&token));
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    let dir = dir();
    let refused = |args: &[&str], part: &str| {
        let said = AgentProcess::refused(dir.path(), args);
        assert!(said.contains(part), "{said}");
    };
    refused(&[], "no hub is known");
    refused(&["--hub", "ftp://h"], "begins with http");
    refused(&["--hub", "http://h/api/v1/agent/ws"], "path");
    refused(&["--hub", "h", "--join", "hj_x"], "join code");
    refused(&["--hub", "https://h", "--ca-file", "/nowhere.pem"], "/nowhere.pem");
    refused(&["--config", "/nowhere.toml"], "/nowhere.toml");
    std::fs::write(dir.path().join("agent.toml"), "[server]\nadress = 'x'\n").unwrap();
    refused(&[], "did you mean address");
    std::fs::write(dir.path().join("agent.toml"), "[server]\naddress = \"127.0.0.1:1\"\n").unwrap();
    let running = AgentProcess::start(dir.path(), &[]);
    running.wait_for_log("state in");
    refused(&[], "another agent uses");
    drop(running);
    std::fs::write(state_dir(dir.path()).join("agent_id"), "not an id").unwrap();
    refused(&[], "damaged");
}

#[test]
fn one_command_joins_a_machine_and_a_link_that_fails_says_what_to_do() {
    let (hub_dir, far, wrong, good) = (dir(), dir(), dir(), dir());
    let hub = Hub::start(hub_dir.path());
    let client = hub.admin().new_key("ops", &["machines:read", "machines:write"]);
    let unreachable = AgentProcess::start(far.path(), &["--hub", "http://127.0.0.1:1"]);
    unreachable.wait_for_log("`curl http://127.0.0.1:1/health` must answer here");
    let address = format!("http://{}", hub.address);
    let unknown = format!("hj_nobodygavethis_{}", "0".repeat(32));
    let refused = AgentProcess::start(wrong.path(), &["--hub", &address, "--join", &unknown]);
    refused.wait_for_log("the join code was used, withdrawn or is too old");
    refused.wait_for_log("\"Add a machine\"");
    assert!(!refused.log().contains("nobodygavethis"));
    let made = client.post("/api/v1/machines/join-codes", r#"{"name":"attic"}"#).json();
    let command = made["command"].as_str().unwrap().strip_prefix("holt agent ").unwrap().to_owned();
    let agent = AgentProcess::start(good.path(), &command.split(' ').collect::<Vec<_>>());
    agent.wait_for_log("registered at ");
    // The first numbers do not wait for the usual half minute.
    let machine = wait_until("the first numbers", || {
        let machine = client.get("/api/v1/machines/attic").json();
        machine["heartbeat"]["mem_pct"].is_number().then_some(machine)
    });
    assert_eq!((&machine["connected"], &machine["state"]), (&json!(true), &json!("approved")));
}
