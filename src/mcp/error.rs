//! Why a tool server could not be used.

use std::fmt;
use std::time::Duration;

/// Holds facts; `Display` is shown to operators and to models. Secrets of the server's environment and headers are
/// masked before they get in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum McpError {
    /// The program cannot be started.
    Start { cause: String },
    /// The server's target is refused, or a placeholder or header in its configuration is.
    Refused { reason: String },
    /// The connection is over. `detail` says how it ended and what the server wrote last; may be empty.
    Gone { detail: String },
    /// No connection, or one that broke.
    Connect { cause: String },
    /// An HTTP server answered with an error.
    Status { status: u16, text: String },
    /// It wants a login that is not there.
    Unauthorized,
    /// It forgot the session; a new handshake is needed.
    SessionLost,
    /// No answer in time. `what` is the request.
    Timeout { what: &'static str, after: Duration },
    /// The caller gave up.
    Cancelled,
    /// One message was larger than we take.
    TooLarge { bytes_max: usize },
    /// It does not read what we send.
    Stuck,
    /// It refused the request (JSON-RPC error).
    Rpc { code: i64, message: String },
    /// It broke the protocol.
    Protocol { reason: String },
}

impl fmt::Display for McpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { cause } => write!(f, "start the program: {cause}"),
            Self::Refused { reason } => f.write_str(reason),
            Self::Gone { detail } if detail.is_empty() => f.write_str("the server has closed the connection"),
            Self::Gone { detail } => write!(f, "the server has closed the connection: {detail}"),
            Self::Connect { cause } => f.write_str(cause),
            Self::Status { status, text } if text.is_empty() => write!(f, "the server answered with status {status}"),
            Self::Status { status, text } => write!(f, "the server answered with status {status}: {text}"),
            Self::Unauthorized => f.write_str("the server wants a login (status 401)"),
            Self::SessionLost => f.write_str("the server has lost the session"),
            Self::Timeout { what, after } => write!(f, "{what} timed out after {}s", after.as_secs_f64().ceil()),
            Self::Cancelled => f.write_str("cancelled"),
            Self::TooLarge { bytes_max } => {
                write!(f, "the server sent a message of more than {} MiB", bytes_max / (1024 * 1024))
            }
            Self::Stuck => f.write_str("the server does not read its input"),
            Self::Rpc { code, message } => write!(f, "{message} (code {code})"),
            Self::Protocol { reason } => write!(f, "the server breaks the protocol: {reason}"),
        }
    }
}

impl std::error::Error for McpError {}
