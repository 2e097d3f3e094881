//! The hub's side of the machine link.

pub mod alerts;
mod alerts_storm;
mod alerts_tell;
#[cfg(test)]
mod alerts_tests;
pub mod gateway;
pub mod gateway_wire;
