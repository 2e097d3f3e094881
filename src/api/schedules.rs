//! Schedules (contract http-api 5.2; W-26, W-27, W-30, W-35), and what became of their moments.

use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::login::{decode, json_line, ok};
use crate::api::message::{Reply, no_content};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::config::{Config, ConfigError, Document, Expression, ScheduleConfig, zone};
use crate::rt::clock;
use crate::rt::json::quoted;
use crate::sched::{Refusal, RunNowError, ScheduleInfo, Scheduler, Wish, preview as moments};
use crate::store::schedule_runs::RunRow;

/// Rows of a history, unless more are asked for.
const RUNS_SHOWN: usize = 50;
/// Moments of a preview, and what may be asked for.
const PREVIEW: usize = 5;
const PREVIEW_MAX: u64 = 100;

/// All schedules, by name.
pub(super) fn list(ctx: &Ctx, _call: &Call<'_>) -> Result<Reply, ApiError> {
    let scheduler = ctx.scheduler()?;
    let (zone, newest) = (scheduler.zone(), scheduler.newest()?);
    let shapes: Vec<Value> = scheduler
        .list()
        .iter()
        .map(|info| {
            let mut shape = shape(info, &zone);
            if let Some(row) = newest.iter().find(|row| row.schedule == info.config.name) {
                shape["last_state"] = json!(row.state);
                set(&mut shape, "last_reason", &row.reason);
                set(&mut shape, "last_conversation_id", &row.conversation_id);
            }
            shape
        })
        .collect();
    Ok(ok(&Value::from(shapes)))
}

/// A new schedule; it counts at once.
pub(super) fn create(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    ctx.scheduler()?;
    let wish = wish(call)?;
    change(ctx, |config, doc| wish.add_to(config, doc))?;
    let name = wish.name.as_deref().unwrap_or_default().trim();
    note(ctx, call, "schedule.create", name, wish.schedule.as_deref().unwrap_or_default());
    Ok(Reply::Full(json_line(201, &json!({"name": name, "schedule": trimmed(&wish), "status": "created"}))))
}

/// Changes what is given; the rest, its agent and its past stay (W-26).
pub(super) fn update(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let name = call.params.get("name");
    let known = find(ctx, name)?;
    let wish = wish(call)?;
    change(ctx, |config, doc| wish.change_in(config, &known, doc))?;
    note(ctx, call, "schedule.update", name, "");
    let schedule = if wish.schedule.is_some() { trimmed(&wish) } else { known.schedule.clone() };
    Ok(ok(&json!({"name": name, "schedule": schedule, "status": "updated"})))
}

/// Removes a schedule with its history; a run that goes on goes on.
pub(super) fn delete(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let name = call.params.get("name");
    find(ctx, name)?;
    change(ctx, |_, doc| Wish::remove_from(name, doc))?;
    note(ctx, call, "schedule.delete", name, "");
    Ok(Reply::Full(no_content()))
}

/// What became of its moments, newest first.
pub(super) fn runs(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let name = call.params.get("name");
    find(ctx, name)?;
    let limit = match call.req.query_param("limit") {
        None => RUNS_SHOWN,
        Some(text) => {
            let wrong = || ApiError::bad_request("limit must be a whole number from 1 to 500");
            text.parse().ok().filter(|limit| (1..=500).contains(limit)).ok_or_else(wrong)?
        }
    };
    let scheduler = ctx.scheduler()?;
    let zone = scheduler.zone();
    let rows = scheduler.history(name, limit)?;
    Ok(ok(&rows.iter().map(|row| run_shape(row, &zone)).collect::<Value>()))
}

/// Runs it now, whether it is switched on or not.
pub(super) fn run(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let name = call.params.get("name");
    find(ctx, name)?;
    let run = ctx.scheduler()?.run_now(name)?;
    note(ctx, call, "schedule.run", name, "");
    Ok(Reply::Full(json_line(202, &json!({"id": run.id, "conversation_id": run.conversation_id, "status": "started"}))))
}

/// What a run would be: nothing is done, no model is asked.
pub(super) fn dry_run(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let scheduler = ctx.scheduler()?;
    let name = call.params.get("name");
    let config = find(ctx, name)?;
    let agent = ctx.deps.engine.agents().find(&config.agent);
    let tier = agent.as_ref().map(|agent| config.session_tier.of(agent.tier));
    let tools = agent.map(|agent| agent.at_tier(tier).tools().names()).unwrap_or_default();
    let (now, zone) = (clock::unix_ms(), scheduler.zone());
    let plan = scheduler.plan(name, PREVIEW);
    let next: Vec<String> = plan.iter().map(|at| Scheduler::local_time(*at, config.zone_or(&zone))).collect();
    Ok(ok(&json!({
        "name": config.name, "agent": config.agent, "text": crate::sched::text_of(&config),
        "conversation_id": crate::sched::conversation_of(&config, now), "session_mode": config.session_mode(),
        "session_tier": tier.map(crate::config::Tier::name), "skill": config.skill, "channel": config.channel,
        "enabled": config.enabled, "tools": tools, "next": next,
    })))
}

/// When an expression would be due.
pub(super) fn preview(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let scheduler = ctx.scheduler()?;
    let body: Map<String, Value> = decode(&call.req.body, "invalid JSON body")?;
    let text = |name: &str| body.get(name).map(|value| value.as_str().unwrap_or_default());
    let schedule = text("schedule").filter(|schedule| !schedule.is_empty());
    let schedule = schedule.ok_or_else(|| ApiError::bad_request("schedule is required"))?;
    let invalid = |reason: String| ApiError::bad_request(format!("invalid schedule expression: {reason}"));
    let expression = Expression::parse(schedule).map_err(invalid)?;
    let zone = match text("timezone") {
        None => None,
        Some(name) => zone(name).map_err(|reason| ApiError::bad_request(format!("timezone {reason}")))?,
    };
    let zone = zone.unwrap_or_else(|| scheduler.zone());
    let wrong = || ApiError::bad_request(format!("n must be a whole number from 1 to {PREVIEW_MAX}"));
    let count = match body.get("n") {
        None => PREVIEW,
        Some(n) => {
            let n = n.as_u64().filter(|n| (1..=PREVIEW_MAX).contains(n)).ok_or_else(wrong)?;
            usize::try_from(n).unwrap_or(PREVIEW)
        }
    };
    let next = moments(&expression, &zone, clock::unix_ms(), count);
    Ok(ok(&json!({"next": next.iter().map(|at| Scheduler::local_time(*at, &zone)).collect::<Vec<_>>()})))
}

/// One change of the file; what it refuses is told in its own words.
fn change(
    ctx: &Ctx,
    make: impl Fn(&Config, &mut Document) -> Result<Result<(), ConfigError>, Refusal>,
) -> Result<(), ApiError> {
    let settings = &ctx.deps.settings;
    let mut refusal = None;
    let changed = settings.change(&mut |doc| match make(&settings.current(), doc) {
        Ok(edited) => edited,
        Err(refused) => {
            refusal = Some(refused);
            Err(ConfigError::refused())
        }
    });
    match refusal {
        Some(refusal) => Err(refusal.into()),
        None => Ok(changed.map(|_| ())?),
    }
}

fn wish(call: &Call<'_>) -> Result<Wish, ApiError> {
    let body: Map<String, Value> = decode(&call.req.body, "invalid JSON body")?;
    Wish::read(&body).map_err(|reason| ApiError::bad_request(format!("invalid JSON: {reason}")))
}

fn trimmed(wish: &Wish) -> String {
    wish.schedule.as_deref().unwrap_or_default().trim().to_owned()
}

fn find(ctx: &Ctx, name: &str) -> Result<std::sync::Arc<ScheduleConfig>, ApiError> {
    let found = ctx.scheduler()?.get(name).map(|info| info.config);
    found.ok_or_else(|| ApiError::not_found(format!("schedule {} not found", quoted(name))))
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(text) => Self::bad_request(text),
            Refusal::NotFound(text) => Self::not_found(text),
            Refusal::Exists(text) => Self::new(409, "exists", text),
        }
    }
}

impl From<RunNowError> for ApiError {
    fn from(error: RunNowError) -> Self {
        let text = error.to_string();
        match error {
            RunNowError::NotFound => Self::not_found(text),
            RunNowError::Running => Self::new(409, "running", text),
            RunNowError::Paused => Self::new(503, "panicked", text),
            RunNowError::Store(error) => error.into(),
        }
    }
}

/// The contract's object, empty fields left out, and what Holt adds.
fn shape(info: &ScheduleInfo, zone: &TimeZone) -> Value {
    let config = &info.config;
    let mut shape = json!({
        "name": config.name, "type": config.kind, "expression": config.schedule, "enabled": config.enabled,
        "session_mode": config.session_mode(), "agent": config.agent, "running": info.running.is_some(),
    });
    set(&mut shape, "skill", &config.skill);
    set(&mut shape, "prompt", &config.prompt);
    set(&mut shape, "channel", &config.channel);
    set(&mut shape, "session_tier", config.session_tier.name().unwrap_or_default());
    if !config.tags.is_empty() {
        shape["tags"] = json!(config.tags);
    }
    let zone = config.zone_or(zone);
    set(&mut shape, "timezone", config.timezone());
    set_time(&mut shape, "last_run", info.last_run, zone);
    set_time(&mut shape, "next_run", info.next_run, zone);
    shape
}

fn run_shape(row: &RunRow, zone: &TimeZone) -> Value {
    let mut shape = json!({"id": row.id, "trigger": row.cause, "state": row.state});
    set_time(&mut shape, "scheduled_at", Some(row.moment), zone);
    if row.moments > 1 {
        set_time(&mut shape, "until", Some(row.until), zone);
        shape["moments"] = json!(row.moments);
    }
    set(&mut shape, "reason", &row.reason);
    set(&mut shape, "conversation_id", &row.conversation_id);
    set_time(&mut shape, "started_at", row.started_at, zone);
    if row.finished_at.is_some() {
        set_time(&mut shape, "finished_at", row.finished_at, zone);
        shape["tokens"] = json!(row.tokens);
        shape["cost_usd"] = json!(row.cost_usd);
    }
    shape
}

fn set(shape: &mut Value, key: &str, text: &str) {
    if !text.is_empty() {
        shape[key] = json!(text);
    }
}

fn set_time(shape: &mut Value, key: &str, at: Option<i64>, zone: &TimeZone) {
    if let Some(at) = at {
        shape[key] = json!(Scheduler::local_time(at, zone));
    }
}
