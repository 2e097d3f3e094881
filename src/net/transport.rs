//! The sockets under the outbound HTTP client: name lookup, pacing of reads, and the state of one call.
//!
//! Built on ureq's unversioned transport API, hence the exact version in Cargo.toml. Two things that ureq alone does
//! not give: a limit per read that depends on the phase of an answer, and a name lookup that a cancel can leave and
//! that gives only allowed addresses. No threads of its own but one `net-dns` per lookup, which ends with the system's
//! resolver.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::Duration as UreqDuration;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, RustlsConnector, Transport};
use ureq::{Error, Timeout};

use super::Phase;
use crate::rt::{Threads, lock};

/// What getaddrinfo needs: glibc keeps answers on the stack.
const DNS_STACK_BYTES: usize = 256 * 1024;

/// What [`ResolvedSocketAddrs`] has room for.
const ADDRS_MAX: usize = 16;

/// Lookups of one client at once. A resolver that hangs keeps its thread, so more must not pile up behind it.
const LOOKUPS_MAX: usize = 16;

/// Says whether an address may be connected to. Must not block.
pub type AddressFilter = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Carried through ureq when a filter allows no address of a host.
#[derive(Debug)]
pub(super) struct RefusedAddress(pub(super) IpAddr);

impl fmt::Display for RefusedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address {} is not allowed", self.0)
    }
}

impl std::error::Error for RefusedAddress {}

/// How far a call has come; decides how long a read may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Name lookup, TCP, TLS: ureq's own connect time-out counts.
    Connecting,
    /// The request is being sent, or its answer has not begun.
    Waiting { until: Instant },
    /// In the middle of an answer.
    Answering,
    /// The answer is complete; what follows is a courtesy.
    Tail { wait: Duration },
}

/// The pace of one call, shared between its client and its socket.
#[derive(Debug)]
pub(super) struct Pace {
    first_byte: Duration,
    idle: Duration,
    /// Guarded by the mutex: where the call is. Only the calling thread writes.
    stage: Mutex<Stage>,
    /// A message here ends a name lookup.
    cancel_tx: Sender<()>,
    cancel_rx: Receiver<()>,
}

impl Pace {
    pub(super) fn new(first_byte: Duration, idle: Duration) -> Self {
        let (cancel_tx, cancel_rx) = bounded(1);
        Self { first_byte, idle, stage: Mutex::new(Stage::Connecting), cancel_tx, cancel_rx }
    }

    pub(super) fn stage(&self) -> Stage {
        *lock(&self.stage)
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        *lock(&self.stage) = stage;
    }

    /// Ends a name lookup. Never waits.
    pub(super) fn cancel(&self) {
        // Full means that somebody else cancelled already.
        let _ = self.cancel_tx.try_send(());
    }

    /// The phase that a time-out of a read or a write belongs to.
    pub(super) fn phase(&self) -> Phase {
        match self.stage() {
            Stage::Connecting => Phase::Connect,
            Stage::Waiting { .. } => Phase::FirstByte,
            Stage::Answering | Stage::Tail { .. } => Phase::Idle,
        }
    }

    fn connected(&self) {
        self.set_stage(Stage::Waiting { until: Instant::now() + self.first_byte });
    }

    fn limit(&self, timeout: NextTimeout) -> NextTimeout {
        let limit = match self.stage() {
            Stage::Connecting => return timeout,
            Stage::Waiting { until } => until.saturating_duration_since(Instant::now()),
            Stage::Answering => self.idle,
            Stage::Tail { wait } => wait,
        };
        let limit = Some(UreqDuration::Exact(limit));
        NextTimeout { per_read: limit, per_write: limit, ..timeout }
    }
}

/// Wraps the TCP connection of a chain.
#[derive(Debug)]
pub(super) struct PacedConnector(pub(super) Arc<Pace>);

impl<In: Transport> Connector<In> for PacedConnector {
    type Out = Paced<In>;

    fn connect(&self, _details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| Paced { inner, pace: Arc::clone(&self.0) }))
    }
}

/// A TCP connection whose reads and writes keep the pace.
#[derive(Debug)]
pub(super) struct Paced<In> {
    inner: In,
    pace: Arc<Pace>,
}

impl<In: Transport> Transport for Paced<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.inner.transmit_output(amount, self.pace.limit(timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.inner.await_input(self.pace.limit(timeout))
    }

    fn is_open(&mut self) -> bool {
        // Asked when a kept connection is taken for the next request: there is nothing to connect then.
        let open = self.inner.is_open();
        if open {
            self.pace.connected();
        }
        open
    }
}

/// TLS with one configuration for all connections of a client.
#[derive(Clone)]
pub(super) struct SharedTls(pub(super) Arc<RustlsConnector>);

impl fmt::Debug for SharedTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedTls")
    }
}

impl<In: Transport> Connector<In> for SharedTls {
    type Out = <RustlsConnector as Connector<In>>::Out;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        self.0.connect(details, chained)
    }
}

/// The end of a chain: TCP and TLS are up.
#[derive(Debug)]
pub(super) struct Connected(pub(super) Arc<Pace>);

impl<In: Transport> Connector<In> for Connected {
    type Out = In;

    fn connect(&self, _details: &ConnectionDetails, chained: Option<In>) -> Result<Option<In>, Error> {
        self.0.connected();
        Ok(chained)
    }
}

/// Looks names up on a thread of its own, because the system's resolver knows neither time-outs nor cancelling.
///
/// What it gives is what gets connected to: ureq asks no second time, so a name cannot change its address between the
/// check and the connection.
pub(super) struct Names {
    pub(super) pace: Arc<Pace>,
    pub(super) threads: Threads,
    pub(super) filter: Option<AddressFilter>,
    /// Answers instead of the system: names that tests need do not exist.
    #[cfg(test)]
    pub(super) lookup: Option<Lookup>,
}

/// See [`Names::lookup`].
#[cfg(test)]
pub(super) type Lookup = Arc<dyn Fn(&str) -> Vec<SocketAddr> + Send + Sync>;

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(Error::HostNotFound);
        };
        let host_and_port = DefaultResolver::host_and_port(scheme, authority).ok_or(Error::HostNotFound)?;
        let bare_host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let found: Vec<SocketAddr> = if bare_host.parse::<IpAddr>().is_ok() {
            host_and_port.to_socket_addrs().map_err(Error::Io)?.collect()
        } else {
            self.look_up(host_and_port, timeout)?
        };
        let mut addrs = self.empty();
        let mut refused = None;
        for addr in found {
            // An IPv4 address in IPv6 clothes reaches the IPv4 host.
            let ip = addr.ip().to_canonical();
            if self.filter.as_ref().is_some_and(|allows| !allows(ip)) {
                refused = Some(ip);
            } else if addrs.len() < ADDRS_MAX {
                addrs.push(addr);
            }
        }
        match refused {
            _ if !addrs.is_empty() => Ok(addrs),
            Some(ip) => Err(Error::Other(Box::new(RefusedAddress(ip)))),
            None => Err(Error::HostNotFound),
        }
    }
}

impl Names {
    fn look_up(&self, host_and_port: String, timeout: NextTimeout) -> Result<Vec<SocketAddr>, Error> {
        #[cfg(test)]
        if let Some(lookup) = &self.lookup {
            return Ok(lookup(&host_and_port));
        }
        if self.threads.len() >= LOOKUPS_MAX {
            return Err(Error::Io(io::Error::other("too many name lookups hang; check the resolver")));
        }
        let (found_tx, found_rx) = bounded(1);
        let look = move || {
            let found = host_and_port.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            // The caller may have given up; then nobody wants the answer.
            let _ = found_tx.send(found);
        };
        self.threads.spawn("net-dns", DNS_STACK_BYTES, look).map_err(Error::Io)?;
        select! {
            recv(found_rx) -> found => match found {
                Ok(Ok(found)) => Ok(found),
                Ok(Err(_)) | Err(_) => Err(Error::HostNotFound),
            },
            recv(self.pace.cancel_rx) -> _ => Err(Error::Timeout(Timeout::Resolve)),
            default(timeout.not_zero().map_or(Duration::MAX, |t| *t)) => Err(Error::Timeout(Timeout::Resolve)),
        }
    }
}
