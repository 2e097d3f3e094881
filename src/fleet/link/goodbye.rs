//! How a connection is closed from our side.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use tungstenite::Error;
use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::CloseFrame;

use super::LinkError;
use super::conn::Conn;

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// What is read and dropped behind our close frame, so that the hub gets it.
const DRAIN_BYTES_MAX: usize = 2 * 1024 * 1024;

impl Conn<'_> {
    /// Tells the hub what was wrong with its message, if that was it.
    pub(super) fn read_error(&mut self, error: &Error) -> LinkError {
        match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => self.close(1009, "message too long", true),
            Error::Utf8(_) => self.close(1007, "text is not UTF-8", true),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {}
            Error::Protocol(_) => self.close(1002, "protocol error", true),
            _ => {}
        }
        LinkError::Lost { cause: error.to_string() }
    }

    /// Closes with that code and waits a moment for the hub's own close frame.
    pub(super) fn goodbye(&mut self, code: u16, reason: &'static str) {
        self.close(code, reason, false);
    }

    /// After an error of tungstenite's the rest is read raw: it must not be asked again.
    fn close(&mut self, code: u16, reason: &'static str, mut is_raw: bool) {
        let until = Instant::now() + GOODBYE;
        // Also fails when the hub has closed already: then tungstenite has queued the answer.
        let _ = self.ws.close(Some(CloseFrame { code: code.into(), reason: reason.into() }));
        let (mut left, mut buffer) = (DRAIN_BYTES_MAX, [0; 4096]);
        while Instant::now() < until && left > 0 {
            let flushed = self.ws.flush();
            let blocked = |error: &Error| matches!(error, Error::Io(error) if error.kind() == ErrorKind::WouldBlock);
            self.is_blocked = flushed.as_ref().is_err_and(blocked);
            let read = if is_raw {
                match self.ws.get_mut().read(&mut buffer) {
                    Ok(0) => return,
                    Ok(n) => {
                        left = left.saturating_sub(n);
                        Ok(())
                    }
                    Err(error) => Err(Error::Io(error)),
                }
            } else {
                self.ws.read().map(|_| left = left.saturating_sub(1))
            };
            match read {
                Ok(()) => {}
                Err(error) if blocked(&error) => {
                    if self.sleep(until).is_err() {
                        return;
                    }
                }
                Err(Error::Protocol(_) | Error::Capacity(_) | Error::Utf8(_)) if !is_raw => is_raw = true,
                Err(_) => return,
            }
        }
    }
}
