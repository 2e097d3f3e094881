//! The queue of a channel with a clock of its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::super::notice::row_key;
use super::super::queue::{MemoryQueue, Queue};
use super::super::situation::{MachineState, Situation};
use super::*;
use crate::config::{QuietHours, Service};
use crate::store::notices::NewNotice;
use crate::store::{Db, NoticeStore};

/// 2026-01-10 12:00 UTC.
const NOON: i64 = 1_768_046_400_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

#[derive(Default)]
struct Script {
    /// What the next attempts end with; Ok when empty.
    answers: VecDeque<SendError>,
    /// Title and body of what was taken.
    sent: Vec<(String, String)>,
    attempts: usize,
}

struct Scripted(Arc<Mutex<Script>>);

impl Channel for Scripted {
    fn send(&mut self, message: &Message<'_>, _cancel: &Cancel) -> Result<(), SendError> {
        let mut script = lock(&self.0);
        script.attempts += 1;
        if let Some(answer) = script.answers.pop_front() {
            return Err(answer);
        }
        script.sent.push((message.title.clone(), message.body.clone()));
        Ok(())
    }
}

struct World {
    attended: AtomicBool,
}

impl Situation for World {
    fn machines(&self) -> Option<Vec<MachineState>> {
        None
    }

    fn is_unattended(&self, _notice: &Notice) -> bool {
        !self.attended.load(Ordering::SeqCst)
    }
}

struct Desk {
    lane: Lane,
    script: Arc<Mutex<Script>>,
    world: Arc<World>,
    queue: Arc<dyn Queue>,
    now: AtomicI64,
    escalate_ms: i64,
}

fn config() -> ChannelConfig {
    ChannelConfig {
        name: "c".into(),
        service: Service::Console,
        min_level: Level::Info,
        labels: BTreeMap::new(),
        per_minute: 20,
        quiet: None,
        quiet_critical: false,
        escalate_after: None,
        recoveries: true,
        approvals: true,
        title: None,
        body: None,
        buttons: false,
        timeout: Duration::from_secs(1),
    }
}

impl Desk {
    fn new(config: ChannelConfig, queue: Arc<dyn Queue>) -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        let world = Arc::new(World { attended: AtomicBool::new(false) });
        let shared = Arc::new(Shared {
            queue: Arc::clone(&queue),
            situation: Arc::<World>::clone(&world),
            place: Mutex::new((jiff::tz::TimeZone::UTC, Some("http://hub".into()))),
            buttons: None,
        });
        let escalate_ms = config.escalate_after.map_or(0, millis);
        let channel = Box::new(Scripted(Arc::clone(&script)));
        let lane = Lane::new(config, channel, shared, NOON).unwrap();
        Self { lane, script, world, queue, now: AtomicI64::new(NOON), escalate_ms }
    }

    fn add(&self, notice: &Notice) {
        let now = self.now.load(Ordering::SeqCst);
        let delay = if notice.kind == Kind::Firing { self.escalate_ms } else { 0 };
        let row = NewNotice {
            channel: "c".into(),
            dedup: row_key(notice.kind, notice.level, &notice.dedup),
            body: notice.to_value().to_string(),
            next_at: now + delay,
            created_at: now,
        };
        self.queue.add(&[row]).unwrap();
    }

    fn fire(&self, id: &str, level: Level) {
        self.add(&Notice { dedup: id.into(), level, check: id.into(), machine: "m".into(), ..Notice::default() });
    }

    fn recover(&self, id: &str) {
        let kind = Kind::Recovered;
        self.add(&Notice { dedup: id.into(), kind, level: Level::Ok, check: id.into(), ..Notice::default() });
    }

    /// Works after that time has passed; titles that were sent, and in how many ms it wants to work again.
    fn after(&mut self, passed: i64) -> (Vec<String>, Option<i64>) {
        let now = self.now.fetch_add(passed, Ordering::SeqCst) + passed;
        let clock = || now;
        let wake = self.lane.work(&clock, &Cancel::new()).map(|at| at - now);
        let sent = std::mem::take(&mut lock(&self.script).sent);
        (sent.into_iter().map(|(title, _)| title).collect(), wake)
    }

    fn answer(&self, answers: impl IntoIterator<Item = SendError>) {
        lock(&self.script).answers.extend(answers);
    }

    fn states(&self) -> Vec<String> {
        self.queue.list(100).unwrap().into_iter().map(|row| format!("{} {}", row.dedup, row.state)).collect()
    }
}

/// The same with rows in a database and rows in memory.
fn desks(config: &ChannelConfig) -> [Desk; 2] {
    let rows = Arc::new(NoticeStore::new(Arc::new(Db::in_memory().unwrap())));
    [Desk::new(config.clone(), rows), Desk::new(config.clone(), Arc::new(MemoryQueue::new()))]
}

fn down() -> SendError {
    SendError::later("no route")
}

#[test]
fn an_alert_is_told_once_and_its_recovery_once() {
    for mut desk in desks(&config()) {
        desk.fire("disk", Level::Warning);
        desk.fire("disk", Level::Warning);
        assert_eq!(desk.after(0), (vec!["Warning: disk on m".to_owned()], None));
        desk.fire("disk", Level::Critical);
        assert_eq!(desk.after(0).0, ["Critical: disk on m"]);
        desk.recover("disk");
        assert_eq!(desk.after(0).0, ["Recovered: disk"]);
        desk.recover("disk");
        desk.recover("never");
        assert_eq!(desk.after(0), (vec![], None));
        assert!(desk.states().is_empty());
    }
}

#[test]
fn what_is_over_before_anybody_was_told_is_not_told() {
    for mut desk in desks(&config()) {
        desk.fire("flap", Level::Warning);
        desk.recover("flap");
        desk.fire("other", Level::Info);
        assert_eq!(desk.after(0).0, ["Info: other on m"]);
    }
}

#[test]
fn failures_back_off_keep_the_order_and_obey_retry_after() {
    for mut desk in desks(&config()) {
        desk.fire("a", Level::Warning);
        desk.fire("b", Level::Critical);
        desk.answer([down(), down(), down()]);
        assert_eq!(desk.after(0), (vec![], Some(1000)));
        assert_eq!(desk.after(500), (vec![], Some(500)));
        assert_eq!(lock(&desk.script).attempts, 1);
        assert_eq!(desk.after(500), (vec![], Some(2000)));
        assert_eq!(desk.after(2000), (vec![], Some(4000)));
        desk.answer([SendError::Later { cause: "busy".into(), after: Some(Duration::from_secs(90)) }]);
        assert_eq!(desk.after(4000), (vec![], Some(90_000)));
        assert_eq!(lock(&desk.lane.status).failures, 4);
        assert_eq!(desk.after(90_000).0, ["Warning: a on m", "Critical: b on m"]);
        assert_eq!(lock(&desk.lane.status).failures, 0);
    }
}

#[test]
fn waits_grow_to_half_an_hour_and_end_after_a_day() {
    for mut desk in desks(&config()) {
        desk.fire("a", Level::Warning);
        desk.answer((0..200).map(|_| down()));
        let (mut passed, mut longest, mut wait) = (0, 0, 0);
        while let (_, Some(next)) = desk.after(wait) {
            (wait, longest, passed) = (next, longest.max(next), passed + next);
        }
        assert_eq!(longest, 30 * MINUTE);
        assert!((24 * HOUR..25 * HOUR).contains(&passed), "{passed}");
        assert!(lock(&desk.script).attempts < 70);
    }
}

#[test]
fn what_is_refused_or_breaks_the_service_does_not_hold_up_the_rest() {
    for (index, mut desk) in desks(&config()).into_iter().enumerate() {
        desk.fire("bad", Level::Warning);
        desk.fire("good", Level::Warning);
        desk.answer([SendError::Refused("the service answered 400".into())]);
        assert_eq!(desk.after(0).0, ["Warning: good on m"]);
        let failed = if index == 0 { vec!["firing Warning bad failed".to_owned()] } else { vec![] };
        assert_eq!(desk.states(), failed);
        desk.fire("poison", Level::Warning);
        desk.fire("next", Level::Warning);
        desk.answer((0..limits::NOTICE_ERROR_ATTEMPTS_MAX).map(|_| SendError::Broken("500".into())));
        let (mut passed, mut sent) = (0, Vec::new());
        while sent.is_empty() {
            let (now_sent, next) = desk.after(if passed == 0 { 0 } else { 30 * MINUTE });
            (sent, passed) = (now_sent, passed + 1);
            assert!(next.is_some() || !sent.is_empty());
        }
        assert_eq!(sent, ["Warning: next on m"]);
    }
}

#[test]
fn a_flood_becomes_summaries() {
    for mut desk in desks(&ChannelConfig { per_minute: 3, ..config() }) {
        for n in 0..50 {
            desk.fire(&format!("n{n}"), if n == 40 { Level::Critical } else { Level::Warning });
        }
        let (sent, wake) = desk.after(0);
        assert_eq!(sent, ["Warning: n0 on m", "Warning: n1 on m", "48 notices: 1 critical, 47 warning"]);
        assert_eq!(wake, None);
        desk.fire("x", Level::Info);
        let (sent, wake) = desk.after(0);
        assert!(sent.is_empty());
        let wake = wake.unwrap();
        assert!((1..=20_001).contains(&wake), "{wake}");
        assert_eq!(desk.after(wake).0, ["Info: x on m"]);
        // Each was told, so each end is told.
        for n in 0..3 {
            desk.recover(&format!("n{}", n + 10));
        }
        assert_eq!(desk.after(20_001).0, ["3 notices: 3 recovered"]);
    }
}

#[test]
fn a_summary_that_fails_is_tried_again() {
    for mut desk in desks(&ChannelConfig { per_minute: 1, ..config() }) {
        desk.fire("a", Level::Warning);
        desk.fire("b", Level::Warning);
        desk.answer([down()]);
        assert_eq!(desk.after(0), (vec![], Some(1000)));
        desk.fire("c", Level::Critical);
        assert_eq!(desk.after(1000).0, ["3 notices: 1 critical, 2 warning"]);
    }
}

#[test]
fn quiet_hours_hold_all_but_critical_alerts() {
    let quiet = Some(QuietHours { from: 11 * 60, to: 13 * 60 });
    for mut desk in desks(&ChannelConfig { quiet, ..config() }) {
        desk.fire("a", Level::Warning);
        desk.fire("b", Level::Info);
        desk.fire("c", Level::Critical);
        assert_eq!(desk.after(0), (vec!["Critical: c on m".to_owned()], Some(HOUR)));
        desk.recover("b");
        desk.recover("c");
        assert_eq!(desk.after(10 * MINUTE), (vec![], Some(50 * MINUTE)));
        assert_eq!(desk.states().iter().filter(|state| state.ends_with("held")).count(), 4);
        assert_eq!(desk.after(50 * MINUTE), (vec!["3 notices: 1 warning, 2 recovered".to_owned()], None));
        desk.recover("a");
        assert_eq!(desk.after(0).0, ["Recovered: a"]);
        assert!(desk.states().is_empty());
    }
    // Quiet hours were changed while rows were held: they wait for the new end, and nothing spins.
    for desk in desks(&ChannelConfig { quiet, ..config() }) {
        desk.fire("a", Level::Warning);
        let ids: Vec<i64> = desk.queue.list(10).unwrap().iter().map(|row| row.id).collect();
        desk.queue.mark(&ids, "held", NOON - HOUR, "").unwrap();
        let mut desk = desk;
        assert_eq!(desk.after(0), (vec![], Some(HOUR)));
    }
    for mut desk in desks(&ChannelConfig { quiet, quiet_critical: true, ..config() }) {
        desk.fire("c", Level::Critical);
        assert_eq!(desk.after(0), (vec![], Some(HOUR)));
        assert_eq!(desk.after(HOUR).0, ["Critical: c on m"]);
    }
}

#[test]
fn an_escalation_comes_only_when_nobody_attended() {
    let after = Some(Duration::from_secs(15 * 60));
    for mut desk in desks(&ChannelConfig { escalate_after: after, ..config() }) {
        desk.fire("a", Level::Critical);
        assert_eq!(desk.after(0), (vec![], Some(15 * MINUTE)));
        assert_eq!(desk.after(15 * MINUTE).0, ["Critical: a on m"]);
        desk.recover("a");
        assert_eq!(desk.after(0).0, ["Recovered: a"]);
        // Over in time: neither is told.
        desk.fire("b", Level::Critical);
        desk.after(MINUTE);
        desk.recover("b");
        assert_eq!(desk.after(MINUTE), (vec![], None));
        // Acknowledged in time.
        desk.fire("c", Level::Critical);
        desk.world.attended.store(true, Ordering::SeqCst);
        assert_eq!(desk.after(15 * MINUTE), (vec![], None));
        assert!(desk.states().is_empty());
    }
}

#[test]
fn a_stop_loses_nothing() {
    for mut desk in desks(&config()) {
        desk.fire("a", Level::Warning);
        desk.answer([SendError::Cancelled]);
        let cancel = Cancel::new();
        cancel.cancel();
        assert_eq!(desk.lane.work(&|| NOON, &cancel), None);
        assert_eq!(desk.states(), ["firing Warning a waiting"]);
    }
}

#[test]
fn templates_and_links_are_filled() {
    let (title, body) = (Some("{status} {machine}".to_owned()), Some("{check} at {time}: {link}".to_owned()));
    for mut desk in desks(&ChannelConfig { title: title.clone(), body: body.clone(), ..config() }) {
        let notice = Notice { time: NOON, link: "/#alerts/7".into(), ..Notice::default() };
        desk.add(&Notice { check: "disk".into(), machine: "nas".into(), ..notice });
        desk.lane.work(&|| NOON, &Cancel::new());
        let sent = lock(&desk.script).sent[0].clone();
        assert_eq!(sent, ("Info nas".into(), "disk at 2026-01-10 12:00:00 UTC: http://hub/#alerts/7".into()));
    }
    let refused = Lane::new(
        ChannelConfig { title: Some("{nope}".into()), ..config() },
        Box::new(Scripted(Arc::default())),
        desks(&config())[0].lane.shared.clone(),
        NOON,
    );
    assert!(refused.is_err_and(|reason| reason.contains("notify.c.title") && reason.contains("{nope}")));
}
