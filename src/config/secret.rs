//! Secrets that stand elsewhere: in a variable, in a file, or sealed with the key of the data directory.
//!
//! Messages name the setting, never a value.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::env::Env;
use super::error::ConfigError;
use super::raw::Typed;

const SEALED: &str = "sealed:";
const NONCE_BYTES: usize = 12;
/// No key or token is longer; a larger file is the wrong file.
const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// Keeps this use of the data directory's secret apart from all others.
const PURPOSE: &[u8] = b"holt sealed setting v1\0";

/// The secret that a setting stands for; None when it is empty.
pub(super) fn read(
    typed: &Typed,
    key: &str,
    text: &str,
    env: &Env,
    data_dir: &Path,
) -> Result<Option<String>, ConfigError> {
    reveal(text, env, data_dir).map_err(|reason| typed.bad(key, reason))
}

/// What a text stands for: `env:NAME`, `${NAME}`, `file:/path`, `sealed:...`, or itself. None when it is empty. The
/// error is the reason alone.
pub(super) fn reveal(text: &str, env: &Env, data_dir: &Path) -> Result<Option<String>, String> {
    let braced = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let found = if let Some(name) = text.strip_prefix("env:").or(braced) {
        let missing = || format!("the variable {name} is not set");
        env.get(name).map(str::to_owned).ok_or_else(missing)
    } else if let Some(path) = text.strip_prefix("file:") {
        from_file(Path::new(path)).map_err(|reason| format!("{path}: {reason}"))
    } else if let Some(sealed) = text.strip_prefix(SEALED) {
        unseal(data_dir, sealed)
    } else {
        Ok(text.to_owned())
    };
    Ok(Some(found?).filter(|secret| !secret.is_empty()))
}

/// Whether a text says where a secret is, instead of being one.
pub fn is_reference(text: &str) -> bool {
    let is_braced = text.starts_with("${") && text.ends_with('}');
    is_braced || ["env:", "file:", SEALED].iter().any(|start| text.starts_with(start))
}

/// The first line of a file that only its user should be able to read.
fn from_file(path: &Path) -> Result<String, String> {
    if !path.is_absolute() {
        return Err("must be an absolute path".to_owned());
    }
    let file = OpenOptions::new().read(true).open(path).map_err(|error| error.to_string())?;
    let mode = file.metadata().map_err(|error| error.to_string())?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err("everybody on this machine can use it; run chmod 600 on it".to_owned());
    }
    let text = start_of(file)?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn start_of(file: File) -> Result<String, String> {
    let mut text = String::new();
    let n = file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if n as u64 > SECRET_BYTES_MAX { Err("is too large for a secret".to_owned()) } else { Ok(text) }
}

fn unseal(data_dir: &Path, sealed: &str) -> Result<String, String> {
    let path = data_dir.join("secret");
    let again = "seal the value again with `holt config seal`";
    let secret = File::open(&path)
        .map_err(|error| error.to_string())
        .and_then(start_of)
        .map_err(|reason| format!("cannot be opened, {}: {reason}; {again}", path.display()))?;
    let bytes = STANDARD.decode(sealed.trim()).map_err(|_| format!("is not a sealed value; {again}"))?;
    let opened = bytes.split_at_checked(NONCE_BYTES).and_then(|(nonce, sealed)| {
        let plain = cipher(&secret)?.decrypt(&Nonce::try_from(nonce).ok()?, sealed).ok()?;
        String::from_utf8(plain).ok()
    });
    opened.ok_or_else(|| format!("was sealed with another key than {}; {again}", path.display()))
}

/// Seals a secret under the text of the data directory's secret file, for a setting of that directory's Holt. None when
/// the system has no randomness to give.
pub fn seal(data_secret: &str, plain: &str) -> Option<String> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).ok()?;
    let sealed = cipher(data_secret)?.encrypt(&Nonce::from(nonce), plain.as_bytes()).ok()?;
    Some(format!("{SEALED}{}", STANDARD.encode([&nonce[..], &sealed].concat())))
}

fn cipher(data_secret: &str) -> Option<Aes256Gcm> {
    let mut hash = Sha256::new();
    hash.update(PURPOSE);
    hash.update(data_secret.trim().as_bytes());
    Aes256Gcm::new_from_slice(&hash.finalize()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "0123\n").unwrap();
        let sealed = seal("0123", "sk-grüße").unwrap();
        let body = sealed.strip_prefix(SEALED).unwrap();
        assert!(!sealed.contains("sk-"));
        assert_eq!(unseal(dir.path(), body).unwrap(), "sk-grüße");
        assert_ne!(seal("0123", "sk-grüße").unwrap(), sealed);
        for wrong in ["", "AAAA", "not base64!", &body[4..]] {
            assert!(unseal(dir.path(), wrong).unwrap_err().contains("holt config seal"), "{wrong}");
        }
        std::fs::write(dir.path().join("secret"), "4567").unwrap();
        assert!(unseal(dir.path(), body).unwrap_err().contains("another key"));
        std::fs::remove_file(dir.path().join("secret")).unwrap();
        assert!(unseal(dir.path(), body).unwrap_err().contains("secret"));
    }

    #[test]
    fn files_are_private_and_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let write = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            from_file(&path)
        };
        assert_eq!(write("sk-1\r\n", 0o600), Ok("sk-1".to_owned()));
        assert_eq!(write("sk-1", 0o640), Ok("sk-1".to_owned()));
        assert!(write("sk-1", 0o644).unwrap_err().contains("chmod 600"));
        assert!(write("\n", 0o600).unwrap_err().contains("empty"));
        assert!(write(&"x".repeat(70_000), 0o600).unwrap_err().contains("too large"));
        assert!(from_file(Path::new("relative")).unwrap_err().contains("absolute"));
        assert!(from_file(&dir.path().join("missing")).is_err());
    }
}
