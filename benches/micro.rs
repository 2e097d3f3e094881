//! Hot paths without a socket: replay rings, frame parsing, session cookies, accounting.
#![allow(clippy::pedantic, clippy::print_stdout, reason = "a bench prints what it measured")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use holt::auth::SessionManager;
use holt::chat::frame;
use holt::chat::replay::ReplayStore;
use holt::chat::{ChatEvent, frame::push_text};
use holt::config::{Allowance, CostsConfig, Limit};
use holt::costs::{Budgets, Settings, Spender, TurnMeter};
use holt::llm::{Completion, Message, Meter, MeteredCall, Request, Role, Usage};
use holt::rt::Headers;
use holt::store::Db;
use holt::store::log::Run;
use holt::ws::frames::parse_client_frame;
use jiff::tz::TimeZone;

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

/// What accounting costs a call of a model: the check of all limits and a durable row before it, another write after
/// it. A conversation of its own each time is the worst case: its sum has to be read first.
#[divan::bench(args = ["on a disk", "on a disk, new conversations", "in memory"], max_time = 3)]
fn cost_reserve_and_settle(bencher: Bencher<'_, '_>, place: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let db = match place {
        "in memory" => Db::in_memory(),
        _ => Db::open(&directory.path().join("holt.db")),
    };
    let budgets = budgets(db.expect("a database"));
    let mut number = 0;
    let meter = meter(&budgets, "c");
    bencher.bench_local(|| {
        if place.ends_with("conversations") {
            number += 1;
            account(&self::meter(&budgets, &format!("c{number}")), false);
        } else {
            account(&meter, false);
        }
    });
}

/// The check alone, in memory: a call that a limit refuses.
#[divan::bench]
fn cost_check_that_refuses(bencher: Bencher<'_, '_>) {
    let budgets = budgets(Db::in_memory().expect("a database"));
    budgets.set_conversation_limits(Limit { soft: 0.0, hard: 1e-6 });
    let meter = meter(&budgets, "c");
    let messages = [Message::text(Role::User, "how is this machine doing?")];
    let request = Request { model: "gpt-4o", messages: &messages, tools: &[], stream: true };
    let call = MeteredCall { provider: "openai", is_free: false, model: "gpt-4o", request: &request };
    bencher.bench_local(|| assert!(black_box(meter.reserve(&call)).is_err()));
}

/// A call that costs nothing: no check, no row.
#[divan::bench]
fn cost_of_a_free_call(bencher: Bencher<'_, '_>) {
    let budgets = budgets(Db::in_memory().expect("a database"));
    let meter = meter(&budgets, "c");
    bencher.bench_local(|| account(&meter, true));
}

fn budgets(db: Db) -> Arc<Budgets> {
    let day = Allowance { daily: Limit { soft: 1e6, hard: 1e6 }, ..Allowance::default() };
    let mut costs = CostsConfig { all: day, ..CostsConfig::default() };
    costs.agents.insert("default".to_owned(), day);
    costs.keys.insert("laptop".to_owned(), day);
    let conversation = Limit { soft: 1e6, hard: 1e6 };
    let settings = Settings { costs, conversation, agents: HashMap::new(), zone: TimeZone::UTC };
    Arc::new(Budgets::new(Arc::new(db), settings).expect("a database that can be written"))
}

fn meter(budgets: &Arc<Budgets>, conversation: &str) -> TurnMeter {
    budgets.meter(Spender {
        turn_id: 1,
        conversation_id: conversation.to_owned(),
        agent: "default".to_owned(),
        identity: "key:laptop".to_owned(),
    })
}

fn account(meter: &TurnMeter, is_free: bool) {
    let messages = [Message::text(Role::User, "how is this machine doing?")];
    let request = Request { model: "gpt-4o", messages: &messages, tools: &[], stream: true };
    let call = MeteredCall { provider: "openai", is_free, model: "gpt-4o", request: &request };
    let id = meter.reserve(&call).expect("a limit far away");
    let counted = Usage { input_tokens: u64::from(!is_free), ..Usage::default() };
    meter.settle(id, Some(&Completion { usage: counted, ..Completion::default() }));
}

fn manager() -> SessionManager {
    let Ok(manager) = SessionManager::new(&"ab".repeat(32), None, 3600, false) else {
        panic!("64 hex digits are a secret");
    };
    manager
}
