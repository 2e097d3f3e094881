//! The file of the spool and what is in it: records are appended, replayed and rewritten. See `spool` for the records.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::alert::Event;

/// One event; a longer one loses its attributes and the end of its description.
pub(super) const EVENT_BYTES_MAX: usize = 64 * 1024;
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The spool's file as it is now.
pub(super) struct State {
    pub(super) file: Arc<File>,
    pub(super) file_bytes: u64,
    pub(super) entries: VecDeque<Entry>,
    pub(super) live_bytes: u64,
    /// Batches that were sent, or are about to be; they hold the first entries.
    pub(super) batches: VecDeque<Batch>,
    pub(super) dropped: u64,
    pub(super) synced: Option<Instant>,
}

/// Where the JSON of an event stands in the file.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) len: u32,
}

/// Events under one message id.
pub(super) struct Batch {
    pub(super) id: String,
    /// How many entries it holds.
    pub(super) n_events: usize,
    pub(super) is_done: bool,
    /// The message itself, when its events could not be put into the file.
    pub(super) memory: Option<Vec<u8>>,
}

impl State {
    /// One write at the end of the file. What was written of a failed one is taken back.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
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

    pub(super) fn add(&mut self, offset: u64, n_bytes: usize) {
        let len = u32::try_from(n_bytes).unwrap_or(0); // events are far smaller
        self.entries.push_back(Entry { offset, len });
        self.live_bytes += u64::from(len) + 2;
    }

    /// Entries in batches.
    pub(super) fn held(&self) -> usize {
        self.batches.iter().map(|batch| batch.n_events).sum()
    }

    fn remove(&mut self, index: usize) {
        if let Some(entry) = self.entries.remove(index) {
            self.live_bytes = self.live_bytes.saturating_sub(u64::from(entry.len) + 2);
        }
    }

    /// Drops the oldest event that is in no batch, else the oldest batch: it was sent at least once. How many events
    /// that were.
    pub(super) fn drop_oldest(&mut self) -> usize {
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

    pub(super) fn done(&mut self, id: &str) -> bool {
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

    pub(super) fn sync_due(&mut self) -> Option<Arc<File>> {
        if self.synced.is_some_and(|at| at.elapsed() < SYNC_INTERVAL) {
            return None;
        }
        self.synced = Some(Instant::now());
        Some(Arc::clone(&self.file))
    }

    pub(super) fn empty(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file_bytes = 0;
        self.entries = VecDeque::new();
        Ok(())
    }

    /// Writes what still counts into a new file, and puts it in the place of the old one.
    pub(super) fn rewrite(&mut self, path: &Path) -> io::Result<()> {
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
            rest.push_str(&batch_line(&batch.id, batch.n_events));
            if batch.is_done {
                rest.extend(["A ", &batch.id, "\n"]);
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

    pub(super) fn replay(&mut self) -> io::Result<()> {
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

/// The record that makes a batch of the first events that are in none.
pub(super) fn batch_line(id: &str, n_events: usize) -> String {
    format!("B {id} {n_events}\n")
}
