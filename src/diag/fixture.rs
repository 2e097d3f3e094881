//! Machines made of files, for tests: a tree in a temporary directory and a probe that answers from tables.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::diag::child::{Output, RunError};
use crate::diag::host_tools;
use crate::diag::root::{HostRoot, Probe, Space, Units};
use crate::rt::{Cancel, lock};
use crate::tools::{ToolContext, ToolError};

/// A machine in a directory that is removed at the end of the test.
pub(crate) struct Fixture {
    dir: tempfile::TempDir,
    probe: Arc<FakeProbe>,
}

/// Time passes by exchanging files; file systems and programs answer from tables.
#[derive(Default)]
struct FakeProbe {
    dir: PathBuf,
    later: Mutex<Vec<(String, Option<String>)>>,
    spaces: Mutex<HashMap<PathBuf, Option<Space>>>,
    programs: Mutex<HashMap<String, Output>>,
    ran: Mutex<Vec<String>>,
}

impl Fixture {
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let probe = Arc::new(FakeProbe { dir: dir.path().to_owned(), ..FakeProbe::default() });
        Self { dir, probe }
    }

    /// A Raspberry Pi with nothing to complain about.
    pub(crate) fn healthy_pi() -> Self {
        let fixture = Self::empty();
        fixture.write("proc/stat", "cpu  1000 0 500 98000 300 0 100 100 0 0\ncpu0 500 0 250 49000 150 0 50 50 0 0\ncpu1 500 0 250 49000 150 0 50 50 0 0\nbtime 1767323045\nprocs_running 2\nprocs_blocked 0\n");
        // 50 ticks of which user 4, system 1, idle 43, iowait 2.
        fixture.later("proc/stat", "cpu  1004 0 501 98043 302 0 100 100 0 0\ncpu0 502 0 250 49022 151 0 50 50 0 0\ncpu1 502 0 251 49021 151 0 50 50 0 0\nbtime 1767323045\n");
        fixture.write("proc/loadavg", "0.20 0.30 0.10 1/180 4242\n");
        fixture.write("proc/meminfo", "MemTotal: 4000000 kB\nMemFree: 200000 kB\nMemAvailable: 3000000 kB\nBuffers: 100000 kB\nCached: 2600000 kB\nSReclaimable: 200000 kB\nSwapTotal: 100000 kB\nSwapFree: 95000 kB\n");
        fixture.write("proc/vmstat", "oom_kill 0\n");
        fixture.write("proc/uptime", "273600.25 500000.00\n");
        fixture.write("proc/sys/kernel/hostname", "pi\n");
        fixture.write("proc/sys/kernel/osrelease", "6.12.25+rpt-rpi-v8\n");
        fixture.write("etc/os-release", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n");
        fixture.write("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n");
        fixture.write("sys/class/thermal/thermal_zone0/temp", "48312\n");
        fixture.mount("/", "/dev/mmcblk0p2", "ext4", "rw,noatime", "rw");
        fixture.space(
            "/",
            Space {
                block_bytes: 4096,
                blocks: 7_500_000,
                blocks_free: 5_000_000,
                blocks_available: 4_700_000,
                inodes: 1_900_000,
                inodes_free: 1_700_000,
            },
        );
        fixture.write("proc/net/dev", "Inter-| Receive | Transmit\n face |bytes\n    lo: 100 10 0 0 0 0 0 0 100 10 0 0 0 0 0 0\n  eth0: 1000000 9000 0 10 0 0 0 5 500000 8000 0 0 0 0 0 0\n");
        fixture.later("proc/net/dev", "Inter-| Receive | Transmit\n face |bytes\n    lo: 100 10 0 0 0 0 0 0 100 10 0 0 0 0 0 0\n  eth0: 1002500 9010 0 10 0 0 0 5 500250 8001 0 0 0 0 0 0\n");
        fixture.write("sys/class/net/eth0/operstate", "up\n");
        fixture.write("sys/class/net/eth0/carrier", "1\n");
        fixture.write("sys/class/net/eth0/speed", "1000\n");
        fixture.write("sys/class/net/lo/operstate", "unknown\n");
        fixture.write("proc/net/route", "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\neth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\neth0\t0002A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n");
        fixture.write("proc/net/fib_trie", "Local:\n  +-- 0.0.0.0/0 2 0 2\n     +-- 127.0.0.0/8 2 0 2\n           |-- 127.0.0.1\n              /32 host LOCAL\n     +-- 192.168.2.0/24 2 0 2\n           |-- 192.168.2.17\n              /32 host LOCAL\n           |-- 192.168.2.255\n              /32 link BROADCAST\n");
        fixture.write("proc/net/if_inet6", "00000000000000000000000000000001 01 80 10 80       lo\nfe80000000000000dea632fffe010203 02 40 20 80     eth0\n");
        fixture.write("proc/net/tcp", "  sl  local_address rem_address   st\n   0: 00000000:0016 00000000:0000 0A 0\n   1: 1102A8C0:0016 2A02A8C0:C5B2 01 0\n");
        fixture
    }

    /// Puts a file into the tree.
    pub(crate) fn write(&self, path: &str, content: &str) {
        put(self.dir.path(), path, content);
    }

    /// Puts a symbolic link into the tree, wherever it leads.
    pub(super) fn link(&self, path: &str, target: &str) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    /// What a file holds in the second sample.
    pub(crate) fn later(&self, path: &str, content: &str) {
        lock(&self.probe.later).push((path.to_owned(), Some(content.to_owned())));
    }

    /// A directory or file that is gone in the second sample.
    pub(crate) fn gone_later(&self, path: &str) {
        lock(&self.probe.later).push((path.to_owned(), None));
    }

    /// Adds a line to the table of mounts.
    pub(crate) fn mount(&self, point: &str, device: &str, kind: &str, options: &str, super_options: &str) {
        let path = self.dir.path().join("proc/self/mountinfo");
        let mut table = std::fs::read_to_string(path).unwrap_or_default();
        let id = 30 + table.lines().count();
        let line = format!("{id} 1 179:{id} / {point} {options} - {kind} {device} {super_options}\n");
        table.push_str(&line);
        self.write("proc/self/mountinfo", &table);
    }

    /// The room on a mount point.
    pub(crate) fn space(&self, point: &str, space: Space) {
        lock(&self.probe.spaces).insert(PathBuf::from(point), Some(space));
    }

    /// A mount point that does not answer.
    pub(crate) fn hangs(&self, point: &str) {
        lock(&self.probe.spaces).insert(PathBuf::from(point), None);
    }

    /// What a program answers, whatever its arguments.
    pub(crate) fn program(&self, name: &str, code: i32, text: &str) {
        let output = Output { code: Some(code), text: text.to_owned() };
        lock(&self.probe.programs).insert(name.to_owned(), output);
    }

    /// The command lines that were run.
    pub(crate) fn ran(&self) -> Vec<String> {
        lock(&self.probe.ran).clone()
    }

    /// A root that behaves like the machine Holt runs on.
    pub(crate) fn root(&self) -> HostRoot {
        HostRoot::at(self.dir.path()).with_probe(Arc::clone(&self.probe) as Arc<dyn Probe>, cfg!(target_os = "linux"))
    }

    /// Calls a tool and parses its answer.
    pub(crate) fn call(&self, name: &str, arguments: &Value) -> Value {
        serde_json::from_str(&self.try_call(name, arguments).unwrap()).unwrap()
    }

    /// Calls a tool.
    pub(crate) fn try_call(&self, name: &str, arguments: &Value) -> Result<String, ToolError> {
        let tools = host_tools(self.root());
        let tool = tools.iter().find(|tool| tool.spec().name == name).unwrap();
        with_context(|context| tool.call(arguments, context))
    }
}

/// Calls with a context that gives all the time in the world.
pub(crate) fn with_context<T>(call: impl FnOnce(&ToolContext<'_>) -> T) -> T {
    let cancel = Cancel::new();
    let deadline = Instant::now() + Duration::from_secs(120);
    call(&ToolContext { agent: "default", session_id: "s", identity: "i", deadline, cancel: &cancel })
}

/// The level of the finding with that subject.
pub(crate) fn level(report: &Value, what: &str) -> String {
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["what"] == what);
    found.map_or_else(|| "none".to_owned(), |finding| finding["level"].as_str().unwrap().to_owned())
}

fn put(dir: &Path, path: &str, content: &str) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

impl Probe for FakeProbe {
    fn pause(&self, wanted: Duration, _: &ToolContext<'_>) -> Result<Duration, ToolError> {
        for (path, content) in lock(&self.later).iter() {
            match content {
                Some(content) => put(&self.dir, path, content),
                None => std::fs::remove_dir_all(self.dir.join(path)).unwrap_or_default(),
            }
        }
        Ok(wanted)
    }

    fn units(&self) -> Units {
        Units { ticks_per_second: 100, page_bytes: 16_384 }
    }

    fn spaces(&self, paths: &[PathBuf], _: &ToolContext<'_>) -> Vec<io::Result<Space>> {
        let spaces = lock(&self.spaces);
        let answer = |path: &PathBuf| match spaces.get(path) {
            Some(Some(space)) => Ok(*space),
            Some(None) => Err(io::ErrorKind::TimedOut.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        paths.iter().map(answer).collect()
    }

    fn run(&self, program: &str, arguments: &[&str], _: &ToolContext<'_>) -> Result<Output, RunError> {
        lock(&self.ran).push(format!("{program} {}", arguments.join(" ")));
        lock(&self.programs).get(program).cloned().ok_or(RunError::Missing)
    }
}
