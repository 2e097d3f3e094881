//! A scripted tool server that wants a login, and its own authorization server, on one address.
//!
//! `/mcp` is the server: 401 without a token that it gave out. What it says of its logins can be changed, to lies too.

use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::script::{Asked, Script, field, flood, hang, json as answer_json, plain};

/// What the test can change.
#[derive(Default)]
pub struct State {
    /// Laid over the metadata of the protected resource; `null` in whole: there is none.
    pub resource: Value,
    /// Laid over the metadata of the authorization server.
    pub server: Value,
    pub has_resource: bool,
    pub has_server: bool,
    /// Only OpenID Connect's metadata is there.
    pub only_openid: bool,
    /// The challenge names the metadata at this address.
    pub named: Option<String>,
    /// A path that redirects, floods or hangs.
    pub odd: Vec<(String, Odd)>,
    pub expires_in: Option<i64>,
    pub has_refresh: bool,
    pub rotates: bool,
    /// What the token endpoint says instead of a renewed token.
    pub refuses: Option<(&'static str, &'static str)>,
    codes: Vec<(String, String, String)>,
    pub access: String,
    pub refresh: String,
    n_tokens: u32,
    secret: String,
}

#[derive(Clone)]
pub enum Odd {
    Redirect(String),
    Flood,
    Hang,
}

pub struct OauthServer {
    pub script: Script,
    state: Arc<Mutex<State>>,
}

impl OauthServer {
    pub fn start() -> Self {
        let state =
            State { has_resource: true, has_server: true, has_refresh: true, rotates: true, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let own = Arc::clone(&state);
        Self { script: Script::start(move |asked, out| answer(&mut own.lock().unwrap(), asked, out)), state }
    }

    pub fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap())
    }

    /// The person at that page says yes: a code.
    pub fn approve(&self, auth_url: &str) -> String {
        let query = auth_url.split_once('?').unwrap().1;
        let mut state = self.state.lock().unwrap();
        let code = format!("code-{}", state.codes.len());
        state.codes.push((code.clone(), field(query, "code_challenge"), field(query, "redirect_uri")));
        code
    }
}

fn answer(state: &mut State, asked: &Asked, out: &mut TcpStream) -> std::io::Result<()> {
    let base = format!("http://{}", asked.header("host").unwrap());
    if let Some((_, odd)) = state.odd.iter().find(|(path, _)| *path == asked.path) {
        return match odd.clone() {
            Odd::Redirect(to) => plain(out, "302 Found", &format!("Location: {to}\r\n"), ""),
            Odd::Flood => flood(out),
            Odd::Hang => hang(out),
        };
    }
    let over = |mut value: Value, with: &Value| {
        for (name, new) in with.as_object().into_iter().flatten() {
            value[name] = new.clone();
        }
        value
    };
    let nothing = |out: &mut TcpStream| plain(out, "404 Not Found", "Content-Type: text/html\r\n", "<html>no</html>");
    match asked.path.as_str() {
        "/mcp" => mcp(state, asked, out, &base),
        "/.well-known/oauth-protected-resource/mcp" if state.has_resource => {
            let said = json!({"resource": format!("{base}/mcp"), "authorization_servers": [base],
                "scopes_supported": ["read", "write"]});
            answer_json(out, "200 OK", &over(said, &state.resource))
        }
        path @ ("/.well-known/oauth-authorization-server" | "/.well-known/openid-configuration")
            if state.has_server && (path.ends_with("configuration") || !state.only_openid) =>
        {
            let said = json!({"issuer": base, "authorization_endpoint": format!("{base}/login"),
                "token_endpoint": format!("{base}/tokens"), "registration_endpoint": format!("{base}/clients"),
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "none"]});
            answer_json(out, "200 OK", &over(said, &state.server))
        }
        "/clients" | "/register" => {
            let asked = asked.json();
            let mut said = json!({"client_id": "client-1", "redirect_uris": asked["redirect_uris"]});
            if asked["token_endpoint_auth_method"] != "none" {
                state.secret = "client-secret-1".to_owned();
                said["client_secret"] = json!(state.secret);
            }
            answer_json(out, "201 Created", &said)
        }
        "/tokens" | "/token" => tokens(state, asked, out),
        "/revoke" if asked.form("client_id") == "client-1" => {
            let word = asked.form("token");
            for known in [&mut state.refresh, &mut state.access] {
                if *known == word {
                    known.clear();
                }
            }
            plain(out, "200 OK", "", "")
        }
        _ => nothing(out),
    }
}

fn tokens(state: &mut State, asked: &Asked, out: &mut TcpStream) -> std::io::Result<()> {
    let refuse = |out: &mut TcpStream, error: &str| answer_json(out, "400 Bad Request", &json!({"error": error}));
    let is_client = match asked.header("authorization") {
        Some(line) => {
            let basic = line.strip_prefix("Basic ").unwrap();
            let pair = String::from_utf8(STANDARD.decode(basic).unwrap()).unwrap();
            pair == format!("client-1:{}", state.secret) || pair == "mine:my-secret"
        }
        None => asked.form("client_id") == "client-1" && state.secret.is_empty(),
    };
    if !is_client {
        return refuse(out, "invalid_client");
    }
    match asked.form("grant_type").as_str() {
        "authorization_code" => {
            let code = asked.form("code");
            let Some(index) = state.codes.iter().position(|(known, ..)| *known == code) else {
                return refuse(out, "invalid_grant");
            };
            let (_, challenge, redirect_uri) = state.codes.remove(index);
            let shown = URL_SAFE_NO_PAD.encode(Sha256::digest(asked.form("code_verifier")));
            if shown != challenge || asked.form("redirect_uri") != redirect_uri {
                return refuse(out, "invalid_grant");
            }
        }
        "refresh_token" => {
            if let Some((status, error)) = state.refuses {
                return answer_json(out, status, &json!({"error": error}));
            }
            if asked.form("refresh_token") != state.refresh {
                return refuse(out, "invalid_grant");
            }
        }
        _ => return refuse(out, "unsupported_grant_type"),
    }
    state.n_tokens += 1;
    state.access = format!("access-token-{}", state.n_tokens);
    let mut said = json!({"access_token": state.access, "token_type": "bearer", "scope": "read"});
    if let Some(seconds) = state.expires_in {
        said["expires_in"] = json!(seconds);
    }
    if state.has_refresh && (state.rotates || state.refresh.is_empty()) {
        state.refresh = format!("refresh-token-{}", state.n_tokens);
        said["refresh_token"] = json!(state.refresh);
    }
    answer_json(out, "200 OK", &said)
}

fn mcp(state: &State, asked: &Asked, out: &mut TcpStream, base: &str) -> std::io::Result<()> {
    let expected = format!("Bearer {}", state.access);
    if state.access.is_empty() || asked.header("authorization") != Some(&expected) {
        let named = state.named.as_ref().map(|url| url.replace("BASE", base));
        let named = named.map(|url| format!(" resource_metadata=\"{url}\"")).unwrap_or_default();
        return plain(out, "401 Unauthorized", &format!("WWW-Authenticate: Bearer{named}\r\n"), "log in");
    }
    let message = asked.json();
    let result = |result: Value| json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    match message["method"].as_str().unwrap_or("") {
        "initialize" => {
            answer_json(out, "200 OK", &result(json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}})))
        }
        "tools/list" => answer_json(out, "200 OK", &result(json!({"tools": [{"name": "whoami"}]}))),
        "tools/call" => {
            answer_json(out, "200 OK", &result(json!({"content": [{"type": "text", "text": state.access}]})))
        }
        "" if asked.method == "GET" => plain(out, "405 Method Not Allowed", "", ""),
        "" | "notifications/initialized" => plain(out, "202 Accepted", "", ""),
        _ => answer_json(out, "200 OK", &result(json!({}))),
    }
}
