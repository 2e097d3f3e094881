//! What the report says about the answer of each tool: a clause for the verdict, and lines of a section.

use serde_json::Value;

use crate::llm::local::numbers::{bytes, code, duration, list, number, plain, text, time};

/// Most lines of a list in a section.
const LINES_MAX: usize = 20;

/// The tool that tells of the machines that joined the hub.
pub(super) const MACHINES: &str = "machines_list";

/// Heading of a tool's section.
pub(super) fn heading(tool: &str) -> &str {
    match tool {
        "host_cpu" => "CPU",
        "host_memory" => "Memory",
        "host_disk" => "Disks",
        "host_temperature" => "Temperature",
        "host_network" => "Network",
        "host_processes" => "Processes",
        "host_services" => "Services",
        "host_uptime" => "System",
        "host_logs" => "Log",
        MACHINES => "Joined machines",
        other => other,
    }
}

/// The shortest true statement, for the verdict of a machine that is fine. None when there is nothing to say.
pub(super) fn clause(tool: &str, value: &Value) -> Option<String> {
    match tool {
        "host_cpu" => Some(format!("CPU {} % used", plain(number(value, "used_percent")?))),
        "host_memory" => Some(format!("memory {} % used", plain(number(value, "used_percent")?))),
        "host_disk" => fullest(value).map(|(mount, used)| format!("fullest disk {} at {} %", code(mount), plain(used))),
        "host_temperature" => Some(format!("{} °C", plain(number(value, "hottest_celsius")?))),
        "host_uptime" => Some(format!("up {}", duration(number(value, "uptime_seconds")?))),
        "host_network" => {
            let route = value.get("default_route")?;
            Some(format!("online through {}", code(text(route, "interface")?)))
        }
        _ => None,
    }
}

/// The lines of a section, as Markdown.
pub(super) fn lines(tool: &str, value: &Value) -> Vec<String> {
    match tool {
        "host_cpu" => cpu(value),
        "host_memory" => memory(value),
        "host_disk" => list(value, "file_systems").iter().take(LINES_MAX).map(file_system).collect(),
        "host_temperature" => list(value, "sensors").iter().take(LINES_MAX).filter_map(sensor).collect(),
        "host_network" => network(value),
        "host_processes" => processes(value),
        "host_services" => services(value),
        "host_uptime" => system(value),
        "host_logs" => log_lines(value),
        MACHINES => machines(value),
        _ => Vec::new(),
    }
}

/// The file system with the least room, and how full it is.
pub(super) fn fullest(value: &Value) -> Option<(&str, f64)> {
    let rows = list(value, "file_systems").iter().filter(|row| row.get("read_only").is_none());
    rows.filter_map(|row| Some((text(row, "mount")?, number(row, "used_percent")?)))
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
}

fn percent(value: &Value, field: &str, label: &str) -> Option<String> {
    number(value, field).map(|share| format!("{label} {} %", plain(share)))
}

fn cpu(value: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let parts: Vec<String> = [
        percent(value, "used_percent", "used"),
        percent(value, "user_percent", "programs"),
        percent(value, "system_percent", "kernel"),
        percent(value, "iowait_percent", "waiting for disks"),
        percent(value, "steal_percent", "taken by the hypervisor"),
    ]
    .into_iter()
    .flatten()
    .filter(|text| text.starts_with("used") || !text.ends_with(" 0 %"))
    .collect();
    if !parts.is_empty() {
        lines.push(format!("- now: {}", parts.join(", ")));
    }
    let cores: Vec<String> =
        list(value, "per_core_percent").iter().filter_map(Value::as_f64).take(64).map(plain).collect();
    if cores.len() > 1 {
        lines.push(format!("- per core: {} %", cores.join(" / ")));
    }
    let load: Vec<String> =
        list(value, "load").iter().filter_map(Value::as_f64).map(|load| format!("{load:.2}")).collect();
    if let (3, Some(cores)) = (load.len(), number(value, "cores")) {
        lines.push(format!("- load over 1, 5 and 15 minutes: {} on {} cores", load.join(", "), plain(cores)));
    }
    lines
}

fn memory(value: &Value) -> Vec<String> {
    let size = |field: &str| number(value, field).map(bytes);
    let mut lines = Vec::new();
    if let (Some(used), Some(total), Some(left)) = (size("used_bytes"), size("total_bytes"), size("available_bytes")) {
        lines.push(format!("- {used} of {total} used, {left} available to programs"));
    }
    if let Some(cached) = size("cached_bytes") {
        lines.push(format!("- {cached} hold files for speed; programs get that back when they need it"));
    }
    match (number(value, "swap_total_bytes"), size("swap_used_bytes")) {
        (Some(total), Some(used)) if total > 0.0 => lines.push(format!("- swap: {used} of {} used", bytes(total))),
        (Some(_), _) => lines.push("- no swap".to_owned()),
        _ => {}
    }
    lines
}

fn file_system(row: &Value) -> String {
    let mount = code(text(row, "mount").unwrap_or("?"));
    if row.get("hangs").is_some() {
        return format!("- {mount}: **does not answer**");
    }
    if let Some(error) = text(row, "error") {
        return format!("- {mount}: could not be asked ({error})");
    }
    let share = number(row, "used_percent").map(plain).unwrap_or_default();
    let left = number(row, "available_bytes").map(bytes).unwrap_or_default();
    let total = number(row, "total_bytes").map(bytes).unwrap_or_default();
    let inodes = number(row, "inodes_used_percent").filter(|share| *share >= 50.0);
    let inodes = inodes.map(|share| format!(", inodes {} %", plain(share))).unwrap_or_default();
    let read_only = if row.get("read_only").is_some() { ", read-only" } else { "" };
    format!("- {mount}: {share} % used, {left} of {total} left{inodes}{read_only}")
}

fn sensor(row: &Value) -> Option<String> {
    Some(format!("- {}: {} °C", code(text(row, "sensor")?), plain(number(row, "celsius")?)))
}

fn network(value: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for row in list(value, "interfaces").iter().take(LINES_MAX) {
        let name = text(row, "name").unwrap_or("?");
        let addresses: Vec<&str> = list(row, "addresses").iter().filter_map(Value::as_str).collect();
        if name == "lo" || (addresses.is_empty() && text(row, "state") != Some("up")) {
            continue;
        }
        let rate = |field: &str| format!("{}/s", bytes(number(row, field).unwrap_or(0.0)));
        let shown = if addresses.is_empty() { "no address".to_owned() } else { addresses.join(", ") };
        lines.push(format!(
            "- {}: {shown}; now {} in, {} out",
            code(name),
            rate("rx_bytes_per_second"),
            rate("tx_bytes_per_second")
        ));
    }
    if let Some(route) = value.get("default_route") {
        let (gateway, name) = (text(route, "gateway").unwrap_or("?"), text(route, "interface").unwrap_or("?"));
        lines.push(format!("- way out: {gateway} through {}", code(name)));
    }
    if let Some(tcp) = value.get("tcp") {
        let count = |field: &str| plain(number(tcp, field).unwrap_or(0.0));
        lines.push(format!("- TCP connections: {}, listening sockets: {}", count("established"), count("listening")));
    }
    let ports: Vec<String> = list(value, "listening_ports").iter().filter_map(Value::as_f64).map(plain).collect();
    if !ports.is_empty() {
        lines.push(format!("- listening on ports {}", ports.join(", ")));
    }
    lines
}

fn processes(value: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    if let (Some(name), Some(matching)) = (text(value, "name"), number(value, "matching")) {
        lines.push(format!("- processes called {}: {}", code(name), plain(matching)));
    }
    if let (Some(total), Some(threads)) = (number(value, "total"), number(value, "threads")) {
        lines.push(format!("- {} processes with {} threads", plain(total), plain(threads)));
    }
    for row in list(value, "processes") {
        let (Some(name), Some(pid)) = (text(row, "name"), number(row, "pid")) else { continue };
        let cpu = plain(number(row, "cpu_percent").unwrap_or(0.0));
        let memory = bytes(number(row, "memory_bytes").unwrap_or(0.0));
        lines.push(format!("- {} (pid {}): {cpu} % of a core, {memory}", code(name), plain(pid)));
    }
    for (field, what) in [("zombie_names", "zombies"), ("uninterruptible_names", "stuck waiting for a device")] {
        let names: Vec<String> = list(value, field).iter().filter_map(Value::as_str).map(code).collect();
        if !names.is_empty() {
            lines.push(format!("- {what}: {}", names.join(", ")));
        }
    }
    lines
}

fn services(value: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for row in list(value, "failed").iter().take(LINES_MAX) {
        let description = text(row, "description").filter(|text| !text.is_empty());
        let description = description.map(|text| format!(" ({text})")).unwrap_or_default();
        lines.push(format!("- {} failed{description}", code(text(row, "unit").unwrap_or("?"))));
    }
    if number(value, "failed_count") == Some(0.0) {
        lines.push("- no unit failed".to_owned());
    }
    if let Some(unit) = text(value, "unit") {
        let state = text(value, "active").or_else(|| text(value, "load")).unwrap_or("unknown");
        let sub = text(value, "sub").map(|sub| format!(" ({sub})")).unwrap_or_default();
        lines.push(format!("- {}: {state}{sub}", code(unit)));
    }
    for (field, label) in [
        ("active_since", "active since"),
        ("inactive_since", "inactive since"),
        ("result", "last result"),
        ("starts_at_boot", "starts at boot"),
    ] {
        if let Some(text) = text(value, field) {
            lines.push(format!("- {label}: {text}"));
        }
    }
    if let Some(restarts) = number(value, "restarts").filter(|count| *count > 0.0) {
        lines.push(format!("- restarted by systemd {} times", plain(restarts)));
    }
    lines
}

fn system(value: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(up) = number(value, "uptime_seconds") {
        let since = text(value, "boot_time").map(|boot| format!(", since {}", time(boot))).unwrap_or_default();
        lines.push(format!("- up {}{since}", duration(up)));
    }
    for (field, label) in
        [("hostname", "name"), ("board", "hardware"), ("distribution", "system"), ("kernel", "kernel")]
    {
        if let Some(text) = text(value, field) {
            lines.push(format!("- {label}: {}", code(text)));
        }
    }
    lines
}

/// How many of the joined machines are online, and how many there are.
pub(super) fn joined(value: &Value) -> (u64, u64) {
    let count = |field: &str| value.get(field).and_then(Value::as_u64).unwrap_or(0);
    (count("online"), count("total"))
}

/// A line for each state, with the names.
fn machines(value: &Value) -> Vec<String> {
    let mut states: Vec<(&str, Vec<String>)> = Vec::new();
    for row in list(value, "machines") {
        let (Some(name), Some(state)) = (text(row, "name"), text(row, "state")) else { continue };
        match states.iter_mut().find(|(known, _)| *known == state) {
            Some((_, names)) => names.push(code(name)),
            None => states.push((state, vec![code(name)])),
        }
    }
    states.iter().map(|(state, names)| format!("- {state}: {}", names.join(", "))).collect()
}

fn log_lines(value: &Value) -> Vec<String> {
    let shown: Vec<String> =
        list(value, "lines").iter().filter_map(Value::as_str).map(|line| line.replace("```", "'''")).collect();
    if shown.is_empty() {
        return vec!["- no line matches".to_owned()];
    }
    vec![format!("```\n{}\n```", shown.join("\n"))]
}
