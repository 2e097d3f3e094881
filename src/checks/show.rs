//! Numbers as attributes show them (contract agent-link 6.1).

/// `117.6 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = crate::diag::finding::float(bytes) / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1d2h`, `3h20m`, `10m0s`, `12.5s`: the two largest parts. What is below a minute keeps a digit behind the point.
pub(super) fn seconds(seconds: f64) -> String {
    let magnitude = seconds.abs();
    if !magnitude.is_finite() || magnitude < 60.0 {
        let text = format!("{seconds:.1}");
        return format!("{}s", text.strip_suffix(".0").unwrap_or(&text));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and casts saturate")]
    let whole = magnitude as u64;
    let sign = if seconds < 0.0 { "-" } else { "" };
    let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{sign}{minutes}m{}s", whole % 60),
        (0, _) => format!("{sign}{hours}h{minutes}m"),
        _ => format!("{sign}{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, expected) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (126_272_638_566, "117.6 GiB"), (u64::MAX, "16.0 EiB")]
        {
            assert_eq!(bytes(value), expected);
        }
        for (value, expected) in [
            (0.0, "0s"),
            (12.54, "12.5s"),
            (600.0, "10m0s"),
            (-3725.0, "-1h2m"),
            (100_000.0, "1d3h"),
            (f64::NAN, "NaNs"),
        ] {
            assert_eq!(seconds(value), expected);
        }
        assert!(seconds(f64::MAX).ends_with('h'));
    }
}
