//! Who is there, and who is down: decided by the clock alone, so that it can be tested without one.
//!
//! A machine is down when it has been away for the grace period; meant to be off, or having said goodbye, it never is.
//! Many going down together are one round. People hear of a recovery when they heard of the fall.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::limits;
use crate::rt::order::Order;
use crate::store::machines::{Machine, MachineState, Presence};

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Tell that this machine is down.
    Down { id: String },
    /// Tell that these are.
    DownTogether { ids: Vec<String> },
    /// The machine has been away for too long; nobody wants to know.
    Lost { id: String },
    /// What was told of it alone is over.
    Back { id: String },
    /// Its round goes on without it; `is_over` when it was the last.
    BackInRound { id: String, round: i64, is_over: bool },
}

pub(super) struct Presences {
    grace: Duration,
    machines: HashMap<String, Watch>,
    /// When a round began to wait for more.
    holding: Option<Instant>,
}

struct Watch {
    name: String,
    presence: Presence,
    is_connected: bool,
    /// When it came, or when it counts as down.
    at: Instant,
    expected_off: bool,
    /// As [`Machine::down_reported`].
    reported: i64,
}

impl Presences {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, machines: HashMap::new(), holding: None }
    }

    /// A machine as the last hub left it: nobody is down before the hub has been up for a while.
    pub(super) fn restore(&mut self, machine: &Machine, now: Instant) {
        if machine.state != MachineState::Approved {
            return;
        }
        let at = now + self.grace.max(limits::MACHINE_RESTART_GRACE);
        let watch = Watch {
            name: machine.name().to_owned(),
            presence: machine.presence,
            is_connected: false,
            at,
            expected_off: machine.expected_off,
            reported: machine.down_reported,
        };
        self.machines.insert(machine.id.clone(), watch);
    }

    /// A machine is as it stands in its row; what only people set counts from now on.
    pub(super) fn update(&mut self, id: &str, name: &str, expected_off: bool) {
        if let Some(watch) = self.machines.get_mut(id) {
            name.clone_into(&mut watch.name);
            watch.expected_off = expected_off;
        }
    }

    /// A machine that is not part of the fleet any more. Whether its round is over without it, and its number.
    pub(super) fn forget(&mut self, id: &str) -> Option<(i64, bool)> {
        let watch = self.machines.remove(id)?;
        (watch.reported > 0).then(|| (watch.reported, !self.is_in_round(watch.reported)))
    }

    /// The ids of all that are watched.
    pub(super) fn ids(&self) -> Vec<String> {
        self.machines.keys().cloned().collect()
    }

    /// A machine registered.
    pub(super) fn came(&mut self, id: &str, name: &str, now: Instant) {
        let watch = self.machines.entry(id.to_owned()).or_insert_with(|| Watch {
            name: name.to_owned(),
            presence: Presence::Never,
            is_connected: false,
            at: now,
            expected_off: false,
            reported: 0,
        });
        watch.presence = Presence::Online;
        watch.is_connected = true;
        watch.at = now;
    }

    /// Its connection ended; what its presence is now, if that is different.
    pub(super) fn went(&mut self, id: &str, stopped: bool, now: Instant) -> Option<Presence> {
        let grace = self.grace;
        let watch = self.machines.get_mut(id)?;
        watch.is_connected = false;
        watch.at = now + grace;
        if stopped {
            watch.presence = Presence::Stopped;
        }
        stopped.then_some(Presence::Stopped)
    }

    /// What is due now; `silent` connected machines have not been heard of for two heartbeats. Nothing is changed by
    /// asking: what was done is told by [`Presences::done`].
    pub(super) fn due(&mut self, now: Instant, silent: usize) -> Vec<Due> {
        let mut due = Vec::new();
        let mut down = Vec::new();
        let mut doubtful = silent;
        for (id, watch) in &self.machines {
            match watch.presence {
                Presence::Online | Presence::Lost if !watch.is_connected => {
                    let is_late = now >= watch.at;
                    let is_told = watch.reported != 0;
                    if watch.expected_off {
                        if is_told {
                            due.push(self.back(id, watch));
                        } else if is_late && watch.presence == Presence::Online {
                            due.push(Due::Lost { id: id.clone() });
                        }
                    } else if is_late && !is_told {
                        down.push(id.clone());
                    } else if !is_late && watch.presence == Presence::Online {
                        doubtful += 1;
                    }
                }
                Presence::Online
                    if watch.reported != 0 && now >= watch.at + limits::MACHINE_BACK_AFTER.min(self.grace) =>
                {
                    due.push(self.back(id, watch));
                }
                Presence::Stopped if watch.reported != 0 => due.push(self.back(id, watch)),
                _ => {}
            }
        }
        if down.is_empty() {
            self.holding = None;
            return due;
        }
        let since = *self.holding.get_or_insert(now);
        let is_round = down.len() + doubtful >= limits::MACHINE_ROUND_MIN;
        if is_round && doubtful > 0 && now.saturating_duration_since(since) < limits::MACHINE_ROUND_HOLD {
            return due;
        }
        self.holding = None;
        if down.len() >= limits::MACHINE_ROUND_MIN {
            down.order();
            due.push(Due::DownTogether { ids: down });
        } else {
            due.extend(down.into_iter().map(|id| Due::Down { id }));
        }
        due
    }

    /// It was done; `round` is the number of a round that began.
    pub(super) fn done(&mut self, due: &Due, round: i64) {
        let mut set = |id: &String, presence: Option<Presence>, reported: i64| {
            if let Some(watch) = self.machines.get_mut(id) {
                watch.reported = reported;
                // It may have come back meanwhile.
                if let Some(presence) = presence.filter(|_| !watch.is_connected) {
                    watch.presence = presence;
                }
            }
        };
        match due {
            Due::Down { id } => set(id, Some(Presence::Lost), 1),
            Due::DownTogether { ids } => ids.iter().for_each(|id| set(id, Some(Presence::Lost), round)),
            Due::Lost { id } => set(id, Some(Presence::Lost), 0),
            Due::Back { id } | Due::BackInRound { id, .. } => set(id, None, 0),
        }
    }

    /// What people call a machine.
    pub(super) fn name(&self, id: &str) -> String {
        self.machines.get(id).map_or_else(|| id.to_owned(), |watch| watch.name.clone())
    }

    fn back(&self, id: &str, watch: &Watch) -> Due {
        let id = id.to_owned();
        match watch.reported {
            1 => Due::Back { id },
            round => {
                let others = self.machines.values().filter(|other| other.reported == round).count();
                Due::BackInRound { id, round, is_over: others <= 1 }
            }
        }
    }

    fn is_in_round(&self, round: i64) -> bool {
        self.machines.values().any(|watch| watch.reported == round)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Does what is due until nothing is; what it was.
    fn run(presences: &mut Presences, now: Instant) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let due = presences.due(now, 0);
            let Some(first) = due.first() else { return all };
            presences.done(first, 77);
            all.push(match first {
                Due::Down { id } => format!("down {id}"),
                Due::DownTogether { ids } => format!("down {}", ids.join("+")),
                Due::Lost { id } => format!("lost {id}"),
                Due::Back { id } => format!("back {id}"),
                Due::BackInRound { id, round, is_over } => format!("back {id} in {round}, over {is_over}"),
            });
        }
    }

    #[test]
    fn one_fall_and_one_recovery_are_told() {
        let start = Instant::now();
        let mut presences = Presences::new(GRACE);
        presences.came("a", "pi", start);
        assert_eq!(presences.went("a", false, start), None);
        assert!(run(&mut presences, start + s(59)).is_empty());
        // It flaps: every absence begins anew.
        presences.came("a", "pi", start + s(59));
        presences.went("a", false, start + s(59));
        assert!(run(&mut presences, start + s(118)).is_empty());
        assert_eq!(run(&mut presences, start + s(119)), ["down a"]);
        assert!(run(&mut presences, start + s(9000)).is_empty());
        // Back for a moment is not back.
        presences.came("a", "pi", start + s(9000));
        assert!(run(&mut presences, start + s(9009)).is_empty());
        presences.went("a", false, start + s(9009));
        assert!(run(&mut presences, start + s(9900)).is_empty());
        presences.came("a", "pi", start + s(10_000));
        assert_eq!(run(&mut presences, start + s(10_010)), ["back a"]);
        assert!(run(&mut presences, start + s(20_000)).is_empty());
    }

    #[test]
    fn those_that_said_goodbye_or_are_meant_to_be_off_are_not_down() {
        let start = Instant::now();
        let mut presences = Presences::new(GRACE);
        presences.came("a", "pi", start);
        assert_eq!(presences.went("a", true, start), Some(Presence::Stopped));
        presences.came("b", "tv", start);
        presences.update("b", "tv", true);
        presences.went("b", false, start);
        assert_eq!(run(&mut presences, start + s(600)), ["lost b"]);
        // No longer meant to be off: it is down. Meant to be off again: that is over.
        presences.update("b", "tv", false);
        assert_eq!(run(&mut presences, start + s(601)), ["down b"]);
        presences.update("b", "tv", true);
        assert_eq!(run(&mut presences, start + s(602)), ["back b"]);
    }

    #[test]
    fn many_together_are_one_round() {
        let start = Instant::now();
        let mut presences = Presences::new(GRACE);
        for id in ["a", "b", "c", "d"] {
            presences.came(id, id, start);
        }
        for (at, id) in ["a", "b", "c"].into_iter().enumerate() {
            presences.went(id, false, start + s(at as u64 * 10));
        }
        // The first is due; the others are on their way, and so may be one that is only silent.
        assert!(presences.due(start + s(60), 1).is_empty());
        assert!(presences.due(start + s(80), 1).is_empty());
        assert_eq!(run(&mut presences, start + s(81)), ["down a+b+c"]);
        presences.came("b", "b", start + s(100));
        presences.came("a", "a", start + s(100));
        let mut back = run(&mut presences, start + s(111));
        back.sort();
        assert_eq!(back, ["back a in 77, over false", "back b in 77, over false"]);
        assert_eq!(presences.forget("c"), Some((77, true)));
        // Two are not many.
        presences.went("a", false, start + s(200));
        presences.went("b", false, start + s(200));
        let mut down = run(&mut presences, start + s(261));
        down.sort();
        assert_eq!(down, ["down a", "down b"]);
    }

    #[test]
    fn a_round_waits_only_so_long() {
        let start = Instant::now();
        let mut presences = Presences::new(GRACE);
        for id in ["a", "b"] {
            presences.came(id, id, start);
            presences.went(id, false, start);
        }
        assert!(presences.due(start + s(60), 5).is_empty());
        assert_eq!(presences.due(start + s(120), 5).len(), 2);
    }
}
