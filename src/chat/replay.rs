//! Replay from memory: a ring of recent runs per session, and all rings together under one bound.
//!
//! Losing a ring loses nothing: the event log holds the same frames.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::chat::frame;
use crate::limits;
use crate::rt::lock;
use crate::store::log::Run;

/// What a ring knows about the frames after a number.
#[derive(Debug)]
pub enum Since {
    /// These runs hold them; skip that many frames of the first.
    Runs { runs: Vec<Arc<Run>>, skip: u64 },
    /// Nothing after that number was ever appended here.
    UpToDate,
    /// The ring does not reach back that far: ask the log.
    Gone,
}

/// The recent frames of one session: a circular buffer of runs under a mutex, bounded by bytes.
pub struct ReplayBuffer {
    /// Guarded by the mutex.
    ring: Mutex<Ring>,
    bytes_max: usize,
}

struct Ring {
    runs: VecDeque<Arc<Run>>,
    bytes: usize,
    frames: u64,
    /// Empty when cut; appending would leave a hole that nobody sees.
    retired: bool,
}

impl ReplayBuffer {
    /// An empty buffer that keeps at most `bytes_max`, and always the newest run. Allocates nothing yet.
    pub fn new(bytes_max: usize) -> Self {
        Self { ring: Mutex::new(Ring { runs: VecDeque::new(), bytes: 0, frames: 0, retired: false }), bytes_max }
    }

    /// Appends a run, whose numbers follow those before. By how much the bytes kept grew or shrank; None when the
    /// store has let go of this buffer.
    pub fn append(&self, run: Arc<Run>) -> Option<isize> {
        let mut ring = lock(&self.ring);
        if ring.retired {
            return None;
        }
        let before = ring.bytes;
        ring.bytes += run.frames.len();
        ring.frames += run.last_seq - run.first_seq + 1;
        ring.runs.push_back(run);
        while ring.bytes > self.bytes_max && ring.runs.len() > 1 {
            if let Some(old) = ring.runs.pop_front() {
                ring.bytes -= old.frames.len();
                ring.frames -= old.last_seq - old.first_seq + 1;
            }
        }
        Some(ring.bytes.cast_signed() - before.cast_signed())
    }

    /// How many frames are kept.
    pub fn len(&self) -> u64 {
        lock(&self.ring).frames
    }

    /// Whether no frame is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frames after `after_seq`, up to about `bytes_max` (at least one run). O(log n + k).
    pub fn replay_since(&self, after_seq: u64, bytes_max: usize) -> Since {
        let ring = lock(&self.ring);
        let (Some(first), Some(last)) = (ring.runs.front(), ring.runs.back()) else {
            return Since::Gone;
        };
        if last.last_seq <= after_seq {
            return Since::UpToDate;
        }
        if first.first_seq > after_seq + 1 {
            return Since::Gone;
        }
        let start = ring.runs.partition_point(|run| run.last_seq <= after_seq);
        let mut runs = Vec::new();
        let mut bytes = 0;
        for run in ring.runs.range(start..) {
            if bytes > 0 && bytes + run.frames.len() > bytes_max {
                break;
            }
            bytes += run.frames.len();
            runs.push(Arc::clone(run));
        }
        let skip = runs.first().map_or(0, |run| (after_seq + 1).saturating_sub(run.first_seq));
        Since::Runs { runs, skip }
    }

    /// Empties the buffer for good.
    fn retire(&self) {
        *lock(&self.ring) = Ring { runs: VecDeque::new(), bytes: 0, frames: 0, retired: true };
    }
}

/// All rings: by session, in order of use, under one bound of bytes and one of number. Every operation is O(1) but
/// [`ReplayStore::cleanup`].
pub struct ReplayStore {
    /// Guarded by the mutex; a ring's own mutex may be taken under it, nothing else.
    inner: Mutex<Inner>,
    buffer_bytes_max: usize,
    bytes_max: usize,
    buffers_max: usize,
    ttl: Duration,
}

/// A least-recently-used list threaded through a slab by index.
struct Inner {
    index: HashMap<Arc<str>, usize>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    newest: usize,
    oldest: usize,
    bytes: usize,
}

struct Slot {
    session_id: Arc<str>,
    buffer: Arc<ReplayBuffer>,
    bytes: usize,
    newer: usize,
    older: usize,
    used: Instant,
}

const NONE: usize = usize::MAX;

impl ReplayStore {
    /// A store with the bounds of `limits`; rings idle for `ttl` are given up by [`ReplayStore::cleanup`].
    pub fn new(ttl: Duration) -> Self {
        Self::with_bounds(limits::RING_BYTES_MAX, limits::RINGS_BYTES_MAX, limits::RINGS_MAX, ttl)
    }

    /// A store with bounds of its own: bytes per ring, bytes of all, number of rings.
    pub fn with_bounds(buffer_bytes_max: usize, bytes_max: usize, buffers_max: usize, ttl: Duration) -> Self {
        let inner =
            Inner { index: HashMap::new(), slots: Vec::new(), free: Vec::new(), newest: NONE, oldest: NONE, bytes: 0 };
        Self { inner: Mutex::new(inner), buffer_bytes_max, bytes_max, buffers_max, ttl }
    }

    /// The buffer of a session, made if needed; the least recently used one makes room.
    pub fn buffer(&self, session_id: &str) -> Arc<ReplayBuffer> {
        let mut inner = lock(&self.inner);
        if let Some(&slot) = inner.index.get(session_id) {
            inner.touch(slot);
            return Arc::clone(&inner.slots[slot].buffer);
        }
        while inner.index.len() >= self.buffers_max && inner.oldest != NONE {
            let oldest = inner.oldest;
            inner.remove(oldest);
        }
        let buffer = Arc::new(ReplayBuffer::new(self.buffer_bytes_max));
        inner.insert(session_id.into(), Arc::clone(&buffer));
        buffer
    }

    /// Appends a run to the buffer of its session and lets go of the least recently used ones while all together are
    /// over their bound.
    pub fn append(&self, session_id: &str, run: &Arc<Run>) {
        let buffer = self.buffer(session_id);
        let Some(grown) = buffer.append(Arc::clone(run)) else {
            return; // let go between the two lines: the log has the run
        };
        let mut inner = lock(&self.inner);
        let Some(&slot) = inner.index.get(session_id) else {
            return;
        };
        inner.slots[slot].bytes = inner.slots[slot].bytes.saturating_add_signed(grown);
        inner.bytes = inner.bytes.saturating_add_signed(grown);
        while inner.bytes > self.bytes_max && inner.oldest != slot {
            let oldest = inner.oldest;
            inner.remove(oldest);
        }
    }

    /// The frames of a session after a number; [`Since::Gone`] when it has no ring.
    pub fn since(&self, session_id: &str, after_seq: u64, bytes_max: usize) -> Since {
        let buffer = {
            let inner = lock(&self.inner);
            inner.index.get(session_id).map(|&slot| Arc::clone(&inner.slots[slot].buffer))
        };
        buffer.map_or(Since::Gone, |buffer| buffer.replay_since(after_seq, bytes_max))
    }

    /// Lets go of rings that were not used for the lifetime of a ring.
    pub fn cleanup(&self) {
        let mut inner = lock(&self.inner);
        while inner.oldest != NONE && inner.slots[inner.oldest].used.elapsed() > self.ttl {
            let oldest = inner.oldest;
            inner.remove(oldest);
        }
    }

    /// How many sessions have a ring.
    pub fn len(&self) -> usize {
        lock(&self.inner).index.len()
    }

    /// Whether no session has a ring.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets go of the ring of one session.
    pub fn remove(&self, session_id: &str) {
        let mut inner = lock(&self.inner);
        if let Some(&slot) = inner.index.get(session_id) {
            inner.remove(slot);
        }
    }
}

impl Inner {
    fn insert(&mut self, session_id: Arc<str>, buffer: Arc<ReplayBuffer>) {
        let slot = Slot {
            session_id: Arc::clone(&session_id),
            buffer,
            bytes: 0,
            newer: NONE,
            older: NONE,
            used: Instant::now(),
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.index.insert(session_id, at);
        self.push_newest(at);
    }

    fn remove(&mut self, at: usize) {
        self.unlink(at);
        let slot = &mut self.slots[at];
        let session_id = std::mem::replace(&mut slot.session_id, Arc::from(""));
        slot.buffer.retire();
        self.bytes = self.bytes.saturating_sub(slot.bytes);
        slot.bytes = 0;
        self.index.remove(&session_id);
        self.free.push(at);
    }

    fn touch(&mut self, at: usize) {
        self.slots[at].used = Instant::now();
        if self.newest != at {
            self.unlink(at);
            self.push_newest(at);
        }
    }

    fn unlink(&mut self, at: usize) {
        let (newer, older) = (self.slots[at].newer, self.slots[at].older);
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older].newer = newer,
        }
    }

    fn push_newest(&mut self, at: usize) {
        self.slots[at].newer = NONE;
        self.slots[at].older = self.newest;
        match self.newest {
            NONE => self.oldest = at,
            newest => self.slots[newest].newer = at,
        }
        self.newest = at;
    }
}

/// The bytes of a batch of runs after `skip` frames of the first.
pub fn slices(runs: &[Arc<Run>], skip: u64) -> impl Iterator<Item = &[u8]> {
    runs.iter()
        .enumerate()
        .map(move |(index, run)| if index == 0 { frame::skip_frames(&run.frames, skip) } else { &run.frames[..] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, last: u64) -> Arc<Run> {
        let mut frames = Vec::new();
        for seq in first..=last {
            frame::push_text(&mut frames, format!("frame {seq:>4}").as_bytes()); // 12 bytes each
        }
        Arc::new(Run { first_seq: first, last_seq: last, frames: frames.into() })
    }

    fn payloads(since: Since) -> Vec<String> {
        let Since::Runs { runs, skip } = since else { panic!("{since:?}") };
        slices(&runs, skip)
            .flat_map(frame::frames)
            .map(|(_, payload)| String::from_utf8(payload.to_vec()).unwrap().replace("frame", "").trim().to_owned())
            .collect()
    }

    #[test]
    fn a_buffer_answers_from_any_number() {
        let buffer = ReplayBuffer::new(1000);
        assert!(matches!(buffer.replay_since(0, 100), Since::Gone));
        buffer.append(run(1, 3));
        buffer.append(run(4, 4));
        buffer.append(run(5, 9));
        assert_eq!(buffer.len(), 9);
        for after in 0..9 {
            let expected: Vec<String> = (after + 1..=9).map(|seq| seq.to_string()).collect();
            assert_eq!(payloads(buffer.replay_since(after, 1000)), expected);
        }
        assert!(matches!(buffer.replay_since(9, 100), Since::UpToDate));
        assert!(matches!(buffer.replay_since(99, 100), Since::UpToDate));
        assert_eq!(payloads(buffer.replay_since(1, 1)), ["2", "3"]);
    }

    #[test]
    fn the_oldest_runs_fall_out_and_are_said_to_be_gone() {
        let buffer = ReplayBuffer::new(60);
        buffer.append(run(1, 3));
        assert_eq!(buffer.append(run(4, 6)), Some(0));
        assert!(matches!(buffer.replay_since(2, 100), Since::Gone));
        assert_eq!(payloads(buffer.replay_since(3, 100)), ["4", "5", "6"]);
        // A single run over the bound is kept: it is the newest.
        buffer.append(run(7, 20));
        assert_eq!(buffer.len(), 14);
    }

    #[test]
    fn the_store_lets_go_of_the_least_recently_used() {
        let store = ReplayStore::with_bounds(1000, 100, 3, Duration::from_secs(60));
        for name in ["a", "b", "c"] {
            store.append(name, &run(1, 2));
        }
        store.buffer("a");
        store.append("d", &run(1, 2));
        assert_eq!(store.len(), 3);
        assert!(matches!(store.since("b", 0, 100), Since::Gone));
        assert_eq!(payloads(store.since("a", 1, 100)), ["2"]);
        // 3 x 24 bytes are held; 5 frames more push out c, then d keeps its place as the newest.
        store.append("d", &run(3, 7));
        assert!(matches!(store.since("c", 0, 100), Since::Gone));
        assert_eq!(payloads(store.since("d", 5, 100)), ["6", "7"]);
        store.remove("a");
        store.remove("a");
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn idle_rings_are_cleaned_up() {
        let store = ReplayStore::with_bounds(1000, 1000, 10, Duration::ZERO);
        store.append("a", &run(1, 2));
        store.append("b", &run(1, 2));
        store.cleanup();
        assert!(store.is_empty());
        store.append("a", &run(3, 4));
        assert!(matches!(store.since("a", 0, 100), Since::Gone));
        assert_eq!(payloads(store.since("a", 2, 100)), ["3", "4"]);
    }
}
