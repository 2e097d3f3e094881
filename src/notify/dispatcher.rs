//! Which channels a notice goes to, and the threads that carry it there.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, never, select};
use jiff::tz::TimeZone;

use super::buttons::Buttons;
use super::lane::{ChannelStatus, Lane};
use super::notice::{Kind, Notice};
use super::queue::Queue;
use super::situation::Situation;
use super::{Notifier, Shared, channel};
use crate::alert::{Event, Level};
use crate::config::{ChannelConfig, Service};
use crate::limits;
use crate::rt::{Cancel, Stop, Threads, clock, lock};
use crate::store::StoreError;
use crate::store::notices::{NewNotice, NoticeRow};

/// Longest sleep while something waits: a clock that was wrong at the start gets right.
const SLEEP_MAX: Duration = Duration::from_secs(600);
/// Test notices that wait for one channel (Reject).
const TESTS_WAITING_MAX: usize = 4;

/// What topics of a hub begin with.
pub const HUB_TOPIC: &str = "holt";

/// Told how a test notice fared.
pub type TestDone = Box<dyn FnOnce(Result<(), TestError>) + Send>;

/// Why a test notice was not delivered.
pub struct TestError {
    /// For the operator.
    pub text: String,
    /// Whether the service had its chance; the same test may succeed a moment later when it had not.
    pub was_tried: bool,
}

/// A test that waits; one that is dropped is answered too.
struct Test(Option<TestDone>);

impl Test {
    fn done(mut self, result: Result<(), TestError>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }

    fn untried(self, text: &str) {
        self.done(Err(TestError { text: text.to_owned(), was_tried: false }));
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            Self(Some(done)).untried("the channel was just changed; try again");
        }
    }
}

/// What a dispatcher is made of.
pub struct Setup {
    pub channels: Vec<ChannelConfig>,
    /// The names of all channels, those that are switched off included.
    pub known: Vec<String>,
    pub queue: Arc<dyn Queue>,
    pub situation: Arc<dyn Situation>,
    /// `api.timezone`; an agent takes its machine's with an empty one.
    pub timezone: String,
    /// `api.external_url`.
    pub external_url: Option<String>,
    /// The hub's secret, from which the tokens of buttons are made; None: no buttons.
    pub secret: Option<String>,
    /// What topics of MQTT begin with: [`HUB_TOPIC`], or one below it for an agent.
    pub topic: String,
}

/// Takes notices and sees that people get them. Cheap to share; [`Dispatcher::stop`] ends its threads.
pub struct Dispatcher {
    // Set at construction.
    shared: Arc<Shared>,
    topic: String,
    stop: Stop,
    threads: Threads,
    /// Guarded by this mutex: the channels, replaced as a whole. Nothing is taken under it.
    channels: Mutex<Arc<Vec<Arc<Handle>>>>,
    /// Guarded by this mutex: the names of all channels, those that are switched off included. Held over the disk
    /// while rows of channels that are gone are looked for; `channels` is taken under it.
    known: Mutex<Vec<String>>,
}

struct Handle {
    config: ChannelConfig,
    status: Arc<Mutex<ChannelStatus>>,
    bell_tx: Sender<()>,
    test_tx: Sender<Test>,
    cancel: Cancel,
    /// Disconnected when its thread has ended.
    ended_rx: Receiver<()>,
}

/// Channels that can be put in force, and the names of all that are known. None stands for one that goes on as it is.
pub struct Ready(Vec<(ChannelConfig, Option<Lane>)>, Vec<String>);

/// A channel as lists show it.
pub struct ChannelInfo {
    pub name: String,
    pub kind: &'static str,
    pub min_level: Level,
    pub status: ChannelStatus,
}

impl Dispatcher {
    /// Starts a thread for each channel. The error says which setting cannot be used.
    pub fn start(setup: Setup, stop: &Stop) -> Result<Self, String> {
        let at = place(&setup.timezone, setup.external_url.as_deref());
        let buttons = setup.secret.as_deref().map(Buttons::new);
        let shared = Shared { queue: setup.queue, situation: setup.situation, place: Mutex::new(at), buttons };
        let own = Self {
            shared: Arc::new(shared),
            topic: setup.topic,
            stop: stop.clone(),
            threads: Threads::new(),
            channels: Mutex::default(),
            known: Mutex::default(),
        };
        let ready = own.prepare(&setup.channels, setup.known, setup.external_url.as_deref())?;
        own.put_in_force(ready)?;
        Ok(own)
    }

    /// Sees whether these channels could work, with this address of the page; begins nothing. `known` as in [`Setup`].
    /// The error says which setting cannot be used.
    pub fn prepare(
        &self,
        channels: &[ChannelConfig],
        known: Vec<String>,
        external_url: Option<&str>,
    ) -> Result<Ready, String> {
        let running = self.now();
        let lane = |config: &ChannelConfig| {
            let built = channel::build(config, &self.topic, &self.shared, external_url.is_some())
                .map_err(|reason| format!("notify.{}: {reason}", config.name))?;
            if running.iter().any(|channel| channel.config == *config) {
                return Ok((config.clone(), None));
            }
            let lane = Lane::new(config.clone(), built, Arc::clone(&self.shared), clock::unix_ms())?;
            Ok((config.clone(), Some(lane)))
        };
        Ok(Ready(channels.iter().map(lane).collect::<Result<_, String>>()?, known))
    }

    /// These channels and no others from now on. What waits for one that is gone or switched off counts as failed; one
    /// that is switched off keeps what it told, so that it tells the ends when it is switched on again. One that became
    /// another begins with what waits for it, when the old one has ended. The error: a channel got no thread.
    pub fn put_in_force(&self, ready: Ready) -> Result<(), String> {
        let (old, mut new, mut result) = (self.now(), Vec::with_capacity(ready.0.len()), Ok(()));
        for (config, lane) in ready.0 {
            let before = old.iter().find(|channel| channel.config.name == config.name);
            match (lane, before) {
                (Some(lane), before) => match self.begin(config, lane, before.map(|channel| channel.end())) {
                    Ok(channel) => new.push(Arc::new(channel)),
                    Err(error) => result = Err(error),
                },
                (None, before) => new.extend(before.cloned()),
            }
        }
        for gone in old.iter().filter(|old| !new.iter().any(|channel| channel.config.name == old.config.name)) {
            gone.end();
        }
        *lock(&self.channels) = Arc::new(new);
        self.settle(Some(ready.1));
        result
    }

    /// Gives up what waits for channels that are not there.
    fn settle(&self, known: Option<Vec<String>>) {
        let mut guard = lock(&self.known);
        if let Some(known) = known {
            *guard = known;
        }
        let now = self.now();
        let running: Vec<&str> = now.iter().map(|channel| channel.config.name.as_str()).collect();
        let known: Vec<&str> = guard.iter().map(String::as_str).collect();
        if let Err(error) = self.shared.queue.keep_channels(&running, &known) {
            log::error!("notify: look through what waits: {error}");
        }
    }

    fn begin(&self, config: ChannelConfig, lane: Lane, before: Option<Receiver<()>>) -> Result<Handle, String> {
        let (bell_tx, bell_rx) = bounded(1);
        let (test_tx, test_rx) = bounded(TESTS_WAITING_MAX);
        let (ended_tx, ended_rx) = bounded(1);
        let (cancel, status) = (Cancel::new(), lane.status());
        let (stop, name) = (self.stop.clone(), format!("notify-{}", config.name));
        let worker = Worker { lane, bell_rx, test_rx, cancel: cancel.clone(), stop, before, _ended_tx: ended_tx };
        self.threads
            .spawn(&name, limits::NOTIFY_STACK_BYTES, move || worker.run())
            .map_err(|error| format!("start a thread for notify.{}: {error}", config.name))?;
        Ok(Handle { config, status, bell_tx, test_tx, cancel, ended_rx })
    }

    fn now(&self) -> Arc<Vec<Arc<Handle>>> {
        Arc::clone(&lock(&self.channels))
    }

    /// Another time zone and address of the page, from the next notice on; as in [`Setup`].
    pub fn set_place(&self, timezone: &str, external_url: Option<&str>) {
        *lock(&self.shared.place) = place(timezone, external_url);
    }

    /// Takes a notice for all channels that want it. Never waits for a network; on the hub the rows are durable when
    /// this returns. False when they could not be written: the cause is in the log.
    pub fn notify(&self, notice: &Notice) -> bool {
        self.keep(&self.rows_for(notice, |config| wants(config, notice)))
    }

    /// The same for the channel of that name (`*`: all of them), whatever it is set to be told. False also when there is
    /// no such channel.
    pub fn notify_to(&self, name: &str, notice: &Notice) -> bool {
        let rows = self.rows_for(notice, |config| name == "*" || config.name == name);
        !rows.is_empty() && self.keep(&rows)
    }

    fn keep(&self, rows: &[NewNotice]) -> bool {
        match self.shared.queue.add(rows) {
            Ok(()) => {
                // A channel may have gone since its row was made, and nobody else would look for it.
                let now = self.now();
                if !rows.iter().all(|row| now.iter().any(|channel| channel.config.name == row.channel)) {
                    self.settle(None);
                }
                self.ring();
                true
            }
            Err(error) => {
                log::error!("notify: keep a notice: {error}");
                false
            }
        }
    }

    fn rows_for(&self, notice: &Notice, wants: impl Fn(&ChannelConfig) -> bool) -> Vec<NewNotice> {
        let now = clock::unix_ms();
        let body = notice.to_value().to_string();
        let channels = self.now();
        let wanting = channels.iter().filter(|channel| wants(&channel.config));
        wanting
            .map(|channel| {
                let delay = channel.config.escalate_after.filter(|_| notice.kind == Kind::Firing).unwrap_or_default();
                NewNotice {
                    channel: channel.config.name.clone(),
                    dedup: notice.row_key(),
                    body: body.clone(),
                    next_at: now.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)),
                    created_at: now,
                }
            })
            .collect()
    }

    /// Wakes the channels: there are new rows. Never waits.
    fn ring(&self) {
        for channel in self.now().iter() {
            let _ = channel.bell_tx.try_send(()); // one ring in waiting says it all
        }
    }

    /// Machines or alerts are not what they were: wakes the channels that show how they are. Never waits.
    pub fn changed(&self) {
        for channel in self.now().iter().filter(|channel| matches!(channel.config.service, Service::Mqtt(_))) {
            let _ = channel.bell_tx.try_send(()); // one ring in waiting says it all
        }
    }

    /// Sends a test notice on its own, once, at once; `done` hears in any case how it went, on the channel's thread or,
    /// when there is no such channel or it was just changed, at once.
    pub fn test(&self, channel: &str, done: TestDone) {
        let test = Test(Some(done));
        let channels = self.now();
        let found = channels.iter().find(|known| known.config.name == channel);
        if let Some(Err(TrySendError::Full(test))) = found.map(|found| found.test_tx.try_send(test)) {
            test.untried("too many tests are waiting for this channel; try again later");
        }
    }

    /// The channels, by name.
    pub fn channels(&self) -> Vec<ChannelInfo> {
        let info = |channel: &Arc<Handle>| ChannelInfo {
            name: channel.config.name.clone(),
            kind: channel.config.service.name(),
            min_level: channel.config.min_level,
            status: lock(&channel.status).clone(),
        };
        self.now().iter().map(info).collect()
    }

    /// Whether a button of that channel may decide on a request for approval.
    pub fn may_decide(&self, channel: &str, approval_id: &str, approve: bool, token: &str) -> bool {
        let has_buttons = self.now().iter().any(|known| known.config.name == channel && known.config.buttons);
        let buttons = self.shared.buttons.as_ref().filter(|_| has_buttons);
        buttons.is_some_and(|buttons| buttons.is_valid(channel, approval_id, approve, token))
    }

    /// Waiting, held and failed notices, newest first.
    pub fn list(&self, rows_max: usize) -> Result<Vec<NoticeRow>, StoreError> {
        self.shared.queue.list(rows_max)
    }

    /// Removes a notice; false when there is none.
    pub fn remove(&self, id: i64) -> Result<bool, StoreError> {
        Ok(self.shared.queue.delete(&[id])? > 0)
    }

    /// Ends the threads, in the middle of an attempt if need be; what was not sent waits for the next start. The
    /// names of those that are late. The stop must have been given before.
    pub fn stop(&self, timeout: Duration) -> Vec<String> {
        for channel in self.now().iter() {
            channel.cancel.cancel();
        }
        self.threads.join_all(timeout)
    }
}

impl Handle {
    /// Ends its thread, in the middle of an attempt if need be. Never waits: see `ended_rx`.
    fn end(&self) -> Receiver<()> {
        self.cancel.cancel();
        let _ = self.bell_tx.try_send(()); // it is awake already when one waits
        self.ended_rx.clone()
    }
}

fn place(timezone: &str, external_url: Option<&str>) -> (TimeZone, Option<String>) {
    let zone = if timezone.is_empty() { TimeZone::system() } else { TimeZone::get(timezone).unwrap_or(TimeZone::UTC) };
    (zone, external_url.map(|url| url.trim_end_matches('/').to_owned()))
}

impl Notifier for Dispatcher {
    fn name(&self) -> &'static str {
        "notify"
    }

    fn forward(&self, event: &Event) -> bool {
        self.shared.situation.note(event);
        self.notify(&Notice::of_event(event))
    }
}

/// Whether a notice is for a channel. What a recovery is the end of is looked at later: see `lane`.
fn wants(config: &ChannelConfig, notice: &Notice) -> bool {
    match notice.kind {
        Kind::Approval => config.approvals,
        Kind::Firing if notice.level.is_worse_than(config.min_level) || notice.level == config.min_level => {
            has_labels(config, notice)
        }
        Kind::Recovered => config.recoveries && has_labels(config, notice),
        Kind::Firing | Kind::Report | Kind::Test | Kind::Summary => false,
    }
}

fn has_labels(config: &ChannelConfig, notice: &Notice) -> bool {
    config.labels.iter().all(|(name, wanted)| {
        let value = notice.label(name).unwrap_or_default();
        wanted.strip_suffix('*').map_or(value == wanted, |prefix| value.starts_with(prefix))
    })
}

/// A channel's thread.
struct Worker {
    lane: Lane,
    bell_rx: Receiver<()>,
    /// Tests that are left in it are answered when it is dropped.
    test_rx: Receiver<Test>,
    cancel: Cancel,
    stop: Stop,
    /// The channel of this name before this one; two at once would send everything twice.
    before: Option<Receiver<()>>,
    /// Dropped at the end.
    _ended_tx: Sender<()>,
}

impl Worker {
    fn run(mut self) {
        if let Some(before) = self.before.take() {
            let _ = before.recv(); // nothing is ever sent: it ends
        }
        while !self.stop.is_set() && !self.cancel.is_set() {
            let wake = self.lane.work(&clock::unix_ms, &self.cancel);
            let timer = wake.map_or_else(never, |at| {
                let wait = u64::try_from(at - clock::unix_ms()).unwrap_or(0);
                crossbeam_channel::after(Duration::from_millis(wait).min(SLEEP_MAX))
            });
            select! {
                recv(self.bell_rx) -> bell => if bell.is_err() { break }, // its dispatcher is gone
                recv(self.test_rx) -> test => if let Ok(test) = test {
                    let result = self.lane.test(&test_notice(), clock::unix_ms(), &self.cancel);
                    test.done(result.map_err(|text| TestError { text, was_tried: !self.cancel.is_set() }));
                },
                recv(timer) -> _ => {}
                recv(self.stop.signal()) -> _ => {}
            }
        }
        self.lane.close();
    }
}

fn test_notice() -> Notice {
    Notice {
        kind: Kind::Test,
        title: "Test".to_owned(),
        body: "This channel works.".to_owned(),
        check: "notify::test".to_owned(),
        time: clock::unix_ms(),
        ..Notice::default()
    }
}

#[cfg(test)]
#[path = "dispatcher_tests.rs"]
mod tests;
