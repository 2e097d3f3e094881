//! From words to a command and its arguments.

use std::ffi::{OsStr, OsString};

use lexopt::Arg::{Long, Short, Value};
use lexopt::Parser;

use super::args::{Args, Given};
use super::command::{Action, Arg, Command, Kind, Run};
use super::{CliError, help, text};
use crate::rt::text::nearest;

/// What the words ask for.
pub(super) enum Asked {
    /// To run a command.
    Run(Run, Args),
    /// To be told something: help, the version.
    Tell(String),
    /// A group without a command: its help, and what is missing.
    Incomplete(String, String),
}

/// Reads the words behind the program's name. Options of the root may stand anywhere.
pub(super) fn parse(root: &'static Command, words: Vec<OsString>) -> Result<Asked, CliError> {
    let mut parser = Parser::from_args(words);
    let mut line = Line { root, path: vec![root], given: Vec::new() };
    loop {
        let next = parser.next().map_err(|error| line.misused(&error.to_string()))?;
        let arg = match next {
            None => break,
            Some(Short('h')) => return Ok(Asked::Tell(help::text(&line.path, false))),
            Some(Long("help")) => return Ok(Asked::Tell(help::text(&line.path, true))),
            Some(Short('V') | Long("version")) if line.path.len() == 1 => {
                return Ok(Asked::Tell(format!("{} {}", root.name, env!("CARGO_PKG_VERSION"))));
            }
            Some(Short(letter)) => {
                let found = line.options().find(|arg| arg.short == Some(letter));
                found.ok_or_else(|| line.misused(&format!("unknown option -{letter}")))?
            }
            Some(Long(name)) => match line.options().find(|arg| arg.name == name) {
                Some(arg) => arg,
                None => return Err(line.unknown("option", "--", name, line.options().map(|arg| arg.name).collect())),
            },
            Some(Value(word)) => {
                line.word(word)?;
                continue;
            }
        };
        let value = match arg.kind {
            Kind::Flag => OsString::new(),
            _ => value(&mut parser).ok_or_else(|| line.misused(&format!("{} needs a value", arg.shown())))?,
        };
        line.add(arg, value)?;
    }
    line.finish()
}

/// A value behind `=`, or the next word unless it looks like an option.
fn value(parser: &mut Parser) -> Option<OsString> {
    let is_option = |word: &OsStr| word.len() > 1 && word.as_encoded_bytes().starts_with(b"-");
    let attached = parser.optional_value();
    attached.or_else(|| parser.try_raw_args()?.next_if(|word| !is_option(word)))
}

/// What was understood so far.
struct Line {
    root: &'static Command,
    /// From the root to the current command.
    path: Vec<&'static Command>,
    given: Vec<Given>,
}

impl Line {
    fn command(&self) -> &'static Command {
        self.path.last().copied().unwrap_or(self.root)
    }

    /// What may be given here.
    fn options(&self) -> impl Iterator<Item = &'static Arg> + use<> {
        let own = if self.path.len() > 1 { self.command().args } else { &[] };
        own.iter().chain(self.root.args).filter(|arg| arg.kind != Kind::Word)
    }

    /// A command, or a word of the command.
    fn word(&mut self, word: OsString) -> Result<(), CliError> {
        let command = self.command();
        if let Action::Group(commands) = command.action {
            let found = commands.iter().find(|command| word == command.name);
            let found = found.ok_or_else(|| {
                let names = commands.iter().map(|command| command.name).collect();
                self.unknown("command", "", &word.to_string_lossy(), names)
            })?;
            self.path.push(found);
            return Ok(());
        }
        let taken = |arg: &Arg| !arg.many && self.given.iter().any(|given| given.arg.name == arg.name);
        match command.args.iter().find(|arg| arg.kind == Kind::Word && !taken(arg)) {
            Some(arg) => self.add(arg, word),
            None => Err(self.misused(&format!("{:?} is one word too many", word.to_string_lossy()))),
        }
    }

    fn add(&mut self, arg: &'static Arg, value: OsString) -> Result<(), CliError> {
        let shown = arg.shown();
        match value.to_str() {
            None if !arg.path => return Err(self.misused(&format!("{shown} is not UTF-8"))),
            Some(text) if arg.kind != Kind::Flag && !arg.choices.is_empty() && !arg.choices.contains(&text) => {
                return Err(self.misused(&format!("{shown} cannot be {text:?}, only: {}", help::choices(arg))));
            }
            _ => {}
        }
        let depth = self.path.len();
        // `holt -c a keys list -c b`: the second one is nearer to the command.
        if !arg.many && self.given.iter().any(|given| given.arg.name == arg.name && given.depth == depth) {
            return Err(self.misused(&format!("{shown} was given twice")));
        }
        self.given.push(Given { arg, value, depth });
        Ok(())
    }

    fn finish(self) -> Result<Asked, CliError> {
        let command = self.command();
        let Action::Run(run) = command.action else {
            let title = help::title(&self.path);
            return Ok(Asked::Incomplete(help::text(&self.path, false), format!("{title} needs a command, see above")));
        };
        let given = |arg: &Arg| self.given.iter().any(|given| given.arg.name == arg.name);
        if let Some(arg) = command.args.iter().find(|arg| arg.required && !given(arg)) {
            return Err(self.misused(&format!("{} is missing", arg.shown())));
        }
        let title = help::title(&self.path);
        Ok(Asked::Run(run, Args { title, command, global: self.root.args, given: self.given }))
    }

    fn unknown(&self, what: &str, marks: &str, name: &str, known: Vec<&'static str>) -> CliError {
        let meant = nearest(name, &known).map_or_else(String::new, |meant| format!(", did you mean {marks}{meant}?"));
        self.misused(&format!("unknown {what} {marks}{name}{meant}"))
    }

    fn misused(&self, what: &str) -> CliError {
        CliError::Misused(format!("{}; see: {} --help", text::one_line(what), help::title(&self.path)))
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
