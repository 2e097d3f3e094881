//! The way to a running hub: its address, whom to believe, a connection.

use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::hub_url::HubUrl;
use super::{CliError, Context};
use crate::config::{self, Config};
use crate::store::whereabouts;
use crate::tls::{self, Transport};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A hub, before anybody asked it.
pub(super) struct Found {
    pub(super) url: HubUrl,
    /// The certificate of a hub of this machine: it hardly names 127.0.0.1.
    own_cert: Option<PathBuf>,
    /// It is of this machine, wherever it listens.
    pub(super) is_own: bool,
}

/// `--url`, `HOLT_URL`, else the hub that runs on the data directory, else where the configuration lets one listen.
pub(super) fn find(given: Option<&str>, context: &Context) -> Result<Found, CliError> {
    if let Some(text) = given.or_else(|| context.env.get("HOLT_URL")) {
        let url = HubUrl::parse(text).map_err(CliError::Failed)?;
        return Ok(Found { is_own: url.is_loopback(), url, own_cert: None });
    }
    own(context)
}

/// The hub of this data directory.
pub(super) fn own(context: &Context) -> Result<Found, CliError> {
    let config = config::load(&context.flags, &context.env).map_err(CliError::failed)?;
    let (listen, is_tls, cert) = listens(&config);
    let url = HubUrl::of_listen(&listen, is_tls).ok_or_else(|| {
        CliError::Failed(format!("no hub runs on {}: start one with: holt serve", config.data_dir.display()))
    })?;
    Ok(Found { is_own: true, url, own_cert: cert })
}

/// Where the hub of that configuration listens, whether it speaks TLS, and with which certificate: what one that runs
/// says, else what is configured.
pub(super) fn listens(config: &Config) -> (String, bool, Option<PathBuf>) {
    let configured = config.api.tls.as_ref().map(|files| files.cert_file.clone());
    if let Some((url, cert)) = whereabouts::ask(&config.db_path)
        && let Some((scheme, listen)) = url.split_once("://")
    {
        let told = (!cert.is_empty()).then(|| PathBuf::from(cert));
        return (listen.to_owned(), scheme == "https", told.or(configured));
    }
    (config.api.listen.clone(), configured.is_some(), configured)
}

/// The hub of this machine at that address; without a scheme it speaks what the one of the data directory does.
pub(super) fn at(address: &str, context: &Context) -> Result<Found, CliError> {
    let misused = || CliError::Misused(format!("{address:?} is no address; give one such as 127.0.0.1:8080"));
    let configured = own(context).ok();
    let own_cert = configured.as_ref().and_then(|found| found.own_cert.clone());
    let url = match address.split_once("://") {
        Some(_) => HubUrl::parse(address).map_err(|_| misused())?,
        None => HubUrl::of_listen(address, configured.is_some_and(|found| found.url.is_tls())).ok_or_else(misused)?,
    };
    Ok(Found { is_own: true, url, own_cert })
}

impl Found {
    /// Whom to believe; None without TLS. `ca_file` names others than the world and the hub's own certificate.
    pub(super) fn trust(&self, ca_file: Option<&str>) -> Result<Option<Arc<ClientConfig>>, CliError> {
        if !self.url.is_tls() {
            return Ok(None);
        }
        let (made, path) = match (ca_file.map(Path::new), self.own_cert.as_deref()) {
            (None, Some(path)) => (tls::client_config_of(path), Some(path)),
            (path, _) => (tls::client_config(path), path),
        };
        let shown = path.unwrap_or(Path::new(""));
        made.map(Some).map_err(|cause| CliError::Failed(format!("certificates {}: {cause}", shown.display())))
    }
}

/// A TCP connection, to see whether anybody listens.
pub(super) fn connect(url: &HubUrl) -> io::Result<TcpStream> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let mut failure = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in url.host_and_port().to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A connection that bytes can be sent over, answers within five seconds; with TLS the hub has proven who it is, else
/// the error is [`ErrorKind::InvalidData`].
pub(super) fn dial(url: &HubUrl, trust: Option<&Arc<ClientConfig>>) -> io::Result<Transport> {
    let stream = connect(url)?;
    stream.set_nodelay(true)?;
    let transport = match trust {
        None => Transport::Plain(stream),
        Some(trust) => {
            let name = ServerName::try_from(url.host_and_port().0.to_owned());
            let name = name.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            let transport = Transport::connect(stream, Arc::clone(trust), name)?;
            transport.handshake(CONNECT_TIMEOUT)?;
            transport
        }
    };
    transport.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    transport.set_write_timeout(Some(WRITE_TIMEOUT))?;
    Ok(transport)
}
