//! `host_space`: what holds room on the disks and can be found without walking them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::diag::args::Args;
use crate::diag::mounts::mounts;
use crate::diag::ports::open_files;
use crate::diag::probe::check_alive;
use crate::diag::report::{Report, clean};
use crate::diag::root::HostRoot;
use crate::rt::order::Order;
use crate::tools::{ToolContext, ToolError};

pub(super) const DESCRIPTION: &str = "What holds disk space beside ordinary files: files that were deleted but are still \
open in a process, and the logs below /var/log with the largest of them.";

/// Smaller deleted files explain nothing.
const OPEN_BYTES_MIN: u64 = 1024 * 1024;

const LISTED_MAX: usize = 15;

/// Most entries below `/var/log` that are looked at, and how deep.
const LOG_ENTRIES_MAX: usize = 20_000;
const LOG_DEPTH_MAX: usize = 5;

pub(super) fn look(root: &HostRoot, _: &Args, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    let mut points: Vec<PathBuf> =
        mounts(root).map(|(mounts, _)| mounts).unwrap_or_default().into_iter().map(|m| m.point).collect();
    // The longest that fits is the one that holds it.
    points.order_by_key(|point| std::cmp::Reverse(point.as_os_str().len()));
    let mount_of =
        |path: &Path| points.iter().find(|point| path.starts_with(point)).map(|point| point.display().to_string());
    let mut report = Report::new();
    let mut open: Vec<(u64, Value)> = Vec::new();
    let mut seen: Vec<(u64, u64)> = Vec::new();
    let hidden = open_files(root, context, |pid, name, descriptor, target| {
        let Some(file) = target.to_str().and_then(|target| target.strip_suffix(" (deleted)")) else { return };
        // What the descriptor leads to is still there, although its name is gone. Memory files look the same.
        let Ok(metadata) = std::fs::metadata(&descriptor) else { return };
        let bytes = held(&metadata);
        let identity = (metadata.dev(), metadata.ino());
        if !metadata.is_file() || bytes < OPEN_BYTES_MIN || file.starts_with("/memfd:") || seen.contains(&identity) {
            return;
        }
        if let Some(mount) = mount_of(Path::new(file)) {
            seen.push(identity);
            let row = json!({"process": name, "pid": pid, "bytes": bytes, "mount": mount, "file": clean(file, 200)});
            open.push((bytes, row));
        }
    })?;
    open.order_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    report.set("deleted_open_bytes", open.iter().fold(0_u64, |sum, (bytes, _)| sum.saturating_add(*bytes)));
    report.set("deleted_open", open.into_iter().take(LISTED_MAX).map(|(_, row)| row).collect::<Vec<_>>());
    if hidden > 0 {
        report.note("processes of other users cannot be seen: they may hold deleted files open, too");
    }
    add_logs(&mut report, root, context)?;
    report.set_known("log_mount", mount_of(Path::new("/var/log")));
    Ok(report)
}

/// Room that a file takes; a sparse one takes less than it is long.
fn held(metadata: &Metadata) -> u64 {
    metadata.blocks().saturating_mul(512)
}

fn add_logs(report: &mut Report, root: &HostRoot, context: &ToolContext<'_>) -> Result<(), ToolError> {
    let base = root.log("");
    let mut waiting = vec![(base.clone(), 0)];
    let mut files: Vec<(u64, PathBuf)> = Vec::new();
    let (mut total, mut entries) = (0_u64, 0);
    while let Some((directory, depth)) = waiting.pop() {
        check_alive(context)?;
        let Ok(listed) = std::fs::read_dir(&directory) else { continue };
        for entry in listed.flatten() {
            entries += 1;
            // Links are not followed: what they lead to is somewhere else.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() && depth < LOG_DEPTH_MAX {
                waiting.push((entry.path(), depth + 1));
            } else if metadata.is_file() {
                total = total.saturating_add(held(&metadata));
                files.push((held(&metadata), entry.path()));
            }
        }
        if entries > LOG_ENTRIES_MAX {
            report.note("/var/log holds very many files: only the first were counted");
            break;
        }
    }
    files.order();
    let largest = files.iter().rev().take(5).map(|(bytes, path)| {
        let name = path.strip_prefix(&base).unwrap_or(path).display().to_string();
        json!({"file": clean(&name, 200), "bytes": bytes})
    });
    report.set("log_largest", largest.collect::<Vec<_>>());
    report.set("log_bytes", total);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::fixture::Fixture;

    #[test]
    fn logs_are_counted_and_the_largest_named() {
        let fixture = Fixture::healthy_pi();
        fixture.write("var/log/syslog", &"x".repeat(100_000));
        fixture.write("var/log/app/old.log", &"x".repeat(300_000));
        let report = fixture.call("host_space", &json!({}));
        assert!(report["log_bytes"].as_u64().unwrap() >= 400_000, "{report}");
        assert_eq!(report["log_largest"][0]["file"], "app/old.log");
        assert_eq!((&report["log_mount"], &report["deleted_open_bytes"]), (&json!("/"), &json!(0)));
    }

    #[test]
    fn a_deleted_file_that_is_open_is_found_on_this_machine() {
        if !cfg!(target_os = "linux") {
            return;
        }
        let directory = tempfile::tempdir_in(std::env::current_dir().unwrap().join("target")).unwrap();
        let path = directory.path().join("held");
        std::fs::write(&path, vec![7_u8; 3 * 1024 * 1024]).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let report = crate::diag::fixture::with_context(|context| look(&HostRoot::system(), &Args::default(), context));
        let text = report.unwrap().into_text();
        drop(file);
        // A file system that the table of mounts leaves out names none.
        let report: Value = serde_json::from_str(&text).unwrap();
        let names: Vec<&str> =
            report["deleted_open"].as_array().unwrap().iter().filter_map(|row| row["file"].as_str()).collect();
        assert!(names.iter().any(|name| name.ends_with("/held")), "{text}");
    }
}
