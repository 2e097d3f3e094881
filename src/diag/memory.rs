//! `host_memory`: what is left for programs, swap, pressure, and whether the kernel had to kill.

use std::collections::HashMap;

use crate::diag::args::Args;
use crate::diag::finding::{Finding, float, percent};
use crate::diag::report::Report;
use crate::diag::root::HostRoot;
use crate::diag::thresholds::{MEMORY_PRESSURE_PERCENT, MEMORY_USED_PERCENT, OOM_KILLS, SWAP_USED_PERCENT};
use crate::tools::{ToolContext, ToolError};

pub(super) const DESCRIPTION: &str = "Memory: total, available to programs (caches count as available), used, swap, \
memory pressure, and how often the kernel killed a program for lack of memory since the boot.";

pub(super) fn look(root: &HostRoot, _: &Args, _: &ToolContext<'_>) -> Result<Report, ToolError> {
    let text = root.need("meminfo")?;
    let info = parse(&text);
    let bytes = |name: &str| info.get(name).map(|kib| kib.saturating_mul(1024));
    let (total, available) =
        total_and_available(&info).ok_or_else(|| ToolError::new("/proc/meminfo names no MemTotal"))?;
    let mut report = Report::new();
    if !info.contains_key("MemAvailable") {
        report.note("the kernel names no MemAvailable: estimated as free + buffers + cached");
    }
    let used = total - available;
    report.set("total_bytes", total);
    report.set("available_bytes", available);
    report.set("used_bytes", used);
    report.set_round("used_percent", percent(used, total));
    report.set_known("free_bytes", bytes("MemFree"));
    report.set_known("buffers_bytes", bytes("Buffers"));
    report.set_known("cached_bytes", bytes("Cached"));
    report.set_known("shared_bytes", bytes("Shmem"));
    report.set_known("dirty_bytes", bytes("Dirty"));
    report.find(Finding::judge(&root.limit(&MEMORY_USED_PERCENT), "memory use", percent(used, total)));
    add_swap(&mut report, root, bytes("SwapTotal").unwrap_or(0), bytes("SwapFree").unwrap_or(0));
    add_pressure(&mut report, root);
    Ok(report)
}

/// Used memory in percent of `/proc/meminfo`'s total.
pub(super) fn used_percent(text: &str) -> Option<f64> {
    let (total, available) = total_and_available(&parse(text))?;
    Some(percent(total - available, total))
}

/// In bytes; what is available is never more than the total.
fn total_and_available(info: &HashMap<&str, u64>) -> Option<(u64, u64)> {
    let bytes = |name: &str| info.get(name).map(|kib| kib.saturating_mul(1024));
    let total = bytes("MemTotal").filter(|total| *total > 0)?;
    // Before Linux 3.14 the kernel did not estimate it; this is the old rule of thumb.
    let rule = || ["MemFree", "Buffers", "Cached"].iter().filter_map(|name| bytes(name)).fold(0, u64::saturating_add);
    Some((total, bytes("MemAvailable").unwrap_or_else(rule).min(total)))
}

fn add_swap(report: &mut Report, root: &HostRoot, total: u64, free: u64) {
    report.set("swap_total_bytes", total);
    if total > 0 {
        let used = total.saturating_sub(free);
        report.set("swap_used_bytes", used);
        report.set_round("swap_used_percent", percent(used, total));
        report.find(Finding::judge(&root.limit(&SWAP_USED_PERCENT), "swap use", percent(used, total)));
    }
}

fn add_pressure(report: &mut Report, root: &HostRoot) {
    // Missing without CONFIG_PSI, or where the boot line does not ask for it (Raspberry Pi OS).
    if let Some(pressure) = root.proc_text("pressure/memory").as_deref().and_then(some_avg60) {
        report.set_round("pressure_some_avg60_percent", pressure);
        report.find(Finding::judge(&MEMORY_PRESSURE_PERCENT, "time lost for lack of memory", pressure));
    }
    let kills = root.proc_text("vmstat").and_then(|text| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| *name == "oom_kill").and_then(|(_, count)| count.trim().parse::<u64>().ok())
    });
    if let Some(kills) = kills {
        report.set("oom_kills_since_boot", kills);
        report.find(Finding::judge(&OOM_KILLS, "programs killed for lack of memory since the boot", float(kills)));
    }
}

/// Names and KiB; lines that are neither are skipped.
pub(crate) fn parse(text: &str) -> HashMap<&str, u64> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .filter_map(|(name, rest)| Some((name.trim(), rest.split_ascii_whitespace().next()?.parse().ok()?)))
        .collect()
}

/// `avg60` of the line `some`.
fn some_avg60(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    let value = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("avg60="))?;
    value.parse::<f64>().ok().filter(|share| share.is_finite())
}

#[cfg(test)]
mod tests {
    use crate::diag::fixture::{Fixture, level};
    use serde_json::{Value, json};

    #[test]
    fn caches_count_as_available() {
        let report = Fixture::healthy_pi().call("host_memory", &json!({}));
        assert_eq!(report["total_bytes"], 4_096_000_000_u64);
        assert_eq!(report["available_bytes"], 3_072_000_000_u64);
        assert_eq!(report["used_bytes"], 1_024_000_000_u64);
        assert_eq!(report["used_percent"], 25);
        assert_eq!(report["swap_used_bytes"], 5_120_000_u64);
        assert_eq!(report["swap_used_percent"], 5);
        assert_eq!(report["oom_kills_since_boot"], 0);
        assert_eq!(level(&report, "memory use"), "ok");
        assert_eq!(level(&report, "swap use"), "ok");
    }

    #[test]
    fn near_the_end_everything_is_critical() {
        let fixture = Fixture::empty();
        fixture.write("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 50 kB\nSwapTotal: 200 kB\nSwapFree: 20 kB\n");
        fixture
            .write("proc/pressure/memory", "some avg10=80.00 avg60=40.00 avg300=9.00 total=1\nfull avg10=1 avg60=2\n");
        fixture.write("proc/vmstat", "pgpgin 1\noom_kill 2\n");
        let report = fixture.call("host_memory", &json!({}));
        assert_eq!(report["used_percent"], 95);
        assert_eq!(report["swap_used_percent"], 90);
        assert_eq!(level(&report, "memory use"), "critical");
        assert_eq!(level(&report, "swap use"), "critical");
        assert_eq!(level(&report, "time lost for lack of memory"), "critical");
        assert_eq!(level(&report, "programs killed for lack of memory since the boot"), "warning");
        // The worst come first.
        assert_eq!(report["findings"][0]["level"], "critical");
        assert_eq!(report["findings"][3]["level"], "warning");
    }

    #[test]
    fn an_old_kernel_is_estimated_and_odd_numbers_are_survived() {
        let check = |meminfo: &str, available: Value| {
            let fixture = Fixture::empty();
            fixture.write("proc/meminfo", meminfo);
            assert_eq!(fixture.call("host_memory", &json!({}))["available_bytes"], available, "{meminfo}");
        };
        check("MemTotal: 100 kB\nMemFree: 10 kB\nBuffers: 5 kB\nCached: 15 kB\n", json!(30 * 1024));
        check("MemTotal: 100 kB\nMemAvailable: 500 kB\n", json!(100 * 1024));
        check("MemTotal: 18446744073709551615 kB\nMemAvailable: 18446744073709551615 kB\n", json!(u64::MAX));
        let fixture = Fixture::empty();
        fixture.write("proc/meminfo", "MemTotal: 0 kB\n");
        assert!(fixture.try_call("host_memory", &json!({})).unwrap_err().message.contains("MemTotal"));
    }
}
