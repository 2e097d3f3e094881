//! Directories of personas and skills, file by file. What is here already stays.

use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::moving::{MoveError, at, source};
use crate::store::reference::Tally;

/// Deeper is nothing that a skill consists of, and maybe a circle.
const DEPTH_MAX: usize = 8;
/// Personas and skills are texts; a larger file belongs to something else.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
const FILES_MAX: u64 = 20_000;

/// The files below `root/dir`, as paths relative to `root`, in order; what is left out goes to `left`.
pub(super) fn files(root: &Path, dir: &Path, left: &mut dyn FnMut(&str, &Path)) -> Result<Vec<PathBuf>, MoveError> {
    let mut found = Vec::new();
    walk(root, dir, 0, &mut found, left)?;
    found.sort();
    Ok(found)
}

fn walk(
    root: &Path,
    dir: &Path,
    depth: usize,
    found: &mut Vec<PathBuf>,
    left: &mut dyn FnMut(&str, &Path),
) -> Result<(), MoveError> {
    let path = root.join(dir);
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) if depth > 0 => {
            left(&format!("cannot be read: {error}"), dir);
            return Ok(());
        }
        Err(error) => return Err(at(&path)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(at(&path))?;
        let relative = dir.join(entry.file_name());
        let kind = entry.file_type().map_err(at(&path))?;
        if kind.is_dir() && depth < DEPTH_MAX {
            walk(root, &relative, depth + 1, found, left)?;
        } else if kind.is_dir() {
            left("lies too deep", &relative);
        } else if kind.is_symlink() {
            left("is a symbolic link", &relative);
        } else if !kind.is_file() {
            left("is no file", &relative);
        } else if entry.metadata().is_ok_and(|data| data.len() > FILE_BYTES_MAX) {
            left("is too large", &relative);
        } else if found.len() as u64 >= FILES_MAX {
            left("are more files than personas and skills have", &relative);
        } else {
            found.push(relative);
        }
    }
    Ok(())
}

/// Makes `root/relative`'s directories, 0700.
pub(super) fn make_parents(root: &Path, relative: &Path) -> Result<(), MoveError> {
    let path = root.join(relative);
    let Some(parent) = path.parent() else { return Ok(()) };
    DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(at(parent))
}

/// Takes the files below `from/dir` over to `to/dir`; `tally_of` says what a file is counted as.
pub(super) fn adopt(
    from: &Path,
    to: &Path,
    dir: &Path,
    rehearsal: bool,
    tallies: &mut [Tally; 2],
    kind_of: &dyn Fn(&Path) -> usize,
) -> Result<(), MoveError> {
    let mut left: Vec<(String, PathBuf)> = Vec::new();
    let found = files(from, dir, &mut |why, path| left.push((why.to_owned(), path.to_owned())))?;
    for (why, path) in left {
        tallies[kind_of(&path)].skip(&why, &path.display().to_string());
    }
    for relative in found {
        let tally = &mut tallies[kind_of(&relative)];
        let (old, new) = (from.join(&relative), to.join(&relative));
        let shown = relative.display().to_string();
        match fs::symlink_metadata(&new) {
            Ok(_) if is_same(&old, &new) => tally.there += 1,
            Ok(_) => tally.skip("another file of that name is here, ours stays", &shown),
            Err(_) => match put(&old, to, &relative, rehearsal) {
                Ok(()) => tally.new += 1,
                Err(MoveError::File { path, cause }) if path == old => {
                    tally.skip(&format!("cannot be read: {cause}"), &shown);
                }
                Err(error) => return Err(error),
            },
        }
    }
    Ok(())
}

fn put(old: &Path, to: &Path, relative: &Path, rehearsal: bool) -> Result<(), MoveError> {
    File::open(old).map_err(at(old))?;
    if rehearsal {
        return Ok(());
    }
    make_parents(to, relative)?;
    let new = to.join(relative);
    // Whole or not at all: a file that is there is never looked at again.
    let aside = to.join(format!("{}.tmp", relative.display()));
    let _ = fs::remove_file(&aside); // of a copy that was interrupted
    source::copy(old, &aside).and_then(|_| fs::rename(&aside, &new)).map_err(at(&new))
}

fn is_same(a: &Path, b: &Path) -> bool {
    let read = |path: &Path| -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    matches!((read(a), read(b)), (Ok(a), Ok(b)) if a == b)
}
