//! Configuration, validated and ready to use. How it is typed (file, variables, flags) is in `raw`.
//!
//! This room knows TOML and the file that holds it; nobody else does. It starts no threads and opens no database.
//! Secrets are in no `Debug`, no `Display` and no warning.

mod adopt;
mod agent;
mod agents;
mod api;
mod check;
mod costs;
mod duration;
pub mod edit;
mod env;
mod error;
mod expression;
mod fallback;
mod fleet;
mod fleet_times;
mod front_matter;
mod gateway;
mod json;
mod keys;
mod kv;
mod llm;
mod load;
mod notify;
#[cfg(test)]
mod notify_tests;
mod oidc;
mod place;
mod plugins;
mod raw;
mod raw_llm;
mod raw_web;
mod report;
mod schedules;
mod schema;
mod secret;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod tools;
mod web;
mod writer;
#[cfg(test)]
mod writer_tests;

pub use adopt::{ReferenceSetup, judge, own_place, replace};
pub use agent::{AgentFile, AgentGateway, load_agent};
pub use api::SCOPES;
pub use costs::{Allowance, CostsConfig, Limit, ModelPrice};
pub use duration::parse_go_duration;
pub use edit::Document;
pub use env::Env;
pub use error::{ConfigError, Origin};
pub use expression::{Cron, Expression};
pub use fallback::{Backoff, FallbackAction, FallbackRule, FallbackTrigger};
pub use fleet::{AccessRule, FleetConfig};
pub use fleet_times::FleetTimes;
pub use front_matter::{FrontMatter, Requires};
pub use gateway::GatewayConfig;
pub use kv::KvConfig;
pub use load::{Flags, data_dir, load};
pub use notify::{
    ChannelConfig, EmailConfig, Encryption, GotifyConfig, MqttConfig, NTFY_SERVER, NtfyConfig, Priorities, QuietHours,
    Service, WebhookConfig, check_channel_name, notify_channels,
};
pub use oidc::OidcConfig;
pub use plugins::{BrowserConfig, PluginConfig, SecurityConfig};
pub use report::{Report, check};
pub use schedules::{
    NOTIFY, ScheduleConfig, SchedulerConfig, SessionTier, check_channel, check_schedule_name, split_channel, zone,
};
pub use secret::{is_reference, seal};
pub use source::{Source, Tree};
pub use table::BadKey;
pub use tools::{McpConfig, PartOf, ToolServerConfig, check_tool_server_name, write_tool_server};
pub use writer::ConfigWriter;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What an agent may do without asking (contract engine 1.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Autonomous,
    Supervised,
    Restricted,
}

impl Tier {
    /// Its name in files and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Autonomous => "autonomous",
            Self::Supervised => "supervised",
            Self::Restricted => "restricted",
        }
    }

    /// The tier of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Autonomous, Self::Supervised, Self::Restricted].into_iter().find(|tier| tier.name() == name)
    }

    /// Whether it allows more than another.
    pub fn is_above(self, other: Self) -> bool {
        let rank = |tier| match tier {
            Self::Autonomous => 2,
            Self::Supervised => 1,
            Self::Restricted => 0,
        };
        rank(self) > rank(other)
    }
}

/// Everything that start-up, or a later change, decided. A value of it never changes; what counts now is kept by whoever
/// puts changes in force.
#[derive(Clone, Debug)]
pub struct Config {
    /// Base of all default paths.
    pub data_dir: PathBuf,
    /// The file that settings are written to; exists once something was written.
    pub config_path: PathBuf,
    /// Holt's main database; `events.db` stands beside it. Its directory may not exist yet.
    pub db_path: PathBuf,
    pub log: LogConfig,
    pub api: ApiConfig,
    pub auth: AuthConfig,
    pub llm: LlmConfig,
    /// Sorted by name, `default` first; never empty.
    pub agents: Vec<AgentConfig>,
    /// `[[schedules]]`, sorted by name.
    pub schedules: Vec<ScheduleConfig>,
    pub scheduler: SchedulerConfig,
    pub streams: StreamConfig,
    /// `[tools]`: tool servers by name, references to variables not replaced yet.
    pub tools: BTreeMap<String, ToolServerConfig>,
    pub mcp: McpConfig,
    /// `[plugins]`: by name, references to variables not replaced yet.
    pub plugins: BTreeMap<String, PluginConfig>,
    pub browser: BrowserConfig,
    pub audit: AuditConfig,
    /// None: switched off.
    pub web: Option<WebConfig>,
    pub kv: KvConfig,
    pub costs: CostsConfig,
    pub fleet: FleetConfig,
    /// `[notify]`: channels by name.
    pub notify: Vec<ChannelConfig>,
    /// `[otel] enabled`: figures for monitoring at `/metrics`, for everybody.
    pub metrics: bool,
    /// One line each: unknown keys, things that are not supported. Logged once at start.
    pub warnings: Vec<String>,
    /// What it was read from.
    pub source: Source,
    /// All keys as they were typed, variables and options laid over them.
    pub tree: Tree,
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    pub level: log::LevelFilter,
    pub json: bool,
}

/// `[api]`.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// `host:port`; `:8080` means all interfaces; port 0 lets the system choose.
    pub listen: String,
    /// Speak TLS with this certificate.
    pub tls: Option<TlsFiles>,
    /// Allowed origins besides our own; no `*` (W-16).
    pub cors_origins: Vec<String>,
    pub allowed_hosts: Vec<String>,
    /// Peers whose forwarding headers count (W-5): address and prefix length.
    pub trusted_proxies: Vec<(std::net::IpAddr, u8)>,
    pub external_url: Option<String>,
    pub timezone: String,
    /// Requests per second and identity; 0 is off.
    pub rate_limit: f64,
    /// Password and PIN attempts per address and window; 0 is off (the PIN's own limit never is).
    pub login_rate_limit: u32,
    pub login_rate_window: Duration,
    pub websocket_enabled: bool,
    /// 0 means the default of `limits`.
    pub websocket_connections_max: usize,
    /// Lifetime of idle in-memory replay buffers.
    pub replay_buffer_ttl: Duration,
    /// Serves this directory instead of the embedded page.
    pub web_dir: Option<PathBuf>,
    pub http_connections_max: usize,
    /// 0 means twice the cores, at least 4.
    pub http_workers: usize,
    pub body_bytes_max: usize,
    /// From the first byte of a request head to its last.
    pub head_timeout: Duration,
    /// From the end of the head to the last byte of the body.
    pub body_timeout: Duration,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
}

impl ApiConfig {
    /// What addresses of the hub begin with.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// `api.cert_file` and `api.key_file`: PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate first, then those up to its root.
    pub cert_file: PathBuf,
    /// PKCS#8, PKCS#1 or SEC1; readable by its owner alone.
    pub key_file: PathBuf,
}

/// `[api.auth]` and `[[api.keys]]`. `Debug` hides the secrets.
#[derive(Clone)]
pub struct AuthConfig {
    pub keys: Vec<StaticKey>,
    /// bcrypt, `$2a$` or `$2b$`.
    pub password_hash: Option<String>,
    /// Hex, at least 32 bytes. None: Holt keeps its own in `<data dir>/secret`.
    pub session_secret: Option<String>,
    pub session_max_age: Duration,
    /// None: off.
    pub oidc: Option<OidcConfig>,
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("keys", &self.keys)
            .field("has_password", &self.password_hash.is_some())
            .field("has_session_secret", &self.session_secret.is_some())
            .field("session_max_age", &self.session_max_age)
            .field("oidc", &self.oidc)
            .finish_non_exhaustive()
    }
}

/// A key of the configuration file. `Debug` hides the secret.
#[derive(Clone)]
pub struct StaticKey {
    pub name: String,
    pub key: String,
    pub scopes: Vec<String>,
}

impl std::fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticKey").field("name", &self.name).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

/// `[llm]`.
#[derive(Clone, Debug)]
pub struct LlmConfig {
    /// `local`, `openai`, `ollama`, or a name of `[[llm.providers]]`: the configured one, else the first with a credential, else `local`.
    pub default_provider: String,
    pub default_model: String,
    pub providers: Vec<ProviderConfig>,
    /// Tried in order when a call fails, by every agent without rules of its own.
    pub fallback: Vec<FallbackRule>,
    pub connect_timeout: Duration,
    pub first_byte_timeout: Duration,
    pub idle_timeout: Duration,
    pub total_timeout: Duration,
    /// Newest messages that go into a prompt.
    pub context_messages_max: usize,
    pub tool_rounds_max: u32,
    /// USD per conversation; 0 is off.
    pub cost_limit_soft: f64,
    /// USD per conversation.
    pub cost_limit_hard: f64,
}

/// One model provider. `Debug` hides the secret.
#[derive(Clone)]
pub struct ProviderConfig {
    pub name: String,
    pub kind: ProviderKind,
    pub api_key: Option<String>,
    pub base_url: Option<String>,
    pub organization: Option<String>,
    /// Its calls cost nothing: it runs on hardware of the user's.
    pub is_free: bool,
    /// Longest answer; None leaves it to the provider.
    pub max_tokens: Option<u32>,
    /// Ollama only: how many tokens of context the model is loaded with.
    pub num_ctx: Option<u32>,
}

impl std::fmt::Debug for ProviderConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("ProviderConfig");
        shown.field("name", &self.name).field("kind", &self.kind).field("base_url", &self.base_url);
        shown.finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    Local,
    OpenAi,
    Ollama,
    Anthropic,
    OpenRouter,
}

/// `[[agents]]`.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    pub name: String,
    pub description: String,
    pub tier: Tier,
    /// Name of the provider that answers first.
    pub provider: String,
    /// Empty: none is set.
    pub model: String,
    /// Replaces the global rules when it is not empty.
    pub fallback: Vec<FallbackRule>,
    pub persona_dir: PathBuf,
    /// The skills that it shares with others; its own are in `<persona_dir>/skills`.
    pub skills_dir: PathBuf,
    pub adapters: Vec<String>,
    /// USD per conversation; None is the value of `[llm]`, 0 is off.
    pub cost_limit_soft: Option<f64>,
    pub cost_limit_hard: Option<f64>,
    /// Tools that it may call without asking.
    pub auto_approve_tools: Vec<String>,
    /// Hosts that its browser may open; empty is no limit of its own.
    pub browser_url_allowlist: Vec<String>,
}

/// `[audit]`: Holt's own.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// How long entries are kept.
    pub retention: Duration,
    pub rows_max: usize,
}

/// `[web]`: what agents may do on the web.
#[derive(Clone, Debug)]
pub struct WebConfig {
    pub search: SearchConfig,
    pub fetch: FetchConfig,
}

/// `[web.search]`. `Debug` hides the secret.
#[derive(Clone)]
pub struct SearchConfig {
    pub provider: SearchProvider,
    pub api_key: Option<String>,
    /// Where the service is, without a slash at the end; None: its public address.
    pub base_url: Option<String>,
    /// When the model does not say.
    pub results: usize,
}

impl std::fmt::Debug for SearchConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("SearchConfig");
        shown.field("provider", &self.provider).field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchProvider {
    DuckDuckGo,
    Tavily,
    /// A SearXNG of one's own, through its JSON API.
    Searxng,
}

/// `[web.fetch]`.
#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// The whole of a call, redirects included.
    pub timeout: Duration,
    /// What is read of a page, also after unpacking.
    pub bytes_max: usize,
    pub user_agent: String,
    pub respects_robots: bool,
    pub respects_agents: bool,
    /// Hosts and networks that may be private or this machine: names, `*.name`, addresses, networks.
    pub allow_private: Vec<String>,
}

/// `[streams]`: Holt's own.
#[derive(Clone, Debug)]
pub struct StreamConfig {
    pub log_age_max: Duration,
    pub log_bytes_max: u64,
    /// `session.approval_timeout`: how long a request for approval can be decided.
    pub approval_timeout: Duration,
    /// Turns that run at once.
    pub turns_max: usize,
}
