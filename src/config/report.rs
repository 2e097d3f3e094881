//! What `holt config check` says.

use super::Env;
use super::load::{Flags, load};

/// Lines for a person, and whether Holt would start.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    pub lines: Vec<String>,
    pub ok: bool,
}

/// Loads the configuration as `serve` would and says what came of it. Changes nothing, shows no secret.
pub fn check(flags: &Flags, env: &Env) -> Report {
    let config = match load(flags, env) {
        Ok(config) => config,
        Err(error) => return Report { lines: vec![error.to_string()], ok: false },
    };
    let file = if config.config_path.exists() { "" } else { " (not there yet; defaults are used)" };
    let model = match config.llm.default_model.as_str() {
        "" => String::new(),
        model => format!(", model {model}"),
    };
    let agents: Vec<&str> = config.agents.iter().map(|agent| agent.name.as_str()).collect();
    let mut lines: Vec<String> = config.warnings.iter().map(|warning| format!("warning: {warning}")).collect();
    lines.push(format!("config:    {}{file}", config.config_path.display()));
    lines.push(format!("data:      {}", config.data_dir.display()));
    lines.push(format!("listen:    {}", config.api.listen));
    lines.push(format!("provider:  {}{model}", config.llm.default_provider));
    let providers: Vec<&str> = config.llm.providers.iter().map(|provider| provider.name.as_str()).collect();
    lines.push(format!("set up:    {}", providers.join(", ")));
    lines.push(format!("agents:    {}", agents.join(", ")));
    lines.push("ok".to_owned());
    Report { lines, ok: true }
}
