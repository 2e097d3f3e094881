//! The moments of an expression in a time zone.
//!
//! Where a zone changes its offset, hours are skipped or come twice. A schedule for every hour (`*/15 * * * *`) follows
//! real time: it has no moments in skipped hours and goes on in repeated ones. One that names hours (`30 2 * * *`) means
//! times of the day: those that are skipped become one moment, the first behind the gap; a time that comes twice
//! counts once, the first time.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Span, Timestamp};

use crate::config::Cron;

/// How far ahead is looked, in milliseconds: 29 February on a Monday is seldom, and 2100 is no leap year.
const HORIZON_MS: i64 = 41 * 366 * 24 * 3600 * 1000;

/// The first moment after `after_ms`; None when there is none within 41 years.
pub(super) fn next_after(cron: &Cron, zone: &TimeZone, after_ms: i64) -> Option<i64> {
    let horizon = Timestamp::from_millisecond(after_ms.saturating_add(HORIZON_MS)).ok()?;
    let mut start = Timestamp::from_millisecond(after_ms).ok()?;
    let mut offset = zone.to_offset(start);
    let mut from = next_minute(offset.to_datetime(start))?;
    let mut changes = zone.following(start);
    loop {
        // Up to here the offset stays.
        let change = changes.next().map(|change| change.timestamp()).filter(|at| *at < horizon);
        start = change.unwrap_or(horizon);
        let until = offset.to_datetime(start);
        while let Some(found) = next_local(cron, from, until) {
            if !(cron.names_hours() && is_repeated(zone, found, offset)) {
                return Some(offset.to_timestamp(found).ok()?.as_millisecond());
            }
            from = next_minute(found)?;
        }
        let before = offset;
        offset = zone.to_offset(change?);
        from = offset.to_datetime(start);
        if cron.names_hours() && offset > before && next_local(cron, until, from).is_some() {
            return Some(start.as_millisecond());
        }
        if from.second() != 0 || from.subsec_nanosecond() != 0 {
            from = next_minute(from)?;
        }
    }
}

/// Whether that local time was there before, under another offset.
fn is_repeated(zone: &TimeZone, local: DateTime, offset: Offset) -> bool {
    let ambiguous = zone.to_ambiguous_timestamp(local).offset();
    matches!(ambiguous, AmbiguousOffset::Fold { after, before } if after == offset && before != offset)
}

/// The whole minute behind a local time.
fn next_minute(local: DateTime) -> Option<DateTime> {
    let minute = Time::new(local.hour(), local.minute(), 0, 0).ok()?;
    local.date().to_datetime(minute).checked_add(Span::new().minutes(1)).ok()
}

/// The first local time of the schedule from `from` on and before `until`.
fn next_local(cron: &Cron, from: DateTime, until: DateTime) -> Option<DateTime> {
    let mut date = from.date();
    let mut earliest = (from.hour(), from.minute());
    while date <= until.date() {
        if has(cron.months, date.month()) {
            let weekday = date.weekday().to_sunday_zero_offset();
            if has(cron.days, date.day())
                && has(cron.weekdays, weekday)
                && let Some((hour, minute)) = next_time(cron, earliest)
            {
                let found = date.to_datetime(Time::new(hour, minute, 0, 0).ok()?);
                return (found < until).then_some(found);
            }
            date = date.tomorrow().ok()?;
        } else {
            date = first_of_next_month(date)?;
        }
        earliest = (0, 0);
    }
    None
}

fn first_of_next_month(date: Date) -> Option<Date> {
    date.last_of_month().tomorrow().ok()
}

/// The first hour and minute of a day from those on.
fn next_time(cron: &Cron, (hour, minute): (i8, i8)) -> Option<(i8, i8)> {
    if has(cron.hours, hour)
        && let Some(minute) = first_from(cron.minutes, minute)
    {
        return Some((hour, minute));
    }
    Some((first_from(cron.hours, hour + 1)?, first_from(cron.minutes, 0)?))
}

fn has(bits: u64, value: i8) -> bool {
    first_from(bits, value) == Some(value)
}

/// The lowest value in a field, from that one on.
fn first_from(bits: u64, value: i8) -> Option<i8> {
    let value = u32::try_from(value).ok()?;
    let left = bits.checked_shr(value)?.checked_shl(value)?;
    if left == 0 { None } else { i8::try_from(left.trailing_zeros()).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Expression;

    fn cron(text: &str) -> Cron {
        let Ok(Expression::Cron(cron)) = Expression::parse(text) else { panic!("{text}") };
        cron
    }

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    /// The moments after `after`, in local time with the offset.
    #[track_caller]
    fn check(expression: &str, zone: &str, after: &str, expected: &[&str]) {
        let (cron, zone) = (cron(expression), TimeZone::get(zone).unwrap());
        let mut at = ms(after);
        for expected in expected {
            at = next_after(&cron, &zone, at).unwrap();
            let shown = Timestamp::from_millisecond(at).unwrap().to_zoned(zone.clone());
            assert_eq!(shown.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(), *expected, "{expression} after {after}");
        }
    }

    #[test]
    fn all_fields_must_match() {
        check("* * * * *", "UTC", "2026-01-01T00:00:00Z", &["2026-01-01T00:01:00+00:00", "2026-01-01T00:02:00+00:00"]);
        check("* * * * *", "UTC", "2026-01-01T00:00:59.999Z", &["2026-01-01T00:01:00+00:00"]);
        check(
            "0 8-18/5 * * 1-5",
            "UTC",
            "2026-01-02T12:59:59Z",
            &["2026-01-02T13:00:00+00:00", "2026-01-02T18:00:00+00:00", "2026-01-05T08:00:00+00:00"],
        );
        // A Friday the 13th: day and weekday.
        check("0 0 13 * 5", "UTC", "2026-01-01T00:00:00Z", &["2026-02-13T00:00:00+00:00", "2026-03-13T00:00:00+00:00"]);
        check("59 23 31 12 *", "UTC", "2026-12-31T23:59:00Z", &["2027-12-31T23:59:00+00:00"]);
        check("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", &["2028-02-29T00:00:00+00:00", "2032-02-29T00:00:00+00:00"]);
        check("0 0 29 2 1", "UTC", "2026-01-01T00:00:00Z", &["2044-02-29T00:00:00+00:00"]);
        check("0 12 * * 7", "UTC", "2026-01-01T00:00:00Z", &["2026-01-04T12:00:00+00:00"]);
        assert_eq!(next_after(&cron("0 0 31 2 *"), &TimeZone::UTC, ms("2026-01-01T00:00:00Z")), None);
        assert_eq!(next_after(&cron("0 0 31 4,6 *"), &TimeZone::get("Europe/Berlin").unwrap(), 0), None);
    }

    #[test]
    fn skipped_hours_are_made_up_for_by_schedules_that_name_hours() {
        let zone = "Europe/Berlin"; // 2026-03-29: 02:00 becomes 03:00
        let after = "2026-03-29T00:00:00Z";
        check("30 2 * * *", zone, after, &["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]);
        check("0 3 * * *", zone, after, &["2026-03-29T03:00:00+02:00", "2026-03-30T03:00:00+02:00"]);
        check(
            "*/20 2,3 * * *",
            zone,
            after,
            &[
                "2026-03-29T03:00:00+02:00",
                "2026-03-29T03:20:00+02:00",
                "2026-03-29T03:40:00+02:00",
                "2026-03-30T02:00:00+02:00",
            ],
        );
        check("30 2 * * 1", zone, after, &["2026-03-30T02:30:00+02:00"]);
        check("30 * * * *", zone, after, &["2026-03-29T01:30:00+01:00", "2026-03-29T03:30:00+02:00"]);
        check(
            "*/30 * * * *",
            zone,
            "2026-03-29T00:30:00Z",
            &["2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00"],
        );
        check("30 2 8 3 *", "America/New_York", "2026-01-01T00:00:00Z", &["2026-03-08T03:00:00-04:00"]);
        // Half an hour is skipped.
        check("15 2 4 10 *", "Australia/Lord_Howe", "2026-01-01T00:00:00Z", &["2026-10-04T02:30:00+11:00"]);
        // A whole day is.
        check("0 9 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", &["2011-12-31T00:00:00+14:00"]);
        // Midnight is.
        check(
            "@daily",
            "America/Asuncion",
            "2023-09-30T12:00:00Z",
            &["2023-10-01T01:00:00-03:00", "2023-10-02T00:00:00-03:00"],
        );
    }

    #[test]
    fn times_that_come_twice_count_once_where_hours_are_named() {
        let zone = "Europe/Berlin"; // 2026-10-25: 03:00 becomes 02:00
        let after = "2026-10-24T22:00:00Z";
        check("30 2 * * *", zone, after, &["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]);
        check("30 2 * * *", zone, "2026-10-25T00:45:00Z", &["2026-10-26T02:30:00+01:00"]);
        check(
            "0 2,3 * * *",
            zone,
            after,
            &["2026-10-25T02:00:00+02:00", "2026-10-25T03:00:00+01:00", "2026-10-26T02:00:00+01:00"],
        );
        check(
            "30 * * * *",
            zone,
            "2026-10-24T23:30:00Z",
            &["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00"],
        );
        check(
            "30 1 1 11 *",
            "America/New_York",
            "2026-01-01T00:00:00Z",
            &["2026-11-01T01:30:00-04:00", "2027-11-01T01:30:00-04:00"],
        );
        check(
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-04T12:00:00Z",
            &["2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"],
        );
    }

    #[test]
    fn a_search_agrees_with_a_walk_through_the_minutes() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let start = ms("2026-10-23T00:00:00Z");
        for text in ["*/7 * * * *", "3 1-23/2 * * *", "0 0 24-26 * *", "*/30 2 * * 0,1", "59 2 25 10 *"] {
            let cron = cron(text);
            let (mut at, mut seen) = (start, std::collections::HashSet::new());
            for minute in 0..6 * 1440_i64 {
                let moment = start + minute * 60_000;
                let local = zone.to_datetime(Timestamp::from_millisecond(moment).unwrap());
                let matching = has(cron.minutes, local.minute())
                    && has(cron.hours, local.hour())
                    && has(cron.days, local.day())
                    && has(cron.weekdays, local.weekday().to_sunday_zero_offset());
                if matching && minute > 0 && (seen.insert(local) || !cron.names_hours()) {
                    at = next_after(&cron, &zone, at).unwrap();
                    assert_eq!(at, moment, "{text}: {local}");
                }
            }
        }
    }
}
