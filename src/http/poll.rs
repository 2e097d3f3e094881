//! The thread `http-poll`: accepts, reads, assembles, flushes, and keeps every deadline. It never blocks on a client
//! and never takes a lock that a handler holds.
//!
//! A connection lives in a slot. While it is parked there the poller owns it; a worker takes it out with its request
//! and parks it again when the answer is written. Parking arms the socket for one event (oneshot), so that a parked
//! connection is the only one that produces any.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError, bounded};
use polling::{Event, Events, Poller};

use crate::api::message::Req;
use crate::http::conn::{Conn, Phase, Progress};
use crate::http::head::{Refusal, refuse};
use crate::http::refusal::push_refusal;
use crate::http::shed::{class, class_of};
use crate::http::{App, HttpSettings, workers};
use crate::limits;
use crate::rt::{Threads, lock};
use crate::sys;
use crate::tls::{Acceptor, Transport};

/// A body beyond the limit of its route.
pub(super) const TOO_LARGE: Refusal = refuse(413, "request body too large");

/// A request on its way to a worker.
pub(super) struct Work {
    pub(super) conn: Box<Conn>,
    pub(super) req: Box<Req>,
    /// Only the head is here; the body has so many bytes and is to be allowed first.
    pub(super) asks: Option<usize>,
}

/// What poller and workers share.
pub(super) struct Shared {
    // Set at construction.
    pub(super) settings: HttpSettings,
    pub(super) app: Arc<dyn App>,
    /// Every connection is TLS.
    pub(super) tls: Option<Arc<Acceptor>>,
    pub(super) poller: Poller,
    pub(super) slots: Vec<Slot>,
    started: Instant,
    pub(super) buffered_all: Arc<AtomicUsize>,
    /// Bytes of large bodies that were allowed.
    pub(super) large_all: Arc<AtomicUsize>,
    // Atomics.
    stopping: AtomicBool,
    /// Milliseconds after `started` until which requests may still come; 0 when clients are not let go gently.
    grace_until: AtomicU64,
    /// Milliseconds after `started` at which draining ends.
    drain_until: AtomicU64,
    /// Guarded by this mutex: slots without a connection. Nothing is taken under it.
    pub(super) free: Mutex<Vec<usize>>,
}

pub(super) struct Slot {
    /// Guarded by this mutex: the parked connection. Held for a moment, never over a read or a handler.
    parked: Mutex<Option<Box<Conn>>>,
    pub(super) class: AtomicU8,
    /// Microseconds after `started`: the order in which connections were parked.
    pub(super) since: AtomicU64,
    /// Milliseconds after `started`.
    deadline: AtomicU64,
}

impl Shared {
    /// Begins the stop: no new connections; what is in flight has `drain`.
    pub(super) fn stop(&self, drain: Duration) {
        self.drain_until.store(self.now_ms() + as_ms(drain), Ordering::Release);
        self.stopping.store(true, Ordering::Release);
        if let Err(error) = self.poller.notify() {
            log::error!("wake the poller: {error}");
        }
    }

    /// See `HttpServer::begin_drain`. The end of draining is what the stop that follows says.
    pub(super) fn begin_drain(&self) {
        self.grace_until.store(self.now_ms() + as_ms(limits::RESTART_GRACE), Ordering::Release);
        self.stopping.store(true, Ordering::Release);
        if let Err(error) = self.poller.notify() {
            log::error!("wake the poller: {error}");
        }
    }

    /// Whether requests may still come, although there is a stop.
    fn is_in_grace(&self) -> bool {
        self.now_ms() < self.grace_until.load(Ordering::Acquire)
    }

    /// Whether connections get a clean end.
    fn is_gentle(&self) -> bool {
        self.grace_until.load(Ordering::Acquire) > 0
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Gives a connection back to the poller, to read its next request or to flush its answer.
    pub(super) fn park(&self, mut conn: Box<Conn>) {
        let is_between = conn.phase != Phase::Flush && conn.phase != Phase::Linger;
        if is_between && self.is_stopping() && !self.is_gentle() {
            self.close(conn);
            return;
        }
        conn.deadline = Instant::now()
            + match conn.phase {
                Phase::Idle => self.settings.idle_timeout,
                Phase::Head => self.settings.head_timeout,
                Phase::Body => self.settings.body_timeout,
                Phase::Flush => limits::FLUSH_TIMEOUT,
                Phase::Linger => Duration::from_secs(2),
            };
        self.arm(conn);
    }

    /// Like [`Shared::park`], with the deadline as it was.
    fn arm(&self, conn: Box<Conn>) {
        let slot = conn.slot;
        let is_flush = conn.phase == Phase::Flush;
        // TLS has words of its own, which may wait for the client to read.
        let interest = Event::new(slot, !is_flush, is_flush || conn.stream.wants_write());
        let place = &self.slots[slot];
        let since = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        place.since.store(since, Ordering::Relaxed);
        place.deadline.store(as_ms(conn.deadline.saturating_duration_since(self.started)), Ordering::Relaxed);
        let class = class_of(conn.phase, conn.authenticated);
        let failed = {
            // Armed under the lock: otherwise the poller might close the connection in between, and the descriptor
            // could be somebody else's by then.
            let mut parked = lock(&place.parked);
            match self.poller.modify(conn.stream.socket(), interest) {
                Ok(()) => {
                    place.class.store(class, Ordering::Release);
                    *parked = Some(conn);
                    None
                }
                Err(error) => Some((conn, error)),
            }
        };
        if let Some((conn, error)) = failed {
            log::warn!("arm a connection: {error}");
            self.close(conn);
        }
    }

    /// Ends a connection that is not parked.
    pub(super) fn close(&self, conn: Box<Conn>) {
        let slot = conn.slot;
        self.forget(&conn.stream);
        conn.stream.farewell();
        drop(conn);
        self.free_slot(slot);
    }

    /// Takes a connection out of HTTP for good; its slot is free for another.
    pub(super) fn detach(&self, conn: Box<Conn>) -> io::Result<(Transport, SocketAddr)> {
        self.forget(&conn.stream);
        let Conn { stream, peer, slot, .. } = *conn;
        self.free_slot(slot);
        Ok((stream.into_blocking()?, peer))
    }

    fn forget(&self, stream: &Transport) {
        // Fails only for a socket that is not registered, and then there is nothing to forget.
        let _ = self.poller.delete(stream.socket());
    }

    pub(super) fn free_slot(&self, slot: usize) {
        self.slots[slot].class.store(class::FREE, Ordering::Release);
        lock(&self.free).push(slot);
        if self.is_stopping() {
            let _ = self.poller.notify(); // the poller may wait for this very slot
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        as_ms(self.started.elapsed())
    }

    fn open_connections(&self) -> usize {
        self.slots.len() - lock(&self.free).len()
    }
}

/// Starts the threads; the caller joins them.
pub(super) fn start(
    listener: TcpListener,
    settings: HttpSettings,
    app: Arc<dyn App>,
    tls: Option<Arc<Acceptor>>,
    threads: &Threads,
) -> io::Result<Arc<Shared>> {
    listener.set_nonblocking(true)?;
    sys::widen_backlog(&listener, limits::LISTEN_BACKLOG)?;
    let count = settings.connections_max.max(1);
    let slot = |_| Slot {
        parked: Mutex::new(None),
        class: AtomicU8::new(class::FREE),
        since: AtomicU64::new(0),
        deadline: AtomicU64::new(u64::MAX),
    };
    let shared = Arc::new(Shared {
        poller: Poller::new()?,
        slots: (0..count).map(slot).collect(),
        started: Instant::now(),
        buffered_all: Arc::new(AtomicUsize::new(0)),
        large_all: Arc::new(AtomicUsize::new(0)),
        stopping: AtomicBool::new(false),
        grace_until: AtomicU64::new(0),
        drain_until: AtomicU64::new(u64::MAX),
        free: Mutex::new((0..count).rev().collect()),
        settings,
        app,
        tls,
    });
    sys::poller_add(&shared.poller, &listener, Event::readable(count))?;
    let (work_tx, work_rx) = bounded(limits::REQUEST_QUEUE);
    for number in 1..=shared.settings.workers {
        let (shared, work_rx) = (Arc::clone(&shared), work_rx.clone());
        threads.spawn(&format!("http-work-{number}"), limits::WORKER_STACK_BYTES, move || {
            workers::run(&shared, &work_rx);
        })?;
    }
    let poll = PollThread {
        shared: Arc::clone(&shared),
        listener: Some(listener),
        work_tx,
        scratch: vec![0; limits::READ_CHUNK_BYTES],
        accept_again_at: None,
        next_sweep: Instant::now(),
    };
    threads.spawn("http-poll", limits::WORKER_STACK_BYTES, move || poll.run())?;
    Ok(shared)
}

pub(super) struct PollThread {
    pub(super) shared: Arc<Shared>,
    pub(super) listener: Option<TcpListener>,
    work_tx: Sender<Work>,
    pub(super) scratch: Vec<u8>,
    pub(super) accept_again_at: Option<Instant>,
    next_sweep: Instant,
}

impl PollThread {
    fn run(mut self) {
        let mut events = Events::new();
        loop {
            events.clear();
            if let Err(error) = self.shared.poller.wait(&mut events, self.timeout())
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("poll: {error}");
            }
            if self.shared.is_stopping() && self.drained() {
                return;
            }
            for event in events.iter() {
                if event.key == self.shared.slots.len() {
                    self.accept();
                } else {
                    self.ready(event.key);
                }
            }
            let now = Instant::now();
            if self.accept_again_at.is_some_and(|at| now >= at) {
                self.accept();
            }
            if now >= self.next_sweep {
                self.sweep();
                self.next_sweep = now + Duration::from_millis(250);
            }
        }
    }

    /// Sleeps without end while nobody is connected.
    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let accept = self.accept_again_at.map(|at| at.saturating_duration_since(now));
        if self.shared.is_stopping() {
            return Some(Duration::from_millis(20));
        }
        let sweep = (self.shared.open_connections() > 0).then(|| self.next_sweep.saturating_duration_since(now));
        match (accept, sweep) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// During the stop: whether everything in flight has ended, or the time for it.
    fn drained(&mut self) -> bool {
        if let Some(listener) = self.listener.take() {
            let _ = self.shared.poller.delete(&listener); // about to be closed anyway
        }
        let is_gentle = self.shared.is_gentle();
        let mut n_open = 0;
        for slot in 0..self.shared.slots.len() {
            let class = self.shared.slots[slot].class.load(Ordering::Acquire);
            n_open += usize::from(class != class::FREE && class != class::LINGER);
            let idle = matches!(class, class::IDLE | class::STRANGER | class::KNOWN | class::LINGER);
            if !idle || self.shared.is_in_grace() {
                continue;
            }
            let Some(conn) = self.take(slot) else { continue };
            match conn.phase {
                _ if !is_gentle => self.shared.close(conn),
                Phase::Idle => self.linger(conn),
                Phase::Head if !conn.has_input() => self.linger(conn),
                // It ends by itself, or at the end of all.
                _ => self.shared.arm(conn),
            }
        }
        let now = self.shared.now_ms();
        // Peers that were told and do not go are not waited for.
        let is_told = is_gentle && n_open == 0 && !self.shared.is_in_grace();
        is_told || self.shared.open_connections() == 0 || now >= self.shared.drain_until.load(Ordering::Acquire)
    }

    pub(super) fn take(&self, slot: usize) -> Option<Box<Conn>> {
        let conn = lock(&self.shared.slots[slot].parked).take();
        if conn.is_some() {
            self.shared.slots[slot].class.store(class::BUSY, Ordering::Release);
        }
        conn
    }

    fn ready(&mut self, slot: usize) {
        let Some(mut conn) = self.take(slot) else { return };
        match conn.phase {
            Phase::Linger => {
                if conn.linger(&mut self.scratch) {
                    self.shared.close(conn);
                } else {
                    self.shared.arm(conn);
                }
            }
            Phase::Flush => match conn.flush() {
                Ok(false) => self.shared.park(conn),
                Ok(true) if conn.keep_alive => {
                    conn.phase = Phase::Idle;
                    let progress = conn.assemble(self.shared.settings.body_bytes_max);
                    self.progressed(conn, progress, true);
                }
                Ok(true) => self.linger(conn),
                Err(_) => self.shared.close(conn),
            },
            Phase::Idle | Phase::Head | Phase::Body => self.drive(conn),
        }
    }

    pub(super) fn drive(&mut self, mut conn: Box<Conn>) {
        let before = conn.phase;
        let progress = conn.read(&mut self.scratch, self.shared.settings.body_bytes_max);
        let moved = conn.phase != before;
        self.progressed(conn, progress, moved);
    }

    /// `moved`: the connection has entered another phase, whose deadline begins now.
    fn progressed(&mut self, mut conn: Box<Conn>, progress: Progress, moved: bool) {
        match progress {
            Progress::Wait => {
                if conn.wants_continue() {
                    conn.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    // 25 bytes into an empty socket buffer: what does not fit now would not help later.
                    if !matches!(conn.flush(), Ok(true)) {
                        self.shared.close(conn);
                        return;
                    }
                }
                if moved {
                    self.shared.park(conn);
                } else {
                    self.shared.arm(conn);
                }
            }
            Progress::Request(req) => self.hand_over(Work { conn, req, asks: None }),
            Progress::Ask(req, length) if self.shared.app.has_large_body(&req) => {
                self.hand_over(Work { conn, req, asks: Some(length) });
            }
            Progress::Ask(..) => self.refuse(conn, TOO_LARGE),
            Progress::Refused(refusal) => self.refuse(conn, refusal),
            Progress::Closed => self.shared.close(conn),
        }
    }

    fn hand_over(&mut self, work: Work) {
        if let Err(TrySendError::Full(work) | TrySendError::Disconnected(work)) = self.work_tx.try_send(work) {
            self.refuse(work.conn, Refusal { status: 503, text: "the hub is busy; try again" });
        }
    }

    /// Answers without a handler and closes.
    pub(super) fn refuse(&mut self, mut conn: Box<Conn>, refusal: Refusal) {
        conn.keep_alive = false;
        push_refusal(&mut conn.output, refusal, self.shared.app.common_headers("/api/"));
        match conn.flush() {
            Ok(true) => self.linger(conn),
            Ok(false) => {
                conn.phase = Phase::Flush;
                self.shared.park(conn);
            }
            Err(_) => self.shared.close(conn),
        }
    }

    /// Closing at once while bytes are unread would make the system reset the connection, and the answer be lost.
    pub(super) fn linger(&mut self, mut conn: Box<Conn>) {
        conn.close_writing();
        conn.phase = Phase::Linger;
        self.shared.park(conn);
    }

    /// Ends what is over its deadline.
    fn sweep(&mut self) {
        let now = self.shared.now_ms();
        for slot in 0..self.shared.slots.len() {
            let place = &self.shared.slots[slot];
            let parked = !matches!(place.class.load(Ordering::Acquire), class::FREE);
            if !parked || place.deadline.load(Ordering::Relaxed) > now {
                continue;
            }
            let Some(conn) = self.take(slot) else { continue };
            if conn.deadline > Instant::now() {
                self.shared.arm(conn); // parked anew in between
                continue;
            }
            match conn.phase {
                Phase::Head if !conn.has_input() => self.shared.close(conn),
                Phase::Head => self.refuse(conn, Refusal { status: 408, text: "the request head took too long" }),
                Phase::Body => self.refuse(conn, Refusal { status: 408, text: "the request body took too long" }),
                Phase::Idle | Phase::Flush | Phase::Linger => self.shared.close(conn),
            }
        }
    }
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
