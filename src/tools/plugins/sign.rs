//! Signatures of plugins: Ed25519 over the whole program, raw, in `<program>.sig` (contract engine 8.5).

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::config::SecurityConfig;

const PUBLIC: &str = "DENKEEPER ED25519 PUBLIC KEY";
const PRIVATE: &str = "DENKEEPER ED25519 PRIVATE KEY";
/// Programs are read whole to be verified; larger ones are hardly tool servers.
const PROGRAM_BYTES_MAX: u64 = 256 * 1024 * 1024;
const KEY_BYTES_MAX: u64 = 4096;
const SEED_BYTES: usize = 32;

/// A new key pair: the public half and the private one, as PEM.
pub fn new_keys() -> Result<(String, String), String> {
    let mut seed = [0; SEED_BYTES];
    getrandom::fill(&mut seed).map_err(|_| "the system gave no random bytes".to_owned())?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|error| error.to_string())?;
    let public = pair.public_key().as_ref();
    Ok((pem(PUBLIC, public), pem(PRIVATE, &[&seed[..], public].concat())))
}

/// The signature of a program.
pub fn sign(program: &Path, private_pem: &str) -> Result<Vec<u8>, String> {
    let key = unpem(PRIVATE, private_pem).filter(|key| key.len() == 2 * SEED_BYTES).ok_or("it is no private key")?;
    let pair = Ed25519KeyPair::from_seed_and_public_key(&key[..SEED_BYTES], &key[SEED_BYTES..]);
    let pair = pair.map_err(|_| "the private key is damaged")?;
    Ok(pair.sign(&read(program, PROGRAM_BYTES_MAX)?).as_ref().to_vec())
}

/// Whether one of these keys (PEM) signed a program; false when there is no signature. An error is a signature that is
/// wrong, or a key that is none.
pub fn verify(program: &Path, keys: &[String]) -> Result<bool, String> {
    let mut name = program.as_os_str().to_owned();
    name.push(".sig");
    let path = PathBuf::from(name);
    if !path.exists() {
        return Ok(false);
    }
    let keys = keys.iter().map(|key| {
        let found = unpem(PUBLIC, key).filter(|key| key.len() == SEED_BYTES);
        found.ok_or_else(|| "a trusted key is no public key".to_owned())
    });
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let signature = read(&path, KEY_BYTES_MAX)?;
    let text = read(program, PROGRAM_BYTES_MAX)?;
    let fits = |key: &Vec<u8>| UnparsedPublicKey::new(&ED25519, key).verify(&text, &signature).is_ok();
    if keys.iter().any(fits) {
        return Ok(true);
    }
    Err(format!("{} was made by no trusted key, or for another program", path.display()))
}

/// Whether a program may run as a plugin. Looks at the disk.
pub(in crate::tools) fn check(security: &SecurityConfig, command: &str) -> Result<(), String> {
    if security.trusted_keys.is_empty() {
        return Ok(());
    }
    let program = find(command).ok_or_else(|| format!("there is no program {command:?}"))?;
    let key = |key: &String| {
        if key.contains("-----BEGIN") {
            return Ok(key.clone());
        }
        read(Path::new(key), KEY_BYTES_MAX).map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    let keys = security.trusted_keys.iter().map(key).collect::<Result<Vec<_>, _>>();
    let keys = keys.map_err(|error| format!("security.trusted_keys: {error}"))?;
    match verify(&program, &keys) {
        Ok(true) => Ok(()),
        Ok(false) if security.allow_unsigned => {
            log::warn!("plugin program {}: it is not signed", program.display());
            Ok(())
        }
        Ok(false) => Err(format!("{} is not signed (sign it, or set security.allow_unsigned)", program.display())),
        Err(error) => Err(error),
    }
}

/// The program that a command means: a path, or the first of that name on PATH.
fn find(command: &str) -> Option<PathBuf> {
    if command.contains('/') {
        return Some(PathBuf::from(command));
    }
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(command)).find(|path| path.is_file())
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let about = fs::metadata(path).map_err(failed)?;
    if !about.is_file() || about.len() > bytes_max {
        return Err(format!("{}: it is no file of at most {bytes_max} bytes", path.display()));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}

fn pem(kind: &str, bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let mut lines = String::new();
    for line in text.as_bytes().chunks(64) {
        lines.push_str(&String::from_utf8_lossy(line));
        lines.push('\n');
    }
    format!("-----BEGIN {kind}-----\n{lines}-----END {kind}-----\n")
}

fn unpem(kind: &str, text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {kind}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {kind}-----"))?;
    STANDARD.decode(body.split_whitespace().collect::<String>()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_signed_is_what_runs() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("plugin");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        let (public, private) = new_keys().unwrap();
        let (other, _) = new_keys().unwrap();
        let key_file = dir.path().join("key.pub");
        fs::write(&key_file, &public).unwrap();
        let security = |keys: &[&str], allow_unsigned| SecurityConfig {
            trusted_keys: keys.iter().map(|&key| key.to_owned()).collect(),
            allow_unsigned,
        };
        let command = program.to_str().unwrap();
        let check = |keys: &[&str], allow| check(&security(keys, allow), command);
        assert!(check(&[], false).is_ok(), "nobody is trusted, nothing is asked");
        assert!(check(&[&public], true).is_ok());
        assert!(check(&[&public], false).unwrap_err().contains("not signed"));
        fs::write(dir.path().join("plugin.sig"), sign(&program, &private).unwrap()).unwrap();
        assert!(check(&[&other, &public], false).is_ok() && check(&[key_file.to_str().unwrap()], false).is_ok());
        assert!(check(&[&other], true).unwrap_err().contains("no trusted key"));
        fs::write(&program, "#!/bin/sh\nevil\n").unwrap();
        assert!(check(&[&public], true).unwrap_err().contains("another program"));
        assert!(check(&["/no/such/key"], true).unwrap_err().contains("trusted_keys"));
        assert!(sign(&program, &public).is_err() && verify(&program, &["x".to_owned()]).is_err());
    }
}
