//! The thread `store-log`: the only writer of `events.db`. What piled up during one commit is the next batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, TrySendError};

use crate::chat::stream::{SessionStream, StreamError, Streams};
use crate::limits;
use crate::store::log::Run;
use crate::store::{EventLog, StoreError};

/// What the recorder is asked to do.
pub enum Command {
    /// Frames of this stream are pending.
    Flush(Arc<SessionStream>),
    /// Forget the frames of a session up to a number.
    Delete { session_id: String, up_to: u64 },
    /// Delete what is over age or over size.
    Purge,
    /// Empty the write-ahead log.
    Truncate,
    /// End, after everything before.
    Stop,
}

/// What the log may keep.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub age_max_ms: i64,
    pub bytes_max: u64,
}

/// Body of the thread. Returns at [`Command::Stop`], after the last commit.
pub fn run(mut log: EventLog, rx: &Receiver<Command>, retention: Retention, commits: &AtomicU64) {
    let mut purging = false;
    let mut failing = false;
    loop {
        let first = if purging {
            rx.try_recv().ok()
        } else {
            match rx.recv() {
                Ok(command) => Some(command),
                Err(_) => return,
            }
        };
        let mut batch = Vec::new();
        let mut deletions = Vec::new();
        let mut stop = false;
        let mut truncate = false;
        let mut next = first;
        while let Some(command) = next {
            match command {
                Command::Flush(stream) => batch.push(stream),
                Command::Delete { session_id, up_to } => deletions.push((session_id, up_to)),
                Command::Purge => purging = true,
                Command::Truncate => truncate = true,
                Command::Stop => stop = true,
            }
            next = if batch.len() < limits::LOG_BATCH && !stop { rx.try_recv().ok() } else { None };
        }
        if commit(&mut log, &batch, &mut failing) {
            commits.fetch_add(1, Ordering::Release);
            purging |= log.is_over(retention.bytes_max);
        }
        for (session_id, up_to) in deletions {
            if let Err(error) = log.delete_session(&session_id, up_to) {
                log::error!("delete the events of session {session_id}: {error}");
            }
        }
        if stop {
            return;
        }
        if truncate && let Err(error) = log.truncate_wal() {
            log::debug!("empty the write-ahead log: {error}"); // readers are in the way: the next time
        }
        if purging {
            purging = log.purge(retention.age_max_ms, retention.bytes_max).unwrap_or_else(|error| {
                log::error!("purge the event log: {error}");
                false
            });
        }
    }
}

/// Commits what the streams have pending, all or none, and publishes or fails it; whether anything was committed.
fn commit(log: &mut EventLog, batch: &[Arc<SessionStream>], failing: &mut bool) -> bool {
    let taken: Vec<(&Arc<SessionStream>, Vec<Arc<Run>>)> =
        batch.iter().map(|stream| (stream, stream.take_pending())).filter(|(_, runs)| !runs.is_empty()).collect();
    if taken.is_empty() {
        return false;
    }
    let rows = taken.iter().flat_map(|(stream, runs)| runs.iter().map(move |run| (stream.id(), &**run)));
    match log.append(rows) {
        Ok(()) => {
            *failing = false;
            for (stream, runs) in &taken {
                stream.publish(runs);
            }
            true
        }
        Err(error) => {
            if !*failing {
                log::error!("write the event log: {error}; turns fail until it can be written again");
            }
            *failing = true;
            let kind = if matches!(error, StoreError::Full) { StreamError::Full } else { StreamError::Failed };
            for (stream, runs) in &taken {
                stream.fail(runs[0].first_seq, kind);
            }
            false
        }
    }
}

impl Streams {
    /// Asks the writer to empty the write-ahead log; a full queue means that it can wait.
    pub fn request_truncate(&self) {
        let _ = self.recorder_tx.try_send(Command::Truncate);
    }

    /// Asks for a purge; a full queue means that one can wait for the next time.
    pub fn request_purge(&self) {
        if let Err(TrySendError::Disconnected(_)) = self.recorder_tx.try_send(Command::Purge) {
            log::debug!("the event log is closed");
        }
    }

    /// Forgets the frames of a session up to a number, in memory and in the log. Blocks when the recorder's queue is full.
    pub fn forget(&self, session_id: &str, up_to: u64) {
        self.replay.remove(session_id);
        // Closed means stopping: the rows are deleted at the next start, when no conversation owns them.
        let _ = self.recorder_tx.send(Command::Delete { session_id: session_id.to_owned(), up_to });
    }

    /// Ends the recorder after everything that was announced.
    pub fn stop(&self) {
        // Closed already: nothing to end.
        let _ = self.recorder_tx.send(Command::Stop);
    }
}
