//! Tool servers and their lives: started in the background, looked after, changed at run time, their tools offered to
//! agents (contract engine 8.1, 8.4).
//!
//! Every server stands for itself: its start, its health checks and its failures delay no other server, no listing and
//! no turn. Threads, all in one group: `mcp-<name>` (1 per server that is not disabled, see `run`, and what its
//! transport needs, see [`crate::mcp`]) and `tool-change` (1 per change in progress, at most
//! [`limits::TOOL_CHANGES_MAX`]).

mod change;
mod connect;
mod expand;
mod login;
mod naming;
mod run;
mod tool;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use change::{ChangeError, START_FAILED, audit_detail};
pub use login::LoginError;
pub use write::{Write, WriteError};

use self::connect::Connector;
use self::run::{Health, Run, State};
use self::tool::ServerTool;
use crate::config::{Env, McpConfig, PartOf, ToolServerConfig};
use crate::limits;
use crate::llm::ToolSpec;
use crate::mcp::oauth::Summary;
use crate::mcp::{Children, ErrorLine, TransportKind};
use crate::net::url::redact_url;
use crate::rt::{Cancel, Threads, lock};
use crate::tools::{Tool, ToolSource};

/// All tool servers of the hub. Cheap to clone.
#[derive(Clone)]
pub struct ToolServers {
    shared: Arc<Shared>,
}

struct Shared {
    // Set at construction.
    connector: Connector,
    /// Names that servers' tools must not take.
    built_in: Vec<String>,
    /// Changes in progress.
    n_changes: Arc<AtomicUsize>,
    /// Guarded by the mutex: the runs by name, and the names that are being changed. A run's state may be looked at
    /// under it.
    servers: Mutex<Servers>,
    /// Guarded by the mutex: what agents are offered. Held while it is put together, so that the newest wins;
    /// `servers` is taken under it.
    published: Mutex<Vec<Arc<dyn Tool>>>,
    /// Told of servers that are gone, or other programs from now on; set once.
    replaced: OnceLock<Replaced>,
    /// Told of tokens that were given back; set once.
    revoked: OnceLock<Revoked>,
    /// Set once, when everything is put together.
    write: OnceLock<Write>,
}

/// Called on the thread of a change, before what is new counts.
type Replaced = Box<dyn Fn(&str) + Send + Sync>;

/// Called on a thread of its own.
type Revoked = Box<dyn Fn(&str, Result<bool, String>) + Send + Sync>;

#[derive(Default)]
struct Servers {
    runs: BTreeMap<String, Arc<Run>>,
    /// Names of plugins and of the browser, whether they run or not.
    reserved: BTreeSet<String>,
    /// What cancels the change.
    changing: BTreeMap<String, Cancel>,
    is_stopping: bool,
}

/// A server as it is now.
pub struct Status {
    pub name: String,
    pub config: ToolServerConfig,
    /// The tools that are offered, by the server's own names.
    pub tool_names: Vec<String>,
    /// `connected`, `error`, `disabled` or `pending_auth`.
    pub status: &'static str,
    /// `stdio`, `sse` or `sse-legacy`.
    pub transport: &'static str,
    /// For people: without credentials. Empty for programs.
    pub url: String,
    /// Failures since the last long time of good health.
    pub restart_count: u32,
    /// Empty while all is well.
    pub last_error: String,
    pub uptime: Option<Duration>,
    /// Its login; None when it wants none.
    pub login: Option<Summary>,
}

/// A tool of a server, as the API shows it.
pub struct Definition {
    /// The server's own name for it.
    pub name: String,
    pub description: String,
    pub parameters: Value,
    /// Not offered to agents.
    pub is_disabled: bool,
}

/// What is wrong with servers that could not even be tried, a line for each: an address that is refused, a header that
/// cannot be sent. Connects to nothing.
pub fn check_servers(settings: &McpConfig, servers: &BTreeMap<String, ToolServerConfig>, env: &Env) -> Vec<String> {
    let connector = Connector {
        settings: settings.clone(),
        env: env.clone(),
        threads: Threads::new(),
        children: Children::default(),
        oauth: OnceLock::new(),
    };
    let wrong = |(name, config): (&String, &ToolServerConfig)| {
        let error = connector.check(config).err()?;
        Some(format!("tools.{name}: {error}"))
    };
    servers.iter().filter_map(wrong).collect()
}

impl ToolServers {
    /// The configured servers, not started yet. `built_in` are the names of the hub's own tools.
    pub fn new(
        settings: McpConfig,
        servers: &BTreeMap<String, ToolServerConfig>,
        env: Env,
        built_in: Vec<String>,
    ) -> Self {
        let all = Self {
            shared: Arc::new(Shared {
                connector: Connector {
                    settings,
                    env,
                    threads: Threads::new(),
                    children: Children::default(),
                    oauth: OnceLock::new(),
                },
                built_in,
                n_changes: Arc::default(),
                servers: Mutex::default(),
                published: Mutex::default(),
                replaced: OnceLock::new(),
                revoked: OnceLock::new(),
                write: OnceLock::new(),
            }),
        };
        let runs = servers.iter().map(|(name, config)| (name.clone(), Run::new(name, config.clone())));
        lock(&all.shared.servers).runs = runs.collect();
        all
    }

    /// Starts every configured server, in the background. Never waits.
    pub fn start(&self) {
        let runs: Vec<Arc<Run>> = lock(&self.shared.servers).runs.values().cloned().collect();
        for run in &runs {
            self.shared.admit(run);
            self.shared.look_after(run, Duration::ZERO);
        }
    }

    /// Keeps a name from being given to another server.
    pub fn reserve(&self, name: &str) {
        lock(&self.shared.servers).reserved.insert(name.to_owned());
    }

    /// Gives a name back, unless it is being changed.
    pub fn release(&self, name: &str) {
        let mut servers = lock(&self.shared.servers);
        if !servers.changing.contains_key(name) {
            servers.reserved.remove(name);
        }
    }

    /// A server that belongs to something else, before [`Self::start`].
    pub fn put_part(&self, name: &str, config: ToolServerConfig) {
        lock(&self.shared.servers).runs.insert(name.to_owned(), Run::new(name, config));
    }

    /// Every server that stands for itself, by name. Never waits.
    pub fn list(&self) -> Vec<Status> {
        let runs: Vec<Arc<Run>> = lock(&self.shared.servers).runs.values().cloned().collect();
        runs.iter().filter(|run| run.config.part_of == PartOf::Tools).map(|run| self.shared.status(run)).collect()
    }

    /// One server. Never waits.
    pub fn get(&self, name: &str) -> Option<Status> {
        let run = lock(&self.shared.servers).runs.get(name).cloned();
        run.map(|run| self.shared.status(&run))
    }

    /// The tools of a server, as last listed.
    pub fn definitions(&self, name: &str) -> Option<Vec<Definition>> {
        let run = lock(&self.shared.servers).runs.get(name).cloned()?;
        let state = run.state();
        let definition = |tool: &crate::mcp::ToolDef| Definition {
            name: tool.name.clone(),
            description: tool.description.clone(),
            parameters: tool.schema.clone(),
            is_disabled: state.disabled_tools.contains(&tool.name),
        };
        Some(state.tools.iter().map(definition).collect())
    }

    /// What a server's program wrote on standard error lately, the newest last, without secrets; nothing of a remote one.
    pub fn log_lines(&self, name: &str) -> Option<Vec<ErrorLine>> {
        let run = lock(&self.shared.servers).runs.get(name).cloned()?;
        Some(run.log().lines())
    }

    /// Ends every server, all at once, and waits for their processes; those that are late are killed. The names of late
    /// threads.
    pub fn stop(&self, timeout: Duration) -> Vec<String> {
        self.begin_stop();
        let late = self.shared.connector.threads.join_all(timeout);
        self.shared.connector.children.kill_all();
        late
    }

    /// Cancels the changes in progress and takes no more. Servers go on: turns may still need them. Never waits.
    pub fn end_changes(&self) {
        let changes: Vec<Cancel> = {
            let mut servers = lock(&self.shared.servers);
            servers.is_stopping = true;
            servers.changing.values().cloned().collect()
        };
        for change in changes {
            change.cancel();
        }
    }

    /// Begins to end every server. Never waits.
    pub fn begin_stop(&self) {
        self.end_changes();
        let runs: Vec<Arc<Run>> = lock(&self.shared.servers).runs.values().cloned().collect();
        for run in runs {
            run.end();
        }
    }
}

impl ToolSource for ToolServers {
    fn tools(&self) -> Vec<Arc<dyn Tool>> {
        lock(&self.shared.published).clone()
    }
}

impl Shared {
    /// Starts the thread of a run, if it needs one. `first` is how long that waits before its first try.
    fn look_after(self: &Arc<Self>, run: &Arc<Run>, first: Duration) {
        if matches!(run.state().health, Health::Disabled | Health::PendingAuth) {
            return;
        }
        let (shared, own) = (Arc::clone(self), Arc::clone(run));
        let body = move || own.supervise(first, &shared);
        let name = format!("mcp-{}", run.name);
        if let Err(error) = self.connector.threads.spawn(&name, limits::WORKER_STACK_BYTES, body) {
            let cause = crate::mcp::McpError::Start { cause: format!("no thread: {error}") };
            // Without its thread nobody tries again.
            let _ = run.failed(&cause, self);
        }
    }

    /// Puts together what agents are offered. Called after every change of a run.
    fn publish(&self) {
        let mut published = lock(&self.published);
        let runs: Vec<Arc<Run>> = lock(&self.servers).runs.values().cloned().collect();
        let states: Vec<State> = runs.iter().map(|run| run.state()).collect();
        let known: Vec<(&str, Vec<&str>)> = runs
            .iter()
            .zip(&states)
            .map(|(run, state)| (run.name.as_str(), state.tools.iter().map(|tool| tool.name.as_str()).collect()))
            .collect();
        let names = naming::offered(&known, &self.built_in);
        let mut tools: Vec<Arc<dyn Tool>> = Vec::new();
        for ((run, state), names) in runs.iter().zip(&states).zip(names) {
            let Some(client) = &state.client else { continue };
            for (tool, name) in state.tools.iter().zip(names) {
                if state.disabled_tools.contains(&tool.name) {
                    continue;
                }
                tools.push(Arc::new(ServerTool {
                    spec: ToolSpec { name, description: tool.description.clone(), parameters: tool.schema.clone() },
                    server: run.name.clone(),
                    remote_name: tool.name.clone(),
                    client: Arc::clone(client),
                    timeout: self.connector.request_timeout(&run.config),
                }));
            }
        }
        *published = tools;
    }

    pub(super) fn status(&self, run: &Run) -> Status {
        let state = run.state();
        let offered = state.tools.iter().filter(|tool| !state.disabled_tools.contains(&tool.name));
        let configured = if run.config.is_remote() { TransportKind::Http } else { TransportKind::Stdio };
        Status {
            name: run.name.clone(),
            tool_names: if state.client.is_some() {
                offered.map(|tool| tool.name.clone()).collect()
            } else {
                Vec::new()
            },
            status: match state.health {
                Health::Connected => "connected",
                Health::Down => "error",
                Health::Disabled => "disabled",
                Health::PendingAuth => "pending_auth",
            },
            transport: state.kind.unwrap_or(configured).name(),
            // As it was typed: what placeholders stand for stays hidden.
            url: redact_url(&run.config.url),
            restart_count: state.failures,
            last_error: state.last_error.clone(),
            uptime: state.connected_at.map(|at: Instant| at.elapsed()),
            login: self.login(run),
            config: run.config(),
        }
    }
}
