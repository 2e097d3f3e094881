//! The only writer of the configuration file (W-28): comments and order stay, a failed write changes nothing.
//!
//! An edit reads the file again first, so that what an editor changed meanwhile is kept. The new text goes to a
//! temporary file beside the old one, is fsynced, and takes its place by rename; the old file is kept as `.bak`.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use toml_edit::{DocumentMut, Item, Table};

use super::error::ConfigError;
use super::raw::read_document;
use crate::rt::lock;

/// The file holds secrets: only its owner may read it.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
/// Links to follow before it must be a circle.
const LINKS_MAX: usize = 16;

/// Writes one configuration file. Share it: two writers of the same file would undo each other's edits.
#[derive(Debug)]
pub struct ConfigWriter {
    path: PathBuf,
    /// Guarded by the mutex: the file itself, from reading to rename. Held across I/O on purpose: its job is to queue
    /// writers, and nothing is taken under it.
    writing: Mutex<()>,
}

impl ConfigWriter {
    /// A writer for the file at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), writing: Mutex::new(()) }
    }

    /// Where settings are written to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes the file. Blocks on the disk. An edit that changes nothing writes nothing.
    ///
    /// On any error the file is as it was before: when `change` fails, when it made something that is not TOML, when
    /// the disk is full. `change` may run on an empty document: then the file is created (0600, its directory 0700).
    pub fn edit(&self, change: impl FnOnce(&mut DocumentMut) -> Result<(), ConfigError>) -> Result<(), ConfigError> {
        let _queue = lock(&self.writing);
        let target = follow_links(&self.path)?;
        let before = read_document(&target)?;
        let mut doc = before.clone().unwrap_or_default();
        change(&mut doc)?;
        let text = doc.to_string();
        if before.is_some_and(|before| before.to_string() == text) {
            return Ok(());
        }
        // What we would not read again must not be written.
        if let Err(error) = text.parse::<DocumentMut>() {
            return Err(ConfigError::Edit { path: target, reason: error.message().replace('\n', " ") });
        }
        replace(&target, text.as_bytes())
    }
}

/// A table that is written only through its children.
pub(super) fn implicit_table() -> Item {
    let mut table = Table::new();
    table.set_implicit(true);
    Item::Table(table)
}

/// The file behind symbolic links; the last one need not exist.
fn follow_links(path: &Path) -> Result<PathBuf, ConfigError> {
    let mut target = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&target) {
            Ok(link) => target = target.parent().unwrap_or(Path::new("")).join(link),
            // No link, or nothing there yet.
            Err(_) => return Ok(target),
        }
    }
    let cause = io::Error::other("too many symbolic links");
    Err(ConfigError::Write { path: path.to_owned(), step: "follow links", cause })
}

fn replace(target: &Path, text: &[u8]) -> Result<(), ConfigError> {
    let failed = |step: &'static str| move |cause| ConfigError::Write { path: target.to_owned(), step, cause };
    let dir = match target.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    if !dir.is_dir() {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(failed("create its directory"))?;
    }
    let temporary = beside(target, ".tmp");
    let written = write_durably(&temporary, text)
        .map_err(failed("write a temporary file"))
        .and_then(|()| keep_old(target).map_err(failed("keep the old file as .bak")))
        .and_then(|()| fs::rename(&temporary, target).map_err(failed("put the new file in place")));
    if let Err(error) = written {
        // A leftover does no harm: the next write replaces it.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    // The new file is in place and complete. Some file systems cannot sync a directory; then a power cut within the
    // next seconds may bring the old file back, which is no reason to tell the caller that nothing happened.
    if let Err(error) = File::open(dir).and_then(|dir| dir.sync_all()) {
        log::warn!("config {}: sync its directory: {error}", target.display());
    }
    Ok(())
}

/// Copies the present file to `.bak`, by way of a temporary file, so that a full disk does not cost the last copy.
fn keep_old(target: &Path) -> io::Result<()> {
    let old = match fs::read(target) {
        Ok(old) => old,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let temporary = beside(target, ".bak.tmp");
    let kept = write_durably(&temporary, &old).and_then(|()| fs::rename(&temporary, beside(target, ".bak")));
    if kept.is_err() {
        // As above.
        let _ = fs::remove_file(&temporary);
    }
    kept
}

/// A file that only its owner may read, on the disk when this returns. Leftovers of a crash are replaced, not reused:
/// they may belong to somebody else or be links.
fn write_durably(path: &Path, text: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    // The mode above is subject to the umask, which may take too much away.
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    file.write_all(text)?;
    file.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}
