//! From a checked upgrade to two running pumps.

use std::io::{self, Write};
use std::net::Shutdown;
use std::sync::Arc;

use tungstenite::handshake::derive_accept_key;

use crate::api::message::WsStart;
use crate::chat::frame;
use crate::limits;
use crate::tls::Transport;
use crate::ws::conn::{Conn, ConnParts};
use crate::ws::hub::Hub;
use crate::ws::outbox::{Data, outbox};
use crate::ws::{frames, read_pump, write_pump};

impl Hub {
    /// Takes over a blocking socket. Whatever goes wrong ends this socket only.
    pub fn open(self: &Arc<Self>, socket: Transport, early: Vec<u8>, start: WsStart) {
        if let Err(error) = self.try_open(socket, early, start) {
            log::debug!("open a websocket: {error}");
        }
    }

    fn try_open(self: &Arc<Self>, socket: Transport, early: Vec<u8>, start: WsStart) -> io::Result<()> {
        socket.set_write_timeout(Some(limits::WS_WRITE_TIMEOUT))?;
        socket.socket().set_nodelay(true)?;
        let mut head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(start.key.as_bytes())
        )
        .into_bytes();
        let (outbox, inbox) = outbox();
        let conn = Conn::new(ConnParts {
            id: self.next_id(),
            caller: start.caller,
            approves: start.approves,
            sees_machines: start.sees_machines,
            address: start.address.into(),
            credential: start.credential,
            socket,
            outbox,
        });
        if !self.register(&conn) {
            write_pump::push_close(&mut head, 1013, "max connections reached");
            (&conn.socket).write_all(&head)?;
            return conn.socket.end_writing();
        }
        if start.hello {
            frame::push_text(&mut head, &frames::hello());
        }
        let (hub, writing) = (Arc::clone(self), Arc::clone(&conn));
        let write_spawned = self.threads.spawn(&format!("ws-write-{}", conn.id), limits::PUMP_STACK_BYTES, move || {
            write_pump::run(&writing, &inbox, &head);
            hub.unregister(&writing);
            writing.shut_down();
        });
        if let Err(error) = write_spawned {
            self.unregister(&conn);
            return refuse_without_thread(&conn, &error);
        }
        let (hub, reading) = (Arc::clone(self), Arc::clone(&conn));
        let read_spawned = self.threads.spawn(&format!("ws-read-{}", conn.id), limits::PUMP_STACK_BYTES, move || {
            read_pump::run(&hub, &reading, early);
            reading.end_reading();
        });
        if read_spawned.is_err() {
            conn.close(1013, "no thread for this connection; try again");
        }
        Ok(())
    }
}

impl Data {
    pub(super) fn payload(payload: &[u8]) -> Self {
        Self::Frame(frame::text(payload).into())
    }
}

/// The upgrade is answered all the same, so that the client learns that it may try again.
fn refuse_without_thread(conn: &Conn, error: &io::Error) -> io::Result<()> {
    log::error!("start a websocket: {error}");
    // The head went with the closure that could not be started; a plain end is all that is left.
    conn.socket.socket().shutdown(Shutdown::Both)
}
