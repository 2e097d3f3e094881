//! `host_uptime`: since when the machine runs, and what it runs.

use crate::diag::args::Args;
use crate::diag::cpu::parse_stat;
use crate::diag::finding::Finding;
use crate::diag::report::{Report, clean_name};
use crate::diag::root::HostRoot;
use crate::diag::thresholds::{REBOOT_REQUIRED, UPTIME_SECONDS};
use crate::rt::clock;
use crate::tools::{ToolContext, ToolError};

pub(super) const DESCRIPTION: &str = "Uptime, time of the last boot, host name, kernel, distribution, architecture, \
and whether an update asks for a restart.";

pub(super) fn look(root: &HostRoot, _: &Args, _: &ToolContext<'_>) -> Result<Report, ToolError> {
    let uptime = parse_uptime(&root.need("uptime")?).ok_or_else(|| ToolError::new("/proc/uptime is not a number"))?;
    let mut report = Report::new();
    report.set_round("uptime_seconds", uptime.floor());
    let boot = root.proc_text("stat").and_then(|text| parse_stat(&text).boot_time);
    report.set_known("boot_time", boot.map(|seconds| clock::rfc3339_s(seconds.saturating_mul(1000))));
    report.set_known("hostname", root.proc_line("sys/kernel/hostname").map(|name| clean_name(&name)));
    report.set_known("kernel", root.proc_line("sys/kernel/osrelease").map(|name| clean_name(&name)));
    report.set_known("distribution", root.os_release().as_deref().and_then(distribution));
    if root.is_system() {
        report.set("architecture", std::env::consts::ARCH);
    }
    // A device tree ends its strings with NUL.
    let board = root.proc_line("device-tree/model").map(|model| clean_name(model.trim_end_matches('\0')));
    report
        .set_known("board", board.or_else(|| root.sys_line("class/dmi/id/product_name").map(|name| clean_name(&name))));
    report.find(Finding::judge(&UPTIME_SECONDS, "time since the last boot", uptime));
    let required = root.run_dir("reboot-required").exists();
    report.set("reboot_required", required);
    if required {
        report.find(Finding::judge(&REBOOT_REQUIRED, "an update asks for a restart", 1.0));
    }
    Ok(report)
}

pub(crate) fn parse_uptime(text: &str) -> Option<f64> {
    let seconds = text.split_ascii_whitespace().next()?.parse::<f64>().ok()?;
    (seconds.is_finite() && seconds >= 0.0).then_some(seconds)
}

/// `PRETTY_NAME`, else `NAME`, of os-release(5), without its quotes.
fn distribution(text: &str) -> Option<String> {
    let value = |wanted: &str| {
        let mut lines = text.lines().filter_map(|line| line.trim().split_once('='));
        let (_, value) = lines.find(|(name, _)| *name == wanted)?;
        let value = clean_name(value.trim().trim_matches(['"', '\'']));
        (!value.is_empty()).then_some(value)
    };
    value("PRETTY_NAME").or_else(|| value("NAME"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::fixture::{Fixture, level};
    use serde_json::json;

    #[test]
    fn a_healthy_pi_names_itself() {
        let fixture = Fixture::healthy_pi();
        fixture.write("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.5\0");
        let report = fixture.call("host_uptime", &json!({}));
        assert_eq!(report["uptime_seconds"], 273_600);
        assert_eq!(report["boot_time"], "2026-01-02T03:04:05Z");
        assert_eq!(report["hostname"], "pi");
        assert_eq!(report["kernel"], "6.12.25+rpt-rpi-v8");
        assert_eq!(report["distribution"], "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(report["board"], "Raspberry Pi 4 Model B Rev 1.5");
        assert_eq!(report["reboot_required"], false);
        assert_eq!(level(&report, "time since the last boot"), "ok");
    }

    #[test]
    fn a_fresh_boot_and_a_wanted_one_are_told() {
        let fixture = Fixture::empty();
        fixture.write("proc/uptime", "599.99 1.0\n");
        fixture.write("run/reboot-required", "*** System restart required ***\n");
        let report = fixture.call("host_uptime", &json!({}));
        assert_eq!(level(&report, "time since the last boot"), "critical");
        assert_eq!(level(&report, "an update asks for a restart"), "warning");
    }

    #[test]
    fn odd_files_are_errors_or_left_out() {
        for text in ["", "x", "NaN 1", "-5 1", "inf"] {
            assert_eq!(parse_uptime(text), None, "{text}");
        }
        let check = |text: &str, expected: Option<&str>| assert_eq!(distribution(text).as_deref(), expected, "{text}");
        check("NAME=Alpine\n", Some("Alpine"));
        check("PRETTY_NAME=''\nNAME='Void Linux'\n", Some("Void Linux"));
        check("", None);
    }
}
