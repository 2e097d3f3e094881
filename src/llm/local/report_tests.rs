//! The report: its verdict, what needs attention, its sections.

use crate::llm::local::report::{Looked, report};
use crate::llm::local::sections::MACHINES;
use crate::llm::local::wish::{By, Look, Topic};
use serde_json::{Value, json};

fn looked(tool: &str, value: &Value) -> Looked {
    Looked::new(tool, Some(&value.to_string()))
}

fn cpu(used: f64, level: &str) -> Looked {
    looked(
        "host_cpu",
        &json!({"cores": 4, "used_percent": used, "load": [0.5, 0.25, 0.1],
                "findings": [{"level": level, "what": "CPU use", "value": used, "unit": "%",
                              "threshold": "cpu_used_percent: warning from 80 %, critical from 95 %"}]}),
    )
}

fn first_line(look: &Look, looked: &[Looked]) -> String {
    report(Some(look), looked).lines().next().unwrap().to_owned()
}

#[test]
fn the_first_line_is_the_verdict() {
    let check = |topic: Topic, looked: &[Looked], expected: &str| {
        assert_eq!(first_line(&Look::at(&[topic]), looked), expected);
    };
    check(Topic::Cpu, &[cpu(12.0, "ok")], "The CPU is fine: CPU 12 % used.");
    check(Topic::Cpu, &[cpu(97.5, "critical")], "1 thing needs attention: CPU use 97.5 %.");
    let disk = |used: f64, findings: Value| {
        looked("host_disk", &json!({"file_systems": [{"mount": "/", "used_percent": used}], "findings": findings}))
    };
    check(Topic::Disk, &[disk(40.0, json!([]))], "The disk is not full: the fullest is `/` with 40 % used.");
    let full = json!([{"level": "warning", "what": "space on /", "value": 91, "unit": "%", "threshold": "t: x"}]);
    check(Topic::Disk, &[disk(91.0, full.clone())], "1 thing needs attention: space on / 91 %.");
    let both = [disk(91.0, full), cpu(97.0, "critical")];
    check(Topic::Overview, &both, "2 things need attention: CPU use 97 %, space on / 91 %.");
    check(Topic::Overview, &[cpu(1.0, "ok")], "This machine is fine: CPU 1 % used.");
    let error = Looked::new("host_disk", Some("error: cannot read the table of mounts"));
    check(Topic::Disk, std::slice::from_ref(&error), "I could not look: `host_disk` failed.");
    let expected = "What I could see is fine, but 1 of 2 looks failed: CPU 1 % used.";
    check(Topic::Overview, &[cpu(1.0, "ok"), error], expected);
    let up =
        looked("host_uptime", &json!({"uptime_seconds": 273_600, "boot_time": "2026-01-02T03:04:05Z", "findings": []}));
    check(Topic::Uptime, &[up], "This machine has been up for 3 days 4 hours, since 2026-01-02 03:04 UTC.");
    let network = json!({"interfaces": [{"name": "docker0", "addresses": ["172.17.0.1"]}, {"name": "eth0", "addresses": ["192.168.2.17"]}],
                         "default_route": {"interface": "eth0", "gateway": "192.168.2.1"}});
    check(
        Topic::Address,
        &[looked("host_network", &network)],
        "The address of this machine is 192.168.2.17 (on `eth0`).",
    );
    let top = json!({"processes": [{"name": "ff`mpeg", "pid": 7, "cpu_percent": 99.5, "memory_bytes": 1024}]});
    check(
        Topic::Processes(By::Cpu),
        &[looked("host_processes", &top)],
        "`ff'mpeg` uses most of the CPU, 99.5 % of one core.",
    );
    check(
        Topic::Processes(By::Memory),
        &[looked("host_processes", &top)],
        "`ff'mpeg` uses most of the memory, 1.0 KiB.",
    );
    check(
        Topic::Logs,
        &[looked("host_logs", &json!({"count": 0, "source": "journal", "lines": []}))],
        "The log (journal) has no matching line.",
    );
}

#[test]
fn a_service_is_answered_with_yes_or_no() {
    let check = |services: Value, matching: u64, expected: &str| {
        let look = Look { unit: Some("nginx".to_owned()), ..Look::at(&[Topic::Service]) };
        let all = [looked("host_services", &services), looked("host_processes", &json!({"matching": matching}))];
        assert_eq!(first_line(&look, &all), expected);
    };
    check(json!({"known": true, "active": "active"}), 3, "Yes, `nginx` is running.");
    let finding = json!([{"level": "warning", "what": "nginx is not active", "value": 1, "threshold": "unit_inactive: warning from 1"}]);
    check(
        json!({"known": true, "active": "failed", "findings": finding}),
        0,
        "No, `nginx` is not running: systemd says failed.",
    );
    check(
        json!({"available": true, "known": false}),
        0,
        "No, no process called `nginx` is running; systemd knows no unit of that name.",
    );
    check(
        json!({"available": false}),
        1,
        "Yes, `nginx` is running: 1 process of that name; systemd cannot be asked here.",
    );
}

#[test]
fn findings_name_their_threshold_and_errors_are_told() {
    let text = report(
        None,
        &[cpu(97.0, "critical"), Looked::new("host_logs", Some("no\njournal")), Looked::new("host_disk", None)],
    );
    let line = "- **critical**: CPU use 97 % — `cpu_used_percent`: warning from 80 %, critical from 95 %\n";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("- `host_logs`: no journal\n"), "{text}");
    assert!(text.contains("- `host_disk`: no answer arrived\n"), "{text}");
    assert!(text.contains("- load over 1, 5 and 15 minutes: 0.50, 0.25, 0.10 on 4 cores\n"), "{text}");
}

#[test]
fn each_fact_is_told_once() {
    let text = report(Some(&Look::at(&[Topic::Overview])), &[cpu(12.0, "ok")]);
    assert!(text.contains("- now: used 12 %\n") && !text.contains("- ok:"), "{text}");
    // What has no better words keeps those of its findings.
    let fine = json!({"level": "ok", "what": "time lost", "value": 0, "unit": "%", "threshold": "t: x"});
    let text = report(None, &[looked("host_pressure", &json!({"findings": [fine]}))]);
    assert!(text.contains("- ok: time lost 0 %"), "{text}");
}

#[test]
fn joined_machines_are_told_of_after_this_one() {
    let joined = |online: u64, rows: &Value, findings: Value| {
        let total = rows.as_array().unwrap().len();
        looked(MACHINES, &json!({"online": online, "total": total, "machines": rows, "findings": findings}))
    };
    let look = Look::at(&[Topic::Overview, Topic::Machines]);
    let check = |machines: Looked, expected: &str| {
        assert_eq!(first_line(&look, &[cpu(1.0, "ok"), machines]), expected);
    };
    let none = json!([]);
    let one = json!([{"name": "nas", "state": "online"}]);
    let two = json!([{"name": "nas", "state": "online"}, {"name": "pi", "state": "stopped"}]);
    check(joined(0, &none, json!([])), "This machine is fine: CPU 1 % used.");
    check(joined(1, &one, json!([])), "This machine and `nas` are fine: CPU 1 % used.");
    let expected = "This machine is fine, and 1 of 2 joined machines are online: CPU 1 % used.";
    check(joined(1, &two, json!([])), expected);
    let away = json!({"level": "critical", "what": "nas has not been heard of for", "value": 7200, "unit": "s"});
    let text = report(Some(&look), &[cpu(85.0, "warning"), joined(1, &two, json!([away]))]);
    let first = "2 things need attention: CPU use 85 %, nas has not been heard of for 2 hours.\n";
    assert!(text.starts_with(first), "{text}");
    assert!(text.contains("- **critical**: nas has not been heard of for 2 hours\n"), "{text}");
    assert!(text.contains("### Joined machines\n\n- online: `nas`\n- stopped: `pi`\n"), "{text}");
    let asked = Look::at(&[Topic::Machines]);
    assert_eq!(first_line(&asked, &[joined(0, &none, json!([]))]), "No machine has joined this hub.");
    assert_eq!(first_line(&asked, &[joined(1, &two, json!([]))]), "1 of 2 joined machines are online.");
    assert_eq!(first_line(&asked, &[joined(1, &one, json!([]))]), "`nas` is online.");
}

#[test]
fn odd_answers_are_survived() {
    for content in [
        "",
        "{",
        "{\"cores\":",
        "[]",
        "null",
        "12",
        "{}",
        "{\"error\":\"x\"}",
        "{\"findings\":[1,{},null],\"lines\":{}}",
    ] {
        for tool in [
            "host_cpu",
            "host_memory",
            "host_disk",
            "host_network",
            "host_processes",
            "host_services",
            "host_uptime",
            "host_logs",
            "host_temperature",
            "other_tool",
        ] {
            for topic in [Topic::Overview, Topic::Disk, Topic::Service, Topic::Address, Topic::Uptime, Topic::Logs] {
                assert!(report(Some(&Look::at(&[topic])), &[Looked::new(tool, Some(content))]).len() > 10);
            }
        }
    }
    let log = report(None, &[looked("host_logs", &json!({"lines": ["a ``` b"]}))]);
    assert!(log.contains("a ''' b"), "{log}");
}
