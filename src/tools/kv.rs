//! What agents remember between turns: the tools over the key-value store (contract engine 7, 8.7). Each agent sees its
//! own keys only.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::parse_go_duration;
use crate::limits;
use crate::llm::ToolSpec;
use crate::rt::clock;
use crate::store::kv::KvEntry;
use crate::store::{KvError, KvStore, StoreError};
use crate::tools::{Tool, ToolContext, ToolError};

#[derive(Clone, Copy)]
enum Action {
    Get,
    List,
    Set,
    SetNx,
    Delete,
}

struct KvTool {
    spec: ToolSpec,
    action: Action,
    store: Arc<KvStore>,
}

/// The tools over a store, in the order they are offered.
pub fn kv_tools(store: &Arc<KvStore>) -> Vec<Arc<dyn Tool>> {
    let text = |description: &str| json!({"type": "string", "description": description});
    let key = text("the key; / may group keys");
    let set = json!({"key": key, "value": text("the text to store"),
        "ttl": text("how long it stays, such as 90s, 15m or 24h; leave it out to keep it for good")});
    let table = [
        (
            Action::Get,
            "kv_get",
            "Reads a text that you stored under a key; null if there is none.",
            json!({"key": key}),
            &["key"][..],
        ),
        (
            Action::List,
            "kv_list",
            "Lists your stored keys with their texts, sorted. Long texts are cut: read them with kv_get. When `next` is \
             there, call again with it as `after`.",
            json!({"prefix": text("only keys that begin with this"), "after": text("only keys behind this one")}),
            &[],
        ),
        (
            Action::Set,
            "kv_set",
            "Stores a text under a key, to be read in later conversations; replaces what was there.",
            set.clone(),
            &["key", "value"],
        ),
        (
            Action::SetNx,
            "kv_set_nx",
            "Stores a text under a key only if there is none: a lock. `acquired` tells whether it did.",
            set,
            &["key", "value"],
        ),
        (Action::Delete, "kv_delete", "Deletes a stored key.", json!({"key": key}), &["key"]),
    ];
    let tool = |(action, name, description, properties, required): (Action, &str, &str, Value, &[&str])| {
        let parameters = json!({"type": "object", "properties": properties, "required": required});
        let spec = ToolSpec { name: name.to_owned(), description: description.to_owned(), parameters };
        Arc::new(KvTool { spec, action, store: Arc::clone(store) }) as Arc<dyn Tool>
    };
    table.into_iter().map(tool).collect()
}

impl Tool for KvTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn read_only(&self) -> bool {
        matches!(self.action, Action::Get | Action::List)
    }

    fn call(&self, arguments: &Value, context: &ToolContext<'_>) -> Result<String, ToolError> {
        let agent = context.agent;
        let result = match self.action {
            Action::List => self.list(agent, arguments)?,
            Action::Get => {
                let entry = self.store.get(agent, required(arguments, "key")?).map_err(failed)?;
                json!({"value": entry.map(|entry| entry.value)})
            }
            Action::Set => {
                let (key, value) = (required(arguments, "key")?, required(arguments, "value")?);
                self.store.set(agent, key, value, ttl(arguments)?).map_err(refused)?;
                json!({"ok": true})
            }
            Action::SetNx => {
                let (key, value) = (required(arguments, "key")?, required(arguments, "value")?);
                json!({"acquired": self.store.set_nx(agent, key, value, ttl(arguments)?).map_err(refused)?})
            }
            Action::Delete => {
                self.store.delete(agent, required(arguments, "key")?).map_err(failed)?;
                json!({"ok": true})
            }
        };
        Ok(result.to_string())
    }
}

impl KvTool {
    /// Bounded, unlike the API's list: one listing must not fill the model's context.
    fn list(&self, agent: &str, arguments: &Value) -> Result<Value, ToolError> {
        let prefix = text(arguments, "prefix")?.unwrap_or("");
        let mut after = text(arguments, "after")?.unwrap_or("").to_owned();
        let (mut entries, mut bytes, mut more) = (Vec::new(), 0, true);
        while more && bytes < limits::KV_TOOL_LIST_BYTES_MAX {
            let page =
                self.store.list(agent, prefix, &after, limits::KV_TOOL_LIST_BYTES_MAX - bytes).map_err(failed)?;
            more = page.more;
            for entry in page.entries {
                if bytes >= limits::KV_TOOL_LIST_BYTES_MAX {
                    more = true;
                    break;
                }
                after.clone_from(&entry.key);
                let shape = shape(entry);
                // Escapes and names count too: what matters is what the model reads.
                bytes += shape.to_string().len();
                entries.push(shape);
            }
        }
        let mut result = json!({"entries": entries});
        if more {
            result["next"] = json!(after);
        }
        Ok(result)
    }
}

fn shape(entry: KvEntry) -> Value {
    let whole = entry.value.len();
    let value = cut(entry.value);
    let mut shape = json!({"key": entry.key, "updated_at": clock::rfc3339_s(entry.updated_at)});
    if value.len() < whole {
        shape["value_bytes"] = json!(whole);
    }
    shape["value"] = json!(value);
    if let Some(expires_at) = entry.expires_at {
        shape["expires_at"] = json!(clock::rfc3339_s(expires_at));
    }
    shape
}

/// At most [`limits::KV_TOOL_VALUE_BYTES_MAX`] bytes, cut between characters.
fn cut(mut value: String) -> String {
    let mut end = value.len().min(limits::KV_TOOL_VALUE_BYTES_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    value.truncate(end);
    value
}

/// A text argument; null counts as not given.
fn text<'a>(arguments: &'a Value, name: &str) -> Result<Option<&'a str>, ToolError> {
    match &arguments[name] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        _ => Err(ToolError::new(format!("{name} must be a text"))),
    }
}

fn required<'a>(arguments: &'a Value, name: &str) -> Result<&'a str, ToolError> {
    text(arguments, name)?.ok_or_else(|| ToolError::new(format!("{name} is required")))
}

fn ttl(arguments: &Value) -> Result<Option<Duration>, ToolError> {
    match text(arguments, "ttl")? {
        None | Some("") => Ok(None),
        Some(text) => match parse_go_duration(text) {
            Some(ttl) => Ok(Some(ttl).filter(|ttl| !ttl.is_zero())),
            None => Err(ToolError::new("ttl must be a duration such as 90s, 15m or 24h, not negative")),
        },
    }
}

fn refused(error: KvError) -> ToolError {
    match error {
        KvError::Store(error) => failed(error),
        other => ToolError::new(other.to_string()),
    }
}

fn failed(error: StoreError) -> ToolError {
    match error {
        StoreError::Full => ToolError::new("the hub's disk is full"),
        StoreError::Busy => ToolError::new("the hub's database is busy; try again"),
        other => {
            log::error!("key-value store: {other}");
            ToolError::new("the hub's database failed; its log has the details")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::Cancel;
    use crate::store::{Db, KvLimits};
    use std::time::Instant;

    fn tools() -> Vec<Arc<dyn Tool>> {
        let limits = KvLimits { keys_max: Some(100), value_bytes_max: 4096 };
        kv_tools(&Arc::new(KvStore::new(Arc::new(Db::in_memory().unwrap()), limits)))
    }

    fn call(tools: &[Arc<dyn Tool>], agent: &str, name: &str, arguments: &Value) -> Result<Value, String> {
        let tool = tools.iter().find(|tool| tool.spec().name == name).unwrap();
        let cancel = Cancel::new();
        let context =
            ToolContext { agent, session_id: "s", identity: "key:a", deadline: Instant::now(), cancel: &cancel };
        tool.call(arguments, &context).map(|text| serde_json::from_str(&text).unwrap()).map_err(|error| error.message)
    }

    #[test]
    fn an_agent_stores_reads_locks_and_deletes_its_own() {
        let tools = tools();
        let run = |agent: &str, name: &str, arguments: Value| call(&tools, agent, name, &arguments).unwrap();
        assert_eq!(run("a", "kv_get", json!({"key": "k"})), json!({"value": null}));
        assert_eq!(run("a", "kv_set", json!({"key": "k", "value": "v", "ttl": null})), json!({"ok": true}));
        assert_eq!(run("a", "kv_get", json!({"key": "k"})), json!({"value": "v"}));
        assert_eq!(run("b", "kv_get", json!({"key": "k"})), json!({"value": null}));
        assert_eq!(run("b", "kv_list", json!({})), json!({"entries": []}));
        let lock = json!({"key": "lock", "value": "1", "ttl": "1h"});
        assert_eq!(run("a", "kv_set_nx", lock.clone()), json!({"acquired": true}));
        assert_eq!(run("a", "kv_set_nx", lock), json!({"acquired": false}));
        let list = run("a", "kv_list", json!({"prefix": "l"}));
        assert_eq!((&list["entries"][0]["key"], &list["entries"][0]["value"]), (&json!("lock"), &json!("1")));
        assert!(list["entries"][0]["expires_at"].is_string() && list["next"].is_null());
        assert_eq!(run("a", "kv_delete", json!({"key": "k"})), json!({"ok": true}));
        assert_eq!(run("a", "kv_get", json!({"key": "k"})), json!({"value": null}));
    }

    #[test]
    fn only_reading_is_read_only_and_mistakes_are_told() {
        let tools = tools();
        let reading: Vec<&str> =
            tools.iter().filter(|tool| tool.read_only()).map(|tool| tool.spec().name.as_str()).collect();
        assert_eq!(reading, ["kv_get", "kv_list"]);
        for (name, arguments, expected) in [
            ("kv_get", json!({}), "key is required"),
            ("kv_get", json!({"key": 1}), "key must be a text"),
            ("kv_set", json!({"key": "k"}), "value is required"),
            ("kv_set", json!({"key": " ", "value": ""}), "the key must not be empty or blank"),
            ("kv_set", json!({"key": "k", "value": "", "ttl": "-1s"}), "ttl must be a duration such as"),
            ("kv_set", json!({"key": "k", "value": "x".repeat(4097)}), "the value has 4097 bytes"),
        ] {
            let error = call(&tools, "a", name, &arguments).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_listing_never_floods_the_context() {
        let tools = tools();
        for number in 0..40 {
            let arguments = json!({"key": format!("k{number:02}"), "value": "\u{1}é".repeat(600)});
            call(&tools, "a", "kv_set", &arguments).unwrap();
        }
        let (mut after, mut seen) = (String::new(), 0);
        loop {
            let list = call(&tools, "a", "kv_list", &json!({"after": after})).unwrap();
            assert!(list.to_string().len() < limits::TOOL_RESULT_BYTES_MAX);
            let entries = list["entries"].as_array().unwrap();
            assert_eq!(entries[0]["value_bytes"], 1800);
            assert!(entries[0]["value"].as_str().unwrap().len() <= limits::KV_TOOL_VALUE_BYTES_MAX);
            seen += entries.len();
            match list["next"].as_str() {
                Some(next) => next.clone_into(&mut after),
                None => break,
            }
        }
        assert_eq!(seen, 40);
    }
}
