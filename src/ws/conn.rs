//! One WebSocket, as the rest of Holt sees it.

use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use crate::auth::Credential;
use crate::chat::ChatEvent;
use crate::chat::access::Caller;
use crate::chat::deliver::StreamSession;
use crate::chat::frame;
use crate::chat::stream::Watcher;
use crate::limits;
use crate::rt::lock;
use crate::tls::Transport;
use crate::ws::frames::{WsErrorFrame, WsEventFrame};
use crate::ws::outbox::{Control, Outbox};

/// An open WebSocket.
pub struct Conn {
    // Set at construction.
    pub(super) id: u64,
    pub(super) caller: Caller,
    pub(super) approves: bool,
    pub(super) sees_machines: bool,
    /// For the audit log.
    pub(super) address: Box<str>,
    pub(super) credential: Credential,
    pub(super) socket: Transport,
    started: Instant,
    outbox: Outbox,
    /// Itself, as streams know it.
    watcher: Weak<Conn>,
    // Atomics.
    /// Turns that this connection began and that have not ended.
    pub(super) turns: Arc<AtomicUsize>,
    last_pong_ms: AtomicI64,
    closing: AtomicBool,
    /// Milliseconds after the start; 0 while the credential counts.
    revoked_ms: AtomicI64,
    read_ended: AtomicBool,
    /// Guarded by this mutex: the sessions it follows. Nothing is taken under it.
    attached: Mutex<Vec<Arc<str>>>,
}

/// What a connection is made of.
pub(super) struct ConnParts {
    pub(super) id: u64,
    pub(super) caller: Caller,
    pub(super) approves: bool,
    pub(super) sees_machines: bool,
    /// For the audit log.
    pub(super) address: Box<str>,
    pub(super) credential: Credential,
    pub(super) socket: Transport,
    pub(super) outbox: Outbox,
}

impl Conn {
    pub(super) fn new(parts: ConnParts) -> Arc<Self> {
        Arc::new_cyclic(|watcher| Self {
            id: parts.id,
            caller: parts.caller,
            approves: parts.approves,
            sees_machines: parts.sees_machines,
            address: parts.address,
            credential: parts.credential,
            socket: parts.socket,
            started: Instant::now(),
            outbox: parts.outbox,
            watcher: watcher.clone(),
            turns: Arc::new(AtomicUsize::new(0)),
            last_pong_ms: AtomicI64::new(0),
            closing: AtomicBool::new(false),
            revoked_ms: AtomicI64::new(0),
            read_ended: AtomicBool::new(false),
            attached: Mutex::new(Vec::new()),
        })
    }

    /// Closes with a code and a reason; the first close counts. Never waits.
    pub fn close(&self, code: u16, reason: &'static str) {
        if !self.closing.swap(true, Ordering::AcqRel) {
            self.outbox.control(Control::Close { code, reason });
        }
    }

    /// The credential no longer counts: closed with 1008, and nothing more is read or carried out.
    pub(super) fn revoke(&self) {
        if self
            .revoked_ms
            .compare_exchange(0, elapsed_ms(self.started).max(1), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
        {
            self.close(1008, "credential revoked");
            // What the client sends from now on is not even looked at; it may be gone already.
            let _ = self.socket.socket().shutdown(Shutdown::Read);
        }
    }

    /// Whether it was revoked and its close frame was not taken in time.
    pub(super) fn is_overdue(&self) -> bool {
        match self.revoked_ms.load(Ordering::Acquire) {
            0 => false,
            at => elapsed_ms(self.started) - at > 500,
        }
    }

    /// Whether a close frame is on its way.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Sends a frame that belongs to no stream, if there is room; false when the client is too far behind.
    pub fn try_send(&self, whole_frame: Arc<[u8]>) -> bool {
        self.outbox.try_data(whole_frame)
    }

    /// Whether the connection follows that session.
    pub fn is_attached(&self, session_id: &str) -> bool {
        lock(&self.attached).iter().any(|id| &**id == session_id)
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// This connection as a stream's watcher.
    pub(super) fn as_watcher(&self) -> Option<Arc<dyn Watcher>> {
        self.watcher.upgrade().map(|conn| conn as Arc<dyn Watcher>)
    }

    pub(super) fn note_attached(&self, session_id: &str) {
        let mut attached = lock(&self.attached);
        attached.retain(|id| &**id != session_id);
        if attached.len() >= limits::WS_ATTACHED_MAX {
            attached.remove(0);
        }
        attached.push(session_id.into());
    }

    pub(super) fn note_pong(&self) {
        self.last_pong_ms.store(elapsed_ms(self.started), Ordering::Release);
    }

    /// Milliseconds since the last pong, or since the start.
    pub(super) fn since_pong_ms(&self) -> i64 {
        elapsed_ms(self.started) - self.last_pong_ms.load(Ordering::Acquire)
    }

    /// The reading pump has ended: nothing more will be asked for.
    pub(super) fn end_reading(&self) {
        self.read_ended.store(true, Ordering::Release);
        self.outbox.wake();
    }

    pub(super) fn has_ended_reading(&self) -> bool {
        self.read_ended.load(Ordering::Acquire)
    }

    /// Ends both halves at once: the reading pump wakes from its read.
    pub(super) fn shut_down(&self) {
        // A socket that is gone already needs no shutting down.
        let _ = self.socket.socket().shutdown(Shutdown::Both);
    }
}

/// Events straight to one socket, numbered here and in no log: for what concerns this client alone.
pub struct WsStreamSession<'a> {
    conn: &'a Conn,
    session_id: &'a str,
    last_seq: u64,
}

impl<'a> WsStreamSession<'a> {
    /// A stream of one session's events to one socket.
    pub fn new(conn: &'a Conn, session_id: &'a str) -> Self {
        Self { conn, session_id, last_seq: 0 }
    }
}

/// The client is too far behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind;

impl StreamSession for WsStreamSession<'_> {
    type Error = Behind;

    fn send_event(&mut self, event: &ChatEvent) -> Result<(), Behind> {
        self.last_seq += 1;
        let frame = WsEventFrame { event: event.clone(), session_id: self.session_id.to_owned(), seq: self.last_seq };
        if self.conn.try_send(frame::text(&frame.encode()).into()) { Ok(()) } else { Err(Behind) }
    }

    fn send_error(&mut self, code: &'static str, message: &str) -> Result<(), Behind> {
        let payload = WsErrorFrame { session_id: self.session_id, code, message }.encode();
        if self.conn.try_send(frame::text(&payload).into()) { Ok(()) } else { Err(Behind) }
    }
}

impl Watcher for Conn {
    fn wake(&self) {
        self.outbox.wake();
    }

    fn notice(&self, payload: &[u8]) {
        if !self.outbox.try_data(frame::text(payload).into()) {
            // Too far behind to be told: cut off, the client resumes and learns the state then.
            self.shut_down();
        }
    }
}

fn elapsed_ms(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX)
}
