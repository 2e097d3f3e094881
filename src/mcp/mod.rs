//! Tool servers (Model Context Protocol): the client and its transports. Contract engine 8.2.
//!
//! This room knows JSON-RPC, pipes and HTTP; it knows nothing of agents, of configuration files, or of when a server
//! is started again: that is [`crate::tools::servers`]. Parsers do no I/O.
//!
//! Threads, started in the group that the caller gives: `mcp-<name>` (1 per stdio server, see `stdio`; for remote servers see
//! `http`).

mod child;
mod client;
mod content;
mod error;
mod http;
mod inbox;
mod lines;
mod mask;
pub mod oauth;
mod rpc;
mod stderr;
mod stdio;
mod stream;

pub use child::Children;
pub use client::{CallLimit, Client, PROTOCOLS, ToolDef};
pub use content::Outcome;
pub use error::McpError;
pub use http::{Target, reach};
pub use mask::Mask;
use mask::cut;
pub use stderr::{ErrorLine, ErrorLog};
pub use stdio::{Program, start as start_program};

/// How a server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// A child process.
    Stdio,
    /// Streamable HTTP.
    Http,
    /// HTTP with a stream of events, of before 2025-03-26.
    LegacySse,
}

impl TransportKind {
    /// As the API spells it (contract http-api 11.1).
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdio => "stdio",
            Self::Http => "sse",
            Self::LegacySse => "sse-legacy",
        }
    }
}
