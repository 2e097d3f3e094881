//! `host_network`: interfaces, their addresses, traffic now, errors, the way out, and counts of connections.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::diag::args::Args;
use crate::diag::cpu::SAMPLE;
use crate::diag::finding::{Finding, float, percent, round1};
use crate::diag::report::{Report, clean_name};
use crate::diag::root::HostRoot;
use crate::diag::sockets::{TcpCounts, default_routes, ipv4_addresses, ipv6_addresses};
use crate::diag::thresholds::{DEFAULT_ROUTES, NETWORK_DROPS_PERCENT, NETWORK_ERRORS_PERCENT};
use crate::rt::order::Order;
use crate::tools::{ToolContext, ToolError};

pub(super) const DESCRIPTION: &str = "Network interfaces with link state, addresses, traffic now (bytes per second), \
errors and drops; the default route; counts of TCP connections and listening ports.";

/// Most interfaces and ports shown: container hosts have hundreds of virtual ones.
const INTERFACES_MAX: usize = 24;
const PORTS_MAX: usize = 60;

/// Below this many packets a percentage of errors says nothing.
const PACKETS_JUDGED_MIN: u64 = 1_000;

/// The counters of one line of `/proc/net/dev`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

pub(super) fn look(root: &HostRoot, _: &Args, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    let first = parse_dev(&root.need("net/dev")?);
    let elapsed = root.probe.pause(SAMPLE, context)?;
    let second = parse_dev(&root.need("net/dev")?);
    let mut report = Report::new();
    let addresses = addresses(root);
    let mut rows: Vec<(u64, Value)> = Vec::new();
    for (name, now) in &second {
        let mut row = link(root, name);
        row.insert("addresses".to_owned(), json!(addresses.get(name).cloned().unwrap_or_default()));
        if let Some(before) = first.get(name) {
            let rate =
                |now: u64, before: u64| round1((float(now.saturating_sub(before)) / elapsed.as_secs_f64()).round());
            row.insert("rx_bytes_per_second".to_owned(), rate(now.rx_bytes, before.rx_bytes));
            row.insert("tx_bytes_per_second".to_owned(), rate(now.tx_bytes, before.tx_bytes));
        }
        add_counters(&mut report, &mut row, name, now);
        rows.push((now.rx_bytes.saturating_add(now.tx_bytes), Value::Object(row)));
    }
    // Those that carry something first; quiet virtual ones may be cut.
    rows.order_by(|(a, _), (b, _)| b.cmp(a));
    if rows.len() > INTERFACES_MAX {
        report.set("truncated", true);
        rows.truncate(INTERFACES_MAX);
    }
    report.set("interfaces", rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>());
    add_routes(&mut report, root);
    add_connections(&mut report, root);
    Ok(report)
}

/// Name and state of the link. `operstate` of a tunnel is "unknown" while it works.
fn link(root: &HostRoot, name: &str) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert("name".to_owned(), json!(clean_name(name)));
    if let Some(state) = root.sys_line(&format!("class/net/{name}/operstate")) {
        row.insert("state".to_owned(), json!(clean_name(&state)));
    }
    // Without a carrier the kernel answers with an error or -1.
    let speed = root.sys_line(&format!("class/net/{name}/speed")).and_then(|speed| speed.parse::<u32>().ok());
    if let Some(speed) = speed.filter(|speed| *speed > 0 && *speed < u32::MAX) {
        row.insert("speed_mbit".to_owned(), json!(speed));
    }
    row
}

fn add_counters(report: &mut Report, row: &mut Map<String, Value>, name: &str, now: &Counters) {
    let errors = now.rx_errors.saturating_add(now.tx_errors);
    let drops = now.rx_dropped.saturating_add(now.tx_dropped);
    let packets = now.rx_packets.saturating_add(now.tx_packets).saturating_add(errors);
    row.insert("rx_bytes".to_owned(), json!(now.rx_bytes));
    row.insert("tx_bytes".to_owned(), json!(now.tx_bytes));
    row.insert("errors".to_owned(), json!(errors));
    row.insert("drops".to_owned(), json!(drops));
    if packets < PACKETS_JUDGED_MIN || name == "lo" {
        return;
    }
    let name = clean_name(name);
    report.find(Finding::judge(&NETWORK_ERRORS_PERCENT, format!("packet errors on {name}"), percent(errors, packets)));
    let dropped = percent(drops, packets.saturating_add(drops));
    report.find(Finding::judge(&NETWORK_DROPS_PERCENT, format!("dropped packets on {name}"), dropped));
}

fn addresses(root: &HostRoot) -> BTreeMap<String, Vec<String>> {
    let routes = root.proc_text("net/route").unwrap_or_default();
    let four = root.proc_text("net/fib_trie").unwrap_or_default();
    let six = root.proc_text("net/if_inet6").unwrap_or_default();
    let mut by_interface: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (interface, address) in ipv4_addresses(&four, &routes) {
        by_interface.entry(interface).or_default().push(address.to_string());
    }
    for (interface, address) in ipv6_addresses(&six) {
        by_interface.entry(interface).or_default().push(address.to_string());
    }
    by_interface
}

fn add_routes(report: &mut Report, root: &HostRoot) {
    let routes = default_routes(&root.proc_text("net/route").unwrap_or_default());
    // A machine may have nothing but IPv6: `::/0` through any device but lo.
    let six = root.proc_text("net/ipv6_route").unwrap_or_default();
    let default_v6 = six.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let all = columns.first()?.bytes().all(|digit| digit == b'0') && columns.get(1) == Some(&"00");
        columns.get(9).filter(|device| all && **device != "lo").map(|device| clean_name(device))
    });
    if let Some(best) = routes.first() {
        let route = json!({"interface": best.interface, "gateway": best.gateway, "metric": best.metric});
        report.set("default_route", route);
    }
    report.set_known("default_route_v6_interface", default_v6.clone());
    let count = routes.len() + usize::from(default_v6.is_some());
    let count = u32::try_from(count).map_or(f64::MAX, f64::from);
    report.find(Finding::judge(&DEFAULT_ROUTES, "default routes", count));
}

fn add_connections(report: &mut Report, root: &HostRoot) {
    let mut counts = TcpCounts::default();
    for table in ["net/tcp", "net/tcp6"] {
        counts.add(&root.proc_text(table).unwrap_or_default());
    }
    report.set(
        "tcp",
        json!({"listening": counts.listening, "established": counts.established, "time_wait": counts.time_wait,
               "close_wait": counts.close_wait, "other": counts.other}),
    );
    report.set("listening_ports", counts.ports.iter().take(PORTS_MAX).copied().collect::<Vec<_>>());
}

/// `eth0: 1 2 3 ...`: eight columns received, eight sent (proc_pid_net(5)).
fn parse_dev(text: &str) -> BTreeMap<String, Counters> {
    let mut interfaces = BTreeMap::new();
    for line in text.lines() {
        // An alias has a colon in its name; the counters follow the last one.
        let Some((name, rest)) = line.rsplit_once(':') else { continue };
        let columns: Vec<u64> = rest.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
        let name = name.trim();
        // The name becomes part of a path below /sys.
        if columns.len() < 12 || name.is_empty() || name.contains('/') || name.starts_with('.') {
            continue;
        }
        let counters = Counters {
            rx_bytes: columns[0],
            rx_packets: columns[1],
            rx_errors: columns[2],
            rx_dropped: columns[3],
            tx_bytes: columns[8],
            tx_packets: columns[9],
            tx_errors: columns[10],
            tx_dropped: columns[11],
        };
        interfaces.insert(name.to_owned(), counters);
    }
    interfaces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::fixture::{Fixture, level};

    #[test]
    fn a_healthy_pi_is_connected() {
        let report = Fixture::healthy_pi().call("host_network", &json!({}));
        let eth0 = &report["interfaces"][0];
        assert_eq!(eth0["name"], "eth0");
        assert_eq!(eth0["state"], "up");
        assert_eq!(eth0["speed_mbit"], 1000);
        assert_eq!(eth0["addresses"], json!(["192.168.2.17", "fe80::dea6:32ff:fe01:203"]));
        // 2,500 bytes in and 250 out within a quarter of a second.
        assert_eq!(eth0["rx_bytes_per_second"], 10_000);
        assert_eq!(eth0["tx_bytes_per_second"], 1_000);
        assert_eq!(eth0["drops"], 10);
        assert_eq!(report["default_route"]["gateway"], "192.168.2.1");
        assert_eq!(report["tcp"]["listening"], 1);
        assert_eq!(report["tcp"]["established"], 1);
        assert_eq!(report["listening_ports"], json!([22]));
        assert_eq!(level(&report, "packet errors on eth0"), "ok");
        assert_eq!(level(&report, "default routes"), "ok");
    }

    #[test]
    fn a_bad_cable_and_a_missing_route_are_found() {
        let fixture = Fixture::empty();
        fixture.write(
            "proc/net/dev",
            "eth0: 9 990 10 0 0 0 0 0 9 0 0 0 0 0 0 0\nwlan0: 1 900 0 50 0 0 0 0 1 50 0 0 0 0 0 0\n",
        );
        let report = fixture.call("host_network", &json!({}));
        assert_eq!(level(&report, "packet errors on eth0"), "critical");
        // 1,000 judged packets are needed; 950 came through here.
        assert_eq!(level(&report, "dropped packets on wlan0"), "none");
        assert_eq!(level(&report, "default routes"), "warning");
    }

    #[test]
    fn a_machine_with_ipv6_alone_has_a_way_out() {
        let fixture = Fixture::empty();
        let zero = "0".repeat(32);
        fixture.write("proc/net/dev", "eth0: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
        fixture.write(
            "proc/net/ipv6_route",
            &format!("{zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 lo\n{zero} 00 {zero} 00 fe80 400 1 0 3 eth0\n"),
        );
        let report = fixture.call("host_network", &json!({}));
        assert_eq!(report["default_route_v6_interface"], "eth0");
        assert_eq!(level(&report, "default routes"), "ok");
    }

    #[test]
    fn odd_lines_are_skipped() {
        let text = "face |bytes\nx: 1 2\n../../etc: 1 1 1 1 1 1 1 1 1 1 1 1\n: 1 1 1 1 1 1 1 1 1 1 1 1\neth0:1: 1 2 3 4 5 6 7 8 9 10 11 12\n";
        let names: Vec<String> = parse_dev(text).into_keys().collect();
        assert_eq!(names, ["eth0:1"]);
    }
}
