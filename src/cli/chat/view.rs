//! How a turn looks: text as it comes, tool steps in a line each, and what went wrong.

use super::frame::Frame;
use super::screen::{Screen, Style};

/// What is shown of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Text as it comes; otherwise the whole answer at its end, which nothing can take back.
    pub(super) deltas: bool,
    /// Tool steps, tokens and costs.
    pub(super) steps: bool,
}

/// Shows turns.
pub(super) struct View {
    pub(super) screen: Screen,
    shown: Shown,
    /// Deltas of the rounds before, and of the current one.
    earlier: String,
    round: String,
    /// The tool whose line waits for its end.
    open_tool: Option<String>,
    usage: Option<(u64, f64)>,
}

impl View {
    pub(super) fn new(screen: Screen, shown: Shown) -> Self {
        Self { screen, shown, earlier: String::new(), round: String::new(), open_tool: None, usage: None }
    }

    /// Shows an event of a turn.
    pub(super) fn event(&mut self, frame: &Frame) {
        match frame.kind.as_str() {
            "thinking" => self.thinking(frame),
            "content_delta" => self.delta(&frame.text),
            "tool_start" if self.shown.steps => self.tool_start(frame),
            "tool_end" if self.shown.steps => self.tool_end(frame),
            "tool_approval" if self.shown.steps && !frame.approval_status.is_empty() => {
                self.screen.line(Style::Dim, &format!("· {}: {}", frame.tool, frame.text));
            }
            "cost_limit" | "cost_warning" => self.screen.line(Style::Dim, &frame.text),
            "stream_rollback" => self.rollback(),
            "usage" => self.usage = Some((frame.tokens, frame.cost_usd)),
            "content" => self.content(&frame.text),
            "done" => self.done(),
            "error" => self.failed(frame),
            _ => {}
        }
    }

    /// An error: of a turn, or about a message.
    pub(super) fn failed(&mut self, frame: &Frame) {
        self.begin();
        self.screen.end_answer();
        let text = if frame.message.is_empty() { &frame.code } else { &frame.message };
        match frame.code.as_str() {
            "cancelled" => self.screen.line(Style::Dim, "cancelled"),
            "" => self.screen.line(Style::Red, &format!("error: {text}")),
            code => self.screen.line(Style::Red, &format!("error: {text} ({code})")),
        }
    }

    /// Something that is not the hub's words.
    pub(super) fn note(&mut self, text: &str) {
        self.screen.end_line();
        self.screen.line(Style::Dim, text);
    }

    /// Forgets the turn of before.
    pub(super) fn begin(&mut self) {
        self.earlier.clear();
        self.round.clear();
        self.usage = None;
        if self.open_tool.take().is_some() {
            self.screen.end_line();
        }
    }

    fn thinking(&mut self, frame: &Frame) {
        if frame.is_first() {
            self.begin();
        } else if !self.round.is_empty() {
            if !self.earlier.is_empty() {
                self.earlier.push_str("\n\n");
            }
            self.earlier.push_str(&std::mem::take(&mut self.round));
            self.screen.end_answer();
        }
        if self.shown.steps {
            self.screen.fleeting("thinking…");
        }
    }

    fn delta(&mut self, text: &str) {
        self.round.push_str(text);
        if self.shown.deltas {
            self.screen.answer(text);
        }
    }

    fn rollback(&mut self) {
        if !std::mem::take(&mut self.round).is_empty() && self.shown.deltas {
            self.note("(the line to the model broke: the answer begins again)");
        }
    }

    fn tool_start(&mut self, frame: &Frame) {
        self.screen.end_line();
        self.screen.piece(Style::Dim, &format!("· {} …", frame.tool));
        self.open_tool = Some(frame.tool_id.clone());
    }

    fn tool_end(&mut self, frame: &Frame) {
        let same_line = self.open_tool.take().is_some_and(|id| id == frame.tool_id) && self.screen.in_line();
        if !same_line {
            self.screen.end_line();
            self.screen.piece(Style::Dim, &format!("· {} …", frame.tool));
        }
        if frame.error.is_empty() {
            self.screen.line(Style::Dim, &format!(" {} ms", frame.duration_ms));
        } else {
            self.screen.line(Style::Red, &format!(" failed: {}", frame.error));
        }
    }

    /// The whole answer: what of it is not on the screen yet.
    fn content(&mut self, text: &str) {
        let streamed = if self.shown.deltas { self.round.as_str() } else { "" };
        let all = format!("{}\n\n{streamed}", self.earlier);
        let known = |shown: &str| self.shown.deltas && text.trim() == shown.trim();
        if !known(streamed) && !known(&all) {
            if let Some(rest) = text.strip_prefix(streamed) {
                self.screen.answer(rest);
            } else {
                self.note("(the whole answer differs from what came so far; it is:)");
                self.screen.answer(text);
            }
        }
        self.screen.end_answer();
    }

    fn done(&mut self) {
        self.screen.end_answer();
        self.screen.end_line();
        if let Some((tokens, cost_usd)) = self.usage.take()
            && self.shown.steps
            && tokens > 0
        {
            let cost = if cost_usd > 0.0 { format!(" · ${cost_usd:.4}") } else { String::new() };
            self.screen.line(Style::Dim, &format!("{tokens} tokens{cost}"));
        }
        self.begin();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::rt::lock;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    /// What was written, shared with the test.
    #[derive(Clone, Default)]
    pub(crate) struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Paper {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(lock(&self.0).clone()).unwrap()
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const TOOLS: [&str; 9] = [
        r#"{"type":"thinking","seq":1}"#,
        r#"{"type":"content_delta","text":"Let me look.","seq":2}"#,
        r#"{"type":"tool_start","tool":"host_cpu","tool_id":"c1","round":1,"seq":3}"#,
        r#"{"type":"tool_end","tool":"host_cpu","tool_id":"c1","round":1,"duration_ms":12,"seq":4}"#,
        r#"{"type":"thinking","round":1,"seq":5}"#,
        r#"{"type":"content_delta","text":"All is ","seq":6}"#,
        r#"{"type":"content_delta","text":"well.\u001b[2J","seq":7}"#,
        r#"{"type":"usage","tokens":45,"cost_usd":0.00045,"seq":8}"#,
        r#"{"type":"content","text":"All is well.\u001b[2J","seq":9}"#,
    ];

    fn show(terminal: bool, shown: Shown, frames: &[&str]) -> (String, String) {
        let (answer, about) = (Paper::default(), Paper::default());
        let mut view = View::new(Screen::of(answer.clone(), about.clone(), terminal), shown);
        for frame in frames.iter().chain(&[r#"{"type":"done","seq":10}"#]) {
            view.event(&Frame::parse(frame).unwrap());
        }
        (answer.text(), about.text())
    }

    #[test]
    fn a_turn_on_a_terminal() {
        let (answer, about) = show(true, Shown { deltas: true, steps: true }, &TOOLS);
        assert_eq!(answer, "Let me look.\nAll is well.[2J\n");
        assert_eq!(about, "· host_cpu … 12 ms\n45 tokens · $0.0004\n");
    }

    #[test]
    fn a_turn_in_a_pipe_is_its_answer_alone() {
        let (answer, about) = show(false, Shown { deltas: false, steps: false }, &TOOLS);
        assert_eq!(answer, "All is well.\u{1b}[2J\n");
        assert_eq!(about, "");
    }

    #[test]
    fn the_whole_answer_has_the_last_word() {
        let check = |deltas: &[&str], content: &str, expected: &str, corrected: bool| {
            let mut frames: Vec<String> = vec![r#"{"type":"thinking"}"#.to_owned()];
            frames.extend(deltas.iter().map(|delta| match *delta {
                "<" => r#"{"type":"stream_rollback"}"#.to_owned(),
                text => serde_json::json!({"type": "content_delta", "text": text}).to_string(),
            }));
            frames.push(serde_json::json!({"type": "content", "text": content}).to_string());
            let frames: Vec<&str> = frames.iter().map(String::as_str).collect();
            let (answer, about) = show(true, Shown { deltas: true, steps: true }, &frames);
            assert_eq!(answer, expected);
            assert_eq!(about.contains("the whole answer differs"), corrected, "{about}");
        };
        check(&["It is ", "fine."], "It is fine.", "It is fine.\n", false);
        check(&["It is fine. "], "It is fine.", "It is fine. \n", false);
        check(&["It is fine."], "It is fine.\n\n_Noted._", "It is fine.\n\n_Noted._\n", false);
        check(&[], "It is fine.", "It is fine.\n", false);
        check(&["It is [x] fine."], "It is fine.", "It is [x] fine.\nIt is fine.\n", true);
        check(&["It i", "<", "All is well."], "All is well.", "It i\nAll is well.\n", false);
        check(&[], "", "", false);
    }

    #[test]
    fn failures_are_told_with_their_code() {
        let check = |frame: &str, expected: &str| {
            let (answer, about) = (Paper::default(), Paper::default());
            let mut view = View::new(Screen::of(answer, about.clone(), true), Shown { deltas: true, steps: true });
            view.event(&Frame::parse(r#"{"type":"content_delta","text":"half"}"#).unwrap());
            view.event(&Frame::parse(frame).unwrap());
            assert_eq!(about.text(), expected);
        };
        check(
            r#"{"type":"error","code":"interrupted","message":"the hub stopped"}"#,
            "error: the hub stopped (interrupted)\n",
        );
        check(r#"{"type":"error","code":"cancelled","message":"x"}"#, "cancelled\n");
        check(r#"{"type":"error","message":"x"}"#, "error: x\n");
    }

    #[test]
    fn a_failed_tool_says_why() {
        let frames = [
            r#"{"type":"tool_start","tool":"a","tool_id":"1"}"#,
            r#"{"type":"tool_start","tool":"b","tool_id":"2"}"#,
            r#"{"type":"tool_end","tool":"a","tool_id":"1","duration_ms":3,"error":"no access"}"#,
        ];
        let (_, about) = show(true, Shown { deltas: true, steps: true }, &frames);
        assert_eq!(about, "· a …\n· b …\n· a … failed: no access\n");
    }
}
