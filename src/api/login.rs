//! `/auth/*`: password login, logout, who am I (contract 3.1).

use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::api::audit;
use crate::api::body;
use crate::api::error::ApiError;
use crate::api::guard::origin_refused;
use crate::api::message::{Reply, Response, header, json_response};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::audit::Entry;
use crate::auth::{Credential, SessionManager, password, scope};
use crate::rt::fields::typed;
use crate::rt::{json as wire, lock};

/// The name of the one account, for logins with the password.
pub(super) const ACCOUNT: &str = "admin";

#[derive(Default)]
struct LoginBody {
    password: String,
}

typed!(LoginBody { password });

/// Which login methods exist.
pub(super) fn config(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let has_oidc = ctx.deps.oidc_provider.is_some();
    Ok(ok(&json!({"password_enabled": ctx.password_hash().is_some(), "oidc_enabled": has_oidc})))
}

/// Password login; the check runs in the password lane.
pub(super) fn login(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let Some(hash) = ctx.password_hash() else {
        return Err(ApiError::not_found("password login not configured"));
    };
    let address = ctx.origins.client_address(&call.req.headers, call.req.peer.ip());
    throttle(ctx, &address, "login.password", "too many login attempts")?;
    if !ctx.origins.origin_allowed(&call.req.headers) {
        return Err(origin_refused());
    }
    let body: LoginBody = decode(&call.req.body, "invalid request body")?;
    let visitor = Visitor::of(ctx, call);
    Ok(in_lane(
        ctx,
        Box::new(move |ctx| {
            if password::verify(&body.password, &hash) {
                let _one = lock(&ctx.account);
                // Not if it was changed meanwhile: the logins of the old one have ended.
                if ctx.password_hash().as_ref() == Some(&hash) {
                    return log_in(ctx, "login.password", &visitor);
                }
            }
            log::warn!("login failed from {address}");
            audit::refused(ctx, "login.password", &address, "wrong password");
            Err(ApiError::new(401, "invalid_password", "invalid password"))
        }),
    ))
}

/// What takes the time of a password check.
type Work = Box<dyn FnOnce(&Ctx) -> Result<Response, ApiError> + Send>;

/// Answers from the password lane; 503 when it is full.
pub(super) fn in_lane(ctx: &Ctx, work: Work) -> Reply {
    let ctx = ctx.clone();
    Reply::Later(Box::new(move |responder| {
        let slot = Arc::new(Mutex::new(Some(responder)));
        let (inside, lane) = (Arc::clone(&slot), ctx.clone());
        let queued = lane.lane.run(move || {
            let result = work(&ctx);
            if let Some(responder) = lock(&inside).take() {
                responder.respond(result.unwrap_or_else(ApiError::into_response));
            }
        });
        if queued.is_err()
            && let Some(responder) = lock(&slot).take()
        {
            let full = ApiError::new(503, "busy", "too many password checks at once; try again");
            responder.respond(full.with_header("Retry-After", "2").into_response());
        }
    }))
}

/// Counts an attempt of that address; 429 when it is one too many.
pub(super) fn throttle(ctx: &Ctx, address: &str, action: &str, text: &'static str) -> Result<(), ApiError> {
    ctx.throttle.attempt(address).map_err(|seconds| {
        audit::refused(ctx, &format!("{action}.throttled"), address, "too many attempts");
        ApiError::new(429, "too_many_attempts", text).with_header("Retry-After", &seconds.to_string())
    })
}

/// Who logs in, as far as it is recorded and its cookie depends on it.
pub(super) struct Visitor {
    user_agent: String,
    address: String,
    is_https: bool,
}

impl Visitor {
    pub(super) fn of(ctx: &Ctx, call: &Call<'_>) -> Self {
        let (headers, peer) = (&call.req.headers, call.req.peer.ip());
        Self {
            user_agent: headers.get("user-agent").unwrap_or("").chars().take(256).collect(),
            address: ctx.origins.client_address(headers, peer),
            is_https: ctx.origins.is_https(headers, peer, call.req.secure),
        }
    }
}

/// A login of the one account, with its cookie; recorded as `action`.
pub(super) fn log_in(ctx: &Ctx, action: &str, visitor: &Visitor) -> Result<Response, ApiError> {
    let scopes = scope::dashboard_scopes();
    let Visitor { user_agent, address, is_https } = visitor;
    let cookie = ctx.deps.sessions.create_with_request(ACCOUNT, &scopes, user_agent, address)?;
    log::info!("login of admin from {address}");
    ctx.deps.audit.record(&Entry { actor: "user:admin", source: address, detail: user_agent, ..Entry::ok(action) });
    let mut response = json_response(200, b"{\"authenticated\":true,\"email\":\"admin\"}\n".to_vec());
    if let Some(header) = header("Set-Cookie", &SessionManager::secured(cookie, *is_https)) {
        response.add_header(header);
    }
    Ok(response)
}

/// Clears the cookie and forgets the stored login (W-7).
pub(super) fn logout(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    if !ctx.origins.origin_allowed(&call.req.headers) {
        return Err(origin_refused());
    }
    if let Some(session) = ctx.deps.sessions.read(&call.req.headers)?
        && let (Credential::Login { id }, Some(store)) = (&session.credential, &ctx.deps.sessions.store)
    {
        store.delete(id)?;
        let source = ctx.origins.client_address(&call.req.headers, call.req.peer.ip());
        let actor = format!("user:{}", session.email);
        ctx.deps.audit.record(&Entry { actor: &actor, source: &source, ..Entry::ok("login.logout") });
    }
    let mut response = json_response(200, b"{\"ok\":true}".to_vec());
    let is_https = ctx.origins.is_https(&call.req.headers, call.req.peer.ip(), call.req.secure);
    if let Some(header) = header("Set-Cookie", &SessionManager::secured(ctx.deps.sessions.clear(), is_https)) {
        response.add_header(header);
    }
    Ok(Reply::Full(response))
}

/// Whether the cookie is valid.
pub(super) fn session(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    Ok(match ctx.deps.sessions.read(&call.req.headers)? {
        Some(session) => ok(&json!({"authenticated": true, "email": session.email})),
        None => ok(&json!({"authenticated": false})),
    })
}

/// 200 with a JSON body.
pub(super) fn ok(value: &serde_json::Value) -> Reply {
    Reply::Full(json_line(200, value))
}

/// A JSON body with its line end.
pub(super) fn json_line<T: serde::Serialize + ?Sized>(status: u16, value: &T) -> Response {
    let mut body = wire::to_vec(value);
    body.push(b'\n');
    json_response(status, body)
}

/// Decodes a body, or answers 400 with `text`; the decoder's own words go to the log.
pub(super) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8], text: &'static str) -> Result<T, ApiError> {
    body::decode(bytes).map_err(|cause| {
        log::debug!("{text}: {}", cause.0);
        ApiError::bad_request(text)
    })
}
