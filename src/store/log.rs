//! The event log, `events.db`: runs of frames as they went to the sockets, in order, until they are too old.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::limits;
use crate::rt::{clock, lock};
use crate::store::{StoreError, db, migrate, random_hex};

const INSERT: &str = "INSERT INTO runs(session_id, first_seq, last_seq, at, frames) VALUES (?1, ?2, ?3, ?4, ?5)";
const LAST: &str = "SELECT max(last_seq) FROM runs WHERE session_id = ?1";
const OLDEST: &str = "SELECT first_seq FROM runs WHERE session_id = ?1 ORDER BY last_seq LIMIT 1";
const SINCE: &str =
    "SELECT first_seq, last_seq, frames FROM runs WHERE session_id = ?1 AND last_seq > ?2 ORDER BY last_seq LIMIT 256";
const DELETE_SESSION: &str = "DELETE FROM runs WHERE session_id = ?1 AND last_seq <= ?2";
const OLDEST_ROWS: &str = "SELECT id, at, length(frames) FROM runs ORDER BY id LIMIT ?1";
const DELETE_ROW: &str = "DELETE FROM runs WHERE id = ?1";
/// One step per session along the index, whatever the number of rows.
const SESSIONS: &str = "WITH RECURSIVE s(id) AS (SELECT min(session_id) FROM runs
    UNION ALL SELECT (SELECT min(session_id) FROM runs WHERE session_id > s.id) FROM s WHERE s.id IS NOT NULL)
    SELECT id FROM s WHERE id IS NOT NULL";

/// Consecutive frames of one session, exactly as they go to a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    pub first_seq: u64,
    pub last_seq: u64,
    pub frames: Box<[u8]>,
}

/// The writing half: owned by the thread `store-log` alone.
pub struct EventLog {
    path: PathBuf,
    conn: Connection,
    bytes: u64,
}

/// The keeper's own connection, opened at the first use.
pub struct SyncConnection(Connection);

/// The reading half, shared by whoever replays.
pub struct LogReader {
    path: PathBuf,
    /// Guarded by the mutex: idle read-only connections; taken out for use.
    idle: Mutex<Vec<Connection>>,
}

impl EventLog {
    /// Opens or creates the file; also its epoch, 16 hex digits that name the numbering as a whole.
    pub fn open(path: &Path) -> Result<(Self, String), StoreError> {
        db::prepare_file(path)?;
        let mut conn = db::open_connection(path, "NORMAL")?;
        // Checkpoints are made elsewhere, never in front of a commit.
        conn.pragma_update(None, "wal_autocheckpoint", 0)?;
        migrate::migrate(&mut conn, migrate::EVENTS, path)?;
        let known: Option<String> =
            conn.query_row("SELECT value FROM meta WHERE key = 'epoch'", [], |row| row.get(0)).optional()?;
        let epoch = match known {
            Some(epoch) => epoch,
            None => {
                let epoch = random_hex::<8>()?;
                conn.execute("INSERT INTO meta(key, value) VALUES ('epoch', ?1)", [&epoch])?;
                epoch
            }
        };
        let mut log = Self { path: path.to_owned(), conn, bytes: 0 };
        log.estimate_bytes()?;
        Ok((log, epoch))
    }

    /// A reading half of the same file.
    pub fn reader(&self) -> LogReader {
        LogReader { path: self.path.clone(), idle: Mutex::new(Vec::new()) }
    }

    /// Commits runs of any sessions, all or none. One write into the page cache, no fsync.
    pub fn append<'a>(&mut self, runs: impl Iterator<Item = (&'a str, &'a Run)>) -> Result<(), StoreError> {
        let at = clock::unix_ms();
        let mut added = 0;
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut statement = tx.prepare_cached(INSERT)?;
            for (session_id, run) in runs {
                statement.execute(params![
                    session_id,
                    run.first_seq.cast_signed(),
                    run.last_seq.cast_signed(),
                    at,
                    &*run.frames
                ])?;
                added += run.frames.len() as u64;
            }
        }
        tx.commit()?;
        self.bytes += added;
        Ok(())
    }

    /// Forgets a session's frames up to a number: those that come under the same id later are another conversation's.
    pub fn delete_session(&mut self, session_id: &str, up_to: u64) -> Result<(), StoreError> {
        let up_to = i64::try_from(up_to).unwrap_or(i64::MAX);
        self.conn.prepare_cached(DELETE_SESSION)?.execute(params![session_id, up_to])?;
        self.estimate_bytes()
    }

    /// Whether more is kept than `bytes_max`.
    pub fn is_over(&self, bytes_max: u64) -> bool {
        self.bytes > bytes_max
    }

    /// Empties the write-ahead log, which a checkpoint beside a busy writer cannot; waits a moment for readers at most.
    pub fn truncate_wal(&mut self) -> Result<(), StoreError> {
        self.conn.busy_timeout(std::time::Duration::from_millis(50))?;
        let result = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        self.conn.busy_timeout(limits::DB_BUSY_TIMEOUT)?;
        Ok(result?)
    }

    /// What is kept, from the pages in use: exact enough for a bound, and no scan of the table.
    fn estimate_bytes(&mut self) -> Result<(), StoreError> {
        let pragma = |name: &str| self.conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
        let any: bool = self.conn.query_row("SELECT EXISTS(SELECT 1 FROM runs)", [], |row| row.get(0))?;
        let pages = pragma("page_count")? - pragma("freelist_count")?;
        let bytes = if any { pages * pragma("page_size")? } else { 0 };
        self.bytes = u64::try_from(bytes).unwrap_or(0);
        Ok(())
    }

    /// Deletes at most [`limits::PURGE_ROWS`] of the oldest rows that are over age or over size; whether more remain.
    pub fn purge(&mut self, age_max_ms: i64, bytes_max: u64) -> Result<bool, StoreError> {
        let oldest_kept = clock::unix_ms().saturating_sub(age_max_ms);
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut bytes = self.bytes;
        let mut deleted = 0;
        {
            let mut statement = tx.prepare_cached(OLDEST_ROWS)?;
            let rows: Vec<(i64, i64, i64)> = statement
                .query_map([i64::try_from(limits::PURGE_ROWS).unwrap_or(256)], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?
                .collect::<Result<_, _>>()?;
            let mut delete = tx.prepare_cached(DELETE_ROW)?;
            for (id, at, length) in rows {
                if at >= oldest_kept && bytes <= bytes_max {
                    break;
                }
                delete.execute([id])?;
                bytes = bytes.saturating_sub(u64::try_from(length).unwrap_or(0));
                deleted += 1;
            }
        }
        tx.commit()?;
        self.bytes = bytes;
        Ok(deleted == limits::PURGE_ROWS)
    }
}

impl LogReader {
    /// The reading half of a file that another process may be writing. Creates nothing: None when there is no file.
    pub fn open(path: &Path) -> Option<Self> {
        path.exists().then(|| Self { path: path.to_owned(), idle: Mutex::new(Vec::new()) })
    }

    /// The sessions that have frames.
    pub fn sessions(&self) -> Result<Vec<String>, StoreError> {
        self.with(|conn| {
            let mut statement = conn.prepare_cached(SESSIONS)?;
            let rows = statement.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The last number kept of a session, if any.
    pub fn last_seq(&self, session_id: &str) -> Result<Option<u64>, StoreError> {
        self.with(|conn| {
            let last: Option<i64> = conn.prepare_cached(LAST)?.query_row([session_id], |row| row.get(0))?;
            Ok(last.map(i64::cast_unsigned))
        })
    }

    /// The oldest number kept of a session, if any.
    pub fn oldest_seq(&self, session_id: &str) -> Result<Option<u64>, StoreError> {
        self.with(|conn| {
            let oldest: Option<i64> =
                conn.prepare_cached(OLDEST)?.query_row([session_id], |row| row.get(0)).optional()?;
            Ok(oldest.map(i64::cast_unsigned))
        })
    }

    /// Runs that hold frames after `after`, oldest first, until about `bytes_max` are together (at least one run).
    /// The first run may begin at or before `after`.
    pub fn since(&self, session_id: &str, after: u64, bytes_max: usize) -> Result<Vec<Run>, StoreError> {
        self.with(|conn| {
            let mut statement = conn.prepare_cached(SINCE)?;
            let mut rows = statement.query(params![session_id, i64::try_from(after).unwrap_or(i64::MAX)])?;
            let mut runs = Vec::new();
            let mut bytes = 0;
            while let Some(row) = rows.next()? {
                let frames: Vec<u8> = row.get(2)?;
                bytes += frames.len();
                runs.push(Run {
                    first_seq: row.get::<_, i64>(0)?.cast_unsigned(),
                    last_seq: row.get::<_, i64>(1)?.cast_unsigned(),
                    frames: frames.into_boxed_slice(),
                });
                if bytes >= bytes_max {
                    break;
                }
            }
            Ok(runs)
        })
    }

    /// Moves what is committed into the file and makes it durable, on a connection of its own: appending goes on.
    /// True when the write-ahead log has grown large and is to be emptied by the writer.
    pub fn sync(&self, keeper: &mut Option<SyncConnection>) -> Result<bool, StoreError> {
        if keeper.is_none() {
            *keeper = Some(SyncConnection(db::open_connection(&self.path, "NORMAL")?));
        }
        if let Some(SyncConnection(conn)) = keeper {
            // PASSIVE never blocks the writer; it syncs the log before it copies, and the file after.
            let pages: i64 = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?;
            return Ok(pages > limits::WAL_PAGES_MAX);
        }
        Ok(false)
    }

    fn with<T>(&self, query: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let pooled = lock(&self.idle).pop();
        let conn = match pooled {
            Some(conn) => conn,
            None => db::open_reader(&self.path)?,
        };
        let result = query(&conn);
        let mut idle = lock(&self.idle);
        if idle.len() < limits::DB_READERS {
            idle.push(conn);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, last: u64, bytes: usize) -> Run {
        Run { first_seq: first, last_seq: last, frames: vec![b'x'; bytes].into_boxed_slice() }
    }

    #[test]
    fn runs_come_back_in_order_and_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.db");
        let (mut log, epoch) = EventLog::open(&path).unwrap();
        let reader = log.reader();
        assert_eq!(reader.last_seq("s").unwrap(), None);
        log.append([("s", &run(1, 3, 10)), ("t", &run(1, 1, 5)), ("s", &run(4, 9, 10))].into_iter()).unwrap();
        assert_eq!(reader.last_seq("s").unwrap(), Some(9));
        assert_eq!(reader.oldest_seq("s").unwrap(), Some(1));
        assert_eq!(reader.since("s", 2, 1000).unwrap(), vec![run(1, 3, 10), run(4, 9, 10)]);
        assert_eq!(reader.since("s", 3, 1000).unwrap(), vec![run(4, 9, 10)]);
        assert_eq!(reader.since("s", 0, 1).unwrap().len(), 1);
        assert_eq!(reader.sessions().unwrap(), ["s", "t"]);
        assert!(reader.since("s", 9, 1000).unwrap().is_empty());
        reader.sync(&mut None).unwrap();
        drop(log);
        let (mut log, same) = EventLog::open(&path).unwrap();
        assert_eq!(same, epoch);
        log.delete_session("s", 9).unwrap();
        assert_eq!(reader.last_seq("s").unwrap(), None);
        assert_eq!(reader.last_seq("t").unwrap(), Some(1));
    }

    #[test]
    fn the_oldest_rows_go_first_by_size_and_by_age() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = EventLog::open(&dir.path().join("events.db")).unwrap();
        let reader = log.reader();
        let runs: Vec<Run> = (1..=10).map(|seq| run(seq, seq, 100)).collect();
        log.append(runs.iter().map(|run| ("s", run))).unwrap();
        assert!(!log.purge(60_000, 450).unwrap());
        assert_eq!(reader.oldest_seq("s").unwrap(), Some(7));
        assert!(!log.purge(-1, 450).unwrap());
        assert_eq!(reader.oldest_seq("s").unwrap(), None);
    }
}
