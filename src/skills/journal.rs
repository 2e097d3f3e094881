//! What agents changed about themselves, and taking it back.

use std::fmt;
use std::sync::Arc;

use super::{PersonaError, Section, SkillError, Skills};
use crate::store::journal::{ChangeRow, NewChange};
use crate::store::{Db, JournalStore, StoreError};

/// Remembers changes and undoes them.
pub struct Journal {
    store: JournalStore,
    skills: Arc<Skills>,
}

/// Why a change was not undone. Nothing was changed.
#[derive(Debug)]
pub enum UndoError {
    /// Its agent is gone, or nothing here knows how to take it back.
    Impossible,
    AlreadyUndone,
    /// It changed again since; only a forced undo goes on.
    ChangedSince,
    Skill(SkillError),
    Persona(PersonaError),
    /// No such entry, or the database.
    Store(StoreError),
}

impl fmt::Display for UndoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Impossible => f.write_str("this change cannot be undone: its agent is gone"),
            Self::AlreadyUndone => f.write_str("this change is undone already"),
            Self::ChangedSince => f.write_str(
                "it was changed again since; look at it, then send {\"force\":true} to put the older text back",
            ),
            Self::Skill(cause) => write!(f, "{cause}"),
            Self::Persona(cause) => write!(f, "{cause}"),
            Self::Store(cause) => write!(f, "{cause}"),
        }
    }
}

impl std::error::Error for UndoError {}

impl From<StoreError> for UndoError {
    fn from(cause: StoreError) -> Self {
        Self::Store(cause)
    }
}

impl Journal {
    /// The journal of these agents.
    pub fn new(db: Arc<Db>, skills: Arc<Skills>) -> Self {
        Self { store: JournalStore::new(db), skills }
    }

    /// Where entries are read.
    pub fn store(&self) -> &JournalStore {
        &self.store
    }

    /// Remembers a change that was made. A failure is logged and nothing else: the change stands.
    pub fn record(&self, change: &NewChange<'_>) {
        if change.before == Some(change.after) {
            return;
        }
        if let Err(error) = self.store.add(change) {
            log::error!("journal of agent {}: {error}; this change cannot be undone", change.agent);
        }
    }

    /// Puts back what was there before a change; refused when it changed again since, unless forced.
    pub fn undo(&self, id: i64, force: bool, by: &str) -> Result<ChangeRow, UndoError> {
        let row = self.store.get(id)?;
        if row.undone_at.is_some() {
            return Err(UndoError::AlreadyUndone);
        }
        let agent = self.skills.find(&row.agent).ok_or(UndoError::Impossible)?;
        let put_back = match row.kind.as_str() {
            "skill" => agent
                .put_back(&row.place, row.before.as_deref(), |now| force || now == Some(row.after.as_str()))
                .map_err(UndoError::Skill)?,
            "persona" => {
                let section = Section::parse(&row.target).ok_or(UndoError::Impossible)?;
                let before = row.before.as_deref().unwrap_or_default();
                let persona = agent.persona();
                persona.put_back(section, before, |now| force || now == row.after).map_err(UndoError::Persona)?
            }
            _ => return Err(UndoError::Impossible),
        };
        if !put_back {
            return Err(UndoError::ChangedSince);
        }
        self.store.mark_undone(id, by)?;
        Ok(row)
    }
}
