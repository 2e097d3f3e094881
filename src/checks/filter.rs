//! Which log lines count, and what is said of them: shared by `journaltail` and `logfile`.
//!
//! `filter_include` and `filter_exclude` are lists of patterns: `/regular expression/`, a glob that the whole line has to
//! match when there is a `*` or `?` in it, else a part of the line.

use crate::alert::Level;
use crate::checks::glob;
use crate::checks::plugin::Reading;
use crate::checks::regex::Regex;
use crate::checks::settings::{SettingError, Settings};
use crate::diag::redact::redact;
use crate::diag::report::clean;

/// Lines that a description shows (contract agent-link 7.5, 12).
const LINES_MAX: usize = 10;

/// Most bytes of a line that are shown.
const LINE_BYTES_MAX: usize = 300;

/// Most bytes of a line that are looked at: what is longer is no log.
const LOOKED_BYTES_MAX: usize = 16 * 1024;

const PATTERNS_MAX: usize = 200;

enum Pattern {
    Part(String),
    Glob(String),
    Regex(Regex),
}

/// Two lists of patterns.
pub(super) struct Filter {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    /// The first pattern as it was typed, for the name of a target.
    pub(super) first: String,
}

impl Filter {
    /// Takes both keys of a table.
    pub(super) fn build(settings: &mut Settings, default: &[&str]) -> Result<Self, SettingError> {
        let include = settings.texts("filter_include", default)?;
        let exclude = settings.texts("filter_exclude", &[])?;
        if include.is_empty() {
            return Err(settings.error("filter_include", "is needed: parts of lines, globs or /regular expressions/"));
        }
        let first = match include.len() {
            1 => include[0].clone(),
            n => format!("{} (+{})", include[0], n - 1),
        };
        let compiled = |key: &'static str, texts: &[String], settings: &Settings| {
            if texts.len() > PATTERNS_MAX {
                return Err(settings.error(key, format!("holds more than {PATTERNS_MAX} patterns")));
            }
            let patterns = texts.iter().map(|text| Pattern::parse(text));
            patterns.collect::<Result<Vec<_>, _>>().map_err(|reason| settings.error(key, reason))
        };
        let include = compiled("filter_include", &include, settings)?;
        let exclude = compiled("filter_exclude", &exclude, settings)?;
        Ok(Self { include, exclude, first })
    }

    fn takes(&self, line: &str) -> bool {
        let line = crate::rt::text::cut(line, LOOKED_BYTES_MAX);
        self.include.iter().any(|pattern| pattern.matches(line))
            && !self.exclude.iter().any(|pattern| pattern.matches(line))
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("holds an empty pattern, which every line matches".to_owned());
        }
        if let Some(regex) = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')).filter(|r| !r.is_empty()) {
            return Regex::new(regex).map(Self::Regex).map_err(|reason| format!("{text}: {reason}"));
        }
        Ok(if glob::is_exact(text) { Self::Part(text.to_owned()) } else { Self::Glob(text.to_owned()) })
    }

    fn matches(&self, line: &str) -> bool {
        match self {
            Self::Part(part) => line.contains(part),
            Self::Glob(pattern) => glob::matches(pattern, line),
            Self::Regex(regex) => regex.is_match(line),
        }
    }
}

/// The lines of one round that count.
#[derive(Default)]
pub(super) struct Matches {
    count: u64,
    shown: Vec<String>,
}

impl Matches {
    /// Looks at one line.
    pub(super) fn look(&mut self, filter: &Filter, line: &str) {
        if !filter.takes(line) {
            return;
        }
        self.count += 1;
        if self.shown.len() < LINES_MAX {
            self.shown.push(clean(&redact(line.trim_end()), LINE_BYTES_MAX));
        }
    }

    /// What is said of them. That nothing matched is Ok, and the engine waits a while before it believes it.
    pub(super) fn reading(self, check: &'static str, target: &str, level: Level) -> Reading {
        if self.count == 0 {
            return Reading::new(check, target, Level::Ok, "no line matches any more");
        }
        let mut text = match self.count {
            1 => "1 line matches:".to_owned(),
            n => format!("{n} lines match:"),
        };
        let hidden = self.count - u64::try_from(self.shown.len()).unwrap_or(self.count);
        for line in self.shown {
            text = format!("{text}\n{line}");
        }
        if hidden > 0 {
            text = format!("{text}\nand {hidden} more");
        }
        Reading::new(check, target, level, text).attr("current_value", self.count.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn filter(table: &Value) -> Result<Filter, SettingError> {
        Filter::build(&mut Settings::new("checks.x", table).unwrap(), &["default"])
    }

    #[test]
    fn lines_are_included_and_excluded() {
        let check = |table: Value, line: &str, expected: bool| {
            assert_eq!(filter(&table).unwrap().takes(line), expected, "{table} {line}");
        };
        check(json!({}), "the default word", true);
        check(json!({"filter_include": "oom"}), "an oom kill", true);
        check(json!({"filter_include": "oom*"}), "an oom kill", false);
        check(json!({"filter_include": "*oom*"}), "an oom kill", true);
        check(json!({"filter_include": "/o{2}m\\b/"}), "an oom kill", true);
        check(json!({"filter_include": ["a", "b"], "filter_exclude": ["/b$/"]}), "ab", false);
        check(json!({"filter_include": ["a", "b"], "filter_exclude": ["/b$/"]}), "ba", true);
        check(json!({"filter_include": "late"}), &format!("{}late", "x".repeat(20_000)), false);
    }

    #[test]
    fn patterns_that_cannot_be_read_are_refused_with_their_text() {
        let reason = |table: Value| filter(&table).err().unwrap().to_string();
        assert!(reason(json!({"filter_include": "/a(/"})).starts_with("checks.x.filter_include: /a(/: a ( without"));
        assert!(reason(json!({"filter_exclude": ""})).contains("empty pattern"));
        assert!(reason(json!({"filter_include": []})).contains("is needed"));
        assert!(reason(json!({"filter_include": vec!["x"; 201]})).contains("more than 200"));
        assert_eq!(filter(&json!({"filter_include": ["a", "b", "c"]})).unwrap().first, "a (+2)");
    }

    #[test]
    fn a_description_is_bounded_and_holds_no_secrets() {
        let all = filter(&json!({"filter_include": "e"})).unwrap();
        let mut matches = Matches::default();
        matches.look(&all, "the password=hunter2 \x1b[2J\n");
        matches.look(&all, &"e".repeat(10_000));
        for n in 0..100 {
            matches.look(&all, &format!("line {n}"));
        }
        matches.look(&all, "no");
        let reading = matches.reading("a::b", "t", Level::Warning);
        let lines: Vec<&str> = reading.description.lines().collect();
        assert_eq!(lines[0], "102 lines match:");
        assert_eq!(lines[1], "the password=[hidden]  [2J");
        assert!(lines[2].len() < 310 && lines[2].ends_with('…'));
        assert_eq!((lines[10], lines[11], lines.len()), ("line 7", "and 92 more", 12));
        assert_eq!(Matches::default().reading("a::b", "t", Level::Warning).level, Level::Ok);
    }
}
