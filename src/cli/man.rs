//! `holt man`: the manual page, made from the same tree as the help.

use std::fmt::Write;

use super::command::{Action, Arg, Command, Kind};
use super::output::out;
use super::{HOLT, help};

pub(super) const COMMAND: Command = Command {
    name: "man",
    about: "Print the manual page",
    details: "",
    examples: &["holt man | man -l -", "holt man > /usr/local/share/man/man1/holt.1"],
    args: &[],
    action: Action::Run(|_, _| out!("{}", page().trim_end())),
};

/// The whole manual in the language of man(7).
fn page() -> String {
    let mut page = format!(".TH HOLT 1 \"\" \"holt {}\"\n.SH NAME\nholt \\- ", env!("CARGO_PKG_VERSION"));
    line(&mut page, HOLT.about);
    page.push_str(".SH SYNOPSIS\n.B holt\n[OPTIONS] COMMAND [ARGUMENTS]\n.SH OPTIONS\n");
    HOLT.args.iter().for_each(|arg| argument(&mut page, arg));
    page.push_str(".SH COMMANDS\n");
    if let Action::Group(commands) = HOLT.action {
        for command in commands {
            entry(&mut page, "holt", command);
        }
    }
    page.push_str(
        ".SH EXIT STATUS\n0 done, 1 failed, 2 the command line was not understood, 130 interrupted.\n\
         .B holt check\nand\n.B holt doctor\nhave their own.\n\
         .SH FILES\n.TP\n.I holt.toml\nConfiguration, in the data directory. All of it is optional.\n\
         .TP\n.I holt.db, events.db\nEverything that is stored.\n.TP\n.I secret, hub-key\nWhat seals secrets; what machines know the hub by.\n",
    );
    page
}

fn entry(page: &mut String, above: &str, command: &Command) {
    let title = format!("{above} {}", command.name);
    if let Action::Group(commands) = command.action {
        return commands.iter().for_each(|command| entry(page, &title, command));
    }
    page.push_str(".SS ");
    line(page, &title);
    for (at, paragraph) in
        (if command.details.is_empty() { command.about } else { command.details }).lines().enumerate()
    {
        if at > 0 {
            page.push_str(".PP\n");
        }
        line(page, paragraph);
    }
    command.args.iter().for_each(|arg| argument(page, arg));
    if !command.examples.is_empty() {
        page.push_str(".PP\n.nf\n");
        command.examples.iter().for_each(|example| line(page, example));
        page.push_str(".fi\n");
    }
}

fn argument(page: &mut String, arg: &Arg) {
    page.push_str(".TP\n.B ");
    let short = arg.short.filter(|_| arg.kind != Kind::Word).map(|letter| format!("-{letter}, ")).unwrap_or_default();
    line(page, &format!("{short}{}", arg.shown()));
    let mut about = arg.about.to_owned();
    if !arg.choices.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(about, " ({})", help::choices(arg));
    }
    if !arg.default.is_empty() {
        let _ = write!(about, " [default: {}]", arg.default);
    }
    line(page, &about);
}

/// A line of text, as itself: marks of the language escaped.
fn line(page: &mut String, text: &str) {
    if text.starts_with(['.', '\'']) {
        page.push_str("\\&");
    }
    for c in text.chars() {
        match c {
            '\\' => page.push_str("\\e"),
            '-' => page.push_str("\\-"),
            '`' => page.push_str("\\(ga"),
            '\'' => page.push_str("\\(aq"),
            c => page.push(c),
        }
    }
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_escaped_and_every_command_is_there() {
        let mut text = String::new();
        line(&mut text, ".x -y \\z 'q'");
        assert_eq!(text, "\\&.x \\-y \\ez \\(aqq\\(aq\n");
        let page = page();
        for part in [".SS holt keys create\n", ".SS holt serve\n", "\\-\\-data\\-dir", "\\-c, "] {
            assert!(page.contains(part), "{part}");
        }
    }
}
