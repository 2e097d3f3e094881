//! `skill_list`, `skill_get`, `skill_create`, `skill_update`, `persona_get`, `persona_update`: an agent looks after
//! itself (contract engine 8.7). What it changes is in the journal.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{AgentSkills, Allowance, Journal, NewSkill, Section, SkillChange, SkillEdit, Skills};
use crate::llm::ToolSpec;
use crate::rt::json::quoted;
use crate::store::journal::NewChange;
use crate::tools::arguments::{Arguments, object};
use crate::tools::{Tool, ToolContext, ToolError};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    List,
    Get,
    Create,
    Update,
    PersonaGet,
    PersonaUpdate,
}

struct SelfTool {
    spec: ToolSpec,
    action: Action,
    skills: Arc<Skills>,
    journal: Arc<Journal>,
}

/// The tools, in the order they are offered.
pub fn skill_tools(skills: &Arc<Skills>, journal: &Arc<Journal>) -> Vec<Arc<dyn Tool>> {
    let text = |description: &str| json!({"type": "string", "description": description});
    let name = text("a-z, 0-9, _ and -");
    let triggers = json!({"type": "array", "items": {"type": "string"},
        "description": "command:<name> (the user writes /name), schedule:<any>; none: always used"});
    let section = json!({"type": "string", "enum": Section::ALL.map(Section::name)});
    let skill = json!({"name": name, "description": text("one line"), "version": text("such as 1.0.0"),
        "triggers": triggers, "body": text("instructions in Markdown")});
    let table = [
        (Action::List, "skill_list", "Lists your skills.", json!({}), &[][..]),
        (
            Action::Get,
            "skill_get",
            "One of your skills, or with `file` one of its files.",
            json!({"name": name, "file": text("a path that the skill names")}),
            &["name"],
        ),
        (
            Action::Create,
            "skill_create",
            "Writes a new skill: instructions that you get again when its triggers say so.",
            skill.clone(),
            &["name", "body"],
        ),
        (Action::Update, "skill_update", "Changes one of your skills; what is not given stays.", skill, &["name"]),
        (
            Action::PersonaGet,
            "persona_get",
            "A section of what you are told about yourself, the user, and what you remember.",
            json!({"section": section}),
            &["section"],
        ),
        (
            Action::PersonaUpdate,
            "persona_update",
            "Replaces a whole section; `memory` is for what you should know in later conversations.",
            json!({"section": section, "content": text("the whole new text")}),
            &["section", "content"],
        ),
    ];
    let tool = |(action, name, description, properties, required): (Action, &str, &str, Value, &[&str])| {
        let parameters = object(&properties, required);
        let spec = ToolSpec { name: name.to_owned(), description: description.to_owned(), parameters };
        let (skills, journal) = (Arc::clone(skills), Arc::clone(journal));
        Arc::new(SelfTool { spec, action, skills, journal }) as Arc<dyn Tool>
    };
    table.into_iter().map(tool).collect()
}

impl Tool for SelfTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn read_only(&self) -> bool {
        matches!(self.action, Action::List | Action::Get | Action::PersonaGet)
    }

    /// Its memory is the agent's own business (contract engine 6.4).
    fn is_free(&self, arguments: &Value) -> bool {
        let of_memory = || arguments["section"].as_str().and_then(Section::parse) == Some(Section::Memory);
        self.read_only() || (self.action == Action::PersonaUpdate && of_memory())
    }

    fn for_restricted(&self) -> bool {
        self.read_only() || self.action == Action::PersonaUpdate
    }

    fn call(&self, arguments: &Value, context: &ToolContext<'_>) -> Result<String, ToolError> {
        let agent = self.skills.find(context.agent).ok_or_else(|| ToolError::new("this agent has no skills"))?;
        match self.action {
            Action::List => {
                Arguments::of(arguments, &[])?;
                let list = agent.list();
                let shapes = list.iter().map(|skill| {
                    json!({"name": skill.name, "description": skill.description, "version": skill.version,
                        "triggers": skill.triggers})
                });
                Ok(Value::from(shapes.collect::<Vec<_>>()).to_string())
            }
            Action::Get => get(&agent, &Arguments::of(arguments, &["name", "file"])?),
            Action::Create | Action::Update => {
                let known = ["name", "description", "version", "triggers", "body"];
                self.write(&agent, &Arguments::of(arguments, &known)?, context)
            }
            Action::PersonaGet => {
                let section = section(&Arguments::of(arguments, &["section"])?)?;
                let content = agent.persona().read(section);
                let shape = json!({"section": section.name(), "content": content, "editable": true,
                    "agent_mutable": true, "characters_max": section.chars_max()});
                Ok(shape.to_string())
            }
            Action::PersonaUpdate => {
                self.update_persona(&agent, &Arguments::of(arguments, &["section", "content"])?, context)
            }
        }
    }
}

impl SelfTool {
    fn write(
        &self,
        agent: &AgentSkills,
        arguments: &Arguments<'_>,
        context: &ToolContext<'_>,
    ) -> Result<String, ToolError> {
        let name = arguments.text("name")?.to_owned();
        let text = |key: &str| optional(arguments, key);
        let triggers = arguments.get("triggers").map(|value| {
            let list =
                value.as_array().and_then(|list| list.iter().map(|item| Some(item.as_str()?.to_owned())).collect());
            list.ok_or_else(|| ToolError::new("argument \"triggers\" must be a list of texts"))
        });
        let triggers: Option<Vec<String>> = triggers.transpose()?;
        let (description, version, body) = (text("description")?, text("version")?, text("body")?);
        let is_new = self.action == Action::Create;
        let made = if is_new {
            let new = NewSkill {
                name: name.clone(),
                description: description.unwrap_or_default(),
                version: version.unwrap_or_default(),
                triggers: triggers.unwrap_or_default(),
                body: body.unwrap_or_default(),
            };
            agent.create(new, Allowance::AGENT)
        } else {
            agent.update(&name, SkillEdit { description, version, triggers, body }, Allowance::AGENT)
        };
        let SkillChange { file, before, after } = made.map_err(|error| ToolError::new(error.to_string()))?;
        self.journal.record(&NewChange {
            agent: context.agent,
            kind: "skill",
            target: &name,
            place: &file,
            before: before.as_deref(),
            after: &after,
            conversation_id: context.session_id,
        });
        Ok(format!("Done: skill {} {}", quoted(&name), if is_new { "created" } else { "updated" }))
    }

    fn update_persona(
        &self,
        agent: &AgentSkills,
        arguments: &Arguments<'_>,
        context: &ToolContext<'_>,
    ) -> Result<String, ToolError> {
        let section = section(arguments)?;
        let missing = || ToolError::new("argument \"content\" must be a text");
        let content = optional(arguments, "content")?.ok_or_else(missing)?;
        let before = agent.persona().write(section, &content).map_err(|error| ToolError::new(error.to_string()))?;
        self.journal.record(&NewChange {
            agent: context.agent,
            kind: "persona",
            target: section.name(),
            place: "",
            before: Some(&before),
            after: content.trim(),
            conversation_id: context.session_id,
        });
        Ok(format!("Done: {} updated", section.name()))
    }
}

fn get(agent: &AgentSkills, arguments: &Arguments<'_>) -> Result<String, ToolError> {
    let name = arguments.text("name")?;
    let failed = |error: super::SkillError| ToolError::new(error.to_string());
    if let Some(file) = optional(arguments, "file")? {
        return agent.file(name, &file).map_err(failed);
    }
    let skill = agent.find(name).ok_or_else(|| failed(super::SkillError::NotFound { name: name.to_owned() }))?;
    let files = agent.files(name).map_err(failed)?;
    let shape = json!({
        "name": name, "description": skill.info.description, "version": skill.info.version,
        "triggers": skill.info.triggers, "body": skill.body,
        "files": files.into_iter().map(|(path, _)| path).collect::<Vec<_>>(),
    });
    Ok(shape.to_string())
}

fn section(arguments: &Arguments<'_>) -> Result<Section, ToolError> {
    let name = arguments.text("section")?;
    Section::parse(name).ok_or_else(|| ToolError::new("section must be one of identity, soul, user, memory"))
}

fn optional(arguments: &Arguments<'_>, name: &str) -> Result<Option<String>, ToolError> {
    let wrong = || ToolError::new(format!("argument {name:?} must be a text"));
    arguments.get(name).map(|value| value.as_str().map(str::to_owned).ok_or_else(wrong)).transpose()
}
