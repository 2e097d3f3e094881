//! Tests of the check `docker` against an engine that plays a table of answers on a real Unix socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::docker::build;
use super::each::tests::{lines, round};
use super::plugin::{Check, Reading};
use super::testing::Bench;
use crate::alert::Level;
use crate::diag::HostRoot;
use crate::net::test_peer::{LONG, STACK_BYTES};
use crate::rt::{Threads, lock};

/// Answers each path by the longest key that it begins with; whatever is not known is 404.
struct Engine {
    dir: tempfile::TempDir,
    answers: Arc<Mutex<Vec<(String, String)>>>,
    threads: Threads,
}

const STOP: &str = "stop";

impl Engine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let answers: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let (known, threads) = (Arc::clone(&answers), Threads::new());
        threads
            .spawn("engine", STACK_BYTES, move || {
                loop {
                    let (mut socket, _) = listener.accept().unwrap();
                    let mut request = Vec::new();
                    let mut byte = [0];
                    while !request.ends_with(b"\r\n\r\n") && socket.read(&mut byte).unwrap() == 1 {
                        request.push(byte[0]);
                    }
                    let request = String::from_utf8(request).unwrap();
                    let path = request.split(' ').nth(1).unwrap_or(STOP).to_owned();
                    if path == STOP {
                        return;
                    }
                    let answer = lock(&known)
                        .iter()
                        .filter(|(key, _)| path.starts_with(key.as_str()))
                        .max_by_key(|(key, _)| key.len())
                        .map_or("HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n".to_owned(), |(_, answer)| answer.clone());
                    // A check that has seen enough is gone.
                    let _ = socket.write_all(answer.as_bytes());
                }
            })
            .unwrap();
        let engine = Self { dir, answers, threads };
        engine.raw("/_ping", "HTTP/1.1 200 OK\r\nApi-Version: 1.47\r\nContent-Length: 2\r\n\r\nOK");
        engine
    }

    fn socket(&self) -> String {
        self.dir.path().join("docker.sock").to_str().unwrap().to_owned()
    }

    fn raw(&self, key: &str, answer: &str) {
        let mut answers = lock(&self.answers);
        answers.retain(|(known, _)| known != key);
        answers.push((key.to_owned(), answer.to_owned()));
    }

    fn json(&self, path: &str, body: &Value) {
        let body = body.to_string();
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        self.raw(&format!("/v1.47{path}"), &format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
    }

    /// Lists these containers; an id is the name without its hyphen.
    fn containers(&self, inspected: &[(&str, Value)]) {
        let list: Vec<Value> = inspected
            .iter()
            .map(|(name, _)| json!({"Id": name.replace('-', ""), "Names": [format!("/{name}")]}))
            .collect();
        self.json("/containers/json?all=1", &json!(list));
        for (name, value) in inspected {
            self.json(&format!("/containers/{}/json", name.replace('-', "")), value);
        }
    }

    fn check(&self, mut table: Value) -> Box<dyn Check> {
        table["socket"] = json!(self.socket());
        Bench::new().build(build, &table).remove(0)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let mut last = std::os::unix::net::UnixStream::connect(self.socket()).unwrap();
            last.write_all(b"\r\n\r\n").unwrap();
            assert!(self.threads.join_all(LONG).is_empty());
        }
    }
}

fn look(check: &mut dyn Check) -> (Vec<Reading>, bool) {
    let (readings, _, incomplete) = round(check, &HostRoot::system());
    (readings, incomplete)
}

fn state(status: &str, code: i64, policy: &str) -> Value {
    json!({"State": {"Status": status, "Running": status == "running", "ExitCode": code},
        "RestartCount": 0, "HostConfig": {"RestartPolicy": {"Name": policy}}, "Config": {"Image": "img:1"}})
}

#[test]
fn names_must_be_there_and_globs_see_stopped_containers() {
    let engine = Engine::new();
    engine.containers(&[
        ("web-1", state("running", 0, "always")),
        ("web-2", state("exited", 137, "always")),
        ("web-3", state("paused", 0, "no")),
        ("web-job", state("exited", 0, "no")),
        ("db", state("exited", 0, "no")),
        ("other", state("dead", 1, "no")),
        ("web-old", state("exited", 1, "no")),
    ]);
    let table = json!({"targets": ["web-*", "db", "gone"], "exclude": ["*-old"], "restart_detected": false});
    let (readings, incomplete) = look(&mut *engine.check(table));
    assert_eq!(
        lines(&readings),
        [
            "docker::container_running docker-engine Ok: the engine answers",
            "docker::container_running gone Critical: there is no container of this name",
            "docker::container_running db Critical: the container is exited, exit code 0",
            "docker::container_running web-1 Ok: the container is running",
            "docker::container_running web-2 Critical: the container is exited, exit code 137",
            "docker::container_running web-3 Warning: the container is paused",
            "docker::container_running web-job Ok: the container is exited, exit code 0",
        ]
    );
    assert!(!incomplete);
    assert_eq!((readings[3].attr_of("image"), readings[3].attr_of("state")), ("img:1", "running"));
}

#[test]
fn health_is_told_with_the_words_of_its_check_but_no_secrets() {
    let engine = Engine::new();
    let health = |status: &str| {
        let mut value = state("running", 0, "no");
        value["State"]["Health"] =
            json!({"Status": status, "Log": [{"Output": "old"}, {"Output": "curl: password=hunter2\n"}]});
        value
    };
    engine.containers(&[("a", health("unhealthy")), ("b", health("starting")), ("c", health("none"))]);
    let (readings, _) = look(&mut *engine.check(json!({"targets": "*", "restart_detected": false})));
    let found: Vec<String> = lines(&readings).into_iter().filter(|line| line.starts_with("docker::health")).collect();
    let unhealthy =
        "docker::health_status a Critical: the container is unhealthy; its check says: curl: password=[hidden]";
    assert_eq!(found, [unhealthy, "docker::health_status b Ok: the container is starting"]);
}

#[test]
fn restarts_count_within_their_window_also_through_a_restart_of_the_agent() {
    let engine = Engine::new();
    let with = |count: u64| {
        let mut value = state("running", 0, "always");
        value["RestartCount"] = json!(count);
        engine.containers(&[("a", value)]);
    };
    let table = json!({"targets": "a"});
    let mut check = engine.check(table.clone());
    let restarts = |check: &mut dyn Check| look(check).0.pop().unwrap();
    with(7);
    assert_eq!(restarts(&mut *check).attr_of("current_value"), "0", "what was before nobody looked");
    with(10);
    assert_eq!(restarts(&mut *check).level, Level::Warning);
    let kept = check.save().unwrap();
    let mut check = engine.check(table.clone());
    check.restore(&kept);
    with(12);
    let reading = restarts(&mut *check);
    assert_eq!((reading.level, reading.attr_of("window")), (Level::Critical, "10m0s"));
    // A new container of the same name.
    with(1);
    assert_eq!(restarts(&mut *check).level, Level::Ok);
    // What happened before the window no longer counts.
    let mut check = engine.check(table);
    check.restore(&json!({"restarts": {"a": [[1000, 0], [1001, 40], "x"], "b": 7}}));
    with(41);
    assert_eq!(restarts(&mut *check).attr_of("current_value"), "1");
    for strange in [json!(null), json!({"restarts": []}), json!({"restarts": {"a": [[], [1], ["x", "y"]]}})] {
        check.restore(&strange);
        assert_eq!(restarts(&mut *check).level, Level::Ok);
    }
}

#[test]
fn use_is_a_part_of_what_the_container_may_use() {
    let engine = Engine::new();
    let mut limited = state("running", 0, "no");
    limited["HostConfig"] = json!({"NanoCpus": 500_000_000, "Memory": 1000});
    let mut quota = state("running", 0, "no");
    quota["HostConfig"] = json!({"CpuQuota": 200_000, "CpuPeriod": 100_000});
    engine.containers(&[("a", limited), ("b", quota), ("c", state("running", 0, "no"))]);
    let stats = |own: u64, system: u64| {
        json!({"cpu_stats": {"cpu_usage": {"total_usage": own}, "system_cpu_usage": system, "online_cpus": 4},
            "memory_stats": {"usage": 1000, "stats": {"inactive_file": 100}}})
    };
    let all = |own: u64, system: u64| {
        for name in ["a", "b", "c"] {
            engine.json(&format!("/containers/{name}/stats"), &stats(own, system));
        }
    };
    let table = json!({"targets": "*", "restart_detected": false, "cpu_usage": {"warn": 20, "critical": 80},
        "memory_usage": {"warn": 80, "critical": 95}});
    let mut check = engine.check(table);
    assert!(check.needs_two_rounds());
    all(1000, 10_000);
    let (readings, incomplete) = look(&mut *check);
    assert!(incomplete && readings.iter().all(|reading| reading.check != "docker::cpu_usage"));
    // A tenth of four processors.
    all(2000, 20_000);
    let (readings, incomplete) = look(&mut *check);
    let found: Vec<String> = lines(&readings).into_iter().filter(|line| line.contains("_usage")).collect();
    assert_eq!(
        found,
        [
            "docker::cpu_usage a Critical: processor use 80.0% >= critical threshold 80.0%",
            "docker::memory_usage a Warning: memory use 90.0% >= warning threshold 80.0%",
            "docker::cpu_usage b Warning: processor use 20.0% >= warning threshold 20.0%",
            "docker::cpu_usage c Ok: processor use 10.0%",
        ]
    );
    assert!(!incomplete);
    // Started again: it counts from zero.
    all(5, 30_000);
    assert!(look(&mut *check).0.iter().all(|reading| reading.check != "docker::cpu_usage"));
}

#[test]
fn an_engine_that_cannot_be_asked_takes_no_alert_back() {
    let engine = Engine::new();
    let failed = |table: Value, part: &str| {
        let (readings, incomplete) = look(&mut *engine.check(table));
        let reading = readings.last().unwrap();
        assert_eq!((reading.level, reading.measured), (Level::Critical, false));
        assert!(reading.description.contains(part), "{}", reading.description);
        incomplete
    };
    let all = json!({"targets": "*"});
    assert!(failed(all.clone(), "does not list its containers: status 404"));
    for (answer, part) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ngarbage", "not JSON"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n[]", "cut off"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "does not list"),
        ("HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n", "status 500"),
        ("", "does not speak HTTP"),
    ] {
        engine.raw("/v1.47/containers/json", answer);
        assert!(failed(all.clone(), part));
    }
    engine.containers(&[("a", json!({"State": "strange"}))]);
    assert!(!failed(all.clone(), "does not tell of the container"));
    engine.raw("/_ping", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK");
    assert!(failed(all, "status 404"), "it is asked with the oldest version then");
    let mut nobody = Bench::new().build(build, &json!({"targets": "*", "socket": "/no/such/socket"}));
    let (readings, incomplete) = look(&mut *nobody[0]);
    assert!(incomplete && readings[0].description.contains("/no/such/socket: connect: "), "{readings:?}");
}

#[test]
fn an_engine_that_says_nothing_ends_the_round_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let _silent = UnixListener::bind(&socket).unwrap();
    let table = json!({"targets": "*", "socket": socket.to_str().unwrap(), "timeout": "60ms"});
    let (readings, incomplete) = look(&mut *Bench::new().build(build, &table)[0]);
    assert!(incomplete && readings[0].description.contains("time-out"), "{readings:?}");
}

#[test]
fn settings_are_checked() {
    let bench = Bench::new();
    assert_eq!(bench.refused(build, &json!({})), "checks.x.targets");
    assert_eq!(bench.refused(build, &json!({"targets": "a", "socket": "x"})), "checks.x.socket");
    assert_eq!(bench.refused(build, &json!({"targets": "a", "restart_window": 0})), "checks.x.restart_window");
}
