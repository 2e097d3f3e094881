//! Scopes: exact names, no hierarchy (contract 2.2, additions "Scopes").

use crate::limits;
use crate::rt::json::quoted;

/// Every valid scope. `health` guards nothing.
pub const VALID_SCOPES: &[&str] = &[
    "admin",
    "chat",
    "health",
    "sessions:read",
    "sessions:write",
    "costs:read",
    "agents:read",
    "agents:write",
    "skills:read",
    "skills:write",
    "schedules:read",
    "schedules:write",
    "approvals:read",
    "approvals:write",
    "tools:read",
    "tools:write",
    "browser:read",
    "browser:write",
    "kv:read",
    "kv:write",
    "audit:read",
    "machines:read",
    "machines:write",
];

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u32);

impl Scopes {
    /// The set of those names; unknown ones grant nothing.
    pub fn from_names<S: AsRef<str>>(names: &[S]) -> Self {
        Self(names.iter().filter_map(|name| index(name.as_ref())).fold(0, |bits, index| bits | 1 << index))
    }

    /// Whether the scope is in the set.
    pub fn has(self, scope: &str) -> bool {
        index(scope).is_some_and(|index| self.0 & (1 << index) != 0)
    }
}

/// What a dashboard login holds: everything but `health`.
pub fn dashboard_scopes() -> Vec<String> {
    VALID_SCOPES.iter().filter(|&&scope| scope != "health").map(|&scope| scope.to_owned()).collect()
}

fn index(scope: &str) -> Option<usize> {
    VALID_SCOPES.iter().position(|&valid| valid == scope)
}

/// Checks the input of a new key (contract 3.5); the text for the user otherwise.
pub fn validate_key_input(name: &str, scopes: &[String]) -> Result<(), String> {
    if name.trim().is_empty() {
        return Err("name is required".to_owned());
    }
    if scopes.is_empty() {
        return Err("at least one scope is required".to_owned());
    }
    if name.len() > limits::KEY_NAME_BYTES_MAX {
        return Err("name exceeds maximum length of 255 characters".to_owned());
    }
    match scopes.iter().find(|scope| index(scope).is_none()) {
        Some(unknown) => Err(format!("unknown scope {}", quoted(unknown))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_exactly_their_names() {
        let scopes = Scopes::from_names(&["chat", "kv:read", "nonsense"]);
        assert!(scopes.has("chat") && scopes.has("kv:read"));
        assert!(!scopes.has("admin") && !scopes.has("nonsense") && !scopes.has(""));
        let all = Scopes::from_names(&dashboard_scopes());
        assert!(VALID_SCOPES.iter().all(|&scope| all.has(scope) == (scope != "health")));
    }

    #[test]
    fn key_input_is_checked_in_the_contracts_order() {
        let check = |name: &str, scopes: &[&str]| {
            validate_key_input(name, &scopes.iter().map(|&s| s.to_owned()).collect::<Vec<_>>()).err()
        };
        assert_eq!(check("a", &["chat"]), None);
        assert_eq!(check(" ", &[]).as_deref(), Some("name is required"));
        assert_eq!(check("a", &[]).as_deref(), Some("at least one scope is required"));
        assert_eq!(
            check(&"x".repeat(256), &["chat"]).as_deref(),
            Some("name exceeds maximum length of 255 characters")
        );
        assert_eq!(check("a", &["chat", "x\"y"]).as_deref(), Some("unknown scope \"x\\\"y\""));
    }
}
