//! What agents know of themselves: skills (instructions in files, used when their triggers say so) and personas.
//!
//! Files are the truth: people edit them while the hub runs, agents through their tools, both through the API. Nothing is
//! watched; each look asks the file system whether something changed. No threads.

mod change;
mod directives;
mod directory;
mod files;
mod journal;
mod more_files;
mod persona;
mod skill;
mod tools;

pub use change::{Allowance, NewSkill, SkillChange, SkillEdit, SkillError};
pub use directives::{DirectiveFilter, strip};
pub use directory::AgentSkills;
pub use journal::{Journal, UndoError};
pub use persona::{Identity, Persona, PersonaError, Section};
pub use skill::{Occasion, Skill, SkillInfo, check_name, check_trigger};
pub use tools::skill_tools;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::config::AgentConfig;
use crate::rt::lock;

/// The skills of all agents. Agents of one name and the same directories share one [`AgentSkills`], also those that were
/// made anew from a changed configuration: its queue of changes holds for all of them.
#[derive(Default)]
pub struct Skills {
    /// Guarded by this mutex. Nothing is taken under it.
    agents: Mutex<BTreeMap<String, Arc<AgentSkills>>>,
}

impl Skills {
    /// Those of an agent.
    pub fn of(&self, agent: &AgentConfig) -> Arc<AgentSkills> {
        let mut agents = lock(&self.agents);
        let known = agents.get(&agent.name).filter(|known| known.is_of(&agent.persona_dir, &agent.skills_dir));
        if let Some(known) = known {
            return Arc::clone(known);
        }
        let made = Arc::new(AgentSkills::new(&agent.name, &agent.persona_dir, &agent.skills_dir));
        agents.insert(agent.name.clone(), Arc::clone(&made));
        made
    }

    /// Those of the agent of that name.
    pub fn find(&self, agent: &str) -> Option<Arc<AgentSkills>> {
        lock(&self.agents).get(agent).cloned()
    }
}

#[cfg(test)]
mod tests;
