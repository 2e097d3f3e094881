//! What the benches share: the hub as a child process, and a load generator.
#![allow(dead_code, unreachable_pub, reason = "each bench uses its part")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use polling::{Event, Events, Poller};

/// A child process that listens, killed when dropped.
pub struct Peer {
    child: Child,
    pub address: String,
    pub started_in: Duration,
}

impl Peer {
    /// Starts a command that prints `listening on http://ADDRESS` on stderr.
    pub fn start(mut command: Command) -> Self {
        let begun = Instant::now();
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the command starts");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let address = loop {
            let line = lines.next().expect("an address before the end").expect("text");
            if let Some((_, address)) = line.split_once("listening on http://") {
                break address.trim().to_owned();
            }
        };
        // Ready is when it answers, not when it says so.
        while !is_healthy(&address) {}
        let started_in = begun.elapsed();
        // Nobody reads the rest of the log: a closed pipe would be an error to the child, so it is drained.
        let threads = holt::rt::Threads::new();
        threads.spawn("log", 64 * 1024, move || lines.for_each(drop)).expect("a thread");
        Self { child, address, started_in }
    }

    /// The release hub on a data directory.
    pub fn holt(data_dir: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
        Self::start(command)
    }

    /// This very bench again, in another role.
    pub fn role(role: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("the path of this bench"));
        command.env("BENCH_ROLE", role);
        Self::start(command)
    }

    /// A figure of `/proc/<pid>/status`, in KiB.
    pub fn kib(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap_or("");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
    }
    /// Asks it to stop, and waits for that.
    pub fn stop(mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }

    /// Processor time so far, in milliseconds: clock ticks of 10 ms.
    pub fn cpu_ms(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        (ticks(11) + ticks(12)) * 10
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_healthy(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let request = format!("GET /api/v1/health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.contains("200")
}

/// One request, its body.
pub fn request(address: &str, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a listener");
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .expect("a peer that reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

/// A key with all that the benches need, by setup.
pub fn key(address: &str) -> String {
    let body = request(
        address,
        "POST",
        "/api/v1/setup",
        "",
        r#"{"scopes":["admin","chat","sessions:read","kv:read","kv:write"]}"#,
    );
    body.split("\"key\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a key").to_owned()
}

/// What a load run measured.
pub struct Load {
    pub per_second: f64,
    pub p50_us: u64,
    pub p99_us: u64,
}

/// A closed loop over `connections` keep-alive connections on one thread.
pub fn load(address: &str, path: &str, headers: &str, connections: usize, duration: Duration) -> Load {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n").into_bytes();
    let poller = Poller::new().expect("a poller");
    let mut conns: Vec<(TcpStream, Vec<u8>, Instant)> = (0..connections)
        .map(|key| {
            let mut stream = TcpStream::connect(address).expect("a listener");
            stream.set_nodelay(true).expect("a socket");
            stream.write_all(&request).expect("a peer that reads");
            stream.set_nonblocking(true).expect("a socket");
            register(&poller, &stream, key);
            (stream, Vec::with_capacity(64 * 1024), Instant::now())
        })
        .collect();
    let begun = Instant::now();
    let mut latencies: Vec<u32> = Vec::with_capacity(4_000_000);
    let mut events = Events::new();
    let mut scratch = vec![0; 256 * 1024];
    while begun.elapsed() < duration {
        events.clear();
        poller.wait(&mut events, Some(Duration::from_millis(100))).expect("events");
        for event in events.iter() {
            let (stream, buffer, sent) = &mut conns[event.key];
            loop {
                match stream.read(&mut scratch) {
                    Ok(0) => panic!("the server closed a connection"),
                    Ok(count) => buffer.extend_from_slice(&scratch[..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
                if is_whole(buffer) {
                    break;
                }
            }
            if is_whole(buffer) {
                assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(buffer));
                latencies.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
                buffer.clear();
                *sent = Instant::now();
                stream.write_all(&request).expect("a peer that reads");
            }
            poller.modify(&*stream, Event::readable(event.key)).expect("a poller");
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    for (stream, ..) in &conns {
        poller.delete(stream).expect("a poller");
    }
    latencies.sort_unstable();
    let at = |share: f64| u64::from(latencies[((latencies.len() - 1) as f64 * share) as usize]);
    Load { per_second: latencies.len() as f64 / seconds, p50_us: at(0.5), p99_us: at(0.99) }
}

#[expect(unsafe_code, reason = "polling wants the caller's word that the socket is deleted before it is dropped")]
fn register(poller: &Poller, stream: &TcpStream, key: usize) {
    // SAFETY: `load` deletes every socket from the poller before it drops it.
    unsafe { poller.add(stream, Event::readable(key)) }.expect("a poller");
}

fn is_whole(buffer: &[u8]) -> bool {
    let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    let length =
        head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
    length.is_some_and(|length| buffer.len() >= end + 4 + length)
}

/// nginx with a fixed answer, where it is installed.
pub fn nginx(directory: &Path) -> Option<(NginxGuard, String)> {
    let program =
        ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/bin/nginx"].iter().find(|path| Path::new(path).exists())?;
    let port = free_port()?;
    let config = directory.join("nginx.conf");
    let text = format!(
        "daemon off; pid {dir}/nginx.pid; error_log {dir}/error.log; worker_processes auto;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;\n\
         fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ default_type application/json;\n\
         return 200 '{{\"status\":\"ok\",\"ws_enabled\":true}}'; }} }} }}\n",
        dir = directory.display()
    );
    std::fs::write(&config, text).ok()?;
    let child = Command::new(program).arg("-c").arg(&config).stderr(Stdio::null()).spawn().ok()?;
    let address = format!("127.0.0.1:{port}");
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(&address).is_err() {
        if Instant::now() > deadline {
            return None;
        }
    }
    Some((NginxGuard(child), address))
}

fn free_port() -> Option<u16> {
    Some(std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port())
}

/// Ends nginx when dropped.
pub struct NginxGuard(Child);

impl Drop for NginxGuard {
    fn drop(&mut self) {
        // SIGTERM, so that its workers end with it.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// Whether this process was started in a role by [`Peer::role`].
pub fn role() -> Option<String> {
    std::env::var("BENCH_ROLE").ok()
}

/// A directory that is removed at the end.
pub fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().to_owned();
    (directory, path)
}
