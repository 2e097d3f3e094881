//! The side that does what a schedule is for. The scheduler knows only when, and what became of it.

use std::sync::{Arc, Mutex};

use crossbeam_channel::Sender;

use crate::config::ScheduleConfig;
use crate::rt::lock;
use crate::store::schedule_runs::RunRow;

/// One run: its row is there.
#[derive(Clone, Debug)]
pub struct Run {
    /// Of its row; never given twice.
    pub id: i64,
    pub schedule: Arc<ScheduleConfig>,
    pub conversation_id: String,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunEnd {
    /// Empty: well.
    pub error: String,
    /// The answer, or what there was of it.
    pub text: String,
}

/// Why a run could not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaunchError {
    /// Too much is going on; it is tried again.
    Busy,
    /// The reason.
    Refused(String),
}

/// Does what a schedule is for.
pub trait Launcher: Send + Sync {
    /// Whether nothing may run until somebody says otherwise.
    fn is_paused(&self) -> bool;

    /// Begins a run; `done` hears of its end. The same run given again is not begun again. Blocks on the disk.
    fn launch(&self, run: &Run, done: Done) -> Result<(), LaunchError>;

    /// A run from before a restart: `done` hears of its end. False when it was never begun.
    fn rejoin(&self, run: &Run, done: Done) -> Result<bool, LaunchError>;

    /// Ends a run that takes too long; false when it waits for somebody's decision and is left alone.
    fn stop(&self, run: &Run) -> bool;

    /// Tells people how a run ended. Never waits for a network.
    fn tell(&self, run: &Run, row: &RunRow, end: &RunEnd);
}

/// Runs that have ended and whose rows do not say so yet.
pub(super) struct Inbox {
    /// Guarded by this mutex: at most one entry for each run that goes on. Nothing is taken under it.
    ended: Mutex<Vec<(i64, RunEnd)>>,
    bell_tx: Sender<()>,
}

impl Inbox {
    pub(super) fn new(bell_tx: Sender<()>) -> Arc<Self> {
        Arc::new(Self { ended: Mutex::new(Vec::new()), bell_tx })
    }

    pub(super) fn put(&self, run: i64, end: RunEnd) {
        lock(&self.ended).push((run, end));
        self.ring();
    }

    /// An entry that could not be worked on: without a ring, its time comes.
    pub(super) fn put_back(&self, run: i64, end: RunEnd) {
        lock(&self.ended).push((run, end));
    }

    /// The run was not begun: what was heard of it means nothing.
    pub(super) fn forget(&self, run: i64) {
        lock(&self.ended).retain(|(id, _)| *id != run);
    }

    pub(super) fn take(&self) -> Vec<(i64, RunEnd)> {
        std::mem::take(&mut *lock(&self.ended))
    }

    /// There is something to look at. Never waits.
    pub(super) fn ring(&self) {
        let _ = self.bell_tx.try_send(()); // full: a wake-up is already on its way
    }
}

/// Hears of the end of one run. Dropped without that, the run counts as lost.
pub struct Done {
    inbox: Arc<Inbox>,
    run: i64,
    is_told: bool,
}

impl Done {
    pub(super) fn new(inbox: &Arc<Inbox>, run: i64) -> Self {
        Self { inbox: Arc::clone(inbox), run, is_told: false }
    }

    /// The run has ended. Never waits.
    pub fn tell(mut self, end: RunEnd) {
        self.is_told = true;
        self.inbox.put(self.run, end);
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if !self.is_told {
            let error = "its conversation was deleted".to_owned();
            self.inbox.put(self.run, RunEnd { error, text: String::new() });
        }
    }
}
