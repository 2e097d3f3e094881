//! The socket of a machine: what waits to be written, and the pump that writes it (contract agent-link 1.5).

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tungstenite::handshake::derive_accept_key;

use crate::api::message::AgentStart;
use crate::chat::frame;
use crate::fleet::hub::{Fleet, Peer, ping};
use crate::limits;
use crate::rt::{Threads, lock};
use crate::tls::Transport;
use crate::ws::agent_read;
use crate::ws::write_pump::push_close;

/// Pongs in waiting; who pings faster than it reads gets fewer.
const PONGS_MAX: usize = 4;

/// An open socket of a machine. One thread reads it, one writes it.
pub(super) struct AgentSocket {
    pub(super) socket: Transport,
    /// Guarded by this mutex: what is to be written. Nothing is taken under it.
    outgoing: Mutex<Outgoing>,
    bell: Condvar,
}

#[derive(Default)]
struct Outgoing {
    /// Whole frames.
    queue: VecDeque<Arc<[u8]>>,
    bytes: usize,
    pongs: VecDeque<Vec<u8>>,
    /// The next `ping`, and how often there is one.
    pings: Option<(Instant, Duration)>,
    /// A close frame, to be written behind the queue.
    close: Option<Vec<u8>>,
    /// The reading thread is done.
    read_ended: bool,
}

impl Peer for AgentSocket {
    fn send(&self, message: &[u8]) -> bool {
        let whole: Arc<[u8]> = frame::text(message).into();
        let mut outgoing = lock(&self.outgoing);
        if outgoing.close.is_some() {
            return false;
        }
        let is_behind = outgoing.queue.len() >= limits::AGENT_QUEUE
            || (outgoing.bytes + whole.len() > limits::AGENT_QUEUE_BYTES_MAX && !outgoing.queue.is_empty());
        if is_behind {
            drop(outgoing);
            self.cut();
            return false;
        }
        outgoing.bytes += whole.len();
        outgoing.queue.push_back(whole);
        drop(outgoing);
        self.bell.notify_one();
        true
    }

    fn begin_pings(&self, interval: Duration) {
        lock(&self.outgoing).pings.get_or_insert_with(|| (Instant::now() + interval, interval));
        self.bell.notify_one();
    }

    fn close(&self, code: u16, reason: &str) {
        let mut bytes = Vec::new();
        push_close(&mut bytes, code, crate::rt::text::cut(reason, 123));
        lock(&self.outgoing).close.get_or_insert(bytes);
        self.bell.notify_one();
    }

    fn cut(&self) {
        // A socket that is gone already needs no shutting down.
        let _ = self.socket.socket().shutdown(Shutdown::Both);
        self.end_reading();
    }
}

impl AgentSocket {
    /// Queues the answer to a protocol ping.
    pub(super) fn pong(&self, payload: &[u8]) {
        let mut bytes = Vec::with_capacity(payload.len() + 2);
        frame::push_header(&mut bytes, 0x8a, payload.len());
        bytes.extend_from_slice(payload);
        let mut outgoing = lock(&self.outgoing);
        if outgoing.pongs.len() >= PONGS_MAX {
            outgoing.pongs.pop_front();
        }
        outgoing.pongs.push_back(bytes);
        drop(outgoing);
        self.bell.notify_one();
    }

    /// Nothing will be read any more: the writing thread ends behind what is queued.
    pub(super) fn end_reading(&self) {
        lock(&self.outgoing).read_ended = true;
        self.bell.notify_one();
    }

    /// What is to be written next, waiting for it; `last` when nothing comes behind it. None: the end.
    fn take(&self) -> Option<Taken> {
        let mut outgoing = lock(&self.outgoing);
        loop {
            let mut taken = Taken { frames: Vec::new(), control: Vec::new(), is_last: false };
            taken.control.extend(outgoing.pongs.drain(..).flatten());
            if let Some((at, interval)) = outgoing.pings
                && at <= Instant::now()
            {
                outgoing.pings = Some((Instant::now() + interval, interval));
                taken.control.extend(frame::text(&ping()));
            }
            let mut bytes = 0;
            while bytes < limits::WS_WRITE_BATCH_BYTES {
                let Some(whole) = outgoing.queue.pop_front() else { break };
                bytes += whole.len();
                taken.frames.push(whole);
            }
            outgoing.bytes -= bytes;
            if outgoing.queue.is_empty() {
                outgoing.queue.shrink_to(4);
                if let Some(close) = &outgoing.close {
                    taken.frames.push(close.as_slice().into());
                    taken.is_last = true;
                    return Some(taken);
                }
            }
            if !taken.frames.is_empty() || !taken.control.is_empty() {
                return Some(taken);
            }
            if outgoing.read_ended {
                return None;
            }
            let timeout = outgoing
                .pings
                .map_or(Duration::from_secs(3600), |(at, _)| at.saturating_duration_since(Instant::now()));
            outgoing = match self.bell.wait_timeout(outgoing, timeout) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn write(&self, head: &[u8]) -> io::Result<()> {
        let mut socket = &self.socket;
        socket.write_all(head)?;
        while let Some(taken) = self.take() {
            socket.write_all(&taken.control)?;
            for whole in &taken.frames {
                socket.write_all(whole)?;
            }
            if taken.is_last {
                self.socket.end_writing()?;
                self.wait_for_reader();
                break;
            }
        }
        Ok(())
    }

    /// Our close frame is out; the machine may answer with its own before the socket goes.
    fn wait_for_reader(&self) {
        let deadline = Instant::now() + limits::WS_CLOSE_TIMEOUT;
        let mut outgoing = lock(&self.outgoing);
        while !outgoing.read_ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            outgoing = match self.bell.wait_timeout(outgoing, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

struct Taken {
    frames: Vec<Arc<[u8]>>,
    control: Vec<u8>,
    is_last: bool,
}

/// The sockets of all machines.
pub struct AgentSockets {
    fleet: Arc<Fleet>,
    threads: Threads,
}

impl AgentSockets {
    /// No socket yet.
    pub fn new(fleet: Arc<Fleet>) -> Self {
        Self { fleet, threads: Threads::new() }
    }

    /// Takes over a blocking socket. Whatever goes wrong ends this socket only.
    pub fn open(&self, socket: Transport, early: Vec<u8>, start: AgentStart) {
        if let Err(error) = self.try_open(socket, early, start) {
            log::warn!("open the connection of a machine: {error}");
        }
    }

    /// Waits for the threads after [`Fleet::shutdown`]; the names of late ones.
    pub fn join(&self, timeout: Duration) -> Vec<String> {
        self.threads.join_all(timeout)
    }

    fn try_open(&self, socket: Transport, early: Vec<u8>, start: AgentStart) -> io::Result<()> {
        socket.set_write_timeout(Some(limits::WS_WRITE_TIMEOUT))?;
        socket.socket().set_nodelay(true)?;
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(start.key.as_bytes())
        );
        let socket = Arc::new(AgentSocket { socket, outgoing: Mutex::new(Outgoing::default()), bell: Condvar::new() });
        let arrival = self.fleet.arrive(start.admission, Arc::clone(&socket) as Arc<dyn Peer>);
        let writing = Arc::clone(&socket);
        self.threads.spawn("agent-write", limits::PUMP_STACK_BYTES, move || {
            if let Err(error) = writing.write(head.as_bytes()) {
                log::debug!("write to a machine: {error}");
            }
            let _ = writing.socket.socket().shutdown(Shutdown::Both);
        })?;
        let reading = Arc::clone(&socket);
        let spawned = self.threads.spawn("agent-read", limits::AGENT_READ_STACK_BYTES, move || {
            agent_read::run(&reading, arrival, early);
            reading.end_reading();
        });
        if spawned.is_err() {
            socket.cut();
        }
        spawned
    }
}
