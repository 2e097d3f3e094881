//! `logfile`: new lines of log files that match (contract agent-link 7.5, runner-up).
//!
//! `[checks.logfile]`: `targets` (paths or globs), `filter_include`, `filter_exclude`, `severity` (Warning), `from_start`
//! (off: what is there at the first round is old).
//!
//! A file is known by its inode and a hash of its first bytes, so that rotation is seen, by renaming as well as by
//! truncation; what stood unread in a file that was renamed is still read. Positions last through restarts. Like in the
//! journal, a match stays open for half an hour without another one.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::alert::Level;
use crate::checks::filter::{Filter, Matches};
use crate::checks::glob;
use crate::checks::journaltail;
use crate::checks::paths;
use crate::checks::plugin::{Check, Gather, Reading};
use crate::checks::registry::Defaults;
use crate::checks::settings::{SettingError, Settings};
use crate::diag::root::names_in;
use crate::rt::order::gather;
use crate::rt::text::hex;

const MATCH: &str = "logfile::match";

/// As for the journal, but reading files costs no child.
pub(super) const ALERTING: Defaults = Defaults { interval: None, ..journaltail::ALERTING };

/// Files of one instance.
const FILES_MAX: usize = 100;

/// What tells one file from another that has taken its inode.
const HEAD_BYTES: u64 = 256;

/// A longer line is looked at in pieces.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Read of one file per round; the rest comes with the next rounds.
const ROUND_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What lies further back is left out: after a long stop, or of a program that writes faster than anybody reads.
const BACKLOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Rounds without a file until that is said: a rotated log is not there for a moment.
const MISSING_ROUNDS: u32 = 3;

struct LogFiles {
    globs: Vec<String>,
    filter: Filter,
    level: Level,
    from_start: bool,
    /// None until the first round: a file that appears later is read from its start.
    positions: Option<BTreeMap<PathBuf, Position>>,
    missing: BTreeMap<String, u32>,
}

/// How far a file has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Position {
    inode: u64,
    device: u64,
    offset: u64,
    head_bytes: u64,
    head: String,
}

pub(super) fn build(settings: &mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError> {
    let globs = settings.some_texts("targets", "paths of files, or globs such as /var/log/*.log")?;
    for glob in &globs {
        paths::check(glob).map_err(|reason| settings.error("targets", format!("{glob:?} {reason}")))?;
    }
    let filter = Filter::build(settings, &[])?;
    let level = settings.level("severity", Level::Warning)?;
    let from_start = settings.flag("from_start", false)?;
    let missing = BTreeMap::new();
    Ok(vec![Box::new(LogFiles { globs, filter, level, from_start, positions: None, missing })])
}

impl Check for LogFiles {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        let mut readings = Vec::new();
        let first = self.positions.is_none() && !self.from_start;
        let known = self.positions.take().unwrap_or_default();
        let mut positions = BTreeMap::new();
        for glob in &self.globs {
            let found = paths::expand(glob, FILES_MAX);
            if glob::is_exact(glob) {
                let rounds = self.missing.entry(glob.clone()).or_default();
                *rounds = if found.is_empty() { rounds.saturating_add(1) } else { 0 };
                if *rounds >= MISSING_ROUNDS {
                    readings.push(Reading::failed_at(MATCH, glob, self.level, "no such file, or no right to see it"));
                }
                // Away for a moment: its place is kept.
                if found.is_empty()
                    && let Some(position) = known.get(Path::new(glob))
                {
                    positions.insert(PathBuf::from(glob), position.clone());
                }
            }
            for path in found {
                if positions.contains_key(&path) {
                    continue;
                }
                if positions.len() >= FILES_MAX {
                    context.unavailable(format!("more than {FILES_MAX} files match; the rest is not read"));
                    break;
                }
                let target = path.to_string_lossy().into_owned();
                let mut matches = Matches::default();
                match self.read(&path, known.get(&path), first, &mut matches, context) {
                    Ok(position) => {
                        positions.insert(path, position);
                        readings.push(matches.reading(MATCH, &target, self.level));
                    }
                    Err(error) => {
                        if let Some(position) = known.get(&path) {
                            positions.insert(path, position.clone());
                        }
                        readings.push(Reading::failed(MATCH, &target, format!("cannot be read: {error}")));
                    }
                }
            }
        }
        self.positions = Some(positions);
        readings
    }

    fn save(&self) -> Option<Value> {
        let one = |(path, at): (&PathBuf, &Position)| {
            let path = path.to_str()?.to_owned();
            Some((path, json!([at.inode, at.device, at.offset, at.head_bytes, at.head])))
        };
        Some(Value::Object(gather(self.positions.as_ref()?.iter().filter_map(one))))
    }

    fn restore(&mut self, state: &Value) {
        let Some(state) = state.as_object() else { return };
        let one = |(path, at): (&String, &Value)| {
            let number = |idx: usize| at[idx].as_u64();
            let head = at[4].as_str()?.to_owned();
            let at =
                Position { inode: number(0)?, device: number(1)?, offset: number(2)?, head_bytes: number(3)?, head };
            Some((PathBuf::from(path), at))
        };
        self.positions = Some(gather(state.iter().take(FILES_MAX).filter_map(one)));
    }
}

impl LogFiles {
    /// Reads on in a file, and what was left in one that was renamed.
    fn read(
        &self,
        path: &Path,
        known: Option<&Position>,
        first: bool,
        matches: &mut Matches,
        context: &Gather<'_>,
    ) -> io::Result<Position> {
        // A pipe would block, and a device never ends.
        if !path.metadata()?.is_file() {
            return Err(io::Error::other("not a plain file"));
        }
        let mut file = File::open(path)?;
        let meta = file.metadata()?;
        let mut offset = match known {
            None if first => meta.len(),
            None => 0,
            Some(known) if known.is_of(&mut file, &meta)? => known.offset,
            Some(known) => {
                if let Some((mut renamed, meta)) = renamed(path, known, &meta) {
                    self.lines(&mut renamed, known.offset, meta.len(), matches, context)?;
                }
                0
            }
        };
        if meta.len().saturating_sub(offset) > BACKLOG_BYTES_MAX {
            context.unavailable(format!("{} grows faster than it is read; lines were left out", path.display()));
            offset = meta.len() - ROUND_BYTES_MAX;
        }
        let offset = self.lines(&mut file, offset, meta.len(), matches, context)?;
        let (head_bytes, head) = head_of(&mut file, HEAD_BYTES.min(meta.len()))?;
        Ok(Position { inode: meta.ino(), device: meta.dev(), offset, head_bytes, head })
    }

    /// Looks at whole lines from `offset` on; where the next one begins.
    fn lines(
        &self,
        file: &mut File,
        mut offset: u64,
        length: u64,
        matches: &mut Matches,
        context: &Gather<'_>,
    ) -> io::Result<u64> {
        file.seek(SeekFrom::Start(offset))?;
        let mut reader = BufReader::new(file.take(ROUND_BYTES_MAX.min(length.saturating_sub(offset))));
        let mut line = Vec::new();
        while !context.cancel.is_set() && Instant::now() < context.deadline {
            line.clear();
            let n = u64::try_from(reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?).unwrap_or(0);
            // The end of a line that is still being written comes later.
            if n == 0 || (!line.ends_with(b"\n") && n < LINE_BYTES_MAX) {
                break;
            }
            offset += n;
            matches.look(&self.filter, &String::from_utf8_lossy(&line));
        }
        Ok(offset)
    }
}

impl Position {
    /// Whether an open file is the one that was read before, and only grew since.
    fn is_of(&self, file: &mut File, meta: &Metadata) -> io::Result<bool> {
        if (self.inode, self.device) != (meta.ino(), meta.dev()) || meta.len() < self.offset.max(self.head_bytes) {
            return Ok(false);
        }
        Ok(head_of(file, self.head_bytes)?.1 == self.head)
    }
}

/// The file that was read before under this path, if it lies beside it under another name.
fn renamed(path: &Path, known: &Position, now: &Metadata) -> Option<(File, Metadata)> {
    if known.inode == now.ino() {
        // Truncated in place: what it held is gone.
        return None;
    }
    let dir = path.parent()?;
    let name = path.file_name()?.to_str()?;
    // Rotation adds to the name: `syslog.1`, `app.log-20261122`.
    names_in(dir).into_iter().filter(|other| other.starts_with(name) && other != name).find_map(|other| {
        let path = dir.join(other);
        let meta = path.symlink_metadata().ok().filter(|meta| meta.is_file() && meta.ino() == known.inode)?;
        let mut file = File::open(path).ok()?;
        known.is_of(&mut file, &meta).ok()?.then_some((file, meta))
    })
}

/// The hash of the first bytes, and how many there were.
fn head_of(file: &mut File, bytes: u64) -> io::Result<(u64, String)> {
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    let n = file.by_ref().take(bytes.min(HEAD_BYTES)).read_to_end(&mut head)?;
    Ok((u64::try_from(n).unwrap_or(0), hex(&Sha256::digest(&head)[..8])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::each::tests::lines;
    use crate::checks::testing::Bench;
    use std::fs;
    use std::io::Write;

    /// A directory with one check over it.
    struct World {
        dir: tempfile::TempDir,
        bench: Bench,
        checks: Vec<Box<dyn Check>>,
    }

    impl World {
        fn new(name: &str) -> Self {
            let (dir, bench) = (tempfile::tempdir().unwrap(), Bench::new());
            let checks = bench.build(build, &Self::table(&dir, name));
            Self { dir, bench, checks }
        }

        fn table(dir: &tempfile::TempDir, name: &str) -> Value {
            json!({"targets": dir.path().join(name).to_str().unwrap(), "filter_include": "bad"})
        }

        fn restart(&mut self, name: &str) {
            let kept: Value = serde_json::from_str(&self.checks[0].save().unwrap().to_string()).unwrap();
            self.checks = self.bench.build(build, &Self::table(&self.dir, name));
            self.checks[0].restore(&kept);
        }

        fn append(&self, name: &str, text: &str) {
            let file = File::options().create(true).append(true).open(self.dir.path().join(name));
            file.unwrap().write_all(text.as_bytes()).unwrap();
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.dir.path().join(from), self.dir.path().join(to)).unwrap();
        }

        /// The lines that matched, all files together.
        fn round(&mut self) -> Vec<String> {
            let readings = self.bench.gather(&mut self.checks);
            let bad = readings.iter().filter(|reading| reading.level != Level::Ok);
            bad.flat_map(|r| r.description.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()).collect()
        }
    }

    #[test]
    fn new_lines_are_read_once_and_whole() {
        let mut world = World::new("a.log");
        world.append("a.log", "bad before\n");
        assert!(world.round().is_empty(), "what was there before the agent is old");
        world.append("a.log", "good\nbad 1\nbad 2 password=x\nbad unfin");
        assert_eq!(world.round(), ["bad 1", "bad 2 password=[hidden]"]);
        world.append("a.log", "ished\n");
        assert_eq!(world.round(), ["bad unfinished"]);
        assert!(world.round().is_empty());
        world.append("a.log", "bad while away\n");
        world.restart("a.log");
        assert_eq!(world.round(), ["bad while away"]);
    }

    #[test]
    fn rotation_loses_nothing_and_repeats_nothing() {
        let mut world = World::new("a.log");
        world.append("a.log", "start\n");
        world.round();
        world.append("a.log", "bad unread\n");
        world.rename("a.log", "a.log.1");
        world.append("a.log", "bad new\n");
        assert_eq!(world.round(), ["bad unread", "bad new"]);
        // Truncated in place.
        fs::write(world.dir.path().join("a.log"), "bad 2\n").unwrap();
        assert_eq!(world.round(), ["bad 2"]);
        // The same inode, longer than before, with another begin.
        fs::write(world.dir.path().join("a.log"), "bad 3\nother\n").unwrap();
        assert_eq!(world.round(), ["bad 3"]);
        // Gone for a moment, and another file in its place.
        fs::remove_file(world.dir.path().join("a.log")).unwrap();
        assert!(world.round().is_empty());
        world.append("a.log", "bad 4, longer than what stood there before\n");
        assert_eq!(world.round().len(), 1);
    }

    #[test]
    fn globs_find_new_files_and_missing_files_are_said() {
        let mut world = World::new("*.log");
        world.append("a.log", "bad old\n");
        assert!(world.round().is_empty());
        world.append("b.log", "bad b\n");
        world.append("b.txt", "bad\n");
        assert_eq!(world.round(), ["bad b"]);
        let mut world = World::new("gone.log");
        world.round();
        assert!(world.bench.gather(&mut world.checks).is_empty());
        let path = world.dir.path().join("gone.log");
        let expected = format!("logfile::match {} Warning: no such file, or no right to see it", path.display());
        assert_eq!(lines(&world.bench.gather(&mut world.checks)), [expected]);
        fs::create_dir(&path).unwrap();
        assert!(world.bench.gather(&mut world.checks)[0].description.contains("not a plain file"));
    }

    #[test]
    fn floods_are_bounded() {
        let mut world = World::new("a.log");
        world.append("a.log", "");
        world.round();
        world.append("a.log", &"bad line that comes again and again\n".repeat(150_000));
        let (mut rounds, mut seen) = (0, 0);
        while seen < 150_000 {
            let readings = world.bench.gather(&mut world.checks);
            assert!(readings[0].description.len() < 1000);
            seen += readings[0].attr_of("current_value").parse::<u32>().unwrap();
            rounds += 1;
        }
        assert_eq!((rounds, seen), (2, 150_000));
        // One line without end.
        world.append("a.log", &"x".repeat(200_000));
        world.round();
        world.append("a.log", " bad\n");
        assert_eq!(world.round().len(), 1);
    }

    #[test]
    fn strange_state_and_bytes_do_no_harm() {
        let mut world = World::new("a.log");
        fs::write(world.dir.path().join("a.log"), b"\xff\xfe\0bad\n").unwrap();
        let path = world.dir.path().join("a.log");
        for state in [json!(null), json!({"/x": [1]}), json!({path.to_str().unwrap(): [1, 2, u64::MAX, 9, "x"]})] {
            world.checks[0].restore(&state);
            world.round();
        }
        world.checks[0].restore(&json!({}));
        assert_eq!(world.round(), ["\u{fffd}\u{fffd} bad"]);
        let bench = Bench::new();
        assert_eq!(bench.refused(build, &json!({"targets": "/a"})), "checks.x.filter_include");
        assert_eq!(bench.refused(build, &json!({"targets": "a", "filter_include": "x"})), "checks.x.targets");
    }
}
