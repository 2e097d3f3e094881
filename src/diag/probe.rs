//! The real machine: time, units, room on file systems, programs.
//!
//! Threads: one short `diag-statvfs` per mount point that is asked. The call can hang for ever (a lost network
//! share, a dying disk), and nothing can end it; so it is left behind, and its path is not asked again meanwhile.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, never};

use crate::diag::child::{self, Output, RunError};
use crate::diag::root::{Probe, Space, Units};
use crate::diag::thresholds::MOUNT_ANSWER_MS;
use crate::rt::{Threads, lock};
use crate::tools::{ToolContext, ToolError};

/// How soon a wait notices that its call was cancelled.
const CANCEL_SLICE: Duration = Duration::from_millis(20);

/// A stack for one system call.
const STATVFS_STACK_BYTES: usize = 64 * 1024;

/// Asks the running kernel.
pub(super) struct SystemProbe {
    /// Put before every mount point: `/`, or where a host's root is mounted.
    root: PathBuf,
    threads: Threads,
    // Guarded by the mutex: since when a path is being asked. Only the map changes under it.
    asked: Arc<Mutex<HashMap<PathBuf, Instant>>>,
}

impl SystemProbe {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), threads: Threads::new(), asked: Arc::default() }
    }

    /// Starts asking one path; none when an earlier question to it is still unanswered.
    fn ask(&self, path: &Path) -> Option<Receiver<io::Result<Space>>> {
        let path = self.root.join(path.strip_prefix("/").unwrap_or(path));
        {
            let mut asked = lock(&self.asked);
            if asked.get(&path).is_some_and(|since| since.elapsed() >= answer_limit()) {
                return None;
            }
            asked.insert(path.clone(), Instant::now());
        }
        let (answer_tx, answer_rx) = bounded(1);
        let asked = Arc::clone(&self.asked);
        let asks = path.clone();
        let started = self.threads.spawn("diag-statvfs", STATVFS_STACK_BYTES, move || {
            let answer = space_of(&asks);
            lock(&asked).remove(&asks);
            // The asker may have gone: then nobody wants the answer.
            let _ = answer_tx.send(answer);
        });
        if started.is_err() {
            lock(&self.asked).remove(&path);
        }
        // Without a thread the sender is gone already, and the receiver says so.
        Some(answer_rx)
    }
}

impl Probe for SystemProbe {
    fn pause(&self, wanted: Duration, context: &ToolContext<'_>) -> Result<Duration, ToolError> {
        let started = Instant::now();
        while started.elapsed() < wanted {
            check_alive(context)?;
            let slice = CANCEL_SLICE.min(wanted.saturating_sub(started.elapsed()));
            // Nothing ever arrives here; this is a wait that the lint against blind sleeps can live with.
            let _ = never::<()>().recv_timeout(slice);
        }
        Ok(started.elapsed())
    }

    fn units(&self) -> Units {
        Units {
            ticks_per_second: rustix::param::clock_ticks_per_second().max(1),
            page_bytes: u64::try_from(rustix::param::page_size()).unwrap_or(4096),
        }
    }

    fn spaces(&self, paths: &[PathBuf], context: &ToolContext<'_>) -> Vec<io::Result<Space>> {
        let questions: Vec<_> = paths.iter().map(|path| self.ask(path)).collect();
        let deadline = (Instant::now() + answer_limit()).min(context.deadline);
        questions.into_iter().map(|question| answer_of(question, deadline, context)).collect()
    }

    fn run(&self, program: &str, arguments: &[&str], context: &ToolContext<'_>) -> Result<Output, RunError> {
        child::run(program, arguments, context)
    }
}

/// An error when the call was cancelled or is out of time.
pub(crate) fn check_alive(context: &ToolContext<'_>) -> Result<(), ToolError> {
    if context.cancel.is_set() {
        return Err(ToolError::new("cancelled"));
    }
    if Instant::now() >= context.deadline {
        return Err(ToolError::new("out of time"));
    }
    Ok(())
}

/// Waits for something to arrive, until the deadline or until the call is given up.
pub(crate) fn receive<T>(rx: &Receiver<T>, deadline: Instant, context: &ToolContext<'_>) -> io::Result<T> {
    loop {
        if context.cancel.is_set() {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "cancelled"));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match rx.recv_timeout(left.min(CANCEL_SLICE)) {
            Ok(value) => return Ok(value),
            Err(error) if error.is_disconnected() => return Err(io::Error::other("no thread to ask with")),
            Err(_) if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
            Err(_) => {}
        }
    }
}

fn answer_of(
    question: Option<Receiver<io::Result<Space>>>,
    deadline: Instant,
    context: &ToolContext<'_>,
) -> io::Result<Space> {
    let question = question.ok_or(io::ErrorKind::TimedOut)?;
    receive(&question, deadline, context)?
}

fn answer_limit() -> Duration {
    Duration::from_secs_f64(MOUNT_ANSWER_MS.critical.unwrap_or(1_000.0) / 1_000.0)
}

fn space_of(path: &Path) -> io::Result<Space> {
    let answer = rustix::fs::statvfs(path)?;
    Ok(Space {
        // POSIX counts in fragments; some FUSE file systems leave them at 0 and mean blocks.
        block_bytes: if answer.f_frsize == 0 { answer.f_bsize } else { answer.f_frsize },
        blocks: answer.f_blocks,
        blocks_free: answer.f_bfree,
        blocks_available: answer.f_bavail,
        inodes: answer.f_files,
        inodes_free: answer.f_ffree,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::Cancel;

    fn context(cancel: &Cancel, within: Duration) -> ToolContext<'_> {
        ToolContext { agent: "a", session_id: "s", identity: "i", deadline: Instant::now() + within, cancel }
    }

    #[test]
    fn a_pause_takes_its_time_and_ends_when_given_up() {
        let probe = SystemProbe::new(Path::new("/"));
        let cancel = Cancel::new();
        let passed = probe.pause(Duration::from_millis(5), &context(&cancel, Duration::from_secs(60))).unwrap();
        assert!(passed >= Duration::from_millis(5));
        let late = probe.pause(Duration::from_secs(3600), &context(&cancel, Duration::ZERO));
        assert_eq!(late.unwrap_err().message, "out of time");
        cancel.cancel();
        let cancelled = probe.pause(Duration::from_secs(3600), &context(&cancel, Duration::from_secs(60)));
        assert_eq!(cancelled.unwrap_err().message, "cancelled");
    }

    #[test]
    fn a_real_file_system_answers_and_a_missing_one_says_so() {
        let probe = SystemProbe::new(Path::new("/"));
        let cancel = Cancel::new();
        let paths = [PathBuf::from("/"), PathBuf::from("/no/such/place")];
        let answers = probe.spaces(&paths, &context(&cancel, Duration::from_secs(60)));
        let space = answers[0].as_ref().unwrap();
        assert!(space.block_bytes > 0 && space.blocks >= space.blocks_free);
        assert_eq!(answers[1].as_ref().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(probe.threads.join_all(Duration::from_secs(60)).is_empty());
        assert!(lock(&probe.asked).is_empty());
    }

    #[test]
    fn a_path_that_still_hangs_is_not_asked_again() {
        let probe = SystemProbe::new(Path::new("/"));
        let cancel = Cancel::new();
        let since = Instant::now().checked_sub(answer_limit()).unwrap();
        lock(&probe.asked).insert(PathBuf::from("/mnt/gone"), since);
        let answers = probe.spaces(&[PathBuf::from("/mnt/gone")], &context(&cancel, Duration::from_secs(60)));
        assert_eq!(answers[0].as_ref().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(probe.threads.is_empty());
    }
}
