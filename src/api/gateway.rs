//! `POST /api/v1/agent/llm/chat`: models for machines (contract agent-link 5). Its own credentials, its own shape of
//! errors; the machine's time limit is kept.

use std::sync::Arc;

use crate::api::error::ApiError;
use crate::api::message::{Reply, Req, Responder, Response, header, json_response};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::fleet::hub::gateway::{Full, Gateway};
use crate::fleet::hub::gateway_wire::{Answer, Ask};

/// The route; its errors have a shape of their own.
pub(super) const PATH: &str = "/api/v1/agent/llm/chat";
/// Scenes that are routed and logged; others are none.
const SCENES: &[&str] = &["diagnose", "chat"];

/// Calls a model for a machine.
pub(super) fn chat(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let gateway = Arc::clone(gateway(ctx)?);
    let machine = machine(ctx, call.req)?;
    let held = call.req.held.as_ref().map(|held| held.sibling(call.req.body.len()));
    let permit = gateway.enter(&machine, held).map_err(full)?;
    let ask = Ask::parse(&call.req.body).map_err(ApiError::bad_request)?;
    let scene = call.req.headers.get("x-agent-scene").map_or("", str::trim);
    let scene = SCENES.iter().find(|known| **known == scene).copied().unwrap_or_default();
    call.req.watched.set(true);
    Ok(Reply::Later(Box::new(move |mut responder: Responder| {
        let is_gone =
            responder.take_watch().map(|watch| Box::new(move || watch.is_gone()) as Box<dyn Fn() -> bool + Send>);
        gateway.call(permit, scene, ask, is_gone, move |answer| responder.respond(response(answer)));
    })))
}

/// Nothing of a large body is read before its machine is known.
pub(super) fn allow_body(ctx: &Ctx, head: &Req) -> Result<(), ApiError> {
    gateway(ctx)?;
    machine(ctx, head).map(|_| ())
}

/// An error as machines know it.
pub(super) fn refusal(error: ApiError) -> Response {
    let id = error.id.as_deref().unwrap_or_default();
    let mut answer = response(Answer::error(error.status, error.code, &error.message, None, id));
    for header in error.headers {
        answer.add_header(header);
    }
    answer
}

fn gateway(ctx: &Ctx) -> Result<&Arc<Gateway>, ApiError> {
    let missing = || ApiError::new(503, "not_configured", "the gateway is switched off on this hub");
    ctx.deps.gateway.as_ref().ok_or_else(missing)
}

/// The approved machine that asks.
fn machine(ctx: &Ctx, req: &Req) -> Result<String, ApiError> {
    let address = ctx.origins.client_address(&req.headers, req.peer.ip());
    let machine = ctx.fleet()?.recognise(&req.headers, &address)?;
    req.authenticated.set(true);
    Ok(machine)
}

fn full(full: Full) -> ApiError {
    let (status, text, seconds) = match full {
        Full::Machine => (429, "this machine makes too many calls at once", 2),
        Full::Minute { seconds } => (429, "this machine has made too many calls in a minute", seconds),
        Full::Day => (429, "this machine has used its tokens for today (fleet.gateway.tokens_per_day)", 3600),
        Full::All => (503, "too many calls are being made; try again", 5),
    };
    ApiError::new(status, "rate_limited", text).with_header("Retry-After", &seconds.to_string())
}

fn response(answer: Answer) -> Response {
    let mut response = json_response(answer.status, answer.body);
    if let Some(seconds) = answer.retry_after
        && let Some(header) = header("Retry-After", &seconds.to_string())
    {
        response.add_header(header);
    }
    response
}
