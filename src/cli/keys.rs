//! `holt keys ...`: API keys, straight in the hub's database.

use std::sync::Arc;

use super::command::{Action, Arg, Command};
use super::database::Database;
use super::output::{self, out};
use super::table::Table;
use super::{CliError, Context, time};
use crate::auth::setup::Setup;
use crate::auth::validate_key_input;
use crate::store::{ApiKeyRecord, KeyStore, StoreError};

/// How much of an id lists show.
const ID_SHOWN: usize = 8;

pub(super) const COMMAND: Command =
    Command::group("keys", "Make, list, revoke and rotate API keys", &[CREATE, LIST, REVOKE, ROTATE]);

const ID: Arg = Arg::word("id", "Id of the key, or the beginning of it");

const CREATE: Command = Command {
    name: "create",
    about: "Make a key",
    details: "Make a key and show it, this once.\n\
              Works on the hub's database, also while the hub runs. The first key ends setup: the setup page and its PIN \
              are closed.\n\
              Scopes: admin, chat, sessions:read, sessions:write, costs:read, agents:read, agents:write, approvals:read, \
              approvals:write, tools:read, tools:write, kv:read, kv:write, machines:read, machines:write, audit:read, \
              and more.",
    examples: &[
        "holt keys create laptop",
        "holt keys create dashboard-tv --scopes sessions:read,costs:read",
        "holt keys create bot -s chat --data-dir /var/lib/holt",
    ],
    args: &[
        Arg::word("name", "What the key is for"),
        Arg::option("scopes", "SCOPES", "What the key may do, separated by commas").short('s').default("admin").many(),
    ],
    action: Action::Run(|args, context| {
        let mut scopes = args.values("scopes");
        if scopes.is_empty() {
            scopes.push(args.text("scopes"));
        }
        let scopes = scopes.iter().flat_map(|list| list.split(',')).map(|scope| scope.trim().to_owned()).collect();
        create(context, args.text("name"), scopes)
    }),
};

const LIST: Command = Command {
    name: "list",
    about: "List all keys, revoked ones too",
    details: "List all keys, newest first, revoked ones too. The keys themselves are not kept and not shown.",
    examples: &["holt keys list", "holt keys list | grep active"],
    args: &[],
    action: Action::Run(|_, context| list(context)),
};

const REVOKE: Command = Command {
    name: "revoke",
    about: "Revoke a key",
    details: "Revoke a key. A running hub notices by itself: requests fail at once, open sockets close within a second.",
    examples: &["holt keys revoke 3f9c2a1b", "holt keys revoke 3f9c2a1b7d604e58"],
    args: &[ID],
    action: Action::Run(|args, context| revoke(context, args.text("id"))),
};

const ROTATE: Command = Command {
    name: "rotate",
    about: "Replace a key by a new one with the same name and scopes",
    details: "Revoke a key and make its successor, with the same name and scopes, in one step.",
    examples: &["holt keys rotate 3f9c2a1b"],
    args: &[ID],
    action: Action::Run(|args, context| rotate(context, args.text("id"))),
};

fn create(context: &Context, name: &str, scopes: Vec<String>) -> Result<(), CliError> {
    validate_key_input(name, &scopes)
        .map_err(|text| CliError::Failed(format!("{text}; see: holt keys create --help")))?;
    let database = Database::create(context)?;
    let keys = KeyStore::new(Arc::clone(&database.db));
    let (record, plaintext) = keys.create(name, &scopes).map_err(CliError::failed)?;
    database.record("key.create", &record.id, &detail(&record));
    let setup = Setup::new(database.db);
    let first = setup.is_required().map_err(CliError::failed)?;
    if first {
        setup.complete().map_err(CliError::failed)?;
    }
    shown("Created API key", &record, &plaintext)?;
    if first {
        output::note("setup is done with this key: the hub's setup page and PIN are closed");
    }
    Ok(())
}

fn list(context: &Context) -> Result<(), CliError> {
    let records = KeyStore::new(Database::open(context)?.db).list().map_err(CliError::failed)?;
    if records.is_empty() {
        out!("No API keys yet.")?;
        return out!("Make one with: holt keys create <name>");
    }
    let mut table = Table::new(&["ID", "NAME", "SCOPES", "STATUS", "CREATED", "LAST USED"]);
    for record in &records {
        table.row(vec![
            format!("{}...", short(&record.id)),
            record.name.clone(),
            record.scopes.join(","),
            if record.revoked { "revoked" } else { "active" }.to_owned(),
            time::date(record.created_at),
            record.last_used_at.map_or_else(|| "never".to_owned(), time::date),
        ]);
    }
    table.print()
}

fn revoke(context: &Context, id: &str) -> Result<(), CliError> {
    let database = Database::open(context)?;
    let keys = KeyStore::new(Arc::clone(&database.db));
    let record = find(&keys, id)?;
    keys.revoke(&record.id).map_err(|error| gone(&error, &record))?;
    database.record("key.revoke", &record.id, &detail(&record));
    out!("Revoked API key {:?} ({})", record.name, record.id)
}

fn rotate(context: &Context, id: &str) -> Result<(), CliError> {
    let database = Database::open(context)?;
    let keys = KeyStore::new(Arc::clone(&database.db));
    let old = find(&keys, id)?;
    let (record, plaintext) = keys.rotate(&old.id).map_err(|error| gone(&error, &old))?;
    database.record("key.rotate", &old.id, &format!("new id {}", record.id));
    shown("Rotated API key", &record, &plaintext)?;
    output::note(&format!("the old key {} is revoked", old.id));
    Ok(())
}

fn shown(what: &str, record: &ApiKeyRecord, plaintext: &str) -> Result<(), CliError> {
    out!("{what} {:?} ({})", record.name, record.id)?;
    out!("")?;
    out!("  {plaintext}")?;
    out!("")?;
    out!("Save this key now. It will not be shown again.")?;
    out!("Scopes: {}", record.scopes.join(", "))
}

fn find(keys: &KeyStore, wanted: &str) -> Result<ApiKeyRecord, CliError> {
    let records = keys.list().map_err(CliError::failed)?;
    select(&records, wanted).cloned()
}

/// The one active key whose id begins so. The dots that lists put behind an id may be given as well.
fn select<'a>(records: &'a [ApiKeyRecord], wanted: &str) -> Result<&'a ApiKeyRecord, CliError> {
    let prefix = wanted.trim_end_matches('.').to_ascii_lowercase();
    let matching = |record: &&ApiKeyRecord| !prefix.is_empty() && record.id.starts_with(&prefix);
    let active: Vec<&ApiKeyRecord> = records.iter().filter(|record| !record.revoked).filter(matching).collect();
    match active[..] {
        [one] => Ok(one),
        [] if records.iter().any(|record| matching(&record)) => {
            Err(CliError::Failed(format!("key {wanted} is revoked already; see: holt keys list")))
        }
        [] => Err(CliError::Failed(format!("no key has the id {wanted:?}; see: holt keys list"))),
        _ => {
            let ids: Vec<&str> = active.iter().map(|record| record.id.as_str()).collect();
            Err(CliError::Failed(format!(
                "{wanted} is the beginning of several ids, give more of it: {}",
                ids.join(", ")
            )))
        }
    }
}

/// What the audit log says of a key.
fn detail(record: &ApiKeyRecord) -> String {
    format!("{:?} scopes {}", record.name, record.scopes.join(","))
}

fn short(id: &str) -> &str {
    id.get(..ID_SHOWN).unwrap_or(id)
}

fn gone(error: &StoreError, record: &ApiKeyRecord) -> CliError {
    match error {
        StoreError::NotFound => {
            CliError::Failed(format!("key {} was revoked meanwhile; see: holt keys list", record.id))
        }
        other => CliError::failed(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, revoked: bool) -> ApiKeyRecord {
        ApiKeyRecord { id: id.into(), name: "n".into(), scopes: vec![], created_at: 0, last_used_at: None, revoked }
    }

    #[test]
    fn keys_are_found_by_the_beginning_of_their_id() {
        let records = [record("abc1", false), record("abd2", false), record("abe3", true), record("ff", true)];
        let check = |wanted: &str, expected: Result<&str, &str>| match (select(&records, wanted), expected) {
            (Ok(found), Ok(id)) => assert_eq!(found.id, id),
            (Err(CliError::Failed(text)), Err(part)) => assert!(text.contains(part), "{text}"),
            (found, _) => panic!("{wanted}: {found:?}"),
        };
        check("abc1", Ok("abc1"));
        check("ABD", Ok("abd2"));
        check("abc1...", Ok("abc1"));
        check("ab", Err("several ids, give more of it: abc1, abd2"));
        check("ff", Err("revoked already"));
        check("abe", Err("revoked already"));
        check("x", Err("no key has the id \"x\""));
        check("", Err("no key has the id"));
        check("...", Err("no key has the id"));
    }
}
