//! One turn, from the stored message to its terminal frame (contract engine 1.5, 1.8; http-api 7).

use std::sync::Arc;

use crate::agents::Agent;
use crate::agents::remote::{MACHINE_PREFIX, RemoteError};
use crate::chat::deliver::{LoggedStreamSession, StreamSession};
use crate::chat::engine::Inner;
use crate::chat::event::ChatEvent;
use crate::chat::history;
use crate::chat::round::{Repeats, Round};
use crate::chat::scheduled::tier_of;
use crate::chat::session::{EndReason, Outcome};
use crate::chat::stream::{SessionStream, StreamError};
use crate::costs::{Spender, Totals, TurnMeter};
use crate::limits;
use crate::llm::{Completion, LlmError, Message, Request, Role, Sink};
use crate::rt::Cancel;
use crate::skills::{self, DirectiveFilter};
use crate::store::StoreError;
use crate::store::parked::CallRow;
use crate::store::turns::{Reservation, TurnRow};

/// Text of the event `cost_limit` (contract http-api 7).
const COST_LIMIT: &str = "Session approaching cost limit — pausing tool use.";

/// Everything that one turn works with.
pub(super) struct TurnRun<'a> {
    pub(super) inner: &'a Inner,
    pub(super) stream: &'a Arc<SessionStream>,
    pub(super) turn: &'a TurnRow,
    pub(super) cancel: &'a Cancel,
    pub(super) reason: &'a EndReason,
    /// It was parked and goes on.
    pub(super) resumed: bool,
}

/// How the thread of a turn ends.
pub(super) enum TurnEnd {
    Over(Outcome),
    /// Its round waits for decisions, as rows; the thread has no more to do.
    Parked,
    /// It was to go on and could not be taken out of its rows, or the hub stops: it stays as it is.
    StillParked,
}

/// Why a turn ends without an answer.
pub(super) enum TurnError {
    Llm(LlmError),
    Stream(StreamError),
    Store(StoreError),
    AgentGone,
    /// The machine that was asked gave no answer.
    Remote(RemoteError),
    /// See [`TurnEnd::StillParked`].
    StillParked,
}

impl From<StreamError> for TurnError {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

impl From<StoreError> for TurnError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What the turn has so far.
#[derive(Default)]
pub(super) struct Progress {
    /// Deltas of the current round: what a broken turn leaves behind, with those before.
    pub(super) round_text: String,
    earlier_text: String,
    round: u32,
    repeats: Repeats,
}

impl TurnRun<'_> {
    /// Runs the turn and emits everything but the terminal frame, which the caller logs from the outcome.
    pub(super) fn run(&self) -> TurnEnd {
        let mut progress = Progress::default();
        match self.answer(&mut progress) {
            Ok(Some(text)) => TurnEnd::Over(Outcome { error: None, text }),
            Ok(None) => TurnEnd::Parked,
            Err(TurnError::StillParked) => TurnEnd::StillParked,
            Err(error) => TurnEnd::Over(self.failed(error, &progress)),
        }
    }

    /// The answer, or None when the turn was parked.
    fn answer(&self, progress: &mut Progress) -> Result<Option<String>, TurnError> {
        if self.turn.agent.starts_with(MACHINE_PREFIX) {
            return self.answer_from_machine(progress).map(Some);
        }
        let agent = self.inner.agent_of(&self.turn.agent).ok_or(TurnError::AgentGone)?.at_tier(tier_of(self.turn));
        let session = &self.turn.conversation_id;
        let parked = if self.resumed { self.unpark(progress)? } else { Vec::new() };
        if !self.resumed {
            self.emit(&ChatEvent::Thinking { round: 0 })?;
        }
        let user_message = self.turn.user_message.unwrap_or(i64::MAX);
        let count = self.inner.settings().context_messages_max;
        let mut messages = history::prompt(self.inner, self.system_prompt(&agent), session, user_message, count)?;
        if !parked.is_empty() {
            let round = Round::resume(agent.tier, &agent.tools(), parked);
            progress.begin_round(&round);
            round.execute(self, &mut messages)?;
            self.emit(&ChatEvent::Thinking { round: progress.round })?;
        }
        let meter = self.meter();
        let mut wrapping_up = false;
        let text = loop {
            let tools = agent.tools();
            let specs = tools.specs();
            // The last round offers no tools, so that what was paid for ends in an answer.
            wrapping_up |= progress.round >= self.inner.settings().tool_rounds_max;
            let offered = if wrapping_up { &[] } else { &specs[..] };
            if wrapping_up && !specs.is_empty() {
                messages.push(Message::text(Role::User, "Answer now from what the tools have told you."));
            }
            let completion = self.call(&agent, &meter, &messages, offered, progress)?;
            if progress.round > 0 && !wrapping_up && meter.soft_reached() {
                self.emit(&ChatEvent::CostLimit { text: COST_LIMIT.to_owned() })?;
                wrapping_up = true;
                if completion.text.is_empty() {
                    continue; // what was paid for ends in an answer
                }
            }
            let silent = completion.text.is_empty() && progress.earlier_text.is_empty();
            if completion.tool_calls.is_empty() && silent && progress.round > 0 && !wrapping_up {
                wrapping_up = true; // it used tools and then said nothing: asked once more
                continue;
            }
            if completion.tool_calls.is_empty() || wrapping_up {
                break if completion.text.is_empty() { progress.earlier_text.clone() } else { completion.text };
            }
            let mut round = Round::plan(self, &agent, &tools, progress.round + 1, completion, &mut progress.repeats)?;
            progress.begin_round(&round);
            if round.must_ask() {
                round.park(self)?;
                return Ok(None);
            }
            round.execute(self, &mut messages)?;
            self.emit(&ChatEvent::Thinking { round: progress.round })?;
        };
        self.store_answer(&text, meter.totals())?;
        Ok(Some(text))
    }

    /// What the model is told first; a schedule's turn names its skill in its text (contract http-api 5.2).
    fn system_prompt(&self, agent: &Agent) -> String {
        let text = self.turn.text.as_str();
        let named = text.strip_prefix("[Scheduled: ").and_then(|rest| rest.split_once(']')).map(|(name, _)| name);
        agent.system_prompt(text, named.filter(|_| self.turn.origin == "schedule"))
    }

    /// Stores the answer and tells it; the terminal frame alone is left.
    pub(super) fn store_answer(&self, text: &str, totals: Totals) -> Result<(), TurnError> {
        let Totals { tokens, cost_usd } = totals;
        self.inner.turns.answer(self.turn.id, &self.turn.conversation_id, text, tokens, cost_usd)?;
        self.emit(&ChatEvent::Usage { tokens, cost_usd })?;
        LoggedStreamSession(self.stream).send_content(text)?;
        Ok(())
    }

    /// Counts the turn's money, from before a restart too.
    pub(super) fn meter(&self) -> TurnMeter {
        self.inner.budgets.meter(Spender {
            turn_id: self.turn.id,
            conversation_id: self.turn.conversation_id.clone(),
            agent: self.turn.agent.clone(),
            identity: self.turn.identity.clone(),
        })
    }

    /// Takes the decided round out of its rows, and what the turn had done before.
    fn unpark(&self, progress: &mut Progress) -> Result<Vec<CallRow>, TurnError> {
        for step in self.inner.turns.steps(&self.turn.conversation_id, self.turn.id)? {
            progress.round = progress.round.max(step.round);
            push_paragraph(&mut progress.earlier_text, &step.said);
            *progress.repeats.entry((step.tool, step.arguments)).or_default() += 1;
        }
        if self.cancel.is_set() {
            // Between the decision and here: nothing of the round is made.
            if self.reason.is_stopping() {
                return Err(TurnError::StillParked);
            }
            for call in self.inner.parked.calls(self.turn.id)? {
                push_paragraph(&mut progress.earlier_text, &call.said);
            }
            self.inner.parked.give_up(self.turn.id, "its turn was cancelled")?;
            return Err(TurnError::Llm(LlmError::Cancelled));
        }
        let (used_seq, until) = self.stream.plan_start();
        let reservation = Reservation { until, boot_id: &self.inner.streams.boot_id, used_seq };
        let rows = match self.inner.parked.unpark(self.turn, &reservation) {
            // Decided is decided: it keeps its place, and the keeper tries again.
            Err(StoreError::Full | StoreError::Busy) => return Err(TurnError::StillParked),
            other => other?,
        };
        self.stream.set_reserved(until);
        Ok(rows)
    }

    fn call(
        &self,
        agent: &Agent,
        meter: &TurnMeter,
        messages: &[Message],
        offered: &[crate::llm::ToolSpec],
        progress: &mut Progress,
    ) -> Result<Completion, TurnError> {
        let request = Request { model: "", messages, tools: offered, stream: true }; // the router knows the model
        let filter = DirectiveFilter::default();
        let mut sink = EventSink { run: self, text: &mut progress.round_text, filter, failed: None };
        let result = agent.router.complete(request, meter, &mut sink, self.cancel);
        let rest = sink.filter.finish();
        sink.show(rest);
        if let Some(error) = sink.failed {
            return Err(error.into());
        }
        for notice in meter.take_notices() {
            self.emit(&ChatEvent::CostWarning { text: notice.message, percent: u32::from(notice.percent) })?;
        }
        let mut completion = result.map_err(TurnError::Llm)?.completion;
        completion.text = skills::strip(&completion.text);
        if self.cancel.is_set() {
            return Err(TurnError::Llm(LlmError::Cancelled));
        }
        Ok(completion)
    }

    pub(super) fn emit(&self, event: &ChatEvent) -> Result<(), StreamError> {
        LoggedStreamSession(self.stream).send_event(event)
    }

    /// The outcome of a broken turn; what was streamed is kept as the assistant's message.
    fn failed(&self, error: TurnError, progress: &Progress) -> Outcome {
        let (code, message) = self.explain(&error);
        let mut text = progress.earlier_text.clone();
        push_paragraph(&mut text, &progress.round_text);
        let Totals { tokens, cost_usd } = self.meter().totals();
        if !text.is_empty()
            && let Err(error) =
                self.inner.turns.answer(self.turn.id, &self.turn.conversation_id, &text, tokens, cost_usd)
            && !matches!(error, StoreError::NotFound)
        {
            log::error!("store the partial answer of turn {}: {error}", self.turn.id);
        }
        Outcome { error: Some((code, message)), text }
    }

    fn explain(&self, error: &TurnError) -> (&'static str, String) {
        match error {
            TurnError::Llm(LlmError::Cancelled) if self.reason.is_stopping() => interrupted(),
            TurnError::Llm(LlmError::Cancelled) => ("cancelled", "the turn was cancelled".to_owned()),
            TurnError::Llm(error) => {
                log::warn!("turn {} of session {}: {error}", self.turn.id, self.turn.conversation_id);
                error.public()
            }
            TurnError::Stream(StreamError::Full) | TurnError::Store(StoreError::Full) => {
                ("internal", "the disk of the hub is full; free some space and send the message again".to_owned())
            }
            TurnError::Stream(StreamError::Failed) => {
                ("internal", "the hub could not write its event log; see its log".to_owned())
            }
            TurnError::Store(error) => {
                log::error!("turn {} of session {}: {error}", self.turn.id, self.turn.conversation_id);
                ("internal", "failed to process message".to_owned())
            }
            TurnError::StillParked => interrupted(),
            TurnError::Remote(_) if self.cancel.is_set() && self.reason.is_stopping() => interrupted(),
            TurnError::Remote(error) => (error.code, error.message.clone()),
            TurnError::AgentGone => ("internal", format!("agent {:?} no longer exists", self.turn.agent)),
        }
    }
}

/// Code and text of a turn that a stop of the hub cut short.
pub(super) fn interrupted() -> (&'static str, String) {
    ("interrupted", "the hub stopped before the answer was complete; send the message again".to_owned())
}

impl Progress {
    /// The model's text so far is that of a finished round.
    fn begin_round(&mut self, round: &Round) {
        self.round = round.number;
        self.round_text.clear();
        push_paragraph(&mut self.earlier_text, &round.said);
    }
}

/// Texts of rounds stand apart from each other.
pub(super) fn push_paragraph(text: &mut String, more: &str) {
    if !text.is_empty() && !more.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str(more);
}

/// Turns a model's pieces into events. A stream that fails cancels the call: nothing may be sent unlogged.
struct EventSink<'a> {
    run: &'a TurnRun<'a>,
    text: &'a mut String,
    /// Keeps old text directives from users' eyes.
    filter: DirectiveFilter,
    failed: Option<StreamError>,
}

impl EventSink<'_> {
    fn emit(&mut self, event: &ChatEvent) {
        if self.failed.is_none()
            && let Err(error) = self.run.emit(event)
        {
            self.failed = Some(error);
            self.run.cancel.cancel();
        }
    }

    fn show(&mut self, text: String) {
        if !text.is_empty() {
            self.text.push_str(&text);
            self.emit(&ChatEvent::ContentDelta { text });
        }
    }
}

impl Sink for EventSink<'_> {
    fn text(&mut self, piece: &str) {
        let bytes = self.text.len() + self.filter.held_bytes() + piece.len();
        if !piece.is_empty() && bytes <= limits::ANSWER_BYTES_MAX {
            let text = self.filter.push(piece);
            self.show(text);
        }
    }

    fn thinking(&mut self, piece: &str) {
        if !piece.is_empty() {
            self.emit(&ChatEvent::ThinkingDelta { text: piece.to_owned() });
        }
    }

    fn rollback(&mut self) {
        self.text.clear();
        self.filter = DirectiveFilter::default();
        self.emit(&ChatEvent::StreamRollback);
    }
}
