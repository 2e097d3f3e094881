//! Running turns: a thread or a place in the line for each, one at a time per session, and an end that is in the log.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::chat::ChatError;
use crate::chat::engine::{Engine, Finished, Inner, Retry};
use crate::chat::event::ChatEvent;
use crate::chat::session::{EndReason, Outcome, Running, Session, Ticket, Waiting};
use crate::chat::stream::Commit;
use crate::chat::turn::{TurnEnd, TurnRun, interrupted};
use crate::limits;
use crate::metrics;
use crate::rt::{Cancel, json, lock};
use crate::store::StoreError;
use crate::store::turns::{Closed, Reservation, TurnRow};

#[derive(Default)]
pub(super) struct Slots {
    pub(super) running: usize,
    started: u64,
    pub(super) waiting: VecDeque<Job>,
}

/// A claimed session with a turn whose row says `running`.
pub(super) struct Job {
    pub(super) session: Arc<Session>,
    pub(super) turn: TurnRow,
    pub(super) cancel: Cancel,
    reason: EndReason,
    /// It was parked and goes on.
    resumed: bool,
}

impl Job {
    fn new(session: Arc<Session>, turn: TurnRow, running: &Running) -> Self {
        Self { session, turn, cancel: running.cancel.clone(), reason: running.reason.clone(), resumed: false }
    }

    /// A turn that was parked in its session.
    pub(super) fn resumed(session: Arc<Session>, turn: TurnRow, running: &Running) -> Self {
        Self { resumed: true, ..Self::new(session, turn, running) }
    }
}

impl Engine {
    /// The claimed session gets its turn: a thread, or a place among those that wait for a slot.
    pub(super) fn begin(
        &self,
        session: &Arc<Session>,
        turn: TurnRow,
        after_seq: u64,
        mut tickets: Vec<Box<dyn Ticket>>,
    ) {
        for ticket in &mut tickets {
            ticket.started(after_seq);
        }
        let job = {
            let mut state = lock(&session.state);
            let running = state.running.get_or_insert_with(Running::claim);
            running.turn_id = turn.id;
            running.after_seq = after_seq;
            running.started = true;
            running.tickets.append(&mut tickets);
            let late = state.take_late(turn.id);
            let running = state.running.get_or_insert_with(Running::claim);
            running.tickets.extend(late.into_iter().map(|mut ticket| {
                ticket.started(after_seq);
                ticket
            }));
            Job::new(Arc::clone(session), turn, running)
        };
        self.run_job(job);
    }

    pub(super) fn run_job(&self, job: Job) {
        let (job, number) = {
            let mut slots = lock(&self.inner.slots);
            if slots.running >= self.inner.settings().turns_max {
                slots.waiting.push_back(job);
                return;
            }
            slots.running += 1;
            slots.started += 1;
            (Arc::new(Mutex::new(Some(job))), slots.started)
        };
        let engine = self.clone();
        let handed = Arc::clone(&job);
        let spawned = self.inner.threads.spawn(&format!("turn-{number}"), limits::WORKER_STACK_BYTES, move || {
            let mut next = lock(&handed).take();
            while let Some(job) = next {
                engine.run_turn(job);
                next = engine.next_job();
            }
        });
        if let Err(error) = spawned {
            // The system has no thread to give: the message fails, truthfully, and its slot is free again.
            log::error!("start a turn: {error}");
            lock(&self.inner.slots).running -= 1;
            if let Some(job) = lock(&job).take() {
                let message = "the hub has no thread for this turn; try again".to_owned();
                self.finish(&job, Outcome { error: Some(("internal", message)), text: String::new() });
            }
        }
    }

    /// Another job for the thread of a turn that ended; None gives its slot back.
    fn next_job(&self) -> Option<Job> {
        let mut slots = lock(&self.inner.slots);
        let next = if self.inner.stop.is_set() { None } else { slots.waiting.pop_front() };
        if next.is_none() {
            slots.running -= 1;
        }
        next
    }

    fn run_turn(&self, job: Job) {
        let run = TurnRun {
            inner: &self.inner,
            stream: &job.session.stream,
            turn: &job.turn,
            cancel: &job.cancel,
            reason: &job.reason,
            resumed: job.resumed,
        };
        let (agent, started) = ([job.turn.agent.as_str()], Instant::now());
        metrics::ACTIVE.add(&agent, 1.0);
        let end = catch_unwind(AssertUnwindSafe(|| run.run())).unwrap_or_else(|_| {
            log::error!("turn {} of session {} panicked", job.turn.id, job.turn.conversation_id);
            let error = Some(("internal", "failed to process message".to_owned()));
            TurnEnd::Over(Outcome { error, text: String::new() })
        });
        metrics::ACTIVE.add(&agent, -1.0);
        metrics::CHAT_SECONDS.observe(&agent, started.elapsed().as_secs_f64());
        if matches!(end, TurnEnd::Over(_)) {
            metrics::MESSAGES.add(&[agent[0], &job.turn.origin], 1.0);
        }
        match end {
            TurnEnd::Over(outcome) => self.finish(&job, outcome),
            TurnEnd::Parked => self.park(job, true),
            TurnEnd::StillParked => self.park(job, false),
        }
    }

    /// Logs the terminal frame, tells whoever waits, and starts what is queued.
    pub(super) fn finish(&self, job: &Job, outcome: Outcome) {
        if outcome.error.is_some()
            && let Err(error) = self.inner.approvals.abandon(job.turn.id, "its turn has ended")
        {
            log::error!("end the requests of turn {}: {error}", job.turn.id);
        }
        Self::set_finishing(job, true);
        let settled = self.log_terminal(job, &outcome);
        let last_seq = job.session.stream.last_seq();
        if settled {
            let code = outcome.error.as_ref().map_or("", |(code, _)| code);
            lock(&self.inner.closed).push(Closed {
                turn_id: job.turn.id,
                conversation_id: job.turn.conversation_id.clone(),
                outcome: code.to_owned(),
                last_seq,
            });
        }
        let deleted = {
            let mut state = lock(&job.session.state);
            state.deleted_turn.take_if(|turn_id| *turn_id == job.turn.id).is_some()
        };
        if deleted {
            // Before the session is free: the frames of a next turn are not meant.
            self.inner.streams.forget(&job.turn.conversation_id, last_seq);
        }
        let tickets = {
            let mut state = lock(&job.session.state);
            state.used = Instant::now();
            let mut tickets = state.running.take().map(|running| running.tickets).unwrap_or_default();
            tickets.extend(state.take_late(job.turn.id));
            tickets
        };
        job.session.freed.notify_all();
        for mut ticket in tickets {
            ticket.ended(&outcome);
        }
        if let Some(observer) = self.inner.observer.get().filter(|_| !deleted) {
            observer(&Finished {
                conversation_id: job.turn.conversation_id.clone(),
                agent: job.turn.agent.clone(),
                origin: job.turn.origin.clone(),
            });
        }
        self.start_next(&job.session);
    }

    fn set_finishing(job: &Job, finishing: bool) {
        if let Some(running) = lock(&job.session.state).running.as_mut() {
            running.finishing = finishing;
        }
        job.session.freed.notify_all();
    }

    /// The terminal frame must be in the log. While that fails (disk full) watchers are told once by a frame outside
    /// the log, and the session stays busy until it can be written; false when the hub stops before.
    fn log_terminal(&self, job: &Job, outcome: &Outcome) -> bool {
        let stream = &job.session.stream;
        let mut told = false;
        loop {
            // After a failure the frames of the answer may be lost: the whole text goes with its end.
            if Self::try_log_terminal(job, outcome, told) {
                return true;
            }
            if !told {
                told = true;
                Self::set_finishing(job, false);
                Self::tell_of_full_disk(job, outcome);
            }
            if self.inner.stop.wait(Duration::from_secs(1)) {
                return false;
            }
            stream.clear_failure();
        }
    }

    fn try_log_terminal(job: &Job, outcome: &Outcome, again: bool) -> bool {
        let stream = &job.session.stream;
        let mut events = Vec::with_capacity(2);
        match &outcome.error {
            None if again => events.extend([ChatEvent::Content { text: outcome.text.clone() }, ChatEvent::Done]),
            None => events.push(ChatEvent::Done),
            Some((code, message)) => events.push(ChatEvent::Error { code, message: message.clone() }),
        }
        let mut last = 0;
        for event in &events {
            match stream.emit(event) {
                Ok(seq) => last = seq,
                Err(_) => return false,
            }
            stream.announce();
        }
        loop {
            match stream.wait_committed(last, limits::STOP_TOTAL) {
                Commit::Done => return true,
                Commit::Failed => return false,
                // A slow disk: the frame is on its way, another one would be a second end.
                Commit::Late => log::warn!("the event log is slow: turn {} waits for its end", job.turn.id),
            }
        }
    }

    fn tell_of_full_disk(job: &Job, outcome: &Outcome) {
        let stream = &job.session.stream;
        let message = "the hub cannot write its event log, probably because its disk is full; what is missing of this turn \
                       follows when there is room";
        stream.notice(&json::to_vec(&serde_json::json!({
            "type": "error", "code": "storage_full", "session_id": stream.id(), "message": message,
        })));
        let failed = Outcome { error: Some(("storage_full", message.to_owned())), text: outcome.text.clone() };
        let tickets = lock(&job.session.state).running.as_mut().map(|running| std::mem::take(&mut running.tickets));
        for mut ticket in tickets.unwrap_or_default() {
            ticket.ended(&failed);
        }
    }

    /// Ends a turn that has no thread of its own: the caller's has other things to do than to wait for the log.
    pub(super) fn finish_elsewhere(&self, job: Job, outcome: Outcome) {
        let engine = self.clone();
        let handed = Arc::new(Mutex::new(Some((job, outcome))));
        let taken = Arc::clone(&handed);
        let body = move || {
            if let Some((job, outcome)) = lock(&taken).take() {
                engine.finish(&job, outcome);
            }
        };
        if self.inner.threads.spawn("turn-end", limits::WORKER_STACK_BYTES, body).is_err()
            && let Some((job, outcome)) = lock(&handed).take()
        {
            self.finish(&job, outcome);
        }
    }

    /// A cancelled turn that only waits for a slot ends now, not when there is one.
    pub(super) fn end_cancelled_job(&self, session_id: &str) {
        let job = {
            let mut slots = lock(&self.inner.slots);
            let place =
                slots.waiting.iter().position(|job| job.turn.conversation_id == session_id && job.cancel.is_set());
            place.and_then(|place| slots.waiting.remove(place))
        };
        if let Some(job) = job {
            let error = Some(("cancelled", "the turn was cancelled".to_owned()));
            self.finish_elsewhere(job, Outcome { error, text: String::new() });
        }
    }

    /// Starts the oldest waiting message of an idle session.
    pub(super) fn start_next(&self, session: &Arc<Session>) {
        loop {
            if self.inner.stop.is_set() {
                return;
            }
            let waiting = {
                let mut state = lock(&session.state);
                // Asked under the lock that a panic takes to see what runs: one of both sees the other.
                if state.running.is_some() || self.inner.is_panicked() {
                    return;
                }
                let Some(waiting) = state.waiting.pop_front() else {
                    return;
                };
                state.running = Some(Running::claim());
                waiting
            };
            let Waiting { mut turn, tickets } = waiting;
            let (after_seq, until) = session.stream.plan_start();
            let reservation = Reservation { until, boot_id: &self.inner.streams.boot_id, used_seq: after_seq };
            match self.inner.turns.start(&turn, after_seq, &reservation) {
                Ok(message) => {
                    session.stream.set_reserved(until);
                    turn.user_message = Some(message);
                    turn.after_seq = Some(after_seq);
                    self.begin(session, turn, after_seq, tickets);
                    return;
                }
                Err(error @ (StoreError::Full | StoreError::Busy)) => {
                    // Accepted is accepted: it keeps its place, and the keeper tries again.
                    log::error!("start the queued turn {}: {error}; trying again", turn.id);
                    let mut state = lock(&session.state);
                    state.running = None;
                    state.waiting.push_front(Waiting { turn, tickets });
                    drop(state);
                    lock(&self.inner.retries).push(Retry::StartNext(Arc::clone(session)));
                    return;
                }
                Err(error) => {
                    log::error!("start the queued turn {}: {error}", turn.id);
                    lock(&session.state).running = None;
                    let outcome = Outcome {
                        error: Some(("internal", format!("{}", ChatError::Store(error)))),
                        text: String::new(),
                    };
                    for mut ticket in tickets {
                        ticket.ended(&outcome);
                    }
                }
            }
        }
    }
}

impl Inner {
    /// The code of a turn whose end is noted but not yet in its row; empty for success.
    pub(super) fn noted_outcome(&self, turn_id: i64) -> Option<String> {
        lock(&self.closed).iter().find(|closed| closed.turn_id == turn_id).map(|closed| closed.outcome.clone())
    }

    /// Notes a turn whose end is in the log, or that recovery has ended.
    pub(super) fn note_end(&self, turn: &TurnRow, failed: bool, last_seq: u64) {
        let outcome = if failed { interrupted().0 } else { "" };
        lock(&self.closed).push(Closed {
            turn_id: turn.id,
            conversation_id: turn.conversation_id.clone(),
            outcome: outcome.to_owned(),
            last_seq,
        });
    }
}
