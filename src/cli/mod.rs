//! Command line: the commands, what they share, and how they end. A file per command.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 not understood, 130 interrupted.
//! A failure is one line, `error: ...`, that says what to do next.

mod approvals;
mod audit;
mod chat;
mod config;
mod costs;
mod database;
mod keys;
mod output;
mod panic;
mod passwd;
mod serve;
mod sessions;
mod setup_pin;
mod table;
mod text;
mod time;
mod version;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Env, Flags};

/// The command did not do what it was asked for.
const EXIT_FAILURE: u8 = 1;
/// What a shell reports for a process that SIGINT ended.
const EXIT_INTERRUPTED: u8 = 130;

#[derive(Parser)]
#[command(name = "holt", version, about, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "Run `holt <command> --help` for examples.")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Args)]
struct Global {
    /// Configuration file [env: HOLT_CONFIG] [default: holt.toml in the data directory]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of databases and secrets [env: HOLT_DATA_DIR] [default: ~/.local/share/holt]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    Approvals(approvals::Approvals),
    Audit(audit::Audit),
    Chat(Box<chat::Chat>),
    Config(config::Config),
    Costs(costs::Costs),
    Keys(keys::Keys),
    Panic(panic::Panic),
    Passwd(passwd::Passwd),
    Resume(panic::Resume),
    Serve(serve::Serve),
    Sessions(sessions::Sessions),
    SetupPin(setup_pin::SetupPin),
    Version(version::Version),
}

/// What a command works with.
struct Context {
    flags: Flags,
    env: Env,
}

/// Why a command ended without doing its work.
#[derive(Debug)]
enum CliError {
    /// One line, lower case, without a full stop; says what to do next.
    Failed(String),
    /// The command said everything itself.
    Told,
    /// The user gave up at a prompt.
    Interrupted,
}

impl CliError {
    fn failed(cause: impl Display) -> Self {
        Self::Failed(cause.to_string())
    }
}

/// Parses the arguments, runs the command, returns the exit code.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version count as errors here: clap knows where each is printed, and its exit code, 0 or 2.
        Err(error) => error.exit(),
    };
    let flags = Flags { config: cli.global.config, data_dir: cli.global.data_dir, listen: None };
    let context = Context { flags, env: Env::from_process() };
    let result = match cli.command {
        Command::Approvals(command) => command.run(&context),
        Command::Audit(command) => command.run(&context),
        Command::Chat(command) => command.run(&context),
        Command::Config(command) => command.run(&context),
        Command::Costs(command) => command.run(&context),
        Command::Keys(command) => command.run(&context),
        Command::Panic(command) => command.run(&context),
        Command::Resume(command) => command.run(&context),
        Command::Passwd(command) => command.run(),
        Command::Serve(command) => command.run(&context),
        Command::Sessions(command) => command.run(&context),
        Command::SetupPin(command) => command.run(&context),
        Command::Version(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Failed(message)) => {
            output::error(&message);
            ExitCode::from(EXIT_FAILURE)
        }
        Err(CliError::Told) => ExitCode::from(EXIT_FAILURE),
        Err(CliError::Interrupted) => ExitCode::from(EXIT_INTERRUPTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_holds() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        fn check(command: &mut clap::Command) {
            let help = command.render_long_help().to_string();
            assert!(command.has_subcommands() || help.contains("Examples:"), "{help}");
            command.get_subcommands_mut().for_each(check);
        }
        let mut cli = Cli::command();
        cli.build();
        cli.get_subcommands_mut().for_each(check);
    }

    #[test]
    fn options_stand_before_or_after_the_command() {
        for arguments in [["holt", "-c", "x", "config", "check"], ["holt", "config", "check", "--config", "x"]] {
            let cli = Cli::try_parse_from(arguments).unwrap();
            assert_eq!(cli.global.config, Some(PathBuf::from("x")));
        }
        for wrong in [vec!["holt"], vec!["holt", "sing"], vec!["holt", "version", "--loud"], vec!["holt", "config"]] {
            let error = Cli::try_parse_from(wrong).err().unwrap();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }
}
