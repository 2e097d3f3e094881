//! The browser: its profiles, its server, its settings (contract 11.4; W-35).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::login::ok;
use crate::api::message::{Reply, no_content};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::rt::clock;
use crate::tools::plugins::{Browser, Profile, ProfileError};

/// All profiles, by name.
pub(super) fn profiles(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let profiles = browser(ctx)?.profiles().map_err(refused)?;
    Ok(ok(&json!({"profiles": profiles.iter().map(shape).collect::<Vec<_>>()})))
}

/// One profile.
pub(super) fn profile(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let profile = browser(ctx)?.profile(call.params.get("name")).map_err(refused)?;
    Ok(ok(&shape(&profile)))
}

/// Removes a profile.
pub(super) fn delete(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let name = call.params.get("name");
    browser(ctx)?.delete(name).map_err(refused)?;
    note(ctx, call, "browser_profile.delete", name, "");
    Ok(Reply::Full(no_content()))
}

/// The browser's tool server.
pub(super) fn sessions(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let server = browser(ctx)?.server();
    let shape = |server: crate::tools::servers::Status| json!({"name": server.name, "status": server.status, "tool_count": server.tool_names.len()});
    Ok(ok(&json!({"sessions": server.map(shape).into_iter().collect::<Vec<_>>()})))
}

/// The settings, each under its old key and the one that the dashboard reads.
pub(super) fn config(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    browser(ctx)?;
    let settings = ctx.deps.settings.current();
    let config = &settings.browser;
    let domains = if config.domains.is_empty() { Value::Null } else { json!(config.domains) };
    let mut shape = Map::new();
    for (old, new, value) in [
        ("Enabled", "enabled", json!(config.enabled)),
        ("Image", "image", json!(config.image)),
        ("MemoryLimit", "memory_limit", json!(config.memory_limit)),
        ("CPULimit", "cpu_limit", json!(config.cpu_limit)),
        ("ProfileDir", "profile_dir", json!(config.profile_dir)),
        ("SessionTTL", "session_ttl", json!(config.session_ttl)),
        ("MaxPages", "max_pages", json!(config.max_pages)),
    ] {
        shape.insert(old.to_owned(), value.clone());
        shape.insert(new.to_owned(), value);
    }
    shape.insert("URLAllowlist".to_owned(), json!({"Domains": domains}));
    shape.insert("url_allowlist".to_owned(), json!({"domains": domains}));
    Ok(ok(&Value::Object(shape)))
}

fn browser(ctx: &Ctx) -> Result<&Arc<Browser>, ApiError> {
    let missing = || ApiError::new(503, "not_configured", "browser automation not configured");
    ctx.deps.browser.as_ref().ok_or_else(missing)
}

fn refused(error: ProfileError) -> ApiError {
    let text = error.to_string();
    match error {
        // The contract's status for it.
        ProfileError::Name => ApiError::new(500, "invalid_name", text),
        ProfileError::NotFound => ApiError::not_found(text),
        ProfileError::Io(cause) => cause.into(),
    }
}

fn shape(profile: &Profile) -> Value {
    let mut shape = json!({
        "agent": profile.agent,
        "size_bytes": profile.bytes,
        "domain_count": profile.domains.len(),
        "last_used": clock::rfc3339(profile.last_used),
    });
    if !profile.domains.is_empty() {
        shape["domains"] = json!(profile.domains);
    }
    shape
}
