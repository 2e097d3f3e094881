//! Numbers and times as people read them.

use serde_json::Value;

/// `3.8 GiB`; whole bytes below 1 KiB.
pub(super) fn bytes(value: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (value.max(0.0), 0);
    while value >= 1023.95 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// `3 days 4 hours`: the two largest units.
pub(super) fn duration(seconds: f64) -> String {
    let units = [("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0), ("second", 1.0)];
    let mut rest = seconds.max(0.0).floor();
    let mut parts: Vec<String> = Vec::new();
    for (name, size) in units {
        let count = (rest / size).floor();
        rest -= count * size;
        if count > 0.0 {
            parts.push(format!("{count:.0} {name}{}", if count > 1.0 { "s" } else { "" }));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0 seconds".to_owned() } else { parts.join(" ") }
}

/// A number of a tool's answer with at most one digit behind the point.
pub(super) fn plain(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// `2026-01-02 03:04 UTC` from `2026-01-02T03:04:05Z`; any other text as it is.
pub(super) fn time(text: &str) -> String {
    match (text.get(..10), text.get(10..11), text.get(11..16), text.ends_with('Z')) {
        (Some(day), Some("T"), Some(minute), true) => format!("{day} {minute} UTC"),
        _ => text.to_owned(),
    }
}

/// A field as a number.
pub(super) fn number(value: &Value, field: &str) -> Option<f64> {
    value.get(field).and_then(Value::as_f64)
}

/// A field as text.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

/// A field as a list; empty when it is missing.
pub(super) fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A name from outside between backticks, so that it cannot act as Markdown.
pub(super) fn code(name: &str) -> String {
    format!("`{}`", name.replace('`', "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (0.0, "0 B"),
            (1023.0, "1023 B"),
            (1024.0, "1.0 KiB"),
            (4_096_000_000.0, "3.8 GiB"),
            (1_048_575.0, "1.0 MiB"),
            (200.0 * 1024.0, "200 KiB"),
            (f64::MAX, bytes(f64::MAX).as_str()),
            (-5.0, "0 B"),
        ] {
            assert_eq!(bytes(value), expected);
        }
        for (value, expected) in [(10.0, "10"), (34.66, "34.7"), (0.04, "0"), (-2.5, "-2.5")] {
            assert_eq!(plain(value), expected);
        }
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, expected) in [
            (0.0, "0 seconds"),
            (61.0, "1 minute 1 second"),
            (273_600.0, "3 days 4 hours"),
            (86_400.0, "1 day"),
            (86_461.0, "1 day"),
            (7_260.0, "2 hours 1 minute"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn times_lose_their_seconds_and_names_their_backticks() {
        assert_eq!(time("2026-01-02T03:04:05Z"), "2026-01-02 03:04 UTC");
        assert_eq!(time("Fri 2026-01-02"), "Fri 2026-01-02");
        assert_eq!(time("ääääääääääääää"), "ääääääääääääää");
        assert_eq!(code("a`b"), "`a'b`");
    }
}
