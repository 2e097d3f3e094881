//! Days of many schedules in a moment: the clock is the test's, the disk and the launches are real or counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::due::preview;
use super::*;
use crate::config::{Expression, ScheduleConfig, SchedulerConfig, SessionTier};
use crate::rt::{Stopper, lock};
use crate::store::schedule_runs::RunRow;
use crate::store::{Db, ScheduleRuns};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// Enough for a whole simulation: the test reads all of it.
const ALL: usize = usize::MAX;

fn schedule(name: &str, expression: &str) -> ScheduleConfig {
    ScheduleConfig {
        name: name.to_owned(),
        kind: "agent".to_owned(),
        schedule: expression.to_owned(),
        expression: Expression::parse(expression).unwrap(),
        zone: None,
        skill: String::new(),
        prompt: String::new(),
        channel: "api:test".to_owned(),
        tags: Vec::new(),
        session_tier: SessionTier::Agents,
        isolated: true,
        agent: "default".to_owned(),
        enabled: true,
    }
}

/// A clock that goes on when told, and can be set.
struct TestClock {
    steady: AtomicI64,
    ahead: AtomicI64,
}

impl Clock for TestClock {
    fn wall_ms(&self) -> i64 {
        self.steady.load(Ordering::SeqCst) + self.ahead.load(Ordering::SeqCst)
    }

    fn steady_ms(&self) -> i64 {
        self.steady.load(Ordering::SeqCst)
    }
}

/// Runs last as long as their schedule's skill says, in minutes of the steady clock. Outlives hubs, as turns' rows do.
#[derive(Default)]
struct World {
    /// Of every run that was ever begun: how often.
    begun: Mutex<HashMap<i64, usize>>,
    /// (end by the steady clock, run, who hears of it).
    going: Mutex<Vec<(i64, i64, Option<Done>)>>,
    is_paused: AtomicBool,
    /// The next launch is the last act of this hub: its message is not sent.
    dies: AtomicBool,
    is_busy: AtomicBool,
    stopped: Mutex<Vec<i64>>,
    told: Mutex<Vec<(i64, RunEnd)>>,
}

struct TestLauncher {
    world: Arc<World>,
    clock: Arc<TestClock>,
}

impl Launcher for TestLauncher {
    fn is_paused(&self) -> bool {
        self.world.is_paused.load(Ordering::SeqCst)
    }

    fn launch(&self, run: &Run, done: Done) -> Result<(), LaunchError> {
        if self.world.dies.load(Ordering::SeqCst) || self.world.is_busy.load(Ordering::SeqCst) {
            return Err(LaunchError::Busy);
        }
        *lock(&self.world.begun).entry(run.id).or_default() += 1;
        let minutes: i64 = run.schedule.skill.parse().unwrap_or(0);
        let end = self.clock.steady_ms() + minutes * MINUTE;
        lock(&self.world.going).push((end, run.id, Some(done)));
        Ok(())
    }

    fn rejoin(&self, run: &Run, done: Done) -> Result<bool, LaunchError> {
        let known = lock(&self.world.begun).contains_key(&run.id);
        if known {
            // A turn that a stop cut short has ended; one that waits for a decision goes on.
            let mut going = lock(&self.world.going);
            match going.iter_mut().find(|(_, id, _)| *id == run.id) {
                Some((_, _, hears)) if run.schedule.tags.contains(&"parked".to_owned()) => *hears = Some(done),
                _ => {
                    going.retain(|(_, id, _)| *id != run.id);
                    done.tell(RunEnd { error: "interrupted".to_owned(), text: String::new() });
                }
            }
        }
        Ok(known)
    }

    fn stop(&self, run: &Run) -> bool {
        lock(&self.world.stopped).push(run.id);
        let mut going = lock(&self.world.going);
        if let Some(at) = going.iter().position(|(_, id, _)| *id == run.id)
            && let Some(done) = going.remove(at).2
        {
            done.tell(RunEnd { error: "cancelled".to_owned(), text: String::new() });
        }
        true
    }

    fn tell(&self, _run: &Run, row: &RunRow, end: &RunEnd) {
        lock(&self.world.told).push((row.id, end.clone()));
    }
}

struct Bench {
    db: Arc<Db>,
    clock: Arc<TestClock>,
    world: Arc<World>,
    zone: String,
    config: SchedulerConfig,
    kept: usize,
    schedules: Vec<ScheduleConfig>,
    hub: Option<Arc<Scheduler>>,
    stopper: Option<Stopper>,
}

impl Bench {
    fn new(start: &str, zone: &str, schedules: Vec<ScheduleConfig>) -> Self {
        let start = start.parse::<Timestamp>().unwrap().as_millisecond();
        let mut bench = Self {
            db: Arc::new(Db::in_memory().unwrap()),
            clock: Arc::new(TestClock { steady: AtomicI64::new(0), ahead: AtomicI64::new(start) }),
            world: Arc::default(),
            zone: zone.to_owned(),
            config: SchedulerConfig { catch_up: Duration::from_secs(3600), run_timeout: Duration::from_secs(7200) },
            kept: ALL,
            schedules,
            hub: None,
            stopper: None,
        };
        bench.start();
        bench
    }

    /// Another hub over the same disk. It has no thread: the test calls.
    fn start(&mut self) {
        let (stopper, stop) = Stopper::new();
        let hub = Scheduler::new(Setup {
            db: Arc::clone(&self.db),
            launcher: Arc::new(TestLauncher { world: Arc::clone(&self.world), clock: Arc::clone(&self.clock) }),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            config: self.config.clone(),
            timezone: self.zone.clone(),
            runs_kept: self.kept,
            stop,
        });
        hub.replace(&self.schedules).unwrap();
        self.stopper = Some(stopper);
        self.hub = Some(hub);
    }

    /// The hub is gone without a word; its runs go on or not, but nobody hears of them.
    fn kill(&mut self) {
        lock(&self.world.going).iter_mut().for_each(|(_, _, hears)| *hears = None);
        self.hub = None;
        self.stopper = None;
    }

    fn hub(&self) -> &Arc<Scheduler> {
        self.hub.as_ref().unwrap()
    }

    fn now(&self) -> i64 {
        self.clock.wall_ms()
    }

    /// Lets time go on. Runs end when their time comes.
    fn pass_time(&self, ms: i64) {
        let now = self.clock.steady.fetch_add(ms, Ordering::SeqCst) + ms;
        let over = {
            let mut going = lock(&self.world.going);
            let (over, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut *going).into_iter().partition(|run| run.0 <= now);
            *going = rest;
            over
        };
        for done in over.into_iter().filter_map(|(_, _, done)| done) {
            done.tell(RunEnd { error: String::new(), text: "well".to_owned() });
        }
    }

    /// Calls the hub as its thread would, for so long.
    fn run_for(&self, ms: i64) {
        let mut left = ms;
        loop {
            let wait = self.hub().pass().unwrap_or(left).min(left).min(MINUTE);
            if left <= 0 {
                return;
            }
            self.pass_time(wait);
            left -= wait;
        }
    }

    fn set_clock(&self, by: i64) {
        self.clock.ahead.fetch_add(by, Ordering::SeqCst);
    }

    fn rows(&self, name: &str) -> Vec<RunRow> {
        let mut rows = ScheduleRuns::new(Arc::clone(&self.db), ALL).list(name, ALL).unwrap();
        rows.reverse();
        rows
    }

    fn states(&self, name: &str) -> Vec<(String, u64)> {
        self.rows(name).into_iter().map(|row| (row.state, row.moments)).collect()
    }
}

/// Numbers that look like chance and are the same every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound.cast_unsigned()).cast_signed()
    }
}

fn dozens() -> Vec<ScheduleConfig> {
    let mut all = Vec::new();
    let expressions = [
        "*/5 * * * *",
        "*/7 * * * *",
        "0 * * * *",
        "30 * * * *",
        "59 23 * * *",
        "0 0 * * *",
        "30 2 * * *",
        "15 1,2,3 * * *",
        "*/20 2 * * *",
        "0 */2 * * *",
        "0 8-18 * * 1-5",
        "10 4 * * 0",
        "45 1 * * *",
        "@hourly",
        "@daily",
        "@every 10m",
        "@every 45m",
        "@every 7m",
        "@every 3h",
        "0 3 * * *",
        "29-31 2-3 * * *",
    ];
    for (at, expression) in expressions.into_iter().enumerate() {
        // Some end at once, some take long enough to overlap.
        for minutes in [0, 12] {
            let mut schedule = schedule(&format!("s{at:02}-{minutes}"), expression);
            schedule.skill = minutes.to_string();
            all.push(schedule);
        }
    }
    all
}

/// Each moment of the wall clock up to now, from the start on, was run once, or missed, or skipped; never two of these.
fn check_cron(bench: &Bench, config: &ScheduleConfig, start: i64) {
    let zone = TimeZone::get(&bench.zone).unwrap();
    let rows = bench.rows(&config.name);
    let runs: Vec<i64> =
        rows.iter().filter(|row| !["missed", "skipped"].contains(&row.state.as_str())).map(|row| row.moment).collect();
    let unique: BTreeSet<i64> = runs.iter().copied().collect();
    assert_eq!(unique.len(), runs.len(), "{}: a moment ran twice", config.name);
    for moment in preview(&config.expression, &zone, start, 10_000) {
        if moment > bench.now() {
            break;
        }
        let passed = rows
            .iter()
            .filter(|row| ["missed", "skipped"].contains(&row.state.as_str()))
            .filter(|row| (row.moment..=row.until).contains(&moment))
            .count();
        let covered = passed + usize::from(unique.contains(&moment));
        let at = Scheduler::local_time(moment, &zone);
        let near = |row: &&RunRow| row.moment <= moment + HOUR && row.until >= moment - HOUR;
        let shown = || -> Vec<String> {
            let time = |ms: i64| Scheduler::local_time(ms, &zone);
            let line = |row: &RunRow| format!("{} {} {}..{}", row.id, row.state, time(row.moment), time(row.until));
            rows.iter().filter(near).map(line).collect()
        };
        assert_eq!(covered, 1, "{} at {at}: {:#?}", config.name, shown());
    }
}

fn check_launches(bench: &Bench) {
    let begun = lock(&bench.world.begun);
    assert!(begun.values().all(|times| *times == 1), "a run was begun twice");
    for config in &bench.schedules {
        for row in bench.rows(&config.name) {
            let was_begun = begun.contains_key(&row.id);
            match row.state.as_str() {
                "ok" | "started" => assert!(was_begun, "{row:?}"),
                "failed" => assert_eq!(was_begun, row.reason == "interrupted", "{row:?}"),
                _ => assert!(!was_begun, "{row:?}"),
            }
        }
    }
}

fn simulate(start: &str, zone: &str, hours: i64, seed: u64) {
    let mut chance = Chance(seed);
    let mut bench = Bench::new(start, zone, dozens());
    let begin = bench.now();
    let mut lowest = begin;
    let mut left = hours * HOUR;
    while left > 0 {
        let piece = chance.below(70 * MINUTE).min(left);
        bench.run_for(piece);
        left -= piece;
        match chance.below(6) {
            0 => {
                bench.kill();
                let down = chance.below(100 * MINUTE);
                bench.pass_time(down);
                left -= down;
                bench.start();
            }
            1 => {
                // Between the row and its message.
                bench.world.dies.store(true, Ordering::SeqCst);
                bench.run_for(MINUTE);
                bench.kill();
                bench.world.dies.store(false, Ordering::SeqCst);
                bench.start();
            }
            2 => bench.set_clock(chance.below(3 * HOUR)),
            3 => bench.set_clock(-chance.below(3 * HOUR)),
            4 => bench.set_clock(-chance.below(1000)),
            _ => {}
        }
        lowest = lowest.min(bench.now());
    }
    // Whatever was begun has its end.
    bench.run_for(15 * MINUTE);
    check_launches(&bench);
    for config in &bench.schedules {
        match config.expression {
            Expression::At(_) => unreachable!(),
            Expression::Cron(_) => check_cron(&bench, config, begin.max(lowest)),
            Expression::Every(interval) => {
                let rows = bench.rows(&config.name);
                let most = (hours * HOUR) / i64::try_from(interval.as_millis()).unwrap();
                let handled: u64 = rows.iter().map(|row| row.moments).sum();
                // Clocks that were set took some; none is handled twice.
                assert!(handled >= most.cast_unsigned() / 2, "{}: {handled} of {most}", config.name);
                let moments: BTreeSet<(i64, &str)> = rows.iter().map(|row| (row.moment, row.cause.as_str())).collect();
                assert_eq!(moments.len(), rows.len(), "{}", config.name);
            }
        }
    }
}

#[test]
fn a_day_with_restarts_and_clocks_that_are_set() {
    for seed in 1..=2 {
        simulate("2026-05-06T10:00:00Z", "UTC", 24, seed);
    }
}

#[test]
fn days_in_which_clocks_change_for_summer_and_winter() {
    for (zone, days) in [
        ("Europe/Berlin", ["2026-03-28T20:00:00Z", "2026-10-24T20:00:00Z"]),
        ("America/New_York", ["2026-03-08T01:00:00Z", "2026-11-01T01:00:00Z"]),
    ] {
        for (seed, day) in days.iter().enumerate() {
            simulate(day, zone, 24, 11 + seed as u64);
        }
    }
}

#[test]
fn without_trouble_every_moment_is_run_in_time() {
    for start in ["2026-03-28T20:00:00Z", "2026-10-24T20:00:00Z", "2026-06-01T00:00:00Z"] {
        let schedules: Vec<_> = dozens().into_iter().filter(|schedule| schedule.skill == "0").collect();
        let bench = Bench::new(start, "Europe/Berlin", schedules);
        let begin = bench.now();
        bench.run_for(24 * HOUR);
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        for config in &bench.schedules {
            let expected: Vec<i64> =
                preview(&config.expression, &zone, begin, 5000).into_iter().filter(|at| *at <= bench.now()).collect();
            let rows = bench.rows(&config.name);
            let run: Vec<i64> = rows.iter().map(|row| row.moment).collect();
            // The last row may not know its end yet.
            assert_eq!(run, expected, "{}", config.name);
            assert!(rows.iter().all(|row| row.cause == "due" && row.started_at == Some(row.moment)), "{}", config.name);
        }
    }
}

#[test]
fn what_was_missed_is_made_up_for_once_if_it_is_recent() {
    let mut bench =
        Bench::new("2026-05-06T10:00:30Z", "UTC", vec![schedule("a", "*/10 * * * *"), schedule("b", "@daily")]);
    bench.run_for(10 * MINUTE);
    bench.kill();
    bench.pass_time(95 * MINUTE); // 11:45:30
    bench.start();
    bench.run_for(1000);
    let rows = bench.rows("a");
    let shown: Vec<(&str, &str, u64)> =
        rows.iter().map(|row| (row.state.as_str(), row.cause.as_str(), row.moments)).collect();
    assert_eq!(shown, [("ok", "due", 1), ("missed", "due", 8), ("ok", "late", 1)]);
    assert!(rows[1].reason.contains("not running"));
    assert_eq!((rows[2].moment - rows[1].until, rows[2].started_at), (10 * MINUTE, Some(bench.now() - 1000)));
    // Down over midnight and for long after: not made up for.
    bench.kill();
    bench.pass_time(14 * HOUR);
    bench.start();
    bench.run_for(1000);
    assert_eq!(bench.states("b"), [("missed".to_owned(), 1)]);
    assert_eq!(bench.rows("a").last().unwrap().cause, "late");
}

#[test]
fn a_run_that_goes_on_makes_the_next_ones_wait_for_their_turn() {
    let mut long = schedule("long", "*/5 * * * *");
    long.skill = "12".to_owned();
    let bench = Bench::new("2026-05-06T10:04:00Z", "UTC", vec![long]);
    bench.run_for(15 * MINUTE);
    assert_eq!(bench.states("long"), [("ok".to_owned(), 1), ("skipped".to_owned(), 2)]);
    assert!(matches!(bench.hub().begin_now("nobody"), Err(RunNowError::NotFound)));
    let run = bench.hub().begin_now("long").unwrap();
    assert!(matches!(bench.hub().begin_now("long"), Err(RunNowError::Running)));
    assert_eq!(bench.hub().get("long").unwrap().running.unwrap().id, run.id);
    bench.run_for(13 * MINUTE); // 10:32: the one by hand ended at 10:31
    assert_eq!(
        bench.states("long"),
        [("ok", 1), ("skipped", 2), ("ok", 1), ("skipped", 3)].map(|(state, n)| (state.to_owned(), n))
    );
    assert_eq!(lock(&bench.world.told).len(), 2);
}

#[test]
fn a_panic_pauses_everything_and_nothing_is_made_up_for() {
    let bench = Bench::new("2026-05-06T10:00:30Z", "UTC", vec![schedule("a", "* * * * *")]);
    bench.world.is_paused.store(true, Ordering::SeqCst);
    bench.run_for(5 * MINUTE);
    assert_eq!(bench.states("a"), [("missed".to_owned(), 5)]);
    assert!(matches!(bench.hub().begin_now("a"), Err(RunNowError::Paused)));
    bench.world.is_paused.store(false, Ordering::SeqCst);
    bench.run_for(2 * MINUTE);
    assert_eq!(bench.states("a"), [("missed", 5), ("ok", 1), ("ok", 1)].map(|(state, n)| (state.to_owned(), n)));
}

#[test]
fn runs_end_in_time_and_wait_for_room() {
    let mut endless = schedule("endless", "@daily");
    endless.skill = "100000".to_owned();
    let bench = Bench::new("2026-05-06T23:59:00Z", "UTC", vec![endless, schedule("b", "*/30 * * * *")]);
    bench.world.is_busy.store(true, Ordering::SeqCst);
    bench.run_for(10 * MINUTE);
    assert_eq!(bench.states("b"), [("started".to_owned(), 1)]);
    assert!(lock(&bench.world.begun).is_empty());
    bench.world.is_busy.store(false, Ordering::SeqCst);
    bench.run_for(10 * MINUTE);
    assert_eq!(bench.states("b"), [("ok".to_owned(), 1)]);
    bench.run_for(2 * HOUR);
    let row = &bench.rows("endless")[0];
    assert_eq!((row.state.as_str(), row.reason.contains("run_timeout")), ("failed", true), "{row:?}");
    assert_eq!(lock(&bench.world.stopped).len(), 1);
}

#[test]
fn changes_keep_what_is_the_same() {
    let mut bench =
        Bench::new("2026-05-06T10:00:30Z", "UTC", vec![schedule("a", "@every 10m"), schedule("b", "0 * * * *")]);
    bench.run_for(25 * MINUTE);
    let before = bench.hub().get("a").unwrap();
    assert_eq!(before.next_run.map(|at| at - bench.now()), Some(5 * MINUTE));
    // Something else about it is changed, over a restart.
    bench.schedules[0].tags = vec!["x".to_owned()];
    bench.hub().replace(&bench.schedules).unwrap();
    bench.kill();
    bench.start();
    let after = bench.hub().get("a").unwrap();
    assert_eq!((after.next_run, after.last_run), (before.next_run, before.last_run));
    assert!(after.last_run.is_some());
    // Off for a while: nothing was missed.
    bench.schedules[0].enabled = false;
    bench.hub().replace(&bench.schedules).unwrap();
    assert_eq!(bench.hub().get("a").unwrap().next_run, None);
    bench.run_for(2 * HOUR);
    bench.schedules[0].enabled = true;
    bench.kill();
    bench.start();
    assert_eq!(bench.hub().get("a").unwrap().next_run.map(|at| at - bench.now()), Some(10 * MINUTE));
    bench.run_for(MINUTE);
    assert_eq!(bench.rows("a").len(), 2);
    // Another expression has no past; what is gone takes its history along.
    bench.schedules[0] = schedule("a", "@every 1h");
    bench.schedules.pop();
    bench.hub().replace(&bench.schedules).unwrap();
    assert_eq!(bench.hub().get("a").unwrap().next_run.map(|at| at - bench.now()), Some(HOUR));
    assert!(bench.rows("b").is_empty() && bench.hub().list().len() == 1);
}

#[test]
fn hours_are_meant_where_the_schedule_says() {
    let tokyo = config_zone("Asia/Tokyo");
    let mut bench =
        Bench::new("2026-05-06T07:30:00Z", "UTC", vec![schedule("a", "0 9 * * *"), schedule("b", "0 9 * * *")]);
    bench.schedules[1].zone = tokyo;
    bench.hub().replace(&bench.schedules).unwrap();
    let in_minutes = |name: &str| (bench.hub().get(name).unwrap().next_run.unwrap() - bench.now()) / MINUTE;
    assert_eq!((in_minutes("a"), in_minutes("b")), (90, 16 * 60 + 30));
    // 9:00 was half an hour ago in the new one: that is not made up for.
    bench.hub().configure(&bench.config, "Europe/Berlin");
    assert_eq!((in_minutes("a"), in_minutes("b")), (23 * 60 + 30, 16 * 60 + 30));
    bench.run_for(HOUR);
    assert!(bench.rows("a").is_empty() && bench.rows("b").is_empty());
    let plan = bench.hub().plan("b", 2);
    assert_eq!(plan[0] - bench.now(), (15 * 60 + 30) * MINUTE);
    bench.schedules[1].zone = config_zone("Europe/Berlin");
    bench.hub().replace(&bench.schedules).unwrap();
    assert_eq!(bench.hub().get("b").unwrap().next_run, bench.hub().get("a").unwrap().next_run);
    bench.run_for(24 * HOUR);
    assert_eq!((bench.rows("a").len(), bench.rows("b").len()), (1, 1));
}

#[test]
fn what_is_wanted_once_is_run_once() {
    let mut once = schedule("a", "@at 2026-03-29 02:30");
    once.zone = config_zone("Europe/Berlin");
    // That hour is skipped there.
    let mut bench = Bench::new("2026-03-29T00:30:00Z", "UTC", vec![once]);
    assert_eq!(bench.hub().get("a").unwrap().next_run.map(|at| at - bench.now()), Some(HOUR));
    assert_eq!(bench.hub().plan("a", 5).len(), 1);
    bench.run_for(2 * HOUR);
    assert_eq!((bench.rows("a").len(), bench.hub().get("a").unwrap().next_run), (1, None));
    bench.kill();
    bench.start();
    bench.set_clock(-HOUR - HOUR / 2);
    bench.run_for(48 * HOUR);
    assert_eq!(lock(&bench.world.begun).len(), 1, "also when the clock was set back");
}

fn config_zone(name: &str) -> Option<jiff::tz::TimeZone> {
    crate::config::zone(name).unwrap()
}

#[test]
fn a_clock_that_was_never_set_makes_nothing_due() {
    let bench = Bench::new("1970-01-01T00:00:10Z", "UTC", vec![schedule("a", "* * * * *"), schedule("b", "@every 1m")]);
    bench.run_for(10 * MINUTE);
    bench.set_clock("2026-05-06T10:00:30Z".parse::<Timestamp>().unwrap().as_millisecond());
    bench.run_for(1000);
    assert!(bench.rows("a").is_empty() && bench.rows("b").is_empty());
    bench.run_for(2 * MINUTE);
    assert_eq!((bench.rows("a").len(), bench.rows("b").len()), (2, 2));
}

#[test]
fn a_history_is_bounded_and_still_knows_what_was_run() {
    let mut bench = Bench::new("2026-05-06T10:00:30Z", "UTC", vec![schedule("a", "* * * * *")]);
    let kept = 200;
    bench.kept = 200;
    bench.kill();
    bench.start();
    bench.run_for((kept + 100) * MINUTE);
    let rows = bench.rows("a");
    assert!((kept..kept + 20).contains(&i64::try_from(rows.len()).unwrap()), "{}", rows.len());
    // Back to before the oldest row: what is not known any more counts as done.
    let begun = lock(&bench.world.begun).len();
    bench.set_clock(-(kept + 50) * MINUTE);
    bench.run_for((kept + 49) * MINUTE);
    assert_eq!(lock(&bench.world.begun).len(), begun);
    bench.run_for(3 * MINUTE);
    assert!(lock(&bench.world.begun).len() > begun);
    let by_moment: BTreeMap<i64, usize> = bench.rows("a").iter().fold(BTreeMap::new(), |mut all, row| {
        *all.entry(row.moment).or_default() += 1;
        all
    });
    assert!(by_moment.values().all(|times| *times == 1));
}
