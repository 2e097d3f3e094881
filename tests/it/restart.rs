//! The hub becomes a new process in place: same process id, same socket, no request lost (architecture 8; contract 12.4).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use holt::rt::Threads;
use serde_json::{Value, json};

use crate::support::http::{Answer, Client, read_answer};
use crate::support::hub::Builder;
use crate::support::{Hub, Model, PATIENCE, tls, wait_until};

/// The process's own start is the same, its program's is not: the log says "listening" once more.
fn starts(hub: &Hub) -> usize {
    hub.log_count("listening on http")
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

/// What the clients of a test may do.
const SCOPES: &[&str] = &["admin", "chat", "sessions:read", "kv:read", "kv:write"];

/// A socket with or without TLS.
trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// One client that keeps asking. What it asks may only go wrong in one way: the connection, used before, was ended
/// cleanly before a byte of an answer; it is asked again then.
struct Asker {
    client: Client,
    number: usize,
    stream: Option<BufReader<Box<dyn Wire>>>,
    is_used: bool,
    keeps: bool,
    retried: usize,
    /// Values that were taken, messages that were answered.
    n_put: usize,
    n_said: usize,
}

impl Asker {
    fn new(client: &Client, number: usize) -> Self {
        // Two of three keep their connection, the others make one for each request.
        let (client, keeps) = (client.clone(), !number.is_multiple_of(3));
        // Every second one takes its turns as a stream.
        let client = if number.is_multiple_of(2) { client.with("Accept", "text/event-stream") } else { client };
        Self { client, number, stream: None, is_used: false, keeps, retried: 0, n_put: 0, n_said: 0 }
    }

    fn dial(&self) -> Box<dyn Wire> {
        match &self.client.tls {
            Some(config) => Box::new(tls::dial(&self.client.address, config)),
            None => {
                let stream = TcpStream::connect(&self.client.address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                Box::new(stream)
            }
        }
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> Answer {
        if self.stream.is_none() {
            self.stream = Some(BufReader::with_capacity(4096, self.dial()));
            self.is_used = false;
        }
        let stream = self.stream.as_mut().unwrap();
        let request = self.client.head(method, path, body) + body;
        let sent = stream.get_mut().write_all(request.as_bytes()).and_then(|()| stream.get_mut().flush());
        let is_over = match sent.and_then(|()| stream.fill_buf().map(<[u8]>::is_empty)) {
            Ok(is_over) => is_over,
            Err(error) => panic!("{method} {path}: {error}, used before: {}", self.is_used),
        };
        if is_over {
            assert!(self.is_used, "{method} {path}: nothing came on a new connection");
            self.stream = None;
            self.retried += 1;
            return self.ask(method, path, body);
        }
        let answer = read_answer(stream, false);
        self.is_used = true;
        // A stream of events is the last of its connection.
        let is_last = answer.header("connection") == "close" || answer.header("content-type") == "text/event-stream";
        if !self.keeps || is_last {
            self.stream = None;
        }
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        answer
    }

    /// One thing of each kind: looks, writes that last, turns as JSON and as a stream.
    fn round(&mut self) {
        let (number, kv) = (self.number, format!("/api/v1/kv/default/k{}", self.number));
        self.ask("GET", "/api/v1/health", "");
        self.ask("GET", "/api/v1/sessions", "");
        self.ask("PUT", &kv, &json!({"value": format!("v{}", self.n_put + 1)}).to_string());
        self.n_put += 1;
        let kept = self.ask("GET", &kv, "").json();
        assert_eq!(kept["value"], format!("v{}", self.n_put), "{kept}");
        self.ask("GET", "/", "");
        // Turns cost the most: a few of the clients do nothing else.
        if number < 4 {
            let text = format!("say {} of {number}", self.n_said + 1);
            let wish = json!({"message": text, "session_id": format!("s{number}")});
            let answer = self.ask("POST", "/api/v1/chat", &wish.to_string());
            assert!(answer.text().contains(&text[4..]), "{}", answer.text());
            assert!(number % 2 > 0 || answer.events().last().unwrap()["type"] == "done", "{}", answer.text());
            self.n_said += 1;
        }
    }
}

/// What the clients of a test did, together.
#[derive(Default)]
struct Tally {
    is_over: AtomicBool,
    n_rounds: AtomicUsize,
    n_retried: AtomicUsize,
    n_said: [AtomicUsize; 4],
}

/// Lets `count` clients ask while `disturb` does what must not be noticed; it is handed a wait for more requests.
fn nothing_is_lost(hub: &Hub, client: &Client, count: usize, disturb: impl FnOnce(&dyn Fn(usize))) {
    let tally = Arc::new(Tally::default());
    let (failed_tx, failed_rx) = crossbeam_channel::bounded(64);
    let threads = Threads::new();
    for number in 0..count {
        let (tally, failed_tx, mut asker) = (Arc::clone(&tally), failed_tx.clone(), Asker::new(client, number));
        let work = move || {
            while !tally.is_over.load(Ordering::SeqCst) {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| asker.round())) {
                    let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned());
                    let _ = failed_tx.try_send(text);
                    return;
                }
                tally.n_rounds.fetch_add(1, Ordering::SeqCst);
            }
            tally.n_retried.fetch_add(asker.retried, Ordering::SeqCst);
            if let Some(said) = tally.n_said.get(number) {
                said.store(asker.n_said, Ordering::SeqCst);
            }
        };
        threads.spawn("asker", 512 * 1024, work).unwrap();
    }
    disturb(&|more: usize| {
        let goal = tally.n_rounds.load(Ordering::SeqCst) + more;
        wait_until("requests are answered", || {
            (tally.n_rounds.load(Ordering::SeqCst) >= goal || !failed_rx.is_empty()).then_some(())
        });
    });
    tally.is_over.store(true, Ordering::SeqCst);
    assert!(threads.join_all(PATIENCE).is_empty());
    let failed: Vec<String> = failed_rx.try_iter().collect();
    assert!(failed.is_empty(), "{failed:?}\n{}", hub.log_tail());
    // Clients that do not pause are told in time that a connection ends.
    assert_eq!(tally.n_retried.load(Ordering::SeqCst), 0, "in {} rounds", tally.n_rounds.load(Ordering::SeqCst));
    // Every message was taken once, and no turn was cut short.
    let db = hub.database();
    for (number, said) in tally.n_said.iter().enumerate() {
        let rows = "SELECT count(*) FROM messages WHERE conversation_id = ?1 AND role = ?2";
        for role in ["user", "assistant"] {
            let n: i64 = db.query_row(rows, [&format!("s{number}"), role], |row| row.get(0)).unwrap();
            assert_eq!(n, said.load(Ordering::SeqCst) as i64, "{role} of s{number}");
        }
    }
}

#[test]
fn no_request_is_lost_while_the_hub_reloads_and_restarts() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let client = hub.admin().new_key("load", SCOPES);
    nothing_is_lost(&hub, &client, 16, |more| {
        for round in 0..3 {
            more(100);
            assert_eq!(client.post("/api/v1/server/reload", "").status, 200);
            hub.signal("HUP");
            more(50);
            assert_eq!(client.post("/api/v1/server/restart", "").status, 200);
            wait_for_start(&hub, round + 2);
        }
        more(100);
    });
}

#[test]
fn nor_with_tls_and_new_certificates() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).tls("hub.pem", "hub.key").start();
    let config = Arc::new(tls::strict(rustls::ALL_VERSIONS));
    let client = hub.admin().new_key("load", SCOPES).with_tls(&config);
    nothing_is_lost(&hub, &client, 8, |more| {
        for round in 0..2 {
            more(30);
            let (cert, key) = if round % 2 == 0 { ("rsa.pem", "rsa.key") } else { ("hub.pem", "hub-sec1.key") };
            tls::replace(dir.path(), cert, key);
            assert_eq!(client.post("/api/v1/server/reload", "").status, 200);
            more(20);
            assert_eq!(client.post("/api/v1/server/restart", "").status, 200);
            wait_for_start(&hub, round + 2);
        }
        more(30);
    });
}

#[test]
fn a_turn_in_flight_ends_before_a_restart_and_a_stop_does_not_wait_for_it() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let mut hub = Builder::new(dir.path()).model(&model).start();
    let client = hub.admin();
    let ask = |client: &Client, wish: Value| client.open("POST", "/api/v1/chat", &wish.to_string());
    let mut plain = ask(&client, json!({"message": "gate 2 2", "session_id": "a"}));
    let streaming = client.with("Accept", "text/event-stream");
    let mut streamed = ask(&streaming, json!({"message": "gate 2 2", "session_id": "b"}));
    wait_until("both turns run", || (model.requests().len() == 2).then_some(()));
    model.wait_at_gate();
    assert_eq!(client.post("/api/v1/server/restart", "").status, 200);
    wait_until("the hub waits for them", || hub.log_contains("restarting").then_some(()));
    model.open_gate();
    let answer = read_answer(&mut plain, false);
    assert_eq!((answer.status, answer.text().contains("w4")), (200, true), "{}", answer.text());
    let events = read_answer(&mut streamed, false).events();
    assert_eq!(events.last().unwrap()["type"], "done", "{events:?}");
    wait_for_start(&hub, 2);
    // A model that never answers: the signal ends the wait for it.
    let _silent = ask(&client, json!({"message": "silent", "session_id": "c"}));
    wait_until("the turn runs", || (model.requests().len() == 3).then_some(()));
    assert_eq!(client.post("/api/v1/server/restart", "").status, 200);
    hub.signal("TERM");
    assert!(hub.wait().success());
}
