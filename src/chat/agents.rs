//! The agents of the engine: read, replaced, renamed.

use std::sync::Arc;

use crate::agents::{Agent, Agents};
use crate::chat::engine::{Engine, Inner, Settings};
use crate::rt::lock;
use crate::store::{StoreError, rename_agent};

/// Renames that are remembered: longer than any turn waits.
const RENAMED_MAX: usize = 64;

impl Inner {
    pub(super) fn agents(&self) -> Arc<Agents> {
        Arc::clone(&lock(&self.agents))
    }

    pub(super) fn settings(&self) -> Settings {
        *lock(&self.settings)
    }

    /// The agent of a turn, also when it got another name after the turn was accepted.
    pub(super) fn agent_of(&self, name: &str) -> Option<Arc<Agent>> {
        let agents = self.agents();
        agents.find(name).or_else(|| {
            let renamed = lock(&self.renamed);
            // In their order: a name may have been changed twice.
            let now = renamed.iter().fold(name, |now, (old, new)| if old == now { new } else { now });
            agents.find(now)
        })
    }
}

impl Engine {
    /// The agents of now.
    pub fn agents(&self) -> Arc<Agents> {
        self.inner.agents()
    }

    /// Other agents, from the next turn on; what runs goes on with those that it began with.
    pub fn set_agents(&self, agents: Agents) {
        self.inner.approvals.set_configured(&agents);
        *lock(&self.inner.agents) = Arc::new(agents);
    }

    /// Other settings, from the next turn on.
    pub fn set_settings(&self, settings: Settings) {
        *lock(&self.inner.settings) = settings;
    }

    /// An agent is about to get another name: turns that were accepted under the old one will find it.
    pub fn expect_rename(&self, old: &str, new: &str) {
        let mut renamed = lock(&self.inner.renamed);
        if renamed.len() >= RENAMED_MAX {
            renamed.remove(0);
        }
        renamed.push((old.to_owned(), new.to_owned()));
    }

    /// What is stored under an agent's old name belongs to the new one: conversations, keys, rules, costs (W-46).
    pub fn rename_stored(&self, old: &str, new: &str) -> Result<(), StoreError> {
        rename_agent(&self.inner.db, old, new)
    }
}
