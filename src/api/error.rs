//! The one place where errors become HTTP: a status, a stable code, a text (W-15, W-49). Causes go to the log under an
//! id that the body of a 500 names.

use tiny_http::Header;

use crate::api::message::{Response, header, json_response};
use crate::auth::AuthError;
use crate::auth::cookie::CookieError;
use crate::chat::ChatError;
use crate::rt::json;
use crate::skills::{PersonaError, SkillError, UndoError};
use crate::store::{KvError, StoreError, random_hex};
use crate::tools::servers::ChangeError;

/// What a client is told instead of a result.
#[derive(Debug)]
pub struct ApiError {
    pub status: u16,
    /// Stable, snake case.
    pub code: &'static str,
    pub message: String,
    /// In the log under this id.
    pub id: Option<String>,
    pub headers: Vec<Header>,
}

impl ApiError {
    /// An error with a text for the client.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), id: None, headers: Vec::new() }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "bad_request", message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, "not_found", message)
    }

    /// 500: `cause` is for the log only.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        let id = random_hex::<4>().unwrap_or_else(|_| "00000000".to_owned());
        log::error!("internal error {id}: {cause}");
        Self { id: Some(id), ..Self::new(500, "internal", "internal server error") }
    }

    /// The same with a header line.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.extend(header(name, value));
        self
    }

    /// The answer.
    pub fn into_response(self) -> Response {
        let mut body = b"{\"error\":".to_vec();
        json::push_str(&mut body, &self.message);
        body.extend_from_slice(b",\"code\":");
        json::push_str(&mut body, self.code);
        if let Some(id) = &self.id {
            body.extend_from_slice(b",\"id\":");
            json::push_str(&mut body, id);
        }
        body.extend_from_slice(b"}\n");
        let mut response = json_response(self.status, body);
        for header in self.headers {
            response.add_header(header);
        }
        response
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Missing => {
                Self::new(401, "unauthorized", "unauthorized").with_header("X-Auth-Failure", "credential-missing")
            }
            AuthError::Invalid => {
                Self::new(401, "unauthorized", "unauthorized").with_header("X-Auth-Failure", "credential-invalid")
            }
            AuthError::Scope => Self::new(403, "insufficient_scope", "insufficient scope"),
            AuthError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => {
                log::error!("{error}");
                Self::new(507, "storage_full", "the hub's disk is full; free some space and try again")
            }
            StoreError::Busy => {
                log::warn!("{error}");
                Self::new(503, "busy", "the database is busy; try again").with_header("Retry-After", "1")
            }
            StoreError::NotFound => Self::not_found("not found"),
            StoreError::Sqlite(_) | StoreError::Newer { .. } | StoreError::Open { .. } | StoreError::Random => {
                Self::internal(&error)
            }
        }
    }
}

impl From<KvError> for ApiError {
    fn from(error: KvError) -> Self {
        let text = error.to_string();
        match error {
            KvError::Key(_) => Self::bad_request(text),
            KvError::ValueTooLarge { .. } => Self::new(413, "kv_value_too_large", text),
            KvError::Full { .. } => Self::new(409, "kv_full", text),
            KvError::Store(error) => error.into(),
        }
    }
}

impl From<ChatError> for ApiError {
    fn from(error: ChatError) -> Self {
        let text = error.to_string();
        match error {
            ChatError::BadSessionId | ChatError::BadMessageId => Self::bad_request(text),
            ChatError::AgentNotFound { .. } => Self::new(404, "agent_not_found", "agent not found"),
            ChatError::Denied => Self::new(403, "not_owner", text),
            ChatError::NotAllowed { .. } => Self::new(403, "not_allowed", text),
            ChatError::QueueFull => Self::new(429, "rate_limited", text).with_header("Retry-After", "5"),
            ChatError::NotRunning => Self::new(409, "not_running", "not running"),
            ChatError::Panicked => Self::new(503, "panicked", text),
            ChatError::Stopping => Self::new(503, "stopping", text).with_header("Retry-After", "5"),
            ChatError::Store(error) => error.into(),
        }
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        let text = error.to_string();
        match error {
            ChangeError::Invalid(_)
            | ChangeError::Exists { .. }
            | ChangeError::NotFound { .. }
            | ChangeError::Full { .. }
            | ChangeError::Start { .. } => Self::bad_request(text),
            ChangeError::Busy => Self::new(503, "busy", text).with_header("Retry-After", "2"),
            ChangeError::Persist { cause, .. } => Self { message: text, ..Self::internal(&cause) },
        }
    }
}

impl From<SkillError> for ApiError {
    fn from(error: SkillError) -> Self {
        let text = error.to_string();
        match error {
            SkillError::NotFound { .. } | SkillError::NoFile { .. } => Self::not_found(text),
            SkillError::Exists { .. } => Self::new(409, "exists", text),
            SkillError::Shared { .. } => Self::new(409, "shared", text),
            SkillError::Full { .. } => Self::new(409, "full", text),
            SkillError::Invalid(_) => Self::bad_request(text),
            SkillError::Io(cause) => cause.into(),
        }
    }
}

impl From<PersonaError> for ApiError {
    fn from(error: PersonaError) -> Self {
        let text = error.to_string();
        match error {
            PersonaError::TooLong { .. } => Self::bad_request(text),
            PersonaError::Io(cause) => cause.into(),
        }
    }
}

impl From<UndoError> for ApiError {
    fn from(error: UndoError) -> Self {
        let text = error.to_string();
        match error {
            UndoError::Impossible | UndoError::Schedule(_) => Self::new(409, "cannot_undo", text),
            UndoError::AlreadyUndone => Self::new(409, "already_undone", text),
            UndoError::ChangedSince => Self::new(409, "changed_since", text),
            UndoError::Skill(error) => error.into(),
            UndoError::Persona(error) => error.into(),
            UndoError::Store(StoreError::NotFound) => Self::not_found("journal entry not found"),
            UndoError::Store(error) => error.into(),
        }
    }
}

/// Of files that the hub keeps for its agents.
impl From<std::io::Error> for ApiError {
    fn from(cause: std::io::Error) -> Self {
        match cause.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::Full.into(),
            _ => {
                Self { message: "the file could not be read or written; see the log".into(), ..Self::internal(&cause) }
            }
        }
    }
}

impl From<CookieError> for ApiError {
    fn from(error: CookieError) -> Self {
        match error {
            CookieError::Store(error) => error.into(),
            CookieError::Secret => Self::internal(&"the session secret is not usable"),
            CookieError::Random => Self::internal(&"no random bytes"),
            CookieError::Encrypt => Self::internal(&"encrypt a session cookie"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_name_text_code_and_id() {
        let body = |error: ApiError| String::from_utf8(error.into_response().into_reader().into_inner()).unwrap();
        assert_eq!(
            body(AuthError::Scope.into()),
            "{\"error\":\"insufficient scope\",\"code\":\"insufficient_scope\"}\n"
        );
        let internal = body(ApiError::internal(&"secret path /x"));
        assert!(internal.contains("\"id\":\"") && !internal.contains("secret"));
    }
}
