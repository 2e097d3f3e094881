//! The server above HTTP: what it needs, and the way of a request through host check, CORS, routing, guard and
//! handler (contract 1.2).

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use tiny_http::Method;

use crate::api::costs::CostReports;
use crate::api::error::ApiError;
use crate::api::kv::KvLists;
use crate::api::message::{Reply, Req, Responder, Response, header, no_content};
use crate::api::paths::{cleaned, is_api, is_loopback, moved};
use crate::api::routes::{self, Call, Found, Route};
use crate::api::sessions::SessionsList;
use crate::api::settings::Settings;
use crate::api::tools_oauth::{CALLBACK_PATH, callback_headers};
use crate::api::{gateway, guard, metrics};
use crate::audit::AuditLog;
use crate::auth::oidc::OidcProvider;
use crate::auth::origin::{OriginRules, shows_agent_token};
use crate::auth::password::PasswordLane;
use crate::auth::setup::Setup;
use crate::auth::throttle::{LoginThrottle, RateLimiter};
use crate::auth::{AuthError, Authenticator, SessionManager};
use crate::chat::{Approvals, Engine};
use crate::costs::Budgets;
use crate::fleet::hub::Fleet;
use crate::fleet::hub::alerts::Alerts;
use crate::fleet::hub::gateway::Gateway;
use crate::llm::Catalog;
use crate::mcp::oauth::OAuthDeps;
use crate::notify::Dispatcher;
use crate::rt::lock;
use crate::sched::Scheduler;
use crate::skills::Journal;
use crate::store::{Db, KeyStore, KvStore};
use crate::tls::Acceptor;
use crate::tools::plugins::{Browser, Plugins};
use crate::tools::servers::ToolServers;

/// Serves everything that is not a route: the page.
pub trait WebHandler: Send + Sync {
    /// Answers any path (contract 13.1).
    fn serve(&self, req: &Req) -> Response;
    /// The `Content-Security-Policy` of the page.
    fn content_security_policy(&self) -> &str;
}

/// What a hub that others can reach serves before it is set up, beside the page (decisions, "defaults").
const OPEN_BEFORE_SETUP: &[&str] =
    &["/api/v1/health", "/healthz", "/auth/config", "/auth/session", "/api/v1/setup", "/api/v1/setup/account"];

/// What the server works with. Where a field is None, its routes answer 503.
#[derive(Clone)]
pub struct Deps {
    pub db: Arc<Db>,
    pub key_store: Option<Arc<KeyStore>>,
    pub kv_store: Option<Arc<KvStore>>,
    pub cost_tracker: Option<Arc<Budgets>>,
    pub sessions: Arc<SessionManager>,
    /// Runs turns and holds the conversations (`Dispatcher` and `Memory` of the reference).
    pub engine: Engine,
    /// Tells people of alerts and requests for approval.
    pub notify: Arc<Dispatcher>,
    pub approvals: Option<Arc<Approvals>>,
    pub model_lister: Option<Arc<Catalog>>,
    pub model_detail_lister: Option<Arc<Catalog>>,
    /// The configuration of now, and the way to change it.
    pub settings: Arc<dyn Settings>,
    pub audit: Arc<AuditLog>,
    pub lifecycle: Option<ToolServers>,
    pub plugins: Option<Arc<Plugins>>,
    pub browser: Option<Arc<Browser>>,
    pub fleet: Option<Arc<Fleet>>,
    /// What agents changed about themselves.
    pub journal: Arc<Journal>,
    /// bcrypt; None until setup.
    pub password_hash: Option<String>,
    /// What is wrong on the machines.
    pub alerts: Option<Arc<Alerts>>,
    /// Models for machines that have none.
    pub gateway: Option<Arc<Gateway>>,
    /// What agents do by themselves.
    pub scheduler: Option<Arc<Scheduler>>,
    /// The certificate in force, when we speak TLS.
    pub tls: Option<Arc<Acceptor>>,
    /// Logins at tool servers.
    pub oauth: Option<OAuthDeps>,
    /// People log in through it; None: its routes are not there.
    pub oidc_provider: Option<Arc<OidcProvider>>,
    pub web_handler: Option<Arc<dyn WebHandler>>,
    /// This machine's own name, for the host check.
    pub machine_name: Option<String>,
}

/// The server: routes over [`Deps`].
pub struct Server {
    ctx: Ctx,
    api_headers: Vec<u8>,
    page_headers: Vec<u8>,
    /// Of the page that browsers see behind a login at a tool server.
    callback_headers: Vec<u8>,
}

/// What handlers see.
#[derive(Clone)]
pub struct Ctx(Arc<CtxInner>);

/// See [`Ctx`].
pub struct CtxInner {
    pub deps: Deps,
    pub auth: Authenticator,
    pub origins: OriginRules,
    pub throttle: LoginThrottle,
    pub rate: RateLimiter,
    pub lane: PasswordLane,
    pub setup: Setup,
    /// Guarded by this mutex: the bcrypt hash in force. Nothing is taken under it.
    password_hash: Mutex<Option<String>>,
    /// Serialises setups of the account, changes of its password and logins with it: held over their writes.
    pub account: Mutex<()>,
    /// The hub listens beyond this machine.
    reachable: bool,
    /// Setup is known to be done.
    set_up: AtomicBool,
    /// How many event streams are open.
    pub sse_open: Arc<AtomicUsize>,
    /// Guarded by this mutex: the list of conversations as last rendered.
    pub(super) sessions_list: Mutex<SessionsList>,
    pub(super) kv_lists: KvLists,
    pub(super) cost_reports: CostReports,
    /// Begins a restart of the process; set once, by whoever can.
    pub restart: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl std::ops::Deref for Ctx {
    type Target = CtxInner;

    fn deref(&self) -> &CtxInner {
        &self.0
    }
}

impl CtxInner {
    /// The bcrypt hash of the dashboard's password.
    pub fn password_hash(&self) -> Option<String> {
        lock(&self.password_hash).clone()
    }

    /// A new password counts at once.
    pub fn set_password_hash(&self, hash: Option<String>) {
        *lock(&self.password_hash) = hash;
    }

    /// Whether others can reach this hub while nobody has set it up: then only the way to setup is open, but to those who
    /// have a key already. Commands on its machine make themselves one.
    fn is_locked_down(&self, req: &Req) -> Result<bool, ApiError> {
        if !self.reachable || self.set_up.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let required = self.setup.is_required()?;
        self.set_up.store(!required, Ordering::Relaxed); // once done, for ever
        if !required {
            return Ok(false);
        }
        match self.auth.authenticate(&req.headers, None, "") {
            Ok(_) | Err(AuthError::Scope) => Ok(false),
            Err(AuthError::Missing | AuthError::Invalid) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The tool servers, or 503.
    pub fn tool_servers(&self) -> Result<&ToolServers, ApiError> {
        let missing = || ApiError::new(503, "not_configured", "tool management not configured");
        self.deps.lifecycle.as_ref().ok_or_else(missing)
    }

    /// The scheduler, or 503.
    pub fn scheduler(&self) -> Result<&Arc<Scheduler>, ApiError> {
        let missing = || ApiError::new(503, "not_configured", "schedule management is not available");
        self.deps.scheduler.as_ref().ok_or_else(missing)
    }

    /// The machines, or 503.
    pub fn fleet(&self) -> Result<&Arc<Fleet>, ApiError> {
        let missing = || ApiError::new(503, "not_configured", "machines are not configured");
        self.deps.fleet.as_ref().ok_or_else(missing)
    }

    /// The key store, or 503.
    pub fn key_store(&self) -> Result<&Arc<KeyStore>, ApiError> {
        let missing = || ApiError::new(503, "not_configured", "key management not configured");
        self.deps.key_store.as_ref().ok_or_else(missing)
    }
}

impl Server {
    /// A server over open stores; starts the password lane.
    pub fn new(deps: Deps) -> io::Result<Self> {
        let settings = deps.settings.current();
        let config = &settings.api;
        let origins = OriginRules::of(config, deps.machine_name.as_deref());
        let policy = deps
            .web_handler
            .as_ref()
            .map_or("default-src 'none'; frame-ancestors 'none'", |web| web.content_security_policy());
        let page_headers = format!(
            "X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n\
             Content-Security-Policy: {policy}\r\nServer: holt\r\n"
        );
        let keys = match &deps.key_store {
            Some(keys) => Arc::clone(keys),
            None => Arc::new(KeyStore::new(Arc::clone(&deps.db))),
        };
        let auth = Authenticator::new(Arc::clone(&deps.db), keys, Arc::clone(&deps.sessions), &settings.auth.keys);
        let inner = CtxInner {
            auth,
            origins,
            throttle: LoginThrottle::new(config.login_rate_limit, config.login_rate_window),
            rate: RateLimiter::new(config.rate_limit),
            lane: PasswordLane::start()?,
            setup: Setup::new(Arc::clone(&deps.db)),
            password_hash: Mutex::new(deps.password_hash.clone()),
            account: Mutex::new(()),
            reachable: !is_loopback(&config.listen),
            set_up: AtomicBool::new(false),
            sse_open: Arc::new(AtomicUsize::new(0)),
            sessions_list: Mutex::default(),
            kv_lists: KvLists::default(),
            cost_reports: CostReports::default(),
            restart: OnceLock::new(),
            deps,
        };
        let api_headers = [b"X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n\
             Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\nCache-Control: no-store\r\nServer: holt\r\n"
            .as_slice()]
        .concat();
        let callback_headers = callback_headers(&api_headers);
        Ok(Self { ctx: Ctx(Arc::new(inner)), api_headers, page_headers: page_headers.into_bytes(), callback_headers })
    }

    /// What handlers see; for the composition root.
    pub fn ctx(&self) -> &Ctx {
        &self.ctx
    }

    /// Serves a request without a socket, for tests and for callers inside the process.
    pub fn http_handler(&self, req: &Req) -> Reply {
        self.handle(req)
    }

    /// Whether the request's credential holds `scope`; the error is the answer otherwise.
    pub fn require_scope(&self, req: &Req, scope: &'static str) -> Result<crate::auth::Identity, ApiError> {
        Ok(self.ctx.auth.authenticate(&req.headers, None, scope)?)
    }

    /// Lines that every response to that path carries.
    pub fn common_headers(&self, path: &str) -> &[u8] {
        match path {
            CALLBACK_PATH => &self.callback_headers,
            path if is_api(path) => &self.api_headers,
            _ => &self.page_headers,
        }
    }

    /// Whether the route of a request takes bodies beyond the general limit.
    pub fn has_large_body(&self, head: &Req) -> bool {
        matches!(routes::find(&head.method, &head.path), Found::Route(Route { large: Some(_), .. }, _))
    }

    /// Whether a body of so many bytes may follow this head; the answer otherwise.
    pub fn allow_body(&self, head: &Req, length: usize) -> Result<(), Response> {
        let allowed = match routes::find(&head.method, &head.path) {
            Found::Route(Route { large: Some(large), .. }, _) if length <= large.bytes_max => {
                self.check_host(head).and_then(|()| (large.allow)(&self.ctx, head))
            }
            _ => Err(ApiError::new(413, "body_too_large", "request body too large")),
        };
        allowed.map_err(|error| refused(head, error))
    }

    /// The whole way of a request.
    pub fn handle(&self, req: &Req) -> Reply {
        let started = Instant::now();
        let mut found = None;
        let mut reply = self.route(req, &mut found).unwrap_or_else(|error| Reply::Full(refused(req, error)));
        let cors = self.cors_headers(req);
        match &reply {
            Reply::Full(response) => metrics::count(found, response.status_code().0),
            Reply::File(answer) => metrics::count(found, answer.head.status_code().0),
            Reply::Stream(_) => metrics::count(found, 200),
            Reply::Upgrade(_) => metrics::count(found, 101),
            Reply::Later(_) => {}
        }
        match &mut reply {
            Reply::Full(response) => response.headers_extend(&cors),
            Reply::File(answer) => answer.head.headers_extend(&cors),
            Reply::Stream(start) => {
                for (name, value) in &cors {
                    start.extra_headers.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
                }
            }
            Reply::Later(_) => reply = later_with(reply, &cors, found),
            Reply::Upgrade(_) => {}
        }
        metrics::observe(started.elapsed());
        if let Reply::Full(response) = &reply {
            log_access(req, response.status_code().0, started);
        } else {
            log::debug!("api request method={} path={} remote={} handed over", req.method, req.path, req.peer);
        }
        reply
    }

    fn check_host(&self, req: &Req) -> Result<(), ApiError> {
        if self.ctx.origins.host_allowed(&req.headers) {
            return Ok(());
        }
        Err(ApiError::new(
            421,
            "host_not_allowed",
            "this host name is not served here; add it to api.allowed_hosts if it is yours",
        ))
    }

    fn route(&self, req: &Req, found: &mut Option<&'static Route>) -> Result<Reply, ApiError> {
        self.check_host(req)?;
        if req.method == Method::Options && self.ctx.origins.has_cors() {
            return Ok(Reply::Full(no_content()));
        }
        // Machines that follow redirects would take their token along.
        if let Some(clean) = cleaned(&req.path).filter(|_| !shows_agent_token(&req.headers)) {
            return Ok(Reply::Full(moved(&clean)));
        }
        if is_api(&req.path) && !OPEN_BEFORE_SETUP.contains(&req.path.as_str()) && self.ctx.is_locked_down(req)? {
            let text = "nobody has set this hub up yet: open its page with the PIN that it printed; holt setup-pin makes a new one";
            let refusal = ApiError::new(401, "unauthorized", text).with_header("X-Auth-Failure", "credential-missing");
            // Machines that come too early: their tokens are not to blame.
            return Err(refusal.with_header("X-Hub-Setup", "required"));
        }
        match routes::find(&req.method, &req.path) {
            Found::Route(route, params) => {
                *found = Some(route);
                let caller = guard::check(&self.ctx, req, route.guard)?;
                (route.handler)(&self.ctx, &Call { req, params, caller })
            }
            Found::WrongMethod(allow) => {
                Err(ApiError::new(405, "method_not_allowed", "method not allowed").with_header("Allow", &allow))
            }
            Found::Nothing if is_api(&req.path) => Err(ApiError::not_found("no such path")),
            Found::Nothing => match &self.ctx.deps.web_handler {
                Some(web) => Ok(Reply::Full(web.serve(req))),
                None => Err(ApiError::not_found("no page is served here")),
            },
        }
    }

    /// What the answer says to browsers of other origins; nothing while there are none.
    fn cors_headers<'a>(&self, req: &'a Req) -> Vec<(&'static str, &'a str)> {
        if !self.ctx.origins.has_cors() {
            return Vec::new();
        }
        let mut lines = vec![("Vary", "Origin")];
        if let Some(origin) = req.headers.get("origin").filter(|origin| self.ctx.origins.is_cors_origin(origin)) {
            lines.extend([
                ("Access-Control-Allow-Origin", origin),
                ("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE, OPTIONS"),
                ("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID"),
                ("Access-Control-Max-Age", "86400"),
            ]);
        }
        lines
    }
}

/// An error as the path has it: machines know only their own shape.
fn refused(req: &Req, error: ApiError) -> Response {
    if req.path == gateway::PATH { gateway::refusal(error) } else { error.into_response() }
}

/// The same answer, later, with these lines.
fn later_with(reply: Reply, lines: &[(&'static str, &str)], route: Option<&'static Route>) -> Reply {
    let Reply::Later(begin) = reply else { return reply };
    let lines: Vec<(&'static str, String)> = lines.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Reply::Later(Box::new(move |mut responder: Responder| {
        let watch = responder.take_watch();
        let answer = Responder::new(move |mut response: Response| {
            let lines: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
            response.headers_extend(&lines);
            metrics::count(route, response.status_code().0);
            responder.respond(response);
        });
        begin(answer.watching(watch));
    }))
}

pub(super) trait HeadersExtend {
    fn headers_extend(&mut self, lines: &[(&str, &str)]);
}

impl HeadersExtend for Response {
    fn headers_extend(&mut self, lines: &[(&str, &str)]) {
        for (name, value) in lines {
            if let Some(header) = header(name, value) {
                self.add_header(header);
            }
        }
    }
}

/// Reads that succeed are for the debug log: memory cards wear out.
fn log_access(req: &Req, status: u16, started: Instant) {
    let level = if req.is_read() && status < 400 { log::Level::Debug } else { log::Level::Info };
    if log::log_enabled!(level) {
        let ms = started.elapsed().as_millis();
        log::log!(
            level,
            "api request method={} path={} status={status} duration_ms={ms} remote={}",
            req.method,
            req.path,
            req.peer
        );
    }
}
