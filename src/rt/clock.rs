//! Wall-clock time, as the wire and the databases spell it.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spelled_as_the_contract_says() {
        assert_eq!(rfc3339_s(1_767_323_045_678), "2026-01-02T03:04:05Z");
        assert_eq!(rfc3339(1_767_323_045_678), "2026-01-02T03:04:05.678Z");
        assert_eq!(rfc3339(1_767_323_045_000), "2026-01-02T03:04:05Z");
    }
}
