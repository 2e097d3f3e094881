//! The only place that prints.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

use super::CliError;

/// Writes a line to stdout. A reader that has gone away (`holt ... | head -1`) is no failure.
pub(super) fn line(text: Arguments<'_>) -> Result<(), CliError> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::Failed(format!("write output: {error}"))),
        _ => Ok(()),
    }
}

/// Writes a prompt to stderr, without a line end.
pub(super) fn prompt(text: &str) {
    let mut stderr = io::stderr().lock();
    // Whoever closed stderr does not want to be asked.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
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
