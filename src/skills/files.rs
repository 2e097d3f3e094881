//! Small text files that people edit while the hub runs: read bounded, written whole or not at all, and told apart by
//! what the file system says of them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Whether a file is still the one that was read. Editors that write in place change the times, those that rename a
/// new file change the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The stamp of a plain file, links followed; None when there is none.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(Stamp {
        inode: found.ino(),
        bytes: found.len(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

/// The text of a plain file of at most so many bytes. Never waits for whoever is at the other end of a pipe.
pub(super) fn read(path: &Path, bytes_max: usize) -> io::Result<String> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a plain file"));
    }
    let mut text = String::new();
    let more = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    file.take(more).read_to_string(&mut text)?;
    if text.len() > bytes_max {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("it has more than {bytes_max} bytes")));
    }
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Makes a directory with those above it, for its owner alone unless `mode` says otherwise.
pub(super) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() { Ok(()) } else { DirBuilder::new().recursive(true).mode(mode).create(path) }
}

/// Writes a file (0600) in a directory that is there: aside, to the disk, then renamed.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    let aside = directory.join(name);
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside).and_then(|mut file| {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let placed = written.and_then(|()| fs::rename(&aside, path));
    if placed.is_err() {
        // A leftover does no harm: the next write replaces it.
        let _ = fs::remove_file(&aside);
    }
    placed?;
    // Some file systems cannot sync a directory; the file is in place all the same.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

/// Whether that is a directory and no link to one: what is written below it stays below it.
pub(super) fn is_own_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_plain_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, "one").unwrap();
        let first = stamp(&path).unwrap();
        assert_eq!(read(&path, 3).unwrap(), "one");
        assert!(read(&path, 2).unwrap_err().to_string().contains("more than 2"));
        write(&path, "two").unwrap();
        assert_ne!(stamp(&path).unwrap(), first);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
        assert!(read(dir.path(), 9).is_err() && stamp(dir.path()).is_none());
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(read(&pipe, 9).unwrap_err().to_string().contains("plain") && stamp(&pipe).is_none());
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(read(&path, 9).is_err());
    }
}
