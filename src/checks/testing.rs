//! For tests of checks: a machine made of files, and rounds on it.

use std::cell::Cell;
use std::ops::Deref;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::alert::Level;
use crate::checks::plugin::{Check, Gather, Moment, Reading};
use crate::checks::registry::Build;
use crate::checks::settings::Settings;
use crate::diag::fixture::Fixture;
use crate::rt::Cancel;

/// A fixture with a clock: every round is half a minute after the one before.
pub(super) struct Bench {
    fixture: Fixture,
    now: Cell<Moment>,
    /// What the last round said of itself.
    pub(super) unavailable: Cell<Vec<String>>,
    pub(super) incomplete: Cell<bool>,
}

impl Deref for Bench {
    type Target = Fixture;

    fn deref(&self) -> &Fixture {
        &self.fixture
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::on(Fixture::empty())
    }

    pub(super) fn on(fixture: Fixture) -> Self {
        let now = Cell::new(Moment { wall_ms: 1_774_170_000_000, steady_ms: 0 });
        Self { fixture, now, unavailable: Cell::default(), incomplete: Cell::default() }
    }

    /// The checks of one table, called `checks.x`.
    #[expect(clippy::unused_self, reason = "reads like the other methods")]
    pub(super) fn build(&self, build: Build, table: &Value) -> Vec<Box<dyn Check>> {
        let mut settings = Settings::new("checks.x", table).unwrap();
        let checks = build(&mut settings).unwrap();
        settings.finish().unwrap();
        checks
    }

    /// The key that a table is refused for.
    #[expect(clippy::unused_self, reason = "reads like the other methods")]
    pub(super) fn refused(&self, build: Build, table: &Value) -> String {
        let mut settings = Settings::new("checks.x", table).unwrap();
        let built = build(&mut settings).map(drop);
        built.and_then(|()| settings.finish()).unwrap_err().key
    }

    /// One round of each.
    pub(super) fn gather(&self, checks: &mut [Box<dyn Check>]) -> Vec<Reading> {
        let now = self.now.get();
        self.now.set(Moment { wall_ms: now.wall_ms + 30_000, steady_ms: now.steady_ms + 30_000 });
        let (root, cancel) = (self.fixture.root(), Cancel::new());
        let gather = Gather::new(&root, now, Instant::now() + Duration::from_secs(60), &cancel);
        let readings = checks.iter_mut().flat_map(|check| check.gather(&gather)).collect();
        let (unavailable, incomplete) = gather.into_notes();
        self.unavailable.set(unavailable);
        self.incomplete.set(incomplete);
        readings
    }
}

/// The level of the first reading of that check.
pub(super) fn level_of(readings: &[Reading], check: &str) -> Level {
    readings.iter().find(|reading| reading.check == check).unwrap_or_else(|| panic!("no {check}: {readings:?}")).level
}
