//! Many connections, hostile ones, too few descriptors, and the end by signals.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::http::{exchange, raw, read_answer, read_to_end, statuses};
use crate::support::hub::Builder;
use crate::support::{Hub, Model, wait_until};

const HEALTH: &str = "GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[track_caller]
fn healthy(hub: &Hub) {
    assert_eq!(hub.client().get("/api/v1/health").status, 200);
    assert!(!hub.log_contains("panicked"), "{}", hub.log_tail());
}

#[test]
fn thousands_of_silent_and_slow_clients_keep_nobody_from_being_served() {
    let limit = holt::sys::raise_descriptor_limit();
    let silent = usize::try_from(limit.saturating_sub(1000)).unwrap().min(2000);
    assert!(silent >= 500, "this test needs more descriptors than {limit}");
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let admin = hub.admin();
    let mut kept = BufReader::new(raw(&hub.address));
    let request =
        format!("GET /api/v1/keys HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n", admin.key());
    kept.get_mut().write_all(request.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut kept, false).status, 200);
    let silent: Vec<TcpStream> = (0..silent).map(|_| raw(&hub.address)).collect();
    let (over_tx, over_rx) = crossbeam_channel::bounded::<()>(0);
    std::thread::scope(|scope| {
        let address = hub.address.clone();
        scope.spawn(move || {
            let mut slow: Vec<TcpStream> = (0..200).map(|_| raw(&address)).collect();
            let mut bytes =
                format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "y".repeat(10_000)).into_bytes().into_iter();
            loop {
                let byte = bytes.next().unwrap();
                for stream in &mut slow {
                    // The hub may have let go of this one: another takes its place.
                    if stream.write_all(&[byte]).is_err() {
                        *stream = raw(&address);
                    }
                }
                if over_rx.recv_timeout(Duration::from_secs(1))
                    == Err(crossbeam_channel::RecvTimeoutError::Disconnected)
                {
                    return;
                }
            }
        });
        for number in 0..300 {
            assert_eq!(hub.client().get("/api/v1/health").status, 200, "{number}");
            assert_eq!(admin.get("/api/v1/keys").status, 200, "{number}");
            // One that has shown who it is stays, whoever else comes.
            kept.get_mut().write_all(request.as_bytes()).unwrap();
            assert_eq!(read_answer(&mut kept, false).status, 200, "{number}");
        }
        drop(over_tx);
    });
    drop(silent);
    healthy(&hub);
}

#[test]
fn silent_connections_make_room_and_busy_ones_do_not() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).config("[http]\nconnections_max = 8").start();
    let admin = hub.admin();
    let mut silent: Vec<TcpStream> = (0..8).map(|_| raw(&hub.address)).collect();
    healthy(&hub);
    let gone = &mut silent[0];
    assert_eq!(read_to_end(gone), "", "the oldest silent one goes first");
    drop(silent);
    // Idle ones go as well, but only when there is nothing else.
    let mut idle: Vec<BufReader<TcpStream>> = Vec::new();
    for _ in 0..8 {
        let mut stream = BufReader::new(raw(&hub.address));
        stream.get_mut().write_all(HEALTH.as_bytes()).unwrap();
        assert_eq!(read_answer(&mut stream, false).status, 200);
        idle.push(stream);
    }
    healthy(&hub);
    assert_eq!(read_to_end(&mut idle[0]), "", "the oldest idle one goes first");
    drop(idle);
    // Requests in work stay: whoever comes then is told to come back.
    let body = json!({"message": "gate 0 1"}).to_string();
    let mut busy: Vec<BufReader<TcpStream>> = Vec::new();
    while busy.len() < 8 {
        let stream = admin.open("POST", "/api/v1/chat", &body);
        let asked = wait_until("the turn has asked the model", || {
            let asked = model.requests().len() > busy.len();
            (asked || has_answer(&stream)).then_some(asked)
        });
        // Otherwise a worker was not yet done with a connection from above, and the hub was full indeed.
        if asked {
            busy.push(stream);
        }
    }
    let text = exchange(&hub.address, HEALTH.as_bytes());
    assert_eq!(statuses(&text), [503], "{text}");
    assert!(text.contains("Retry-After: ") && text.contains("\"code\":\"busy\""), "{text}");
    model.open_gate();
    for stream in &mut busy {
        assert_eq!(read_answer(stream, false).status, 200);
    }
    healthy(&hub);
}

fn has_answer(stream: &BufReader<TcpStream>) -> bool {
    stream.get_ref().set_nonblocking(true).unwrap();
    let answered = stream.get_ref().peek(&mut [0]).is_ok();
    stream.get_ref().set_nonblocking(false).unwrap();
    answered
}

#[test]
fn clients_that_never_read_hold_no_worker() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page");
    std::fs::create_dir(&page).unwrap();
    std::fs::write(page.join("index.html"), "page").unwrap();
    // More than the system buffers for one connection.
    let large = 16 << 20;
    std::fs::write(page.join("large.bin"), vec![b'x'; large]).unwrap();
    let config = format!("[api]\nweb_dir = '{}'\n[http]\nworkers = 2\nconnections_max = 7", page.display());
    let hub = Builder::new(dir.path()).config(&config).start();
    let mut unread: Vec<BufReader<TcpStream>> = (0..5).map(|_| hub.client().open("GET", "/large.bin", "")).collect();
    // Each has its head, so each was with a worker.
    for stream in &mut unread {
        let (status, _) = crate::support::http::read_head(stream);
        assert_eq!(status, 200);
    }
    for _ in 0..20 {
        healthy(&hub);
    }
    let mut body = Vec::new();
    unread.pop().unwrap().take(16 << 20).read_to_end(&mut body).unwrap();
    assert!(body.len() == large && body.iter().all(|byte| *byte == b'x'), "{} bytes", body.len());
    // When all places are taken by strangers that do not read, they make room as well.
    for _ in 0..4 {
        unread.push(hub.client().open("GET", "/large.bin", ""));
        assert_eq!(crate::support::http::read_head(unread.last_mut().unwrap()).0, 200);
        healthy(&hub);
    }
}

#[test]
fn a_hub_without_descriptors_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let builder = Builder::new(dir.path());
    let hub = Hub::spawn(builder.command_after("ulimit -n 64"), dir.path().to_owned());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", hub.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["64", "64"]);
    let admin = hub.admin();
    let held: Vec<TcpStream> = (0..200).map(|_| raw(&hub.address)).collect();
    wait_until("the hub has run out of descriptors", || hub.log_contains("accept: ").then_some(()));
    // The silent ones make room, one after another: the hub goes on serving meanwhile.
    healthy(&hub);
    drop(held);
    for _ in 0..20 {
        healthy(&hub);
        assert_eq!(admin.get("/api/v1/keys").status, 200);
    }
    // The same with sockets that are not shed: as many as there are descriptors for.
    let sockets: Vec<_> = (0..64).map_while(|_| holt_socket(&admin)).collect();
    assert!(sockets.len() >= 10, "{}", sockets.len());
    drop(sockets);
    wait_until("the hub serves again", || {
        let mut stream = TcpStream::connect(&hub.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(HEALTH.as_bytes()).ok()?;
        let mut first = [0; 12];
        stream.read_exact(&mut first).ok()?;
        (&first == b"HTTP/1.1 200").then_some(())
    });
    healthy(&hub);
}

/// A WebSocket, or None when the hub has no place for it within some seconds.
fn holt_socket(client: &crate::support::Client) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(&client.address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let request = format!(
        "GET /api/v1/ws?token={} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        client.key()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut first = [0; 12];
    stream.read_exact(&mut first).ok()?;
    (&first == b"HTTP/1.1 101").then_some(stream)
}

/// A small generator of repeatable noise (xorshift64).
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % below.max(1)
    }
}

fn mutate(noise: &mut Noise, bytes: &mut Vec<u8>) {
    for _ in 0..=noise.next(4) {
        let at = noise.next(bytes.len());
        match noise.next(7) {
            0 => bytes[at] = u8::try_from(noise.next(256)).unwrap(),
            1 => bytes[at] ^= 1 << noise.next(8),
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, *b"\r\n\0 :;,%/?#\xff{}\"9".get(noise.next(17)).unwrap_or(&b'0')),
            4 => bytes.truncate(at.max(1)),
            5 => {
                let piece = bytes[at..].to_vec();
                bytes.extend_from_slice(&piece);
            }
            _ => {
                let line =
                    bytes.iter().skip(at).position(|byte| *byte == b'\n').map_or(bytes.len(), |end| at + end + 1);
                let piece = bytes[at..line].to_vec();
                bytes.splice(at..at, piece);
            }
        }
        if bytes.is_empty() {
            bytes.push(b'x');
        }
    }
}

#[test]
fn three_thousand_mutated_requests_do_not_harm_the_hub() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let key = hub.admin().key();
    let seeds: Vec<Vec<u8>> = [
        HEALTH.to_owned(),
        format!("GET /api/v1/keys?x=%20&y=+ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n{HEALTH}"),
        format!("POST /api/v1/keys HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Length: 31\r\n\r\n{{\"name\":\"k\",\"scopes\":[\"health\"]}}"),
        "POST /api/v1/setup/account HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\n{\"pin\":\"123\"}".to_owned(),
        "POST /auth/login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nT: v\r\n\r\n".to_owned(),
        "GET /auth/session HTTP/1.1\r\nHost: localhost\r\nCookie: dk_session=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA; a=b\r\nExpect: 100-continue\r\n\r\n".to_owned(),
        "GET //a/../b/%2e%2e/index.html HTTP/1.1\r\nHost: [::1]:80\r\nRange: bytes=0-1\r\nAccept-Encoding: gzip;q=0\r\n\r\n".to_owned(),
        format!("GET /api/v1/sessions/a%2Fb/messages HTTP/1.0\r\nConnection: keep-alive\r\nAuthorization: Bearer {key}\r\n\r\n"),
        format!("GET /api/v1/ws?token={key} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n\u{1}\0\0\0\0{{}}"),
    ]
    .map(String::into_bytes)
    .to_vec();
    let mut noise = Noise(0x005e_ed0f_401f);
    let mut answered = 0;
    for number in 0..3000 {
        let mut request = seeds[noise.next(seeds.len())].clone();
        mutate(&mut noise, &mut request);
        let mut stream = raw(&hub.address);
        let _ = stream.write_all(&request); // the hub may refuse it in the middle
        let _ = stream.shutdown(Shutdown::Write);
        let text = read_to_end(&mut stream);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 "), "input {number}: {request:?}\n{text}");
        assert!(!text.starts_with("HTTP/1.1 500"), "input {number}: {:?}\n{text}", String::from_utf8_lossy(&request));
        answered += usize::from(!text.is_empty());
    }
    assert!(answered > 1000, "{answered}");
    healthy(&hub);
}

#[test]
fn a_stop_does_not_wait_for_idle_connections() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::start(dir.path());
    let mut idle: Vec<BufReader<TcpStream>> = (0..20).map(|_| BufReader::new(raw(&hub.address))).collect();
    for stream in &mut idle[..10] {
        stream.get_mut().write_all(HEALTH.as_bytes()).unwrap();
        assert_eq!(read_answer(stream, false).status, 200);
    }
    idle[15].get_mut().write_all(b"GET / HT").unwrap();
    let begin = Instant::now();
    hub.signal("TERM");
    assert_eq!(hub.wait().code(), Some(0));
    assert!(begin.elapsed() < holt::limits::STOP_DRAIN, "{:?}", begin.elapsed());
    for stream in &mut idle {
        assert_eq!(read_to_end(stream), "");
    }
}

/// Waits until the hub has taken notice of a signal: it accepts nobody any more.
fn wait_until_stopping(hub: &Hub) {
    wait_until("the hub takes no more connections", || TcpStream::connect(&hub.address).is_err().then_some(()));
}

#[test]
fn a_stop_lets_answers_in_work_end() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let mut hub = Builder::new(dir.path()).model(&model).start();
    let mut answer = hub.admin().open("POST", "/api/v1/chat", &json!({"message": "gate 1 1"}).to_string());
    model.wait_at_gate();
    hub.signal("TERM");
    wait_until_stopping(&hub);
    model.open_gate();
    let answer = read_answer(&mut answer, false);
    assert_eq!((answer.status, answer.header("connection")), (200, "close"), "{}", answer.text());
    assert_eq!(hub.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let mut hub = Builder::new(dir.path()).model(&model).start();
    let answer = hub.admin().open("POST", "/api/v1/chat", &json!({"message": "gate 1 1"}).to_string());
    model.wait_at_gate();
    hub.signal("TERM");
    wait_until_stopping(&hub);
    hub.signal("TERM");
    assert_eq!(hub.wait().code(), Some(130));
    drop(answer);
    // What was cut off is told to whoever asks next.
    let hub = Builder::new(dir.path()).start();
    healthy(&hub);
}
