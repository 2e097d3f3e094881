//! One look at all processes: `/proc/<pid>/stat` of each. Processes that vanish while we look are left out.

use std::collections::HashMap;

use crate::diag::report::clean_name;
use crate::diag::root::{HostRoot, names_in};

/// What `stat` says of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// As the process calls itself; at most 15 bytes, any bytes.
    pub(crate) comm: String,
    pub(crate) state: char,
    /// User and system time in ticks.
    pub(crate) cpu_ticks: u64,
    pub(crate) threads: u64,
    /// In ticks since the boot: tells a process from the next one that got its number.
    pub(crate) started_ticks: u64,
    pub(crate) resident_pages: u64,
}

/// What `status` adds, asked only for the processes that are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Detail {
    pub(crate) user_id: Option<u32>,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) swap_bytes: Option<u64>,
}

/// All processes by number.
pub(crate) fn processes(root: &HostRoot) -> HashMap<u32, Process> {
    names_in(&root.proc(""))
        .into_iter()
        .filter_map(|name| name.parse::<u32>().ok())
        .filter_map(|pid| parse_stat(pid, &root.proc_text(&format!("{pid}/stat"))?))
        .map(|process| (process.pid, process))
        .collect()
}

/// More of one process; empty when it has ended meanwhile.
pub(crate) fn detail(root: &HostRoot, pid: u32) -> Detail {
    root.proc_text(&format!("{pid}/status")).as_deref().map(parse_status).unwrap_or_default()
}

/// `4711 (name) S 1 ...` (proc_pid_stat(5)). The name may hold blanks and parentheses: the last `)` ends it.
fn parse_stat(pid: u32, text: &str) -> Option<Process> {
    let (head, tail) = text.rsplit_once(')')?;
    let (_, comm) = head.split_once('(')?;
    // Columns count from 1 in the manual; state is the third and the first behind the name.
    let columns: Vec<&str> = tail.split_ascii_whitespace().collect();
    let number = |column: usize| columns.get(column - 3).and_then(|word| word.parse::<u64>().ok());
    Some(Process {
        pid,
        comm: clean_name(comm),
        state: columns.first()?.chars().next()?,
        cpu_ticks: number(14)?.saturating_add(number(15)?),
        threads: number(20)?,
        started_ticks: number(22)?,
        // Signed in the kernel, for a moment even below zero.
        resident_pages: number(24).unwrap_or(0),
    })
}

fn parse_status(text: &str) -> Detail {
    let value = |wanted: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = lines.find(|(name, _)| *name == wanted)?;
        value.split_ascii_whitespace().next()
    };
    let kib = |wanted: &str| value(wanted)?.parse::<u64>().ok()?.checked_mul(1024);
    Detail {
        user_id: value("Uid").and_then(|id| id.parse().ok()),
        resident_bytes: kib("VmRSS"),
        swap_bytes: kib("VmSwap"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = "S 1 1 1 0 -1 4194304 99 0 0 0 70 30 0 0 20 0 4 0 5000 3133440 390 0";

    #[test]
    fn any_name_is_read() {
        let check = |comm: &str| {
            let process = parse_stat(7, &format!("7 ({comm}) {TAIL}")).unwrap();
            assert_eq!((process.comm.as_str(), process.state), (comm, 'S'));
            assert_eq!((process.cpu_ticks, process.threads), (100, 4));
            assert_eq!((process.started_ticks, process.resident_pages), (5000, 390));
        };
        for comm in ["bash", "tmux: server", "(sd-pam)", "a) R 1 (b", ")", "((", "", "Web Content", "ünïcode"] {
            check(comm);
        }
    }

    #[test]
    fn half_a_file_is_no_process() {
        for text in
            ["", "7", "7 (bash", "7 bash) S", "7 (bash)", "7 (bash) S 1 1", "7 (bash) S 1 1 1 0 -1 4 9 0 0 0 x 3"]
        {
            assert_eq!(parse_stat(7, text), None, "{text}");
        }
        let negative = format!("7 (x) {}", TAIL.replace("390", "-1"));
        assert_eq!(parse_stat(7, &negative).unwrap().resident_pages, 0);
    }

    #[test]
    fn kernel_threads_have_no_memory() {
        let detail = parse_status("Name:\tkthreadd\nUid:\t0\t0\t0\t0\n");
        assert_eq!(detail, Detail { user_id: Some(0), ..Detail::default() });
        let detail = parse_status("Uid:\t1000\t1\nVmRSS:\t     12 kB\nVmSwap:\t18446744073709551615 kB\n");
        assert_eq!(detail, Detail { user_id: Some(1000), resident_bytes: Some(12_288), swap_bytes: None });
    }
}
