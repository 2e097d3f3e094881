//! Certificate and key, read from PEM files and checked before anything is put in force.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;

/// A chain of a few certificates is 10 KB.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Why a certificate or its key cannot be used. `Display` names the setting and says what to do.
#[derive(Debug)]
pub struct TlsError {
    /// The key of the configuration that is to blame.
    pub key: &'static str,
    /// What is wrong, with the file's path.
    pub reason: String,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

impl std::error::Error for TlsError {}

/// Tells two states of the files apart: when they were changed, and which they are.
pub(super) type Stamp = [Option<(i64, i64, u64, u64)>; 2];

pub(super) fn stamp(files: &TlsFiles) -> Stamp {
    [&files.cert_file, &files.key_file].map(|path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.mtime(), meta.mtime_nsec(), meta.ino(), meta.len()))
    })
}

/// The configuration of a server with the certificate of these files, and the certificate's PEM.
pub(super) fn load(files: &TlsFiles) -> Result<(ServerConfig, Vec<u8>), TlsError> {
    let cert_fail = |reason: String| fail("api.cert_file", &files.cert_file, reason);
    let key_fail = |reason: String| fail("api.key_file", &files.key_file, reason);
    let (cert_pem, _) = read(&files.cert_file).map_err(cert_fail)?;
    let chain = CertificateDer::pem_slice_iter(&cert_pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| cert_fail(pem_reason(&error)))?;
    if chain.is_empty() {
        return Err(cert_fail("holds no certificate; it must be PEM (-----BEGIN CERTIFICATE-----)".to_owned()));
    }
    let (key_pem, mode) = read(&files.key_file).map_err(key_fail)?;
    if mode & 0o077 != 0 {
        let path = files.key_file.display();
        return Err(key_fail(format!("others may read it (mode {:03o}); run: chmod 600 {path}", mode & 0o777)));
    }
    let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|error| {
        key_fail(match error {
            pem::Error::NoItemsFound if is_encrypted(&key_pem) => {
                "is locked with a password; store it without: openssl pkey -in KEY -out PLAIN_KEY".to_owned()
            }
            pem::Error::NoItemsFound => "holds no private key; it must be PEM (PKCS#8, PKCS#1 or SEC1)".to_owned(),
            other => pem_reason(&other),
        })
    })?;
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| key_fail(error.to_string()))?;
    let config = builder.with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            key_fail(format!("is not the key of the certificate in {}", files.cert_file.display()))
        }
        rustls::Error::InvalidCertificate(_) => cert_fail(format!("the first certificate cannot be used: {error}")),
        _ => key_fail(format!("the key cannot be used: {error}")),
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // One is enough to come back with; each costs its client a line and us a place among those that are remembered.
    config.send_tls13_tickets = 1;
    Ok((config, cert_pem))
}

fn fail(key: &'static str, path: &Path, reason: String) -> TlsError {
    TlsError { key, reason: format!("{}: {reason}", path.display()) }
}

/// The content and the mode of a file.
fn read(path: &Path) -> Result<(Vec<u8>, u32), String> {
    let tell = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    };
    let meta = std::fs::metadata(path).map_err(tell)?;
    // A pipe would block, or never end.
    if !meta.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(tell)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {} KiB", FILE_BYTES_MAX / 1024));
    }
    Ok((bytes, meta.permissions().mode()))
}

fn pem_reason(error: &pem::Error) -> String {
    format!("is not proper PEM: {error}")
}

fn is_encrypted(pem: &[u8]) -> bool {
    String::from_utf8_lossy(pem).contains("ENCRYPTED")
}
