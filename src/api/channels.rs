//! Channels of notifications: made, changed, removed; at once. Secrets go in, and never come out.

use serde_json::{Map, Value, json};

use crate::api::agents_change::told;
use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::login::ok;
use crate::api::message::Reply;
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::api::settings::{self, Settings, SettingsError};
use crate::api::tools::MASK;
use crate::config::{NTFY_SERVER, check_channel_name, edit};
use crate::rt::json::quoted;

/// Web hooks have their credential in the address.
const SECRETS: [&str; 4] = ["token", "password", "secret", "url"];
/// A table whose values may be secrets.
const HEADERS: &str = "headers";

/// A channel's table as clients may see it.
pub(super) fn shown(table: &Value) -> Value {
    let mut shown = table.clone();
    for (key, value) in shown.as_object_mut().into_iter().flatten() {
        match value {
            Value::Object(headers) if key == HEADERS => headers.values_mut().for_each(|value| *value = json!(MASK)),
            value if SECRETS.contains(&key.as_str()) => *value = json!(MASK),
            Value::String(word) if key == "tls" => *word = word.trim().to_ascii_lowercase(),
            _ => {}
        }
    }
    shown
}

/// The service of a channel's table, which may leave it to its name.
pub(super) fn kind(table: &Value, name: &str) -> String {
    table.get("type").and_then(Value::as_str).unwrap_or(name).trim().to_ascii_lowercase()
}

/// Makes a channel, or another one of it: what is not given is not there afterwards, secrets excepted. Those stay only
/// as long as they go to the same server.
pub(super) fn put(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let name = call.params.get("name");
    check_channel_name(name).map_err(|reason| ApiError::bad_request(format!("name: {reason}")))?;
    let mut given = Fields::of(&call.req.body)?.into_map();
    for (key, value) in &mut given {
        match value {
            Value::Object(headers) if key == HEADERS => {
                headers.values_mut().try_for_each(|value| seal(&*ctx.deps.settings, value))?;
            }
            value if SECRETS.contains(&key.as_str()) => seal(&*ctx.deps.settings, value)?,
            _ => {}
        }
    }
    let path = format!("notify.{name}");
    let changed = settings::change(&*ctx.deps.settings, &mut |doc| {
        // What counts is what the file holds now: somebody else may have changed the channel a moment ago.
        let old = edit::value_at(doc, &["notify", name]).unwrap_or(Value::Null);
        let wanted = merged(name, &given, &old)?;
        let gone = old.as_object().into_iter().flatten().map(|(key, _)| (key, &Value::Null));
        for (key, value) in gone.filter(|(key, _)| !wanted.contains_key(*key)).chain(&wanted) {
            edit::set(doc, &format!("{path}.{key}"), value).map_err(SettingsError::from)?;
        }
        Ok(())
    })?;
    note(ctx, call, "notification.channel", name, "");
    Ok(ok(&told(json!({"status": "updated"}), &changed)))
}

/// A new secret as the file is to hold it.
fn seal(settings: &dyn Settings, value: &mut Value) -> Result<(), ApiError> {
    if let Some(text) = value.as_str().filter(|text| !text.is_empty() && *text != MASK) {
        *value = settings.sealed(text)?.into();
    }
    Ok(())
}

/// The table that is wanted: what is given, and the secrets that are left out or sent back as they were shown.
fn merged(name: &str, given: &Map<String, Value>, old: &Value) -> Result<Map<String, Value>, ApiError> {
    let mut wanted = given.clone();
    wanted.retain(|_, value| !value.is_null() && value != "");
    if let Some(kind) = old.get("type").filter(|_| !wanted.contains_key("type")) {
        wanted.insert("type".to_owned(), kind.clone());
    }
    wanted.entry("type").or_insert_with(|| json!(name));
    let new = Value::Object(wanted.clone());
    // A secret of another service stays here.
    let is_same = kind(old, name) == kind(&new, name);
    let is_there = is_same && same_server(old, &new, &kind(old, name));
    for key in SECRETS.into_iter().chain([HEADERS]) {
        let is_empty = |value: &Value| value == "" || value.as_object().is_some_and(Map::is_empty);
        let before = old.get(key).filter(|before| is_same && !is_empty(before));
        let keep = |before: Option<&Value>| match before {
            None => Err(ApiError::bad_request(format!("{key}: {MASK} stands for a secret that is known, and none is"))),
            Some(before) if is_there => Ok(before.clone()),
            Some(_) => Err(ApiError::bad_request(format!("{key}: give the {key} again: the server changed"))),
        };
        match wanted.get_mut(key) {
            None if before.is_some() && !given.contains_key(key) => {
                wanted.insert(key.to_owned(), keep(before)?);
            }
            Some(Value::Object(headers)) => {
                for (name, value) in headers.iter_mut().filter(|(_, value)| *value == MASK) {
                    *value = keep(before.and_then(|before| before.get(name)))?;
                }
            }
            Some(value) if value == MASK => *value = keep(before)?,
            _ => {}
        }
    }
    Ok(wanted)
}

/// Whether secrets go where they went before, and at least as well protected.
fn same_server(old: &Value, new: &Value, kind: &str) -> bool {
    let place = |table: &Value, key: &str| match (table.get(key), key) {
        (None, "server") if kind == "ntfy" => json!(NTFY_SERVER),
        (Some(Value::String(text)), _) => json!(text.trim().trim_end_matches('/')),
        (value, _) => value.cloned().unwrap_or_default(),
    };
    let is_open = |table: &Value| match table.get("tls") {
        None => kind == "mqtt",
        Some(Value::String(word)) => word.trim().eq_ignore_ascii_case("none"),
        Some(value) => *value == false,
    };
    // An address that is given is another one, unless it is what stands there: it is a secret itself.
    let is_moved = new.get("url").is_some_and(|url| url != MASK && old.get("url") != Some(url));
    let same = |key| place(old, key) == place(new, key);
    !is_moved && ["server", "port", "ca_file"].into_iter().all(same) && (is_open(old) || !is_open(new))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_with_their_server() {
        let check = |old: Value, given: Value, kept: Option<&str>| {
            let found = merged("x", given.as_object().unwrap(), &old);
            let refused = found.as_ref().err().map(|error| (error.status, error.message.as_str()));
            let word = kept.unwrap_or("password");
            let text = format!("{word}: give the {word} again: the server changed");
            match kept {
                None => assert_eq!(found.unwrap().get("password"), old.get("password"), "{given}"),
                Some(_) => assert_eq!(refused, Some((400, text.as_str())), "{given}"),
            }
        };
        let mail = json!({"type": "Email", "server": "h", "user": "u", "password": "sealed:p", "tls": "TLS"});
        let password = Some("password");
        check(mail.clone(), json!({"server": "h ", "tls": "starttls"}), None);
        check(mail.clone(), json!({"type": "email", "server": "h", "password": "***"}), None);
        check(mail.clone(), json!({"server": "h", "tls": "None"}), password);
        check(mail.clone(), json!({"server": "h", "port": 26, "password": "***"}), password);
        check(mail.clone(), json!({"server": "i"}), password);
        check(mail, json!({}), password);
        let broker = json!({"type": "mqtt", "server": "h", "tls": true, "password": "p"});
        check(broker.clone(), json!({"server": "h", "tls": true}), None);
        check(broker.clone(), json!({"server": "h", "tls": false}), password);
        check(broker, json!({"server": "h"}), password);
        check(json!({"type": "mqtt", "server": "h", "password": "p"}), json!({"server": "h", "tls": true}), None);
        let phone = json!({"type": "ntfy", "token": "t"});
        check(phone.clone(), json!({"server": "https://ntfy.sh/"}), None);
        check(phone, json!({"server": "https://ntfy.example"}), Some("token"));
        let hook = json!({"type": "webhook", "url": "u", "secret": "s", "headers": {"a": "b"}});
        check(hook.clone(), json!({"url": "***", "headers": {"a": "***"}}), None);
        check(hook.clone(), json!({}), None);
        check(hook.clone(), json!({"url": "v", "headers": {}}), Some("secret"));
        check(hook.clone(), json!({"url": "v", "secret": "t"}), Some("headers"));
        check(hook, json!({"url": "v", "secret": "t", "headers": {"a": "***"}}), Some("headers"));
    }
}
