//! Our side of TLS: the certificate in force, and how it is replaced while connections come.

use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use rustls::server::StoresServerSessions;
use rustls::{Connection, ServerConfig, ServerConnection};

use crate::config::TlsFiles;
use crate::rt::lock;
use crate::tls::files::{self, Stamp, TlsError};
use crate::tls::transport::Transport;

/// Says what is odd about certificates that work all the same, such as that they have ended.
type Judge = Box<dyn Fn(&[u8]) -> Option<String> + Send + Sync>;

/// Makes TLS of accepted sockets.
pub struct Acceptor {
    judge: Judge,
    /// Sessions that clients may come back to; they outlive a change of the certificate.
    sessions: Arc<dyn StoresServerSessions>,
    /// Guarded by this mutex: what new connections get. Nothing is taken under it, no file is read under it.
    current: Mutex<Arc<ServerConfig>>,
    /// Guarded by this mutex: where it came from. Nothing is taken under it.
    source: Mutex<Source>,
}

struct Source {
    files: TlsFiles,
    /// As they were when they were last looked at, good or bad.
    stamp: Stamp,
}

/// A certificate and its key, read and found good.
pub struct Certificate {
    files: TlsFiles,
    stamp: Stamp,
    config: ServerConfig,
    pem: Vec<u8>,
}

impl Certificate {
    /// Reads certificate and key, as a start would.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        // Before the files are read: what changes in between is read again.
        let stamp = files::stamp(files);
        let (config, pem) = files::load(files)?;
        Ok(Self { files: files.clone(), stamp, config, pem })
    }
}

impl Acceptor {
    /// Begins with a certificate. `judge` gets the PEM of each and may have a warning for the log.
    pub fn new(certificate: Certificate, judge: impl Fn(&[u8]) -> Option<String> + Send + Sync + 'static) -> Self {
        let Certificate { files, stamp, config, pem } = certificate;
        let sessions = Arc::clone(&config.session_storage);
        let current = Mutex::new(Arc::new(config));
        let source = Mutex::new(Source { files, stamp });
        let acceptor = Self { judge: Box::new(judge), sessions, current, source };
        acceptor.warn(&pem);
        acceptor
    }

    /// New connections get this certificate; those that exist keep what they have.
    pub fn put_in_force(&self, certificate: Certificate) {
        let Certificate { files, stamp, mut config, pem } = certificate;
        config.session_storage = Arc::clone(&self.sessions);
        *lock(&self.current) = Arc::new(config);
        log::info!("the certificate in {} is in force", files.cert_file.display());
        *lock(&self.source) = Source { files, stamp };
        self.warn(&pem);
    }

    /// Puts in force what the files hold now, if they were changed since they were last looked at. When they cannot be
    /// used, the certificate that is in force stays, and the log says so once.
    pub fn reload_if_changed(&self) {
        let files = {
            let mut source = lock(&self.source);
            let stamp = files::stamp(&source.files);
            if stamp == source.stamp {
                return;
            }
            source.stamp = stamp;
            source.files.clone()
        };
        match Certificate::load(&files) {
            Ok(certificate) => self.put_in_force(certificate),
            Err(error) => log::error!("the old certificate stays in force: {error}"),
        }
    }

    /// Speaks TLS on a socket from now on, which does not block any more.
    pub fn accept(&self, socket: TcpStream) -> io::Result<Transport> {
        let config = Arc::clone(&lock(&self.current));
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        Transport::secure(socket, Connection::Server(tls))
    }

    fn warn(&self, pem: &[u8]) {
        if let Some(warning) = (self.judge)(pem) {
            log::warn!("{}: {warning}", lock(&self.source).files.cert_file.display());
        }
    }
}
