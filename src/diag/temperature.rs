//! `host_temperature`: every sensor the kernel knows, and whether the processor is throttled.

use serde_json::{Value, json};

use crate::diag::args::Args;
use crate::diag::finding::{Finding, round1};
use crate::diag::report::{Report, clean_name};
use crate::diag::root::{HostRoot, names_in};
use crate::diag::thresholds::{BOARD_TEMPERATURE_CELSIUS, TEMPERATURE_CELSIUS};
use crate::rt::order::Order;
use crate::tools::{ToolContext, ToolError};

pub(super) const DESCRIPTION: &str = "Temperatures of all sensors, the hottest first, and the processor's clock.";

/// Beyond these a sensor is broken or absent (the kernel reports e.g. -274 or 65,261), not cold or hot.
const CELSIUS_MIN: f64 = -40.0;
const CELSIUS_MAX: f64 = 150.0;

/// Most sensors shown; server boards have dozens, and the hottest come first.
const SENSORS_MAX: usize = 32;

#[expect(clippy::unnecessary_wraps, reason = "the shape that all tools share")]
pub(super) fn look(root: &HostRoot, _: &Args, _: &ToolContext<'_>) -> Result<Report, ToolError> {
    let sensors = sensors(root);
    let mut report = Report::new();
    if let Some((name, celsius)) = sensors.first() {
        report.set_round("hottest_celsius", *celsius);
        // Small boards describe themselves by a device tree, PCs by ACPI.
        let is_board = root.proc_line("device-tree/model").is_some();
        let threshold = if is_board { &BOARD_TEMPERATURE_CELSIUS } else { &TEMPERATURE_CELSIUS };
        report.find(Finding::judge(threshold, format!("temperature of {name}"), *celsius));
    } else {
        report.note("this machine has no temperature sensor that the kernel knows (usual in virtual machines)");
    }
    let rows: Vec<Value> =
        sensors.iter().map(|(name, celsius)| json!({"sensor": name, "celsius": round1(*celsius)})).collect();
    report.set("sensors", rows);
    let mhz = |file: &str| {
        let khz = root.sys_line(&format!("devices/system/cpu/cpu0/cpufreq/{file}"))?.parse::<u64>().ok()?;
        Some(khz / 1000)
    };
    report.set_known("cpu_mhz", mhz("scaling_cur_freq"));
    report.set_known("cpu_mhz_max", mhz("cpuinfo_max_freq"));
    Ok(report)
}

/// Names and degrees, the hottest first.
pub(super) fn sensors(root: &HostRoot) -> Vec<(String, f64)> {
    let mut sensors = zones(root);
    sensors.extend(hwmon(root));
    sensors.order_by(|(_, a), (_, b)| b.total_cmp(a));
    // Thermal zones appear as hwmon chips once more, under the same name.
    sensors.dedup_by(|(a, x), (b, y)| a == b && (*x - *y).abs() < 0.05);
    sensors.truncate(SENSORS_MAX);
    sensors
}

fn zones(root: &HostRoot) -> Vec<(String, f64)> {
    let names = names_in(&root.sys("class/thermal"));
    names
        .iter()
        .filter(|name| name.starts_with("thermal_zone"))
        .filter_map(|zone| {
            let kind = root.sys_line(&format!("class/thermal/{zone}/type"));
            let name = kind.as_ref().unwrap_or(zone);
            Some((tidy(name), celsius(root, &format!("class/thermal/{zone}/temp"))?))
        })
        .collect()
}

fn hwmon(root: &HostRoot) -> Vec<(String, f64)> {
    let mut sensors = Vec::new();
    for chip in names_in(&root.sys("class/hwmon")) {
        let name = root.sys_line(&format!("class/hwmon/{chip}/name")).unwrap_or_else(|| chip.clone());
        for file in names_in(&root.sys(&format!("class/hwmon/{chip}"))) {
            let Some(sensor) = file.strip_suffix("_input").filter(|sensor| sensor.starts_with("temp")) else {
                continue;
            };
            let label = root.sys_line(&format!("class/hwmon/{chip}/{sensor}_label"));
            let full = label.map_or_else(|| name.clone(), |label| format!("{name} {label}"));
            if let Some(celsius) = celsius(root, &format!("class/hwmon/{chip}/{file}")) {
                sensors.push((tidy(&full), celsius));
            }
        }
    }
    sensors
}

/// `cpu_thermal` (hwmon) and `cpu-thermal` (zone) are one sensor.
fn tidy(name: &str) -> String {
    clean_name(name).replace('_', "-")
}

/// The kernel counts in thousandths of a degree.
fn celsius(root: &HostRoot, file: &str) -> Option<f64> {
    let thousandths = root.sys_line(file)?.parse::<i32>().ok()?;
    let celsius = f64::from(thousandths) / 1000.0;
    (CELSIUS_MIN..=CELSIUS_MAX).contains(&celsius).then_some(celsius)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::fixture::{Fixture, level};

    #[test]
    fn sensors_are_sorted_named_and_judged() {
        let fixture = Fixture::healthy_pi();
        fixture.write("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.5\0");
        fixture.write("sys/class/hwmon/hwmon0/name", "cpu_thermal\n");
        fixture.write("sys/class/hwmon/hwmon0/temp1_input", "48312\n");
        fixture.write("sys/class/hwmon/hwmon1/name", "nvme\n");
        fixture.write("sys/class/hwmon/hwmon1/temp1_input", "70000\n");
        fixture.write("sys/class/hwmon/hwmon1/temp1_label", "Composite\n");
        fixture.write("sys/class/hwmon/hwmon1/temp2_input", "-273150\n");
        fixture.write("sys/class/hwmon/hwmon1/temp3_input", "garbage\n");
        fixture.write("sys/class/hwmon/hwmon1/fan1_input", "1200\n");
        let report = fixture.call("host_temperature", &json!({}));
        let expected = json!([{"sensor": "nvme Composite", "celsius": 70}, {"sensor": "cpu-thermal", "celsius": 48.3}]);
        assert_eq!(report["sensors"], expected);
        assert_eq!(report["hottest_celsius"], 70);
        assert_eq!(level(&report, "temperature of nvme Composite"), "warning");
        fixture.write("proc/device-tree/model", "");
        let report = fixture.call("host_temperature", &json!({}));
        assert_eq!(level(&report, "temperature of nvme Composite"), "ok", "a PC may be warmer");
    }

    #[test]
    fn no_sensor_is_no_error() {
        let report = Fixture::empty().call("host_temperature", &json!({}));
        assert_eq!(report["sensors"], json!([]));
        assert!(report["notes"][0].as_str().unwrap().contains("no temperature sensor"));
    }
}
