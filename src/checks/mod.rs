//! Host checks: what is measured, what counts as wrong, and the events that tell of it (contract agent-link 6, 7.5).
//!
//! A plugin is a file with `build`, which makes [`plugin::Check`]s from one table of the configuration, and a line in
//! the table of `registry`. It looks and returns [`plugin::Reading`]s; everything else is the engine's.
//!
//! # Configuration
//!
//! `[checks.NAME]`, or `[[checks.NAME]]` once for each instance. Without a word `cpu`, `mem`, `disk`, `diskio`,
//! `uptime`, `ntp`, `journaltail` and (failed units) `systemd` run; `enabled = false` switches one off. Keys of every instance:
//!
//! | key | meaning |
//! | --- | --- |
//! | `interval` | from the begin of a round to the begin of the next; the global one by default |
//! | `labels` | a table; names that identify an event are refused. They win over global labels of the same name. `${HOSTNAME}`, `${SHORT_HOSTNAME}` and `${IP}` are this machine's |
//! | `alerting.disabled` | nothing is raised |
//! | `alerting.for_duration` | how long it must be wrong until it is told |
//! | `alerting.repeat_interval`, `alerting.repeat_number` | told again after, at most so often (0: no limit). An interval of 0: only when the level changes. A level that changes is told at once, whatever was repeated |
//! | `alerting.disable_recovery_notification` | the end is not told |
//! | `alerting.recover_rounds`, `alerting.recover_after` | rounds in a row, and time, that it must be better before that is told |
//!
//! The keys of a plugin stand in its file, thresholds in [`settings`]. Unknown keys are refused.

mod cert;
mod core;
#[cfg(test)]
mod core_tests;
mod cpu;
mod disk;
mod diskio;
mod docker;
mod docker_api;
#[cfg(test)]
mod docker_tests;
mod each;
mod engine;
#[cfg(test)]
mod engine_tests;
mod filter;
mod glob;
mod http;
pub(crate) mod icmp;
mod journaltail;
mod judged;
mod keep;
mod ledger;
#[cfg(test)]
mod ledger_tests;
pub mod limits;
mod logfile;
mod mem;
mod netif;
mod ntp;
mod once;
mod paths;
mod peek;
mod ping;
mod plan;
pub mod plugin;
mod port;
mod procnum;
mod regex;
#[cfg(test)]
mod regex_tests;
mod registry;
pub mod settings;
mod show;
mod state;
mod systemd;
#[cfg(test)]
mod testing;
mod tool;
mod uptime;
mod x509;

pub use self::core::MachineLabels;
pub use self::engine::{Engine, Setup};
pub use self::judged::own_limits;
pub use self::once::{Outcome, run_once};
pub use self::plan::{Global, Plan, check_label, expand_labels};
pub use self::tool::{checks_tool, hosts_of};
pub use self::x509::validity;
