//! `[fleet]`: machines, and who may do what on them (contract agent-link 8). Holt's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::check::time_above_zero;
use super::env::Env;
use super::error::ConfigError;
use super::fleet_times::{FleetTimes, RawTimes, times};
use super::gateway::{GatewayConfig, RawGateway, gateway};
use super::json::typed;
use super::raw::Typed;
use super::secret;
use crate::limits;

/// What may be allowed on a machine.
const OPERATIONS: &[&str] = &["view", "inspect", "diagnose", "chat"];
/// A shorter one can be guessed.
const SHARED_TOKEN_BYTES_MIN: usize = 16;

/// `[fleet]`. `Debug` hides the secret.
#[derive(Clone)]
pub struct FleetConfig {
    /// A token that any number of machines may use, as the reference does.
    pub shared_token: Option<String>,
    /// Whether machines may ask to take part, for somebody to approve.
    pub approval_requests: bool,
    /// How long a machine may be away before it is down.
    pub down_after: Duration,
    /// Who may do what; nobody but admins may do what is not here.
    pub access: Vec<AccessRule>,
    pub gateway: GatewayConfig,
    pub times: FleetTimes,
}

impl std::fmt::Debug for FleetConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("FleetConfig");
        shown.field("approval_requests", &self.approval_requests).field("down_after", &self.down_after);
        shown.field("access", &self.access).finish_non_exhaustive()
    }
}

/// `[[fleet.access]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// `key:NAME`, `user:E-MAIL` or `*`.
    pub who: String,
    /// Ids or display names; `*` is all.
    pub machines: Vec<String>,
    /// Machines that have all of these; none are meant when it is empty.
    pub labels: BTreeMap<String, String>,
    /// Of `view`, `inspect`, `diagnose` and `chat`.
    pub allow: Vec<String>,
}

#[derive(Default)]
pub(super) struct RawFleet {
    shared_token: String,
    allow_shared: Option<bool>,
    approval_requests: Option<bool>,
    down_after: Option<String>,
    access: Vec<RawAccess>,
    gateway: RawGateway,
    times: RawTimes,
}

typed!(RawFleet { shared_token, allow_shared, approval_requests, down_after, access, gateway, times });

#[derive(Default)]
struct RawAccess {
    who: String,
    machines: Vec<String>,
    labels: BTreeMap<String, String>,
    allow: Vec<String>,
}

typed!(RawAccess { who, machines, labels, allow });

pub(super) fn fleet(typed: &Typed, env: &Env, data_dir: &Path) -> Result<FleetConfig, ConfigError> {
    let raw = &typed.raw.fleet;
    let shared_token = secret::read(typed, "fleet.shared_token", &raw.shared_token, env, data_dir)?;
    if shared_token.as_ref().is_some_and(|token| token.len() < SHARED_TOKEN_BYTES_MIN) {
        return Err(typed.bad("fleet.shared_token", format!("must be at least {SHARED_TOKEN_BYTES_MIN} characters")));
    }
    let mut access = Vec::with_capacity(raw.access.len());
    for (at, rule) in raw.access.iter().enumerate() {
        let bad = |field: &str, reason: String| Err(typed.bad(&format!("fleet.access[{at}].{field}"), reason));
        let names_somebody =
            ["key:", "user:"].iter().any(|kind| rule.who.len() > kind.len() && rule.who.starts_with(kind));
        if rule.who != "*" && !names_somebody {
            return bad("who", format!("must be \"key:NAME\", \"user:E-MAIL\" or \"*\", got {:?}", rule.who));
        }
        if let Some(unknown) = rule.allow.iter().find(|name| !OPERATIONS.contains(&name.as_str())) {
            return bad("allow", format!("may hold {}; got {unknown:?}", OPERATIONS.join(", ")));
        }
        if rule.machines.is_empty() && rule.labels.is_empty() {
            return bad("machines", "is missing: name machines, or labels; \"*\" is all machines".to_owned());
        }
        access.push(AccessRule {
            who: rule.who.clone(),
            machines: rule.machines.clone(),
            labels: rule.labels.clone(),
            allow: rule.allow.clone(),
        });
    }
    Ok(FleetConfig {
        shared_token: shared_token.filter(|_| raw.allow_shared.unwrap_or(true)),
        approval_requests: raw.approval_requests.unwrap_or(true),
        down_after: time_above_zero(typed, "fleet.down_after", raw.down_after.as_deref(), limits::MACHINE_DOWN_AFTER)?,
        access,
        gateway: gateway(typed, &raw.gateway)?,
        times: times(typed, &raw.times)?,
    })
}
