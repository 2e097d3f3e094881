//! The configuration as it was typed: one file, with the variables and options that win over it laid on top.
//!
//! Types are checked by `schema` first, so that every complaint names its key. Only keys that Holt acts on are here.
#![expect(clippy::struct_field_names, reason = "the names are those of the file")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::Path;

use toml_edit::{DocumentMut, Item, Table, TableLike};

use super::Flags;
use super::agents::MadeUpAgent;
use super::env::Env;
use super::error::{ConfigError, Origin};
use super::json::{self, FromJson, typed};
use super::place::Place;
use super::raw_llm::{Fallback, Llm};
use super::raw_web::Web;
use super::schema;
use super::source::Tree;
use super::tools::ToolServerConfig;

/// Variables and the keys that they stand for (contract engine 10.3), each as `HOLT_` and as `DENKEEPER_`.
const VARIABLES: &[(&str, &str, As)] = &[
    ("TELEGRAM_TOKEN", "telegram.token", As::Text),
    ("DISCORD_TOKEN", "discord.token", As::Text),
    ("LLM_PROVIDER", "llm.default_provider", As::Text),
    ("LLM_MODEL", "llm.default_model", As::Text),
    ("LLM_OPENROUTER_API_KEY", "llm.openrouter.api_key", As::Text),
    ("LLM_ANTHROPIC_API_KEY", "llm.anthropic.api_key", As::Text),
    ("LLM_ANTHROPIC_BASE_URL", "llm.anthropic.base_url", As::Text),
    ("LLM_OLLAMA_BASE_URL", "llm.ollama.base_url", As::Text),
    ("LLM_OPENAI_API_KEY", "llm.openai.api_key", As::Text),
    ("LLM_OPENAI_BASE_URL", "llm.openai.base_url", As::Text),
    ("VOICE_OPENAI_API_KEY", "voice.openai.api_key", As::Text),
    ("LOG_LEVEL", "log.level", As::Text),
    ("LOG_FORMAT", "log.format", As::Text),
    ("MEMORY_DB_PATH", "memory.db_path", As::Text),
    ("API_LISTEN", "api.listen", As::Text),
    ("API_ENABLED", "api.enabled", As::Switch),
    ("API_WEBSOCKET_ENABLED", "api.websocket_enabled", As::Switch),
    ("SESSION_TIER", "session.tier", As::Text),
    ("SEARCH_API_KEY", "web.search.api_key", As::Text),
    ("OTEL_TRACES_ENDPOINT", "otel.traces_endpoint", As::Text),
    ("API_AUTH_SESSION_SECRET", "api.auth.session_secret", As::Text),
    ("OIDC_CLIENT_ID", "api.auth.oidc.client_id", As::Text),
    ("OIDC_CLIENT_SECRET", "api.auth.oidc.client_secret", As::Text),
    ("API_EXTERNAL_URL", "api.external_url", As::Text),
    ("TIMEZONE", "api.timezone", As::Text),
    ("WEB_DIR", "api.web_dir", As::Text),
];

#[derive(Clone, Copy)]
enum As {
    Text,
    /// `true`, `1`, `false`, `0`; anything else is ignored, as the reference does.
    Switch,
}

#[derive(Default)]
pub(super) struct Raw {
    pub(super) data_dir: Option<String>,
    pub(super) llm: Llm,
    pub(super) memory: Memory,
    pub(super) log: Log,
    pub(super) session: Session,
    pub(super) agent: MadeUpAgent,
    pub(super) agents: Vec<Agent>,
    pub(super) schedules: Vec<super::schedules::RawSchedule>,
    pub(super) scheduler: super::schedules::RawScheduler,
    pub(super) tools: BTreeMap<String, ToolServerConfig>,
    pub(super) max_tools: Option<i64>,
    pub(super) mcp: Mcp,
    pub(super) plugins: HashMap<String, Plugin>,
    pub(super) api: Api,
    pub(super) http: Http,
    pub(super) streams: Streams,
    pub(super) audit: Audit,
    pub(super) kv: super::kv::RawKv,
    pub(super) costs: super::costs::RawCosts,
    pub(super) fleet: super::fleet::RawFleet,
    pub(super) web: Web,
    /// See `config::notify`.
    pub(super) notify: serde_json::Map<String, serde_json::Value>,
}

typed!(Raw {
    data_dir,
    llm,
    memory,
    log,
    session,
    agent,
    agents,
    schedules,
    scheduler,
    tools,
    max_tools,
    mcp,
    plugins,
    api,
    http,
    streams,
    audit,
    kv,
    costs,
    fleet,
    web,
    notify
});

#[derive(Default)]
pub(super) struct Memory {
    pub(super) db_path: String,
}

typed!(Memory { db_path });

#[derive(Default)]
pub(super) struct Log {
    pub(super) level: String,
    pub(super) format: String,
}

typed!(Log { level, format });

#[derive(Default)]
pub(super) struct Session {
    pub(super) tier: String,
    pub(super) approval_timeout: Option<String>,
}

typed!(Session { tier, approval_timeout });

#[derive(Default)]
pub(super) struct Agent {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) persona_dir: String,
    pub(super) skills_dir: String,
    pub(super) adapters: Vec<String>,
    pub(super) auto_approve_tools: Vec<String>,
    pub(super) llm_model: String,
    pub(super) llm_provider: String,
    pub(super) session_tier: String,
    pub(super) browser_url_allowlist: Vec<String>,
    pub(super) cost_limit_soft: Option<f64>,
    pub(super) cost_limit_hard: Option<f64>,
    pub(super) fallback: Vec<Fallback>,
}

typed!(Agent {
    name,
    description,
    persona_dir,
    skills_dir,
    adapters,
    auto_approve_tools,
    llm_model,
    llm_provider,
    session_tier,
    browser_url_allowlist,
    cost_limit_soft,
    cost_limit_hard,
    fallback
});

#[derive(Default)]
pub(super) struct Mcp {
    pub(super) request_timeout_secs: Option<i64>,
    pub(super) auto_restart: Option<bool>,
    pub(super) max_restart_attempts: Option<i64>,
    pub(super) restart_cooldown: Option<String>,
    pub(super) url_allowlist: Vec<String>,
}

typed!(Mcp { request_timeout_secs, auto_restart, max_restart_attempts, restart_cooldown, url_allowlist });

#[derive(Default)]
pub(super) struct Plugin {
    pub(super) kind: String,
    pub(super) command: String,
    pub(super) image: String,
}

typed!(Plugin { kind: "type", command, image });

#[derive(Default)]
pub(super) struct Api {
    pub(super) enabled: Option<bool>,
    pub(super) listen: String,
    pub(super) tls: bool,
    pub(super) cert_file: String,
    pub(super) key_file: String,
    pub(super) cors_origins: Vec<String>,
    pub(super) rate_limit: f64,
    pub(super) login_rate_limit: Option<i64>,
    pub(super) login_rate_window: String,
    pub(super) websocket_enabled: Option<bool>,
    pub(super) websocket_max_connections: i64,
    pub(super) websocket_replay_buffer_ttl: Option<String>,
    pub(super) external_url: String,
    pub(super) timezone: String,
    pub(super) keys: Vec<Key>,
    pub(super) auth: Auth,
    pub(super) allowed_hosts: Vec<String>,
    pub(super) trusted_proxies: Vec<String>,
    pub(super) web_dir: String,
}

typed!(Api {
    enabled,
    listen,
    tls,
    cert_file,
    key_file,
    cors_origins,
    rate_limit,
    login_rate_limit,
    login_rate_window,
    websocket_enabled,
    websocket_max_connections,
    websocket_replay_buffer_ttl,
    external_url,
    timezone,
    keys,
    auth,
    allowed_hosts,
    trusted_proxies,
    web_dir
});

#[derive(Default)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) key: String,
    pub(super) scopes: Vec<String>,
}

typed!(Key { name, key, scopes });

#[derive(Default)]
pub(super) struct Auth {
    pub(super) password_hash: String,
    pub(super) session_secret: String,
    pub(super) session_max_age: Option<String>,
    pub(super) oidc: Oidc,
}

typed!(Auth { password_hash, session_secret, session_max_age, oidc });

#[derive(Default)]
pub(super) struct Oidc {
    pub(super) enabled: bool,
    pub(super) issuer: String,
    pub(super) client_id: String,
    pub(super) client_secret: String,
    pub(super) redirect_url: String,
    pub(super) scopes: Vec<String>,
    pub(super) allowed_emails: Vec<String>,
}

typed!(Oidc { enabled, issuer, client_id, client_secret, redirect_url, scopes, allowed_emails });

#[derive(Default)]
pub(super) struct Http {
    pub(super) connections_max: Option<i64>,
    pub(super) workers: Option<i64>,
    pub(super) body_bytes_max: Option<i64>,
    pub(super) head_timeout: Option<String>,
    pub(super) body_timeout: Option<String>,
    pub(super) idle_timeout: Option<String>,
}

typed!(Http { connections_max, workers, body_bytes_max, head_timeout, body_timeout, idle_timeout });

#[derive(Default)]
pub(super) struct Streams {
    pub(super) log_age_max: Option<String>,
    pub(super) log_bytes_max: Option<i64>,
    pub(super) turns_max: Option<i64>,
}

typed!(Streams { log_age_max, log_bytes_max, turns_max });

#[derive(Default)]
pub(super) struct Audit {
    pub(super) retention: Option<String>,
    pub(super) rows_max: Option<i64>,
}

typed!(Audit { retention, rows_max });

/// What was typed, and where.
pub(super) struct Typed {
    pub(super) raw: Raw,
    /// Whether a file was read.
    pub(super) has_file: bool,
    origins: HashMap<&'static str, Origin>,
    file: Origin,
    pub(super) warnings: Vec<String>,
    pub(super) tree: Tree,
}

impl Typed {
    /// Reads the file of `place`, if it is there, and lays variables and options over it.
    pub(super) fn read(place: &Place, flags: &Flags, env: &Env) -> Result<Self, ConfigError> {
        Self::of(read_document(&place.config_path)?, place, flags, env)
    }

    /// The same for what the file holds; None when there is none.
    pub(super) fn of(file: Option<DocumentMut>, place: &Place, flags: &Flags, env: &Env) -> Result<Self, ConfigError> {
        let has_file = file.is_some();
        let mut doc = file.unwrap_or_default();
        let mut origins = HashMap::new();
        overlay(&mut doc, flags, env, &mut origins);
        let findings = schema::check(doc.as_table_mut());
        let mut typed = Self {
            raw: Raw::default(),
            has_file,
            origins,
            file: Origin::File(place.config_path.clone()),
            warnings: Vec::new(),
            tree: Tree::default(),
        };
        if let Some((key, reason)) = findings.wrong.into_iter().next() {
            return Err(typed.bad(&key, reason));
        }
        for (key, meant) in findings.unknown {
            let hint = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            typed.warnings.push(format!("config {}: {key}: unknown key{hint}", place.config_path.display()));
        }
        // After the check this fails only where the two disagree, which is our mistake; still no reason to panic.
        let tree = json::of_table(doc.as_table());
        if !typed.raw.take(tree.clone()) {
            return Err(typed.bad("(file)", "a value has another type than Holt expects"));
        }
        typed.tree = Tree::new(tree, &typed.origins);
        Ok(typed)
    }

    /// A value that is refused.
    pub(super) fn bad(&self, key: &str, reason: impl Into<String>) -> ConfigError {
        let origin = self.origins.get(key).unwrap_or(&self.file).clone();
        ConfigError::Value { origin, key: key.to_owned(), reason: reason.into() }
    }
}

/// A parsed file; None when there is none.
pub(super) fn read_document(path: &Path) -> Result<Option<DocumentMut>, ConfigError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(ConfigError::Read { path: path.to_owned(), cause }),
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    match text.parse() {
        Ok(doc) => Ok(Some(doc)),
        Err(error) => {
            // The error's own Display quotes the line, which may hold a secret.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            let reason = error.message().trim().replace('\n', ", ");
            Err(ConfigError::Syntax { path: path.to_owned(), line, column, reason })
        }
    }
}

fn overlay(doc: &mut DocumentMut, flags: &Flags, env: &Env, origins: &mut HashMap<&'static str, Origin>) {
    for (name, key, kind) in VARIABLES {
        let Some((found, value)) = env.setting(name) else { continue };
        let value = match (kind, value) {
            (As::Text, text) => toml_edit::value(text),
            (As::Switch, "true" | "1") => toml_edit::value(true),
            (As::Switch, "false" | "0") => toml_edit::value(false),
            (As::Switch, _) => continue,
        };
        if put(doc.as_table_mut(), key, value) {
            origins.insert(key, Origin::Variable(found));
        }
    }
    if let Some(listen) = &flags.listen
        && put(doc.as_table_mut(), "api.listen", toml_edit::value(listen))
    {
        origins.insert("api.listen", Origin::Flag("--listen"));
    }
}

/// Sets a value at a dotted path; false when something that is no table is in the way (the check reports it).
fn put(table: &mut dyn TableLike, key: &str, value: Item) -> bool {
    match key.split_once('.') {
        None => {
            table.insert(key, value);
            true
        }
        Some((first, rest)) => {
            let below = table.entry(first).or_insert_with(|| Item::Table(Table::new()));
            below.as_table_like_mut().is_some_and(|below| put(below, rest, value))
        }
    }
}
