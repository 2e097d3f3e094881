//! Settings change while the hub runs (contract http-api 4.4, 12, engine 10; W-27, W-28).

use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::tool_server::{config, table};
use crate::support::{Client, Hub, Model, Socket, wait_until};

fn file(hub: &Hub) -> String {
    std::fs::read_to_string(hub.dir.join("holt.toml")).unwrap()
}

fn write(hub: &Hub, text: &str) {
    std::fs::write(hub.dir.join("holt.toml"), text).unwrap();
}

fn patch(client: &Client, path: &str, body: Value) -> (u16, Value) {
    let answer = client.send("PATCH", path, &body.to_string());
    (answer.status, answer.json())
}

/// Every key of contract engine 10.2.
const EVERYTHING: &str = r#"# everything
data_dir = "DIR"
max_tools = 30.0

[telegram]
token = "t-1"
allowed_users = [1, 2]

[discord]
token = "d-1"
allowed_users = ["a"]

[llm]
default_provider = "openai" # first
default_model = "m"
cost_limit_soft = 0.5
cost_limit_hard = 2.0
max_cost_per_session = 1.0

[llm.openrouter]
api_key = "or-1"

[llm.anthropic]
api_key = "an-1"
base_url = "http://127.0.0.1:1"

[llm.openai]
api_key = "oa-1"
base_url = "http://127.0.0.1:1"
organization = "org"

[llm.ollama]
base_url = "http://127.0.0.1:1"

[[llm.fallback]]
trigger = "error"
action = "switch_provider"
provider = "openrouter"
model = "x"

[[llm.fallback]]
trigger = "low_funds"
action = "switch_model"
model = "x"
threshold = 1.5

[[llm.fallback]]
trigger = "rate_limit"
action = "wait_and_retry"
max_retries = 2
backoff = "constant"

[memory]
db_path = "DIR/data/memory.db"

[log]
level = "info"
format = "text"

[session]
tier = "supervised"

[agent]
persona_dir = "DIR/agents/default"
skills_dir = "DIR/skills"

[[agents]]
name = "default"
description = "d"
persona_dir = "DIR/agents/default"
skills_dir = "DIR/skills"
adapters = ["telegram:1"]
llm_model = "m2"
session_tier = "autonomous"
browser_url_allowlist = ["a.example"]
cost_limit_soft = 0.1
cost_limit_hard = 0.2

[[agents.fallback]]
trigger = "error"
action = "switch_model"
model = "y"

[[schedules]]
name = "s"
type = "agent"
schedule = "@daily"
skill = "k"
session_tier = "supervised"
channel = "telegram:1"
session_mode = "isolated"
agent = "default"
tags = ["a"]
enabled = false

[tools.web]
transport = "sse"
url = "http://127.0.0.1:1/sse"
headers = { Authorization = "Bearer x" }
request_timeout_secs = 5
allow_loopback = true

[tools.local]
command = "/bin/false"
args = ["-v"]
env = { A = "b" }

[mcp]
request_timeout_secs = 30
auto_restart = false
max_restart_attempts = 3
restart_cooldown = "5m"
url_allowlist = ["127.0.0.1"]

[api]
enabled = true
listen = ":0"
tls = false
cert_file = "c.pem"
key_file = "k.pem"
cors_origins = ["http://a.example"]
rate_limit = 100
login_rate_limit = 5
login_rate_window = "15m"
websocket_enabled = true
websocket_max_connections = 10
websocket_replay_buffer_ttl = "6m"
external_url = "http://hub.example"
timezone = "Europe/Berlin" # home

[[api.keys]]
name = "k"
key = "key-of-the-file"
scopes = ["admin", "chat", "sessions:read", "costs:read", "agents:read", "agents:write", "skills:read", "skills:write", "schedules:read", "schedules:write", "approvals:read", "approvals:write", "tools:read", "tools:write", "browser:read", "browser:write", "kv:read", "kv:write", "health"]

[api.auth]
password_hash = "$2b$13$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"
session_secret = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
session_max_age = "12h"

[api.auth.oidc]
enabled = false
issuer = "https://id.example"
client_id = "c"
client_secret = "s"
redirect_url = "https://hub.example/auth/callback"
scopes = ["openid"]
allowed_emails = ["a@b"]

[security]
trusted_keys = ["x"]
allow_unsigned = true

[kv]
max_keys_per_agent = 10
max_value_bytes = 1000
cleanup_interval = "2h"

[web]
enabled = true

[web.search]
provider = "tavily"
api_key = "tv-1"
max_results = 3

[web.fetch]
timeout = "20s"
max_size_bytes = 100000
user_agent = "x"
respect_robots_txt = true
respect_agents_txt = true

[web.fetch.jina]
enabled = true

[browser]
enabled = false
image = "i"
memory_limit = "512m"
cpu_limit = "1"
profile_dir = "p"
session_ttl = "10m"
max_pages = 5

[browser.url_allowlist]
domains = ["a.example"]

[sandbox]
runtime = "kubernetes"

[sandbox.kubernetes]
namespace = "n"
kubeconfig = "k"
runtime_class = "r"

[otel]
enabled = true
traces_endpoint = "http://127.0.0.1:1"
service_name = "holt"

[costs]
default_rate_per_1k_tokens = 0.01

[costs.model_prices.m]
input = 1.0
output = 2
cached_input = 0.1

[voice]
stt_provider = "openai"
tts_provider = "openai"
tts_voice = "alloy"
auto_voice_reply = true

[voice.openai]
api_key = "vo-1"
"#;

#[test]
fn a_file_with_every_key_starts_and_keeps_what_is_not_built() {
    let dir = tempfile::tempdir().unwrap();
    let text = EVERYTHING.replace("DIR", dir.path().to_str().unwrap());
    let hub = Builder::new(dir.path()).config(&text).start();
    let client = hub.client().with_key("key-of-the-file");
    for thing in ["telegram", "discord", "voice", "sandbox.runtime", "otel.traces_endpoint", "web.fetch.jina"] {
        assert_eq!(hub.log_count(&format!("{thing}: ")), 1, "{thing} is reported once");
    }
    assert!(!hub.log_contains("unknown key"));
    for secret in ["or-1", "an-1", "oa-1", "tv-1", "t-1\"", "key-of-the-file"] {
        assert!(!hub.log_contains(secret), "{secret}");
    }
    let shown = client.get("/api/v1/server/config").json();
    assert_eq!((&shown["timezone"], &shown["external_url"]), (&json!("Europe/Berlin"), &json!("http://hub.example")));
    assert_eq!((&shown["websocket_replay_buffer_ttl"], &shown["rate_limit"]), (&json!("6m"), &json!(100)));
    assert_eq!(client.get("/api/v1/agents/default").json()["adapters"], json!(["telegram:1"]));
    let (status, told) = patch(&client, "/api/v1/server/config", json!({"timezone": "Europe/Paris"}));
    assert_eq!((status, told), (200, json!({"status": "updated"})));
    let expected = text.replace("\"Europe/Berlin\" # home", "\"Europe/Paris\" # home");
    assert_eq!(file(&hub).trim(), expected.trim(), "nothing but the one value");
}

#[test]
fn variables_win_over_the_file_and_say_so() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path())
        .config("[api]\ntimezone = \"UTC\"\n[llm]\ndefault_provider = \"local\"\n")
        .config("[[api.keys]]\nname = \"k\"\nkey = \"key-of-the-file\"\nscopes = [\"admin\", \"chat\"]\n")
        .env("DENKEEPER_TIMEZONE", "Asia/Tokyo")
        .env("DENKEEPER_API_EXTERNAL_URL", "http://outside.example")
        .env("DENKEEPER_LLM_PROVIDER", "openai")
        .env("DENKEEPER_LLM_MODEL", "of-variable")
        .env("DENKEEPER_LLM_OPENAI_API_KEY", "k-of-variable")
        .env("DENKEEPER_LLM_OPENAI_BASE_URL", &model.url())
        .env("DENKEEPER_SESSION_TIER", "restricted")
        .env("DENKEEPER_TELEGRAM_TOKEN", "x")
        .env("DENKEEPER_API_WEBSOCKET_ENABLED", "0")
        .start();
    let client = hub.client().with_key("key-of-the-file");
    let shown = client.get("/api/v1/server/config").json();
    assert_eq!((&shown["timezone"], &shown["websocket_enabled"]), (&json!("Asia/Tokyo"), &json!(false)));
    assert!(hub.log_contains("telegram: not supported"));
    assert_eq!(client.chat(json!({"message": "say hi"})).status, 200);
    assert_eq!(model.requests()[0]["model"], "of-variable");
    assert_eq!(client.get("/api/v1/agents/default").json()["permission_tier"], "restricted");
    let before = file(&hub);
    for (path, body, named) in [
        ("/api/v1/server/config", json!({"timezone": "UTC"}), "DENKEEPER_TIMEZONE"),
        ("/api/v1/llm/config", json!({"default_model": "m"}), "DENKEEPER_LLM_MODEL"),
        ("/api/v1/llm/providers/openai", json!({"api_key": "m"}), "DENKEEPER_LLM_OPENAI_API_KEY"),
    ] {
        let (status, told) = patch(&client, path, body);
        assert!(status == 409 && told["error"].as_str().unwrap().contains(named), "{path}: {told}");
    }
    assert_eq!(file(&hub), before);
}

#[test]
fn providers_change_at_once_and_their_keys_stay_secret() {
    let (dir, first, second) = (tempfile::tempdir().unwrap(), Model::start(), Model::start());
    let hub = Builder::new(dir.path()).model(&first).start();
    let client = hub.admin();
    let shown = client.get("/api/v1/llm/providers").json();
    let names: Vec<&str> =
        shown["providers"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["anthropic", "openrouter", "openai", "ollama"]);
    assert_eq!(shown["providers"][0], json!({"name": "anthropic", "enabled": false, "api_key_set": false}));
    assert_eq!(
        (&shown["default_provider"], &shown["cost_limit_hard"], &shown["providers"][2]["api_key_set"]),
        (&json!("openai"), &json!(1), &json!(true))
    );
    assert_eq!(client.chat(json!({"message": "say one"})).status, 200);
    let body = json!({"api_key": "sk-very-secret", "base_url": second.url(), "organization": "org-1"});
    assert_eq!(patch(&client, "/api/v1/llm/providers/openai", body), (200, json!({"status": "updated"})));
    assert_eq!(patch(&client, "/api/v1/llm/config", json!({"default_model": "newer", "cost_limit_soft": 0.5})).0, 200);
    assert_eq!(client.chat(json!({"message": "say two"})).status, 200);
    assert_eq!((first.requests().len(), second.requests().len()), (1, 1));
    assert_eq!(second.requests()[0]["model"], "newer");
    let shown = client.get("/api/v1/llm/providers");
    assert!(!shown.text().contains("sk-very") && !file(&hub).contains("sk-very") && file(&hub).contains("sealed:"));
    assert_eq!(shown.json()["providers"][2]["organization"], "org-1");
    assert_eq!(client.get("/api/v1/costs").status, 403, "no scope for costs");
    let before = file(&hub);
    for (path, body, text) in [
        ("providers/nobody", json!({}), "unknown provider: must be one of anthropic, openrouter, openai, ollama"),
        ("providers/openai", json!({"base_url": "here"}), "invalid base_url: must be a valid URL with scheme and host"),
        ("providers/openai", json!({"base_url": "ftp://x"}), "llm.openai.base_url"),
        ("providers/ollama", json!({"organization": "x"}), "organization is only supported for the openai provider"),
        ("providers/openai", json!({"api_key": 5}), "api_key must be text"),
        ("providers/openai", json!({"api_key": "", "base_url": ""}), "llm.default_provider"),
        ("config", json!({"default_provider": "x"}), "invalid default_provider: must be one of"),
        (
            "config",
            json!({"default_provider": "anthropic"}),
            "llm.default_provider: anthropic needs llm.anthropic.api_key",
        ),
        ("config", json!({"cost_limit_soft": -1}), "cost_limit_soft must be >= 0"),
        ("config", json!({"cost_limit_hard": -1}), "cost_limit_hard must be >= 0"),
        ("config", json!({"cost_limit_soft": 5}), "llm.cost_limit_soft"),
    ] {
        let (status, told) = patch(&client, &format!("/api/v1/llm/{path}"), body.clone());
        assert!(status == 400 && told["error"].as_str().unwrap().contains(text), "{path} {body}: {told}");
    }
    assert_eq!(file(&hub), before);
    let told = client.post("/api/v1/llm/providers/openai/test", "").json();
    assert!(told["ok"] == true && told["latency_ms"].is_u64(), "{told}");
    assert_eq!(second.requests().len(), 2);
    assert_eq!(client.post("/api/v1/llm/providers/anthropic/test", "").status, 404);
    drop(second);
    let told = client.post("/api/v1/llm/providers/openai/test", "").json();
    assert!(told["ok"] == false && !told["error"].as_str().unwrap().is_empty(), "{told}");
}

#[test]
fn the_servers_settings_count_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let client = hub.admin();
    let shown = client.get("/api/v1/server/config").json();
    assert_eq!((&shown["timezone"], &shown["cors_origins"], &shown["tls"]), (&json!("UTC"), &json!([]), &json!(false)));
    let outside = hub.client().with("Host", "holt.example");
    assert_eq!(outside.get("/api/v1/health").status, 421);
    let body = json!({"external_url": "http://holt.example/", "timezone": "Europe/Berlin"});
    assert_eq!(patch(&client, "/api/v1/server/config", body), (200, json!({"status": "updated"})));
    assert_eq!(outside.get("/api/v1/health").status, 200);
    for (body, text) in [
        (json!({"external_url": "holt.example"}), "invalid external_url: must be a valid URL with scheme and host"),
        (json!({"external_url": "ftp://holt.example"}), "api.external_url"),
        (
            json!({"timezone": "Mars/Olympus"}),
            "invalid timezone: must be a valid IANA timezone name (e.g. America/New_York)",
        ),
        (json!({"timezone": 1}), "timezone must be text"),
    ] {
        let (status, told) = patch(&client, "/api/v1/server/config", body.clone());
        assert!(status == 400 && told["error"].as_str().unwrap().contains(text), "{body}: {told}");
    }
    assert_eq!(patch(&client, "/api/v1/server/config", json!({"external_url": ""})).0, 200);
    assert_eq!(outside.get("/api/v1/health").status, 421);
    assert_eq!(client.get("/api/v1/server/config").json()["timezone"], "Europe/Berlin");
    assert_eq!(file(&hub).trim(), "[api]\ntimezone = \"Europe/Berlin\"");
    let chatter = client.new_key("c", &["chat"]);
    for (method, path) in [("GET", "config"), ("PATCH", "config"), ("POST", "reload"), ("POST", "restart")] {
        assert_eq!(chatter.send(method, &format!("/api/v1/server/{path}"), "{}").status, 403, "{method} {path}");
    }
}

#[test]
fn a_reload_takes_what_the_file_says_or_nothing() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let keys = "[[api.keys]]\nname = \"f\"\nkey = \"key-of-the-file\"\nscopes = [\"chat\", \"agents:read\"]\n";
    let hub = Builder::new(dir.path()).model(&model).config(keys).start();
    let client = Client::new(&hub.address).with_key("key-of-the-file");
    // With a key in the file setup is over; the command line makes keys.
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_holt"))
        .args(["keys", "create", "boss", "--scopes", "admin", "--data-dir"])
        .arg(&hub.dir)
        .env_clear()
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let key = printed.split_whitespace().find(|word| word.starts_with("dk_")).unwrap().to_owned();
    let boss = Client::new(&hub.address).with_key(&key);
    let mut socket = Socket::open(&client);
    let text = file(&hub);
    // Broken, and wrong: the hub goes on as it was.
    for (bad, named) in [("[api\n", "line"), ("[api]\nrate_limit = -1\n", "api.rate_limit")] {
        write(&hub, bad);
        let answer = boss.post("/api/v1/server/reload", "");
        assert!(answer.status == 500 && answer.text().contains("reload failed: "), "{}", answer.text());
        assert!(answer.text().contains(named) && !answer.text().contains(dir.path().to_str().unwrap()));
        assert_eq!(client.get("/api/v1/models").status, 200);
        let (status, told) = patch(&boss, "/api/v1/server/config", json!({"timezone": "Asia/Tokyo"}));
        assert_eq!(status, 400, "{told}");
        assert_eq!(file(&hub), bad, "a file that somebody is working at is not touched");
        assert_eq!(boss.post("/api/v1/server/restart", "").status, 409);
    }
    // Another model, no key any more, and something that has to wait.
    write(&hub, &(text.replace(keys, "").replace("test-model", "reloaded") + "[http]\nworkers = 3\n"));
    let answer = boss.post("/api/v1/server/reload", "");
    assert_eq!(answer.json(), json!({"status": "reloaded", "restart_required": ["http.workers"]}));
    assert_eq!(client.get("/api/v1/models").status, 401);
    assert_eq!(socket.close_code().map(|(code, _)| code), Some(1008));
    assert_eq!(boss.get("/api/v1/agents/default").json()["model"], "reloaded");
    // A signal does the same.
    write(&hub, &text.replace("test-model", "by-signal"));
    hub.signal("HUP");
    wait_until("the signal was heard", || {
        (boss.get("/api/v1/agents/default").json()["model"] == "by-signal").then_some(())
    });
    wait_until("the key is back", || (client.get("/api/v1/models").status == 200).then_some(()));
}

#[test]
fn what_setup_and_tools_write_counts_at_once_and_healthy_servers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let starts = dir.path().join("starts");
    let env = [("STARTS", starts.to_str().unwrap())];
    let part = table("part", &env)
        .replace("[tools.part]", "[plugins.part]\ntype = \"subprocess\"\ncapabilities = [\"tools\"]");
    let part = part.replace("request_timeout_secs = 1\n", "");
    let hub = Builder::new(dir.path()).config(&table("a", &env)).config(&part).start();
    let client = hub.client();
    let pin = hub.pin.clone().unwrap();
    let answer = client.post("/api/v1/setup/account", &json!({"pin": pin, "password": "long enough"}).to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    // What counts is compared with what counted: a key shows when it changed, and not again later.
    let password = "settings changed: api.auth.password_hash";
    // What the hub writes is read by a thread of its own.
    let logged = |text: &str| wait_until(text, || hub.log_contains(text).then_some(()));
    logged(password);
    let boss = client.with_cookie_of(&answer);
    let status = |name: &str| boss.get(&format!("/api/v1/tools/{name}")).json()["status"].clone();
    let connected = |name: &str| {
        wait_until(&format!("{name} is connected"), || (status(name) == "connected").then_some(()));
    };
    connected("a");
    connected("part");
    let n_starts = || std::fs::read_to_string(&starts).unwrap().lines().count();
    assert_eq!(n_starts(), 2);
    let mut body = config(&env);
    body["name"] = json!("b");
    assert_eq!(boss.post("/api/v1/tools", &body.to_string()).status, 201);
    logged("settings changed: tools.b.");
    assert_eq!(n_starts(), 3);
    assert_eq!(boss.post("/api/v1/tools/b/disable", "").status, 200);
    logged("settings changed: tools.b.disabled");
    assert_eq!(boss.post("/api/v1/tools/b/enable", "").status, 200);
    assert_eq!(n_starts(), 4);
    assert_eq!(patch(&boss, "/api/v1/server/config", json!({"timezone": "Asia/Tokyo"})).0, 200);
    logged("settings changed: api.timezone");
    assert_eq!(boss.post("/api/v1/server/reload", "").json(), json!({"status": "reloaded"}));
    for name in ["a", "b", "part"] {
        assert_eq!(status(name), "connected", "{name}");
    }
    assert_eq!((n_starts(), hub.log_count(password)), (4, 1));
    // An editor may change plugins too.
    write(&hub, &file(&hub).replace("[plugins.part]", "[plugins.other]"));
    assert_eq!(boss.post("/api/v1/server/reload", "").json(), json!({"status": "reloaded"}));
    connected("other");
    assert_eq!(boss.get("/api/v1/tools/part").status, 404);
    assert_eq!(boss.get("/api/v1/plugins").json()["plugins"][0]["name"], "other");
    assert_eq!(boss.delete("/api/v1/tools/b").status, 204);
    assert!(boss.delete("/api/v1/plugins/other").status == 204 && !file(&hub).contains("plugins.other"));
    assert_eq!((n_starts(), status("a")), (5, json!("connected")));
}
