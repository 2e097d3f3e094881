//! Open alerts as they are kept in the file of the state.
//!
//! Moments are kept as wall-clock time, for steady time ends with the process. A clock that was set back makes them
//! as young as now, never older than the file says.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::alert::Level;
use crate::checks::ledger::{ALERTS_MAX, Alert, Ledger, Told};
use crate::checks::plugin::Moment;
use crate::rt::order::gather;

impl Ledger {
    /// All alerts.
    pub(super) fn to_json(&self, now: Moment) -> Value {
        let wall = |steady_ms: i64| now.wall_ms - (now.steady_ms - steady_ms);
        let alerts = self.alerts.iter().map(|(identity, alert)| {
            let told: Map<String, Value> = gather(alert.told.iter().map(|(name, told)| {
                let told = json!({"level": told.level.name(), "at_ms": wall(told.at_ms), "count": told.count});
                (name.clone(), told)
            }));
            json!({"identity": identity, "plugin": alert.plugin, "key": alert.key, "labels": alert.labels,
                   "attrs": alert.attrs, "description": alert.description, "level": alert.level.name(),
                   "since_ms": wall(alert.since_ms), "told": told})
        });
        Value::Array(alerts.collect())
    }

    /// What [`Ledger::to_json`] gave; what cannot be understood is left out. Only `notifiers` that still exist are told
    /// how it goes on.
    pub(super) fn from_json(value: &Value, now: Moment, notifiers: &[&str]) -> Self {
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let mut alerts = BTreeMap::new();
        for value in list.iter().take(ALERTS_MAX) {
            if let Some((identity, alert)) = alert_of(value, now, notifiers) {
                alerts.insert(identity, alert);
            }
        }
        Self { alerts, changed: false }
    }
}

fn alert_of(value: &Value, now: Moment, notifiers: &[&str]) -> Option<(String, Alert)> {
    let steady = |value: &Value| Some(now.steady_ms - now.wall_ms.saturating_sub(value.as_i64()?).max(0));
    let text = |name: &str| value.get(name)?.as_str().map(str::to_owned);
    let level = |value: &Value| Level::from_name(value.get("level")?.as_str()?);
    let mut told = BTreeMap::new();
    for (name, value) in value.get("told")?.as_object()? {
        let count = u32::try_from(value.get("count")?.as_u64()?).ok()?;
        if notifiers.contains(&name.as_str()) {
            told.insert(name.clone(), Told { level: level(value)?, at_ms: steady(value.get("at_ms")?)?, count });
        }
    }
    let alert = Alert {
        plugin: text("plugin")?,
        owner: None,
        key: text("key")?,
        labels: texts(value.get("labels")?)?,
        attrs: texts(value.get("attrs")?)?,
        description: text("description")?,
        level: level(value)?,
        since_ms: steady(value.get("since_ms")?)?,
        better_rounds: 0,
        better_since_ms: 0,
        missed_rounds: 0,
        told,
    };
    Some((text("identity")?, alert))
}

fn texts(value: &Value) -> Option<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for (name, value) in value.as_object()? {
        texts.insert(name.clone(), value.as_str()?.to_owned());
    }
    Some(texts)
}
