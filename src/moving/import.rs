//! `holt import`: a data directory of the reference becomes ours. The source is only read; what is here stays; a second
//! run finds everything there.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::{self, Env, ReferenceSetup};
use crate::moving::source::{Scratch, copy_database};
use crate::moving::{MoveError, at, claimed, trees};
use crate::store::reference::{Reference, Tally};
use crate::store::{Db, StoreError, adopt, adopt_chats};

/// What is to be done.
pub struct Order<'a> {
    /// The reference's data directory.
    pub from: &'a Path,
    /// Its configuration file, where it is not in there.
    pub from_config: Option<&'a Path>,
    /// Ours, as [`config::own_place`] gives them.
    pub data_dir: &'a Path,
    pub config_path: &'a Path,
    pub db_path: &'a Path,
    pub env: &'a Env,
    /// Nothing is written.
    pub rehearsal: bool,
}

/// What came of it, by kind.
pub struct Report {
    pub kinds: Vec<(&'static str, Tally)>,
    /// What to know about the new configuration.
    pub warnings: Vec<String>,
}

impl Report {
    /// For programs.
    pub fn to_json(&self, rehearsal: bool) -> Value {
        let kinds: Vec<Value> = self
            .kinds
            .iter()
            .map(|(kind, tally)| {
                let notes: Vec<Value> = tally
                    .notes
                    .iter()
                    .map(|(why, (count, examples))| json!({"why": why, "count": count, "examples": examples}))
                    .collect();
                json!({
                    "kind": kind, "new": tally.new, "there": tally.there, "grown": tally.grown,
                    "skipped": tally.skipped, "notes": notes,
                })
            })
            .collect();
        json!({"dry_run": rehearsal, "kinds": kinds, "warnings": self.warnings})
    }
}

/// Takes everything over. An error ends it; the kinds before are here then, and another run goes on.
pub fn import(order: &Order<'_>) -> Result<Report, MoveError> {
    let setup = ReferenceSetup::read(order.from, order.from_config, order.env)?;
    refuse_nonsense(order, &setup)?;
    // Also keeps hubs away until everything is here.
    let _claimed = if order.rehearsal { None } else { Some(claimed(order.db_path, order.data_dir)?) };
    let place = if order.data_dir.is_dir() { order.data_dir.to_owned() } else { std::env::temp_dir() };
    let scratch = Scratch::new(&place)?;
    let memory = database(&setup.memory, &scratch, "memory.db")?;
    let sessions = database(&setup.sessions, &scratch, "sessions.db")?;
    let imagined = order.rehearsal && !order.db_path.exists();
    let db = if imagined { Db::in_memory()? } else { Db::open(order.db_path)? };
    let mut report = Report { kinds: Vec::new(), warnings: Vec::new() };
    let damaged = [(&setup.memory, &memory), (&setup.sessions, &sessions)];
    for (path, damage) in damaged.iter().filter_map(|(path, found)| Some((path, found.as_ref()?.damage()?))) {
        let path = path.display();
        report.warnings.push(format!("{path} is damaged ({damage}); what can be read of it is taken over"));
    }
    let secret_is_theirs = take_config(order, &setup, &scratch, &mut report)?;
    let mut files = [Tally::default(), Tally::default()];
    let dirs = [PathBuf::from("agents"), PathBuf::from("skills")];
    for dir in dirs.iter().chain(&setup.more_dirs) {
        let is_skill = |path: &Path| usize::from(path.components().any(|part| part.as_os_str() == "skills"));
        trees::adopt(&setup.dir, order.data_dir, dir, order.rehearsal, &mut files, &is_skill)?;
    }
    let [personas, skills] = files;
    report.kinds.push(("personas", personas));
    report.kinds.push(("skills", skills));
    if let Some(memory) = &memory {
        take_rows(order, memory, &db, &mut report)?;
        let tokens = if secret_is_theirs {
            adopt::tokens(memory, &db, order.rehearsal)?
        } else {
            all_skipped(memory, "oauth_tokens", "they were sealed with another session secret; connect the tools again")
        };
        report.kinds.push(("tokens", tokens));
    }
    if let Some(sessions) = &sessions {
        let logins = if secret_is_theirs {
            adopt::logins(sessions, &db, order.rehearsal)?
        } else {
            all_skipped(sessions, "sessions", "cookies of another session secret cannot be read here")
        };
        report.kinds.push(("logins", logins));
    }
    if !order.rehearsal {
        db.checkpoint()?;
    }
    Ok(report)
}

fn refuse_nonsense(order: &Order<'_>, setup: &ReferenceSetup) -> Result<(), MoveError> {
    let from = order.from.canonicalize().map_err(at(order.from))?;
    if order.data_dir.canonicalize().is_ok_and(|own| own == from) {
        return Err(MoveError::Refused(format!(
            "{} is this Holt's own data directory; give another one for the new data with --data-dir",
            order.data_dir.display()
        )));
    }
    if setup.config.is_none() && !setup.memory.exists() {
        return Err(MoveError::Refused(format!(
            "{} holds no data to import: neither a configuration nor {}",
            order.from.display(),
            setup.memory.display()
        )));
    }
    Ok(())
}

fn database(path: &Path, scratch: &Scratch, name: &str) -> Result<Option<Reference>, MoveError> {
    let copy = copy_database(path, scratch, name)?;
    let opened = copy.map(|copy| Reference::open(&copy)).transpose();
    opened.map_err(|error| match error {
        // The copy is gone when this is read.
        StoreError::Open { cause, .. } => MoveError::Refused(format!("{}: {cause}", path.display())),
        error => error.into(),
    })
}

/// Everything of the main database.
fn take_rows(order: &Order<'_>, memory: &Reference, db: &Db, report: &mut Report) -> Result<(), MoveError> {
    let rehearsal = order.rehearsal;
    let (conversations, messages, costs) = adopt_chats::conversations(memory, db, rehearsal)?;
    let kinds = &mut report.kinds;
    kinds.push(("keys", adopt::keys(memory, db, rehearsal)?));
    kinds.push(("conversations", conversations));
    kinds.push(("messages", Tally { new: messages, ..Tally::default() }));
    kinds.push(("costs", Tally { new: costs, ..Tally::default() }));
    kinds.push(("rules", adopt::rules(memory, db, rehearsal)?));
    kinds.push(("values", adopt::values(memory, db, rehearsal)?));
    kinds.push(("approvals", adopt::approvals(memory, db, rehearsal)?));
    Ok(())
}

fn all_skipped(from: &Reference, table: &str, why: &str) -> Tally {
    let mut tally = Tally { skipped: from.count(table), ..Tally::default() };
    if tally.skipped > 0 {
        tally.notes.insert(why.to_owned(), (tally.skipped, Vec::new()));
    }
    tally
}

/// Writes our configuration file unless there is one; whether the session secret in force is the reference's.
fn take_config(
    order: &Order<'_>,
    setup: &ReferenceSetup,
    scratch: &Scratch,
    report: &mut Report,
) -> Result<bool, MoveError> {
    let mut tally = Tally::default();
    let mut secret = None;
    if let Some(from) = &setup.config {
        let (text, left) = setup.rewritten(order.data_dir);
        let trial = scratch.path("holt.toml");
        config::replace(&trial, &text)?;
        let shown = from.display().to_string();
        let existing = std::fs::read_to_string(order.config_path).ok();
        match config::judge(&trial, order.data_dir, order.env) {
            _ if existing.as_ref() == Some(&text) => tally.there += 1,
            _ if existing.is_some() => tally.skip("another configuration file is here, ours stays", &shown),
            Err(error) => {
                // The trial's path means nothing to anybody.
                let reason = error.to_string().replace(&trial.display().to_string(), &shown);
                tally.skip(&format!("Holt would not start with it: {reason}"), "");
            }
            Ok(loaded) => {
                if !order.rehearsal {
                    config::replace(order.config_path, &text)?;
                }
                secret = loaded.auth.session_secret;
                report.warnings.extend(loaded.warnings);
                report
                    .warnings
                    .extend(left.iter().map(|key| format!("{key} still points to {}", order.from.display())));
                tally.new += 1;
            }
        }
    }
    report.kinds.push(("config", tally));
    if secret.is_none() && order.config_path.exists() {
        secret = config::judge(order.config_path, order.data_dir, order.env)?.auth.session_secret;
    }
    Ok(secret.is_some() && secret == setup.session_secret)
}
