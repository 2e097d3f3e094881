//! What providers of the OpenAI family send: a chunk of a stream, or a whole body (contract engine 9.2). Values are kept
//! as they came where servers differ in their type.

use serde_json::Value;

use crate::rt::fields::typed;

/// A chunk of a stream, or a whole body: they differ only in `delta` and `message`.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) choices: Option<Vec<Choice>>,
    pub(super) model: Option<Value>,
    pub(super) usage: Option<WireUsage>,
    pub(super) error: Option<Value>,
}

typed!(Chunk { choices, model, usage, error });

#[derive(Default)]
pub(super) struct Choice {
    pub(super) delta: Option<Delta>,
    pub(super) message: Option<Delta>,
    pub(super) finish_reason: Option<Value>,
}

typed!(Choice { delta, message, finish_reason });

#[derive(Default)]
pub(super) struct Delta {
    pub(super) content: Option<Value>,
    pub(super) refusal: Option<Value>,
    pub(super) reasoning_content: Option<Value>,
    /// The same under the name that OpenRouter, Ollama and newer servers use.
    pub(super) reasoning: Option<Value>,
    pub(super) tool_calls: Option<Vec<CallDelta>>,
}

typed!(Delta { content, refusal, reasoning_content, reasoning, tool_calls });

#[derive(Default)]
pub(super) struct CallDelta {
    pub(super) index: Option<Value>,
    pub(super) id: Option<Value>,
    pub(super) function: Option<CalledDelta>,
}

typed!(CallDelta { index, id, function });

#[derive(Default)]
pub(super) struct CalledDelta {
    pub(super) name: Option<Value>,
    /// A string by the book; some servers send the object itself.
    pub(super) arguments: Option<Value>,
}

typed!(CalledDelta { name, arguments });

#[derive(Default)]
pub(super) struct WireUsage {
    pub(super) prompt_tokens: Option<Value>,
    pub(super) completion_tokens: Option<Value>,
    pub(super) prompt_tokens_details: Option<WireDetails>,
    pub(super) cost: Option<Value>,
}

typed!(WireUsage { prompt_tokens, completion_tokens, prompt_tokens_details, cost });

#[derive(Default)]
pub(super) struct WireDetails {
    pub(super) cached_tokens: Option<Value>,
}

typed!(WireDetails { cached_tokens });
