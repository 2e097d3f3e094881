//! Requests on the wire: framing and its ambiguities, pipelining, chunks, `Expect`, versions, keep-alive.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;

use crate::support::http::{exchange, raw, read_answer, read_head, statuses};
use crate::support::{Client, Hub};

const HEALTH: &str = "GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn open(client: &Client) -> BufReader<TcpStream> {
    BufReader::new(raw(&client.address))
}

#[test]
fn whatever_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let post = "POST /api/v1/setup HTTP/1.1\r\nHost: localhost\r\n";
    let cases: &[(String, u16)] = &[
        (format!("{post}Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd"), 400),
        (format!("{post}Content-Length: 0\r\nContent-Length: 44\r\n\r\n"), 400),
        (format!("{post}Content-Length: 4, 4\r\n\r\nabcd"), 400),
        (format!("{post}Content-Length: +4\r\n\r\nabcd"), 400),
        (format!("{post}Content-Length: -4\r\n\r\nabcd"), 400),
        (format!("{post}Content-Length: 0x4\r\n\r\nabcd"), 400),
        (format!("{post}Content-Length: 4 4\r\n\r\nabcd"), 400),
        (format!("{post}Content-Length:\r\n\r\nabcd"), 400),
        (format!("{post}Content-Length: four\r\n\r\nabcd"), 400),
        (format!("{post}Content-Length : 4\r\n\r\nabcd"), 400),
        (format!("{post}Content-Length: 18446744073709551617\r\n\r\na"), 413),
        (format!("{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding: identity\r\n\r\n"), 501),
        (format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 501),
        (format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"), 501),
        (format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), 501),
        (format!("{post}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post} Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}X: y\r\n\tTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}X: a\0b\r\n\r\n"), 400),
        (format!("{post}no colon\r\n\r\n"), 400),
        (format!("{post}: no name\r\n\r\n"), 400),
        (format!("{post}Host: elsewhere\r\n\r\n"), 400),
        (format!("{post}Expect: 200-maybe\r\nContent-Length: 2\r\n\r\n{{}}"), 417),
        ("POST /api/v1/setup HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 400),
        ("GET /api/v1/health HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET /api/v1/health HTTP/2.0\r\nHost: localhost\r\n\r\n".to_owned(), 505),
        ("GET /api/v1/health HTTP/1.2\r\nHost: localhost\r\n\r\n".to_owned(), 505),
        ("GET /api/v1/health HTTP/0.9\r\nHost: localhost\r\n\r\n".to_owned(), 505),
        ("GET  /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        ("GET /api/v1/health  HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 505),
        ("GET\t/api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        ("GET api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        ("GET /api/v1/health#x HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        ("GET /api/v1/health\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        ("G@T /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        (" GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        ("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        ("GET /api/v1/health HTTP/1.1\nHost: localhost\n\n".to_owned(), 400),
    ];
    for (request, status) in cases {
        // Behind the faulty request stands one that a lenient server would answer.
        let text = exchange(&hub.address, format!("{request}{HEALTH}").as_bytes());
        assert_eq!(statuses(&text), [*status], "{request:?}\n{text}");
        assert!(text.contains("\r\nConnection: close\r\n") && text.contains("\"code\":\""), "{request:?}\n{text}");
        assert!(!text.contains("ws_enabled"), "{request:?}\n{text}");
    }
    assert_eq!(hub.client().get("/api/v1/setup").json()["setup_required"], true);
}

#[test]
fn faulty_chunks_end_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let post = "POST /api/v1/setup HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (body, status) in [
        ("g\r\n", 400),
        ("\r\n", 400),
        ("-1\r\n", 400),
        ("0x2\r\n{}\r\n0\r\n\r\n", 400),
        ("2 \r\n{}\r\n0\r\n\r\n", 400),
        ("2\n{}\r\n0\r\n\r\n", 400),
        ("2\r\n{}0\r\n\r\n", 400),
        ("2\r\n{}x\r\n0\r\n\r\n", 400),
        ("100000000\r\n", 400),
        ("ffffffffffffffff\r\n", 400),
        ("fffffff0\r\n", 413),
        ("200000\r\n", 413),
    ] {
        let text = exchange(&hub.address, format!("{post}{body}{HEALTH}").as_bytes());
        assert_eq!(statuses(&text), [status], "{body:?}\n{text}");
    }
    let long_line = format!("{post}2;{}\r\n{{}}\r\n0\r\n\r\n{HEALTH}", "x".repeat(300));
    assert_eq!(statuses(&exchange(&hub.address, long_line.as_bytes())), [400]);
    let trailers = format!("{post}2\r\n{{}}\r\n0\r\n{}\r\n{HEALTH}", "T: v\r\n".repeat(1000));
    assert_eq!(statuses(&exchange(&hub.address, trailers.as_bytes())), [431]);
    // The same fault in a pipelined request is found by a worker and answered all the same.
    let behind = format!("{HEALTH}{post}2\r\n{{}}x\r\n0\r\n\r\n{HEALTH}");
    assert_eq!(statuses(&exchange(&hub.address, behind.as_bytes())), [200, 400]);
    let behind = format!("{HEALTH}{HEALTH}BAD\r\n\r\n{HEALTH}");
    assert_eq!(statuses(&exchange(&hub.address, behind.as_bytes())), [200, 200, 400]);
}

#[test]
fn chunked_bodies_arrive_whole_however_they_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let admin = hub.admin();
    let head = format!(
        "POST /api/v1/keys HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: Chunked\r\n\r\n",
        admin.key()
    );
    let body = "8;ext=1\r\n{\"name\":\r\nF\r\n\"odd\",\"scopes\":\r\n0a\r\n[\"chat\"]  \r\n1\r\n}\r\n0\r\nTrailer: one\r\nMore: two\r\n\r\n";
    let mut stream = open(&admin);
    stream.get_mut().write_all(format!("{head}{body}{HEALTH}").as_bytes()).unwrap();
    let answer = read_answer(&mut stream, false);
    assert_eq!((answer.status, &answer.json()["name"]), (201, &serde_json::json!("odd")), "{}", answer.text());
    // The trailer is not taken for a request, and the next request is.
    assert_eq!(read_answer(&mut stream, false).json()["status"], "ok");
    for byte in format!("{head}{body}").bytes() {
        stream.get_mut().write_all(&[byte]).unwrap();
    }
    assert_eq!(read_answer(&mut stream, false).status, 201);
    for byte in HEALTH.bytes() {
        stream.get_mut().write_all(&[byte]).unwrap();
    }
    assert_eq!(read_answer(&mut stream, false).status, 200);
    assert_eq!(admin.get("/api/v1/keys").json().as_array().unwrap().len(), 3);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let client = hub.client();
    for count in [2, 16, 17, 100] {
        let mut stream = open(&client);
        let requests: String = (0..count)
            .map(|number| match number % 3 {
                0 => HEALTH.to_owned(),
                1 => format!("GET /api/v1/nothing/{number} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                _ => "POST /auth/logout HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
            })
            .collect();
        stream.get_mut().write_all(requests.as_bytes()).unwrap();
        for number in 0..count {
            let answer = read_answer(&mut stream, false);
            let expected = [(200, "ws_enabled"), (404, "no such path"), (200, "\"ok\":true")][number % 3];
            assert_eq!(answer.status, expected.0, "{number} of {count}");
            assert!(answer.text().contains(expected.1), "{number} of {count}: {}", answer.text());
        }
    }
    // Answers that another thread gives keep their place as well.
    let mut stream = open(&client);
    let login = "POST /auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    stream.get_mut().write_all(format!("{login}{HEALTH}{login}{HEALTH}").as_bytes()).unwrap();
    let found: Vec<u16> = (0..4).map(|_| read_answer(&mut stream, false).status).collect();
    assert_eq!(found, [404, 200, 404, 200]);
}

#[test]
fn a_client_that_expects_continue_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let admin = hub.admin();
    let body = r#"{"name":"slow","scopes":["chat"]}"#;
    let head = format!(
        "POST /api/v1/keys HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        admin.key(),
        body.len()
    );
    let mut stream = open(&admin);
    stream.get_mut().write_all(head.as_bytes()).unwrap();
    assert_eq!(read_head(&mut stream).0, 100);
    stream.get_mut().write_all(body.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut stream, false).status, 201);
    // The same behind another request, in one packet.
    stream.get_mut().write_all(format!("{HEALTH}{head}").as_bytes()).unwrap();
    assert_eq!(read_answer(&mut stream, false).status, 200);
    assert_eq!(read_head(&mut stream).0, 100);
    stream.get_mut().write_all(body.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut stream, false).status, 201);
    // A body that is here already needs no leave; one that is too large does not get it.
    stream.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
    assert_eq!(read_answer(&mut stream, false).status, 201);
    let large =
        "POST /auth/logout HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(statuses(&exchange(&hub.address, large.as_bytes())), [413]);
}

#[test]
fn connections_are_kept_as_the_version_says() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let client = hub.client();
    let mut stream = open(&client);
    for _ in 0..50 {
        stream.get_mut().write_all(HEALTH.as_bytes()).unwrap();
        let answer = read_answer(&mut stream, false);
        assert_eq!((answer.status, answer.header("connection")), (200, ""));
    }
    // Empty lines between requests are skipped.
    stream.get_mut().write_all(format!("\r\n\r\n{HEALTH}").as_bytes()).unwrap();
    assert_eq!(read_answer(&mut stream, false).status, 200);
    let text = exchange(&hub.address, b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nConnection: Close\r\n\r\n");
    assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    // HTTP/1.0 ends after one answer, unless the client asks; then it is told.
    let text = exchange(&hub.address, format!("GET /api/v1/health HTTP/1.0\r\n\r\n{HEALTH}").as_bytes());
    assert_eq!(statuses(&text), [200]);
    let mut stream = open(&client);
    for _ in 0..2 {
        stream.get_mut().write_all(b"GET /api/v1/health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
        let answer = read_answer(&mut stream, false);
        assert_eq!((answer.status, answer.header("connection")), (200, "keep-alive"));
    }
}

#[test]
fn head_has_the_length_and_no_body() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let mut stream = open(&hub.client());
    for path in ["/api/v1/health", "/", "/api/v1/nothing", "/api/v1/keys"] {
        let request = |method: &str| format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.get_mut().write_all(request("GET").as_bytes()).unwrap();
        let get = read_answer(&mut stream, false);
        // A body behind the head would be taken for the next answer.
        stream.get_mut().write_all(format!("{}{HEALTH}", request("HEAD")).as_bytes()).unwrap();
        let head = read_answer(&mut stream, true);
        assert_eq!((head.status, head.header("content-length")), (get.status, get.header("content-length")), "{path}");
        assert_eq!(read_answer(&mut stream, false).json()["status"], "ok", "{path}");
    }
    let options = "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let absolute = "GET http://localhost/api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.get_mut().write_all(format!("{options}{absolute}").as_bytes()).unwrap();
    assert!(read_answer(&mut stream, false).status < 500);
    assert_eq!(read_answer(&mut stream, false).json()["status"], "ok");
}

#[test]
fn half_a_request_and_garbage_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path());
    let tls_hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    for garbage in [&tls_hello[..], b"\0\0\0\0", b"\xff\xfe\xfd", b"\n\n\n", b"\x05\x01\x00"] {
        let text = exchange(&hub.address, garbage);
        assert_eq!(statuses(&text), [400], "{garbage:?}");
    }
    let request = "POST /api/v1/setup HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
    for cut in 0..request.len() {
        let mut stream = raw(&hub.address);
        stream.write_all(&request.as_bytes()[..cut]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"", "cut at {cut}: {}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(hub.client().get("/api/v1/setup").json()["setup_required"], true);
}
