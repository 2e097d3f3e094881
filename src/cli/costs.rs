//! `holt costs`: what was spent, straight from the hub's database.

use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::database::Database;
use super::output::out;
use super::table::Table;
use super::{CliError, Context};
use crate::costs::{day_of, series};
use crate::limits;
use crate::rt::clock;
use crate::store::CostStore;
use crate::store::costs::{Filter, Group, GroupBy};

const DAY_MS: i64 = 24 * 3600 * 1000;

/// Show what calls of models have cost
#[derive(Args)]
#[command(long_about = "Show what calls of models have cost, by day, agent, model or key.

Reads the hub's database, also while the hub runs. Days begin at midnight in api.timezone. Limits are set in the
configuration: cost_limit_hard in [llm], daily_limit_hard and others in [costs].

Examples:
  holt costs
  holt costs --by model --days 7
  holt costs --by agent --json | jq .")]
pub(super) struct Costs {
    /// How many days, today included
    #[arg(long, value_name = "N", default_value_t = limits::COST_DAYS,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::COST_DAYS_MAX)))]
    days: u32,
    /// What to put together
    #[arg(long, value_enum, default_value = "day")]
    by: By,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum By {
    Agent,
    Model,
    Key,
    Day,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Model => "model",
            Self::Key => "key",
            Self::Day => "day",
        }
    }
}

impl Costs {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let database = Database::open(context)?;
        let store = CostStore::new(std::sync::Arc::clone(&database.db));
        // The configuration has checked the name.
        let zone = TimeZone::get(&database.config.api.timezone).unwrap_or(TimeZone::UTC);
        let mut groups = match self.by {
            By::Day => series(&store, None, self.days, &zone),
            by => {
                let from = day_of(clock::unix_ms() - (i64::from(self.days) - 1) * DAY_MS, &zone);
                let by = match by {
                    By::Agent => GroupBy::Agent,
                    By::Model => GroupBy::Model,
                    By::Key | By::Day => GroupBy::Identity,
                };
                store.report(by, &Filter { from_day: &from, ..Filter::default() }, usize::MAX)
            }
        }
        .map_err(CliError::failed)?;
        if self.by == By::Day {
            groups.retain(|group| self.json || group.calls > 0);
        } else {
            groups.sort_by(|a, b| b.cost_usd.total_cmp(&a.cost_usd).then_with(|| a.name.cmp(&b.name)));
        }
        if self.json {
            let shapes: Vec<Value> = groups.iter().map(|group| shape(self.by, group)).collect();
            return out!("{}", serde_json::to_string_pretty(&shapes).map_err(CliError::failed)?);
        }
        if groups.is_empty() {
            return out!("Nothing was spent in the last {} days.", self.days);
        }
        table(self.by, &groups).print()
    }
}

fn table(by: By, groups: &[Group]) -> Table {
    let heading = by.name().to_ascii_uppercase();
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

fn shape(by: By, group: &Group) -> Value {
    let mut shape = json!({
        "cost": group.cost_usd, "calls": group.calls, "input_tokens": group.input_tokens,
        "output_tokens": group.output_tokens, "cached_tokens": group.cached_tokens,
    });
    shape[by.name()] = json!(group.name);
    if by == By::Model {
        shape["provider"] = json!(group.second);
    }
    shape
}
