//! One remote session, on its own thread: the work, its outputs, exactly one closing output, its lines in the audit
//! file. Whatever panics in it ends it alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use serde_json::{Map, Value, json};

use super::record::Who;
use super::runner::{ChatRunner, ChatSessionOpts, DiagnoseRunner, RunError, Stage};
use super::sessions::{Cause, End, Out, Place, Shared, ack};
use crate::fleet::wire::{Message, Metadata, SessionError, SessionOutput, SessionStart};
use crate::llm;
use crate::rt::{Slot, text};

/// A longer text is sent in pieces.
const DELTA_BYTES_MAX: usize = 128 * 1024;
/// A longer report is cut: messages stay below the wire's limit, also when every character has to be escaped.
const REPORT_BYTES_MAX: usize = 160 * 1024;

/// What a session does.
pub(super) enum Kind {
    Inspect(Arc<dyn DiagnoseRunner>),
    Diagnose(Arc<dyn DiagnoseRunner>),
    Chat(Arc<dyn ChatRunner>),
    /// Acknowledged as fine, then refused, as at the reference.
    Unknown,
}

/// Everything that a session's thread owns.
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) number: u64,
    pub(super) message_id: String,
    pub(super) start: SessionStart,
    pub(super) kind: Kind,
    pub(super) who: Who,
    pub(super) out: Out,
    pub(super) end: End,
    pub(super) input_rx: Option<Receiver<String>>,
    /// Inspect and diagnose hold it all the time, chats only while a turn runs.
    pub(super) place: Option<Place>,
    pub(super) chat_slot: Option<Slot>,
}

/// How it ended, for the closing output.
struct Closing {
    outcome: &'static str,
    report: String,
    error: Option<(&'static str, String)>,
}

impl Closing {
    fn failed(code: &'static str, error: impl Into<String>) -> Self {
        Self { outcome: "error", report: String::new(), error: Some((code, error.into())) }
    }

    fn plain(outcome: &'static str) -> Self {
        Self { outcome, report: String::new(), error: None }
    }
}

/// Sends outputs in order and records tools.
struct Teller<'a> {
    shared: &'a Shared,
    who: &'a Who,
    out: &'a Out,
    end: &'a End,
    seq: u64,
}

impl Teller<'_> {
    fn tell(&mut self, delta: &str, stage: Stage, metadata: Metadata) {
        let recorded = match stage {
            Stage::ToolCall => {
                let tool = metadata.tool.clone().unwrap_or_else(|| delta.to_owned());
                self.record("tool", &[("tool", json!(tool)), ("arguments", json!(arguments(delta, &tool)))])
            }
            Stage::ToolResult => self.record(
                "tool_result",
                &[
                    ("tool", json!(metadata.tool)),
                    ("ok", json!(metadata.tool_ok)),
                    ("duration_ms", json!(metadata.duration_ms)),
                ],
            ),
            Stage::Thinking | Stage::Answer | Stage::Error => true,
        };
        if !recorded {
            // What is not recorded is not done: the tool is about to run.
            self.end.because(Cause::Audit);
            return;
        }
        let mut rest = delta;
        loop {
            let piece = text::cut(rest, DELTA_BYTES_MAX);
            rest = &rest[piece.len()..];
            let mut metadata = metadata.clone();
            metadata.turn_done &= rest.is_empty();
            self.send(SessionOutput {
                session_id: self.who.session.clone(),
                delta: piece.to_owned(),
                stage: stage.name().to_owned(),
                metadata: Some(metadata),
                ..SessionOutput::default()
            });
            if rest.is_empty() {
                break;
            }
        }
    }

    fn send(&mut self, mut output: SessionOutput) {
        output.metadata.get_or_insert_default().seq = Some(self.seq);
        self.seq += 1;
        if !self.out.send(&Message::new("session_output", super::message_id(), &output)) {
            self.end.because(Cause::Lost);
        }
    }

    fn record(&self, event: &str, fields: &[(&str, Value)]) -> bool {
        match self.shared.audit.write(self.who, event, fields) {
            Ok(()) => true,
            Err(error) => {
                log::error!("audit file: {error}; remote sessions are refused until it can be written");
                false
            }
        }
    }
}

impl Job {
    /// The whole life of the session.
    pub(super) fn run(mut self) {
        let began = Instant::now();
        let (shared, who, out, end) = (Arc::clone(&self.shared), self.who.clone(), self.out.clone(), self.end.clone());
        let mut teller = Teller { shared: &shared, who: &who, out: &out, end: &end, seq: 0 };
        let params = Value::Object(self.start.params.clone()).to_string();
        if !teller.record("start", &[("type", json!(self.start.session_type)), ("arguments", json!(params))]) {
            self.over();
            out.send(&ack(&self.message_id, Err("the audit file of this machine cannot be written")));
            return;
        }
        log::info!("session {} ({}) for {:?}", who.session, self.start.session_type, who.user);
        out.send(&ack(&self.message_id, Ok(())));
        let mut closing = catch_unwind(AssertUnwindSafe(|| self.work(&mut teller)))
            .unwrap_or_else(|panic| Closing::failed("diagnose_failed", format!("panic: {}", panic_text(&*panic))));
        match end.cause() {
            Cause::None => {}
            Cause::Cancelled | Cause::Lost => closing = Closing::plain("cancelled"),
            Cause::Timeout => {
                let text = format!("not done after {} minutes", shared.timers.job.as_secs() / 60);
                closing = Closing { outcome: "timeout", ..Closing::failed("diagnose_failed", text) };
            }
            Cause::Audit => {
                let text = "the audit file of this machine cannot be written";
                closing = Closing::failed("diagnose_failed", text);
            }
        }
        // Before the hub hears of it: what it starts next finds the place free.
        self.over();
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let error = closing.error.as_ref().map(|(_, text)| text.clone());
        teller.record(
            "end",
            &[("outcome", json!(closing.outcome)), ("error", json!(error)), ("duration_ms", json!(duration_ms))],
        );
        if let Some((code, error)) = closing.error {
            let error = text::cut(&error, DELTA_BYTES_MAX).to_owned();
            let payload = SessionError { session_id: who.session.clone(), error, code: code.to_owned() };
            out.send(&Message::new("session_error", super::message_id(), &payload));
        }
        let mut report = closing.report;
        if report.len() > REPORT_BYTES_MAX {
            report.truncate(text::cut(&report, REPORT_BYTES_MAX).len());
            report.push_str("\n[cut]");
        }
        teller.send(SessionOutput {
            session_id: who.session.clone(),
            done: true,
            report,
            metadata: Some(Metadata { outcome: Some(closing.outcome.to_owned()), ..Metadata::default() }),
            ..SessionOutput::default()
        });
    }

    /// Gives everything back.
    fn over(&mut self) {
        self.shared.forget(&self.who.session, self.number);
        self.place = None;
        self.chat_slot = None;
    }

    fn work(&mut self, teller: &mut Teller<'_>) -> Closing {
        match &self.kind {
            Kind::Inspect(runner) => {
                let runner = Arc::clone(runner);
                self.diagnose(&*runner, "inspect", teller)
            }
            Kind::Diagnose(runner) => {
                let runner = Arc::clone(runner);
                self.diagnose(&*runner, "diagnose", teller)
            }
            Kind::Chat(runner) => {
                let runner = Arc::clone(runner);
                self.chat(&*runner, teller)
            }
            Kind::Unknown => {
                let kind = text::cut(&self.start.session_type, 64);
                Closing::failed("invalid_type", format!("unknown session_type {kind:?}"))
            }
        }
    }

    fn diagnose(&mut self, runner: &dyn DiagnoseRunner, mode: &str, teller: &mut Teller<'_>) -> Closing {
        // Wrong types are as if absent (contract agent-link 2.9).
        let mut params: Map<String, Value> = std::mem::take(&mut self.start.params);
        for name in ["plugin", "target", "descriptions"] {
            if params.get(name).is_some_and(|value| !value.is_string()) {
                params.remove(name);
            }
        }
        let or = |name: &str, default: &str| {
            let value = params.get(name).and_then(Value::as_str).filter(|value| !value.is_empty());
            value.unwrap_or(default).to_owned()
        };
        let plugin = or("plugin", if mode == "inspect" { "" } else { "system" });
        let target = or("target", "localhost");
        if plugin.is_empty() {
            return Closing::failed("missing_plugin", "inspect needs params.plugin");
        }
        params.insert("plugin".to_owned(), json!(plugin));
        params.insert("target".to_owned(), json!(target));
        let cancel = self.end.cancel.clone();
        let mut callback = |delta: &str, stage: Stage, metadata: Metadata| teller.tell(delta, stage, metadata);
        match runner.run_streaming(mode, &plugin, &target, &params, &mut callback, &cancel) {
            Ok(report) if report.trim().is_empty() => Closing::plain("empty"),
            Ok(report) => Closing { outcome: "ok", report, error: None },
            Err(RunError::Cancelled) => Closing::plain("cancelled"),
            Err(RunError::Failed(text)) => Closing::failed("diagnose_failed", text),
        }
    }

    fn chat(&mut self, runner: &dyn ChatRunner, teller: &mut Teller<'_>) -> Closing {
        let Some(input_rx) = self.input_rx.take() else { return Closing::plain("error") };
        let cancel = self.end.cancel.clone();
        let allow_shell = self.start.params.get("allow_shell").and_then(Value::as_bool).unwrap_or(false);
        let opts = ChatSessionOpts { allow_shell, history: history(&self.start.params) };
        let made = catch_unwind(AssertUnwindSafe(|| {
            let mut callback = |delta: &str, stage: Stage, data: Metadata| teller.tell(delta, stage, data);
            runner.new_session(opts, &mut callback, &cancel)
        }));
        let mut handle = match made {
            Ok(Ok(handle)) => handle,
            Ok(Err(RunError::Cancelled)) => return Closing::plain("cancelled"),
            Ok(Err(RunError::Failed(text))) => return Closing::failed("chat_init_failed", text),
            Err(panic) => return Closing::failed("chat_init_failed", format!("panic: {}", panic_text(&*panic))),
        };
        let first = self.start.params.get("message").and_then(Value::as_str).filter(|text| !text.is_empty());
        let mut next = first.map(str::to_owned);
        loop {
            let input = match next.take() {
                Some(input) => input,
                // A cancel drops the other end, which ends this wait.
                None => match input_rx.recv_timeout(self.shared.timers.chat_idle) {
                    Ok(input) => input,
                    Err(RecvTimeoutError::Timeout) => return Closing::plain("timeout"),
                    Err(RecvTimeoutError::Disconnected) => return Closing::plain("cancelled"),
                },
            };
            if cancel.is_set() {
                return Closing::plain("cancelled");
            }
            let Some(place) = self.shared.wait_for_place(&cancel) else { return Closing::plain("cancelled") };
            let turn = catch_unwind(AssertUnwindSafe(|| {
                let mut callback = |delta: &str, stage: Stage, data: Metadata| teller.tell(delta, stage, data);
                handle.handle_message(&input, &mut callback, &cancel)
            }));
            drop(place);
            if cancel.is_set() {
                return Closing::plain("cancelled");
            }
            let (text, stage) = match turn {
                Ok(Ok(reply)) => (reply, Stage::Answer),
                Ok(Err(error)) => (error.to_string(), Stage::Error),
                Err(panic) => {
                    log::error!("a turn of session {} panicked: {}", self.who.session, panic_text(&*panic));
                    ("internal error".to_owned(), Stage::Error)
                }
            };
            teller.tell(&text, stage, Metadata { turn_done: true, ..Metadata::default() });
        }
    }
}

/// What stands behind the name in `[Tool] NAME ARGUMENTS`.
fn arguments<'a>(delta: &'a str, tool: &str) -> &'a str {
    let rest = delta.strip_prefix("[Tool]").unwrap_or(delta).trim();
    rest.strip_prefix(tool).map_or(rest, str::trim)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown".to_owned())
}
/// What was said before in the conversation that a chat goes on with, as the hub remembers it. What is no message is left
/// out.
fn history(params: &serde_json::Map<String, Value>) -> Vec<llm::Message> {
    let Some(Value::Array(said)) = params.get("history") else { return Vec::new() };
    let message = |item: &Value| {
        let role = match item.get("role")?.as_str()? {
            "user" => llm::Role::User,
            "assistant" => llm::Role::Assistant,
            _ => return None,
        };
        Some(llm::Message::text(role, item.get("content")?.as_str()?))
    };
    said.iter().filter_map(message).collect()
}
