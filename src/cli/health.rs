//! `holt health`: asks a running hub whether it is well; for containers and supervisors.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::args::Args;
use super::command::{Action, Arg, Command};
use super::output::out;
use super::{CliError, Context};
use crate::config;

/// A hub that takes longer is not well.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) const COMMAND: Command = Command {
    name: "health",
    about: "Ask the hub on this machine whether it is well",
    details: "Ask the hub on this machine whether it is well: whether it answers, with its databases open. Ends with 0 if \
              so, else with 1. Where it listens is read from the configuration.",
    examples: &["holt health", "holt health --address 127.0.0.1:8080"],
    args: &[Arg::option("address", "ADDRESS", "Where the hub listens [default: as configured]")],
    action: Action::Run(run),
};

fn run(args: &Args, context: &Context) -> Result<(), CliError> {
    let listen = match args.value("address") {
        Some(address) => address.to_owned(),
        None => config::load(&context.flags, &context.env).map_err(CliError::failed)?.api.listen,
    };
    let unwell =
        |reason: &dyn std::fmt::Display| CliError::Failed(format!("the hub on {listen} is not well: {reason}"));
    let address = local(&listen).ok_or_else(|| CliError::Misused(format!("{listen:?} is no address")))?;
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /healthz?ready=true HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    };
    match ask() {
        Ok(head) if head.ends_with(" 200") => out!("ok"),
        // It speaks TLS, and says so in plain words.
        Ok(head) if head.ends_with(" 400") => out!("ok"),
        Ok(head) => Err(unwell(&head)),
        Err(error) => Err(unwell(&error)),
    }
}

/// An address that can be connected to: any interface is this machine.
fn local(listen: &str) -> Option<SocketAddr> {
    let with_host = if listen.starts_with(':') { format!("127.0.0.1{listen}") } else { listen.to_owned() };
    let mut address = with_host.to_socket_addrs().ok()?.next()?;
    if address.ip().is_unspecified() {
        let v4 = address.is_ipv4();
        address.set_ip(if v4 { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    Some(address)
}
