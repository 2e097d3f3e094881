//! Where notices wait: rows of the hub's database, or the memory of an agent.

use std::sync::Mutex;

use crate::limits;
use crate::rt::lock;
use crate::store::notices::{NewNotice, NoticeRow};
use crate::store::{NoticeStore, StoreError};

/// Notices on their way. See [`NoticeStore`] for what each does; never waits for a network.
pub trait Queue: Send + Sync {
    fn add(&self, new: &[NewNotice]) -> Result<(), StoreError>;
    fn due(&self, channel: &str, now: i64, rows_max: usize) -> Result<Vec<NoticeRow>, StoreError>;
    fn next_at(&self, channel: &str) -> Result<Option<i64>, StoreError>;
    fn delete(&self, ids: &[i64]) -> Result<usize, StoreError>;
    fn mark(&self, ids: &[i64], state: &str, next_at: i64, error: &str) -> Result<(), StoreError>;
    fn told(&self, ids: &[i64]) -> Result<(), StoreError>;
    fn of_keys(&self, channel: &str, keys: &[String]) -> Result<Vec<NoticeRow>, StoreError>;
    fn list(&self, rows_max: usize) -> Result<Vec<NoticeRow>, StoreError>;
    fn keep_channels(&self, running: &[&str], known: &[&str]) -> Result<(), StoreError>;
}

impl Queue for NoticeStore {
    fn add(&self, new: &[NewNotice]) -> Result<(), StoreError> {
        self.add(new)
    }

    fn due(&self, channel: &str, now: i64, rows_max: usize) -> Result<Vec<NoticeRow>, StoreError> {
        self.due(channel, now, rows_max)
    }

    fn next_at(&self, channel: &str) -> Result<Option<i64>, StoreError> {
        self.next_at(channel)
    }

    fn delete(&self, ids: &[i64]) -> Result<usize, StoreError> {
        self.delete(ids)
    }

    fn mark(&self, ids: &[i64], state: &str, next_at: i64, error: &str) -> Result<(), StoreError> {
        self.mark(ids, state, next_at, error)
    }

    fn told(&self, ids: &[i64]) -> Result<(), StoreError> {
        self.told(ids)
    }

    fn of_keys(&self, channel: &str, keys: &[String]) -> Result<Vec<NoticeRow>, StoreError> {
        self.of_keys(channel, keys)
    }

    fn list(&self, rows_max: usize) -> Result<Vec<NoticeRow>, StoreError> {
        self.list(rows_max)
    }

    fn keep_channels(&self, running: &[&str], known: &[&str]) -> Result<(), StoreError> {
        self.keep_channels(running, known)
    }
}

/// A queue that ends with its process: an agent's. At most [`limits::NOTICES_IN_MEMORY_MAX`] rows of a channel and
/// state; beyond it the oldest is lost.
#[derive(Default)]
pub struct MemoryQueue {
    // Guarded by the mutex: the last id, and the rows by id. Nothing is taken under it.
    rows: Mutex<(i64, Vec<NoticeRow>)>,
}

impl MemoryQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    fn found(&self, wanted: impl Fn(&NoticeRow) -> bool) -> Vec<NoticeRow> {
        lock(&self.rows).1.iter().filter(|row| wanted(row)).cloned().collect()
    }
}

fn waits(row: &NoticeRow) -> bool {
    row.state == "waiting" || row.state == "held"
}

/// Makes room for one more row like this one.
fn shed(rows: &mut Vec<NoticeRow>, channel: &str, alike: impl Fn(&NoticeRow) -> bool) {
    let alike = |row: &NoticeRow| row.channel == channel && alike(row);
    if rows.iter().filter(|row| alike(row)).count() >= limits::NOTICES_IN_MEMORY_MAX
        && let Some(oldest) = rows.iter().position(alike)
    {
        let row = rows.remove(oldest);
        if waits(&row) {
            log::warn!("notify {channel}: too many notices wait; the oldest is dropped: {}", row.dedup);
        }
    }
}

impl Queue for MemoryQueue {
    fn add(&self, new: &[NewNotice]) -> Result<(), StoreError> {
        let mut guard = lock(&self.rows);
        let (last_id, rows) = &mut *guard;
        for notice in new {
            let same = |row: &NoticeRow| row.channel == notice.channel && row.dedup == notice.dedup && waits(row);
            if rows.iter().any(same) {
                continue;
            }
            shed(rows, &notice.channel, waits);
            *last_id += 1;
            rows.push(NoticeRow {
                id: *last_id,
                channel: notice.channel.clone(),
                dedup: notice.dedup.clone(),
                body: notice.body.clone(),
                state: "waiting".to_owned(),
                attempts: 0,
                next_at: notice.next_at,
                created_at: notice.created_at,
                error: String::new(),
            });
        }
        Ok(())
    }

    fn due(&self, channel: &str, now: i64, rows_max: usize) -> Result<Vec<NoticeRow>, StoreError> {
        let is_due = |row: &NoticeRow| {
            row.channel == channel
                && (row.state == "held" || (row.state == "waiting" && (row.next_at <= now || row.attempts > 0)))
        };
        let mut rows = self.found(is_due);
        rows.truncate(rows_max);
        Ok(rows)
    }

    fn next_at(&self, channel: &str) -> Result<Option<i64>, StoreError> {
        let rows = lock(&self.rows);
        Ok(rows.1.iter().filter(|row| row.channel == channel && waits(row)).map(|row| row.next_at).min())
    }

    fn delete(&self, ids: &[i64]) -> Result<usize, StoreError> {
        let rows = &mut lock(&self.rows).1;
        let before = rows.len();
        rows.retain(|row| !ids.contains(&row.id));
        Ok(before - rows.len())
    }

    fn mark(&self, ids: &[i64], state: &str, next_at: i64, error: &str) -> Result<(), StoreError> {
        let rows = &mut lock(&self.rows).1;
        for row in rows.iter_mut().filter(|row| ids.contains(&row.id)) {
            state.clone_into(&mut row.state);
            error.clone_into(&mut row.error);
            row.next_at = next_at;
            row.attempts += u32::from(!error.is_empty());
        }
        if state == "failed" {
            // Nobody can look at them in an agent; the log has said it.
            rows.retain(|row| row.state != "failed");
        }
        Ok(())
    }

    fn told(&self, ids: &[i64]) -> Result<(), StoreError> {
        let rows = &mut lock(&self.rows).1;
        for id in ids {
            let Some(at) = rows.iter().position(|row| row.id == *id) else { continue };
            let mut row = rows.remove(at);
            rows.retain(|old| old.state != "told" || old.channel != row.channel || old.dedup != row.dedup);
            shed(rows, &row.channel, |old| old.state == "told");
            "told".clone_into(&mut row.state);
            row.body = String::new();
            // Its place by id does not matter any more.
            rows.push(row);
        }
        Ok(())
    }

    fn of_keys(&self, channel: &str, keys: &[String]) -> Result<Vec<NoticeRow>, StoreError> {
        Ok(self.found(|row| row.channel == channel && row.state != "failed" && keys.contains(&row.dedup)))
    }

    fn list(&self, rows_max: usize) -> Result<Vec<NoticeRow>, StoreError> {
        let mut rows = self.found(|row| row.state != "told");
        rows.reverse();
        rows.truncate(rows_max);
        Ok(rows)
    }

    fn keep_channels(&self, _running: &[&str], _known: &[&str]) -> Result<(), StoreError> {
        Ok(()) // nothing outlives the process
    }
}
