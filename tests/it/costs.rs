//! Costs and budgets (contract http-api 4.5, engine 4; W-36).

use std::process::Command;

use rusqlite::params;
use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::ws::kinds;
use crate::support::{Client, Hub, Model};

fn reader(hub: &Hub) -> Client {
    hub.admin().new_key("reader", &["costs:read", "chat"])
}

/// Stores a call as an earlier day left it.
fn call(hub: &Hub, day: &str, conversation: &str, agent: &str, identity: &str, cost: f64) {
    let sql = "INSERT INTO llm_calls(created_at, day, turn_id, conversation_id, agent, identity, provider, model,
        input_tokens, output_tokens, cost_usd, pricing, state)
        VALUES (0, ?1, 1, ?2, ?3, ?4, 'openai', 'gpt-4o', 100, 50, ?5, 'registry', 'settled')";
    hub.database().execute(sql, params![day, conversation, agent, identity, cost]).unwrap();
}

/// A time zone for `holt.toml` where it is about noon, and its day: no test sees a day or a month end.
fn midday() -> (String, String) {
    let database = rusqlite::Connection::open_in_memory().unwrap();
    let hour: i32 = database.query_row("SELECT CAST(strftime('%H', 'now') AS INTEGER)", [], |row| row.get(0)).unwrap();
    let ahead = 12 - hour;
    // In these names, what is ahead of Greenwich has a minus.
    let zone = if ahead == 0 { "Etc/GMT".to_owned() } else { format!("Etc/GMT{:+}", -ahead) };
    let sql = "SELECT strftime('%Y-%m-%d', 'now', ?1)";
    let today = database.query_row(sql, [format!("{ahead} hours")], |row| row.get(0)).unwrap();
    (format!("[api]\ntimezone = \"{zone}\"\n"), today)
}

/// `holt costs` with these arguments, what it prints.
fn cli(hub: &Hub, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
    command.args(["costs", "--data-dir"]).arg(&hub.dir).args(arguments).env_clear();
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn an_empty_hub_shows_the_contracts_keys() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let costs = reader(&hub).get("/api/v1/costs").json();
    for (key, expected) in [
        ("global_cost", json!(0)),
        ("max_per_session", json!(1)),
        ("cost_limits", json!({"soft": 0, "hard": 1})),
        ("session_count", json!(0)),
        ("session_costs", json!({})),
        ("session_stats", json!({})),
        ("by_agent", json!([])),
        ("pricing_config", json!({"fallback_rate_per_1k_tokens": 0, "custom_model_count": 0})),
        ("by_key", json!([])),
        ("by_model", json!([])),
        ("limits", json!([])),
        ("prices", json!({})),
    ] {
        assert_eq!(costs[key], expected, "{key}");
    }
    assert_eq!(costs["by_day"].as_array().unwrap().len(), 30);
    assert_eq!(costs["today"]["calls"], 0);
    assert_eq!(cli(&hub, &[]), "Nothing was spent in the last 30 days.\n");
}

#[test]
fn costs_are_put_together_by_session_agent_key_model_and_day() {
    let dir = tempfile::tempdir().unwrap();
    let limits = "[costs]\nmonthly_limit_hard = 9.0\n[costs.model_prices.x]\ninput = 1.0\n[costs.agents.default]\ntotal_limit_soft = 1.0";
    let (zone, today) = midday();
    let hub = Builder::new(dir.path()).config(&zone).config(limits).start();
    call(&hub, &today, "c1", "default", "key:laptop", 0.5);
    call(&hub, &today, "c1", "default", "user:admin", 0.25);
    call(&hub, &today, "c2", "other", "key:laptop", 1.0);
    call(&hub, "2024-02-29", "c3", "default", "key:laptop", 2.0);
    let reader = reader(&hub);
    let costs = reader.get("/api/v1/costs?days=7").json();
    assert_eq!((&costs["global_cost"], &costs["session_count"]), (&json!(3.75), &json!(3)));
    assert_eq!(costs["session_costs"], json!({"c1": 0.75, "c2": 1, "c3": 2}));
    let stats = json!({"cost": 0.75, "input_tokens": 200, "output_tokens": 100, "messages": 2, "pricing_sources": {"registry": 2}});
    assert_eq!(costs["session_stats"]["c1"], stats);
    let agent = json!({"agent": "default", "cost": 2.75, "input_tokens": 300, "output_tokens": 150, "messages": 3, "sessions": 2});
    assert!(costs["by_agent"].as_array().unwrap().contains(&agent), "{costs}");
    assert_eq!(costs["pricing_config"]["custom_model_count"], 1);
    assert_eq!(costs["prices"], json!({"x": {"input": 1, "output": 0, "cached_input": null}}));
    let key = costs["by_key"].as_array().unwrap().iter().find(|key| key["identity"] == "key:laptop").unwrap();
    assert_eq!((&key["cost"], &key["messages"]), (&json!(3.5), &json!(3)));
    assert_eq!(
        (&costs["by_model"][0]["model"], &costs["by_model"][0]["provider"]),
        (&json!("gpt-4o"), &json!("openai"))
    );
    let days = costs["by_day"].as_array().unwrap();
    assert_eq!((days.len(), &days[6]), (7, &costs["today"]));
    assert_eq!((&days[6]["day"], &days[6]["cost"], &days[0]["calls"]), (&json!(today), &json!(1.75), &json!(0)));
    let expected = json!([
        {"scope": "all", "name": "", "period": "monthly", "soft": 0, "hard": 9, "spent": 1.75},
        {"scope": "agent", "name": "default", "period": "total", "soft": 1, "hard": 0, "spent": 2.75},
    ]);
    assert_eq!(costs["limits"], expected);

    let one = reader.get("/api/v1/costs?agent=other").json();
    assert_eq!(one["session_costs"].as_object().unwrap().len(), 3, "never filtered");
    assert_eq!((&one["session_count"], one["by_agent"].as_array().unwrap().len()), (&json!(1), 1));
    let unknown = reader.get("/api/v1/costs?agent=nobody").json();
    assert_eq!((&unknown["by_agent"], &unknown["session_stats"]), (&Value::Null, &json!({})));
    for days in ["0", "367", "x", "-1"] {
        assert_eq!(reader.get(&format!("/api/v1/costs?days={days}")).status, 400, "{days}");
    }
    let other = hub.client().with_key(&reader.key());
    assert_eq!(other.get("/api/v1/kv/default").status, 403);
    assert_eq!(hub.client().get("/api/v1/costs").status, 401);

    let table = cli(&hub, &["--by", "agent"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["AGENT", "COST", "CALLS", "INPUT", "OUTPUT", "CACHED"]);
    assert_eq!(lines[1][..3], ["other", "$1.0000", "1"]);
    assert_eq!(lines[3][..3], ["total", "$1.7500", "3"]);
    let json: Value = serde_json::from_str(&cli(&hub, &["--by", "key", "--days", "1", "--json"])).unwrap();
    assert_eq!((&json[0]["key"], &json[0]["cost"]), (&json!("key:laptop"), &json!(1.5)));
}

#[test]
fn an_agent_is_told_its_own_costs_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::start();
    let hub = Builder::new(dir.path()).model(&model).start();
    let client = reader(&hub);
    let session = client.chat(json!({"message": "say hello"})).json()["session_id"].as_str().unwrap().to_owned();
    let day = "2024-02-29";
    call(&hub, day, &session, "default", "key:a", 0.25);
    call(&hub, day, "foreign", "default", "key:b", 0.5);
    call(&hub, day, &session, "other", "key:a", 4.0);
    let answer = client.chat(json!({"session_id": session, "message": "tool get_cost_summary {}"})).json();
    let told: Value =
        serde_json::from_str(answer["response"].as_str().unwrap().strip_prefix("done: ").unwrap()).unwrap();
    assert_eq!(told, json!({"global_cost": 0.75, "max_per_session": 1.0, "session_costs": {session: 0.25}}));
}

/// A wish whose call costs that many thousandths of a dollar.
fn spending(thousandths: u32, wish: &str) -> String {
    format!("usage {{\"prompt_tokens\":{},\"completion_tokens\":0}} {wish}", thousandths * 10)
}

fn cost_of(client: &Client, session: &str) -> f64 {
    client.get("/api/v1/costs").json()["session_costs"][session].as_f64().unwrap_or(0.0)
}

#[track_caller]
fn session_of(answer: &Value) -> String {
    answer["session_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[test]
fn costs_survive_a_kill_and_name_agent_key_and_model() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::start();
    let agents = "[[agents]]\nname = \"default\"\n[[agents]]\nname = \"clerk\"";
    let (zone, _) = midday();
    let start = || Builder::new(dir.path()).paid_model(&model).config(&zone).config(agents).start();
    let mut hub = start();
    let client = reader(&hub);
    let usage =
        r#"usage {"prompt_tokens":1000,"completion_tokens":500,"prompt_tokens_details":{"cached_tokens":400}} say hi"#;
    let session = session_of(&client.chat(json!({"agent": "clerk", "message": usage})).json());
    let named = r#"usage {"prompt_tokens":5,"completion_tokens":1,"cost":0.5} say hi"#;
    client.chat(json!({"agent": "clerk", "session_id": session, "message": named}));
    let before = client.get("/api/v1/costs").json();
    hub.kill();
    let hub = start();
    let client = Client::new(&hub.address).with_key(&client.key());
    let costs = client.get("/api/v1/costs").json();
    assert_eq!(costs, before);
    let stats = &costs["session_stats"][&session];
    assert_eq!(stats["cost"], 0.7, "{costs}");
    assert_eq!((&stats["input_tokens"], &stats["messages"]), (&json!(605), &json!(2)));
    assert_eq!(stats["pricing_sources"], json!({"provider": 1, "registry": 1}));
    assert_eq!((&costs["by_agent"][0]["agent"], costs["by_agent"].as_array().unwrap().len()), (&json!("clerk"), 1));
    assert_eq!(costs["by_key"][0]["identity"], "key:reader");
    assert_eq!(costs["by_model"][0]["model"], "test-model");
    let sql = "SELECT sum(cost) FROM messages WHERE conversation_id = ?1";
    let stored: f64 = hub.database().query_row(sql, [&session], |row| row.get(0)).unwrap();
    assert!((stored - 0.7).abs() < 1e-9, "messages hold what their turns have cost: {stored}");
}

#[test]
fn the_hard_limit_refuses_the_next_turn_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::start();
    let start = || Builder::new(dir.path()).paid_model(&model).start();
    let mut hub = start();
    let client = reader(&hub);
    let stream = client.with("Accept", "text/event-stream");
    let events = stream.chat(json!({"message": spending(950, "say hi")})).events();
    let warning = events.iter().find(|event| event["type"] == "cost_warning").unwrap();
    assert_eq!(warning["percent"], 80, "{warning}");
    let session = session_of(events.last().unwrap());
    let refused = client.chat(json!({"session_id": session, "message": "say more"}));
    assert_eq!((refused.status, &refused.json()["code"]), (402, &json!("budget")));
    let text = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(text.contains("$0.95 of the limit of $1.00 for this conversation is spent"), "{text}");
    assert!(text.contains("Begin a new conversation, or raise cost_limit_hard in [llm]."), "{text}");
    hub.kill();
    let hub = start();
    let client = Client::new(&hub.address).with_key(&client.key());
    assert_eq!(client.chat(json!({"session_id": session, "message": "say more"})).status, 402);
    assert_eq!(client.chat(json!({"message": "say more"})).status, 200);
    assert_eq!(model.requests().len(), 2, "a refused call is not made");
}

#[test]
fn beyond_the_soft_limit_a_turn_ends_in_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::start();
    let hub = Builder::new(dir.path())
        .paid_model(&model)
        .config("[[agents]]\nname = \"default\"\ncost_limit_soft = 0.15\ncost_limit_hard = 9.0")
        .start();
    let client = reader(&hub).with("Accept", "text/event-stream");
    let events = client.chat(json!({"message": spending(100, "loop kv_get")})).events();
    let kinds = kinds(&events);
    assert_eq!(kinds.iter().filter(|kind| *kind == "tool_start").count(), 1, "{kinds:?}");
    assert!(kinds.contains(&"cost_limit".to_owned()) && kinds.last().unwrap() == "done", "{kinds:?}");
}

#[test]
fn a_key_has_a_limit_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::start();
    let limits = "[costs.keys.reader]\ndaily_limit_hard = 1.0";
    let hub = Builder::new(dir.path()).paid_model(&model).config(&midday().0).config(limits).start();
    let admin = hub.admin();
    let (reader, other) = (admin.new_key("reader", &["chat"]), admin.new_key("other", &["chat", "costs:read"]));
    assert_eq!(reader.chat(json!({"message": spending(900, "say hi")})).status, 200);
    let refused = reader.chat(json!({"message": "say hi"}));
    assert_eq!(refused.status, 402);
    let text = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(text.contains("the daily limit of $1.00 for \"key:reader\""), "{text}");
    assert!(text.ends_with("raise daily_limit_hard in [costs.keys.\"reader\"]."), "{text}");
    assert_eq!(other.chat(json!({"message": "say hi"})).status, 200);
    let limit = &other.get("/api/v1/costs").json()["limits"][0];
    assert_eq!((&limit["scope"], &limit["name"], &limit["spent"]), (&json!("key"), &json!("key:reader"), &json!(0.9)));
}

#[test]
fn a_call_that_a_crash_cuts_short_counts_at_its_estimate() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::start();
    let start = || Builder::new(dir.path()).paid_model(&model).start();
    let mut hub = start();
    let client = reader(&hub);
    let stream = client.with("Accept", "text/event-stream");
    let _waiting = stream.open("POST", "/api/v1/chat", r#"{"session_id":"crash","message":"gate 1 1"}"#);
    model.wait_at_gate();
    assert!(cost_of(&client, "crash") == 0.0);
    hub.kill();
    let hub = start();
    let client = Client::new(&hub.address).with_key(&client.key());
    // 1,024 tokens out are set aside for every call, and those of the prompt.
    let cost = cost_of(&client, "crash");
    assert!(cost > 0.2048 && cost < 1.0, "{cost}");
}

#[test]
fn failed_calls_cost_nothing_and_unknown_prices_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::start();
    let hub = Builder::new(dir.path()).paid_model(&model).start();
    let client = reader(&hub);
    assert_eq!(client.chat(json!({"message": "status 500"})).status, 502);
    assert_eq!(client.get("/api/v1/costs").json()["global_cost"], 0);
    let rows = "SELECT count(*) FROM llm_calls";
    assert_eq!(hub.database().query_row(rows, [], |row| row.get::<_, i64>(0)).unwrap(), 0);

    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).model_with(&model, "free = false").start();
    let refused = reader(&hub).chat(json!({"message": "say hi"}));
    assert_eq!((refused.status, &refused.json()["code"]), (402, &json!("budget")));
    let text = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(text.contains("[costs.model_prices.\"test-model\"]") && text.contains("free = true"), "{text}");
}

#[test]
fn limits_and_prices_are_set_while_the_hub_runs() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model_with(&model, "free = false").config(&midday().0).start();
    let admin = hub.admin();
    let reader = admin.new_key("my.reader", &["chat", "costs:read"]);
    let patch = |path: &str, body: Value| {
        let answer = admin.send("PATCH", &format!("/api/v1/costs/{path}"), &body.to_string());
        (answer.status, answer.json())
    };
    let done = (200, json!({"status": "updated"}));
    let say = |thousandths: u32| reader.chat(json!({"message": spending(thousandths, "say hi")})).status;
    // Without a price nothing is asked; with one it is.
    assert_eq!(say(1), 402);
    assert_eq!(patch("prices", json!({"model": "test-model", "input": 100, "output": 200})), done);
    assert_eq!(say(900), 200);
    let costs = reader.get("/api/v1/costs").json();
    assert_eq!(costs["pricing_config"]["custom_model_count"], 1);
    assert!(costs["by_model"][0]["pricing_sources"].is_object(), "{costs}");
    let limits = || reader.get("/api/v1/costs").json()["limits"].clone();
    assert_eq!(limits(), json!([]));
    assert_eq!(patch("limits", json!({"scope": "key", "name": "key:my.reader", "daily_limit_hard": 0.5})), done);
    assert_eq!(
        (&limits()[0]["name"], &limits()[0]["hard"], &limits()[0]["spent"]),
        (&json!("key:my.reader"), &json!(0.5), &json!(0.9))
    );
    let refused = reader.chat(json!({"message": "say hi"}));
    assert!(refused.status == 402 && refused.text().contains("daily limit"), "{}", refused.text());
    // More, and other periods; what is not given stays.
    let more = json!({"scope": "key", "name": "key:my.reader", "daily_limit_hard": 20, "daily_limit_soft": 1, "monthly_limit_hard": 30});
    assert_eq!(patch("limits", more), done);
    assert_eq!(patch("limits", json!({"scope": "agent", "name": "default", "total_limit_hard": 40})), done);
    assert_eq!(patch("limits", json!({"daily_limit_hard": 50})), done);
    assert_eq!((say(100), limits().as_array().unwrap().len()), (200, 4));
    let file = || std::fs::read_to_string(hub.dir.join("holt.toml")).unwrap();
    assert!(file().contains("[costs.keys.\"my.reader\"]"), "{}", file());
    let before = file();
    for (path, body, text) in [
        ("limits", json!({"scope": "chat"}), "scope must be all, agent or key"),
        ("limits", json!({"scope": "key"}), "name is required"),
        ("limits", json!({"scope": "agent", "name": "nobody"}), "name: there is no agent \"nobody\""),
        ("limits", json!({"daily_limit_hard": -1}), "costs.daily_limit_hard: must be 0 or more"),
        ("limits", json!({"daily_limit_hard": "much"}), "daily_limit_hard must be a number"),
        ("limits", json!({"daily_limit_soft": 60}), "costs.daily_limit_soft: must not be above the hard limit of 50"),
        ("prices", json!({"input": 1}), "model is required"),
        ("limits", json!({}), "give at least one of daily_limit_soft"),
        ("limits", json!({"name": "default", "daily_limit_hard": 1}), "name: works with scope agent and key only"),
        ("limits", json!({"scope": "key", "name": "key:", "daily_limit_hard": 1}), "name is required"),
        ("limits", json!({"scope": "key", "name": "nokey", "daily_limit_hard": 1}), "name: there is no key \"nokey\""),
        ("limits", json!({"scope": "key", "name": "user:", "daily_limit_hard": 1}), "name: there is no key \"user:\""),
        ("prices", json!({"model": "m", "input": -1, "output": 1}), "input: must be 0 or more"),
        ("prices", json!({"model": "test-model", "outptu": 9}), "give at least one of input, output, cached_input"),
        ("prices", json!({"model": "test-model", "input": null}), "give input and output"),
        ("prices", json!({"model": "m", "output": 1}), "give input and output"),
        ("prices", json!({"model": "m", "cached_input": 1}), "give input and output"),
    ] {
        let (status, told) = patch(path, body.clone());
        assert!(status == 400 && told["error"].as_str().unwrap().contains(text), "{body}: {told}");
    }
    assert_eq!(file(), before);
    assert_eq!(reader.send("PATCH", "/api/v1/costs/limits", "{}").status, 403);
    // A login has limits too, whether it was seen or not.
    assert_eq!(patch("limits", json!({"scope": "key", "name": "user:a@b.net", "total_limit_hard": 0})), done);
    // What is not given stays.
    assert_eq!(patch("prices", json!({"model": "test-model", "cached_input": 50})), done);
    assert!(file().contains("input = 100") && file().contains("cached_input = 50"), "{}", file());
    // None any more.
    let none = json!({"scope": "key", "name": "my.reader", "daily_limit_hard": null, "daily_limit_soft": 0, "monthly_limit_hard": null});
    assert_eq!(patch("limits", none), done);
    assert_eq!(limits().as_array().unwrap().len(), 2);
    assert_eq!(patch("prices", json!({"model": "test-model", "input": null, "output": null})), done);
    assert!(!file().contains("cached_input"), "{}", file());
    assert_eq!(say(1), 402);
}
