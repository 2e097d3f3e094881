//! `host_cpu`: how busy the processors are, from two samples of `/proc/stat`, and the load against the cores.

use std::time::Duration;

use serde_json::{Value, json};

use crate::diag::args::Args;
use crate::diag::finding::{Finding, percent, round1};
use crate::diag::report::Report;
use crate::diag::root::HostRoot;
use crate::diag::thresholds::{CPU_IOWAIT_PERCENT, CPU_STEAL_PERCENT, CPU_USED_PERCENT, LOAD_PER_CORE};
use crate::tools::{ToolContext, ToolError};

pub(super) const DESCRIPTION: &str = "Processor use now (user, system, I/O wait, steal; in all and per core), measured \
over a quarter of a second, and the load averages against the number of cores.";

/// Between two samples: 25 ticks of each core, enough for steps of 4 %, short enough for somebody who waits.
pub(crate) const SAMPLE: Duration = Duration::from_millis(250);

/// The counters of one `cpu` line, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticks {
    user: u64,
    nice: u64,
    system: u64,
    idle: u64,
    iowait: u64,
    irq: u64,
    softirq: u64,
    steal: u64,
}

/// `/proc/stat`, as far as it is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) all: Ticks,
    /// By the number in the name: cores that are off are missing.
    pub(crate) cores: Vec<(u32, Ticks)>,
    pub(crate) boot_time: Option<i64>,
    running: Option<u64>,
    blocked: Option<u64>,
}

/// The load averages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    pub(crate) one: f64,
    pub(crate) five: f64,
    pub(crate) fifteen: f64,
}

pub(super) fn look(root: &HostRoot, _: &Args, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    let first = parse_stat(&root.need("stat")?);
    root.probe.pause(SAMPLE, context)?;
    let second = parse_stat(&root.need("stat")?);
    let mut report = Report::new();
    let cores = second.cores.len();
    report.set("cores", cores);
    report.set_known("model", root.proc_text("cpuinfo").as_deref().and_then(model));
    let used = second.all.since(&first.all);
    report.set("sampled_ms", u64::try_from(SAMPLE.as_millis()).unwrap_or(0));
    if used.total() == 0 {
        report.note("no tick passed between the two samples: current use is unknown");
    } else {
        add_use(&mut report, root, &used, &per_core(&first, &second));
    }
    report.set_known("running", second.running);
    report.set_known("blocked", second.blocked);
    if let Some(load) = root.proc_text("loadavg").as_deref().and_then(parse_load) {
        add_load(&mut report, root, load, cores);
    }
    Ok(report)
}

fn add_use(report: &mut Report, root: &HostRoot, used: &Ticks, cores: &[Value]) {
    let total = used.total();
    report.set_round("used_percent", percent(used.busy(), total));
    report.set_round("user_percent", percent(used.user.saturating_add(used.nice), total));
    report
        .set_round("system_percent", percent(used.system.saturating_add(used.irq).saturating_add(used.softirq), total));
    report.set_round("iowait_percent", percent(used.iowait, total));
    report.set_round("steal_percent", percent(used.steal, total));
    report.set_round("idle_percent", percent(used.idle, total));
    report.set("per_core_percent", cores);
    report.find(Finding::judge(&root.limit(&CPU_USED_PERCENT), "CPU use", percent(used.busy(), total)));
    report.find(Finding::judge(&CPU_IOWAIT_PERCENT, "CPU time waiting for disks", percent(used.iowait, total)));
    report.find(Finding::judge(&CPU_STEAL_PERCENT, "CPU time taken by the hypervisor", percent(used.steal, total)));
}

fn add_load(report: &mut Report, root: &HostRoot, load: Load, cores: usize) {
    report.set("load", json!([load.one, load.five, load.fifteen]));
    if let Ok(cores) = u32::try_from(cores)
        && cores > 0
    {
        let per_core = load.five / f64::from(cores);
        report.set("load_per_core", (per_core * 100.0).round() / 100.0);
        report.find(Finding::judge(&root.limit(&LOAD_PER_CORE), "load per core over five minutes", per_core));
    }
}

/// Busy percent of every core that both samples know.
fn per_core(first: &Stat, second: &Stat) -> Vec<Value> {
    let mut list = Vec::new();
    for (number, ticks) in &second.cores {
        let before = first.cores.iter().find(|(known, _)| known == number);
        let used = before.map(|(_, before)| ticks.since(before)).unwrap_or_default();
        list.push(round1(percent(used.busy(), used.total())));
    }
    list
}

impl Ticks {
    /// Busy percent since `before`; none when no tick passed.
    pub(crate) fn busy_percent(&self, before: &Self) -> Option<f64> {
        let used = self.since(before);
        (used.total() > 0).then(|| percent(used.busy(), used.total()))
    }

    /// Counters can run backwards (iowait does, by design of the kernel): such a step counts as none.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            nice: self.nice.saturating_sub(before.nice),
            system: self.system.saturating_sub(before.system),
            idle: self.idle.saturating_sub(before.idle),
            iowait: self.iowait.saturating_sub(before.iowait),
            irq: self.irq.saturating_sub(before.irq),
            softirq: self.softirq.saturating_sub(before.softirq),
            steal: self.steal.saturating_sub(before.steal),
        }
    }

    /// Waiting for a disk is not work; time that the hypervisor took is not ours, but it is gone.
    pub(crate) fn busy(&self) -> u64 {
        [self.user, self.nice, self.system, self.irq, self.softirq, self.steal].into_iter().fold(0, u64::saturating_add)
    }

    /// Guest time is part of user time already, so it is not added again.
    pub(crate) fn total(&self) -> u64 {
        self.busy().saturating_add(self.idle).saturating_add(self.iowait)
    }
}

pub(crate) fn parse_stat(text: &str) -> Stat {
    let mut stat = Stat::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(name) = words.next() else { continue };
        let number = || line.split_ascii_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
        match name {
            "cpu" => stat.all = parse_ticks(words),
            "btime" => stat.boot_time = number().and_then(|seconds| i64::try_from(seconds).ok()),
            "procs_running" => stat.running = number(),
            "procs_blocked" => stat.blocked = number(),
            _ => {
                if let Some(core) = name.strip_prefix("cpu").and_then(|core| core.parse().ok()) {
                    stat.cores.push((core, parse_ticks(words)));
                }
            }
        }
    }
    stat
}

/// Old kernels have fewer columns; what is missing or odd counts as 0.
fn parse_ticks<'a>(words: impl Iterator<Item = &'a str>) -> Ticks {
    let mut columns = words.map(|word| word.parse::<u64>().unwrap_or(0));
    let mut next = || columns.next().unwrap_or(0);
    Ticks {
        user: next(),
        nice: next(),
        system: next(),
        idle: next(),
        iowait: next(),
        irq: next(),
        softirq: next(),
        steal: next(),
    }
}

pub(crate) fn parse_load(text: &str) -> Option<Load> {
    let mut words = text.split_ascii_whitespace().map(|word| word.parse::<f64>().ok().filter(|load| load.is_finite()));
    Some(Load { one: words.next()??, five: words.next()??, fifteen: words.next()?? })
}

/// x86 says `model name`, a Raspberry Pi says `Model` and means the board.
fn model(cpuinfo: &str) -> Option<String> {
    let value = |wanted: &str| {
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(name, _)| name.trim() == wanted).map(|(_, value)| crate::diag::report::clean_name(value.trim()))
    };
    value("model name").or_else(|| value("Model")).filter(|model| !model.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::fixture::{Fixture, level};

    #[test]
    fn a_healthy_pi_adds_up() {
        let report = Fixture::healthy_pi().call("host_cpu", &json!({}));
        // 50 ticks: user 4, system 1, idle 43, iowait 2.
        assert_eq!(report["cores"], 2);
        assert_eq!(report["used_percent"], 10);
        assert_eq!(report["user_percent"], 8);
        assert_eq!(report["system_percent"], 2);
        assert_eq!(report["iowait_percent"], 4);
        assert_eq!(report["steal_percent"], 0);
        assert_eq!(report["idle_percent"], 86);
        // cpu0: 2 of 25; cpu1: 3 of 25.
        assert_eq!(report["per_core_percent"], json!([8, 12]));
        assert_eq!(report["load"], json!([0.2, 0.3, 0.1]));
        assert_eq!(report["load_per_core"], 0.15);
        assert_eq!(level(&report, "CPU use"), "ok");
        assert_eq!(level(&report, "load per core over five minutes"), "ok");
    }

    #[test]
    fn an_overloaded_box_is_judged() {
        let fixture = Fixture::empty();
        fixture.write("proc/stat", "cpu 0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n");
        // 100 ticks: 30 user (of which 5 guest), 5 nice, 10 system, 3 irq, 2 softirq, 30 steal, 20 iowait, no idle.
        fixture.later("proc/stat", "cpu 30 5 10 0 20 3 2 30 5 0\ncpu0 30 5 10 0 20 3 2 30 5 0\n");
        fixture.write("proc/loadavg", "9.00 5.00 1.00 9/99 9\n");
        let report = fixture.call("host_cpu", &json!({}));
        assert_eq!(report["used_percent"], 80);
        assert_eq!(report["user_percent"], 35);
        assert_eq!(report["system_percent"], 15);
        assert_eq!(report["load_per_core"], json!(5.0));
        assert_eq!(level(&report, "CPU use"), "warning");
        assert_eq!(level(&report, "CPU time waiting for disks"), "warning");
        assert_eq!(level(&report, "CPU time taken by the hypervisor"), "critical");
        assert_eq!(level(&report, "load per core over five minutes"), "critical");
    }

    #[test]
    fn odd_lines_of_stat_are_survived() {
        let check = |text: &str, expected: Stat| assert_eq!(parse_stat(text), expected, "{text:?}");
        let ticks = |user, idle| Ticks { user, idle, ..Ticks::default() };
        check("", Stat::default());
        check("cpu\ncpux 1 2\ncpu0", Stat { cores: vec![(0, Ticks::default())], ..Stat::default() });
        // Kernel 2.4 had four columns; a core may be off; a number may be garbage.
        check(
            "cpu 5 0 0 7\ncpu3 5 x 0 7\n",
            Stat { all: ticks(5, 7), cores: vec![(3, ticks(5, 7))], ..Stat::default() },
        );
        check("btime 99999999999999999999\nbtime 12\n", Stat { boot_time: Some(12), ..Stat::default() });
    }

    #[test]
    fn counters_that_run_backwards_or_stand_still_are_no_use() {
        let before = Ticks { idle: 100, iowait: 50, ..Ticks::default() };
        let after = Ticks { idle: 110, iowait: 40, ..Ticks::default() };
        assert_eq!(after.since(&before), Ticks { idle: 10, ..Ticks::default() });
        let fixture = Fixture::empty();
        fixture.write("proc/stat", "cpu 1 2 3 4\n");
        let report = fixture.call("host_cpu", &json!({}));
        assert_eq!(report["used_percent"], Value::Null);
        assert!(report["notes"][0].as_str().unwrap().contains("unknown"));
    }

    #[test]
    fn loads_are_three_numbers_or_none() {
        assert_eq!(parse_load("1 2 3 4/5 6"), Some(Load { one: 1.0, five: 2.0, fifteen: 3.0 }));
        for text in ["", "1 2", "1 x 3", "NaN 1 1", "inf 1 1"] {
            assert_eq!(parse_load(text), None, "{text}");
        }
    }
}
