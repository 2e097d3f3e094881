//! What the progress lines of a machine mean (contract agent-link 4.5): tools that begin and end, rounds, text. Outputs
//! of our agents say it beside the line; those of the reference say it only there.

use std::collections::VecDeque;
use std::time::Instant;

use crate::agents::remote::RemoteSink;
use crate::config::parse_go_duration;
use crate::fleet::wire::{Metadata, SessionOutput};
use crate::limits;
use crate::rt::text::cut;

/// Tools that may run at once; beyond it the oldest counts as ended.
const OPEN_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 128;

/// The events of one turn.
pub(super) struct Progress {
    round: u32,
    tools: u32,
    open: VecDeque<Open>,
    /// What the sink was given as text.
    pub(super) answer: String,
    /// The last text, to see that a report is the same.
    last: String,
    pub(super) tokens_in: u64,
    pub(super) tokens_out: u64,
}

struct Open {
    name: String,
    id: String,
    since: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            round: 0,
            tools: 0,
            open: VecDeque::new(),
            answer: String::new(),
            last: String::new(),
            tokens_in: 0,
            tokens_out: 0,
        }
    }

    /// Turns an output into events. Its ending is for the caller to see.
    pub(super) fn take(&mut self, output: &SessionOutput, sink: &mut dyn RemoteSink) {
        let none = Metadata::default();
        let metadata = output.metadata.as_ref().unwrap_or(&none);
        self.round = metadata.round.or_else(|| round_of(&output.delta)).unwrap_or(self.round);
        if metadata.tokens_in.is_some() || metadata.tokens_out.is_some() {
            self.tokens_in = self.tokens_in.max(metadata.tokens_in.unwrap_or(0));
            self.tokens_out = self.tokens_out.max(metadata.tokens_out.unwrap_or(0));
            sink.usage(self.tokens_in.saturating_add(self.tokens_out));
        }
        match output.stage.as_str() {
            "thinking" => sink.thinking(output.delta.trim_end()),
            "tool_call" => {
                let name = metadata.tool.as_deref().or_else(|| called_tool(&output.delta));
                self.tool_start(name.unwrap_or("tool"), sink);
            }
            "tool_result" => {
                let said = ended_tool(&output.delta);
                let name = metadata.tool.as_deref().or_else(|| said.as_ref().map(|ended| ended.name)).unwrap_or("tool");
                let ok = metadata.tool_ok.or_else(|| said.as_ref().map(|ended| ended.ok)).unwrap_or(true);
                let ms = metadata.duration_ms.or_else(|| said.as_ref().and_then(|ended| ended.duration_ms));
                self.tool_end(name, ms, (!ok).then_some("the tool failed on the machine"), sink);
            }
            "answer" => self.text(&output.delta, sink),
            // The caller says what went wrong.
            "error" => {}
            _ => {
                if !output.done && !output.delta.is_empty() {
                    sink.thinking(output.delta.trim_end());
                }
            }
        }
    }

    /// The report of a closing message: shown, unless it was shown as the last text.
    pub(super) fn report(&mut self, report: &str, sink: &mut dyn RemoteSink) {
        if !report.trim().is_empty() && report.trim() != self.last.trim() {
            self.text(report, sink);
        }
    }

    /// Tools that never ended: the turn is over.
    pub(super) fn close(&mut self, sink: &mut dyn RemoteSink) {
        while let Some(open) = self.open.pop_front() {
            let ms = u64::try_from(open.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            sink.tool_end(&open.name, self.round, &open.id, ms, Some("the session ended before its result"));
        }
    }

    fn text(&mut self, text: &str, sink: &mut dyn RemoteSink) {
        if text.is_empty() || self.answer.len() + text.len() > limits::ANSWER_BYTES_MAX {
            return;
        }
        if !self.answer.is_empty() {
            self.answer.push_str("\n\n");
        }
        self.answer.push_str(text);
        text.clone_into(&mut self.last);
        sink.text(text);
    }

    fn tool_start(&mut self, name: &str, sink: &mut dyn RemoteSink) {
        if self.open.len() >= OPEN_MAX {
            self.end_at(0, None, None, sink);
        }
        self.tools += 1;
        let name = cut(name, NAME_BYTES_MAX).to_owned();
        let id = format!("m{}", self.tools);
        sink.tool_start(&name, self.round, &id);
        self.open.push_back(Open { name, id, since: Instant::now() });
    }

    fn tool_end(&mut self, name: &str, ms: Option<u64>, error: Option<&str>, sink: &mut dyn RemoteSink) {
        // The reference names the generic call at the end and the tool behind it at the start.
        let name = cut(name, NAME_BYTES_MAX);
        let found = self.open.iter().position(|open| open.name == name).or((!self.open.is_empty()).then_some(0));
        match found {
            Some(at) => self.end_at(at, ms, error, sink),
            None => {
                self.tool_start(name, sink);
                self.end_at(0, ms, error, sink);
            }
        }
    }

    fn end_at(&mut self, at: usize, ms: Option<u64>, error: Option<&str>, sink: &mut dyn RemoteSink) {
        if let Some(open) = self.open.remove(at) {
            let own = || u64::try_from(open.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            sink.tool_end(&open.name, self.round, &open.id, ms.unwrap_or_else(own), error);
        }
    }
}

struct Ended<'a> {
    name: &'a str,
    ok: bool,
    duration_ms: Option<u64>,
}

/// `[Round N] ...` or `[Round N done] ...`.
fn round_of(delta: &str) -> Option<u32> {
    let rest = delta.trim_start().strip_prefix("[Round ")?;
    rest.split([']', ' ']).next()?.parse().ok()
}

/// `[Tool] NAME ARGUMENTS`; of the generic call, the tool that it calls.
fn called_tool(delta: &str) -> Option<&str> {
    let mut words = delta.trim().strip_prefix("[Tool]")?.split_whitespace();
    match words.next()? {
        "call_tool" => Some(words.next().filter(|word| !word.starts_with('{')).unwrap_or("call_tool")),
        name => Some(name),
    }
}

/// `[Tool done] NAME (ok, 123B, 45.1ms)`.
fn ended_tool(delta: &str) -> Option<Ended<'_>> {
    let rest = delta.trim().strip_prefix("[Tool done]")?.trim();
    let (name, result) = rest.split_once(" (").unwrap_or((rest, ""));
    let mut parts = result.trim_end_matches(')').split(',').map(str::trim);
    let ok = parts.next() != Some("error");
    let duration = parts.next_back().and_then(parse_go_duration);
    Some(Ended { name: name.trim(), ok, duration_ms: duration.and_then(|time| u64::try_from(time.as_millis()).ok()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes down what it is told.
    #[derive(Default)]
    struct Told(Vec<String>);

    impl RemoteSink for Told {
        fn thinking(&mut self, text: &str) {
            self.0.push(format!("thinks {text}"));
        }
        fn tool_start(&mut self, tool: &str, round: u32, id: &str) {
            self.0.push(format!("start {tool} {round} {id}"));
        }
        fn tool_end(&mut self, tool: &str, round: u32, id: &str, duration_ms: u64, error: Option<&str>) {
            let failed = if error.is_some() { " failed" } else { "" };
            self.0.push(format!("end {tool} {round} {id} {duration_ms}{failed}"));
        }
        fn text(&mut self, text: &str) {
            self.0.push(format!("text {text}"));
        }
        fn usage(&mut self, tokens: u64) {
            self.0.push(format!("tokens {tokens}"));
        }
    }

    fn output(stage: &str, delta: &str) -> SessionOutput {
        SessionOutput { stage: stage.into(), delta: delta.into(), ..SessionOutput::default() }
    }

    #[test]
    fn lines_of_the_reference_become_events() {
        let (mut progress, mut told) = (Progress::new(), Told::default());
        for (stage, delta) in [
            ("thinking", "[Round 2] AI thinking...\n"),
            ("tool_call", "[Tool] disk_overview "),
            ("tool_call", r#"[Tool] call_tool mem_detail {"a":"b"}"#),
            ("tool_result", "[Tool done] disk_overview (ok, 123B, 45.1ms)"),
            ("tool_result", "[Tool done] call_tool (error, 9B, 1m2.3s)"),
            ("tool_result", "[Tool done] late (ok, 1B, ?)"),
            ("answer", "half"),
            ("answer", "1. Summary\n"),
        ] {
            progress.take(&output(stage, delta), &mut told);
        }
        progress.report("1. Summary", &mut told);
        progress.take(&output("tool_call", "[Tool] slow"), &mut told);
        progress.close(&mut told);
        let lines: Vec<&str> = told.0.iter().map(String::as_str).collect();
        assert_eq!(
            lines[..6],
            [
                "thinks [Round 2] AI thinking...",
                "start disk_overview 2 m1",
                "start mem_detail 2 m2",
                "end disk_overview 2 m1 45",
                "end mem_detail 2 m2 62300 failed",
                "start late 2 m3"
            ]
        );
        assert_eq!(lines[7..10], ["text half", "text 1. Summary\n", "start slow 2 m4"]);
        assert!(lines[10].starts_with("end slow 2 m4") && lines[10].ends_with("failed"));
        assert_eq!(progress.answer, "half\n\n1. Summary\n");
        progress.report("another", &mut told);
        assert!(progress.answer.ends_with("another"));
    }

    #[test]
    fn what_our_agents_say_beside_a_line_counts() {
        let (mut progress, mut told) = (Progress::new(), Told::default());
        let mut call = output("tool_call", "[Tool] x y");
        call.metadata = Some(Metadata { tool: Some("host_cpu".into()), round: Some(4), ..Metadata::default() });
        let mut result = output("tool_result", "");
        result.metadata = Some(Metadata {
            tool: Some("host_cpu".into()),
            tool_ok: Some(false),
            duration_ms: Some(7),
            tokens_in: Some(100),
            tokens_out: Some(20),
            ..Metadata::default()
        });
        progress.take(&call, &mut told);
        progress.take(&result, &mut told);
        progress.take(&output("odd", "something"), &mut told);
        assert_eq!(told.0, ["start host_cpu 4 m1", "tokens 120", "end host_cpu 4 m1 7 failed", "thinks something"]);
    }
}
