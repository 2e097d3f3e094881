//! `holt health`: asks a running hub whether it is well; for containers and supervisors.

use std::io::{self, Read, Write};

use super::args::Args;
use super::command::{Action, Arg, Command};
use super::output::out;
use super::{CliError, Context, hub};
use crate::tls;

pub(super) const COMMAND: Command = Command {
    name: "health",
    about: "Ask the hub on this machine whether it is well",
    details: "Ask the hub on this machine whether it is well: whether it answers, with its databases open. Ends with 0 if \
              so, else with 1. A hub that runs on the data directory is found wherever it listens.",
    examples: &["holt health", "holt health --address 127.0.0.1:8080"],
    args: &[Arg::option(
        "address",
        "ADDRESS",
        "Where the hub listens [default: where the one of this data directory does]",
    )],
    action: Action::Run(run),
};

fn run(args: &Args, context: &Context) -> Result<(), CliError> {
    let found = match args.value("address") {
        Some(address) => hub::at(address, context)?,
        None => hub::own(context)?,
    };
    let unwell = |reason: &str| CliError::Failed(format!("the hub at {} is not well: {reason}", found.url));
    let trust = found.trust(None)?;
    let ask = || -> io::Result<String> {
        let stream = hub::dial(&found.url, trust.as_ref())?;
        (&stream).write_all(b"GET /healthz?ready=true HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut head = [0; 12];
        (&stream).read_exact(&mut head)?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    };
    match ask() {
        Ok(head) if head.ends_with(" 200") => out!("ok"),
        Ok(head) => Err(unwell(&format!("it answered {head}"))),
        Err(error) => Err(unwell(&tls::explain(&error))),
    }
}
