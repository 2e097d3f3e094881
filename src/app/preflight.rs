//! What the parts say about a configuration before anything is started, for `holt config check`.

use std::sync::Arc;

use super::{AppError, tls};
use crate::auth::oidc;
use crate::config::{Config, Env};
use crate::llm::Providers;
use crate::llm::local::LocalProvider;
use crate::tools::builtin;
use crate::tools::servers::check_servers;

/// What a start would fail at, and otherwise what would not work: tool servers that could never be reached. Connects
/// to nothing.
pub fn preflight(config: &Config, env: &Env) -> Result<Vec<String>, AppError> {
    if let Some(web) = &config.web {
        builtin::web_tools(web).map_err(|reason| AppError::Setting { reason })?;
    }
    tls::load(config)?;
    if let Some(oidc) = &config.auth.oidc {
        oidc::check(oidc).map_err(|reason| AppError::Setting { reason })?;
    }
    Providers::build(&config.llm, Arc::new(LocalProvider)).map_err(AppError::Provider)?;
    Ok(check_servers(&config.mcp, &config.tools, env))
}
