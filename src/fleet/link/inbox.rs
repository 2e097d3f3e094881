//! What the hub says, and what follows from it (contract agent-link 2).

use std::time::Instant;

use super::conn::Conn;
use super::record::Who;
use super::sessions::{ack, without_nulls};
use super::{LinkError, message_id};
use crate::fleet::sign;
use crate::fleet::wire::{Ack, Disconnect, Message, SessionCancel, SessionInput, SessionStart};
use crate::rt::{clock, text};

/// Messages that are not understood, per line in the log.
const BAD_PER_LINE: u64 = 100;

impl Conn<'_> {
    /// Queues `register`: at the start, and again when something in it changed.
    pub(super) fn queue_register(&mut self) {
        self.register_id = message_id();
        // Without randomness the hub has nothing to sign, and is not believed when its key is pinned.
        self.nonce = message_id();
        let mut payload = self.link.register_payload(self.ws.get_ref().local_ip());
        payload.nonce.clone_from(&self.nonce);
        let message = Message::new("register", self.register_id.clone(), &payload);
        self.queue(&message);
    }

    /// Judges the first message of a connection.
    pub(super) fn registration(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        let bad = |cause: &str| LinkError::Protocol { cause: cause.to_owned() };
        let message: Message = serde_json::from_slice(bytes).map_err(|_| bad("its first message is not understood"))?;
        if message.kind != "ack" {
            return Err(bad("its first message is no ack"));
        }
        if !message.ref_id.is_empty() && message.ref_id != self.register_id {
            return Err(bad("its first ack answers something else"));
        }
        let answer: Ack = message.payload().ok_or_else(|| bad("its first ack has no payload"))?;
        if !answer.ok {
            return Err(LinkError::Rejected { reason: one_line(&answer.error) });
        }
        self.link.accept_hub(&answer, &self.nonce)?;
        self.take_features(&answer);
        if !answer.warning.is_empty() {
            log::warn!("the hub says: {}", one_line(&answer.warning));
        }
        Ok(())
    }

    fn take_features(&mut self, answer: &Ack) {
        let has = |name: &str| answer.features.iter().any(|feature| feature == name);
        (self.acks_alerts, self.acks_inputs) = (has("alert_ack"), has("input_ack"));
    }

    /// Handles one message. An error ends the connection.
    pub(super) fn handle(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.last_data = Instant::now();
        let Ok(mut message) = serde_json::from_slice::<Message>(bytes) else {
            if self.bad_messages.is_multiple_of(BAD_PER_LINE) {
                log::warn!("a message of the hub was not understood ({} before)", self.bad_messages);
            }
            self.bad_messages += 1;
            return Ok(());
        };
        match message.kind.as_str() {
            "ping" => {}
            "ack" => self.handle_ack(&message),
            "disconnect" => {
                let order: Disconnect = message.payload().unwrap_or_default();
                return Err(LinkError::Ordered {
                    reason: one_line(&order.reason),
                    retry_after_sec: order.retry_after_sec,
                });
            }
            "session_start" => {
                without_nulls(&mut message);
                self.session_start(&message);
            }
            "session_input" => {
                let input: Option<SessionInput> = message.payload();
                let result = input.ok_or("invalid payload").and_then(|input| self.link.sessions.input(input));
                self.answer_input(&message, result);
            }
            "session_cancel" => {
                let cancel: Option<SessionCancel> = message.payload();
                let result = cancel.ok_or("invalid payload").and_then(|cancel| {
                    log::info!("session {:?} was cancelled: {}", cancel.session_id, one_line(&cancel.reason));
                    self.link.sessions.cancel(&cancel.session_id)
                });
                self.answer_input(&message, result);
            }
            other => log::debug!("the hub sent an unknown {:?}", text::cut(other, 64)),
        }
        Ok(())
    }

    fn handle_ack(&mut self, message: &Message) {
        let Some(answer) = message.payload::<Ack>() else { return };
        if !answer.new_token.is_empty() {
            self.link.take_token(&answer.new_token);
        }
        if message.ref_id == self.register_id {
            self.take_features(&answer);
            if !answer.ok {
                log::warn!("the hub does not like the new registration: {}", one_line(&answer.error));
            }
            return;
        }
        if answer.ok {
            // Whether it was in flight or waits from an earlier connection: the hub has it.
            if self.link.spool.delivered(&message.ref_id) {
                self.in_flight.retain(|(id, _)| *id != message.ref_id);
            }
        } else if self.in_flight.iter().any(|(id, _)| *id == message.ref_id) {
            log::warn!("the hub could not take alerts: {}", one_line(&answer.error));
            self.in_flight.retain(|(id, _)| *id != message.ref_id);
            self.alerts_not_before = Instant::now() + super::conn::REFUSED_WAIT;
        }
    }

    fn session_start(&mut self, message: &Message) {
        let started = self.try_session_start(message);
        if let Err(reason) = started {
            self.queue(&ack(&message.id, Err(&reason)));
        }
    }

    fn try_session_start(&mut self, message: &Message) -> Result<(), String> {
        let start: SessionStart = message.payload().ok_or("invalid payload")?;
        if start.session_id.is_empty() {
            return Err("missing session_id".to_owned());
        }
        let who = Who {
            session: start.session_id.clone(),
            user: start.user_name.clone(),
            hub: self.link.target().address.origin(),
        };
        if let Err(reason) = self.check_signature(message, &start) {
            self.link.sessions.record_refusal(&who, &reason);
            return Err(reason);
        }
        self.link.sessions.start(&message.id, start, who, self.out())
    }

    /// Once a hub's key is pinned, only what it signed for this machine, now and once, is begun.
    fn check_signature(&self, message: &Message, start: &SessionStart) -> Result<(), String> {
        let key = self.link.hub_key();
        if key.is_empty() {
            return Ok(());
        }
        let signature =
            message.sig.as_ref().ok_or("session_start is not signed by the hub that this machine joined")?;
        let now = clock::unix_ms();
        let agent_id = self.link.state.agent_id();
        sign::verify_start(&key, agent_id, &message.id, start, signature, now).map_err(|error| error.to_string())?;
        if signature.time < self.link.started_ms {
            // Nonces are not kept over a restart.
            return Err("signed before this agent was started; try again".to_owned());
        }
        if self.link.nonces_first_seen(&signature.nonce, now) {
            Ok(())
        } else {
            Err("this session_start was used before".to_owned())
        }
    }

    /// To a hub that wants to know.
    fn answer_input(&mut self, message: &Message, result: Result<(), &str>) {
        if let Err(reason) = result {
            log::debug!("{}: {reason}", message.kind);
        }
        if self.acks_inputs {
            self.queue(&ack(&message.id, result));
        }
    }
}

/// Somebody else's words, bounded, for a log line.
fn one_line(words: &str) -> String {
    text::cut(words, 300).replace(|c: char| c.is_control(), " ")
}
