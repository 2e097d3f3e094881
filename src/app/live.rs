//! The configuration while the hub runs. Every change goes the same way: a copy of the document is edited, loaded
//! exactly as a start would load it, tried out by the parts that it concerns, written, and put in force part by part.
//!
//! Changes queue up: the lock is held over the disk, never over a network. No threads of its own.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use crate::api::Server;
use crate::api::settings::{Changed, Edit, Settings, SettingsError};
use crate::app::data_secret;
use crate::app::minds::{Maker, Minds};
use crate::chat::{Engine, engine};
use crate::config::{self, Config, ConfigError, ConfigWriter, Document};
use crate::costs::{self, Budgets};
use crate::fleet::hub::gateway::Gateway;
use crate::llm::Catalog;
use crate::notify::{self, Dispatcher};
use crate::rt::lock;
use crate::sched::{Changes, Scheduler};
use crate::tls::{Acceptor, Certificate};
use crate::tools::plugins::Plugins;
use crate::tools::servers::ToolServers;
use crate::ws::Hub;

/// What agents and models are made of.
const MINDS: &[&str] = &["agent", "agents", "llm", "session.tier", "web", "fleet.gateway"];

/// What new connections are made with.
const CERTIFICATE: &[&str] = &["api.tls", "api.cert_file", "api.key_file"];

/// What channels of notifications are made of.
const NOTIFY: &[&str] = &["notify", "api.external_url"];

/// Keys whose values count at once, or are only shown. A change of any other needs a restart.
const LIVE: &[&str] = &[
    "agent",
    "agents",
    "llm",
    "session",
    "web",
    "costs",
    "schedules",
    "scheduler",
    "fleet.gateway.provider",
    "fleet.gateway.chat_model",
    "fleet.gateway.diagnose_model",
    "log.level",
    "tools",
    "plugins",
    "notify",
    "api.external_url",
    "api.timezone",
    "api.cors_origins",
    "api.allowed_hosts",
    "api.trusted_proxies",
    "api.rate_limit",
    "api.login_rate_limit",
    "api.login_rate_window",
    "api.websocket_enabled",
    "api.keys",
    "api.auth.password_hash",
    "api.cert_file",
    "api.key_file",
    // Holt does nothing with these.
    "telegram",
    "discord",
    "voice",
    "sandbox",
    "otel",
];

/// Implements [`Settings`].
pub(super) struct Live {
    // Set at construction.
    writer: Arc<ConfigWriter>,
    maker: Maker,
    budgets: Arc<Budgets>,
    /// What the hub was started with.
    started: Arc<Config>,
    /// Set once, when everything is put together.
    parts: OnceLock<Parts>,
    /// Held over a whole change, the disk included; `current` and the locks of parts are taken under it.
    changing: Mutex<()>,
    /// Guarded by this mutex: what counts now. Nothing is taken under it.
    current: Mutex<Arc<Config>>,
}

/// Who is told of changes.
pub(super) struct Parts {
    pub(super) engine: Engine,
    pub(super) catalog: Option<Arc<Catalog>>,
    pub(super) gateway: Option<Arc<Gateway>>,
    pub(super) notify: Arc<Dispatcher>,
    pub(super) servers: ToolServers,
    pub(super) plugins: Arc<Plugins>,
    /// They know this one, and must not keep each other alive.
    pub(super) server: Weak<Server>,
    pub(super) hub: Weak<Hub>,
    pub(super) scheduler: Arc<Scheduler>,
    pub(super) tls: Option<Arc<Acceptor>>,
}

/// A configuration that would do.
struct Prepared {
    config: Config,
    /// None when agents and models stay as they are.
    minds: Option<Minds>,
    /// None when the certificate stays.
    certificate: Option<Certificate>,
    /// None when the channels stay as they are.
    channels: Option<notify::Ready>,
    changed: BTreeSet<String>,
}

impl Live {
    pub(super) fn new(config: &Arc<Config>, writer: &Arc<ConfigWriter>, maker: Maker, budgets: &Arc<Budgets>) -> Self {
        Self {
            writer: Arc::clone(writer),
            maker,
            budgets: Arc::clone(budgets),
            started: Arc::clone(config),
            parts: OnceLock::new(),
            changing: Mutex::new(()),
            current: Mutex::new(Arc::clone(config)),
        }
    }

    /// Who is told from now on; the first call counts.
    pub(super) fn set_parts(&self, parts: Parts) {
        let _ = self.parts.set(parts); // set once, by the composition root
    }

    /// What the start needs of agents and models.
    pub(super) fn minds(&self) -> Result<Minds, SettingsError> {
        self.maker.make(&self.current())
    }

    /// Tries a configuration out; nothing has happened when this fails.
    fn prepare(&self, config: Config, everything: bool) -> Result<Prepared, SettingsError> {
        let changed = self.current().tree.changed_keys(&config.tree);
        let minds = (everything || touches(&changed, MINDS)).then(|| self.maker.make(&config)).transpose()?;
        let certificate = match &config.api.tls {
            Some(files) if everything || touches(&changed, CERTIFICATE) => {
                Some(Certificate::load(files).map_err(|error| SettingsError::Part(error.to_string()))?)
            }
            _ => None,
        };
        let channels = match self.parts.get() {
            Some(parts) if everything || touches(&changed, NOTIFY) => {
                let url = config.api.external_url.as_deref();
                let ready = parts.notify.prepare(&config.notify, config.tree.channel_names(), url);
                Some(ready.map_err(SettingsError::Part)?)
            }
            _ => None,
        };
        Ok(Prepared { config, minds, certificate, channels, changed })
    }

    /// Puts it in force. Cannot fail: whatever could have was tried before.
    fn put_in_force(&self, prepared: Prepared, everything: bool) -> Changed {
        let Prepared { config, minds, certificate, channels, changed } = prepared;
        let config = Arc::new(config);
        let old = std::mem::replace(&mut *lock(&self.current), Arc::clone(&config));
        for warning in config.warnings.iter().filter(|warning| !old.warnings.contains(warning)) {
            log::warn!("{warning}");
        }
        if config.log.level != old.log.level {
            log::set_max_level(config.log.level);
        }
        self.budgets.set(costs::Settings::from_config(&config));
        if let Some(parts) = self.parts.get() {
            parts.engine.set_settings(engine_settings(&config));
            parts.scheduler.configure(&config.scheduler, &config.api.timezone);
            // Their state is in the database: what could not be stored there counts until the next start.
            if config.schedules != old.schedules
                && let Err(error) = parts.scheduler.apply(&config.schedules)
            {
                log::error!("store the state of schedules: {error}");
            }
            if let (Some(tls), Some(certificate)) = (&parts.tls, certificate) {
                tls.put_in_force(certificate);
            }
            if let Some(minds) = minds {
                if !everything {
                    keep_rules(&old, &config, parts, &minds);
                }
                if let (Some(gateway), Some(routers)) = (&parts.gateway, minds.gateway) {
                    gateway.set_routers(routers);
                }
                if let Some(catalog) = &parts.catalog {
                    catalog.set_providers(minds.providers);
                }
                parts.engine.set_agents(minds.agents);
            }
            parts.notify.set_place(&config.api.timezone, config.api.external_url.as_deref());
            if let Some(channels) = channels
                && let Err(error) = parts.notify.put_in_force(channels)
            {
                log::error!("{error}");
            }
            let mut servers = config.tools.clone();
            parts.plugins.apply(&config.plugins, &mut servers);
            parts.servers.apply(&servers);
            if let (Some(server), Some(hub)) = (parts.server.upgrade(), parts.hub.upgrade())
                && server.apply(&config)
            {
                // A database that cannot be asked revokes nobody.
                hub.close_revoked(|credential| server.ctx().auth.is_valid(credential).unwrap_or(true));
            }
        }
        let restart = self.started.tree.changed_keys(&config.tree).into_iter().filter(|key| !is_in(key, LIVE));
        let restart: Vec<String> = restart.collect();
        if !changed.is_empty() {
            // Keys only: values may be secrets.
            let names: Vec<&str> = changed.iter().map(String::as_str).collect();
            log::info!("settings changed: {}", names.join(", "));
        }
        if !restart.is_empty() {
            log::warn!("settings that count after a restart: {}", restart.join(", "));
        }
        Changed { restart }
    }
}

impl Settings for Live {
    fn current(&self) -> Arc<Config> {
        Arc::clone(&lock(&self.current))
    }

    fn change(&self, edit: Edit<'_>) -> Result<Changed, SettingsError> {
        let _one_at_a_time = lock(&self.changing);
        let mut result = Err(SettingsError::Part(String::new()));
        let written = self.writer.edit(|doc: &mut Document| {
            edit(doc)?;
            let config = self.current().source.load_document(doc)?;
            result = self.prepare(config, false);
            // What a part refuses must not be written: the error below is not the one that is told.
            let refused = ConfigError::refused;
            result.as_ref().map(|_| ()).map_err(|_| refused())
        });
        match (written, result) {
            (Ok(()), Ok(prepared)) => Ok(self.put_in_force(prepared, false)),
            (_, Err(SettingsError::Part(reason))) if !reason.is_empty() => Err(SettingsError::Part(reason)),
            (Err(error), _) => Err(error.into()),
            (Ok(()), Err(error)) => Err(error),
        }
    }

    fn check(&self) -> Result<(), SettingsError> {
        let config = self.current().source.load()?;
        self.prepare(config, true).map(drop)
    }

    fn sealed(&self, secret: &str) -> Result<String, SettingsError> {
        if config::is_reference(secret) {
            return Ok(secret.to_owned());
        }
        let own = data_secret(&self.current().data_dir).map_err(|error| SettingsError::Part(error.to_string()))?;
        let missing = || SettingsError::Part("the system has no randomness to seal a secret with".to_owned());
        config::seal(&own, secret).ok_or_else(missing)
    }

    fn reload(&self) -> Result<Changed, SettingsError> {
        let _one_at_a_time = lock(&self.changing);
        let config = self.current().source.load()?;
        let prepared = self.prepare(config, true)?;
        Ok(self.put_in_force(prepared, true))
    }
}

impl Changes for Live {
    fn config(&self) -> Arc<Config> {
        self.current()
    }

    fn change(&self, edit: Edit<'_>) -> Result<(), String> {
        Settings::change(self, edit).map(drop).map_err(|error| {
            error.refusal().unwrap_or_else(|| {
                if !matches!(&error, SettingsError::Config(cause) if cause.is_refused()) {
                    log::error!("change the configuration: {error}");
                }
                "the configuration file could not be changed; its hub's log says why".to_owned()
            })
        })
    }
}

/// What agents were told with `set_fallback` counts until the next start, unless their own settings say otherwise now.
fn keep_rules(old: &Config, new: &Config, parts: &Parts, minds: &Minds) {
    let agents = parts.engine.agents();
    for before in &old.agents {
        let is_same = |now: &&crate::config::AgentConfig| now.name == before.name && now.fallback == before.fallback;
        if old.llm.fallback == new.llm.fallback
            && new.agents.iter().any(|now| is_same(&now))
            && let (Some(before), Some(now)) = (agents.find(&before.name), minds.agents.find(&before.name))
        {
            now.router.set_rules(before.router.rules().to_vec());
        }
    }
}

/// What the engine takes from a configuration.
pub(super) fn engine_settings(config: &Config) -> engine::Settings {
    engine::Settings {
        turns_max: config.streams.turns_max,
        context_messages_max: config.llm.context_messages_max,
        tool_rounds_max: config.llm.tool_rounds_max,
        approval_ttl: config.streams.approval_timeout,
    }
}

fn touches(changed: &BTreeSet<String>, prefixes: &[&str]) -> bool {
    changed.iter().any(|key| is_in(key, prefixes))
}

/// Whether a key is one of these or stands below one.
fn is_in(key: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}
