//! TLS on the hub's own port: the API, streams and sockets over it, peers that misbehave, and a new certificate while all
//! of that goes on.

use std::io::{BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use holt::rt::Threads;
use rustls::{ClientConnection, HandshakeKind, ProtocolVersion};
use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::http::{exchange, raw, read_answer, read_head, read_to_end};
use crate::support::hub::Builder;
use crate::support::tls::{self, Stream, dial};
use crate::support::ws::{is_terminal, read};
use crate::support::{Hub, Model, PATIENCE, Socket, wait_until};

const HEALTH: &[u8] = b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn start(dir: &std::path::Path) -> Hub {
    Builder::new(dir).tls("hub.pem", "hub.key").start()
}

fn dial_hub(hub: &Hub) -> Stream {
    dial(&hub.address, hub.client().tls.as_ref().unwrap())
}

/// The frames behind `resumed`.
fn resumed(socket: &mut Socket<Stream>) -> Vec<Value> {
    let head = socket.next();
    assert_eq!(head["type"], "resumed", "{head}");
    socket.turn()
}

#[test]
fn the_api_is_the_same_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path());
    for (version, expected) in
        [(&rustls::version::TLS13, ProtocolVersion::TLSv1_3), (&rustls::version::TLS12, ProtocolVersion::TLSv1_2)]
    {
        let mut config = tls::strict(&[version]);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let mut stream = dial(&hub.address, &config);
        // One after the other on one connection, then three at once.
        for _ in 0..3 {
            stream.write_all(HEALTH).unwrap();
            assert_eq!(read_answer(&mut BufReader::new(&mut stream), false).status, 200);
        }
        stream.write_all(&HEALTH.repeat(3)).unwrap();
        let mut reader = BufReader::new(stream);
        for _ in 0..3 {
            assert_eq!(read_answer(&mut reader, false).json()["status"], "ok");
        }
        let conn = &reader.get_ref().conn;
        assert_eq!(conn.protocol_version(), Some(expected));
        assert_eq!(conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        // A second visit is a short one.
        let mut again = dial(&hub.address, &config);
        again.write_all(HEALTH).unwrap();
        assert_eq!(read_answer(&mut BufReader::new(&mut again), false).status, 200);
        assert_eq!(again.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    }
    let admin = hub.admin().new_key("kv", &["kv:read", "kv:write", "chat"]);
    let large = "x".repeat(60_000);
    let put = admin.send("PUT", "/api/v1/kv/default/large", &json!({"value": large}).to_string());
    assert!(put.status < 300, "{}", put.text());
    let got = admin.get("/api/v1/kv/default/large");
    assert_eq!(got.json()["value"], large, "{}", got.status);
    assert_eq!(admin.post("/api/v1/kv/default", &"x".repeat(1024 * 1024)).status / 100, 4, "read to its end");
    let too_large = admin.post("/api/v1/chat", &"x".repeat(1024 * 1024 + 1));
    assert_eq!(too_large.status, 413);
    // What is closed by the hub ends as TLS wants it.
    let mut stream = dial_hub(&hub);
    stream.write_all(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a goodbye before the end");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}

#[test]
fn cookies_stay_on_tls() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path());
    let body = json!({"password": "correct horse", "pin": hub.pin}).to_string();
    let answer = hub.client().post("/api/v1/setup/account", &body);
    assert!(answer.header("set-cookie").contains("; Secure"), "{} {}", answer.status, answer.text());
    drop(hub);
    // Behind a proxy that is trusted and says so; not when anybody else says so.
    for (proxies, expected) in [("[\"127.0.0.1\"]", true), ("[\"192.0.2.1\"]", false)] {
        let dir = tempfile::tempdir().unwrap();
        let hub = Builder::new(dir.path()).config(&format!("[api]\ntrusted_proxies = {proxies}")).start();
        let body = json!({"password": "correct horse", "pin": hub.pin}).to_string();
        let proxied = hub.client().with("X-Forwarded-Proto", "https");
        let answer = proxied.post("/api/v1/setup/account", &body);
        assert_eq!(answer.header("set-cookie").contains("; Secure"), expected, "{} {}", answer.status, answer.text());
        let answer = proxied.with_cookie_of(&answer).post("/auth/logout", "");
        assert_eq!(answer.header("set-cookie").contains("; Secure"), expected, "{} {}", answer.status, answer.text());
    }
}

#[test]
fn peers_that_do_not_speak_tls_are_told_or_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).tls("hub.pem", "hub.key").config("[http]\nhead_timeout = \"3s\"").start();
    let text = exchange(&hub.address, HEALTH);
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("https://"), "{text}");
    // Garbage gets an alert or nothing, and the end; so does a record that is no hello.
    for garbage in [&b"\0\0\0\0\0\0\0\0"[..], b"\x16\x03\x01\xff\xff", &[0x16; 40_000], b"\x16\x03\x01\0\x05hello"] {
        let mut stream = raw(&hub.address);
        let _ = stream.write_all(garbage);
        assert!(read_to_end(&mut stream).len() < 64);
    }
    // Half a handshake, and none at all, have the time of a head; others are served meanwhile.
    let mut half = raw(&hub.address);
    let mut hello = Vec::new();
    let mut conn =
        ClientConnection::new(Arc::clone(hub.client().tls.as_ref().unwrap()), "localhost".try_into().unwrap()).unwrap();
    conn.write_tls(&mut hello).unwrap();
    half.write_all(&hello[..hello.len() / 2]).unwrap();
    let mut silent = raw(&hub.address);
    assert_eq!(hub.client().get("/api/v1/health").status, 200);
    assert_eq!(read_to_end(&mut half).len() + read_to_end(&mut silent).len(), 0);
    // Begun well, then garbage where records should be.
    let mut broken = dial_hub(&hub);
    broken.write_all(HEALTH).unwrap();
    assert_eq!(read_answer(&mut BufReader::new(&mut broken), false).status, 200);
    broken.sock.write_all(&[23, 3, 3, 0, 32, 9, 9, 9]).unwrap();
    broken.sock.write_all(&[9; 64]).unwrap();
    let mut alert = Vec::new();
    let _ = broken.sock.read_to_end(&mut alert);
    assert_eq!(hub.client().get("/api/v1/health").status, 200);
}

#[test]
fn byte_by_byte_is_slow_but_right() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path());
    let config = hub.client().tls.unwrap();
    let mut conn = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let mut socket = raw(&hub.address);
    conn.writer().write_all(HEALTH).unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("\"status\"") {
        while conn.wants_write() {
            let mut bytes = Vec::new();
            conn.write_tls(&mut bytes).unwrap();
            for byte in bytes {
                socket.write_all(&[byte]).unwrap();
            }
        }
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        conn.read_tls(&mut &byte[..]).unwrap();
        conn.process_new_packets().unwrap();
        let _ = conn.reader().read_to_end(&mut answer); // would block: no end yet
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn streams_of_events_are_whole() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).tls("hub.pem", "hub.key").model(&model).start();
    let admin = hub.admin().with("Accept", "text/event-stream");
    let answer = admin.chat(json!({"message": "deltas 3000", "session_id": "s"}));
    let events = answer.events();
    assert_eq!(events.iter().filter(|event| event["type"] == "content_delta").count(), 3000);
    assert_eq!(events.last().unwrap()["type"], "done");
    // Killed in the middle: the turn goes on, and the hub with it.
    let mut stream = admin.open_tls("POST", "/api/v1/chat", r#"{"message":"gate 1 1","session_id":"t"}"#);
    assert_eq!(read_head(&mut stream).0, 200);
    model.wait_at_gate();
    drop(stream);
    model.open_gate();
    let mut socket = Socket::open_tls(&admin);
    socket.attach("t", 0);
    assert_eq!(resumed(&mut socket).last().unwrap()["type"], "done");
}

#[test]
fn both_ways_flow_at_once_and_past_a_reader_that_stops() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).tls("hub.pem", "hub.key").model(&model).start();
    let admin = hub.admin();
    let mut socket = Socket::open_tls(&admin);
    socket.chat("s", "deltas 20000");
    assert_eq!(socket.next()["type"], "thinking");
    // Nothing is read while much more than the socket holds waits to be written; what is sent arrives all the same.
    let padding = "x".repeat(30_000);
    for number in 0..40 {
        socket.send(&json!({"type": "cancel", "session_id": format!("none-{number}"), "padding": padding}));
    }
    socket.chat("other", &format!("say {padding}"));
    wait_until("the other turn is over", || {
        let messages = admin.get("/api/v1/sessions/other/messages");
        (messages.status == 200 && messages.json().as_array().is_some_and(|all| all.len() == 2)).then_some(())
    });
    // And nothing of what was to be written is lost.
    let (mut deltas, mut ends, mut seen) = (0, 0, 0);
    while ends < 2 {
        let frame = socket.next();
        if frame["session_id"] == "s" && !frame["seq"].is_null() {
            seen += 1;
            assert_eq!(frame["seq"], seen + 1, "{frame}");
            deltas += usize::from(frame["type"] == "content_delta");
        }
        ends += usize::from(is_terminal(&frame));
    }
    assert_eq!(deltas, 20_000);
    // A resume over a new connection gives the same.
    let mut late = Socket::open_tls(&admin);
    late.attach("s", 19_990);
    let frames = resumed(&mut late);
    assert_eq!(frames[0]["seq"], 19_991);
    assert_eq!(frames.last().unwrap()["type"], "done");
    late.ws.close(None).unwrap();
    assert!(matches!(read(&mut late.ws), Ok(Message::Close(None))));
}

#[test]
fn a_thousand_idle_connections_are_cheap() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Builder::new(dir.path()).tls("hub.pem", "hub.key").config("[http]\nconnections_max = 1100").start();
    let config = Arc::clone(hub.client().tls.as_ref().unwrap());
    let visit = || {
        let mut stream = dial(&hub.address, &config);
        stream.write_all(HEALTH).unwrap();
        assert_eq!(read_answer(&mut BufReader::new(&mut stream), false).status, 200);
        stream
    };
    let mut kept: Vec<Stream> = (0..50).map(|_| visit()).collect();
    let before = hub.status_kib("VmRSS");
    kept.extend((0..950).map(|_| visit()));
    let per_connection = (hub.status_kib("VmRSS") - before) as f64 / 950.0;
    assert!(per_connection < 24.0, "{per_connection} KiB for each");
    // All of them are still there.
    for stream in kept.iter_mut().step_by(97) {
        stream.write_all(HEALTH).unwrap();
        assert_eq!(read_answer(&mut BufReader::new(stream), false).status, 200);
    }
}

#[test]
fn a_new_certificate_drops_nothing_and_a_broken_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let hub = start(dir.path());
    let config = Arc::new(tls::strict(rustls::ALL_VERSIONS));
    let (threads, over, served) = (Threads::new(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    for number in 0..4 {
        let (config, over, served, address) =
            (Arc::clone(&config), Arc::clone(&over), Arc::clone(&served), hub.address.clone());
        let load = move || {
            while !over.load(Ordering::Acquire) {
                let mut stream = dial(&address, &config);
                for _ in 0..5 {
                    stream.write_all(HEALTH).unwrap();
                    assert_eq!(read_answer(&mut BufReader::new(&mut stream), false).status, 200);
                }
                served.fetch_add(1, Ordering::AcqRel);
            }
        };
        threads.spawn(&format!("load-{number}"), 512 * 1024, load).unwrap();
    }
    let count = |more: usize| {
        let until = served.load(Ordering::Acquire) + more;
        wait_until("requests are served", || (served.load(Ordering::Acquire) >= until).then_some(()));
    };
    let mut kept = dial_hub(&hub);
    kept.write_all(HEALTH).unwrap();
    assert_eq!(read_answer(&mut BufReader::new(&mut kept), false).status, 200);
    let is_rsa = || {
        let mut fresh = dial(&hub.address, &Arc::new(tls::strict(rustls::ALL_VERSIONS)));
        fresh.write_all(HEALTH).unwrap();
        assert_eq!(read_answer(&mut BufReader::new(&mut fresh), false).status, 200);
        fresh.conn.peer_certificates().unwrap()[0].len() > 560
    };
    count(10);
    assert!(!is_rsa());
    for round in 0..6 {
        let (cert, key) = if round % 2 == 0 { ("rsa.pem", "rsa.key") } else { ("hub.pem", "hub-sec1.key") };
        tls::replace(dir.path(), cert, key);
        hub.signal("HUP");
        wait_until("the certificate is another one", || (is_rsa() == (round % 2 == 0)).then_some(()));
        count(5);
    }
    // The certificate of one and the key of the other.
    tls::replace(dir.path(), "rsa.pem", "hub.key");
    hub.signal("HUP");
    wait_until("the log says so", || hub.log_contains("is not the key of the certificate").then_some(()));
    assert!(!is_rsa());
    over.store(true, Ordering::Release);
    assert!(threads.join_all(PATIENCE).is_empty());
    kept.write_all(HEALTH).unwrap();
    assert_eq!(read_answer(&mut BufReader::new(&mut kept), false).status, 200, "it keeps what it has");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let refused = |cert: &str, key: &str, mode: u32, part: &str| {
        let builder = Builder::new(dir.path()).tls(cert, key);
        std::fs::set_permissions(dir.path().join("key.pem"), std::fs::Permissions::from_mode(mode)).unwrap();
        let output = builder.command().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(part) && said.contains("api."), "{part}: {said}");
    };
    refused("hub.pem", "rsa.key", 0o600, "is not the key of the certificate in");
    refused("hub.pem", "hub.pem", 0o600, "holds no private key");
    refused("hub.key", "hub.key", 0o600, "holds no certificate");
    refused("hub.pem", "locked.key", 0o600, "is locked with a password");
    refused("hub.pem", "hub.key", 0o640, "chmod 600");
    refused("hub.pem", "hub.key", 0o604, "others may read it (mode 604)");
    let without = |config: &str, part: &str| {
        let dir = tempfile::tempdir().unwrap();
        let output = Builder::new(dir.path()).config(config).command().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(part), "{said}");
    };
    without("[api]\ntls = true", "api.cert_file");
    without("[api]\ntls = true\ncert_file = \"/x.pem\"", "api.key_file");
    without("[api]\ntls = true\ncert_file = \"/x.pem\"\nkey_file = \"/y.pem\"", "there is no such file");
    // All forms of keys; one that has expired works, with a word about it.
    for (cert, key) in [("hub.pem", "hub-sec1.key"), ("rsa.pem", "rsa.key"), ("expired.pem", "hub.key")] {
        let hub = Builder::new(dir.path()).tls(cert, key).start();
        assert_eq!(hub.client().get("/api/v1/health").status, 200);
        assert_eq!(hub.log_contains("the certificate has expired on 2021-01-01"), cert == "expired.pem");
    }
}

#[test]
fn a_stop_ends_connections_in_order() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let mut hub = Builder::new(dir.path()).tls("hub.pem", "hub.key").model(&model).start();
    let admin = hub.admin();
    let mut socket = Socket::open_tls(&admin);
    let mut idle = dial_hub(&hub);
    idle.write_all(HEALTH).unwrap();
    assert_eq!(read_answer(&mut BufReader::new(&mut idle), false).status, 200);
    let begun = Instant::now();
    hub.signal("TERM");
    assert_eq!(socket.close_code(), Some((1001, "server shutting down".to_owned())));
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).expect("a goodbye before the end");
    assert!(rest.is_empty());
    drop(socket);
    assert!(hub.wait().success());
    assert!(begun.elapsed() < Duration::from_secs(8 + 5), "the stop has a deadline of 8 s");
}
