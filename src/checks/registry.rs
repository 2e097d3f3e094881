//! The one table of plugins.

use std::time::Duration;

use crate::checks::plugin::Check;
use crate::checks::settings::{SettingError, Settings};
use crate::checks::{
    cert, cpu, disk, diskio, docker, http, journaltail, logfile, mem, netif, ntp, ping, port, procnum, systemd, uptime,
};

/// Makes the checks of one instance; takes its own keys, the engine has taken the common ones.
pub(super) type Build = fn(&mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError>;

/// One kind of check.
pub(super) struct Plugin {
    pub(super) name: &'static str,
    pub(super) build: Build,
    /// Runs without a word in the configuration. The others need to be told what to look at.
    pub(super) by_default: bool,
    pub(super) defaults: Defaults,
}

/// What a plugin's instances do unless their table says otherwise. The shipped values of contract agent-link 7.5.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    /// None: the global interval.
    pub(super) interval: Option<Duration>,
    /// Longest time of one round; beyond it the round counts as hung.
    pub(super) timeout: Duration,
    pub(super) for_duration: Duration,
    /// Zero: said once, then again only when it changes.
    pub(super) repeat_interval: Duration,
    /// 0: no limit.
    pub(super) repeat_number: u32,
    /// So many rounds in a row must be better before an alert is taken back.
    pub(super) recover_rounds: u32,
    /// And for so long: for what only happens now and then, like a line in a log.
    pub(super) recover_after: Duration,
}

pub(super) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) const DEFAULTS: Defaults = Defaults {
    interval: None,
    timeout: seconds(20),
    for_duration: Duration::ZERO,
    repeat_interval: seconds(300),
    repeat_number: 3,
    recover_rounds: 1,
    recover_after: Duration::ZERO,
};

const fn by_default(name: &'static str, build: Build, defaults: Defaults) -> Plugin {
    Plugin { name, build, by_default: true, defaults }
}

const fn on_demand(name: &'static str, build: Build, defaults: Defaults) -> Plugin {
    Plugin { name, build, by_default: false, defaults }
}

/// All plugins, by name.
pub(super) const PLUGINS: &[Plugin] = &[
    on_demand("cert", cert::build, CERT),
    by_default("cpu", cpu::build, cpu::ALERTING),
    by_default("disk", disk::build, DEFAULTS),
    by_default("diskio", diskio::build, diskio::ALERTING),
    on_demand("docker", docker::build, NETWORK),
    on_demand("http", http::build, NETWORK),
    by_default("journaltail", journaltail::build, journaltail::ALERTING),
    on_demand("logfile", logfile::build, logfile::ALERTING),
    by_default("mem", mem::build, mem::ALERTING),
    on_demand("net", port::build, NETWORK),
    on_demand("netif", netif::build, netif::ALERTING),
    by_default("ntp", ntp::build, ntp::ALERTING),
    on_demand("ping", ping::build, NETWORK),
    on_demand("procnum", procnum::build, DEFAULTS),
    by_default("systemd", systemd::build, DEFAULTS),
    by_default("uptime", uptime::build, uptime::ALERTING),
];

/// Many targets, each of which may take its time.
const NETWORK: Defaults = Defaults { timeout: seconds(120), ..DEFAULTS };

/// Certificates do not change from minute to minute.
const CERT: Defaults =
    Defaults { interval: Some(seconds(3600)), repeat_interval: seconds(4 * 3600), repeat_number: 0, ..NETWORK };
