//! `holt restore`: a backup becomes the data directory. All of it is unpacked aside and checked first; until then nothing
//! is changed, and what is replaced is kept.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use flate2::bufread::GzDecoder;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::config;
use crate::moving::backup::{CONFIG, DATABASES, DIRS, FILES, FORMAT, Hashing, MANIFEST, sync_dir_of};
use crate::moving::source::Scratch;
use crate::moving::tar::Reader;
use crate::moving::{MoveError, at, claimed, trees};
use crate::rt::clock;
use crate::rt::text::hex;
use crate::store::{StoreError, snapshot};

/// A list of more files than a backup holds.
const MANIFEST_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What an archive holds: bytes and checksum by name.
type Found = BTreeMap<String, (u64, String)>;

/// What is to be done.
pub struct Order<'a> {
    pub archive: &'a Path,
    pub data_dir: &'a Path,
    pub config_path: &'a Path,
    /// What is there may be replaced.
    pub force: bool,
    /// Nothing is changed: only checked.
    pub only_check: bool,
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    pub made_at: String,
    pub version: String,
    pub files: usize,
    /// Where that lies what was there before.
    pub kept: Option<PathBuf>,
    /// The restored configuration names another place for the database.
    pub elsewhere: Option<PathBuf>,
}

/// Restores a backup. On an error everything is as it was.
pub fn restore(order: &Order<'_>) -> Result<Restored, MoveError> {
    let own_db = order.data_dir.join(DATABASES[0]);
    let _claimed = if order.only_check { None } else { Some(claimed(&own_db, order.data_dir)?) };
    let there: Vec<&str> = parts().filter(|name| order.data_dir.join(name).exists()).collect();
    if !there.is_empty() && !order.force && !order.only_check {
        return Err(MoveError::Refused(format!(
            "{} holds data already ({}); give an empty directory with --data-dir, or replace it with --force",
            order.data_dir.display(),
            there.join(", ")
        )));
    }
    let place = if order.data_dir.is_dir() { order.data_dir.to_owned() } else { std::env::temp_dir() };
    let scratch = Scratch::new(&place)?;
    let root = scratch.path("");
    let refuse =
        |reason: &str| MoveError::Refused(format!("{}: {reason}; nothing was changed", order.archive.display()));
    let (manifest, found) = unpack(order.archive, &root).map_err(|error| match error {
        // What is wrong with the archive, not with the disk.
        MoveError::File { path, cause } if path == order.archive => refuse(&read_error(&cause)),
        error => error,
    })?;
    let restored = check(&manifest, &found, &root).map_err(|reason| refuse(&reason))?;
    if order.only_check {
        return Ok(restored);
    }
    let [holt, events] = DATABASES.map(|name| root.join(name));
    if holt.exists() && events.exists() {
        snapshot::begin_anew(&holt, &events)?;
    }
    let kept = put_in_place(order, &root)?;
    let config = config::judge(order.config_path, order.data_dir, &config::Env::from_process()).ok();
    let elsewhere = config.map(|config| config.db_path).filter(|path| *path != own_db);
    Ok(Restored { kept, elsewhere, ..restored })
}

/// Everything at the top of a data directory that a backup can hold, and the logs of databases.
fn parts() -> impl Iterator<Item = &'static str> {
    let logs = ["holt.db-wal", "holt.db-shm", "events.db-wal", "events.db-shm"];
    DATABASES.into_iter().chain([CONFIG]).chain(FILES).chain(DIRS).chain(logs)
}

fn read_error(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::UnexpectedEof => "it breaks off".to_owned(),
        io::ErrorKind::InvalidInput => "it is no backup".to_owned(),
        _ => cause.to_string(),
    }
}

/// Whether an entry of that name may be written below the data directory.
fn is_ours(name: &str) -> bool {
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let clean = !name.contains("//") && !name.ends_with('/') && !name.contains('\\') && !name.contains('\0');
    let mut parts = path.components();
    let first = parts.next().and_then(|part| part.as_os_str().to_str()).unwrap_or_default();
    let in_dir = parts.next().is_some();
    let known = if in_dir {
        DIRS.contains(&first)
    } else {
        first == CONFIG || DATABASES.contains(&first) || FILES.contains(&first)
    };
    plain && clean && known
}

/// Writes every entry below `root`: the list at the end of the archive, and what was really found, with its checksum.
fn unpack(archive: &Path, root: &Path) -> Result<(Value, Found), MoveError> {
    let file = File::open(archive).map_err(|error| MoveError::Refused(format!("{}: {error}", archive.display())))?;
    let mut gz = GzDecoder::new(BufReader::new(file));
    let mut found = Found::new();
    let mut tar = Reader::new(&mut gz);
    let damaged = |reason: String| at(archive)(io::Error::new(io::ErrorKind::InvalidData, reason));
    loop {
        let Some((name, bytes)) = tar.next().map_err(at(archive))? else {
            return Err(at(archive)(io::ErrorKind::UnexpectedEof.into()));
        };
        if name == MANIFEST {
            if bytes > MANIFEST_BYTES_MAX {
                return Err(damaged("its list is too long".to_owned()));
            }
            let mut text = String::new();
            tar.read_to_string(&mut text).map_err(at(archive))?;
            if tar.next().map_err(at(archive))?.is_some() {
                return Err(damaged("there is more behind its list".to_owned()));
            }
            // To its end, where the checksum of the whole stands.
            io::copy(&mut gz, &mut io::sink()).map_err(at(archive))?;
            let list = serde_json::from_str(&text).map_err(|error| damaged(format!("its list: {error}")))?;
            return Ok((list, found));
        }
        if !is_ours(&name) || found.contains_key(&name) {
            return Err(damaged(format!("it holds {name:?}, which no backup does")));
        }
        let relative = Path::new(&name);
        trees::make_parents(root, relative)?;
        let path = root.join(relative);
        let mode = if tar.is_program() { 0o700 } else { 0o600 };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).map_err(at(&path))?;
        let mut hashing = Hashing { from: &mut tar, hash: Sha256::new() };
        copy(&mut hashing, &mut file, archive, &path)?;
        file.sync_all().map_err(at(&path))?;
        found.insert(name, (bytes, hex(&hashing.hash.finalize())));
    }
}

/// Errors of reading are the archive's, those of writing the disk's.
fn copy(from: &mut dyn Read, to: &mut File, archive: &Path, path: &Path) -> Result<(), MoveError> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).map_err(at(archive))?;
        if count == 0 {
            return Ok(());
        }
        io::Write::write_all(to, &buffer[..count]).map_err(at(path))?;
    }
}

/// Compares what was found with the list, and looks at the databases.
fn check(manifest: &Value, found: &Found, root: &Path) -> Result<Restored, String> {
    let format = manifest["format"].as_u64().unwrap_or(0);
    if format > FORMAT {
        return Err("it was made by a newer holt".to_owned());
    }
    let files = manifest["files"].as_array().filter(|_| format == FORMAT).ok_or("its list is damaged")?;
    for file in files {
        let name = file["path"].as_str().unwrap_or_default();
        let (bytes, hash) = found.get(name).ok_or_else(|| format!("{name:?} is missing"))?;
        if file["bytes"].as_u64() != Some(*bytes) || file["sha256"].as_str() != Some(hash) {
            return Err(format!("{name:?} is damaged"));
        }
    }
    if files.len() != found.len() {
        return Err("it holds files that are not in its list".to_owned());
    }
    for (name, known) in DATABASES.iter().zip(snapshot::SCHEMAS) {
        let path = root.join(name);
        if !path.exists() {
            continue;
        }
        let schema = snapshot::verify(&path, false).map_err(|error| match error {
            StoreError::Open { cause, .. } => format!("{name} is damaged: {cause}"),
            error => format!("{name}: {error}"),
        })?;
        if schema > known {
            return Err(format!("it was made by a newer holt ({name} has schema {schema}, this one knows {known})"));
        }
    }
    let text = |key: &str| manifest[key].as_str().unwrap_or_default().to_owned();
    Ok(Restored { made_at: text("made_at"), version: text("version"), files: found.len(), kept: None, elsewhere: None })
}

/// Moves what is there aside and the new in; on an error all of it back.
fn put_in_place(order: &Order<'_>, root: &Path) -> Result<Option<PathBuf>, MoveError> {
    let dir = order.data_dir;
    let kept = dir.join(format!("before-restore-{}", clock::unix_ms()));
    let mut moved: Vec<(PathBuf, PathBuf)> = Vec::new();
    let done = move_all(order, root, &kept, &mut moved);
    if let Err(error) = done {
        for (from, to) in moved.iter().rev() {
            if let Err(error) = fs::rename(to, from) {
                log::error!("move {} back to {}: {error}", to.display(), from.display());
            }
        }
        let _ = fs::remove_dir(&kept); // only if it is empty
        return Err(error);
    }
    sync_dir_of(&dir.join(CONFIG));
    sync_dir_of(order.config_path);
    Ok(kept.exists().then_some(kept))
}

fn move_all(order: &Order<'_>, root: &Path, kept: &Path, moved: &mut Vec<(PathBuf, PathBuf)>) -> Result<(), MoveError> {
    let mut step = |from: PathBuf, to: PathBuf| -> Result<(), MoveError> {
        fs::rename(&from, &to).map_err(at(&from))?;
        moved.push((from, to));
        Ok(())
    };
    for name in parts() {
        let there = order.data_dir.join(name);
        if fs::symlink_metadata(&there).is_ok() {
            trees::make_parents(kept, Path::new(name))?;
            step(there, kept.join(name))?;
        }
    }
    for name in parts().filter(|name| *name != CONFIG) {
        let new = root.join(name);
        if new.exists() {
            step(new, order.data_dir.join(name))?;
        }
    }
    let config = root.join(CONFIG);
    if !config.exists() {
        return Ok(());
    }
    if order.config_path.parent() == Some(order.data_dir) {
        return step(config, order.config_path.to_owned());
    }
    // Elsewhere, maybe on another disk; the old one stays beside it as `.bak`.
    let text = fs::read_to_string(&config).map_err(at(&config))?;
    config::replace(order.config_path, &text)?;
    Ok(())
}
