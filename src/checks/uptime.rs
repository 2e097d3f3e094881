//! `uptime`: a reboot that nobody may have asked for (contract agent-link 7.5).
//!
//! `[checks.uptime.reboot_detected]`: `critical_lt` (10m), `warn_lt` (off). It recovers by itself as the uptime grows.

use crate::checks::limits::{Limits, Unit};
use crate::checks::plugin::{Check, Gather, Reading};
use crate::checks::registry::{DEFAULTS, Defaults, seconds};
use crate::checks::settings::{SettingError, Settings};
use crate::diag::thresholds::UPTIME_SECONDS;
use crate::diag::uptime::parse_uptime;
use crate::rt::clock;

pub(super) const ALERTING: Defaults = Defaults { repeat_interval: seconds(3600), repeat_number: 0, ..DEFAULTS };

const CHECK: &str = "uptime::reboot_detected";
const TARGET: &str = "system";

struct Uptime {
    limits: Limits,
}

pub(super) fn build(settings: &mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError> {
    // It only grows, so it cannot dance on a threshold.
    let default = Limits { margin: Some(0.0), ..Limits::like(Unit::Seconds, &UPTIME_SECONDS) };
    Ok(vec![Box::new(Uptime { limits: settings.limits("reboot_detected", default)? })])
}

impl Check for Uptime {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        let Some(uptime) = context.root.proc_text("uptime").as_deref().and_then(parse_uptime) else {
            return vec![Reading::failed(CHECK, TARGET, "cannot read /proc/uptime")];
        };
        let Some(reading) = self.limits.reading(CHECK, TARGET, "uptime", uptime) else { return Vec::new() };
        #[expect(clippy::cast_possible_truncation, reason = "not negative; casts saturate")]
        let boot_s = context.now_s().saturating_sub(uptime as i64);
        vec![
            reading
                .attr("uptime", self.limits.show(uptime))
                .attr("uptime_seconds", format!("{uptime:.0}"))
                .attr("boot_time", clock::rfc3339_s(boot_s.saturating_mul(1000))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Level;
    use crate::checks::testing::Bench;
    use serde_json::json;

    #[test]
    fn a_young_uptime_is_a_reboot() {
        let bench = Bench::new();
        let check = |uptime: &str, settings: serde_json::Value, level: Level, value: &str| {
            bench.write("proc/uptime", uptime);
            let readings = bench.gather(&mut bench.build(build, &settings));
            assert_eq!((readings[0].level, readings[0].attr_of("uptime")), (level, value), "{uptime}");
        };
        check("273600.25 1.0\n", json!({}), Level::Ok, "3d4h");
        check("599.99 1.0\n", json!({}), Level::Critical, "9m59s");
        check("600.00 1.0\n", json!({}), Level::Ok, "10m0s");
        let both = json!({"reboot_detected": {"critical_lt": "5m", "warn_lt": "1h"}});
        check("3599 1.0\n", both.clone(), Level::Warning, "59m59s");
        check("30.5", both, Level::Critical, "30.5s");
        check("1e300 1", json!({}), Level::Ok, "213503982334601d7h");
        for garbage in ["", "x", "-5 1", "NaN"] {
            check(garbage, json!({}), Level::Critical, "");
        }
        assert_eq!(bench.gather(&mut bench.build(build, &json!({"reboot_detected": false}))).len(), 1);
        bench.write("proc/uptime", "5 5");
        assert_eq!(bench.gather(&mut bench.build(build, &json!({"reboot_detected": false}))), []);
    }
}
