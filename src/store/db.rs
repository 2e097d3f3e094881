//! Opening `holt.db`, its one writer and its few readers.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::limits;
use crate::rt::lock;
use crate::store::{StoreError, migrate};

/// An open `holt.db`.
///
/// `writer`'s mutex exists to queue disk writes, the one lock that is held over I/O; nothing is taken under it.
/// Readers are taken out of their mutex for use, so reading holds no lock.
pub struct Db {
    path: Option<PathBuf>,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Reader>>,
    /// Grows whenever the file may have changed, by us or by another process.
    generation: AtomicU64,
}

struct Reader {
    conn: Connection,
    data_version: i64,
}

impl Db {
    /// Opens or creates the file (0600, its directory 0700) and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        prepare_file(path)?;
        let mut conn = open_connection(path, "FULL")?;
        migrate::migrate(&mut conn, migrate::HOLT, path)?;
        Ok(Self {
            path: Some(path.to_owned()),
            writer: Mutex::new(conn),
            readers: Mutex::new(Vec::new()),
            generation: AtomicU64::new(1),
        })
    }

    /// A database that lives in memory, for tests and for stores without a file.
    pub fn in_memory() -> Result<Self, StoreError> {
        let mut conn = Connection::open_in_memory()?;
        migrate::migrate(&mut conn, migrate::HOLT, Path::new(":memory:"))?;
        Ok(Self {
            path: None,
            writer: Mutex::new(conn),
            readers: Mutex::new(Vec::new()),
            generation: AtomicU64::new(1),
        })
    }

    /// Runs `change` in one `BEGIN IMMEDIATE` transaction; durable when this returns Ok. Blocks on the disk.
    pub fn write<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        // Thin, for it is made anew for each of a hundred callers.
        let (mut change, mut result) = (Some(change), Err(StoreError::NotFound));
        self.transact(&mut |tx| {
            if let Some(change) = change.take() {
                result = change(tx);
            }
            result.is_ok()
        })?;
        result
    }

    /// A transaction around `change`, which says whether it is to be kept.
    fn transact(&self, change: &mut dyn FnMut(&Transaction<'_>) -> bool) -> Result<(), StoreError> {
        let mut conn = lock(&self.writer);
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if change(&tx) {
            tx.commit()?;
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Runs `query` on a read-only connection. Blocks on the disk, never on the writer.
    pub fn read<T>(&self, query: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let (mut query, mut result) = (Some(query), Err(StoreError::NotFound));
        self.look(&mut |conn| {
            if let Some(query) = query.take() {
                result = query(conn);
            }
        })?;
        result
    }

    fn look(&self, query: &mut dyn FnMut(&Connection)) -> Result<(), StoreError> {
        let Some(path) = &self.path else {
            query(&lock(&self.writer));
            return Ok(());
        };
        let pooled = lock(&self.readers).pop();
        let reader = match pooled {
            Some(reader) => reader,
            None => Reader { conn: open_reader(path)?, data_version: 0 },
        };
        query(&reader.conn);
        self.give_back(reader);
        Ok(())
    }

    /// The generation of the file now: equal numbers at two calls mean that nothing was committed in between, by this
    /// process or another.
    pub fn generation(&self) -> Result<u64, StoreError> {
        if let Some(path) = &self.path {
            let pooled = lock(&self.readers).pop();
            let mut reader = match pooled {
                Some(reader) => reader,
                None => Reader { conn: open_reader(path)?, data_version: 0 },
            };
            let version = reader
                .conn
                .prepare_cached("PRAGMA data_version")
                .and_then(|mut statement| statement.query_row([], |row| row.get::<_, i64>(0)));
            if let Ok(version) = version
                && version != reader.data_version
            {
                reader.data_version = version;
                self.generation.fetch_add(1, Ordering::AcqRel);
            }
            self.give_back(reader);
            version?;
        }
        Ok(self.generation.load(Ordering::Acquire))
    }

    /// Moves the write-ahead log into the file and makes both durable.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let conn = lock(&self.writer);
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }

    fn give_back(&self, reader: Reader) {
        let mut readers = lock(&self.readers);
        if readers.len() < limits::DB_READERS {
            readers.push(reader);
        }
    }
}

/// Makes the directory (0700) and the file (0600) before SQLite sees them, so that neither is ever readable by others.
pub(super) fn prepare_file(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let fail = |cause: std::io::Error| StoreError::Open { path: path.to_owned(), cause: cause.to_string() };
    if let Some(directory) = path.parent()
        && !directory.as_os_str().is_empty()
    {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(fail)?;
    }
    if !path.exists() {
        // Inside our process a database file is opened through SQLite only: closing another descriptor of it would
        // drop SQLite's locks. This one is closed before SQLite opens the file.
        std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).map_err(fail)?;
    }
    Ok(())
}

pub(super) fn open_connection(path: &Path, synchronous: &str) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)
        .map_err(|error| StoreError::Open { path: path.to_owned(), cause: error.to_string() })?;
    conn.busy_timeout(limits::DB_BUSY_TIMEOUT)?;
    conn.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
    conn.execute_batch(&format!(
        "PRAGMA synchronous={synchronous}; PRAGMA foreign_keys=ON; PRAGMA cache_size=-256; PRAGMA temp_store=MEMORY;"
    ))?;
    Ok(conn)
}

pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)
        .map_err(|error| StoreError::Open { path: path.to_owned(), cause: error.to_string() })?;
    conn.busy_timeout(limits::DB_BUSY_TIMEOUT)?;
    conn.execute_batch("PRAGMA query_only=ON; PRAGMA cache_size=-96;")?;
    Ok(conn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_private_and_another_connection_moves_the_generation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/holt.db");
        let db = Db::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        let first = db.generation().unwrap();
        assert_eq!(db.generation().unwrap(), first);
        let other = Db::open(&path).unwrap();
        other.write(|tx| Ok(tx.execute("INSERT INTO meta(key, value) VALUES ('a', 'b')", [])?)).unwrap();
        assert_ne!(db.generation().unwrap(), first);
        let value: String =
            db.read(|conn| Ok(conn.query_row("SELECT value FROM meta WHERE key='a'", [], |r| r.get(0))?)).unwrap();
        assert_eq!(value, "b");
    }

    #[test]
    fn a_failed_change_leaves_nothing_behind() {
        let db = Db::in_memory().unwrap();
        let failed: Result<(), StoreError> = db.write(|tx| {
            tx.execute("INSERT INTO meta(key, value) VALUES ('a', 'b')", [])?;
            Err(StoreError::NotFound)
        });
        assert!(failed.is_err());
        let count: i64 = db.read(|conn| Ok(conn.query_row("SELECT count(*) FROM meta", [], |r| r.get(0))?)).unwrap();
        assert_eq!(count, 0);
    }
}
