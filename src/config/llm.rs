//! `[llm]`: providers, which of them answers, and how long it may take.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::api::some_text;
use super::check::{at_least, number, time_above_zero};
use super::env::Env;
use super::error::ConfigError;
use super::fallback::{self, fallbacks};
use super::raw::Typed;
use super::raw_llm::RawProvider;
use super::{LlmConfig, ProviderConfig, ProviderKind, secret};

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
/// No model reads or writes more in one call; a larger number is a slip.
const TOKENS_MAX: u32 = 100_000_000;
/// Longest name of a provider.
const NAME_BYTES_MAX: usize = 64;

pub(super) fn llm(typed: &mut Typed, env: &Env, data_dir: &Path) -> Result<LlmConfig, ConfigError> {
    let providers = providers(typed, env, data_dir)?;
    let default_provider = default_provider(typed, &providers)?;
    let fallback = fallbacks(typed, "llm.fallback", &typed.raw.llm.fallback)?;
    typed.warnings.extend(fallback::warnings("llm.fallback", &fallback, &providers));
    let raw = &typed.raw.llm;
    let (cost_limit_soft, cost_limit_hard) = cost_limits(typed)?;
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
        fallback,
    };
    if config.default_provider != "local" && config.default_model.is_empty() {
        typed.warnings.push(format!(
            "llm.default_model is not set: {} cannot answer until it is, or each agent has an llm_model",
            config.default_provider
        ));
    }
    Ok(config)
}

/// `local` and `ollama` always, the other fixed names with a credential; `openai` also with an address of its own,
/// because local servers need no key. Then those of `[[llm.providers]]`.
fn providers(typed: &mut Typed, env: &Env, data_dir: &Path) -> Result<Vec<ProviderConfig>, ConfigError> {
    let raw = &typed.raw.llm;
    let mut providers = vec![ProviderConfig {
        name: "local".to_owned(),
        kind: ProviderKind::Local,
        api_key: None,
        base_url: None,
        organization: None,
        is_free: true,
        max_tokens: None,
        num_ctx: None,
    }];
    let fixed = [
        ("anthropic", ProviderKind::Anthropic, &raw.anthropic, !raw.anthropic.api_key.is_empty()),
        ("openrouter", ProviderKind::OpenRouter, &raw.openrouter, !raw.openrouter.api_key.is_empty()),
        ("openai", ProviderKind::OpenAi, &raw.openai, has_credential(&raw.openai)),
        ("ollama", ProviderKind::Ollama, &raw.ollama, true),
    ];
    for (name, kind, from, listed) in fixed {
        let provider = Reader { typed, env, data_dir }.read(&format!("llm.{name}"), name, kind, from, listed)?;
        providers.extend(provider);
    }
    for (at, from) in raw.providers.iter().enumerate() {
        let path = format!("llm.providers[{at}]");
        let key = |field: &str| format!("{path}.{field}");
        check_name(&from.name).map_err(|reason| typed.bad(&key("name"), reason))?;
        if providers.iter().any(|known| known.name == from.name) {
            return Err(typed.bad(&key("name"), format!("must be unique, there is a provider {:?}", from.name)));
        }
        let kind = match from.kind.as_str() {
            "openai" => ProviderKind::OpenAi,
            "anthropic" => ProviderKind::Anthropic,
            "openrouter" => ProviderKind::OpenRouter,
            "ollama" => ProviderKind::Ollama,
            other => {
                let reason = format!("must be one of openai, anthropic, openrouter, ollama, got {other:?}");
                return Err(typed.bad(&key("type"), reason));
            }
        };
        if matches!(kind, ProviderKind::Anthropic | ProviderKind::OpenRouter) && !has_credential(from) {
            return Err(typed.bad(&key("api_key"), "must be given for this type"));
        }
        providers.extend(Reader { typed, env, data_dir }.read(&path, &from.name, kind, from, true)?);
    }
    Ok(providers)
}

/// What reading a provider needs.
struct Reader<'a> {
    typed: &'a Typed,
    env: &'a Env,
    data_dir: &'a Path,
}

impl Reader<'_> {
    /// A provider from its table at `path`; None when it is not `listed`, but what is wrong in it is refused anyway.
    fn read(
        &self,
        path: &str,
        name: &str,
        kind: ProviderKind,
        raw: &RawProvider,
        listed: bool,
    ) -> Result<Option<ProviderConfig>, ConfigError> {
        let key = |field: &str| format!("{path}.{field}");
        let url = raw.base_url.trim();
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if !url.is_empty() && host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
            return Err(self.typed.bad(&key("base_url"), "must begin with http:// or https:// and name a host"));
        }
        // Addresses are shown and logged; keys are not.
        let authority = host.map(|host| host.split(['/', '?', '#']).next().unwrap_or_default());
        if authority.is_some_and(|authority| authority.contains('@')) {
            return Err(self.typed.bad(&key("base_url"), "must not hold a user name or password; use api_key"));
        }
        let tokens = |field: &str, value: Option<i64>| {
            value.map(|value| number(self.typed, &key(field), value, 1, TOKENS_MAX)).transpose()
        };
        let max_tokens = tokens("max_tokens", raw.max_tokens)?;
        let num_ctx = tokens("num_ctx", raw.num_ctx)?;
        if !listed {
            return Ok(None);
        }
        let is_own = kind == ProviderKind::Ollama || authority.is_some_and(is_own_host);
        Ok(Some(ProviderConfig {
            name: name.to_owned(),
            kind,
            api_key: secret::read(self.typed, &key("api_key"), &raw.api_key, self.env, self.data_dir)?,
            base_url: some_text(url),
            organization: some_text(&raw.organization),
            is_free: raw.free.unwrap_or(is_own),
            max_tokens,
            num_ctx,
        }))
    }
}

/// Whether a host is one of the user's own: this machine, a private address, a name of the local network.
fn is_own_host(authority: &str) -> bool {
    let bare = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    match bare.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => {
            let name = bare.trim_end_matches('.').to_ascii_lowercase();
            !name.contains('.') || [".local", ".localhost"].iter().any(|end| name.ends_with(end))
        }
    }
}

/// It stands in URLs and reports.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        return Err(format!("must be 1 to {NAME_BYTES_MAX} of a-z, 0-9, _ and -, got {name:?}"));
    }
    Ok(())
}

fn has_credential(raw: &RawProvider) -> bool {
    !raw.api_key.is_empty() || !raw.base_url.trim().is_empty()
}

/// The chosen one, else the first with a credential, else `local` (decisions, row "defaults").
fn default_provider(typed: &Typed, providers: &[ProviderConfig]) -> Result<String, ConfigError> {
    let chosen = typed.raw.llm.default_provider.as_str();
    if !chosen.is_empty() {
        return check_provider(typed, "llm.default_provider", chosen, providers).map(|()| chosen.to_owned());
    }
    let has_credential = |provider: &&ProviderConfig| match provider.name.as_str() {
        "local" => false,
        // Ollama has no credential: naming its address is what shows that it is wanted.
        "ollama" => has_credential(&typed.raw.llm.ollama),
        _ => true,
    };
    Ok(providers.iter().find(has_credential).map_or_else(|| "local".to_owned(), |found| found.name.clone()))
}

/// Refuses the name of a provider that is not set up, and says what it lacks.
pub(super) fn check_provider(
    typed: &Typed,
    key: &str,
    name: &str,
    providers: &[ProviderConfig],
) -> Result<(), ConfigError> {
    if providers.iter().any(|provider| provider.name == name) {
        return Ok(());
    }
    Err(typed.bad(
        key,
        match name {
            "openai" => "openai needs llm.openai.api_key, or llm.openai.base_url for a server without keys".to_owned(),
            "anthropic" | "openrouter" => format!("{name} needs llm.{name}.api_key"),
            other => {
                let known: Vec<&str> = providers.iter().map(|provider| provider.name.as_str()).collect();
                format!(
                    "must be one of local, openai, ollama, anthropic, openrouter or a name of [[llm.providers]], got \
                     {other:?}; set up are {}",
                    known.join(", ")
                )
            }
        },
    ))
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
