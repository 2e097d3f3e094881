//! The hub's database, for commands that work on it directly, also while the hub runs.

use std::path::PathBuf;
use std::sync::Arc;

use super::{CliError, Context, output};
use crate::audit::{AuditStore, Entry};
use crate::config::{self, Config};
use crate::store::{Db, LogReader};

/// The event log's file, beside the main one.
const EVENTS_FILE: &str = "events.db";

/// An open database and the configuration that named it.
pub(super) struct Database {
    pub(super) config: Config,
    pub(super) db: Arc<Db>,
}

impl Database {
    /// Opens it, and makes it where the hub has not run yet.
    pub(super) fn create(context: &Context) -> Result<Self, CliError> {
        let config = config::load(&context.flags, &context.env).map_err(CliError::failed)?;
        let db = Db::open(&config.db_path).map_err(CliError::failed)?;
        Ok(Self { config, db: Arc::new(db) })
    }

    /// Opens it; a missing one is probably another directory than the hub's.
    pub(super) fn open(context: &Context) -> Result<Self, CliError> {
        let config = config::load(&context.flags, &context.env).map_err(CliError::failed)?;
        if !config.db_path.exists() {
            let path = config.db_path.display();
            return Err(CliError::Failed(format!(
                "no database at {path}; start the hub once (holt serve), or give its --data-dir"
            )));
        }
        let db = Db::open(&config.db_path).map_err(CliError::failed)?;
        Ok(Self { config, db: Arc::new(db) })
    }

    /// Records what this command did. The work is done already: a failure is only told.
    pub(super) fn record(&self, action: &str, target: &str, detail: &str) {
        let entry = Entry { actor: "cli", source: "cli", target, detail, ..Entry::ok(action) };
        if let Err(error) = AuditStore::new(Arc::clone(&self.db)).add(&[entry]) {
            output::note(&format!("the audit log could not be written: {error}"));
        }
    }

    /// The event log, to read; None where there is none yet.
    pub(super) fn events(&self) -> Option<LogReader> {
        let beside: PathBuf = self.config.db_path.with_file_name(EVENTS_FILE);
        LogReader::open(&beside)
    }
}
