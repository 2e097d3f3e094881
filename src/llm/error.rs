//! What a failed call says: one line for the log, one stable text for the user.

use std::fmt;
use std::time::Duration;

use super::{LlmError, Phase};
use crate::net::NetError;
use crate::net::sse::TooLong;

/// Longest piece of a provider's own words that a user sees.
const QUOTE_BYTES_MAX: usize = 200;

impl From<NetError> for LlmError {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Cancelled => Self::Cancelled,
            NetError::BadUrl { cause } => Self::Config { cause },
            NetError::Refused { .. } => Self::Config { cause: error.to_string() },
            NetError::Connect { cause } => Self::Connect { cause },
            NetError::Timeout { phase, after } => Self::Timeout { phase, after },
            NetError::Cut { cause } => Self::Cut { cause },
            NetError::Decode { cause } => Self::Decode { cause },
            NetError::TooLarge { bytes_max } => Self::TooLarge { bytes_max },
        }
    }
}

impl From<TooLong> for LlmError {
    fn from(TooLong { bytes_max }: TooLong) -> Self {
        Self::TooLarge { bytes_max }
    }
}

/// For the log: facts, outside in.
impl fmt::Display for LlmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::Connect { cause } => write!(f, "connect: {cause}"),
            Self::Timeout { phase, after } => write!(f, "time-out: {phase} after {after:?}"),
            Self::Status { status, message, retry_after: None } => write!(f, "status {status}: {message}"),
            Self::Status { status, message, retry_after: Some(after) } => {
                write!(f, "status {status}: {message} (retry after {} s)", after.as_secs())
            }
            Self::Cut { cause } => write!(f, "answer cut off: {cause}"),
            Self::Decode { cause } => write!(f, "answer not understood: {cause}"),
            Self::TooLarge { bytes_max } => write!(f, "answer larger than {bytes_max} bytes"),
            Self::Config { cause } => write!(f, "configuration: {cause}"),
            Self::Budget { message } => write!(f, "budget: {message}"),
        }
    }
}

impl std::error::Error for LlmError {}

impl LlmError {
    /// A stable code and a text for the user that says what to do (contract engine 1.11, holt-additions "Streams").
    ///
    /// Never holds a secret, an address with credentials, or more than 200 bytes of the provider's own words.
    pub fn public(&self) -> (&'static str, String) {
        match self {
            Self::Cancelled => ("cancelled", "The turn was cancelled.".to_owned()),
            Self::Connect { cause } if cause.contains("certificate") => (
                "provider_unreachable",
                "The model provider's TLS certificate is not trusted. Check base_url, and that the certificate is \
                 from a public authority and not expired."
                    .to_owned(),
            ),
            Self::Connect { .. } => (
                "provider_unreachable",
                "The model provider cannot be reached. Check that it runs and that its base_url is right.".to_owned(),
            ),
            Self::Timeout { phase, after } => ("provider_timeout", timeout_text(*phase, *after)),
            Self::Status { status, message, retry_after } => status_text(*status, message, *retry_after),
            Self::Cut { .. } => (
                "provider_upstream",
                "The model provider ended the connection in the middle of its answer. Try again.".to_owned(),
            ),
            Self::Decode { .. } => (
                "provider_upstream",
                "The model provider's answer was not understood. Check that base_url points at an \
                 OpenAI-compatible API; the log has the details."
                    .to_owned(),
            ),
            Self::TooLarge { bytes_max } => (
                "provider_upstream",
                format!("The model's answer was larger than {} MiB. Ask for less at once.", bytes_max / (1024 * 1024)),
            ),
            Self::Budget { message } => ("budget", message.clone()),
            Self::Config { cause } => {
                ("provider_config", format!("The model provider is not set up: {}.", quote(cause)))
            }
        }
    }
}

fn timeout_text(phase: Phase, after: Duration) -> String {
    let seconds = after.as_secs_f64().ceil();
    match phase {
        Phase::Connect => format!(
            "The model provider did not accept a connection within {seconds} s. Check that it runs and that its \
             base_url is right."
        ),
        Phase::FirstByte => format!(
            "The model provider did not begin to answer within {seconds} s. Try again, or raise \
             llm.first_byte_timeout if the model needs long to load."
        ),
        Phase::Idle => {
            format!("The model provider went silent for {seconds} s in the middle of its answer. Try again.")
        }
        Phase::Total => format!(
            "The model's answer was not complete after {seconds} s. Ask for less at once, or raise llm.total_timeout."
        ),
    }
}

fn status_text(status: u16, message: &str, retry_after: Option<Duration>) -> (&'static str, String) {
    let wait = retry_after.map_or_else(
        || "Wait a moment and try again.".to_owned(),
        |after| format!("Try again in {} s.", after.as_secs().max(1)),
    );
    if status == 402 || message.contains("insufficient_quota") {
        let text =
            "The account at the model provider has no credit left. Add credit there, or choose another provider.";
        return ("provider_credit", text.to_owned());
    }
    match status {
        401 | 403 => (
            "provider_auth",
            "The model provider refused the API key. Check the key and what it may be used for.".to_owned(),
        ),
        _ if status == 404 || (status == 400 && names_a_missing_model(message)) => (
            "provider_model",
            format!(
                "The model provider does not know this model or address: {}. Check the model's name.",
                quote(message)
            ),
        ),
        429 => ("provider_rate", format!("The model provider limits the rate of requests. {wait}")),
        300..=399 => (
            "provider_config",
            "The model provider answered with a redirect, which is not followed. Set base_url to its final address."
                .to_owned(),
        ),
        500..=599 => ("provider_upstream", format!("The model provider failed (status {status}). {wait}")),
        _ => (
            "provider_upstream",
            format!("The model provider refused the request (status {status}): {}.", quote(message)),
        ),
    }
}

/// Some servers say 400 where 404 is meant.
fn names_a_missing_model(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("model") && ["not found", "not_found", "not exist"].iter().any(|words| message.contains(words))
}

/// The beginning of somebody else's words on one line, without its full stop.
fn quote(text: &str) -> String {
    let mut quoted = String::new();
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    for word in words {
        if !quoted.is_empty() {
            quoted.push(' ');
        }
        quoted.push_str(word);
        if quoted.len() > QUOTE_BYTES_MAX {
            let mut end = QUOTE_BYTES_MAX - '…'.len_utf8();
            while !quoted.is_char_boundary(end) {
                end -= 1;
            }
            quoted.truncate(end);
            quoted.push('…');
            break;
        }
    }
    let quoted = quoted.trim_end_matches('.');
    if quoted.is_empty() { "no reason given".to_owned() } else { quoted.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, message: &str) -> LlmError {
        LlmError::Status { status, message: message.to_owned(), retry_after: None }
    }

    #[test]
    fn every_cause_has_its_code() {
        let check = |error: LlmError, expected: &str| {
            let (code, text) = error.public();
            assert_eq!(code, expected, "{error}");
            assert!(text.ends_with('.') && text.len() < 400, "{text}");
        };
        check(LlmError::Cancelled, "cancelled");
        check(LlmError::Connect { cause: "refused".into() }, "provider_unreachable");
        for phase in [Phase::Connect, Phase::FirstByte, Phase::Idle, Phase::Total] {
            check(LlmError::Timeout { phase, after: Duration::from_secs(5) }, "provider_timeout");
        }
        check(status(401, "no"), "provider_auth");
        check(status(403, "no"), "provider_auth");
        check(status(402, "no"), "provider_credit");
        check(status(429, "insufficient_quota: you exceeded"), "provider_credit");
        check(status(404, "model 'x' not found"), "provider_model");
        check(status(400, "The model `x` does not exist"), "provider_model");
        check(LlmError::Connect { cause: "invalid peer certificate".into() }, "provider_unreachable");
        check(status(429, "slow down"), "provider_rate");
        check(status(500, "oops"), "provider_upstream");
        check(status(400, "bad"), "provider_upstream");
        check(status(302, ""), "provider_config");
        check(LlmError::Cut { cause: "eof".into() }, "provider_upstream");
        check(LlmError::Decode { cause: "eof".into() }, "provider_upstream");
        check(LlmError::TooLarge { bytes_max: 16 << 20 }, "provider_upstream");
        check(LlmError::Config { cause: "no model is set".into() }, "provider_config");
    }

    #[test]
    fn foreign_words_are_bounded_and_on_one_line() {
        let (_, text) = status(400, &format!("line one\nline\u{7} two {}", "long ".repeat(500))).public();
        assert!(text.contains("line one line two"), "{text}");
        assert!(text.len() < QUOTE_BYTES_MAX + 80, "{}", text.len());
        let (_, text) = status(400, &"x".repeat(9000)).public();
        assert!(text.len() < QUOTE_BYTES_MAX + 80);
        // A refused key is often quoted by the provider: none of its words are passed on.
        let (_, text) = status(401, "Incorrect API key provided: sk-secret").public();
        assert!(!text.contains("sk-secret"));
    }

    #[test]
    fn the_log_line_names_the_facts() {
        let retry_after = Some(Duration::from_secs(7));
        let error = LlmError::Status { status: 429, message: "slow".into(), retry_after };
        assert_eq!(error.to_string(), "status 429: slow (retry after 7 s)");
        let error = LlmError::Timeout { phase: Phase::FirstByte, after: Duration::from_secs(2) };
        assert_eq!(error.to_string(), "time-out: first byte after 2s");
        assert_eq!(error.public().1.matches("2 s").count(), 1);
    }
}
