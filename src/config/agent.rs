//! The agent's file, `agent.toml`: where the hub is, what is checked, who is told. Everything in it is optional.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use super::env::Env;
use super::error::{ConfigError, Origin};
use super::notify::{ChannelConfig, notify_channels};
use super::table::{BadKey, Table};
use super::{Flags, LogConfig, json, load, raw};
use crate::rt::text::nearest;

/// The file's name in the data directory.
const FILE_NAME: &str = "agent.toml";
/// Directory of the agent's own files, in the data directory.
const STATE_DIR: &str = "agent";
const SECTIONS: [&str; 6] = ["server", "global", "ai", "notify", "checks", "log"];
/// Contract agent-link 5.1.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(30);
const GATEWAY_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// The file, read and judged as far as this room can. `Debug` hides the token.
#[derive(Clone)]
pub struct AgentFile {
    /// Where the file is, or would be.
    pub path: PathBuf,
    pub data_dir: PathBuf,
    pub log: LogConfig,
    /// `[server] address`; empty when the file names none.
    pub address: String,
    /// `[server] enabled`: false means that there is no link.
    pub is_linked: bool,
    /// `[server] agent_token`.
    pub token: Option<String>,
    pub ca_file: Option<PathBuf>,
    /// `[ai] enabled`: whether remote sessions are answered.
    pub answers: bool,
    /// None: no model is asked, the built-in planner answers.
    pub gateway: Option<AgentGateway>,
    pub notify: Vec<ChannelConfig>,
    /// `[global]`, for the room of the checks; null when absent.
    pub global: Value,
    /// `[checks]`, likewise.
    pub checks: Value,
}

/// `[ai.gateway]` (contract agent-link 5.1). `Debug` hides the token.
#[derive(Clone)]
pub struct AgentGateway {
    /// None: derived from the hub's address.
    pub base_url: Option<String>,
    /// None: the token of the link.
    pub token: Option<String>,
    /// One attempt, body included.
    pub request_timeout: Duration,
    /// 0 to 2.
    pub max_retries: u32,
}

impl std::fmt::Debug for AgentGateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentGateway").field("max_retries", &self.max_retries).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AgentFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentFile").field("path", &self.path).field("gateway", &self.gateway).finish_non_exhaustive()
    }
}

impl AgentFile {
    /// The agent's own directory when no other was asked for.
    pub fn state_dir(&self) -> PathBuf {
        self.data_dir.join(STATE_DIR)
    }
}

/// Reads the file that was asked for, which must exist, or `agent.toml` in the data directory, which need not.
pub fn load_agent(flags: &Flags, env: &Env) -> Result<AgentFile, ConfigError> {
    let data_dir = load::data_dir(&Flags { config: None, ..flags.clone() }, env)?;
    let path = match &flags.config {
        Some(path) => {
            if let Err(cause) = std::fs::metadata(path) {
                return Err(ConfigError::Read { path: path.clone(), cause });
            }
            path.clone()
        }
        None => data_dir.join(FILE_NAME),
    };
    let whole = raw::read_document(&path)?.map_or(Value::Null, |doc| json::of_table(doc.as_table()));
    parse(&whole, &path, &data_dir, env).map_err(|(key, reason)| {
        let origin = Origin::File(path.clone());
        ConfigError::Value { origin, key, reason }
    })
}

fn parse(whole: &Value, path: &Path, data_dir: &Path, env: &Env) -> Result<AgentFile, BadKey> {
    let empty = Map::new();
    let sections = whole.as_object().unwrap_or(&empty);
    if let Some(unknown) = sections.keys().find(|name| !SECTIONS.contains(&name.as_str())) {
        let hint = nearest(unknown, &SECTIONS).map_or_else(String::new, |name| format!("; did you mean [{name}]?"));
        return Err((unknown.clone(), format!("unknown section{hint}")));
    }
    let nothing = Value::Object(Map::new());
    let table = |name: &str| Table::new(name.to_owned(), sections.get(name).unwrap_or(&nothing), env, data_dir);
    let server = table("server")?;
    let is_linked = server.flag("enabled", true)?;
    let address = server.secret("address")?.unwrap_or_default();
    let token = server.secret("agent_token")?;
    let ca_file = server.text("ca_file")?.map(PathBuf::from);
    if server.flag("tls_skip_verify", false)? {
        return Err(server.bad("tls_skip_verify", "is not supported: name the hub's certificate in ca_file instead"));
    }
    server.finish()?;
    let ai = table("ai")?;
    let answers = ai.flag("enabled", true)?;
    let gateway = match ai.below("gateway")? {
        None => Some(AgentGateway { base_url: None, token: None, request_timeout: GATEWAY_TIMEOUT, max_retries: 1 }),
        Some(table) => gateway(table)?,
    };
    ai.finish()?;
    let log = table("log")?;
    let level = match log.word("level", &["debug", "info", "warn", "error"])? {
        Some("debug") => log::LevelFilter::Debug,
        Some("warn") => log::LevelFilter::Warn,
        Some("error") => log::LevelFilter::Error,
        _ => log::LevelFilter::Info,
    };
    let json = log.word("format", &["text", "json"])? == Some("json");
    log.finish()?;
    let notify = match sections.get("notify") {
        None => Vec::new(),
        Some(Value::Object(tables)) => notify_channels(tables, env, data_dir)?,
        Some(_) => return Err(("notify".to_owned(), "must be a table".to_owned())),
    };
    let section = |name: &str| sections.get(name).cloned().unwrap_or(Value::Null);
    Ok(AgentFile {
        path: path.to_owned(),
        data_dir: data_dir.to_owned(),
        log: LogConfig { level, json },
        address,
        is_linked,
        token,
        ca_file,
        answers,
        gateway: gateway.filter(|_| answers),
        notify,
        global: section("global"),
        checks: section("checks"),
    })
}

fn gateway(table: Table<'_>) -> Result<Option<AgentGateway>, BadKey> {
    let enabled = table.flag("enabled", true)?;
    let config = AgentGateway {
        base_url: table.text("base_url")?.map(|url| url.trim_end_matches('/').to_owned()),
        token: table.secret("agent_token")?,
        request_timeout: table.time("request_timeout", GATEWAY_TIMEOUT_MAX)?.unwrap_or(GATEWAY_TIMEOUT),
        max_retries: table.number("max_retries", 0, 2)?.unwrap_or(1),
    };
    table.finish()?;
    Ok(enabled.then_some(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<AgentFile, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        let flags = Flags { config: None, data_dir: Some(dir.path().to_owned()), ..Flags::default() };
        let env = Env::of([("HUB", "https://hub.example.net"), ("TOKEN", "t0ken")]);
        load_agent(&flags, &env).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_is_optional() {
        let config = load("").unwrap();
        assert!(config.address.is_empty() && config.is_linked && config.answers && config.token.is_none());
        assert_eq!(config.gateway.unwrap().max_retries, 1);
        assert_eq!((config.checks, config.global), (Value::Null, Value::Null));
        let dir = tempfile::tempdir().unwrap();
        let flags = |config| Flags { config, data_dir: Some(dir.path().to_owned()), ..Flags::default() };
        let none = load_agent(&flags(None), &Env::default()).unwrap();
        assert_eq!(none.state_dir(), dir.path().join("agent"));
        let missing = load_agent(&flags(Some(dir.path().join("x.toml"))), &Env::default());
        assert!(matches!(missing, Err(ConfigError::Read { .. })));
    }

    #[test]
    fn values_are_read_and_typing_errors_refused() {
        let config = load(
            "[server]\naddress = \"${HUB}\"\nagent_token = \"env:TOKEN\"\nca_file = \"/ca.pem\"\n[global]\ninterval = 5\n\
             [ai.gateway]\nmax_retries = 0\nrequest_timeout = \"90s\"\n[[checks.http]]\ntargets = [\"a\"]\n[log]\n\
             level = \"debug\"\n",
        )
        .unwrap();
        assert_eq!((config.address.as_str(), config.token.as_deref()), ("https://hub.example.net", Some("t0ken")));
        assert_eq!(config.ca_file, Some(PathBuf::from("/ca.pem")));
        assert_eq!(config.checks["http"][0]["targets"][0], "a");
        assert_eq!(config.log.level, log::LevelFilter::Debug);
        let shown = format!("{config:?}");
        assert!(shown.contains("max_retries: 0"), "{shown}");
        assert!(load("[ai]\nenabled = false").unwrap().gateway.is_none());
        assert!(load("[ai.gateway]\nenabled = false").unwrap().gateway.is_none());
        for (text, part) in [
            ("[sever]\n", "did you mean [server]"),
            ("[server]\nadress = 'x'", "did you mean address"),
            ("[server]\ntls_skip_verify = true", "ca_file"),
            ("[ai.gateway]\nmax_retries = 3", "from 0 to 2"),
            ("[log]\nlevel = 'loud'", "one of"),
            ("notify = 1", "must be a table"),
            ("[server", "line 1"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
