//! How the parts are put together, in the order that their needs dictate.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crossbeam_channel::bounded;

use crate::agents::Agents;
use crate::agents::remote::RemoteAgents;
use crate::api::WebHandler;
use crate::api::server::Deps;
use crate::api::tools_oauth::CALLBACK_PATH;
use crate::app::again::inherited;
use crate::app::live::{self, Live, engine_settings};
use crate::app::minds::{Maker, Minds};
use crate::app::{App, AppError, Parts, Started, assemble, data_dir, data_secret, keeper, plugins, serve, tls};
use crate::audit::AuditLog;
use crate::auth::SessionManager;
use crate::auth::cookie::key_of;
use crate::auth::oidc::OidcProvider;
use crate::chat::Engine;
use crate::chat::recorder::{self, Retention};
use crate::chat::replay::ReplayStore;
use crate::chat::stream::Streams;
use crate::config::{Config, ConfigWriter};
use crate::costs::{self, Budgets, cost_tool};
use crate::diag::{HostRoot, host_tools};
use crate::fleet::hub::alerts::{Alerts, Teller};
use crate::fleet::hub::gateway::{self, Gateway};
use crate::fleet::hub::{Fleet, FleetParts, MachinesTool};
use crate::fleet::sign::HubKey;
use crate::llm::{Catalog, Provider};
use crate::mcp::oauth::{OAuthDeps, PendingMgr, TokenStore};
use crate::notify::{self, Dispatcher, HubSituation, Notice};
use crate::rt::order::gather;
use crate::rt::{Stop, Stopper, Threads};
use crate::sched::{self, ChatLauncher, Scheduler, SystemClock};
use crate::skills::{Journal, Skills, skill_tools};
use crate::store::{
    ConversationStore, Db, EventLog, KeyStore, KvLimits, KvStore, NoticeStore, SessionStore, StoreError, TurnStore,
    meta,
};
use crate::tools::builtin::{ScheduleDesk, ServerAdmin};
use crate::tools::servers::ToolServers;
use crate::tools::{Tool, builtin, kv_tools};
use crate::web::{DirectoryPage, EmbeddedPage};
use crate::{limits, sys};

pub(super) fn start(config: Config, provider: Option<Arc<dyn Provider>>) -> Result<Started, AppError> {
    sys::tune_allocator();
    sys::raise_descriptor_limit();
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    // First, so that a second hub on the same address fails before it touches anything.
    let listener = match inherited(&config) {
        Some(listener) => listener,
        None => listen(&config.api.listen)?,
    };
    let tls = tls::start(&config)?;
    // Before the files are opened: whoever holds it may be about to replace them.
    let data_lock = data_dir::lock(&config)?;
    let db = Arc::new(Db::open(&config.db_path)?);
    let config = Arc::new(config);
    let (stopper, stop) = Stopper::new();
    let recorder = Threads::new();
    let kv_store = Arc::new(kv_store(&config, &db));
    let budgets = Arc::new(Budgets::new(Arc::clone(&db), costs::Settings::from_config(&config))?);
    let skills = Arc::new(Skills::default());
    let journal = Arc::new(Journal::new(Arc::clone(&db), Arc::clone(&skills)));
    let machines = Arc::new(MachinesTool::new(&db, &config.fleet.access));
    let mut tools = built_in_tools(&db, &kv_store, &budgets, &machines);
    tools.extend(skill_tools(&skills, &journal));
    let names = taken_names(&tools);
    let servers = ToolServers::new(config.mcp.clone(), &config.tools, config.source.env().clone(), names);
    let audit = Arc::new(AuditLog::new(Arc::clone(&db), config.audit.retention, config.audit.rows_max));
    let writer = Arc::new(ConfigWriter::new(config.config_path.clone()));
    let admin = ServerAdmin { servers: servers.clone(), audit: Arc::clone(&audit) };
    tools.extend(builtin::server_tools(&admin));
    let desk = Arc::new(ScheduleDesk::new(&audit, &db));
    tools.extend(builtin::schedule_tools(&desk));
    let (plugins, browser) = plugins::start(&config, &admin, &mut tools);
    let maker = Maker { brought: provider, tools, source: Arc::new(servers.clone()), skills };
    let live = Arc::new(Live::new(&config, &writer, maker, &budgets));
    let _ = machines.settings.set(Arc::clone(&live) as Arc<dyn sched::Changes>); // only here
    journal.put_schedules_back_by(Arc::clone(&live) as Arc<dyn sched::Changes>);
    let Minds { agents, providers, gateway: routers } =
        live.minds().map_err(|error| AppError::Setting { reason: error.to_string() })?;
    let engine = engine(&config, &db, &recorder, &stop, agents, &budgets)?;
    let notify = notify_people(&config, &db, &stop)?;
    tell_of_approvals(&engine, &notify);
    let alerts = Alerts::start(&db, Arc::clone(&notify) as Arc<dyn Teller>, stop.clone()).map_err(AppError::Thread)?;
    let fleet = fleet(&config, &db, &audit, &alerts, &stop)?;
    engine.set_remote(Arc::clone(&fleet) as Arc<dyn RemoteAgents>);
    engine.recover().map_err(AppError::Chat)?;
    let key_store = Arc::new(KeyStore::new(Arc::clone(&db)));
    let gateway = gateway(&config, routers, &budgets, &stop)?;
    let mut deps = deps(&db, &key_store, kv_store, admin, engine, notify, journal, &live)?;
    deps.cost_tracker = Some(budgets);
    plugins::write_by(&servers, &live);
    (deps.plugins, deps.browser) = (Some(Arc::clone(&plugins)), browser);
    let catalog = Arc::new(Catalog::new(providers)); // all agents share them
    deps.model_lister = Some(Arc::clone(&catalog));
    deps.model_detail_lister = Some(Arc::clone(&catalog));
    (deps.alerts, deps.fleet, deps.gateway) = (Some(alerts), Some(fleet), gateway);
    deps.oauth = oauth(&config, &db, &listener)?;
    let (gateway, notify) = (deps.gateway.clone(), Arc::clone(&deps.notify));
    let again = listener.try_clone().map_err(AppError::Thread)?;
    let scheduler = scheduler(&config, &db, &deps.engine, &deps.notify, &stop);
    (deps.scheduler, deps.tls) = (Some(Arc::clone(&scheduler)), tls.clone());
    let Parts { server, hub, agents, sse, engine } = assemble(deps, &stop).map_err(AppError::Thread)?;
    live.set_parts(live::Parts {
        engine: engine.clone(),
        catalog: Some(catalog),
        gateway,
        notify,
        servers,
        plugins,
        server: Arc::downgrade(&server),
        hub: Arc::downgrade(&hub),
        scheduler: Arc::clone(&scheduler),
        tls,
    });
    let _ = desk.parts.set((Arc::clone(&scheduler), Arc::clone(&live) as Arc<dyn sched::Changes>)); // only here
    let pin = server.ctx().setup.begin(has_credential(&config))?;
    let threads = Threads::new();
    let work = keeper::Keeper::new(Arc::clone(&server), Arc::clone(&hub), engine.clone(), stop.clone());
    threads.spawn("keeper", limits::WORKER_STACK_BYTES, move || work.run()).map_err(AppError::Thread)?;
    let http = serve(listener, &config, &server, &hub, agents.as_ref(), &sse).map_err(AppError::Thread)?;
    let address = http.address();
    // Last: what fails before leaves no child behind, and requests are answered first.
    start_servers(&server.ctx().deps);
    scheduler.apply(&sched::Changes::config(&*live).schedules)?;
    sys::release_code_pages();
    let app = App {
        stopper: Some(stopper),
        listener: Some(again),
        listen: config.api.listen.clone(),
        http,
        hub,
        agents,
        sse,
        server,
        engine,
        db,
        threads,
        recorder,
        whereabouts: data_dir::tell_whereabouts(&config, address),
        db_path: config.db_path.clone(),
        _lock: data_lock,
    };
    Ok(Started { app, address, pin })
}

fn kv_store(config: &Config, db: &Arc<Db>) -> KvStore {
    let limits = KvLimits { keys_max: config.kv.keys_max, value_bytes_max: config.kv.value_bytes_max };
    KvStore::new(Arc::clone(db), limits)
}

/// With a provider people log in through it: nobody may come and make the first key (W-2).
fn has_credential(config: &Config) -> bool {
    !config.auth.keys.is_empty() || config.auth.password_hash.is_some() || config.auth.oidc.is_some()
}

/// Tool servers, and what logins need of others. A server that becomes another takes what was allowed for it along.
fn start_servers(deps: &Deps) {
    if let Some(provider) = &deps.oidc_provider {
        provider.warm_up();
    }
    let Some(servers) = &deps.lifecycle else { return };
    if let Some(oauth) = &deps.oauth {
        servers.set_oauth(oauth.clone());
    }
    let approvals = Arc::clone(deps.engine.approvals());
    servers.on_replaced(move |name| {
        if let Err(error) = approvals.forget_server(name) {
            log::error!("forget what was allowed for tool server {name}: {error}");
        }
    });
    builtin::record_revocations(servers, &deps.audit);
    servers.start();
}

/// After everything has ended: no numbers are promised any more, and both files are whole.
pub(super) fn clean_stop(app: &App) -> Result<(), StoreError> {
    if let Some(keys) = &app.server.ctx().deps.key_store {
        keys.flush_touched()?;
    }
    if let Some(store) = &app.server.ctx().deps.sessions.store {
        store.close()?;
    }
    app.server.ctx().deps.audit.flush(true);
    TurnStore::new(Arc::clone(&app.db)).release_reservations()?;
    app.db.checkpoint()
}

fn listen(address: &str) -> Result<TcpListener, AppError> {
    // `:8080` is all interfaces: IPv6 where there is any, which takes IPv4 along.
    let candidates: Vec<String> = match address.strip_prefix(':') {
        Some(port) => vec![format!("[::]:{port}"), format!("0.0.0.0:{port}")],
        None => vec![address.to_owned()],
    };
    let mut failure = None;
    for candidate in &candidates {
        match TcpListener::bind(candidate.as_str()) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = Some(error),
        }
    }
    let cause = failure.unwrap_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput));
    Err(AppError::Listen { address: address.to_owned(), cause })
}

fn engine(
    config: &Config,
    db: &Arc<Db>,
    recorder: &Threads,
    stop: &Stop,
    agents: Agents,
    budgets: &Arc<Budgets>,
) -> Result<Engine, AppError> {
    let turns = Arc::new(TurnStore::new(Arc::clone(db)));
    let (log, epoch) = EventLog::open(&config.db_path.with_file_name("events.db"))?;
    adopt_epoch(db, &turns, &epoch)?;
    let (recorder_tx, recorder_rx) = bounded(limits::LOG_QUEUE);
    let streams = Arc::new(Streams {
        replay: ReplayStore::new(config.api.replay_buffer_ttl),
        log: log.reader(),
        epoch,
        boot_id: sys::boot_id().unwrap_or_else(|| "unknown".to_owned()),
        turns: Arc::clone(&turns),
        recorder_tx,
        commits: AtomicU64::new(0),
    });
    let retention = Retention {
        age_max_ms: i64::try_from(config.streams.log_age_max.as_millis()).unwrap_or(i64::MAX),
        bytes_max: config.streams.log_bytes_max,
    };
    let counted = Arc::clone(&streams);
    recorder
        .spawn("store-log", limits::WORKER_STACK_BYTES, move || {
            recorder::run(log, &recorder_rx, retention, &counted.commits);
        })
        .map_err(AppError::Thread)?;
    let settings = engine_settings(config);
    let conversations = ConversationStore::new(Arc::clone(db));
    Ok(Engine::new(Arc::clone(db), Arc::clone(budgets), agents, conversations, turns, streams, settings, stop.clone()))
}

/// The log's epoch and ours must agree: another one means that the stored history was lost or replaced, and with it
/// the numbering.
fn adopt_epoch(db: &Db, turns: &TurnStore, epoch: &str) -> Result<(), StoreError> {
    let known = db.read(|conn| meta::get(conn, meta::EPOCH))?;
    if known.as_deref() == Some(epoch) {
        return Ok(());
    }
    if known.is_some() {
        log::warn!("the event log is a new one: clients are told that what they missed is gone");
    }
    turns.forget_numbering()?;
    db.write(|tx| meta::set(tx, meta::EPOCH, epoch))
}

/// The machines, and what they know the hub by.
fn fleet(
    config: &Config,
    db: &Arc<Db>,
    audit: &Arc<AuditLog>,
    alerts: &Arc<Alerts>,
    stop: &Stop,
) -> Result<Arc<Fleet>, AppError> {
    let key =
        HubKey::read_or_make(&config.data_dir).map_err(|error| AppError::Setting { reason: error.to_string() })?;
    let fleet = Fleet::new(FleetParts {
        db: Arc::clone(db),
        config: config.fleet.clone(),
        audit: Arc::clone(audit),
        alerts: Arc::clone(alerts),
        key,
        stop: stop.clone(),
    })?;
    Ok(Arc::new(fleet))
}

/// The gateway to models for machines; None when it is switched off.
fn gateway(
    config: &Config,
    routers: Option<gateway::Routers>,
    budgets: &Arc<Budgets>,
    stop: &Stop,
) -> Result<Option<Arc<Gateway>>, AppError> {
    let Some(routers) = routers else { return Ok(None) };
    let setup =
        gateway::Setup { routers, budgets: Arc::clone(budgets), tokens_per_day: config.fleet.gateway.tokens_per_day };
    Gateway::start(setup, stop.clone()).map(Some).map_err(AppError::Thread)
}

/// What every agent can do inside the hub, whatever the configuration says.
fn built_in_tools(
    db: &Arc<Db>,
    kv: &Arc<KvStore>,
    budgets: &Arc<Budgets>,
    machines: &Arc<MachinesTool>,
) -> Vec<Arc<dyn Tool>> {
    let mut tools = host_tools(HostRoot::system());
    tools.extend(kv_tools(kv));
    tools.push(cost_tool(budgets));
    tools.push(builtin::conversation_search(Arc::clone(db)));
    tools.push(Arc::clone(machines) as Arc<dyn Tool>);
    tools
}

/// Names that tools of servers must not have: of these, and of those that are made later.
fn taken_names(tools: &[Arc<dyn Tool>]) -> Vec<String> {
    let late = builtin::LATE_NAMES.iter().map(|&name| name.to_owned());
    gather(tools.iter().map(|tool| tool.spec().name.clone()).chain(late))
}

/// What cookies, buttons and secrets at rest are made with.
fn hub_secret(config: &Config) -> Result<String, AppError> {
    match &config.auth.session_secret {
        Some(secret) => Ok(secret.clone()),
        None => data_secret(&config.data_dir),
    }
}

/// Telling people; the channels begin at once with what waits since the last stop.
fn notify_people(config: &Config, db: &Arc<Db>, stop: &Stop) -> Result<Arc<Dispatcher>, AppError> {
    let setup = notify::Setup {
        channels: config.notify.clone(),
        known: config.tree.channel_names(),
        queue: Arc::new(NoticeStore::new(Arc::clone(db))),
        situation: Arc::new(HubSituation::new(Arc::clone(db))),
        timezone: config.api.timezone.clone(),
        external_url: config.api.external_url.clone(),
        secret: Some(hub_secret(config)?),
        topic: notify::HUB_TOPIC.to_owned(),
    };
    Dispatcher::start(setup, stop).map(Arc::new).map_err(|reason| AppError::Setting { reason })
}

/// What runs by itself; nothing does before its schedules are applied.
fn scheduler(config: &Config, db: &Arc<Db>, engine: &Engine, notify: &Arc<Dispatcher>, stop: &Stop) -> Arc<Scheduler> {
    let told = Arc::clone(notify);
    let tell = Box::new(move |channels: &str, notice: &Notice| told.notify_to(channels, notice));
    Scheduler::new(sched::Setup {
        db: Arc::clone(db),
        launcher: Arc::new(ChatLauncher::new(engine.clone(), tell)),
        clock: Arc::new(SystemClock::new()),
        config: config.scheduler.clone(),
        timezone: config.api.timezone.clone(),
        runs_kept: limits::SCHEDULE_RUNS_KEPT,
        stop: stop.clone(),
    })
}

fn tell_of_approvals(engine: &Engine, notify: &Arc<Dispatcher>) {
    let told = Arc::clone(notify);
    engine.approvals().on_asked(move |row| {
        told.notify(&Notice::of_approval(row));
    });
}

fn deps(
    db: &Arc<Db>,
    keys: &Arc<KeyStore>,
    kv_store: Arc<KvStore>,
    admin: ServerAdmin,
    engine: Engine,
    notify: Arc<Dispatcher>,
    journal: Arc<Journal>,
    live: &Arc<Live>,
) -> Result<Deps, AppError> {
    let config = crate::api::settings::Settings::current(&**live);
    let secret = hub_secret(&config)?;
    let store = Arc::new(SessionStore::new(Arc::clone(db)));
    let max_age_s = i64::try_from(config.auth.session_max_age.as_secs()).unwrap_or(i64::MAX);
    let sessions =
        SessionManager::new(&secret, Some(store), max_age_s, config.api.tls.is_some()).map_err(AppError::Cookie)?;
    let sessions = Arc::new(sessions);
    let oidc = config.auth.oidc.as_ref().map(|oidc| OidcProvider::new(oidc, Arc::clone(&sessions)));
    let oidc = oidc.transpose().map_err(|reason| AppError::Setting { reason })?.map(Arc::new);
    Ok(Deps {
        db: Arc::clone(db),
        key_store: Some(Arc::clone(keys)),
        kv_store: Some(kv_store),
        cost_tracker: None,
        sessions,
        approvals: Some(Arc::clone(engine.approvals())),
        model_lister: None,
        model_detail_lister: None,
        engine,
        notify,
        settings: Arc::clone(live) as Arc<dyn crate::api::settings::Settings>,
        audit: admin.audit,
        journal,
        lifecycle: Some(admin.servers),
        plugins: None,
        browser: None,
        password_hash: config.auth.password_hash.clone(),
        alerts: None,
        fleet: None,
        gateway: None,
        scheduler: None,
        tls: None,
        oauth: None,
        oidc_provider: oidc,
        web_handler: Some(page(config.api.web_dir.as_deref())?),
        machine_name: sys::host_name(),
    })
}

/// What logins at tool servers need.
fn oauth(config: &Config, db: &Arc<Db>, listener: &TcpListener) -> Result<Option<OAuthDeps>, AppError> {
    let key = key_of(&hub_secret(config)?).map_err(AppError::Cookie)?;
    let port = listener.local_addr().map_or(0, |address| address.port());
    Ok(TokenStore::new(Arc::clone(db), &key).map(|tokens| OAuthDeps {
        token_store: Arc::new(tokens),
        pending_mgr: Arc::new(PendingMgr::new(oauth_callback(config, port))),
    }))
}

/// Where browsers come back to from logins at tool servers (contract http-api 11.2).
fn oauth_callback(config: &Config, port: u16) -> String {
    let base = config.api.external_url.clone().unwrap_or_else(|| {
        let host = config.api.listen.rsplit_once(':').map_or("", |(host, _)| host);
        // Where it listens everywhere, a browser on this machine finds it.
        let host = if ["", "0.0.0.0", "[::]"].contains(&host) { "localhost" } else { host };
        format!("{}://{host}:{port}", config.api.scheme())
    });
    base + CALLBACK_PATH
}

fn page(directory: Option<&Path>) -> Result<Arc<dyn WebHandler>, AppError> {
    match directory {
        None => Ok(Arc::new(EmbeddedPage)),
        Some(path) => match DirectoryPage::new(path) {
            Ok(page) => Ok(Arc::new(page)),
            Err(cause) => Err(AppError::WebDir { path: path.display().to_string(), cause }),
        },
    }
}
