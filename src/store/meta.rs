//! Small facts about the installation: one row each.

use rusqlite::{Connection, OptionalExtension, params};

use crate::store::{Db, StoreError};

const GET: &str = "SELECT value FROM meta WHERE key = ?1";
const SET: &str = "INSERT INTO meta(key, value) VALUES (?1, ?2) ON CONFLICT(key) DO UPDATE SET value = excluded.value";
const DELETE: &str = "DELETE FROM meta WHERE key = ?1";

/// The value of `key`, inside a transaction or on a reader.
pub fn get(conn: &Connection, key: &str) -> Result<Option<String>, StoreError> {
    Ok(conn.prepare_cached(GET)?.query_row([key], |row| row.get(0)).optional()?)
}

/// Sets `key`.
pub fn set(conn: &Connection, key: &str, value: &str) -> Result<(), StoreError> {
    conn.prepare_cached(SET)?.execute(params![key, value])?;
    Ok(())
}

/// Forgets `key`.
pub fn delete(conn: &Connection, key: &str) -> Result<(), StoreError> {
    conn.prepare_cached(DELETE)?.execute([key])?;
    Ok(())
}

/// Whether setup has ever succeeded (W-2).
pub fn setup_done(db: &Db) -> Result<bool, StoreError> {
    db.read(|conn| Ok(get(conn, SETUP_DONE)?.is_some()))
}

/// Key of the row that says that setup succeeded once.
pub const SETUP_DONE: &str = "setup_done";
/// Key of the row with the pending setup PIN and its wrong tries, `123456:3`.
pub const SETUP_PIN: &str = "setup_pin";
/// Key of the row with the id of the key that `holt chat` made for itself.
pub const CLI_KEY: &str = "cli_key";
/// Key of the row that says who stopped everything, and when; absent while nothing is stopped.
pub const PANIC: &str = "panic";
/// Key of the row with the epoch of the event log that belongs to this file.
pub const EPOCH: &str = "epoch";
/// Key of the row that says when the last backup was made.
pub const LAST_BACKUP: &str = "last_backup";
