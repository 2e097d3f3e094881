//! Go durations, as the reference's file spells them: `1h30m`, `1.5h`, `100ms`, a bare `0`.

use std::time::Duration;

/// Longest unit first, so that `ms` is not read as `m`.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000), // U+00B5
    ("μs", 1_000), // U+03BC
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
];

/// Parses a duration that is not negative. None for everything else, and for more than Go's 292 years.
pub fn parse_go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_len);
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let (_, unit_nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
        nanos = nanos.checked_add(part_nanos(number, *unit_nanos)?)?;
        rest = after;
    }
    (nanos <= i64::MAX.cast_unsigned()).then(|| Duration::from_nanos(nanos))
}

/// `12`, `1.5`, `.5` or `1.` of a unit; the fraction is cut, not rounded, at the nanosecond.
fn part_nanos(number: &str, unit_nanos: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(unit_nanos)?;
    let mut scale = 1_u128;
    let mut digits = 0_u128;
    // 18 digits are finer than a nanosecond of an hour.
    for digit in fraction.bytes().take(18) {
        digits = digits * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    nanos = nanos.checked_add(u64::try_from(digits * u128::from(unit_nanos) / scale).ok()?)?;
    Some(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let check = |text: &str, expected: Option<Duration>| assert_eq!(parse_go_duration(text), expected, "{text:?}");
        let seconds = |s: u64| Some(Duration::from_secs(s));
        check("0", seconds(0));
        check("+0", seconds(0));
        check("0s", seconds(0));
        check("5s", seconds(5));
        check("+5s", seconds(5));
        check("1h30m", seconds(5400));
        check("1.5h", seconds(5400));
        check("168h", seconds(168 * 3600));
        check("1h15m30.918273645s", Some(Duration::new(4530, 918_273_645)));
        check("100ms", Some(Duration::from_millis(100)));
        check(".5s", Some(Duration::from_millis(500)));
        check("1.s", seconds(1));
        check("2us", Some(Duration::from_micros(2)));
        check("2µs", Some(Duration::from_micros(2)));
        check("2μs", Some(Duration::from_micros(2)));
        check("7ns", Some(Duration::from_nanos(7)));
        check("0.9999999999999999999999s", Some(Duration::new(0, 999_999_999)));
        check("2540400h", seconds(2_540_400 * 3600));
        for bad in ["", "+", "5", "-5s", ".s", ".", "s", "5 s", " 5s", "1.2.3s", "5S", "5d", "1h-5m", "3000000h", "∞"]
        {
            check(bad, None);
        }
        check("99999999999999999999s", None);
    }
}
