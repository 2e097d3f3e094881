//! First-run setup (contract 3.4; W-2, W-3).

use serde_json::json;

use crate::api::audit;
use crate::api::error::ApiError;
use crate::api::guard::origin_refused;
use crate::api::keys::{self, created};
use crate::api::login::{Visitor, decode, in_lane, log_in, ok, throttle};
use crate::api::message::{Reply, Response};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::audit::Entry;
use crate::auth::setup::{PinCheck, may_set_up};
use crate::auth::{password, validate_key_input};
use crate::config::edit;
use crate::limits;
use crate::rt::fields::typed;
use crate::rt::lock;

#[derive(Default)]
struct KeyBody {
    name: String,
    scopes: Vec<String>,
    pin: String,
}

typed!(KeyBody { name, scopes, pin });

#[derive(Default)]
struct AccountBody {
    pin: String,
    password: String,
}

typed!(AccountBody { pin, password });

/// Whether setup is needed, and whether a PIN is pending.
pub(super) fn status(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    ctx.key_store()?;
    let required = ctx.setup.is_required()?;
    let pending = required && ctx.setup.pin_pending()?;
    Ok(ok(&json!({"setup_required": required, "account_setup_available": pending})))
}

/// The first key. Needs the PIN unless the request surely comes from this machine itself.
pub(super) fn first_key(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let store = ctx.key_store()?;
    if !ctx.origins.origin_allowed(&call.req.headers) {
        return Err(origin_refused());
    }
    let mut body: KeyBody = decode(&call.req.body, "invalid JSON body")?;
    if body.name.trim().is_empty() {
        "admin".clone_into(&mut body.name);
    }
    if body.scopes.is_empty() {
        body.scopes.push("admin".to_owned());
    }
    validate_key_input(&body.name, &body.scopes).map_err(ApiError::bad_request)?;
    if !ctx.setup.is_required()? {
        return Err(already_done());
    }
    if !ctx.origins.is_surely_local(&call.req.headers, call.req.peer.ip()) {
        let address = ctx.origins.client_address(&call.req.headers, call.req.peer.ip());
        throttle(ctx, &address, "setup", "too many attempts")?;
        let pin_needed =
            "the setup PIN is needed from here: send it as pin; it is in the hub's log, or run: holt setup-pin";
        if body.pin.trim().is_empty() || ctx.setup.check_pin(&body.pin)? != PinCheck::Right {
            audit::refused(ctx, "setup.key", &address, "wrong or missing PIN");
            return Err(ApiError::new(403, "pin_required", pin_needed));
        }
    }
    match store.create_first(&body.name, &body.scopes, |tx| may_set_up(tx))? {
        Some((record, plaintext)) => {
            log::info!("setup done: first API key {} created", record.id);
            audit::note(ctx, call, "setup.key", &record.id, &keys::detail(&record));
            Ok(Reply::Full(created(201, &record, &plaintext)))
        }
        None => Err(already_done()),
    }
}

/// The dashboard's password, against the PIN; logs in.
pub(super) fn account(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let address = ctx.origins.client_address(&call.req.headers, call.req.peer.ip());
    throttle(ctx, &address, "setup", "too many attempts")?;
    if !ctx.origins.origin_allowed(&call.req.headers) {
        return Err(origin_refused());
    }
    let body: AccountBody = decode(&call.req.body, "invalid JSON body")?;
    if body.pin.trim().is_empty() {
        return Err(ApiError::bad_request("pin is required"));
    }
    if body.password.len() < limits::PASSWORD_BYTES_MIN {
        return Err(ApiError::bad_request("password must be at least 8 characters"));
    }
    if body.password.len() > limits::PASSWORD_BYTES_MAX {
        return Err(ApiError::bad_request("password must be at most 72 bytes"));
    }
    match ctx.setup.check_pin(&body.pin)? {
        PinCheck::Right => {}
        PinCheck::Wrong => {
            log::warn!("a wrong setup PIN was tried from {address}");
            audit::refused(ctx, "setup.account", &address, "wrong PIN");
            return Err(ApiError::new(401, "invalid_pin", "invalid PIN"));
        }
        PinCheck::NonePending => return Err(not_available()),
    }
    let visitor = Visitor::of(ctx, call);
    Ok(in_lane(ctx, Box::new(move |ctx| finish_account(ctx, &body, &visitor, &address))))
}

fn finish_account(ctx: &Ctx, body: &AccountBody, visitor: &Visitor, address: &str) -> Result<Response, ApiError> {
    let hash = password::hash(&body.password).ok_or_else(|| ApiError::internal(&"bcrypt refused a password"))?;
    {
        // One at a time: whoever comes second finds setup done.
        let _one = lock(&ctx.account);
        if ctx.setup.check_pin(&body.pin)? != PinCheck::Right {
            return Err(not_available());
        }
        let mut set = |doc: &mut edit::Document| edit::set(doc, "api.auth.password_hash", &json!(hash));
        ctx.deps.settings.change(&mut set).map_err(|error| {
            log::error!("{error}");
            match error.refusal() {
                Some(_) => error.into(),
                None => ApiError::new(500, "config_not_saved", "failed to save configuration"),
            }
        })?;
        ctx.setup.complete()?;
    }
    log::info!("setup done: the dashboard password was set from {address}");
    ctx.deps.audit.record(&Entry { source: address, target: "api.auth.password_hash", ..Entry::ok("config.write") });
    log_in(ctx, "setup.account", visitor)
}

fn already_done() -> ApiError {
    ApiError::new(409, "setup_complete", "setup already complete \u{2014} manage keys on the API Keys page")
}

fn not_available() -> ApiError {
    ApiError::new(409, "setup_unavailable", "account setup is no longer available")
}
