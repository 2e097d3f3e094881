//! Why the link cannot be set up, or ended.

use std::fmt;

/// Holds facts; `Display` is one line for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// A file of the state directory cannot be read or written.
    State { path: String, cause: String },
    /// Another agent uses the state directory.
    InUse { path: String },
    /// The file of the agent's id is damaged.
    Identity { path: String },
    /// The hub's address, or a join code, is not one.
    Address { cause: String },
    /// The file of certificates cannot be used.
    Certificates { path: String, cause: String },
    /// No connection: name lookup, TCP, TLS, or time was up. Nothing was registered.
    Connect { cause: String },
    /// The upgrade was answered with that status.
    Status { status: u16 },
    /// The hub did something that the contract does not allow before the registration was complete.
    Protocol { cause: String },
    /// The hub refused the registration; its reason.
    Rejected { reason: String },
    /// The hub is not the one that this machine joined.
    Forged { cause: String },
    /// The connection ended after the registration.
    Lost { cause: String },
    /// The hub ended the connection with `disconnect`.
    Ordered { reason: String, retry_after_sec: i64 },
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State { path, cause } => write!(f, "state {path}: {cause}"),
            Self::InUse { path } => {
                write!(f, "another agent uses {path}; stop it, or give this one its own --state-dir")
            }
            Self::Identity { path } => write!(
                f,
                "{path} is damaged: put it back from a backup, or remove it to begin as a new machine (its hub will not \
                 know it)"
            ),
            Self::Address { cause } => f.write_str(cause),
            Self::Certificates { path, cause } => write!(f, "ca_file {path}: {cause}"),
            Self::Connect { cause } => write!(f, "connect: {cause}"),
            Self::Status { status: 401 } => f.write_str("the hub does not know this machine's token (401)"),
            Self::Status { status: status @ 300..=399 } => {
                write!(f, "the hub answered with a redirect ({status}), which is not followed; give its final address")
            }
            Self::Status { status } => write!(f, "the hub answered with status {status}"),
            Self::Protocol { cause } => write!(f, "not a hub: {cause}"),
            Self::Rejected { reason } => write!(f, "the hub refused this machine: {reason}"),
            Self::Forged { cause } => write!(f, "not the hub that this machine joined: {cause}"),
            Self::Lost { cause } => write!(f, "connection lost: {cause}"),
            Self::Ordered { reason, retry_after_sec } => {
                write!(f, "the hub asked to disconnect for {retry_after_sec} s: {reason}")
            }
        }
    }
}

impl std::error::Error for LinkError {}
