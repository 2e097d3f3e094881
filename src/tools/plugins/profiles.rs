//! Browser profiles: a directory for each agent (contract engine 8.6).

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::rt::order::Order;
use crate::store::cookies;

/// Files of a profile that are looked at; a browser's cache has some thousands.
const FILES_MAX: usize = 100_000;
/// Profiles in one list.
const PROFILES_MAX: usize = 1000;

/// What is known of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub agent: String,
    pub bytes: u64,
    /// Hosts that set cookies, by name.
    pub domains: Vec<String>,
    /// The newest file, in milliseconds since 1970.
    pub last_used: i64,
}

/// Why a profile cannot be had.
#[derive(Debug)]
pub enum ProfileError {
    /// The name leaves the directory of profiles.
    Name,
    NotFound,
    Io(io::Error),
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("browser: invalid agent name"),
            Self::NotFound => f.write_str("profile not found"),
            Self::Io(cause) => write!(f, "{cause}"),
        }
    }
}

impl std::error::Error for ProfileError {}

impl From<io::Error> for ProfileError {
    fn from(cause: io::Error) -> Self {
        if cause.kind() == ErrorKind::NotFound { Self::NotFound } else { Self::Io(cause) }
    }
}

/// All profiles below a directory, by name; none when there is no directory.
pub(super) fn list(root: &Path) -> Result<Vec<Profile>, ProfileError> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ProfileError::Io(error)),
    };
    let mut profiles = Vec::new();
    for entry in entries.take(PROFILES_MAX) {
        let entry = entry.map_err(ProfileError::Io)?;
        // One that is removed just now is none.
        if let (true, Ok(name)) = (entry.file_type().is_ok_and(|kind| kind.is_dir()), entry.file_name().into_string())
            && let Ok(profile) = get(root, &name)
        {
            profiles.push(profile);
        }
    }
    profiles.order_by(|a, b| a.agent.cmp(&b.agent));
    Ok(profiles)
}

/// One profile.
pub(super) fn get(root: &Path, agent: &str) -> Result<Profile, ProfileError> {
    let directory = directory(root, agent)?;
    let (mut bytes, mut last_used, mut n_files) = (0_u64, 0, 0);
    let mut waiting = vec![directory.clone()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else { continue };
            n_files += 1;
            if n_files > FILES_MAX {
                waiting.clear();
                break;
            }
            if about.is_dir() {
                waiting.push(entry.path());
            } else if about.is_file() {
                bytes = bytes.saturating_add(about.len());
                last_used = last_used.max(modified(&about));
            }
        }
    }
    if last_used == 0 {
        last_used = modified(&fs::metadata(&directory)?);
    }
    let cookies = ["Default/Cookies", "Cookies"].map(|file| directory.join(file));
    let domains = cookies.iter().find(|path| fs::symlink_metadata(path).is_ok_and(|found| found.is_file()));
    let domains = domains.map_or_else(Vec::new, |path| cookies::hosts(path));
    Ok(Profile { agent: agent.to_owned(), bytes, domains, last_used })
}

/// Removes a profile.
pub(super) fn delete(root: &Path, agent: &str) -> Result<(), ProfileError> {
    Ok(fs::remove_dir_all(directory(root, agent)?)?)
}

/// Removes everything in a profile.
pub(super) fn clear(root: &Path, agent: &str) -> Result<(), ProfileError> {
    use std::os::unix::fs::DirBuilderExt;
    let directory = directory(root, agent)?;
    fs::remove_dir_all(&directory)?;
    Ok(fs::DirBuilder::new().mode(0o700).create(directory)?)
}

fn directory(root: &Path, agent: &str) -> Result<PathBuf, ProfileError> {
    if agent.is_empty() || agent == "." || agent.contains(['/', '\\', '\0']) || agent.contains("..") {
        return Err(ProfileError::Name);
    }
    let directory = root.join(agent);
    if fs::symlink_metadata(&directory)?.is_dir() { Ok(directory) } else { Err(ProfileError::NotFound) }
}

fn modified(about: &fs::Metadata) -> i64 {
    use std::os::unix::fs::MetadataExt;
    about.mtime().saturating_mul(1000).saturating_add(about.mtime_nsec() / 1_000_000)
}
