//! The meter of one turn: every call of a model goes through it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use crate::costs::budget::Budgets;
use crate::costs::money::{Nanos, nanos, shown};
use crate::costs::prices::{Price, PriceSource};
use crate::costs::rules::Bound;
use crate::limits;
use crate::llm::{Completion, LlmError, Meter, MeteredCall, Request, Usage};
use crate::metrics;
use crate::rt::json::quoted;
use crate::rt::lock;
use crate::store::costs::{CallFigures, CallRow};

/// Whose calls are metered.
#[derive(Clone, Debug)]
pub struct Spender {
    pub turn_id: i64,
    pub conversation_id: String,
    pub agent: String,
    /// `key:<name>` or `user:<e-mail>`: who began the turn.
    pub identity: String,
}

/// What a turn has used so far, over all its calls, also those before a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    pub tokens: u64,
    pub cost_usd: f64,
}

/// A share of a hard limit was passed. Told once for each limit and period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// 50, 80 or 100.
    pub percent: u8,
    /// `conversation`, `agent`, `key` or `all`.
    pub scope: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// Meters the calls of one turn. When it is dropped with open calls, these count at their estimate.
pub struct TurnMeter {
    // Set at construction.
    budgets: Arc<Budgets>,
    spender: Spender,
    /// Guarded by this mutex: what happens in this turn. Nothing is taken under it.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<i64, Open>,
    totals: Totals,
    notices: Vec<Notice>,
}

/// A call that is being made.
struct Open {
    provider: String,
    model: String,
    day: String,
    bounds: Vec<Bound>,
    price: Option<Price>,
    is_free: bool,
    estimate: Nanos,
    figures: CallFigures,
}

impl TurnMeter {
    pub(super) fn new(budgets: Arc<Budgets>, spender: Spender, totals: Totals) -> Self {
        Self { budgets, spender, state: Mutex::new(State { totals, ..State::default() }) }
    }

    /// What the turn has used so far.
    pub fn totals(&self) -> Totals {
        lock(&self.state).totals
    }

    /// Whether more than a soft limit is spent: of the conversation, or of another that concerns the turn.
    pub fn soft_reached(&self) -> bool {
        let bounds = self.budgets.bounds(&self.spender, &self.budgets.today());
        self.budgets.is_soft_reached(&bounds)
    }

    /// The notices since the last call, oldest first.
    pub fn take_notices(&self) -> Vec<Notice> {
        std::mem::take(&mut lock(&self.state).notices)
    }

    fn row<'a>(&'a self, open: &'a Open) -> CallRow<'a> {
        CallRow {
            day: &open.day,
            turn_id: self.spender.turn_id,
            conversation_id: &self.spender.conversation_id,
            agent: &self.spender.agent,
            identity: &self.spender.identity,
            provider: &open.provider,
            model: &open.model,
            figures: open.figures,
        }
    }

    fn opened(&self, id: i64, open: Open) -> i64 {
        lock(&self.state).open.insert(id, open);
        id
    }

    /// Books the figures of a call that was made.
    fn book(&self, id: i64, open: &Open, figures: CallFigures) {
        measure(open, &figures);
        let tokens = figures.input_tokens + figures.output_tokens + figures.cached_tokens;
        let news = if open.is_free {
            if tokens == 0 {
                return; // the built-in provider: no tokens, no money, no wear of the disk
            }
            let row = CallRow { figures, ..self.row(open) };
            self.budgets.settle(&[], 0, 0, |store| store.add(&row))
        } else {
            let cost = nanos(figures.cost_usd);
            self.budgets.settle(&open.bounds, open.estimate, cost, |store| store.settle(id, &figures))
        };
        let notices: Vec<Notice> = news
            .into_iter()
            .map(|(at, percent, spent)| {
                let bound = &open.bounds[at];
                let message = format!("{percent} % of {} is spent: {} so far.", bound.label(), shown(spent));
                log::warn!("costs: {message} (conversation {})", self.spender.conversation_id);
                Notice { percent, scope: bound.account.scope.name(), message }
            })
            .collect();
        let mut state = lock(&self.state);
        state.totals.tokens += tokens;
        state.totals.cost_usd += figures.cost_usd;
        state.notices.extend(notices);
    }
}

impl Meter for TurnMeter {
    fn reserve(&self, call: &MeteredCall<'_>) -> Result<i64, LlmError> {
        let day = self.budgets.today();
        let bounds = self.budgets.bounds(&self.spender, &day);
        let price = if call.is_free { None } else { self.budgets.prices().price(call.model) };
        if price.is_none() && !call.is_free {
            if bounds.iter().any(|bound| bound.hard > 0) {
                return Err(LlmError::Budget { message: unknown_price(call) });
            }
            log::warn!("costs: the price of model {} is not known; its calls count as 0", quoted(call.model));
        }
        let usage = Usage {
            input_tokens: tokens_of(prompt_bytes(call.request)),
            output_tokens: limits::COST_OUTPUT_TOKENS_ESTIMATED,
            ..Usage::default()
        };
        let figures = figures(&usage, price.as_ref(), call.is_free);
        let estimate = nanos(figures.cost_usd);
        let open = Open {
            provider: call.provider.to_owned(),
            model: call.model.to_owned(),
            day,
            bounds,
            price,
            is_free: call.is_free,
            estimate,
            figures,
        };
        if call.is_free {
            return Ok(self.opened(self.budgets.free_id(), open));
        }
        let id = self.budgets.reserve(&open.bounds, &self.row(&open), estimate)?;
        Ok(self.opened(id, open))
    }

    fn settle(&self, reservation: i64, used: Option<&Completion>) {
        let Some(open) = lock(&self.state).open.remove(&reservation) else {
            log::debug!("costs: call {reservation} is settled already");
            return;
        };
        match used {
            Some(completion) => {
                let usage = usage_of(completion, open.figures.input_tokens, open.is_free);
                self.book(reservation, &open, figures(&usage, open.price.as_ref(), open.is_free));
            }
            None if open.is_free => {}
            None => {
                self.budgets.settle(&open.bounds, open.estimate, 0, |store| store.remove(reservation));
            }
        }
    }
}

impl Drop for TurnMeter {
    fn drop(&mut self) {
        let open = std::mem::take(&mut lock(&self.state).open);
        for (id, open) in open.into_iter().filter(|(_, open)| !open.is_free) {
            self.book(id, &open, open.figures);
        }
    }
}

/// What a call used. What a provider does not say is estimated by the lengths of prompt and answer: nothing is free
/// because nobody counted, neither a whole answer nor one that was cut off.
fn usage_of(completion: &Completion, prompt_tokens: u64, is_free: bool) -> Usage {
    let mut usage = completion.usage;
    let is_silent = usage.input_tokens + usage.output_tokens + usage.cached_tokens == 0;
    if usage.cost_usd.is_some_and(|cost| cost > 0.0) || (is_free && is_silent) {
        return usage;
    }
    if usage.input_tokens + usage.cached_tokens == 0 {
        usage.input_tokens = prompt_tokens;
    }
    if is_silent {
        let calls = completion.tool_calls.iter().map(|call| call.name.len() + call.arguments.len()).sum::<usize>();
        usage.output_tokens = tokens_of(completion.text.len() + calls);
    }
    usage
}

/// Contract engine 4: the provider's own price first, then the table's, then the fallback rate.
fn figures(usage: &Usage, price: Option<&Price>, is_free: bool) -> CallFigures {
    let named = usage.cost_usd.filter(|cost| cost.is_finite() && *cost > 0.0);
    let (cost_usd, source) = match (named, price) {
        _ if is_free => (0.0, PriceSource::Free),
        (Some(cost), _) => (cost, PriceSource::Provider),
        (None, Some(price)) => (price.cost(usage), price.source),
        (None, None) => (0.0, PriceSource::Unknown),
    };
    CallFigures {
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        cached_tokens: usage.cached_tokens,
        cost_usd,
        pricing: source.name(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "token counts beyond 2^53 do not come")]
fn measure(open: &Open, figures: &CallFigures) {
    let (provider, model) = (open.provider.as_str(), open.model.as_str());
    for (direction, count) in [
        ("prompt", figures.input_tokens),
        ("completion", figures.output_tokens),
        ("cached_prompt", figures.cached_tokens),
    ] {
        if count > 0 {
            metrics::LLM_TOKENS.add(&[provider, model, direction], count as f64);
        }
    }
    if figures.cost_usd > 0.0 {
        metrics::LLM_COST.add(&[provider, model, figures.pricing], figures.cost_usd);
    }
}

fn unknown_price(call: &MeteredCall<'_>) -> String {
    let model = quoted(call.model);
    format!(
        "The call was not made: the price of model {model} is not known, and there is a spending limit. Add input and \
         output (USD per million tokens) under [costs.model_prices.{model}], or set default_rate_per_1k_tokens in \
         [costs]. If {} costs nothing, set free = true in its provider's section.",
        quoted(call.provider)
    )
}

/// About 3.5 bytes of text are a token.
fn tokens_of(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(2).div_ceil(7)
}

fn prompt_bytes(request: &Request<'_>) -> usize {
    let of_message = |message: &crate::llm::Message| {
        let calls = message.tool_calls.iter().map(|call| call.name.len() + call.arguments.len()).sum::<usize>();
        message.content.len() + calls
    };
    let of_tool = |tool: &crate::llm::ToolSpec| {
        let mut schema = Count(0);
        // A count takes every write, and schemas are plain JSON.
        let _ = serde_json::to_writer(&mut schema, &tool.parameters);
        tool.name.len() + tool.description.len() + schema.0
    };
    request.messages.iter().map(of_message).sum::<usize>() + request.tools.iter().map(of_tool).sum::<usize>()
}

/// Counts what is written.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
