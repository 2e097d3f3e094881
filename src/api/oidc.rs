//! `/auth/oidc/login` and `/auth/callback` (contract 3.8): what browsers go through. There only when a provider is
//! configured.

use std::sync::{Arc, Mutex};

use crate::api::audit;
use crate::api::error::ApiError;
use crate::api::message::{Reply, Responder, Response, header, response};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::audit::Entry;
use crate::auth::oidc::{Callback, OidcError, OidcProvider, STATE_COOKIE};
use crate::rt::{Cancel, lock};

/// Where a login ends.
const HOME: &str = "/#/overview";
const ACTION: &str = "login.oidc";

/// Sends the browser to the provider.
pub(super) fn login(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let provider = Arc::clone(provider(ctx)?);
    if provider.is_ready() {
        return Ok(Reply::Full(begin(&provider, &Cancel::new())));
    }
    Ok(in_background(provider, begin))
}

/// Takes the browser back from the provider, and logs it in.
pub(super) fn callback(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let provider = Arc::clone(provider(ctx)?);
    let user_agent = call.req.headers.get("user-agent").unwrap_or("").chars().take(256).collect::<String>();
    let callback = Callback {
        cookie: call.req.headers.cookie(STATE_COOKIE).map(str::to_owned),
        code: call.req.query_param("code"),
        state: call.req.query_param("state"),
        issuer: call.req.query_param("iss"),
        error: call.req.query_param("error"),
        user_agent,
        address: ctx.origins.client_address(&call.req.headers, call.req.peer.ip()),
    };
    let ctx = ctx.clone();
    Ok(in_background(provider, move |provider, cancel| finish(&ctx, provider, &callback, cancel)))
}

fn provider(ctx: &Ctx) -> Result<&Arc<OidcProvider>, ApiError> {
    ctx.deps.oidc_provider.as_ref().ok_or_else(|| ApiError::not_found("no such path"))
}

fn begin(provider: &OidcProvider, cancel: &Cancel) -> Response {
    match provider.handle_login(cancel) {
        Ok(begun) => redirect(&begun.location, &[&begun.cookie]),
        Err(error) => {
            log::warn!("OIDC login: {error}: {}", error.cause());
            refusal(&error)
        }
    }
}

fn finish(ctx: &Ctx, provider: &OidcProvider, callback: &Callback, cancel: &Cancel) -> Response {
    let mut answer = match provider.handle_callback(callback, cancel) {
        Ok(login) => {
            let (source, detail) = (&*callback.address, &*callback.user_agent);
            log::info!("login of {} from {source}", login.email);
            let actor = format!("user:{}", login.email);
            ctx.deps.audit.record(&Entry { actor: &actor, source, detail, ..Entry::ok(ACTION) });
            redirect(HOME, &[&login.cookie])
        }
        Err(error) => {
            let cause = error.cause();
            let detail = if cause.is_empty() { error.to_string() } else { format!("{error}: {cause}") };
            log::warn!("OIDC login failed from {}: {detail}", callback.address);
            audit::refused(ctx, ACTION, &callback.address, &detail);
            refusal(&error)
        }
    };
    // It is used up, whatever came of it.
    if let Some(clear) = header("Set-Cookie", &provider.clear_cookie()) {
        answer.add_header(clear);
    }
    answer
}

/// Answers from a thread of the provider's.
fn in_background(
    provider: Arc<OidcProvider>,
    work: impl FnOnce(&OidcProvider, &Cancel) -> Response + Send + 'static,
) -> Reply {
    Reply::Later(Box::new(move |responder: Responder| {
        // The responder must not be lost when there is no thread for it.
        let slot = Arc::new(Mutex::new(Some(responder)));
        let inside = Arc::clone(&slot);
        let begun = provider.in_background(move |provider, cancel| {
            let answer = work(provider, cancel);
            if let Some(responder) = lock(&inside).take() {
                responder.respond(answer);
            }
        });
        if let Err(error) = begun
            && let Some(responder) = lock(&slot).take()
        {
            responder.respond(refusal(&error));
        }
    }))
}

fn redirect(location: &str, cookies: &[&str]) -> Response {
    let mut answer = response(302, "text/plain; charset=utf-8", Vec::new());
    for (name, value) in cookies.iter().map(|cookie| ("Set-Cookie", *cookie)).chain([("Location", location)]) {
        if let Some(line) = header(name, value) {
            answer.add_header(line);
        }
    }
    answer
}

/// What a browser shows: a text, as the contract has it.
fn refusal(error: &OidcError) -> Response {
    let status = match error {
        OidcError::MissingCookie
        | OidcError::BadCookie
        | OidcError::CorruptCookie
        | OidcError::StateMismatch
        | OidcError::MissingCode { .. } => 400,
        OidcError::Token(_) | OidcError::Nonce => 401,
        OidcError::EmailNotVerified | OidcError::EmailNotAllowed { .. } => 403,
        OidcError::Exchange(_)
        | OidcError::NoIdToken
        | OidcError::Claims(_)
        | OidcError::Session(_)
        | OidcError::Random => 500,
        OidcError::Unreachable(_) | OidcError::Busy => 503,
    };
    response(status, "text/plain; charset=utf-8", format!("{error}\n").into_bytes())
}
