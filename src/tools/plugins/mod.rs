//! Plugins: tool servers that come as a program, signed if that is asked for, or as an image that docker runs (contract
//! engine 8.5), and the browser, which is one of these (8.6). They live as tool servers do: see [`super::servers`].

mod browser;
mod docker;
mod profiles;
mod sign;
mod tools;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub use browser::{Browser, browser_tools};
pub use profiles::{Profile, ProfileError};
pub(in crate::tools) use sign::check;
pub use sign::{new_keys, sign, verify};
pub use tools::plugin_tools;

use self::docker::Extra;
use crate::config::{PluginConfig, ToolServerConfig, check_tool_server_name};
use crate::rt::{json::quoted, lock};
use crate::tools::servers::{ChangeError, ToolServers};

/// All plugins of the hub.
pub struct Plugins {
    servers: ToolServers,
    /// Guarded by this mutex. Nothing is taken under it.
    list: Mutex<BTreeMap<String, PluginConfig>>,
}

/// A plugin as it is now.
pub struct PluginStatus {
    pub name: String,
    pub config: PluginConfig,
    pub tool_names: Vec<String>,
    pub is_connected: bool,
}

impl Plugins {
    /// The configured plugins; those with tools start with the tool servers.
    pub fn new(servers: &ToolServers, plugins: &BTreeMap<String, PluginConfig>) -> Arc<Self> {
        for (name, plugin) in plugins {
            servers.reserve(name);
            if plugin.has_tools() {
                servers.put_part(name, docker::server(plugin, &Extra::default()));
            }
        }
        let (servers, list) = (servers.clone(), Mutex::new(plugins.clone()));
        Arc::new(Self { servers, list })
    }

    /// What the configuration says counts: the names of these plugins are taken, and no others. Their servers go to
    /// `wanted`, for [`ToolServers::apply`]. Never waits.
    pub fn apply(&self, plugins: &BTreeMap<String, PluginConfig>, wanted: &mut BTreeMap<String, ToolServerConfig>) {
        let old = std::mem::replace(&mut *lock(&self.list), plugins.clone());
        for name in old.keys().filter(|name| !plugins.contains_key(*name)) {
            self.servers.release(name);
        }
        for (name, plugin) in plugins {
            self.servers.reserve(name);
            if plugin.has_tools() {
                wanted.insert(name.clone(), docker::server(plugin, &Extra::default()));
            }
        }
    }

    /// All of them, by name. Never waits.
    pub fn list(&self) -> Vec<PluginStatus> {
        let list = lock(&self.list).clone();
        list.into_iter().map(|(name, config)| self.status(name, config)).collect()
    }

    /// One plugin. Never waits.
    pub fn get(&self, name: &str) -> Option<PluginStatus> {
        let config = lock(&self.list).get(name).cloned()?;
        Some(self.status(name.to_owned(), config))
    }

    /// Adds a plugin: if it has tools it must start, then it is written, then it counts. Waits for the program.
    pub fn add(&self, name: &str, config: PluginConfig) -> Result<PluginStatus, ChangeError> {
        check_tool_server_name(name).map_err(ChangeError::Invalid)?;
        config.check().map_err(|(_, reason)| ChangeError::Invalid(reason))?;
        let server = config.has_tools().then(|| docker::server(&config, &Extra::default()));
        self.servers.add_part(name, server, || self.write("persisting plugin {} to config", name, Some(&config)))?;
        lock(&self.list).insert(name.to_owned(), config.clone());
        Ok(self.status(name.to_owned(), config))
    }

    /// Ends and removes a plugin; false when there is none of that name. Tool servers are not touched (W-31).
    pub fn remove(&self, name: &str) -> Result<bool, ChangeError> {
        if !lock(&self.list).contains_key(name) {
            return Ok(false);
        }
        self.servers.remove_part(name, || self.write("removing plugin {} from config", name, None))?;
        lock(&self.list).remove(name);
        Ok(true)
    }

    fn write(&self, step: &'static str, name: &str, config: Option<&PluginConfig>) -> Result<(), ChangeError> {
        self.servers.edit(name, step, &mut |doc| match config {
            Some(config) => config.write(doc, name),
            None => PluginConfig::remove(doc, name),
        })
    }

    fn status(&self, name: String, config: PluginConfig) -> PluginStatus {
        let server = if config.has_tools() { self.servers.get(&name) } else { None };
        let is_connected = server.as_ref().is_some_and(|server| server.status == "connected");
        PluginStatus {
            name,
            config,
            tool_names: server.map_or_else(Vec::new, |server| server.tool_names),
            is_connected,
        }
    }
}

/// What the log says of a change: what was run.
pub fn audit_command(config: &PluginConfig) -> String {
    if config.is_docker() { format!("docker image {}", quoted(&config.image)) } else { config.command.clone() }
}
