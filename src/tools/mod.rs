//! Tools that agents call: what one is, and the set an agent has.
//!
//! This room knows no transport and no conversation. A tool runs on the thread of its turn. Threads: those of
//! [`servers`].

pub mod servers;

pub mod arguments;
pub mod builtin;
mod kv;

pub use kv::kv_tools;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::limits;
use crate::llm::ToolSpec;
use crate::rt::Cancel;

/// What a call may know about where it comes from, and when it has to end.
pub struct ToolContext<'a> {
    pub agent: &'a str,
    pub session_id: &'a str,
    /// Who began the turn: what belongs to others stays hidden from it.
    pub identity: &'a str,
    /// The call is given up at this moment; tools that wait must look at it.
    pub deadline: Instant,
    pub cancel: &'a Cancel,
}

/// Why a call failed, in words for the model and the user. No paths of secrets, no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolError {
    pub message: String,
}

impl ToolError {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// Something an agent can do.
pub trait Tool: Send + Sync {
    /// Name, description and argument schema.
    fn spec(&self) -> &ToolSpec;

    /// True for tools that change nothing: they need no approval in any tier.
    fn read_only(&self) -> bool;

    /// Whether a call with these arguments needs no approval in any tier.
    fn is_free(&self, _arguments: &Value) -> bool {
        self.read_only()
    }

    /// Whether agents of tier `restricted` are offered it; they may make its free calls only.
    fn for_restricted(&self) -> bool {
        self.read_only()
    }

    /// Whether somebody has to allow it in every tier, unless a rule does.
    fn always_asks(&self) -> bool {
        false
    }

    /// The tool server it belongs to; empty for built-in tools. Approvals are bound to it.
    #[expect(clippy::unnecessary_literal_bound, reason = "other tools name a server that they own")]
    fn server(&self) -> &str {
        ""
    }

    /// What its server calls it; agents may be offered it under another name.
    fn own_name(&self) -> &str {
        &self.spec().name
    }

    /// Arguments (top-level keys) that may hold secrets: their values are in no event, approval or stored step.
    fn secret_arguments(&self) -> &[&'static str] {
        &[]
    }

    /// How long a call may take.
    fn timeout(&self) -> Duration {
        limits::TOOL_TIMEOUT
    }

    /// Runs the tool. The text goes to the model; it is bounded by the caller.
    fn call(&self, arguments: &Value, context: &ToolContext<'_>) -> Result<String, ToolError>;
}

/// Tools that come and go while the hub runs: those of tool servers. Asked at every round of every turn: quick, and
/// never waits for a server.
pub trait ToolSource: Send + Sync {
    /// The tools that can be called now.
    fn tools(&self) -> Vec<Arc<dyn Tool>>;
}

/// The tools of one agent, in the order they are offered.
#[derive(Clone, Default)]
pub struct ToolSet {
    tools: Vec<Arc<dyn Tool>>,
}

impl ToolSet {
    /// A set; names are unique, the first of a name wins.
    pub fn new(tools: Vec<Arc<dyn Tool>>) -> Self {
        let mut unique: Vec<Arc<dyn Tool>> = Vec::with_capacity(tools.len());
        for tool in tools {
            if !unique.iter().any(|known| known.spec().name == tool.spec().name) {
                unique.push(tool);
            }
        }
        Self { tools: unique }
    }

    /// The tool of that exact name.
    pub fn find(&self, name: &str) -> Option<&Arc<dyn Tool>> {
        self.tools.iter().find(|tool| tool.spec().name == name)
    }

    /// What models are told.
    pub fn specs(&self) -> Vec<ToolSpec> {
        self.tools.iter().map(|tool| tool.spec().clone()).collect()
    }

    /// The names, in order.
    pub fn names(&self) -> Vec<String> {
        self.tools.iter().map(|tool| tool.spec().name.clone()).collect()
    }
}
