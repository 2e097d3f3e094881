//! The messages of one machine, in their order (contract agent-link 2.3, 2.13).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::alert::Level;
use crate::fleet::hub::admit::{Admission, Kind};
use crate::fleet::hub::link::{Link, LinkParts, Said};
use crate::fleet::hub::upkeep::{CLONED, TARGET};
use crate::fleet::hub::{Fleet, Peer, message_id};
use crate::fleet::wire::{Ack, HUB_FEATURES, Heartbeat, Message, Register, SessionError, SessionOutput};
use crate::limits;
use crate::rt::order::{Order, gather};
use crate::rt::text::cut;
use crate::rt::{clock, lock};
use crate::store::StoreError;
use crate::store::machines::Facts;

/// What a batch of alerts counts for in [`limits::AGENT_MESSAGES_PER_S`]: it is a commit.
const BATCH_WEIGHT: u32 = 10;
/// Clocks that differ by less are common, and do no harm.
const CLOCK_OFF_S: i64 = 5;
/// The reason with which our agents say goodbye.
const FAREWELL: &str = "agent stopping";

/// How a connection ended.
#[derive(Debug)]
pub enum Ending {
    /// The machine closed it, with that code and reason.
    Closed(Option<u16>, String),
    /// It broke, and how.
    Lost(String),
    /// [`Arrival::message`] said that it is over.
    Refused,
}

/// One connection of a machine, from its upgrade to its end. Owned by the thread that reads it.
pub struct Arrival {
    fleet: Arc<Fleet>,
    admission: Admission,
    peer: Arc<dyn Peer>,
    serial: u64,
    link: Option<Arc<Link>>,
    /// Messages that make no sense, in the minute that began then.
    bad: (Instant, u32),
    /// The weight of messages in the second that began then.
    pace: (Instant, u32),
}

impl Fleet {
    /// A machine that was admitted has its socket.
    pub fn arrive(self: &Arc<Self>, admission: Admission, peer: Arc<dyn Peer>) -> Arrival {
        let serial = self.next_serial.fetch_add(1, Ordering::Relaxed);
        lock(&self.arriving).insert(serial, Arc::clone(&peer));
        let now = Instant::now();
        Arrival { fleet: Arc::clone(self), admission, peer, serial, link: None, bad: (now, 0), pace: (now, 0) }
    }
}

impl Arrival {
    /// Takes a message; false when the connection is over. May block on the disk, and for a turn that is busy.
    pub fn message(&mut self, bytes: &[u8]) -> bool {
        let message = serde_json::from_slice::<Message>(bytes);
        let Some(link) = self.link.clone() else {
            return match message {
                Ok(message) if message.kind == "register" => self.register(&message),
                _ => self.close(1008, "register first"),
            };
        };
        if link.has_ended() {
            return false; // revoked, or replaced by another connection
        }
        link.seen();
        let Ok(message) = message else { return self.bad("it is not a message") };
        let weight = if message.kind == "alert_events" { BATCH_WEIGHT } else { 1 };
        if !self.keep_pace(weight) {
            return false;
        }
        match message.kind.as_str() {
            "heartbeat" => match message.payload::<Heartbeat>() {
                Some(heartbeat) => {
                    link.set_heartbeat(serde_json::to_value(bounded(heartbeat)).unwrap_or_default());
                    true
                }
                None => self.bad("a heartbeat without numbers"),
            },
            "alert_events" => self.alerts(message),
            "session_output" => match message.payload::<SessionOutput>() {
                Some(output) => {
                    let session_id = output.session_id.clone();
                    link.said(&session_id, Said::Output(Box::new(output)));
                    true
                }
                None => self.bad("an output that cannot be read"),
            },
            "session_error" => match message.payload::<SessionError>() {
                Some(error) => {
                    let session_id = error.session_id.clone();
                    link.said(&session_id, Said::Error(error));
                    true
                }
                None => self.bad("an error that cannot be read"),
            },
            "ack" => match message.payload::<Ack>() {
                Some(ack) => {
                    link.acked(&message.ref_id, ack);
                    true
                }
                None => self.bad("an ack that cannot be read"),
            },
            "register" => self.register_again(&message),
            _ => self.bad("its type is unknown"),
        }
    }

    /// Without a message for this long the connection is over.
    pub fn silence_max(&self) -> Duration {
        self.fleet.config.times.silence
    }

    /// The connection is over.
    pub fn end(self, ending: Ending) {
        lock(&self.fleet.arriving).remove(&self.serial);
        let Some(link) = &self.link else {
            log::debug!("machine {} did not register: {ending:?}", self.admission.machine_id);
            return;
        };
        link.end();
        let was_current = {
            let mut links = lock(&self.fleet.links);
            let is_current = links.get(&link.machine_id).is_some_and(|current| current.serial == link.serial);
            if is_current {
                links.remove(&link.machine_id);
            }
            is_current
        };
        let (stopped, how) = match &ending {
            Ending::Closed(_, reason) => (reason == FAREWELL, reason.as_str()),
            Ending::Lost(reason) => (false, reason.as_str()),
            Ending::Refused => (false, "refused"),
        };
        log::info!("machine {} ({}) disconnected: {how}", link.machine_id, link.hostname);
        if was_current {
            self.fleet.left(link, stopped);
        }
    }

    fn register(&mut self, message: &Message) -> bool {
        let Some(register) = message.payload::<Register>() else {
            return self.reject(message, "invalid payload");
        };
        let facts = facts(&register, &self.admission.address);
        let fleet = Arc::clone(&self.fleet);
        let id = self.admission.machine_id.clone();
        if let Kind::Request { hash } = &self.admission.kind {
            return match fleet.machines.ask(&id, hash, &facts, limits::MACHINES_PENDING_MAX) {
                Ok(true) => {
                    log::info!("machine {id} ({}) waits for approval; its code is {}", facts.hostname, &hash[..8]);
                    self.reject(message, "waiting for approval")
                }
                Ok(false) => {
                    self.reject(message, "the hub knows this id already, or too many machines wait for approval")
                }
                Err(error) => self.unavailable(message, &error),
            };
        }
        if let Some(owner) = self.rival(&facts) {
            return self.cloned(message, &owner, &facts);
        }
        let is_holt = !register.nonce.is_empty() || !register.features.is_empty();
        let new_token = match fleet.admitted(&id, &self.admission.kind, &facts, is_holt) {
            Ok(new_token) => new_token,
            Err(error) => return self.unavailable(message, &error),
        };
        let link = Arc::new(Link::new(LinkParts {
            serial: self.serial,
            machine_id: id.clone(),
            hostname: facts.hostname.clone(),
            ip: facts.ip.clone(),
            features: facts.features.clone(),
            is_holt,
            peer: Arc::clone(&self.peer),
        }));
        let mut ack = Ack { ok: true, new_token, warning: clock_warning(&register), ..Ack::default() };
        ack.features = HUB_FEATURES.iter().map(|&feature| feature.to_owned()).collect();
        ack.hub_key = fleet.key.public_base64();
        if !register.nonce.is_empty() {
            ack.hub_proof = fleet.key.prove(&id, &register.nonce);
        }
        let replaced = {
            let mut links = lock(&fleet.links);
            // Its answer is the first thing that it hears: nobody else finds it before.
            if !self.answer(message, &ack) {
                return false;
            }
            links.insert(id.clone(), Arc::clone(&link))
        };
        if let Some(old) = replaced {
            old.end();
            old.peer.close(1000, "replaced by a new connection");
        }
        lock(&fleet.arriving).remove(&self.serial);
        self.peer.begin_pings(fleet.config.times.ping);
        log::info!("machine {id} ({}) registered from {}", facts.hostname, self.admission.address);
        lock(&fleet.presences).came(&id, &facts.hostname, Instant::now());
        fleet.tell(&id, "online", true);
        self.link = Some(link);
        true
    }

    /// A connected machine has this id, and it seems to be another one (contract agent-link 11, hub 12).
    fn rival(&self, facts: &Facts) -> Option<Arc<Link>> {
        let old = self.fleet.link(&self.admission.machine_id)?;
        let is_same = old.hostname == facts.hostname && old.ip == facts.ip;
        let silence = i64::try_from(self.fleet.config.times.takeover.as_millis()).unwrap_or(i64::MAX);
        (!is_same && old.silent_ms() < silence).then_some(old)
    }

    fn cloned(&self, message: &Message, owner: &Link, facts: &Facts) -> bool {
        let fleet = &self.fleet;
        log::warn!(
            "machine {} ({}) from {} has the id of {}, which is connected",
            self.admission.machine_id,
            facts.hostname,
            self.admission.address,
            owner.hostname
        );
        let text = format!(
            "{} ({}) connects with the id of {}, which is connected; remove the state of one of the two and let it join anew",
            facts.hostname, self.admission.address, owner.hostname
        );
        let id = &self.admission.machine_id;
        lock(&fleet.upkeep).saw_clone(id, Instant::now());
        if let Err(error) = fleet.alerts.raise(id, CLONED, TARGET, Level::Warning, &text) {
            log::error!("raise an alert about a cloned id: {error}");
        }
        self.reject(message, &format!("agent id in use by {}", owner.hostname))
    }

    fn register_again(&self, message: &Message) -> bool {
        let Some(register) = message.payload::<Register>() else {
            return self.answer(message, &Ack { error: "invalid payload".to_owned(), ..Ack::default() });
        };
        let facts = facts(&register, &self.admission.address);
        match self.fleet.machines.register(&self.admission.machine_id, &facts, clock::unix_ms()) {
            Ok(()) => self.answer(message, &Ack { ok: true, ..Ack::default() }),
            Err(error) => self.unavailable(message, &error),
        }
    }

    fn alerts(&mut self, message: Message) -> bool {
        let id = &self.admission.machine_id;
        let ack = Ack { ok: true, ..Ack::default() };
        let answer = Message { ref_id: message.id, ..Message::new("ack", message_id(), &ack) };
        let Some(payload) = message.payload else { return self.bad("alert_events without events") };
        let events = self.fleet.alerts.read(id, payload);
        match self.fleet.alerts.take(id, &events) {
            Ok(_) => self.peer.send(&answer.encode()),
            Err(error) => {
                // Not acknowledged: a machine that waits for that sends them again.
                log::error!("store alerts of machine {id}: {error}");
                true
            }
        }
    }

    fn answer(&self, message: &Message, ack: &Ack) -> bool {
        let answer = Message { ref_id: message.id.clone(), ..Message::new("ack", message_id(), ack) };
        self.peer.send(&answer.encode())
    }

    fn reject(&self, message: &Message, reason: &str) -> bool {
        self.answer(message, &Ack { error: reason.to_owned(), ..Ack::default() });
        self.close(1008, reason)
    }

    fn unavailable(&self, message: &Message, error: &StoreError) -> bool {
        log::error!("register machine {}: {error}", self.admission.machine_id);
        self.answer(message, &Ack { error: "the hub cannot write its database".to_owned(), ..Ack::default() });
        self.close(1013, "try again later")
    }

    fn close(&self, code: u16, reason: &str) -> bool {
        self.peer.close(code, reason);
        false
    }

    fn bad(&mut self, reason: &str) -> bool {
        let now = Instant::now();
        if now.saturating_duration_since(self.bad.0) >= Duration::from_secs(60) {
            self.bad = (now, 0);
        }
        self.bad.1 += 1;
        if self.bad.1.is_power_of_two() {
            log::warn!(
                "machine {}: a message was dropped: {reason} ({} this minute)",
                self.admission.machine_id,
                self.bad.1
            );
        }
        if self.bad.1 > limits::AGENT_BAD_MESSAGES_MAX { self.close(1008, "too many bad messages") } else { true }
    }

    /// Waits when the machine sends faster than it may: what it sends stays in its own buffers. False at the stop.
    fn keep_pace(&mut self, weight: u32) -> bool {
        const WINDOW: Duration = Duration::from_secs(1);
        let mut elapsed = self.pace.0.elapsed();
        if self.pace.1 + weight > limits::AGENT_MESSAGES_PER_S && elapsed < WINDOW {
            if self.fleet.stop.wait(WINDOW.saturating_sub(elapsed)) {
                return true; // what is left is read fast, and the end comes soon
            }
            elapsed = WINDOW;
        }
        if elapsed >= WINDOW {
            self.pace = (Instant::now(), 0);
        }
        self.pace.1 += weight;
        true
    }
}

impl Fleet {
    /// Writes down that a machine is here; the token that it is to use from now on, or nothing.
    fn admitted(&self, id: &str, kind: &Kind, facts: &Facts, is_holt: bool) -> Result<String, StoreError> {
        if let Kind::Token { next: Some(hash) } = kind {
            self.machines.promote_token(id, hash)?;
        }
        self.machines.register(id, facts, clock::unix_ms())?;
        let new_token = if is_holt { self.machines.hand_out_token(id)? } else { None };
        Ok(new_token.unwrap_or_default())
    }

    fn left(&self, link: &Link, stopped: bool) {
        let changed = lock(&self.presences).went(&link.machine_id, stopped, Instant::now());
        lock(&self.upkeep).left((link.machine_id.clone(), link.last_seen_at(), link.heartbeat()));
        if let Some(presence) = changed {
            self.store_presence(&link.machine_id, presence);
        }
        self.tell(&link.machine_id, if stopped { "stopped" } else { "online" }, false);
    }
}

fn facts(register: &Register, address: &str) -> Facts {
    let text = |text: &String| cut(text, limits::MACHINE_TEXT_BYTES_MAX).to_owned();
    let texts = |list: &Vec<String>| {
        let mut list: Vec<String> = list.iter().take(limits::MACHINE_PLUGINS_MAX).map(text).collect();
        list.order();
        list.dedup();
        list
    };
    let labels = register.labels.iter().take(limits::MACHINE_LABELS_MAX);
    let labels: BTreeMap<String, String> = gather(labels.map(|(name, value)| (text(name), text(value))));
    Facts {
        hostname: text(&register.hostname),
        ip: text(&register.ip),
        os: text(&register.os),
        arch: text(&register.arch),
        labels,
        plugins: texts(&register.plugins),
        features: texts(&register.features),
        agent_version: text(&register.agent_version),
        address: address.to_owned(),
    }
}

/// What is wrong with a machine's clock, if it says what that shows. Signatures of the hub are good for two minutes.
fn clock_warning(register: &Register) -> String {
    let ahead = register.time.saturating_sub(clock::unix_ms()) / 1000;
    match ahead {
        _ if register.time == 0 || ahead.abs() < CLOCK_OFF_S => String::new(),
        1.. => format!("agent clock is {ahead} s ahead"),
        _ => format!("agent clock is {} s behind", -ahead),
    }
}

/// Numbers as they can be: shares from 0 to 100, nothing negative but temperatures.
fn bounded(mut heartbeat: Heartbeat) -> Heartbeat {
    let within = |value: Option<f64>, min: f64, max: f64| value.map(|value| value.clamp(min, max));
    heartbeat.active_sessions = heartbeat.active_sessions.max(0);
    heartbeat.active_alerts = heartbeat.active_alerts.max(0);
    heartbeat.dropped_events = heartbeat.dropped_events.max(0);
    heartbeat.host_uptime_sec = heartbeat.host_uptime_sec.map(|seconds| seconds.max(0));
    heartbeat.cpu_pct = within(heartbeat.cpu_pct, 0.0, 100.0);
    heartbeat.mem_pct = within(heartbeat.mem_pct, 0.0, 100.0);
    heartbeat.disk_pct = within(heartbeat.disk_pct, 0.0, 100.0);
    heartbeat.load1 = within(heartbeat.load1, 0.0, 1e6);
    heartbeat.temp_c = within(heartbeat.temp_c, -273.15, 1e4);
    heartbeat
}

/// What a heartbeat says under a name, as a number.
pub(super) fn number(heartbeat: &Value, name: &str) -> Option<f64> {
    heartbeat.get(name).and_then(Value::as_f64)
}
