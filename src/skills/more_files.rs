//! Files beside a `SKILL.md`: longer texts that a skill refers to and that an agent reads when it needs them.

use std::fs;
use std::path::{Path, PathBuf};

use super::change::SkillError;
use super::directory::AgentSkills;
use super::files;
use super::skill::SkillInfo;
use crate::limits;
use crate::rt::{json::quoted, lock};

/// Longest name of a file or directory.
const NAME_BYTES_MAX: usize = 64;

impl AgentSkills {
    /// The files of a skill with their bytes, by path.
    pub fn files(&self, name: &str) -> Result<Vec<(String, u64)>, SkillError> {
        let info = self.known(name)?;
        Ok(files_of(&info))
    }

    /// The text of one file.
    pub fn file(&self, name: &str, path: &str) -> Result<String, SkillError> {
        let info = self.known(name)?;
        let full = below(&info, path)?.ok_or_else(|| missing(path))?;
        if files::stamp(&full).is_none() || full.is_symlink() {
            return Err(missing(path));
        }
        Ok(files::read(&full, limits::SKILL_FILE_BYTES_MAX)?)
    }

    /// Writes a file of one of the agent's own skills. A skill that is a single file becomes a directory.
    pub fn put_file(&self, name: &str, path: &str, text: &str) -> Result<(), SkillError> {
        check_path(path)?;
        if text.len() > limits::SKILL_FILE_BYTES_MAX {
            let max = limits::SKILL_FILE_BYTES_MAX;
            return Err(SkillError::Invalid(format!("content must be at most {max} bytes")));
        }
        let _queue = lock(&self.writing);
        let mut info = self.own_skill(name)?;
        let known = files_of(&info);
        if known.len() >= limits::SKILL_FILES_MAX && !known.iter().any(|(known, _)| known == path) {
            return Err(SkillError::Invalid(format!("no more than {} files", limits::SKILL_FILES_MAX)));
        }
        if directory_of(&info).is_none() {
            let directory = info.path.with_extension("");
            files::make_directory(&directory, 0o750)?;
            if !files::is_own_directory(&directory) {
                return Err(SkillError::Invalid(format!("{} is no directory", directory.display())));
            }
            let moved = directory.join("SKILL.md");
            fs::rename(&info.path, &moved)?;
            info.path = moved;
        }
        let full = below(&info, path)?.ok_or_else(|| missing(path))?;
        files::make_directory(full.parent().unwrap_or(&full), 0o750)?;
        Ok(files::write(&full, text)?)
    }

    /// Removes a file of one of the agent's own skills.
    pub fn delete_file(&self, name: &str, path: &str) -> Result<(), SkillError> {
        let _queue = lock(&self.writing);
        let info = self.own_skill(name)?;
        let full = below(&info, path)?.filter(|full| fs::symlink_metadata(full).is_ok_and(|found| !found.is_dir()));
        fs::remove_file(full.ok_or_else(|| missing(path))?)?;
        Ok(())
    }

    fn known(&self, name: &str) -> Result<std::sync::Arc<SkillInfo>, SkillError> {
        self.info(name).ok_or_else(|| SkillError::NotFound { name: name.to_owned() })
    }

    fn own_skill(&self, name: &str) -> Result<SkillInfo, SkillError> {
        let info = self.known(name)?;
        if info.is_shared {
            return Err(SkillError::Shared { name: name.to_owned() });
        }
        if directory_of(&info).is_some_and(|directory| !files::is_own_directory(directory)) {
            return Err(SkillError::Invalid("its directory is a link; change the files there".to_owned()));
        }
        Ok(SkillInfo::clone(&info))
    }
}

/// See [`AgentSkills::files`].
pub(super) fn files_of(info: &SkillInfo) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    if let Some(directory) = directory_of(info) {
        walk(directory, "", limits::SKILL_FILE_DEPTH_MAX, &mut found);
        found.sort();
    }
    found
}

/// The directory of a skill that has one.
fn directory_of(info: &SkillInfo) -> Option<&Path> {
    info.path.parent().filter(|_| info.path.file_name().is_some_and(|name| name == "SKILL.md"))
}

/// Where a file of that name is; None for a skill without a directory, or when a link is in the way.
fn below(info: &SkillInfo, path: &str) -> Result<Option<PathBuf>, SkillError> {
    check_path(path)?;
    let Some(directory) = directory_of(info) else { return Ok(None) };
    let mut full = directory.to_owned();
    for part in path.split('/') {
        full.push(part);
        if full.is_symlink() {
            return Ok(None);
        }
    }
    Ok(Some(full))
}

fn check_path(path: &str) -> Result<(), SkillError> {
    let is_plain = |part: &str| {
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        !part.is_empty() && part.len() <= NAME_BYTES_MAX && !part.starts_with('.') && part.chars().all(letters)
    };
    let parts = path.split('/').count();
    if parts > limits::SKILL_FILE_DEPTH_MAX || !path.split('/').all(is_plain) || path.eq_ignore_ascii_case("SKILL.md") {
        return Err(SkillError::Invalid(format!(
            "path {} must be names of letters, digits, '.', '_' and '-' (at most {NAME_BYTES_MAX} each, {} deep), and not SKILL.md",
            quoted(path),
            limits::SKILL_FILE_DEPTH_MAX
        )));
    }
    Ok(())
}

fn missing(path: &str) -> SkillError {
    SkillError::NoFile { path: path.to_owned() }
}

/// Plain files below a directory; nothing hidden, no links.
fn walk(directory: &Path, prefix: &str, depth: usize, found: &mut Vec<(String, u64)>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.take(limits::DIRECTORY_ENTRIES_MAX).flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Ok(about) = entry.metadata() else { continue };
        let path = format!("{prefix}{name}");
        if check_path(&path).is_err() || found.len() >= limits::SKILL_FILES_MAX {
            continue;
        }
        if about.is_dir() && depth > 1 {
            walk(&entry.path(), &format!("{path}/"), depth - 1, found);
        } else if about.is_file() {
            found.push((path, about.len()));
        }
    }
}
