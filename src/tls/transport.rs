//! A connected socket, plain or TLS.
//!
//! Two ways of use, one after the other. While HTTP owns it, `try_*` never wait: what TLS still has to send goes out
//! when the poller says so. After an upgrade two threads share it through `Read` and `Write` of a reference, which wait.
//! A TLS socket itself never blocks; who waits sleeps in `poll` without the lock on the TLS state, so a peer that does
//! not read holds up nobody who reads.

use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::Connection;

use crate::limits;
use crate::rt::lock;

/// The first byte of a TLS handshake (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// See the module.
pub enum Transport {
    Plain(TcpStream),
    Tls(Box<Session>),
}

/// A socket with its TLS.
pub struct Session {
    socket: TcpStream,
    /// Milliseconds; 0 is no limit. As `SO_RCVTIMEO` and `SO_SNDTIMEO` of a socket that blocks.
    read_limit_ms: AtomicU64,
    write_limit_ms: AtomicU64,
    /// Guarded by this mutex: keys and half-done records. Held over encryption and calls that do not block. Nothing is
    /// taken under it.
    state: Mutex<State>,
}

struct State {
    tls: Connection,
    /// Bytes that came before the handshake was complete.
    handshake_bytes: usize,
    /// The peer does not speak TLS: what is written goes out as it is.
    is_plain: bool,
}

impl Transport {
    /// TLS over a connected socket. The handshake goes along with the first reads and writes.
    pub(super) fn secure(socket: TcpStream, mut tls: Connection) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        tls.set_buffer_limit(Some(limits::TLS_BUFFER_BYTES_MAX));
        Ok(Self::Tls(Box::new(Session {
            socket,
            read_limit_ms: AtomicU64::new(0),
            write_limit_ms: AtomicU64::new(0),
            state: Mutex::new(State { tls, handshake_bytes: 0, is_plain: false }),
        })))
    }

    /// TLS to a server.
    pub fn connect(
        socket: TcpStream,
        config: std::sync::Arc<rustls::ClientConfig>,
        name: rustls::pki_types::ServerName<'static>,
    ) -> io::Result<Self> {
        let tls = rustls::ClientConnection::new(config, name).map_err(io::Error::other)?;
        Self::secure(socket, Connection::Client(tls))
    }

    /// The socket below: for time limits of TCP, addresses, shutting down and pollers, never for bytes.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(session) => &session.socket,
        }
    }

    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Reads what is there; `WouldBlock` when nothing is. For a socket that does not block.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => (&*socket).read(buffer),
            Self::Tls(session) => lock(&session.state).read(&session.socket, buffer),
        }
    }

    /// Writes what is taken at once; `WouldBlock` when nothing is. Some of it may be left to [`Transport::try_flush`].
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => (&*socket).write(bytes),
            Self::Tls(session) => lock(&session.state).write(&session.socket, &[IoSlice::new(bytes)]),
        }
    }

    /// Sends what is left of earlier writes, and of the handshake; true when nothing is left.
    pub fn try_flush(&self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(session) => lock(&session.state).push(&session.socket),
        }
    }

    /// Whether something is left to be sent.
    pub fn wants_write(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(session) => lock(&session.state).tls.wants_write(),
        }
    }

    /// Whether bytes have been taken from the socket that nobody has read yet: no poller will tell.
    pub fn holds_input(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(session) => lock(&session.state).tls.reader().fill_buf().is_ok_and(|bytes| !bytes.is_empty()),
        }
    }

    /// From never waiting to waiting.
    pub fn into_blocking(self) -> io::Result<Self> {
        if let Self::Plain(socket) = &self {
            socket.set_nonblocking(false)?;
        }
        Ok(self)
    }

    /// How long a read may wait; None is for ever. Over it, reads fail with `WouldBlock`.
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.set_read_timeout(limit),
            Self::Tls(session) => {
                session.read_limit_ms.store(as_ms(limit), Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// How long a write may wait for the peer to take anything; None is for ever.
    pub fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.set_write_timeout(limit),
            Self::Tls(session) => {
                session.write_limit_ms.store(as_ms(limit), Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Makes the handshake now, so that its errors are told apart from all others. For our side as a client.
    pub fn handshake(&self, limit: Duration) -> io::Result<()> {
        let Self::Tls(session) = self else { return Ok(()) };
        let until = Instant::now() + limit;
        loop {
            let wanted = {
                let mut state = lock(&session.state);
                if state.push(&session.socket)? && !state.tls.is_handshaking() {
                    return Ok(());
                }
                match state.fill(&session.socket) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(_) => continue,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
                if state.tls.wants_write() { PollFlags::OUT } else { PollFlags::IN }
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            session.wait(wanted, as_ms(Some(left)))?;
        }
    }

    /// Says that nothing more will be written, as TLS wants it said, and ends the writing half of the socket. Never
    /// waits.
    pub fn end_writing(&self) -> io::Result<()> {
        self.farewell();
        self.socket().shutdown(Shutdown::Write)
    }

    /// Ends TLS in an orderly way as far as the peer takes it at once; the socket is about to go.
    pub fn farewell(&self) {
        if let Self::Tls(session) = self {
            let mut state = lock(&session.state);
            if !state.is_plain && !state.tls.is_handshaking() {
                state.tls.send_close_notify();
                // A peer that is gone already needs no goodbye.
                let _ = state.push(&session.socket);
            }
        }
    }
}

/// Reads, and waits for something to read.
impl Read for &Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => (&*socket).read(buffer),
            Transport::Tls(session) => loop {
                match lock(&session.state).read(&session.socket, buffer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    done => return done,
                }
                session.wait(PollFlags::IN, session.read_limit_ms.load(Ordering::Relaxed))?;
            },
        }
    }
}

/// Writes, and waits for the peer to take it.
impl Write for &Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => (&*socket).write(bytes),
            Transport::Tls(session) => session.write(&[IoSlice::new(bytes)]),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => (&*socket).write_vectored(slices),
            Transport::Tls(session) => session.write(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Session {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = None;
        loop {
            {
                let mut state = lock(&self.state);
                if taken.is_none() {
                    match state.write(&self.socket, slices) {
                        Ok(count) => taken = Some(count),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                } else {
                    state.push(&self.socket)?;
                }
                if let Some(count) = taken.filter(|_| !state.tls.wants_write()) {
                    return Ok(count);
                }
            }
            self.wait(PollFlags::OUT, self.write_limit_ms.load(Ordering::Relaxed))?;
        }
    }

    /// Sleeps until the socket is ready; fails as a blocking socket does when that takes too long.
    fn wait(&self, wanted: PollFlags, limit_ms: u64) -> io::Result<()> {
        let limit = (limit_ms > 0).then(|| Timespec {
            tv_sec: i64::try_from(limit_ms / 1000).unwrap_or(i64::MAX),
            // Below 10^9 by the remainder.
            tv_nsec: (limit_ms % 1000 * 1_000_000).try_into().unwrap_or(0),
        });
        match poll(&mut [PollFd::new(&self.socket, wanted)], limit.as_ref()) {
            Ok(0) => Err(ErrorKind::WouldBlock.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl State {
    /// Plaintext, as far as it is here; 0 is the end, with a goodbye or without.
    fn read(&mut self, mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_plain {
            return socket.read(buffer);
        }
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Gone without a goodbye: what is spoken above TLS knows its own ends.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            self.push(socket)?;
            self.fill(socket)?;
        }
    }

    /// Takes what the socket has into the TLS state; 0 at its end.
    fn fill(&mut self, mut socket: &TcpStream) -> io::Result<usize> {
        if self.handshake_bytes == 0 && matches!(self.tls, Connection::Server(_)) {
            let mut first = [0];
            if socket.peek(&mut first)? == 1 && first[0] != HANDSHAKE && first[0].is_ascii_alphabetic() {
                self.is_plain = true;
                return Err(ErrorKind::Unsupported.into());
            }
        }
        let count = match self.tls.read_tls(&mut socket) {
            Err(error) if error.kind() == ErrorKind::Interrupted => 1, // nothing, but not the end
            read => read?,
        };
        if self.tls.is_handshaking() {
            self.handshake_bytes += count;
        }
        let processed = self.tls.process_new_packets().map(|_| ());
        // The answers of a handshake, and the alert that says what was wrong. What fails here fails at the next write.
        let _ = self.push(socket);
        processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        if self.tls.is_handshaking() && self.handshake_bytes > limits::TLS_HANDSHAKE_BYTES_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        Ok(count)
    }

    fn write(&mut self, mut socket: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.is_plain {
            return socket.write_vectored(slices);
        }
        // What is left of earlier bytes goes first, so that no more than one buffer fills up.
        if !self.push(socket)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = self.tls.writer().write_vectored(slices)?;
        self.push(socket)?;
        Ok(count)
    }

    /// Sends records as far as the socket takes them; true when none is left.
    fn push(&mut self, mut socket: &TcpStream) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// At least one millisecond: 0 means no limit.
fn as_ms(limit: Option<Duration>) -> u64 {
    limit.map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1))
}
