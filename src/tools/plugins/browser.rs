//! The browser: one container for all agents, registered as the tool server `browser`, and the profiles it keeps.

use std::sync::Arc;

use serde_json::{Value, json};

use super::docker::{Extra, server};
use super::profiles::{self, Profile, ProfileError};
use crate::audit::{AuditLog, Entry};
use crate::config::{BrowserConfig, PartOf, ToolServerConfig};
use crate::llm::ToolSpec;
use crate::rt::clock;
use crate::tools::arguments::{Arguments, object};
use crate::tools::servers::{Status, ToolServers};
use crate::tools::{Tool, ToolContext, ToolError};

/// The name of its tool server.
const SERVER: &str = "browser";

/// The browser of the hub.
pub struct Browser {
    config: BrowserConfig,
    servers: ToolServers,
}

impl Browser {
    /// None unless it is switched on; it starts with the tool servers.
    pub fn new(servers: &ToolServers, config: &BrowserConfig) -> Option<Arc<Self>> {
        if !config.enabled {
            return None;
        }
        // Docker would make it, for root.
        if let Err(error) = make_private(&config.profile_root) {
            log::warn!("browser profiles {}: {error}", config.profile_root.display());
        }
        let mount = format!("{}:/data/profile", config.profile_root.display());
        let extra = Extra { tmpfs: Some("/tmp:size=64m"), shm_size: Some("64m"), mount: Some(mount) };
        servers.reserve(SERVER);
        let server = ToolServerConfig { part_of: PartOf::Browser, ..server(&config.plugin(), &extra) };
        servers.put_part(SERVER, server);
        Some(Arc::new(Self { config: config.clone(), servers: servers.clone() }))
    }

    /// How its tool server is.
    pub fn server(&self) -> Option<Status> {
        self.servers.get(SERVER)
    }

    /// All profiles, by name. Walks directories.
    pub fn profiles(&self) -> Result<Vec<Profile>, ProfileError> {
        profiles::list(&self.config.profile_root)
    }

    /// One profile.
    pub fn profile(&self, agent: &str) -> Result<Profile, ProfileError> {
        profiles::get(&self.config.profile_root, agent)
    }

    /// Removes a profile.
    pub fn delete(&self, agent: &str) -> Result<(), ProfileError> {
        profiles::delete(&self.config.profile_root, agent)
    }

    /// Removes everything in a profile.
    pub fn clear(&self, agent: &str) -> Result<(), ProfileError> {
        profiles::clear(&self.config.profile_root, agent)
    }
}

fn make_private(root: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    List,
    Info,
    Clear,
    Delete,
}

struct ProfileTool {
    spec: ToolSpec,
    action: Action,
    browser: Arc<Browser>,
    audit: Arc<AuditLog>,
}

/// `browser_profile_list`, `_info`, `_clear`, `_delete` (contract engine 8.7).
pub fn browser_tools(browser: &Arc<Browser>, audit: &Arc<AuditLog>) -> Vec<Arc<dyn Tool>> {
    let agent = json!({"agent": {"type": "string", "description": "whose profile; yours when it is not given"}});
    let table = [
        (Action::List, "browser_profile_list", "Lists the browser's profiles.", json!({})),
        (Action::Info, "browser_profile_info", "Size, hosts and last use of a browser profile.", agent.clone()),
        (Action::Clear, "browser_profile_clear", "Empties a browser profile: logins in it end.", agent.clone()),
        (Action::Delete, "browser_profile_delete", "Removes a browser profile.", agent),
    ];
    let tool = |(action, name, description, properties): (Action, &str, &str, Value)| {
        let spec = ToolSpec {
            name: name.to_owned(),
            description: description.to_owned(),
            parameters: object(&properties, &[]),
        };
        let (browser, audit) = (Arc::clone(browser), Arc::clone(audit));
        Arc::new(ProfileTool { spec, action, browser, audit }) as Arc<dyn Tool>
    };
    table.into_iter().map(tool).collect()
}

impl Tool for ProfileTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn read_only(&self) -> bool {
        matches!(self.action, Action::List | Action::Info)
    }

    fn always_asks(&self) -> bool {
        self.action == Action::Delete
    }

    fn call(&self, arguments: &Value, context: &ToolContext<'_>) -> Result<String, ToolError> {
        let failed = |error: ProfileError| ToolError::new(error.to_string());
        if self.action == Action::List {
            Arguments::of(arguments, &[])?;
            let profiles = self.browser.profiles().map_err(failed)?;
            return Ok(Value::from(profiles.iter().map(shape).collect::<Vec<_>>()).to_string());
        }
        let arguments = Arguments::of(arguments, &["agent"])?;
        let agent = if arguments.get("agent").is_some() { arguments.text("agent")? } else { context.agent };
        let (action, done) = match self.action {
            Action::Clear => ("browser_profile.clear", self.browser.clear(agent)),
            Action::Delete => ("browser_profile.delete", self.browser.delete(agent)),
            Action::List | Action::Info => return Ok(shape(&self.browser.profile(agent).map_err(failed)?).to_string()),
        };
        done.map_err(failed)?;
        let actor = format!("agent:{}", context.agent);
        self.audit.record(&Entry { actor: &actor, target: agent, ..Entry::ok(action) });
        Ok(json!({"ok": true}).to_string())
    }
}

fn shape(profile: &Profile) -> Value {
    json!({
        "agent": profile.agent, "size_bytes": profile.bytes, "domain_count": profile.domains.len(),
        "domains": profile.domains, "last_used": clock::rfc3339(profile.last_used),
    })
}
