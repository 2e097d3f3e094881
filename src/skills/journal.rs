//! What agents changed about themselves, and taking it back.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::{PersonaError, Section, SkillError, Skills};
use crate::config::{ConfigError, edit};
use crate::sched::{Changes, LIST};
use crate::store::journal::{ChangeRow, NewChange};
use crate::store::{Db, JournalStore, StoreError};

/// Remembers changes and undoes them.
pub struct Journal {
    store: JournalStore,
    skills: Arc<Skills>,
    /// How schedules are put back; set once, by the composition root.
    changes: OnceLock<Arc<dyn Changes>>,
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
    /// The configuration would not be one with it, or cannot be written.
    Schedule(String),
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
            Self::Schedule(reason) => write!(f, "this schedule cannot be put back: {reason}"),
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
        Self { store: JournalStore::new(db), skills, changes: OnceLock::new() }
    }

    /// How schedules are put back; the first call counts.
    pub fn put_schedules_back_by(&self, changes: Arc<dyn Changes>) {
        let _ = self.changes.set(changes); // set once, by the composition root
    }

    /// Where entries are read.
    pub fn store(&self) -> &JournalStore {
        &self.store
    }

    /// Remembers a change that was made. A failure is logged and nothing else: the change stands.
    pub fn record(&self, change: &NewChange<'_>) {
        self.store.record(change);
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
            "schedule" => self.put_schedule_back(&row, force)?,
            _ => return Err(UndoError::Impossible),
        };
        if !put_back {
            return Err(UndoError::ChangedSince);
        }
        self.store.mark_undone(id, by)?;
        Ok(row)
    }

    /// False when the schedule is not what the change made of it, and nobody insists.
    fn put_schedule_back(&self, row: &ChangeRow, force: bool) -> Result<bool, UndoError> {
        let changes = self.changes.get().ok_or(UndoError::Impossible)?;
        let mut is_as_left = true;
        let changed = changes.change(&mut |doc| {
            let now = edit::text_in_list(doc, LIST, &row.target)?.unwrap_or_default();
            is_as_left = force || edit::says_same(&now, &row.after);
            if !is_as_left {
                return Err(ConfigError::refused());
            }
            edit::put_back_in_list(doc, LIST, &row.target, row.before.as_deref())
        });
        match changed {
            _ if !is_as_left => Ok(false),
            Ok(()) => Ok(true),
            Err(reason) => Err(UndoError::Schedule(reason)),
        }
    }
}
