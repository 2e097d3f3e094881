//! Notifications of the real hub to scripted services: the test button, requests for approval, outages and restarts.

use std::collections::BTreeMap;
use std::sync::Arc;

use holt::alert::{Event, Level, key_of};
use holt::rt::clock;
use holt::store::{AlertStore, Db};
use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::site::answer;
use crate::support::{Client, Hub, Model, Site, Socket, wait_until};

const SECRET: &str = "tk_hunter2";
/// A call that has to be asked for; its arguments are nobody's business.
const SET: &str = r#"tool kv_set {"key":"diary","value":"dear me"}"#;

fn taking() -> Site {
    Site::start(|_, _, out| answer(out, 200, "", b"{}"))
}

fn channel(site: &Site, more: &str) -> String {
    format!("[notify.phone]\ntype = \"ntfy\"\nserver = \"http://{}\"\ntopic = \"home\"\n{more}", site.address)
}

fn client(hub: &Hub) -> Client {
    hub.admin().new_key("all", &["admin", "chat", "machines:read", "machines:write", "audit:read"])
}

fn listed(client: &Client) -> Value {
    let answer = client.get("/api/v1/notifications");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn body(request: &str) -> Value {
    serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn the_test_button_says_how_it_went() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (taking(), Site::start(|_, _, out| answer(out, 401, "", br#"{"error":"tk_hunter2 is wrong"}"#)));
    let refused = format!(
        "[notify.wrong]\ntype = \"gotify\"\nserver = \"{}\"\ntoken = \"{SECRET}\"\n[notify.log]\ntype = \"console\"\n",
        bad.url("")
    );
    let config = channel(&good, "token = \"${PHONE_TOKEN}\"\n") + &refused;
    let hub = Builder::new(dir.path()).config(&config).env("PHONE_TOKEN", SECRET).start();
    let all = client(&hub);
    let test = |channel: &str| all.post("/api/v1/notifications/test", &json!({"channel": channel}).to_string());
    let told = test("phone");
    assert_eq!((told.status, told.json()), (200, json!({"ok": true})));
    let asked = good.requests();
    assert!(asked[0].contains(&format!("Bearer {SECRET}")), "{asked:?}");
    assert_eq!((&body(&asked[0])["topic"], &body(&asked[0])["title"]), (&json!("home"), &json!("Test")));
    let told = test("wrong");
    assert_eq!((told.status, &told.json()["code"]), (502, &json!("notification_failed")), "{}", told.text());
    assert!(told.text().contains("credential"), "{}", told.text());
    assert_eq!(test("log").status, 200);
    assert!(hub.log_contains("This channel works."));
    assert_eq!(test("nobody").status, 404);
    let channels = listed(&all)["channels"].as_array().unwrap().clone();
    let states: Vec<_> = channels
        .iter()
        .map(|channel| (channel["name"].as_str().unwrap(), channel["failures"].as_u64().unwrap(), &channel["sent_at"]))
        .collect();
    assert_eq!(
        states.iter().map(|state| (state.0, state.1)).collect::<Vec<_>>(),
        [("log", 0), ("phone", 0), ("wrong", 1)]
    );
    assert!(states[1].2.is_string() && states[2].2.is_null());
    // Nobody without the right may, and whoever did is recorded.
    let reader = hub.client().with_key(&all.new_key("reader", &["machines:read"]).key());
    assert_eq!(reader.get("/api/v1/notifications").status, 200);
    assert_eq!(reader.post("/api/v1/notifications/test", r#"{"channel":"phone"}"#).status, 403);
    assert_eq!(hub.client().get("/api/v1/notifications").status, 401);
    let audit = all.get("/api/v1/audit?limit=20").text();
    assert_eq!(audit.matches("notification.test").count(), 3, "{audit}");
    for text in [audit, listed(&all).to_string(), hub.log_tail(), told.text()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_request_for_approval_is_told_without_its_arguments_and_outlives_a_kill() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let down = Site::start(|_, _, out| answer(out, 503, "", b""));
    let start = |config: &str| {
        // A hub that others reach is set up by its PIN or by its file.
        let api = "[api]\nexternal_url = \"http://hub.lan:8080\"\n[[api.keys]]\nname = \"all\"\n\
                   key = \"dk_of_this_test\"\nscopes = [\"chat\", \"machines:read\"]\n";
        Builder::new(dir.path()).config(&format!("{api}{config}")).model(&model).start()
    };
    let mut hub = start(&channel(&down, ""));
    let all = hub.client().with_key("dk_of_this_test");
    let mut socket = Socket::open(&all);
    socket.chat("s1", SET);
    while socket.next()["type"] != "tool_approval" {}
    let waiting = wait_until("the first attempt has failed", || {
        let notices = listed(&all)["notices"].as_array().unwrap().clone();
        notices.into_iter().find(|notice| notice["attempts"].as_u64() > Some(0))
    });
    assert_eq!((&waiting["state"], &waiting["kind"]), (&json!("waiting"), &json!("approval")));
    assert!(waiting["error"].as_str().unwrap().contains("503"), "{waiting}");
    hub.kill();
    let up = taking();
    let hub = start(&channel(&up, ""));
    let all = all.at(&hub.address);
    up.wait_for("kv_set");
    wait_until("the row has left", || listed(&all)["notices"].as_array().unwrap().is_empty().then_some(()));
    let asked = up.requests();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let told = body(&asked[0]);
    assert_eq!(told["title"], "Approval: default wants to use kv_set");
    assert_eq!(told["message"], "It wants to remember something. Look at the details, then approve or deny it.");
    assert_eq!(told["actions"][0]["url"], "http://hub.lan:8080/#/approvals");
    assert!(!asked[0].contains("diary") && !asked[0].contains("dear"), "{asked:?}");
}

#[test]
fn a_request_for_approval_is_decided_by_a_button_once() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let site = taking();
    let api = "[api]\nexternal_url = \"http://hub.lan:8080\"\n[[api.keys]]\nname = \"all\"\n\
               key = \"dk_of_this_test\"\nscopes = [\"chat\", \"machines:read\", \"approvals:read\", \"audit:read\"]\n";
    let config = format!("{api}{}", channel(&site, "approve_buttons = true\n"));
    let hub = Builder::new(dir.path()).config(&config).model(&model).start();
    let all = hub.client().with_key("dk_of_this_test");
    let mut socket = Socket::open(&all);
    socket.chat("s1", SET);
    site.wait_for("kv_set");
    let told = body(&site.requests()[0]);
    let actions = told["actions"].as_array().unwrap();
    let labels: Vec<&str> = actions.iter().map(|action| action["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["Open", "Approve", "Deny"], "{told}");
    let (approve, deny) = (&actions[1], &actions[2]);
    assert_eq!((&approve["action"], &approve["method"]), (&json!("http"), &json!("POST")));
    let path = approve["url"].as_str().unwrap().strip_prefix("http://hub.lan:8080").unwrap();
    let approving = approve["body"].as_str().unwrap();
    let parsed: Value = serde_json::from_str(approving).unwrap();
    let token = parsed["token"].as_str().unwrap().to_owned();
    assert!(!path.contains(&token) && !listed(&all).to_string().contains(&token));
    // Nobody else's, and not for another verdict.
    let stranger = hub.client();
    let denying = deny["body"].as_str().unwrap();
    for wrong in [
        approving.replace(&token, "00"),
        approving.replace("true", "false"),
        approving.replace("phone", "other"),
        "{}".to_owned(),
    ] {
        let answer = stranger.post(path, &wrong);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("bad_button")), "{wrong}");
    }
    assert_eq!(stranger.post("/api/v1/approvals/nothing/button", approving).status, 403);
    assert_eq!(all.get("/api/v1/approvals?status=pending").json().as_array().unwrap().len(), 1);
    let pressed = stranger.post(path, approving);
    assert_eq!((pressed.status, &pressed.json()["status"]), (200, &json!("approved")), "{}", pressed.text());
    assert_eq!(socket.turn().last().unwrap()["type"], "done");
    for late in [approving, denying] {
        assert_eq!(stranger.post(path, late).status, 409);
    }
    let row = &all.get("/api/v1/approvals").json()[0];
    assert_eq!((&row["decided_by"], &row["status"]), (&json!("button:phone"), &json!("approved")), "{row}");
    let audit = all.get("/api/v1/audit?limit=50").text();
    assert!(audit.contains("button:phone") && !audit.contains(&token), "{audit}");
    assert!(!hub.log_tail().contains(&token));
}

#[test]
fn what_waits_can_be_given_up() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let site = taking();
    // Nobody listens on that port.
    let config = channel(&site, "approvals = false\n")
        + "[notify.later]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:9/\"\ntimeout = \"5s\"\n";
    let hub = Builder::new(dir.path()).config(&config).model(&model).start();
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    socket.chat("s1", SET);
    while socket.next()["type"] != "tool_approval" {}
    let id = wait_until("it waits", || {
        let notices = listed(&all)["notices"].as_array().unwrap().clone();
        notices.first().map(|notice| notice["id"].as_i64().unwrap())
    });
    assert_eq!(all.delete(&format!("/api/v1/notifications/{id}")).status, 204);
    assert_eq!(all.delete(&format!("/api/v1/notifications/{id}")).status, 404);
    assert_eq!(all.delete("/api/v1/notifications/x").status, 404);
    assert!(site.requests().is_empty());
    assert!(all.get("/api/v1/audit").text().contains("notification.delete"));
}

#[test]
fn what_cannot_work_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let check = |config: &str, parts: &[&str]| {
        let output = Builder::new(dir.path()).config(config).command().output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        for part in parts {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
    };
    check("[notify.x]\ntype = \"pager\"", &["notify.x.type", "ntfy"]);
    check("[notify.ntfy]\ntopic = \"a\"\ntokn = \"hunter2\"", &["notify.ntfy.tokn", "did you mean token"]);
    check("[notify.console]\ntitle = \"{levl}\"", &["notify.console.title", "{levl}"]);
    check("[notify.webhook]\nurl = \"http://169.254.169.254/hunter2\"", &["notify.webhook", "metadata"]);
    let mqtt = "[notify.mqtt]\nserver = \"h\"\ntls = true\nca_file = \"/nowhere.pem\"";
    check(mqtt, &["notify.mqtt", "/nowhere.pem"]);
}

#[test]
fn an_alert_and_its_end_reach_a_phone_once() {
    let dir = tempfile::tempdir().unwrap();
    let site = taking();
    let config = channel(&site, "min_level = \"Warning\"\nmatch = { check = \"disk::*\" }\n");
    let hub = Builder::new(dir.path()).config(&config).start();
    let all = client(&hub);
    let event = |check: &str, level: Level| {
        let names = [("check", check), ("target", "/data"), ("from_hostname", "pi")];
        let labels: BTreeMap<String, String> = names.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Event {
            time: clock::unix_s(),
            level,
            key: key_of(&labels),
            labels,
            attrs: BTreeMap::new(),
            description: format!("it is {level}"),
            format: String::new(),
        }
    };
    // As another process of the same hub stores them.
    let store = |events: &[Event]| {
        let db = Arc::new(Db::open(&hub.dir.join("holt.db")).unwrap());
        let now = clock::unix_ms();
        AlertStore::new(db).take("11111111-1111-4111-8111-111111111111", events, now, now).unwrap();
    };
    store(&[event("disk::space_usage", Level::Critical), event("mem::usage", Level::Critical)]);
    site.wait_for("Critical: disk::space_usage /data");
    store(&[event("disk::space_usage", Level::Ok), event("mem::usage", Level::Ok)]);
    site.wait_for("Recovered: disk::space_usage /data");
    wait_until("nothing waits", || listed(&all)["notices"].as_array().unwrap().is_empty().then_some(()));
    let titles: Vec<Value> = site.requests().iter().map(|request| body(request)["title"].clone()).collect();
    assert_eq!(titles.len(), 2, "{titles:?}");
}

#[test]
fn channels_are_made_changed_and_removed_while_the_hub_runs() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let (first, second) = (taking(), taking());
    let hub = Builder::new(dir.path()).config("# mine").model(&model).start();
    let file = || std::fs::read_to_string(hub.dir.join("holt.toml")).unwrap();
    let all = client(&hub);
    let put = |name: &str, body: Value| {
        let answer = all.send("PUT", &format!("/api/v1/notifications/channels/{name}"), &body.to_string());
        (answer.status, answer.json())
    };
    let test = |name: &str| all.post("/api/v1/notifications/test", &json!({"channel": name}).to_string()).status;
    let shown = |name: &str| {
        let channels = listed(&all)["channels"].as_array().unwrap().clone();
        channels.into_iter().find(|channel| channel["name"] == name).unwrap()
    };
    let done = (200, json!({"status": "updated"}));
    let phone = |site: &Site| json!({"type": "ntfy", "server": site.url(""), "topic": "home"});
    let mut made = phone(&first);
    made["token"] = json!(SECRET);
    assert_eq!(put("phone", made.clone()), done);
    assert_eq!((&shown("phone")["enabled"], &shown("phone")["settings"]["token"]), (&json!(true), &json!("***")));
    assert!(file().contains("# mine") && file().contains("[notify.phone]"), "{}", file());
    // It takes part at once.
    let mut socket = Socket::open(&all);
    socket.chat("s1", SET);
    first.wait_for("kv_set");
    assert!(first.requests()[0].contains(&format!("Bearer {SECRET}")));
    // What cannot work is refused, and nothing has changed.
    let before = file();
    for (name, body, text) in [
        ("a.b", json!({"type": "console"}), "name: a channel's name must be"),
        ("new", json!({}), "notify.new.type: must be one of"),
        ("new", json!({"type": "ntfy"}), "notify.new.topic: must be given"),
        (
            "new",
            json!({"type": "ntfy", "topic": "x", "tokn": "y"}),
            "notify.new.tokn: unknown key; did you mean token?",
        ),
        ("new", json!({"type": "ntfy", "topic": "x", "token": "***"}), "token: *** stands for a secret"),
        (
            "new",
            json!({"type": "ntfy", "topic": "x", "approve_buttons": true}),
            "approve_buttons needs api.external_url",
        ),
        // The secret of one service is not for another.
        ("phone", json!({"type": "gotify", "server": second.url("")}), "notify.phone.token: must be given"),
        ("phone", json!([1]), "invalid JSON"),
    ] {
        let (status, told) = put(name, body.clone());
        assert!(status == 400 && told["error"].as_str().unwrap().contains(text), "{name} {body}: {told}");
    }
    assert_eq!(file(), before);
    // The secret stays when it is given as it was shown, or left out; another server must be given it again.
    for masked in [true, false] {
        let token = if masked { json!({"token": "***"}) } else { json!({}) };
        let with_token = |mut body: Value| {
            body.as_object_mut().unwrap().extend(token.as_object().unwrap().clone());
            body
        };
        let (status, told) = put("phone", with_token(phone(&second)));
        let said = told["error"].as_str().unwrap();
        assert_eq!((status, said), (400, "token: give the token again: the server changed"));
        let mut body = with_token(phone(&first));
        body["type"] = json!("NTFY");
        body["topic"] = json!(if masked { "house" } else { "home" });
        assert_eq!((put("phone", body), test("phone")), (done.clone(), 200));
    }
    let asked = first.requests();
    let asked = &asked[asked.len() - 2..];
    assert!(asked.iter().all(|request| request.contains(&format!("Bearer {SECRET}"))), "{asked:?}");
    assert_eq!((&body(&asked[0])["topic"], &body(&asked[1])["topic"]), (&json!("house"), &json!("home")));
    made["server"] = json!(second.url(""));
    assert_eq!((put("phone", made.clone()), test("phone")), (done.clone(), 200));
    assert!(second.requests()[0].contains(&format!("Bearer {SECRET}")));
    // A new secret is not lost to a change that leaves it out.
    for round in 0..8 {
        made["token"] = json!(format!("{SECRET}{round}"));
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(put("phone", made.clone()), done));
            assert_eq!(put("phone", phone(&second)), done);
        });
        assert_eq!(test("phone"), 200);
        assert!(second.requests().pop().unwrap().contains(&format!("Bearer {SECRET}{round}\r\n")));
    }
    // An empty one is none any more.
    let mut body = phone(&second);
    body["token"] = json!("");
    assert_eq!(put("phone", body), done);
    assert_eq!(test("phone"), 200);
    assert!(!second.requests().pop().unwrap().contains("Bearer"));
    let hook = json!({"type": "webhook", "url": first.url("/hook"), "headers": {"X-Key": SECRET}});
    assert_eq!(put("hook", hook), done);
    let settings = shown("hook")["settings"].clone();
    assert_eq!(settings, json!({"type": "webhook", "url": "***", "headers": {"X-Key": "***"}}));
    let again = json!({"type": "webhook", "url": "***", "headers": {"X-Key": "***", "X-More": "1"}});
    assert_eq!((put("hook", again), test("hook")), (done.clone(), 200));
    let asked = first.requests().pop().unwrap();
    let head = asked.to_ascii_lowercase();
    assert!(head.contains(&format!("x-key: {SECRET}")) && head.contains("x-more: 1"), "{asked}");
    // Switched off, and gone; what waits is given up.
    assert_eq!(put("hook", json!({"type": "webhook", "enabled": false})), done);
    assert_eq!((&shown("hook")["enabled"], test("hook")), (&json!(false), 404));
    let gone = phone(&second);
    drop(second);
    let fails = |session: &str| {
        let mut socket = Socket::open(&all);
        socket.chat(session, SET);
        wait_until("it waits", || {
            listed(&all)["notices"].as_array().unwrap().iter().any(|row| row["attempts"] != 0).then_some(())
        });
    };
    fails("s2");
    // What waits goes where the channel leads now, once.
    assert_eq!(put("phone", phone(&first)), done);
    wait_until("it is told", || listed(&all)["notices"].as_array().unwrap().is_empty().then_some(()));
    assert_eq!(first.requests().iter().filter(|request| request.contains("kv_set")).count(), 2);
    assert_eq!(put("phone", gone), done);
    fails("s3");
    let reader = hub.client().with_key(&all.new_key("reader", &["machines:read", "machines:write"]).key());
    assert!(!listed(&reader).to_string().contains("settings"));
    for name in ["phone", "hook"] {
        let path = format!("/api/v1/notifications/channels/{name}");
        assert_eq!((reader.delete(&path).status, reader.send("PUT", &path, "{}").status), (403, 403));
        assert_eq!((all.delete(&path).json(), all.delete(&path).status), (json!({"status": "removed"}), 404));
    }
    let left = listed(&all);
    assert_eq!(left["channels"], json!([]));
    assert!(left["notices"].as_array().unwrap().iter().all(|row| row["state"] == "failed"), "{left}");
    assert!(!file().contains("notify") && file().contains("# mine"), "{}", file());
    let audit = all.get("/api/v1/audit?limit=50").text();
    assert_eq!(audit.matches("notification.remove").count(), 2, "{audit}");
    for text in [audit, before, hub.log_tail(), settings.to_string()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn words_are_shown_as_they_count_however_they_are_spelled() {
    let dir = tempfile::tempdir().unwrap();
    let table = "type = \"Console\"\nmin_level = \"warning\"\n";
    let config = format!("[notify.on]\n{table}[notify.off]\nenabled = false\n{table}");
    let hub = Builder::new(dir.path()).config(&config).start();
    let shown = listed(&client(&hub));
    for channel in shown["channels"].as_array().unwrap() {
        for of in [channel, &channel["settings"]] {
            assert_eq!((&of["type"], &of["min_level"]), (&json!("console"), &json!("Warning")), "{channel}");
        }
    }
}
