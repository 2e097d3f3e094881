//! The audit log over REST, and how handlers write to it.

use serde_json::{Map, Value, json};

use crate::api::error::ApiError;
use crate::api::login::ok;
use crate::api::message::Reply;
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::audit::{Entry, Filter, Outcome};
use crate::limits;
use crate::rt::clock;
use crate::store::time;

/// Entries, newest first; `next_before` when there are more.
pub(super) fn list(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let filter = filter(call)?;
    let count = match number(call, "limit")? {
        None => limits::AUDIT_LISTED,
        Some(limit) => usize::try_from(limit)
            .ok()
            .filter(|limit| (1..=limits::AUDIT_LISTED_MAX).contains(limit))
            .ok_or_else(|| ApiError::bad_request(format!("limit must be from 1 to {}", limits::AUDIT_LISTED_MAX)))?,
    };
    let mut rows = ctx.deps.audit.store().list(&filter, count + 1)?;
    let more = rows.len() > count;
    rows.truncate(count);
    let next_before = rows.last().filter(|_| more).map(|row| row.id);
    let entries: Vec<Value> = rows
        .into_iter()
        .map(|row| {
            json!({
                "id": row.id, "at": clock::rfc3339(row.at), "actor": row.actor, "action": row.action,
                "target": row.target, "source": row.source, "result": row.result, "detail": row.detail,
            })
        })
        .collect();
    let mut body = json!({ "entries": entries });
    if let Some(id) = next_before {
        body["next_before"] = json!(id);
    }
    Ok(ok(&body))
}

/// How often each action ended in which way.
pub(super) fn stats(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let mut total = 0;
    let (mut by_action, mut by_result) = (Map::new(), Map::new());
    for (action, result, count) in ctx.deps.audit.store().stats(&filter(call)?)? {
        total += count;
        add(&mut by_result, &result, count);
        if let Value::Object(results) = by_action.entry(action).or_insert_with(|| json!({})) {
            add(results, &result, count);
        }
    }
    Ok(ok(&json!({"total": total, "by_action": by_action, "by_result": by_result})))
}

fn add(counts: &mut Map<String, Value>, key: &str, count: i64) {
    let before = counts.get(key).and_then(Value::as_i64).unwrap_or(0);
    counts.insert(key.to_owned(), json!(before + count));
}

fn filter(call: &Call<'_>) -> Result<Filter, ApiError> {
    let text = |name: &str| call.req.query_param(name).unwrap_or_default();
    let at = |name: &str, default: i64| match call.req.query_param(name).filter(|text| !text.is_empty()) {
        None => Ok(default),
        Some(text) => time::parse_ms(&text)
            .ok_or_else(|| ApiError::bad_request(format!("{name} must be a time such as 2026-01-02T03:04:05Z"))),
    };
    let result = text("result");
    if !["", "ok", "denied", "failed"].contains(&result.as_str()) {
        return Err(ApiError::bad_request("result must be ok, denied or failed"));
    }
    Ok(Filter {
        actor: text("actor"),
        action: text("action"),
        target: text("target"),
        result,
        since: at("since", 0)?,
        until: at("until", i64::MAX)?,
        before: number(call, "before")?.unwrap_or(i64::MAX),
    })
}

fn number(call: &Call<'_>, name: &str) -> Result<Option<i64>, ApiError> {
    let text = call.req.query_param(name).filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(|_| ApiError::bad_request(format!("{name} must be a whole number"))))
        .transpose()
}

/// Records that the caller did something.
pub(super) fn note(ctx: &Ctx, call: &Call<'_>, action: &str, target: &str, detail: &str) {
    let source = ctx.origins.client_address(&call.req.headers, call.req.peer.ip());
    let actor = call.caller.as_ref().map(|caller| caller.caller().identity).unwrap_or_default();
    let who = if actor.is_empty() { "-" } else { &actor };
    log::info!("{action} {target} by {who} from {source}");
    ctx.deps.audit.record(&Entry { actor: &actor, target, source: &source, detail, ..Entry::ok(action) });
}

/// Records that somebody unknown was turned away; repeats are counted together.
pub(super) fn refused(ctx: &Ctx, action: &str, source: &str, detail: &str) {
    let entry = Entry { source, detail, result: Outcome::Denied, ..Entry::ok(action) };
    ctx.deps.audit.record_repeatable(&entry);
}
