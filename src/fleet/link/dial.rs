//! From an address to an open WebSocket: name lookup, TCP, TLS and upgrade, all within one deadline, left at once when
//! the link stops. Redirects are never followed: the token would go along.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crossbeam_channel::{TryRecvError, bounded};
use rustls::ClientConfig;
use tungstenite::WebSocket;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocketConfig};

use super::LinkError;
use super::address::{HubAddress, is_exposed};
use super::stream::{Stream, Waker};
use crate::fleet::wire::TO_AGENT_BYTES_MAX;
use crate::limits;
use crate::net::url::Host;
use crate::rt::Threads;
use crate::tls;

/// The longest answer to the upgrade.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// The header of a refusal that no token would change; else 401 is about the token.
const NOT_SET_UP: &str = "\r\nx-hub-setup: required\r\n";
/// What messages of a hub mostly fit in; longer ones take more reads.
const READ_BUFFER_BYTES: usize = 4096;
/// Name lookups at once: one that hangs keeps its thread, so more must not pile up behind it.
const LOOKUPS_MAX: usize = 2;

/// What dialling needs.
pub(super) struct Dial<'a> {
    pub(super) waker: &'a Arc<Waker>,
    pub(super) stopping: &'a AtomicBool,
    pub(super) threads: &'a Threads,
    pub(super) address: &'a HubAddress,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) token: &'a str,
    pub(super) agent_id: &'a str,
    pub(super) deadline: Instant,
    /// Whether the user was told that nobody protects this connection.
    pub(super) warned: &'a AtomicBool,
}

impl Dial<'_> {
    /// Connects; all of it within the deadline.
    pub(super) fn open(&self) -> Result<WebSocket<Stream>, LinkError> {
        let mut failure = LinkError::Connect { cause: "the name has no address".to_owned() };
        let addresses = self.look_up()?;
        let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        for address in addresses {
            if !self.address.is_tls() && is_exposed(address.ip()) && !self.warned.swap(true, Ordering::Relaxed) {
                log::warn!(
                    "the connection to {} is plain text over the internet: anybody on the way can read and change it; \
                     use an https address",
                    self.address.origin()
                );
            }
            // An address that does not answer leaves time for the others.
            let share = self.deadline.saturating_duration_since(Instant::now()) / left.max(1);
            left = left.saturating_sub(1);
            match self.connect(address, Instant::now() + share) {
                Ok(stream) => return self.upgrade(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn look_up(&self) -> Result<Vec<SocketAddr>, LinkError> {
        let name = match self.address.host() {
            Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, self.address.port())]),
            Host::Name(name) => name.clone(),
        };
        let fail = |cause: String| LinkError::Connect { cause };
        if self.threads.len() >= LOOKUPS_MAX {
            return Err(fail("name lookups hang; check the resolver".to_owned()));
        }
        let (found_tx, found_rx) = bounded(1);
        let (port, waker) = (self.address.port(), Arc::clone(self.waker));
        let look = move || {
            let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            // The link may have given up; then nobody wants the answer.
            let _ = found_tx.send(found);
            waker.wake();
        };
        self.threads.spawn("link-dns", limits::PUMP_STACK_BYTES * 2, look).map_err(|error| fail(error.to_string()))?;
        loop {
            match found_rx.try_recv() {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(error)) => return Err(fail(format!("look up {}: {error}", self.address.host()))),
                Err(TryRecvError::Disconnected) => return Err(fail("the name lookup failed".to_owned())),
                Err(TryRecvError::Empty) => self.sleep(None, self.deadline, "name lookup")?,
            }
        }
    }

    fn connect(&self, address: SocketAddr, until: Instant) -> Result<Stream, LinkError> {
        let fail = |error: std::io::Error| LinkError::Connect { cause: format!("{address}: {error}") };
        let stream = Stream::begin(self.waker, address).map_err(fail)?;
        while !stream.is_connected().map_err(fail)? {
            self.sleep(Some((&stream, true)), until, "connect")?;
        }
        Ok(stream)
    }

    fn upgrade(&self, mut stream: Stream) -> Result<WebSocket<Stream>, LinkError> {
        if let Some(config) = &self.tls {
            stream.secure(Arc::clone(config), self.address.host())?;
        }
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(|error| LinkError::Connect { cause: error.to_string() })?;
        let key = STANDARD.encode(random);
        let request = self.request(&key);
        let (mut sent, mut head) = (0, Vec::with_capacity(1024));
        let end = loop {
            let mut blocked = false;
            while sent < request.len() && !blocked {
                match stream.write(&request[sent..]) {
                    Ok(n) => sent += n,
                    Err(error) => blocked = is_blocked(&error)?,
                }
            }
            if let Err(error) = stream.flush() {
                blocked |= is_blocked(&error)?;
            }
            let mut chunk = [0; 1024];
            match stream.read(&mut chunk) {
                Ok(0) => return Err(LinkError::Connect { cause: "closed before the upgrade was answered".to_owned() }),
                Ok(n) => head.extend_from_slice(&chunk[..n]),
                Err(error) => {
                    is_blocked(&error)?;
                    let wants_write = blocked || stream.wants_write();
                    self.sleep(Some((&stream, wants_write)), self.deadline, "TLS and upgrade")?;
                }
            }
            if let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if head.len() > HEAD_BYTES_MAX {
                return Err(LinkError::Protocol { cause: "the answer to the upgrade is too long".to_owned() });
            }
        };
        check_answer(&head[..end], &derive_accept_key(key.as_bytes()))?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(TO_AGENT_BYTES_MAX))
            .max_frame_size(Some(TO_AGENT_BYTES_MAX));
        Ok(WebSocket::from_partially_read(stream, head.split_off(end), Role::Client, Some(config)))
    }

    /// The upgrade request of contract agent-link 1.2.
    fn request(&self, key: &str) -> Vec<u8> {
        let mut text = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {key}\r\nUser-Agent: holt/{}\r\nX-Agent-ID: {}\r\nX-Proto-Version: 1\r\n",
            self.address.link_path(),
            self.address.authority(),
            env!("CARGO_PKG_VERSION"),
            self.agent_id,
        );
        if !self.token.is_empty() {
            text.extend(["X-Agent-Token: ", self.token, "\r\n"]);
        }
        if let Some(basic) = self.address.basic() {
            text.extend(["Authorization: ", &basic, "\r\n"]);
        }
        text.push_str("\r\n");
        text.into_bytes()
    }

    fn sleep(&self, socket: Option<(&Stream, bool)>, until: Instant, step: &str) -> Result<(), LinkError> {
        let fail = |cause: String| LinkError::Connect { cause };
        if self.stopping.load(Ordering::Acquire) {
            return Err(fail("stopping".to_owned()));
        }
        if until.saturating_duration_since(Instant::now()) == Duration::ZERO {
            return Err(fail(format!("{step} took too long")));
        }
        self.waker.sleep(socket, until).map_err(|error| fail(error.to_string()))
    }
}

/// Whether the socket just has to be waited for; any other error ends the attempt.
fn is_blocked(error: &std::io::Error) -> Result<bool, LinkError> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(true),
        _ => Err(LinkError::Connect { cause: tls::explain(error) }),
    }
}

/// What the answer must look like (contract agent-link 1.3).
fn check_answer(head: &[u8], accept: &str) -> Result<(), LinkError> {
    let bad = |cause: &str| LinkError::Protocol { cause: cause.to_owned() };
    let text = std::str::from_utf8(head).map_err(|_| bad("the answer to the upgrade is not HTTP"))?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or("").splitn(3, ' ');
    let (version, status) = (words.next().unwrap_or(""), words.next().and_then(|status| status.parse::<u16>().ok()));
    let status = status.filter(|_| version == "HTTP/1.1" || version == "HTTP/1.0");
    match status.ok_or_else(|| bad("the answer to the upgrade is not HTTP"))? {
        101 => {}
        401 if text.to_ascii_lowercase().contains(NOT_SET_UP) => return Err(LinkError::NotSetUp),
        status => return Err(LinkError::Status { status }),
    }
    let (mut upgrade, mut connection, mut accepted) = (false, false, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        let has_token = |token: &str| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token));
        match name.to_ascii_lowercase().as_str() {
            "upgrade" => upgrade |= has_token("websocket"),
            "connection" => connection |= has_token("upgrade"),
            "sec-websocket-accept" => accepted |= value == accept,
            "sec-websocket-extensions" | "sec-websocket-protocol" => {
                return Err(bad("it chose an extension or a sub-protocol that was not offered"));
            }
            _ => {}
        }
    }
    if upgrade && connection && accepted {
        Ok(())
    } else {
        Err(bad("the answer to the upgrade is not that of a WebSocket"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_proper_upgrade_is_taken() {
        let check = |lines: &str| check_answer(format!("{}\r\n\r\n", lines.replace('\n', "\r\n")).as_bytes(), "abc");
        let good = "HTTP/1.1 101 Switching Protocols\nupgrade: WebSocket\nCONNECTION: keep-alive, Upgrade\n\
                    Sec-WebSocket-Accept: abc";
        assert_eq!(check(good), Ok(()));
        for (from, to) in [("abc", "abd"), ("WebSocket", "h2c"), (", Upgrade", ""), ("101", "1x1"), ("HTTP", "FTP")] {
            assert!(matches!(check(&good.replace(from, to)), Err(LinkError::Protocol { .. })), "{from}");
        }
        for extra in ["Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: x"] {
            assert!(matches!(check(&format!("{good}\n{extra}")), Err(LinkError::Protocol { .. })));
        }
        assert_eq!(check("HTTP/1.1 302 Found\nLocation: http://evil/"), Err(LinkError::Status { status: 302 }));
        assert_eq!(check("HTTP/1.1 401 no"), Err(LinkError::Status { status: 401 }));
        assert_eq!(check("HTTP/1.1 401 no\nX-Hub-Setup: required"), Err(LinkError::NotSetUp));
        assert!(check("").is_err() && check_answer(b"\xff\r\n\r\n", "").is_err());
    }
}
