//! A typed view on one table of a configuration file: every getter notes its key, so that what is left is unknown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use super::duration::parse_go_duration;
use super::env::Env;
use super::secret;
use crate::rt::text::nearest;

/// A key and why its value is refused. Never holds a secret.
pub type BadKey = (String, String);

/// One table. Absent keys and empty texts are the same.
pub(super) struct Table<'a> {
    path: String,
    values: &'a Map<String, Value>,
    env: &'a Env,
    data_dir: &'a Path,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Table<'a> {
    /// The table at `path`.
    pub(super) fn new(path: String, value: &'a Value, env: &'a Env, data_dir: &'a Path) -> Result<Self, BadKey> {
        match value {
            Value::Object(values) => Ok(Self { path, values, env, data_dir, asked: RefCell::default() }),
            _ => Err((path, "must be a table".to_owned())),
        }
    }

    /// A refusal of one of its keys.
    pub(super) fn bad(&self, key: &str, reason: impl Into<String>) -> BadKey {
        (format!("{}.{key}", self.path), reason.into())
    }

    fn get(&self, key: &'static str) -> Option<&'a Value> {
        self.asked.borrow_mut().push(key);
        self.values.get(key)
    }

    fn typed<T>(
        &self,
        key: &'static str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, BadKey> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.bad(key, wanted))
    }

    /// Text, trimmed; None when it is empty.
    pub(super) fn text(&self, key: &'static str) -> Result<Option<&'a str>, BadKey> {
        let found = self.typed(key, "must be text in quotes", Value::as_str)?;
        Ok(found.map(str::trim).filter(|text| !text.is_empty()))
    }

    /// Text that must be there.
    pub(super) fn needed(&self, key: &'static str) -> Result<String, BadKey> {
        self.text(key)?.map(str::to_owned).ok_or_else(|| self.bad(key, "must be given"))
    }

    /// A secret: itself, `${NAME}`, `env:NAME`, `file:/path` or `sealed:...`.
    pub(super) fn secret(&self, key: &'static str) -> Result<Option<String>, BadKey> {
        let text = self.typed(key, "must be text in quotes", Value::as_str)?;
        text.map_or(Ok(None), |text| self.reveal(key, text))
    }

    fn reveal(&self, key: &str, text: &str) -> Result<Option<String>, BadKey> {
        secret::reveal(text, self.env, self.data_dir).map_err(|reason| self.bad(key, reason))
    }

    /// True or false.
    pub(super) fn flag(&self, key: &'static str, default: bool) -> Result<bool, BadKey> {
        Ok(self.typed(key, "must be true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A whole number from `min` to `max`.
    pub(super) fn number(&self, key: &'static str, min: u32, max: u32) -> Result<Option<u32>, BadKey> {
        let wanted = format!("must be a whole number from {min} to {max}");
        let read = |value: &Value| u32::try_from(value.as_i64()?).ok().filter(|number| (min..=max).contains(number));
        self.typed(key, &wanted, read)
    }

    /// A duration above zero, at most `max`.
    pub(super) fn time(&self, key: &'static str, max: Duration) -> Result<Option<Duration>, BadKey> {
        let wanted = format!("must be a duration such as \"90s\" or \"1h30m\", at most {} s", max.as_secs());
        let read = |value: &Value| parse_go_duration(value.as_str()?).filter(|time| !time.is_zero() && *time <= max);
        self.typed(key, &wanted, read)
    }

    /// One of a few words.
    pub(super) fn word(&self, key: &'static str, words: &[&'static str]) -> Result<Option<&'static str>, BadKey> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let found = words.iter().find(|word| word.eq_ignore_ascii_case(text));
        found.copied().map(Some).ok_or_else(|| self.bad(key, format!("must be one of {}", words.join(", "))))
    }

    /// An array of texts, or one text.
    pub(super) fn texts(&self, key: &'static str) -> Result<Vec<String>, BadKey> {
        let read = |value: &Value| match value {
            Value::String(text) => Some(vec![text.trim().to_owned()]),
            Value::Array(list) => list.iter().map(|text| Some(text.as_str()?.trim().to_owned())).collect(),
            _ => None,
        };
        Ok(self.typed(key, "must be an array of texts", read)?.unwrap_or_default())
    }

    /// A table of texts; each may be a secret.
    pub(super) fn map(&self, key: &'static str) -> Result<BTreeMap<String, String>, BadKey> {
        let wanted = "must be a table of texts";
        let Some(map) = self.typed(key, wanted, Value::as_object)? else { return Ok(BTreeMap::new()) };
        let mut texts = BTreeMap::new();
        for (name, value) in map {
            let text = value.as_str().ok_or_else(|| self.bad(key, wanted))?;
            texts.insert(name.clone(), self.reveal(key, text)?.unwrap_or_default());
        }
        Ok(texts)
    }

    /// A table below this one.
    pub(super) fn below(&self, key: &'static str) -> Result<Option<Table<'a>>, BadKey> {
        let path = format!("{}.{key}", self.path);
        self.get(key).map(|value| Table::new(path, value, self.env, self.data_dir)).transpose()
    }

    /// Refuses keys that nobody asked for.
    pub(super) fn finish(self) -> Result<(), BadKey> {
        let asked = self.asked.borrow();
        let Some(unknown) = self.values.keys().find(|key| !asked.contains(&key.as_str())) else { return Ok(()) };
        let hint = nearest(unknown, asked.iter()).map_or_else(String::new, |name| format!("; did you mean {name}?"));
        Err(self.bad(unknown, format!("unknown key{hint}")))
    }
}
