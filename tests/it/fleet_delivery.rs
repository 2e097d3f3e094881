//! Alerts through cut lines, killed hubs and killed agents: none is lost, none is stored twice.
//!
//! The agent's half is this very test in a process of its own, so that it can be killed like a real one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use holt::alert::{Event, Level, key_of};
use holt::fleet::link::{HubAddress, Link, LinkSettings, StateDir, Timers};
use holt::rt::Threads;

use crate::support::hub::Builder;
use crate::support::{PATIENCE, wait_until};

const CHILD: &str = "HOLT_DELIVERY_CHILD";
const TOKEN: &str = "shared-token-of-this-test-0123456789";
/// How many alerts; `HOLT_DELIVERED_ALERTS` asks for more.
const ALERTS: u64 = 5_000;

fn event(number: u64) -> Event {
    let labels: BTreeMap<String, String> =
        [("check", "test::delivery".to_owned()), ("target", format!("thing-{number}"))]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
    Event {
        time: 1_774_170_914 + i64::try_from(number).unwrap(),
        level: Level::Warning,
        key: key_of(&labels),
        labels,
        attrs: BTreeMap::new(),
        description: format!("alert {number}"),
        format: String::new(),
    }
}

/// The way from the agent to the hub: may be cut at any moment, and leads to wherever the hub is now.
struct Line {
    address: String,
    open: Arc<Mutex<Vec<TcpStream>>>,
    threads: Threads,
    listener: TcpListener,
}

impl Line {
    fn to(hub: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let threads = Threads::new();
        let (accepting, known, hub, own) =
            (listener.try_clone().unwrap(), Arc::clone(&open), hub.to_owned(), threads.clone());
        threads
            .spawn("line", 64 * 1024, move || {
                for agent in accepting.incoming().map_while(Result::ok) {
                    let Ok(hub) = TcpStream::connect(&hub) else { continue };
                    let mut open = known.lock().unwrap();
                    open.retain(|stream| stream.peer_addr().is_ok());
                    open.push(agent.try_clone().unwrap());
                    open.push(hub.try_clone().unwrap());
                    drop(open);
                    for (from, to) in [(agent.try_clone(), hub.try_clone()), (hub.try_clone(), agent.try_clone())] {
                        let (from, to) = (from.unwrap(), to.unwrap());
                        own.spawn("line-half", 64 * 1024, move || pass(from, to)).unwrap();
                    }
                }
            })
            .unwrap();
        Self { address, open, threads, listener }
    }

    /// Both sides lose the connection in the middle of whatever they say.
    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // A listener that is shut down ends its accepting thread.
        let _ = socket_shutdown(&self.listener);
        self.cut();
        self.threads.join_all(PATIENCE);
    }
}

fn socket_shutdown(listener: &TcpListener) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    TcpStream::connect(listener.local_addr()?).map(drop)
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// The agent: says the number of every alert that it has taken.
struct Agent {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Agent {
    fn start(line: &Line, state: &Path, from: u64, to: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "fleet_delivery::nothing_is_lost_and_nothing_doubled", "--nocapture"])
            .env(CHILD, format!("{} {} {from} {to}", line.address, state.display()))
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next alert that the agent has taken; None at its end.
    fn taken(&mut self) -> Option<u64> {
        loop {
            let line = self.lines.next()?.ok()?;
            if let Some(number) = line.strip_prefix("taken ") {
                return Some(number.parse().unwrap());
            }
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same numbers in every run: a failure can be looked at again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// The agent's half: takes alerts until it has all or is killed, then waits until the hub has them.
fn be_the_agent(told: &str) {
    let mut words = told.split(' ');
    let mut word = || words.next().unwrap().to_owned();
    let (hub, state) = (word(), word());
    let (from, to): (u64, u64) = (word().parse().unwrap(), word().parse().unwrap());
    let settings = LinkSettings {
        address: HubAddress::parse(&hub).unwrap(),
        ca_file: None,
        token: Some(TOKEN.to_owned()),
        join: None,
        labels: BTreeMap::new(),
        plugins: Vec::new(),
    };
    // Waits between attempts are a tenth: the hub is gone often here.
    let timers = Timers { wait_factor: 0.1, ..Timers::default() };
    let link = Link::new(StateDir::open(Path::new(&state)).unwrap(), settings, "test", timers).unwrap();
    let threads = Threads::new();
    let running = link.clone();
    threads.spawn("link", 512 * 1024, move || running.run_forever()).unwrap();
    let mut out = std::io::stdout().lock();
    for number in from..to {
        // A spool that is full drops what is oldest: as long as anything comes, it is given time.
        while link.waiting_events() > 5_000 {
            std::thread::yield_now();
        }
        assert!(link.send_alert_event(&event(number)));
        writeln!(out, "taken {number}").unwrap();
    }
    out.flush().unwrap();
    while link.waiting_events() > 0 {
        std::thread::yield_now();
    }
    link.stop();
    threads.join_all(PATIENCE);
}

#[test]
fn nothing_is_lost_and_nothing_doubled() {
    if let Ok(told) = std::env::var(CHILD) {
        be_the_agent(&told);
        return;
    }
    let alerts = std::env::var("HOLT_DELIVERED_ALERTS").map_or(ALERTS, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let config = format!("[fleet]\nshared_token = \"{TOKEN}\"");
    let mut hub = Builder::new(dir.path()).config(&config).start();
    hub.admin();
    let address = hub.address.clone();
    let line = Line::to(&address);
    let state = dir.path().join("machine");
    let mut dice = Dice(4);
    let mut agent = Agent::start(&line, &state, 0, alerts);
    let (mut taken, mut kills, mut cuts) = (0, [0, 0], 0);
    while taken < alerts {
        for _ in 0..dice.below(alerts / 25) {
            match agent.taken() {
                Some(number) => taken = number + 1,
                None => break,
            }
        }
        match dice.below(4) {
            0 => {
                hub.kill();
                kills[0] += 1;
                hub = Builder::new(dir.path()).config(&config).listen(&address).start();
            }
            1 if taken < alerts => {
                agent.kill();
                kills[1] += 1;
                agent = Agent::start(&line, &state, taken, alerts);
            }
            _ => {
                line.cut();
                cuts += 1;
            }
        }
    }
    let conn = hub.database();
    let count = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap_or(-1);
    let wanted = i64::try_from(alerts).unwrap();
    // As long as it gets on it is fine, however slow this machine is.
    let mut known = -1;
    while known < wanted {
        let before = known;
        known = wait_until("more alerts are stored", || {
            Some(count("SELECT count(*) FROM alert_events WHERE machine_id <> ''")).filter(|count| *count > before)
        });
    }
    println!("{alerts} alerts through {cuts} cuts, {} hubs and {} agents killed", kills[0], kills[1]);
    assert_eq!(count("SELECT count(DISTINCT alert_key) FROM alert_events WHERE machine_id <> ''"), wanted);
    assert_eq!(known, wanted, "stored twice");
    assert_eq!(
        count("SELECT coalesce(max(events), 0) FROM alerts WHERE check_name = 'test::delivery'"),
        1,
        "counted twice"
    );
    assert!(kills[0] > 0 && kills[1] > 0 && cuts > 0);
}
