//! The outbound HTTP client of the providers: blocking, with a time-out per phase, and cancellable.
//!
//! - Cancelling shuts the socket down, so that a blocked read ends within milliseconds; a name lookup is left at once;
//!   only a TCP connect in progress goes on, for at most the connect time-out.
//! - Redirects are not followed: a credential must not travel to another host.
//! - Proxy variables of the environment are ignored; providers are reached directly.
//! - Certificates are checked against the Mozilla roots in the binary.
//! - Up to [`IDLE_MAX`] connections are kept for the next call, one per [`Slot`]. A kept connection that turns out to
//!   be dead before a byte of the answer came is replaced once.
//!
//! No threads of its own, except for name lookups (see `net`).

use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::{Request, Response};
use ureq::unversioned::transport::{Connector, RustlsConnector, TcpConnector};
use ureq::{Agent, Body, Error, Timeout};

use super::net::{Connected, Names, Pace, PacedConnector, SharedTls, Stage};
use super::{LlmError, Phase};
use crate::rt::{Cancel, Threads, lock};

/// Connections kept for the next call; a tool loop makes several calls in a row.
const IDLE_MAX: usize = 4;
/// How long a connection is kept; common servers close theirs after 60 s.
const IDLE_AGE: Duration = Duration::from_secs(30);
/// Largest response head, and the size of the input buffer that must hold it.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const OUTPUT_BUFFER_BYTES: usize = 16 * 1024;
/// How long the end of a complete answer may take, so that its connection can be kept.
const END_WAIT: Duration = Duration::from_millis(20);

/// How long each phase of a call may take. All are above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name lookup, TCP and TLS together.
    pub connect: Duration,
    /// From the connection to the first byte of the answer's body: models load, prompts are read.
    pub first_byte: Duration,
    /// Between two reads in the middle of an answer.
    pub idle: Duration,
    /// The whole call.
    pub total: Duration,
}

/// One request.
pub(crate) struct Call<'a> {
    pub(crate) url: &'a str,
    pub(crate) headers: &'a [(&'static str, String)],
    /// JSON to POST; without one it is a GET.
    pub(crate) body: Option<&'a [u8]>,
}

/// Makes calls for one provider.
pub(crate) struct HttpClient {
    timeouts: Timeouts,
    tls: SharedTls,
    dns_threads: Threads,
    /// Guarded by the mutex: the slots that no call uses.
    idle: Mutex<Vec<Slot>>,
}

/// A ureq agent with at most one connection, used by one call at a time. Cancelling shuts the agent down; the slot is
/// then dropped, and no other call is harmed.
struct Slot {
    agent: Agent,
    pace: Arc<Pace>,
    /// It may hold a kept connection.
    used: bool,
}

/// The head of an answer, and its body to read. Dropping it ends the call.
pub(crate) struct Answer<'a> {
    client: &'a HttpClient,
    cancel: &'a Cancel,
    slot: Option<Slot>,
    body: Option<ureq::BodyReader<'static>>,
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
    ended: bool,
}

impl HttpClient {
    pub(crate) fn new(timeouts: Timeouts) -> Self {
        Self {
            timeouts,
            tls: SharedTls(Arc::new(RustlsConnector::default())),
            dns_threads: Threads::new(),
            idle: Mutex::default(),
        }
    }

    /// Sends a request and waits for the head of its answer, whatever its status is.
    pub(crate) fn send<'a>(&'a self, call: &Call<'_>, cancel: &'a Cancel) -> Result<Answer<'a>, LlmError> {
        loop {
            let slot = lock(&self.idle).pop().unwrap_or_else(|| self.new_slot());
            if cancel.is_set() {
                return Err(LlmError::Cancelled);
            }
            slot.pace.set_stage(Stage::Connecting);
            let (agent, pace) = (slot.agent.clone(), Arc::clone(&slot.pace));
            cancel.set_hook(move || {
                pace.cancel();
                agent.clone().shutdown();
            });
            let kept = slot.used;
            let mut answer =
                Answer { client: self, cancel, slot: None, body: None, status: 0, retry_after: None, ended: false };
            match run(&slot.agent, call) {
                Ok(response) => {
                    answer.status = response.status().as_u16();
                    answer.retry_after =
                        response.headers().get("retry-after").and_then(|value| value.to_str().ok()).map(str::to_owned);
                    answer.body = Some(response.into_body().into_reader());
                    answer.slot = Some(slot);
                    return Ok(answer);
                }
                // A server may close a kept connection in the moment that we use it.
                Err(error) if kept && !cancel.is_set() && is_stale(&error, slot.pace.stage()) => {}
                Err(error) => {
                    answer.slot = Some(slot);
                    return Err(answer.failed(error));
                }
            }
        }
    }

    fn new_slot(&self) -> Slot {
        let pace = Arc::new(Pace::new(self.timeouts.first_byte, self.timeouts.idle));
        let connector =
            ().chain(TcpConnector::default())
                .chain(PacedConnector(Arc::clone(&pace)))
                .chain(self.tls.clone())
                .chain(Connected(Arc::clone(&pace)));
        let config = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("holt/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(self.timeouts.connect))
            .timeout_connect(Some(self.timeouts.connect))
            .timeout_global(Some(self.timeouts.total))
            .max_response_header_size(HEAD_BYTES_MAX)
            .input_buffer_size(HEAD_BYTES_MAX)
            .output_buffer_size(OUTPUT_BUFFER_BYTES)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .max_idle_age(IDLE_AGE)
            .build();
        let names = Names { pace: Arc::clone(&pace), threads: self.dns_threads.clone() };
        Slot { agent: Agent::with_parts(config, connector, names), pace, used: false }
    }
}

fn run(agent: &Agent, call: &Call<'_>) -> Result<Response<Body>, Error> {
    let mut request = Request::builder().uri(call.url).header("accept", "application/json, text/event-stream");
    for (name, value) in call.headers {
        request = request.header(*name, value);
    }
    match call.body {
        Some(body) => agent.run(request.method("POST").header("content-type", "application/json").body(body)?),
        None => agent.run(request.method("GET").body(())?),
    }
}

fn is_stale(error: &Error, stage: Stage) -> bool {
    matches!(error, Error::Io(_)) && matches!(stage, Stage::Waiting { .. })
}

impl Answer<'_> {
    /// Reads what is there, waiting for it if need be; 0 at the end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LlmError> {
        // A shut socket still gives what had arrived before: a flood would hide the cancel.
        if self.cancel.is_set() {
            return Err(LlmError::Cancelled);
        }
        let Some(body) = &mut self.body else { return Ok(0) };
        match body.read(buffer) {
            // Without a length, an end that we made ourselves looks like the end of the answer.
            Ok(0) if self.cancel.is_set() => Err(LlmError::Cancelled),
            Ok(0) => {
                self.ended = true;
                Ok(0)
            }
            Ok(n) => {
                if let Some(slot) = &self.slot
                    && matches!(slot.pace.stage(), Stage::Waiting { .. })
                {
                    slot.pace.set_stage(Stage::Answering);
                }
                Ok(n)
            }
            Err(error) => Err(self.failed(Error::from(error))),
        }
    }

    /// From here on a read waits at most `wait`: the answer is complete but for its last words.
    pub(crate) fn expect_end(&mut self, wait: Duration) {
        if let Some(slot) = &self.slot {
            slot.pace.set_stage(Stage::Tail { wait });
        }
    }

    /// Reads the end of a complete answer if it is there, so that the connection can be kept.
    pub(crate) fn finish(mut self) {
        self.expect_end(END_WAIT);
        // Nothing more is wanted, so it does not matter how this fails; `ended` says whether it worked.
        let _ = self.read(&mut [0; 64]);
    }

    fn failed(&self, error: Error) -> LlmError {
        if self.cancel.is_set() {
            return LlmError::Cancelled;
        }
        let timeouts = self.client.timeouts;
        let phase = self.slot.as_ref().map_or(Phase::Idle, |slot| slot.pace.phase());
        match error {
            Error::Timeout(reason) => {
                let phase = match reason {
                    Timeout::Resolve | Timeout::Connect => Phase::Connect,
                    Timeout::Global | Timeout::PerCall => Phase::Total,
                    _ => phase,
                };
                let after = match phase {
                    Phase::Connect => timeouts.connect,
                    Phase::FirstByte => timeouts.first_byte,
                    Phase::Idle => timeouts.idle,
                    Phase::Total => timeouts.total,
                };
                LlmError::Timeout { phase, after }
            }
            Error::HostNotFound => LlmError::Connect { cause: "unknown host name".to_owned() },
            Error::BadUri(_) | Error::Http(_) => LlmError::Config { cause: error.to_string() },
            Error::Io(_) | Error::Rustls(_) | Error::Tls(_) if phase == Phase::Connect => {
                LlmError::Connect { cause: error.to_string() }
            }
            Error::Io(_) => LlmError::Cut { cause: error.to_string() },
            other => LlmError::Decode { cause: other.to_string() },
        }
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        // First the body: it hands the connection back to the agent.
        self.body = None;
        self.cancel.clear_hook();
        // The flag is set before a hook is taken, so a hook that still runs is seen here and its slot not kept.
        if self.ended
            && !self.cancel.is_set()
            && let Some(mut slot) = self.slot.take()
        {
            slot.used = true;
            let mut idle = lock(&self.client.idle);
            if idle.len() < IDLE_MAX {
                idle.push(slot);
            }
        }
    }
}
