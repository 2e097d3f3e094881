//! The client: blocking, with a time-out per phase, and cancellable.
//!
//! - Cancelling shuts the socket down, so that a blocked read ends within milliseconds; a name lookup is left at once;
//!   only a TCP connect in progress goes on, for at most the connect time-out.
//! - Redirects are not followed: a credential must not travel to another host, and each hop needs its own check.
//! - Proxy variables of the environment are ignored; peers are reached directly.
//! - Certificates are checked against the Mozilla roots in the binary, or against [`HttpClient::with_certificates`], or
//!   not at all ([`HttpClient::with_tls_unchecked`]).
//! - Up to [`IDLE_MAX`] connections are kept for the next call, one per [`Slot`], unless
//!   [`HttpClient::without_reuse`] says otherwise. A kept connection that turns out to be dead before a byte of the
//!   answer came is replaced once, if the request may be sent twice.
//!
//! No threads of its own, except for name lookups (see `transport`).

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::{Request, Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig};
use ureq::unversioned::transport::{Connector, RustlsConnector, TcpConnector};
use ureq::{Agent, Body, Error};

use super::NetError;
use super::answer::{Answer, failure};
use super::transport::{AddressFilter, Connected, Names, Pace, PacedConnector, SharedTls, Stage};
use crate::rt::{Cancel, Threads, lock};

/// Connections kept for the next call; a tool loop makes several calls in a row.
const IDLE_MAX: usize = 4;
/// How long a connection is kept; common servers close theirs after 60 s.
const IDLE_AGE: Duration = Duration::from_secs(30);
/// Largest response head, and the size of the input buffer that must hold it.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const OUTPUT_BUFFER_BYTES: usize = 16 * 1024;

/// One configuration of TLS for the whole process: the roots are the same for all.
static TLS: LazyLock<SharedTls> = LazyLock::new(|| SharedTls(Arc::new(RustlsConnector::default())));
/// The same for peers whose certificates nobody checks.
static UNCHECKED_TLS: LazyLock<SharedTls> = LazyLock::new(|| SharedTls(Arc::new(RustlsConnector::default())));

/// How long each phase of a call may take. All are above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name lookup, TCP and TLS together.
    pub connect: Duration,
    /// From the connection to the first byte of the answer's body: models load, prompts are read.
    pub first_byte: Duration,
    /// Between two reads in the middle of an answer.
    pub idle: Duration,
    /// The whole call; None for streams that last.
    pub total: Option<Duration>,
}

/// What is done with the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

/// One request.
pub struct Call<'a> {
    method: Method,
    url: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: Option<&'a [u8]>,
    timeouts: Option<Timeouts>,
    repeatable: bool,
}

/// Makes calls under one policy. Shared between threads; each call uses a connection of its own.
pub struct HttpClient {
    timeouts: Timeouts,
    filter: Option<AddressFilter>,
    #[cfg(test)]
    pub(super) lookup: Option<super::transport::Lookup>,
    reuse: bool,
    /// TLS that is not everybody's: roots of its own, or none.
    private_tls: Option<(SharedTls, TlsConfig)>,
    dns_threads: Threads,
    /// Guarded by the mutex: the slots that no call uses, the longest unused first.
    idle: Mutex<Vec<Slot>>,
}

/// A ureq agent with at most one connection, used by one call at a time. Cancelling shuts the agent down; the slot is
/// then dropped, and no other call is harmed.
pub(super) struct Slot {
    agent: Agent,
    pub(super) pace: Arc<Pace>,
    pub(super) timeouts: Timeouts,
    /// Scheme, host and port of the connection that it may hold.
    origin: String,
    /// It may hold a kept connection.
    pub(super) used: bool,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl<'a> Call<'a> {
    /// A call without headers and body. GET, HEAD, PUT and DELETE may be sent twice (RFC 9110 9.2.2), see
    /// [`Call::repeatable`].
    pub fn new(method: Method, url: &'a str) -> Self {
        let repeatable = !matches!(method, Method::Post | Method::Patch);
        Self { method, url, headers: Vec::new(), body: None, timeouts: None, repeatable }
    }

    /// A GET.
    pub fn get(url: &'a str) -> Self {
        Self::new(Method::Get, url)
    }

    /// A POST.
    pub fn post(url: &'a str, body: &'a [u8]) -> Self {
        Self::new(Method::Post, url).body(body)
    }

    /// Adds a header. `Accept` (JSON and event streams), `Content-Type` (JSON, when there is a body) and `User-Agent`
    /// have defaults that the caller's replace.
    #[must_use]
    pub fn header(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds headers that were put together before.
    #[must_use]
    pub fn headers<N: AsRef<str>, V: AsRef<str>>(mut self, headers: &'a [(N, V)]) -> Self {
        self.headers.extend(headers.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
        self
    }

    /// What is sent; only with POST, PUT and PATCH, which send an empty body without it.
    #[must_use]
    pub fn body(mut self, body: &'a [u8]) -> Self {
        self.body = Some(body);
        self
    }

    /// Other time-outs than the client's.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = Some(timeouts);
        self
    }

    /// The request may reach the peer twice without harm: it is sent again when a kept connection died as it was used.
    #[must_use]
    pub fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    fn has_header(&self, wanted: &str) -> bool {
        self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted))
    }
}

impl HttpClient {
    /// A client that keeps connections and may connect to every address.
    pub fn new(timeouts: Timeouts) -> Self {
        Self {
            timeouts,
            filter: None,
            #[cfg(test)]
            lookup: None,
            reuse: true,
            private_tls: None,
            dns_threads: Threads::new(),
            idle: Mutex::default(),
        }
    }

    /// Connects only to addresses that `filter` allows. It is asked about each address that a host resolves to, also
    /// when the URL names the address itself; IPv4 addresses in IPv6 clothes come as IPv4. Exactly the addresses that
    /// were asked about are connected to.
    #[must_use]
    pub fn with_filter(mut self, filter: AddressFilter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Every call gets a connection of its own, which is closed behind it.
    #[must_use]
    pub fn without_reuse(mut self) -> Self {
        self.reuse = false;
        self
    }

    /// Takes any certificate. For looking at peers that an operator configured so, never for anything secret.
    #[must_use]
    pub fn with_tls_unchecked(mut self) -> Self {
        let config = TlsConfig::builder().disable_verification(true).build();
        self.private_tls = Some((UNCHECKED_TLS.clone(), config));
        self
    }

    /// Believes the certificates in `pem`, and those that they signed, instead of the Mozilla roots.
    pub fn with_certificates(mut self, pem: &[u8]) -> Result<Self, NetError> {
        let bad = |cause: &str| NetError::Decode { cause: cause.to_owned() };
        let mut found = Vec::new();
        for item in ureq::tls::parse_pem(pem) {
            if let PemItem::Certificate(certificate) = item.map_err(|_| bad("not PEM"))? {
                found.push(certificate);
            }
        }
        if found.is_empty() {
            return Err(bad("it holds no certificate (PEM)"));
        }
        let config = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&found)).build();
        self.private_tls = Some((SharedTls(Arc::new(RustlsConnector::default())), config));
        Ok(self)
    }

    /// Sends a request and waits for the head of its answer, whatever its status is, redirects included.
    ///
    /// Takes the hook of `cancel` until the answer is dropped.
    pub fn send<'a>(&'a self, call: &Call<'_>, cancel: &'a Cancel) -> Result<Answer<'a>, NetError> {
        let origin = origin(call.url)?;
        let timeouts = call.timeouts.unwrap_or(self.timeouts);
        loop {
            let slot = self.take_slot(&origin, timeouts);
            if cancel.is_set() {
                return Err(NetError::Cancelled);
            }
            slot.pace.set_stage(Stage::Connecting);
            let (agent, pace) = (slot.agent.clone(), Arc::clone(&slot.pace));
            cancel.set_hook(move || {
                pace.cancel();
                agent.clone().shutdown();
            });
            match run(&slot.agent, call) {
                Ok(response) => return Ok(Answer::new(self, cancel, slot, response)),
                Err(error) => {
                    cancel.clear_hook();
                    if cancel.is_set() {
                        return Err(NetError::Cancelled);
                    }
                    // A server may close a kept connection in the moment that we use it.
                    if slot.used && call.repeatable && is_stale(&error, slot.pace.stage()) {
                        continue;
                    }
                    return Err(failure(error, slot.pace.phase(), timeouts));
                }
            }
        }
    }

    fn take_slot(&self, origin: &str, timeouts: Timeouts) -> Slot {
        let kept = {
            let mut idle = lock(&self.idle);
            let found = idle.iter().rposition(|slot| slot.origin == origin && slot.timeouts == timeouts);
            found.map(|idx| idle.remove(idx))
        };
        kept.unwrap_or_else(|| self.new_slot(origin, timeouts))
    }

    /// Keeps the connection of a call that has read its answer to the end.
    pub(super) fn keep(&self, mut slot: Slot) {
        if !self.reuse {
            return;
        }
        slot.used = true;
        let mut idle = lock(&self.idle);
        let oldest = (idle.len() >= IDLE_MAX).then(|| idle.remove(0));
        idle.push(slot);
        drop(idle);
        // Its socket is closed without the lock.
        drop(oldest);
    }

    fn new_slot(&self, origin: &str, timeouts: Timeouts) -> Slot {
        let pace = Arc::new(Pace::new(timeouts.first_byte, timeouts.idle));
        let connector =
            ().chain(TcpConnector::default())
                .chain(PacedConnector(Arc::clone(&pace)))
                .chain(self.private_tls.as_ref().map_or_else(|| TLS.clone(), |(tls, _)| tls.clone()))
                .chain(Connected(Arc::clone(&pace)));
        let mut config = Config::builder();
        if let Some((_, tls)) = &self.private_tls {
            config = config.tls_config(tls.clone());
        }
        let config = config
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("holt/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(timeouts.connect))
            .timeout_connect(Some(timeouts.connect))
            .timeout_global(timeouts.total)
            .max_response_header_size(HEAD_BYTES_MAX)
            .input_buffer_size(HEAD_BYTES_MAX)
            .output_buffer_size(OUTPUT_BUFFER_BYTES)
            .max_idle_connections(usize::from(self.reuse))
            .max_idle_connections_per_host(usize::from(self.reuse))
            .max_idle_age(IDLE_AGE)
            .build();
        let names = Names {
            pace: Arc::clone(&pace),
            threads: self.dns_threads.clone(),
            filter: self.filter.clone(),
            #[cfg(test)]
            lookup: self.lookup.clone(),
        };
        let agent = Agent::with_parts(config, connector, names);
        Slot { agent, pace, timeouts, origin: origin.to_owned(), used: false }
    }
}

/// Scheme, host and port of an absolute address.
fn origin(url: &str) -> Result<String, NetError> {
    let bad = || NetError::BadUrl { cause: "not an absolute http or https address".to_owned() };
    let uri: Uri = url.parse().map_err(|_| bad())?;
    match (uri.scheme_str(), uri.authority()) {
        (Some(scheme @ ("http" | "https")), Some(authority)) if !authority.host().is_empty() => {
            Ok(format!("{scheme}://{authority}"))
        }
        _ => Err(bad()),
    }
}

fn run(agent: &Agent, call: &Call<'_>) -> Result<Response<Body>, Error> {
    let mut request = Request::builder().method(call.method.name()).uri(call.url);
    if !call.has_header("accept") {
        request = request.header("accept", "application/json, text/event-stream");
    }
    if call.body.is_some() && !call.has_header("content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in &call.headers {
        request = request.header(*name, *value);
    }
    match call.method {
        Method::Post | Method::Put | Method::Patch => agent.run(request.body(call.body.unwrap_or_default())?),
        Method::Get | Method::Head | Method::Delete => agent.run(request.body(())?),
    }
}

fn is_stale(error: &Error, stage: Stage) -> bool {
    matches!(error, Error::Io(_)) && matches!(stage, Stage::Waiting { .. })
}
