//! What `holt config check` says.

use super::load::{Flags, load};
use super::{Config, Env};

/// Lines for a person, and whether Holt would start.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    pub lines: Vec<String>,
    pub ok: bool,
}

/// Loads the configuration as `serve` would and says what came of it. Changes nothing, shows no secret.
///
/// `parts` is asked for what only the parts of the hub can judge: warnings, or why it would not start.
pub fn check(flags: &Flags, env: &Env, parts: &dyn Fn(&Config) -> Result<Vec<String>, String>) -> Report {
    let loaded = load(flags, env).map_err(|error| error.to_string());
    let (mut config, more) = match loaded.and_then(|config| Ok((parts(&config)?, config))) {
        Ok((more, config)) => (config, more),
        Err(error) => return Report { lines: vec![error], ok: false },
    };
    config.warnings.extend(more);
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
