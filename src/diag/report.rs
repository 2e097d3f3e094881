//! What a tool answers: fields and findings as one compact JSON object of bounded size.

use serde_json::{Map, Value, json};

use crate::diag::finding::{Finding, round1};
use crate::rt::order::Order;

/// Most bytes of one answer: a model reads several of them in one turn, and small models have small windows.
pub const REPORT_BYTES_MAX: usize = 8 * 1024;

/// Most bytes of one name that came from outside (process, unit, mount point).
const NAME_BYTES_MAX: usize = 96;

/// Which end of a list goes first when the answer is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The list is sorted, best first.
    Back,
    /// The list is in the order of time, newest last.
    Front,
}

/// The answer of one tool before it is written.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) fields: Map<String, Value>,
    pub(super) findings: Vec<Finding>,
    pub(super) cut: Cut,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { fields: Map::new(), findings: Vec::new(), cut: Cut::Back }
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    /// Sets a number with one digit behind the point.
    pub(super) fn set_round(&mut self, name: &str, value: f64) {
        self.fields.insert(name.to_owned(), round1(value));
    }

    /// Sets a field that may be unknown; unknown ones are left out.
    pub(super) fn set_known(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Something a reader should know about how the numbers came to be.
    pub(super) fn note(&mut self, text: &str) {
        let notes = self.fields.entry("notes").or_insert_with(|| json!([]));
        if let Value::Array(notes) = notes {
            notes.push(json!(text));
        }
    }

    pub(super) fn find(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// The JSON text: worst findings first, and never longer than [`REPORT_BYTES_MAX`].
    pub(super) fn into_text(mut self) -> String {
        self.findings.order_by_key(|finding| std::cmp::Reverse(finding.level));
        let findings: Vec<Value> = self.findings.iter().map(Finding::to_json).collect();
        self.fields.insert("findings".to_owned(), Value::Array(findings));
        let mut value = Value::Object(self.fields);
        let mut text = value.to_string();
        while text.len() > REPORT_BYTES_MAX {
            if !halve_longest_list(&mut value, self.cut) {
                return json!({"truncated": true, "error": "the answer was too long to show", "findings": []})
                    .to_string();
            }
            text = value.to_string();
        }
        text
    }
}

/// Drops half of the list that takes the most room; false when no list is left to shorten.
fn halve_longest_list(value: &mut Value, cut: Cut) -> bool {
    let Value::Object(fields) = value else { return false };
    let longest = fields
        .iter()
        .filter_map(|(name, field)| {
            field.as_array().filter(|list| !list.is_empty()).map(|_| (name, field.to_string().len()))
        })
        .max_by_key(|(_, bytes)| *bytes)
        .map(|(name, _)| name.clone());
    let Some(name) = longest else { return false };
    if let Some(Value::Array(list)) = fields.get_mut(&name) {
        let kept = list.len() / 2;
        // Findings are sorted by weight whatever the tool's lists are sorted by.
        match if name == "findings" { Cut::Back } else { cut } {
            Cut::Back => list.truncate(kept),
            Cut::Front => drop(list.drain(..list.len() - kept)),
        }
    }
    fields.insert("truncated".to_owned(), Value::Bool(true));
    true
}

/// A name from outside: bounded, without control characters (a process may call itself an escape sequence).
pub(crate) fn clean_name(name: &str) -> String {
    clean(name, NAME_BYTES_MAX)
}

/// Bounded text without control characters.
pub(crate) fn clean(text: &str, bytes_max: usize) -> String {
    let mut cleaned = String::with_capacity(text.len().min(bytes_max + 4));
    for character in text.chars() {
        if cleaned.len() + character.len_utf8() > bytes_max {
            cleaned.push('…');
            break;
        }
        cleaned.push(if character.is_control() { ' ' } else { character });
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_is_cut_at_the_right_end_and_says_so() {
        let check = |cut: Cut, first_kept: bool| {
            let mut report = Report::new();
            report.cut = cut;
            let lines: Vec<String> = (0..400).map(|n| format!("line {n} of a log that goes on and on")).collect();
            report.set("lines", lines);
            let text = report.into_text();
            assert!(text.len() <= REPORT_BYTES_MAX);
            assert!(text.contains("\"truncated\":true"));
            assert_eq!(text.contains("line 0 "), first_kept);
            assert_eq!(text.contains("line 399 "), !first_kept);
        };
        check(Cut::Back, true);
        check(Cut::Front, false);
    }

    #[test]
    fn an_answer_without_lists_is_still_bounded() {
        let mut report = Report::new();
        report.set("name", "x".repeat(REPORT_BYTES_MAX * 2));
        let text = report.into_text();
        assert!(text.len() <= REPORT_BYTES_MAX);
        assert!(text.contains("\"truncated\":true"));
    }

    #[test]
    fn names_from_outside_are_bounded_and_harmless() {
        assert_eq!(clean_name("a\u{1b}[31m\nb"), "a [31m b");
        assert_eq!(clean("äöü", 4), "äö…");
        assert_eq!(clean("", 4), "");
    }
}
