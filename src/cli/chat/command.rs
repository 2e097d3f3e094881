//! What a line of the user means.

/// A line, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Message(String),
    Cancel,
    New,
    Sessions,
    Open(String),
    /// None asks which one it is.
    Agent(Option<String>),
    Help,
    Quit,
    /// A command that does not exist, or lacks something: what to say.
    Wrong(String),
    Empty,
}

/// What `/help` says.
pub(super) const HELP: &str = "\
/cancel        end the answer that is being written (also Ctrl-C)
/new           begin a new conversation
/sessions      list the newest conversations
/open <id>     go on with another conversation
/agent <name>  talk to another agent, in a new conversation
/quit          leave (also Ctrl-D); a running answer goes on and is kept
A backslash at the end of a line continues the message on the next one.";

/// Reads a line. Only a single line is a command: a pasted text that begins with a slash is a message.
pub(super) fn parse(text: &str) -> Line {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Line::Empty;
    }
    let Some(command) = trimmed.strip_prefix('/').filter(|_| !trimmed.contains('\n')) else {
        return Line::Message(text.trim_end().to_owned());
    };
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    match (name, rest.is_empty()) {
        ("cancel", true) => Line::Cancel,
        ("new", true) => Line::New,
        ("sessions", true) => Line::Sessions,
        ("open", false) => Line::Open(rest.to_owned()),
        ("open", true) => Line::Wrong("which one? /open <id>; see /sessions".to_owned()),
        ("agent", empty) => Line::Agent((!empty).then(|| rest.to_owned())),
        ("help" | "?", _) => Line::Help,
        ("quit" | "exit" | "q", true) => Line::Quit,
        // A path or the like is no command.
        (name, _) if name.contains('/') || !name.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            Line::Message(text.trim_end().to_owned())
        }
        (name, _) => Line::Wrong(format!("no command /{name} like this; see /help")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_or_commands() {
        let check = |text: &str, expected: Line| assert_eq!(parse(text), expected, "{text:?}");
        let message = |text: &str| Line::Message(text.to_owned());
        check("hello", message("hello"));
        check("  indented \n", message("  indented"));
        check("two\nlines", message("two\nlines"));
        check("/new\nis no command here", message("/new\nis no command here"));
        check("/etc/fstab is odd", message("/etc/fstab is odd"));
        check("//", message("//"));
        check("", Line::Empty);
        check(" \n", Line::Empty);
        check("/cancel", Line::Cancel);
        check(" /new ", Line::New);
        check("/sessions", Line::Sessions);
        check("/open abc", Line::Open("abc".to_owned()));
        check("/open", Line::Wrong("which one? /open <id>; see /sessions".to_owned()));
        check("/agent", Line::Agent(None));
        check("/agent ops", Line::Agent(Some("ops".to_owned())));
        check("/help me", Line::Help);
        check("/quit", Line::Quit);
        check("/quiet", Line::Wrong("no command /quiet like this; see /help".to_owned()));
    }
}
