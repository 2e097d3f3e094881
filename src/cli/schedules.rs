//! `holt schedules ...`: what agents do by themselves, from the configuration and straight from the hub's database.

use std::sync::Arc;

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::args::Args;
use super::command::{Action, Arg, Command};
use super::database::Database;
use super::output::out;
use super::table::Table;
use super::{CliError, Context};
use crate::config::{Expression, ScheduleConfig};
use crate::limits;
use crate::rt::clock;
use crate::sched::{Scheduler, next_run, preview};
use crate::store::ScheduleRuns;
use crate::store::schedule_runs::{RunRow, ScheduleState};

pub(super) const COMMAND: Command =
    Command::group("schedules", "List what agents do by themselves, and when; run it now", &[LIST, SHOW, RUN, NEXT]);

const NAME: Arg = Arg::word("name", "Name of the schedule");

const LIST: Command = Command {
    name: "list",
    about: "List all schedules",
    details: "List all schedules with their last and next runs. They stand in the configuration, as [[schedules]].",
    examples: &["holt schedules list", "holt schedules list --json | jq ."],
    args: &[Arg::flag("json", "Print JSON")],
    action: Action::Run(list),
};

const SHOW: Command = Command {
    name: "show",
    about: "Show a schedule and what became of it lately",
    details: "",
    examples: &["holt schedules show backup", "holt schedules show backup --limit 100"],
    args: &[NAME, Arg::option("limit", "N", "At most that many runs").default("20")],
    action: Action::Run(show),
};

const RUN: Command = Command {
    name: "run",
    about: "Run a schedule now",
    details: "Run a schedule now, whether it is switched on or not. A running hub begins within a second; otherwise it \
              runs when the hub starts.",
    examples: &["holt schedules run backup"],
    args: &[NAME],
    action: Action::Run(run),
};

const NEXT: Command = Command {
    name: "next",
    about: "Say when an expression is due",
    details: "Say when an expression is due next, in api.timezone: five fields (minute, hour, day of the month, month, \
              weekday; all of them must match), @hourly, @daily, @weekly, @monthly, @yearly, @every with a \
              duration, or @at with a date and a time.",
    examples: &["holt schedules next '0 8 * * 1-5'", "holt schedules next '@every 90m' --count 3"],
    args: &[
        Arg::word("expression", "The expression, in quotes"),
        Arg::option("count", "N", "How many").default("5"),
        Arg::option("timezone", "ZONE", "Where, such as Europe/Berlin [default: api.timezone]"),
    ],
    action: Action::Run(next),
};

struct Schedules {
    database: Database,
    runs: ScheduleRuns,
    zone: TimeZone,
}

impl Schedules {
    fn open(context: &Context) -> Result<Self, CliError> {
        let database = Database::open(context)?;
        let runs = ScheduleRuns::new(Arc::clone(&database.db), limits::SCHEDULE_RUNS_KEPT);
        let zone = zone(&database.config.api.timezone);
        Ok(Self { database, runs, zone })
    }

    fn find(&self, name: &str) -> Result<&ScheduleConfig, CliError> {
        let found = self.database.config.schedules.iter().find(|schedule| schedule.name == name);
        found.ok_or_else(|| CliError::Failed(format!("no schedule {name:?}; see: holt schedules list")))
    }

    fn time(&self, config: &ScheduleConfig, at: Option<i64>) -> String {
        at.map_or_else(|| "-".to_owned(), |at| Scheduler::local_time(at, config.zone_or(&self.zone)))
    }
}

fn zone(name: &str) -> TimeZone {
    // The configuration has checked it.
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

fn list(args: &Args, context: &Context) -> Result<(), CliError> {
    let json = args.flag("json");
    let schedules = Schedules::open(context)?;
    let states = schedules.runs.states().map_err(CliError::failed)?;
    let all = &schedules.database.config.schedules;
    let state_of = |config: &ScheduleConfig| states.iter().find(|state| state.name == config.name);
    if json {
        let shapes: Vec<Value> = all.iter().map(|config| shape(&schedules, config, state_of(config))).collect();
        return out!("{}", serde_json::to_string_pretty(&shapes).map_err(CliError::failed)?);
    }
    if all.is_empty() {
        return out!("There are no schedules. Make one in the page, or as [[schedules]] in the configuration.");
    }
    let mut table = Table::new(&["NAME", "SCHEDULE", "AGENT", "STATUS", "LAST RUN", "NEXT RUN"]);
    for config in all {
        let state = state_of(config);
        table.row(vec![
            config.name.clone(),
            config.schedule.clone(),
            config.agent.clone(),
            if config.enabled { "on" } else { "off" }.to_owned(),
            schedules.time(config, state.and_then(|state| state.last_run)),
            schedules.time(config, next_run(config, state, &schedules.zone, clock::unix_ms())),
        ]);
    }
    table.print()
}

fn shape(schedules: &Schedules, config: &ScheduleConfig, state: Option<&ScheduleState>) -> Value {
    let time = |at: Option<i64>| at.map(|at| Scheduler::local_time(at, config.zone_or(&schedules.zone)));
    json!({
        "name": config.name, "schedule": config.schedule, "timezone": config.timezone(), "agent": config.agent, "skill": config.skill, "prompt": config.prompt,
        "channel": config.channel, "enabled": config.enabled, "last_run": time(state.and_then(|state| state.last_run)),
        "next_run": time(next_run(config, state, &schedules.zone, clock::unix_ms())),
    })
}

fn show(args: &Args, context: &Context) -> Result<(), CliError> {
    let limit = args.number("limit", 1..=1000)?.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(20);
    let schedules = Schedules::open(context)?;
    let config = schedules.find(args.text("name"))?;
    let states = schedules.runs.states().map_err(CliError::failed)?;
    let state = states.iter().find(|state| state.name == config.name);
    for (what, value) in [
        ("Name", config.name.as_str()),
        ("Schedule", &config.schedule),
        ("Time zone", config.timezone()),
        ("Agent", &config.agent),
        ("Skill", &config.skill),
        ("Prompt", &config.prompt),
        ("Channel", &config.channel),
        ("Conversations", config.session_mode()),
        ("Tier", config.session_tier.name().unwrap_or("the agent's")),
        ("Status", if config.enabled { "on" } else { "off" }),
        ("Next run", &schedules.time(config, next_run(config, state, &schedules.zone, clock::unix_ms()))),
    ] {
        if !value.is_empty() {
            out!("{what}: {value}")?;
        }
    }
    let rows = schedules.runs.list(&config.name, limit).map_err(CliError::failed)?;
    if rows.is_empty() {
        return out!("\nNothing has become of it yet.");
    }
    out!("")?;
    let mut table = Table::new(&["TIME", "STATE", "COST", "CONVERSATION", "REASON"]);
    for row in &rows {
        table.row(vec![
            schedules.time(config, Some(row.moment)),
            state_text(row),
            if row.finished_at.is_some() { format!("${:.4}", row.cost_usd) } else { String::new() },
            row.conversation_id.clone(),
            row.reason.clone(),
        ]);
    }
    table.print()
}

fn state_text(row: &RunRow) -> String {
    match (row.moments, row.cause.as_str()) {
        (2.., _) => format!("{} ({} times)", row.state, row.moments),
        (_, "due") => row.state.clone(),
        (_, cause) => format!("{} ({cause})", row.state),
    }
}

fn run(args: &Args, context: &Context) -> Result<(), CliError> {
    let schedules = Schedules::open(context)?;
    let config = schedules.find(args.text("name"))?;
    schedules.runs.want(&config.name, clock::unix_ms()).map_err(CliError::failed)?;
    schedules.database.record("schedule.run", &config.name, "");
    out!("The hub is asked to run {}. See what comes of it: holt schedules show {0:?}", config.name)
}

fn next(args: &Args, context: &Context) -> Result<(), CliError> {
    let expression = args.parsed("expression", Expression::parse)?;
    let count = args.number("count", 1..=1000)?.and_then(|count| usize::try_from(count).ok()).unwrap_or(5);
    let config = crate::config::load(&context.flags, &context.env).map_err(CliError::failed)?;
    let given = args.parsed("timezone", crate::config::zone)?.flatten();
    let zone = given.unwrap_or_else(|| zone(&config.api.timezone));
    let Some(expression) = expression else { return Ok(()) };
    let moments = preview(&expression, &zone, clock::unix_ms(), count);
    if moments.is_empty() {
        return out!("Never.");
    }
    moments.iter().try_for_each(|at| out!("{}", Scheduler::local_time(*at, &zone)))
}
