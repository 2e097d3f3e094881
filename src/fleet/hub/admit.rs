//! Who may come: the credential decides which machine it is, never what a message says (contract agent-link 2.4, 8).

use std::sync::atomic::Ordering;

use subtle::ConstantTimeEq;

use crate::audit::{Entry, Outcome};
use crate::fleet::hub::Fleet;
use crate::limits;
use crate::rt::{Headers, Slot};
use crate::store::StoreError;
use crate::store::join_codes::split_join_code;
use crate::store::machines::{MachineState, hash_token};

/// A token that a machine made itself and asks with; shorter ones can be guessed.
const REQUEST_BYTES_MIN: usize = 35;

/// A machine that may connect.
pub struct Admission {
    pub(super) machine_id: String,
    pub(super) address: String,
    pub(super) kind: Kind,
    /// Its place among all connections.
    pub(super) _slot: Slot,
}

/// With what it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its own token; the hash when that is the successor that it was given.
    Token {
        next: Option<String>,
    },
    Shared,
    /// It asks to take part, with a token of that hash.
    Request {
        hash: String,
    },
}

/// Why a machine is turned away before the upgrade.
#[derive(Debug)]
pub enum Refused {
    /// No `X-Proto-Version`, or another one than 1.
    Version,
    /// `X-Agent-ID` is no UUID.
    Id,
    /// No token, or one that counts for nothing, or for another machine.
    Token,
    /// The token is right, and nobody has approved the machine, or somebody has revoked it.
    NotApproved,
    /// Too many wrong tokens from there; wait that many seconds.
    Throttled {
        seconds: u64,
    },
    /// Too many machines are connected, or the hub is stopping.
    Full,
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fleet {
    /// Whether a machine may connect. `address` is where it comes from. A join code is used up by this.
    pub fn admit(&self, headers: &Headers, address: &str) -> Result<Admission, Refused> {
        let (token, machine_id) = shown(headers)?;
        if headers.get("x-proto-version").map(str::trim) != Some("1") {
            return Err(Refused::Version);
        }
        let slot = Slot::take(&self.open, limits::AGENTS_MAX).filter(|_| !self.closing.load(Ordering::Acquire));
        let Some(slot) = slot else { return Err(Refused::Full) };
        let kind = self.kind_of(token, &machine_id, address)?;
        Ok(Admission { machine_id, address: address.to_owned(), kind, _slot: slot })
    }

    /// The approved machine that a request comes from; for routes beside the link. Uses up no join code.
    pub fn recognise(&self, headers: &Headers, address: &str) -> Result<String, Refused> {
        let (token, machine_id) = shown(headers)?;
        let hash = hash_of(token);
        let is_known = match self.machines.owner_of(&hash)? {
            Some(owner) if owner.id == machine_id && owner.state != MachineState::Approved => {
                return Err(Refused::NotApproved);
            }
            Some(owner) => owner.id == machine_id,
            None => self.is_shared(&hash) && self.machines.admit_shared(&machine_id)?,
        };
        if is_known { Ok(machine_id) } else { Err(self.refuse(&machine_id, address, "unknown token")) }
    }

    fn kind_of(&self, token: &str, machine_id: &str, address: &str) -> Result<Kind, Refused> {
        let hash = hash_of(token);
        if let Some(owner) = self.machines.owner_of(&hash)? {
            if owner.id != machine_id {
                let detail = format!("the token of machine {} with another id", owner.id);
                return Err(self.refuse(machine_id, address, &detail));
            }
            return Ok(match owner.state {
                MachineState::Pending => Kind::Request { hash },
                _ => Kind::Token { next: owner.is_next.then_some(hash) },
            });
        }
        if self.is_shared(&hash) {
            if self.machines.admit_shared(machine_id)? {
                return Ok(Kind::Shared);
            }
            return Err(self.refuse(machine_id, address, "the shared token with the id of another machine"));
        }
        if token.starts_with("hj_") {
            if !self.codes.redeem(&hash, machine_id)? {
                return Err(self.refuse(machine_id, address, "unknown, used or expired join code"));
            }
            log::info!("machine {machine_id} joined from {address}");
            self.audit.record(&Entry { target: machine_id, source: address, ..Entry::ok("machine.join") });
            return Ok(Kind::Token { next: None });
        }
        if token.starts_with("hr_") && token.len() >= REQUEST_BYTES_MIN && self.config.approval_requests {
            // Each is a row: strangers may not write as many as they like.
            self.throttle.attempt(address).map_err(|seconds| Refused::Throttled { seconds })?;
            return Ok(Kind::Request { hash });
        }
        Err(self.refuse(machine_id, address, "unknown token"))
    }

    fn is_shared(&self, hash: &str) -> bool {
        self.shared_hash.as_ref().is_some_and(|shared| bool::from(shared.as_bytes().ct_eq(hash.as_bytes())))
    }

    fn refuse(&self, machine_id: &str, address: &str, detail: &str) -> Refused {
        if let Err(seconds) = self.throttle.attempt(address) {
            return Refused::Throttled { seconds };
        }
        log::warn!("machine {machine_id} from {address} was refused: {detail}");
        let entry = Entry {
            target: machine_id,
            source: address,
            detail,
            result: Outcome::Denied,
            ..Entry::ok("machine.connect")
        };
        self.audit.record_repeatable(&entry);
        Refused::Token
    }
}

/// Token and id of a request, as far as they can be such.
fn shown(headers: &Headers) -> Result<(&str, String), Refused> {
    let named = |name: &str| headers.get(name).map(str::trim).filter(|token| !token.is_empty());
    let token = named("x-agent-token").or_else(|| named("x-tenant-token")).ok_or(Refused::Token)?;
    let id = headers.get("x-agent-id").map_or("", str::trim).to_ascii_lowercase();
    let is_uuid = id.len() == 36
        && id.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    if is_uuid { Ok((token, id)) } else { Err(Refused::Id) }
}

/// Of a join code only the secret counts; an agent that knows nothing of fingerprints sends all of it.
fn hash_of(token: &str) -> String {
    hash_token(split_join_code(token).map_or(token, |(secret, _)| secret))
}
