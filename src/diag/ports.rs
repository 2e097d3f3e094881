//! `host_ports`: who listens on which port. And the open files of processes, which tell.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::diag::args::Args;
use crate::diag::process_table::processes;
use crate::diag::report::Report;
use crate::diag::root::{HostRoot, names_in};
use crate::rt::order::Order;
use crate::tools::{ToolContext, ToolError};

pub(super) const DESCRIPTION: &str = "Ports that this machine listens on, TCP and UDP, with the address, and the process \
where it may be seen.";

/// Most ports shown.
const PORTS_MAX: usize = 100;

/// Open files looked at in all: a machine with more has a problem that another tool shows.
const FILES_MAX: usize = 65_536;

pub(super) fn look(root: &HostRoot, _: &Args, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    let mut rows: Vec<(u16, &str, IpAddr, String)> = Vec::new();
    // TCP sockets that listen; UDP knows only "not connected".
    for (file, protocol, state) in
        [("net/tcp", "tcp", "0A"), ("net/tcp6", "tcp", "0A"), ("net/udp", "udp", "07"), ("net/udp6", "udp", "07")]
    {
        let table = root.proc_text(file).unwrap_or_default();
        rows.extend(table.lines().skip(1).filter_map(|line| {
            let columns: Vec<&str> = line.split_ascii_whitespace().collect();
            let (address, port) = parse_address(columns.get(1)?)?;
            let listens = columns.get(3) == Some(&state) && port > 0;
            listens.then(|| (port, protocol, address, columns.get(9).copied().unwrap_or("").to_owned()))
        }));
    }
    rows.order();
    rows.dedup();
    let mut owners: HashMap<String, (u32, String)> = HashMap::new();
    let hidden = open_files(root, context, |pid, name, _, target| {
        if let Some(inode) = target.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')) {
            owners.insert(inode.to_owned(), (pid, name.to_owned()));
        }
    })?;
    let mut report = Report::new();
    report.set("count", rows.len());
    if rows.len() > PORTS_MAX {
        report.set("truncated", true);
    }
    let shown: Vec<Value> = rows
        .iter()
        .take(PORTS_MAX)
        .map(|(port, protocol, address, inode)| {
            let mut row = json!({"protocol": protocol, "port": port, "address": address.to_string()});
            if let Some((pid, name)) = owners.get(inode) {
                row["process"] = json!(name);
                row["pid"] = json!(pid);
            }
            row
        })
        .collect();
    report.set("ports", shown);
    if hidden > 0 {
        report.note("processes of other users cannot be seen: their ports stand without a name");
    }
    Ok(report)
}

/// Shows every open file that may be seen (process number, name, path of the descriptor, where it leads); the number of
/// processes that hide theirs.
pub(super) fn open_files(
    root: &HostRoot,
    context: &ToolContext<'_>,
    mut show: impl FnMut(u32, &str, PathBuf, PathBuf),
) -> Result<usize, ToolError> {
    let (mut hidden, mut left) = (0, FILES_MAX);
    for (pid, process) in processes(root) {
        crate::diag::probe::check_alive(context)?;
        let directory = root.proc(&format!("{pid}/fd"));
        if std::fs::read_dir(&directory).is_err() {
            hidden += 1;
            continue;
        }
        for descriptor in names_in(&directory).into_iter().take(left) {
            left -= 1;
            let path = directory.join(descriptor);
            // Closed meanwhile: not open any more.
            if let Ok(target) = std::fs::read_link(&path) {
                show(pid, &process.comm, path, target);
            }
        }
    }
    Ok(hidden)
}

/// `0100007F:0016`: bytes of each 32-bit word in the machine's order, which is little-endian wherever Holt runs.
fn parse_address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if address.len() == 8 {
        let word = u32::from_str_radix(address, 16).ok()?;
        return Some((Ipv4Addr::from(word.to_le_bytes()).into(), port));
    }
    let mut bytes = [0_u8; 16];
    for (at, chunk) in bytes.chunks_mut(4).enumerate() {
        let word = u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?;
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    (address.len() == 32).then_some((Ipv6Addr::from(bytes).into(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::fixture::Fixture;

    #[test]
    fn ports_have_addresses_and_owners() {
        let fixture = Fixture::healthy_pi();
        fixture.write("proc/net/tcp", "h\n0: 0100007F:0CEA 00000000:0000 0A 0:0 0:0 0 110 0 777 1\n1: 1102A8C0:0016 2A02A8C0:C5B2 01 0:0 0:0 0 0 0 778 1\n");
        fixture.write("proc/net/tcp6", "h\n0: 00000000000000000000000000000000:0016 0:0 0A 0:0 0:0 0 0 0 779 1\n");
        fixture.write("proc/net/udp", "h\n0: 00000000:14E9 00000000:0000 07 0:0 0:0 0 0 0 780 2\n");
        fixture.write("proc/9/stat", "9 (mariadbd) S 1 1 1 0 -1 0 0 0 0 0 1 1 0 0 20 0 2 0 5 0 9 0\n");
        fixture.link("proc/9/fd/4", "socket:[777]");
        let report = fixture.call("host_ports", &json!({}));
        assert_eq!(
            report["ports"],
            json!([
                {"protocol": "tcp", "port": 22, "address": "::"},
                {"protocol": "tcp", "port": 3306, "address": "127.0.0.1", "process": "mariadbd", "pid": 9},
                {"protocol": "udp", "port": 5353, "address": "0.0.0.0"},
            ])
        );
    }

    #[test]
    fn odd_addresses_are_none() {
        for text in ["", "x", "0100007F", "0100007F:", "01:0016", "0100007F0100007F:0016", "ü100007F:0016"] {
            assert_eq!(parse_address(text), None, "{text}");
        }
        assert_eq!(parse_address("0100007F:0016"), Some((IpAddr::from([127, 0, 0, 1]), 22)));
    }
}
