//! The table of mounts: which file systems hold data that can run out of room.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::diag::root::HostRoot;
use crate::rt::order::Order;

/// One file system that is mounted somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) point: PathBuf,
    /// A device path, `server:/share`, or whatever the file system calls its source.
    pub(crate) source: String,
    pub(crate) kind: String,
    pub(crate) read_only: bool,
    /// Mounted for writing, yet the kernel took that back: after an error.
    pub(crate) turned_read_only: bool,
    /// Others write to it, this process may not: its service is shut in (`ProtectSystem=`).
    pub(crate) shut: bool,
}

/// A line of the table.
struct Line {
    /// `major:minor`.
    device: String,
    mount: Mount,
    /// By the mount, and by the file system itself.
    mount_ro: bool,
    super_ro: bool,
}

/// Most file systems that are asked: a machine with more has container mounts that repeat each other.
const MOUNTS_MAX: usize = 32;

/// File systems that live in the kernel or in memory: their "space" is not disk space.
const PSEUDO: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "nfsd",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// Images that are full by nature.
const IMAGES: &[&str] = &["cramfs", "erofs", "iso9660", "romfs", "squashfs", "udf"];

/// What a container sees as its root; below another mount it repeats the host's disk.
const LAYERS: &[&str] = &["overlay", "aufs", "fuse.fuse-overlayfs"];

/// Real file systems, each once, and whether some were left out for their number. None without a table.
pub(crate) fn mounts(root: &HostRoot) -> Option<(Vec<Mount>, bool)> {
    // What a service sees of a mount is not what the machine does with it.
    let machine = if root.is_system() { root.proc_text("1/mountinfo") } else { None };
    table(root).map(|text| parse(&text, machine.as_deref().unwrap_or("")))
}

/// Every mount of the table, also those that repeat or hide another.
pub(crate) fn points(root: &HostRoot) -> Vec<Mount> {
    let text = table(root).unwrap_or_default();
    text.lines().filter_map(parse_line).map(|line| line.mount).collect()
}

fn table(root: &HostRoot) -> Option<String> {
    // Here only what this process sees can be asked. Below a mounted host root the table of process 1 is the host's.
    if root.is_system() {
        root.proc_text("self/mountinfo")
    } else {
        root.proc_text("1/mountinfo").or_else(|| root.proc_text("self/mountinfo"))
    }
}

/// The mounts that matter, and whether some were left out for their number. `machine` is the table of process 1.
fn parse(text: &str, machine: &str) -> (Vec<Mount>, bool) {
    let mut points = HashSet::new();
    // The last mount on a point hides the earlier ones.
    let mut lines: Vec<Line> =
        text.lines().rev().filter_map(parse_line).filter(|line| points.insert(line.mount.point.clone())).collect();
    lines.reverse();
    // Bind mounts and subvolumes repeat a file system: the shortest path stands for all of them.
    lines.order_by_key(|line| line.mount.point.as_os_str().len());
    let writable: HashSet<(String, PathBuf)> = machine
        .lines()
        .filter_map(parse_line)
        .filter(|line| !line.mount_ro)
        .map(|line| (line.device, line.mount.point))
        .collect();
    let mut devices = HashSet::new();
    let mounts: Vec<Mount> = lines
        .into_iter()
        .filter(|line| holds_data(&line.mount))
        .filter(|line| devices.insert((line.device.clone(), line.mount.source.clone())))
        .map(|line| {
            let at = (line.device, line.mount.point.clone());
            if line.mount_ro && writable.contains(&at) {
                let mount = Mount { shut: true, ..line.mount };
                mount.judged(false, line.super_ro)
            } else {
                line.mount.judged(line.mount_ro, line.super_ro)
            }
        })
        .collect();
    let cut = mounts.len() > MOUNTS_MAX;
    (mounts.into_iter().take(MOUNTS_MAX).collect(), cut)
}

impl Mount {
    fn judged(mut self, mount_ro: bool, super_ro: bool) -> Self {
        self.read_only = mount_ro || super_ro;
        self.turned_read_only = super_ro && !mount_ro && self.source.starts_with("/dev/");
        self
    }
}

fn holds_data(mount: &Mount) -> bool {
    let kind = mount.kind.as_str();
    let inner_layer = LAYERS.contains(&kind) && mount.point.as_os_str() != "/";
    !PSEUDO.contains(&kind) && !IMAGES.contains(&kind) && !inner_layer
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue` (proc_pid_mountinfo(5)).
fn parse_line(line: &str) -> Option<Line> {
    let (mine, its) = line.split_once(" - ")?;
    let mine: Vec<&str> = mine.split(' ').collect();
    let mut its = its.split(' ');
    let (device, point, options) = (*mine.get(2)?, *mine.get(4)?, *mine.get(5)?);
    let (kind, source, super_options) = (its.next()?, its.next()?, its.next().unwrap_or(""));
    let mount_ro = has_option(options, "ro");
    let super_ro = has_option(super_options, "ro");
    let mount = Mount {
        point: PathBuf::from(unescape(point)),
        source: unescape(source),
        kind: kind.to_owned(),
        read_only: false,
        turned_read_only: false,
        shut: false,
    };
    Some(Line { device: device.to_owned(), mount: mount.judged(mount_ro, super_ro), mount_ro, super_ro })
}

fn has_option(options: &str, wanted: &str) -> bool {
    options.split(',').any(|option| option == wanted)
}

/// The kernel writes blanks, tabs, line ends and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        let value = octal.map(|digits| digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0')));
        if let Some(byte) = value.and_then(|value| u8::try_from(value).ok()) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(text: &str) -> Vec<String> {
        parse(text, "").0.into_iter().map(|mount| mount.point.display().to_string()).collect()
    }

    #[test]
    fn only_file_systems_with_data_are_kept_once() {
        let text = "22 27 0:21 / /proc rw - proc proc rw\n\
                    30 1 8:2 / / rw - ext4 /dev/sda2 rw\n\
                    31 30 8:2 /srv /var/lib/docker rw - ext4 /dev/sda2 rw\n\
                    32 30 0:40 / /run rw - tmpfs tmpfs rw\n\
                    33 30 7:0 / /snap/core rw - squashfs /dev/loop0 ro\n\
                    34 30 0:50 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw\n\
                    35 30 0:60 / /mnt/nas rw - nfs4 nas:/share rw\n\
                    36 30 8:3 / /mnt/usb\\040disk rw - vfat /dev/sda3 rw\n\
                    37 30 8:4 / /data rw - ext4 /dev/sda4 rw\n\
                    38 30 8:5 / /data rw - xfs /dev/sda5 rw\n";
        assert_eq!(points(text), ["/", "/data", "/mnt/nas", "/mnt/usb disk"]);
        assert_eq!(parse(text, "").0[1].kind, "xfs", "the later mount hides the earlier one");
    }

    #[test]
    fn a_container_keeps_its_root() {
        assert_eq!(points("1 0 0:50 / / rw - overlay overlay rw\n"), ["/"]);
    }

    #[test]
    fn a_file_system_that_turned_read_only_is_told_from_one_that_was_mounted_so() {
        let check = |line: &str, read_only: bool, turned: bool| {
            let mount = parse_line(line).unwrap().mount;
            assert_eq!((mount.read_only, mount.turned_read_only), (read_only, turned), "{line}");
        };
        check("30 1 179:2 / / rw,noatime - ext4 /dev/mmcblk0p2 rw", false, false);
        check("30 1 179:2 / / rw,noatime - ext4 /dev/mmcblk0p2 ro,errors=remount-ro", true, true);
        check("30 1 179:2 / / ro,noatime - ext4 /dev/mmcblk0p2 ro", true, false);
        check("30 1 179:2 / / ro,noatime shared:1 master:2 - ext4 /dev/mmcblk0p2 rw", true, false);
    }

    #[test]
    fn what_only_a_service_may_not_write_is_not_read_only() {
        let look = |mine: &str, machine: &str| parse(mine, machine).0.remove(0);
        let (rw, ro) = ("30 1 179:2 / / rw - ext4 /dev/sda2 rw", "30 1 179:2 / / rw - ext4 /dev/sda2 ro");
        let mount = look("99 9 179:2 / / ro,nosuid - ext4 /dev/sda2 rw", rw);
        assert_eq!((mount.read_only, mount.turned_read_only, mount.shut), (false, false, true));
        // The dying card is seen from in there too.
        let mount = look("99 9 179:2 / / ro,nosuid - ext4 /dev/sda2 ro", ro);
        assert_eq!((mount.read_only, mount.turned_read_only, mount.shut), (true, true, true));
        // Another file system on that point, or no table of process 1: nothing is known.
        for machine in ["30 1 179:3 / / rw - ext4 /dev/sda3 rw", ""] {
            let mount = look("99 9 179:2 / / ro,nosuid - ext4 /dev/sda2 rw", machine);
            assert_eq!((mount.read_only, mount.turned_read_only, mount.shut), (true, false, false));
        }
    }

    #[test]
    fn odd_lines_are_skipped() {
        for line in ["", " - ", "1 2 3", "1 2 3 4 5 6 - ext4", "a b c d e f g", "1 0 8:1 / / rw ext4 /dev/sda rw"] {
            assert!(points(line).is_empty(), "{line:?}");
        }
        assert_eq!(unescape(r"a\040b\134\9\04"), "a b\\\\9\\04");
        assert_eq!(unescape(r"\777"), r"\777");
    }

    #[test]
    fn a_long_table_is_cut() {
        let lines: Vec<String> = (0..100).map(|n| format!("{n} 1 8:{n} / /m{n} rw - ext4 /dev/s{n} rw")).collect();
        let (mounts, cut) = parse(&lines.join("\n"), "");
        assert_eq!(mounts.len(), MOUNTS_MAX);
        assert!(cut);
    }
}
