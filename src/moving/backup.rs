//! One file with all that a hub is: both databases as they are at one moment, the configuration, secrets, personas and
//! skills. A gzipped tar, its last entry a list with the checksum of every other.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::moving::source::Scratch;
use crate::moving::tar::Writer;
use crate::moving::{MoveError, at, trees};
use crate::rt::clock;
use crate::rt::text::hex;
use crate::store::{Db, meta, snapshot};

/// The form of the archive; another number is not understood.
pub(super) const FORMAT: u64 = 1;
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const DATABASES: [&str; 2] = ["holt.db", "events.db"];
pub(super) const CONFIG: &str = "holt.toml";
/// Single files of the data directory.
pub(super) const FILES: [&str; 2] = ["secret", "hub-key"];
/// Directories of it.
pub(super) const DIRS: [&str; 4] = ["agents", "skills", "tls", "plugins"];
/// Fast on small machines; a higher one saves a tenth.
const LEVEL: u32 = 4;

/// What went into a backup.
#[derive(Debug)]
pub struct Summary {
    pub files: u64,
    /// Unpacked.
    pub bytes: u64,
    /// What belongs to this hub and is not in it, with the reason.
    pub left: Vec<String>,
}

/// Writes a backup to `out`. The snapshots lie in the data directory meanwhile, which needs that much space.
pub fn write(config: &Config, out: &mut dyn Write) -> Result<Summary, MoveError> {
    let scratch = Scratch::new(&config.data_dir)?;
    let mut gz = GzEncoder::new(out, Compression::new(LEVEL));
    let mut packer = Packer { tar: Writer::new(&mut gz), list: Vec::new(), bytes: 0 };
    let mut left = Vec::new();
    let mut schemas = [0; 2];
    for (name, schema) in DATABASES.iter().zip(&mut schemas) {
        let from = config.db_path.with_file_name(name);
        if from.exists() {
            let copy = scratch.path(name);
            *schema = snapshot::copy(&from, &copy)?;
            packer.file(name, &copy)?;
            // Its space is free again before the next one is copied.
            fs::remove_file(&copy).map_err(at(&copy))?;
        }
    }
    if config.config_path.exists() {
        packer.small(CONFIG, &config.config_path)?;
    }
    for name in FILES {
        let path = config.data_dir.join(name);
        if path.exists() {
            packer.small(name, &path)?;
        }
    }
    for dir in DIRS {
        let mut leave = |why: &str, path: &Path| left.push(format!("{} {why}", path.display()));
        for relative in trees::files(&config.data_dir, Path::new(dir), &mut leave)? {
            let Some(name) = relative.to_str() else {
                left.push(format!("{} has a name that is not UTF-8", relative.display()));
                continue;
            };
            packer.small(name, &config.data_dir.join(&relative))?;
        }
    }
    let elsewhere = config.agents.iter().filter(|agent| !agent.persona_dir.starts_with(&config.data_dir));
    left.extend(elsewhere.map(|agent| format!("{} lies outside of the data directory", agent.persona_dir.display())));
    let (files, bytes) = (packer.list.len() as u64, packer.bytes);
    let manifest = json!({
        "format": FORMAT, "made_at": clock::rfc3339_s(clock::unix_ms()), "version": env!("CARGO_PKG_VERSION"),
        "schemas": schemas, "files": packer.list, "left": left,
    })
    .to_string();
    let fail = |cause: io::Error| MoveError::File { path: PathBuf::from("the backup"), cause };
    let mtime = u64::try_from(clock::unix_s()).unwrap_or(0);
    packer.tar.add(MANIFEST, manifest.len() as u64, mtime, false, &mut manifest.as_bytes()).map_err(fail)?;
    packer.tar.finish().map_err(fail)?;
    gz.finish().and_then(Write::flush).map_err(fail)?;
    Ok(Summary { files, bytes, left })
}

struct Packer<'a> {
    tar: Writer<'a>,
    list: Vec<Value>,
    bytes: u64,
}

impl Packer<'_> {
    /// A file that may change at any time: read whole.
    fn small(&mut self, name: &str, path: &Path) -> Result<(), MoveError> {
        let bytes = match fs::read(path) {
            // Deleted since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            read => read.map_err(at(path))?,
        };
        self.add(name, path, bytes.len() as u64, &mut &*bytes)
    }

    /// A file that nobody writes to.
    fn file(&mut self, name: &str, path: &Path) -> Result<(), MoveError> {
        let mut file = File::open(path).map_err(at(path))?;
        let bytes = file.metadata().map_err(at(path))?.len();
        self.add(name, path, bytes, &mut file)
    }

    fn add(&mut self, name: &str, path: &Path, bytes: u64, data: &mut dyn Read) -> Result<(), MoveError> {
        let about = fs::metadata(path).ok();
        let is_program = about.as_ref().is_some_and(|data| data.permissions().mode() & 0o100 != 0);
        let changed = about.and_then(|data| data.modified().ok());
        let mtime = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |age| age.as_secs());
        let mut hashing = Hashing { from: data, hash: Sha256::new() };
        self.tar.add(name, bytes, mtime, is_program, &mut hashing).map_err(at(path))?;
        self.list.push(json!({"path": name, "bytes": bytes, "sha256": hex(&hashing.hash.finalize())}));
        self.bytes += bytes;
        Ok(())
    }
}

/// Passes bytes on and takes their checksum.
pub(super) struct Hashing<'a> {
    pub(super) from: &'a mut dyn Read,
    pub(super) hash: Sha256,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buf)?;
        self.hash.update(&buf[..count]);
        Ok(count)
    }
}

/// A backup in a file that has no name any more; its space is free once it is closed.
pub fn unnamed(config: &Config) -> Result<(File, Summary), MoveError> {
    let scratch = Scratch::new(&config.data_dir)?;
    let path = scratch.path("backup");
    let mut file = create(&path)?;
    let summary = write(config, &mut file)?;
    drop(file);
    Ok((File::open(&path).map_err(at(&path))?, summary))
}

/// A backup in a file (0600) that is whole when it has its name: whatever had it before is replaced.
pub fn named(config: &Config, path: &Path) -> Result<Summary, MoveError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
    let aside = PathBuf::from(aside);
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&aside)(error)),
        _ => {}
    }
    let mut file = create(&aside)?;
    let done = write(config, &mut file).and_then(|summary| {
        file.sync_all().and_then(|()| fs::rename(&aside, path)).map_err(at(path))?;
        Ok(summary)
    });
    if done.is_err() {
        let _ = fs::remove_file(&aside); // the error is what counts
    }
    let summary = done?;
    sync_dir_of(path);
    Ok(summary)
}

/// Notes that a backup was made now.
pub fn remember(db: &Db) -> Result<(), MoveError> {
    Ok(db.write(|tx| meta::set(tx, meta::LAST_BACKUP, &clock::unix_ms().to_string()))?)
}

/// What `holt backup` calls a file when nobody says.
pub fn usual_name() -> String {
    let digits: String = clock::rfc3339_s(clock::unix_ms()).chars().filter(char::is_ascii_digit).collect();
    let (day, time) = digits.split_at_checked(8).unwrap_or((&digits, ""));
    format!("holt-backup-{day}-{time}.tar.gz")
}

fn create(path: &Path) -> Result<File, MoveError> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at(path))
}

/// Some file systems cannot; then a power cut may bring back what was there before.
pub(super) fn sync_dir_of(path: &Path) {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Err(error) = File::open(dir).and_then(|dir| dir.sync_all()) {
        log::warn!("sync {}: {error}", dir.display());
    }
}
