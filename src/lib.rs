//! Holt: a hub for AI agents and machines in one small binary, without an async runtime.

pub mod cli;
pub mod config;
pub mod diag;
pub mod llm;
pub mod rt;
pub mod tools;
