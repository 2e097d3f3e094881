//! A machine as an agent: a turn becomes a session, or a further input of one (contract agent-link 4).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, select};

use crate::agents::remote::{
    MACHINE_PREFIX, Operation, RemoteAgent, RemoteAgents, RemoteError, RemoteSink, RemoteTurn,
};
use crate::audit::{Entry, Outcome};
use crate::chat::access::Caller;
use crate::fleet::hub::access;
use crate::fleet::hub::link::{Link, Said};
use crate::fleet::hub::session::{Answer, Session, cancel, lost, refused, wait};
use crate::fleet::hub::stages::Progress;
use crate::fleet::hub::{Fleet, message_id};
use crate::fleet::wire::{Message, SessionError, SessionInput, SessionOutput, TO_AGENT_BYTES_MAX};
use crate::rt::text::cut;
use crate::rt::{Cancel, lock};
use crate::store::machine_sessions::SessionEnd;
use crate::store::machines::{Machine, MachineState};

/// Longest piece of a machine's own words in an error.
const QUOTE_BYTES_MAX: usize = 500;

impl RemoteAgents for Fleet {
    fn list(&self, caller: &Caller) -> Vec<RemoteAgent> {
        let machines = self.machines.list().unwrap_or_else(|error| {
            log::error!("list machines: {error}");
            Vec::new()
        });
        let seen = machines.into_iter().filter(|machine| {
            machine.state == MachineState::Approved
                && access::allows(&self.config.access, caller, machine, Operation::View)
        });
        seen.map(|machine| RemoteAgent {
            name: format!("{MACHINE_PREFIX}{}", machine.id),
            display_name: machine.name().to_owned(),
            description: format!("{} {}, {}", machine.os, machine.arch, machine.agent_version),
            is_online: self.link(&machine.id).is_some(),
        })
        .collect()
    }

    fn resolve(&self, name: &str) -> Option<String> {
        let meant = name.strip_prefix(MACHINE_PREFIX)?;
        let machine = self.machines.find(meant).ok().filter(|machine| machine.state == MachineState::Approved)?;
        Some(format!("{MACHINE_PREFIX}{}", machine.id))
    }

    fn allows(&self, caller: &Caller, name: &str, operation: Operation) -> bool {
        let Some(machine) = name.strip_prefix(MACHINE_PREFIX).and_then(|id| self.known(id)) else { return false };
        let allowed =
            machine.state == MachineState::Approved && access::allows(&self.config.access, caller, &machine, operation);
        if !allowed {
            let action = format!("machine.{}", operation.name());
            self.audit.record_repeatable(&Entry {
                actor: &caller.identity,
                target: &machine.id,
                source: &caller.identity,
                detail: "no rule of fleet.access allows it",
                result: Outcome::Denied,
                ..Entry::ok(&action)
            });
        }
        allowed
    }

    fn run(
        &self,
        turn: &RemoteTurn<'_>,
        sink: &mut dyn RemoteSink,
        cancelling: &Cancel,
    ) -> Result<String, RemoteError> {
        let id = turn.agent.strip_prefix(MACHINE_PREFIX).unwrap_or(turn.agent);
        let machine = self.known(id).filter(|machine| machine.state == MachineState::Approved);
        let Some(machine) = machine else {
            return Err(RemoteError {
                code: "provider_config",
                message: "this machine is not part of the fleet".to_owned(),
            });
        };
        let link = self.link(id).ok_or_else(|| offline(&machine))?;
        let _place = self.sessions.place(&link, turn.identity)?;
        let action = format!("machine.{}", turn.operation.name());
        self.audit.record(&Entry {
            actor: turn.identity,
            target: id,
            detail: turn.conversation_id,
            ..Entry::ok(&action)
        });
        // Cancelling wakes the wait for the machine.
        let (bell_tx, bell_rx) = bounded(1);
        cancelling.set_hook(move || {
            let _ = bell_tx.try_send(());
        });
        let run = Run { fleet: self, link: &link, turn, cancelled: &bell_rx };
        let result = run.session().and_then(|session| run.follow(&session, sink));
        cancelling.clear_hook();
        result
    }
}

/// One turn on its machine.
struct Run<'a> {
    fleet: &'a Fleet,
    link: &'a Arc<Link>,
    turn: &'a RemoteTurn<'a>,
    cancelled: &'a Receiver<()>,
}

impl Run<'_> {
    /// The open chat of the conversation, which has taken the message, or a new session.
    fn session(&self) -> Result<Session, RemoteError> {
        if self.turn.operation == Operation::Chat
            && let Some(id) = self.fleet.sessions.take_chat(self.turn.conversation_id, self.link)
            && let Some(said) = self.link.listen(&id, false)
            && let Some(session) = self.input(Session { id, said })?
        {
            return Ok(session);
        }
        self.fleet.start_session(self.link, self.turn, self.cancelled)
    }

    /// Sends the message into an open chat. None when the machine does not know it any more.
    fn input(&self, session: Session) -> Result<Option<Session>, RemoteError> {
        let input = SessionInput { session_id: session.id.clone(), message: self.turn.text.to_owned() };
        let input_id = message_id();
        let message = Message::new("session_input", input_id.clone(), &input).encode();
        if message.len() > TO_AGENT_BYTES_MAX {
            self.leave(&session.id);
            let message = "the message is too long for the machine; send a shorter one".to_owned();
            return Err(RemoteError { code: "provider_upstream", message });
        }
        let answer = self.link.acks_inputs.then(|| self.link.expect_ack(&input_id));
        if !self.link.peer.send(&message) {
            return Err(self.over(&session.id, "lost", lost(self.link)));
        }
        // The reference says nothing: its output is the answer.
        match answer.map_or(Answer::Ok, |answer| wait(&answer, self.cancelled)) {
            Answer::Ok => Ok(Some(session)),
            Answer::Refused(reason) if reason == "no such session" => {
                self.link.close_session(&session.id);
                self.fleet.end_session(&session.id, SessionEnd { state: "ok", ..SessionEnd::default() });
                Ok(None)
            }
            Answer::Refused(reason) => Err(self.over(&session.id, "error", refused(self.link, &reason))),
            Answer::Lost => Err(self.over(&session.id, "lost", lost(self.link))),
            Answer::Cancelled => {
                cancel(self.link, &session.id, "cancelled by the user");
                Err(self.over(&session.id, "cancelled", cancelled()))
            }
            Answer::None => {
                self.link.forget_ack(&input_id);
                cancel(self.link, &session.id, "no answer in time");
                let message = format!("{} did not answer; it may be overloaded", self.link.hostname);
                Err(self.over(&session.id, "error", RemoteError { code: "provider_timeout", message }))
            }
        }
    }

    /// Takes what the machine says until the turn is over.
    fn follow(&self, session: &Session, sink: &mut dyn RemoteSink) -> Result<String, RemoteError> {
        let mut progress = Progress::new();
        let result = self.listen(session, &mut progress, sink);
        progress.close(sink);
        let (tokens_in, tokens_out) = (progress.tokens_in, progress.tokens_out);
        let end = |state: &str, error: &str, code: &str| {
            self.link.close_session(&session.id);
            self.fleet.end_session(&session.id, SessionEnd { state, error, code, tokens_in, tokens_out });
        };
        match result {
            Over::Turn(result) => {
                self.leave(&session.id);
                result.map(|()| progress.answer)
            }
            Over::Session { state: state @ ("ok" | "empty"), error: None } => {
                end(state, "", "");
                Ok(progress.answer)
            }
            Over::Session { state, error } => {
                let error = error.unwrap_or_else(|| self.failed("it ended without a result"));
                end(state, &error.message, error.code);
                Err(error)
            }
        }
    }

    fn listen(&self, session: &Session, progress: &mut Progress, sink: &mut dyn RemoteSink) -> Over {
        let mut error: Option<SessionError> = None;
        let is_chat = self.turn.operation == Operation::Chat;
        let patience = self.fleet.config.times.session;
        let mut deadline = Instant::now() + patience;
        loop {
            let said = select! {
                recv(session.said) -> said => said,
                recv(self.cancelled) -> _ => {
                    cancel(self.link, &session.id, "cancelled by the user");
                    return Over::Session { state: "cancelled", error: Some(cancelled()) };
                }
                default(deadline.saturating_duration_since(Instant::now())) => {
                    cancel(self.link, &session.id, "time is over");
                    let time = duration(patience);
                    let what = if is_chat { "was silent" } else { "worked" };
                    let message = format!("{} {what} for {time} without a result; the session was ended", self.link.hostname);
                    return Over::Session { state: "timeout", error: Some(RemoteError { code: "provider_timeout", message }) };
                }
            };
            if is_chat {
                deadline = Instant::now() + patience;
            }
            match said {
                Err(_) => return Over::Session { state: "lost", error: Some(lost(self.link)) },
                Ok(Said::Error(said)) => error = Some(said),
                Ok(Said::Output(output)) => {
                    progress.take(&output, sink);
                    if output.done {
                        progress.report(&output.report, sink);
                        return self.ending(&output, error, progress);
                    }
                    if is_chat && output.metadata.as_ref().is_some_and(|metadata| metadata.turn_done) {
                        let failed = output.stage == "error";
                        return Over::Turn(if failed { Err(self.failed(&output.delta)) } else { Ok(()) });
                    }
                }
            }
        }
    }

    /// What a closing message means (contract agent-link 4.5). Nobody here has cancelled.
    fn ending(&self, output: &SessionOutput, error: Option<SessionError>, progress: &Progress) -> Over {
        let outcome = output.metadata.as_ref().and_then(|metadata| metadata.outcome.as_deref());
        if let Some(error) = error {
            return Over::Session { state: "error", error: Some(self.said_error(&error)) };
        }
        let failed = |state: &'static str, text: &str| Over::Session { state, error: Some(self.failed(text)) };
        match outcome {
            Some("timeout") => failed("timeout", "its time was over"),
            Some("cancelled") => failed("cancelled", "it was cancelled there"),
            Some("error") => failed("error", "it failed"),
            // A chat that ends while a turn runs has not answered, unless it says so.
            None if self.turn.operation == Operation::Chat => failed("error", "the chat ended there"),
            _ if progress.answer.trim().is_empty() => failed("empty", "the model there returned nothing"),
            _ => Over::Session { state: "ok", error: None },
        }
    }

    fn said_error(&self, error: &SessionError) -> RemoteError {
        let name = &self.link.hostname;
        let text = cut(error.error.trim(), QUOTE_BYTES_MAX);
        let (code, message) = match error.code.as_str() {
            "invalid_type" => {
                ("provider_config", format!("{name} knows no session of type {}", self.turn.operation.name()))
            }
            "missing_plugin" => ("provider_config", format!("{name} must be told which plugin to inspect")),
            "engine_unavailable" => ("provider_config", format!("{name} has no model for this; set one up there")),
            "chat_init_failed" => ("provider_upstream", format!("{name} could not begin the chat: {text}")),
            _ => ("provider_upstream", format!("{name} could not finish: {text}")),
        };
        RemoteError { code, message }
    }

    fn failed(&self, text: &str) -> RemoteError {
        let text = cut(text.trim(), QUOTE_BYTES_MAX);
        RemoteError { code: "provider_upstream", message: format!("{} has no answer: {text}", self.link.hostname) }
    }

    /// The session stays open for the next turn.
    fn leave(&self, session_id: &str) {
        self.link.stop_listening(session_id);
        self.fleet.sessions.keep_chat(self.turn.conversation_id, session_id.to_owned(), self.link);
    }

    fn over(&self, session_id: &str, state: &str, error: RemoteError) -> RemoteError {
        self.link.close_session(session_id);
        let end = SessionEnd { state, error: &error.message, code: error.code, ..SessionEnd::default() };
        self.fleet.end_session(session_id, end);
        error
    }
}

/// What has ended.
enum Over {
    /// The turn; the chat goes on.
    Turn(Result<(), RemoteError>),
    Session {
        state: &'static str,
        error: Option<RemoteError>,
    },
}

/// As people say it.
fn duration(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds >= 120 => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

fn cancelled() -> RemoteError {
    RemoteError { code: "cancelled", message: "the turn was cancelled".to_owned() }
}

fn offline(machine: &Machine) -> RemoteError {
    let name = machine.name();
    let message = if machine.expected_off {
        format!("{name} is not connected; it is marked as meant to be off")
    } else {
        format!("{name} is not connected; is it running, and `holt agent` on it?")
    };
    RemoteError { code: "provider_unreachable", message }
}

impl Fleet {
    /// Sessions that the hub runs on machines now.
    pub fn turns(&self) -> usize {
        lock(&self.links).values().map(|link| link.turns.load(std::sync::atomic::Ordering::Acquire)).sum()
    }
}
