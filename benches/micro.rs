//! Hot paths without a socket: replay rings, frame parsing, session cookies.
#![allow(clippy::pedantic, clippy::print_stdout, reason = "a bench prints what it measured")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use holt::auth::SessionManager;
use holt::chat::frame;
use holt::chat::replay::ReplayStore;
use holt::chat::{ChatEvent, frame::push_text};
use holt::rt::Headers;
use holt::store::log::Run;
use holt::ws::frames::parse_client_frame;

fn main() {
    divan::main();
}

fn run(seq: u64) -> Arc<Run> {
    let mut frames = Vec::new();
    let mut payload = Vec::new();
    ChatEvent::ContentDelta { text: "a word or two ".into() }.encode(&mut payload, "0123456789abcdef", seq, None);
    push_text(&mut frames, &payload);
    Arc::new(Run { first_seq: seq, last_seq: seq, frames: frames.into() })
}

fn store_of(sessions: usize) -> ReplayStore {
    let store = ReplayStore::with_bounds(256 * 1024, usize::MAX, sessions, Duration::from_secs(3600));
    for number in 0..sessions {
        store.append(&format!("session-{number}"), &run(1));
    }
    store
}

/// A new session when the store is full: must cost the same at 100 and at 10,000 (architecture section 10).
#[divan::bench(args = [100, 10_000])]
fn replay_new_session_evicts_one(bencher: Bencher<'_, '_>, sessions: usize) {
    let store = store_of(sessions);
    let mut next = sessions;
    bencher.bench_local(|| {
        next += 1;
        black_box(store.buffer(&format!("session-{next}")));
    });
}

#[divan::bench(args = [100, 10_000])]
fn replay_append(bencher: Bencher<'_, '_>, sessions: usize) {
    let store = store_of(sessions);
    let mut seq = 1;
    bencher.bench_local(|| {
        seq += 1;
        store.append("session-7", &run(seq));
    });
}

#[divan::bench(args = [100, 10_000])]
fn replay_since_the_middle_of_1000_frames(bencher: Bencher<'_, '_>, sessions: usize) {
    let store = store_of(sessions);
    for seq in 2..=1000 {
        store.append("session-7", &run(seq));
    }
    bencher.bench_local(|| black_box(store.since("session-7", 500, 64 * 1024)));
}

#[divan::bench]
fn frame_encode_delta(bencher: Bencher<'_, '_>) {
    let event = ChatEvent::ContentDelta { text: "a word or two ".into() };
    let mut out = Vec::with_capacity(256);
    bencher.bench_local(|| {
        out.clear();
        event.encode(&mut out, "0123456789abcdef", black_box(123_456), None);
        black_box(out.len())
    });
}

#[divan::bench]
fn frame_parse_chat_request() {
    let text = br#"{"type":"chat_request","session_id":"0123456789abcdef","agent":"default","message":"how is this machine doing?","message_id":"m-1"}"#;
    black_box(parse_client_frame(black_box(text)).is_ok());
}

#[divan::bench]
fn frame_walk_200_frames_of_a_run(bencher: Bencher<'_, '_>) {
    let mut bytes = Vec::new();
    for seq in 0..200 {
        bytes.extend_from_slice(&run(seq).frames);
    }
    bencher.bench_local(|| black_box(frame::frames(&bytes).count()));
}

#[divan::bench]
fn cookie_make() {
    let manager = manager();
    black_box(manager.create("admin", &[]).is_ok());
}

#[divan::bench]
fn cookie_read(bencher: Bencher<'_, '_>) {
    let manager = manager();
    let cookie = manager.create("admin", &["chat".to_owned()]).unwrap_or_default();
    let headers = Headers::from_pairs(&[("Cookie", cookie.split(';').next().unwrap_or(""))]);
    bencher.bench_local(|| black_box(manager.read(&headers).is_ok_and(|session| session.is_some())));
}

fn manager() -> SessionManager {
    let Ok(manager) = SessionManager::new(&"ab".repeat(32), None, 3600, false) else {
        panic!("64 hex digits are a secret");
    };
    manager
}
