//! What schedules need of turns: a tier of their own, and to hear of a message that was sent before a restart.

use serde_json::{Value, json};

use crate::chat::ChatError;
use crate::chat::engine::{Engine, Ticket};
use crate::config::Tier;
use crate::rt::lock;
use crate::store::turns::TurnRow;

/// Parameters of a turn that runs with another tier than its agent's.
pub fn tier_params(tier: Tier) -> String {
    json!({"tier": tier.name()}).to_string()
}

/// The tier of a turn, if it has one of its own.
pub(super) fn tier_of(turn: &TurnRow) -> Option<Tier> {
    if !turn.kind.is_empty() || turn.params.is_empty() {
        return None;
    }
    let params: Value = serde_json::from_str(&turn.params).ok()?;
    Tier::from_name(params.get("tier")?.as_str()?)
}

impl Engine {
    /// Whether everything is stopped until somebody says otherwise.
    pub fn is_panicked(&self) -> bool {
        self.inner.is_panicked()
    }

    /// Whether the turn of a session waits for somebody's decision.
    pub fn is_parked(&self, session_id: &str) -> bool {
        let session = lock(&self.inner.sessions).get(session_id).cloned();
        session.is_some_and(|session| {
            lock(&session.state).running.as_ref().is_some_and(|running| running.parked.is_some())
        })
    }

    /// Hears of a message that was accepted before under its `message_id`, however long ago; false when there
    /// was none. Blocks on the disk.
    pub fn rejoin(&self, identity: &str, message_id: &str, ticket: Box<dyn Ticket>) -> Result<bool, ChatError> {
        match self.inner.turns.find_accepted(identity, message_id)? {
            Some(turn) => self.join_repeat(turn, Some(ticket)).map(|_| true),
            None => Ok(false),
        }
    }
}
