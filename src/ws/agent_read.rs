//! The pump that reads a machine: messages in, one after the other, for [`Arrival`] to judge.

use std::io::{self, Read};
use std::time::Instant;

use crate::fleet::hub::{Arrival, Ending, Peer};
use crate::limits;
use crate::tls::Transport;
use crate::ws::agent::AgentSocket;
use crate::ws::agent_frames::{FrameReader, Incoming, ReadError};

/// The socket with the time limit that counts now.
struct Timed<'a> {
    socket: &'a Transport,
    /// Until the machine has registered.
    deadline: Option<Instant>,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.socket.set_read_timeout(Some(left))?;
        }
        self.socket.read(buffer)
    }
}

/// Reads until the connection ends, one way or another.
pub(super) fn run(conn: &AgentSocket, mut arrival: Arrival, early: Vec<u8>) {
    let deadline = Some(Instant::now() + limits::AGENT_REGISTER_TIMEOUT);
    let mut source = Timed { socket: &conn.socket, deadline };
    let mut reader = FrameReader::new(early);
    let ending = loop {
        let bytes_max =
            if source.deadline.is_some() { limits::AGENT_FIRST_BYTES_MAX } else { limits::AGENT_MESSAGE_BYTES_MAX };
        match reader.next(&mut source, bytes_max) {
            Ok(Incoming::Message) => {
                let go_on = arrival.message(reader.message());
                reader.recycle();
                if !go_on {
                    break Ending::Refused;
                }
                if source.deadline.take().is_some()
                    && conn.socket.set_read_timeout(Some(arrival.silence_max())).is_err()
                {
                    break Ending::Lost("its socket is gone".to_owned());
                }
            }
            Ok(Incoming::Ping(payload)) => conn.pong(&payload),
            Ok(Incoming::Pong) => {}
            Ok(Incoming::Close(code, reason)) => {
                conn.close(code.unwrap_or(1000), "");
                break Ending::Closed(code, reason);
            }
            Err(ReadError::Ended(error)) => {
                let is_silent = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                break Ending::Lost(if is_silent { "it is silent".to_owned() } else { error.to_string() });
            }
            Err(ReadError::TooLong) => {
                conn.close(1009, "message too large");
                break Ending::Lost("its message is too large".to_owned());
            }
            Err(ReadError::Protocol(reason)) => {
                conn.close(1002, reason);
                break Ending::Lost(reason.to_owned());
            }
        }
    };
    let drains = matches!(ending, Ending::Lost(_) | Ending::Refused);
    arrival.end(ending);
    if drains {
        drain(&conn.socket);
    }
}

/// Reads and drops what had been sent already: closing with bytes unread would reset the connection, and the close
/// frame be lost. Ends with the peer, or when the other pump shuts the socket down.
fn drain(mut socket: &Transport) {
    let mut buffer = [0; 1024];
    let mut left = limits::WS_DRAIN_BYTES_MAX;
    if socket.set_read_timeout(Some(limits::WS_CLOSE_TIMEOUT)).is_err() {
        return;
    }
    while left > 0 {
        match socket.read(&mut buffer) {
            Ok(count) if count > 0 => left = left.saturating_sub(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}
