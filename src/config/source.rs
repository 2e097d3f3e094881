//! Where a configuration came from, to read it again, and how two of them differ.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde_json::Value;

use super::Config;
use super::edit::Document;
use super::env::Env;
use super::error::{ConfigError, Origin};
use super::load::{Flags, load, load_document};

/// Options and variables of the start: with the file they are the configuration.
#[derive(Clone, Debug, Default)]
pub struct Source {
    flags: Flags,
    env: Env,
}

impl Source {
    pub(super) fn new(flags: &Flags, env: &Env) -> Self {
        Self { flags: flags.clone(), env: env.clone() }
    }

    /// Reads the file again, exactly as a start would.
    pub fn load(&self) -> Result<Config, ConfigError> {
        load(&self.flags, &self.env)
    }

    /// What a start would make of a file that holds this; refuses what a start would refuse.
    pub fn load_document(&self, doc: &Document) -> Result<Config, ConfigError> {
        load_document(doc, &self.flags, &self.env)
    }

    /// The variables of the start.
    pub fn env(&self) -> &Env {
        &self.env
    }
}

/// All keys and values as they were typed. `Debug` hides them: some are secrets.
#[derive(Clone, Default)]
pub struct Tree {
    keys: Value,
    /// Keys that a variable or an option decides, whatever the file says, and its name.
    decided: Vec<(String, String)>,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").finish_non_exhaustive()
    }
}

impl Tree {
    pub(super) fn new(keys: Value, origins: &HashMap<&'static str, Origin>) -> Self {
        let decided = origins.iter().filter_map(|(key, origin)| match origin {
            Origin::Variable(name) => Some(((*key).to_owned(), name.clone())),
            Origin::Flag(name) => Some(((*key).to_owned(), (*name).to_owned())),
            Origin::File(_) => None,
        });
        Self { keys, decided: decided.collect() }
    }

    /// The keys that differ, sorted; lists count as one key.
    pub fn changed_keys(&self, other: &Self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        compare("", &self.keys, &other.keys, &mut found);
        found
    }

    /// The variable or option that decides a key, whatever the file says.
    pub fn decided_by(&self, key: &str) -> Option<&str> {
        self.decided.iter().find(|(known, _)| known == key).map(|(_, name)| name.as_str())
    }

    /// The names in `[notify]`, those of channels that are switched off included.
    pub fn channel_names(&self) -> Vec<String> {
        self.get("notify").and_then(Value::as_object).into_iter().flat_map(|tables| tables.keys().cloned()).collect()
    }

    /// The value at a dotted path.
    pub fn get(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(&self.keys, |value, name| value.get(name))
    }
}

fn compare(path: &str, a: &Value, b: &Value, found: &mut BTreeSet<String>) {
    if a == b {
        return;
    }
    let nothing = serde_json::Map::new();
    // A table that is not there is one without keys.
    let table = |value: &Value| value.is_object() || value.is_null();
    if !table(a) || !table(b) {
        found.insert(path.to_owned());
        return;
    }
    let (a, b) = (a.as_object().unwrap_or(&nothing), b.as_object().unwrap_or(&nothing));
    for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        compare(&below, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_have_names() {
        let tree = |keys: Value| Tree { keys, decided: Vec::new() };
        let a = tree(json!({"api": {"listen": ":1", "rate_limit": 1}, "agents": [{"name": "a"}], "log": {}}));
        let b =
            tree(json!({"api": {"listen": ":2", "rate_limit": 1}, "agents": [{"name": "b"}], "llm": {"x": {"y": 1}}}));
        let found: Vec<String> = a.changed_keys(&b).into_iter().collect();
        assert_eq!(found, ["agents", "api.listen", "llm.x.y"]);
        assert!(a.changed_keys(&a).is_empty());
        assert_eq!(a.get("api.listen"), Some(&json!(":1")));
    }
}
