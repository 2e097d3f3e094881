//! Logins at tool servers that want one: begun by an operator, ended by their browser, forgotten again (contract
//! http-api 11.2, engine 8.8).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::run::{Health, Run};
use super::{Shared, ToolServers};
use crate::config::ToolServerConfig;
use crate::mcp::McpError;
use crate::mcp::oauth::{self, OAuthDeps, Pending, Summary, Token, Wish};
use crate::store::StoreError;
use crate::tools::servers::ChangeError;

/// Why there is no login.
#[derive(Debug)]
pub enum LoginError {
    /// The server is not there, or somebody else changes it now.
    Change(ChangeError),
    /// It wants none, as configured.
    NotOauth,
    /// Logins are not set up at all.
    Missing,
    /// The server or its login server did not go along.
    Failed(McpError),
    /// The exchange of the code; for the log.
    Exchange(String),
    Store(StoreError),
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change(error) => write!(f, "{error}"),
            Self::NotOauth => f.write_str("tool does not use OAuth authentication"),
            Self::Missing => f.write_str("OAuth support is not configured"),
            Self::Failed(error) => write!(f, "{error}"),
            Self::Exchange(cause) => write!(f, "exchange the code: {cause}"),
            Self::Store(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for LoginError {}

impl From<ChangeError> for LoginError {
    fn from(error: ChangeError) -> Self {
        Self::Change(error)
    }
}

impl From<StoreError> for LoginError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl ToolServers {
    /// With what servers' logins are kept; before [`ToolServers::start`], the first call counts.
    pub fn set_oauth(&self, deps: OAuthDeps) {
        let _ = self.shared.connector.oauth.set(deps); // set once, by the composition root
    }

    /// Begins a login at a server: its old token is forgotten, its connection ended, and a person has to open the page
    /// of what comes back. A login that has begun already comes back as it is. Blocks on the server.
    pub fn begin_login(&self, name: &str, actor: &str) -> Result<Pending, LoginError> {
        let deps = self.shared.oauth()?;
        let changing = self.changing(name)?;
        let run = self.find(name)?;
        if run.config.auth != "oauth" {
            return Err(LoginError::NotOauth);
        }
        if let Some(pending) = deps.pending_mgr.of(name) {
            return Ok(pending);
        }
        let (place, headers) = self.shared.connector.place(&run.config).map_err(LoginError::Failed)?;
        deps.token_store.delete(name)?;
        self.log_out(&run);
        let wish = Wish {
            tool: name,
            place,
            headers: &headers,
            client_id: &run.config.client_id,
            client_secret: &run.config.client_secret,
            scopes: &run.config.scopes,
            redirect_uri: deps.pending_mgr.redirect_uri(),
            actor,
        };
        let pending = oauth::begin(&wish, &changing.cancel).map_err(LoginError::Failed)?;
        deps.pending_mgr.add(pending.clone());
        Ok(pending)
    }

    /// Ends a login with what a browser brought back: the token is stored, and the server connects by itself. Blocks
    /// on the login server.
    pub fn end_login(&self, pending: &Pending, code: &str, issuer: Option<&str>) -> Result<(), LoginError> {
        let deps = self.shared.oauth()?;
        let name = pending.tool.as_str();
        let changing = self.changing(name)?;
        let run = self.find(name)?;
        if run.config.auth != "oauth" {
            return Err(LoginError::NotOauth);
        }
        let token = oauth::exchange(pending, code, issuer, &changing.cancel).map_err(LoginError::Exchange)?;
        deps.token_store.put(name, &token)?;
        let new = self.shared.new_run(name, run.config());
        new.remember(&run);
        if new.state().health == Health::PendingAuth {
            // Its address was changed meanwhile.
            return Err(LoginError::Exchange("the token is not for this server any more".to_owned()));
        }
        self.install(new, Some(Duration::ZERO));
        Ok(())
    }

    /// Forgets a server's login; whether there was one.
    pub fn forget_login(&self, name: &str) -> Result<bool, LoginError> {
        let deps = self.shared.oauth()?;
        let _changing = self.changing(name)?;
        let run = self.find(name).ok();
        let was_there = self.let_go(deps, name, run.as_ref().map(|run| run.config()))?;
        if let Some(run) = run.filter(|run| run.config.auth == "oauth" && !run.config.disabled) {
            self.log_out(&run);
        }
        Ok(was_there)
    }

    /// A server that is gone, or is another now, keeps no login. `config` is what it was.
    pub(super) fn drop_login(&self, name: &str, config: ToolServerConfig) {
        let Ok(deps) = self.shared.oauth() else { return };
        if let Err(error) = self.let_go(deps, name, Some(config)) {
            log::error!("tool server {name}: forget its token: {error}");
        }
    }

    /// Who is told what became of tokens at the login servers that made them: whether they were revoked there, or why
    /// not; the first call counts.
    pub fn on_revoked(&self, told: impl Fn(&str, Result<bool, String>) + Send + Sync + 'static) {
        let _ = self.shared.revoked.set(Box::new(told)); // set once, by the composition root
    }

    /// Forgets a token here, and then, in the background, where it comes from: that may fail, this may not wait for it.
    fn let_go(&self, deps: &OAuthDeps, name: &str, config: Option<ToolServerConfig>) -> Result<bool, StoreError> {
        deps.pending_mgr.cancel(name);
        // One that cannot be read cannot be given back.
        let token = deps.token_store.get(name).ok().flatten();
        let was_there = deps.token_store.delete(name)?;
        let (Some(token), Some(config), true) = (token, config, was_there) else { return Ok(was_there) };
        let own = name.to_owned();
        let begun = self.in_background(move |servers| {
            let said = servers.revoke(&own, &config, &token);
            servers.tell_revoked(&own, said);
        });
        if let Err(error) = begun {
            self.tell_revoked(name, Err(error.to_string()));
        }
        Ok(was_there)
    }

    fn revoke(&self, name: &str, config: &ToolServerConfig, token: &Token) -> Result<bool, String> {
        // No server is called so: a new login of this one does not wait for the end of its old one, the stop does.
        let key = format!("{name} (token)");
        let changing = self.changing(&key).map_err(|error| error.to_string())?;
        let (place, headers) = self.shared.connector.place(config).map_err(|error| error.to_string())?;
        oauth::revoke(&place, &headers, token, &changing.cancel)
    }

    fn tell_revoked(&self, name: &str, said: Result<bool, String>) {
        if let Err(error) = &said {
            log::warn!("tool server {name}: its token was not revoked: {error}");
        }
        if let Some(told) = self.shared.revoked.get() {
            told(name, said);
        }
    }

    /// The server's connection ends; it waits for a login.
    fn log_out(&self, run: &Arc<Run>) {
        let new = Run::new(&run.name, run.config());
        new.remember(run);
        self.install(new, None);
    }
}

impl Shared {
    pub(super) fn oauth(&self) -> Result<&OAuthDeps, LoginError> {
        self.connector.oauth.get().ok_or(LoginError::Missing)
    }

    /// A run that is about to start; one that wants a login starts only when it has one.
    pub(super) fn new_run(&self, name: &str, config: ToolServerConfig) -> Arc<Run> {
        let run = Run::new(name, config);
        self.admit(&run);
        run
    }

    /// Lets a run start that waits for a login and has one.
    pub(super) fn admit(&self, run: &Run) {
        if run.state().health == Health::PendingAuth && self.connector.has_login(&run.name, &run.config) {
            run.admitted();
        }
    }

    /// What may be told of a server's login; None when it wants none.
    pub(super) fn login(&self, run: &Run) -> Option<Summary> {
        if run.config.auth != "oauth" {
            return None;
        }
        let summary = self.connector.oauth.get().map(|deps| deps.token_store.summary(&run.name));
        let unknown = Summary { has_token: false, expires_at: None, scopes: Vec::new(), needs_reauth: true };
        Some(match summary {
            Some(Ok(summary)) => summary,
            Some(Err(error)) => {
                log::error!("tool server {}: read its token: {error}", run.name);
                unknown
            }
            None => unknown,
        })
    }
}
