//! Agents as the API shows them (contract 4.1; W-30, W-35).

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use crate::agents::Agent;
use crate::agents::remote::RemoteAgent;
use crate::api::error::ApiError;
use crate::api::login::json_line;
use crate::api::message::Reply;
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::api::skills;
use crate::auth::AuthError;
use crate::config::{AgentConfig, Backoff, FallbackAction, FallbackRule, FallbackTrigger, Tier};
use crate::rt::json::quoted;
use crate::rt::order::gather;
use crate::skills::Section;

#[derive(Serialize)]
struct ListShape<'a> {
    name: &'a str,
    display_name: String,
    description: &'a str,
    permission_tier: &'static str,
    provider: String,
    model: String,
    skill_count: usize,
    has_tools: bool,
    browser_url_allowlist: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    adapters: &'a [String],
    /// Holt's own, of machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<bool>,
}

#[derive(Serialize)]
struct DetailShape<'a> {
    name: &'a str,
    display_name: String,
    description: &'a str,
    permission_tier: &'static str,
    provider: String,
    model: String,
    has_tools: bool,
    adapters: Option<&'a [String]>,
    skills: Vec<Value>,
    tool_names: Option<Vec<String>>,
    persona_dir: &'a str,
    persona_sections: Value,
    fallbacks: Vec<Value>,
    browser_url_allowlist: &'a [String],
    /// Holt's own, this and the limits: null is the general one.
    auto_approve_tools: &'a [String],
    cost_limit_soft: Option<f64>,
    cost_limit_hard: Option<f64>,
}

/// All agents, `default` first, then by name; then the machines that the caller may view.
pub(super) fn list(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let caller = call.caller.as_ref().ok_or(AuthError::Missing)?.caller();
    let machines = ctx.deps.engine.remote().map_or_else(Vec::new, |remote| remote.list(&caller));
    let agents = ctx.deps.engine.agents();
    let config = ctx.deps.settings.current();
    let mut shapes: Vec<ListShape<'_>> =
        agents.iter().map(|agent| list_shape(agent, config.agents.iter().find(|own| own.name == agent.name))).collect();
    shapes.extend(machines.iter().map(machine_shape));
    Ok(Reply::Full(json_line(200, &shapes)))
}

/// One agent.
pub(super) fn get(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    Ok(Reply::Full(json_line(200, &detail(ctx, call.params.get("name"))?)))
}

/// The shape of one agent, with what its own settings are.
pub(super) fn detail(ctx: &Ctx, name: &str) -> Result<Value, ApiError> {
    let agent = ctx.deps.engine.agents().find(name).ok_or_else(|| ApiError::not_found("agent not found"))?;
    let config = ctx.deps.settings.current();
    let own = config.agents.iter().find(|own| own.name == name);
    let tools = agent.tools().names();
    let (provider, model) = agent.router.default_choice();
    let shape = DetailShape {
        name: &agent.name,
        display_name: agent.display_name(),
        description: &agent.description,
        permission_tier: agent.tier.name(),
        provider,
        model,
        has_tools: !tools.is_empty(),
        adapters: (!agent.adapters.is_empty()).then_some(&agent.adapters[..]),
        skills: skills::shapes_of(&agent),
        tool_names: (!tools.is_empty()).then_some(tools),
        persona_dir: &agent.persona_dir,
        persona_sections: Value::Object(gather(
            Section::ALL
                .into_iter()
                .map(|section| (section.name().to_owned(), json!(agent.skills.persona().has(section)))),
        )),
        fallbacks: agent.router.rules().iter().map(fallback_shape).collect(),
        browser_url_allowlist: own.map_or(&[], |own| &own.browser_url_allowlist),
        auto_approve_tools: own.map_or(&[], |own| &own.auto_approve_tools),
        cost_limit_soft: own.and_then(|own| own.cost_limit_soft),
        cost_limit_hard: own.and_then(|own| own.cost_limit_hard),
    };
    serde_json::to_value(&shape).map_err(|error| ApiError::internal(&error))
}

/// The agent that a parameter of the path names, or 404.
pub(super) fn agent_of(ctx: &Ctx, call: &Call<'_>, parameter: &str) -> Result<Arc<Agent>, ApiError> {
    let name = call.params.get(parameter);
    let found = ctx.deps.engine.agents().find(name);
    found.ok_or_else(|| ApiError::not_found(format!("agent {} not found", quoted(name))))
}

/// A machine: it brings its own model and its own tools, which only read.
fn machine_shape(machine: &RemoteAgent) -> ListShape<'_> {
    ListShape {
        name: &machine.name,
        display_name: machine.display_name.clone(),
        description: &machine.description,
        permission_tier: Tier::Restricted.name(),
        provider: "machine".to_owned(),
        model: String::new(),
        skill_count: 0,
        has_tools: true,
        browser_url_allowlist: &[],
        adapters: &[],
        online: Some(machine.is_online),
    }
}

fn list_shape<'a>(agent: &'a Agent, own: Option<&'a AgentConfig>) -> ListShape<'a> {
    let (provider, model) = agent.router.default_choice();
    ListShape {
        name: &agent.name,
        display_name: agent.display_name(),
        description: &agent.description,
        permission_tier: agent.tier.name(),
        provider,
        model,
        skill_count: agent.skills.list().len(),
        has_tools: !agent.tools().names().is_empty(),
        browser_url_allowlist: own.map_or(&[], |own| &own.browser_url_allowlist),
        adapters: &agent.adapters,
        online: None,
    }
}

/// A fallback rule as the contract spells it (4.1).
fn fallback_shape(rule: &FallbackRule) -> Value {
    let mut shape = match &rule.action {
        FallbackAction::SwitchProvider { provider, model } => {
            let mut shape = json!({ "action": "switch_provider", "provider": provider });
            if let Some(model) = model {
                shape["model"] = Value::from(model.as_str());
            }
            shape
        }
        FallbackAction::SwitchModel { model } => json!({ "action": "switch_model", "model": model }),
        FallbackAction::WaitAndRetry { max_retries, backoff } => {
            let backoff = if *backoff == Backoff::Constant { "constant" } else { "exponential" };
            json!({ "action": "wait_and_retry", "max_retries": max_retries, "backoff": backoff })
        }
    };
    shape["trigger"] = Value::from(match rule.trigger {
        FallbackTrigger::Error => "error",
        FallbackTrigger::RateLimit => "rate_limit",
        FallbackTrigger::LowFunds { .. } => "low_funds",
    });
    if let FallbackTrigger::LowFunds { threshold } = rule.trigger {
        shape["threshold"] = Value::from(threshold);
    }
    shape
}
