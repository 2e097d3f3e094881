//! The tool loop: a model is asked, its calls are made, until it has nothing left to ask (contract agent-link 4.5, 4.8).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::fleet::link::runner::{RunError, Stage, StreamCallback};
use crate::fleet::runner::calls::{Call, make};
use crate::fleet::runner::{Inner, Model, Scene, Unheard, budget, prompt};
use crate::fleet::wire::Metadata;
use crate::limits;
use crate::llm::{Completion, LlmError, Message, Provider, Request, Role, ToolSpec, Usage};
use crate::rt::Cancel;

/// Share of the window that a prompt may take, and from which share of that on the answer is asked for, in percent.
const WINDOW_PERCENT: usize = 80;
const LAST_CALL_PERCENT: usize = 90;

/// How often a prompt that a model refused as too long is halved.
const SHRINKS_MAX: u32 = 2;

/// Who is asked.
pub(super) enum Mind<'a> {
    Model(&'a dyn Model, &'a Scene),
    Local(&'a dyn Provider),
}

/// What is told of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Inspect and diagnose: every text, the last one too.
    Run,
    /// The reply is returned, not told.
    Chat,
    /// Tool calls alone.
    Quiet,
}

pub(super) struct Rounds<'a> {
    pub(super) mind: Mind<'a>,
    pub(super) style: Style,
    pub(super) rounds_max: u32,
    pub(super) inner: &'a Inner,
}

/// What a run has used and done so far.
#[derive(Default)]
struct Progress {
    round: u32,
    usage: Usage,
    /// How often each call was made.
    repeats: HashMap<(String, String), u32>,
}

impl Progress {
    /// The beginning of what an output tells; tokens are those of the whole run so far.
    fn metadata(&self) -> Metadata {
        let read = self.usage.input_tokens.saturating_add(self.usage.cached_tokens);
        let known = read > 0 || self.usage.output_tokens > 0;
        Metadata {
            round: Some(self.round),
            tokens_in: known.then_some(read),
            tokens_out: known.then_some(self.usage.output_tokens),
            ..Metadata::default()
        }
    }
}

impl Rounds<'_> {
    /// Works until there is an answer; `messages` then hold everything but that. An empty text means that the model
    /// had nothing to say.
    pub(super) fn run(
        &self,
        messages: &mut Vec<Message>,
        callback: &mut StreamCallback<'_>,
        cancel: &Cancel,
    ) -> Result<String, RunError> {
        let specs = self.inner.tools.specs();
        let mut progress = Progress::default();
        let mut wrapping_up = false;
        loop {
            progress.round += 1;
            let is_last = progress.round >= self.rounds_max || self.is_nearly_full(messages, &specs);
            if is_last && !wrapping_up && progress.round > 1 {
                wrapping_up = true;
                let ask = if self.style == Style::Chat { prompt::ANSWER_NOW } else { prompt::REPORT_NOW };
                messages.push(Message::text(Role::User, ask));
            }
            // The last round offers no tools, so that it ends in an answer.
            let offered = if wrapping_up { &[][..] } else { &specs[..] };
            let completion = self.think(messages, offered, &mut progress, callback, cancel)?;
            let text = completion.text.trim().to_owned();
            if completion.tool_calls.is_empty() || wrapping_up {
                if text.is_empty() && progress.round > 1 && !wrapping_up {
                    // It used tools and then said nothing: asked once more, without tools.
                    messages.push(Message::text(Role::User, prompt::ANSWER_NOW));
                    wrapping_up = true;
                    continue;
                }
                return Ok(self.finish(text, progress.round >= self.rounds_max, &progress, callback));
            }
            if !text.is_empty() && self.style != Style::Quiet {
                callback(&text, Stage::Answer, progress.metadata());
            }
            self.call(completion, messages, &mut progress, callback, cancel)?;
        }
    }

    fn finish(&self, text: String, cut_off: bool, progress: &Progress, callback: &mut StreamCallback<'_>) -> String {
        let text = match self.style {
            Style::Chat if cut_off && text.is_empty() => {
                "[incomplete] The model used all its rounds and gave no answer. Ask for less at once.".to_owned()
            }
            Style::Chat if cut_off => format!("[incomplete] {text}"),
            _ => text,
        };
        if self.style == Style::Run && !text.is_empty() {
            callback(&text, Stage::Answer, progress.metadata());
        }
        text
    }

    fn is_nearly_full(&self, messages: &[Message], specs: &[ToolSpec]) -> bool {
        let last_call = self.tokens_max(specs) * LAST_CALL_PERCENT / 100;
        matches!(self.mind, Mind::Model(..)) && budget::tokens(messages) > last_call
    }

    /// What the messages may take beside the tools.
    fn tokens_max(&self, specs: &[ToolSpec]) -> usize {
        let window = self.inner.settings.context_tokens * WINDOW_PERCENT / 100;
        window.saturating_sub(budget::of_tools(specs))
    }

    /// One call of the model.
    fn think(
        &self,
        messages: &mut Vec<Message>,
        offered: &[ToolSpec],
        progress: &mut Progress,
        callback: &mut StreamCallback<'_>,
        cancel: &Cancel,
    ) -> Result<Completion, RunError> {
        let by_model = matches!(self.mind, Mind::Model(..));
        let round = progress.round;
        if self.style != Style::Quiet {
            let who = if by_model && self.style == Style::Run { "AI thinking" } else { "thinking" };
            callback(&format!("[Round {round}] {who}..."), Stage::Thinking, progress.metadata());
        }
        let started = Instant::now();
        let mut tokens_max = self.tokens_max(offered);
        let mut shrinks = 0;
        let completion = loop {
            if cancel.is_set() {
                return Err(RunError::Cancelled);
            }
            if by_model {
                budget::fit(messages, tokens_max);
            }
            let error = match self.ask(messages, offered, cancel) {
                Ok(completion) => break completion,
                Err(LlmError::Cancelled) => return Err(RunError::Cancelled),
                Err(error) => error,
            };
            // Perhaps too long for this model, whatever its window was said to be.
            tokens_max = tokens_max.min(budget::tokens(messages)) / 2;
            shrinks += 1;
            let may_shrink = matches!(error, LlmError::Status { status: 400 | 413, .. }) && shrinks <= SHRINKS_MAX;
            if !may_shrink || !budget::fit(messages, tokens_max) {
                log::warn!("remote session, round {round}: {error}");
                return Err(RunError::Failed(error.public().1));
            }
        };
        let used = &completion.usage;
        progress.usage.input_tokens += used.input_tokens;
        progress.usage.cached_tokens += used.cached_tokens;
        progress.usage.output_tokens += used.output_tokens;
        if self.style == Style::Chat {
            let took = spoken(started.elapsed());
            callback(&format!("[Round {round} done] {took}"), Stage::Thinking, progress.metadata());
        }
        Ok(completion)
    }

    fn ask(&self, messages: &[Message], offered: &[ToolSpec], cancel: &Cancel) -> Result<Completion, LlmError> {
        let request = Request { model: "", messages, tools: offered, stream: false };
        match &self.mind {
            Mind::Model(model, scene) => model.ask(scene, request, cancel),
            Mind::Local(planner) => planner.complete(request, &mut Unheard, cancel),
        }
    }

    /// Makes the calls of a round and adds them to the prompt.
    fn call(
        &self,
        completion: Completion,
        messages: &mut Vec<Message>,
        progress: &mut Progress,
        callback: &mut StreamCallback<'_>,
        cancel: &Cancel,
    ) -> Result<(), RunError> {
        let mut asked = Message::text(Role::Assistant, completion.text);
        let mut calls = Vec::new();
        for call in completion.tool_calls.into_iter().take(limits::TOOL_CALLS_MAX) {
            let seen = progress.repeats.entry((call.name.clone(), call.arguments.clone())).or_default();
            *seen += 1;
            calls.push(if *seen > limits::TOOL_REPEATS_MAX {
                Call::refused(&call, "this very call was made before; use its result")
            } else {
                Call::planned(&self.inner.tools, &call)
            });
            asked.tool_calls.push(call);
        }
        let results = make(self.inner, &calls, &progress.metadata(), callback, cancel);
        if cancel.is_set() {
            return Err(RunError::Cancelled);
        }
        let answers = asked.tool_calls.iter().zip(results).map(|(call, result)| {
            let mut answer = Message::text(Role::Tool, result);
            answer.tool_call_id = Some(call.id.clone());
            answer
        });
        let answers: Vec<Message> = answers.collect();
        messages.push(asked);
        messages.extend(answers);
        Ok(())
    }
}

/// `45.1ms`, `1.2s`, `1m2.3s`.
pub(super) fn spoken(took: Duration) -> String {
    let seconds = took.as_secs_f64();
    let short = |value: f64| {
        let text = format!("{value:.1}");
        text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
    };
    if seconds < 0.999_95 {
        format!("{}ms", short(seconds * 1000.0))
    } else if seconds < 59.95 {
        format!("{}s", short(seconds))
    } else {
        format!("{}m{}s", took.as_secs() / 60, short(seconds % 60.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (millis, expected) in
            [(0.0, "0ms"), (0.44, "0.4ms"), (45.1, "45.1ms"), (999.0, "999ms"), (1_234.0, "1.2s"), (62_300.0, "1m2.3s")]
        {
            assert_eq!(spoken(Duration::from_secs_f64(millis / 1000.0)), expected);
        }
    }
}
