//! A link in this process, with clocks that run fast, and the real agent as a process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holt::alert::{Event, Level, key_of};
use holt::fleet::link::{HubAddress, JoinCode, Link, LinkSettings, StateDir, Timers};
use holt::rt::Threads;

use super::{PATIENCE, wait_until};

/// A link that runs until it is dropped.
pub struct TestLink {
    pub link: Link,
    threads: Threads,
}

/// Waits are a thousandth of the real ones.
pub fn fast() -> Timers {
    Timers { wait_factor: 0.001, ..Timers::default() }
}

/// Settings for a hub at that address, with the token `t0ken`.
pub fn settings(address: &str) -> LinkSettings {
    LinkSettings {
        address: HubAddress::parse(address).unwrap(),
        ca_file: None,
        token: Some("t0ken".to_owned()),
        join: None,
        labels: [("site".to_owned(), "home".to_owned())].into(),
        plugins: vec!["cpu".to_owned(), "disk".to_owned()],
    }
}

/// The same with a join code instead.
pub fn joining(address: &str, code: &str) -> LinkSettings {
    LinkSettings { token: None, join: Some(JoinCode::parse(code).unwrap()), ..settings(address) }
}

impl TestLink {
    pub fn new(dir: &Path, settings: LinkSettings, timers: Timers) -> Self {
        let state = StateDir::open(&dir.join("agent")).unwrap();
        let link = Link::new(state, settings, "test-1", timers).unwrap();
        Self { link, threads: Threads::new() }
    }

    /// Lets it run.
    pub fn run(self) -> Self {
        let running = self.link.clone();
        self.threads.spawn("link", 512 * 1024, move || running.run_forever()).unwrap();
        self
    }

    /// A link with the token of [`settings`], running.
    pub fn start(dir: &Path, address: &str, timers: Timers) -> Self {
        Self::new(dir, settings(address), timers).run()
    }

    /// Asks it to stop, without waiting.
    pub fn ask_to_stop(&self) {
        self.link.stop();
    }

    pub fn wait(&self) {
        assert_eq!(self.threads.join_all(PATIENCE), Vec::<String>::new());
    }
}

impl Drop for TestLink {
    fn drop(&mut self) {
        self.link.stop();
        let late = self.threads.join_all(PATIENCE);
        assert!(late.is_empty() || std::thread::panicking(), "late: {late:?}");
    }
}

/// An event that no other one equals.
pub fn event(number: i64) -> Event {
    let labels =
        [("check", "x::y".to_owned()), ("target", number.to_string())].map(|(name, value)| (name.to_owned(), value));
    let labels = labels.into_iter().collect();
    let key = key_of(&labels);
    let (attrs, description) = (std::collections::BTreeMap::new(), "a <b> & c".to_owned());
    Event { time: number, level: Level::Warning, key, labels, attrs, description, format: String::new() }
}

/// `holt agent` as a process.
pub struct AgentProcess {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    threads: Threads,
}

impl AgentProcess {
    /// Starts it with that data directory and those arguments.
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        let mut child = Self::command(dir, args).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (log, threads) = (Arc::new(Mutex::new(Vec::new())), Threads::new());
        let kept = Arc::clone(&log);
        threads
            .spawn("agent-log", 128 * 1024, move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    kept.lock().unwrap().push(line);
                }
            })
            .unwrap();
        Self { child, log, threads }
    }

    fn command(dir: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
        command.arg("agent").args(args).arg("--data-dir").arg(dir);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// What it says when it does not start, and that it fails.
    pub fn refused(dir: &Path, args: &[&str]) -> String {
        let output = Self::command(dir, args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
    }

    /// SIGKILL, and the end of the process.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        wait_until("the agent has ended", || self.child.try_wait().unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until the log says so.
    pub fn wait_for_log(&self, text: &str) {
        wait_until(text, || self.log().contains(text).then_some(()));
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.threads.join_all(PATIENCE);
        if std::thread::panicking() {
            eprintln!("--- log of the agent ---\n{}", self.log());
        }
    }
}

/// The state directory in a data directory.
pub fn state_dir(dir: &Path) -> PathBuf {
    dir.join("agent")
}

/// A short time, for what is meant to run out.
pub const SHORT: Duration = Duration::from_millis(100);
