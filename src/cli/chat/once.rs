//! `holt chat "message"`: one message, one answer.

use std::time::Duration;

use crossbeam_channel::{Receiver, select};

use super::follow::Taken;
use super::frame::Frame;
use super::talk::{Talk, Told};
use super::view::View;
use crate::cli::CliError;
use crate::cli::output::out;

/// A script is not kept waiting for a hub that does not come back.
const GIVE_UP_AFTER: Duration = Duration::from_secs(120);

/// Sends one message and shows its answer.
pub(super) struct Once<'a> {
    talk: Talk,
    view: View,
    interrupts_rx: &'a Receiver<()>,
    /// Every frame as it came, instead of the answer.
    json: bool,
    /// Our turn has begun: what comes is ours.
    begun: bool,
    /// The last answer or error of a turn that was not taken for ours.
    hidden: Option<Frame>,
    cancelled: bool,
}

impl<'a> Once<'a> {
    pub(super) fn new(talk: Talk, view: View, interrupts_rx: &'a Receiver<()>, json: bool) -> Self {
        Self { talk, view, interrupts_rx, json, begun: false, hidden: None, cancelled: false }
    }

    /// Returns when the message is answered.
    pub(super) fn run(mut self, message: &str) -> Result<(), CliError> {
        self.talk.send(message).map_err(CliError::Failed)?;
        let result = loop {
            let events_rx = self.talk.link.events().clone();
            select! {
                recv(events_rx) -> event => {
                    let told = self.talk.on(event.ok());
                    if let Some(result) = told.and_then(|told| self.told(told).transpose()) {
                        break result;
                    }
                }
                recv(self.interrupts_rx) -> _ => {
                    if std::mem::replace(&mut self.cancelled, true) {
                        break Err(CliError::Interrupted);
                    }
                    self.talk.cancel();
                    self.view.note("cancelling… (Ctrl-C again leaves at once)");
                }
                default(self.talk.pause()) => self.talk.tick(),
            }
            if self.talk.link.down_for() > GIVE_UP_AFTER {
                break Err(CliError::failed("the hub has not come back; look for the answer with: holt sessions list"));
            }
            if self.view.screen.is_gone() {
                break Ok(()); // whoever read the answer has had enough
            }
        };
        self.talk.link.close();
        result
    }

    /// Some when it is over.
    fn told(&mut self, told: Told) -> Result<Option<()>, CliError> {
        match told {
            Told::Up if self.talk.link.is_back() => self.view.note("back again"),
            Told::Up => {}
            Told::Down => self.view.note("connection lost, trying again…"),
            Told::Failed(error) => return Err(error),
            Told::Frame { frame, raw, taken } => {
                // Not what was printed already, and not the talk about where we stand.
                if self.json && taken != Taken::Nothing {
                    out!("{raw}")?;
                }
                return self.frame(&frame, &taken);
            }
        }
        Ok(None)
    }

    fn frame(&mut self, frame: &Frame, taken: &Taken) -> Result<Option<()>, CliError> {
        match taken {
            Taken::Nothing | Taken::Queued(_) => {}
            Taken::Event { missing, ended } => {
                if *missing {
                    self.view.note("(some events of this answer are lost)");
                }
                self.event(frame, *ended);
                if *ended {
                    return self.ended(frame);
                }
            }
            Taken::Lost => self.view.note("(the hub no longer has all events of this answer)"),
            Taken::Settled => {
                let Some(last) = self.hidden.take() else {
                    return Err(CliError::failed("the answer is lost; look for it with: holt sessions list"));
                };
                self.show(&last);
                return self.ended(&last);
            }
            Taken::Refused => {
                self.show(frame);
                return self.ended(frame);
            }
            Taken::Notice if frame.code == "not_running" => {}
            Taken::Notice => self.show(frame),
        }
        Ok(None)
    }

    fn event(&mut self, frame: &Frame, ended: bool) {
        let others = self.talk.follow.is_behind();
        if frame.is_first() {
            self.begun = !others;
            self.hidden = None;
        }
        if self.begun {
            self.show(frame);
        } else if matches!(frame.kind.as_str(), "content" | "error") {
            self.hidden = Some(frame.clone());
        }
        if ended
            && !self.begun
            && let Some(last) = self.hidden.take()
        {
            self.show(&last);
        }
        if frame.kind == "tool_approval" && frame.approval_status.is_empty() && self.begun {
            let id = &frame.approval_id;
            self.view.note(&format!(
                "{}: waits for approval; decide on the hub's page, or with: holt approvals approve {id}",
                frame.tool
            ));
        }
    }

    fn show(&mut self, frame: &Frame) {
        if !self.json {
            self.view.event(frame);
        }
    }

    fn ended(&self, frame: &Frame) -> Result<Option<()>, CliError> {
        match frame.kind.as_str() {
            "error" if self.cancelled => Err(CliError::Interrupted),
            "error" => Err(CliError::Told),
            _ => Ok(Some(())),
        }
    }
}
