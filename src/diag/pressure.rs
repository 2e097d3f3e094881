//! `host_pressure`: how much time programs lose for lack of processor, memory or disk (pressure stall information).

use serde_json::{Map, Value};

use crate::diag::args::Args;
use crate::diag::finding::{Finding, round1};
use crate::diag::report::Report;
use crate::diag::root::HostRoot;
use crate::diag::thresholds::{CPU_PRESSURE_PERCENT, IO_PRESSURE_PERCENT, MEMORY_PRESSURE_PERCENT, Threshold};
use crate::tools::{ToolContext, ToolError};

pub(super) const DESCRIPTION: &str = "Pressure: share of the last 10, 60 and 300 seconds in which some (or all) \
programs stood still for lack of processor, memory or disk.";

const RESOURCES: [(&str, &str, &Threshold); 3] = [
    ("cpu", "time lost for lack of processor", &CPU_PRESSURE_PERCENT),
    ("memory", "time lost for lack of memory", &MEMORY_PRESSURE_PERCENT),
    ("io", "time lost waiting for disks", &IO_PRESSURE_PERCENT),
];

#[expect(clippy::unnecessary_wraps, reason = "the shape that all tools share")]
pub(super) fn look(root: &HostRoot, _: &Args, _: &ToolContext<'_>) -> Result<Report, ToolError> {
    let mut report = Report::new();
    for (resource, what, threshold) in RESOURCES {
        let Some(text) = root.proc_text(&format!("pressure/{resource}")) else { continue };
        let shares = parse(&text);
        if let Some(share) = shares.get("some_avg60").and_then(Value::as_f64) {
            report.find(Finding::judge(threshold, what, share));
        }
        report.set(resource, shares);
    }
    report.set("available", !report.fields.is_empty());
    if report.findings.is_empty() {
        report.note("this kernel keeps no pressure information (CONFIG_PSI, or psi=1 on its command line)");
    }
    Ok(report)
}

/// `some avg10=0.00 avg60=0.12 avg300=0.05 total=123`, and the same for `full`.
fn parse(text: &str) -> Map<String, Value> {
    let mut shares = Map::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(kind @ ("some" | "full")) = words.next() else { continue };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            if name.starts_with("avg")
                && let Some(share) = value.parse::<f64>().ok().filter(|share| share.is_finite())
            {
                shares.insert(format!("{kind}_{name}"), round1(share));
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use crate::diag::fixture::{Fixture, level};
    use serde_json::json;

    #[test]
    fn shares_are_read_and_judged() {
        let fixture = Fixture::empty();
        fixture.write(
            "proc/pressure/io",
            "some avg10=1.00 avg60=42.07 avg300=3.00 total=7\nfull avg10=0.50 avg60=nan total=1\n",
        );
        fixture.write("proc/pressure/cpu", "some avg10=0.00 avg60=0.04 avg300=0.00 total=1\n");
        let report = fixture.call("host_pressure", &json!({}));
        assert_eq!(report["io"], json!({"some_avg10": 1, "some_avg60": 42.1, "some_avg300": 3, "full_avg10": 0.5}));
        assert_eq!(level(&report, "time lost waiting for disks"), "warning");
        assert_eq!(level(&report, "time lost for lack of processor"), "ok");
        assert_eq!((&report["available"], report.get("memory")), (&json!(true), None));
        assert_eq!(Fixture::empty().call("host_pressure", &json!({}))["available"], false);
    }
}
