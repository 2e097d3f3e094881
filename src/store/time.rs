//! The spellings of time found in DATETIME columns (contract http-api 13.4), and the one that Holt writes.

use jiff::civil::DateTime;
use jiff::{Timestamp, tz};

use crate::rt::clock;

/// What Holt writes: RFC 3339, UTC, milliseconds, so that texts sort like times.
pub fn text(unix_ms: i64) -> String {
    let time = Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// [`text`] of now.
pub fn now_text() -> String {
    text(clock::unix_ms())
}

/// Reads all spellings: `2026-01-02 03:04:05` (UTC), RFC 3339, and the reference's long form
/// `2026-01-02 03:04:05.123456789 +0000 UTC` with a possible ` m=±…` behind it. None for anything else.
pub fn parse_ms(text: &str) -> Option<i64> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_millisecond());
    }
    let mut words = text.split_whitespace();
    let civil: DateTime = format!("{}T{}", words.next()?, words.next()?).parse().ok()?;
    let offset = match words.next() {
        None => tz::Offset::UTC,
        Some(offset) => parse_offset(offset)?,
    };
    offset.to_timestamp(civil).ok().map(Timestamp::as_millisecond)
}

fn parse_offset(text: &str) -> Option<tz::Offset> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits = text.get(1..)?;
    if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let hours: i32 = digits[..2].parse().ok()?;
    let minutes: i32 = digits[2..].parse().ok()?;
    tz::Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_are_read() {
        let expected = 1_767_323_045_000;
        for (input, ms) in [
            ("2026-01-02 03:04:05", Some(expected)),
            ("2026-01-02T03:04:05Z", Some(expected)),
            ("2026-01-02T03:04:05.250Z", Some(expected + 250)),
            ("2026-01-02 03:04:05.123456789 +0000 UTC", Some(expected + 123)),
            ("2026-01-02 04:04:05 +0100 CET m=+0.001", Some(expected)),
            ("2026-01-01 22:34:05 -0430 -0430", Some(expected)),
            ("yesterday", None),
            ("", None),
            ("2026-01-02 03:04:05 zone", None),
        ] {
            assert_eq!(parse_ms(input), ms, "{input}");
        }
        assert_eq!(text(expected + 7), "2026-01-02T03:04:05.007Z");
    }
}
