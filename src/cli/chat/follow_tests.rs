//! What the dialogue makes of frames, one table a subject.

use super::*;
use serde_json::{Value, json};

/// `s` is short for the session in the tables.
fn follow() -> Follow {
    Follow::new("s".to_owned(), None)
}

fn take(follow: &mut Follow, mut frame: Value) -> Taken {
    if frame.get("session_id").is_none() {
        frame["session_id"] = json!("s");
    }
    follow.take(&Frame::parse(&frame.to_string()).unwrap())
}

fn resumed(last_seq: u64, live: bool) -> Value {
    json!({"type": "resumed", "epoch": "e", "oldest_seq": 1, "last_seq": last_seq, "live": live})
}

fn lost(epoch: &str, oldest_seq: u64, last_seq: u64) -> Value {
    json!({
        "type": "error", "code": "replay_unavailable", "epoch": epoch, "oldest_seq": oldest_seq,
        "last_seq": last_seq,
    })
}

fn delta(seq: u64) -> Value {
    json!({"type": "content_delta", "text": "x", "seq": seq})
}

fn done(seq: u64) -> Value {
    json!({"type": "done", "seq": seq})
}

const NEW: Taken = Taken::Event { missing: false, ended: false };
const ENDED: Taken = Taken::Event { missing: false, ended: true };

/// What is sent, shortened: `a5` attaches after 5, `a*` to what comes, `m` is the message, `c` the cancel.
fn sent(follow: &mut Follow) -> String {
    let short = |text: &String| {
        let frame: Value = serde_json::from_str(text).unwrap();
        match (&frame["type"], &frame["resume_after_seq"]) {
            (Value::String(kind), Value::Null) => {
                if kind == "cancel" {
                    "c".to_owned()
                } else {
                    "m".to_owned()
                }
            }
            (_, after) if *after == json!(FROM_NOW_ON) => "a*".to_owned(),
            (_, after) => format!("a{after}"),
        }
    };
    follow.take_out().iter().map(short).collect::<Vec<_>>().join(" ")
}

/// A new conversation whose first message was accepted; nothing of its turn has come yet.
fn begun() -> Follow {
    let mut follow = follow();
    follow.connected();
    follow.send("hi", "m1");
    assert_eq!(sent(&mut follow), "a*", "the message waits for the hub to say where we stand");
    assert_eq!(take(&mut follow, lost("e", 0, 0)), Taken::Nothing);
    assert_eq!(sent(&mut follow), "m a0");
    assert_eq!(take(&mut follow, resumed(0, true)), Taken::Nothing);
    follow
}

#[test]
fn a_turn_from_message_to_end() {
    let mut follow = begun();
    for seq in 1..=3 {
        assert_eq!(take(&mut follow, delta(seq)), NEW);
    }
    assert!(follow.is_waiting());
    assert_eq!(take(&mut follow, done(4)), ENDED);
    assert!(!follow.is_waiting());
    follow.send("again", "m2");
    assert_eq!(sent(&mut follow), "m a4");
    follow.cancel();
    assert_eq!(sent(&mut follow), "c");
    follow.connected();
    assert_eq!(sent(&mut follow), "a4 m c a4");
}

#[test]
fn what_is_known_or_foreign_is_not_shown() {
    let mut follow = begun();
    assert_eq!(take(&mut follow, delta(1)), NEW);
    assert_eq!(take(&mut follow, delta(2)), NEW);
    for frame in [
        delta(1),
        delta(2),
        json!({"type": "content_delta", "seq": 3, "session_id": "other"}),
        json!({"type": "activity", "conversation_id": "s"}),
        json!({"type": "pong"}),
        json!({"type": "something_new"}),
    ] {
        assert_eq!(take(&mut follow, frame.clone()), Taken::Nothing, "{frame}");
    }
    assert_eq!(take(&mut follow, delta(3)), NEW);
    assert_eq!(sent(&mut follow), "");
}

#[test]
fn a_lost_connection_goes_on_behind_the_last_event() {
    let mut follow = begun();
    take(&mut follow, delta(1));
    take(&mut follow, delta(2));
    follow.connected();
    assert_eq!(sent(&mut follow), "a2 m a2");
    assert_eq!(take(&mut follow, resumed(4, false)), Taken::Nothing);
    assert_eq!(take(&mut follow, resumed(4, false)), Taken::Nothing);
    assert_eq!(take(&mut follow, delta(3)), NEW);
    assert_eq!(take(&mut follow, json!({"type": "error", "code": "interrupted", "seq": 4})), ENDED);
    // The second attach repeats what the first one gave.
    assert_eq!(take(&mut follow, delta(3)), Taken::Nothing);
    // Without a message only the attach.
    follow.connected();
    assert_eq!(sent(&mut follow), "a4");
}

#[test]
fn a_message_lost_with_its_connection_is_sent_again() {
    let mut follow = follow();
    follow.connected();
    follow.send("hi", "m1");
    sent(&mut follow);
    take(&mut follow, lost("e", 0, 0));
    let first = follow.take_out();
    follow.connected();
    let second = follow.take_out();
    assert_eq!(first[0], second[1], "the same message, under the same id");
    assert_eq!(take(&mut follow, lost("e", 0, 0)), Taken::Nothing);
    assert_eq!(take(&mut follow, resumed(0, true)), Taken::Nothing);
    assert_eq!(take(&mut follow, done(1)), ENDED);
    // A connection that ended before its first answer.
    let mut follow = Follow::new("s".to_owned(), None);
    follow.connected();
    follow.send("hi", "m1");
    follow.connected();
    assert_eq!(sent(&mut follow), "a*");
    take(&mut follow, resumed(7, false));
    assert_eq!(sent(&mut follow), "m a7");
}

#[test]
fn refusals_belong_to_the_message_only_until_it_is_accepted() {
    let refusal = |code: &str| json!({"type": "error", "code": code, "message": "no"});
    for (code, expected) in [("agent_not_found", Taken::Refused), ("interrupted", Taken::Nothing)] {
        let mut follow = follow();
        follow.connected();
        take(&mut follow, lost("e", 0, 0));
        follow.send("hi", "m1");
        assert_eq!(take(&mut follow, refusal(code)), expected);
        assert_eq!(follow.is_waiting(), expected == Taken::Nothing);
        assert_eq!(take(&mut follow, lost("e", 0, 0)), Taken::Nothing);
    }
    let mut follow = begun();
    assert_eq!(take(&mut follow, refusal("not_running")), Taken::Notice);
    assert!(follow.is_waiting());
    assert_eq!(take(&mut follow, refusal("storage_full")), Taken::Refused);
    assert_eq!(
        take(&mut follow, json!({"type": "error", "code": "permission_denied", "session_id": ""})),
        Taken::Notice
    );
}

#[test]
fn a_hole_is_asked_for_once_and_then_accepted() {
    let mut follow = begun();
    take(&mut follow, delta(1));
    assert_eq!(take(&mut follow, delta(4)), Taken::Nothing);
    assert_eq!(sent(&mut follow), "a1");
    assert_eq!(take(&mut follow, delta(5)), Taken::Nothing);
    assert_eq!(sent(&mut follow), "");
    assert_eq!(take(&mut follow, resumed(5, true)), Taken::Nothing);
    for seq in 2..=5 {
        assert_eq!(take(&mut follow, delta(seq)), NEW);
    }
    // A hub that cannot fill it: shown all the same, with the truth about it.
    assert_eq!(take(&mut follow, delta(9)), Taken::Nothing);
    take(&mut follow, resumed(9, true));
    assert_eq!(take(&mut follow, delta(9)), Taken::Event { missing: true, ended: false });
    assert_eq!(take(&mut follow, delta(10)), NEW);
}

#[test]
fn numbers_that_a_machine_crash_skipped_are_no_hole() {
    let mut follow = begun();
    take(&mut follow, delta(1));
    take(&mut follow, delta(2));
    let skipped = |seq: u64, kept: u64| json!({"type": "error", "code": "interrupted", "seq": seq, "prev_seq": kept});
    assert_eq!(take(&mut follow, skipped(16_385, 2)), ENDED);
    // The last second went with the power: we saw more than the hub kept.
    assert_eq!(take(&mut follow, skipped(32_769, 9_000)), NEW);
    // What the hub kept and we did not see is a hole.
    assert_eq!(take(&mut follow, skipped(50_000, 40_000)), Taken::Nothing);
    assert_eq!(sent(&mut follow), "a32769");
}

#[test]
fn a_tail_that_is_still_kept_goes_on_behind_the_hole() {
    let mut follow = begun();
    take(&mut follow, delta(1));
    follow.connected();
    sent(&mut follow);
    assert_eq!(take(&mut follow, lost("e", 10, 12)), Taken::Lost);
    assert_eq!(take(&mut follow, lost("e", 10, 12)), Taken::Lost);
    assert_eq!(sent(&mut follow), "a9");
    assert_eq!(take(&mut follow, resumed(12, false)), Taken::Nothing);
    assert_eq!(take(&mut follow, delta(10)), NEW);
    assert_eq!(take(&mut follow, delta(11)), NEW);
    assert_eq!(take(&mut follow, done(12)), ENDED);
}

#[test]
fn another_numbering_starts_afresh() {
    let mut follow = begun();
    for seq in 1..=5 {
        take(&mut follow, delta(seq));
    }
    follow.connected();
    sent(&mut follow);
    assert_eq!(take(&mut follow, lost("f", 1, 2)), Taken::Lost);
    assert_eq!(take(&mut follow, lost("f", 1, 2)), Taken::Nothing);
    assert_eq!(take(&mut follow, delta(1)), Taken::Nothing);
    assert_eq!(sent(&mut follow), "a2");
    assert_eq!(take(&mut follow, resumed(2, false)), Taken::Settled);
    assert!(!follow.is_waiting());
    assert_eq!(take(&mut follow, delta(3)), NEW);
}

#[test]
fn a_deleted_conversation_ends_the_wait() {
    let mut follow = begun();
    take(&mut follow, delta(1));
    follow.probe();
    assert_eq!(take(&mut follow, lost("e", 0, 0)), Taken::Settled);
}

#[test]
fn turns_ahead_are_not_ours() {
    let mut follow = follow();
    follow.connected();
    take(&mut follow, resumed(10, true));
    follow.send("hi", "m1");
    assert_eq!(take(&mut follow, delta(11)), NEW);
    assert_eq!(take(&mut follow, json!({"type": "queued", "position": 1})), Taken::Queued(1));
    assert!(!follow.is_uncertain(), "the attach behind the message is not answered yet");
    take(&mut follow, resumed(11, true));
    assert!(follow.is_uncertain());
    assert_eq!(take(&mut follow, done(12)), NEW);
    assert!(!follow.is_uncertain() && follow.is_waiting());
    assert_eq!(take(&mut follow, delta(13)), NEW);
    assert_eq!(take(&mut follow, done(14)), ENDED);
}

#[test]
fn a_turn_ahead_that_ended_meanwhile_is_found_out() {
    let mut follow = follow();
    follow.connected();
    take(&mut follow, resumed(10, true));
    follow.send("hi", "m1");
    take(&mut follow, json!({"type": "queued", "position": 2}));
    take(&mut follow, resumed(10, true));
    assert_eq!(take(&mut follow, done(11)), NEW);
    // Ours was this one; the hub had counted a turn that was just ending.
    assert_eq!(take(&mut follow, done(12)), NEW);
    follow.waiting.as_mut().unwrap().ahead = 1;
    assert!(follow.is_uncertain());
    follow.probe();
    assert_eq!(take(&mut follow, resumed(12, false)), Taken::Settled);
}
