//! `mem`: what is left of memory and swap (contract agent-link 7.5).
//!
//! `[checks.mem]`: `memory_usage` (85 / 90 percent), `swap_usage` (10 / 30 percent). Memory that the kernel would hand
//! out at once (`MemAvailable`) does not count as used.

use std::collections::HashMap;

use crate::checks::limits::{Limits, Unit};
use crate::checks::plugin::{Check, Gather, Reading};
use crate::checks::registry::{DEFAULTS, Defaults, seconds};
use crate::checks::settings::{SettingError, Settings};
use crate::checks::show;
use crate::diag::finding::percent;
use crate::diag::memory::parse;
use crate::diag::thresholds::{MEMORY_USED_PERCENT, SWAP_USED_PERCENT};

pub(super) const ALERTING: Defaults = Defaults { for_duration: seconds(60), ..DEFAULTS };

const CHECK: &str = "mem::memory_usage";
const TARGET: &str = "memory";

struct Mem {
    memory: Limits,
    swap: Limits,
}

pub(super) fn build(settings: &mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError> {
    Ok(vec![Box::new(Mem {
        memory: settings.limits("memory_usage", Limits::like(Unit::Percent, &MEMORY_USED_PERCENT))?,
        swap: settings.limits("swap_usage", Limits::like(Unit::Percent, &SWAP_USED_PERCENT))?,
    })])
}

impl Check for Mem {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        let text = match context.root.need("meminfo") {
            Ok(text) => text,
            Err(error) => return vec![Reading::failed(CHECK, TARGET, error.message)],
        };
        let info = parse(&text);
        match bytes(&info, "MemTotal") {
            Some(total) if total > 0 => self.memory(&info, total).into_iter().chain(self.swap(&info)).collect(),
            _ => vec![Reading::failed(CHECK, TARGET, "/proc/meminfo names no MemTotal")],
        }
    }
}

impl Mem {
    fn memory(&self, info: &HashMap<&str, u64>, total: u64) -> Option<Reading> {
        let sum = |names: &[&str]| names.iter().filter_map(|name| bytes(info, name)).fold(0, u64::saturating_add);
        let cached = sum(&["Cached", "SReclaimable"]);
        // Before Linux 3.14 the kernel did not estimate it; this is the old rule of thumb.
        let available =
            bytes(info, "MemAvailable").unwrap_or_else(|| sum(&["MemFree", "Buffers"]).saturating_add(cached));
        let available = available.min(total);
        let used = total - available;
        let value = percent(used, total);
        let reading = self.memory.reading(CHECK, TARGET, "memory usage", value)?;
        Some(
            reading
                .attr("total", show::bytes(total))
                .attr("used", show::bytes(used))
                .attr("available", show::bytes(available))
                .attr("used_percent", self.memory.show(value))
                .attr("buffers", show::bytes(sum(&["Buffers"])))
                .attr("cached", show::bytes(cached)),
        )
    }

    fn swap(&self, info: &HashMap<&str, u64>) -> Option<Reading> {
        let total = bytes(info, "SwapTotal").filter(|total| *total > 0)?;
        let free = bytes(info, "SwapFree")?.min(total);
        let value = percent(total - free, total);
        let reading = self.swap.reading("mem::swap_usage", TARGET, "swap usage", value)?;
        Some(
            reading
                .attr("swap_total", show::bytes(total))
                .attr("swap_used", show::bytes(total - free))
                .attr("swap_free", show::bytes(free))
                .attr("swap_used_percent", self.swap.show(value)),
        )
    }
}

fn bytes(info: &HashMap<&str, u64>, name: &str) -> Option<u64> {
    info.get(name).map(|kib| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Level;
    use crate::checks::testing::Bench;
    use serde_json::json;

    #[test]
    fn memory_and_swap_are_judged() {
        let bench = Bench::new();
        let check = |meminfo: &str, expected: &[(&str, Level, &str)]| {
            bench.write("proc/meminfo", meminfo);
            let readings = bench.gather(&mut bench.build(build, &json!({})));
            let found: Vec<(&str, Level, &str)> = readings
                .iter()
                .map(|reading| (reading.check, reading.level, reading.attr_of("current_value")))
                .collect();
            assert_eq!(found, expected, "{meminfo}");
        };
        let swap = "mem::swap_usage";
        check(
            "MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 600 kB\nSwapTotal: 0 kB\n",
            &[(CHECK, Level::Ok, "40.0%")],
        );
        check(
            "MemTotal: 1000 kB\nMemAvailable: 150 kB\nSwapTotal: 100 kB\nSwapFree: 90 kB\n",
            &[(CHECK, Level::Warning, "85.0%"), (swap, Level::Warning, "10.0%")],
        );
        check(
            "MemTotal: 1000 kB\nMemAvailable: 99 kB\nSwapTotal: 100 kB\nSwapFree: 70 kB\n",
            &[(CHECK, Level::Critical, "90.1%"), (swap, Level::Critical, "30.0%")],
        );
        // A kernel that does not estimate: free + buffers + cached + reclaimable = 500.
        check(
            "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 300 kB\nSReclaimable: 50 kB\n",
            &[(CHECK, Level::Ok, "50.0%")],
        );
        // More available than there is, more free swap than swap, numbers without end.
        check(
            "MemTotal: 10 kB\nMemAvailable: 18446744073709551615 kB\nSwapTotal: 1 kB\nSwapFree: 9 kB\n",
            &[(CHECK, Level::Ok, "0.0%"), (swap, Level::Ok, "0.0%")],
        );
        check("MemTotal: 18446744073709551615 kB\nMemAvailable: 0 kB\n", &[(CHECK, Level::Critical, "100.0%")]);
        check("", &[(CHECK, Level::Critical, "")]);
        check("MemTotal: 0 kB\n:\n\0", &[(CHECK, Level::Critical, "")]);
        let gone = Bench::new();
        assert!(!gone.gather(&mut gone.build(build, &json!({})))[0].measured);
    }
}
