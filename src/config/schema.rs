//! The walk over a document that finds unknown keys and values of a wrong type before anything looks at them.

use std::collections::BTreeSet;

use toml_edit::{Item, TableLike, Value};

use super::duration::parse_go_duration;
use super::keys::KEYS;
use super::keys::Kind::{self, Bool, Checked, Float, Int, Ints, Map, Secret, Text, Texts, Time};
use crate::rt::text::nearest;

/// What the walk found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Key and what is probably meant.
    pub(super) unknown: Vec<(String, Option<String>)>,
    /// Key and reason, in the order of the file.
    pub(super) wrong: Vec<(String, String)>,
}

/// Checks a whole document, and turns floats without a fraction into integers where integers belong.
pub(super) fn check(root: &mut dyn TableLike) -> Findings {
    let mut findings = Findings::default();
    check_table(root, "", "", &mut findings);
    findings
}

fn check_table(table: &mut dyn TableLike, path: &str, pattern: &str, findings: &mut Findings) {
    for (key, item) in table.iter_mut() {
        let key = key.get().to_owned();
        let (parent, path) = (path, join(path, &key));
        let plain = join(pattern, &key);
        let array = format!("{plain}[]");
        let any = join(pattern, "*");
        if let Some(kind) = kind_of(&plain) {
            check_item(item, kind, &path, findings);
        } else if has_children(&array) {
            check_array(item, &path, &array, findings);
        } else if has_children(&plain) || has_children(&any) {
            let pattern = if has_children(&plain) { plain } else { any };
            match item.as_table_like_mut() {
                Some(table) => check_table(table, &path, &pattern, findings),
                None => findings.wrong.push((path.clone(), format!("must be a table, got {}", shown(item)))),
            }
        } else {
            let meant = nearest(&key, &children(pattern)).map(|name| join(parent, name));
            findings.unknown.push((path, meant));
        }
    }
}

fn check_array(item: &mut Item, path: &str, pattern: &str, findings: &mut Findings) {
    let wrong = format!("must be an array of tables, got {}", shown(item));
    match item {
        Item::ArrayOfTables(tables) => {
            for (at, table) in tables.iter_mut().enumerate() {
                check_table(table, &format!("{path}[{at}]"), pattern, findings);
            }
        }
        Item::Value(Value::Array(values)) => {
            for (at, value) in values.iter_mut().enumerate() {
                let path = format!("{path}[{at}]");
                match value {
                    Value::InlineTable(table) => check_table(table, &path, pattern, findings),
                    _ => findings.wrong.push((path, "must be a table".to_owned())),
                }
            }
        }
        _ => findings.wrong.push((path.to_owned(), wrong)),
    }
}

fn check_item(item: &mut Item, kind: Kind, path: &str, findings: &mut Findings) {
    if matches!(kind, Int) {
        make_whole(item);
    }
    let fits = match kind {
        Text | Secret => item.is_str(),
        Int => item.is_integer(),
        Float => item.as_float().is_some_and(f64::is_finite) || item.is_integer(),
        Bool => item.is_bool(),
        Time => item.as_str().is_some_and(|text| parse_go_duration(text).is_some()),
        Texts => item.as_array().is_some_and(|array| array.iter().all(Value::is_str)),
        Ints => item.as_array().is_some_and(|array| array.iter().all(Value::is_integer)),
        Checked => item.is_table_like(),
        Map => item.as_table_like().is_some_and(|table| table.iter().all(|(_, value)| value.is_str())),
    };
    if fits {
        return;
    }
    let wanted = match kind {
        Text | Secret => "must be text in quotes",
        Int => "must be a whole number",
        Float => "must be a number",
        Bool => "must be true or false",
        Time => "must be a duration such as \"1h30m\" or \"100ms\"",
        Texts => "must be an array of texts",
        Ints => "must be an array of whole numbers",
        Map => "must be a table of texts",
        Checked => "must be a table",
    };
    let reason = match kind {
        Secret | Map | Checked => wanted.to_owned(),
        _ => format!("{wanted}, got {}", shown(item)),
    };
    findings.wrong.push((path.to_owned(), reason));
}

fn make_whole(item: &mut Item) {
    // The range in which every whole float is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Some(float) = item.as_float()
        && float.fract() == 0.0
        && float.abs() <= EXACT
    {
        #[expect(clippy::cast_possible_truncation, reason = "checked above")]
        let whole = float as i64;
        *item = toml_edit::value(whole);
    }
}

/// A value as it goes into a message: bounded, on one line; never called for secrets.
fn shown(item: &Item) -> String {
    let text = match item {
        Item::Value(Value::Array(_)) => return "an array".to_owned(),
        Item::Value(Value::InlineTable(_)) | Item::Table(_) => return "a table".to_owned(),
        Item::ArrayOfTables(_) => return "an array of tables".to_owned(),
        Item::Value(Value::String(text)) => format!("{:?}", text.value()),
        Item::Value(value) => value.to_string(),
        Item::None => String::new(),
    };
    text.trim().chars().take(60).collect()
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn kind_of(pattern: &str) -> Option<Kind> {
    KEYS.iter().find(|(path, _)| *path == pattern).map(|(_, kind)| *kind)
}

fn has_children(pattern: &str) -> bool {
    KEYS.iter().any(|(path, _)| path.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.')))
}

/// The names that may stand directly under `pattern`.
fn children(pattern: &str) -> BTreeSet<&'static str> {
    KEYS.iter()
        .filter_map(|(path, _)| {
            let rest = if pattern.is_empty() { *path } else { path.strip_prefix(pattern)?.strip_prefix('.')? };
            let name = rest.split('.').next()?.trim_end_matches("[]");
            (name != "*").then_some(name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str) -> Findings {
        let mut doc: toml_edit::DocumentMut = text.parse().unwrap();
        check(doc.as_table_mut())
    }

    #[test]
    fn unknown_keys_are_named_with_what_was_meant() {
        let check = |text: &str, key: &str, meant: Option<&str>| {
            let found = find(text);
            assert_eq!(found.unknown, [(key.to_owned(), meant.map(str::to_owned))], "{text}");
            assert!(found.wrong.is_empty());
        };
        check("[api]\nlisten_addr = 1", "api.listen_addr", None);
        check("[api]\nlistn = ':1'", "api.listn", Some("api.listen"));
        check("[api]\nLISTEN = ':1'", "api.LISTEN", Some("api.listen"));
        check("[apii]\nlisten = ':1'", "apii", Some("api"));
        check("[zzz]\na = 1\nb = 2", "zzz", None);
        check("[[agents]]\nname = 'default'\ntier = 'x'", "agents[0].tier", None);
        check("[[agents]]\nnmae = 'default'", "agents[0].nmae", Some("agents[0].name"));
        check("[tools.web]\ncomand = 'x'", "tools.web.comand", Some("tools.web.command"));
        check("api = { listne = ':1' }", "api.listne", Some("api.listen"));
    }

    #[test]
    fn wrong_types_are_named_and_secrets_are_not_shown() {
        let check = |text: &str, key: &str, reason: &str| {
            assert_eq!(find(text).wrong, [(key.to_owned(), reason.to_owned())], "{text}");
        };
        check("[api]\nrate_limit = 'fast'", "api.rate_limit", "must be a number, got \"fast\"");
        check("[api]\nlogin_rate_limit = 1.5", "api.login_rate_limit", "must be a whole number, got 1.5");
        check("[api]\nenabled = 'yes'", "api.enabled", "must be true or false, got \"yes\"");
        check("api = 5", "api", "must be a table, got 5");
        check("[agents]\nname = 'x'", "agents", "must be an array of tables, got a table");
        check("agents = [1]", "agents[0]", "must be a table");
        check("[api.auth]\nsession_secret = 123456", "api.auth.session_secret", "must be text in quotes");
        check("[tools.a.env]\nTOKEN = 123456", "tools.a.env", "must be a table of texts");
        check(
            "[mcp]\nrestart_cooldown = 'soon'",
            "mcp.restart_cooldown",
            "must be a duration such as \"1h30m\" or \"100ms\", got \"soon\"",
        );
        check("[api]\ncors_origins = 'x'", "api.cors_origins", "must be an array of texts, got \"x\"");
    }

    #[test]
    fn whole_floats_are_integers() {
        let mut doc: toml_edit::DocumentMut = "max_tools = 30.0\n[api]\nrate_limit = 5".parse().unwrap();
        let found = check(doc.as_table_mut());
        assert!(found.wrong.is_empty() && found.unknown.is_empty());
        assert_eq!(doc["max_tools"].as_integer(), Some(30));
    }
}
