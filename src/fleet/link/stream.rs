//! One socket to the hub, plain or TLS, that never blocks; and what its thread sleeps in.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use polling::{Event, Events, Poller};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::LinkError;
use crate::net::url::Host;
use crate::sys;
use crate::tls;

/// What the link's thread sleeps in, and what others wake it with.
pub(super) struct Waker {
    poller: Poller,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { poller: Poller::new()? })
    }

    /// Ends the sleep of the moment, or the next one.
    pub(super) fn wake(&self) {
        if let Err(error) = self.poller.notify() {
            log::error!("wake the link: {error}");
        }
    }

    /// Sleeps until woken, until `until`, or until the socket can be read (or written, when that is wanted). May return
    /// early.
    pub(super) fn sleep(&self, socket: Option<(&Stream, bool)>, until: Instant) -> io::Result<()> {
        if let Some((stream, wants_write)) = socket {
            self.poller.modify(&stream.socket, Event::new(1, true, wants_write))?;
        }
        let mut events = Events::with_capacity(NonZeroUsize::MIN);
        match self.poller.wait_deadline(&mut events, until) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}

/// A connected, or connecting, socket.
pub(super) struct Stream {
    waker: Arc<Waker>,
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Bytes that the system took so far: shows whether a write makes progress.
    pub(super) written: u64,
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Fails only when the socket is gone already. The descriptor is closed after this.
        let _ = self.waker.poller.delete(&self.socket);
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Stream {
    /// Begins to connect.
    pub(super) fn begin(waker: &Arc<Waker>, address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = TcpStream::from(socket_with(family, SocketType::STREAM, flags, None)?);
        match connect(&socket, &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        sys::poller_add(&waker.poller, &socket, Event::none(1))?;
        let stream = Self { waker: Arc::clone(waker), socket, tls: None, written: 0 };
        stream.socket.set_nodelay(true)?;
        Ok(stream)
    }

    /// Whether the connection is there; `Ok(false)` while it is still being made.
    pub(super) fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match self.socket.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Speaks TLS from now on. The handshake goes along with the first reads and writes.
    pub(super) fn secure(&mut self, config: Arc<ClientConfig>, host: &Host) -> Result<(), LinkError> {
        let fail = |cause: String| LinkError::Connect { cause };
        let name = match host {
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(|error| fail(error.to_string()))?,
            Host::Ip(ip) => ServerName::from(*ip),
        };
        let tls = ClientConnection::new(config, name).map_err(|error| fail(format!("TLS: {error}")))?;
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    /// Our own address on this connection.
    pub(super) fn local_ip(&self) -> Option<std::net::IpAddr> {
        self.socket.local_addr().ok().map(|address| address.ip().to_canonical())
    }

    /// Whether TLS has something of its own to write.
    pub(super) fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    fn write_out(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            match tls.write_tls(&mut self.socket)? {
                0 => return Err(ErrorKind::WriteZero.into()),
                n => self.written += n as u64,
            }
        }
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(tls) = &mut self.tls else { return self.socket.read(buffer) };
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Gone without a farewell: WebSocket has its own.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            let n_bytes = tls.read_tls(&mut self.socket)?;
            let processed = tls.process_new_packets().map(|_| ());
            // Answers of the handshake, and the alert that says what was wrong.
            match self.write_out() {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
            processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            if n_bytes == 0 {
                let Some(tls) = &mut self.tls else { return Ok(0) };
                return match tls.reader().read(buffer) {
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::UnexpectedEof) => Ok(0),
                    read => read,
                };
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.tls.is_none() {
            let n = self.socket.write(bytes)?;
            self.written += n as u64;
            return Ok(n);
        }
        // What is left of earlier bytes goes first, so that only one buffer of TLS fills up.
        self.write_out()?;
        let Some(tls) = &mut self.tls else { return Ok(0) };
        let n = tls.writer().write(bytes)?;
        match self.write_out() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(n),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_out()
    }
}

/// Certificates that hubs may be signed by: the Mozilla roots in the binary, and those of a file (PEM) beside them.
pub(super) fn tls_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, LinkError> {
    let path = ca_file.unwrap_or(Path::new("")).display().to_string();
    tls::client_config(ca_file).map_err(|cause| LinkError::Certificates { path, cause })
}
