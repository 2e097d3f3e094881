//! Conversations that run: turns, their numbered streams of events, and who may see them.
//!
//! Threads: `store-log` (1; owns the writing half of `events.db`; ends when its queue is closed and empty) and
//! `turn-<n>` (bounded; each owns one turn; ends with it). This room knows no HTTP status and no socket: what follows
//! a stream registers a [`stream::Watcher`] and reads at its own pace.

mod accept;
pub mod access;
mod agents;
pub mod approvals;
pub mod deliver;
pub mod engine;
pub mod event;
mod execute;
pub mod frame;
mod history;
mod interrupted;
mod panic;
mod parking;
mod pending;
pub mod recorder;
mod remote;
pub mod replay;
mod round;
mod run;
pub mod scheduled;
pub mod session;
pub mod stream;
mod turn;
mod upkeep;

pub use approvals::Approvals;
pub use engine::{Engine, Submit, Submitted, Ticket};
pub use event::ChatEvent;
pub use stream::SessionStream;

use std::fmt;

use crate::store::StoreError;

/// Why a message, an attach or a cancel was refused.
#[derive(Debug)]
pub enum ChatError {
    /// The session id is longer than 256 bytes or holds control characters.
    BadSessionId,
    /// The client's `message_id` is longer than 64 bytes.
    BadMessageId,
    AgentNotFound {
        agent: String,
    },
    /// The conversation belongs to somebody else and the identity may not do that to it.
    Denied,
    /// The identity may not do that on that machine.
    NotAllowed {
        agent: String,
        operation: &'static str,
    },
    /// Too many messages wait, in this conversation or in all.
    QueueFull,
    /// Nothing runs in that session.
    NotRunning,
    /// Everything is stopped until somebody ends the panic.
    Panicked,
    /// The hub is stopping.
    Stopping,
    Store(StoreError),
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadSessionId => write!(f, "session_id must have at most 256 bytes and no control characters"),
            Self::BadMessageId => write!(f, "message_id must have at most 64 bytes"),
            Self::AgentNotFound { agent } => write!(f, "agent {} not found", crate::rt::json::quoted(agent)),
            Self::Denied => write!(f, "this conversation belongs to another identity"),
            Self::NotAllowed { agent, operation } => {
                write!(f, "you may not {operation} {agent}; a rule in [[fleet.access]] would allow it")
            }
            Self::QueueFull => write!(f, "too many messages are waiting; try again when a turn has ended"),
            Self::NotRunning => write!(f, "no turn is running in this session"),
            Self::Panicked => {
                write!(f, "everything is stopped (panic); `holt resume` or POST /api/v1/resume lets turns run again")
            }
            Self::Stopping => write!(f, "the hub is stopping; try again in a moment"),
            Self::Store(cause) => write!(f, "{cause}"),
        }
    }
}

impl std::error::Error for ChatError {}

impl From<StoreError> for ChatError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
