//! `holt audit`: who did what, straight from the hub's database.

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::database::Database;
use super::output::out;
use super::sessions::parse_age;
use super::table::Table;
use super::{CliError, Context, text, time};
use crate::audit::{AuditRow, AuditStore, Filter};
use crate::rt::clock;
use crate::store;

/// More than anybody reads in a table; `--json` and `--since` go further.
const ENTRIES: usize = 100;
const ENTRIES_MAX: usize = 100_000;
const TARGET_SHOWN: usize = 40;
const DETAIL_SHOWN: usize = 60;

/// Show who did what, when and from where
#[derive(Args)]
#[command(long_about = "Show who did what, when, from where and with which result: logins, keys, settings, deleted
conversations, tool servers, approvals, tool calls. Newest first. Secrets and arguments of tools are not recorded.

Examples:
  holt audit
  holt audit --since 24h --action login.
  holt audit --result denied --limit 1000
  holt audit --since 2026-01-02T00:00:00Z --json | jq .")]
pub(super) struct Audit {
    /// Only entries since then: a time, or an age such as 24h or 30d
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<i64>,
    /// Only this action, or all that begin so when it ends in a dot: key.
    #[arg(long, default_value = "")]
    action: String,
    /// Only this actor: user:admin, key:<name>, agent:<name>, cli
    #[arg(long, default_value = "")]
    actor: String,
    /// Only this target
    #[arg(long, default_value = "")]
    target: String,
    /// Only this result
    #[arg(long, default_value = "", value_parser = ["", "ok", "denied", "failed"], hide_possible_values = true, value_name = "ok|denied|failed")]
    result: String,
    /// At most that many
    #[arg(long, default_value_t = ENTRIES)]
    limit: usize,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let store = AuditStore::new(Arc::clone(&Database::open(context)?.db));
        let filter = Filter {
            actor: self.actor,
            action: self.action,
            target: self.target,
            result: self.result,
            since: self.since.unwrap_or(0),
            ..Filter::default()
        };
        let rows = store.list(&filter, self.limit.min(ENTRIES_MAX)).map_err(CliError::failed)?;
        if self.json {
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
