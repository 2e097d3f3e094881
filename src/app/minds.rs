//! From a configuration to agents: providers, routers and tools, at the start and after every change.

use std::sync::Arc;

use crate::agents::{Agent, AgentParts, Agents};
use crate::api::settings::SettingsError;
use crate::config::Config;
use crate::fleet::hub::gateway::Routers;
use crate::llm::local::LocalProvider;
use crate::llm::{self, LlmError, Provider, Providers, Router};
use crate::skills::Skills;
use crate::tools::{Tool, ToolSource, builtin};

/// Makes agents. Connects to nothing.
pub(super) struct Maker {
    /// A model that the caller of the start brought along; it answers for all agents.
    pub(super) brought: Option<Arc<dyn Provider>>,
    /// What every agent can do, whatever the configuration says.
    pub(super) tools: Vec<Arc<dyn Tool>>,
    /// Those of tool servers.
    pub(super) source: Arc<dyn ToolSource>,
    /// What agents know of themselves.
    pub(super) skills: Arc<Skills>,
}

/// What a configuration makes of models and agents.
pub(super) struct Minds {
    pub(super) agents: Agents,
    pub(super) providers: Providers,
    /// None when machines get no models.
    pub(super) gateway: Option<Routers>,
}

impl Maker {
    /// Refuses what could not work; the text names the setting.
    pub(super) fn make(&self, config: &Config) -> Result<Minds, SettingsError> {
        let wrong = |error: LlmError| SettingsError::Part(format!("set up the model provider: {error}"));
        let providers = match &self.brought {
            Some(provider) => Providers::of(vec![Arc::clone(provider)]),
            None => Providers::build(&config.llm, Arc::new(LocalProvider)).map_err(wrong)?,
        };
        let only = self.brought.as_ref().map(|provider| provider.name());
        let mut shared = self.tools.clone();
        if let Some(web) = &config.web {
            shared.extend(builtin::web_tools(web).map_err(SettingsError::Part)?);
        }
        let mut agents = Vec::with_capacity(config.agents.len());
        for agent in &config.agents {
            let provider = only.unwrap_or(&agent.provider);
            let model = if provider == llm::local::NAME { llm::local::NAME } else { &agent.model };
            let rules = if agent.fallback.is_empty() { &config.llm.fallback } else { &agent.fallback };
            let router = Router::new(providers.clone(), provider, model, rules.clone()).map_err(wrong)?;
            let router = Arc::new(router);
            let mut tools = shared.clone();
            tools.push(builtin::set_fallback(&router));
            agents.push(Arc::new(Agent::new(AgentParts {
                name: agent.name.clone(),
                description: agent.description.clone(),
                tier: agent.tier,
                router,
                persona_dir: agent.persona_dir.display().to_string(),
                skills: self.skills.of(agent),
                timezone: config.api.timezone.clone(),
                adapters: agent.adapters.clone(),
                auto_approve: agent.auto_approve_tools.clone(),
                tools,
                source: Some(Arc::clone(&self.source)),
            })));
        }
        let agents = Agents::new(agents);
        let gateway = gateway(config, &agents).map_err(wrong)?;
        Ok(Minds { agents, providers, gateway })
    }
}

/// The ways to models that machines get; None when the gateway is switched off.
fn gateway(config: &Config, agents: &Agents) -> Result<Option<Routers>, LlmError> {
    let settings = &config.fleet.gateway;
    let Some(agent) = agents.iter().next().filter(|_| settings.enabled) else { return Ok(None) };
    let router = |model: &str| -> Result<Option<Arc<Router>>, LlmError> {
        if model.is_empty() {
            return Ok(None);
        }
        let default = agent.router.default_choice().0;
        let provider = if settings.provider.is_empty() { &default } else { &settings.provider };
        let rules = agent.router.rules().to_vec();
        Ok(Some(Arc::new(Router::new(agent.router.providers().clone(), provider, model, rules)?)))
    };
    Ok(Some(Routers {
        router: Arc::clone(&agent.router),
        chat: router(&settings.chat_model)?,
        diagnose: router(&settings.diagnose_model)?,
    }))
}
