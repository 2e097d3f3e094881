//! The calls of one round: up to four at the same time, each told before it begins and when it has ended.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use serde_json::{Map, Value};

use crate::diag::known_as;
use crate::fleet::link::runner::{Stage, StreamCallback};
use crate::fleet::runner::Inner;
use crate::fleet::runner::rounds::spoken;
use crate::fleet::wire::Metadata;
use crate::limits;
use crate::llm::ToolCall;
use crate::rt::text::cut;
use crate::rt::{Cancel, lock};
use crate::tools::{Tool, ToolContext, ToolSet};

/// Most bytes of the arguments in a line of progress.
const ARGUMENTS_SHOWN_MAX: usize = 1024;

/// A call as it will be made, or why it will not be.
pub(super) struct Call {
    name: String,
    /// As the model wrote them; empty for none.
    shown: String,
    plan: Result<(Arc<dyn Tool>, Value), String>,
}

/// A call on its way; owns what its thread needs.
struct Job {
    index: usize,
    tool: Arc<dyn Tool>,
    arguments: Value,
    cancel: Cancel,
    timeout: Duration,
}

struct Finished {
    index: usize,
    result: Result<String, String>,
    took: Duration,
}

impl Call {
    pub(super) fn planned(tools: &ToolSet, call: &ToolCall) -> Self {
        let plan = arguments(&call.arguments).and_then(|arguments| {
            if let Some(tool) = tools.find(&call.name) {
                return Ok((Arc::clone(tool), arguments));
            }
            // By the reference's name; only what is offered here is called.
            let ours =
                known_as(&call.name, arguments).and_then(|(name, ours)| Some((Arc::clone(tools.find(name)?), ours)));
            ours.ok_or_else(|| format!("there is no tool named {:?} here", call.name))
        });
        Self { plan, ..Self::refused(call, "") }
    }

    pub(super) fn refused(call: &ToolCall, why: &str) -> Self {
        let shown = call.arguments.trim();
        let shown = if shown == "{}" { "" } else { cut(shown, ARGUMENTS_SHOWN_MAX) };
        Self { name: call.name.clone(), shown: shown.to_owned(), plan: Err(why.to_owned()) }
    }
}

fn arguments(text: &str) -> Result<Value, String> {
    let value = match text.trim() {
        "" => Value::Object(Map::new()),
        text => serde_json::from_str(text).map_err(|_| "the arguments are not valid JSON".to_owned())?,
    };
    if value.is_object() { Ok(value) } else { Err("the arguments must be a JSON object".to_owned()) }
}

/// Makes the calls; the results for the model in the order of the calls. After a cancel the rest is not made.
pub(super) fn make(
    inner: &Inner,
    calls: &[Call],
    metadata: &Metadata,
    callback: &mut StreamCallback<'_>,
    cancel: &Cancel,
) -> Vec<String> {
    let mut results = vec![String::new(); calls.len()];
    let mut jobs = VecDeque::new();
    for (index, call) in calls.iter().enumerate() {
        match &call.plan {
            Err(why) => {
                begin(call, metadata, callback);
                results[index] = end(call, Err(why.clone()), Duration::ZERO, metadata, callback);
            }
            Ok((tool, arguments)) => jobs.push_back(Job {
                index,
                tool: Arc::clone(tool),
                arguments: arguments.clone(),
                cancel: Cancel::new(),
                timeout: inner.settings.tool_timeout.min(tool.timeout()),
            }),
        }
    }
    // Tools hook their own blocking calls to their own handle: one handle has room for one.
    let cancels: Vec<Cancel> = jobs.iter().map(|job| job.cancel.clone()).collect();
    cancel.set_hook(move || cancels.iter().for_each(Cancel::cancel));
    let alone = jobs.len() == 1;
    let (finished_tx, finished_rx) = bounded(jobs.len().max(1));
    let mut running = 0;
    loop {
        while running < limits::TOOLS_PARALLEL_MAX && !cancel.is_set() {
            let Some(job) = jobs.pop_front() else { break };
            begin(&calls[job.index], metadata, callback);
            running += 1;
            start(inner, job, alone, &finished_tx);
        }
        if running == 0 {
            break;
        }
        let Ok(finished) = finished_rx.recv() else { break };
        running -= 1;
        let call = &calls[finished.index];
        results[finished.index] = end(call, finished.result, finished.took, metadata, callback);
    }
    cancel.clear_hook();
    results
}

fn begin(call: &Call, metadata: &Metadata, callback: &mut StreamCallback<'_>) {
    let metadata = Metadata { tool: Some(call.name.clone()), ..metadata.clone() };
    callback(&format!("[Tool] {} {}", call.name, call.shown), Stage::ToolCall, metadata);
}

/// Tells the end of a call; what the model gets of it.
fn end(
    call: &Call,
    result: Result<String, String>,
    took: Duration,
    metadata: &Metadata,
    callback: &mut StreamCallback<'_>,
) -> String {
    let is_ok = result.is_ok();
    let text = match result {
        Ok(text) if text.len() > limits::TOOL_RESULT_BYTES_MAX => {
            format!("{}\n[cut: the result was longer]", cut(&text, limits::TOOL_RESULT_BYTES_MAX))
        }
        Ok(text) => text,
        Err(why) => format!("error: {}", cut(&why, limits::TOOL_RESULT_BYTES_MAX)),
    };
    let word = if is_ok { "ok" } else { "error" };
    let line = format!("[Tool done] {} ({word}, {}B, {})", call.name, text.len(), spoken(took));
    let metadata = Metadata {
        tool: Some(call.name.clone()),
        tool_ok: Some(is_ok),
        duration_ms: Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
        ..metadata.clone()
    };
    callback(&line, Stage::ToolResult, metadata);
    text
}

/// Starts a call on a thread of its own; here when it is alone or there is no thread to give.
fn start(inner: &Inner, job: Job, alone: bool, finished_tx: &Sender<Finished>) {
    let handed = Arc::new(Mutex::new(Some(job)));
    let tx = finished_tx.clone();
    let body = move || {
        let Some(job) = lock(&handed).take() else { return };
        let started = Instant::now();
        let result = call_tool(&job);
        // The channel has room for every call of the round; its receiver waits for all of them.
        let _ = tx.send(Finished { index: job.index, result, took: started.elapsed() });
    };
    if alone || inner.threads.spawn("tool-call", limits::WORKER_STACK_BYTES, body.clone()).is_err() {
        body();
    }
}

/// Makes a call. A panic of a tool is its failure, not the session's.
fn call_tool(job: &Job) -> Result<String, String> {
    let deadline = Instant::now() + job.timeout;
    let context = ToolContext { agent: "machine", session_id: "", identity: "", deadline, cancel: &job.cancel };
    match catch_unwind(AssertUnwindSafe(|| job.tool.call(&job.arguments, &context))) {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(_)) if Instant::now() > deadline => {
            Err(format!("the tool did not answer within {}", spoken(job.timeout)))
        }
        Ok(Err(error)) => Err(error.message),
        Err(_) => {
            log::error!("tool {} panicked", job.tool.spec().name);
            Err("the tool crashed; the log of the machine has the details".to_owned())
        }
    }
}
