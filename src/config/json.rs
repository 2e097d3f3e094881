//! TOML as JSON values: what reads settings needs to know only these.

use serde_json::{Number, Value};
use toml_edit::{Item, TableLike};

/// A table with all below it. Dates are texts, and so are numbers that JSON does not have (`nan`, `inf`): whoever wants
/// a number refuses them.
pub(super) fn of_table(table: &dyn TableLike) -> Value {
    Value::Object(gather(table.iter().map(|(key, item)| (key.to_owned(), of_item(item)))))
}

pub(super) fn of_item(item: &Item) -> Value {
    match item {
        Item::None => Value::Null,
        Item::Table(table) => of_table(table),
        Item::ArrayOfTables(tables) => Value::Array(tables.iter().map(|table| of_table(table)).collect()),
        Item::Value(value) => of_value(value),
    }
}

fn of_value(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::String(text) => Value::String(text.value().clone()),
        toml_edit::Value::Integer(number) => Value::from(*number.value()),
        toml_edit::Value::Float(number) => {
            let number = *number.value();
            Number::from_f64(number).map_or_else(|| Value::String(number.to_string()), Value::Number)
        }
        toml_edit::Value::Boolean(switch) => Value::Bool(*switch.value()),
        toml_edit::Value::Datetime(time) => Value::String(time.value().to_string()),
        toml_edit::Value::Array(values) => Value::Array(values.iter().map(of_value).collect()),
        toml_edit::Value::InlineTable(table) => of_table(table),
    }
}

pub(super) use crate::rt::fields::{FromJson, typed};
use crate::rt::order::gather;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_value_has_its_place() {
        let text =
            "a = 'x'\nb = [1, 2.5, true]\nc = { d = 2026-01-02 }\ne = nan\n[f.g]\nh = -1\n[[i]]\nj = []\n[[i]]\n";
        let doc: toml_edit::DocumentMut = text.parse().unwrap();
        let expected = json!({
            "a": "x", "b": [1, 2.5, true], "c": {"d": "2026-01-02"}, "e": "NaN", "f": {"g": {"h": -1}},
            "i": [{"j": []}, {}],
        });
        assert_eq!(of_table(doc.as_table()), expected);
    }
}
