//! What people hear of alerts: one message per firing and one per recovery, summaries in a storm, one note about what
//! comes and goes.
//!
//! All that is due is a column of the alerts, so that nothing is forgotten at a restart; what was handed to the teller
//! is marked after it. A crash in between tells the same again, under the same key.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::alerts::{Alerts, News, cut_marked};
use super::alerts_storm::{Admit, FEW};
use crate::alert::Level;
use crate::rt::lock;
use crate::store::StoreError;
use crate::store::alert_rows::{AlertRow, Mark};
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
/// A description within a message.
const BODY_BYTES_MAX: usize = 2000;

/// What one round decides.
#[derive(Default)]
struct Round {
    alone: Vec<AlertRow>,
    /// By machine; under None those of all machines.
    summaries: HashMap<Option<String>, Summary>,
    marks: Vec<(i64, Mark)>,
}

#[derive(Default)]
struct Summary {
    /// Critical, warning, info, recovered.
    counts: [usize; 4],
    first: Vec<AlertRow>,
    last_id: i64,
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
        for row in &round.alone {
            self.tell(self.news(row));
        }
        for (machine, summary) in &round.summaries {
            let n = summary.counts.iter().sum();
            if lock(&self.storms).summed_up(machine.as_deref(), n, now) {
                summary.first.iter().for_each(|row| self.tell(self.news(row)));
            } else {
                self.tell(summary.news(machine.as_deref(), now));
            }
        }
        if !round.marks.is_empty() {
            self.store.mark(&round.marks, now)?;
        }
        Ok(count >= usize::try_from(ROUND_MAX).unwrap_or(usize::MAX))
    }

    fn decide(&self, round: &mut Round, mut row: AlertRow, closings: i64, silences: &[Silence], now: i64) {
        let (id, seen) = (row.id, row.tell_at);
        match verdict(&row, closings, silences, now) {
            Verdict::Nothing => return round.marks.push((id, Mark::Nothing { seen, level: row.level })),
            Verdict::Hold(until) => return round.marks.push((id, Mark::Hold { seen, until })),
            Verdict::Tell => {}
        }
        let admitted = lock(&self.storms).admit(&row.machine_id, now);
        if let Admit::Hold(until) = admitted {
            return round.marks.push((id, Mark::Hold { seen, until }));
        }
        // From here on the mark of a row says whether the note about flapping goes along.
        row.flapping = closings >= FLAPS;
        let mark = match row.closed_at {
            Some(_) => Mark::EndTold,
            None => Mark::Told { level: row.level, flapping: row.flapping },
        };
        round.marks.push((id, mark));
        match admitted {
            Admit::WithAll => round.summaries.entry(None).or_default().add(row),
            Admit::WithMachine => round.summaries.entry(Some(row.machine_id.clone())).or_default().add(row),
            Admit::Alone | Admit::Hold(_) => round.alone.push(row),
        }
    }

    fn tell(&self, news: News) {
        log::info!("alert: {}", news.title);
        if let Some(teller) = &self.teller {
            teller.tell(news);
        }
    }

    fn news(&self, row: &AlertRow) -> News {
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
        if row.flapping && !is_recovery {
            body.push_str(
                "\n\nIt comes and goes: there are no more messages about it until it has been calm for 10 minutes.",
            );
        }
        let dedup = if is_recovery {
            format!("alert-{}-end", row.id)
        } else {
            format!("alert-{}-{}-{}", row.id, row.level, row.changed_at)
        };
        News {
            dedup,
            title: title(row),
            body: cut_marked(&body, BODY_BYTES_MAX).into_owned(),
            level: if is_recovery { row.worst } else { row.level },
            is_recovery,
            machine: row.machine_id.clone(),
            check: row.check.clone(),
            target: row.target.clone(),
            labels: row.labels.clone(),
            time: row.changed_at,
            alert_id: row.id,
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
        return if row.flapping { Verdict::Nothing } else { Verdict::Tell };
    }
    // Told before: due again only as a repeat, never because it came back while its end was still to be told.
    let is_repeat = row.acknowledged_at.is_none() && now - row.told_at >= REPEAT_MS;
    if is_repeat { Verdict::Tell } else { Verdict::Nothing }
}

impl Summary {
    fn add(&mut self, row: AlertRow) {
        let place = if row.closed_at.is_some() { Level::Ok } else { row.level } as usize;
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.last_id = row.id;
        if self.first.len() < LINES_MAX.max(FEW) {
            self.first.push(row);
        }
    }

    fn news(&self, machine: Option<&str>, now: i64) -> News {
        let n: usize = self.counts.iter().sum();
        let [critical, warning, info, recovered] = self.counts;
        let is_recovery = recovered == n;
        let worst = [(critical, Level::Critical), (warning, Level::Warning), (info, Level::Info)];
        let level = worst.into_iter().find(|(count, _)| *count > 0).map_or(Level::Ok, |(_, level)| level);
        let place = match machine {
            None => "on several machines".to_owned(),
            Some(_) => self.first.first().map_or_else(String::new, |row| format!("on {}", place_of(row))),
        };
        let what = if is_recovery { "alerts recovered" } else { "alerts" };
        let mut parts = Vec::new();
        for (count, name) in [(critical, "critical"), (warning, "warning"), (info, "info"), (recovered, "recovered")] {
            if count > 0 {
                parts.push(format!("{count} {name}"));
            }
        }
        let mut body = format!("Many at once: {}.", parts.join(", "));
        for row in &self.first {
            let _ = write!(body, "\n- {}", title(row)); // a String takes everything
        }
        if n > self.first.len() {
            let _ = write!(body, "\n- and {} more", n - self.first.len());
        }
        News {
            dedup: format!("alerts-{}-{}", self.first.first().map_or(0, |row| row.id), self.last_id),
            title: format!("{n} {what} {place}"),
            body,
            level,
            is_recovery,
            machine: machine.unwrap_or_default().to_owned(),
            check: String::new(),
            target: String::new(),
            labels: std::collections::BTreeMap::new(),
            time: now,
            alert_id: 0,
        }
    }
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
