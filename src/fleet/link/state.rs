//! What an agent keeps between runs: who it is, which hub it belongs to and with what credential. Files of the state
//! directory, readable by their user only, replaced whole.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::LinkError;
use crate::rt::text::hex;

/// Keeps this use of the machine's id apart from all others: it is not to be told to anybody.
const MACHINE_PURPOSE: &[u8] = b"holt agent machine v1\0";
const ID_FILE: &str = "agent_id";
const HUB_FILE: &str = "hub.json";
const LOCK_FILE: &str = "lock";

/// A state directory that this process alone uses.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    agent_id: String,
    /// Holds the lock until it is dropped; the system lets go of it when the process dies.
    _lock: File,
}

/// The hub that this machine belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Its address, as it was given.
    pub address: String,
    /// A file of certificates that its TLS may be signed by; empty for none.
    pub ca_file: String,
    /// What it knows this machine by: a machine token, the secret of a join code, or a token that asks for approval.
    pub token: String,
    /// First half of SHA-256 of the hub's public key, in hex: from the join code. Empty when nobody said.
    pub fingerprint: String,
    /// The hub's public key (base64), once it has proven to hold it. Empty before.
    pub hub_key: String,
    /// Names the configured token that `token` came for: another configured token begins afresh.
    pub replaces: String,
}

impl StateDir {
    /// Takes the directory, which is made (0700) when it is not there, and the agent's id in it. A directory that was
    /// copied from another machine gets a new id, and its credential is put away.
    ///
    /// Fails when another process uses it, when it cannot be written, and when the id is damaged: a new id would make
    /// this machine a stranger to its hub.
    pub fn open(path: &Path) -> Result<Self, LinkError> {
        let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        Self::open_as(path, machine.trim())
    }

    fn open_as(path: &Path, machine_id: &str) -> Result<Self, LinkError> {
        let fail = |error: io::Error| LinkError::State { path: path.display().to_string(), cause: error.to_string() };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fail)?;
        let lock_path = path.join(LOCK_FILE);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.map_err(fail)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(LinkError::InUse { path: path.display().to_string() });
        }
        let machine = if machine_id.is_empty() {
            String::new()
        } else {
            hex(&Sha256::new().chain_update(MACHINE_PURPOSE).chain_update(machine_id).finalize()[..16])
        };
        let id_path = path.join(ID_FILE);
        let agent_id = match std::fs::read_to_string(&id_path) {
            Ok(text) => {
                let (id, of_machine) =
                    parse_id(&text).ok_or_else(|| LinkError::Identity { path: id_path.display().to_string() })?;
                if !machine.is_empty() && !of_machine.is_empty() && of_machine != machine {
                    log::warn!("{} was copied from another machine: this one gets an id of its own", path.display());
                    set_aside(path).map_err(fail)?;
                    new_id(&id_path, &machine).map_err(fail)?
                } else {
                    id
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => new_id(&id_path, &machine).map_err(fail)?,
            // Not text at all.
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return Err(LinkError::Identity { path: id_path.display().to_string() });
            }
            Err(error) => return Err(fail(error)),
        };
        Ok(Self { path: path.to_owned(), agent_id, _lock: lock })
    }

    /// The agent's id: a UUID in lower case.
    pub fn agent_id(&self) -> &str {
        &self.agent_id
    }

    /// A file of the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The hub that this machine belongs to; all empty at first.
    pub fn membership(&self) -> Result<Membership, LinkError> {
        let path = self.file(HUB_FILE);
        let fail = |cause: String| LinkError::State { path: path.display().to_string(), cause };
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Membership::default()),
            read => read.map_err(|error| fail(error.to_string()))?,
        };
        let value: Value = serde_json::from_str(&text)
            .map_err(|_| fail("it is damaged; remove it, and join the hub again".to_owned()))?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Membership {
            address: text("address"),
            ca_file: text("ca_file"),
            token: text("token"),
            fingerprint: text("fingerprint"),
            hub_key: text("hub_key"),
            replaces: text("replaces"),
        })
    }

    /// Keeps it; on the disk when this returns.
    pub fn store(&self, hub: &Membership) -> Result<(), LinkError> {
        let path = self.file(HUB_FILE);
        let value = json!({
            "address": hub.address, "ca_file": hub.ca_file, "token": hub.token, "fingerprint": hub.fingerprint,
            "hub_key": hub.hub_key, "replaces": hub.replaces,
        });
        replace(&path, value.to_string().as_bytes())
            .map_err(|error| LinkError::State { path: path.display().to_string(), cause: error.to_string() })
    }
}

/// A random UUID, version 4. The system's source of randomness does not fail once the machine is up.
pub(super) fn uuid() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex(&bytes);
    Ok([&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-"))
}

/// First half of SHA-256 of a token: names it without telling it. People compare its first 8 digits.
pub(super) fn name_of_token(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes())[..16])
}

fn new_id(path: &Path, machine: &str) -> io::Result<String> {
    let id = uuid()?;
    replace(path, format!("{id}\n{machine}\n").as_bytes())?;
    Ok(id)
}

fn parse_id(text: &str) -> Option<(String, String)> {
    let mut lines = text.lines();
    let (id, machine) = (lines.next()?, lines.next().unwrap_or(""));
    let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let lengths: Vec<usize> = id.split('-').map(str::len).collect();
    let good = lengths == [8, 4, 4, 4, 12] && id.split('-').all(is_hex) && is_hex(machine) && lines.next().is_none();
    good.then(|| (id.to_owned(), machine.to_owned()))
}

/// Puts away what belongs to the machine that the directory was copied from. Its alerts are that machine's to send.
fn set_aside(dir: &Path) -> io::Result<()> {
    for name in [ID_FILE, HUB_FILE, super::SPOOL_FILE] {
        match std::fs::rename(dir.join(name), dir.join(format!("{name}.of-other-machine"))) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Whole or not at all: written aside, synced, renamed.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_id_is_made_once_and_bound_to_its_machine() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let open = |machine: &str| StateDir::open_as(&path, machine);
        let first = open("m1").unwrap().agent_id().to_owned();
        assert_eq!(open("m1").unwrap().agent_id(), first);
        assert_eq!(open("").unwrap().agent_id(), first, "nobody knows better");
        let mode = |name: &str| std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("agent_id"), 0o600);
        let state = open("m1").unwrap();
        state.store(&Membership { token: "hm_x".into(), address: "h".into(), ..Membership::default() }).unwrap();
        assert_eq!(mode("hub.json"), 0o600);
        assert_eq!(state.membership().unwrap().token, "hm_x");
        assert!(matches!(open("m1"), Err(LinkError::InUse { .. })), "one agent per directory");
        drop(state);
        let clone = open("m2").unwrap();
        assert_ne!(clone.agent_id(), first);
        assert_eq!(clone.membership().unwrap(), Membership::default(), "the credential is the other machine's");
    }

    #[test]
    fn a_damaged_id_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let good = StateDir::open_as(dir.path(), "m").unwrap().agent_id().to_owned();
        for text in [&b""[..], b"\n", b"x", &good.as_bytes()[1..], b"\xff\xfe", good.to_uppercase().as_bytes(), b"----"]
        {
            std::fs::write(dir.path().join("agent_id"), text).unwrap();
            let error = StateDir::open_as(dir.path(), "m").unwrap_err().to_string();
            assert!(error.contains("agent_id") && error.contains("damaged"), "{error}");
        }
        // Without its machine, as the reference writes it, it is taken.
        std::fs::write(dir.path().join("agent_id"), &good).unwrap();
        assert_eq!(StateDir::open_as(dir.path(), "m").unwrap().agent_id(), good);
    }
}
