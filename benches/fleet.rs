//! What a fleet costs the hub: memory and processor time of 200 connected machines, and how quickly alerts are stored.
#![allow(
    clippy::pedantic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench prints what it measured, and paces itself"
)]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use holt::fleet::link::{HubAddress, Link, LinkSettings, StateDir, Timers};
use holt::rt::Threads;
use serde_json::{Value, json};
use support::{Peer, directory, key};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

const AGENTS: usize = 200;
/// How often a machine says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(30);
const BATCH: usize = 100;
const BATCHES: usize = 500;
const TOKEN: &str = "bench-shared-token-0123456789abcdef";

fn main() {
    let (_guard, dir) = directory();
    std::fs::write(dir.join("holt.toml"), format!("[fleet]\nshared_token = \"{TOKEN}\"\n")).expect("a file");
    costs(&dir);
    restart(&dir);
}

fn start(dir: &Path, address: &str) -> Peer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holt"));
    command.args(["serve", "--listen", address, "--config"]).arg(dir.join("holt.toml"));
    command.arg("--data-dir").arg(dir.join("data"));
    Peer::start(command)
}

fn costs(dir: &Path) {
    let hub = start(dir, "127.0.0.1:0");
    key(&hub.address);
    // One before the measurement: what the first connection alone costs is not each machine's.
    let first = Agent::connect(&hub.address, AGENTS);
    let before = hub.kib("VmRSS:");
    let mut agents: Vec<Agent> = (0..AGENTS).map(|number| Agent::connect(&hub.address, number)).collect();
    for agent in &mut agents {
        agent.heartbeat(1);
    }
    agents.iter_mut().for_each(Agent::settle);
    let grown = hub.kib("VmRSS:").saturating_sub(before);
    println!("{:<52} {:>10.1} KiB", format!("memory, each of {AGENTS} machines"), grown as f64 / AGENTS as f64);

    let cpu = hub.cpu_ms();
    let begun = Instant::now();
    for (number, agent) in agents.iter_mut().enumerate() {
        let due = HEARTBEAT * u32::try_from(number).expect("few") / u32::try_from(AGENTS).expect("few");
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        agent.heartbeat(2);
    }
    std::thread::sleep(HEARTBEAT.saturating_sub(begun.elapsed()));
    let share = (hub.cpu_ms() - cpu) as f64 / begun.elapsed().as_millis() as f64 * 100.0;
    println!("{:<52} {share:>10.2} % of one core", format!("{AGENTS} machines, a heartbeat each 30 s"));

    let bare = bare_commits(dir);
    let begun = Instant::now();
    let each = BATCHES / AGENTS.min(BATCHES).min(20);
    let mut senders = agents.into_iter().take(20).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        for (number, agent) in senders.iter_mut().enumerate() {
            scope.spawn(move || (0..each).for_each(|batch| agent.alerts(number, batch)));
        }
    });
    let took = begun.elapsed();
    let stored = each * 20 * BATCH;
    println!(
        "{:<52} {:>10.0} /s, acknowledged  ({:.2} x bare commits of the same rows)",
        format!("{stored} alerts in batches of {BATCH}"),
        stored as f64 / took.as_secs_f64(),
        took.as_secs_f64() / (bare.as_secs_f64() * (each * 20) as f64 / BATCHES as f64)
    );
    drop(first);
}

/// A clean stop and a start of the hub, with real agents.
fn restart(dir: &Path) {
    let hub = start(dir, "127.0.0.1:0");
    let address = hub.address.clone();
    let threads = Threads::new();
    let links: Vec<Link> = (0..AGENTS)
        .map(|number| {
            let state = StateDir::open(&dir.join(format!("agent-{number}"))).expect("a directory");
            let settings = LinkSettings {
                address: HubAddress::parse(&address).expect("an address"),
                ca_file: None,
                token: Some(TOKEN.to_owned()),
                join: None,
                labels: BTreeMap::from([("from_hostname".to_owned(), format!("real-{number}"))]),
                plugins: Vec::new(),
            };
            let link = Link::new(state, settings, "bench", Timers::default()).expect("a link");
            let running = link.clone();
            threads.spawn("link", 256 * 1024, move || running.run_forever()).expect("a thread");
            link
        })
        .collect();
    wait(&links, true);
    hub.stop();
    wait(&links, false);
    let begun = Instant::now();
    let hub = start(dir, &address);
    // How many are back, every 20 ms.
    let mut seen = Vec::new();
    loop {
        let back = links.iter().filter(|link| link.is_registered()).count();
        seen.push((begun.elapsed(), back));
        if back == links.len() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let in_a_second = seen.iter().map(|(at, back)| {
        let before = seen.iter().rfind(|(earlier, _)| *earlier + Duration::from_secs(1) < *at);
        back - before.map_or(0, |(_, count)| *count)
    });
    println!(
        "{:<52} {:>10.1} s, at most {} in any second",
        format!("a clean restart: {AGENTS} agents are back after"),
        begun.elapsed().as_secs_f64(),
        in_a_second.max().unwrap_or(0)
    );
    links.iter().for_each(Link::stop);
    threads.join_all(Duration::from_secs(10));
    drop(hub);
}

fn wait(links: &[Link], registered: bool) {
    while links.iter().any(|link| link.is_registered() != registered) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same number of rows and commits, by SQLite alone.
fn bare_commits(dir: &Path) -> Duration {
    let mut conn = rusqlite::Connection::open(dir.join("bare.db")).expect("a database");
    conn.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
         CREATE TABLE events(machine TEXT, key TEXT, time INTEGER, status TEXT, labels TEXT, description TEXT,
         PRIMARY KEY(machine, key, time, status)) WITHOUT ROWID",
    )
    .expect("a table");
    let begun = Instant::now();
    for batch in 0..BATCHES {
        let tx = conn.transaction().expect("a transaction");
        for number in 0..BATCH {
            tx.prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, 'Warning', ?4, ?5)")
                .and_then(|mut statement| {
                    let key = format!("{:032x}", batch * BATCH + number);
                    statement.execute(rusqlite::params!["machine", key, 1_774_170_914, LABELS, "disk usage 92.3%"])
                })
                .expect("a row");
        }
        tx.commit().expect("a commit");
    }
    begun.elapsed()
}

const LABELS: &str = r#"{"check":"disk::space_usage","from_agent":"bench","from_plugin":"disk","target":"/data"}"#;

/// A machine, as simple as it can be.
struct Agent {
    socket: WebSocket<TcpStream>,
    sent: u64,
}

impl Agent {
    fn connect(address: &str, number: usize) -> Self {
        let mut stream = TcpStream::connect(address).expect("a listener");
        stream.set_nodelay(true).expect("a socket");
        write!(
            stream,
            "GET /api/v1/agent/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\nX-Agent-Token: {TOKEN}\r\n\
             X-Agent-Id: 00000000-0000-4000-8000-{number:012x}\r\nX-Proto-Version: 1\r\n\r\n"
        )
        .expect("a peer that reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        let config = WebSocketConfig::default().read_buffer_size(4096);
        let mut agent = Self { socket: WebSocket::from_raw_socket(stream, Role::Client, Some(config)), sent: 0 };
        let id = agent.send(
            "register",
            json!({
                "hostname": format!("pi-{number}"), "ip": "192.0.2.1", "os": "linux", "arch": "arm64",
                "labels": {"from_hostname": format!("pi-{number}"), "from_hostip": "192.0.2.1"},
                "plugins": ["cpu", "mem"], "agent_version": "bench", "uptime_sec": 1,
            }),
        );
        let ack = agent.read_ack(&id);
        assert_eq!(ack["ok"], true, "{ack}");
        agent
    }

    fn send(&mut self, kind: &str, payload: Value) -> String {
        self.sent += 1;
        let id = format!("m-{}", self.sent);
        let text = json!({"type": kind, "id": id, "payload": payload}).to_string();
        self.socket.send(Message::text(text)).expect("a peer that reads");
        id
    }

    fn heartbeat(&mut self, sessions: i64) {
        self.send(
            "heartbeat",
            json!({"active_sessions": sessions, "active_alerts": 0, "cpu_pct": 12.5, "mem_pct": 40.1}),
        );
    }

    /// Waits until everything sent was handled: a second registration is answered in its turn.
    fn settle(&mut self) {
        let id = self.send("register", json!({"hostname": "pi", "plugins": []}));
        self.read_ack(&id);
    }

    fn alerts(&mut self, agent: usize, batch: usize) {
        let events: Vec<Value> = (0..BATCH)
            .map(|number| {
                json!({
                    "event_time": 1_774_170_914 + number, "event_status": "Warning",
                    "alert_key": format!("{:032x}", (agent * 1_000_000) + batch * BATCH + number),
                    "labels": {"check": "disk::space_usage", "from_agent": "bench", "from_plugin": "disk",
                               "target": format!("/data/{batch}/{number}")},
                    "description": "disk usage 92.3% >= warning threshold 90.0%",
                })
            })
            .collect();
        let id = self.send("alert_events", json!({"events": events}));
        self.read_ack(&id);
    }

    fn read_ack(&mut self, id: &str) -> Value {
        loop {
            let message = self.socket.read().expect("a message");
            let Message::Text(text) = message else { continue };
            let value: Value = serde_json::from_str(&text).expect("JSON");
            if value["type"] == "ack" && value["ref_id"] == id {
                return value["payload"].clone();
            }
        }
    }
}
