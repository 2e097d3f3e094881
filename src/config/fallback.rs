//! `[[llm.fallback]]` and `[[agents.fallback]]`: what happens when a call of a model fails (contract engine 9.5).

use super::ProviderConfig;
use super::check::{given, number, word};
use super::error::ConfigError;
use super::raw::Typed;
use super::raw_llm::Fallback;

/// Tries of one `wait_and_retry`; more would keep a turn for hours.
const RETRIES_MAX: u32 = 100;

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct FallbackRule {
    pub trigger: FallbackTrigger,
    pub action: FallbackAction,
}

/// When a rule applies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FallbackTrigger {
    /// A call failed in a way that another try may not.
    Error,
    /// The provider answered 429.
    RateLimit,
    /// Before the call: the account of the default provider holds less than `threshold` USD.
    LowFunds { threshold: f64 },
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FallbackAction {
    /// Asks another provider; without a model for the same model name.
    SwitchProvider { provider: String, model: Option<String> },
    /// Asks the same provider for another model.
    SwitchModel { model: String },
    /// Asks again, up to `max_retries` times.
    WaitAndRetry { max_retries: u32, backoff: Backoff },
}

/// How the waits between tries grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backoff {
    Exponential,
    Constant,
}

pub(super) fn fallbacks(typed: &Typed, path: &str, rules: &[Fallback]) -> Result<Vec<FallbackRule>, ConfigError> {
    rules.iter().enumerate().map(|(at, raw)| rule(typed, &format!("{path}[{at}]"), raw)).collect()
}

/// Rules may name providers that are not set up, as in the reference; they are skipped, and this says so.
pub(super) fn warnings(path: &str, rules: &[FallbackRule], providers: &[ProviderConfig]) -> Vec<String> {
    let missing = |rule: &FallbackRule| match &rule.action {
        FallbackAction::SwitchProvider { provider, .. } => {
            providers.iter().all(|known| known.name != *provider).then(|| provider.clone())
        }
        FallbackAction::SwitchModel { .. } | FallbackAction::WaitAndRetry { .. } => None,
    };
    let rules = rules.iter().enumerate().filter_map(|(at, rule)| Some((at, missing(rule)?)));
    rules
        .map(|(at, name)| format!("{path}[{at}].provider: {name:?} is not set up, so the rule has no effect"))
        .collect()
}

fn rule(typed: &Typed, path: &str, raw: &Fallback) -> Result<FallbackRule, ConfigError> {
    let key = |field: &str| format!("{path}.{field}");
    word(typed, &key("trigger"), &raw.trigger, &["error", "rate_limit", "low_funds"])?;
    word(typed, &key("action"), &raw.action, &["switch_provider", "switch_model", "wait_and_retry"])?;
    word(typed, &key("backoff"), &raw.backoff, &["", "exponential", "constant"])?;
    let trigger = match raw.trigger.as_str() {
        "error" => FallbackTrigger::Error,
        "rate_limit" => FallbackTrigger::RateLimit,
        _ if !raw.threshold.is_finite() || raw.threshold <= 0.0 => {
            return Err(typed.bad(&key("threshold"), format!("must be more than 0, got {}", raw.threshold)));
        }
        _ => FallbackTrigger::LowFunds { threshold: raw.threshold },
    };
    let action = match raw.action.as_str() {
        "switch_provider" => {
            given(typed, &key("provider"), &raw.provider)?;
            let model = Some(raw.model.clone()).filter(|model| !model.is_empty());
            FallbackAction::SwitchProvider { provider: raw.provider.clone(), model }
        }
        "switch_model" => {
            given(typed, &key("model"), &raw.model)?;
            FallbackAction::SwitchModel { model: raw.model.clone() }
        }
        _ => FallbackAction::WaitAndRetry {
            max_retries: number(typed, &key("max_retries"), raw.max_retries, 1, RETRIES_MAX)?,
            backoff: if raw.backoff == "constant" { Backoff::Constant } else { Backoff::Exponential },
        },
    };
    Ok(FallbackRule { trigger, action })
}
