//! Tool servers (contract http-api 11.1; W-17, W-27, W-31).
//!
//! Reading never waits. A change waits for servers to start and end, so it runs on a thread of its own and answers
//! when it is done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

use crate::api::error::ApiError;
use crate::api::login::{decode, json_line};
use crate::api::message::{Reply, Responder, Response, no_content};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::audit::{Entry, Outcome};
use crate::config::{PartOf, ToolServerConfig};
use crate::rt::fields::typed;
use crate::rt::json::quoted;
use crate::rt::order::gather;
use crate::rt::{clock, lock};
use crate::tools::servers::{ChangeError, START_FAILED, Status, ToolServers, audit_detail};

/// What stands for a value that the caller may not see; sent back, it means the value that is there.
pub(super) const MASK: &str = "***";
const ENABLE: &str = "tool_server.enable";

/// A server's configuration as clients send it. `null` and absent are the same.
#[derive(Default)]
struct ServerBody {
    name: String,
    transport: String,
    command: String,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    url: String,
    headers: BTreeMap<String, String>,
    request_timeout_secs: i64,
    auth: String,
    client_id: String,
    client_secret: String,
    scopes: Vec<String>,
    allow_loopback: bool,
    /// Holt's own; the tools that are disabled now, when it is not given.
    disabled_tools: Option<Vec<String>>,
}

typed!(ServerBody {
    name,
    transport,
    command,
    args,
    env,
    url,
    headers,
    request_timeout_secs,
    auth,
    client_id,
    client_secret,
    scopes,
    allow_loopback,
    disabled_tools
});

#[derive(Default)]
struct DisabledToolsBody {
    disabled_tools: Option<Vec<String>>,
}

typed!(DisabledToolsBody { disabled_tools });

/// All servers, by name, and whether there is a browser beside them.
pub(super) fn list(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let servers: Vec<Value> = ctx.tool_servers()?.list().iter().map(status_shape).collect();
    let mut shape = json!({"tools": servers});
    if ctx.deps.browser.is_some() {
        shape["browser"] = json!(true);
    }
    Ok(Reply::Full(json_line(200, &shape)))
}

/// One server with its configuration.
pub(super) fn get(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let status = find(ctx, call, "tool not found")?;
    let sees_secrets = call.caller.as_ref().is_some_and(|caller| caller.scopes.has("tools:write"));
    Ok(Reply::Full(json_line(200, &detail_shape(&status, sees_secrets))))
}

/// What a server's tools are.
pub(super) fn definitions(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let found = ctx.tool_servers()?.definitions(call.params.get("name"));
    let definitions = found.ok_or_else(|| ApiError::not_found("tool server not found"))?;
    let shapes = definitions.into_iter().map(|tool| {
        let mut shape = json!({"name": tool.name, "description": tool.description, "parameters": tool.parameters});
        if tool.is_disabled {
            shape["disabled"] = json!(true);
        }
        shape
    });
    Ok(Reply::Full(json_line(200, &json!({"tools": shapes.collect::<Vec<_>>()}))))
}

/// What a server's program wrote on standard error lately.
pub(super) fn logs(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let found = ctx.tool_servers()?.log_lines(call.params.get("name"));
    let lines = found.ok_or_else(|| ApiError::not_found("tool server not found"))?;
    let shapes = lines.into_iter().map(|line| json!({"at": clock::rfc3339(line.at), "text": line.text}));
    Ok(Reply::Full(json_line(200, &json!({"lines": shapes.collect::<Vec<_>>()}))))
}

/// How a server is.
pub(super) fn health(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let status = find(ctx, call, "tool not found")?;
    let shape = json!({
        "name": status.name,
        "status": status.status,
        "transport": status.transport,
        "restart_count": status.restart_count,
        "last_error": status.last_error,
        "uptime_secs": uptime(&status),
    });
    Ok(Reply::Full(json_line(200, &shape)))
}

/// Adds a server; it must start.
pub(super) fn create(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let body: ServerBody = decode(&call.req.body, "invalid JSON body")?;
    if body.name.is_empty() {
        return Err(ApiError::bad_request("name is required"));
    }
    let (name, disabled_tools) = (body.name.clone(), body.disabled_tools.clone());
    let config = ToolServerConfig { disabled_tools: disabled_tools.unwrap_or_default(), ..config(body) };
    let about = About { action: "tool_server.add", name: name.clone(), command: config.command.clone() };
    change(ctx, call, about, ApiError::from, move |servers| {
        let status = servers.add(&name, config)?;
        Ok(json_line(201, &status_shape(&status)))
    })
}

/// Replaces a server's configuration; the new one must start, or the old one goes on.
pub(super) fn update(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let body: ServerBody = decode(&call.req.body, "invalid JSON body")?;
    let name = call.params.get("name").to_owned();
    let about = About { action: "tool_server.update", name: name.clone(), command: body.command.clone() };
    change(ctx, call, about, ApiError::from, move |servers| {
        let shown_url = servers.get(&name).map_or_else(String::new, |status| status.url);
        let replace = |old: &ToolServerConfig| unmask(body, old, &shown_url);
        let status = servers.update(&name, replace)?;
        Ok(json_line(200, &status_shape(&status)))
    })
}

/// Ends and removes a server.
pub(super) fn delete(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let name = call.params.get("name").to_owned();
    let refuse = |error| match error {
        ChangeError::NotFound { name } => {
            let name = quoted(&name);
            ApiError::not_found(format!("unregistering tool {name}: server {name} is not registered"))
        }
        error => error.into(),
    };
    change(ctx, call, about(ctx, "tool_server.remove", &name)?, refuse, move |servers| {
        servers.remove(&name)?;
        Ok(no_content())
    })
}

/// Ends a server and starts it again.
pub(super) fn restart(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let name = call.params.get("name").to_owned();
    let refuse = |error| match error {
        error @ ChangeError::Start { .. } => ApiError::not_found(error.to_string()),
        ChangeError::NotFound { name } => {
            let name = quoted(&name);
            ApiError::not_found(format!("restarting tool {name}: server {name} is not registered"))
        }
        error => error.into(),
    };
    change(ctx, call, about(ctx, "tool_server.restart", &name)?, refuse, move |servers| {
        let status = servers.restart(&name)?;
        Ok(json_line(200, &status_shape(&status)))
    })
}

/// Switches a server on.
pub(super) fn enable(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    switch(ctx, call, true)
}

/// Switches a server off.
pub(super) fn disable(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    switch(ctx, call, false)
}

fn switch(ctx: &Ctx, call: &Call<'_>, enabled: bool) -> Result<Reply, ApiError> {
    let name = call.params.get("name").to_owned();
    let action = if enabled { ENABLE } else { "tool_server.disable" };
    change(ctx, call, about(ctx, action, &name)?, missing, move |servers| {
        let status = servers.set_enabled(&name, enabled)?;
        Ok(json_line(200, &status_shape(&status)))
    })
}

/// Says which tools of a server agents are not offered.
pub(super) fn disabled_tools(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let body: DisabledToolsBody = decode(&call.req.body, "invalid JSON body")?;
    let names = body.disabled_tools.ok_or_else(|| ApiError::bad_request("disabled_tools is required"))?;
    let name = call.params.get("name").to_owned();
    change(ctx, call, about(ctx, "tool_server.disabled_tools", &name)?, missing, move |servers| {
        let status = servers.set_disabled_tools(&name, names)?;
        Ok(json_line(200, &status_shape(&status)))
    })
}

/// What the audit log says about a change.
pub(super) struct About {
    pub(super) action: &'static str,
    pub(super) name: String,
    /// The program that may be run for it; empty for remote servers.
    pub(super) command: String,
}

/// The same for a change of a server that is there.
fn about(ctx: &Ctx, action: &'static str, name: &str) -> Result<About, ApiError> {
    let known = ctx.tool_servers()?.get(name);
    let command = known.map_or_else(String::new, |status| status.config.command);
    Ok(About { action, name: name.to_owned(), command })
}

/// The one way of every change: on a thread of its own, noted when it was made and when it failed.
pub(super) fn change(
    ctx: &Ctx,
    call: &Call<'_>,
    about: About,
    refuse: fn(ChangeError) -> ApiError,
    make: impl FnOnce(&ToolServers) -> Result<Response, ChangeError> + Send + 'static,
) -> Result<Reply, ApiError> {
    let servers = ctx.tool_servers()?.clone();
    let own = ctx.clone();
    let source = ctx.origins.client_address(&call.req.headers, call.req.peer.ip());
    let actor = call.caller.as_ref().map(|caller| caller.caller().identity).unwrap_or_default();
    Ok(Reply::Later(Box::new(move |responder: Responder| {
        // The responder must not be lost when there is no thread for it.
        let slot = Arc::new(Mutex::new(Some(responder)));
        let taken = Arc::clone(&slot);
        let begun = servers.in_background(move |servers| {
            let About { action, name, command } = about;
            let made = make(servers);
            let (result, detail) = match &made {
                // It is on, and tried again; but its program was run and failed.
                Ok(_) if action == ENABLE && servers.get(&name).is_some_and(|status| status.status == "error") => {
                    (Outcome::Failed, audit_detail(START_FAILED, &command))
                }
                Ok(_) => (Outcome::Ok, String::new()),
                Err(error) => (Outcome::Failed, audit_detail(error.reason(), &command)),
            };
            log::info!("{action} {} by {actor} from {source}: {}", quoted(&name), result.as_str());
            let (actor, target, source, detail) = (&*actor, &*name, &*source, &*detail);
            own.deps.audit.record(&Entry { actor, target, source, result, detail, ..Entry::ok(action) });
            let response = made.unwrap_or_else(|error| refuse(error).into_response());
            if let Some(responder) = lock(&taken).take() {
                responder.respond(response);
            }
        });
        if let Err(error) = begun
            && let Some(responder) = lock(&slot).take()
        {
            responder.respond(ApiError::from(error).into_response());
        }
    })))
}

fn find(ctx: &Ctx, call: &Call<'_>, text: &'static str) -> Result<Status, ApiError> {
    ctx.tool_servers()?.get(call.params.get("name")).ok_or_else(|| ApiError::not_found(text))
}

fn missing(error: ChangeError) -> ApiError {
    match error {
        ChangeError::NotFound { .. } => ApiError::not_found("tool not found"),
        other => other.into(),
    }
}

fn config(body: ServerBody) -> ToolServerConfig {
    ToolServerConfig {
        transport: body.transport,
        command: body.command,
        args: body.args,
        env: body.env,
        url: body.url,
        headers: body.headers,
        request_timeout_secs: body.request_timeout_secs,
        auth: body.auth,
        client_id: body.client_id,
        client_secret: body.client_secret,
        scopes: body.scopes,
        allow_loopback: body.allow_loopback,
        disabled: false,
        // Also when it was a model's: the operator who sends it answers for it now.
        untrusted: false,
        disabled_tools: Vec::new(),
        part_of: PartOf::Tools,
    }
}

/// The new configuration. What a client could not see, and sends back as it saw it, stays as it was.
fn unmask(body: ServerBody, old: &ToolServerConfig, shown_url: &str) -> ToolServerConfig {
    let disabled_tools = body.disabled_tools.clone().unwrap_or_else(|| old.disabled_tools.clone());
    let mut new = ToolServerConfig { disabled: old.disabled, disabled_tools, ..config(body) };
    for (fresh, known) in [(&mut new.env, &old.env), (&mut new.headers, &old.headers)] {
        for (name, value) in fresh.iter_mut().filter(|(_, value)| *value == MASK) {
            if let Some(known) = known.get(name) {
                value.clone_from(known);
            }
        }
    }
    if !shown_url.is_empty() && new.url == shown_url {
        new.url.clone_from(&old.url);
    }
    if new.client_secret.is_empty() && !new.client_id.is_empty() && new.client_id == old.client_id {
        new.client_secret.clone_from(&old.client_secret);
    }
    new
}

/// The status object: empty fields are left out.
fn status_shape(status: &Status) -> Value {
    let mut shape = Map::new();
    let config = &status.config;
    shape.insert("name".into(), json!(status.name));
    insert(&mut shape, "command", json!(config.command), config.command.is_empty());
    shape.insert("args_count".into(), json!(config.args.len()));
    shape.insert("tool_names".into(), names(&status.tool_names));
    shape.insert("status".into(), json!(status.status));
    shape.insert("transport".into(), json!(status.transport));
    insert(&mut shape, "url", json!(status.url), status.url.is_empty());
    insert(&mut shape, "restart_count", json!(status.restart_count), status.restart_count == 0);
    insert(&mut shape, "last_error", json!(status.last_error), status.last_error.is_empty());
    insert(&mut shape, "uptime_secs", json!(uptime(status)), status.uptime.is_none());
    oauth(&mut shape, status);
    Value::Object(shape)
}

/// One server with its configuration; values of `env` and `headers` are masked for those who could not set them.
fn detail_shape(status: &Status, sees_secrets: bool) -> Value {
    let config = &status.config;
    let map = |map: &BTreeMap<String, String>| match map {
        map if map.is_empty() => Value::Null,
        map if sees_secrets => json!(map),
        map => Value::Object(gather(map.keys().map(|name| (name.clone(), json!(MASK))))),
    };
    let mut shape = Map::new();
    shape.insert("name".into(), json!(status.name));
    shape.insert("command".into(), json!(config.command));
    shape.insert("args_count".into(), json!(config.args.len()));
    shape.insert("tool_names".into(), names(&status.tool_names));
    shape.insert("status".into(), json!(status.status));
    shape.insert("transport".into(), json!(status.transport));
    shape.insert("url".into(), json!(status.url));
    shape.insert("restart_count".into(), json!(status.restart_count));
    shape.insert("last_error".into(), json!(status.last_error));
    shape.insert("uptime_secs".into(), json!(uptime(status)));
    oauth(&mut shape, status);
    shape.insert("args".into(), names(&config.args));
    shape.insert("env".into(), map(&config.env));
    shape.insert("headers".into(), map(&config.headers));
    shape.insert("request_timeout_secs".into(), json!(config.request_timeout_secs));
    insert(&mut shape, "auth", json!(config.auth), config.auth.is_empty());
    insert(&mut shape, "client_id", json!(config.client_id), config.client_id.is_empty());
    insert(&mut shape, "scopes", json!(config.scopes), config.scopes.is_empty());
    insert(&mut shape, "allow_loopback", json!(true), !config.allow_loopback);
    insert(&mut shape, "untrusted", json!(true), !config.untrusted);
    insert(&mut shape, "disabled_tools", json!(config.disabled_tools), config.disabled_tools.is_empty());
    Value::Object(shape)
}

fn insert(shape: &mut Map<String, Value>, name: &str, value: Value, is_empty: bool) {
    if !is_empty {
        shape.insert(name.to_owned(), value);
    }
}

/// Tokens come with the login flow; until then there is none.
fn oauth(shape: &mut Map<String, Value>, status: &Status) {
    if let Some(login) = &status.login {
        shape.insert("auth_type".into(), json!("oauth"));
        let login = json!({"has_token": login.has_token, "needs_reauth": login.needs_reauth});
        shape.insert("oauth_status".into(), login);
    }
}

fn names(names: &[String]) -> Value {
    if names.is_empty() { Value::Null } else { json!(names) }
}

fn uptime(status: &Status) -> f64 {
    status.uptime.map_or(0.0, |uptime| uptime.as_secs_f64())
}
