//! `host_processes`: who uses the processor and the memory. Shows `comm` only: command lines may hold secrets.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::diag::args::{Args, Kind, Param};
use crate::diag::cpu::SAMPLE;
use crate::diag::finding::{Finding, float, percent, round1};
use crate::diag::process_table::{Process, detail, processes};
use crate::diag::report::Report;
use crate::diag::root::{HostRoot, Units};
use crate::diag::thresholds::{UNINTERRUPTIBLE, ZOMBIES};
use crate::rt::order::Order;
use crate::tools::{ToolContext, ToolError};

pub(super) const DESCRIPTION: &str = "The processes that use most of the processor (percent of one core, measured over \
a quarter of a second) or of the memory, with counts of zombies and of processes stuck waiting for a device. Names \
only, never command lines.";

pub(super) const PARAMS: &[Param] = &[
    Param { name: "by", kind: Kind::Choice(&["cpu", "memory"]), description: "What to sort by; default cpu." },
    Param { name: "count", kind: Kind::Integer { min: 1, max: 50 }, description: "How many to show; default 10." },
    Param { name: "name", kind: Kind::Name, description: "Only processes whose name contains this." },
];

const COUNT_DEFAULT: u64 = 10;

/// A process and what it did between the two samples.
struct Row {
    process: Process,
    cpu_percent: f64,
    resident_bytes: u64,
}

pub(super) fn look(root: &HostRoot, args: &Args, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    let units = root.probe.units();
    let first = processes(root);
    let elapsed = root.probe.pause(SAMPLE, context)?;
    let second = processes(root);
    if second.is_empty() {
        return Err(ToolError::new("no process can be seen in /proc"));
    }
    let mut report = Report::new();
    // Whoever asks for one program does not ask about the others.
    if args.text("name").is_none() {
        add_counts(&mut report, &second);
    }
    let by_memory = args.text("by") == Some("memory");
    let name = args.text("name").map(str::to_lowercase);
    let mut rows: Vec<Row> = second
        .into_values()
        .filter(|process| name.as_ref().is_none_or(|name| process.comm.to_lowercase().contains(name)))
        .map(|process| row(process, &first, elapsed, units))
        .collect();
    if let Some(name) = &name {
        report.set("name", name.as_str());
        report.set("matching", rows.len());
    }
    rows.order_by(|a, b| if by_memory { b.by_memory(a) } else { b.by_cpu(a) });
    rows.truncate(usize::try_from(args.integer("count").unwrap_or(COUNT_DEFAULT)).unwrap_or(usize::MAX));
    let total = memory_total(root);
    report.set("by", if by_memory { "memory" } else { "cpu" });
    report.set("processes", rows.iter().map(|row| show(root, row, total)).collect::<Vec<_>>());
    Ok(report)
}

impl Row {
    // Ties are broken by the other number and the process number, so that answers are the same every time.
    fn by_cpu(&self, other: &Self) -> std::cmp::Ordering {
        let memory = self.resident_bytes.cmp(&other.resident_bytes);
        self.cpu_percent.total_cmp(&other.cpu_percent).then(memory).then(other.process.pid.cmp(&self.process.pid))
    }

    fn by_memory(&self, other: &Self) -> std::cmp::Ordering {
        self.resident_bytes.cmp(&other.resident_bytes).then_with(|| self.by_cpu(other))
    }
}

fn row(process: Process, first: &HashMap<u32, Process>, elapsed: Duration, units: Units) -> Row {
    // The same number with another start is another process: all its time is new.
    let before = first
        .get(&process.pid)
        .filter(|before| before.started_ticks == process.started_ticks)
        .map_or(0, |before| before.cpu_ticks);
    let ticks = float(process.cpu_ticks.saturating_sub(before));
    let possible = elapsed.as_secs_f64() * float(units.ticks_per_second);
    // One that started between the samples cannot have run longer than they are apart.
    let cpu_percent = if possible > 0.0 { ticks / possible * 100.0 } else { 0.0 };
    let cpu_percent = cpu_percent.min(100.0 * float(process.threads.max(1)));
    let resident_bytes = process.resident_pages.saturating_mul(units.page_bytes);
    Row { process, cpu_percent, resident_bytes }
}

fn show(root: &HostRoot, row: &Row, memory_total: Option<u64>) -> Value {
    let detail = detail(root, row.process.pid);
    let resident = detail.resident_bytes.unwrap_or(row.resident_bytes);
    let mut shown = Map::new();
    shown.insert("pid".to_owned(), json!(row.process.pid));
    shown.insert("name".to_owned(), json!(row.process.comm));
    shown.insert("cpu_percent".to_owned(), round1(row.cpu_percent));
    shown.insert("memory_bytes".to_owned(), json!(resident));
    if let Some(total) = memory_total {
        shown.insert("memory_percent".to_owned(), round1(percent(resident, total)));
    }
    if let Some(swap) = detail.swap_bytes.filter(|swap| *swap > 0) {
        shown.insert("swap_bytes".to_owned(), json!(swap));
    }
    if let Some(user) = detail.user_id {
        shown.insert("uid".to_owned(), json!(user));
    }
    shown.insert("state".to_owned(), json!(row.process.state.to_string()));
    shown.insert("threads".to_owned(), json!(row.process.threads));
    Value::Object(shown)
}

fn add_counts(report: &mut Report, all: &HashMap<u32, Process>) {
    let in_state = |state: char| u64::try_from(all.values().filter(|p| p.state == state).count()).unwrap_or(0);
    let (zombies, stuck) = (in_state('Z'), in_state('D'));
    report.set("total", all.len());
    report.set("threads", all.values().fold(0_u64, |sum, process| sum.saturating_add(process.threads)));
    report.set("running", in_state('R'));
    report.set("zombies", zombies);
    report.set("uninterruptible", stuck);
    let named = |state: char| {
        let mut names: Vec<&str> = all.values().filter(|p| p.state == state).map(|p| p.comm.as_str()).collect();
        names.order();
        names.dedup();
        names.truncate(10);
        names.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    if zombies > 0 {
        report.set("zombie_names", named('Z'));
    }
    if stuck > 0 {
        report.set("uninterruptible_names", named('D'));
    }
    report.find(Finding::judge(&ZOMBIES, "zombie processes", float(zombies)));
    report.find(Finding::judge(&UNINTERRUPTIBLE, "processes stuck waiting for a device", float(stuck)));
}

fn memory_total(root: &HostRoot) -> Option<u64> {
    let text = root.proc_text("meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::fixture::{Fixture, level};

    fn stat(pid: u32, comm: &str, state: char, ticks: (u64, u64), started: u64, pages: u64) -> String {
        let (user, system) = ticks;
        format!("{pid} ({comm}) {state} 1 1 1 0 -1 0 0 0 0 0 {user} {system} 0 0 20 0 2 0 {started} 0 {pages} 0\n")
    }

    fn busy() -> Fixture {
        let fixture = Fixture::empty();
        fixture.write("proc/meminfo", "MemTotal: 1000000 kB\n");
        fixture.write("proc/10/stat", &stat(10, "ffmpeg (hw) x", 'R', (100, 50), 7, 1000));
        fixture.later("proc/10/stat", &stat(10, "ffmpeg (hw) x", 'R', (120, 55), 7, 1000));
        fixture.write("proc/11/stat", &stat(11, "mariadbd", 'S', (5000, 5000), 8, 6000));
        fixture.write("proc/11/status", "Uid:\t110\t110\nVmRSS:\t250000 kB\nVmSwap:\t40 kB\n");
        fixture.later("proc/11/stat", &stat(11, "mariadbd", 'S', (5000, 5005), 8, 6000));
        // Ends between the samples.
        fixture.write("proc/12/stat", &stat(12, "gone", 'R', (1, 1), 9, 9));
        fixture.gone_later("proc/12");
        // Its number is taken over by a new process.
        fixture.write("proc/13/stat", &stat(13, "old", 'S', (900, 0), 10, 1));
        fixture.later("proc/13/stat", &stat(13, "new", 'R', (10, 0), 999, 1));
        for pid in 20..25 {
            fixture.write(&format!("proc/{pid}/stat"), &stat(pid, "defunct", 'Z', (0, 0), 3, 0));
        }
        fixture.write("proc/30/stat", &stat(30, "dd", 'D', (0, 0), 3, 0));
        fixture.write("proc/31/stat", "31 (half");
        fixture
    }

    fn names(report: &Value) -> Vec<&str> {
        report["processes"].as_array().unwrap().iter().filter_map(|row| row["name"].as_str()).collect()
    }

    #[test]
    fn use_is_measured_over_clock_ticks() {
        let report = busy().call("host_processes", &json!({"count": 3}));
        assert_eq!(names(&report), ["ffmpeg (hw) x", "new", "mariadbd"]);
        // 25 ticks fit into a quarter of a second at 100 Hz.
        assert_eq!(report["processes"][0]["cpu_percent"], 100);
        assert_eq!(report["processes"][1]["cpu_percent"], 40);
        assert_eq!(report["processes"][2]["cpu_percent"], 20);
        // Pages of 16 KiB, as on a Raspberry Pi 5.
        assert_eq!(report["processes"][0]["memory_bytes"], 1000 * 16_384);
    }

    #[test]
    fn memory_is_sorted_and_taken_from_status() {
        let report = busy().call("host_processes", &json!({"by": "memory", "count": 1}));
        assert_eq!(names(&report), ["mariadbd"]);
        let row = &report["processes"][0];
        assert_eq!(row["memory_bytes"], 256_000_000);
        assert_eq!(row["memory_percent"], 25);
        assert_eq!(row["swap_bytes"], 40_960);
        assert_eq!(row["uid"], 110);
    }

    #[test]
    fn zombies_and_stuck_ones_are_counted_and_named() {
        let report = busy().call("host_processes", &json!({}));
        assert_eq!(report["total"], 9);
        assert_eq!(report["threads"], 18);
        assert_eq!(report["zombies"], 5);
        assert_eq!(report["zombie_names"], json!(["defunct"]));
        assert_eq!(report["uninterruptible_names"], json!(["dd"]));
        assert_eq!(level(&report, "zombie processes"), "warning");
        assert_eq!(level(&report, "processes stuck waiting for a device"), "ok");
    }

    #[test]
    fn one_name_can_be_asked_for() {
        let report = busy().call("host_processes", &json!({"name": "MARIA"}));
        assert_eq!((&report["matching"], names(&report)), (&json!(1), vec!["mariadbd"]));
        assert_eq!(busy().call("host_processes", &json!({"name": "nginx"}))["matching"], 0);
    }

    #[test]
    fn command_lines_are_never_read() {
        let fixture = busy();
        fixture.write("proc/10/cmdline", "ffmpeg\0--password=hunter2\0");
        fixture.write("proc/10/environ", "TOKEN=hunter2\0");
        assert!(!fixture.try_call("host_processes", &json!({})).unwrap().contains("hunter2"));
    }
}
