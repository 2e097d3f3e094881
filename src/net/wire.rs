//! Plain connections to a peer by name: for what is not HTTP over the client's own sockets (certificates, ports, mail,
//! the Docker socket).
//!
//! A [`Wire`] ends at its deadline, however slowly its peer drips, and within milliseconds of its cancel. Threads: one
//! `net-dns` per lookup of a name, which ends with the system's resolver.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, select};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{NetError, Phase};
use crate::rt::{Cancel, Threads};

/// What getaddrinfo needs: glibc keeps answers on the stack.
const DNS_STACK_BYTES: usize = 256 * 1024;

/// Lookups at once in the whole process. A resolver that hangs keeps its threads, so more must not pile up behind it.
const LOOKUPS_MAX: usize = 32;

/// Addresses that are tried; more of one name are mirrors of each other.
const ADDRS_MAX: usize = 4;

/// Lookups that run. They hold nothing, so nobody needs to wait for them at a stop.
static LOOKUPS: LazyLock<Threads> = LazyLock::new(Threads::new);

/// A connection with an end: every read and write gives up at the deadline. Takes the hook of its cancel until it is
/// dropped.
pub struct Wire<'a> {
    socket: Socket,
    deadline: Instant,
    cancel: &'a Cancel,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The addresses of a host, a few at most; the host may be an address itself.
pub fn look_up(host: &str, port: u16, deadline: Instant, cancel: &Cancel) -> Result<Vec<SocketAddr>, NetError> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let unknown = || NetError::Connect { cause: "unknown host name".to_owned() };
    if LOOKUPS.len() >= LOOKUPS_MAX {
        return Err(NetError::Connect { cause: "too many name lookups hang; check the resolver".to_owned() });
    }
    let (found_tx, found_rx) = bounded(1);
    let name = bare.to_owned();
    let look = move || {
        let found = (name.as_str(), port).to_socket_addrs();
        // The asker may have given up; then nobody wants the answer.
        let _ = found_tx.send(found.map(|found| found.take(ADDRS_MAX).collect::<Vec<_>>()));
    };
    let started = LOOKUPS.spawn("net-dns", DNS_STACK_BYTES, look);
    started.map_err(|error| NetError::Connect { cause: error.to_string() })?;
    let (cancelled_tx, cancelled_rx) = bounded::<()>(1);
    cancel.set_hook(move || {
        // Full means that it was cancelled already.
        let _ = cancelled_tx.try_send(());
    });
    let left = deadline.saturating_duration_since(Instant::now());
    let found = select! {
        recv(found_rx) -> found => match found {
            Ok(Ok(found)) if !found.is_empty() => Ok(found),
            _ => Err(unknown()),
        },
        recv(cancelled_rx) -> _ => Err(NetError::Cancelled),
        default(left) => Err(NetError::Timeout { phase: Phase::Connect, after: left }),
    };
    cancel.clear_hook();
    found
}

impl<'a> Wire<'a> {
    /// Looks a host up and connects to the first of its addresses that answers.
    pub fn connect(host: &str, port: u16, deadline: Instant, cancel: &'a Cancel) -> Result<Self, NetError> {
        let started = Instant::now();
        let addrs = look_up(host, port, deadline, cancel)?;
        let mut error = None;
        for (tried, addr) in addrs.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            // An address that swallows packets must leave time for the others.
            let share = left / u32::try_from(addrs.len() - tried).unwrap_or(1);
            if cancel.is_set() {
                return Err(NetError::Cancelled);
            }
            if share.is_zero() {
                break;
            }
            match TcpStream::connect_timeout(addr, share) {
                Ok(socket) => return Self::new(Socket::Tcp(socket), deadline, cancel),
                Err(failed) => error = Some(failed),
            }
        }
        Err(match error {
            Some(error) if error.kind() != io::ErrorKind::TimedOut => NetError::Connect { cause: error.to_string() },
            _ => NetError::Timeout { phase: Phase::Connect, after: started.elapsed() },
        })
    }

    /// Connects to a socket of this machine.
    pub fn local(path: &Path, deadline: Instant, cancel: &'a Cancel) -> Result<Self, NetError> {
        let left = deadline.saturating_duration_since(Instant::now());
        match connect_local(path, left) {
            Ok(socket) => Self::new(Socket::Unix(socket), deadline, cancel),
            Err(Errno::AGAIN) => Err(NetError::Timeout { phase: Phase::Connect, after: left }),
            Err(error) => Err(NetError::Connect { cause: io::Error::from(error).to_string() }),
        }
    }

    fn new(socket: Socket, deadline: Instant, cancel: &'a Cancel) -> Result<Self, NetError> {
        let ends = match &socket {
            Socket::Tcp(socket) => socket.try_clone().map(Socket::Tcp),
            Socket::Unix(socket) => socket.try_clone().map(Socket::Unix),
        };
        let ends = ends.map_err(|error| NetError::Connect { cause: error.to_string() })?;
        cancel.set_hook(move || ends.shut());
        Ok(Self { socket, deadline, cancel })
    }

    /// The address of the peer; none for a socket of this machine.
    pub fn peer(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.peer_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// What a failed read or write means.
    pub fn failure(&self, error: &io::Error) -> NetError {
        match error.kind() {
            _ if self.cancel.is_set() => NetError::Cancelled,
            io::ErrorKind::TimedOut => NetError::Timeout { phase: Phase::Idle, after: Duration::ZERO },
            _ => NetError::Cut { cause: error.to_string() },
        }
    }

    fn left(&self) -> io::Result<Duration> {
        if self.cancel.is_set() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    /// One read or write with the time that is left. A socket with a time limit says "interrupted" after the process was
    /// stopped for a while (a suspended machine, a paused container; signal(7)): that ends no exchange. It says "would
    /// block" when its time is over.
    fn resumed<T>(&mut self, mut io: impl FnMut(&mut Socket, Option<Duration>) -> io::Result<T>) -> io::Result<T> {
        loop {
            let left = self.left()?;
            match io(&mut self.socket, Some(left)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                done => return done,
            }
        }
    }
}

/// A server that hangs may have a full queue, and to connect then waits: as long as a write may.
fn connect_local(path: &Path, left: Duration) -> Result<UnixStream, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Zero would mean no limit at all.
    set_socket_timeout(&socket, Timeout::Send, Some(left.max(Duration::from_millis(1))))?;
    rustix::net::connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}

impl Drop for Wire<'_> {
    fn drop(&mut self) {
        self.cancel.clear_hook();
    }
}

impl Socket {
    fn shut(&self) {
        // Fails only when the peer was faster.
        let _ = match self {
            Self::Tcp(socket) => socket.shutdown(Shutdown::Both),
            Self::Unix(socket) => socket.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.resumed(|socket, left| match socket {
            Socket::Tcp(socket) => socket.set_read_timeout(left).and_then(|()| socket.read(buffer)),
            Socket::Unix(socket) => socket.set_read_timeout(left).and_then(|()| socket.read(buffer)),
        });
        // An end that the cancel made is no end of an answer.
        if self.cancel.is_set() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        read
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.resumed(|socket, left| match socket {
            Socket::Tcp(socket) => socket.set_write_timeout(left).and_then(|()| socket.write(bytes)),
            Socket::Unix(socket) => socket.set_write_timeout(left).and_then(|()| socket.write(bytes)),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::test_peer::{LONG, Peer, STACK_BYTES, Step};
    use std::net::TcpListener;

    #[test]
    fn a_read_ends_at_the_deadline_even_when_bytes_drip() {
        let peer = Peer::one(vec![Step::Send(b"x".to_vec()), Step::Stall]);
        let cancel = Cancel::new();
        let soon = Instant::now() + Duration::from_millis(40);
        let mut wire = Wire::connect("127.0.0.1", peer.addr.port(), soon, &cancel).unwrap();
        wire.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let error = wire.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(matches!(wire.failure(&error), NetError::Timeout { .. }), "{error}");
        assert_eq!(wire.write(b"late").unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_cancel_ends_a_blocked_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cancel = Cancel::new();
        let port = listener.local_addr().unwrap().port();
        let mut wire = Wire::connect("localhost", port, Instant::now() + LONG, &cancel).unwrap();
        let (threads, ends) = (Threads::new(), cancel.clone());
        threads.spawn("ends", STACK_BYTES, move || ends.cancel()).unwrap();
        let error = wire.read(&mut [0; 8]).unwrap_err();
        assert_eq!(wire.failure(&error), NetError::Cancelled);
        assert!(threads.join_all(LONG).is_empty());
        drop(wire);
        assert!(matches!(Wire::connect("127.0.0.1", port, Instant::now() + LONG, &cancel), Err(NetError::Cancelled)));
    }

    #[test]
    fn nobody_at_home_is_an_error_with_its_cause() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let cancel = Cancel::new();
        let check = |result: Result<Wire<'_>, NetError>, part: &str| {
            let error = result.err().unwrap().to_string();
            assert!(error.contains(part), "{error}");
        };
        check(Wire::connect("127.0.0.1", port, Instant::now() + LONG, &cancel), "refused");
        check(Wire::connect("127.0.0.1", port, Instant::now(), &cancel), "time-out");
        check(Wire::connect("no.such.name.invalid", port, Instant::now() + LONG, &cancel), "unknown host name");
        check(Wire::local(Path::new("/no/such/socket"), Instant::now() + LONG, &cancel), "No such file");
    }
}
