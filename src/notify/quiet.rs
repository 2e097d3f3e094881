//! When a channel keeps quiet, and how fast it may talk. Pure: time comes in.

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use crate::config::QuietHours;

/// When the quiet hours of now end, in milliseconds since 1970; None while there are none.
pub(super) fn quiet_until(quiet: QuietHours, zone: &TimeZone, now_ms: i64) -> Option<i64> {
    let now = Timestamp::from_millisecond(now_ms).ok()?.to_zoned(zone.clone());
    let minute = u16::try_from(i32::from(now.hour()) * 60 + i32::from(now.minute())).ok()?;
    let over_midnight = quiet.from > quiet.to;
    let is_quiet = if over_midnight {
        minute >= quiet.from || minute < quiet.to
    } else {
        (quiet.from..quiet.to).contains(&minute)
    };
    if !is_quiet {
        return None;
    }
    let date: Date = if over_midnight && minute >= quiet.from { now.date().tomorrow().ok()? } else { now.date() };
    let (hour, minute) = (i8::try_from(quiet.to / 60).ok()?, i8::try_from(quiet.to % 60).ok()?);
    let end = date.to_datetime(Time::new(hour, minute, 0, 0).ok()?).to_zoned(zone.clone()).ok()?;
    // In the hour that a clock is set back the end may look past; it is asked again then.
    Some(end.timestamp().as_millisecond().max(now_ms + 1000))
}

/// So many messages a minute, as many at once after a quiet minute.
pub(super) struct Bucket {
    per_minute: i64,
    /// Thousandths of a message.
    level: i64,
    at_ms: i64,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(per_minute: u32, now_ms: i64) -> Self {
        let per_minute = i64::from(per_minute);
        Self { per_minute, level: per_minute * 1000, at_ms: now_ms }
    }

    /// Whole messages that may go now.
    pub(super) fn available(&mut self, now_ms: i64) -> usize {
        // A clock that was set back gives nothing and takes nothing; one set ahead by a day fills it once.
        let passed = (now_ms - self.at_ms).clamp(0, 120_000);
        let gained = passed * self.per_minute / 60;
        if gained > 0 || now_ms < self.at_ms {
            self.at_ms = now_ms;
        }
        self.level = (self.level + gained).min(self.per_minute * 1000);
        usize::try_from(self.level / 1000).unwrap_or(0)
    }

    /// One message goes.
    pub(super) fn take(&mut self) {
        self.level = (self.level - 1000).max(0);
    }

    /// When the next message may go, at most a minute from now.
    pub(super) fn ready_at(&self, now_ms: i64) -> i64 {
        now_ms + (1000 - self.level).max(0) * 60 / self.per_minute + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn quiet_hours_end_in_local_time() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let check = |from: u16, to: u16, now: &str, end: Option<&str>| {
            let quiet = QuietHours { from: from * 60, to: to * 60 };
            assert_eq!(quiet_until(quiet, &zone, at(now)), end.map(at), "{from}-{to} at {now}");
        };
        check(22, 7, "2026-01-10T20:59:59Z", None);
        check(22, 7, "2026-01-10T21:00:00Z", Some("2026-01-11T06:00:00Z"));
        check(22, 7, "2026-01-11T05:59:59Z", Some("2026-01-11T06:00:00Z"));
        check(22, 7, "2026-01-11T06:00:00Z", None);
        check(13, 15, "2026-07-01T11:30:00Z", Some("2026-07-01T13:00:00Z"));
        check(13, 15, "2026-07-01T13:00:00Z", None);
        // The night in which clocks go forward is an hour shorter.
        check(22, 7, "2026-03-28T22:00:00Z", Some("2026-03-29T05:00:00Z"));
    }

    #[test]
    fn a_bucket_gives_its_rate_and_no_more() {
        let mut bucket = Bucket::new(20, 0);
        for left in (0..20).rev() {
            assert_eq!(bucket.available(0), left + 1);
            bucket.take();
        }
        assert_eq!(bucket.available(2999), 0);
        assert_eq!(bucket.available(bucket.ready_at(2999)), 1);
        bucket.take();
        assert_eq!(bucket.available(-5000), 0);
        let ready = bucket.ready_at(-5000);
        assert!(ready <= -5000 + 3001);
        assert_eq!(bucket.available(10_000_000), 20);
    }
}
