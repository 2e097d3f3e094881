//! Telling people: where events go, and how they get there.
//!
//! A notice is a row (of the hub's database, or of an agent's memory) for each channel that wants it, before anything
//! is sent. Each channel works on its rows in order, on a thread of its own (`notify-NAME`, asleep until something is
//! due; ended by [`Dispatcher::stop`], and when its settings change), so that a slow one holds up no other.

mod buttons;
mod channel;
mod console;
mod dispatcher;
mod homeassistant;
mod lane;
mod mail;
mod mqtt;
mod mqtt_packet;
mod notice;
mod queue;
mod quiet;
#[cfg(test)]
mod services_tests;
mod situation;
mod smtp;
mod socket;
mod summary;
mod template;
mod web;

pub use dispatcher::{ChannelInfo, Dispatcher, HUB_TOPIC, Ready, Setup, TestDone, TestError};
pub use lane::ChannelStatus;
pub use notice::{Kind, Notice};
pub use queue::{MemoryQueue, Queue};
pub use situation::{AgentSituation, HubSituation, MachineState, Situation};

use std::sync::{Arc, Mutex};

use jiff::tz::TimeZone;

use crate::alert::Event;
use crate::rt::lock;

/// A place that events go to (the seed's `notify.Notifier`).
pub trait Notifier: Send + Sync {
    /// Its name, for logs and settings.
    fn name(&self) -> &str;

    /// Takes an event; quick, and never waits for a network. False when it was not taken: the caller may try again.
    fn forward(&self, event: &Event) -> bool;
}

/// What all lanes use.
struct Shared {
    queue: Arc<dyn Queue>,
    situation: Arc<dyn Situation>,
    /// Guarded by this mutex: the time zone, and where the hub's page is, without a slash at the end. Nothing is taken
    /// under it.
    place: Mutex<(TimeZone, Option<String>)>,
    /// None on an agent: it decides nothing.
    buttons: Option<buttons::Buttons>,
}

impl Shared {
    fn zone(&self) -> TimeZone {
        lock(&self.place).0.clone()
    }

    fn base_url(&self) -> Option<String> {
        lock(&self.place).1.clone()
    }
}
