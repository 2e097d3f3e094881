//! Command line: the commands, what they share, and how they end. A file per command.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 not understood, 130 interrupted;
//! `holt check` has more.
//! A failure is one line, `error: ...`, that says what to do next.
//!
//! A command is a constant of type [`command::Command`] in its own file: name, words for help, examples, arguments, and
//! the function that runs. To add one, write that constant and put it into [`COMMANDS`] (or into the list of its group).
//! The function reads its values by name (`args.flag("json")`, `args.text("id")`, `args.number("days", 1..=366)?`,
//! `args.parsed("since", parse_age)?`) before it changes anything. Parsing, help and messages need nothing else; `-c`,
//! `--data-dir` and `--help` are there for all.

mod agent;
mod alerts;
mod approvals;
mod args;
mod audit;
mod backup;
mod chat;
mod check;
mod command;
mod completions;
mod config;
mod costs;
mod database;
mod doctor;
mod health;
mod help;
mod hub;
mod hub_url;
mod import;
mod inspect;
mod keys;
mod machines;
mod man;
mod output;
mod panic;
mod parse;
mod passwd;
mod plugin;
mod restore;
mod schedules;
mod serve;
mod service;
mod sessions;
mod setup_pin;
mod table;
mod text;
mod time;
mod version;

use std::ffi::OsString;
use std::fmt::Display;
use std::process::ExitCode;

use self::command::{Action, Arg, Command};
use self::output::out;
use self::parse::Asked;
use crate::config::{Env, Flags};

/// The command did not do what it was asked for.
const EXIT_FAILURE: u8 = 1;
/// The command line was not understood.
const EXIT_MISUSED: u8 = 2;
/// What a shell reports for a process that SIGINT ended.
const EXIT_INTERRUPTED: u8 = 130;

/// All commands, in the order of the help.
const COMMANDS: &[Command] = &[
    agent::COMMAND,
    alerts::COMMAND,
    approvals::COMMAND,
    audit::COMMAND,
    backup::COMMAND,
    chat::COMMAND,
    check::COMMAND,
    completions::COMMAND,
    config::COMMAND,
    costs::COMMAND,
    doctor::COMMAND,
    health::COMMAND,
    import::COMMAND,
    inspect::COMMAND,
    keys::COMMAND,
    machines::COMMAND,
    man::COMMAND,
    panic::PANIC,
    passwd::COMMAND,
    plugin::COMMAND,
    restore::COMMAND,
    panic::RESUME,
    schedules::COMMAND,
    serve::COMMAND,
    service::COMMAND,
    sessions::COMMAND,
    setup_pin::COMMAND,
    version::COMMAND,
];

/// The binary itself; its arguments are options of every command.
static HOLT: Command = Command {
    name: "holt",
    about: env!("CARGO_PKG_DESCRIPTION"),
    details: "",
    examples: &[],
    args: &[
        Arg::option(
            "config",
            "FILE",
            "Configuration file [env: HOLT_CONFIG] [default: holt.toml in the data directory]",
        )
        .short('c')
        .path(),
        Arg::option(
            "data-dir",
            "DIR",
            "Directory of databases and secrets [env: HOLT_DATA_DIR] [default: ~/.local/share/holt]",
        )
        .path(),
    ],
    action: Action::Group(COMMANDS),
};

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
    /// Such a line about the command line itself.
    Misused(String),
    /// The command said everything itself.
    Told,
    /// The command did its work, and its answer is this exit code.
    Code(u8),
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
    match answer(std::env::args_os().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Failed(message)) => {
            output::error(&message);
            ExitCode::from(EXIT_FAILURE)
        }
        Err(CliError::Misused(message)) => {
            output::error(&message);
            ExitCode::from(EXIT_MISUSED)
        }
        Err(CliError::Told) => ExitCode::from(EXIT_FAILURE),
        Err(CliError::Code(code)) => ExitCode::from(code),
        Err(CliError::Interrupted) => ExitCode::from(EXIT_INTERRUPTED),
    }
}

fn answer(words: Vec<OsString>) -> Result<(), CliError> {
    let (run, args) = match parse::parse(&HOLT, words)? {
        Asked::Run(run, args) => (run, args),
        Asked::Tell(text) => return out!("{text}"),
        Asked::Incomplete(help, what) => {
            output::note(&help);
            output::note("");
            return Err(CliError::Misused(what));
        }
    };
    let flags = Flags { config: args.path("config"), data_dir: args.path("data-dir"), listen: None };
    run(&args, &Context { flags, env: Env::from_process() })
}
