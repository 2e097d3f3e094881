//! The report: a line of summary, causes by evidence, items with their marks, actions by urgency.

use serde_json::{Value, json};

use crate::llm::local::diagnosis::Question;
use crate::llm::local::diagnosis::cause::{Cause, Level, When};
use crate::llm::local::diagnosis::facts::{Facts, Seen};
use crate::llm::local::diagnosis::rules_services::complaint;
use crate::llm::local::diagnosis::{rules_disk, rules_load, rules_network, rules_services};
use crate::llm::local::numbers::{code, list, text};
use crate::llm::local::report::{stated, threshold};
use crate::llm::local::sections::clause;
use crate::rt::order::Order;

/// Causes and items beyond these are noise.
const CAUSES_MAX: usize = 6;
const ITEMS_MAX: usize = 40;
/// A cause with less than this to speak for it is not named.
const SCORE_MIN: i32 = 15;

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    question: Question,
    summary: String,
    level: Level,
    causes: Vec<Cause>,
    items: Vec<(Level, String)>,
    /// Tools that could not look, and why.
    not_seen: Vec<(String, String)>,
}

/// Weighs what was seen.
pub(super) fn conclude(question: &Question, seen: &[Seen]) -> Diagnosis {
    let facts = Facts { question, seen };
    let mut causes = Vec::new();
    rules_disk::find(&facts, &mut causes);
    rules_load::find(&facts, &mut causes);
    rules_network::find(&facts, &mut causes);
    rules_services::find(&facts, &mut causes);
    causes.retain(|cause| cause.score >= SCORE_MIN);
    // Stable: equals stay in the order of the rules.
    causes.order_by_key(|cause| std::cmp::Reverse(cause.score));
    causes.truncate(CAUSES_MAX);
    let items = items(&facts, &causes);
    let level = causes.iter().map(|cause| cause.level).chain(items.iter().map(|(level, _)| *level)).max();
    let level = level.unwrap_or(Level::Ok);
    let not_seen: Vec<(String, String)> = seen
        .iter()
        .filter_map(|one| Some((one.looked.tool.clone(), one.looked.outcome.as_ref().err()?.clone())))
        .collect();
    let summary = summary(&facts, &causes, &items, level, not_seen.len());
    Diagnosis { question: question.clone(), summary, level, causes, items, not_seen }
}

/// Every judged number and every reading of a check, the bad ones first, each fact once.
fn items(facts: &Facts<'_>, causes: &[Cause]) -> Vec<(Level, String)> {
    let mut items: Vec<(Level, String)> = Vec::new();
    let mut findings = facts.findings();
    let mut readings: Vec<&Value> =
        facts.tool("host_checks").map_or(&[][..], |value| list(value, "readings")).iter().collect();
    // What a finding or a cause says as well needs no second line; if they disagree, the worse one counts.
    readings.retain(|reading| {
        let level = Level::of(text(reading, "level"));
        let same = subject(reading, level);
        let is_same = |finding: &Value| same.is_some() && text(finding, "what") == same.as_deref();
        if findings.iter().any(|finding| is_same(finding) && Level::of(text(finding, "level")) >= level) {
            return false;
        }
        findings.retain(|finding| !is_same(finding));
        !causes.iter().any(|cause| cause.title == complaint(reading))
    });
    for finding in findings {
        let level = Level::of(text(finding, "level"));
        let mut said = stated(finding);
        // What is fine needs no reason: the report is read on phones, too.
        if level > Level::Ok {
            said = format!("{said} ({})", threshold(finding));
        }
        items.push((level, said));
    }
    for reading in readings {
        if let (Some(check), Some(said)) = (text(reading, "check"), text(reading, "description")) {
            let target = text(reading, "target").filter(|target| !said.contains(target));
            let target = target.map(|target| format!(" {}", code(target))).unwrap_or_default();
            let said = if said.is_empty() { String::new() } else { format!(": {said}") };
            items.push((Level::of(text(reading, "level")), format!("check {}{target}{said}", code(check))));
        }
    }
    items.order_by_key(|(level, _)| std::cmp::Reverse(*level));
    items.truncate(ITEMS_MAX);
    items
}

/// The subject of the finding that says the same as the reading of a check.
fn subject(reading: &Value, level: Level) -> Option<String> {
    let target = text(reading, "target")?;
    Some(match text(reading, "check")? {
        "cpu::cpu_usage" => "CPU use".to_owned(),
        "cpu::load_average" => "load per core over five minutes".to_owned(),
        "mem::memory_usage" => "memory use".to_owned(),
        "mem::swap_usage" => "swap use".to_owned(),
        "uptime::reboot_detected" => "time since the last boot".to_owned(),
        "journaltail::match" => "alarming lines in the log".to_owned(),
        "diskio::io_latency" => format!("time per request of {target}"),
        "disk::space_usage" => format!("space on {target}"),
        // That a disk is in order goes without saying when it has told its room.
        "disk::inode_usage" | "disk::hung" | "disk::writable" if level == Level::Ok => format!("space on {target}"),
        "disk::inode_usage" => format!("inodes on {target}"),
        "disk::hung" => format!("{target} does not answer"),
        "disk::writable" => format!("{target} turned read-only after an error"),
        _ => return None,
    })
}

fn summary(facts: &Facts<'_>, causes: &[Cause], items: &[(Level, String)], level: Level, failed: usize) -> String {
    if facts.seen.iter().all(|one| one.looked.outcome.is_err()) {
        return "Nothing could be looked at: all tools failed.".to_owned();
    }
    let more = |count: usize| match count {
        0 => String::new(),
        1 => "; 1 more thing speaks up".to_owned(),
        count => format!("; {count} more things speak up"),
    };
    if let Some(first) = causes.first() {
        let evidence = if facts.question.inspect { String::new() } else { format!(" ({} evidence)", first.strength()) };
        return format!("{}{evidence}{}.", first.title, more(causes.len() - 1));
    }
    let bad: Vec<&str> = items.iter().filter(|(level, _)| *level > Level::Ok).map(|(_, text)| text.as_str()).collect();
    if level > Level::Ok
        && let Some(first) = bad.first()
    {
        return format!("{first}{}.", more(bad.len() - 1));
    }
    let numbers: Vec<String> =
        facts.seen.iter().filter_map(|one| clause(&one.looked.tool, one.looked.outcome.as_ref().ok()?)).collect();
    let numbers = if numbers.is_empty() { String::new() } else { format!(": {}", numbers.join(", ")) };
    let unseen = if failed > 0 { ", as far as could be seen" } else { "" };
    let about = facts.question.area.as_str();
    match (facts.question.inspect, about) {
        (true, "system") => format!("This machine is fine{unseen}{numbers}."),
        (true, _) => format!("Nothing is wrong with {}{unseen}{numbers}.", code(about)),
        // The alert and the readings contradict each other.
        (false, _) => format!(
            "What the alert tells cannot be seen any more{unseen}: everything is within its limits now{numbers}."
        ),
    }
}

impl Diagnosis {
    /// The one line.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// As people read it, in Markdown.
    pub fn text(&self) -> String {
        let mut blocks = vec![self.summary.clone()];
        if !self.question.inspect && !self.question.about.is_empty() {
            blocks.push(format!("Asked about: {}", crate::rt::text::cut(&self.question.about, 500)));
        }
        let causes = self.causes.iter().enumerate().map(|(at, cause)| cause_text(at + 1, cause)).collect::<Vec<_>>();
        let items = self.items.iter().map(|(level, text)| format!("- {} {text}", level.mark())).collect::<Vec<_>>();
        let (causes, items) = (block("Causes, by evidence", &causes), block("Items", &items));
        // A check-up lists what it looked at first, an analysis what it found.
        blocks.extend(if self.question.inspect { [items, causes] } else { [causes, items] }.into_iter().flatten());
        for (when, heading) in [(When::Urgent, "Do now"), (When::Short, "Do soon"), (When::Medium, "Do some day")] {
            blocks
                .extend(block(heading, &self.actions(when).iter().map(|text| format!("- {text}")).collect::<Vec<_>>()));
        }
        let unseen: Vec<String> = self.not_seen.iter().map(|(tool, why)| format!("- {}: {why}", code(tool))).collect();
        blocks.extend(block("Could not look", &unseen));
        format!("{}\n", blocks.join("\n\n"))
    }

    /// As programs read it.
    pub fn to_json(&self) -> Value {
        let items: Vec<Value> =
            self.items.iter().map(|(level, text)| json!({"level": level.name(), "text": text})).collect();
        let unseen: Vec<Value> = self.not_seen.iter().map(|(tool, why)| json!({"tool": tool, "error": why})).collect();
        json!({
            "mode": if self.question.inspect { "inspect" } else { "diagnose" },
            "area": self.question.area, "target": self.question.target,
            "summary": self.summary, "level": self.level.name(),
            "causes": self.causes.iter().map(Cause::to_json).collect::<Vec<_>>(),
            "items": items,
            "actions": {
                "urgent": self.actions(When::Urgent), "short_term": self.actions(When::Short),
                "medium_term": self.actions(When::Medium),
            },
            "not_seen": unseen,
        })
    }

    /// The actions of all causes for that time, those of the likeliest first, each once.
    fn actions(&self, when: When) -> Vec<&str> {
        let mut found: Vec<&str> = Vec::new();
        for (_, text) in self.causes.iter().flat_map(|cause| &cause.actions).filter(|(known, _)| *known == when) {
            if !found.contains(&text.as_str()) {
                found.push(text);
            }
        }
        found
    }
}

fn cause_text(number: usize, cause: &Cause) -> String {
    let mut lines = vec![format!("{number}. **{}** ({} evidence)", cause.title, cause.strength())];
    lines.extend(cause.evidence.iter().map(|text| format!("   - {text}")));
    lines.extend(cause.against.iter().map(|text| format!("   - but: {text}")));
    lines.join("\n")
}

fn block(heading: &str, lines: &[String]) -> Option<String> {
    (!lines.is_empty()).then(|| format!("### {heading}\n\n{}", lines.join("\n")))
}
