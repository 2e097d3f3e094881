//! Channels of notifications: made, changed, removed; at once. Secrets go in, and never come out.

use serde_json::{Map, Value, json};

use crate::api::agents_change::told;
use crate::api::audit::note;
use crate::api::body;
use crate::api::error::ApiError;
use crate::api::login::ok;
use crate::api::message::Reply;
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::api::settings::Settings;
use crate::api::tools::MASK;
use crate::config::{check_channel_name, edit};
use crate::rt::json::quoted;

/// Web hooks have their credential in the address.
const SECRETS: [&str; 4] = ["token", "password", "secret", "url"];
/// A table whose values may be secrets.
const HEADERS: &str = "headers";

/// A channel's table as clients may see it.
pub(super) fn settings(table: &Value) -> Value {
    let mut shown = table.clone();
    for (key, value) in shown.as_object_mut().into_iter().flatten() {
        match value {
            Value::Object(headers) if key == HEADERS => headers.values_mut().for_each(|value| *value = json!(MASK)),
            value if SECRETS.contains(&key.as_str()) => *value = json!(MASK),
            _ => {}
        }
    }
    shown
}

/// Makes a channel, or another one of it: what is not given is not there afterwards, secrets excepted.
pub(super) fn put(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let name = call.params.get("name");
    check_channel_name(name).map_err(|reason| ApiError::bad_request(format!("name: {reason}")))?;
    let mut wanted = body::object(&call.req.body).map_err(|cause| {
        log::debug!("invalid JSON: {}", cause.0);
        ApiError::bad_request("invalid JSON: the body must be one object")
    })?;
    wanted.retain(|_, value| !value.is_null() && value != "");
    let known = ctx.deps.settings.current();
    let nothing = Map::new();
    let old = known.tree.get(&format!("notify.{name}")).and_then(Value::as_object).unwrap_or(&nothing);
    // A table may leave the type to its name.
    let kind = wanted.entry("type").or_insert_with(|| old.get("type").cloned().unwrap_or_else(|| json!(name))).clone();
    // A secret of another service stays here.
    let is_same = !old.is_empty() && *old.get("type").unwrap_or(&json!(name)) == kind;
    let given = body::object(&call.req.body).unwrap_or_default();
    for key in SECRETS.into_iter().chain([HEADERS]) {
        let before = old.get(key).filter(|_| is_same);
        match wanted.get_mut(key) {
            None if !given.contains_key(key) => {
                wanted.extend(before.map(|before| (key.to_owned(), before.clone())));
            }
            Some(Value::Object(headers)) => {
                for (name, value) in headers.iter_mut() {
                    keep_or_seal(&*ctx.deps.settings, key, value, before.and_then(|before| before.get(name)))?;
                }
            }
            Some(value) => keep_or_seal(&*ctx.deps.settings, key, value, before)?,
            None => {}
        }
    }
    let mut write = |doc: &mut edit::Document| {
        let gone = old.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key, &Value::Null));
        gone.chain(wanted.iter()).try_for_each(|(key, value)| edit::set(doc, &format!("notify.{name}.{key}"), value))
    };
    let changed = ctx.deps.settings.change(&mut write)?;
    note(ctx, call, "notification.channel", name, "");
    Ok(ok(&told(json!({"status": "updated"}), &changed)))
}

/// What is sent back as it was shown stays what it is; anything else is a new secret.
fn keep_or_seal(settings: &dyn Settings, key: &str, value: &mut Value, before: Option<&Value>) -> Result<(), ApiError> {
    if value == MASK {
        let missing = || ApiError::bad_request(format!("{key}: {MASK} stands for a secret that is known, and none is"));
        before.ok_or_else(missing)?.clone_into(value);
    } else if let Some(text) = value.as_str() {
        *value = settings.sealed(text)?.into();
    }
    Ok(())
}

/// Removes a channel. What waits for it counts as failed.
pub(super) fn remove(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let name = call.params.get("name");
    let path = format!("notify.{name}");
    if check_channel_name(name).is_err() || ctx.deps.settings.current().tree.get(&path).is_none() {
        return Err(ApiError::not_found(format!("there is no channel {}", quoted(name))));
    }
    let changed = ctx.deps.settings.change(&mut |doc| edit::set(doc, &path, &Value::Null))?;
    note(ctx, call, "notification.remove", name, "");
    Ok(ok(&told(json!({"status": "removed"}), &changed)))
}
