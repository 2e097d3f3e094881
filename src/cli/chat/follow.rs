//! Following one conversation: what is new, what is known already, what is missing, and when our message is answered.
//! Pure: frames go in, and frames to be sent come out.
//!
//! Whatever is sent is followed by an attach at the last number seen. Its answer says that the hub has read what came
//! before, and whether a turn still runs; so a message is neither lost nor sent twice, and no turn is waited for in
//! vain. What an attach repeats is recognised by its number.

use super::frame::{self, Frame};

/// Attaches to what comes, without anything of before: no number is greater.
const FROM_NOW_ON: i64 = i64::MAX;

/// What a frame means to the conversation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Of another conversation, known already, or for this machinery alone.
    Nothing,
    /// A new event. `missing`: others before it are lost. `ended`: our message is answered, or has failed.
    Event { missing: bool, ended: bool },
    /// Our message is over, but its last event was seen before or is lost.
    Settled,
    /// Our message was not accepted.
    Refused,
    /// Our message waits; so many turns come before.
    Queued(u64),
    /// The hub no longer has all events; what follows goes on behind the hole.
    Lost,
    /// An error that concerns something else than our message.
    Notice,
}

/// One conversation, seen from this client.
pub(super) struct Follow {
    session_id: String,
    agent: Option<String>,
    epoch: Option<String>,
    /// None until the hub has said where the conversation stands.
    last_seq: Option<u64>,
    /// Attaches that are not answered yet.
    attaches: u32,
    /// Frames were missing, and the hub was asked for them.
    gap: bool,
    waiting: Option<Waiting>,
    /// To be sent, in order.
    out: Vec<String>,
}

/// Our message, until its turn is over.
struct Waiting {
    request: String,
    sent: bool,
    /// The hub has it.
    accepted: bool,
    /// Turns of others before it.
    ahead: u64,
    /// Nothing runs any more, says the hub: with this number its turn is over.
    settle_at: Option<u64>,
    cancelled: bool,
}

impl Follow {
    /// A conversation that may or may not exist yet.
    pub(super) fn new(session_id: String, agent: Option<String>) -> Self {
        Self { session_id, agent, epoch: None, last_seq: None, attaches: 0, gap: false, waiting: None, out: Vec::new() }
    }

    pub(super) fn session_id(&self) -> &str {
        &self.session_id
    }

    pub(super) fn agent(&self) -> Option<&str> {
        self.agent.as_deref()
    }

    /// Whether a message of ours is not answered yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether it may be answered already without our knowing: the turns ahead are counted by a hub on which they may
    /// have ended meanwhile. [`Follow::probe`] finds out.
    pub(super) fn is_uncertain(&self) -> bool {
        self.attaches == 0 && self.waiting.as_ref().is_some_and(|waiting| waiting.ahead > 0)
    }

    /// What is to be sent now, in order.
    pub(super) fn take_out(&mut self) -> Vec<String> {
        std::mem::take(&mut self.out)
    }

    /// A connection is up: goes on where the last one ended.
    pub(super) fn connected(&mut self) {
        self.out.clear();
        self.attaches = 0;
        self.gap = false;
        self.attach();
        if self.last_seq.is_some() {
            self.send_waiting();
        }
    }

    /// Sends a message. One at a time.
    pub(super) fn send(&mut self, message: &str, message_id: &str) {
        let request = frame::chat_request(&self.session_id, self.agent.as_deref(), message, message_id);
        self.waiting =
            Some(Waiting { request, sent: false, accepted: false, ahead: 0, settle_at: None, cancelled: false });
        // Attaching behind the message at an unknown number could skip its first events.
        if self.last_seq.is_some() {
            self.send_waiting();
        }
    }

    /// Whether what runs now comes before our message.
    pub(super) fn is_behind(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.ahead > 0)
    }

    /// Asks to end the running turn, on the next connection again if this one breaks.
    pub(super) fn cancel(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.cancelled = true;
        }
        self.out.push(frame::cancel(&self.session_id));
    }

    /// Asks where the conversation stands.
    pub(super) fn probe(&mut self) {
        self.attach();
    }

    /// Takes a frame in.
    pub(super) fn take(&mut self, frame: &Frame) -> Taken {
        if frame.session_id != self.session_id {
            let nobodys = frame.kind == "error" && frame.session_id.is_empty();
            return if nobodys { Taken::Notice } else { Taken::Nothing };
        }
        match (frame.kind.as_str(), frame.seq) {
            (_, Some(seq)) => self.event(frame, seq),
            ("resumed", None) => self.resumed(frame),
            ("error", None) if frame.code == "replay_unavailable" => self.unavailable(frame),
            ("error", None) => self.refused(frame),
            ("queued", None) => match &mut self.waiting {
                Some(waiting) if waiting.sent => {
                    waiting.accepted = true;
                    waiting.ahead = frame.position;
                    Taken::Queued(frame.position)
                }
                _ => Taken::Nothing,
            },
            _ => Taken::Nothing,
        }
    }

    fn event(&mut self, frame: &Frame, seq: u64) -> Taken {
        // Before the hub has said where we stand, what comes belongs to an earlier attach.
        let Some(last) = self.last_seq.filter(|&last| seq > last) else {
            return Taken::Nothing;
        };
        let explained = seq == last + 1 || frame.prev_seq.is_some_and(|kept| kept <= last);
        if !explained && !self.gap {
            self.gap = true;
            self.attach();
            return Taken::Nothing;
        }
        if !explained && self.attaches > 0 {
            return Taken::Nothing; // comes again, behind what is missing
        }
        self.gap = false;
        self.last_seq = Some(seq);
        let ended = self.ends_ours(frame, seq);
        if ended {
            self.waiting = None;
        }
        Taken::Event { missing: !explained, ended }
    }

    fn ends_ours(&mut self, frame: &Frame, seq: u64) -> bool {
        let Some(waiting) = self.waiting.as_mut().filter(|waiting| waiting.sent) else {
            return false;
        };
        if waiting.settle_at.is_some_and(|at| seq >= at) {
            return true;
        }
        if frame.is_terminal() && waiting.ahead > 0 {
            waiting.ahead -= 1;
            return false;
        }
        frame.is_terminal()
    }

    fn resumed(&mut self, frame: &Frame) -> Taken {
        self.attaches = self.attaches.saturating_sub(1);
        self.epoch = Some(frame.epoch.clone());
        if self.last_seq.is_none() {
            self.last_seq = Some(frame.last_seq);
            self.send_waiting();
            return Taken::Nothing;
        }
        let Some(waiting) = self.waiting.as_mut().filter(|waiting| waiting.sent && self.attaches == 0) else {
            return Taken::Nothing;
        };
        waiting.accepted = true;
        waiting.settle_at = (!frame.live).then_some(frame.last_seq);
        if waiting.settle_at.is_some_and(|at| self.last_seq >= Some(at)) {
            self.waiting = None;
            return Taken::Settled;
        }
        Taken::Nothing
    }

    fn unavailable(&mut self, frame: &Frame) -> Taken {
        self.attaches = self.attaches.saturating_sub(1);
        let other_epoch = self.epoch.as_ref().is_some_and(|known| *known != frame.epoch);
        self.epoch = Some(frame.epoch.clone());
        let known = self.last_seq;
        let told_before = !other_epoch && known == Some(frame.last_seq);
        if known.unwrap_or(0) == 0 && frame.last_seq == 0 {
            // A conversation that begins with our message.
            self.last_seq = Some(0);
            if known.is_none() {
                self.send_waiting();
            }
            return Taken::Nothing;
        }
        self.last_seq = Some(match known {
            Some(last) if !other_epoch && frame.oldest_seq > 0 => last.max(frame.oldest_seq - 1),
            // Another numbering: of its kept tail nobody knows what was seen already.
            _ => frame.last_seq,
        });
        if self.waiting.as_ref().is_some_and(|waiting| !waiting.sent) {
            self.send_waiting();
        } else if self.waiting.is_some() && self.attaches == 0 {
            if frame.last_seq == 0 {
                // The conversation was deleted, and our turn with it.
                self.waiting = None;
                return Taken::Settled;
            }
            self.attach();
        }
        if told_before { Taken::Nothing } else { Taken::Lost }
    }

    fn refused(&mut self, frame: &Frame) -> Taken {
        match &self.waiting {
            // The hub is stopping: the next one gets the message again.
            Some(waiting) if !waiting.accepted && frame.code == "interrupted" => Taken::Nothing,
            Some(waiting) if (waiting.sent && !waiting.accepted) || frame.code == "storage_full" => {
                self.waiting = None;
                Taken::Refused
            }
            _ => Taken::Notice,
        }
    }

    fn send_waiting(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.sent = true;
            waiting.settle_at = None;
            self.out.push(waiting.request.clone());
            if waiting.cancelled {
                self.out.push(frame::cancel(&self.session_id));
            }
            self.attach();
        }
    }

    fn attach(&mut self) {
        let after = self.last_seq.map_or(FROM_NOW_ON, |last| i64::try_from(last).unwrap_or(FROM_NOW_ON));
        let epoch = self.epoch.as_deref().filter(|epoch| !epoch.is_empty());
        self.attaches += 1;
        self.out.push(frame::attach(&self.session_id, after, epoch));
    }
}

#[cfg(test)]
mod tests {
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
        let skipped =
            |seq: u64, kept: u64| json!({"type": "error", "code": "interrupted", "seq": seq, "prev_seq": kept});
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
}
