//! `holt config ...`.

use std::io::{self, IsTerminal};

use super::command::{Action, Command};
use super::output::{self, out};
use super::passwd::{ask_once, first_line};
use super::{CliError, Context};
use crate::app::preflight;
use crate::config::{check, data_dir};

pub(super) const COMMAND: Command =
    Command::group("config", "Look at the configuration, seal secrets for it", &[CHECK, SEAL]);

const CHECK: Command = Command {
    name: "check",
    about: "Check the configuration without starting anything",
    details: "Check the configuration without starting anything.\n\
              Reads what `holt serve` would read (options, HOLT_* and DENKEEPER_* variables, the file), and says what \
              would be used, what is unknown, not supported or cannot work, and the first thing that is wrong. Ends with \
              0 if Holt would start, else with 1.",
    examples: &[
        "holt config check",
        "holt config check --config /etc/holt.toml",
        "HOLT_API_LISTEN=:9000 holt config check",
    ],
    args: &[],
    action: Action::Run(|_, context| checked(context)),
};

const SEAL: Command = Command {
    name: "seal",
    about: "Seal a secret, so that it can stand in the configuration",
    details: "Seal a secret, so that it can stand in the configuration.\n\
              Asks for the secret without showing what is typed, or reads the first line of a pipe. Prints `sealed:...`, \
              which is the value to write, for instance as llm.openai.api_key. Only the Holt of this data directory can \
              open it: the key is made from the file `secret` there. Changes nothing else. `env:NAME` and `file:/path` \
              are other ways to keep a secret out of the configuration.",
    examples: &["holt config seal", "pass show openai | holt config seal"],
    args: &[],
    action: Action::Run(|_, context| seal(context)),
};

fn checked(context: &Context) -> Result<(), CliError> {
    let parts = |config: &_| preflight(config, &context.env).map_err(|error| error.to_string());
    let report = check(&context.flags, &context.env, &parts);
    if report.ok {
        return report.lines.iter().try_for_each(|line| out!("{line}"));
    }
    report.lines.iter().for_each(|line| output::error(line));
    Err(CliError::Told)
}

fn seal(context: &Context) -> Result<(), CliError> {
    let stdin = io::stdin();
    let secret = if stdin.is_terminal() { ask_once("Secret: ")? } else { first_line(stdin.lock())? };
    let secret = secret.trim();
    if secret.is_empty() {
        return Err(CliError::failed("no secret given; type one or pipe one in"));
    }
    let data_dir = data_dir(&context.flags, &context.env).map_err(CliError::failed)?;
    std::fs::create_dir_all(&data_dir)
        .map_err(|error| CliError::Failed(format!("make {}: {error}", data_dir.display())))?;
    let key = crate::app::data_secret(&data_dir).map_err(CliError::failed)?;
    match crate::config::seal(&key, secret) {
        Some(sealed) => out!("{sealed}"),
        None => Err(CliError::failed("the system has no randomness to give; try again")),
    }
}
