//! The one table of routes, and how a path finds its row (contract 1.4; W-38).

use tiny_http::Method;

use crate::api::error::ApiError;
use crate::api::message::{Reply, Req, percent_decode};
use crate::api::server::Ctx;
use crate::api::{
    agent_link, agents, agents_change, alerts, approvals, audit, backup, browser, channels, chat, costs, doctor,
    gateway, health, journal, keys, kv, llm_settings, login, login_sessions, machine_sessions, machines, mcp, metrics,
    models, notifications, oidc, openapi, panic, password, persona, plugins, schedules, server_settings, sessions,
    setup, skills, tools, tools_oauth, ws,
};
use crate::auth::{ANY_SCOPE, Identity};
use crate::limits;
use crate::rt::order::Order;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Everybody.
    Open,
    /// Holders of one of these scopes; the handler may ask for more.
    Scope(&'static [&'static str]),
    /// Like `Scope`, and the key may also be in the query (`token`): browsers cannot set headers on a WebSocket.
    Socket(&'static [&'static str]),
}

/// A handler: plain data in, plain data out.
pub type Handler = fn(&Ctx, &Call<'_>) -> Result<Reply, ApiError>;

/// What a handler is called with.
pub struct Call<'a> {
    pub req: &'a Req,
    pub params: Params,
    /// Present unless the guard is [`Guard::Open`].
    pub caller: Option<Identity>,
}

/// One row.
pub struct Route {
    pub method: &'static str,
    /// Segments are literals or `{name}`; a last `{name...}` is all that follows, slashes included, even if it is empty.
    pub pattern: &'static str,
    pub guard: Guard,
    pub handler: Handler,
    /// Bodies beyond the general limit, if there are any.
    pub large: Option<Large>,
    /// Bytes of the pattern before its first parameter: most rows are told apart by them.
    literal: usize,
}

/// Bodies beyond the general limit: nothing of them is read before somebody has looked at the head.
#[derive(Clone, Copy)]
pub struct Large {
    pub bytes_max: usize,
    /// Whether whoever sends the head may send such a body.
    pub allow: fn(&Ctx, &Req) -> Result<(), ApiError>,
}

const CALLER: Guard = Guard::Scope(&[ANY_SCOPE]);
const ADMIN: Guard = Guard::Scope(&["admin"]);
const AGENTS_WRITE: Guard = Guard::Scope(&["agents:write"]);
const SCHEDULES_READ: Guard = Guard::Scope(&["schedules:read"]);
const SCHEDULES_WRITE: Guard = Guard::Scope(&["schedules:write"]);
const TOOLS_READ: Guard = Guard::Scope(&["tools:read"]);
const MACHINES_READ: Guard = Guard::Scope(&["machines:read"]);
const MACHINES_WRITE: Guard = Guard::Scope(&["machines:write"]);
const SKILLS_READ: Guard = Guard::Scope(&["skills:read"]);
const SKILLS_WRITE: Guard = Guard::Scope(&["skills:write"]);
const TOOLS_WRITE: Guard = Guard::Scope(&["tools:write"]);

const fn route(method: &'static str, pattern: &'static str, guard: Guard, handler: Handler) -> Route {
    Route { method, pattern, guard, handler, large: None, literal: literal_len(pattern) }
}

const fn literal_len(pattern: &str) -> usize {
    let mut at = 0;
    while at < pattern.len() && pattern.as_bytes()[at] != b'{' {
        at += 1;
    }
    at
}

const fn large(route: Route, bytes_max: usize, allow: fn(&Ctx, &Req) -> Result<(), ApiError>) -> Route {
    Route { large: Some(Large { bytes_max, allow }), ..route }
}

/// Every route; the page serves what is none of them. Each is described in `openapi/routes.txt`. Literal segments beat parameters, whatever the order.
pub static ROUTES: &[Route] = &[
    route("GET", "/api/v1/health", Guard::Open, health::health),
    route("GET", "/healthz", Guard::Open, health::health),
    route("GET", "/metrics", Guard::Open, metrics::page),
    route("GET", "/llms.txt", Guard::Open, openapi::llms),
    route("GET", "/api/v1/openapi.json", CALLER, openapi::document),
    route("POST", "/api/v1/mcp", CALLER, mcp::serve),
    route("GET", "/auth/config", Guard::Open, login::config),
    route("POST", "/auth/login", Guard::Open, login::login),
    route("POST", "/auth/logout", Guard::Open, login::logout),
    route("GET", "/auth/session", Guard::Open, login::session),
    route("GET", "/auth/oidc/login", Guard::Open, oidc::login),
    route("GET", "/auth/callback", Guard::Open, oidc::callback),
    route("GET", "/api/v1/setup", Guard::Open, setup::status),
    route("POST", "/api/v1/setup", Guard::Open, setup::first_key),
    route("POST", "/api/v1/setup/account", Guard::Open, setup::account),
    route("GET", "/api/v1/keys", ADMIN, keys::list),
    route("POST", "/api/v1/keys", ADMIN, keys::create),
    route("DELETE", "/api/v1/keys/{id}", ADMIN, keys::revoke),
    route("DELETE", "/api/v1/keys/{id}/permanent", ADMIN, keys::delete),
    route("POST", "/api/v1/keys/{id}/rotate", ADMIN, keys::rotate),
    route("GET", "/api/v1/auth/sessions", ADMIN, login_sessions::list),
    route("DELETE", "/api/v1/auth/sessions", ADMIN, login_sessions::revoke_all),
    route("DELETE", "/api/v1/auth/sessions/{id}", ADMIN, login_sessions::revoke),
    route("POST", "/api/v1/auth/password", ADMIN, password::change),
    route("GET", "/api/v1/auth/status", ADMIN, login_sessions::status),
    route("GET", "/api/v1/audit", Guard::Scope(&["audit:read"]), audit::list),
    route("GET", "/api/v1/audit/stats", Guard::Scope(&["audit:read"]), audit::stats),
    route("POST", "/api/v1/backup", ADMIN, backup::make),
    route("GET", "/api/v1/doctor", ADMIN, doctor::examine),
    route("GET", "/api/v1/agents", ADMIN, agents::list),
    route("POST", "/api/v1/agents", AGENTS_WRITE, agents_change::create),
    route("GET", "/api/v1/agents/{name}", ADMIN, agents::get),
    route("PATCH", "/api/v1/agents/{name}", AGENTS_WRITE, agents_change::change),
    route("DELETE", "/api/v1/agents/{name}", AGENTS_WRITE, agents_change::delete),
    route("GET", "/api/v1/llm/providers", ADMIN, llm_settings::list),
    route("PATCH", "/api/v1/llm/providers/{name}", ADMIN, llm_settings::change_provider),
    route("POST", "/api/v1/llm/providers/{name}/test", ADMIN, llm_settings::test),
    route("PATCH", "/api/v1/llm/config", ADMIN, llm_settings::change),
    route("GET", "/api/v1/server/config", ADMIN, server_settings::get),
    route("PATCH", "/api/v1/server/config", ADMIN, server_settings::change),
    route("POST", "/api/v1/server/reload", ADMIN, server_settings::reload),
    route("POST", "/api/v1/server/restart", ADMIN, server_settings::restart),
    route("GET", "/api/v1/agents/{name}/persona/{section}", Guard::Scope(&["agents:read"]), persona::get),
    route("PUT", "/api/v1/agents/{name}/persona/{section}", Guard::Scope(&["agents:write"]), persona::put),
    route("GET", "/api/v1/skills", SKILLS_READ, skills::list),
    route("GET", "/api/v1/skills/{agent}", SKILLS_READ, skills::list_of),
    route("POST", "/api/v1/skills/{agent}", SKILLS_WRITE, skills::create),
    route("GET", "/api/v1/skills/{agent}/{name}", SKILLS_READ, skills::get),
    route("PUT", "/api/v1/skills/{agent}/{name}", SKILLS_WRITE, skills::update),
    route("DELETE", "/api/v1/skills/{agent}/{name}", SKILLS_WRITE, skills::delete),
    route("GET", "/api/v1/skills/{agent}/{name}/files", SKILLS_READ, skills::files),
    route("GET", "/api/v1/skills/{agent}/{name}/files/{path...}", SKILLS_READ, skills::file),
    route("PUT", "/api/v1/skills/{agent}/{name}/files/{path...}", SKILLS_WRITE, skills::put_file),
    route("DELETE", "/api/v1/skills/{agent}/{name}/files/{path...}", SKILLS_WRITE, skills::delete_file),
    route("GET", "/api/v1/journal", Guard::Scope(&["agents:read"]), journal::list),
    route("GET", "/api/v1/journal/{id}", Guard::Scope(&["agents:read"]), journal::get),
    route("POST", "/api/v1/journal/{id}/undo", Guard::Scope(&["agents:write"]), journal::undo),
    route("GET", "/api/v1/models", Guard::Scope(&["agents:read"]), models::list),
    route("GET", "/api/v1/models/details", Guard::Scope(&["agents:read"]), models::details),
    route("GET", "/api/v1/sessions", Guard::Scope(&["sessions:read"]), sessions::list),
    route("GET", "/api/v1/sessions/{id}", Guard::Scope(&["sessions:read", "chat"]), sessions::get),
    route("DELETE", "/api/v1/sessions/{id}", Guard::Scope(&["sessions:write", "admin"]), sessions::delete),
    route("GET", "/api/v1/sessions/{id}/messages", Guard::Scope(&["sessions:read", "chat"]), sessions::messages),
    route("POST", "/api/v1/sessions/{id}/stop", Guard::Scope(&["chat"]), sessions::stop),
    route("GET", "/api/v1/approvals", Guard::Scope(&["approvals:read"]), approvals::list),
    route("GET", "/api/v1/approvals/{id}", Guard::Scope(&["approvals:read"]), approvals::get),
    route("POST", "/api/v1/approvals/{id}/approve", Guard::Scope(&["approvals:write"]), approvals::approve),
    route("POST", "/api/v1/approvals/{id}/deny", Guard::Scope(&["approvals:write"]), approvals::deny),
    // Its token is its credential.
    route("POST", "/api/v1/approvals/{id}/button", Guard::Open, approvals::button),
    route("GET", "/api/v1/auto-approve", Guard::Scope(&["approvals:read"]), approvals::rules),
    route("POST", "/api/v1/auto-approve", Guard::Scope(&["approvals:write"]), approvals::add_rule),
    route("DELETE", "/api/v1/auto-approve/{id}", Guard::Scope(&["approvals:write"]), approvals::remove_rule),
    route("GET", "/api/v1/panic", ADMIN, panic::state),
    route("POST", "/api/v1/panic", ADMIN, panic::panic),
    route("POST", "/api/v1/resume", ADMIN, panic::resume),
    route("POST", "/api/v1/chat", Guard::Scope(&["chat"]), chat::chat),
    route("POST", "/api/v1/machines/{id}/sessions", Guard::Scope(&["chat"]), machine_sessions::start),
    route("GET", "/api/v1/tools", TOOLS_READ, tools::list),
    route("POST", "/api/v1/tools", TOOLS_WRITE, tools::create),
    route("GET", tools_oauth::CALLBACK_PATH, Guard::Open, tools_oauth::callback),
    route("GET", "/api/v1/tools/oauth/pending", TOOLS_READ, tools_oauth::pending),
    route("GET", "/api/v1/tools/{name}/oauth", TOOLS_READ, tools_oauth::token),
    route("POST", "/api/v1/tools/{name}/oauth/connect", TOOLS_WRITE, tools_oauth::connect),
    route("DELETE", "/api/v1/tools/{name}/oauth/token", TOOLS_WRITE, tools_oauth::forget),
    route("GET", "/api/v1/tools/{name}", TOOLS_READ, tools::get),
    route("PUT", "/api/v1/tools/{name}", TOOLS_WRITE, tools::update),
    route("DELETE", "/api/v1/tools/{name}", TOOLS_WRITE, tools::delete),
    route("GET", "/api/v1/tools/{name}/defs", TOOLS_READ, tools::definitions),
    route("GET", "/api/v1/tools/{name}/health", TOOLS_READ, tools::health),
    route("GET", "/api/v1/tools/{name}/logs", TOOLS_READ, tools::logs),
    route("POST", "/api/v1/tools/{name}/restart", TOOLS_WRITE, tools::restart),
    route("POST", "/api/v1/tools/{name}/enable", TOOLS_WRITE, tools::enable),
    route("POST", "/api/v1/tools/{name}/disable", TOOLS_WRITE, tools::disable),
    route("PUT", "/api/v1/tools/{name}/disabled-tools", TOOLS_WRITE, tools::disabled_tools),
    route("GET", "/api/v1/plugins", TOOLS_READ, plugins::list),
    route("POST", "/api/v1/plugins", TOOLS_WRITE, plugins::create),
    route("GET", "/api/v1/plugins/{name}", TOOLS_READ, plugins::get),
    route("DELETE", "/api/v1/plugins/{name}", TOOLS_WRITE, plugins::delete),
    route("GET", "/api/v1/browser/profiles", Guard::Scope(&["browser:read"]), browser::profiles),
    route("GET", "/api/v1/browser/profiles/{name}", Guard::Scope(&["browser:read"]), browser::profile),
    route("DELETE", "/api/v1/browser/profiles/{name}", Guard::Scope(&["browser:write"]), browser::delete),
    route("GET", "/api/v1/browser/sessions", Guard::Scope(&["browser:read"]), browser::sessions),
    route("GET", "/api/v1/browser/config", Guard::Scope(&["browser:read"]), browser::config),
    route("GET", "/api/v1/costs", Guard::Scope(&["costs:read"]), costs::costs),
    route("PATCH", "/api/v1/costs/limits", ADMIN, costs::set_limits),
    route("PATCH", "/api/v1/costs/prices", ADMIN, costs::set_price),
    route("GET", "/api/v1/alerts", MACHINES_READ, alerts::list),
    route("GET", "/api/v1/alerts/{id}", MACHINES_READ, alerts::get),
    route("POST", "/api/v1/alerts/{id}/acknowledge", MACHINES_WRITE, alerts::acknowledge),
    route("POST", "/api/v1/alerts/{id}/silence", MACHINES_WRITE, alerts::silence),
    route("POST", "/api/v1/alerts/{id}/close", MACHINES_WRITE, alerts::close),
    route("GET", "/api/v1/silences", MACHINES_READ, alerts::silences),
    route("POST", "/api/v1/silences", MACHINES_WRITE, alerts::add_silence),
    route("DELETE", "/api/v1/silences/{id}", MACHINES_WRITE, alerts::remove_silence),
    large(
        route("POST", gateway::PATH, Guard::Open, gateway::chat),
        limits::GATEWAY_BODY_BYTES_MAX,
        gateway::allow_body,
    ),
    route("GET", "/api/v1/kv/{agent}", Guard::Scope(&["kv:read"]), kv::list),
    route("GET", "/api/v1/kv/{agent}/{key...}", Guard::Scope(&["kv:read"]), kv::get),
    route("PUT", "/api/v1/kv/{agent}/{key...}", Guard::Scope(&["kv:write"]), kv::put),
    route("DELETE", "/api/v1/kv/{agent}/{key...}", Guard::Scope(&["kv:write"]), kv::delete),
    route("GET", "/api/v1/schedules", SCHEDULES_READ, schedules::list),
    route("POST", "/api/v1/schedules", SCHEDULES_WRITE, schedules::create),
    route("POST", "/api/v1/schedules/preview", SCHEDULES_READ, schedules::preview),
    route("PATCH", "/api/v1/schedules/{name}", SCHEDULES_WRITE, schedules::update),
    route("DELETE", "/api/v1/schedules/{name}", SCHEDULES_WRITE, schedules::delete),
    route("GET", "/api/v1/schedules/{name}/runs", SCHEDULES_READ, schedules::runs),
    route("POST", "/api/v1/schedules/{name}/run", SCHEDULES_WRITE, schedules::run),
    route("POST", "/api/v1/schedules/{name}/dry-run", SCHEDULES_READ, schedules::dry_run),
    route("GET", "/api/v1/notifications", Guard::Scope(&["machines:read"]), notifications::list),
    route("POST", "/api/v1/notifications/test", Guard::Scope(&["machines:write"]), notifications::test),
    route("PUT", "/api/v1/notifications/channels/{name}", ADMIN, channels::put),
    route("DELETE", "/api/v1/notifications/channels/{name}", ADMIN, channels::remove),
    route("DELETE", "/api/v1/notifications/{id}", Guard::Scope(&["machines:write"]), notifications::delete),
    route("GET", "/api/v1/ws", Guard::Socket(&["chat"]), ws::upgrade),
    // Its own credentials: see `agent_link`.
    route("GET", "/api/v1/agent/ws", Guard::Open, agent_link::upgrade),
    route("GET", "/api/v1/machines", MACHINES_READ, machines::list),
    route("GET", "/api/v1/machines/join-codes", MACHINES_WRITE, machines::codes),
    route("POST", "/api/v1/machines/join-codes", MACHINES_WRITE, machines::add_code),
    route("DELETE", "/api/v1/machines/join-codes/{id}", MACHINES_WRITE, machines::remove_code),
    route("GET", "/api/v1/machines/{id}", MACHINES_READ, machines::get),
    route("PATCH", "/api/v1/machines/{id}", MACHINES_WRITE, machines::change),
    route("DELETE", "/api/v1/machines/{id}", MACHINES_WRITE, machines::forget),
    route("POST", "/api/v1/machines/{id}/approve", MACHINES_WRITE, machines::approve),
    route("POST", "/api/v1/machines/{id}/revoke", MACHINES_WRITE, machines::revoke),
    route("POST", "/api/v1/machines/{id}/rotate", MACHINES_WRITE, machines::rotate),
    route("GET", "/api/v1/machines/{id}/readings", MACHINES_READ, machines::readings),
    route("GET", "/api/v1/machines/{id}/sessions", MACHINES_READ, machines::sessions),
];

/// Values of a pattern's parameters, decoded.
#[derive(Default)]
pub struct Params(Vec<(&'static str, String)>);

impl Params {
    /// Those values, decoded.
    pub(super) fn of(values: Vec<(&'static str, String)>) -> Self {
        Self(values)
    }

    /// The value of `{name}`; empty when the pattern has none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// What a path and method lead to.
pub enum Found {
    Route(&'static Route, Params),
    /// The path exists with these methods.
    WrongMethod(String),
    /// No such path.
    Nothing,
}

/// Finds the row of a request. A GET row also serves HEAD.
pub fn find(method: &Method, path: &str) -> Found {
    let wanted = if *method == Method::Head { "GET" } else { method.as_str() };
    let mut best: Option<(&'static Route, Params)> = None;
    let mut allowed: Vec<&str> = Vec::new();
    for route in ROUTES {
        if !path.as_bytes().starts_with(&route.pattern.as_bytes()[..route.literal]) {
            continue;
        }
        let Some(params) = matches(route.pattern, path) else { continue };
        if route.method != wanted {
            allowed.push(route.method);
            continue;
        }
        let fewer = best.as_ref().is_none_or(|(_, known)| params.0.len() < known.0.len());
        if fewer {
            let literal = params.0.is_empty();
            best = Some((route, params));
            if literal {
                break;
            }
        }
    }
    match best {
        Some((route, params)) => Found::Route(route, params),
        None if allowed.is_empty() => Found::Nothing,
        None => {
            if allowed.contains(&"GET") {
                allowed.push("HEAD");
            }
            allowed.order();
            allowed.dedup();
            Found::WrongMethod(allowed.join(", "))
        }
    }
}

fn matches(pattern: &'static str, path: &str) -> Option<Params> {
    if !pattern.contains('{') {
        return (pattern == path).then(Params::default);
    }
    let mut params = Params::default();
    let (pattern, rest) = match pattern.strip_suffix("...}").and_then(|pattern| pattern.rsplit_once("/{")) {
        Some((pattern, name)) => (pattern, Some(name)),
        None => (pattern, None),
    };
    let n_segments = pattern.split('/').count();
    let mut segments = path.splitn(n_segments + 1, '/');
    for expected in pattern.split('/') {
        let segment = segments.next()?;
        match expected.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            None if expected == segment => {}
            None => return None,
            Some(name) if !segment.is_empty() => params.0.push((name, percent_decode(segment, false)?)),
            Some(_) => return None,
        }
    }
    match (rest, segments.next()) {
        (None, None) => Some(params),
        (Some(name), Some(rest)) => {
            params.0.push((name, percent_decode(rest, false)?));
            Some(params)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_their_rows() {
        let check = |method: &str, path: &str, expected: &str| {
            let found = match find(&method.parse().unwrap(), path) {
                Found::Route(route, params) => {
                    let values: Vec<String> = params.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
                    format!("{} {}", route.pattern, values.join(","))
                }
                Found::WrongMethod(allow) => format!("405 {allow}"),
                Found::Nothing => "404".to_owned(),
            };
            assert_eq!(found.trim_end(), expected, "{method} {path}");
        };
        check("GET", "/api/v1/health", "/api/v1/health");
        check("HEAD", "/api/v1/health", "/api/v1/health");
        check("POST", "/api/v1/health", "405 GET, HEAD");
        check("GET", "/api/v1/health/", "404");
        check("GET", "/api/v1/sessions/a%2Fb/messages", "/api/v1/sessions/{id}/messages id=a/b");
        check("GET", "/api/v1/sessions/default:telegram:1", "/api/v1/sessions/{id} id=default:telegram:1");
        check("PUT", "/api/v1/sessions/x", "405 DELETE, GET, HEAD");
        check("DELETE", "/api/v1/keys/1/permanent", "/api/v1/keys/{id}/permanent id=1");
        check("GET", "/api/v1/sessions//messages", "404");
        check("GET", "/api/v1/sessions/%ff", "404");
        check("GET", "/api/v1/kv/a", "/api/v1/kv/{agent} agent=a");
        check("GET", "/api/v1/kv/a/", "/api/v1/kv/{agent}/{key...} agent=a,key=");
        check("DELETE", "/api/v1/kv/a/x/y%2Fz/", "/api/v1/kv/{agent}/{key...} agent=a,key=x/y/z/");
        check("PUT", "/api/v1/kv/a", "405 GET, HEAD");
        check("POST", "/api/v1/kv/a/k", "405 DELETE, GET, HEAD, PUT");
        check("GET", "/api/v1/kv/a/%zz", "404");
        check("GET", "/api/v1/kv/", "404");
        check("BREW", "/auth/login", "405 POST");
        check("GET", "/nothing", "404");
    }

    #[test]
    fn no_row_stands_twice() {
        for (index, route) in ROUTES.iter().enumerate() {
            let twins = ROUTES[index + 1..].iter().filter(|o| o.method == route.method && o.pattern == route.pattern);
            assert_eq!(twins.count(), 0, "{} {}", route.method, route.pattern);
        }
    }
}
