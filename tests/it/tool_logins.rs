//! Tool servers that want a login: the way there and back, tokens that are renewed, and servers that lie about where
//! people log in.

use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::oauth_server::{OauthServer, Odd};
use crate::support::script::field;
use crate::support::{Answer, Client, Hub, Model, Socket, wait_until};

const CONNECT: &str = "/api/v1/tools/r/oauth/connect";
const FAILED: &str = "Authorization failed. Please close this window and try again from the dashboard.";

struct Bench {
    hub: Hub,
    admin: Client,
    tools: Client,
    server: OauthServer,
    _model: Model,
    dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let (dir, model, server) = (tempfile::tempdir().unwrap(), Model::start(), OauthServer::start());
    let hub = Builder::new(dir.path()).model(&model).config("[session]\ntier = \"autonomous\"").start();
    let admin = hub.admin();
    let tools = admin.new_key("tools", &["tools:read", "tools:write", "audit:read"]);
    Bench { hub, admin, tools, server, _model: model, dir }
}

impl Bench {
    #[track_caller]
    fn add(&self, more: Value) {
        let mut body = json!({"name": "r", "transport": "sse", "url": self.server.script.url("/mcp"),
            "allow_loopback": true, "auth": "oauth"});
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        let answer = self.tools.post("/api/v1/tools", &body.to_string());
        assert_eq!((answer.status, &answer.json()["status"]), (201, &json!("pending_auth")), "{}", answer.text());
    }

    /// Begins a login; the page that a person opens.
    #[track_caller]
    fn connect(&self) -> String {
        let answer = self.tools.post(CONNECT, "");
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("pending")), "{}", answer.text());
        answer.json()["auth_url"].as_str().unwrap().to_owned()
    }

    /// The way back of a browser, which shows no credential.
    fn back(&self, code: &str, state: &str) -> Answer {
        self.hub.client().get(&format!("/api/v1/tools/oauth/callback?code={code}&state={state}"))
    }

    #[track_caller]
    fn log_in(&self) {
        let page = self.connect();
        let code = self.server.approve(&page);
        let answer = self.back(&code, &field(&page, "state"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.until("connected");
    }

    fn status(&self) -> Value {
        self.tools.get("/api/v1/tools/r").json()
    }

    #[track_caller]
    fn until(&self, status: &str) {
        wait_until(status, || (self.status()["status"] == status).then_some(()));
    }

    #[track_caller]
    fn call(&self) -> String {
        let mut socket = Socket::open(&self.admin);
        socket.chat("", "tool whoami {}");
        let frames = socket.turn();
        let content = frames.iter().find(|frame| frame["type"] == "content");
        content.unwrap_or_else(|| panic!("{frames:?}"))["text"].as_str().unwrap().to_owned()
    }

    fn token(&self) -> Value {
        self.tools.get("/api/v1/tools/r/oauth").json()
    }

    fn n_asked(&self, path: &str) -> usize {
        self.server.script.asked_at(path).len()
    }

    #[track_caller]
    fn refused(&self, expected: &str) {
        let answer = self.tools.post(CONNECT, "");
        assert_eq!(answer.status, 502, "{expected}: {}", answer.text());
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(expected), "{expected}: {error}");
        assert_eq!(self.tools.get("/api/v1/tools/oauth/pending").json(), json!([]));
    }
}

#[track_caller]
fn failed(answer: &Answer, text: &str) {
    assert_eq!((answer.status, answer.header("content-type")), (400, "text/html; charset=utf-8"));
    let body = answer.text();
    assert!(
        body.contains("<title>Authorization Failed</title>") && body.contains(&format!("<code>{text}</code>")),
        "{body}"
    );
}

#[test]
fn a_login_leads_to_tools_and_outlives_a_restart() {
    let mut bench = bench();
    bench.add(json!({}));
    assert_eq!(bench.status()["oauth_status"], json!({"has_token": false, "needs_reauth": true}));
    assert_eq!(bench.token(), json!({"has_token": false, "needs_reauth": true}));
    assert_eq!(bench.server.script.asked().len(), 0, "nobody asked for a login yet");
    let answer = bench.tools.post(CONNECT, "");
    let page = answer.json()["auth_url"].as_str().unwrap().to_owned();
    let (login, query) = page.split_once('?').unwrap();
    assert_eq!(login, bench.server.script.url("/login"));
    let callback = format!("http://{}/api/v1/tools/oauth/callback", bench.hub.address);
    for (name, expected) in [
        ("response_type", "code"),
        ("client_id", "client-1"),
        ("redirect_uri", callback.as_str()),
        ("code_challenge_method", "S256"),
        ("resource", &bench.server.script.url("/mcp")),
        ("scope", "read write"),
    ] {
        assert_eq!(field(query, name), expected, "{name}");
    }
    assert_eq!((field(query, "state").len(), field(query, "code_challenge").len()), (32, 43));
    let registered = bench.server.script.asked_at("/clients")[0].json();
    assert_eq!((&registered["client_name"], &registered["redirect_uris"]), (&json!("Holt"), &json!([callback])));
    assert_eq!(registered["token_endpoint_auth_method"], "none");
    // The same again while it waits (W-44), and in the list.
    assert_eq!(bench.tools.post(CONNECT, "").json(), answer.json());
    let pending = bench.tools.get("/api/v1/tools/oauth/pending").json();
    assert_eq!(
        (&pending[0]["id"], &pending[0]["tool_name"], &pending[0]["auth_url"]),
        (&answer.json()["pending_id"], &json!("r"), &json!(page))
    );
    assert_eq!((pending[0]["id"].as_str().unwrap().len(), pending.as_array().unwrap().len()), (32, 1));
    let code = bench.server.approve(&page);
    let back = bench.back(&code, &field(query, "state"));
    assert_eq!((back.status, back.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(back.text().contains("<title>Authorization Successful</title>") && back.text().contains("window.close()"));
    let policies: Vec<_> = back.headers.iter().filter(|(name, _)| name == "content-security-policy").collect();
    assert!(policies.len() == 1 && policies[0].1.contains("script-src 'sha256-"), "{policies:?}");
    bench.until("connected");
    assert_eq!(bench.tools.get("/api/v1/tools/oauth/pending").json(), json!([]), "it does not wait any more (W-44)");
    assert_eq!(bench.status()["oauth_status"], json!({"has_token": true, "needs_reauth": false}));
    assert_eq!(bench.token(), json!({"has_token": true, "needs_reauth": false, "scopes": ["read"]}));
    assert_eq!(bench.call(), "done: access-token-1");
    // A state counts once.
    failed(&bench.back(&code, &field(query, "state")), FAILED);
    bench.hub.signal("TERM");
    bench.hub.wait();
    let (admin, tools) = (bench.admin.clone(), bench.tools.clone());
    bench.hub = Hub::start(bench.dir.path());
    (bench.admin, bench.tools) = (admin.at(&bench.hub.address), tools.at(&bench.hub.address));
    bench.until("connected");
    assert_eq!(bench.call(), "done: access-token-1");
    let row = bench.hub.database().query_row(
        "SELECT access_token, refresh_token, token_type, client_id, token_url, auth_style, resource_url FROM oauth_tokens",
        [],
        |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?,
            row.get::<_, String>(4)?, row.get::<_, i64>(5)?, row.get::<_, String>(6)?)),
    );
    let (access, refresh, kind, client, url, style, resource) = row.unwrap();
    assert_eq!((access.len(), refresh.len(), kind.as_str()), (12 + 14 + 16, 12 + 15 + 16, "Bearer"));
    assert_eq!((client.as_str(), style), ("client-1", 1));
    assert_eq!((url, resource), (bench.server.script.url("/tokens"), bench.server.script.url("/mcp")));
    assert!(!bench.hub.log_contains("access-token") && !bench.hub.log_contains("refresh-token"));
    // Forgotten: nothing of it is left, and the server is left alone.
    assert_eq!(bench.tools.delete("/api/v1/tools/r/oauth/token").json(), json!({"status": "revoked"}));
    assert_eq!(
        (&bench.status()["status"], &bench.status()["oauth_status"]["has_token"]),
        (&json!("pending_auth"), &json!(false))
    );
    assert_eq!(bench.tools.delete("/api/v1/tools/r/oauth/token").json(), json!({"status": "revoked"}));
    let actions: Vec<Value> = bench.tools.get("/api/v1/audit?limit=50").json()["entries"].as_array().unwrap().clone();
    for action in ["oauth_connect", "oauth_connected", "oauth_revoke"] {
        let action = format!("tool_server.{action}");
        let found = actions
            .iter()
            .find(|entry| entry["action"] == action && entry["result"] == "ok")
            .unwrap_or_else(|| panic!("{action}"));
        assert_eq!((&found["actor"], &found["target"]), (&json!("key:tools"), &json!("r")), "{action}");
    }
}

#[test]
fn tokens_are_renewed_in_time_by_one_and_replaced_as_a_whole() {
    let bench = bench();
    bench.server.set(|state| state.expires_in = Some(1));
    bench.add(json!({}));
    bench.log_in();
    // The life of a token is over in a moment, each time.
    wait_until("it was renewed twice", || (bench.call().as_str() >= "done: access-token-3").then_some(()));
    let renewals: Vec<String> =
        bench.server.script.asked_at("/tokens").iter().map(|asked| asked.form("refresh_token")).collect();
    assert_eq!(renewals[..3], ["", "refresh-token-1", "refresh-token-2"], "each refresh token was used once");
    assert!(bench.token()["expires_at"].is_string());
    // One that keeps its refresh token.
    bench.server.set(|state| (state.rotates, state.expires_in) = (false, None));
    wait_until("it is renewed for good", || {
        bench.call();
        bench.token().get("expires_at").is_none().then_some(())
    });
    let kept = bench.call();
    assert_eq!(bench.call(), kept);
    // Revoked early: the server says 401, and a new one is fetched in the midst of a call.
    let n_before = bench.n_asked("/tokens");
    bench.server.set(|state| state.access = "revoked".to_owned());
    let said = bench.call();
    assert!(said.starts_with("done: access-token-") && said != kept, "{said}");
    assert_eq!(bench.n_asked("/tokens"), n_before + 1);
    assert_eq!(bench.status()["status"], "connected");
    // Its login server has a bad day: the old token is used as long as it lives.
    bench.server.set(|state| state.refuses = Some(("503 Service Unavailable", "temporarily_unavailable")));
    let ends_soon = "UPDATE oauth_tokens SET updated_at = '2020-01-01 00:00:00',
        expiry = strftime('%Y-%m-%d %H:%M:%S +0000 UTC', 'now', '+120 seconds')";
    assert_eq!(bench.hub.database().execute(ends_soon, []).unwrap(), 1);
    assert_eq!(bench.call(), said);
    assert!(bench.n_asked("/tokens") > n_before + 1);
}

#[test]
fn when_a_renewal_is_refused_a_person_has_to_log_in_again() {
    let mut bench = bench();
    bench.add(json!({}));
    bench.log_in();
    bench.server.set(|state| {
        state.refuses = Some(("400 Bad Request", "invalid_grant"));
        state.access = "revoked".to_owned();
    });
    assert!(bench.call().contains("wants a login"));
    bench.until("pending_auth");
    assert_eq!(bench.status()["oauth_status"], json!({"has_token": true, "needs_reauth": true}));
    assert!(bench.status()["last_error"].as_str().unwrap().contains("wants a login"));
    assert_eq!(bench.token()["needs_reauth"], true);
    bench.hub.signal("TERM");
    bench.hub.wait();
    let n_before = bench.server.script.asked().len();
    let (admin, tools) = (bench.admin.clone(), bench.tools.clone());
    bench.hub = Hub::start(bench.dir.path());
    (bench.admin, bench.tools) = (admin.at(&bench.hub.address), tools.at(&bench.hub.address));
    assert_eq!((&bench.status()["status"], &bench.token()["needs_reauth"]), (&json!("pending_auth"), &json!(true)));
    assert_eq!(bench.server.script.asked().len(), n_before, "nobody tries what cannot work");
    bench.server.set(|state| (state.refuses, state.refresh) = (None, String::new()));
    bench.log_in();
    assert!(bench.call().starts_with("done: access-token-"));
    // Another address gets no token that is not for it.
    let other = OauthServer::start();
    let body = json!({"transport": "sse", "url": other.script.url("/mcp"), "allow_loopback": true, "auth": "oauth"});
    let answer = bench.tools.send("PUT", "/api/v1/tools/r", &body.to_string());
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("pending_auth")), "{}", answer.text());
    assert_eq!((bench.token()["has_token"].as_bool(), other.script.asked().len()), (Some(false), 0));
    assert_eq!(bench.tools.delete("/api/v1/tools/r").status, 204);
}

#[test]
fn what_comes_back_counts_only_when_it_is_expected() {
    let bench = bench();
    bench.add(json!({}));
    let client = bench.hub.client();
    let get = |query: &str| client.get(&format!("/api/v1/tools/oauth/callback{query}"));
    failed(&get(""), "Missing code or state parameter");
    failed(&get("?code=a"), "Missing code or state parameter");
    failed(&get("?state=a"), "Missing code or state parameter");
    failed(&get("?code=a&state=forged"), FAILED);
    failed(
        &get("?error=x%3Cscript%3E&error_description=%26%22"),
        "Authorization denied: x&lt;script&gt; — &amp;&quot;",
    );
    let page = bench.connect();
    let state = field(&page, "state");
    // Of another login server (RFC 9207): the code is not shown to ours, and the state is used up.
    let code = bench.server.approve(&page);
    failed(&get(&format!("?code={code}&state={state}&iss=http://evil.test")), FAILED);
    failed(&bench.back(&code, &state), FAILED);
    assert_eq!(bench.n_asked("/tokens"), 0);
    // A wrong code; somebody else's code.
    let page = bench.connect();
    failed(&bench.back("guessed", &field(&page, "state")), FAILED);
    let page = bench.connect();
    failed(&bench.back(&code, &field(&page, "state")), FAILED);
    // The person said no.
    let page = bench.connect();
    let denied = get(&format!("?error=access_denied&error_description=not+today&state={}", field(&page, "state")));
    failed(&denied, "Authorization denied: access_denied — not today");
    assert_eq!(bench.tools.get("/api/v1/tools/oauth/pending").json(), json!([]));
    assert_eq!(bench.status()["status"], "pending_auth");
    // Who may do what.
    let reader = bench.admin.new_key("reader", &["tools:read"]);
    assert_eq!(reader.post(CONNECT, "").status, 403);
    assert_eq!(reader.delete("/api/v1/tools/r/oauth/token").status, 403);
    assert_eq!(client.get("/api/v1/tools/oauth/pending").status, 401);
    assert_eq!(bench.tools.post("/api/v1/tools/none/oauth/connect", "").json()["error"], "tool not found");
    assert_eq!(bench.tools.get("/api/v1/tools/none/oauth").json(), json!({"has_token": false, "needs_reauth": true}));
    bench.log_in();
    assert_eq!(bench.call(), "done: access-token-1");
}

#[test]
fn servers_with_less_to_say_are_understood() {
    let bench = bench();
    // Only the metadata of OpenID Connect, named by the challenge; a client with a secret.
    bench.server.set(|state| {
        state.only_openid = true;
        state.named = Some("BASE/.well-known/oauth-protected-resource/mcp".to_owned());
        state.server = json!({"token_endpoint_auth_methods_supported": ["client_secret_basic"]});
    });
    bench.add(json!({"scopes": ["mine", "yours"]}));
    let page = bench.connect();
    assert_eq!(field(&page, "scope"), "mine yours");
    let code = bench.server.approve(&page);
    assert_eq!(bench.back(&code, &field(&page, "state")).status, 200);
    bench.until("connected");
    assert_eq!(bench.tools.delete("/api/v1/tools/r").status, 204);
    // Nothing at all: fixed paths.
    bench.server.set(|state| (state.has_resource, state.has_server, state.named) = (false, false, None));
    bench.add(json!({}));
    let page = bench.connect();
    assert!(page.starts_with(&bench.server.script.url("/authorize?")), "{page}");
    assert_eq!((bench.n_asked("/register"), field(&page, "resource")), (1, bench.server.script.url("/mcp")));
    assert_eq!(bench.tools.delete("/api/v1/tools/r").status, 204);
    // A client that is registered already.
    bench.server.set(|state| (state.has_resource, state.has_server) = (true, true));
    let n_before = bench.n_asked("/clients");
    bench.add(json!({"client_id": "mine", "client_secret": "my-secret"}));
    bench.log_in();
    assert_eq!(bench.n_asked("/clients"), n_before);
    assert!(bench.call().starts_with("done: access-token-"));
}

#[test]
fn lies_about_where_to_log_in_lead_nowhere() {
    let bench = bench();
    bench.add(json!({}));
    let resource = |value: Value| bench.server.set(|state| state.resource = value);
    let server = |value: Value| bench.server.set(|state| state.server = value);
    for (url, expected) in [
        ("http://169.254.169.254/latest/meta-data", "metadata"),
        ("http://10.0.0.7/x", "private"),
        ("http://localhost/x", "this machine"),
        ("http://[::1]/x", "this machine"),
        ("file:///etc/passwd", "bad address"),
    ] {
        bench.server.set(|state| state.named = Some(url.to_owned()));
        bench.refused(expected);
        bench.server.set(|state| state.named = None);
        resource(json!({"authorization_servers": [url]}));
        bench.refused(expected);
        resource(Value::Null);
        for endpoint in ["token_endpoint", "registration_endpoint"] {
            server(json!({endpoint: url}));
            bench.refused(expected);
        }
        server(Value::Null);
    }
    resource(json!({"resource": "http://other.test/mcp"}));
    bench.refused("about another server");
    resource(Value::Null);
    server(json!({"issuer": "http://other.test"}));
    bench.refused("calls itself http://other.test");
    server(json!({"authorization_endpoint": "javascript:alert(1)"}));
    bench.refused("login page has a bad address");
    server(json!({"code_challenge_methods_supported": ["plain"]}));
    bench.refused("PKCE");
    server(json!({"registration_endpoint": null}));
    bench.refused("client_id and client_secret");
    server(Value::Null);
    // Redirects lead nowhere, wherever they point.
    let odd = |path: &str, odd: Odd| bench.server.set(|state| state.odd = vec![(path.to_owned(), odd)]);
    for path in ["/clients", "/mcp"] {
        odd(path, Odd::Redirect("http://169.254.169.254/".to_owned()));
        bench.refused("");
    }
    odd("/clients", Odd::Flood);
    bench.refused("larger than");
    odd("/.well-known/oauth-protected-resource/mcp", Odd::Redirect("http://169.254.169.254/".to_owned()));
    let page = bench.connect();
    assert!(page.starts_with(&bench.server.script.url("/login?")));
    assert_eq!(bench.tools.delete("/api/v1/tools/r/oauth/token").status, 200);
    odd("/.well-known/oauth-protected-resource/mcp", Odd::Flood);
    bench.connect();
    assert!(bench.hub.status_kib("VmHWM:") < 80 * 1024);
    // One that hangs holds up neither its neighbours nor the stop.
    assert_eq!(bench.tools.delete("/api/v1/tools/r/oauth/token").status, 200);
    odd("/mcp", Odd::Hang);
    let n_before = bench.n_asked("/mcp");
    let waiting = bench.tools.open("POST", CONNECT, "");
    wait_until("it is asked", || (bench.n_asked("/mcp") > n_before).then_some(()));
    assert_eq!(bench.tools.post(CONNECT, "").status, 503, "one at a time");
    assert_eq!(bench.tools.get("/api/v1/tools").status, 200);
    let mut bench = bench;
    bench.hub.signal("TERM");
    assert!(bench.hub.wait().success());
    drop(waiting);
}

#[test]
fn a_token_that_is_given_up_is_revoked_where_it_comes_from() {
    let bench = bench();
    let told = |n: usize| -> (String, String) {
        let rows = wait_until("it is in the audit log", || {
            let all = bench.tools.get("/api/v1/audit?limit=100").json()["entries"].as_array().unwrap().clone();
            let rows: Vec<Value> =
                all.into_iter().filter(|entry| entry["action"] == "tool_server.token_revoke").collect();
            (rows.len() == n).then_some(rows)
        });
        assert_eq!(rows[0]["target"], "r");
        (rows[0]["result"].as_str().unwrap().to_owned(), rows[0]["detail"].as_str().unwrap().to_owned())
    };
    let at = |path: &str| json!({"revocation_endpoint": bench.server.script.url(path)});
    bench.server.set(|state| state.server = at("/revoke"));
    bench.add(json!({}));
    bench.log_in();
    assert_eq!(bench.tools.delete("/api/v1/tools/r/oauth/token").status, 200);
    assert_eq!(told(1), ("ok".to_owned(), "revoked at its login server".to_owned()));
    let asked = bench.server.script.asked_at("/revoke");
    let words: Vec<_> = asked.iter().map(|asked| (asked.form("token"), asked.form("token_type_hint"))).collect();
    let pair = |word: &str, hint: &str| (word.to_owned(), hint.to_owned());
    assert_eq!(words, [pair("refresh-token-1", "refresh_token"), pair("access-token-1", "access_token")]);
    assert!(bench.server.read(|state| state.access.is_empty() && state.refresh.is_empty()));
    // There is nothing left to give back.
    bench.tools.delete("/api/v1/tools/r/oauth/token");
    // A server that hangs, or sends us elsewhere, does not keep the tool from being deleted.
    bench.log_in();
    bench.server.set(|state| {
        state.odd = vec![("/away".to_owned(), Odd::Redirect("http://169.254.169.254/".to_owned()))];
        state.server = at("/away");
    });
    assert_eq!(bench.tools.delete("/api/v1/tools/r").status, 204);
    let (result, detail) = told(2);
    assert!(result == "failed" && detail.ends_with("status 302"), "{result} {detail}");
    assert!(!detail.contains("token-"), "{detail}");
    // An address that may not be asked is not asked, and a server may have none.
    bench.server.set(|state| state.server = json!({"revocation_endpoint": "http://169.254.169.254/revoke"}));
    bench.add(json!({}));
    bench.log_in();
    assert_eq!(bench.tools.delete("/api/v1/tools/r").status, 204);
    assert_eq!(told(3).1, "forgotten; its login server takes no tokens back");
    // Nobody waits for one that hangs.
    bench.server.set(|state| {
        state.odd = vec![("/hangs".to_owned(), Odd::Hang)];
        state.server = at("/hangs");
    });
    bench.add(json!({}));
    bench.log_in();
    assert_eq!(bench.tools.delete("/api/v1/tools/r").status, 204);
    assert_eq!(bench.tools.get("/api/v1/tools/r").status, 404);
    assert!(!bench.hub.log_contains("access-token") && !bench.hub.log_contains("refresh-token"));
}
