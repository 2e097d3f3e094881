//! Ranges: small checks that say which key is wrong and what it may be.

use std::time::Duration;

use super::Tier;
use super::duration::parse_go_duration;
use super::error::ConfigError;
use super::raw::Typed;

/// A whole number from `min` to `max`.
pub(super) fn number<T>(typed: &Typed, key: &str, value: i64, min: T, max: T) -> Result<T, ConfigError>
where
    T: TryFrom<i64> + PartialOrd + Copy + std::fmt::Display,
{
    T::try_from(value).ok().filter(|number| *number >= min && *number <= max).ok_or_else(|| {
        // An upper bound is worth naming only when it is ours and not that of the type.
        let is_ours = T::try_from(i64::from(u32::MAX) * 1024).map_or(true, |huge| max < huge);
        let bounds = if is_ours && value > 0 { format!("from {min} to {max}") } else { format!("{min} or more") };
        typed.bad(key, format!("must be {bounds}, got {value}"))
    })
}

/// A whole number of at least `min`, or the default.
pub(super) fn at_least(
    typed: &Typed,
    key: &str,
    value: Option<i64>,
    min: usize,
    default: usize,
) -> Result<usize, ConfigError> {
    value.map_or(Ok(default), |value| number(typed, key, value, min, usize::MAX))
}

/// A duration, or the default.
pub(super) fn time(typed: &Typed, key: &str, text: Option<&str>, default: Duration) -> Result<Duration, ConfigError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(default) };
    parse_go_duration(text).ok_or_else(|| typed.bad(key, format!("must be a duration such as \"1h30m\", got {text:?}")))
}

/// A duration above zero, or the default.
pub(super) fn time_above_zero(
    typed: &Typed,
    key: &str,
    text: Option<&str>,
    default: Duration,
) -> Result<Duration, ConfigError> {
    match time(typed, key, text, default)? {
        Duration::ZERO => Err(typed.bad(key, "must be more than 0")),
        time => Ok(time),
    }
}

/// A permission tier; empty is the default given.
pub(super) fn tier(typed: &Typed, key: &str, text: &str, default: Tier) -> Result<Tier, ConfigError> {
    if text.is_empty() {
        return Ok(default);
    }
    let refuse = || typed.bad(key, format!("must be autonomous, supervised or restricted, got {text:?}"));
    Tier::from_name(text).ok_or_else(refuse)
}

/// One of a few words.
pub(super) fn word(typed: &Typed, key: &str, text: &str, words: &[&str]) -> Result<(), ConfigError> {
    if words.contains(&text) {
        return Ok(());
    }
    Err(typed.bad(key, format!("must be one of {}, got {text:?}", words.join(", "))))
}

/// Text that must not be empty.
pub(super) fn given(typed: &Typed, key: &str, text: &str) -> Result<(), ConfigError> {
    if text.is_empty() { Err(typed.bad(key, "must be given")) } else { Ok(()) }
}
