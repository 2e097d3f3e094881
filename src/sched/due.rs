//! Which moments of a schedule lie between two times, and what is to become of them. Pure: no clock, no disk.

use jiff::tz::TimeZone;

use super::next::next_after;
use crate::config::{Expression, ScheduleConfig};
use crate::store::schedule_runs::{Passed, ScheduleState};

/// Moments that are counted one by one: a week of minutes. What is beyond is one long pause.
const COUNTED_MAX: usize = 10_080;
/// How far back the last moment is looked for, in milliseconds, one after the other.
const LOOK_BACK_MS: [i64; 3] = [3_600_000, 24 * 3_600_000, 40 * 24 * 3_600_000];

/// The first moment of a schedule after `after_ms`. Intervals count from `anchor`.
pub(super) fn first_after(expression: &Expression, zone: &TimeZone, anchor: i64, after_ms: i64) -> Option<i64> {
    match expression {
        Expression::Cron(cron) => next_after(cron, zone, after_ms),
        // A time that is skipped there is as much later as is skipped.
        Expression::At(at) => {
            let at = at.to_zoned(zone.clone()).ok()?.timestamp().as_millisecond();
            (at > after_ms).then_some(at)
        }
        Expression::Every(interval) => {
            let interval = i64::try_from(interval.as_millis()).ok()?;
            let past = (after_ms - anchor).div_euclid(interval).max(0);
            anchor.checked_add(interval.checked_mul(past + 1)?)
        }
    }
}

/// The next `count` moments of an expression after `from_ms`, if it began then.
pub fn preview(expression: &Expression, zone: &TimeZone, from_ms: i64, count: usize) -> Vec<i64> {
    let next = |after: &i64| first_after(expression, zone, from_ms, *after);
    std::iter::successors(next(&from_ms), next).take(count).collect()
}

/// When a schedule is due next, by what is kept of it; None while it is switched off. `hub` is `api.timezone`.
pub fn next_run(config: &ScheduleConfig, state: Option<&ScheduleState>, hub: &TimeZone, now_ms: i64) -> Option<i64> {
    let zone = config.zone_or(hub);
    let same = state.filter(|state| state.is_enabled && state.expression == config.schedule);
    let anchor = same.map_or(now_ms, |state| state.anchor);
    if config.enabled { first_after(&config.expression, zone, anchor, now_ms) } else { None }
}

/// Moments in a row, ascending.
pub(super) struct Moments {
    list: Vec<i64>,
    /// There are more between the last two of the list.
    more: bool,
}

impl Moments {
    /// Those after `after_ms`, up to `now_ms`.
    pub(super) fn between(expression: &Expression, zone: &TimeZone, anchor: i64, after_ms: i64, now_ms: i64) -> Self {
        let next = |after: i64| first_after(expression, zone, anchor, after).filter(|at| *at <= now_ms);
        let successors = |after: i64| std::iter::successors(next(after), |at| next(*at));
        let mut list: Vec<i64> = successors(after_ms).take(COUNTED_MAX).collect();
        let mut more = false;
        if let Some(&counted) = list.last().filter(|_| list.len() == COUNTED_MAX) {
            let mut late = LOOK_BACK_MS.iter().map(|back| (now_ms - back).max(counted));
            if let Some(last) = late.find_map(|from| successors(from).last()) {
                more = true;
                list.push(last);
            }
        }
        Self { list, more }
    }

    /// Both ends; None when there are none.
    pub(super) fn ends(&self) -> Option<(i64, i64)> {
        Some((*self.list.first()?, *self.list.last()?))
    }

    /// Leaves out what was `run` already. With `wanted` the last one that is left is to be run, and the rest has passed;
    /// otherwise all of it has.
    pub(super) fn sort_out(&self, run: &[i64], wanted: impl FnOnce(i64) -> bool) -> (Option<i64>, Vec<Passed>) {
        let is_fresh = |at: &&i64| run.binary_search(at).is_err();
        let chosen = self.list.iter().rev().find(is_fresh).copied().filter(|at| wanted(*at));
        let mut passed: Vec<Passed> = Vec::new();
        let mut goes_on = false;
        for (place, at) in self.list.iter().enumerate() {
            let between = self.more && place + 1 == self.list.len();
            if between && let Some(range) = passed.last_mut().filter(|_| goes_on) {
                range.last = *at - 1;
            }
            if Some(*at) == chosen || !is_fresh(&at) {
                goes_on = false;
                continue;
            }
            match passed.last_mut().filter(|_| goes_on) {
                Some(range) => {
                    range.last = *at;
                    range.moments += 1;
                }
                None => passed.push(Passed { first: *at, last: *at, moments: 1 }),
            }
            goes_on = true;
        }
        (chosen, passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const START: i64 = 1_767_225_600_000; // 2026-01-01

    fn of(text: &str) -> Expression {
        Expression::parse(text).unwrap()
    }

    #[test]
    fn intervals_count_from_their_anchor() {
        let every = of("@every 90s");
        let next = |after: i64| first_after(&every, &TimeZone::UTC, START, after).map(|at| at - START);
        assert_eq!(next(START - 1_000_000), Some(90_000));
        assert_eq!(next(START), Some(90_000));
        assert_eq!(next(START + 89_999), Some(90_000));
        assert_eq!(next(START + 90_000), Some(180_000));
        let ahead = preview(&every, &TimeZone::UTC, START, 3);
        assert_eq!(ahead, [START + 90_000, START + 180_000, START + 270_000]);
        assert!(preview(&of("0 0 31 2 *"), &TimeZone::UTC, START, 3).is_empty());
        assert_eq!(first_after(&of("@every 2540400h"), &TimeZone::UTC, START, START).map(|at| at > START), Some(true));
    }

    #[test]
    fn what_was_run_is_left_out_and_the_last_is_chosen() {
        let moments = Moments::between(&of("* * * * *"), &TimeZone::UTC, 0, START, START + 6 * MINUTE + 1);
        let at = |minute: i64| START + minute * MINUTE;
        assert_eq!(moments.ends(), Some((at(1), at(6))));
        let range = |first: i64, last: i64| Passed {
            first: at(first),
            last: at(last),
            moments: (last - first + 1).cast_unsigned(),
        };
        assert_eq!(moments.sort_out(&[], |_| true), (Some(at(6)), vec![range(1, 5)]));
        assert_eq!(moments.sort_out(&[at(3)], |_| true), (Some(at(6)), vec![range(1, 2), range(4, 5)]));
        assert_eq!(moments.sort_out(&[at(5), at(6)], |_| true), (Some(at(4)), vec![range(1, 3)]));
        assert_eq!(moments.sort_out(&[at(1)], |_| false), (None, vec![range(2, 6)]));
        let all: Vec<i64> = (1..=6).map(at).collect();
        assert_eq!(moments.sort_out(&all, |_| true), (None, vec![]));
        assert!(Moments::between(&of("* * * * *"), &TimeZone::UTC, 0, START, START + MINUTE - 1).ends().is_none());
    }

    #[test]
    fn a_year_of_minutes_is_one_pause() {
        let now = START + 365 * 24 * 60 * MINUTE + 5;
        for text in ["* * * * *", "@every 1m", "@every 7s"] {
            let moments = Moments::between(&of(text), &TimeZone::UTC, START, START, now);
            let (chosen, passed) = moments.sort_out(&[], |_| true);
            assert!(chosen.is_some_and(|at| now - at < MINUTE), "{text}");
            assert_eq!(passed.len(), 1, "{text}");
            assert_eq!(Some(passed[0].last), chosen.map(|at| at - 1), "{text}");
            assert_eq!(passed[0].moments, COUNTED_MAX as u64);
        }
    }
}
