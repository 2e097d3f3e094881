//! `[fleet.times]`: how patient the hub is with its machines (contract agent-link 1.5, 4). Holt's own.

use std::time::Duration;

use super::check::time_above_zero;
use super::error::ConfigError;
use super::json::typed;
use super::raw::Typed;
use crate::limits;

/// `[fleet.times]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetTimes {
    /// Between two `ping`; a reference agent gives up after 90 s without one.
    pub ping: Duration,
    /// Without a message of the machine; then its connection is over.
    pub silence: Duration,
    /// A connection this silent gives way to a new one under its id.
    pub takeover: Duration,
    /// An inspection or diagnosis; a chat may not be silent for longer in a turn.
    pub session: Duration,
    /// Without a message; then the chat on the machine is ended. The conversation goes on in a new one.
    pub chat_idle: Duration,
}

impl Default for FleetTimes {
    fn default() -> Self {
        Self {
            ping: limits::AGENT_PING_INTERVAL,
            silence: limits::AGENT_SILENCE_MAX,
            takeover: limits::AGENT_TAKEOVER_SILENCE,
            session: limits::MACHINE_SESSION_TIMEOUT,
            chat_idle: limits::MACHINE_CHAT_IDLE,
        }
    }
}

#[derive(Default)]
pub(super) struct RawTimes {
    ping: Option<String>,
    silence: Option<String>,
    takeover: Option<String>,
    session: Option<String>,
    chat_idle: Option<String>,
}

typed!(RawTimes { ping, silence, takeover, session, chat_idle });

pub(super) fn times(typed: &Typed, raw: &RawTimes) -> Result<FleetTimes, ConfigError> {
    let read = |name: &str, text: &Option<String>, default| {
        time_above_zero(typed, &format!("fleet.times.{name}"), text.as_deref(), default)
    };
    let usual = FleetTimes::default();
    Ok(FleetTimes {
        ping: read("ping", &raw.ping, usual.ping)?,
        silence: read("silence", &raw.silence, usual.silence)?,
        takeover: read("takeover", &raw.takeover, usual.takeover)?,
        session: read("session", &raw.session, usual.session)?,
        chat_idle: read("chat_idle", &raw.chat_idle, usual.chat_idle)?,
    })
}
