//! Servers that are programs: messages are lines on their standard input and output (MCP 2025-11-25, "stdio").
//!
//! One thread per server, `mcp-<name>`: it alone reads the child's pipes, writes what its input did not take at once,
//! and ends the child. It ends when the connection is closed or the child closes its output. Senders write to the
//! child's input themselves while nothing is queued; the pipe never blocks.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;

use super::child::{self, Children, Group};
use super::client::{Client, Transport};
use super::inbox::{Fed, Inbox, Waiting};
use super::lines::Lines;
use super::stderr::{ErrorLog, LastWords};
use super::{Mask, McpError, TransportKind};
use crate::limits;
use crate::rt::{Cancel, Threads, lock};

/// What one read takes from a pipe; a pipe holds 64 KiB.
const READ_BYTES: usize = 16 * 1024;
/// What a server may still say on standard error once its output has ended.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(200);

/// What to run.
pub struct Program<'a> {
    pub command: &'a str,
    pub arguments: &'a [String],
    /// Laid over what is inherited.
    pub env: &'a BTreeMap<String, String>,
    /// The hub's own variables, of which harmless ones are inherited.
    pub process_env: &'a [(String, String)],
    /// Where it is listed while it lives.
    pub children: &'a Children,
    /// Where what it writes on standard error is kept.
    pub log: &'a ErrorLog,
}

/// Starts a program and makes the handshake. The error of a program that ended names what it wrote last.
pub fn start(
    name: &str,
    program: &Program<'_>,
    mask: Mask,
    timeout: Duration,
    threads: &Threads,
    cancel: &Cancel,
) -> Result<Client, McpError> {
    let process_env = program.process_env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut group = child::spawn(program.command, program.arguments, program.env, process_env, program.children)?;
    let inbox = Inbox::new(name, mask);
    let failed = |error: io::Error| McpError::Start { cause: error.to_string() };
    let child = group.child();
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(McpError::Start { cause: "it has no pipes".to_owned() });
    };
    ioctl_fionbio(&stdin, true).map_err(|error| failed(error.into()))?;
    ioctl_fionbio(&stdout, true).map_err(|error| failed(error.into()))?;
    ioctl_fionbio(&stderr, true).map_err(|error| failed(error.into()))?;
    let (bell_tx, bell_rx) = UnixStream::pair().map_err(failed)?;
    bell_tx.set_nonblocking(true).map_err(failed)?;
    bell_rx.set_nonblocking(true).map_err(failed)?;
    let shared = Arc::new(Shared {
        inbox: Arc::clone(&inbox),
        out: Mutex::new(Out { stdin: Some(Arc::new(stdin)), queue: Vec::new() }),
        bell_tx,
        is_closing: AtomicBool::new(false),
        ended: Mutex::new(false),
        has_ended: Condvar::new(),
    });
    let reader = Reader {
        shared: Arc::clone(&shared),
        group,
        stdout,
        stderr: Some(stderr),
        bell_rx,
        lines: Lines::new(limits::MCP_MESSAGE_BYTES_MAX),
        words: LastWords::noted_in(program.log.clone()),
        pace: Pace::new(),
    };
    threads.spawn(&format!("mcp-{name}"), limits::WORKER_STACK_BYTES, move || reader.run()).map_err(failed)?;
    Client::open(Box::new(Stdio { shared }), inbox, timeout, cancel)
}

struct Stdio {
    shared: Arc<Shared>,
}

struct Shared {
    inbox: Arc<Inbox>,
    /// Guarded by the mutex: the child's input, and what it did not take yet. Written to under it: the pipe does not
    /// block. Nothing is taken under it.
    out: Mutex<Out>,
    /// Wakes the reader.
    bell_tx: UnixStream,
    is_closing: AtomicBool,
    /// Guarded by the mutex: the child is gone.
    ended: Mutex<bool>,
    has_ended: Condvar,
}

struct Out {
    stdin: Option<Arc<ChildStdin>>,
    queue: Vec<u8>,
}

impl Out {
    /// Writes what the pipe takes of the queue; false when the child no longer reads.
    fn flush(&mut self) -> bool {
        let Some(stdin) = &self.stdin else { return false };
        let mut sent = 0;
        let is_open = loop {
            if sent == self.queue.len() {
                break true;
            }
            match (&**stdin).write(&self.queue[sent..]) {
                Ok(0) => break false,
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break error.kind() == ErrorKind::WouldBlock,
            }
        };
        self.queue.drain(..sent);
        self.queue.shrink_to(READ_BYTES);
        is_open
    }
}

impl Shared {
    fn send(&self, message: &[u8], bytes_max: usize) -> Result<(), McpError> {
        let gone = || McpError::Gone { detail: "it does not read any more".to_owned() };
        let is_queued = {
            let mut out = lock(&self.out);
            if out.stdin.is_none() {
                return Err(gone());
            }
            if !out.queue.is_empty() && out.queue.len() + message.len() > bytes_max {
                return Err(McpError::Stuck);
            }
            let was_queued = !out.queue.is_empty();
            out.queue.extend_from_slice(message);
            if !was_queued && !out.flush() {
                out.stdin = None;
            }
            !out.queue.is_empty()
        };
        if is_queued {
            self.wake();
        }
        Ok(())
    }

    fn wake(&self) {
        // Full: it wakes already.
        let _ = (&self.bell_tx).write(&[1]);
    }
}

impl Transport for Stdio {
    fn send(&self, message: Vec<u8>, _call: Option<(u64, &Arc<Waiting>)>) -> Result<(), McpError> {
        self.shared.send(&message, limits::MCP_QUEUE_BYTES_MAX)
    }

    fn close(&self) {
        self.shared.is_closing.store(true, Ordering::Release);
        self.shared.wake();
    }

    fn wait_ended(&self, timeout: Duration) -> bool {
        let ended = lock(&self.shared.ended);
        let waited = self.shared.has_ended.wait_timeout_while(ended, timeout, |ended| !*ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn kind(&self) -> TransportKind {
        TransportKind::Stdio
    }
}

/// The thread of one server.
struct Reader {
    shared: Arc<Shared>,
    group: Group,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    bell_rx: UnixStream,
    lines: Lines,
    words: LastWords,
    pace: Pace,
}

/// Says that the child is gone, also when the thread unwinds.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.inbox.close(McpError::Gone { detail: String::new() });
        *lock(&self.0.ended) = true;
        self.0.has_ended.notify_all();
    }
}

impl Reader {
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _ended = Ended(Arc::clone(&shared));
        let mut buffer = vec![0; READ_BYTES];
        let reason = loop {
            if shared.is_closing.load(Ordering::Acquire) {
                break "closed by the hub";
            }
            if let Err(reason) = self.round(&mut buffer) {
                break reason;
            }
        };
        // Its input ends: well-behaved servers end then.
        *lock(&shared.out) = Out { stdin: None, queue: Vec::new() };
        if !shared.is_closing.load(Ordering::Acquire) {
            // Nobody has to wait until it is cleared away to learn that it is gone.
            self.listen_to_last_words(&mut buffer);
            let words = self.words.text(&shared.inbox.mask);
            let status = if self.group.wait_exit(Duration::ZERO) { self.group.kill() } else { String::new() };
            let parts = [reason, &status, &words];
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            shared.inbox.close(McpError::Gone { detail: parts.join(": ") });
        }
        self.group.end();
    }

    /// Waits for something to happen and does it. The error says why the connection is over.
    fn round(&mut self, buffer: &mut [u8]) -> Result<(), &'static str> {
        let pause = self.pace.pause();
        let stdin = {
            let out = lock(&self.shared.out);
            if out.stdin.is_none() {
                return Err("it does not read its input");
            }
            out.stdin.clone().filter(|_| !out.queue.is_empty())
        };
        let (reads, writes, nothing) = (PollFlags::IN, PollFlags::OUT, PollFlags::empty());
        let bell = self.bell_rx.as_fd();
        let mut fds = [
            PollFd::new(&bell, reads),
            // A descriptor without flags would still report its hang-up, so a silent one stands in.
            if pause.is_some() { PollFd::new(&bell, nothing) } else { PollFd::new(&self.stdout, reads) },
            self.stderr.as_ref().map_or(PollFd::new(&bell, nothing), |stderr| PollFd::new(stderr, reads)),
            stdin.as_ref().map_or(PollFd::new(&bell, nothing), |stdin| PollFd::new(stdin, writes)),
        ];
        let timeout = pause.and_then(|pause| Timespec::try_from(pause).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(_) => return Err("its pipes cannot be watched"),
            Ok(_) => {}
        }
        let ready = fds.map(|fd| !fd.revents().is_empty());
        if ready[0] {
            // Only the waking counts.
            let _ = (&self.bell_rx).read(&mut [0; 64]);
        }
        if ready[2] {
            self.read_stderr(buffer);
        }
        if ready[3] && !lock(&self.shared.out).flush() {
            return Err("it does not read its input");
        }
        if ready[1] { self.read_stdout(buffer) } else { Ok(()) }
    }

    fn read_stdout(&mut self, buffer: &mut [u8]) -> Result<(), &'static str> {
        let count = match self.stdout.read(buffer) {
            Ok(0) => return Err(""),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(_) => return Err("its output cannot be read"),
        };
        let (shared, pace) = (&self.shared, &mut self.pace);
        let mut is_flooded = false;
        self.lines.push(&buffer[..count], |line| {
            let bytes = if let super::lines::Line::Whole(text) = &line { text.len() } else { 0 };
            let Fed { replies, idle } = shared.inbox.feed_line(line);
            if idle {
                pace.count(bytes);
            }
            for reply in replies {
                is_flooded |= shared.send(&reply, limits::MCP_REPLIES_BYTES_MAX) == Err(McpError::Stuck);
            }
        });
        if is_flooded {
            return Err("it asks for more than it reads");
        }
        if self.lines.dropped_bytes() > limits::MCP_DROPPED_BYTES_MAX {
            return Err("it sends a line without an end");
        }
        Ok(())
    }

    fn read_stderr(&mut self, buffer: &mut [u8]) {
        let Some(stderr) = &mut self.stderr else { return };
        match stderr.read(buffer) {
            Ok(count) if count > 0 => self.words.push(&buffer[..count], &self.shared.inbox.mask),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // It ended, or cannot be read: the connection lives without it.
            _ => self.stderr = None,
        }
    }

    /// Takes what a server that has just closed its output says about it.
    fn listen_to_last_words(&mut self, buffer: &mut [u8]) {
        let deadline = Instant::now() + LAST_WORDS_WAIT;
        while let Some(stderr) = &self.stderr {
            let Ok(left) = Timespec::try_from(deadline.saturating_duration_since(Instant::now())) else { return };
            let mut fds = [PollFd::new(stderr, PollFlags::IN)];
            if !matches!(poll(&mut fds, Some(&left)), Ok(1..)) {
                return;
            }
            self.read_stderr(buffer);
        }
        self.group.wait_exit(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Keeps a server that talks to nobody from costing a core: beyond a measure its output is left in the pipe.
struct Pace {
    since: Instant,
    bytes: usize,
    lines: usize,
}

impl Pace {
    const WINDOW: Duration = Duration::from_secs(1);

    fn new() -> Self {
        Self { since: Instant::now(), bytes: 0, lines: 0 }
    }

    fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.lines += 1;
    }

    /// How long to leave its output alone; None when it behaves.
    fn pause(&mut self) -> Option<Duration> {
        let elapsed = self.since.elapsed();
        if elapsed >= Self::WINDOW {
            *self = Self::new();
            return None;
        }
        let is_over = self.bytes > limits::MCP_IDLE_BYTES_PER_S || self.lines > limits::MCP_IDLE_LINES_PER_S;
        is_over.then(|| Self::WINDOW.saturating_sub(elapsed))
    }
}
