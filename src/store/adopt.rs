//! Taking rows of the reference over into `holt.db`, a transaction for each kind. What is here already stays as it is.

use std::cell::Cell;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Row, Transaction, params_from_iter};

use crate::rt::clock;
use crate::store::reference::{Reference, Tally, text, text_or_empty, time_of};
use crate::store::{Db, StoreError, kv, time};

pub(super) const DAMAGED: &str = "the row is damaged";
const OURS: &str = "differs from what is here, ours stays";

/// Runs `change` in one transaction that is taken back when this is only a rehearsal.
pub(super) fn in_one(
    db: &Db,
    rehearsal: bool,
    change: impl FnOnce(&Transaction<'_>, &mut Tally) -> Result<(), StoreError>,
) -> Result<Tally, StoreError> {
    let mut tally = Tally::default();
    let mut done = false;
    let written = db.write(|tx| {
        change(tx, &mut tally)?;
        done = true;
        // Any error takes the transaction back.
        if rehearsal { Err(StoreError::NotFound) } else { Ok(()) }
    });
    match written {
        Err(_) if rehearsal && done => Ok(tally),
        written => written.map(|()| tally),
    }
}

/// The values to store, or why not; beside it the row's name.
type Judged = (Result<Vec<Value>, &'static str>, String);

/// A table whose rows are taken over one by one.
struct Rows<'a> {
    table: &'a str,
    columns: &'a [&'a str],
    /// Finds a row that stands for the same thing: whether it is also equal. Its parameters are the first columns.
    find: &'a str,
    judge: &'a dyn Fn(&Row<'_>) -> Judged,
    /// What stands against a row that is not here yet.
    against: &'a dyn Fn(&[Value]) -> Option<&'static str>,
}

impl Rows<'_> {
    fn adopt(&self, from: &Reference, tx: &Transaction<'_>, tally: &mut Tally) -> Result<(), StoreError> {
        let places: Vec<String> = (1..=self.columns.len()).map(|place| format!("?{place}")).collect();
        let insert = format!("INSERT INTO {}({}) VALUES ({})", self.table, self.columns.join(", "), places.join(", "));
        let mut insert = tx.prepare(&insert)?;
        let mut find = tx.prepare(self.find)?;
        from.rows(self.table, self.columns, tally, &mut |row, tally| {
            let (judged, name) = (self.judge)(row);
            let values = match judged {
                Ok(values) => values,
                Err(why) => {
                    tally.skip(why, &name);
                    return Ok(());
                }
            };
            let count = find.parameter_count();
            let mut found = find.query(params_from_iter(values.iter().take(count)))?;
            let same = found.next()?.map(|row| row.get::<_, bool>(0)).transpose()?;
            drop(found);
            match same {
                Some(true) => tally.there += 1,
                Some(false) => tally.skip(OURS, &name),
                None => match (self.against)(&values) {
                    Some(why) => tally.skip(why, &name),
                    None => {
                        insert.execute(params_from_iter(&values))?;
                        tally.new += 1;
                    }
                },
            }
            Ok(())
        })
    }
}

fn nothing_against(_: &[Value]) -> Option<&'static str> {
    None
}

fn stored(text: String) -> Value {
    Value::Text(text)
}

/// A time as Holt spells it; null stays null.
fn stored_time(ms: Option<i64>) -> Value {
    ms.map_or(Value::Null, |ms| Value::Text(time::text(ms)))
}

/// API keys: their plain texts go on working. A name that an active key has here already stays that key's.
pub fn keys(from: &Reference, db: &Db, rehearsal: bool) -> Result<Tally, StoreError> {
    let judge = |row: &Row<'_>| {
        let name = text_or_empty(row, 1);
        let read = || {
            let (id, hash, scopes) = (text(row, 0)?, text(row, 2)?, text(row, 3)?);
            let is_hash = hash.len() == 64 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            let listed = serde_json::from_str::<Vec<String>>(&scopes).is_ok();
            let times = [time_of(row, 4).ok()?, time_of(row, 5).ok()?, time_of(row, 6).ok()?];
            let name = text(row, 1).filter(|_| is_hash && listed && !id.is_empty())?;
            let [created, used, revoked] = times.map(stored_time);
            let created = if created == Value::Null { stored_time(Some(0)) } else { created };
            Some(vec![stored(id), stored(name), stored(hash), stored(scopes), created, used, revoked])
        };
        (read().ok_or(DAMAGED), name)
    };
    in_one(db, rehearsal, |tx, tally| {
        let taken: Vec<String> = tx
            .prepare("SELECT name FROM api_keys WHERE revoked_at IS NULL")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let against = |values: &[Value]| {
            let active = values.get(6) == Some(&Value::Null);
            let name = values.get(1);
            let is_taken = active && taken.iter().any(|taken| name == Some(&Value::Text(taken.clone())));
            is_taken.then_some("another key has that name here, ours stays")
        };
        Rows {
            table: "api_keys",
            columns: &["id", "name", "key_hash", "scopes", "created_at", "last_used_at", "revoked_at"],
            find: "SELECT id = ?1 AND name = ?2 AND key_hash = ?3 AND scopes = ?4 FROM api_keys
                WHERE id = ?1 OR key_hash = ?3",
            judge: &judge,
            against: &against,
        }
        .adopt(from, tx, tally)
    })
}

/// Permanent auto-approve rules.
pub fn rules(from: &Reference, db: &Db, rehearsal: bool) -> Result<Tally, StoreError> {
    let judge = |row: &Row<'_>| {
        let name = format!("{} {}", text_or_empty(row, 1), text_or_empty(row, 2));
        let scope = text(row, 3).unwrap_or_else(|| "permanent".to_owned());
        if scope != "permanent" {
            return (Err("rules of one conversation end with the program that made them"), name);
        }
        let read = || {
            let (id, agent, tool) = (text(row, 0)?, text(row, 1)?, text(row, 2)?);
            let created = stored_time(Some(time_of(row, 5).ok()?.unwrap_or(0)));
            let by = stored(text_or_empty(row, 6));
            let texts = [id, agent, tool, scope.clone()].map(stored);
            Some(texts.into_iter().chain([stored(String::new()), created, by]).collect())
        };
        (read().ok_or(DAMAGED), name)
    };
    in_one(db, rehearsal, |tx, tally| {
        Rows {
            table: "auto_approve_rules",
            columns: &["id", "agent_name", "tool_name", "scope", "conversation_id", "created_at", "created_by"],
            find: "SELECT agent_name = ?2 AND tool_name = ?3 AND scope = ?4 FROM auto_approve_rules WHERE id = ?1",
            judge: &judge,
            against: &nothing_against,
        }
        .adopt(from, tx, tally)
    })
}

/// Requests for approval, as history. One that was open expires here, as it does where it comes from at every start
/// (contract engine 3.3): its turn is gone, so nothing would follow a decision. What tools were to be added with stays
/// behind: it may hold secrets.
pub fn approvals(from: &Reference, db: &Db, rehearsal: bool) -> Result<Tally, StoreError> {
    let now = clock::unix_ms();
    let (is_open, n_open) = (Cell::new(false), Cell::new(0_u64));
    let judge = |row: &Row<'_>| {
        let read = || {
            let known = ["pending", "approved", "denied", "expired"];
            let status = text(row, 3).filter(|status| known.contains(&status.as_str()))?;
            is_open.set(status == "pending");
            let (id, kind) = (text(row, 0).filter(|id| !id.is_empty())?, text(row, 2)?);
            let (mut summary, mut payload) = (text(row, 4)?, text(row, 5)?);
            let adds = ["Execute tool \"tool_add\"", "Execute tool \"plugin_add\""];
            if let Some(plain) = adds.into_iter().find(|add| summary.starts_with(add)) {
                plain.clone_into(&mut summary);
                payload.clear();
            } else if kind == "install_tool" {
                payload.clear();
            }
            let times = [time_of(row, 10).ok()?, time_of(row, 11).ok()?, time_of(row, 12).ok()?];
            let [created, expires, mut resolved] = times;
            let (mut status, mut by) = (status, text_or_empty(row, 13));
            if is_open.get() {
                (status, by) = ("expired".to_owned(), "expired".to_owned());
                resolved = Some(expires.map_or(now, |at| at.min(now)));
            }
            let texts = [id, text(row, 1)?, kind, status, summary, payload].map(stored);
            let places = [6, 7, 8, 9].map(|index| stored(text_or_empty(row, index)));
            let times = [Some(created.unwrap_or(0)), expires, resolved].map(stored_time);
            Some(texts.into_iter().chain(places).chain(times).chain([stored(by)]).collect())
        };
        (read().ok_or(DAMAGED), text_or_empty(row, 0))
    };
    let against = |_: &[Value]| {
        n_open.set(n_open.get() + u64::from(is_open.get()));
        None
    };
    let mut tally = in_one(db, rehearsal, |tx, tally| {
        Rows {
            table: "approvals",
            columns: &[
                "id",
                "agent_name",
                "kind",
                "status",
                "summary",
                "payload",
                "callback_data",
                "external_id",
                "adapter_name",
                "conversation_id",
                "created_at",
                "expires_at",
                "resolved_at",
                "resolved_by",
            ],
            find: "SELECT agent_name = ?2 AND kind = ?3 FROM approvals WHERE id = ?1",
            judge: &judge,
            against: &against,
        }
        .adopt(from, tx, tally)
    })?;
    if n_open.get() > 0 {
        let why = "were not decided: their turns ended with the program that ran them, so they came as expired";
        tally.notes.insert(why.to_owned(), (n_open.get(), Vec::new()));
    }
    Ok(tally)
}

/// The key-value store, with what is left of each time to live.
pub fn values(from: &Reference, db: &Db, rehearsal: bool) -> Result<Tally, StoreError> {
    let now = clock::unix_ms();
    let judge = |row: &Row<'_>| {
        let name = format!("{}/{}", text_or_empty(row, 0), text_or_empty(row, 1));
        if time_of(row, 5).ok().flatten().is_some_and(|expires| expires <= now) {
            return (Err("has expired"), name);
        }
        let read = || {
            let texts = [text(row, 0)?, text(row, 1)?, text(row, 2)?];
            let (created, updated) = (time_of(row, 3).ok()?.unwrap_or(0), time_of(row, 4).ok()?.unwrap_or(0));
            let expires = time_of(row, 5).ok()?.map_or(Value::Null, |ms| Value::Text(kv::expiry_text(ms)));
            let times = [stored_time(Some(created)), stored_time(Some(updated)), expires];
            Some(texts.map(stored).into_iter().chain(times).collect())
        };
        (read().ok_or(DAMAGED), name)
    };
    in_one(db, rehearsal, |tx, tally| {
        Rows {
            table: "kv",
            columns: &["agent_name", "key", "value", "created_at", "updated_at", "expires_at"],
            find: "SELECT value = ?3 FROM kv WHERE agent_name = ?1 AND key = ?2",
            judge: &judge,
            against: &nothing_against,
        }
        .adopt(from, tx, tally)
    })
}

/// Logins of the dashboard that have not expired.
pub fn logins(from: &Reference, db: &Db, rehearsal: bool) -> Result<Tally, StoreError> {
    let now = clock::unix_ms();
    let judge = |row: &Row<'_>| {
        let name = text_or_empty(row, 1);
        let read = || {
            let (id, email, scopes) = (text(row, 0)?, text(row, 1)?, text(row, 2)?);
            let listed = serde_json::from_str::<Vec<String>>(&scopes).is_ok();
            let expires = time_of(row, 6).ok()??;
            let spelled = |ms: i64| stored(clock::rfc3339_s(ms));
            let seen = spelled(time_of(row, 7).ok()?.unwrap_or(0));
            let created = spelled(time_of(row, 5).ok()?.unwrap_or(0));
            let texts = [id, email, scopes, text_or_empty(row, 3), text_or_empty(row, 4)];
            let values = texts.map(stored).into_iter().chain([created, spelled(expires), seen]).collect();
            listed.then_some((values, expires))
        };
        let judged = match read() {
            None => Err(DAMAGED),
            Some((_, expires)) if expires <= now => Err("has expired"),
            Some((values, _)) => Ok(values),
        };
        (judged, name)
    };
    in_one(db, rehearsal, |tx, tally| {
        let columns = ["id", "email", "scopes", "user_agent", "ip", "created_at", "expires_at", "last_seen_at"];
        Rows {
            table: "sessions",
            columns: &columns,
            find: "SELECT email = ?2 FROM sessions WHERE id = ?1",
            judge: &judge,
            against: &nothing_against,
        }
        .adopt(from, tx, tally)
    })
}

/// Tokens of tool servers, sealed as they are: for a Holt with the same session secret.
pub fn tokens(from: &Reference, db: &Db, rehearsal: bool) -> Result<Tally, StoreError> {
    let judge = |row: &Row<'_>| {
        let name = text_or_empty(row, 0);
        // Null stays null; the rest has at least a nonce and a seal.
        let sealed = |index: usize| match row.get_ref(index) {
            Ok(ValueRef::Blob(bytes)) if bytes.len() > 28 => Some(Value::Blob(bytes.to_vec())),
            Ok(ValueRef::Null) => Some(Value::Null),
            _ => None,
        };
        let read = || {
            let (access, refresh, secret) = (sealed(1)?, sealed(2)?, sealed(7)?);
            let texts = |index: usize| text(row, index).map_or(Value::Null, Value::Text);
            let style = row.get::<_, Option<i64>>(9).ok()?.map_or(Value::Null, Value::Integer);
            let times = [time_of(row, 4).ok()?, time_of(row, 11).ok()?, time_of(row, 12).ok()?].map(stored_time);
            let [expiry, created, updated] = times;
            let named = stored(text(row, 0).filter(|_| access != Value::Null)?);
            Some(vec![
                named,
                access,
                refresh,
                texts(3),
                expiry,
                texts(5),
                texts(6),
                secret,
                texts(8),
                style,
                texts(10),
                created,
                updated,
            ])
        };
        (read().ok_or(DAMAGED), name)
    };
    in_one(db, rehearsal, |tx, tally| {
        Rows {
            table: "oauth_tokens",
            columns: &[
                "tool_name",
                "access_token",
                "refresh_token",
                "token_type",
                "expiry",
                "scopes",
                "client_id",
                "client_secret",
                "token_url",
                "auth_style",
                "resource_url",
                "created_at",
                "updated_at",
            ],
            // Ours may have been renewed since.
            find: "SELECT 1 FROM oauth_tokens WHERE tool_name = ?1",
            judge: &judge,
            against: &nothing_against,
        }
        .adopt(from, tx, tally)
    })
}
