//! A real `holt agent` beside the hub, killed when dropped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use holt::rt::Threads;

use super::{PATIENCE, wait_until};

/// A running agent.
pub struct Machine {
    child: Child,
    pub dir: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
    threads: Threads,
}

/// The command of an agent whose state is in `dir`, with that `agent.toml`.
pub fn command(dir: &Path, config: &str, arguments: &[&str]) -> Command {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("agent.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
    command.args(["agent", "--data-dir"]).arg(dir).args(arguments);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

impl Machine {
    /// Starts an agent.
    pub fn start(dir: &Path, config: &str, arguments: &[&str]) -> Self {
        Self::spawn(command(dir, config, arguments), dir)
    }

    pub fn spawn(mut command: Command, dir: &Path) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let threads = Threads::new();
        let kept = Arc::clone(&log);
        threads
            .spawn("agent-log", 128 * 1024, move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    kept.lock().unwrap().push(line);
                }
            })
            .unwrap();
        Self { child, dir: dir.to_owned(), log, threads }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and the end of the process.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> ExitStatus {
        wait_until("the agent has ended", || self.child.try_wait().unwrap())
    }

    /// Waits until the agent has said that.
    pub fn said(&self, text: &str) {
        wait_until(&format!("the agent says {text:?}"), || {
            self.log.lock().unwrap().iter().any(|line| line.contains(text)).then_some(())
        });
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.threads.join_all(PATIENCE);
        if std::thread::panicking() {
            eprintln!("--- log of the agent ---\n{}", self.log());
        }
    }
}
