//! The API: one table of routes, a guard for each, a file per resource. Knows no socket; `http` calls
//! [`Server::handle`] with a complete request and carries out the reply. No threads of its own but the password lane.

mod agent_link;
mod agents;
mod alerts;
mod approvals;
mod audit;
pub mod body;
mod chat;
mod costs;
pub mod error;
mod gateway;
mod guard;
mod health;
mod journal;
mod keys;
mod kv;
mod login;
mod login_sessions;
mod machine_sessions;
mod machines;
mod mcp;
mod mcp_tools;
pub mod message;
mod metrics;
mod models;
mod notifications;
mod oidc;
mod openapi;
mod panic;
mod paths;
mod persona;
pub mod routes;
pub mod server;
mod sessions;
pub mod settings;
mod setup;
mod skills;
mod tools;
mod ws;

pub use server::{Deps, Server, WebHandler};
