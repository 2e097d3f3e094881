//! `cpu`: how busy the processors are and how much waits for them (contract agent-link 7.5).
//!
//! `[checks.cpu]`: `cpu_usage` (80 / 90 percent), `load_average` (3 / 5 per core; `period` 1m, 5m, 15m). The window is
//! the check's own: nothing else that looks at the processors shortens it.

use crate::checks::limits::{Limits, Unit};
use crate::checks::plugin::{Check, Gather, Reading};
use crate::checks::registry::{DEFAULTS, Defaults, seconds};
use crate::checks::settings::{SettingError, Settings};
use crate::diag::cpu::{Ticks, parse_load, parse_stat};
use crate::diag::finding::percent;
use crate::diag::thresholds::{CPU_USED_PERCENT, LOAD_PER_CORE};

pub(super) const ALERTING: Defaults = Defaults { for_duration: seconds(120), ..DEFAULTS };

const TARGET: &str = "cpu";

struct Cpu {
    usage: Limits,
    load: Limits,
    period: &'static str,
    before: Option<Ticks>,
}

pub(super) fn build(settings: &mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError> {
    let usage = settings.limits("cpu_usage", Limits::like(Unit::Percent, &CPU_USED_PERCENT))?;
    let mut load = Limits::like(Unit::Count, &LOAD_PER_CORE);
    let mut period = "5m";
    if settings.switched_off("load_average") {
        (load.warn, load.critical) = (None, None);
    } else {
        let mut section = settings.section("load_average")?;
        period = section.word("period", &["1m", "5m", "15m"], period)?;
        load = section.own_limits(load)?;
        section.finish()?;
    }
    Ok(vec![Box::new(Cpu { usage, load, period, before: None })])
}

impl Check for Cpu {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        let stat = match context.root.need("stat") {
            Ok(text) => parse_stat(&text),
            Err(error) => return vec![Reading::failed("cpu::cpu_usage", TARGET, error.message)],
        };
        let mut readings = Vec::new();
        if let Some(before) = self.before.replace(stat.all) {
            let used = stat.all.since(&before);
            let value = percent(used.busy(), used.total()).clamp(0.0, 100.0);
            readings.extend(self.usage.reading("cpu::cpu_usage", TARGET, "cpu usage", value).map(|reading| {
                let cores = stat.cores.len().to_string();
                reading.attr("cpu_usage", self.usage.show(value)).attr("cpu_cores", cores)
            }));
        }
        if !self.load.is_off() {
            readings.push(self.load(context, stat.cores.len()));
        }
        readings
    }

    fn needs_two_rounds(&self) -> bool {
        true
    }
}

impl Cpu {
    fn load(&self, context: &Gather<'_>, cores: usize) -> Reading {
        const CHECK: &str = "cpu::load_average";
        let load = context.root.proc_text("loadavg").as_deref().and_then(parse_load);
        let cores = u32::try_from(cores).unwrap_or(0);
        let (Some(load), true) = (load, cores > 0) else {
            return Reading::failed(CHECK, TARGET, "cannot read /proc/loadavg or the number of processors");
        };
        let value = match self.period {
            "1m" => load.one,
            "15m" => load.fifteen,
            _ => load.five,
        } / f64::from(cores);
        let what = format!("load per core over {}", self.period);
        let reading = self.load.reading(CHECK, TARGET, &what, value);
        reading
            .unwrap_or_else(|| Reading::new(CHECK, TARGET, crate::alert::Level::Ok, ""))
            .attr("load1", load.one.to_string())
            .attr("load5", load.five.to_string())
            .attr("load15", load.fifteen.to_string())
            .attr("per_core_load", format!("{value:.2}"))
            .attr("cpu_cores", cores.to_string())
            .attr("period", self.period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Level;
    use crate::checks::testing::{Bench, level_of};
    use serde_json::json;

    const IDLE: &str = "cpu 100 0 100 800 0 0 0 0 0 0\ncpu0 50 0 50 400 0 0 0 0\ncpu1 50 0 50 400 0 0 0 0\n";

    #[test]
    fn usage_is_the_difference_to_the_round_before() {
        let bench = Bench::new();
        bench.write("proc/stat", IDLE);
        bench.write("proc/loadavg", "0.5 1.0 9.0 1/2 3\n");
        let mut checks = bench.build(build, &json!({}));
        let first = bench.gather(&mut checks);
        assert_eq!(first.iter().map(|reading| reading.check).collect::<Vec<_>>(), ["cpu::load_average"]);
        // 100 ticks: 40 user (10 of them guest, which is in it), 5 nice, 10 system, 20 iowait, 2 irq, 3 softirq, 20 steal.
        bench.write("proc/stat", "cpu 140 5 110 800 20 2 3 20 10 0\ncpu0 0 0 0 0\ncpu1 0 0 0 0\n");
        let readings = bench.gather(&mut checks);
        assert_eq!(readings[0].attr_of("current_value"), "80.0%");
        assert_eq!((readings[0].level, readings[0].target.as_str()), (Level::Warning, "cpu"));
        assert_eq!(readings[0].attr_of("cpu_cores"), "2");
        // Counters that ran backwards, and then a machine that did nothing but work.
        bench.write("proc/stat", IDLE);
        assert_eq!(bench.gather(&mut checks)[0].attr_of("current_value"), "0.0%");
        bench.write("proc/stat", "cpu 18446744073709551615 18446744073709551615 100 800\ncpu0 1 1 1 1\n");
        assert_eq!(bench.gather(&mut checks)[0].level, Level::Critical);
        bench.write("proc/stat", "\0 garbage\ncpu x y\n");
        assert_eq!(level_of(&bench.gather(&mut checks), "cpu::load_average"), Level::Critical);
    }

    #[test]
    fn load_is_counted_per_core_over_the_period() {
        let bench = Bench::new();
        bench.write("proc/stat", IDLE);
        let check = |loadavg: &str, settings: serde_json::Value, level: Level, value: &str| {
            bench.write("proc/loadavg", loadavg);
            let readings = bench.gather(&mut bench.build(build, &settings));
            assert_eq!((readings[0].level, readings[0].attr_of("current_value")), (level, value), "{loadavg}");
        };
        check("9 2 1 1/2 3", json!({}), Level::Ok, "1");
        check("9 6 1 1/2 3", json!({}), Level::Warning, "3");
        check("9 10 1 1/2 3", json!({}), Level::Critical, "5");
        check("9 1 1 1/2 3", json!({"load_average": {"period": "1m"}}), Level::Warning, "4.50");
        check("1 1 8 1/2 3", json!({"load_average": {"period": "15m", "warn_ge": 4}}), Level::Warning, "4");
        check("NaN 1 1", json!({}), Level::Critical, "");
        check("", json!({}), Level::Critical, "");
        let off = bench.gather(&mut bench.build(build, &json!({"load_average": false})));
        assert_eq!(off, []);
        assert_eq!(bench.refused(build, &json!({"load_average": {"period": "2m"}})), "checks.x.load_average.period");
        let gone = Bench::new();
        assert_eq!(level_of(&gone.gather(&mut gone.build(build, &json!({}))), "cpu::cpu_usage"), Level::Critical);
    }
}
