//! The dashboard's password, changed by somebody who knows it.

use serde_json::json;

use crate::api::error::ApiError;
use crate::api::login::{ACCOUNT, decode, in_lane, json_line, throttle};
use crate::api::message::{Reply, Response};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::audit::{Entry, Outcome};
use crate::auth::{Credential, password};
use crate::config::edit;
use crate::limits;
use crate::rt::fields::typed;
use crate::rt::lock;

const ACTION: &str = "password.change";

#[derive(Default)]
struct Body {
    current_password: String,
    new_password: String,
}

typed!(Body { current_password, new_password });

/// Another password, from the next login on. Whoever asks must know the one that counts, however they came in; tries
/// are counted with those of logins. Other logins with the password end.
pub(super) fn change(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let body: Body = decode(&call.req.body, "invalid JSON body")?;
    check(&body.new_password)?;
    let Some(hash) = ctx.password_hash() else {
        return Err(ApiError::not_found("password login not configured"));
    };
    let address = ctx.origins.client_address(&call.req.headers, call.req.peer.ip());
    throttle(ctx, &address, ACTION, "too many attempts")?;
    let actor = call.caller.as_ref().map(|caller| caller.caller().identity).unwrap_or_default();
    let own = match call.caller.as_ref().map(|caller| &caller.credential) {
        Some(Credential::Login { id }) => id.clone(),
        _ => String::new(),
    };
    Ok(in_lane(
        ctx,
        Box::new(move |ctx| {
            let by = Entry { actor: &actor, source: &address, ..Entry::ok(ACTION) };
            if !password::verify(&body.current_password, &hash) {
                return Err(wrong(ctx, &by));
            }
            change_to(ctx, &body.new_password, &hash, &own, &by)
        }),
    ))
}

/// What `holt passwd` would refuse.
fn check(new: &str) -> Result<(), ApiError> {
    let reason = match new.len() {
        ..limits::PASSWORD_BYTES_MIN => "at least 8 characters are needed",
        limits::PASSWORD_BYTES_MIN..=limits::PASSWORD_BYTES_MAX => return Ok(()),
        _ => "at most 72 bytes are possible",
    };
    Err(ApiError::bad_request(format!("new_password: {reason}")))
}

fn wrong(ctx: &Ctx, by: &Entry<'_>) -> ApiError {
    log::warn!("a change of the password failed from {}", by.source);
    ctx.deps.audit.record_repeatable(&Entry { result: Outcome::Denied, detail: "wrong password", ..*by });
    ApiError::new(403, "invalid_password", "current_password: that is not the password")
}

fn change_to(ctx: &Ctx, new: &str, old_hash: &str, own: &str, by: &Entry<'_>) -> Result<Response, ApiError> {
    let new_hash = password::hash(new).ok_or_else(|| ApiError::internal(&"bcrypt refused a password"))?;
    let revoked = {
        // Nobody logs in with the old one between the change and the end of its logins.
        let _one = lock(&ctx.account);
        // Somebody else was faster: what was shown is not the password any more.
        if ctx.password_hash().as_deref() != Some(old_hash) {
            return Err(wrong(ctx, by));
        }
        let mut set = |doc: &mut edit::Document| edit::set(doc, "api.auth.password_hash", &json!(new_hash));
        ctx.deps.settings.change(&mut set)?;
        match &ctx.deps.sessions.store {
            Some(store) => store.delete_others(ACCOUNT, own)?,
            None => 0,
        }
    };
    log::info!("the dashboard password was changed from {}", by.source);
    ctx.deps.audit.record(&Entry { detail: &format!("{revoked} other logins ended"), ..*by });
    Ok(json_line(200, &json!({"status": "updated", "revoked": revoked})))
}
