//! Server-sent events: the same stream, one `data: {...}` line an event (contract 6.2; additions "REST").
//!
//! The socket has left the pool; one thread writes it, with a cursor like a WebSocket's. Losing the client does not
//! cancel the turn.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::api::message::{SseProgress, SseResume, SseStart};
use crate::auth::Credential;
use crate::chat::SessionStream;
use crate::chat::event::is_terminal_json;
use crate::chat::frame;
use crate::chat::replay;
use crate::chat::stream::{Chunk, Watcher};
use crate::http::conn::Socket;
use crate::http::reply;
use crate::http::sse_session::SseStreamSession;
use crate::limits;
use crate::rt::{Stop, Threads, json};

/// All running event streams.
pub struct SseStreams {
    threads: Threads,
    stop: Stop,
    open: Arc<AtomicUsize>,
    next_id: AtomicUsize,
    is_valid: Arc<dyn Fn(&Credential) -> bool + Send + Sync>,
}

impl SseStreams {
    /// `is_valid` says whether a credential still counts.
    pub fn new(stop: Stop, is_valid: Arc<dyn Fn(&Credential) -> bool + Send + Sync>) -> Self {
        let (threads, open) = (Threads::new(), Arc::new(AtomicUsize::new(0)));
        Self { threads, stop, open, next_id: AtomicUsize::new(1), is_valid }
    }

    /// Takes over a socket. `common` are the lines that every response carries.
    pub fn open(&self, socket: Socket, start: SseStart, common: &[u8]) {
        let counted = Counted::new(&self.open);
        if counted.is_over(limits::SSE_STREAMS_MAX) {
            refuse(&socket.stream, &[common, &start.extra_headers].concat());
            return;
        }
        let mut head = Vec::with_capacity(512);
        // The common lines say no-store; an event stream says no-cache (contract 1.2).
        let lines = String::from_utf8_lossy(common).replace("no-store", "no-cache");
        let lines = lines + &String::from_utf8_lossy(&start.extra_headers);
        reply::push_stream_head(&mut head, "text/event-stream", start.chunked, lines.as_bytes());
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (stop, is_valid) = (self.stop.clone(), Arc::clone(&self.is_valid));
        let spawned = self.threads.spawn(&format!("sse-write-{number}"), limits::PUMP_STACK_BYTES, move || {
            let _counted = counted;
            if let Err(error) = run(&socket.stream, start, &head, &stop, &*is_valid) {
                log::debug!("event stream to {}: {error}", socket.peer);
            }
        });
        if let Err(error) = spawned {
            log::error!("start an event stream: {error}");
        }
    }

    /// Waits for the streams to end; the names of late ones.
    pub fn join(&self, timeout: Duration) -> Vec<String> {
        self.threads.join_all(timeout)
    }
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(open))
    }

    fn is_over(&self, max: usize) -> bool {
        self.0.load(Ordering::Acquire) > max
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn refuse(mut socket: &TcpStream, common: &[u8]) {
    let body = br#"{"error":"too many event streams are open; try again","code":"busy"}"#;
    let mut response = crate::api::message::json_response(503, body.to_vec());
    if let Some(header) = crate::api::message::header("Retry-After", "5") {
        response.add_header(header);
    }
    let mut out = Vec::new();
    reply::push_response(
        &mut out,
        response,
        reply::Framing { head_only: false, keep_alive: false, http10: false },
        common,
    );
    // The turn runs all the same; a client that is gone does not mind.
    let _ = socket.set_write_timeout(Some(Duration::from_secs(1))).and_then(|()| socket.write_all(&out));
}

/// Wakes the thread, and carries notices.
struct SseWatcher {
    wake_tx: Sender<()>,
    notice_tx: Sender<Vec<u8>>,
}

impl Watcher for SseWatcher {
    fn wake(&self) {
        let _ = self.wake_tx.try_send(()); // one ring is enough
    }

    fn notice(&self, payload: &[u8]) {
        let _ = self.notice_tx.try_send(payload.to_vec()); // one is enough to end the stream
        self.wake();
    }
}

fn run(
    socket: &TcpStream,
    start: SseStart,
    head: &[u8],
    stop: &Stop,
    is_valid: &dyn Fn(&Credential) -> bool,
) -> io::Result<()> {
    socket.set_write_timeout(Some(limits::WS_WRITE_TIMEOUT))?;
    socket.set_nodelay(true)?;
    let (wake_tx, wake_rx) = bounded(1);
    let (notice_tx, notice_rx) = bounded(1);
    start.progress.set_wake(wake_tx.clone());
    let stream = Arc::clone(start.session.stream());
    let watcher: Arc<dyn Watcher> = Arc::new(SseWatcher { wake_tx, notice_tx });
    stream.watch(&watcher);
    let mut writer = SseStreamSession::new(socket, start.session.stream().id());
    writer.set_chunked(start.chunked);
    writer.set_ids(start.ids);
    writer.raw(head);
    let mut pump = Pump { stream, cursor: None, until: None, writer: &mut writer, progress: start.progress };
    match start.resume {
        Some(resume) => {
            let live = start.session.is_live();
            pump.resume(&resume, live)?;
        }
        None if pump.progress.position() > 0 => {
            let position = pump.progress.position() as u64;
            let mut payload = b"{\"type\":\"queued\",\"session_id\":".to_vec();
            json::push_str(&mut payload, pump.stream.id());
            payload.extend_from_slice(b",\"position\":");
            json::push_u64(&mut payload, position);
            payload.push(b'}');
            pump.writer.frame(None, &payload);
        }
        None => {}
    }
    pump.follow(&wake_rx, &notice_rx, stop, &|| is_valid(&start.credential))?;
    writer.finish()?;
    socket.shutdown(std::net::Shutdown::Write)
}

struct Pump<'a, 'b> {
    stream: Arc<SessionStream>,
    /// None while the turn waits for its start.
    cursor: Option<u64>,
    /// Terminal frames up to this number belong to earlier turns and end nothing.
    until: Option<u64>,
    writer: &'b mut SseStreamSession<&'a TcpStream>,
    progress: Arc<SseProgress>,
}

impl Pump<'_, '_> {
    fn resume(&mut self, resume: &SseResume, live: bool) -> io::Result<()> {
        let failed = |error| io::Error::other(format!("read the event log: {error}"));
        let epoch = self.stream.shared().epoch.clone();
        let last_seq = self.stream.last_seq();
        let oldest_seq = self.stream.oldest_seq().map_err(failed)?;
        let other_epoch = resume.epoch.as_deref().is_some_and(|wanted| !wanted.is_empty() && wanted != epoch);
        let after = resume.after_seq;
        let lost = after < last_seq && oldest_seq.is_none_or(|oldest| after > 0 && oldest > after + 1);
        let unknown = last_seq == 0 && !live;
        let mut payload = if other_epoch || lost || unknown {
            b"{\"type\":\"error\",\"code\":\"replay_unavailable\",\"message\":\"replay buffer expired or empty\""
                .to_vec()
        } else {
            format!("{{\"type\":\"resumed\",\"live\":{live}").into_bytes()
        };
        for (key, value) in [("session_id", self.stream.id()), ("epoch", &epoch)] {
            payload.extend_from_slice(format!(",\"{key}\":").as_bytes());
            json::push_str(&mut payload, value);
        }
        for (key, value) in [("oldest_seq", oldest_seq.unwrap_or(0)), ("last_seq", last_seq)] {
            payload.extend_from_slice(format!(",\"{key}\":").as_bytes());
            json::push_u64(&mut payload, value);
        }
        payload.push(b'}');
        self.writer.frame(None, &payload);
        let floor = oldest_seq.map_or(last_seq, |oldest| oldest - 1);
        let from = if other_epoch { floor } else { after.max(floor) };
        self.cursor = Some(from.min(last_seq));
        self.until = Some(last_seq);
        if !live {
            self.progress.set_ended();
        }
        Ok(())
    }

    /// Writes what comes until the turn's terminal frame, the stop, or a credential that no longer counts.
    fn follow(
        &mut self,
        wake_rx: &Receiver<()>,
        notice_rx: &Receiver<Vec<u8>>,
        stop: &Stop,
        is_valid: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        let mut next_comment = Instant::now() + limits::SSE_KEEPALIVE;
        let mut next_check = Instant::now() + limits::REVOCATION_INTERVAL;
        loop {
            if Instant::now() >= next_check {
                next_check = Instant::now() + limits::REVOCATION_INTERVAL;
                if !is_valid() {
                    return Ok(());
                }
            }
            // Asked before the frames are read: an end that is seen here has its frames in the log already.
            let ended = self.progress.has_ended();
            if self.cursor.is_none() {
                self.cursor = self.progress.started_after();
            }
            if self.take_frames()? {
                return Ok(());
            }
            if let Ok(notice) = notice_rx.try_recv() {
                self.writer.frame(None, &notice);
                return self.writer.flush();
            }
            self.writer.flush()?;
            if ended && self.up_to_date() {
                return Ok(());
            }
            // A running turn ends as interrupted, and its frame ends this; one that still waits says nothing more.
            if stop.is_set() && self.cursor.is_none() {
                return Ok(());
            }
            if Instant::now() >= next_comment {
                next_comment = Instant::now() + limits::SSE_KEEPALIVE;
                self.writer.comment();
                self.writer.flush()?;
            }
            let wait = next_comment.min(next_check).saturating_duration_since(Instant::now());
            select! {
                recv(wake_rx) -> _ => {}
                recv(notice_rx) -> notice => {
                    if let Ok(notice) = notice {
                        self.writer.frame(None, &notice);
                        return self.writer.flush();
                    }
                }
                default(wait) => {}
            }
        }
    }

    fn up_to_date(&self) -> bool {
        self.cursor.is_some_and(|cursor| cursor >= self.stream.last_seq())
    }

    /// Writes what the stream has; true after the terminal frame.
    fn take_frames(&mut self) -> io::Result<bool> {
        while let Some(cursor) = self.cursor {
            let chunk = self
                .stream
                .read(cursor, limits::WS_WRITE_BATCH_BYTES)
                .map_err(|error| io::Error::other(format!("read the event log: {error}")))?;
            match chunk {
                Chunk::UpToDate => return Ok(false),
                Chunk::Lost { oldest_seq } => {
                    self.cursor = Some(oldest_seq.map_or(self.stream.last_seq(), |oldest| oldest - 1));
                }
                Chunk::Frames { runs, skip, last_seq } => {
                    let mut seq = runs.first().map_or(cursor, |run| run.first_seq + skip);
                    for (index, slice) in replay::slices(&runs, skip).enumerate() {
                        if index > 0 {
                            seq = runs[index].first_seq;
                        }
                        for (_, payload) in frame::frames(slice) {
                            self.writer.frame(Some(seq), payload);
                            let earlier = self.until.is_some_and(|until| seq <= until);
                            if is_terminal_json(payload) && !earlier {
                                self.writer.flush()?;
                                return Ok(true);
                            }
                            seq += 1;
                        }
                    }
                    self.cursor = Some(last_seq);
                    self.writer.flush()?;
                }
            }
        }
        Ok(false)
    }
}
