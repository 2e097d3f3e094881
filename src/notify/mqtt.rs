//! The channel `mqtt`: a publisher of MQTT 3.1.1 with a session that is kept, so that the broker can tell when it is
//! gone. Machines are retained topics that Home Assistant finds by itself; notices are plain events.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::channel::{Channel, Message, SendError};
use super::homeassistant::{Retained, Topics};
use super::mqtt_packet::{self as packet, Answer, Connect};
use super::situation::{MachineState, Situation};
use super::socket::{Connection, Endpoint};
use super::web::event_shape;
use crate::config::{ChannelConfig, MqttConfig};
use crate::rt::Cancel;
use crate::rt::order::gather;

const ONLINE: &str = "online";
const OFFLINE: &str = "offline";
/// Publications under way at once.
const WINDOW: usize = 16;
/// Longest wait between two attempts to connect while nothing is to be sent.
const BACKOFF_MAX_MS: i64 = 300_000;
/// Between two looks at the machines: a burst of alerts is one change.
const LOOK_INTERVAL_MS: i64 = 1000;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A publisher.
pub(super) struct Mqtt {
    config: MqttConfig,
    endpoint: Endpoint,
    topics: Topics,
    client_id: String,
    timeout: Duration,
    situation: Arc<dyn Situation>,
    session: Option<Session>,
    /// What the broker was told of each machine since the session began, and of which it still knows.
    known: BTreeMap<String, Option<MachineState>>,
    looked_at: i64,
    ping_at: i64,
    /// Attempts to connect that failed in a row, and when the next is made.
    failures: u32,
    retry_at: i64,
}

/// An open connection to a broker.
struct Session {
    connection: Connection,
    buffer: Vec<u8>,
    next_id: u16,
}

impl Mqtt {
    /// A channel; the error is what cannot be used.
    pub(super) fn new(
        config: &ChannelConfig,
        mqtt: &MqttConfig,
        topic: &str,
        situation: &Arc<dyn Situation>,
    ) -> Result<Self, String> {
        let mut random = [0_u8; 6];
        getrandom::fill(&mut random).map_err(|error| error.to_string())?;
        // A name of its own for each start: two publishers of one name would push each other out for ever.
        let made_up = || format!("holt-{}", crate::rt::text::hex(&random));
        Ok(Self {
            endpoint: Endpoint::new(&mqtt.host, mqtt.port, mqtt.tls, mqtt.ca_file.as_deref())?,
            topics: Topics {
                prefix: mqtt.prefix.clone().unwrap_or_else(|| topic.to_owned()),
                discovery: mqtt.discovery.clone(),
            },
            client_id: mqtt.client_id.clone().unwrap_or_else(made_up),
            timeout: config.timeout,
            situation: Arc::clone(situation),
            session: None,
            known: BTreeMap::new(),
            looked_at: 0,
            ping_at: 0,
            failures: 0,
            retry_at: 0,
            config: mqtt.clone(),
        })
    }

    fn ping_after_ms(&self) -> i64 {
        // Early enough for an answer within the time that the broker was promised.
        i64::from(self.config.keep_alive_s) * 800
    }

    /// The open session, made if there is none, with the time of the channel ahead of it.
    fn session(&mut self, now: i64, cancel: &Cancel) -> Result<&mut Session, SendError> {
        let deadline = Instant::now() + self.timeout;
        if self.session.is_none() {
            let opened = self.open(deadline, cancel)?;
            // Nothing is known to be as it was: another program may have changed it, or the broker lost it.
            self.known.values_mut().for_each(|state| *state = None);
            self.looked_at = 0;
            self.ping_at = now + self.ping_after_ms();
            self.session = Some(opened);
        }
        match &mut self.session {
            Some(session) => {
                session.connection.set_deadline(deadline);
                session.connection.guard(cancel);
                Ok(session)
            }
            None => Err(SendError::later("no session")),
        }
    }

    fn open(&self, deadline: Instant, cancel: &Cancel) -> Result<Session, SendError> {
        let connection = self.endpoint.connect(self.config.tls, deadline, cancel)?;
        let mut session = Session { connection, buffer: Vec::new(), next_id: 1 };
        let status = self.topics.status();
        let user = self.config.user.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
        let keep_alive_s = self.config.keep_alive_s;
        let hello = Connect { client_id: &self.client_id, keep_alive_s, user, will: (&status, OFFLINE) };
        session.write(&packet::connect(&hello))?;
        match session.read()? {
            Answer::Connected(0) => {}
            Answer::Connected(code @ (2 | 4 | 5)) => {
                let why = if code == 2 { "the client id" } else { "user or password" };
                return Err(SendError::Refused(format!("the broker refused {why} ({code})")));
            }
            Answer::Connected(code) => return Err(SendError::later(format!("the broker is not ready ({code})"))),
            Answer::Taken(_) | Answer::Pong => return Err(garbage("an answer comes before the connection")),
        }
        session.publish(&[(status.as_str(), ONLINE.as_bytes(), true)])?;
        Ok(session)
    }

    /// Tells the broker what has changed since it was told.
    fn look(&mut self, now: i64, cancel: &Cancel) -> Result<(), SendError> {
        self.session(now, cancel)?;
        if (self.looked_at..self.looked_at + LOOK_INTERVAL_MS).contains(&now) {
            return Ok(());
        }
        self.looked_at = now;
        let Some(machines) = self.situation.machines() else { return Ok(()) };
        let mut news: Vec<Retained> = Vec::new();
        for machine in &machines {
            let told = self.known.get(&machine.id).and_then(Option::as_ref);
            if told.is_none_or(|told| told.name != machine.name) {
                news.extend(self.topics.announcements(machine));
            }
            if told != Some(machine) {
                news.push(self.topics.state_of(machine));
            }
        }
        for id in self.known.keys().filter(|id| !machines.iter().any(|machine| machine.id == **id)) {
            news.extend(self.topics.farewell(id));
        }
        if !news.is_empty() {
            let publications: Vec<_> = news.iter().map(|new| (&*new.topic, new.payload.as_bytes(), true)).collect();
            self.session(now, cancel)?.publish(&publications)?;
            self.ping_at = now + self.ping_after_ms();
        }
        self.known = gather(machines.into_iter().map(|machine| (machine.id.clone(), Some(machine))));
        Ok(())
    }

    fn keep(&mut self, now: i64, cancel: &Cancel) -> Result<(), SendError> {
        if self.session.is_some() && now >= self.ping_at {
            self.ping_at = now + self.ping_after_ms();
            let session = self.session(now, cancel)?;
            session.write(&packet::PING)?;
            if session.read()? != Answer::Pong {
                return Err(garbage("a ping is not answered by its pong"));
            }
        }
        self.look(now, cancel)
    }

    /// What every use of the session ends with.
    fn settle(&mut self, result: Result<(), SendError>, cancel: &Cancel) -> Result<(), SendError> {
        cancel.clear_hook();
        if result.is_err() {
            self.session = None;
            if cancel.is_set() {
                return Err(SendError::Cancelled);
            }
        }
        result
    }
}

impl Channel for Mqtt {
    fn send(&mut self, message: &Message<'_>, cancel: &Cancel) -> Result<(), SendError> {
        let body = event_shape(message).to_string();
        let topic = self.topics.notices();
        let mut publish = || {
            let now = crate::rt::clock::unix_ms();
            self.session(now, cancel)?.publish(&[(&topic, body.as_bytes(), false)])?;
            self.ping_at = now + self.ping_after_ms();
            Ok(())
        };
        let result = publish();
        self.settle(result, cancel)
    }

    fn tend(&mut self, now: i64, cancel: &Cancel) -> Option<i64> {
        if self.session.is_none() && (now < self.retry_at && self.retry_at - now <= BACKOFF_MAX_MS) {
            return Some(self.retry_at);
        }
        let kept = self.keep(now, cancel);
        match self.settle(kept, cancel) {
            Ok(()) => {
                self.failures = 0;
                let look_at = self.looked_at + LOOK_INTERVAL_MS;
                Some(if now < look_at { look_at.min(self.ping_at) } else { self.ping_at })
            }
            Err(error) => {
                if self.failures == 0 && error != SendError::Cancelled {
                    log::warn!("notify: mqtt {}: {}", self.config.host, error.text());
                }
                self.failures = self.failures.saturating_add(1);
                self.retry_at = now + (1000 << self.failures.min(20)).min(BACKOFF_MAX_MS);
                Some(self.retry_at)
            }
        }
    }

    fn close(&mut self) {
        if let Some(mut session) = self.session.take() {
            session.connection.set_deadline(Instant::now() + CLOSE_TIMEOUT);
            let status = self.topics.status();
            // Without it the broker says the same with the last will, a little later.
            let _ = session.publish(&[(&status, OFFLINE.as_bytes(), true)]);
            let _ = session.write(&packet::DISCONNECT);
        }
    }
}

impl Session {
    /// Publishes and waits until the broker has taken all: topic, payload, retained.
    fn publish(&mut self, publications: &[(&str, &[u8], bool)]) -> Result<(), SendError> {
        for window in publications.chunks(WINDOW) {
            let mut bytes = Vec::new();
            let mut waiting = Vec::with_capacity(window.len());
            for (topic, payload, retain) in window {
                bytes.extend(packet::publish(topic, payload, *retain, self.next_id));
                waiting.push(self.next_id);
                self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            }
            self.write(&bytes)?;
            while !waiting.is_empty() {
                let taken = match self.read()? {
                    Answer::Taken(id) => waiting.iter().position(|waiting| *waiting == id),
                    Answer::Connected(_) | Answer::Pong => None,
                };
                waiting.swap_remove(taken.ok_or_else(|| garbage("it answers what was not asked"))?);
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        let written = self.connection.write_all(bytes).and_then(|()| self.connection.flush());
        written.map_err(|error| io_error(&error))
    }

    fn read(&mut self) -> Result<Answer, SendError> {
        loop {
            if let Some(answer) = packet::take(&mut self.buffer).map_err(garbage)? {
                return Ok(answer);
            }
            let mut chunk = [0; 256];
            match self.connection.read(&mut chunk) {
                Ok(0) => return Err(SendError::later("the broker hung up")),
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error(&error)),
            }
        }
    }
}

fn garbage(what: &str) -> SendError {
    SendError::later(format!("the broker does not speak MQTT 3.1.1: {what}"))
}

fn io_error(error: &std::io::Error) -> SendError {
    SendError::later(match error.kind() {
        ErrorKind::TimedOut => "the broker took too long".to_owned(),
        _ => format!("the connection broke: {error}"),
    })
}
