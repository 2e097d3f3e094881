//! Agents are made, changed, renamed and removed (contract 4.1; W-27, W-46). Everything is checked before anything is
//! done, and is one change of the configuration.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::api::agents;
use crate::api::audit::note;
use crate::api::error::ApiError;
use crate::api::fields::{Fields, setting, wrong};
use crate::api::login::json_line;
use crate::api::message::{Reply, no_content};
use crate::api::routes::Call;
use crate::api::server::Ctx;
use crate::api::settings::Changed;
use crate::config::{Config, ConfigError, Document, edit};
use crate::rt::json::quoted;

/// The agent that cannot go.
const DEFAULT: &str = "default";
const NAME_BYTES_MAX: usize = 64;

/// A new agent.
pub(super) fn create(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let fields = Fields::of(&call.req.body)?;
    let name = fields.text("name")?.unwrap_or_default();
    check_name(name)?;
    let wishes = wishes(&fields)?;
    if ctx.deps.engine.agents().find(name).is_some() {
        return Err(taken());
    }
    let mut entry = Map::from_iter([("name".to_owned(), Value::from(name))]);
    entry.extend(wishes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    ctx.deps.settings.change(&mut |doc| {
        write_down_default(doc)?;
        edit::add_to_list(doc, "agents", &entry)
    })?;
    note(ctx, call, "agent.create", name, &keys(&wishes));
    Ok(Reply::Full(json_line(201, &agents::detail(ctx, name)?)))
}

/// Changes what is given.
pub(super) fn change(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let name = call.params.get("name");
    let all = ctx.deps.engine.agents();
    all.find(name).ok_or_else(not_found)?;
    let fields = Fields::of(&call.req.body)?;
    let new_name = fields.text("name")?.unwrap_or(name);
    let wishes = wishes(&fields)?;
    if new_name != name {
        if name == DEFAULT {
            return Err(ApiError::bad_request("cannot rename the default agent"));
        }
        check_name(new_name)?;
        if all.find(new_name).is_some() {
            return Err(taken());
        }
    }
    let changed = if new_name == name {
        ctx.deps.settings.change(&mut |doc| write(doc, name, name, &wishes))?
    } else {
        rename(ctx, name, new_name, &wishes)?
    };
    let detail = if new_name == name { keys(&wishes) } else { format!("name {}; {}", quoted(new_name), keys(&wishes)) };
    note(ctx, call, "agent.change", name, &detail);
    Ok(Reply::Full(json_line(200, &told(json!({"name": new_name, "status": "updated"}), &changed))))
}

/// Removes an agent. Its conversations stay readable.
pub(super) fn delete(ctx: &Ctx, call: &Call<'_>) -> Result<Reply, ApiError> {
    let name = call.params.get("name");
    ctx.deps.engine.agents().find(name).ok_or_else(not_found)?;
    if name == DEFAULT {
        return Err(ApiError::bad_request("cannot delete the default agent"));
    }
    let config = ctx.deps.settings.current();
    let schedules = schedules_of(&config, name);
    if !schedules.is_empty() {
        let text = format!("schedules run with this agent: {}; change or delete them first", schedules.join(", "));
        return Err(ApiError::new(409, "agent_in_use", text));
    }
    ctx.deps.settings.change(&mut |doc| edit::remove_from_list(doc, "agents", name).map(drop))?;
    note(ctx, call, "agent.delete", name, "");
    Ok(Reply::Full(no_content()))
}

/// What a change says beside its own words: which settings count only after a restart.
pub(super) fn told(mut shape: Value, changed: &Changed) -> Value {
    if !changed.restart.is_empty() {
        shape["restart_required"] = json!(changed.restart);
    }
    shape
}

/// File, running hub, stored rows and directory, in this order; the file goes back when the rows cannot follow.
fn rename(ctx: &Ctx, old: &str, new: &str, wishes: &Wishes) -> Result<Changed, ApiError> {
    let config = ctx.deps.settings.current();
    // A directory that the file names stays where it is.
    let named = config.agents.iter().find(|agent| agent.name == old).map(|agent| agent.persona_dir.clone());
    let (from, to) = (config.data_dir.join("agents").join(old), config.data_dir.join("agents").join(new));
    let moves = named.is_some_and(|dir| dir == from) && from.exists();
    if moves && to.exists() {
        let text = format!("agent name already exists: there is a directory of a former agent {}", quoted(new));
        return Err(ApiError::new(409, "agent_exists", text));
    }
    ctx.deps.engine.expect_rename(old, new);
    let changed = ctx.deps.settings.change(&mut |doc| write(doc, old, new, wishes))?;
    if let Err(error) = ctx.deps.engine.rename_stored(old, new) {
        if let Err(error) = ctx.deps.settings.change(&mut |doc| write(doc, new, old, &Vec::new())) {
            log::error!("give agent {new} its name {old} back: {error}");
        }
        let internal = ApiError::from(error);
        return Err(ApiError { message: format!("renaming agent: {}", internal.message), ..internal });
    }
    if moves {
        move_directory(&from, &to);
    }
    Ok(changed)
}

fn move_directory(from: &Path, to: &Path) {
    if let Err(error) = std::fs::rename(from, to) {
        log::error!("move {} to {}: {error}; move it by hand", from.display(), to.display());
    }
}

/// Puts what is wished into the agent's table, under its old name, and everything that names it.
fn write(doc: &mut Document, old: &str, new: &str, wishes: &Wishes) -> Result<(), ConfigError> {
    write_down_default(doc)?;
    for (key, value) in wishes {
        edit::set_in_list(doc, "agents", old, key, value)?;
    }
    if old != new {
        edit::set_in_list(doc, "agents", old, "name", &json!(new))?;
        edit::replace_in_list(doc, "schedules", "agent", old, &json!(new))?;
        edit::rename_key(doc, "costs.agents", old, new);
    }
    Ok(())
}

/// The agent that is made up while the file has none has no table to write to: it gets one, with what it has now.
fn write_down_default(doc: &mut Document) -> Result<(), ConfigError> {
    if edit::list_len(doc, "agents") > 0 {
        return Ok(());
    }
    let mut entry = Map::from_iter([("name".to_owned(), Value::from(DEFAULT))]);
    for key in ["persona_dir", "skills_dir"] {
        if let Some(dir) = edit::text(doc, &format!("agent.{key}")) {
            entry.insert(key.to_owned(), Value::from(dir));
        }
    }
    edit::add_to_list(doc, "agents", &entry)
}

/// Keys of `[[agents]]` and their values; null removes one.
type Wishes = Vec<(&'static str, Value)>;

/// What a body wishes, checked as far as the field itself goes; the rest is what a start would check.
fn wishes(fields: &Fields) -> Result<Wishes, ApiError> {
    let mut wishes: Wishes = Vec::new();
    if let Some(tier) = fields.text("session_tier")? {
        if !["autonomous", "supervised", "restricted"].contains(&tier) {
            let text = "invalid session_tier: must be autonomous, supervised, or restricted";
            return Err(ApiError::bad_request(text));
        }
        wishes.push(("session_tier", json!(tier)));
    }
    for key in ["llm_model", "llm_provider", "description"] {
        if let Some(text) = fields.text(key)? {
            wishes.push((key, setting(text)));
        }
    }
    for key in ["browser_url_allowlist", "auto_approve_tools", "adapters"] {
        if let Some(texts) = fields.texts(key)? {
            wishes.push((key, if texts.is_empty() { Value::Null } else { json!(texts) }));
        }
    }
    for key in ["cost_limit_soft", "cost_limit_hard"] {
        // Null is a wish of its own: the general limit counts again.
        if let Some(value) = fields.get(key) {
            fields.number(key)?;
            wishes.push((key, value.clone()));
        }
    }
    if let Some(value) = fields.get("fallbacks").filter(|value| !value.is_null()) {
        let rules = value.as_array().ok_or_else(|| wrong("fallbacks", "must be a list of rules"))?;
        let rules: Result<Vec<Value>, ApiError> =
            rules.iter().enumerate().map(|(at, rule)| fallback(at, rule)).collect();
        let rules = rules?;
        wishes.push(("fallback", if rules.is_empty() { Value::Null } else { Value::Array(rules) }));
    }
    Ok(wishes)
}

/// One rule, in the contract's words when it is wrong.
fn fallback(at: usize, value: &Value) -> Result<Value, ApiError> {
    let rule = value.as_object().ok_or_else(|| wrong("fallbacks", "must be a list of rules"))?;
    let refuse = |reason: String| Err(ApiError::bad_request(format!("config: llm.fallback[{at}]: {reason}")));
    let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| rule.get(key).and_then(Value::as_f64).unwrap_or_default();
    let (trigger, action, backoff) = (text("trigger"), text("action"), text("backoff"));
    if !["error", "rate_limit", "low_funds"].contains(&trigger) {
        return refuse(format!("invalid trigger {}", quoted(trigger)));
    }
    match action {
        "switch_provider" if text("provider").is_empty() => {
            return refuse("action \"switch_provider\" requires provider field".to_owned());
        }
        "switch_model" if text("model").is_empty() => {
            return refuse("action \"switch_model\" requires model field".to_owned());
        }
        "wait_and_retry" if number("max_retries") <= 0.0 => {
            return refuse("action \"wait_and_retry\" requires max_retries > 0".to_owned());
        }
        "switch_provider" | "switch_model" | "wait_and_retry" => {}
        other => return refuse(format!("invalid action {}", quoted(other))),
    }
    if trigger == "low_funds" && number("threshold") <= 0.0 {
        return refuse("trigger \"low_funds\" requires threshold > 0".to_owned());
    }
    if !["", "exponential", "constant"].contains(&backoff) {
        let reason = format!("invalid backoff {} \u{2014} must be \"exponential\" or \"constant\"", quoted(backoff));
        return refuse(reason);
    }
    let mut kept = Map::new();
    for key in ["trigger", "action", "provider", "model", "backoff"] {
        if !text(key).is_empty() {
            kept.insert(key.to_owned(), Value::from(text(key)));
        }
    }
    for key in ["threshold", "max_retries"] {
        if let Some(value) = rule.get(key).filter(|_| number(key) > 0.0) {
            kept.insert(key.to_owned(), value.clone());
        }
    }
    Ok(Value::Object(kept))
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let parts_are_plain = name.split('-').all(|part| !part.is_empty() && part.bytes().all(plain));
    if name.len() <= NAME_BYTES_MAX && parts_are_plain {
        return Ok(());
    }
    let text = "invalid agent name: must be lowercase alphanumeric with hyphens, max 64 chars";
    Err(ApiError::bad_request(text))
}

fn schedules_of(config: &Config, agent: &str) -> Vec<String> {
    let all = config.tree.get("schedules").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let names = all.iter().filter(|schedule| schedule["agent"] == agent).map(|schedule| &schedule["name"]);
    names.map(|name| name.as_str().unwrap_or_default().to_owned()).collect()
}

/// The names of what is changed; values are for those who may read them.
fn keys(wishes: &Wishes) -> String {
    wishes.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", ")
}

fn not_found() -> ApiError {
    ApiError::not_found("agent not found")
}

fn taken() -> ApiError {
    ApiError::new(409, "agent_exists", "agent name already exists")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_refused_in_the_words_of_the_contract() {
        let check = |rule: Value, expected: &str| {
            let told = fallback(2, &rule).err().map(|error| error.message).unwrap_or_default();
            assert_eq!(told.strip_prefix("config: llm.fallback[2]: ").unwrap_or(&told), expected, "{rule}");
        };
        check(json!({"trigger": "x"}), "invalid trigger \"x\"");
        check(json!({"trigger": "error", "action": "x"}), "invalid action \"x\"");
        check(
            json!({"trigger": "error", "action": "switch_provider"}),
            "action \"switch_provider\" requires provider field",
        );
        check(json!({"trigger": "error", "action": "switch_model"}), "action \"switch_model\" requires model field");
        check(
            json!({"trigger": "error", "action": "wait_and_retry"}),
            "action \"wait_and_retry\" requires max_retries > 0",
        );
        check(
            json!({"trigger": "low_funds", "action": "switch_model", "model": "m"}),
            "trigger \"low_funds\" requires threshold > 0",
        );
        check(
            json!({"trigger": "error", "action": "wait_and_retry", "max_retries": 1, "backoff": "x"}),
            "invalid backoff \"x\" \u{2014} must be \"exponential\" or \"constant\"",
        );
        let good =
            json!({"trigger": "low_funds", "action": "switch_model", "model": "m", "threshold": 1.5, "max_retries": 0});
        let kept = json!({"trigger": "low_funds", "action": "switch_model", "model": "m", "threshold": 1.5});
        assert_eq!(fallback(0, &good).unwrap(), kept);
    }

    #[test]
    fn names_are_lower_case_parts() {
        for (name, good) in [
            ("a", true),
            ("a-1-b", true),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("a--b", false),
            ("A", false),
            ("a_b", false),
        ] {
            assert_eq!(check_name(name).is_ok(), good, "{name}");
        }
        assert!(check_name(&"a".repeat(64)).is_ok() && check_name(&"a".repeat(65)).is_err());
    }
}
