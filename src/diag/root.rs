//! Where a host tool looks: the places of `/proc`, `/sys`, `/etc`, ..., and the few questions that files do not answer.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::diag::child::{Output, RunError};
use crate::diag::probe::SystemProbe;
use crate::diag::thresholds::Threshold;
use crate::rt::order::Order;
use crate::tools::{ToolContext, ToolError};

/// Most bytes of one file of `/proc` or `/sys`: connection tables of busy machines are long, nothing else is.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Most entries of one directory: no machine of this size has more processes.
const ENTRIES_MAX: usize = 65_536;

/// The file trees of one machine.
#[derive(Clone)]
pub struct HostRoot {
    proc: PathBuf,
    sys: PathBuf,
    etc: PathBuf,
    run: PathBuf,
    var_log: PathBuf,
    usr_lib: PathBuf,
    /// Whether this is the machine that Holt runs on: only then do system calls and `systemctl` speak of it.
    system: bool,
    /// The thresholds of this machine that are not the usual ones.
    own: Arc<[Threshold]>,
    pub(crate) probe: Arc<dyn Probe>,
}

/// What a file system says about its room, in blocks and inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Space {
    /// Size of a block in bytes (`f_frsize`).
    pub(crate) block_bytes: u64,
    pub(crate) blocks: u64,
    /// Free, including what is reserved for root.
    pub(crate) blocks_free: u64,
    /// Free for everybody.
    pub(crate) blocks_available: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

/// The units in which the kernel counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Units {
    pub(crate) ticks_per_second: u64,
    pub(crate) page_bytes: u64,
}

/// Questions to the machine that are not files. Tests answer them from tables.
pub(crate) trait Probe: Send + Sync {
    /// Lets time pass between two samples, and says how much really passed. Ends early when the call is given up.
    fn pause(&self, wanted: Duration, context: &ToolContext<'_>) -> Result<Duration, ToolError>;

    fn units(&self) -> Units;

    /// Asks every path for its room, all at once and in bounded time; one that does not answer is `TimedOut`.
    fn spaces(&self, paths: &[PathBuf], context: &ToolContext<'_>) -> Vec<io::Result<Space>>;

    /// Runs a program of the system to its end.
    fn run(&self, program: &str, arguments: &[&str], context: &ToolContext<'_>) -> Result<Output, RunError>;
}

impl HostRoot {
    /// The machine that Holt runs on.
    pub fn system() -> Self {
        Self { system: true, ..Self::at("/") }
    }

    /// The same trees below another directory: a fixture, or a host's root mounted into a container.
    pub fn at(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        Self {
            proc: path.join("proc"),
            sys: path.join("sys"),
            etc: path.join("etc"),
            run: path.join("run"),
            var_log: path.join("var/log"),
            usr_lib: path.join("usr/lib"),
            system: false,
            own: Arc::default(),
            probe: Arc::new(SystemProbe::new(path)),
        }
    }

    /// The same machine, judged by thresholds of its own; those of other names stay the usual ones.
    #[must_use]
    pub fn judged_by(mut self, own: Vec<Threshold>) -> Self {
        self.own = own.into();
        self
    }

    /// What a number of this machine is judged by.
    pub(crate) fn limit(&self, usual: &Threshold) -> Threshold {
        *self.own.iter().find(|own| own.name == usual.name).unwrap_or(usual)
    }

    #[cfg(test)]
    pub(crate) fn with_probe(mut self, probe: Arc<dyn Probe>, system: bool) -> Self {
        self.probe = probe;
        self.system = system;
        self
    }

    pub(crate) fn is_system(&self) -> bool {
        self.system
    }

    pub(crate) fn proc(&self, path: &str) -> PathBuf {
        self.proc.join(path)
    }

    pub(crate) fn sys(&self, path: &str) -> PathBuf {
        self.sys.join(path)
    }

    pub(crate) fn run_dir(&self, path: &str) -> PathBuf {
        self.run.join(path)
    }

    pub(crate) fn log(&self, path: &str) -> PathBuf {
        self.var_log.join(path)
    }

    /// A file of `/proc` that a tool cannot do without.
    pub(crate) fn need(&self, path: &str) -> Result<String, ToolError> {
        read_text(&self.proc(path)).map_err(|error| ToolError::new(format!("cannot read /proc/{path}: {error}")))
    }

    /// A file of `/proc` that may be missing.
    pub(crate) fn proc_text(&self, path: &str) -> Option<String> {
        read_text(&self.proc(path)).ok()
    }

    /// A one-line file of `/proc`, trimmed; none when missing or empty.
    pub(crate) fn proc_line(&self, path: &str) -> Option<String> {
        trimmed(self.proc_text(path))
    }

    /// A one-line file of `/sys`, trimmed; none when missing or empty.
    pub(crate) fn sys_line(&self, path: &str) -> Option<String> {
        trimmed(read_text(&self.sys(path)).ok())
    }

    /// A file of `/etc` that may be missing.
    pub(crate) fn etc_text(&self, path: &str) -> Option<String> {
        read_text(&self.etc.join(path)).ok()
    }

    /// `os-release`, from `/etc` or, where that is missing, `/usr/lib`.
    pub(crate) fn os_release(&self) -> Option<String> {
        read_text(&self.etc.join("os-release")).or_else(|_| read_text(&self.usr_lib.join("os-release"))).ok()
    }
}

fn trimmed(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Reads a file up to a bound; bytes that are not UTF-8 are replaced, for a process may call itself anything.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The names in a directory, sorted; empty when it is missing. Entries that vanish meanwhile are left out.
pub(crate) fn names_in(path: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.take(ENTRIES_MAX).flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.order();
    names
}
