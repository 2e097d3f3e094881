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
#[path = "follow_tests.rs"]
mod tests;
