//! `host_disk_io`: how long the disks take for a request now, and how busy they are.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::diag::args::Args;
use crate::diag::finding::{Finding, float, round1};
use crate::diag::report::{Report, clean_name};
use crate::diag::root::HostRoot;
use crate::diag::thresholds::{HDD_REQUEST_MS, NVME_REQUEST_MS, SLOW_REQUEST_MS, SSD_REQUEST_MS, Threshold};
use crate::rt::order::{Order, gather};
use crate::tools::{ToolContext, ToolError};

pub(super) const DESCRIPTION: &str = "Disks now, the busiest first: milliseconds per request, how busy, requests and \
bytes per second, measured over half a second.";

/// Long enough for a few requests of a slow disk.
const SAMPLE: Duration = Duration::from_millis(500);

/// Most disks shown; they are sorted.
const DEVICES_MAX: usize = 16;

/// A sector of `/proc/diskstats`, whatever the disk's own are.
const SECTOR_BYTES: u64 = 512;

/// What has passed of one disk's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    reads: u64,
    sectors_read: u64,
    read_ms: u64,
    writes: u64,
    sectors_written: u64,
    write_ms: u64,
    busy_ms: u64,
}

pub(super) fn look(root: &HostRoot, _: &Args, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    let first = counters(root)?;
    let elapsed = root.probe.pause(SAMPLE, context)?.as_secs_f64().max(0.001);
    let second = counters(root)?;
    let mut report = Report::new();
    let mut rows: Vec<(f64, Value)> = Vec::new();
    for (name, now) in &second {
        let passed = first.get(name).map(|before| now.since(before)).unwrap_or_default();
        let requests = passed.reads.saturating_add(passed.writes);
        let waited = passed.read_ms.saturating_add(passed.write_ms);
        let each = if requests == 0 { 0.0 } else { float(waited) / float(requests) };
        let busy = (float(passed.busy_ms) / elapsed / 10.0).min(100.0);
        let (kind, threshold) = kind(root, name);
        let shown = clean_name(name);
        report.find(Finding::judge(threshold, format!("time per request of {shown}"), each));
        let rate = |count: u64| round1(float(count) / elapsed);
        rows.push((
            busy,
            json!({"device": shown, "kind": kind, "await_ms": round1(each), "util_percent": round1(busy),
                   "reads_per_second": rate(passed.reads), "writes_per_second": rate(passed.writes),
                   "read_bytes_per_second": rate(passed.sectors_read.saturating_mul(SECTOR_BYTES)),
                   "write_bytes_per_second": rate(passed.sectors_written.saturating_mul(SECTOR_BYTES))}),
        ));
    }
    rows.order_by(|(a, _), (b, _)| b.total_cmp(a));
    rows.truncate(DEVICES_MAX);
    report.set("sampled_ms", u64::try_from(SAMPLE.as_millis()).unwrap_or(0));
    if rows.is_empty() {
        report.note("no disk can be seen here");
    }
    report.set("devices", rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>());
    Ok(report)
}

fn counters(root: &HostRoot) -> Result<BTreeMap<String, Counters>, ToolError> {
    let text = root.need("diskstats")?;
    let whole = |name: &str| {
        let other = ["loop", "ram", "zram", "sr", "fd"].iter().any(|kind| name.starts_with(kind));
        // A partition has no entry of its own there.
        !other && root.sys("block").join(name.replace('/', "!")).exists()
    };
    Ok(gather(text.lines().filter_map(parse).filter(|(name, _)| whole(name)).map(|(n, c)| (n.to_owned(), c))))
}

/// `8 0 sda 1 2 3 4 5 6 7 8 9 10 11 ...` (Documentation/admin-guide/iostats.rst).
fn parse(line: &str) -> Option<(&str, Counters)> {
    let columns: Vec<&str> = line.split_ascii_whitespace().collect();
    let number = |column: usize| columns.get(column).and_then(|word| word.parse::<u64>().ok());
    let counters = Counters {
        reads: number(3)?,
        sectors_read: number(5)?,
        read_ms: number(6)?,
        writes: number(7)?,
        sectors_written: number(9)?,
        write_ms: number(10)?,
        busy_ms: number(12)?,
    };
    Some((columns.get(2)?, counters))
}

impl Counters {
    fn since(&self, before: &Self) -> Self {
        Self {
            reads: self.reads.saturating_sub(before.reads),
            sectors_read: self.sectors_read.saturating_sub(before.sectors_read),
            read_ms: self.read_ms.saturating_sub(before.read_ms),
            writes: self.writes.saturating_sub(before.writes),
            sectors_written: self.sectors_written.saturating_sub(before.sectors_written),
            write_ms: self.write_ms.saturating_sub(before.write_ms),
            busy_ms: self.busy_ms.saturating_sub(before.busy_ms),
        }
    }
}

/// Cards claim not to rotate either, and are the slowest of all.
fn kind(root: &HostRoot, name: &str) -> (&'static str, &'static Threshold) {
    if name.starts_with("nvme") {
        return ("nvme", &NVME_REQUEST_MS);
    }
    if name.starts_with("mmcblk") {
        return ("card", &SLOW_REQUEST_MS);
    }
    match root.sys_line(&format!("block/{name}/queue/rotational")).as_deref() {
        Some("0") => ("ssd", &SSD_REQUEST_MS),
        Some("1") => ("hdd", &HDD_REQUEST_MS),
        _ => ("unknown", &SLOW_REQUEST_MS),
    }
}

#[cfg(test)]
mod tests {
    use crate::diag::fixture::{Fixture, level};
    use serde_json::json;

    #[test]
    fn disks_are_measured_and_judged_by_their_kind() {
        let fixture = Fixture::empty();
        fixture.write("proc/diskstats", "8 0 sda 100 0 800 1000 100 0 800 1000 0 500 2000\n8 1 sda1 1 0 8 10 1 0 8 10 0 5 20\n259 0 nvme0n1 0 0 0 0 0 0 0 0 0 0 0\n7 0 loop0 1 1 1 1 1 1 1 1 1 1 1\nodd line\n");
        fixture.later("proc/diskstats", "8 0 sda 105 0 840 1500 105 0 880 2000 0 900 3000\n8 1 sda1 1 0 8 10 1 0 8 10 0 5 20\n259 0 nvme0n1 1000 0 8000 1000 0 0 0 0 0 100 100\n7 0 loop0 1 1 1 1 1 1 1 1 1 1 1\n");
        fixture.write("sys/block/sda/queue/rotational", "1\n");
        fixture.write("sys/block/nvme0n1/queue/rotational", "0\n");
        fixture.write("sys/block/loop0/queue/rotational", "0\n");
        let report = fixture.call("host_disk_io", &json!({}));
        let devices = report["devices"].as_array().unwrap();
        assert_eq!(devices.len(), 2);
        // 400 ms busy of 500; 1500 ms waited for 10 requests; 80 sectors written.
        assert_eq!(
            devices[0],
            json!({"device": "sda", "kind": "hdd", "await_ms": 150, "util_percent": 80, "reads_per_second": 10,
                   "writes_per_second": 10, "read_bytes_per_second": 40_960, "write_bytes_per_second": 81_920})
        );
        assert_eq!(level(&report, "time per request of sda"), "warning");
        assert_eq!(level(&report, "time per request of nvme0n1"), "ok");
    }
}
