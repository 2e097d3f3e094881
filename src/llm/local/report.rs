//! The readable report: a verdict in one sentence, what needs attention, then a section per tool.

use serde_json::Value;

use crate::llm::local::numbers::{code, duration, list, number, plain, text, time};
use crate::llm::local::sections::{MACHINES, clause, fullest, heading, joined, lines};
use crate::llm::local::wish::{By, Look, Topic};
use crate::rt::order::Order;

/// The answer of one tool call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Looked {
    pub(super) tool: String,
    pub(super) outcome: Result<Value, String>,
}

/// Findings named in the verdict itself.
const NAMED_MAX: usize = 3;

impl Looked {
    /// Reads what the tool loop put into the conversation: a host tool's JSON object, or the text of an error.
    pub(super) fn new(tool: &str, content: Option<&str>) -> Self {
        let outcome = match content.map(|content| (content, serde_json::from_str::<Value>(content))) {
            None => Err("no answer arrived".to_owned()),
            Some((_, Ok(value))) if value.is_object() => match text(&value, "error") {
                Some(error) => Err(error.to_owned()),
                None => Ok(value),
            },
            Some((content, _)) if content.trim_start().starts_with('{') => {
                Err("its answer was cut off and cannot be read".to_owned())
            }
            Some((content, _)) => Err(short(content.trim_start_matches("error:").trim())),
        };
        Self { tool: tool.to_owned(), outcome }
    }

    fn value(&self) -> Option<&Value> {
        self.outcome.as_ref().ok()
    }
}

/// Writes the report. `look` is the wish that was planned; None when the tools were called for another reason.
pub(super) fn report(look: Option<&Look>, looked: &[Looked]) -> String {
    let attention = attention(looked);
    let mut blocks = vec![verdict(look, looked, &attention)];
    let bad = attention.iter().map(|finding| {
        let level = text(finding, "level").unwrap_or("warning");
        let why = text(finding, "threshold").map(|_| format!(" — {}", threshold(finding))).unwrap_or_default();
        format!("- **{level}**: {}{why}", stated(finding))
    });
    blocks.extend(block("Needs attention", &bad.collect::<Vec<_>>()));
    for one in looked {
        blocks.extend(one.value().and_then(|value| section(&one.tool, value)));
    }
    let failed =
        looked.iter().filter_map(|one| Some(format!("- {}: {}", code(&one.tool), one.outcome.as_ref().err()?)));
    blocks.extend(block("Could not look", &failed.collect::<Vec<_>>()));
    format!("{}\n", blocks.join("\n\n"))
}

/// A heading and its lines; nothing without lines.
fn block(heading: &str, lines: &[String]) -> Option<String> {
    (!lines.is_empty()).then(|| format!("### {heading}\n\n{}", lines.join("\n")))
}

fn section(tool: &str, value: &Value) -> Option<String> {
    let mut all = lines(tool, value);
    // Lines that there are tell what is fine in better words.
    if all.is_empty() {
        let fine = list(value, "findings").iter().filter(|finding| !is_bad(finding));
        all.extend(fine.map(|finding| format!("- ok: {}", stated(finding))));
    }
    all.extend(list(value, "notes").iter().filter_map(Value::as_str).map(|note| format!("- note: {note}")));
    if value.get("truncated").is_some() {
        all.push("- note: there was more than fits here".to_owned());
    }
    block(heading(tool), &all)
}

fn is_bad(finding: &Value) -> bool {
    matches!(text(finding, "level"), Some("warning" | "critical"))
}

/// All bad findings, each once: those of this machine before those of others, the critical ones first.
fn attention(looked: &[Looked]) -> Vec<&Value> {
    let mut bad: Vec<(bool, &Value)> = Vec::new();
    for (one, value) in looked.iter().filter_map(|one| Some((one, one.value()?))) {
        for finding in list(value, "findings").iter().filter(|finding| is_bad(finding)) {
            if !bad.iter().any(|(_, known)| known.get("what") == finding.get("what")) {
                bad.push((one.tool == MACHINES, finding));
            }
        }
    }
    bad.order_by_key(|(is_elsewhere, finding)| (*is_elsewhere, text(finding, "level") != Some("critical")));
    bad.into_iter().map(|(_, finding)| finding).collect()
}

/// `space on / 95.5 %`; times are spelled out, and flags (1 of something that should not be) lose their number.
pub(super) fn stated(finding: &Value) -> String {
    let what = text(finding, "what").unwrap_or("something");
    let Some(value) = number(finding, "value") else { return what.to_owned() };
    let name = text(finding, "threshold").and_then(|threshold| threshold.split(':').next()).unwrap_or("");
    match (text(finding, "unit"), name) {
        (_, "mount_answer_ms" | "file_systems_turned_read_only" | "reboot_required") => what.to_owned(),
        (_, "unit_inactive") if value > 0.0 => what.to_owned(),
        (_, "unit_inactive") => what.replace(" is not active", " is active"),
        (Some("s"), _) => format!("{what} {}", duration(value)),
        (Some(unit), _) => format!("{what} {} {unit}", plain(value)),
        (None, _) => format!("{what}: {}", plain(value)),
    }
}

/// `cpu_used_percent: warning from 80 %` with the name set apart.
pub(super) fn threshold(finding: &Value) -> String {
    let Some(threshold) = text(finding, "threshold") else { return "no threshold named".to_owned() };
    threshold.split_once(':').map_or_else(|| code(threshold), |(name, limits)| format!("{}:{limits}", code(name)))
}

fn verdict(look: Option<&Look>, looked: &[Looked], attention: &[&Value]) -> String {
    if looked.iter().all(|one| one.outcome.is_err()) {
        return match looked {
            [one] => format!("I could not look: {} failed.", code(&one.tool)),
            _ => format!("I could not look: all {} tools failed.", looked.len()),
        };
    }
    if let Some(answer) = look.and_then(|look| direct_answer(look, looked)) {
        // "No, it is not running" has said that already.
        let unsaid = |finding: &&&Value| !threshold(finding).starts_with("`unit_inactive`");
        let attention: Vec<&Value> = attention.iter().filter(unsaid).copied().collect();
        let attention = attention.as_slice();
        return match attention.len() {
            0 => format!("{answer}."),
            1 => format!("{answer}; 1 thing needs attention: {}.", named(attention)),
            n => format!("{answer}; {n} things need attention: {}.", named(attention)),
        };
    }
    match attention.len() {
        0 => fine(look, looked),
        1 => format!("1 thing needs attention: {}.", named(attention)),
        n => format!("{n} things need attention: {}.", named(attention)),
    }
}

fn named(attention: &[&Value]) -> String {
    let mut names: Vec<String> = attention.iter().take(NAMED_MAX).map(|finding| stated(finding)).collect();
    if attention.len() > NAMED_MAX {
        names.push(format!("and {} more", attention.len() - NAMED_MAX));
    }
    names.join(", ")
}

fn fine(look: Option<&Look>, looked: &[Looked]) -> String {
    let topics: &[Topic] = look.map_or(&[], |look| &look.topics);
    let failed = looked.iter().filter(|one| one.outcome.is_err()).count();
    let start = match topics {
        _ if failed > 0 => format!("What I could see is fine, but {failed} of {} looks failed", looked.len()),
        [Topic::Slow] => "I see nothing that makes this machine slow right now".to_owned(),
        [Topic::Cpu] => "The CPU is fine".to_owned(),
        [Topic::Memory] => "Memory is fine".to_owned(),
        [Topic::Disk] => "The disks have room".to_owned(),
        [Topic::Network] => "The network is fine".to_owned(),
        [Topic::Temperature] => "The temperature is fine".to_owned(),
        _ => looked.iter().find(|one| one.tool == MACHINES).and_then(Looked::value).map_or_else(alone, with_joined),
    };
    let clauses: Vec<String> = looked.iter().filter_map(|one| clause(&one.tool, one.value()?)).collect();
    if clauses.is_empty() { format!("{start}.") } else { format!("{start}: {}.", clauses.join(", ")) }
}

fn alone() -> String {
    "This machine is fine".to_owned()
}

/// The same, and how those are that joined.
fn with_joined(machines: &Value) -> String {
    match joined(machines) {
        (_, 0) => alone(),
        (1, 1) => format!("This machine and {} are fine", first_name(machines)),
        (online, total) if online == total => format!("This machine and the {total} that joined are fine"),
        (online, total) => format!("{}, and {online} of {total} joined machines are online", alone()),
    }
}

fn first_name(machines: &Value) -> String {
    code(list(machines, "machines").first().and_then(|row| text(row, "name")).unwrap_or_default())
}

/// The first half of the verdict for questions that want a fact rather than a judgement.
fn direct_answer(look: &Look, looked: &[Looked]) -> Option<String> {
    let of = |tool: &str| looked.iter().find(|one| one.tool == tool).and_then(Looked::value);
    match look.topics.first()? {
        Topic::Address => address(of("host_network")?),
        Topic::Processes(by) => top_process(of("host_processes")?, *by),
        Topic::Uptime => {
            let value = of("host_uptime")?;
            let since = text(value, "boot_time").map(|boot| format!(", since {}", time(boot))).unwrap_or_default();
            Some(format!("This machine has been up for {}{since}", duration(number(value, "uptime_seconds")?)))
        }
        Topic::Service => service(look.unit.as_deref()?, of("host_services"), of("host_processes")),
        Topic::Services => {
            let value = of("host_services")?;
            if value.get("available").and_then(Value::as_bool) == Some(false) {
                return Some("I cannot see services here: there is no systemd to ask".to_owned());
            }
            (number(value, "failed_count")? < 1.0).then(|| "No service has failed".to_owned())
        }
        Topic::Logs => {
            let value = of("host_logs")?;
            let count = number(value, "count")?;
            let source = text(value, "source").unwrap_or("log");
            let lines =
                if count < 1.0 { "no matching line".to_owned() } else { format!("{} matching lines", plain(count)) };
            let lines = if (count - 1.0).abs() < 0.5 { "1 matching line".to_owned() } else { lines };
            Some(format!("The log ({source}) has {lines}"))
        }
        Topic::Machines => {
            let machines = of(MACHINES)?;
            Some(match joined(machines) {
                (_, 0) => "No machine has joined this hub".to_owned(),
                (1, 1) => format!("{} is online", first_name(machines)),
                (online, total) if online == total => format!("All {total} joined machines are online"),
                (online, total) => format!("{online} of {total} joined machines are online"),
            })
        }
        Topic::Temperature => {
            let value = of("host_temperature")?;
            number(value, "hottest_celsius").is_none().then(|| "No temperature sensor can be read here".to_owned())
        }
        Topic::Disk => {
            let value = of("host_disk")?;
            let (mount, used) = fullest(value)?;
            // With trouble the findings say it better.
            (looked.len() == 1 && !list(value, "findings").iter().any(is_bad))
                .then(|| format!("The disk is not full: the fullest is {} with {} % used", code(mount), plain(used)))
        }
        Topic::Overview | Topic::Slow | Topic::Cpu | Topic::Memory | Topic::Network => None,
    }
}

fn address(network: &Value) -> Option<String> {
    let way_out = network.get("default_route").and_then(|route| text(route, "interface"));
    let mut rows: Vec<&Value> =
        list(network, "interfaces").iter().filter(|row| text(row, "name") != Some("lo")).collect();
    rows.order_by_key(|row| text(row, "name") != way_out);
    let row = rows.into_iter().find(|row| !list(row, "addresses").is_empty())?;
    let address = list(row, "addresses").first().and_then(Value::as_str)?;
    Some(format!("The address of this machine is {address} (on {})", code(text(row, "name")?)))
}

fn top_process(value: &Value, by: By) -> Option<String> {
    let first = list(value, "processes").first()?;
    let name = code(text(first, "name")?);
    match by {
        By::Cpu if number(first, "cpu_percent")? < 1.0 => {
            Some("No process uses the CPU noticeably right now".to_owned())
        }
        By::Cpu => Some(format!("{name} uses most of the CPU, {} % of one core", plain(number(first, "cpu_percent")?))),
        By::Memory => {
            let size = crate::llm::local::numbers::bytes(number(first, "memory_bytes")?);
            Some(format!("{name} uses most of the memory, {size}"))
        }
    }
}

fn service(unit: &str, services: Option<&Value>, processes: Option<&Value>) -> Option<String> {
    let name = code(unit);
    let known = services.filter(|value| value.get("known").and_then(Value::as_bool) == Some(true));
    if let Some(active) = known.and_then(|value| text(value, "active")) {
        return Some(match active {
            "active" | "reloading" => format!("Yes, {name} is running"),
            "activating" => format!("{name} is starting"),
            other => format!("No, {name} is not running: systemd says {other}"),
        });
    }
    let count = number(processes?, "matching")?;
    let asked = services.is_some_and(|value| value.get("available").and_then(Value::as_bool) == Some(true));
    let why = if asked { "systemd knows no unit of that name" } else { "systemd cannot be asked here" };
    Some(if count < 1.0 {
        format!("No, no process called {name} is running; {why}")
    } else {
        format!("Yes, {name} is running: {} of that name; {why}", plural(count, "process", "processes"))
    })
}

fn plural(count: f64, one: &str, many: &str) -> String {
    format!("{} {}", plain(count), if (count - 1.0).abs() < 0.5 { one } else { many })
}

/// An error as one line of bounded length.
fn short(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= 300 { line } else { format!("{}…", line.chars().take(300).collect::<String>()) }
}
