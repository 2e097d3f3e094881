//! Disks: room, inodes, what holds the room, damage, slowness.

use serde_json::Value;

use crate::llm::local::diagnosis::cause::{Cause, Level, When};
use crate::llm::local::diagnosis::facts::Facts;
use crate::llm::local::numbers::{bytes, code, list, number, plain, text};

/// Words of a disk that fails, in lower case.
pub(super) const IO_ERRORS: &[&str] = &[
    "i/o error",
    "ext4-fs error",
    "btrfs error",
    "xfs_error",
    "remounting filesystem read-only",
    "uncorrectable",
    "medium error",
    "failed command: read",
    "failed command: write",
    "mmc0: timeout",
];

/// What holds at least this share of a file system is worth naming, in percent.
const SHARE_NAMED_PERCENT: f64 = 5.0;

pub(super) fn find(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    let asked = facts.is_about(&["disk"]);
    if let Some(disk) = facts.tool("host_disk") {
        for row in list(disk, "file_systems") {
            let Some(mount) = text(row, "mount") else { continue };
            // An alert names its mount; the others weigh less.
            let is_asked = asked && facts.question.named_target().is_none_or(|target| target == mount);
            room(facts, row, mount, is_asked, causes);
            inodes(facts, row, mount, is_asked, causes);
        }
        for (mount, level) in facts.bad_end(" does not answer") {
            causes.push(
                Cause::new(level, format!("{} hangs: whoever touches it waits for ever", code(mount)))
                    .asked(asked)
                    .by(35, "it did not tell its room within two seconds")
                    .act(When::Urgent, format!("Find out why what is behind {} is gone (network share, cable, disk), or unmount it with `umount -l`.", code(mount))),
            );
        }
    }
    damage(facts, causes);
    slowness(facts, causes);
}

fn room(facts: &Facts<'_>, row: &Value, mount: &str, is_asked: bool, causes: &mut Vec<Cause>) {
    let Some(used) = number(row, "used_percent") else { return };
    let level = facts.level(&format!("space on {mount}")).unwrap_or(Level::Ok);
    let (total, left) = (number(row, "total_bytes").unwrap_or(0.0), number(row, "available_bytes").unwrap_or(0.0));
    if level == Level::Ok {
        return;
    }
    let shown = code(mount);
    let mut cause = Cause::new(level, format!("{shown} is full: {} % used", plain(used)))
        .asked(is_asked)
        .by(20, format!("{} of {} are left on {shown}", bytes(left), bytes(total)));
    let complaints = facts.log_lines(&["no space left on device"]);
    if let Some(line) = complaints.last() {
        cause.add(20, format!("programs fail for it, {}× in the log: {}", complaints.len(), quote(line)));
    }
    let cause = cause
        .soon(format!("Free space on {shown}: what is not needed any more, old downloads, images, package caches."))
        .act(When::Medium, format!("Give {shown} more room, or move what grows to another disk."));
    let Some(space) = facts.tool("host_space") else {
        causes.push(cause);
        return;
    };
    let mut explained = 0.0;
    let open: Vec<&Value> =
        list(space, "deleted_open").iter().filter(|file| text(file, "mount") == Some(mount)).collect();
    let held: f64 = open.iter().filter_map(|file| number(file, "bytes")).sum();
    if is_share(held, total) {
        explained += held;
        let mut cause = Cause::new(level, format!("Deleted files that are still open hold {} on {shown}", bytes(held)))
            .asked(is_asked)
            .by(40, format!("that is {} % of {shown}; removing more files does not help", share(held, total)));
        for file in open.iter().take(3) {
            let size = bytes(number(file, "bytes").unwrap_or(0.0));
            let process = code(text(file, "process").unwrap_or("?"));
            cause.add(5, format!("{process} holds {size}: {}", code(text(file, "file").unwrap_or("?"))));
        }
        let process = code(open.first().and_then(|file| text(file, "process")).unwrap_or("?"));
        causes.push(cause.soon(format!("Restart {process}: the space comes back at once.")));
    }
    if text(space, "log_mount") == Some(mount) {
        let logs = number(space, "log_bytes").unwrap_or(0.0);
        if is_share(logs, total) {
            explained += logs;
            let mut cause = Cause::new(level, format!("Logs hold {} on {shown}", bytes(logs)))
                .asked(is_asked)
                .by(25, format!("/var/log is {} % of {shown}", share(logs, total)));
            for file in list(space, "log_largest").iter().take(3) {
                let size = bytes(number(file, "bytes").unwrap_or(0.0));
                cause.add(3, format!("{}: {size}", code(text(file, "file").unwrap_or("?"))));
            }
            causes.push(
                cause
                    .soon("Shorten the logs: `journalctl --vacuum-size=200M`, `logrotate --force /etc/logrotate.conf`.")
                    .act(When::Medium, "Bound the logs: SystemMaxUse in journald.conf, rotation by size."),
            );
        }
    }
    let mut cause = cause;
    if explained <= 0.0 {
        cause.add(0, "neither deleted open files nor /var/log explain it: it is ordinary data");
    }
    causes.push(cause);
}

fn inodes(facts: &Facts<'_>, row: &Value, mount: &str, is_asked: bool, causes: &mut Vec<Cause>) {
    let level = facts.level(&format!("inodes on {mount}")).unwrap_or(Level::Ok);
    let Some(used) = number(row, "inodes_used_percent").filter(|_| level > Level::Ok) else { return };
    let shown = code(mount);
    let space = number(row, "used_percent").unwrap_or(0.0);
    causes.push(
        Cause::new(level, format!("{shown} has no room for more files: {} % of its inodes are used", plain(used)))
            .asked(is_asked)
            .by(30, format!("its space is used to {} % only, so it is the number of files", plain(space)))
            .soon(format!(
                "Find the directory with the many small files: `du --inodes -x -d 3 {mount} | sort -n | tail`."
            ))
            .act(When::Medium, "Let whoever makes them clean up: sessions, mail queue, caches."),
    );
}

/// Errors of the disk itself, and what the kernel did about them.
fn damage(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    let errors = facts.log_lines(IO_ERRORS);
    let read_only = facts.bad_end(" turned read-only after an error");
    if errors.is_empty() && read_only.is_empty() {
        return;
    }
    let title = match read_only.first() {
        Some((mount, ..)) => format!("{} turned read-only after an error of its disk", code(mount)),
        None => "A disk or its cable reports errors".to_owned(),
    };
    let mut cause = Cause::new(Level::Critical, title).asked(facts.is_about(&["disk", "diskio", "journaltail"]));
    if let Some(line) = errors.last() {
        cause.add(30, format!("{}× in the log, the last: {}", errors.len(), quote(line)));
    }
    if !read_only.is_empty() {
        cause.add(30, "the kernel does that to keep a damaged file system from getting worse");
    }
    if let Some((device, _, value)) = facts.bad("time per request of ").first() {
        cause.add(15, format!("{} needs {} ms per request", code(device), plain(*value)));
    }
    causes.push(
        cause
            .act(When::Urgent, "Save the data of that disk elsewhere now, before anything else.")
            .act(When::Short, "Check cable and power, then `smartctl -a` and `fsck` on the unmounted file system.")
            .act(When::Medium, "Replace the disk; SD cards wear out."),
    );
}

fn slowness(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    let iowait = facts.number("host_cpu", "iowait_percent").unwrap_or(0.0);
    let stalled = facts.tool("host_pressure").and_then(|value| number(value.get("io")?, "some_avg60")).unwrap_or(0.0);
    let waiting = facts.level("CPU time waiting for disks").unwrap_or(Level::Ok);
    let stuck = facts.bad("processes stuck waiting for a device").into_iter().next();
    let slow = facts.bad("time per request of ").into_iter().next();
    let level = [Some(waiting), stuck.map(|(_, level, _)| level), slow.map(|(_, level, _)| level)];
    let level = level.into_iter().flatten().max().unwrap_or(Level::Ok);
    if level == Level::Ok {
        return;
    }
    let title = match slow {
        Some((device, _, value)) => format!("{} is slow: {} ms per request", code(device), plain(value)),
        None => "Programs wait for a disk".to_owned(),
    };
    let mut cause = Cause::new(level, title).asked(facts.is_about(&["diskio", "cpu"]));
    if waiting > Level::Ok {
        cause.add(20, format!("the processors wait for disks {} % of the time", plain(iowait)));
    }
    if stalled >= 10.0 {
        cause.add(15, format!("some program stood still for a disk in {} % of the last minute", plain(stalled)));
    }
    if let Some((_, _, count)) = stuck {
        cause.add(15, format!("{} processes are stuck in a call to a device", plain(count)));
    }
    let devices = facts.tool("host_disk_io").map_or(&[][..], |value| list(value, "devices"));
    if let Some(busiest) = devices.first() {
        let (name, util) =
            (code(text(busiest, "device").unwrap_or("?")), number(busiest, "util_percent").unwrap_or(0.0));
        let rate = |field: &str| format!("{}/s", bytes(number(busiest, field).unwrap_or(0.0)));
        let traffic = format!("reads {}, writes {}", rate("read_bytes_per_second"), rate("write_bytes_per_second"));
        if util >= 50.0 {
            cause.add(15, format!("{name} is busy {} % of the time: {traffic}", plain(util)));
        } else {
            cause.but(10, format!("{name} is busy only {} % of the time: {traffic}", plain(util)));
        }
    }
    if waiting == Level::Ok && slow.is_some() && iowait < 5.0 {
        cause.but(10, format!("the processors hardly wait for disks ({} %)", plain(iowait)));
    }
    causes.push(
        cause
            .act(
                When::Short,
                "Find out who reads and writes (`iotop -o`), and move heavy jobs such as backups to the night.",
            )
            .act(When::Medium, "A faster disk, or more memory for caches."),
    );
}

fn is_share(part: f64, total: f64) -> bool {
    total > 0.0 && part / total * 100.0 >= SHARE_NAMED_PERCENT
}

fn share(part: f64, total: f64) -> String {
    if total > 0.0 { plain(part / total * 100.0) } else { "?".to_owned() }
}

/// A line of a log in a sentence.
pub(super) fn quote(line: &str) -> String {
    code(crate::rt::text::cut(line.trim(), 200))
}
