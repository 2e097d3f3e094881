//! From configuration to providers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::anthropic::AnthropicProvider;
use super::ollama::OllamaProvider;
use super::openai::OpenAiProvider;
use super::{LlmError, Provider};
use crate::config::{LlmConfig, ProviderConfig, ProviderKind};
use crate::net::Timeouts;
use crate::rt::{Cancel, lock};

/// How long a balance counts (contract engine 9.5).
const BALANCE_AGE: Duration = Duration::from_secs(5 * 60);

/// All providers that are set up, by name; those with a credential, `local` and `ollama`.
#[derive(Clone)]
pub struct Providers {
    list: Arc<[Arc<dyn Provider>]>,
    /// Guarded by the mutex: balances by provider, and when they were asked for.
    balances: Arc<Mutex<HashMap<String, Balance>>>,
}

/// When a balance was asked for, and what it was.
type Balance = (Instant, Option<f64>);

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
        Self { list: list.into(), balances: Arc::default() }
    }

    /// The provider of that exact name.
    pub fn find(&self, name: &str) -> Result<&Arc<dyn Provider>, LlmError> {
        let missing = || LlmError::Config { cause: format!("provider {name} is not configured") };
        self.list.iter().find(|provider| provider.name() == name).ok_or_else(missing)
    }

    /// What the account at a provider still has in USD; asked for at most every five minutes, also when that fails.
    /// None where it is unlimited or not known. Blocks like a call.
    pub fn balance(&self, provider: &Arc<dyn Provider>, cancel: &Cancel) -> Option<f64> {
        let name = provider.name();
        if let Some((at, balance)) = lock(&self.balances).get(name)
            && at.elapsed() < BALANCE_AGE
        {
            return *balance;
        }
        let balance = provider.balance(cancel).unwrap_or_else(|error| {
            log::warn!("ask {name} for its balance: {error}");
            None
        });
        if !cancel.is_set() {
            lock(&self.balances).insert(name.to_owned(), (Instant::now(), balance));
        }
        balance
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
