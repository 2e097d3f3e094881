//! Server-sent events, as bytes arrive (WHATWG HTML 9.2.6, contract engine 9.2). Does no I/O.
//!
//! Lines end with LF, CRLF or CR; a line and the data of one event are bounded.

use std::time::Duration;

/// Longest line, and longest data of one event, unless the caller says otherwise. Models send whole tool arguments in one line, so 64 KiB (which the
/// reference allows) is too little; without a bound a hostile server fills our memory.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// Longest id that is remembered; a longer one is treated as absent.
const ID_BYTES_MAX: usize = 4096;

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Empty for the default, `message`.
    pub name: &'a str,
    /// The data lines joined by LF.
    pub data: &'a str,
    /// The last id of the stream so far, this event's included; empty before the first.
    pub id: &'a str,
}

/// A line or an event larger than the parser takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    pub bytes_max: usize,
}

/// Takes bytes, gives events.
pub struct Parser {
    event_bytes_max: usize,
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
    id: String,
    /// The id when the last blank line came.
    ended_id: String,
    retry: Option<Duration>,
    n_lines: usize,
    n_fields: usize,
}

impl Parser {
    /// A parser for events of at most `event_bytes_max` bytes; [`EVENT_BYTES_MAX`] is a good choice.
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            bytes: Vec::new(),
            start: 0,
            scanned: 0,
            skip_lf: false,
            name: String::new(),
            data: String::new(),
            has_data: false,
            given: false,
            id: String::new(),
            ended_id: String::new(),
            retry: None,
            n_lines: 0,
            n_fields: 0,
        }
    }

    /// Adds bytes as they came; call [`Parser::next_event`] until it has no more.
    pub fn push(&mut self, bytes: &[u8]) {
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
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, TooLong> {
        self.forget_given();
        while let Some((from, to)) = self.next_line() {
            if self.take_line(from, to)? {
                return Ok(Some(self.give()));
            }
        }
        if self.bytes.len() - self.start > self.event_bytes_max {
            return Err(self.too_long());
        }
        Ok(None)
    }

    /// The stream is over: an event without its blank line counts, a last line without its end as well.
    pub fn finish(&mut self) -> Result<Option<Event<'_>>, TooLong> {
        self.forget_given();
        if self.start < self.bytes.len() {
            let (from, to) = (self.start, self.bytes.len());
            self.start = to;
            self.scanned = to;
            self.take_line(from, to)?;
        }
        Ok(self.has_data.then(|| self.give()))
    }

    /// The id of the last event that came whole, also of one without data: what `Last-Event-ID` says when the stream
    /// is resumed.
    pub fn last_id(&self) -> &str {
        &self.ended_id
    }

    /// How long the server wants its clients to wait before they connect again.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Whether any field of an event was seen: tells a stream from a web page.
    pub fn saw_fields(&self) -> bool {
        self.n_fields > 0
    }

    fn too_long(&self) -> TooLong {
        TooLong { bytes_max: self.event_bytes_max }
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
        Event { name: &self.name, data: &self.data, id: &self.id }
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
        if to - from > self.event_bytes_max {
            return Err(self.too_long());
        }
        let mut line = &self.bytes[from..to];
        self.n_lines += 1;
        if self.n_lines == 1 {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            self.id.clone_into(&mut self.ended_id);
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
                if self.data.len() + value.len() > self.event_bytes_max {
                    return Err(self.too_long());
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
            b"id" => {
                if !value.contains('\0') && value.len() <= ID_BYTES_MAX {
                    self.id.clear();
                    self.id.push_str(&value);
                }
                self.n_fields += 1;
            }
            b"retry" => {
                if value.bytes().all(|byte| byte.is_ascii_digit())
                    && let Ok(ms) = value.parse()
                {
                    self.retry = Some(Duration::from_millis(ms));
                }
                self.n_fields += 1;
            }
            b"" => self.n_fields += 1, // comments keep the line alive
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
        let mut parser = Parser::new(EVENT_BYTES_MAX);
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

        let mut parser = Parser::new(EVENT_BYTES_MAX);
        parser.push(&vec![b'x'; EVENT_BYTES_MAX + 1]);
        assert_eq!(parser.next_event(), Err(TooLong { bytes_max: EVENT_BYTES_MAX }));

        let mut parser = Parser::new(EVENT_BYTES_MAX);
        let half = format!("data: {}\n", "x".repeat(EVENT_BYTES_MAX / 2));
        parser.push(half.as_bytes());
        assert_eq!(parser.next_event(), Ok(None));
        parser.push(half.as_bytes());
        parser.push(half.as_bytes());
        assert_eq!(parser.next_event(), Err(TooLong { bytes_max: EVENT_BYTES_MAX }));
    }

    #[test]
    fn a_page_is_told_from_a_stream() {
        let mut parser = Parser::new(EVENT_BYTES_MAX);
        parser.push(b"<html>\n<p>hello</p>\n");
        assert_eq!(parser.next_event(), Ok(None));
        assert!(!parser.saw_fields());
        parser.push(b": keep-alive\n");
        assert_eq!(parser.next_event(), Ok(None));
        assert!(parser.saw_fields());
    }

    #[test]
    fn ids_and_retry_outlive_their_event() {
        for size in 1..20 {
            let mut parser = Parser::new(EVENT_BYTES_MAX);
            let mut seen = Vec::new();
            let input =
                "id: 1\nretry: 250\n\ndata: a\n\nid: 2\ndata: b\n\nid: x\0y\nretry: 1.5\ndata: c\n\nid\ndata: d\n\n";
            for piece in input.as_bytes().chunks(size) {
                parser.push(piece);
                while let Some(event) = parser.next_event().unwrap() {
                    seen.push(format!("{}={}", event.id, event.data));
                }
            }
            assert_eq!(seen, ["1=a", "2=b", "2=c", "=d"], "in pieces of {size}");
            assert_eq!(parser.retry(), Some(Duration::from_millis(250)));
            assert_eq!(parser.last_id(), "");
            parser.push(b"id: 3\n\nid: 4\ndata: cut");
            assert_eq!(parser.next_event(), Ok(None));
            assert_eq!(parser.last_id(), "3", "an event that is cut off does not count");
        }
    }
}
