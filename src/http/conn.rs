//! One HTTP connection: its socket, what was read and not yet understood, what was written and not yet taken.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use crate::api::message::Req;
use crate::http::body::Chunked;
use crate::http::head::{self, Framing, Head, Refusal, refuse};
use crate::limits;
use crate::rt::Slot;
use crate::tls::{self, Transport};

/// What is read of a file at once to be sent.
const TAIL_CHUNK_BYTES: usize = 32 * 1024;
/// So often, before other connections get a turn.
const TAIL_CHUNKS_MAX: usize = 8;

/// A socket that has left HTTP: reads and writes wait from now on.
pub struct Socket {
    pub stream: Transport,
    pub peer: SocketAddr,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests.
    Idle,
    /// Part of a head is here.
    Head,
    /// The head is here, part of the body may be.
    Body,
    /// An answer waits for the client to read.
    Flush,
    /// The last answer was sent; what still comes is dropped, so that the client gets to read it.
    Linger,
}

/// What a read found.
pub(super) enum Progress {
    /// More is needed.
    Wait,
    /// A complete request.
    Request(Box<Req>),
    /// The head of one with a large body, of that many bytes: it comes after somebody has allowed it.
    Ask(Box<Req>, usize),
    /// The request is refused.
    Refused(Refusal),
    /// The peer is gone.
    Closed,
}

/// What was read so far is.
enum Assembled {
    Nothing,
    Request(Box<Req>),
    Ask(Box<Req>, usize),
}

/// One connection.
pub(super) struct Conn {
    pub(super) stream: Transport,
    pub(super) peer: SocketAddr,
    pub(super) slot: usize,
    pub(super) phase: Phase,
    pub(super) deadline: Instant,
    /// It proved who it is at least once.
    pub(super) authenticated: bool,
    pub(super) keep_alive: bool,
    pub(super) served: u32,
    /// A worker found the next request to be faulty; the poller answers that.
    pub(super) refused: Option<Refusal>,
    input: Vec<u8>,
    scanned: usize,
    head: Option<Head>,
    chunked: Option<Chunked>,
    /// A large body was allowed: its bytes in the count of those.
    large: Option<Slot>,
    pub(super) output: Vec<u8>,
    written: usize,
    /// The rest of an answer, behind what is in `output`.
    pub(super) tail: Option<Box<io::Take<File>>>,
    lingered: usize,
    counted: Slot,
}

impl Conn {
    pub(super) fn new(
        stream: Transport,
        peer: SocketAddr,
        slot: usize,
        deadline: Instant,
        buffered_all: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            stream,
            peer,
            slot,
            phase: Phase::Head,
            deadline,
            authenticated: false,
            keep_alive: true,
            served: 0,
            refused: None,
            input: Vec::new(),
            scanned: 0,
            head: None,
            chunked: None,
            large: None,
            output: Vec::new(),
            written: 0,
            tail: None,
            lingered: 0,
            counted: Slot::hold(&buffered_all, 0),
        }
    }

    /// Reads what is there, a bounded amount, and tries to make a request of it. `scratch` is the poller's.
    pub(super) fn read(&mut self, scratch: &mut [u8], body_bytes_max: usize) -> Progress {
        // A bounded number of reads, so that one fast sender does not keep the poller from the others.
        for _ in 0..8 {
            match self.stream.try_read(scratch) {
                Ok(0) => return Progress::Closed,
                Ok(count) => {
                    self.input.extend_from_slice(&scratch[..count]);
                    self.take_held(scratch);
                    match self.assemble(body_bytes_max) {
                        Progress::Wait => {}
                        other => return other,
                    }
                    if count < scratch.len() {
                        return Progress::Wait;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Wait,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if tls::is_plain_http(&error) => {
                    return Progress::Refused(refuse(400, "this port speaks TLS: use an https:// address"));
                }
                Err(_) => return Progress::Closed,
            }
        }
        Progress::Wait
    }

    /// Takes what TLS has read already, less than a record: the poller would not tell of it.
    fn take_held(&mut self, scratch: &mut [u8]) {
        while self.stream.holds_input() {
            let Ok(count) = self.stream.try_read(scratch) else { return };
            self.input.extend_from_slice(&scratch[..count]);
        }
    }

    /// Makes a request of what was read, if it is complete.
    pub(super) fn assemble(&mut self, body_bytes_max: usize) -> Progress {
        let progress = match self.try_assemble(body_bytes_max) {
            Ok(Assembled::Request(req)) => Progress::Request(req),
            Ok(Assembled::Ask(req, length)) => Progress::Ask(req, length),
            Ok(Assembled::Nothing) => Progress::Wait,
            Err(refusal) => Progress::Refused(refusal),
        };
        self.count_buffered();
        if matches!(progress, Progress::Wait)
            && self.counted.share() > limits::HEAD_BYTES_MAX
            && self.counted.all() > limits::BUFFERED_BYTES_MAX
        {
            return Progress::Refused(refuse(503, "too much is being sent at once; try again"));
        }
        progress
    }

    fn try_assemble(&mut self, body_bytes_max: usize) -> Result<Assembled, Refusal> {
        if let Some(refusal) = self.refused.take() {
            return Err(refusal);
        }
        if self.head.is_none() {
            self.skip_empty_lines()?;
            if self.input.is_empty() {
                self.phase = Phase::Idle;
                return Ok(Assembled::Nothing);
            }
            self.phase = Phase::Head;
            let Some(head) = head::parse(&self.input, &mut self.scanned, body_bytes_max)? else {
                return Ok(Assembled::Nothing);
            };
            if head.framing == Framing::Chunked {
                self.chunked = Some(Chunked::new(body_bytes_max));
            }
            self.head = Some(head);
        }
        // Also when the head was parsed earlier: the body's deadline is what counts now.
        self.phase = Phase::Body;
        let Some(head) = &self.head else { return Ok(Assembled::Nothing) };
        let head_length = head.length;
        let body = match head.framing {
            Framing::Large(length) if self.large.is_none() => {
                return Ok(Assembled::Ask(self.head_only(head), length));
            }
            Framing::Length(length) | Framing::Large(length) => {
                if self.input.len() < head_length + length {
                    return Ok(Assembled::Nothing);
                }
                let rest = self.input.split_off(head_length);
                let (body, rest) = split(rest, length);
                let bytes = std::mem::replace(&mut self.input, rest);
                return Ok(self.finish(bytes, body));
            }
            Framing::Chunked => {
                let Some(chunked) = &mut self.chunked else { return Ok(Assembled::Nothing) };
                let used = chunked.feed(&self.input[head_length..])?;
                self.input.drain(head_length..head_length + used);
                if !chunked.is_done() {
                    return Ok(Assembled::Nothing);
                }
                self.chunked.take().map(Chunked::into_body).unwrap_or_default()
            }
        };
        let rest = self.input.split_off(head_length);
        let bytes = std::mem::replace(&mut self.input, rest);
        Ok(self.finish(bytes, body))
    }

    /// The request as far as its head tells, for whoever decides about its body.
    fn head_only(&self, head: &Head) -> Box<Req> {
        Box::new(Req {
            method: head.method.clone(),
            path: head.path.clone(),
            query: head.query.clone(),
            headers: Head::headers(head.spans.clone(), self.input[..head.length].to_vec()),
            body: Vec::new(),
            peer: self.peer,
            secure: self.stream.is_tls(),
            http10: head.http10,
            authenticated: Cell::new(false),
            watched: Cell::new(false),
            held: None,
        })
    }

    /// The large body that was asked for may come. `all` counts the bytes of all such bodies; false when they are too
    /// many.
    pub(super) fn allow_large(&mut self, length: usize, all: &Arc<AtomicUsize>) -> bool {
        let slot = Slot::hold(all, length);
        if slot.all() > limits::LARGE_BODIES_BYTES_MAX {
            return false;
        }
        self.large = Some(slot);
        self.count_buffered();
        true
    }

    fn finish(&mut self, head_bytes: Vec<u8>, body: Vec<u8>) -> Assembled {
        let Some(head) = self.head.take() else { return Assembled::Nothing };
        // What waits for a worker counts like what is still being sent.
        let held = self.large.take().unwrap_or_else(|| self.counted.sibling(body.len()));
        self.scanned = 0;
        self.keep_alive = head.keep_alive;
        Assembled::Request(Box::new(Req {
            method: head.method,
            path: head.path,
            query: head.query,
            headers: Head::headers(head.spans, head_bytes),
            body,
            peer: self.peer,
            secure: self.stream.is_tls(),
            http10: head.http10,
            authenticated: Cell::new(false),
            watched: Cell::new(false),
            held: Some(held),
        }))
    }

    /// Robust servers ignore an empty line or two before a request line (RFC 9112 section 2.2); more is no request.
    fn skip_empty_lines(&mut self) -> Result<(), Refusal> {
        let lines = self.input.chunks_exact(2).take_while(|pair| pair == b"\r\n").count();
        if lines > 8 {
            return Err(refuse(400, "too many empty lines before the request"));
        }
        if lines > 0 {
            self.input.drain(..lines * 2);
            self.scanned = 0;
        }
        Ok(())
    }

    /// Takes the bytes of a request back, to read the next one into.
    pub(super) fn recycle(&mut self, mut bytes: Vec<u8>) {
        if self.input.is_empty() && bytes.capacity() <= 4096 {
            bytes.clear();
            self.input = bytes;
        }
    }

    /// Whether the client waits for a `100 Continue` before it sends its body; asked once per request.
    pub(super) fn wants_continue(&mut self) -> bool {
        match &mut self.head {
            Some(head) if head.expects_continue => {
                head.expects_continue = false;
                true
            }
            _ => false,
        }
    }

    /// Like [`Conn::wants_continue`], without counting as the asking.
    pub(super) fn expects_continue(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.expects_continue)
    }

    /// Whether bytes of a next request are here already.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// What the client sent behind its request, for whoever takes the socket over.
    pub(super) fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }

    /// Writes what is left of the answer: true when all is written, false when the client has to read first, or others
    /// are to have a turn.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        for _ in 0..TAIL_CHUNKS_MAX {
            if !self.flush_output()? {
                return Ok(false);
            }
            let Some(tail) = &mut self.tail else { return Ok(true) };
            self.output.resize(TAIL_CHUNK_BYTES, 0);
            let count = tail.read(&mut self.output)?;
            self.output.truncate(count);
            if count == 0 {
                self.tail = None;
            }
        }
        Ok(false)
    }

    fn flush_output(&mut self) -> io::Result<bool> {
        while self.written < self.output.len() {
            match self.stream.try_write(&self.output[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if !self.stream.try_flush()? {
            return Ok(false);
        }
        self.written = 0;
        // A large answer must not leave its buffer with an idle connection.
        if self.output.capacity() > 4096 {
            self.output = Vec::new();
        } else {
            self.output.clear();
        }
        Ok(true)
    }

    /// Reads and drops what still comes after the last answer; true when the peer has closed or sent too much.
    pub(super) fn linger(&mut self, scratch: &mut [u8]) -> bool {
        for _ in 0..8 {
            match self.stream.try_read(scratch) {
                Ok(0) => return true,
                Ok(count) => {
                    self.lingered += count;
                    if self.lingered > limits::BODY_BYTES_MAX * 2 {
                        return true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
        false
    }

    /// Says that nothing more will be written.
    pub(super) fn close_writing(&mut self) {
        self.input = Vec::new();
        self.head = None;
        self.chunked = None;
        self.large = None;
        self.count_buffered();
        // A peer that is gone already needs no goodbye.
        let _ = self.stream.end_writing();
    }

    fn count_buffered(&mut self) {
        if self.large.is_some() {
            return self.counted.set(0); // counted among the large ones, in full
        }
        let now = self.input.len() + self.chunked.as_ref().map_or(0, Chunked::buffered);
        self.counted.set(now);
    }
}

fn split(mut bytes: Vec<u8>, at: usize) -> (Vec<u8>, Vec<u8>) {
    let rest = bytes.split_off(at);
    (bytes, rest)
}
