//! What the keeper does for the fleet, every half second: revocations, rotations, who is down, and what is written now
//! and then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::alert::Level;
use crate::fleet::hub::arrival::number;
use crate::fleet::hub::link::Link;
use crate::fleet::hub::presence::Due;
use crate::fleet::hub::{Fleet, message_id};
use crate::fleet::wire::{Ack, Message};
use crate::limits;
use crate::rt::order::Order;
use crate::rt::{clock, lock};
use crate::store::StoreError;
use crate::store::machine_readings::{Reading, Seen};
use crate::store::machines::Presence;

pub(super) const DOWN: &str = "hub::machine_down";
pub(super) const MANY_DOWN: &str = "hub::machines_down";
pub(super) const CLONED: &str = "hub::cloned_agent_id";
/// What these are about; the machine itself is named beside it.
pub(super) const TARGET: &str = "connection";
/// A second machine under an id is gone when it did not try again for this long: the longest wait of an agent, twice.
const CLONE_GONE: Duration = Duration::from_secs(600);
/// Names in the news of a round.
const NAMES_MAX: usize = 20;

pub(super) struct Upkeep {
    generation: u64,
    flushed: Instant,
    purged: Option<Instant>,
    /// Until when a reading of each machine is written: its last sign of life then.
    written: HashMap<String, i64>,
    /// Machines that have gone since the last tick: a network that fails takes many at once.
    left: Vec<Seen>,
    /// Last attempt of another machine under an id.
    clones: HashMap<String, Instant>,
}

impl Upkeep {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            generation: 0,
            flushed: now,
            purged: None,
            written: HashMap::new(),
            left: Vec::new(),
            clones: HashMap::new(),
        }
    }

    /// A machine has gone; one of each is enough.
    pub(super) fn left(&mut self, seen: Seen) {
        self.left.retain(|(id, _, _)| *id != seen.0);
        self.left.push(seen);
    }

    pub(super) fn saw_clone(&mut self, id: &str, now: Instant) {
        self.clones.insert(id.to_owned(), now);
    }
}

impl Fleet {
    /// Called by the keeper every half second. Blocks on the disk when something is due.
    pub fn tick(&self) {
        self.follow_changes();
        self.judge_presence();
        self.end_idle_chats();
        let left = std::mem::take(&mut lock(&self.upkeep).left);
        if let Err(error) = self.readings.write(&left, &[]) {
            log::warn!("record when machines were last seen: {error}");
        }
        let now = Instant::now();
        let (flushes, purges) = {
            let mut upkeep = lock(&self.upkeep);
            let flushes = now.saturating_duration_since(upkeep.flushed) >= limits::MACHINE_FLUSH_INTERVAL;
            if flushes {
                upkeep.flushed = now;
            }
            let purges = upkeep.purged.is_none_or(|at| now.saturating_duration_since(at) >= Duration::from_secs(600));
            if purges {
                upkeep.purged = Some(now);
            }
            (flushes, purges)
        };
        if flushes {
            self.flush(false);
            self.forget_clones(now);
        }
        if purges && let Err(error) = self.purge() {
            log::warn!("remove what is old of machines: {error}");
        }
    }

    /// What people, here or at the command line, have changed: revocations, rotations, names. Blocks on the disk.
    pub fn follow_changes(&self) {
        let rows = match self.changed_rows() {
            Ok(Some(rows)) => rows,
            Ok(None) => return,
            Err(error) => {
                log::warn!("look for changes of machines: {error}");
                return;
            }
        };
        let approved: HashMap<&str, &crate::store::machine_readings::WatchRow> =
            rows.iter().filter(|row| row.is_approved).map(|row| (row.id.as_str(), row)).collect();
        for link in self.links() {
            match approved.get(link.machine_id.as_str()) {
                None => {
                    log::info!("machine {} ({}) was revoked", link.machine_id, link.hostname);
                    link.peer.close(1008, "revoked");
                    // Nothing that it says counts from now on, and it gets a moment for the close frame.
                    link.end();
                    lock(&self.links).remove(&link.machine_id);
                    self.store_presence(&link.machine_id, Presence::Lost);
                    self.tell(&link.machine_id, "revoked", false);
                }
                Some(row) if row.wants_token && link.is_holt => self.send_new_token(&link),
                Some(_) => {}
            }
        }
        let known = lock(&self.presences).ids();
        for id in known {
            match approved.get(id.as_str()) {
                Some(row) => lock(&self.presences).update(&id, &row.name, row.expected_off),
                None => self.forget(&id),
            }
        }
    }

    fn changed_rows(&self) -> Result<Option<Vec<crate::store::machine_readings::WatchRow>>, StoreError> {
        let generation = self.db.generation()?;
        if lock(&self.upkeep).generation == generation {
            return Ok(None);
        }
        let rows = self.readings.watch()?;
        lock(&self.upkeep).generation = generation;
        Ok(Some(rows))
    }

    fn send_new_token(&self, link: &Link) {
        match self.machines.hand_out_token(&link.machine_id) {
            Ok(Some(new_token)) => {
                let ack = Ack { ok: true, new_token, ..Ack::default() };
                link.peer.send(&Message::new("ack", message_id(), &ack).encode());
                log::info!("machine {} ({}) has a new token", link.machine_id, link.hostname);
            }
            Ok(None) => {}
            Err(error) => log::error!("make a token for machine {}: {error}", link.machine_id),
        }
    }

    /// A machine is not part of the fleet any more: what was told of it is over.
    fn forget(&self, id: &str) {
        let round = lock(&self.presences).forget(id);
        let mut result = self.alerts.forget_machine(id);
        if let Some((round, true)) = round.filter(|(round, _)| *round > 1) {
            result = result.and_then(|()| self.alerts.recover("", MANY_DOWN, &round.to_string()));
        }
        if let Err(error) = result {
            log::error!("close the alerts of machine {id}: {error}");
        }
    }

    fn judge_presence(&self) {
        let silence = i64::try_from(limits::MACHINE_SILENT.as_millis()).unwrap_or(i64::MAX);
        let silent = lock(&self.links).values().filter(|link| link.silent_ms() > silence).count();
        loop {
            let now = Instant::now();
            let Some(due) = lock(&self.presences).due(now, silent).into_iter().next() else { return };
            // Seconds: two rounds in one cannot be, for machines of the first are told of already.
            let round = clock::unix_s().max(2);
            if let Err(error) = self.carry_out(&due, round) {
                // It is still due: the next tick tries again.
                log::error!("tell that a machine is down or back: {error}");
                return;
            }
            lock(&self.presences).done(&due, round);
        }
    }

    /// People are told first and the row follows: told twice is one alert, never told is none.
    fn carry_out(&self, due: &Due, round: i64) -> Result<(), StoreError> {
        match due {
            Due::Lost { id } => self.set_lost(id),
            Due::Down { id } => {
                let name = lock(&self.presences).name(id);
                log::warn!("machine {id} ({name}) is down");
                let text = format!("{name} has not been heard of for {}", self.away_text());
                self.alerts.raise(id, DOWN, TARGET, Level::Critical, &text)?;
                self.set_lost(id)?;
                self.readings.set_reported(std::slice::from_ref(id), 1)
            }
            Due::DownTogether { ids } => {
                let mut names: Vec<String> = ids.iter().map(|id| lock(&self.presences).name(id)).collect();
                names.order();
                log::warn!("{} machines are down: {}", ids.len(), names.join(", "));
                let more = names.len().saturating_sub(NAMES_MAX);
                names.truncate(NAMES_MAX);
                let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
                let text = format!(
                    "{} machines have not been heard of for {}; perhaps it is the network of the hub: {}{tail}",
                    ids.len(),
                    self.away_text(),
                    names.join(", ")
                );
                self.alerts.raise("", MANY_DOWN, &round.to_string(), Level::Critical, &text)?;
                ids.iter().try_for_each(|id| self.set_lost(id))?;
                self.readings.set_reported(ids, round)
            }
            Due::Back { id } => {
                self.alerts.recover(id, DOWN, TARGET)?;
                self.readings.set_reported(std::slice::from_ref(id), 0)
            }
            Due::BackInRound { id, round, is_over } => {
                if *is_over {
                    self.alerts.recover("", MANY_DOWN, &round.to_string())?;
                }
                self.readings.set_reported(std::slice::from_ref(id), 0)
            }
        }
    }

    fn set_lost(&self, id: &str) -> Result<(), StoreError> {
        self.readings.set_presence(id, Presence::Lost, clock::unix_ms())?;
        self.tell(id, "lost", false);
        Ok(())
    }

    pub(super) fn store_presence(&self, id: &str, presence: Presence) {
        if let Err(error) = self.readings.set_presence(id, presence, clock::unix_ms()) {
            log::error!("record the presence of machine {id}: {error}");
        }
    }

    fn away_text(&self) -> String {
        let seconds = self.config.down_after.as_secs();
        match seconds {
            0..120 => format!("{} s", seconds.max(1)),
            _ => format!("{} minutes", seconds / 60),
        }
    }

    /// Writes signs of life and readings of all that were heard of since the last time.
    pub(super) fn flush(&self, stopping: bool) {
        let links: Vec<Arc<Link>> = self.links();
        let now = clock::unix_ms();
        let minute = now - now.rem_euclid(60_000);
        let mut readings = Vec::new();
        let mut seen: Vec<Seen>;
        {
            let mut upkeep = lock(&self.upkeep);
            seen = std::mem::take(&mut upkeep.left);
            upkeep.written.retain(|id, _| links.iter().any(|link| link.machine_id == *id));
            for link in &links {
                let at = link.last_seen_at();
                if upkeep.written.insert(link.machine_id.clone(), at) == Some(at) {
                    continue;
                }
                let heartbeat = link.heartbeat();
                if let Some(heartbeat) = heartbeat.as_ref().filter(|_| !stopping) {
                    let of = |name| number(heartbeat, name);
                    let reading = Reading {
                        at: minute,
                        cpu_pct: of("cpu_pct"),
                        mem_pct: of("mem_pct"),
                        disk_pct: of("disk_pct"),
                        load1: of("load1"),
                        temp_c: of("temp_c"),
                    };
                    if reading != (Reading { at: minute, ..Reading::default() }) {
                        readings.push((link.machine_id.clone(), reading));
                    }
                }
                seen.push((link.machine_id.clone(), at, heartbeat));
            }
        }
        if let Err(error) = self.readings.write(&seen, &readings) {
            log::warn!("record what machines told: {error}");
        }
    }

    fn forget_clones(&self, now: Instant) {
        let gone: Vec<String> = lock(&self.upkeep)
            .clones
            .extract_if(|_, at| now.saturating_duration_since(*at) >= CLONE_GONE)
            .map(|(id, _)| id)
            .collect();
        for id in gone {
            if let Err(error) = self.alerts.recover(&id, CLONED, TARGET) {
                log::error!("end an alert about a cloned id: {error}");
            }
        }
    }

    fn purge(&self) -> Result<(), StoreError> {
        let before = |age: Duration| clock::unix_ms() - i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        self.machines.forget_requests(before(limits::MACHINE_REQUEST_TTL))?;
        self.codes.purge()?;
        self.readings.purge(before(limits::MACHINE_READINGS_FULL), before(limits::MACHINE_READINGS_KEPT))?;
        self.rows.purge(before(limits::MACHINE_SESSIONS_KEPT))?;
        Ok(())
    }
}
