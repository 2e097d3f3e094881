//! The agent's link against strict and hostile hubs (contract agent-link 11, "Agent").

use std::net::TcpListener;
use std::time::Duration;

use holt::fleet::link::Timers;
use holt::fleet::sign::HubKey;
use holt::fleet::wire;
use holt::notify::Notifier as _;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::link_agent::{SHORT, TestLink, event, fast, joining, settings, state_dir};
use crate::support::{LinkConn, LinkHub, wait_until};

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn times(message: &Value) -> Vec<i64> {
    assert_eq!(message["type"], "alert_events", "{message}");
    message["payload"]["events"].as_array().unwrap().iter().map(|e| e["event_time"].as_i64().unwrap()).collect()
}

#[test]
fn the_upgrade_and_the_registration_are_those_of_the_contract() {
    let (hub, dir) = (LinkHub::start(), dir());
    let agent = TestLink::start(dir.path(), &hub.address(), Timers { heartbeat: SHORT, ..fast() });
    agent.link.set_vitals(|heartbeat| (heartbeat.active_alerts, heartbeat.cpu_pct) = (2, Some(12.5)));
    let dialled = hub.dialled();
    assert!(dialled.head.starts_with("GET /api/v1/agent/ws HTTP/1.1\r\n"), "{}", dialled.head);
    assert_eq!(dialled.header("x-agent-token"), Some("t0ken"));
    assert_eq!(dialled.header("x-agent-id"), Some(agent.link.agent_id()));
    assert_eq!(dialled.header("x-proto-version"), Some("1"));
    assert_eq!(dialled.header("sec-websocket-version"), Some("13"));
    for absent in ["origin", "sec-websocket-protocol", "sec-websocket-extensions"] {
        assert_eq!(dialled.header(absent), None);
    }
    let mut conn = dialled.upgrade("");
    let register = conn.next();
    assert_eq!(register["type"], "register");
    let payload = &register["payload"];
    for field in ["hostname", "ip", "os", "arch", "agent_version", "nonce"] {
        assert!(payload[field].is_string(), "{field} in {payload}");
    }
    assert_eq!(payload["plugins"], json!(["cpu", "disk"]));
    assert_eq!(payload["agent_version"], "test-1");
    assert!(payload["uptime_sec"].is_i64());
    assert_eq!(payload["labels"]["site"], "home");
    assert_eq!(payload["labels"]["from_hostname"], payload["hostname"]);
    conn.answer(&register, json!({"ok": true, "warning": "agent clock is 12 s behind", "unknown": {}}));
    let heartbeat = conn.next_of("heartbeat");
    assert_eq!(heartbeat["payload"], json!({"active_sessions": 0, "active_alerts": 2, "cpu_pct": 12.5}));
    conn.next_of("heartbeat");
    wait_until("it is registered", || agent.link.is_registered().then_some(()));
    // Other settings: the hub is told by a second registration on the same connection.
    let mut changed = settings(&hub.address());
    changed.plugins.push("mem".to_owned());
    agent.link.apply(changed).unwrap();
    let again = conn.next_of("register");
    assert_eq!(again["payload"]["plugins"], json!(["cpu", "disk", "mem"]));
    conn.answer(&again, json!({"ok": true}));
    conn.next_of("heartbeat");
    // Another token: dialled anew, at once, with it.
    let mut other = settings(&hub.address());
    other.token = Some("other".to_owned());
    agent.link.apply(other).unwrap();
    assert_eq!(conn.closed(), Some((1000, "settings changed".to_owned())));
    assert_eq!(hub.dialled().header("x-agent-token"), Some("other"));
}

#[test]
fn only_a_proper_ack_registers() {
    let (hub, dir) = (LinkHub::start(), dir());
    let agent = TestLink::start(dir.path(), &hub.address(), fast());
    agent.link.send_alert_event(&event(1));
    let check = |answer: &str, expected: u64| {
        let mut conn = hub.accepted();
        let register = conn.next();
        let answer = answer.replace("REF", register["id"].as_str().unwrap());
        conn.ws.send(Message::text(answer.clone())).unwrap();
        assert_eq!(conn.closed().map(|(code, _)| code), Some(expected), "{answer}");
        assert!(!agent.link.is_registered());
    };
    check(r#"{"type":"ping","id":"1"}"#, 1011);
    check(r#"{"type":"ack","id":"1","ref_id":"REF","payload":{"ok":false,"error":"who are you"}}"#, 1000);
    check(r#"{"type":"ack","id":"1","ref_id":"REF","payload":null}"#, 1000);
    check(r#"{"type":"ack","id":"1","ref_id":"REF"}"#, 1011);
    check(r#"{"type":"ack","id":"1","ref_id":"REF","payload":[1]}"#, 1011);
    check(r#"{"type":"ack","id":"1","ref_id":"another","payload":{"ok":true}}"#, 1011);
    check(r#"{"type":"ack","id":7,"payload":{"ok":true}}"#, 1011);
    check("garbage", 1011);
    // The reference does not set it everywhere: a missing ref_id is taken.
    let mut conn = hub.accepted();
    conn.next();
    conn.send(&json!({"type": "ack", "id": "1", "payload": {"ok": true}}));
    assert_eq!(times(&conn.next_of("alert_events")), [1]);
}

#[test]
fn a_hub_that_does_not_answer_is_left() {
    let (hub, dir) = (LinkHub::start(), dir());
    let timers = Timers { dial: SHORT * 20, ack: SHORT * 3, ..fast() };
    let _agent = TestLink::start(dir.path(), &hub.address(), timers);
    // Neither the upgrade nor the registration is answered.
    let mut silent = hub.dialled();
    assert_eq!(std::io::Read::read(&mut silent.stream, &mut [0; 9]).unwrap_or(0), 0, "the agent hangs up");
    let mut late = hub.accepted();
    late.next();
    assert_ne!(late.closed().map(|(code, _)| code), Some(1000));
    hub.registered();
}

#[test]
fn other_answers_than_101_are_not_followed() {
    let (hub, elsewhere, dir) = (LinkHub::start(), TcpListener::bind("127.0.0.1:0").unwrap(), dir());
    let _agent = TestLink::start(dir.path(), &hub.address(), fast());
    let away = format!("Location: http://{}/\r\nConnection: close\r\n", elsewhere.local_addr().unwrap());
    for status in ["302 Found", "307 Away", "401 Unauthorized", "403 Forbidden", "404 Not Found", "500 Oops", "200 OK"]
    {
        hub.dialled().reply(&format!("HTTP/1.1 {status}\r\n{away}\r\n"));
    }
    for answer in
        ["", "HTTP/1.1", "SSH-2.0-OpenSSH_9.9\r\n\r\n", "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n"]
    {
        hub.dialled().reply(answer);
    }
    hub.dialled().reply(&format!("HTTP/1.1 101 Fine\r\nX: {}", "x".repeat(40_000)));
    for header in ["Sec-WebSocket-Extensions: permessage-deflate\r\n", "Sec-WebSocket-Protocol: x\r\n"] {
        assert!(hub.dialled().upgrade(header).try_next().is_err(), "{header}");
    }
    hub.registered();
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "nobody went where the redirect pointed");
}

#[test]
fn messages_have_a_longest_length() {
    let (hub, dir) = (LinkHub::start(), dir());
    let _agent = TestLink::start(dir.path(), &hub.address(), fast());
    let mut conn = hub.registered();
    let message = |bytes: usize| {
        let start = r#"{"type":"session_cancel","id":"big","payload":{"session_id":"x"},"pad":""#;
        format!("{start}{}\"}}", "x".repeat(bytes - start.len() - 2))
    };
    conn.ws.send(Message::text(message(1_048_576))).unwrap();
    assert_eq!(conn.ack_of("big")["error"], "no such session");
    conn.ws.send(Message::text(message(1_048_577))).unwrap();
    assert_eq!(conn.closed().map(|(code, _)| code), Some(1009));
    hub.registered();
}

#[test]
fn bad_input_changes_nothing() {
    let (hub, dir) = (LinkHub::start(), dir());
    let _agent = TestLink::start(dir.path(), &hub.address(), fast());
    let mut conn = hub.registered();
    for bad in [
        "",
        "garbage",
        "[]",
        "{}",
        r#"{"type":"ping","id":7}"#,
        r#"{"type":"unknown","id":"1","payload":{"x":[]}}"#,
        r#"{"type":"ack","id":"1","ref_id":"x","payload":{"ok":true}}"#,
        r#"{"type":"ack","id":"1","ref_id":"x","payload":7}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"session_input","id":"1","payload":"x"}"#,
        "\u{feff}{}",
    ] {
        conn.ws.send(Message::text(bad)).unwrap();
        conn.ws.send(Message::binary(bad.as_bytes().to_vec())).unwrap();
    }
    conn.ws.send(Message::Ping(vec![1, 2, 3].into())).unwrap();
    // Binary is read like text.
    let cancel = json!({"type": "session_cancel", "id": "c", "payload": {"session_id": "x", "reason": "r"}});
    conn.ws.send(Message::binary(cancel.to_string())).unwrap();
    assert_eq!(conn.ack_of("c"), json!({"ok": false, "error": "no such session"}));
    // What breaks the protocol itself ends the connection, and the agent comes back.
    conn.ws.send(Message::Binary(vec![0xff, 0xfe].into())).unwrap();
    std::io::Write::write_all(conn.ws.get_mut(), &[0xff; 64]).unwrap();
    assert!(conn.closed().is_none_or(|(code, _)| code == 1002));
    hub.registered();
}

#[test]
fn orders_to_leave_are_obeyed() {
    let (hub, dir) = (LinkHub::start(), dir());
    let agent = TestLink::start(dir.path(), &hub.address(), fast());
    for payload in
        [json!({"reason": "restart", "retry_after_sec": 20}), json!({"retry_after_sec": 0}), json!([1]), json!("x")]
    {
        let mut conn = hub.registered();
        conn.send(&json!({"type": "disconnect", "id": "d", "payload": payload}));
        assert!(conn.closed().is_none_or(|(code, _)| code == 1000), "{payload}");
    }
    // A billion seconds is an hour: four seconds here, in which nobody comes; but a new token cuts the wait short.
    let mut conn = hub.registered();
    conn.send(&json!({"type": "disconnect", "id": "d", "payload": {"reason": "go", "retry_after_sec": 1_000_000_000}}));
    conn.closed();
    wait_until("it has left", || (!agent.link.is_registered()).then_some(()));
    let mut other = settings(&hub.address());
    other.token = Some("new".to_owned());
    agent.link.apply(other).unwrap();
    assert_eq!(hub.dialled().header("x-agent-token"), Some("new"));
}

#[test]
fn silence_is_measured_in_data() {
    let (hub, dir) = (LinkHub::start(), dir());
    let _agent = TestLink::start(dir.path(), &hub.address(), Timers { silence: SHORT * 10, ..fast() });
    let mut conn = hub.registered();
    conn.ws.get_mut().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    // WebSocket pings do not keep it alive, messages do.
    for _ in 0..75 {
        conn.send(&json!({"type": "ping", "id": "p"}));
        let waiting = conn.try_next();
        assert!(matches!(waiting, Err(tungstenite::Error::Io(_))), "{waiting:?}");
    }
    let gone = (0..3000).find(|_| {
        let _ = conn.ws.send(Message::Ping(vec![].into()));
        !matches!(conn.try_next(), Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock)
    });
    assert!(gone.is_some());
    hub.registered();
}

#[test]
fn alerts_are_kept_until_they_are_acknowledged() {
    let (hub, dir) = (LinkHub::start(), dir());
    let agent = TestLink::start(dir.path(), &hub.address(), fast());
    let notifier = holt::fleet::ServerNotifier::new(&agent.link);
    assert_eq!(notifier.name(), "server");
    for number in 0..250 {
        assert!(notifier.forward(&event(number)));
    }
    // The hub reads and dies before it acknowledges.
    let first = {
        let mut conn = hub.registered();
        conn.next_of("alert_events")
    };
    let mut conn = hub.registered();
    let again = conn.next_of("alert_events");
    assert_eq!(again, first, "the same events under the same id");
    conn.answer(&again, json!({"ok": true}));
    let mut seen = times(&again);
    while seen.len() < 250 {
        let batch = conn.next_of("alert_events");
        assert!(times(&batch).len() <= 100);
        seen.extend(times(&batch));
        conn.answer(&batch, json!({"ok": true}));
    }
    assert_eq!(seen, (0..250).collect::<Vec<_>>());
    wait_until("nothing waits", || (agent.link.waiting_events() == 0).then_some(()));
    // What the hub could not store stays, and comes again.
    agent.link.send_alert_event(&event(300));
    let refused = conn.next_of("alert_events");
    conn.answer(&refused, json!({"ok": false, "error": "disk full"}));
    drop(conn);
    let mut conn = hub.registered();
    assert_eq!(conn.next_of("alert_events"), refused);
    assert_eq!(agent.link.waiting_events(), 1);
}

#[test]
fn a_hub_that_never_acknowledges_is_served_too() {
    let (hub, dir) = (LinkHub::start(), dir());
    let agent = TestLink::start(dir.path(), &hub.address(), Timers { linger: SHORT * 10, ..fast() });
    agent.link.send_alert_event(&event(1));
    let plain = || hub.registered_with(json!({"ok": true}));
    // Gone at once: nobody knows whether it was read.
    let first = plain().next_of("alert_events");
    let mut conn = plain();
    assert_eq!(conn.next_of("alert_events"), first);
    wait_until("the connection lived on", || (agent.link.waiting_events() == 0).then_some(()));
    // It has not to wait for the first batch before the next.
    agent.link.send_alert_event(&event(2));
    assert_eq!(times(&conn.next_of("alert_events")), [2]);
    agent.link.send_alert_event(&event(3));
    assert_eq!(times(&conn.next_of("alert_events")), [3]);
    // An ack is welcome all the same.
    conn.answer(&json!({"id": "x"}), json!({"ok": true}));
    wait_until("nothing waits", || (agent.link.waiting_events() == 0).then_some(()));
}

#[test]
fn a_hub_that_stops_reading_loses_nothing() {
    let (hub, dir) = (LinkHub::start(), dir());
    let timers = Timers { write: SHORT * 30, alert_ack: Duration::from_millis(1), ..fast() };
    let agent = TestLink::start(dir.path(), &hub.address(), timers);
    for number in 0..40 {
        let mut large = event(number);
        large.description = "x".repeat(50_000);
        assert!(agent.link.send_alert_event(&large));
    }
    let stalled = hub.registered();
    // Sent again and again until all buffers are full; then the agent gives up on it.
    let mut conn = hub.registered();
    drop(stalled);
    let mut seen = Vec::new();
    while seen.len() < 40 {
        let batch = conn.next_of("alert_events");
        assert!(batch.to_string().len() <= 1_048_576);
        conn.answer(&batch, json!({"ok": true}));
        seen.extend(times(&batch).into_iter().filter(|time| !seen.contains(time)).collect::<Vec<_>>());
    }
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
    wait_until("nothing waits", || (agent.link.waiting_events() == 0).then_some(()));
}

#[test]
fn a_stop_says_goodbye_after_everything_else() {
    let (hub, dir) = (LinkHub::start(), dir());
    let agent = TestLink::start(dir.path(), &hub.address(), fast());
    let mut conn = hub.registered();
    agent.link.send_alert_event(&event(1));
    let batch = conn.next_of("alert_events");
    agent.link.send_alert_event(&event(2));
    agent.ask_to_stop();
    conn.answer(&batch, json!({"ok": true}));
    let last = conn.next_of("alert_events");
    assert_eq!(times(&last), [2]);
    conn.answer(&last, json!({"ok": true}));
    assert_eq!(conn.closed(), Some((1000, "agent stopping".to_owned())));
    agent.wait();
    assert_eq!(agent.link.waiting_events(), 0);
}

#[test]
fn a_stop_does_not_wait_for_a_hub_that_is_not_there() {
    let (hub, dir) = (LinkHub::start(), dir());
    // In the middle of a dial, of a registration, and of a wait.
    let agent = TestLink::start(dir.path(), &hub.address(), Timers { wait_factor: 1000.0, ..Timers::default() });
    let _dialled = hub.dialled();
    drop(agent);
    let agent = TestLink::start(dir.path(), &hub.address(), Timers { wait_factor: 1000.0, ..Timers::default() });
    let mut conn = hub.accepted();
    conn.next();
    drop(agent);
    let agent = TestLink::start(dir.path(), &hub.address(), Timers { wait_factor: 1000.0, ..Timers::default() });
    hub.dialled().reply("HTTP/1.1 500 Oops\r\n\r\n");
    drop(agent);
}

#[test]
fn the_example_messages_keep_their_shape() {
    let mut kinds = Vec::new();
    for line in include_str!("golden/agent-link-examples.jsonl").lines() {
        let expected = serde_json::from_str::<Value>(line).unwrap()["message"].clone();
        let message: wire::Message = serde_json::from_value(expected.clone()).unwrap();
        fn shape<T: serde::Serialize + for<'de> serde::Deserialize<'de>>(message: &wire::Message) -> Value {
            serde_json::to_value(message.payload::<T>().unwrap()).unwrap()
        }
        let payload = match message.kind.as_str() {
            "register" => shape::<wire::Register>(&message),
            "ack" => shape::<wire::Ack>(&message),
            "heartbeat" => shape::<wire::Heartbeat>(&message),
            "alert_events" => shape::<wire::AlertEvents>(&message),
            "session_start" => shape::<wire::SessionStart>(&message),
            "session_output" => shape::<wire::SessionOutput>(&message),
            "session_input" => shape::<wire::SessionInput>(&message),
            "session_cancel" => shape::<wire::SessionCancel>(&message),
            "session_error" => shape::<wire::SessionError>(&message),
            "disconnect" => shape::<wire::Disconnect>(&message),
            "ping" => Value::Null,
            other => panic!("{other}"),
        };
        assert_eq!(payload, expected["payload"], "{line}");
        assert_eq!(serde_json::from_slice::<Value>(&message.encode()).unwrap(), expected);
        kinds.push(message.kind);
    }
    kinds.sort();
    kinds.dedup();
    assert_eq!(kinds.len(), 11);
}

/// Registers as a hub with a key does.
fn prove(conn: &mut LinkConn, key: &HubKey, extra: Value) {
    let register = conn.next();
    let id = conn.head.lines().find_map(|line| line.strip_prefix("X-Agent-ID: ")).unwrap().to_owned();
    let mut payload = json!({"ok": true, "hub_key": key.public_base64(),
        "hub_proof": key.prove(&id, register["payload"]["nonce"].as_str().unwrap())});
    payload.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    conn.answer(&register, payload);
}

fn token(conn: &LinkConn) -> &str {
    conn.head.lines().find_map(|line| line.strip_prefix("X-Agent-Token: ")).unwrap()
}

#[test]
fn a_join_code_is_exchanged_and_the_hub_is_pinned() {
    let (hub, dir, keys, others) = (LinkHub::start(), dir(), dir(), self::dir());
    let (key, other) = (HubKey::read_or_make(keys.path()).unwrap(), HubKey::read_or_make(others.path()).unwrap());
    let code = format!("hj_secret77_{}", key.fingerprint());
    let agent = TestLink::new(dir.path(), joining(&hub.address(), &code), fast()).run();
    // Somebody else, with the same address.
    let mut forged = hub.accepted();
    assert_eq!(token(&forged), "hj_secret77", "the fingerprint does not travel");
    prove(&mut forged, &other, json!({"new_token": "hm_forged"}));
    assert_eq!(forged.closed().map(|(code, _)| code), Some(1011));
    let mut keyless = hub.accepted();
    let register = keyless.next();
    keyless.answer(&register, json!({"ok": true, "new_token": "hm_forged"}));
    assert_eq!(keyless.closed().map(|(code, _)| code), Some(1011));
    // The right one.
    let mut conn = hub.accepted();
    assert_eq!(token(&conn), "hj_secret77");
    prove(&mut conn, &key, json!({"new_token": "hm_first"}));
    wait_until("it is registered", || agent.link.is_registered().then_some(()));
    assert_eq!(agent.link.token(), "hm_first");
    // Rotation on the open connection.
    conn.send(&json!({"type": "ack", "id": "r", "payload": {"ok": true, "new_token": "hm_second"}}));
    wait_until("the token is there", || (agent.link.token() == "hm_second").then_some(()));
    drop(conn);
    // From now on nobody else is believed, also after a restart with the spent code.
    drop(agent);
    let agent = TestLink::new(dir.path(), joining(&hub.address(), &code), fast()).run();
    let mut forged = hub.accepted();
    assert_eq!(token(&forged), "hm_second");
    prove(&mut forged, &other, json!({}));
    assert_eq!(forged.closed().map(|(code, _)| code), Some(1011));
    let mut conn = hub.accepted();
    prove(&mut conn, &key, json!({}));
    wait_until("it is registered", || agent.link.is_registered().then_some(()));
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(state_dir(dir.path()).join("hub.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn only_what_the_pinned_hub_signed_is_begun() {
    let (hub, dir, keys, others) = (LinkHub::start(), dir(), dir(), self::dir());
    let (key, other) = (HubKey::read_or_make(keys.path()).unwrap(), HubKey::read_or_make(others.path()).unwrap());
    let agent = TestLink::start(dir.path(), &hub.address(), fast());
    let mut conn = hub.accepted();
    prove(&mut conn, &key, json!({}));
    let now = holt::rt::clock::unix_ms();
    let start = wire::SessionStart {
        session_id: "s-1".into(),
        session_type: "inspect".into(),
        user_name: "ana".into(),
        params: json!({"plugin": "disk"}).as_object().unwrap().clone(),
    };
    let id = agent.link.agent_id().to_owned();
    let message = |message_id: &str, sig: Option<wire::Signature>| {
        let mut message = wire::Message::new("session_start", message_id.to_owned(), &start);
        message.sig = sig;
        serde_json::to_value(message).unwrap()
    };
    let mut check = |message: &Value, expected: &str| {
        conn.send(message);
        let ack = conn.ack_of(message["id"].as_str().unwrap());
        assert_eq!(ack["ok"], false);
        let error = ack["error"].as_str().unwrap();
        assert!(error.contains(expected), "{error}");
    };
    check(&message("m-1", None), "not signed");
    check(&message("m-2", Some(other.sign_start(&id, "m-2", &start, now))), "not signed by the hub");
    check(&message("m-3", Some(key.sign_start("another-agent", "m-3", &start, now))), "not signed by the hub");
    check(&message("m-4", Some(key.sign_start(&id, "m-4", &start, now - 200_000))), "clock");
    check(&message("m-5", Some(key.sign_start(&id, "m-5", &start, now - 60_000))), "before this agent was started");
    let mut changed = message("m-6", Some(key.sign_start(&id, "m-6", &start, now)));
    changed["payload"]["params"]["plugin"] = json!("cpu");
    check(&changed, "not signed by the hub");
    // The signature is right: what is missing is a runner. Sent again, it is a replay.
    let good = message("m-7", Some(key.sign_start(&id, "m-7", &start, holt::rt::clock::unix_ms())));
    check(&good, "diagnose engine not available");
    check(&good, "used before");
    let audit = std::fs::read_to_string(state_dir(dir.path()).join("audit.jsonl")).unwrap();
    assert_eq!(audit.matches(r#""event":"refused""#).count(), 7, "{audit}");
    assert!(audit.contains(r#""user":"ana""#) && audit.contains("used before"));
}
