//! `holt costs`: what was spent, straight from the hub's database.

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::args::Args;
use super::command::{Action, Arg, Command};
use super::database::Database;
use super::output::out;
use super::table::Table;
use super::{CliError, Context};
use crate::costs::{day_of, series};
use crate::limits;
use crate::rt::clock;
use crate::rt::order::Order;
use crate::store::CostStore;
use crate::store::costs::{Filter, Group, GroupBy};

const DAY_MS: i64 = 24 * 3600 * 1000;

pub(super) const COMMAND: Command = Command {
    name: "costs",
    about: "Show what calls of models have cost",
    details: "Show what calls of models have cost, by day, agent, model or key.\n\
              Reads the hub's database, also while the hub runs. Days begin at midnight in api.timezone. Limits are set \
              in the configuration: cost_limit_hard in [llm], daily_limit_hard and others in [costs].",
    examples: &["holt costs", "holt costs --by model --days 7", "holt costs --by agent --json | jq ."],
    args: &[
        Arg::option("days", "N", "How many days, today included").default("30"),
        Arg::option("by", "BY", "What to put together").default("day").choices(&["agent", "model", "key", "day"]),
        Arg::flag("json", "Print JSON"),
    ],
    action: Action::Run(run),
};

fn run(args: &Args, context: &Context) -> Result<(), CliError> {
    let days = args.number("days", 1..=u64::from(limits::COST_DAYS_MAX))?;
    let days = days.and_then(|days| u32::try_from(days).ok()).unwrap_or(limits::COST_DAYS);
    let (by, json) = (args.text("by"), args.flag("json"));
    let database = Database::open(context)?;
    let store = CostStore::new(std::sync::Arc::clone(&database.db));
    // The configuration has checked the name.
    let zone = TimeZone::get(&database.config.api.timezone).unwrap_or(TimeZone::UTC);
    let group = match by {
        "agent" => Some(GroupBy::Agent),
        "model" => Some(GroupBy::Model),
        "key" => Some(GroupBy::Identity),
        _ => None,
    };
    let mut groups = match group {
        None => series(&store, None, days, &zone),
        Some(group) => {
            let from = day_of(clock::unix_ms() - (i64::from(days) - 1) * DAY_MS, &zone);
            store.report(group, &Filter { from_day: &from, ..Filter::default() }, usize::MAX)
        }
    }
    .map_err(CliError::failed)?;
    if group.is_none() {
        groups.retain(|group| json || group.calls > 0);
    } else {
        groups.order_by(|a, b| b.cost_usd.total_cmp(&a.cost_usd).then_with(|| a.name.cmp(&b.name)));
    }
    if json {
        let shapes: Vec<Value> = groups.iter().map(|group| shape(by, group)).collect();
        return out!("{}", serde_json::to_string_pretty(&shapes).map_err(CliError::failed)?);
    }
    if groups.is_empty() {
        return out!("Nothing was spent in the last {days} days.");
    }
    table(by, &groups).print()
}

fn table(by: &str, groups: &[Group]) -> Table {
    let heading = by.to_ascii_uppercase();
    let mut table = Table::new(&[&heading, "COST", "CALLS", "INPUT", "OUTPUT", "CACHED"]);
    let mut total = Group { name: "total".to_owned(), ..Group::default() };
    for group in groups {
        table.row(cells(group));
        total.cost_usd += group.cost_usd;
        total.calls += group.calls;
        total.input_tokens += group.input_tokens;
        total.output_tokens += group.output_tokens;
        total.cached_tokens += group.cached_tokens;
    }
    if groups.len() > 1 {
        table.row(cells(&total));
    }
    table
}

fn cells(group: &Group) -> Vec<String> {
    let name = match group.second.as_str() {
        "" => group.name.clone(),
        provider => format!("{} ({provider})", group.name),
    };
    let cost = format!("${:.4}", group.cost_usd);
    let counts = [group.calls, group.input_tokens, group.output_tokens, group.cached_tokens];
    [name, cost].into_iter().chain(counts.map(|count| count.to_string())).collect()
}

fn shape(by: &str, group: &Group) -> Value {
    let mut shape = json!({
        "cost": group.cost_usd, "calls": group.calls, "input_tokens": group.input_tokens,
        "output_tokens": group.output_tokens, "cached_tokens": group.cached_tokens,
    });
    shape[by] = json!(group.name);
    if by == "model" {
        shape["provider"] = json!(group.second);
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_limit_of_the_interface() {
        assert_eq!(COMMAND.args[0].default, limits::COST_DAYS.to_string());
    }
}
