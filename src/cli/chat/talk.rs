//! A conversation over a line that may break: what both the interactive and the one-shot client do alike.

use std::time::{Duration, Instant};

use super::follow::{Follow, Taken};
use super::frame::Frame;
use super::link::{Heard, Link};
use super::socket::FromSocket;
use crate::cli::CliError;
use crate::limits;
use crate::store::random_hex;

/// How often an uncertain end is asked for.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// How long to wait when there is nothing to do.
const LONG: Duration = Duration::from_secs(3600);

/// What there is to tell.
#[derive(Debug)]
pub(super) enum Told {
    Frame { frame: Box<Frame>, raw: String, taken: Taken },
    Up,
    Down,
    Failed(CliError),
}

/// One line, one conversation.
pub(super) struct Talk {
    pub(super) link: Link,
    pub(super) follow: Follow,
    heard_at: Instant,
}

impl Talk {
    pub(super) fn new(link: Link, follow: Follow) -> Self {
        Self { link, follow, heard_at: Instant::now() }
    }

    /// Takes in what the socket reports.
    pub(super) fn on(&mut self, event: Option<FromSocket>) -> Option<Told> {
        self.heard_at = Instant::now();
        let told = match self.link.on(event)? {
            Heard::Up => {
                self.follow.connected();
                Told::Up
            }
            Heard::Down => Told::Down,
            Heard::Failed(error) => Told::Failed(error),
            Heard::Frame(raw) => {
                let frame = Frame::parse(&raw)?;
                let taken = self.follow.take(&frame);
                Told::Frame { frame: Box::new(frame), raw, taken }
            }
        };
        self.flush();
        Some(told)
    }

    /// Sends a message; the text for the user when it cannot be one.
    pub(super) fn send(&mut self, message: &str) -> Result<(), String> {
        check_message(message)?;
        let message_id = random_hex::<16>().map_err(|error| error.to_string())?;
        self.follow.send(message, &message_id);
        self.flush();
        Ok(())
    }

    /// Asks to end the running turn.
    pub(super) fn cancel(&mut self) {
        self.follow.cancel();
        self.flush();
    }

    /// Turns to another conversation.
    pub(super) fn turn_to(&mut self, follow: Follow) {
        self.follow = follow;
        if self.link.is_up() {
            self.follow.connected();
            self.flush();
        }
    }

    /// How long nothing happens by itself.
    pub(super) fn pause(&self) -> Duration {
        let retry = self.link.deadline().map_or(LONG, |at| at.saturating_duration_since(Instant::now()));
        if self.follow.is_uncertain() {
            retry.min(PROBE_INTERVAL.saturating_sub(self.heard_at.elapsed()))
        } else {
            retry
        }
    }

    /// Does what is due.
    pub(super) fn tick(&mut self) {
        self.link.tick();
        if self.follow.is_uncertain() && self.heard_at.elapsed() >= PROBE_INTERVAL {
            self.heard_at = Instant::now();
            self.follow.probe();
            self.flush();
        }
    }

    fn flush(&mut self) {
        let out = self.follow.take_out();
        self.link.send(&out);
    }
}

/// A new conversation's id, made here so that a repeated first message finds its conversation.
pub(super) fn new_session_id() -> Result<String, CliError> {
    random_hex::<8>().map_err(CliError::failed)
}

/// Whether the hub takes a message of that size.
pub(super) fn check_message(message: &str) -> Result<(), String> {
    if message.trim().is_empty() {
        return Err("there is no message".to_owned());
    }
    // Escaping makes control characters six times as long; the rest of the frame is far below the difference.
    let escaped = serde_json::json!(message).to_string().len();
    if message.len() > limits::MESSAGE_BYTES_MAX || escaped > limits::WS_MESSAGE_BYTES_MAX - 2048 {
        let bytes = message.len();
        return Err(format!("the message has {bytes} bytes; a hub takes {} at most", limits::MESSAGE_BYTES_MAX));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_a_size() {
        assert!(check_message("hi").is_ok());
        assert!(check_message(&"x".repeat(32_768)).is_ok());
        assert!(check_message(&"\n".repeat(20_000)).is_err());
        assert!(check_message(&"x".repeat(32_769)).unwrap_err().contains("32769 bytes"));
        assert!(check_message(&"\u{1}".repeat(20_000)).is_err());
        assert!(check_message(" ").is_err());
    }
}
