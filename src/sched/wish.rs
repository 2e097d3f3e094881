//! What somebody wants of a schedule, checked as a start would check it (contract http-api 5.2, W-27), and how it stands
//! in the configuration file.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::config::{
    Config, ConfigError, Document, Expression, ScheduleConfig, Tier, check_channel, check_schedule_name, edit, zone,
};
use crate::limits;
use crate::rt::json::quoted;

/// Where schedules stand in the configuration file.
pub const LIST: &str = "schedules";
const DEFAULT_AGENT: &str = "default";
/// More, and longer ones, are no labels.
const TAGS_MAX: usize = 32;
const TEXT_BYTES_MAX: usize = 100;
/// More is a skill.
const PROMPT_BYTES_MAX: usize = 8192;

/// Fields as they were given; None keeps what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub name: Option<String>,
    pub schedule: Option<String>,
    /// Where its hours are meant; empty: in `api.timezone`.
    pub timezone: Option<String>,
    pub channel: Option<String>,
    pub skill: Option<String>,
    /// What the agent is asked.
    pub prompt: Option<String>,
    pub session_mode: Option<String>,
    /// Empty: the agent's.
    pub session_tier: Option<String>,
    pub agent: Option<String>,
    pub tags: Option<Vec<String>>,
    pub enabled: Option<bool>,
}

/// Why it cannot be done, in words for whoever wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Invalid(String),
    NotFound(String),
    Exists(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Invalid(text) | Self::NotFound(text) | Self::Exists(text)) = self;
        f.write_str(text)
    }
}

impl Wish {
    /// Reads the fields of an object; others do not count. The error names the field.
    pub fn read(fields: &Map<String, Value>) -> Result<Self, String> {
        let given = |name: &str| fields.get(name).filter(|value| !value.is_null());
        let text = |name: &str| match given(name) {
            None => Ok(None),
            Some(value) => {
                value.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| format!("{name} must be a text"))
            }
        };
        let tags = match given("tags") {
            None => None,
            Some(value) => {
                let list = value.as_array().ok_or("tags must be a list of texts")?;
                let texts: Option<Vec<String>> = list.iter().map(|tag| tag.as_str().map(str::to_owned)).collect();
                Some(texts.ok_or("tags must be a list of texts")?)
            }
        };
        let enabled = match given("enabled") {
            None => None,
            Some(value) => Some(value.as_bool().ok_or("enabled must be true or false")?),
        };
        Ok(Self {
            name: text("name")?,
            schedule: text("schedule")?,
            timezone: text("timezone")?,
            channel: text("channel")?,
            skill: text("skill")?,
            prompt: text("prompt")?,
            session_mode: text("session_mode")?,
            session_tier: text("session_tier")?,
            agent: text("agent")?,
            tags,
            enabled,
        })
    }

    /// Adds the schedule to a document, of the agent `default` if none is named. Checks in the contract's order.
    pub fn add_to(&self, config: &Config, doc: &mut Document) -> Result<Result<(), ConfigError>, Refusal> {
        let required = |name: &str, text: &Option<String>| {
            let text = text.as_deref().map(str::trim).filter(|text| !text.is_empty());
            text.map(str::to_owned).ok_or_else(|| Refusal::Invalid(format!("{name} is required")))
        };
        let name = required("name", &self.name)?;
        let schedule = required("schedule", &self.schedule)?;
        let channel = required("channel", &self.channel)?;
        check_schedule_name(&name).map_err(Refusal::Invalid)?;
        check_expression(&schedule)?;
        check_channel(&channel, &config.notify).map_err(Refusal::Invalid)?;
        let agent = self.agent.as_deref().filter(|agent| !agent.is_empty()).unwrap_or(DEFAULT_AGENT);
        check_agent(config, agent)?;
        if config.schedules.iter().any(|known| known.name == name) {
            return Err(Refusal::Exists(format!("scheduler: duplicate schedule name {}", quoted(&name))));
        }
        if config.schedules.len() >= limits::SCHEDULES_MAX {
            let most = limits::SCHEDULES_MAX;
            return Err(Refusal::Invalid(format!("there are {most} schedules, more cannot be added; delete one")));
        }
        self.check_rest()?;
        let mut entry = Map::new();
        for (key, value) in [
            ("name", json!(name)),
            ("type", json!("agent")),
            ("schedule", json!(schedule)),
            ("channel", json!(channel)),
            ("agent", json!(agent)),
            ("session_mode", json!(self.session_mode.as_deref().filter(|mode| !mode.is_empty()).unwrap_or("isolated"))),
            // An empty one means the agent's own; without the key it would be another after the next start.
            ("session_tier", json!(self.session_tier.as_deref().unwrap_or_default())),
        ] {
            entry.insert(key.to_owned(), value);
        }
        for (key, text) in [("skill", &self.skill), ("prompt", &self.prompt), ("timezone", &self.timezone)] {
            if let Some(text) = text.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
                entry.insert(key.to_owned(), json!(text));
            }
        }
        if let Some(tags) = self.tags.as_ref().filter(|tags| !tags.is_empty()) {
            entry.insert("tags".to_owned(), json!(tags));
        }
        if self.enabled == Some(false) {
            entry.insert("enabled".to_owned(), json!(false));
        }
        Ok(edit::add_to_list(doc, LIST, &entry))
    }

    /// Changes a schedule in a document; its name and type stay.
    pub fn change_in(
        &self,
        config: &Config,
        known: &ScheduleConfig,
        doc: &mut Document,
    ) -> Result<Result<(), ConfigError>, Refusal> {
        check_expression(self.schedule.as_deref().map_or(known.schedule.as_str(), str::trim))?;
        let channel = self.channel.as_deref().map_or(known.channel.as_str(), str::trim);
        // One of the file may have none.
        if self.channel.is_some() || !channel.is_empty() {
            check_channel(channel, &config.notify).map_err(Refusal::Invalid)?;
        }
        if let Some(agent) = &self.agent {
            check_agent(config, agent)?;
        }
        self.check_rest()?;
        let text = |text: &Option<String>| text.as_ref().map(|text| json!(text.trim()));
        let or_nothing = |text: &Option<String>| {
            let text = text.as_deref().map(str::trim)?;
            Some(if text.is_empty() { Value::Null } else { json!(text) })
        };
        let tags = self.tags.as_ref().map(|tags| if tags.is_empty() { Value::Null } else { json!(tags) });
        for (key, value) in [
            ("schedule", text(&self.schedule)),
            ("channel", text(&self.channel)),
            ("timezone", or_nothing(&self.timezone)),
            ("skill", or_nothing(&self.skill)),
            ("prompt", or_nothing(&self.prompt)),
            ("session_mode", text(&self.session_mode)),
            ("session_tier", text(&self.session_tier)),
            ("agent", text(&self.agent)),
            ("tags", tags),
            ("enabled", self.enabled.map(|enabled| json!(enabled))),
        ] {
            let Some(value) = value else { continue };
            match edit::set_in_list(doc, LIST, &known.name, key, &value) {
                Ok(true) => {}
                // It is in the list, and gone from the file: somebody has just edited it.
                Ok(false) => return Err(unknown(&known.name)),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    /// Removes a schedule from a document.
    pub fn remove_from(name: &str, doc: &mut Document) -> Result<Result<(), ConfigError>, Refusal> {
        match edit::remove_from_list(doc, LIST, name) {
            Ok(true) => Ok(Ok(())),
            Ok(false) => Err(unknown(name)),
            Err(error) => Ok(Err(error)),
        }
    }

    /// The tier it asks for, if it is one.
    pub fn tier(&self) -> Option<Tier> {
        self.session_tier.as_deref().and_then(Tier::from_name)
    }

    fn check_rest(&self) -> Result<(), Refusal> {
        let invalid = |text: &str| Err(Refusal::Invalid(text.to_owned()));
        let mode = self.session_mode.as_deref().unwrap_or_default();
        if !["", "shared", "isolated"].contains(&mode) {
            return invalid("session_mode must be shared or isolated");
        }
        if self.session_tier.as_deref().is_some_and(|tier| !tier.is_empty() && Tier::from_name(tier).is_none()) {
            return invalid("session_tier must be autonomous, supervised or restricted");
        }
        if let Err(reason) = zone(self.timezone.as_deref().unwrap_or_default()) {
            return Err(Refusal::Invalid(format!("timezone {reason}")));
        }
        let is_odd = |text: &String| text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control);
        if self.skill.as_ref().is_some_and(is_odd) {
            return invalid("skill must have at most 100 bytes and no control characters");
        }
        if self.prompt.as_ref().is_some_and(|prompt| prompt.len() > PROMPT_BYTES_MAX) {
            return invalid("prompt must have at most 8192 bytes");
        }
        if self.tags.as_ref().is_some_and(|tags| tags.len() > TAGS_MAX || tags.iter().any(is_odd)) {
            return invalid("tags must be at most 32, each of at most 100 bytes and without control characters");
        }
        Ok(())
    }
}

/// The answer for a name that no schedule has.
pub(super) fn unknown(name: &str) -> Refusal {
    Refusal::NotFound(format!("schedule {} not found", quoted(name)))
}

fn check_expression(schedule: &str) -> Result<(), Refusal> {
    let parsed = Expression::parse(schedule);
    parsed.map(|_| ()).map_err(|reason| Refusal::Invalid(format!("invalid schedule expression: {reason}")))
}

fn check_agent(config: &Config, agent: &str) -> Result<(), Refusal> {
    if config.agents.iter().any(|known| known.name == agent) {
        return Ok(());
    }
    Err(Refusal::NotFound(format!("agent {} not found", quoted(agent))))
}

/// The configuration as tools see and change it; implemented by the composition root.
pub trait Changes: Send + Sync {
    /// What counts now.
    fn config(&self) -> Arc<Config>;

    /// Changes the file and puts the result in force; the error is for whoever asked. Blocks on the disk.
    fn change(&self, edit: &mut dyn FnMut(&mut Document) -> Result<(), ConfigError>) -> Result<(), String>;
}
