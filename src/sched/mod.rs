//! What agents do by themselves at set times (contract http-api 5.2, engine 5).
//!
//! A schedule has moments: whole minutes of local time that its five fields match, or every so much time since it was
//! made. Each moment is handled once and leaves a row in `holt.db`: it was run, or skipped because the run before it was
//! not over, or missed because the hub was down, its clock was set forward, or everything was stopped. What was missed is
//! made up for by one run, if it is not older than `scheduler.catch_up`. A run's row is there before its message is
//! sent, and the message carries the row's number: a hub that was killed in between sends it again, and it counts once.
//!
//! When the clock is set back, moments that were run are not run again; those that were missed or skipped, and lie ahead
//! again, count anew. Intervals begin anew. See [`next`] for hours that are skipped or come twice.
//!
//! Threads: `sched` (1, only while there are schedules; sleeps until the next moment, at most a minute, so that a changed
//! clock is noticed; ends at the stop). Turns run on their own threads.

mod chat;
mod clock;
mod due;
mod entry;
mod launch;
mod next;
mod pass;
mod scheduler;
#[cfg(test)]
mod simulation_tests;
mod wish;

pub use chat::{ChatLauncher, Tell};
pub use clock::{Clock, SystemClock};
pub use due::{next_run, preview};
pub use entry::ScheduleInfo;
pub use launch::{Done, LaunchError, Launcher, Run, RunEnd};
pub use scheduler::{RunNowError, Scheduler, Setup};
pub use wish::{Changes, LIST, Refusal, Wish};

use crate::config::ScheduleConfig;

/// What its agent is told (contract http-api 5.2), with what it is asked behind it.
pub fn text_of(config: &ScheduleConfig) -> String {
    let head = match config.skill.as_str() {
        "" => format!("[Scheduled trigger: {}]", config.name),
        skill => format!("[Scheduled: {skill}]"),
    };
    if config.prompt.is_empty() { head } else { format!("{head}\n{}", config.prompt) }
}

/// The conversation of a run for that moment, in milliseconds since 1970.
pub fn conversation_of(config: &ScheduleConfig, moment: i64) -> String {
    entry::Entry::conversation_id(config, i128::from(moment) * 1_000_000)
}
