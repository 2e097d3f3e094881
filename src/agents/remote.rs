//! Agents that answer elsewhere: a machine is one, named `machine:<id>`.

use serde_json::Value;

use crate::chat::access::Caller;
use crate::llm::Message;
use crate::rt::Cancel;

/// What the names of machines begin with.
pub const MACHINE_PREFIX: &str = "machine:";

/// What somebody wants of a machine (contract agent-link 8: user x machine x operation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    View,
    Inspect,
    Diagnose,
    Chat,
}

impl Operation {
    /// Its name in settings, rows and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Inspect => "inspect",
            Self::Diagnose => "diagnose",
            Self::Chat => "chat",
        }
    }

    /// The operation of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::View, Self::Inspect, Self::Diagnose, Self::Chat].into_iter().find(|operation| operation.name() == name)
    }
}

/// One turn that runs on a machine.
pub struct RemoteTurn<'a> {
    /// The whole name, `machine:<id>`.
    pub agent: &'a str,
    pub conversation_id: &'a str,
    /// Who asks, for the machine's log.
    pub identity: &'a str,
    pub operation: Operation,
    /// Of inspect and diagnose (contract agent-link 4.2, 4.3).
    pub params: &'a Value,
    pub text: &'a str,
    /// What was said before, oldest first, without `text`.
    pub history: &'a [Message],
}

/// What a remote turn tells while it runs. The order is that of the machine.
pub trait RemoteSink {
    /// A line of progress.
    fn thinking(&mut self, text: &str);
    /// A tool begins. `id` is unique in the turn.
    fn tool_start(&mut self, tool: &str, round: u32, id: &str);
    /// It has ended.
    fn tool_end(&mut self, tool: &str, round: u32, id: &str, duration_ms: u64, error: Option<&str>);
    /// A part of the answer, a whole text of a round.
    fn text(&mut self, text: &str);
    /// Tokens that the turn has used so far; their cost is counted where the model is called.
    fn usage(&mut self, tokens: u64);
}

/// Why a remote turn has no answer. `code` is a terminal code of the streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteError {
    pub code: &'static str,
    /// For the user: says what to do.
    pub message: String,
}

/// For lists of agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteAgent {
    /// `machine:<id>`.
    pub name: String,
    /// Its display name, else its host name.
    pub display_name: String,
    pub description: String,
    pub is_online: bool,
}

/// The machines as agents. Implemented by the fleet, used by turns.
pub trait RemoteAgents: Send + Sync {
    /// Those that the caller may view.
    fn list(&self, caller: &Caller) -> Vec<RemoteAgent>;

    /// The whole name of the machine that is meant: `machine:` and its id, or a display or host name that only one
    /// machine has. None for an unknown or ambiguous one.
    fn resolve(&self, name: &str) -> Option<String>;

    /// Whether the caller may do that to it. Decisions are logged by the fleet.
    fn allows(&self, caller: &Caller, name: &str, operation: Operation) -> bool;

    /// Runs a turn to its end: blocks the calling thread; `cancel` ends it early with code `cancelled`. The answer is
    /// what [`RemoteSink::text`] was given, or a report.
    fn run(&self, turn: &RemoteTurn<'_>, sink: &mut dyn RemoteSink, cancel: &Cancel) -> Result<String, RemoteError>;
}
