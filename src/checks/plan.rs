//! What the configuration asks for: the instances of checks that run, each with its interval and its alerting.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::alert::{RESERVED_LABELS, key_of};
use crate::checks::plugin::Check;
use crate::checks::registry::{Defaults, PLUGINS, Plugin};
use crate::checks::settings::{SettingError, Settings};
use crate::rt::order::Order;
use crate::rt::text::nearest;

/// Faster is no check any more but a load.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Most checks of one machine: more is a mistake in a generated file.
const JOBS_MAX: usize = 1000;

/// All checks that run.
pub struct Plan {
    pub(super) jobs: Vec<Job>,
}

/// What `[global]` says, and goes for all checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Global {
    /// Of checks that name none.
    pub interval: Duration,
    /// Of every event; may name `from_hostname` and `from_hostip` (contract agent-link 7.3).
    pub labels: BTreeMap<String, String>,
}

/// One check and what goes with it.
pub(super) struct Job {
    pub(super) spec: Spec,
    pub(super) check: Box<dyn Check>,
}

/// What the engine knows of a check.
pub(super) struct Spec {
    pub(super) plugin: &'static str,
    /// Its state is kept under this name. It says what the instance looks at, so that an edited one starts anew.
    pub(super) id: String,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) alerting: Alerting,
}

/// When people are told (contract agent-link 6.3, 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alerting {
    pub(super) disabled: bool,
    pub(super) for_duration: Duration,
    /// Zero: never again for the same level.
    pub(super) repeat_interval: Duration,
    /// Most notifications of one level; 0 is no limit.
    pub(super) repeat_number: u32,
    pub(super) disable_recovery_notification: bool,
    pub(super) recover_rounds: u32,
    pub(super) recover_after: Duration,
}

/// The interval of contract agent-link 6.3.
const INTERVAL: Duration = Duration::from_secs(30);

impl Global {
    /// Reads `[global]`.
    pub fn new(table: &Value) -> Result<Self, SettingError> {
        let mut settings = Settings::new("global", table)?;
        let interval = settings.duration_from("interval", INTERVAL, INTERVAL_MIN)?;
        let labels = labels(&mut settings, &["from_hostname", "from_hostip"])?;
        settings.finish()?;
        Ok(Self { interval, labels })
    }
}

impl Plan {
    /// Reads `[checks]`. `interval` is the global one.
    pub fn new(checks: &Value, interval: Duration) -> Result<Self, SettingError> {
        let empty = serde_json::Map::new();
        let tables = match checks {
            Value::Object(tables) => tables,
            Value::Null => &empty,
            _ => return Err(SettingError { key: "checks".to_owned(), reason: "must be a table".to_owned() }),
        };
        for name in tables.keys() {
            if !PLUGINS.iter().any(|plugin| plugin.name == name) {
                return Err(unknown_plugin(&format!("checks.{name}"), name));
            }
        }
        let mut plan = Self { jobs: Vec::new() };
        for plugin in PLUGINS {
            let path = format!("checks.{}", plugin.name);
            match tables.get(plugin.name) {
                None if plugin.by_default => plan.add(plugin, &path, &Value::Null, interval)?,
                None => {}
                Some(Value::Array(instances)) => {
                    for (index, instance) in instances.iter().enumerate() {
                        plan.add(plugin, &format!("{path}[{index}]"), instance, interval)?;
                    }
                }
                Some(instance) => plan.add(plugin, &path, instance, interval)?,
            }
        }
        Ok(plan)
    }

    /// Only those plugins.
    pub fn only(mut self, names: &[String]) -> Result<Self, SettingError> {
        for name in names {
            if !PLUGINS.iter().any(|plugin| plugin.name == name) {
                return Err(unknown_plugin(name, name));
            }
            if !self.jobs.iter().any(|job| job.spec.plugin == name) {
                let reason =
                    format!("nothing to check: there is no [checks.{name}] in the configuration, or it is off");
                return Err(SettingError { key: name.clone(), reason });
            }
        }
        self.jobs.retain(|job| names.iter().any(|name| name == job.spec.plugin));
        Ok(self)
    }

    /// The names of the plugins that run, sorted.
    pub fn plugins(&self) -> Vec<String> {
        let mut names: Vec<String> = self.jobs.iter().map(|job| job.spec.plugin.to_owned()).collect();
        names.order();
        names.dedup();
        names
    }

    fn add(&mut self, plugin: &Plugin, path: &str, table: &Value, global: Duration) -> Result<(), SettingError> {
        let mut settings = Settings::new(path, table)?;
        let enabled = settings.flag("enabled", true)?;
        let interval = settings.duration_from("interval", plugin.defaults.interval.unwrap_or(global), INTERVAL_MIN)?;
        let timeout = plugin.defaults.timeout;
        let labels = labels(&mut settings, &[])?;
        let alerting = alerting(&mut settings, &plugin.defaults)?;
        let checks = (plugin.build)(&mut settings)?;
        settings.finish()?;
        if !enabled {
            return Ok(());
        }
        let table = BTreeMap::from([(plugin.name.to_owned(), table.to_string())]);
        let id = format!("{}-{}", plugin.name, &key_of(&table)[..12]);
        for (index, check) in checks.into_iter().enumerate() {
            let id = format!("{id}-{index}");
            let spec = Spec { plugin: plugin.name, id, interval, timeout, labels: labels.clone(), alerting };
            self.jobs.push(Job { spec, check });
        }
        if self.jobs.len() > JOBS_MAX {
            let reason = format!("more than {JOBS_MAX} checks on one machine");
            return Err(SettingError { key: path.to_owned(), reason });
        }
        Ok(())
    }
}

fn unknown_plugin(key: &str, name: &str) -> SettingError {
    let known: Vec<&str> = PLUGINS.iter().map(|plugin| plugin.name).collect();
    let hint = match nearest(name, &known) {
        Some(meant) => format!("; did you mean {meant}?"),
        None => format!("; there are {}", known.join(", ")),
    };
    SettingError { key: key.to_owned(), reason: format!("no such check{hint}") }
}

fn labels(settings: &mut Settings, allowed: &[&str]) -> Result<BTreeMap<String, String>, SettingError> {
    let Some(value) = settings.take("labels") else { return Ok(BTreeMap::new()) };
    let Value::Object(table) = value else {
        return Err(settings.error("labels", "must be a table of texts"));
    };
    let mut labels = BTreeMap::new();
    for (name, value) in table {
        let Value::String(value) = value else {
            return Err(settings.error(&format!("labels.{name}"), "must be a text"));
        };
        let checked = if allowed.contains(&name.as_str()) { Ok(()) } else { check_label(&name) };
        checked.map_err(|reason| settings.error(&format!("labels.{name}"), reason))?;
        labels.insert(name, value);
    }
    Ok(labels)
}

/// Whether a user may give that name to a label: those that identify an event are taken (contract agent-link 6.1).
pub fn check_label(name: &str) -> Result<(), String> {
    if RESERVED_LABELS.contains(&name) {
        return Err("is a reserved name: choose another one for this label".to_owned());
    }
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err("is no name for a label".to_owned());
    }
    Ok(())
}

/// Puts what is known of this machine into the values of labels (contract agent-link 7.2, 7.3): `${HOSTNAME}`,
/// `${SHORT_HOSTNAME}` and `${IP}`, anywhere in the text. Other names stay as they are.
pub fn expand_labels(labels: &mut BTreeMap<String, String>, host_name: &str, address: &str) {
    let short = host_name.split('.').next().unwrap_or(host_name);
    for value in labels.values_mut().filter(|value| value.contains("${")) {
        *value = value.replace("${HOSTNAME}", host_name).replace("${SHORT_HOSTNAME}", short).replace("${IP}", address);
    }
}

fn alerting(settings: &mut Settings, defaults: &Defaults) -> Result<Alerting, SettingError> {
    let mut section = settings.section("alerting")?;
    let mut whole = |name, default: u32, min| {
        section.whole(name, u64::from(default), min, 1_000_000).map(|n| u32::try_from(n).unwrap_or(u32::MAX))
    };
    let repeat_number = whole("repeat_number", defaults.repeat_number, 0)?;
    let recover_rounds = whole("recover_rounds", defaults.recover_rounds, 1)?;
    let alerting = Alerting {
        disabled: section.flag("disabled", false)?,
        for_duration: section.duration("for_duration", defaults.for_duration)?,
        repeat_interval: section.duration("repeat_interval", defaults.repeat_interval)?,
        repeat_number,
        disable_recovery_notification: section.flag("disable_recovery_notification", false)?,
        recover_rounds,
        recover_after: section.duration("recover_after", defaults.recover_after)?,
    };
    section.finish()?;
    Ok(alerting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GLOBAL: Duration = Duration::from_secs(30);

    fn jobs(checks: &Value) -> Vec<Job> {
        Plan::new(checks, GLOBAL).unwrap().jobs
    }

    #[test]
    fn without_a_word_the_usual_checks_run() {
        let plan = Plan::new(&Value::Null, GLOBAL).unwrap();
        for name in ["cpu", "disk", "diskio", "mem", "systemd", "uptime"] {
            assert!(plan.plugins().iter().any(|plugin| plugin == name), "{name}");
        }
        assert!(!plan.plugins().iter().any(|plugin| plugin == "netif"));
        let without = jobs(&json!({"cpu": {"enabled": false}, "mem": {"enabled": false, "memory_usage": {"warn": 1}}}));
        assert!(!without.iter().any(|job| ["cpu", "mem"].contains(&job.spec.plugin)));
        // The shipped values of contract agent-link 7.5.
        let cpu = &plan.jobs.iter().find(|job| job.spec.plugin == "cpu").unwrap().spec;
        let rules = cpu.alerting;
        assert_eq!((cpu.interval, rules.for_duration), (GLOBAL, Duration::from_secs(120)));
        assert_eq!((rules.repeat_interval, rules.repeat_number), (Duration::from_secs(300), 3));
    }

    #[test]
    fn instances_have_settings_labels_and_states_of_their_own() {
        let table = json!({"procnum": [
            {"search": "a", "interval": "5s", "labels": {"room": "attic"}},
            {"search": "b", "alerting": {"disabled": true, "for_duration": 7, "repeat_number": 0, "recover_rounds": 4}},
        ]});
        let all = jobs(&table);
        let found: Vec<&Spec> = all.iter().map(|job| &job.spec).filter(|spec| spec.plugin == "procnum").collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].interval, found[1].interval), (Duration::from_secs(5), GLOBAL));
        assert_eq!((found[0].labels["room"].as_str(), found[1].labels.len()), ("attic", 0));
        let rules = found[1].alerting;
        assert!(rules.disabled && rules.repeat_number == 0 && rules.recover_rounds == 4);
        assert_eq!(rules.for_duration, Duration::from_secs(7));
        assert_ne!(found[0].id, found[1].id);
        let again = jobs(&table);
        assert!(again.iter().any(|job| job.spec.id == found[0].id), "the same table finds its state again");
    }

    #[test]
    fn labels_may_name_the_machine() {
        let mut labels = BTreeMap::from([
            ("a".to_owned(), "${SHORT_HOSTNAME} at ${IP}, ${HOSTNAME}".to_owned()),
            ("b".to_owned(), "${USER} ${".to_owned()),
        ]);
        expand_labels(&mut labels, "pi.lan", "10.0.0.1");
        assert_eq!(labels["a"], "pi at 10.0.0.1, pi.lan");
        assert_eq!(labels["b"], "${USER} ${");
    }

    #[test]
    fn what_goes_for_all_is_read() {
        let global = Global::new(&json!({"interval": "1m", "labels": {"from_hostname": "x", "site": "home"}})).unwrap();
        assert_eq!((global.interval, global.labels.len()), (Duration::from_secs(60), 2));
        assert_eq!(Global::new(&Value::Null).unwrap().interval, GLOBAL);
        for (table, key) in [
            (json!({"labels": {"check": "x"}}), "global.labels.check"),
            (json!({"labels": {"a": 1}}), "global.labels.a"),
            (json!({"labels": {"": "x"}}), "global.labels."),
            (json!({"interval": 0}), "global.interval"),
            (json!({"intervall": 1}), "global.intervall"),
            (json!([]), "global"),
        ] {
            assert_eq!(Global::new(&table).unwrap_err().key, key);
        }
    }
}
