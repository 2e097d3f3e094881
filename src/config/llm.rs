//! `[llm]`: providers, which of them answers, and how long it may take.

use std::time::Duration;

use super::api::some_text;
use super::check::{at_least, given, number, time_above_zero, word};
use super::error::ConfigError;
use super::raw::{Fallback, RawProvider, Typed};
use super::{LlmConfig, ProviderConfig, ProviderKind};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A small computer loads a model from its disk before it says a word.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(180);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// Contract engine 1.4.
const CONTEXT_MESSAGES_MAX: usize = 50;
/// Contract engine 1.4.
const TOOL_ROUNDS_MAX: u32 = 10;
/// Contract engine 10.2: 0 also means this.
const COST_LIMIT_HARD: f64 = 1.0;

pub(super) fn llm(typed: &mut Typed) -> Result<LlmConfig, ConfigError> {
    let providers = providers(typed)?;
    let default_provider = default_provider(typed, &providers)?;
    let raw = &typed.raw.llm;
    let (cost_limit_soft, cost_limit_hard) = cost_limits(typed)?;
    fallbacks(typed, "llm.fallback", &raw.fallback)?;
    let config = LlmConfig {
        default_model: raw.default_model.clone(),
        connect_timeout: time_above_zero(
            typed,
            "llm.connect_timeout",
            raw.connect_timeout.as_deref(),
            CONNECT_TIMEOUT,
        )?,
        first_byte_timeout: time_above_zero(
            typed,
            "llm.first_byte_timeout",
            raw.first_byte_timeout.as_deref(),
            FIRST_BYTE_TIMEOUT,
        )?,
        idle_timeout: time_above_zero(typed, "llm.idle_timeout", raw.idle_timeout.as_deref(), IDLE_TIMEOUT)?,
        total_timeout: time_above_zero(typed, "llm.total_timeout", raw.total_timeout.as_deref(), TOTAL_TIMEOUT)?,
        context_messages_max: at_least(
            typed,
            "llm.context_messages_max",
            raw.context_messages_max,
            1,
            CONTEXT_MESSAGES_MAX,
        )?,
        tool_rounds_max: match raw.max_tool_rounds {
            None => TOOL_ROUNDS_MAX,
            Some(rounds) => number(typed, "llm.max_tool_rounds", rounds, 0, 1000)?,
        },
        cost_limit_soft,
        cost_limit_hard,
        default_provider,
        providers,
    };
    if config.default_provider != "local" && config.default_model.is_empty() {
        typed.warnings.push(format!(
            "llm.default_model is not set: {} cannot answer until it is, or each agent has an llm_model",
            config.default_provider
        ));
    }
    Ok(config)
}

/// `local` and `ollama` always, the others with a credential; `openai` also with an address of its own, because local
/// servers need no key.
fn providers(typed: &Typed) -> Result<Vec<ProviderConfig>, ConfigError> {
    let raw = &typed.raw.llm;
    let mut providers = vec![provider("local", ProviderKind::Local, &RawProvider::default())];
    for (name, kind, from, listed) in [
        ("openai", ProviderKind::OpenAi, &raw.openai, has_credential(&raw.openai)),
        ("ollama", ProviderKind::Ollama, &raw.ollama, true),
        ("anthropic", ProviderKind::Anthropic, &raw.anthropic, !raw.anthropic.api_key.is_empty()),
        ("openrouter", ProviderKind::OpenRouter, &raw.openrouter, !raw.openrouter.api_key.is_empty()),
    ] {
        let url = from.base_url.trim();
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let key = format!("llm.{name}.base_url");
        if !url.is_empty() && host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
            return Err(typed.bad(&key, "must begin with http:// or https:// and name a host"));
        }
        // Addresses are shown and logged; keys are not.
        if host.is_some_and(|host| host.split('/').next().unwrap_or_default().contains('@')) {
            return Err(typed.bad(&key, "must not hold a user name or password; use api_key"));
        }
        if listed {
            providers.push(provider(name, kind, from));
        }
    }
    Ok(providers)
}

fn provider(name: &str, kind: ProviderKind, raw: &RawProvider) -> ProviderConfig {
    ProviderConfig {
        name: name.to_owned(),
        kind,
        api_key: some_text(&raw.api_key),
        base_url: some_text(raw.base_url.trim()),
        organization: some_text(&raw.organization),
    }
}

fn has_credential(raw: &RawProvider) -> bool {
    !raw.api_key.is_empty() || !raw.base_url.trim().is_empty()
}

/// The chosen one, else the first with a credential, else `local` (decisions, row "defaults").
fn default_provider(typed: &mut Typed, providers: &[ProviderConfig]) -> Result<String, ConfigError> {
    let key = "llm.default_provider";
    let chosen = typed.raw.llm.default_provider.as_str();
    match chosen {
        "local" | "ollama" => return Ok(chosen.to_owned()),
        "openai" if has_credential(&typed.raw.llm.openai) => return Ok(chosen.to_owned()),
        "openai" => {
            return Err(
                typed.bad(key, "openai needs llm.openai.api_key, or llm.openai.base_url for a server without keys")
            );
        }
        "anthropic" => {
            return Err(typed.bad(key, "anthropic comes with a later release; choose openai, ollama or local"));
        }
        "openrouter" => {
            return Err(typed.bad(
                key,
                "openrouter comes with a later release; until then choose openai with \
                 llm.openai.base_url = \"https://openrouter.ai/api/v1\" and your key as llm.openai.api_key",
            ));
        }
        "" => {}
        other => {
            return Err(
                typed.bad(key, format!("must be one of local, openai, ollama, anthropic, openrouter, got {other:?}"))
            );
        }
    }
    for skipped in providers.iter().filter(|p| matches!(p.kind, ProviderKind::Anthropic | ProviderKind::OpenRouter)) {
        typed.warnings.push(format!("llm.{}: comes with a later release and is not used", skipped.name));
    }
    if has_credential(&typed.raw.llm.openai) {
        return Ok("openai".to_owned());
    }
    // Ollama has no credential: naming its address is what shows that it is wanted.
    if has_credential(&typed.raw.llm.ollama) {
        return Ok("ollama".to_owned());
    }
    Ok("local".to_owned())
}

/// Soft and hard limit in USD; a soft limit of 0 is off.
fn cost_limits(typed: &Typed) -> Result<(f64, f64), ConfigError> {
    let raw = &typed.raw.llm;
    for (key, value) in [
        ("llm.cost_limit_soft", raw.cost_limit_soft),
        ("llm.cost_limit_hard", raw.cost_limit_hard),
        ("llm.max_cost_per_session", raw.max_cost_per_session),
    ] {
        check_cost(typed, key, value)?;
    }
    let hard = [raw.cost_limit_hard, raw.max_cost_per_session].into_iter().find(|limit| *limit > 0.0);
    let hard = hard.unwrap_or(COST_LIMIT_HARD);
    if raw.cost_limit_soft > hard {
        let reason = format!("must not be above the hard limit of {hard}, got {}", raw.cost_limit_soft);
        return Err(typed.bad("llm.cost_limit_soft", reason));
    }
    Ok((raw.cost_limit_soft, hard))
}

pub(super) fn check_cost(typed: &Typed, key: &str, value: f64) -> Result<(), ConfigError> {
    if value >= 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(typed.bad(key, format!("must be 0 or more, got {value}")))
}

/// Fallback rules are not followed yet, but a rule that makes no sense is refused as the reference does.
pub(super) fn fallbacks(typed: &Typed, key: &str, rules: &[Fallback]) -> Result<(), ConfigError> {
    for (at, rule) in rules.iter().enumerate() {
        let key = |field: &str| format!("{key}[{at}].{field}");
        word(typed, &key("trigger"), &rule.trigger, &["error", "rate_limit", "low_funds"])?;
        word(typed, &key("action"), &rule.action, &["switch_provider", "switch_model", "wait_and_retry"])?;
        match rule.action.as_str() {
            "switch_provider" => given(typed, &key("provider"), &rule.provider)?,
            "switch_model" => given(typed, &key("model"), &rule.model)?,
            _ if rule.max_retries <= 0 => {
                return Err(typed.bad(&key("max_retries"), format!("must be 1 or more, got {}", rule.max_retries)));
            }
            _ => {}
        }
        if rule.trigger == "low_funds" && (rule.threshold.is_nan() || rule.threshold <= 0.0) {
            return Err(typed.bad(&key("threshold"), format!("must be more than 0, got {}", rule.threshold)));
        }
        word(typed, &key("backoff"), &rule.backoff, &["", "exponential", "constant"])?;
    }
    Ok(())
}
