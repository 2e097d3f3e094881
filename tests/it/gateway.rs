//! The hub as a gateway to models (contract agent-link 5; checklist 15).

use std::io::{BufReader, Write};

use serde_json::{Value, json};

use crate::support::agent::{Agent, ID, id};
use crate::support::http::{raw, read_answer};
use crate::support::hub::Builder;
use crate::support::{Answer, Client, Hub, Model, wait_until};

const PATH: &str = "/api/v1/agent/llm/chat";
const SHARED: &str = "a token that all machines share";

struct Bench {
    _dir: tempfile::TempDir,
    model: Model,
    hub: Hub,
}

impl Bench {
    fn new(gateway: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = Model::start();
        let hub = Builder::new(dir.path())
            .model(&model)
            .config(&format!("[fleet]\nshared_token = \"{SHARED}\"\n[fleet.gateway]\n{gateway}"))
            .start();
        Self { _dir: dir, model, hub }
    }

    /// As a machine.
    fn machine(&self, id: &str) -> Client {
        self.hub.client().with("X-Agent-Token", SHARED).with("X-Agent-ID", id)
    }
}

fn asking(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "metadata": {}})
}

fn ask(client: &Client, text: &str) -> Answer {
    client.post(PATH, &asking(text).to_string())
}

/// The status and the code of an error, which has the contract's shape.
#[track_caller]
fn error(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    assert!(body["request_id"].is_string() && body["error"]["message"].is_string(), "{body}");
    assert_eq!(answer.header("content-type"), "application/json");
    (answer.status, body["error"]["code"].as_str().unwrap().to_owned())
}

#[test]
fn a_machine_gets_an_answer_in_the_contracts_shape() {
    let bench = Bench::new("");
    let body = json!({
        "messages": [
            {"role": "system", "content": "You look after a host."},
            {"role": "user", "content": "tool disk_overview {}"},
            {"role": "assistant", "content": "", "reasoning_content": "hidden"}],
        "tools": [{"type": "function", "function": {"name": "disk_overview", "description": "d"}}],
        "timeout_ms": 30000, "metadata": {"diagnose_id": "d1", "plugin": "disk", "target": "/data"},
    });
    let machine = bench.machine(ID).with("X-Agent-Scene", "diagnose");
    let answer = machine.post(PATH, &body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let data = &answer.json()["data"];
    assert_eq!(data["message"]["tool_calls"][0]["function"]["name"], "disk_overview");
    assert_eq!((&data["finish_reason"], &data["attempts"]), (&json!("tool_calls"), &json!(1)));
    assert_eq!(data["usage"], json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}));
    let sent = &bench.model.requests()[0];
    assert_eq!(sent["tools"][0]["function"]["parameters"], json!({"type": "object", "properties": {}}));
    assert!(!sent.to_string().contains("hidden"));
    let text = ask(&machine, "say hello").json();
    assert_eq!(
        (&text["data"]["message"]["content"], &text["data"]["finish_reason"]),
        (&json!("hello"), &json!("stop"))
    );
    // What it used is counted under the machine's name.
    let costs = bench.hub.admin().new_key("costs", &["costs:read"]).get("/api/v1/costs").text();
    assert!(costs.contains(&format!("machine:{ID}")), "{costs}");
    assert!(!bench.hub.log_contains("hello") && bench.hub.log_contains("scene diagnose status 200"));
}

#[test]
fn whoever_is_not_an_approved_machine_is_refused_in_json() {
    let bench = Bench::new("");
    let nobody = bench.hub.client();
    assert_eq!(error(&ask(&nobody, "say x")), (401, "unauthorized".to_owned()));
    assert_eq!(error(&ask(&nobody.with("X-Agent-Token", "wrong").with("X-Agent-ID", ID), "say x")).0, 401);
    assert_eq!(error(&ask(&nobody.with("X-Agent-Token", SHARED).with("X-Agent-ID", "me"), "say x")).0, 400);
    let request = format!("hr_{}", "x".repeat(40));
    let headers = [("X-Agent-Token", request.as_str()), ("X-Agent-Id", ID), ("X-Proto-Version", "1")];
    let mut pending = Agent::connect_with(&bench.hub.address, &headers, ID).unwrap();
    assert_eq!(pending.register("pi", &[])["ok"], false);
    let asks = nobody.with("X-Agent-Token", &request).with("X-Agent-ID", ID);
    assert_eq!(error(&ask(&asks, "say x")), (403, "not_approved".to_owned()));
    assert!(bench.model.requests().is_empty());
    let machine = bench.machine(&id(2));
    assert_eq!(error(&machine.get(PATH)).0, 405);
    for body in ["", "[", "{}", r#"{"messages":[{"role":"king"}]}"#] {
        assert_eq!(error(&machine.post(PATH, body)).0, 400, "{body}");
    }
    assert_eq!(error(&ask(&machine, "status 429")).0, 429);
    assert_eq!(error(&ask(&machine, "status 400")).0, 400);
    assert_eq!(error(&ask(&machine, "status 401")).0, 502);
    assert_eq!(error(&ask(&machine, "cut 2")).0, 502);
}

#[test]
fn late_answers_are_504_before_the_machine_gives_up() {
    let bench = Bench::new("");
    let mut body = asking("silent");
    body["timeout_ms"] = json!(400);
    let answer = bench.machine(ID).post(PATH, &body.to_string());
    assert_eq!(error(&answer), (504, "timeout".to_owned()));
}

#[test]
fn a_machine_that_hangs_up_ends_its_call() {
    let bench = Bench::new("");
    let stream = bench.machine(ID).open("POST", PATH, &asking("silent").to_string());
    wait_until("the model is asked", || (!bench.model.requests().is_empty()).then_some(()));
    drop(stream);
    wait_until("the call has ended", || bench.hub.log_contains("status 499").then_some(()));
}

#[test]
fn large_conversations_are_read_once_the_machine_is_known() {
    let bench = Bench::new("");
    let machine = bench.machine(ID);
    let mut body = asking("say done");
    body["messages"][0]["role"] = json!("system");
    body["messages"][0]["content"] = json!("x".repeat(5 * 1024 * 1024));
    body["messages"].as_array_mut().unwrap().push(json!({"role": "user", "content": "say done"}));
    let answer = machine.post(PATH, &body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(bench.model.requests()[0]["messages"][0]["content"].as_str().unwrap().len(), 5 * 1024 * 1024);
    // Twice on one connection, the second behind a small one.
    let head = |token: &str, length: usize, more: &str| {
        format!(
            "POST {PATH} HTTP/1.1\r\nHost: {}\r\nX-Agent-ID: {ID}\r\nX-Agent-Token: {token}\r\nContent-Length: {length}\r\n{more}\r\n",
            bench.hub.address
        )
    };
    let mut stream = raw(&bench.hub.address);
    for text in [asking("say small").to_string(), body.to_string()] {
        stream.write_all((head(SHARED, text.len(), "") + &text).as_bytes()).unwrap();
        assert_eq!(read_answer(&mut BufReader::new(stream.try_clone().unwrap()), false).status, 200);
    }
    // The head alone tells who it is: nothing of the body is waited for.
    let answer_to = |head: String| {
        let mut stream = raw(&bench.hub.address);
        stream.write_all(head.as_bytes()).unwrap();
        read_answer(&mut BufReader::new(stream), false)
    };
    assert_eq!(error(&answer_to(head("wrong", 5_000_000, ""))).0, 401);
    assert_eq!(error(&answer_to(head(SHARED, 17 * 1024 * 1024, ""))).0, 413);
    assert_eq!(answer_to(head(SHARED, 5_000_000, "Expect: 100-continue\r\n")).status, 100);
    // Elsewhere nothing has changed.
    let other = format!("POST /api/v1/chat HTTP/1.1\r\nHost: {}\r\nContent-Length: 5000000\r\n\r\n", bench.hub.address);
    assert_eq!(answer_to(other).status, 413);
}

#[test]
fn calls_of_a_machine_are_limited() {
    let bench = Bench::new("tokens_per_day = 100");
    let machine = bench.machine(ID);
    let mut streams: Vec<_> = (0..4).map(|_| machine.open("POST", PATH, &asking("gate 1 1").to_string())).collect();
    wait_until("four calls are being made", || (bench.model.requests().len() == 4).then_some(()));
    let fifth = ask(&machine, "say x");
    assert_eq!(error(&fifth), (429, "rate_limited".to_owned()));
    assert!(fifth.header("retry-after").parse::<u32>().unwrap() > 0);
    assert_eq!(ask(&bench.machine(&id(2)), "say x").status, 200, "others are not affected");
    bench.model.open_gate();
    for stream in &mut streams {
        assert_eq!(read_answer(stream, false).status, 200);
    }
    // Four times 15 tokens are used.
    assert_eq!(
        ask(&machine, r#"usage {"prompt_tokens":60,"completion_tokens":1,"total_tokens":61} say x"#).status,
        200
    );
    let over = ask(&machine, "say x");
    assert_eq!(over.status, 429);
    assert!(over.text().contains("tokens for today"), "{}", over.text());
}

#[test]
fn scenes_have_models_of_their_own() {
    let bench = Bench::new("chat_model = \"small\"");
    let machine = bench.machine(ID);
    for (scene, expected) in [("chat", "small"), ("diagnose", "test-model"), ("other", "test-model")] {
        assert_eq!(ask(&machine.with("X-Agent-Scene", scene), "say x").status, 200);
        assert_eq!(bench.model.requests().last().unwrap()["model"], expected, "{scene}");
    }
}

#[test]
fn a_hub_without_a_model_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).config(&format!("[fleet]\nshared_token = \"{SHARED}\"\n")).start();
    let machine = hub.client().with("X-Agent-Token", SHARED).with("X-Agent-ID", ID);
    assert_eq!(error(&ask(&machine, "say x")), (501, "no_model".to_owned()));
    let off = tempfile::tempdir().unwrap();
    let config = format!("[fleet]\nshared_token = \"{SHARED}\"\n[fleet.gateway]\nenabled = false\n");
    let hub = Builder::new(off.path()).config(&config).start();
    assert_eq!(error(&ask(&machine.at(&hub.address), "say x")), (503, "not_configured".to_owned()));
}
