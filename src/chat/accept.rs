//! Accepting a message: its row, its place, and what a repeat of it gets.

use std::sync::Arc;

use crate::agents::remote::Operation;
use crate::chat::ChatError;
use crate::chat::engine::{Engine, Submit, Submitted};
use crate::chat::session::{Outcome, Session, Ticket, Waiting};
use crate::rt::lock;
use crate::store::StoreError;
use crate::store::turns::{Accepted, NewTurn, Reservation, TurnRow};

impl Engine {
    pub(super) fn accept_running(
        &self,
        submit: &Submit<'_>,
        session: &Arc<Session>,
        ticket: Option<Box<dyn Ticket>>,
    ) -> Result<Submitted, ChatError> {
        let (after_seq, until) = session.stream.plan_start();
        let reservation = Reservation { until, boot_id: &self.inner.streams.boot_id, used_seq: after_seq };
        let accepted = self.inner.turns.accept(
            &new_turn(submit, session),
            &|owner| submit.caller.may_write(owner),
            Some((after_seq, &reservation)),
        );
        let turn = match accepted {
            Ok(Accepted::New(turn)) => *turn,
            other => {
                lock(&session.state).running = None;
                return self.not_new(other, ticket);
            }
        };
        session.stream.set_reserved(until);
        self.begin(session, turn, after_seq, ticket.into_iter().collect());
        Ok(Submitted { session: Arc::clone(session), after_seq, position: None, repeat: false })
    }

    pub(super) fn accept_waiting(
        &self,
        submit: &Submit<'_>,
        session: &Arc<Session>,
        ticket: Option<Box<dyn Ticket>>,
    ) -> Result<Submitted, ChatError> {
        let accepted =
            self.inner.turns.accept(&new_turn(submit, session), &|owner| submit.caller.may_write(owner), None);
        let turn = match accepted {
            Ok(Accepted::New(turn)) => *turn,
            other => {
                lock(&session.state).joining -= 1;
                return self.not_new(other, ticket);
            }
        };
        let position = {
            let mut state = lock(&session.state);
            state.joining -= 1;
            // Rows and places in the queue are in the same order, whoever gets the lock first.
            let place = state.waiting.iter().position(|other| other.turn.id > turn.id).unwrap_or(state.waiting.len());
            let mut tickets: Vec<Box<dyn Ticket>> = ticket.into_iter().collect();
            tickets.extend(state.take_late(turn.id));
            state.waiting.insert(place, Waiting { turn, tickets });
            place + 1
        };
        let after_seq = session.stream.last_seq();
        self.start_next(session); // the turn before may have ended meanwhile
        Ok(Submitted { session: Arc::clone(session), after_seq, position: Some(position), repeat: false })
    }

    fn not_new(
        &self,
        accepted: Result<Accepted, StoreError>,
        ticket: Option<Box<dyn Ticket>>,
    ) -> Result<Submitted, ChatError> {
        match accepted? {
            Accepted::Repeat(turn) => self.join_repeat(*turn, ticket),
            Accepted::Denied => Err(ChatError::Denied),
            Accepted::New(_) => Err(ChatError::Store(StoreError::NotFound)),
        }
    }

    /// A message that was accepted before: whoever repeats it hears of the same turn.
    pub(super) fn join_repeat(&self, turn: TurnRow, ticket: Option<Box<dyn Ticket>>) -> Result<Submitted, ChatError> {
        let session = self.session(&turn.conversation_id)?;
        let after_seq = turn.after_seq.unwrap_or_else(|| session.stream.last_seq());
        let mut submitted = Submitted { session: Arc::clone(&session), after_seq, position: None, repeat: true };
        let Some(mut ticket) = ticket else {
            return Ok(submitted);
        };
        let mut state = lock(&session.state);
        if let Some(running) = state.running.as_mut().filter(|running| running.turn_id == turn.id) {
            if running.started {
                ticket.started(running.after_seq);
            }
            running.tickets.push(ticket);
        } else if let Some(place) = state.waiting.iter().position(|waiting| waiting.turn.id == turn.id) {
            state.waiting[place].tickets.push(ticket);
            submitted.position = Some(place + 1);
        } else {
            // Over, or between two places: whoever moves it on takes the ticket along.
            state.late.push((turn.id, ticket));
            drop(state);
            self.end_late(&session, turn.id)?;
        }
        Ok(submitted)
    }

    /// Ends late tickets of a turn that is over already. A turn that is not takes them along on its way.
    fn end_late(&self, session: &Session, turn_id: i64) -> Result<(), ChatError> {
        let noted = self.inner.noted_outcome(turn_id);
        let Some(row) = self.inner.turns.get(turn_id)? else {
            return Ok(()); // deleted: its end, or the deletion, drops the tickets
        };
        let code = match (noted, row.state.as_str()) {
            (Some(code), _) => code,
            (None, "done" | "failed") => row.outcome.clone(),
            (None, _) => return Ok(()),
        };
        let text = match row.assistant_message {
            Some(message) => self.inner.turns.message_text(message)?.unwrap_or_default(),
            None => String::new(),
        };
        let failed = (terminal_code(&code), "the turn of this message has failed before".to_owned());
        let outcome = Outcome { error: (!code.is_empty()).then_some(failed), text };
        let after_seq = row.after_seq.unwrap_or_else(|| session.stream.last_seq());
        let tickets = lock(&session.state).take_late(turn_id);
        for mut ticket in tickets {
            ticket.started(after_seq);
            ticket.ended(&outcome);
        }
        Ok(())
    }
}

/// The stored code of a failed turn as one of the terminal codes.
fn terminal_code(stored: &str) -> &'static str {
    const CODES: &[&str] = &[
        "cancelled",
        "interrupted",
        "rate_limited",
        "budget",
        "provider_auth",
        "provider_credit",
        "provider_model",
        "provider_rate",
        "provider_timeout",
        "provider_unreachable",
        "provider_upstream",
        "provider_config",
    ];
    CODES.iter().find(|code| **code == stored).copied().unwrap_or("internal")
}

fn new_turn<'a>(submit: &Submit<'a>, session: &'a Session) -> NewTurn<'a> {
    NewTurn {
        conversation_id: session.stream.id(),
        origin: submit.origin,
        agent: submit.agent,
        identity: &submit.caller.identity,
        message_id: submit.message_id,
        user_name: submit.user_name,
        text: submit.text,
        kind: if submit.work.operation == Operation::Chat { "" } else { submit.work.operation.name() },
        params: submit.work.params,
    }
}
