//! Wall-clock time, as the wire and the databases spell it.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Milliseconds since 1970, UTC. Zero on a machine whose clock is before that.
pub fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// Seconds since 1970, UTC.
pub fn unix_s() -> i64 {
    unix_ms().div_euclid(1000)
}

/// `2026-01-02T03:04:05Z`: RFC 3339, UTC, whole seconds (`T_s` of contract section 0).
pub fn rfc3339_s(unix_ms: i64) -> String {
    Timestamp::from_second(unix_ms.div_euclid(1000)).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// RFC 3339, UTC, with the fraction trimmed (`T_ns` of contract section 0).
pub fn rfc3339(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// Date, time, weekday and week, for a model: `2026-01-02 04:04, Friday of ISO week 1 (Europe/Berlin)`. An unknown zone
/// counts as UTC.
pub fn spoken(unix_ms: i64, zone: &str) -> String {
    let (zone, name) = TimeZone::get(zone).map_or((TimeZone::UTC, "UTC"), |found| (found, zone));
    let at = Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone);
    let days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    let day = usize::try_from(at.weekday().to_monday_zero_offset()).unwrap_or(0);
    let week = at.date().iso_week_date().week();
    format!("{} {:02}:{:02}, {} of ISO week {week} ({name})", at.date(), at.hour(), at.minute(), days[day])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spelled_as_the_contract_says() {
        assert_eq!(rfc3339_s(1_767_323_045_678), "2026-01-02T03:04:05Z");
        assert_eq!(rfc3339(1_767_323_045_678), "2026-01-02T03:04:05.678Z");
        assert_eq!(rfc3339(1_767_323_045_000), "2026-01-02T03:04:05Z");
        assert_eq!(spoken(1_767_323_045_000, "nowhere"), "2026-01-02 03:04, Friday of ISO week 1 (UTC)");
    }
}
