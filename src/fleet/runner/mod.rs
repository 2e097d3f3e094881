//! Who answers remote sessions: a model with the host tools, or the built-in planner where there is none
//! (contract agent-link 4).
//!
//! Everything is in memory. Threads: one `tool-call` for each call of a round that has several, owned by [`Runners`].

mod budget;
mod calls;
mod chat;
mod prompt;
mod rounds;
#[cfg(test)]
mod runner_tests;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::checks::{checks_tool, hosts_of, own_limits};
use crate::diag::{HostRoot, machine_tools};
use crate::fleet::link::runner::{
    ChatHandle, ChatRunner, ChatSessionOpts, DiagnoseRunner, RunError, Stage, StreamCallback,
};
use crate::fleet::runner::chat::Chat;
use crate::fleet::runner::rounds::{Rounds, Style};
use crate::fleet::wire::Metadata;
use crate::llm::local::{AREAS, Diagnostician, Question};
use crate::llm::{Completion, LlmError, Message, NoMeter, Request, Role, Router, Sink};
use crate::net::guard::{Guard, Origin};
use crate::rt::{Cancel, Threads, clock};
use crate::tools::ToolSet;

/// What a call of a model is for; the gateway tells it to the hub (contract agent-link 5.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// `diagnose` or `chat`.
    pub name: &'static str,
    /// Names the run; empty in a chat.
    pub run_id: String,
    /// What a run is about; both empty in a chat.
    pub plugin: String,
    pub target: String,
}

/// A model that sessions can ask. `request.model` is empty: it knows its own.
pub trait Model: Send + Sync {
    /// Makes one call; blocks until it is answered, has failed, or is cancelled.
    fn ask(&self, scene: &Scene, request: Request<'_>, cancel: &Cancel) -> Result<Completion, LlmError>;
}

impl Model for Router {
    fn ask(&self, _: &Scene, request: Request<'_>, cancel: &Cancel) -> Result<Completion, LlmError> {
        Ok(self.complete(request, &NoMeter, &mut Unheard, cancel)?.completion)
    }
}

/// Nobody follows the pieces of a model's answer: outputs of sessions are whole texts.
struct Unheard;

impl Sink for Unheard {
    fn text(&mut self, _: &str) {}
    fn thinking(&mut self, _: &str) {}
}

/// How far a session may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Calls of the model in one inspect or diagnose run (contract agent-link 4.8).
    pub rounds_max: u32,
    /// The same in one turn of a chat.
    pub chat_rounds_max: u32,
    /// The model's context window in tokens; 80 % of it are used.
    pub context_tokens: usize,
    /// One tool call.
    pub tool_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        // 32k: what common small models have; who has more sets it.
        Self { rounds_max: 15, chat_rounds_max: 20, context_tokens: 32_768, tool_timeout: Duration::from_secs(10) }
    }
}

/// Rounds of the planner: a look, a closer look, one more, the report.
const LOCAL_ROUNDS_MAX: u32 = 4;

/// Implements both runners.
#[derive(Clone)]
pub struct Runners {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    model: Option<Arc<dyn Model>>,
    tools: ToolSet,
    threads: Threads,
}

/// What the planner found.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    pub text: String,
    /// The same for programs: `summary`, `level`, `causes`, `items`, `actions`, `not_seen`.
    pub json: Value,
}

impl Runners {
    /// Sessions with these tools. Without a model the built-in planner answers.
    pub fn new(settings: Settings, model: Option<Arc<dyn Model>>, tools: ToolSet) -> Self {
        Self { inner: Arc::new(Inner { settings, model, tools, threads: Threads::new() }) }
    }

    /// Sessions of this machine: all tools that there are for it, and its own checks (the table `[checks]`, or null).
    /// Probes of URLs reach the internet, and what those checks look at.
    pub fn of_machine(settings: Settings, model: Option<Arc<dyn Model>>, checks: &Value) -> Self {
        let guard = Guard::new(Origin::Untrusted).allow_inside(&hosts_of(checks), "a target in [checks]");
        let mut tools = machine_tools(HostRoot::system().judged_by(own_limits(checks)), guard);
        tools.push(checks_tool(checks.clone(), HostRoot::system()));
        Self::new(settings, model, ToolSet::new(tools))
    }

    /// Looks without a model, whether there is one or not.
    pub fn inspect_locally(
        &self,
        question: Question,
        callback: &mut StreamCallback<'_>,
        cancel: &Cancel,
    ) -> Result<Inspection, RunError> {
        let planner = Diagnostician::new(question);
        let mut messages = vec![Message::text(Role::User, prompt::KICK_OFF)];
        let text = self.inner.locally(&planner, &mut messages, Style::Run, callback, cancel)?;
        Ok(Inspection { text, json: planner.conclude(&messages).to_json() })
    }
}

impl Inner {
    fn locally(
        &self,
        planner: &Diagnostician,
        messages: &mut Vec<Message>,
        style: Style,
        callback: &mut StreamCallback<'_>,
        cancel: &Cancel,
    ) -> Result<String, RunError> {
        let mind = rounds::Mind::Local(planner);
        let rounds = Rounds { mind, style, rounds_max: LOCAL_ROUNDS_MAX, inner: self };
        rounds.run(messages, callback, cancel)
    }

    /// What the planner makes of it, for the prompt of a model; nothing but its tool calls is told.
    fn baseline(
        &self,
        question: Question,
        callback: &mut StreamCallback<'_>,
        cancel: &Cancel,
    ) -> Result<String, RunError> {
        let mut messages = vec![Message::text(Role::User, prompt::KICK_OFF)];
        match self.locally(&Diagnostician::new(question), &mut messages, Style::Quiet, callback, cancel) {
            Ok(text) => Ok(crate::rt::text::cut(&text, prompt::BASELINE_BYTES_MAX).to_owned()),
            Err(RunError::Cancelled) => Err(RunError::Cancelled),
            Err(RunError::Failed(text)) => Ok(format!("(the host could not be looked at: {text})")),
        }
    }

    fn with_model(
        &self,
        model: &dyn Model,
        question: &Question,
        callback: &mut StreamCallback<'_>,
        cancel: &Cancel,
    ) -> Result<String, RunError> {
        let baseline = self.baseline(question.clone(), callback, cancel)?;
        let mut messages = vec![
            Message::text(Role::System, prompt::of_run(question, &baseline)),
            Message::text(Role::User, prompt::KICK_OFF),
        ];
        let mode = if question.inspect { "inspect" } else { "diagnose" };
        let run_id = format!("{mode}_{}_{}", question.area, clock::unix_ms());
        let (plugin, target) = (question.area.clone(), question.target.clone());
        let scene = Scene { name: "diagnose", run_id, plugin, target };
        let mind = rounds::Mind::Model(model, &scene);
        let rounds = Rounds { mind, style: Style::Run, rounds_max: self.settings.rounds_max, inner: self };
        rounds.run(&mut messages, callback, cancel)
    }
}

impl DiagnoseRunner for Runners {
    fn run_streaming(
        &self,
        mode: &str,
        plugin: &str,
        target: &str,
        params: &Map<String, Value>,
        callback: &mut StreamCallback<'_>,
        cancel: &Cancel,
    ) -> Result<String, RunError> {
        let inspect = match mode {
            "inspect" => true,
            "diagnose" => false,
            other => return Err(RunError::Failed(format!("there is no run of type {other:?}"))),
        };
        let about = params.get("descriptions").and_then(Value::as_str).unwrap_or("");
        let question = Question::new(inspect, plugin, target, about);
        // A check-up of something that nobody here knows would be a report about something else.
        if inspect && !AREAS.contains(&question.area.as_str()) {
            let known = AREAS.join(", ");
            return Err(RunError::Failed(format!("{plugin:?} cannot be inspected here: known are {known}")));
        }
        let Some(model) = &self.inner.model else {
            return self.inspect_locally(question, callback, cancel).map(|inspection| inspection.text);
        };
        match self.inner.with_model(&**model, &question, callback, cancel) {
            Err(RunError::Failed(why)) => {
                callback(&instead(&why), Stage::Thinking, Metadata::default());
                self.inspect_locally(question, callback, cancel).map(|inspection| inspection.text)
            }
            other => other,
        }
    }
}

/// What is told when the planner takes over.
fn instead(why: &str) -> String {
    format!("The model cannot be asked ({why}): the built-in planner looks instead.")
}

impl ChatRunner for Runners {
    fn new_session(
        &self,
        opts: ChatSessionOpts,
        callback: &mut StreamCallback<'_>,
        cancel: &Cancel,
    ) -> Result<Box<dyn ChatHandle>, RunError> {
        let snapshot = match &self.inner.model {
            Some(_) => self.inner.baseline(Question::new(true, "system", "", ""), callback, cancel)?,
            // The planner looks for itself.
            None => String::new(),
        };
        Ok(Box::new(Chat::new(Arc::clone(&self.inner), &snapshot, opts.history)))
    }
}
