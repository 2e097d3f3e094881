//! `systemd`: the state of units, and any unit that failed (contract agent-link 7.5).
//!
//! `[checks.systemd]`: `units` (none; `.service` is understood), `expected_active_state` (active), `severity`
//! (Critical), `failed_units` (on; a table with `severity`, Warning, and `ignore`, globs). Where there is no systemd,
//! failed units are not looked for.

use std::collections::{BTreeSet, HashMap};

use crate::alert::Level;
use crate::checks::glob;
use crate::checks::plugin::{Check, Gather, Reading};
use crate::checks::settings::{SettingError, Settings};
use crate::diag::report::{clean, clean_name};
use crate::diag::services::{SUFFIXES, systemctl};

const STATE: &str = "systemd::state";
const FAILED: &str = "systemd::failed";

/// What stands for all units that have not failed.
const NO_UNIT: &str = "all units";

/// Most units that are named as failed: after that it is one problem, not many.
const FAILED_MAX: usize = 50;

const PROPERTIES: &str = "--property=LoadState,ActiveState,SubState,Result,MainPID,NRestarts,UnitFileState";

struct Systemd {
    units: Vec<String>,
    expected: String,
    severity: Level,
    /// None: not looked for.
    failed_severity: Option<Level>,
    ignore: Vec<String>,
    /// Told as failed in the round before: they are told as fine when they are.
    failed: BTreeSet<String>,
}

pub(super) fn build(settings: &mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError> {
    let units = settings.texts("units", &[])?;
    if units.iter().any(|unit| unit.is_empty() || unit.starts_with('-') || unit.contains(char::is_whitespace)) {
        return Err(settings.error("units", "must be names of units, like \"nginx\" or \"backup.timer\""));
    }
    let on = !settings.switched_off("failed_units");
    let mut section = settings.section("failed_units")?;
    let on = section.flag("enabled", true)? && on;
    let failed_severity = section.level("severity", Level::Warning)?;
    let ignore = section.texts("ignore", &[])?;
    section.finish()?;
    Ok(vec![Box::new(Systemd {
        units,
        expected: settings.text("expected_active_state", "active")?,
        severity: settings.level("severity", Level::Critical)?,
        failed_severity: on.then_some(failed_severity),
        ignore,
        failed: BTreeSet::new(),
    })])
}

impl Check for Systemd {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        // The test of sd_booted(3). The program alone proves nothing: containers have it, too.
        if !context.root.run_dir("systemd/system").is_dir() || !context.root.is_system() {
            let failed = |unit: &String| Reading::failed(STATE, unit, "there is no systemd on this machine to ask");
            if self.units.is_empty() {
                context.unavailable("there is no systemd on this machine");
            }
            return self.units.iter().map(failed).collect();
        }
        let mut readings = self.states(context);
        if let Some(severity) = self.failed_severity {
            readings.extend(self.failed(severity, context));
        }
        readings
    }
}

impl Systemd {
    /// All units in one question; the answers come in their order, an empty line apart.
    fn states(&self, context: &Gather<'_>) -> Vec<Reading> {
        if self.units.is_empty() {
            return Vec::new();
        }
        let names: Vec<String> = self.units.iter().map(|unit| full_name(unit)).collect();
        let mut arguments = vec!["show", PROPERTIES, "--no-pager", "--"];
        arguments.extend(names.iter().map(String::as_str));
        let text = match systemctl(context.root, &arguments, &context.tool_context()) {
            Ok(text) => text,
            Err(error) => {
                let failed = |unit: &String| Reading::failed(STATE, unit, error.message.clone());
                return self.units.iter().map(failed).collect();
            }
        };
        let mut answers = text.split("\n\n");
        self.units.iter().map(|unit| self.state(unit, answers.next().unwrap_or(""))).collect()
    }

    fn state(&self, unit: &str, answer: &str) -> Reading {
        let found: HashMap<&str, &str> = answer.lines().filter_map(|line| line.split_once('=')).collect();
        let value = |name: &str| found.get(name).map(|value| clean_name(value)).unwrap_or_default();
        let (load, active) = (value("LoadState"), value("ActiveState"));
        if load.is_empty() || active.is_empty() {
            return Reading::failed(STATE, unit, format!("systemctl did not say how {unit} is"));
        }
        let (level, text) = match load.as_str() {
            "not-found" => (self.severity, format!("systemd knows no unit {unit}")),
            "masked" => (self.severity, format!("{unit} is masked: it cannot be started")),
            _ if active == self.expected => (Level::Ok, format!("{unit} is {active}")),
            _ => (self.severity, format!("{unit} is {active} ({}), expected {}", value("Result"), self.expected)),
        };
        Reading::new(STATE, unit, level, text)
            .attr("current_value", active.clone())
            .attr("threshold_desc", format!("{} unless {}", self.severity, self.expected))
            .attr("active_state", active)
            .attr("sub_state", value("SubState"))
            .attr("load_state", load)
            .attr("main_pid", value("MainPID"))
            .attr("n_restarts", value("NRestarts"))
            .attr("unit_file_state", value("UnitFileState"))
    }

    fn failed(&mut self, severity: Level, context: &Gather<'_>) -> Vec<Reading> {
        let arguments = ["list-units", "--failed", "--all", "--no-legend", "--plain", "--no-pager", "--full"];
        let text = match systemctl(context.root, &arguments, &context.tool_context()) {
            Ok(text) => text,
            Err(error) => {
                context.incomplete();
                return vec![Reading::failed(FAILED, NO_UNIT, error.message)];
            }
        };
        let mut now = BTreeSet::new();
        let mut readings = Vec::new();
        for (unit, sub, description) in text.lines().filter_map(failed_unit) {
            if now.len() < FAILED_MAX && !glob::any(&self.ignore, &unit) && now.insert(unit.clone()) {
                let text = format!("{unit} failed ({description}): see systemctl status {unit}");
                let reading = Reading::new(FAILED, &unit, severity, text);
                readings.push(reading.attr("current_value", "failed").attr("sub_state", sub));
            }
        }
        for unit in self.failed.difference(&now) {
            readings.push(Reading::new(FAILED, unit, Level::Ok, format!("{unit} is not failed any more")));
        }
        let text = if now.is_empty() { "no unit failed" } else { "systemd answers" };
        readings.push(Reading::new(FAILED, NO_UNIT, Level::Ok, text).attr("current_value", now.len().to_string()));
        self.failed = now;
        readings
    }
}

fn full_name(unit: &str) -> String {
    if SUFFIXES.iter().any(|suffix| unit.ends_with(suffix)) { unit.to_owned() } else { format!("{unit}.service") }
}

/// `nginx.service loaded failed failed A high performance web server`.
fn failed_unit(line: &str) -> Option<(String, String, String)> {
    let mut words = line.trim_start_matches(['●', '*', ' ']).split_ascii_whitespace();
    let (unit, _, active, sub) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let description = clean(&words.collect::<Vec<_>>().join(" "), 120);
    (active == "failed").then(|| (clean_name(unit), clean_name(sub), description))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::Bench;
    use serde_json::{Value, json};

    fn bench(answer: &str) -> Bench {
        let bench = Bench::new();
        bench.write("run/systemd/system/.keep", "");
        bench.program("systemctl", 0, answer);
        bench
    }

    fn look(bench: &Bench, settings: &Value) -> Vec<(&'static str, String, Level)> {
        let readings = bench.gather(&mut bench.build(build, settings));
        readings.into_iter().map(|reading| (reading.check, reading.target, reading.level)).collect()
    }

    #[test]
    fn units_are_asked_together_and_judged_each() {
        let units =
            json!({"units": ["nginx", "backup.timer", "gone", "off", "stopped", "silent"], "failed_units": false});
        let bench = bench(
            "LoadState=loaded\nActiveState=active\nSubState=running\nMainPID=77\nNRestarts=2\n\n\
             LoadState=loaded\nActiveState=active\nSubState=waiting\n\n\
             LoadState=not-found\nActiveState=inactive\n\nLoadState=masked\nActiveState=inactive\n\n\
             LoadState=loaded\nActiveState=failed\nResult=exit-code\n",
        );
        let rows: Vec<(String, Level)> =
            look(&bench, &units).into_iter().map(|(_, target, level)| (target, level)).collect();
        let row = |target: &str, level: Level| (target.to_owned(), level);
        assert_eq!(
            rows,
            [
                row("nginx", Level::Ok),
                row("backup.timer", Level::Ok),
                row("gone", Level::Critical),
                row("off", Level::Critical),
                row("stopped", Level::Critical),
                row("silent", Level::Critical)
            ]
        );
        let asked = &bench.ran()[0];
        assert!(
            asked.ends_with("-- nginx.service backup.timer gone.service off.service stopped.service silent.service"),
            "{asked}"
        );
        let readings = bench.gather(&mut bench.build(build, &json!({"units": ["nginx"], "failed_units": false})));
        for (name, value) in [
            ("active_state", "active"),
            ("sub_state", "running"),
            ("main_pid", "77"),
            ("n_restarts", "2"),
            ("load_state", "loaded"),
        ] {
            assert_eq!(readings[0].attr_of(name), value);
        }
        let wanted = json!({"units": ["nginx"], "expected_active_state": "inactive", "severity": "Warning",
            "failed_units": false});
        assert_eq!(look(&bench, &wanted), [(STATE, "nginx".to_owned(), Level::Warning)]);
    }

    #[test]
    fn any_failed_unit_is_named_and_taken_back() {
        let bench = bench("nginx.service loaded failed failed A web  server\n● x.mount loaded failed failed\nhalf a\n");
        let mut checks = bench.build(build, &json!({}));
        let readings = bench.gather(&mut checks);
        let rows: Vec<(&str, Level)> = readings.iter().map(|r| (r.target.as_str(), r.level)).collect();
        assert_eq!(rows, [("nginx.service", Level::Warning), ("x.mount", Level::Warning), (NO_UNIT, Level::Ok)]);
        assert_eq!(readings[0].description, "nginx.service failed (A web server): see systemctl status nginx.service");
        bench.program("systemctl", 0, "");
        let rows: Vec<(String, Level)> = bench.gather(&mut checks).into_iter().map(|r| (r.target, r.level)).collect();
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|(_, level)| *level == Level::Ok));
        assert_eq!(bench.gather(&mut checks).len(), 1, "said once");
        bench.program("systemctl", 0, "x.mount loaded failed failed\n");
        let ignored = json!({"failed_units": {"ignore": ["*.mount"], "severity": "Critical"}});
        assert_eq!(look(&bench, &ignored), [(FAILED, NO_UNIT.to_owned(), Level::Ok)]);
    }

    #[test]
    fn no_systemd_is_no_alert_unless_it_was_asked_for() {
        let none = Bench::new();
        assert_eq!(look(&none, &json!({})), []);
        assert_eq!(none.unavailable.take(), ["there is no systemd on this machine"]);
        assert_eq!(look(&none, &json!({"units": ["a"]})), [(STATE, "a".to_owned(), Level::Critical)]);
        let broken = bench("");
        broken.program("systemctl", 1, "Failed to connect to bus");
        let found = look(&broken, &json!({"units": ["a"]}));
        assert_eq!(found, [(STATE, "a".to_owned(), Level::Critical), (FAILED, NO_UNIT.to_owned(), Level::Critical)]);
        assert!(broken.incomplete.get(), "units that failed before have not recovered");
        for bad in ["-x", "", "a b"] {
            assert_eq!(broken.refused(build, &json!({"units": [bad]})), "checks.x.units");
        }
    }
}
