//! Login sessions and a summary of the login methods (contract 3.6; W-34).

use serde_json::{Value, json};

use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::login::{json_line, ok};
use crate::api::message::{Reply, no_content};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::rt::clock;
use crate::store::SessionStore;

/// The caller's logins, most recently seen first; none for an API key.
pub(super) fn list(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let store = tracked(ctx)?;
    let Some(email) = cookie_email(call) else {
        return Ok(Reply::Full(json_line(200, &json!([]))));
    };
    store.flush_touched()?;
    let shapes: Vec<Value> = store
        .list_by_email(email)?
        .into_iter()
        .map(|login| {
            json!({
                "id": login.id,
                "email": login.email,
                "user_agent": login.user_agent,
                "ip": login.ip,
                "created_at": clock::rfc3339_s(login.created_at),
                "expires_at": clock::rfc3339_s(login.expires_at),
                "last_seen_at": clock::rfc3339_s(login.last_seen_at),
            })
        })
        .collect();
    Ok(Reply::Full(json_line(200, &shapes)))
}

/// Ends one login; an unknown one is fine.
pub(super) fn revoke(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    tracked(ctx)?.delete(call.params.get("id"))?;
    note(ctx, call, "login_session.revoke", call.params.get("id"), "");
    Ok(Reply::Full(no_content()))
}

/// Ends all of the caller's logins, this one included.
pub(super) fn revoke_all(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let store = tracked(ctx)?;
    let revoked = match cookie_email(call) {
        Some(email) => store.delete_all_by_email(email)?,
        None => 0,
    };
    note(ctx, call, "login_session.revoke_all", "", &format!("{revoked} revoked"));
    Ok(ok(&json!({"revoked": revoked})))
}

/// Which login methods exist, and how many logins are open.
pub(super) fn status(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let mut shape = json!({
        "password_enabled": ctx.password_hash().is_some(),
        "oidc_enabled": ctx.deps.oidc_provider.is_some(),
        "sessions_trackable": ctx.deps.sessions.store.is_some(),
    });
    if let Some(count) = ctx.deps.sessions.store.as_ref().and_then(|store| store.count().ok()) {
        shape["active_session_count"] = json!(count);
    }
    Ok(ok(&shape))
}

fn tracked(ctx: &Ctx) -> Result<&SessionStore, ApiError> {
    ctx.deps.sessions.store.as_deref().ok_or_else(|| ApiError::not_found("server-tracked sessions not enabled"))
}

fn cookie_email<'a>(call: &'a Call<'_>) -> Option<&'a str> {
    call.caller.as_ref().filter(|caller| caller.by_cookie).map(|caller| caller.name.as_str())
}
