//! What was given on the command line.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::command::{Arg, Command};
use super::{CliError, text};

/// More of a value tells nobody more.
const SHOWN_MAX: usize = 100;

/// The arguments of one command. A name that its definition does not have is a mistake of the caller's code: nothing is
/// found, and tests fail.
pub(super) struct Args {
    /// `holt keys create`.
    pub(super) title: String,
    pub(super) command: &'static Command,
    /// Arguments of every command.
    pub(super) global: &'static [Arg],
    pub(super) given: Vec<Given>,
}

/// One argument as it was given. The value of a flag is empty.
pub(super) struct Given {
    pub(super) arg: &'static Arg,
    pub(super) value: OsString,
    /// How many commands stood before it.
    pub(super) depth: usize,
}

impl Args {
    /// Whether the flag was given.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.last(name).is_some()
    }

    /// The value, or the default of the definition.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let default = self.arg(name).map_or("", |arg| arg.default);
        let given = self.last(name).and_then(|given| given.value.to_str());
        given.or((!default.is_empty()).then_some(default))
    }

    /// The value; empty when there is none, which a required argument always has.
    pub(super) fn text(&self, name: &str) -> &str {
        self.value(name).unwrap_or_default()
    }

    /// All values of an argument that may be given several times.
    pub(super) fn values(&self, name: &str) -> Vec<&str> {
        let given = self.given.iter().filter(|given| given.arg.name == name);
        given.filter_map(|given| given.value.to_str()).collect()
    }

    /// The value as a path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.last(name).map(|given| PathBuf::from(&given.value))
    }

    /// The value, read by `parse`, whose error says what to give instead.
    pub(super) fn parsed<T>(&self, name: &str, parse: fn(&str) -> Result<T, String>) -> Result<Option<T>, CliError> {
        match self.value(name) {
            None => Ok(None),
            Some(text) => parse(text).map(Some).map_err(|reason| self.wrong(name, &reason)),
        }
    }

    /// The value as a whole number.
    pub(super) fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, CliError> {
        let Some(text) = self.value(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(self.wrong(name, &format!("give a whole number from {} to {}", range.start(), range.end()))),
        }
    }

    /// A value that does not fit.
    pub(super) fn wrong(&self, name: &str, reason: &str) -> CliError {
        let shown = self.arg(name).map(Arg::shown).unwrap_or_default();
        CliError::Misused(format!(
            "{shown} cannot be {:?}: {reason}; see: {} --help",
            text::cut(self.text(name), SHOWN_MAX),
            self.title
        ))
    }

    fn last(&self, name: &str) -> Option<&Given> {
        debug_assert!(self.arg(name).is_some(), "{} has no argument {name}", self.title);
        self.given.iter().rev().find(|given| given.arg.name == name)
    }

    fn arg(&self, name: &str) -> Option<&'static Arg> {
        self.command.args.iter().chain(self.global).find(|arg| arg.name == name)
    }
}
