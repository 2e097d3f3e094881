//! The few numbers that a heartbeat carries (contract agent-link 2.5 and its additions).

use std::time::{Duration, Instant};

use crate::diag::cpu::{Ticks, parse_load, parse_stat};
use crate::diag::finding::round1;
use crate::diag::root::HostRoot;
use crate::diag::{disk, memory, temperature, uptime};
use crate::rt::Cancel;
use crate::tools::ToolContext;

/// Longest wait for the file systems to tell their room; the probe itself gives up on a mount earlier.
const DISK_WAIT: Duration = Duration::from_secs(3);

/// One reading; None is what this machine does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Busy processors since the reading before, 0 to 100.
    pub cpu_pct: Option<f64>,
    /// Memory that programs cannot get, 0 to 100.
    pub mem_pct: Option<f64>,
    /// The fullest file system that can be written, 0 to 100.
    pub disk_pct: Option<f64>,
    /// Load average of one minute.
    pub load1: Option<f64>,
    /// The hottest sensor in degrees Celsius.
    pub temp_c: Option<f64>,
    /// Age of the host, not of the process.
    pub host_uptime_sec: Option<i64>,
}

/// Takes readings. The window of its processor use is its own: no check and no tool shortens it.
pub struct Vitals {
    root: HostRoot,
    before: Option<Ticks>,
}

impl Vitals {
    /// The first window begins now.
    pub fn new(root: HostRoot) -> Self {
        let before = ticks(&root);
        Self { root, before }
    }

    /// Reads the numbers. Blocks for as long as a disk takes to tell its room, three seconds at most.
    pub fn read(&mut self) -> Reading {
        let now = ticks(&self.root);
        let cpu = now.zip(self.before).and_then(|(now, before)| now.busy_percent(&before));
        self.before = now.or(self.before);
        let text = |file: &str| self.root.proc_text(file);
        Reading {
            cpu_pct: cpu.and_then(rounded),
            mem_pct: text("meminfo").as_deref().and_then(memory::used_percent).and_then(rounded),
            disk_pct: self.disk().and_then(rounded),
            load1: text("loadavg").as_deref().and_then(parse_load).map(|load| load.one),
            temp_c: temperature::sensors(&self.root).first().and_then(|(_, celsius)| rounded(*celsius)),
            host_uptime_sec: text("uptime").as_deref().and_then(uptime::parse_uptime).map(whole),
        }
    }

    fn disk(&self) -> Option<f64> {
        let cancel = Cancel::new();
        let deadline = Instant::now() + DISK_WAIT;
        let context = ToolContext { agent: "", session_id: "", identity: "", deadline, cancel: &cancel };
        disk::fullest_percent(&self.root, &context)
    }
}

fn ticks(root: &HostRoot) -> Option<Ticks> {
    root.proc_text("stat").map(|text| parse_stat(&text).all)
}

fn rounded(value: f64) -> Option<f64> {
    round1(value).as_f64()
}

#[expect(clippy::cast_possible_truncation, reason = "an uptime; a cast of floats saturates")]
fn whole(seconds: f64) -> i64 {
    seconds as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::fixture::Fixture;

    #[test]
    fn a_healthy_pi_tells_everything_and_the_window_is_between_two_readings() {
        let fixture = Fixture::healthy_pi();
        let mut vitals = Vitals::new(fixture.root());
        let first = vitals.read();
        assert_eq!(first.cpu_pct, None, "no tick passed");
        assert_eq!((first.mem_pct, first.disk_pct), (Some(25.0), Some(34.7)));
        assert_eq!((first.load1, first.temp_c), (Some(0.2), Some(48.3)));
        assert_eq!(first.host_uptime_sec, Some(273_600));
        fixture.write("proc/stat", "cpu  1030 0 500 98070 300 0 100 100 0 0\n");
        assert_eq!(vitals.read().cpu_pct, Some(30.0));
        fixture.write("proc/stat", "cpu  1030 0 500 98170 300 0 100 100 0 0\n");
        assert_eq!(vitals.read().cpu_pct, Some(0.0));
    }

    #[test]
    fn an_empty_machine_tells_nothing_and_a_hung_mount_is_left_out() {
        let fixture = Fixture::empty();
        let mut vitals = Vitals::new(fixture.root());
        assert_eq!(vitals.read(), Reading::default());
        fixture.mount("/nas", "nas:/share", "nfs4", "rw", "rw");
        fixture.hangs("/nas");
        assert_eq!(vitals.read(), Reading::default());
    }
}
