//! Black-box tests: the real binary on port 0 in a temporary directory. A module per subject.
#![allow(clippy::unwrap_used, clippy::pedantic, reason = "a test that cannot go on says so by its panic")]
#![allow(unreachable_pub, reason = "one binary: nothing in it is reachable from elsewhere")]

#[macro_use]
mod support;

mod agent_link;
mod agent_process;
mod agent_sessions;
mod agents;
mod alerts;
mod approvals;
mod audit;
mod backup;
mod chat;
mod checks;
mod checks_network;
mod cli;
mod completions;
mod conformance;
mod costs;
mod doctor;
mod fleet;
mod fleet_delivery;
mod fleet_network;
mod fuzz;
mod gateway;
mod http_framing;
mod http_limits;
mod http_load;
mod identity;
mod import;
mod inspect;
mod kv;
mod logins;
mod machine_sessions;
mod machine_times;
mod machines;
mod machines_cli;
mod mcp_server;
mod metrics;
mod notifications;
mod oidc;
mod oidc_official;
mod page;
mod persona;
mod providers;
mod proxies;
mod restart;
mod routes;
mod schedules;
mod service;
mod settings;
mod setup;
mod skills;
mod streams;
mod tls;
mod tls_clients;
mod tool_logins;
mod tools;
mod tools_http;
mod tools_official;
mod web_tools;
mod ws_protocol;
