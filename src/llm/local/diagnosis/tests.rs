//! Causes from readings: each class of problem, a healthy machine, and evidence that contradicts itself.

use serde_json::{Value, json};

use super::*;
use crate::llm::ToolSpec;

struct Nobody;

impl Sink for Nobody {
    fn text(&mut self, _: &str) {}
    fn thinking(&mut self, _: &str) {}
}

/// A tool, the arguments it must have been asked with (null: whatever), and what it answers.
type Answer = (&'static str, Value, Value);

/// Asks the planner, answers its calls from a table, and gives the diagnosis and the calls that were made.
fn diagnose(question: &Question, answers: &[Answer]) -> (Value, String, Vec<String>) {
    let planner = Diagnostician::new(question.clone());
    let mut names: Vec<&str> = answers.iter().map(|(tool, ..)| *tool).collect();
    names.dedup();
    let spec = |name: &&str| ToolSpec { name: (*name).to_owned(), description: String::new(), parameters: Value::Null };
    let tools: Vec<ToolSpec> = names.iter().map(spec).collect();
    let mut messages = vec![Message::text(Role::User, "go")];
    let mut made = Vec::new();
    loop {
        let request = Request { model: "", messages: &messages, tools: &tools, stream: false };
        let completion = planner.complete(request, &mut Nobody, &Cancel::new()).unwrap();
        if completion.tool_calls.is_empty() {
            return (planner.conclude(&messages).to_json(), completion.text, made);
        }
        messages.push(Message { tool_calls: completion.tool_calls.clone(), ..Message::text(Role::Assistant, "") });
        for call in completion.tool_calls {
            let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
            let fits = |(tool, wanted, _): &&Answer| {
                *tool == call.name
                    && wanted
                        .as_object()
                        .is_none_or(|map| map.iter().all(|(name, value)| arguments.get(name) == Some(value)))
            };
            let content = match answers.iter().find(fits) {
                Some((_, _, Value::String(error))) => format!("error: {error}"),
                Some((_, _, value)) => value.to_string(),
                None => json!({"findings": []}).to_string(),
            };
            made.push(format!("{} {}", call.name, call.arguments));
            messages.push(Message { tool_call_id: Some(call.id), ..Message::text(Role::Tool, content) });
        }
    }
}

fn inspect(area: &str) -> Question {
    Question::new(true, area, "", "")
}

fn alert(area: &str, target: &str) -> Question {
    Question::new(false, area, target, "an alert")
}

fn finding(level: &str, what: &str, value: f64) -> Value {
    json!({"level": level, "what": what, "value": value, "unit": "%", "threshold": "limit: warning from 1 %"})
}

fn titles(report: &Value) -> Vec<&str> {
    report["causes"].as_array().unwrap().iter().map(|cause| cause["title"].as_str().unwrap()).collect()
}

fn any() -> Value {
    Value::Null
}

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

fn full_disk() -> Value {
    json!({"file_systems": [{"mount": "/", "used_percent": 97.5, "total_bytes": 100.0 * GIB, "available_bytes": 2.5 * GIB},
                            {"mount": "/data", "used_percent": 40, "total_bytes": GIB, "available_bytes": GIB / 2.0}],
           "findings": [finding("critical", "space on /", 97.5), finding("ok", "space on /data", 40.0)]})
}

#[test]
fn a_full_disk_names_what_holds_the_room() {
    let space = json!({
        "deleted_open": [{"process": "mariadbd", "pid": 7, "bytes": 40.0 * GIB, "mount": "/", "file": "/tmp/#sql"}],
        "log_mount": "/", "log_bytes": 8.0 * GIB, "log_largest": [{"file": "syslog.1", "bytes": 7.0 * GIB}], "findings": []});
    let log = json!({"lines": ["app: write failed: No space left on device"], "findings": []});
    let answers = [("host_disk", any(), full_disk()), ("host_space", any(), space), ("host_logs", any(), log)];
    let (report, text, _) = diagnose(&alert("disk", "/"), &answers);
    assert_eq!(
        titles(&report),
        [
            "Deleted files that are still open hold 40.0 GiB on `/`",
            "`/` is full: 97.5 % used",
            "Logs hold 8.0 GiB on `/`"
        ]
    );
    assert_eq!(report["level"], "critical");
    let urgent = report["actions"]["urgent"].to_string();
    assert!(urgent.starts_with("[\"Restart `mariadbd`: the space comes back at once.\""), "{urgent}");
    assert!(urgent.contains("journalctl --vacuum-size"));
    for part in [
        "40 % of `/`; removing more files does not help",
        "1× in the log: `app: write failed: No space left on device`",
        "- [CRIT] space on / 97.5 % (`limit`: warning from 1 %)",
        "- [OK] space on /data 40 %",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Without anything to explain it, that is said.
    let (report, text, _) =
        diagnose(&alert("disk", "/"), &[("host_disk", any(), full_disk()), ("host_space", any(), json!({}))]);
    assert_eq!(titles(&report), ["`/` is full: 97.5 % used"]);
    assert!(text.contains("neither deleted open files nor /var/log explain it"));
}

#[test]
fn inodes_and_damaged_disks_are_told_apart_from_full_ones() {
    let disk = json!({"file_systems": [{"mount": "/srv", "used_percent": 30, "inodes_used_percent": 99}],
        "findings": [finding("ok", "space on /srv", 30.0), finding("critical", "inodes on /srv", 99.0)]});
    let (report, ..) = diagnose(&inspect("disk"), &[("host_disk", any(), disk)]);
    assert_eq!(titles(&report), ["`/srv` has no room for more files: 99 % of its inodes are used"]);
    let disk = json!({"file_systems": [{"mount": "/sd", "used_percent": 30, "read_only": true}],
        "findings": [finding("critical", "/sd turned read-only after an error", 1.0), finding("critical", "/nas does not answer", 2000.0)]});
    let kernel = json!({"lines": ["mmcblk0: I/O error, dev mmcblk0, sector 9"], "oom_kills": [], "findings": []});
    let (report, ..) = diagnose(&inspect("disk"), &[("host_disk", any(), disk), ("host_kernel", any(), kernel)]);
    assert_eq!(
        titles(&report),
        ["`/sd` turned read-only after an error of its disk", "`/nas` hangs: whoever touches it waits for ever"]
    );
    assert!(report["actions"]["urgent"][0].as_str().unwrap().starts_with("Save the data"));
}

fn memory(used: f64, level: &str, pressure: f64, kills: u64) -> Value {
    json!({"used_percent": used, "available_bytes": GIB, "swap_used_percent": 5, "pressure_some_avg60_percent": pressure,
           "oom_kills_since_boot": kills, "findings": [finding(level, "memory use", used)]})
}

fn top_memory() -> Value {
    json!({"by": "memory", "processes": [{"name": "java", "memory_bytes": 6.0 * GIB, "memory_percent": 75},
                                         {"name": "sshd", "memory_bytes": 1e6, "memory_percent": 0.1}], "findings": []})
}

#[test]
fn short_memory_names_the_program_and_the_kills() {
    let kernel = json!({"lines": [], "oom_kills": [{"process": "java", "line": "Out of memory: Killed process 7 (java)"},
                                                   {"process": "java", "line": "Out of memory: Killed process 9 (java)"}], "findings": []});
    let answers = [
        ("host_memory", any(), memory(96.0, "critical", 30.0, 2)),
        ("host_kernel", any(), kernel),
        ("host_processes", any(), top_memory()),
    ];
    let (report, text, _) = diagnose(&alert("mem", "memory"), &answers);
    assert_eq!(
        titles(&report),
        ["`java` holds 6.0 GiB, 75 % of the memory", "The kernel killed `java` for lack of memory"]
    );
    assert_eq!(report["causes"][0]["strength"], "strong");
    assert!(
        text.starts_with("`java` holds 6.0 GiB, 75 % of the memory (strong evidence); 1 more thing speaks up."),
        "{text}"
    );
    assert!(text.contains("`java` was hit 2 times") && text.contains("memory is still short: 96 % used"));
}

#[test]
fn contradictions_weaken_a_cause_and_are_told() {
    let strength = |pressure: f64| {
        let answers = [
            ("host_memory", any(), memory(88.0, "warning", pressure, 0)),
            ("host_processes", any(), json!({"by": "memory", "processes": []})),
        ];
        let (report, text, _) = diagnose(&alert("mem", "memory"), &answers);
        (report["causes"][0]["score"].as_i64().unwrap(), text)
    };
    let (waits, _) = strength(20.0);
    let (calm, text) = strength(0.0);
    assert!(calm + 30 <= waits, "{calm} {waits}");
    assert!(text.contains("- but: no program waits for memory: 0 % of the last minute"), "{text}");
    // A kill in the log, and memory that has room now.
    let kernel = json!({"lines": [], "oom_kills": [{"process": "java", "line": "Killed process 7 (java)"}]});
    let answers = [("host_memory", any(), memory(30.0, "ok", 0.0, 1)), ("host_kernel", any(), kernel)];
    let (report, ..) = diagnose(&alert("mem", "memory"), &answers);
    assert_eq!(titles(&report), ["The kernel killed `java` for lack of memory"]);
    assert_eq!(report["causes"][0]["against"][0], "memory has room now: 30 % used");
    // Load without work: the disks make it.
    let cpu = json!({"used_percent": 5, "cores": 4, "load_per_core": 3, "iowait_percent": 60,
        "findings": [finding("ok", "CPU use", 5.0), finding("warning", "load per core over five minutes", 3.0),
                     finding("critical", "CPU time waiting for disks", 60.0)]});
    let io = json!({"devices": [{"device": "sda", "util_percent": 99, "await_ms": 300, "write_bytes_per_second": 1e6}],
        "findings": [finding("critical", "time per request of sda", 300.0)]});
    let (report, ..) = diagnose(&alert("cpu", "cpu"), &[("host_cpu", any(), cpu), ("host_disk_io", any(), io)]);
    assert_eq!(titles(&report)[0], "`sda` is slow: 300 ms per request");
    assert!(report["causes"][1]["score"].as_i64() < report["causes"][0]["score"].as_i64());
}

fn busy(load_per_core: f64) -> Value {
    json!({"used_percent": 96, "cores": 4, "load_per_core": load_per_core, "iowait_percent": 0,
           "findings": [finding("critical", "CPU use", 96.0)]})
}

#[test]
fn a_busy_processor_names_the_program_and_the_heat() {
    let processes = json!({"by": "cpu", "processes": [{"name": "ffmpeg", "cpu_percent": 370}], "findings": []});
    let hot = json!({"hottest_celsius": 84, "cpu_mhz": 600, "cpu_mhz_max": 1500,
        "findings": [{"level": "critical", "what": "temperature of cpu-thermal", "value": 84, "unit": "°C", "threshold": "t: x"}]});
    let answers = [
        ("host_cpu", any(), busy(1.5)),
        ("host_processes", any(), processes.clone()),
        ("host_temperature", any(), hot),
    ];
    let (report, text, _) = diagnose(&alert("cpu", "cpu"), &answers);
    assert_eq!(
        titles(&report),
        ["`cpu-thermal` is hot: 84 °C", "`ffmpeg` keeps the processors busy: 370 % of one core"]
    );
    assert!(text.contains("the clock is down to 600 of 1500 MHz under load"));
    // A burst is not a lasting load.
    let (report, ..) =
        diagnose(&alert("cpu", "cpu"), &[("host_cpu", any(), busy(0.2)), ("host_processes", any(), processes)]);
    assert_eq!(report["causes"][0]["against"][0], "the load of five minutes is 0.20 per core: this began a moment ago");
    let stolen = json!({"used_percent": 50, "cores": 2, "steal_percent": 40,
                        "findings": [finding("critical", "CPU time taken by the hypervisor", 40.0)]});
    let (report, ..) = diagnose(&inspect("cpu"), &[("host_cpu", any(), stolen)]);
    assert_eq!(titles(&report), ["The hypervisor gives this machine too little time"]);
}

#[test]
fn a_failed_service_is_looked_at_closely() {
    let answers = [
        (
            "host_services",
            json!({"unit": "nginx.service"}),
            json!({"available": true, "unit": "nginx.service", "known": true, "active": "failed", "result": "exit-code",
                   "restarts": 5, "findings": []}),
        ),
        (
            "host_services",
            any(),
            json!({"available": true, "failed_count": 1, "failed": [{"unit": "nginx.service"}],
                   "findings": [finding("warning", "failed systemd units", 1.0)]}),
        ),
        (
            "host_logs",
            json!({"unit": "nginx.service"}),
            json!({"lines": ["starting", "bind() to 0.0.0.0:80 failed (98: Address already in use)", "exiting"]}),
        ),
        ("host_logs", any(), json!({"lines": []})),
    ];
    let (report, text, made) = diagnose(&inspect("system"), &answers);
    assert_eq!(titles(&report), ["`nginx.service` has failed: its port is taken"]);
    assert!(made.contains(&r#"host_services {"unit":"nginx.service"}"#.to_owned()), "{made:?}");
    assert!(text.contains("it ended with `exit-code`") && text.contains("has restarted it 5 times"));
    assert!(text.contains("Find out who listens there"));
    let unknown = json!({"available": true, "unit": "gone.service", "known": false});
    let (report, ..) = diagnose(&alert("systemd", "gone"), &[("host_services", any(), unknown)]);
    assert_eq!(titles(&report), ["There is no unit `gone.service` on this machine"]);
}

#[test]
fn containers_are_explained_by_their_details() {
    let list = json!({"available": true, "containers": [
        {"name": "db", "state": "exited", "status": "Exited (137) 2 minutes ago"},
        {"name": "job", "state": "exited", "status": "Exited (0) 2 days ago"},
        {"name": "web", "state": "running", "status": "Up 2 days"},
        {"name": "app", "state": "running", "status": "Up 2 days (unhealthy)", "health": "unhealthy"}]});
    let db = json!({"name": "db", "state": "exited", "exit_code": 137, "oom_killed": true, "restart_count": 4});
    let app = json!({"name": "app", "state": "running", "health_output": "curl: (7) refused"});
    let answers = [
        ("host_docker", json!({"container": "db"}), db),
        ("host_docker", json!({"container": "app"}), app),
        ("host_docker", any(), list),
    ];
    let (report, text, made) = diagnose(&inspect("docker"), &answers);
    assert_eq!(
        titles(&report),
        ["Container `db` is exited: it was killed for lack of memory", "Container `app` is unhealthy"]
    );
    assert!(text.contains("its health check says: `curl: (7) refused`"));
    assert_eq!(made.iter().filter(|call| call.starts_with("host_docker")).count(), 3);
    let (report, ..) = diagnose(&alert("docker", "mail"), &answers);
    assert!(titles(&report).contains(&"There is no container `mail`"));
}

#[test]
fn the_way_to_a_host_is_walked_step_by_step() {
    let network =
        json!({"default_route": {"interface": "eth0", "gateway": "192.168.1.1"}, "interfaces": [], "findings": []});
    let no = json!({"sent": 3, "received": 0, "loss_percent": 100});
    let yes = json!({"sent": 3, "received": 3, "loss_percent": 0, "rtt_avg_ms": 2});
    let question = alert("http", "https://shop.example:8443/health");
    assert_eq!(question.target_host(), Some("shop.example"));
    let check = |host: &Value, gateway: &Value, dns: Value, http: Value, expected: &str| {
        let answers = [
            ("host_network", any(), network.clone()),
            ("host_dns", any(), dns),
            ("host_ping", json!({"host": "192.168.1.1"}), gateway.clone()),
            ("host_ping", any(), host.clone()),
            ("host_http", any(), http),
        ];
        let (report, ..) = diagnose(&question, &answers);
        assert_eq!(titles(&report).first().copied(), Some(expected), "{report}");
    };
    let (found, refused) = (json!({"addresses": ["10.0.0.1"]}), json!("connection refused"));
    check(&no, &yes, json!("no such name"), refused.clone(), "The name `shop.example` cannot be resolved");
    check(&no, &no, found.clone(), refused.clone(), "The gateway `192.168.1.1` does not answer");
    check(&no, &yes, found.clone(), refused.clone(), "`shop.example` does not answer");
    check(&yes, &yes, found.clone(), refused, "`shop.example` is up, but its web server does not answer");
    let status = json!({"status": 502, "took_ms": 12});
    check(
        &yes,
        &yes,
        found.clone(),
        status,
        "`shop.example` answers with status 502: the service behind its proxy does not answer",
    );
    // Hosts that answer no ping but serve pages are fine.
    let answers = [
        ("host_network", any(), network.clone()),
        ("host_dns", any(), found),
        ("host_ping", any(), no),
        ("host_http", any(), json!({"status": 200, "took_ms": 90})),
    ];
    let (report, text, _) = diagnose(&question, &answers);
    assert!(titles(&report).is_empty(), "{report}");
    assert!(text.starts_with("What the alert tells cannot be seen any more"), "{text}");
    let cut_off = json!({"interfaces": [{"name": "eth0", "state": "down"}], "findings": [finding("warning", "default routes", 0.0)]});
    let (report, ..) = diagnose(&inspect("netif"), &[("host_network", any(), cut_off)]);
    assert_eq!(titles(&report), ["This machine has no way out of its own network"]);
}

#[test]
fn a_restart_is_a_crash_only_with_a_sign_of_one() {
    let uptime = json!({"uptime_seconds": 120, "boot_time": "2026-01-02T03:04:05Z",
        "findings": [{"level": "warning", "what": "time since the last boot", "value": 120, "unit": "s", "threshold": "uptime_seconds: x"}]});
    let check = |line: &str| {
        let kernel = json!({"lines": [line], "oom_kills": []});
        let (report, ..) = diagnose(
            &alert("uptime", "system"),
            &[("host_uptime", any(), uptime.clone()), ("host_kernel", any(), kernel)],
        );
        (titles(&report)[0].to_owned(), report["causes"][0]["score"].as_i64().unwrap())
    };
    let (title, plain) = check("nothing");
    assert_eq!(title, "The machine booted 2 minutes ago");
    assert!(check("Kernel panic - not syncing").1 > plain);
    assert!(check("systemd-shutdown: rebooting").1 < plain);
}

#[test]
fn a_healthy_machine_is_fine_and_what_was_not_seen_is_said() {
    let answers = [
        ("host_cpu", any(), json!({"used_percent": 4, "findings": [finding("ok", "CPU use", 4.0)]})),
        ("host_memory", any(), memory(30.0, "ok", 0.0, 0)),
        ("host_docker", any(), json!("Docker is not here")),
        (
            "host_checks",
            any(),
            json!({"readings": [{"check": "cpu::cpu_usage", "target": "cpu", "level": "Ok", "description": "cpu usage 4.0%"}]}),
        ),
    ];
    let (report, text, _) = diagnose(&inspect("system"), &answers);
    assert!(titles(&report).is_empty());
    assert_eq!(report["level"], "ok");
    assert!(
        text.starts_with("This machine is fine, as far as could be seen: CPU 4 % used, memory 30 % used.\n"),
        "{text}"
    );
    assert!(text.contains("- [OK] CPU use 4 %") && !text.contains("check `cpu::cpu_usage`"), "{text}");
    assert!(text.contains("- `host_docker`: Docker is not here"));
    // Readings of checks that no rule explains are causes of their own.
    let reading = json!({"readings": [{"check": "cert::remote_expiry", "target": "a:443", "level": "Critical", "description": "expired"}]});
    let (report, text, _) = diagnose(&alert("cert", "a:443"), &[("host_checks", any(), reading)]);
    assert_eq!(titles(&report), ["`a:443`: expired"]);
    assert_eq!(report["items"], json!([]));
    assert!(text.contains("the check `cert::remote_expiry` has just measured it"), "{text}");
    let nothing = [("host_cpu", any(), json!("no /proc"))];
    assert!(diagnose(&inspect("cpu"), &nothing).1.starts_with("Nothing could be looked at"));
}

#[test]
fn what_a_look_and_a_check_both_say_is_said_once() {
    let disk = || json!({"file_systems": [{"mount": "/", "used_percent": 40}], "findings": [finding("ok", "space on /", 40.0)]});
    let reading = |check: &str, level: &str, said: &str| json!({"check": check, "target": "/", "level": level, "description": said});
    let readings = json!({"readings": [
        reading("disk::space_usage", "Ok", "disk usage 40.0%"), reading("disk::hung", "Ok", "answers"),
        reading("disk::writable", "Ok", "mounted for writing"), reading("disk::inode_usage", "Ok", "inode usage 2.0%")]});
    let (found, ..) = diagnose(&inspect("disk"), &[("host_disk", any(), disk()), ("host_checks", any(), readings)]);
    assert_eq!(found["items"], json!([{"level": "ok", "text": "space on / 40 %"}]));
    // The worse one counts.
    let worse = json!({"readings": [reading("disk::space_usage", "Warning", "disk usage 40.0% >= 39.0%")]});
    let (found, text, _) = diagnose(&inspect("disk"), &[("host_disk", any(), disk()), ("host_checks", any(), worse)]);
    assert_eq!(titles(&found), ["`/`: disk usage 40.0% >= 39.0%"]);
    assert!(!text.contains("[OK] space on /"), "{text}");
}

#[test]
fn targets_name_their_hosts() {
    let check = |target: &str, expected: Option<&str>| {
        assert_eq!(alert("net", target).target_host(), expected, "{target}");
    };
    check("localhost", None);
    check("db.lan:5432", Some("db.lan"));
    check("10.0.0.7", Some("10.0.0.7"));
    check("[fd00::1]:443", Some("fd00::1"));
    check("fd00::1", Some("fd00::1"));
    check("mail.lan:465@mail.example.net", Some("mail.lan"));
    check("https://me:pw@example.net/x", Some("example.net"));
}

#[test]
fn odd_answers_do_no_harm() {
    let odd = [
        json!(null),
        json!([]),
        json!({}),
        json!({"findings": 7, "containers": {}, "file_systems": [null, 7], "lines": [1],
        "processes": [{}], "failed": [{}], "interfaces": [{}], "devices": [{}], "oom_kills": [{}], "readings": [{}]}),
    ];
    for answer in odd {
        for area in AREAS {
            let tools = [
                "host_cpu",
                "host_memory",
                "host_disk",
                "host_disk_io",
                "host_space",
                "host_kernel",
                "host_docker",
                "host_services",
                "host_processes",
                "host_network",
                "host_ping",
                "host_dns",
                "host_http",
                "host_checks",
                "host_logs",
                "host_pressure",
                "host_temperature",
                "host_uptime",
            ];
            let answers: Vec<Answer> = tools.iter().map(|tool| (*tool, any(), answer.clone())).collect();
            let (report, text, made) = diagnose(&alert(area, "x.example"), &answers);
            assert!(!text.is_empty() && report["summary"].is_string() && !made.is_empty());
        }
    }
}
