//! What people hear of alerts: one message per firing and one per recovery, summaries in a storm, one note about what
//! comes and goes.
//!
//! All that is due is a column of the alerts, so that nothing is forgotten at a restart; what was handed to the teller
//! is marked after it. A crash in between tells the same again, under the same key.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::alerts::{Alerts, cut_marked};
use super::alerts_storm::{Admit, FEW};
use crate::alert::Level;
use crate::notify::{Kind, Notice};
use crate::rt::lock;
use crate::store::StoreError;
use crate::store::alert_rows::{AlertRow, Mark, ToldAs};
use crate::store::alerts::REPEAT_MS;
use crate::store::silences::Silence;

/// Closed this often within [`FLAP_MS`]: it comes and goes.
const FLAPS: i64 = 3;
/// Calm for this long: it does no longer.
const FLAP_MS: i64 = 10 * 60 * 1000;
/// Alerts of one round; more follow at once.
const ROUND_MAX: i64 = 5000;
/// Lines of a summary that name alerts.
const LINES_MAX: usize = 10;
/// After the database could not be asked.
const RETRY: Duration = Duration::from_secs(5);
/// Longest sleep: the clock of the hub may be put forward meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(600);
/// Until what could not be handed over is tried again.
const LATER_MS: i64 = 30_000;
/// A description within a message.
const BODY_BYTES_MAX: usize = 2000;

/// What one round decides.
#[derive(Default)]
struct Round {
    alone: Vec<AlertRow>,
    /// By machine; under None those of all machines.
    summaries: HashMap<Option<String>, Summary>,
    /// Of which summaries an alert has ended.
    ended: HashMap<Option<String>, AlertRow>,
    marks: Vec<(i64, Mark)>,
}

/// Many alerts in one message.
#[derive(Default)]
struct Summary {
    /// Critical, warning, info.
    counts: [usize; 3],
    first: Vec<AlertRow>,
    told: Vec<(i64, Level)>,
}

/// What to do about one alert.
enum Verdict {
    Tell,
    Hold(i64),
    Nothing,
}

impl Alerts {
    /// Tells whatever is due; how long to sleep then.
    pub(super) fn tell_due(&self, now: i64) -> Duration {
        match self.round(now) {
            Ok(true) => Duration::ZERO,
            Ok(false) => match self.store.next_due() {
                Ok(None) => SLEEP_MAX,
                Ok(Some(at)) => Duration::from_millis(u64::try_from(at - now).unwrap_or(0).max(10)).min(SLEEP_MAX),
                Err(error) => failed(&error),
            },
            Err(error) => failed(&error),
        }
    }

    /// One round; whether there is more.
    fn round(&self, now: i64) -> Result<bool, StoreError> {
        let silences = self.silences.list(now)?;
        let mut round = Round::default();
        let count = self.store.due(now, now - FLAP_MS, ROUND_MAX, |row, closings| {
            self.decide(&mut round, row, closings, &silences, now);
        })?;
        let Round { alone, summaries, ended, mut marks } = round;
        for row in &alone {
            self.tell_alone(row, &mut marks);
        }
        for (machine, summary) in &summaries {
            if lock(&self.storms).summed_up(machine.as_deref(), summary.told.len(), now) {
                summary.first.iter().for_each(|row| self.tell_alone(row, &mut marks));
            } else if self.tell(&summary.notice(machine.as_deref(), now)) {
                let told_as = if machine.is_some() { ToldAs::AmongMany } else { ToldAs::AmongAll };
                marks.extend(summary.told.iter().map(|&(id, level)| (id, Mark::Told { level, told_as })));
            }
        }
        if !marks.is_empty() {
            self.store.mark(&marks, now)?;
        }
        for (machine, row) in &ended {
            if !self.store.is_summary_open(machine.as_deref())? {
                self.tell(&end_of_summary(machine.as_deref(), row, now));
            }
        }
        Ok(count >= usize::try_from(ROUND_MAX).unwrap_or(usize::MAX))
    }

    fn decide(&self, round: &mut Round, mut row: AlertRow, closings: i64, silences: &[Silence], now: i64) {
        let (id, seen) = (row.id, row.tell_at);
        let mark = match verdict(&row, closings, silences, now) {
            Verdict::Nothing => Mark::Nothing { seen, level: row.level },
            Verdict::Hold(until) => Mark::Hold { seen, until },
            Verdict::Tell if row.closed_at.is_some() => match row.told_as {
                // The end of a summary is one message too.
                ToldAs::AmongMany | ToldAs::AmongAll => {
                    let machine = (row.told_as == ToldAs::AmongMany).then(|| row.machine_id.clone());
                    round.ended.insert(machine, row);
                    Mark::EndTold
                }
                ToldAs::Alone | ToldAs::Flapping => return round.alone.push(row),
            },
            Verdict::Tell => {
                row.told_as = if closings >= FLAPS { ToldAs::Flapping } else { ToldAs::Alone };
                let scope = match lock(&self.storms).admit(&row.machine_id, now) {
                    Admit::Alone => return round.alone.push(row),
                    Admit::WithAll => None,
                    Admit::WithMachine => Some(row.machine_id.clone()),
                    Admit::Hold(until) => return round.marks.push((id, Mark::Hold { seen, until })),
                };
                return round.summaries.entry(scope).or_default().add(row);
            }
        };
        round.marks.push((id, mark));
    }

    /// What could not be handed over stays due.
    fn tell_alone(&self, row: &AlertRow, marks: &mut Vec<(i64, Mark)>) {
        if self.tell(&self.notice(row)) {
            let mark = match row.closed_at {
                Some(_) => Mark::EndTold,
                None => Mark::Told { level: row.level, told_as: row.told_as },
            };
            marks.push((row.id, mark));
        } else {
            marks.push((row.id, Mark::Hold { seen: row.tell_at, until: row.tell_at + LATER_MS }));
        }
    }

    fn tell(&self, notice: &Notice) -> bool {
        log::info!("alert: {}", notice.title);
        self.teller.tell(notice)
    }

    fn notice(&self, row: &AlertRow) -> Notice {
        let is_recovery = row.closed_at.is_some();
        let mut body = if is_recovery {
            let said = if row.close_reason == "recovered" { self.last_words(row) } else { String::new() };
            match row.close_reason.as_str() {
                "by hand" => row.note.clone(),
                "gone" => "The machine was removed from this hub.".to_owned(),
                _ if said.is_empty() => format!("It was: {}", row.description),
                _ => said,
            }
        } else {
            row.description.clone()
        };
        if row.told_as == ToldAs::Flapping && !is_recovery {
            body.push_str(
                "\n\nIt comes and goes: there are no more messages about it until it has been calm for 10 minutes.",
            );
        }
        Notice {
            // The incident: an alert that opens again before its end was told is the same to people.
            dedup: format!("alert:{}:{}", row.machine_id, row.key),
            kind: if is_recovery { Kind::Recovered } else { Kind::Firing },
            level: row.level,
            title: title(row),
            body: cut_marked(&body, BODY_BYTES_MAX).into_owned(),
            machine_id: row.machine_id.clone(),
            machine: place_of(row).to_owned(),
            check: row.check.clone(),
            target: row.target.clone(),
            labels: row.labels.clone(),
            time: row.changed_at,
            ..Notice::default()
        }
    }

    fn last_words(&self, row: &AlertRow) -> String {
        self.store.last_words(&row.machine_id, &row.key).unwrap_or_default()
    }
}

fn verdict(row: &AlertRow, closings: i64, silences: &[Silence], now: i64) -> Verdict {
    if let Some(closed_at) = row.closed_at {
        return match row.told {
            None => Verdict::Nothing,
            // It may come back any moment.
            Some(_) if closings >= FLAPS => Verdict::Hold(closed_at + FLAP_MS),
            Some(_) => Verdict::Tell,
        };
    }
    let silenced_until = silences
        .iter()
        .filter(|silence| silence.matches(row))
        .map(|silence| silence.until)
        .fold(row.silenced_until, i64::max);
    if silenced_until > now {
        return Verdict::Hold(silenced_until);
    }
    let is_news = row.told.is_none_or(|told| row.level.is_worse_than(told));
    if is_news {
        return Verdict::Tell;
    }
    if closings >= FLAPS {
        return if row.told_as == ToldAs::Flapping { Verdict::Nothing } else { Verdict::Tell };
    }
    // Told before: due again only as a repeat, never because it came back while its end was still to be told.
    let is_repeat = row.acknowledged_at.is_none() && now - row.told_at >= REPEAT_MS;
    if is_repeat { Verdict::Tell } else { Verdict::Nothing }
}

impl Summary {
    fn add(&mut self, row: AlertRow) {
        if let Some(count) = self.counts.get_mut(row.level as usize) {
            *count += 1;
        }
        self.told.push((row.id, row.level));
        if self.first.len() < LINES_MAX.max(FEW) {
            self.first.push(row);
        }
    }

    fn notice(&self, machine: Option<&str>, now: i64) -> Notice {
        let n = self.told.len();
        let levels = [Level::Critical, Level::Warning, Level::Info];
        let counted = || levels.into_iter().zip(self.counts).filter(|(_, count)| *count > 0);
        let parts: Vec<String> = counted().map(|(level, count)| format!("{count} {level}")).collect();
        let mut body = format!("Many at once: {}.", parts.join(", "));
        for row in &self.first {
            let _ = write!(body, "\n- {}", title(row)); // a String takes everything
        }
        if n > self.first.len() {
            let _ = write!(body, "\n- and {} more", n - self.first.len());
        }
        let place = self.first.first().filter(|_| machine.is_some()).map_or("several machines", place_of);
        Notice {
            dedup: summary_of(machine),
            level: counted().next().map_or(Level::Info, |(level, _)| level),
            title: format!("{n} alerts on {place}"),
            body,
            machine_id: machine.unwrap_or_default().to_owned(),
            machine: if machine.is_some() { place.to_owned() } else { String::new() },
            time: now,
            ..Notice::default()
        }
    }
}

/// The last alert of a summary is over.
fn end_of_summary(machine: Option<&str>, last: &AlertRow, now: i64) -> Notice {
    let place = if machine.is_some() { place_of(last) } else { "several machines" };
    Notice {
        dedup: summary_of(machine),
        kind: Kind::Recovered,
        level: Level::Ok,
        title: format!("Recovered: the many alerts on {place}"),
        body: format!("The last one was {} {}.", last.check, last.target).replace(" .", "."),
        machine_id: machine.unwrap_or_default().to_owned(),
        machine: if machine.is_some() { place.to_owned() } else { String::new() },
        time: now,
        ..Notice::default()
    }
}

/// The incident that a summary is about.
fn summary_of(machine: Option<&str>) -> String {
    format!("alerts:{}", machine.unwrap_or("*"))
}

fn title(row: &AlertRow) -> String {
    let state = match (row.closed_at, row.close_reason.as_str()) {
        (None, _) => row.level.name(),
        (Some(_), "by hand" | "gone") => "Closed",
        (Some(_), _) => "Recovered",
    };
    let target = if row.target.is_empty() { String::new() } else { format!(" {}", row.target) };
    cut_marked(&format!("{state}: {}{target} on {}", row.check, place_of(row)), 200).into_owned()
}

/// The name of the machine as people know it.
fn place_of(row: &AlertRow) -> &str {
    match (row.machine_name.as_str(), row.labels.get("from_hostname"), row.machine_id.as_str()) {
        ("", Some(name), _) => name,
        ("", None, "") => "the hub",
        ("", None, id) => id,
        (name, ..) => name,
    }
}

fn failed(error: &StoreError) -> Duration {
    log::error!("look for alerts that are due: {error}");
    RETRY
}
