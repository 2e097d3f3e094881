//! A cause, what speaks for it and against it, and what to do about it.

use serde_json::{Value, json};

/// How bad something is. Ordered: the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Ok,
    Warning,
    Critical,
}

impl Level {
    /// As findings and readings spell it.
    pub(super) fn of(level: Option<&str>) -> Self {
        match level.unwrap_or("").to_ascii_lowercase().as_str() {
            "critical" => Self::Critical,
            "warning" => Self::Warning,
            _ => Self::Ok,
        }
    }

    /// The mark of an item (contract agent-link 4.8).
    pub(super) fn mark(self) -> &'static str {
        match self {
            Self::Ok => "[OK]",
            Self::Warning => "[WARN]",
            Self::Critical => "[CRIT]",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// When to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Urgent,
    Short,
    Medium,
}

/// What a critical, a warning and an unjudged cause begin with. Evidence adds 5 to 40 each.
const SCORE_CRITICAL: i32 = 40;
const SCORE_WARNING: i32 = 20;
/// What the question asks about comes first among equals.
const SCORE_ASKED: i32 = 15;

/// From here on evidence is called strong, and moderate.
const STRONG: i32 = 75;
const MODERATE: i32 = 45;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cause {
    pub(super) title: String,
    pub(super) level: Level,
    pub(super) score: i32,
    pub(super) evidence: Vec<String>,
    pub(super) against: Vec<String>,
    pub(super) actions: Vec<(When, String)>,
}

impl Cause {
    pub(super) fn new(level: Level, title: impl Into<String>) -> Self {
        let score = match level {
            Level::Critical => SCORE_CRITICAL,
            Level::Warning => SCORE_WARNING,
            Level::Ok => 0,
        };
        let title = title.into();
        Self { title, level, score, evidence: Vec::new(), against: Vec::new(), actions: Vec::new() }
    }

    /// Weighs more when the question was about this.
    pub(super) fn asked(mut self, is_asked: bool) -> Self {
        self.score += if is_asked { SCORE_ASKED } else { 0 };
        self
    }

    /// Evidence of some weight.
    pub(super) fn by(mut self, weight: i32, evidence: impl Into<String>) -> Self {
        self.add(weight, evidence);
        self
    }

    pub(super) fn add(&mut self, weight: i32, evidence: impl Into<String>) {
        self.score += weight;
        self.evidence.push(evidence.into());
    }

    /// Evidence to the contrary.
    pub(super) fn but(&mut self, weight: i32, evidence: impl Into<String>) {
        self.score -= weight;
        self.against.push(evidence.into());
    }

    pub(super) fn act(mut self, when: When, text: impl Into<String>) -> Self {
        self.actions.push((when, text.into()));
        self
    }

    /// Urgent for what is critical, soon for the rest.
    pub(super) fn soon(self, text: impl Into<String>) -> Self {
        let when = if self.level == Level::Critical { When::Urgent } else { When::Short };
        self.act(when, text)
    }

    /// How much speaks for it.
    pub(super) fn strength(&self) -> &'static str {
        if self.score >= STRONG {
            "strong"
        } else if self.score >= MODERATE {
            "moderate"
        } else {
            "weak"
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "title": self.title, "level": self.level.name(), "score": self.score, "strength": self.strength(),
            "evidence": self.evidence, "against": self.against,
        })
    }
}
