//! The link as the rest of the agent sees it (the seed's `Run`, `RunForever`, `SendAlertEvent`, `ServerNotifier`).

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use super::conn::Conn;
use super::credential::{self, Configured, JoinCode};
use super::reconnect::{Backoff, Ended};
use super::runner::{ChatRunner, ConcurrencyLimiter, DiagnoseRunner};
use super::sessions::{Cause, Sessions, open_audit};
use super::spool::Spool;
use super::state::{Membership, StateDir};
use super::stream::{Waker, tls_config};
use super::{AUDIT_FILE, HubAddress, LinkError, SPOOL_FILE, Timers};
use crate::alert::Event;
use crate::fleet::sign;
use crate::fleet::wire::{Ack, Heartbeat, Register};
use crate::notify::Notifier;
use crate::rt::{Threads, clock, lock};
use crate::sys;

/// Nonces remembered at once; more starts than that within the window of a signature are no person's.
const NONCES_MAX: usize = 4096;

/// What may change while the link runs.
#[derive(Clone)]
pub struct LinkSettings {
    pub address: HubAddress,
    /// Certificates beside the Mozilla roots.
    pub ca_file: Option<PathBuf>,
    /// A token configured by hand.
    pub token: Option<String>,
    pub join: Option<JoinCode>,
    /// Labels of the configuration.
    pub labels: BTreeMap<String, String>,
    /// Plugins whose checks run.
    pub plugins: Vec<String>,
}

/// A link to one hub. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

/// What the link's thread and all others share.
pub(crate) struct Shared {
    // Set at construction.
    pub(super) state: StateDir,
    pub(super) spool: Spool,
    pub(super) sessions: Sessions,
    pub(super) waker: Arc<Waker>,
    pub(super) lookups: Threads,
    pub(super) timers: Timers,
    pub(super) started_ms: i64,
    started: Instant,
    version: String,
    // Atomics.
    pub(super) stopping: AtomicBool,
    /// Something of `register` changed.
    pub(super) reregister: AtomicBool,
    /// The connection is to be made again, at once.
    pub(super) redial: AtomicBool,
    pub(super) warned: AtomicBool,
    registered: AtomicBool,
    // Guarded by the mutexes, each for a moment; nothing is taken under them.
    settings: Mutex<LinkSettings>,
    target: Mutex<Target>,
    member: Mutex<Membership>,
    vitals: Mutex<Option<Vitals>>,
    nonces: Mutex<VecDeque<(i64, String)>>,
    /// The last advice; empty once the hub was reached.
    told: Mutex<String>,
}

/// Fills in what a heartbeat tells of the host.
type Vitals = Box<dyn FnMut(&mut Heartbeat) + Send>;

/// Whom to dial.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) address: HubAddress,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Target {
    fn of(settings: &LinkSettings) -> Result<Self, LinkError> {
        let address = settings.address.clone();
        let tls = if address.is_tls() { Some(tls_config(settings.ca_file.as_deref())?) } else { None };
        Ok(Self { address, tls })
    }
}

impl Link {
    /// Sets the link up; connects to nothing yet. What it needs to know at the next start is stored.
    ///
    /// Fails when the certificates, the state directory or a file in it cannot be used.
    pub fn new(state: StateDir, settings: LinkSettings, version: &str, timers: Timers) -> Result<Self, LinkError> {
        let target = Target::of(&settings)?;
        let member = member_of(&state, &settings)?;
        let spool_path = state.file(SPOOL_FILE);
        let fail = |path: &std::path::Path, error: std::io::Error| LinkError::State {
            path: path.display().to_string(),
            cause: error.to_string(),
        };
        let spool = Spool::open(&spool_path).map_err(|error| fail(&spool_path, error))?;
        let audit = open_audit(&state.file(AUDIT_FILE))?;
        let waker = Waker::new().map_err(|error| LinkError::Connect { cause: error.to_string() })?;
        let shared = Shared {
            spool,
            sessions: Sessions::new(audit, timers.clone()),
            waker: Arc::new(waker),
            lookups: Threads::new(),
            timers,
            started_ms: clock::unix_ms(),
            started: Instant::now(),
            version: version.to_owned(),
            stopping: AtomicBool::new(false),
            reregister: AtomicBool::new(false),
            redial: AtomicBool::new(false),
            warned: AtomicBool::new(false),
            registered: AtomicBool::new(false),
            settings: Mutex::new(settings),
            target: Mutex::new(target),
            member: Mutex::new(member),
            vitals: Mutex::new(None),
            nonces: Mutex::default(),
            told: Mutex::default(),
            state,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Who answers chats; without it they are refused. (The seed's `SetChatRunner`.)
    pub fn set_chat_runner(&self, runner: Arc<dyn ChatRunner>) {
        self.shared.sessions.set_chat_runner(runner);
    }

    /// Who inspects and diagnoses; without it both are refused. (The seed's `SetDiagnoseRunner`.)
    pub fn set_diagnose_runner(&self, runner: Arc<dyn DiagnoseRunner>) {
        self.shared.sessions.set_diagnose_runner(runner);
    }

    /// Who counts the uses of a model; two places of our own without it. (The seed's `SetConcurrencyLimiter`.)
    pub fn set_concurrency_limiter(&self, limiter: Arc<dyn ConcurrencyLimiter>) {
        self.shared.sessions.set_limiter(limiter);
    }

    /// What heartbeats tell of the host: open alerts, load, memory.
    pub fn set_vitals(&self, vitals: impl FnMut(&mut Heartbeat) + Send + 'static) {
        *lock(&self.shared.vitals) = Some(Box::new(vitals));
    }

    /// Keeps an event until the hub has it; it survives the end of this process. False when it is too large. Never
    /// waits for the network; writes to the disk. (The seed's `SendAlertEvent`.)
    pub fn send_alert_event(&self, event: &Event) -> bool {
        let taken = self.shared.spool.push(event);
        self.shared.waker.wake();
        taken
    }

    /// Other settings from now on: a second `register` tells the hub, and another hub or token is dialled at once.
    pub fn apply(&self, settings: LinkSettings) -> Result<(), LinkError> {
        let shared = &self.shared;
        let target = Target::of(&settings)?;
        let before = lock(&shared.settings).clone();
        let is_other_hub = before.address != settings.address
            || before.ca_file != settings.ca_file
            || before.token != settings.token
            || before.join != settings.join;
        if is_other_hub {
            let member = member_of(&shared.state, &settings)?;
            *lock(&shared.member) = member;
            *lock(&shared.target) = target;
            shared.redial.store(true, Ordering::Release);
        }
        *lock(&shared.settings) = settings;
        shared.reregister.store(true, Ordering::Release);
        shared.waker.wake();
        Ok(())
    }

    /// One life of a connection: dial, register, serve. `Ok` only when the link was stopped. (The seed's `Run`.)
    pub fn run(&self) -> Result<(), LinkError> {
        self.run_once().0
    }

    /// Keeps a connection until [`Link::stop`], with the waits of contract agent-link 3.3. (The seed's `RunForever`.)
    pub fn run_forever(&self) {
        let shared = &self.shared;
        let mut backoff = Backoff::default();
        while !shared.is_stopping() {
            // A panic costs a connection, never the link.
            let (result, lasted) = catch_unwind(AssertUnwindSafe(|| self.run_once())).unwrap_or_else(|_| {
                shared.registered.store(false, Ordering::Release);
                shared.sessions.end_all(Cause::Lost);
                (Err(LinkError::Lost { cause: "internal error".to_owned() }), Duration::ZERO)
            });
            let Err(error) = result else { break };
            if shared.is_stopping() {
                break;
            }
            let wait = backoff.wait(&ended(&error, lasted), chance());
            log::warn!("{error}; next try in {:.0} s", wait.as_secs_f64().max(1.0));
            shared.explain(&error);
            let until = Instant::now() + wait.mul_f64(shared.timers.wait_factor);
            while Instant::now() < until && !shared.is_stopping() && !shared.redial.load(Ordering::Acquire) {
                if let Err(error) = shared.waker.sleep(None, until) {
                    log::error!("wait for the next try: {error}");
                }
            }
        }
        shared.sessions.end_all(Cause::Cancelled);
        shared.sessions.join(shared.timers.farewell);
    }

    /// Ends [`Link::run`] and [`Link::run_forever`]: what waits is sent within two seconds, then comes the farewell.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.waker.wake();
    }

    /// Whether the hub has taken this machine on at this moment.
    pub fn is_registered(&self) -> bool {
        self.shared.registered.load(Ordering::Acquire)
    }

    /// Events that the hub does not have yet.
    pub fn waiting_events(&self) -> usize {
        self.shared.spool.waiting()
    }

    /// This agent's id.
    pub fn agent_id(&self) -> &str {
        self.shared.state.agent_id()
    }

    /// The credential of the moment, for the hub's gateway.
    pub fn token(&self) -> String {
        self.shared.token()
    }

    fn run_once(&self) -> (Result<(), LinkError>, Duration) {
        let shared = &*self.shared;
        shared.redial.store(false, Ordering::Release);
        shared.reregister.store(false, Ordering::Release);
        let mut conn = match Conn::open(shared) {
            Ok(conn) => conn,
            Err(_) if shared.is_stopping() => return (Ok(()), Duration::ZERO),
            Err(error) => return (Err(error), Duration::ZERO),
        };
        shared.registered.store(true, Ordering::Release);
        log::info!("registered at {}", shared.target().address.origin());
        lock(&shared.told).clear();
        let began = Instant::now();
        let ended = conn.serve();
        shared.registered.store(false, Ordering::Release);
        (ended.map_or(Ok(()), Err), began.elapsed())
    }
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(super) fn target(&self) -> Target {
        lock(&self.target).clone()
    }

    pub(super) fn token(&self) -> String {
        lock(&self.member).token.clone()
    }

    /// The pinned key; empty when there is none.
    pub(super) fn hub_key(&self) -> String {
        lock(&self.member).hub_key.clone()
    }

    /// Says what a person can do about it.
    fn explain(&self, error: &LinkError) {
        let asks_as = credential::request_name(&lock(&self.member));
        let advice = error.advice(&self.target().address.origin(), asks_as.as_deref());
        // Once, not at every try.
        let mut told = lock(&self.told);
        if let Some(advice) = advice.filter(|advice| *advice != *told) {
            log::info!("{advice}");
            *told = advice;
        }
    }

    /// Believes the hub, or not; keeps what it gave.
    pub(super) fn accept_hub(&self, answer: &Ack, nonce: &str) -> Result<(), LinkError> {
        let member = lock(&self.member).clone();
        if let Some(next) = credential::accept(&member, answer, self.state.agent_id(), nonce)? {
            self.keep(next);
        }
        Ok(())
    }

    /// A token that replaces the one of the moment, from the next connection on.
    pub(super) fn take_token(&self, token: &str) {
        let mut next = lock(&self.member).clone();
        credential::replace_token(&mut next, token);
        self.keep(next);
    }

    fn keep(&self, next: Membership) {
        // What cannot be stored is not used: after a restart the hub would have forgotten the old token.
        match self.state.store(&next) {
            Ok(()) => *lock(&self.member) = next,
            Err(error) => log::error!("{error}"),
        }
    }

    /// What the hub is told of this machine.
    pub(super) fn register_payload(&self, local_ip: Option<IpAddr>) -> Register {
        let settings = lock(&self.settings).clone();
        let mut labels = settings.labels;
        let hostname = labels.get("from_hostname").cloned().or_else(sys::host_name).unwrap_or_default();
        let found = || local_ip.map(|ip| ip.to_string());
        let ip = labels.get("from_hostip").cloned().or_else(found).unwrap_or_default();
        labels.insert("from_hostname".to_owned(), hostname.clone());
        labels.insert("from_hostip".to_owned(), ip.clone());
        Register {
            hostname,
            ip,
            os: std::env::consts::OS.replace("macos", "darwin"),
            arch: go_arch(std::env::consts::ARCH).to_owned(),
            labels,
            plugins: settings.plugins,
            agent_version: self.version.clone(),
            uptime_sec: i64::try_from(self.started.elapsed().as_secs()).unwrap_or(i64::MAX),
            time: clock::unix_ms(),
            nonce: String::new(),
            features: vec!["metadata".to_owned(), "input_ack".to_owned()],
        }
    }

    pub(super) fn fill_vitals(&self, heartbeat: &mut Heartbeat) {
        // Taken out first: reading the host takes a while.
        let vitals = lock(&self.vitals).take();
        if let Some(mut vitals) = vitals {
            vitals(heartbeat);
            lock(&self.vitals).get_or_insert(vitals);
        }
    }

    /// Remembers a nonce; false when it is known, or when there are too many.
    pub(super) fn nonces_first_seen(&self, nonce: &str, now_ms: i64) -> bool {
        let mut nonces = lock(&self.nonces);
        // A signature counts from a window before its time to a window after it.
        while nonces.front().is_some_and(|(seen, _)| now_ms.saturating_sub(*seen) > 2 * sign::WINDOW_MS) {
            nonces.pop_front();
        }
        if nonces.len() >= NONCES_MAX || nonces.iter().any(|(_, known)| known == nonce) {
            return false;
        }
        nonces.push_back((now_ms, nonce.to_owned()));
        true
    }
}

/// Forwards events to the hub (the seed's `ServerNotifier`).
#[derive(Clone)]
pub struct ServerNotifier {
    link: Link,
}

impl ServerNotifier {
    /// A notifier that hands events to that link.
    pub fn new(link: &Link) -> Self {
        Self { link: link.clone() }
    }
}

impl Notifier for ServerNotifier {
    fn name(&self) -> &'static str {
        "server"
    }

    fn forward(&self, event: &Event) -> bool {
        self.link.send_alert_event(event)
    }
}

fn member_of(state: &StateDir, settings: &LinkSettings) -> Result<Membership, LinkError> {
    let stored = state.membership()?;
    let configured = Configured {
        address: settings.address.text(),
        ca_file: settings.ca_file.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        join: settings.join.as_ref(),
        token: settings.token.as_deref().filter(|token| !token.is_empty()),
    };
    let member = credential::choose(stored.clone(), &configured)?;
    if member != stored {
        state.store(&member)?;
    }
    Ok(member)
}

fn ended(error: &LinkError, lasted: Duration) -> Ended {
    match error {
        LinkError::Ordered { retry_after_sec, .. } => Ended::Ordered { retry_after_sec: *retry_after_sec, lasted },
        LinkError::Lost { .. } => Ended::Lost { lasted },
        LinkError::Status { status: 401 } => Ended::Unauthorized,
        LinkError::NotSetUp => Ended::Waiting,
        LinkError::Rejected { reason } if reason.starts_with("waiting for approval") => Ended::Waiting,
        _ => Ended::Failed,
    }
}

/// Uniform in 0 to 1.
fn chance() -> f64 {
    let mut random = [0_u8; 4];
    match getrandom::fill(&mut random) {
        Ok(()) => f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

/// As the reference's agents name it.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}
