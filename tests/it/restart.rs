//! The hub becomes a new process in place: same process id, same socket, no request lost (architecture 8; contract 12.4).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use holt::rt::Threads;
use serde_json::json;

use crate::support::hub::Builder;
use crate::support::{Hub, Model, PATIENCE, wait_until};

/// The process's own start is the same, its program's is not: the log says "listening" once more.
fn starts(hub: &Hub) -> usize {
    hub.log_count("listening on http://")
}

fn wait_for_start(hub: &Hub, number: usize) {
    wait_until("the hub has come up again", || (starts(hub) >= number).then_some(()));
}

#[test]
fn a_restart_keeps_process_address_and_data() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let client = hub.admin();
    let session = client.chat(json!({"message": "say before"})).json()["session_id"].as_str().unwrap().to_owned();
    let pid = hub.pid();
    // A setting that has to wait counts afterwards.
    let text = std::fs::read_to_string(dir.path().join("holt.toml")).unwrap();
    std::fs::write(dir.path().join("holt.toml"), text + "[kv]\nmax_value_bytes = 8\n").unwrap();
    let answer = client.post("/api/v1/server/restart", "");
    assert_eq!((answer.status, answer.json()), (200, json!({"status": "restarting"})));
    // The same port: who asks now waits until somebody answers.
    wait_for_start(&hub, 2);
    assert_eq!((hub.pid(), client.get("/api/v1/health").status), (pid, 200));
    let after = client.chat(json!({"message": "say after", "session_id": session}));
    assert_eq!(after.status, 200, "{}", after.text());
    let messages = client.get(&format!("/api/v1/sessions/{session}/messages")).text();
    assert!(messages.contains("say before") && messages.contains("say after"));
    let keys = client.new_key("kv", &["kv:write"]);
    assert_eq!(keys.send("PUT", "/api/v1/kv/default/k", r#"{"value":"123456789"}"#).status, 413);
    // Again, and then the usual end.
    assert_eq!(client.post("/api/v1/server/restart", "").status, 200);
    wait_for_start(&hub, 3);
    assert_eq!(client.get("/api/v1/health").status, 200);
    let mut hub = hub;
    hub.signal("TERM");
    assert!(hub.wait().success());
}

#[test]
fn a_stop_during_a_restart_is_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(dir.path());
    let client = hub.admin();
    assert_eq!(client.post("/api/v1/server/restart", "").status, 200);
    hub.signal("TERM");
    // Either before the new process begins, or its own first signal.
    hub.wait();
}

/// One connection of a client that keeps asking. A request may only fail in one way: the connection, used before, was
/// ended cleanly before a byte of an answer; the request is sent again then.
struct Asker {
    address: String,
    stream: Option<BufReader<TcpStream>>,
    is_used: bool,
    keeps: bool,
    retried: usize,
}

impl Asker {
    fn ask(&mut self) -> Result<(), String> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(&self.address).map_err(|error| format!("connect: {error}"))?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            self.stream = Some(BufReader::new(stream));
            self.is_used = false;
        }
        let stream = self.stream.as_mut().unwrap();
        let request = b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        let sent = stream.get_mut().write_all(request);
        let mut line = String::new();
        let read = sent.and_then(|()| stream.read_line(&mut line));
        match read {
            Ok(0) if self.is_used && line.is_empty() => {
                self.stream = None;
                self.retried += 1;
                return self.ask();
            }
            Ok(_) if line.starts_with("HTTP/1.1 200 ") => {}
            Ok(_) => return Err(format!("answer {line:?}, used before: {}", self.is_used)),
            Err(error) => return Err(format!("{error}, used before: {}", self.is_used)),
        }
        let (mut length, mut closes) = (0, !self.keeps);
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).map_err(|error| format!("head: {error}"))?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            closes |= line == "connection: close";
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).map_err(|error| format!("body: {error}"))?;
        self.is_used = true;
        if closes {
            self.stream = None;
        }
        Ok(())
    }
}

#[test]
fn no_request_is_lost_while_the_hub_reloads_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let client = hub.admin();
    let (is_over, n_asked, n_retried) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (failed_tx, failed_rx) = crossbeam_channel::bounded(64);
    let threads = Threads::new();
    for number in 0..24 {
        let (is_over, n_asked, n_retried) = (Arc::clone(&is_over), Arc::clone(&n_asked), Arc::clone(&n_retried));
        let failed_tx = failed_tx.clone();
        // Two of three keep their connection, the others make one for each request.
        let keeps = number % 3 > 0;
        let mut asker = Asker { address: hub.address.clone(), stream: None, is_used: false, keeps, retried: 0 };
        threads
            .spawn("asker", 256 * 1024, move || {
                while !is_over.load(Ordering::SeqCst) {
                    if let Err(error) = asker.ask() {
                        let _ = failed_tx.try_send(error);
                        return;
                    }
                    n_asked.fetch_add(1, Ordering::SeqCst);
                }
                n_retried.fetch_add(asker.retried, Ordering::SeqCst);
            })
            .unwrap();
    }
    let more = |count: usize| {
        let goal = n_asked.load(Ordering::SeqCst) + count;
        wait_until("requests are answered", || {
            (n_asked.load(Ordering::SeqCst) >= goal || !failed_rx.is_empty()).then_some(())
        });
    };
    for round in 0..3 {
        more(500);
        assert_eq!(client.post("/api/v1/server/reload", "").status, 200);
        hub.signal("HUP");
        more(200);
        assert_eq!(client.post("/api/v1/server/restart", "").status, 200);
        wait_for_start(&hub, round + 2);
    }
    more(500);
    is_over.store(true, Ordering::SeqCst);
    assert!(threads.join_all(PATIENCE).is_empty());
    let failed: Vec<String> = failed_rx.try_iter().collect();
    assert!(failed.is_empty(), "{failed:?}");
    // Clients that do not pause are told in time that a connection ends.
    assert_eq!(n_retried.load(Ordering::SeqCst), 0, "of {} requests", n_asked.load(Ordering::SeqCst));
}
