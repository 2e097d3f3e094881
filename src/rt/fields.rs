//! Structs that are read from JSON values, field by field, and written as such.
//!
//! What serde derives is 3 to 6 KB of machine code for each struct and direction. This is a call for each field: what is
//! not in the object stays as it is, `null` is not given, unknown keys are ignored.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use serde_json::{Map, Value};

/// What can be read from a value.
#[diagnostic::on_unimplemented(message = "list the fields of `{Self}`: typed!({Self} {{ one, other }}) (rt::fields)")]
pub trait FromJson {
    /// Takes what the value holds; false when something is of another type than expected. What is not in the value
    /// stays as it is.
    fn take(&mut self, value: Value) -> bool;
}

/// What can be written as a value.
pub trait ToJson {
    fn to_json(&self) -> Value;
    /// Whether it may be left out: it is empty, zero or false.
    fn is_unset(&self) -> bool;
}

/// Makes a struct readable: `typed!(Schedule { name, kind: "type" })`, where `type` is the key of the field `kind`. It
/// is `Deserialize` with it.
macro_rules! typed {
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    ($name:ident { $($field:ident $(: $key:literal)?),* $(,)? }) => {
        impl $crate::rt::fields::FromJson for $name {
            fn take(&mut self, value: serde_json::Value) -> bool {
                // All of them, or it does not compile.
                let Self { $($field),* } = self;
                let serde_json::Value::Object(mut table) = value else { return false };
                let mut fits = true;
                $(fits &= $crate::rt::fields::field(
                    &mut table, $crate::rt::fields::typed!(@key $field $($key)?), $field,
                );)*
                fits
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::rt::fields::read(<serde_json::Value as serde::Deserialize>::deserialize(deserializer)?)
                    .ok_or_else(|| serde::de::Error::custom(concat!(stringify!($name), ": a field of another type")))
            }
        }
    };
}
pub(crate) use typed;

/// Makes a struct readable and writable. What stands behind `;` is left out while it is unset.
macro_rules! wire {
    ($name:ident { $($field:ident $(: $key:literal)?),* $(; $($rare:ident $(: $rare_key:literal)?),* )? }) => {
        $crate::rt::fields::typed!($name { $($field $(: $key)?,)* $($($rare $(: $rare_key)?,)*)? });

        impl $crate::rt::fields::ToJson for $name {
            fn to_json(&self) -> serde_json::Value {
                let mut table = serde_json::Map::new();
                $($crate::rt::fields::put(
                    &mut table, $crate::rt::fields::typed!(@key $field $($key)?), &self.$field, true,
                );)*
                $($($crate::rt::fields::put(
                    &mut table, $crate::rt::fields::typed!(@key $rare $($rare_key)?), &self.$rare, false,
                );)*)?
                serde_json::Value::Object(table)
            }

            fn is_unset(&self) -> bool {
                false
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serde::Serialize::serialize(&$crate::rt::fields::ToJson::to_json(self), serializer)
            }
        }
    };
}
pub(crate) use wire;

/// Reads one key of a table, if it is there.
#[inline(never)]
pub fn field<T: FromJson>(table: &mut Map<String, Value>, key: &str, slot: &mut T) -> bool {
    match table.remove(key) {
        None | Some(Value::Null) => true,
        Some(value) => slot.take(value),
    }
}

/// Writes one key of a table.
#[inline(never)]
pub fn put<T: ToJson>(table: &mut Map<String, Value>, key: &str, slot: &T, always: bool) {
    if always || !slot.is_unset() {
        table.insert(key.to_owned(), slot.to_json());
    }
}

/// Reads a whole; None when something is of another type than expected.
pub fn read<T: FromJson + Default>(value: Value) -> Option<T> {
    let mut whole = T::default();
    whole.take(value).then_some(whole)
}

impl FromJson for String {
    fn take(&mut self, value: Value) -> bool {
        let Value::String(text) = value else { return false };
        *self = text;
        true
    }
}

impl ToJson for String {
    fn to_json(&self) -> Value {
        Value::String(self.clone())
    }

    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl FromJson for bool {
    fn take(&mut self, value: Value) -> bool {
        value.as_bool().map(|switch| *self = switch).is_some()
    }
}

impl ToJson for bool {
    fn to_json(&self) -> Value {
        Value::Bool(*self)
    }

    fn is_unset(&self) -> bool {
        !self
    }
}

macro_rules! whole_numbers {
    ($($kind:ident $read:ident),*) => {
        $(
            impl FromJson for $kind {
                fn take(&mut self, value: Value) -> bool {
                    value.$read().and_then(|number| number.try_into().ok()).map(|number| *self = number).is_some()
                }
            }

            impl ToJson for $kind {
                fn to_json(&self) -> Value {
                    Value::from(*self)
                }

                fn is_unset(&self) -> bool {
                    *self == 0
                }
            }
        )*
    };
}
whole_numbers!(i64 as_i64, u64 as_u64, u32 as_u64);

impl FromJson for f64 {
    fn take(&mut self, value: Value) -> bool {
        value.as_f64().map(|number| *self = number).is_some()
    }
}

impl ToJson for f64 {
    fn to_json(&self) -> Value {
        Value::from(*self)
    }

    fn is_unset(&self) -> bool {
        *self == 0.0
    }
}

impl FromJson for Value {
    fn take(&mut self, value: Value) -> bool {
        *self = value;
        true
    }
}

impl FromJson for Map<String, Value> {
    fn take(&mut self, value: Value) -> bool {
        let Value::Object(table) = value else { return false };
        *self = table;
        true
    }
}

impl ToJson for Map<String, Value> {
    fn to_json(&self) -> Value {
        Value::Object(self.clone())
    }

    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl<T: FromJson + Default> FromJson for Option<T> {
    fn take(&mut self, value: Value) -> bool {
        self.insert(T::default()).take(value)
    }
}

impl<T: ToJson> ToJson for Option<T> {
    fn to_json(&self) -> Value {
        self.as_ref().map_or(Value::Null, ToJson::to_json)
    }

    fn is_unset(&self) -> bool {
        self.is_none()
    }
}

impl<T: FromJson + Default> FromJson for Vec<T> {
    fn take(&mut self, value: Value) -> bool {
        let Value::Array(values) = value else { return false };
        values.into_iter().all(|value| {
            let mut item = T::default();
            let fits = item.take(value);
            self.push(item);
            fits
        })
    }
}

impl<T: ToJson> ToJson for Vec<T> {
    fn to_json(&self) -> Value {
        Value::Array(self.iter().map(ToJson::to_json).collect())
    }

    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl<T: FromJson + Default> FromJson for BTreeMap<String, T> {
    fn take(&mut self, value: Value) -> bool {
        let Value::Object(table) = value else { return false };
        table.into_iter().all(|(key, value)| self.entry(key).or_default().take(value))
    }
}

impl<T: ToJson> ToJson for BTreeMap<String, T> {
    fn to_json(&self) -> Value {
        Value::Object(crate::rt::order::gather(self.iter().map(|(key, value)| (key.clone(), value.to_json()))))
    }

    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

impl<T: FromJson + Default, S: BuildHasher> FromJson for HashMap<String, T, S> {
    fn take(&mut self, value: Value) -> bool {
        let Value::Object(table) = value else { return false };
        table.into_iter().all(|(key, value)| self.entry(key).or_default().take(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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

    wire!(Inner { kind: "type"; sizes });
    wire!(Outer { inner, by_name, rate; on });

    #[test]
    fn structs_take_what_is_there() {
        let mut outer = Outer::default();
        assert!(outer.take(json!({
            "inner": {"type": "x", "kind": "no", "unknown": []}, "by_name": {"a": {"sizes": [1, 2]}}, "rate": 3, "on": null,
        })));
        let expected = Outer {
            inner: Inner { kind: "x".to_owned(), sizes: vec![] },
            by_name: BTreeMap::from([("a".to_owned(), Inner { kind: String::new(), sizes: vec![1, 2] })]),
            rate: 3.0,
            on: None,
        };
        assert_eq!(outer, expected);
        assert!(outer.take(json!({"on": true})) && outer.on == Some(true) && outer.inner == expected.inner);
        for wrong in [json!(1), json!({"on": 1}), json!({"inner": {"sizes": ["a"]}}), json!({"by_name": {"a": []}})] {
            assert!(serde_json::from_value::<Outer>(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_unset_can_be_left_out() {
        let mut outer = Outer::default();
        assert_eq!(outer.to_json(), json!({"inner": {"type": ""}, "by_name": {}, "rate": 0.0}));
        outer.on = Some(false);
        outer.inner.sizes = vec![7];
        let text = serde_json::to_string(&outer).unwrap();
        assert_eq!(text, r#"{"by_name":{},"inner":{"sizes":[7],"type":""},"on":false,"rate":0.0}"#);
        assert_eq!(serde_json::from_str::<Outer>(&text).unwrap(), outer);
    }
}
