//! Changes of a document that keep its comments and its order. Values come as JSON: this room alone knows TOML.

use serde_json::{Map, Value};
use toml_edit::{Array, ArrayOfTables, InlineTable, Item, Table, TableLike};

pub use toml_edit::DocumentMut as Document;

use super::error::ConfigError;
use super::writer::implicit_table;

/// Sets a key at a dotted path, or removes it with null. What is the same already is not touched.
///
/// Fails when something on the way is no table.
pub fn set(doc: &mut Document, path: &str, value: &Value) -> Result<(), ConfigError> {
    set_at(doc, &path.split('.').collect::<Vec<_>>(), value)
}

/// The same where names on the way may hold dots.
pub fn set_at(doc: &mut Document, path: &[&str], value: &Value) -> Result<(), ConfigError> {
    let Some((key, tables)) = path.split_last() else { return Ok(()) };
    let mut table: &mut dyn TableLike = doc.as_table_mut();
    for name in tables {
        if value.is_null() && !table.contains_key(name) {
            return Ok(());
        }
        let below = table.entry(name).or_insert_with(implicit_table);
        table = below.as_table_like_mut().ok_or_else(|| odd(&path.join("."), "must be in a table"))?;
    }
    put(table, key, of_json(value));
    Ok(())
}

/// How many tables `[[list]]` has; `list` is a dotted path.
pub fn list_len(doc: &Document, list: &str) -> usize {
    match find(doc, list) {
        Some(Item::ArrayOfTables(tables)) => tables.len(),
        Some(item) => item.as_array().map_or(0, Array::len),
        None => 0,
    }
}

/// The text at a dotted path.
pub fn text(doc: &Document, path: &str) -> Option<String> {
    find(doc, path).and_then(Item::as_str).map(str::to_owned)
}

/// What stands at a path, as JSON.
pub fn value_at(doc: &Document, path: &[&str]) -> Option<Value> {
    path.iter().try_fold(doc.as_item(), |item, name| item.get(name)).map(super::json::of_item)
}

fn find<'a>(doc: &'a Document, path: &str) -> Option<&'a Item> {
    path.split('.').try_fold(doc.as_item(), |item, name| item.get(name))
}

/// Sets a key in the table of `[[list]]` that has this `name`, or removes it with null; false when there is none.
pub fn set_in_list(doc: &mut Document, list: &str, name: &str, key: &str, value: &Value) -> Result<bool, ConfigError> {
    let found = tables(doc, list)?.iter_mut().find(|table| name_of(table) == Some(name));
    Ok(found.map(|table| put(table, key, of_json(value))).is_some())
}

/// Sets a key in every table of `[[list]]` in which it has the value `old`.
pub fn replace_in_list(doc: &mut Document, list: &str, key: &str, old: &str, new: &Value) -> Result<(), ConfigError> {
    if list_len(doc, list) > 0 {
        let all = tables(doc, list)?.iter_mut();
        all.filter(|table| table.get(key).and_then(Item::as_str) == Some(old))
            .for_each(|table| put(table, key, of_json(new)));
    }
    Ok(())
}

/// Gives what stands under a name in the table at a dotted path another name.
pub fn rename_key(doc: &mut Document, path: &str, old: &str, new: &str) {
    let root: Option<&mut dyn TableLike> = Some(doc.as_table_mut());
    let table = path.split('.').fold(root, |table, name| table?.get_mut(name)?.as_table_like_mut());
    if let Some(table) = table
        && let Some(item) = table.remove(old)
    {
        table.insert(new, item);
    }
}

/// Adds a table to `[[list]]`. Keys that are null are left out.
pub fn add_to_list(doc: &mut Document, list: &str, entry: &Map<String, Value>) -> Result<(), ConfigError> {
    let mut table = Table::new();
    for (key, value) in entry {
        put(&mut table, key, of_json(value));
    }
    tables(doc, list)?.push(table);
    Ok(())
}

/// Removes the table of `[[list]]` that has this `name`; false when there is none.
pub fn remove_from_list(doc: &mut Document, list: &str, name: &str) -> Result<bool, ConfigError> {
    if list_len(doc, list) == 0 {
        return Ok(false);
    }
    let tables = tables(doc, list)?;
    let at = tables.iter().position(|table| name_of(table) == Some(name));
    if let Some(at) = at {
        tables.remove(at);
    }
    Ok(at.is_some())
}

/// The table of `[[list]]` that has this `name` as text, comments within it included; None when there is none.
pub fn text_in_list(doc: &mut Document, list: &str, name: &str) -> Result<Option<String>, ConfigError> {
    if list_len(doc, list) == 0 {
        return Ok(None);
    }
    Ok(tables(doc, list)?.iter().find(|table| name_of(table) == Some(name)).map(Table::to_string))
}

/// Puts a text of [`text_in_list`] back in the place of the table of this name, at the end when there is none. Without
/// a text the table is removed.
pub fn put_back_in_list(doc: &mut Document, list: &str, name: &str, text: Option<&str>) -> Result<(), ConfigError> {
    let Some(text) = text else { return remove_from_list(doc, list, name).map(drop) };
    let source: Document = text.parse().map_err(|_| odd(list, "what was kept of it cannot be read"))?;
    let tables = tables(doc, list)?;
    if !tables.iter().any(|table| name_of(table) == Some(name)) {
        let mut table = Table::new();
        table.insert("name", name.into());
        tables.push(table);
    }
    for table in tables.iter_mut().filter(|table| name_of(table) == Some(name)).take(1) {
        table.clear();
        for (key, item) in source.iter() {
            match source.key(key) {
                Some(formatted) => table.insert_formatted(formatted, item.clone()),
                None => table.insert(key, item.clone()),
            };
        }
    }
    Ok(())
}

/// Whether two texts of [`text_in_list`] say the same, however they are spelled.
pub fn says_same(a: &str, b: &str) -> bool {
    let read = |text: &str| text.parse::<Document>().ok().map(|doc| super::json::of_table(doc.as_table()));
    a == b || read(a).is_some_and(|a| Some(a) == read(b))
}

fn name_of(table: &Table) -> Option<&str> {
    table.get("name").and_then(Item::as_str)
}

/// The tables of `[[list]]`, made when there are none. `list = [{..}]` becomes tables: it says the same.
fn tables<'a>(doc: &'a mut Document, list: &str) -> Result<&'a mut ArrayOfTables, ConfigError> {
    let (parents, name) = list.rsplit_once('.').unwrap_or(("", list));
    let mut table: &mut dyn TableLike = doc.as_table_mut();
    for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
        let below = table.entry(parent).or_insert_with(implicit_table);
        table = below.as_table_like_mut().ok_or_else(|| odd(list, "must be in a table"))?;
    }
    let item = table.entry(name).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    if let Item::Value(toml_edit::Value::Array(_)) = item {
        let values = std::mem::take(item);
        *item = match values.into_array_of_tables() {
            Ok(tables) => Item::ArrayOfTables(tables),
            // An empty list is no list of tables yet.
            Err(Item::Value(toml_edit::Value::Array(values))) if values.is_empty() => {
                Item::ArrayOfTables(ArrayOfTables::new())
            }
            Err(other) => other,
        };
    }
    item.as_array_of_tables_mut().ok_or_else(|| odd(list, "must be an array of tables"))
}

fn odd(key: &str, reason: &str) -> ConfigError {
    ConfigError::Edit { path: std::path::PathBuf::new(), reason: format!("{key}: {reason}") }
}

/// None for null, which TOML does not have.
fn of_json(value: &Value) -> Option<Item> {
    if let Value::Array(entries) = value
        && !entries.is_empty()
        && entries.iter().all(Value::is_object)
    {
        let mut tables = ArrayOfTables::new();
        for entry in entries.iter().filter_map(Value::as_object) {
            let mut table = Table::new();
            for (key, value) in entry {
                put(&mut table, key, of_json(value));
            }
            tables.push(table);
        }
        return Some(Item::ArrayOfTables(tables));
    }
    value_of(value).map(Item::Value)
}

fn value_of(value: &Value) -> Option<toml_edit::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(switch) => (*switch).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64()?.into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(values) => toml_edit::Value::Array(values.iter().filter_map(value_of).collect::<Array>()),
        Value::Object(entries) => {
            let entries = entries.iter().filter_map(|(key, value)| Some((key.as_str(), value_of(value)?)));
            toml_edit::Value::InlineTable(entries.collect::<InlineTable>())
        }
    })
}

/// Sets a key, or removes it. What is the same already is not touched: its spelling and its comments stay.
pub(super) fn put(table: &mut dyn TableLike, key: &str, new: Option<Item>) {
    let Some(new) = new else {
        table.remove(key);
        return;
    };
    match (table.get_mut(key), new) {
        (Some(old), new) if is_same(old, &new) => {}
        (Some(Item::Value(old)), Item::Value(mut new)) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        (_, new) => {
            table.insert(key, new);
        }
    }
}

/// Whether two items say the same, however they are spelled. `[tools.x.env]` and `env = {..}` are the same.
fn is_same(a: &Item, b: &Item) -> bool {
    super::json::of_item(a) == super::json::of_item(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn edited(text: &str, edit: impl FnOnce(&mut Document)) -> String {
        let mut doc: Document = text.parse().unwrap();
        edit(&mut doc);
        let text = doc.to_string();
        text.parse::<Document>().unwrap();
        text
    }

    #[test]
    fn keys_are_set_and_removed_where_they_stand() {
        let text = "# top\n[api] # mine\nlisten = ':1' # here\n\n[log]\nlevel = 'info'\n";
        let set_one = |path: &str, value: Value| edited(text, |doc| set(doc, path, &value).unwrap());
        assert_eq!(set_one("api.listen", json!(":1")), text, "the same, spelled otherwise");
        assert_eq!(set_one("api.listen", json!(":2")), text.replace("':1'", "\":2\""));
        assert_eq!(set_one("log.level", Value::Null), "# top\n[api] # mine\nlisten = ':1' # here\n\n[log]\n");
        assert_eq!(set_one("nothing.here.at", Value::Null), text);
        let text = set_one("llm.openai.api_key", json!("k"));
        assert!(text.contains("[llm.openai]\napi_key = \"k\"") && !text.contains("[llm]\n"), "{text}");
        let text = edited("", |doc| {
            set(doc, "llm.default_model", &json!("m")).unwrap();
            set(doc, "llm.cost_limit_hard", &json!(2.5)).unwrap();
        });
        assert_eq!(text, "[llm]\ndefault_model = \"m\"\ncost_limit_hard = 2.5\n");
        let mut doc: Document = "api = 5".parse().unwrap();
        assert!(set(&mut doc, "api.listen", &json!("x")).is_err());
    }

    #[test]
    fn a_table_of_a_list_is_put_back_as_it_was() {
        let text = "[[schedules]] # first\n# at night\nname = 'a' # mine\ntags = ['x']\n\n[[schedules]]\nname = 'b'\n";
        let mut kept = None;
        let found = edited(text, |doc| {
            kept = text_in_list(doc, "schedules", "a").unwrap();
            assert!(set_in_list(doc, "schedules", "a", "tags", &Value::Null).unwrap());
            assert!(!says_same(&text_in_list(doc, "schedules", "a").unwrap().unwrap(), kept.as_ref().unwrap()));
            put_back_in_list(doc, "schedules", "a", kept.as_deref()).unwrap();
        });
        assert_eq!(found, text);
        let found = edited(text, |doc| {
            put_back_in_list(doc, "schedules", "a", None).unwrap();
            assert_eq!(text_in_list(doc, "schedules", "a").unwrap(), None);
            put_back_in_list(doc, "schedules", "a", kept.as_deref()).unwrap();
        });
        assert!(
            found.trim_start().starts_with("[[schedules]]\nname = 'b'\n") && found.contains("name = 'a' # mine\n"),
            "{found}"
        );
        assert!(says_same("a = 'b'", "  a=\"b\" # c") && !says_same("a = 1", "") && !says_same("=", "=="));
    }

    #[test]
    fn tables_of_a_list_are_found_by_their_name() {
        let text = "[[agents]]\nname = 'default' # first\n\n[[agents]]\n# b\nname = 'b'\nsession_tier = 'restricted'\n";
        let found = edited(text, |doc| {
            assert!(set_in_list(doc, "agents", "b", "llm_model", &json!("m")).unwrap());
            assert!(!set_in_list(doc, "agents", "c", "llm_model", &json!("m")).unwrap());
            let rules = json!([{"trigger": "error", "action": "switch_model", "model": "x"}]);
            assert!(set_in_list(doc, "agents", "default", "fallback", &rules).unwrap());
            add_to_list(doc, "agents", json!({"name": "c", "description": null}).as_object().unwrap()).unwrap();
        });
        assert!(found.contains("'default' # first") && found.contains("# b\nname = 'b'"), "{found}");
        let doc: Document = found.parse().unwrap();
        let all = super::super::json::of_table(doc.as_table());
        assert_eq!(all["agents"][0]["fallback"][0]["model"], "x");
        assert_eq!((&all["agents"][1]["llm_model"], &all["agents"][2]), (&json!("m"), &json!({"name": "c"})));
        assert_eq!(list_len(&doc, "agents"), 3);
        let found = edited("agents = [{ name = 'default' }]\n", |doc| {
            add_to_list(doc, "agents", json!({"name": "b"}).as_object().unwrap()).unwrap();
            assert!(remove_from_list(doc, "agents", "default").unwrap());
            assert!(!remove_from_list(doc, "schedules", "default").unwrap());
        });
        assert_eq!(found.trim().replace(" ]]", "]]"), "[[agents]]\nname = \"b\"");
        let found = edited("[[schedules]]\nagent = 'a'\n[[schedules]]\nagent = 'b'\n", |doc| {
            replace_in_list(doc, "schedules", "agent", "a", &json!("c")).unwrap();
            replace_in_list(doc, "agents", "name", "a", &json!("c")).unwrap();
        });
        assert_eq!(found, "[[schedules]]\nagent = \"c\"\n[[schedules]]\nagent = 'b'\n");
        let found = edited("[costs.agents.a]\ndaily_limit_hard = 1\n", |doc| {
            rename_key(doc, "costs.agents", "a", "b");
            rename_key(doc, "costs.agents", "a", "b");
            rename_key(doc, "costs.keys", "a", "b");
        });
        assert_eq!(found, "[costs.agents.b]\ndaily_limit_hard = 1\n");
    }
}
