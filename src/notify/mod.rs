//! Telling people: where events go, and how they get there.

use crate::alert::Event;

/// A place that events go to (the seed's `notify.Notifier`).
pub trait Notifier: Send + Sync {
    /// Its name, for logs and settings.
    fn name(&self) -> &str;

    /// Takes an event; quick, and never waits for a network. False when it was not taken: the caller may try again.
    fn forward(&self, event: &Event) -> bool;
}
