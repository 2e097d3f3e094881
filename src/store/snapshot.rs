//! Whole databases: a consistent copy while others write, and what makes a restored one fit to be used.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::limits;
use crate::rt::clock;
use crate::store::{StoreError, migrate, random_hex};

/// The schemas that this Holt knows: of `holt.db` and of `events.db`.
pub const SCHEMAS: [u64; 2] = [migrate::HOLT.len() as u64, migrate::EVENTS.len() as u64];

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| StoreError::Open { path: path.to_owned(), cause: error.to_string() })?;
    conn.busy_timeout(limits::DB_BUSY_TIMEOUT)?;
    conn.execute_batch("PRAGMA cache_size=-256;")?;
    Ok(conn)
}

/// Copies a database as it is at one moment into a new file (0600). Writers go on meanwhile. Its schema.
pub fn copy(path: &Path, to: &Path) -> Result<u64, StoreError> {
    let fail = |cause: std::io::Error| StoreError::Open { path: to.to_owned(), cause: cause.to_string() };
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(fail)?;
    let conn = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let schema = schema(&conn)?;
    conn.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
    Ok(schema)
}

/// The schema of a database, after all of it was read; damage is an error. `in_use`: somebody may be writing to it.
pub fn verify(path: &Path, in_use: bool) -> Result<u64, StoreError> {
    let flags = if in_use { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
    let conn = open(path, flags)?;
    let found: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(StoreError::Open { path: path.to_owned(), cause: found });
    }
    schema(&conn)
}

/// The schema of a database that somebody may be using.
pub fn schema_of(path: &Path) -> Result<u64, StoreError> {
    schema(&open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?)
}

fn schema(conn: &Connection) -> Result<u64, StoreError> {
    Ok(conn.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))?.cast_unsigned())
}

/// Makes copies of both databases a history of their own: numbers that were given out after the copy are not given out
/// again under the same epoch, and what only waited then does not happen now.
pub fn begin_anew(holt: &Path, events: &Path) -> Result<(), StoreError> {
    let conn = open(events, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.execute("UPDATE meta SET value = ?1 WHERE key = 'epoch'", [random_hex::<8>()?])?;
    let conn = open(holt, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let sql = "UPDATE turns SET state = 'failed', outcome = 'interrupted', ended_at = ?1 WHERE state = 'queued'";
    conn.execute(sql, [clock::unix_ms()])?;
    // The table came with the third schema.
    let has_notices: bool =
        conn.query_row("SELECT EXISTS(SELECT 1 FROM sqlite_master WHERE name = 'notices')", [], |row| row.get(0))?;
    if has_notices {
        conn.execute("DELETE FROM notices WHERE state = 'waiting'", [])?;
    }
    Ok(())
}
