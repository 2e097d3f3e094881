//! The key-value store of agents (contract 11.5; W-43), and writing to it (contract 16).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::login::decode;
use crate::api::message::{Reply, json_response, no_content};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::config::parse_go_duration;
use crate::limits;
use crate::rt::fields::typed;
use crate::rt::{clock, json as wire, lock};
use crate::store::KvStore;
use crate::store::kv::KvPage;

#[derive(Default)]
struct ValueBody {
    value: Option<String>,
    ttl: String,
}

typed!(ValueBody { value, ttl });

/// Rendered lists by agent and prefix, each of a generation of the database. Guarded by this mutex; nothing is taken
/// under it. Bounded: [`limits::KV_LISTS_CACHED`], and all go when another one needs the room.
#[derive(Default)]
pub(super) struct KvLists(Mutex<HashMap<(String, String), CachedList>>);

struct CachedList {
    generation: u64,
    /// The first of its entries goes at this moment, in milliseconds since 1970.
    valid_until: i64,
    body: Arc<[u8]>,
}

/// The agent's entries by key, `[]` if it has none. Rendered once per state of the database. What is too long for one
/// answer ends with `next`: the value of `after` that brings the rest.
pub(super) fn list(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let (store, agent) = store_of(ctx, call)?;
    let prefix = call.req.query_param("prefix").unwrap_or_default();
    let after = call.req.query_param("after").unwrap_or_default();
    if !after.is_empty() {
        let page = store.list(agent, &prefix, &after, limits::KV_LIST_BYTES_MAX)?;
        return Ok(Reply::Full(json_response(200, render(&page))));
    }
    let generation = ctx.deps.db.generation()?;
    let name = (agent.to_owned(), prefix);
    let cached = lock(&ctx.kv_lists.0)
        .get(&name)
        .filter(|list| list.generation == generation && clock::unix_ms() < list.valid_until)
        .map(|list| Arc::clone(&list.body));
    if let Some(body) = cached {
        return Ok(Reply::Full(json_response(200, body.to_vec())));
    }
    let page = store.list(agent, &name.1, "", limits::KV_LIST_BYTES_MAX)?;
    let body = render(&page);
    if body.len() <= limits::KV_CACHED_BYTES_MAX {
        let valid_until = page.entries.iter().filter_map(|entry| entry.expires_at).min().unwrap_or(i64::MAX);
        let mut lists = lock(&ctx.kv_lists.0);
        if lists.len() >= limits::KV_LISTS_CACHED && !lists.contains_key(&name) {
            lists.clear();
        }
        lists.insert(name, CachedList { generation, valid_until, body: body.as_slice().into() });
    }
    Ok(Reply::Full(json_response(200, body)))
}

/// One value.
pub(super) fn get(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let (store, agent) = store_of(ctx, call)?;
    let key = call.params.get("key");
    let Some(entry) = store.get(agent, key)? else {
        return Err(ApiError::not_found(format!("key {} not found", wire::quoted(key))));
    };
    Ok(Reply::Full(json_response(200, rendered(key, &entry.value, None))))
}

/// Stores a value, also over another, for `ttl` (a Go duration) or for good.
pub(super) fn put(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let (store, agent) = store_of(ctx, call)?;
    let body: ValueBody = decode(&call.req.body, "invalid JSON body")?;
    let value = body.value.ok_or_else(|| ApiError::bad_request("value is required"))?;
    let ttl = parse_ttl(&body.ttl).map_err(ApiError::bad_request)?;
    let key = call.params.get("key");
    let expires_at = store.set(agent, key, &value, ttl)?;
    note(ctx, call, "kv.set", &format!("{agent}/{key}"), "");
    Ok(Reply::Full(json_response(200, rendered(key, &value, expires_at))))
}

/// Deletes a value; an unknown one is fine.
pub(super) fn delete(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let (store, agent) = store_of(ctx, call)?;
    let key = call.params.get("key");
    store.delete(agent, key)?;
    note(ctx, call, "kv.delete", &format!("{agent}/{key}"), "");
    Ok(Reply::Full(no_content()))
}

fn store_of<'a>(ctx: &'a Ctx, call: &'a Call<'_>) -> Result<(&'a KvStore, &'a str), ApiError> {
    let missing = || ApiError::new(503, "not_configured", "KV store not configured");
    let store = ctx.deps.kv_store.as_deref().ok_or_else(missing)?;
    let agent = call.params.get("agent");
    match ctx.deps.engine.agents().find(agent) {
        Some(_) => Ok((store, agent)),
        None => Err(ApiError::not_found(format!("agent {} not found", wire::quoted(agent)))),
    }
}

/// None for a value that stays: no duration, or 0.
fn parse_ttl(text: &str) -> Result<Option<Duration>, &'static str> {
    match text {
        "" => Ok(None),
        text => match parse_go_duration(text) {
            Some(ttl) => Ok(Some(ttl).filter(|ttl| !ttl.is_zero())),
            None => Err("ttl must be a duration such as \"90s\" or \"1h30m\", not negative"),
        },
    }
}

fn render(page: &KvPage) -> Vec<u8> {
    let mut out = b"{\"entries\":[".to_vec();
    for (index, entry) in page.entries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_pair(&mut out, &entry.key, &entry.value);
        for (name, time) in [
            ("created_at", Some(entry.created_at)),
            ("updated_at", Some(entry.updated_at)),
            ("expires_at", entry.expires_at),
        ] {
            push_time(&mut out, name, time);
        }
        out.push(b'}');
    }
    out.push(b']');
    if let Some(last) = page.entries.last().filter(|_| page.more) {
        out.extend_from_slice(b",\"next\":");
        wire::push_str(&mut out, &last.key);
    }
    out.extend_from_slice(b"}\n");
    out
}

fn rendered(key: &str, value: &str, expires_at: Option<i64>) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + value.len() + 64);
    push_pair(&mut out, key, value);
    push_time(&mut out, "expires_at", expires_at);
    out.extend_from_slice(b"}\n");
    out
}

/// An object without its end.
fn push_pair(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(b"{\"key\":");
    wire::push_str(out, key);
    out.extend_from_slice(b",\"value\":");
    wire::push_str(out, value);
}

fn push_time(out: &mut Vec<u8>, name: &str, time: Option<i64>) {
    if let Some(time) = time {
        out.extend_from_slice(format!(",\"{name}\":\"{}\"", clock::rfc3339_s(time)).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_are_go_durations() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(parse_ttl(text), Ok(seconds.map(Duration::from_secs)), "{text}");
        };
        check("", None);
        check("0", None);
        check("0s", None);
        check("1h30m", Some(5400));
        for bad in ["-1s", "1d", "soon", "5"] {
            assert!(parse_ttl(bad).is_err(), "{bad}");
        }
    }
}
