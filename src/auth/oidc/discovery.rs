//! What a provider says of itself: its endpoints and its keys (OpenID Connect Discovery 1.0), fetched and kept.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::net::NetError;
use crate::net::guard::{CheckedUrl, Guard, Origin};
use crate::net::oauth::{self, AuthStyle};
use crate::net::url::redact_url;
use crate::rt::{Cancel, lock};

/// How long it counts; what is older counts on while the provider cannot be reached.
const AGE_MAX: Duration = Duration::from_secs(3600);
/// Between two looks for a key that is not known: names of keys come from outside.
const KEYS_INTERVAL: Duration = Duration::from_secs(30);

/// The endpoints of a provider, all of them judged.
pub(super) struct Metadata {
    /// As the provider spells it; tokens must spell it the same.
    pub(super) issuer: String,
    /// Opened by browsers.
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: CheckedUrl,
    pub(super) userinfo_endpoint: Option<CheckedUrl>,
    jwks_uri: CheckedUrl,
    pub(super) style: AuthStyle,
}

pub(super) struct Discovery {
    // Set at construction.
    issuer: CheckedUrl,
    configured: String,
    /// Guarded by the mutex: what is known, and since when. Nothing is taken under it.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    metadata: Option<(Arc<Metadata>, Instant)>,
    keys: Option<(Arc<Value>, Instant)>,
    /// When an unknown key was looked for last.
    looked: Option<Instant>,
}

impl Discovery {
    /// The provider at that address, which an operator configured: it may be on a network of their own.
    pub(super) fn new(issuer: &str) -> Result<Self, String> {
        let guard = Guard::new(Origin::Operator { allow_loopback: true });
        let checked = guard.check_url(issuer).map_err(|error| format!("api.auth.oidc.issuer: {error}"))?;
        Ok(Self { issuer: checked, configured: issuer.to_owned(), known: Mutex::default() })
    }

    /// What is known and new enough.
    pub(super) fn cached(&self) -> Option<Arc<Metadata>> {
        let known = lock(&self.known);
        known.metadata.as_ref().filter(|(_, at)| at.elapsed() < AGE_MAX).map(|(metadata, _)| Arc::clone(metadata))
    }

    /// The provider's endpoints; asks for them if need be. The error is for the log.
    pub(super) fn metadata(&self, cancel: &Cancel) -> Result<Arc<Metadata>, String> {
        if let Some(metadata) = self.cached() {
            return Ok(metadata);
        }
        match self.discover(cancel) {
            Ok(metadata) => {
                let metadata = Arc::new(metadata);
                lock(&self.known).metadata = Some((Arc::clone(&metadata), Instant::now()));
                Ok(metadata)
            }
            Err(cause) => {
                let old = lock(&self.known).metadata.as_ref().map(|(metadata, _)| Arc::clone(metadata));
                old.ok_or(cause)
            }
        }
    }

    /// The provider's key set. `anew`: what is known lacks a key; it is fetched again, but not all the time.
    pub(super) fn keys(&self, metadata: &Metadata, anew: bool, cancel: &Cancel) -> Result<Arc<Value>, String> {
        {
            let mut known = lock(&self.known);
            let is_good = match &known.keys {
                None => false,
                Some(_) if anew => known.looked.is_some_and(|at| at.elapsed() < KEYS_INTERVAL),
                Some((_, at)) => at.elapsed() < AGE_MAX,
            };
            if let Some((keys, _)) = known.keys.as_ref().filter(|_| is_good) {
                return Ok(Arc::clone(keys));
            }
            if anew {
                known.looked = Some(Instant::now());
            }
        }
        let answered = oauth::get(&metadata.jwks_uri, &[], cancel).map_err(|error| format!("its keys: {error}"))?;
        let keys = answered.object().filter(|keys| keys["keys"].is_array());
        let keys = Arc::new(keys.ok_or_else(|| format!("its keys: status {} and no key set", answered.status))?);
        lock(&self.known).keys = Some((Arc::clone(&keys), Instant::now()));
        Ok(keys)
    }

    fn discover(&self, cancel: &Cancel) -> Result<Metadata, String> {
        let base = self.configured.trim_end_matches('/');
        let url = self.endpoint(&format!("{base}/.well-known/openid-configuration"))?;
        let answered = oauth::get(&url, &[], cancel).map_err(|error: NetError| error.to_string())?;
        let said = answered
            .object()
            .ok_or_else(|| format!("its openid-configuration: status {} and no JSON object", answered.status))?;
        let issuer = said["issuer"].as_str().unwrap_or("");
        if issuer.trim_end_matches('/') != base {
            let shown = redact_url(issuer).chars().take(200).collect::<String>();
            return Err(format!("it calls itself {shown:?}; api.auth.oidc.issuer must say the same"));
        }
        let text = |name: &str| said[name].as_str().ok_or_else(|| format!("its openid-configuration has no {name}"));
        let userinfo = said["userinfo_endpoint"].as_str();
        Ok(Metadata {
            issuer: issuer.to_owned(),
            authorization_endpoint: self.for_browsers(text("authorization_endpoint")?)?,
            token_endpoint: self.endpoint(text("token_endpoint")?)?,
            userinfo_endpoint: userinfo.map(|url| self.endpoint(url)).transpose()?,
            jwks_uri: self.endpoint(text("jwks_uri")?)?,
            style: AuthStyle::of_metadata(&said),
        })
    }

    /// An address that the provider names. On its own host it is as good as the configured one; elsewhere it must be
    /// public (decisions, row "SSRF"). Never less protected than what was configured.
    fn endpoint(&self, url: &str) -> Result<CheckedUrl, String> {
        let guard = |origin| Guard::new(origin).allow_inside(&[], "an issuer on that host");
        let operators = guard(Origin::Operator { allow_loopback: true }).check_url(url);
        let checked = match operators {
            Ok(checked) if checked.url().host == self.issuer.url().host => Ok(checked),
            _ => guard(Origin::Untrusted).check_url(url),
        };
        let checked = checked.map_err(|error| format!("one of its endpoints: {error}"))?;
        if self.issuer.url().https && !checked.url().https {
            return Err("one of its endpoints is not https".to_owned());
        }
        Ok(checked)
    }

    /// The same for what only browsers open: it may be wherever they reach it.
    fn for_browsers(&self, url: &str) -> Result<String, String> {
        let parsed = crate::net::url::Url::parse(url).map_err(|reason| format!("its login page: {reason}"))?;
        if self.issuer.url().https && !parsed.https {
            return Err("its login page is not https".to_owned());
        }
        Ok(parsed.text())
    }
}
