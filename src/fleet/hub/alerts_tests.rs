//! Lives of alerts: sequences of events, in order and out of it, and what people hear of them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::slice;
use std::sync::{Arc, Mutex};

use crossbeam_channel::bounded;
use serde_json::json;

use super::alerts::{Alerts, Teller};
use crate::alert::{Event, Level, key_of};
use crate::notify::Notice;
use crate::rt::{clock, lock};
use crate::store::Db;
use crate::store::alert_rows::{Act, Acted, AlertFilter, AlertRow};
use crate::store::silences::Silence;

const M: &str = "11111111-1111-4111-8111-111111111111";
/// A minute, in milliseconds.
const MIN: i64 = 60_000;

/// Keeps what it is told.
#[derive(Default)]
struct Heard(Mutex<Vec<Notice>>);

impl Teller for Heard {
    fn tell(&self, notice: &Notice) -> bool {
        lock(&self.0).push(notice.clone());
        true
    }
}

struct Rig {
    alerts: Alerts,
    heard: Arc<Heard>,
    frames: Arc<Mutex<Vec<String>>>,
    /// Unix milliseconds.
    now: Cell<i64>,
}

impl Rig {
    fn new() -> Self {
        Self::over(&Arc::new(Db::in_memory().unwrap()))
    }

    fn over(db: &Arc<Db>) -> Self {
        let heard = Arc::new(Heard::default());
        let alerts = Alerts::new(db, Arc::clone(&heard) as Arc<dyn Teller>, bounded(1).0);
        let frames: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&frames);
        alerts.observe(Box::new(move |frame| lock(&kept).push(String::from_utf8(frame.to_vec()).unwrap())));
        Self { alerts, heard, frames, now: Cell::new(clock::unix_ms()) }
    }

    /// Takes events at the rig's time, as `Alerts::take` does at the clock's.
    fn take(&self, events: &[Event]) -> crate::store::alerts::Taken {
        let tell_at = lock(&self.alerts.storms).not_before(M, self.now());
        self.alerts.store().take(M, events, self.now(), tell_at).unwrap()
    }

    fn now(&self) -> i64 {
        self.now.get()
    }

    fn after(&self, ms: i64) -> &Self {
        self.now.set(self.now() + ms);
        self
    }

    /// Titles of what was told since the last call.
    fn told(&self) -> Vec<String> {
        while self.alerts.tell_due(self.now()).is_zero() {}
        lock(&self.heard.0).drain(..).map(|notice| notice.title).collect()
    }

    fn rows(&self) -> Vec<AlertRow> {
        let all = AlertFilter { limit: 1000, ..AlertFilter::default() };
        self.alerts.store().list(&all).unwrap().into_iter().map(|(row, _)| row).collect()
    }

    fn open(&self) -> Vec<String> {
        let open = AlertFilter { is_open: Some(true), limit: 1000, ..AlertFilter::default() };
        let rows = self.alerts.store().list(&open).unwrap();
        rows.into_iter().map(|(row, _)| format!("{} {}", row.target, row.level)).collect()
    }

    /// An event now.
    fn event(&self, target: &str, level: Level) -> Event {
        event(self.now() / 1000, target, level)
    }
}

fn labelled(time: i64, level: Level, labels: &[(&str, &str)]) -> Event {
    let labels: BTreeMap<String, String> =
        labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    Event {
        time,
        level,
        key: key_of(&labels),
        labels,
        attrs: BTreeMap::new(),
        description: format!("it is {level}"),
        format: String::new(),
    }
}

fn event(time: i64, target: &str, level: Level) -> Event {
    labelled(time, level, &[("check", "disk::space_usage"), ("target", target), ("from_hostname", "pi")])
}

use Level::{Critical, Info, Ok as Fine, Warning};

#[test]
fn an_alert_lives_from_the_first_event_to_the_recovery() {
    let rig = Rig::new();
    assert_eq!(rig.take(&[rig.event("/", Warning)]).stored, 1);
    assert_eq!(rig.told(), ["Warning: disk::space_usage / on pi"]);
    let again = rig.after(MIN).event("/", Warning);
    assert_eq!((rig.take(slice::from_ref(&again)).stored, rig.take(slice::from_ref(&again)).duplicates), (1, 1));
    assert!(rig.told().is_empty(), "the same again is no news");
    rig.after(MIN).take(&[rig.event("/", Critical)]);
    assert_eq!(rig.told(), ["Critical: disk::space_usage / on pi"]);
    rig.after(MIN).take(&[rig.event("/", Warning)]);
    assert!(rig.told().is_empty(), "better is no news");
    rig.after(MIN).take(&[rig.event("/", Fine)]);
    assert_eq!(rig.told(), ["Recovered: disk::space_usage / on pi"]);
    assert!(rig.told().is_empty() && rig.open().is_empty());
    let [row] = rig.rows().try_into().unwrap();
    assert_eq!((row.level, row.worst, row.events, row.close_reason.as_str()), (Fine, Critical, 5, "recovered"));
    let history = rig.alerts.store().history(&row, 100).unwrap();
    assert_eq!(history.iter().map(|e| e.level).collect::<Vec<_>>(), [Fine, Warning, Critical, Warning, Warning]);
}

#[test]
fn sequences_end_as_their_newest_event_says() {
    let check = |events: &[(i64, Level)], open: &[&str], told: &[&str]| {
        let rig = Rig::new();
        let base = rig.now() / 1000 - 1000;
        for (time, level) in events {
            rig.take(&[event(base + time, "/", *level)]);
        }
        assert_eq!(rig.open(), open, "{events:?}");
        let titles: Vec<String> = rig.told().iter().map(|t| t.split(':').next().unwrap().to_owned()).collect();
        assert_eq!(titles, told, "{events:?}");
    };
    check(&[(1, Warning)], &["/ Warning"], &["Warning"]);
    check(&[(1, Info), (2, Critical)], &["/ Critical"], &["Critical"]);
    check(&[(1, Fine)], &[], &[]);
    check(&[(2, Fine), (1, Warning)], &[], &[]);
    check(&[(2, Critical), (1, Warning)], &["/ Critical"], &["Critical"]);
    check(&[(3, Warning), (2, Critical)], &["/ Warning"], &["Warning"]);
    check(&[(1, Warning), (3, Fine), (2, Critical)], &[], &[]);
    check(&[(1, Warning), (3, Critical), (2, Fine)], &["/ Critical"], &["Critical"]);
    check(&[(1, Warning), (2, Fine), (3, Warning)], &["/ Warning"], &["Warning"]);
    check(&[(1, Warning), (1, Fine)], &[], &[]);
}

#[test]
fn any_order_of_events_ends_in_the_same_state() {
    // xorshift: the same orders in every run.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    let levels = [Critical, Warning, Info, Fine];
    for _ in 0..60 {
        let rig = Rig::new();
        let base = rig.now() / 1000 - 1000;
        let n = 2 + random(10);
        let mut events: Vec<Event> = (0..n)
            .map(|i| event(base + i64::try_from(i).unwrap(), ["/", "/b"][random(2)], levels[random(4)]))
            .collect();
        let mut expected: BTreeMap<String, Level> = BTreeMap::new();
        for event in &events {
            expected.insert(event.target().to_owned(), event.level);
        }
        let mut expected: Vec<String> = expected
            .into_iter()
            .filter(|(_, level)| *level != Fine)
            .map(|(target, level)| format!("{target} {level}"))
            .collect();
        for place in (1..events.len()).rev() {
            events.swap(place, random(place + 1));
        }
        // Every event twice, in pieces.
        let mut stored = 0;
        let mut twice = events.clone();
        twice.extend(events.clone());
        for piece in twice.chunks(1 + random(4)) {
            stored += rig.take(piece).stored;
        }
        assert_eq!(stored, n);
        let mut open = rig.open();
        open.sort();
        expected.sort();
        assert_eq!(open, expected, "{events:?}");
        // Whatever people were told of is open or was told to be over.
        rig.told();
        for row in rig.rows() {
            assert_eq!(row.told.is_some(), row.closed_at.is_none(), "{row:?}");
        }
    }
}

#[test]
fn a_recovery_under_another_address_closes_the_old_alert() {
    let rig = Rig::new();
    let base = rig.now() / 1000 - 100;
    let at = |time: i64, level: Level, ip: &str, method: &str| {
        let labels = [("check", "http::status"), ("target", "x"), ("from_hostip", ip), ("method", method)];
        labelled(base + time, level, &labels)
    };
    rig.take(&[at(1, Warning, "10.0.0.1", "GET"), at(2, Warning, "10.0.0.1", "POST")]);
    assert_eq!(rig.told().len(), 2);
    rig.take(&[at(3, Fine, "10.0.0.2", "GET")]);
    assert_eq!(rig.open(), ["x Warning"]);
    assert_eq!(rig.told(), ["Recovered: http::status x on 11111111-1111-4111-8111-111111111111"]);
    let moved: Vec<AlertRow> = rig.rows().into_iter().filter(|row| row.closed_at.is_some()).collect();
    assert_eq!((moved.len(), moved[0].close_reason.as_str()), (1, "moved"));
    // One that was sent before the alert does not end it.
    rig.take(&[at(1, Fine, "10.0.0.3", "POST")]);
    assert_eq!(rig.open(), ["x Warning"]);
}

#[test]
fn a_clock_that_was_ahead_holds_nothing_up() {
    let rig = Rig::new();
    let now = rig.now() / 1000;
    rig.take(&[event(now + 86_400 * 3650, "/", Warning)]);
    rig.take(&[event(now, "/", Fine)]);
    assert!(rig.open().is_empty());
    rig.take(&[event(now + 1, "/", Critical)]);
    assert_eq!(rig.open(), ["/ Critical"]);
}

#[test]
fn reports_belong_to_their_alert() {
    let rig = Rig::new();
    let report = |time: i64, text: &str| {
        let mut report = event(time, "/", Warning);
        report.attrs.insert("report_of".to_owned(), "d1".to_owned());
        text.clone_into(&mut report.description);
        report
    };
    let now = rig.now() / 1000;
    assert_eq!(rig.take(&[report(now, "too early")]).stored, 0);
    let taken = rig.take(&[event(now, "/", Warning), report(now, "# Cause"), event(now + 1, "/", Fine)]);
    assert_eq!(taken.stored, 3);
    assert_eq!(rig.take(&[report(now + 2, "# Cause")]).stored, 0);
    let [row] = rig.rows().try_into().unwrap();
    assert_eq!((row.report.as_str(), row.closed_at.is_some()), ("# Cause", true), "a report opens nothing");
}

#[test]
fn acknowledged_means_quiet_until_it_gets_worse() {
    let rig = Rig::new();
    rig.take(&[rig.event("/", Warning)]);
    rig.told();
    let id = rig.rows()[0].id;
    let act = |rig: &Rig, act: Act<'_>| rig.alerts.store().act(id, act, "key:ana", rig.now()).unwrap();
    assert!(matches!(act(&rig, Act::Acknowledge { note: "on it" }), Acted::Done(_)));
    rig.after(24 * 60 * MIN).take(&[rig.event("/", Warning)]);
    assert!(rig.told().is_empty());
    rig.after(MIN).take(&[rig.event("/", Critical)]);
    assert_eq!(rig.told(), ["Critical: disk::space_usage / on pi"]);
    assert_eq!(rig.rows()[0].acknowledged_at, None);
    // Without it the machine's own repeats are told, now and then.
    rig.after(5 * 60 * MIN).take(&[rig.event("/", Critical)]);
    assert_eq!(rig.told().len(), 1);
    rig.after(MIN).take(&[rig.event("/", Critical)]);
    assert!(rig.told().is_empty());
    assert!(matches!(act(&rig, Act::Close { note: "" }), Acted::Done(row) if row.close_reason == "by hand"));
    assert_eq!(rig.told(), ["Closed: disk::space_usage / on pi"]);
    assert!(matches!(act(&rig, Act::Close { note: "" }), Acted::Closed));
    let unknown = rig.alerts.act(99, Act::Close { note: "" }, "key:ana").unwrap();
    assert!(matches!(unknown, Acted::NotFound));
}

#[test]
fn silences_hold_back_and_let_go() {
    let rig = Rig::new();
    let matchers = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let until = rig.now() + 30 * MIN;
    rig.alerts.silences().add(matchers("check", "disk::*"), until, "key:ana", "", rig.now()).unwrap().unwrap();
    rig.take(&[rig.event("/", Warning), rig.event("/b", Warning)]);
    assert!(rig.told().is_empty());
    rig.after(MIN).take(&[rig.event("/b", Fine)]);
    assert!(rig.told().is_empty(), "what nobody heard of needs no end");
    assert!(rig.after(20 * MIN).told().is_empty());
    assert_eq!(rig.after(10 * MIN).told(), ["Warning: disk::space_usage / on pi"]);
    // A silence of one alert, and its early end.
    let id = rig.rows().into_iter().find(|row| row.closed_at.is_none()).unwrap().id;
    let until = rig.now() + 60 * MIN;
    rig.alerts.store().act(id, Act::Silence { until, note: "" }, "key:ana", rig.now()).unwrap();
    rig.after(MIN).take(&[rig.event("/", Critical)]);
    assert!(rig.told().is_empty());
    rig.alerts.store().act(id, Act::Silence { until: rig.now(), note: "" }, "key:ana", rig.now()).unwrap();
    assert_eq!(rig.told(), ["Critical: disk::space_usage / on pi"]);
}

#[test]
fn silences_match_by_all_their_names() {
    let rig = Rig::new();
    rig.take(&[rig.event("/data", Warning)]);
    let row = &rig.rows()[0];
    let check = |matchers: &[(&str, &str)], expected: bool| {
        let matchers = matchers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let silence = Silence {
            id: String::new(),
            matchers,
            until: 0,
            created_by: String::new(),
            created_at: 0,
            note: String::new(),
        };
        assert_eq!(silence.matches(row), expected, "{silence:?}");
    };
    check(&[("machine", M)], true);
    check(&[("machine", "1111*")], true);
    check(&[("machine", "1111")], false);
    check(&[("target", "/data"), ("check", "disk::space_usage")], true);
    check(&[("target", "/data"), ("check", "cpu::usage")], false);
    check(&[("from_hostname", "p*")], true);
    check(&[("site", "home")], false);
    check(&[("level", "Warning")], true);
}

#[test]
fn many_at_once_are_one_message_and_so_is_their_end() {
    let rig = Rig::new();
    let all = |rig: &Rig, level: Level| -> Vec<Event> {
        (0..50).map(|number| rig.event(&format!("/{number}"), level)).collect()
    };
    rig.take(&all(&rig, Warning));
    let first = rig.told();
    assert_eq!(first.len(), super::alerts_storm::MACHINE_MAX);
    let summary = rig.after(super::alerts_storm::GATHER_MS).told();
    assert_eq!(summary, ["42 alerts on pi"]);
    rig.after(MIN / 2).take(&all(&rig, Fine));
    let mut ends = rig.told();
    assert_eq!(ends.pop().as_deref(), Some("Recovered: the many alerts on pi"));
    assert_eq!(ends.len(), first.len(), "each that was told alone ends alone");
    assert!(rig.after(5 * MIN).told().is_empty());
    rig.after(10 * MIN).take(&[rig.event("/", Warning)]);
    assert_eq!(rig.told(), ["Warning: disk::space_usage / on pi"]);
    assert!(rig.rows().iter().all(|row| row.told.is_some() == row.closed_at.is_none()));
}

#[test]
fn what_comes_and_goes_is_told_once_with_a_note() {
    let rig = Rig::new();
    let mut told = Vec::new();
    for _ in 0..20 {
        rig.after(20_000).take(&[rig.event("/", Warning)]);
        told.extend(rig.told());
        rig.after(20_000).take(&[rig.event("/", Fine)]);
        told.extend(rig.told());
    }
    let short: Vec<&str> = told.iter().map(|title| title.split(':').next().unwrap()).collect();
    assert_eq!(short, ["Warning", "Recovered", "Warning", "Recovered", "Warning", "Warning"]);
    assert!(rig.after(9 * MIN).told().is_empty());
    assert_eq!(rig.after(2 * MIN).told(), ["Recovered: disk::space_usage / on pi"]);
    rig.after(MIN).take(&[rig.event("/", Warning)]);
    assert_eq!(rig.told().len(), 1, "calm: as ever");
}

#[test]
fn nothing_is_forgotten_or_told_twice_at_a_restart() {
    let db = Arc::new(Db::in_memory().unwrap());
    let rig = Rig::over(&db);
    rig.take(&[rig.event("/", Warning)]);
    drop(rig); // before anybody was told
    let rig = Rig::over(&db);
    assert_eq!(rig.told().len(), 1);
    let now = rig.now();
    let rig2 = Rig::over(&db);
    assert!(rig2.told().is_empty());
    rig.now.set(now + MIN);
    rig.take(&[rig.event("/", Fine)]);
    drop(rig);
    let rig = Rig::over(&db);
    rig.now.set(now + 2 * MIN);
    assert_eq!(rig.told(), ["Recovered: disk::space_usage / on pi"]);
}

#[test]
fn the_hubs_own_alerts_rise_and_end_within_a_second_too() {
    let rig = Rig::new();
    for _ in 0..2 {
        rig.alerts.raise(M, "hub::machine_down", "machine", Critical, "pi is down").unwrap();
        rig.alerts.recover(M, "hub::machine_down", "machine").unwrap();
    }
    rig.alerts.raise(M, "hub::machine_down", "machine", Critical, "pi is down").unwrap();
    assert_eq!(rig.rows().len(), 3);
    assert_eq!(rig.open(), ["machine Critical"]);
    rig.alerts.forget_machine(M).unwrap();
    assert!(rig.open().is_empty());
    assert_eq!(rig.rows()[0].close_reason, "gone");
    rig.alerts.recover(M, "hub::cloned_agent_id", M).unwrap();
    assert_eq!(rig.rows().len(), 3, "the end of nothing opens nothing");
}

#[test]
fn bad_events_cost_only_themselves() {
    let rig = Rig::new();
    let good = rig.event("/", Warning);
    let mut item = serde_json::to_value(&good).unwrap();
    let events = rig.alerts.read(M, json!({"events": [item.clone(), 7, {"event_status": "Ok"}, null]}));
    assert_eq!(events, slice::from_ref(&good));
    item["event_status"] = json!("warning");
    assert!(rig.alerts.read(M, json!({"events": [item]})).is_empty(), "a status is exact");
    for nothing in [json!(null), json!({}), json!({"events": {}}), json!([1])] {
        assert!(rig.alerts.read(M, nothing).is_empty());
    }
    let bad = |change: fn(&mut Event)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad
    };
    let bad = [
        bad(|event| "xyz".clone_into(&mut event.key)),
        bad(|event| event.key.make_ascii_uppercase()),
        bad(|event| event.time = -1),
        bad(|event| event.time = i64::MAX),
        bad(|event| drop(event.labels.remove("check"))),
        bad(|event| drop(event.labels.insert("check".to_owned(), "hub::machine_down".to_owned()))),
    ];
    let taken = rig.alerts.take(M, &[&bad[..], slice::from_ref(&good), &bad[..]].concat()).unwrap();
    assert_eq!((taken.stored, taken.refused), (1, 12));
    assert_eq!(rig.alerts.refused(), 16);
    assert_eq!(rig.open(), ["/ Warning"]);
}

#[test]
fn long_texts_are_cut_with_a_mark() {
    let rig = Rig::new();
    let mut long = rig.event("/", Warning);
    long.description = "ä".repeat(50_000);
    long.labels.insert("note".to_owned(), "x".repeat(5000));
    for number in 0..200 {
        long.attrs.insert(format!("a{number:03}"), "y".repeat(9000));
    }
    assert_eq!(rig.alerts.take(M, &[long]).unwrap().stored, 1);
    let row = &rig.rows()[0];
    assert!(row.description.ends_with(" more bytes]") && row.description.len() < 17_000);
    assert!(row.labels["note"].len() < 1100 && row.attrs.len() == 64 && row.attrs["a000"].len() < 2100);
    assert_eq!(row.target, "/");
}

#[test]
fn clients_hear_of_changes_and_not_of_each_of_many() {
    let rig = Rig::new();
    let one = event(clock::unix_s(), "/", Warning);
    rig.alerts.take(M, slice::from_ref(&one)).unwrap();
    rig.alerts.take(M, slice::from_ref(&one)).unwrap();
    let many: Vec<Event> = (0..100).map(|number| event(one.time, &format!("/{number}"), Warning)).collect();
    rig.alerts.take(M, &many).unwrap();
    rig.alerts.act(1, Act::Close { note: "" }, "key:ana").unwrap();
    let frames = lock(&rig.frames).clone();
    let frames: Vec<serde_json::Value> = frames.iter().map(|frame| serde_json::from_str(frame).unwrap()).collect();
    let shown: Vec<String> = frames.iter().map(|f| format!("{} {}", f["change"], f["count"])).collect();
    assert_eq!(shown, ["\"opened\" null", "\"many\" 100", "\"closed\" null"]);
    assert_eq!(
        (&frames[0]["type"], &frames[0]["target"], &frames[0]["level"]),
        (&json!("alert"), &json!("/"), &json!("Warning"))
    );
}

#[test]
fn old_and_superfluous_rows_go_the_closed_ones_first() {
    let rig = Rig::new();
    for number in 0..6 {
        rig.after(1000).take(&[rig.event(&format!("/{number}"), Warning)]);
    }
    rig.after(1000).take(&[rig.event("/3", Fine), rig.event("/4", Fine)]);
    let targets = |rig: &Rig| rig.rows().iter().rev().map(|row| row.target.clone()).collect::<Vec<_>>().join(" ");
    rig.alerts.store().purge(rig.now(), 100, 100).unwrap();
    assert_eq!(targets(&rig), "/0 /1 /2 /3 /4 /5", "nothing is old");
    rig.alerts.store().purge(rig.now(), 3, 2).unwrap();
    assert_eq!(targets(&rig), "/1 /2 /5");
    rig.alerts.store().purge(rig.now() + 1, 100, 100).unwrap();
    assert_eq!(targets(&rig), "/1 /2 /5", "open ones are not old");
}

#[test]
fn lists_are_filtered_and_grouped() {
    let rig = Rig::new();
    for _ in 0..3 {
        rig.after(1000).take(&[rig.event("/", Warning)]);
        rig.after(1000).take(&[rig.event("/", Fine)]);
    }
    rig.after(1000).take(&[rig.event("/b", Critical), rig.event("/c", Info)]);
    let check = |filter: AlertFilter, expected: &str| {
        let rows = rig.alerts.store().list(&AlertFilter { limit: 10, ..filter.clone() }).unwrap();
        let shown: Vec<String> = rows.iter().map(|(row, times)| format!("{}x{times}", row.target)).collect();
        assert_eq!(shown.join(" "), expected, "{filter:?}");
    };
    let all = AlertFilter::default;
    check(all(), "/cx1 /bx1 /x3 /x3 /x3");
    check(AlertFilter { is_grouped: true, ..all() }, "/cx1 /bx1 /x3");
    check(AlertFilter { is_open: Some(true), ..all() }, "/cx1 /bx1");
    check(AlertFilter { is_open: Some(false), is_grouped: true, ..all() }, "/x3");
    check(AlertFilter { level: Some(Warning), is_grouped: true, ..all() }, "/x3");
    check(AlertFilter { level: Some(Critical), ..all() }, "/bx1");
    check(AlertFilter { machine: M.to_owned(), check: "disk".to_owned(), before: 4, ..all() }, "/x3 /x3 /x3");
    check(AlertFilter { machine: "other".to_owned(), ..all() }, "");
    check(AlertFilter { check: "disk::space".to_owned(), ..all() }, "");
    assert_eq!(rig.alerts.store().open_counts().unwrap()[M], [1, 0, 1]);
}
