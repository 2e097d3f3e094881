//! `holt check`: the checks of this machine, once. Needs no hub and no running agent.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::args::Args;
use super::command::{Action, Arg, Command};
use super::output::out;
use super::table::Table;
use super::{CliError, Context, text};
use crate::alert::Level;
use crate::checks::plugin::Reading;
use crate::checks::{Global, Outcome, Plan, run_once};
use crate::config::{AgentFile, ConfigError, Flags, load_agent};
use crate::diag::HostRoot;
use crate::rt::Cancel;
use crate::rt::order::Order;

/// The checks ran, and something is not as it should be.
const EXIT_WRONG: u8 = 3;
/// What Nagios calls unknown.
const NAGIOS_UNKNOWN: u8 = 3;

/// Where `agent.toml` is looked for when no variable says where data is.
const DATA_DIR: &str = "/var/lib/holt";

const TARGET_SHOWN: usize = 40;
const DESCRIPTION_SHOWN: usize = 100;

pub(super) const COMMAND: Command = Command {
    name: "check",
    about: "Check this machine once: processors, memory, disks, services and more",
    details: "Check this machine once and show what is found, the worst first. What is looked at and what counts as wrong \
              stands in [checks] of agent.toml; without a file there are working defaults. Nothing is sent anywhere, and \
              a running agent does not notice.\n\
              Exit codes: 0 all is fine, 1 the checks could not run, 3 something is wrong. With --nagios: 0 OK, \
              1 WARNING, 2 CRITICAL, 3 UNKNOWN.",
    examples: &[
        "holt check",
        "holt check disk systemd",
        "holt check --json | jq .",
        "holt check http --nagios -c web.toml",
    ],
    args: &[
        Arg::word("name", "Only these checks, by the names of their tables: cpu, disk, http, ...").optional().many(),
        Arg::flag("json", "One JSON object a line, with labels and attributes"),
        Arg::flag("nagios", "One line and the exit code of a Nagios plugin"),
    ],
    action: Action::Run(run),
};

fn run(args: &Args, context: &Context) -> Result<(), CliError> {
    let nagios = args.flag("nagios");
    let names: Vec<String> = args.values("name").into_iter().map(str::to_owned).collect();
    match look(&names, context) {
        Ok(outcomes) if nagios => tell_nagios(&outcomes),
        Ok(outcomes) if args.flag("json") => tell_json(&outcomes),
        Ok(outcomes) => tell(&outcomes),
        Err(reason) if nagios => {
            out!("UNKNOWN - {}", text::one_line(&reason))?;
            Err(CliError::Code(NAGIOS_UNKNOWN))
        }
        Err(reason) => Err(CliError::Failed(reason)),
    }
}

fn look(names: &[String], context: &Context) -> Result<Vec<Outcome>, String> {
    let config = load(context).map_err(|error| error.to_string())?;
    let plan = Global::new(&config.global).and_then(|global| Plan::new(&config.checks, global.interval));
    let plan = plan.map_err(|error| format!("config {}: {error}", config.path.display()))?;
    let plan = if names.is_empty() { plan } else { plan.only(names).map_err(|error| error.to_string())? };
    Ok(run_once(plan, &HostRoot::system(), &Cancel::new()))
}

/// The agent's file. Who has no home, as under a supervisor, can look at the machine all the same.
pub(super) fn load(context: &Context) -> Result<AgentFile, ConfigError> {
    match load_agent(&context.flags, &context.env) {
        Err(ConfigError::NoDataDir) => {
            let data_dir = Some(PathBuf::from(DATA_DIR));
            load_agent(&Flags { data_dir, ..context.flags.clone() }, &context.env)
        }
        loaded => loaded,
    }
}

/// All readings, the worst first, else in the order of the checks.
fn sorted(outcomes: &[Outcome]) -> Vec<&Reading> {
    let mut readings: Vec<&Reading> = outcomes.iter().flat_map(|outcome| &outcome.readings).collect();
    readings.order_by_key(|reading| reading.level);
    readings
}

fn unavailable(outcomes: &[Outcome]) -> impl Iterator<Item = (&'static str, &String)> {
    outcomes.iter().flat_map(|outcome| outcome.unavailable.iter().map(|reason| (outcome.plugin, reason)))
}

fn tell(outcomes: &[Outcome]) -> Result<(), CliError> {
    let readings = sorted(outcomes);
    let mut table = Table::new(&["LEVEL", "CHECK", "TARGET", "VALUE", "THRESHOLDS", "WHAT"]);
    for reading in &readings {
        let level = if reading.level == Level::Ok { "ok" } else { reading.level.name() };
        table.row(vec![
            level.to_owned(),
            reading.check.to_owned(),
            text::cut(&reading.target, TARGET_SHOWN),
            reading.attr_of("current_value").to_owned(),
            reading.attr_of("threshold_desc").to_owned(),
            text::cut(&reading.description, DESCRIPTION_SHOWN),
        ]);
    }
    table.print()?;
    for (plugin, reason) in unavailable(outcomes) {
        out!("Not checked here: {plugin}: {}", text::one_line(reason))?;
    }
    out!("{}", summary(&readings))?;
    wrong(&readings)
}

fn tell_json(outcomes: &[Outcome]) -> Result<(), CliError> {
    let readings = sorted(outcomes);
    let map = |pairs: &[(&'static str, String)]| pairs.iter().cloned().collect::<BTreeMap<_, _>>();
    for reading in &readings {
        let mut shape: Value = json!({"level": reading.level.name(), "check": reading.check, "target": reading.target,
            "attrs": map(&reading.attrs), "description": reading.description});
        if !reading.labels.is_empty() {
            shape["labels"] = json!(map(&reading.labels));
        }
        out!("{shape}")?;
    }
    for (plugin, reason) in unavailable(outcomes) {
        out!("{}", json!({"plugin": plugin, "unavailable": reason}))?;
    }
    wrong(&readings)
}

fn wrong(readings: &[&Reading]) -> Result<(), CliError> {
    let wrong = readings.iter().any(|reading| reading.level.is_worse_than(Level::Info));
    if wrong { Err(CliError::Code(EXIT_WRONG)) } else { Ok(()) }
}

fn count(readings: &[&Reading], level: Level) -> usize {
    readings.iter().filter(|reading| reading.level == level).count()
}

fn summary(readings: &[&Reading]) -> String {
    let (critical, warnings) = (count(readings, Level::Critical), count(readings, Level::Warning));
    let plural = if readings.len() == 1 { "" } else { "s" };
    match (critical, warnings) {
        (0, 0) => format!("{} reading{plural}, all fine.", readings.len()),
        _ => format!("{} reading{plural}: {critical} critical, {warnings} warning.", readings.len()),
    }
}

/// One line: the state, what is wrong, and the numbers behind a bar.
fn tell_nagios(outcomes: &[Outcome]) -> Result<(), CliError> {
    let readings = sorted(outcomes);
    let worst = readings.first().map_or(Level::Ok, |reading| reading.level);
    let (state, code) = match worst {
        Level::Critical => ("CRITICAL", 2),
        Level::Warning => ("WARNING", 1),
        Level::Info | Level::Ok if readings.is_empty() => ("UNKNOWN", NAGIOS_UNKNOWN),
        Level::Info | Level::Ok => ("OK", 0),
    };
    let wrong: Vec<String> = readings
        .iter()
        .filter(|reading| reading.level.is_worse_than(Level::Info))
        .map(|reading| format!("{} {}: {}", reading.check, reading.target, reading.description))
        .collect();
    let what = if readings.is_empty() {
        unavailable(outcomes).map(|(plugin, reason)| format!("{plugin}: {reason}")).collect::<Vec<_>>().join("; ")
    } else if wrong.is_empty() {
        summary(&readings)
    } else {
        wrong.join("; ")
    };
    let numbers: Vec<String> = readings.iter().filter_map(|reading| number(reading)).collect();
    let bar = if numbers.is_empty() { "" } else { " | " };
    // A bar would begin the numbers.
    out!("{state} - {}{bar}{}", text::one_line(&what).replace('|', "/"), numbers.join(" "))?;
    if code == 0 { Ok(()) } else { Err(CliError::Code(code)) }
}

/// `'disk::space_usage /data'=92.3%`: only values in units that Nagios knows.
fn number(reading: &Reading) -> Option<String> {
    let value = reading.attr_of("current_value");
    let digits = value.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-').unwrap_or(value.len());
    let (amount, unit) = value.split_at(digits);
    amount.parse::<f64>().ok().filter(|_| ["", "%", "ms", "s"].contains(&unit))?;
    let label = text::one_line(&format!("{} {}", reading.check, reading.target)).replace(['\'', '=', '|'], "_");
    Some(format!("'{label}'={value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_nagios_have_units_that_it_knows() {
        let check = |value: &str, expected: Option<&str>| {
            let reading = Reading::new("a::b", "it's|=", Level::Ok, "").attr("current_value", value);
            assert_eq!(number(&reading).as_deref(), expected, "{value}");
        };
        check("92.3%", Some("'a::b it_s__'=92.3%"));
        check("-3.5ms", Some("'a::b it_s__'=-3.5ms"));
        check("7", Some("'a::b it_s__'=7"));
        check("3d4h", None);
        check("1.5 GiB", None);
        check("active", None);
        check("", None);
    }
}
