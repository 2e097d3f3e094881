//! `holt restore`.

use std::sync::Arc;

use super::args::Args;
use super::command::{Action, Arg, Command};
use super::output::{self, out};
use super::{CliError, Context};
use crate::audit::{AuditStore, Entry};
use crate::config;
use crate::moving::restore::{Order, restore};
use crate::store::Db;

pub(super) const COMMAND: Command = Command {
    name: "restore",
    about: "Bring a backup back",
    details: "Bring a backup back, into an empty data directory or, with --force, in place of what is there, which is kept \
              beside it. The whole file is checked before anything is changed; a file that is damaged, or was made by a \
              newer Holt, is refused. The hub must be stopped.\n\
              Keys, passwords and logins are those of the time of the backup. Clients are told that their place in running \
              conversations is gone; messages that waited in a queue then are not sent to models now.",
    examples: &[
        "holt restore holt-backup-20261122-031500.tar.gz --data-dir /var/lib/holt",
        "holt restore backup.tar.gz --check",
        "holt restore backup.tar.gz --force",
    ],
    args: &[
        Arg::word("file", "The backup").path(),
        Arg::flag("force", "Replace what is there; it is kept in a directory beside"),
        Arg::flag("check", "Only check the file"),
    ],
    action: Action::Run(run),
};

fn run(args: &Args, context: &Context) -> Result<(), CliError> {
    let archive = args.path("file").unwrap_or_default();
    let (force, only_check) = (args.flag("force"), args.flag("check"));
    let (data_dir, config_path, db_path) = config::own_place(&context.flags, &context.env).map_err(CliError::failed)?;
    let order = Order { archive: &archive, data_dir: &data_dir, config_path: &config_path, force, only_check };
    let restored = restore(&order).map_err(CliError::failed)?;
    let what = format!("{} files of {}, made by holt {}", restored.files, restored.made_at, restored.version);
    if only_check {
        return out!("The backup is whole: {what}");
    }
    let shown = archive.display().to_string();
    let entry = Entry { actor: "cli", source: "cli", target: &shown, detail: &what, ..Entry::ok("restore") };
    let recorded = Db::open(&db_path).and_then(|db| AuditStore::new(Arc::new(db)).add(&[entry]));
    if let Err(error) = recorded {
        output::note(&format!("the audit log could not be written: {error}"));
    }
    if let Some(kept) = &restored.kept {
        output::note(&format!("what was there before is in {}", kept.display()));
    }
    out!("Restored {what}. Start it with: holt serve")
}
