//! TLS as clients speak it, and certificates: a CA and what it signed, valid for a hundred years unless the name says
//! otherwise; names `localhost`, `hub.test`, `127.0.0.1` and `::1`.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::PATIENCE;

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A file of `tests/it/certs`.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/certs").join(name)
}

/// Copies a certificate and a key to where [`put`] had them put before, as a renewal does.
pub fn replace(dir: &Path, cert: &str, key: &str) {
    for (name, to) in [(cert, "cert.pem"), (key, "key.pem")] {
        let new = dir.join("new.pem");
        std::fs::write(&new, std::fs::read(file(name)).unwrap()).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(new, dir.join(to)).unwrap();
    }
}

/// Copies a certificate and a key into the hub's directory; the configuration that names them.
pub fn put(dir: &Path, cert: &str, key: &str) -> String {
    replace(dir, cert, key);
    let shown = dir.display();
    format!("[api]\ntls = true\ncert_file = \"{shown}/cert.pem\"\nkey_file = \"{shown}/key.pem\"")
}

/// Believes exactly that certificate.
pub fn pinned(cert: &Path) -> Arc<ClientConfig> {
    holt::tls::client_config_of(cert).unwrap()
}

/// Believes what the CA signed, as any client does.
pub fn strict(versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A TCP connection and TLS on it, the handshake still to be made.
pub fn dial(address: &str, config: &Arc<ClientConfig>) -> Stream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    StreamOwned::new(
        ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost").unwrap()).unwrap(),
        socket,
    )
}
