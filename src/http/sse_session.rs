//! Events in the form of server-sent events: each exactly one `data: {...}` line (contract 6.2).

use std::io::{self, Write};

use crate::api::message::{Shaped, SseShape};
use crate::chat::ChatEvent;
use crate::chat::deliver::StreamSession;
use crate::rt::json;

/// Writes events to one client, in chunks where it speaks HTTP/1.1. What is written goes out at [`SseStreamSession::flush`].
pub struct SseStreamSession<W> {
    writer: W,
    session_id: String,
    last_seq: u64,
    out: Vec<u8>,
    chunked: bool,
    ids: bool,
    shape: Option<SseShape>,
}

impl<W: Write> SseStreamSession<W> {
    /// A stream of one session's events; the response head is the caller's.
    pub fn new(writer: W, session_id: &str) -> Self {
        let session_id = session_id.to_owned();
        Self { writer, session_id, last_seq: 0, out: Vec::new(), chunked: false, ids: false, shape: None }
    }

    /// Frames what follows as chunks (RFC 9112 section 7.1).
    pub fn set_chunked(&mut self, chunked: bool) {
        self.chunked = chunked;
    }

    /// Adds `id:` lines, for clients that asked for them.
    pub fn set_ids(&mut self, ids: bool) {
        self.ids = ids;
    }

    /// Tells events in other words from now on.
    pub(super) fn set_shape(&mut self, shape: Option<SseShape>) {
        self.shape = shape;
    }

    /// Bytes in front of the stream, as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// There are no more events for now; true when the stream ends with that.
    pub(super) fn idle(&mut self) -> bool {
        self.shape.is_some() && self.frame(None, b"")
    }

    /// An event that is encoded already, with its number if it has one; true when the stream ends with it.
    pub fn frame(&mut self, seq: Option<u64>, payload: &[u8]) -> bool {
        match self.shape.as_mut().map(|shape| shape(payload)) {
            None => self.event(seq, payload),
            Some(Shaped::Nothing) => {}
            Some(Shaped::Event(payload)) => self.event(None, &payload),
            Some(Shaped::Last(payload)) => {
                self.event(None, &payload);
                return true;
            }
        }
        false
    }

    fn event(&mut self, seq: Option<u64>, payload: &[u8]) {
        let mut event = Vec::with_capacity(payload.len() + 32);
        if let Some(seq) = seq.filter(|_| self.ids) {
            event.extend_from_slice(b"id: ");
            json::push_u64(&mut event, seq);
            event.push(b'\n');
        }
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(payload);
        event.extend_from_slice(b"\n\n");
        self.chunk(&event);
        self.last_seq = seq.unwrap_or(self.last_seq);
    }

    /// A comment: clients ignore it, proxies see that the stream lives (W-42).
    pub fn comment(&mut self) {
        self.chunk(b": keep-alive\n\n");
    }

    /// Writes what has gathered.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.writer.write_all(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    /// Ends the stream.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.chunked {
            self.out.extend_from_slice(b"0\r\n\r\n");
        }
        self.flush()
    }

    fn chunk(&mut self, bytes: &[u8]) {
        if self.chunked {
            self.out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
            self.out.extend_from_slice(bytes);
            self.out.extend_from_slice(b"\r\n");
        } else {
            self.out.extend_from_slice(bytes);
        }
    }
}

impl<W: Write> StreamSession for SseStreamSession<W> {
    type Error = io::Error;

    fn send_event(&mut self, event: &ChatEvent) -> io::Result<()> {
        let seq = self.last_seq + 1;
        let mut payload = Vec::with_capacity(128);
        event.encode(&mut payload, &self.session_id, seq, None);
        self.frame(Some(seq), &payload);
        self.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_one_data_line() {
        let mut out = Vec::new();
        let mut session = SseStreamSession::new(&mut out, "s1");
        session.send_event(&ChatEvent::Thinking { round: 0 }).unwrap();
        session.send_content("a\nb").unwrap();
        session.set_ids(true);
        session.send_done().unwrap();
        session.set_chunked(true);
        session.comment();
        session.finish().unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "data: {\"type\":\"thinking\",\"session_id\":\"s1\",\"seq\":1}\n\n\
             data: {\"type\":\"content\",\"text\":\"a\\nb\",\"session_id\":\"s1\",\"seq\":2}\n\n\
             id: 3\ndata: {\"type\":\"done\",\"session_id\":\"s1\",\"seq\":3}\n\n\
             e\r\n: keep-alive\n\n\r\n0\r\n\r\n"
        );
    }
}
