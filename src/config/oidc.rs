//! `[api.auth.oidc]`: logging in through an identity provider (contract http-api 3.8, 13.2).

use std::path::Path;

use super::api::some_text;
use super::check::given;
use super::env::Env;
use super::error::ConfigError;
use super::raw::Typed;
use super::secret;
use crate::rt::order::Order;

/// Contract http-api 3.8.
const SCOPES: [&str; 3] = ["openid", "email", "profile"];
/// Where the provider sends browsers back to.
const CALLBACK_PATH: &str = "/auth/callback";

/// `[api.auth.oidc]`, when it is enabled. `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct OidcConfig {
    /// An http or https address, as the provider spells it.
    pub issuer: String,
    pub client_id: String,
    pub client_secret: String,
    /// Where the provider sends browsers back to: an address of this hub that ends with `/auth/callback`.
    pub redirect_url: String,
    /// `openid` is one of them.
    pub scopes: Vec<String>,
    /// Who may log in: lower case, at least one.
    pub allowed_emails: Vec<String>,
}

impl std::fmt::Debug for OidcConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("OidcConfig");
        shown.field("issuer", &self.issuer).field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

pub(super) fn oidc(typed: &mut Typed, env: &Env, data_dir: &Path) -> Result<Option<OidcConfig>, ConfigError> {
    let raw = &typed.raw.api.auth.oidc;
    if !raw.enabled {
        return Ok(None);
    }
    let issuer = raw.issuer.trim();
    given(typed, "api.auth.oidc.issuer", issuer)?;
    if !is_address(issuer) || issuer.contains(['?', '#']) {
        let reason = "must be the http or https address of the provider, without ? and #";
        return Err(typed.bad("api.auth.oidc.issuer", reason));
    }
    given(typed, "api.auth.oidc.client_id", &raw.client_id)?;
    let client_secret = secret::read(typed, "api.auth.oidc.client_secret", &raw.client_secret, env, data_dir)?;
    let client_secret = client_secret.ok_or_else(|| typed.bad("api.auth.oidc.client_secret", "must be given"))?;
    let external = typed.raw.api.external_url.trim().trim_end_matches('/');
    let redirect_url = match raw.redirect_url.trim() {
        "" if external.is_empty() => {
            let reason = "must be given, or api.external_url, so that the provider can send browsers back here";
            return Err(typed.bad("api.auth.oidc.redirect_url", reason));
        }
        "" => format!("{external}{CALLBACK_PATH}"),
        url if is_address(url) && url.ends_with(CALLBACK_PATH) => url.to_owned(),
        _ => {
            let reason = "must be an address of this hub that ends with /auth/callback";
            return Err(typed.bad("api.auth.oidc.redirect_url", reason));
        }
    };
    let mut allowed_emails: Vec<String> = raw.allowed_emails.iter().map(|email| email.trim().to_lowercase()).collect();
    if let Some(odd) = allowed_emails.iter().position(|email| !email.contains('@')) {
        let reason = format!("entry {} is no e-mail address", odd + 1);
        return Err(typed.bad("api.auth.oidc.allowed_emails", reason));
    }
    if allowed_emails.is_empty() {
        let reason = "must name who may log in: without it every user of the provider could";
        return Err(typed.bad("api.auth.oidc.allowed_emails", reason));
    }
    allowed_emails.order();
    let mut scopes: Vec<String> = raw.scopes.iter().filter_map(|scope| some_text(scope.trim())).collect();
    if scopes.is_empty() {
        scopes = SCOPES.map(str::to_owned).to_vec();
    } else if !scopes.iter().any(|scope| scope == "openid") {
        scopes.insert(0, "openid".to_owned());
    }
    let config = OidcConfig {
        issuer: issuer.to_owned(),
        client_id: raw.client_id.clone(),
        client_secret,
        redirect_url,
        scopes,
        allowed_emails,
    };
    if config.issuer.starts_with("http://") && !is_this_machine(&config.issuer) {
        let warning = "api.auth.oidc.issuer: http:// lets everybody on the way read and change logins; use https://";
        typed.warnings.push(warning.to_owned());
    }
    Ok(Some(config))
}

fn is_address(text: &str) -> bool {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    host.is_some_and(|host| !host.is_empty() && !host.starts_with('/') && !host.contains(['@', ' ']))
}

fn is_this_machine(url: &str) -> bool {
    ["http://127.0.0.1", "http://localhost", "http://[::1]"]
        .iter()
        .any(|known| url.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/'])))
}
