//! `[[agents]]`, `[plugins]`: from typed to validated.

use std::collections::HashSet;
use std::path::Path;

use super::check::tier;
use super::error::ConfigError;
use super::fallback::{self, fallbacks};
use super::json::typed;
use super::llm::{check_cost, check_provider};
use super::raw::{Agent, Typed};
use super::{AgentConfig, LlmConfig, Tier, check_tool_server_name};
use crate::rt::order::Order;

/// `[agent]`.
#[derive(Default)]
pub(super) struct MadeUpAgent {
    pub(super) persona_dir: String,
    pub(super) skills_dir: String,
}

typed!(MadeUpAgent { persona_dir, skills_dir });

/// Longest agent name: it becomes a directory's name.
const NAME_BYTES_MAX: usize = 64;

/// The agents, `default` first; one is made up when the file has none (contract engine 10.2).
pub(super) fn agents(typed: &mut Typed, llm: &LlmConfig, data_dir: &Path) -> Result<Vec<AgentConfig>, ConfigError> {
    let global = tier(typed, "session.tier", &typed.raw.session.tier, Tier::Supervised)?;
    if typed.raw.agents.is_empty() {
        let made_up =
            Agent { name: "default".into(), persona_dir: typed.raw.agent.persona_dir.clone(), ..Agent::default() };
        return Ok(vec![agent(typed, 0, &made_up, global, llm, data_dir)?]);
    }
    let mut names = HashSet::new();
    let mut agents = Vec::with_capacity(typed.raw.agents.len());
    let mut warnings = Vec::new();
    for (at, raw) in typed.raw.agents.iter().enumerate() {
        let key = format!("agents[{at}].name");
        check_name(&raw.name).map_err(|reason| typed.bad(&key, reason))?;
        if !names.insert(raw.name.as_str()) {
            return Err(typed.bad(&key, format!("must be unique, {:?} is there twice", raw.name)));
        }
        if !is_plain_name(&raw.name) {
            warnings.push(format!(
                "{key}: {:?} cannot be edited through the API: it is not of a-z, 0-9, _ and -",
                raw.name
            ));
        }
        let agent = agent(typed, at, raw, global, llm, data_dir)?;
        warnings.extend(fallback::warnings(&format!("agents[{at}].fallback"), &agent.fallback, &llm.providers));
        agents.push(agent);
    }
    if !names.contains("default") {
        return Err(typed.bad("agents", "one agent must have the name \"default\""));
    }
    agents.order_by(|a, b| (a.name != "default", &a.name).cmp(&(b.name != "default", &b.name)));
    typed.warnings.extend(warnings);
    Ok(agents)
}

fn agent(
    typed: &Typed,
    at: usize,
    raw: &Agent,
    global: Tier,
    llm: &LlmConfig,
    data_dir: &Path,
) -> Result<AgentConfig, ConfigError> {
    let key = |field: &str| format!("agents[{at}].{field}");
    let tier = tier(typed, &key("session_tier"), &raw.session_tier, global)?;
    let soft = raw.cost_limit_soft.unwrap_or(0.0);
    let hard = raw.cost_limit_hard.unwrap_or(llm.cost_limit_hard);
    check_cost(typed, &key("cost_limit_soft"), soft)?;
    check_cost(typed, &key("cost_limit_hard"), hard)?;
    if hard > 0.0 && soft > hard {
        return Err(
            typed.bad(&key("cost_limit_soft"), format!("must not be above the hard limit of {hard}, got {soft}"))
        );
    }
    let fallback = fallbacks(typed, &key("fallback"), &raw.fallback)?;
    let provider = if raw.llm_provider.is_empty() { &llm.default_provider } else { &raw.llm_provider };
    check_provider(typed, &key("llm_provider"), provider, &llm.providers)?;
    let persona_dir = match raw.persona_dir.as_str() {
        "" => data_dir.join("agents").join(&raw.name),
        dir => dir.into(),
    };
    let shared = [&raw.skills_dir, &typed.raw.agent.skills_dir].into_iter().find(|dir| !dir.is_empty());
    let skills_dir = shared.map_or_else(|| data_dir.join("skills"), Into::into);
    Ok(AgentConfig {
        name: raw.name.clone(),
        description: raw.description.clone(),
        tier,
        provider: provider.clone(),
        fallback,
        model: if raw.llm_model.is_empty() { typed.raw.llm.default_model.clone() } else { raw.llm_model.clone() },
        persona_dir,
        skills_dir,
        adapters: raw.adapters.clone(),
        cost_limit_soft: raw.cost_limit_soft,
        cost_limit_hard: raw.cost_limit_hard,
        auto_approve_tools: raw.auto_approve_tools.clone(),
        browser_url_allowlist: raw.browser_url_allowlist.clone(),
    })
}

/// A reference file may use names that the API would refuse (W-32); what would leave its directory is refused here too.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("must be given".to_owned());
    }
    let dangerous = name.starts_with('.') || name.contains(['/', '\\', ':']) || name.chars().any(char::is_control);
    if dangerous || name.len() > NAME_BYTES_MAX {
        return Err(format!("must be at most {NAME_BYTES_MAX} of a-z, 0-9, _ and -, got {name:?}"));
    }
    Ok(())
}

fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.bytes().next().is_some_and(plain) && name.bytes().all(|byte| plain(byte) || matches!(byte, b'_' | b'-'))
}

/// What the reference refuses at start, for the sections that Holt keeps but reads elsewhere.
pub(super) fn check_others(typed: &Typed) -> Result<(), ConfigError> {
    let raw = &typed.raw;
    for (name, plugin) in &raw.plugins {
        let key = |field: &str| format!("plugins.{name}.{field}");
        check_tool_server_name(name).map_err(|reason| typed.bad(&format!("plugins.{name}"), reason))?;
        plugin.check().map_err(|(field, reason)| typed.bad(&key(field), reason))?;
        if raw.tools.contains_key(name) {
            return Err(typed.bad(&format!("plugins.{name}"), "there is a tool of this name"));
        }
    }
    Ok(())
}
