//! `host_overview`: the few numbers of all looks, and everything that was found. For models with small windows.

use serde_json::{Map, Value};

use crate::diag::args::Args;
use crate::diag::report::Report;
use crate::diag::root::HostRoot;
use crate::diag::{Look, cpu, disk, memory, probe, temperature, uptime};
use crate::rt::order::gather;
use crate::tools::{ToolContext, ToolError};

pub(super) const DESCRIPTION: &str = "One look at everything: CPU, memory, disks, temperature and uptime in a few \
numbers, with all findings. The other host tools show more.";

/// What is looked at, and the fields that are kept of it.
const PARTS: &[(&str, Look, &[&str])] = &[
    ("cpu", cpu::look, &["cores", "used_percent", "iowait_percent", "load", "load_per_core"]),
    ("memory", memory::look, &["total_bytes", "available_bytes", "used_percent", "swap_used_percent"]),
    ("disk", disk::look, &["file_systems"]),
    ("temperature", temperature::look, &["hottest_celsius"]),
    ("uptime", uptime::look, &["hostname", "uptime_seconds", "boot_time", "kernel", "distribution", "reboot_required"]),
];

pub(super) fn look(root: &HostRoot, args: &Args, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    let mut report = Report::new();
    for (name, look, fields) in PARTS {
        match look(root, args, context) {
            Ok(part) => {
                let kept: Map<String, Value> =
                    gather(part.fields.into_iter().filter(|(field, _)| fields.contains(&field.as_str())));
                report.set(name, kept);
                report.findings.extend(part.findings);
            }
            Err(error) => {
                probe::check_alive(context)?;
                report.note(&format!("{name}: {}", error.message));
            }
        }
    }
    // Lists must stand at the top to be cut when the answer is too long.
    let disks = report.fields.get_mut("disk").and_then(|disk| disk.as_object_mut()?.remove("file_systems"));
    if let Some(disks) = disks {
        report.fields.remove("disk");
        report.set("file_systems", disks);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use crate::diag::fixture::{Fixture, level};
    use serde_json::json;

    #[test]
    fn the_numbers_of_all_looks_are_together() {
        let fixture = Fixture::healthy_pi();
        let report = fixture.call("host_overview", &json!({}));
        assert_eq!(report["cpu"]["used_percent"], 10);
        assert_eq!(report["memory"]["used_percent"], 25);
        assert_eq!(report["file_systems"][0]["used_percent"], 34.7);
        assert_eq!(report["temperature"]["hottest_celsius"], 48.3);
        assert_eq!(report["uptime"]["hostname"], "pi");
        assert_eq!(level(&report, "space on /"), "ok");
        assert!(report["findings"].as_array().unwrap().iter().all(|finding| finding["level"] == "ok"));
    }

    #[test]
    fn what_cannot_be_seen_is_said() {
        let report = Fixture::empty().call("host_overview", &json!({}));
        assert!(report["notes"].as_array().unwrap().iter().any(|note| note.as_str().unwrap().starts_with("memory: ")));
    }
}
