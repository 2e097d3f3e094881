//! `holt alerts ...`: what is wrong on the machines, straight from the hub's database.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::Args;
use super::command::{Action, Arg, Command};
use super::database::Database;
use super::output::out;
use super::sessions::parse_age;
use super::table::Table;
use super::{CliError, Context, text, time};
use crate::alert::Level;
use crate::rt::clock;
use crate::store::AlertStore;
use crate::store::alert_rows::{Act, Acted, AlertFilter, AlertRow};

const TARGET_SHOWN: usize = 30;
const DESCRIPTION_SHOWN: usize = 60;
const NOTE_BYTES_MAX: usize = 1000;
const ALERTS_MAX: u64 = 10_000;
/// A silence that lasts longer is a check to switch off.
const SILENCE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Events of an alert that `show` gives.
const EVENTS_SHOWN: usize = 20;

pub(super) const COMMAND: Command = Command::group(
    "alerts",
    "List what is wrong, acknowledge, silence and close it",
    &[LIST, SHOW, ACK, SILENCE, CLOSE],
);

const ID: Arg = Arg::word("id", "Number of the alert");
const NOTE: Arg = Arg::option("note", "TEXT", "Why, for others");

const LIST: Command = Command {
    name: "list",
    about: "List alerts: open ones, closed ones, or all",
    details: "List alerts, newest first: open ones, unless told otherwise.",
    examples: &[
        "holt alerts list",
        "holt alerts list --machine nas --state all",
        "holt alerts list --level critical --json | jq .",
    ],
    args: &[
        Arg::option("state", "STATE", "Which ones").default("open").choices(&["open", "closed", "all"]),
        Arg::option("machine", "MACHINE", "Only of this machine: its id or name"),
        Arg::option("level", "LEVEL", "Only of this level").choices(&["critical", "warning", "info"]),
        Arg::option("check", "CHECK", "Only of this check, such as disk or disk::space_usage"),
        Arg::option("limit", "N", "At most that many").default("100"),
        Arg::flag("json", "One JSON object a line"),
    ],
    action: Action::Run(list),
};

const SHOW: Command = Command {
    name: "show",
    about: "Show an alert with its events and its diagnosis",
    details: "",
    examples: &["holt alerts show 17"],
    args: &[ID],
    action: Action::Run(|args, context| {
        let id = id(args)?;
        let store = AlertStore::new(Database::open(context)?.db);
        show(&store, &store.get(id).map_err(CliError::failed)?.ok_or_else(|| unknown(id))?)
    }),
};

const ACK: Command = Command {
    name: "ack",
    about: "Acknowledge an alert: nobody is told again, until it gets worse",
    details: "",
    examples: &["holt alerts ack 17", "holt alerts ack 17 --note \"disk is ordered\""],
    args: &[ID, NOTE],
    action: Action::Run(|args, context| {
        act(args, context, "alert.acknowledge", Act::Acknowledge { note: note(args)? }, "Acknowledged")
    }),
};

const SILENCE: Command = Command {
    name: "silence",
    about: "Keep an alert quiet for a while",
    details: "Keep an alert quiet for a while, even when it gets worse. A time of 0 ends the silence.",
    examples: &["holt alerts silence 17 --for 4h", "holt alerts silence 17 --for 7d --note holidays"],
    args: &[ID, Arg::option("for", "DURATION", "How long, such as 30m, 4h or 7d").required(), NOTE],
    action: Action::Run(|args, context| {
        let time = args.parsed("for", parse_silence)?.unwrap_or_default();
        let until = if time == 0 { 0 } else { clock::unix_ms().saturating_add(time) };
        let what = if time == 0 { "No longer silent:" } else { "Silenced" };
        act(args, context, "alert.silence", Act::Silence { until, note: note(args)? }, what)
    }),
};

const CLOSE: Command = Command {
    name: "close",
    about: "Close an alert by hand",
    details: "Close an alert by hand, because its machine will not say that it is over. It opens again if it goes on.",
    examples: &["holt alerts close 17", "holt alerts close 17 --note \"was a test\""],
    args: &[ID, NOTE],
    action: Action::Run(|args, context| act(args, context, "alert.close", Act::Close { note: note(args)? }, "Closed")),
};

fn list(args: &Args, context: &Context) -> Result<(), CliError> {
    let level = match args.text("level") {
        "critical" => Some(Level::Critical),
        "warning" => Some(Level::Warning),
        "info" => Some(Level::Info),
        _ => None,
    };
    let limit = args.number("limit", 1..=ALERTS_MAX)?.and_then(|limit| usize::try_from(limit).ok());
    let filter = AlertFilter {
        is_open: match args.text("state") {
            "open" => Some(true),
            "closed" => Some(false),
            _ => None,
        },
        machine: args.text("machine").to_owned(),
        level,
        check: args.text("check").to_owned(),
        limit: limit.unwrap_or_default(),
        ..AlertFilter::default()
    };
    let rows = AlertStore::new(Database::open(context)?.db).list(&filter).map_err(CliError::failed)?;
    if args.flag("json") {
        return rows.iter().try_for_each(|(row, _)| out!("{}", shape(row)));
    }
    if rows.is_empty() {
        return out!("{}", if filter.is_open == Some(true) { "Nothing is wrong." } else { "No alerts like that." });
    }
    let mut table = Table::new(&["ID", "LEVEL", "MACHINE", "CHECK", "TARGET", "SINCE", "STATE", "DESCRIPTION"]);
    for (row, _) in &rows {
        table.row(vec![
            row.id.to_string(),
            level_of(row).name().to_owned(),
            machine(row).to_owned(),
            row.check.clone(),
            text::cut(&row.target, TARGET_SHOWN),
            time::second(row.opened_at),
            state(row),
            text::cut(&row.description, DESCRIPTION_SHOWN),
        ]);
    }
    table.print()
}

fn show(store: &AlertStore, row: &AlertRow) -> Result<(), CliError> {
    let mut table = Table::new(&["Alert", &row.id.to_string()]);
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            table.row(vec![name.to_owned(), value.to_owned()]);
        }
    };
    line("Level", level_of(row).name());
    line("State", &state(row));
    line("Machine", machine(row));
    line("Check", &row.check);
    line("Target", &row.target);
    line("Opened", &time::second(row.opened_at));
    line("Last event", &time::second(row.changed_at));
    line("Events", &row.events.to_string());
    line("Closed", &row.closed_at.map(time::second).unwrap_or_default());
    line("Acknowledged", &row.acknowledged_at.map(|at| by(at, &row.acknowledged_by)).unwrap_or_default());
    if row.silenced_until > clock::unix_ms() {
        line("Silent until", &by(row.silenced_until, &row.silenced_by));
    }
    line("Note", &row.note);
    for (name, value) in row.labels.iter().chain(&row.attrs) {
        // Said above already.
        if name != "check" && name != "target" {
            line(name, value);
        }
    }
    table.print()?;
    for part in [&row.description, &row.report] {
        if !part.is_empty() {
            out!("\n{}", text::plain(part.trim_end()))?;
        }
    }
    out!("")?;
    let mut table = Table::new(&["TIME", "LEVEL", "DESCRIPTION"]);
    for event in store.history(row, EVENTS_SHOWN).map_err(CliError::failed)? {
        let at = time::second(event.time.saturating_mul(1000));
        table.row(vec![at, event.level.name().to_owned(), text::cut(&event.description, DESCRIPTION_SHOWN)]);
    }
    table.print()
}

fn act(args: &Args, context: &Context, action: &str, act: Act<'_>, done: &str) -> Result<(), CliError> {
    let id = id(args)?;
    let database = Database::open(context)?;
    let store = AlertStore::new(Arc::clone(&database.db));
    match store.act(id, act, "cli", clock::unix_ms()).map_err(CliError::failed)? {
        Acted::Done(row) => {
            database.record(action, &id.to_string(), &format!("{} {}", row.check, row.target));
            out!("{done} {id}: {} of {} on {}", row.check, row.target, machine(&row))
        }
        Acted::NotFound => Err(unknown(id)),
        Acted::Closed => Err(CliError::Failed(format!("alert {id} is closed already"))),
    }
}

fn id(args: &Args) -> Result<i64, CliError> {
    let id = args.number("id", 1..=i64::MAX.unsigned_abs())?;
    Ok(id.and_then(|id| i64::try_from(id).ok()).unwrap_or_default())
}

fn note(args: &Args) -> Result<&str, CliError> {
    match args.text("note").trim() {
        note if note.len() > NOTE_BYTES_MAX => Err(args.wrong("note", &format!("give at most {NOTE_BYTES_MAX} bytes"))),
        note => Ok(note),
    }
}

/// Milliseconds.
fn parse_silence(text: &str) -> Result<i64, String> {
    let time = parse_age(text)?;
    if time > SILENCE_MAX {
        return Err(format!("give at most {}d", SILENCE_MAX.as_secs() / 86_400));
    }
    Ok(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

fn unknown(id: i64) -> CliError {
    CliError::Failed(format!("no alert {id}; see: holt alerts list --state all"))
}

/// Of an open alert the level now, of a closed one the worst.
fn level_of(row: &AlertRow) -> Level {
    if row.closed_at.is_some() { row.worst } else { row.level }
}

fn machine(row: &AlertRow) -> &str {
    match (row.machine_name.as_str(), row.machine_id.as_str()) {
        ("", "") => "the hub",
        ("", id) => id,
        (name, _) => name,
    }
}

fn state(row: &AlertRow) -> String {
    if row.closed_at.is_some() {
        return row.close_reason.clone();
    }
    let silent = row.silenced_until > clock::unix_ms();
    match (silent, row.acknowledged_at.is_some()) {
        (true, _) => "silent",
        (_, true) => "acknowledged",
        _ => "open",
    }
    .to_owned()
}

fn by(at: i64, who: &str) -> String {
    format!("{} by {who}", time::second(at))
}

fn shape(row: &AlertRow) -> Value {
    json!({
        "id": row.id, "level": level_of(row).name(), "state": state(row), "machine_id": row.machine_id,
        "machine": machine(row), "check": row.check, "target": row.target, "labels": row.labels, "attrs": row.attrs,
        "description": row.description, "events": row.events, "opened_at": clock::rfc3339(row.opened_at),
        "changed_at": clock::rfc3339(row.changed_at), "closed_at": row.closed_at.map(clock::rfc3339),
    })
}
