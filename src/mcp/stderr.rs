//! What a child writes on standard error, bounded, secrets masked: its last words for the next error, and a longer log
//! for people.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::mask::{Mask, cut};
use crate::limits;
use crate::rt::{clock, lock};

/// The newest lines that a server wrote on standard error, across its restarts. Cheap to clone; the clones are one.
#[derive(Clone, Default)]
pub struct ErrorLog {
    /// Guarded by the mutex: the lines, the newest last, and their bytes. Nothing is taken under it.
    kept: Arc<Mutex<(VecDeque<ErrorLine>, usize)>>,
}

/// A line of an [`ErrorLog`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorLine {
    /// When it came; milliseconds since 1970.
    pub at: i64,
    /// Without secrets; at most [`limits::MCP_STDERR_LINE_BYTES_MAX`] and a mark that it is cut.
    pub text: String,
}

impl ErrorLog {
    /// At most [`limits::MCP_LOG_LINES_KEPT`] and [`limits::MCP_LOG_BYTES_KEPT`], the newest last.
    pub fn lines(&self) -> Vec<ErrorLine> {
        lock(&self.kept).0.iter().cloned().collect()
    }

    fn push(&self, text: &str) {
        let mut kept = lock(&self.kept);
        let (lines, bytes) = &mut *kept;
        *bytes += text.len();
        lines.push_back(ErrorLine { at: clock::unix_ms(), text: text.to_owned() });
        while (lines.len() > limits::MCP_LOG_LINES_KEPT || *bytes > limits::MCP_LOG_BYTES_KEPT)
            && let Some(oldest) = lines.pop_front()
        {
            *bytes -= oldest.text.len();
        }
    }
}

/// Takes bytes as they come.
#[derive(Default)]
pub(super) struct LastWords {
    lines: VecDeque<String>,
    partial: Vec<u8>,
    /// The line of the moment is too long; the rest of it is dropped.
    is_cut: bool,
    log: ErrorLog,
}

impl LastWords {
    /// Whole lines also go into this log.
    pub(super) fn noted_in(log: ErrorLog) -> Self {
        Self { log, ..Self::default() }
    }

    pub(super) fn push(&mut self, bytes: &[u8], mask: &Mask) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = limits::MCP_STDERR_LINE_BYTES_MAX.saturating_sub(self.partial.len());
            self.is_cut |= piece.len() > room;
            self.partial.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.end_line(mask);
            }
        }
    }

    fn end_line(&mut self, mask: &Mask) {
        let mut line = mask.apply(String::from_utf8_lossy(&self.partial).trim_end());
        if self.is_cut {
            // The first part of a secret may stand right before the cut, where it was not recognised.
            line.truncate(cut(&line, line.len().saturating_sub(mask.longest())).len());
            line.push_str("...");
        }
        self.partial.clear();
        self.is_cut = false;
        if line.is_empty() {
            return;
        }
        if self.lines.len() >= limits::MCP_STDERR_LINES_MAX {
            self.lines.pop_front();
        }
        self.log.push(&line);
        self.lines.push_back(line);
    }

    /// What was written last, on one line; at most [`limits::MCP_ERROR_BYTES_MAX`].
    pub(super) fn text(&mut self, mask: &Mask) -> String {
        self.end_line(mask);
        let mut text = String::new();
        for line in self.lines.iter().rev() {
            if text.len() + line.len() + 3 > limits::MCP_ERROR_BYTES_MAX {
                break;
            }
            let rest = if text.is_empty() { String::new() } else { format!(" | {text}") };
            text = format!("{line}{rest}");
        }
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_without_secrets_and_without_growing() {
        let mask = Mask::new(["hunter2-secret"]);
        let mut words = LastWords::default();
        for number in 0..1000 {
            words.push(format!("line {number} hunter2-secret\n").as_bytes(), &mask);
        }
        words.push(b"no line end", &mask);
        let text = words.text(&mask);
        assert!(text.ends_with("line 999 *** | no line end"), "{text}");
        assert!(!text.contains("hunter2") && text.len() <= limits::MCP_ERROR_BYTES_MAX);
        assert!(words.lines.len() <= limits::MCP_STDERR_LINES_MAX);
    }

    #[test]
    fn the_log_goes_on_with_the_next_child_and_stays_bounded() {
        let (mask, log) = (Mask::new(["hunter2-secret"]), ErrorLog::default());
        for start in [0, 200] {
            let mut words = LastWords::noted_in(log.clone());
            for number in start..start + 150 {
                words.push(format!("{number} hunter2-secret\n").as_bytes(), &mask);
            }
        }
        let lines = log.lines();
        assert_eq!(lines.len(), limits::MCP_LOG_LINES_KEPT);
        assert_eq!((lines[0].text.as_str(), lines[199].text.as_str()), ("100 ***", "349 ***"));
        let mut words = LastWords::noted_in(log.clone());
        for _ in 0..100 {
            words.push(format!("{}\n", "x".repeat(5000)).as_bytes(), &mask);
        }
        let bytes: usize = log.lines().iter().map(|line| line.text.len()).sum();
        assert!(bytes <= limits::MCP_LOG_BYTES_KEPT && bytes > limits::MCP_LOG_BYTES_KEPT / 2, "{bytes}");
    }

    #[test]
    fn a_cut_does_not_leave_half_a_secret() {
        let mask = Mask::new(["hunter2-secret"]);
        let mut words = LastWords::default();
        let before = limits::MCP_STDERR_LINE_BYTES_MAX - 7;
        words.push("x".repeat(before).as_bytes(), &mask);
        words.push(b"hunter2-secret and more", &mask);
        words.push(&vec![b'y'; 1024 * 1024], &mask);
        assert!(words.partial.len() <= limits::MCP_STDERR_LINE_BYTES_MAX);
        words.push(b"\n", &mask);
        assert!(!words.lines[0].contains("hunt"), "{}", words.lines[0]);
    }
}
