//! `holt config ...`.

use clap::{Args, Subcommand};

use super::output::{self, out};
use super::{CliError, Context};
use crate::config::check;

/// Look at the configuration
#[derive(Args)]
pub(super) struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check the configuration without starting anything
    #[command(long_about = "Check the configuration without starting anything.

Reads what `holt serve` would read (options, HOLT_* and DENKEEPER_* variables, the file), and says what would be
used, what is unknown or not supported, and the first thing that is wrong. Ends with 0 if Holt would start, else with 1.

Examples:
  holt config check
  holt config check --config /etc/holt.toml
  HOLT_API_LISTEN=:9000 holt config check")]
    Check,
}

impl Config {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        match self.command {
            ConfigCommand::Check => {
                let report = check(&context.flags, &context.env);
                if report.ok {
                    return report.lines.iter().try_for_each(|line| out!("{line}"));
                }
                report.lines.iter().for_each(|line| output::error(line));
                Err(CliError::Told)
            }
        }
    }
}
