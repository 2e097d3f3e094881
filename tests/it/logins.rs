//! Logins in cookies: made, listed, revoked, expired, stolen; and requests from other sites and hosts.

use rusqlite::params;
use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::{Answer, Client, Hub, Model, Socket, wait_until};

const PASSWORD: &str = "correct horse";
const PAST: &str = "2020-01-01T00:00:00Z";

/// A hub with a password, cheap to check.
fn start(dir: &std::path::Path, config: &str) -> Hub {
    let hash = bcrypt::hash(PASSWORD, 4).unwrap();
    Builder::new(dir).config(&format!("[api]\n{config}\n[api.auth]\npassword_hash = '{hash}'")).start()
}

fn log_in(client: &Client) -> Answer {
    client.post("/auth/login", &json!({"password": PASSWORD}).to_string())
}

fn session(client: &Client) -> Value {
    client.get("/auth/session").json()
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.json()["code"].as_str().unwrap()), (status, code), "{}", answer.text());
}

#[track_caller]
fn closed_for_revocation(socket: &mut Socket) {
    assert_eq!(socket.close_code(), Some((1008, "credential revoked".to_owned())));
}

#[test]
fn a_login_is_a_tracked_cookie() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), "login_rate_limit = 0");
    let client = hub.client().with("User-Agent", "tester");
    assert_eq!(client.get("/auth/config").json(), json!({"password_enabled": true, "oidc_enabled": false}));
    assert_eq!(session(&client), json!({"authenticated": false}));
    let answer = client.post("/auth/login", r#"{"password":"no"}"#);
    assert_eq!(
        (answer.status, answer.json()["error"].as_str().unwrap(), answer.header("set-cookie")),
        (401, "invalid password", "")
    );
    for body in ["", "{", "[]", r#"{"password":7}"#] {
        assert_eq!(client.post("/auth/login", body).json()["error"], "invalid request body");
    }
    let answer = log_in(&client);
    assert_eq!((answer.status, answer.json()), (200, json!({"authenticated": true, "email": "admin"})));
    let cookie = answer.header("set-cookie").to_owned();
    assert!(cookie.ends_with("; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax"), "{cookie}");
    let me = client.with_cookie_of(&answer);
    assert_eq!(session(&me), json!({"authenticated": true, "email": "admin"}));
    let list = me.get("/api/v1/auth/sessions").json();
    let login = &list[0];
    assert_eq!(list.as_array().unwrap().len(), 1);
    let keys: Vec<&String> = login.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["created_at", "email", "expires_at", "id", "ip", "last_seen_at", "user_agent"]);
    assert_eq!(
        (&login["email"], &login["user_agent"], &login["ip"]),
        (&json!("admin"), &json!("tester"), &json!("127.0.0.1"))
    );
    assert_eq!((login["id"].as_str().unwrap().len(), login["created_at"].as_str().unwrap().len()), (64, PAST.len()));
    let status = me.get("/api/v1/auth/status").json();
    assert_eq!(
        status,
        json!({"password_enabled": true, "oidc_enabled": false, "sessions_trackable": true, "active_session_count": 1})
    );
    // A login may do everything but `health`; it survives a restart.
    let key = me.new_key("mine", &["admin"]);
    assert_eq!(key.get("/api/v1/auth/sessions").json(), json!([]), "a key has no logins");
    assert_eq!(key.delete("/api/v1/auth/sessions").json(), json!({"revoked": 0}));
    assert!(me.get("/api/v1/sessions").json().is_array());
    drop(hub);
    let hub = Hub::start(dir.path());
    let me = Client::new(&hub.address).with_cookie_of(&answer);
    assert_eq!(session(&me)["authenticated"], true);
}

#[test]
fn tampered_foreign_and_self_made_cookies_are_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), "");
    let answer = log_in(&hub.client());
    let cookie = answer.header("set-cookie").split(';').next().unwrap().to_owned();
    assert_eq!(session(&hub.client().with("Cookie", &format!("a=b; {cookie}; c=d")))["authenticated"], true);
    let value = cookie.trim_start_matches("dk_session=").to_owned();
    for at in [0, 5, 20, value.len() / 2, value.len() - 6] {
        let mut bytes = value.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let forged = format!("dk_session={}", String::from_utf8(bytes).unwrap());
        assert_eq!(session(&hub.client().with("Cookie", &forged)), json!({"authenticated": false}), "{at}");
    }
    for forged in ["dk_session=", "dk_session=AAAA", "dk_session=\"\"", "dk_session", "DK_SESSION=x"] {
        assert_eq!(session(&hub.client().with("Cookie", forged)), json!({"authenticated": false}), "{forged}");
    }
    assert_eq!(
        session(&hub.client().with("Cookie", &format!("dk_session={}", &value[..value.len() - 8])))["authenticated"],
        false
    );
    // A cookie of another hub, with another secret.
    let other_dir = tempfile::tempdir().unwrap();
    let other = start(other_dir.path(), "");
    assert_eq!(session(&other.client().with("Cookie", &cookie)), json!({"authenticated": false}));
}

#[test]
fn revoked_logins_end_with_their_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), "login_rate_limit = 0");
    let (me, other) =
        (hub.client().with_cookie_of(&log_in(&hub.client())), hub.client().with_cookie_of(&log_in(&hub.client())));
    let list = me.get("/api/v1/auth/sessions").json();
    assert_eq!(list.as_array().unwrap().len(), 2);
    let mut sockets = [Socket::open(&me), Socket::open(&other)];
    let mut ids = list.as_array().unwrap().iter().map(|login| login["id"].as_str().unwrap().to_owned());
    let (first, second) = (ids.next().unwrap(), ids.next().unwrap());
    // The list says most recently seen first; which is which shows in who is out.
    assert_eq!(me.delete(&format!("/api/v1/auth/sessions/{first}")).status, 204);
    let (gone, left, gone_at) =
        if session(&me)["authenticated"] == false { (&me, &other, 0) } else { (&other, &me, 1) };
    refused(&gone.get("/api/v1/keys"), 401, "unauthorized");
    assert_eq!(gone.get("/api/v1/keys").header("x-auth-failure"), "credential-invalid");
    closed_for_revocation(&mut sockets[gone_at]);
    assert_eq!(left.delete("/api/v1/auth/sessions/unknown").status, 204);
    let left_socket = &mut sockets[1 - gone_at];
    left_socket.send(&json!({"type": "ping"}));
    assert_eq!(left_socket.next()["type"], "pong");
    assert_eq!(left.get("/api/v1/auth/sessions").json()[0]["id"], json!(second));
    assert_eq!(left.delete("/api/v1/auth/sessions").json(), json!({"revoked": 1}));
    assert_eq!(session(left), json!({"authenticated": false}));
    closed_for_revocation(left_socket);
}

#[test]
fn logging_out_forgets_the_login() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), "login_rate_limit = 0");
    let me = hub.client().with_cookie_of(&log_in(&hub.client()));
    let mut socket = Socket::open(&me);
    let answer = me.post("/auth/logout", "");
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"ok":true}"#));
    assert_eq!(answer.header("set-cookie"), "dk_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
    assert_eq!(session(&me), json!({"authenticated": false}));
    let rows: i64 = hub.database().query_row("SELECT count(*) FROM sessions", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 0);
    closed_for_revocation(&mut socket);
    assert_eq!(hub.client().post("/auth/logout", "").text(), r#"{"ok":true}"#);
    // Logins expire, also when the hub did not write that itself.
    let me = hub.client().with_cookie_of(&log_in(&hub.client()));
    let mut socket = Socket::open(&me);
    assert_eq!(me.get("/api/v1/keys").status, 200);
    assert_eq!(hub.database().execute("UPDATE sessions SET expires_at = ?1", [PAST]).unwrap(), 1);
    assert_eq!(session(&me), json!({"authenticated": false}));
    refused(&me.get("/api/v1/keys"), 401, "unauthorized");
    closed_for_revocation(&mut socket);
}

fn change(client: &Client, current: &str, new: &str) -> Answer {
    client.post("/api/v1/auth/password", &json!({"current_password": current, "new_password": new}).to_string())
}

#[test]
fn who_knows_the_password_changes_it_and_other_logins_end() {
    const NEW: &str = "battery staple";
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), "login_rate_limit = 0");
    let log_in_with = |password: &str| hub.client().post("/auth/login", &json!({ "password": password }).to_string());
    let mut cookies = (0..2).map(|_| hub.client().with_cookie_of(&log_in(&hub.client())));
    let (me, other) = (cookies.next().unwrap(), cookies.next().unwrap());
    let mut sockets = [Socket::open(&me), Socket::open(&other)];
    let (admin, chat) = (me.new_key("root", &["admin"]), me.new_key("phone", &["chat"]));
    for client in [&me, &admin] {
        refused(&change(client, "no", NEW), 403, "invalid_password");
        refused(&change(client, "", NEW), 403, "invalid_password");
        for new in ["", "1234567", &"x".repeat(73), &"ü".repeat(37)] {
            let answer = change(client, PASSWORD, new);
            refused(&answer, 400, "bad_request");
            assert!(answer.json()["error"].as_str().unwrap().starts_with("new_password: "), "{}", answer.text());
        }
    }
    for body in ["{", "[]", r#"{"current_password":7}"#] {
        refused(&me.post("/api/v1/auth/password", body), 400, "bad_request");
    }
    refused(&change(&chat, PASSWORD, NEW), 403, "insufficient_scope");
    refused(&change(&me.with("Origin", "http://evil.example"), PASSWORD, NEW), 403, "origin_not_allowed");
    assert_eq!((session(&other)["authenticated"].clone(), log_in_with(PASSWORD).status), (json!(true), 200));

    let own = me.with("Origin", &format!("http://{}", hub.address));
    assert_eq!(change(&own, PASSWORD, NEW).json(), json!({"status": "updated", "revoked": 2}));
    refused(&other.get("/api/v1/keys"), 401, "unauthorized");
    closed_for_revocation(&mut sockets[1]);
    sockets[0].send(&json!({"type": "ping"}));
    assert_eq!((sockets[0].next()["type"].clone(), me.get("/api/v1/keys").status), (json!("pong"), 200));
    refused(&log_in_with(PASSWORD), 401, "invalid_password");
    assert_eq!(log_in_with(NEW).status, 200);
    refused(&change(&me, PASSWORD, "another one"), 403, "invalid_password");
    let told = me.get("/api/v1/audit?action=password.change").json();
    let told: Vec<String> = told["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| format!("{} {} {}", e["actor"], e["result"], e["detail"]))
        .collect();
    assert_eq!(told, [r#""user:admin" "ok" "2 other logins ended""#, r#""user:admin" "denied" "wrong password""#]);
    // A key changes it too, if whoever has it knows the password.
    assert_eq!(change(&admin, NEW, PASSWORD).json(), json!({"status": "updated", "revoked": 2}));
    closed_for_revocation(&mut sockets[0]);
    assert_eq!(session(&me)["authenticated"], false);
    let kept = std::fs::read_to_string(dir.path().join("holt.toml")).unwrap();
    assert!(!kept.contains(PASSWORD) && !hub.log_tail().contains(PASSWORD), "{kept}");
    drop(hub);
    let hub = Hub::start(dir.path());
    assert_eq!(log_in(&hub.client()).status, 200);
    refused(&hub.client().post("/auth/login", &json!({ "password": NEW }).to_string()), 401, "invalid_password");
}

#[test]
fn of_two_changes_at_once_one_counts() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), "login_rate_limit = 0");
    let me = hub.client().with_cookie_of(&log_in(&hub.client()));
    let mut changes: Vec<(u16, &str)> = std::thread::scope(|scope| {
        let changes = ["the first", "the other"].map(|new| (scope.spawn(|| change(&me, PASSWORD, new).status), new));
        changes.map(|(status, new)| (status.join().unwrap(), new)).into()
    });
    changes.sort_unstable();
    assert_eq!([changes[0].0, changes[1].0], [200, 403]);
    for (changed, new) in changes {
        let answer = hub.client().post("/auth/login", &json!({ "password": new }).to_string());
        assert_eq!(answer.status, if changed == 200 { 200 } else { 401 });
    }
}

#[test]
fn tries_at_the_password_are_counted_with_those_of_logins() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), "login_rate_limit = 3\nlogin_rate_window = '1h'");
    let me = hub.client().with_cookie_of(&log_in(&hub.client()));
    assert_eq!(change(&me, "no", "short").status, 400, "nothing was tried");
    for _ in 0..2 {
        refused(&change(&me, "no", "long enough"), 403, "invalid_password");
    }
    let answer = change(&me, PASSWORD, "long enough");
    refused(&answer, 429, "too_many_attempts");
    assert!((3500..=3600).contains(&answer.header("retry-after").parse::<u32>().unwrap()));
    assert_eq!(log_in(&hub.client()).status, 429);
    assert_eq!(me.get("/api/v1/keys").status, 200, "the login stays");
    // Where there is no password there is none to change.
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    assert_eq!(change(&hub.admin(), "no", "long enough").status, 404);
}

#[test]
fn revoked_keys_close_their_sockets_whoever_revoked_them() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), "");
    let admin = hub.client().with_cookie_of(&log_in(&hub.client()));
    let (phone, tablet) = (admin.new_key("phone", &["chat"]), admin.new_key("tablet", &["chat"]));
    let mut sockets = [Socket::open(&phone), Socket::open(&tablet), Socket::open(&admin)];
    let keys = admin.get("/api/v1/keys").json();
    let phone_id = keys.as_array().unwrap().iter().find(|key| key["name"] == "phone").unwrap()["id"].as_str().unwrap();
    assert_eq!(admin.delete(&format!("/api/v1/keys/{phone_id}")).status, 204);
    assert_eq!(phone.get("/api/v1/sessions/x").status, 401);
    closed_for_revocation(&mut sockets[0]);
    // Another process writes into the same file.
    assert_ne!(tablet.get("/api/v1/sessions/x").status, 401);
    let changed =
        hub.database().execute("UPDATE api_keys SET revoked_at = ?1 WHERE name = ?2", params![PAST, "tablet"]);
    assert_eq!(changed.unwrap(), 1);
    assert_eq!(tablet.get("/api/v1/sessions/x").status, 401);
    closed_for_revocation(&mut sockets[1]);
    sockets[2].send(&json!({"type": "ping"}));
    assert_eq!(sockets[2].next()["type"], "pong");
}

#[test]
fn logins_are_throttled_whatever_they_claim_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), "login_rate_limit = 3\nlogin_rate_window = '1h'");
    for number in 0..3 {
        let claimed = hub.client().with("X-Forwarded-For", &format!("192.0.2.{number}"));
        assert_eq!(log_in(&claimed).status, 200, "successful ones count as well");
    }
    for name in ["X-Forwarded-For", "X-Real-IP", "Forwarded"] {
        let answer = log_in(&hub.client().with(name, "192.0.2.77"));
        assert_eq!((answer.status, answer.json()["error"].as_str().unwrap()), (429, "too many login attempts"));
        assert!((3500..=3600).contains(&answer.header("retry-after").parse::<u32>().unwrap()));
    }
    drop(hub);
    // Behind a trusted proxy it is the client that counts.
    let hub = start(dir.path(), "login_rate_limit = 1\ntrusted_proxies = ['127.0.0.0/8']");
    let behind = |forwarded: &str| log_in(&hub.client().with("X-Forwarded-For", forwarded)).status;
    assert_eq!((behind("192.0.2.1"), behind("192.0.2.2")), (200, 200));
    assert_eq!((behind("192.0.2.1"), behind("192.0.2.99, 192.0.2.2")), (429, 429));
}

#[test]
fn other_sites_cannot_use_a_login() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path(), "login_rate_limit = 0\ncors_origins = ['https://app.example']");
    let me = hub.client().with_cookie_of(&log_in(&hub.client()));
    for origin in
        ["http://evil.example", "null", "https://app.example.evil.example", "http://app.example", "http://localhost:1"]
    {
        let evil = me.with("Origin", origin);
        refused(&evil.post("/auth/logout", ""), 403, "origin_not_allowed");
        refused(&log_in(&hub.client().with("Origin", origin)), 403, "origin_not_allowed");
        refused(&evil.post("/api/v1/keys", r#"{"name":"a","scopes":["admin"]}"#), 403, "origin_not_allowed");
        refused(&evil.delete("/api/v1/auth/sessions"), 403, "origin_not_allowed");
        assert!(Socket::try_open(&evil).err().unwrap().contains("403"), "{origin}");
        let with_key = me.new_key("k", &["chat"]).with("Origin", origin);
        assert!(Socket::try_open(&with_key).err().unwrap().contains("403"), "{origin}");
        // Reading is for the browser to withhold: nothing allows it.
        assert_eq!(evil.get("/api/v1/keys").header("access-control-allow-origin"), "");
    }
    let own = me.with("Origin", &format!("http://{}", hub.address));
    assert_eq!(own.post("/api/v1/keys", r#"{"name":"a","scopes":["chat"]}"#).status, 201);
    Socket::open(&own);
    Socket::open(&me.with("Origin", "https://app.example"));
    assert_eq!(own.post("/auth/logout", "").status, 200);
}

#[test]
fn configured_origins_get_cors_on_every_kind_of_answer() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let config = "[api]\ncors_origins = ['https://app.example']";
    let hub = Builder::new(dir.path()).model(&model).config(config).start();
    let app = hub.admin().with("Origin", "https://app.example").with("Host", "localhost");
    let body = json!({"message": "say hi"}).to_string();
    let sse = app.with("Accept", "text/event-stream");
    for answer in [
        app.get("/api/v1/keys"),
        app.get("/api/v1/nothing"),
        app.post("/api/v1/chat", &body),
        app.post("/api/v1/chat", "{}"),
        sse.post("/api/v1/chat", &body),
        hub.client().with("Origin", "https://app.example").get("/api/v1/keys"),
    ] {
        assert_eq!(answer.header("access-control-allow-origin"), "https://app.example", "{answer:?}");
        assert_eq!(answer.header("vary"), "Origin", "{answer:?}");
        assert_eq!(answer.header("access-control-allow-credentials"), "", "{answer:?}");
    }
    let pre = app.with("Access-Control-Request-Method", "PATCH").send("OPTIONS", "/api/v1/any/thing", "");
    assert_eq!((pre.status, pre.body.len()), (204, 0));
    assert_eq!(pre.header("access-control-allow-methods"), "GET, POST, PUT, PATCH, DELETE, OPTIONS");
    assert!(pre.header("access-control-allow-headers").starts_with("Authorization, Content-Type"));
    assert_eq!((pre.header("access-control-max-age"), pre.header("vary")), ("86400", "Origin"));
    let evil = hub.client().with("Origin", "https://evil.example").send("OPTIONS", "/api/v1/keys", "");
    assert_eq!((evil.status, evil.header("access-control-allow-origin"), evil.header("vary")), (204, "", "Origin"));
}

#[test]
fn foreign_host_names_are_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        "allowed_hosts = ['holt.lan']\ncors_origins = ['https://app.example']\nexternal_url = 'https://holt.example/'";
    let hub = start(dir.path(), config);
    let at = |host: &str| hub.client().with("Host", host);
    for host in ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "holt", ""] {
        for path in ["/", "/api/v1/health", "/auth/session", "/api/v1/ws"] {
            let answer = at(host).get(path);
            refused(&answer, 421, "host_not_allowed");
            assert!(answer.text().contains("api.allowed_hosts"));
        }
    }
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
    for host in [
        "localhost:1",
        "LOCALHOST",
        "[::1]:80",
        "192.168.7.7",
        "holt.lan:8080",
        "app.example",
        "holt.example",
        &machine,
        &format!("{machine}.local"),
    ] {
        assert_eq!(at(host).get("/api/v1/health").status, 200, "{host}");
    }
    // A bearer key shows that no browser was tricked, unless an origin says that it is one; a cookie shows nothing.
    let me = hub.client().with_cookie_of(&log_in(&hub.client()));
    let key = me.new_key("k", &["admin"]);
    assert_eq!(key.with("Host", "evil.example").get("/api/v1/keys").status, 200);
    assert_eq!(key.with("Host", "evil.example").with("Origin", "http://evil.example").get("/api/v1/keys").status, 421);
    assert_eq!(me.with("Host", "evil.example").get("/api/v1/keys").status, 421);
    wait_until("the hub still serves", || (key.get("/api/v1/keys").status == 200).then_some(()));
}
