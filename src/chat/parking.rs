//! Turns that wait for somebody's decision (architecture section 5): no thread, no slot, only rows and a place in their
//! session. They go on when everything they asked for is decided, by whomever, also after a restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::chat::ChatError;
use crate::chat::engine::Engine;
use crate::chat::event::ChatEvent;
use crate::chat::interrupted::{read_remains, settle_events};
use crate::chat::round::summary;
use crate::chat::run::Job;
use crate::chat::session::{Outcome, Parked, Running, Session};
use crate::chat::turn::push_paragraph;
use crate::rt::lock;
use crate::store::StoreError;
use crate::store::turns::{Reservation, TurnRow};

impl Engine {
    /// The thread of a turn has stored its round and asked: the turn waits in its session. `at_once`: what was decided in
    /// between counts now, otherwise when the keeper looks.
    pub(super) fn park(&self, job: Job, at_once: bool) {
        let turn_id = job.turn.id;
        {
            let mut state = lock(&job.session.state);
            let Some(running) = state.running.as_mut() else { return };
            running.parked = Some(Parked { turn: Box::new(job.turn), since: Instant::now() });
            running.tickets.retain_mut(|ticket| ticket.parked(Duration::ZERO));
        }
        // Whoever decided or cancelled in between found nobody here. A stop leaves it parked.
        if job.cancel.is_set() {
            self.end_cancelled_parked(&job.session);
        } else if at_once {
            self.resume_decided(&[turn_id]);
        }
    }

    /// Lets turns go on for which everything is decided; the others keep waiting.
    pub(super) fn resume_decided(&self, turns: &[i64]) {
        for turn_id in turns {
            if self.inner.stop.is_set() || self.inner.is_panicked() {
                return; // the rows say it all: they go on after the restart, or when the panic is over
            }
            match self.inner.parked.waiting(*turn_id) {
                Ok(Some((conversation_id, 0))) => match self.session(&conversation_id) {
                    Ok(session) => self.resume(&session, *turn_id),
                    Err(error) => log::error!("resume turn {turn_id}: {error}; trying again"),
                },
                Ok(_) => {}
                Err(error) => log::error!("resume turn {turn_id}: {error}; trying again"),
            }
        }
    }

    /// The one who takes the turn out of its place runs it.
    fn resume(&self, session: &Arc<Session>, turn_id: i64) {
        let job = {
            let mut state = lock(&session.state);
            let Some(running) = state.running.as_mut().filter(|running| running.turn_id == turn_id) else { return };
            if self.inner.is_panicked() {
                return; // asked under the lock that a panic takes to see what runs
            }
            let Some(parked) = running.parked.take() else { return };
            Job::resumed(Arc::clone(session), *parked.turn, running)
        };
        self.run_job(job);
    }

    /// A cancelled turn that only waits ends now; what it asked for ends with it. One that a stop cut short stays.
    pub(super) fn end_cancelled_parked(&self, session: &Arc<Session>) {
        let job = {
            let mut state = lock(&session.state);
            let ends = |running: &&mut Running| running.cancel.is_set() && !running.reason.is_stopping();
            let Some(running) = state.running.as_mut().filter(ends) else { return };
            let Some(parked) = running.parked.take() else { return };
            Job::resumed(Arc::clone(session), *parked.turn, running)
        };
        // First the row: from here on no decision counts, and a restart ends the turn instead of asking again.
        if let Err(error) = self.inner.parked.give_up(job.turn.id, "its turn was cancelled") {
            log::error!("end the requests of turn {}: {error}", job.turn.id);
        }
        let text = self.keep_text(&job.turn);
        let error = Some(("cancelled", "the turn was cancelled".to_owned()));
        self.finish_elsewhere(job, Outcome { error, text });
    }

    /// What the model said before it asked is kept as the answer of a turn that ends here.
    fn keep_text(&self, turn: &TurnRow) -> String {
        let mut text = String::new();
        let steps = self.inner.turns.steps(&turn.conversation_id, turn.id).unwrap_or_default();
        let calls = self.inner.parked.calls(turn.id).unwrap_or_default();
        for said in steps.iter().map(|step| &step.said).chain(calls.iter().map(|call| &call.said)) {
            push_paragraph(&mut text, said);
        }
        if !text.is_empty()
            && let Err(error) = self.inner.turns.answer(turn.id, &turn.conversation_id, &text, 0, 0.0)
            && !matches!(error, StoreError::NotFound)
        {
            log::error!("store the partial answer of turn {}: {error}", turn.id);
        }
        text
    }

    /// After a restart: the turn is back in its place, and whoever follows sees what it asked for.
    pub(super) fn restore_parked(&self, session: &Arc<Session>, turn: &TurnRow) -> Result<(), ChatError> {
        let remains = read_remains(&self.inner, turn)?;
        if remains.finished || turn.assistant_message.is_some() {
            self.inner.note_end(turn, remains.failed, session.stream().last_seq());
            return Ok(self.inner.approvals.abandon(turn.id, "its turn has ended")?);
        }
        let asked: Vec<ChatEvent> = self
            .inner
            .parked
            .calls(turn.id)?
            .into_iter()
            .filter_map(|call| {
                let approval_id = call.approval_id.filter(|id| !remains.asked.contains(id))?;
                Some(ChatEvent::ToolApproval {
                    text: summary(&call.tool, &call.shown),
                    tool: call.tool,
                    round: call.round,
                    tool_id: call.tool_id,
                    approval_id: Some(approval_id),
                })
            })
            .collect();
        let mut running = Running::claim();
        running.turn_id = turn.id;
        running.started = true;
        running.after_seq = turn.after_seq.unwrap_or_else(|| session.stream().last_seq());
        running.parked = Some(Parked { turn: Box::new(turn.clone()), since: Instant::now() });
        lock(&session.state).running = Some(running);
        if !asked.is_empty() {
            let (used_seq, until) = session.stream().plan_start();
            let reservation = Reservation { until, boot_id: &self.inner.streams.boot_id, used_seq };
            self.inner.turns.reserve(session.stream().id(), &reservation)?;
            session.stream().set_reserved(until);
            settle_events(session, &asked, turn.id)?;
        }
        Ok(())
    }

    /// The keeper's part: time that is over, decisions of other processes, answers that wait for too long.
    pub(super) fn keep_parked(&self) {
        let sessions: Vec<Arc<Session>> = lock(&self.inner.sessions).values().cloned().collect();
        let mut any = false;
        for session in sessions {
            let mut state = lock(&session.state);
            if let Some(running) = state.running.as_mut() {
                running.tickets.retain_mut(|ticket| ticket.waits());
            }
            for waiting in &mut state.waiting {
                waiting.tickets.retain_mut(|ticket| ticket.waits());
            }
            if let Some(running) = state.running.as_mut()
                && let Some(parked) = &running.parked
            {
                any = true;
                let waited = parked.since.elapsed();
                running.tickets.retain_mut(|ticket| ticket.parked(waited));
                // Who stands behind it waits for the same decision.
                for waiting in &mut state.waiting {
                    waiting.tickets.retain_mut(|ticket| ticket.parked(waited));
                }
            }
        }
        if !any {
            return;
        }
        if let Err(error) = self.inner.approvals.expire_due() {
            log::warn!("end requests for approval that are due: {error}");
        }
        match self.inner.parked.decided() {
            Ok(turns) => self.resume_decided(&turns),
            Err(error) => log::warn!("look for decided turns: {error}"),
        }
    }

    /// How many turns run, wait for their start, and wait for a decision.
    pub fn turn_counts(&self) -> [usize; 3] {
        let sessions: Vec<Arc<Session>> = lock(&self.inner.sessions).values().cloned().collect();
        let (mut queued, mut parked) = (0, 0);
        for session in sessions {
            let state = lock(&session.state);
            queued += state.waiting.len();
            parked += usize::from(state.running.as_ref().is_some_and(|running| running.parked.is_some()));
        }
        let slots = lock(&self.inner.slots);
        [slots.running, queued + slots.waiting.len(), parked]
    }

    /// Turns whose conversation another process has deleted have no row to wait for any more.
    pub(super) fn end_deleted_parked(&self) {
        let sessions: Vec<Arc<Session>> = lock(&self.inner.sessions).values().cloned().collect();
        for session in sessions {
            let parked = lock(&session.state).running.as_ref().filter(|r| r.parked.is_some()).map(|r| r.turn_id);
            if let Some(turn_id) = parked
                && matches!(self.inner.turns.get(turn_id), Ok(None))
            {
                if let Some(running) = lock(&session.state).running.as_ref() {
                    running.cancel.cancel();
                }
                self.end_cancelled_parked(&session);
            }
        }
    }
}
