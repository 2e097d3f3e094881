//! Holt: a hub for AI agents and machines in one small binary, without an async runtime.

pub mod agents;
pub mod api;
pub mod app;
pub mod auth;
pub mod chat;
pub mod cli;
pub mod config;
pub mod diag;
pub mod http;
pub mod limits;
pub mod llm;
pub mod rt;
pub mod store;
pub mod sys;
pub mod tools;
pub mod web;
pub mod ws;
