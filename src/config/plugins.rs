//! `[plugins.<name>]`, `[security]` and `[browser]` (contract engine 8.5, 8.6, 10.2): from typed to validated, and back
//! into the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::check::number;
use super::error::ConfigError;
use super::json::typed;
use super::raw::Typed;
use super::{Document, edit};

const BROWSER_IMAGE: &str = "ghcr.io/temikus/denkeeper-browser:latest";

/// A tool server that comes as a program or as an image. `Debug` hides the secrets.
#[derive(Clone, Default, PartialEq)]
pub struct PluginConfig {
    /// `subprocess` or `docker`.
    pub kind: String,
    /// The program; of an image what is run in it, or empty.
    pub command: String,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub image: String,
    /// Only `tools` means something: it is started, and agents are offered its tools.
    pub capabilities: Vec<String>,
    pub memory_limit: String,
    pub cpu_limit: String,
    /// Empty: `none`.
    pub network: String,
    pub volumes: Vec<String>,
    /// A model chose it: it sees no variable of the hub. Holt's own.
    pub untrusted: bool,
}

typed!(PluginConfig {
    kind: "type",
    command,
    args,
    env,
    image,
    capabilities,
    memory_limit,
    cpu_limit,
    network,
    volumes,
    untrusted
});

impl std::fmt::Debug for PluginConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("PluginConfig");
        shown.field("kind", &self.kind).field("command", &self.command).field("image", &self.image);
        shown.finish_non_exhaustive()
    }
}

impl PluginConfig {
    /// It runs in a container.
    pub fn is_docker(&self) -> bool {
        self.kind == "docker"
    }

    /// Agents are to be offered its tools.
    pub fn has_tools(&self) -> bool {
        self.capabilities.iter().any(|capability| capability == "tools")
    }

    /// Whether it could be started; key and reason otherwise. The same rules for file and API (W-27).
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let fail = |key, reason: &str| Err((key, reason.to_owned()));
        match self.kind.as_str() {
            "subprocess" if self.command.is_empty() => {
                return fail("command", "command is required for subprocess plugins");
            }
            "docker" if self.image.is_empty() => return fail("image", "image is required for docker plugins"),
            "subprocess" | "docker" => {}
            _ => return fail("type", "type must be \"subprocess\" or \"docker\""),
        }
        let words = [
            ("image", &self.image),
            ("memory_limit", &self.memory_limit),
            ("cpu_limit", &self.cpu_limit),
            ("network", &self.network),
        ];
        let volumes = self.volumes.iter().map(|volume| ("volumes", volume));
        for (key, word) in words.into_iter().chain(volumes) {
            // One of docker's options, or part of one.
            if word.starts_with('-') || word.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return Err((key, format!("{key} must not begin with - or hold blanks")));
            }
        }
        if self.env.keys().any(|name| name.is_empty() || name.starts_with('-') || name.contains(['=', '\0'])) {
            return fail("env", "env holds a name that no variable can have");
        }
        let texts = self.env.values().chain(&self.args).chain([&self.command]);
        if texts.into_iter().any(|text| text.contains('\0')) {
            return fail("env", "command, args and env must not hold NUL");
        }
        Ok(())
    }

    /// Writes `[plugins.<name>]`; empty keys are left out.
    pub fn write(&self, doc: &mut Document, name: &str) -> Result<(), ConfigError> {
        let texts = |texts: &[String]| if texts.is_empty() { Value::Null } else { json!(texts) };
        let text = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
        let env: Map<String, Value> = self.env.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        for (key, value) in [
            ("type", text(&self.kind)),
            ("command", text(&self.command)),
            ("args", texts(&self.args)),
            ("env", if env.is_empty() { Value::Null } else { Value::Object(env) }),
            ("image", text(&self.image)),
            ("capabilities", texts(&self.capabilities)),
            ("memory_limit", text(&self.memory_limit)),
            ("cpu_limit", text(&self.cpu_limit)),
            ("network", text(&self.network)),
            ("volumes", texts(&self.volumes)),
            ("untrusted", if self.untrusted { json!(true) } else { Value::Null }),
        ] {
            edit::set(doc, &format!("plugins.{name}.{key}"), &value)?;
        }
        Ok(())
    }

    /// Removes `[plugins.<name>]`; nothing to do when it is not there.
    pub fn remove(doc: &mut Document, name: &str) -> Result<(), ConfigError> {
        edit::set(doc, &format!("plugins.{name}"), &Value::Null)
    }
}

/// `[security]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityConfig {
    /// Public keys of those whose programs may run as plugins: PEM, or the path of such a file.
    pub trusted_keys: Vec<String>,
    /// Whether programs without a signature run all the same.
    pub allow_unsigned: bool,
}

impl Default for SecurityConfig {
    fn default() -> Self {
        Self { trusted_keys: Vec::new(), allow_unsigned: true }
    }
}

/// `[browser]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserConfig {
    pub enabled: bool,
    pub image: String,
    pub memory_limit: String,
    pub cpu_limit: String,
    /// As it was typed, for those who ask.
    pub profile_dir: String,
    /// Where profiles are: `profile_dir`, in the data directory unless it is absolute.
    pub profile_root: PathBuf,
    pub session_ttl: String,
    pub max_pages: i64,
    /// Hosts that it may visit; empty: all.
    pub domains: Vec<String>,
}

#[derive(Default)]
pub(super) struct RawSecurity {
    trusted_keys: Vec<String>,
    allow_unsigned: Option<bool>,
}

typed!(RawSecurity { trusted_keys, allow_unsigned });

#[derive(Default)]
pub(super) struct RawBrowser {
    enabled: bool,
    image: String,
    memory_limit: String,
    cpu_limit: String,
    profile_dir: String,
    session_ttl: String,
    max_pages: Option<i64>,
    url_allowlist: RawAllowlist,
}

typed!(RawBrowser { enabled, image, memory_limit, cpu_limit, profile_dir, session_ttl, max_pages, url_allowlist });

#[derive(Default)]
pub(super) struct RawAllowlist {
    domains: Vec<String>,
}

typed!(RawAllowlist { domains });

pub(super) fn security(typed: &Typed) -> SecurityConfig {
    let raw = &typed.raw.security;
    SecurityConfig { trusted_keys: raw.trusted_keys.clone(), allow_unsigned: raw.allow_unsigned.unwrap_or(true) }
}

pub(super) fn browser(typed: &Typed, data_dir: &Path) -> Result<BrowserConfig, ConfigError> {
    let raw = &typed.raw.browser;
    let or = |text: &str, default: &str| if text.is_empty() { default } else { text }.to_owned();
    let profile_dir = or(&raw.profile_dir, "data/browser-profiles");
    let found = BrowserConfig {
        enabled: raw.enabled,
        image: or(&raw.image, BROWSER_IMAGE),
        memory_limit: or(&raw.memory_limit, "512m"),
        cpu_limit: or(&raw.cpu_limit, "1"),
        profile_root: data_dir.join(&profile_dir),
        profile_dir,
        session_ttl: or(&raw.session_ttl, "10m"),
        max_pages: number(typed, "browser.max_pages", raw.max_pages.unwrap_or(5), 0, i64::from(u32::MAX))?,
        domains: raw.url_allowlist.domains.clone(),
    };
    found.plugin().check().map_err(|(key, reason)| typed.bad(&format!("browser.{key}"), reason))?;
    if found.domains.iter().any(|domain| domain.contains(',')) {
        return Err(typed.bad("browser.url_allowlist.domains", "a host holds no comma"));
    }
    if found.enabled && (typed.raw.tools.contains_key("browser") || typed.raw.plugins.contains_key("browser")) {
        return Err(typed.bad("browser.enabled", "a tool or plugin has the name \"browser\"; give it another one"));
    }
    Ok(found)
}

impl BrowserConfig {
    /// The container that it runs in (contract engine 8.6).
    pub fn plugin(&self) -> PluginConfig {
        let args = ["--headless", "--browser", "chromium", "--no-sandbox"];
        let mut env = BTreeMap::new();
        if !self.domains.is_empty() {
            env.insert("BROWSER_URL_ALLOWLIST".to_owned(), self.domains.join(","));
        }
        PluginConfig {
            kind: "docker".to_owned(),
            image: self.image.clone(),
            args: args.map(str::to_owned).to_vec(),
            env,
            capabilities: vec!["tools".to_owned()],
            memory_limit: self.memory_limit.clone(),
            cpu_limit: self.cpu_limit.clone(),
            network: "egress".to_owned(),
            ..PluginConfig::default()
        }
    }
}
