//! Running a program of the system: absolute path, no shell, an empty environment, bounded output, bounded time.
//!
//! Threads: one `diag-child` per running child, which reads its output and ends when the child's end of the pipe
//! is closed.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, never};

use crate::diag::probe::receive;
use crate::rt::Threads;
use crate::tools::ToolContext;

/// Longest life of a child: the journal of a slow SD card needs seconds, no answer is worth more.
const LIFE_MAX: Duration = Duration::from_secs(8);

/// Most output that is kept; answers are cut to much less.
const OUTPUT_BYTES_MAX: u64 = 256 * 1024;

/// Longest wait for the exit after the end of the output, and how often to look.
const EXIT_MAX: Duration = Duration::from_secs(1);
const EXIT_SLICE: Duration = Duration::from_millis(2);

const READER_STACK_BYTES: usize = 64 * 1024;

/// Where the system keeps its programs. `PATH` is not asked: it may name places that others can write.
const PROGRAM_DIRS: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// What a child wrote and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// None when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

/// Why there is no output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RunError {
    /// The program is not installed.
    Missing,
    /// It did not start, or its output could not be read.
    Failed(String),
    TimedOut,
    Cancelled,
}

impl std::fmt::Display for RunError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("not installed"),
            Self::Failed(cause) => write!(f, "failed: {cause}"),
            Self::TimedOut => f.write_str("did not answer in time"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

/// Runs `program`, a bare name, to its end. Standard error is discarded.
pub(crate) fn run(program: &str, arguments: &[&str], context: &ToolContext<'_>) -> Result<Output, RunError> {
    let path = find(program).ok_or(RunError::Missing)?;
    let mut command = Command::new(path);
    command.args(arguments).env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| RunError::Failed(error.to_string()))?;
    let threads = Threads::new();
    let read = read_output(&mut child, &threads, context);
    // The output is complete or unwanted; either way the child has nothing left to do.
    let ended = end(&mut child, read);
    // Late only when a grandchild still holds the pipe; the reader then ends with it.
    let _ = threads.join_all(EXIT_MAX);
    ended
}

fn find(program: &str) -> Option<PathBuf> {
    PROGRAM_DIRS.iter().map(|dir| PathBuf::from(dir).join(program)).find(|path| path.is_file())
}

fn read_output(child: &mut Child, threads: &Threads, context: &ToolContext<'_>) -> Result<Vec<u8>, RunError> {
    let Some(stdout) = child.stdout.take() else { return Err(RunError::Failed("no output".to_owned())) };
    let (bytes_tx, bytes_rx) = bounded(1);
    let reader = move || {
        let mut bytes = Vec::new();
        let read = stdout.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        // The asker may have given up: then nobody wants the output.
        let _ = bytes_tx.send(read.map(|_| bytes));
    };
    threads.spawn("diag-child", READER_STACK_BYTES, reader).map_err(|error| RunError::Failed(error.to_string()))?;
    let deadline = (Instant::now() + LIFE_MAX).min(context.deadline);
    match receive(&bytes_rx, deadline, context) {
        Ok(read) => read.map_err(|error| RunError::Failed(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Err(RunError::TimedOut),
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Err(RunError::Cancelled),
        Err(error) => Err(RunError::Failed(error.to_string())),
    }
}

/// Reaps the child. One whose output ended is about to exit by itself, and is killed when it does not.
fn end(child: &mut Child, read: Result<Vec<u8>, RunError>) -> Result<Output, RunError> {
    let cut = read.as_ref().is_ok_and(|bytes| u64::try_from(bytes.len()).is_ok_and(|bytes| bytes >= OUTPUT_BYTES_MAX));
    let deadline = Instant::now() + EXIT_MAX;
    while read.is_ok() && !cut && matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        // Nothing ever arrives here: the wait between two looks.
        let _ = never::<()>().recv_timeout(EXIT_SLICE);
    }
    // Fails only when it has ended already.
    let _ = child.kill();
    let status = child.wait().map_err(|error| RunError::Failed(error.to_string()))?;
    let bytes = read?;
    Ok(Output { code: status.code(), text: String::from_utf8_lossy(&bytes).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::Cancel;

    fn check(script: &str, within: Duration, cancelled: bool) -> Result<Output, RunError> {
        let cancel = Cancel::new();
        if cancelled {
            cancel.cancel();
        }
        let context = ToolContext {
            agent: "a",
            session_id: "s",
            identity: "i",
            deadline: Instant::now() + within,
            cancel: &cancel,
        };
        run("sh", &["-c", script], &context)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn output_code_and_environment_are_what_was_asked_for() {
        let output = check("echo $LC_ALL $HOME; echo no >&2; exit 3", LONG, false).unwrap();
        assert_eq!(output, Output { code: Some(3), text: "C\n".to_owned() });
    }

    #[test]
    fn a_child_that_does_not_end_is_killed() {
        let started = Instant::now();
        assert_eq!(check("exec sleep 3600", Duration::from_millis(30), false), Err(RunError::TimedOut));
        assert_eq!(check("exec sleep 3600", LONG, true), Err(RunError::Cancelled));
        assert!(started.elapsed() < LONG);
    }

    #[test]
    fn endless_output_is_cut() {
        let output = check("exec yes", LONG, false).unwrap();
        assert_eq!(output.text.len() as u64, OUTPUT_BYTES_MAX);
    }

    #[test]
    fn a_missing_program_is_missing() {
        let cancel = Cancel::new();
        let context = ToolContext {
            agent: "a",
            session_id: "s",
            identity: "i",
            deadline: Instant::now() + LONG,
            cancel: &cancel,
        };
        assert_eq!(run("no-such-program-here", &[], &context), Err(RunError::Missing));
    }
}
