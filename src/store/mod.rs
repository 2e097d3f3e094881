//! The two database files and what is in them, a file per aggregate. Knows SQLite and nothing above it.
//!
//! `holt.db` has one writer connection (`synchronous=FULL`): what is acknowledged is committed. `events.db` holds the
//! event log (`synchronous=NORMAL`) and is written by one thread alone, which `chat` owns. No threads of its own.

pub mod adopt;
pub mod adopt_chats;
mod agents;
pub mod alert_rows;
pub mod alerts;
pub mod approvals;
pub mod audit;
pub mod claim;
pub mod conversations;
pub mod cookies;
pub mod costs;
pub mod db;
pub mod figures;
pub mod join_codes;
pub mod journal;
pub mod keys;
pub mod kv;
pub mod log;
pub mod logins;
pub mod machine_readings;
pub mod machine_sessions;
mod machine_tokens;
pub mod machines;
#[cfg(test)]
mod machines_tests;
pub mod meta;
mod migrate;
pub mod notices;
pub mod oauth_tokens;
pub mod parked;
pub mod reference;
pub mod rules;
pub mod schedule_runs;
pub mod search;
pub mod silences;
pub mod snapshot;
pub mod time;
mod turn_rows;
pub mod turns;
pub mod whereabouts;

pub use agents::rename_agent;
pub use alerts::AlertStore;
pub use approvals::ApprovalStore;
pub use conversations::ConversationStore;
pub use costs::CostStore;
pub use db::Db;
pub use join_codes::JoinCodeStore;
pub use journal::JournalStore;
pub use keys::{ApiKeyRecord, KeyStore};
pub use kv::{KvError, KvLimits, KvStore};
pub use log::{EventLog, LogReader};
pub use logins::{SessionRecord, SessionStore};
pub use machine_readings::MachineReadings;
pub use machine_sessions::MachineSessionStore;
pub use machines::MachineStore;
pub use notices::NoticeStore;
pub use parked::ParkedStore;
pub use rules::RuleStore;
pub use schedule_runs::ScheduleRuns;
pub use silences::SilenceStore;
pub use turns::TurnStore;

pub use crate::rt::text::hex;

use std::fmt;
use std::path::PathBuf;

/// Why a store could not do what was asked.
#[derive(Debug)]
pub enum StoreError {
    /// SQLite refused for a reason that is none of the others.
    Sqlite(rusqlite::Error),
    /// No space is left, or the file may not grow.
    Full,
    /// Another process held the file for longer than [`crate::limits::DB_BUSY_TIMEOUT`].
    Busy,
    /// The file was written by a newer Holt; it was left untouched.
    Newer { path: PathBuf, found: i64, known: i64 },
    /// The file or its directory cannot be made or opened.
    Open { path: PathBuf, cause: String },
    /// There is no such row, or not in the state that the change needs.
    NotFound,
    /// The system gave no randomness.
    Random,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(cause) => write!(f, "sqlite: {cause}"),
            Self::Full => write!(f, "no space left for the database"),
            Self::Busy => write!(f, "the database is locked by another process"),
            Self::Newer { path, found, known } => {
                write!(f, "{} was written by a newer holt (schema {found}, this one knows {known})", path.display())
            }
            Self::Open { path, cause } => write!(f, "open {}: {cause}", path.display()),
            Self::NotFound => write!(f, "not found"),
            Self::Random => write!(f, "the system gave no random bytes"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        match error.sqlite_error_code() {
            Some(Code::DiskFull) => Self::Full,
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => Self::Busy,
            _ if matches!(error, rusqlite::Error::QueryReturnedNoRows) => Self::NotFound,
            _ => Self::Sqlite(error),
        }
    }
}

/// Random bytes as lower-case hex (`hexN` of contract section 0; N is twice the bytes).
pub fn random_hex<const N: usize>() -> Result<String, StoreError> {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes).map_err(|_| StoreError::Random)?;
    Ok(hex(&bytes))
}
