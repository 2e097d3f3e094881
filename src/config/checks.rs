//! `[checks]` and `[global]` of an agent's file, for a run of the checks without the agent.

use std::path::PathBuf;

use serde_json::Value;

use super::env::Env;
use super::error::ConfigError;
use super::{Flags, json, load, raw};

/// The file's name in the data directory.
const FILE_NAME: &str = "agent.toml";

/// What the file says of checks. The words of its tables are for the room of the checks to judge.
#[derive(Debug)]
pub struct ChecksConfig {
    /// Where the file is, or would be.
    pub path: PathBuf,
    /// The table, or null.
    pub checks: Value,
    /// The table, or null.
    pub global: Value,
}

/// Reads the file that was asked for, or `agent.toml` in the data directory, which need not exist: checks have working
/// defaults.
pub fn load_checks(flags: &Flags, env: &Env) -> Result<ChecksConfig, ConfigError> {
    let asked = flags.config.clone().or_else(|| env.get("HOLT_CONFIG").map(PathBuf::from));
    if let Some(path) = asked {
        if let Err(cause) = std::fs::metadata(&path) {
            return Err(ConfigError::Read { path, cause });
        }
        return read(path);
    }
    match load::data_dir(flags, env) {
        Ok(dir) => read(dir.join(FILE_NAME)),
        // Nobody needs a home to look at a machine.
        Err(ConfigError::NoDataDir) => read(PathBuf::from(FILE_NAME)),
        Err(error) => Err(error),
    }
}

fn read(path: PathBuf) -> Result<ChecksConfig, ConfigError> {
    let whole = raw::read_document(&path)?.map_or(Value::Null, |doc| json::of_table(doc.as_table()));
    let table = |name: &str| whole.get(name).cloned().unwrap_or(Value::Null);
    Ok(ChecksConfig { checks: table("checks"), global: table("global"), path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn load(dir: &std::path::Path, config: Option<&str>) -> Result<ChecksConfig, ConfigError> {
        let flags =
            Flags { config: config.map(|name| dir.join(name)), data_dir: Some(dir.to_owned()), ..Flags::default() };
        load_checks(&flags, &Env::default())
    }

    #[test]
    fn a_file_is_read_if_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let none = load(dir.path(), None).unwrap();
        assert_eq!((none.checks, none.path), (Value::Null, dir.path().join("agent.toml")));
        let text = "[server]\naddress = 'x'\n[global]\ninterval = 5\n[[checks.http]]\ntargets = ['a']\n";
        std::fs::write(dir.path().join("agent.toml"), text).unwrap();
        let found = load(dir.path(), None).unwrap();
        assert_eq!((found.checks, found.global), (json!({"http": [{"targets": ["a"]}]}), json!({"interval": 5})));
        assert!(matches!(load(dir.path(), Some("other.toml")), Err(ConfigError::Read { .. })));
        std::fs::write(dir.path().join("agent.toml"), "[checks\n").unwrap();
        assert!(matches!(load(dir.path(), None), Err(ConfigError::Syntax { .. })));
    }
}
