//! Request bodies as the contract decodes them (section 0): keys in any case, the last one wins, `null` means not
//! given, unknown keys are ignored, `null` as the whole is an empty object; trailing garbage is refused (W-13).

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Why a body is not what was asked for; for the log, never for the client (W-49).
#[derive(Debug)]
pub struct DecodeError(pub String);

/// Decodes a JSON object into `T`, whose field names are lower case.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut object = object(bytes)?;
    object.retain(|_, value| !value.is_null());
    serde_json::from_value(Value::Object(object)).map_err(|error| DecodeError(error.to_string()))
}

/// The keys of a JSON object, lower case, those that are null included.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, DecodeError> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| DecodeError(error.to_string()))?;
    let object = match value {
        Value::Null => Map::new(),
        Value::Object(object) => object,
        _ => return Err(DecodeError("not an object".to_owned())),
    };
    let mut lowered = Map::with_capacity(object.len());
    for (key, value) in object {
        // An exact key beats one of another case only by coming later, like any duplicate.
        lowered.insert(key.to_ascii_lowercase(), value);
    }
    Ok(lowered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Body {
        name: String,
        scopes: Vec<String>,
    }

    #[test]
    fn bodies_are_decoded_leniently_where_the_contract_says_so() {
        let check = |text: &str, name: Option<&str>| {
            assert_eq!(decode::<Body>(text.as_bytes()).ok().map(|body| body.name).as_deref(), name, "{text}");
        };
        check(r#"{"NAME":"a","other":1}"#, Some("a"));
        check(r#"{"name":"a","name":"b"}"#, Some("b"));
        check(r#"{"name":null}"#, Some(""));
        check("null", Some(""));
        check(" {} \n", Some(""));
        check("", None);
        check("{", None);
        check("[]", None);
        check(r#"{"name":1}"#, None);
        check(r#"{"scopes":"x"}"#, None);
        check("{} {}", None);
        check("{}x", None);
    }
}
