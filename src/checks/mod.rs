//! Host checks: what is measured, what counts as wrong, and the events that tell of it (contract agent-link 6, 7.5).
//!
//! A plugin is a file with `build`, which makes [`plugin::Check`]s from one table of the configuration, and a line in
//! the table of `registry`. It looks and returns [`plugin::Reading`]s; everything else is the engine's.

#![allow(dead_code, reason = "the engine is the user of all this")]

mod cert;
mod each;
mod icmp;
pub mod limits;
mod paths;
mod peek;
mod ping;
pub mod plugin;
mod port;
mod regex;
mod registry;
pub mod settings;
mod show;
mod x509;
