//! What was spent (contract 4.5; W-36). The contract's keys, and behind them those that Holt adds.

use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

use crate::api::agents_change::told;
use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::login::ok;
use crate::api::message::{Reply, json_response};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::api::server_settings::names;
use crate::api::settings::{self, SettingsError};
use crate::config::{Config, ConfigError, edit};
use crate::costs::{Budgets, CostReport, LimitState};
use crate::limits;
use crate::rt::json::quoted;
use crate::rt::order::gather;
use crate::rt::{json as wire, lock};
use crate::store::costs::Group;

const LIMITS: [&str; 6] = [
    "daily_limit_soft",
    "daily_limit_hard",
    "monthly_limit_soft",
    "monthly_limit_hard",
    "total_limit_soft",
    "total_limit_hard",
];
/// What schedules spend under.
const SCHEDULER: &str = "scheduler";
const PRICES: [&str; 3] = ["input", "output", "cached_input"];

/// Rendered answers, the oldest first. Guarded by this mutex; nothing is taken under it. Bounded by
/// [`limits::COST_REPORTS_CACHED`].
#[derive(Default)]
pub(super) struct CostReports(Mutex<Vec<CachedReport>>);

struct CachedReport {
    /// What was asked for: agent and days.
    asked: (Option<String>, u32),
    /// Of the stored calls, and the day: at midnight today is another one.
    version: (u64, String),
    body: Arc<[u8]>,
}

fn tracker(ctx: &Ctx) -> Result<&Arc<Budgets>, ApiError> {
    let missing = || ApiError::new(503, "not_configured", "cost tracking not configured");
    ctx.deps.cost_tracker.as_ref().ok_or_else(missing)
}

/// All figures, or those of one agent. Rendered once per state of what is stored.
pub(super) fn costs(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let budgets = tracker(ctx)?;
    let agent = call.req.query_param("agent").filter(|agent| !agent.is_empty());
    let asked = (agent, days(call)?);
    let version = (budgets.version(), budgets.today());
    let cached = {
        let reports = lock(&ctx.cost_reports.0);
        let found = reports.iter().find(|report| report.asked == asked && report.version == version);
        found.map(|report| Arc::clone(&report.body))
    };
    if let Some(body) = cached {
        return Ok(Reply::Full(json_response(200, body.to_vec())));
    }
    let report = budgets.report(asked.0.as_deref(), asked.1)?;
    let mut shape = shape(&report, asked.0.is_some());
    shape["prices"] = own_prices(budgets);
    let mut body = wire::to_vec(&shape);
    body.push(b'\n');
    let mut reports = lock(&ctx.cost_reports.0);
    reports.retain(|report| report.asked != asked);
    if reports.len() >= limits::COST_REPORTS_CACHED {
        reports.remove(0);
    }
    reports.push(CachedReport { asked, version, body: body.as_slice().into() });
    Ok(Reply::Full(json_response(200, body)))
}

/// Says what may be spent: together, by an agent or with a key. What is not given stays; null and 0 are no limit.
pub(super) fn set_limits(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    tracker(ctx)?;
    let fields = Fields::of(&call.req.body)?;
    let (scope, name) = (fields.text("scope")?.unwrap_or("all"), fields.text("name")?.unwrap_or_default());
    let config = ctx.deps.settings.current();
    // Reports name identities; the file leaves their kind out.
    let short = name.strip_prefix("key:").filter(|_| !config.costs.keys.contains_key(name)).unwrap_or(name);
    let table = match scope {
        "all" if name.is_empty() => vec!["costs"],
        "all" => return Err(ApiError::bad_request("name: works with scope agent and key only")),
        "agent" | "key" if short.is_empty() => {
            return Err(ApiError::bad_request(format!("name is required: the {scope} that the limit is for")));
        }
        "agent" if !config.agents.iter().any(|agent| agent.name == name) => {
            return Err(ApiError::bad_request(format!("name: there is no agent {}", quoted(name))));
        }
        "agent" => vec!["costs", "agents", name],
        "key" if !is_spender(ctx, &config, short)? => {
            return Err(ApiError::bad_request(format!("name: there is no key {}", quoted(short))));
        }
        "key" => vec!["costs", "keys", short],
        _ => return Err(ApiError::bad_request("scope must be all, agent or key")),
    };
    let mut wishes = wishes(&fields, &LIMITS)?;
    for (_, value) in wishes.iter_mut().filter(|(_, value)| value.as_f64() == Some(0.0)) {
        *value = Value::Null;
    }
    let changed = ctx.deps.settings.change(&mut |doc| set_all(doc, &table, &wishes))?;
    note(ctx, call, "costs.limits", &format!("{scope} {name}"), &names(&wishes));
    Ok(ok(&told(json!({"status": "updated"}), &changed)))
}

/// Whether a name is that of a key, or of a login; what has a limit already may lose it.
fn is_spender(ctx: &Ctx, config: &Config, name: &str) -> Result<bool, ApiError> {
    let is_known = config.costs.keys.contains_key(name)
        || name == SCHEDULER
        || name.strip_prefix("user:").is_some_and(|user| !user.is_empty())
        || config.auth.keys.iter().any(|key| key.name == name);
    Ok(is_known || ctx.key_store()?.list()?.iter().any(|key| key.name == name))
}

/// Says what a model costs, in dollars per million tokens. What is not given stays; null for input and output: nothing
/// of our own is known.
pub(super) fn set_price(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    tracker(ctx)?;
    let fields = Fields::of(&call.req.body)?;
    let model = fields.text("model")?.unwrap_or_default();
    if model.is_empty() {
        return Err(ApiError::bad_request("model is required: its name, or how the names of several begin"));
    }
    let wishes = wishes(&fields, &PRICES)?;
    let table = ["costs", "model_prices", model];
    let changed = settings::change(&*ctx.deps.settings, &mut |doc| {
        set_all(doc, &table, &wishes).map_err(SettingsError::from)?;
        let is_set = |key| edit::value_at(doc, &[&table[..], &[key]].concat()).is_some();
        match (is_set("input"), is_set("output")) {
            (true, true) => Ok(()),
            // A model whose price is not known is another thing than one that costs nothing.
            (false, false) if wishes.iter().all(|(_, value)| value.is_null()) => {
                Ok(edit::set_at(doc, &table, &Value::Null).map_err(SettingsError::from)?)
            }
            _ => Err(ApiError::bad_request("give input and output: with one of them the other would cost nothing")),
        }
    })?;
    note(ctx, call, "costs.price", model, &names(&wishes));
    Ok(ok(&told(json!({"status": "updated"}), &changed)))
}

/// Those of the keys that are given, null included; one at least.
fn wishes<'a>(fields: &Fields, keys: &[&'a str]) -> Result<Vec<(&'a str, Value)>, ApiError> {
    let mut wishes = Vec::new();
    for key in keys.iter().filter(|key| fields.get(key).is_some()) {
        wishes.push((*key, fields.number(key)?.map_or(Value::Null, |number| json!(number))));
    }
    if wishes.is_empty() {
        return Err(ApiError::bad_request(format!("give at least one of {}", keys.join(", "))));
    }
    Ok(wishes)
}

fn set_all(doc: &mut edit::Document, table: &[&str], wishes: &[(&str, Value)]) -> Result<(), ConfigError> {
    wishes.iter().try_for_each(|(key, value)| edit::set_at(doc, &[table, &[*key]].concat(), value))
}

fn days(call: &Call<'_>) -> Result<u32, ApiError> {
    let Some(text) = call.req.query_param("days").filter(|text| !text.is_empty()) else { return Ok(limits::COST_DAYS) };
    let days = text.parse().ok().filter(|days| (1..=limits::COST_DAYS_MAX).contains(days));
    days.ok_or_else(|| ApiError::bad_request(format!("days must be a number from 1 to {}", limits::COST_DAYS_MAX)))
}

/// An amount without the noise of adding up binary fractions: whole billionths, as they are accounted.
fn usd(amount: f64) -> Value {
    json!((amount * 1e9).round() / 1e9)
}

fn shape(report: &CostReport, of_one_agent: bool) -> Value {
    let hard = report.conversation.hard;
    let costs: Map<String, Value> = gather(report.session_costs.iter().map(|(name, cost)| (name.clone(), usd(*cost))));
    let stats: Map<String, Value> = gather(report.sessions.iter().map(|group| (group.name.clone(), session(group))));
    let by_agent: Vec<Value> = report.by_agent.iter().map(agent).collect();
    let by_agent = if of_one_agent && by_agent.is_empty() { Value::Null } else { json!(by_agent) };
    let today = report.by_day.last().map(day);
    json!({
        "global_cost": usd(report.global_usd),
        "max_per_session": hard,
        "cost_limits": {"soft": report.conversation.soft, "hard": hard},
        "session_count": stats.len(),
        "session_costs": costs,
        "session_stats": stats,
        "by_agent": by_agent,
        "pricing_config": {
            "fallback_rate_per_1k_tokens": report.fallback_rate,
            "custom_model_count": report.n_own_prices,
        },
        "by_key": report.by_identity.iter().map(|group| named("identity", group)).collect::<Vec<_>>(),
        "by_model": report.by_model.iter().map(model).collect::<Vec<_>>(),
        "by_day": report.by_day.iter().map(day).collect::<Vec<_>>(),
        "today": today,
        "limits": report.limits.iter().map(limit).collect::<Vec<_>>(),
    })
}

/// The operator's own, in dollars per million tokens; tokens from the cache cost as others if nothing is said of them.
fn own_prices(budgets: &Budgets) -> Value {
    let table = budgets.prices();
    let prices = table.own().iter().map(|(model, own)| {
        let cached = Some(own.cached_input).filter(|cached| *cached > 0.0);
        (model.clone(), json!({"input": own.input, "output": own.output, "cached_input": cached}))
    });
    let prices: Map<String, Value> = gather(prices);
    prices.into()
}

/// The figures that every group has; `messages` counts calls of models, as in the reference.
fn session(group: &Group) -> Value {
    let mut shape = json!({
        "cost": usd(group.cost_usd), "input_tokens": group.input_tokens, "output_tokens": group.output_tokens,
        "messages": group.calls,
    });
    priced(&mut shape, group);
    shape
}

/// Where the prices of its calls come from.
fn priced(shape: &mut Value, group: &Group) {
    if !group.pricing.is_empty() {
        let sources: Map<String, Value> =
            gather(group.pricing.iter().map(|(name, calls)| (name.clone(), json!(calls))));
        shape["pricing_sources"] = sources.into();
    }
}

fn named(name: &str, group: &Group) -> Value {
    let mut shape = json!({
        "cost": usd(group.cost_usd), "input_tokens": group.input_tokens, "output_tokens": group.output_tokens,
        "messages": group.calls, "sessions": group.conversations,
    });
    shape[name] = json!(group.name);
    shape
}

fn agent(group: &Group) -> Value {
    named("agent", group)
}

fn model(group: &Group) -> Value {
    let mut shape = named("model", group);
    shape["provider"] = json!(group.second);
    shape["cached_tokens"] = json!(group.cached_tokens);
    priced(&mut shape, group);
    shape
}

fn day(group: &Group) -> Value {
    json!({
        "day": group.name, "cost": usd(group.cost_usd), "input_tokens": group.input_tokens,
        "output_tokens": group.output_tokens, "calls": group.calls,
    })
}

fn limit(state: &LimitState) -> Value {
    json!({
        "scope": state.scope, "name": state.name, "period": state.period, "soft": state.soft_usd,
        "hard": state.hard_usd, "spent": usd(state.spent_usd),
    })
}
