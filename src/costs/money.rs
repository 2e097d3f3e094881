//! USD as whole billionths: sums of them neither drift nor depend on their order.

/// 1e-9 USD; the cheapest token costs a few of them.
pub(super) type Nanos = i64;

/// Rounded up, so that nothing is free by rounding; what is no amount is nothing.
pub(super) fn nanos(usd: f64) -> Nanos {
    // A sum of decimal fractions is off by far less than this.
    let exact = usd * 1e9 - 1e-3;
    if exact.is_nan() || exact <= 0.0 {
        return 0;
    }
    #[expect(clippy::cast_possible_truncation, reason = "a float above the range becomes the largest amount")]
    let whole = exact.ceil() as Nanos;
    whole
}

/// For people: at least two decimals, at most four, more for the smallest amounts.
pub(super) fn shown(amount: Nanos) -> String {
    #[expect(clippy::cast_precision_loss, reason = "only shown")]
    let usd = amount as f64 / 1e9;
    if amount != 0 && usd.abs() < 0.001 {
        return format!("${usd:.6}");
    }
    let text = format!("{usd:.4}");
    let short = text.trim_end_matches('0');
    let decimals = short.len() - short.find('.').map_or(0, |dot| dot + 1);
    format!("${}", &text[..short.len() + 2_usize.saturating_sub(decimals)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_whole_and_rounded_up() {
        for (usd, expected) in [
            (1.0, 1_000_000_000),
            (0.1 + 0.2, 300_000_000),
            (1e-10, 1),
            (0.0, 0),
            (-1.0, 0),
            (f64::NAN, 0),
            (f64::INFINITY, i64::MAX),
        ] {
            assert_eq!(nanos(usd), expected, "{usd}");
        }
    }

    #[test]
    fn amounts_are_shown_with_what_matters() {
        for (usd, expected) in [
            (1.0, "$1.00"),
            (0.123_456, "$0.1235"),
            (12.5, "$12.50"),
            (0.01, "$0.01"),
            (0.000_12, "$0.000120"),
            (0.0, "$0.00"),
        ] {
            assert_eq!(shown(nanos(usd)), expected);
        }
    }
}
