//! Server-sent events: the same stream, one `data: {...}` line an event (contract 6.2; additions "REST").
//!
//! The socket has left the pool; one thread writes it, with a cursor like a WebSocket's. Losing the client does not
//! cancel the turn.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::api::message::{SseProgress, SseResume, SseStart};
use crate::auth::Credential;
use crate::chat::SessionStream;
use crate::chat::engine::Session;
use crate::chat::event::is_terminal_json;
use crate::chat::frame;
use crate::chat::replay;
use crate::chat::stream::{Chunk, Watcher};
use crate::http::conn::Socket;
use crate::http::reply;
use crate::http::sse_session::SseStreamSession;
use crate::limits;
use crate::rt::{Stop, Threads, json};
use crate::tls::Transport;

/// All running event streams.
pub struct SseStreams {
    threads: Threads,
    stop: Stop,
    next_id: AtomicUsize,
    is_valid: Arc<dyn Fn(&Credential) -> bool + Send + Sync>,
}

impl SseStreams {
    /// `is_valid` says whether a credential still counts.
    pub fn new(stop: Stop, is_valid: Arc<dyn Fn(&Credential) -> bool + Send + Sync>) -> Self {
        let threads = Threads::new();
        Self { threads, stop, next_id: AtomicUsize::new(1), is_valid }
    }

    /// Takes over a socket. `common` are the lines that every response carries.
    pub fn open(&self, socket: Socket, start: SseStart, common: &[u8]) {
        let mut head = Vec::with_capacity(512);
        // The common lines say no-store; an event stream says no-cache (contract 1.2).
        let lines = String::from_utf8_lossy(common).replace("no-store", "no-cache");
        let lines = lines + &String::from_utf8_lossy(&start.extra_headers);
        reply::push_stream_head(&mut head, "text/event-stream", start.chunked, lines.as_bytes());
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (stop, is_valid) = (self.stop.clone(), Arc::clone(&self.is_valid));
        let spawned = self.threads.spawn(&format!("sse-write-{number}"), limits::PUMP_STACK_BYTES, move || {
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
    socket: &Transport,
    start: SseStart,
    head: &[u8],
    stop: &Stop,
    is_valid: &dyn Fn(&Credential) -> bool,
) -> io::Result<()> {
    socket.set_write_timeout(Some(limits::WS_WRITE_TIMEOUT))?;
    socket.socket().set_nodelay(true)?;
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
    writer.set_shape(start.shape);
    let life = stream.life();
    let mut pump = Pump {
        session: &start.session,
        stream,
        life,
        cursor: None,
        until: None,
        writer: &mut writer,
        progress: start.progress,
    };
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
    socket.end_writing()
}

struct Pump<'a, 'b> {
    session: &'b Session,
    stream: Arc<SessionStream>,
    life: u64,
    /// None while the turn waits for its start.
    cursor: Option<u64>,
    /// Terminal frames up to this number belong to earlier turns and end nothing.
    until: Option<u64>,
    writer: &'b mut SseStreamSession<&'a Transport>,
    progress: Arc<SseProgress>,
}

impl Pump<'_, '_> {
    fn resume(&mut self, resume: &SseResume, live: bool) -> io::Result<()> {
        let failed = |error| io::Error::other(format!("read the event log: {error}"));
        let epoch = &self.stream.shared().epoch;
        let last_seq = self.stream.last_seq();
        let oldest_seq = self.stream.oldest_seq().map_err(failed)?;
        let other_epoch = resume.epoch.as_deref().is_some_and(|wanted| !wanted.is_empty() && wanted != *epoch);
        let after = resume.after_seq;
        let lost = after < last_seq && oldest_seq.is_none_or(|oldest| after > 0 && oldest > after + 1);
        let unknown = last_seq == 0 && !live;
        let kind = if other_epoch || lost || unknown { REPLAY_UNAVAILABLE } else { RESUMED };
        self.status_frame(live, oldest_seq.unwrap_or(0), last_seq, kind);
        let floor = oldest_seq.map_or(last_seq, |oldest| oldest - 1);
        let from = if other_epoch { floor } else { after.max(floor) };
        self.cursor = Some(from.min(last_seq));
        self.until = Some(last_seq);
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
            let ended = match self.until {
                Some(_) => !self.session.is_live(),
                None => self.progress.has_ended(),
            };
            if self.cursor.is_none() {
                self.cursor = self.progress.started_after();
            }
            let step = self.take_frames()?;
            if let Ok(notice) = notice_rx.try_recv() {
                self.writer.frame(None, &notice);
                return self.writer.flush();
            }
            self.writer.flush()?;
            match step {
                Step::Over => return Ok(()),
                Step::More => continue,
                Step::UpToDate if ended => return self.end_without_start(),
                Step::UpToDate => {}
            }
            // A running turn ends as interrupted, and its frame ends this; one that still waits says nothing more.
            if stop.is_set() && self.cursor.is_none() {
                return self.end_without_start();
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

    /// The turn is over, or will not come here. Without any frame of it the client is told so.
    fn end_without_start(&mut self) -> io::Result<()> {
        if self.cursor.is_none() {
            let mut payload = b"{\"type\":\"error\",\"code\":\"interrupted\",\"session_id\":".to_vec();
            json::push_str(&mut payload, self.stream.id());
            payload
                .extend_from_slice(b",\"message\":\"the message still waits; follow the session to see its answer\"}");
            self.writer.frame(None, &payload);
        }
        self.writer.flush()
    }

    /// Writes one batch of what the stream has.
    fn take_frames(&mut self) -> io::Result<Step> {
        if self.stream.life() != self.life {
            return Ok(Step::Over); // deleted; what comes under this id is another conversation
        }
        let Some(cursor) = self.cursor else { return Ok(Step::UpToDate) };
        let chunk = self
            .stream
            .read(cursor, limits::WS_WRITE_BATCH_BYTES)
            .map_err(|error| io::Error::other(format!("read the event log: {error}")))?;
        match chunk {
            Chunk::UpToDate if self.writer.idle() => Ok(Step::Over),
            Chunk::UpToDate => Ok(Step::UpToDate),
            Chunk::Lost { oldest_seq } => {
                let last_seq = self.stream.last_seq();
                self.status_frame(false, oldest_seq.unwrap_or(0), last_seq, REPLAY_UNAVAILABLE);
                self.cursor = Some(oldest_seq.map_or(last_seq, |oldest| oldest - 1));
                Ok(Step::More)
            }
            Chunk::Frames { runs, skip, last_seq } => {
                let mut seq = runs.first().map_or(cursor, |run| run.first_seq + skip);
                for (index, slice) in replay::slices(&runs, skip).enumerate() {
                    if index > 0 {
                        seq = runs[index].first_seq;
                    }
                    for (_, payload) in frame::frames(slice) {
                        let is_last = self.writer.frame(Some(seq), payload);
                        let earlier = self.until.is_some_and(|until| seq <= until);
                        if is_last || (is_terminal_json(payload) && !earlier) {
                            return Ok(Step::Over);
                        }
                        seq += 1;
                    }
                }
                self.cursor = Some(last_seq);
                Ok(Step::More)
            }
        }
    }

    /// Says where the stream stands: `resumed`, or that frames are gone.
    fn status_frame(&mut self, live: bool, oldest_seq: u64, last_seq: u64, kind: &[u8]) {
        let mut payload = kind.to_vec();
        if kind == RESUMED {
            payload.extend_from_slice(format!(",\"live\":{live}").as_bytes());
        }
        for (key, value) in [("session_id", self.stream.id()), ("epoch", &self.stream.shared().epoch)] {
            payload.extend_from_slice(format!(",\"{key}\":").as_bytes());
            json::push_str(&mut payload, value);
        }
        payload.extend_from_slice(format!(",\"oldest_seq\":{oldest_seq},\"last_seq\":{last_seq}}}").as_bytes());
        self.writer.frame(None, &payload);
    }
}

const RESUMED: &[u8] = b"{\"type\":\"resumed\"";
const REPLAY_UNAVAILABLE: &[u8] =
    b"{\"type\":\"error\",\"code\":\"replay_unavailable\",\"message\":\"replay buffer expired or empty\"";

/// What a look at the stream has given.
enum Step {
    UpToDate,
    /// There may be more.
    More,
    /// The terminal frame was written, or the conversation is gone.
    Over,
}
