//! `GET /api/v1/health` and, for containers, `/healthz` (contract 3.7).

use crate::api::error::ApiError;
use crate::api::message::{Reply, json_response};
use crate::api::routes::Call;
use crate::api::server::Ctx;

/// Alive; with `?ready=true` also whether stores and agents are up.
pub(super) fn health(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    if call.req.query.is_some() && call.req.query_param("ready").as_deref() == Some("true") {
        let stores = ctx.deps.db.generation().is_ok();
        if !stores || ctx.deps.engine.agents().iter().next().is_none() {
            return Err(ApiError::new(503, "not_ready", "stores or agents are not up yet"));
        }
    }
    let body: &[u8] = if ctx.deps.settings.current().api.websocket_enabled {
        b"{\"status\":\"ok\",\"ws_enabled\":true}\n"
    } else {
        b"{\"status\":\"ok\",\"ws_enabled\":false}\n"
    };
    Ok(Reply::Full(json_response(200, body.to_vec())))
}
