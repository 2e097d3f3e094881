//! Request bodies: by length, or chunked (RFC 9112 section 7.1), decoded as they come.

use crate::http::head::{Refusal, refuse};

/// The longest chunk-size line, extensions included: nobody needs more, and each byte is buffered.
const SIZE_LINE_BYTES_MAX: usize = 256;
/// Trailer lines are read and dropped, up to this.
const TRAILER_BYTES_MAX: usize = 4096;

/// Decoder of a chunked body.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    body: Vec<u8>,
    trailer_bytes: usize,
    bytes_max: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Size,
    Data { left: usize },
    DataEnd,
    Trailer,
    Done,
}

impl Chunked {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { state: State::Size, body: Vec::new(), trailer_bytes: 0, bytes_max }
    }

    /// Decodes what it can from the front of `input`; how many bytes it used.
    pub(super) fn feed(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match self.state {
                State::Size => {
                    let Some(line) = line(rest, SIZE_LINE_BYTES_MAX)? else { return Ok(used) };
                    let size = parse_size(line)?;
                    if self.body.len().saturating_add(size) > self.bytes_max {
                        return Err(refuse(413, "request body too large"));
                    }
                    used += line.len() + 2;
                    self.state = if size == 0 { State::Trailer } else { State::Data { left: size } };
                }
                State::Data { left } => {
                    let take = left.min(rest.len());
                    self.body.extend_from_slice(&rest[..take]);
                    used += take;
                    if take < left {
                        self.state = State::Data { left: left - take };
                        return Ok(used);
                    }
                    self.state = State::DataEnd;
                }
                State::DataEnd => match rest {
                    [] | [b'\r'] => return Ok(used),
                    [b'\r', b'\n', ..] => {
                        used += 2;
                        self.state = State::Size;
                    }
                    _ => return Err(refuse(400, "malformed chunk")),
                },
                State::Trailer => {
                    let Some(line) = line(rest, TRAILER_BYTES_MAX)? else { return Ok(used) };
                    used += line.len() + 2;
                    self.trailer_bytes += line.len() + 2;
                    if self.trailer_bytes > TRAILER_BYTES_MAX {
                        return Err(refuse(431, "trailer too large"));
                    }
                    if line.is_empty() {
                        self.state = State::Done;
                    }
                }
                State::Done => return Ok(used),
            }
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub(super) fn buffered(&self) -> usize {
        self.body.len()
    }

    pub(super) fn into_body(self) -> Vec<u8> {
        self.body
    }
}

/// A line up to CR LF, without it; None while it is not complete.
fn line(input: &[u8], bytes_max: usize) -> Result<Option<&[u8]>, Refusal> {
    match input.iter().position(|&byte| byte == b'\n') {
        Some(at) if at > 0 && input[at - 1] == b'\r' && at <= bytes_max => Ok(Some(&input[..at - 1])),
        Some(_) => Err(refuse(400, "malformed chunk")),
        None if input.len() > bytes_max => Err(refuse(400, "malformed chunk")),
        None => Ok(None),
    }
}

/// Hex digits, then possibly an extension, which is ignored.
fn parse_size(line: &[u8]) -> Result<usize, Refusal> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or(line);
    let digits = if digits.len() < line.len() { digits.trim_ascii_end() } else { digits };
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(refuse(400, "malformed chunk size"));
    }
    let text = std::str::from_utf8(digits).map_err(|_| refuse(400, "malformed chunk size"))?;
    usize::from_str_radix(text, 16).map_err(|_| refuse(400, "malformed chunk size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, bytes_max: usize) -> Result<(String, usize), u16> {
        // Byte by byte must give the same as all at once.
        let mut whole = Chunked::new(bytes_max);
        let result = whole.feed(input.as_bytes()).map_err(|refusal| refusal.status);
        let mut single = Chunked::new(bytes_max);
        let mut kept: Vec<u8> = Vec::new();
        let mut slow = Ok(());
        for &byte in input.as_bytes() {
            kept.push(byte);
            match single.feed(&kept) {
                Ok(used) => drop(kept.drain(..used)),
                Err(refusal) => {
                    slow = Err(refusal.status);
                    break;
                }
            }
        }
        let used = result?;
        slow?;
        assert!(whole.is_done() && single.is_done(), "incomplete: {input:?}");
        let body = whole.into_body();
        assert_eq!(body, single.into_body());
        Ok((String::from_utf8(body).unwrap(), used))
    }

    #[test]
    fn bodies_are_decoded() {
        assert_eq!(check("3\r\nabc\r\n0\r\n\r\n", 10), Ok(("abc".into(), 13)));
        assert_eq!(check("A;x=y\r\n0123456789\r\n1 ;e\r\n!\r\n0\r\nT: v\r\n\r\nNEXT", 11).unwrap().0, "0123456789!");
        assert_eq!(check("0\r\n\r\n", 0), Ok((String::new(), 5)));
    }

    #[test]
    fn malformed_bodies_are_refused() {
        for (input, status) in [
            ("g\r\n", 400),
            ("\r\n", 400),
            ("-1\r\n", 400),
            ("0x1\r\na\r\n", 400),
            ("1 \r\na\r\n0\r\n\r\n", 400),
            ("123456789\r\n", 400),
            ("1\na\r\n0\r\n\r\n", 400),
            ("1\r\nab\r\n0\r\n\r\n", 400),
            ("b\r\n01234567890\r\n", 413),
            ("5\r\n01234\r\n6\r\n", 413),
        ] {
            assert_eq!(check(input, 10), Err(status), "{input:?}");
        }
        assert_eq!(check(&format!("0\r\n{}", "T: v\r\n".repeat(1000)), 10), Err(431));
    }
}
