//! The configuration while the hub runs: read, changed, read again. Implemented by the composition root.

use std::fmt;
use std::sync::Arc;

use crate::api::error::ApiError;
use crate::api::server::Server;
use crate::auth::origin::OriginRules;
use crate::config::{Config, ConfigError, Document};

/// A change of the document; runs under the file's lock and never waits for a network. May run on an empty document.
pub type Edit<'a> = &'a mut dyn FnMut(&mut Document) -> Result<(), ConfigError>;

/// The configuration that counts now, and the one way to change it.
pub trait Settings: Send + Sync {
    /// What counts now.
    fn current(&self) -> Arc<Config>;

    /// Changes the configuration file and puts the result in force. What a start would refuse is refused (W-27); a
    /// failed write changes nothing (W-28). Blocks on the disk.
    fn change(&self, edit: Edit<'_>) -> Result<Changed, SettingsError>;

    /// Whether a start now would succeed as far as the configuration goes.
    fn check(&self) -> Result<(), SettingsError>;

    /// A secret as the file is to hold it: sealed for this data directory, references to other places as they are.
    fn sealed(&self, secret: &str) -> Result<String, SettingsError>;

    /// Reads the file again and puts it in force; what a start would refuse is refused. Blocks on the disk.
    fn reload(&self) -> Result<Changed, SettingsError>;
}

/// What became of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Keys whose values count only after a restart, also those of earlier changes. Sorted.
    pub restart: Vec<String>,
}

/// Why nothing was changed.
#[derive(Debug)]
pub enum SettingsError {
    /// A start would refuse it, or the file cannot be read or written.
    Config(ConfigError),
    /// A part of the hub cannot work with it; the text names the setting.
    Part(String),
}

/// A change whose edit may refuse it in the words of a request.
pub(super) fn change(
    settings: &dyn Settings,
    edit: &mut dyn FnMut(&mut Document) -> Result<(), ApiError>,
) -> Result<Changed, ApiError> {
    let mut refused = None;
    let result = settings.change(&mut |doc| {
        edit(doc).map_err(|error| {
            refused = Some(error);
            ConfigError::refused()
        })
    });
    refused.map_or_else(|| result.map_err(ApiError::from), Err)
}

impl SettingsError {
    /// Which setting a start would refuse, and why, in words for those who are not on this machine; None when the file
    /// could not be read or written.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Part(reason) => Some(reason.clone()),
            Self::Config(
                cause
                @ (ConfigError::Value { .. } | ConfigError::Syntax { .. } | ConfigError::ReferenceDatabase { .. }),
            ) => Some(cause.in_short()),
            Self::Config(_) => None,
        }
    }
}

impl Server {
    /// Takes what a changed configuration says of requests, from the next one on; true when credentials are gone that
    /// open sockets may have.
    pub fn apply(&self, config: &Config) -> bool {
        let ctx = self.ctx();
        ctx.origins.replace(&OriginRules::of(&config.api, ctx.deps.machine_name.as_deref()));
        ctx.throttle.set(config.api.login_rate_limit, config.api.login_rate_window);
        ctx.rate.set(config.api.rate_limit);
        ctx.set_password_hash(config.auth.password_hash.clone());
        ctx.auth.set_configured(&config.auth.keys)
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "{error}"),
            Self::Part(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for SettingsError {}

impl From<ConfigError> for SettingsError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<SettingsError> for ApiError {
    /// A refused value is 400 and names its field; a file that cannot be read or written is 500.
    fn from(error: SettingsError) -> Self {
        match error.refusal() {
            Some(reason) => Self::new(400, "invalid_setting", reason),
            None => {
                // The cause is in the log: it names places of this machine.
                let message = "the configuration file could not be read or written; nothing was changed".to_owned();
                Self { message, ..Self::internal(&error) }
            }
        }
    }
}
