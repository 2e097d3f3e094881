//! A blocking connection for services that are not HTTP: one deadline for all that is done with it, left at once when
//! its channel is stopped.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::channel::SendError;
use crate::net::guard::{Guard, Origin};
use crate::rt::Cancel;
use crate::tls;

/// An address that does not answer leaves time for the next one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// Where to connect, and who it has to be.
pub(super) struct Endpoint {
    host: String,
    port: u16,
    /// Files are read once; None while TLS is not used.
    tls: Option<Arc<ClientConfig>>,
}

/// A TCP connection whose reads and writes end at a deadline.
struct Timed {
    tcp: Arc<TcpStream>,
    deadline: Instant,
}

enum Stream {
    Plain(Timed),
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
    /// Between the two, and after a failed change.
    Gone,
}

/// An open connection.
pub(super) struct Connection {
    stream: Stream,
    tcp: Arc<TcpStream>,
}

impl Endpoint {
    /// An endpoint; `ca_file` is PEM with roots that are trusted beside the public ones. The error is what cannot be
    /// used.
    pub(super) fn new(host: &str, port: u16, uses_tls: bool, ca_file: Option<&str>) -> Result<Self, String> {
        let tls = if uses_tls { Some(tls_config(ca_file.map(Path::new))?) } else { None };
        Ok(Self { host: host.to_owned(), port, tls })
    }

    /// Connects, with TLS from the first byte if `secure`. The name lookup takes as long as the system's resolver
    /// does.
    pub(super) fn connect(&self, secure: bool, deadline: Instant, cancel: &Cancel) -> Result<Connection, SendError> {
        let fail = |cause: String| SendError::later(format!("connect: {cause}"));
        let addresses = (self.host.as_str(), self.port).to_socket_addrs().map_err(|error| fail(error.to_string()))?;
        // An operator chose it; link-local and metadata addresses stay refused, as everywhere.
        let guard = Guard::new(Origin::Operator { allow_loopback: true });
        let mut failure = "the name has no address that is allowed".to_owned();
        for address in addresses.filter(|address| guard.allows(address.ip())) {
            if cancel.is_set() {
                return Err(SendError::Cancelled);
            }
            let wait = deadline.saturating_duration_since(Instant::now()).min(CONNECT_TIMEOUT);
            if wait.is_zero() {
                return Err(fail("it took too long".to_owned()));
            }
            match TcpStream::connect_timeout(&address, wait) {
                Ok(tcp) => {
                    let tcp = Arc::new(tcp);
                    let timed = Timed { tcp: Arc::clone(&tcp), deadline };
                    let mut connection = Connection { stream: Stream::Plain(timed), tcp };
                    connection.guard(cancel);
                    if secure {
                        connection.secure(self)?;
                    }
                    return Ok(connection);
                }
                Err(error) => failure = error.to_string(),
            }
        }
        Err(fail(failure))
    }
}

impl Connection {
    /// From now on `cancel` ends what blocks on this connection.
    pub(super) fn guard(&self, cancel: &Cancel) {
        let tcp = Arc::clone(&self.tcp);
        cancel.set_hook(move || {
            let _ = tcp.shutdown(Shutdown::Both); // fails only when it is closed already
        });
    }

    /// Speaks TLS from now on; the server has to prove that it is the endpoint's host.
    pub(super) fn secure(&mut self, endpoint: &Endpoint) -> Result<(), SendError> {
        let fail = |cause: String| SendError::later(format!("TLS: {cause}"));
        let config = endpoint.tls.clone().ok_or_else(|| fail("is not set up".to_owned()))?;
        let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| fail(error.to_string()))?;
        let tls = ClientConnection::new(config, name).map_err(|error| fail(error.to_string()))?;
        if let Stream::Plain(timed) = std::mem::replace(&mut self.stream, Stream::Gone) {
            let mut stream = StreamOwned::new(tls, timed);
            // The handshake now, so that its errors are told apart from those of the service.
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock).map_err(|error| fail(error.to_string()))?;
            }
            self.stream = Stream::Tls(Box::new(stream));
        }
        Ok(())
    }

    /// Whether what is said here cannot be read on the way.
    pub(super) fn is_secure(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Everything from now on ends by then.
    pub(super) fn set_deadline(&mut self, deadline: Instant) {
        match &mut self.stream {
            Stream::Plain(timed) => timed.deadline = deadline,
            Stream::Tls(tls) => tls.sock.deadline = deadline,
            Stream::Gone => {}
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A hook of a cancel may still hold the socket.
        let _ = self.tcp.shutdown(Shutdown::Both);
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Plain(timed) => timed.read(buffer),
            Stream::Tls(tls) => tls.read(buffer),
            Stream::Gone => Err(ErrorKind::NotConnected.into()),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Plain(timed) => timed.write(bytes),
            Stream::Tls(tls) => tls.write(bytes),
            Stream::Gone => Err(ErrorKind::NotConnected.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(timed) => timed.flush(),
            Stream::Tls(tls) => tls.flush(),
            Stream::Gone => Err(ErrorKind::NotConnected.into()),
        }
    }
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(self.left()?)?;
        (&*self.tcp).read(buffer).map_err(timed_out)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(self.left()?)?;
        (&*self.tcp).write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The system calls a time-out "would block".
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

fn tls_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let shown = ca_file.unwrap_or(Path::new("")).display();
    tls::client_config(ca_file).map_err(|cause| format!("ca_file {shown}: {cause}"))
}
