//! `holt doctor`.

use super::args::Args;
use super::command::{Action, Arg, Command};
use super::output::out;
use super::text::one_line;
use super::{CliError, Context, hub};
use crate::config;
use crate::moving::doctor::{Depth, Level, examine, to_json, unusable, worst};

/// Something should be put right.
const EXIT_WARNINGS: u8 = 1;
/// Something does not work or is dangerous.
const EXIT_ERRORS: u8 = 2;

pub(super) const COMMAND: Command = Command {
    name: "doctor",
    about: "Look for what is wrong with this installation",
    details: "Look for what is wrong with this installation: who can reach it, permissions, disk, clock, databases, providers, \
              backups, settings. Each finding says how to put it right. Changes nothing; the hub may run.\n\
              Ends with 0 when all is well, 1 with warnings, 2 with errors.",
    examples: &["holt doctor", "holt doctor --online", "holt doctor --json | jq .status"],
    args: &[Arg::flag("online", "Also ask model providers whether they answer"), Arg::flag("json", "Print JSON")],
    action: Action::Run(run),
};

fn run(args: &Args, context: &Context) -> Result<(), CliError> {
    let depth = Depth { online: args.flag("online"), thorough: true, is_hub: false };
    let findings = match config::load(&context.flags, &context.env) {
        Ok(mut config) => {
            // What counts is where a hub that runs can be reached.
            config.api.listen = hub::listens(&config).0;
            examine(&config, depth)
        }
        Err(error) => vec![unusable(error.to_string())],
    };
    if args.flag("json") {
        out!("{}", serde_json::to_string_pretty(&to_json(&findings)).map_err(CliError::failed)?)?;
    } else {
        for found in &findings {
            out!("{}: {}", found.level.as_str(), one_line(&found.what))?;
            if !found.fix.is_empty() {
                out!("    {}", one_line(&found.fix))?;
            }
        }
    }
    match worst(&findings) {
        Some(Level::Error) => Err(CliError::Code(EXIT_ERRORS)),
        Some(Level::Warning) => Err(CliError::Code(EXIT_WARNINGS)),
        _ if args.flag("json") => Ok(()),
        _ => out!("All is well."),
    }
}
