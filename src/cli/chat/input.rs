//! What the user types: lines from a thread of their own, put together to messages.
//!
//! Threads: `chat-input` (blocked in a read of stdin, so nobody waits for its end: it goes with the process) and
//! `chat-signals` (ends when its handle is closed).

use std::io::{self, BufRead, Read};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::SIGINT;
use signal_hook::iterator::{Handle, Signals};

use crate::cli::CliError;
use crate::limits;
use crate::rt::Threads;

/// Lines that wait (Block: the terminal holds back what we do not read).
const LINES_MAX: usize = 64;
/// Beyond it a line is split; no message may be that long anyway.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Nobody types two lines within this time: they were pasted, and belong together.
pub(super) const PASTE_PAUSE: Duration = Duration::from_millis(40);

/// Ctrl-C, as messages.
pub(super) struct Interrupts {
    pub(super) rx: Receiver<()>,
    handle: Handle,
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// Lines of stdin, without their ends; the channel closes with the input.
pub(super) fn lines(threads: &Threads) -> Result<Receiver<String>, CliError> {
    let (lines_tx, lines_rx) = bounded(LINES_MAX);
    let read = move || {
        let mut stdin = io::stdin().lock();
        let mut line = Vec::new();
        loop {
            line.clear();
            match stdin.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line);
                    if lines_tx.send(text.trim_end_matches(['\n', '\r']).to_owned()).is_err() {
                        return;
                    }
                }
            }
        }
    };
    threads.spawn("chat-input", limits::PUMP_STACK_BYTES, read).map_err(CliError::failed)?;
    Ok(lines_rx)
}

/// Takes Ctrl-C over from the system.
pub(super) fn interrupts(threads: &Threads) -> Result<Interrupts, CliError> {
    let mut signals = Signals::new([SIGINT]).map_err(CliError::failed)?;
    let handle = signals.handle();
    let (tx, rx) = bounded(2);
    let wait = move || {
        for _ in signals.forever() {
            // Two in waiting mean the same as three.
            let _ = tx.try_send(());
        }
    };
    threads.spawn("chat-signals", limits::PUMP_STACK_BYTES, wait).map_err(CliError::failed)?;
    Ok(Interrupts { rx, handle })
}

/// Puts lines together.
#[derive(Default)]
pub(super) struct Assembler {
    held: String,
    open: bool,
}

impl Assembler {
    /// Takes lines that came together; the message, unless the last one is to be continued.
    pub(super) fn take(&mut self, lines: &[String]) -> Option<String> {
        let mut first = !self.open;
        for line in lines {
            if !std::mem::take(&mut first) {
                self.held.push('\n');
            }
            // Two at the end are one that is meant.
            self.open = line.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1;
            self.held.push_str(if self.open { &line[..line.len() - 1] } else { line });
        }
        if self.open { None } else { Some(std::mem::take(&mut self.held)) }
    }

    /// Forgets what is half said.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_messages() {
        let check = |batches: &[&[&str]], expected: &[Option<&str>]| {
            let mut assembler = Assembler::default();
            let found: Vec<Option<String>> = batches
                .iter()
                .map(|lines| assembler.take(&lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>()))
                .collect();
            assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), expected, "{batches:?}");
        };
        check(&[&["one"], &["two"]], &[Some("one"), Some("two")]);
        check(&[&["pasted", "", "lines"]], &[Some("pasted\n\nlines")]);
        check(&[&["a\\"], &["b"]], &[None, Some("a\nb")]);
        check(&[&["a\\"], &["b\\"], &["c"], &["d"]], &[None, None, Some("a\nb\nc"), Some("d")]);
        check(&[&["a\\", "b"]], &[Some("a\nb")]);
        check(&[&["C:\\\\"]], &[Some("C:\\\\")]);
        check(&[&[""]], &[Some("")]);
        check(&[&["\\"], &[""]], &[None, Some("\n")]);
        check(&[&["a", "b\\"], &["c"]], &[None, Some("a\nb\nc")]);
    }
}
