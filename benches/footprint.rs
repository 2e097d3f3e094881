//! What the hub costs: bytes on disk, time to the first healthy answer, memory idle, after load and with sockets.
#![allow(clippy::pedantic, clippy::print_stdout, reason = "a bench prints what it measured")]

mod support;

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use support::{Peer, directory, key, load, request};

fn main() {
    let binary = std::fs::metadata(env!("CARGO_BIN_EXE_holt")).expect("the binary").len();
    println!("{:<40} {:>10.2} MB", "binary, page included", binary as f64 / 1e6);
    let (_guard, dir) = directory();
    let first = Peer::holt(&dir.join("data")).started_in;
    println!("{:<40} {:>10.1} ms", "very first start to a healthy answer", ms(first));
    let again = (0..5).map(|_| Peer::holt(&dir.join("data")).started_in).min().expect("five starts");
    println!("{:<40} {:>10.1} ms", "later starts (best of 5)", ms(again));
    let hub = Peer::holt(&dir.join("data"));
    memory(&hub, "memory, idle");
    let key = key(&hub.address);
    let bearer = format!("Authorization: Bearer {key}\r\n");
    for _ in 0..100 {
        request(&hub.address, "POST", "/api/v1/chat", &bearer, r#"{"message":"how is this machine doing?"}"#);
        request(&hub.address, "GET", "/api/v1/sessions", &bearer, "");
    }
    load(&hub.address, "/api/v1/sessions", &bearer, 200, Duration::from_secs(3));
    memory(&hub, "memory, right after load");
    rest();
    memory(&hub, "memory, 10 s after load");
    drop(hub);
    let hub = Peer::holt(&dir.join("data"));
    let before = hub.kib("VmRSS:");
    let sockets: Vec<TcpStream> = (0..1000).map(|_| open(&hub.address, &bearer)).collect();
    rest();
    memory(&hub, "memory, with 1,000 idle WebSockets");
    println!(
        "{:<40} {:>10.1} KiB",
        "  each of them",
        (hub.kib("VmRSS:").saturating_sub(before)) as f64 / sockets.len() as f64
    );
}

fn open(address: &str, bearer: &str) -> TcpStream {
    use std::io::Write;
    let mut stream = TcpStream::connect(address).expect("a listener");
    write!(
        stream,
        "GET /api/v1/ws HTTP/1.1\r\nHost: {address}\r\n{bearer}Connection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n"
    )
    .expect("a peer that reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    stream
}

/// Long enough for a hub without work to give memory back.
fn rest() {
    let (_held, never) = crossbeam_channel::bounded::<()>(0);
    let _ = never.recv_timeout(Duration::from_secs(10));
}

fn memory(hub: &Peer, what: &str) {
    let (all, own) = (hub.kib("VmRSS:"), hub.kib("RssAnon:"));
    println!(
        "{what:<40} {:>10.1} MiB   ({:.1} MiB its own, the rest pages of the binary)",
        all as f64 / 1024.0,
        own as f64 / 1024.0
    );
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
