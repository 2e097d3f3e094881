//! TOML as JSON values: what reads settings needs to know only these. And structs that are read from them.
//!
//! Reading with serde would be 200 KB of machine code, half of all that the configuration needs: it knows nothing of
//! what the schema has checked already.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use serde_json::{Map, Number, Value};
use toml_edit::{Item, TableLike};

/// A table with all below it. Dates are texts, and so are numbers that JSON does not have (`nan`, `inf`): whoever wants
/// a number refuses them.
pub(super) fn of_table(table: &dyn TableLike) -> Value {
    Value::Object(table.iter().map(|(key, item)| (key.to_owned(), of_item(item))).collect())
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

/// What can be read from a value.
#[diagnostic::on_unimplemented(message = "list the fields of `{Self}`: typed!({Self} {{ one, other }}) (config::json)")]
pub(super) trait FromJson {
    /// Takes what the value holds; false when something is of another type than expected. What is not in the value
    /// stays as it is.
    fn take(&mut self, value: &Value) -> bool;
}

/// Makes a struct readable: `typed!(Schedule { name, kind: "type" })`, where `type` is the key of the field `kind`.
macro_rules! typed {
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    ($name:ident { $($field:ident $(: $key:literal)?),* $(,)? }) => {
        impl $crate::config::json::FromJson for $name {
            fn take(&mut self, value: &serde_json::Value) -> bool {
                // All of them, or it does not compile.
                let Self { $($field),* } = self;
                let serde_json::Value::Object(table) = value else { return false };
                let mut fits = true;
                $(fits &= $crate::config::json::field(
                    table, $crate::config::json::typed!(@key $field $($key)?), $field,
                );)*
                fits
            }
        }
    };
}
pub(super) use typed;

/// Reads one key of a table, if it is there.
#[inline(never)]
pub(super) fn field<T: FromJson>(table: &Map<String, Value>, key: &str, slot: &mut T) -> bool {
    table.get(key).is_none_or(|value| slot.take(value))
}

impl FromJson for String {
    fn take(&mut self, value: &Value) -> bool {
        value.as_str().map(|text| text.clone_into(self)).is_some()
    }
}

impl FromJson for bool {
    fn take(&mut self, value: &Value) -> bool {
        value.as_bool().map(|switch| *self = switch).is_some()
    }
}

impl FromJson for i64 {
    fn take(&mut self, value: &Value) -> bool {
        value.as_i64().map(|number| *self = number).is_some()
    }
}

impl FromJson for f64 {
    fn take(&mut self, value: &Value) -> bool {
        value.as_f64().map(|number| *self = number).is_some()
    }
}

impl FromJson for Map<String, Value> {
    fn take(&mut self, value: &Value) -> bool {
        value.as_object().map(|table| table.clone_into(self)).is_some()
    }
}

impl<T: FromJson + Default> FromJson for Option<T> {
    fn take(&mut self, value: &Value) -> bool {
        self.insert(T::default()).take(value)
    }
}

impl<T: FromJson + Default> FromJson for Vec<T> {
    fn take(&mut self, value: &Value) -> bool {
        let Value::Array(values) = value else { return false };
        values.iter().all(|value| {
            let mut item = T::default();
            let fits = item.take(value);
            self.push(item);
            fits
        })
    }
}

impl<T: FromJson + Default> FromJson for BTreeMap<String, T> {
    fn take(&mut self, value: &Value) -> bool {
        let Value::Object(table) = value else { return false };
        table.iter().all(|(key, value)| self.entry(key.clone()).or_default().take(value))
    }
}

impl<T: FromJson + Default, S: BuildHasher> FromJson for HashMap<String, T, S> {
    fn take(&mut self, value: &Value) -> bool {
        let Value::Object(table) = value else { return false };
        table.iter().all(|(key, value)| self.entry(key.clone()).or_default().take(value))
    }
}

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

    #[derive(Debug, Default, PartialEq)]
    struct Inner {
        kind: String,
        sizes: Vec<i64>,
    }

    #[derive(Debug, Default, PartialEq)]
    struct Outer {
        inner: Inner,
        by_name: BTreeMap<String, Inner>,
        rate: f64,
        on: Option<bool>,
    }

    typed!(Inner { kind: "type", sizes });
    typed!(Outer { inner, by_name, rate, on });

    #[test]
    fn structs_take_what_is_there() {
        let mut outer = Outer::default();
        assert!(outer.take(&json!({
            "inner": {"type": "x", "kind": "no", "unknown": []}, "by_name": {"a": {"sizes": [1, 2]}}, "rate": 3,
        })));
        let expected = Outer {
            inner: Inner { kind: "x".to_owned(), sizes: vec![] },
            by_name: BTreeMap::from([("a".to_owned(), Inner { kind: String::new(), sizes: vec![1, 2] })]),
            rate: 3.0,
            on: None,
        };
        assert_eq!(outer, expected);
        assert!(outer.take(&json!({"on": true})) && outer.on == Some(true) && outer.inner == expected.inner);
        for wrong in [json!(1), json!({"on": 1}), json!({"inner": {"sizes": ["a"]}}), json!({"by_name": {"a": []}})] {
            assert!(!Outer::default().take(&wrong), "{wrong}");
        }
    }
}
