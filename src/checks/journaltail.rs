//! `journaltail`: new lines of the systemd journal that match (contract agent-link 7.5, 12).
//!
//! `[checks.journaltail]`: `units` (all), `priority` and worse (`warning`), `filter_include` (what is wrong with any
//! machine: memory, disks, kernel, power), `filter_exclude` (none), `severity` (Warning).
//!
//! The cursor lasts through restarts, so what was written meanwhile is seen. Each line carries its own cursor, so that an
//! answer that was cut goes on where it ended. A match stays open for half an hour without another one
//! (`alerting.recover_after`): it does not "recover" because the next round is quiet.

use serde_json::{Value, json};

use crate::alert::Level;
use crate::checks::filter::{Filter, Matches};
use crate::checks::plugin::{Check, Gather, Reading};
use crate::checks::registry::{DEFAULTS, Defaults, seconds};
use crate::checks::settings::{SettingError, Settings};
use crate::diag::child::RunError;
use crate::diag::logs::reads_journal;

const MATCH: &str = "journaltail::match";

/// Lines of a log have no end: quiet for half an hour is over. Only what goes on for an hour is told again.
pub(super) const ALERTING: Defaults = Defaults {
    interval: Some(seconds(60)),
    recover_after: seconds(1800),
    repeat_interval: seconds(3600),
    repeat_number: 0,
    timeout: seconds(60),
    ..DEFAULTS
};

/// Answers of one round; each is cut at what a child may say. The rest comes with the next round.
const ANSWERS_MAX: usize = 8;

/// Longest cursor that is believed; they have about 200 characters.
const CURSOR_BYTES_MAX: usize = 1024;

const PRIORITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// What is wrong with a machine in any case.
const PATTERNS: &[&str] = &[
    "/(?i)out of memory|oom-kill/",
    "Kernel panic",
    "BUG: ",
    "/(soft|hard) lockup/",
    "/(?i)machine check|hardware error/",
    "segfault at",
    "dumped core",
    "/I\\/O error|(EXT4-fs|BTRFS|XFS|F2FS-fs).*error/",
    "/(?i)remounting filesystem read-only/",
    "nf_conntrack: table full",
    "neighbour: arp_cache: neighbor table overflow!",
    "/(?i)under-?voltage/",
];

struct Journal {
    target: String,
    arguments: Vec<String>,
    filter: Filter,
    level: Level,
    cursor: Option<String>,
    /// Where to begin without a cursor. Unix seconds.
    since_s: Option<i64>,
}

pub(super) fn build(settings: &mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError> {
    let own_patterns = settings.has("filter_include");
    let filter = Filter::build(settings, PATTERNS)?;
    let units = settings.texts("units", &[])?;
    let bad_unit = |unit: &String| unit.is_empty() || unit.starts_with('-') || unit.contains(char::is_whitespace);
    if let Some(bad) = units.iter().find(|unit| bad_unit(unit)) {
        return Err(settings.error("units", format!("{bad:?} is no name of a unit")));
    }
    // The kernel warns of full tables and of low power only.
    let priority = settings.word("priority", &PRIORITIES, "warning")?;
    let level = settings.level("severity", Level::Warning)?;
    let target = match units.as_slice() {
        [] if own_patterns => filter.first.clone(),
        [] => "journal".to_owned(),
        units => units.join(","),
    };
    // Without --all a field of more than 4 KiB comes as null: so every line is bounded.
    let mut arguments: Vec<String> = ["--no-pager", "--quiet", "--output=json"].map(str::to_owned).to_vec();
    arguments.push("--output-fields=MESSAGE,SYSLOG_IDENTIFIER,_COMM".to_owned());
    arguments.push(format!("--priority={priority}"));
    arguments.extend(units.iter().map(|unit| format!("--unit={unit}")));
    Ok(vec![Box::new(Journal { target, arguments, filter, level, cursor: None, since_s: None })])
}

/// What one answer of `journalctl` gave.
enum Answer {
    /// Whether there is more.
    Lines(bool),
    Failed(String),
    Nothing,
}

impl Check for Journal {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        self.since_s.get_or_insert(context.now_s());
        let mut matches = Matches::default();
        for _ in 0..ANSWERS_MAX {
            match self.ask(context, &mut matches) {
                Answer::Lines(true) => {}
                Answer::Lines(false) => break,
                Answer::Failed(error) => return vec![Reading::failed(MATCH, &self.target, error)],
                Answer::Nothing => {
                    context.incomplete();
                    return Vec::new();
                }
            }
        }
        // `journalctl` shows others nothing, and says nothing about it.
        if self.cursor.is_none() && !reads_journal(context.root) {
            context.unavailable(
                "the journal of the system cannot be read: is there one, and is our user in the group systemd-journal?",
            );
            // What cannot be seen is not known to be well.
            context.incomplete();
            return Vec::new();
        }
        vec![matches.reading(MATCH, &self.target, self.level)]
    }

    fn save(&self) -> Option<Value> {
        Some(json!({"cursor": self.cursor, "since": self.since_s?}))
    }

    fn restore(&mut self, state: &Value) {
        let cursor = state["cursor"].as_str().filter(|cursor| is_cursor(cursor));
        self.cursor = cursor.map(str::to_owned);
        self.since_s = state["since"].as_i64();
    }
}

impl Journal {
    fn ask(&mut self, context: &Gather<'_>, matches: &mut Matches) -> Answer {
        let begin = match &self.cursor {
            Some(cursor) => format!("--after-cursor={cursor}"),
            None => format!("--since=@{}", self.since_s.unwrap_or(0)),
        };
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).chain([begin.as_str()]).collect();
        let output = match context.root.probe.run("journalctl", &arguments, &context.tool_context()) {
            Ok(output) => output,
            Err(RunError::Missing) => {
                context.unavailable("there is no journal of systemd on this machine");
                return Answer::Nothing;
            }
            Err(RunError::Cancelled) => return Answer::Nothing,
            Err(error) => return Answer::Failed(format!("journalctl {error}")),
        };
        let cut = output.code.is_none();
        if output.code.is_some_and(|code| code != 0) {
            // The journal was removed or rotated beyond the cursor: go on with what is written from now on.
            if self.cursor.take().is_some() {
                self.since_s = Some(context.now_s());
            }
            return Answer::Failed(
                "journalctl failed; may the agent read the journal (group systemd-journal)?".to_owned(),
            );
        }
        let mut moved = false;
        // The last line may be cut in the middle.
        for line in output.text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
            if let Some(cursor) = entry["__CURSOR"].as_str().filter(|cursor| is_cursor(cursor)) {
                self.cursor = Some(cursor.to_owned());
                moved = true;
            }
            matches.look(&self.filter, &text_of(&entry));
        }
        Answer::Lines(cut && moved)
    }
}

/// `name: message`. A message that is no text comes as a list of bytes.
fn text_of(entry: &Value) -> String {
    let name = entry["SYSLOG_IDENTIFIER"].as_str().or_else(|| entry["_COMM"].as_str()).unwrap_or("");
    let message = match &entry["MESSAGE"] {
        Value::String(text) => text.clone(),
        Value::Array(bytes) => {
            let bytes: Vec<u8> = bytes.iter().filter_map(|b| u8::try_from(b.as_u64()?).ok()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => String::new(),
    };
    if name.is_empty() { message } else { format!("{name}: {message}") }
}

fn is_cursor(text: &str) -> bool {
    !text.is_empty() && text.len() <= CURSOR_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::each::tests::lines;
    use crate::checks::testing::Bench;

    /// A file of the journal that can be read.
    const READABLE: &str = "var/log/journal/0079d06f/system.journal";

    fn entry(cursor: &str, message: &Value) -> String {
        format!("{}\n", json!({"__CURSOR": cursor, "MESSAGE": message, "SYSLOG_IDENTIFIER": "kernel"}))
    }

    #[test]
    fn the_journal_is_read_on_from_its_cursor_also_after_a_restart() {
        let bench = Bench::new();
        let table = json!({"units": ["a.service", "b"], "priority": "warning"});
        let mut checks = bench.build(build, &table);
        bench.program("journalctl", 0, "");
        assert!(bench.gather(&mut checks).is_empty() && bench.incomplete.get(), "a journal that nobody may read");
        bench.write(READABLE, "");
        let readings = bench.gather(&mut checks);
        assert_eq!(lines(&readings), ["journaltail::match a.service,b Ok: no line matches any more"]);
        let oom = entry("s=1;i=2", &json!("Out of memory: Killed process 7 token=abc"));
        let bytes = entry("s=1;i=3", &json!([66, 85, 71, 58, 32, 255]));
        bench.program("journalctl", 0, &format!("{oom}not json\n{bytes}{}", entry("s=1;i=4", &Value::Null)));
        let readings = bench.gather(&mut checks);
        let text = "journaltail::match a.service,b Warning: 2 lines match:\nkernel: Out of memory: Killed process 7 \
                    token=[hidden]\nkernel: BUG: \u{fffd}";
        assert_eq!(lines(&readings), [text]);
        let kept = checks[0].save().unwrap();
        let mut checks = bench.build(build, &table);
        checks[0].restore(&kept);
        bench.gather(&mut checks);
        let ran = bench.ran();
        let all = "journalctl --no-pager --quiet --output=json --output-fields=MESSAGE,SYSLOG_IDENTIFIER,_COMM \
                   --priority=warning --unit=a.service --unit=b";
        assert_eq!(ran[0], format!("{all} --since=@1774170000"));
        assert_eq!(ran[1], format!("{all} --since=@1774170000"));
        assert_eq!(ran[2], format!("{all} --since=@1774170000"));
        assert_eq!(ran[3], format!("{all} --after-cursor=s=1;i=4"));
    }

    #[test]
    fn a_journal_that_fails_is_said_and_one_that_is_not_there_is_not() {
        let bench = Bench::new();
        let mut checks = bench.build(build, &json!({}));
        assert!(bench.gather(&mut checks).is_empty());
        assert!(bench.incomplete.get() && bench.unavailable.take()[0].contains("no journal"));
        bench.write(READABLE, "");
        checks[0].restore(&json!({"cursor": "gone", "since": 5}));
        bench.program("journalctl", 1, "");
        assert_eq!(bench.gather(&mut checks)[0].level, Level::Critical);
        bench.program("journalctl", 0, "");
        assert_eq!(bench.gather(&mut checks)[0].level, Level::Ok);
        assert!(bench.ran().last().unwrap().ends_with("--since=@1774170030"), "{:?}", bench.ran());
        for strange in [json!(null), json!({"cursor": "a b"}), json!({"cursor": 7, "since": "x"}), json!([])] {
            checks[0].restore(&strange);
            bench.gather(&mut checks);
            assert!(bench.ran().last().unwrap().contains("--since=@"));
        }
    }

    #[test]
    fn shipped_patterns_find_what_hurts_and_leave_the_rest() {
        let filter = Filter::build(&mut Settings::new("x", &json!({})).unwrap(), PATTERNS).unwrap();
        let check = |line: &str, expected: Level| {
            let mut matches = Matches::default();
            matches.look(&filter, line);
            assert_eq!(matches.reading(MATCH, "t", Level::Warning).level, expected, "{line}");
        };
        for line in [
            "kernel: oom-kill:constraint=CONSTRAINT_NONE",
            "kernel: watchdog: BUG: soft lockup - CPU#1 stuck",
            "kernel: mce: [Hardware Error]: Machine check events logged",
            "kernel: app[7]: segfault at 0 ip 0 sp 0",
            "systemd-coredump: Process 7 (app) of user 0 dumped core.",
            "kernel: blk_update_request: I/O error, dev sda, sector 1",
            "kernel: EXT4-fs (sda1): error count since last fsck: 1",
            "kernel: EXT4-fs (sda1): Remounting filesystem read-only",
            "kernel: hwmon hwmon1: Undervoltage detected!",
        ] {
            check(line, Level::Warning);
        }
        for line in ["kernel: EXT4-fs (sda1): mounted filesystem", "sshd: error: kex_exchange", "debug: a bug"] {
            check(line, Level::Ok);
        }
        let bench = Bench::new();
        assert_eq!(bench.refused(build, &json!({"units": ["-x"]})), "checks.x.units");
        assert_eq!(bench.refused(build, &json!({"priority": "worst"})), "checks.x.priority");
    }
}
