//! The reading half of a WebSocket: messages in, requests out. It never writes: pongs and close echoes are queued.

use std::io::{self, Read, Write};
use std::sync::Arc;

use tungstenite::error::{CapacityError, Error};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use crate::limits;
use crate::ws::conn::Conn;
use crate::ws::hub::Hub;
use crate::ws::outbox::ControlWriter;
use crate::ws::requests::Requests;

/// tungstenite's view of the socket: reads are real, writes go to the outbox.
struct Halves {
    conn: Arc<Conn>,
    control: ControlWriter,
}

impl Read for Halves {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.conn.socket).read(buffer)
    }
}

impl Write for Halves {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.control.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.control.flush()
    }
}

/// Reads until the socket ends, one way or another.
pub(super) fn run(hub: &Arc<Hub>, conn: &Arc<Conn>, early: Vec<u8>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(limits::WS_READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(limits::WS_MESSAGE_BYTES_MAX))
        .max_frame_size(Some(limits::WS_MESSAGE_BYTES_MAX));
    let halves = Halves { conn: Arc::clone(conn), control: ControlWriter(Arc::clone(conn)) };
    let mut socket = WebSocket::from_partially_read(halves, early, Role::Server, Some(config));
    let mut requests = Requests::new(Arc::clone(hub), Arc::clone(conn));
    loop {
        let message = socket.read();
        if conn.is_closing() && matches!(message, Ok(Message::Text(_) | Message::Binary(_))) {
            continue; // whatever it asks for, it comes too late
        }
        let go_on = match message {
            Ok(Message::Text(text)) => requests.message(text.as_bytes()),
            Ok(Message::Binary(bytes)) => requests.message(String::from_utf8_lossy(&bytes).as_bytes()),
            Ok(Message::Pong(_)) => {
                conn.note_pong();
                true
            }
            // The answer to a ping, and the echo of a close, are in the outbox by now.
            Ok(Message::Ping(_) | Message::Frame(_)) => {
                let _ = socket.flush();
                true
            }
            Ok(Message::Close(_)) => {
                let _ = socket.flush();
                true
            }
            Err(error) => {
                end(conn, &error);
                if matches!(error, Error::Capacity(_) | Error::Protocol(_) | Error::Utf8(_)) {
                    drain(conn);
                }
                false
            }
        };
        if !go_on {
            return;
        }
    }
}

/// Reads and drops what the peer had sent already: closing with bytes unread would reset the connection, and the close
/// frame be lost. Ends with the peer, or when the write pump shuts the socket down.
fn drain(conn: &Conn) {
    let mut buffer = [0; limits::WS_READ_BUFFER_BYTES];
    let mut left = limits::WS_DRAIN_BYTES_MAX;
    while left > 0 {
        match (&conn.socket).read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => left = left.saturating_sub(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// The close code that tells the peer what was wrong, if there is still somebody to tell.
fn end(conn: &Conn, error: &Error) {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => conn.close(1009, ""),
        Error::Capacity(_) => conn.close(1009, ""),
        Error::Utf8(_) => conn.close(1007, "text is not UTF-8"),
        // Half-closed or gone without a goodbye (contract 8.4).
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => conn.close(1000, ""),
        Error::Protocol(_) => conn.close(1002, "protocol error"),
        // Gone, or the close handshake is complete.
        _ => conn.close(1000, ""),
    }
}
