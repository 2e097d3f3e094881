//! `host_logs`: the newest lines of the journal or, without one, of the classic log files.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::time::Duration;

use serde_json::Value;

use crate::diag::args::{Args, Kind, Param};
use crate::diag::child::RunError;
use crate::diag::finding::{Finding, float};
use crate::diag::redact::redact;
use crate::diag::report::{Cut, Report, clean};
use crate::diag::root::{HostRoot, names_in};
use crate::diag::thresholds::LOG_ALARMS;
use crate::tools::{ToolContext, ToolError};

pub(super) const DESCRIPTION: &str = "The newest lines of the system's log (journal, or /var/log/syslog, messages, \
kern.log), optionally only since a while, from a priority on, or of one unit. Usual secrets are hidden.";

pub(super) const PARAMS: &[Param] = &[
    Param { name: "lines", kind: Kind::Integer { min: 1, max: 200 }, description: "How many lines; default 40." },
    Param { name: "since", kind: Kind::Duration, description: "Only lines of this last while, e.g. 30m, 12h, 7d." },
    Param {
        name: "priority",
        kind: Kind::Choice(&["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"]),
        description: "Only lines of this priority or worse (journal only).",
    },
    Param { name: "unit", kind: Kind::Name, description: "Only lines of this systemd unit, e.g. nginx." },
];

const LINES_DEFAULT: u64 = 40;

/// Most bytes of a line that are shown: a stack trace in one line helps nobody in full.
const LINE_BYTES_MAX: usize = 300;

/// Read from the end of a classic log: room for 200 long lines.
const TAIL_BYTES: u64 = 128 * 1024;

/// Priorities that stand for errors, and the words that errors have in logs without priorities.
const ERROR_PRIORITIES: [&str; 4] = ["emerg", "alert", "crit", "err"];
const ERROR_WORDS: &[&str] =
    &["error", "fail", "fatal", "panic", "critical", "cannot", "denied", "refused", "timed out"];

const FILES: [&str; 3] = ["syslog", "messages", "kern.log"];

/// What never belongs into a healthy log, in lower case.
const ALARMS: &[&str] = &[
    "out of memory",
    "oom-kill",
    "i/o error",
    "under-voltage",
    "undervoltage",
    "remounting filesystem read-only",
    "ext4-fs error",
    "btrfs error",
    "xfs_error",
    "kernel panic",
    "soft lockup",
    "hard lockup",
    "hung_task",
    "blocked for more than",
    "machine check",
    "segfault at",
    "no space left on device",
    "uncorrectable",
];

pub(super) fn look(root: &HostRoot, args: &Args, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    let lines_max = args.integer("lines").unwrap_or(LINES_DEFAULT);
    if root.is_system() {
        match journal(root, args, lines_max, context) {
            Ok(Some(text)) => {
                let mut report = report("journal", &text, lines_max);
                if !reads_journal(root) {
                    report
                        .note("only Holt's own messages may be visible: its user is not in the group systemd-journal");
                }
                return Ok(report);
            }
            Ok(None) => {}
            Err(error) => return Err(error),
        }
    }
    let (file, text) = FILES.iter().find_map(|file| Some((*file, file_tail(root, file)?))).ok_or_else(|| {
        let files = "neither a journal nor /var/log/syslog, messages or kern.log can be read";
        ToolError::new(format!("{files}; Holt's user may have to join the group systemd-journal or adm"))
    })?;
    Ok(from_file(file, &text, args, lines_max))
}

/// The journal's lines; none where there is no journal to read.
fn journal(root: &HostRoot, args: &Args, lines: u64, context: &ToolContext<'_>) -> Result<Option<String>, ToolError> {
    let mut arguments = vec![
        "--no-pager".to_owned(),
        "--quiet".to_owned(),
        "--no-hostname".to_owned(),
        "--output=short-iso".to_owned(),
        format!("--lines={lines}"),
    ];
    // Relative to now, in the journal's own words; a number of seconds cannot be read as anything else.
    arguments.extend(args.duration("since").map(|since: Duration| format!("--since=-{}s", since.as_secs())));
    arguments.extend(args.text("priority").map(|priority| format!("--priority={priority}")));
    arguments.extend(args.text("unit").map(|unit| format!("--unit={unit}")));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match root.probe.run("journalctl", &arguments, context) {
        // No matching line is an answer only where we may read what the system wrote.
        Ok(output) if output.code == Some(0) && (!output.text.trim().is_empty() || reads_journal(root)) => {
            Ok(Some(output.text))
        }
        Ok(_) | Err(RunError::Missing) => Ok(None),
        Err(RunError::Cancelled) => Err(ToolError::new("cancelled")),
        Err(error) => Err(ToolError::new(format!("journalctl {error}"))),
    }
}

/// Whether there is a journal of the system that we may read. `journalctl` shows others nothing, without an error.
pub(crate) fn reads_journal(root: &HostRoot) -> bool {
    [root.log("journal"), root.run_dir("log/journal")].iter().any(|journal| {
        let machines = names_in(journal).into_iter().map(|machine| journal.join(machine));
        machines.into_iter().any(|machine| {
            let files = names_in(&machine);
            files.iter().any(|file| file.starts_with("system") && File::open(machine.join(file)).is_ok())
        })
    })
}

/// A plain file knows no units and no priorities, so both are looked for as words, and the answer says so.
fn from_file(file: &str, text: &str, args: &Args, lines_max: u64) -> Report {
    let unit = args.text("unit").map(|unit| unit.trim_end_matches(".service").to_lowercase());
    let errors = args.text("priority").is_some_and(|priority| ERROR_PRIORITIES.contains(&priority));
    let wanted = |line: &&str| {
        let lower = line.to_lowercase();
        let is_error = || is_alarm(line) || ERROR_WORDS.iter().any(|word| lower.contains(word));
        unit.as_ref().is_none_or(|unit| lower.contains(unit)) && (!errors || is_error())
    };
    let kept: Vec<&str> = text.lines().filter(wanted).collect();
    let mut report = report(&format!("/var/log/{file}"), &kept.join("\n"), lines_max);
    if errors {
        report.note("this log is a plain file: errors were looked for by words such as \"error\" and \"failed\"");
    } else if args.text("priority").is_some() {
        report.note("this log is a plain file: \"priority\" was not applied");
    }
    if args.duration("since").is_some() {
        report.note("this log is a plain file: \"since\" was not applied, these are its newest lines");
    }
    if unit.is_some() {
        report.note("this log is a plain file: \"unit\" was looked for as a word");
    }
    report
}

pub(super) fn report(source: &str, text: &str, lines_max: u64) -> Report {
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let kept = &all[all.len().saturating_sub(usize::try_from(lines_max).unwrap_or(usize::MAX))..];
    let alarms = kept.iter().filter(|line| is_alarm(line)).count();
    let mut report = Report::new();
    report.cut = Cut::Front;
    report.set("source", source);
    report.set("count", kept.len());
    let lines: Vec<Value> = kept.iter().map(|line| Value::String(clean(&redact(line), LINE_BYTES_MAX))).collect();
    report.set("lines", lines);
    report.find(Finding::judge(&LOG_ALARMS, "alarming lines in the log", float(alarms.try_into().unwrap_or(u64::MAX))));
    report
}

pub(super) fn is_alarm(line: &str) -> bool {
    let line = line.to_lowercase();
    ALARMS.iter().any(|alarm| line.contains(alarm))
}

/// The end of a file below `/var/log`.
pub(super) fn file_tail(root: &HostRoot, file: &str) -> Option<String> {
    tail(&mut File::open(root.log(file)).ok()?, TAIL_BYTES).ok()
}

/// The whole lines among the last `bytes_max` bytes.
fn tail(file: &mut (impl Read + Seek), bytes_max: u64) -> io::Result<String> {
    let length = file.seek(SeekFrom::End(0))?;
    let start = length.saturating_sub(bytes_max);
    // One byte earlier tells whether the first line is whole.
    file.seek(SeekFrom::Start(start.saturating_sub(1)))?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if start == 0 {
        return Ok(text);
    }
    Ok(text.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::fixture::{Fixture, level};
    use serde_json::json;

    #[test]
    fn the_tail_holds_whole_lines_only() {
        let check = |text: &str, bytes_max: u64, expected: &str| {
            assert_eq!(tail(&mut io::Cursor::new(text), bytes_max).unwrap(), expected, "{text:?} {bytes_max}");
        };
        check("one\ntwo\nthree\n", 6, "three\n");
        check("one\ntwo\nthree\n", 7, "three\n");
        check("one\ntwo\nthree\n", 10, "two\nthree\n");
        check("one\ntwo\nthree\n", 14, "one\ntwo\nthree\n");
        check("one\ntwo", 100, "one\ntwo");
        check("a line longer than the tail", 5, "");
        check("", 5, "");
    }

    #[test]
    fn the_journal_is_asked_with_checked_arguments() {
        let fixture = Fixture::empty();
        fixture.program("journalctl", 0, "2026 sshd[1]: password=hunter2\n2026 kernel: I/O error, dev sda\n");
        let arguments = json!({"lines": 5, "since": "2h", "priority": "err", "unit": "ssh"});
        if !cfg!(target_os = "linux") {
            return;
        }
        let report = fixture.call("host_logs", &arguments);
        assert_eq!(report["source"], "journal");
        assert_eq!(report["lines"][0], "2026 sshd[1]: password=[hidden]");
        assert_eq!(level(&report, "alarming lines in the log"), "warning");
        let ran = "journalctl --no-pager --quiet --no-hostname --output=short-iso --lines=5 --since=-7200s --priority=err --unit=ssh";
        assert_eq!(fixture.ran(), [ran]);
    }

    #[test]
    fn without_a_journal_the_classic_files_are_read() {
        let fixture = Fixture::empty();
        fixture.program("journalctl", 1, "");
        fixture.write("var/log/messages", "older\nnginx: up\n\nnewest\n");
        let report = fixture.call("host_logs", &json!({"lines": 2}));
        assert_eq!(report["source"], "/var/log/messages");
        assert_eq!(report["lines"], json!(["nginx: up", "newest"]));
        let report = fixture.call("host_logs", &json!({"unit": "nginx.service", "since": "1h"}));
        assert_eq!(report["lines"], json!(["nginx: up"]));
        assert_eq!(report["notes"].as_array().unwrap().len(), 2);
        fixture.write("var/log/messages", "all is well\nsshd: FAILED login\nkernel: under-voltage\n");
        let report = fixture.call("host_logs", &json!({"priority": "err"}));
        assert_eq!(report["lines"], json!(["sshd: FAILED login", "kernel: under-voltage"]));
        assert_eq!(report["notes"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn an_empty_journal_is_an_answer_and_no_journal_is_an_error() {
        let fixture = Fixture::empty();
        fixture.program("journalctl", 0, "");
        assert!(fixture.try_call("host_logs", &json!({})).unwrap_err().message.contains("neither a journal"));
        fixture.write("var/log/journal/0079d06f/system.journal", "");
        if cfg!(target_os = "linux") {
            assert_eq!(fixture.call("host_logs", &json!({}))["count"], 0);
        }
    }

    #[test]
    fn long_logs_stay_within_bounds() {
        let fixture = Fixture::empty();
        let lines: Vec<String> = (0..5000).map(|n| format!("line {n} {}", "x".repeat(400))).collect();
        fixture.write("var/log/syslog", &lines.join("\n"));
        let report = fixture.call("host_logs", &json!({"lines": 200}));
        assert_eq!(report["truncated"], true);
        let shown = report["lines"].as_array().unwrap();
        assert!(shown.last().unwrap().as_str().unwrap().starts_with("line 4999 "), "the newest stay");
    }
}
