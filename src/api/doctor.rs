//! `GET /api/v1/doctor`: what is wrong with this installation, and how to put it right.

use crate::api::error::ApiError;
use crate::api::login::ok;
use crate::api::message::Reply;
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::moving::doctor::{self, Depth};

/// Looks at what can be looked at while somebody waits: no network, no large database.
pub(super) fn examine(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let depth = Depth { is_hub: true, ..Depth::default() };
    Ok(ok(&doctor::to_json(&doctor::examine(&ctx.deps.settings.current(), depth))))
}
