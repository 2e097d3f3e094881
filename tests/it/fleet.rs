//! Real machines at a real hub: joining, talking, looking, stopping.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::agent::{Agent, ID};
use crate::support::hub::Builder;
use crate::support::machine::Machine;
use crate::support::ws::kinds;
use crate::support::{Client, Hub, Model, Socket, wait_until};

/// A machine that joins with a code, named by a label.
fn join(hub: &Hub, admin: &Client, name: &str) -> (Machine, String) {
    let made = admin.post("/api/v1/machines/join-codes", &json!({"name": name}).to_string());
    assert_eq!(made.status, 201, "{}", made.text());
    let code = made.json()["code"].as_str().unwrap().to_owned();
    let dir = hub.dir.join(name);
    let config = format!("[global.labels]\nfrom_hostname = \"{name}\"\n");
    let url = format!("http://{}", hub.address);
    let machine = Machine::start(&dir, &config, &["--hub", &url, "--join", &code]);
    let id = wait_until("the machine is online", || {
        let machines = admin.get("/api/v1/machines").json()["machines"].clone();
        let own = machines.as_array().unwrap().iter().find(|machine| machine["hostname"] == name)?.clone();
        (own["presence"] == "online").then(|| own["id"].as_str().unwrap().to_owned())
    });
    (machine, id)
}

fn presence(admin: &Client, id: &str) -> String {
    admin.get(&format!("/api/v1/machines/{id}")).json()["presence"].as_str().unwrap().to_owned()
}

fn ask(socket: &mut Socket, agent: &str, session: &str, text: &str) -> Vec<Value> {
    socket.send(&json!({"type": "chat_request", "agent": agent, "session_id": session, "message": text}));
    socket.turn()
}

#[test]
fn a_machine_joins_answers_and_says_goodbye() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let admin = hub.admin().new_key("all", &["admin", "chat", "sessions:read", "machines:read", "machines:write"]);
    let (machine, id) = join(&hub, &admin, "pi-garage");
    wait_until("it is an agent that can be asked", || {
        let agents = admin.get("/api/v1/agents").json();
        let listed = agents.as_array().unwrap().iter().find(|agent| agent["name"] == format!("machine:{id}")).unwrap();
        assert_eq!(listed["display_name"], "pi-garage");
        (listed["online"] == true).then_some(())
    });

    // By its name; the turn is a turn like any other: numbered, with tools, and replayed.
    let mut socket = Socket::open(&admin);
    let frames = ask(&mut socket, "machine:pi-garage", "s1", "how is this machine doing?");
    let seen = kinds(&frames);
    assert_eq!(seen[0], "thinking");
    assert!(seen.windows(2).any(|pair| pair == ["tool_start", "tool_end"]), "{frames:?}");
    assert_eq!(seen[seen.len() - 3..], ["usage", "content", "done"], "{frames:?}");
    let text = frames[frames.len() - 2]["text"].as_str().unwrap();
    assert!(text.contains("### Memory"), "{text}");
    let mut other = Socket::open(&admin);
    other.attach("s1", 0);
    assert_eq!(other.next()["type"], "resumed");
    let replayed: Vec<Value> = (0..frames.len()).map(|_| other.next()).collect();
    assert_eq!(replayed, frames);
    // A second message of the same conversation.
    let again = ask(&mut socket, &format!("machine:{id}"), "s1", "and the disks?");
    assert_eq!(kinds(&again).last().unwrap(), "done", "{again:?}");

    // A look: an ordinary conversation to follow.
    for body in [
        json!({"type": "inspect", "plugin": "mem"}),
        json!({"type": "diagnose", "plugin": "disk", "descriptions": "disk::space_usage Warning: / at 92 %"}),
    ] {
        let started = admin.post(&format!("/api/v1/machines/{id}/sessions"), &body.to_string());
        assert_eq!(started.status, 202, "{}", started.text());
        let session = started.json()["session_id"].as_str().unwrap().to_owned();
        let mut follower = Socket::open(&admin);
        follower.attach(&session, 0);
        assert_eq!(follower.next()["type"], "resumed");
        let frames = follower.turn();
        assert_eq!(kinds(&frames).last().unwrap(), "done", "{frames:?}");
        let report = frames[frames.len() - 2]["text"].as_str().unwrap();
        assert!(report.contains('['), "no marked items in {report}");
        let deltas: String =
            frames.iter().filter(|f| f["type"] == "content_delta").map(|f| f["text"].as_str().unwrap()).collect();
        assert_eq!(deltas.matches(report.lines().next().unwrap()).count(), 1, "the report is shown once");
    }

    // The command line talks to it as well.
    let output = Command::new(env!("CARGO_BIN_EXE_holt"))
        .args(["chat", "--url", &format!("http://{}", hub.address), "-a", "machine:pi-garage", "uptime?"])
        .env_clear()
        .env("HOLT_DATA_DIR", dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("up"), "{output:?}");

    // The machine has noted who asked for what.
    let audit = std::fs::read_to_string(machine.dir.join("agent/audit.jsonl")).unwrap();
    assert!(audit.contains("\"chat\"") && audit.contains("\"inspect\""), "{audit}");

    // A clean stop is no alarm; the next start needs no code.
    machine.signal("TERM");
    let mut machine = machine;
    assert!(machine.wait().success());
    wait_until("it said goodbye", || (presence(&admin, &id) == "stopped").then_some(()));
    let refused = ask(&mut socket, "machine:pi-garage", "s1", "still there?");
    assert_eq!(refused.last().unwrap()["type"], "error");
    assert!(refused.last().unwrap()["message"].as_str().unwrap().contains("pi-garage"), "{refused:?}");
    let url = format!("http://{}", hub.address);
    let _again = Machine::start(&machine.dir, "", &["--hub", &url]);
    wait_until("it is back", || (presence(&admin, &id) == "online").then_some(()));
    assert_eq!(admin.get("/api/v1/machines").json()["machines"].as_array().unwrap().len(), 1, "the same machine");
    // Revoked is revoked: at once, and for good.
    let revoked = admin.post(&format!("/api/v1/machines/{id}/revoke"), "");
    assert!(revoked.status < 300, "{}", revoked.text());
    wait_until("it is cut off", || (presence(&admin, &id) != "online").then_some(()));
}

#[test]
fn who_may_do_what_is_for_the_hub_to_say() {
    let dir = tempfile::tempdir().unwrap();
    let rule = "[[fleet.access]]\nwho = \"key:oncall\"\nmachines = [\"*\"]\nallow = [\"view\", \"inspect\"]";
    let hub = Builder::new(dir.path()).config(rule).start();
    let admin = hub.admin().new_key("all", &["admin", "chat", "machines:read", "machines:write"]);
    let (_machine, id) = join(&hub, &admin, "nas");
    let (oncall, nobody) = (admin.new_key("oncall", &["chat", "machines:read"]), admin.new_key("nobody", &["chat"]));
    let start = |client: &Client, kind: &str| {
        let body = json!({"type": kind, "plugin": "cpu", "message": "hello"});
        client.post(&format!("/api/v1/machines/{id}/sessions"), &body.to_string())
    };
    assert_eq!(start(&oncall, "inspect").status, 202);
    let refused = start(&oncall, "diagnose");
    assert_eq!((refused.status, refused.json()["code"].clone()), (403, json!("not_allowed")));
    assert_eq!(start(&oncall, "chat").status, 403);
    // Who may not even see it is not told that it exists.
    assert_eq!(start(&nobody, "inspect").status, 404);
    assert_eq!(start(&admin, "chat").status, 202);
    assert_eq!(start(&admin, "shell").status, 400);
    let mut socket = Socket::open(&oncall);
    socket.send(&json!({"type": "chat_request", "agent": format!("machine:{id}"), "message": "hello"}));
    assert_eq!(socket.next()["code"], "permission_denied");
    assert_eq!(admin.post("/api/v1/machines/unknown/sessions", r#"{"type":"inspect"}"#).status, 404);
}

#[test]
fn machines_borrow_the_hubs_model() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let admin = hub.admin().new_key("all", &["admin", "chat", "machines:read", "machines:write"]);
    let made = admin.post("/api/v1/machines/join-codes", "{}").json();
    let code = made["code"].as_str().unwrap();
    let url = format!("http://{}", hub.address);
    let config = "[ai]\nenabled = true\n[ai.gateway]\nenabled = true\n";
    let _machine = Machine::start(&dir.path().join("m"), config, &["--hub", &url, "--join", code]);
    let id = wait_until("the machine is online", || {
        let machines = admin.get("/api/v1/machines").json()["machines"].clone();
        (machines[0]["presence"] == "online").then(|| machines[0]["id"].as_str().unwrap().to_owned())
    });
    let mut socket = Socket::open(&admin);
    let frames = ask(&mut socket, &format!("machine:{id}"), "s", "say words from the model");
    assert_eq!(kinds(&frames).last().unwrap(), "done", "{frames:?}");
    assert!(frames[frames.len() - 2]["text"].as_str().unwrap().contains("words from the model"), "{frames:?}");
}

#[test]
fn a_machine_that_comes_before_the_setup_is_told_so_and_joins_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).listen("0.0.0.0:0").start();
    let port = hub.address.rsplit_once(':').unwrap().1.to_owned();
    let url = format!("http://127.0.0.1:{port}");
    let mut join = Command::new(env!("CARGO_BIN_EXE_holt"));
    join.env_clear().args(["machines", "join", "--url", &url, "--data-dir"]).arg(dir.path());
    let made = join.output().unwrap();
    let line = String::from_utf8(made.stdout).unwrap();
    let code = line.split_whitespace().skip_while(|word| *word != "--join").nth(1).unwrap_or_else(|| panic!("{line}"));
    let machine = Machine::start(&dir.path().join("pi"), "", &["--hub", &url, "--join", code]);
    let advice = format!("open {url} first");
    wait_until("it is told what to do", || machine.log().contains(&advice).then_some(()));
    let log = machine.log();
    assert!(log.contains("the hub is not set up yet") && !log.contains("does not know"), "{log}");
    // Nobody asks: it comes again by itself, with the code that is still good.
    let body = json!({"name": "admin", "scopes": ["admin", "machines:read"], "pin": hub.pin});
    let answer = Client::new(&format!("127.0.0.1:{port}")).post("/api/v1/setup", &body.to_string());
    assert_eq!(answer.status, 201, "{}", answer.text());
    let admin = Client::new(&format!("127.0.0.1:{port}")).with_key(answer.json()["key"].as_str().unwrap());
    wait_until("it has joined", || {
        let machines = admin.get("/api/v1/machines").json()["machines"].clone();
        (machines[0]["presence"] == "online").then_some(())
    });
}

#[test]
fn the_built_in_agent_tells_of_joined_machines_to_those_who_may_see_them() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = "[fleet]\nshared_token = 'shared-by-all-machines'\ndown_after = '1s'";
    let hub = Builder::new(dir.path()).config(fleet).start();
    let admin = hub.admin().new_key("all", &["admin", "chat", "machines:read", "machines:write"]);
    let said = |client: &Client, text: &str| {
        let answer = client.post("/api/v1/chat", &json!({"message": text}).to_string());
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["response"].as_str().unwrap().to_owned()
    };
    assert!(!said(&admin, "how are my machines?").contains("joined"));
    assert!(said(&admin, "are my machines online?").starts_with("No machine has joined this hub."));
    // A scripted one: it has no troubles of its own.
    let (machine, _) = Agent::join(&hub.address, "shared-by-all-machines", ID, "pi-garage");
    let text = said(&admin, "is everything ok?");
    assert!(text.contains("### Joined machines\n\n- online: `pi-garage`\n"), "{text}");
    assert!(!said(&admin, "how is this machine?").contains("pi-garage"));
    // A key that sees no machines hears of none.
    let guest = admin.new_key("guest", &["chat"]);
    assert!(said(&guest, "are my machines online?").starts_with("No machine has joined this hub."));
    // What is wrong comes first, with its name; what somebody has seen to does not.
    hub.database()
        .execute(
            "INSERT INTO alerts(machine_id, alert_key, check_name, target, level, worst, labels, attrs, description,
                description_format, opened_at, changed_at) VALUES (?1, 'k', 'disk::space_usage', '/data', 'Critical',
                'Critical', '{}', '{}', 'disk usage 99.1%', '', 1, 1)",
            [ID],
        )
        .unwrap();
    let text = said(&admin, "are my machines online?");
    assert!(
        text.starts_with("`pi-garage` is online; 1 thing needs attention: pi-garage /data: disk usage 99.1%."),
        "{text}"
    );
    drop(machine);
    wait_until("the hub misses it", || (presence(&admin, ID) == "lost").then_some(()));
    hub.database().execute("UPDATE alerts SET acknowledged_at = 1", []).unwrap();
    // The hub may write the time once more itself.
    let text = wait_until("it is missed for long", || {
        let earlier = "UPDATE machines SET last_seen_at = 1000 * (unixepoch() - 7200)";
        hub.database().execute(earlier, []).unwrap();
        let text = said(&admin, "how are my machines?");
        text.contains("- **critical**: pi-garage has not been heard of for 2 hours").then_some(text)
    });
    assert!(!text.contains("99.1"), "{text}");
}
