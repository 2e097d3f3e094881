//! The thresholds of this machine's checks, for the tools that look at the same numbers.

use serde_json::Value;

use crate::checks::limits::{Limits, Unit};
use crate::checks::settings::Settings;
use crate::diag::thresholds::{
    CPU_USED_PERCENT, DISK_USED_PERCENT, INODES_USED_PERCENT, LOAD_PER_CORE, MEMORY_USED_PERCENT, SWAP_USED_PERCENT,
    Threshold,
};

/// Plugin, dimension, and what judges the same number elsewhere.
const SHARED: [(&str, &str, &Threshold); 6] = [
    ("cpu", "cpu_usage", &CPU_USED_PERCENT),
    ("cpu", "load_average", &LOAD_PER_CORE),
    ("mem", "memory_usage", &MEMORY_USED_PERCENT),
    ("mem", "swap_usage", &SWAP_USED_PERCENT),
    ("disk", "space_usage", &DISK_USED_PERCENT),
    ("disk", "inode_usage", &INODES_USED_PERCENT),
];

/// What the table `[checks]` judges by and the tools would not, for
/// [`HostRoot::judged_by`](crate::diag::HostRoot::judged_by).
///
/// What is off, or cannot be read, stays as usual; so does what several instances judge, each for its part.
pub fn own_limits(checks: &Value) -> Vec<Threshold> {
    let mut own = Vec::new();
    for (plugin, name, usual) in SHARED {
        let table = match checks.get(plugin) {
            Some(Value::Array(instances)) if instances.len() == 1 => instances.first(),
            other => other,
        };
        let unit = if usual.unit == "%" { Unit::Percent } else { Unit::Count };
        let read = |table: &Value| Settings::new(plugin, table)?.section(name)?.own_limits(Limits::like(unit, usual));
        if let Some(Ok(limits)) = table.map(read)
            && !limits.is_off()
        {
            own.push(Threshold { warning: limits.warn, critical: limits.critical, ..*usual });
        }
    }
    own.retain(|own| !SHARED.iter().any(|(_, _, usual)| **usual == *own));
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Plan;
    use crate::checks::testing::{Bench, level_of};
    use crate::diag::fixture::{level, with_context};
    use crate::diag::host_tools;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn a_look_and_a_check_of_the_same_number_agree() {
        let check = |checks: Value, used: [u32; 2]| {
            Plan::new(&checks, Duration::from_secs(30)).unwrap();
            let bench = Bench::new();
            let tools = host_tools(bench.root().judged_by(own_limits(&checks)));
            let memory = tools.iter().find(|tool| tool.spec().name == "host_memory").unwrap();
            for used in used[0]..=used[1] {
                let text = format!(
                    "MemTotal: 100 kB\nMemAvailable: {} kB\nSwapTotal: 100 kB\nSwapFree: {} kB\n",
                    100 - used,
                    100 - used
                );
                bench.write("proc/meminfo", &text);
                let table = checks.get("mem").cloned().unwrap_or_default();
                let readings = bench.gather(&mut bench.build(crate::checks::mem::build, &table));
                let said = with_context(|context| memory.call(&json!({}), context)).unwrap();
                let said: Value = serde_json::from_str(&said).unwrap();
                for (name, what) in [("mem::memory_usage", "memory use"), ("mem::swap_usage", "swap use")] {
                    let expected = level_of(&readings, name).name();
                    assert!(level(&said, what).eq_ignore_ascii_case(expected), "{what} {used} {checks}: {said}");
                }
            }
        };
        check(json!({}), [0, 100]);
        check(
            json!({"mem": {"memory_usage": {"warn_ge": 20, "critical_ge": 40}, "swap_usage": {"warn_ge": 50}}}),
            [0, 60],
        );
    }

    #[test]
    fn only_what_differs_is_given() {
        let names = |checks: Value| own_limits(&checks).iter().map(|own| own.name).collect::<Vec<_>>();
        assert_eq!(names(json!({})), [""; 0]);
        assert_eq!(names(json!(null)), [""; 0]);
        assert_eq!(names(json!({"disk": {"space_usage": {"warn_ge": 90, "critical_ge": 99}}})), [""; 0]);
        assert_eq!(names(json!({"disk": {"space_usage": false}, "mem": true})), [""; 0]);
        assert_eq!(names(json!({"disk": [{"space_usage": {"warn_ge": 50}}]})), ["disk_used_percent"]);
        assert_eq!(names(json!({"disk": [{"space_usage": {"warn_ge": 50}}, {}]})), [""; 0]);
        assert_eq!(names(json!({"cpu": {"load_average": {"period": "1m", "warn_ge": 9}}})), ["load_per_core"]);
        let own = own_limits(&json!({"mem": {"memory_usage": {"warn_ge": 50, "critical_ge": 60}}}));
        assert_eq!((own[0].warning, own[0].critical), (Some(50.0), Some(60.0)));
    }
}
