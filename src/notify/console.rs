//! The channel `console`: a line of the log.

use super::channel::{Channel, Message, SendError};
use crate::alert::Level;
use crate::rt::Cancel;
use crate::rt::text::cut;

/// Longer descriptions are for the page.
const BODY_BYTES_MAX: usize = 500;

pub(super) struct Console;

impl Channel for Console {
    fn send(&mut self, message: &Message<'_>, _cancel: &Cancel) -> Result<(), SendError> {
        let level = match message.notice.level {
            Level::Critical => log::Level::Error,
            Level::Warning => log::Level::Warn,
            Level::Info | Level::Ok => log::Level::Info,
        };
        // One line, whatever a check or a machine wrote into it.
        let line = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        log::log!(level, "notice: {}: {}", line(&message.title), line(cut(&message.body, BODY_BYTES_MAX)).trim_end());
        Ok(())
    }
}
