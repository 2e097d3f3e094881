//! Changes of tool servers at run time: what is tried first, what is written, what takes effect (contract engine 8.4;
//! W-28, W-31). All of them wait for servers and for the disk: they run on threads of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::run::{Health, Run};
use super::{Shared, Status, ToolServers};
use crate::config::{PartOf, ToolServerConfig, check_tool_server_name};
use crate::limits;
use crate::mcp::McpError;
use crate::rt::json::quoted;
use crate::rt::order::Order;
use crate::rt::{Cancel, Slot, lock};

/// How long a restart waits for the old process to be gone.
const END_WAIT: Duration = Duration::from_secs(4);

/// Why a change was not made. What was there before still is.
#[derive(Debug)]
pub enum ChangeError {
    /// The new configuration cannot be used; the text is for the client.
    Invalid(String),
    /// There is a server of this name already.
    Exists { name: String },
    /// There is none.
    NotFound { name: String },
    /// As many as are allowed.
    Full { max: usize },
    /// Somebody else changes this server now, or too many are being changed, or the hub stops.
    Busy,
    /// The server did not start; `step` is what was tried.
    Start { step: &'static str, name: String, cause: McpError },
    /// The configuration could not be changed; `step` as the contract words it.
    Persist { step: &'static str, name: String, cause: String },
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(reason) => f.write_str(reason),
            Self::Exists { name } => write!(f, "name {} conflicts with an existing tool or plugin", quoted(name)),
            Self::NotFound { name } => write!(f, "tool {} not found", quoted(name)),
            Self::Full { max } => write!(f, "maximum number of tools reached ({max})"),
            Self::Busy => f.write_str("another change is in progress; try again"),
            Self::Start { step, name, cause } => write!(f, "{step} {}: {cause}", quoted(name)),
            Self::Persist { step, name, .. } => write!(f, "{}", step.replace("{}", &quoted(name))),
        }
    }
}

impl std::error::Error for ChangeError {}

impl ChangeError {
    /// Why, in a word that stays.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Exists { .. } => "exists",
            Self::NotFound { .. } => "not_found",
            Self::Full { .. } => "full",
            Self::Busy => "busy",
            Self::Start { .. } => START_FAILED,
            Self::Persist { .. } => "not_written",
        }
    }
}

/// The reason when a server's program was run, or its address reached, in vain.
pub const START_FAILED: &str = "start_failed";

/// What the audit log says of a change that failed: why, and which program it was about. No arguments, no variables,
/// no words of the server.
pub fn audit_detail(reason: &str, command: &str) -> String {
    if command.is_empty() { reason.to_owned() } else { format!("{reason}, command {}", quoted(command)) }
}

/// A name that is being changed; free again when dropped.
pub(super) struct Changing<'a> {
    shared: &'a Shared,
    name: &'a str,
    pub(super) cancel: Cancel,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        lock(&self.shared.servers).changing.remove(self.name);
    }
}

impl ToolServers {
    /// Runs a change on a thread of its own, under a counted limit.
    pub fn in_background(&self, change: impl FnOnce(&Self) + Send + 'static) -> Result<(), ChangeError> {
        let slot = Slot::take(&self.shared.n_changes, limits::TOOL_CHANGES_MAX).ok_or(ChangeError::Busy)?;
        let own = self.clone();
        let body = move || {
            change(&own);
            drop(slot);
        };
        let threads = &self.shared.connector.threads;
        threads.spawn("tool-change", limits::WORKER_STACK_BYTES, body).map_err(|_| ChangeError::Busy)
    }

    /// Adds a server: it must start, then it is written, then it counts.
    pub fn add(&self, name: &str, config: ToolServerConfig) -> Result<Status, ChangeError> {
        check_tool_server_name(name).map_err(ChangeError::Invalid)?;
        self.check(&config)?;
        let changing = self.changing(name)?;
        if lock(&self.shared.servers).reserved.contains(name) {
            return Err(ChangeError::Invalid(format!("name {} conflicts with an existing plugin", quoted(name))));
        }
        self.has_room(name)?;
        let run = self.try_out(name, config, "starting tool", &changing.cancel)?;
        self.write(name, "persisting tool {} to config", Some(&run.config()))?;
        self.tell_replaced(name);
        Ok(self.install(run, Some(Duration::ZERO)))
    }

    /// What the configuration file says counts: servers that are new are started, those that are gone end, those that
    /// are other ones now start anew, all in the background. Those that are just being changed are left to that, the
    /// browser to the next start. Never waits for a server.
    pub fn apply(&self, configs: &BTreeMap<String, ToolServerConfig>) {
        let (known, changing): (Vec<Arc<Run>>, Vec<String>) = {
            let servers = lock(&self.shared.servers);
            (servers.runs.values().cloned().collect(), servers.changing.keys().cloned().collect())
        };
        let is_left = |name: &String, part_of| part_of == PartOf::Browser || changing.contains(name);
        let gone = |run: &&Arc<Run>| !configs.contains_key(&run.name) && !is_left(&run.name, run.config.part_of);
        for run in known.iter().filter(gone) {
            lock(&self.shared.servers).runs.remove(&run.name);
            run.end();
            self.shared.publish();
            self.drop_login(&run.name, run.config());
            self.tell_replaced(&run.name);
        }
        for (name, config) in configs.iter().filter(|(name, _)| !changing.contains(name)) {
            let old = known.iter().find(|run| run.name == *name).map(|run| run.config());
            if old.as_ref() == Some(config) {
                continue;
            }
            let is_same = |old: &ToolServerConfig| {
                (&old.command, &old.args, &old.url) == (&config.command, &config.args, &config.url)
            };
            if !old.as_ref().is_some_and(is_same) {
                self.tell_replaced(name);
            }
            let run = self.shared.new_run(name, config.clone());
            let first = (run.state().health == Health::Down).then_some(Duration::ZERO);
            self.install(run, first);
        }
    }

    /// Adds what belongs to something else: a plugin with its server, which must start, or without one. Then `persist`
    /// runs, then it counts.
    pub fn add_part(
        &self,
        name: &str,
        config: Option<ToolServerConfig>,
        persist: impl FnOnce() -> Result<(), ChangeError>,
    ) -> Result<(), ChangeError> {
        let changing = self.changing(name)?;
        self.has_room(name)?;
        let run = config.map(|config| {
            self.check(&config)?;
            self.try_out(name, config, "starting plugin", &changing.cancel)
        });
        let run = run.transpose()?;
        if let Err(error) = persist() {
            if let Some(run) = run {
                run.end();
            }
            return Err(error);
        }
        self.reserve(name);
        self.tell_replaced(name);
        if let Some(run) = run {
            self.install(run, Some(Duration::ZERO));
        }
        Ok(())
    }

    /// Removes what belongs to something else, after `persist`.
    pub fn remove_part(
        &self,
        name: &str,
        persist: impl FnOnce() -> Result<(), ChangeError>,
    ) -> Result<(), ChangeError> {
        let _changing = self.changing(name)?;
        persist()?;
        let run = {
            let mut servers = lock(&self.shared.servers);
            servers.reserved.remove(name);
            servers.runs.remove(name)
        };
        if let Some(run) = run {
            run.end();
            self.shared.publish();
            self.tell_replaced(name);
        }
        Ok(())
    }

    /// Whether one more server may be added, one of a name that nobody has.
    fn has_room(&self, name: &str) -> Result<(), ChangeError> {
        let servers = lock(&self.shared.servers);
        let is_known = |name: &str| servers.runs.contains_key(name) || servers.reserved.contains(name);
        if is_known(name) {
            return Err(ChangeError::Exists { name: name.to_owned() });
        }
        let max = self.shared.connector.settings.servers_max;
        // Those that are just being added count as well, this one included.
        let added = servers.changing.keys().filter(|name| !is_known(name)).count();
        let idle = servers.reserved.iter().filter(|name| !servers.runs.contains_key(*name)).count();
        if servers.runs.len() + idle + added > max {
            return Err(ChangeError::Full { max });
        }
        Ok(())
    }

    /// A server that stands for itself: parts of something else are changed there.
    fn find_own(&self, name: &str) -> Result<Arc<Run>, ChangeError> {
        let found = self.find(name)?;
        match found.config.part_of {
            PartOf::Tools => Ok(found),
            _ => Err(ChangeError::NotFound { name: name.to_owned() }),
        }
    }

    /// Who is told of servers that are gone, or other programs from now on; the first call counts.
    pub fn on_replaced(&self, told: impl Fn(&str) + Send + Sync + 'static) {
        let _ = self.shared.replaced.set(Box::new(told)); // set once, by the composition root
    }

    fn tell_replaced(&self, name: &str) {
        if let Some(told) = self.shared.replaced.get() {
            told(name);
        }
    }

    /// Replaces a server's configuration. The new one must start before the old one goes; if it does not, or cannot be
    /// written, the old one goes on (W-31).
    pub fn update(
        &self,
        name: &str,
        change: impl FnOnce(&ToolServerConfig) -> ToolServerConfig,
    ) -> Result<Status, ChangeError> {
        let changing = self.changing(name)?;
        let old = self.find_own(name)?.config();
        let config = change(&old);
        self.check(&config)?;
        let is_another = (&old.command, &old.args, &old.url) != (&config.command, &config.args, &config.url);
        let run = self.try_out(name, config, "re-registering tool", &changing.cancel)?;
        self.write(name, "persisting updated config for tool {}", Some(&run.config()))?;
        if is_another {
            self.tell_replaced(name);
        }
        if run.state().health == Health::PendingAuth || !run.wants_login() {
            self.drop_login(name, old);
        }
        Ok(self.install(run, Some(Duration::ZERO)))
    }

    /// Removes a server.
    pub fn remove(&self, name: &str) -> Result<(), ChangeError> {
        let _changing = self.changing(name)?;
        let run = self.find_own(name)?;
        self.write(name, "removing tool {} from config", None)?;
        lock(&self.shared.servers).runs.remove(name);
        run.end();
        self.shared.publish();
        self.drop_login(name, run.config());
        self.tell_replaced(name);
        Ok(())
    }

    /// Ends a server and starts it again; earlier failures are forgotten. When it does not come up it stays in the
    /// error state and is tried again as after any failure.
    pub fn restart(&self, name: &str) -> Result<Status, ChangeError> {
        let changing = self.changing(name)?;
        let old = self.find(name)?;
        if old.config.disabled {
            let cause = McpError::Refused { reason: "it is switched off; enable it first".to_owned() };
            return Err(ChangeError::Start { step: "restarting tool", name: name.to_owned(), cause });
        }
        let client = old.state().client;
        old.end();
        if let Some(client) = client
            && !client.wait_ended(END_WAIT)
        {
            log::warn!("tool server {name}: its process is slow to end");
        }
        let run = self.shared.new_run(name, old.config());
        run.remember(&old);
        let (failure, first) = self.connect_again(&run, &changing.cancel);
        let status = self.install(run, first);
        match failure {
            None => Ok(status),
            Some(cause) => Err(ChangeError::Start { step: "restarting tool", name: name.to_owned(), cause }),
        }
    }

    /// Switches a server on or off, and remembers it. A server that is switched on and does not come up is in the
    /// error state and is tried again.
    pub fn set_enabled(&self, name: &str, enabled: bool) -> Result<Status, ChangeError> {
        let changing = self.changing(name)?;
        let old = self.find_own(name)?;
        let was_given_up = old.state().health == Health::Disabled;
        if old.config.disabled != enabled && !(enabled && was_given_up) {
            return Ok(self.shared.status(&old));
        }
        let run = self.shared.new_run(name, ToolServerConfig { disabled: !enabled, ..old.config() });
        run.remember(&old);
        self.write(name, "persisting tool {} to config", Some(&run.config()))?;
        old.end();
        let (_, first) = self.connect_again(&run, &changing.cancel);
        Ok(self.install(run, first))
    }

    /// Says which tools of a server agents are not offered, and remembers it. The server runs on.
    pub fn set_disabled_tools(&self, name: &str, mut disabled_tools: Vec<String>) -> Result<Status, ChangeError> {
        let _changing = self.changing(name)?;
        let old = self.find_own(name)?;
        disabled_tools.order();
        disabled_tools.dedup();
        let state = old.state();
        let is_known =
            |name: &String| state.tools.iter().any(|tool| tool.name == *name) || state.disabled_tools.contains(name);
        // While nothing is known of the server's tools, the caller is believed.
        if !state.tools.is_empty()
            && let Some(odd) = disabled_tools.iter().find(|name| !is_known(name))
        {
            let reason = format!("disabled_tools: this server has no tool {}", quoted(odd));
            return Err(ChangeError::Invalid(reason));
        }
        let config = ToolServerConfig { disabled_tools, ..old.config() };
        self.write(name, "persisting tool {} to config", Some(&config))?;
        old.set_disabled_tools(config.disabled_tools);
        self.shared.publish();
        Ok(self.shared.status(&old))
    }

    /// What start-up would refuse is refused (W-27).
    fn check(&self, config: &ToolServerConfig) -> Result<(), ChangeError> {
        config.check().map_err(|(_, reason)| ChangeError::Invalid(reason))?;
        self.shared.connector.check(config).map_err(|error| ChangeError::Invalid(error.to_string()))
    }

    /// A run of that configuration, connected, unless it is one that waits for a login or is switched off.
    fn try_out(
        &self,
        name: &str,
        config: ToolServerConfig,
        step: &'static str,
        cancel: &Cancel,
    ) -> Result<Arc<Run>, ChangeError> {
        let run = self.shared.new_run(name, config);
        if run.state().health != Health::Down {
            return Ok(run);
        }
        match self.connect(&run, cancel) {
            Ok(()) => Ok(run),
            // Its login has ended: it waits for another.
            Err(cause @ McpError::Unauthorized) if run.wants_login() => {
                run.failed(&cause, &self.shared);
                Ok(run)
            }
            Err(cause) => Err(ChangeError::Start { step, name: name.to_owned(), cause }),
        }
    }

    fn connect(&self, run: &Run, cancel: &Cancel) -> Result<(), McpError> {
        let connected = self.shared.connector.connect(&run.name, &run.config, &run.log(), cancel)?;
        run.connected(connected);
        Ok(())
    }

    /// Connects a run that takes the place of one that has ended, unless it waits for a login or is switched off: why
    /// it failed, and how long to wait before the next try, None when there is none.
    fn connect_again(&self, run: &Run, cancel: &Cancel) -> (Option<McpError>, Option<Duration>) {
        if run.state().health != Health::Down {
            return (None, None);
        }
        match self.connect(run, cancel) {
            Ok(()) => (None, Some(Duration::ZERO)),
            Err(cause) => {
                let first = run.failed(&cause, &self.shared);
                (Some(cause), first)
            }
        }
    }

    /// The run counts from now on; the one before it is ended. `first` is how long its thread waits before it looks
    /// after it, None when nobody does.
    pub(super) fn install(&self, run: Arc<Run>, first: Option<Duration>) -> Status {
        let (old, is_stopping) = {
            let mut servers = lock(&self.shared.servers);
            (servers.runs.insert(run.name.clone(), Arc::clone(&run)), servers.is_stopping)
        };
        if let Some(old) = old {
            old.end();
        }
        self.shared.publish();
        match first {
            _ if is_stopping => run.end(),
            Some(first) => self.shared.look_after(&run, first),
            None => {}
        }
        self.shared.status(&run)
    }

    pub(super) fn find(&self, name: &str) -> Result<Arc<Run>, ChangeError> {
        let found = lock(&self.shared.servers).runs.get(name).cloned();
        found.ok_or_else(|| ChangeError::NotFound { name: name.to_owned() })
    }

    pub(super) fn changing<'a>(&'a self, name: &'a str) -> Result<Changing<'a>, ChangeError> {
        let mut servers = lock(&self.shared.servers);
        if servers.is_stopping || servers.changing.contains_key(name) {
            return Err(ChangeError::Busy);
        }
        let cancel = Cancel::new();
        servers.changing.insert(name.to_owned(), cancel.clone());
        drop(servers);
        Ok(Changing { shared: &self.shared, name, cancel })
    }
}
