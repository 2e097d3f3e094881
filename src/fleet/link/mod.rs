//! The agent's side of the machine link (contract agent-link 1-4): one connection to the hub, alerts that wait for
//! it on disk, and what people may ask this machine for.

pub mod runner;
