//! Schedules: routes, runs, restarts in between, tools of agents, the command line (contract http-api 5.2, engine 5).

use std::process::Command;

use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::site::answer;
use crate::support::{Answer, Client, Hub, Model, Site, Socket, wait_until};

const SCOPES: &[&str] = &[
    "admin",
    "chat",
    "sessions:read",
    "schedules:read",
    "schedules:write",
    "approvals:read",
    "approvals:write",
    "kv:read",
    "audit:read",
];

struct Bench {
    dir: tempfile::TempDir,
    model: Model,
    config: String,
}

impl Bench {
    fn new(config: &str) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), model: Model::start(), config: config.to_owned() }
    }

    /// The first hub; it writes the file.
    fn hub(&self) -> Hub {
        Builder::new(self.dir.path()).config(&self.config).model(&self.model).start()
    }

    /// Another one on the same file, whatever has become of it.
    fn again(&self) -> Hub {
        Builder::new(self.dir.path()).start()
    }

    fn file(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("holt.toml")).unwrap()
    }
}

fn client(hub: &Hub) -> Client {
    hub.admin().new_key("all", SCOPES)
}

fn post(client: &Client, path: &str, body: &Value) -> Answer {
    client.post(&format!("/api/v1/schedules{path}"), &body.to_string())
}

fn patch(client: &Client, name: &str, body: &Value) -> Answer {
    client.send("PATCH", &format!("/api/v1/schedules/{name}"), &body.to_string())
}

fn listed(client: &Client, name: &str) -> Value {
    let list = client.get("/api/v1/schedules").json();
    list.as_array().unwrap().iter().find(|schedule| schedule["name"] == name).cloned().unwrap_or_default()
}

fn runs(client: &Client, name: &str) -> Vec<Value> {
    client.get(&format!("/api/v1/schedules/{name}/runs")).json().as_array().unwrap().clone()
}

/// Waits for a run with that state; the newest.
#[track_caller]
fn run_that_is(client: &Client, name: &str, state: &str) -> Value {
    wait_until(state, || runs(client, name).into_iter().find(|run| run["state"] == state))
}

/// An operator's schedule that is far away, so that only the test runs it.
fn seldom(name: &str, more: &str) -> String {
    format!(
        "[[schedules]]\nname = '{name}'\ntype = 'system'\nschedule = '@every 9000h'\nsession_mode = 'isolated'\n{more}\n"
    )
}

#[test]
fn the_routes_are_those_of_the_contract() {
    let bench = Bench::new(
        "# mine\n[[schedules]] # first\nname = 'zoo'\ntype = 'system'\nschedule = '@daily' # at night\nchannel = 'telegram:7'\n",
    );
    let hub = bench.hub();
    let all = client(&hub);
    let zoo = listed(&all, "zoo");
    assert!(zoo["next_run"].as_str().unwrap().ends_with("T00:00:00Z"), "{zoo}");
    for (key, value) in [
        ("type", json!("system")),
        ("expression", json!("@daily")),
        ("session_tier", json!("supervised")),
        ("session_mode", json!("shared")),
        ("channel", json!("telegram:7")),
        ("enabled", json!(true)),
        ("agent", json!("default")),
        ("last_run", Value::Null),
        ("skill", Value::Null),
        ("tags", Value::Null),
    ] {
        assert_eq!(zoo[key], value, "{key}");
    }
    let made =
        post(&all, "", &json!({"name": "a/b c", "schedule": " 0 8-18 * * 1-5 ", "channel": "api:x", "tags": ["t"]}));
    assert_eq!(
        (made.status, made.json()),
        (201, json!({"name": "a/b c", "schedule": "0 8-18 * * 1-5", "status": "created"}))
    );
    let names: Vec<Value> =
        all.get("/api/v1/schedules").json().as_array().unwrap().iter().map(|s| s["name"].clone()).collect();
    assert_eq!(names, ["a/b c", "zoo"]);
    let shown = listed(&all, "a/b c");
    assert_eq!(
        (&shown["type"], &shown["session_mode"], &shown["session_tier"]),
        (&json!("agent"), &json!("isolated"), &Value::Null)
    );

    let check = |body: Value, status: u16, text: &str| {
        let answer = post(&all, "", &body);
        assert_eq!((answer.status, answer.json()["error"].as_str().unwrap()), (status, text), "{body}");
    };
    check(json!({}), 400, "name is required");
    check(json!({"name": "x"}), 400, "schedule is required");
    check(json!({"name": "x", "schedule": "x"}), 400, "channel is required");
    check(
        json!({"name": "x", "schedule": "* * 0 * *", "channel": "a:b"}),
        400,
        "invalid schedule expression: day-of-month field \"0\": value 0–0 out of allowed range [1, 31]",
    );
    check(
        json!({"name": "x", "schedule": "@daily", "channel": "ab:"}),
        400,
        "channel \"ab:\" is not in adapter:externalID format",
    );
    check(
        json!({"name": "x", "schedule": "@daily", "channel": "a:b", "agent": "nobody"}),
        404,
        "agent \"nobody\" not found",
    );
    check(
        json!({"name": "zoo", "schedule": "@daily", "channel": "a:b"}),
        409,
        "scheduler: duplicate schedule name \"zoo\"",
    );
    check(
        json!({"name": "x", "schedule": "@daily", "channel": "a:b", "session_mode": "both"}),
        400,
        "session_mode must be shared or isolated",
    );
    check(
        json!({"name": "x", "schedule": "@daily", "channel": "a:b", "session_tier": "root"}),
        400,
        "session_tier must be autonomous, supervised or restricted",
    );
    check(json!({"name": "x", "schedule": 5}), 400, "invalid JSON: schedule must be a text");
    check(
        json!({"name": "x", "schedule": "@daily", "channel": "notify:nobody"}),
        400,
        "channel \"notify:nobody\": there is no [notify.nobody] in the configuration",
    );
    assert_eq!(all.post("/api/v1/schedules", "{").status, 400);

    let changed = patch(&all, "zoo", &json!({"schedule": "@hourly", "skill": "feed", "name": "ignored"}));
    assert_eq!(
        (changed.status, changed.json()),
        (200, json!({"name": "zoo", "schedule": "@hourly", "status": "updated"}))
    );
    let zoo = listed(&all, "zoo");
    assert_eq!(
        (&zoo["type"], &zoo["skill"], &zoo["expression"]),
        (&json!("system"), &json!("feed"), &json!("@hourly"))
    );
    assert_eq!(patch(&all, "a%2Fb%20c", &json!({"tags": [], "enabled": false})).status, 200);
    let off = listed(&all, "a/b c");
    assert_eq!((&off["tags"], &off["enabled"], &off["next_run"]), (&Value::Null, &json!(false), &Value::Null));
    assert_eq!(patch(&all, "zoo", &json!({"schedule": "@never"})).status, 400);
    assert_eq!(
        patch(&all, "zoo", &json!({"channel": "x"})).json()["error"],
        "channel \"x\" is not in adapter:externalID format"
    );
    for answer in [
        patch(&all, "nobody", &json!({})),
        all.delete("/api/v1/schedules/nobody"),
        all.get("/api/v1/schedules/nobody/runs"),
    ] {
        assert_eq!((answer.status, &answer.json()["error"]), (404, &json!("schedule \"nobody\" not found")));
    }
    let file = bench.file();
    for kept in ["# mine", "[[schedules]] # first", "schedule = \"@hourly\" # at night"] {
        assert!(file.contains(kept), "{kept}\n{file}");
    }
    assert_eq!(all.delete("/api/v1/schedules/zoo").status, 204);
    assert_eq!(listed(&all, "zoo"), Value::Null);
    assert!(!bench.file().contains("zoo"));
    let audit = all.get("/api/v1/audit?limit=20").text();
    for action in ["schedule.create", "schedule.update", "schedule.delete"] {
        assert!(audit.contains(action), "{audit}");
    }
    let reader = all.new_key("reader", &["schedules:read"]);
    assert_eq!(reader.get("/api/v1/schedules").status, 200);
    for answer in
        [post(&reader, "", &json!({})), post(&reader, "/a/run", &json!({})), reader.delete("/api/v1/schedules/a")]
    {
        assert_eq!(answer.status, 403);
    }
    // What was made stays, as it was made.
    drop(hub);
    let hub = bench.again();
    let again = listed(&all.at(&hub.address), "a/b c");
    assert_eq!(
        (&again["session_tier"], &again["enabled"], &again["expression"]),
        (&Value::Null, &json!(false), &json!("0 8-18 * * 1-5"))
    );
}

#[test]
fn expressions_can_be_tried_out() {
    let bench = Bench::new(&seldom("job", "skill = 'say hi'\nsession_tier = 'restricted'"));
    let hub = bench.hub();
    let all = client(&hub);
    let next = |body: Value| post(&all, "/preview", &body);
    let answer = next(json!({"schedule": "30 2 29 2 *", "timezone": "Europe/Berlin", "n": 2})).json();
    let texts: Vec<&str> = answer["next"].as_array().unwrap().iter().map(|at| at.as_str().unwrap()).collect();
    assert!(texts.len() == 2 && texts.iter().all(|at| at.ends_with("-02-29T02:30:00+01:00")), "{answer}");
    assert_eq!(next(json!({"schedule": "@every 1h"})).json()["next"].as_array().unwrap().len(), 5);
    assert_eq!(next(json!({"schedule": "0 0 31 2 *"})).json()["next"], json!([]));
    for body in [
        json!({}),
        json!({"schedule": "x"}),
        json!({"schedule": "@daily", "n": 0}),
        json!({"schedule": "@daily", "timezone": "Mars"}),
    ] {
        assert_eq!(next(body).status, 400);
    }
    let plan = post(&all, "/job/dry-run", &json!({})).json();
    assert_eq!((&plan["text"], &plan["session_tier"]), (&json!("[Scheduled: say hi]"), &json!("restricted")));
    let tools = plan["tools"].to_string();
    assert!(
        tools.contains("kv_get") && !tools.contains("kv_set") && plan["next"].as_array().unwrap().len() == 5,
        "{plan}"
    );
    // What the agent is asked stands behind the mark by which skills know a schedule.
    let prompt = "Is anything wrong?\nTwo sentences.";
    let body = json!({"prompt": prompt}).to_string();
    assert_eq!(all.send("PATCH", "/api/v1/schedules/job", &body).status, 200);
    let plan = post(&all, "/job/dry-run", &json!({})).json();
    assert_eq!(plan["text"], format!("[Scheduled: say hi]\n{prompt}"));
    let listed = all.get("/api/v1/schedules").json();
    assert!(listed.as_array().unwrap().iter().any(|each| each["prompt"] == prompt), "{listed}");
    let long = json!({"prompt": "x".repeat(8193)}).to_string();
    assert_eq!(all.send("PATCH", "/api/v1/schedules/job", &long).status, 400);
    assert!(runs(&all, "job").is_empty() && bench.model.requests().is_empty());
}

#[test]
fn hours_are_meant_in_a_time_zone() {
    let bench = Bench::new("");
    let hub = bench.hub();
    let all = client(&hub);
    let body = json!({"name": "far", "schedule": "0 7 * * *", "channel": "api:x", "timezone": "asia/tokyo"});
    assert_eq!(post(&all, "", &body).status, 201);
    assert_eq!(post(&all, "", &json!({"name": "here", "schedule": "0 7 * * *", "channel": "api:x"})).status, 201);
    let next = |name: &str| listed(&all, name)["next_run"].as_str().unwrap().to_owned();
    assert_eq!(listed(&all, "far")["timezone"], "Asia/Tokyo");
    assert!(next("far").ends_with("T07:00:00+09:00") && next("here").ends_with("T07:00:00Z"));
    assert!(bench.file().contains("timezone = \"asia/tokyo\""), "{}", bench.file());
    // The hub's own counts at once.
    let answer = all.send("PATCH", "/api/v1/server/config", &json!({"timezone": "America/New_York"}).to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(next("here").contains("T07:00:00-0") && next("far").ends_with("T07:00:00+09:00"));
    let answer = patch(&all, "far", &json!({"timezone": "Mars"}));
    assert!(
        answer.status == 400 && answer.text().contains("timezone must be a time zone such as"),
        "{}",
        answer.text()
    );
    assert_eq!(patch(&all, "far", &json!({"timezone": ""})).status, 200);
    assert_eq!(next("far"), next("here"));
    assert_eq!(listed(&all, "far")["timezone"], Value::Null);
}

#[test]
fn a_schedule_runs_by_itself_and_keeps_its_result() {
    let bench = Bench::new(
        "[[schedules]]\nname = 'tick'\ntype = 'agent'\nschedule = '@every 1s'\nskill = 'say tick'\nchannel = 'api:tick'\nsession_mode = 'isolated'\n",
    );
    let hub = bench.hub();
    let all = client(&hub);
    let mut socket = Socket::open(&all);
    let run = run_that_is(&all, "tick", "ok");
    let session = run["conversation_id"].as_str().unwrap();
    let nanos: i64 = session.strip_prefix("sched:tick:").unwrap().parse().unwrap();
    assert!(nanos > 1_500_000_000_000_000_000, "{session}");
    assert_eq!(run["trigger"], "due");
    assert!(run["tokens"].as_u64().unwrap() > 0, "{run}");
    let messages = all.get(&format!("/api/v1/sessions/{session}/messages")).json();
    let texts: Vec<&str> =
        messages.as_array().unwrap().iter().map(|message| message["content"].as_str().unwrap()).collect();
    assert_eq!(texts, ["[Scheduled: say tick]", "tick"]);
    let activity = loop {
        let frame = socket.next_any();
        if frame["type"] == "activity" {
            break frame;
        }
    };
    assert_eq!((&activity["agent"], &activity["adapter"]), (&json!("default"), &json!("schedule")));
    assert!(listed(&all, "tick")["last_run"].is_string());
    // Each moment once, also when it is in a hurry.
    let database = hub.database();
    wait_until("some have run", || (bench.model.requests().len() >= 3).then_some(()));
    assert_eq!(patch(&all, "tick", &json!({"enabled": false})).status, 200);
    let doubled: i64 = database
        .query_row("SELECT count(*) - count(DISTINCT moment) FROM schedule_runs", [], |row| row.get(0))
        .unwrap();
    assert_eq!(doubled, 0);
}

#[test]
fn a_hub_that_is_killed_in_the_middle_of_a_run_does_not_run_it_again() {
    let bench = Bench::new(&seldom("gate 1 1", ""));
    let mut hub = bench.hub();
    let all = client(&hub);
    let begun = post(&all, "/gate%201%201/run", &json!({}));
    assert_eq!(begun.status, 202, "{}", begun.text());
    bench.model.wait_at_gate();
    let busy = post(&all, "/gate%201%201/run", &json!({}));
    assert_eq!((busy.status, &busy.json()["code"]), (409, &json!("running")));
    assert_eq!(listed(&all, "gate 1 1")["running"], true);
    hub.kill();
    let hub = bench.again();
    let all = all.at(&hub.address);
    let run = run_that_is(&all, "gate%201%201", "failed");
    assert!(run["reason"].as_str().unwrap().starts_with("interrupted"), "{run}");
    assert_eq!(run["conversation_id"], begun.json()["conversation_id"]);
    assert_eq!((bench.model.requests().len(), runs(&all, "gate%201%201").len()), (1, 1));
    assert!(listed(&all, "gate 1 1")["last_run"].is_string());
    bench.model.open_gate();
    assert_eq!(post(&all, "/gate%201%201/run", &json!({})).status, 202);
    run_that_is(&all, "gate%201%201", "ok");
}

#[test]
fn a_run_whose_message_was_never_sent_is_sent_once() {
    let bench = Bench::new(&seldom("say hi", ""));
    let mut hub = bench.hub();
    let all = client(&hub);
    hub.kill();
    let row = "INSERT INTO schedule_runs(schedule, cause, state, moment, until, conversation_id, started_at)
        SELECT name, 'due', 'started', handled_until, handled_until, 'sched:say hi:1', handled_until FROM schedule_state";
    assert_eq!(hub.database().execute(row, []).unwrap(), 1);
    for _ in 0..2 {
        let mut hub = bench.again();
        let all = all.at(&hub.address);
        let run = run_that_is(&all, "say%20hi", "ok");
        assert_eq!(run["conversation_id"], "sched:say hi:1");
        hub.kill();
    }
    assert_eq!(bench.model.requests().len(), 1);
}

#[test]
fn what_was_missed_is_told_and_made_up_for_once() {
    let bench = Bench::new(
        "[[schedules]]\nname = 'say hi'\ntype = 'agent'\nschedule = '* * * * *'\nsession_mode = 'isolated'\n",
    );
    let mut hub = bench.hub();
    let all = client(&hub);
    hub.kill();
    let back = "UPDATE schedule_state SET handled_until = handled_until - 600000";
    assert_eq!(hub.database().execute(back, []).unwrap(), 1);
    let hub = bench.again();
    let all = all.at(&hub.address);
    run_that_is(&all, "say%20hi", "ok");
    let missed = run_that_is(&all, "say%20hi", "missed");
    assert!((9..=11).contains(&missed["moments"].as_u64().unwrap()), "{missed}");
    assert!(missed["reason"].as_str().unwrap().contains("not running"));
}

#[test]
fn a_panic_pauses_schedules() {
    let bench = Bench::new(
        "[[schedules]]\nname = 'say hi'\ntype = 'agent'\nschedule = '@every 1s'\nsession_mode = 'isolated'\n",
    );
    let hub = bench.hub();
    let all = client(&hub);
    assert_eq!(all.post("/api/v1/panic", "").status, 200);
    let missed = run_that_is(&all, "say%20hi", "missed");
    assert!(missed["reason"].as_str().unwrap().contains("panic"), "{missed}");
    let refused = post(&all, "/say%20hi/run", &json!({}));
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("panicked")));
    assert_eq!(all.post("/api/v1/resume", "").status, 200);
    let before = runs(&all, "say%20hi").iter().filter(|run| run["state"] == "ok").count();
    wait_until("it runs again", || {
        (runs(&all, "say%20hi").iter().filter(|run| run["state"] == "ok").count() > before).then_some(())
    });
}

#[test]
fn what_a_run_asks_for_reaches_people_and_so_does_its_answer() {
    const SET: &str = r#"tool kv_set {"key":"a","value":"1"}"#;
    let phone = Site::start(|_, _, out| answer(out, 200, "", b"{}"));
    let notify = format!("[notify.phone]\ntype = \"ntfy\"\nserver = \"http://{}\"\ntopic = \"home\"\n", phone.address);
    let jobs = seldom("asks", &format!("skill = '{SET}'\nchannel = 'notify:phone'"))
        + &seldom("free", &format!("skill = '{SET}'\nchannel = 'notify:*'\nsession_tier = 'autonomous'"))
        + &seldom("fails", "skill = 'status 401'\nchannel = 'notify:phone'");
    let bench = Bench::new(&(notify + &jobs));
    let hub = bench.hub();
    let all = client(&hub);
    assert_eq!(post(&all, "/asks/run", &json!({})).status, 202);
    let request = wait_until("somebody is asked", || {
        all.get("/api/v1/approvals?status=pending").json().as_array().unwrap().first().cloned()
    });
    phone.wait_for("wants to use kv_set");
    // It waits without end: the next one is refused, a restart changes nothing.
    assert_eq!(post(&all, "/asks/run", &json!({})).status, 409);
    drop(hub);
    let hub = bench.again();
    let all = all.at(&hub.address);
    assert_eq!(listed(&all, "asks")["running"], true);
    let id = request["id"].as_str().unwrap();
    assert_eq!(all.post(&format!("/api/v1/approvals/{id}/approve"), "{}").status, 200);
    run_that_is(&all, "asks", "ok");
    phone.wait_for("done:");
    // With a tier of its own nobody is asked.
    assert_eq!(post(&all, "/free/run", &json!({})).status, 202);
    run_that_is(&all, "free", "ok");
    assert_eq!(post(&all, "/fails/run", &json!({})).status, 202);
    let failed = run_that_is(&all, "fails", "failed");
    assert!(failed["reason"].as_str().unwrap().starts_with("provider_auth"), "{failed}");
    phone.wait_for("fails failed");
}

#[test]
fn runs_of_a_channel_share_its_conversation_and_end_in_time() {
    let bench = Bench::new(
        "[scheduler]\nrun_timeout = '1500ms'\n[[schedules]]\nname = 'gate 1 1'\ntype = 'agent'\nschedule = '@every 9000h'\nchannel = 'telegram:5'\n",
    );
    let hub = bench.hub();
    let all = client(&hub);
    let begun = post(&all, "/gate%201%201/run", &json!({})).json();
    assert_eq!(begun["conversation_id"], "default:telegram:5");
    let failed = run_that_is(&all, "gate%201%201", "failed");
    assert!(failed["reason"].as_str().unwrap().contains("scheduler.run_timeout"), "{failed}");
    let messages = all.get("/api/v1/sessions/default:telegram:5/messages").json();
    assert_eq!(messages[0]["content"], "[Scheduled trigger: gate 1 1]");
}

#[test]
fn agents_look_after_their_own_schedules() {
    let agents = "[[agents]]\nname = 'default'\nsession_tier = 'autonomous'\n[[agents]]\nname = 'other'\n";
    let system = seldom("operators", "");
    let others = seldom("others", "agent = 'other'").replace("system", "agent");
    let bench = Bench::new(&format!("{agents}{system}{others}"));
    let hub = bench.hub();
    let all = client(&hub);
    let call = |tool: &str, arguments: Value| {
        let answer = all.chat(json!({"message": format!("tool {tool} {arguments}")}));
        answer.json()["response"].as_str().unwrap_or_default().to_owned()
    };
    assert!(call("schedule_list", json!({})).contains("done: []"));
    let made =
        call("schedule_add", json!({"name": "mine", "schedule": "0 7 * * *", "channel": "notify:*", "skill": "news"}));
    assert!(made.contains("\"next_run\""), "{made}");
    let mine = listed(&all, "mine");
    assert_eq!((&mine["agent"], &mine["type"], &mine["skill"]), (&json!("default"), &json!("agent"), &json!("news")));
    assert!(call("schedule_list", json!({})).contains("\"mine\""));
    assert!(call("schedule_update", json!({"name": "mine", "schedule": "@hourly"})).contains("@hourly"));
    assert_eq!(listed(&all, "mine")["expression"], "@hourly");
    for name in ["others", "operators", "nobody"] {
        let refused = call("schedule_update", json!({"name": name, "enabled": false}));
        assert!(refused.contains("you have no schedule named"), "{refused}");
        assert!(call("schedule_delete", json!({"name": name})).contains("you have no schedule named"));
    }
    let wrong = call("schedule_add", json!({"name": "x", "schedule": "never", "channel": "a:b"}));
    assert!(wrong.contains("invalid schedule expression"), "{wrong}");
    // Another agent has fewer rights, and cannot give itself more.
    patch(&all, "others", &json!({"enabled": false}));
    let ask = json!({"name": "y", "schedule": "@daily", "channel": "a:b", "session_tier": "autonomous"});
    let mut socket = Socket::open(&all);
    socket.send(&json!({
        "type": "chat_request", "agent": "other", "session_id": "o", "message": format!("tool schedule_add {ask}"),
    }));
    let request = wait_until("it asks", || {
        all.get("/api/v1/approvals?status=pending").json()[0]["id"].as_str().map(str::to_owned)
    });
    assert_eq!(all.post(&format!("/api/v1/approvals/{request}/approve"), "{}").status, 200);
    wait_until("it was refused", || {
        let messages = all.get("/api/v1/sessions/o/messages").text();
        messages.contains("session_tier must not be above your own").then_some(())
    });
    assert_eq!(listed(&all, "y"), Value::Null);
    assert!(call("schedule_delete", json!({"name": "mine"})).contains("\"ok\":true"));
    assert!(all.get("/api/v1/audit?limit=50").text().contains("agent:default"));
}

#[test]
fn what_agents_do_to_schedules_is_undone() {
    let mine = seldom("mine", "channel = 'api:x'\nskill = 'news' # the short ones").replace("system", "agent");
    let bench = Bench::new(&format!("[[agents]]\nname = 'default'\nsession_tier = 'autonomous'\n{mine}"));
    let hub = bench.hub();
    let all = client(&hub).new_key(
        "undo",
        &[
            "admin",
            "chat",
            "audit:read",
            "schedules:read",
            "schedules:write",
            "agents:read",
            "agents:write",
            "skills:read",
            "skills:write",
        ],
    );
    let call = |tool: &str, arguments: Value| {
        let answer = all.chat(json!({"session_id": "s", "message": format!("tool {tool} {arguments}")}));
        answer.json()["response"].as_str().unwrap_or_default().to_owned()
    };
    let newest = || all.get("/api/v1/journal").json()["entries"][0].clone();
    let undo = |id: &Value, body: &str| all.post(&format!("/api/v1/journal/{id}/undo"), body);
    let is_there = |name: &str| !listed(&all, name).is_null();

    call("schedule_add", json!({"name": "new", "schedule": "@daily", "channel": "api:x"}));
    let made = newest();
    assert_eq!(
        (&made["kind"], &made["target"], &made["action"]),
        (&json!("schedule"), &json!("new"), &json!("create"))
    );
    assert_eq!(made["conversation_id"], "s");
    let shown = all.get(&format!("/api/v1/journal/{}", made["id"])).json();
    assert!(shown["before"].is_null() && shown["after"].as_str().unwrap().contains("schedule = \"@daily\""), "{shown}");
    assert_eq!(undo(&made["id"], "").status, 200);
    assert!(!is_there("new"));

    // Undone one after the other, the newest first; what stood in the file stands there again.
    call("schedule_update", json!({"name": "mine", "schedule": "@hourly", "skill": "", "session_tier": "restricted"}));
    let changed = newest();
    call("schedule_delete", json!({"name": "mine"}));
    let removed = newest();
    assert_eq!((&changed["action"], &removed["action"]), (&json!("update"), &json!("delete")));
    let blocked = undo(&changed["id"], "");
    assert_eq!((blocked.status, &blocked.json()["code"]), (409, &json!("changed_since")));
    assert!(!is_there("mine"));
    assert_eq!(undo(&removed["id"], "").status, 200);
    assert_eq!(listed(&all, "mine")["expression"], "@hourly");
    patch(&all, "mine", &json!({"tags": ["by hand"]}));
    assert_eq!(undo(&changed["id"], "{}").json()["code"], "changed_since");
    let undone = undo(&changed["id"], r#"{"force":true}"#);
    assert_eq!((undone.status, undone.json()["undone_by"].as_str()), (200, Some("key:undo")));
    let now = listed(&all, "mine");
    assert_eq!(
        (&now["expression"], &now["skill"], &now["session_tier"]),
        (&json!("@every 9000h"), &json!("news"), &json!("supervised"))
    );
    assert!(now["tags"].is_null() && bench.file().contains("skill = 'news' # the short ones\n"), "{}", bench.file());

    // The journal outlives the hub.
    call("schedule_delete", json!({"name": "mine"}));
    let removed = newest();
    drop(hub);
    let hub = bench.again();
    let all = hub.client().with_key(&all.key());
    assert_eq!(all.post(&format!("/api/v1/journal/{}/undo", removed["id"]), "").status, 200);
    assert_eq!(listed(&all, "mine")["skill"], "news");
    assert!(all.get("/api/v1/audit?limit=50").text().contains("schedule.undo"));
}

#[test]
fn the_command_line_lists_and_runs() {
    let bench = Bench::new(&seldom("say hi", ""));
    let hub = bench.hub();
    let all = client(&hub);
    let cli = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
        command.arg("schedules").args(words).arg("--data-dir").arg(&hub.dir).env_clear();
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (_, list) = cli(&["list"]);
    assert!(list.contains("say hi  @every 9000h  default  on      -"), "{list}");
    let (done, text) = cli(&["run", "say hi"]);
    assert!(done, "{text}");
    run_that_is(&all, "say%20hi", "ok");
    let (_, shown) = cli(&["show", "say hi"]);
    assert!(shown.contains("ok (manual)") && shown.contains("sched:say hi:"), "{shown}");
    let (done, text) = cli(&["run", "nobody"]);
    assert!(!done && text.contains("holt schedules list"), "{text}");
    let (_, next) = cli(&["next", "30 8 1 1 *", "--count", "2"]);
    assert_eq!(next.lines().filter(|line| line.ends_with("-01-01T08:30:00Z")).count(), 2, "{next}");
    let (done, text) = cli(&["next", "61 * * * *"]);
    assert!(!done && text.contains("out of allowed range"), "{text}");
    let (_, json) = cli(&["list", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()[0]["name"], "say hi");
}

#[test]
fn a_bad_entry_is_named_and_an_odd_one_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let entry = |more: &str| format!("[[schedules]]\nname = 'a'\ntype = 'agent'\n{more}\n");
    let check = |config: &str, text: &str| {
        std::fs::write(dir.path().join("holt.toml"), config).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_holt"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path())
            .env_clear()
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(text), "{told}");
    };
    check(&entry("schedule = '@never'"), "schedules[0].schedule: unknown schedule shorthand");
    check(&entry("schedule = '@daily'\nagent = 'b'"), "schedules[0].agent: there is no agent \"b\"");
    check(&entry("schedule = '@daily'\nsession_mode = 'x'"), "schedules[0].session_mode: must be one of");
    check(&entry("schedule = '@daily'").repeat(2), "schedules[1].name: must be unique");
    let hub = Builder::new(dir.path())
        .config(
            &(entry("schedule = '@daily'\nchannel = 'nowhere'") + &entry("schedule = '@daily'").replace("'a'", "'b'")),
        )
        .start();
    assert!(hub.log_contains(
        "schedules[0].channel: channel \"nowhere\" is not in adapter:externalID format; the schedule is left out"
    ));
    let all = client(&hub);
    let names: Vec<Value> =
        all.get("/api/v1/schedules").json().as_array().unwrap().iter().map(|s| s["name"].clone()).collect();
    assert_eq!(names, ["b"]);
}
