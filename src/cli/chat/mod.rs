//! `holt chat`: talks to a hub from a terminal or a script.
//!
//! The main thread owns everything that is shown and sent. `chat-socket` (one for each connection) reads the socket,
//! `chat-input` reads stdin, `chat-signals` waits for Ctrl-C; all hand over through bounded channels.

mod command;
mod follow;
mod frame;
mod input;
mod interactive;
mod key;
mod link;
mod once;
mod rest;
mod screen;
mod socket;
mod talk;
#[cfg(test)]
mod tests;
mod view;

use std::io::{self, IsTerminal, Read};

use self::follow::Follow;
use self::interactive::Interactive;
use self::link::{Link, Target};
use self::once::Once;
use self::screen::Screen;
use self::talk::Talk;
use self::view::{Shown, View};
use super::args::Args;
use super::command::{Action, Arg, Command};
use super::{CliError, Context, hub};
use crate::chat::engine::check_session_id;
use crate::limits;
use crate::rt::Threads;

pub(super) const COMMAND: Command = Command {
    name: "chat",
    about: "Talk to an agent of the hub",
    details: "Talk to an agent of the hub: a dialogue, or with a message one answer.\n\
              On the hub's own machine nothing needs to be set up: the command makes itself a key in the hub's data \
              directory. For a hub elsewhere make one there (holt keys create) and give it in HOLT_KEY. A lost \
              connection is taken up again by itself, without losing or repeating anything.\n\
              With a message, or with one on stdin, the answer alone goes to stdout; into a pipe it goes as a whole, \
              once it is complete. Ends with 0 when the message was answered, 1 when not, 130 after Ctrl-C.",
    examples: &[
        "holt chat",
        "holt chat \"how is this machine doing?\"",
        "df -h | holt chat",
        "holt chat -s 8f0c21d4a97b3e65 \"and since yesterday?\"",
        "HOLT_KEY=dk_... holt chat --url http://pi:8080 --json \"disk usage\" | jq -r .type",
    ],
    args: &[
        Arg::word("message", "One message; without it a dialogue, or what comes through a pipe").optional(),
        Arg::option("session", "ID", "Go on with a conversation").short('s'),
        Arg::option("agent", "NAME", "Which agent to talk to").short('a'),
        Arg::option("url", "URL", "Address of the hub [env: HOLT_URL] [default: the one that runs here]"),
        Arg::option(
            "key",
            "KEY",
            "API key; others on this machine can see options, so better use the variable [env: HOLT_KEY]",
        ),
        Arg::option(
            "ca-file",
            "FILE",
            "PEM file of whoever signed the hub's certificate, if the world does not know them [env: HOLT_CA_FILE]",
        ),
        Arg::flag("json", "Print each event as the hub sends it, a line of JSON"),
    ],
    action: Action::Run(run),
};

fn run(args: &Args, context: &Context) -> Result<(), CliError> {
    let owned = |name: &str| args.value(name).map(str::to_owned);
    let (session, json) = (owned("session"), args.flag("json"));
    if let Some(id) = &session {
        check_session_id(id).map_err(CliError::failed)?;
    }
    let message = match owned("message") {
        Some(message) => Some(message),
        None if io::stdin().is_terminal() => None,
        None => Some(read_stdin()?),
    };
    if let Some(message) = &message {
        talk::check_message(message).map_err(CliError::Failed)?;
    } else if json {
        return Err(CliError::failed("--json needs a message: holt chat --json \"...\""));
    }
    let found = hub::find(args.value("url"), context)?;
    let trust = found.trust(args.value("ca-file").or_else(|| context.env.get("HOLT_CA_FILE")))?;
    // Before a key is made for it.
    drop(hub::connect(&found.url).map_err(|_| CliError::Failed(link::nobody_answers(&found.url)))?);
    let key = key::find(owned("key"), context, found.is_own)?;
    let session_id = session.map_or_else(talk::new_session_id, Ok)?;
    let threads = Threads::new();
    let interrupts = input::interrupts(&threads)?;
    let target = Target { url: found.url, key, trust };
    let link = Link::start(target.clone(), threads.clone())?;
    let talk = Talk::new(link, Follow::new(session_id, owned("agent")));
    let screen = Screen::of_process(&context.env);
    if let Some(message) = message {
        let shown = Shown { deltas: screen.shows_answers(), steps: screen.shows_steps() };
        return Once::new(talk, View::new(screen, shown), &interrupts.rx, json).run(&message);
    }
    let lines_rx = input::lines(&threads)?;
    let view = View::new(screen, Shown { deltas: true, steps: true });
    Interactive::new(talk, view, target, &lines_rx, &interrupts.rx).run()
}

fn read_stdin() -> Result<String, CliError> {
    let mut bytes = Vec::new();
    // One more than allowed is enough to see that it is too much.
    let most = limits::MESSAGE_BYTES_MAX as u64 + 2;
    io::stdin()
        .lock()
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::Failed(format!("read stdin: {error}")))?;
    let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    if text.trim().is_empty() {
        return Err(CliError::failed("there is no message: give one, pipe one in, or run holt chat in a terminal"));
    }
    Ok(text)
}
