//! Who can be talked to: each agent's model, tools, tier and instructions. No threads, no I/O.

use std::sync::Arc;

use crate::config::Tier;
use crate::llm::Provider;
use crate::rt::clock;
use crate::tools::{Tool, ToolSet};

/// One agent, ready to answer.
pub struct Agent {
    pub name: String,
    pub description: String,
    pub tier: Tier,
    pub provider: Arc<dyn Provider>,
    pub model: String,
    pub persona_dir: String,
    /// Chat platforms it is bound to, as configured.
    pub adapters: Vec<String>,
    pub tools: ToolSet,
    /// What `restricted` leaves of them.
    read_only_tools: ToolSet,
}

/// What an agent is made of.
pub struct AgentParts {
    pub name: String,
    pub description: String,
    pub tier: Tier,
    pub provider: Arc<dyn Provider>,
    pub model: String,
    pub persona_dir: String,
    pub adapters: Vec<String>,
    pub tools: Vec<Arc<dyn Tool>>,
}

impl Agent {
    /// An agent from its parts.
    pub fn new(parts: AgentParts) -> Self {
        let read_only = parts.tools.iter().filter(|tool| tool.read_only()).cloned().collect();
        Self {
            name: parts.name,
            description: parts.description,
            tier: parts.tier,
            provider: parts.provider,
            model: parts.model,
            persona_dir: parts.persona_dir,
            adapters: parts.adapters,
            tools: ToolSet::new(parts.tools),
            read_only_tools: ToolSet::new(read_only),
        }
    }

    /// The tools it may call without anybody's approval: all of them when autonomous, else those that change nothing.
    pub fn free_tools(&self) -> &ToolSet {
        match self.tier {
            Tier::Autonomous => &self.tools,
            Tier::Supervised | Tier::Restricted => &self.read_only_tools,
        }
    }

    /// What the model is told before the conversation.
    pub fn system_prompt(&self) -> String {
        let mut prompt = format!(
            "You are {}, an assistant that runs on a small machine at somebody's home or site. It is {} (UTC).\n",
            self.name,
            clock::rfc3339_s(clock::unix_ms())
        );
        if !self.description.trim().is_empty() {
            prompt.push_str(self.description.trim());
            prompt.push('\n');
        }
        prompt.push_str(
            "Answer in the user's language, shortly and concretely, in Markdown. When a tool can tell you a fact about \
             this machine, call it instead of guessing, and name the numbers it gave. Say so when you do not know.",
        );
        prompt
    }
}

/// All agents, `default` first, then by name.
pub struct Agents {
    list: Vec<Arc<Agent>>,
}

impl Agents {
    pub fn new(mut list: Vec<Arc<Agent>>) -> Self {
        list.sort_by(|a, b| (a.name != "default", &a.name).cmp(&(b.name != "default", &b.name)));
        Self { list }
    }

    /// The agent of that exact name.
    pub fn find(&self, name: &str) -> Option<&Arc<Agent>> {
        self.list.iter().find(|agent| agent.name == name)
    }

    /// All of them in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.list.iter()
    }
}
