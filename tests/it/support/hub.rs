//! The real binary: started on port 0, its address read from what it prints, killed when dropped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};
use holt::rt::Threads;

use super::{Client, Model, PATIENCE, tls, wait_until};

/// How a hub is to be started.
pub struct Builder {
    dir: PathBuf,
    listen: String,
    config: String,
    env: Vec<(String, String)>,
}

/// A running hub.
pub struct Hub {
    child: Child,
    pub address: String,
    pub pin: Option<String>,
    pub dir: PathBuf,
    is_tls: bool,
    log: Arc<Mutex<Vec<String>>>,
    threads: Threads,
}

impl Builder {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), listen: "127.0.0.1:0".to_owned(), config: String::new(), env: Vec::new() }
    }

    /// Lines of `holt.toml`.
    pub fn config(mut self, text: &str) -> Self {
        self.config.push_str(text);
        self.config.push('\n');
        self
    }

    /// Answers come from a scripted model that costs nothing: it runs on this machine.
    pub fn model(self, model: &Model) -> Self {
        self.model_with(model, "")
    }

    /// Answers come from a scripted model, at 100 USD per million tokens in and 200 out.
    pub fn paid_model(self, model: &Model) -> Self {
        let prices = "[costs.model_prices.test-model]\ninput = 100.0\noutput = 200.0\n";
        self.model_with(model, "free = false").config(prices)
    }

    /// A scripted model with more lines in its provider's section.
    pub fn model_with(self, model: &Model, lines: &str) -> Self {
        let text = format!(
            "[llm]\ndefault_provider = \"openai\"\ndefault_model = \"test-model\"\n[llm.openai]\napi_key = \"k\"\nbase_url = \"{}\"\n{lines}\n",
            model.url()
        );
        self.config(&text)
    }

    /// TLS with copies of that certificate and key of `tests/it/certs`, which stand in the hub's directory.
    pub fn tls(self, cert: &str, key: &str) -> Self {
        let lines = tls::put(&self.dir, cert, key);
        self.config(&lines)
    }

    pub fn listen(mut self, address: &str) -> Self {
        address.clone_into(&mut self.listen);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command that starts this hub.
    pub fn command(&self) -> Command {
        if !self.config.is_empty() {
            std::fs::write(self.dir.join("holt.toml"), &self.config).unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
        command.args(["serve", "--listen", &self.listen, "--data-dir"]).arg(&self.dir);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The same through a shell that first runs `before`, such as `ulimit -n 64`.
    pub fn command_after(&self, before: &str) -> Command {
        let inner = self.command();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{before}; exec \"$0\" \"$@\"")]).arg(inner.get_program()).args(inner.get_args());
        command.env_clear();
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
    }

    pub fn start(self) -> Hub {
        let command = self.command();
        Hub::spawn(command, self.dir)
    }
}

impl Hub {
    /// A hub on its defaults in that directory.
    pub fn start(dir: &Path) -> Self {
        Builder::new(dir).start()
    }

    pub fn spawn(mut command: Command, dir: PathBuf) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (line_tx, line_rx) = bounded::<String>(16);
        let threads = Threads::new();
        let kept = Arc::clone(&log);
        threads
            .spawn("hub-log", 128 * 1024, move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    kept.lock().unwrap().push(line.clone());
                    let _ = line_tx.try_send(line);
                }
            })
            .unwrap();
        let mut hub = Self { child, address: String::new(), pin: None, dir, is_tls: false, log, threads };
        hub.read_start(&line_rx);
        hub
    }

    fn read_start(&mut self, line_rx: &Receiver<String>) {
        let deadline = Instant::now() + PATIENCE;
        while self.address.is_empty() {
            let line = line_rx
                .recv_deadline(deadline)
                .unwrap_or_else(|_| panic!("the hub did not start:\n{}", self.log_tail()));
            if let Some((_, url)) = line.split_once("listening on http") {
                self.is_tls = url.starts_with('s');
                url.trim_start_matches(['s', ':', '/']).trim().clone_into(&mut self.address);
            }
        }
        // The PIN's line, if any, is printed right behind; `status` tells whether to wait for it.
        if self.client().get("/api/v1/setup").json()["account_setup_available"] == true {
            self.pin = Some(wait_until("the PIN is printed", || {
                self.log
                    .lock()
                    .unwrap()
                    .iter()
                    .find_map(|line| line.rsplit_once("pin=").map(|(_, pin)| pin.trim().to_owned()))
            }));
        }
    }

    pub fn client(&self) -> Client {
        let client = Client::new(&self.address);
        if self.is_tls { client.with_tls(&tls::pinned(&self.dir.join("cert.pem"))) } else { client }
    }

    /// A client with an admin key made by setup, or by the command line when setup is over.
    pub fn admin(&self) -> Client {
        let answer = self.client().post(
            "/api/v1/setup",
            r#"{"name":"admin","scopes":["admin","chat","sessions:read","sessions:write","approvals:write"]}"#,
        );
        assert_eq!(answer.status, 201, "{}", answer.text());
        self.client().with_key(answer.json()["key"].as_str().unwrap())
    }

    /// The hub's database, as another process sees it.
    pub fn database(&self) -> rusqlite::Connection {
        let conn = rusqlite::Connection::open(self.dir.join("holt.db")).unwrap();
        conn.busy_timeout(super::PATIENCE).unwrap();
        conn
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
        wait_until("the hub has ended", || self.child.try_wait().unwrap())
    }

    /// The process's figure in `/proc/<pid>/status`, in KiB.
    pub fn status_kib(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn log_tail(&self) -> String {
        let log = self.log.lock().unwrap();
        log[log.len().saturating_sub(40)..].join("\n")
    }

    /// How many lines hold a text.
    pub fn log_count(&self, text: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }

    pub fn log_contains(&self, text: &str) -> bool {
        self.log.lock().unwrap().iter().any(|line| line.contains(text))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.threads.join_all(PATIENCE);
        if std::thread::panicking() {
            eprintln!("--- log of the hub ---\n{}", self.log_tail());
        }
    }
}
