//! `host_disk`: room and inodes of every real file system, as `df` counts them.

use std::io;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::diag::args::Args;
use crate::diag::finding::{Finding, percent, round1};
use crate::diag::mounts::{Mount, mounts};
use crate::diag::report::{Report, clean_name};
use crate::diag::root::{HostRoot, Space};
use crate::diag::thresholds::{DISK_USED_PERCENT, INODES_USED_PERCENT, MOUNT_ANSWER_MS, TURNED_READ_ONLY};
use crate::rt::order::Order;
use crate::tools::{ToolContext, ToolError};

pub(super) const DESCRIPTION: &str = "Space and inodes of every real file system (as df counts), the fullest first; \
names mounts that hang and file systems that turned read-only.";

/// What `df` would print for one file system.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    pub(crate) total_bytes: u64,
    pub(crate) used_bytes: u64,
    pub(crate) available_bytes: u64,
    pub(crate) used_percent: f64,
    /// None where the file system has no fixed number of them (btrfs, FAT).
    pub(crate) inodes_used_percent: Option<f64>,
}

pub(super) fn look(root: &HostRoot, _: &Args, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    let (mounts, cut) = mounts(root).ok_or_else(|| ToolError::new("cannot read the table of mounts"))?;
    let points: Vec<PathBuf> = mounts.iter().map(|mount| mount.point.clone()).collect();
    let answers = root.probe.spaces(&points, context);
    let mut report = Report::new();
    let mut rows: Vec<(f64, Value)> =
        mounts.iter().zip(answers).filter_map(|(mount, answer)| row(&mut report, root, mount, answer)).collect();
    crate::diag::probe::check_alive(context)?;
    rows.order_by(|(a, _), (b, _)| b.total_cmp(a));
    if rows.is_empty() {
        report.note("no file system with data of its own is mounted");
    }
    report.set("file_systems", rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>());
    if cut {
        report.set("truncated", true);
        report.note("only the first mounts are shown");
    }
    Ok(report)
}

/// The fullest file system that can be written, in percent as `df` counts; those that do not answer are left out.
pub(super) fn fullest_percent(root: &HostRoot, context: &ToolContext<'_>) -> Option<f64> {
    let (mut mounts, _) = mounts(root)?;
    mounts.retain(|mount| !mount.read_only);
    let points: Vec<PathBuf> = mounts.into_iter().map(|mount| mount.point).collect();
    let spaces = root.probe.spaces(&points, context);
    let used = spaces.into_iter().filter_map(|answer| Some(usage(answer.ok()?)?.used_percent));
    used.max_by(f64::total_cmp)
}

/// One line of the answer and what it sorts by; none for mounts that we may not look at or that have no size.
fn row(report: &mut Report, root: &HostRoot, mount: &Mount, answer: io::Result<Space>) -> Option<(f64, Value)> {
    let point = clean_name(&mount.point.to_string_lossy());
    let mut row = Map::new();
    row.insert("mount".to_owned(), json!(point));
    row.insert("source".to_owned(), json!(clean_name(&without_credentials(&mount.source))));
    row.insert("type".to_owned(), json!(clean_name(&mount.kind)));
    if mount.read_only {
        row.insert("read_only".to_owned(), json!(true));
    }
    if mount.turned_read_only {
        report.find(Finding::judge(&TURNED_READ_ONLY, format!("{point} turned read-only after an error"), 1.0));
    }
    match answer {
        Ok(space) => {
            let usage = usage(space)?;
            add_usage(report, root, &mut row, mount, usage);
            Some((usage.used_percent, Value::Object(row)))
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            let limit = MOUNT_ANSWER_MS.critical.unwrap_or_default();
            report.find(Finding::judge(&MOUNT_ANSWER_MS, format!("{point} does not answer"), limit));
            row.insert("hangs".to_owned(), json!(true));
            Some((f64::INFINITY, Value::Object(row)))
        }
        Err(error) => {
            row.insert("error".to_owned(), json!(error.kind().to_string()));
            Some((-1.0, Value::Object(row)))
        }
    }
}

fn add_usage(report: &mut Report, root: &HostRoot, row: &mut Map<String, Value>, mount: &Mount, usage: Usage) {
    let point = clean_name(&mount.point.to_string_lossy());
    row.insert("total_bytes".to_owned(), json!(usage.total_bytes));
    row.insert("used_bytes".to_owned(), json!(usage.used_bytes));
    row.insert("available_bytes".to_owned(), json!(usage.available_bytes));
    row.insert("used_percent".to_owned(), round1(usage.used_percent));
    // Nobody can fill what nobody can write, unless it could be written until a moment ago.
    let judged = !mount.read_only || mount.turned_read_only;
    if judged {
        report.find(Finding::judge(&root.limit(&DISK_USED_PERCENT), format!("space on {point}"), usage.used_percent));
    }
    if let Some(inodes) = usage.inodes_used_percent {
        row.insert("inodes_used_percent".to_owned(), round1(inodes));
        let finding = Finding::judge(&root.limit(&INODES_USED_PERCENT), format!("inodes on {point}"), inodes);
        // One line per file system is enough while inodes are no problem, and they hardly ever are.
        if judged && finding.level > crate::diag::finding::Level::Ok {
            report.find(finding);
        }
    }
}

/// As `df` counts: what is reserved for root is neither used nor available, so the percentage is of what users get.
pub(crate) fn usage(space: Space) -> Option<Usage> {
    if space.blocks == 0 {
        return None;
    }
    let used = space.blocks.saturating_sub(space.blocks_free);
    // A negative number of available blocks (root wrote into the reserve) arrives as a huge one.
    let available = if space.blocks_available > space.blocks { 0 } else { space.blocks_available };
    let bytes = |blocks: u64| blocks.saturating_mul(space.block_bytes);
    let inodes_used = space.inodes.saturating_sub(space.inodes_free);
    Some(Usage {
        total_bytes: bytes(space.blocks),
        used_bytes: bytes(used),
        available_bytes: bytes(available),
        used_percent: percent(used, used.saturating_add(available)),
        inodes_used_percent: (space.inodes > 0).then(|| percent(inodes_used, space.inodes)),
    })
}

/// `https://user:password@host` of a WebDAV mount becomes `https://host`.
pub(crate) fn without_credentials(source: &str) -> String {
    match (source.split_once("://"), source.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => source.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::fixture::{Fixture, level};

    const GIB: u64 = 1024 * 1024 * 1024;

    fn space(blocks: u64, blocks_free: u64, blocks_available: u64) -> Space {
        Space { block_bytes: 4096, blocks, blocks_free, blocks_available, inodes: 1000, inodes_free: 900 }
    }

    #[test]
    fn the_reserve_is_neither_used_nor_available() {
        let check = |space: Space, used_bytes: u64, available_bytes: u64, used_percent: f64| {
            let usage = usage(space).unwrap();
            assert_eq!((usage.used_bytes, usage.available_bytes), (used_bytes, available_bytes), "{space:?}");
            assert!((usage.used_percent - used_percent).abs() < 1e-9, "{space:?}: {}", usage.used_percent);
        };
        // 1000 blocks, 50 reserved: 475 used of 950 is half.
        check(space(1000, 525, 475), 475 * 4096, 475 * 4096, 50.0);
        // Users have nothing left, root still has 50 blocks.
        check(space(1000, 50, 0), 950 * 4096, 0, 100.0);
        // Root went into the reserve: available is "-1".
        check(space(1000, 10, u64::MAX), 990 * 4096, 0, 100.0);
        check(space(1000, 1000, 1000), 0, 1000 * 4096, 0.0);
        check(space(10, 20, 5), 0, 5 * 4096, 0.0);
        assert_eq!(usage(space(0, 0, 0)), None);
        let huge = Space { block_bytes: u64::MAX, ..space(u64::MAX, 0, 0) };
        assert_eq!(usage(huge).unwrap().total_bytes, u64::MAX);
        assert_eq!(usage(Space { inodes: 0, ..space(1, 0, 0) }).unwrap().inodes_used_percent, None);
    }

    #[test]
    fn a_healthy_pi_has_room() {
        let report = Fixture::healthy_pi().call("host_disk", &json!({}));
        let row = &report["file_systems"][0];
        assert_eq!(row["mount"], "/");
        assert_eq!(row["total_bytes"], 30_720_000_000_u64);
        assert_eq!(row["used_bytes"], 10_240_000_000_u64);
        assert_eq!(row["available_bytes"], 19_251_200_000_u64);
        assert_eq!(row["used_percent"], 34.7);
        assert_eq!(row["inodes_used_percent"], 10.5);
        assert_eq!(level(&report, "space on /"), "ok");
    }

    #[test]
    fn the_fullest_comes_first_and_every_trouble_is_found() {
        let fixture = Fixture::healthy_pi();
        let blocks = 100 * GIB / 4096;
        for (point, device) in [("/data", "/dev/sda1"), ("/many", "/dev/sdb1"), ("/sd", "/dev/mmcblk1")] {
            let super_options = if point == "/sd" { "ro" } else { "rw" };
            fixture.mount(point, device, "ext4", "rw", super_options);
        }
        fixture.mount("/iso", "/dev/sdc1", "ext4", "ro", "ro");
        fixture.mount("/nas", "nas:/share", "nfs4", "rw", "rw");
        fixture.mount("/secret", "/dev/sdd", "ext4", "rw", "rw");
        fixture.space("/data", space(blocks, blocks / 100, blocks / 200));
        fixture.space("/many", Space { inodes_free: 70, ..space(blocks, blocks / 2, blocks / 2) });
        fixture.space("/sd", space(blocks, blocks / 2, blocks / 2));
        fixture.space("/iso", space(blocks, 0, 0));
        fixture.hangs("/nas");
        let report = fixture.call("host_disk", &json!({}));
        let points: Vec<&str> =
            report["file_systems"].as_array().unwrap().iter().filter_map(|row| row["mount"].as_str()).collect();
        assert_eq!(points, ["/nas", "/iso", "/data", "/sd", "/many", "/", "/secret"]);
        assert_eq!(level(&report, "space on /data"), "critical");
        assert_eq!(level(&report, "inodes on /many"), "warning");
        assert_eq!(level(&report, "/sd turned read-only after an error"), "critical");
        assert_eq!(level(&report, "/nas does not answer"), "critical");
        assert_eq!(level(&report, "space on /iso"), "none", "a read-only image is full by nature");
        assert_eq!(report["file_systems"][6]["error"], "entity not found");
    }

    #[test]
    fn the_threshold_is_exact() {
        let check = |used: u64, expected: &str| {
            let fixture = Fixture::empty();
            fixture.mount("/", "/dev/sda", "ext4", "rw", "rw");
            fixture.space("/", space(10_000, 10_000 - used, 10_000 - used));
            assert_eq!(level(&fixture.call("host_disk", &json!({})), "space on /"), expected, "{used}");
        };
        check(8_999, "ok");
        check(9_000, "warning");
        check(9_899, "warning");
        check(9_900, "critical");
    }

    #[test]
    fn a_source_shows_no_password() {
        assert_eq!(without_credentials("https://me:pw@cloud/dav"), "https://cloud/dav");
        assert_eq!(without_credentials("/dev/sda1"), "/dev/sda1");
        assert_eq!(without_credentials("me@nas:/share"), "me@nas:/share");
    }
}
