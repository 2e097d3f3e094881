//! The off switch: `POST /api/v1/panic`, its state, and `POST /api/v1/resume` (additions "Scopes").

use serde_json::json;

use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::login::ok;
use crate::api::message::Reply;
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::auth::AuthError;
use crate::rt::clock;

/// Whether everything is stopped.
pub(super) fn state(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    Ok(ok(&match ctx.deps.engine.panic_state()? {
        Some(state) => json!({"panicked": true, "since": clock::rfc3339_s(state.at), "by": state.by}),
        None => json!({"panicked": false}),
    }))
}

/// Stops everything at once.
pub(super) fn panic(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    ctx.deps.engine.panic(&who(call)?)?;
    note(ctx, call, "panic", "", "");
    state(ctx, call)
}

/// Lets everything run again; fine when nothing was stopped.
pub(super) fn resume(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    if ctx.deps.engine.resume_all(&who(call)?)? {
        note(ctx, call, "resume", "", "");
    }
    state(ctx, call)
}

fn who(call: &Call<'_>) -> Result<String, ApiError> {
    Ok(call.caller.as_ref().ok_or(AuthError::Missing)?.caller().identity)
}
