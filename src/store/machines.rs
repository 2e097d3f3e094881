//! The machines of the fleet: who they are, what they may, and when they were last seen (contract agent-link 8).

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde_json::Value;

use crate::rt::clock;
use crate::rt::order::Order;
use crate::store::machine_tokens::WANTED;
use crate::store::{Db, StoreError};

pub use crate::store::machine_tokens::{TokenOwner, hash_token};

const COLUMNS: &str = "id, state, credential, token_hash, next_token_hash, display_name, own_labels, expected_off,
    hostname, ip, os, arch, labels, plugins, features, agent_version, address, presence, presence_at, down_reported,
    last_seen_at, heartbeat, created_at, created_by";

/// Rows beyond which a shared token makes no new ones.
const MACHINES_MAX: i64 = 4096;

/// Whether a machine may take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineState {
    /// It asked; nobody has decided.
    Pending,
    Approved,
    Revoked,
}

impl MachineState {
    /// As stored and sent.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Revoked => "revoked",
        }
    }
}

/// Whether a machine is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Never,
    Online,
    /// It said goodbye.
    Stopped,
    /// It did not, and has been away for longer than the grace period.
    Lost,
}

impl Presence {
    /// As stored and sent.
    pub fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Online => "online",
            Self::Stopped => "stopped",
            Self::Lost => "lost",
        }
    }

    fn from_name(name: &str) -> Self {
        [Self::Online, Self::Stopped, Self::Lost].into_iter().find(|known| known.name() == name).unwrap_or(Self::Never)
    }
}

/// A machine. Times are milliseconds since 1970; 0 is never.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The agent's id, a lower-case UUID.
    pub id: String,
    pub state: MachineState,
    /// It uses the token that all may share, and chose its id itself.
    pub is_shared: bool,
    /// First 8 hex digits of SHA-256 of its token: both sides show them, so that people can compare.
    pub token_code: String,
    /// A new token is to be handed out, or was and is not used yet.
    pub is_rotating: bool,
    /// Given at the hub; may be empty.
    pub display_name: String,
    /// Given at the hub; they win over `labels`.
    pub own_labels: BTreeMap<String, String>,
    pub expected_off: bool,
    pub hostname: String,
    pub ip: String,
    pub os: String,
    pub arch: String,
    /// As the machine says.
    pub labels: BTreeMap<String, String>,
    pub plugins: Vec<String>,
    pub features: Vec<String>,
    pub agent_version: String,
    /// Where its connection comes from.
    pub address: String,
    pub presence: Presence,
    pub presence_at: i64,
    /// 0: nobody was told that it is down. 1: of it alone. Else the number of the round that it was part of.
    pub down_reported: i64,
    pub last_seen_at: i64,
    /// The last one, as sent.
    pub heartbeat: Value,
    pub created_at: i64,
    pub created_by: String,
}

impl Machine {
    /// What people call it.
    pub fn name(&self) -> &str {
        [&self.display_name, &self.hostname].into_iter().find(|name| !name.is_empty()).unwrap_or(&self.id)
    }

    /// All its labels, those of the hub before its own.
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.extend(self.own_labels.clone());
        labels
    }
}

/// What a machine says of itself when it registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub hostname: String,
    pub ip: String,
    pub os: String,
    pub arch: String,
    pub labels: BTreeMap<String, String>,
    pub plugins: Vec<String>,
    pub features: Vec<String>,
    pub agent_version: String,
    pub address: String,
}

/// The machines of `holt.db`.
#[derive(Clone)]
pub struct MachineStore {
    pub(super) db: Arc<Db>,
}

impl MachineStore {
    pub fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    /// All of them, by name.
    pub fn list(&self) -> Result<Vec<Machine>, StoreError> {
        self.db.read(|conn| {
            let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM machines"))?;
            let mut machines = statement.query_map([], machine)?.collect::<Result<Vec<_>, _>>()?;
            machines.order_by(|a, b| a.name().cmp(b.name()).then_with(|| a.id.cmp(&b.id)));
            Ok(machines)
        })
    }

    /// The machine of that id.
    pub fn get(&self, id: &str) -> Result<Option<Machine>, StoreError> {
        self.db.read(|conn| get(conn, id))
    }

    /// The machine that is meant: by id, or by the beginning of an id (8 characters or more), a display or host name
    /// that only one has. `NotFound` for an unknown or ambiguous one.
    pub fn find(&self, text: &str) -> Result<Machine, StoreError> {
        if let Some(machine) = self.get(text)? {
            return Ok(machine);
        }
        let fits = |machine: &Machine| {
            machine.display_name.eq_ignore_ascii_case(text)
                || machine.hostname.eq_ignore_ascii_case(text)
                || (text.len() >= 8 && machine.id.starts_with(text))
        };
        let mut found = self.list()?.into_iter().filter(fits);
        match (found.next(), found.next()) {
            (Some(machine), None) if !text.is_empty() => Ok(machine),
            _ => Err(StoreError::NotFound),
        }
    }

    /// Records who asks to take part. False when `pending_max` ask already, or when the id belongs to another token.
    pub fn ask(&self, id: &str, hash: &str, facts: &Facts, pending_max: i64) -> Result<bool, StoreError> {
        self.db.write(|tx| {
            let known: Option<(String, String)> = tx
                .query_row("SELECT state, token_hash FROM machines WHERE id = ?1", [id], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            match known {
                Some((state, token)) if state == "pending" && token == hash => {}
                Some(_) => return Ok(false),
                None => {
                    let pending: i64 =
                        tx.query_row("SELECT count(*) FROM machines WHERE state = 'pending'", [], |row| row.get(0))?;
                    if pending >= pending_max {
                        return Ok(false);
                    }
                    insert(tx, id, "pending", "token", hash, "")?;
                }
            }
            set_facts(tx, id, facts)?;
            tx.execute("UPDATE machines SET last_seen_at = ?2 WHERE id = ?1", params![id, clock::unix_ms()])?;
            Ok(true)
        })
    }

    /// A machine with the shared token: known from now on. False when that id has a token of its own or is revoked, or
    /// when there are too many machines: whoever has the token can make up ids.
    pub fn admit_shared(&self, id: &str) -> Result<bool, StoreError> {
        let found = "SELECT state = 'approved' AND credential = 'shared' FROM machines WHERE id = ?1";
        let known = self.db.read(|conn| Ok(conn.query_row(found, [id], |row| row.get(0)).optional()?))?;
        match known {
            Some(is_fine) => Ok(is_fine),
            None => self.db.write(|tx| {
                let count: i64 = tx.query_row("SELECT count(*) FROM machines", [], |row| row.get(0))?;
                if count >= MACHINES_MAX {
                    return Ok(false);
                }
                insert(tx, id, "approved", "shared", "", "shared token")?;
                Ok(true)
            }),
        }
    }

    /// Writes what a machine said when it registered, and that it is online.
    pub fn register(&self, id: &str, facts: &Facts, now: i64) -> Result<(), StoreError> {
        self.db.write(|tx| {
            set_facts(tx, id, facts)?;
            tx.execute(
                "UPDATE machines SET presence = 'online', presence_at = CASE presence WHEN 'online' THEN presence_at
                ELSE ?2 END, last_seen_at = ?2 WHERE id = ?1",
                params![id, now],
            )?;
            Ok(())
        })
    }

    /// Lets a pending machine take part, and has a token of its own handed out. `NotFound` for any other.
    pub fn approve(&self, id: &str, by: &str) -> Result<(), StoreError> {
        self.change(
            "UPDATE machines SET state = 'approved', created_by = ?2, next_token_hash = ?3
            WHERE id = ?1 AND state = 'pending'",
            params![id, by, WANTED],
        )
    }

    /// Ends a machine's part at once; its tokens are worth nothing any more. `NotFound` for an unknown or revoked one.
    pub fn revoke(&self, id: &str) -> Result<(), StoreError> {
        self.change(
            "UPDATE machines SET state = 'revoked', token_hash = '', next_token_hash = ''
            WHERE id = ?1 AND state <> 'revoked'",
            params![id],
        )
    }

    /// Removes a machine with its readings. It may join again. `NotFound` for an unknown one.
    pub fn forget(&self, id: &str) -> Result<(), StoreError> {
        self.change("DELETE FROM machines WHERE id = ?1", params![id])
    }

    /// Changes what people gave it; None leaves a value as it is.
    pub fn set(
        &self,
        id: &str,
        display_name: Option<&str>,
        own_labels: Option<&BTreeMap<String, String>>,
        expected_off: Option<bool>,
    ) -> Result<(), StoreError> {
        self.change(
            "UPDATE machines SET display_name = coalesce(?2, display_name), own_labels = coalesce(?3, own_labels),
            expected_off = coalesce(?4, expected_off) WHERE id = ?1",
            params![id, display_name, own_labels.map(text_of), expected_off],
        )
    }

    /// Removes requests that nobody has answered since then.
    pub fn forget_requests(&self, seen_before: i64) -> Result<usize, StoreError> {
        let old = "SELECT EXISTS(SELECT 1 FROM machines WHERE state = 'pending' AND last_seen_at < ?1)";
        if !self.db.read(|conn| Ok(conn.query_row(old, [seen_before], |row| row.get::<_, bool>(0))?))? {
            return Ok(0);
        }
        self.db.write(|tx| {
            Ok(tx.execute("DELETE FROM machines WHERE state = 'pending' AND last_seen_at < ?1", [seen_before])?)
        })
    }

    pub(super) fn change(&self, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Result<(), StoreError> {
        self.db.write(|tx| match tx.execute(sql, values)? {
            0 => Err(StoreError::NotFound),
            _ => Ok(()),
        })
    }
}

/// Inside a transaction: a machine that comes with a join code. Its token is the code until the one handed out is used.
pub(super) fn join(
    tx: &Transaction<'_>,
    id: &str,
    code_hash: &str,
    labels: &str,
    name: &str,
    by: &str,
) -> Result<(), StoreError> {
    tx.execute("DELETE FROM machines WHERE id = ?1 AND state = 'pending'", [id])?;
    insert(tx, id, "approved", "token", code_hash, by)?;
    tx.execute(
        "UPDATE machines SET state = 'approved', credential = 'token', token_hash = ?2, next_token_hash = ?3,
        token_until = 0, own_labels = ?4, display_name = ?5, created_by = ?6 WHERE id = ?1",
        params![id, code_hash, WANTED, labels, name, by],
    )?;
    Ok(())
}

/// What is there already stays as it is.
fn insert(
    tx: &Transaction<'_>,
    id: &str,
    state: &str,
    credential: &str,
    hash: &str,
    by: &str,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO machines(id, state, credential, token_hash, created_at, created_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT(id) DO NOTHING",
        params![id, state, credential, hash, clock::unix_ms(), by],
    )?;
    Ok(())
}

fn set_facts(tx: &Transaction<'_>, id: &str, facts: &Facts) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE machines SET hostname = ?2, ip = ?3, os = ?4, arch = ?5, labels = ?6, plugins = ?7, features = ?8,
        agent_version = ?9, address = ?10 WHERE id = ?1",
        params![
            id,
            facts.hostname,
            facts.ip,
            facts.os,
            facts.arch,
            text_of(&facts.labels),
            text_of(&facts.plugins),
            text_of(&facts.features),
            facts.agent_version,
            facts.address
        ],
    )?;
    Ok(())
}

fn get(conn: &Connection, id: &str) -> Result<Option<Machine>, StoreError> {
    let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM machines WHERE id = ?1"))?;
    Ok(statement.query_row([id], machine).optional()?)
}

fn machine(row: &Row<'_>) -> rusqlite::Result<Machine> {
    let text = |index: usize| row.get::<_, String>(index);
    let (hash, next): (String, String) = (row.get(3)?, row.get(4)?);
    Ok(Machine {
        id: text(0)?,
        state: state_of(&text(1)?),
        is_shared: text(2)? == "shared",
        token_code: hash.get(..8).unwrap_or_default().to_owned(),
        is_rotating: !next.is_empty(),
        display_name: text(5)?,
        own_labels: serde_json::from_str(&text(6)?).unwrap_or_default(),
        expected_off: row.get(7)?,
        hostname: text(8)?,
        ip: text(9)?,
        os: text(10)?,
        arch: text(11)?,
        labels: serde_json::from_str(&text(12)?).unwrap_or_default(),
        plugins: serde_json::from_str(&text(13)?).unwrap_or_default(),
        features: serde_json::from_str(&text(14)?).unwrap_or_default(),
        agent_version: text(15)?,
        address: text(16)?,
        presence: Presence::from_name(&text(17)?),
        presence_at: row.get(18)?,
        down_reported: row.get(19)?,
        last_seen_at: row.get(20)?,
        heartbeat: serde_json::from_str(&text(21)?).unwrap_or_default(),
        created_at: row.get(22)?,
        created_by: text(23)?,
    })
}

pub(super) fn state_of(name: &str) -> MachineState {
    match name {
        "approved" => MachineState::Approved,
        "pending" => MachineState::Pending,
        _ => MachineState::Revoked,
    }
}

pub(super) fn text_of(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
