//! The only place that prints.

use std::fmt::Arguments;
use std::io::{self, BufRead, ErrorKind, Write};

use super::{CliError, text};

/// More than any answer; keeps an endless pipe from filling our memory.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Writes a line to stdout. A reader that has gone away (`holt ... | head -1`) is no failure.
pub(super) fn line(text: Arguments<'_>) -> Result<(), CliError> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::Failed(format!("write output: {error}"))),
        _ => Ok(()),
    }
}

/// Stdout, for results that are no text.
pub(super) fn bytes() -> impl Write {
    io::stdout().lock()
}

/// Writes a prompt to stderr, without a line end.
pub(super) fn prompt(text: &str) {
    let mut stderr = io::stderr().lock();
    // Whoever closed stderr does not want to be asked.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Asks on stdout for y or n; None at the end of input.
pub(super) fn confirm(question: &str) -> Result<Option<bool>, CliError> {
    let mut stdout = io::stdout().lock();
    let asked = write!(stdout, "{} [y/N] ", text::one_line(question)).and_then(|()| stdout.flush());
    asked.map_err(|error| CliError::Failed(format!("ask: {error}")))?;
    drop(stdout);
    answer(io::stdin().lock())
}

fn answer(input: impl BufRead) -> Result<Option<bool>, CliError> {
    let mut line = Vec::new();
    let read = input.take(ANSWER_BYTES_MAX).read_until(b'\n', &mut line);
    match read.map_err(|error| CliError::Failed(format!("read the answer: {error}")))? {
        0 => Ok(None),
        _ => Ok(Some(matches!(line.trim_ascii().to_ascii_lowercase().as_slice(), b"y" | b"yes"))),
    }
}

/// Writes a line to stderr.
pub(super) fn note(text: &str) {
    // There is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes `error: ...` to stderr.
pub(super) fn error(message: &str) {
    // There is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "error: {message}");
}

/// `println!` for results: see [`line`].
macro_rules! out {
    ($($text:tt)*) => { $crate::cli::output::line(format_args!($($text)*)) };
}

pub(super) use out;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_means_yes() {
        let check =
            |input: &str, expected: Option<bool>| assert_eq!(answer(input.as_bytes()).unwrap(), expected, "{input:?}");
        check("y\n", Some(true));
        check(" YES \r\n", Some(true));
        check("yes", Some(true));
        check("n\n", Some(false));
        check("\n", Some(false));
        check("yesterday\n", Some(false));
        check("", None);
    }
}
