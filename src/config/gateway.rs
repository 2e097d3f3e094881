//! `[fleet.gateway]`: models for machines that have none (contract agent-link 5). Holt's own.

use super::check::number;
use super::error::ConfigError;
use super::json::typed;
use super::raw::Typed;
use crate::limits;

/// `[fleet.gateway]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    pub enabled: bool,
    /// Of the two models; empty: that of the default agent.
    pub provider: String,
    /// For chats on machines; empty: the default agent's way to its model.
    pub chat_model: String,
    /// For diagnoses and inspections.
    pub diagnose_model: String,
    /// Of one machine; 0 is no limit.
    pub tokens_per_day: u64,
}

#[derive(Default)]
pub(super) struct RawGateway {
    enabled: Option<bool>,
    provider: String,
    chat_model: String,
    diagnose_model: String,
    tokens_per_day: Option<i64>,
}

typed!(RawGateway { enabled, provider, chat_model, diagnose_model, tokens_per_day });

pub(super) fn gateway(typed: &Typed, raw: &RawGateway) -> Result<GatewayConfig, ConfigError> {
    if !raw.provider.is_empty() && raw.chat_model.is_empty() && raw.diagnose_model.is_empty() {
        let reason = "needs chat_model or diagnose_model beside it".to_owned();
        return Err(typed.bad("fleet.gateway.provider", reason));
    }
    let tokens_per_day = match raw.tokens_per_day {
        None => limits::GATEWAY_TOKENS_PER_DAY,
        Some(tokens) => number(typed, "fleet.gateway.tokens_per_day", tokens, 0, u64::MAX)?,
    };
    Ok(GatewayConfig {
        enabled: raw.enabled.unwrap_or(true),
        provider: raw.provider.clone(),
        chat_model: raw.chat_model.clone(),
        diagnose_model: raw.diagnose_model.clone(),
        tokens_per_day,
    })
}
