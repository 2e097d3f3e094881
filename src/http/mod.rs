//! HTTP/1.1: connections, parsing, limits and answers (architecture section 2).
//!
//! Knows `tiny_http` (as vocabulary), `httparse` and `polling`; knows nothing of what a request means.
//!
//! | thread | how many | owns | ends when |
//! | --- | --- | --- | --- |
//! | `http-poll` | 1 | listener, all connections not with a worker | stop, drained or late |
//! | `http-work-N` | fixed | one request each | queue closed |
//! | `sse-write-N` | 1 per SSE stream | its socket | stream over, client gone, stop |

mod accept;
mod body;
mod conn;
mod head;
mod poll;
mod refusal;
mod reply;
mod shed;
pub mod sse;
pub mod sse_session;
mod workers;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use crate::api::message::{Reply, Req, Response, SseStart, Upgrade};
use crate::rt::Threads;
use crate::tls::Acceptor;

pub use conn::Socket;

/// What the server calls: the whole of Holt above HTTP.
pub trait App: Send + Sync + 'static {
    /// Answers a request. Runs on a worker; must not wait for a peer.
    fn handle(&self, req: &Req) -> Reply;
    /// Whether the route of this head takes bodies beyond the general limit. Quick: runs on the poller.
    fn has_large_body(&self, head: &Req) -> bool;
    /// Whether a body of so many bytes may come with this head; the answer otherwise. Runs on a worker.
    fn allow_body(&self, head: &Req, length: usize) -> Result<(), Response>;
    /// Takes over a socket as a WebSocket. `early` is what the client sent behind its request.
    fn upgrade(&self, socket: Socket, early: Vec<u8>, start: Upgrade);
    /// Takes over a socket as an event stream; the response head is still to be written.
    fn stream(&self, socket: Socket, start: SseStart);
    /// Lines that every response carries, ready for the wire, each ending in CR LF; `path` decides about caching.
    fn common_headers(&self, path: &str) -> &[u8];
}

/// What an operator may change.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    pub connections_max: usize,
    pub workers: usize,
    pub body_bytes_max: usize,
    pub head_timeout: Duration,
    pub body_timeout: Duration,
    pub idle_timeout: Duration,
}

/// A running server.
pub struct HttpServer {
    shared: Arc<poll::Shared>,
    threads: Threads,
    address: SocketAddr,
}

impl HttpServer {
    /// Starts the poller and the workers on a bound listener, which speaks TLS if there is an acceptor.
    pub fn start(
        listener: TcpListener,
        settings: HttpSettings,
        app: Arc<dyn App>,
        tls: Option<Arc<Acceptor>>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let threads = Threads::new();
        let shared = poll::start(listener, settings, app, tls, &threads)?;
        Ok(Self { shared, threads, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to let clients go, before [`HttpServer::stop`]: takes no new connections; every answer is the last of its
    /// connection; those that wait for a request have [`crate::limits::RESTART_GRACE`] to get one, and then a clean end.
    pub fn begin_drain(&self) {
        self.shared.begin_drain();
    }

    /// Whether all clients have gone since [`HttpServer::begin_drain`]; waits for it for so long.
    pub fn has_drained(&self, wait: Duration) -> bool {
        self.threads.join_all(wait).is_empty()
    }

    /// Stops accepting, lets requests in flight end, then ends the threads; the names of those that were late.
    pub fn stop(&self, drain: Duration) -> Vec<String> {
        self.shared.stop(drain);
        self.threads.join_all(drain + Duration::from_millis(500))
    }
}
