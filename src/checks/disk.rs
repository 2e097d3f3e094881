//! `disk`: room and inodes of every real file system, and those that hang or cannot be written (contract agent-link 7.5).
//!
//! `[checks.disk]`: `mount_points` (globs, all), `ignore_mount_points` (globs), `ignore_fs_types`, `gather_timeout`
//! (10s, then a mount that does not answer hangs); `space_usage` and `inode_usage` (90 / 99 percent); `writable`
//! (`enabled` makes a write test, off; `severity`). A file system that an error turned read-only is not writable, with
//! or without the test. A mount point that is named without wildcards must be there.

use std::collections::HashSet;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::alert::Level;
use crate::checks::limits::{Limits, Unit};
use crate::checks::plugin::{Check, Gather, Reading};
use crate::checks::settings::{SettingError, Settings};
use crate::checks::{glob, show};
use crate::diag::disk::{Usage, usage, without_credentials};
use crate::diag::mounts::{Mount, mounts, points};
use crate::diag::report::clean_name;
use crate::diag::root::Space;
use crate::diag::thresholds::{DISK_USED_PERCENT, INODES_USED_PERCENT};

const SPACE: &str = "disk::space_usage";
const INODES: &str = "disk::inode_usage";
const WRITABLE: &str = "disk::writable";
const HUNG: &str = "disk::hung";

/// Where nothing of the user's is, though some of it looks like a disk.
const IGNORED: &[&str] =
    &["/dev", "/dev/*", "/run", "/run/*", "/sys", "/sys/*", "/proc", "/proc/*", "/snap", "/snap/*", "/var/snap/*"];

/// Between two questions to a mount that has not answered.
const ASK_AGAIN: Duration = Duration::from_millis(250);

struct Disk {
    only: Vec<String>,
    ignored: Vec<String>,
    ignored_types: Vec<String>,
    gather_timeout: Duration,
    space: Limits,
    inodes: Limits,
    write_test: bool,
    severity: Level,
    /// Found hanging in an earlier round: not waited for again.
    hung: HashSet<PathBuf>,
}

pub(super) fn build(settings: &mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError> {
    let write_test = settings.has("writable") && !settings.switched_off("writable");
    let mut writable = settings.section("writable")?;
    let disk = Disk {
        only: settings.texts("mount_points", &[])?,
        ignored: settings.texts("ignore_mount_points", IGNORED)?,
        ignored_types: settings.texts("ignore_fs_types", &[])?,
        gather_timeout: settings.duration("gather_timeout", Duration::from_secs(10))?.min(Duration::from_secs(15)),
        space: settings.limits("space_usage", Limits::like(Unit::Percent, &DISK_USED_PERCENT))?,
        inodes: settings.limits("inode_usage", Limits::like(Unit::Percent, &INODES_USED_PERCENT))?,
        write_test: write_test && writable.flag("enabled", true)?,
        severity: writable.level("severity", Level::Critical)?,
        hung: HashSet::new(),
    };
    writable.finish()?;
    Ok(vec![Box::new(disk)])
}

impl Check for Disk {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        let Some(mounts) = self.mounts(context) else {
            context.incomplete();
            return vec![Reading::failed(SPACE, "/", "cannot read the table of mounts")];
        };
        let mut readings = Vec::new();
        for point in self.only.iter().filter(|point| glob::is_exact(point)) {
            if !mounts.iter().any(|mount| mount.point == Path::new(point)) {
                readings.push(Reading::failed(SPACE, point, format!("nothing is mounted on {point}")));
            }
        }
        let answers = self.ask(&mounts, context);
        for (mount, answer) in mounts.iter().zip(answers) {
            self.judge(mount, answer, context, &mut readings);
        }
        readings
    }
}

impl Disk {
    /// The file systems that are looked at; each once, and every one that is named.
    fn mounts(&self, context: &Gather<'_>) -> Option<Vec<Mount>> {
        let (mut list, cut) = mounts(context.root)?;
        if cut {
            context.unavailable("more file systems than are looked at: name some in checks.disk.mount_points");
        }
        // Bind mounts and subvolumes repeat a file system; whoever names one means it.
        for point in self.only.iter().filter(|point| glob::is_exact(point)) {
            if !list.iter().any(|mount| mount.point == Path::new(point)) {
                list.extend(points(context.root).into_iter().find(|mount| mount.point == Path::new(point)));
            }
        }
        list.retain(|mount| {
            let point = mount.point.to_string_lossy();
            let wanted =
                if self.only.is_empty() { !glob::any(&self.ignored, &point) } else { glob::any(&self.only, &point) };
            wanted && !self.ignored_types.contains(&mount.kind)
        });
        Some(list)
    }

    /// What every mount says of its room. One that is slow is given some seconds, one that hung before none.
    fn ask(&mut self, mounts: &[Mount], context: &Gather<'_>) -> Vec<io::Result<Space>> {
        let all: Vec<PathBuf> = mounts.iter().map(|mount| mount.point.clone()).collect();
        let tool = context.tool_context();
        let mut answers = context.root.probe.spaces(&all, &tool);
        let late = |answer: &io::Result<Space>| answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::TimedOut);
        let mut waited = Duration::ZERO;
        loop {
            let again: Vec<usize> =
                (0..all.len()).filter(|&i| late(&answers[i]) && !self.hung.contains(&all[i])).collect();
            if again.is_empty() || waited >= self.gather_timeout {
                break;
            }
            // An error: cancelled or out of time.
            let Ok(passed) = context.root.probe.pause(ASK_AGAIN, &tool) else { break };
            waited += passed;
            let paths: Vec<PathBuf> = again.iter().map(|&i| all[i].clone()).collect();
            for (i, answer) in again.into_iter().zip(context.root.probe.spaces(&paths, &tool)) {
                answers[i] = answer;
            }
        }
        self.hung = all.into_iter().zip(&answers).filter(|(_, answer)| late(answer)).map(|(path, _)| path).collect();
        answers
    }

    fn judge(&self, mount: &Mount, answer: io::Result<Space>, context: &Gather<'_>, readings: &mut Vec<Reading>) {
        let target = clean_name(&mount.point.to_string_lossy());
        let about = |reading: Reading| {
            reading.attr("device", clean_name(&without_credentials(&mount.source))).attr("fs_type", mount.kind.clone())
        };
        let space = match answer {
            Ok(space) => space,
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                let text = format!("the file system on {target} does not answer: lost network share or dying disk");
                readings.push(about(Reading::failed(HUNG, &target, text)));
                return;
            }
            // What we may not look at is not ours to judge.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return,
            Err(error) => {
                readings.push(about(Reading::failed(SPACE, &target, format!("cannot ask {target}: {error}"))));
                return;
            }
        };
        readings.push(about(Reading::new(HUNG, &target, Level::Ok, "answers")));
        // Nobody can fill what nobody can write, unless it could be written until a moment ago.
        if mount.read_only && !mount.turned_read_only {
            return;
        }
        if let Some(found) = usage(space) {
            readings.extend(self.room(&target, &found).map(about));
            readings.extend(self.inodes(&target, &found, space).map(about));
        }
        let text = if mount.turned_read_only {
            Err("the kernel mounted it read-only after an error".to_owned())
        } else if self.write_test && context.root.is_system() && !mount.shut {
            write_test(&mount.point)
                .map(|()| "a test file was written")
                .map_err(|error| format!("cannot write: {error}"))
        } else {
            Ok("mounted for writing")
        };
        readings.push(about(match text {
            Ok(text) => Reading::new(WRITABLE, &target, Level::Ok, text),
            Err(text) => Reading::new(WRITABLE, &target, self.severity, text),
        }));
    }

    fn room(&self, target: &str, found: &Usage) -> Option<Reading> {
        let reading = self.space.reading(SPACE, target, "disk usage", found.used_percent)?;
        Some(
            reading
                .attr("total", show::bytes(found.total_bytes))
                .attr("used", show::bytes(found.used_bytes))
                .attr("available", show::bytes(found.available_bytes))
                .attr("used_percent", self.space.show(found.used_percent)),
        )
    }

    fn inodes(&self, target: &str, found: &Usage, space: Space) -> Option<Reading> {
        let value = found.inodes_used_percent?;
        let reading = self.inodes.reading(INODES, target, "inode usage", value)?;
        Some(
            reading
                .attr("inodes_total", space.inodes.to_string())
                .attr("inodes_used", space.inodes.saturating_sub(space.inodes_free).to_string())
                .attr("inodes_free", space.inodes_free.to_string())
                .attr("inodes_used_percent", self.inodes.show(value)),
        )
    }
}

/// Writes a small hidden file of ours, reads it back and removes it.
fn write_test(point: &Path) -> io::Result<()> {
    let path = point.join(format!(".holt-write-test-{}", std::process::id()));
    let text = format!("{:?}", std::time::SystemTime::now());
    let test = || {
        let mut open = std::fs::OpenOptions::new();
        let mut file = open.write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        let mut back = String::new();
        std::fs::File::open(&path)?.read_to_string(&mut back)?;
        if back == text { Ok(()) } else { Err(io::Error::other("the file held something else")) }
    };
    let tested = test();
    if tested.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists) {
        // Of a process that had our number and died in the middle: the next round makes a new one.
        return std::fs::remove_file(&path);
    }
    let removed = std::fs::remove_file(&path);
    tested.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{Bench, level_of};
    use crate::diag::fixture::Fixture;
    use serde_json::{Value, json};

    fn space(used: u64, inodes_used: u64) -> Space {
        Space {
            block_bytes: 1024,
            blocks: 1000,
            blocks_free: 1000 - used,
            blocks_available: 1000 - used,
            inodes: 100,
            inodes_free: 100 - inodes_used,
        }
    }

    fn bench() -> Bench {
        let bench = Bench::new();
        bench.mount("/", "/dev/sda1", "ext4", "rw", "rw");
        bench.space("/", space(100, 1));
        bench
    }

    fn look(bench: &Bench, settings: &Value) -> Vec<(&'static str, String, Level)> {
        let readings = bench.gather(&mut bench.build(build, settings));
        readings.into_iter().map(|reading| (reading.check, reading.target, reading.level)).collect()
    }

    fn on(target: &str, levels: [Level; 3]) -> Vec<(&'static str, String, Level)> {
        let checks = [SPACE, INODES, WRITABLE];
        let rest = checks.into_iter().zip(levels).map(|(check, level)| (check, target.to_owned(), level));
        std::iter::once((HUNG, target.to_owned(), Level::Ok)).chain(rest).collect()
    }

    #[test]
    fn room_and_inodes_are_counted_like_df() {
        let bench = bench();
        assert_eq!(look(&bench, &json!({})), on("/", [Level::Ok; 3]));
        // The reserve of root counts as neither: 891 of (891 + 99 that users may have) is 90 %.
        bench.space("/", Space { blocks_free: 109, blocks_available: 99, ..space(0, 90) });
        assert_eq!(look(&bench, &json!({})), on("/", [Level::Warning, Level::Warning, Level::Ok]));
        bench.space("/", space(990, 99));
        assert_eq!(look(&bench, &json!({})), on("/", [Level::Critical, Level::Critical, Level::Ok]));
        let readings = bench.gather(&mut bench.build(build, &json!({})));
        let full = &readings[1];
        assert_eq!(full.description, "disk usage 99.0% >= critical threshold 99.0%");
        for (name, value) in [
            ("device", "/dev/sda1"),
            ("fs_type", "ext4"),
            ("total", "1000.0 KiB"),
            ("used", "990.0 KiB"),
            ("available", "10.0 KiB"),
            ("used_percent", "99.0%"),
            ("current_value", "99.0%"),
            ("threshold_desc", "Warning ≥ 90.0%, Critical ≥ 99.0%"),
        ] {
            assert_eq!(full.attr_of(name), value, "{name}");
        }
        bench.space("/", Space { inodes: 0, inodes_free: 0, ..space(10, 0) });
        assert_eq!(look(&bench, &json!({})).iter().filter(|(check, ..)| *check == INODES).count(), 0);
        let huge = Space {
            block_bytes: u64::MAX,
            blocks: u64::MAX,
            blocks_free: 0,
            blocks_available: u64::MAX,
            inodes: u64::MAX,
            inodes_free: u64::MAX,
        };
        bench.space("/", huge);
        assert!(!look(&bench, &json!({})).is_empty());
        bench.space("/", Space::default());
        assert_eq!(look(&bench, &json!({})).len(), 2, "a size of nothing is not judged");
    }

    #[test]
    fn what_is_looked_at_can_be_chosen() {
        let bench = bench();
        for (point, device, kind) in [
            ("/data", "/dev/sdb1", "btrfs"),
            ("/data/sub", "/dev/sdb1", "btrfs"),
            ("/run/media/x", "/dev/sdc1", "vfat"),
            ("/tmp", "tmpfs", "tmpfs"),
            ("/snap/x", "/dev/loop1", "squashfs"),
            ("/mnt/nas", "nas:/x", "nfs4"),
        ] {
            bench.mount(point, device, kind, "rw", "rw");
            bench.space(point, space(10, 1));
        }
        let targets = |settings: Value| {
            let mut targets: Vec<String> = look(&bench, &settings).into_iter().map(|(_, target, _)| target).collect();
            targets.dedup();
            targets
        };
        assert_eq!(targets(json!({})), ["/", "/data", "/mnt/nas", "/data/sub"]);
        assert_eq!(targets(json!({"ignore_mount_points": ["/mnt/*", "/data*", "/run/*"]})), ["/"]);
        assert_eq!(targets(json!({"ignore_fs_types": ["nfs4", "btrfs"]})), ["/"]);
        assert_eq!(targets(json!({"mount_points": ["/data*"]})), ["/data", "/data/sub"]);
        assert_eq!(targets(json!({"mount_points": ["/run/media/x"]})), ["/run/media/x"]);
        let missing = look(&bench, &json!({"mount_points": ["/backup"]}));
        assert_eq!(missing, [(SPACE, "/backup".to_owned(), Level::Critical)]);
    }

    #[test]
    fn a_mount_that_hangs_does_not_stop_the_others() {
        let bench = bench();
        bench.mount("/mnt/nas", "nas:/x", "nfs4", "rw", "rw");
        bench.hangs("/mnt/nas");
        let mut checks = bench.build(build, &json!({}));
        for _ in 0..2 {
            let readings = bench.gather(&mut checks);
            assert_eq!(level_of(&readings, SPACE), Level::Ok);
            let hung: Vec<_> = readings.iter().filter(|reading| reading.level == Level::Critical).collect();
            assert_eq!((hung.len(), hung[0].check, hung[0].target.as_str()), (1, HUNG, "/mnt/nas"));
            assert!(!hung[0].measured, "alerts about its room stay open");
        }
        bench.space("/mnt/nas", space(1, 1));
        assert!(bench.gather(&mut checks).iter().all(|reading| reading.level == Level::Ok));
    }

    #[test]
    fn what_cannot_be_written_is_said() {
        let bench = bench();
        bench.mount("/ro", "/dev/sdb1", "ext4", "ro", "rw");
        bench.mount("/broken", "/dev/sdc1", "ext4", "rw", "ro");
        bench.space("/ro", space(999, 1));
        bench.space("/broken", space(1, 1));
        let found = look(&bench, &json!({}));
        assert!(found.contains(&(WRITABLE, "/broken".to_owned(), Level::Critical)));
        assert_eq!(found.iter().filter(|(_, target, _)| target == "/ro").count(), 1, "a full image is no problem");
        let found = look(&bench, &json!({"writable": {"severity": "Warning", "enabled": false}}));
        assert!(found.contains(&(WRITABLE, "/broken".to_owned(), Level::Warning)));
        let dir = tempfile::tempdir().unwrap();
        write_test(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(write_test(&dir.path().join("gone")).is_err());
    }

    #[test]
    fn a_machine_without_a_table_of_mounts_is_a_failure() {
        let bench = Bench::on(Fixture::empty());
        assert_eq!(look(&bench, &json!({})), [(SPACE, "/".to_owned(), Level::Critical)]);
        assert!(bench.incomplete.get());
        assert_eq!(bench.refused(build, &json!({"space_usage": {"warn": 101}})), "checks.x.space_usage.warn");
        assert_eq!(bench.refused(build, &json!({"mountpoints": []})), "checks.x.mountpoints");
    }
}
