//! Ways for the events of a turn to reach somebody: the numbered stream of its session, or one client's transport.

use std::sync::Arc;

use crate::chat::ChatEvent;
use crate::chat::stream::{SessionStream, StreamError};

/// Takes the events of a turn in their order (`StreamSession` of the reference).
pub trait StreamSession {
    /// Why an event could not be delivered.
    type Error;

    /// Delivers one event.
    fn send_event(&mut self, event: &ChatEvent) -> Result<(), Self::Error>;

    /// Delivers the whole answer.
    fn send_content(&mut self, text: &str) -> Result<(), Self::Error> {
        self.send_event(&ChatEvent::Content { text: text.to_owned() })
    }

    /// Says that the turn is complete.
    fn send_done(&mut self) -> Result<(), Self::Error> {
        self.send_event(&ChatEvent::Done)
    }

    /// Says that the turn has failed.
    fn send_error(&mut self, code: &'static str, message: &str) -> Result<(), Self::Error> {
        self.send_event(&ChatEvent::Error { code, message: message.to_owned() })
    }
}

/// The stream of a session as its running turn uses it: numbered and logged, then seen by all who follow.
pub struct LoggedStreamSession<'a>(pub &'a Arc<SessionStream>);

impl StreamSession for LoggedStreamSession<'_> {
    type Error = StreamError;

    fn send_event(&mut self, event: &ChatEvent) -> Result<(), StreamError> {
        self.0.emit(event)?;
        self.0.announce();
        Ok(())
    }
}
