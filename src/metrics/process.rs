//! What the system knows of this process (Linux; elsewhere nothing).

use std::fs;

/// Figures of this process now.
pub struct Process {
    pub resident_bytes: u64,
    pub threads: u64,
    pub descriptors: u64,
    /// Those of the descriptors that are sockets.
    pub sockets: u64,
    pub cpu_seconds: f64,
}

/// None where the system does not say.
pub fn process() -> Option<Process> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let figure = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let (mut descriptors, mut sockets) = (0, 0);
    for entry in fs::read_dir("/proc/self/fd").ok()?.flatten() {
        descriptors += 1;
        let is_socket =
            fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        sockets += u64::from(is_socket);
    }
    Some(Process {
        resident_bytes: figure("VmRSS:")? * 1024,
        threads: figure("Threads:")?,
        descriptors,
        sockets,
        cpu_seconds: cpu_seconds()?,
    })
}

/// User and system time: the 14th and 15th field, behind a name that may hold blanks.
#[expect(clippy::cast_precision_loss, reason = "ticks beyond 2^53 do not come")]
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64)
}
