//! From configuration to providers.

use std::sync::Arc;

use super::anthropic::AnthropicProvider;
use super::ollama::OllamaProvider;
use super::openai::OpenAiProvider;
use super::{LlmError, Provider};
use crate::config::{LlmConfig, ProviderConfig, ProviderKind};
use crate::net::Timeouts;

/// All providers that are set up, by name; those with a credential, `local` and `ollama`.
#[derive(Clone)]
pub struct Providers {
    list: Arc<[Arc<dyn Provider>]>,
}

impl Providers {
    /// Sets up every configured provider. `local` is the built-in one.
    ///
    /// Fails with [`LlmError::Config`] when one cannot work as it is configured.
    pub fn build(config: &LlmConfig, local: Arc<dyn Provider>) -> Result<Self, LlmError> {
        let list: Result<Vec<_>, _> =
            config.providers.iter().map(|provider| build_one(provider, config, &local)).collect();
        Ok(Self::of(list?))
    }

    /// These providers and no others.
    pub fn of(list: Vec<Arc<dyn Provider>>) -> Self {
        Self { list: list.into() }
    }

    /// The provider of that exact name.
    pub fn find(&self, name: &str) -> Result<&Arc<dyn Provider>, LlmError> {
        let missing = || LlmError::Config { cause: format!("provider {name} is not configured") };
        self.list.iter().find(|provider| provider.name() == name).ok_or_else(missing)
    }

    /// All of them in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.list.iter()
    }
}

/// One configured provider; see [`Providers::build`].
pub fn build_one(
    provider: &ProviderConfig,
    config: &LlmConfig,
    local: &Arc<dyn Provider>,
) -> Result<Arc<dyn Provider>, LlmError> {
    let timeouts = Timeouts {
        connect: config.connect_timeout,
        first_byte: config.first_byte_timeout,
        idle: config.idle_timeout,
        total: Some(config.total_timeout),
    };
    Ok(match provider.kind {
        ProviderKind::Local => Arc::clone(local),
        ProviderKind::OpenAi | ProviderKind::OpenRouter => Arc::new(OpenAiProvider::new(provider, timeouts)?),
        ProviderKind::Ollama => Arc::new(OllamaProvider::new(provider, timeouts)?),
        ProviderKind::Anthropic => Arc::new(AnthropicProvider::new(provider, timeouts)?),
    })
}
