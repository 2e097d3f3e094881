//! Every route there is, against the hub's own description and against a table of ours: what it answers when all is
//! well, and to those who may not.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use holt::alert::{Event, Level, key_of};
use holt::rt::clock;
use holt::store::{AlertStore, Db};
use serde_json::{Value, json};

use crate::support::agent::{Agent, ID, id};
use crate::support::hub::Builder;
use crate::support::issuer::{CLIENT, Issuer, SECRET, Signing};
use crate::support::oauth_server::OauthServer;
use crate::support::schema::{Description, Operation};
use crate::support::script::field;
use crate::support::site::answer;
use crate::support::tool_server::{config, table};
use crate::support::{Answer, Client, Hub, Model, Site, Socket, wait_until};

const SHARED: &str = "a token that all machines share";
const PASSWORD: &str = "correct horse";

/// Routes of the table that are not there yet.
const NOT_YET: &[&str] = &[];

/// A hub with everything that routes need, and what they are tried on.
struct World {
    hub: Hub,
    admin: Client,
    every_scope: Vec<String>,
    description: Description,
    _model: Model,
    _dir: tempfile::TempDir,
    issuer: Issuer,
    /// A tool server that wants a login.
    locked: OauthServer,
    /// Where notifications go.
    phone: Site,
    _machine: Agent,
    /// Things that were made, each with a name of its own.
    made: Cell<usize>,
    /// Hubs for what can be done once.
    fresh: RefCell<Vec<(Hub, tempfile::TempDir)>>,
}

/// How a route is called so that it succeeds.
struct Try {
    path: String,
    body: String,
    headers: Vec<(&'static str, String)>,
    /// Instead of a key with the route's scope.
    client: Option<Client>,
}

fn plain(path: impl Into<String>) -> Try {
    Try { path: path.into(), body: String::new(), headers: Vec::new(), client: None }
}

fn with(path: impl Into<String>, body: Value) -> Try {
    Try { body: body.to_string(), ..plain(path) }
}

impl World {
    fn start() -> Self {
        let (dir, model, issuer) = (tempfile::tempdir().unwrap(), Model::start(), Issuer::start());
        let phone = Site::start(|_, _, out| answer(out, 200, "", b"{}"));
        let ntfy =
            format!("type = \"ntfy\"\nserver = \"http://{}\"\ntopic = \"home\"\napprove_buttons = true", phone.address);
        let hash = bcrypt::hash(PASSWORD, 4).unwrap();
        let hub = Builder::new(dir.path())
            .model(&model)
            .config(&format!("[api]\nexternal_url = \"http://hub.lan\"\nlogin_rate_limit = 0\n[api.auth]\npassword_hash = '{hash}'"))
            .config(&format!(
                "[api.auth.oidc]\nenabled = true\nissuer = \"{}\"\nclient_id = \"{CLIENT}\"\nclient_secret = '{SECRET}'\n\
                 redirect_url = \"http://holt.test/auth/callback\"\nallowed_emails = [\"me@example.org\"]",
                issuer.url()
            ))
            .config(&format!("[fleet]\nshared_token = \"{SHARED}\"\n[notify.log]\ntype = \"console\"\n[notify.phone]\n{ntfy}"))
            .config(&table("scripted", &[]))
            .config("[otel]\nenabled = true\n[browser]\nenabled = true")
            .start();
        let made = std::process::Command::new(env!("CARGO_BIN_EXE_holt"))
            .args(["keys", "create", "root", "--scopes", "admin", "--data-dir"])
            .arg(dir.path())
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&made.stdout).into_owned();
        let start =
            printed.find("dk_").unwrap_or_else(|| panic!("{printed} {}", String::from_utf8_lossy(&made.stderr)));
        let key: String = printed[start..].chars().take_while(|c| !c.is_whitespace() && *c != '"').collect();
        let admin = hub.client().with_key(&key);
        let description = Description(admin.get("/api/v1/openapi.json").json());
        let every_scope = holt::auth::scope::VALID_SCOPES.iter().map(|&scope| scope.to_owned()).collect();
        let (machine, _) = Agent::join(&hub.address, SHARED, ID, "pi");
        let world = Self {
            hub,
            admin,
            every_scope,
            description,
            _model: model,
            _dir: dir,
            issuer,
            locked: OauthServer::start(),
            phone,
            _machine: machine,
            made: Cell::new(0),
            fresh: RefCell::default(),
        };
        let tools = world.key(&["tools:read"]);
        wait_until("the tool server is there", || {
            (tools.get("/api/v1/tools/scripted").json()["status"] == "connected").then_some(())
        });
        world
    }

    fn name(&self, kind: &str) -> String {
        self.made.set(self.made.get() + 1);
        format!("{kind}-{}", self.made.get())
    }

    fn key(&self, scopes: &[&str]) -> Client {
        self.admin.new_key("some", scopes)
    }

    /// A client that may do everything.
    fn all(&self) -> Client {
        let scopes: Vec<&str> = self.every_scope.iter().map(String::as_str).collect();
        self.admin.new_key("all", &scopes)
    }

    #[track_caller]
    fn make(&self, path: &str, body: Value) -> Value {
        let answer = self.all().post(path, &body.to_string());
        assert!((200..300).contains(&answer.status), "POST {path}: {} {}", answer.status, answer.text());
        answer.json()
    }

    fn logged_in(&self) -> Client {
        let answer = self.hub.client().post("/auth/login", &json!({"password": PASSWORD}).to_string());
        self.hub.client().with_cookie_of(&answer)
    }

    fn conversation(&self, text: &str) -> String {
        let id = self.name("c");
        self.make("/api/v1/chat", json!({"message": text, "session_id": id}));
        id
    }

    /// A turn that waits for somebody; its request for approval.
    fn approval(&self) -> (String, String) {
        let id = self.name("c");
        let mut socket = Socket::open(&self.all());
        socket.chat(&id, r#"tool kv_set {"key":"a","value":"1"}"#);
        loop {
            let frame = socket.next();
            if frame["type"] == "tool_approval" {
                return (frame["approval_id"].as_str().unwrap().to_owned(), id);
            }
        }
    }

    fn alert(&self) -> i64 {
        let target = self.name("/disk");
        let labels: BTreeMap<String, String> =
            [("check", "disk"), ("target", target.as_str())].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        let event = Event {
            time: clock::unix_s(),
            level: Level::Warning,
            key: key_of(&labels),
            labels,
            attrs: BTreeMap::new(),
            description: "full".to_owned(),
            format: String::new(),
        };
        let db = Arc::new(Db::open(&self.hub.dir.join("holt.db")).unwrap());
        let now = clock::unix_ms();
        AlertStore::new(db).take(ID, &[event], now, now).unwrap();
        let listed = self.all().get("/api/v1/alerts").json();
        let ours = listed["alerts"].as_array().unwrap().iter().find(|alert| alert["target"] == target.as_str());
        ours.unwrap()["id"].as_i64().unwrap()
    }

    /// A machine of its own: with the shared token, waiting for approval, or with its own token.
    fn machine(&self, how: &str) -> String {
        let id = id(self.made.get() + 1);
        self.name("m");
        match how {
            "waiting" => {
                let token = format!("hr_{}", "7".repeat(40));
                assert_eq!(Agent::join(&self.hub.address, &token, &id, "new").1["ok"], false);
            }
            "own" => {
                let code = self.make("/api/v1/machines/join-codes", json!({}));
                let secret = code["code"].as_str().unwrap().rsplit_once('_').unwrap().0.to_owned();
                let token =
                    Agent::join(&self.hub.address, &secret, &id, "own").1["new_token"].as_str().unwrap().to_owned();
                Agent::join(&self.hub.address, &token, &id, "own");
            }
            _ => drop(Agent::join(&self.hub.address, SHARED, &id, "shared")),
        }
        id
    }

    fn tool(&self) -> String {
        let name = self.name("tool");
        let mut body = config(&[]);
        body["name"] = json!(name);
        self.make("/api/v1/tools", body);
        name
    }

    fn agent(&self) -> String {
        let name = self.name("agent");
        self.make("/api/v1/agents", json!({ "name": name }));
        name
    }

    fn schedule(&self) -> String {
        let name = self.name("s");
        self.make("/api/v1/schedules", json!({"name": name, "schedule": "@daily", "channel": "api:x", "tags": ["t"]}));
        name
    }

    /// A tool server that waits for a login.
    fn locked_tool(&self) -> String {
        let name = self.name("locked");
        let url = self.locked.script.url("/mcp");
        let body = json!({"name": name, "transport": "sse", "url": url, "allow_loopback": true, "auth": "oauth"});
        self.make("/api/v1/tools", body);
        name
    }

    /// One without tools: nothing is started for it.
    fn plugin(&self) -> String {
        let name = self.name("plugin");
        self.make("/api/v1/plugins", json!({"name": name, "type": "subprocess", "command": "true"}));
        name
    }

    /// The path of a skill.
    fn skill(&self) -> String {
        let name = self.name("skill");
        let body = json!({"name": name, "description": "d", "triggers": ["command:x"], "body": "Do it."});
        self.make("/api/v1/skills/default", body);
        format!("/api/v1/skills/default/{name}")
    }

    /// Something that an agent changed about itself.
    fn change(&self) -> i64 {
        let name = self.name("skill");
        let arguments = json!({"name": name, "description": "d", "body": "Do it."});
        self.make("/api/v1/auto-approve", json!({"agent": "default", "tool": "skill_create"}));
        self.conversation(&format!("tool skill_create {arguments}"));
        let listed = self.all().get("/api/v1/journal").json();
        listed["entries"][0]["id"].as_i64().unwrap_or_else(|| panic!("{listed}"))
    }

    fn kv(&self) -> String {
        let path = format!("/api/v1/kv/default/{}", self.name("a/b"));
        assert_eq!(self.all().send("PUT", &path, r#"{"value":"x","ttl":"1h"}"#).status, 200);
        path
    }

    /// What each route needs to succeed. None: nobody has said.
    #[expect(clippy::too_many_lines, reason = "one line a route")]
    fn prepare(&self, operation: &Operation) -> Option<Try> {
        let path = operation.path.as_str();
        let on =
            |id: &str| path.split('/').map(|part| if part == "{id}" { id } else { part }).collect::<Vec<_>>().join("/");
        let named = |id: &str| path.replace("{name}", id);
        let what = format!("{} {}", operation.method, path.trim_start_matches("/api/v1"));
        Some(match what.as_str() {
            "GET /health" | "GET /healthz" => plain(format!("{path}?ready=true")),
            "GET /llms.txt" | "GET /metrics" | "GET /openapi.json" | "GET /auth/config" | "GET /auth/session"
            | "GET /setup" => plain(path),
            "POST /auth/login" => with(path, json!({"password": PASSWORD})),
            "POST /auth/logout" => plain(path),
            "GET /auth/sessions" => Try { client: Some(self.logged_in()), ..plain(path) },
            "DELETE /auth/sessions" => {
                let origin = format!("http://{}", self.hub.address);
                Try { client: Some(self.logged_in()), headers: vec![("Origin", origin)], ..plain(path) }
            }
            "DELETE /auth/sessions/{id}" => {
                let logins = self.logged_in().get("/api/v1/auth/sessions").json();
                plain(on(logins[0]["id"].as_str().unwrap()))
            }
            // The same again: others log in with it.
            "POST /auth/password" => with(path, json!({"current_password": PASSWORD, "new_password": PASSWORD})),
            "GET /auth/oidc/login" => plain(path),
            "GET /auth/callback" => {
                let begun = self.hub.client().get("/auth/oidc/login");
                let query = begun.header("location").split_once('?').unwrap().1;
                let code = self.issuer.grant(query, self.issuer.claims(query), Signing::default());
                let cookie = begun.header("set-cookie").split(';').next().unwrap().to_owned();
                let path = format!("{path}?code={code}&state={}", field(query, "state"));
                Try { headers: vec![("Cookie", cookie)], ..plain(path) }
            }
            "GET /auth/status" | "GET /keys" | "GET /audit" | "GET /audit/stats" | "GET /models" => plain(path),
            "GET /models/details" | "GET /sessions" | "GET /panic" | "GET /notifications" => plain(path),
            "GET /silences" | "GET /machines" | "GET /machines/join-codes" | "GET /tools" => plain(path),
            "POST /keys" => with(path, json!({"name": "k", "scopes": ["chat"]})),
            "DELETE /keys/{id}" | "POST /keys/{id}/rotate" => {
                plain(on(self.make("/api/v1/keys", json!({"name": "k", "scopes": ["chat"]}))["id"].as_str().unwrap()))
            }
            "DELETE /keys/{id}/permanent" => {
                let made = self.make("/api/v1/keys", json!({"name": "k", "scopes": ["chat"]}));
                let id = made["id"].as_str().unwrap();
                assert_eq!(self.admin.delete(&format!("/api/v1/keys/{id}")).status, 204);
                plain(on(id))
            }
            "GET /agents" => plain(path),
            "GET /agents/{name}" => plain(named("default")),
            "PATCH /costs/limits" => with(path, json!({"daily_limit_hard": 5.5, "total_limit_soft": null})),
            "PATCH /costs/prices" => with(path, json!({"model": "m.1", "input": 1, "output": 2.5})),
            "GET /costs" => {
                self.conversation("say hi");
                plain(path)
            }
            "GET /sessions/{id}" | "GET /sessions/{id}/messages" | "DELETE /sessions/{id}" => {
                plain(on(&self.conversation("say hi")))
            }
            "POST /sessions/{id}/stop" => {
                let (_, session) = self.approval();
                Try { client: Some(self.all()), ..plain(on(&session)) }
            }
            "GET /approvals" => {
                self.approval();
                plain(path)
            }
            "GET /approvals/{id}" | "POST /approvals/{id}/approve" | "POST /approvals/{id}/deny" => {
                plain(on(&self.approval().0))
            }
            "POST /approvals/{id}/button" => {
                let (approval, _) = self.approval();
                let path = on(&approval);
                let body = wait_until("the button is there", || {
                    self.phone.requests().iter().find_map(|request| {
                        let notice: Value = serde_json::from_str(request.split_once("\r\n\r\n")?.1).ok()?;
                        let actions = notice["actions"].as_array()?;
                        let ours = |action: &&Value| action["url"].as_str().is_some_and(|url| url.ends_with(&path));
                        actions.iter().find(ours)?["body"].as_str().map(str::to_owned)
                    })
                });
                Try { body, ..plain(path) }
            }
            "GET /auto-approve" | "POST /auto-approve" | "DELETE /auto-approve/{id}" => {
                let rule = json!({"agent": "default", "tool": self.name("t")});
                match operation.method.as_str() {
                    "POST" => with(path, rule),
                    _ => plain(on(self.make("/api/v1/auto-approve", rule)["id"].as_str().unwrap())),
                }
            }
            "POST /panic" | "POST /resume" | "GET /doctor" | "POST /backup" | "GET /journal" => plain(path),
            "GET /llm/providers" | "GET /server/config" | "POST /server/reload" => plain(path),
            "PATCH /llm/config" => with(path, json!({"cost_limit_soft": 0.5})),
            "PATCH /llm/providers/{name}" => with(named("anthropic"), json!({"base_url": "http://localhost:1/"})),
            "POST /llm/providers/{name}/test" => plain(named("openai")),
            "PATCH /server/config" => with(path, json!({"timezone": "Europe/Berlin"})),
            "POST /agents" => with(path, json!({"name": self.name("agent")})),
            "PATCH /agents/{name}" => with(named(&self.agent()), json!({"description": "does things"})),
            "DELETE /agents/{name}" => plain(named(&self.agent())),
            "GET /agents/{name}/persona/{section}" => plain("/api/v1/agents/default/persona/soul"),
            "PUT /agents/{name}/persona/{section}" => {
                with("/api/v1/agents/default/persona/soul", json!({"content": "Be kind."}))
            }
            "GET /skills" | "GET /skills/{agent}" => {
                self.skill();
                plain(path.replace("{agent}", "default"))
            }
            "POST /skills/{agent}" => {
                with("/api/v1/skills/default", json!({"name": self.name("skill"), "body": "Do it."}))
            }
            "GET /skills/{agent}/{name}" | "DELETE /skills/{agent}/{name}" => plain(self.skill()),
            "PUT /skills/{agent}/{name}" => with(self.skill(), json!({"description": "better"})),
            "GET /skills/{agent}/{name}/files" => plain(self.skill() + "/files"),
            "PUT /skills/{agent}/{name}/files/{path}" => with(self.skill() + "/files/a.md", json!({"content": "x"})),
            "GET /skills/{agent}/{name}/files/{path}" | "DELETE /skills/{agent}/{name}/files/{path}" => {
                let file = self.skill() + "/files/a.md";
                assert_eq!(self.all().send("PUT", &file, r#"{"content":"x"}"#).status, 200);
                plain(file)
            }
            "GET /journal/{id}" | "POST /journal/{id}/undo" => plain(on(&self.change().to_string())),
            "GET /schedules" => {
                self.schedule();
                plain(path)
            }
            "POST /schedules" => with(path, json!({"name": self.name("s"), "schedule": "@daily", "channel": "api:x"})),
            "POST /schedules/preview" => {
                with(path, json!({"schedule": "@hourly", "timezone": "Europe/Berlin", "n": 2}))
            }
            "PATCH /schedules/{name}" => with(named(&self.schedule()), json!({"schedule": "@weekly"})),
            "DELETE /schedules/{name}" | "POST /schedules/{name}/run" | "POST /schedules/{name}/dry-run" => {
                plain(named(&self.schedule()))
            }
            "GET /schedules/{name}/runs" => {
                let name = self.schedule();
                self.make(&format!("/api/v1/schedules/{name}/run"), json!({}));
                plain(named(&name))
            }
            "GET /plugins" | "GET /plugins/{name}" | "DELETE /plugins/{name}" => plain(named(&self.plugin())),
            "POST /plugins" => {
                with(path, json!({"name": self.name("plugin"), "type": "subprocess", "command": "true"}))
            }
            "GET /browser/profiles" | "GET /browser/sessions" | "GET /browser/config" => plain(path),
            "GET /browser/profiles/{name}" | "DELETE /browser/profiles/{name}" => {
                let name = self.name("profile");
                std::fs::create_dir_all(self.hub.dir.join("data/browser-profiles").join(&name)).unwrap();
                plain(named(&name))
            }
            "GET /tools/oauth/pending" => plain(path),
            "GET /tools/{name}/oauth" | "DELETE /tools/{name}/oauth/token" => plain(named("scripted")),
            "POST /tools/{name}/oauth/connect" => plain(named(&self.locked_tool())),
            "GET /tools/oauth/callback" => {
                let begun = self.make(&format!("/api/v1/tools/{}/oauth/connect", self.locked_tool()), json!({}));
                let page = begun["auth_url"].as_str().unwrap();
                plain(format!("{path}?code={}&state={}", self.locked.approve(page), field(page, "state")))
            }
            "POST /mcp" => with(path, json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})),
            "POST /chat" => with(path, json!({"message": "say hi"})),
            "GET /ws" => Try { headers: upgrade(), ..plain(path) },
            "GET /agent/ws" => {
                let mut headers = upgrade();
                headers.extend([
                    ("X-Agent-Token", SHARED.to_owned()),
                    ("X-Agent-Id", id(999)),
                    ("X-Proto-Version", "1".to_owned()),
                ]);
                Try { headers, ..plain(path) }
            }
            "POST /agent/llm/chat" => Try {
                headers: vec![("X-Agent-Token", SHARED.to_owned()), ("X-Agent-ID", ID.to_owned())],
                ..with(path, json!({"messages": [{"role": "user", "content": "say hi"}], "metadata": {}}))
            },
            "POST /tools" => {
                let mut body = config(&[]);
                body["name"] = json!(self.name("tool"));
                with(path, body)
            }
            "GET /tools/{name}" | "GET /tools/{name}/defs" | "GET /tools/{name}/health" | "GET /tools/{name}/logs" => {
                plain(named("scripted"))
            }
            "PUT /tools/{name}" => with(named(&self.tool()), config(&[])),
            "PUT /tools/{name}/disabled-tools" => with(named(&self.tool()), json!({"disabled_tools": ["echo"]})),
            "DELETE /tools/{name}"
            | "POST /tools/{name}/restart"
            | "POST /tools/{name}/enable"
            | "POST /tools/{name}/disable" => plain(named(&self.tool())),
            "GET /alerts" => {
                self.alert();
                plain(path)
            }
            "GET /alerts/{id}" | "POST /alerts/{id}/acknowledge" | "POST /alerts/{id}/close" => {
                plain(on(&self.alert().to_string()))
            }
            "POST /alerts/{id}/silence" => with(on(&self.alert().to_string()), json!({"for": "1h", "note": "known"})),
            "POST /silences" => with(path, json!({"matchers": {"check": "disk*"}, "for": "1h"})),
            "DELETE /silences/{id}" => {
                let made = self.make("/api/v1/silences", json!({"matchers": {"check": "x"}, "for": "1h"}));
                plain(on(made["id"].as_str().unwrap()))
            }
            "GET /kv/{agent}" => {
                self.kv();
                plain("/api/v1/kv/default")
            }
            "PUT /kv/{agent}/{key}" => with(self.kv(), json!({"value": "y"})),
            "GET /kv/{agent}/{key}" | "DELETE /kv/{agent}/{key}" => plain(self.kv()),
            "POST /notifications/test" => with(path, json!({"channel": "log"})),
            "PUT /notifications/channels/{name}" => with(named("made"), json!({"type": "console"})),
            "DELETE /notifications/channels/{name}" => {
                let made = self.admin.send("PUT", "/api/v1/notifications/channels/gone", r#"{"type":"console"}"#);
                assert_eq!(made.status, 200, "{}", made.text());
                plain(named("gone"))
            }
            "DELETE /notifications/{id}" => {
                let conn = self.hub.database();
                conn.execute(
                    "INSERT INTO notices (channel, dedup, body, state, next_at, created_at) \
                     VALUES ('gone', 'x', '{}', 'failed', 0, 0)",
                    [],
                )
                .unwrap();
                plain(on(&conn.last_insert_rowid().to_string()))
            }
            "GET /machines/{id}"
            | "PATCH /machines/{id}"
            | "GET /machines/{id}/readings"
            | "GET /machines/{id}/sessions" => {
                let body = if operation.method == "PATCH" { r#"{"display_name":"Attic"}"# } else { "" };
                Try { body: body.to_owned(), ..plain(on(ID)) }
            }
            "DELETE /machines/{id}" | "POST /machines/{id}/revoke" => plain(on(&self.machine("shared"))),
            "POST /machines/{id}/approve" => plain(on(&self.machine("waiting"))),
            "POST /machines/{id}/rotate" => plain(on(&self.machine("own"))),
            // Who may talk to which machine is a matter of more than the scope.
            "POST /machines/{id}/sessions" => {
                Try { client: Some(self.all()), ..with(on(ID), json!({"type": "inspect"})) }
            }
            "POST /machines/join-codes" => with(path, json!({"name": "shed"})),
            "DELETE /machines/join-codes/{id}" => {
                plain(on(self.make("/api/v1/machines/join-codes", json!({}))["id"].as_str().unwrap()))
            }
            _ => return None,
        })
    }

    /// Calls a route as prepared; with a key that holds its scope and no other.
    fn call(&self, operation: &Operation, prepared: &Try) -> Answer {
        let mut client = match (&prepared.client, operation.scopes.first()) {
            (Some(client), _) => client.clone(),
            (None, None) => self.hub.client(),
            (None, Some(scope)) if scope.is_empty() => self.key(&["kv:read"]),
            // Who may read or end a conversation depends on whose it is.
            (None, Some(scope)) => self.key(&[scope]),
        };
        for (name, value) in &prepared.headers {
            client = client.with(name, value);
        }
        client.send(&operation.method, &prepared.path, &prepared.body)
    }
}

fn upgrade() -> Vec<(&'static str, String)> {
    [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
        .into_iter()
        .chain([("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")])
        .map(|(name, value)| (name, value.to_owned()))
        .collect()
}

/// Rows of our table: method, path, scopes, status.
fn golden() -> Vec<(String, String, Vec<String>, String)> {
    include_str!("golden/routes.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut cells = line.split('\t').map(str::to_owned);
            let mut cell = || cells.next().unwrap_or_else(|| panic!("{line}"));
            let (method, path, scopes, status) = (cell(), cell(), cell(), cell());
            let scopes = match scopes.as_str() {
                "-" => Vec::new(),
                "any" => vec![String::new()],
                some => some.split('|').map(str::to_owned).collect(),
            };
            (method, path.replace("...}", "}"), scopes, status)
        })
        .collect()
}

#[test]
fn every_route_is_in_the_table_and_every_row_is_a_route() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    assert_eq!(hub.client().get("/api/v1/openapi.json").status, 401);
    let admin = hub.admin();
    let answer = admin.new_key("any", &["kv:read"]).get("/api/v1/openapi.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let description = Description(answer.json());
    assert_eq!(description.0["openapi"], "3.1.0");
    let operations = description.operations();
    let rows = golden();
    let mut wrong = Vec::new();
    for operation in &operations {
        let row = rows.iter().find(|row| row.0 == operation.method && row.1 == operation.path);
        match row {
            None => wrong.push(format!("{} {} is in no row", operation.method, operation.path)),
            Some((_, _, scopes, status)) => {
                let described = operation.body["responses"].as_object().unwrap();
                if !described.contains_key(status) {
                    wrong.push(format!("{} {} says nothing of {status}", operation.method, operation.path));
                }
                if *scopes != operation.scopes || scopes.is_empty() != operation.is_open {
                    wrong.push(format!("{} {} needs {:?}", operation.method, operation.path, operation.scopes));
                }
                if operation.body["summary"].as_str().is_none_or(str::is_empty) {
                    wrong.push(format!("{} {} has no summary", operation.method, operation.path));
                }
            }
        }
    }
    for (method, path, ..) in &rows {
        let name = format!("{method} {path}");
        let is_there = operations.iter().any(|operation| operation.method == *method && operation.path == *path);
        if !is_there && !NOT_YET.iter().any(|part| name.contains(part)) {
            wrong.push(format!("{name} is not there"));
        }
    }
    let mut ids: Vec<&str> = operations.iter().map(|o| o.body["operationId"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), operations.len(), "operation ids are unique");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let llms = hub.client().get("/llms.txt");
    assert!(llms.status == 200 && llms.text().contains("/api/v1/openapi.json"), "{}", llms.text());
    assert!(llms.header("content-type").starts_with("text/plain"));
}

#[test]
fn every_route_answers_as_described() {
    let world = World::start();
    let rows = golden();
    let mut wrong = Vec::new();
    for operation in world.description.operations() {
        let name = format!("{} {}", operation.method, operation.path);
        let status: u16 = rows
            .iter()
            .find(|row| row.0 == operation.method && row.1 == operation.path)
            .map_or(0, |row| row.3.parse().unwrap());
        let Some(prepared) = world.prepare(&operation).or_else(|| once(&world, &name)) else {
            wrong.push(format!("{name}: nothing is prepared for it"));
            continue;
        };
        let answer = world.call(&operation, &prepared);
        if operation.path == "/api/v1/panic" {
            assert_eq!(world.admin.post("/api/v1/resume", "").status, 200);
        }
        if answer.status != status {
            wrong.push(format!("{name}: {} instead of {status}: {}", answer.status, answer.text()));
            continue;
        }
        let described = &operation.body["responses"][status.to_string()];
        let content = described["content"].as_object();
        let media = answer.header("content-type").split(';').next().unwrap().to_owned();
        match content.and_then(|content| content.get(&media)) {
            Some(kind) if media == "application/json" => {
                for fault in world.description.faults(&kind["schema"], &answer.json()) {
                    wrong.push(format!("{name}: {fault}"));
                }
            }
            Some(_) => {}
            None if content.is_none() && answer.body.is_empty() => {}
            None => wrong.push(format!("{name}: answers {media:?}, which is not described")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!world.hub.log_contains("panicked at"));
}

/// What can be done once in a hub's life.
fn once(world: &World, name: &str) -> Option<Try> {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let (mut client, pin) = (hub.client(), hub.pin.clone().unwrap());
    if name == "POST /api/v1/server/restart" {
        client = hub.admin();
    }
    world.fresh.borrow_mut().push((hub, dir));
    let (path, body) = match name {
        "POST /api/v1/setup" => ("/api/v1/setup", json!({"name": "first", "scopes": ["admin"]})),
        "POST /api/v1/setup/account" => ("/api/v1/setup/account", json!({"pin": pin, "password": PASSWORD})),
        "POST /api/v1/server/restart" => ("/api/v1/server/restart", json!({})),
        _ => return None,
    };
    Some(Try { client: Some(client), ..with(path, body) })
}

#[test]
fn every_route_turns_away_who_may_not() {
    let world = World::start();
    let nobody = world.hub.client();
    let wrong_key = world.hub.client().with_key("dk_wrong");
    let mut wrong = Vec::new();
    for operation in world.description.operations() {
        let name = format!("{} {}", operation.method, operation.path);
        let path = operation.path.replace(['{', '}'], "");
        let mut expect = |what: &str, answer: &Answer, status: u16| {
            // Machines know a shape of their own.
            let is_json = serde_json::from_slice::<Value>(&answer.body)
                .is_ok_and(|body| body["code"].is_string() || body["error"]["code"].is_string());
            if answer.status != status || !is_json {
                wrong.push(format!("{name} {what}: {} {}", answer.status, answer.text()));
            }
        };
        if path.starts_with("/api/") || path.starts_with("/auth/") {
            let answer = nobody.send("BREW", &path, "");
            expect("BREW", &answer, 405);
            assert!(answer.header("allow").split(", ").any(|method| method == operation.method), "{name}");
        }
        if operation.is_open {
            continue;
        }
        let answer = nobody.send(&operation.method, &path, "{}");
        expect("without a key", &answer, 401);
        assert_eq!(answer.header("x-auth-failure"), "credential-missing", "{name}");
        let answer = wrong_key.send(&operation.method, &path, "{}");
        expect("with a wrong key", &answer, 401);
        assert_eq!(answer.header("x-auth-failure"), "credential-invalid", "{name}");
        if operation.scopes.iter().all(|scope| scope.is_empty()) {
            continue;
        }
        let others: Vec<&str> =
            world.every_scope.iter().filter(|scope| !operation.scopes.contains(scope)).map(String::as_str).collect();
        let answer = world.key(&others).send(&operation.method, &path, "{}");
        expect("with every scope but its own", &answer, 403);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_switched_off_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path())
        .config("[fleet]\nshared_token = \"a token that all machines share\"\n[fleet.gateway]\nenabled = false")
        .config("[api]\nwebsocket_enabled = false")
        .start();
    let admin = hub.admin();
    let machine = hub.client().with("X-Agent-Token", SHARED).with("X-Agent-ID", ID);
    let answer = machine.post("/api/v1/agent/llm/chat", "{}");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(admin.get("/api/v1/ws").status, 404);
    assert_eq!(hub.client().get("/api/v1/health").json()["ws_enabled"], false);
    // Nothing but the page answers where nothing is.
    for path in ["/metrics", "/api/v1/nothing", "/auth/nothing", "/auth/oidc/login"] {
        let answer = admin.get(path);
        assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("not_found")), "{path}");
    }
}
