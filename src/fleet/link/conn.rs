//! One connection to the hub (contract agent-link 3.2): the link's own thread reads, writes and keeps its timers; it
//! sleeps in the poller and blocks nowhere else.
//!
//! Messages leave in this order: acks and heartbeats, outputs of sessions, alerts. Whoever makes outputs waits when
//! their queue is full; the reader never does.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};
use tungstenite::{Error, Message as Frame, WebSocket};

use super::dial::Dial;
use super::sessions::{Cause, Out};
use super::spool::Sendable;
use super::stream::Stream;
use super::{LinkError, Shared, message_id};
use crate::fleet::wire::{Heartbeat, Message};

/// Outputs of sessions in waiting (Block: their threads wait).
const OUTPUTS_MAX: usize = 64;
/// Acks and heartbeats in waiting; a hub that makes us queue more does not read (`DropPeer`).
const CONTROL_MAX: usize = 256;
/// Messages read before timers and writing get a turn.
const READ_BURST: usize = 64;
/// After a hub refused a batch.
pub(super) const REFUSED_WAIT: Duration = Duration::from_secs(10);
/// New alerts go out at most this often to a hub that does not acknowledge them (contract agent-link 3.2).
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Wall clock and monotonic clock differ by more than this: the machine slept, and the connection is most likely dead.
const SLEPT: Duration = Duration::from_secs(90);

/// A registered connection.
pub struct Conn<'a> {
    pub(super) link: &'a Shared,
    pub(super) ws: WebSocket<Stream>,
    pub(super) out_tx: Sender<Vec<u8>>,
    out_rx: Receiver<Vec<u8>>,
    control: VecDeque<Queued>,
    sending: Option<Sending>,
    /// The system takes no more bytes for now.
    pub(super) is_blocked: bool,
    /// The hub acknowledges alerts; inputs and cancels are answered.
    pub(super) acks_alerts: bool,
    pub(super) acks_inputs: bool,
    /// Batches sent on this connection and not acknowledged, with the time they were written.
    pub(super) in_flight: VecDeque<(String, Instant)>,
    pub(super) alerts_not_before: Instant,
    pub(super) register_id: String,
    /// What the hub has to sign; empty once it did.
    pub(super) nonce: String,
    pub(super) last_data: Instant,
    pub(super) registered: Instant,
    pub(super) bad_messages: u64,
    /// Alerts wait for the answer to the first registration.
    is_registered: bool,
    next_heartbeat: Instant,
    clocks: (Instant, SystemTime),
    /// When the farewell ends, once it has begun.
    farewell: Option<Instant>,
}

/// A control message that waits.
struct Queued {
    bytes: Vec<u8>,
    n_dropped: u64,
}

/// The message that is being written.
struct Sending {
    /// When bytes last went out, and how many there were.
    progress: (Instant, u64),
    batch: Option<String>,
    n_dropped: u64,
}

impl<'a> Conn<'a> {
    /// Dials, registers and waits for the answer.
    pub(super) fn open(link: &'a Shared) -> Result<Self, LinkError> {
        let now = Instant::now();
        let target = link.target();
        let token = link.token();
        let dial = Dial {
            waker: &link.waker,
            stopping: &link.stopping,
            threads: &link.lookups,
            address: &target.address,
            tls: target.tls.clone(),
            token: &token,
            agent_id: link.state.agent_id(),
            deadline: now + link.timers.dial,
            warned: &link.warned,
        };
        let ws = dial.open()?;
        let (out_tx, out_rx) = bounded(OUTPUTS_MAX);
        let mut conn = Self {
            link,
            ws,
            out_tx,
            out_rx,
            control: VecDeque::new(),
            sending: None,
            is_blocked: false,
            acks_alerts: false,
            acks_inputs: false,
            in_flight: VecDeque::new(),
            alerts_not_before: now,
            register_id: String::new(),
            nonce: String::new(),
            last_data: now,
            registered: now,
            bad_messages: 0,
            is_registered: false,
            next_heartbeat: now,
            clocks: (now, SystemTime::now()),
            farewell: None,
        };
        conn.register()?;
        conn.is_registered = true;
        let now = Instant::now();
        (conn.last_data, conn.registered) = (now, now);
        // Somebody may wait for the first numbers.
        conn.next_heartbeat = now + link.timers.heartbeat / 10;
        conn.clocks = (now, SystemTime::now());
        Ok(conn)
    }

    /// Sends `register` and reads its `ack`, which must be the first message.
    fn register(&mut self) -> Result<(), LinkError> {
        self.queue_register();
        let deadline = Instant::now() + self.link.timers.ack;
        let first = loop {
            match self.ws.read() {
                Ok(Frame::Text(text)) => break text.as_bytes().to_vec(),
                Ok(Frame::Binary(bytes)) => break bytes.to_vec(),
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    self.write_some().map_err(before_ack)?;
                    if Instant::now() >= deadline {
                        return Err(LinkError::Protocol { cause: "the registration was not answered".to_owned() });
                    }
                    if self.link.stopping.load(Ordering::Acquire) {
                        self.goodbye(1000, "agent stopping");
                        return Err(LinkError::Connect { cause: "stopping".to_owned() });
                    }
                    self.sleep(deadline).map_err(before_ack)?;
                }
                Err(error) => return Err(before_ack(self.read_error(&error))),
            }
        };
        let result = self.registration(&first);
        match &result {
            Ok(()) => {}
            Err(LinkError::Rejected { .. }) => self.goodbye(1000, "register rejected"),
            Err(_) => self.goodbye(1011, "registration failed"),
        }
        result
    }

    /// Serves the connection to its end; how it ended. None after a farewell.
    pub(super) fn serve(&mut self) -> Option<LinkError> {
        let ended = loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => break None,
                Err(error) => break Some(error),
            }
        };
        if let Some(LinkError::Ordered { .. }) = &ended {
            self.goodbye(1000, "");
        }
        // Nobody is left to tell; threads that wait for the queue give up when it is dropped.
        self.link.sessions.end_all(Cause::Lost);
        ended
    }

    /// One round: read, write, look at the clock, sleep. False when the farewell is over.
    fn turn(&mut self) -> Result<bool, LinkError> {
        let more = self.read_some()?;
        let now = Instant::now();
        if self.link.reregister.swap(false, Ordering::AcqRel) {
            self.queue_register();
        }
        if self.link.redial.swap(false, Ordering::AcqRel) {
            self.goodbye(1000, "settings changed");
            return Err(LinkError::Lost { cause: "settings changed".to_owned() });
        }
        if self.farewell.is_none() && self.link.stopping.load(Ordering::Acquire) {
            self.farewell = Some(now + self.link.timers.farewell);
            self.link.sessions.end_all(Cause::Cancelled);
        }
        self.write_some()?;
        // What falls due after it is looked at before the sleep, too.
        let (until, acted) = self.keep_timers(now)?;
        if let Some(end) = self.farewell
            && (now >= end || self.has_said_all())
        {
            self.goodbye(1000, "agent stopping");
            return Ok(false);
        }
        if self.control.len() > CONTROL_MAX {
            return Err(LinkError::Lost { cause: "the hub asks and does not read the answers".to_owned() });
        }
        if !more && !acted {
            self.sleep(until)?;
        }
        Ok(true)
    }

    /// Handles what has come; true when there may be more at once.
    fn read_some(&mut self) -> Result<bool, LinkError> {
        for _ in 0..READ_BURST {
            match self.ws.read() {
                Ok(Frame::Text(text)) => self.handle(text.as_bytes())?,
                Ok(Frame::Binary(bytes)) => self.handle(&bytes)?,
                Ok(Frame::Close(frame)) => {
                    let reason = frame.map_or_else(String::new, |frame| format!(" ({} {})", frame.code, frame.reason));
                    self.goodbye(1000, "");
                    return Err(LinkError::Lost { cause: format!("closed by the hub{reason}") });
                }
                // Pongs leave with the next flush. They do not count as a sign of life (contract agent-link 1.5).
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(self.read_error(&error)),
            }
        }
        Ok(true)
    }

    /// Does what is due. Until when there is nothing to do; whether there is something to send now.
    fn keep_timers(&mut self, now: Instant) -> Result<(Instant, bool), LinkError> {
        let mut acted = false;
        let timers = &self.link.timers;
        let silent_at = self.last_data + timers.silence;
        if now >= silent_at {
            let cause = format!("the hub was silent for {} s", timers.silence.as_secs());
            return Err(LinkError::Lost { cause });
        }
        if now >= self.next_heartbeat {
            self.next_heartbeat = now + timers.heartbeat;
            let (then, wall) = std::mem::replace(&mut self.clocks, (now, SystemTime::now()));
            let off = wall.elapsed().unwrap_or_default().saturating_sub(then.elapsed());
            if off > SLEPT {
                return Err(LinkError::Lost { cause: "this machine slept".to_owned() });
            }
            self.heartbeat();
            acted = true;
        }
        let mut until = silent_at.min(self.next_heartbeat);
        if let Some(deadline) = self.link.sessions.expire(now) {
            until = until.min(deadline);
        }
        // To a hub that acknowledges, silence means that the batch goes out again; to another, that it arrived.
        let wait = if self.acks_alerts { timers.alert_ack } else { timers.linger };
        while let Some((id, written)) = self.in_flight.front() {
            let due = *written + wait;
            if due > now {
                until = until.min(due);
                break;
            }
            if self.acks_alerts {
                log::warn!("the hub did not acknowledge alerts for {} s; they are sent again", wait.as_secs());
            } else {
                self.link.spool.delivered(id);
            }
            self.in_flight.pop_front();
            acted = true;
        }
        if self.alerts_not_before > now {
            until = until.min(self.alerts_not_before);
        }
        if let Some(sending) = &self.sending {
            let stalled_at = sending.progress.0 + timers.write;
            if now >= stalled_at {
                return Err(LinkError::Lost { cause: "the hub stopped reading".to_owned() });
            }
            until = until.min(stalled_at);
        }
        if let Some(end) = self.farewell {
            until = until.min(end);
        }
        Ok((until, acted))
    }

    fn heartbeat(&mut self) {
        let n_dropped = self.link.spool.dropped();
        let mut payload = Heartbeat {
            active_sessions: i64::try_from(self.link.sessions.active()).unwrap_or(i64::MAX),
            dropped_events: i64::try_from(n_dropped).unwrap_or(i64::MAX),
            ..Heartbeat::default()
        };
        self.link.fill_vitals(&mut payload);
        let bytes = Message::new("heartbeat", message_id(), &payload).encode();
        self.control.push_back(Queued { bytes, n_dropped });
    }

    /// Queues an answer of the link itself.
    pub(super) fn queue(&mut self, message: &Message) {
        self.control.push_back(Queued { bytes: message.encode(), n_dropped: 0 });
    }

    /// The way of a session's messages.
    pub(super) fn out(&self) -> Out {
        Out { tx: self.out_tx.clone(), waker: Arc::clone(&self.link.waker) }
    }

    /// Writes until nothing is left or the system takes no more.
    fn write_some(&mut self) -> Result<(), LinkError> {
        loop {
            match self.ws.flush() {
                Ok(()) => {
                    self.is_blocked = false;
                    if let Some(sending) = self.sending.take() {
                        self.sent(sending);
                    }
                }
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    let written = self.ws.get_ref().written;
                    if let Some(sending) = &mut self.sending
                        && sending.progress.1 != written
                    {
                        sending.progress = (Instant::now(), written);
                    }
                    return Ok(());
                }
                Err(error) => return Err(LinkError::Lost { cause: error.to_string() }),
            }
            let Some((bytes, batch, n_dropped)) = self.next_message() else { return Ok(()) };
            let Ok(text) = String::from_utf8(bytes) else { continue }; // all of it is our own JSON
            match self.ws.write(Frame::text(text)) {
                Ok(()) => {}
                // It is queued all the same.
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(LinkError::Lost { cause: error.to_string() }),
            }
            let progress = (Instant::now(), self.ws.get_ref().written);
            self.sending = Some(Sending { progress, batch, n_dropped });
        }
    }

    fn next_message(&mut self) -> Option<(Vec<u8>, Option<String>, u64)> {
        if let Some(queued) = self.control.pop_front() {
            return Some((queued.bytes, None, queued.n_dropped));
        }
        if let Ok(bytes) = self.out_rx.try_recv() {
            return Some((bytes, None, 0));
        }
        let Sendable { id, message } = self.next_alerts()?;
        Some((message, Some(id), 0))
    }

    fn next_alerts(&mut self) -> Option<Sendable> {
        let now = Instant::now();
        let spool = &self.link.spool;
        if !self.is_registered || now < self.alerts_not_before {
            return None;
        }
        if self.acks_alerts {
            // One at a time, and first what an earlier connection left behind.
            return if self.in_flight.is_empty() {
                spool.batch(0).or_else(|| spool.next_batch(message_id()))
            } else {
                None
            };
        }
        if self.in_flight.len() < spool.batches() {
            return spool.batch(self.in_flight.len());
        }
        if !spool.has_new() {
            return None;
        }
        self.alerts_not_before = now + FLUSH_INTERVAL;
        spool.next_batch(message_id())
    }

    fn sent(&mut self, sending: Sending) {
        if let Some(id) = sending.batch {
            self.in_flight.push_back((id, Instant::now()));
        }
        if sending.n_dropped > 0 {
            self.link.spool.told(sending.n_dropped);
        }
    }

    /// Whether everything that can be said before the farewell was said: sessions have ended, alerts are with the hub.
    fn has_said_all(&self) -> bool {
        let alerts_done = if self.acks_alerts {
            self.in_flight.is_empty() && self.link.spool.waiting() == 0
        } else {
            self.in_flight.len() >= self.link.spool.batches() && !self.link.spool.has_new()
        };
        self.sending.is_none()
            && self.control.is_empty()
            && self.out_rx.is_empty()
            && !self.link.sessions.is_busy()
            && alerts_done
    }

    pub(super) fn sleep(&self, until: Instant) -> Result<(), LinkError> {
        let stream = self.ws.get_ref();
        let wants_write = self.is_blocked || self.sending.is_some() || stream.wants_write();
        let slept = self.link.waker.sleep(Some((stream, wants_write)), until);
        slept.map_err(|error| LinkError::Lost { cause: error.to_string() })
    }
}

/// What is lost before the registration was never there.
fn before_ack(error: LinkError) -> LinkError {
    match error {
        LinkError::Lost { cause } => LinkError::Protocol { cause },
        other => other,
    }
}
