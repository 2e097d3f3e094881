//! Addresses, routes and connections from `/proc/net`.

use crate::rt::order::Order;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Counts of `/proc/net/tcp` and `tcp6`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TcpCounts {
    pub(super) listening: u64,
    pub(super) established: u64,
    pub(super) time_wait: u64,
    pub(super) close_wait: u64,
    pub(super) other: u64,
    /// Ports that something listens on.
    pub(super) ports: BTreeSet<u16>,
}

/// A way out of the own network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DefaultRoute {
    pub(super) interface: String,
    pub(super) gateway: String,
    pub(super) metric: u64,
}

impl TcpCounts {
    /// Adds one of the two tables. Columns: number, local address, remote address, state.
    pub(super) fn add(&mut self, table: &str) {
        for line in table.lines().skip(1) {
            let mut words = line.split_ascii_whitespace().skip(1);
            let (Some(local), Some(_), Some(state)) = (words.next(), words.next(), words.next()) else { continue };
            match state {
                "0A" => {
                    self.listening += 1;
                    let port = local.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
                    self.ports.extend(port);
                }
                "01" => self.established += 1,
                "06" => self.time_wait += 1,
                "08" => self.close_wait += 1,
                _ => self.other += 1,
            }
        }
    }
}

/// Default routes of `/proc/net/route`, the preferred (smallest metric) first. Numbers there are in hexadecimal
/// and addresses in the machine's byte order, which is little-endian wherever Holt runs.
pub(super) fn default_routes(table: &str) -> Vec<DefaultRoute> {
    let mut routes: Vec<DefaultRoute> = table.lines().skip(1).filter_map(default_route).collect();
    routes.order_by_key(|route| route.metric);
    routes
}

fn default_route(line: &str) -> Option<DefaultRoute> {
    let columns: Vec<&str> = line.split_ascii_whitespace().collect();
    let hex = |column: usize| columns.get(column).and_then(|word| u32::from_str_radix(word, 16).ok());
    let (destination, gateway, flags, mask) = (hex(1)?, hex(2)?, hex(3)?, hex(7)?);
    // RTF_UP; a rejecting route (0x0200) leads nowhere.
    let usable = flags & 0x0001 != 0 && flags & 0x0200 == 0;
    (destination == 0 && mask == 0 && usable).then(|| DefaultRoute {
        interface: columns.first().map(|name| crate::diag::report::clean_name(name)).unwrap_or_default(),
        gateway: Ipv4Addr::from(gateway.to_le_bytes()).to_string(),
        metric: columns.get(6).and_then(|word| word.parse().ok()).unwrap_or(0),
    })
}

/// Own IPv4 addresses with the interface whose network they are in, from `fib_trie` and the route table.
pub(super) fn ipv4_addresses(fib_trie: &str, routes: &str) -> Vec<(String, Ipv4Addr)> {
    let mut addresses = BTreeSet::new();
    let mut last = None;
    for line in fib_trie.lines() {
        if let Some((_, address)) = line.split_once("|-- ") {
            last = address.trim().parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(address) = last
        {
            addresses.insert(address);
        }
    }
    addresses.into_iter().map(|address| (interface_of(address, routes), address)).collect()
}

/// The interface with the narrowest network around an address; empty when no route tells.
fn interface_of(address: Ipv4Addr, routes: &str) -> String {
    if address.is_loopback() {
        return "lo".to_owned();
    }
    let wanted = u32::from_le_bytes(address.octets());
    let mut best: Option<(u32, &str)> = None;
    for line in routes.lines().skip(1) {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let hex = |column: usize| columns.get(column).and_then(|word| u32::from_str_radix(word, 16).ok());
        let (Some(name), Some(destination), Some(mask)) = (columns.first(), hex(1), hex(7)) else { continue };
        let width = mask.count_ones();
        if mask != 0 && wanted & mask == destination && best.is_none_or(|(known, _)| width > known) {
            best = Some((width, name));
        }
    }
    best.map(|(_, name)| crate::diag::report::clean_name(name)).unwrap_or_default()
}

/// Own IPv6 addresses of `/proc/net/if_inet6`: 32 digits, index, prefix length, scope, flags, name.
pub(super) fn ipv6_addresses(table: &str) -> Vec<(String, Ipv6Addr)> {
    let parse = |line: &str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let digits = columns.first().filter(|digits| digits.len() == 32)?;
        let address = Ipv6Addr::from(u128::from_str_radix(digits, 16).ok()?);
        Some((crate::diag::report::clean_name(columns.get(5)?), address))
    };
    table.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_ports_are_counted() {
        let mut counts = TcpCounts::default();
        counts.add("head\n 0: 00000000:0016 00000000:0000 0A\n 1: 0100007F:1F90 0:0 0A\n 2: A:1 B:2 01\n 3: A:1 B:2 06\n 4: A:1 B:2 08\n 5: A:1 B:2 02\n 6: broken\n");
        counts.add("head\n 0: 00000000000000000000000000000000:0016 0:0 0A\n 1: nonsense 0:0 0A\n");
        assert_eq!((counts.listening, counts.established, counts.time_wait), (4, 1, 1));
        assert_eq!((counts.close_wait, counts.other), (1, 1));
        assert_eq!(counts.ports.into_iter().collect::<Vec<_>>(), [22, 8080]);
    }

    #[test]
    fn the_default_route_is_the_usable_one_with_the_smallest_metric() {
        let head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n";
        let check = |lines: &str, expected: &[(&str, &str)]| {
            let routes = default_routes(&format!("{head}{lines}"));
            let found: Vec<_> = routes.iter().map(|r| (r.interface.as_str(), r.gateway.as_str())).collect();
            assert_eq!(found, expected, "{lines}");
        };
        check("", &[]);
        check("eth0 00000000 0102A8C0 0003 0 0 100 00000000\n", &[("eth0", "192.168.2.1")]);
        check(
            "wlan0 00000000 0102A8C0 0003 0 0 600 00000000\neth0 00000000 FE02A8C0 0003 0 0 100 00000000\n",
            &[("eth0", "192.168.2.254"), ("wlan0", "192.168.2.1")],
        );
        check("* 00000000 00000000 0200 0 0 0 00000000\neth0 0002A8C0 0 0001 0 0 0 00FFFFFF\nx\n", &[]);
    }

    #[test]
    fn addresses_find_their_interface() {
        let trie = "Main:\n |-- 0.0.0.0\n /0 universe UNICAST\n |-- 10.0.0.5\n /32 host LOCAL\n |-- 127.0.0.1\n /32 host LOCAL\n |-- 192.168.2.17\n /32 host LOCAL\nLocal:\n |-- 10.0.0.5\n /32 host LOCAL\n |-- x\n /32 host LOCAL\n";
        let routes = "head\neth0 0002A8C0 0 1 0 0 0 00FFFFFF\nwg0 0000000A 0 1 0 0 0 000000FF\n";
        let found = ipv4_addresses(trie, routes);
        let found: Vec<_> = found.iter().map(|(name, address)| format!("{name} {address}")).collect();
        assert_eq!(found, ["wg0 10.0.0.5", "lo 127.0.0.1", "eth0 192.168.2.17"]);
        let six = ipv6_addresses("fe80000000000000dea632fffe010203 02 40 20 80     eth0\nshort 1 2 3 4 x\n\n");
        assert_eq!(six, [("eth0".to_owned(), "fe80::dea6:32ff:fe01:203".parse().unwrap())]);
    }
}
