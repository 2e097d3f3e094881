//! Server-sent events, as bytes arrive (WHATWG HTML 9.2.6, contract engine 9.2). Does no I/O.
//!
//! Lines end with LF, CRLF or CR; a line and the data of one event are bounded by [`EVENT_BYTES_MAX`].

/// Longest line, and longest data of one event. Models send whole tool arguments in one line, so 64 KiB (which the
/// reference allows) is too little; without a bound a hostile server fills our memory.
pub(crate) const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// One event: its name (empty for the default) and its data lines joined by LF.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    pub(crate) name: &'a str,
    pub(crate) data: &'a str,
}

/// A line or an event larger than [`EVENT_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Takes bytes, gives events.
#[derive(Default)]
pub(crate) struct Parser {
    bytes: Vec<u8>,
    /// Where the next line begins in `bytes`.
    start: usize,
    /// No line end lies between `start` and here.
    scanned: usize,
    /// The last line ended with CR at the end of what we had: an LF that follows belongs to it.
    skip_lf: bool,
    name: String,
    data: String,
    has_data: bool,
    /// The event in `name` and `data` was given out.
    given: bool,
    n_lines: usize,
    n_fields: usize,
}

impl Parser {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds bytes as they came; call [`Parser::next_event`] until it has no more.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
        } else {
            self.bytes.drain(..self.start);
        }
        self.scanned -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole event, if the bytes so far hold one.
    pub(crate) fn next_event(&mut self) -> Result<Option<Event<'_>>, TooLong> {
        self.forget_given();
        while let Some((from, to)) = self.next_line() {
            if self.take_line(from, to)? {
                return Ok(Some(self.give()));
            }
        }
        if self.bytes.len() - self.start > EVENT_BYTES_MAX {
            return Err(TooLong);
        }
        Ok(None)
    }

    /// The stream is over: an event without its blank line counts, a last line without its end as well.
    pub(crate) fn finish(&mut self) -> Result<Option<Event<'_>>, TooLong> {
        self.forget_given();
        if self.start < self.bytes.len() {
            let (from, to) = (self.start, self.bytes.len());
            self.start = to;
            self.scanned = to;
            self.take_line(from, to)?;
        }
        Ok(self.has_data.then(|| self.give()))
    }

    /// Whether any field of an event was seen: tells a stream from a web page.
    pub(crate) fn saw_fields(&self) -> bool {
        self.n_fields > 0
    }

    fn forget_given(&mut self) {
        if self.given {
            self.given = false;
            self.clear_event();
        }
    }

    fn clear_event(&mut self) {
        self.name.clear();
        self.data.clear();
        self.has_data = false;
    }

    fn give(&mut self) -> Event<'_> {
        self.given = true;
        Event { name: &self.name, data: &self.data }
    }

    /// The bounds of the next line without its end.
    fn next_line(&mut self) -> Option<(usize, usize)> {
        if self.skip_lf && self.start < self.bytes.len() {
            self.skip_lf = false;
            if self.bytes[self.start] == b'\n' {
                self.start += 1;
                self.scanned = self.scanned.max(self.start);
            }
        }
        let Some(found) = self.bytes[self.scanned..].iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            self.scanned = self.bytes.len();
            return None;
        };
        let (from, to) = (self.start, self.scanned + found);
        self.skip_lf = self.bytes[to] == b'\r';
        self.start = to + 1;
        self.scanned = self.start;
        Some((from, to))
    }

    /// True when the line completes an event.
    fn take_line(&mut self, from: usize, to: usize) -> Result<bool, TooLong> {
        if to - from > EVENT_BYTES_MAX {
            return Err(TooLong);
        }
        let mut line = &self.bytes[from..to];
        self.n_lines += 1;
        if self.n_lines == 1 {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            let complete = self.has_data;
            if !complete {
                self.clear_event();
            }
            return Ok(complete);
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match &line[..colon] {
            b"data" => {
                if self.data.len() + value.len() > EVENT_BYTES_MAX {
                    return Err(TooLong);
                }
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(&value);
                self.has_data = true;
                self.n_fields += 1;
            }
            b"event" => {
                self.name.clear();
                self.name.push_str(&value);
                self.n_fields += 1;
            }
            b"" | b"id" | b"retry" => self.n_fields += 1, // comments keep the line alive
            _ => {}
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses `input` in pieces of `size` bytes; `(name, data)` of each event.
    fn parse(input: &[u8], size: usize) -> Vec<(String, String)> {
        let mut parser = Parser::new();
        let mut events = Vec::new();
        for piece in input.chunks(size) {
            parser.push(piece);
            while let Some(event) = parser.next_event().unwrap() {
                events.push((event.name.to_owned(), event.data.to_owned()));
            }
        }
        if let Some(event) = parser.finish().unwrap() {
            events.push((event.name.to_owned(), event.data.to_owned()));
        }
        events
    }

    #[test]
    fn every_way_of_cutting_a_stream_gives_the_same_events() {
        let check = |input: &str, expected: &[(&str, &str)]| {
            for size in 1..=input.len().max(1) {
                let events = parse(input.as_bytes(), size);
                let events: Vec<_> = events.iter().map(|(n, d)| (n.as_str(), d.as_str())).collect();
                assert_eq!(events, expected, "{input:?} in pieces of {size}");
            }
        };
        check("", &[]);
        check("data: a\n\ndata: b\n\n", &[("", "a"), ("", "b")]);
        check("data: a\r\n\r\ndata: b\r\n\r\n", &[("", "a"), ("", "b")]);
        check("data: a\r\rdata: b\r\r", &[("", "a"), ("", "b")]);
        check("data:a\ndata:  b\n\n", &[("", "a\n b")]);
        check("\u{feff}data: a\n\n", &[("", "a")]);
        check(": comment\n\n: more\ndata: a\n\n", &[("", "a")]);
        check("event: error\ndata: {\"x\":1}\n\ndata: y\n\n", &[("error", "{\"x\":1}"), ("", "y")]);
        check("event: ping\n\ndata: y\n\n", &[("", "y")]);
        check("id: 7\nretry: 10\ndata\n\nunknown: z\n\n", &[("", "")]);
        check("data: grüße 🦀\n\n", &[("", "grüße 🦀")]);
        check("data: no blank line\n", &[("", "no blank line")]);
        check("data: no line end", &[("", "no line end")]);
        check("<html>not a stream</html>\n", &[]);
    }

    #[test]
    fn bad_utf8_is_replaced() {
        assert_eq!(parse(b"data: a\xffb\n\n", 64), vec![(String::new(), "a\u{fffd}b".to_owned())]);
    }

    #[test]
    fn long_lines_pass_up_to_the_bound() {
        let long = format!("data: {}\n\n", "x".repeat(200 * 1024));
        assert_eq!(parse(long.as_bytes(), 4096)[0].1.len(), 200 * 1024);

        let mut parser = Parser::new();
        parser.push(&vec![b'x'; EVENT_BYTES_MAX + 1]);
        assert_eq!(parser.next_event(), Err(TooLong));

        let mut parser = Parser::new();
        let half = format!("data: {}\n", "x".repeat(EVENT_BYTES_MAX / 2));
        parser.push(half.as_bytes());
        assert_eq!(parser.next_event(), Ok(None));
        parser.push(half.as_bytes());
        parser.push(half.as_bytes());
        assert_eq!(parser.next_event(), Err(TooLong));
    }

    #[test]
    fn a_page_is_told_from_a_stream() {
        let mut parser = Parser::new();
        parser.push(b"<html>\n<p>hello</p>\n");
        assert_eq!(parser.next_event(), Ok(None));
        assert!(!parser.saw_fields());
        parser.push(b": keep-alive\n");
        assert_eq!(parser.next_event(), Ok(None));
        assert!(parser.saw_fields());
    }
}
