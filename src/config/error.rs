//! Why a configuration cannot be used.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a value was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A command line option.
    Flag(&'static str),
}

/// Holds facts; `Display` is one line for a person. Never holds a secret.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read, or one that was asked for is not there.
    Read { path: PathBuf, cause: io::Error },
    /// The file is not TOML. Line and column count from 1.
    Syntax { path: PathBuf, line: usize, column: usize, reason: String },
    /// A value is not allowed. `key` is its path in the file, also when it was typed elsewhere.
    Value { origin: Origin, key: String, reason: String },
    /// There is no place for data: no option, no variable, no home directory.
    NoDataDir,
    /// The configuration points at a database of the reference, which is never opened for writing.
    ReferenceDatabase { path: PathBuf },
    /// The file could not be written; it is as it was before.
    Write { path: PathBuf, step: &'static str, cause: io::Error },
    /// An edit wanted to make something of the file that it cannot be.
    Edit { path: PathBuf, reason: String },
}

/// The reason of an edit that gave up.
const REFUSED: &str = "refused";

impl ConfigError {
    /// An edit gave up for a reason of its own, which it has told elsewhere.
    pub fn refused() -> Self {
        Self::Edit { path: PathBuf::new(), reason: REFUSED.to_owned() }
    }

    /// Whether it is such an edit: nothing that an operator has to know of.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Edit { reason, .. } if reason == REFUSED)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, cause } => write!(f, "config {}: {cause}", path.display()),
            Self::Syntax { path, line, column, reason } => {
                write!(f, "config {}: line {line}, column {column}: {reason}", path.display())
            }
            Self::Value { origin: Origin::File(path), key, reason } => {
                write!(f, "config {}: {key}: {reason}", path.display())
            }
            Self::Value { origin: Origin::Variable(name), key, reason } => {
                write!(f, "variable {name}: {key}: {reason}")
            }
            Self::Value { origin: Origin::Flag(name), key, reason } => write!(f, "option {name}: {key}: {reason}"),
            Self::NoDataDir => f.write_str(
                "no data directory: neither HOLT_DATA_DIR nor XDG_DATA_HOME nor HOME is set; \
                 give one with --data-dir or HOLT_DATA_DIR",
            ),
            Self::ReferenceDatabase { path } => write!(
                f,
                "{} is a database of another program; Holt does not write to it: take its data over into a directory of \
                 its own with `holt import DIR`",
                path.display()
            ),
            Self::Write { path, step, cause } => write!(f, "write config {}: {step}: {cause}", path.display()),
            Self::Edit { path, reason } => write!(f, "edit config {}: {reason}", path.display()),
        }
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// The same without the place of the file: for those who are not on this machine.
    pub fn in_short(&self) -> String {
        match self {
            Self::Value { origin: Origin::File(_), key, reason } => format!("{key}: {reason}"),
            Self::Syntax { line, column, reason, .. } => {
                format!("the configuration file is broken at line {line}, column {column}: {reason}")
            }
            other => other.to_string(),
        }
    }
}
