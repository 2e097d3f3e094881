//! The server's own settings, reload and restart (contract 12).

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::api::agents_change::told;
use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::fields::{Fields, setting};
use crate::api::llm_settings::{check_decided, is_url};
use crate::api::login::ok;
use crate::api::message::Reply;
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::api::settings::SettingsError;
use crate::config::edit;

/// What a client may know of how this hub is reached.
pub(super) fn get(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let config = ctx.deps.settings.current();
    let (api, tree) = (&config.api, &config.tree);
    let typed = |key: &str| tree.get(key).cloned();
    Ok(ok(&json!({
        "external_url": api.external_url.as_deref().unwrap_or_default(),
        "timezone": api.timezone,
        "listen": api.listen,
        "tls": typed("api.tls").unwrap_or(json!(false)),
        "cors_origins": api.cors_origins,
        "rate_limit": api.rate_limit,
        "websocket_enabled": api.websocket_enabled,
        "websocket_max_connections": api.websocket_connections_max,
        "websocket_replay_buffer_ttl": typed("api.websocket_replay_buffer_ttl").unwrap_or(json!("5m")),
    })))
}

/// Changes the address by which the hub is known outside, and the time zone; both count at once.
pub(super) fn change(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let fields = Fields::of(&call.req.body)?;
    let mut wishes: Vec<(&str, Value)> = Vec::new();
    if let Some(url) = fields.text("external_url")? {
        if !url.is_empty() && !is_url(url) {
            return Err(ApiError::bad_request("invalid external_url: must be a valid URL with scheme and host"));
        }
        wishes.push(("api.external_url", setting(url)));
    }
    if let Some(zone) = fields.text("timezone")? {
        if !zone.is_empty() && TimeZone::get(zone).is_err() {
            let text = "invalid timezone: must be a valid IANA timezone name (e.g. America/New_York)";
            return Err(ApiError::bad_request(text));
        }
        wishes.push(("api.timezone", setting(zone)));
    }
    let changed = store(ctx, &wishes)?;
    note(ctx, call, "server.change", &names(&wishes), "");
    Ok(ok(&told(json!({"status": "updated"}), &changed)))
}

/// Writes settings at dotted paths and puts them in force; refuses those that a variable decides.
pub(super) fn store(ctx: &Ctx, wishes: &[(&str, Value)]) -> Result<crate::api::settings::Changed, ApiError> {
    let config = ctx.deps.settings.current();
    for (key, _) in wishes {
        check_decided(&config, key)?;
    }
    let set = |doc: &mut edit::Document| wishes.iter().try_for_each(|(key, value)| edit::set(doc, key, value));
    Ok(ctx.deps.settings.change(&mut { set })?)
}

/// The keys that are changed, for the audit log.
pub(super) fn names(wishes: &[(&str, Value)]) -> String {
    wishes.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", ")
}

/// Reads the configuration file again.
pub(super) fn reload(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let changed = ctx.deps.settings.reload().map_err(|error| {
        let cause = short(&error);
        log::error!("the configuration stays as it was: {error}");
        ApiError::new(500, "reload_failed", format!("reload failed: {cause}"))
    })?;
    note(ctx, call, "server.reload", "", "");
    Ok(ok(&told(json!({"status": "reloaded"}), &changed)))
}

/// Begins a restart; the answer goes out before it.
pub(super) fn restart(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let missing = || ApiError::new(503, "not_configured", "process restart not available");
    let begin = ctx.restart.get().ok_or_else(missing)?;
    // A hub that would not come up again goes on.
    ctx.deps.settings.check().map_err(|error| {
        let text = format!("not restarted, the configuration would be refused: {}", short(&error));
        ApiError::new(409, "restart_refused", text)
    })?;
    note(ctx, call, "server.restart", "", "");
    begin();
    Ok(ok(&json!({"status": "restarting"})))
}

fn short(error: &SettingsError) -> String {
    match error {
        SettingsError::Config(cause) => cause.in_short(),
        SettingsError::Part(reason) => reason.clone(),
    }
}
