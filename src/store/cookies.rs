//! Which hosts have cookies in a profile of Chromium. Read-only, bounded, and without a trace: the database belongs to a
//! browser that may be running, and to whatever that browser visited.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use crate::store::StoreError;

/// Hosts in one answer.
const HOSTS_MAX: i64 = 1000;
/// A host's name; the DNS has 253.
const HOST_BYTES_MAX: usize = 256;
/// Larger ones are not read.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A database can be made so that a query never ends.
const TIME_MAX: Duration = Duration::from_secs(1);
/// Steps of SQLite's machine between two looks at the clock.
const STEPS: i32 = 10_000;

/// The hosts, by name, each once; none when the file is not such a database.
pub fn hosts(path: &Path) -> Vec<String> {
    read(path).unwrap_or_else(|error| {
        log::debug!("cookies {}: {error}", path.display());
        Vec::new()
    })
}

fn read(path: &Path) -> Result<Vec<String>, StoreError> {
    let open = |cause: String| StoreError::Open { path: path.to_owned(), cause };
    let about = std::fs::metadata(path).map_err(|error| open(error.to_string()))?;
    let name = path.to_str().filter(|_| about.is_file() && about.len() <= FILE_BYTES_MAX);
    let name = name.ok_or_else(|| open("not a file that is read".to_owned()))?;
    // Immutable: no locks, no journal, nothing is written. A browser that writes just now makes it fail or lag.
    let escaped = name.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let mut conn = Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)?;
    let deadline = Instant::now() + TIME_MAX;
    conn.progress_handler(STEPS, Some(move || Instant::now() > deadline))?;
    conn.execute_batch("PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA mmap_size=0;")?;
    // A view of that name could compute whatever it likes.
    let is_table = "SELECT count(*) FROM sqlite_schema WHERE name = 'cookies' AND type = 'table'";
    if conn.query_row(is_table, [], |row| row.get::<_, i64>(0))? != 1 {
        return Err(StoreError::NotFound);
    }
    let mut statement = conn.prepare("SELECT DISTINCT host_key FROM cookies ORDER BY host_key LIMIT ?1")?;
    let rows = statement.query_map([HOSTS_MAX], |row| row.get::<_, String>(0))?;
    let hosts = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(hosts.into_iter().filter(|host| host.len() <= HOST_BYTES_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_and_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("50% of #1?");
        let make = |sql: &str| {
            let _ = std::fs::remove_file(&path);
            Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        };
        make(
            "CREATE TABLE cookies(host_key TEXT, value TEXT); INSERT INTO cookies VALUES ('b.com', 'x'), ('a.com', 'y'), ('a.com', 'z')",
        );
        assert_eq!(hosts(&path), ["a.com", "b.com"]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        // A view that never ends, another shape, no database at all.
        make(
            "CREATE VIEW cookies AS WITH RECURSIVE t(host_key) AS (SELECT 'x' UNION ALL SELECT host_key || 'x' FROM t) SELECT * FROM t",
        );
        assert_eq!(hosts(&path), [""; 0]);
        make("CREATE TABLE cookies(other TEXT)");
        assert_eq!(hosts(&path), [""; 0]);
        std::fs::write(&path, "SQLite format 3\0 and then nonsense").unwrap();
        assert_eq!(hosts(&path), [""; 0]);
        assert_eq!(hosts(dir.path()), [""; 0]);
    }
}
