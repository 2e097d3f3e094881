//! Making the calls of a round: one on the turn's thread, several at the same time on threads of their own.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::Value;

use crate::chat::event::ChatEvent;
use crate::chat::round::{Permission, Round, shown_arguments};
use crate::chat::turn::{TurnError, TurnRun};
use crate::limits;
use crate::llm::{LlmError, Message, Role};
use crate::metrics;
use crate::rt::{Cancel, lock};
use crate::store::audit::{Entry, Outcome};
use crate::store::rules::RuleScope;
use crate::store::turns::StepRow;
use crate::tools::{Tool, ToolContext, ToolError};

/// A call on its way; owns what its thread needs.
struct Job {
    index: usize,
    tool: Arc<dyn Tool>,
    arguments: Value,
    cancel: Cancel,
}

struct Finished {
    index: usize,
    result: Result<String, ToolError>,
    took: Duration,
}

impl Round {
    /// Makes what may be made, stores and emits each result, and adds calls and results to the prompt.
    pub(super) fn execute(self, run: &TurnRun<'_>, messages: &mut Vec<Message>) -> Result<(), TurnError> {
        let mut jobs = VecDeque::new();
        let mut results: Vec<Option<String>> = Vec::with_capacity(self.calls.len());
        for (index, call) in self.calls.iter().enumerate() {
            results.push(None);
            if let Some(approval_id) = &call.approval_id {
                let status = match call.permission {
                    Permission::Approved | Permission::Refused(_) => "approved",
                    Permission::Denied(text) if text.contains("denied") => "denied",
                    _ => "expired",
                };
                run.emit(&ChatEvent::ToolDecision {
                    tool: call.call.name.clone(),
                    round: self.number,
                    tool_id: call.call.id.clone(),
                    approval_id: approval_id.clone(),
                    status: status.to_owned(),
                })?;
            }
            match (&call.permission, &call.tool) {
                (Permission::Denied(text), _) => {
                    self.store(run, index, text, true, Duration::ZERO)?;
                    results[index] = Some((*text).to_owned());
                }
                (Permission::Refused(text), _) => {
                    self.start(run, index)?;
                    let error = Err(ToolError::new(text.clone()));
                    results[index] = Some(self.finish(run, index, error, Duration::ZERO)?);
                }
                (_, Some(tool)) => jobs.push_back(Job {
                    index,
                    tool: Arc::clone(tool),
                    arguments: call.arguments.clone(),
                    cancel: Cancel::new(),
                }),
                (_, None) => {}
            }
        }
        if jobs.len() == 1 {
            // The turn's own handle: a cancel reaches the tool without a detour.
            for job in jobs {
                if run.cancel.is_set() {
                    return Err(TurnError::Llm(LlmError::Cancelled));
                }
                self.start(run, job.index)?;
                let started = Instant::now();
                let result = call_tool(&*job.tool, &job.arguments, &Owned::of(run), run.cancel);
                results[job.index] = Some(self.finish(run, job.index, result, started.elapsed())?);
            }
        } else {
            self.run_together(run, jobs, &mut results)?;
        }
        self.add_to_prompt(results, messages);
        if run.cancel.is_set() {
            return Err(TurnError::Llm(LlmError::Cancelled));
        }
        Ok(())
    }

    fn run_together(
        &self,
        run: &TurnRun<'_>,
        mut jobs: VecDeque<Job>,
        results: &mut [Option<String>],
    ) -> Result<(), TurnError> {
        let cancels: Vec<Cancel> = jobs.iter().map(|job| job.cancel.clone()).collect();
        let all = cancels.clone();
        run.cancel.set_hook(move || all.iter().for_each(Cancel::cancel));
        let (finished_tx, finished_rx) = bounded(jobs.len().max(1));
        let mut running = 0;
        let mut failed = None;
        loop {
            while running < limits::TOOLS_PARALLEL_MAX && failed.is_none() && !run.cancel.is_set() {
                let Some(job) = jobs.pop_front() else { break };
                if let Err(error) = self.start(run, job.index) {
                    failed = Some(error);
                    break;
                }
                running += 1;
                begin(run, job, &finished_tx);
            }
            if running == 0 {
                break;
            }
            let Some(finished) = next(&finished_rx) else { break };
            running -= 1;
            if failed.is_some() {
                continue; // nothing can be recorded any more: only wait for those that still run
            }
            match self.finish(run, finished.index, finished.result, finished.took) {
                Ok(text) => results[finished.index] = Some(text),
                Err(error) => {
                    cancels.iter().for_each(Cancel::cancel);
                    failed = Some(error);
                }
            }
        }
        run.cancel.clear_hook();
        failed.map_or(Ok(()), Err)
    }

    fn start(&self, run: &TurnRun<'_>, index: usize) -> Result<(), TurnError> {
        let call = &self.calls[index];
        let (tool, round, tool_id) = (call.call.name.clone(), self.number, call.call.id.clone());
        if let Permission::Rule(scope) = call.permission {
            let text = match scope {
                RuleScope::Session => "Auto-approved (session)",
                RuleScope::Permanent => "Auto-approved (permanent)",
            };
            run.emit(&ChatEvent::ToolApproval {
                tool: tool.clone(),
                round,
                tool_id: tool_id.clone(),
                text: text.to_owned(),
                approval_id: None,
            })?;
        }
        run.emit(&ChatEvent::ToolStart { tool, round, tool_id })?;
        Ok(())
    }

    /// The row first: what a client has seen must be in the conversation. The text is for the model.
    fn finish(
        &self,
        run: &TurnRun<'_>,
        index: usize,
        result: Result<String, ToolError>,
        took: Duration,
    ) -> Result<String, TurnError> {
        let call = &self.calls[index].call;
        let (text, error) = match result {
            Ok(text) => (cut(text), None),
            Err(error) => {
                let message = cut(error.message);
                (format!("Tool error: {message}"), Some(message))
            }
        };
        self.store(run, index, &text, error.is_some(), took)?;
        run.emit(&ChatEvent::ToolEnd {
            tool: call.name.clone(),
            round: self.number,
            tool_id: call.id.clone(),
            duration_ms: millis(took),
            error,
        })?;
        Ok(text)
    }

    fn store(
        &self,
        run: &TurnRun<'_>,
        index: usize,
        text: &str,
        failed: bool,
        took: Duration,
    ) -> Result<(), TurnError> {
        let call = &self.calls[index];
        // Models make names up: those would be series of their own.
        let name = call.tool.as_ref().map_or("unknown", |_| &call.call.name);
        metrics::TOOL_CALLS.add(&[&run.turn.agent, name], 1.0);
        let server = call.tool.as_ref().map_or("", |tool| tool.server());
        let (actor, target) = (format!("agent:{}", run.turn.agent), format!("{server}/{}", call.call.name));
        let detail = format!("session {}, for {}", run.turn.conversation_id, run.turn.identity);
        let entry = Entry {
            actor: &actor,
            target: target.trim_start_matches('/'),
            detail: &detail,
            result: match call.permission {
                Permission::Denied(_) => Outcome::Denied,
                _ if failed => Outcome::Failed,
                _ => Outcome::Ok,
            },
            ..Entry::ok("tool.call")
        };
        let step = StepRow {
            turn_id: run.turn.id,
            round: self.number,
            tool_id: call.call.id.clone(),
            tool: call.call.name.clone(),
            arguments: shown_arguments(call),
            said: if index == 0 { self.said.clone() } else { String::new() },
            result: text.to_owned(),
            failed,
            duration_ms: millis(took),
            position: u32::try_from(index).unwrap_or(u32::MAX),
            server: server.to_owned(),
        };
        Ok(run.inner.turns.add_step(&step, &entry)?)
    }

    fn add_to_prompt(self, results: Vec<Option<String>>, messages: &mut Vec<Message>) {
        let mut asked = Message::text(Role::Assistant, self.said);
        let mut answers = Vec::with_capacity(self.calls.len());
        for (call, text) in self.calls.into_iter().zip(results) {
            let mut answer = Message::text(Role::Tool, text.unwrap_or_default());
            answer.tool_call_id = Some(call.call.id.clone());
            asked.tool_calls.push(call.call);
            answers.push(answer);
        }
        messages.push(asked);
        messages.extend(answers);
    }
}

/// Where a call comes from, for a thread that outlives no borrow.
struct Owned {
    agent: String,
    session_id: String,
    identity: String,
}

impl Owned {
    fn of(run: &TurnRun<'_>) -> Self {
        Self {
            agent: run.turn.agent.clone(),
            session_id: run.turn.conversation_id.clone(),
            identity: run.turn.identity.clone(),
        }
    }
}

/// Starts a call on a thread of its own, or makes it here when there is no thread to give.
fn begin(run: &TurnRun<'_>, job: Job, finished_tx: &Sender<Finished>) {
    let owned = Owned::of(run);
    let handed = Arc::new(Mutex::new(Some((job, owned))));
    let (taken, tx) = (Arc::clone(&handed), finished_tx.clone());
    let body = move || {
        let Some((job, owned)) = lock(&taken).take() else { return };
        let started = Instant::now();
        let result = call_tool(&*job.tool, &job.arguments, &owned, &job.cancel);
        // The channel has room for every call of the round; its receiver waits for all of them.
        let _ = tx.send(Finished { index: job.index, result, took: started.elapsed() });
    };
    if run.inner.threads.spawn("tool-call", limits::WORKER_STACK_BYTES, body.clone()).is_err() {
        body();
    }
}

fn next(finished_rx: &Receiver<Finished>) -> Option<Finished> {
    finished_rx.recv().ok()
}

/// Makes a call. A panic of a tool is its failure, not the turn's.
fn call_tool(tool: &dyn Tool, arguments: &Value, owned: &Owned, cancel: &Cancel) -> Result<String, ToolError> {
    if cancel.is_set() {
        return Err(ToolError::new("the turn was cancelled before this call was made"));
    }
    let context = ToolContext {
        agent: &owned.agent,
        session_id: &owned.session_id,
        identity: &owned.identity,
        deadline: Instant::now() + tool.timeout(),
        cancel,
    };
    let result = catch_unwind(AssertUnwindSafe(|| tool.call(arguments, &context)));
    // A result that comes a moment late is still the result.
    if !matches!(result, Ok(Ok(_))) && Instant::now() > context.deadline {
        return Err(ToolError::new(format!("tool execution timed out after {}s", tool.timeout().as_secs())));
    }
    result.unwrap_or_else(|_| {
        log::error!("tool {} panicked", tool.spec().name);
        Err(ToolError::new("the tool crashed; the log of the hub has the details"))
    })
}

/// Cuts a tool's result at the limit, on a character boundary, and says so.
fn cut(mut text: String) -> String {
    if text.len() > limits::TOOL_RESULT_BYTES_MAX {
        let mut end = limits::TOOL_RESULT_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("\n[cut: the result was longer]");
    }
    text
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_results_are_cut_on_a_boundary() {
        assert_eq!(cut("short".into()), "short");
        let long = cut("é".repeat(limits::TOOL_RESULT_BYTES_MAX));
        assert!(long.len() < limits::TOOL_RESULT_BYTES_MAX + 40);
        assert!(long.ends_with("[cut: the result was longer]"));
    }
}
