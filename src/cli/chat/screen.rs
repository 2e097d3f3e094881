//! Two outputs that may be one terminal: the answer goes to stdout, everything about it to stderr.

use std::io::{self, IsTerminal, Write};

use crate::cli::text;
use crate::config::Env;

/// Erases the line that the cursor is in.
const ERASE_LINE: &str = "\r\x1b[K";

/// How a piece of text looks where colours are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Dim,
    Bold,
    Red,
}

/// One of the two.
struct Output {
    to: Box<dyn Write + Send>,
    terminal: bool,
    styled: bool,
    /// The cursor stands behind text.
    mid_line: bool,
}

/// Both, and what stands in the line of the cursor.
pub(super) struct Screen {
    answer: Output,
    about: Output,
    /// A text that the next output erases, e.g. `thinking…`.
    fleeting: bool,
    /// Nobody reads the answer any more.
    gone: bool,
}

impl Screen {
    /// Stdout and stderr.
    pub(super) fn of_process(env: &Env) -> Self {
        // https://no-color.org; a dumb terminal knows no sequences at all.
        let plain = env.get("NO_COLOR").is_some() || env.get("TERM") == Some("dumb");
        let output = |to: Box<dyn Write + Send>, terminal: bool| Output {
            to,
            terminal,
            styled: terminal && !plain,
            mid_line: false,
        };
        Self {
            answer: output(Box::new(io::stdout()), io::stdout().is_terminal()),
            about: output(Box::new(io::stderr()), io::stderr().is_terminal()),
            fleeting: false,
            gone: false,
        }
    }

    #[cfg(test)]
    pub(super) fn of(answer: impl Write + Send + 'static, about: impl Write + Send + 'static, terminal: bool) -> Self {
        let output = |to: Box<dyn Write + Send>| Output { to, terminal, styled: false, mid_line: false };
        Self { answer: output(Box::new(answer)), about: output(Box::new(about)), fleeting: false, gone: false }
    }

    /// Whether the answer goes to a terminal.
    pub(super) fn shows_answers(&self) -> bool {
        self.answer.terminal
    }

    /// Whether what is said about it goes to a terminal.
    pub(super) fn shows_steps(&self) -> bool {
        self.about.terminal
    }

    /// Whether the reader of the answer has gone away (`holt chat ... | head -1`).
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// A piece of the answer.
    pub(super) fn answer(&mut self, piece: &str) {
        self.erase();
        if self.about.mid_line && self.about.terminal {
            self.about.put("\n");
        }
        let shown = if self.answer.terminal { text::plain(piece) } else { piece.to_owned() };
        self.gone |= !self.answer.put(&shown);
    }

    /// Ends the answer's line, if it is not ended.
    pub(super) fn end_answer(&mut self) {
        if self.answer.mid_line {
            self.answer("\n");
        }
    }

    /// A whole line about it.
    pub(super) fn line(&mut self, style: Style, line: &str) {
        self.piece(style, line);
        self.about.put("\n");
    }

    /// A piece of such a line.
    pub(super) fn piece(&mut self, style: Style, piece: &str) {
        self.erase();
        if self.answer.mid_line && self.answer.terminal {
            self.end_answer();
        }
        let shown = if self.about.terminal { text::plain(piece) } else { piece.to_owned() };
        self.about.put_styled(style, &shown);
    }

    /// Ends the line about it, if there is one.
    pub(super) fn end_line(&mut self) {
        self.erase();
        if self.about.mid_line {
            self.about.put("\n");
        }
    }

    /// Whether a piece stands in the line of the cursor, to be continued.
    pub(super) fn in_line(&self) -> bool {
        self.about.mid_line && !self.fleeting
    }

    /// Shows a text until something else comes; on terminals that can erase it alone.
    pub(super) fn fleeting(&mut self, note: &str) {
        if self.about.styled && !self.about.mid_line && !self.answer.mid_line {
            self.about.put_styled(Style::Dim, note);
            self.fleeting = true;
        }
    }

    /// The user has ended the line.
    pub(super) fn entered(&mut self) {
        self.about.mid_line = false;
        self.answer.mid_line = false;
    }

    fn erase(&mut self) {
        if std::mem::take(&mut self.fleeting) {
            self.about.put(ERASE_LINE);
            self.about.mid_line = false;
        }
    }
}

impl Output {
    fn put(&mut self, piece: &str) -> bool {
        if piece.is_empty() {
            return true;
        }
        self.mid_line = !piece.ends_with('\n');
        // A terminal that is gone ends the program by SIGHUP; a closed stderr wants to hear nothing.
        self.to.write_all(piece.as_bytes()).and_then(|()| self.to.flush()).is_ok()
    }

    fn put_styled(&mut self, style: Style, piece: &str) {
        let code = match style {
            Style::Plain => "",
            Style::Dim => "\x1b[2m",
            Style::Bold => "\x1b[1m",
            Style::Red => "\x1b[31m",
        };
        if self.styled && !code.is_empty() && !piece.is_empty() {
            self.put(&format!("{code}{piece}\x1b[0m"));
        } else {
            self.put(piece);
        }
    }
}
