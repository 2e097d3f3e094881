//! The agent: how link, checks, notifications and the runners of sessions are put together, reloaded and stopped.
//!
//! Threads of its own: `link` (1; owns the socket, see [`crate::fleet::link`]) and `vitals` (1; reads the host for
//! heartbeats, because a disk may take its time). Both end at the stop.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded, select};

use crate::app::agent_minds;
use crate::checks::{self, Engine, Global, Plan};
use crate::config::AgentFile;
use crate::diag::{HostRoot, Reading, Vitals};
use crate::fleet::ServerNotifier;
use crate::fleet::link::{HubAddress, JoinCode, Link, LinkSettings, Membership, StateDir, Timers};
use crate::fleet::wire::Heartbeat;
use crate::limits;
use crate::notify::{self, AgentSituation, Dispatcher, HUB_TOPIC, MemoryQueue, Notifier};
use crate::rt::{Stop, Stopper, Threads, lock};
use crate::sys;

/// How long the parts may take to end, the farewell to the hub included.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Open alerts and cursors of the checks.
const CHECKS_FILE: &str = "checks.json";
/// What a first start lacks.
const NO_HUB: &str = "no hub is known: give --hub URL and --join CODE (made by `holt machines join` on the hub), or set \
                      [server] address in agent.toml";
/// Readings between two moments of giving memory back: ten minutes of heartbeats.
const READINGS_PER_TIDY: u64 = 20;
/// What the first reading measures the processors over: it is there for the first heartbeat, three seconds from now.
const FIRST_WINDOW: Duration = Duration::from_secs(2);
/// What labels call this machine's name and address (contract agent-link 6.1).
const HOST_NAME: &str = "from_hostname";
const HOST_IP: &str = "from_hostip";

/// Options of the command line; they win over the file, which wins over what is stored.
#[derive(Clone, Default)]
pub struct AgentOptions {
    pub hub: Option<String>,
    /// `hj_..._...`.
    pub join: Option<String>,
    pub token: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub state_dir: Option<PathBuf>,
}

/// A running agent.
pub struct Agent {
    /// The file that is in force.
    file: AgentFile,
    options: AgentOptions,
    state_path: PathBuf,
    agent_id: String,
    /// The hub that was stored, for starts and reloads that name none.
    stored: Membership,
    link: Option<Link>,
    parts: Parts,
    stopper: Option<Stopper>,
    stop: Stop,
    threads: Threads,
}

/// What a reload makes anew.
#[derive(Default)]
struct Parts {
    /// Also asked for the number of open alerts.
    engine: Arc<Mutex<Option<Engine>>>,
    dispatcher: Option<(Arc<Dispatcher>, Stopper)>,
}

impl Agent {
    /// Starts everything. The error is one line that says what to do.
    pub fn start(file: &AgentFile, options: AgentOptions) -> Result<Self, String> {
        sys::tune_allocator();
        let state_path = options.state_dir.clone().unwrap_or_else(|| file.state_dir());
        let state = StateDir::open(&state_path).map_err(text)?;
        let (stored, agent_id) = (state.membership().map_err(text)?, state.agent_id().to_owned());
        let (stopper, stop) = Stopper::new();
        let (global, plan) = plan(file)?;
        let settings = link_settings(file, &options, &stored, &global, &plan)?;
        let link = match settings {
            Some(settings) => {
                let version = concat!("holt-", env!("CARGO_PKG_VERSION"));
                let link = Link::new(state, settings.clone(), version, Timers::default()).map_err(text)?;
                agent_minds::plug_in(&link, &settings, file).map_err(text)?;
                Some(link)
            }
            None if file.notify.is_empty() => return Err(NO_HUB.to_owned()),
            None => None,
        };
        let mut agent = Self {
            file: file.clone(),
            options,
            state_path,
            agent_id,
            stored,
            link,
            parts: Parts::default(),
            stopper: Some(stopper),
            stop,
            threads: Threads::new(),
        };
        agent.start_parts(file, global, plan)?;
        if let Some(link) = &agent.link {
            agent.watch_vitals(link)?;
            let running = link.clone();
            agent.threads.spawn("link", limits::WORKER_STACK_BYTES, move || running.run_forever()).map_err(text)?;
        }
        log::info!("agent {}, state in {}", agent.agent_id, agent.state_path.display());
        sys::release_code_pages();
        Ok(agent)
    }

    /// Takes a changed file: checks and notifications begin anew, the hub is told. What is refused leaves everything
    /// as it was.
    pub fn reload(&mut self, file: &AgentFile) -> Result<(), String> {
        let (global, plan) = plan(file)?;
        let settings = link_settings(file, &self.options, &self.stored, &global, &plan)?;
        self.stop_parts();
        if let Err(error) = self.start_parts(file, global, plan) {
            let before = self.file.clone();
            let (global, plan) = self::plan(&before)?;
            self.start_parts(&before, global, plan)?;
            return Err(error);
        }
        self.file = file.clone();
        match (&self.link, settings) {
            (Some(link), Some(settings)) => {
                agent_minds::plug_in(link, &settings, file).map_err(text)?;
                link.apply(settings).map_err(text)?;
            }
            (None, None) => {}
            _ => log::warn!("whether there is a link changes at the next start only"),
        }
        log::info!("settings are read again");
        Ok(())
    }

    /// Ends everything: checks first, then the farewell to the hub.
    pub fn stop(mut self) {
        self.stop_parts();
        if let Some(link) = &self.link {
            link.stop();
        }
        self.stopper = None;
        let late = self.threads.join_all(STOP_TIMEOUT);
        if !late.is_empty() {
            log::warn!("still running: {}", late.join(", "));
        }
    }

    fn start_parts(&mut self, file: &AgentFile, global: Global, plan: Plan) -> Result<(), String> {
        let mut notifiers: Vec<Arc<dyn Notifier>> = Vec::new();
        if let Some(link) = &self.link {
            notifiers.push(Arc::new(ServerNotifier::new(link)));
        }
        if !file.notify.is_empty() {
            let (stopper, stop) = Stopper::new();
            let name = sys::host_name().unwrap_or_default();
            let setup = notify::Setup {
                channels: file.notify.clone(),
                known: Vec::new(),
                queue: Arc::new(MemoryQueue::new()),
                situation: Arc::new(AgentSituation::new(&self.agent_id, &name)),
                timezone: String::new(),
                external_url: None,
                secret: None,
                topic: format!("{HUB_TOPIC}/{}", self.agent_id),
            };
            let dispatcher = Arc::new(Dispatcher::start(setup, &stop)?);
            notifiers.push(Arc::clone(&dispatcher) as Arc<dyn Notifier>);
            self.parts.dispatcher = Some((dispatcher, stopper));
        }
        let setup = checks::Setup {
            plan,
            root: HostRoot::system(),
            machine: Arc::new(move || machine_labels(&global.labels)),
            state_file: self.state_path.join(CHECKS_FILE),
            notifiers,
        };
        let engine = Engine::start(setup).map_err(text)?;
        *lock(&self.parts.engine) = Some(engine);
        Ok(())
    }

    fn stop_parts(&mut self) {
        let engine = lock(&self.parts.engine).take();
        let mut late = engine.map(|mut engine| engine.stop(STOP_TIMEOUT)).unwrap_or_default();
        if let Some((dispatcher, stopper)) = self.parts.dispatcher.take() {
            drop(stopper);
            late.extend(dispatcher.stop(STOP_TIMEOUT));
        }
        if !late.is_empty() {
            log::warn!("still running: {}", late.join(", "));
        }
    }

    /// Heartbeats carry the reading that the one before asked for: the link never waits for a disk.
    fn watch_vitals(&self, link: &Link) -> Result<(), String> {
        let latest = Arc::new(Mutex::new(Reading::default()));
        let (ask_tx, ask_rx) = bounded::<()>(1);
        let (kept, stop) = (Arc::clone(&latest), self.stop.clone());
        self.threads
            .spawn("vitals", limits::PUMP_STACK_BYTES, move || {
                let mut vitals = Vitals::new(HostRoot::system());
                let mut n_readings = 0_u64;
                if stop.signal().recv_timeout(FIRST_WINDOW) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                loop {
                    select! {
                        recv(ask_rx) -> asked => if asked.is_err() { return },
                        recv(stop.signal()) -> _ => return,
                    }
                    let reading = vitals.read();
                    *lock(&kept) = reading;
                    n_readings += 1;
                    if n_readings == 2 || n_readings.is_multiple_of(READINGS_PER_TIDY) {
                        // Everything that only a start needs was used by now; later, what a session needed.
                        sys::trim_allocator();
                        sys::release_code_pages();
                    }
                }
            })
            .map_err(text)?;
        // The first reading is there when the first heartbeat is due.
        let _ = ask_tx.try_send(());
        let engine = Arc::clone(&self.parts.engine);
        link.set_vitals(move |heartbeat: &mut Heartbeat| {
            let open = lock(&engine).as_ref().map_or(0, Engine::active_alerts);
            heartbeat.active_alerts = i64::try_from(open).unwrap_or(i64::MAX);
            let reading = *lock(&latest);
            heartbeat.cpu_pct = reading.cpu_pct;
            heartbeat.mem_pct = reading.mem_pct;
            heartbeat.disk_pct = reading.disk_pct;
            heartbeat.load1 = reading.load1;
            heartbeat.temp_c = reading.temp_c;
            heartbeat.host_uptime_sec = reading.host_uptime_sec;
            // Full means that the reading of the moment is still being taken.
            let _ = ask_tx.try_send(());
        });
        Ok(())
    }
}

/// What is checked. The error names the file.
fn plan(file: &AgentFile) -> Result<(Global, Plan), String> {
    let global = Global::new(&file.global);
    let plan = global.and_then(|global| Ok((Plan::new(&file.checks, global.interval)?, global)));
    plan.map(|(plan, global)| (global, plan)).map_err(|error| format!("config {}: {error}", file.path.display()))
}

/// Where to connect, or None when nobody says.
fn link_settings(
    file: &AgentFile,
    options: &AgentOptions,
    stored: &Membership,
    global: &Global,
    plan: &Plan,
) -> Result<Option<LinkSettings>, String> {
    let typed = options.hub.clone().or_else(|| Some(file.address.clone()).filter(|address| !address.is_empty()));
    let address = typed.unwrap_or_else(|| stored.address.clone());
    if address.is_empty() || !file.is_linked {
        return Ok(None);
    }
    let stored_ca = Some(PathBuf::from(&stored.ca_file)).filter(|path| !path.as_os_str().is_empty());
    Ok(Some(LinkSettings {
        address: HubAddress::parse(&address).map_err(text)?,
        ca_file: options.ca_file.clone().or_else(|| file.ca_file.clone()).or(stored_ca),
        token: options.token.clone().or_else(|| file.token.clone()),
        join: options.join.as_deref().map(JoinCode::parse).transpose().map_err(text)?,
        labels: machine_labels(&global.labels),
        plugins: plan.plugins(),
    }))
}

/// The labels of this machine: the configured ones, its name and its address as they are now.
fn machine_labels(configured: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut labels = configured.clone();
    let (host_name, address) = (sys::host_name().unwrap_or_default(), own_address().unwrap_or_default());
    checks::expand_labels(&mut labels, &host_name, &address);
    labels.entry(HOST_NAME.to_owned()).or_insert(host_name);
    labels.entry(HOST_IP.to_owned()).or_insert(address);
    labels
}

/// The address that this machine uses towards others. Sends nothing: connecting a datagram socket only asks the routing
/// table; the target is an address of documentation.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then(|| ip.to_string())
}

fn text(error: impl Display) -> String {
    error.to_string()
}
