//! The alerts of all machines: events in, state kept, people told (contract agent-link 2.7, 6.2).
//!
//! Threads: `alerts` (1; decides what people hear and when; sleeps until something is due; ends at the stop).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Value, json};

use super::alerts_storm::Storms;
use crate::alert::{Event, Level, key_of};
use crate::limits;
use crate::notify::{Dispatcher, Notice};
use crate::rt::order::gather;
use crate::rt::text::cut;
use crate::rt::{Stop, Threads, clock, json as wire, lock};
use crate::store::alert_rows::{Act, Acted};
use crate::store::alerts::{Taken, What};
use crate::store::{AlertStore, Db, SilenceStore, StoreError};

/// Checks of the hub itself begin so; machines may not send them.
pub const OWN_CHECKS: &str = "hub::";
/// Changes of one batch that are told to clients one by one; more are one frame.
const FRAMES_MAX: usize = 16;
/// The end of year 9999: what is later is no time.
const TIME_MAX: i64 = 253_402_300_799;

/// Who tells people. Never waits for a network.
pub trait Teller: Send + Sync {
    /// Takes a notice on; false when it could not, so that it is told later.
    fn tell(&self, notice: &Notice) -> bool;
}

impl Teller for Dispatcher {
    fn tell(&self, notice: &Notice) -> bool {
        self.notify(notice)
    }
}

/// Where frames for clients go.
pub type Observer = Box<dyn Fn(&[u8]) + Send + Sync>;

/// All alerts.
pub struct Alerts {
    // Set at construction.
    pub(super) store: AlertStore,
    pub(super) silences: SilenceStore,
    pub(super) teller: Arc<dyn Teller>,
    bell_tx: Sender<()>,
    threads: Threads,
    observer: OnceLock<Observer>,
    // Atomics.
    refused: AtomicU64,
    /// Guarded by this mutex: how much people were told lately. Nothing is taken under it.
    pub(super) storms: Mutex<Storms>,
}

impl Alerts {
    /// Alerts over an open database; starts the thread that tells people.
    pub fn start(db: &Arc<Db>, teller: Arc<dyn Teller>, stop: Stop) -> io::Result<Arc<Self>> {
        let (bell_tx, bell_rx) = bounded(1);
        let alerts = Arc::new(Self::new(db, teller, bell_tx));
        let telling = Arc::clone(&alerts);
        alerts.threads.spawn("alerts", limits::WORKER_STACK_BYTES, move || telling.run(&bell_rx, &stop))?;
        Ok(alerts)
    }

    pub(super) fn new(db: &Arc<Db>, teller: Arc<dyn Teller>, bell_tx: Sender<()>) -> Self {
        Self {
            store: AlertStore::new(Arc::clone(db)),
            silences: SilenceStore::new(Arc::clone(db)),
            teller,
            bell_tx,
            threads: Threads::new(),
            observer: OnceLock::new(),
            refused: AtomicU64::new(0),
            storms: Mutex::default(),
        }
    }

    /// Waits for the thread after the stop; its name when it is late.
    pub fn join(&self, timeout: Duration) -> Vec<String> {
        self.threads.join_all(timeout)
    }

    /// Who gets `alert` frames for clients that may see machines; the first call counts.
    pub fn observe(&self, observer: Observer) {
        let _ = self.observer.set(observer);
    }

    /// The alerts as they are stored.
    pub fn store(&self) -> &AlertStore {
        &self.store
    }

    /// The silences.
    pub fn silences(&self) -> &SilenceStore {
        &self.silences
    }

    /// Events refused since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Something may be due: alerts or silences were changed, by this process or another.
    pub fn wake(&self) {
        let _ = self.bell_tx.try_send(()); // full: a wake-up is already on its way
    }

    /// Takes a batch of a machine: durable when this returns Ok, so that it may be acknowledged. Bad events are refused
    /// one by one, texts that are too long are cut with a mark. Blocks on the disk.
    pub fn take(&self, machine_id: &str, events: &[Event]) -> Result<Taken, StoreError> {
        let fit: Vec<Event> = events.iter().filter_map(|event| self.checked(machine_id, event)).collect();
        let now = clock::unix_ms();
        let tell_at = lock(&self.storms).not_before(machine_id, now);
        let mut taken = self.store.take(machine_id, &fit, now, tell_at)?;
        taken.refused = events.len() - fit.len();
        self.tell_clients(machine_id, &taken);
        Ok(taken)
    }

    /// The hub's own alert about a machine (empty: about itself).
    pub fn raise(
        &self,
        machine_id: &str,
        check: &str,
        target: &str,
        level: Level,
        description: &str,
    ) -> Result<(), StoreError> {
        let labels = [("check", check), ("target", target), ("from_plugin", "hub"), ("from_agent", "holt")];
        let labels: BTreeMap<String, String> =
            gather(labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        let event = Event {
            time: clock::unix_s(),
            level,
            key: key_of(&labels),
            labels,
            attrs: BTreeMap::new(),
            description: description.to_owned(),
            format: String::new(),
        };
        let now = clock::unix_ms();
        let tell_at = lock(&self.storms).not_before(machine_id, now);
        let taken = self.store.take_own(machine_id, event, now, tell_at)?;
        self.tell_clients(machine_id, &taken);
        Ok(())
    }

    /// The end of [`Alerts::raise`]; nothing happens when it was not raised.
    pub fn recover(&self, machine_id: &str, check: &str, target: &str) -> Result<(), StoreError> {
        self.raise(machine_id, check, target, Level::Ok, "")
    }

    /// Closes what is open on a machine that people took out.
    pub fn forget_machine(&self, machine_id: &str) -> Result<(), StoreError> {
        if self.store.close_all(machine_id, "gone", clock::unix_ms())? > 0 {
            self.send(&json!({"type": "alert", "change": "closed", "machine_id": machine_id}));
            self.wake();
        }
        Ok(())
    }

    /// What somebody does to an alert.
    pub fn act(&self, id: i64, act: Act<'_>, by: &str) -> Result<Acted, StoreError> {
        let acted = self.store.act(id, act, by, clock::unix_ms())?;
        if let Acted::Done(alert) = &acted {
            let change = if alert.closed_at.is_some() { "closed" } else { "changed" };
            self.send(&json!({
                "type": "alert", "change": change, "id": alert.id, "machine_id": alert.machine_id,
                "alert_key": alert.key, "check": alert.check, "target": alert.target, "level": alert.level.name(),
            }));
            self.wake();
        }
        Ok(acted)
    }

    /// The keeper's part: what is old or too much goes. Blocks on the disk.
    pub fn purge(&self) -> Result<(), StoreError> {
        let now = clock::unix_ms();
        let kept = i64::try_from(limits::ALERTS_KEPT.as_millis()).unwrap_or(i64::MAX);
        self.silences.purge(now)?;
        self.store.purge(now - kept, limits::ALERT_ROWS_MAX, limits::ALERT_EVENT_ROWS_MAX)
    }

    /// The event within our bounds; None when it is none.
    fn checked(&self, machine_id: &str, event: &Event) -> Option<Event> {
        let reason = if event.key.len() != 32 || !event.key.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            "alert_key is not 32 hex digits"
        } else if event.check().is_empty() {
            "it has no label check"
        } else if event.check().starts_with(OWN_CHECKS) {
            "its check is one of the hub's own"
        } else if !(0..=TIME_MAX).contains(&event.time) {
            "event_time is no time"
        } else {
            return Some(bounded_event(event));
        };
        self.note_refused(machine_id, reason);
        None
    }

    fn note_refused(&self, machine_id: &str, reason: &str) {
        let count = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        // The first ones, then ever more rarely: a machine may send many.
        if count.is_power_of_two() {
            log::warn!("machine {machine_id}: an event was refused: {reason} ({count} refused so far)");
        }
    }

    /// Reads the payload of `alert_events` item by item, so that a bad one costs only itself.
    pub fn read(&self, machine_id: &str, payload: Value) -> Vec<Event> {
        let Value::Object(mut payload) = payload else { return Vec::new() };
        let Some(Value::Array(items)) = payload.remove("events") else { return Vec::new() };
        let read = |item| match serde_json::from_value::<Event>(item) {
            Ok(event) => Some(event),
            Err(_) => {
                self.note_refused(machine_id, "it is not an event with an exact status");
                None
            }
        };
        items.into_iter().filter_map(read).collect()
    }

    fn tell_clients(&self, machine_id: &str, taken: &Taken) {
        if taken.changes.is_empty() {
            return;
        }
        self.wake();
        if taken.changes.len() > FRAMES_MAX {
            let count = taken.changes.len();
            self.send(&json!({"type": "alert", "change": "many", "machine_id": machine_id, "count": count}));
            return;
        }
        for change in &taken.changes {
            let what = match change.what {
                What::Opened => "opened",
                What::Changed => "changed",
                What::Closed => "closed",
                What::Reported => "reported",
            };
            self.send(&json!({
                "type": "alert", "change": what, "id": change.id, "machine_id": machine_id,
                "alert_key": change.key, "check": change.check, "target": change.target,
                "level": change.level.name(),
            }));
        }
    }

    fn send(&self, frame: &Value) {
        if let Some(observer) = self.observer.get() {
            observer(&wire::to_vec(frame));
        }
    }

    fn run(&self, bell_rx: &Receiver<()>, stop: &Stop) {
        while !stop.is_set() {
            let wait = self.tell_due(clock::unix_ms());
            crossbeam_channel::select! {
                recv(stop.signal()) -> _ => return,
                recv(bell_rx) -> _ => {}
                default(wait) => {}
            }
        }
    }
}

fn bounded_event(event: &Event) -> Event {
    let description_max = if event.attrs.contains_key("report_of") {
        limits::ALERT_REPORT_BYTES_MAX
    } else {
        limits::ALERT_TEXT_BYTES_MAX
    };
    Event {
        time: event.time,
        level: event.level,
        key: event.key.clone(),
        labels: bounded_map(&event.labels, limits::ALERT_LABEL_BYTES_MAX),
        attrs: bounded_map(&event.attrs, limits::ALERT_ATTR_BYTES_MAX),
        description: cut_marked(&event.description, description_max).into_owned(),
        format: if event.format == "markdown" { event.format.clone() } else { String::new() },
    }
}

/// At most [`limits::ALERT_PAIRS_MAX`] pairs; those that identify an event are always among them.
fn bounded_map(map: &BTreeMap<String, String>, bytes_max: usize) -> BTreeMap<String, String> {
    let reserved = |name: &str| crate::alert::RESERVED_LABELS.contains(&name) || name == "report_of";
    let mut left = limits::ALERT_PAIRS_MAX;
    let mut kept = BTreeMap::new();
    for (name, value) in map {
        if !reserved(name) {
            if left == 0 {
                continue;
            }
            left -= 1;
        }
        kept.insert(cut(name, limits::ALERT_NAME_BYTES_MAX).to_owned(), cut_marked(value, bytes_max).into_owned());
    }
    kept
}

/// The text, or its beginning and a mark that says how much is missing.
pub(super) fn cut_marked(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let kept = cut(text, bytes_max);
    Cow::Owned(format!("{kept} […{} more bytes]", text.len() - kept.len()))
}
