//! Figures for monitoring, in the text format of Prometheus (contract 3.7, engine 11; names under Holt's own prefix).
//!
//! Counted where things happen, with one line each; rendered when somebody asks. Knows nothing of Holt. No threads.

mod process;
mod text;

use std::sync::Mutex;

use crate::rt::lock;

pub use process::{Process, process};
pub use text::Page;

/// Upper bounds of the buckets of all durations, in seconds: from a cached answer to a turn that takes ten minutes.
const BOUNDS: [f64; 12] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0, 600.0];
/// Series of one family: names of models and tools come from outside, and each takes memory for ever.
const SERIES_MAX: usize = 100;
/// The label of what comes after that.
const OTHER: &str = "other";

/// Messages that agents answered.
pub static MESSAGES: Family = counter("holt_messages_total", "Turns that ended", &["agent", "adapter"]);
/// Turns that run, by agent.
pub static ACTIVE: Family = family(Kind::Gauge, "holt_sessions_active", "Turns that run", &["agent"]);
/// How long turns run; waiting for a decision is not counted.
pub static CHAT_SECONDS: Family = histogram("holt_chat_duration_seconds", "How long turns ran", &["agent"]);
/// Calls that models asked for, denied ones included.
pub static TOOL_CALLS: Family =
    counter("holt_tool_calls_total", "Tool calls that models asked for", &["agent", "tool_name"]);
/// How long calls of models take.
pub static LLM_SECONDS: Family = histogram("holt_llm_duration_seconds", "How long calls of models took", LLM);
/// Tokens by `direction`: prompt, completion, cached_prompt.
pub static LLM_TOKENS: Family =
    counter("holt_llm_tokens_total", "Tokens of calls of models", &["provider", "model", "direction"]);
/// USD.
pub static LLM_COST: Family =
    counter("holt_llm_cost_usd_total", "What calls of models cost, in USD", &["provider", "model", "pricing_source"]);
/// Calls of models that failed.
pub static LLM_ERRORS: Family = counter("holt_llm_errors_total", "Calls of models that failed", LLM);
/// Schedules by `outcome`: run, missed, failed.
pub static SCHEDULES: Family = counter("holt_schedule_runs_total", "Schedules that came due", &["outcome"]);

const LLM: &[&str] = &["provider", "model"];

/// All of them, as they are shown.
static FAMILIES: [&Family; 9] =
    [&MESSAGES, &ACTIVE, &CHAT_SECONDS, &TOOL_CALLS, &LLM_SECONDS, &LLM_TOKENS, &LLM_COST, &LLM_ERRORS, &SCHEDULES];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Figures of one name, told apart by labels.
pub struct Family {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    kind: Kind,
    /// Guarded by this mutex; nothing is taken under it. Locked for each turn and call, never for a request.
    series: Mutex<Vec<Series>>,
}

struct Series {
    values: Box<[Box<str>]>,
    sum: f64,
    /// Of a histogram: how many were within each bound, and the rest.
    counts: [u64; BOUNDS.len() + 1],
}

const fn family(kind: Kind, name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Family {
    Family { name, help, labels, kind, series: Mutex::new(Vec::new()) }
}

const fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Family {
    family(Kind::Counter, name, help, labels)
}

const fn histogram(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Family {
    family(Kind::Histogram, name, help, labels)
}

impl Family {
    /// Adds to the figure of those labels' values.
    pub fn add(&self, values: &[&str], amount: f64) {
        self.with(values, |series| series.sum += amount);
    }

    /// Counts a duration in seconds.
    pub fn observe(&self, values: &[&str], seconds: f64) {
        self.with(values, |series| {
            series.sum += seconds;
            series.counts[bucket(seconds)] += 1;
        });
    }

    fn with(&self, values: &[&str], change: impl FnOnce(&mut Series)) {
        let mut all = lock(&self.series);
        let same =
            |series: &Series, values: &[&str]| series.values.iter().map(|value| &**value).eq(values.iter().copied());
        let mut at = all.iter().position(|series| same(series, values));
        if at.is_none() {
            let others = vec![OTHER; values.len()];
            let values = if all.len() < SERIES_MAX { values } else { &others };
            at = all.iter().position(|series| same(series, values));
            if at.is_none() {
                let values = values.iter().map(|&value| value.into()).collect();
                all.push(Series { values, sum: 0.0, counts: [0; BOUNDS.len() + 1] });
            }
        }
        let last = all.len() - 1;
        change(&mut all[at.unwrap_or(last)]);
    }

    fn render(&self, page: &mut Page) {
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        page.family(self.name, kind, self.help);
        for series in lock(&self.series).iter() {
            let labels: Vec<(&str, &str)> =
                self.labels.iter().copied().zip(series.values.iter().map(|value| &**value)).collect();
            if self.kind == Kind::Histogram {
                page.histogram(&labels, &series.counts, series.sum);
            } else {
                page.sample(&labels, series.sum);
            }
        }
    }
}

/// Which bucket a duration falls into.
pub fn bucket(seconds: f64) -> usize {
    BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len())
}

/// How many buckets a histogram has.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// All families, onto a page.
pub fn render(page: &mut Page) {
    for family in FAMILIES {
        family.render(page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_told_apart_and_bounded() {
        static HERE: Family = counter("x_total", "Help", &["a", "b"]);
        HERE.add(&["1", "2"], 1.0);
        HERE.add(&["1", "2"], 0.5);
        HERE.add(&["1", "3"], 1.0);
        for number in 0..SERIES_MAX * 2 {
            HERE.add(&["n", &number.to_string()], 1.0);
        }
        let mut page = Page::default();
        HERE.render(&mut page);
        let text = page.finish();
        assert!(text.contains("x_total{a=\"1\",b=\"2\"} 1.5\n"), "{text}");
        assert!(text.contains("x_total{a=\"other\",b=\"other\"} 102\n"), "{text}");
        assert_eq!(text.lines().count(), SERIES_MAX + 3);
    }

    #[test]
    fn durations_fall_into_their_buckets() {
        static HERE: Family = histogram("y_seconds", "Help", &["a"]);
        HERE.observe(&["1"], 0.05);
        HERE.observe(&["1"], 0.2);
        HERE.observe(&["1"], 9999.0);
        let mut page = Page::default();
        HERE.render(&mut page);
        let text = page.finish();
        for line in [
            "y_seconds_bucket{a=\"1\",le=\"0.01\"} 0",
            "y_seconds_bucket{a=\"1\",le=\"0.05\"} 1",
            "y_seconds_bucket{a=\"1\",le=\"600\"} 2",
            "y_seconds_bucket{a=\"1\",le=\"+Inf\"} 3",
            "y_seconds_count{a=\"1\"} 3",
            "y_seconds_sum{a=\"1\"} 9999.25",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
