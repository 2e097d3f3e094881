//! `host_kernel`: what the kernel said lately, and whom it killed for lack of memory.

use serde_json::{Value, json};

use crate::diag::args::{Args, Kind, Param};
use crate::diag::child::RunError;
use crate::diag::logs;
use crate::diag::report::{Report, clean, clean_name};
use crate::diag::root::HostRoot;
use crate::tools::{ToolContext, ToolError};

pub(super) const DESCRIPTION: &str = "The kernel's log (dmesg): alarming lines such as I/O errors, crashes and kills for \
lack of memory with the name of the program, and the newest lines.";

pub(super) const PARAMS: &[Param] = &[
    Param {
        name: "lines",
        kind: Kind::Integer { min: 1, max: 100 },
        description: "How many newest lines; default 15.",
    },
    Param { name: "since", kind: Kind::Duration, description: "Only of this last while, e.g. 30m, 7d; default 24h." },
];

const LINES_DEFAULT: u64 = 15;

/// What `since` is when nobody says: older trouble is no explanation.
const SINCE_DEFAULT_SECS: u64 = 24 * 3600;

/// Read from the log; alarms among them are kept, the rest is cut to what was asked for.
const READ_LINES_MAX: &str = "--lines=3000";

const ALARMS_MAX: usize = 30;
const LINE_BYTES_MAX: usize = 300;

pub(super) fn look(root: &HostRoot, args: &Args, context: &ToolContext<'_>) -> Result<Report, ToolError> {
    let since = args.duration("since").map_or(SINCE_DEFAULT_SECS, |since| since.as_secs());
    let (source, text) = read(root, since, context)?;
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let wanted = usize::try_from(args.integer("lines").unwrap_or(LINES_DEFAULT)).unwrap_or(usize::MAX);
    let newest = all.len().saturating_sub(wanted);
    let alarms = all.iter().filter(|line| logs::is_alarm(line)).count();
    let skipped = alarms.saturating_sub(ALARMS_MAX);
    // Alarms first in time with the newest lines behind them; an alarm among the newest stands once.
    let old_alarms = all[..newest].iter().filter(|line| logs::is_alarm(line)).skip(skipped);
    let kept: Vec<&str> = old_alarms.chain(&all[newest..]).copied().collect();
    let mut report = logs::report(source, &kept.join("\n"), u64::MAX);
    report.set("alarms", alarms);
    let kills: Vec<Value> = all.iter().filter_map(|line| kill(line)).collect();
    report.set("oom_kills", kills);
    if source != "journal" {
        report.note("this source is not limited by \"since\": it holds what the kernel's buffer or the file holds");
    }
    Ok(report)
}

/// The journal, else the kernel's buffer, else the file that syslog writes.
fn read(root: &HostRoot, since: u64, context: &ToolContext<'_>) -> Result<(&'static str, String), ToolError> {
    if root.is_system() {
        let since = format!("--since=-{since}s");
        let journal = [
            "--dmesg",
            "--boot=all",
            "--no-pager",
            "--quiet",
            "--no-hostname",
            "--output=short-iso",
            READ_LINES_MAX,
            &since,
        ];
        let sources: [(&str, &str, &[&str]); 2] =
            [("journal", "journalctl", &journal), ("dmesg", "dmesg", &["--time-format=iso", "--nopager"])];
        for (source, program, arguments) in sources {
            match root.probe.run(program, arguments, context) {
                Ok(output) if output.code == Some(0) && !output.text.trim().is_empty() => {
                    return Ok((source, output.text));
                }
                Ok(output) if output.code == Some(0) && source == "journal" && logs::reads_journal(root) => {
                    return Ok((source, String::new()));
                }
                Err(RunError::Cancelled) => return Err(ToolError::new("cancelled")),
                // Not there, or not for us.
                Ok(_) | Err(_) => {}
            }
        }
    }
    match logs::file_tail(root, "kern.log") {
        Some(text) => Ok(("/var/log/kern.log", text)),
        None => Err(ToolError::new(
            "the kernel's log cannot be read: neither the journal nor dmesg nor /var/log/kern.log; Holt's user may have \
             to join the group systemd-journal or adm",
        )),
    }
}

/// `Out of memory: Killed process 4711 (java) ...`, also of a control group.
fn kill(line: &str) -> Option<Value> {
    let (_, rest) = line.split_once("Killed process ").or_else(|| line.split_once("Kill process "))?;
    let (pid, rest) = rest.split_once(' ')?;
    let name = rest.strip_prefix('(')?.split(')').next()?;
    Some(
        json!({"pid": pid.parse::<u32>().ok()?, "process": clean_name(name), "line": clean(line.trim(), LINE_BYTES_MAX)}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::fixture::{Fixture, level};

    const KILL: &str = "2026-01-02T03:04:05+0000 kernel: Out of memory: Killed process 4711 (java) total-vm:9kB";

    #[test]
    fn alarms_and_kills_are_found_among_many_lines() {
        let fixture = Fixture::healthy_pi();
        let noise: Vec<String> = (0..200).map(|n| format!("kernel: usb {n}")).collect();
        fixture.program("journalctl", 0, &format!("{KILL}\nkernel: mmcblk0: I/O error\n{}\n", noise.join("\n")));
        let report = fixture.call("host_kernel", &json!({"lines": 2, "since": "2h"}));
        assert_eq!(report["lines"].as_array().unwrap().len(), 4);
        assert_eq!(report["lines"][0], KILL);
        assert_eq!(report["lines"][3], "kernel: usb 199");
        assert_eq!(
            (&report["oom_kills"][0]["process"], &report["oom_kills"][0]["pid"]),
            (&json!("java"), &json!(4711))
        );
        assert_eq!(level(&report, "alarming lines in the log"), "warning");
        assert!(fixture.ran()[0].contains("--dmesg") && fixture.ran()[0].contains("--since=-7200s"));
    }

    #[test]
    fn the_buffer_and_the_file_stand_in_for_the_journal() {
        let fixture = Fixture::healthy_pi();
        fixture.program("dmesg", 0, "[1.0] hello\n");
        assert_eq!(fixture.call("host_kernel", &json!({}))["source"], "dmesg");
        let fixture = Fixture::healthy_pi();
        fixture.program("dmesg", 1, "");
        fixture.write("var/log/kern.log", &format!("{KILL}\n"));
        let report = fixture.call("host_kernel", &json!({}));
        assert_eq!((&report["source"], &report["alarms"]), (&json!("/var/log/kern.log"), &json!(1)));
        let error = Fixture::empty().try_call("host_kernel", &json!({})).unwrap_err();
        assert!(error.message.contains("systemd-journal"));
    }

    #[test]
    fn odd_kills_are_no_kills() {
        for line in ["", "Killed process", "Killed process x (a)", "Killed process 7", "Killed process 7 a"] {
            assert_eq!(kill(line), None, "{line}");
        }
    }
}
