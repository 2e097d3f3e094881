//! Running turns: a thread or a place in the line for each, one at a time per session, and an end that is in the log.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::chat::ChatError;
use crate::chat::engine::{Engine, Finished, Inner};
use crate::chat::event::ChatEvent;
use crate::chat::session::{EndReason, Outcome, Running, Session, Ticket, Waiting};
use crate::chat::turn::{TurnRun, interrupted};
use crate::limits;
use crate::rt::{Cancel, json, lock};
use crate::store::turns::{Closed, Reservation, TurnRow};

#[derive(Default)]
pub(super) struct Slots {
    pub(super) running: usize,
    started: u64,
    pub(super) waiting: VecDeque<Job>,
}

/// A claimed session with a turn whose row says `running`.
pub(super) struct Job {
    session: Arc<Session>,
    turn: TurnRow,
    cancel: Cancel,
    reason: EndReason,
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
            Job { session: Arc::clone(session), turn, cancel: running.cancel.clone(), reason: running.reason.clone() }
        };
        self.run_job(job);
    }

    fn run_job(&self, job: Job) {
        let (job, number) = {
            let mut slots = lock(&self.inner.slots);
            if slots.running >= self.inner.settings.turns_max {
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
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| run.run())).unwrap_or_else(|_| {
            log::error!("turn {} of session {} panicked", job.turn.id, job.turn.conversation_id);
            Outcome { error: Some(("internal", "failed to process message".to_owned())), text: String::new() }
        });
        self.finish(&job, outcome);
    }

    /// Logs the terminal frame, tells whoever waits, and starts what is queued.
    fn finish(&self, job: &Job, outcome: Outcome) {
        let event = match &outcome.error {
            None => ChatEvent::Done,
            Some((code, message)) => ChatEvent::Error { code, message: message.clone() },
        };
        self.set_finishing(job, true);
        let settled = self.log_terminal(job, &event, &outcome);
        if settled {
            let code = outcome.error.as_ref().map_or("", |(code, _)| code);
            lock(&self.inner.closed).push(Closed {
                turn_id: job.turn.id,
                conversation_id: job.turn.conversation_id.clone(),
                outcome: code.to_owned(),
                last_seq: job.session.stream.last_seq(),
            });
        }
        let (tickets, deleted) = {
            let mut state = lock(&job.session.state);
            state.used = Instant::now();
            (state.running.take().map(|running| running.tickets).unwrap_or_default(), state.deleted)
        };
        job.session.freed.notify_all();
        for mut ticket in tickets {
            ticket.ended(&outcome);
        }
        if deleted {
            self.inner.streams.forget(&job.turn.conversation_id, job.session.stream.last_seq());
        } else if let Some(observer) = self.inner.observer.get() {
            observer(&Finished {
                conversation_id: job.turn.conversation_id.clone(),
                agent: job.turn.agent.clone(),
                origin: job.turn.origin.clone(),
            });
        }
        self.start_next(&job.session);
    }

    fn set_finishing(&self, job: &Job, finishing: bool) {
        if let Some(running) = lock(&job.session.state).running.as_mut() {
            running.finishing = finishing;
        }
        job.session.freed.notify_all();
    }

    /// The terminal frame must be in the log. While that fails (disk full) watchers are told once by a frame outside
    /// the log, and the session stays busy until it can be written; false when the hub stops before.
    fn log_terminal(&self, job: &Job, event: &ChatEvent, outcome: &Outcome) -> bool {
        let stream = &job.session.stream;
        let mut told = false;
        loop {
            if let Ok(seq) = stream.emit(event) {
                stream.announce();
                if stream.wait_committed(seq, limits::STOP_TOTAL) {
                    return true;
                }
            }
            if !told {
                told = true;
                self.set_finishing(job, false);
                let message =
                    "the hub cannot write its event log, probably because its disk is full; this turn has failed";
                stream.notice(&json::to_vec(&serde_json::json!({
                    "type": "error", "code": "storage_full", "session_id": stream.id(), "message": message,
                })));
                let failed = Outcome { error: Some(("storage_full", message.to_owned())), text: outcome.text.clone() };
                let tickets = lock(&job.session.state).running.as_mut().map(|r| std::mem::take(&mut r.tickets));
                for mut ticket in tickets.unwrap_or_default() {
                    ticket.ended(&failed);
                }
            }
            if self.inner.stop.wait(Duration::from_secs(1)) {
                return false;
            }
            stream.clear_failure();
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
                if state.running.is_some() {
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
            let reservation = Reservation { until, boot_id: &self.inner.streams.boot_id };
            match self.inner.turns.start(&turn, after_seq, &reservation) {
                Ok(message) => {
                    session.stream.set_reserved(until);
                    turn.user_message = Some(message);
                    turn.after_seq = Some(after_seq);
                    self.begin(session, turn, after_seq, tickets);
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
    /// Notes a turn that recovery has ended.
    pub(super) fn note_interrupted(&self, turn: &TurnRow, last_seq: u64) {
        lock(&self.closed).push(Closed {
            turn_id: turn.id,
            conversation_id: turn.conversation_id.clone(),
            outcome: interrupted().0.to_owned(),
            last_seq,
        });
    }

    /// Notes a turn whose success was already in the log.
    pub(super) fn note_done(&self, turn: &TurnRow, last_seq: u64) {
        let closed = Closed {
            turn_id: turn.id,
            conversation_id: turn.conversation_id.clone(),
            outcome: String::new(),
            last_seq,
        };
        lock(&self.closed).push(closed);
    }
}
