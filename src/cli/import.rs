//! `holt import`.

use std::sync::Arc;

use super::args::Args;
use super::command::{Action, Arg, Command};
use super::output::{self, out};
use super::table::Table;
use super::{CliError, Context};
use crate::audit::{AuditStore, Entry};
use crate::config;
use crate::moving::import::{Order, Report, import};
use crate::store::Db;

pub(super) const COMMAND: Command = Command {
    name: "import",
    about: "Take over the data of a denkeeper installation",
    details: "Take over the data of a denkeeper installation: its configuration (comments kept, paths changed), API keys, \
              conversations, skills, personas, stored values, rules, logins.\n\
              The old directory is only read. What is here already stays, and is told; a second run adds what is new. \
              Both programs must be stopped. Everything comes into Holt's own data directory (--data-dir).",
    examples: &[
        "holt import ~/.denkeeper --dry-run",
        "holt import ~/.denkeeper",
        "holt import /mnt/old --source-config /mnt/denkeeper.toml --data-dir /var/lib/holt",
    ],
    args: &[
        Arg::word("dir", "The old data directory").path(),
        Arg::option("source-config", "FILE", "The old configuration file [default: denkeeper.toml in DIR]").path(),
        Arg::flag("dry-run", "Change nothing, only tell what would come"),
        Arg::flag("json", "Print JSON"),
    ],
    action: Action::Run(run),
};

fn run(args: &Args, context: &Context) -> Result<(), CliError> {
    let (rehearsal, json) = (args.flag("dry-run"), args.flag("json"));
    let from = args.path("dir").unwrap_or_default();
    let from_config = args.path("source-config");
    let (data_dir, config_path, db_path) = config::own_place(&context.flags, &context.env).map_err(CliError::failed)?;
    let order = Order {
        from: &from,
        from_config: from_config.as_deref(),
        data_dir: &data_dir,
        config_path: &config_path,
        db_path: &db_path,
        env: &context.env,
        rehearsal,
    };
    let report = import(&order).map_err(CliError::failed)?;
    if !rehearsal {
        let db = Arc::new(Db::open(&db_path).map_err(CliError::failed)?);
        let target = from.display().to_string();
        let entry = Entry { actor: "cli", source: "cli", target: &target, ..Entry::ok("import") };
        if let Err(error) = AuditStore::new(db).add(&[entry]) {
            output::note(&format!("the audit log could not be written: {error}"));
        }
    }
    if json {
        let text = serde_json::to_string_pretty(&report.to_json(rehearsal)).map_err(CliError::failed)?;
        return out!("{text}");
    }
    tell(&report)?;
    if rehearsal {
        return out!("Nothing was changed (--dry-run). Target: {}", data_dir.display());
    }
    out!("Everything is in {}. Start it with: holt serve", data_dir.display())
}

fn tell(report: &Report) -> Result<(), CliError> {
    let mut table = Table::new(&["KIND", "NEW", "GROWN", "THERE", "SKIPPED"]);
    for (kind, tally) in &report.kinds {
        let counts = [tally.new, tally.grown, tally.there, tally.skipped].map(|count| count.to_string());
        table.row([(*kind).to_owned()].into_iter().chain(counts).collect());
    }
    table.print()?;
    let notes = report.kinds.iter().flat_map(|(kind, tally)| tally.notes.iter().map(move |note| (kind, note)));
    for (kind, (why, (count, examples))) in notes {
        let mut which = examples.join(", ");
        if *count > examples.len() as u64 && !examples.is_empty() {
            which.push_str(", ...");
        }
        let colon = if which.is_empty() { "" } else { ": " };
        output::note(&super::text::one_line(&format!("{kind}: {why} ({count}){colon}{which}")));
    }
    report.warnings.iter().for_each(|warning| output::note(&super::text::one_line(&format!("warning: {warning}"))));
    Ok(())
}
