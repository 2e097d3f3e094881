//! Reads an answer to its end, whatever its wire: events, lines of JSON, or one body.

use std::time::Duration;

use super::endpoint::{ANSWER_BYTES_MAX, cut, decode};
use super::{LlmError, Sink};
use crate::net::Answer;
use crate::net::sse::{EVENT_BYTES_MAX, Parser};

const READ_BUFFER_BYTES: usize = 16 * 1024;
/// How long the rest of a stream may take after the model said that it is done.
const TAIL_WAIT: Duration = Duration::from_secs(5);

/// Puts an answer together from its parts. Does no I/O.
pub(super) trait Assembly {
    /// Takes one event of a stream; true at the end of the stream.
    fn event(&mut self, name: &str, data: &str, sink: &mut dyn Sink) -> Result<bool, LlmError>;

    /// Takes a whole body. `sink` is given when deltas were wanted although the server does not stream.
    fn body(&mut self, body: &[u8], sink: Option<&mut dyn Sink>) -> Result<(), LlmError>;

    /// Whether all that matters was seen: what is still missing of the stream is a farewell.
    fn finished(&self) -> bool;
}

/// How a stream is cut into events.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Server-sent events. A body that begins like JSON is JSON, whatever the content type says.
    Events,
    /// A JSON document per line.
    Lines,
}

/// Reads until the stream says that it is over, which is not always the end of the connection.
///
/// A stream that ends before it is finished is [`LlmError::Cut`], never a blank success.
pub(super) fn read(
    mut answer: Answer<'_>,
    framing: Framing,
    stream: bool,
    assembly: &mut dyn Assembly,
    sink: &mut dyn Sink,
) -> Result<(), LlmError> {
    let mut reading = Reading { assembly, shape: Shape::Unknown, framing, body: Vec::new(), n_bytes: 0, done: false };
    match reading.run(&mut answer, stream, sink) {
        Ok(()) => answer.finish(),
        Err(error) if !reading.assembly.finished() => return Err(error),
        // The model was done; only the farewell is missing.
        Err(_) => {}
    }
    Ok(())
}

/// What the bytes so far turned out to be.
enum Shape {
    Unknown,
    Events(Parser),
    /// What has come of the next line.
    Lines(Vec<u8>),
    /// One JSON body, although a stream may have been asked for.
    Body,
}

/// An answer while it is read.
struct Reading<'a> {
    assembly: &'a mut dyn Assembly,
    shape: Shape,
    framing: Framing,
    body: Vec<u8>,
    n_bytes: usize,
    /// The stream said that it is over.
    done: bool,
}

impl Reading<'_> {
    fn run(&mut self, answer: &mut Answer<'_>, stream: bool, sink: &mut dyn Sink) -> Result<(), LlmError> {
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        let mut tail = false;
        while !self.done {
            let n = answer.read(&mut buffer)?;
            if n == 0 {
                return self.ended(stream, sink);
            }
            self.n_bytes += n;
            if self.n_bytes > ANSWER_BYTES_MAX {
                return Err(LlmError::TooLarge { bytes_max: ANSWER_BYTES_MAX });
            }
            self.take(&buffer[..n], sink)?;
            if self.assembly.finished() && !tail {
                tail = true;
                answer.expect_end(TAIL_WAIT);
            }
        }
        Ok(())
    }

    fn take(&mut self, mut bytes: &[u8], sink: &mut dyn Sink) -> Result<(), LlmError> {
        if matches!(self.shape, Shape::Unknown) {
            bytes = bytes.trim_ascii_start();
            self.shape = match (bytes.first(), self.framing) {
                (None, _) => return Ok(()),
                (Some(_), Framing::Lines) => Shape::Lines(Vec::new()),
                // No line of an event stream begins like this.
                (Some(b'{' | b'['), Framing::Events) => Shape::Body,
                (Some(_), Framing::Events) => Shape::Events(Parser::new(EVENT_BYTES_MAX)),
            };
        }
        match &mut self.shape {
            Shape::Events(parser) => {
                parser.push(bytes);
                while let Some(event) = parser.next_event()? {
                    if self.assembly.event(event.name, event.data, sink)? {
                        self.done = true;
                        break;
                    }
                }
            }
            Shape::Lines(line) => {
                while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                    line.extend_from_slice(&bytes[..end]);
                    bytes = &bytes[end + 1..];
                    let whole = std::mem::take(line);
                    if take_line(self.assembly, &whole, sink)? {
                        self.done = true;
                        return Ok(());
                    }
                }
                line.extend_from_slice(bytes);
                if line.len() > EVENT_BYTES_MAX {
                    return Err(LlmError::TooLarge { bytes_max: EVENT_BYTES_MAX });
                }
            }
            Shape::Body | Shape::Unknown => self.body.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// The connection is at its end.
    fn ended(&mut self, stream: bool, sink: &mut dyn Sink) -> Result<(), LlmError> {
        let mut saw_something = true;
        match &mut self.shape {
            Shape::Unknown => return Err(cut("the answer is empty")),
            Shape::Body => return self.assembly.body(&self.body, stream.then_some(sink)),
            Shape::Events(parser) => {
                if let Some(event) = parser.finish()? {
                    self.done = self.assembly.event(event.name, event.data, sink)?;
                }
                saw_something = parser.saw_fields();
            }
            Shape::Lines(line) => {
                let line = std::mem::take(line);
                self.done = take_line(self.assembly, &line, sink)?;
            }
        }
        if self.done || self.assembly.finished() {
            Ok(())
        } else if saw_something {
            Err(cut("the stream ended before the model said that it is done"))
        } else {
            Err(decode("the answer is neither JSON nor an event stream"))
        }
    }
}

fn take_line(assembly: &mut dyn Assembly, line: &[u8], sink: &mut dyn Sink) -> Result<bool, LlmError> {
    let line = String::from_utf8_lossy(line.trim_ascii());
    if line.is_empty() { Ok(false) } else { assembly.event("", &line, sink) }
}
