//! `holt chat` with a person before it.

use std::collections::VecDeque;

use crossbeam_channel::{Receiver, select};

use super::command::{self, Line};
use super::follow::{Follow, Taken};
use super::frame::{self, Frame};
use super::input::{Assembler, PASTE_PAUSE};
use super::link::Target;
use super::rest;
use super::screen::Style;
use super::talk::{Talk, Told, check_message, new_session_id};
use super::view::View;
use crate::cli::{CliError, text};
use crate::limits;

/// Conversations that `/sessions` shows.
const SESSIONS_SHOWN: usize = 12;
/// Messages that `/open` shows.
const MESSAGES_SHOWN: usize = 6;
const TITLE_SHOWN: usize = 60;
const MESSAGE_SHOWN: usize = 300;

/// The dialogue.
pub(super) struct Interactive<'a> {
    talk: Talk,
    view: View,
    target: Target,
    lines_rx: &'a Receiver<String>,
    interrupts_rx: &'a Receiver<()>,
    assembler: Assembler,
    /// Typed while an answer was coming; sent one after the other.
    queue: VecDeque<String>,
    /// Approvals that wait for yes or no, the oldest first.
    asking: VecDeque<Frame>,
    /// Ctrl-C was pressed and nothing has happened since.
    interrupted: bool,
    /// Something was said in this conversation.
    spoken: bool,
    greeted: bool,
}

/// How the dialogue goes on.
#[derive(PartialEq, Eq)]
enum Next {
    On,
    Leave,
}

impl<'a> Interactive<'a> {
    pub(super) fn new(
        talk: Talk,
        view: View,
        target: Target,
        lines_rx: &'a Receiver<String>,
        interrupts_rx: &'a Receiver<()>,
    ) -> Self {
        Self {
            talk,
            view,
            target,
            lines_rx,
            interrupts_rx,
            assembler: Assembler::default(),
            queue: VecDeque::new(),
            asking: VecDeque::new(),
            interrupted: false,
            spoken: false,
            greeted: false,
        }
    }

    /// Returns when the user leaves, or the hub does not want them any more.
    pub(super) fn run(mut self) -> Result<(), CliError> {
        let result = loop {
            let events_rx = self.talk.link.events().clone();
            let next = select! {
                recv(events_rx) -> event => match self.talk.on(event.ok()) {
                    Some(told) => self.told(told),
                    None => Ok(Next::On),
                },
                recv(self.lines_rx) -> line => if let Ok(line) = line {
                    self.typed(line)
                } else {
                    Ok(Next::Leave) // the end of the input
                },
                recv(self.interrupts_rx) -> _ => self.interrupt(),
                default(self.talk.pause()) => {
                    self.talk.tick();
                    Ok(Next::On)
                }
            };
            match next {
                Ok(Next::On) => {}
                Ok(Next::Leave) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.view.screen.end_line();
        if self.spoken && matches!(result, Ok(()) | Err(CliError::Interrupted)) {
            let more = if self.talk.follow.is_waiting() { "the answer goes on; " } else { "" };
            self.view.note(&format!("{more}back to this conversation: holt chat -s {}", self.talk.follow.session_id()));
        }
        self.talk.link.close();
        result
    }

    fn told(&mut self, told: Told) -> Result<Next, CliError> {
        match told {
            Told::Up if self.talk.link.is_back() => {
                self.view.note("back again");
                self.prompt();
            }
            Told::Up => self.greet(),
            Told::Down => self.view.note("connection lost, trying again…"),
            Told::Failed(error) => {
                self.view.screen.end_line();
                return Err(error);
            }
            Told::Frame { frame, taken, .. } => self.frame(&frame, &taken),
        }
        Ok(Next::On)
    }

    fn greet(&mut self) {
        if !std::mem::replace(&mut self.greeted, true) {
            let agent = self.talk.follow.agent().unwrap_or("default");
            self.view.note(&format!("holt at {}, agent {agent}; /help lists the commands", self.target.url));
        }
        self.prompt();
    }

    fn frame(&mut self, frame: &Frame, taken: &Taken) {
        match taken {
            Taken::Nothing => {}
            Taken::Event { missing, ended } => {
                if *missing {
                    self.view.note("(some events of this answer are lost)");
                }
                self.event(frame);
                if *ended || frame.is_terminal() {
                    self.over();
                }
            }
            Taken::Queued(ahead) => self.view.note(&format!("(waits: {ahead} before it in this conversation)")),
            Taken::Lost => self.view.note("(the hub no longer has all events of this conversation)"),
            Taken::Settled => self.over(),
            Taken::Refused => {
                self.view.failed(frame);
                self.over();
            }
            Taken::Notice if frame.code == "not_running" => self.view.note("nothing is running"),
            Taken::Notice => {
                self.view.failed(frame);
                self.prompt();
            }
        }
    }

    fn event(&mut self, frame: &Frame) {
        if frame.is_first() && !self.talk.follow.is_waiting() {
            self.view.note("(another client asked something here)");
        }
        if frame.kind == "tool_decision" {
            // By whomever: this page, another device, a rule, or the time.
            let before = self.asking.len();
            self.asking.retain(|asked| asked.approval_id != frame.approval_id);
            if self.asking.len() < before {
                self.view.note(&format!("({})", frame.approval_status));
            }
            return;
        }
        // A hub that does not tell decisions shows them by what comes next.
        let decided = matches!(frame.kind.as_str(), "tool_start" | "tool_end" | "content" | "done" | "error");
        if decided && !self.asking.is_empty() {
            self.asking.clear();
            self.view.note("(decided)");
        }
        if frame.kind == "tool_approval" && frame.approval_status.is_empty() {
            self.asking.push_back(frame.clone());
            self.ask();
            return;
        }
        self.view.event(frame);
    }

    fn ask(&mut self) {
        if let Some(frame) = self.asking.front() {
            let question =
                if frame.text.is_empty() { format!("Execute tool {:?}", frame.tool) } else { frame.text.clone() };
            self.view.screen.end_line();
            self.view.screen.line(Style::Bold, &question);
            self.view.screen.piece(Style::Bold, "Allow it? [y/n/a: always in this conversation, for 15 min] ");
        }
    }

    /// A turn is over: the next message, or the prompt.
    fn over(&mut self) {
        self.interrupted = false;
        if self.talk.follow.is_waiting() {
            return;
        }
        match self.queue.pop_front() {
            Some(message) => self.send(&message),
            None => self.prompt(),
        }
    }

    fn prompt(&mut self) {
        if !self.talk.follow.is_waiting() && self.talk.link.is_up() && self.asking.is_empty() {
            self.view.screen.end_line();
            self.view.screen.piece(Style::Bold, "> ");
        }
    }

    fn typed(&mut self, first: String) -> Result<Next, CliError> {
        self.view.screen.entered();
        self.interrupted = false;
        let mut lines = vec![first];
        while let Ok(line) = self.lines_rx.recv_timeout(PASTE_PAUSE) {
            self.view.screen.entered();
            lines.push(line);
        }
        let Some(text) = self.assembler.take(&lines) else {
            self.view.screen.piece(Style::Bold, "… ");
            return Ok(Next::On);
        };
        if let Some(frame) = self.asking.front() {
            let answer = text.trim().to_ascii_lowercase();
            let action = match answer.as_str() {
                "y" | "yes" => "approve",
                "n" | "no" => "deny",
                "a" | "always" => "auto_session",
                _ => "",
            };
            if !action.is_empty() {
                let decision = frame::approval(&frame.approval_id, action);
                self.talk.link.send(&[decision]);
                self.asking.pop_front();
            }
            if !text.trim().starts_with('/') {
                self.ask();
                return Ok(Next::On);
            }
        }
        self.act(command::parse(&text))
    }

    fn act(&mut self, line: Line) -> Result<Next, CliError> {
        match line {
            Line::Message(message) => self.message(message),
            Line::Cancel => self.cancel(),
            Line::New => self.turn_to(new_session_id()?, None),
            Line::Sessions => self.sessions(),
            Line::Open(id) => self.open(&id),
            Line::Agent(None) => {
                let agent = self.talk.follow.agent().unwrap_or("default").to_owned();
                self.view.note(&format!("this is agent {agent}; /agent <name> talks to another one"));
            }
            Line::Agent(Some(agent)) => self.turn_to(new_session_id()?, Some(agent)),
            Line::Help => self.view.note(command::HELP),
            Line::Quit => return Ok(Next::Leave),
            Line::Wrong(text) => self.view.note(&text),
            Line::Empty => {}
        }
        self.prompt();
        Ok(Next::On)
    }

    fn message(&mut self, message: String) {
        if let Err(text) = check_message(&message) {
            self.view.note(&text);
        } else if !self.talk.follow.is_waiting() {
            self.send(&message);
        } else if self.queue.len() >= limits::SESSION_QUEUE_MAX {
            self.view.note("too many messages wait already; let the answer come, or /cancel it");
        } else {
            self.queue.push_back(message);
            self.view.note("(will be sent after this answer)");
        }
    }

    fn send(&mut self, message: &str) {
        self.view.begin();
        match self.talk.send(message) {
            Ok(()) => self.spoken = true,
            Err(text) => self.view.note(&text),
        }
    }

    fn cancel(&mut self) {
        self.queue.clear();
        self.asking.clear();
        if self.talk.follow.is_waiting() {
            self.talk.cancel();
        } else {
            self.view.note("nothing is running");
        }
    }

    fn interrupt(&mut self) -> Result<Next, CliError> {
        if std::mem::replace(&mut self.interrupted, true) {
            return Err(CliError::Interrupted);
        }
        self.assembler.clear();
        if self.talk.follow.is_waiting() {
            self.view.note("cancelling… (Ctrl-C again leaves)");
            self.cancel();
        } else {
            self.view.note("(Ctrl-C again or Ctrl-D leaves)");
            self.prompt();
        }
        Ok(Next::On)
    }

    fn turn_to(&mut self, session_id: String, agent: Option<String>) {
        if self.talk.follow.is_waiting() {
            self.view.note("the answer goes on without you; /open it later");
        }
        self.queue.clear();
        self.asking.clear();
        self.view.begin();
        self.view.note(&match &agent {
            Some(agent) => format!("a new conversation with agent {agent}: {session_id}"),
            None => format!("conversation {}", text::one_line(&session_id)),
        });
        self.spoken = false;
        let agent = agent.or_else(|| self.talk.follow.agent().map(str::to_owned));
        self.talk.turn_to(Follow::new(session_id, agent));
    }

    fn sessions(&mut self) {
        match rest::conversations(&self.target) {
            Err(text) => self.view.note(&text),
            Ok(found) if found.is_empty() => self.view.note("no conversations yet"),
            Ok(found) => {
                for row in found.iter().take(SESSIONS_SHOWN) {
                    let when = row.last_activity.replace('T', " ");
                    let when = when.get(..16).unwrap_or(&when);
                    let title = text::cut(&text::one_line(&row.title), TITLE_SHOWN);
                    self.view.screen.line(Style::Plain, &format!("{}  {when}  {title}", text::one_line(&row.id)));
                }
                if found.len() > SESSIONS_SHOWN {
                    self.view.note(&format!("and {} more: holt sessions list", found.len() - SESSIONS_SHOWN));
                }
            }
        }
    }

    fn open(&mut self, id: &str) {
        let found = rest::conversation(&self.target, id)
            .and_then(|row| rest::messages(&self.target, id).map(|messages| (row, messages)));
        match found {
            Err(text) => self.view.note(&text),
            Ok((row, messages)) => {
                self.turn_to(row.id, (!row.agent.is_empty()).then_some(row.agent));
                for message in messages.iter().rev().take(MESSAGES_SHOWN).rev() {
                    let who = if message.role == "user" { "> " } else { "" };
                    let content = text::cut(message.content.trim(), MESSAGE_SHOWN);
                    self.view.screen.line(Style::Dim, &format!("{who}{content}"));
                }
                self.spoken = true;
            }
        }
    }
}
