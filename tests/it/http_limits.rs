//! Every limit of a request and of a connection, and the status it is answered with.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::http::{exchange, raw, read_answer, read_to_end, statuses};
use crate::support::hub::Builder;
use crate::support::{Answer, Hub, PATIENCE};

const HEALTH: &str = "GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n";
const LINE_BYTES: usize = 8 * 1024;
const HEAD_BYTES: usize = 16 * 1024;
const BODY_BYTES: usize = 1024 * 1024;

#[track_caller]
fn check(hub: &Hub, request: &str, expected: u16, code: &str) {
    let text = exchange(&hub.address, request.as_bytes());
    assert_eq!(statuses(&text), [expected], "{text}");
    if !code.is_empty() {
        assert!(text.contains(&format!("\"code\":\"{code}\"")), "{text}");
        assert!(text.contains("Content-Type: application/json\r\n"), "{text}");
        assert!(text.contains("X-Content-Type-Options: nosniff\r\n"), "{text}");
    }
}

#[test]
fn heads_have_their_limits() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let with =
        |lines: &str| format!("GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n");
    // As large as may be, and one byte more.
    let room = HEAD_BYTES - with("X: \r\n").len();
    check(&hub, &with(&format!("X: {}\r\n", "y".repeat(room))), 200, "");
    check(&hub, &with(&format!("X: {}\r\n", "y".repeat(room + 1))), 431, "head_too_large");
    check(&hub, &with(&"X: y\r\n".repeat(62)), 200, "");
    check(&hub, &with(&"X: y\r\n".repeat(63)), 431, "head_too_large");
    let line = |length: usize| {
        let path = "a".repeat(length - "GET /?".len() - " HTTP/1.1".len());
        format!("GET /?{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    };
    check(&hub, &line(LINE_BYTES), 200, "");
    check(&hub, &line(LINE_BYTES + 1), 414, "uri_too_long");
    check(&hub, &"A".repeat(LINE_BYTES + 100), 414, "uri_too_long");
}

#[test]
fn a_header_of_64_mib_costs_the_hub_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let before = hub.status_kib("VmRSS");
    let mut stream = raw(&hub.address);
    stream.write_all(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nX: ").unwrap();
    let chunk = vec![b'y'; 1 << 20];
    let sent = (0..64).take_while(|_| stream.write_all(&chunk).is_ok()).count();
    assert!(sent < 64, "the hub read all of it");
    assert_eq!(statuses(&read_to_end(&mut stream)), [431]);
    let peak = hub.status_kib("VmHWM");
    assert!(peak < before + 8 * 1024, "{before} KiB before, {peak} KiB at the most");
}

#[test]
fn bodies_have_their_limits_by_length_and_by_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).config("[http]\nbody_bytes_max = 4096").start();
    let post = |body: &str| {
        let head = "POST /auth/logout HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    check(&hub, &post(&"x".repeat(4096)), 200, "");
    check(&hub, &post(&"x".repeat(4097)), 413, "body_too_large");
    let chunked = |sizes: &[usize]| {
        let chunks: String = sizes.iter().map(|size| format!("{size:x}\r\n{}\r\n", "x".repeat(*size))).collect();
        let head =
            "POST /auth/logout HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n";
        format!("{head}\r\n{chunks}0\r\n\r\n")
    };
    check(&hub, &chunked(&[4000, 96]), 200, "");
    check(&hub, &chunked(&[4000, 97]), 413, "body_too_large");
    check(&hub, &chunked(&[1; 4097]), 413, "body_too_large");
    drop(hub);
    let hub = Hub::start(dir.path());
    check(&hub, &post(&"x".repeat(BODY_BYTES)), 413, "body_too_large");
}

#[test]
fn the_default_body_limit_is_a_mebibyte() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let post = |length: usize| {
        let head = "POST /auth/logout HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
        format!("{head}Content-Length: {length}\r\n\r\n{}", "x".repeat(length))
    };
    check(&hub, &post(BODY_BYTES), 200, "");
    check(&hub, &post(BODY_BYTES + 1), 413, "body_too_large");
}

#[test]
fn incomplete_bodies_together_have_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    // Twelve clients that stop one byte before the end of their mebibyte: not all of them are kept.
    let head = format!("POST /auth/logout HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    let body = vec![b'x'; BODY_BYTES - 1];
    let mut streams: Vec<TcpStream> = (0..12)
        .map(|_| {
            let mut stream = raw(&hub.address);
            stream.write_all(head.as_bytes()).unwrap();
            let _ = stream.write_all(&body); // may be refused in the middle
            stream
        })
        .collect();
    crate::support::wait_until("somebody is refused", || {
        streams.iter().find_map(|stream| {
            stream.set_nonblocking(true).unwrap();
            let refused = stream.peek(&mut [0]).is_ok_and(|count| count > 0);
            stream.set_nonblocking(false).unwrap();
            refused.then_some(())
        })
    });
    // Small requests do not suffer; those who were kept can finish.
    assert_eq!(hub.client().get("/api/v1/health").status, 200);
    let found: Vec<Answer> = streams
        .drain(..)
        .map(|mut stream| {
            let _ = stream.write_all(b"x"); // the refused ones are closed
            read_answer(&mut BufReader::new(stream), false)
        })
        .collect();
    let refused: Vec<&Answer> = found.iter().filter(|answer| answer.status == 503).collect();
    assert!(!refused.is_empty() && refused.iter().all(|answer| !answer.header("retry-after").is_empty()));
    assert!(found.iter().filter(|answer| answer.status == 200).count() >= 6, "{found:?}");
    assert!(found.iter().all(|answer| [200, 503].contains(&answer.status)), "{found:?}");
    let whole = "x".repeat(BODY_BYTES);
    crate::support::wait_until("a large body is taken again", || {
        (hub.client().post("/auth/logout", &whole).status == 200).then_some(())
    });
}

fn short_timeouts(dir: &std::path::Path) -> Hub {
    Builder::new(dir).config("[http]\nhead_timeout = '400ms'\nbody_timeout = '400ms'\nidle_timeout = '400ms'").start()
}

/// Sends one byte after another for as long as the hub says nothing; what it says in the end.
fn trickle(stream: &mut TcpStream, byte: u8) -> String {
    let deadline = Instant::now() + PATIENCE;
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut first = [0];
    loop {
        match stream.read(&mut first) {
            Ok(_) => break,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < deadline, "the hub puts up with it for ever");
        stream.write_all(&[byte]).unwrap();
    }
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    format!("{}{}", char::from(first[0]), read_to_end(stream))
}

#[test]
fn slow_heads_and_bodies_are_timed_out() {
    let dir = tempfile::tempdir().unwrap();
    let hub = short_timeouts(dir.path());
    check(&hub, "GET /api/v1/health HTTP/1.1\r\nHost: loc", 408, "timeout");
    check(&hub, "POST /auth/logout HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{", 408, "timeout");
    check(
        &hub,
        "POST /auth/logout HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n",
        408,
        "timeout",
    );
    // A byte now and then does not buy time.
    let mut stream = raw(&hub.address);
    stream.write_all(b"GET /api/v1/health HTTP/1.1\r\nX: ").unwrap();
    assert_eq!(statuses(&trickle(&mut stream, b'y')), [408]);
    let mut stream = raw(&hub.address);
    stream.write_all(b"POST /auth/logout HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n").unwrap();
    assert_eq!(statuses(&trickle(&mut stream, b'y')), [408]);
    // The same for a second request of a connection.
    let text = exchange(&hub.address, format!("{HEALTH}GET /").as_bytes());
    assert_eq!(statuses(&text), [200, 408]);
    let late = "POST /auth/logout HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{";
    let text = exchange(&hub.address, format!("{HEALTH}{late}").as_bytes());
    assert_eq!(statuses(&text), [200, 408]);
}

#[test]
fn silent_connections_are_closed_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let hub = short_timeouts(dir.path());
    assert_eq!(exchange(&hub.address, b""), "");
    assert_eq!(exchange(&hub.address, b"\r\n\r\n"), "");
    let text = exchange(&hub.address, HEALTH.as_bytes());
    assert_eq!(statuses(&text), [200]);
    assert!(!text.contains("Connection: close"), "{text}");
}
