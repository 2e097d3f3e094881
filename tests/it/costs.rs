//! Costs and budgets (contract http-api 4.5, engine 4; W-36).

use std::process::Command;

use rusqlite::params;
use serde_json::{Value, json};

use crate::support::hub::Builder;
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

fn today(hub: &Hub) -> String {
    let sql = "SELECT strftime('%Y-%m-%d', 'now')";
    hub.database().query_row(sql, [], |row| row.get(0)).unwrap()
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
    let hub = Builder::new(dir.path()).config(limits).start();
    let today = today(&hub);
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
    let today = today(&hub);
    call(&hub, &today, &session, "default", "key:a", 0.25);
    call(&hub, &today, "foreign", "default", "key:b", 0.5);
    call(&hub, &today, &session, "other", "key:a", 4.0);
    let answer = client.chat(json!({"session_id": session, "message": "tool get_cost_summary {}"})).json();
    let told: Value =
        serde_json::from_str(answer["response"].as_str().unwrap().strip_prefix("done: ").unwrap()).unwrap();
    assert_eq!(told, json!({"global_cost": 0.75, "max_per_session": 1.0, "session_costs": {session: 0.25}}));
}
