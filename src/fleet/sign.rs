//! The hub's key: what its machines know it by (contract agent-link 8, points 4 and 5). Ed25519; the agent pins the
//! public half and believes no `session_start` that is not signed with it, for this machine, now, once.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha256};

use crate::fleet::wire::{SessionStart, Signature};
use crate::rt::json;
use crate::rt::order::gather;
use crate::rt::text::hex;

/// A signature counts this long before and after its time: clocks of small machines drift. The agent remembers nonces
/// for as long.
pub const WINDOW_MS: i64 = 120_000;
/// The file of the private half, in the data directory.
const FILE: &str = "hub-key";
const SEED_BYTES: usize = 32;
/// What a text is signed for, so that no signature serves for anything else.
const FOR_START: &str = "holt session_start 1";
const FOR_PROOF: &str = "holt hub proof 1";

/// Why a key or a signature is not accepted.
#[derive(Debug)]
pub enum SignError {
    /// The file of the hub's key cannot be read or made, or is damaged.
    File { path: String, cause: String },
    /// The public key is not base64 of 32 bytes.
    Key,
    /// Signed by another key, for another machine, or changed on the way.
    Wrong,
    /// Signed too long ago, or ahead of the clock here, by that many seconds.
    Stale { seconds: i64 },
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, cause } => write!(f, "the hub's key {path}: {cause}"),
            Self::Key => write!(f, "the hub's public key is damaged"),
            Self::Wrong => write!(f, "not signed by the hub that this machine joined"),
            Self::Stale { seconds } => {
                write!(f, "signed {seconds} s from now; check the clocks of hub and machine")
            }
        }
    }
}

impl std::error::Error for SignError {}

/// The hub's key pair. No `Debug`: it holds a secret.
pub struct HubKey {
    pair: Ed25519KeyPair,
}

impl HubKey {
    /// The key of that data directory, made at the first call (0600). Several processes may call this at once: they
    /// get the same key.
    pub fn read_or_make(data_dir: &Path) -> Result<Self, SignError> {
        let path = data_dir.join(FILE);
        let fail = |cause: String| SignError::File { path: path.display().to_string(), cause };
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make(&path).and_then(|()| fs::read_to_string(&path)).map_err(|error| fail(error.to_string()))?
            }
            read => read.map_err(|error| fail(error.to_string()))?,
        };
        let seed = STANDARD.decode(text.trim()).ok().filter(|seed| seed.len() == SEED_BYTES);
        let pair = seed.and_then(|seed| Ed25519KeyPair::from_seed_unchecked(&seed).ok());
        match pair {
            Some(pair) => Ok(Self { pair }),
            None => Err(fail("it is damaged; remove it, and machines must join anew".to_owned())),
        }
    }

    /// The public half, as `hub_key` in an `ack`.
    pub fn public_base64(&self) -> String {
        STANDARD.encode(self.pair.public_key().as_ref())
    }

    /// What join codes carry: see [`fingerprint`].
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(self.pair.public_key().as_ref())[..16])
    }

    /// Proof for an agent that sent `nonce` with its registration: `hub_proof`.
    pub fn prove(&self, agent_id: &str, nonce: &str) -> String {
        STANDARD.encode(self.pair.sign(&lines(&[FOR_PROOF, agent_id, nonce])).as_ref())
    }

    /// Signs a `session_start` to that agent under that message id.
    pub fn sign_start(&self, agent_id: &str, message_id: &str, start: &SessionStart, now_ms: i64) -> Signature {
        let mut random = [0_u8; 16];
        let nonce = match getrandom::fill(&mut random) {
            Ok(()) => hex(&random),
            // Message ids are not used twice either.
            Err(_) => message_id.to_owned(),
        };
        let text = start_text(agent_id, message_id, start, now_ms, &nonce);
        Signature { time: now_ms, nonce, value: STANDARD.encode(self.pair.sign(&text).as_ref()) }
    }
}

/// Lower-case hex of the first 16 bytes of SHA-256 of a public key (base64); None when it is no key.
pub fn fingerprint(public_base64: &str) -> Option<String> {
    decode_key(public_base64).ok().map(|key| hex(&Sha256::digest(&key)[..16]))
}

/// Whether the holder of that key (base64) answered our nonce.
pub fn verify_proof(key: &str, agent_id: &str, nonce: &str, proof: &str) -> Result<(), SignError> {
    verify(key, &lines(&[FOR_PROOF, agent_id, nonce]), proof)
}

/// Whether the hub with that key (base64) wants this of this agent now. That the nonce is new is for the caller to see.
pub fn verify_start(
    key: &str,
    agent_id: &str,
    message_id: &str,
    start: &SessionStart,
    signature: &Signature,
    now_ms: i64,
) -> Result<(), SignError> {
    let text = start_text(agent_id, message_id, start, signature.time, &signature.nonce);
    verify(key, &text, &signature.value)?;
    let off_ms = now_ms.saturating_sub(signature.time).saturating_abs();
    if off_ms > WINDOW_MS { Err(SignError::Stale { seconds: off_ms / 1000 }) } else { Ok(()) }
}

fn verify(key: &str, text: &[u8], signature: &str) -> Result<(), SignError> {
    let key = decode_key(key)?;
    let signature = STANDARD.decode(signature).map_err(|_| SignError::Wrong)?;
    UnparsedPublicKey::new(&ED25519, key).verify(text, &signature).map_err(|_| SignError::Wrong)
}

fn decode_key(public_base64: &str) -> Result<Vec<u8>, SignError> {
    STANDARD.decode(public_base64.trim()).ok().filter(|key| key.len() == 32).ok_or(SignError::Key)
}

fn start_text(agent_id: &str, message_id: &str, start: &SessionStart, time: i64, nonce: &str) -> Vec<u8> {
    let params = hex(&Sha256::digest(json::to_vec(&canonical(&start.params))));
    lines(&[
        FOR_START,
        agent_id,
        message_id,
        &time.to_string(),
        nonce,
        &start.session_id,
        &start.session_type,
        &start.user_name,
        &params,
    ])
}

/// One text a line, each as a JSON string: a line end inside of one cannot look like the next.
fn lines(texts: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for text in texts {
        json::push_str(&mut out, text);
        out.push(b'\n');
    }
    out
}

/// The same object with its names in byte order, whatever the map keeps.
fn canonical(
    params: &serde_json::Map<String, serde_json::Value>,
) -> std::collections::BTreeMap<&str, &serde_json::Value> {
    gather(params.iter().map(|(name, value)| (name.as_str(), value)))
}

/// Whole or not at all, and never over the key that another process has just made.
fn make(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut seed = [0_u8; SEED_BYTES];
    getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
    let aside = path.with_file_name(format!("{FILE}.{}", std::process::id()));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
    file.write_all(STANDARD.encode(seed).as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&aside, path);
    fs::remove_file(&aside)?;
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn key() -> (tempfile::TempDir, HubKey) {
        let dir = tempfile::tempdir().unwrap();
        let key = HubKey::read_or_make(dir.path()).unwrap();
        (dir, key)
    }

    fn start() -> SessionStart {
        let params = serde_json::json!({"message": "Why <so> slow?", "b": 1, "a": {"z": null}});
        SessionStart {
            session_id: "s-1".into(),
            session_type: "chat".into(),
            user_name: "ana".into(),
            params: params.as_object().cloned().unwrap_or_default(),
        }
    }

    #[test]
    fn a_key_is_made_once_and_private() {
        let (dir, key) = key();
        let again = HubKey::read_or_make(dir.path()).unwrap();
        assert_eq!(key.public_base64(), again.public_base64());
        assert_eq!(fingerprint(&key.public_base64()), Some(key.fingerprint()));
        assert_eq!(key.fingerprint().len(), 32);
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(dir.path().join(FILE), "short").unwrap();
        assert!(matches!(HubKey::read_or_make(dir.path()), Err(SignError::File { .. })));
    }

    #[test]
    fn a_proof_is_for_one_agent_and_nonce() {
        let (_dir, key) = key();
        let proof = key.prove("agent", "nonce");
        assert!(verify_proof(&key.public_base64(), "agent", "nonce", &proof).is_ok());
        assert!(matches!(verify_proof(&key.public_base64(), "other", "nonce", &proof), Err(SignError::Wrong)));
        assert!(matches!(verify_proof(&key.public_base64(), "agent", "n\n", &proof), Err(SignError::Wrong)));
        assert!(matches!(verify_proof("AA==", "agent", "nonce", &proof), Err(SignError::Key)));
        let (_other_dir, other) = self::key();
        assert!(matches!(verify_proof(&other.public_base64(), "agent", "nonce", &proof), Err(SignError::Wrong)));
    }

    #[test]
    fn a_start_counts_for_what_was_signed_and_not_for_long() {
        let (_dir, key) = key();
        let public = key.public_base64();
        let now = 1_767_323_045_000;
        let signature = key.sign_start("agent", "m-1", &start(), now);
        let check = |agent: &str, message: &str, start: &SessionStart, at: i64| {
            verify_start(&public, agent, message, start, &signature, at)
        };
        assert!(check("agent", "m-1", &start(), now + WINDOW_MS).is_ok());
        assert!(matches!(
            check("agent", "m-1", &start(), now + WINDOW_MS + 1000),
            Err(SignError::Stale { seconds: 121 })
        ));
        assert!(matches!(check("agent", "m-1", &start(), now - WINDOW_MS - 1000), Err(SignError::Stale { .. })));
        assert!(check("other", "m-1", &start(), now).is_err());
        assert!(check("agent", "m-2", &start(), now).is_err());
        for change in [
            |start: &mut SessionStart| start.session_id = "s-2".into(),
            |start: &mut SessionStart| start.session_type = "diagnose".into(),
            |start: &mut SessionStart| start.user_name = "ana\n".into(),
            |start: &mut SessionStart| drop(start.params.insert("a".into(), serde_json::json!({"z": 0}))),
        ] {
            let mut changed = start();
            change(&mut changed);
            assert!(matches!(check("agent", "m-1", &changed, now), Err(SignError::Wrong)));
        }
        // The same over the wire.
        let sent = serde_json::to_vec(&start()).unwrap();
        assert!(check("agent", "m-1", &serde_json::from_slice(&sent).unwrap(), now).is_ok());
        let second = key.sign_start("agent", "m-1", &start(), now);
        assert_ne!(second.nonce, signature.nonce);
    }
}
