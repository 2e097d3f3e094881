//! Servers reached over HTTP: the streamable transport (MCP 2025-11-25, "Streamable HTTP"), and the posting half of the
//! older one (see `stream`).
//!
//! Threads, in a group of the connection's own: one `mcp-<name>` per request in flight (it posts, and reads the answer
//! or the stream of events that holds it; ends with the answer, when the caller gives up, or when the connection is
//! closed) and one for the standing stream.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::client::{Client, Transport};
use super::inbox::{Inbox, Waiting};
use super::mask::cut;
use super::oauth::Access;
use super::{Mask, McpError, TransportKind};
use crate::limits;
use crate::net::guard::{CheckedUrl, Guard};
use crate::net::{Answer, Call, HttpClient, Method, NetError, Timeouts};
use crate::rt::{Cancel, Stop, Stopper, Threads, lock};

/// Waits within a call are the caller's business: it cancels the call when its time is over.
const NEVER: Duration = Duration::from_secs(24 * 3600);
/// Requests that nobody waits for: notices, answers, the goodbye.
const SHORT: Timeouts = Timeouts {
    connect: limits::MCP_HTTP_CONNECT_TIMEOUT,
    first_byte: Duration::from_secs(5),
    idle: Duration::from_secs(5),
    total: Some(Duration::from_secs(5)),
};
pub(super) const LONG: Timeouts =
    Timeouts { connect: limits::MCP_HTTP_CONNECT_TIMEOUT, first_byte: NEVER, idle: NEVER, total: None };
/// Longest session id that we echo.
const SESSION_ID_BYTES_MAX: usize = 1024;
const REDIRECTS_MAX: usize = 3;

/// What to reach.
pub struct Target {
    pub url: CheckedUrl,
    /// Judges redirects.
    pub guard: Guard,
    /// Checked names and values.
    pub headers: Vec<(String, String)>,
    /// The token that requests carry; None where the server wants no login of this kind.
    pub access: Option<Access>,
}

/// Connects: the streamable transport first, the older one where the server does not know it.
pub fn reach(name: &str, target: Target, mask: Mask, timeout: Duration, cancel: &Cancel) -> Result<Client, McpError> {
    let target = Arc::new(target);
    let open = |kind| {
        let inbox = Inbox::new(name, mask.clone());
        let http = Http::new(name, Arc::clone(&target), kind, Arc::clone(&inbox));
        if kind == TransportKind::LegacySse {
            http.open_legacy(timeout, cancel)?;
        }
        Client::open(Box::new(http), inbox, timeout, cancel)
    };
    let has_login = target.access.is_some();
    match open(TransportKind::Http) {
        // Logins came with the newer transport (contract engine 8.2).
        Err(error) if has_login => Err(error),
        // What servers of before 2025-03-26 answer to a POST (MCP "Backwards Compatibility").
        Err(error @ McpError::Status { status: 400 | 404 | 405, .. }) => {
            open(TransportKind::LegacySse).map_err(|legacy| {
                log::debug!("tool server {name}: neither streamable HTTP nor the older transport: {legacy}");
                error
            })
        }
        other => other,
    }
}

struct Http {
    shared: Arc<Shared>,
    /// Dropped to end the standing stream's waits.
    stopper: Mutex<Option<Stopper>>,
}

pub(super) struct Shared {
    pub(super) name: String,
    pub(super) inbox: Arc<Inbox>,
    pub(super) target: Arc<Target>,
    pub(super) kind: TransportKind,
    client: HttpClient,
    threads: Threads,
    pub(super) stop: Stop,
    pub(super) is_closing: AtomicBool,
    /// Guarded by the mutex: what the server told us to send along. Nothing is taken under it.
    session: Mutex<Session>,
    /// Guarded by the mutex: what ends the requests in flight, by number; 0 is the standing stream. Nothing is taken
    /// under it.
    in_flight: Mutex<HashMap<u64, Cancel>>,
}

struct Session {
    id: Option<String>,
    protocol: Option<&'static str>,
    /// Where messages are posted.
    endpoint: CheckedUrl,
    /// Where the older transport has its stream.
    stream: CheckedUrl,
}

/// The number of the standing stream in `in_flight`; calls count from 1.
pub(super) const STANDING: u64 = 0;

impl Http {
    fn new(name: &str, target: Arc<Target>, kind: TransportKind, inbox: Arc<Inbox>) -> Self {
        let (stopper, stop) = Stopper::new();
        let client = HttpClient::new(LONG).with_filter(target.url.filter());
        let session = Session { id: None, protocol: None, endpoint: target.url.clone(), stream: target.url.clone() };
        let shared = Shared {
            name: name.to_owned(),
            inbox,
            target,
            kind,
            client,
            threads: Threads::new(),
            stop,
            is_closing: AtomicBool::new(false),
            session: Mutex::new(session),
            in_flight: Mutex::default(),
        };
        Self { shared: Arc::new(shared), stopper: Mutex::new(Some(stopper)) }
    }

    fn open_legacy(&self, timeout: Duration, cancel: &Cancel) -> Result<(), McpError> {
        super::stream::open_legacy(&self.shared, timeout, cancel)
    }
}

impl Transport for Http {
    fn send(&self, message: Vec<u8>, call: Option<(u64, &Arc<Waiting>)>) -> Result<(), McpError> {
        let shared = Arc::clone(&self.shared);
        let Some((id, waiting)) = call else {
            return self.shared.spawn(move || shared.post(&message, None));
        };
        // Known before its thread runs: a call can be given up at once.
        let (waiting, cancel) = (Arc::clone(waiting), self.shared.begin(id));
        let spawned = self.shared.spawn(move || {
            if !cancel.is_set() {
                shared.post(&message, Some((id, &waiting, &cancel)));
            }
            shared.end(id);
        });
        if spawned.is_err() {
            self.shared.end(id);
        }
        spawned
    }

    fn abandon(&self, call: u64) {
        let cancel = lock(&self.shared.in_flight).remove(&call);
        if let Some(cancel) = cancel {
            cancel.cancel();
        }
    }

    fn agreed(&self, protocol: &'static str, initialized: Vec<u8>) -> Result<(), McpError> {
        lock(&self.shared.session).protocol = Some(protocol);
        // In place: it must be there before the first request that follows.
        self.shared.post(&initialized, None);
        if self.shared.kind == TransportKind::Http {
            let shared = Arc::clone(&self.shared);
            self.shared.spawn(move || super::stream::stand(&shared))?;
        }
        Ok(())
    }

    fn close(&self) {
        if self.shared.is_closing.swap(true, Ordering::AcqRel) {
            return;
        }
        drop(lock(&self.stopper).take());
        let in_flight: Vec<Cancel> = lock(&self.shared.in_flight).drain().map(|(_, cancel)| cancel).collect();
        in_flight.iter().for_each(Cancel::cancel);
        if lock(&self.shared.session).id.is_some() {
            let shared = Arc::clone(&self.shared);
            let goodbye = move || {
                if let Err(error) = shared.request(Method::Delete, None, SHORT, &Cancel::new(), &[]).map(drop) {
                    log::debug!("tool server {}: end the session: {error}", shared.name);
                }
            };
            // Without a thread the session ends by the server's own clock.
            let _ =
                self.shared.threads.spawn(&format!("mcp-{}", self.shared.name), limits::WORKER_STACK_BYTES, goodbye);
        }
    }

    fn wait_ended(&self, timeout: Duration) -> bool {
        self.shared.threads.join_all(timeout).is_empty()
    }

    fn kind(&self) -> TransportKind {
        self.shared.kind
    }
}

/// Also when it never became a client's: nothing of it may go on.
impl Drop for Http {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    pub(super) fn spawn(&self, body: impl FnOnce() + Send + 'static) -> Result<(), McpError> {
        if self.is_closing.load(Ordering::Acquire) {
            return Err(McpError::Gone { detail: "closed by the hub".to_owned() });
        }
        if self.threads.len() > limits::MCP_CALLS_MAX {
            return Err(McpError::Stuck);
        }
        let spawned = self.threads.spawn(&format!("mcp-{}", self.name), limits::WORKER_STACK_BYTES, body);
        spawned.map_err(|error| McpError::Connect { cause: format!("no thread: {error}") })
    }

    /// What ends the request of that number; cancelled already when the connection is being closed.
    pub(super) fn begin(&self, number: u64) -> Cancel {
        let cancel = Cancel::new();
        lock(&self.in_flight).insert(number, cancel.clone());
        if self.is_closing.load(Ordering::Acquire) {
            cancel.cancel();
        }
        cancel
    }

    pub(super) fn end(&self, number: u64) {
        lock(&self.in_flight).remove(&number);
    }

    /// Posts a message; the answer goes to the inbox, and so does the failure of a call.
    pub(super) fn post(self: &Arc<Self>, message: &[u8], call: Option<(u64, &Waiting, &Cancel)>) {
        let message = message.strip_suffix(b"\n").unwrap_or(message);
        let result = match call {
            Some((_, waiting, cancel)) => super::stream::exchange(self, message, waiting, cancel),
            None => self.request(Method::Post, Some(message), SHORT, &Cancel::new(), &[]).map(drop),
        };
        let Err(error) = result else { return };
        if error == McpError::SessionLost {
            self.inbox.close(error.clone());
        }
        let may_be_broken = matches!(
            error,
            McpError::Connect { .. } | McpError::Gone { .. } | McpError::Status { .. } | McpError::Unauthorized
        );
        if call.is_some() && may_be_broken {
            self.inbox.suspect();
        }
        match call {
            Some((id, ..)) => self.inbox.fail(id, error),
            None => log::debug!("tool server {}: send a notice: {error}", self.name),
        }
    }

    /// Makes one request; a good answer. Follows redirects within the origin.
    pub(super) fn request<'a>(
        &'a self,
        method: Method,
        body: Option<&[u8]>,
        timeouts: Timeouts,
        cancel: &'a Cancel,
        more: &[(&str, &str)],
    ) -> Result<Answer<'a>, McpError> {
        let access = self.target.access.as_ref();
        let mut bearer = access.map(Access::bearer).transpose()?;
        let mut is_renewed = false;
        for _ in 0..=REDIRECTS_MAX {
            // The older transport posts to the endpoint that it was given; its stream is elsewhere.
            let is_stream = self.kind == TransportKind::LegacySse && method == Method::Get;
            let (session, protocol, from) = {
                let session = lock(&self.session);
                let from = if is_stream { &session.stream } else { &session.endpoint };
                (session.id.clone(), session.protocol, from.clone())
            };
            let url = from.text();
            let mut call = Call::new(method, &url).timeouts(timeouts).headers(&self.target.headers);
            if let Some(body) = body {
                call = call.body(body);
            }
            let line = bearer.as_ref().map(|token| format!("Bearer {token}"));
            if let Some(line) = &line {
                call = call.header("Authorization", line);
            }
            if let Some(session) = &session {
                call = call.header("Mcp-Session-Id", session);
            }
            if let Some(protocol) = protocol {
                call = call.header("MCP-Protocol-Version", protocol);
            }
            for (name, value) in more {
                call = call.header(name, value);
            }
            let mut answer = self.client.send(&call, cancel).map_err(|error| self.net_error(error))?;
            match answer.status() {
                200..=299 => {
                    let new = answer.header("mcp-session-id").filter(|id| is_session_id(id)).map(str::to_owned);
                    if new.is_some() && self.kind == TransportKind::Http {
                        lock(&self.session).id = new;
                    }
                    return Ok(answer);
                }
                301 | 302 | 307 | 308 => {
                    let to = self.redirect(&from, answer.header("location").unwrap_or(""))?;
                    let mut session = lock(&self.session);
                    *(if is_stream { &mut session.stream } else { &mut session.endpoint }) = to;
                }
                401 => match (access, &bearer) {
                    // Revoked early, or its end was never told: once more with another.
                    (Some(access), Some(refused)) if !is_renewed => {
                        is_renewed = true;
                        bearer = Some(access.instead_of(refused)?);
                    }
                    _ => return Err(McpError::Unauthorized),
                },
                // Of the standing stream it only says that there is none.
                404 if session.is_some() && method == Method::Post => return Err(McpError::SessionLost),
                status => return Err(self.status_error(status, &mut answer, bearer.as_deref())),
            }
        }
        Err(McpError::Protocol { reason: "it redirects in circles".to_owned() })
    }

    /// Where to go instead. Within the origin only: headers hold credentials, and peers do not choose targets.
    fn redirect(&self, from: &CheckedUrl, location: &str) -> Result<CheckedUrl, McpError> {
        let refused = |reason: String| McpError::Refused { reason };
        let to = self.target.guard.check_redirect(from, location).map_err(|error| refused(error.to_string()))?;
        if to.url().origin() != from.url().origin() {
            return Err(refused(format!(
                "it redirects to {}; configure that address if it is right",
                to.url().origin()
            )));
        }
        Ok(to.with_credentials_of(from))
    }

    /// Where the older transport takes messages.
    pub(super) fn set_endpoint(&self, location: &str) -> Result<(), McpError> {
        let stream = lock(&self.session).stream.clone();
        let to = self.redirect(&stream, location)?;
        lock(&self.session).endpoint = to;
        Ok(())
    }

    fn status_error(&self, status: u16, answer: &mut Answer<'_>, bearer: Option<&str>) -> McpError {
        let mask = &self.inbox.mask.with(bearer);
        // What may be the beginning of a secret at the cut is left out.
        let text = match answer.body_start(limits::MCP_ERROR_BYTES_MAX + mask.longest()) {
            Ok((body, true)) => mask.apply(&String::from_utf8_lossy(&body)),
            Ok((body, false)) => {
                let text = mask.apply(&String::from_utf8_lossy(&body));
                cut(&text, text.len().saturating_sub(mask.longest())).to_owned()
            }
            Err(_) => String::new(),
        };
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        // A page for people says nothing in a line.
        let text = if text.trim_start().starts_with('<') { "" } else { cut(text.trim(), 300) };
        McpError::Status { status, text: text.to_owned() }
    }

    /// Takes the data of an event.
    pub(super) fn feed(self: &Arc<Self>, data: &str) {
        self.feed_bytes(data.as_bytes());
    }

    /// Takes a message, and posts what the server has to be answered.
    pub(super) fn feed_bytes(self: &Arc<Self>, message: &[u8]) {
        for reply in self.inbox.feed(message).replies {
            let own = Arc::clone(self);
            if let Err(error) = self.spawn(move || own.post(&reply, None)) {
                log::debug!("tool server {}: answer its request: {error}", self.name);
            }
        }
    }

    pub(super) fn net_error(&self, error: NetError) -> McpError {
        match error {
            NetError::Cancelled => McpError::Cancelled,
            NetError::TooLarge { bytes_max } => McpError::TooLarge { bytes_max },
            NetError::Refused { address } => McpError::Refused {
                reason: format!(
                    "address {address} is not allowed; for this machine itself an operator can set allow_loopback"
                ),
            },
            other => McpError::Connect { cause: self.inbox.mask.apply(&other.to_string()) },
        }
    }
}

fn is_session_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= SESSION_ID_BYTES_MAX && id.bytes().all(|byte| byte.is_ascii_graphic())
}
