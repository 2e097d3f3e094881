//! Runs as turns: the message of a schedule, its conversation, and who is told of the answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::launch::{Done, LaunchError, Launcher, Run, RunEnd};
use crate::agents::remote::Operation;
use crate::alert::Level;
use crate::chat::access::Caller;
use crate::chat::engine::{Outcome, Work};
use crate::chat::scheduled::tier_params;
use crate::chat::{ChatError, Engine, Submit, Ticket};
use crate::notify::{Kind, Notice};
use crate::rt::lock;
use crate::store::StoreError;
use crate::store::schedule_runs::{RunRow, message_id};

/// Where turns of schedules come from.
const ORIGIN: &str = "schedule";
/// Who owns their conversations, and pays: `[costs.keys.scheduler]` limits them.
const IDENTITY: &str = "scheduler";

/// Tells the notification channels of that name (`*`: all) something; false when it could not be kept.
pub type Tell = Box<dyn Fn(&str, &Notice) -> bool + Send + Sync>;

/// Sends messages to agents.
pub struct ChatLauncher {
    engine: Engine,
    caller: Caller,
    tell: Tell,
    /// Guarded by this mutex: whether the turns of runs have begun. Nothing is taken under it.
    begun: Mutex<HashMap<i64, Arc<AtomicBool>>>,
}

impl ChatLauncher {
    /// Over a running engine.
    pub fn new(engine: Engine, tell: Tell) -> Self {
        let caller = Caller { identity: IDENTITY.to_owned(), reads_all: false, writes_all: false };
        Self { engine, caller, tell, begun: Mutex::default() }
    }

    fn ticket(&self, run: &Run, done: Done) -> Box<dyn Ticket> {
        let begun = Arc::default();
        lock(&self.begun).insert(run.id, Arc::clone(&begun));
        Box::new(RunTicket { begun, done: Some(done) })
    }

    fn submit(&self, run: &Run, done: Done) -> Result<(), LaunchError> {
        let config = &run.schedule;
        let unknown = || LaunchError::Refused(format!("there is no agent {:?} any more", config.agent));
        let agent = self.engine.agents().find(&config.agent).ok_or_else(unknown)?.tier;
        let (text, message_id) = (super::text_of(&run.schedule), message_id(run.id));
        let params = tier_params(config.session_tier.of(agent));
        let submit = Submit {
            session_id: Some(&run.conversation_id),
            agent: &config.agent,
            text: &text,
            user_name: IDENTITY,
            message_id: Some(&message_id),
            origin: ORIGIN,
            caller: &self.caller,
            work: Work { operation: Operation::Chat, params: &params },
        };
        self.engine.submit(&submit, Some(self.ticket(run, done))).map(|_| ()).map_err(refused)
    }
}

fn refused(error: ChatError) -> LaunchError {
    match error {
        ChatError::QueueFull | ChatError::Stopping | ChatError::Store(StoreError::Full | StoreError::Busy) => {
            LaunchError::Busy
        }
        ChatError::Denied => LaunchError::Refused(
            "the conversation of its channel belongs to somebody else; use session_mode \"isolated\"".to_owned(),
        ),
        error => LaunchError::Refused(error.to_string()),
    }
}

impl Launcher for ChatLauncher {
    fn is_paused(&self) -> bool {
        self.engine.is_panicked()
    }

    fn launch(&self, run: &Run, done: Done) -> Result<(), LaunchError> {
        self.submit(run, done)
    }

    fn rejoin(&self, run: &Run, done: Done) -> Result<bool, LaunchError> {
        let known = self.engine.rejoin(IDENTITY, &message_id(run.id), self.ticket(run, done)).map_err(refused)?;
        Ok(known)
    }

    fn stop(&self, run: &Run) -> bool {
        let has_begun = lock(&self.begun).get(&run.id).is_some_and(|begun| begun.load(Ordering::Acquire));
        // Behind another turn of its conversation it is not its own that would be stopped.
        if !has_begun || self.engine.is_parked(&run.conversation_id) {
            return false;
        }
        if let Err(error) = self.engine.cancel(&run.conversation_id, &self.caller) {
            log::debug!("schedule {}: end its run: {error}", run.schedule.name);
        }
        true
    }

    fn tell(&self, run: &Run, row: &RunRow, end: &RunEnd) {
        lock(&self.begun).remove(&run.id);
        let Some(channels) = run.schedule.notified() else { return };
        let name = &run.schedule.name;
        let (title, level) = match row.state.as_str() {
            "ok" => (name.clone(), Level::Info),
            _ => (format!("{name} failed"), Level::Warning),
        };
        let body = match (end.error.as_str(), end.text.as_str()) {
            ("", "") => "It had nothing to say.".to_owned(),
            ("", text) => text.to_owned(),
            (error, "") => error.to_owned(),
            (error, text) => format!("{error}\n\n{text}"),
        };
        let notice = Notice {
            dedup: format!("schedule:{name}:{}", row.id),
            kind: Kind::Report,
            level,
            title,
            body,
            labels: [("schedule".to_owned(), name.clone()), ("agent".to_owned(), run.schedule.agent.clone())].into(),
            time: row.finished_at.unwrap_or(0),
            ..Notice::default()
        };
        if !(self.tell)(channels, &notice) {
            log::warn!("schedule {name}: nobody could be told of its run");
        }
    }
}

/// Hears of a run's turn.
struct RunTicket {
    begun: Arc<AtomicBool>,
    done: Option<Done>,
}

impl Ticket for RunTicket {
    fn started(&mut self, _after_seq: u64) {
        self.begun.store(true, Ordering::Release);
    }

    fn ended(&mut self, outcome: &Outcome) {
        if let Some(done) = self.done.take() {
            let error = outcome.error.as_ref().map(|(code, message)| format!("{code}: {message}"));
            done.tell(RunEnd { error: error.unwrap_or_default(), text: outcome.text.clone() });
        }
    }
}
