//! `GET /api/v1/agent/ws`: the door of the machine link (contract agent-link 1.2, 1.3). Its own credentials, checked
//! before the upgrade; never a redirect.

use crate::api::error::ApiError;
use crate::api::message::{AgentStart, Reply, Upgrade};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::api::ws::checked_key;
use crate::fleet::hub::Refused;

/// Checks who comes; the socket then leaves HTTP.
pub(super) fn upgrade(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let fleet = ctx.fleet()?;
    let headers = &call.req.headers;
    if headers.has("origin") {
        // Machines send none; a page in a browser has nothing to do here.
        return Err(ApiError::new(403, "origin_not_allowed", "the machine link is not for browsers"));
    }
    let key = checked_key(call)?;
    let address = ctx.origins.client_address(headers, call.req.peer.ip());
    let admission = fleet.admit(headers, &address)?;
    call.req.authenticated.set(true);
    Ok(Reply::Upgrade(Box::new(Upgrade::Agent(AgentStart { key, admission }))))
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Version => Self::bad_request("X-Proto-Version must be 1"),
            Refused::Id => Self::bad_request("X-Agent-ID must be a UUID"),
            Refused::Token => Self::new(401, "unauthorized", "no valid X-Agent-Token"),
            Refused::NotApproved => Self::new(403, "not_approved", "this machine is not approved"),
            Refused::Throttled { seconds } => {
                Self::new(429, "rate_limited", "too many wrong tokens").with_header("Retry-After", &seconds.to_string())
            }
            Refused::Full => Self::new(503, "busy", "too many machines are connected").with_header("Retry-After", "30"),
            Refused::Store(error) => error.into(),
        }
    }
}
