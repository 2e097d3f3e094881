//! The planner over real tools on machines made of files: what it concludes of each class of trouble.

use serde_json::{Value, json};

use crate::diag::fixture::{Fixture, with_context};
use crate::diag::host_tools;
use crate::diag::root::Space;
use crate::llm::local::{Diagnostician, Question};
use crate::llm::{Message, Provider, Request, Role, Sink};
use crate::rt::Cancel;
use crate::tools::ToolSet;

struct Nobody;

impl Sink for Nobody {
    fn text(&mut self, _: &str) {}
    fn thinking(&mut self, _: &str) {}
}

/// The report and the same as JSON.
fn look(fixture: &Fixture, inspect: bool, area: &str, target: &str) -> (String, Value) {
    look_again(fixture, inspect, area, target, |_| {})
}

/// The same for machines that change while they are looked at: `before` every look they are as they were.
fn look_again(
    fixture: &Fixture,
    inspect: bool,
    area: &str,
    target: &str,
    before: impl Fn(&Fixture),
) -> (String, Value) {
    let set = ToolSet::new(host_tools(fixture.root()));
    let (planner, specs) = (Diagnostician::new(Question::new(inspect, area, target, "an alert")), set.specs());
    let mut messages = vec![Message::text(Role::User, "go")];
    loop {
        let request = Request { model: "", messages: &messages, tools: &specs, stream: false };
        let completion = planner.complete(request, &mut Nobody, &Cancel::new()).unwrap();
        if completion.tool_calls.is_empty() {
            return (completion.text, planner.conclude(&messages).to_json());
        }
        let calls = completion.tool_calls;
        messages.push(Message { tool_calls: calls.clone(), ..Message::text(Role::Assistant, "") });
        for call in calls {
            let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
            before(fixture);
            let answer = with_context(|context| set.find(&call.name).unwrap().call(&arguments, context));
            let content = answer.unwrap_or_else(|error| format!("error: {}", error.message));
            messages.push(Message { tool_call_id: Some(call.id), ..Message::text(Role::Tool, content) });
        }
    }
}

fn first_cause(report: &Value) -> &str {
    report["causes"][0]["title"].as_str().unwrap_or("nothing")
}

#[test]
fn a_healthy_machine_has_no_causes() {
    let (text, report) = look(&Fixture::healthy_pi(), true, "system", "");
    assert!(text.starts_with("This machine is fine"), "{text}");
    assert_eq!((&report["causes"], &report["level"]), (&json!([]), &json!("ok")), "{text}");
    let (text, _) = look(&Fixture::healthy_pi(), false, "disk", "/");
    assert!(text.starts_with("What the alert tells cannot be seen any more"), "{text}");
}

#[test]
fn a_full_disk_is_explained_by_its_logs() {
    let fixture = Fixture::healthy_pi();
    let blocks = 1000;
    fixture.space(
        "/",
        Space { block_bytes: 4096, blocks, blocks_free: 10, blocks_available: 10, inodes: 100, inodes_free: 50 },
    );
    fixture.write("var/log/syslog", &"app: No space left on device\n".repeat(40_000));
    let (text, report) = look(&fixture, false, "disk", "/");
    let titles: Vec<&str> =
        report["causes"].as_array().unwrap().iter().filter_map(|cause| cause["title"].as_str()).collect();
    assert!(titles.contains(&"`/` is full: 99 % used"), "{text}");
    assert!(titles.iter().any(|title| title.starts_with("Logs hold 1.1 MiB on `/`")), "{text}");
    assert!(text.contains("programs fail for it"), "{text}");
}

#[test]
fn short_memory_is_explained_by_the_largest_program() {
    let fixture = Fixture::healthy_pi();
    fixture
        .write("proc/meminfo", "MemTotal: 4000000 kB\nMemAvailable: 100000 kB\nSwapTotal: 100000 kB\nSwapFree: 0 kB\n");
    fixture.write("proc/pressure/memory", "some avg10=50.00 avg60=45.00 avg300=9.00 total=1\n");
    fixture.write("proc/9/stat", "9 (java) S 1 1 1 0 -1 0 0 0 0 0 1 1 0 0 20 0 2 0 5 0 200000 0\n");
    fixture.program("journalctl", 0, "kernel: Out of memory: Killed process 7 (java) total-vm:9kB\n");
    let (text, report) = look(&fixture, false, "mem", "memory");
    assert_eq!(first_cause(&report), "`java` holds 3.1 GiB, 80 % of the memory", "{text}");
    assert!(text.contains("The kernel killed `java` for lack of memory"), "{text}");
}

const IDLE: &str = "cpu  1000 0 500 98000 300 0 100 100 0 0\ncpu0 500 0 250 49000 150 0 50 50 0 0\ncpu1 500 0 250 49000 150 0 50 50 0 0\n";

#[test]
fn a_busy_processor_is_explained_by_the_program_that_takes_it() {
    let fixture = Fixture::healthy_pi();
    fixture.write("proc/loadavg", "5.0 6.0 5.0 1/180 4242\n");
    fixture.later("proc/stat", "cpu  1048 0 502 98000 300 0 100 100 0 0\ncpu0 524 0 251 49000 150 0 50 50 0 0\ncpu1 524 0 251 49000 150 0 50 50 0 0\n");
    fixture.later("proc/9/stat", "9 (ffmpeg) R 1 1 1 0 -1 0 0 0 0 0 145 0 0 0 20 0 2 0 5 0 9 0\n");
    let (text, report) = look_again(&fixture, false, "cpu", "cpu", |fixture| {
        fixture.write("proc/stat", IDLE);
        fixture.write("proc/9/stat", "9 (ffmpeg) R 1 1 1 0 -1 0 0 0 0 0 100 0 0 0 20 0 2 0 5 0 9 0\n");
    });
    assert!(first_cause(&report).starts_with("`ffmpeg` keeps the processors busy"), "{text}");
}

#[test]
fn a_load_that_waits_is_explained_by_the_disk() {
    let fixture = Fixture::healthy_pi();
    fixture.write("proc/loadavg", "5.0 6.0 5.0 1/180 4242\n");
    fixture.write("sys/block/mmcblk0/queue/rotational", "0\n");
    fixture.later("proc/stat", "cpu  1002 0 501 98007 340 0 100 100 0 0\ncpu0 501 0 250 49003 170 0 50 50 0 0\ncpu1 501 0 251 49004 170 0 50 50 0 0\n");
    fixture.later("proc/diskstats", "179 0 mmcblk0 12 0 96 1100 12 0 96 1100 0 1000 2200\n");
    let (text, report) = look_again(&fixture, false, "cpu", "cpu", |fixture| {
        fixture.write("proc/stat", IDLE);
        fixture.write("proc/diskstats", "179 0 mmcblk0 10 0 80 100 10 0 80 100 0 500 200\n");
    });
    assert_eq!(first_cause(&report), "`mmcblk0` is slow: 500 ms per request", "{text}");
}

#[test]
fn a_failed_service_and_a_dying_card_are_found_in_a_check_up() {
    let fixture = Fixture::healthy_pi();
    fixture.write("run/systemd/system/x", "");
    let unit = "Id=nginx.service\nLoadState=loaded\nActiveState=failed\nResult=exit-code\n";
    fixture.program("systemctl", 0, &format!("nginx.service loaded failed failed web server\n{unit}"));
    fixture.program("journalctl", 0, "kernel: mmcblk0: I/O error, dev mmcblk0, sector 7\n");
    let (text, report) = look(&fixture, true, "system", "");
    assert_eq!(first_cause(&report), "A disk or its cable reports errors", "{text}");
    assert!(text.contains("`nginx.service` has failed"), "{text}");
    assert!(text.contains("[CRIT]") || text.contains("[WARN]"), "{text}");
}
