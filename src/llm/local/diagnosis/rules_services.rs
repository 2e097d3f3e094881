//! Services, containers, restarts of the machine, alarming logs, and what its own checks measure.

use serde_json::Value;

use crate::llm::local::diagnosis::cause::{Cause, Level, When};
use crate::llm::local::diagnosis::facts::Facts;
use crate::llm::local::diagnosis::looks::is_troubled;
use crate::llm::local::diagnosis::rules_disk::{IO_ERRORS, quote};
use crate::llm::local::numbers::{code, duration, list, number, plain, text};

/// What services say before they give up: words of a log line in lower case, what it means, what helps.
const LAST_WORDS: &[(&str, &str, &str)] = &[
    (
        "address already in use",
        "its port is taken",
        "Find out who listens there (`ss -ltnp`), and stop one of the two.",
    ),
    ("permission denied", "it may not read or write something", "Check owner and mode of the file that the log names."),
    ("no space left on device", "a disk is full", "Free space first; then start it again."),
    ("read-only file system", "a file system cannot be written", "See the disk first; then start it again."),
    ("out of memory", "memory ran out", "Give it a larger MemoryMax, or the machine more memory."),
    ("oom-kill", "memory ran out", "Give it a larger MemoryMax, or the machine more memory."),
    ("connection refused", "something that it needs does not answer", "Start what it connects to first."),
    ("could not resolve", "a name cannot be resolved", "Check the DNS servers of this machine."),
    ("name or service not known", "a name cannot be resolved", "Check the DNS servers of this machine."),
    ("no such file or directory", "a file is missing", "Restore the file that the log names, or correct the path."),
    ("syntax error", "its configuration is wrong", "Correct the line that the log names."),
    ("invalid", "its configuration is wrong", "Correct what the log names."),
    ("segfault", "it crashed", "Update it; report the crash to its makers."),
    ("core dumped", "it crashed", "Update it; report the crash to its makers."),
    ("certificate", "a certificate is not accepted", "Check the certificate's dates and names, and the clock."),
    (
        "timed out",
        "it waited too long for something",
        "Check what it waits for; raise its time limit if it is only slow.",
    ),
];

pub(super) fn find(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    services(facts, causes);
    containers(facts, causes);
    restart(facts, causes);
    alarms(facts, causes);
    checks(facts, causes);
}

fn services(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    let mut units: Vec<&str> = Vec::new();
    for (_, value) in facts.all("host_services") {
        units.extend(list(value, "failed").iter().filter_map(|row| text(row, "unit")));
        let is_down = !matches!(text(value, "active"), None | Some("active" | "reloading" | "activating"));
        let is_missing = value.get("known").and_then(Value::as_bool) == Some(false);
        // Of the programs that set the clock only one is there.
        if (is_down || is_missing) && facts.is_about(&["systemd"]) {
            units.extend(text(value, "unit"));
        }
    }
    units.dedup();
    let mut done: Vec<&str> = Vec::new();
    for unit in units {
        if !done.contains(&unit) {
            done.push(unit);
            causes.push(of_unit(facts, unit));
        }
    }
}

fn of_unit(facts: &Facts<'_>, unit: &str) -> Cause {
    let short = unit.trim_end_matches(".service");
    let target = facts.question.named_target().map(|target| target.trim_end_matches(".service"));
    let asked = facts.is_about(&["systemd", "procnum"]) && target.is_none_or(|target| target == short);
    let level = if asked && target.is_some() { Level::Critical } else { Level::Warning };
    let details = facts.all("host_services").map(|(_, value)| value).find(|value| text(value, "unit") == Some(unit));
    let shown = code(unit);
    if details.is_some_and(|value| value.get("known").and_then(Value::as_bool) == Some(false)) {
        return Cause::new(level, format!("There is no unit {shown} on this machine"))
            .asked(asked)
            .by(35, "systemd knows no unit of that name")
            .act(When::Short, "Correct the name in the check, or install the service.");
    }
    let active = details.and_then(|value| text(value, "active")).unwrap_or("failed");
    let mut cause =
        Cause::new(level, format!("{shown} {}", if active == "failed" { "has failed" } else { "is not running" }))
            .asked(asked)
            .by(20, format!("systemd says {active}"));
    if let Some(value) = details {
        if let Some(result) = text(value, "result").filter(|result| *result != "success") {
            cause.add(10, format!("it ended with {}", code(result)));
        }
        if let Some(count) = number(value, "restarts").filter(|count| *count >= 1.0) {
            cause.add(10, format!("systemd has restarted it {} times", plain(count)));
        }
        if let Some(since) = text(value, "inactive_since") {
            cause.add(0, format!("down since {since}"));
        }
    }
    let log = facts.asked("host_logs", "unit", unit).or_else(|| facts.asked("host_logs", "unit", short));
    let lines: Vec<&str> = log.map_or(&[][..], |log| list(log, "lines")).iter().filter_map(Value::as_str).collect();
    let known = lines.iter().rev().find_map(|line| {
        let lower = line.to_lowercase();
        LAST_WORDS.iter().find(|(words, ..)| lower.contains(words)).map(|known| (*line, known))
    });
    let cause = match known {
        Some((line, (_, meaning, advice))) => {
            cause.title = format!("{}: {meaning}", cause.title);
            cause.add(30, format!("its log says: {}", quote(line)));
            cause.soon(*advice)
        }
        None => {
            if let Some(line) = lines.last() {
                cause.add(5, format!("the last line of its log: {}", quote(line)));
            }
            cause
        }
    };
    cause
        .soon(format!("Read `journalctl -u {short} -n 50`, mend what it names, then `systemctl restart {short}`."))
        .act(When::Medium, format!("Let systemd restart {shown} by itself (Restart=on-failure) if it does not."))
}

fn containers(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    let Some(docker) = facts.tool("host_docker") else { return };
    let asked = facts.is_about(&["docker"]);
    let rows = list(docker, "containers");
    if asked
        && let Some(target) = facts.question.named_target().filter(|target| !target.contains(['*', '?']))
        && !rows.iter().any(|row| text(row, "name") == Some(target))
        && docker.get("available").and_then(Value::as_bool) == Some(true)
    {
        causes.push(
            Cause::new(Level::Critical, format!("There is no container {}", code(target)))
                .asked(true)
                .by(35, format!("Docker lists {} containers, none of that name", rows.len()))
                .act(When::Urgent, "Start it again from its compose file, or correct the name in the check."),
        );
    }
    for row in rows.iter().filter(|row| is_troubled(row, facts.question)) {
        let (Some(name), Some(state)) = (text(row, "name"), text(row, "state")) else { continue };
        let health = text(row, "health");
        if state == "running" && health != Some("unhealthy") {
            continue;
        }
        let shown = code(name);
        let what = if state == "running" { "is unhealthy".to_owned() } else { format!("is {state}") };
        let target = facts.question.named_target();
        let is_target = asked && target == Some(name);
        let level = if is_target || matches!(state, "dead" | "running") { Level::Critical } else { Level::Warning };
        let mut cause = Cause::new(level, format!("Container {shown} {what}"))
            .asked(asked && target.is_none_or(|target| target == name))
            .by(15, format!("Docker says: {}", code(text(row, "status").unwrap_or(state))));
        let Some(details) = facts.asked("host_docker", "container", name) else {
            causes.push(cause);
            continue;
        };
        let exit = number(details, "exit_code");
        if details.get("oom_killed").and_then(Value::as_bool) == Some(true) {
            cause.title.push_str(": it was killed for lack of memory");
            cause.add(35, "Docker says OOMKilled");
        } else if let Some(exit) = exit.filter(|exit| *exit > 0.0) {
            cause.add(10, format!("its program ended with code {}{}", plain(exit), meaning_of_exit(exit)));
        }
        if let Some(error) = text(details, "error").filter(|error| !error.is_empty()) {
            cause.add(20, format!("Docker's error: {}", quote(error)));
        }
        if let Some(count) = number(details, "restart_count").filter(|count| *count >= 1.0) {
            cause.add(10, format!("it was restarted {} times", plain(count)));
        }
        if let Some(line) = text(details, "health_output").filter(|line| !line.is_empty()) {
            cause.add(15, format!("its health check says: {}", quote(line)));
        }
        causes.push(
            cause
                .soon(format!("Read `docker logs --tail 50 {name}`, mend what it names, then `docker restart {name}`."))
                .act(When::Medium, format!("Give {shown} a restart policy and a memory limit that fit.")),
        );
    }
}

fn meaning_of_exit(code: f64) -> &'static str {
    match plain(code).as_str() {
        "137" => " (killed: out of memory, or stopped by force)",
        "139" => " (it crashed)",
        "126" | "127" => " (its command cannot be run or is missing)",
        "143" => " (it was asked to end)",
        _ => "",
    }
}

fn restart(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    let Some((_, level, seconds)) = facts.bad("time since the last boot").into_iter().next() else { return };
    let mut cause = Cause::new(level, format!("The machine booted {} ago", duration(seconds)))
        .asked(facts.is_about(&["uptime"]))
        .by(20, text(facts.tool("host_uptime").unwrap_or(&Value::Null), "boot_time").unwrap_or("just now"));
    let panics = facts.log_lines(&["kernel panic", "watchdog: bug", "machine check"]);
    if let Some(line) = panics.last() {
        cause.add(35, format!("the log tells of a crash: {}", quote(line)));
    }
    let orderly =
        facts.log_lines(&["systemd-shutdown", "reached target reboot", "system is rebooting", "powering off"]);
    if let Some(line) = orderly.last() {
        cause.but(15, format!("it was an orderly restart: {}", quote(line)));
    } else if panics.is_empty() {
        cause.add(0, "the logs that can be read here do not tell why: power, a crash, or somebody's wish");
    }
    causes.push(
        cause.act(
            When::Short,
            "Ask who restarted it; if nobody did, look at `journalctl -b -1 -e` and the power supply.",
        ),
    );
}

/// Lines that never belong into a healthy log, less those that other rules explain.
fn alarms(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    let others = ["out of memory", "oom-kill", "under-voltage", "undervoltage", "no space left"];
    let words = [
        "kernel panic",
        "soft lockup",
        "hard lockup",
        "hung_task",
        "blocked for more than",
        "machine check",
        "segfault at",
    ];
    let explained = |line: &&str| {
        let lower = line.to_lowercase();
        others.iter().chain(IO_ERRORS).any(|word| lower.contains(word))
    };
    let lines: Vec<&str> = facts.log_lines(&words).into_iter().filter(|line| !explained(line)).collect();
    let Some(line) = lines.last() else { return };
    let lower = line.to_lowercase();
    let (title, advice) = if lower.contains("segfault") {
        ("A program crashes", "Update the program that the line names.")
    } else if lower.contains("blocked for") || lower.contains("hung_task") {
        ("The kernel reports tasks that hang", "See which device they wait for: a disk or a network share.")
    } else {
        ("The kernel reports trouble of the machine itself", "Update kernel and firmware; test memory and processor.")
    };
    causes.push(
        Cause::new(Level::Warning, title)
            .asked(facts.is_about(&["journaltail", "logfile"]))
            .by(20, format!("{}× in the log, the last: {}", lines.len(), quote(line)))
            .act(When::Short, advice),
    );
}

/// What the machine's own checks measure now, where no rule has said more about it.
fn checks(facts: &Facts<'_>, causes: &mut Vec<Cause>) {
    let Some(checks) = facts.tool("host_checks") else { return };
    for reading in list(checks, "readings") {
        let level = Level::of(text(reading, "level"));
        let (Some(check), Some(target)) = (text(reading, "check"), text(reading, "target")) else { continue };
        if level == Level::Ok {
            continue;
        }
        let plugin = check.split("::").next().unwrap_or(check);
        // A rule that knows the parts explains more than the number that the check saw.
        let explained = match plugin {
            "cpu" | "mem" | "disk" | "diskio" | "systemd" | "docker" | "uptime" => !causes.is_empty(),
            _ => false,
        };
        if !explained {
            causes.push(
                Cause::new(level, complaint(reading))
                    .asked(facts.is_about(&[plugin]))
                    .by(15, format!("the check {} has just measured it", code(check)))
                    .soon(format!("Look at {}.", code(target))),
            );
        }
    }
}

/// What a check says, and of what.
pub(super) fn complaint(reading: &Value) -> String {
    let field = |name: &str| text(reading, name).unwrap_or_default();
    let said = Some(field("description")).filter(|said| !said.is_empty()).unwrap_or("not in order");
    format!("{}: {said}", code(field("target")))
}
