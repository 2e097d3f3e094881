//! Plugins (contract 11.3).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::error::ApiError;
use crate::api::login::{decode, json_line, ok};
use crate::api::message::{Reply, no_content};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::api::tools::{About, change};
use crate::config::PluginConfig;
use crate::tools::plugins::{PluginStatus, Plugins, audit_command};
use crate::tools::servers::ChangeError;

/// `null` and absent are the same.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PluginBody {
    name: String,
    r#type: String,
    command: String,
    image: String,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    capabilities: Vec<String>,
    memory_limit: String,
    cpu_limit: String,
    network: String,
}

/// All plugins, by name.
pub(super) fn list(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let shapes: Vec<Value> = plugins(ctx)?.list().iter().map(shape).collect();
    Ok(ok(&json!({"plugins": shapes})))
}

/// One plugin.
pub(super) fn get(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let found = plugins(ctx)?.get(call.params.get("name"));
    Ok(ok(&shape(&found.ok_or_else(|| ApiError::not_found("plugin not found"))?)))
}

/// Adds a plugin; one with tools must start.
pub(super) fn create(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let plugins = Arc::clone(plugins(ctx)?);
    let body: PluginBody = decode(&call.req.body, "invalid JSON body")?;
    if body.name.is_empty() {
        return Err(ApiError::bad_request("name is required"));
    }
    let name = body.name;
    let config = PluginConfig {
        kind: body.r#type,
        command: body.command,
        args: body.args,
        env: body.env,
        image: body.image,
        capabilities: body.capabilities,
        memory_limit: body.memory_limit,
        cpu_limit: body.cpu_limit,
        network: body.network,
        volumes: Vec::new(),
        untrusted: false,
    };
    config.check().map_err(|(_, reason)| ApiError::bad_request(reason))?;
    let about = About { action: "plugin.add", name: name.clone(), command: audit_command(&config) };
    change(ctx, call, about, ApiError::from, move |_| Ok(json_line(201, &shape(&plugins.add(&name, config)?))))
}

/// Ends and removes a plugin; an unknown one is fine.
pub(super) fn delete(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let plugins = Arc::clone(plugins(ctx)?);
    let name = call.params.get("name").to_owned();
    let Some(known) = plugins.get(&name) else { return Ok(Reply::Full(no_content())) };
    let refuse = |error: ChangeError| match error {
        error @ ChangeError::Persist { .. } => ApiError::not_found(error.to_string()),
        error => error.into(),
    };
    let about = About { action: "plugin.remove", name: name.clone(), command: audit_command(&known.config) };
    change(ctx, call, about, refuse, move |_| plugins.remove(&name).map(|_| no_content()))
}

fn plugins(ctx: &Ctx) -> Result<&Arc<Plugins>, ApiError> {
    ctx.tool_servers()?;
    let missing = || ApiError::new(503, "not_configured", "tool management not configured");
    ctx.deps.plugins.as_ref().ok_or_else(missing)
}

/// Empty keys are left out.
fn shape(status: &PluginStatus) -> Value {
    let PluginStatus { name, config, tool_names, is_connected } = status;
    let mut shape = Map::new();
    shape.insert("name".into(), json!(name));
    shape.insert("type".into(), json!(config.kind));
    for (key, text) in [("command", &config.command), ("image", &config.image)] {
        if !text.is_empty() {
            shape.insert(key.into(), json!(text));
        }
    }
    for (key, texts) in [("args", &config.args), ("capabilities", &config.capabilities)] {
        if !texts.is_empty() {
            shape.insert(key.into(), json!(texts));
        }
    }
    shape.insert("tool_names".into(), if tool_names.is_empty() { Value::Null } else { json!(tool_names) });
    shape.insert("status".into(), json!(if *is_connected { "connected" } else { "stopped" }));
    Value::Object(shape)
}
