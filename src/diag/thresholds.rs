//! Every limit that a host tool judges by, in one place, each with its reason.
//!
//! A threshold is reached at its value, not beyond it. Names are stable: they appear in findings and reports.
//! Where a check judges the same number, it takes its defaults from here, and a machine whose `[checks]` say otherwise
//! gives its own to the tools ([`HostRoot::judged_by`](crate::diag::HostRoot::judged_by)): an alert and a look at the
//! same number never disagree.

/// From which side a value becomes a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Too much is the problem.
    Above,
    /// Too little is the problem.
    Below,
}

/// A named limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    pub name: &'static str,
    /// As it is written behind a number: `%`, `s`; empty for plain counts.
    pub unit: &'static str,
    pub side: Side,
    pub warning: Option<f64>,
    pub critical: Option<f64>,
}

impl Threshold {
    const fn above(name: &'static str, unit: &'static str, warning: f64, critical: f64) -> Self {
        Self { name, unit, side: Side::Above, warning: Some(warning), critical: Some(critical) }
    }

    const fn above_warning(name: &'static str, unit: &'static str, warning: f64) -> Self {
        Self { name, unit, side: Side::Above, warning: Some(warning), critical: None }
    }

    const fn above_critical(name: &'static str, unit: &'static str, critical: f64) -> Self {
        Self { name, unit, side: Side::Above, warning: None, critical: Some(critical) }
    }

    const fn below_warning(name: &'static str, unit: &'static str, warning: f64) -> Self {
        Self { name, unit, side: Side::Below, warning: Some(warning), critical: None }
    }

    const fn below_critical(name: &'static str, unit: &'static str, critical: f64) -> Self {
        Self { name, unit, side: Side::Below, warning: None, critical: Some(critical) }
    }
}

/// Short bursts to 100 % are normal; a quarter of a second above 80 % deserves a look, above 90 % there is no room left.
pub const CPU_USED_PERCENT: Threshold = Threshold::above("cpu_used_percent", "%", 80.0, 90.0);

/// A fifth of the time spent waiting for a disk is felt by people; half means that the disk is the machine's speed.
pub const CPU_IOWAIT_PERCENT: Threshold = Threshold::above("cpu_iowait_percent", "%", 20.0, 50.0);

/// Time that a hypervisor gave to other guests. Below 10 % nobody notices; from 30 % the host is oversold.
pub const CPU_STEAL_PERCENT: Threshold = Threshold::above("cpu_steal_percent", "%", 10.0, 30.0);

/// The five-minute load average per core: three times as much work as cores queues, five times means seconds of delay.
/// Five minutes, because one minute reports every backup and fifteen forget too slowly.
pub const LOAD_PER_CORE: Threshold = Threshold::above("load_per_core", "", 3.0, 5.0);

/// Memory that programs cannot get without pushing others out (total less `MemAvailable`, so caches do not count).
/// 85 % leaves little for the next start of a program; from 90 % on the kernel throws out what programs need.
pub const MEMORY_USED_PERCENT: Threshold = Threshold::above("memory_used_percent", "%", 85.0, 90.0);

/// A few idle pages in swap are normal. A tenth of it deserves a look, a third means that memory is short.
pub const SWAP_USED_PERCENT: Threshold = Threshold::above("swap_used_percent", "%", 10.0, 30.0);

/// Share of the last minute in which some task stood still for lack of memory (pressure stall information).
pub const MEMORY_PRESSURE_PERCENT: Threshold = Threshold::above("memory_pressure_percent", "%", 10.0, 40.0);

/// One kill by the kernel since the boot is one program that somebody misses.
pub const OOM_KILLS: Threshold = Threshold::above_warning("oom_kills", "", 1.0);

/// As `df` counts. Many file systems slow down from 90 %; at 99 % logs and databases start to fail.
pub const DISK_USED_PERCENT: Threshold = Threshold::above("disk_used_percent", "%", 90.0, 99.0);

/// Without inodes no file can be made, however much space is left.
pub const INODES_USED_PERCENT: Threshold = Threshold::above("inodes_used_percent", "%", 90.0, 99.0);

/// A mount that does not answer in this time hangs whoever touches it: a lost network share, a dying disk.
pub const MOUNT_ANSWER_MS: Threshold = Threshold::above_critical("mount_answer_ms", "ms", 2_000.0);

/// The kernel turns a file system read-only after an I/O error: typical for a dying SD card.
pub const TURNED_READ_ONLY: Threshold = Threshold::above_critical("file_systems_turned_read_only", "", 1.0);

/// Processors and disks of PCs work at 80 degrees under load and throttle at about 100; NVMe disks at about 85.
pub const TEMPERATURE_CELSIUS: Threshold = Threshold::above("temperature_celsius", "°C", 85.0, 95.0);

/// A Raspberry Pi slows its clock from 80 degrees on; at 70 it is on its way there. Other small boards are alike.
pub const BOARD_TEMPERATURE_CELSIUS: Threshold = Threshold::above("board_temperature_celsius", "°C", 70.0, 80.0);

/// Damaged packets of all packets, since the boot: a healthy cable has none, 1 % makes connections crawl.
pub const NETWORK_ERRORS_PERCENT: Threshold = Threshold::above("network_errors_percent", "%", 0.1, 1.0);

/// Dropped packets of all packets, since the boot. Home networks drop stray broadcasts all day, hence the room.
pub const NETWORK_DROPS_PERCENT: Threshold = Threshold::above("network_drops_percent", "%", 2.0, 10.0);

/// A machine without a default route reaches nothing beyond its own network.
pub const DEFAULT_ROUTES: Threshold = Threshold::below_warning("default_routes", "", 1.0);

/// A few zombies come and go; many mean a parent that never collects its children.
pub const ZOMBIES: Threshold = Threshold::above("zombie_processes", "", 5.0, 100.0);

/// Processes in uninterruptible sleep wait for a device; several at once mean that the device does not answer.
pub const UNINTERRUPTIBLE: Threshold = Threshold::above("uninterruptible_processes", "", 3.0, 10.0);

/// A boot in the last ten minutes is worth a word: perhaps nobody asked for it.
pub const UPTIME_SECONDS: Threshold = Threshold::below_critical("uptime_seconds", "s", 600.0);

/// The package manager asks for a restart (`/run/reboot-required`).
pub const REBOOT_REQUIRED: Threshold = Threshold::above_warning("reboot_required", "", 1.0);

/// systemd marks a unit failed when it gave up on it.
pub const FAILED_UNITS: Threshold = Threshold::above("failed_units", "", 1.0, 5.0);

/// A unit that was asked for by name should be active.
pub const UNIT_INACTIVE: Threshold = Threshold::above_warning("unit_inactive", "", 1.0);

/// Lines that never belong into a healthy log: out of memory, I/O errors, under-voltage, file-system errors.
pub const LOG_ALARMS: Threshold = Threshold::above("log_alarms", "", 1.0, 20.0);

/// Share of the last minute in which some task waited for a processor. Every busy machine has some; half of the time
/// means that everything is late.
pub const CPU_PRESSURE_PERCENT: Threshold = Threshold::above_warning("cpu_pressure_percent", "%", 50.0);

/// Share of the last minute in which some task stood still for a disk. Backups do that; most of the time is too much.
pub const IO_PRESSURE_PERCENT: Threshold = Threshold::above("io_pressure_percent", "%", 30.0, 70.0);

/// Time of one request, by the kind of the disk (contract agent-link 7.5, `diskio`).
pub const NVME_REQUEST_MS: Threshold = Threshold::above("nvme_request_ms", "ms", 10.0, 50.0);
pub const SSD_REQUEST_MS: Threshold = Threshold::above("ssd_request_ms", "ms", 20.0, 100.0);
pub const HDD_REQUEST_MS: Threshold = Threshold::above("hdd_request_ms", "ms", 50.0, 200.0);
/// Cards and what nobody knows.
pub const SLOW_REQUEST_MS: Threshold = Threshold::above("disk_request_ms", "ms", 100.0, 500.0);

/// Containers that restart for ever, are dead, or fail their health check.
pub const CONTAINERS_IN_TROUBLE: Threshold = Threshold::above_warning("containers_in_trouble", "", 1.0);

/// Packets that got no answer. One in three tries may be chance; most of them are not.
pub const PING_LOSS_PERCENT: Threshold = Threshold::above("ping_loss_percent", "%", 30.0, 60.0);

/// Statuses of HTTP from which on a request has failed: by the client, by the server.
pub const HTTP_STATUS: Threshold = Threshold::above("http_status", "", 400.0, 500.0);
