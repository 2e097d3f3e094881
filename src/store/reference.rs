//! Reading a database of the reference (contract http-api 13.4; engine 0.2, 2.1). Only ever a copy is opened: even to read
//! its write-ahead log SQLite would change files beside it.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

use crate::store::{StoreError, time};

/// Named in a tally for each reason; of more rows only the number is told.
const EXAMPLES_MAX: usize = 3;
/// More reasons than a person reads are a broken file: they are counted together.
const REASONS_MAX: usize = 12;

/// A private copy of a database of the reference.
pub struct Reference {
    pub(super) conn: Connection,
}

/// What became of all that is of one kind.
#[derive(Debug, Default)]
pub struct Tally {
    /// Came now.
    pub new: u64,
    /// Is the same here already.
    pub there: u64,
    /// Was there and went on in the reference; the rest came now.
    pub grown: u64,
    /// Did not come, or differs from ours, which stays.
    pub skipped: u64,
    /// Why, how often, and a few names of what it was.
    pub notes: BTreeMap<String, (u64, Vec<String>)>,
}

impl Tally {
    /// `what` did not come.
    pub fn skip(&mut self, why: &str, what: &str) {
        self.skipped += 1;
        self.note(why, what);
    }

    /// Something to know about `what`.
    pub fn note(&mut self, why: &str, what: &str) {
        let why = if self.notes.len() < REASONS_MAX || self.notes.contains_key(why) { why } else { "other reasons" };
        let (count, examples) = self.notes.entry(why.to_owned()).or_default();
        *count += 1;
        if examples.len() < EXAMPLES_MAX && !what.is_empty() {
            examples.push(crate::rt::text::cut(what, 80).to_owned());
        }
    }
}

impl Reference {
    /// Opens a copy and recovers what its write-ahead log holds.
    pub fn open(copy: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // With a writable schema SQLite reads a file that was cut off as far as it goes; nothing is written.
        let open = || {
            let conn = Connection::open_with_flags(copy, flags)?;
            conn.execute_batch("PRAGMA writable_schema=ON; PRAGMA query_only=ON; PRAGMA cache_size=-512;")?;
            conn.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
            Ok(Self { conn })
        };
        open().map_err(|error: rusqlite::Error| StoreError::Open { path: copy.to_owned(), cause: error.to_string() })
    }

    /// What is wrong with the file as a whole; None when SQLite finds nothing. Reads all of it.
    pub fn damage(&self) -> Option<String> {
        let found = self.conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        match found {
            Ok(text) if text == "ok" => None,
            Ok(text) => Some(text),
            Err(error) => Some(error.to_string()),
        }
    }

    /// How many rows a table has; 0 when it is not there.
    pub fn count(&self, table: &str) -> u64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.conn.query_row(&sql, [], |row| row.get::<_, i64>(0)).map_or(0, i64::cast_unsigned)
    }

    /// Calls `each` for every row of a table, in its own order. Columns that an older file lacks are null. What SQLite
    /// cannot read is noted, and ends the table.
    pub(super) fn rows(
        &self,
        table: &str,
        columns: &[&str],
        tally: &mut Tally,
        each: &mut dyn FnMut(&Row<'_>, &mut Tally) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let known = self.columns(table);
        if known.is_empty() {
            return Ok(());
        }
        let shown: Vec<&str> =
            columns.iter().map(|&name| if known.iter().any(|has| has == name) { name } else { "NULL" }).collect();
        let sql = format!("SELECT {} FROM {table} ORDER BY rowid", shown.join(", "));
        let mut statement = match self.conn.prepare(&sql) {
            Ok(statement) => statement,
            Err(error) => {
                tally.skip(&format!("cannot be read: {error}"), table);
                return Ok(());
            }
        };
        let mut rows = statement.query([])?;
        loop {
            match rows.next() {
                Ok(Some(row)) => each(row, tally)?,
                Ok(None) => return Ok(()),
                Err(error) => {
                    tally.skip(&format!("the rest cannot be read: {error}"), table);
                    return Ok(());
                }
            }
        }
    }

    fn columns(&self, table: &str) -> Vec<String> {
        let sql = format!("SELECT name FROM pragma_table_info('{table}')");
        let read = |sql: &str| -> rusqlite::Result<Vec<String>> {
            self.conn.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
        };
        read(&sql).unwrap_or_default() // a file that cannot be read was reported by `damage`
    }
}

/// A text, bytes that are no UTF-8 replaced; None for anything else.
pub(super) fn text(row: &Row<'_>, index: usize) -> Option<String> {
    match row.get_ref(index) {
        Ok(ValueRef::Text(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    }
}

/// A text that may be missing.
pub(super) fn text_or_empty(row: &Row<'_>, index: usize) -> String {
    text(row, index).unwrap_or_default()
}

/// There is something, and it is not what it should be.
pub(super) struct Damaged;

/// A time of any spelling, in milliseconds since 1970; None for null.
pub(super) fn time_of(row: &Row<'_>, index: usize) -> Result<Option<i64>, Damaged> {
    match row.get_ref(index) {
        Ok(ValueRef::Null) => Ok(None),
        Ok(ValueRef::Text(bytes)) => std::str::from_utf8(bytes).ok().and_then(time::parse_ms).map(Some).ok_or(Damaged),
        _ => Err(Damaged),
    }
}
