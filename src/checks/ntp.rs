//! `ntp`: is the clock synchronised, and how well (contract agent-link 7.5, 6). Asked is what is installed: chrony, ntpd,
//! else systemd, which knows only yes or no.
//!
//! `[checks.ntp]`: `severity` of a clock that is not synchronised (Critical); `offset` (100 / 500 milliseconds),
//! `stratum` (10 / 16).

use crate::alert::Level;
use crate::checks::limits::{Limits, Unit};
use crate::checks::plugin::{Check, Gather, Reading};
use crate::checks::registry::{DEFAULTS, Defaults, seconds};
use crate::checks::settings::{SettingError, Settings};
use crate::diag::child::RunError;

const SYNC: &str = "ntp::sync";
const OFFSET: &str = "ntp::offset";
const STRATUM: &str = "ntp::stratum";
const TARGET: &str = "ntp";

/// A board without a clock of its own begins its day unsynchronised, and needs a few minutes.
pub(super) const ALERTING: Defaults = Defaults { for_duration: seconds(300), timeout: seconds(40), ..DEFAULTS };

struct Ntp {
    level: Level,
    offset: Limits,
    stratum: Limits,
}

/// What a daemon says.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    synced: bool,
    offset_ms: Option<f64>,
    stratum: Option<f64>,
    source: String,
}

type Parse = fn(&str) -> Option<State>;

/// In the order in which they are asked.
const BACKENDS: [(&str, &[&str], Parse); 3] = [
    ("chronyc", &["-n", "tracking"], chrony),
    ("ntpq", &["-pn"], ntpq),
    ("timedatectl", &["show", "--property=NTPSynchronized"], timedatectl),
];

pub(super) fn build(settings: &mut Settings) -> Result<Vec<Box<dyn Check>>, SettingError> {
    let level = settings.level("severity", Level::Critical)?;
    let offset = settings.limits("offset", Limits::above(Unit::Millis, 100.0, 500.0))?;
    let stratum = settings.limits("stratum", Limits::above(Unit::Count, 10.0, 16.0))?;
    Ok(vec![Box::new(Ntp { level, offset, stratum })])
}

impl Check for Ntp {
    fn gather(&mut self, context: &Gather<'_>) -> Vec<Reading> {
        let mut failed = String::new();
        for (program, arguments, parse) in BACKENDS {
            let text = match context.root.probe.run(program, arguments, &context.tool_context()) {
                Ok(output) if output.code == Some(0) => output.text,
                // Without systemd its program is there and says so: no fault of the clock.
                Ok(_) if program == "timedatectl" => continue,
                Ok(_) => {
                    failed = format!("{program} failed: is its daemon running?");
                    continue;
                }
                Err(RunError::Missing) => continue,
                Err(RunError::Cancelled) => {
                    context.incomplete();
                    return Vec::new();
                }
                Err(error) => {
                    failed = format!("{program} {error}");
                    continue;
                }
            };
            match parse(&text) {
                Some(state) => return self.readings(program, &state),
                None => failed = format!("the answer of {program} was not understood"),
            }
        }
        if failed.is_empty() {
            context.unavailable("neither chrony nor ntpd nor systemd's time service can be asked here");
            context.incomplete();
            return Vec::new();
        }
        vec![Reading::failed(SYNC, TARGET, failed)]
    }
}

impl Ntp {
    fn readings(&self, program: &str, state: &State) -> Vec<Reading> {
        let dress = |reading: Reading| {
            let mut reading = reading.attr("backend", program);
            if let Some(offset) = state.offset_ms {
                reading = reading.attr("offset", format!("{offset:.3}ms"));
            }
            if let Some(stratum) = state.stratum {
                reading = reading.attr("stratum", format!("{stratum:.0}"));
            }
            if !state.source.is_empty() {
                reading = reading.attr("source", state.source.clone());
            }
            reading
        };
        if !state.synced {
            let text = "the clock is not synchronised";
            return vec![dress(Reading { measured: false, ..Reading::new(SYNC, TARGET, self.level, text) })];
        }
        let fine = Reading::new(SYNC, TARGET, Level::Ok, "the clock is synchronised");
        // Slow and fast are equally wrong.
        let offset = state.offset_ms.and_then(|offset| self.offset.reading(OFFSET, TARGET, "offset", offset.abs()));
        let stratum = state.stratum.and_then(|stratum| self.stratum.reading(STRATUM, TARGET, "stratum", stratum));
        [Some(fine), offset, stratum].into_iter().flatten().map(dress).collect()
    }
}

fn chrony(text: &str) -> Option<State> {
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim())
        })
    };
    let leap = field("Leap status")?;
    let offset = field("System time").and_then(|text| {
        let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
        Some(if text.contains("slow") { -seconds * 1000.0 } else { seconds * 1000.0 })
    });
    // In brackets stands the address, before them its number.
    let source = field("Reference ID").and_then(|text| text.split_once('(')).map_or("", |(_, rest)| rest);
    Some(State {
        synced: leap == "Normal",
        offset_ms: offset.filter(|offset| offset.is_finite()),
        stratum: field("Stratum").and_then(|stratum| stratum.parse().ok()),
        source: source.trim_end_matches(')').chars().take(64).collect(),
    })
}

/// The line of the peer that the clock follows begins with `*`, or `o` when it is a pulse.
fn ntpq(text: &str) -> Option<State> {
    if !text.contains("remote") && !text.contains("No association") {
        return None;
    }
    let Some(line) = text.lines().find(|line| line.starts_with(['*', 'o'])) else { return Some(State::default()) };
    let fields: Vec<&str> = line[1..].split_whitespace().collect();
    let number = |idx: usize| fields.get(idx).and_then(|field| field.parse().ok());
    Some(State {
        synced: true,
        offset_ms: number(8).filter(|offset: &f64| offset.is_finite()),
        stratum: number(2),
        source: fields.first().map_or_else(String::new, |source| source.chars().take(64).collect()),
    })
}

fn timedatectl(text: &str) -> Option<State> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix("NTPSynchronized="))?;
    Some(State { synced: value == "yes", ..State::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::each::tests::lines;
    use crate::checks::testing::Bench;
    use serde_json::json;

    const CHRONY: &str = "Reference ID    : A29FC87B (162.159.200.123)\nStratum         : 4\nRef time (UTC)  : Sun Nov 22 10:00:00 2026\nSystem time     : 0.123456789 seconds slow of NTP time\nLast offset     : +0.000012 seconds\nLeap status     : Normal\n";
    const NTPQ: &str = "     remote           refid      st t when poll reach   delay   offset  jitter\n==============================================================================\n+10.0.0.1        .GPS.            1 u   10   64  377    0.5    9.9   0.1\n*10.0.0.2        10.0.0.1         2 u   33   64  377    0.612   -612.5   0.044\n";

    fn check(programs: &[(&str, i32, &str)], expected: &[&str], unavailable: bool) {
        let bench = Bench::new();
        for (name, code, text) in programs {
            bench.program(name, *code, text);
        }
        let mut checks = bench.build(build, &json!({}));
        assert_eq!(lines(&bench.gather(&mut checks)), expected);
        assert_eq!((!bench.unavailable.take().is_empty(), bench.incomplete.get()), (unavailable, unavailable));
    }

    #[test]
    fn the_first_daemon_that_answers_is_believed() {
        check(
            &[("chronyc", 0, CHRONY), ("timedatectl", 0, "NTPSynchronized=no\n")],
            &[
                "ntp::sync ntp Ok: the clock is synchronised",
                "ntp::offset ntp Warning: offset 123.5ms >= warning threshold 100.0ms",
                "ntp::stratum ntp Ok: stratum 4",
            ],
            false,
        );
        check(
            &[("ntpq", 0, NTPQ)],
            &[
                "ntp::sync ntp Ok: the clock is synchronised",
                "ntp::offset ntp Critical: offset 612.5ms >= critical threshold 500.0ms",
                "ntp::stratum ntp Ok: stratum 2",
            ],
            false,
        );
        check(
            &[("ntpq", 0, &NTPQ.replace('*', " "))],
            &["ntp::sync ntp Critical: the clock is not synchronised"],
            false,
        );
        check(&[("timedatectl", 0, "NTPSynchronized=yes\n")], &["ntp::sync ntp Ok: the clock is synchronised"], false);
        let no_sync = CHRONY.replace("Normal", "Not synchronised");
        check(&[("chronyc", 0, &no_sync)], &["ntp::sync ntp Critical: the clock is not synchronised"], false);
    }

    #[test]
    fn what_fails_is_said_and_what_is_not_there_is_not() {
        check(&[], &[], true);
        check(&[("timedatectl", 1, "System has not been booted with systemd")], &[], true);
        check(
            &[("chronyc", 1, "506 Cannot talk to daemon\n"), ("timedatectl", 0, "NTPSynchronized=yes\n")],
            &["ntp::sync ntp Ok: the clock is synchronised"],
            false,
        );
        check(&[("chronyc", 1, "506")], &["ntp::sync ntp Critical: chronyc failed: is its daemon running?"], false);
        for garbage in ["", "\0\u{fffd}", ": : :", "Leap status"] {
            check(&[("ntpq", 0, garbage)], &["ntp::sync ntp Critical: the answer of ntpq was not understood"], false);
        }
    }

    #[test]
    fn strange_numbers_are_left_out() {
        let state = chrony("Leap status : Normal\nStratum : x\nSystem time : NaN seconds fast\n").unwrap();
        assert_eq!(state, State { synced: true, ..State::default() });
        let state = ntpq("remote\n*x\n").unwrap();
        assert_eq!((state.offset_ms, state.stratum, state.source.as_str()), (None, None, "x"));
    }
}
