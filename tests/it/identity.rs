//! Who may call what: every route with every kind of credential, keys, rates, headers, paths.

use holt::api::routes::{Guard, ROUTES};
use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::{Answer, Client, Hub, Socket, wait_until};

const CSP: &str = "default-src 'none'; frame-ancestors 'none'";

#[track_caller]
fn expect(answer: &Answer, status: u16, error: &str, code: &str, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    assert_eq!(answer.json(), json!({"error": error, "code": code}), "{what}");
    assert!(answer.text().ends_with("}\n"), "{what}");
    assert_eq!(answer.header("content-type"), "application/json", "{what}");
}

#[track_caller]
fn unauthorized(answer: &Answer, why: &str, what: &str) {
    expect(answer, 401, "unauthorized", "unauthorized", what);
    assert_eq!(answer.header("x-auth-failure"), why, "{what}");
}

#[test]
fn every_route_asks_for_its_scope_and_knows_its_methods() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let (admin, nobody) = (hub.admin(), hub.client());
    let powerless = admin.new_key("powerless", &["health"]);
    let revoked = admin.new_key("revoked", &["admin", "chat", "sessions:read", "sessions:write"]);
    let keys = admin.get("/api/v1/keys").json();
    let id = keys.as_array().unwrap().iter().find(|key| key["name"] == "revoked").unwrap()["id"].as_str().unwrap();
    assert_eq!(admin.delete(&format!("/api/v1/keys/{id}")).status, 204);
    let mut guarded = 0;
    for route in ROUTES {
        let (method, path) = (route.method, route.pattern.replace("{id}", "x1").replace("{name}", "x1"));
        let what = format!("{method} {path}");
        let answer = nobody.send("BREW", &path, "");
        if path == "/api/v1/agent/llm/chat" {
            assert_eq!(answer.json()["error"]["code"], "method_not_allowed", "machines have errors of their own shape");
        } else {
            expect(&answer, 405, "method not allowed", "method_not_allowed", &what);
        }
        let allow: Vec<&str> = answer.header("allow").split(", ").collect();
        assert!(allow.contains(&method) && allow.is_sorted(), "{what}: {allow:?}");
        assert_eq!(allow.contains(&"HEAD"), allow.contains(&"GET"), "{what}: {allow:?}");
        let (Guard::Scope(scopes) | Guard::Socket(scopes)) = route.guard else { continue };
        guarded += 1;
        unauthorized(&nobody.send(method, &path, ""), "credential-missing", &what);
        unauthorized(&nobody.with_key("dk_garbage").send(method, &path, ""), "credential-invalid", &what);
        unauthorized(&nobody.with("Cookie", "dk_session=garbage").send(method, &path, ""), "credential-invalid", &what);
        unauthorized(&nobody.with("Authorization", "bearer x").send(method, &path, ""), "credential-missing", &what);
        unauthorized(&nobody.with("Authorization", "Bearer ").send(method, &path, ""), "credential-missing", &what);
        unauthorized(&revoked.send(method, &path, ""), "credential-invalid", &what);
        let answer = powerless.send(method, &path, "");
        if scopes.contains(&holt::auth::ANY_SCOPE) {
            assert!(answer.status != 401 && answer.status != 403, "{what}: {}", answer.text());
            continue;
        }
        expect(&answer, 403, "insufficient scope", "insufficient_scope", &what);
        // Where there is a choice, `chat` alone opens one's own conversations only, and `x1` is nobody's.
        for scope in scopes.iter().filter(|scope| scopes.len() == 1 || **scope != "chat") {
            let answer = admin.new_key("entitled", &[scope]).send(method, &path, "");
            assert!(answer.status != 401 && !answer.text().contains("insufficient_scope"), "{what}: {}", answer.text());
        }
    }
    assert!(guarded >= 18, "{guarded}");
}

#[test]
fn unknown_paths_are_errors_below_the_api_and_the_page_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let client = hub.client();
    for path in ["/api/v1/nothing", "/api/v1/health/", "/api/", "/auth/nothing", "/auth/", "/api/v1/sessions/%ff"] {
        for method in ["GET", "POST", "DELETE"] {
            expect(&client.send(method, path, ""), 404, "no such path", "not_found", path);
        }
    }
    for path in ["/", "/chat", "/api", "/auth", "/some/where?x=1", "/healthz/"] {
        let answer = client.get(path);
        assert_eq!((answer.status, answer.header("content-type")), (200, "text/html; charset=utf-8"), "{path}");
    }
    for (path, to) in [
        ("/api//v1/health", "/api/v1/health"),
        ("/api/v1/./health", "/api/v1/health"),
        ("/x/../auth/config", "/auth/config"),
        ("//evil.example/", "/evil.example/"),
    ] {
        let answer = client.get(path);
        assert_eq!((answer.status, answer.header("location")), (301, to), "{path}");
    }
}

#[test]
fn security_headers_are_on_every_answer() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let client = hub.client();
    for (method, path) in [
        ("GET", "/api/v1/health"),
        ("GET", "/api/v1/keys"),
        ("POST", "/auth/login"),
        ("GET", "/auth/session"),
        ("GET", "/nothing"),
        ("GET", "/api/v1/nothing"),
        ("DELETE", "/api/v1/health"),
        ("GET", "/api//v1"),
    ] {
        let answer = client.send(method, path, "");
        let api = path.starts_with("/api/") || path.starts_with("/auth/");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(answer.header("content-security-policy") == CSP, api, "{path}");
        assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
        assert_eq!(answer.header("cache-control") == "no-store", api, "{path}");
        assert!(
            !answer.headers.iter().any(|(name, _)| name.starts_with("access-control-") || name == "vary" && api),
            "{path}"
        );
        assert!(answer.header("date").ends_with(" GMT"), "{path}");
    }
}

fn find<'a>(keys: &'a Value, name: &str) -> &'a Value {
    keys.as_array().unwrap().iter().find(|key| key["name"] == name).unwrap()
}

#[test]
fn keys_are_made_listed_rotated_revoked_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let admin = hub.admin();
    let answer = admin.post("/api/v1/keys", r#"{"NAME":" phone ","scopes":["chat","chat"],"other":1}"#);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let made = answer.json();
    let names: Vec<&String> = made.as_object().unwrap().keys().collect();
    assert_eq!(names, ["created_at", "id", "key", "name", "scopes"]);
    assert_eq!((&made["name"], &made["scopes"]), (&json!(" phone "), &json!(["chat", "chat"])));
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(id.len() == 16 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    assert!(key.starts_with("dk_") && key.len() == 46, "{key}");
    assert!(made["created_at"].as_str().unwrap().ends_with('Z'));
    // Newest first, without the plaintext; `last_used_at` once it was used.
    let keys = admin.get("/api/v1/keys").json();
    assert_eq!((keys[0]["name"].clone(), keys[1]["name"].clone()), (json!(" phone "), json!("admin")));
    assert_eq!(
        keys[0],
        json!({"id": id, "name": " phone ", "scopes": ["chat", "chat"], "created_at": made["created_at"], "revoked": false})
    );
    assert!(keys[1]["last_used_at"].as_str().unwrap().ends_with('Z'));
    let phone = hub.client().with_key(key);
    assert_eq!(phone.get("/api/v1/keys").status, 403);
    wait_until("the use shows up", || {
        find(&admin.get("/api/v1/keys").json(), " phone ")["last_used_at"].is_string().then_some(())
    });
    // The plaintext is nowhere in the data directory, the hash is in the database.
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        assert!(!bytes.windows(key.len()).any(|window| window == key.as_bytes()), "{}", path.display());
    }
    let answer = admin.post(&format!("/api/v1/keys/{id}/rotate"), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let rotated = answer.json();
    assert!(rotated["id"] != made["id"] && rotated["key"] != made["key"] && rotated["name"] == made["name"]);
    assert_eq!(phone.get("/api/v1/sessions/x").status, 401);
    let new_id = rotated["id"].as_str().unwrap();
    let gone = ("key not found or already revoked", "not_found");
    for path in [format!("/api/v1/keys/{id}"), "/api/v1/keys/nope".to_owned()] {
        expect(&admin.delete(&path), 404, gone.0, gone.1, &path);
        expect(&admin.post(&format!("{path}/rotate"), ""), 404, gone.0, gone.1, &path);
    }
    let active = format!("/api/v1/keys/{new_id}/permanent");
    expect(&admin.delete(&active), 404, "key not found or still active", "not_found", &active);
    let answer = admin.delete(&format!("/api/v1/keys/{new_id}"));
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(find(&admin.get("/api/v1/keys").json(), " phone ")["revoked"], true);
    assert_eq!(admin.delete(&active).status, 204);
    assert_eq!(admin.delete(&active).status, 404);
    assert_eq!(admin.get("/api/v1/keys").json().as_array().unwrap().len(), 2);
}

#[test]
fn bad_keys_are_refused_with_the_contracts_texts() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let admin = hub.admin();
    let long = json!({"name": "x".repeat(256), "scopes": ["chat"]}).to_string();
    for (body, error) in [
        ("", "invalid JSON body"),
        ("{", "invalid JSON body"),
        ("[]", "invalid JSON body"),
        ("{} x", "invalid JSON body"),
        (r#"{"name":7}"#, "invalid JSON body"),
        (r#"{"name":"a","scopes":"chat"}"#, "invalid JSON body"),
        ("null", "name is required"),
        ("{}", "name is required"),
        (r#"{"name":" \t","scopes":["chat"]}"#, "name is required"),
        (r#"{"name":"a"}"#, "at least one scope is required"),
        (r#"{"name":"a","scopes":[]}"#, "at least one scope is required"),
        (r#"{"name":"a","scopes":["chat","Chat"]}"#, "unknown scope \"Chat\""),
        (r#"{"name":"a","scopes":["a\"b\\c\n\u0007\u2028é"]}"#, r#"unknown scope "a\"b\\c\n\x07\u2028é""#),
        (&long, "name exceeds maximum length of 255 characters"),
    ] {
        expect(&admin.post("/api/v1/keys", body), 400, error, "bad_request", body);
    }
    let longest = json!({"name": "x".repeat(255), "scopes": ["chat"]}).to_string();
    assert_eq!(admin.post("/api/v1/keys", &longest).status, 201);
}

#[test]
fn configured_keys_work_beside_stored_ones() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[[api.keys]]\nname = 'file'\nkey = 'plain-secret'\nscopes = ['admin', 'chat']\n\
                  [[api.keys]]\nname = 'small'\nkey = 'other-secret'\nscopes = ['chat']";
    let hub = Builder::new(dir.path()).config(config).start();
    assert_eq!(hub.client().get("/api/v1/setup").json()["setup_required"], false);
    let file = hub.client().with_key("plain-secret");
    assert_eq!(file.get("/api/v1/keys").json(), json!([]));
    assert_eq!(hub.client().with_key("other-secret").get("/api/v1/keys").status, 403);
    assert_eq!(hub.client().with_key("plain-secre").get("/api/v1/keys").status, 401);
    let stored = file.new_key("stored", &["admin"]);
    assert_eq!(stored.get("/api/v1/keys").json().as_array().unwrap().len(), 1);
    let mut socket = Socket::open(&file);
    socket.send(&json!({"type": "ping"}));
    assert_eq!(socket.next()["type"], "pong");
}

#[test]
fn rates_are_per_name_and_slow_ones_still_let_through() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).config("[api]\nrate_limit = 0.01").start();
    let admin = hub.admin();
    let other = admin.new_key("other", &["admin"]);
    // The token of `admin` went into that key; the next one comes after 100 seconds.
    let answer = admin.get("/api/v1/keys");
    expect(&answer, 429, "rate limit exceeded", "rate_limited", "admin");
    assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert_eq!(other.get("/api/v1/keys").status, 200);
    assert_eq!(other.get("/api/v1/keys").status, 429);
    // Open routes and sockets are not limited, and a refusal for want of a credential is no use of it.
    for _ in 0..5 {
        assert_eq!(other.get("/api/v1/health").status, 200);
        assert_eq!(hub.client().get("/api/v1/keys").status, 401);
    }
    drop(hub);
    let hub = Builder::new(dir.path()).config("[api]\nrate_limit = 3").start();
    let other = Client::new(&hub.address).with_key(&other.key());
    let found: Vec<u16> = (0..20).map(|_| other.get("/api/v1/keys").status).collect();
    assert_eq!(found[..3], [200, 200, 200]);
    assert!(found.contains(&429), "{found:?}");
    wait_until("tokens come back", || (other.get("/api/v1/keys").status == 200).then_some(()));
}
