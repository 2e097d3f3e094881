//! Taking connections: the listener's part of the poller's thread, and whom to let go for it.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use polling::Event;

use crate::http::conn::Conn;
use crate::http::head::Refusal;
use crate::http::poll::PollThread;
use crate::http::refusal::push_refusal;
use crate::http::shed::{class, victim};
use crate::limits;
use crate::rt::lock;
use crate::sys;
use crate::tls::Transport;

impl PollThread {
    pub(super) fn accept(&mut self) {
        self.accept_again_at = None;
        for _ in 0..limits::ACCEPT_BATCH {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                }
                Err(error) => {
                    // No descriptors or no memory: make room, wait a moment, never die.
                    log::warn!("accept: {error}");
                    for _ in 0..limits::ACCEPT_SHED {
                        self.shed();
                    }
                    self.accept_again_at = Some(Instant::now() + limits::ACCEPT_BACKOFF);
                    return;
                }
            }
        }
        if let Some(listener) = &self.listener
            && let Err(error) = self.shared.poller.modify(listener, Event::readable(self.shared.slots.len()))
        {
            log::error!("arm the listener: {error}");
            self.accept_again_at = Some(Instant::now() + limits::ACCEPT_BACKOFF);
        }
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) {
        let mut slot = lock(&self.shared.free).pop();
        if slot.is_none() && self.shed() {
            slot = lock(&self.shared.free).pop();
        }
        let Some(slot) = slot else {
            if self.shared.tls.is_some() {
                return; // a handshake for the sake of a refusal would cost more than any answer
            }
            let mut out = Vec::new();
            push_refusal(&mut out, Refusal { status: 503, text: "too many connections; try again" }, b"");
            // One attempt: who does not take it at once gets nothing. What it sent is read, so that the end is an
            // orderly one and the answer is not lost to a reset.
            let _ =
                stream.set_nonblocking(true).and_then(|()| io::Read::read(&mut &stream, &mut self.scratch)).map(|_| ());
            let _ = io::Write::write(&mut &stream, &out);
            return;
        };
        // A handshake has the time of a head, and is let go of like one.
        let deadline = Instant::now() + self.shared.settings.head_timeout;
        let prepared = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
        let stream = prepared.and_then(|()| match &self.shared.tls {
            None => Ok(Transport::Plain(stream)),
            Some(acceptor) => acceptor.accept(stream),
        });
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                log::warn!("take a connection: {error}");
                self.shared.free_slot(slot);
                return;
            }
        };
        let conn = Box::new(Conn::new(stream, peer, slot, deadline, Arc::clone(&self.shared.buffered_all)));
        if let Err(error) = sys::poller_add(&self.shared.poller, conn.stream.socket(), Event::none(slot)) {
            log::warn!("take a connection: {error}");
            drop(conn);
            self.shared.free_slot(slot);
            return;
        }
        self.shared.slots[slot].class.store(class::BUSY, Ordering::Release);
        // Most clients have sent their request by now; if not, this parks.
        self.drive(conn);
    }

    /// Lets go of the connection that is missed least; false when all are in work.
    fn shed(&mut self) -> bool {
        let slots = self.shared.slots.iter().enumerate();
        let chosen = victim(
            slots.map(|(index, slot)| (index, slot.class.load(Ordering::Acquire), slot.since.load(Ordering::Relaxed))),
        );
        let Some(conn) = chosen.and_then(|slot| self.take(slot)) else {
            return false;
        };
        self.shared.close(conn);
        true
    }
}
