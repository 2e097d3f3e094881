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
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::spool_file::{Batch, EVENT_BYTES_MAX, State, batch_line};
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
const DESCRIPTION_BYTES_MAX: usize = 8 * 1024;
/// An empty file larger than this is cut to nothing.
const IDLE_BYTES_MAX: u64 = 64 * 1024;

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
                memory = Some(self.ring_message(&id)?);
            } else if let Err(error) = state.append(batch_line(&id, n_events).as_bytes()) {
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

    fn ring_message(&self, id: &str) -> Option<Vec<u8>> {
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
