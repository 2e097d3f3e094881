//! Model providers behind one small trait; a file per provider. Parsers do no I/O.
//!
//! This room knows nothing of conversations, stores or sockets to clients. Calls block their thread and end by
//! their own time-outs or by [`Cancel`].

mod anthropic;
mod anthropic_request;
#[cfg(test)]
mod anthropic_tests;
mod anthropic_wire;
mod catalog;
mod endpoint;
mod error;
mod factory;
mod gateway;
pub mod local;
mod ollama;
#[cfg(test)]
mod ollama_tests;
mod openai;
mod openai_chunk;
#[cfg(test)]
mod openai_tests;
mod openai_wire;
mod reading;
mod router;
#[cfg(test)]
mod router_tests;
mod wire_error;

pub use anthropic::AnthropicProvider;
pub use catalog::{Catalog, Listing};
pub use factory::{Providers, build_one};
pub use gateway::{Gateway, GatewayScene, GatewaySettings, TokenSource};
pub use ollama::OllamaProvider;
pub use openai::OpenAiProvider;
pub use router::{Answered, Router};

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::Value;

pub use crate::net::Phase;
use crate::rt::{Cancel, clock};

/// Who said a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
    /// The result of a tool call.
    Tool,
}

/// A tool call that a model asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// The provider's id, or one made here: pairs the call with its result.
    pub id: String,
    pub name: String,
    /// Raw JSON text as the model wrote it; empty means no arguments.
    pub arguments: String,
}

/// One message of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub role: Role,
    pub content: String,
    /// Only on [`Role::Assistant`].
    pub tool_calls: Vec<ToolCall>,
    /// Only on [`Role::Tool`]: which call this answers.
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A plain text message.
    pub fn text(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), tool_calls: Vec::new(), tool_call_id: None }
    }
}

/// What a model is told about a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolSpec {
    pub name: String,
    pub description: String,
    /// JSON schema of the arguments (an object schema).
    pub parameters: Value,
}

/// One call of a model.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub model: &'a str,
    pub messages: &'a [Message],
    pub tools: &'a [ToolSpec],
    /// Whether deltas are wanted while the answer is made.
    pub stream: bool,
}

/// Tokens of one call. Zero where the provider does not say; a [`Meter`] puts its estimates there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Prompt tokens that were not cached.
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cached_tokens: u64,
    /// The provider's own price of this call in USD, where it names one.
    pub cost_usd: Option<f64>,
}

/// A finished call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// The whole text, equal to the text deltas put together.
    pub text: String,
    pub tool_calls: Vec<ToolCall>,
    pub usage: Usage,
    /// The model that answered, as the provider names it; may be empty.
    pub model: String,
}

/// Takes the pieces of an answer while it is made.
pub trait Sink {
    /// A piece of the answer.
    fn text(&mut self, piece: &str);
    /// A piece of the model's reasoning.
    fn thinking(&mut self, piece: &str);
    /// The pieces since the call began are void: it is made again.
    fn rollback(&mut self) {}
    /// So many bytes of the answer came that are not shown: names and arguments of tool calls. They are paid for too.
    fn hidden(&mut self, _n_bytes: usize) {}
    /// The tokens counted so far; what is paid for when the answer is cut off.
    fn usage(&mut self, _usage: &Usage) {}
}

/// Why a call failed. Holds facts; `Display` is for the log, [`LlmError::public`] for the user.
#[derive(Clone, Debug, PartialEq)]
pub enum LlmError {
    /// [`Cancel`] was used.
    Cancelled,
    /// No connection: refused, no route, unknown name, TLS failure.
    Connect {
        cause: String,
    },
    Timeout {
        phase: Phase,
        after: Duration,
    },
    /// The provider answered with an error status, or with an error inside its stream.
    Status {
        status: u16,
        message: String,
        retry_after: Option<Duration>,
    },
    /// The connection ended in the middle of an answer.
    Cut {
        cause: String,
    },
    /// The answer is not what the protocol promises.
    Decode {
        cause: String,
    },
    /// The answer is larger than we keep.
    TooLarge {
        bytes_max: usize,
    },
    /// The provider lacks something it needs, such as a key or a model name.
    Config {
        cause: String,
    },
    /// A budget refused the call before it was made. The text is for the user and says what to do.
    Budget {
        message: String,
    },
}

/// A call that is about to be made, for whoever counts the money.
#[derive(Clone, Copy, Debug)]
pub struct MeteredCall<'a> {
    pub provider: &'a str,
    /// The provider runs on hardware of the user's: nobody sends a bill.
    pub is_free: bool,
    pub model: &'a str,
    pub request: &'a Request<'a>,
}

/// Counts the money of one turn. Every single call of a model, a fallback's and a retry's too, is reserved before it
/// is made and settled after it.
pub trait Meter: Sync {
    /// Sets the call's likely cost aside; [`LlmError::Budget`] when a limit does not allow it. Blocks on the disk.
    fn reserve(&self, call: &MeteredCall<'_>) -> Result<i64, LlmError>;

    /// Replaces the reservation by what was used; None when the call failed before the provider took it on. Blocks on
    /// the disk.
    fn settle(&self, reservation: i64, used: Option<&Completion>);
}

/// Counts nothing: for calls that nobody pays for.
pub struct NoMeter;

impl Meter for NoMeter {
    fn reserve(&self, _call: &MeteredCall<'_>) -> Result<i64, LlmError> {
        Ok(0)
    }

    fn settle(&self, _reservation: i64, _used: Option<&Completion>) {}
}

/// A model as its provider describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelDetail {
    pub id: String,
    pub name: String,
    /// USD per million tokens; None where it is not known or varies.
    pub input_per_mtok: Option<f64>,
    pub output_per_mtok: Option<f64>,
    pub supports_tools: bool,
}

/// A provider of models.
pub trait Provider: Send + Sync {
    /// `local`, `openai`, ...: as configured.
    fn name(&self) -> &str;

    /// Whether its calls cost nothing: it runs on hardware of the user's.
    fn is_free(&self) -> bool {
        false
    }

    /// Makes one call; blocks until it is answered, failed, timed out or cancelled.
    fn complete(&self, request: Request<'_>, sink: &mut dyn Sink, cancel: &Cancel) -> Result<Completion, LlmError>;

    /// The names of its models; blocks like [`Provider::complete`].
    fn models(&self, cancel: &Cancel) -> Result<Vec<String>, LlmError>;

    /// What the account still has in USD; None where it is unlimited or not known. Blocks like
    /// [`Provider::complete`].
    fn balance(&self, _cancel: &Cancel) -> Result<Option<f64>, LlmError> {
        Ok(None)
    }

    /// What the provider tells about its models; None when it tells no more than their names. Blocks like
    /// [`Provider::complete`].
    fn model_details(&self, _cancel: &Cancel) -> Result<Option<Vec<ModelDetail>>, LlmError> {
        Ok(None)
    }
}

/// Stands at the end of an answer that reached the longest length.
fn cut_note(max_tokens: Option<u32>) -> String {
    let limit = max_tokens.map_or_else(String::new, |max| format!(" of {max} tokens"));
    format!(
        "\n\n[The answer ends here: it reached the limit{limit} for one answer. Ask to go on, or raise max_tokens of the \
         provider.]"
    )
}

/// Whether a text ends with the note that it was cut off.
pub fn is_cut(text: &str) -> bool {
    let note = text.rfind("\n\n[The answer ends here: it reached the limit");
    note.is_some_and(|at| text.len() - at <= cut_note(Some(u32::MAX)).len() && text.ends_with("provider.]"))
}

/// `call_<n>`, never the same twice, also not after a restart: `n` begins at the clock's milliseconds.
fn made_up_id() -> String {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let now = clock::unix_ms();
    let next = |last: i64| last.saturating_add(1).max(now);
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))).unwrap_or_else(|l| l);
    format!("call_{}", next(last))
}
