//! The machine link as machines see it, and the registry as people do (contract agent-link 1 to 3, 8, 11).

use std::io::Write;
use std::net::TcpStream;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::agent::{Agent, ID, id};
use crate::support::http::raw_answer;
use crate::support::hub::Builder;
use crate::support::{Client, Hub, Socket, wait_until};

const SHARED: &str = "a token that all machines share";

fn shared_hub(dir: &std::path::Path, more: &str) -> Hub {
    Builder::new(dir).config(&format!("[fleet]\nshared_token = \"{SHARED}\"\n{more}")).start()
}

fn operator(hub: &Hub) -> Client {
    hub.admin().new_key("ops", &["machines:read", "machines:write", "chat", "audit:read"])
}

#[track_caller]
fn machine(client: &Client, id: &str) -> Value {
    let answer = client.get(&format!("/api/v1/machines/{id}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[track_caller]
fn join_code(client: &Client, body: &str) -> (String, String) {
    let answer = client.post("/api/v1/machines/join-codes", body);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let typed = answer.json()["code"].as_str().unwrap().to_owned();
    assert!(answer.json()["command"].as_str().unwrap().contains(&typed));
    let (secret, fingerprint) = typed.rsplit_once('_').unwrap();
    (secret.to_owned(), fingerprint.to_owned())
}

/// The next frame about a machine.
fn news(socket: &mut Socket) -> Value {
    wait_until("news of a machine", || {
        Some(serde_json::from_str::<Value>(&socket.next_text()).unwrap()).filter(|frame| frame["type"] == "machine")
    })
}

fn denied(client: &Client) -> Vec<Value> {
    let answer = client.get("/api/v1/audit?action=machine.connect&result=denied");
    answer.json()["entries"].as_array().unwrap().clone()
}

#[test]
fn a_machine_shows_its_token_before_the_upgrade() {
    let dir = tempfile::tempdir().unwrap();
    let hub = shared_hub(dir.path(), "");
    let connect = |headers: &[(&str, &str)]| match Agent::connect_with(&hub.address, headers, ID) {
        Ok(mut agent) => {
            assert_eq!(agent.register("pi", &[])["ok"], true);
            101
        }
        Err((status, _)) => status,
    };
    let client = operator(&hub);
    assert_eq!(connect(&[("X-Agent-Token", SHARED), ("X-Agent-Id", ID), ("X-Proto-Version", "1")]), 101);
    assert_eq!(connect(&[("x-AGENT-token", SHARED), ("X-AGENT-ID", ID), ("x-proto-version", "1")]), 101);
    assert_eq!(connect(&[("X-Tenant-Token", SHARED), ("X-Agent-Id", ID), ("X-Proto-Version", "1")]), 101);
    // A name that is not the hub's is fine for machines: no browser sends this.
    let elsewhere = [("Host", "holt.example"), ("X-Agent-Token", SHARED), ("X-Agent-Id", ID), ("X-Proto-Version", "1")];
    assert_eq!(connect(&elsewhere), 101);
    assert_eq!(connect(&[&elsewhere[..], &[("Origin", "http://holt.example")]].concat()), 421);
    let offer = [("Sec-WebSocket-Protocol", "chat"), ("Sec-WebSocket-Extensions", "permessage-deflate")];
    let offered = [&offer[..1], &[("X-Agent-Token", SHARED), ("X-Agent-Id", ID), ("X-Proto-Version", "1")]].concat();
    // tungstenite itself refuses an answer without the protocol that it asked for.
    let mut request = offered
        .iter()
        .chain(&offer[1..])
        .fold(format!("GET /api/v1/agent/ws HTTP/1.1\r\nHost: {}\r\n", hub.address), |text, (name, value)| {
            format!("{text}{name}: {value}\r\n")
        });
    request.push_str("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    let answer = raw_answer(&hub.address, request.as_bytes());
    assert_eq!(answer.status, 101);
    assert_eq!((answer.header("sec-websocket-protocol"), answer.header("sec-websocket-extensions")), ("", ""));

    assert_eq!(connect(&[("X-Agent-Id", ID), ("X-Proto-Version", "1")]), 401);
    assert_eq!(connect(&[("X-Agent-Token", ""), ("X-Agent-Id", ID), ("X-Proto-Version", "1")]), 401);
    assert_eq!(connect(&[("X-Agent-Token", "wrong"), ("X-Agent-Id", ID), ("X-Proto-Version", "1")]), 401);
    assert_eq!(connect(&[("X-Agent-Token", SHARED), ("X-Agent-Id", ID)]), 400);
    assert_eq!(connect(&[("X-Agent-Token", SHARED), ("X-Agent-Id", ID), ("X-Proto-Version", "2")]), 400);
    assert_eq!(connect(&[("X-Agent-Token", SHARED), ("X-Agent-Id", "../x"), ("X-Proto-Version", "1")]), 400);
    let dirty = format!("GET /api//v1/agent/ws HTTP/1.1\r\nHost: {}\r\nX-Agent-Token: {SHARED}\r\n\r\n", hub.address);
    assert_eq!(raw_answer(&hub.address, dirty.as_bytes()).status, 404, "never a redirect");
    assert_eq!(denied(&client).len(), 1);
    // A flood is answered shortly and written down once.
    let mut last = 0;
    for _ in 0..60 {
        last = connect(&[("X-Agent-Token", "wrong"), ("X-Agent-Id", ID), ("X-Proto-Version", "1")]);
    }
    assert_eq!(last, 429);
    assert_eq!(denied(&client).len(), 1);
    assert_eq!(connect(&[("X-Agent-Token", SHARED), ("X-Agent-Id", ID), ("X-Proto-Version", "1")]), 101);
}

#[test]
fn a_registered_machine_is_listed_with_what_it_tells() {
    let dir = tempfile::tempdir().unwrap();
    let hub = shared_hub(dir.path(), "");
    let client = operator(&hub);
    let mut socket = Socket::open(&client);
    let (mut agent, ack) = Agent::join(&hub.address, SHARED, &ID.to_uppercase(), "pi-garage");
    assert_eq!(ack["features"], json!(["alert_ack", "input_ack"]));
    assert!(ack["new_token"].is_null(), "{ack}");
    let key = ack["hub_key"].as_str().unwrap();
    assert!(holt::fleet::sign::verify_proof(key, ID, "a nonce", ack["hub_proof"].as_str().unwrap()).is_ok());
    let frame = news(&mut socket);
    assert_eq!(
        (&frame["type"], &frame["machine_id"], &frame["presence"]),
        (&json!("machine"), &json!(ID), &json!("online"))
    );
    agent.send(
        "heartbeat",
        json!({"active_sessions": 0, "active_alerts": 2, "cpu_pct": 12.5, "mem_pct": 1e9, "load1": -4}),
    );
    let heartbeat = wait_until("the heartbeat is there", || {
        Some(machine(&client, ID)["heartbeat"].clone()).filter(|heartbeat| !heartbeat.is_null())
    });
    assert_eq!(
        (&heartbeat["cpu_pct"], &heartbeat["mem_pct"], &heartbeat["load1"]),
        (&json!(12.5), &json!(100), &json!(0))
    );
    let shown = machine(&client, "pi-garage");
    assert_eq!(shown["plugins"], json!(["cpu", "disk", "mem"]));
    assert_eq!(
        (&shown["os"], &shown["shared_token"], &shown["connected"]),
        (&json!("plan9"), &json!(true), &json!(true))
    );
    assert_eq!((&shown["ip"], &shown["address"]), (&json!(""), &json!("127.0.0.1")));
    // A second registration updates the record.
    let again = agent.send("register", json!({"hostname": "pi-2", "ip": "10.0.0.9", "labels": {}, "plugins": []}));
    let answer = agent.next();
    assert_eq!((&answer["ref_id"], &answer["payload"]["ok"]), (&json!(again), &json!(true)));
    assert_eq!(machine(&client, ID)["hostname"], "pi-2");
    let changed = client.send(
        "PATCH",
        &format!("/api/v1/machines/{ID}"),
        r#"{"display_name":"Garage","labels":{"site":"shed"},"expected_off":true}"#,
    );
    assert_eq!((&changed.json()["name"], &changed.json()["labels"]["site"]), (&json!("Garage"), &json!("shed")));
    assert_eq!(client.get("/api/v1/machines/garage").json()["expected_off"], true);
    assert_eq!(client.get("/api/v1/machines").json()["machines"].as_array().unwrap().len(), 1);
    assert_eq!(client.get("/api/v1/machines/nobody").status, 404);
    assert_eq!(client.get(&format!("/api/v1/machines/{ID}/readings?hours=0")).status, 400);
    assert_eq!(client.get(&format!("/api/v1/machines/{ID}/readings")).status, 200);
    let reader = hub.client().with_key(&client.key());
    assert_eq!(
        reader.post(&format!("/api/v1/machines/{ID}/rotate"), "").status,
        409,
        "the shared token is not rotated"
    );
    agent.farewell();
    wait_until("it has stopped", || (machine(&client, ID)["presence"] == "stopped").then_some(()));
    assert_eq!(machine(&client, ID)["connected"], false);
    assert_eq!(news(&mut socket)["presence"], "stopped");
    // A clock that is off is worth a word: signatures would not count.
    let mut late = Agent::connect(&hub.address, SHARED, ID).unwrap();
    late.send("register", json!({"hostname": "pi-2", "ip": "10.0.0.9", "time": holt::rt::clock::unix_ms() - 600_000}));
    let warning = late.next()["payload"]["warning"].as_str().unwrap().to_owned();
    assert!(
        warning.starts_with("agent clock is 600 s behind") || warning.starts_with("agent clock is 60"),
        "{warning}"
    );
}

#[test]
fn a_join_code_makes_one_machine() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let client = operator(&hub);
    let (secret, fingerprint) = join_code(&client, r#"{"name":"garage","labels":{"site":"home"},"ttl":"5m"}"#);
    let (agent, ack) = Agent::join(&hub.address, &secret, ID, "pi");
    let token = ack["new_token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("hm_"));
    assert_eq!(holt::fleet::sign::fingerprint(ack["hub_key"].as_str().unwrap()), Some(fingerprint));
    assert_eq!(machine(&client, "garage")["created_by"], "key:ops");
    drop(agent);
    // Not for another machine, and not for the same id from elsewhere.
    assert_eq!(Agent::connect(&hub.address, &secret, &id(2)).err().unwrap().0, 401);
    // Its own token takes over when it is used; until then the code is good, should the answer have been lost.
    let (agent, ack) = Agent::join(&hub.address, &secret, ID, "pi");
    let second = ack["new_token"].as_str().unwrap().to_owned();
    drop(agent);
    assert_eq!(Agent::connect(&hub.address, &token, ID).err().unwrap().0, 401, "it was replaced");
    let (agent, ack) = Agent::join(&hub.address, &second, ID, "pi");
    assert!(ack["new_token"].is_null());
    drop(agent);
    assert_eq!(Agent::connect(&hub.address, &secret, ID).err().unwrap().0, 401);
    // A stolen id does not help: the token says who it is, and nobody else may use it.
    assert_eq!(Agent::connect(&hub.address, &second, &id(3)).err().unwrap().0, 401);
    let (other, _) = join_code(&client, "{}");
    assert_eq!(Agent::connect(&hub.address, &other, ID).err().unwrap().0, 401, "the id is taken");
    assert!(denied(&client).iter().any(|entry| entry["source"] == "127.0.0.1"));
    let codes = client.get("/api/v1/machines/join-codes").json();
    let used: Vec<&Value> =
        codes["join_codes"].as_array().unwrap().iter().filter(|code| code["machine_id"] == ID).collect();
    assert_eq!(used.len(), 1);
    let unused = codes["join_codes"].as_array().unwrap().iter().find(|code| code["machine_id"] == "").unwrap();
    let path = format!("/api/v1/machines/join-codes/{}", unused["id"].as_str().unwrap());
    assert_eq!((client.delete(&path).status, client.delete(&path).status), (204, 404));
    assert_eq!(Agent::connect(&hub.address, &other, &id(4)).err().unwrap().0, 401);
    assert_eq!(client.post("/api/v1/machines/join-codes", r#"{"ttl":"1y"}"#).status, 400);
    assert!(!codes.to_string().contains(&secret) && !hub.log_contains(&secret) && !hub.log_contains(&second));
}

#[test]
fn a_machine_that_asks_waits_for_approval() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let client = operator(&hub);
    let token = "hr_0123456789abcdef0123456789abcdef0123456789";
    let ask = || {
        let (mut agent, ack) = Agent::join(&hub.address, token, ID, "pi");
        assert_eq!((&ack["ok"], &ack["error"]), (&json!(false), &json!("waiting for approval")));
        assert_eq!(agent.close_code().map(|(code, _)| code), Some(1008));
    };
    ask();
    ask();
    let shown = machine(&client, ID);
    assert_eq!((&shown["state"], &shown["hostname"]), (&json!("pending"), &json!("pi")));
    let code = holt::store::machines::hash_token(token)[..8].to_owned();
    assert_eq!(shown["code"], code);
    // Another one cannot slip under the same id before somebody approves.
    let (_, ack) = Agent::join(&hub.address, &token.replace('0', "9"), ID, "evil");
    assert_eq!(ack["ok"], false);
    assert_eq!(machine(&client, ID)["code"], code);
    let path = format!("/api/v1/machines/{ID}/approve");
    assert_eq!((client.post(&path, "").status, client.post(&path, "").status), (200, 409));
    let (agent, ack) = Agent::join(&hub.address, token, ID, "pi");
    assert_eq!(ack["ok"], true);
    let own = ack["new_token"].as_str().unwrap().to_owned();
    drop(agent);
    let (mut agent, _) = Agent::join(&hub.address, &own, ID, "pi");
    assert_eq!(Agent::connect(&hub.address, "hr_short", &id(2)).err().unwrap().0, 401);
    // Rotated over the link.
    assert_eq!(client.post(&format!("/api/v1/machines/{ID}/rotate"), "").status, 200);
    let order = agent.next();
    assert_eq!(order["type"], "ack");
    let rotated = order["payload"]["new_token"].as_str().unwrap().to_owned();
    drop(agent);
    let (agent, _) = Agent::join(&hub.address, &rotated, ID, "pi");
    assert_eq!(Agent::connect(&hub.address, &own, ID).err().unwrap().0, 401);
    drop(agent);
    assert_eq!(client.delete(&format!("/api/v1/machines/{ID}")).status, 204);
    assert_eq!(Agent::connect(&hub.address, &rotated, ID).err().unwrap().0, 401);

    // Only so many may wait, and only so many try.
    let mut refused = 0;
    for number in 0..40 {
        let token = format!("hr_{number:040}");
        refused += match Agent::connect(&hub.address, &token, &id(number)) {
            Ok(mut agent) => usize::from(agent.register("x", &[])["error"] != "waiting for approval"),
            Err((status, _)) => usize::from(status == 429),
        };
    }
    assert_eq!(refused, 20);
}

#[test]
fn a_revoked_machine_is_cut_off_at_once_also_from_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let hub = shared_hub(dir.path(), "");
    let client = operator(&hub);
    let (mut first, _) = Agent::join(&hub.address, SHARED, &id(1), "one");
    let (mut second, _) = Agent::join(&hub.address, SHARED, &id(2), "two");
    let (mut third, _) = Agent::join(&hub.address, SHARED, &id(3), "three");
    assert_eq!(client.post(&format!("/api/v1/machines/{}/revoke", id(1)), "").status, 200);
    assert_eq!(first.close_code(), Some((1008, "revoked".to_owned())));
    assert_eq!(machine(&client, &id(1))["presence"], "lost");
    assert_eq!(client.post(&format!("/api/v1/machines/{}/revoke", id(1)), "").status, 409);
    // As the command line does, in another process.
    let db = std::sync::Arc::new(holt::store::Db::open(&hub.dir.join("holt.db")).unwrap());
    let machines = holt::store::MachineStore::new(db);
    machines.revoke(&id(2)).unwrap();
    assert_eq!(second.close_code(), Some((1008, "revoked".to_owned())));
    machines.forget(&id(3)).unwrap();
    assert_eq!(third.close_code(), Some((1008, "revoked".to_owned())));
    assert_eq!(Agent::connect(&hub.address, SHARED, &id(1)).err().unwrap().0, 401);
    // Forgotten is not refused: with the shared token it is simply new.
    let (_agent, ack) = Agent::join(&hub.address, SHARED, &id(3), "three");
    assert_eq!(ack["ok"], true);
}

#[test]
fn alerts_are_stored_once_and_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let hub = shared_hub(dir.path(), "");
    let client = operator(&hub);
    let mut agent = Agent::reference(&hub.address, SHARED, ID, "pi");
    let event = |target: String, status: &str, text: String| {
        let labels = std::collections::BTreeMap::from(
            [("check", "disk::space_usage"), ("target", target.as_str())].map(|(a, b)| (a.to_owned(), b.to_owned())),
        );
        json!({
            "event_time": holt::rt::clock::unix_s(), "event_status": status, "alert_key": holt::alert::key_of(&labels),
            "labels": labels, "description": text,
        })
    };
    let big = "<&>".repeat(5 * 1024 * 1024 / 18 / 100);
    let events: Vec<Value> = (0..100).map(|number| event(format!("/{number}"), "Warning", big.clone())).collect();
    let text = json!({"type": "alert_events", "id": "batch-1", "payload": {"events": events}}).to_string();
    let escaped = text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    for _ in 0..2 {
        agent.send_text(&escaped);
        let ack = agent.next();
        assert_eq!(
            (&ack["type"], &ack["ref_id"], &ack["payload"]["ok"]),
            (&json!("ack"), &json!("batch-1"), &json!(true))
        );
    }
    let count = |sql: &str| hub.database().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM alerts"), 100);
    assert_eq!(count("SELECT count(*) FROM alert_events"), 100);
    // An end of what never began is recorded, and nothing else.
    agent.send("alert_events", json!({"events": [event("/never".to_owned(), "Ok", String::new())]}));
    assert_eq!(agent.next()["payload"]["ok"], true);
    assert_eq!(count("SELECT count(*) FROM alert_events"), 101);
    assert_eq!(client.get("/api/v1/alerts?state=all&limit=200").json()["alerts"].as_array().unwrap().len(), 100);
    // A machine has as many open alerts as the list shows, whatever its heartbeat says.
    agent.send("heartbeat", json!({"active_sessions": 0, "active_alerts": 2}));
    let first = client.get("/api/v1/alerts").json()["alerts"][0]["id"].clone();
    assert_eq!(client.post(&format!("/api/v1/alerts/{first}/close"), "").status, 200);
    agent.send("alert_events", json!({"events": [event("/7".to_owned(), "Critical", String::new())]}));
    assert_eq!(agent.next()["payload"]["ok"], true);
    let open = client.get("/api/v1/alerts?state=open&limit=200").json();
    let critical = open["alerts"].as_array().unwrap().iter().filter(|alert| alert["level"] == "Critical").count();
    assert_eq!((open["alerts"].as_array().unwrap().len(), critical), (99, 1));
    let counts = json!({"critical": 1, "warning": 98, "info": 0});
    assert_eq!(machine(&client, ID)["open_alerts"], counts);
    assert_eq!(client.get("/api/v1/machines").json()["machines"][0]["open_alerts"], counts);
}

#[test]
fn a_cloned_id_is_refused_and_a_returning_machine_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let hub = shared_hub(dir.path(), "");
    let client = operator(&hub);
    let (mut agent, _) = Agent::join(&hub.address, SHARED, ID, "pi");
    let (mut clone, ack) = Agent::join(&hub.address, SHARED, ID, "evil");
    assert_eq!((&ack["ok"], &ack["error"]), (&json!(false), &json!("agent id in use by pi")));
    assert_eq!(clone.close_code().map(|(code, _)| code), Some(1008));
    let alerts = client.get("/api/v1/alerts").json();
    assert_eq!(alerts["alerts"][0]["check"], "hub::cloned_agent_id");
    assert_eq!(machine(&client, ID)["hostname"], "pi");
    // The same host again: its old connection is half dead, and the new one takes its place.
    let (mut again, ack) = Agent::join(&hub.address, SHARED, ID, "pi");
    assert_eq!(ack["ok"], true);
    let (code, reason) = agent.close_code().unwrap();
    assert_eq!(code, 1000, "{reason}");
    again.send("heartbeat", json!({}));
    wait_until("the new one is heard", || machine(&client, ID)["heartbeat"].is_object().then_some(()));
    assert_eq!(machine(&client, ID)["connected"], true);
}

#[test]
fn one_fall_and_one_recovery_are_told_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = shared_hub(dir.path(), "down_after = \"200ms\"");
    let client = operator(&hub);
    let open = |client: &Client| {
        let alerts = client.get("/api/v1/alerts?state=all&check=hub::machine_down").json();
        let states: Vec<bool> =
            alerts["alerts"].as_array().unwrap().iter().map(|it| it["closed_at"].is_null()).collect();
        states
    };
    let (agent, _) = Agent::join(&hub.address, SHARED, ID, "pi");
    drop(agent);
    wait_until("it is down", || (machine(&client, ID)["down_reported"] == true).then_some(()));
    assert_eq!(machine(&client, ID)["presence"], "lost");
    assert_eq!(open(&client), [true]);
    // Told is told, also for the next hub.
    hub.signal("TERM");
    assert!(hub.wait().success());
    let hub = shared_hub(dir.path(), "down_after = \"200ms\"");
    let client = client.at(&hub.address);
    assert_eq!(open(&client), [true]);
    let (agent, _) = Agent::join(&hub.address, SHARED, ID, "pi");
    wait_until("it is back", || (machine(&client, ID)["down_reported"] == false).then_some(()));
    assert_eq!(open(&client), [false]);
    // Saying goodbye, or being meant to be off, is not a fall.
    agent.farewell();
    wait_until("it has stopped", || (machine(&client, ID)["presence"] == "stopped").then_some(()));
    let (agent, _) = Agent::join(&hub.address, SHARED, ID, "pi");
    client.send("PATCH", &format!("/api/v1/machines/{ID}"), r#"{"expected_off":true}"#);
    drop(agent);
    wait_until("it is away", || (machine(&client, ID)["presence"] == "lost").then_some(()));
    assert_eq!(machine(&client, ID)["down_reported"], false);
    assert_eq!(open(&client), [false]);
}

#[test]
fn many_that_fall_together_are_one_alert() {
    let dir = tempfile::tempdir().unwrap();
    let hub = shared_hub(dir.path(), "down_after = \"700ms\"");
    let client = operator(&hub);
    let connect = || -> Vec<Agent> {
        (0..5).map(|number| Agent::join(&hub.address, SHARED, &id(number), &format!("pi-{number}")).0).collect()
    };
    drop(connect());
    let all =
        |state: &str| client.get(&format!("/api/v1/alerts?state={state}")).json()["alerts"].as_array().unwrap().clone();
    let told = wait_until("they are down", || Some(all("open")).filter(|alerts| !alerts.is_empty()));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["check"], "hub::machines_down");
    assert!(told[0]["description"].as_str().unwrap().contains("pi-0, pi-1, pi-2, pi-3, pi-4"));
    let _agents = connect();
    wait_until("they are back", || all("open").is_empty().then_some(()));
    assert_eq!(all("all").len(), 1);
}

#[test]
fn what_one_machine_does_wrong_concerns_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let hub = shared_hub(dir.path(), "");
    let client = operator(&hub);
    let (mut good, _) = Agent::join(&hub.address, SHARED, &id(0), "good");
    // The first message must be a registration.
    let mut rude = Agent::connect(&hub.address, SHARED, &id(1)).unwrap();
    rude.send("heartbeat", json!({}));
    assert_eq!(rude.close_code(), Some((1008, "register first".to_owned())));
    let mut odd = Agent::connect(&hub.address, SHARED, &id(1)).unwrap();
    odd.send("register", json!({"labels": [1]}));
    assert_eq!(odd.next()["payload"]["error"], "invalid payload");
    // Too large before it is anybody.
    let mut large = Agent::connect(&hub.address, SHARED, &id(1)).unwrap();
    let _ = large.ws.send(Message::text("x".repeat(300 * 1024)));
    assert_eq!(large.close_code().map(|(code, _)| code), Some(1009));
    // Too large afterwards; nested as deep as it gets; binary; unmasked.
    let (mut large, _) = Agent::join(&hub.address, SHARED, &id(1), "large");
    large.ws.send(Message::binary(br#"{"type":"heartbeat","payload":null}"#.to_vec())).unwrap();
    large.send_text(&format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)));
    large.send_text(&format!(r#"{{"type":"heartbeat","payload":{}1{}}}"#, r#"{"a":"#.repeat(120), "}".repeat(120)));
    let _ = large.ws.send(Message::text("x".repeat(17 * 1024 * 1024)));
    assert!(matches!(large.close_code(), Some((1009, _)) | None));
    let (mut garbage, _) = Agent::join(&hub.address, SHARED, &id(2), "garbage");
    for number in 0..101 {
        let text = ["{", "nonsense", r#"{"type":"dance","id":"1"}"#, r#"{"type":"ack"}"#, "[]"][number % 5];
        garbage.ws.send(Message::text(text)).unwrap();
    }
    assert_eq!(garbage.close_code(), Some((1008, "too many bad messages".to_owned())));
    let (unmasked, _) = Agent::join(&hub.address, SHARED, &id(3), "unmasked");
    unmasked.ws.get_ref().write_all(&[0x81, 2, b'{', b'}']).unwrap();
    // Half an upgrade, and half a frame.
    let mut half = TcpStream::connect(&hub.address).unwrap();
    half.write_all(b"GET /api/v1/agent/ws HTTP/1.1\r\nX-Agent-Token: ").unwrap();
    let (part, _) = Agent::join(&hub.address, SHARED, &id(4), "part");
    part.ws.get_ref().write_all(&[0x81, 0xff, 0, 0, 0, 0, 0, 0xff, 0xff]).unwrap();
    // A flood of good messages, from one that reads nothing.
    let (mut flood, _) = Agent::join(&hub.address, SHARED, &id(5), "flood");
    flood.ws.get_ref().set_write_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    for _ in 0..3000 {
        if flood.ws.send(Message::text(r#"{"type":"alert_events","id":"x","payload":{"events":[]}}"#)).is_err() {
            break;
        }
    }
    good.send("heartbeat", json!({"cpu_pct": 5}));
    wait_until("the good one is heard", || {
        (machine(&client, "good")["heartbeat"]["cpu_pct"] == json!(5)).then_some(())
    });
    assert_eq!(machine(&client, "good")["connected"], true);
}

#[test]
fn machines_are_sent_away_at_a_stop_each_for_another_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = shared_hub(dir.path(), "");
    let mut agents: Vec<Agent> =
        (0..20).map(|number| Agent::join(&hub.address, SHARED, &id(number), &format!("pi-{number}")).0).collect();
    hub.signal("TERM");
    let mut waits: Vec<i64> = Vec::new();
    for agent in &mut agents {
        let order = agent.next();
        assert_eq!(order["type"], "disconnect");
        waits.push(order["payload"]["retry_after_sec"].as_i64().unwrap());
        assert_eq!(agent.close_code().map(|(code, _)| code), Some(1001));
    }
    waits.sort_unstable();
    assert_eq!((waits[0], waits[19]), (1, 5), "{waits:?}");
    assert!(hub.wait().success());
    // Nobody is down because the hub was.
    let hub = shared_hub(dir.path(), "down_after = \"1ms\"");
    drop(agents);
    let db = hub.database();
    let online: i64 =
        db.query_row("SELECT count(*) FROM machines WHERE presence = 'online'", [], |row| row.get(0)).unwrap();
    assert_eq!(online, 20);
}

#[test]
fn a_hub_that_nobody_set_up_takes_no_machines() {
    let dir = tempfile::tempdir().unwrap();
    let hub =
        Builder::new(dir.path()).config(&format!("[fleet]\nshared_token = \"{SHARED}\"")).listen("0.0.0.0:0").start();
    let address = hub.address.replace("0.0.0.0", "127.0.0.1");
    assert_eq!(Agent::connect(&address, SHARED, ID).err().unwrap().0, 401);
}
