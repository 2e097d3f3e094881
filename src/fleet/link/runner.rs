//! What a remote session runs: the traits between the link and whatever answers (contract agent-link 4).
//!
//! The link owns acks, limits, threads, the audit file and the closing output; a runner only does the work and tells
//! about it through its callback.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value};

use crate::fleet::wire::Metadata;
use crate::llm;
use crate::rt::Cancel;

/// Takes the progress of a run: a whole chunk of text, its stage, and what is known beside it. The link adds `seq`
/// and `turn_done`. May block for a moment when the connection is slow.
///
/// At [`Stage::ToolCall`] the text is `[Tool] NAME ARGUMENTS` and `metadata.tool` is the name; it is called before the
/// tool runs, so that the audit file has the call even when the machine dies of it. At [`Stage::ToolResult`] `tool`,
/// `tool_ok` and `duration_ms` are set.
pub type StreamCallback<'a> = dyn FnMut(&str, Stage, Metadata) + Send + 'a;

/// What a piece of output is (contract agent-link 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A model is about to be called, or was.
    Thinking,
    /// A tool is about to run.
    ToolCall,
    /// A tool has run; its result is not in the text.
    ToolResult,
    /// Text of the model.
    Answer,
    /// A turn failed. Sent by the link itself.
    Error,
}

impl Stage {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Thinking => "thinking",
            Self::ToolCall => "tool_call",
            Self::ToolResult => "tool_result",
            Self::Answer => "answer",
            Self::Error => "error",
        }
    }
}

/// Why a run ended without a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunError {
    /// Its [`Cancel`] was used. Says nothing to the hub: the link knows why it cancelled.
    Cancelled,
    /// It failed; the text is for the user and holds no secret.
    Failed(String),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for RunError {}

/// How a chat begins.
#[derive(Clone, Debug, Default)]
pub struct ChatSessionOpts {
    /// Accepted and ignored: there is no shell.
    pub allow_shell: bool,
    /// What was said before, oldest first. Empty over the link.
    pub history: Vec<llm::Message>,
}

/// Makes remote chats.
pub trait ChatRunner: Send + Sync {
    /// Sets a chat up: takes the snapshot of the host that its first answer needs. Blocks; ends early when cancelled.
    fn new_session(
        &self,
        opts: ChatSessionOpts,
        callback: &mut StreamCallback<'_>,
        cancel: &Cancel,
    ) -> Result<Box<dyn ChatHandle>, RunError>;
}

/// One open chat. Used by one thread.
pub trait ChatHandle: Send {
    /// One turn: the reply, without having sent it through the callback. A failed turn leaves no trace in the history.
    fn handle_message(
        &mut self,
        input: &str,
        callback: &mut StreamCallback<'_>,
        cancel: &Cancel,
    ) -> Result<String, RunError>;
}

/// Runs `inspect` and `diagnose`.
pub trait DiagnoseRunner: Send + Sync {
    /// One run: the report, which the last [`Stage::Answer`] already held. `mode` is `inspect` or `diagnose`; `params`
    /// are those of the `session_start`, `plugin` and `target` among them. Blocks; ends early when cancelled.
    fn run_streaming(
        &self,
        mode: &str,
        plugin: &str,
        target: &str,
        params: &Map<String, Value>,
        callback: &mut StreamCallback<'_>,
        cancel: &Cancel,
    ) -> Result<String, RunError>;
}

/// Counts everything that uses a model: remote runs, turns of chats, and local diagnoses that share it.
pub trait ConcurrencyLimiter: Send + Sync {
    /// Takes a place if one is free. Never waits.
    fn try_sem(&self) -> bool;

    /// Gives a place back that [`ConcurrencyLimiter::try_sem`] took.
    fn release_sem(&self);
}

/// The default limiter: a number of places.
#[derive(Debug)]
pub struct CountedLimiter {
    free: AtomicUsize,
}

impl CountedLimiter {
    /// So many places.
    pub fn new(places: usize) -> Self {
        Self { free: AtomicUsize::new(places) }
    }
}

impl ConcurrencyLimiter for CountedLimiter {
    fn try_sem(&self) -> bool {
        self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1)).is_ok()
    }

    fn release_sem(&self) {
        self.free.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted() {
        let limiter = CountedLimiter::new(2);
        assert!(limiter.try_sem() && limiter.try_sem() && !limiter.try_sem());
        limiter.release_sem();
        assert!(limiter.try_sem() && !limiter.try_sem());
    }
}
