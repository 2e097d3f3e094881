//! `[kv]`: what agents may keep (contract engine 7).

use std::time::Duration;

use super::check::{number, time_above_zero};
use super::error::ConfigError;
use super::json::typed;
use super::raw::Typed;
use crate::limits;

/// More is a file, and needs a larger `http.body_bytes_max` to come in.
const VALUE_BYTES_LIMIT: usize = 16 * 1024 * 1024;

/// `[kv]`.
#[derive(Clone, Debug)]
pub struct KvConfig {
    /// Keys of one agent; None is unlimited.
    pub keys_max: Option<usize>,
    pub value_bytes_max: usize,
    /// How often rows of expired keys are removed.
    pub cleanup_interval: Duration,
}

#[derive(Default)]
pub(super) struct RawKv {
    max_keys_per_agent: i64,
    max_value_bytes: i64,
    cleanup_interval: Option<String>,
}

typed!(RawKv { max_keys_per_agent, max_value_bytes, cleanup_interval });

pub(super) fn kv(typed: &Typed) -> Result<KvConfig, ConfigError> {
    let raw = &typed.raw.kv;
    Ok(KvConfig {
        keys_max: match raw.max_keys_per_agent {
            0 => Some(limits::KV_KEYS_MAX),
            negative if negative < 0 => None,
            keys => Some(number(typed, "kv.max_keys_per_agent", keys, 1, usize::MAX)?),
        },
        value_bytes_max: match raw.max_value_bytes {
            0 => limits::KV_VALUE_BYTES_MAX,
            bytes => number(typed, "kv.max_value_bytes", bytes, 1, VALUE_BYTES_LIMIT)?,
        },
        cleanup_interval: time_above_zero(
            typed,
            "kv.cleanup_interval",
            raw.cleanup_interval.as_deref(),
            limits::KV_CLEANUP_INTERVAL,
        )?,
    })
}
