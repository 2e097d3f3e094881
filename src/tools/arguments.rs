//! Arguments of built-in tools, checked with words that a model understands.

use serde_json::{Map, Value, json};

use crate::tools::ToolError;

/// Longer texts are not arguments of these tools.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// The arguments of a call.
pub struct Arguments<'a>(Option<&'a Map<String, Value>>);

impl<'a> Arguments<'a> {
    /// Arguments with no other names than `known`.
    pub fn of(arguments: &'a Value, known: &[&str]) -> Result<Self, ToolError> {
        let map = match arguments {
            Value::Null => None,
            Value::Object(map) => Some(map),
            _ => return Err(ToolError::new("the arguments must be a JSON object")),
        };
        if let Some(name) = map.and_then(|map| map.keys().find(|name| !known.contains(&name.as_str()))) {
            let name: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(ToolError::new(format!("unknown argument {name:?}: known are {}", known.join(", "))));
        }
        Ok(Self(map))
    }

    /// The value, unless it is missing or null: some models send every optional argument.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.and_then(|map| map.get(name)).filter(|value| !value.is_null())
    }

    /// A text that must be there and not be empty.
    pub fn text(&self, name: &str) -> Result<&'a str, ToolError> {
        match self.get(name).and_then(Value::as_str).map(str::trim) {
            Some(text) if !text.is_empty() && text.len() <= TEXT_BYTES_MAX => Ok(text),
            _ => Err(ToolError::new(format!("argument {name:?} must be a text, not empty"))),
        }
    }

    /// A whole number in that range, or the default.
    pub fn number(&self, name: &str, default: usize, min: usize, max: usize) -> Result<usize, ToolError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
        number.filter(|number| (min..=max).contains(number)).ok_or_else(|| {
            let range = if max == usize::MAX { format!("from {min}") } else { format!("from {min} to {max}") };
            ToolError::new(format!("argument {name:?} must be a whole number {range}"))
        })
    }
}

/// The schema of an object with these properties.
pub fn object(properties: &Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked() {
        let given = json!({"a": " x ", "n": 3, "null": null});
        let arguments = Arguments::of(&given, &["a", "n", "null"]).ok().unwrap();
        assert_eq!(arguments.text("a"), Ok("x"));
        assert_eq!(arguments.number("n", 1, 0, 5), Ok(3));
        assert_eq!(arguments.number("null", 1, 0, 5), Ok(1));
        assert!(arguments.text("n").is_err() && arguments.text("null").is_err());
        assert!(arguments.number("n", 1, 4, 5).unwrap_err().message.contains("from 4 to 5"));
        let error = Arguments::of(&given, &["a"]).err().unwrap();
        assert_eq!(error.message, "unknown argument \"n\": known are a");
        assert!(Arguments::of(&json!([]), &[]).is_err() && Arguments::of(&Value::Null, &[]).is_ok());
    }
}
