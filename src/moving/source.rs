//! Private copies of databases that somebody else owns: those are read byte by byte and never opened with SQLite.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};

use crate::moving::{MoveError, at};
use crate::store::random_hex;

/// The bytes that SQLite locks: in the file (sqlite.org/src, `PENDING_BYTE`), and in its shared memory, where every
/// open connection holds the last one.
const LOCKS: [(&str, u64, u64); 2] = [("", 0x4000_0000, 512), ("-shm", 120, 9)];

/// A directory that only we can read; it goes with the value.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes one in `parent`.
    pub(super) fn new(parent: &Path) -> Result<Self, MoveError> {
        let path = parent.join(format!("holt-{}.tmp", random_hex::<6>()?));
        DirBuilder::new().mode(0o700).create(&path).map_err(at(&path))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("remove {}: {error}", self.0.display());
        }
    }
}

/// A file, told apart from what it becomes when somebody writes to it.
fn state(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let data = fs::metadata(path).ok()?;
    Some((data.ino(), data.len(), data.mtime(), data.mtime_nsec()))
}

/// Copies a database that nobody has open, with the logs beside it. None when there is none.
pub(super) fn copy_database(from: &Path, scratch: &Scratch, name: &str) -> Result<Option<PathBuf>, MoveError> {
    if !from.exists() {
        return Ok(None);
    }
    if let Some(who) = user_of(from).map_err(at(from))? {
        return Err(MoveError::Refused(format!(
            "{} is in use{who}; stop the program that uses it first, so that nothing is missing, then import again",
            from.display()
        )));
    }
    let files: Vec<(PathBuf, PathBuf)> = ["", "-wal", "-journal"]
        .iter()
        .map(|suffix| (beside(from, suffix), scratch.path(&format!("{name}{suffix}"))))
        .collect();
    let before: Vec<_> = files.iter().map(|(from, _)| state(from)).collect();
    for (from, to) in files.iter().filter(|(from, _)| from.exists()) {
        copy(from, to).map_err(at(from))?;
    }
    let after: Vec<_> = files.iter().map(|(from, _)| state(from)).collect();
    if before != after {
        return Err(MoveError::Refused(format!(
            "{} changed while it was read; stop the program that writes to it first, then import again",
            from.display()
        )));
    }
    Ok(files.into_iter().next().map(|(_, to)| to))
}

/// Copies contents into a new file of ours (0600), not the mode.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<u64> {
    let mut source = File::open(from)?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut source, &mut target)
}

/// Whoever has the database open, as ` by process 17`; None: nobody. Asks for locks, takes none.
fn user_of(path: &Path) -> io::Result<Option<String>> {
    for (suffix, start, length) in LOCKS {
        let file = match File::open(beside(path, suffix)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let wanted = Flock { start, length, pid: None, typ: FlockType::WriteLock, offset_type: FlockOffsetType::Set };
        if let Some(held) = fcntl_getlk(&file, &wanted)? {
            let by = held.pid.map(|pid| format!(" by process {}", pid.as_raw_nonzero()));
            return Ok(Some(by.unwrap_or_default()));
        }
    }
    Ok(None)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}
