//! `holt panic` and `holt resume`: the off switch, straight in the hub's database; a running hub obeys within a second.

use serde_json::json;

use super::command::{Action, Command};
use super::database::Database;
use super::output::out;
use super::{CliError, Context};
use crate::rt::clock;
use crate::store::audit::{self, Entry};
use crate::store::meta;

pub(super) const PANIC: Command = Command {
    name: "panic",
    about: "Stop all agents at once, and keep them stopped",
    details: "Stop all agents at once. Running turns are cancelled, new messages are refused, requests for approval and \
              queued messages wait. It lasts, also across a restart, until `holt resume`.",
    examples: &["holt panic", "holt panic --data-dir /var/lib/holt"],
    args: &[],
    action: Action::Run(|_, context| panic(context)),
};

pub(super) const RESUME: Command = Command {
    name: "resume",
    about: "Let agents run again after a panic",
    details: "Let agents run again after `holt panic`. What waited goes on.",
    examples: &["holt resume"],
    args: &[],
    action: Action::Run(|_, context| resume(context)),
};

fn panic(context: &Context) -> Result<(), CliError> {
    let value = json!({"at": clock::unix_ms(), "by": "cli"}).to_string();
    let db = Database::open(context)?.db;
    db.write(|tx| {
        audit::insert(tx, &by_cli("panic"))?;
        meta::set(tx, meta::PANIC, &value)
    })
    .map_err(CliError::failed)?;
    out!("Everything is stopped. Let it run again with: holt resume")
}

fn resume(context: &Context) -> Result<(), CliError> {
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

fn by_cli(action: &str) -> Entry<'_> {
    Entry { actor: "cli", source: "cli", ..Entry::ok(action) }
}
