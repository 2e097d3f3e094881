//! From options, variables and the file to a [`Config`].

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::agents::{agents, check_others};
use super::api::{api, auth};
use super::check::{at_least, number, time_above_zero};
use super::costs::costs;
use super::edit::Document;
use super::env::Env;
use super::error::ConfigError;
use super::fleet::fleet;
use super::kv::kv;
use super::llm::llm;
use super::notify::notify_channels;
use super::place::{self, Place};
use super::raw::Typed;
use super::schedules::{scheduler, schedules};
use super::source::Source;
use super::tools::{mcp, tools};
use super::web::web;
use super::{AuditConfig, Config, LogConfig, StreamConfig};
use crate::limits;

/// Holt's own database, in the data directory.
const DB_FILE: &str = "holt.db";
/// Where the reference keeps its database, under the data directory.
const REFERENCE_DB: &str = "data/memory.db";
/// The first bytes of every SQLite file (sqlite.org/fileformat.html 1.3).
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";
const LOG_AGE_MAX: Duration = Duration::from_secs(168 * 3600);
const LOG_BYTES_MAX: u64 = 256 * 1024 * 1024;
const TURNS_MAX: usize = 32;

/// Command line options that take part in the configuration; they win over everything else.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`: must exist.
    pub config: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<String>,
}

/// Reads and validates the configuration (contract engine 10; decisions, rows "names", "defaults", "databases").
///
/// Reads the file and looks whether a few paths exist; creates and changes nothing. Fails on the first value that is
/// not allowed; what is merely unknown or unsupported is in [`Config::warnings`].
pub fn load(flags: &Flags, env: &Env) -> Result<Config, ConfigError> {
    let place = place::find(flags, env)?;
    let typed = Typed::read(&place, flags, env)?;
    from_typed(place, typed, flags, env)
}

/// What [`load`] would make of a file that holds this.
pub(super) fn load_document(doc: &Document, flags: &Flags, env: &Env) -> Result<Config, ConfigError> {
    let mut place = place::find(flags, env)?;
    // A file that is written for the first time is Holt's own.
    place.reference &= place.config_path.exists();
    let typed = Typed::of(Some(doc.clone()), &place, flags, env)?;
    from_typed(place, typed, flags, env)
}

fn from_typed(place: Place, mut typed: Typed, flags: &Flags, env: &Env) -> Result<Config, ConfigError> {
    let data_dir = chosen_data_dir(&place, &typed)?;
    let api = api(&mut typed, place.reference)?;
    let auth = auth(&mut typed, env, &data_dir)?;
    let llm = llm(&mut typed, env, &data_dir)?;
    let agents = agents(&mut typed, &llm, &data_dir)?;
    check_others(&typed)?;
    let db_path = db_path(&mut typed, &data_dir)?;
    let streams = streams(&typed)?;
    let tools = tools(&typed)?;
    let mcp = mcp(&typed)?;
    let audit = audit(&typed)?;
    let web = web(&mut typed)?;
    let kv = kv(&typed)?;
    let costs = costs(&mut typed)?;
    let fleet = fleet(&typed, env, &data_dir)?;
    let notify = notify_channels(&typed.raw.notify, env, &data_dir).map_err(|(key, reason)| typed.bad(&key, reason))?;
    let schedules = schedules(&mut typed, &agents, &notify)?;
    let scheduler = scheduler(&typed)?;
    let log = log(&mut typed);
    warn_unsupported(&mut typed);
    Ok(Config {
        data_dir,
        config_path: place.config_path,
        db_path,
        log,
        api,
        auth,
        llm,
        agents,
        schedules,
        scheduler,
        streams,
        tools,
        mcp,
        audit,
        web,
        kv,
        costs,
        fleet,
        notify,
        metrics: typed.tree.get("otel.enabled").is_some_and(|on| on == true),
        warnings: typed.warnings,
        source: Source::new(flags, env),
        tree: typed.tree,
    })
}

/// The data directory alone, also when the rest of the configuration would be refused.
pub fn data_dir(flags: &Flags, env: &Env) -> Result<PathBuf, ConfigError> {
    let place = place::find(flags, env)?;
    let typed = Typed::read(&place, flags, env)?;
    chosen_data_dir(&place, &typed)
}

fn chosen_data_dir(place: &Place, typed: &Typed) -> Result<PathBuf, ConfigError> {
    let typed_dir = typed.raw.data_dir.as_deref().filter(|dir| !dir.is_empty()).map(PathBuf::from);
    place.data_dir.clone().or(typed_dir).or_else(|| place.home_data_dir.clone()).ok_or(ConfigError::NoDataDir)
}

/// Always `holt.db` in the data directory, unless `memory.db_path` names a `holt.db` elsewhere. A database of the
/// reference is never opened: it stops the start, until its data was taken over.
fn db_path(typed: &mut Typed, data_dir: &Path) -> Result<PathBuf, ConfigError> {
    let own = data_dir.join(DB_FILE);
    let asked = PathBuf::from(&typed.raw.memory.db_path);
    if asked.as_os_str().is_empty() {
        let reference = data_dir.join(REFERENCE_DB);
        if !own.exists() && is_sqlite(&reference) {
            return Err(ConfigError::ReferenceDatabase { path: reference });
        }
        return Ok(own);
    }
    if asked.file_name().is_some_and(|name| name == DB_FILE) {
        return Ok(asked);
    }
    if is_sqlite(&asked) {
        return Err(ConfigError::ReferenceDatabase { path: asked });
    }
    typed.warnings.push(format!("memory.db_path: not used; Holt keeps its data in {}", own.display()));
    Ok(own)
}

/// Looks at the first bytes only; what cannot be read is not a database that we could harm.
fn is_sqlite(path: &Path) -> bool {
    let mut magic = [0; 16];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *SQLITE_MAGIC
}

fn streams(typed: &Typed) -> Result<StreamConfig, ConfigError> {
    let raw = &typed.raw.streams;
    Ok(StreamConfig {
        log_age_max: time_above_zero(typed, "streams.log_age_max", raw.log_age_max.as_deref(), LOG_AGE_MAX)?,
        log_bytes_max: match raw.log_bytes_max {
            None => LOG_BYTES_MAX,
            // Less than the rings in memory hold would make every resume a gap.
            Some(bytes) => number(typed, "streams.log_bytes_max", bytes, 1024 * 1024, u64::MAX)?,
        },
        approval_timeout: time_above_zero(
            typed,
            "session.approval_timeout",
            typed.raw.session.approval_timeout.as_deref(),
            crate::limits::APPROVAL_TTL,
        )?,
        turns_max: at_least(typed, "streams.turns_max", raw.turns_max, 1, TURNS_MAX)?,
    })
}

fn audit(typed: &Typed) -> Result<AuditConfig, ConfigError> {
    let raw = &typed.raw.audit;
    Ok(AuditConfig {
        retention: time_above_zero(typed, "audit.retention", raw.retention.as_deref(), limits::AUDIT_RETENTION)?,
        rows_max: at_least(typed, "audit.rows_max", raw.rows_max, 100, limits::AUDIT_ROWS_MAX)?,
    })
}

/// Unknown words mean the default, as in the reference.
fn log(typed: &mut Typed) -> LogConfig {
    let raw = &typed.raw.log;
    let level = match raw.level.as_str() {
        "debug" => log::LevelFilter::Debug,
        "warn" => log::LevelFilter::Warn,
        "error" => log::LevelFilter::Error,
        _ => log::LevelFilter::Info,
    };
    let mut odd = Vec::new();
    if !matches!(raw.level.as_str(), "" | "debug" | "info" | "warn" | "error") {
        odd.push(format!("log.level: {:?} is not debug, info, warn or error; info is used", raw.level));
    }
    if !matches!(raw.format.as_str(), "" | "text" | "json") {
        odd.push(format!("log.format: {:?} is not text or json; text is used", raw.format));
    }
    let json = raw.format == "json";
    typed.warnings.extend(odd);
    LogConfig { level, json }
}

/// One line for each thing that is configured and will never happen here (holt-additions, "Not built").
fn warn_unsupported(typed: &mut Typed) {
    let told = |key: &str| typed.tree.get(key).is_some_and(|value| !matches!(value, Value::Bool(false)) && value != "");
    let is_cluster = typed.tree.get("sandbox.runtime").is_some_and(|runtime| runtime == "kubernetes");
    let warnings = [
        (told("web.fetch.jina.enabled"), "web.fetch.jina: not supported"),
        (told("telegram.token"), "telegram: not supported"),
        (told("discord.token"), "discord: not supported"),
        (told("voice.stt_provider") || told("voice.tts_provider"), "voice: not supported"),
        (is_cluster, "sandbox.runtime: kubernetes is not supported"),
        (told("otel.traces_endpoint"), "otel.traces_endpoint: sending traces is not supported"),
    ];
    typed.warnings.extend(warnings.into_iter().filter(|(named, _)| *named).map(|(_, text)| text.to_owned()));
}
