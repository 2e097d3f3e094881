//! The dialogue against a scripted hub: what is sent, what is shown, and what a broken line does to both.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Value, json};
use tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

use super::follow::Follow;
use super::interactive::Interactive;
use super::link::{Link, Target};
use super::once::Once;
use super::screen::Screen;
use super::talk::Talk;
use super::view::tests::Paper;
use super::view::{Shown, View};
use crate::cli::CliError;
use crate::cli::hub_url::HubUrl;
use crate::rt::Threads;

const PATIENCE: Duration = Duration::from_secs(60);

/// One accepted connection of the scripted hub.
struct Line {
    ws: WebSocket<TcpStream>,
}

/// Checks the key on the way in.
struct Key;

impl Callback for Key {
    fn on_request(self, request: &Request, response: Response) -> Result<Response, ErrorResponse> {
        assert_eq!(request.uri(), "/api/v1/ws", "the key is not in the address");
        assert_eq!(request.headers()["authorization"], "Bearer dk_test");
        Ok(response)
    }
}

impl Line {
    fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { ws: tungstenite::accept_hdr(stream, Key).unwrap() }
    }

    fn read(&mut self) -> Value {
        loop {
            match self.ws.read().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Reads an attach: the number asked for.
    fn attach(&mut self) -> Value {
        let frame = self.read();
        assert_eq!((&frame["session_id"], &frame["message"]), (&json!("s"), &Value::Null), "{frame}");
        frame["resume_after_seq"].clone()
    }

    /// Reads a message and answers the attach behind it.
    fn message(&mut self, last_seq: u64) -> Value {
        let frame = self.read();
        assert!(frame["message"].is_string(), "{frame}");
        assert_eq!(self.attach(), json!(last_seq));
        self.resumed(last_seq, true);
        frame
    }

    fn write(&mut self, mut frame: Value) {
        frame["session_id"] = json!("s");
        self.ws.send(Message::text(frame.to_string())).unwrap();
    }

    /// A conversation that does not exist yet.
    fn unknown(&mut self) {
        self.write(
            json!({"type": "error", "code": "replay_unavailable", "epoch": "e", "oldest_seq": 0, "last_seq": 0}),
        );
    }

    fn resumed(&mut self, last_seq: u64, live: bool) {
        self.write(json!({"type": "resumed", "epoch": "e", "oldest_seq": 1, "last_seq": last_seq, "live": live}));
    }

    fn delta(&mut self, seq: u64, text: &str) {
        self.write(json!({"type": "content_delta", "text": text, "seq": seq}));
    }

    /// A whole turn of three events.
    fn answer(&mut self, first_seq: u64, text: &str) {
        self.write(json!({"type": "thinking", "seq": first_seq}));
        self.write(json!({"type": "content", "text": text, "seq": first_seq + 1}));
        self.write(json!({"type": "done", "seq": first_seq + 2}));
    }
}

/// What the script has of the person before the terminal.
struct Person {
    lines_tx: Sender<String>,
    interrupts_tx: Sender<()>,
    answers: Paper,
    about: Paper,
}

impl Person {
    fn types(&self, line: &str) {
        self.lines_tx.send(line.to_owned()).unwrap();
    }

    /// Waits until the terminal shows it.
    fn sees(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.about.text().contains(text) && !self.answers.text().contains(text) {
            assert!(Instant::now() < deadline, "{text:?} is not in {:?}", self.about.text());
            std::thread::yield_now();
        }
    }
}

struct Bench {
    talk: Talk,
    view: View,
    target: Target,
    lines_rx: Receiver<String>,
    interrupts_rx: Receiver<()>,
    answers: Paper,
    about: Paper,
    threads: Threads,
    script_rx: Receiver<()>,
    /// Outlives the script: signals do not end.
    _interrupts_tx: Sender<()>,
}

/// Starts the script in a thread and connects to it.
fn bench(script: impl FnOnce(&TcpListener, Person) + Send + 'static) -> Bench {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = HubUrl::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    let (lines_tx, lines_rx) = bounded(16);
    let (interrupts_tx, interrupts_rx) = bounded(2);
    let (answers, about) = (Paper::default(), Paper::default());
    let person =
        Person { lines_tx, interrupts_tx: interrupts_tx.clone(), answers: answers.clone(), about: about.clone() };
    let threads = Threads::new();
    let (script_tx, script_rx) = bounded(1);
    let play = move || {
        script(&listener, person);
        script_tx.send(()).unwrap();
    };
    threads.spawn("scripted-hub", 512 * 1024, play).unwrap();
    let target = Target { url, key: "dk_test".to_owned(), trust: None };
    let link = Link::start(target.clone(), threads.clone()).unwrap();
    let talk = Talk::new(link, Follow::new("s".to_owned(), None));
    let view = View::new(Screen::of(answers.clone(), about.clone(), true), Shown { deltas: true, steps: true });
    Bench {
        talk,
        view,
        target,
        lines_rx,
        interrupts_rx,
        answers,
        about,
        threads,
        script_rx,
        _interrupts_tx: interrupts_tx,
    }
}

/// Plays the dialogue to its end: the result, the answers, and everything else that was shown.
fn dialogue(script: impl FnOnce(&TcpListener, Person) + Send + 'static) -> (Result<(), CliError>, String, String) {
    let Bench { talk, view, target, lines_rx, interrupts_rx, answers, about, threads, script_rx, _interrupts_tx } =
        bench(script);
    let result = Interactive::new(talk, view, target, &lines_rx, &interrupts_rx).run();
    let about = about.text();
    assert!(script_rx.recv_timeout(PATIENCE).is_ok(), "the script failed; shown was: {about}");
    assert!(threads.join_all(PATIENCE).is_empty());
    (result, answers.text(), about)
}

#[test]
fn a_line_that_breaks_in_an_answer_costs_nothing() {
    let (result, answers, about) = dialogue(|listener, person| {
        let mut line = Line::accept(listener);
        assert_eq!(line.attach(), json!(i64::MAX));
        line.unknown();
        person.types("hello");
        let message = line.message(0);
        line.write(json!({"type": "thinking", "seq": 1}));
        line.delta(2, "One ");
        line.delta(3, "two ");
        person.sees("two ");
        drop(line);
        let mut line = Line::accept(listener);
        assert_eq!(line.attach(), json!(3));
        let again = line.read();
        assert_eq!(again["message_id"], message["message_id"], "sent again under its id");
        assert_eq!(line.attach(), json!(3));
        for _ in 0..2 {
            line.resumed(4, true);
            line.delta(3, "two ");
            line.delta(4, "three");
        }
        line.write(json!({"type": "content", "text": "One two three", "seq": 5}));
        line.write(json!({"type": "done", "seq": 6}));
        person.sees("back again");
        person.sees("three\n");
        person.types("/quit");
    });
    assert!(result.is_ok());
    // The notes stand in between, so the line is ended for them.
    assert_eq!(answers, "One two \nthree\n");
    assert!(about.contains("connection lost, trying again…\n") && about.contains("back again\n"), "{about}");
    assert!(about.ends_with("holt chat -s s\n"), "{about}");
}

#[test]
fn a_hub_that_died_in_an_answer_ends_it_as_interrupted() {
    let (result, answers, about) = dialogue(|listener, person| {
        let mut line = Line::accept(listener);
        line.attach();
        line.unknown();
        person.types("hello");
        line.message(0);
        line.delta(1, "half");
        person.sees("half");
        drop(line);
        let mut line = Line::accept(listener);
        line.attach();
        line.read();
        line.attach();
        line.resumed(2, false);
        line.write(json!({"type": "error", "code": "interrupted", "message": "the hub stopped", "seq": 2}));
        line.resumed(2, false);
        person.sees("(interrupted)\n> ");
        person.types("again");
        line.message(2);
        line.answer(3, "fine");
        person.sees("fine");
        person.types("/quit");
    });
    assert!(result.is_ok());
    assert_eq!(answers, "half\nfine\n");
    assert!(about.contains("error: the hub stopped (interrupted)"), "{about}");
}

#[test]
fn ctrl_c_cancels_and_the_second_one_leaves() {
    let (result, _, about) = dialogue(|listener, person| {
        let mut line = Line::accept(listener);
        line.attach();
        line.resumed(9, false);
        person.types("long story");
        line.message(9);
        line.delta(10, "Once ");
        person.sees("Once ");
        person.interrupts_tx.send(()).unwrap();
        assert_eq!(line.read()["type"], "cancel");
        line.write(json!({"type": "error", "code": "cancelled", "message": "x", "seq": 11}));
        person.sees("cancelled\n> ");
        person.interrupts_tx.send(()).unwrap();
        person.sees("Ctrl-C again or Ctrl-D leaves");
        person.interrupts_tx.send(()).unwrap();
        assert!(matches!(line.ws.read(), Ok(Message::Close(_)) | Err(_)));
    });
    assert!(matches!(result, Err(CliError::Interrupted)), "{result:?} {about}");
}

#[test]
fn approvals_are_asked_and_answered() {
    let (result, answers, about) = dialogue(|listener, person| {
        let mut line = Line::accept(listener);
        line.attach();
        line.unknown();
        person.types("weather?");
        line.message(0);
        line.write(json!({"type": "thinking", "seq": 1}));
        let text = "Execute tool \"get_weather\" with args: {}";
        line.write(
            json!({"type": "tool_approval", "tool": "get_weather", "text": text, "approval_id": "a1", "seq": 2}),
        );
        person.sees("Allow it? [y/n/a");
        person.types("maybe");
        person.sees("min] Execute tool");
        person.types("y");
        let decision = line.read();
        assert_eq!(decision, json!({"type": "approval_response", "approval_id": "a1", "action": "approve"}));
        line.write(json!({"type": "tool_start", "tool": "get_weather", "tool_id": "c1", "seq": 3}));
        line.write(json!({"type": "tool_end", "tool": "get_weather", "tool_id": "c1", "duration_ms": 41, "seq": 4}));
        line.write(json!({"type": "content", "text": "Sunny.", "seq": 5}));
        line.write(json!({"type": "done", "seq": 6}));
        person.sees("Sunny.");
        drop(person); // the end of the input
    });
    assert!(result.is_ok());
    assert_eq!(answers, "Sunny.\n");
    assert!(about.contains("· get_weather … 41 ms\n"), "{about}");
}

#[test]
fn lines_wait_for_the_answer_and_commands_work() {
    let (result, answers, about) = dialogue(|listener, person| {
        let mut line = Line::accept(listener);
        line.attach();
        line.unknown();
        person.types("first\\");
        person.types("part");
        assert_eq!(line.message(0)["message"], "first\npart");
        line.write(json!({"type": "thinking", "seq": 1}));
        person.types("second");
        person.sees("(will be sent after this answer)");
        line.write(json!({"type": "content", "text": "A1", "seq": 2}));
        line.write(json!({"type": "done", "seq": 3}));
        assert_eq!(line.message(3)["message"], "second");
        line.answer(4, "A2");
        person.sees("A2");
        person.types("/nothing");
        person.sees("no command /nothing");
        person.types("/agent ops");
        let attach = line.read();
        let session = attach["session_id"].as_str().unwrap().to_owned();
        assert_ne!(session, "s");
        let unknown =
            json!({"type": "error", "code": "replay_unavailable", "session_id": session, "epoch": "e", "last_seq": 0});
        line.ws.send(Message::text(unknown.to_string())).unwrap();
        // What the old conversation still says is not for this one.
        line.answer(7, "A3");
        person.types("third");
        let message = line.read();
        assert_eq!((&message["agent"], &message["session_id"]), (&json!("ops"), &json!(session)));
        line.read();
        let refusal = json!({"type": "error", "code": "agent_not_found", "session_id": session, "message": "agent \"ops\" not found"});
        line.ws.send(Message::text(refusal.to_string())).unwrap();
        person.sees("(agent_not_found)");
        person.types("/quit");
    });
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(answers, "A1\nA2\n");
    assert!(about.contains("error: agent \"ops\" not found (agent_not_found)\n> "), "{about}");
}

#[test]
fn a_revoked_key_ends_the_dialogue() {
    let (result, _, _) = dialogue(|listener, _person| {
        let mut line = Line::accept(listener);
        line.attach();
        line.ws.close(Some(CloseFrame { code: 1008.into(), reason: "credential revoked".into() })).unwrap();
        while line.ws.read().is_ok() {}
    });
    assert!(matches!(&result, Err(CliError::Failed(text)) if text.contains("revoked")), "{result:?}");
}

#[test]
fn one_message_shows_its_own_answer_only() {
    let Bench { talk, view, interrupts_rx, answers, about, script_rx, .. } = bench(|listener, _person| {
        let mut line = Line::accept(listener);
        line.attach();
        line.resumed(5, true);
        line.delta(6, "somebody else's ");
        let message = line.read();
        assert_eq!(message["message"], "mine");
        line.write(json!({"type": "queued", "position": 1}));
        line.attach();
        line.resumed(6, true);
        line.delta(7, "words");
        line.write(json!({"type": "content", "text": "somebody else's words", "seq": 8}));
        line.write(json!({"type": "done", "seq": 9}));
        line.answer(10, "my answer");
        assert!(matches!(line.ws.read(), Ok(Message::Close(_)) | Err(_)));
    });
    Once::new(talk, view, &interrupts_rx, false).run("mine").unwrap();
    assert!(script_rx.recv_timeout(PATIENCE).is_ok());
    assert_eq!(answers.text(), "my answer\n");
    assert_eq!(about.text(), "");
}
