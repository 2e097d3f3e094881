//! Changes of an agent's own skills (contract engine 6.3; W-32). Disk first: what counts is what the files say.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::directory::AgentSkills;
use super::files;
use super::skill::{SkillInfo, check_name, check_trigger, parse, render};
use crate::config::FrontMatter;
use crate::limits;
use crate::rt::{json::quoted, lock};

/// Why a change was not made. What was there before still is.
#[derive(Debug)]
pub enum SkillError {
    /// There is no such skill.
    NotFound { name: String },
    /// It has no such file.
    NoFile { path: String },
    /// There is one already.
    Exists { name: String },
    /// It belongs to all agents; only who can write that directory may change it.
    Shared { name: String },
    /// As many as are allowed.
    Full { max: usize },
    /// It cannot be a skill; says why.
    Invalid(String),
    /// The disk.
    Io(io::Error),
}

impl fmt::Display for SkillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { name } => write!(f, "skill {} not found", quoted(name)),
            Self::NoFile { path } => write!(f, "file {} not found", quoted(path)),
            Self::Exists { name } => write!(f, "skill {} already exists", quoted(name)),
            Self::Shared { name } => write!(
                f,
                "skill {} is shared by all agents and cannot be removed here; remove its file from the skills directory",
                quoted(name)
            ),
            Self::Full { max } => write!(f, "no more than {max} skills; remove one first"),
            Self::Invalid(reason) => f.write_str(reason),
            Self::Io(cause) => write!(f, "{cause}"),
        }
    }
}

impl std::error::Error for SkillError {}

impl From<io::Error> for SkillError {
    fn from(cause: io::Error) -> Self {
        Self::Io(cause)
    }
}

/// A skill to make.
#[derive(Clone, Debug, Default)]
pub struct NewSkill {
    pub name: String,
    pub description: String,
    /// Empty: `1.0.0`.
    pub version: String,
    pub triggers: Vec<String>,
    pub body: String,
}

/// What is to be different; None keeps the value.
#[derive(Clone, Debug, Default)]
pub struct SkillEdit {
    pub description: Option<String>,
    pub version: Option<String>,
    pub triggers: Option<Vec<String>>,
    pub body: Option<String>,
}

/// How much may be made.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    pub skills_max: usize,
    pub bytes_max: usize,
}

impl Allowance {
    /// What people may make.
    pub const PEOPLE: Self = Self { skills_max: limits::SKILLS_MAX, bytes_max: limits::SKILL_BYTES_MAX };
    /// What an agent may make by itself.
    pub const AGENT: Self = Self { skills_max: limits::AGENT_SKILLS_MAX, bytes_max: limits::AGENT_SKILL_BYTES_MAX };
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkillChange {
    /// The file, below the agent's skills directory.
    pub file: String,
    /// Its whole text before; None: there was none.
    pub before: Option<String>,
    pub after: String,
}

impl AgentSkills {
    /// Makes a skill of the agent's own. One of the same name that all share is hidden by it.
    pub fn create(&self, new: NewSkill, allowance: Allowance) -> Result<SkillChange, SkillError> {
        check_name(&new.name).map_err(SkillError::Invalid)?;
        let front = FrontMatter {
            name: new.name,
            description: new.description.trim().to_owned(),
            version: if new.version.trim().is_empty() { "1.0.0".to_owned() } else { new.version.trim().to_owned() },
            triggers: new.triggers,
            ..FrontMatter::default()
        };
        let text = checked(&front, &new.body, "", allowance)?;
        let _queue = lock(&self.writing);
        let own: Vec<_> = self.list().into_iter().filter(|skill| !skill.is_shared).collect();
        let file = format!("{}.md", front.name);
        let path = self.own.join(&file);
        // Also a file that nobody can read, or that holds a skill of another name.
        let is_taken = fs::symlink_metadata(&path).is_ok() || self.own.join(&front.name).join("SKILL.md").exists();
        if is_taken || own.iter().any(|skill| skill.name == front.name) {
            return Err(SkillError::Exists { name: front.name });
        }
        if own.len() >= allowance.skills_max {
            return Err(SkillError::Full { max: allowance.skills_max });
        }
        files::make_directory(&self.own, 0o750)?;
        files::write(&path, &text)?;
        Ok(SkillChange { file, before: None, after: text })
    }

    /// Changes a skill where it stands. One that all share is not touched: the agent gets its own of that name.
    pub fn update(&self, name: &str, edit: SkillEdit, allowance: Allowance) -> Result<SkillChange, SkillError> {
        let _queue = lock(&self.writing);
        let info = self.info(name).ok_or_else(|| SkillError::NotFound { name: name.to_owned() })?;
        let old = files::read(&info.path, limits::SKILL_BYTES_MAX)?;
        let (mut front, body) = parse(&old).map_err(SkillError::Invalid)?;
        for (slot, new) in [(&mut front.description, edit.description), (&mut front.version, edit.version)] {
            if let Some(new) = new {
                new.trim().clone_into(slot);
            }
        }
        if let Some(triggers) = edit.triggers {
            front.triggers = triggers;
        }
        let body = edit.body.as_deref().unwrap_or(body);
        let text = checked(&front, body, &old, allowance)?;
        if !info.is_shared {
            let file = self.own_file(&info)?;
            files::write(&info.path, &text)?;
            return Ok(SkillChange { file, before: Some(old), after: text });
        }
        check_name(name).map_err(SkillError::Invalid)?;
        let file = format!("{name}.md");
        let path = self.own.join(&file);
        if fs::symlink_metadata(&path).is_ok() {
            return Err(SkillError::Exists { name: name.to_owned() });
        }
        files::make_directory(&self.own, 0o750)?;
        files::write(&path, &text)?;
        Ok(SkillChange { file, before: None, after: text })
    }

    /// Removes a skill of the agent's own, with the files beside its `SKILL.md`.
    pub fn delete(&self, name: &str) -> Result<(), SkillError> {
        let _queue = lock(&self.writing);
        let info = self.info(name).ok_or_else(|| SkillError::NotFound { name: name.to_owned() })?;
        if info.is_shared {
            return Err(SkillError::Shared { name: name.to_owned() });
        }
        self.remove(&info.path)?;
        Ok(())
    }

    /// Puts the text of a skill file back, or removes it for None, if `expected` likes what is there now; false if not.
    pub fn put_back(
        &self,
        file: &str,
        text: Option<&str>,
        expected: impl FnOnce(Option<&str>) -> bool,
    ) -> Result<bool, SkillError> {
        let path = self.skill_file(file)?;
        let _queue = lock(&self.writing);
        let now = match files::read(&path, limits::SKILL_BYTES_MAX) {
            Ok(now) => Some(now),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        if !expected(now.as_deref()) {
            return Ok(false);
        }
        match text {
            Some(text) => {
                files::make_directory(path.parent().unwrap_or(&self.own), 0o750)?;
                files::write(&path, text)?;
            }
            None if now.is_some() => self.remove(&path)?,
            None => {}
        }
        Ok(true)
    }

    /// `<name>.md` or `<directory>/SKILL.md` below the agent's own directory.
    fn skill_file(&self, file: &str) -> Result<PathBuf, SkillError> {
        let directory = file.strip_suffix("/SKILL.md");
        let stem = directory.or_else(|| file.strip_suffix(".md")).unwrap_or_default();
        let is_plain = !stem.is_empty() && !stem.starts_with('.') && !stem.contains(['/', '\0']);
        if !is_plain || directory.is_some_and(|directory| self.own.join(directory).is_symlink()) {
            return Err(SkillError::Invalid(format!("{} is no file of a skill", quoted(file))));
        }
        Ok(self.own.join(file))
    }

    fn own_file(&self, info: &SkillInfo) -> Result<String, SkillError> {
        let file = info.path.strip_prefix(&self.own).ok().and_then(Path::to_str);
        let file = file.ok_or_else(|| SkillError::Invalid("its file has a name that is no text".to_owned()))?;
        self.skill_file(file)?;
        Ok(file.to_owned())
    }

    /// Removes a skill's file, or its directory; of links only the link.
    fn remove(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().filter(|directory| *directory != self.own);
        match directory {
            None => fs::remove_file(path),
            Some(directory) if files::is_own_directory(directory) => fs::remove_dir_all(directory),
            Some(link) => fs::remove_file(link),
        }
    }
}

fn checked(front: &FrontMatter, body: &str, old: &str, allowance: Allowance) -> Result<String, SkillError> {
    if body.trim().is_empty() {
        return Err(SkillError::Invalid("body is required".to_owned()));
    }
    front.triggers.iter().try_for_each(|trigger| check_trigger(trigger)).map_err(SkillError::Invalid)?;
    let text = render(front, body, old).map_err(SkillError::Invalid)?;
    if text.len() > allowance.bytes_max {
        let (max, bytes) = (allowance.bytes_max, text.len());
        return Err(SkillError::Invalid(format!("body: the skill must have at most {max} bytes, it has {bytes}")));
    }
    Ok(text)
}
