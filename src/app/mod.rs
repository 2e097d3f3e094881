//! The composition root: opens the stores, starts the threads, holds the [`Stopper`], stops everything in order
//! (architecture section 8).
//!
//! Threads of its own: `keeper` (1; expiry, purges, fsync of the event log; ends at the stop) and `store-log`
//! (1; see [`crate::chat::recorder`]).

#[cfg(test)]
mod absent_tests;
mod again;
mod agent;
mod agent_minds;
mod compose;
mod data_dir;
mod keeper;
mod live;
mod logging;
mod minds;
mod plugins;
mod preflight;
mod secret;
mod tls;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::message::{Reply, Req, Response, SseStart, Upgrade};
use crate::api::settings::Settings;
use crate::api::{Server, server};
use crate::auth::cookie::CookieError;
use crate::chat::{ChatError, Engine};
use crate::config::Config;
use crate::http::sse::SseStreams;
use crate::http::{App as HttpApp, HttpServer, HttpSettings, Socket};
use crate::limits;
use crate::llm::{LlmError, Provider};
use crate::rt::{Stop, Stopper, Threads};
use crate::store::{Db, StoreError, whereabouts};
use crate::ws::{AgentSockets, Hub};

pub use agent::{Agent, AgentOptions};
pub use logging::init as init_logging;
pub use preflight::preflight;
pub(crate) use secret::read_or_make as data_secret;

/// What turns have at a stop after requests took all of their time.
const STOP_TURNS_MIN: Duration = Duration::from_secs(1);

/// Why the hub did not start. Each says what to do.
#[derive(Debug)]
pub enum AppError {
    Listen {
        address: String,
        cause: io::Error,
    },
    /// Another hub uses the data directory.
    Locked {
        path: String,
    },
    /// The data directory cannot be made or locked.
    Claim {
        path: String,
        cause: io::Error,
    },
    Secret {
        path: String,
        cause: String,
    },
    WebDir {
        path: String,
        cause: io::Error,
    },
    /// A value of the configuration that only the part it is for could judge.
    Setting {
        reason: String,
    },
    Store(StoreError),
    Chat(ChatError),
    Provider(LlmError),
    Cookie(CookieError),
    Thread(io::Error),
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, cause } => {
                write!(f, "listen on {address}: {cause}; choose another address with --listen")
            }
            Self::Locked { path } => {
                write!(f, "another hub is using {path}; stop it, or choose another directory with --data-dir")
            }
            Self::Claim { path, cause } => write!(f, "use the data directory {path}: {cause}"),
            Self::Secret { path, cause } => write!(f, "read or make the secret {path}: {cause}"),
            Self::WebDir { path, cause } => write!(f, "api.web_dir {path}: {cause}"),
            Self::Setting { reason } => f.write_str(reason),
            Self::Store(cause) => write!(f, "{cause}"),
            Self::Chat(cause) => write!(f, "finish interrupted turns: {cause}"),
            Self::Provider(cause) => write!(f, "set up the model provider: {cause}"),
            Self::Cookie(CookieError::Secret) => {
                write!(f, "api.auth.session_secret must be hex of at least 32 bytes")
            }
            Self::Cookie(_) => write!(f, "set up login sessions"),
            Self::Thread(cause) => write!(f, "start a thread: {cause}"),
        }
    }
}

impl std::error::Error for AppError {}

impl From<StoreError> for AppError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A running hub.
pub struct App {
    stopper: Option<Stopper>,
    /// The same socket as that of `http`: it goes on to listen while the process becomes another.
    listener: Option<TcpListener>,
    /// What that was made for.
    listen: String,
    http: HttpServer,
    hub: Arc<Hub>,
    agents: Option<Arc<AgentSockets>>,
    sse: Arc<SseStreams>,
    server: Arc<Server>,
    engine: Engine,
    db: Arc<Db>,
    threads: Threads,
    recorder: Threads,
    /// Tells commands where the hub is, while it runs.
    whereabouts: Option<std::fs::File>,
    db_path: PathBuf,
    /// Held while the hub runs: one hub per data directory.
    _lock: std::fs::File,
}

/// What a start has to tell.
pub struct Started {
    pub app: App,
    pub address: SocketAddr,
    /// The setup PIN, while nobody has set the hub up.
    pub pin: Option<String>,
}

impl App {
    /// Opens, recovers and starts everything; requests are answered when this returns.
    pub fn start(config: Config) -> Result<Started, AppError> {
        compose::start(config, None)
    }

    /// The same with a model that the caller brings along, for programs that embed the hub and for benches.
    pub fn start_with(config: Config, provider: Arc<dyn Provider>) -> Result<Started, AppError> {
        compose::start(config, Some(provider))
    }

    /// The open WebSockets.
    pub fn ws_hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The configuration of now, and the way to change it.
    pub fn settings(&self) -> &Arc<dyn Settings> {
        &self.server.ctx().deps.settings
    }

    /// What happens when somebody asks for a restart; the first call counts. Without one the route says that it cannot.
    /// Called on the thread of the request: must not wait.
    pub fn on_restart(&self, begin: impl Fn() + Send + Sync + 'static) {
        let _ = self.server.ctx().restart.set(Box::new(begin)); // set once, by the command
    }

    /// Lets clients go without losing a request: no new connections are taken (they wait in the socket), each answer
    /// says that it is the last, those between two requests get a moment for one more, and what is in flight ends while
    /// everything behind it still works. Turns may go on for [`limits::RESTART_DRAIN`] in all.
    fn let_clients_go(&self, is_stop: &mut dyn FnMut() -> bool) {
        let deadline = Instant::now() + limits::RESTART_DRAIN;
        log::info!("restarting, when what is in flight has ended");
        self.http.begin_drain();
        // Streams of turns are no longer HTTP's: they end with their turns.
        while !(self.http.has_drained(Duration::from_millis(50)) && self.engine.is_idle()) {
            if Instant::now() >= deadline || is_stop() {
                return;
            }
            if self.http.has_drained(Duration::ZERO) {
                // Held by us: nothing but the time ends this.
                let (_held, never) = crossbeam_channel::bounded::<()>(0);
                let _ = never.recv_timeout(Duration::from_millis(20));
            }
        }
    }

    /// Stops in order, and becomes the same program with the same address. Clients that come meanwhile wait in the
    /// socket. `is_stop` says, until the last moment, that the end is wanted instead; None then.
    pub fn restart(mut self, mut is_stop: impl FnMut() -> bool) -> Option<io::Error> {
        self.let_clients_go(&mut is_stop);
        let (listener, listen) = (self.listener.take(), self.listen.clone());
        self.stop();
        if is_stop() {
            return None;
        }
        Some(match listener {
            Some(listener) => again::become_new(&listener, &listen),
            None => io::Error::from(io::ErrorKind::NotConnected),
        })
    }

    /// Stops in order, within [`limits::STOP_TOTAL`]; late threads are named in the log.
    pub fn stop(mut self) {
        let deadline = Instant::now() + limits::STOP_TOTAL;
        let left = || deadline.saturating_duration_since(Instant::now());
        // Tool servers need their share to end well, however long the rest takes.
        let before_servers = || left().saturating_sub(limits::MCP_STOP);
        log::info!("stopping");
        // Whoever comes from now on is turned away at once, unless a restart holds the socket.
        drop(self.listener.take());
        drop(self.stopper.take());
        let servers = self.server.ctx().deps.lifecycle.clone();
        if let Some(servers) = &servers {
            // Requests wait for them.
            servers.end_changes();
        }
        if let Some(fleet) = &self.server.ctx().deps.fleet {
            fleet.shutdown();
        }
        let mut late = self.hub.shutdown(Duration::from_millis(1500));
        if let Some(agents) = &self.agents {
            late.extend(agents.join(Duration::from_millis(1500)));
        }
        late.extend(self.http.stop(limits::STOP_DRAIN.min(before_servers().saturating_sub(STOP_TURNS_MIN))));
        late.extend(self.engine.stop(before_servers().min(Duration::from_secs(2))));
        // Turns have ended: nobody calls a tool any more. The servers end while the rest does.
        if let Some(servers) = &servers {
            servers.begin_stop();
        }
        late.extend(self.sse.join(left().min(Duration::from_millis(500))));
        late.extend(self.server.ctx().lane.stop(left().min(Duration::from_millis(500))));
        late.extend(self.threads.join_all(left().min(Duration::from_secs(1))));
        if let Some(scheduler) = &self.server.ctx().deps.scheduler {
            late.extend(scheduler.join(left().min(Duration::from_secs(1))));
        }
        if let Some(provider) = &self.server.ctx().deps.oidc_provider {
            late.extend(provider.stop(left().min(Duration::from_millis(500))));
        }
        if let Some(gateway) = &self.server.ctx().deps.gateway {
            late.extend(gateway.join(left().min(Duration::from_millis(500))));
        }
        if let Some(alerts) = &self.server.ctx().deps.alerts {
            late.extend(alerts.join(left().min(Duration::from_millis(500))));
        }
        late.extend(self.server.ctx().deps.notify.stop(left().min(Duration::from_secs(1))));
        if let Some(servers) = &servers {
            late.extend(servers.stop(left().clamp(limits::MCP_STOP_MIN, limits::MCP_STOP)));
        }
        let streams = self.engine.streams();
        streams.stop();
        late.extend(self.recorder.join_all(left().max(Duration::from_millis(200))));
        if let Err(error) = streams.log.sync(&mut None) {
            log::error!("sync the event log: {error}");
        } else if let Err(error) = compose::clean_stop(&self) {
            log::error!("record the clean stop: {error}");
        }
        if self.whereabouts.take().is_some() {
            whereabouts::take_back(&self.db_path);
        }
        if !late.is_empty() {
            log::warn!("late at the stop: {}", late.join(", "));
        }
        log::info!("stopped");
    }
}

/// What HTTP calls.
struct Above {
    server: Arc<Server>,
    hub: Arc<Hub>,
    agents: Option<Arc<AgentSockets>>,
    sse: Arc<SseStreams>,
}

impl HttpApp for Above {
    fn handle(&self, req: &Req) -> Reply {
        self.server.handle(req)
    }

    fn has_large_body(&self, head: &Req) -> bool {
        self.server.has_large_body(head)
    }

    fn allow_body(&self, head: &Req, length: usize) -> Result<(), Response> {
        self.server.allow_body(head, length)
    }

    fn upgrade(&self, socket: Socket, early: Vec<u8>, start: Upgrade) {
        match (start, &self.agents) {
            (Upgrade::Client(start), _) => self.hub.open(socket.stream, early, start),
            (Upgrade::Agent(start), Some(agents)) => agents.open(socket.stream, early, start),
            (Upgrade::Agent(_), None) => {}
        }
    }

    fn stream(&self, socket: Socket, start: SseStart) {
        self.sse.open(socket, start, self.server.common_headers("/api/"));
    }

    fn common_headers(&self, path: &str) -> &[u8] {
        self.server.common_headers(path)
    }
}

/// Starts HTTP above a server; also for tests and benches that bring their own parts.
pub fn serve(
    listener: TcpListener,
    config: &Config,
    server: &Arc<Server>,
    hub: &Arc<Hub>,
    agents: Option<&Arc<AgentSockets>>,
    sse: &Arc<SseStreams>,
) -> io::Result<HttpServer> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let workers = match config.api.http_workers {
        0 => (cores * 2).max(4),
        workers => workers,
    };
    let settings = HttpSettings {
        connections_max: config.api.http_connections_max,
        workers,
        body_bytes_max: config.api.body_bytes_max,
        head_timeout: config.api.head_timeout,
        body_timeout: config.api.body_timeout,
        idle_timeout: config.api.idle_timeout,
    };
    let above =
        Above { server: Arc::clone(server), hub: Arc::clone(hub), agents: agents.cloned(), sse: Arc::clone(sse) };
    HttpServer::start(listener, settings, Arc::new(above), server.ctx().deps.tls.clone())
}

/// Everything between the stores and the sockets, without a listener.
pub struct Parts {
    pub server: Arc<Server>,
    pub hub: Arc<Hub>,
    pub agents: Option<Arc<AgentSockets>>,
    pub sse: Arc<SseStreams>,
    pub engine: Engine,
}

/// Makes server, hub and event streams over their dependencies.
pub fn assemble(deps: server::Deps, stop: &Stop) -> io::Result<Parts> {
    let engine = deps.engine.clone();
    let max = match deps.settings.current().api.websocket_connections_max {
        0 => limits::WS_CONNECTIONS_MAX,
        max => max,
    };
    let hub = Arc::new(Hub::new(engine.clone(), max));
    let server = Arc::new(Server::new(deps)?);
    let checking = Arc::clone(&server);
    let is_valid = move |credential: &crate::auth::Credential| checking.ctx().auth.is_valid(credential).unwrap_or(true);
    let sse = Arc::new(SseStreams::new(stop.clone(), Arc::new(is_valid)));
    let (weak_hub, conversations) = (Arc::downgrade(&hub), engine.clone());
    engine.observe(Box::new(move |finished| {
        let Some(hub) = weak_hub.upgrade().filter(|hub| hub.conn_count() > 0) else { return };
        if let Ok(Some(owner)) = conversations.conversations().owner(&finished.conversation_id) {
            hub.activity(&finished.conversation_id, &owner, &finished.agent, &finished.origin);
        }
    }));
    if let Some(alerts) = &server.ctx().deps.alerts {
        let hub = Arc::downgrade(&hub);
        let notify = Arc::clone(&server.ctx().deps.notify);
        alerts.observe(Box::new(move |frame| {
            notify.changed();
            if let Some(hub) = hub.upgrade().filter(|hub| hub.conn_count() > 0) {
                hub.about_machines(frame);
            }
        }));
    }
    let agents = server.ctx().deps.fleet.as_ref().map(|fleet| {
        let weak_hub = Arc::downgrade(&hub);
        let notify = Arc::clone(&server.ctx().deps.notify);
        fleet.observe(Box::new(move |frame| {
            notify.changed();
            if let Some(hub) = weak_hub.upgrade() {
                hub.about_machines(frame);
            }
        }));
        Arc::new(AgentSockets::new(Arc::clone(fleet)))
    });
    Ok(Parts { server, hub, agents, sse, engine })
}
