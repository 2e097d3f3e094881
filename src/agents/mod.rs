//! Who can be talked to: each agent's model, tools, tier and instructions. No threads, no I/O.

pub mod remote;

use std::sync::Arc;

use crate::config::Tier;
use crate::llm::Router;
use crate::rt::clock;
use crate::rt::order::Order;
use crate::skills::{AgentSkills, Occasion};
use crate::tools::{Tool, ToolSet, ToolSource};

/// One agent, ready to answer.
#[derive(Clone)]
pub struct Agent {
    pub name: String,
    pub description: String,
    pub tier: Tier,
    /// The way to its models.
    pub router: Arc<Router>,
    pub persona_dir: String,
    /// Its skills and its persona.
    pub skills: Arc<AgentSkills>,
    /// IANA name: what the date in its prompt is told in.
    pub timezone: String,
    /// Chat platforms it is bound to, as configured.
    pub adapters: Vec<String>,
    /// Tools that it may call without asking, by the configuration.
    pub auto_approve: Vec<String>,
    /// The built-in ones.
    tools: Vec<Arc<dyn Tool>>,
    /// Those of tool servers.
    source: Option<Arc<dyn ToolSource>>,
}

/// What an agent is made of.
pub struct AgentParts {
    pub name: String,
    pub description: String,
    pub tier: Tier,
    /// The way to its models.
    pub router: Arc<Router>,
    pub persona_dir: String,
    pub skills: Arc<AgentSkills>,
    pub timezone: String,
    pub adapters: Vec<String>,
    pub auto_approve: Vec<String>,
    pub tools: Vec<Arc<dyn Tool>>,
    pub source: Option<Arc<dyn ToolSource>>,
}

impl Agent {
    /// An agent from its parts.
    pub fn new(parts: AgentParts) -> Self {
        Self {
            name: parts.name,
            description: parts.description,
            tier: parts.tier,
            router: parts.router,
            persona_dir: parts.persona_dir,
            skills: parts.skills,
            timezone: parts.timezone,
            adapters: parts.adapters,
            auto_approve: parts.auto_approve,
            tools: parts.tools,
            source: parts.source,
        }
    }

    /// The same agent with another tier, if one is given: schedules have their own.
    #[must_use]
    pub fn at_tier(self: &Arc<Self>, tier: Option<Tier>) -> Arc<Self> {
        match tier {
            Some(tier) if tier != self.tier => Arc::new(Self { tier, ..Self::clone(self) }),
            _ => Arc::clone(self),
        }
    }

    /// The tools that its tier offers to the model now: servers' first, then built-in ones (contract engine 8.2);
    /// `restricted` has those that change nothing but its memory.
    pub fn tools(&self) -> ToolSet {
        let mut tools = self.source.as_ref().map_or_else(Vec::new, |source| source.tools());
        tools.extend(self.tools.iter().cloned());
        if self.tier == Tier::Restricted {
            tools.retain(|tool| tool.for_restricted());
        }
        ToolSet::new(tools)
    }

    /// What people call it: its persona's name, else its own.
    pub fn display_name(&self) -> String {
        self.skills.persona().display_name().unwrap_or_else(|| self.name.clone())
    }

    /// What the model is told before the conversation, persona first, what changes from turn to turn last (contract
    /// engine 1.6). `scheduled` is the skill that a schedule names.
    pub fn system_prompt(&self, message: &str, scheduled: Option<&str>) -> String {
        let tools = self.tools();
        let has_tool = |name: &str| tools.find(name).is_some();
        let mut prompt = self.skills.persona().prompt();
        if prompt.is_empty() {
            prompt =
                format!("You are {}, an assistant that runs on a small machine at somebody's home or site.", self.name);
        }
        if !self.description.trim().is_empty() {
            push_block(&mut prompt, self.description.trim());
        }
        push_block(
            &mut prompt,
            "Answer in the user's language, shortly and concretely, in Markdown. When a tool can tell you a fact about \
             this machine, call it instead of guessing, and name the numbers it gave. Say so when you do not know.",
        );
        if has_tool("persona_update") {
            push_block(
                &mut prompt,
                "What should be known in later conversations goes into your memory: persona_update replaces the whole \
                 section, so repeat what is still true.",
            );
        }
        push_block(&mut prompt, &self.skills.prompt_for(&Occasion { message, scheduled, has_tool: &has_tool }));
        push_block(&mut prompt, &format!("It is {}.", clock::spoken(clock::unix_ms(), &self.timezone)));
        prompt
    }
}

fn push_block(prompt: &mut String, block: &str) {
    if !block.is_empty() {
        prompt.push_str("\n\n");
        prompt.push_str(block);
    }
}

/// All agents, `default` first, then by name. Never changed: whoever changes agents puts another list in its place.
#[derive(Default)]
pub struct Agents {
    list: Vec<Arc<Agent>>,
}

impl Agents {
    pub fn new(mut list: Vec<Arc<Agent>>) -> Self {
        list.order_by(|a, b| (a.name != "default", &a.name).cmp(&(b.name != "default", &b.name)));
        Self { list }
    }

    /// The agent of that exact name.
    pub fn find(&self, name: &str) -> Option<Arc<Agent>> {
        self.list.iter().find(|agent| agent.name == name).cloned()
    }

    /// All of them in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.list.iter()
    }
}
