//! The reference's names for looks at the host (contract agent-link 7.4), for hubs and models that know those.

use serde_json::{Map, Value, json};

/// Their name, ours, and the argument that is meant by it (empty: none).
const ALIASES: &[(&str, &str, &str, &str)] = &[
    ("cpu_overview", "host_cpu", "", ""),
    ("top_cpu_processes", "host_processes", "by", "cpu"),
    ("mem_overview", "host_memory", "", ""),
    ("top_mem_processes", "host_processes", "by", "memory"),
    ("disk_overview", "host_disk", "", ""),
    ("disk_io_latency", "host_disk_io", "", ""),
    ("disk_io_counters", "host_disk_io", "", ""),
    ("psi_check", "host_pressure", "", ""),
    ("dmesg_recent", "host_kernel", "", ""),
    ("oom_history", "host_kernel", "since", "30d"),
    ("service_status", "host_services", "", ""),
    ("service_list_failed", "host_services", "", ""),
    ("journal_query", "host_logs", "", ""),
    ("docker_ps", "host_docker", "", ""),
    ("docker_inspect", "host_docker", "", ""),
    ("network_listen_ports", "host_ports", "", ""),
    ("network_interfaces", "host_network", "", ""),
    ("ip_addr", "host_network", "", ""),
    ("route_table", "host_network", "", ""),
    ("ping_check", "host_ping", "", ""),
    ("dns_resolve", "host_dns", "", ""),
    ("dns_lookup", "host_dns", "", ""),
    ("http_probe", "host_http", "", ""),
    ("thermal_zone", "host_temperature", "", ""),
];

/// What their arguments are called here.
const ARGUMENTS: &[(&str, &[(&str, &str)])] = &[
    ("host_processes", &[("limit", "count"), ("top", "count"), ("n", "count")]),
    ("host_services", &[("service", "unit"), ("name", "unit")]),
    ("host_logs", &[("service", "unit"), ("n", "lines"), ("limit", "lines")]),
    ("host_kernel", &[("n", "lines"), ("limit", "lines")]),
    ("host_docker", &[("name", "container"), ("id", "container")]),
    ("host_ping", &[("target", "host"), ("address", "host")]),
    ("host_dns", &[("domain", "name"), ("host", "name"), ("hostname", "name")]),
    ("host_http", &[("target", "url")]),
];

/// Our tool and arguments for a call by one of the reference's names; None for any other name. The arguments are checked
/// by the tool, as those of every call.
pub fn known_as(name: &str, arguments: Value) -> Option<(&'static str, Value)> {
    let (_, tool, fixed, value) = ALIASES.iter().find(|(theirs, ..)| *theirs == name)?;
    let mut ours = Map::new();
    if !fixed.is_empty() {
        ours.insert((*fixed).to_owned(), json!(value));
    }
    let renamed: &[(&str, &str)] =
        ARGUMENTS.iter().find(|(known, _)| known == tool).map_or(&[], |(_, renamed)| renamed);
    let Value::Object(theirs) = arguments else { return Some((tool, arguments)) };
    for (name, value) in theirs {
        let name = renamed.iter().find(|(theirs, _)| *theirs == name).map_or(name, |(_, ours)| (*ours).to_owned());
        // There every argument is text (contract agent-link 4.8).
        let number =
            value.as_str().filter(|_| matches!(name.as_str(), "count" | "lines")).and_then(|n| n.parse::<u64>().ok());
        ours.insert(name, number.map_or(value, |number| json!(number)));
    }
    Some((tool, Value::Object(ours)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_a_tool_that_takes_its_arguments() {
        let check = |name: &str, arguments: Value, tool: &str, ours: Value| {
            assert_eq!(known_as(name, arguments), Some((tool, ours)), "{name}");
        };
        check("cpu_overview", json!({}), "host_cpu", json!({}));
        check("top_mem_processes", json!({"limit": "5"}), "host_processes", json!({"by": "memory", "count": 5}));
        check("service_status", json!({"service": "nginx"}), "host_services", json!({"unit": "nginx"}));
        check("dmesg_recent", json!({"since": "10m"}), "host_kernel", json!({"since": "10m"}));
        check("ping_check", json!({"target": "a", "count": 2}), "host_ping", json!({"host": "a", "count": 2}));
        check("docker_inspect", json!([]), "host_docker", json!([]));
        assert_eq!(known_as("exec_shell", json!({})), None);
        assert_eq!(known_as("host_cpu", json!({})), None);
        let guard = crate::net::guard::Guard::new(crate::net::guard::Origin::Untrusted);
        let tools = crate::diag::machine_tools(crate::diag::HostRoot::system(), guard);
        for (theirs, ours, fixed, _) in ALIASES {
            let tool = tools.iter().find(|tool| tool.spec().name == *ours);
            let spec = tool.unwrap_or_else(|| panic!("{theirs}: no {ours}")).spec();
            assert!(fixed.is_empty() || spec.parameters["properties"].get(fixed).is_some(), "{theirs}");
        }
        for (tool, renamed) in ARGUMENTS {
            let spec = tools.iter().find(|known| known.spec().name == *tool).unwrap().spec().clone();
            assert!(renamed.iter().all(|(_, ours)| spec.parameters["properties"].get(*ours).is_some()), "{tool}");
        }
    }
}
