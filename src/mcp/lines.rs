//! Lines out of a stream of bytes, bounded. Does no I/O.

/// What stands between two line ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A line without its end (LF or CRLF).
    Whole(&'a [u8]),
    /// A line has just grown beyond the bound; what follows of it is dropped.
    Overflow,
    /// The end of such a line: its first and last bytes.
    TooLong { head: &'a [u8], tail: &'a [u8] },
}

/// What is kept of either end of a line that is too long.
const ENDS_BYTES: usize = 128;
/// Memory that an ordinary line may leave behind for the next one.
const KEPT_BYTES: usize = 64 * 1024;

/// Takes bytes, gives lines. Holds at most one line of `bytes_max`.
pub(super) struct Lines {
    bytes_max: usize,
    partial: Vec<u8>,
    /// Bytes dropped of the line of the moment; None while it fits.
    dropped: Option<u64>,
    tail: Vec<u8>,
}

impl Lines {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, partial: Vec::new(), dropped: None, tail: Vec::new() }
    }

    /// How much of an overlong line was dropped so far.
    pub(super) fn dropped_bytes(&self) -> u64 {
        self.dropped.unwrap_or(0)
    }

    /// Adds bytes and hands out the lines that they complete.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(Line<'_>)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (piece, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.partial.is_empty() && self.dropped.is_none() && piece.len() <= self.bytes_max {
                take(Line::Whole(trimmed(piece)));
                continue;
            }
            self.add(piece, &mut take);
            if self.dropped.take().is_some() {
                take(Line::TooLong { head: &self.partial, tail: &self.tail });
                self.tail = Vec::new();
            } else {
                take(Line::Whole(trimmed(&self.partial)));
            }
            self.partial.clear();
            self.partial.shrink_to(KEPT_BYTES);
        }
        self.add(bytes, &mut take);
    }

    fn add(&mut self, piece: &[u8], take: &mut impl FnMut(Line<'_>)) {
        if self.dropped.is_none() {
            if self.partial.len() + piece.len() <= self.bytes_max {
                self.partial.extend_from_slice(piece);
                return;
            }
            self.partial.truncate(ENDS_BYTES);
            self.partial.shrink_to_fit();
            self.dropped = Some(0);
            take(Line::Overflow);
        }
        self.dropped = self.dropped.map(|bytes| bytes + piece.len() as u64);
        self.tail.extend_from_slice(&piece[piece.len().saturating_sub(ENDS_BYTES)..]);
        let surplus = self.tail.len().saturating_sub(ENDS_BYTES);
        self.tail.drain(..surplus);
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(input: &[u8], size: usize, bytes_max: usize) -> Vec<String> {
        let mut lines = Lines::new(bytes_max);
        let mut found = Vec::new();
        for piece in input.chunks(size) {
            lines.push(piece, |line| {
                found.push(match line {
                    Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
                    Line::Overflow => "!".to_owned(),
                    Line::TooLong { head, tail } => format!("{}..{}", head.len(), String::from_utf8_lossy(tail)),
                });
            });
        }
        found
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        for size in 1..20 {
            assert_eq!(parse(b"a\r\n\nbc\nrest", size, 8), ["a", "", "bc"], "{size}");
            let found = parse(b"0123456789\nok\n", size, 4);
            assert_eq!(found[0], "!", "{size}");
            assert_eq!(found.len(), 3, "{size}");
            assert!(found[1].ends_with('9'), "{size}");
            assert_eq!(found[2], "ok", "{size}");
        }
    }

    #[test]
    fn a_line_of_100_mib_is_never_held() {
        let mut lines = Lines::new(1024 * 1024);
        let chunk = vec![b'x'; 64 * 1024];
        let mut overflows = 0;
        for _ in 0..1600 {
            lines.push(&chunk, |line| overflows += usize::from(line == Line::Overflow));
            assert!(lines.partial.capacity() <= 2 * 1024 * 1024 && lines.tail.capacity() < 1024);
        }
        assert_eq!(overflows, 1);
        assert!(lines.dropped_bytes() > 98 * 1024 * 1024);
        let mut ends = Vec::new();
        lines.push(b"\"id\":7}\nnext\n", |line| {
            ends.push(match line {
                Line::TooLong { tail, .. } => tail.ends_with(b"\"id\":7}"),
                Line::Whole(line) => line == b"next",
                Line::Overflow => false,
            });
        });
        assert_eq!(ends, [true, true]);
    }
}
