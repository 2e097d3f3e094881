//! When a schedule runs: `@daily`, `@every 1h30m`, `0 8-18 * * 1-5` (contract engine 5.1), `@at 2026-12-24 18:00`. What they mean in a time zone
//! is the business of `sched`.

use std::time::Duration;

use jiff::civil::DateTime;

use super::duration::parse_go_duration;
use crate::rt::json::quoted;

const SHORTHANDS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];
/// Name and range of each field, in their order.
const FIELDS: [(&str, u8, u8); 5] =
    [("minute", 0, 59), ("hour", 0, 23), ("day-of-month", 1, 31), ("month", 1, 12), ("day-of-week", 0, 7)];
/// A job more often than this is a loop, not a schedule: shorter intervals count as this.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Longer expressions are none.
const BYTES_MAX: usize = 1024;

/// A parsed expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expression {
    /// `@every`: whole milliseconds, at least a second.
    Every(Duration),
    Cron(Cron),
    /// Holt's own, `@at`: once, at that local time.
    At(DateTime),
}

/// Five fields; bit n of a field stands for the value n. All of them must match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cron {
    pub minutes: u64,
    pub hours: u64,
    pub days: u64,
    pub months: u64,
    /// Sunday is 0.
    pub weekdays: u64,
}

impl Cron {
    /// Whether it names hours, instead of meaning every one.
    pub fn names_hours(&self) -> bool {
        self.hours != (1 << 24) - 1
    }
}

impl Expression {
    /// Parses an expression; blanks around it do not count. The error says what is wrong, in the contract's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("schedule expression must not be empty".to_owned());
        }
        if text.len() > BYTES_MAX {
            return Err(format!("schedule expression must have at most {BYTES_MAX} bytes"));
        }
        if !text.starts_with('@') {
            return cron(text).map(Self::Cron);
        }
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        if word.eq_ignore_ascii_case("@every") {
            return every(rest.trim()).map(Self::Every);
        }
        if word.eq_ignore_ascii_case("@at") {
            let at = rest.trim().parse().map_err(|_| {
                format!("@at needs a date and a time such as 2026-12-24 18:00, got {}", quoted(rest.trim()))
            });
            return at.map(Self::At);
        }
        let known = SHORTHANDS.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
        known.map_or_else(|| Err(unknown(text)), |(_, fields)| cron(fields).map(Self::Cron))
    }
}

fn unknown(text: &str) -> String {
    let names: Vec<&str> = SHORTHANDS.iter().map(|(name, _)| *name).collect();
    format!("unknown schedule shorthand {}; valid shorthands: {}, @every <duration>", quoted(text), names.join(", "))
}

fn every(text: &str) -> Result<Duration, String> {
    let (negative, bare) = text.strip_prefix('-').map_or((false, text), |bare| (true, bare));
    let Some(interval) = parse_go_duration(bare) else {
        return Err(format!(
            "invalid @every duration {} — use Go duration format (e.g. 30m, 1h30m, 24h)",
            quoted(text)
        ));
    };
    if negative || interval.is_zero() {
        return Err(format!("@every duration must be positive, got {}", quoted(text)));
    }
    // Moments are milliseconds: intervals must be, or they would drift apart.
    Ok(Duration::from_millis(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)).max(INTERVAL_MIN))
}

fn cron(text: &str) -> Result<Cron, String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let found = fields.len();
        return Err(format!("cron expression must have exactly 5 fields, got {found} in {}", quoted(text)));
    }
    let mut bits = [0; FIELDS.len()];
    for (at, field) in fields.iter().enumerate() {
        let (name, min, max) = FIELDS[at];
        for part in field.split(',') {
            bits[at] |= values(part, min, max).map_err(|reason| format!("{name} field {}: {reason}", quoted(field)))?;
        }
    }
    let [minutes, hours, days, months, weekdays] = bits;
    // Sunday is 0 and 7.
    Ok(Cron { minutes, hours, days, months, weekdays: (weekdays | weekdays >> 7) & 0x7f })
}

/// The values of one part of a list: `*`, `n` or `a-b`, each with or without a step. A step after `n` means nothing.
fn values(part: &str, min: u8, max: u8) -> Result<u64, String> {
    let (range, step) = match part.split_once('/') {
        None => (part, 1),
        Some((range, text)) => match number(text) {
            Some(step) if step > 0 => (range, step),
            _ => return Err(format!("invalid step value {}", quoted(text))),
        },
    };
    let (from, to) = if range == "*" {
        (u32::from(min), u32::from(max))
    } else if let Some((from, to)) = range.split_once('-') {
        match (number(from), number(to)) {
            (Some(from), Some(to)) => (from, to),
            _ => return Err(format!("invalid range {}", quoted(range))),
        }
    } else {
        let value = number(range).ok_or_else(|| format!("invalid value {} (expected integer)", quoted(range)))?;
        (value, value)
    };
    if from < u32::from(min) || to > u32::from(max) || from > to {
        return Err(format!("value {from}–{to} out of allowed range [{min}, {max}]"));
    }
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    Ok((from..=to).step_by(step).fold(0, |bits, value| bits | 1 << value))
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(values: impl IntoIterator<Item = u32>) -> u64 {
        values.into_iter().fold(0, |bits, value| bits | 1 << value)
    }

    #[track_caller]
    fn check(text: &str, expected: [u64; 5]) {
        let [minutes, hours, days, months, weekdays] = expected;
        let expected = Expression::Cron(Cron { minutes, hours, days, months, weekdays });
        assert_eq!(Expression::parse(text), Ok(expected), "{text}");
    }

    #[test]
    fn good_expressions_are_read() {
        let all = [bits(0..=59), bits(0..=23), bits(1..=31), bits(1..=12), bits(0..=6)];
        let [_, hours, days, months, weekdays] = all;
        check("* * * * *", all);
        check("@HOURLY", [1, hours, days, months, weekdays]);
        check(" @daily\t", [1, 1, days, months, weekdays]);
        check("@Midnight", [1, 1, days, months, weekdays]);
        check("@weekly", [1, 1, days, months, 1]);
        check("@monthly", [1, 1, 2, months, weekdays]);
        check("@yearly", [1, 1, 2, 2, weekdays]);
        check("@annually", [1, 1, 2, 2, weekdays]);
        check("*/15 * * * *", [bits([0, 15, 30, 45]), hours, days, months, weekdays]);
        check("0 8-18 * * 1-5", [1, bits(8..=18), days, months, bits(1..=5)]);
        check("0 0 1,15 * *", [1, 1, bits([1, 15]), months, weekdays]);
        check("0 0 * * 7", [1, 1, days, months, 1]);
        check("0 0 * * 5-7", [1, 1, days, months, bits([0, 5, 6])]);
        check("0-30/10 * * * *", [bits([0, 10, 20, 30]), hours, days, months, weekdays]);
        check("5/20 0 */10 2-12/5 0,6", [bits([5]), 1, bits([1, 11, 21, 31]), bits([2, 7, 12]), bits([0, 6])]);
        check("0,0-59/7 0 * * *", [bits((0..60).step_by(7)), 1, days, months, weekdays]);
        let every = |text: &str, seconds: u64| {
            assert_eq!(Expression::parse(text), Ok(Expression::Every(Duration::from_secs(seconds))), "{text}");
        };
        every("@every 1h30m", 5400);
        every("@EVERY\t 24h ", 86_400);
        every("@every 1ns", 1);
        every("@every 1.5h", 5400);
        for text in ["@at 2026-12-24 18:00", " @AT  2026-12-24T18:00:00 "] {
            assert_eq!(Expression::parse(text), Ok(Expression::At(jiff::civil::date(2026, 12, 24).at(18, 0, 0, 0))));
        }
    }

    #[test]
    fn bad_expressions_are_refused_in_the_contracts_words() {
        let check = |text: &str, reason: &str| assert_eq!(Expression::parse(text), Err(reason.to_owned()), "{text}");
        check("", "schedule expression must not be empty");
        check(" \t", "schedule expression must not be empty");
        let shorthands =
            "valid shorthands: @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually, @every <duration>";
        check("@every5m", &format!("unknown schedule shorthand \"@every5m\"; {shorthands}"));
        check("@unknown", &format!("unknown schedule shorthand \"@unknown\"; {shorthands}"));
        check("@daily 5", &format!("unknown schedule shorthand \"@daily 5\"; {shorthands}"));
        for text in ["", "abc", "5", "5M", "1d", "--1h"] {
            let reason = format!("invalid @every duration \"{text}\" — use Go duration format (e.g. 30m, 1h30m, 24h)");
            check(&format!("@every {text}"), &reason);
        }
        check("@every -1h", "@every duration must be positive, got \"-1h\"");
        check("@every 0s", "@every duration must be positive, got \"0s\"");
        let once = "@at needs a date and a time such as 2026-12-24 18:00, got";
        check("@at soon", &format!("{once} \"soon\""));
        check("@at", &format!("{once} \"\""));
        check("@at 2026-02-30 18:00", &format!("{once} \"2026-02-30 18:00\""));
        check("* * * *", "cron expression must have exactly 5 fields, got 4 in \"* * * *\"");
        check("* * * * * *", "cron expression must have exactly 5 fields, got 6 in \"* * * * * *\"");
        check("60 * * * *", "minute field \"60\": value 60–60 out of allowed range [0, 59]");
        check("* 24 * * *", "hour field \"24\": value 24–24 out of allowed range [0, 23]");
        check("* * 0 * *", "day-of-month field \"0\": value 0–0 out of allowed range [1, 31]");
        check("* * 32 * *", "day-of-month field \"32\": value 32–32 out of allowed range [1, 31]");
        check("* * * 13 *", "month field \"13\": value 13–13 out of allowed range [1, 12]");
        check("* * * * 8", "day-of-week field \"8\": value 8–8 out of allowed range [0, 7]");
        check("a * * * *", "minute field \"a\": invalid value \"a\" (expected integer)");
        check("5-3 * * * *", "minute field \"5-3\": value 5–3 out of allowed range [0, 59]");
        check("*/0 * * * *", "minute field \"*/0\": invalid step value \"0\"");
        check("1,*/x * * * *", "minute field \"1,*/x\": invalid step value \"x\"");
        check("1-b * * * *", "minute field \"1-b\": invalid range \"1-b\"");
        check("-5 * * * *", "minute field \"-5\": invalid range \"-5\"");
        check("1, * * * *", "minute field \"1,\": invalid value \"\" (expected integer)");
        check("* * * JAN *", "month field \"JAN\": invalid value \"JAN\" (expected integer)");
        check("* * * * 5-1", "day-of-week field \"5-1\": value 5–1 out of allowed range [0, 7]");
        check("99999999999 * * * *", "minute field \"99999999999\": invalid value \"99999999999\" (expected integer)");
        assert!(Expression::parse(&"*,".repeat(2000)).is_err());
    }
}
