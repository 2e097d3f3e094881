//! Alerts and silences over REST. Reading needs `machines:read`, changing `machines:write`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::alert::Level;
use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::login::{decode, json_line, ok};
use crate::api::message::{Reply, no_content};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::config::parse_go_duration;
use crate::fleet::hub::alerts::Alerts;
use crate::limits;
use crate::rt::clock;
use crate::store::alert_rows::{Act, Acted, AlertFilter, AlertRow, ToldAs};
use crate::store::silences::Silence;
use crate::store::{StoreError, time};

/// A silence lasts a year at most: what is meant for ever belongs into the configuration of the check.
const SILENCE_MS_MAX: i64 = 366 * 24 * 3600 * 1000;
const NOTE_BYTES_MAX: usize = 1000;
const MATCHERS_MAX: usize = 16;
/// Events shown with one alert.
const HISTORY_SHOWN: usize = 100;

/// Alerts, newest first, one line for each key unless `group=none`; `next_before` when there are more.
pub(super) fn list(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let query = |name: &str| call.req.query_param(name).unwrap_or_default();
    let is_open = match query("state").as_str() {
        "" | "open" => Some(true),
        "closed" => Some(false),
        "all" => None,
        _ => return Err(ApiError::bad_request("state must be open, closed or all")),
    };
    let level = match query("level").as_str() {
        "" => None,
        name => Some(level(name).ok_or_else(|| ApiError::bad_request("level must be critical, warning or info"))?),
    };
    let is_grouped = match query("group").as_str() {
        "" | "key" => true,
        "none" => false,
        _ => return Err(ApiError::bad_request("group must be key or none")),
    };
    let limit = match query("limit").as_str() {
        "" => limits::ALERTS_LISTED,
        text => {
            text.parse().ok().filter(|limit| (1..=limits::ALERTS_LISTED_MAX).contains(limit)).ok_or_else(|| {
                ApiError::bad_request(format!("limit must be from 1 to {}", limits::ALERTS_LISTED_MAX))
            })?
        }
    };
    let before = match query("before").as_str() {
        "" => 0,
        text => text.parse().map_err(|_| ApiError::bad_request("before must be the id of an alert"))?,
    };
    let (machine, check) = (query("machine"), query("check"));
    let filter = AlertFilter { is_open, machine, level, check, before, is_grouped, limit: limit + 1 };
    let mut rows = alerts(ctx)?.store().list(&filter)?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_before = rows.last().filter(|_| more).map(|(row, _)| row.id);
    let shapes: Vec<Value> = rows.iter().map(|(row, times)| shape(row, Some(*times))).collect();
    let mut body = json!({ "alerts": shapes });
    if let Some(id) = next_before {
        body["next_before"] = json!(id);
    }
    Ok(ok(&body))
}

/// One alert with its report and its newest events.
pub(super) fn get(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let store = alerts(ctx)?.store();
    let row = store.get(id(call)?)?.ok_or_else(unknown)?;
    let history: Vec<Value> = store
        .history(&row, HISTORY_SHOWN)?
        .into_iter()
        .map(|event| {
            json!({
                "event_time": clock::rfc3339(event.time.saturating_mul(1000)), "event_status": event.level.name(),
                "received_at": clock::rfc3339(event.received_at), "description": event.description,
                "attrs": event.attrs,
            })
        })
        .collect();
    let mut body = shape(&row, None);
    body["report"] = json!(row.report);
    body["history"] = Value::Array(history);
    Ok(ok(&body))
}

/// No repeats until it gets worse.
pub(super) fn acknowledge(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let note = note_of(&body(call)?)?;
    act(ctx, call, "alert.acknowledge", Act::Acknowledge { note: &note }, &note)
}

/// Nothing is told of it for a while; `for` 0 ends that.
pub(super) fn silence(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let body = body(call)?;
    let (until, note) = (until_of(&body)?, note_of(&body)?);
    let detail = format!("until {} {note}", clock::rfc3339_s(until));
    act(ctx, call, "alert.silence", Act::Silence { until, note: &note }, detail.trim_end())
}

/// Closes it by hand. It opens again when its machine says so.
pub(super) fn close(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let note = note_of(&body(call)?)?;
    act(ctx, call, "alert.close", Act::Close { note: &note }, &note)
}

fn act(ctx: &Ctx, call: &Call<'_>, action: &str, act: Act<'_>, detail: &str) -> Result<Reply, ApiError> {
    match alerts(ctx)?.act(id(call)?, act, &by(call))? {
        Acted::Done(row) => {
            let place = format!("{} {} {}", row.machine_id, row.check, row.target);
            note(ctx, call, action, call.params.get("id"), format!("{place} {detail}").trim_end());
            Ok(ok(&shape(&row, None)))
        }
        Acted::NotFound => Err(unknown()),
        Acted::Closed => Err(ApiError::new(409, "alert_closed", "this alert is closed")),
    }
}

/// Silences in force; with `all=1` also those that ended lately.
pub(super) fn silences(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let all = call.req.query_param("all").as_deref() == Some("1");
    let list = alerts(ctx)?.silences().list(if all { 0 } else { clock::unix_ms() })?;
    Ok(ok(&json!({"silences": list.iter().map(silence_shape).collect::<Vec<_>>()})))
}

/// Keeps alerts quiet that fit all `matchers`.
pub(super) fn add_silence(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let body = body(call)?;
    let matchers = matchers_of(&body)?;
    let (until, text) = (until_of(&body)?, note_of(&body)?);
    let now = clock::unix_ms();
    if until <= now {
        return Err(ApiError::bad_request("a silence must end later than now"));
    }
    let alerts = alerts(ctx)?;
    let Some(silence) = alerts.silences().add(matchers, until, &by(call), &text, now)? else {
        return Err(ApiError::new(409, "too_many", "there are too many silences; remove some first"));
    };
    let detail = format!("{} until {}", json!(silence.matchers), clock::rfc3339_s(until));
    note(ctx, call, "silence.create", &silence.id, &detail);
    Ok(Reply::Full(json_line(201, &silence_shape(&silence))))
}

/// Ends a silence: what it kept quiet and is still so is told.
pub(super) fn remove_silence(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let alerts = alerts(ctx)?;
    let id = call.params.get("id");
    alerts.silences().remove(id, clock::unix_ms()).map_err(|error| match error {
        StoreError::NotFound => ApiError::not_found("silence not found"),
        other => other.into(),
    })?;
    alerts.wake();
    note(ctx, call, "silence.delete", id, "");
    Ok(Reply::Full(no_content()))
}

fn alerts(ctx: &Ctx) -> Result<&Arc<Alerts>, ApiError> {
    let missing = || ApiError::new(503, "not_configured", "the machine link is switched off");
    ctx.deps.alerts.as_ref().ok_or_else(missing)
}

fn unknown() -> ApiError {
    ApiError::not_found("alert not found")
}

fn id(call: &Call<'_>) -> Result<i64, ApiError> {
    call.params.get("id").parse().map_err(|_| unknown())
}

fn by(call: &Call<'_>) -> String {
    call.caller.as_ref().map(|caller| caller.caller().identity).unwrap_or_default()
}

/// The body; none is an empty object.
fn body(call: &Call<'_>) -> Result<Value, ApiError> {
    if call.req.body.is_empty() {
        return Ok(json!({}));
    }
    decode(&call.req.body, "invalid JSON body")
}

fn note_of(body: &Value) -> Result<String, ApiError> {
    match body.get("note") {
        None => Ok(String::new()),
        Some(Value::String(note)) if note.len() <= NOTE_BYTES_MAX => Ok(note.trim().to_owned()),
        Some(_) => Err(ApiError::bad_request(format!("note must be a text of at most {NOTE_BYTES_MAX} bytes"))),
    }
}

/// When something ends: `for` (a duration like `2h`) or `until` (RFC 3339).
fn until_of(body: &Value) -> Result<i64, ApiError> {
    let now = clock::unix_ms();
    let until = match (body.get("for"), body.get("until")) {
        (Some(Value::String(text)), None) => {
            parse_go_duration(text).and_then(|length| now.checked_add(i64::try_from(length.as_millis()).ok()?))
        }
        (None, Some(Value::String(text))) => time::parse_ms(text),
        _ => None,
    };
    let until = until.ok_or_else(|| {
        ApiError::bad_request("give either for (a duration like 30m, 2h) or until (a time like 2026-01-02T03:04:05Z)")
    })?;
    if until - now > SILENCE_MS_MAX {
        return Err(ApiError::bad_request("a silence lasts a year at most"));
    }
    Ok(until)
}

fn matchers_of(body: &Value) -> Result<BTreeMap<String, String>, ApiError> {
    let refuse = || {
        ApiError::bad_request(format!(
            "matchers must be an object of 1 to {MATCHERS_MAX} texts: machine, check, target, level or a label; a value \
             may end with *"
        ))
    };
    let Some(Value::Object(given)) = body.get("matchers") else { return Err(refuse()) };
    let fits = |name: &str, value: &str| {
        (1..=limits::ALERT_NAME_BYTES_MAX).contains(&name.len())
            && (1..=limits::ALERT_LABEL_BYTES_MAX).contains(&value.len())
    };
    let mut matchers = BTreeMap::new();
    for (name, value) in given {
        let value = value.as_str().filter(|value| fits(name, value)).ok_or_else(refuse)?;
        matchers.insert(name.clone(), value.to_owned());
    }
    if (1..=MATCHERS_MAX).contains(&matchers.len()) { Ok(matchers) } else { Err(refuse()) }
}

/// A level in any case; not `Ok`.
fn level(name: &str) -> Option<Level> {
    [Level::Critical, Level::Warning, Level::Info].into_iter().find(|level| level.name().eq_ignore_ascii_case(name))
}

fn shape(row: &AlertRow, times: Option<i64>) -> Value {
    let mut shape = json!({
        "id": row.id, "machine_id": row.machine_id, "machine": row.machine_name, "alert_key": row.key,
        "check": row.check, "target": row.target, "level": row.level.name(), "worst": row.worst.name(),
        "state": if row.closed_at.is_some() { "closed" } else { "open" }, "labels": row.labels, "attrs": row.attrs,
        "description": row.description, "description_format": row.format, "has_report": !row.report.is_empty(),
        "events": row.events, "flapping": row.told_as == ToldAs::Flapping, "note": row.note,
        "opened_at": clock::rfc3339(row.opened_at), "changed_at": clock::rfc3339(row.changed_at),
    });
    let mut add = |name: &str, value: Value| shape[name] = value;
    if let Some(times) = times {
        add("times", json!(times));
    }
    if let Some(at) = row.closed_at {
        add("closed_at", json!(clock::rfc3339(at)));
        add("close_reason", json!(row.close_reason));
    }
    if let Some(at) = row.acknowledged_at {
        add("acknowledged_at", json!(clock::rfc3339(at)));
        add("acknowledged_by", json!(row.acknowledged_by));
    }
    if row.silenced_until > clock::unix_ms() {
        add("silenced_until", json!(clock::rfc3339(row.silenced_until)));
        add("silenced_by", json!(row.silenced_by));
    }
    shape
}

fn silence_shape(silence: &Silence) -> Value {
    json!({
        "id": silence.id, "matchers": silence.matchers, "until": clock::rfc3339(silence.until),
        "created_by": silence.created_by, "created_at": clock::rfc3339(silence.created_at), "note": silence.note,
    })
}
