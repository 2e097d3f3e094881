//! Which tools a question needs, and which ones what they said makes worth asking.

use serde_json::{Value, json};

use crate::llm::local::diagnosis::Question;
use crate::llm::local::diagnosis::facts::Facts;
use crate::llm::local::numbers::{list, number, text};
use crate::llm::local::plan::Planned;

/// Failed units, and containers, that are looked at more closely.
const CLOSER_MAX: usize = 3;

/// Linux keeps 15 bytes of a process name.
const COMM_BYTES_MAX: usize = 15;

fn look(tool: &'static str, arguments: Value) -> Planned {
    Planned { tool, arguments }
}

fn plain(tools: &[&'static str]) -> Vec<Planned> {
    tools.iter().map(|tool| look(tool, json!({}))).collect()
}

fn top(by: &str) -> Planned {
    look("host_processes", json!({"by": by, "count": 5}))
}

fn errors(since: &str) -> Planned {
    look("host_logs", json!({"since": since, "priority": "err", "lines": 40}))
}

/// The first look.
pub(super) fn first(question: &Question) -> Vec<Planned> {
    let mut looks = match question.area.as_str() {
        "cpu" => [plain(&["host_cpu", "host_temperature", "host_pressure", "host_memory"]), vec![top("cpu")]].concat(),
        "mem" => [plain(&["host_memory", "host_pressure", "host_kernel"]), vec![top("memory")]].concat(),
        "disk" => [plain(&["host_disk", "host_space", "host_kernel"]), vec![errors("1h")]].concat(),
        "diskio" => {
            [plain(&["host_disk_io", "host_cpu", "host_pressure", "host_kernel", "host_disk"]), vec![top("cpu")]]
                .concat()
        }
        "uptime" => [plain(&["host_uptime", "host_kernel", "host_temperature"]), vec![errors("24h")]].concat(),
        "ntp" => [plain(&["host_uptime", "host_network"]), clock()].concat(),
        "systemd" | "procnum" => unit(question),
        "docker" => plain(&["host_docker", "host_memory", "host_disk", "host_kernel"]),
        "http" | "ping" | "cert" | "net" => probes(question),
        "netif" => plain(&["host_network", "host_kernel"]),
        "journaltail" | "logfile" => {
            [plain(&["host_kernel", "host_services", "host_disk", "host_memory"]), vec![errors("1h")]].concat()
        }
        _ => {
            let all = [
                "host_cpu",
                "host_memory",
                "host_disk",
                "host_disk_io",
                "host_pressure",
                "host_temperature",
                "host_network",
                "host_services",
                "host_uptime",
                "host_kernel",
                "host_docker",
            ];
            [plain(&all), vec![errors("1h")]].concat()
        }
    };
    // What the machine's own checks measure now.
    looks.push(match question.area.as_str() {
        "system" => look("host_checks", json!({})),
        area => look("host_checks", json!({"plugin": area})),
    });
    looks
}

/// Programs that set the clock; which of them is there, nobody knows before asking.
fn clock() -> Vec<Planned> {
    ["systemd-timesyncd", "chrony", "ntp"].iter().map(|unit| look("host_services", json!({"unit": unit}))).collect()
}

fn unit(question: &Question) -> Vec<Planned> {
    let mut looks = plain(&["host_services", "host_memory", "host_disk"]);
    if let Some(name) = question.named_target().filter(|name| is_name(name)) {
        if question.area == "systemd" {
            looks.extend(of_unit(name));
        }
        let comm: String = name.trim_end_matches(".service").chars().take(COMM_BYTES_MAX).collect();
        looks.push(look("host_processes", json!({"name": comm})));
    }
    looks
}

fn of_unit(unit: &str) -> [Planned; 2] {
    [look("host_services", json!({"unit": unit})), look("host_logs", json!({"unit": unit, "lines": 20}))]
}

/// The way to somewhere else, step by step: own network, name, host, service.
fn probes(question: &Question) -> Vec<Planned> {
    let mut looks = plain(&["host_network"]);
    let Some(host) = question.target_host() else { return [looks, plain(&["host_ports"])].concat() };
    if host.parse::<std::net::IpAddr>().is_err() {
        looks.push(look("host_dns", json!({"name": host})));
    }
    looks.push(look("host_ping", json!({"host": host})));
    if question.target.starts_with("http://") || question.target.starts_with("https://") {
        looks.push(look("host_http", json!({"url": question.target})));
    }
    looks
}

/// The same limits as the tools' own.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":_.@-".contains(&byte);
    !name.is_empty() && name.len() <= 255 && name.bytes().all(allowed) && !name.starts_with(['-', '.', ':'])
}

/// The looks that the answers so far make worthwhile.
pub(super) fn closer(facts: &Facts<'_>) -> Vec<Planned> {
    let mut looks = Vec::new();
    let at_least = |tool: &str, field: &str, limit: f64| facts.number(tool, field).is_some_and(|value| value >= limit);
    let is_bad = |what: &str| !facts.bad(what).is_empty();
    if is_bad("CPU use") || is_bad("load per core") {
        looks.push(top("cpu"));
    }
    if at_least("host_cpu", "iowait_percent", 20.0) {
        looks.extend([top("cpu"), look("host_disk_io", json!({})), look("host_kernel", json!({}))]);
    }
    let killed = facts.tool("host_kernel").is_some_and(|value| !list(value, "oom_kills").is_empty());
    if killed || is_bad("memory use") || at_least("host_memory", "oom_kills_since_boot", 1.0) {
        looks.extend([top("memory"), look("host_memory", json!({})), look("host_kernel", json!({}))]);
    }
    if at_least("host_temperature", "hottest_celsius", 70.0) {
        looks.extend([top("cpu"), look("host_cpu", json!({}))]);
    }
    if is_bad("space on ") || is_bad("inodes on ") {
        looks.push(look("host_space", json!({})));
    }
    if !facts.log_lines(&["no space left on device"]).is_empty() {
        looks.extend([look("host_disk", json!({})), look("host_space", json!({}))]);
    }
    if !facts.bad("processes stuck").is_empty() {
        looks.push(look("host_disk_io", json!({})));
    }
    for (_, value) in facts.all("host_services") {
        for failed in list(value, "failed").iter().take(CLOSER_MAX) {
            looks.extend(text(failed, "unit").filter(|unit| is_name(unit)).map(of_unit).into_iter().flatten());
        }
    }
    if let Some(docker) = facts.tool("host_docker") {
        let troubled = list(docker, "containers").iter().filter(|container| is_troubled(container, facts.question));
        let names = troubled.filter_map(|container| text(container, "name")).filter(|name| is_name(name));
        looks.extend(names.take(CLOSER_MAX).map(|name| look("host_docker", json!({"container": name}))));
    }
    // The way out of the own network, when what is beyond it does not answer.
    let silent = facts.tool("host_ping").and_then(|ping| number(ping, "received")).is_some_and(|count| count < 1.0);
    if silent || facts.error("host_http").is_some() || facts.error("host_dns").is_some() {
        let gateway = facts.tool("host_network").and_then(|value| text(value.get("default_route")?, "gateway"));
        looks.extend(gateway.map(|gateway| look("host_ping", json!({"host": gateway}))));
    }
    let mut unique: Vec<Planned> = Vec::with_capacity(looks.len());
    for look in looks {
        if !unique.contains(&look) {
            unique.push(look);
        }
    }
    unique
}

/// Stopped, restarting, unhealthy, or what was asked about.
pub(super) fn is_troubled(container: &Value, question: &Question) -> bool {
    let state = text(container, "state").unwrap_or("");
    // 143: it was asked to end.
    let ended_well = state == "exited"
        && text(container, "status").is_some_and(|status| status.contains("(0)") || status.contains("(143)"));
    let asked = question.area == "docker" && text(container, "name") == Some(question.target.as_str());
    asked || (state != "running" && state != "created" && !ended_well) || text(container, "health") == Some("unhealthy")
}
