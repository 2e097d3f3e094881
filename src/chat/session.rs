//! A session in memory: what runs in it, and what waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::chat::SessionStream;
use crate::limits;
use crate::rt::Cancel;
use crate::store::turns::TurnRow;

/// How a turn ended, for whoever waits for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The error's code and text, or None for success.
    pub error: Option<(&'static str, String)>,
    /// The whole answer; after an error what there was of it.
    pub text: String,
}

/// Told about one turn. Called from threads that must go on: never blocks.
pub trait Ticket: Send {
    /// The turn starts; its first frame is the one after `after_seq`.
    fn started(&mut self, after_seq: u64);
    /// The turn has been waiting for a decision that long; told at once and again every second or so. False when this
    /// ticket does not wait any longer.
    fn parked(&mut self, _waited: Duration) -> bool {
        true
    }
    /// Asked every second or so until the turn is over: false when this ticket does not wait any longer.
    fn waits(&mut self) -> bool {
        true
    }
    /// The turn is over, its terminal frame is in the log (unless the log itself failed).
    fn ended(&mut self, outcome: &Outcome);
}

/// Why a turn is to end early.
#[derive(Clone, Default)]
pub(super) struct EndReason(Arc<AtomicU8>);

impl EndReason {
    const CANCELLED: u8 = 1;
    const STOPPING: u8 = 2;

    pub(super) fn set_cancelled(&self) {
        self.0.store(Self::CANCELLED, Ordering::Release);
    }

    pub(super) fn set_stopping(&self) {
        self.0.store(Self::STOPPING, Ordering::Release);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::STOPPING
    }
}

/// A turn that waits for decisions.
pub(super) struct Parked {
    pub(super) turn: Box<TurnRow>,
    pub(super) since: Instant,
}

/// The running turn of a session.
pub(super) struct Running {
    /// 0 while its row is being written.
    pub(super) turn_id: i64,
    pub(super) cancel: Cancel,
    pub(super) reason: EndReason,
    pub(super) after_seq: u64,
    pub(super) started: bool,
    /// Its terminal frame is on its way into the log: it is over in a moment.
    pub(super) finishing: bool,
    /// It has no thread: it waits for decisions. Whoever takes this runs it or ends it.
    pub(super) parked: Option<Parked>,
    pub(super) tickets: Vec<Box<dyn Ticket>>,
}

impl Running {
    pub(super) fn claim() -> Self {
        Self {
            turn_id: 0,
            cancel: Cancel::new(),
            reason: EndReason::default(),
            after_seq: 0,
            started: false,
            finishing: false,
            parked: None,
            tickets: Vec::new(),
        }
    }
}

/// A message behind the running turn.
pub(super) struct Waiting {
    pub(super) turn: TurnRow,
    pub(super) tickets: Vec<Box<dyn Ticket>>,
}

/// One session.
pub struct Session {
    pub(super) stream: Arc<SessionStream>,
    /// Guarded by the mutex; the stream's may be taken under it.
    pub(super) state: Mutex<SessionState>,
    /// Signalled when the running turn has ended.
    pub(super) freed: Condvar,
}

pub(super) struct SessionState {
    pub(super) running: Option<Running>,
    pub(super) waiting: VecDeque<Waiting>,
    /// Messages whose rows are being written, to join `waiting`.
    pub(super) joining: usize,
    /// The turn that ran when its conversation was deleted: its frames are forgotten at its end.
    pub(super) deleted_turn: Option<i64>,
    /// Tickets of turns that were between two places when somebody repeated their message.
    pub(super) late: Vec<(i64, Box<dyn Ticket>)>,
    pub(super) used: Instant,
}

impl SessionState {
    /// Takes the late tickets of a turn.
    pub(super) fn take_late(&mut self, turn_id: i64) -> Vec<Box<dyn Ticket>> {
        let (taken, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.late).into_iter().partition(|(id, _)| *id == turn_id);
        self.late = kept;
        taken.into_iter().map(|(_, ticket)| ticket).collect()
    }
}

impl Session {
    pub(super) fn new(stream: Arc<SessionStream>) -> Self {
        let state = SessionState {
            running: None,
            waiting: VecDeque::new(),
            joining: 0,
            deleted_turn: None,
            late: Vec::new(),
            used: Instant::now(),
        };
        Self { stream, state: Mutex::new(state), freed: Condvar::new() }
    }

    /// The state, once a turn whose end is on its way is over: a client that answers to `done` is not told to wait in
    /// line behind it. Waits for a commit of the log at the most.
    pub(super) fn settled_state(&self) -> MutexGuard<'_, SessionState> {
        let state = crate::rt::lock(&self.state);
        let finishing = |state: &mut SessionState| state.running.as_ref().is_some_and(|running| running.finishing);
        self.freed
            .wait_timeout_while(state, limits::FINISHING_WAIT, finishing)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// The numbered events of the session.
    pub fn stream(&self) -> &Arc<SessionStream> {
        &self.stream
    }

    /// Whether a turn runs or waits.
    pub fn is_live(&self) -> bool {
        let state = crate::rt::lock(&self.state);
        state.running.is_some() || !state.waiting.is_empty() || state.joining > 0
    }
}
