//! What a check is: it looks, and says what it saw. It knows no alert, no notifier and no file of settings.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use serde_json::Value;

use crate::alert::Level;
use crate::diag::HostRoot;
use crate::rt::{Cancel, clock};
use crate::tools::ToolContext;

/// One thing that a check saw in one round. Also what is fine is a reading: it ends an alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// `plugin::dimension`, for instance `disk::space_usage`.
    pub check: &'static str,
    /// What was checked: a mount point, a unit, an address.
    pub target: String,
    pub level: Level,
    /// The level that an alert which is open already keeps: not better than `level`, and worse while the value is
    /// within the margin of the threshold. Without a number it equals `level`.
    pub held: Level,
    /// More of what identifies it, beside check and target (`method` of an HTTP check).
    pub labels: Vec<(&'static str, String)>,
    /// For the reader: `current_value`, `threshold_desc`, ... (contract agent-link 6.1).
    pub attrs: Vec<(&'static str, String)>,
    pub description: String,
    /// False when it could not be measured: then other readings of the target may be missing without having vanished.
    pub measured: bool,
}

impl Reading {
    /// A reading that has no number.
    pub fn new(check: &'static str, target: &str, level: Level, description: impl Into<String>) -> Self {
        Self {
            check,
            target: target.to_owned(),
            level,
            held: level,
            labels: Vec::new(),
            attrs: Vec::new(),
            description: description.into(),
            measured: true,
        }
    }

    /// Failing to measure is an event, not silence (contract agent-link 7.5): Critical on the same check.
    pub fn failed(check: &'static str, target: &str, description: impl Into<String>) -> Self {
        Self::failed_at(check, target, Level::Critical, description)
    }

    /// The same where the level is a setting: a host that does not answer.
    pub fn failed_at(check: &'static str, target: &str, level: Level, description: impl Into<String>) -> Self {
        Self { measured: false, ..Self::new(check, target, level, description) }
    }

    /// A panic in a check is an event, too (contract agent-link 6.3).
    pub(super) fn panicked(plugin: &str) -> Self {
        Self::failed("plugin::panic", plugin, format!("the check {plugin} panicked: this is a bug in Holt"))
    }

    /// With one more attribute.
    #[must_use]
    pub fn attr(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.attrs.push((name, value.into()));
        self
    }

    /// With one more label.
    #[must_use]
    pub fn label(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((name, value.into()));
        self
    }

    /// The attribute of that name, or nothing.
    pub fn attr_of(&self, name: &str) -> &str {
        self.attrs.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// Something that is looked at again and again. One thread at a time uses it.
pub trait Check: Send {
    /// Looks once. It may block, but not beyond `context.deadline`, and it ends soon when `context.cancel` is set.
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading>;

    /// True when the first round only takes the numbers that the second is compared with.
    fn needs_two_rounds(&self) -> bool {
        false
    }

    /// What has to last through a restart: cursors and counters. Written when it changed.
    fn save(&self) -> Option<Value> {
        None
    }

    /// Takes back what [`Check::save`] gave, perhaps of an older release: what it does not understand it ignores.
    fn restore(&mut self, _state: &Value) {}
}

/// The moment of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Unix time in milliseconds. It jumps when somebody sets the clock.
    pub wall_ms: i64,
    /// Milliseconds since any moment. It never jumps: differences are durations.
    pub steady_ms: i64,
}

/// What a round may know: where to look, and when to end.
pub struct Gather<'a> {
    pub root: &'a HostRoot,
    pub now: Moment,
    /// The round is given up at this moment.
    pub deadline: Instant,
    pub cancel: &'a Cancel,
    unavailable: RefCell<Vec<String>>,
    incomplete: Cell<bool>,
}

impl<'a> Gather<'a> {
    /// A round that begins now.
    pub fn new(root: &'a HostRoot, now: Moment, deadline: Instant, cancel: &'a Cancel) -> Self {
        Self { root, now, deadline, cancel, unavailable: RefCell::default(), incomplete: Cell::new(false) }
    }

    /// Says that this machine does not permit or does not have what the check needs. That is no alert: it is said once
    /// in the log, however often it is told here, and nothing is raised.
    pub fn unavailable(&self, reason: impl Into<String>) {
        self.unavailable.borrow_mut().push(reason.into());
    }

    /// Says that readings may be missing in this round although what they tell of has not vanished: the source as a
    /// whole did not answer. Alerts without a reading stay open.
    pub fn incomplete(&self) {
        self.incomplete.set(true);
    }

    /// Unix time in seconds, at the begin of the round.
    pub fn now_s(&self) -> i64 {
        self.now.wall_ms.div_euclid(1000)
    }

    /// The same limits for the readers of `diag`.
    pub(crate) fn tool_context(&self) -> ToolContext<'a> {
        ToolContext { agent: "checks", session_id: "", identity: "", deadline: self.deadline, cancel: self.cancel }
    }

    /// What was said of the round: reasons why it cannot be done here, and whether readings may be missing.
    pub(super) fn into_notes(self) -> (Vec<String>, bool) {
        (self.unavailable.into_inner(), self.incomplete.get())
    }
}

impl Moment {
    /// Now; `started` is the moment that `steady_ms` counts from.
    pub fn now(started: Instant) -> Self {
        let steady_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        Self { wall_ms: clock::unix_ms(), steady_ms }
    }
}
