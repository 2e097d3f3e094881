//! What the tools have said, by the questions that rules ask.

use serde_json::Value;

use crate::llm::local::diagnosis::Question;
use crate::llm::local::diagnosis::cause::Level;
use crate::llm::local::numbers::{list, number, text};
use crate::llm::local::report::Looked;

/// One call and its answer.
pub(super) struct Seen {
    pub(super) looked: Looked,
    pub(super) arguments: Value,
}

/// Everything that is known.
pub(super) struct Facts<'a> {
    pub(super) question: &'a Question,
    pub(super) seen: &'a [Seen],
}

impl<'a> Facts<'a> {
    /// The first answer of a tool.
    pub(super) fn tool(&self, name: &str) -> Option<&'a Value> {
        self.all(name).next().map(|(_, value)| value)
    }

    /// All answers of a tool, with the arguments that led to them.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = (&'a Value, &'a Value)> {
        let name = name.to_owned();
        let seen = self.seen.iter().filter(move |seen| seen.looked.tool == name);
        seen.filter_map(|seen| Some((&seen.arguments, seen.looked.outcome.as_ref().ok()?)))
    }

    /// The answer of a tool that was asked with that argument.
    pub(super) fn asked(&self, name: &str, argument: &str, value: &str) -> Option<&'a Value> {
        self.all(name).find(|(arguments, _)| text(arguments, argument) == Some(value)).map(|(_, answer)| answer)
    }

    /// Why the first call of a tool failed.
    pub(super) fn error(&self, name: &str) -> Option<&'a str> {
        let seen = self.seen.iter().find(|seen| seen.looked.tool == name)?;
        seen.looked.outcome.as_ref().err().map(String::as_str)
    }

    /// A number of a tool's answer.
    pub(super) fn number(&self, tool: &str, field: &str) -> Option<f64> {
        number(self.tool(tool)?, field)
    }

    /// The processes, sorted by `cpu` or `memory`.
    pub(super) fn processes(&self, by: &str) -> &'a [Value] {
        let found = self
            .all("host_processes")
            .find(|(arguments, value)| text(value, "by") == Some(by) && arguments.get("name").is_none());
        found.map_or(&[], |(_, value)| list(value, "processes"))
    }

    /// All findings of all tools, each subject once.
    pub(super) fn findings(&self) -> Vec<&'a Value> {
        let mut found: Vec<&Value> = Vec::new();
        let answers = self.seen.iter().filter_map(|seen| seen.looked.outcome.as_ref().ok());
        for finding in answers.flat_map(|value| list(value, "findings")) {
            if !found.iter().any(|known| known.get("what") == finding.get("what")) {
                found.push(finding);
            }
        }
        found
    }

    /// How bad the finding with that subject is; None when nothing was judged.
    pub(super) fn level(&self, what: &str) -> Option<Level> {
        let findings = self.findings();
        let finding = findings.into_iter().find(|finding| text(finding, "what") == Some(what))?;
        Some(Level::of(text(finding, "level")))
    }

    /// The findings whose subject begins so, if they are bad, with the rest of the subject.
    pub(super) fn bad(&self, start: &str) -> Vec<(&'a str, Level, f64)> {
        let bad = |finding: &'a Value| {
            let rest = text(finding, "what")?.strip_prefix(start)?;
            let level = Level::of(text(finding, "level"));
            (level > Level::Ok).then(|| (rest, level, number(finding, "value").unwrap_or(0.0)))
        };
        self.findings().into_iter().filter_map(bad).collect()
    }

    /// The bad findings whose subject ends so, with what stands before.
    pub(super) fn bad_end(&self, end: &str) -> Vec<(&'a str, Level)> {
        let bad = |finding: &'a Value| {
            let start = text(finding, "what")?.strip_suffix(end)?;
            let level = Level::of(text(finding, "level"));
            (level > Level::Ok).then_some((start, level))
        };
        self.findings().into_iter().filter_map(bad).collect()
    }

    /// Lines of the logs and of the kernel's log that hold one of the words (in lower case), the newest last, each once.
    pub(super) fn log_lines(&self, words: &[&str]) -> Vec<&'a str> {
        let mut found: Vec<&str> = Vec::new();
        let answers = self.all("host_logs").chain(self.all("host_kernel")).map(|(_, value)| value);
        for line in answers.flat_map(|value| list(value, "lines")).filter_map(Value::as_str) {
            let lower = line.to_lowercase();
            if words.iter().any(|word| lower.contains(word)) && !found.contains(&line) {
                found.push(line);
            }
        }
        found
    }

    /// Whether the question is about one of these areas.
    pub(super) fn is_about(&self, areas: &[&str]) -> bool {
        areas.contains(&self.question.area.as_str())
    }
}
