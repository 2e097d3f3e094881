//! The child process of a stdio server: its environment, its start, its end.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::never;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::McpError;
use crate::limits;
use crate::rt::lock;

/// What a server may see of the hub's own environment: where programs and homes are, how to talk to the user, which
/// certificates to trust. Everything else may hold secrets of the hub or of other servers.
const INHERITED: [&str; 16] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "TEMP",
    "TMP",
    "TERM",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
];
const INHERITED_PREFIXES: [&str; 2] = ["LC_", "XDG_"];

/// How often to look whether a child has ended.
const EXIT_SLICE: Duration = Duration::from_millis(5);
/// After SIGKILL only a child in the midst of a disk access takes longer.
const KILL_WAIT: Duration = Duration::from_millis(500);

/// The groups that live, so that a stop that is late can kill them all. Cheap to clone.
#[derive(Clone, Default)]
pub struct Children {
    /// Guarded by the mutex: groups whose first process is not reaped, so that their numbers are still theirs. They
    /// are signalled under it. Nothing is taken under it.
    living: Arc<Mutex<Living>>,
}

#[derive(Default)]
struct Living {
    groups: Vec<Pid>,
    is_closed: bool,
}

impl Children {
    /// Kills every group, and those that come later. Never waits.
    pub fn kill_all(&self) {
        let mut living = lock(&self.living);
        living.is_closed = true;
        for pid in &living.groups {
            // Fails only when nobody of the group is left.
            let _ = kill_process_group(*pid, Signal::KILL);
        }
    }

    /// False when no more may live.
    fn add(&self, pid: Pid) -> bool {
        let mut living = lock(&self.living);
        living.groups.push(pid);
        !living.is_closed
    }

    fn remove(&self, pid: Pid) {
        lock(&self.living).groups.retain(|known| *known != pid);
    }
}

/// A child in a process group of its own. Ended, with its whole group, when dropped.
pub(super) struct Group {
    children: Children,
    child: Child,
    pid: Option<Pid>,
    is_reaped: bool,
}

/// Whether a variable of the hub goes to its children.
pub(super) fn is_inherited(name: &str) -> bool {
    INHERITED.contains(&name) || INHERITED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Starts a program with its pipes; `env` is laid over what is inherited of `process_env`.
pub(super) fn spawn<'a>(
    program: &str,
    arguments: &[String],
    env: &BTreeMap<String, String>,
    process_env: impl Iterator<Item = (&'a str, &'a str)>,
    children: &Children,
) -> Result<Group, McpError> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(process_env.filter(|(name, _)| is_inherited(name))).envs(env);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().map_err(|error| McpError::Start { cause: format!("{program}: {error}") })?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let may_live = pid.is_none_or(|pid| children.add(pid));
    // Dropped, it is killed.
    let group = Group { children: children.clone(), child, pid, is_reaped: false };
    if may_live { Ok(group) } else { Err(McpError::Cancelled) }
}

impl Group {
    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits until the child has ended, at most that long. It stays a zombie, so that its number stays its own.
    pub(super) fn wait_exit(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            if self.has_exited() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // Nothing ever arrives here: the wait between two looks.
            let _ = never::<()>().recv_timeout(left.min(EXIT_SLICE));
        }
    }

    fn has_exited(&self) -> bool {
        let Some(pid) = self.pid.filter(|_| !self.is_reaped) else { return true };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid.filter(|_| !self.is_reaped) {
            // Fails only when nobody of the group is left.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Ends the group: the child may go by itself first (its input is closed by now), then it is asked, then it is
    /// killed with all that it started. How the child ended, in words.
    pub(super) fn end(&mut self) -> String {
        if !self.wait_exit(limits::MCP_STDIN_WAIT) {
            self.signal(Signal::TERM);
            self.wait_exit(limits::MCP_TERM_WAIT);
        }
        self.kill()
    }

    /// Kills the group and reaps the child. How it ended, in words; empty when it was we who ended it.
    pub(super) fn kill(&mut self) -> String {
        let went_itself = self.has_exited();
        self.signal(Signal::KILL);
        if self.is_reaped || !self.wait_exit(KILL_WAIT) {
            return String::new();
        }
        self.is_reaped = true;
        if let Some(pid) = self.pid {
            self.children.remove(pid);
        }
        match self.child.wait() {
            Ok(status) if went_itself => status.to_string(),
            _ => String::new(),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn run(script: &str, env: &[(&str, &str)], process_env: &[(&str, &str)]) -> Group {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        spawn("/bin/sh", &["-c".to_owned(), script.to_owned()], &env, process_env.iter().copied(), &Children::default())
            .unwrap()
    }

    #[test]
    fn children_see_only_what_they_may() {
        let hub = [
            ("PATH", "/usr/bin:/bin"),
            ("LC_ALL", "C"),
            ("HOLT_SECRET", "x"),
            ("DENKEEPER_LLM_OPENAI_API_KEY", "x"),
            ("OPENAI_API_KEY", "x"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("XDG_RUNTIME_DIR", "/run"),
        ];
        let mut group = run("env", &[("TOKEN", "mine"), ("PATH", "/bin:/usr/bin")], &hub);
        let mut text = String::new();
        group.child().stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let mut names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        names.retain(|name| !["PWD", "_", "OLDPWD", "SHLVL"].contains(name));
        assert_eq!(names, ["LC_ALL", "PATH", "TOKEN", "XDG_RUNTIME_DIR"]);
        assert!(text.contains("PATH=/bin:/usr/bin"));
    }

    #[test]
    fn a_group_ends_with_everything_it_started() {
        // A grandchild that ignores SIGTERM and holds the pipe; the child ignores it as well.
        let mut group = run("trap '' TERM; (trap '' TERM; exec sleep 3600) & echo ready; wait", &[], &[]);
        let mut stdout = group.child().stdout.take().unwrap();
        let mut ready = [0; 6];
        stdout.read_exact(&mut ready).unwrap();
        assert_eq!(group.kill(), "");
        // The pipe ends only when the grandchild is gone as well.
        assert_eq!(stdout.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn a_late_stop_kills_all_that_live_and_whatever_comes() {
        let children = Children::default();
        let start = || spawn("/bin/sleep", &["3600".to_owned()], &BTreeMap::new(), std::iter::empty(), &children);
        let (one, two) = (start().unwrap(), start().unwrap());
        drop(two);
        assert_eq!(lock(&children.living).groups.len(), 1);
        children.kill_all();
        assert!(one.wait_exit(Duration::from_secs(60)));
        assert!(matches!(start().map(|_| ()), Err(McpError::Cancelled)));
        drop(one);
        assert!(lock(&children.living).groups.is_empty());
    }

    #[test]
    fn a_child_that_went_says_how() {
        let mut group = run("exit 3", &[], &[]);
        assert!(group.wait_exit(Duration::from_secs(60)));
        assert_eq!(group.end(), "exit status: 3");
        let children = Children::default();
        let missing = spawn("/no/such/program", &[], &BTreeMap::new(), std::iter::empty(), &children).map(|_| ());
        assert!(matches!(missing, Err(McpError::Start { cause }) if cause.contains("/no/such/program")));
    }
}
