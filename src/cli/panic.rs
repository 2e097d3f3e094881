//! `holt panic` and `holt resume`: the off switch, straight in the hub's database; a running hub obeys within a second.

use clap::Args;
use serde_json::json;

use super::database::Database;
use super::output::out;
use super::{CliError, Context};
use crate::rt::clock;
use crate::store::audit::{self, Entry};
use crate::store::meta;

/// Stop all agents at once, and keep them stopped
#[derive(Args)]
#[command(long_about = "Stop all agents at once. Running turns are cancelled, new messages are refused, requests for
approval and queued messages wait. It lasts, also across a restart, until `holt resume`.

Examples:
  holt panic
  holt panic --data-dir /var/lib/holt")]
pub(super) struct Panic {}

/// Let agents run again after a panic
#[derive(Args)]
#[command(long_about = "Let agents run again after `holt panic`. What waited goes on.

Examples:
  holt resume")]
pub(super) struct Resume {}

impl Panic {
    #[expect(clippy::unused_self, reason = "all commands are run alike")]
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let value = json!({"at": clock::unix_ms(), "by": "cli"}).to_string();
        let db = Database::open(context)?.db;
        db.write(|tx| {
            audit::insert(tx, &by_cli("panic"))?;
            meta::set(tx, meta::PANIC, &value)
        })
        .map_err(CliError::failed)?;
        out!("Everything is stopped. Let it run again with: holt resume")
    }
}

impl Resume {
    #[expect(clippy::unused_self, reason = "all commands are run alike")]
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let db = Database::open(context)?.db;
        let stopped = db.read(|conn| meta::get(conn, meta::PANIC)).map_err(CliError::failed)?.is_some();
        if !stopped {
            return out!("Nothing is stopped.");
        }
        db.write(|tx| {
            audit::insert(tx, &by_cli("resume"))?;
            meta::delete(tx, meta::PANIC)
        })
        .map_err(CliError::failed)?;
        out!("Agents run again.")
    }
}

fn by_cli(action: &str) -> Entry<'_> {
    Entry { actor: "cli", source: "cli", ..Entry::ok(action) }
}
