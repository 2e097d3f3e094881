//! The hub's own certificate.

use std::sync::Arc;

use super::AppError;
use crate::checks;
use crate::config::Config;
use crate::rt::clock;
use crate::tls::{Acceptor, Certificate};

/// What speaks TLS, when the configuration wants it.
pub(super) fn start(config: &Config) -> Result<Option<Arc<Acceptor>>, AppError> {
    let certificate = load(config)?;
    Ok(certificate.map(|certificate| Arc::new(Acceptor::new(certificate, odd))))
}

/// The certificate that a start would use.
pub(super) fn load(config: &Config) -> Result<Option<Certificate>, AppError> {
    let loaded = config.api.tls.as_ref().map(Certificate::load).transpose();
    loaded.map_err(|error| AppError::Setting { reason: error.to_string() })
}

/// What clients will not like about a certificate that can be used.
fn odd(pem: &[u8]) -> Option<String> {
    let (begins, ends) = checks::validity(pem)?;
    let now = clock::unix_s();
    let day = |unix_s: i64| clock::rfc3339_s(unix_s.saturating_mul(1000));
    if ends <= now {
        return Some(format!("the certificate has expired on {}; clients will refuse it", day(ends)));
    }
    (begins > now).then(|| format!("the certificate is not valid before {}; clients will refuse it", day(begins)))
}
