//! Who uses a data directory: one hub, or one command that replaces its files.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Takes the directory of that database for this process, as long as the file is kept; makes it (0700) where it is not
/// there yet. None: somebody else has it.
pub fn claim(db_path: &Path) -> io::Result<Option<File>> {
    if let Some(directory) = db_path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let path = db_path.with_file_name("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}
