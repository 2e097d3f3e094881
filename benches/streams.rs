//! Streaming: 8 sockets with turns of 2,000 deltas from an instant model, event log on; one message broadcast to many
//! followers; and the way of one piece from the provider's socket to the client's.
#![allow(clippy::pedantic, clippy::print_stdout, reason = "a bench prints what it measured")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use holt::app::App;
use holt::chat::frame;
use holt::config::{Env, Flags};
use holt::llm::{Completion, LlmError, Provider, Request, Sink};
use holt::rt::Cancel;
use support::{Peer, directory, key, role};

const DELTAS: u64 = 2_000;
const TURNS: u64 = 60;
const SOCKETS: usize = 8;

/// Answers at once: as many pieces as asked for.
struct Instantly;

impl Provider for Instantly {
    fn name(&self) -> &'static str {
        "instant"
    }

    fn is_free(&self) -> bool {
        true
    }

    fn complete(&self, _: Request<'_>, sink: &mut dyn Sink, _: &Cancel) -> Result<Completion, LlmError> {
        let mut text = String::new();
        for number in 0..DELTAS {
            let piece = if number % 2 == 0 { "some words " } else { "and more " };
            sink.text(piece);
            text.push_str(piece);
        }
        Ok(Completion { text, ..Completion::default() })
    }

    fn models(&self, _: &Cancel) -> Result<Vec<String>, LlmError> {
        Ok(Vec::new())
    }
}

fn main() {
    if let Some(dir) = role() {
        hub(&dir);
        return;
    }
    let (_guard, dir) = directory();
    let hub = Peer::role(dir.join("data").to_str().expect("a plain path"));
    let key = key(&hub.address);
    throughput(&hub.address, &key);
    broadcast(&hub.address, &key);
    drop(hub);
    first_byte(&dir);
}

/// This process as a hub with the instant model.
fn hub(dir: &str) {
    let flags = Flags { data_dir: Some(dir.into()), listen: Some("127.0.0.1:0".into()), ..Flags::default() };
    let config = holt::config::load(&flags, &Env::of([])).expect("defaults");
    let started = App::start_with(config, Arc::new(Instantly)).expect("a hub");
    eprintln!("listening on http://{}", started.address);
    let mut end = Vec::new();
    // Killed by the parent; its standard input never ends before.
    let (_hold_tx, hold_rx) = bounded::<()>(0);
    let _ = hold_rx.recv();
    let _ = std::io::stdin().read_to_end(&mut end);
    started.app.stop();
}

fn throughput(address: &str, key: &str) {
    let frames = AtomicU64::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..SOCKETS {
            let frames = &frames;
            scope.spawn(move || {
                let mut socket = Socket::open(address, key);
                for _ in 0..TURNS {
                    socket.chat(&format!("bench-{number}"));
                    frames.fetch_add(socket.read_turn(), Ordering::Relaxed);
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    let all = frames.load(Ordering::Relaxed);
    let expected = SOCKETS as u64 * TURNS * (DELTAS + 4);
    println!(
        "streaming, {SOCKETS} sockets, turns of {DELTAS} deltas: {:.0} frames/s, {:.2} % delivered",
        all as f64 / seconds,
        all as f64 * 100.0 / expected as f64
    );
}

/// One turn followed by many sockets.
fn broadcast(address: &str, key: &str) {
    let mut starter = Socket::open(address, key);
    starter.chat("wide");
    starter.read_turn();
    let mut followers: Vec<Socket> = (0..100).map(|_| Socket::open(address, key)).collect();
    for follower in &mut followers {
        follower.send(&format!(r#"{{"type":"chat_request","session_id":"wide","resume_after_seq":{}}}"#, DELTAS + 4));
        follower.read_until(b"\"resumed\"");
    }
    let begun = Instant::now();
    starter.chat("wide");
    let mut frames = starter.read_turn();
    for follower in &mut followers {
        frames += follower.read_turn();
    }
    println!(
        "one turn to 101 sockets: {:.0} frames/s, {:.2} % delivered",
        frames as f64 / begun.elapsed().as_secs_f64(),
        frames as f64 * 100.0 / (101 * (DELTAS + 4)) as f64
    );
}

/// From the provider's write to the client's read, through a real provider connection.
fn first_byte(dir: &std::path::Path) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let data = dir.join("first");
    std::fs::create_dir_all(&data).expect("a directory");
    let config = format!(
        "[llm]\ndefault_provider = \"openai\"\ndefault_model = \"m\"\n[llm.openai]\napi_key = \"k\"\nbase_url = \"http://{}\"\n",
        listener.local_addr().expect("an address")
    );
    std::fs::write(data.join("holt.toml"), config).expect("a file");
    let hub = Peer::holt(&data);
    let key = key(&hub.address);
    let mut socket = Socket::open(&hub.address, &key);
    let mut waits = Vec::new();
    for _ in 0..200 {
        socket.chat("one");
        let (stream, _) = listener.accept().expect("the hub's call");
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a request");
            if let Some(number) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = number.trim().parse().expect("a number");
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        let mut stream = reader.into_inner();
        stream.set_nodelay(true).expect("a socket");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            .expect("a reader");
        let begun = Instant::now();
        stream.write_all(b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n").expect("a reader");
        socket.read_until(b"content_delta");
        waits.push(begun.elapsed());
        stream
            .write_all(
                b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
            )
            .expect("a reader");
        drop(stream);
        socket.read_until(b"\"done\"");
    }
    waits.sort_unstable();
    let us = |index: usize| waits[index].as_secs_f64() * 1e6;
    println!("provider's first byte to the client's socket: p50 {:.0} µs, p99 {:.0} µs", us(100), us(197));
}

/// A WebSocket that counts frames instead of reading them.
struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Socket {
    fn open(address: &str, key: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("a listener");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        write!(
            stream,
            "GET /api/v1/ws HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n"
        )
        .expect("a peer that reads");
        let mut socket = Self { stream, buffer: Vec::new() };
        while !socket.buffer.windows(4).any(|window| window == b"\r\n\r\n") {
            socket.fill();
        }
        let end = socket.buffer.windows(4).position(|window| window == b"\r\n\r\n").expect("found above") + 4;
        socket.buffer.drain(..end);
        socket
    }

    /// A masked text frame; the mask is zero, which is a mask too.
    fn send(&mut self, text: &str) {
        let mut out = Vec::new();
        frame::push_header(&mut out, 0x81, text.len());
        out[1] |= 0x80;
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(text.as_bytes());
        self.stream.write_all(&out).expect("a peer that reads");
    }

    fn chat(&mut self, session: &str) {
        self.send(&format!(r#"{{"type":"chat_request","session_id":"{session}","message":"go"}}"#));
    }

    fn fill(&mut self) {
        let mut chunk = [0; 64 * 1024];
        let count = self.stream.read(&mut chunk).expect("frames");
        assert!(count > 0, "the hub closed the socket");
        self.buffer.extend_from_slice(&chunk[..count]);
    }

    /// Counts the numbered frames up to the terminal one.
    fn read_turn(&mut self) -> u64 {
        let mut count = 0;
        loop {
            let mut used = 0;
            let mut over = false;
            for (whole, payload) in frame::frames(&self.buffer) {
                used += whole.len();
                // Frames outside the stream (queued, activity) have no number; theirs stands near the end.
                let numbered = whole[0] == 0x81 && payload.windows(6).rev().take(40).any(|part| part == b"\"seq\":");
                count += u64::from(numbered);
                if payload.starts_with(b"{\"type\":\"done\"") {
                    over = true;
                    break;
                }
                assert!(!payload.starts_with(b"{\"type\":\"error\""), "{}", String::from_utf8_lossy(payload));
            }
            self.buffer.drain(..used);
            if over {
                return count;
            }
            self.fill();
        }
    }

    fn read_until(&mut self, text: &[u8]) {
        while !self.buffer.windows(text.len()).any(|window| window == text) {
            self.fill();
        }
        self.buffer.clear();
    }
}
