//! From configuration to providers.

use std::sync::Arc;

use super::openai::OpenAiProvider;
use super::{LlmError, Provider};
use crate::config::{LlmConfig, ProviderConfig, ProviderKind};
use crate::net::Timeouts;

/// The provider that answers turns: [`LlmConfig::default_provider`]. `local` is the built-in one.
///
/// Fails with [`LlmError::Config`] when the provider is not configured, cannot be set up, or comes with a later
/// release.
pub fn build(config: &LlmConfig, local: Arc<dyn Provider>) -> Result<Arc<dyn Provider>, LlmError> {
    if config.default_provider == local.name() {
        return Ok(local);
    }
    let found = config.providers.iter().find(|provider| provider.name == config.default_provider);
    let Some(provider) = found else {
        return Err(LlmError::Config { cause: format!("provider {} is not configured", config.default_provider) });
    };
    build_one(provider, config, local)
}

/// One configured provider; see [`build`].
pub fn build_one(
    provider: &ProviderConfig,
    config: &LlmConfig,
    local: Arc<dyn Provider>,
) -> Result<Arc<dyn Provider>, LlmError> {
    match provider.kind {
        ProviderKind::Local => Ok(local),
        ProviderKind::OpenAi | ProviderKind::Ollama => {
            Ok(Arc::new(OpenAiProvider::new(provider.clone(), timeouts(config))?))
        }
        ProviderKind::Anthropic | ProviderKind::OpenRouter => {
            Err(LlmError::Config { cause: format!("provider {} comes with a later release", provider.name) })
        }
    }
}

fn timeouts(config: &LlmConfig) -> Timeouts {
    Timeouts {
        connect: config.connect_timeout,
        first_byte: config.first_byte_timeout,
        idle: config.idle_timeout,
        total: Some(config.total_timeout),
    }
}
