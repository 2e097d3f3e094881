//! Notifications: channels and what waits in them; trying a channel out; giving a notice up.

use serde_json::{Value, json};

use crate::alert::Level;
use crate::api::audit::note;
use crate::api::channels;
use crate::api::error::ApiError;
use crate::api::login::{decode, json_line, ok};
use crate::api::message::{Reply, Responder, no_content};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::audit::{Entry, Outcome};
use crate::limits;
use crate::notify::{ChannelInfo, ChannelStatus, Notice, TestError};
use crate::rt::clock;
use crate::rt::fields::typed;
use crate::rt::json::quoted;
use crate::store::notices::NoticeRow;

const TEST: &str = "notification.test";

#[derive(Default)]
struct TestBody {
    channel: String,
}

typed!(TestBody { channel });

/// Channels with how they are, and notices that wait, are held or failed, newest first.
pub(super) fn list(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let config = ctx.deps.settings.current();
    let sees_settings = call.caller.as_ref().is_some_and(|caller| caller.scopes.has("admin"));
    let running = ctx.deps.notify.channels();
    let tables = config.tree.get("notify").and_then(Value::as_object).into_iter().flatten();
    let shapes = tables.map(|(name, table)| {
        let mut shape = channel_shape(running.iter().find(|channel| channel.name == *name), name, table);
        if sees_settings {
            let mut settings = channels::shown(table);
            // The file may spell them in any case.
            for key in ["type", "min_level"].into_iter().filter(|key| table.get(*key).is_some()) {
                settings[key] = shape[key].clone();
            }
            shape["settings"] = settings;
        }
        shape
    });
    let channels: Vec<Value> = shapes.collect();
    let rows = ctx.deps.notify.list(limits::NOTICES_LISTED_MAX)?;
    let notices: Vec<Value> = rows.iter().map(notice_shape).collect();
    Ok(ok(&json!({"channels": channels, "notices": notices})))
}

/// Sends a test notice; answers when the service has taken or refused it.
pub(super) fn test(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let body: TestBody = decode(&call.req.body, "invalid JSON body")?;
    let name = body.channel;
    if !ctx.deps.notify.channels().iter().any(|channel| channel.name == name) {
        return Err(ApiError::not_found(format!("there is no channel {}, or it is switched off", quoted(&name))));
    }
    let own = ctx.clone();
    let source = ctx.origins.client_address(&call.req.headers, call.req.peer.ip());
    let actor = call.caller.as_ref().map(|caller| caller.caller().identity).unwrap_or_default();
    Ok(Reply::Later(Box::new(move |responder: Responder| {
        let notify = std::sync::Arc::clone(&own.deps.notify);
        let channel = name.clone();
        let done = move |sent: Result<(), TestError>| {
            let (result, detail) = match &sent {
                Ok(()) => (Outcome::Ok, ""),
                Err(error) => (Outcome::Failed, error.text.as_str()),
            };
            log::info!("{TEST} {channel} by {actor} from {source}: {}", result.as_str());
            let entry = Entry { actor: &actor, target: &channel, source: &source, result, detail, ..Entry::ok(TEST) };
            own.deps.audit.record(&entry);
            responder.respond(match sent {
                Ok(()) => json_line(200, &json!({"ok": true})),
                Err(error) if error.was_tried => ApiError::new(502, "notification_failed", error.text).into_response(),
                Err(error) => ApiError::new(503, "busy", error.text).with_header("Retry-After", "2").into_response(),
            });
        };
        notify.test(&name, Box::new(done));
    })))
}

/// Gives a notice up.
pub(super) fn delete(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let id = call.params.get("id");
    let number = id.parse().map_err(|_| missing())?;
    if !ctx.deps.notify.remove(number)? {
        return Err(missing());
    }
    note(ctx, call, "notification.delete", id, "");
    Ok(Reply::Full(no_content()))
}

fn missing() -> ApiError {
    ApiError::not_found("notification not found: it may have been delivered")
}

/// A channel that works, or one that is switched off, of which only its table is known.
fn channel_shape(channel: Option<&ChannelInfo>, name: &str, table: &Value) -> Value {
    let off = ChannelStatus::default();
    let status = channel.map_or(&off, |channel| &channel.status);
    let typed = || table.get("min_level").and_then(Value::as_str).map_or("", str::trim);
    let is_typed = |level: &Level| level.name().eq_ignore_ascii_case(typed());
    let level = channel
        .map(|channel| channel.min_level)
        .or_else(|| [Level::Critical, Level::Warning].into_iter().find(is_typed));
    let kind = channel.map_or_else(|| channels::kind(table, name), |channel| channel.kind.to_owned());
    json!({
        "name": name, "type": kind, "min_level": level.unwrap_or(Level::Info).name(), "enabled": channel.is_some(),
        "sent_at": time(status.sent_at), "error": status.error, "failures": status.failures,
        "retry_at": time(status.retry_at),
    })
}

fn notice_shape(row: &NoticeRow) -> Value {
    let notice = serde_json::from_str(&row.body).ok().as_ref().and_then(Notice::from_value).unwrap_or_default();
    json!({
        "id": row.id, "channel": row.channel, "state": row.state, "attempts": row.attempts,
        "next_at": time(row.next_at), "created_at": time(row.created_at), "error": row.error,
        "kind": notice.kind.name(), "level": notice.level.name(), "title": notice.shown_title(),
        "machine_id": notice.machine_id,
    })
}

fn time(at_ms: i64) -> Value {
    if at_ms == 0 { Value::Null } else { json!(clock::rfc3339(at_ms)) }
}
