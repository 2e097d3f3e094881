//! Accepting a message: its row, its place, and what a repeat of it gets.

use std::sync::Arc;

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
        let reservation = Reservation { until, boot_id: &self.inner.streams.boot_id };
        let accepted = self.inner.turns.accept(
            &new_turn(submit, session),
            &|owner| submit.caller.may_write(owner),
            Some((after_seq, &reservation)),
        );
        let turn_id = match accepted {
            Ok(Accepted::New { turn_id }) => turn_id,
            other => {
                lock(&session.state).running = None;
                return self.not_new(other, ticket);
            }
        };
        session.stream.set_reserved(until);
        let turn = self.inner.turns.get(turn_id)?.ok_or(StoreError::NotFound);
        let turn = match turn {
            Ok(turn) => turn,
            Err(error) => {
                lock(&session.state).running = None;
                return Err(error.into());
            }
        };
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
            Ok(Accepted::New { turn_id }) => {
                self.inner.turns.get(turn_id).and_then(|turn| turn.ok_or(StoreError::NotFound))
            }
            other => {
                lock(&session.state).joining -= 1;
                return self.not_new(other, ticket);
            }
        };
        let position = {
            let mut state = lock(&session.state);
            state.joining -= 1;
            let turn = turn?;
            // Rows and places in the queue are in the same order, whoever gets the lock first.
            let place = state.waiting.iter().position(|other| other.turn.id > turn.id).unwrap_or(state.waiting.len());
            state.waiting.insert(place, Waiting { turn, tickets: ticket.into_iter().collect() });
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
            Accepted::New { .. } => Err(ChatError::Store(StoreError::NotFound)),
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
            drop(state);
            let text = match turn.assistant_message {
                Some(message) => self.inner.turns.message_text(message)?.unwrap_or_default(),
                None => String::new(),
            };
            let failed = turn.state == "failed";
            let error = failed.then(|| ("internal", "the turn of this message has failed before".to_owned()));
            ticket.started(after_seq);
            ticket.ended(&Outcome { error, text });
        }
        Ok(submitted)
    }
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
    }
}
