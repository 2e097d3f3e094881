//! What `-h` and `--help` say.

use super::command::{Action, Arg, Command, Kind};

/// Wider lines are hard to read.
const WIDTH: usize = 100;
/// Blanks before what belongs to a heading.
const INDENT: usize = 2;

/// The words that lead to the last of these commands: `holt keys create`.
pub(super) fn title(path: &[&Command]) -> String {
    path.iter().map(|command| command.name).collect::<Vec<_>>().join(" ")
}

/// Help of the last of these commands, the root being the first; `long` with details and examples.
pub(super) fn text(path: &[&'static Command], long: bool) -> String {
    let (Some(root), Some(command)) = (path.first(), path.last()) else { return String::new() };
    let mut page = Page(String::new());
    page.paragraphs(if long && !command.details.is_empty() { command.details } else { command.about });
    page.heading("Usage: ");
    page.0.push_str(&usage(path));
    page.0.push('\n');
    let own = if path.len() > 1 { command.args } else { &[] };
    if let Action::Group(commands) = command.action {
        page.heading("Commands:\n");
        page.entries(commands.iter().map(|command| (command.name.to_owned(), command.about.to_owned())).collect());
    }
    let words: Vec<_> = own.iter().filter(|arg| arg.kind == Kind::Word).map(entry).collect();
    if !words.is_empty() {
        page.heading("Arguments:\n");
        page.entries(words);
    }
    let mut options: Vec<_> = own.iter().chain(root.args).filter(|arg| arg.kind != Kind::Word).map(entry).collect();
    let more = if long || command.examples.is_empty() {
        "Print help"
    } else {
        "Print help (--help: more of it, with examples)"
    };
    options.push(("-h, --help".to_owned(), more.to_owned()));
    if path.len() == 1 {
        options.push(("-V, --version".to_owned(), "Print version".to_owned()));
    }
    page.heading("Options:\n");
    page.entries(options);
    if long && !command.examples.is_empty() {
        page.heading("Examples:\n");
        command.examples.iter().for_each(|example| page.line(example));
    } else if path.len() == 1 {
        page.heading("Run `holt <command> --help` for examples.\n");
    }
    page.0.truncate(page.0.trim_end().len());
    page.0
}

fn usage(path: &[&Command]) -> String {
    let mut usage = format!("{} [OPTIONS]", title(path));
    let Some(command) = path.last() else { return usage };
    if matches!(command.action, Action::Group(_)) {
        usage.push_str(" <COMMAND>");
        return usage;
    }
    // Options first, since those that are needed are easily missed behind words.
    for kind in [Kind::Option, Kind::Word] {
        for arg in command.args.iter().filter(|arg| arg.kind == kind && (arg.required || kind == Kind::Word)) {
            usage.push(' ');
            usage.push_str(&shown(arg));
        }
    }
    usage
}

fn shown(arg: &Arg) -> String {
    let dots = if arg.many { "..." } else { "" };
    match (arg.kind, arg.required) {
        (Kind::Word, false) => format!("[{}]{dots}", arg.name.to_ascii_uppercase()),
        _ => format!("{}{dots}", arg.shown()),
    }
}

fn entry(arg: &Arg) -> (String, String) {
    let name = match (arg.kind, arg.short) {
        (Kind::Word, _) => shown(arg),
        (_, Some(letter)) => format!("-{letter}, {}", shown(arg)),
        (_, None) => format!("    {}", shown(arg)),
    };
    let mut about = arg.about.to_owned();
    if !arg.choices.is_empty() {
        about = format!("{about} [possible values: {}]", choices(arg));
    }
    if !arg.default.is_empty() {
        about = format!("{about} [default: {}]", arg.default);
    }
    (name, about)
}

/// The values that an argument can have, but the empty one.
pub(super) fn choices(arg: &Arg) -> String {
    let choices: Vec<&str> = arg.choices.iter().copied().filter(|choice| !choice.is_empty()).collect();
    choices.join(", ")
}

struct Page(String);

impl Page {
    fn heading(&mut self, text: &str) {
        self.0.push('\n');
        self.0.push_str(text);
    }

    fn line(&mut self, text: &str) {
        self.0.push_str(&" ".repeat(INDENT));
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn paragraphs(&mut self, text: &str) {
        for (at, paragraph) in text.lines().enumerate() {
            if at > 0 {
                self.0.push('\n');
            }
            self.wrapped(paragraph, 0);
        }
    }

    fn entries(&mut self, entries: Vec<(String, String)>) {
        let widest = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, about) in entries {
            self.0.push_str(&" ".repeat(INDENT));
            self.0.push_str(&name);
            self.0.push_str(&" ".repeat(widest - name.len() + INDENT));
            self.wrapped(&about, INDENT + widest + INDENT);
        }
    }

    /// Words in lines that begin at a column; the first one is begun already.
    fn wrapped(&mut self, text: &str, column: usize) {
        let mut at = column;
        for word in text.split_whitespace() {
            let length = word.chars().count();
            if at > column && at + 1 + length > WIDTH {
                self.0.push('\n');
                self.0.push_str(&" ".repeat(column));
                at = column;
            }
            if at > column {
                self.0.push(' ');
                at += 1;
            }
            self.0.push_str(word);
            at += length;
        }
        self.0.push('\n');
    }
}
