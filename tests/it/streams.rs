//! Streams that lose nothing: cuts, slow readers, kills, restarts, crashes of the machine, a full disk.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::hub::Builder;
use crate::support::model::words;
use crate::support::ws::is_terminal;
use crate::support::{Client, Hub, Model, PATIENCE, Socket, wait_until};

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What a client has seen of one session: frames by number, byte for byte.
#[derive(Default)]
struct Seen {
    frames: BTreeMap<u64, String>,
    last: u64,
}

impl Seen {
    /// Takes a frame with a number: it must be the next one, or follow the gap it names itself.
    #[track_caller]
    fn take(&mut self, text: &str) -> Value {
        let frame: Value = serde_json::from_str(text).unwrap();
        if let Some(seq) = frame["seq"].as_u64() {
            let before = frame["prev_seq"].as_u64().unwrap_or(seq - 1);
            assert_eq!(before, self.last, "after {} came {text}", self.last);
            self.last = seq;
            assert!(self.frames.insert(seq, text.to_owned()).is_none());
        }
        frame
    }
}

/// Everything kept of a session, by a client that was never there before.
#[track_caller]
fn full_replay(client: &Client, session: &str) -> Seen {
    let mut socket = Socket::open(client);
    socket.attach(session, 0);
    let head = socket.next();
    assert_eq!(head["type"], "resumed", "{head}");
    let mut seen = Seen { last: head["oldest_seq"].as_u64().unwrap() - 1, ..Seen::default() };
    while seen.last < head["last_seq"].as_u64().unwrap() {
        let text = socket.next_text();
        seen.take(&text);
    }
    seen
}

/// Opens a socket and resumes where `seen` ends.
fn resume(client: &Client, session: &str, seen: &Seen) -> Option<Socket> {
    let mut socket = Socket::try_open(client).ok()?;
    socket.ws.get_mut().set_read_timeout(Some(PATIENCE)).ok()?;
    let frame = json!({"type": "chat_request", "session_id": session, "resume_after_seq": seen.last});
    socket.ws.send(Message::text(frame.to_string())).ok()?;
    Some(socket)
}

#[test]
fn ten_thousand_cuts_lose_double_and_reorder_nothing() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let admin = hub.admin();
    std::thread::scope(|scope| {
        for client in 0..4_u64 {
            let admin = admin.clone();
            scope.spawn(move || cut_again_and_again(&admin, &format!("cut-{client}"), 2_500, Dice(77 + client)));
        }
    });
}

/// Follows streamed turns of one session over `cuts` connections, each cut after a random number of frames.
fn cut_again_and_again(admin: &Client, session: &str, cuts: u32, mut dice: Dice) {
    let mut seen = Seen::default();
    let mut starter = Socket::open(admin);
    let mut turns = 0;
    let mut live = false;
    for _ in 0..cuts {
        if !live {
            starter.chat(session, "deltas 2000");
            assert_eq!(starter.next()["type"], "thinking");
            turns += 1;
            live = true;
        }
        let mut socket = if seen.last == 0 {
            let mut socket = Socket::open(admin);
            socket.attach(session, 0);
            socket
        } else {
            resume(admin, session, &seen).unwrap()
        };
        let mut left = dice.below(400);
        while left > 0 && live {
            let frame = seen.take(&socket.next_text());
            live = !is_terminal(&frame);
            left -= 1;
        }
        // Cut hard: with frames unread the kernel resets the connection.
        drop(socket);
        // The starter's own socket is never read: that must not matter to anybody.
        if !live {
            starter = Socket::open(admin);
        }
    }
    while live {
        let mut socket = resume(admin, session, &seen).unwrap();
        while live {
            let frame = seen.take(&socket.next_text());
            live = !is_terminal(&frame);
        }
    }
    let replay = full_replay(admin, session);
    assert_eq!(seen.last, replay.last);
    // The log keeps what fits its bound: what it still has is what was seen, byte for byte.
    assert!(replay.frames.iter().all(|(seq, text)| seen.frames[seq] == *text));
    let contents = replay.frames.values().filter(|text| text.contains("\"type\":\"content\"")).count();
    assert_eq!(contents, turns);
}

#[test]
fn kills_at_random_moments_lose_no_frame_that_anybody_saw() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    model.open_gate();
    let mut hub = Builder::new(dir.path()).model(&model).start();
    let key = hub.admin().key();
    let mut dice = Dice(4711);
    let (mut first, mut second) = (Seen::default(), Seen::default());
    // The session exists before anybody follows it.
    let mut opener = Socket::open(&hub.client().with_key(&key));
    opener.chat("k", "say hello");
    opener.turn();
    for round in 0..12 {
        let admin = hub.client().with_key(&key);
        let mut sockets = [resume(&admin, "k", &first).unwrap(), resume(&admin, "k", &second).unwrap()];
        let mut starter = Socket::open(&admin);
        starter.chat("k", "deltas 3000");
        // One client reads up to a random frame, the other a random part of that; then the hub is killed.
        let stop_at = first.last + dice.below(2_500) + 1;
        while first.last < stop_at {
            let text = sockets[0].next_text();
            if is_terminal(&first.take(&text)) {
                break;
            }
        }
        let stop_at = second.last + dice.below(first.last - second.last + 1);
        while second.last < stop_at {
            let text = sockets[1].next_text();
            second.take(&text);
        }
        hub.kill();
        drop(hub);
        hub = Builder::new(dir.path()).model(&model).start();
        let admin = hub.client().with_key(&key);
        // Everything that anybody saw is there for everybody, and the broken turn has ended.
        let replay = full_replay(&admin, "k");
        for seen in [&first, &second] {
            assert!(seen.frames.iter().all(|(seq, text)| replay.frames.get(seq) == Some(text)), "round {round}");
        }
        let last: Value = serde_json::from_str(&replay.frames[&replay.last]).unwrap();
        assert!(is_terminal(&last), "{last}");
        assert!(last["type"] == "done" || last["code"] == "interrupted", "{last}");
        let numbers: Vec<u64> = replay.frames.keys().copied().collect();
        assert_eq!(numbers, (numbers[0]..=replay.last).collect::<Vec<_>>());
        // Both catch up over the kill, without a hole.
        for seen in [&mut first, &mut second] {
            let mut socket = resume(&admin, "k", seen).unwrap();
            while seen.last < replay.last {
                let text = socket.next_text();
                seen.take(&text);
            }
        }
    }
    assert_eq!(first.frames, second.frames);
}

#[test]
fn an_interrupted_turn_keeps_its_text_and_queued_ones_run_after_the_restart() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let mut hub = Builder::new(dir.path()).model(&model).start();
    let key = hub.admin().key();
    let mut socket = Socket::open(&hub.client().with_key(&key));
    socket.chat("q", "gate 5 5");
    socket.read_deltas(5);
    socket.chat("q", "say after");
    loop {
        if socket.next()["type"] == "queued" {
            break;
        }
    }
    assert_eq!(hub.client().with_key(&key).get("/api/v1/sessions").json()[0]["live"], true);
    hub.kill();
    drop(hub);
    let hub = Builder::new(dir.path()).model(&model).start();
    let admin = hub.client().with_key(&key);
    let messages = wait_until("the queued message was answered", || {
        let messages = admin.get("/api/v1/sessions/q/messages").json();
        (messages.as_array().unwrap().len() == 4).then_some(messages)
    });
    let texts: Vec<&str> = messages.as_array().unwrap().iter().map(|m| m["content"].as_str().unwrap()).collect();
    assert_eq!(texts, ["gate 5 5", &words(5), "say after", "after"]);
    // The answer is a row before its end is a frame.
    wait_until("the turn is over", || (admin.get("/api/v1/sessions/q").json()["live"] == false).then_some(()));
    assert_eq!(admin.get("/api/v1/sessions").json()[0]["live"], false);
    let replay = full_replay(&admin, "q");
    let ends: Vec<Value> =
        replay.frames.values().map(|text| serde_json::from_str(text).unwrap()).filter(is_terminal).collect();
    assert_eq!((&ends[0]["code"], &ends[1]["type"]), (&json!("interrupted"), &json!("done")));
}

#[test]
fn a_reader_that_stops_gets_everything_when_it_returns() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let hub = Builder::new(dir.path()).model(&model).start();
    let admin = hub.admin();
    let mut slow = Socket::open(&admin);
    slow.chat("slow", "deltas 20000");
    assert_eq!(slow.next()["type"], "thinking");
    // Nothing is read while the whole turn, far more than sockets and rings hold, goes by for another client.
    let mut seen = Seen::default();
    let mut fast = Socket::open(&admin);
    fast.attach("slow", 0);
    while !is_terminal(&seen.take(&fast.next_text())) {}
    assert!(seen.last > 20_000);
    // The first frame was read above, to know that the turn runs.
    let mut late = Seen { last: 1, ..Seen::default() };
    late.frames.insert(1, seen.frames[&1].clone());
    while late.last < seen.last {
        let text = slow.next_text();
        late.take(&text);
    }
    assert_eq!(late.frames, seen.frames);
}

#[test]
fn after_a_crash_of_the_machine_numbers_go_on_behind_those_promised() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let mut hub = Builder::new(dir.path()).model(&model).start();
    let key = hub.admin().key();
    let mut socket = Socket::open(&hub.client().with_key(&key));
    socket.chat("c", "say zero");
    socket.turn();
    socket.chat("c", "say one");
    let last = socket.turn().last().unwrap()["seq"].as_u64().unwrap();
    hub.kill();
    drop(hub);
    // What a power cut leaves: another boot, and the last frames not on the disk.
    let holt = rusqlite::Connection::open(dir.path().join("holt.db")).unwrap();
    assert!(holt.execute("UPDATE streams SET boot_id = 'before', floor_seq = 0", []).unwrap() > 0);
    drop(holt);
    let events = rusqlite::Connection::open(dir.path().join("events.db")).unwrap();
    events.execute("DELETE FROM runs WHERE last_seq >= ?1", [last.cast_signed()]).unwrap();
    let kept: u64 =
        events.query_row("SELECT max(last_seq) FROM runs", [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned();
    drop(events);
    let hub = Builder::new(dir.path()).model(&model).start();
    let admin = hub.client().with_key(&key);
    let mut socket = Socket::open(&admin);
    socket.chat("c", "say two");
    let frames = socket.turn();
    // `take` has checked that the numbers are whole but for a gap that names itself.
    let replay = full_replay(&admin, "c");
    let after: Value = serde_json::from_str(replay.frames.range(kept + 1..).next().unwrap().1).unwrap();
    assert_eq!(after["prev_seq"], kept);
    assert!(after["seq"].as_u64().unwrap() > last, "a number was given twice");
    assert_eq!(replay.last, frames.last().unwrap()["seq"].as_u64().unwrap());
    // A client that saw frames which are lost goes on without a fuss.
    let mut socket = Socket::open(&admin);
    socket.attach("c", last);
    assert_eq!(socket.next()["type"], "resumed");
    assert_eq!(socket.next()["prev_seq"], kept);
}

#[test]
fn a_lost_log_gets_a_new_epoch_and_says_so() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let mut hub = Builder::new(dir.path()).model(&model).start();
    let key = hub.admin().key();
    let mut socket = Socket::open(&hub.client().with_key(&key));
    socket.chat("e", "say one");
    socket.turn();
    let epoch = hub.client().with_key(&key).get("/api/v1/sessions/e").json()["epoch"].clone();
    hub.signal("TERM");
    assert!(hub.wait().success());
    drop(hub);
    for name in ["events.db", "events.db-wal", "events.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join(name));
    }
    let hub = Builder::new(dir.path()).model(&model).start();
    let admin = hub.client().with_key(&key);
    let about = admin.get("/api/v1/sessions/e").json();
    assert_ne!(about["epoch"], epoch);
    assert_eq!((&about["message_count"], &about["last_seq"]), (&json!(2), &json!(0)));
    let mut socket = Socket::open(&admin);
    socket.send(&json!({"type": "chat_request", "session_id": "e", "resume_after_seq": 3, "epoch": epoch}));
    let frame = socket.next();
    assert_eq!((&frame["code"], &frame["epoch"]), (&json!("replay_unavailable"), &about["epoch"]));
    socket.chat("e", "say two");
    assert_eq!(socket.turn()[0]["seq"], 1);
}

#[test]
fn what_retention_has_deleted_is_said_to_be_gone() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let mut hub = Builder::new(dir.path()).model(&model).start();
    let key = hub.admin().key();
    let mut socket = Socket::open(&hub.client().with_key(&key));
    socket.chat("r", "deltas 5000");
    let last = socket.turn().last().unwrap()["seq"].as_u64().unwrap();
    hub.signal("TERM");
    assert!(hub.wait().success());
    drop(hub);
    let events = rusqlite::Connection::open(dir.path().join("events.db")).unwrap();
    events.execute("DELETE FROM runs WHERE last_seq < 2500", []).unwrap();
    let oldest: u64 =
        events.query_row("SELECT min(first_seq) FROM runs", [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned();
    drop(events);
    let hub = Builder::new(dir.path()).model(&model).start();
    let mut socket = Socket::open(&hub.client().with_key(&key));
    socket.attach("r", 10);
    let frame = socket.next();
    assert_eq!(
        (&frame["code"], &frame["oldest_seq"], &frame["last_seq"]),
        (&json!("replay_unavailable"), &json!(oldest), &json!(last))
    );
    // The tail that is kept follows.
    assert_eq!(socket.next()["seq"], oldest);
    let mut socket = Socket::open(&hub.client().with_key(&key));
    socket.attach("r", 0);
    assert_eq!(socket.next()["type"], "resumed");
    assert_eq!(socket.next()["seq"], oldest);
    // A number that was never given does not silence what comes.
    let mut socket = Socket::open(&hub.client().with_key(&key));
    socket.attach("r", last + 1_000_000);
    assert_eq!(socket.next()["last_seq"], last);
    socket.chat("r", "say more");
    assert_eq!(socket.turn()[0]["seq"], last + 1);
}

#[test]
fn a_full_disk_fails_the_turn_by_name_and_history_stays() {
    // A file system of its own, two MiB large, in a namespace of its own: only where the system lets us.
    let dir = tempfile::tempdir().unwrap();
    let probe =
        std::process::Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "x"]).arg(dir.path()).status();
    if !probe.is_ok_and(|status| status.success()) {
        // Where CI runs it must be possible: there this test may not pass by not happening.
        assert!(std::env::var_os("CI").is_none(), "the disk-full test needs a mount namespace");
        eprintln!("NOT TESTED: a full disk needs a mount namespace, and this system gives none");
        return;
    }
    let model = Model::start();
    let config = format!(
        "[llm]\ndefault_provider = \"openai\"\ndefault_model = \"m\"\n[llm.openai]\napi_key = \"k\"\nbase_url = \"{}\"\n",
        model.url()
    );
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("holt.toml"), config).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=6m x {dir} && exec {holt} serve --listen 127.0.0.1:0 --data-dir {dir} --config {config}",
        dir = dir.path().display(),
        holt = env!("CARGO_BIN_EXE_holt"),
        config = outside.path().join("holt.toml").display()
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script]);
    let hub = Hub::spawn(command, dir.path().to_owned());
    let admin = hub.admin();
    assert_eq!(admin.chat(json!({"session_id": "before", "message": "say kept"})).status, 200);
    let mut socket = Socket::open(&admin);
    socket.chat("big", "deltas 60000");
    let mut seen = Seen::default();
    let failure = loop {
        let text = socket.next_text();
        let frame = seen.take(&text);
        if frame["type"] == "error" {
            break frame;
        }
        assert_ne!(frame["type"], "done", "the disk did not fill");
    };
    assert!(failure["code"] == "storage_full" || failure["code"] == "internal", "{failure}");
    assert!(failure["message"].as_str().unwrap().contains("disk"), "{failure}");
    assert_eq!(failure["session_id"], "big");
    // History stays readable, and so does every frame that was sent.
    let kept = admin.get("/api/v1/sessions/before/messages").json();
    assert_eq!(kept[1]["content"], "kept");
    let replay = full_replay(&admin, "big");
    assert!(replay.frames.iter().all(|(seq, text)| seen.frames.get(seq).is_none_or(|known| known == text)));
    assert!(seen.frames.keys().all(|seq| replay.frames.contains_key(seq)), "a frame was sent unlogged");
    let refused = admin.chat(json!({"message": "say more"}));
    assert!(refused.status == 507 || refused.status == 200, "{} {}", refused.status, refused.text());
    assert_eq!(admin.get("/api/v1/health").status, 200);
}

#[test]
fn a_stop_in_mid_turn_is_orderly() {
    let (dir, model) = (tempfile::tempdir().unwrap(), Model::start());
    let mut hub = Builder::new(dir.path()).model(&model).start();
    let admin = hub.admin();
    let mut socket = Socket::open(&admin);
    socket.chat("t", "gate 5 5");
    socket.read_deltas(5);
    let begun = Instant::now();
    hub.signal("TERM");
    assert_eq!(socket.close_code(), Some((1001, "server shutting down".to_owned())));
    assert!(hub.wait().success());
    assert!(begun.elapsed() < Duration::from_secs(8) + Duration::from_secs(5), "the stop has a deadline of 8 s");
    drop(hub);
    let hub = Builder::new(dir.path()).model(&model).start();
    let admin = hub.client().with_key(&admin.key());
    let replay = full_replay(&admin, "t");
    assert!(replay.frames[&replay.last].contains("\"code\":\"interrupted\""));
    assert_eq!(admin.get("/api/v1/sessions/t/messages").json()[1]["content"], words(5));
}
