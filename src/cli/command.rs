//! What a command is: its words, its arguments, what it does. The tree of all of them ([`super::HOLT`]) is the one
//! definition that parsing, help and messages are made from.

use super::args::Args;
use super::{CliError, Context};

/// What a command does. Values are read from the arguments before anything is changed.
pub(super) type Run = fn(&Args, &Context) -> Result<(), CliError>;

/// A command, or a group of commands.
pub(super) struct Command {
    /// Lower case, words joined by `-`.
    pub(super) name: &'static str,
    /// One line for lists, without a full stop.
    pub(super) about: &'static str,
    /// What `--help` says instead of `about`: paragraphs, a line each. Empty: nothing more.
    pub(super) details: &'static str,
    /// Whole command lines.
    pub(super) examples: &'static [&'static str],
    /// Its own options and words; those of every command are at the root of the tree.
    pub(super) args: &'static [Arg],
    pub(super) action: Action,
}

/// What comes of a command.
pub(super) enum Action {
    Run(Run),
    /// A word more is needed to know.
    Group(&'static [Command]),
}

impl Command {
    /// A command that only holds others.
    pub(super) const fn group(name: &'static str, about: &'static str, commands: &'static [Command]) -> Self {
        Self { name, about, details: "", examples: &[], args: &[], action: Action::Group(commands) }
    }
}

/// An option or a word of a command.
pub(super) struct Arg {
    /// Of an option without `--`; of a word its name in help, lower case.
    pub(super) name: &'static str,
    pub(super) short: Option<char>,
    pub(super) kind: Kind,
    /// How help calls the value of an option.
    pub(super) value: &'static str,
    pub(super) about: &'static str,
    /// What holds when nothing is given. Empty: nothing.
    pub(super) default: &'static str,
    /// The only values. Empty: any.
    pub(super) choices: &'static [&'static str],
    pub(super) required: bool,
    /// May be given several times.
    pub(super) many: bool,
    /// A path: need not be UTF-8.
    pub(super) path: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `--name`.
    Flag,
    /// `--name VALUE`.
    Option,
    /// A word, by its place.
    Word,
}

impl Arg {
    const fn new(name: &'static str, kind: Kind, value: &'static str, about: &'static str) -> Self {
        Self {
            name,
            short: None,
            kind,
            value,
            about,
            default: "",
            choices: &[],
            required: matches!(kind, Kind::Word),
            many: false,
            path: false,
        }
    }

    /// `--name`: there or not.
    pub(super) const fn flag(name: &'static str, about: &'static str) -> Self {
        Self::new(name, Kind::Flag, "", about)
    }

    /// `--name VALUE`; `value` is the name of the value in help.
    pub(super) const fn option(name: &'static str, value: &'static str, about: &'static str) -> Self {
        Self::new(name, Kind::Option, value, about)
    }

    /// A word that must be given, in the order of the definition.
    pub(super) const fn word(name: &'static str, about: &'static str) -> Self {
        Self::new(name, Kind::Word, "", about)
    }

    /// Also `-x`.
    pub(super) const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    /// The value that holds when none is given.
    pub(super) const fn default(mut self, value: &'static str) -> Self {
        self.default = value;
        self
    }

    /// The only values.
    pub(super) const fn choices(mut self, choices: &'static [&'static str]) -> Self {
        self.choices = choices;
        self
    }

    /// An option that must be given.
    pub(super) const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// A word that may be left out.
    pub(super) const fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    /// May be given several times.
    pub(super) const fn many(mut self) -> Self {
        self.many = true;
        self
    }

    /// A path.
    pub(super) const fn path(mut self) -> Self {
        self.path = true;
        self
    }

    /// As it is written: `--days <N>`, `<ID>`, `--json`.
    pub(super) fn shown(&self) -> String {
        match self.kind {
            Kind::Flag => format!("--{}", self.name),
            Kind::Option => format!("--{} <{}>", self.name, self.value),
            Kind::Word => format!("<{}>", self.name.to_ascii_uppercase()),
        }
    }
}
