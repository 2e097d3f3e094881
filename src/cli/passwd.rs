//! `holt passwd`.

use std::io::{self, BufRead, ErrorKind, IsTerminal};

use super::CliError;
use super::command::{Action, Command};
use super::output::{self, out};

/// What the reference uses, so that hashes fit both ways.
const BCRYPT_COST: u32 = 13;
const PASSWORD_BYTES_MIN: usize = 8;
/// bcrypt silently ignores the rest.
const PASSWORD_BYTES_MAX: usize = 72;
/// More than any password; keeps an endless pipe from filling our memory.
const LINE_BYTES_MAX: u64 = 4096;

pub(super) const COMMAND: Command = Command {
    name: "passwd",
    about: "Make the hash of a dashboard password",
    details: "Make the hash of a dashboard password, for api.auth.password_hash in the configuration.\n\
              Asks twice without showing what is typed, or reads the first line of a pipe. Prints the hash and nothing \
              else; the configuration is not changed. A password has 8 to 72 bytes.",
    examples: &["holt passwd", "pass show holt | holt passwd"],
    args: &[],
    action: Action::Run(|_, _| hashed()),
};

fn hashed() -> Result<(), CliError> {
    let stdin = io::stdin();
    let password = if stdin.is_terminal() { ask()? } else { first_line(stdin.lock())? };
    check(&password)?;
    let hash = bcrypt::hash(&password, BCRYPT_COST).map_err(|error| CliError::Failed(format!("hash: {error}")))?;
    out!("{hash}")
}

fn ask() -> Result<String, CliError> {
    let first = ask_once("Password: ")?;
    check(&first)?;
    if ask_once("Again: ")? == first {
        return Ok(first);
    }
    Err(CliError::failed("the two passwords differ; try again"))
}

pub(super) fn ask_once(prompt: &str) -> Result<String, CliError> {
    output::prompt(prompt);
    rpassword::read_password().map_err(|error| match error.kind() {
        ErrorKind::Interrupted => CliError::Interrupted,
        _ => CliError::Failed(format!("read what was typed: {error}; a pipe works as well")),
    })
}

pub(super) fn first_line(input: impl BufRead) -> Result<String, CliError> {
    let mut line = String::new();
    let read = input.take(LINE_BYTES_MAX).read_line(&mut line);
    read.map_err(|error| CliError::Failed(format!("read stdin: {error}")))?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

fn check(password: &str) -> Result<(), CliError> {
    match password.len() {
        0 => Err(CliError::failed("no password given; type one or pipe one in")),
        1..PASSWORD_BYTES_MIN => {
            Err(CliError::Failed(format!("a password has at least {PASSWORD_BYTES_MIN} bytes; choose a longer one")))
        }
        PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX => Ok(()),
        _ => Err(CliError::Failed(format!("a password has at most {PASSWORD_BYTES_MAX} bytes; choose a shorter one"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_of_a_pipe_counts() {
        let check = |input: &str, expected: &str| assert_eq!(first_line(input.as_bytes()).unwrap(), expected);
        check("long enough\nsecond\n", "long enough");
        check("windows\r\n", "windows");
        check(" blanks stay \n", " blanks stay ");
        check("no end", "no end");
        check("", "");
        assert!(first_line(&b"\xff\xfe\n"[..]).is_err());
        let endless = "x".repeat(100_000);
        assert_eq!(first_line(endless.as_bytes()).unwrap().len(), 4096);
    }

    #[test]
    fn passwords_have_8_to_72_bytes() {
        for (len, good) in [(0, false), (1, false), (7, false), (8, true), (72, true), (73, false)] {
            assert_eq!(check(&"x".repeat(len)).is_ok(), good, "{len}");
        }
        assert!(check(&"ü".repeat(37)).is_err(), "bytes count, not letters");
    }
}
