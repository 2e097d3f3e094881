//! Thresholds: from where on a number is a warning or critical, and how far it must come back to be fine again.

use std::time::Duration;

use crate::alert::Level;
use crate::checks::plugin::Reading;
use crate::checks::show;
use crate::diag::thresholds::Threshold;

/// From which side a value becomes a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// At or above the threshold.
    Above,
    /// Below the threshold.
    Below,
    /// At or below the threshold: time that is left.
    Within,
}

/// What the numbers count; how they are typed and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Percent,
    Count,
    /// Typed as milliseconds or as a duration.
    Millis,
    /// Typed as seconds or as a duration.
    Seconds,
}

/// The two thresholds of one dimension. Both off means that there is nothing to judge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    pub side: Side,
    pub unit: Unit,
    pub warn: Option<f64>,
    pub critical: Option<f64>,
    /// How far beyond a threshold a value must come back before an open alert gives up that level, in the same unit.
    /// None: a twentieth of the threshold.
    pub margin: Option<f64>,
}

/// Part of a threshold that is its margin unless one is set: values that dance on a threshold rarely dance wider.
const MARGIN_PART: f64 = 0.05;

impl Limits {
    /// A problem at or above; 0 is off.
    pub const fn above(unit: Unit, warn: f64, critical: f64) -> Self {
        Self { side: Side::Above, unit, warn: on(warn), critical: on(critical), margin: None }
    }

    /// A problem below; 0 is off.
    pub const fn below(unit: Unit, warn: f64, critical: f64) -> Self {
        Self { side: Side::Below, unit, warn: on(warn), critical: on(critical), margin: None }
    }

    /// A problem when no more than that time is left; zero is off. Time only runs down, so there is no margin.
    pub const fn within(warn: Duration, critical: Duration) -> Self {
        let (warn, critical) = (on(warn.as_secs_f64()), on(critical.as_secs_f64()));
        Self { side: Side::Within, unit: Unit::Seconds, warn, critical, margin: Some(0.0) }
    }

    /// What a look at the same number judges by.
    pub const fn like(unit: Unit, usual: &Threshold) -> Self {
        let side = match usual.side {
            crate::diag::thresholds::Side::Above => Side::Above,
            crate::diag::thresholds::Side::Below => Side::Below,
        };
        Self { side, unit, warn: usual.warning, critical: usual.critical, margin: None }
    }

    /// Whether both thresholds are off.
    pub fn is_off(&self) -> bool {
        self.warn.is_none() && self.critical.is_none()
    }

    /// The level of a value, and the level that an open alert keeps at that value. What is not a number is fine.
    pub fn judge(&self, value: f64) -> (Level, Level) {
        let level = self.level(value, |_| 0.0);
        let held = self.level(value, |threshold| self.margin.unwrap_or(threshold.abs() * MARGIN_PART).max(0.0));
        (level, held)
    }

    fn level(&self, value: f64, margin: impl Fn(f64) -> f64) -> Level {
        let reached = |threshold: Option<f64>| {
            threshold.is_some_and(|threshold| match self.side {
                Side::Above => value >= threshold - margin(threshold),
                Side::Below => value < threshold + margin(threshold),
                Side::Within => value <= threshold + margin(threshold),
            })
        };
        // Critical first: thresholds that are the wrong way round are refused when they are read.
        match (reached(self.critical), reached(self.warn)) {
            (true, _) => Level::Critical,
            (false, true) => Level::Warning,
            (false, false) => Level::Ok,
        }
    }

    /// A judged reading, with `current_value` and `threshold_desc`; none when both thresholds are off.
    ///
    /// `what` begins the description: `disk usage` makes `disk usage 92.3% >= warning threshold 90.0%`.
    pub fn reading(&self, check: &'static str, target: &str, what: &str, value: f64) -> Option<Reading> {
        if self.is_off() {
            return None;
        }
        let (level, held) = self.judge(value);
        let shown = self.show(value);
        let description = match self.threshold_of(level) {
            Some(threshold) => {
                let name = if level == Level::Critical { "critical" } else { "warning" };
                format!("{what} {shown} {} {name} threshold {}", self.side.sign(), self.show(threshold))
            }
            None => format!("{what} {shown}"),
        };
        let mut reading = Reading::new(check, target, level, description);
        reading.held = held;
        Some(reading.attr("current_value", shown).attr("threshold_desc", self.text()))
    }

    fn threshold_of(&self, level: Level) -> Option<f64> {
        match level {
            Level::Critical => self.critical,
            Level::Warning => self.warn,
            Level::Info | Level::Ok => None,
        }
    }

    /// `Warning ≥ 80.0%, Critical ≥ 95.0%` (contract agent-link 6.1).
    pub fn text(&self) -> String {
        let sign = match self.side {
            Side::Above => "≥",
            Side::Below => "<",
            Side::Within => "≤",
        };
        let mut text = String::new();
        for (name, threshold) in [("Warning", self.warn), ("Critical", self.critical)] {
            if let Some(threshold) = threshold {
                let comma = if text.is_empty() { "" } else { ", " };
                text = format!("{text}{comma}{name} {sign} {}", self.show(threshold));
            }
        }
        text
    }

    /// A value with its unit.
    pub fn show(&self, value: f64) -> String {
        match self.unit {
            Unit::Percent => format!("{value:.1}%"),
            Unit::Count if value.fract() == 0.0 => format!("{value:.0}"),
            Unit::Count => format!("{value:.2}"),
            Unit::Millis => format!("{value:.1}ms"),
            Unit::Seconds => show::seconds(value),
        }
    }
}

impl Side {
    fn sign(self) -> &'static str {
        match self {
            Self::Above => ">=",
            Self::Below => "<",
            Self::Within => "<=",
        }
    }
}

/// 0 is off (contract agent-link 7.3).
pub(super) const fn on(threshold: f64) -> Option<f64> {
    if threshold == 0.0 { None } else { Some(threshold) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Level::{Critical, Ok, Warning};

    #[test]
    fn thresholds_are_reached_at_their_value_and_left_by_a_margin() {
        let above = Limits::above(Unit::Percent, 80.0, 90.0);
        let below = Limits::below(Unit::Seconds, 0.0, 600.0);
        let within = Limits::within(Duration::from_secs(720 * 3600), Duration::from_secs(168 * 3600));
        let check = |limits: &Limits, value: f64, expected: (Level, Level)| {
            assert_eq!(limits.judge(value), expected, "{limits:?} {value}");
        };
        check(&above, 95.0, (Critical, Critical));
        check(&above, 90.0, (Critical, Critical));
        check(&above, 89.9, (Warning, Critical));
        check(&above, 85.4, (Warning, Warning));
        check(&above, 79.9, (Ok, Warning));
        check(&above, 75.9, (Ok, Ok));
        check(&above, f64::NAN, (Ok, Ok));
        check(&above, f64::INFINITY, (Critical, Critical));
        check(&below, 599.0, (Critical, Critical));
        check(&below, 600.0, (Ok, Critical));
        check(&below, 630.0, (Ok, Ok));
        check(&within, 168.0 * 3600.0, (Critical, Critical));
        check(&within, 169.0 * 3600.0, (Warning, Warning));
        check(&Limits { margin: Some(0.5), ..above }, 89.4, (Warning, Warning));
        check(&Limits { margin: Some(-9.0), ..above }, 89.4, (Warning, Warning));
        check(&Limits::above(Unit::Count, 0.0, 0.0), f64::MAX, (Ok, Ok));
    }

    #[test]
    fn readings_say_what_was_reached() {
        let limits = Limits::above(Unit::Percent, 90.0, 99.0);
        let reading = limits.reading("disk::space_usage", "/data", "disk usage", 92.34).unwrap();
        assert_eq!(reading.description, "disk usage 92.3% >= warning threshold 90.0%");
        assert_eq!(reading.attr_of("current_value"), "92.3%");
        assert_eq!(reading.attr_of("threshold_desc"), "Warning ≥ 90.0%, Critical ≥ 99.0%");
        let fine = limits.reading("disk::space_usage", "/data", "disk usage", 10.0).unwrap();
        assert_eq!((fine.level, fine.description.as_str()), (Ok, "disk usage 10.0%"));
        assert!(Limits::above(Unit::Percent, 0.0, 0.0).reading("a::b", "c", "d", 1.0).is_none());
        assert_eq!(Limits::below(Unit::Seconds, 0.0, 600.0).text(), "Critical < 10m0s");
        assert_eq!(Limits::above(Unit::Count, 3.0, 5.5).text(), "Warning ≥ 3, Critical ≥ 5.50");
    }
}
