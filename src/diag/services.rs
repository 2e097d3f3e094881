//! `host_services`: failed systemd units, or the state of one unit.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::diag::args::{Args, Kind, Param};
use crate::diag::child::RunError;
use crate::diag::finding::{Finding, float};
use crate::diag::report::{Report, clean, clean_name};
use crate::diag::root::HostRoot;
use crate::diag::thresholds::{FAILED_UNITS, UNIT_INACTIVE};
use crate::tools::{ToolContext, ToolError};

pub(super) const DESCRIPTION: &str = "systemd units that failed, or with \"unit\" the state of that one.";

pub(super) const PARAMS: &[Param] = &[Param {
    name: "unit",
    kind: Kind::Name,
    description: "One unit, e.g. nginx or nginx.service. Without it: all failed units.",
}];

/// What a unit's name may end in; anything else is a service.
pub(crate) const SUFFIXES: [&str; 8] =
    [".service", ".socket", ".timer", ".mount", ".target", ".path", ".slice", ".automount"];

pub(super) fn look(root: &HostRoot, args: &Args, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    // The test of sd_booted(3). The program alone proves nothing: containers have it, too.
    if !root.run_dir("systemd/system").is_dir() {
        return Ok(unavailable("not available: no systemd here"));
    }
    if !root.is_system() {
        return Ok(unavailable("not available: this is another machine's file tree, its systemd cannot be asked"));
    }
    match args.text("unit") {
        Some(unit) => one(root, unit, context),
        None => failed(root, context),
    }
}

fn unavailable(why: &str) -> Report {
    let mut report = Report::new();
    report.set("available", false);
    report.note(why);
    report
}

fn failed(root: &HostRoot, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    let arguments = ["list-units", "--failed", "--all", "--no-legend", "--plain", "--no-pager", "--full"];
    let text = systemctl(root, &arguments, context)?;
    let units: Vec<Value> = text.lines().filter_map(failed_unit).collect();
    let mut report = Report::new();
    report.set("available", true);
    report.set("failed_count", units.len());
    report.find(Finding::judge(
        &FAILED_UNITS,
        "failed systemd units",
        float(units.len().try_into().unwrap_or(u64::MAX)),
    ));
    report.set("failed", units);
    // "degraded" says that something failed, "starting" that the boot is not over. Exits with 1 unless "running".
    let state = root.probe.run("systemctl", &["is-system-running"], context).ok();
    report.set_known(
        "system_state",
        state.map(|output| clean_name(output.text.trim())).filter(|state| !state.is_empty()),
    );
    Ok(report)
}

/// `nginx.service loaded failed failed A high performance web server`.
fn failed_unit(line: &str) -> Option<Value> {
    let mut words = line.trim_start_matches(['●', '*', ' ']).split_ascii_whitespace();
    let (unit, load, active, sub) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let description = words.collect::<Vec<_>>().join(" ");
    (active == "failed").then(|| {
        json!({"unit": clean_name(unit), "load": clean_name(load), "sub": clean_name(sub),
               "description": clean_name(&description)})
    })
}

fn one(root: &HostRoot, unit: &str, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    let full =
        if SUFFIXES.iter().any(|suffix| unit.ends_with(suffix)) { unit.to_owned() } else { format!("{unit}.service") };
    let properties = "--property=Id,Description,LoadState,ActiveState,SubState,Result,ActiveEnterTimestamp,\
                      InactiveEnterTimestamp,NRestarts,MainPID,MemoryCurrent,UnitFileState";
    // The name was checked to start with a letter or digit, so it cannot be read as an option; `--` says it again.
    let text = systemctl(root, &["show", properties, "--no-pager", "--", &full], context)?;
    let found: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let value = |name: &str| found.get(name).map(|value| clean(value, 120)).filter(|value| !value.is_empty());
    let number = |name: &str| found.get(name).and_then(|value| value.parse::<u64>().ok()).filter(|n| *n < u64::MAX);
    let mut report = Report::new();
    report.set("available", true);
    report.set("unit", value("Id").unwrap_or(full));
    let load = value("LoadState").unwrap_or_else(|| "unknown".to_owned());
    let known = load != "not-found";
    report.set("known", known);
    report.set("load", load);
    if !known {
        report.note("systemd knows no unit of that name");
        return Ok(report);
    }
    let active = value("ActiveState").unwrap_or_else(|| "unknown".to_owned());
    let runs = ["active", "reloading", "activating"].contains(&active.as_str());
    report.set("active", active);
    report.set_known("sub", value("SubState"));
    report.set_known("result", value("Result"));
    report.set_known("description", value("Description"));
    report.set_known("active_since", value("ActiveEnterTimestamp").filter(|_| runs));
    report.set_known("inactive_since", value("InactiveEnterTimestamp").filter(|_| !runs));
    report.set_known("restarts", number("NRestarts"));
    report.set_known("main_pid", number("MainPID").filter(|pid| *pid > 0));
    report.set_known("memory_bytes", number("MemoryCurrent"));
    report.set_known("starts_at_boot", value("UnitFileState"));
    report.find(Finding::judge(&UNIT_INACTIVE, format!("{unit} is not active"), if runs { 0.0 } else { 1.0 }));
    Ok(report)
}

pub(crate) fn systemctl(root: &HostRoot, arguments: &[&str], context: &ToolContext<'_>) -> Result<String, ToolError> {
    match root.probe.run("systemctl", arguments, context) {
        Ok(output) if output.code == Some(0) => Ok(output.text),
        Ok(output) => {
            let code = output.code.map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
            Err(ToolError::new(format!("systemctl ended with {code}")))
        }
        Err(RunError::Cancelled) => Err(ToolError::new("cancelled")),
        Err(error) => Err(ToolError::new(format!("systemctl {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::fixture::{Fixture, level};

    fn booted() -> Fixture {
        let fixture = Fixture::empty();
        fixture.write("run/systemd/system/.keep", "");
        fixture
    }

    #[test]
    fn without_systemd_the_answer_is_honest() {
        let fixture = Fixture::empty();
        let report = fixture.call("host_services", &json!({"unit": "nginx"}));
        assert_eq!(report["available"], false);
        assert_eq!(report["notes"], json!(["not available: no systemd here"]));
        assert!(fixture.ran().is_empty());
    }

    #[test]
    fn failed_units_are_listed_and_judged() {
        let fixture = booted();
        fixture.program(
            "systemctl",
            0,
            "nginx.service loaded failed failed A web  server\n● x.mount loaded failed failed\nhalf a\n",
        );
        let report = fixture.call("host_services", &json!({}));
        assert_eq!(report["failed_count"], 2);
        assert_eq!(report["failed"][0]["unit"], "nginx.service");
        assert_eq!(report["failed"][0]["description"], "A web server");
        assert_eq!(level(&report, "failed systemd units"), "warning");
        let none = booted();
        none.program("systemctl", 0, "");
        assert_eq!(level(&none.call("host_services", &json!({})), "failed systemd units"), "ok");
    }

    #[test]
    fn one_unit_is_shown() {
        let fixture = booted();
        fixture.program("systemctl", 0, "Id=nginx.service\nDescription=web=server\nLoadState=loaded\nActiveState=active\nSubState=running\nActiveEnterTimestamp=Fri 2026-01-02 03:04:05 UTC\nNRestarts=2\nMainPID=77\nMemoryCurrent=18446744073709551615\n");
        let report = fixture.call("host_services", &json!({"unit": "nginx"}));
        assert_eq!(report["active"], "active");
        assert_eq!(report["description"], "web=server");
        assert_eq!(report["active_since"], "Fri 2026-01-02 03:04:05 UTC");
        assert_eq!(report["restarts"], 2);
        assert_eq!(report["memory_bytes"], Value::Null, "systemd spells unknown as the largest number");
        assert_eq!(level(&report, "nginx is not active"), "ok");
        assert!(fixture.ran()[0].ends_with("--no-pager -- nginx.service"), "{:?}", fixture.ran());
        fixture.call("host_services", &json!({"unit": "backup.timer"}));
        assert!(fixture.ran()[1].ends_with("-- backup.timer"));
    }

    #[test]
    fn stopped_unknown_and_broken_are_told_apart() {
        let fixture = booted();
        fixture.program("systemctl", 0, "LoadState=loaded\nActiveState=failed\nResult=exit-code\n");
        assert_eq!(level(&fixture.call("host_services", &json!({"unit": "x"})), "x is not active"), "warning");
        fixture.program("systemctl", 0, "LoadState=not-found\nActiveState=inactive\n");
        let report = fixture.call("host_services", &json!({"unit": "x"}));
        assert_eq!((&report["known"], level(&report, "x is not active")), (&json!(false), "none".to_owned()));
        fixture.program("systemctl", 4, "");
        let error = fixture.try_call("host_services", &json!({})).unwrap_err();
        assert_eq!(error.message, "systemctl ended with code 4");
        let error = booted().try_call("host_services", &json!({})).unwrap_err();
        assert_eq!(error.message, "systemctl not installed");
    }
}
