//! The numbered stream of one session: logged before seen, followed by any number of watchers at their own pace
//! (architecture section 4).
//!
//! A turn emits; the frames wait in `pending` until the thread `store-log` has committed them; only then they reach the
//! ring, `committed` moves, and the watchers are woken. A watcher keeps a cursor and reads from ring or log, so it
//! can be as slow as it likes and loses nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::chat::event::ChatEvent;
use crate::chat::pending::{cut_runs, push_event};
use crate::chat::recorder::Command;
use crate::chat::replay::{ReplayStore, Since};
use crate::limits;
use crate::rt::{json, lock};
use crate::store::log::{LogReader, Run};
use crate::store::turns::Reservation;
use crate::store::{StoreError, TurnStore};

/// Somebody who follows a stream. Both functions are called from the log's thread and never block.
pub trait Watcher: Send + Sync {
    /// There may be new frames.
    fn wake(&self);
    /// A frame that belongs to no log: an error about the stream itself. `payload` is a JSON object.
    fn notice(&self, payload: &[u8]);
}

/// Why an event could not be emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// The log is full: the disk, or what the file may take of it.
    Full,
    /// The log failed for another reason, which is in the log of the program.
    Failed,
}

/// What became of a frame on its way into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    Done,
    /// It was never seen, and its number is free again.
    Failed,
    /// Not yet.
    Late,
}

/// What all streams share.
pub struct Streams {
    pub replay: ReplayStore,
    pub log: LogReader,
    /// Names the numbering as a whole, 16 hex digits.
    pub epoch: String,
    /// Changes when the machine was restarted.
    pub boot_id: String,
    pub turns: Arc<TurnStore>,
    pub recorder_tx: Sender<Command>,
    /// Commits to the log so far: it needs an fsync when this has grown.
    pub commits: AtomicU64,
}

/// One session's stream.
pub struct SessionStream {
    // Set at construction.
    id: Arc<str>,
    shared: Arc<Streams>,
    // Atomics: the last number that any watcher may see.
    committed: AtomicU64,
    /// Grows when the conversation is deleted: followers of an earlier life see nothing of the next.
    life: AtomicU64,
    /// Guarded by this mutex; nothing is taken under it.
    state: Mutex<State>,
    /// Signalled when pending frames were committed or failed.
    moved: Condvar,
}

struct State {
    next_seq: u64,
    reserved_until: u64,
    /// After a machine crash: the last number kept, for the next frame to tell.
    prev_seq: Option<u64>,
    pending: Vec<u8>,
    pending_first: u64,
    /// The recorder has been told that frames are pending.
    announced: bool,
    failed: Option<StreamError>,
    watchers: Vec<Weak<dyn Watcher>>,
}

/// Frames for a watcher.
pub enum Chunk {
    /// Skip that many frames of the first run; the cursor is `last_seq` afterwards.
    Frames {
        runs: Vec<Arc<Run>>,
        skip: u64,
        last_seq: u64,
    },
    UpToDate,
    /// Frames after the cursor are no longer kept: the oldest kept number, if any is. Go on from `oldest_seq - 1`.
    Lost {
        oldest_seq: Option<u64>,
    },
}

impl Streams {
    /// Opens the stream of a session where its numbering stands: after the last committed frame, or, if the machine
    /// went down with numbers reserved, after those.
    pub fn open(self: &Arc<Self>, session_id: &str) -> Result<SessionStream, StoreError> {
        let numbering = self.turns.numbering(session_id)?;
        let logged = self.log.last_seq(session_id)?;
        // Without frames the log was purged, and the rows remember how far it went.
        let last = logged.unwrap_or_else(|| numbering.floor_seq.max(numbering.used_seq));
        let machine_went_down = numbering.reserved_until > last && numbering.boot_id != self.boot_id;
        let used = last.max(numbering.used_seq).max(numbering.floor_seq);
        let used = if machine_went_down { used.max(numbering.reserved_until) } else { used };
        let (next_seq, prev_seq) = (used + 1, (used > last).then_some(last));
        let reserved_until = if machine_went_down { 0 } else { numbering.reserved_until };
        Ok(SessionStream {
            id: session_id.into(),
            shared: Arc::clone(self),
            committed: AtomicU64::new(last),
            life: AtomicU64::new(0),
            state: Mutex::new(State {
                next_seq,
                reserved_until,
                prev_seq,
                pending: Vec::new(),
                pending_first: next_seq,
                announced: false,
                failed: None,
                watchers: Vec::new(),
            }),
            moved: Condvar::new(),
        })
    }
}

impl SessionStream {
    /// The session's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What all streams share.
    pub fn shared(&self) -> &Arc<Streams> {
        &self.shared
    }

    /// The last number that watchers may see; 0 before the first frame.
    pub fn last_seq(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// The oldest number kept, or None when nothing is.
    pub fn oldest_seq(&self) -> Result<Option<u64>, StoreError> {
        self.shared.log.oldest_seq(&self.id)
    }

    /// What a turn that starts now needs: the last number used, and up to where numbers are to be promised before.
    pub fn plan_start(&self) -> (u64, u64) {
        let state = lock(&self.state);
        let after = state.next_seq - 1;
        if state.reserved_until >= after + limits::SEQ_BLOCK / 2 {
            (after, state.reserved_until)
        } else {
            (after, after + limits::SEQ_BLOCK)
        }
    }

    /// Numbers up to `until` were promised by a durable commit; an earlier failure is forgiven.
    pub fn set_reserved(&self, until: u64) {
        let mut state = lock(&self.state);
        state.reserved_until = state.reserved_until.max(until);
        state.failed = None;
    }

    /// Forgives a failure, to try again.
    pub fn clear_failure(&self) {
        lock(&self.state).failed = None;
    }

    /// Numbers and queues an event; only the session's running turn calls this, so numbers come from one thread.
    /// Blocks while the log is behind, and for a commit when the promised numbers are used up.
    pub fn emit(&self, event: &ChatEvent) -> Result<u64, StreamError> {
        self.promise_numbers()?;
        let mut state = lock(&self.state);
        while state.pending.len() >= limits::PENDING_BYTES_MAX && state.failed.is_none() {
            state = self.moved.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if let Some(error) = state.failed {
            return Err(error);
        }
        let seq = state.next_seq;
        state.next_seq += 1;
        let prev_seq = state.prev_seq.take();
        if state.pending.is_empty() {
            state.pending_first = seq;
        }
        push_event(&mut state.pending, event, &self.id, seq, prev_seq);
        Ok(seq)
    }

    /// Tells the recorder of pending frames, once. Blocks when its queue is full.
    pub fn announce(self: &Arc<Self>) {
        {
            let mut state = lock(&self.state);
            if state.announced || state.pending.is_empty() {
                return;
            }
            state.announced = true;
        }
        // A recorder that is gone has said so by failing the stream; nothing to do about it here.
        let _ = self.shared.recorder_tx.send(Command::Flush(Arc::clone(self)));
    }

    /// Waits until the frame `seq` is in the log, or is known not to get there, or `timeout` is over.
    pub fn wait_committed(&self, seq: u64, timeout: Duration) -> Commit {
        let deadline = Instant::now() + timeout;
        let mut state = lock(&self.state);
        loop {
            if self.last_seq() >= seq {
                return Commit::Done;
            }
            if state.failed.is_some() {
                return Commit::Failed;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Commit::Late;
            }
            state = match self.moved.wait_timeout(state, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Registers a watcher until it is dropped. Whoever registers reads [`SessionStream::last_seq`] afterwards, or
    /// simply reads from its cursor: nothing falls in between.
    pub fn watch(&self, watcher: &Arc<dyn Watcher>) {
        let mut state = lock(&self.state);
        state.watchers.retain(|known| known.strong_count() > 0);
        let known = state.watchers.iter().any(|known| known.ptr_eq(&Arc::downgrade(watcher)));
        if !known {
            state.watchers.push(Arc::downgrade(watcher));
        }
    }

    /// Which life of the session this is; a follower compares it with the one it knows.
    pub fn life(&self) -> u64 {
        self.life.load(Ordering::Acquire)
    }

    /// The conversation was deleted: tells its followers and lets go of them.
    pub fn end_life(&self) {
        let payload = json::to_vec(&serde_json::json!({
            "type": "error", "code": "not_found", "session_id": self.id(), "message": "the conversation was deleted",
        }));
        self.life.fetch_add(1, Ordering::AcqRel);
        let watchers = std::mem::take(&mut lock(&self.state).watchers);
        for watcher in watchers.iter().filter_map(Weak::upgrade) {
            watcher.notice(&payload);
        }
    }

    /// Whether somebody follows the stream.
    pub fn is_watched(&self) -> bool {
        lock(&self.state).watchers.iter().any(|watcher| watcher.strong_count() > 0)
    }

    /// Sends a frame that is not part of the log to all watchers.
    pub fn notice(&self, payload: &[u8]) {
        for watcher in self.watchers() {
            watcher.notice(payload);
        }
    }

    /// Frames after `after_seq`, from the ring or else from the log, about `bytes_max` at most. May read from disk.
    pub fn read(&self, after_seq: u64, bytes_max: usize) -> Result<Chunk, StoreError> {
        let committed = self.last_seq();
        if after_seq >= committed {
            return Ok(Chunk::UpToDate);
        }
        if let Since::Runs { mut runs, skip } = self.shared.replay.since(&self.id, after_seq, bytes_max) {
            // The ring is filled just before `committed` moves. Nobody may see a number beyond it: a client that did,
            // and resumed at once, would be taken back to the older number and get frames twice.
            runs.retain(|run| run.last_seq <= committed);
            return Ok(match runs.last().map(|run| run.last_seq) {
                Some(last_seq) => Chunk::Frames { runs, skip, last_seq },
                None => Chunk::UpToDate, // the bell rings when there is more
            });
        }
        let oldest_seq = self.oldest_seq()?;
        if oldest_seq.is_none_or(|oldest| oldest > after_seq + 1) {
            return Ok(Chunk::Lost { oldest_seq });
        }
        let mut runs = self.shared.log.since(&self.id, after_seq, bytes_max)?;
        // The log may be ahead of what is published; what is not yet published comes in its turn.
        runs.retain(|run| run.last_seq <= committed);
        let Some((first, last)) = runs.first().zip(runs.last()) else {
            return Ok(Chunk::UpToDate);
        };
        let (skip, last_seq) = ((after_seq + 1).saturating_sub(first.first_seq), last.last_seq);
        Ok(Chunk::Frames { runs: runs.into_iter().map(Arc::new).collect(), skip, last_seq })
    }

    /// The recorder takes what is pending, cut into runs.
    pub(super) fn take_pending(&self) -> Vec<Arc<Run>> {
        let (bytes, first) = {
            let mut state = lock(&self.state);
            state.announced = false;
            (std::mem::take(&mut state.pending), state.pending_first)
        };
        self.moved.notify_all();
        cut_runs(bytes, first)
    }

    /// The recorder has committed these runs: they may be seen now.
    pub(super) fn publish(&self, runs: &[Arc<Run>]) {
        for run in runs {
            self.shared.replay.append(&self.id, run);
        }
        let watchers = {
            // Under the mutex, so that `wait_committed` cannot miss the change.
            let state = lock(&self.state);
            if let Some(last) = runs.last() {
                self.committed.store(last.last_seq, Ordering::Release);
            }
            state.watchers.clone()
        };
        self.moved.notify_all();
        for watcher in watchers.iter().filter_map(Weak::upgrade) {
            watcher.wake();
        }
    }

    /// The recorder could not commit: these frames were never seen, their numbers are free again, and so are those of
    /// frames that came after.
    pub(super) fn fail(&self, first_seq: u64, error: StreamError) {
        {
            let mut state = lock(&self.state);
            state.failed = Some(error);
            state.pending.clear();
            state.next_seq = first_seq;
            let committed = self.last_seq();
            state.prev_seq = (first_seq > committed + 1).then_some(committed);
        }
        self.moved.notify_all();
    }

    fn watchers(&self) -> Vec<Arc<dyn Watcher>> {
        lock(&self.state).watchers.iter().filter_map(Weak::upgrade).collect()
    }

    fn promise_numbers(&self) -> Result<(), StreamError> {
        let until = {
            let state = lock(&self.state);
            if state.next_seq <= state.reserved_until {
                return Ok(());
            }
            state.next_seq + limits::SEQ_BLOCK
        };
        // In the middle of a turn: what is used shows in the log.
        let reservation = Reservation { until, boot_id: &self.shared.boot_id, used_seq: 0 };
        match self.shared.turns.reserve(&self.id, &reservation) {
            Ok(()) => {
                let mut state = lock(&self.state);
                state.reserved_until = state.reserved_until.max(until);
                Ok(())
            }
            Err(StoreError::Full) => Err(StreamError::Full),
            Err(error) => {
                log::error!("reserve numbers of session {}: {error}", self.id);
                Err(StreamError::Failed)
            }
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
