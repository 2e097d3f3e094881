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
    /// Guarded by this mutex: where it came from. Held over reading the files, so that two reloads come one after the
    /// other.
    source: Mutex<Source>,
}

struct Source {
    files: TlsFiles,
    /// As they were when they were last looked at, good or bad.
    stamp: Stamp,
}

impl Acceptor {
    /// Reads certificate and key. `judge` gets the certificates' PEM and may have a warning for the log.
    pub fn load(
        files: &TlsFiles,
        judge: impl Fn(&[u8]) -> Option<String> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let stamp = files::stamp(files);
        let (config, pem) = files::load(files)?;
        if let Some(warning) = judge(&pem) {
            log::warn!("{}: {warning}", files.cert_file.display());
        }
        Ok(Self {
            judge: Box::new(judge),
            sessions: Arc::clone(&config.session_storage),
            current: Mutex::new(Arc::new(config)),
            source: Mutex::new(Source { files: files.clone(), stamp }),
        })
    }

    /// Whether a start with these files would work.
    pub fn check(files: &TlsFiles) -> Result<(), TlsError> {
        files::load(files).map(|_| ())
    }

    /// Reads the files again, or other files; connections that exist keep what they have. On an error the certificate
    /// that was in force stays, and the log says so.
    pub fn reload(&self, files: &TlsFiles) -> Result<(), TlsError> {
        let mut source = lock(&self.source);
        source.files = files.clone();
        self.read_again(&mut source)
    }

    /// Like [`Acceptor::reload`] with the same files, if they were changed since they were last looked at.
    pub fn reload_if_changed(&self) {
        let mut source = lock(&self.source);
        if files::stamp(&source.files) != source.stamp {
            // The log has its error.
            let _ = self.read_again(&mut source);
        }
    }

    /// Speaks TLS on a socket from now on, which does not block any more.
    pub fn accept(&self, socket: TcpStream) -> io::Result<Transport> {
        let config = Arc::clone(&lock(&self.current));
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        Transport::secure(socket, Connection::Server(tls))
    }

    fn read_again(&self, source: &mut Source) -> Result<(), TlsError> {
        source.stamp = files::stamp(&source.files);
        match files::load(&source.files) {
            Ok((mut config, pem)) => {
                config.session_storage = Arc::clone(&self.sessions);
                *lock(&self.current) = Arc::new(config);
                log::info!("the certificate in {} is in force", source.files.cert_file.display());
                if let Some(warning) = (self.judge)(&pem) {
                    log::warn!("{}: {warning}", source.files.cert_file.display());
                }
                Ok(())
            }
            Err(error) => {
                log::error!("the old certificate stays in force: {error}");
                Err(error)
            }
        }
    }
}
