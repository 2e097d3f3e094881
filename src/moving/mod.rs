//! Moving in, moving out: what another program's data directory holds is taken over; a hub becomes a file and that file a
//! hub again; and whether all is well with it. No threads of its own; whatever runs
//! here belongs to the command or request that asked for it.

pub mod backup;
pub mod doctor;
pub mod import;
pub mod restore;
pub mod service;
mod source;
mod tar;
mod trees;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::ConfigError;
use crate::store::StoreError;
use crate::store::claim::claim;

/// Why nothing was moved, or not all of it. Each says what to do.
#[derive(Debug)]
pub enum MoveError {
    /// One line for whoever asked.
    Refused(String),
    File {
        path: PathBuf,
        cause: io::Error,
    },
    Store(StoreError),
    Config(ConfigError),
}

impl fmt::Display for MoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => f.write_str(reason),
            Self::File { path, cause } => write!(f, "{}: {cause}", path.display()),
            Self::Store(cause) => write!(f, "{cause}"),
            Self::Config(cause) => write!(f, "{cause}"),
        }
    }
}

impl std::error::Error for MoveError {}

impl From<StoreError> for MoveError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ConfigError> for MoveError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// For `map_err` of what is done with the file at `path`.
fn at(path: &Path) -> impl Fn(io::Error) -> MoveError + '_ {
    |cause| MoveError::File { path: path.to_owned(), cause }
}

/// Keeps hubs away from a data directory as long as the file is kept; refuses while one runs.
fn claimed(db_path: &Path, data_dir: &Path) -> Result<std::fs::File, MoveError> {
    claim(db_path)
        .map_err(at(data_dir))?
        .ok_or_else(|| MoveError::Refused(format!("a hub is running on {}; stop it first", data_dir.display())))
}
