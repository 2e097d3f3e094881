//! The first key and the first password: who may, once, and never again.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::support::hub::Builder;
use crate::support::{Answer, Client, Hub};

const ACCOUNT: &str = "/api/v1/setup/account";

fn account(client: &Client, pin: &str, password: &str) -> Answer {
    client.post(ACCOUNT, &json!({"pin": pin, "password": password}).to_string())
}

#[track_caller]
fn refused(answer: &Answer, status: u16, error: &str) {
    assert_eq!((answer.status, answer.json()["error"].as_str().unwrap()), (status, error), "{}", answer.text());
    assert!(answer.json()["code"].is_string());
}

fn wrong(pin: &str) -> &'static str {
    if pin == "000000" { "000001" } else { "000000" }
}

#[test]
fn the_pin_sets_the_password_which_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let builder = || Builder::new(dir.path());
    let hub = builder().config("# mine\n[api]\nlogin_rate_limit = 100").start();
    let (client, pin) = (hub.client(), hub.pin.clone().unwrap());
    assert_eq!(client.get("/api/v1/setup").json(), json!({"setup_required": true, "account_setup_available": true}));
    assert_eq!(client.get("/auth/config").json(), json!({"password_enabled": false, "oidc_enabled": false}));
    refused(&client.post("/auth/login", r#"{"password":"x"}"#), 404, "password login not configured");
    refused(&client.post(ACCOUNT, "{"), 400, "invalid JSON body");
    refused(&account(&client, " ", "long enough"), 400, "pin is required");
    refused(&account(&client, &pin, "1234567"), 400, "password must be at least 8 characters");
    refused(&account(&client, &pin, &"x".repeat(73)), 400, "password must be at most 72 bytes");
    refused(&account(&client, wrong(&pin), "long enough"), 401, "invalid PIN");
    // A value elsewhere in the file that cannot be used is named.
    let path = dir.path().join("holt.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}\n[notify.x]\ntype = \"pager\"\n")).unwrap();
    let answer = account(&client, &pin, "pass wörd");
    assert!(answer.status == 400 && answer.text().contains("notify.x.type: must be one of"), "{}", answer.text());
    std::fs::write(&path, text).unwrap();
    let answer = account(&client, &format!(" {pin} "), "pass wörd");
    assert_eq!((answer.status, answer.json()), (200, json!({"authenticated": true, "email": "admin"})));
    let me = client.with_cookie_of(&answer);
    assert_eq!(me.get("/auth/session").json(), json!({"authenticated": true, "email": "admin"}));
    assert_eq!(client.get("/api/v1/setup").json(), json!({"setup_required": false, "account_setup_available": false}));
    refused(&account(&client, &pin, "long enough"), 409, "account setup is no longer available");
    refused(
        &client.post("/api/v1/setup", "{}"),
        409,
        "setup already complete \u{2014} manage keys on the API Keys page",
    );
    // Login works at once, and the file holds the hash, its comments and nothing readable by others.
    assert_eq!(client.post("/auth/login", r#"{"password":"pass wörd"}"#).status, 200);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("# mine") && text.contains("$2b$13$") && !text.contains("pass w"), "{text}");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    drop(hub);
    let hub = builder().start();
    assert_eq!(hub.pin, None);
    let me = Client::new(&hub.address).with("Cookie", &me.headers()[0].1);
    assert_eq!(me.get("/auth/session").json()["authenticated"], true, "the session lives on");
    assert_eq!(hub.client().get("/auth/config").json()["password_enabled"], true);
    refused(&hub.client().post("/auth/login", r#"{"password":"pass word"}"#), 401, "invalid password");
    assert_eq!(hub.client().post("/auth/login", r#"{"password":"pass wörd"}"#).status, 200);
    refused(
        &hub.client().post("/api/v1/setup", "{}"),
        409,
        "setup already complete \u{2014} manage keys on the API Keys page",
    );
}

#[test]
fn ten_wrong_pins_kill_the_pin() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).config("[api]\nlogin_rate_limit = 0").start();
    let (client, pin) = (hub.client(), hub.pin.clone().unwrap());
    for _ in 0..10 {
        refused(&account(&client, wrong(&pin), "long enough"), 401, "invalid PIN");
    }
    refused(&account(&client, &pin, "long enough"), 409, "account setup is no longer available");
    assert_eq!(client.get("/api/v1/setup").json(), json!({"setup_required": true, "account_setup_available": false}));
    // Remote setup of a key is closed with it; the machine itself needs no PIN.
    let remote = client.with("X-Forwarded-For", "192.0.2.1");
    assert_eq!(remote.post("/api/v1/setup", &json!({"pin": pin}).to_string()).status, 403);
    assert_eq!(client.post("/api/v1/setup", "{}").status, 201);
}

#[test]
fn guesses_are_throttled_whatever_they_claim_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let (client, pin) = (hub.client(), hub.pin.clone().unwrap());
    for number in 0..5 {
        let claimed = client.with("X-Forwarded-For", &format!("192.0.2.{number}")).with("X-Real-IP", "192.0.2.9");
        assert_eq!(account(&claimed, wrong(&pin), "long enough").status, 401);
    }
    for claimed in ["192.0.2.77", "127.0.0.1, 192.0.2.78", ""] {
        let answer = account(&client.with("X-Forwarded-For", claimed), &pin, "long enough");
        refused(&answer, 429, "too many attempts");
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=900).contains(&wait), "{wait}");
    }
    // The login and the first key share the count.
    let remote = client.with("Via", "1.1 proxy");
    refused(&remote.post("/api/v1/setup", &json!({"pin": pin}).to_string()), 429, "too many attempts");
}

#[test]
fn of_many_setups_exactly_one_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let client = hub.client();
    let barrier = std::sync::Barrier::new(32);
    let found: Vec<u16> = std::thread::scope(|scope| {
        let one = || {
            barrier.wait();
            client.post("/api/v1/setup", "{}").status
        };
        let threads: Vec<_> = (0..32).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(found.iter().filter(|status| **status == 201).count(), 1, "{found:?}");
    assert_eq!(found.iter().filter(|status| **status == 409).count(), 31, "{found:?}");
}

#[test]
fn of_many_passwords_exactly_one_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).config("[api]\nlogin_rate_limit = 0").start();
    let (client, pin) = (hub.client(), hub.pin.clone().unwrap());
    let barrier = std::sync::Barrier::new(6);
    let one = |number: usize| {
        barrier.wait();
        let password = format!("password {number}");
        (account(&client, &pin, &password).status, password)
    };
    let one = &one;
    let answers: Vec<(u16, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|number| scope.spawn(move || one(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let taken: Vec<&String> =
        answers.iter().filter(|(status, _)| *status == 200).map(|(_, password)| password).collect();
    assert_eq!(taken.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|(status, _)| [200, 409].contains(status)), "{answers:?}");
    assert_eq!(client.post("/auth/login", &json!({"password": taken[0]}).to_string()).status, 200);
}

#[test]
fn whoever_may_come_from_elsewhere_needs_the_pin() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).config("[api]\nlogin_rate_limit = 100").start();
    let (client, pin) = (hub.client(), hub.pin.clone().unwrap());
    for (name, value) in [
        ("X-Forwarded-For", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("X-Forwarded-Host", "localhost"),
        ("Forwarded", "for=127.0.0.1"),
        ("Via", "1.1 proxy"),
        ("X-Real-IP", "127.0.0.1"),
        ("Host", "192.168.1.5:8080"),
    ] {
        let answer = client.with(name, value).post("/api/v1/setup", "{}");
        assert_eq!((answer.status, answer.json()["code"].as_str().unwrap()), (403, "pin_required"), "{name}");
    }
    let evil = client.with("Origin", "http://evil.example");
    assert_eq!(evil.post("/api/v1/setup", "{}").json()["code"], "origin_not_allowed");
    assert_eq!(evil.post(ACCOUNT, &json!({"pin": pin, "password": "long enough"}).to_string()).status, 403);
    let remote = client.with("X-Forwarded-For", "192.0.2.1");
    assert_eq!(remote.post("/api/v1/setup", &json!({"pin": wrong(&pin)}).to_string()).status, 403);
    refused(&remote.post("/api/v1/setup", r#"{"scopes":["nonsense"]}"#), 400, "unknown scope \"nonsense\"");
    let answer = remote.post("/api/v1/setup", &json!({"pin": pin, "name": " "}).to_string());
    assert_eq!(
        (answer.status, &answer.json()["name"], &answer.json()["scopes"]),
        (201, &json!("admin"), &json!(["admin"]))
    );
    drop(hub);
    for config in ["trusted_proxies = ['10.0.0.1']", "external_url = 'https://holt.example'"] {
        let dir = tempfile::tempdir().unwrap();
        let hub = Builder::new(dir.path()).config(&format!("[api]\n{config}")).start();
        assert_eq!(hub.client().post("/api/v1/setup", "{}").status, 403, "{config}");
    }
}

#[test]
fn setup_stays_closed_when_the_last_key_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let admin = hub.admin();
    let id = admin.get("/api/v1/keys").json()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(admin.delete(&format!("/api/v1/keys/{id}")).status, 204);
    assert_eq!(admin.get("/api/v1/keys").status, 401);
    let closed = |hub: &Hub| {
        let status = hub.client().get("/api/v1/setup").json();
        assert_eq!(status, json!({"setup_required": false, "account_setup_available": false}));
        assert_eq!(hub.client().post("/api/v1/setup", "{}").status, 409);
        assert_eq!(account(&hub.client(), "000000", "long enough").status, 409);
    };
    closed(&hub);
    drop(hub);
    let hub = Hub::start(dir.path());
    assert_eq!(hub.pin, None);
    closed(&hub);
}

#[test]
fn a_hub_that_others_can_reach_is_locked_down_until_it_is_set_up() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).listen("0.0.0.0:0").start();
    let client = Client::new(&format!("127.0.0.1:{}", hub.address.rsplit_once(':').unwrap().1));
    for (method, path, status) in [
        ("GET", "/api/v1/health", 200),
        ("GET", "/healthz", 200),
        ("GET", "/", 200),
        ("GET", "/auth/config", 200),
        ("GET", "/auth/session", 200),
        ("GET", "/api/v1/setup", 200),
        ("POST", "/auth/login", 401),
        ("POST", "/auth/logout", 401),
        ("GET", "/api/v1/agents", 401),
        ("GET", "/api/v1/nope", 401),
        ("GET", "/metrics", 401),
    ] {
        assert_eq!(client.send(method, path, "").status, status, "{method} {path}");
    }
    let refusal = client.with_key("dk_wrong").get("/api/v1/agents");
    assert!(refusal.status == 401 && refusal.text().contains("nobody has set this hub up yet"), "{}", refusal.text());
    // Who may read the data directory has a key before that, and it opens nothing for others.
    let mut chat = std::process::Command::new(env!("CARGO_BIN_EXE_holt"));
    chat.args(["chat", "hello", "--data-dir"]).arg(dir.path()).env_clear().env("HOME", dir.path());
    let said = chat.stdin(std::process::Stdio::null()).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let key = std::fs::read_to_string(dir.path().join("cli-key")).unwrap();
    assert_eq!(client.with_key(key.trim()).get("/api/v1/keys").status, 200);
    assert_eq!(client.get("/api/v1/agents").status, 401);
    let body = serde_json::json!({"pin": hub.pin.clone().unwrap(), "scopes": ["admin"]}).to_string();
    assert_eq!(client.post("/api/v1/setup", &body).status, 201);
    assert_eq!(client.get("/api/v1/nope").status, 404);
}
