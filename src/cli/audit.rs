//! `holt audit`: who did what, straight from the hub's database.

use std::sync::Arc;

use serde_json::json;

use super::args::Args;
use super::command::{Action, Arg, Command};
use super::database::Database;
use super::output::out;
use super::sessions::parse_age;
use super::table::Table;
use super::{CliError, Context, text, time};
use crate::audit::{AuditRow, AuditStore, Filter};
use crate::rt::clock;
use crate::store;

const ENTRIES_MAX: usize = 100_000;
const TARGET_SHOWN: usize = 40;
const DETAIL_SHOWN: usize = 60;

pub(super) const COMMAND: Command = Command {
    name: "audit",
    about: "Show who did what, when and from where",
    details: "Show who did what, when, from where and with which result: logins, keys, settings, deleted conversations, \
              tool servers, approvals, tool calls. Newest first. Secrets and arguments of tools are not recorded.",
    examples: &[
        "holt audit",
        "holt audit --since 24h --action login.",
        "holt audit --result denied --limit 1000",
        "holt audit --since 2026-01-02T00:00:00Z --json | jq .",
    ],
    args: &[
        Arg::option("since", "TIME", "Only entries since then: a time, or an age such as 24h or 30d"),
        Arg::option("action", "ACTION", "Only this action, or all that begin so when it ends in a dot: key."),
        Arg::option("actor", "ACTOR", "Only this actor: user:admin, key:<name>, agent:<name>, cli"),
        Arg::option("target", "TARGET", "Only this target"),
        Arg::option("result", "RESULT", "Only this result").choices(&["", "ok", "denied", "failed"]),
        Arg::option("limit", "N", "At most that many").default("100"),
        Arg::flag("json", "One JSON object a line"),
    ],
    action: Action::Run(run),
};

fn run(args: &Args, context: &Context) -> Result<(), CliError> {
    let filter = Filter {
        actor: args.text("actor").to_owned(),
        action: args.text("action").to_owned(),
        target: args.text("target").to_owned(),
        result: args.text("result").to_owned(),
        since: args.parsed("since", parse_since)?.unwrap_or(0),
        ..Filter::default()
    };
    let limit = args.number("limit", 0..=u64::MAX)?.unwrap_or_default();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(ENTRIES_MAX);
    let store = AuditStore::new(Arc::clone(&Database::open(context)?.db));
    let rows = store.list(&filter, limit).map_err(CliError::failed)?;
    if args.flag("json") {
        return rows.iter().try_for_each(|row| out!("{}", shape(row)));
    }
    if rows.is_empty() {
        return out!("Nothing was recorded.");
    }
    let mut table = Table::new(&["TIME", "ACTOR", "ACTION", "TARGET", "SOURCE", "RESULT", "DETAIL"]);
    for row in rows {
        table.row(vec![
            time::second(row.at),
            row.actor,
            row.action,
            text::cut(&row.target, TARGET_SHOWN),
            row.source,
            row.result,
            text::cut(&row.detail, DETAIL_SHOWN),
        ]);
    }
    table.print()
}

fn shape(row: &AuditRow) -> serde_json::Value {
    json!({
        "id": row.id, "at": clock::rfc3339(row.at), "actor": row.actor, "action": row.action,
        "target": row.target, "source": row.source, "result": row.result, "detail": row.detail,
    })
}

/// Milliseconds since 1970 of a time or an age.
fn parse_since(text: &str) -> Result<i64, String> {
    if let Ok(age) = parse_age(text) {
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        return Ok(clock::unix_ms().saturating_sub(age_ms));
    }
    store::time::parse_ms(text).ok_or_else(|| "give a time such as 2026-01-02T03:04:05Z, or 24h, or 30d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_a_time_or_an_age() {
        assert_eq!(parse_since("2026-01-02T03:04:05Z"), Ok(1_767_323_045_000));
        assert!(parse_since("24h").unwrap() <= clock::unix_ms() - 24 * 3_600_000);
        assert!(parse_since("yesterday").is_err());
    }
}
