//! Logins that somebody has begun and not ended yet: one per server, five minutes each, a state counts once (contract
//! http-api 11.2; W-44).

use std::sync::Mutex;
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use super::Place;
use crate::net::oauth::ClientAuth;
use crate::rt::lock;

/// Contract http-api 11.2.
const AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// More servers than may be configured; the oldest goes first.
const PENDING_MAX: usize = 64;

/// A login that waits for a person. Holds secrets: no `Debug`.
#[derive(Clone)]
pub struct Pending {
    /// 32 hex characters.
    pub id: String,
    pub tool: String,
    /// The page that a person has to open.
    pub auth_url: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Who began it, for the audit log.
    pub actor: String,
    pub(super) begun: Instant,
    pub(super) state: String,
    pub(super) verifier: String,
    pub(super) client: ClientAuth,
    pub(super) token_url: String,
    pub(super) redirect_uri: String,
    pub(super) resource: String,
    pub(super) scopes: String,
    pub(super) issuer: String,
    pub(super) names_issuer: bool,
    pub(super) place: Place,
}

/// All of them.
pub struct PendingMgr {
    /// Where authorization servers send browsers back to.
    redirect_uri: String,
    /// Guarded by the mutex: the oldest first. Nothing is taken under it.
    all: Mutex<Vec<Pending>>,
}

impl PendingMgr {
    /// None yet; browsers come back to `redirect_uri`.
    pub fn new(redirect_uri: String) -> Self {
        Self { redirect_uri, all: Mutex::default() }
    }

    pub fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// Those that still count, the oldest first.
    pub fn list(&self) -> Vec<Pending> {
        let mut all = lock(&self.all);
        all.retain(|pending| pending.begun.elapsed() < AGE_MAX);
        all.clone()
    }

    /// That of a server.
    pub fn of(&self, tool: &str) -> Option<Pending> {
        self.list().into_iter().find(|pending| pending.tool == tool)
    }

    /// Adds one; it ends an older one of that server.
    pub fn add(&self, pending: Pending) {
        let mut all = lock(&self.all);
        all.retain(|known| known.tool != pending.tool && known.begun.elapsed() < AGE_MAX);
        if all.len() >= PENDING_MAX {
            all.remove(0);
        }
        all.push(pending);
    }

    /// Takes the one with that state: it counts once, whatever comes of it.
    pub fn take(&self, state: &str) -> Option<Pending> {
        let mut all = lock(&self.all);
        all.retain(|pending| pending.begun.elapsed() < AGE_MAX);
        let found = all.iter().position(|pending| bool::from(pending.state.as_bytes().ct_eq(state.as_bytes())));
        found.map(|index| all.remove(index))
    }

    /// Ends that of a server, if there is one.
    pub fn cancel(&self, tool: &str) {
        lock(&self.all).retain(|pending| pending.tool != tool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::guard::{Guard, Origin};
    use crate::net::oauth::AuthStyle;

    fn pending(tool: &str, state: &str, age: Duration) -> Pending {
        let guard = Guard::new(Origin::Untrusted);
        Pending {
            id: String::new(),
            tool: tool.to_owned(),
            auth_url: String::new(),
            created_at: 0,
            actor: String::new(),
            begun: Instant::now().checked_sub(age).unwrap(),
            state: state.to_owned(),
            verifier: String::new(),
            client: ClientAuth { id: String::new(), secret: String::new(), style: AuthStyle::Params },
            token_url: String::new(),
            redirect_uri: String::new(),
            resource: String::new(),
            scopes: String::new(),
            issuer: String::new(),
            names_issuer: false,
            place: Place::new(guard.check_url("https://e.com").unwrap(), guard, &[]),
        }
    }

    #[test]
    fn a_state_counts_once_and_for_five_minutes() {
        let manager = PendingMgr::new("http://h/callback".to_owned());
        manager.add(pending("a", "one", Duration::ZERO));
        manager.add(pending("b", "two", Duration::ZERO));
        manager.add(pending("a", "three", Duration::ZERO));
        assert!(manager.take("one").is_none(), "a new one ends the old one");
        assert!(manager.take("").is_none() && manager.take("thre").is_none());
        assert_eq!(manager.take("three").unwrap().tool, "a");
        assert!(manager.take("three").is_none() && manager.of("a").is_none());
        manager.cancel("b");
        assert!(manager.take("two").is_none());
        manager.add(pending("c", "old", AGE_MAX));
        assert!(manager.take("old").is_none() && manager.list().is_empty());
        for number in 0..PENDING_MAX + 10 {
            manager.add(pending(&number.to_string(), &number.to_string(), Duration::ZERO));
        }
        assert_eq!(manager.list().len(), PENDING_MAX);
    }
}
