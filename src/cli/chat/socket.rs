//! One connection to the hub. The thread `chat-socket` connects and then reads; only the main thread writes, also
//! the pongs and the close echo that tungstenite wants to send while it reads.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tungstenite::client::{ClientRequestBuilder, client_with_config};
use tungstenite::handshake::HandshakeError;
use tungstenite::http::Uri;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};

use super::link::Target;
use crate::cli::hub;
use crate::limits;
use crate::rt::Threads;
use crate::tls::{self, Transport};

/// The hub pings every 30 seconds: after two that did not come the line is dead.
const SILENCE_MAX: Duration = Duration::from_secs(75);
/// Frames that wait to be shown (Block: the hub holds back what we do not read).
const EVENTS_MAX: usize = 256;
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// What name lookup and TLS need.
const STACK_BYTES: usize = 256 * 1024;

/// What the thread reports, in order; its end is the end of the channel.
pub(super) enum FromSocket {
    Open(Box<Writer>),
    Frame(String),
    /// Bytes of the protocol that are to be written.
    Reply(Vec<u8>),
    Closed(Closed),
}

/// Why there is no connection, or no more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// Nothing listens there, or it does not answer.
    Unreachable(String),
    /// It is not the hub that it should be, or none that we can talk to in secret: why, and what to do.
    Untrusted(String),
    /// It answered, but not with a WebSocket: the status and what it said.
    Refused(u16, String),
    /// The hub closed, with a code and a reason.
    Code(u16, String),
    /// The line broke.
    Lost(String),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(text) | Self::Untrusted(text) | Self::Lost(text) => f.write_str(text),
            Self::Refused(code, text) | Self::Code(code, text) => write!(f, "{text} ({code})"),
        }
    }
}

/// The writing half.
pub(super) struct Writer {
    socket: WebSocket<WriteHalf>,
}

impl Writer {
    /// Sends a text. Blocks at most for the write time-out.
    pub(super) fn send(&mut self, text: &str) -> Result<(), String> {
        self.socket.send(Message::text(text)).map_err(|error| error.to_string())
    }

    /// Writes what the reading half wants to say.
    pub(super) fn reply(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.get_mut().write_all(bytes)
    }

    /// Says goodbye as the protocol wants it.
    pub(super) fn close(&mut self) {
        // Whatever fails here: the socket goes anyway.
        let _ = self.socket.close(None);
        let _ = self.socket.flush();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Frees the thread that reads. Fails only when the socket is gone already.
        let _ = self.socket.get_ref().0.socket().shutdown(Shutdown::Both);
    }
}

/// Connects in a thread of its own. Fails when the system has none to give.
pub(super) fn start(threads: &Threads, target: &Target) -> io::Result<Receiver<FromSocket>> {
    let (events_tx, events_rx) = bounded(EVENTS_MAX);
    let target = target.clone();
    threads.spawn("chat-socket", STACK_BYTES, move || {
        let closed = match open(&target, &events_tx) {
            Ok(socket) => read_all(socket, &events_tx),
            Err(closed) => closed,
        };
        // Whoever does not listen any more has closed himself.
        let _ = events_tx.send(FromSocket::Closed(closed));
    })?;
    Ok(events_rx)
}

fn open(target: &Target, events_tx: &Sender<FromSocket>) -> Result<WebSocket<ReadHalf>, Closed> {
    let unreachable = |error: &io::Error| Closed::Unreachable(error.to_string());
    let dialled = hub::dial(&target.url, target.trust.as_ref()).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => Closed::Untrusted(tls::explain(&error)),
        _ => unreachable(&error),
    })?;
    let stream = Arc::new(dialled);
    let for_writing = WriteHalf(Arc::clone(&stream));
    // TLS is below and no business of the protocol's.
    let address = format!("ws://{}{}/api/v1/ws", target.url.authority(), target.url.base());
    let uri: Uri = address.parse().map_err(|error| Closed::Unreachable(format!("{error}")))?;
    let request = ClientRequestBuilder::new(uri).with_header("Authorization", format!("Bearer {}", target.key));
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
    let half = ReadHalf { stream, replies_tx: None };
    let mut socket = match client_with_config(request, half, Some(config)) {
        Ok((socket, _)) => socket,
        Err(HandshakeError::Failure(Error::Http(response))) => return Err(refusal(&response)),
        Err(HandshakeError::Failure(error)) => return Err(Closed::Unreachable(error.to_string())),
        Err(HandshakeError::Interrupted(_)) => {
            return Err(Closed::Unreachable("no answer within 5 seconds".to_owned()));
        }
    };
    socket.get_ref().stream.set_read_timeout(Some(SILENCE_MAX)).map_err(|error| unreachable(&error))?;
    socket.get_mut().replies_tx = Some(events_tx.clone());
    let writer = Writer { socket: WebSocket::from_raw_socket(for_writing, Role::Client, Some(config)) };
    if events_tx.send(FromSocket::Open(Box::new(writer))).is_err() {
        return Err(Closed::Lost("not wanted any more".to_owned()));
    }
    Ok(socket)
}

fn read_all(mut socket: WebSocket<ReadHalf>, events_tx: &Sender<FromSocket>) -> Closed {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => {
                if events_tx.send(FromSocket::Frame(text.to_string())).is_err() {
                    return Closed::Lost("not wanted any more".to_owned());
                }
            }
            Ok(Message::Close(Some(close))) => return Closed::Code(close.code.into(), close.reason.to_string()),
            Ok(Message::Close(None)) => return Closed::Lost("closed by the hub".to_owned()),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_)) => {}
            Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Closed::Lost("the hub has gone silent".to_owned());
            }
            Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {} // the machine was asleep
            Err(error) => return Closed::Lost(error.to_string()),
        }
    }
}

/// The text that the hub gave with its refusal, as far as it came along with the head.
fn refusal(response: &tungstenite::handshake::client::Response) -> Closed {
    let body = response.body().as_deref().unwrap_or_default();
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let text = said.as_ref().and_then(|value| value["error"].as_str()).unwrap_or_default();
    Closed::Refused(response.status().as_u16(), text.to_owned())
}

/// The socket as tungstenite sees it while it writes: what there is to read is the reading thread's.
struct WriteHalf(Arc<Transport>);

impl Read for WriteHalf {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

impl Write for WriteHalf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The socket as tungstenite sees it while it reads: once open, its writes go to the writing half.
struct ReadHalf {
    stream: Arc<Transport>,
    replies_tx: Option<Sender<FromSocket>>,
}

impl Read for ReadHalf {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.stream).read(buffer)
    }
}

impl Write for ReadHalf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.replies_tx {
            None => (&*self.stream).write(bytes),
            Some(replies_tx) => match replies_tx.send(FromSocket::Reply(bytes.to_vec())) {
                Ok(()) => Ok(bytes.len()),
                Err(_) => Err(ErrorKind::BrokenPipe.into()),
            },
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const _: () = assert!(SILENCE_MAX.as_secs() > 2 * limits::WS_PING_INTERVAL.as_secs());
