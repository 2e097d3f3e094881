//! One table of the configuration, typed: every key is asked for once, and what nobody asked for is refused.
//!
//! The names of keys are the reference's where the contract names them (agent-link 7.3): durations are numbers of
//! seconds or texts like `90s`, `1h30m`, `2d`; sizes are bytes or texts like `50MB`; a threshold of 0 is off.
//!
//! Thresholds are a table below the name of the dimension, `[checks.disk.space_usage]`:
//!
//! | key | meaning |
//! | --- | --- |
//! | `warn_ge`, `critical_ge` | at or above; for what is bad when it is small `warn_lt`, `critical_lt`; for time that is left `warn_within`, `critical_within`. `warn`, `crit` and `critical` are understood everywhere |
//! | `margin` | how far beyond a threshold the value must come back to leave that level; a twentieth of it by default |
//! | `enabled` | `false` switches the dimension off, as `space_usage = false` does |
//!
//! A table that names one threshold switches the other off; one that names none keeps both defaults.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::alert::Level;
use crate::checks::limits::{Limits, Side, Unit, on};
use crate::config::parse_go_duration;
use crate::rt::text::nearest;

/// Why a setting cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    /// Its path in the file: `checks.disk.space_usage.warn_ge`.
    pub key: String,
    /// What is wrong and what to write instead.
    pub reason: String,
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

impl std::error::Error for SettingError {}

/// A view on one table. A getter gives the default when the key is absent.
pub struct Settings {
    path: String,
    table: Map<String, Value>,
    /// What was asked for, so that a typing error can be told what was meant.
    known: Vec<&'static str>,
}

impl Settings {
    /// The table at `path`; nothing at all is an empty table.
    pub fn new(path: &str, value: &Value) -> Result<Self, SettingError> {
        let table = match value {
            Value::Object(table) => table.clone(),
            Value::Null => Map::new(),
            _ => return Err(SettingError { key: path.to_owned(), reason: "must be a table".to_owned() }),
        };
        Ok(Self { path: path.to_owned(), table, known: Vec::new() })
    }

    /// Where the table stands in the file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the key is there.
    pub fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// An error about one key, for rules that no getter knows.
    pub fn error(&self, name: &str, reason: impl Into<String>) -> SettingError {
        SettingError { key: format!("{}.{name}", self.path), reason: reason.into() }
    }

    /// The raw value; also for keys with a shape of their own.
    pub fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.table.remove(name)
    }

    /// A text.
    pub fn text(&mut self, name: &'static str, default: &str) -> Result<String, SettingError> {
        match self.take(name) {
            None => Ok(default.to_owned()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(self.error(name, "must be a text")),
        }
    }

    /// One of a few words.
    pub fn word(
        &mut self,
        name: &'static str,
        words: &[&'static str],
        default: &'static str,
    ) -> Result<&'static str, SettingError> {
        let text = self.text(name, default)?;
        let found = words.iter().find(|word| **word == text);
        found.copied().ok_or_else(|| self.error(name, format!("must be one of {}", words.join(", "))))
    }

    /// A list of texts; a single text counts as a list of one.
    pub fn texts(&mut self, name: &'static str, default: &[&str]) -> Result<Vec<String>, SettingError> {
        let list = match self.take(name) {
            None => return Ok(default.iter().map(|&text| text.to_owned()).collect()),
            Some(Value::Array(list)) => list,
            Some(text) => vec![text],
        };
        let texts: Option<Vec<String>> = list.iter().map(|text| text.as_str().map(str::to_owned)).collect();
        texts.ok_or_else(|| self.error(name, "must be a list of texts"))
    }

    /// A list of texts that must not be empty: a check of nothing is a mistake.
    pub fn some_texts(&mut self, name: &'static str, what: &str) -> Result<Vec<String>, SettingError> {
        let texts = self.texts(name, &[])?;
        if texts.iter().all(|text| text.trim().is_empty()) {
            return Err(self.error(name, format!("is needed: {what}")));
        }
        Ok(texts)
    }

    /// Any number.
    pub fn number(&mut self, name: &'static str, default: f64) -> Result<f64, SettingError> {
        match self.take(name) {
            None => Ok(default),
            Some(value) => value.as_f64().filter(|n| n.is_finite()).ok_or_else(|| self.error(name, "must be a number")),
        }
    }

    /// A number from 0 to 100.
    pub fn percent(&mut self, name: &'static str, default: f64) -> Result<f64, SettingError> {
        let value = self.number(name, default)?;
        if (0.0..=100.0).contains(&value) { Ok(value) } else { Err(self.error(name, "must be from 0 to 100")) }
    }

    /// A whole number from `min` to `max`.
    pub fn whole(&mut self, name: &'static str, default: u64, min: u64, max: u64) -> Result<u64, SettingError> {
        let Some(value) = self.take(name) else { return Ok(default) };
        let whole = value.as_u64().filter(|whole| (min..=max).contains(whole));
        whole.ok_or_else(|| self.error(name, format!("must be a whole number from {min} to {max}")))
    }

    /// True or false.
    pub fn flag(&mut self, name: &'static str, default: bool) -> Result<bool, SettingError> {
        match self.take(name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.error(name, "must be true or false")),
        }
    }

    /// A time: seconds as a number, or `90s`, `10m`, `1h30m`, `2d`.
    pub fn duration(&mut self, name: &'static str, default: Duration) -> Result<Duration, SettingError> {
        match self.take(name) {
            None => Ok(default),
            Some(value) => duration_of(&value).ok_or_else(|| {
                self.error(name, "must be a time: seconds as a number, or a text like \"90s\", \"10m\" or \"1h30m\"")
            }),
        }
    }

    /// A time of at least `min`.
    pub fn duration_from(
        &mut self,
        name: &'static str,
        default: Duration,
        min: Duration,
    ) -> Result<Duration, SettingError> {
        let time = self.duration(name, default)?;
        if time < min {
            return Err(self.error(name, format!("must be at least {}s", min.as_secs_f64())));
        }
        Ok(time)
    }

    /// A number of bytes: a number, or `50MB`, `1GB`.
    pub fn size(&mut self, name: &'static str, default: u64) -> Result<u64, SettingError> {
        match self.take(name) {
            None => Ok(default),
            Some(value) => size_of(&value)
                .ok_or_else(|| self.error(name, "must be a size: bytes as a number, or a text like \"50MB\"")),
        }
    }

    /// A level that an alert may have.
    pub fn level(&mut self, name: &'static str, default: Level) -> Result<Level, SettingError> {
        let Some(value) = self.take(name) else { return Ok(default) };
        let level = value.as_str().and_then(|text| {
            [Level::Critical, Level::Warning, Level::Info]
                .into_iter()
                .find(|level| level.name().eq_ignore_ascii_case(text))
        });
        level.ok_or_else(|| self.error(name, "must be Critical, Warning or Info"))
    }

    /// A table below this one; empty when absent. Whoever takes it also finishes it.
    pub fn section(&mut self, name: &'static str) -> Result<Self, SettingError> {
        let value = self.take(name).unwrap_or(Value::Null);
        Self::new(&format!("{}.{name}", self.path), &value)
    }

    /// The thresholds of one dimension: `[... .name]`, or `name = false`.
    pub fn limits(&mut self, name: &'static str, default: Limits) -> Result<Limits, SettingError> {
        if self.switched_off(name) {
            return Ok(Limits { warn: None, critical: None, ..default });
        }
        let mut section = self.section(name)?;
        let limits = section.own_limits(default)?;
        section.finish()?;
        Ok(limits)
    }

    /// Whether the key is `false`, which switches a dimension off; it is taken then.
    pub fn switched_off(&mut self, name: &'static str) -> bool {
        let off = self.table.get(name) == Some(&Value::Bool(false));
        if off || self.table.get(name) == Some(&Value::Bool(true)) {
            // True says what is so anyway.
            self.take(name);
        }
        off
    }

    /// The thresholds that stand in this table itself, beside other keys.
    pub fn own_limits(&mut self, default: Limits) -> Result<Limits, SettingError> {
        let (warn_names, critical_names): ([&'static str; 2], [&'static str; 3]) = match default.side {
            Side::Above => (["warn_ge", "warn"], ["critical_ge", "critical", "crit"]),
            Side::Below => (["warn_lt", "warn"], ["critical_lt", "critical", "crit"]),
            Side::Within => (["warn_within", "warn"], ["critical_within", "critical", "crit"]),
        };
        let enabled = self.flag("enabled", true)?;
        let warn = self.threshold(&warn_names, default.unit)?;
        let critical = self.threshold(&critical_names, default.unit)?;
        let margin = self.threshold(&["margin"], default.unit)?.or(default.margin);
        if !enabled {
            return Ok(Limits { warn: None, critical: None, ..default });
        }
        let (warn, critical) = match (warn, critical) {
            (None, None) => (default.warn, default.critical),
            (warn, critical) => (warn.and_then(on), critical.and_then(on)),
        };
        if let (Some(low), Some(high)) = (warn, critical)
            && if default.side == Side::Above { low > high } else { low < high }
        {
            let reason = format!("is reached after {}: a warning comes first", critical_names[0]);
            return Err(self.error(warn_names[0], reason));
        }
        Ok(Limits { warn, critical, margin, ..default })
    }

    fn threshold(&mut self, names: &[&'static str], unit: Unit) -> Result<Option<f64>, SettingError> {
        let mut found = None;
        for &name in names {
            if self.has(name) {
                if found.is_some() {
                    return Err(self.error(name, format!("is there twice: keep {}", names[0])));
                }
                found = Some(match unit {
                    Unit::Percent => self.percent(name, 0.0)?,
                    Unit::Count => self.number(name, 0.0)?,
                    Unit::Millis if self.table.get(name).is_some_and(Value::is_number) => self.number(name, 0.0)?,
                    Unit::Millis => self.duration(name, Duration::ZERO)?.as_secs_f64() * 1000.0,
                    Unit::Seconds => self.duration(name, Duration::ZERO)?.as_secs_f64(),
                });
                if found.is_some_and(|value| value < 0.0) {
                    return Err(self.error(name, "must not be negative"));
                }
            } else {
                self.known.push(name);
            }
        }
        Ok(found)
    }

    /// Refuses keys that nobody asked for.
    pub fn finish(self) -> Result<(), SettingError> {
        let Some(unknown) = self.table.keys().next() else { return Ok(()) };
        let hint = match nearest(unknown, &self.known) {
            Some(meant) => format!("unknown key; did you mean {meant}?"),
            None => format!("unknown key; known are {}", self.known.join(", ")),
        };
        Err(self.error(unknown, hint))
    }
}

fn duration_of(value: &Value) -> Option<Duration> {
    if let Some(seconds) = value.as_f64() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let text = value.as_str()?.trim();
    if let Some(days) = text.strip_suffix('d') {
        return Some(Duration::from_secs(u64::from(days.parse::<u32>().ok()?) * 86_400));
    }
    parse_go_duration(text)
}

fn size_of(value: &Value) -> Option<u64> {
    if let Some(bytes) = value.as_u64() {
        return Some(bytes);
    }
    let text = value.as_str()?.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        "T" | "TB" | "TIB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(value: &Value) -> Settings {
        Settings::new("checks.x", value).unwrap()
    }

    type Getter = fn(&mut Settings) -> Result<(), SettingError>;

    #[test]
    fn every_kind_is_read_or_refused_with_its_path() {
        let mut good = settings(&json!({"text": "a", "one": "a", "many": ["a", "b"], "number": 1.5, "whole": 3,
            "flag": true, "seconds": 1.5, "time": "1h30m", "days": "2d", "size": "50MB", "level": "warning"}));
        assert_eq!(good.text("text", "").unwrap(), "a");
        assert_eq!(good.texts("one", &[]).unwrap(), ["a"]);
        assert_eq!(good.some_texts("many", "names").unwrap(), ["a", "b"]);
        assert!((good.number("number", 0.0).unwrap() - 1.5).abs() < f64::EPSILON);
        assert_eq!(good.whole("whole", 0, 1, 3).unwrap(), 3);
        assert!(good.flag("flag", false).unwrap());
        assert_eq!(good.duration("seconds", Duration::ZERO).unwrap(), Duration::from_millis(1500));
        assert_eq!(good.duration("time", Duration::ZERO).unwrap(), Duration::from_secs(5400));
        assert_eq!(good.duration("days", Duration::ZERO).unwrap(), Duration::from_secs(172_800));
        assert_eq!(good.size("size", 0).unwrap(), 50 << 20);
        assert_eq!(good.level("level", Level::Critical).unwrap(), Level::Warning);
        assert_eq!(good.text("absent", "default").unwrap(), "default");
        good.finish().unwrap();

        let bad: [(Value, Getter); 9] = [
            (json!(1), |s| s.text("k", "").map(drop)),
            (json!([1]), |s| s.texts("k", &[]).map(drop)),
            (json!([" "]), |s| s.some_texts("k", "names").map(drop)),
            (json!("1"), |s| s.number("k", 0.0).map(drop)),
            (json!(-1), |s| s.whole("k", 0, 0, 9).map(drop)),
            (json!("yes"), |s| s.flag("k", false).map(drop)),
            (json!(-1), |s| s.duration("k", Duration::ZERO).map(drop)),
            (json!("5 parsecs"), |s| s.size("k", 0).map(drop)),
            (json!("Ok"), |s| s.level("k", Level::Info).map(drop)),
        ];
        for (value, get) in bad {
            let error = get(&mut settings(&json!({"k": value}))).unwrap_err();
            assert_eq!(error.key, "checks.x.k");
            assert!(error.reason.starts_with("must be") || error.reason.starts_with("is needed"), "{error}");
        }
        assert_eq!(Settings::new("checks.x", &json!(3)).err().unwrap().to_string(), "checks.x: must be a table");
    }

    #[test]
    fn unknown_keys_are_refused_and_told_what_was_meant() {
        let mut wrong = settings(&json!({"intervall": 3}));
        wrong.duration("interval", Duration::ZERO).unwrap();
        assert_eq!(wrong.finish().unwrap_err().to_string(), "checks.x.intervall: unknown key; did you mean interval?");
        let mut wrong = settings(&json!({"zzzzzzzz": 3}));
        wrong.flag("enabled", true).unwrap();
        assert!(wrong.finish().unwrap_err().reason.ends_with("known are enabled"));
    }

    #[test]
    fn thresholds_have_the_names_of_their_side() {
        let limits = |value: Value, default: Limits| settings(&json!({"d": value})).limits("d", default);
        let percent = Limits::above(Unit::Percent, 80.0, 90.0);
        let both = |value: Value, default: Limits| limits(value, default).map(|found| (found.warn, found.critical));
        assert_eq!(both(json!({"warn_ge": 70, "critical_ge": 75.5}), percent), Ok((Some(70.0), Some(75.5))));
        assert_eq!(both(json!({"warn": 70}), percent), Ok((Some(70.0), None)));
        assert_eq!(both(json!({"crit": 99, "warn": 0}), percent), Ok((None, Some(99.0))));
        assert_eq!(both(json!({"margin": 1}), percent), Ok((Some(80.0), Some(90.0))));
        assert_eq!(limits(json!({"margin": 1}), percent).unwrap().margin, Some(1.0));
        for off in [json!(false), json!({"enabled": false}), json!({"warn_ge": 0})] {
            assert!(limits(off, percent).unwrap().is_off());
        }
        assert_eq!(both(json!(true), percent), Ok((Some(80.0), Some(90.0))));
        let boot = Limits::below(Unit::Seconds, 0.0, 600.0);
        assert_eq!(both(json!({"critical_lt": "5m", "warn_lt": "10m"}), boot), Ok((Some(600.0), Some(300.0))));
        let delay = Limits::above(Unit::Millis, 0.0, 0.0);
        assert_eq!(both(json!({"warn_ge": 20, "critical_ge": "1.5s"}), delay), Ok((Some(20.0), Some(1500.0))));
        for (wrong, key) in [
            (json!({"warn_ge": 95, "critical_ge": 90}), "checks.x.d.warn_ge"),
            (json!({"warn_lt": 5}), "checks.x.d.warn_lt"),
            (json!({"warn": 5, "warn_ge": 5}), "checks.x.d.warn"),
            (json!({"warn": 101}), "checks.x.d.warn"),
            (json!(7), "checks.x.d"),
        ] {
            assert_eq!(both(wrong, percent).unwrap_err().key, key);
        }
    }
}
