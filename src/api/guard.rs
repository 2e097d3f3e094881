//! What stands before every handler: identity, scope, origin of cookie-borne changes, rate (contract 1.2, 2.1).

use crate::api::error::ApiError;
use crate::api::message::Req;
use crate::api::routes::Guard;
use crate::api::server::Ctx;
use crate::auth::{AuthError, Identity};

/// Who calls a guarded route.
pub(super) type Caller = Identity;

/// Lets a request through, or says why not.
pub(super) fn check(ctx: &Ctx, req: &Req, guard: Guard) -> Result<Option<Caller>, ApiError> {
    let (scopes, token) = match guard {
        Guard::Open => return Ok(None),
        Guard::Scope(scopes) => (scopes, None),
        Guard::Socket(scopes) => (scopes, req.query_param("token").filter(|token| !token.is_empty())),
    };
    let identity = authenticate(ctx, req, scopes, token.as_deref())?;
    req.authenticated.set(true);
    let socket = matches!(guard, Guard::Socket(_));
    if (socket || (identity.by_cookie && !req.is_read())) && !ctx.origins.origin_allowed(&req.headers) {
        return Err(origin_refused());
    }
    if !socket && !ctx.rate.allow(&identity.name) {
        return Err(ApiError::new(429, "rate_limited", "rate limit exceeded").with_header("Retry-After", "1"));
    }
    Ok(Some(identity))
}

/// Whether somebody may call a route that is guarded so.
pub(super) fn holds(identity: &Identity, guard: Guard) -> bool {
    match guard {
        Guard::Open => true,
        Guard::Scope(scopes) | Guard::Socket(scopes) => scopes.iter().any(|scope| identity.holds(scope)),
    }
}

/// 403 for a foreign `Origin`; says which setting would allow it.
pub(super) fn origin_refused() -> ApiError {
    ApiError::new(403, "origin_not_allowed", "origin not allowed; add it to api.cors_origins if it is yours")
}

/// The first of the scopes that the credential holds decides.
fn authenticate(ctx: &Ctx, req: &Req, scopes: &[&str], token: Option<&str>) -> Result<Identity, ApiError> {
    let mut failure = AuthError::Missing;
    for scope in scopes {
        match ctx.auth.authenticate(&req.headers, token, scope) {
            Ok(identity) => return Ok(identity),
            Err(error @ AuthError::Scope) => failure = error,
            Err(error) => return Err(error.into()),
        }
    }
    Err(failure.into())
}
