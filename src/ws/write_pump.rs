//! The writing half of a WebSocket: the only thread that writes it. Control frames first, then frames of their own,
//! then whatever the followed streams have; all that is there goes out in one vectored write.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::select;

use crate::chat::SessionStream;
use crate::chat::frame;
use crate::chat::stream::Chunk;
use crate::limits;
use crate::store::log::Run;
use crate::tls::Transport;
use crate::ws::conn::Conn;
use crate::ws::frames;
use crate::ws::outbox::{Control, Data, Inbox};

/// A protocol ping without a payload.
const PING: [u8; 2] = [0x89, 0];
/// Slices of one vectored write; the system takes at most 1,024.
const SLICES_MAX: usize = 64;

/// Writes `head` and then everything that comes, until the socket ends.
pub(super) fn run(conn: &Arc<Conn>, inbox: &Inbox, head: &[u8]) {
    let mut pump = Pump {
        conn,
        inbox,
        followed: VecDeque::new(),
        batch: Batch::default(),
        next_ping: Instant::now() + limits::WS_PING_INTERVAL,
        closing: false,
    };
    pump.batch.push_bytes(head);
    let result = pump.run();
    if let Err(error) = result {
        log::debug!("write websocket {}: {error}", conn.id);
        return;
    }
    // Our close frame is out; the peer may answer with its own before the socket goes.
    let _ = conn.socket.end_writing();
    let deadline = Instant::now() + limits::WS_CLOSE_TIMEOUT;
    while !conn.has_ended_reading() && Instant::now() < deadline {
        let _ = inbox.wake_rx.recv_deadline(deadline); // the bell also rings for streams that moved
    }
}

/// Appends a close frame; code 1000 without a reason is sent like any other.
pub(super) fn push_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = &reason.as_bytes()[..reason.len().min(123)];
    frame::push_header(out, 0x88, 2 + reason.len());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason);
}

struct Pump<'a> {
    conn: &'a Arc<Conn>,
    inbox: &'a Inbox,
    /// The longest unused first.
    followed: VecDeque<Followed>,
    batch: Batch,
    next_ping: Instant,
    /// A close frame is in the batch: nothing comes after it.
    closing: bool,
}

struct Followed {
    stream: Arc<SessionStream>,
    life: u64,
    cursor: u64,
}

impl Pump<'_> {
    fn run(&mut self) -> io::Result<()> {
        loop {
            // Asked before the queues: what the reader left there as its last act is still written.
            let read_ended = self.conn.has_ended_reading();
            while let Ok(control) = self.inbox.control_rx.try_recv() {
                self.control(control);
            }
            if !self.closing {
                self.take_data();
                self.take_streams()?;
                self.take_ping()?;
            }
            if !self.batch.is_empty() {
                self.batch.write(&self.conn.socket)?;
                if self.closing {
                    return Ok(());
                }
                continue;
            }
            if self.closing || read_ended {
                return Ok(());
            }
            self.wait();
        }
    }

    fn wait(&mut self) {
        let timeout = self.next_ping.saturating_duration_since(Instant::now()).min(self.pong_left());
        select! {
            recv(self.inbox.control_rx) -> control => if let Ok(control) = control { self.control(control) },
            recv(self.inbox.data_rx) -> data => if let Ok(data) = data { self.data(*data) },
            recv(self.inbox.wake_rx) -> _ => {}
            default(timeout) => {}
        }
    }

    fn control(&mut self, control: Control) {
        if self.closing {
            return;
        }
        match control {
            Control::Raw(bytes) => {
                self.closing = bytes.first() == Some(&0x88);
                self.batch.push_bytes(&bytes);
            }
            Control::Close { code, reason } => {
                self.closing = true;
                let mut bytes = Vec::new();
                push_close(&mut bytes, code, reason);
                self.batch.push_bytes(&bytes);
            }
        }
    }

    fn take_data(&mut self) {
        while self.batch.has_room() {
            match self.inbox.data_rx.try_recv() {
                Ok(data) => self.data(*data),
                Err(_) => return,
            }
        }
    }

    fn data(&mut self, data: Data) {
        match data {
            Data::Frame(whole) => self.batch.push_shared(whole),
            Data::Attach { stream, life, after_seq, head } => self.attach(stream, life, after_seq, head),
        }
    }

    fn attach(&mut self, stream: Arc<SessionStream>, life: u64, after_seq: u64, head: Option<Vec<u8>>) {
        let known =
            self.followed.iter().position(|followed| Arc::ptr_eq(&followed.stream, &stream) && followed.life == life);
        let cursor = match known.and_then(|place| self.followed.remove(place)) {
            // Followed already: a further message changes nothing, a resume begins anew.
            Some(followed) if head.is_none() => followed.cursor,
            _ => after_seq,
        };
        if let Some(head) = head {
            self.batch.push_bytes(&frame::text(&head));
        }
        self.followed.retain(|followed| followed.stream.id() != stream.id());
        if self.followed.len() >= limits::WS_ATTACHED_MAX {
            self.followed.pop_front();
        }
        // Used last: let go of last.
        self.followed.push_back(Followed { stream, life, cursor });
    }

    /// Takes what the followed streams have after their cursors, as far as there is room.
    fn take_streams(&mut self) -> io::Result<()> {
        self.followed.retain(|followed| followed.stream.life() == followed.life);
        for followed in &mut self.followed {
            if !self.batch.has_room() {
                return Ok(());
            }
            if followed.stream.last_seq() <= followed.cursor {
                continue;
            }
            let chunk = followed.stream.read(followed.cursor, self.batch.room()).map_err(|error| {
                log::error!("replay session {}: {error}", followed.stream.id());
                io::Error::other("replay failed")
            })?;
            match chunk {
                Chunk::UpToDate => {}
                Chunk::Frames { runs, skip, last_seq } => {
                    for (index, run) in runs.into_iter().enumerate() {
                        self.batch.push_run(run, if index == 0 { skip } else { 0 });
                    }
                    followed.cursor = last_seq;
                }
                Chunk::Lost { oldest_seq } => {
                    let last_seq = followed.stream.last_seq();
                    let epoch = &followed.stream.shared().epoch;
                    let lost =
                        frames::replay_unavailable(followed.stream.id(), epoch, oldest_seq.unwrap_or(0), last_seq);
                    self.batch.push_bytes(&frame::text(&lost));
                    followed.cursor = oldest_seq.map_or(last_seq, |oldest| oldest - 1);
                }
            }
        }
        Ok(())
    }

    fn take_ping(&mut self) -> io::Result<()> {
        if self.pong_left().is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "no pong in time"));
        }
        if Instant::now() >= self.next_ping {
            self.next_ping = Instant::now() + limits::WS_PING_INTERVAL;
            self.batch.push_bytes(&PING);
        }
        Ok(())
    }

    fn pong_left(&self) -> Duration {
        let since = Duration::from_millis(u64::try_from(self.conn.since_pong_ms()).unwrap_or(0));
        limits::WS_PONG_TIMEOUT.saturating_sub(since)
    }
}

/// Bytes on their way out, shared with rings and other sockets where possible.
#[derive(Default)]
struct Batch {
    pieces: Vec<Piece>,
    bytes: usize,
}

enum Piece {
    Own(Vec<u8>),
    Shared(Arc<[u8]>),
    Run { run: Arc<Run>, from: usize },
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::Run { run, from } => &run.frames[*from..],
        }
    }
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn has_room(&self) -> bool {
        self.room() > 0 && self.pieces.len() < SLICES_MAX
    }

    fn room(&self) -> usize {
        limits::WS_WRITE_BATCH_BYTES.saturating_sub(self.bytes)
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        match self.pieces.last_mut() {
            Some(Piece::Own(last)) => last.extend_from_slice(bytes),
            _ => self.pieces.push(Piece::Own(bytes.to_vec())),
        }
    }

    fn push_shared(&mut self, whole: Arc<[u8]>) {
        self.bytes += whole.len();
        self.pieces.push(Piece::Shared(whole));
    }

    fn push_run(&mut self, run: Arc<Run>, skip: u64) {
        let from = run.frames.len() - frame::skip_frames(&run.frames, skip).len();
        self.bytes += run.frames.len() - from;
        self.pieces.push(Piece::Run { run, from });
    }

    /// Writes all of it. Fails when the client takes nothing for [`limits::WS_WRITE_TIMEOUT`].
    fn write(&mut self, mut socket: &Transport) -> io::Result<()> {
        let (mut piece, mut offset) = (0, 0);
        while piece < self.pieces.len() {
            let slices: Vec<IoSlice<'_>> = self.pieces[piece..]
                .iter()
                .take(SLICES_MAX)
                .enumerate()
                .map(|(index, part)| IoSlice::new(if index == 0 { &part.bytes()[offset..] } else { part.bytes() }))
                .collect();
            let written = match socket.write_vectored(&slices) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            offset += written;
            while piece < self.pieces.len() && offset >= self.pieces[piece].bytes().len() {
                offset -= self.pieces[piece].bytes().len();
                piece += 1;
            }
        }
        self.pieces.clear();
        self.bytes = 0;
        Ok(())
    }
}
