//! The skills of one agent: its own directory and the one that all share, read again when a file changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::files::{self, Stamp};
use super::more_files::files_of;
use super::persona::Persona;
use super::skill::{Occasion, Skill, SkillInfo, parse};
use crate::limits;
use crate::rt::{json::quoted, lock};

/// The skills and the persona of one agent. Every look stats the files and reads those that changed; bodies are not
/// kept.
pub struct AgentSkills {
    // Set at construction.
    pub(super) agent: String,
    /// `<persona_dir>/skills`: the only place that is ever written to.
    pub(super) own: PathBuf,
    shared: PathBuf,
    persona: Persona,
    /// Guarded by this mutex: what was read of each file; None for a broken one, which is reported once. Nothing is
    /// taken under it.
    known: Mutex<BTreeMap<PathBuf, Known>>,
    /// Queues changes; held over I/O on purpose: two changes of one file must not mix.
    pub(super) writing: Mutex<()>,
}

/// A file as last seen, and the skill in it.
type Known = (Stamp, Option<Arc<SkillInfo>>);

impl AgentSkills {
    /// What an agent has in `<persona_dir>` and `<persona_dir>/skills`, and what it shares in `shared`. Neither needs to
    /// exist.
    pub fn new(agent: &str, persona_dir: &Path, shared: &Path) -> Self {
        Self {
            agent: agent.to_owned(),
            own: persona_dir.join("skills"),
            shared: shared.to_owned(),
            persona: Persona::new(persona_dir),
            known: Mutex::default(),
            writing: Mutex::default(),
        }
    }

    /// Whether it is the one of these directories.
    pub(super) fn is_of(&self, persona_dir: &Path, shared: &Path) -> bool {
        self.persona.directory() == persona_dir && self.shared == shared
    }

    /// Who the agent is, and what it remembers.
    pub fn persona(&self) -> &Persona {
        &self.persona
    }

    /// All skills, each name once: those that are shared first, then the agent's own, which win.
    pub fn list(&self) -> Vec<Arc<SkillInfo>> {
        let shared = self.scan(&self.shared, true);
        let own = self.scan(&self.own, false);
        lock(&self.known).retain(|path, _| shared.iter().chain(&own).any(|(known, _)| known == path));
        let mut list: Vec<Arc<SkillInfo>> = Vec::new();
        for skill in shared.into_iter().chain(own).filter_map(|(_, skill)| skill) {
            match list.iter_mut().find(|known| known.name == skill.name) {
                Some(known) if known.is_shared && !skill.is_shared => *known = skill,
                // Two files of one directory with one name: the first counts.
                Some(_) => {}
                None => list.push(skill),
            }
        }
        list.sort_by(|a, b| (!a.is_shared, &a.name).cmp(&(!b.is_shared, &b.name)));
        list
    }

    /// What is known of a skill.
    pub fn info(&self, name: &str) -> Option<Arc<SkillInfo>> {
        self.list().into_iter().find(|skill| skill.name == name)
    }

    /// The skill of that exact name, with its body.
    pub fn find(&self, name: &str) -> Option<Skill> {
        let info = self.info(name)?;
        load(&info)
    }

    /// The bodies of all skills that are used on that occasion, as a part of a system prompt; empty when there are none.
    /// At most [`limits::SKILL_PROMPT_BYTES_MAX`]: what a command or a schedule asks for comes first.
    pub fn prompt_for(&self, occasion: &Occasion<'_>) -> String {
        let mut used = self.list();
        used.retain(|skill| skill.matches(occasion));
        let mut prompt = String::new();
        // What is always there gives way to what was asked for.
        used.sort_by_key(|skill| skill.triggers.is_empty());
        for info in used {
            let Some(skill) = load(&info) else { continue };
            let mut text = format!("\n\n## {}\n", info.name);
            for part in [info.description.as_str(), skill.body.as_str()].into_iter().filter(|part| !part.is_empty()) {
                text.push('\n');
                text.push_str(part);
                text.push('\n');
            }
            let more = files_of(&info);
            if !more.is_empty() {
                text.push_str("\nIts files, which skill_get reads:");
                for (path, _) in more {
                    text.push(' ');
                    text.push_str(&path);
                }
                text.push('\n');
            }
            if prompt.len() + text.len() > limits::SKILL_PROMPT_BYTES_MAX {
                log::warn!(
                    "agent {}: skill {} is left out: the prompt is full of skills",
                    self.agent,
                    quoted(&info.name)
                );
                continue;
            }
            prompt.push_str(text.trim_end());
        }
        if prompt.is_empty() { prompt } else { format!("# Skills{prompt}") }
    }

    /// Every skill file of a directory in the order of their names.
    fn scan(&self, directory: &Path, is_shared: bool) -> Vec<(PathBuf, Option<Arc<SkillInfo>>)> {
        let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
        let mut found: Vec<(PathBuf, Stamp)> = Vec::new();
        for entry in entries.take(limits::DIRECTORY_ENTRIES_MAX).flatten() {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            let is_markdown = name.as_encoded_bytes().ends_with(b".md");
            let file = if is_markdown && !path.is_dir() { path } else { path.join("SKILL.md") };
            if let Some(stamp) = files::stamp(&file) {
                found.push((file, stamp));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        if found.len() > limits::SKILLS_MAX {
            log::warn!("{}: more than {} skills; the rest is not read", directory.display(), limits::SKILLS_MAX);
            found.truncate(limits::SKILLS_MAX);
        }
        found.into_iter().map(|(path, stamp)| self.look(path, stamp, is_shared)).collect()
    }

    fn look(&self, path: PathBuf, stamp: Stamp, is_shared: bool) -> (PathBuf, Option<Arc<SkillInfo>>) {
        if let Some((_, known)) = lock(&self.known).get(&path).filter(|(known, _)| *known == stamp) {
            return (path, known.clone());
        }
        let text = files::read(&path, limits::SKILL_BYTES_MAX).map_err(|error| error.to_string());
        let info = text.and_then(|text| {
            let (front, _) = parse(&text)?;
            Ok(Arc::new(SkillInfo {
                name: front.name,
                description: front.description,
                version: front.version,
                triggers: front.triggers,
                required_tools: front.requires.tools,
                is_shared,
                path: path.clone(),
            }))
        });
        if let Err(reason) = &info {
            log::warn!("agent {}: skill file {} is not used: {reason}", self.agent, path.display());
        }
        let info = info.ok();
        lock(&self.known).insert(path.clone(), (stamp, info.clone()));
        (path, info)
    }
}

/// A skill with its body; None when its file is gone or broken meanwhile.
fn load(info: &SkillInfo) -> Option<Skill> {
    let text = files::read(&info.path, limits::SKILL_BYTES_MAX).ok()?;
    let (_, body) = parse(&text).ok()?;
    Some(Skill { info: info.clone(), body: body.to_owned() })
}
