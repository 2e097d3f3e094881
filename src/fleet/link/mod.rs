//! The agent's side of the machine link (contract agent-link 1-4): one connection to the hub, alerts that wait for
//! it on disk, and what people may ask this machine for.
//!
//! Threads: whoever calls [`Link::run_forever`] owns the socket and all timers of the link; `session-N`, one for each
//! remote session; `link-dns`, one for each name lookup, which ends with the system's resolver.

mod address;
mod conn;
mod credential;
mod dial;
mod error;
mod goodbye;
mod handle;
mod inbox;
mod reconnect;
mod record;
pub mod runner;
mod session;
mod sessions;
mod spool;
mod spool_file;
mod state;
mod stream;

pub use address::HubAddress;
pub use conn::Conn;
pub use credential::JoinCode;
pub use error::LinkError;
pub(crate) use handle::Shared;
pub use handle::{Link, LinkSettings, ServerNotifier};
pub use reconnect::{Backoff, Ended};
pub use state::{Membership, StateDir};

use std::time::Duration;

/// Events that wait for the hub.
const SPOOL_FILE: &str = "spool";
/// Who asked for what.
const AUDIT_FILE: &str = "audit.jsonl";

/// How long things may take (contract agent-link 1.5, 3, 4). Tests shorten them.
#[derive(Clone, Debug)]
pub struct Timers {
    /// Name lookup, TCP, TLS and upgrade together.
    pub dial: Duration,
    /// From `register` to its `ack`.
    pub ack: Duration,
    /// Without a data message of the hub.
    pub silence: Duration,
    pub heartbeat: Duration,
    /// Without a byte of a message being taken.
    pub write: Duration,
    /// From an `alert_events` to its `ack`; then it is sent again.
    pub alert_ack: Duration,
    /// A batch counts as delivered to a hub that does not acknowledge when the connection lived this long after it.
    pub linger: Duration,
    /// What is left to say when the agent stops.
    pub farewell: Duration,
    /// A chat without a message.
    pub chat_idle: Duration,
    /// One inspect or diagnose.
    pub job: Duration,
    /// Waits between attempts are multiplied by it.
    pub wait_factor: f64,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(15),
            ack: Duration::from_secs(10),
            silence: Duration::from_secs(90),
            heartbeat: Duration::from_secs(30),
            write: Duration::from_secs(10),
            alert_ack: Duration::from_secs(30),
            linger: Duration::from_secs(30),
            farewell: Duration::from_secs(2),
            chat_idle: Duration::from_secs(30 * 60),
            job: Duration::from_secs(10 * 60),
            wait_factor: 1.0,
        }
    }
}

/// A new id for a message. Without randomness, which no running system lacks, it is the time.
fn message_id() -> String {
    state::uuid().unwrap_or_else(|_| crate::rt::clock::unix_ms().to_string())
}
