//! `diskio`: how long a disk takes for one request (contract agent-link 7.5).
//!
//! `[checks.diskio]`: `devices` (globs, all whole disks), `io_latency` (milliseconds; by the kind of the disk unless set:
//! NVMe 10 / 50, SSD 20 / 100, HDD 50 / 200, unknown 100 / 500). Told only when it lasts for a minute: a single burst
//! of writing is no fault of a disk.

use std::collections::HashMap;

use crate::checks::glob;
use crate::checks::limits::{Limits, Unit};
use crate::checks::plugin::{Check, Gather, Reading};
use crate::checks::registry::{DEFAULTS, Defaults, seconds};
use crate::checks::settings::{SettingError, Settings};
use crate::diag::finding::float;
use crate::diag::report::clean_name;
use crate::diag::thresholds::{HDD_REQUEST_MS, NVME_REQUEST_MS, SLOW_REQUEST_MS, SSD_REQUEST_MS};
use crate::rt::order::Order;

pub(super) const ALERTING: Defaults = Defaults { for_duration: seconds(60), recover_rounds: 2, ..DEFAULTS };

const CHECK: &str = "diskio::io_latency";

struct DiskIo {
    devices: Vec<String>,
    /// None: by the kind of the disk.
    limits: Option<Limits>,
    margin: Option<f64>,
    before: HashMap<String, Counters>,
    before_ms: i64,
}

/// Of one line of `/proc/diskstats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    reads: u64,
    read_ms: u64,
    writes: u64,
    write_ms: u64,
    io_ms: u64,
}

pub(super) fn build(settings: &mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError> {
    let devices = settings.texts("devices", &["*"])?;
    if settings.switched_off("io_latency") {
        return Ok(Vec::new());
    }
    let mut section = settings.section("io_latency")?;
    let own = ["warn_ge", "warn", "critical_ge", "critical", "crit"].iter().any(|name| section.has(name));
    let limits = section.own_limits(kind_limits("unknown"))?;
    section.finish()?;
    if limits.is_off() {
        return Ok(Vec::new());
    }
    let margin = limits.margin;
    let limits = own.then_some(limits);
    Ok(vec![Box::new(DiskIo { devices, limits, margin, before: HashMap::new(), before_ms: 0 })])
}

fn kind_limits(kind: &str) -> Limits {
    let usual = match kind {
        "NVMe" => &NVME_REQUEST_MS,
        "SSD" => &SSD_REQUEST_MS,
        "HDD" => &HDD_REQUEST_MS,
        _ => &SLOW_REQUEST_MS,
    };
    Limits::like(Unit::Millis, usual)
}

impl Check for DiskIo {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        let text = match context.root.need("diskstats") {
            Ok(text) => text,
            // Small kernels have no block layer at all.
            Err(_) if !context.root.sys("block").is_dir() => {
                context.unavailable("this machine has no disks to measure");
                return Vec::new();
            }
            Err(error) => return vec![Reading::failed(CHECK, "disks", error.message)],
        };
        let elapsed_ms = u64::try_from(context.now.steady_ms - self.before_ms).unwrap_or(0);
        let now: HashMap<String, Counters> = text
            .lines()
            .filter_map(parse_line)
            .filter(|(name, _)| self.is_wanted(name, context))
            .map(|(name, counters)| (name.to_owned(), counters))
            .collect();
        let mut names: Vec<&String> = now.keys().collect();
        names.order();
        let readings = names
            .into_iter()
            .filter_map(|name| self.judge(name, now[name].since(*self.before.get(name)?), elapsed_ms, context))
            .collect();
        self.before = now;
        self.before_ms = context.now.steady_ms;
        readings
    }

    fn needs_two_rounds(&self) -> bool {
        true
    }
}

impl DiskIo {
    /// Whole disks have an entry in `/sys/block`, partitions have none.
    fn is_wanted(&self, name: &str, context: &Gather<'_>) -> bool {
        let memory = ["loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind));
        !memory && glob::any(&self.devices, name) && context.root.sys("block").join(sys_name(name)).exists()
    }

    fn judge(&self, name: &str, passed: Counters, elapsed_ms: u64, context: &Gather<'_>) -> Option<Reading> {
        let requests = passed.reads.saturating_add(passed.writes);
        let waited = passed.read_ms.saturating_add(passed.write_ms);
        let value = if requests == 0 { 0.0 } else { float(waited) / float(requests) };
        let kind = kind_of(name, context);
        let limits = self.limits.unwrap_or(Limits { margin: self.margin, ..kind_limits(kind) });
        let reading = limits.reading(CHECK, &clean_name(name), "time of a request", value)?;
        let elapsed = float(elapsed_ms.max(1));
        let per_second = |count: u64| format!("{:.1}", float(count) / elapsed * 1000.0);
        Some(
            reading
                .attr("device_type", kind)
                .attr("await_ms", format!("{value:.1}"))
                .attr("util_percent", format!("{:.1}%", (float(passed.io_ms) / elapsed * 100.0).min(100.0)))
                .attr("read_iops", per_second(passed.reads))
                .attr("write_iops", per_second(passed.writes)),
        )
    }
}

impl Counters {
    /// What runs backwards was exchanged for another disk: nothing is known of its time then.
    fn since(self, before: Self) -> Self {
        Self {
            reads: self.reads.saturating_sub(before.reads),
            read_ms: self.read_ms.saturating_sub(before.read_ms),
            writes: self.writes.saturating_sub(before.writes),
            write_ms: self.write_ms.saturating_sub(before.write_ms),
            io_ms: self.io_ms.saturating_sub(before.io_ms),
        }
    }
}

/// `8 0 sda READS merged sectors MS WRITES merged sectors MS inflight IO_MS weighted ...`.
fn parse_line(line: &str) -> Option<(&str, Counters)> {
    let columns: Vec<&str> = line.split_ascii_whitespace().collect();
    let number = |index: usize| columns.get(index)?.parse::<u64>().ok();
    let counters = Counters {
        reads: number(3)?,
        read_ms: number(6)?,
        writes: number(7)?,
        write_ms: number(10)?,
        io_ms: number(12)?,
    };
    Some((columns.get(2)?, counters))
}

/// A slash in a device's name is an exclamation mark in `/sys`. Other odd names are not devices.
fn sys_name(name: &str) -> String {
    if name.starts_with('.') { "?".to_owned() } else { name.replace('/', "!") }
}

fn kind_of(name: &str, context: &Gather<'_>) -> &'static str {
    if name.starts_with("nvme") {
        return "NVMe";
    }
    match context.root.sys_line(&format!("block/{}/queue/rotational", sys_name(name))).as_deref() {
        Some("0") => "SSD",
        Some("1") => "HDD",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Level;
    use crate::checks::testing::Bench;
    use serde_json::{Value, json};

    fn stats(bench: &Bench, lines: &[(&str, [u64; 5])]) {
        let lines: Vec<String> = lines
            .iter()
            .map(|(name, [reads, read_ms, writes, write_ms, io_ms])| {
                format!("   8  0 {name} {reads} 1 2 {read_ms} {writes} 3 4 {write_ms} 0 {io_ms} 99 0 0 0 0\n")
            })
            .collect();
        bench.write("proc/diskstats", &lines.concat());
    }

    fn bench() -> Bench {
        let bench = Bench::new();
        for (disk, rotational) in [("sda", "1"), ("mmcblk0", "0"), ("nvme0n1", "0"), ("vda", ""), ("loop0", "0")] {
            bench.write(&format!("sys/block/{disk}/queue/rotational"), &format!("{rotational}\n"));
        }
        bench
    }

    /// Two rounds: nothing, then these counters.
    fn look(bench: &Bench, settings: &Value, lines: &[(&str, [u64; 5])]) -> Vec<(String, Level, String)> {
        let zero: Vec<(&str, [u64; 5])> = lines.iter().map(|(name, _)| (*name, [0; 5])).collect();
        stats(bench, &zero);
        let mut checks = bench.build(build, settings);
        assert_eq!(bench.gather(&mut checks), [], "the first round only counts");
        stats(bench, lines);
        let readings = bench.gather(&mut checks);
        let row = |r: Reading| (r.target.clone(), r.level, r.attr_of("await_ms").to_owned());
        readings.into_iter().map(row).collect()
    }

    #[test]
    fn the_time_of_a_request_is_judged_by_the_kind_of_disk() {
        let bench = bench();
        // 10 reads of 20 ms each and 30 writes of 20 ms each: 20 ms on average.
        let slow = [10, 200, 30, 600, 3000];
        let found = look(
            &bench,
            &json!({}),
            &[
                ("sda", slow),
                ("sda1", slow),
                ("mmcblk0", slow),
                ("nvme0n1", slow),
                ("vda", slow),
                ("loop0", slow),
                ("ram0", slow),
            ],
        );
        let row = |name: &str, level: Level| (name.to_owned(), level, "20.0".to_owned());
        assert_eq!(
            found,
            [
                row("mmcblk0", Level::Warning),
                row("nvme0n1", Level::Warning),
                row("sda", Level::Ok),
                row("vda", Level::Ok)
            ]
        );
        let found = look(&bench, &json!({}), &[("sda", [1, 200, 0, 0, 0])]);
        assert_eq!(found[0].1, Level::Critical);
        assert_eq!(look(&bench, &json!({}), &[("sda", [0; 5])])[0].1, Level::Ok, "no request is no wait");
        let found = look(&bench, &json!({"io_latency": {"warn_ge": 5}}), &[("sda", slow), ("vda", slow)]);
        assert!(found.iter().all(|(_, level, _)| *level == Level::Warning));
        let found = look(&bench, &json!({"devices": ["vd*"]}), &[("sda", slow), ("vda", slow)]);
        assert_eq!(found, [row("vda", Level::Ok)]);
    }

    #[test]
    fn rates_use_the_time_that_passed() {
        let bench = bench();
        stats(&bench, &[("sda", [0; 5])]);
        let mut checks = bench.build(build, &json!({}));
        bench.gather(&mut checks);
        stats(&bench, &[("sda", [300, 600, 60, 120, 15_000])]);
        let reading = &bench.gather(&mut checks)[0];
        for (name, value) in [
            ("util_percent", "50.0%"),
            ("read_iops", "10.0"),
            ("write_iops", "2.0"),
            ("await_ms", "2.0"),
            ("device_type", "HDD"),
            ("current_value", "2.0ms"),
        ] {
            assert_eq!(reading.attr_of(name), value, "{name}");
        }
    }

    #[test]
    fn odd_numbers_are_survived() {
        let bench = bench();
        let found = look(&bench, &json!({}), &[("sda", [u64::MAX; 5]), ("../..", [1; 5])]);
        assert_eq!(found.len(), 1);
        stats(&bench, &[("sda", [9; 5])]);
        let mut checks = bench.build(build, &json!({}));
        bench.gather(&mut checks);
        stats(&bench, &[("sda", [1; 5])]);
        assert_eq!(bench.gather(&mut checks)[0].level, Level::Ok, "a disk that was exchanged");
        bench.write("proc/diskstats", "8 0 sda\n\0\n8 0 sda x 1 1 1 1 1 1 1 1 1 1\n");
        assert_eq!(bench.gather(&mut checks), []);
        assert!(bench.build(build, &json!({"io_latency": false})).is_empty());
        assert!(bench.build(build, &json!({"io_latency": {"enabled": false}})).is_empty());
        let none = Bench::new();
        assert_eq!(none.gather(&mut none.build(build, &json!({}))), []);
        assert_eq!(none.unavailable.take().len(), 1);
    }
}
