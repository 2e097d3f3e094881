//! What a tool concludes from a number: level, subject, value, and the threshold it was held against.

use serde_json::{Value, json};

use crate::diag::thresholds::{Side, Threshold};

/// How bad it is. Ordered: the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Ok,
    Warning,
    Critical,
}

impl Level {
    /// As findings spell it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// One judged number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// In words, e.g. `space on /home`.
    pub(super) what: String,
    pub(super) value: f64,
    pub(super) threshold: Threshold,
}

impl Finding {
    /// Judges `value`.
    pub(super) fn judge(threshold: &Threshold, what: impl Into<String>, value: f64) -> Self {
        let reached = |limit: Option<f64>| match (limit, threshold.side) {
            (Some(limit), Side::Above) => value >= limit,
            (Some(limit), Side::Below) => value < limit,
            (None, _) => false,
        };
        let level = if reached(threshold.critical) {
            Level::Critical
        } else if reached(threshold.warning) {
            Level::Warning
        } else {
            Level::Ok
        };
        Self { level, what: what.into(), value, threshold: *threshold }
    }

    /// `{"level","what","value","unit"?,"threshold"}`.
    pub(super) fn to_json(&self) -> Value {
        let mut object = json!({
            "level": self.level.as_str(),
            "what": self.what,
            "value": round1(self.value),
            "threshold": threshold_text(&self.threshold),
        });
        if !self.threshold.unit.is_empty()
            && let Some(map) = object.as_object_mut()
        {
            map.insert("unit".to_owned(), json!(self.threshold.unit));
        }
        object
    }
}

/// `cpu_used_percent: warning from 80 %, critical from 90 %`.
fn threshold_text(threshold: &Threshold) -> String {
    let word = match threshold.side {
        Side::Above => "from",
        Side::Below => "below",
    };
    let limit = |level: Level, value: Option<f64>| {
        let space = if threshold.unit.is_empty() { "" } else { " " };
        value.map(|value| format!("{} {word} {value}{space}{}", level.as_str(), threshold.unit))
    };
    let limits: Vec<String> = [limit(Level::Warning, threshold.warning), limit(Level::Critical, threshold.critical)]
        .into_iter()
        .flatten()
        .collect();
    format!("{}: {}", threshold.name, limits.join(", "))
}

/// A number as reports show it: one digit behind the point, whole numbers stay whole.
/// Anything that is not a number becomes null.
pub(super) fn round1(value: f64) -> Value {
    let rounded = (value * 10.0).round() / 10.0;
    if !rounded.is_finite() {
        return Value::Null;
    }
    if rounded.fract() == 0.0 && rounded.abs() < 9e15 {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53: exact")]
        return json!(rounded as i64);
    }
    json!(rounded)
}

/// `part` of `whole` in percent; 0 of nothing is 0.
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    float(part) / float(whole) * 100.0
}

/// Counters as numbers to calculate with; beyond 2^53 the last digits are lost, which no report shows.
#[expect(clippy::cast_precision_loss, reason = "only shown rounded")]
pub(crate) fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::thresholds::{CPU_USED_PERCENT, DEFAULT_ROUTES, MOUNT_ANSWER_MS};

    #[test]
    fn a_threshold_is_reached_at_its_value() {
        let check = |threshold, value: f64, expected: Level| {
            assert_eq!(Finding::judge(threshold, "x", value).level, expected, "{value}");
        };
        check(&CPU_USED_PERCENT, 79.9, Level::Ok);
        check(&CPU_USED_PERCENT, 80.0, Level::Warning);
        check(&CPU_USED_PERCENT, 90.0, Level::Critical);
        check(&CPU_USED_PERCENT, f64::NAN, Level::Ok);
        check(&DEFAULT_ROUTES, 0.0, Level::Warning);
        check(&DEFAULT_ROUTES, 1.0, Level::Ok);
        check(&MOUNT_ANSWER_MS, 2_000.0, Level::Critical);
    }

    #[test]
    fn a_finding_names_its_threshold() {
        assert_eq!(
            Finding::judge(&CPU_USED_PERCENT, "CPU use", 81.26).to_json(),
            json!({"level": "warning", "what": "CPU use", "value": 81.3, "unit": "%",
                   "threshold": "cpu_used_percent: warning from 80 %, critical from 90 %"})
        );
        assert_eq!(
            Finding::judge(&DEFAULT_ROUTES, "default routes", 0.0).to_json(),
            json!({"level": "warning", "what": "default routes", "value": 0,
                   "threshold": "default_routes: warning below 1"})
        );
    }

    #[test]
    fn odd_numbers_do_not_become_nonsense() {
        assert_eq!(round1(f64::NAN), Value::Null);
        assert_eq!(round1(f64::INFINITY), Value::Null);
        assert_eq!(round1(2.04), json!(2));
        assert_eq!(round1(-2.06), json!(-2.1));
        assert!((percent(1, 0) - 0.0).abs() < f64::EPSILON);
        assert!((percent(u64::MAX, u64::MAX) - 100.0).abs() < 1e-9);
    }
}
