//! Logging in through an identity provider: the way of a browser, everything that can be forged on it, and providers
//! that are down, slow or hostile.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::hub::Builder;
use crate::support::issuer::{CLIENT, Issuer, Mood, SECRET, Signing, now};
use crate::support::script::field;
use crate::support::{Answer, Client, Hub, wait_until};

const DISCOVERY: &str = "/.well-known/openid-configuration";
const CALLBACK: &str = "http://holt.test/auth/callback";

struct Bench {
    hub: Hub,
    issuer: Issuer,
    dir: tempfile::TempDir,
}

fn settings(issuer: &str) -> String {
    format!(
        "[api.auth.oidc]\nenabled = true\nissuer = \"{issuer}\"\nclient_id = \"{CLIENT}\"\nclient_secret = '{SECRET}'\n\
         redirect_url = \"{CALLBACK}\"\nallowed_emails = [\"ME@example.org\", \"you@example.org\"]"
    )
}

fn start(dir: &Path, issuer: &Issuer) -> Hub {
    let more = "[[api.keys]]\nname = \"k\"\nkey = \"dk_key\"\nscopes = [\"admin\", \"audit:read\"]";
    Builder::new(dir).config(&settings(&issuer.url())).config(more).start()
}

fn bench() -> Bench {
    let (dir, issuer) = (tempfile::tempdir().unwrap(), Issuer::start());
    let hub = start(dir.path(), &issuer);
    Bench { hub, issuer, dir }
}

/// A login that a browser began.
struct Begun {
    cookie: String,
    query: String,
}

#[track_caller]
fn cookie(answer: &Answer, name: &str) -> String {
    let lines = answer.headers.iter().filter(|(known, _)| known == "set-cookie").map(|(_, value)| value);
    let mut found = lines.filter(|line| line.starts_with(&format!("{name}=")));
    found.next().unwrap_or_else(|| panic!("no {name}: {} {:?}", answer.status, answer.headers)).clone()
}

impl Bench {
    #[track_caller]
    fn begin(&self) -> Begun {
        let answer = self.hub.client().get("/auth/oidc/login");
        assert_eq!(answer.status, 302, "{}", answer.text());
        let (page, query) = answer.header("location").split_once('?').unwrap();
        assert_eq!(page, self.issuer.script.url("/authorize"));
        let cookie = cookie(&answer, "dk_oidc_state");
        Begun { cookie: cookie.split(';').next().unwrap().to_owned(), query: query.to_owned() }
    }

    /// The way back of a browser.
    fn back(&self, cookie: &str, code: &str, state: &str) -> Answer {
        let client = self.hub.client().with("Cookie", cookie).with("User-Agent", "browser");
        client.get(&format!("/auth/callback?code={code}&state={state}"))
    }

    fn finish(&self, begun: &Begun, code: &str) -> Answer {
        self.back(&begun.cookie, code, &field(&begun.query, "state"))
    }

    /// A whole login with other claims or another signature than should be.
    #[track_caller]
    fn log_in_with(&self, change: impl FnOnce(&mut Value), signing: Signing) -> Answer {
        let begun = self.begin();
        let mut claims = self.issuer.claims(&begun.query);
        change(&mut claims);
        let code = self.issuer.grant(&begun.query, claims, signing);
        self.finish(&begun, &code)
    }

    #[track_caller]
    fn log_in(&self) -> Client {
        let answer = self.log_in_with(|_| {}, Signing::default());
        assert_eq!((answer.status, answer.header("location")), (302, "/#/overview"), "{}", answer.text());
        self.hub.client().with_cookie_of(&answer)
    }
}

#[track_caller]
fn refused(answer: &Answer, status: u16, text: &str) {
    assert_eq!((answer.status, answer.text().trim_end()), (status, text));
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert!(!answer.headers.iter().any(|(_, value)| value.starts_with("dk_session=")), "{:?}", answer.headers);
}

#[test]
fn a_login_through_a_provider_is_a_login_like_any_other() {
    let bench = bench();
    let (client, key) = (bench.hub.client(), bench.hub.client().with_key("dk_key"));
    assert_eq!(client.get("/auth/config").json(), json!({"password_enabled": false, "oidc_enabled": true}));
    assert_eq!(key.get("/api/v1/auth/status").json()["oidc_enabled"], true);
    let answer = client.get("/auth/oidc/login");
    let line = cookie(&answer, "dk_oidc_state");
    assert!(line.ends_with("; Path=/auth; Max-Age=300; HttpOnly; SameSite=Lax"), "{line}");
    let query = answer.header("location").split_once('?').unwrap().1.to_owned();
    for (name, expected) in [
        ("v", "1"),
        ("client_id", CLIENT),
        ("redirect_uri", CALLBACK),
        ("response_type", "code"),
        ("scope", "openid email profile"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(field(&query, name), expected, "{name}");
    }
    assert_eq!((field(&query, "state").len(), field(&query, "nonce").len()), (32, 32));
    for (algorithm, key_id) in [("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")] {
        let answer = bench.log_in_with(|_| {}, Signing { algorithm, key_id: key_id.into(), missing: false });
        assert_eq!((answer.status, answer.header("location")), (302, "/#/overview"), "{algorithm} {}", answer.text());
        let line = cookie(&answer, "dk_session");
        assert!(line.ends_with("; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax"), "{line}");
        assert!(cookie(&answer, "dk_oidc_state").contains("Max-Age=0"));
        let me = client.with_cookie_of(&answer);
        assert_eq!(me.get("/auth/session").json(), json!({"authenticated": true, "email": "me@example.org"}));
    }
    let me = bench.log_in();
    let logins = me.get("/api/v1/auth/sessions").json();
    assert_eq!(logins.as_array().unwrap().len(), 4);
    assert_eq!((&logins[0]["user_agent"], &logins[0]["ip"]), (&json!("browser"), &json!("127.0.0.1")));
    assert_eq!(me.get("/api/v1/sessions").status, 200, "it holds the scopes of a login");
    let entries = key.get("/api/v1/audit?action=login.oidc").json();
    assert_eq!(
        (&entries["entries"][0]["actor"], &entries["entries"][0]["result"]),
        (&json!("user:me@example.org"), &json!("ok"))
    );
    // Revocation counts at once, as for every login (W-7).
    assert_eq!(me.with("Origin", &format!("http://{}", bench.hub.address)).post("/auth/logout", "").status, 200);
    assert_eq!(me.get("/auth/session").json(), json!({"authenticated": false}));
    // Asked once each, however many logins there were.
    assert_eq!(bench.issuer.script.asked_at("/keys").len(), 1);
    assert!(bench.issuer.script.asked_at(DISCOVERY).len() <= 2);
    assert!(!bench.hub.log_contains("s3cret") && !bench.hub.log_contains("code-"));
}

#[test]
fn tokens_that_say_the_wrong_thing_are_refused() {
    let bench = bench();
    let failed = "token verification failed";
    let check = |status: u16, text: &str, change: &dyn Fn(&mut Value)| {
        refused(&bench.log_in_with(|claims| change(claims), Signing::default()), status, text);
    };
    check(401, failed, &|claims| claims["aud"] = json!("somebody else"));
    check(401, failed, &|claims| claims["aud"] = json!([CLIENT, "somebody else"]));
    check(401, failed, &|claims| claims["azp"] = json!("somebody else"));
    check(401, failed, &|claims| claims["iss"] = json!("http://evil.test"));
    check(401, failed, &|claims| claims["exp"] = json!(now() - 120));
    check(401, failed, &|claims| claims["iat"] = json!(now() + 600));
    check(401, failed, &|claims| claims["nbf"] = json!(now() + 600));
    check(401, "nonce mismatch", &|claims| claims["nonce"] = json!("another"));
    check(401, "nonce mismatch", &|claims| drop(claims.as_object_mut().unwrap().remove("nonce")));
    check(403, "email not verified by provider", &|claims| claims["email_verified"] = json!(false));
    check(403, "email not verified by provider", &|claims| {
        drop(claims.as_object_mut().unwrap().remove("email_verified"))
    });
    check(403, "email not authorized", &|claims| claims["email"] = json!("eve@example.org"));
    check(403, "email not authorized", &|claims| claims["email"] = json!("me@example.org.evil.test"));
    check(500, "failed to parse claims", &|claims| claims["email"] = json!(["me@example.org"]));
    for (algorithm, key_id) in [("none", ""), ("none", "rsa"), ("HS256", "rsa"), ("RS256", "ec"), ("ES256", "rsa")] {
        let signing = Signing { algorithm, key_id: key_id.into(), missing: false };
        refused(&bench.log_in_with(|_| {}, signing), 401, failed);
    }
    let signing = Signing { missing: true, ..Signing::default() };
    refused(&bench.log_in_with(|_| {}, signing), 500, "no id_token in response");
    let entries = bench.hub.client().with_key("dk_key").get("/api/v1/audit?action=login.oidc&result=denied").json();
    assert!(!entries["entries"].as_array().unwrap().is_empty());
    bench.log_in();
}

#[test]
fn only_the_browser_that_began_a_login_ends_it_and_only_once() {
    let bench = bench();
    let (mine, theirs) = (bench.begin(), bench.begin());
    let grant = |begun: &Begun| bench.issuer.grant(&begun.query, bench.issuer.claims(&begun.query), Signing::default());
    let code = grant(&mine);
    let n_tokens = || bench.issuer.script.asked_at("/token").len();
    refused(&bench.back("a=b", &code, &field(&mine.query, "state")), 400, "missing state cookie");
    refused(&bench.back("dk_oidc_state=", &code, &field(&mine.query, "state")), 400, "missing state cookie");
    // My state in another browser; their state in mine: a login that somebody else began.
    refused(&bench.back(&theirs.cookie, &code, &field(&mine.query, "state")), 400, "state mismatch");
    refused(&bench.back(&mine.cookie, &code, &field(&theirs.query, "state")), 400, "state mismatch");
    refused(&bench.back(&mine.cookie, &code, ""), 400, "state mismatch");
    let value = mine.cookie.split_once('=').unwrap().1;
    for forged in ["AAAA", "not base64!", &value[..value.len() - 8], &value.replacen(&value[20..24], "AAAA", 1)] {
        let cookie = format!("dk_oidc_state={forged}");
        refused(&bench.back(&cookie, &code, &field(&mine.query, "state")), 400, "invalid or expired state cookie");
    }
    assert_eq!(n_tokens(), 0, "the provider was not even asked");
    // Cookies of one kind are nothing in place of the other (W-4).
    let session = bench.hub.client().with("Cookie", &format!("dk_session={value}")).get("/auth/session");
    assert_eq!(session.json(), json!({"authenticated": false}));
    // Another issuer's answer.
    let client = bench.hub.client().with("Cookie", &mine.cookie);
    let state = field(&mine.query, "state");
    refused(
        &client.get(&format!("/auth/callback?code={code}&state={state}&iss=http://evil.test")),
        400,
        "state mismatch",
    );
    assert_eq!(n_tokens(), 0);
    // That attempt has used the state up: the right answer comes too late.
    refused(&bench.finish(&mine, &code), 400, "state mismatch");
    let code = grant(&theirs);
    assert_eq!(bench.finish(&theirs, &code).status, 302);
    refused(&bench.finish(&theirs, &code), 400, "state mismatch");
    // A code that was used before, in a login of its own.
    let third = bench.begin();
    refused(&bench.finish(&third, &code), 500, "code exchange failed");
    // A code that belongs to another login: PKCE.
    let (fourth, fifth) = (bench.begin(), bench.begin());
    let foreign = grant(&fifth);
    refused(&bench.finish(&fourth, &foreign), 500, "code exchange failed");
    // The user said no.
    let sixth = bench.begin();
    let client = bench.hub.client().with("Cookie", &sixth.cookie);
    let denied = client.get(&format!("/auth/callback?error=access_denied&state={}", field(&sixth.query, "state")));
    refused(&denied, 400, "missing authorization code");
    wait_until("the refusal is logged", || bench.hub.log_contains("access_denied").then_some(()));
    assert!(!bench.hub.log_contains("secret words"));
}

#[test]
fn new_keys_are_found_and_unknown_ones_asked_for_only_now_and_then() {
    let bench = bench();
    bench.log_in();
    bench.issuer.state.lock().unwrap().names = ["rsa-2", "ec-2", "ed-2"];
    let signing = |key_id: &str| Signing { key_id: key_id.into(), ..Signing::default() };
    assert_eq!(bench.log_in_with(|_| {}, signing("rsa-2")).status, 302);
    assert_eq!(bench.issuer.script.asked_at("/keys").len(), 2);
    for _ in 0..3 {
        refused(&bench.log_in_with(|_| {}, signing("unknown")), 401, "token verification failed");
    }
    refused(&bench.log_in_with(|_| {}, signing("rsa")), 401, "token verification failed");
    assert_eq!(bench.issuer.script.asked_at("/keys").len(), 2);
}

#[test]
fn the_address_may_be_known_only_to_the_userinfo_endpoint() {
    let bench = bench();
    let no_email = |claims: &mut Value| {
        claims.as_object_mut().unwrap().remove("email");
    };
    let user = |user: Value| bench.issuer.state.lock().unwrap().user = user;
    user(json!({"sub": "user-1", "email": "you@example.org", "email_verified": true}));
    let answer = bench.log_in_with(no_email, Signing::default());
    let me = bench.hub.client().with_cookie_of(&answer);
    assert_eq!(me.get("/auth/session").json()["email"], "you@example.org");
    user(json!({"sub": "user-2", "email": "you@example.org", "email_verified": true}));
    refused(&bench.log_in_with(no_email, Signing::default()), 500, "failed to parse claims");
    user(json!({"sub": "user-1", "email": "you@example.org", "email_verified": false}));
    refused(&bench.log_in_with(no_email, Signing::default()), 403, "email not verified by provider");
    user(json!({"sub": "user-1"}));
    refused(&bench.log_in_with(no_email, Signing::default()), 500, "failed to parse claims");
}

#[test]
fn a_provider_that_is_down_or_odd_harms_only_its_own_logins() {
    let (dir, issuer) = (tempfile::tempdir().unwrap(), Issuer::start());
    issuer.mood(DISCOVERY, Mood::Broken);
    let hub = start(dir.path(), &issuer);
    let bench = Bench { hub, issuer, dir };
    let unreachable = "the identity provider cannot be reached; try again later";
    let login = || bench.hub.client().get("/auth/oidc/login");
    refused(&login(), 503, unreachable);
    for mood in [Mood::Garbage, Mood::Flood, Mood::Redirects] {
        bench.issuer.mood(DISCOVERY, mood);
        refused(&login(), 503, unreachable);
    }
    bench.issuer.mood(DISCOVERY, Mood::Well);
    for (name, value) in [
        ("issuer", json!("http://evil.test")),
        ("token_endpoint", json!("http://169.254.169.254/token")),
        ("token_endpoint", json!("http://10.0.0.1/token")),
        ("jwks_uri", json!("file:///etc/passwd")),
        ("jwks_uri", json!(null)),
        ("userinfo_endpoint", json!("http://metadata.google.internal/")),
        ("authorization_endpoint", json!("javascript:alert(1)")),
    ] {
        bench.issuer.state.lock().unwrap().metadata = json!({name: value});
        refused(&login(), 503, unreachable);
    }
    bench.issuer.state.lock().unwrap().metadata = Value::Null;
    // It is well again, and nobody had to restart anything.
    bench.log_in();
    for (mood, token, keys) in [
        (Mood::Flood, (500, "code exchange failed"), (302, "")),
        (Mood::Garbage, (500, "code exchange failed"), (302, "")),
        (Mood::Broken, (500, "code exchange failed"), (302, "")),
    ] {
        bench.issuer.mood("/token", mood);
        refused(&bench.log_in_with(|_| {}, Signing::default()), token.0, token.1);
        bench.issuer.mood("/token", Mood::Well);
        // Keys are known already.
        bench.issuer.mood("/keys", mood);
        assert_eq!(bench.log_in_with(|_| {}, Signing::default()).status, keys.0);
    }
    drop(bench.hub);
    let hub = start(bench.dir.path(), &bench.issuer);
    let bench = Bench { hub, ..bench };
    refused(&bench.log_in_with(|_| {}, Signing::default()), 401, "token verification failed");
    bench.issuer.mood("/keys", Mood::Flood);
    refused(&bench.log_in_with(|_| {}, Signing::default()), 401, "token verification failed");
    assert!(bench.hub.status_kib("VmHWM:") < 80 * 1024);
}

#[test]
fn a_provider_that_hangs_holds_neither_the_hub_nor_its_stop() {
    let (dir, issuer) = (tempfile::tempdir().unwrap(), Issuer::start());
    issuer.mood(DISCOVERY, Mood::Hangs);
    let mut hub = start(dir.path(), &issuer);
    let client = hub.client();
    let waiting: Vec<_> = (0..8).map(|_| client.open("GET", "/auth/oidc/login", "")).collect();
    // All places are taken, and the rest of the hub goes on.
    wait_until("all places are taken", || (issuer.script.asked_at(DISCOVERY).len() >= 8).then_some(()));
    refused(&client.get("/auth/oidc/login"), 503, "too many logins at once; try again");
    assert_eq!(client.get("/api/v1/health").status, 200);
    hub.signal("TERM");
    assert!(hub.wait().success());
    assert!(!hub.log_contains("late at the stop"), "{}", hub.log_tail());
    drop(waiting);
}

#[test]
fn without_a_provider_there_are_no_such_routes_and_with_one_nobody_sets_the_hub_up() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    for path in ["/auth/oidc/login", "/auth/callback?code=a&state=b"] {
        assert_eq!(hub.client().get(path).status, 404, "{path}");
    }
    drop(hub);
    let (dir, issuer) = (tempfile::tempdir().unwrap(), Issuer::start());
    let text = settings(&issuer.url()).replace(&format!("redirect_url = \"{CALLBACK}\"\n"), "");
    let proxied = "[api]\nexternal_url = \"https://home.example.org/\"";
    let hub = Builder::new(dir.path()).config(proxied).config(&text).start();
    let setup = hub.client().get("/api/v1/setup").json();
    assert_eq!(setup, json!({"setup_required": false, "account_setup_available": false}));
    assert_eq!(hub.client().post("/api/v1/setup", "{}").status, 409);
    // Behind a proxy: its name counts, and its TLS.
    let answer = hub.client().with("Host", "home.example.org").get("/auth/oidc/login");
    let query = answer.header("location").split_once('?').unwrap().1;
    assert_eq!(field(query, "redirect_uri"), "https://home.example.org/auth/callback");
    assert!(cookie(&answer, "dk_oidc_state").contains("; Secure; "));
}
