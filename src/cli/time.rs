//! Times as lists and transcripts show them: UTC.

use crate::rt::clock;

/// `2026-01-02`.
pub(super) fn date(unix_ms: i64) -> String {
    part(unix_ms, 10)
}

/// `2026-01-02 03:04:05`.
pub(super) fn second(unix_ms: i64) -> String {
    part(unix_ms, 19)
}

fn part(unix_ms: i64, length: usize) -> String {
    let text = clock::rfc3339_s(unix_ms).replace('T', " ");
    text.get(..length).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_where_they_are_precise_enough() {
        let at = 1_767_323_045_678;
        assert_eq!((date(at).as_str(), second(at).as_str()), ("2026-01-02", "2026-01-02 03:04:05"));
    }
}
