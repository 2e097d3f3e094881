//! `[llm]` and fallback rules as they were typed.

use super::json::typed;

#[derive(Default)]
pub(super) struct Llm {
    pub(super) default_provider: String,
    pub(super) default_model: String,
    pub(super) cost_limit_soft: f64,
    pub(super) cost_limit_hard: f64,
    pub(super) max_cost_per_session: f64,
    pub(super) openrouter: RawProvider,
    pub(super) anthropic: RawProvider,
    pub(super) openai: RawProvider,
    pub(super) ollama: RawProvider,
    pub(super) providers: Vec<RawProvider>,
    pub(super) fallback: Vec<Fallback>,
    pub(super) connect_timeout: Option<String>,
    pub(super) first_byte_timeout: Option<String>,
    pub(super) idle_timeout: Option<String>,
    pub(super) total_timeout: Option<String>,
    pub(super) context_messages_max: Option<i64>,
    pub(super) max_tool_rounds: Option<i64>,
}

typed!(Llm {
    default_provider,
    default_model,
    cost_limit_soft,
    cost_limit_hard,
    max_cost_per_session,
    openrouter,
    anthropic,
    openai,
    ollama,
    providers,
    fallback,
    connect_timeout,
    first_byte_timeout,
    idle_timeout,
    total_timeout,
    context_messages_max,
    max_tool_rounds
});

#[derive(Default)]
pub(super) struct RawProvider {
    /// Only in `[[llm.providers]]`.
    pub(super) name: String,
    /// Only in `[[llm.providers]]`.
    pub(super) kind: String,
    pub(super) api_key: String,
    pub(super) base_url: String,
    pub(super) organization: String,
    pub(super) free: Option<bool>,
    pub(super) max_tokens: Option<i64>,
    pub(super) num_ctx: Option<i64>,
}

typed!(RawProvider { name, kind: "type", api_key, base_url, organization, free, max_tokens, num_ctx });

#[derive(Default)]
pub(super) struct Fallback {
    pub(super) trigger: String,
    pub(super) action: String,
    pub(super) provider: String,
    pub(super) model: String,
    pub(super) threshold: f64,
    pub(super) max_retries: i64,
    pub(super) backoff: String,
}

typed!(Fallback { trigger, action, provider, model, threshold, max_retries, backoff });
