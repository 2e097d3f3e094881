//! Events that wait for the hub (contract agent-link 3.6): a bounded append-only file, and a ring in memory for when
//! the disk takes nothing.
//!
//! The file holds one record a line and is replayed at the start:
//!
//! ```text
//! E{...}     an event, as it travels
//! B id n     the first n events that are in no batch yet are one, under that message id
//! A id       that batch was delivered
//! D n        n events had to be dropped
//! T n        the hub was told of n dropped events
//! ```
//!
//! A record is one `write`, so a killed process loses nothing that [`Spool::push`] has taken. Against power cuts an event
//! is synced to the disk, unless another was within the last second: a storm costs one sync a second, and its tail rides
//! on the kernel's own write-back. Nothing else is synced but a rewritten file before it replaces the old one: a lost
//! `A` only sends a batch again, and the hub stores events once. A torn end is cut off, a damaged line is skipped.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::alert::Event;
use crate::fleet::ring::RingBuffer;
use crate::fleet::wire::EVENTS_MAX;
use crate::rt::{json, lock, text};

/// Events that wait at most, and the bytes of their file; the oldest is dropped beyond it.
pub(super) const EVENTS_KEPT: usize = 10_000;
pub(super) const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Events in memory while the disk takes none.
const RING_EVENTS: usize = 1000;
/// Events of one batch together: far below the wire's limit of 1 MiB, so that buffers stay small.
const BATCH_BYTES_MAX: usize = 192 * 1024;
/// One event; a longer one loses its attributes and the end of its description.
const EVENT_BYTES_MAX: usize = 64 * 1024;
const DESCRIPTION_BYTES_MAX: usize = 8 * 1024;
/// An empty file larger than this is cut to nothing.
const IDLE_BYTES_MAX: u64 = 64 * 1024;
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Spool {
    path: PathBuf,
    events_max: usize,
    bytes_max: u64,
    /// Events that the disk did not take.
    ring: RingBuffer,
    /// A failing disk is logged once, until it works again.
    is_failing: AtomicBool,
    /// Guarded by the mutex: the file and what is in it. Its job is to queue writes to the file; nothing is taken
    /// under it.
    state: Mutex<State>,
}

struct State {
    file: Arc<File>,
    file_bytes: u64,
    entries: VecDeque<Entry>,
    live_bytes: u64,
    /// Batches that were sent, or are about to be; they hold the first entries.
    batches: VecDeque<Batch>,
    dropped: u64,
    synced: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Entry {
    offset: u64,
    len: u32,
}

struct Batch {
    id: String,
    /// How many entries it holds.
    n_events: usize,
    is_done: bool,
    /// The message itself, when its events could not be put into the file.
    memory: Option<Vec<u8>>,
}

/// A message to send.
pub(super) struct Sendable {
    pub(super) id: String,
    pub(super) message: Vec<u8>,
}

impl Spool {
    /// Opens the file, or makes it (0600), and replays it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::open_with(path, EVENTS_KEPT, FILE_BYTES_MAX)
    }

    fn open_with(path: &Path, events_max: usize, bytes_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let mut state = State {
            file: Arc::new(file),
            file_bytes: 0,
            entries: VecDeque::new(),
            live_bytes: 0,
            batches: VecDeque::new(),
            dropped: 0,
            synced: None,
        };
        state.replay()?;
        let spool = Self {
            path: path.to_owned(),
            events_max,
            bytes_max,
            ring: RingBuffer::new(RING_EVENTS),
            is_failing: AtomicBool::new(false),
            state: Mutex::new(state),
        };
        let waiting = spool.waiting();
        if waiting > 0 {
            log::info!("{waiting} alert events of an earlier run wait for the hub");
        }
        Ok(spool)
    }

    /// Takes an event. False when it is too large to be sent at all.
    pub(super) fn push(&self, event: &Event) -> bool {
        let Some(bytes) = encode(event) else {
            log::error!("an event of {} is too large and was not taken", event.check());
            return false;
        };
        let to_sync = {
            let mut state = lock(&self.state);
            match self.spill(&mut state).and_then(|()| self.append_event(&mut state, &bytes)) {
                Ok(()) => state.sync_due(),
                Err(error) => {
                    self.failed(&error);
                    if self.ring.push(event.clone()).is_some() {
                        state.dropped += 1;
                    }
                    None
                }
            }
        };
        if let Some(file) = to_sync
            && let Err(error) = file.sync_data()
        {
            self.failed(&error);
        }
        true
    }

    /// Events that are not delivered yet.
    pub(super) fn waiting(&self) -> usize {
        let state = lock(&self.state);
        let in_memory: usize = state.batches.iter().filter(|batch| batch.memory.is_some()).count();
        state.entries.len() + self.ring.len() + in_memory
    }

    /// Whether there are events that are in no batch yet.
    pub(super) fn has_new(&self) -> bool {
        let state = lock(&self.state);
        state.entries.len() > state.held() || !self.ring.is_empty()
    }

    /// Batches that were not delivered yet.
    pub(super) fn batches(&self) -> usize {
        lock(&self.state).batches.len()
    }

    /// Events dropped that the hub was not told of.
    pub(super) fn dropped(&self) -> u64 {
        lock(&self.state).dropped
    }

    /// The hub was told of that many.
    pub(super) fn told(&self, n_dropped: u64) {
        let mut state = lock(&self.state);
        state.dropped = state.dropped.saturating_sub(n_dropped);
        // When this is lost, the hub is told once more.
        let _ = state.append(format!("T {n_dropped}\n").as_bytes());
    }

    /// The undelivered batch of that place, the oldest first.
    pub(super) fn batch(&self, index: usize) -> Option<Sendable> {
        let state = lock(&self.state);
        let batch = state.batches.get(index)?;
        let id = batch.id.clone();
        if let Some(message) = &batch.memory {
            return Some(Sendable { id, message: message.clone() });
        }
        let skip: usize = state.batches.iter().take(index).map(|batch| batch.n_events).sum();
        let mut message = start(&id);
        for (number, entry) in state.entries.iter().skip(skip).take(batch.n_events).enumerate() {
            if number > 0 {
                message.push(b',');
            }
            let from = message.len();
            message.resize(from + entry.len as usize, 0);
            if let Err(error) = state.file.read_exact_at(&mut message[from..], entry.offset) {
                self.failed(&error);
                return None;
            }
        }
        message.extend_from_slice(b"]}}");
        Some(Sendable { id, message })
    }

    /// Makes a batch of the oldest events that are in none, under a new message id; None when there are none.
    pub(super) fn next_batch(&self, id: String) -> Option<Sendable> {
        let index = {
            let mut state = lock(&self.state);
            if let Err(error) = self.spill(&mut state) {
                self.failed(&error);
            }
            let (mut n_events, mut n_bytes) = (0, 0);
            for entry in state.entries.iter().skip(state.held()).take(EVENTS_MAX) {
                n_bytes += entry.len as usize;
                if n_events > 0 && n_bytes > BATCH_BYTES_MAX {
                    break;
                }
                n_events += 1;
            }
            let mut memory = None;
            if n_events == 0 {
                // Only what the disk does not take.
                memory = Some(self.from_ring(&id)?);
            } else if let Err(error) = state.append(format!("B {id} {n_events}\n").as_bytes()) {
                // After a restart these events get another id; the hub stores events once all the same.
                self.failed(&error);
            }
            state.batches.push_back(Batch { id, n_events, is_done: false, memory });
            state.batches.len() - 1
        };
        self.batch(index)
    }

    /// The hub has that batch. Its events go once all earlier batches are gone too.
    pub(super) fn delivered(&self, id: &str) -> bool {
        let mut state = lock(&self.state);
        if !state.done(id) {
            return false;
        }
        let written = state.append(format!("A {id}\n").as_bytes());
        let emptied = state.entries.is_empty() && state.batches.is_empty() && state.file_bytes > IDLE_BYTES_MAX;
        let result = if emptied && state.dropped == 0 { state.empty() } else { written };
        if let Err(error) = result {
            self.failed(&error);
        }
        true
    }

    /// Puts events of the ring into the file, as far as the disk takes them.
    fn spill(&self, state: &mut State) -> io::Result<()> {
        while let Some(event) = self.ring.drain(1).pop() {
            let Some(bytes) = encode(&event) else { continue };
            if let Err(error) = self.append_event(state, &bytes) {
                self.ring.push(event);
                return Err(error);
            }
        }
        Ok(())
    }

    fn from_ring(&self, id: &str) -> Option<Vec<u8>> {
        let mut message = start(id);
        let events = self.ring.drain(EVENTS_MAX);
        for (number, bytes) in events.iter().filter_map(encode).enumerate() {
            if number > 0 {
                message.push(b',');
            }
            message.extend_from_slice(&bytes);
        }
        message.extend_from_slice(b"]}}");
        (!events.is_empty()).then_some(message)
    }

    fn append_event(&self, state: &mut State, bytes: &[u8]) -> io::Result<()> {
        let line_bytes = bytes.len() as u64 + 2;
        let mut n_dropped = 0;
        // A quarter stays free for the other records, so that rewriting the file is rare.
        while state.entries.len() >= self.events_max
            || (state.live_bytes + line_bytes > self.bytes_max / 4 * 3 && !state.entries.is_empty())
        {
            n_dropped += state.drop_oldest();
        }
        if n_dropped > 0 {
            log::warn!("the spool is full: {n_dropped} old alert events were dropped");
            state.append(format!("D {n_dropped}\n").as_bytes())?;
        }
        if state.file_bytes + line_bytes > self.bytes_max {
            state.rewrite(&self.path)?;
        }
        let mut line = Vec::with_capacity(bytes.len() + 2);
        line.push(b'E');
        line.extend_from_slice(bytes);
        line.push(b'\n');
        let offset = state.file_bytes + 1;
        state.append(&line)?;
        state.add(offset, bytes.len());
        if self.is_failing.swap(false, Ordering::Relaxed) {
            log::info!("the spool of alert events can be written again");
        }
        Ok(())
    }

    fn failed(&self, error: &io::Error) {
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            log::error!("spool {}: {error}; alert events are kept in memory until it works", self.path.display());
        }
    }
}

impl State {
    /// One write at the end of the file. What was written of a failed one is taken back.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        match (&*self.file).write(line) {
            Ok(n) if n == line.len() => {
                self.file_bytes += n as u64;
                Ok(())
            }
            result => {
                // Fails only when the disk is beyond help; the replay skips half a line.
                let _ = self.file.set_len(self.file_bytes);
                Err(result.err().unwrap_or_else(|| io::Error::other("the disk is full")))
            }
        }
    }

    fn add(&mut self, offset: u64, n_bytes: usize) {
        let len = u32::try_from(n_bytes).unwrap_or(0); // events are far smaller
        self.entries.push_back(Entry { offset, len });
        self.live_bytes += u64::from(len) + 2;
    }

    /// Entries in batches.
    fn held(&self) -> usize {
        self.batches.iter().map(|batch| batch.n_events).sum()
    }

    fn remove(&mut self, index: usize) {
        if let Some(entry) = self.entries.remove(index) {
            self.live_bytes = self.live_bytes.saturating_sub(u64::from(entry.len) + 2);
        }
    }

    /// Drops the oldest event that is in no batch, else the oldest batch: it was sent at least once. How many events
    /// that were.
    fn drop_oldest(&mut self) -> usize {
        let held = self.held();
        let n_events = if self.entries.len() > held {
            self.remove(held);
            1
        } else {
            let n_events = self.batches.pop_front().map_or(0, |batch| batch.n_events).max(1);
            (0..n_events).for_each(|_| self.remove(0));
            self.remove_done();
            n_events
        };
        self.dropped += n_events as u64;
        n_events
    }

    fn done(&mut self, id: &str) -> bool {
        let Some(batch) = self.batches.iter_mut().find(|batch| batch.id == id && !batch.is_done) else { return false };
        batch.is_done = true;
        self.remove_done();
        true
    }

    /// Removes delivered batches that nothing is in front of any more.
    fn remove_done(&mut self) {
        while self.batches.front().is_some_and(|batch| batch.is_done) {
            let n_events = self.batches.pop_front().map_or(0, |batch| batch.n_events);
            (0..n_events).for_each(|_| self.remove(0));
        }
    }

    fn sync_due(&mut self) -> Option<Arc<File>> {
        if self.synced.is_some_and(|at| at.elapsed() < SYNC_INTERVAL) {
            return None;
        }
        self.synced = Some(Instant::now());
        Some(Arc::clone(&self.file))
    }

    fn empty(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file_bytes = 0;
        self.entries = VecDeque::new();
        Ok(())
    }

    /// Writes what still counts into a new file, and puts it in the place of the old one.
    fn rewrite(&mut self, path: &Path) -> io::Result<()> {
        let aside = path.with_extension("new");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        let mut out = io::BufWriter::new(file);
        // First of all: what was dropped is in front of nothing that could be dropped again.
        let dropped = if self.dropped > 0 { format!("D {}\n", self.dropped) } else { String::new() };
        out.write_all(dropped.as_bytes())?;
        let (mut entries, mut offset) = (VecDeque::with_capacity(self.entries.len()), dropped.len() as u64);
        let mut line = Vec::new();
        for entry in &self.entries {
            line.resize(entry.len as usize, 0);
            self.file.read_exact_at(&mut line, entry.offset)?;
            out.write_all(b"E")?;
            out.write_all(&line)?;
            out.write_all(b"\n")?;
            entries.push_back(Entry { offset: offset + 1, len: entry.len });
            offset += u64::from(entry.len) + 2;
        }
        let mut rest = String::new();
        for batch in self.batches.iter().filter(|batch| batch.memory.is_none()) {
            rest.push_str(&format!("B {} {}\n", batch.id, batch.n_events));
            if batch.is_done {
                rest.push_str(&format!("A {}\n", batch.id));
            }
        }
        out.write_all(rest.as_bytes())?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        let file = OpenOptions::new().read(true).append(true).open(&aside)?;
        std::fs::rename(&aside, path)?;
        self.file = Arc::new(file);
        self.file_bytes = offset + rest.len() as u64;
        self.entries = entries;
        Ok(())
    }

    fn replay(&mut self) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        let mut reader = BufReader::with_capacity(16 * 1024, &*file);
        let mut line = Vec::new();
        let mut damaged = 0_u64;
        loop {
            line.clear();
            let n_bytes = reader.read_until(b'\n', &mut line)? as u64;
            if n_bytes == 0 {
                break;
            }
            if line.last() != Some(&b'\n') {
                log::warn!("the spool ends in the middle of a record: {n_bytes} bytes cut off");
                file.set_len(self.file_bytes)?;
                break;
            }
            line.pop();
            if !self.replay_line(&line) {
                damaged += 1;
            }
            self.file_bytes += n_bytes;
        }
        if damaged > 0 {
            log::warn!("the spool holds {damaged} damaged records; they are skipped");
            self.dropped += damaged;
        }
        Ok(())
    }

    fn replay_line(&mut self, line: &[u8]) -> bool {
        if let Some(event) = line.strip_prefix(b"E") {
            let good = event.len() <= EVENT_BYTES_MAX && serde_json::from_slice::<Event>(event).is_ok();
            if good {
                self.add(self.file_bytes + 1, event.len());
            }
            return good;
        }
        let mut words = std::str::from_utf8(line).unwrap_or("").split(' ');
        let kind = words.next();
        match (kind, words.next(), words.next()) {
            (Some("B"), Some(id), Some(n)) if !id.is_empty() => {
                let room = self.entries.len() - self.held();
                let Ok(n_events) = n.parse::<usize>() else { return false };
                self.batches.push_back(Batch {
                    id: id.to_owned(),
                    n_events: n_events.min(room),
                    is_done: false,
                    memory: None,
                });
                true
            }
            (Some("A"), Some(id), None) => {
                // Unknown ids are those of batches that were dropped, or never got into the file.
                self.done(id);
                true
            }
            (Some("D"), Some(n), None) => {
                let Ok(n) = n.parse::<u64>() else { return false };
                let before = self.dropped;
                while self.dropped < before + n && !self.entries.is_empty() {
                    self.drop_oldest();
                }
                self.dropped = before + n;
                true
            }
            (Some("T"), Some(n), None) => {
                let Ok(n) = n.parse::<u64>() else { return false };
                self.dropped = self.dropped.saturating_sub(n);
                true
            }
            _ => false,
        }
    }
}

/// The beginning of an `alert_events`. Ids are ours: nothing in them needs escaping.
fn start(id: &str) -> Vec<u8> {
    format!("{{\"type\":\"alert_events\",\"id\":\"{id}\",\"payload\":{{\"events\":[").into_bytes()
}

/// An event as it travels, on one line; shortened when it is too long. None when that does not help.
fn encode(event: &Event) -> Option<Vec<u8>> {
    let bytes = json::to_vec(event);
    if bytes.len() <= EVENT_BYTES_MAX {
        return Some(bytes);
    }
    let mut shorter = event.clone();
    shorter.attrs.clear();
    shorter.description = format!("{} [cut]", text::cut(&event.description, DESCRIPTION_BYTES_MAX));
    let bytes = json::to_vec(&shorter);
    (bytes.len() <= EVENT_BYTES_MAX).then_some(bytes)
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
