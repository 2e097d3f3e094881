//! `GET /api/v1/ws`: the checks of a WebSocket upgrade (contract 8.1; RFC 6455 section 4.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tiny_http::Method;

use crate::api::error::ApiError;
use crate::api::message::{Reply, Upgrade, WsStart};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::auth::AuthError;

/// Checks the upgrade; the socket then leaves HTTP.
pub(super) fn upgrade(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    if !ctx.deps.settings.current().api.websocket_enabled {
        return Err(ApiError::not_found("websockets are switched off (api.websocket_enabled)"));
    }
    let key = checked_key(call)?;
    let identity = call.caller.as_ref().ok_or(AuthError::Missing)?;
    Ok(Reply::Upgrade(Box::new(Upgrade::Client(WsStart {
        key,
        caller: identity.caller(),
        address: ctx.origins.client_address(&call.req.headers, call.req.peer.ip()),
        approves: identity.scopes.has("approvals:write"),
        sees_machines: identity.scopes.has("machines:read"),
        credential: identity.credential.clone(),
        hello: call.req.query_param("hello").as_deref() == Some("1"),
    }))))
}

/// The `Sec-WebSocket-Key` of a well-formed upgrade.
pub(super) fn checked_key(call: &Call<'_>) -> Result<String, ApiError> {
    let headers = &call.req.headers;
    let refuse = |status, text| ApiError::new(status, "bad_upgrade", text).with_header("Sec-WebSocket-Version", "13");
    if call.req.method != Method::Get || call.req.http10 {
        return Err(refuse(400, "a websocket upgrade is a GET of HTTP/1.1"));
    }
    if !headers.has_token("connection", "upgrade") {
        return Err(refuse(400, "this path needs a websocket upgrade"));
    }
    if !headers.has_token("upgrade", "websocket") {
        return Err(refuse(426, "this path needs a websocket upgrade"));
    }
    if headers.get("sec-websocket-version").map(str::trim) != Some("13") {
        return Err(refuse(400, "only version 13 of the websocket protocol is spoken here"));
    }
    let key = headers.get("sec-websocket-key").map_or("", str::trim);
    if STANDARD.decode(key).map_or(0, |bytes| bytes.len()) != 16 {
        return Err(refuse(400, "Sec-WebSocket-Key must be 16 bytes of base64"));
    }
    Ok(key.to_owned())
}
