//! Thousands of requests made of the hub's own description: valid ones, nearly valid ones, hostile ones. Whatever comes,
//! the hub answers, blames nobody but the client, and starts again with what it has stored.

use serde_json::{Value, json};

use crate::support::Client;
use crate::support::hub::Builder;
use crate::support::schema::{Description, Operation};
use crate::support::tool_server::table;

/// Another seed, other requests: `HOLT_FUZZ_SEED`; more of them: `HOLT_FUZZ_COUNT`.
const SEED: u64 = 0x5eed_0001;
const COUNT: u64 = 2500;

/// What would end the test, or ask somebody else: the process itself, a provider.
const LEFT_OUT: &[&str] = &["/api/v1/server/restart", "/api/v1/llm/providers/{name}/test"];
/// Who answers is changed last, and nobody is asked any more.
const LATE: &str = "/api/v1/llm/";
const N_LATE: u64 = 200;

const HOSTILE: &[&str] = &[
    "",
    " ",
    "\u{0}",
    "a\u{0}b",
    "../../../../etc/passwd",
    "..\\..\\x",
    "/etc/passwd",
    ".",
    "..",
    "a/../../b",
    "~/.ssh",
    "' OR 1=1; --",
    "%",
    "_",
    "*",
    "[",
    "(",
    "$(reboot)",
    "`id`",
    "${HOME}",
    "a\r\nSet-Cookie: x=1",
    "\u{202e}drowssap",
    "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
    "e\u{301}\u{301}\u{301}",
    "\u{feff}",
    "\u{fffd}\u{ffff}",
    "NaN",
    "-0",
    "1e999",
    "9223372036854775808",
    "-1",
    "true",
    "null",
    "[]",
    "{}",
    "http://169.254.169.254/",
    "file:///etc/passwd",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:60Z",
    "999999h",
    "-1h",
    "1ns",
    "@every 0s",
    "99 99 99 99 99",
    "ſtraße",
    "İ",
    "CON",
    "machine:",
    "machine:nobody",
    "__proto__",
];
const PLAIN: &[&str] = &[
    "default",
    "a",
    "x-1",
    "scripted",
    "1h",
    "30m",
    "hello",
    "say hi",
    "kv_set",
    "log",
    "@daily",
    "*/5 * * * *",
    "chat",
    "admin",
    "UTC",
    "http://localhost:1/",
    "1",
    "0",
    "2026-01-02T03:04:05Z",
    "identity",
    "api:x",
    "openai",
    "local",
];

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        // xorshift64*: good enough to choose.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % count
    }

    /// True once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    fn text(&mut self) -> String {
        match self.below(12) {
            0..=5 => self.of(PLAIN).to_owned(),
            6..=9 => self.of(HOSTILE).to_owned(),
            10 => self.of(&["x", "ü", "\u{1f4a9}", "\"", "\\", "<"]).repeat(self.below(3000)),
            _ => {
                (0..self.below(12)).filter_map(|_| char::from_u32(u32::try_from(self.next() >> 43).unwrap())).collect()
            }
        }
    }

    fn number(&mut self) -> Value {
        match self.below(8) {
            0 => json!(i64::MAX),
            1 => json!(i64::MIN),
            2 => json!(u64::MAX),
            3 => json!(1e308),
            4 => json!(-0.5),
            5 => json!(0),
            _ => json!(self.below(1000)),
        }
    }

    /// A value that fits the schema, mostly.
    fn value(&mut self, description: &Description, schema: &Value, depth: usize) -> Value {
        if self.once_in(12) {
            return self.anything();
        }
        if let Some(name) = schema["$ref"].as_str() {
            let named = description.0.pointer(name.trim_start_matches('#')).unwrap().clone();
            return self.value(description, &named, depth);
        }
        if let Some(kinds) = schema["anyOf"].as_array() {
            let kind = kinds[self.below(kinds.len())].clone();
            return self.value(description, &kind, depth);
        }
        if let Some(words) = schema["enum"].as_array() {
            return words[self.below(words.len())].clone();
        }
        match schema["type"].as_str() {
            Some("string") if schema["format"] == "date-time" => json!("2027-01-02T03:04:05Z"),
            Some("string") => json!(self.text()),
            Some("integer" | "number") => self.number(),
            Some("boolean") => json!(self.once_in(2)),
            Some("null") => Value::Null,
            Some("array") if depth < 4 => {
                (0..self.below(4)).map(|_| self.value(description, &schema["items"], depth + 1)).collect()
            }
            Some("object") if depth < 4 => {
                let mut object = serde_json::Map::new();
                for (name, kind) in schema["properties"].as_object().into_iter().flatten() {
                    let required = schema["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
                    // What is required is left out seldom, what is not often.
                    let missing = if required { self.once_in(15) } else { self.once_in(2) };
                    if !missing {
                        object.insert(name.clone(), self.value(description, kind, depth + 1));
                    }
                }
                if let Some(kind) = schema.get("additionalProperties") {
                    for _ in 0..self.below(4) {
                        object.insert(self.text(), self.value(description, kind, depth + 1));
                    }
                }
                Value::Object(object)
            }
            _ => self.anything(),
        }
    }

    fn anything(&mut self) -> Value {
        match self.below(7) {
            0 => Value::Null,
            1 => self.number(),
            2 => json!(self.text()),
            3 => json!([self.text(), [], {}]),
            4 => {
                let key = self.text();
                json!({ key: self.number() })
            }
            5 => (0..100).fold(json!(1), |inner, _| json!([inner])),
            _ => json!(self.once_in(2)),
        }
    }

    /// A body, well formed or not.
    fn body(&mut self, description: &Description, schema: &Value) -> String {
        match self.below(20) {
            0 => String::new(),
            1 => self
                .of(&["{", "[", "nul", "{\"a\":}", "{}{}", "\u{feff}{}", "{\"a\":1e99999}", "\"\\ud800\"", "1"])
                .to_owned(),
            2 => "[".repeat(20_000),
            3 => "{\"a\":".repeat(5_000),
            4 => format!("{{\"name\":\"{}\"}}", "n".repeat(200_000)),
            _ => self.value(description, schema, 0).to_string(),
        }
    }

    fn in_path(&mut self) -> String {
        match self.below(10) {
            0 => self.of(&["%00", "%ff", "%2e%2e%2f%2e%2e", "%2F", "%25", "%zz", "%", "..", "."]).to_owned(),
            1 => "%F0%9F%92%A9".repeat(self.below(200)),
            2 => "a".repeat(self.below(4000)),
            _ => {
                let text = self.text();
                text.bytes().take(2000).map(|byte| format!("%{byte:02x}")).collect()
            }
        }
    }
}

/// One request: path with its query, body.
fn request(dice: &mut Dice, description: &Description, operation: &Operation) -> (String, String) {
    let mut path = String::new();
    for part in operation.path.split('/').skip(1) {
        path.push('/');
        if part.starts_with('{') {
            let value = if dice.once_in(2) { dice.of(PLAIN).replace([' ', '/', '*', '@'], "") } else { dice.in_path() };
            path.push_str(&value);
        } else {
            path.push_str(part);
        }
    }
    let mut separator = '?';
    for parameter in operation.body["parameters"].as_array().into_iter().flatten().filter(|one| one["in"] == "query") {
        if dice.once_in(2) {
            let value = dice.value(description, &parameter["schema"], 0);
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let text: String = text.bytes().take(3000).map(|byte| format!("%{byte:02x}")).collect();
            path.push_str(&format!("{separator}{}={text}", parameter["name"].as_str().unwrap()));
            separator = '&';
        }
    }
    let schema = &operation.body["requestBody"]["content"]["application/json"]["schema"];
    let body = if schema.is_null() && !dice.once_in(10) { String::new() } else { dice.body(description, schema) };
    (path, body)
}

fn is_fine(status: u16, body: &[u8]) -> bool {
    if status < 500 && body.starts_with(b"<!DOCTYPE html>") || status == 302 {
        return true; // for browsers that come back from a login
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    match status {
        503 => ["not_configured", "busy", "panicked"]
            .iter()
            .any(|code| body["code"] == *code || body["error"]["code"] == *code),
        501 => body["code"].is_string(),
        400.. => status < 500 && (body["code"].is_string() || body["error"].is_object()),
        _ => true,
    }
}

#[test]
fn nothing_that_is_sent_does_harm() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seed, count) = (number("HOLT_FUZZ_SEED", SEED), number("HOLT_FUZZ_COUNT", COUNT));
    eprintln!("HOLT_FUZZ_SEED={seed} HOLT_FUZZ_COUNT={count}");
    let dir = tempfile::tempdir().unwrap();
    let config = format!("[notify.log]\ntype = \"console\"\n[otel]\nenabled = true\n{}", table("scripted", &[]));
    let hub = Builder::new(dir.path()).config(&config).start();
    let scopes: Vec<&str> = holt::auth::scope::VALID_SCOPES.to_vec();
    let admin = hub.admin();
    let mut client = admin.new_key("fuzz", &scopes);
    let description = Description(client.get("/api/v1/openapi.json").json());
    let all = description.operations().into_iter().filter(|operation| !LEFT_OUT.contains(&operation.path.as_str()));
    let (late, early): (Vec<Operation>, Vec<Operation>) = all.partition(|operation| operation.path.starts_with(LATE));
    let mut dice = Dice(seed);
    let mut wrong = Vec::new();
    let mut statuses = std::collections::BTreeMap::new();
    for turn in 0..count + N_LATE {
        let operations = if turn < count || late.is_empty() { &early } else { &late };
        let operation = &operations[dice.below(operations.len())];
        let (path, body) = request(&mut dice, &description, operation);
        let answer = client.send(&operation.method, &path, &body);
        *statuses.entry(answer.status).or_insert(0) += 1;
        if !is_fine(answer.status, &answer.body) {
            let short = |text: &str| text.chars().take(300).collect::<String>();
            wrong.push(format!(
                "{turn}: {} {} {} -> {} {}",
                operation.method,
                short(&path),
                short(&body),
                answer.status,
                short(&answer.text())
            ));
        }
        // It may have stopped everything, or taken its own key away.
        if operation.path == "/api/v1/panic" {
            let _ = client.post("/api/v1/resume", "");
        }
        if answer.status == 401 && client.get("/api/v1/keys").status == 401 {
            client = another(&dir, &scopes, &client);
        }
    }
    assert!(wrong.is_empty(), "{} of {count}, seed {seed}:\n{}", wrong.len(), wrong.join("\n"));
    // It was worth it: much got through, much was refused.
    assert!(statuses.get(&200).is_some_and(|n| *n > count / 20), "{statuses:?}");
    assert!(statuses.get(&400).is_some_and(|n| *n > count / 20), "{statuses:?}");
    assert_eq!(client.get("/api/v1/health?ready=true").status, 200);
    for trouble in ["panicked at", "internal error", "dropped without an answer"] {
        assert!(!hub.log_contains(trouble), "{trouble}, seed {seed}:\n{}", hub.log_tail());
    }
    // What was stored is what a start accepts.
    let address = hub.address.clone();
    drop(hub);
    let again = Builder::new(dir.path()).start();
    assert_eq!(client.at(&again.address).get("/api/v1/keys").status, 200, "after {address}");
}

fn another(dir: &tempfile::TempDir, scopes: &[&str], client: &Client) -> Client {
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_holt"))
        .args(["keys", "create", "again", "--scopes", &scopes.join(","), "--data-dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&made.stdout).into_owned();
    let start = printed.find("dk_").expect("a key");
    let key: String = printed[start..].chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
    Client::new(&client.address).with_key(&key)
}
