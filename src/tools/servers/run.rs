//! One run of a tool server under one configuration, and the thread that looks after it.
//!
//! Update, restart, disable and remove end a run and begin another: a run's configuration never changes. Its thread,
//! `mcp-<name>`, connects, checks its health, lists its tools anew when they change, and starts it again after
//! failures; so a sick server delays nobody but itself. It ends when the run is ended or given up.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::Shared;
use super::connect::Connected;
use crate::config::ToolServerConfig;
use crate::limits;
use crate::mcp::{Client, ErrorLog, McpError, ToolDef, TransportKind};
use crate::rt::{Cancel, lock};

/// Checks in a row that are left out because the server is at work.
const CHECKS_SKIPPED_MAX: u32 = 2;

/// How a server is (contract engine 8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Not connected, for now: starting, or waiting for the next try.
    Down,
    Connected,
    /// Switched off by an operator, or given up after too many failures.
    Disabled,
    /// It wants a login that nobody made yet.
    PendingAuth,
}

pub(super) struct Run {
    // Set at construction.
    pub(super) name: String,
    /// But for the disabled tools, which are in the state: they change while the server runs on.
    pub(super) config: ToolServerConfig,
    /// Ends the run: a connect in progress, a check in progress, the thread.
    cancel: Cancel,
    bell_tx: Sender<()>,
    bell_rx: Receiver<()>,
    /// Guarded by the mutex: how it is. Nothing is taken under it.
    state: Mutex<State>,
}

#[derive(Clone)]
pub(super) struct State {
    pub(super) health: Health,
    pub(super) client: Option<Arc<Client>>,
    /// As last listed; kept while the server is down, so that names do not change hands.
    pub(super) tools: Arc<[ToolDef]>,
    /// Not offered to agents, by the server's own names.
    pub(super) disabled_tools: Arc<[String]>,
    pub(super) kind: Option<TransportKind>,
    /// Failures since the last long time of good health.
    pub(super) failures: u32,
    pub(super) last_error: String,
    pub(super) connected_at: Option<Instant>,
    /// What its program wrote on standard error.
    log: ErrorLog,
}

impl Run {
    /// A run that is about to start.
    pub(super) fn new(name: &str, config: ToolServerConfig) -> Arc<Self> {
        let (bell_tx, bell_rx) = bounded(1);
        let health = match () {
            () if config.disabled => Health::Disabled,
            // Until it turns out that there is a login.
            () if config.auth == "oauth" => Health::PendingAuth,
            () => Health::Down,
        };
        let last_error = if health == Health::Down { "not connected yet: starting" } else { "" }.to_owned();
        let state = State {
            health,
            client: None,
            tools: Arc::new([]),
            disabled_tools: config.disabled_tools.clone().into(),
            kind: None,
            failures: 0,
            last_error,
            connected_at: None,
            log: ErrorLog::default(),
        };
        Arc::new(Self {
            name: name.to_owned(),
            config,
            cancel: Cancel::new(),
            bell_tx,
            bell_rx,
            state: Mutex::new(state),
        })
    }

    /// How it is now. Never waits.
    pub(super) fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// Its configuration as it would be written.
    pub(super) fn config(&self) -> ToolServerConfig {
        let disabled_tools = self.state().disabled_tools.to_vec();
        ToolServerConfig { disabled_tools, ..self.config.clone() }
    }

    pub(super) fn set_disabled_tools(&self, names: Vec<String>) {
        lock(&self.state).disabled_tools = names.into();
    }

    /// Knows the tools of the run before it, so that names do not change hands meanwhile, and goes on with its log.
    pub(super) fn remember(&self, old: &Self) {
        let State { tools, log, .. } = old.state();
        let mut state = lock(&self.state);
        (state.tools, state.log) = (tools, log);
    }

    /// What its program wrote on standard error.
    pub(super) fn log(&self) -> ErrorLog {
        lock(&self.state).log.clone()
    }

    /// Whether it is one that a person has to log in at.
    pub(super) fn wants_login(&self) -> bool {
        self.config.auth == "oauth"
    }

    /// It waited for a login, and has one.
    pub(super) fn admitted(&self) {
        let mut state = lock(&self.state);
        state.health = Health::Down;
        "not connected yet: starting".clone_into(&mut state.last_error);
    }

    /// Ends the run: its connection is closed, its thread ends. Never waits.
    pub(super) fn end(&self) {
        self.cancel.cancel();
        // Full: it rings already.
        let _ = self.bell_tx.try_send(());
        if let Some(client) = self.state().client {
            client.close();
        }
    }

    /// Takes an open connection over.
    pub(super) fn connected(&self, connected: Connected) {
        let mut state = lock(&self.state);
        state.health = Health::Connected;
        state.kind = Some(connected.client.kind());
        state.client = Some(Arc::new(connected.client));
        state.tools = connected.tools.into();
        state.last_error.clear();
        state.connected_at = Some(Instant::now());
    }

    /// Notes a failure; how long to wait before the next try, None when there is none.
    pub(super) fn failed(&self, error: &McpError, shared: &Shared) -> Option<Duration> {
        let settings = &shared.connector.settings;
        let mut state = lock(&self.state);
        let was_well = state.connected_at.is_some_and(|at| at.elapsed() >= settings.restart_cooldown);
        let client = state.client.take();
        state.connected_at = None;
        state.health = Health::Down;
        state.last_error = error.to_string();
        if was_well {
            state.failures = 0;
        }
        let waits_for_login = self.wants_login() && *error == McpError::Unauthorized;
        let wait = if waits_for_login {
            state.health = Health::PendingAuth;
            None
        } else if !settings.auto_restart {
            None
        } else if state.failures >= settings.restart_attempts_max {
            state.failures = state.failures.saturating_add(1);
            state.health = Health::Disabled;
            None
        } else {
            let wait = Duration::from_secs(1 << state.failures.min(6));
            state.failures += 1;
            Some(wait.min(limits::MCP_BACKOFF_MAX))
        };
        drop(state);
        if let Some(client) = client {
            client.close();
        }
        let next = match wait {
            Some(wait) => format!("next try in {} s", wait.as_secs()),
            None => "it is not started again".to_owned(),
        };
        log::warn!("tool server {}: {error}; {next}", self.name);
        wait
    }

    /// The body of its thread. `first` is how long to wait before the first try.
    pub(super) fn supervise(&self, first: Duration, shared: &Shared) {
        if !first.is_zero() {
            // Rings only at the end of the run.
            let _ = self.bell_rx.recv_timeout(first);
        }
        while !self.cancel.is_set() {
            let client = self.state().client;
            let failure = match client {
                Some(client) => self.watch(&client, shared),
                None => match shared.connector.connect(&self.name, &self.config, &self.log(), &self.cancel) {
                    Ok(connected) => {
                        log::info!("tool server {}: connected, {} tools", self.name, connected.tools.len());
                        self.connected(connected);
                        shared.publish();
                        continue;
                    }
                    Err(error) => Some(error),
                },
            };
            let Some(error) = failure.filter(|_| !self.cancel.is_set()) else { break };
            let wait = self.failed(&error, shared);
            shared.publish();
            let Some(wait) = wait else { return };
            // Rings only at the end of the run.
            let _ = self.bell_rx.recv_timeout(wait);
        }
        // Also a connection that came up while the run was being ended.
        self.end();
        if let Some(client) = self.state().client
            && !client.wait_ended(limits::MCP_STOP)
        {
            log::warn!("tool server {}: it is slow to end", self.name);
        }
    }

    /// Looks after an open connection; the failure that ended it, None when the run is ended.
    fn watch(&self, client: &Client, shared: &Shared) -> Option<McpError> {
        let auto = shared.connector.settings.auto_restart;
        let mut check_at = Instant::now() + limits::MCP_HEALTH_INTERVAL;
        let mut relist_at: Option<Instant> = None;
        // The first change counts at once, those of a storm together.
        let mut listed_at: Option<Instant> = None;
        let mut n_skipped = 0;
        loop {
            let next = relist_at.map_or(check_at, |at| at.min(check_at));
            select! {
                recv(client.bell()) -> _ => {}
                recv(self.bell_rx) -> _ => {}
                default(next.saturating_duration_since(Instant::now())) => {}
            }
            if self.cancel.is_set() {
                return None;
            }
            if let Some(reason) = client.closed() {
                return Some(reason);
            }
            let now = Instant::now();
            if client.take_tools_changed() && relist_at.is_none() {
                relist_at = Some(listed_at.map_or(now, |at| now.max(at + limits::MCP_RELIST_INTERVAL)));
            }
            if relist_at.is_some_and(|at| at <= now) {
                self.relist(client, shared);
                (relist_at, listed_at) = (None, Some(Instant::now()));
                continue;
            }
            let is_suspected = client.take_suspected();
            if check_at <= now || is_suspected {
                check_at = now + limits::MCP_HEALTH_INTERVAL;
                self.forget_failures(shared);
                // A server that works for somebody may be too busy to answer, for a while.
                if client.is_busy() && !is_suspected && n_skipped < CHECKS_SKIPPED_MAX {
                    n_skipped += 1;
                    continue;
                }
                n_skipped = 0;
                if auto && let Err(error) = client.ping(limits::MCP_HEALTH_TIMEOUT, &self.cancel) {
                    return Some(client.closed().unwrap_or(error));
                }
            }
        }
    }

    fn relist(&self, client: &Client, shared: &Shared) {
        match client.list_tools(limits::MCP_HEALTH_TIMEOUT, &self.cancel) {
            Ok(tools) => {
                log::info!("tool server {}: its tools changed, {} now", self.name, tools.len());
                lock(&self.state).tools = tools.into();
                shared.publish();
            }
            Err(error) => log::warn!("tool server {}: list its changed tools: {error}", self.name),
        }
    }

    /// Earlier failures do not count for ever (engine 13, row 60).
    fn forget_failures(&self, shared: &Shared) {
        let mut state = lock(&self.state);
        if state.connected_at.is_some_and(|at| at.elapsed() >= shared.connector.settings.restart_cooldown) {
            state.failures = 0;
        }
    }
}
