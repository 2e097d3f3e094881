//! Bodies of changes: what is there is checked and taken, what is not there stays as it is.

use serde_json::{Map, Value};

use crate::api::body;
use crate::api::error::ApiError;

/// The fields of a body, keys in lower case.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body; what is no JSON object is 400.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, ApiError> {
        body::object(bytes).map(Self).map_err(|cause| {
            log::debug!("invalid JSON: {}", cause.0);
            ApiError::bad_request("invalid JSON: the body must be one object")
        })
    }

    /// All of them, null included.
    pub(super) fn into_map(self) -> Map<String, Value> {
        self.0
    }

    /// A field that is there, null included.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A text; None when it is not there or null.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(name, "must be text")),
        }
    }

    /// A list of texts.
    pub(super) fn texts(&self, name: &str) -> Result<Option<&[Value]>, ApiError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(texts)) if texts.iter().all(Value::is_string) => Ok(Some(texts)),
            Some(_) => Err(wrong(name, "must be a list of texts")),
        }
    }

    /// A number.
    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, ApiError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| wrong(name, "must be a number")),
        }
    }
}

/// A field that is not what it should be.
pub(super) fn wrong(name: &str, reason: &str) -> ApiError {
    ApiError::bad_request(format!("invalid JSON: {name} {reason}"))
}

/// A text as a setting: an empty one removes it.
pub(super) fn setting(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { Value::from(text) }
}
